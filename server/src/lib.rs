//! S3 over HTTP: the face of the store that programs speak to.
//!
//! [`Server`] listens and answers; what it answers from is behind
//! [`Objects`](forebay_store::Objects). The life of a request: `serve` accepts its connection,
//! `service` finds what it names (`target`), what it calls (`call`) and who asks (`auth`), and
//! `ops` does it.
//!
//! [`NodeServer`] stands in front of another server, its origin: it passes requests on, and answers
//! reads with bytes out of its cache.

mod admin;
mod answer;
mod auth;
mod body;
mod cache_metric;
mod call;
mod changes;
mod checksum;
mod cluster;
mod compat;
mod condition;
mod error;
mod framing;
mod grant;
mod head;
mod header;
mod lease;
mod listing;
mod metric;
mod node;
mod ops;
mod query;
mod range;
mod reply;
mod serve;
mod service;
mod socket;
mod tag;
mod target;
mod tier;
mod time;
mod xml;

pub use compat::{Compat, UnknownCompat};
pub use node::{LeaseTerms, NodeConfig, NodeKeys, NodeServer};
pub use serve::{ServeError, Server, ServerConfig};
