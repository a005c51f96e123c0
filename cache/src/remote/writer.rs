//! What a remote origin is told.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::api::RenameMode;
use forebay_store::entry::Attributes;
use forebay_store::name::BucketName;

use super::catalog::Asked;

/// An object that is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewObject<'a> {
    /// In which bucket.
    pub bucket: &'a str,
    /// Its key.
    pub key: &'a str,
    /// What comes with it; its tags are not told.
    pub attributes: &'a Attributes,
}

/// What is copied, within a bucket.
#[derive(Clone, Copy, Debug)]
pub struct CopyOf<'a> {
    /// In which bucket.
    pub bucket: &'a str,
    /// What.
    pub from: &'a str,
    /// The entity tag it must have.
    pub etag: &'a str,
    /// Where to.
    pub to: &'a str,
    /// What comes with the copy; what came with the source if `None`.
    pub attributes: Option<&'a Attributes>,
}

/// What is renamed, within a bucket. Paths have no slash at their end.
#[derive(Clone, Copy, Debug)]
pub struct PathRename<'a> {
    /// In which bucket.
    pub bucket: &'a str,
    /// What.
    pub from: &'a str,
    /// To what.
    pub to: &'a str,
    /// What becomes of what is there.
    pub mode: RenameMode,
}

/// Changes objects of a remote origin. What is published gives its entity tag, if the origin tells
/// it.
///
/// # Errors
/// Every method: as [`Catalog`](super::Catalog), and `PreconditionFailed`. After
/// `OriginUnavailable` it may have been done all the same.
pub trait Writer: fmt::Debug + Send + Sync + 'static {
    /// Puts an object.
    fn put<'a>(&'a self, object: NewObject<'a>, body: Bytes) -> Asked<'a, Option<String>>;

    /// Puts the first `size` bytes of a file as an object, in parts if it is large; the object is
    /// there whole or not at all.
    fn put_file<'a>(
        &'a self,
        object: NewObject<'a>,
        file: Arc<File>,
        size: u64,
    ) -> Asked<'a, Option<String>>;

    /// Copies an object.
    fn copy<'a>(&'a self, copy: CopyOf<'a>) -> Asked<'a, Option<String>>;

    /// Deletes an object; nothing there is no error.
    fn delete<'a>(&'a self, bucket: &'a str, key: &'a str) -> Asked<'a, ()>;

    /// Deletes an object if it has this entity tag, as far as the origin knows that condition;
    /// nothing there is no error.
    ///
    /// # Errors
    /// `PreconditionFailed`.
    fn delete_version<'a>(&'a self, bucket: &'a str, key: &'a str, etag: &'a str) -> Asked<'a, ()>;

    /// Renames a file or a directory with all below it, in one step; `false` if the origin can't.
    ///
    /// # Errors
    /// `NoSuchKey`, `Exists`, `IsDirectory`, `NotDirectory`, `DirectoryNotEmpty`, `KeyTooLong`,
    /// `InvalidRequest`.
    fn rename<'a>(&'a self, rename: PathRename<'a>) -> Asked<'a, bool>;

    /// Makes a bucket.
    ///
    /// # Errors
    /// `BucketExists`, `TooManyBuckets`, `InvalidBucketName`.
    fn create_bucket<'a>(&'a self, bucket: &'a BucketName) -> Asked<'a, ()>;

    /// Deletes an empty bucket.
    ///
    /// # Errors
    /// `BucketNotEmpty`.
    fn delete_bucket<'a>(&'a self, bucket: &'a BucketName) -> Asked<'a, ()>;
}
