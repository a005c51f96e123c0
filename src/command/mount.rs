//! `forebay mount`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::serve::exit_code;
use crate::cli::MountArgs;
use crate::node::{self, Place};

pub(super) fn run(args: &MountArgs) -> Result<ExitCode> {
    let place = Place::new(&args.source.origin, &args.cache, &args.region);
    let place = place.context("--cache-dir is missing")?;
    let end = node::mount(place, args, || {
        let access = if args.is_read_only() {
            "read-only"
        } else {
            "read-write"
        };
        println!("forebay {}", env!("CARGO_PKG_VERSION"));
        println!("  files    {:28} {access}", args.dir.display());
        println!("  cache    {:28}", place.cache_dir.display());
        println!("ready");
    })?;
    Ok(exit_code(&end))
}
