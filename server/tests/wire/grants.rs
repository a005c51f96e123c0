//! What an origin tells a node: heads, grants, and bytes for them.

use forebay_store::entry::Secret;
use forebay_store::time::Timestamp;
use http::Method;

use super::harness::{
    Answer, Client, HOST, KEY, MIDNIGHT, Running, SECRET, cluster_key, signed, signed_head,
};

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A server with the object `bkt/k` of ten bytes.
fn server() -> (Running, Client) {
    let server = Running::with_bucket();
    let mut client = server.connect();
    let put = client.call(&signed("PUT", "/bkt/k", &[], b"0123456789"));
    assert_eq!(put.status, 200);
    (server, client)
}

/// A signed request as a node passes it on: with headers that the signature does not cover.
fn passed_on(
    method: &str,
    target: &str,
    signed: &[(&str, &str)],
    unsigned: &[(&str, &str)],
) -> Vec<u8> {
    with(signed_head(method, target, signed, EMPTY, SECRET), unsigned)
}

/// The head of a request, with more headers.
fn with(head: Vec<u8>, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut head = String::from_utf8(head).expect("a head is text");
    assert!(head.ends_with("\r\n\r\n"));
    head.truncate(head.len() - 2);
    for (name, value) in headers {
        for part in [*name, ": ", *value, "\r\n"] {
            head.push_str(part);
        }
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn bare(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let head = format!("{method} {target} HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    with(head.into_bytes(), headers)
}

fn proof(method: &Method, target: &str, after_midnight_s: i64) -> String {
    let now = Timestamp::from_parts(MIDNIGHT + after_midnight_s, 0);
    let proof = cluster_key().prove(method, target, now);
    proof.to_str().expect("it is ASCII").to_owned()
}

fn grant(answer: &Answer) -> String {
    let token = answer.header("x-forebay-grant");
    token.expect("there is a grant").to_owned()
}

const FETCH: [(&str, &str); 2] = [
    ("range", "bytes=2-5"),
    ("if-match", "\"781e5e245d69b566979b86e28d23f2c7\""),
];

fn fetch(client: &mut Client, target: &str, token: &str, change: &[(&str, &str)]) -> Answer {
    let mut headers = FETCH.to_vec();
    headers.retain(|kept| change.iter().all(|changed| changed.0 != kept.0));
    headers.extend(change.iter().filter(|changed| !changed.1.is_empty()));
    headers.push(("x-forebay-grant", token));
    client.call(&bare("GET", target, &headers))
}

#[test]
fn a_node_gets_the_head_and_fetches_with_its_grant() {
    let (_server, mut client) = server();
    let normal = client.call(&passed_on("GET", "/bkt/k", &[], &[]));
    let head = client.call(&passed_on("GET", "/bkt/k", &[], &[("x-forebay-node", "1")]));
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some("0"));
    assert_eq!(head.header("x-forebay-length"), Some("10"));
    assert_eq!(head.header("x-forebay-size"), Some("10"));
    for name in ["etag", "last-modified", "content-type", "accept-ranges"] {
        assert_eq!(head.header(name), normal.header(name), "{name}");
    }
    for name in ["x-forebay-length", "x-forebay-size", "x-forebay-grant"] {
        assert_eq!(normal.header(name), None, "{name}");
    }
    let token = grant(&head);
    let part = fetch(&mut client, "/bkt/k", &token, &[]);
    assert_eq!((part.status, &part.body[..]), (206, &b"2345"[..]));
    assert_eq!(part.header("content-range"), Some("bytes 2-5/10"));
    assert_eq!(part.header("x-forebay-grant"), None);
    let whole = fetch(&mut client, "/bkt/k", &token, &[("range", "")]);
    assert_eq!((whole.status, whole.body.len()), (200, 10));
}

#[test]
fn a_range_that_is_not_signed_is_told_and_not_sent() {
    let (_server, mut client) = server();
    let node = ("x-forebay-node", "1");
    let range = ("range", "bytes=3-");
    let head = client.call(&passed_on("GET", "/bkt/k", &[], &[range, node]));
    assert_eq!((head.status, head.body.len()), (206, 0));
    assert_eq!(head.header("x-forebay-length"), Some("7"));
    assert_eq!(head.header("content-range"), Some("bytes 3-9/10"));
    assert_eq!(fetch(&mut client, "/bkt/k", &grant(&head), &[]).status, 206);
    let beyond = ("range", "bytes=99-");
    let refused = client.call(&passed_on("GET", "/bkt/k", &[], &[beyond, node]));
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (416, "InvalidRange")
    );
    assert_eq!(refused.header("x-forebay-grant"), None);
}

#[test]
fn what_a_signature_does_not_allow_needs_the_clusters_key() {
    let (_server, mut client) = server();
    let range = [("range", "bytes=3-")];
    let rows = [
        ("GET", "/bkt/k", &range[..]),
        ("GET", "/bkt/k?partNumber=1", &[]),
        ("HEAD", "/bkt/k", &[]),
    ];
    for (method, target, signed) in rows {
        let plain = client.call(&passed_on(method, target, signed, &[]));
        let asked = client.call(&passed_on(
            method,
            target,
            signed,
            &[("x-forebay-node", "1")],
        ));
        assert_eq!((asked.status, &asked.body), (plain.status, &plain.body));
        assert_eq!(asked.header("x-forebay-grant"), None, "{method} {target}");
        assert_eq!(
            asked.header("content-length"),
            plain.header("content-length")
        );
        let proof = proof(&method.parse().unwrap(), target, 0);
        let node = [("x-forebay-node", proof.as_str())];
        let proven = client.call(&passed_on(method, target, signed, &node));
        assert_eq!((proven.status, proven.body.len()), (plain.status, 0));
        assert_eq!(proven.header("x-forebay-size"), Some("10"));
        assert_eq!(
            fetch(&mut client, "/bkt/k", &grant(&proven), &[]).status,
            206
        );
        if method == "HEAD" {
            assert_eq!(proven.header("content-length"), Some("10"));
        }
    }
}

#[test]
fn a_wrong_proof_is_no_proof() {
    let (_server, mut client) = server();
    let range = [("range", "bytes=3-")];
    for proof in [
        proof(&Method::GET, "/bkt/other", 0),
        proof(&Method::PUT, "/bkt/k", 0),
        proof(&Method::GET, "/bkt/k", 61),
        proof(&Method::GET, "/bkt/k", -61),
        "v1:0:00".to_owned(),
        "2".to_owned(),
    ] {
        let node = [("x-forebay-node", proof.as_str())];
        let answer = client.call(&passed_on("GET", "/bkt/k", &range, &node));
        assert_eq!((answer.status, answer.body.len()), (206, 7), "{proof}");
        assert_eq!(answer.header("x-forebay-grant"), None);
    }
}

#[test]
fn who_may_not_read_gets_no_grant() {
    let (_server, mut client) = server();
    let proof = proof(&Method::GET, "/bkt/k", 0);
    for node in ["1", &proof] {
        let node = [("x-forebay-node", node)];
        let anonymous = client.call(&bare("GET", "/bkt/k", &node));
        assert_eq!(
            (anonymous.status, anonymous.code().as_str()),
            (403, "AccessDenied")
        );
        let forged = with(signed_head("GET", "/bkt/k", &[], EMPTY, "wrong"), &node);
        let forged = client.call(&forged);
        assert_eq!(
            (forged.status, forged.code().as_str()),
            (403, "SignatureDoesNotMatch")
        );
        let absent = client.call(&passed_on(
            "GET",
            "/bkt/absent",
            &[],
            &[("x-forebay-node", "1")],
        ));
        assert_eq!((absent.status, absent.code().as_str()), (404, "NoSuchKey"));
        let same = ("if-none-match", FETCH[1].1);
        let same = client.call(&passed_on("GET", "/bkt/k", &[], &[same, node[0]]));
        assert_eq!(same.status, 304);
        for answer in [anonymous, forged, absent, same] {
            assert_eq!(answer.header("x-forebay-grant"), None);
            assert_eq!(answer.header("x-forebay-length"), None);
        }
    }
}

#[test]
fn a_grant_is_for_one_version_of_one_object() {
    let (server, mut client) = server();
    client.call(&signed("PUT", "/bkt/other", &[], b"0123456789"));
    let node = [("x-forebay-node", "1")];
    let token = grant(&client.call(&passed_on("GET", "/bkt/k", &[], &node)));
    let etag = "\"00000000000000000000000000000000\"";
    let rows: [(&str, &[(&str, &str)]); 9] = [
        ("/bkt/other", &[]),
        ("/bkt/k?versionId=null", &[]),
        ("/bkt/k?partNumber=1", &[]),
        ("/bkt/k?response-content-type=a", &[]),
        ("/bkt/k?acl", &[]),
        ("/bkt", &[]),
        ("/bkt/k", &[("if-match", "")]),
        ("/bkt/k", &[("if-match", "*")]),
        ("/bkt/k", &[("if-match", etag)]),
    ];
    for (target, change) in rows {
        let answer = fetch(&mut client, target, &token, change);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "AccessDenied"),
            "{target} {change:?}"
        );
    }
    for method in ["HEAD", "PUT", "DELETE"] {
        let request = bare(method, "/bkt/k", &[FETCH[1], ("x-forebay-grant", &token)]);
        assert_eq!(server.connect().call(&request).status, 403, "{method}");
    }
    let twice = fetch(
        &mut client,
        "/bkt/k",
        &token,
        &[("x-forebay-grant", &token)],
    );
    assert_eq!(twice.status, 403);
    let both = passed_on(
        "GET",
        "/bkt/k",
        &[],
        &[FETCH[1], ("x-forebay-grant", &token)],
    );
    assert_eq!(client.call(&both).code(), "InvalidArgument");
    assert_eq!(fetch(&mut client, "/bkt/k", &token, &[]).status, 206);
}

#[test]
fn a_grant_ends_with_its_version_its_bucket_and_its_server() {
    let (server, mut client) = server();
    let node = [("x-forebay-node", "1")];
    let token = grant(&client.call(&passed_on("GET", "/bkt/k", &[], &node)));
    client.call(&signed("PUT", "/bkt/k", &[], b"abcdefghij"));
    let changed = fetch(&mut client, "/bkt/k", &token, &[]);
    assert_eq!(
        (changed.status, changed.code().as_str()),
        (412, "PreconditionFailed")
    );
    client.call(&signed("DELETE", "/bkt/k", &[], b""));
    assert_eq!(fetch(&mut client, "/bkt/k", &token, &[]).status, 404);
    client.call(&signed("PUT", "/bkt/k", &[], b"0123456789"));
    assert_eq!(fetch(&mut client, "/bkt/k", &token, &[]).status, 206);
    client.call(&signed("DELETE", "/bkt/k", &[], b""));
    client.call(&signed("DELETE", "/bkt", &[], b""));
    client.call(&signed("PUT", "/bkt", &[], b""));
    client.call(&signed("PUT", "/bkt/k", &[], b"0123456789"));
    let remade = fetch(&mut client, "/bkt/k", &token, &[]);
    assert_eq!(
        (remade.status, remade.code().as_str()),
        (403, "AccessDenied")
    );
    let token = grant(&client.call(&passed_on("GET", "/bkt/k", &[], &node)));
    drop((client, server));
    let (_other, mut client) = self::server();
    assert_eq!(fetch(&mut client, "/bkt/k", &token, &[]).status, 403);
}

#[test]
fn a_grant_expires_and_is_renewed_before() {
    let (server, mut client) = server();
    let node = ("x-forebay-node", "1");
    let first = grant(&client.call(&passed_on("GET", "/bkt/k", &[], &[node])));
    server.set_clock(60);
    assert_eq!(fetch(&mut client, "/bkt/k", &first, &[]).status, 206);
    server.set_clock(61);
    let late = fetch(&mut client, "/bkt/k", &first, &[]);
    assert_eq!((late.status, late.code().as_str()), (403, "AccessDenied"));
    let renewed = fetch(&mut client, "/bkt/k", &first, &[node]);
    assert_eq!((renewed.status, renewed.body.len()), (206, 0));
    let second = grant(&renewed);
    assert_eq!(fetch(&mut client, "/bkt/k", &second, &[]).status, 206);
    server.set_clock(901);
    assert_eq!(fetch(&mut client, "/bkt/k", &first, &[node]).status, 403);
    let mut last = second;
    for after_s in (901..=3_600).step_by(899) {
        server.set_clock(after_s);
        let renewed = fetch(&mut client, "/bkt/k", &last, &[node]);
        assert_eq!(renewed.status, 206, "{after_s}");
        last = grant(&renewed);
    }
    server.set_clock(3_601);
    assert_eq!(fetch(&mut client, "/bkt/k", &last, &[node]).status, 403);
}

#[test]
fn a_grant_ends_with_the_key_that_it_goes_back_to() {
    let (server, mut client) = server();
    let node = ("x-forebay-node", "1");
    let token = grant(&client.call(&passed_on("GET", "/bkt/k", &[], &[node])));
    assert_eq!(fetch(&mut client, "/bkt/k", &token, &[]).status, 206);
    let store = server.store();
    store.remove_key_blocking(KEY).expect("it is there");
    for headers in [&[][..], &[node]] {
        let refused = fetch(&mut client, "/bkt/k", &token, headers);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (403, "AccessDenied")
        );
    }
    // One made anew under its id is another key.
    server.set_clock(1);
    let again = Some((KEY.to_owned(), Secret(SECRET.to_owned())));
    let root = store.root_account();
    store.create_key_blocking(root, again).expect("a new key");
    assert_eq!(fetch(&mut client, "/bkt/k", &token, &[]).status, 403);
    let token = grant(&client.call(&passed_on("GET", "/bkt/k", &[], &[node])));
    assert_eq!(fetch(&mut client, "/bkt/k", &token, &[]).status, 206);
}

#[test]
fn a_lease_is_for_nodes_that_prove_the_clusters_key() {
    let (_server, mut client) = server();
    let lease = |answer: &Answer| answer.header("x-forebay-lease").map(str::to_owned);
    let proof = proof(&Method::GET, "/bkt/k", 0);
    let proven = ("x-forebay-node", &*proof);
    let read = passed_on("GET", "/bkt/k", &[], &[proven]);
    let first = client.call(&read);
    let (first_lease, second) = (lease(&first), lease(&client.call(&read)));
    assert!(first_lease.is_some() && first_lease != second);
    let etag = first.header("etag").expect("it has one").to_owned();
    let same = passed_on("GET", "/bkt/k", &[], &[proven, ("if-none-match", &etag)]);
    let same = client.call(&same);
    assert_eq!(same.status, 304);
    assert!(lease(&same).is_some());
    // Who signs nothing has no key to be told.
    let renewed = [
        proven,
        ("x-forebay-grant", &grant(&first)),
        ("if-match", &etag),
    ];
    let renewed = client.call(&bare("GET", "/bkt/k", &renewed));
    assert_eq!((renewed.status, lease(&renewed)), (200, None));
    for unproven in [&[][..], &[("x-forebay-node", "1")]] {
        let answer = client.call(&passed_on("GET", "/bkt/k", &[], unproven));
        assert_eq!((answer.status, lease(&answer)), (200, None));
    }
    let missing = passed_on("GET", "/bkt/none", &[], &[proven]);
    assert_eq!(lease(&client.call(&missing)), None);
}
