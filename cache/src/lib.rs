//! The read cache: bytes of a remote origin, kept on a local disk.
//!
//! A byte belongs to one [`Version`] of one object. Who may read it, and which version is the
//! current one, is always the origin's to say; only the bytes come from here.

mod cache;
pub mod cluster;
mod directive;
pub mod disk;
mod fetch;
pub mod origin;
pub mod remote;
pub mod sign;
mod source;
mod time;
mod version;

pub use cache::Cache;
pub use directive::Directive;
pub use disk::{Block, BlockError, CompleteFile, Disk, DiskConfig, DiskError, Object, PutError};
pub use fetch::{FetchConfig, FillError, FillReport, Keep, Read, ReadError, Statistics, Status};
pub use source::{Chunks, FetchError, Fetching, Source};
pub use version::{BLOCK_SIZE, Version};
