//! The store, the nodes, and those who read from them.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::net::Net;
use super::proxy::Proxy;
use crate::harness::s3::S3;
use crate::harness::{ACCESS_KEY, Home, Random, SECRET_KEY, Server};
use crate::peers::metric;

/// How much later things arrive at the origin, and from it.
const ORIGIN_DELAY: Duration = Duration::from_millis(8);
/// The same between peers that are joined by proxies.
const PEER_DELAY: Duration = Duration::from_millis(3);
/// Longest that a read may take, even of what is broken.
const READ_MAX: Duration = Duration::from_mins(1);
const PORT: u16 = 9000;
const NAME: &str = "nodes.test";
/// Size of the object that is overwritten all the time.
const CHANGING_LEN: usize = 1 << 20;
const CHANGING: &str = "changing";

/// How the nodes find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peering {
    /// They have a list; a proxy stands before each.
    ByProxies,
    /// A name has all of their addresses.
    ByName,
}

/// All of it. Fields are dropped in their order: processes before what they run in.
pub(super) struct World {
    nodes: Vec<Option<Server>>,
    store: Option<Server>,
    store_listen: String,
    pub(super) origin: Proxy,
    before_peers: Vec<Proxy>,
    peering: Peering,
    net: Net,
    home: Home,
}

impl World {
    pub(super) fn new(count: usize, peering: Peering) -> Self {
        let home = Home::new();
        let key = "0123456789abcdef".repeat(4);
        fs::write(home.path().join("cluster-key"), key).unwrap();
        let net = Net::new(count);
        let store = Server::start(store_command(&home, "127.0.0.1:0"), None);
        store.s3().create_bucket("data");
        let store_listen = store.endpoint().strip_prefix("http://").unwrap().to_owned();
        let target = store_listen.parse().unwrap();
        let origin = Proxy::start(&net.hub(), target, ORIGIN_DELAY);
        let before_peers = match peering {
            Peering::ByName => Vec::new(),
            Peering::ByProxies => (0..count)
                .map(|n| {
                    let target = format!("{}:{PORT}", net.address(n)).parse().unwrap();
                    Proxy::start(&net.hub(), target, PEER_DELAY)
                })
                .collect(),
        };
        let mut world = Self {
            nodes: (0..count).map(|_| None).collect(),
            store: Some(store),
            store_listen,
            origin,
            before_peers,
            peering,
            net,
            home,
        };
        // One of them is told of the others only later.
        world.set_hosts(count - 1);
        for n in 0..count {
            world.start_node(n);
        }
        world.set_hosts(count);
        world.wait_for_peers();
        world
    }

    /// Has the name stand for the first nodes, in all of them.
    fn set_hosts(&self, known: usize) {
        let addresses: Vec<_> = (0..known).map(|n| self.net.address(n)).collect();
        for n in 0..self.nodes.len() {
            self.net.set_hosts(n, NAME, &addresses);
        }
    }

    fn peers(&self) -> String {
        match self.peering {
            Peering::ByName => format!("{NAME}:{PORT}"),
            Peering::ByProxies => {
                let proxies = self.before_peers.iter();
                let addresses: Vec<_> = proxies.map(|proxy| proxy.addr.to_string()).collect();
                addresses.join(",")
            }
        }
    }

    pub(super) fn start_node(&mut self, n: usize) {
        let listen = format!("{}:{PORT}", self.net.address(n));
        let mut command = self.home.command(&["serve", "--listen", &listen]);
        let origin = format!("http://{}", self.origin.addr);
        command.args(["--origin", &origin, "--peers", &self.peers()]);
        let cache = self.home.path().join(format!("cache{n}"));
        command.arg("--cache-dir").arg(cache);
        command.args(["--cache-size", "1GiB", "--cluster-key-file", "cluster-key"]);
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY);
        command.env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        if stale_max(n).is_zero() {
            command.args(["--leases", "off"]);
        }
        if n == 0 {
            command.arg("--mount").arg(self.home.mnt());
        }
        // Its mount is in a namespace too, and goes with it.
        self.nodes[n] = Some(Server::start(self.net.within(n, &command), None));
    }

    pub(super) fn node(&self, n: usize) -> &Server {
        self.nodes[n].as_ref().expect("it runs")
    }

    pub(super) fn kill_node(&mut self, n: usize) {
        drop(self.nodes[n].take().expect("it runs").kill());
    }

    pub(super) fn restart_store(&mut self) {
        drop(self.store.take().expect("it runs").kill());
        std::thread::sleep(Duration::from_millis(300));
        let command = store_command(&self.home, &self.store_listen);
        self.store = Some(Server::start(command, None));
    }

    /// The peers can't reach each other, but each the origin.
    pub(super) fn part_peers(&self) {
        self.before_peers.iter().for_each(Proxy::cut);
        if self.peering == Peering::ByName {
            // Where there is nothing to cut, they are told of nobody but the first.
            self.set_hosts(1);
        }
    }

    pub(super) fn join_peers(&self) {
        self.before_peers.iter().for_each(Proxy::mend);
        self.set_hosts(self.nodes.len());
    }

    /// Waits until all know each other.
    pub(super) fn wait_for_peers(&self) {
        let others = self.nodes.len() as u64 - 1;
        let give_up_at = Instant::now() + Duration::from_mins(1);
        for node in self.nodes.iter().flatten() {
            while metric(node, "forebay_peer_alive") != others {
                assert!(Instant::now() < give_up_at, "the peers find each other");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// A file as the first node's mount has it.
    pub(super) fn mounted(&self, key: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.node(0).pid()));
        let mnt = self.home.mnt();
        let mnt = mnt.strip_prefix("/").expect("an absolute path");
        root.join(mnt).join("data").join(key)
    }

    /// The version that the first node's mount shows.
    pub(super) fn version_in_mount(&self) -> Option<u64> {
        let bytes = fs::read(self.mounted(CHANGING)).ok()?;
        Some(version_of(&bytes).unwrap())
    }

    /// Objects in the store, and readers of them.
    pub(super) fn traffic(&self) -> Traffic {
        let mut random = Random::from_environment();
        let store = S3::new(
            &format!("http://{}", self.store_listen),
            ACCESS_KEY,
            SECRET_KEY,
        );
        let sizes = [1, 100_000, (1 << 20) + 1, 3 << 20, 9 << 20, 17 << 20];
        let objects = sizes.into_iter().enumerate().map(|(n, size)| {
            let (name, body) = (format!("s{n}"), random.bytes(size));
            store.put("data", &name, &body).unwrap().expect(200);
            (name, body)
        });
        let traffic = Traffic(Arc::new(Shared {
            objects: objects.collect(),
            nodes: self.nodes.iter().flatten().map(Server::s3).collect(),
            store,
            published: Mutex::new(0),
            acknowledged: Mutex::default(),
            ends: AtomicBool::new(false),
            right: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            seed: random.next(),
        }));
        traffic.publish();
        traffic
    }

    pub(super) fn stop(mut self) {
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            node.stop_ok();
        }
        self.store.take().expect("it runs").stop_ok();
    }
}

/// How long a node may go on answering what it was told last: as long as leases last without a word
/// of the feed, where it has some. Every other one asks each time.
fn stale_max(node: usize) -> Duration {
    if node.is_multiple_of(2) {
        Duration::from_secs(11)
    } else {
        Duration::ZERO
    }
}

fn store_command(home: &Home, listen: &str) -> Command {
    let mut command = home.command(&["serve", "--listen", listen]);
    command.args(["--cluster-key-file", "cluster-key"]);
    command
}

/// The bytes of a version: nothing of two versions is alike.
fn body_of(version: u64) -> Vec<u8> {
    let mut body = version.to_le_bytes().to_vec();
    body.extend(Random::new(version).bytes(CHANGING_LEN));
    body
}

/// Which version these are the bytes of, or `None` if of none.
fn version_of(bytes: &[u8]) -> Option<u64> {
    let version = u64::from_le_bytes(*bytes.first_chunk()?);
    (bytes == body_of(version)).then_some(version)
}

pub(super) struct Shared {
    objects: Vec<(String, Vec<u8>)>,
    nodes: Vec<S3>,
    store: S3,
    /// The last version that was sent; held while one is.
    published: Mutex<u64>,
    /// Those that were answered, and when.
    acknowledged: Mutex<Vec<(Instant, u64)>>,
    ends: AtomicBool,
    pub(super) right: AtomicU64,
    pub(super) failed: AtomicU64,
    seed: u64,
}

/// Who reads, and writes.
#[derive(Clone)]
pub(super) struct Traffic(Arc<Shared>);

impl std::ops::Deref for Traffic {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Traffic {
    /// Two readers of each node, and a writer.
    pub(super) fn start(&self) -> Vec<JoinHandle<()>> {
        let readers = (0..2 * self.nodes.len()).map(|reader| {
            let traffic = self.clone();
            std::thread::spawn(move || traffic.read(reader))
        });
        let traffic = self.clone();
        let writer = std::thread::spawn(move || {
            while !traffic.ends.load(Ordering::Relaxed) {
                // An answer that is lost leaves it open whether there is a new version.
                drop(traffic.try_publish());
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        readers.chain([writer]).collect()
    }

    pub(super) fn stop(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    fn try_publish(&self) -> io::Result<u64> {
        let mut published = self.published.lock().unwrap();
        *published += 1;
        let answer = self.store.put("data", CHANGING, &body_of(*published))?;
        if answer.status != 200 {
            return Err(io::Error::other(answer.text()));
        }
        let mut acknowledged = self.acknowledged.lock().unwrap();
        acknowledged.push((Instant::now(), *published));
        Ok(*published)
    }

    /// A new version, which is there for certain.
    pub(super) fn publish(&self) -> u64 {
        self.try_publish().unwrap()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.objects.iter().map(|object| object.0.clone()).collect()
    }

    pub(super) fn body(&self, name: &str) -> &[u8] {
        let object = self.objects.iter().find(|object| object.0 == name);
        &object.expect("it is there").1
    }

    fn read(&self, reader: usize) {
        let mut random = Random::new(self.seed ^ reader as u64);
        let node = reader % self.nodes.len();
        while !self.ends.load(Ordering::Relaxed) {
            let pick = random.below(self.objects.len() as u64 + 2);
            let object = self.objects.get(usize::try_from(pick).unwrap());
            let began = Instant::now();
            let right = match object {
                Some((name, body)) => self.read_object(node, name, body),
                None => self.read_changing(node),
            };
            assert!(began.elapsed() < READ_MAX, "a read hangs");
            let counter = if right { &self.right } else { &self.failed };
            counter.fetch_add(1, Ordering::Relaxed);
            if !right {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Reads all that there is from a node, which must succeed.
    pub(super) fn check_all(&self, node: usize) {
        for (name, body) in &self.objects {
            assert!(self.read_object(node, name, body), "{name} at node {node}");
        }
        assert!(self.read_changing(node), "{CHANGING} at node {node}");
    }

    /// Whether a read succeeds. A wrong byte does not return.
    fn read_object(&self, node: usize, name: &str, body: &[u8]) -> bool {
        match self.get(node, name) {
            Some(got) => {
                assert!(got == body, "wrong bytes of {name} at node {node}");
                true
            }
            None => false,
        }
    }

    /// The oldest version that a read of a node that begins now may see.
    fn least(&self, node: usize) -> u64 {
        let acknowledged = self.acknowledged.lock().unwrap();
        let mut settled = acknowledged.iter().rev();
        let settled = settled.find(|(at, _)| at.elapsed() >= stale_max(node));
        settled.map_or(0, |(_, version)| *version)
    }

    /// The version that a node shows.
    pub(super) fn version_at(&self, node: usize) -> Option<u64> {
        self.get(node, CHANGING).and_then(|got| version_of(&got))
    }

    fn read_changing(&self, node: usize) -> bool {
        let least = self.least(node);
        let Some(got) = self.get(node, CHANGING) else {
            return false;
        };
        let version = version_of(&got);
        let version = version.unwrap_or_else(|| panic!("bytes of no version at node {node}"));
        assert!(version >= least, "node {node} has {version}, not {least}");
        true
    }

    fn get(&self, node: usize, name: &str) -> Option<Vec<u8>> {
        // A connection that breaks is an answer, here: what came of it is not used.
        let got = self.nodes[node].get("data", name).ok()?;
        match got.status {
            200 => Some(got.body),
            500.. => None,
            status => panic!("node {node} answers {status}: {}", got.text()),
        }
    }
}
