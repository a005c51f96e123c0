//! The README's commands, pasted.
//!
//! What needs S3 clients is pasted by `tests/clients`, which installs them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{FOREBAY, Home, Server};

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The commands of all `sh` blocks.
fn commands() -> Vec<String> {
    let text = readme();
    let blocks = text.split("```sh\n").skip(1);
    let blocks = blocks.map(|rest| rest.split_once("```").expect("a block ends").0.to_owned());
    let blocks: Vec<String> = blocks.collect();
    assert!(blocks.len() >= 4, "{blocks:?}");
    blocks
}

#[test]
fn every_block_is_a_shell_script() {
    for block in commands() {
        let status = Command::new("bash")
            .args(["-n", "-c", &block])
            .status()
            .unwrap();
        assert!(status.success(), "{block}");
    }
}

#[test]
fn the_first_command_serves_and_mounts() {
    let block = commands().remove(0);
    let args = block
        .trim()
        .rsplit_once("cargo run --release -- ")
        .expect("it runs forebay")
        .1;
    let home = Home::new();
    let mut command = Command::new("bash");
    command
        .arg("-c")
        .arg(format!("exec {FOREBAY} {args}"))
        .current_dir(home.path())
        .env("FOREBAY_LISTEN", "127.0.0.1:0");
    let server = Server::start(command, Some(home.path().join("mnt")));
    assert!(home.path().join("forebay-data/root-key").is_file());
    fs::create_dir(server.mnt().join("demo")).unwrap();
    server.stop_ok();
}

#[test]
fn every_flag_that_is_named_exists() {
    let text = readme();
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let uses = lines.flat_map(|line| line.split("forebay ").skip(1));
    let known = [
        "serve",
        "mount",
        "warm",
        "cache",
        "account",
        "key",
        "fsck",
        "scrub",
        "presign",
        "completions",
    ];
    for subcommand in uses.filter_map(|rest| rest.split([' ', '`', '\n']).next()) {
        if !known.contains(&subcommand) {
            continue;
        }
        let output = Command::new(FOREBAY)
            .args([subcommand, "--help"])
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        assert!(output.status.success(), "{subcommand}");
    }
}
