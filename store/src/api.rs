//! The interfaces through which the faces reach objects.
//!
//! The store implements all three. No method names a path, a table or a file of the store, so a
//! remote origin behind a read cache can stand behind a face too.
//!
//! [`Buckets`] is what both faces need. [`Objects`] is what S3 needs besides, and is async.
//! [`Files`] is what the mount needs besides, and blocks: it is called from the mount's own
//! threads, never from an async worker.

mod buckets;
mod files;
mod objects;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use buckets::{Buckets, ListBuckets, NewBucket};
pub use files::{
    AttributeChange, DirectoryItem, DirectoryPage, Files, Node, PublishFile, RenameMode, Usage,
};
pub use objects::{
    Complete, CompletedPart, Copy, CopyPart, Delete, Deleted, HeadItem, HeadPage, List, ListItem,
    ListPage, ListUploads, NewUpload, Objects, Publish, PublishPart, Rename, UploadPage,
};

use crate::error::Result;

/// What an operation answers, later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// When a change must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the answer.
    Durable,
    /// Within a second of the answer; a power cut before that brings back the previous version.
    Deferred,
}

/// Which face made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// S3: the answer waits until subscribers have seen the change.
    S3,
    /// The mount, which has changed the kernel's view already.
    Mount,
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListAfter {
    /// After this key (exclusive; it need not exist).
    Key(String),
    /// After all keys that begin so: a common prefix that was listed.
    Prefix(String),
}

/// How long S3 waits for the publication of a file that is being closed on the mount to begin.
pub const CLOSING_WAIT_MAX: Duration = Duration::from_millis(50);
/// How long an S3 change waits for the mount to have forgotten the old state.
pub const DELIVERY_WAIT_MAX: Duration = Duration::from_millis(100);
