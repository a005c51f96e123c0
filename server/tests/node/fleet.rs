//! An origin, a node, and the line between them.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_cache::cluster::ClusterKey;
use forebay_cache::origin::{ClientConfig, Deadlines, Endpoint, Retries};
use forebay_cache::sign::Credentials;
use forebay_cache::{Cache, Disk, DiskConfig, FetchConfig, origin};
use forebay_server::{LeaseTerms, NodeConfig, NodeKeys, NodeServer};
use forebay_store::entry::Secret;
use forebay_store::time::Clock;

use super::tap::{Seen, Tap};
use crate::harness::{Answer, Client, HOST, KEY, Running, SECRET, cluster_key, signed};

pub(super) const MIB: usize = 1 << 20;

/// What the origin is to the node.
pub(super) enum Kind {
    /// A forebay that has this key, if any.
    Forebay(Option<ClusterKey>),
    /// A service that knows nothing of nodes.
    Foreign,
}

/// What a node signs with for an origin that can't verify its clients.
pub(super) const NODE_KEY: &str = "NODE";
const NODE_SECRET: &str = "the node's secret";

/// A running node; it stops when it is dropped.
pub(super) struct Node {
    pub(super) addr: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub(super) fn start(
        origin: SocketAddr,
        kind: Kind,
        leases: Option<LeaseTerms>,
        clock: Arc<dyn Clock>,
        disk: Arc<Disk>,
    ) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let url = format!("http://{origin}");
                let mut config = ClientConfig::new(Endpoint::parse(&url).expect("a URL"));
                let mut keys = None;
                match kind {
                    Kind::Forebay(cluster_key) => config.cluster_key = cluster_key,
                    Kind::Foreign => {
                        keys = Some(NodeKeys::new([(KEY.to_owned(), SECRET.to_owned())]));
                        config.credentials = Some(Credentials {
                            key_id: NODE_KEY.to_owned(),
                            secret: NODE_SECRET.to_owned(),
                            session_token: None,
                        });
                    }
                }
                config.deadlines = Deadlines {
                    connect: Duration::from_secs(1),
                    head: Duration::from_secs(10),
                    total: Duration::from_secs(12),
                    ..Deadlines::default()
                };
                config.retries = Retries {
                    max: 2,
                    ..Retries::default()
                };
                let client = origin::Client::with_clock(config, Arc::clone(&clock));
                let client = client.expect("a client");
                let cache = Cache::new(Arc::clone(&disk), FetchConfig::default());
                let config = NodeConfig {
                    listen: "127.0.0.1:0".parse().expect("an address"),
                    base_domains: vec![HOST.to_owned()],
                    disk: Some(disk),
                    keys,
                    leases,
                };
                let node = NodeServer::bind_with_clock(config, cache, client, clock).await;
                let node = node.expect("a free port");
                tell.send(node.local_addr()).expect("the test waits");
                let shutdown = async { drop(stopped.await) };
                node.serve(shutdown).await.expect("it ends well");
            });
        });
        Self {
            addr: told.recv().expect("it listens"),
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

/// All of it, with the bucket `bkt`.
pub(super) struct Fleet {
    pub(super) node: Node,
    pub(super) tap: Tap,
    disk: Arc<Disk>,
    _dir: tempfile::TempDir,
    pub(super) origin: Running,
}

impl Fleet {
    pub(super) fn start() -> Self {
        Self::start_with(Kind::Forebay(Some(cluster_key())))
    }

    pub(super) fn start_with(kind: Kind) -> Self {
        Self::build(kind, None)
    }

    /// A node that answers by itself what it may; it has heard the change feed.
    pub(super) fn start_leased(terms: LeaseTerms) -> Self {
        let fleet = Self::build(Kind::Forebay(Some(cluster_key())), Some(terms));
        fleet.wait_for_metric("forebay_lease_feed_up", 1);
        fleet
    }

    /// What the node counts, by its whole name.
    pub(super) fn metric(&self, name: &str) -> Option<u64> {
        let request = format!("GET /-/metrics HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        let text = self.connect().call(request.as_bytes()).body;
        let text = String::from_utf8(text).expect("it is text");
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    pub(super) fn wait_for_metric(&self, name: &str, value: u64) {
        wait_until(name, || self.metric(name) == Some(value));
    }

    fn build(kind: Kind, leases: Option<LeaseTerms>) -> Self {
        let origin = Running::with_bucket();
        let store = origin.store();
        let key = (NODE_KEY.to_owned(), Secret(NODE_SECRET.to_owned()));
        store
            .create_key_blocking(store.root_account(), Some(key))
            .expect("a new key");
        let tap = Tap::to(origin.addr);
        let dir = tempfile::tempdir().expect("a directory");
        let config = DiskConfig::new(dir.path(), 1 << 30, "http://origin");
        let disk = Arc::new(Disk::open(&config).expect("a new cache"));
        let clock: Arc<dyn Clock> = Arc::<crate::harness::StoppedClock>::clone(&origin.clock);
        let node = Node::start(tap.addr, kind, leases, clock, Arc::clone(&disk));
        Self {
            node,
            tap,
            disk,
            _dir: dir,
            origin,
        }
    }

    /// A connection to the node.
    pub(super) fn connect(&self) -> Client {
        Client::connect(self.node.addr)
    }

    /// Puts an object past the node.
    pub(super) fn put(&self, target: &str, body: &[u8]) {
        let put = self
            .origin
            .connect()
            .call(&signed("PUT", target, &[], body));
        assert_eq!(put.status, 200, "{put:?}");
    }

    /// Reads by the node, with headers that are not signed.
    pub(super) fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        let request = with_unsigned(&signed("GET", target, &[], b""), headers);
        self.connect().call(&request)
    }

    /// How many blocks are cached, of all versions.
    pub(super) fn kept(&self) -> usize {
        usize::try_from(self.disk.status().blocks).expect("few")
    }

    /// Waits until this many blocks are kept, and no more come.
    pub(super) fn wait_for_blocks(&self, count: usize) {
        let began_at = Instant::now();
        while self.kept() < count {
            assert!(
                began_at.elapsed() < Duration::from_secs(10),
                "{} blocks of {count}",
                self.kept()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(self.kept(), count);
    }

    /// Has an object in the cache, all of it.
    pub(super) fn warm(&self, target: &str) {
        assert_eq!(self.get(target, &[]).status, 200);
        std::thread::sleep(Duration::from_millis(50));
        let again = self.get(target, &[]);
        assert_eq!(outcome(&again), Some("HIT"));
        self.tap.take();
    }
}

/// Waits until something holds; ten seconds at most.
pub(super) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began_at = Instant::now();
    while !holds() {
        assert!(began_at.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What an answer says of the cache.
pub(super) fn outcome(answer: &Answer) -> Option<&str> {
    answer.header("x-forebay-cache")
}

/// Adds headers to a request whose signature is made.
pub(super) fn with_unsigned(request: &[u8], headers: &[(&str, &str)]) -> Vec<u8> {
    let end = request
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("there is a head");
    let mut more = request[..end + 2].to_vec();
    for (name, value) in headers {
        for part in [*name, ": ", *value, "\r\n"] {
            more.extend_from_slice(part.as_bytes());
        }
    }
    more.extend_from_slice(&request[end + 2..]);
    more
}

/// How often a head was asked for, and how many bytes were fetched.
pub(super) fn asked(seen: &[Seen]) -> (usize, u64) {
    let asks = seen.iter().filter(|seen| seen.is_ask()).count();
    (asks, seen.iter().filter_map(Seen::fetched).sum())
}

/// Bytes of an object, other ones for each `seed`.
pub(super) fn content(len: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    // An odd length: no block is like another.
    let tile: Vec<u8> = (0..65_537).map(|_| next()).collect();
    let mut bytes = tile.repeat(len.div_ceil(tile.len()));
    bytes.truncate(len);
    bytes
}
