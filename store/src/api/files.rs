//! What the mount needs of objects.

use std::sync::Arc;
use std::time::Duration;

use super::{Buckets, Durability, Face, ListAfter};
use crate::entry::{Attributes, BucketId, Entry, FileAttributes};
use crate::error::Result;
use crate::event::Subscription;
use crate::name::{AccountId, ObjectKey};
use crate::rule::directive::Directive;
use crate::stage::StagingFile;

/// What a path names.
#[derive(Clone, Debug)]
pub enum Node {
    /// An object.
    File(Arc<Entry>),
    /// A directory, with its marker object (`dir/`) if it has one. An object of the same name is
    /// hidden by it.
    Directory(Option<Arc<Entry>>),
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct DirectoryItem {
    /// The name: one component, without slashes.
    pub name: String,
    /// What it names. A file's entry has no extents here: look it up before opening it.
    pub node: Node,
}

/// One page of a directory, in the order of the names' bytes (a directory `d` sorts as `d/`).
#[derive(Clone, Debug, Default)]
pub struct DirectoryPage {
    /// What was found. Names that no path can have (empty, `.`, `..`, over 255 bytes, with a NUL)
    /// are left out.
    pub items: Vec<DirectoryItem>,
    /// Where the next page begins.
    pub next: Option<ListAfter>,
    /// How many names were left out.
    pub hidden: u64,
}

/// A file's new content.
#[derive(Debug)]
pub struct PublishFile<'a> {
    /// Where.
    pub bucket: BucketId,
    /// Under which key.
    pub key: ObjectKey,
    /// The bytes. Nobody writes to them any more if `keep` is unset.
    pub staging: &'a StagingFile,
    /// Whether the staging file stays a staging file (`fsync` of an open file), so that its bytes
    /// are copied.
    pub keep: bool,
    /// The inode number it has.
    pub ino: u64,
    /// What POSIX keeps of it.
    pub file: FileAttributes,
    /// What S3 keeps of it: what the object had that was opened for change, or nothing.
    pub attributes: Attributes,
    /// When it must be safe.
    pub durability: Durability,
}

/// A change of attributes; what is `None` stays.
pub type AttributeChange = FileAttributes;

/// How to rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// What is at the target gives way, as `rename(2)` has it.
    Replace,
    /// Nothing may be at the target.
    NoReplace,
    /// Both exchange their names.
    Exchange,
}

/// Space and objects of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the file system the data is on.
    pub total: u64,
    /// Bytes that can still be written.
    pub available: u64,
    /// Objects and directories it could still hold; 0 if unknown.
    pub inodes_available: u64,
}

/// What the mount needs of objects, besides.
///
/// Paths are keys without a trailing slash; the empty path is the bucket itself. All methods block,
/// for microseconds when the answer is local. Changes are deferred ([`Durability::Deferred`])
/// unless said otherwise.
pub trait Files: Buckets {
    /// What `path` names, in one visit of the index.
    ///
    /// # Errors
    /// `Index`.
    fn lookup(&self, bucket: BucketId, path: &str) -> Result<Option<Node>>;

    /// A page of the directory at `path`.
    ///
    /// # Errors
    /// `Index`.
    fn list_directory(
        &self,
        bucket: BucketId,
        path: &str,
        after: Option<ListAfter>,
        limit: usize,
    ) -> Result<DirectoryPage>;

    /// A number that no inode has had.
    ///
    /// # Errors
    /// What a remote origin may say; a local store has none.
    fn allocate_ino(&self) -> Result<u64>;

    /// A file to write to, open for reading and writing, with the bytes of `from` in it.
    ///
    /// # Errors
    /// `Io`, also where the disk is full; `Superseded` if the bytes are gone: look `from` up again.
    fn stage_file(&self, from: Option<&Arc<Entry>>) -> Result<StagingFile>;

    /// Makes a staging file's bytes the current version of a key, in one step for both faces.
    ///
    /// # Errors
    /// `IsDirectory`, `NoSuchBucket`, `Io`.
    fn publish_file(&self, publish: PublishFile<'_>) -> Result<Arc<Entry>>;

    /// Announces that a key's file is being closed: S3 waits for its publication.
    fn closing(&self, bucket: BucketId, key: &ObjectKey);

    /// Takes the announcement back, published or not.
    fn closed(&self, bucket: BucketId, key: &ObjectKey);

    /// Changes attributes of the file or directory at `path`; a directory without a marker gets
    /// one.
    ///
    /// # Errors
    /// `NoSuchKey`.
    fn set_attributes(
        &self,
        bucket: BucketId,
        path: &str,
        change: AttributeChange,
    ) -> Result<Arc<Entry>>;

    /// Keeps with the file or directory at `path` what its readers are to say of the cache, or
    /// nothing; a directory without a marker gets one.
    ///
    /// # Errors
    /// `NoSuchKey`.
    fn set_directive(
        &self,
        bucket: BucketId,
        path: &str,
        directive: Option<Directive>,
    ) -> Result<Arc<Entry>>;

    /// Makes a directory: its marker object.
    ///
    /// # Errors
    /// `Exists`.
    fn make_directory(
        &self,
        bucket: BucketId,
        path: &str,
        file: FileAttributes,
    ) -> Result<Arc<Entry>>;

    /// Removes an empty directory. The directory it was in stays.
    ///
    /// # Errors
    /// `NoSuchKey`, `NotDirectory`, `DirectoryNotEmpty`.
    fn remove_directory(&self, bucket: BucketId, path: &str) -> Result<()>;

    /// Makes an object whose bytes are `content`: a symbolic link's target, or nothing for a
    /// special file.
    ///
    /// # Errors
    /// `Exists`.
    fn make_node(
        &self,
        bucket: BucketId,
        path: &str,
        content: &[u8],
        file: FileAttributes,
    ) -> Result<Arc<Entry>>;

    /// Removes a file. The directory it was in stays, by a marker if need be.
    ///
    /// # Errors
    /// `NoSuchKey`, `IsDirectory`.
    fn remove_file(&self, bucket: BucketId, path: &str) -> Result<()>;

    /// Renames a file or a directory with all below it, within a bucket, in one step.
    ///
    /// # Errors
    /// `NoSuchKey`, `Exists`, `IsDirectory`, `NotDirectory`, `DirectoryNotEmpty`, `KeyTooLong`,
    /// `InvalidRequest` (a directory into itself).
    fn rename(&self, bucket: BucketId, from: &str, to: &str, mode: RenameMode) -> Result<()>;

    /// Makes everything answered so far survive a power cut.
    ///
    /// # Errors
    /// `Io`, `SyncFailedEarlier`.
    fn sync(&self) -> Result<()>;

    /// Space left.
    ///
    /// # Errors
    /// `Io`.
    fn usage(&self) -> Result<Usage>;

    /// All changes from now on that `skip` did not make, in order, as far as they come to be known.
    fn subscribe(&self, skip: Face) -> Subscription;

    /// How long an answer may be believed if no change of it is told meanwhile
    /// ([`subscribe`](Self::subscribe)): a local store tells every change, a remote origin may not.
    fn answer_age_max(&self) -> Duration;

    /// The account that owns what the mount makes.
    fn mount_account(&self) -> AccountId;
}
