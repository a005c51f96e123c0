//! `forebay guard`: the process that looks after a mount; see `guard.rs`.

use std::process::ExitCode;

use anyhow::Result;

pub(super) fn run(process: u32, connection: u64) -> Result<ExitCode> {
    crate::guard::watch(process, connection)?;
    Ok(ExitCode::SUCCESS)
}
