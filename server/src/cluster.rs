//! Which nodes have the cluster's key: what they prove with each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use forebay_cache::cluster::ClusterKey;
use forebay_store::time::Timestamp;
use http::{HeaderValue, Method, Uri};

/// What a node says that has no key to prove.
pub(crate) const UNPROVEN: &str = "1";

/// Reads nodes' proofs.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    key: ClusterKey,
    /// Whether a wrong proof was told of.
    warned: Arc<AtomicBool>,
}

impl Cluster {
    /// Of all who have this key.
    pub(crate) fn new(key: ClusterKey) -> Self {
        Self {
            key,
            warned: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Whether a value of `x-forebay-node` proves the key, for this request and now.
    ///
    /// A node that can't is not refused for that: its clients are served as through any other.
    pub(crate) fn proves(
        &self,
        value: &HeaderValue,
        method: &Method,
        uri: &Uri,
        now: Timestamp,
    ) -> bool {
        let path_and_query = uri.path_and_query().map_or("/", |target| target.as_str());
        let Err(err) = self.key.verify(value, method, path_and_query, now) else {
            return true;
        };
        let claims = value.as_bytes() != UNPROVEN.as_bytes();
        if claims && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %err,
                "a node does not prove the cluster key: it has another one, or another time"
            );
        }
        false
    }
}
