//! Accepting connections, and ending them in good order.
//!
//! One `hyper` connection per socket. To stop: no new connection is accepted, idle ones are closed,
//! requests in flight get [`DRAIN_MAX`] to end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_cache::Disk;
use forebay_cache::cluster::ClusterKey;
use forebay_cache::tier::Tier;
use forebay_store::Objects;
use forebay_store::time::{Clock, SystemClock};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::compat::Compat;
use crate::metric::Metrics;
use crate::reply::Response;
use crate::service::Service;
use crate::socket::{Activity, LOOK_EVERY, Socket};
use crate::tier::TierFace;

/// Longest wait for requests in flight when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which is mostly a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Bytes read ahead of a connection, and largest head of a request.
const READ_BUFFER_MAX: usize = 128 << 10;
/// Largest head of a request: S3's limit of 8 KiB of metadata, long keys and query strings
/// included.
const HEAD_SIZE_MAX: usize = 64 << 10;
/// Headers of a request, at most.
const HEADERS_MAX: usize = 200;

/// Settings of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names below which a bucket can be in `Host`; without them all requests are path-style.
    pub base_domains: Vec<String>,
    /// The region that buckets are in unless they say otherwise.
    pub region: String,
    /// Whose behaviour is followed where services differ.
    pub compat: Compat,
    /// What nodes prove that they may do more than their clients; without it, no node may.
    pub cluster_key: Option<ClusterKey>,
}

/// Why a server can't be started or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address can't be listened on.
    #[error("listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No random number for request ids.
    #[error("take random bytes from the system")]
    Random(#[source] getrandom::Error),
}

/// What answers the requests of connections.
pub(crate) trait Answers: Send + Sync + 'static {
    /// Answers a request, whatever it is.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> impl Future<Output = Response> + Send;

    /// Where connections are counted.
    fn metrics(&self) -> &Arc<Metrics>;

    /// From here on it says that it is not ready.
    fn stop(&self);
}

/// Listens for a service.
#[derive(Debug)]
pub(crate) struct Listening<S> {
    listener: TcpListener,
    /// The address that was taken.
    pub(crate) addr: SocketAddr,
    service: Arc<S>,
}

/// An S3 server that listens.
#[derive(Debug)]
pub struct Server(Listening<Service>);

impl Server {
    /// Listens; connections wait until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`ServeError::Listen`], [`ServeError::Random`].
    pub async fn bind(config: ServerConfig, objects: Arc<dyn Objects>) -> Result<Self, ServeError> {
        Self::bind_with_clock(config, objects, Arc::new(SystemClock)).await
    }

    /// As [`bind`](Self::bind), with a clock of the caller's.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with_clock(
        config: ServerConfig,
        objects: Arc<dyn Objects>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServeError> {
        Self::bind_with(config, objects, clock, None).await
    }

    /// As [`bind`](Self::bind), for what is stored behind a tier, whose blocks are on `disk`.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_tier(
        config: ServerConfig,
        tier: Tier,
        disk: Arc<Disk>,
    ) -> Result<Self, ServeError> {
        let objects = Arc::new(tier.store().clone());
        let tier = TierFace::new(tier, disk);
        Self::bind_with(config, objects, Arc::new(SystemClock), Some(tier)).await
    }

    async fn bind_with(
        config: ServerConfig,
        objects: Arc<dyn Objects>,
        clock: Arc<dyn Clock>,
        tier: Option<TierFace>,
    ) -> Result<Self, ServeError> {
        let listen = config.listen;
        let service = Service::new(config, objects, clock, tier).map_err(ServeError::Random)?;
        Ok(Self(Listening::bind(listen, service).await?))
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Serves until `shutdown` is ready, then lets requests in flight end.
    ///
    /// # Errors
    /// None now; accepting goes on after any failure of one connection.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        self.0.serve(shutdown).await;
        Ok(())
    }
}

impl<S: Answers> Listening<S> {
    /// Listens; connections wait until [`serve`](Self::serve).
    ///
    /// # Errors
    /// [`ServeError::Listen`].
    pub(crate) async fn bind(listen: SocketAddr, service: S) -> Result<Self, ServeError> {
        let listen_error = |source| ServeError::Listen {
            addr: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(listen_error)?;
        let addr = listener.local_addr().map_err(listen_error)?;
        Ok(Self {
            listener,
            addr,
            service: Arc::new(service),
        })
    }

    /// Serves until `shutdown` is ready, then lets requests in flight end.
    pub(crate) async fn serve(self, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopping) = watch::channel(false);
        // Every connection holds a sender; when the last is gone, so are the connections.
        let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (service, stopping) = (Arc::clone(&self.service), stopping.clone());
                    let alive = alive.clone();
                    tokio::spawn(async move {
                        connection(service, stream, peer, stopping).await;
                        drop(alive);
                    });
                }
                Err(err) => {
                    let errors = &self.service.metrics().accept_errors;
                    errors.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%err, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        drop(alive);
        self.service.stop();
        if stop.send(true).is_ok()
            && tokio::time::timeout(DRAIN_MAX, all_gone.recv())
                .await
                .is_err()
        {
            tracing::warn!("requests were still in flight when the server stopped");
        }
    }
}

async fn connection<S: Answers>(
    service: Arc<S>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stopping: watch::Receiver<bool>,
) {
    if let Err(err) = stream.set_nodelay(true) {
        tracing::debug!(%err, "a connection ended before it began");
        return;
    }
    let _open = OpenConnection::new(service.metrics());
    let activity = Activity::new();
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(&activity)));
    let answer = service_fn(|request| {
        activity.begin_request();
        let (service, activity) = (Arc::clone(&service), Arc::clone(&activity));
        async move {
            let response = service.answer(request, peer).await;
            activity.end_request();
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(READ_BUFFER_MAX)
        .max_header_size(HEAD_SIZE_MAX)
        .max_headers(HEADERS_MAX)
        .header_read_timeout(None)
        .serve_connection(socket, answer);
    tokio::pin!(connection);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(err) = ended {
                    tracing::debug!(%err, %peer, "a connection broke");
                }
                break;
            }
            changed = stopping.changed(), if !told => {
                told = true;
                if changed.is_ok() {
                    connection.as_mut().graceful_shutdown();
                }
            }
            _ = look.tick() => {
                if activity.is_stale() {
                    tracing::debug!(%peer, "a silent connection is closed");
                    break;
                }
            }
        }
    }
}

/// Counts a connection for as long as it lives, and a panic that ends it.
struct OpenConnection(Arc<Metrics>);

impl OpenConnection {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(metrics))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        if std::thread::panicking() {
            self.0.panics.fetch_add(1, Ordering::Relaxed);
        }
    }
}
