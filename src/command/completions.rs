//! `forebay completions`.

use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

pub(super) fn run(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "forebay", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).context("write to standard output")?;
    Ok(ExitCode::SUCCESS)
}
