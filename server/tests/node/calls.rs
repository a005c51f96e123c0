//! Everything that does not read an object's bytes goes through as it is.

use sha2::{Digest, Sha256};

use super::fleet::{Fleet, MIB, content, outcome, with_unsigned};
use crate::harness::{Answer, DATE, HOST, SCOPE, SECRET, hmac, signed, signed_head, signing_key};

/// Uploads by the node, in parts, each through a connection of its own.
pub(super) fn upload_in_parts(fleet: &Fleet, target: &str, parts: &[Vec<u8>]) {
    let call = |method: &str, query: &str, body: &[u8]| -> Answer {
        let request = signed(method, &format!("{target}?{query}"), &[], body);
        let answer = fleet.connect().call(&request);
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        answer
    };
    let upload = call("POST", "uploads=", b"").element("UploadId");
    let mut document = String::from("<CompleteMultipartUpload>");
    for (index, part) in parts.iter().enumerate() {
        let number = index + 1;
        let query = format!("partNumber={number}&uploadId={upload}");
        let answer = call("PUT", &query, part);
        let etag = answer.header("etag").expect("a part has one");
        for part in [
            "<Part><PartNumber>",
            &number.to_string(),
            "</PartNumber><ETag>",
            etag,
            "</ETag></Part>",
        ] {
            document.push_str(part);
        }
    }
    document.push_str("</CompleteMultipartUpload>");
    call("POST", &format!("uploadId={upload}"), document.as_bytes());
}

#[test]
fn an_upload_in_parts_goes_through() {
    let fleet = Fleet::start();
    let parts = [content(5 * MIB, 1), content(5 * MIB, 2), content(1, 3)];
    upload_in_parts(&fleet, "/bkt/parts", &parts);
    assert!(fleet.get("/bkt/parts", &[]).body == parts.concat());
}

/// A put in signed chunks.
pub(super) fn streaming(target: &str, chunks: &[&[u8]], secret: &str) -> Vec<u8> {
    let empty = hex::encode(Sha256::digest(b""));
    let len: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let all: Vec<&[u8]> = chunks.iter().copied().chain([&b""[..]]).collect();
    let framed = |chunk: &[u8]| format!("{:x};chunk-signature={:064}\r\n\r\n", chunk.len(), 0);
    let framed_len: usize = all
        .iter()
        .map(|chunk| framed(chunk).len() + chunk.len())
        .sum();
    let headers = [
        ("content-encoding", "aws-chunked"),
        ("content-length", &framed_len.to_string()),
        ("x-amz-decoded-content-length", &len.to_string()),
    ];
    let payload = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    let mut request = signed_head("PUT", target, &headers, payload, secret);
    let head = String::from_utf8(request.clone()).expect("a head is text");
    let (_, seed) = head.split_once("Signature=").expect("it is signed");
    let mut previous = seed.trim().to_owned();
    for chunk in all {
        let digest = hex::encode(Sha256::digest(chunk));
        let to_sign =
            format!("AWS4-HMAC-SHA256-PAYLOAD\n{DATE}\n{SCOPE}\n{previous}\n{empty}\n{digest}");
        previous = hex::encode(hmac(&signing_key(secret), to_sign.as_bytes()));
        let start = format!("{:x};chunk-signature={previous}\r\n", chunk.len());
        request.extend_from_slice(start.as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request
}

#[test]
fn a_put_in_signed_chunks_goes_through() {
    let fleet = Fleet::start();
    let (first, second) = (content(65_536, 1), content(10, 2));
    let request = streaming("/bkt/k", &[&first, &second], SECRET);
    let put = fleet.connect().call(&request);
    assert_eq!(put.status, 200, "{put:?}");
    assert!(fleet.get("/bkt/k", &[]).body == [first, second].concat());
    let mut changed = request.clone();
    let at = changed.len() - 200;
    changed[at] ^= 1;
    let refused = fleet.connect().call(&changed);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(refused.code(), "SignatureDoesNotMatch");
}

#[test]
fn a_large_put_is_a_stream() {
    let fleet = Fleet::start();
    let body = content(40 * MIB, 1);
    let put = fleet.connect().call(&signed("PUT", "/bkt/k", &[], &body));
    assert_eq!(put.status, 200);
    assert!(fleet.get("/bkt/k", &[("cache-control", "no-store")]).body == body);
}

#[test]
fn a_body_of_unknown_length_goes_through() {
    let fleet = Fleet::start();
    let headers = [("transfer-encoding", "chunked")];
    let mut request = signed_head("PUT", "/bkt/k", &headers, "UNSIGNED-PAYLOAD", SECRET);
    request.extend_from_slice(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n");
    let put = fleet.connect().call(&request);
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(fleet.get("/bkt/k", &[]).body, b"hello world");
}

#[test]
fn listings_and_other_calls_are_the_origins() {
    let fleet = Fleet::start();
    for key in ["a/1", "a/2", "b"] {
        let put = fleet
            .connect()
            .call(&signed("PUT", &format!("/bkt/{key}"), &[], b"x"));
        assert_eq!(put.status, 200);
    }
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/bkt?list-type=2&prefix=a%2F&delimiter=%2F"),
        ("GET", "/bkt?location="),
        ("HEAD", "/bkt"),
        ("HEAD", "/bkt/b"),
        ("GET", "/bkt/b?tagging="),
        ("GET", "/none"),
        ("DELETE", "/bkt"),
        ("PATCH", "/bkt/b"),
        ("PUT", "/bkt?versioning="),
        ("GET", "/bkt/%ff"),
    ] {
        let request = signed(method, target, &[], b"");
        let expected = fleet.origin.connect().call(&request);
        let answer = fleet.connect().call(&request);
        assert_eq!(answer.status, expected.status, "{method} {target}");
        assert_eq!(answer.code(), expected.code(), "{method} {target}");
        let type_of = |answer: &Answer| answer.header("content-type").map(str::to_owned);
        assert_eq!(type_of(&answer), type_of(&expected), "{method} {target}");
        assert_eq!(outcome(&answer), None, "{method} {target}");
    }
    let copy = [("x-amz-copy-source", "/bkt/b")];
    let copy = fleet.connect().call(&signed("PUT", "/bkt/c", &copy, b""));
    assert_eq!(copy.status, 200, "{copy:?}");
    assert_eq!(fleet.get("/bkt/c", &[]).body, b"x");
    let delete = fleet.connect().call(&signed("DELETE", "/bkt/b", &[], b""));
    assert_eq!(delete.status, 204);
    assert_eq!(fleet.get("/bkt/b", &[]).status, 404);
}

#[test]
fn a_connection_carries_many_calls() {
    let fleet = Fleet::start();
    let mut client = fleet.connect();
    for round in 0..50_u8 {
        let body = content(1000, round);
        assert_eq!(
            client.call(&signed("PUT", "/bkt/k", &[], &body)).status,
            200
        );
        assert_eq!(client.call(&signed("HEAD", "/bkt/k", &[], b"")).status, 200);
        assert!(client.call(&signed("GET", "/bkt/k", &[], b"")).body == body);
        assert_eq!(
            client.call(&signed("GET", "/bkt/none", &[], b"")).status,
            404
        );
    }
}

#[test]
fn a_refused_upload_is_not_asked_for() {
    let fleet = Fleet::start();
    let headers = [("content-length", "5"), ("expect", "100-continue")];
    let hash = "00".repeat(32);
    let mut client = fleet.connect();
    let refused = client.call(&signed_head("PUT", "/bkt/k", &headers, &hash, "wrong"));
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "SignatureDoesNotMatch")
    );
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(client.is_closed());
    let mut client = fleet.connect();
    let hash = hex::encode(Sha256::digest(b"hello"));
    client.send(&signed_head("PUT", "/bkt/k", &headers, &hash, SECRET));
    assert_eq!(client.answer(false).status, 100);
    client.send(b"hello");
    assert_eq!(client.answer(false).status, 200);
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let fleet = Fleet::start();
    let mut client = fleet.connect();
    let headers = [("content-length", "100")];
    let head = signed_head("PUT", "/bkt/k", &headers, "UNSIGNED-PAYLOAD", SECRET);
    client.send(&head);
    client.send(b"some of it");
    drop(client);
    assert_eq!(fleet.get("/bkt/k", &[]).status, 404);
    let list = fleet
        .connect()
        .call(&signed("GET", "/bkt?list-type=2", &[], b""));
    assert_eq!(list.element("KeyCount"), "0");
}

#[test]
fn what_nodes_say_to_origins_clients_cannot() {
    let fleet = Fleet::start();
    fleet.put("/bkt/k", b"hello");
    let own = [
        ("x-forebay-node", "1"),
        ("x-forebay-grant", "AAAA"),
        ("x-forebay-other", "1"),
    ];
    for target in ["/bkt/k", "/bkt?list-type=2", "/bkt/k?tagging="] {
        fleet.tap.take();
        let answer = fleet.get(target, &own);
        assert_eq!(answer.status, 200, "{target}");
        for name in ["x-forebay-grant", "x-forebay-length", "x-forebay-size"] {
            assert_eq!(answer.header(name), None, "{target} {name}");
        }
        let seen = fleet.tap.take();
        assert!(!seen.is_empty());
        for seen in seen {
            assert_eq!(seen.header("x-forebay-other"), None, "{}", seen.line());
            assert_ne!(seen.header("x-forebay-grant"), Some("AAAA"));
            assert_ne!(seen.header("x-forebay-node"), Some("1"));
        }
    }
    let store = ("cache-control", "no-store");
    let answer = fleet.get("/bkt/k", &[own[0], store]);
    assert_eq!(answer.body, b"hello");
}

#[test]
fn a_node_has_health_and_metrics_of_its_own() {
    let fleet = Fleet::start();
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    let call = |target: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        fleet.connect().call(request.as_bytes())
    };
    assert_eq!(call("/-/health/live").status, 200);
    assert_eq!(call("/-/health/ready").status, 200);
    for target in ["/-/changes", "/-/", "/-/other", "/-/health/live/x"] {
        assert_eq!(call(target).status, 404, "{target}");
    }
    let text = String::from_utf8(call("/-/metrics").body).expect("it is text");
    for line in [
        "forebay_requests_total{op=\"GetObject\",code=\"200\"} 2",
        "forebay_cache_requests_total{status=\"hit\"} 1",
        "forebay_cache_requests_total{status=\"miss\"} 1",
        "forebay_cache_fetched_bytes_total 1048576",
        "forebay_cache_objects 1",
        "forebay_cache_healthy 1",
        "forebay_origin_up 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(
        fleet
            .tap
            .take()
            .iter()
            .all(|seen| !seen.line().contains("/-/"))
    );
}

#[test]
fn what_two_servers_could_read_differently_is_refused_here() {
    let fleet = Fleet::start();
    let twice = with_unsigned(&signed("GET", "/bkt/k", &[], b""), &[("host", "other")]);
    let answer = fleet.connect().call(&twice);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "InvalidRequest")
    );
    assert!(fleet.tap.take().is_empty());
}
