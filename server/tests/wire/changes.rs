//! The change feed, as a node sees it.

use std::time::{Duration, Instant};

use forebay_store::time::Timestamp;
use http::Method;

use super::harness::{Answer, Client, HOST, MIDNIGHT, Running, cluster_key, signed};

fn ask(client: &mut Client, query: &str) -> Answer {
    client.call(&request(query))
}

fn request(query: &str) -> Vec<u8> {
    let target = format!("/-/changes{query}");
    let now = Timestamp::from_parts(MIDNIGHT, 0);
    let proof = cluster_key().prove(&Method::GET, &target, now);
    let proof = proof.to_str().expect("it is ASCII");
    format!("GET {target} HTTP/1.1\r\nhost: {HOST}\r\nx-forebay-node: {proof}\r\n\r\n").into_bytes()
}

fn json(answer: &Answer) -> serde_json::Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_slice(&answer.body).expect("it is JSON")
}

fn next(answer: &serde_json::Value) -> String {
    answer["next"].as_str().expect("it is text").to_owned()
}

/// Kind, bucket and key of each change.
fn rows(answer: &serde_json::Value) -> Vec<(&str, &str, Option<&str>)> {
    let changes = answer["changes"].as_array().expect("a list");
    changes
        .iter()
        .map(|change| {
            let kind = change["kind"].as_str().expect("it has a kind");
            let bucket = change["bucket"].as_str().expect("it has a bucket");
            (kind, bucket, change["key"].as_str())
        })
        .collect()
}

#[test]
fn changes_come_in_order_and_from_where_one_was() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    let start = json(&ask(&mut client, ""));
    assert_eq!(start["gap"], true);
    assert_eq!(start["changes"].as_array().unwrap().len(), 0);
    let epoch = start["epoch"].as_str().unwrap();
    assert!(next(&start).starts_with(&format!("{epoch}-")));
    let after = |next: &str, more: &str| format!("?after={next}{more}");
    let nothing = json(&ask(&mut client, &after(&next(&start), "")));
    assert_eq!(
        (&nothing["gap"], next(&nothing)),
        (&false.into(), next(&start))
    );

    client.call(&signed("PUT", "/bkt/a%22%0Ab", &[], b"x"));
    client.call(&signed("DELETE", "/bkt/a%22%0Ab", &[], b""));
    client.call(&signed("DELETE", "/bkt", &[], b""));
    let all = json(&ask(&mut client, &after(&next(&start), "")));
    let told: Vec<_> = rows(&all);
    let key = Some("a\"\nb");
    let gone = ("bucket_deleted", "bkt", None);
    let expected = [("published", "bkt", key), ("deleted", "bkt", key), gone];
    assert_eq!(told, expected);
    // Asked one by one, what was in the bucket is in no answer: its name is known at its end only.
    let mut from = next(&start);
    for expected in [vec![], vec![], vec![gone]] {
        let one = json(&ask(&mut client, &after(&from, "&limit=1")));
        assert_eq!(rows(&one), expected);
        assert_ne!(next(&one), from);
        from = next(&one);
    }
    assert_eq!(from, next(&all));

    client.call(&signed("PUT", "/bkt", &[], b""));
    client.call(&signed("PUT", "/bkt/a%22%0Ab", &[], b"x"));
    let more = json(&ask(&mut client, &after(&from, "")));
    let created = ("bucket_created", "bkt", None);
    assert_eq!(rows(&more), [created, ("published", "bkt", key)]);
    let more = &more["changes"];
    assert!(more[0].get("key").is_none());
    assert!(more[0]["sequence"].as_u64() < more[1]["sequence"].as_u64());
}

#[test]
fn who_waits_is_told_at_once() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    let start = next(&json(&ask(&mut client, "")));
    let mut waiting = server.connect();
    let began_at = Instant::now();
    waiting.send(&request(&format!("?after={start}&wait=60")));
    std::thread::sleep(Duration::from_millis(50));
    client.call(&signed("PUT", "/bkt/k", &[], b"x"));
    let told = json(&waiting.answer(false));
    assert_eq!(told["changes"][0]["key"], "k");
    assert!(began_at.elapsed() < Duration::from_secs(15));
    let began_at = Instant::now();
    let none = json(&ask(&mut client, &format!("?after={}&wait=1", next(&told))));
    assert_eq!(none["changes"].as_array().unwrap().len(), 0);
    assert!(began_at.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_stopping_server_lets_nobody_wait() {
    let mut server = Running::with_bucket();
    let mut client = server.connect();
    let start = next(&json(&ask(&mut client, "")));
    client.send(&request(&format!("?after={start}&wait=60")));
    std::thread::sleep(Duration::from_millis(100));
    let began_at = Instant::now();
    server.stop();
    assert_eq!(json(&client.answer(false))["gap"], false);
    assert!(began_at.elapsed() < Duration::from_secs(15));
}

#[test]
fn another_run_is_a_gap() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    for after in ["1-0", "1-99", "18446744073709551615-0"] {
        assert_eq!(
            json(&ask(&mut client, &format!("?after={after}")))["gap"],
            true
        );
    }
    let start = json(&ask(&mut client, ""));
    let ahead = format!("?after={}-99999", start["epoch"].as_str().unwrap());
    assert_eq!(json(&ask(&mut client, &ahead))["gap"], true);
}

#[test]
fn only_nodes_are_told_and_only_what_can_be_asked() {
    let server = Running::with_bucket();
    let mut client = server.connect();
    for query in [
        "?after=1",
        "?limit=0",
        "?limit=1001",
        "?wait=61",
        "?wait=x",
        "?what=1",
    ] {
        let answer = ask(&mut client, query);
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.ends_with(b"\n"), "{answer:?}");
    }
    for node in [
        "",
        "x-forebay-node: 1\r\n",
        "x-forebay-node: v1:1369353600:00\r\n",
    ] {
        let request = format!("GET /-/changes HTTP/1.1\r\nhost: {HOST}\r\n{node}\r\n");
        assert_eq!(client.call(request.as_bytes()).status, 403, "{node}");
    }
    let mut repeated = request("?wait=0");
    let at = repeated
        .windows(6)
        .position(|bytes| bytes == b"wait=0")
        .unwrap();
    repeated[at + 5] = b'1';
    assert_eq!(
        client.call(&repeated).status,
        403,
        "a proof is for one request"
    );
    let alone = Running::start_with(None);
    assert_eq!(ask(&mut alone.connect(), "").status, 404);
}
