//! The store: objects, their index, and every rule about them.
//!
//! See [`api`] for what the faces call.

mod accounts;
pub mod api;
mod append;
mod closing;
mod collect;
mod commit;
pub mod content;
mod data;
pub mod digest;
pub mod disk;
mod entries;
pub mod entry;
pub mod error;
pub mod event;
mod files;
mod flush;
pub mod fsck;
mod index;
pub mod limits;
pub mod map;
mod md5_lanes;
mod md5_pool;
mod md5_stream;
mod multipart;
pub mod name;
mod objects;
pub mod rebuild;
mod record;
mod recover;
mod replay;
pub mod rule;
pub mod scrub;
mod segment;
mod shared;
pub mod stage;
mod store;
pub mod sys;
pub mod time;
mod write;

pub use api::{Buckets, Files, Objects};
pub use content::{CacheStatus, Content, ContentStream, ForeignContent, ForeignRange};
pub use error::{Error, Result};
pub use store::{ROOT_ACCOUNT, Store, StoreOptions};
