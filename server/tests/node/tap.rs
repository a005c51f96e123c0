//! Between a node and its origin: notes what is asked, and cuts the line when a test says so.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A request as it came by.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The head, without its last line.
    head: String,
}

impl Seen {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Method and target.
    pub(super) fn line(&self) -> &str {
        let line = self.head.lines().next().unwrap_or_default();
        line.trim_end_matches(" HTTP/1.1")
    }

    /// Whether it asks for changes.
    pub(super) fn is_feed(&self) -> bool {
        self.line().contains(" /-/changes")
    }

    /// Whether it asks for a head.
    pub(super) fn is_ask(&self) -> bool {
        self.header("x-forebay-node").is_some() && !self.is_feed()
    }

    /// How many bytes it fetches by a grant.
    pub(super) fn fetched(&self) -> Option<u64> {
        if self.is_ask() {
            return None;
        }
        self.header("x-forebay-grant")?;
        let range = self.header("range")?.strip_prefix("bytes=")?;
        let (first, last) = range.split_once('-')?;
        let number = |text: &str| text.parse::<u64>().expect("a number");
        Some(number(last) - number(first) + 1)
    }
}

#[derive(Debug)]
struct State {
    to: SocketAddr,
    is_cut: bool,
    is_held: bool,
    is_feed_held: bool,
    seen: Vec<Seen>,
    open: Vec<TcpStream>,
    /// Called before a request that this is true of is sent on.
    before: Option<Hook>,
}

struct Hook(Box<dyn FnMut(&Seen) + Send>);

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook(…)")
    }
}

/// The line to an origin.
#[derive(Clone, Debug)]
pub(super) struct Tap {
    pub(super) addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Tap {
    pub(super) fn to(origin: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let tap = Self {
            addr: listener.local_addr().expect("it listens"),
            state: Arc::new(Mutex::new(State {
                to: origin,
                is_cut: false,
                is_held: false,
                is_feed_held: false,
                seen: Vec::new(),
                open: Vec::new(),
                before: None,
            })),
        };
        let accepting = tap.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (tap, stream) = (accepting.clone(), stream.expect("a connection"));
                std::thread::spawn(move || tap.carry(stream));
            }
        });
        tap
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    /// What was asked since the last time.
    pub(super) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state().seen)
    }

    /// Leads elsewhere from now on; what is open is closed.
    pub(super) fn lead_to(&self, origin: SocketAddr) {
        self.cut();
        let mut state = self.state();
        (state.to, state.is_cut, state.is_held) = (origin, false, false);
    }

    /// Lets new connections wait until it leads elsewhere.
    pub(super) fn hold(&self) {
        self.state().is_held = true;
    }

    /// Whether requests for changes wait here, without an answer.
    pub(super) fn hold_feed(&self, is_held: bool) {
        self.state().is_feed_held = is_held;
    }

    /// Lets nothing through.
    pub(super) fn cut(&self) {
        let mut state = self.state();
        state.is_cut = true;
        for stream in state.open.drain(..) {
            // It may be closed already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Has something done before each request that follows is sent on.
    pub(super) fn before(&self, hook: impl FnMut(&Seen) + Send + 'static) {
        self.state().before = Some(Hook(Box::new(hook)));
    }

    fn carry(&self, node: TcpStream) {
        while self.state().is_held {
            std::thread::sleep(Duration::from_millis(1));
        }
        let origin = {
            let mut state = self.state();
            let origin = TcpStream::connect(state.to).ok().filter(|_| !state.is_cut);
            let Some(origin) = origin else {
                return;
            };
            for stream in [&node, &origin] {
                stream.set_nodelay(true).expect("it is open");
                state.open.push(stream.try_clone().expect("a descriptor"));
            }
            origin
        };
        let (mut answers, mut back) = (
            origin.try_clone().expect("a descriptor"),
            node.try_clone().expect("a descriptor"),
        );
        std::thread::spawn(move || {
            // Whoever closes first, the other side is told.
            drop(std::io::copy(&mut answers, &mut back));
            drop(back.shutdown(Shutdown::Both));
        });
        self.requests(node, &origin);
        drop(origin.shutdown(Shutdown::Both));
    }

    /// Sends requests on and notes them.
    fn requests(&self, mut node: TcpStream, mut origin: &TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        let mut piece = vec![0; 65_536];
        loop {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end.map(|at| at + 4) else {
                let len = node.read(&mut piece).ok().filter(|len| *len > 0)?;
                bytes.extend_from_slice(&piece[..len]);
                continue;
            };
            let head = String::from_utf8_lossy(&bytes[..end - 4]).into_owned();
            let seen = Seen { head };
            self.note(&seen);
            origin.write_all(&bytes[..end]).ok()?;
            bytes.drain(..end);
            if seen.header("transfer-encoding").is_some() {
                // Where its body ends is the others' to find out; it is the last one here.
                origin.write_all(&bytes).ok()?;
                std::io::copy(&mut node, &mut origin).ok()?;
                return None;
            }
            let length = seen.header("content-length").unwrap_or("0");
            let mut left: usize = length.parse().expect("a number");
            while left > 0 {
                if bytes.is_empty() {
                    let len = node.read(&mut piece).ok().filter(|len| *len > 0)?;
                    bytes.extend_from_slice(&piece[..len]);
                }
                let len = left.min(bytes.len());
                origin.write_all(&bytes[..len]).ok()?;
                bytes.drain(..len);
                left -= len;
            }
        }
    }

    fn note(&self, seen: &Seen) {
        let hook = {
            let mut state = self.state();
            state.seen.push(seen.clone());
            state.before.take()
        };
        while seen.is_feed() && self.state().is_feed_held {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Without the lock: what it does may come by here.
        if let Some(mut hook) = hook {
            (hook.0)(seen);
            let mut state = self.state();
            state.before = state.before.take().or(Some(hook));
        }
    }
}
