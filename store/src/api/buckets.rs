//! What both faces need of objects: the buckets they are in, and their bytes.

use std::fmt;
use std::sync::Arc;

use super::{Answer, Face};
use crate::content::Content;
use crate::entry::{Bucket, Entry};
use crate::error::Result;
use crate::name::{AccountId, BucketName};

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

/// What both faces need of objects.
///
/// Every method is atomic. What a local store answered is what every later call, on either face,
/// sees; a remote origin's answer may be older, by [`Files::answer_age_max`](super::Files) at most.
pub trait Buckets: fmt::Debug + Send + Sync + 'static {
    /// Makes a bucket.
    ///
    /// # Errors
    /// `BucketExists`, whoever owns it; `TooManyBuckets`.
    fn create_bucket(&self, bucket: NewBucket) -> Answer<'_, Arc<Bucket>>;

    /// Looks a bucket up. Ready at once of a local store, which keeps all buckets in memory; of a
    /// remote origin it blocks, and is not for async workers.
    ///
    /// # Errors
    /// `NoSuchBucket`; what a remote origin may say.
    fn bucket(&self, name: &BucketName) -> Result<Arc<Bucket>>;

    /// Deletes an empty bucket, and its uploads in progress.
    ///
    /// # Errors
    /// `NoSuchBucket`, `BucketNotEmpty`.
    fn delete_bucket(&self, name: BucketName, face: Face) -> Answer<'_, ()>;

    /// Lists buckets by name; the flag says whether more follow.
    fn list_buckets(&self, list: ListBuckets) -> Answer<'_, (Vec<Arc<Bucket>>, bool)>;

    /// Opens an entry's bytes. They stay readable while the content is held, whatever happens to
    /// the key.
    ///
    /// # Errors
    /// `Io`; `Superseded` if the bytes are gone because the entry is an old one: look it up again.
    /// Of a remote origin, reading may say so later.
    fn open(&self, entry: &Arc<Entry>) -> Result<Content>;
}
