//! `forebay mount`.

use std::process::ExitCode;

use anyhow::Result;

use super::serve::exit_code;
use crate::cli::MountArgs;
use crate::node::{self, Place};

pub(super) fn run(args: &MountArgs) -> Result<ExitCode> {
    let place = Place {
        origin: &args.source.origin,
        cache_dir: &args.cache_dir,
        cache_size: args.cache_size,
        region: &args.region,
        ca_file: args.origin_ca_file.as_deref(),
    };
    let end = node::mount(place, args, || {
        let access = if args.read_only {
            "read-only"
        } else {
            "read-write"
        };
        println!("forebay {}", env!("CARGO_PKG_VERSION"));
        println!("  files    {:28} {access}", args.dir.display());
        println!("  cache    {:28}", args.cache_dir.display());
        println!("ready");
    })?;
    Ok(exit_code(&end))
}
