//! forebay: the program. Parse, run, exit code; nothing else.

mod admin;
mod cli;
mod command;
mod config;
mod guard;
mod heap;
mod mounted;
mod mountpoint;
mod node;
mod port;
mod root_key;
mod run;
mod sign;
mod source;
mod tier;

use std::ffi::OsString;
use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;
use config::Refused;
use tracing_subscriber::EnvFilter;

/// What a shell takes for a wrong command line.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    heap::keep_freed();
    let args: Vec<OsString> = std::env::args_os().collect();
    let cli = match config::parse(&args, |path| fs::read_to_string(path).context("read it")) {
        Ok(cli) => cli,
        Err(Refused::CommandLine(err)) => err.exit(),
        Err(Refused::File(err)) => return complain(&err, EXIT_USAGE),
    };
    let filter = match EnvFilter::try_new(&cli.log) {
        Ok(filter) => filter,
        Err(err) => return complain(&anyhow::anyhow!("--log {}: {err}", cli.log), EXIT_USAGE),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    command::run(&cli).unwrap_or_else(|err| complain(&err, 1))
}

/// Prints an error with all its causes on one line.
fn complain(err: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("forebay: {err:#}");
    ExitCode::from(code)
}
