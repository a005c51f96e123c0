//! What can go wrong in the store.

use std::io;
use std::path::{Path, PathBuf};

use crate::name::{AccountId, BucketName, ObjectKey};

/// Result of the store's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in the store.
///
/// No HTTP status and no errno: each face translates, in one table of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // What the caller asked for.
    /// The bucket's name breaks the rules.
    #[error("invalid bucket name: {0}")]
    InvalidBucketName(String),
    /// A key of no bytes.
    #[error("the key is empty")]
    KeyEmpty,
    /// A key over the limit.
    #[error("a key of {len} bytes is too long")]
    KeyTooLong {
        /// Bytes of the key.
        len: usize,
    },
    /// A version id that no store makes.
    #[error("invalid version id: {0}")]
    InvalidVersionId(String),
    /// No bucket has this name.
    #[error("no such bucket: {0}")]
    NoSuchBucket(BucketName),
    /// The name is taken.
    #[error("bucket {name} exists already")]
    BucketExists {
        /// The bucket.
        name: BucketName,
        /// Who has it.
        owner: AccountId,
        /// Where it was made.
        location: Option<String>,
    },
    /// Objects are left in it.
    #[error("bucket {0} is not empty")]
    BucketNotEmpty(BucketName),
    /// The account has as many buckets as it may.
    #[error("too many buckets")]
    TooManyBuckets,
    /// No current object has this key.
    #[error("no such key: {0}")]
    NoSuchKey(ObjectKey),
    /// The key has no such version.
    #[error("no such version of {key}: {version}")]
    NoSuchVersion {
        /// The key.
        key: ObjectKey,
        /// The version asked for.
        version: String,
    },
    /// The upload was never made, completed or aborted.
    #[error("no such upload: {0}")]
    NoSuchUpload(String),
    /// A condition of the request does not hold.
    #[error("precondition failed: {0}")]
    PreconditionFailed(&'static str),
    /// Bytes over a limit.
    #[error("{size} bytes are more than the {max} allowed")]
    TooLarge {
        /// Bytes offered.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// A part named in a completion is missing or has another `ETag` or checksum.
    #[error("part {number} is missing or differs")]
    InvalidPart {
        /// Its number.
        number: u32,
    },
    /// The parts named in a completion are not in ascending order.
    #[error("the parts are not in ascending order")]
    InvalidPartOrder,
    /// A part that is not the last is smaller than 5 MiB.
    #[error("part {number} of {size} bytes is too small")]
    PartTooSmall {
        /// Its number.
        number: u32,
        /// Its size in bytes.
        size: u64,
    },
    /// A request that can't be met as it stands; the text says why.
    #[error("{0}")]
    InvalidRequest(&'static str),
    /// A digest or checksum differs from what was announced.
    #[error("the {what} differs from the one sent")]
    DigestMismatch {
        /// Which digest.
        what: &'static str,
    },
    /// No account or key has this name.
    #[error("no such account or access key: {0}")]
    NoSuchAccount(String),
    /// The account or access key exists.
    #[error("account or access key exists already: {0}")]
    AccountExists(String),

    // What a file system would say; only the mount's operations give these.
    /// The target exists and must not.
    #[error("{0} exists")]
    Exists(ObjectKey),
    /// A directory is where a file is wanted.
    #[error("{0} is a directory")]
    IsDirectory(ObjectKey),
    /// A file is where a directory is wanted.
    #[error("{0} is not a directory")]
    NotDirectory(ObjectKey),
    /// The directory has entries.
    #[error("{0} is not empty")]
    DirectoryNotEmpty(ObjectKey),
    /// The entry changed since the caller looked.
    #[error("{0} was replaced meanwhile")]
    Superseded(ObjectKey),

    // What a remote origin did.
    /// The origin does not let us.
    #[error("the origin refuses: {0}")]
    OriginDenied(String),
    /// The origin can't be reached, fails or is too slow.
    #[error("the origin is unavailable: {0}")]
    OriginUnavailable(String),
    /// What the origin answered makes no sense.
    #[error("the origin's answer is wrong: {0}")]
    OriginAnswer(String),
    /// A change that can't be made at this origin, or not from here.
    #[error("{0} is not possible on this origin")]
    ReadOnly(&'static str),

    // What the machine did.
    /// A call to the disk failed.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The index failed.
    #[error("index: {action}")]
    Index {
        /// What was tried.
        action: &'static str,
        /// What `SQLite` said.
        source: rusqlite::Error,
    },
    /// Bytes read are not the bytes written.
    #[error("{}: CRC-64/NVME of {len} bytes at {offset} is {found:016x}, the index has {expected:016x}", path.display())]
    Corrupt {
        /// The data file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// How many bytes.
        len: u64,
        /// The checksum on record.
        expected: u64,
        /// The checksum of what was read.
        found: u64,
    },
    /// The index holds what no code writes.
    #[error("the index is damaged: {0}")]
    IndexDamaged(String),
    /// An earlier sync failed, so what is on the disk is unknown.
    #[error("a sync of {} failed earlier; writes are refused until the store is opened again", path.display())]
    SyncFailedEarlier {
        /// The file whose sync failed.
        path: PathBuf,
    },
    /// An earlier sync of the file that the upload's parts share failed, so which parts are safe is
    /// unknown.
    #[error("parts of upload {0} were lost when the disk failed: abort it and begin another")]
    UploadDamaged(String),
    /// Another process has the data directory.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// The data directory was written by a newer release.
    #[error("{} has format {found}, this release knows up to {known}", path.display())]
    FormatTooNew {
        /// The data directory.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest this release reads.
        known: i64,
    },
    /// The store is closing or its committer has stopped.
    #[error("the store is closed")]
    Closed,
}

/// Adds what was tried on what to an [`io::Error`].
pub(crate) trait IoContext<T> {
    fn io(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn io(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

/// Adds what was tried to a [`rusqlite::Error`].
pub(crate) trait IndexContext<T> {
    fn index(self, action: &'static str) -> Result<T>;
}

impl<T> IndexContext<T> for rusqlite::Result<T> {
    fn index(self, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Index { action, source })
    }
}
