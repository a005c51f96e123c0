//! Names that were checked once, at the edge.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::limits::KEY_LEN_MAX;

/// A bucket's name: 3 to 63 bytes of lower-case letters, digits, `.`, `-` and `_`.
///
/// Rules: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>, and `_`
/// besides, which other S3 services take. What a face forbids beyond that is that face's matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(Arc<str>);

impl BucketName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Error::InvalidBucketName`].
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidBucketName(text.to_owned());
        let bytes = text.as_bytes();
        let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let all_known = bytes
            .iter()
            .all(|b| alphanumeric(b) || matches!(b, b'.' | b'-' | b'_'));
        let ends =
            bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
        if !(3..=63).contains(&bytes.len()) || !all_known || !ends {
            return Err(invalid());
        }
        if ["..", ".-", "-."].iter().any(|pair| text.contains(pair)) {
            return Err(invalid());
        }
        if text.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(invalid());
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's key: 1 to [`KEY_LEN_MAX`] bytes of UTF-8, compared as bytes.
///
/// Any such string is a key, also those that no path can name (`a//b`, `..`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// Checks a key.
    ///
    /// # Errors
    /// [`Error::KeyEmpty`] or [`Error::KeyTooLong`]; never looks at what is stored.
    pub fn parse(text: &str) -> Result<Self> {
        match text.len() {
            0 => Err(Error::KeyEmpty),
            len if len > KEY_LEN_MAX => Err(Error::KeyTooLong { len }),
            _ => Ok(Self(text.into())),
        }
    }

    /// A key read back from the index, where only checked keys are written.
    pub(crate) fn trusted(text: &str) -> Self {
        debug_assert!(!text.is_empty());
        Self(text.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it names a directory: it ends in `/`.
    pub fn is_marker(&self) -> bool {
        self.0.ends_with('/')
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A version's identifier as clients see it: opaque, URL-safe ASCII; `null` in a bucket without
/// versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VersionId(String);

impl VersionId {
    /// Takes a version id that a client sent.
    ///
    /// # Errors
    /// [`Error::InvalidVersionId`] if it is neither `null` nor 32 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self> {
        let hex = text.len() == 32
            && text
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex || text == "null" {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::InvalidVersionId(text.to_owned()))
        }
    }

    /// The id of an object that has no version of its own.
    pub fn null() -> Self {
        Self("null".to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A multipart upload's identifier: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(pub(crate) [u8; 16]);

impl UploadId {
    /// Reads an id that a client sent; anything else than 32 hexadecimal digits names no upload.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// An account's canonical id: 64 hexadecimal digits, made at random when the account is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(Arc<str>);

impl AccountId {
    /// Takes the canonical id of an account.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_rules() {
        for good in [
            "abc",
            "a-b",
            "a.b.c",
            "qa.objectlock.002",
            "my_old_bucket",
            &"a".repeat(63),
        ] {
            assert!(BucketName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "ab",
            "Abc",
            "a..b",
            "a.-b",
            "a-.b",
            "-ab",
            "ab-",
            "1.2.3.4",
            "a b",
            &"a".repeat(64),
            "é23",
        ] {
            assert!(BucketName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_of_1025_bytes_is_too_long() {
        assert!(ObjectKey::parse(&"k".repeat(1024)).is_ok());
        assert!(matches!(
            ObjectKey::parse(&"k".repeat(1025)),
            Err(Error::KeyTooLong { len: 1025 })
        ));
        assert!(matches!(ObjectKey::parse(""), Err(Error::KeyEmpty)));
    }

    #[test]
    fn an_upload_id_is_what_it_prints() {
        let id = UploadId([7; 16]);
        assert_eq!(UploadId::parse(&id.to_string()), Some(id));
        assert_eq!(UploadId::parse("zz"), None);
    }
}
