//! `forebay cache`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use bytesize::ByteSize;

use crate::admin::{CacheStatus, CachedObject, PeerStatus, Reply, Request, Which, socket};
use crate::cli::{CacheArgs, CacheCommand};
use crate::source::Source;

pub(super) fn run(args: &CacheArgs) -> Result<ExitCode> {
    let dir = &args.cache_dir;
    match &args.command {
        CacheCommand::Status { json } => status(dir, *json)?,
        CacheCommand::Ls { source } => list(dir, source.as_deref())?,
        CacheCommand::Evict { source } => {
            let freed = count(
                dir,
                &Request::EvictCache {
                    which: which(source)?,
                },
            )?;
            println!("{} dropped", ByteSize(freed));
        }
        CacheCommand::Pin { source } => {
            let objects = count(dir, &pin(source, true)?)?;
            println!("{objects} objects pinned");
        }
        CacheCommand::Unpin { source } => {
            let objects = count(dir, &pin(source, false)?)?;
            println!("{objects} objects not pinned");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(dir: &Path, request: &Request) -> Result<Reply> {
    let dir_shown = dir.display();
    match socket::ask(dir, request)? {
        Some(Reply::Refused(why)) => bail!("{why}"),
        Some(reply) => Ok(reply),
        None => bail!("no node runs on the cache in {dir_shown}"),
    }
}

/// All keys below a source; a whole bucket without a prefix.
fn which(source: &str) -> Result<Which> {
    let source: Source = source.parse()?;
    Ok(Which {
        bucket: Some(source.bucket),
        prefix: source.prefix,
    })
}

fn pin(source: &str, pinned: bool) -> Result<Request> {
    let which = which(source)?;
    Ok(Request::PinCache { which, pinned })
}

fn count(dir: &Path, request: &Request) -> Result<u64> {
    match ask(dir, request)? {
        Reply::Bytes(count) | Reply::Objects(count) => Ok(count),
        other => bail!("the node gave another answer than asked for: {other:?}"),
    }
}

fn status(dir: &Path, as_json: bool) -> Result<()> {
    let Reply::CacheStatus(status) = ask(dir, &Request::CacheStatus)? else {
        bail!("the node gave another answer than asked for");
    };
    if as_json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print!("{}", shown(&status));
    }
    Ok(())
}

/// The prefixes that are read most, one a line.
fn hottest(status: &CacheStatus) -> impl Iterator<Item = (&'static str, String)> {
    status.hottest.iter().enumerate().map(|(at, hot)| {
        let bytes = ByteSize(hot.bytes).to_string();
        let text = format!("{bytes:>10}  s3://{}/{}", hot.bucket, hot.prefix);
        (if at == 0 { "hottest" } else { "" }, text)
    })
}

/// What a person reads.
fn shown(status: &CacheStatus) -> String {
    let share = |part: u64, of: u64| {
        let part = u128::from(part) * 1000;
        part.checked_div(u128::from(of))
            .map_or("-".to_owned(), |mille| {
                format!("{}.{} %", mille / 10, mille % 10)
            })
    };
    let reads = status.hits + status.partial_hits + status.misses;
    let mut lines = vec![
        ("origin", status.origin.clone()),
        (
            "size",
            format!(
                "{} of {} ({}), {} pinned, {} index",
                ByteSize(status.bytes),
                ByteSize(status.capacity_bytes),
                share(status.bytes, status.capacity_bytes),
                ByteSize(status.pinned_bytes),
                ByteSize(status.index_bytes),
            ),
        ),
        (
            "objects",
            format!("{} ({} blocks)", status.objects, status.blocks),
        ),
        (
            "reads",
            format!(
                "{reads}: {} hit ({}), {} in part, {} missed; {} went past",
                status.hits,
                share(status.hits, reads),
                status.partial_hits,
                status.misses,
                status.bypasses,
            ),
        ),
        (
            "bytes",
            format!(
                "{} from the cache, {} from the origin",
                ByteSize(status.bytes_from_cache),
                ByteSize(status.bytes_fetched),
            ),
        ),
        (
            "blocks",
            format!(
                "{} evicted, {} damaged",
                status.evicted_blocks, status.corrupt_blocks
            ),
        ),
        (
            "queue",
            format!("{} to be prestaged", status.prestage_queued),
        ),
    ];
    lines.extend(hottest(status));
    if let Some(peers) = &status.peers {
        lines.extend(peer_lines(peers));
    }
    if let Some(why) = &status.degraded {
        lines.push(("DEGRADED", why.clone()));
    }
    lines.iter().fold(String::new(), |mut all, (name, text)| {
        writeln!(all, "{name:9} {text}").expect("a String takes all");
        all
    })
}

fn peer_lines(peers: &PeerStatus) -> Vec<(&'static str, String)> {
    let done = format!(
        "{} had all, {} asked the origin, {} passed over; {} from them, {} to them",
        peers.hits,
        peers.misses,
        peers.passed_over,
        ByteSize(peers.bytes_from),
        ByteSize(peers.bytes_to),
    );
    let each = peers.list.iter();
    let each = each.map(|(address, standing)| ("", format!("{address} {standing}")));
    std::iter::once(("peers", done)).chain(each).collect()
}

fn list(dir: &Path, source: Option<&str>) -> Result<()> {
    let which = source.map(which).transpose()?.unwrap_or_default();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut after = None;
    loop {
        let which = which.clone();
        let Reply::Cached(page) = ask(dir, &Request::ListCache { which, after })? else {
            bail!("the node gave another answer than asked for");
        };
        for object in &page.objects {
            writeln!(out, "{}", line(object)).context("print")?;
        }
        after = page.next;
        if after.is_none() {
            return out.flush().context("print");
        }
    }
}

fn line(object: &CachedObject) -> String {
    let pinned = if object.pinned { "pinned" } else { "-" };
    let CachedObject {
        bucket,
        key,
        size,
        cached_bytes,
        ..
    } = object;
    format!("{cached_bytes:>14} {size:>14} {pinned:6}  s3://{bucket}/{key}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::HotPrefix;

    #[test]
    fn a_status_is_shown_with_its_shares() {
        let status = CacheStatus {
            origin: "http://store:9000".to_owned(),
            bytes: 1 << 30,
            capacity_bytes: 4 << 30,
            hits: 3,
            partial_hits: 0,
            misses: 1,
            hottest: vec![
                HotPrefix {
                    bucket: "data".to_owned(),
                    prefix: "train/".to_owned(),
                    bytes: 3 << 20,
                },
                HotPrefix {
                    bucket: "data".to_owned(),
                    prefix: String::new(),
                    bytes: 10,
                },
            ],
            peers: Some(PeerStatus {
                list: vec![("http://n1:9000".to_owned(), "alive".to_owned())],
                hits: 7,
                ..PeerStatus::default()
            }),
            degraded: Some("no space".to_owned()),
            ..CacheStatus::default()
        };
        let text = shown(&status);
        assert!(text.contains("origin    http://store:9000\n"), "{text}");
        assert!(text.contains("1.0 GiB of 4.0 GiB (25.0 %)"), "{text}");
        assert!(text.contains("4: 3 hit (75.0 %)"), "{text}");
        assert!(text.contains("peers     7 had all, 0 asked"), "{text}");
        assert!(
            text.contains("\n          http://n1:9000 alive\n"),
            "{text}"
        );
        assert!(text.contains("DEGRADED  no space"), "{text}");
        assert!(
            text.contains(
                "hottest      3.0 MiB  s3://data/train/\n                10 B  s3://data/\n"
            ),
            "{text}"
        );
        assert!(shown(&CacheStatus::default()).contains("0 hit (-)"));
    }
}
