//! The server as a socket sees it, with a real store behind it.

#[path = "wire/changes.rs"]
mod changes;
#[path = "wire/framing.rs"]
mod framing;
#[path = "wire/grants.rs"]
mod grants;
#[path = "wire/harness.rs"]
mod harness;
#[path = "node/mod.rs"]
mod node;
#[path = "wire/page_cache.rs"]
mod page_cache;
#[path = "../../mount/tests/mount/xattr.rs"]
#[expect(dead_code, reason = "the mount's tests use all of it")]
mod xattr;

use harness::{Running, signed, signed_head};

#[test]
fn an_object_comes_back_as_it_was_put() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    let body: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let put = client.call(&signed(
        "PUT",
        "/bkt/a%20b",
        &[("x-amz-meta-m", "v")],
        &body,
    ));
    assert_eq!(put.status, 200);
    assert_eq!(put.header("x-amz-request-id").map(str::len), Some(16));
    let get = client.call(&signed("GET", "/bkt/a%20b", &[], b""));
    assert_eq!((get.status, get.body == body), (200, true));
    assert_eq!(get.header("etag"), put.header("etag"));
    assert_eq!(get.header("x-amz-meta-m"), Some("v"));
    let head = client.call(&signed("HEAD", "/bkt/a%20b", &[], b""));
    assert_eq!(head.header("content-length"), Some("1200000"));
    let range = client.call(&signed("GET", "/bkt/a%20b", &[("range", "bytes=-8")], b""));
    assert_eq!((range.status, &range.body[..]), (206, &body[1_199_992..]));
    assert_eq!(
        range.header("content-range"),
        Some("bytes 1199992-1199999/1200000")
    );
    assert_eq!(
        client
            .call(&signed("DELETE", "/bkt/a%20b", &[], b""))
            .status,
        204
    );
    let gone = client.call(&signed("GET", "/bkt/a%20b", &[], b""));
    assert_eq!((gone.status, gone.code().as_str()), (404, "NoSuchKey"));
}

#[test]
fn nobody_gets_nothing() {
    let server = Running::with_bucket();
    for target in [
        "/",
        "/bkt",
        "/bkt/k",
        "/other",
        "/bkt?uploads",
        "/bkt/k?tagging",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let request = format!(
                "{method} {target} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
            );
            let answer = server.connect().call(request.as_bytes());
            let refused = matches!(answer.status, 403 | 405 | 400 | 501);
            assert!(refused, "{method} {target}: {answer:?}");
        }
    }
}

#[test]
fn a_refused_upload_is_not_asked_for() {
    let server = Running::with_bucket();
    let headers = [("content-length", "5"), ("expect", "100-continue")];
    let hash = "00".repeat(32);
    let mut client = server.connect();
    let refused = client.call(&signed_head("PUT", "/bkt/k", &headers, &hash, "wrong"));
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "SignatureDoesNotMatch")
    );
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(client.is_closed());
    let mut client = server.connect();
    let wanted = client.call(&signed_head(
        "PUT",
        "/bkt/k",
        &headers,
        "UNSIGNED-PAYLOAD",
        harness::SECRET,
    ));
    assert_eq!(wanted.status, 100);
    assert_eq!(client.call(b"hello").status, 200);
}

#[test]
fn a_connection_goes_on_after_a_refused_request() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    let wrong = [
        signed_head(
            "PUT",
            "/bkt/k",
            &[("content-length", "5")],
            "UNSIGNED-PAYLOAD",
            "wrong",
        ),
        b"hello".to_vec(),
    ]
    .concat();
    assert_eq!(client.call(&wrong).status, 403);
    assert_eq!(
        client.call(&signed("PUT", "/bkt/k", &[], b"hello")).status,
        200
    );
    let pipelined = [
        signed("GET", "/bkt/k", &[], b""),
        signed("GET", "/bkt/none", &[], b""),
    ]
    .concat();
    assert_eq!(client.call(&pipelined).body, b"hello");
    assert_eq!(client.answer(false).status, 404);
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    client.send(&signed_head(
        "PUT",
        "/bkt/k",
        &[("content-length", "100000")],
        "UNSIGNED-PAYLOAD",
        harness::SECRET,
    ));
    client.send(&vec![b'x'; 50_000]);
    client.end();
    assert!(client.is_closed() || client.answer(false).status == 400);
    assert_eq!(
        server
            .connect()
            .call(&signed("GET", "/bkt/k", &[], b""))
            .status,
        404
    );
    let other = signed("PUT", "/bkt/k", &[], b"hello");
    let mut changed = other.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let answer = server.connect().call(&changed);
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (400, "XAmzContentSHA256Mismatch")
    );
    assert_eq!(
        server
            .connect()
            .call(&signed("GET", "/bkt/k", &[], b""))
            .status,
        404
    );
}

#[test]
fn a_framed_upload_is_unframed() {
    let server = Running::with_bucket();
    let put = |trailer: &str| {
        let headers = [
            ("content-encoding", "aws-chunked"),
            ("transfer-encoding", "chunked"),
            ("x-amz-decoded-content-length", "11"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ];
        let payload = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
        let mut request = signed_head("PUT", "/bkt/k", &headers, payload, harness::SECRET);
        let framed = format!("b\r\nhello world\r\n0\r\n{trailer}\r\n\r\n");
        request.extend(format!("{:x}\r\n{framed}\r\n0\r\n\r\n", framed.len()).into_bytes());
        server.connect().call(&request)
    };
    let wrong = put("x-amz-checksum-crc32:AAAAAA==");
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "BadDigest"));
    assert_eq!(
        put("x-amz-checksum-sha1:AAAA").code(),
        "MalformedTrailerError"
    );
    assert_eq!(
        server
            .connect()
            .call(&signed("GET", "/bkt/k", &[], b""))
            .status,
        404
    );
    let right = put("x-amz-checksum-crc32:DUoRhQ==");
    assert_eq!(
        (right.status, right.header("x-amz-checksum-crc32")),
        (200, Some("DUoRhQ=="))
    );
    let get = server.connect().call(&signed("GET", "/bkt/k", &[], b""));
    assert_eq!(
        (&get.body[..], get.header("content-encoding")),
        (&b"hello world"[..], None)
    );
}

#[test]
fn keys_are_not_paths() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    let keys = [
        "/bkt/..%2F..%2Fx",
        "/bkt/a/../b",
        "/bkt//a",
        "/bkt/./a",
        "/bkt/a%00b",
        "/bkt/%C3%A9",
    ];
    for (index, key) in keys.into_iter().enumerate() {
        // What is signed is the decoded key, encoded once.
        let canonical = key.replace("%2F", "/");
        let put = client.call(&signed(
            "PUT",
            &canonical,
            &[],
            &[u8::try_from(index).expect("few")],
        ));
        assert_eq!(put.status, 200, "{key}");
    }
    let list = client.call(&signed(
        "GET",
        "/bkt?encoding-type=url&list-type=2",
        &[],
        b"",
    ));
    let text = String::from_utf8(list.body).expect("XML");
    assert_eq!(text.matches("<Key>").count(), keys.len(), "{text}");
    assert!(client.call(&signed("GET", "/bkt/b", &[], b"")).status == 404);
}

/// Amazon answers so; some suites want the `InvalidRange` of a read.
#[test]
fn a_part_copied_from_beyond_its_source_is_an_invalid_argument() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    client.call(&signed("PUT", "/bkt/source", &[], b"12345"));
    let upload = client.call(&signed("POST", "/bkt/k?uploads", &[], b""));
    let target = format!(
        "/bkt/k?partNumber=1&uploadId={}",
        upload.element("UploadId")
    );
    for (range, status, code) in [
        ("bytes=0-21", 400, "InvalidArgument"),
        ("bytes=5-5", 400, "InvalidArgument"),
        ("bytes=0-", 400, "InvalidArgument"),
        ("bytes=1-4", 200, ""),
    ] {
        let headers = [
            ("x-amz-copy-source", "/bkt/source"),
            ("x-amz-copy-source-range", range),
        ];
        let answer = client.call(&signed("PUT", &target, &headers, b""));
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
}

/// The prefix of a listing is encoded in both versions, whatever a client makes of it.
#[test]
fn a_listing_says_its_prefix_encoded() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    for version in ["", "&list-type=2"] {
        let target = format!("/bkt?prefix=a%2B%0A&encoding-type=url{version}");
        let answer = client.call(&signed("GET", &target, &[], b""));
        assert_eq!(answer.element("Prefix"), "a%2B%0A", "{version}");
    }
}

#[test]
fn health_and_metrics_need_no_key() {
    let mut server = Running::with_bucket();
    let get = |server: &Running, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        server.connect().call(request.as_bytes())
    };
    assert_eq!(get(&server, "/-/health/live").status, 200);
    assert_eq!(get(&server, "/-/health/ready").status, 200);
    let metrics = get(&server, "/-/metrics");
    let text = String::from_utf8(metrics.body).expect("text");
    assert!(
        text.contains("forebay_requests_total{op=\"CreateBucket\",code=\"200\"} 1"),
        "{text}"
    );
    assert_eq!(get(&server, "/-/other").status, 404);
    server.stop();
}

#[test]
fn a_request_in_flight_ends_when_the_server_stops() {
    let mut server = Running::with_bucket();
    let mut client = server.connect();
    client.send(&signed_head(
        "PUT",
        "/bkt/k",
        &[("content-length", "5")],
        "UNSIGNED-PAYLOAD",
        harness::SECRET,
    ));
    client.send(b"he");
    // The server has the request when it answers another on the same thread of events.
    assert_eq!(
        server
            .connect()
            .call(&signed("HEAD", "/bkt", &[], b""))
            .status,
        200
    );
    server.stop();
    client.send(b"llo");
    assert_eq!(client.answer(false).status, 200);
    assert!(client.is_closed());
}
