//! A store with a cache on another disk in front of it: `serve --cache-dir` without an origin.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::s3::{Response, S3};
use crate::harness::{Home, Random, Server};

const MIB: usize = 1 << 20;

fn tiered(home: &Home, mount: bool) -> Server {
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--cache-dir", "tier", "--cache-size", "64MiB"]);
    let mnt = home.mnt();
    if mount {
        command.arg("--mount").arg(&mnt);
    }
    Server::start(command, mount.then_some(mnt))
}

fn outcome(response: &Response) -> &str {
    response.header("x-forebay-cache").unwrap_or("none")
}

/// A counter of the server's.
fn metric(server: &Server, name: &str) -> u64 {
    let text = crate::harness::s3::fetch(&format!("{}/-/metrics", server.endpoint()));
    let text = text.unwrap().expect(200).text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} in {text}"))
        .trim()
        .parse()
        .unwrap()
}

/// Bytes that were read from the data files.
fn from_data(server: &Server) -> u64 {
    metric(server, "forebay_cache_fetched_bytes_total ")
}

/// Waits until all of an object is in the cache: its blocks are written behind the answer.
fn settle(s3: &S3, key: &str) {
    let s3 = s3
        .saying("range", "bytes=0-0")
        .saying("cache-control", "no-cache");
    for _ in 0..1000 {
        let head = s3.call("HEAD", &format!("/data/{key}"), &[], b"");
        let head = head.unwrap().expect(206);
        if outcome(&head) == "HIT" {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{key} does not get into the cache");
}

fn get(s3: &S3, key: &str, control: &str) -> Response {
    let s3 = s3.saying("cache-control", control);
    s3.get("data", key).unwrap().expect(200)
}

#[test]
fn a_body_is_read_from_the_data_files_once_also_after_a_restart() {
    let home = Home::new();
    let mut random = Random::from_environment();
    let bodies = [
        ("large", random.bytes(9 * MIB + 3)),
        ("small", random.bytes(5000)),
    ];
    let server = tiered(&home, false);
    assert!(server.banner.contains("cache"), "{}", server.banner);
    server.s3().create_bucket("data");
    for (key, body) in &bodies {
        let s3 = server.s3();
        s3.put("data", key, body).unwrap().expect(200);
        let before = from_data(&server);
        let got = s3.get("data", key).unwrap().expect(200);
        assert_eq!(outcome(&got), "MISS");
        assert!(got.body == *body);
        settle(&s3, key);
        let got = s3.get("data", key).unwrap().expect(200);
        assert_eq!((outcome(&got), got.body == *body), ("HIT", true));
        assert_eq!(got.header("cache-status"), Some("forebay; hit"));
        assert_eq!(from_data(&server) - before, body.len() as u64);
    }
    server.stop_ok();
    let server = tiered(&home, false);
    for (key, body) in &bodies {
        let got = server.s3().get("data", key).unwrap().expect(200);
        assert_eq!((outcome(&got), got.body == *body), ("HIT", true));
    }
    assert_eq!(from_data(&server), 0);
    // Killed, it finds at least what was there a second before.
    std::thread::sleep(Duration::from_millis(1500));
    server.kill();
    let server = tiered(&home, false);
    let (key, body) = &bodies[0];
    assert!(server.s3().get("data", key).unwrap().expect(200).body == *body);
    server.stop_ok();
    // Without it, the store has everything.
    let server = home.serve();
    for (key, body) in &bodies {
        let got = server.s3().get("data", key).unwrap().expect(200);
        assert_eq!((outcome(&got), got.body == *body), ("none", true));
    }
    server.stop_ok();
}

#[test]
fn what_is_overwritten_is_never_stale_and_the_words_of_a_request_count() {
    let home = Home::new();
    let server = tiered(&home, false);
    let s3 = server.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    let (one, two) = (random.bytes(2 * MIB), random.bytes(2 * MIB));
    s3.put("data", "k", &one).unwrap().expect(200);
    assert_eq!(outcome(&get(&s3, "k", "no-store")), "BYPASS");
    assert_eq!(outcome(&get(&s3, "k", "no-cache")), "MISS");
    assert_eq!(
        outcome(&get(&s3, "k", "no-cache")),
        "MISS",
        "it fills nothing"
    );
    get(&s3, "k", "max-age=0");
    settle(&s3, "k");
    assert_eq!(outcome(&get(&s3, "k", "no-cache")), "HIT");
    let part = s3.saying("range", "bytes=1048570-1048585");
    let part = part.get("data", "k").unwrap().expect(206);
    assert_eq!(outcome(&part), "HIT");
    assert!(part.body == one[1_048_570..=1_048_585]);
    s3.put("data", "k", &two).unwrap().expect(200);
    let got = s3.get("data", "k").unwrap().expect(200);
    assert_eq!((outcome(&got), got.body == two), ("MISS", true));
    s3.delete("data", "k").unwrap().expect(204);
    s3.get("data", "k").unwrap().expect(404);
    server.stop_ok();
}

#[test]
fn a_head_brings_an_object_in_and_the_cache_command_shows_it() {
    let home = Home::new();
    let server = tiered(&home, false);
    let s3 = server.s3();
    s3.create_bucket("data");
    let body = Random::from_environment().bytes(3 * MIB);
    s3.put("data", "train/k", &body).unwrap().expect(200);
    let asks = s3.saying("range", "bytes=0-0");
    let head = asks.call("HEAD", "/data/train/k", &[], b"");
    let head = head.unwrap().expect(206);
    assert_eq!(outcome(&head), "PRESTAGE");
    assert_eq!(head.header("x-forebay-cached"), Some("0"));
    settle(&s3, "train/k");
    assert_eq!(from_data(&server), body.len() as u64);
    assert!(s3.get("data", "train/k").unwrap().expect(200).body == body);
    assert_eq!(from_data(&server), body.len() as u64);
    let cache = |args: &[&str]| home.run_ok(&[&["cache", "--cache-dir", "tier"], args].concat());
    let status = cache(&["status"]);
    assert!(status.contains("the store in "), "{status}");
    assert!(status.contains("objects   1 (3 blocks)"), "{status}");
    assert!(cache(&["ls"]).contains("s3://data/train/k"));
    assert_eq!(cache(&["pin", "s3://data/train/"]), "1 objects pinned\n");
    cache(&["evict", "s3://data"]);
    assert_eq!(outcome(&s3.get("data", "train/k").unwrap()), "HIT");
    cache(&["unpin", "s3://data"]);
    cache(&["evict", "s3://data"]);
    assert_eq!(outcome(&s3.get("data", "train/k").unwrap()), "MISS");
    server.stop_ok();
}

#[test]
fn both_faces_read_by_way_of_one_cache() {
    let home = Home::new();
    let server = tiered(&home, true);
    let s3 = server.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    let (large, small) = (random.bytes(6 * MIB + 1), random.bytes(3000));
    let path = |key: &str| -> PathBuf { server.mnt().join("data").join(key) };
    // What one face wrote the other reads, and it costs the data files one read.
    s3.put("data", "large", &large).unwrap().expect(200);
    fs::write(path("small"), &small).unwrap();
    assert!(fs::read(path("large")).unwrap() == large);
    settle(&s3, "large");
    assert!(s3.get("data", "small").unwrap().expect(200).body == small);
    settle(&s3, "small");
    let before = from_data(&server);
    assert!(before <= (large.len() + small.len()) as u64);
    assert!(s3.get("data", "large").unwrap().expect(200).body == large);
    assert!(fs::read(path("large")).unwrap() == large);
    assert_eq!(from_data(&server), before);
    // An overwrite on either face is seen on both at once.
    let other = random.bytes(4 * MIB);
    fs::write(path("large"), &other).unwrap();
    assert!(s3.get("data", "large").unwrap().expect(200).body == other);
    s3.put("data", "large", &small).unwrap().expect(200);
    assert!(fs::read(path("large")).unwrap() == small);
    server.stop_ok();
    let server = tiered(&home, true);
    assert!(fs::read(server.mnt().join("data/large")).unwrap() == small);
    assert!(fs::read(server.mnt().join("data/small")).unwrap() == small);
    server.stop_ok();
}

#[test]
fn a_cache_that_can_take_nothing_costs_no_read() {
    let home = Home::new();
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    // A page, and that is the index's.
    command.args(["--cache-dir", "tier", "--cache-size", "4KiB"]);
    let server = Server::start(command, None);
    let s3 = server.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    for round in 0..8 {
        let body = random.bytes(2 * MIB + round);
        s3.put("data", "k", &body).unwrap().expect(200);
        for _ in 0..2 {
            assert!(s3.get("data", "k").unwrap().expect(200).body == body);
        }
    }
    let (status, stderr) = server.stop();
    assert!(status.success(), "{stderr}");
    let said = stderr.matches("blocks are not kept").count();
    assert_eq!(said, 1, "once: {stderr}");
}

#[test]
fn directories_that_lie_within_each_other_are_refused() {
    let home = Home::new();
    let data = home.data();
    let within = data.join("cache");
    for cache in [&data, &within] {
        let mut command = home.command(&["serve", "--listen", "127.0.0.1:0", "--cache-dir"]);
        let output = command.arg(cache).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
    }
    let output = home.run(&["serve", "--cache-size", "1GiB"]);
    assert_eq!(output.status.code(), Some(2), "a size of nothing");
}
