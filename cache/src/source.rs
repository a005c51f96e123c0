//! Where bytes come from when the cache does not have them.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::Stream;

use crate::origin::Authorization;
use crate::version::Version;

/// Bytes as they arrive, in order. After an error nothing follows.
pub type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, FetchError>> + Send>>;

/// Bytes that were asked for.
pub type Fetching = Pin<Box<dyn Future<Output = Result<Chunks, FetchError>> + Send>>;

/// What another node may show the origin; `None` if there is nothing.
pub type Authorizing =
    Pin<Box<dyn Future<Output = Result<Option<Authorization>, FetchError>> + Send>>;

/// Why bytes did not come.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The origin has another version by now, or none: look the object up again.
    #[error("the object changed at the origin")]
    Changed,
    /// The origin does not let this reader have them, or not any more.
    #[error("the origin refuses: {0}")]
    Denied(String),
    /// The origin can't be reached, fails or is too slow; what could be tried again was.
    #[error("the origin is unavailable: {0}")]
    Unavailable(String),
    /// What came is not what was asked for: too short, too long, another range.
    #[error("the origin's answer is wrong: {0}")]
    Corrupt(String),
}

/// Brings bytes of objects, on behalf of one reader.
///
/// What one reader may have is his alone to fetch; what has been fetched may be handed to every
/// reader whom the origin has told the same version.
pub trait Source: fmt::Debug + Send + Sync + 'static {
    /// Asks for a range, not empty, of exactly this version.
    ///
    /// The stream yields exactly the bytes of the range, or an error. Dropping it, or the future,
    /// ends the transfer.
    fn fetch(&self, version: &Arc<Version>, range: Range<u64>) -> Fetching;

    /// What a peer of this node can show the origin to fetch bytes of this version for the same
    /// reader.
    fn authorize(&self, _version: &Arc<Version>) -> Authorizing {
        Box::pin(std::future::ready(Ok(None)))
    }
}
