//! A server with a real store, and a client that is a bare socket: what it sends is what a test
//! says.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use forebay_server::{Compat, Server, ServerConfig};
use forebay_store::entry::Secret;
use forebay_store::time::{Clock, Timestamp};
use forebay_store::{Store, StoreOptions};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(crate) const KEY: &str = "AKID";
pub(crate) const SECRET: &str = "a secret";
const DATE: &str = "20130524T000000Z";
const HOST: &str = "localhost";

/// It is always midnight.
#[derive(Debug)]
struct Midnight;

impl Clock for Midnight {
    fn now(&self) -> Timestamp {
        Timestamp::from_parts(1_369_353_600, 0)
    }
}

/// A running server; it stops when it is dropped.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _data: tempfile::TempDir,
}

impl Running {
    pub(crate) fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreOptions::new(data.path())).expect("a new store");
        let root = store.root_account().clone();
        let key = (KEY.to_owned(), Secret(SECRET.to_owned()));
        store
            .create_key_blocking(&root, Some(key))
            .expect("a new key");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let config = ServerConfig {
                    listen: "127.0.0.1:0".parse().expect("an address"),
                    base_domains: vec![HOST.to_owned()],
                    region: "us-east-1".to_owned(),
                    compat: Compat::Forebay,
                };
                let objects = Arc::new(store.clone());
                let server = Server::bind_with_clock(config, objects, Arc::new(Midnight)).await;
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
            _data: data,
        }
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
        let stream = TcpStream::connect(self.addr).expect("it accepts");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        Client {
            stream,
            buffer: Vec::new(),
        }
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
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
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

    pub(crate) fn answer(&mut self, to_head: bool) -> Answer {
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
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
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

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
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
    let scope = "20130524/us-east-1/s3/aws4_request";
    let digest = hex::encode(Sha256::digest(canonical));
    let to_sign = format!("AWS4-HMAC-SHA256\n{DATE}\n{scope}\n{digest}");
    let mut key = hmac(format!("AWS4{secret}").as_bytes(), b"20130524");
    for part in ["us-east-1", "s3", "aws4_request"] {
        key = hmac(&key, part.as_bytes());
    }
    let signature = hex::encode(hmac(&key, to_sign.as_bytes()));
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
