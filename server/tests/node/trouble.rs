//! The origin is gone, comes back, changes its mind, or breaks off.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::fleet::{Fleet, MIB, asked, content, outcome};
use crate::harness::{Client, HOST, SECRET, signed, signed_head};

#[test]
fn a_dead_origin_is_said_quickly() {
    let fleet = Fleet::start();
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    fleet.tap.cut();
    let head = [("range", "bytes=0-0")];
    for (method, target, headers) in [
        ("GET", "/bkt/k", &[][..]),
        ("GET", "/bkt?list-type=2", &[]),
        ("PUT", "/bkt/new", &[]),
        ("HEAD", "/bkt/k", &head),
        ("DELETE", "/bkt/k", &[]),
    ] {
        let began_at = Instant::now();
        let answer = fleet.connect().call(&signed(method, target, headers, b""));
        assert_eq!(answer.status, 503, "{method} {target}");
        assert!(
            began_at.elapsed() < Duration::from_secs(4),
            "{method} {target}"
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("x-amz-request-id").map(str::len), Some(16));
        assert_eq!(outcome(&answer), None);
        if method != "HEAD" {
            assert_eq!(answer.code(), "ServiceUnavailable");
            assert!(answer.element("Message").contains("origin"));
            assert_eq!(answer.header("content-type"), Some("application/xml"));
        }
    }
}

#[test]
fn a_small_body_that_nobody_takes_is_read_before_it_is_refused() {
    let fleet = Fleet::start();
    fleet.tap.cut();
    let mut client = fleet.connect();
    for _ in 0..3 {
        let answer = client.call(&signed("PUT", "/bkt/k", &[], &content(300_000, 1)));
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("connection"), None, "it can go on");
    }
    let large = content(4 * MIB, 1);
    let head = signed_head(
        "PUT",
        "/bkt/k",
        &[("content-length", &large.len().to_string())],
        "UNSIGNED-PAYLOAD",
        SECRET,
    );
    client.send(&head);
    let answer = client.answer(false);
    assert_eq!(
        (answer.status, answer.header("connection")),
        (503, Some("close"))
    );
}

#[test]
fn readiness_is_the_origins_presence() {
    let fleet = Fleet::start();
    let ready = || {
        let request = format!("GET /-/health/ready HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        fleet.connect().call(request.as_bytes()).status
    };
    fleet.tap.cut();
    assert_eq!(ready(), 503);
    fleet.tap.lead_to(fleet.origin.addr);
    let began_at = Instant::now();
    while ready() != 200 {
        assert!(began_at.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_restarted_origin_makes_no_difference() {
    let mut fleet = Fleet::start();
    let body = content(3 * MIB, 1);
    fleet.put("/bkt/k", &body);
    fleet.warm("/bkt/k");
    fleet.put("/bkt/new", &body);
    fleet.origin.restart();
    fleet.tap.lead_to(fleet.origin.addr);
    assert_eq!(outcome(&fleet.get("/bkt/k", &[])), Some("HIT"));
    let answer = fleet.get("/bkt/new", &[]);
    assert!(answer.body == body);
    assert_eq!(outcome(&answer), Some("MISS"));
}

#[test]
fn a_grant_of_another_run_is_replaced() {
    let mut fleet = Fleet::start();
    let body = content(MIB, 1);
    fleet.put("/bkt/k", &body);
    // The node has its grant when the origin ends, and fetches from the one that comes then.
    let (tell, told) = mpsc::channel();
    let tap = fleet.tap.clone();
    fleet.tap.before(move |seen| {
        if seen.fetched().is_some() && tell.send(()).is_ok() {
            tap.hold();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let addr = fleet.node.addr;
    let reading =
        std::thread::spawn(move || Client::connect(addr).call(&signed("GET", "/bkt/k", &[], b"")));
    told.recv().expect("it fetches");
    drop(told);
    fleet.origin.restart();
    fleet.tap.lead_to(fleet.origin.addr);
    let answer = reading.join().expect("it reads");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body == body);
}

#[test]
fn what_changes_before_the_first_byte_is_asked_for_again() {
    let fleet = Fleet::start();
    // One block, so that no other one of the old version comes first.
    let (old, new) = (content(MIB, 1), content(MIB, 2));
    fleet.put("/bkt/k", &old);
    let origin = fleet.origin.addr;
    let (changed, body) = (Arc::new(AtomicUsize::new(0)), new.clone());
    let counted = Arc::clone(&changed);
    fleet.tap.before(move |seen| {
        if seen.fetched().is_some() && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            let put = Client::connect(origin).call(&signed("PUT", "/bkt/k", &[], &body));
            assert_eq!(put.status, 200);
        }
    });
    let answer = fleet.get("/bkt/k", &[]);
    assert_eq!(answer.status, 200);
    assert!(answer.body == new);
    assert!(changed.load(Ordering::SeqCst) > 1);
    assert_eq!(asked(&fleet.tap.take()).0, 2);
}

#[test]
fn what_changes_all_the_time_is_read_past_the_cache() {
    let fleet = Fleet::start();
    fleet.put("/bkt/k", &content(MIB, 0));
    let origin = fleet.origin.addr;
    let seed = Arc::new(AtomicUsize::new(0));
    let next = Arc::clone(&seed);
    fleet.tap.before(move |seen| {
        if seen.fetched().is_some() {
            let seed = next.fetch_add(1, Ordering::SeqCst) + 1;
            let body = content(MIB, u8::try_from(seed).expect("few"));
            let put = Client::connect(origin).call(&signed("PUT", "/bkt/k", &[], &body));
            assert_eq!(put.status, 200);
        }
    });
    let answer = fleet.get("/bkt/k", &[]);
    assert_eq!((answer.status, outcome(&answer)), (200, Some("BYPASS")));
    let last = u8::try_from(seed.load(Ordering::SeqCst)).expect("few");
    assert!(answer.body == content(MIB, last));
}

#[test]
fn what_changes_after_the_first_byte_breaks_off() {
    let fleet = Fleet::start();
    let (old, new) = (content(64 * MIB, 1), content(64 * MIB, 2));
    fleet.put("/bkt/k", &old);
    let mut client = fleet.connect();
    // The client does not read on, so that not all of it is fetched when it changes.
    client.send(&signed(
        "GET",
        "/bkt/k",
        &[("cache-control", "no-cache")],
        b"",
    ));
    let begun = client.begin();
    assert_eq!(begun.status, 200);
    fleet.put("/bkt/k", &new);
    fleet.tap.lead_to(fleet.origin.addr);
    let rest = client.rest();
    assert!(rest.len() < old.len(), "it can't be whole");
    assert!(rest == old[..rest.len()], "no byte is of another version");
    let again = fleet.get("/bkt/k", &[]);
    assert!(again.body == new);
}

#[test]
fn a_long_read_outlives_its_grants() {
    let fleet = Fleet::start();
    let body = content(80 * MIB, 1);
    fleet.put("/bkt/k", &body);
    let mut client = fleet.connect();
    client.send(&signed("GET", "/bkt/k", &[], b""));
    assert_eq!(client.begin().status, 200);
    // For the origin every grant is too old to fetch by now, and the signature to ask again.
    fleet.origin.set_clock(901);
    assert!(client.rest().len() < body.len());
    let mut client = fleet.connect();
    fleet.origin.set_clock(0);
    client.send(&signed(
        "GET",
        "/bkt/k",
        &[("cache-control", "no-cache")],
        b"",
    ));
    assert_eq!(client.begin().status, 200);
    fleet.origin.set_clock(800);
    fleet.tap.lead_to(fleet.origin.addr);
    assert!(client.rest() == body);
}
