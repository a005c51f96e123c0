//! What a remote origin is asked besides bytes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use forebay_store::api::Usage;
use forebay_store::entry::Headers;
use forebay_store::error::Result;
use forebay_store::name::BucketName;
use forebay_store::time::Timestamp;

/// What the origin answers, later.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag as the origin wrote it, without quotes.
    pub etag: String,
    /// `Last-Modified`.
    pub modified_at: Timestamp,
}

/// What `HeadObject` says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What a listing says too.
    pub listed: Listed,
    /// User metadata: lower-case names without `x-amz-meta-`.
    pub user_metadata: Vec<(String, Vec<u8>)>,
    /// Entity headers that it is stored with.
    pub headers: Headers,
    /// Storage class other than `STANDARD`.
    pub storage_class: Option<String>,
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListKeys {
    /// In which bucket.
    pub bucket: String,
    /// Only keys that begin so.
    pub prefix: String,
    /// Whether keys with a `/` after the prefix are told by what is before it.
    pub by_directory: bool,
    /// Where to go on.
    pub from: From,
    /// At most so many; the origin may give fewer.
    pub limit: u16,
    /// Whether heads are of use, if the origin tells them.
    pub heads: bool,
}

/// Where a listing goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// At the beginning.
    #[default]
    Start,
    /// After this key, which need not exist.
    After(String),
    /// Where the page ended that gave this continuation token.
    Token(String),
}

/// One page of a listing; keys and common prefixes are each in the order of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Objects.
    pub objects: Vec<Listed>,
    /// Common prefixes, with their slash.
    pub prefixes: Vec<String>,
    /// What to go on with; `None` if this is the last page.
    pub token: Option<String>,
    /// What looks at the objects would tell, if the origin told it.
    pub heads: Option<KeyHeads>,
}

/// The heads of a page's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyHeads {
    /// Of those objects of the page that have one.
    pub objects: Vec<Head>,
    /// Of the common prefixes, in their order: the object of just that key, if there is one.
    pub markers: Vec<Option<Head>>,
}

/// The names and heads of a remote origin.
///
/// # Errors
/// Every method: `NoSuchBucket`, `OriginDenied`, `OriginUnavailable` once trying again is given up,
/// `OriginAnswer`.
pub trait Catalog: fmt::Debug + Send + Sync + 'static {
    /// `HeadObject`; `None` if there is none of this key.
    fn head<'a>(&'a self, bucket: &'a str, key: &'a str) -> Asked<'a, Option<Head>>;

    /// `ListObjectsV2`.
    fn list<'a>(&'a self, list: &'a ListKeys) -> Asked<'a, Keys>;

    /// How much space there is, for who may list this bucket; `None` if the origin does not tell.
    fn space<'a>(&'a self, bucket: &'a str) -> Asked<'a, Option<Usage>>;

    /// `ListBuckets`: names and when they were made.
    fn buckets(&self) -> Asked<'_, Vec<(BucketName, Timestamp)>>;
}
