//! The read cache: bytes of a remote origin, or of a local store on a slower disk, kept on a local
//! disk.
//!
//! A byte belongs to one [`Version`] of one object. Who may read it, and which version is the
//! current one, is always the origin's to say; only the bytes come from here.

mod cache;
pub mod cluster;
mod directive;
pub mod disk;
mod fetch;
pub mod origin;
pub mod peer;
pub mod remote;
pub mod sign;
mod source;
pub mod tier;
mod time;
mod version;
mod whole;

pub use cache::Cache;
pub use directive::Directive;
pub use disk::{Block, BlockError, CompleteFile, Disk, DiskConfig, DiskError, Object, PutError};
pub use fetch::{
    FetchConfig, FillError, FillReport, HotPrefix, Keep, Read, ReadError, Statistics, Status,
};
pub use source::{Authorizing, Chunks, FetchError, Fetching, Source};
pub use version::{BLOCK_SIZE, Version};
