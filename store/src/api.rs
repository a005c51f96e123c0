//! The interfaces through which the faces reach objects.
//!
//! The store implements both. A remote origin behind a read cache can stand behind them too: no
//! method names a path, a table or a file of the store.
//!
//! [`Objects`] is what S3 needs, and is async. [`Files`] is what the mount needs besides, and
//! blocks: it is called from the mount's own threads, never from an async worker.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::content::Content;
use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType, DigestSet};
use crate::entry::{
    AccessKey, Account, Attributes, Bucket, BucketId, ETag, Entry, FileAttributes, ListedEntry,
    Part, Upload,
};
use crate::error::Result;
use crate::event::{Position, Since, Subscription};
use crate::name::{AccountId, BucketName, ObjectKey, UploadId, VersionId};
use crate::rule::precondition::Precondition;
use crate::stage::{Stage, Staged, StagingFile};

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

/// A bucket to be made.
#[derive(Clone, Debug)]
pub struct NewBucket {
    /// Its name.
    pub name: BucketName,
    /// Whose it is.
    pub owner: AccountId,
    /// `LocationConstraint`, if given.
    pub location: Option<String>,
    /// Which face asks.
    pub face: Face,
}

/// Which buckets to list, in order of their names.
#[derive(Clone, Debug, Default)]
pub struct ListBuckets {
    /// Only this account's; `None` for all.
    pub owner: Option<AccountId>,
    /// Only names that begin so.
    pub prefix: String,
    /// Only names after this one.
    pub after: Option<String>,
    /// At most so many; `None` for all.
    pub limit: Option<usize>,
}

/// A body and what to make of it.
#[derive(Debug)]
pub struct Publish {
    /// Where.
    pub bucket: BucketId,
    /// Under which key.
    pub key: ObjectKey,
    /// The bytes.
    pub staged: Staged,
    /// What comes with them.
    pub attributes: Attributes,
    /// The checksum to keep.
    pub checksum: Option<Checksum>,
    /// Who puts it.
    pub owner: AccountId,
    /// What must hold for it.
    pub precondition: Precondition,
    /// When it must be safe.
    pub durability: Durability,
}

/// What to copy where. No bytes are copied.
#[derive(Debug)]
pub struct Copy {
    /// What.
    pub source: Arc<Entry>,
    /// Where to.
    pub bucket: BucketId,
    /// Under which key.
    pub key: ObjectKey,
    /// What comes with it; the source's own for a plain copy.
    pub attributes: Attributes,
    /// The checksum to keep.
    pub checksum: Option<Checksum>,
    /// Who copies.
    pub owner: AccountId,
    /// What must hold for the target.
    pub precondition: Precondition,
}

/// What to delete.
#[derive(Clone, Debug)]
pub struct Delete {
    /// Where.
    pub bucket: BucketId,
    /// Which key.
    pub key: ObjectKey,
    /// One version, or the current one.
    pub version: Option<VersionId>,
    /// What must hold for it.
    pub precondition: Precondition,
}

/// What a deletion did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Whether there was anything.
    pub existed: bool,
    /// The version deleted, or the marker made.
    pub version_id: Option<VersionId>,
    /// Whether that is a delete marker.
    pub delete_marker: bool,
}

/// Where a listing goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListAfter {
    /// After this key (exclusive; it need not exist).
    Key(String),
    /// After all keys that begin so: a common prefix that was listed.
    Prefix(String),
}

/// What to list.
#[derive(Clone, Debug)]
pub struct List {
    /// Where.
    pub bucket: BucketId,
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys that share what is before its first occurrence after the prefix are one common prefix.
    pub delimiter: Option<String>,
    /// Where to go on.
    pub after: Option<ListAfter>,
    /// Keys and common prefixes, at most.
    pub limit: usize,
}

/// A key or a common prefix, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListItem {
    /// A key.
    Entry(ListedEntry),
    /// A common prefix, its delimiter included.
    CommonPrefix(String),
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListPage {
    /// What was found.
    pub items: Vec<ListItem>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<ListAfter>,
}

/// An upload to be initiated.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// Where the object will be.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// What comes with it.
    pub attributes: Attributes,
    /// The checksum that parts and object are to have.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Who initiates it.
    pub owner: AccountId,
}

/// A part to be kept.
#[derive(Debug)]
pub struct PublishPart {
    /// Of which upload.
    pub upload: Arc<Upload>,
    /// Its number, 1 to 10,000.
    pub number: u16,
    /// The bytes, staged for this part.
    pub staged: Staged,
    /// The checksum it came with.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
}

/// A range of an object to be kept as a part. No bytes are copied where they can be shared.
#[derive(Debug)]
pub struct CopyPart {
    /// Of which upload.
    pub upload: Arc<Upload>,
    /// Its number, 1 to 10,000.
    pub number: u16,
    /// Of what.
    pub source: Arc<Entry>,
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The checksum to compute.
    pub checksum: Option<ChecksumAlgorithm>,
}

/// A part as a completion names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedPart {
    /// Its number.
    pub number: u32,
    /// Its entity tag; `None` if what was sent can't be one of ours.
    pub etag: Option<ETag>,
    /// Its checksum, if named.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
}

/// An upload to be completed.
#[derive(Debug)]
pub struct Complete {
    /// Which.
    pub upload: Arc<Upload>,
    /// The parts to be joined.
    pub parts: Vec<CompletedPart>,
    /// The checksum the whole must have: algorithm and value, of the upload's type.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
    /// The size the whole must have, in bytes.
    pub size: Option<u64>,
    /// What must hold for the target.
    pub precondition: Precondition,
}

/// Which uploads to list, by key, then by time of initiation.
#[derive(Clone, Debug)]
pub struct ListUploads {
    /// Where.
    pub bucket: BucketId,
    /// Only keys that begin so.
    pub prefix: String,
    /// As in [`List`].
    pub delimiter: Option<String>,
    /// Only uploads after this key, or after this upload of the key.
    pub after: Option<(String, Option<UploadId>)>,
    /// Uploads and common prefixes, at most.
    pub limit: usize,
}

/// One page of uploads.
#[derive(Clone, Debug, Default)]
pub struct UploadPage {
    /// Uploads in progress.
    pub uploads: Vec<Upload>,
    /// Common prefixes.
    pub common_prefixes: Vec<String>,
    /// Where the next page begins: key and, unless it is a common prefix, upload.
    pub next: Option<(String, Option<UploadId>)>,
}

/// What S3 needs of objects.
///
/// Every method is atomic, and what it answered is what every later call, on either face, sees.
/// Methods that change something are durable when they answer, unless [`Durability`] says
/// otherwise.
pub trait Objects: fmt::Debug + Send + Sync + 'static {
    /// Makes a bucket.
    ///
    /// # Errors
    /// `BucketExists`, whoever owns it; `TooManyBuckets`.
    fn create_bucket(&self, bucket: NewBucket) -> Answer<'_, Arc<Bucket>>;

    /// Looks a bucket up. Ready at once: a local store keeps all buckets in memory.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    fn bucket(&self, name: &BucketName) -> Result<Arc<Bucket>>;

    /// Deletes an empty bucket, and its uploads in progress.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty`.
    fn delete_bucket(&self, name: BucketName, face: Face) -> Answer<'_, ()>;

    /// Lists buckets by name; the flag says whether more follow.
    fn list_buckets(&self, list: ListBuckets) -> Answer<'_, (Vec<Arc<Bucket>>, bool)>;

    /// The entry of a key, if it is held in memory: `Some(None)` is a key known to be absent.
    fn cached(&self, bucket: BucketId, key: &ObjectKey) -> Option<Option<Arc<Entry>>>;

    /// The entry of a key's current or named version.
    ///
    /// Waits for a file of that key that is being closed on the mount: [`CLOSING_WAIT_MAX`] for its
    /// publication to begin, and then until it ends.
    ///
    /// # Errors
    /// `NoSuchKey`, `NoSuchVersion`.
    fn head<'a>(
        &'a self,
        bucket: BucketId,
        key: &'a ObjectKey,
        version: Option<&'a VersionId>,
    ) -> Answer<'a, Arc<Entry>>;

    /// Opens an entry's bytes. They stay readable while the content is held, whatever happens to
    /// the key.
    ///
    /// # Errors
    /// `Io`; `Superseded` if the bytes are gone because the entry is an old one: look it up again.
    fn open(&self, entry: &Arc<Entry>) -> Result<Content>;

    /// Takes in a body of an object; `len` is its length in bytes where it is known.
    fn stage(&self, len: Option<u64>, digests: DigestSet) -> Answer<'_, Stage>;

    /// Makes a staged body the current version of a key.
    ///
    /// # Errors
    /// `PreconditionFailed`, `NoSuchKey` (an `If-Match` on nothing), `NoSuchBucket`, `Io`.
    fn publish(&self, publish: Publish) -> Answer<'_, Arc<Entry>>;

    /// Makes another object of the same bytes.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); `Superseded` if the source's bytes are gone: look it up
    /// again.
    fn copy(&self, copy: Copy) -> Answer<'_, Arc<Entry>>;

    /// Deletes a key or a version; nothing there is no error.
    ///
    /// # Errors
    /// `PreconditionFailed`, `NoSuchKey` (a condition on nothing), `NoSuchBucket`.
    fn delete(&self, delete: Delete) -> Answer<'_, Deleted>;

    /// Lists current objects.
    fn list(&self, list: List) -> Answer<'_, ListPage>;

    /// Initiates a multipart upload.
    ///
    /// # Errors
    /// `NoSuchBucket`.
    fn create_upload(&self, upload: NewUpload) -> Answer<'_, Arc<Upload>>;

    /// Looks an upload up.
    ///
    /// # Errors
    /// `NoSuchUpload`, also if it is of another bucket or key.
    fn upload<'a>(
        &'a self,
        bucket: BucketId,
        key: &'a ObjectKey,
        id: UploadId,
    ) -> Answer<'a, Arc<Upload>>;

    /// Takes in the body of a part, at its final place where that can be; `len` as in
    /// [`stage`](Self::stage).
    fn stage_part<'a>(
        &'a self,
        upload: &'a Arc<Upload>,
        number: u16,
        len: Option<u64>,
        digests: DigestSet,
    ) -> Answer<'a, Stage>;

    /// Keeps a part, in the place of an earlier one of its number.
    ///
    /// # Errors
    /// `NoSuchUpload` if it ended meanwhile.
    fn publish_part(&self, part: PublishPart) -> Answer<'_, Part>;

    /// Keeps a range of an object as a part, in the place of an earlier one of its number.
    ///
    /// # Errors
    /// `NoSuchUpload`; `InvalidRequest` if the range is not in the source; `Superseded` if the
    /// source's bytes are gone: look it up again.
    fn copy_part(&self, copy: CopyPart) -> Answer<'_, Part>;

    /// Joins parts to an object. The parts that are not named are dropped. Repeating a completion
    /// gives the same answer.
    ///
    /// # Errors
    /// `NoSuchUpload`, `InvalidPart`, `InvalidPartOrder`, `PartTooSmall`, `InvalidRequest`,
    /// `DigestMismatch`, `PreconditionFailed`; the upload stays as it was.
    fn complete_upload(&self, complete: Complete) -> Answer<'_, Arc<Entry>>;

    /// Drops an upload and its parts.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    fn abort_upload(&self, upload: Arc<Upload>) -> Answer<'_, ()>;

    /// Parts of an upload with numbers after `after`, at most `limit`; the flag says whether more
    /// follow.
    fn list_parts<'a>(
        &'a self,
        upload: &'a Upload,
        after: u16,
        limit: usize,
    ) -> Answer<'a, (Vec<Part>, bool)>;

    /// Lists uploads in progress.
    fn list_uploads(&self, list: ListUploads) -> Answer<'_, UploadPage>;

    /// Where the change feed is now: what is looked at from here on has every change up to it.
    fn position(&self) -> Position;

    /// Up to `limit` changes after a position, of both faces; waits up to `wait` for the first.
    ///
    /// Whoever asks holds up no change, and need not ask in time: it is told if there is a gap.
    fn changes(&self, after: Position, limit: usize, wait: Duration) -> Answer<'_, Since>;

    /// The access key of this id, with its account. Ready at once.
    fn access_key(&self, id: &str) -> Option<(AccessKey, Arc<Account>)>;

    /// An account. Ready at once.
    fn account(&self, id: &AccountId) -> Option<Arc<Account>>;

    /// Whether changes can be made.
    ///
    /// # Errors
    /// Why not, for a person.
    fn writable(&self) -> std::result::Result<(), String>;
}

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
pub trait Files: Objects {
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

    /// All changes from now on that `skip` did not make, in order.
    fn subscribe(&self, skip: Face) -> Subscription;

    /// The account that owns what the mount makes.
    fn mount_account(&self) -> AccountId;
}

/// How long S3 waits for the publication of a file that is being closed on the mount to begin.
pub const CLOSING_WAIT_MAX: Duration = Duration::from_millis(50);
/// How long an S3 change waits for the mount to have forgotten the old state.
pub const DELIVERY_WAIT_MAX: Duration = Duration::from_millis(100);
