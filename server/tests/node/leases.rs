//! What a node answers by itself, and when it stops.

use std::time::{Duration, Instant};

use forebay_server::LeaseTerms;
use forebay_store::entry::Secret;

use super::fleet::{Fleet, MIB, content, outcome, wait_until};
use super::reads::{every_form_of_read, presigned};
use crate::harness::{HOST, KEY, SECRET, signed, signed_head};

/// Terms that a test can wait for.
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(10);
const SHORT: LeaseTerms = LeaseTerms {
    term: Duration::from_secs(3),
    stale_max: Duration::ZERO,
};
const STALE: LeaseTerms = LeaseTerms {
    stale_max: Duration::from_mins(1),
    ..SHORT
};

fn leased() -> Fleet {
    Fleet::start_leased(LeaseTerms::default())
}

/// How many requests the origin got since the last time, but for changes.
fn asked(fleet: &Fleet) -> usize {
    let seen = fleet.tap.take();
    seen.iter().filter(|seen| !seen.is_feed()).count()
}

#[test]
fn a_hit_under_a_lease_costs_the_origin_nothing() {
    let fleet = leased();
    let body = content(2 * MIB + 5, 1);
    fleet.put("/bkt/k", &body);
    fleet.warm("/bkt/k");
    let etag = fleet.get("/bkt/k", &[]);
    let etag = etag.header("etag").expect("it has one").to_owned();
    fleet.tap.take();
    for _ in 0..10 {
        let answer = fleet.get("/bkt/k", &[]);
        assert_eq!((answer.status, outcome(&answer)), (200, Some("HIT")));
        assert_eq!(answer.header("cache-status"), Some("forebay; hit"));
        assert_eq!(answer.header("x-amz-request-id").map(str::len), Some(16));
        assert!(answer.body == body);
        let range = fleet.get("/bkt/k", &[("range", "bytes=1048570-1048585")]);
        assert_eq!(range.status, 206);
        assert!(range.body == body[1_048_570..=1_048_585]);
        let head = fleet.connect().call(&signed("HEAD", "/bkt/k", &[], b""));
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), Some("2097157"));
        let same = fleet.get("/bkt/k", &[("if-none-match", &etag)]);
        assert_eq!(same.status, 304);
        let other = fleet.get("/bkt/k", &[("if-match", "\"00\"")]);
        assert_eq!(
            (other.status, other.code().as_str()),
            (412, "PreconditionFailed")
        );
        let beyond = fleet.get("/bkt/k", &[("range", "bytes=9999999-")]);
        assert_eq!(
            (beyond.status, beyond.code().as_str()),
            (416, "InvalidRange")
        );
        let presigned = fleet.connect().call(&presigned("/bkt/k", SECRET));
        assert!(presigned.body == body);
    }
    assert_eq!(asked(&fleet), 0);
    assert_eq!(fleet.metric("forebay_lease_objects"), Some(1));
    assert!(fleet.metric("forebay_lease_answers_total") >= Some(70));
}

#[test]
fn every_form_of_read_is_answered_as_by_the_origin() {
    every_form_of_read(&leased());
}

#[test]
fn a_head_or_a_condition_is_enough_for_a_lease() {
    let fleet = leased();
    fleet.put("/bkt/k", b"hello");
    fleet.put("/bkt/l", b"hello");
    let head = |target| fleet.connect().call(&signed("HEAD", target, &[], b""));
    let first = head("/bkt/k");
    assert_eq!(asked(&fleet), 1);
    assert_eq!(head("/bkt/k").headers().count(), first.headers().count());
    assert_eq!(asked(&fleet), 0);
    // Its bytes are still to be fetched: once for a grant, once for them.
    assert_eq!(fleet.get("/bkt/k", &[]).body, b"hello");
    assert_eq!(asked(&fleet), 2);
    let etag = first.header("etag").expect("it has one");
    for expected in [1, 0] {
        assert_eq!(fleet.get("/bkt/l", &[("if-none-match", etag)]).status, 304);
        assert_eq!(asked(&fleet), expected);
    }
}

#[test]
fn what_a_lease_does_not_tell_is_asked() {
    let fleet = leased();
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    let no_cache = [("cache-control", "no-cache")];
    let fresh = [("cache-control", "max-age=0")];
    for (target, headers) in [
        ("/bkt/k", &no_cache[..]),
        ("/bkt/k", &fresh),
        ("/bkt/k?versionId=null", &[]),
        ("/bkt/k?partNumber=1", &[]),
        ("/bkt/other", &[]),
    ] {
        for _ in 0..2 {
            fleet.get(target, headers);
            assert_eq!(asked(&fleet), 1, "{target} {headers:?}");
        }
    }
}

#[test]
fn who_is_not_known_is_the_origins_to_refuse() {
    let fleet = leased();
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    let call = |request: &[u8]| fleet.connect().call(request);
    let forged = call(&signed_head(
        "GET",
        "/bkt/k",
        &[],
        "UNSIGNED-PAYLOAD",
        "wrong",
    ));
    assert_eq!(forged.code(), "SignatureDoesNotMatch");
    assert_eq!(
        call(&presigned("/bkt/k", "wrong")).code(),
        "SignatureDoesNotMatch"
    );
    let anonymous = format!("GET /bkt/k HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    assert_eq!(call(anonymous.as_bytes()).code(), "AccessDenied");
    let owner = [("x-amz-expected-bucket-owner", "another")];
    let other = call(&signed("GET", "/bkt/k", &owner, b""));
    assert_eq!(other.code(), "AccessDenied");
    assert_eq!(asked(&fleet), 4);
    fleet.origin.set_clock(901);
    let late = fleet.get("/bkt/k", &[]);
    assert_eq!(late.code(), "RequestTimeTooSkewed");
    assert_eq!(call(&presigned("/bkt/k", SECRET)).code(), "AccessDenied");
}

#[test]
fn what_changes_at_the_origin_is_soon_read() {
    let fleet = leased();
    for seed in 0..10 {
        let body = content(MIB + 3, seed);
        fleet.put("/bkt/k", &body);
        wait_until("the new bytes", || fleet.get("/bkt/k", &[]).body == body);
    }
    let origin = |method: &str, target: &str, body: &[u8]| {
        let answer = fleet
            .origin
            .connect()
            .call(&signed(method, target, &[], body));
        assert!(answer.status < 300, "{answer:?}");
    };
    origin("DELETE", "/bkt/k", b"");
    wait_until("its end", || fleet.get("/bkt/k", &[]).status == 404);
    origin("PUT", "/two", b"");
    origin("PUT", "/two/k", b"hello");
    assert_eq!(fleet.get("/two/k", &[]).body, b"hello");
    origin("DELETE", "/two/k", b"");
    origin("DELETE", "/two", b"");
    wait_until("the bucket's end", || {
        fleet.get("/two/k", &[]).code() == "NoSuchBucket"
    });
}

#[test]
fn what_is_written_through_the_node_is_read_at_once() {
    let fleet = leased();
    let mut client = fleet.connect();
    for round in 0..50_u8 {
        let body = content(1000, round);
        let put = client.call(&signed("PUT", "/bkt/k", &[], &body));
        assert_eq!(put.status, 200);
        for _ in 0..2 {
            assert!(client.call(&signed("GET", "/bkt/k", &[], b"")).body == body);
        }
    }
    let list = b"<Delete><Object><Key>k</Key></Object></Delete>";
    let digest = {
        use base64::Engine as _;
        use sha2::{Digest as _, Sha256};
        base64::engine::general_purpose::STANDARD.encode(Sha256::digest(list))
    };
    let headers = [("x-amz-checksum-sha256", &*digest)];
    let deleted = client.call(&signed("POST", "/bkt?delete=", &headers, list));
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert_eq!(client.call(&signed("GET", "/bkt/k", &[], b"")).status, 404);
}

#[test]
fn a_key_ends_with_what_it_was_leased() {
    let fleet = leased();
    let store = fleet.origin.store();
    let other = store
        .create_account_blocking("other")
        .expect("a new account");
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    store.remove_key_blocking(KEY).expect("it is there");
    wait_until("its end", || fleet.get("/bkt/k", &[]).status == 403);
    // Another account's key of the same name reads nothing here.
    let again = Some((KEY.to_owned(), Secret(SECRET.to_owned())));
    store
        .create_key_blocking(&other.id, again)
        .expect("a new key");
    for _ in 0..3 {
        assert_eq!(fleet.get("/bkt/k", &[]).code(), "AccessDenied");
    }
}

#[test]
fn without_a_feed_every_read_is_asked() {
    let fleet = Fleet::start_leased(SHORT);
    let (old, new) = (content(MIB, 1), content(MIB, 2));
    fleet.put("/bkt/k", &old);
    fleet.warm("/bkt/k");
    // No word of it comes, and no sign that it is gone.
    fleet.tap.hold_feed(true);
    wait_until("the feed hangs", || {
        fleet.tap.take().iter().any(super::tap::Seen::is_feed)
    });
    let began_at = Instant::now();
    fleet.put("/bkt/k", &new);
    while fleet.get("/bkt/k", &[]).body == old {
        assert!(began_at.elapsed() < SHORT.term + SLACK, "the bound");
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..3 {
        fleet.tap.take();
        assert!(fleet.get("/bkt/k", &[]).body == new);
        assert!(asked(&fleet) >= 1);
    }
    assert_eq!(fleet.metric("forebay_lease_feed_up"), Some(0));
    fleet.tap.hold_feed(false);
    fleet.wait_for_metric("forebay_lease_feed_up", 1);
    // On a machine that stalls for so short a term, it may end once more.
    wait_until("a lease", || {
        fleet.tap.take();
        fleet.get("/bkt/k", &[]).body == new && asked(&fleet) == 0
    });
}

#[test]
fn a_restarted_origin_leases_anew() {
    let mut fleet = leased();
    let body = content(MIB, 1);
    fleet.put("/bkt/k", &body);
    fleet.warm("/bkt/k");
    fleet.origin.restart();
    fleet.tap.lead_to(fleet.origin.addr);
    let new = content(MIB, 2);
    fleet.put("/bkt/k", &new);
    wait_until("the new bytes", || fleet.get("/bkt/k", &[]).body == new);
    fleet.wait_for_metric("forebay_lease_feed_up", 1);
    fleet.warm("/bkt/k");
    assert!(fleet.get("/bkt/k", &[]).body == new);
    assert_eq!(asked(&fleet), 0);
}

#[test]
fn without_serve_stale_a_dead_origin_is_said_at_once() {
    let fleet = leased();
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    fleet.tap.cut();
    let began_at = Instant::now();
    wait_until("its end", || fleet.get("/bkt/k", &[]).status == 503);
    assert!(
        began_at.elapsed() < Duration::from_secs(8),
        "before the term"
    );
}

#[test]
fn what_was_known_is_read_while_the_origin_is_down() {
    let fleet = Fleet::start_leased(STALE);
    let body = content(2 * MIB, 1);
    for target in ["/bkt/k", "/bkt/part", "/bkt/changed"] {
        fleet.put(target, &body);
    }
    fleet.warm("/bkt/k");
    fleet.warm("/bkt/changed");
    let first = fleet.get("/bkt/part", &[("range", "bytes=0-0")]);
    assert_eq!(first.status, 206);
    fleet.put("/bkt/changed", b"new");
    wait_until("the change", || {
        fleet.metric("forebay_lease_ended_total") >= Some(1)
    });
    fleet.tap.cut();
    wait_until("its end", || {
        outcome(&fleet.get("/bkt/k", &[])) == Some("STALE")
    });
    let answer = fleet.get("/bkt/k", &[]);
    assert_eq!(answer.status, 200);
    assert!(answer.body == body);
    assert_eq!(
        answer.header("cache-status"),
        Some("forebay; hit; detail=stale")
    );
    let range = fleet.get("/bkt/k", &[("range", "bytes=5-7")]);
    assert_eq!((range.status, &range.body[..]), (206, &body[5..8]));
    let head = fleet.connect().call(&signed("HEAD", "/bkt/k", &[], b""));
    assert_eq!((head.status, outcome(&head)), (200, Some("STALE")));
    let etag = answer.header("etag").expect("it has one");
    let same = fleet.get("/bkt/k", &[("if-none-match", etag)]);
    assert_eq!((same.status, outcome(&same)), (304, Some("STALE")));
    let ready = format!("GET /-/health/ready HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    assert_eq!(fleet.connect().call(ready.as_bytes()).status, 200);
    // What is not all here, has changed, was never seen, or is asked by somebody else.
    for target in [
        "/bkt/part",
        "/bkt/changed",
        "/bkt/other",
        "/bkt?list-type=2",
    ] {
        let began_at = Instant::now();
        let refused = fleet.get(target, &[]);
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (503, "ServiceUnavailable")
        );
        assert_eq!(refused.header("retry-after"), Some("1"), "{target}");
        assert!(began_at.elapsed() < SLACK, "{target}");
    }
    let forged = signed_head("GET", "/bkt/k", &[], "UNSIGNED-PAYLOAD", "wrong");
    assert_eq!(fleet.connect().call(&forged).status, 503);
    let want = [("cache-control", "no-cache")];
    assert_eq!(fleet.get("/bkt/k", &want).status, 503);
    assert!(fleet.metric("forebay_lease_stale_answers_total") >= Some(5));
    fleet.put("/bkt/k", b"after");
    fleet.tap.lead_to(fleet.origin.addr);
    wait_until("the origin's answer", || {
        fleet.get("/bkt/k", &[]).body == b"after"
    });
}

#[test]
fn what_was_known_too_long_ago_is_not_read() {
    let fleet = Fleet::start_leased(LeaseTerms {
        stale_max: Duration::from_secs(2),
        ..SHORT
    });
    fleet.put("/bkt/k", &content(MIB, 1));
    fleet.warm("/bkt/k");
    fleet.tap.cut();
    wait_until("its end", || {
        outcome(&fleet.get("/bkt/k", &[])) == Some("STALE")
    });
    let began_at = Instant::now();
    wait_until("the bound", || fleet.get("/bkt/k", &[]).status == 503);
    assert!(began_at.elapsed() < Duration::from_secs(2) + SLACK);
    let ready = format!("GET /-/health/ready HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    wait_until("not ready", || {
        fleet.connect().call(ready.as_bytes()).status == 503
    });
}
