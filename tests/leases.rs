//! What a node answers by itself, in front of a store: both the real program.

use std::time::{Duration, Instant};

use crate::harness::s3::S3;
use crate::harness::{Random, Server};
use crate::node::{Site, outcome, put, read_from_cache, text};

const MIB: usize = 1 << 20;

/// How old an answer may be, whatever becomes of the line to the store.
const BOUND: Duration = Duration::from_secs(10);

/// Waits until something holds, at most for the bound and what the machine takes.
fn soon(what: &str, holds: impl Fn() -> bool) {
    let give_up = Instant::now() + BOUND + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The sum of a server's counters that begin so.
fn metric(server: &Server, name: &str) -> u64 {
    let text = server
        .s3()
        .call("GET", "/-/metrics", &[], b"")
        .unwrap()
        .text();
    let rows = text.lines().filter(|line| line.starts_with(name));
    rows.map(|row| row.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

fn reads(store: &Server) -> u64 {
    metric(store, "forebay_requests_total{op=\"GetObject\"")
        + metric(store, "forebay_requests_total{op=\"HeadObject\"")
}

fn wait_for_leases(node: &Server) {
    soon("the change feed", || {
        metric(node, "forebay_lease_feed_up ") == 1
    });
}

#[test]
fn a_leased_read_costs_the_store_nothing_and_ends_with_a_change() {
    let site = Site::new();
    let node = site.node();
    let (origin, s3) = (site.store.s3(), node.s3());
    origin.create_bucket("data");
    let body = Random::from_environment().bytes(2 * MIB + 9);
    put(&origin, "k", &body);
    wait_for_leases(&node);
    read_from_cache(&s3, "k");
    let before = reads(&site.store);
    for _ in 0..50 {
        let got = s3.get("data", "k").unwrap().expect(200);
        assert_eq!(outcome(&got), "HIT");
        assert!(got.body == body);
        let head = s3.call("HEAD", "/data/k", &[], b"").unwrap();
        assert_eq!(head.header("content-length"), Some("2097161"));
    }
    assert_eq!(reads(&site.store), before, "the store is not asked");
    put(&origin, "k", b"new");
    soon("the new bytes", || {
        s3.get("data", "k").unwrap().body == b"new"
    });
    origin.delete("data", "k").unwrap().expect(204);
    soon("its end", || s3.get("data", "k").unwrap().status == 404);
    node.stop_ok();
    site.store.stop_ok();
}

#[test]
fn a_key_that_is_removed_reads_nothing_through_a_node() {
    let site = Site::new();
    let node = site.node();
    let origin = site.store.s3();
    origin.create_bucket("data");
    put(&origin, "k", b"bytes");
    let lines = site.home.run_ok(&["key", "create", "--account", "root"]);
    let value = |name: &str| {
        let line = lines.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().to_owned()
    };
    let (id, secret) = (value("AWS_ACCESS_KEY_ID="), value("AWS_SECRET_ACCESS_KEY="));
    let job = S3::new(node.endpoint(), &id, &secret);
    wait_for_leases(&node);
    read_from_cache(&job, "k");
    let before = reads(&site.store);
    job.get("data", "k").unwrap().expect(200);
    assert_eq!(reads(&site.store), before);
    site.home.run_ok(&["key", "rm", &id]);
    soon("its end", || job.get("data", "k").unwrap().status == 403);
    // Others go on.
    node.s3().get("data", "k").unwrap().expect(200);
    node.stop_ok();
    site.store.stop_ok();
}

#[test]
fn what_is_cached_is_read_while_the_store_is_down_if_the_node_is_told_so() {
    let site = Site::new();
    site.store.s3().create_bucket("data");
    let body = Random::from_environment().bytes(MIB + 1);
    put(&site.store.s3(), "k", &body);
    put(&site.store.s3(), "other", &body);
    let node = site.node_with(&["--serve-stale", "1h"]);
    let s3 = node.s3();
    wait_for_leases(&node);
    read_from_cache(&s3, "k");
    let (home, restart) = site.kill_store();
    soon("the store's end", || {
        outcome(&s3.get("data", "k").unwrap()) == "STALE"
    });
    let got = s3.get("data", "k").unwrap().expect(200);
    assert!(got.body == body);
    assert_eq!(
        got.header("cache-status"),
        Some("forebay; hit; detail=stale")
    );
    let began_at = Instant::now();
    let refused = s3.get("data", "other").unwrap().expect(503);
    assert!(refused.text().contains("<Code>ServiceUnavailable"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(began_at.elapsed() < Duration::from_secs(15));
    let store = restart(&home);
    put(&store.s3(), "k", b"new");
    soon("the new bytes", || {
        s3.get("data", "k").unwrap().body == b"new"
    });
    s3.get("data", "other").unwrap().expect(200);
    node.stop_ok();
    store.stop_ok();
}

#[test]
fn serving_what_is_stale_needs_leases() {
    let site = Site::new();
    let serve = [
        "serve",
        "--origin",
        "http://127.0.0.1:1",
        "--cache-dir",
        "c",
    ];
    for (more, status, words) in [
        (&["--serve-stale", "1h"][..], 1, "--cluster-key-file"),
        (
            &[
                "--serve-stale",
                "1h",
                "--cluster-key-file",
                "cluster-key",
                "--leases",
                "off",
            ],
            1,
            "--leases",
        ),
        (&["--serve-stale", "0"], 2, "1s"),
        (&["--serve-stale", "soon"], 2, "expected a number"),
    ] {
        let output = site.home.run(&[&serve[..], more].concat());
        assert_eq!(output.status.code(), Some(status), "{more:?}");
        let said = text(&output.stderr);
        assert!(said.contains(words), "{more:?}: {said}");
    }
    site.store.stop_ok();
}
