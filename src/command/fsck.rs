//! `forebay fsck`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use forebay_store::fsck::{FsckOptions, fsck_blocking};
use forebay_store::rebuild::rebuild_index_blocking;

use crate::cli::FsckArgs;

pub(super) fn run(data: &Path, args: &FsckArgs) -> Result<ExitCode> {
    if args.rebuild_index {
        return rebuild(data);
    }
    let mut options = FsckOptions::new(data);
    options.deep = args.deep;
    options.repair = args.repair;
    let report = fsck_blocking(&options).with_context(|| format!("check {}", data.display()))?;
    for finding in &report.findings {
        println!("{finding}");
    }
    println!(
        "{} objects in {} extents of {} bytes: {}",
        report.objects,
        report.extents,
        report.bytes,
        match report.findings.len() {
            0 => "clean".to_owned(),
            count => format!("{count} findings"),
        }
    );
    if report.unsynced > 0 {
        println!(
            "{} of them are looked at by the next start: their last write was not known to be on the disk",
            report.unsynced
        );
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn rebuild(data: &Path) -> Result<ExitCode> {
    let report = rebuild_index_blocking(data)
        .with_context(|| format!("rebuild the index of {}", data.display()))?;
    for skipped in &report.skipped {
        println!("left out: {skipped}");
    }
    println!("{} objects of {} bytes", report.objects, report.bytes);
    if !report.is_salvaged {
        println!(
            "accounts and access keys of the old index are lost: make new keys with `forebay key create`"
        );
    }
    if let Some(old) = &report.old_index {
        println!("the old index is kept as {}", old.display());
    }
    Ok(ExitCode::SUCCESS)
}
