//! Reads through a node are what they would be at the origin.

use super::fleet::{Fleet, Kind, MIB, asked, content, outcome, with_unsigned};
use crate::harness::{DATE, HOST, KEY, SCOPE, SECRET, hmac, signed, signing_key};
use sha2::{Digest, Sha256};

/// Headers that differ from answer to answer.
const OWN: [&str; 5] = [
    "x-amz-request-id",
    "x-amz-id-2",
    "date",
    "x-forebay-cache",
    "cache-status",
];

/// The head of an answer, but for what differs.
fn head(answer: &crate::harness::Answer) -> Vec<(String, String)> {
    let lines = answer.headers().filter(|(name, _)| !OWN.contains(name));
    let mut lines: Vec<_> = lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    lines.sort();
    lines
}

/// A query, headers, and the status of the answer.
type Row<'r> = (&'r str, Vec<(&'r str, &'r str)>, u16);

const OTHER: &str = "\"00000000000000000000000000000000\"";

/// Reads of an object of a bit more than three blocks.
fn reads(etag: &str) -> Vec<Row<'_>> {
    vec![
        ("", vec![], 200),
        ("", vec![("range", "bytes=0-0")], 206),
        ("", vec![("range", "bytes=1048575-2097152")], 206),
        ("", vec![("range", "bytes=-5")], 206),
        ("", vec![("range", "bytes=3145734-")], 206),
        ("", vec![("range", "bytes=99999999-")], 416),
        ("", vec![("range", "bytes=0-1,4-5")], 200),
        ("", vec![("if-match", etag)], 200),
        ("", vec![("if-match", OTHER)], 412),
        ("", vec![("if-none-match", etag)], 304),
        ("", vec![("if-none-match", OTHER)], 200),
        ("", vec![("if-range", etag), ("range", "bytes=5-9")], 206),
        ("", vec![("if-range", OTHER), ("range", "bytes=5-9")], 200),
        ("", vec![("x-amz-checksum-mode", "ENABLED")], 200),
        ("?partNumber=1", vec![], 206),
        ("?partNumber=2", vec![], 416),
        ("?partNumber=0", vec![], 400),
        ("?versionId=null", vec![], 200),
        ("?versionId=none", vec![], 400),
        (
            "?response-content-type=a%2Fb&response-expires=soon",
            vec![],
            200,
        ),
        ("?response-content-type=a%0A", vec![], 400),
        ("?x-id=GetObject", vec![], 200),
        ("?acl", vec![], 200),
        ("?something=else", vec![], 200),
    ]
}

#[test]
fn every_form_of_read_is_answered_as_by_the_origin() {
    every_form_of_read(&Fleet::start());
}

/// Reads by the node and past it, and compares.
pub(super) fn every_form_of_read(fleet: &Fleet) {
    let body = content(3 * MIB + 7, 1);
    let headers = [
        ("content-type", "text/plain"),
        ("cache-control", "max-age=60"),
        ("x-amz-meta-m", "v"),
        ("x-amz-tagging", "k=v"),
    ];
    let put = signed("PUT", "/bkt/a%20b/%C3%BC", &headers, &body);
    let put = fleet.origin.connect().call(&put);
    let etag = put.header("etag").expect("it has one");
    for round in ["cold", "warm"] {
        for (query, headers, status) in reads(etag) {
            let target = format!("/bkt/a%20b/%C3%BC{query}");
            let request = signed("GET", &target, &headers, b"");
            let expected = fleet.origin.connect().call(&request);
            let answer = fleet.connect().call(&request);
            let row = format!("{round} {query} {headers:?}");
            assert_eq!((expected.status, answer.status), (status, status), "{row}");
            assert_eq!(head(&answer), head(&expected), "{row}");
            if status < 300 {
                assert!(answer.body == expected.body, "{row}");
            } else if status != 304 {
                assert_eq!(answer.code(), expected.code(), "{row}");
                let id = answer.element("RequestId");
                assert_eq!(
                    answer.header("x-amz-request-id"),
                    Some(id.as_str()),
                    "{row}"
                );
            }
        }
    }
}

#[test]
fn an_empty_object_needs_no_bytes() {
    let fleet = Fleet::start();
    fleet.put("/bkt/empty", b"");
    for _ in 0..2 {
        let answer = fleet.get("/bkt/empty", &[]);
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(answer.header("content-length"), Some("0"));
        assert_eq!(outcome(&answer), Some("HIT"));
    }
    assert_eq!(asked(&fleet.tap.take()), (2, 0));
}

#[test]
fn an_object_in_parts_is_read_by_parts() {
    let fleet = Fleet::start();
    let parts = [content(5 * MIB, 1), content(MIB / 2, 2)];
    super::calls::upload_in_parts(&fleet, "/bkt/parts", &parts);
    fleet.warm("/bkt/parts");
    for (number, part) in ["1", "2"].iter().zip(&parts) {
        let answer = fleet.get(&format!("/bkt/parts?partNumber={number}"), &[]);
        assert_eq!(answer.status, 206);
        assert!(answer.body == *part);
        assert_eq!(answer.header("x-amz-mp-parts-count"), Some("2"));
        assert_eq!(outcome(&answer), Some("HIT"));
    }
    assert_eq!(asked(&fleet.tap.take()), (2, 0));
}

#[test]
fn an_overwritten_object_is_never_stale() {
    let fleet = Fleet::start();
    for seed in 0..20 {
        let body = content(MIB + 3, seed);
        fleet.put("/bkt/k", &body);
        let answer = fleet.get("/bkt/k", &[]);
        assert!(answer.body == body, "{seed}");
        let again = fleet.get("/bkt/k", &[("range", "bytes=1048576-")]);
        assert!(again.body == body[MIB..], "{seed}");
    }
    fleet
        .origin
        .connect()
        .call(&signed("DELETE", "/bkt/k", &[], b""));
    let gone = fleet.get("/bkt/k", &[]);
    assert_eq!((gone.status, gone.code().as_str()), (404, "NoSuchKey"));
}

#[test]
fn a_key_that_is_gone_reads_nothing_at_once() {
    let fleet = Fleet::start();
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    fleet
        .origin
        .store()
        .remove_key_blocking(KEY)
        .expect("it is there");
    let refused = fleet.get("/bkt/k", &[]);
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "InvalidAccessKeyId")
    );
    let bytes = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(bytes.contains("<Error>"), "{bytes}");
    assert_eq!(outcome(&refused), None);
}

#[test]
fn nobody_reads_without_a_signature_or_with_a_wrong_one() {
    let fleet = Fleet::start();
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    let anonymous = format!("GET /bkt/k HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    let anonymous = fleet.connect().call(anonymous.as_bytes());
    assert_eq!(
        (anonymous.status, anonymous.code().as_str()),
        (403, "AccessDenied")
    );
    let forged = crate::harness::signed_head("GET", "/bkt/k", &[], "UNSIGNED-PAYLOAD", "wrong");
    let forged = fleet.connect().call(&forged);
    assert_eq!(forged.code(), "SignatureDoesNotMatch");
}

/// A presigned request, good for a minute.
pub(super) fn presigned(target: &str, secret: &str) -> Vec<u8> {
    let credential = format!("{KEY}/{SCOPE}").replace('/', "%2F");
    let query = format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={DATE}\
         &X-Amz-Expires=60&X-Amz-SignedHeaders=host"
    );
    let canonical = format!("GET\n{target}\n{query}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD");
    let digest = hex::encode(Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{DATE}\n{SCOPE}\n{digest}");
    let signature = hex::encode(hmac(&signing_key(secret), to_sign.as_bytes()));
    let target = format!("{target}?{query}&X-Amz-Signature={signature}");
    format!("GET {target} HTTP/1.1\r\nhost: {HOST}\r\n\r\n").into_bytes()
}

#[test]
fn a_presigned_read_is_cached() {
    // Any range may be asked of it, so it needs no key of the cluster.
    let fleet = Fleet::start_with(Kind::Forebay(None));
    let body = content(MIB + 1, 1);
    fleet.put("/bkt/k", &body);
    for expected in ["MISS", "HIT"] {
        let answer = fleet.connect().call(&presigned("/bkt/k", SECRET));
        assert!(answer.body == body);
        assert_eq!(outcome(&answer), Some(expected));
        fleet.wait_for_blocks(2);
    }
    let range = with_unsigned(&presigned("/bkt/k", SECRET), &[("range", "bytes=-1")]);
    let range = fleet.connect().call(&range);
    assert_eq!((range.status, &range.body[..]), (206, &body[MIB..]));
    let forged = fleet.connect().call(&presigned("/bkt/k", "wrong"));
    assert_eq!(forged.code(), "SignatureDoesNotMatch");
    fleet.origin.set_clock(61);
    let late = fleet.connect().call(&presigned("/bkt/k", SECRET));
    assert_eq!((late.status, late.code().as_str()), (403, "AccessDenied"));
}

#[test]
fn a_node_without_the_clusters_key_caches_what_it_may() {
    let fleet = Fleet::start_with(Kind::Forebay(None));
    let body = content(2 * MIB, 1);
    fleet.put("/bkt/k", &body);
    let range = [("range", "bytes=1-9")];
    for _ in 0..2 {
        let signed_range = fleet.connect().call(&signed("GET", "/bkt/k", &range, b""));
        assert_eq!(
            (signed_range.status, &signed_range.body[..]),
            (206, &body[1..10])
        );
        assert_eq!(outcome(&signed_range), Some("BYPASS"));
    }
    fleet.wait_for_blocks(0);
    let prestage = [("range", "bytes=0-0")];
    let head = fleet
        .connect()
        .call(&signed("HEAD", "/bkt/k", &prestage, b""));
    assert_eq!((head.status, outcome(&head)), (206, None));
    let free_range = fleet.get("/bkt/k", &range);
    assert_eq!(
        (outcome(&free_range), free_range.body.len()),
        (Some("MISS"), 9)
    );
    fleet.wait_for_blocks(1);
    assert_eq!(outcome(&fleet.get("/bkt/k", &range)), Some("HIT"));
}

#[test]
fn many_readers_of_one_cold_object_fetch_each_block_once() {
    let fleet = Fleet::start();
    let body = content(8 * MIB, 1);
    fleet.put("/bkt/k", &body);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| assert!(fleet.get("/bkt/k", &[]).body == body));
        }
    });
    fleet.wait_for_blocks(8);
    assert_eq!(asked(&fleet.tap.take()), (24, 8 * MIB as u64));
}
