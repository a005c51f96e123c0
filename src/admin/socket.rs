//! The administration socket: `DATA/admin.sock`, one JSON document per line each way.
//!
//! # Invariants
//! 1. Only the user that the server runs as, and root, are answered: the socket has mode 0600, and
//!    the kernel's word on the peer (`SO_PEERCRED`) is checked besides.
//! 2. The process that owns the data directory may replace the socket: whoever made it is gone.

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::{Reply, Request};

const NAME: &str = "admin.sock";
/// Requests are far shorter; without a limit a peer could fill the memory.
const REQUEST_LEN_MAX: u64 = 64 * 1024;

/// Answers a request; it may block.
pub(crate) type Answer = Arc<dyn Fn(Request) -> Reply + Send + Sync>;

/// A data directory that is held open, through which a socket's path is short enough.
///
/// A socket's path has at most 107 bytes, which a data directory's may well exceed.
struct Directory(File);

impl Directory {
    fn open(data: &Path) -> io::Result<Self> {
        File::open(data).map(Self)
    }

    fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{NAME}", self.0.as_raw_fd()))
    }
}

/// The server's side.
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// The only user, besides root, that is answered.
    uid: u32,
}

impl Listener {
    /// Listens. The caller owns `data`, and is within a runtime.
    pub(crate) fn bind(data: &Path) -> Result<Self> {
        let path = data.join(NAME);
        let bind = || {
            match fs::remove_file(&path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                Ok(()) | Err(_) => {}
            }
            let socket = UnixListener::bind(Directory::open(data)?.socket())?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            let uid = fs::metadata(&path)?.uid();
            Ok((socket, uid))
        };
        let (socket, uid) = bind().with_context(|| format!("listen on {}", path.display()))?;
        Ok(Self { socket, path, uid })
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve(self, answer: Answer) {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    let (answer, uid) = (Arc::clone(&answer), self.uid);
                    tokio::spawn(async move {
                        if let Err(err) = converse(stream, uid, &answer).await {
                            tracing::warn!("administration socket: {err}");
                        }
                    });
                }
                Err(err) => {
                    tracing::warn!("administration socket: {err}");
                    // Such as too many open files: trying again at once would only spin.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_file(&self.path) {
            tracing::warn!("remove {}: {err}", self.path.display());
        }
    }
}

/// Answers what one peer asks, until it hangs up.
async fn converse(stream: tokio::net::UnixStream, uid: u32, answer: &Answer) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != uid && peer != 0 {
        return Err(io::Error::other(format!("user {peer} was refused")));
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        (&mut reader)
            .take(REQUEST_LEN_MAX)
            .read_until(b'\n', &mut line)
            .await?;
        if line.is_empty() {
            return Ok(());
        }
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => {
                let answer = Arc::clone(answer);
                tokio::task::spawn_blocking(move || answer(request)).await?
            }
            Err(err) => Reply::Refused(format!("not a request: {err}")),
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
    }
}

/// Asks the server that owns `data`; `None` if there is none.
pub(crate) fn ask(data: &Path, request: &Request) -> Result<Option<Reply>> {
    let connected = Directory::open(data).and_then(|dir| UnixStream::connect(dir.socket()));
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(err) if absent(&err) => return Ok(None),
        Err(err) => {
            let path = data.join(NAME);
            return Err(err).with_context(|| format!("connect to {}", path.display()));
        }
    };
    let mut text = serde_json::to_vec(request)?;
    text.push(b'\n');
    let mut line = String::new();
    stream
        .write_all(&text)
        .and_then(|()| BufReader::new(stream).read_line(&mut line))
        .context("ask the server")?;
    if line.is_empty() {
        anyhow::bail!("the server hung up: it answers only the user that it runs as, and root");
    }
    Ok(Some(
        serde_json::from_str(&line).context("understand the server's answer")?,
    ))
}

fn absent(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> Answer {
        Arc::new(|request| match request {
            Request::CreateKey { account } => Reply::Refused(account),
            _ => Reply::Done,
        })
    }

    async fn ask_async(data: &Path, request: Request) -> Result<Option<Reply>> {
        let data = data.to_owned();
        tokio::task::spawn_blocking(move || ask(&data, &request))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_request_is_answered_also_below_a_path_too_long_for_a_socket() {
        let temp = tempfile::tempdir().unwrap();
        let data = temp.path().join("d".repeat(200));
        fs::create_dir(&data).unwrap();
        let server = tokio::spawn(Listener::bind(&data).unwrap().serve(echo()));
        let mode = fs::metadata(data.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let request = Request::CreateKey {
            account: "a\nb".to_owned(),
        };
        let reply = ask_async(&data, request).await.unwrap();
        assert_eq!(reply, Some(Reply::Refused("a\nb".to_owned())));
        server.abort();
    }

    #[tokio::test]
    async fn a_socket_without_a_server_is_no_server_and_can_be_replaced() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(ask(data.path(), &Request::ListAccounts).unwrap(), None);
        drop(std::os::unix::net::UnixListener::bind(data.path().join(NAME)).unwrap());
        assert_eq!(ask(data.path(), &Request::ListAccounts).unwrap(), None);
        let server = tokio::spawn(Listener::bind(data.path()).unwrap().serve(echo()));
        let reply = ask_async(data.path(), Request::ListAccounts).await.unwrap();
        assert_eq!(reply, Some(Reply::Done));
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(!data.path().join(NAME).exists(), "it is removed at the end");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let data = tempfile::tempdir().unwrap();
        let server = tokio::spawn(Listener::bind(data.path()).unwrap().serve(echo()));
        let path = data.path().join(NAME);
        let line = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(b"{\"ask\":\"everything\"}\n").unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            line
        });
        assert!(
            line.await
                .unwrap()
                .starts_with("{\"refused\":\"not a request")
        );
        server.abort();
    }
}
