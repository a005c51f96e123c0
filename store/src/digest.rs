//! Digests of object bytes, computed in one pass while the bytes arrive.
//!
//! CRC-64/NVME is always among them: it is the store's own check of every extent. MD5 is the
//! `ETag` of objects put in one piece. The others are computed when a client asks for them:
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>.

use std::fmt;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use crate::md5_pool::{Hashing, Haste, Md5Pool};
use crate::md5_stream::Md5Stream;

/// A checksum algorithm of S3's `x-amz-checksum-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (IEEE 802.3), 4 bytes.
    Crc32,
    /// CRC-32C (Castagnoli), 4 bytes.
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// Bytes of a value.
    pub const fn value_len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Whether the value of a whole can be computed from the values and lengths of its parts.
    pub const fn composes(self) -> bool {
        matches!(self, Self::Crc32 | Self::Crc32c | Self::Crc64Nvme)
    }

    const fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// The value of the concatenation of two pieces; `None` where it can't be had without the
    /// bytes.
    ///
    /// `second_len` is the length of the second piece in bytes.
    pub fn combine(self, first: &[u8], second: &[u8], second_len: u64) -> Option<Vec<u8>> {
        let algorithm = self.crc()?;
        let combined =
            crc_fast::checksum_combine(algorithm, from_be(first), from_be(second), second_len);
        Some(combined.to_be_bytes()[8 - self.value_len()..].to_vec())
    }

    /// The digest of `bytes`, big-endian where it is a number.
    pub fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Crc32 | Self::Crc32c | Self::Crc64Nvme => {
                let Some(algorithm) = self.crc() else {
                    unreachable!("all three are CRCs")
                };
                crc_fast::checksum(algorithm, bytes).to_be_bytes()[8 - self.value_len()..].to_vec()
            }
        }
    }
}

fn from_be(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// CRC-64/NVME of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// CRC-64/NVME of the concatenation of two pieces, the second of `second_len` bytes.
pub fn crc64_combine(first: u64, second: u64, second_len: u64) -> u64 {
    crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, first, second, second_len)
}

/// Whether a multipart object's checksum is of all its bytes or of its parts' checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumType {
    /// Of all bytes.
    FullObject,
    /// Of the concatenated values of the parts.
    Composite,
}

/// A checksum that is kept with an object or a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// Of what.
    pub kind: ChecksumType,
    /// The value, big-endian where it is a number.
    pub value: Vec<u8>,
    /// Number of parts of a composite value, else 0.
    pub parts: u32,
}

impl Checksum {
    /// A checksum of all bytes.
    pub fn full(algorithm: ChecksumAlgorithm, value: Vec<u8>) -> Self {
        Self {
            algorithm,
            kind: ChecksumType::FullObject,
            value,
            parts: 0,
        }
    }
}

/// Which digests to compute besides CRC-64/NVME.
#[expect(
    clippy::struct_excessive_bools,
    reason = "a set, with a name for each member"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestSet {
    /// MD5, the `ETag` of an object put in one piece.
    pub md5: bool,
    /// CRC-32.
    pub crc32: bool,
    /// CRC-32C.
    pub crc32c: bool,
    /// SHA-1.
    pub sha1: bool,
    /// SHA-256: a checksum, and the hash of a signed payload.
    pub sha256: bool,
}

impl DigestSet {
    /// What every S3 upload needs.
    pub const MD5: Self = Self {
        md5: true,
        crc32: false,
        crc32c: false,
        sha1: false,
        sha256: false,
    };

    /// The same set with `algorithm` in it.
    #[must_use]
    pub fn with(mut self, algorithm: ChecksumAlgorithm) -> Self {
        match algorithm {
            ChecksumAlgorithm::Crc32 => self.crc32 = true,
            ChecksumAlgorithm::Crc32c => self.crc32c = true,
            ChecksumAlgorithm::Crc64Nvme => {}
            ChecksumAlgorithm::Sha1 => self.sha1 = true,
            ChecksumAlgorithm::Sha256 => self.sha256 = true,
        }
        self
    }
}

/// The digests of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// CRC-64/NVME, always.
    pub crc64: u64,
    /// MD5, if asked for.
    pub md5: Option<[u8; 16]>,
    /// CRC-32, if asked for.
    pub crc32: Option<[u8; 4]>,
    /// CRC-32C, if asked for.
    pub crc32c: Option<[u8; 4]>,
    /// SHA-1, if asked for.
    pub sha1: Option<[u8; 20]>,
    /// SHA-256, if asked for.
    pub sha256: Option<[u8; 32]>,
}

impl Digests {
    /// The value of one checksum, if it was computed.
    pub fn checksum(&self, algorithm: ChecksumAlgorithm) -> Option<Vec<u8>> {
        match algorithm {
            ChecksumAlgorithm::Crc32 => self.crc32.map(|value| value.to_vec()),
            ChecksumAlgorithm::Crc32c => self.crc32c.map(|value| value.to_vec()),
            ChecksumAlgorithm::Crc64Nvme => Some(self.crc64.to_be_bytes().to_vec()),
            ChecksumAlgorithm::Sha1 => self.sha1.map(|value| value.to_vec()),
            ChecksumAlgorithm::Sha256 => self.sha256.map(|value| value.to_vec()),
        }
    }
}

/// Computes a set of digests over a body that comes in pieces.
#[derive(Clone)]
pub struct Hasher {
    crc64: Crc,
    md5: Option<Md5Stream>,
    crc32: Option<Crc>,
    crc32c: Option<Crc>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

impl Hasher {
    /// Starts with no bytes seen.
    pub fn new(set: DigestSet) -> Self {
        Self {
            crc64: Crc::new(CrcAlgorithm::Crc64Nvme),
            md5: set.md5.then(Md5Stream::new),
            crc32: set.crc32.then(|| Crc::new(CrcAlgorithm::Crc32IsoHdlc)),
            crc32c: set.crc32c.then(|| Crc::new(CrcAlgorithm::Crc32Iscsi)),
            sha1: set.sha1.then(Sha1::new),
            sha256: set.sha256.then(Sha256::new),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc64.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        for crc in [&mut self.crc32, &mut self.crc32c].into_iter().flatten() {
            crc.update(bytes);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
    }

    /// Takes the next pieces and does `work`; their MD5 is computed meanwhile, together with that
    /// of other bodies. Blocks.
    pub(crate) fn update_blocking<T>(
        &mut self,
        pool: &Md5Pool,
        pieces: &[Bytes],
        haste: Haste,
        work: impl FnOnce() -> T,
    ) -> T {
        let md5 = self
            .md5
            .take()
            .map(|stream| pool.hash(stream, pieces, haste));
        for piece in pieces {
            self.update(piece);
        }
        let done = work();
        self.md5 = md5.map(Hashing::wait_blocking);
        done
    }

    /// The digests of all bytes taken.
    pub fn finish(self) -> Digests {
        let last4 = |crc: Crc| {
            let [.., a, b, c, d] = crc.finalize().to_be_bytes();
            [a, b, c, d]
        };
        Digests {
            crc64: self.crc64.finalize(),
            md5: self.md5.map(Md5Stream::finish),
            crc32: self.crc32.map(last4),
            crc32c: self.crc32c.map(last4),
            sha1: self.sha1.map(|sha1| sha1.finalize().into()),
            sha256: self.sha256.map(|sha256| sha256.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_the_check_string_are_the_published_ones() {
        let set = ChecksumAlgorithm::ALL
            .into_iter()
            .fold(DigestSet::MD5, DigestSet::with);
        let mut hasher = Hasher::new(set);
        hasher.update(b"1234");
        hasher.update(b"56789");
        let digests = hasher.finish();
        assert_eq!(digests.crc32, Some(0xcbf4_3926_u32.to_be_bytes()));
        assert_eq!(digests.crc32c, Some(0xe306_9283_u32.to_be_bytes()));
        assert_eq!(digests.crc64, 0xae8b_1486_0a79_9888);
        assert_eq!(
            hex::encode(digests.md5.unwrap()),
            "25f9e794323b453885f5181f1b624d0b"
        );
        assert_eq!(
            hex::encode(digests.sha1.unwrap()),
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441"
        );
        for algorithm in ChecksumAlgorithm::ALL {
            assert_eq!(
                digests.checksum(algorithm),
                Some(algorithm.digest(b"123456789")),
                "{algorithm:?}"
            );
        }
    }

    #[test]
    fn crcs_of_parts_combine_to_the_crc_of_the_whole() {
        let (first, second) = (vec![b'a'; 5 << 20], b"hello world");
        let whole: Vec<u8> = first.iter().chain(second).copied().collect();
        for algorithm in ChecksumAlgorithm::ALL
            .into_iter()
            .filter(|algorithm| algorithm.composes())
        {
            let combined =
                algorithm.combine(&algorithm.digest(&first), &algorithm.digest(second), 11);
            assert_eq!(combined, Some(algorithm.digest(&whole)), "{algorithm:?}");
        }
        assert_eq!(
            crc64_combine(crc64(&first), crc64(second), 11),
            crc64(&whole)
        );
    }
}
