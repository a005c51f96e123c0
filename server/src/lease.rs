//! Leases: what lets a node answer reads of a version without asking for each.
//!
//! A node that proves the cluster's key and passes a client's signed read on gets, beside the head
//! of the answer, a lease in [`LEASE_HEADER`]: what the server knows of the version, and the key
//! that verifies what this client signs. With both the node decides further reads as the server
//! would, for as long as it is told of all changes since ([`Lease::position`]).
//!
//! The signing key is the one that `SigV4` derives from the client's secret for a day and a region;
//! the secret itself never leaves the server. A lease is sealed with XChaCha20-Poly1305, under a
//! key that is derived from the cluster's, with a random nonce; what is sealed along is the proof
//! that the node sent with its question, so that a lease is good as the answer to that one alone:
//!
//! ```text
//! base64url( nonce (24 bytes), XChaCha20-Poly1305(key, nonce, postcard(Lease), proof) )
//! ```
//!
//! # Invariants
//! 1. No key is in a lease but sealed, nor in any log.
//! 2. What is looked up for a lease is looked up after its position was taken.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use forebay_cache::cluster::ClusterKey;
use forebay_store::digest::{Checksum, ChecksumAlgorithm, ChecksumType};
use forebay_store::entry::{
    AccessKey, Account, Attributes, BucketId, ETag, Entry, FileAttributes, Headers, OriginEntry,
    OriginVersion,
};
use forebay_store::event::Position;
use forebay_store::name::{AccountId, ObjectKey, VersionId};
use forebay_store::time::Timestamp;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::auth::{Credential, SigningKey};

/// The lease, in answers.
pub(crate) const LEASE_HEADER: HeaderName = HeaderName::from_static("x-forebay-lease");

/// What the key that seals is derived for.
pub(crate) const LABEL: &str = "lease 1";
/// Longest lease as it is sent, in bytes: many readers of heads take no more than 16 KiB in all.
const SENT_MAX: usize = 8 << 10;
const NONCE_LEN: usize = 24;

/// Leave to answer reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Where the change feed was before anything was looked up.
    pub(crate) position: Position,
    /// What time it was at the server, in seconds since 1970.
    pub(crate) now_s: i64,
    /// Whom it lets read.
    pub(crate) signer: LeasedKey,
    /// What.
    pub(crate) object: LeasedObject,
}

/// What verifies the signatures of one access key, of one day and region.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeasedKey {
    /// Its id.
    pub(crate) key_id: String,
    /// `yyyymmdd`.
    pub(crate) date: String,
    /// The region that is signed for.
    pub(crate) region: String,
    /// The account that it belongs to.
    pub(crate) account: String,
    bytes: [u8; 32],
}

impl fmt::Debug for LeasedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedKey")
            .field("key_id", &self.key_id)
            .field("date", &self.date)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl LeasedKey {
    /// Of the scope that a client has signed for.
    pub(crate) fn derive(key: &AccessKey, account: &Account, claimed: &Credential<'_>) -> Self {
        Self {
            key_id: key.id.clone(),
            date: claimed.date.to_owned(),
            region: claimed.region.to_owned(),
            account: account.id.as_str().to_owned(),
            bytes: SigningKey::derive_bytes(&key.secret.0, claimed.date, claimed.region),
        }
    }

    /// What verifies.
    pub(crate) fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.bytes)
    }
}

/// What a server knows of a version, as far as the answers to reads show it. Parts are left out: a
/// read by part number is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeasedObject {
    /// The bucket's name.
    pub(crate) bucket: String,
    /// The account that the bucket belongs to.
    pub(crate) bucket_owner: String,
    /// The key.
    pub(crate) key: String,
    version_id: Option<String>,
    size: u64,
    etag: [u8; 16],
    etag_parts: u32,
    modified_at_ns: i64,
    /// Type, cache control, disposition, encoding, language, expiry.
    headers: [Option<String>; 6],
    user_metadata: Vec<(String, Vec<u8>)>,
    tags: Vec<(String, String)>,
    storage_class: Option<String>,
    checksum: Option<LeasedChecksum>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LeasedChecksum {
    /// Place in [`ChecksumAlgorithm::ALL`].
    algorithm: u8,
    is_composite: bool,
    value: Vec<u8>,
    parts: u32,
}

impl LeasedChecksum {
    fn new(checksum: &Checksum) -> Option<Self> {
        let place = |known: &ChecksumAlgorithm| *known == checksum.algorithm;
        let place = ChecksumAlgorithm::ALL.iter().position(place)?;
        Some(Self {
            algorithm: u8::try_from(place).ok()?,
            is_composite: checksum.kind == ChecksumType::Composite,
            value: checksum.value.clone(),
            parts: checksum.parts,
        })
    }

    fn checksum(&self) -> Option<Checksum> {
        Some(Checksum {
            algorithm: *ChecksumAlgorithm::ALL.get(usize::from(self.algorithm))?,
            kind: if self.is_composite {
                ChecksumType::Composite
            } else {
                ChecksumType::FullObject
            },
            value: self.value.clone(),
            parts: self.parts,
        })
    }
}

impl LeasedObject {
    /// Of a version in this bucket.
    pub(crate) fn new(bucket: &str, bucket_owner: &AccountId, entry: &Entry) -> Self {
        let attributes = &entry.attributes;
        let Headers {
            content_type,
            cache_control,
            content_disposition,
            content_encoding,
            content_language,
            expires,
        } = attributes.headers.clone();
        Self {
            bucket: bucket.to_owned(),
            bucket_owner: bucket_owner.as_str().to_owned(),
            key: entry.key.as_str().to_owned(),
            version_id: entry.version_id.as_ref().map(|id| id.as_str().to_owned()),
            size: entry.size,
            etag: entry.etag.digest,
            etag_parts: entry.etag.parts,
            modified_at_ns: entry.modified_at.0,
            headers: [
                content_type,
                cache_control,
                content_disposition,
                content_encoding,
                content_language,
                expires,
            ],
            user_metadata: attributes.user_metadata.clone(),
            tags: attributes.tags.clone(),
            storage_class: attributes.storage_class.clone(),
            checksum: entry.checksum.as_ref().and_then(LeasedChecksum::new),
        }
    }

    /// The version as an entry, without parts and without a place where its bytes are; `None` if it
    /// can't be one of a server's.
    pub(crate) fn entry(self) -> Option<Entry> {
        let [
            content_type,
            cache_control,
            content_disposition,
            content_encoding,
            content_language,
            expires,
        ] = self.headers;
        let etag = ETag {
            digest: self.etag,
            parts: self.etag_parts,
        };
        let checksum = match &self.checksum {
            Some(checksum) => Some(checksum.checksum()?),
            None => None,
        };
        let version_id = self.version_id;
        let mut entry = Entry::from(OriginEntry {
            id: 0,
            ino: 0,
            bucket: BucketId(0),
            key: ObjectKey::parse(&self.key).ok()?,
            size: self.size,
            modified_at: Timestamp(self.modified_at_ns),
            owner: AccountId::new(&self.bucket_owner),
            attributes: Attributes {
                headers: Headers {
                    content_type,
                    cache_control,
                    content_disposition,
                    content_encoding,
                    content_language,
                    expires,
                },
                user_metadata: self.user_metadata,
                tags: self.tags,
                storage_class: self.storage_class,
            },
            file: FileAttributes::default(),
            version: OriginVersion {
                etag: etag.to_string(),
                version_id: version_id.clone(),
            },
        });
        entry.version_id = match version_id {
            Some(id) => Some(VersionId::parse(&id).ok()?),
            None => None,
        };
        entry.checksum = checksum;
        Some(entry)
    }
}

/// A lease as it is sealed.
#[derive(Serialize, Deserialize)]
struct Sealed {
    epoch: u64,
    sequence: u64,
    now_s: i64,
    signer: LeasedKey,
    object: LeasedObject,
}

/// Seals leases, and opens them.
#[derive(Clone)]
pub(crate) struct Sealer(Arc<XChaCha20Poly1305>);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    /// For all who have this key.
    pub(crate) fn new(key: &ClusterKey) -> Self {
        Self::with_derived(&key.derive(LABEL))
    }

    /// With the key that was derived for [`LABEL`].
    pub(crate) fn with_derived(key: &[u8; 32]) -> Self {
        Self(Arc::new(XChaCha20Poly1305::new(&(*key).into())))
    }

    /// Seals a lease for the node that asked with this proof; `None` if it is too large to be sent.
    pub(crate) fn seal(&self, lease: &Lease, proof: &HeaderValue) -> Option<HeaderValue> {
        let sealed = Sealed {
            epoch: lease.position.epoch,
            sequence: lease.position.sequence,
            now_s: lease.now_s,
            signer: lease.signer.clone(),
            object: lease.object.clone(),
        };
        let text = postcard::to_stdvec(&sealed).ok()?;
        let mut nonce = [0; NONCE_LEN];
        if let Err(err) = getrandom::fill(&mut nonce) {
            tracing::warn!(%err, "no lease can be sealed");
            return None;
        }
        let payload = Payload {
            msg: &text,
            aad: proof.as_bytes(),
        };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).ok()?;
        let sent = URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        if sent.len() > SENT_MAX {
            return None;
        }
        HeaderValue::try_from(sent).ok()
    }

    /// Opens the answer to a question that had this proof; `None` if it was not sealed for that.
    pub(crate) fn open(&self, sent: &HeaderValue, proof: &HeaderValue) -> Option<Lease> {
        let sent = URL_SAFE_NO_PAD.decode(sent.as_bytes()).ok()?;
        let (nonce, sealed) = sent.split_first_chunk::<NONCE_LEN>()?;
        let payload = Payload {
            msg: sealed,
            aad: proof.as_bytes(),
        };
        let text = self.0.decrypt(&XNonce::from(*nonce), payload).ok()?;
        let Sealed {
            epoch,
            sequence,
            now_s,
            signer,
            object,
        } = postcard::from_bytes(&text).ok()?;
        Some(Lease {
            position: Position { epoch, sequence },
            now_s,
            signer,
            object,
        })
    }
}

#[cfg(test)]
mod tests;
