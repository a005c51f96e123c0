//! What must hold for a change: conditional writes and deletes.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html>. Evaluated
//! inside the transaction that makes the change, against the key's current version.

use crate::entry::{ETag, Entry};
use crate::error::{Error, Result};
use crate::name::ObjectKey;
use crate::time::Timestamp;

/// A condition on the current version of the key that is changed. All that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// `If-None-Match: *`: there is no object.
    pub absent: bool,
    /// `If-Match`: there is an object, and its entity tag is one of these; `Any` is `*`.
    pub matches: Option<ETagMatch>,
    /// `x-amz-if-match-size`: if there is an object, it has this size in bytes.
    pub size: Option<u64>,
    /// `x-amz-if-match-last-modified-time`: if there is an object, it was modified in this second.
    pub modified_at: Option<Timestamp>,
}

/// Entity tags that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ETagMatch {
    /// `*`.
    Any,
    /// A list. A tag that can't be one of ours matches nothing and is left out.
    OneOf(Vec<ETag>),
}

impl Precondition {
    /// Nothing must hold.
    pub const NONE: Self = Self {
        absent: false,
        matches: None,
        size: None,
        modified_at: None,
    };

    /// Checks the condition against what is there.
    ///
    /// # Errors
    /// `PreconditionFailed`; `NoSuchKey` for an `If-Match` where there is no object.
    pub fn check(&self, key: &ObjectKey, current: Option<&Entry>) -> Result<()> {
        let current = current.filter(|entry| !entry.delete_marker);
        if self.absent && current.is_some() {
            return Err(Error::PreconditionFailed("If-None-Match"));
        }
        if let Some(matches) = &self.matches {
            let entry = current.ok_or_else(|| Error::NoSuchKey(key.clone()))?;
            let any = match matches {
                ETagMatch::Any => true,
                ETagMatch::OneOf(tags) => tags.contains(&entry.etag),
            };
            if !any {
                return Err(Error::PreconditionFailed("If-Match"));
            }
        }
        let Some(entry) = current else { return Ok(()) };
        if self.size.is_some_and(|size| size != entry.size) {
            return Err(Error::PreconditionFailed("x-amz-if-match-size"));
        }
        if self
            .modified_at
            .is_some_and(|at| at.seconds() != entry.modified_at.seconds())
        {
            return Err(Error::PreconditionFailed(
                "x-amz-if-match-last-modified-time",
            ));
        }
        Ok(())
    }
}
