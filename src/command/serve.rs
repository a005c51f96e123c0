//! `forebay serve`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use bytesize::ByteSize;

use super::variable;
use crate::cli::{Durability, ServeArgs};
use crate::node::{self, Place};
use crate::root_key::{self, Source};
use crate::run::{self, End};

/// A shell reports a process that a signal ended as 128 and the signal's number.
const EXIT_SIGNAL: u8 = 128;

pub(super) fn run(data: &Path, args: &ServeArgs) -> Result<ExitCode> {
    let origin = args.node.origin.as_deref();
    let place = origin.and_then(|origin| Place::new(origin, &args.node.cache, &args.region));
    let end = match place {
        Some(place) => run_node(place, args)?,
        None => run_store(data, args)?,
    };
    Ok(exit_code(&end))
}

/// How a shell is told of an end.
pub(super) fn exit_code(end: &End) -> ExitCode {
    match end {
        End::Stopped => ExitCode::SUCCESS,
        End::Abandoned(signal) => ExitCode::from(EXIT_SIGNAL + signal),
    }
}

fn run_node(place: Place<'_>, args: &ServeArgs) -> Result<End> {
    let started = Instant::now();
    node::serve(place, args, |address| {
        print!("{}", node_places(place, args, address));
        println!("ready in {:.2} s", started.elapsed().as_secs_f64());
    })
}

fn run_store(data: &Path, args: &ServeArgs) -> Result<End> {
    let started = Instant::now();
    std::fs::create_dir_all(data).with_context(|| format!("make {}", data.display()))?;
    let (root, source) = root_key::load_or_make(data, &variable)?;
    let key = format!("  keys     {:28} {}", root.id, secret_place(&source));
    run::serve(data, args, root, |address| {
        println!("{}{key}", places(data, args, address));
        println!("ready in {:.2} s", started.elapsed().as_secs_f64());
    })
}

/// How large a cache may be.
fn size_text(size: Option<ByteSize>) -> String {
    match size {
        Some(size) => format!("at most {size}"),
        None => "as much as is free".to_owned(),
    }
}

/// What is where at a node.
fn node_places(place: Place<'_>, args: &ServeArgs, address: SocketAddr) -> String {
    let size = size_text(place.cache_size);
    let lines: [(&str, String, &str); 3] = [
        (
            "origin",
            place.origin.to_owned(),
            "stores all there is; nothing is stored here",
        ),
        (
            "S3",
            format!("http://{address}"),
            "the origin's accounts, keys and buckets",
        ),
        ("cache", place.cache_dir.display().to_string(), &size),
    ];
    let mount = args.mount.as_ref().map(|dir| {
        let place = dir.display().to_string();
        (
            "files",
            place,
            "the origin's buckets, with this server's key",
        )
    });
    lines.iter().chain(&mount).fold(
        format!("forebay {}\n", env!("CARGO_PKG_VERSION")),
        |mut text, (name, place, note)| {
            writeln!(text, "  {name:8} {place:28} {note}").expect("a String takes all");
            text
        },
    )
}

/// What is where.
fn places(data: &Path, args: &ServeArgs, address: SocketAddr) -> String {
    let mut text = format!("forebay {}\n", env!("CARGO_PKG_VERSION"));
    let styles = match &args.base_domain[..] {
        [] => "path style".to_owned(),
        domains => format!(
            "path style, and virtual-host style below {}",
            domains.join(", ")
        ),
    };
    let mut line = |name: &str, place: String, note: &str| {
        writeln!(text, "  {name:8} {place:28} {note}").expect("a String takes all that is written");
    };
    line(
        "S3",
        format!("http://{address}"),
        &format!("region {}, {styles}", args.region),
    );
    if let Some(dir) = &args.mount {
        let shown = match &args.mount_source {
            None => "one directory per bucket".to_owned(),
            Some(source) => format!("{source}"),
        };
        line(
            "files",
            dir.display().to_string(),
            &format!("read-write, {shown}"),
        );
    }
    let promise = match args.durability {
        Durability::Full => "answered writes are on the disk",
        Durability::None => "NOT DURABLE: a power cut may lose or damage recent writes",
    };
    line("data", data.display().to_string(), promise);
    let cache = &args.node.cache;
    if let Some(dir) = &cache.cache_dir {
        let size = size_text(cache.cache_size);
        line(
            "cache",
            dir.display().to_string(),
            &format!("bodies that were read, {size}"),
        );
    }
    text
}

fn secret_place(source: &Source) -> String {
    match source {
        Source::Environment => "(from FOREBAY_ROOT_ACCESS_KEY)".to_owned(),
        Source::File(path) => format!("(secret in {}, mode 0600)", path.display()),
    }
}
