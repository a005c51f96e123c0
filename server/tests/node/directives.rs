//! The table of directives times what the cache has, by what the origin was asked for.

use super::fleet::{Fleet, MIB, asked, content, outcome};

const LEN: usize = 2 * MIB + MIB / 2;
const BLOCKS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing is cached.
    Cold,
    /// All of the current version is.
    Warm,
    /// All of another version is.
    Stale,
}

/// What one read comes to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    outcome: Option<&'static str>,
    status: &'static str,
    /// Heads that the origin was asked for.
    asks: usize,
    /// Bytes that it was asked for by grants.
    fetched: usize,
    /// Requests in all.
    requests_with_body: usize,
    /// Blocks that are cached more than before.
    kept: usize,
}

const HIT: Came = Came {
    outcome: Some("HIT"),
    status: "forebay; hit",
    asks: 1,
    fetched: 0,
    requests_with_body: 0,
    kept: 0,
};
const FILLED: Came = Came {
    outcome: Some("MISS"),
    status: "forebay; fwd=miss; stored",
    asks: 1,
    fetched: LEN,
    requests_with_body: 0,
    kept: BLOCKS,
};
const MISSED: Came = Came {
    outcome: Some("MISS"),
    status: "forebay; fwd=miss",
    asks: 1,
    fetched: LEN,
    requests_with_body: 0,
    kept: 0,
};
const PASSED: Came = Came {
    outcome: Some("BYPASS"),
    status: "forebay; fwd=bypass",
    asks: 0,
    fetched: 0,
    requests_with_body: 1,
    kept: 0,
};

#[test]
fn each_cell_asks_the_origin_for_what_it_says() {
    use Before::{Cold, Stale, Warm};
    let table: [(Option<&str>, Before, Came); 9] = [
        (None, Cold, FILLED),
        (None, Warm, HIT),
        (None, Stale, FILLED),
        (Some("no-cache"), Cold, MISSED),
        (Some("no-cache"), Warm, HIT),
        (Some("No-Cache, max-age=0"), Stale, MISSED),
        (Some("no-store"), Cold, PASSED),
        (Some("no-store"), Warm, PASSED),
        (Some("no-cache, no-store"), Stale, PASSED),
    ];
    for (directive, before, expected) in table {
        let cell = format!("{directive:?} {before:?}");
        let fleet = Fleet::start();
        let (old, new) = (content(LEN, 1), content(LEN, 2));
        fleet.put("/bkt/k", &old);
        let mut body = &old;
        if before != Cold {
            fleet.warm("/bkt/k");
        }
        if before == Stale {
            fleet.put("/bkt/k", &new);
            body = &new;
        }
        let kept = fleet.kept();
        assert_eq!(kept, if before == Cold { 0 } else { BLOCKS }, "{cell}");
        let headers: Vec<_> = directive
            .map(|directive| ("cache-control", directive))
            .into_iter()
            .collect();
        let answer = fleet.get("/bkt/k", &headers);
        assert_eq!(answer.status, 200, "{cell}");
        assert!(answer.body == *body, "{cell}: the current bytes");
        fleet.wait_for_blocks(kept + expected.kept);
        let seen = fleet.tap.take();
        let (asks, fetched) = asked(&seen);
        assert_eq!(
            (asks, fetched),
            (expected.asks, expected.fetched as u64),
            "{cell}"
        );
        let plain = seen
            .iter()
            .filter(|seen| seen.header("authorization").is_some());
        assert_eq!(plain.count() - asks, expected.requests_with_body, "{cell}");
        assert_eq!(outcome(&answer), expected.outcome, "{cell}");
        assert_eq!(
            answer.header("cache-status"),
            Some(expected.status),
            "{cell}"
        );
    }
}

#[test]
fn what_is_partly_here_is_fetched_partly() {
    for (directive, status, kept) in [
        ("max-age=0", "forebay; fwd=partial; stored", BLOCKS),
        ("no-cache", "forebay; fwd=partial", 1),
    ] {
        let fleet = Fleet::start();
        let body = content(LEN, 1);
        fleet.put("/bkt/k", &body);
        let first = fleet.get("/bkt/k", &[("range", "bytes=1048576-1048576")]);
        assert_eq!((first.status, first.body.len()), (206, 1));
        fleet.wait_for_blocks(1);
        fleet.tap.take();
        let answer = fleet.get("/bkt/k", &[("cache-control", directive)]);
        assert!(answer.body == body);
        assert_eq!(outcome(&answer), Some("PARTIAL"));
        assert_eq!(answer.header("cache-status"), Some(status));
        fleet.wait_for_blocks(kept);
        assert_eq!(asked(&fleet.tap.take()), (1, (LEN - MIB) as u64));
    }
}

#[test]
fn a_head_of_the_first_byte_brings_the_whole_in() {
    use crate::harness::signed;
    let range = ("range", "bytes=0-0");
    for (directive, kept, looks) in [
        (None, BLOCKS, 1),
        (Some("no-cache"), 0, 1),
        (Some("no-store"), 0, 0),
    ] {
        let fleet = Fleet::start();
        fleet.put("/bkt/k", &content(LEN, 1));
        let mut headers = vec![range];
        headers.extend(directive.map(|directive| ("cache-control", directive)));
        let head = fleet
            .connect()
            .call(&signed("HEAD", "/bkt/k", &headers, b""));
        assert_eq!(head.status, 206);
        assert_eq!(head.header("content-length"), Some("1"));
        let range = format!("bytes 0-0/{LEN}");
        assert_eq!(head.header("content-range"), Some(range.as_str()));
        let expected = directive.is_none().then_some("PRESTAGE");
        assert_eq!(outcome(&head), expected);
        let cached = (looks > 0).then_some("0");
        assert_eq!(head.header("x-forebay-cached"), cached);
        fleet.wait_for_blocks(kept);
        let whole = if kept > 0 { LEN as u64 } else { 0 };
        assert_eq!(asked(&fleet.tap.take()), (looks, whole));
        let look = [headers[0], ("cache-control", "no-cache")];
        let look = fleet.connect().call(&signed("HEAD", "/bkt/k", &look, b""));
        assert_eq!(
            look.header("x-forebay-cached"),
            Some(whole.to_string().as_str())
        );
        assert_eq!(outcome(&look), (kept > 0).then_some("HIT"));
        let read = fleet.get("/bkt/k", &[]);
        assert_eq!(outcome(&read), Some(if kept > 0 { "HIT" } else { "MISS" }));
    }
}

#[test]
fn other_heads_bring_nothing_in() {
    use crate::harness::signed;
    let fleet = Fleet::start();
    fleet.put("/bkt/k", &content(LEN, 1));
    fleet.put("/bkt/empty", b"");
    for (target, headers, status) in [
        ("/bkt/k", &[][..], 200),
        ("/bkt/k", &[("range", "bytes=0-1")], 206),
        ("/bkt/empty", &[("range", "bytes=0-0")], 416),
        ("/bkt/absent", &[("range", "bytes=0-0")], 404),
    ] {
        let head = fleet.connect().call(&signed("HEAD", target, headers, b""));
        assert_eq!(
            (head.status, outcome(&head)),
            (status, None),
            "{target} {headers:?}"
        );
    }
    fleet.wait_for_blocks(0);
    assert_eq!(asked(&fleet.tap.take()).1, 0);
}
