//! `forebay warm` by paths, with pins, without waiting; and what is read most.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::harness::s3::S3;
use crate::harness::{ACCESS_KEY, Home, Random, SECRET_KEY, Server};

const MIB: usize = 1 << 20;

/// Has a command sign with the root's key.
fn with_keys(command: &mut Command) {
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
}

/// A store with a cache in front of it, and a mount.
fn tiered(home: &Home) -> Server {
    let mnt = home.mnt();
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--cache-dir", "the cache", "--cache-size", "64MiB"]);
    command.arg("--mount").arg(&mnt);
    Server::start(command, Some(mnt))
}

fn warm(home: &Home, args: &[&str]) -> Output {
    home.run(&[&["warm"], args].concat())
}

/// `warm` over S3.
fn warm_at(home: &Home, server: &Server, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = home.command(&["warm", "--endpoint", server.endpoint()]);
    with_keys(command.args(args));
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // It may have been refused before it read anything.
    drop(pipe.write_all(stdin));
    drop(pipe);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn ok(output: &Output) -> String {
    let shown = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{shown:?}");
    shown.0
}

fn refused(output: &Output, words: &str) {
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains(words), "{stderr}");
}

fn put(s3: &S3, key: &str, body: &[u8]) {
    s3.put("data", key, body).unwrap().expect(200);
}

fn outcome(s3: &S3, key: &str) -> String {
    let got = s3.get("data", key).unwrap().expect(200);
    got.header("x-forebay-cache").unwrap_or("none").to_owned()
}

fn cache(home: &Home, dir: &str, args: &[&str]) -> String {
    home.run_ok(&[&["cache", "--cache-dir", dir], args].concat())
}

#[test]
fn a_path_in_a_mount_is_brought_in_and_pinned() {
    let home = Home::new();
    let server = tiered(&home);
    let s3 = server.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    for (key, len) in [
        ("train/a", 2 * MIB),
        ("train/deep/b", 3000),
        ("train/empty", 0),
        ("other/c", 5000),
    ] {
        put(&s3, key, &random.bytes(len));
    }
    let path = |below: &str| server.mnt().join("data").join(below);
    let arg = |below: &str| path(below).to_str().unwrap().to_owned();

    let dry = ok(&warm(&home, &["--dry-run", &arg("train")]));
    assert!(dry.contains("2 objects are missing, 2.0 MiB"), "{dry}");
    assert_eq!(
        cache(&home, "the cache", &["ls"]),
        "",
        "nothing is brought in"
    );

    let warmed = ok(&warm(&home, &["--pin", &arg("train")]));
    assert!(warmed.starts_with("3 objects, 2.0 MiB"), "{warmed}");
    assert_eq!(outcome(&s3, "train/a"), "HIT");
    assert_eq!(outcome(&s3, "train/deep/b"), "HIT");
    cache(&home, "the cache", &["evict", "s3://data"]);
    assert_eq!(outcome(&s3, "train/deep/b"), "HIT", "it is pinned");

    let again = ok(&warm(&home, &["--json", &arg("train"), &arg("other/c")]));
    let last = again.lines().last().unwrap();
    assert!(
        last.contains("\"already\":3") && last.contains("\"brought_bytes\":5000"),
        "only what was missing: {last}"
    );
    let listed = cache(&home, "the cache", &["ls", "s3://data/other/"]);
    assert!(!listed.contains("pinned"), "{listed}");

    // From within, the whole mount by a name relative to where one is.
    let mut command = home.command(&["warm", "."]);
    let all = command.current_dir(server.mnt()).output().unwrap();
    assert!(ok(&all).starts_with("4 objects"));

    let outside = home.path().to_str().unwrap().to_owned();
    refused(&warm(&home, &[&outside]), "not in a mount of forebay");
    refused(&warm(&home, &[&arg("none")]), "find ");
    server.stop_ok();
    let plain = home.serve_and_mount();
    let path = plain.mnt().join("data");
    refused(
        &warm(&home, &[path.to_str().unwrap()]),
        "a mount without a cache",
    );
    plain.stop_ok();
}

#[test]
fn a_path_in_a_mount_of_a_remote_store_is_brought_in() {
    let home = Home::new();
    let store = home.serve();
    let s3 = store.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    let body = random.bytes(3 * MIB + 1);
    put(&s3, "p/q/train/a", &body);
    put(&s3, "p/q/b", &random.bytes(100));
    put(&s3, "p/c", &random.bytes(100));
    let mnt = home.mnt();
    let source = format!("{}/data/p/q", store.endpoint());
    let mut command = home.command(&["mount", &source]);
    with_keys(command.arg(&mnt).args(["--cache-dir", "node"]));
    let mount = Server::start(command, Some(mnt.clone()));
    let warmed = ok(&warm(&home, &["--pin", mnt.to_str().unwrap()]));
    assert!(warmed.starts_with("2 objects, 3.0 MiB"), "{warmed}");
    let listed = cache(&home, "node", &["ls"]);
    let names: Vec<_> = listed
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(names, ["s3://data/p/q/b", "s3://data/p/q/train/a"]);
    assert_eq!(listed.matches("pinned").count(), 2, "{listed}");
    assert!(fs::read(mnt.join("train/a")).unwrap() == body);
    mount.stop_ok();
    // A path of which nobody is there any more who serves it is in no mount.
    refused(
        &warm(&home, &[mnt.to_str().unwrap()]),
        "not in a mount of forebay",
    );
    store.stop_ok();
}

#[test]
fn a_manifest_comes_from_a_pipe_and_may_have_any_names() {
    let home = Home::new();
    let server = tiered(&home);
    let s3 = server.s3();
    s3.create_bucket("data");
    for key in ["a b", "line\nbreak", "c"] {
        put(&s3, key, b"some bytes");
    }
    let lines = b"\xef\xbb\xbfs3://data/a b\r\n\r\n\ns3://data/c\r\n";
    let warmed = warm_at(&home, &server, &["--manifest", "-"], lines);
    assert!(ok(&warmed).starts_with("2 objects, 20 B"), "{warmed:?}");
    let null = b"s3://data/line\nbreak\0\0s3://data/c";
    let warmed = warm_at(&home, &server, &["--manifest", "-", "-0"], null);
    assert!(ok(&warmed).contains("2 objects, 20 B in the cache (1"));
    let wrong = warm_at(
        &home,
        &server,
        &["--manifest", "-"],
        b"s3://data/c\ndata/c\n",
    );
    refused(&wrong, "-, line 2: expected s3://bucket/key");
    let missing = warm_at(&home, &server, &["--manifest", "-"], b"s3://data/x\n");
    refused(&missing, "s3://data/x: there is no such object");
    server.stop_ok();
}

#[test]
fn who_does_not_wait_is_told_that_all_is_on_its_way() {
    let home = Home::new();
    let server = tiered(&home);
    let s3 = server.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    for number in 0..20 {
        put(&s3, &format!("k{number}"), &random.bytes(100_000));
    }
    let queued = warm_at(&home, &server, &["--no-wait", "s3://data"], b"");
    assert!(ok(&queued).contains("are being brought in"));
    let give_up = Instant::now() + Duration::from_mins(1);
    while cache(&home, "the cache", &["ls"]).lines().count() < 20 {
        assert!(Instant::now() < give_up, "they do not come");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Pinned by way of S3, with the directory of the cache.
    let pinned = warm_at(&home, &server, &["--pin", "s3://data/k1*"], b"");
    refused(&pinned, "--cache-dir");
    let args = ["--pin", "--cache-dir", "the cache", "s3://data/k1*"];
    ok(&warm_at(&home, &server, &args, b""));
    let listed = cache(&home, "the cache", &["ls"]);
    assert_eq!(listed.matches("pinned").count(), 11, "{listed}");
    server.stop_ok();
}

#[test]
fn the_status_tells_what_is_read_most() {
    let home = Home::new();
    let server = tiered(&home);
    let s3 = server.s3();
    s3.create_bucket("data");
    put(&s3, "hot/x/k", &vec![1; MIB]);
    put(&s3, "cold/k", &vec![2; MIB]);
    let path = |below: &str| server.mnt().join("data").join(below);
    ok(&warm(&home, &[path("").to_str().unwrap()]));
    for _ in 0..5 {
        s3.get("data", "hot/x/k").unwrap().expect(200);
    }
    s3.get("data", "cold/k").unwrap().expect(200);
    let status = cache(&home, "the cache", &["status"]);
    let hot = status.find("s3://data/hot/x/").expect("it is shown");
    let cold = status.find("s3://data/cold/").expect("it is shown");
    assert!(hot < cold, "{status}");
    assert!(status.contains("\nhottest "), "{status}");
    let json = cache(&home, "the cache", &["status", "--json"]);
    let first = r#""hottest":[{"bucket":"data","prefix":"hot/x/","bytes":"#;
    assert!(json.contains(first), "{json}");
    assert!(json.contains(r#""index_bytes":"#), "{json}");
    server.stop_ok();
}
