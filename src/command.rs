//! The subcommands, one file each.

mod account;
mod cache;
mod completions;
mod fsck;
mod guard;
mod key;
mod man;
mod mount;
mod presign;
mod scrub;
mod serve;
mod warm;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};

/// Does what the command line asks.
///
/// # Errors
/// What went wrong, for a person; `main` prints the chain.
pub(crate) fn run(cli: &Cli) -> Result<ExitCode> {
    match &cli.command {
        Command::Serve(args) => serve::run(&cli.data, args),
        Command::Mount(args) => mount::run(args),
        Command::Account(command) => account::run(&cli.data, command),
        Command::Key(command) => key::run(&cli.data, command),
        Command::Fsck(args) => fsck::run(&cli.data, args),
        Command::Scrub(args) => scrub::run(&cli.data, args),
        Command::Presign(args) => presign::run(&cli.data, args),
        Command::Warm(args) => warm::run(args),
        Command::Cache(args) => cache::run(args),
        Command::Completions { shell } => completions::run(*shell),
        Command::Guard {
            process,
            connection,
        } => guard::run(*process, *connection),
        Command::Man { dir } => man::run(dir),
    }
}

/// A variable of the environment.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
