//! What S3 needs of objects.

use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Buckets, Durability, ListAfter, RenameMode, Usage};
use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType, DigestSet};
use crate::entry::{
    AccessKey, Account, Attributes, BucketId, ETag, Entry, ListedEntry, Part, Upload,
};
use crate::error::Result;
use crate::event::{Position, Since};
use crate::name::{AccountId, ObjectKey, UploadId, VersionId};
use crate::rule::precondition::Precondition;
use crate::stage::{Stage, Staged};

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

/// A key with all that is known of its version, or a common prefix, in the order of their bytes.
#[derive(Clone, Debug)]
pub enum HeadItem {
    /// A version, without where its bytes are: look it up before opening it.
    Entry(Arc<Entry>),
    /// A common prefix, its delimiter included, and the object of just that key, if there is one.
    CommonPrefix(String, Option<Arc<Entry>>),
}

/// One page of a listing that tells of each object what a look at it would.
#[derive(Clone, Debug, Default)]
pub struct HeadPage {
    /// What was found.
    pub items: Vec<HeadItem>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<ListAfter>,
}

/// A rename of a file or a directory, as the mount has it, within a bucket.
#[derive(Clone, Debug)]
pub struct Rename {
    /// Where.
    pub bucket: BucketId,
    /// The path it has.
    pub from: String,
    /// The path it is to have.
    pub to: String,
    /// What becomes of what is there.
    pub mode: RenameMode,
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

/// What S3 needs of objects, besides.
///
/// Methods that change something are durable when they answer, unless [`Durability`] says
/// otherwise.
pub trait Objects: Buckets {
    /// The entry of a key, if it is held in memory: `Some(None)` is a key known to be absent.
    fn cached(&self, bucket: BucketId, key: &ObjectKey) -> Option<Option<Arc<Entry>>>;

    /// The entry of a key's current or named version.
    ///
    /// Waits for a file of that key that is being closed on the mount:
    /// [`CLOSING_WAIT_MAX`](super::CLOSING_WAIT_MAX) for its publication to begin, and then until
    /// it ends.
    ///
    /// # Errors
    /// `NoSuchKey`, `NoSuchVersion`.
    fn head<'a>(
        &'a self,
        bucket: BucketId,
        key: &'a ObjectKey,
        version: Option<&'a VersionId>,
    ) -> Answer<'a, Arc<Entry>>;

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

    /// Lists current objects, with all that is known of each.
    fn list_heads(&self, list: List) -> Answer<'_, HeadPage>;

    /// Renames a file or a directory with all below it, in one step.
    ///
    /// # Errors
    /// As [`Files::rename`](super::Files::rename).
    fn rename_path(&self, rename: Rename) -> Answer<'_, ()>;

    /// Space left. Ready at once.
    ///
    /// # Errors
    /// `Io`.
    fn space(&self) -> Result<Usage>;

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
