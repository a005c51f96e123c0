//! Nodes that help each other: all the real program, counted at the origin.

use std::fs;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay_cache::cluster::ClusterKey;
use forebay_store::time::{Clock as _, SystemClock};
use http::Method;

use crate::harness::s3::{Response, S3, fetch};
use crate::harness::{ACCESS_KEY, Home, Random, SECRET_KEY, Server, number};

const MIB: u64 = 1 << 20;
/// Bytes of one request to a peer, at most: what one that is passed over may cost the origin.
const ASK_LEN_MAX: u64 = 8 * MIB;
const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A store, and nodes in front of it that know of each other.
pub(crate) struct Cluster {
    pub(crate) home: Home,
    pub(crate) store: Server,
    pub(crate) addresses: Vec<String>,
    pub(crate) nodes: Vec<Option<Server>>,
}

/// Addresses of this machine that no other test has: they are in the list before anybody listens.
fn addresses(count: usize) -> Vec<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id();
    let address = |_| {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let (a, b) = (process / 200 % 200 + 10, process % 200 + 10);
        format!("127.{a}.{b}.{}:9{:03}", n % 250 + 2, n / 250)
    };
    (0..count).map(address).collect()
}

impl Cluster {
    fn new(count: usize) -> Self {
        Self::with(count, &[])
    }

    /// Nodes that are started with more arguments.
    fn with(count: usize, more: &[&str]) -> Self {
        let home = Home::new();
        fs::write(home.path().join("cluster-key"), KEY).unwrap();
        let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--cluster-key-file", "cluster-key"]);
        let store = Server::start(command, None);
        store.s3().create_bucket("data");
        let mut cluster = Self {
            home,
            store,
            addresses: addresses(count),
            nodes: (0..count).map(|_| None).collect(),
        };
        for n in 0..count {
            cluster.start(n, more);
        }
        cluster.wait();
        cluster
    }

    fn command(&self, n: usize) -> Command {
        let mut command = self.home.command(&["serve", "--listen"]);
        command.arg(&self.addresses[n]);
        command.args(["--origin", self.store.endpoint(), "--cache-dir"]);
        command.arg(self.cache_dir(n));
        command.args(["--cache-size", "2GiB", "--cluster-key-file", "cluster-key"]);
        command.args(["--peers", &self.addresses.join(",")]);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        command.env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command
    }

    fn start(&mut self, n: usize, more: &[&str]) {
        let mut command = self.command(n);
        command.args(more);
        let mnt = more.contains(&"--mount").then(|| self.home.mnt());
        self.nodes[n] = Some(Server::start(command, mnt));
    }

    fn cache_dir(&self, n: usize) -> PathBuf {
        self.home.path().join(format!("cache{n}"))
    }

    fn node(&self, n: usize) -> &Server {
        self.nodes[n].as_ref().expect("it runs")
    }

    fn s3(&self, n: usize) -> S3 {
        self.node(n).s3()
    }

    fn running(&self) -> impl Iterator<Item = &Server> {
        self.nodes.iter().flatten()
    }

    /// Waits until all that run know each other.
    fn wait(&self) {
        let others = self.running().count() as u64 - 1;
        let give_up_at = Instant::now() + Duration::from_secs(30);
        for node in self.running() {
            while metric(node, "forebay_peer_alive") != others {
                assert!(Instant::now() < give_up_at, "the peers find each other");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Bytes of objects that the origin has handed out.
    fn origin_bytes(&self) -> u64 {
        metric(
            &self.store,
            "forebay_response_bytes_total{op=\"GetObject\"}",
        )
    }

    /// The sum of a counter over all nodes.
    fn sum(&self, name: &str) -> u64 {
        self.running().map(|node| metric(node, name)).sum()
    }

    fn stop(self) {
        for node in self.nodes.into_iter().flatten() {
            node.stop_ok();
        }
        self.store.stop_ok();
    }
}

/// A counter of a server, 0 if it does not say.
pub(crate) fn metric(server: &Server, name: &str) -> u64 {
    let text = fetch(&format!("{}/-/metrics", server.endpoint())).unwrap();
    let text = text.expect(200).text();
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map_or(0, |value| value.parse().unwrap())
}

/// Compares what is written to it with what it should be.
pub(crate) struct Compare<'a> {
    pub(crate) expected: &'a [u8],
    pub(crate) at: usize,
}

impl Write for Compare<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.at + bytes.len();
        if self.expected.get(self.at..end) != Some(bytes) {
            let text = format!("wrong bytes between {} and {end}", self.at);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.at = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an object and compares it.
fn read_and_compare(s3: &S3, key: &str, expected: &[u8]) {
    let mut compare = Compare { expected, at: 0 };
    let path = format!("/data/{key}");
    let answer = s3.stream("GET", &path, &[], (0, io::empty()), &mut compare);
    answer.unwrap().expect(200);
    assert_eq!(compare.at, expected.len(), "{key}");
}

/// What a cluster has asked of its origin since it was made.
struct Cost {
    /// Bytes of objects.
    fetched: u64,
    passed_over: u64,
}

impl Cluster {
    fn cost(&self) -> Cost {
        Cost {
            fetched: self.origin_bytes(),
            passed_over: self.sum("forebay_peer_passed_over_total"),
        }
    }

    fn put(&self, key: &str, body: &[u8]) {
        let put = self.store.s3().put("data", key, body);
        put.unwrap().expect(200);
    }
}

/// Has `read` read new objects of `size` bytes, until each block was asked for about once.
///
/// On a machine that is busy enough a peer does not answer in time, and is passed over: that may
/// cost what it was asked for, no more. Where nobody was, each block was fetched once. Without
/// peers each would be fetched by each node.
fn costs_once(cluster: &Cluster, size: u64, mut read: impl FnMut(usize)) {
    const ATTEMPTS: usize = 4;
    for attempt in 0..ATTEMPTS {
        let before = cluster.cost();
        read(attempt);
        let after = cluster.cost();
        let fetched = after.fetched - before.fetched;
        let passed_over = after.passed_over - before.passed_over;
        eprintln!("{size} bytes: {fetched} from the origin, {passed_over} passed over");
        assert!(fetched >= size);
        let allowed = size + passed_over * ASK_LEN_MAX;
        assert!(
            fetched <= allowed,
            "{fetched} bytes, {passed_over} passed over"
        );
        if fetched <= size + size / 2 {
            return;
        }
    }
    panic!("in {ATTEMPTS} attempts, too many blocks were fetched more than once");
}

#[test]
fn a_cold_object_is_fetched_from_the_origin_once_by_all_nodes_together() {
    for count in [2, 5] {
        let cluster = Cluster::new(count);
        let mut random = Random::from_environment();
        let body = random.bytes(21 * 1024 * 1024 + 77);
        let size = body.len() as u64;
        let key = |attempt| format!("cold{attempt}");
        let mut attempts = 0;
        costs_once(&cluster, size, |attempt| {
            attempts = attempt + 1;
            cluster.put(&key(attempt), &body);
            std::thread::scope(|scope| {
                for reader in 0..2 * count {
                    let (s3, body) = (cluster.s3(reader % count), &body);
                    scope.spawn(move || read_and_compare(&s3, &key(attempt), body));
                }
            });
        });
        assert!(cluster.sum("forebay_peer_received_bytes_total") > size / 3);
        assert_eq!(cluster.sum("forebay_peer_wrong_total"), 0);
        // All of them have kept it.
        let before = cluster.origin_bytes();
        for n in 0..count {
            wait_for_hit(&cluster.s3(n), &key(attempts - 1), &body);
        }
        assert_eq!(cluster.origin_bytes(), before, "nothing is fetched again");
        cluster.stop();
    }
}

fn wait_for_hit(s3: &S3, key: &str, expected: &[u8]) {
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        let got = s3.get("data", key).unwrap().expect(200);
        assert!(got.body == expected);
        if got.header("x-forebay-cache") == Some("HIT") {
            return;
        }
        assert!(Instant::now() < give_up_at, "{key} gets into the cache");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_peer_that_dies_or_hangs_in_the_middle_of_a_read_is_passed_over() {
    let mut cluster = Cluster::new(3);
    let mut random = Random::from_environment();
    for (round, how) in ["KILL", "STOP", "KILL"].into_iter().enumerate() {
        let key = format!("large{round}");
        let body = random.bytes(40 * 1024 * 1024 + 5);
        cluster.put(&key, &body);
        let arrived = AtomicU64::new(0);
        let began = Instant::now();
        std::thread::scope(|scope| {
            let s3 = cluster.s3(0);
            let (key, body, arrived) = (&key, &body, &arrived);
            let reader = scope.spawn(move || {
                let mut compare = Slow {
                    compare: Compare {
                        expected: body,
                        at: 0,
                    },
                    arrived,
                };
                let path = format!("/data/{key}");
                let answer = s3.stream("GET", &path, &[], (0, io::empty()), &mut compare);
                answer.unwrap().expect(200);
                assert_eq!(compare.compare.at, body.len());
            });
            while arrived.load(Ordering::Relaxed) < MIB && !reader.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            cluster.node(1).signal(how);
            reader.join().unwrap();
        });
        assert!(began.elapsed() < Duration::from_secs(40), "no hang");
        let victim = cluster.nodes[1].take().unwrap();
        victim.kill();
        // Without it, everything goes on; and with it again, it is asked again.
        read_and_compare(&cluster.s3(2), &key, &body);
        cluster.start(1, &[]);
        cluster.wait();
        read_and_compare(&cluster.s3(1), &key, &body);
    }
    assert_eq!(cluster.sum("forebay_peer_wrong_total"), 0);
    cluster.stop();
}

/// Takes its time.
struct Slow<'a> {
    compare: Compare<'a>,
    arrived: &'a AtomicU64,
}

impl Write for Slow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.compare.write(bytes)?;
        self.arrived.fetch_add(len as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(len as u64 / 50));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_changes_is_never_stale_by_way_of_a_peer() {
    // Without leases the origin is asked each time; what those allow, `node.rs` shows.
    let cluster = Cluster::with(2, &["--leases", "off"]);
    let store = cluster.store.s3();
    let mut random = Random::from_environment();
    for _ in 0..6 {
        let body = random.bytes(3 * 1024 * 1024);
        store.put("data", "k", &body).unwrap().expect(200);
        for n in [0, 1] {
            read_and_compare(&cluster.s3(n), "k", &body);
        }
    }
    store.delete("data", "k").unwrap().expect(204);
    for n in [0, 1] {
        cluster.s3(n).get("data", "k").unwrap().expect(404);
    }
    cluster.stop();
}

#[test]
fn the_mount_of_a_node_is_helped_too() {
    let mut cluster = Cluster::new(2);
    cluster.nodes[0].take().unwrap().stop_ok();
    let mnt = cluster.home.mnt();
    cluster.start(0, &["--mount", mnt.to_str().unwrap()]);
    cluster.wait();
    let body = Random::from_environment().bytes(24 * 1024 * 1024 + 9);
    cluster.put("k", &body);
    let before = cluster.origin_bytes();
    assert!(fs::read(mnt.join("data/k")).unwrap() == body);
    read_and_compare(&cluster.s3(1), "k", &body);
    let fetched = cluster.origin_bytes() - before;
    let passed_over = cluster.sum("forebay_peer_passed_over_total");
    let allowed = body.len() as u64 + passed_over * ASK_LEN_MAX;
    assert!(fetched <= allowed, "{fetched}, {passed_over} passed over");
    assert!(metric(cluster.node(0), "forebay_peer_received_bytes_total") > 0);
    let status = cluster
        .home
        .run_ok(&["cache", "--cache-dir", "cache0", "status"]);
    let line = |address: &str, word: &str| format!("http://{address} {word}\n");
    assert!(
        status.contains(&line(&cluster.addresses[0], "this node")),
        "{status}"
    );
    assert!(
        status.contains(&line(&cluster.addresses[1], "alive")),
        "{status}"
    );
    assert!(status.contains("passed over; "), "{status}");
    cluster.stop();
}

#[test]
fn a_name_stands_for_all_of_its_addresses() {
    let home = Home::new();
    fs::write(home.path().join("cluster-key"), KEY).unwrap();
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--cluster-key-file", "cluster-key"]);
    let store = Server::start(command, None);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut command = home.command(&["serve", "--listen", &listen]);
    command.args(["--origin", store.endpoint(), "--cache-dir", "cache"]);
    command.args(["--cluster-key-file", "cluster-key", "--peers"]);
    command.arg(format!("localhost:{port}"));
    let node = Server::start(command, None);
    let give_up_at = Instant::now() + Duration::from_secs(30);
    loop {
        let status = home.run_ok(&["cache", "--cache-dir", "cache", "status"]);
        if status.contains(&format!("http://{listen} this node\n")) {
            break;
        }
        assert!(Instant::now() < give_up_at, "it finds itself: {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
    node.stop_ok();
    store.stop_ok();
}

/// One request of a peer, as whoever has the key makes it.
fn ask(node: &Server, target: &str, key: &str) -> Response {
    let key = ClusterKey::new(key.as_bytes()).unwrap();
    let proof = key.prove(&Method::GET, target, SystemClock.now());
    let header = format!("x-forebay-node: {}\r\n", proof.to_str().unwrap());
    raw(node, &format!("GET {target}"), &header)
}

fn raw(node: &Server, line: &str, headers: &str) -> Response {
    crate::harness::s3::raw(node.endpoint(), line, headers).unwrap()
}

#[test]
fn only_peers_are_answered_and_only_what_they_may_have() {
    let cluster = Cluster::new(2);
    let body = Random::from_environment().bytes(5000);
    let store = cluster.store.s3();
    store.put("data", "k", &body).unwrap().expect(200);
    let got = cluster.s3(0).get("data", "k").unwrap().expect(200);
    let etag = got.header("etag").unwrap().trim_matches('"').to_owned();
    let origin = cluster
        .store
        .endpoint()
        .replace(':', "%3A")
        .replace('/', "%2F");
    let target = |key: &str, etag: &str, more: &str| {
        format!(
            "/-/peer/bytes?by=00&origin={origin}&bucket=data&key={key}&etag={etag}&size=5000\
             &from=0&until=5000&fill=1&own={more}"
        )
    };
    let good = target("k", &etag, "0");
    // The one of the two that has it.
    let give_up_at = Instant::now() + Duration::from_secs(20);
    while ask(cluster.node(0), &good, KEY).status != 200 {
        assert!(Instant::now() < give_up_at, "what it has it hands out");
        std::thread::sleep(Duration::from_millis(20));
    }
    let node = cluster.node(0);
    let answer = ask(node, &good, KEY);
    assert_eq!(answer.header("x-forebay-cache"), Some("HIT"));
    assert_eq!(answer.body.len(), 5 + 5000 + 8, "one frame");
    assert!(answer.body[5..5005] == body);
    for (what, response, status) in [
        ("no proof", raw(node, &format!("GET {good}"), ""), 403),
        (
            "another key",
            ask(node, &good, "another key of sufficient length"),
            403,
        ),
        ("not here", ask(node, &target("none", &etag, "0"), KEY), 401),
        ("malformed", ask(node, "/-/peer/bytes?by=00", KEY), 400),
        (
            "another origin",
            ask(node, &good.replace("127", "128"), KEY),
            421,
        ),
        ("a body", with_body(node, &good), 400),
        ("no such place", ask(node, "/-/peer/other", KEY), 404),
        ("the store", ask(&cluster.store, &good, KEY), 404),
    ] {
        assert_eq!(response.status, status, "{what}: {}", response.text());
    }
    // What is not here and can't be had ends before its bytes.
    let gone = ask(node, &target("none", &etag, "1"), KEY).expect(200);
    assert_eq!(gone.body.last_chunk(), Some(&[2, 0, 0, 0, 0]));
    assert!(
        ask(node, "/-/peer?by=00", KEY)
            .expect(200)
            .text()
            .contains("\"origin\"")
    );
    cluster.stop();
}

fn with_body(node: &Server, target: &str) -> Response {
    raw(
        node,
        &format!("GET {target}"),
        "content-length: 3\r\n\r\nabc",
    )
}

#[test]
fn peers_need_a_key_and_an_origin() {
    let home = Home::new();
    let node = [
        "serve",
        "--origin",
        "http://127.0.0.1:1",
        "--cache-dir",
        "c",
    ];
    for (args, words) in [
        (
            [&node[..], &["--peers", "a:1,b:1"]].concat(),
            "--cluster-key-file",
        ),
        (
            vec!["serve", "--peers", "a:1", "--cluster-key-file", "k"],
            "--origin",
        ),
        (
            [&node[..], &["--cluster-key-file", "k", "--peers", "a"]].concat(),
            "no port",
        ),
        ([&node[..], &["--peer-address", "a:1"]].concat(), "--peers"),
    ] {
        let output = home.run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains(words), "{stderr}");
    }
}

/// `FOREBAY_TEST_CROWD_MIB` says how large the object is; each reader reads a stretch of it.
#[test]
fn a_thousand_readers_of_one_cold_object_share_what_is_fetched() {
    const READERS: u64 = 1000;
    let size = number("FOREBAY_TEST_CROWD_MIB").unwrap_or(16) * MIB;
    let stretch = (size / 16).max(MIB);
    let cluster = Cluster::new(3);
    let body = Random::from_environment().bytes(usize::try_from(size).unwrap());
    costs_once(&cluster, size, |attempt| {
        let key = format!("crowd{attempt}");
        cluster.put(&key, &body);
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let s3 = cluster.s3(usize::try_from(reader % 3).unwrap());
                let start = reader * (size - stretch) / (READERS - 1);
                let range = start..start + stretch;
                let at = usize::try_from(start).unwrap();
                let (body, key) = (&body, &key);
                let read = move || {
                    let mut compare = Compare { expected: body, at };
                    let answer = s3.get_range("data", key, range.clone(), &mut compare);
                    answer.unwrap().expect(206);
                    assert_eq!(compare.at as u64, range.end);
                };
                let thread = std::thread::Builder::new().stack_size(256 << 10);
                thread.spawn_scoped(scope, read).unwrap();
            }
        });
    });
    cluster.stop();
}
