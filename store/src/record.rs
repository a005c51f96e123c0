//! What a data file says of itself, so that an index can be built from data alone.
//!
//! The same record stands in the head of a segment's record and in the extended attribute
//! (`user.forebay`) of a file of its own.

use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType};
use crate::entry::{
    Attributes, BucketId, ETag, Entry, Extent, FileAttributes, FileId, Headers, ObjectPart,
};
use crate::name::{AccountId, ObjectKey};
use crate::time::Timestamp;
use crate::write::Draft;

/// Largest label: what ext4, XFS and btrfs all keep in one extended attribute.
const LABEL_SIZE_MAX: usize = 3500;

/// An object version, as its data file describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) owner: String,
    pub(crate) id: u64,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) etag: ([u8; 16], u32),
    pub(crate) modified_at: i64,
    pub(crate) file: StoredFile,
    pub(crate) content_type: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) storage_class: Option<String>,
    pub(crate) details: Option<Details>,
    /// Where the bytes are: number, packed, offset, length, CRC. Empty in a segment, whose record
    /// they follow.
    pub(crate) extents: Vec<(u64, bool, u64, u64, Option<u64>)>,
}

/// POSIX attributes as they are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredFile {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) mtime: Option<i64>,
    pub(crate) ctime: Option<i64>,
    pub(crate) rdev: Option<u32>,
}

impl From<FileAttributes> for StoredFile {
    fn from(file: FileAttributes) -> Self {
        let FileAttributes {
            mode,
            uid,
            gid,
            mtime,
            ctime,
            rdev,
        } = file;
        Self {
            mode,
            uid,
            gid,
            mtime: mtime.map(|at| at.0),
            ctime: ctime.map(|at| at.0),
            rdev,
        }
    }
}

impl From<StoredFile> for FileAttributes {
    fn from(file: StoredFile) -> Self {
        let StoredFile {
            mode,
            uid,
            gid,
            mtime,
            ctime,
            rdev,
        } = file;
        Self {
            mode,
            uid,
            gid,
            mtime: mtime.map(Timestamp),
            ctime: ctime.map(Timestamp),
            rdev,
        }
    }
}

/// What most objects don't have, in one compact blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Details {
    content_disposition: Option<String>,
    content_encoding: Option<String>,
    content_language: Option<String>,
    expires: Option<String>,
    user_metadata: Vec<(String, Vec<u8>)>,
    tags: Vec<(String, String)>,
    checksum: Option<(u8, Vec<u8>, u32)>,
    parts: Vec<(u16, u64, Option<Vec<u8>>)>,
}

/// An algorithm and a type as one small number.
pub(crate) fn checksum_kind(algorithm: ChecksumAlgorithm, kind: ChecksumType) -> u8 {
    let algorithm = match algorithm {
        ChecksumAlgorithm::Crc32 => 0,
        ChecksumAlgorithm::Crc32c => 2,
        ChecksumAlgorithm::Crc64Nvme => 4,
        ChecksumAlgorithm::Sha1 => 6,
        ChecksumAlgorithm::Sha256 => 8,
    };
    algorithm + u8::from(kind == ChecksumType::Composite)
}

/// The reverse of [`checksum_kind`]; `None` for a number that stands for nothing.
pub(crate) fn parse_checksum_kind(number: u8) -> Option<(ChecksumAlgorithm, ChecksumType)> {
    let algorithm = *ChecksumAlgorithm::ALL.get(usize::from(number / 2))?;
    let kind = if number % 2 == 1 {
        ChecksumType::Composite
    } else {
        ChecksumType::FullObject
    };
    Some((algorithm, kind))
}

impl Details {
    /// What an entry has of it; `None` if nothing.
    pub(crate) fn of(
        attributes: &Attributes,
        checksum: Option<&Checksum>,
        parts: &[ObjectPart],
    ) -> Option<Self> {
        let headers = &attributes.headers;
        let details = Self {
            content_disposition: headers.content_disposition.clone(),
            content_encoding: headers.content_encoding.clone(),
            content_language: headers.content_language.clone(),
            expires: headers.expires.clone(),
            user_metadata: attributes.user_metadata.clone(),
            tags: attributes.tags.clone(),
            checksum: checksum.map(|sum| {
                (
                    checksum_kind(sum.algorithm, sum.kind),
                    sum.value.clone(),
                    sum.parts,
                )
            }),
            parts: parts
                .iter()
                .map(|part| (part.number, part.size, part.checksum.clone()))
                .collect(),
        };
        (details != Self::default()).then_some(details)
    }

    /// Gives back what it was made of, with what is kept in columns of their own.
    pub(crate) fn into_parts(
        self,
        content_type: Option<String>,
        cache_control: Option<String>,
        storage_class: Option<String>,
    ) -> (Attributes, Option<Checksum>, Vec<ObjectPart>) {
        let headers = Headers {
            content_type,
            cache_control,
            content_disposition: self.content_disposition,
            content_encoding: self.content_encoding,
            content_language: self.content_language,
            expires: self.expires,
        };
        let attributes = Attributes {
            headers,
            user_metadata: self.user_metadata,
            tags: self.tags,
            storage_class,
        };
        let checksum = self.checksum.and_then(|(kind, value, parts)| {
            let (algorithm, kind) = parse_checksum_kind(kind)?;
            Some(Checksum {
                algorithm,
                kind,
                value,
                parts,
            })
        });
        let part = |(number, size, checksum)| ObjectPart {
            number,
            size,
            checksum,
        };
        (
            attributes,
            checksum,
            self.parts.into_iter().map(part).collect(),
        )
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data always encodes")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

impl Record {
    /// Describes an entry whose bytes follow the record.
    pub(crate) fn of(entry: &Entry, bucket: &str) -> Self {
        let headers = &entry.attributes.headers;
        Self {
            bucket: bucket.to_owned(),
            key: entry.key.as_str().to_owned(),
            owner: entry.owner.as_str().to_owned(),
            id: entry.id,
            ino: entry.ino,
            size: entry.size,
            etag: (entry.etag.digest, entry.etag.parts),
            modified_at: entry.modified_at.0,
            file: entry.file.into(),
            content_type: headers.content_type.clone(),
            cache_control: headers.cache_control.clone(),
            storage_class: entry.attributes.storage_class.clone(),
            details: Details::of(&entry.attributes, entry.checksum.as_ref(), &entry.parts),
            extents: Vec::new(),
        }
    }

    /// Describes a version that is going to be published, whose extents are yet to be added.
    pub(crate) fn of_draft(draft: &Draft, bucket: &str, modified_at: Timestamp) -> Self {
        let headers = &draft.attributes.headers;
        Self {
            bucket: bucket.to_owned(),
            key: draft.key.as_str().to_owned(),
            owner: draft.owner.as_str().to_owned(),
            id: draft.id,
            ino: draft.ino,
            size: draft.size,
            etag: (draft.etag.digest, draft.etag.parts),
            modified_at: modified_at.0,
            file: draft.file.into(),
            content_type: headers.content_type.clone(),
            cache_control: headers.cache_control.clone(),
            storage_class: draft.attributes.storage_class.clone(),
            details: Details::of(&draft.attributes, draft.checksum.as_ref(), &draft.parts),
            extents: Vec::new(),
        }
    }

    pub(crate) fn add_extent(&mut self, extent: &Extent) {
        self.extents.push((
            extent.file.0,
            extent.packed,
            extent.offset,
            extent.len,
            extent.crc64,
        ));
    }

    /// The version it describes, with its bytes in `extents`.
    pub(crate) fn entry(
        &self,
        bucket: BucketId,
        key: ObjectKey,
        owner: AccountId,
        extents: Vec<Extent>,
    ) -> Entry {
        let details = self.details.clone().unwrap_or_default();
        let (attributes, checksum, parts) = details.into_parts(
            self.content_type.clone(),
            self.cache_control.clone(),
            self.storage_class.clone(),
        );
        Entry {
            id: self.id,
            ino: self.ino,
            bucket,
            key,
            version_id: None,
            delete_marker: false,
            size: self.size,
            etag: self.etag(),
            modified_at: Timestamp(self.modified_at),
            owner,
            attributes,
            checksum,
            parts,
            file: self.file.into(),
            extents,
            origin: None,
            verified: AtomicBool::new(true),
        }
    }

    pub(crate) fn etag(&self) -> ETag {
        ETag {
            digest: self.etag.0,
            parts: self.etag.1,
        }
    }

    /// The extents it names; their numbers in an index are yet to be given.
    pub(crate) fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let extent = |&(file, packed, offset, len, crc64)| Extent {
            id: 0,
            file: FileId(file),
            packed,
            offset,
            len,
            crc64,
        };
        self.extents.iter().map(extent)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data always encodes")
    }

    /// As an extended attribute: without details where it would not fit, `None` where even that is
    /// too long.
    pub(crate) fn encode_label(&self) -> Option<Vec<u8>> {
        let whole = self.encode();
        if whole.len() <= LABEL_SIZE_MAX {
            return Some(whole);
        }
        let short = Self {
            details: None,
            ..self.clone()
        };
        Some(short.encode()).filter(|label| label.len() <= LABEL_SIZE_MAX)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}
