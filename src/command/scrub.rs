//! `forebay scrub`.

use std::io::{IsTerminal as _, stderr};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use forebay_store::scrub::{ScrubProgress, scrub_closed_blocking};

use crate::cli::ScrubArgs;

pub(super) fn run(data: &Path, args: &ScrubArgs) -> Result<ExitCode> {
    let shows = stderr().is_terminal();
    let progress = |progress: &ScrubProgress| {
        if shows {
            let percent = 100 * progress.bytes / progress.bytes_total.max(1);
            eprint!("\r{percent:3}% of {} bytes", progress.bytes_total);
        }
        ControlFlow::Continue(())
    };
    let rate = args.rate.map(|mib| mib << 20);
    let report = scrub_closed_blocking(data, rate, progress)
        .with_context(|| format!("scrub {}", data.display()))?;
    if shows {
        eprintln!();
    }
    for damage in &report.damage {
        let objects: Vec<&str> = damage.objects.iter().map(|(_, key)| key.as_str()).collect();
        println!("{}: {}", objects.join(", "), damage.error);
    }
    println!(
        "{} bytes in {} extents: {}",
        report.progress.bytes,
        report.progress.extents,
        match report.damage.len() {
            0 => "whole".to_owned(),
            count => format!("{count} damaged"),
        }
    );
    Ok(ExitCode::from(u8::from(!report.damage.is_empty())))
}
