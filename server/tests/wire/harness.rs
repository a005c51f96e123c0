//! A server with a real store, and a client that is a bare socket: what it sends is what a test
//! says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_cache::cluster::ClusterKey;
use forebay_server::{Compat, Server, ServerConfig};
use forebay_store::entry::Secret;
use forebay_store::time::{Clock, Timestamp};
use forebay_store::{Store, StoreOptions};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(crate) const KEY: &str = "AKID";
pub(crate) const SECRET: &str = "a secret";
pub(crate) const DATE: &str = "20130524T000000Z";
pub(crate) const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";
pub(crate) const HOST: &str = "localhost";

/// When the clock of a server stands, if no test has moved it.
pub(crate) const MIDNIGHT: i64 = 1_369_353_600;

/// It is midnight until a test says otherwise.
#[derive(Debug, Default)]
pub(crate) struct StoppedClock {
    after_midnight_s: AtomicI64,
}

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        let after_s = self.after_midnight_s.load(Ordering::Relaxed);
        Timestamp::from_parts(MIDNIGHT + after_s, 0)
    }
}

/// What nodes prove to a server, in tests.
pub(crate) fn cluster_key() -> ClusterKey {
    ClusterKey::new(b"a key of some length").expect("it is long enough")
}

/// A running server; it stops when it is dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    pub(crate) clock: Arc<StoppedClock>,
    store: Option<Store>,
    data: Arc<tempfile::TempDir>,
}

impl Running {
    pub(crate) fn start() -> Self {
        Self::start_with(Some(cluster_key()))
    }

    pub(crate) fn start_with(cluster_key: Option<ClusterKey>) -> Self {
        let data = Arc::new(tempfile::tempdir().expect("a directory"));
        let running = Self::open(data, cluster_key, Arc::default());
        let store = running.store();
        let key = (KEY.to_owned(), Secret(SECRET.to_owned()));
        store
            .create_key_blocking(store.root_account(), Some(key))
            .expect("a new key");
        running
    }

    /// The same store in a new server, at another address.
    pub(crate) fn restart(&mut self) {
        self.end();
        let (data, clock) = (Arc::clone(&self.data), Arc::clone(&self.clock));
        *self = Self::open(data, Some(cluster_key()), clock);
    }

    fn open(
        data: Arc<tempfile::TempDir>,
        cluster_key: Option<ClusterKey>,
        clock: Arc<StoppedClock>,
    ) -> Self {
        let store = Store::open(StoreOptions::new(data.path())).expect("a store");
        let kept = store.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let server_clock = Arc::clone(&clock);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let config = ServerConfig {
                    listen: "127.0.0.1:0".parse().expect("an address"),
                    base_domains: vec![HOST.to_owned()],
                    region: "us-east-1".to_owned(),
                    compat: Compat::Forebay,
                    cluster_key,
                };
                let objects = Arc::new(store.clone());
                let server = Server::bind_with_clock(config, objects, server_clock).await;
                let server = server.expect("a free port");
                tell.send(server.local_addr()).expect("the test waits");
                let shutdown = async { drop(stopped.await) };
                server.serve(shutdown).await.expect("it ends well");
            });
            store.close().expect("a last sync");
        });
        let addr = told.recv().expect("it listens");
        Self {
            addr,
            stop: Some(stop),
            thread: Some(thread),
            clock,
            store: Some(kept),
            data,
        }
    }

    /// What the server stores to.
    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().expect("it runs")
    }

    /// Where it stores.
    pub(crate) fn data(&self) -> &std::path::Path {
        self.data.path()
    }

    fn end(&mut self) {
        drop((self.stop.take(), self.store.take()));
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }

    /// Sets the server's clock.
    pub(crate) fn set_clock(&self, after_midnight_s: i64) {
        let clock = &self.clock.after_midnight_s;
        clock.store(after_midnight_s, Ordering::Relaxed);
    }

    /// A server with the bucket `bkt`.
    pub(crate) fn with_bucket() -> Self {
        let running = Self::start();
        assert_eq!(
            running
                .connect()
                .call(&signed("PUT", "/bkt", &[], b""))
                .status,
            200
        );
        running
    }

    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Asks it to stop; it still ends what is in flight.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).expect("it runs");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// All headers, in order.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head.lines().filter_map(|line| line.split_once(": "))
    }

    pub(crate) fn code(&self) -> String {
        self.element("Code")
    }

    /// The text of the document's first element of this name; empty if there is none.
    pub(crate) fn element(&self, name: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let after = text.split(&format!("<{name}>")).nth(1).unwrap_or_default();
        let inner = after.split(&format!("</{name}>")).next();
        inner.unwrap_or_default().to_owned()
    }
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("it accepts");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    pub(crate) fn call(&mut self, request: &[u8]) -> Answer {
        self.send(request);
        self.answer(request.starts_with(b"HEAD"))
    }

    /// No more bytes come from here.
    pub(crate) fn end(&self) {
        self.stream.shutdown(Shutdown::Write).expect("it is open");
    }

    fn more(&mut self) -> bool {
        let mut piece = vec![0; 65_536];
        let len = self.stream.read(&mut piece).unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..len]);
        len > 0
    }

    /// Whether the server closes the connection without another byte.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more()
    }

    /// All that comes until the connection ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buffer)
    }

    /// The head of an answer.
    pub(crate) fn begin(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self
                .buffer
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
            {
                break at + 4;
            }
            assert!(self.more(), "the connection ended before an answer");
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).expect("text");
        let status = head[9..12].parse().expect("a status");
        Answer {
            status,
            head,
            body: Vec::new(),
        }
    }

    pub(crate) fn answer(&mut self, to_head: bool) -> Answer {
        let mut answer = self.begin();
        let status = answer.status;
        let len: usize = answer
            .header("content-length")
            .map_or(0, |len| len.parse().expect("a number"));
        if !to_head && status >= 200 && status != 304 {
            while self.buffer.len() < len {
                assert!(self.more(), "the body broke off");
            }
            answer.body = self.buffer.drain(..len).collect();
        }
        answer
    }
}

/// The key that signs at midnight.
pub(crate) fn signing_key(secret: &str) -> Vec<u8> {
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), b"20130524");
    for part in ["us-east-1", "s3", "aws4_request"] {
        key = hmac(&key, part.as_bytes());
    }
    key
}

pub(crate) fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("any length");
    mac.chain_update(message).finalize().into_bytes().to_vec()
}

/// A request with a body, signed in the header; headers given are signed too.
pub(crate) fn signed(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let mut all = vec![("content-length", length.as_str())];
    all.extend_from_slice(headers);
    let hash = hex::encode(Sha256::digest(body));
    let mut request = signed_head(method, target, &all, &hash, SECRET);
    request.extend_from_slice(body);
    request
}

/// The head of a request, signed with `secret` for a payload of this hash or word.
pub(crate) fn signed_head(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    payload: &str,
    secret: &str,
) -> Vec<u8> {
    let mut all: Vec<(&str, &str)> = headers.to_vec();
    all.extend([
        ("host", HOST),
        ("x-amz-content-sha256", payload),
        ("x-amz-date", DATE),
    ]);
    all.sort_unstable();
    let names: Vec<&str> = all.iter().map(|header| header.0).collect();
    let names = names.join(";");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut pairs: Vec<String> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            if pair.contains('=') {
                pair.to_owned()
            } else {
                format!("{pair}=")
            }
        })
        .collect();
    pairs.sort();
    let lines: Vec<String> = all
        .iter()
        .map(|(name, value)| {
            format!(
                "{name}:{value}
"
            )
        })
        .collect();
    let lines = lines.concat();
    let canonical = format!(
        "{method}\n{path}\n{}\n{lines}\n{names}\n{payload}",
        pairs.join("&")
    );
    let scope = SCOPE;
    let digest = hex::encode(Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{DATE}\n{scope}\n{digest}");
    let signature = hex::encode(hmac(&signing_key(secret), to_sign.as_bytes()));
    let lines: Vec<String> = all
        .iter()
        .map(|(name, value)| {
            format!(
                "{name}: {value}
"
            )
        })
        .collect();
    let lines = lines.concat();
    format!(
        "{method} {target} HTTP/1.1\r\n{lines}authorization: AWS4-HMAC-SHA256 \
         Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}\r\n\r\n"
    )
    .into_bytes()
}
