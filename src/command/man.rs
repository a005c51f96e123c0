//! `forebay man`: the pages of `man/`, from the definitions in `cli.rs`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::cli::Cli;

pub(super) fn run(dir: &Path) -> Result<ExitCode> {
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .with_context(|| format!("write man pages to {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}
