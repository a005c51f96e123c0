//! A node in front of a service that knows nothing of nodes: it verifies its clients itself.

use super::calls::{streaming, upload_in_parts};
use super::fleet::{Fleet, Kind, MIB, NODE_KEY, content, outcome, with_unsigned};
use super::reads::{every_form_of_read, presigned};
use super::tap::Seen;
use crate::harness::{HOST, SECRET, signed, signed_head};

fn fleet() -> Fleet {
    Fleet::start_with(Kind::Foreign)
}

/// How many heads were asked for, and bytes, both in the node's own name.
fn asked(seen: &[Seen]) -> (usize, usize) {
    let by_node = format!("Credential={NODE_KEY}/");
    for seen in seen {
        let signature = seen.header("authorization").unwrap_or_default();
        assert!(signature.contains(&by_node), "{}", seen.line());
        assert_eq!(seen.header("x-forebay-node"), None);
    }
    let heads = seen.iter().filter(|seen| seen.line().starts_with("HEAD "));
    let ranges = seen.iter().filter(|seen| seen.header("if-match").is_some());
    let bytes = ranges.filter_map(|seen| {
        let (first, last) = seen
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some(last.parse::<usize>().ok()? - first.parse::<usize>().ok()? + 1)
    });
    (heads.count(), bytes.sum())
}

#[test]
fn every_form_of_read_is_answered_as_by_the_origin() {
    let fleet = fleet();
    every_form_of_read(&fleet);
    asked(&fleet.tap.take());
}

#[test]
fn a_read_asks_for_one_head_and_for_what_is_not_here() {
    let fleet = fleet();
    let (old, new) = (content(2 * MIB + 5, 1), content(2 * MIB + 5, 2));
    for (body, said, fetched, kept) in [
        (&old, "MISS", old.len(), 3),
        (&old, "HIT", 0, 3),
        (&new, "MISS", new.len(), 6),
        (&new, "HIT", 0, 6),
    ] {
        fleet.put("/bkt/k", body);
        let answer = fleet.get("/bkt/k", &[]);
        assert!(answer.body == *body);
        assert_eq!(outcome(&answer), Some(said));
        fleet.wait_for_blocks(kept);
        assert_eq!(asked(&fleet.tap.take()), (1, fetched));
    }
    let answer = fleet.get("/bkt/k", &[("cache-control", "no-store")]);
    assert!(answer.body == new);
    assert_eq!(outcome(&answer), Some("BYPASS"));
    assert_eq!(asked(&fleet.tap.take()), (0, 0));
    fleet.put("/bkt/other", &old);
    let range = [("range", "bytes=0-0")];
    let head = fleet
        .connect()
        .call(&signed("HEAD", "/bkt/other", &range, b""));
    assert_eq!((head.status, outcome(&head)), (206, Some("PRESTAGE")));
    fleet.wait_for_blocks(9);
}

#[test]
fn only_the_nodes_own_clients_are_let_through() {
    let fleet = fleet();
    fleet.put("/bkt/k", b"hello");
    fleet.warm("/bkt/k");
    let anonymous = format!("GET /bkt/k HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let put = format!("PUT /bkt/n HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 1\r\n\r\nx");
    for (request, code) in [
        (anonymous.into_bytes(), "AccessDenied"),
        (put.into_bytes(), "AccessDenied"),
        (presigned("/bkt/k", "wrong"), "SignatureDoesNotMatch"),
        (
            signed_head("GET", "/bkt/k", &[], "UNSIGNED-PAYLOAD", "wrong"),
            "SignatureDoesNotMatch",
        ),
        (
            signed_head("DELETE", "/bkt/k", &[], "UNSIGNED-PAYLOAD", "wrong"),
            "SignatureDoesNotMatch",
        ),
    ] {
        let refused = fleet.connect().call(&request);
        assert_eq!((refused.status, refused.code().as_str()), (403, code));
        assert!(fleet.tap.take().is_empty(), "the origin is not asked");
    }
    let allowed = fleet.connect().call(&presigned("/bkt/k", SECRET));
    assert_eq!((allowed.status, &allowed.body[..]), (200, &b"hello"[..]));
    assert_eq!(outcome(&allowed), Some("HIT"));
}

#[test]
fn writes_are_signed_anew() {
    let fleet = fleet();
    let parts = [content(5 * MIB, 1), content(9, 2)];
    upload_in_parts(&fleet, "/bkt/parts", &parts);
    assert!(fleet.get("/bkt/parts", &[]).body == parts.concat());
    let headers = [("x-amz-meta-m", "v"), ("content-type", "text/plain")];
    let put = fleet
        .connect()
        .call(&signed("PUT", "/bkt/a%20b", &headers, b"x"));
    assert_eq!(put.status, 200, "{put:?}");
    let read = fleet.get("/bkt/a%20b", &[]);
    assert_eq!(read.header("x-amz-meta-m"), Some("v"));
    assert_eq!(read.header("content-type"), Some("text/plain"));
    let copy = [("x-amz-copy-source", "/bkt/a%20b")];
    let copy = fleet.connect().call(&signed("PUT", "/bkt/c", &copy, b""));
    assert_eq!(copy.status, 200, "{copy:?}");
    let list = fleet
        .connect()
        .call(&signed("GET", "/bkt?list-type=2", &[], b""));
    assert_eq!(list.element("KeyCount"), "3");
    asked(&fleet.tap.take());
}

#[test]
fn signed_chunks_are_verified_before_the_last_is_sent() {
    let fleet = fleet();
    let (first, second) = (content(65_536, 1), content(10, 2));
    let request = streaming("/bkt/k", &[&first, &second], SECRET);
    assert_eq!(fleet.connect().call(&request).status, 200);
    let read = fleet.get("/bkt/k", &[]);
    assert!(read.body == [first, second].concat());
    assert_eq!(read.header("content-encoding"), None);
    let empty = fleet.connect().call(&streaming("/bkt/empty", &[], SECRET));
    assert_eq!(empty.status, 200, "{empty:?}");
    assert_eq!(
        fleet.get("/bkt/empty", &[]).header("content-length"),
        Some("0")
    );
    let mut changed = streaming("/bkt/new", &[b"hello"], SECRET);
    let at = changed
        .windows(5)
        .position(|five| five == b"hello")
        .expect("it is there");
    changed[at] = b'j';
    let refused = fleet.connect().call(&changed);
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "SignatureDoesNotMatch")
    );
    assert_eq!(fleet.get("/bkt/new", &[]).status, 404);
}

#[test]
fn a_trailer_is_verified_here() {
    let fleet = fleet();
    for (sum, status) in [("DUoRhQ==", 200), ("AAAAAA==", 400)] {
        let framed = format!("b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:{sum}\r\n\r\n");
        let headers = [
            ("content-encoding", "aws-chunked"),
            ("content-length", &framed.len().to_string()),
            ("x-amz-decoded-content-length", "11"),
            ("x-amz-sdk-checksum-algorithm", "CRC32"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ];
        let payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
        let target = format!("/bkt/{status}");
        let mut request = signed_head("PUT", &target, &headers, payload, SECRET);
        request.extend_from_slice(framed.as_bytes());
        let put = fleet.connect().call(&request);
        assert_eq!(put.status, status, "{put:?}");
        let read = fleet.get(&target, &[]);
        assert_eq!(read.status, if status == 200 { 200 } else { 404 });
    }
}

/// Whoever has another's signed request may send it with a `Connection` that names what was signed.
#[test]
fn what_was_signed_can_not_be_named_away() {
    let fleet = fleet();
    fleet.put("/bkt/k", b"0123456789");
    fleet.tap.take();
    let read = signed("GET", "/bkt/k", &[("range", "bytes=0-1")], b"");
    let write = signed("PUT", "/bkt/k", &[("if-none-match", "*")], b"other");
    for (request, named) in [(&read, "range"), (&write, "if-none-match")] {
        for more in [&[][..], &[("cache-control", "no-store")]] {
            let headers = [&[("connection", named)], more].concat();
            let refused = fleet.connect().call(&with_unsigned(request, &headers));
            assert_eq!(refused.status, 403, "{named}");
            assert!(fleet.tap.take().is_empty(), "the origin is not asked");
        }
    }
    assert_eq!(fleet.get("/bkt/k", &[]).body, b"0123456789");
}
