//! The client that speaks to a remote origin, over HTTP/1.1.
//!
//! One [`Client`] is shared by everybody: it keeps connections, leaves a dead origin alone
//! (`breaker`) and bounds what is tried again (`retry`). It passes on what others ask
//! ([`Client::send`]), makes calls of its own ([`Client::call`] and what is built on it), and
//! brings the bytes of objects ([`Client::source`]).

mod body;
mod breaker;
mod call;
mod changes;
mod client;
mod config;
mod connect;
mod counters;
mod endpoint;
mod error;
mod head;
mod hop;
mod list;
mod multipart;
mod outgoing;
mod range;
mod retry;
mod source;
mod tree;
mod write;
mod xml;

#[cfg(test)]
pub(crate) mod tests;

pub use body::Body;
pub use breaker::BreakerState;
pub use call::{Call, Repeat};
pub use changes::{Changed, ChangedKind, Changes};
pub use client::Client;
pub use config::{ClientConfig, ClientError, Deadlines, Retries, Role};
pub use counters::Statistics;
pub use endpoint::{Addressing, Endpoint, EndpointError};
pub use error::{OriginError, Refusal};
pub use head::Head;
pub use list::{From, Heads, List, Listed, ListedBucket, Page};
pub use multipart::{Part, Upload};
pub use source::{Authorization, GRANT_HEADER};
pub use tree::Space;
pub use write::{CopyFrom, Written};
