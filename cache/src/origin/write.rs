//! Calls that change one object.

use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::call::{Call, refusal_in};
use super::client::Client;
use super::error::OriginError;
use super::head::{strong, version_query};
use super::xml;
use crate::sign::{Payload, encode, encode_path};

/// Largest document that answers a write, in bytes.
pub(super) const RESULT_SIZE_MAX: usize = 1 << 20;
pub(super) const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");

/// A version that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The entity tag without quotes; `None` if the origin gives none or a weak one.
    pub etag: Option<String>,
    /// Its id, in a bucket with versions.
    pub version_id: Option<String>,
}

impl Written {
    /// Reads the headers of an answer; the entity tag may be in its document instead.
    pub(super) fn read(headers: &HeaderMap, etag: Option<&str>) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let etag = etag.or_else(|| text(ETAG.as_str()));
        Self {
            etag: etag.and_then(strong).map(str::to_owned),
            version_id: text("x-amz-version-id")
                .filter(|id| *id != "null")
                .map(str::to_owned),
        }
    }
}

/// What is copied.
#[derive(Clone, Copy, Debug)]
pub struct CopyFrom<'a> {
    /// The bucket's name.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// One version; without, the current one.
    pub version_id: Option<&'a str>,
}

impl CopyFrom<'_> {
    pub(super) fn header(&self) -> Result<HeaderValue, OriginError> {
        let mut text = format!("/{}/{}", encode(self.bucket), encode_path(self.key));
        if let Some(version_id) = self.version_id {
            text.push_str("?versionId=");
            text.push_str(&encode(version_id));
        }
        let invalid = |_| OriginError::Invalid("a copy of what can't be named".to_owned());
        HeaderValue::try_from(text).map_err(invalid)
    }
}

impl Client {
    /// Puts an object. `headers` are what is said of it (`Content-Type`, `x-amz-meta-…`), and
    /// conditions.
    ///
    /// A try that was carried out without an answer is followed by another: under the condition
    /// `If-None-Match: *` that one is refused (412), although the object is the caller's.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Bytes,
        headers: HeaderMap,
    ) -> Result<Written, OriginError> {
        let call = Call {
            headers,
            payload: self.payload_of(&body),
            body,
            ..Call::new(Method::PUT, Some(bucket), Some(key))
        };
        let response = self.call(&call).await?;
        Ok(Written::read(response.headers(), None))
    }

    /// Deletes an object, or one version of it. That there is none is a success.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn delete(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
        headers: HeaderMap,
    ) -> Result<(), OriginError> {
        let query = version_query(version_id);
        let call = Call {
            query: &query,
            headers,
            ..Call::new(Method::DELETE, Some(bucket), Some(key))
        };
        match self.call(&call).await {
            Ok(_) => Ok(()),
            Err(err) if err.code() == Some("NoSuchKey") => Ok(()),
            Err(err) => Err(err),
        }
    }

    /// Copies an object of up to 5 GiB, within the origin. `headers` can say what becomes of its
    /// metadata, and bear conditions.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn copy(
        &self,
        from: CopyFrom<'_>,
        bucket: &str,
        key: &str,
        mut headers: HeaderMap,
    ) -> Result<Written, OriginError> {
        headers.insert(COPY_SOURCE, from.header()?);
        let call = Call {
            headers,
            ..Call::new(Method::PUT, Some(bucket), Some(key))
        };
        let (headers, body) = self.call_for_document(&call).await?;
        let result: ETagResult = xml::parse(&body, "CopyObjectResult")?;
        Ok(Written::read(&headers, result.etag.as_deref()))
    }

    /// Over TLS nobody on the way can change a body; what has no TLS is signed.
    pub(super) fn payload_of(&self, body: &[u8]) -> Payload {
        match self.endpoint().is_tls() {
            _ if body.is_empty() => Payload::Empty,
            true => Payload::Unsigned,
            false => Payload::of(body),
        }
    }

    /// A call that is answered with a document, which may say, after a status of 200, that it
    /// failed.
    pub(super) async fn call_for_document(
        &self,
        call: &Call<'_>,
    ) -> Result<(HeaderMap, Bytes), OriginError> {
        let (head, body) = self.call(call).await?.into_parts();
        let body = body.collect_at_most(RESULT_SIZE_MAX).await?;
        if xml::error(&body).is_some() {
            let refusal = refusal_in(StatusCode::INTERNAL_SERVER_ERROR, &body);
            return Err(OriginError::Refused(refusal));
        }
        Ok((head.headers, body))
    }
}

/// The part of a result that matters.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct ETagResult {
    #[serde(rename = "ETag")]
    pub(super) etag: Option<String>,
}
