//! A node in front of a store: both the real program.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::harness::s3::{Response, S3};
use crate::harness::{ACCESS_KEY, Home, Random, SECRET_KEY, Server, is_mounted};

const MIB: usize = 1 << 20;

/// A store, and what a node in front of it needs.
pub(crate) struct Site {
    pub(crate) home: Home,
    pub(crate) store: Server,
}

impl Site {
    pub(crate) fn new() -> Self {
        let home = Home::new();
        fs::write(
            home.path().join("cluster-key"),
            "0123456789abcdef".repeat(4),
        )
        .unwrap();
        let store = Self::store(&home, "127.0.0.1:0");
        Self { home, store }
    }

    fn store(home: &Home, listen: &str) -> Server {
        let mut command = home.command(&["serve", "--listen", listen]);
        command.args(["--cluster-key-file", "cluster-key"]);
        Server::start(command, None)
    }

    /// Kills the store; what is returned starts it again where it was.
    pub(crate) fn kill_store(self) -> (Home, impl FnOnce(&Home) -> Server) {
        let Self { home, store } = self;
        let listen = store.endpoint().trim_start_matches("http://").to_owned();
        store.kill();
        (home, move |home: &Home| Self::store(home, &listen))
    }

    fn cache_dir(&self) -> PathBuf {
        self.home.path().join("cache")
    }

    pub(crate) fn node(&self) -> Server {
        self.node_with(&[])
    }

    pub(crate) fn node_with(&self, more: &[&str]) -> Server {
        let mut command = self.home.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--origin", self.store.endpoint()]);
        command.args(["--cache-dir", "cache", "--cache-size", "256MiB"]);
        command
            .args(["--cluster-key-file", "cluster-key"])
            .args(more);
        Server::start(command, None)
    }

    /// A node for an origin that is no forebay: it has keys of its own, and signs with the root's.
    fn foreign_node(&self) -> Server {
        fs::write(self.home.path().join("keys"), "# ours\nJOB job-secret\n").unwrap();
        let mut command = self.home.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--origin", self.store.endpoint(), "--cache-dir", "cache"]);
        command.args(["--node-keys-file", "keys"]);
        with_keys(&mut command);
        Server::start(command, None)
    }

    /// `forebay mount` of the bucket `data`.
    fn mount(&self, more: &[&str]) -> Server {
        let source = format!("{}/data", self.store.endpoint());
        let mnt = self.home.mnt();
        let mut command = self.home.command(&["mount", &source]);
        command.arg(&mnt).args(["--cache-dir", "cache"]).args(more);
        with_keys(&mut command);
        Server::start(command, Some(mnt))
    }

    fn cache(&self, args: &[&str]) -> Output {
        let all = [&["cache", "--cache-dir", "cache"], args].concat();
        self.home.run(&all)
    }

    fn warm(&self, node: &Server, args: &[&str]) -> Output {
        let all = [&["warm", "--endpoint", node.endpoint()], args].concat();
        let mut command: Command = self.home.command(&all);
        with_keys(&mut command);
        command.output().unwrap()
    }
}

/// Has a command sign with the root's key.
fn with_keys(command: &mut Command) {
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
}

pub(crate) fn outcome(response: &Response) -> &str {
    response.header("x-forebay-cache").unwrap_or("none")
}

/// Reads an object, which was read before, until all of it is in the cache: its blocks are written
/// behind the answer.
pub(crate) fn read_from_cache(s3: &S3, key: &str) -> Vec<u8> {
    for _ in 0..500 {
        let got = s3.get("data", key).unwrap().expect(200);
        match outcome(&got) {
            "HIT" => return got.body,
            "MISS" | "PARTIAL" => std::thread::sleep(Duration::from_millis(20)),
            other => panic!("{key}: {other}"),
        }
    }
    panic!("{key} does not get into the cache");
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn put(s3: &S3, key: &str, body: &[u8]) {
    s3.put("data", key, body).unwrap().expect(200);
}

#[test]
fn a_read_costs_the_origin_once_and_what_is_overwritten_is_never_stale() {
    let site = Site::new();
    let node = site.node_with(&["--leases", "off"]);
    let origin = site.store.s3();
    let s3 = node.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    let (large, small) = (random.bytes(5 * MIB + 77), random.bytes(1000));
    // A write through the node is a write to the store.
    put(&s3, "large", &large);
    put(&origin, "small", &small);
    for (key, body) in [("large", &large), ("small", &small)] {
        let got = s3.get("data", key).unwrap().expect(200);
        assert_eq!(outcome(&got), "MISS", "{key}");
        assert!(got.body == *body, "{key}");
        assert!(read_from_cache(&s3, key) == *body, "{key}");
    }
    assert_eq!(s3.list("data", ""), ["large", "small"]);
    let other = random.bytes(3 * MIB);
    put(&origin, "large", &other);
    let got = s3.get("data", "large").unwrap().expect(200);
    assert_eq!(outcome(&got), "MISS");
    assert!(got.body == other, "the version that the origin has now");
    s3.delete("data", "small").unwrap().expect(204);
    s3.get("data", "small").unwrap().expect(404);
    node.stop_ok();
    site.store.stop_ok();
}

#[test]
fn what_was_cached_is_there_after_a_restart_and_after_a_kill() {
    let site = Site::new();
    let mut node = site.node();
    node.s3().create_bucket("data");
    let body = Random::from_environment().bytes(3 * MIB + 1);
    put(&node.s3(), "k", &body);
    read_from_cache(&node.s3(), "k");
    node.stop_ok();
    node = site.node();
    assert_eq!(outcome(&node.s3().get("data", "k").unwrap()), "HIT");
    node.kill();
    node = site.node();
    let got = node.s3().get("data", "k").unwrap().expect(200);
    assert_eq!(outcome(&got), "HIT");
    assert!(got.body == body);
    // Deleted while nobody uses it, it is begun anew.
    node.stop_ok();
    fs::remove_dir_all(site.cache_dir()).unwrap();
    node = site.node();
    assert_eq!(outcome(&node.s3().get("data", "k").unwrap()), "MISS");
    node.stop_ok();
}

#[test]
fn a_node_says_so_when_its_origin_is_gone() {
    let site = Site::new();
    let node = site.node();
    let s3 = node.s3();
    s3.create_bucket("data");
    put(&s3, "k", b"bytes");
    s3.get("data", "k").unwrap().expect(200);
    site.store.kill();
    // It may hear a moment later that nobody tells it of changes any more.
    let give_up = Instant::now() + Duration::from_secs(5);
    let mut refused = s3.get("data", "k").unwrap();
    while refused.status == 200 && Instant::now() < give_up {
        refused = s3.get("data", "k").unwrap();
    }
    assert!(matches!(refused.status, 503 | 504), "{}", refused.text());
    assert!(refused.text().contains("<Code>"), "{}", refused.text());
    node.stop_ok();
}

#[test]
fn warming_brings_all_in_and_says_what_is_missing() {
    let site = Site::new();
    let node = site.node();
    let s3 = node.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    let bodies: Vec<_> = (0..12).map(|i| random.bytes(200_000 * i + 1)).collect();
    for (i, body) in bodies.iter().enumerate() {
        put(&s3, &format!("train/{i:02}.tar"), body);
    }
    put(&s3, "train/index.json", b"{}");
    put(&s3, "empty", b"");

    let dry = site.warm(&node, &["--dry-run", "s3://data/train/*.tar"]);
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert!(
        text(&dry.stdout).contains("12 objects are missing"),
        "{}",
        text(&dry.stdout)
    );

    let warmed = site.warm(&node, &["s3://data/train/*.tar"]);
    assert!(warmed.status.success(), "{}", text(&warmed.stderr));
    assert!(
        text(&warmed.stdout).starts_with("12 objects"),
        "{}",
        text(&warmed.stdout)
    );
    for (i, body) in bodies.iter().enumerate() {
        let got = s3.get("data", &format!("train/{i:02}.tar")).unwrap();
        assert_eq!(outcome(&got), "HIT");
        assert!(got.body == *body);
    }
    let got = s3.get("data", "train/index.json").unwrap();
    assert_eq!(outcome(&got), "MISS", "the pattern does not match it");

    let again = site.warm(&node, &["--json", "s3://data/train/"]);
    let last = text(&again.stdout).lines().last().unwrap().to_owned();
    assert!(
        last.contains("\"already\":13") && last.contains("\"missing\":0"),
        "{last}"
    );

    fs::write(
        site.home.path().join("list"),
        "s3://data/train/00.tar\ns3://data/none\n",
    )
    .unwrap();
    let missing = site.warm(&node, &["--manifest", "list"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("s3://data/none: there is no such object"));
    let nothing = site.warm(&node, &["s3://data/nothing-there/"]);
    assert_eq!(nothing.status.code(), Some(1));

    let store = site.warm(&site.store, &["s3://data/train/"]);
    assert_eq!(store.status.code(), Some(1));
    assert!(
        text(&store.stderr).contains("no node of forebay"),
        "{}",
        text(&store.stderr)
    );
    node.stop_ok();
}

#[test]
fn the_cache_command_shows_and_changes_what_is_kept() {
    let site = Site::new();
    let none = site.cache(&["status"]);
    assert_eq!(none.status.code(), Some(1));
    let node = site.node();
    let s3 = node.s3();
    s3.create_bucket("data");
    put(&s3, "a/1", &vec![1; 2 * MIB]);
    put(&s3, "b/1", &vec![2; 5000]);
    for key in ["a/1", "b/1"] {
        s3.get("data", key).unwrap().expect(200);
        read_from_cache(&s3, key);
    }
    let status = text(&site.cache(&["status"]).stdout);
    assert!(status.contains("objects   2 (3 blocks)"), "{status}");
    assert!(status.contains(": 2 hit ("), "{status}");
    let listed = text(&site.cache(&["ls"]).stdout);
    let names: Vec<_> = listed
        .lines()
        .map(|line| line.rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(names, ["s3://data/a/1", "s3://data/b/1"]);
    assert_eq!(
        text(&site.cache(&["pin", "s3://data/a/"]).stdout),
        "1 objects pinned\n"
    );
    assert!(site.cache(&["evict", "s3://data"]).status.success());
    assert_eq!(
        outcome(&s3.get("data", "a/1").unwrap()),
        "HIT",
        "it is pinned"
    );
    assert_eq!(outcome(&s3.get("data", "b/1").unwrap()), "MISS");
    assert!(site.cache(&["unpin", "s3://data/a/"]).status.success());
    assert!(site.cache(&["evict", "s3://data/a/"]).status.success());
    assert_eq!(outcome(&s3.get("data", "a/1").unwrap()), "MISS");
    node.stop_ok();
}

#[test]
fn a_node_of_a_foreign_origin_checks_its_clients_itself() {
    let site = Site::new();
    site.store.s3().create_bucket("data");
    let node = site.foreign_node();
    let body = Random::from_environment().bytes(2 * MIB + 5);
    let job = S3::new(node.endpoint(), "JOB", "job-secret");
    put(&job, "k", &body);
    assert!(job.get("data", "k").unwrap().expect(200).body == body);
    assert!(read_from_cache(&job, "k") == body);
    assert_eq!(job.list("data", ""), ["k"]);
    // The origin's own key is none of the node's, nor is a wrong secret.
    node.s3().get("data", "k").unwrap().expect(403);
    let wrong = S3::new(node.endpoint(), "JOB", "another-secret");
    wrong.get("data", "k").unwrap().expect(403);
    put(&site.store.s3(), "k", b"new");
    assert_eq!(job.get("data", "k").unwrap().expect(200).body, b"new");
    node.stop_ok();
}

#[test]
fn a_bucket_of_a_remote_store_is_a_directory() {
    let site = Site::new();
    let s3 = site.store.s3();
    s3.create_bucket("data");
    let mut random = Random::from_environment();
    let large = random.bytes(9 * MIB + 11);
    put(&s3, "train/large", &large);
    put(&s3, "train/small", b"small");
    let mount = site.mount(&[]);
    let path = |name: &str| mount.mnt().join(name);
    let names = |dir: &str| {
        let entries = fs::read_dir(path(dir)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("train"), ["large", "small"]);
    for _ in 0..2 {
        assert!(fs::read(path("train/large")).unwrap() == large);
        assert_eq!(fs::read(path("train/small")).unwrap(), b"small");
    }
    let written = random.bytes(6 * MIB);
    fs::create_dir(path("out")).unwrap();
    fs::write(path("out/model"), &written).unwrap();
    let got = s3.get("data", "out/model").unwrap().expect(200);
    assert!(
        got.body == written,
        "close(2) answers when it is at the store"
    );
    let mut mv = Command::new("mv");
    mv.arg(path("out/model")).arg(path("out/final"));
    assert!(mv.status().unwrap().success());
    s3.get("data", "out/model").unwrap().expect(404);
    assert!(s3.get("data", "out/final").unwrap().expect(200).body == written);
    fs::remove_file(path("out/final")).unwrap();
    s3.get("data", "out/final").unwrap().expect(404);
    mount.stop_ok();
    assert!(!is_mounted(&site.home.mnt()));

    let mount = site.mount(&["--read-only"]);
    let refused = fs::write(mount.mnt().join("x"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(fs::read(mount.mnt().join("train/large")).unwrap() == large);
    mount.stop_ok();
}

#[test]
fn what_changes_at_the_store_is_seen_by_a_mount_that_is_told() {
    let site = Site::new();
    let s3 = site.store.s3();
    s3.create_bucket("data");
    put(&s3, "d/a", b"first");
    let mount = site.mount(&["--cluster-key-file", "cluster-key"]);
    let path = |name: &str| mount.mnt().join(name);
    // Well below the ten seconds for which answers are believed where nothing is told.
    let soon = |what: &str, holds: &dyn Fn() -> bool| {
        let give_up = Instant::now() + Duration::from_secs(8);
        while !holds() {
            assert!(Instant::now() < give_up, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    assert_eq!(fs::read(path("d/a")).unwrap(), b"first");
    assert!(!path("d/b").exists());
    // Following has begun when a change is seen long before it would be without.
    soon("the first change", &|| {
        put(&s3, "d/b", b"new");
        std::thread::sleep(Duration::from_millis(100));
        path("d/b").exists()
    });
    for round in 0..5_u8 {
        put(&s3, "d/a", &[round; 3]);
        soon("an overwrite", &|| {
            fs::read(path("d/a")).unwrap() == [round; 3]
        });
        s3.delete("data", "d/b").unwrap().expect(204);
        soon("a deletion", &|| !path("d/b").exists());
        put(&s3, "d/b", b"again");
        soon("a new object", &|| path("d/b").exists());
    }
    mount.stop_ok();
}

#[test]
fn a_node_has_both_faces_over_one_cache() {
    let site = Site::new();
    let s3 = site.store.s3();
    s3.create_bucket("data");
    let body = Random::from_environment().bytes(4 * MIB);
    put(&s3, "k", &body);
    let mnt = site.home.mnt();
    let mut command = site.home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--origin", site.store.endpoint(), "--cache-dir", "cache"]);
    command.args(["--cluster-key-file", "cluster-key", "--mount"]);
    command.arg(&mnt);
    with_keys(&mut command);
    let node = Server::start(command, Some(mnt));
    assert!(fs::read(node.mnt().join("data/k")).unwrap() == body);
    assert!(read_from_cache(&node.s3(), "k") == body);
    let status = text(&site.cache(&["status"]).stdout);
    assert!(
        status.contains("4.0 MiB from the origin"),
        "once for both: {status}"
    );
    node.stop_ok();
}

#[test]
fn a_node_refuses_settings_that_make_no_sense() {
    let home = Home::new();
    for (args, words) in [
        (
            &["serve", "--origin", "http://127.0.0.1:1"][..],
            "--cache-dir",
        ),
        (&["serve", "--cache-size", "1GiB"][..], "--cache-dir"),
        (
            &["serve", "--origin", "ftp://x", "--cache-dir", "c"][..],
            "http://",
        ),
        (
            &[
                "serve",
                "--origin",
                "http://127.0.0.1:1",
                "--cache-dir",
                "c",
                "--cache-size",
                "0",
            ][..],
            "size",
        ),
    ] {
        let output = home.run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
    fs::write(home.path().join("short"), "secret").unwrap();
    let args = [
        "serve",
        "--origin",
        "http://127.0.0.1:1",
        "--cache-dir",
        "c",
    ];
    let output = home.run(&[&args[..], &["--cluster-key-file", "short"]].concat());
    assert_eq!(output.status.code(), Some(1));
    fs::write(home.path().join("mine"), "dear").unwrap();
    let args = [
        "serve",
        "--origin",
        "http://127.0.0.1:1",
        "--cache-dir",
        ".",
    ];
    let output = home.run(&args);
    assert_eq!(
        output.status.code(),
        Some(1),
        "a directory with other files"
    );
    assert_eq!(fs::read(home.path().join("mine")).unwrap(), b"dear");
}
