//! A node: what stands in front of an origin and answers reads out of its cache.
//!
//! The life of a request: `reading` finds out whether it reads an object's bytes. Everything else
//! is passed on as it came and the answer passed back, both as streams. A read is passed on too,
//! but asks for the head of the answer alone (`origin`); the origin verifies its signature,
//! finds the current version, evaluates conditions and ranges as ever, and grants the node the
//! bytes (`told`). These come from the cache, or through it from the origin (`source`).
//!
//! Where the origin leases what it says, the node says it again by itself for a while (`lease`).
//!
//! An origin that is no forebay does none of this; there the node verifies its clients itself and
//! asks with credentials of its own (`foreign`).
//!
//! # Invariants
//! 1. Every read is allowed by the origin, for the very version that is answered: at the time, or
//!    by a lease that has not ended; or, if the node is told so, some time before the origin went
//!    down.
//! 2. An answer has the bytes of one version or breaks off; what changes before the first byte is
//!    asked for again.
//! 3. What a client sends under a name that nodes and origins use between them never reaches the
//!    origin, and what the origin sends so never reaches a client.

mod admin;
mod cached;
mod foreign;
mod keys;
mod lease;
mod lend;
mod metric;
mod origin;
mod outcome;
mod reading;
mod rewrite;
mod service;
mod source;
mod told;
mod unframe;
mod upload;

use std::net::SocketAddr;
use std::sync::Arc;

use forebay_cache::origin::Client;
use forebay_cache::{Cache, Disk};
use forebay_store::time::{Clock, SystemClock};

pub use self::keys::NodeKeys;
pub use self::lease::LeaseTerms;
pub(crate) use self::outcome::{Outcome, push_cached};
pub(crate) use self::reading::{directive, is_prestage};
use self::service::Node;
use crate::serve::{Listening, ServeError};

/// Settings of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names below which a bucket can be in `Host`: those that the origin has, too.
    pub base_domains: Vec<String>,
    /// Where the cache keeps its blocks, to tell of it in the metrics.
    pub disk: Option<Arc<Disk>>,
    /// The keys of the node's clients, if the origin is no forebay; a forebay has its own.
    pub keys: Option<NodeKeys>,
    /// For how long reads are answered by leases of a forebay that knows the client's cluster key;
    /// without, each read is asked for.
    pub leases: Option<LeaseTerms>,
}

/// An S3 server that listens, and answers with what its origin has.
#[derive(Debug)]
pub struct NodeServer(Listening<Node>);

impl NodeServer {
    /// Listens; connections wait until [`serve`](Self::serve).
    ///
    /// What it proves itself with to a forebay, and signs with for any other origin, the client
    /// has.
    ///
    /// # Errors
    /// [`ServeError::Listen`], [`ServeError::Random`].
    pub async fn bind(
        config: NodeConfig,
        cache: Cache,
        client: Client,
    ) -> Result<Self, ServeError> {
        Self::bind_with_clock(config, cache, client, Arc::new(SystemClock)).await
    }

    /// As [`bind`](Self::bind), with the clock that clients' signatures are verified by.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with_clock(
        config: NodeConfig,
        cache: Cache,
        client: Client,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServeError> {
        let listen = config.listen;
        let node = Node::new(config, cache, client, clock).map_err(ServeError::Random)?;
        Ok(Self(Listening::bind(listen, node).await?))
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
