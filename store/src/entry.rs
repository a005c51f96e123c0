//! What is known of a bucket, of one object version, of an upload and its parts.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use md5::{Digest as _, Md5};

use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType, crc64_combine};
use crate::name::{AccountId, BucketName, ObjectKey, UploadId, VersionId};
use crate::time::Timestamp;

/// A bucket's number in the index; stays when the bucket is renamed, is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketId(pub u64);

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its number.
    pub id: BucketId,
    /// Its name, of all accounts' buckets the only one.
    pub name: BucketName,
    /// The account that made it.
    pub owner: AccountId,
    /// When it was made.
    pub created_at: Timestamp,
    /// The `LocationConstraint` it was made with.
    pub location: Option<String>,
}

/// An entity tag: an MD5, or the MD5 of parts' MD5s and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ETag {
    /// The 16 bytes shown as hexadecimal digits.
    pub digest: [u8; 16],
    /// 0 for an object put in one piece, else the number after the `-`.
    pub parts: u32,
}

impl ETag {
    /// Reads `hex` or `hex-N`, in quotes or not, of either case; anything else is no entity tag of
    /// ours.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches("W/").trim_matches('"');
        let (digits, parts) = match text.split_once('-') {
            Some((digits, parts)) => (digits, parts.parse().ok().filter(|parts| *parts > 0)?),
            None => (text, 0),
        };
        let mut digest = [0; 16];
        hex::decode_to_slice(digits, &mut digest).ok()?;
        Some(Self { digest, parts })
    }
}

impl ETag {
    /// The entity tag of an object at a remote origin: what it says if it could be one of ours,
    /// else a digest of it.
    fn of_origin(text: &str) -> Self {
        Self::parse(text).unwrap_or_else(|| Self {
            digest: Md5::digest(text).into(),
            parts: 0,
        })
    }
}

impl fmt::Display for ETag {
    /// Without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.digest))?;
        if self.parts > 0 {
            write!(f, "-{}", self.parts)
        } else {
            Ok(())
        }
    }
}

/// Entity headers that are kept with an object and returned as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Cache-Control`: the object's metadata, not a directive to this store.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`, verbatim.
    pub expires: Option<String>,
}

/// What a client gives with an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Entity headers.
    pub headers: Headers,
    /// User metadata: lower-case names without `x-amz-meta-`, and raw values, in the order given.
    pub user_metadata: Vec<(String, Vec<u8>)>,
    /// Tags, in the order given.
    pub tags: Vec<(String, String)>,
    /// Storage class other than `STANDARD`.
    pub storage_class: Option<String>,
}

/// What POSIX keeps of a file; `None` where neither face has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileAttributes {
    /// Type and permission bits, as `st_mode`.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Time of last change of the content.
    pub mtime: Option<Timestamp>,
    /// Time of last change of anything.
    pub ctime: Option<Timestamp>,
    /// Device number of a special file.
    pub rdev: Option<u32>,
}

/// A part of a completed multipart object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPart {
    /// The number it was uploaded as, 1 to 10,000.
    pub number: u16,
    /// Size in bytes.
    pub size: u64,
    /// The checksum it was uploaded with.
    pub checksum: Option<Vec<u8>>,
}

/// A data file's number: names it on disk, is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u64);

/// Bytes in a data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its number in the index; rows name it, so that bytes can move.
    pub id: u64,
    /// Where it is.
    pub file: FileId,
    /// Whether `file` is a segment.
    pub packed: bool,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// CRC-64/NVME of the bytes; `None` until it is computed behind a deferred publish.
    pub crc64: Option<u64>,
}

/// The index's knowledge of one version of a key.
#[derive(Debug)]
pub struct Entry {
    /// Number of the version: none is used twice, and in a store later versions have higher ones.
    pub id: u64,
    /// Inode number on the mount: the version's number, or that of the version it changed in
    /// place.
    pub ino: u64,
    /// Where it is.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// Its version id where the bucket has versions.
    pub version_id: Option<VersionId>,
    /// Whether it stands for the absence of an object.
    pub delete_marker: bool,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: ETag,
    /// S3's `Last-Modified`.
    pub modified_at: Timestamp,
    /// Who put it.
    pub owner: AccountId,
    /// What the client gave with it.
    pub attributes: Attributes,
    /// Its checksum.
    pub checksum: Option<Checksum>,
    /// Its parts, if it was uploaded in parts.
    pub parts: Vec<ObjectPart>,
    /// What POSIX keeps of it.
    pub file: FileAttributes,
    /// Where its bytes are, in order; none of a remote origin's.
    pub extents: Vec<Extent>,
    /// What a remote origin knows it by; `None` in a store.
    pub origin: Option<Box<OriginVersion>>,
    /// Whether its bytes have been checked against their CRC since the store was opened.
    pub(crate) verified: AtomicBool,
}

impl Entry {
    /// CRC-64/NVME of all its bytes; `None` if it is not known of all, or none are in a store.
    pub fn crc64(&self) -> Option<u64> {
        let (first, rest) = self.extents.split_first()?;
        rest.iter().try_fold(first.crc64?, |before, extent| {
            Some(crc64_combine(before, extent.crc64?, extent.len))
        })
    }

    /// Whether its bytes have been checked against their CRC since the store was opened.
    pub fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Relaxed)
    }

    /// Notes that all its bytes were read, and were right.
    pub fn note_verified(&self) {
        self.verified.store(true, Ordering::Relaxed);
    }
}

/// What a remote origin knows a version by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginVersion {
    /// Its entity tag as the origin wrote it, without quotes.
    pub etag: String,
    /// Its version id, if it is to be asked for by that.
    pub version_id: Option<String>,
}

/// What is to be said of a version at a remote origin; see [`Entry`] for what each field means.
#[derive(Clone, Debug)]
pub struct OriginEntry {
    /// [`Entry::id`].
    pub id: u64,
    /// [`Entry::ino`].
    pub ino: u64,
    /// [`Entry::bucket`].
    pub bucket: BucketId,
    /// [`Entry::key`].
    pub key: ObjectKey,
    /// [`Entry::size`].
    pub size: u64,
    /// [`Entry::modified_at`].
    pub modified_at: Timestamp,
    /// [`Entry::owner`].
    pub owner: AccountId,
    /// [`Entry::attributes`].
    pub attributes: Attributes,
    /// [`Entry::file`].
    pub file: FileAttributes,
    /// [`Entry::origin`].
    pub version: OriginVersion,
}

impl From<OriginEntry> for Entry {
    /// An entry whose bytes are not in a store.
    fn from(origin: OriginEntry) -> Self {
        Self {
            id: origin.id,
            ino: origin.ino,
            bucket: origin.bucket,
            key: origin.key,
            version_id: None,
            delete_marker: false,
            size: origin.size,
            etag: ETag::of_origin(&origin.version.etag),
            modified_at: origin.modified_at,
            owner: origin.owner,
            attributes: origin.attributes,
            checksum: None,
            parts: Vec::new(),
            file: origin.file,
            extents: Vec::new(),
            origin: Some(Box::new(origin.version)),
            // There is no CRC to check it against here.
            verified: AtomicBool::new(true),
        }
    }
}

impl Entry {
    /// What a listing shows of it.
    pub fn listed(&self) -> ListedEntry {
        let checksum = self.checksum.as_ref();
        ListedEntry {
            key: self.key.clone(),
            size: self.size,
            etag: self.etag,
            modified_at: self.modified_at,
            storage_class: self.attributes.storage_class.clone(),
            checksum: checksum.map(|checksum| (checksum.algorithm, checksum.kind)),
            owner: self.owner.clone(),
        }
    }
}

/// What a listing shows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedEntry {
    /// Its key.
    pub key: ObjectKey,
    /// Size in bytes.
    pub size: u64,
    /// Entity tag.
    pub etag: ETag,
    /// S3's `Last-Modified`.
    pub modified_at: Timestamp,
    /// Storage class other than `STANDARD`.
    pub storage_class: Option<String>,
    /// Algorithm and type of its checksum.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Who put it.
    pub owner: AccountId,
}

/// A multipart upload in progress.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its identifier.
    pub id: UploadId,
    /// Where the object will be.
    pub bucket: BucketId,
    /// Its key.
    pub key: ObjectKey,
    /// When it was initiated.
    pub initiated_at: Timestamp,
    /// Who initiated it.
    pub owner: AccountId,
    /// What the client gave with it.
    pub attributes: Attributes,
    /// The checksum its parts and the object are to have.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// The data file that its parts share.
    pub(crate) file: FileId,
}

/// A part of an upload in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, 1 to 10,000.
    pub number: u16,
    /// Size in bytes.
    pub size: u64,
    /// MD5 of its bytes.
    pub etag: ETag,
    /// The checksum it was uploaded with.
    pub checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
    /// When it was uploaded.
    pub modified_at: Timestamp,
}

/// An account: who owns buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Canonical id.
    pub id: AccountId,
    /// The name people use.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A secret that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An access key of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// The public part.
    pub id: String,
    /// The secret part.
    pub secret: Secret,
    /// Whose it is.
    pub account: AccountId,
    /// When it was made.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_what_it_prints() {
        let plain = ETag {
            digest: [0xab; 16],
            parts: 0,
        };
        let multipart = ETag {
            digest: [0xab; 16],
            parts: 12,
        };
        for etag in [plain, multipart] {
            assert_eq!(ETag::parse(&etag.to_string()), Some(etag));
            assert_eq!(
                ETag::parse(&format!("\"{etag}\"").to_uppercase()),
                Some(etag)
            );
        }
        assert_ne!(ETag::of_origin("abc"), ETag::of_origin("abd"));
        assert_eq!(ETag::of_origin(&multipart.to_string()), multipart);
        assert_eq!(ETag::parse("\"abc\""), None);
        assert_eq!(ETag::parse(""), None);
    }
}
