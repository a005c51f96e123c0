//! What only a forebay does for mounts (`server/src/ops/tree.rs`), and buckets.
//!
//! # Invariants
//! 1. Nothing of it is asked of an origin that has not answered as only a forebay does: another
//!    service may take an unknown parameter for none.

use bytes::Bytes;
use http::Method;
use serde::Deserialize;

use super::call::{Call, Repeat};
use super::client::{Client, Kind};
use super::error::OriginError;
use super::list::List;
use super::write::RESULT_SIZE_MAX;
use super::xml;
use crate::sign::Payload;

/// How much space an origin has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Space {
    /// Bytes of the file system that its data is on.
    pub total: u64,
    /// Bytes that can still be written.
    pub available: u64,
    /// Objects it could still hold; 0 if unknown.
    pub inodes_available: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Renamed {
    from: String,
}

/// The region that needs no name.
const DEFAULT_REGION: &str = "us-east-1";

impl Client {
    /// Whether the origin does what only a forebay does. It is asked, once, if that is not known.
    ///
    /// # Errors
    /// As [`list`](Client::list).
    pub async fn is_forebay(&self, bucket: &str) -> Result<bool, OriginError> {
        if self.kind() == Kind::Unknown {
            let look = List {
                bucket,
                max_keys: Some(1),
                heads: true,
                ..List::default()
            };
            self.list(&look).await?;
        }
        Ok(self.kind() == Kind::Forebay)
    }

    /// How much space there is.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn space(&self, bucket: &str) -> Result<Space, OriginError> {
        let call = Call {
            query: &[("forebay-space", "")],
            ..Call::new(Method::GET, Some(bucket), None)
        };
        let body = self.call(&call).await?.into_body();
        let body = body.collect_at_most(RESULT_SIZE_MAX).await?;
        xml::parse(&body, "ForebaySpace")
    }

    /// Gives a file or a directory another name; `how` is `replace`, `no-replace` or `exchange`.
    ///
    /// # Errors
    /// As [`call`](Client::call). After [`OriginError::Unavailable`] it may have been done.
    pub async fn rename(
        &self,
        bucket: &str,
        from: &str,
        to: &str,
        how: &str,
    ) -> Result<(), OriginError> {
        let call = Call {
            query: &[("forebay-rename", how), ("forebay-from", from)],
            repeat: Repeat::Never,
            ..Call::new(Method::POST, Some(bucket), Some(to))
        };
        let (_, body) = self.call_for_document(&call).await?;
        let renamed: Renamed = xml::parse(&body, "ForebayRenamed")?;
        if renamed.from != from {
            let why = format!("`{}` was renamed instead of `{from}`", renamed.from);
            return Err(OriginError::Corrupt(why));
        }
        Ok(())
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn create_bucket(&self, bucket: &str) -> Result<(), OriginError> {
        let region = self.region();
        let body = if region == DEFAULT_REGION {
            Bytes::new()
        } else {
            // A region's name has letters, digits and hyphens.
            Bytes::from(format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            ))
        };
        let call = Call {
            payload: if body.is_empty() {
                Payload::Empty
            } else {
                self.payload_of(&body)
            },
            body,
            repeat: Repeat::Never,
            ..Call::new(Method::PUT, Some(bucket), None)
        };
        self.call(&call).await.map(drop)
    }

    /// Deletes an empty bucket.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn delete_bucket(&self, bucket: &str) -> Result<(), OriginError> {
        let call = Call {
            repeat: Repeat::Never,
            ..Call::new(Method::DELETE, Some(bucket), None)
        };
        self.call(&call).await.map(drop)
    }
}
