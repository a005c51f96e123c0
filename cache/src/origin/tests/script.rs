//! A server that does what a test says, byte for byte.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does for one request.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Writes.
    Send(Vec<u8>),
    /// Reads the body, which otherwise has been read before the first step.
    ReadBody,
    /// Does nothing for a while.
    Wait(Duration),
    /// Ends the connection in good order.
    Close,
    /// Ends it so that the other side gets an error.
    Reset,
    /// Does nothing until the other side ends the connection.
    Hang,
}

/// Writes text.
pub(crate) fn send(text: impl Into<String>) -> Step {
    Step::Send(text.into().into_bytes())
}

/// An answer with a `Content-Length`.
pub(crate) fn answer(status: u16, headers: &str, body: &[u8]) -> Step {
    let len = body.len();
    let mut bytes = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {len}\r\n\r\n");
    let mut bytes = std::mem::take(&mut bytes).into_bytes();
    bytes.extend_from_slice(body);
    Step::Send(bytes)
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Method and target.
    pub(crate) line: String,
    /// By their names in small letters; repeated ones are joined.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// First byte and the one after the last of its range.
    pub(crate) fn range(&self) -> (usize, usize) {
        let range = self.header("range").strip_prefix("bytes=").unwrap();
        let (first, last) = range.split_once('-').unwrap();
        (first.parse().unwrap(), last.parse::<usize>().unwrap() + 1)
    }
}

/// What to do, given which request it is, from 0, and what it says.
pub(crate) type Script = dyn Fn(usize, &Seen) -> Vec<Step> + Send + Sync;

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    script: Box<Script>,
    requests: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(
        script: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub(crate) fn on(
        listener: TcpListener,
        script: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: AtomicUsize::new(0),
            seen: Mutex::default(),
            opened: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        });
        let of_task = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&of_task);
                shared.opened.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    serve(&shared, stream).await;
                    shared.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn opened(&self) -> usize {
        self.shared.opened.load(Ordering::SeqCst)
    }

    pub(crate) async fn all_closed(&self) {
        while self.shared.closed.load(Ordering::SeqCst) < self.opened() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

async fn serve(shared: &Shared, stream: TcpStream) {
    let mut connection = Connection {
        stream,
        buffer: Vec::new(),
    };
    while let Some(mut seen) = connection.head().await {
        let first = !seen.headers.contains_key("expect");
        if first && !connection.body(&mut seen).await {
            return;
        }
        let number = shared.requests.fetch_add(1, Ordering::SeqCst);
        let steps = (shared.script)(number, &seen);
        shared.seen.lock().unwrap().push(seen.clone());
        for step in steps {
            let goes_on = match step {
                Step::Send(bytes) => connection.stream.write_all(&bytes).await.is_ok(),
                Step::ReadBody => {
                    let read = connection.body(&mut seen).await;
                    shared.seen.lock().unwrap()[number] = seen.clone();
                    read
                }
                Step::Wait(time) => {
                    tokio::time::sleep(time).await;
                    true
                }
                Step::Close => false,
                Step::Reset => {
                    connection.stream.set_zero_linger().unwrap();
                    false
                }
                Step::Hang => {
                    while connection.read().await {}
                    false
                }
            };
            if !goes_on {
                return;
            }
        }
    }
}

impl Connection {
    async fn read(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(len) if len > 0)
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.buffer.windows(end.len()).position(|at| at == end);
            if let Some(at) = found {
                let rest = self.buffer.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            if !self.read().await {
                return None;
            }
        }
    }

    async fn head(&mut self) -> Option<Seen> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await?).unwrap();
        let mut lines = head.lines();
        let line = lines.next().unwrap().strip_suffix(" HTTP/1.1").unwrap();
        let mut seen = Seen {
            line: line.to_owned(),
            ..Seen::default()
        };
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            let joined = seen.headers.entry(name.to_ascii_lowercase()).or_default();
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            joined.push_str(value);
        }
        Some(seen)
    }

    async fn body(&mut self, seen: &mut Seen) -> bool {
        if seen.header("transfer-encoding") == "chunked" {
            let Some(body) = self.until(b"0\r\n\r\n").await else {
                return false;
            };
            seen.body = body;
            return true;
        }
        let len = seen.header("content-length").parse().unwrap_or(0);
        while self.buffer.len() < len {
            if !self.read().await {
                return false;
            }
        }
        let rest = self.buffer.split_off(len);
        seen.body = std::mem::replace(&mut self.buffer, rest);
        true
    }
}
