//! Large objects, part by part.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderMap, HeaderName, Method};
use serde::Deserialize;

use super::call::{Call, Repeat};
use super::client::Client;
use super::error::OriginError;
use super::range::range_header;
use super::write::{COPY_SOURCE, CopyFrom, ETagResult, Written};
use super::xml;
use crate::sign::Payload;

const COPY_SOURCE_RANGE: HeaderName = HeaderName::from_static("x-amz-copy-source-range");

/// An upload that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The bucket's name.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// What the origin calls it.
    pub upload_id: String,
}

/// A part that was uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1 to 10,000.
    pub number: u32,
    /// Its entity tag, as the origin wrote it.
    pub etag: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InitiateMultipartUploadResult {
    upload_id: String,
}

impl Client {
    /// Begins an upload. `headers` are what is said of the object.
    ///
    /// Of a try whose answer was lost an upload may remain that nobody knows of.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        headers: HeaderMap,
    ) -> Result<Upload, OriginError> {
        let call = Call {
            query: &[("uploads", "")],
            headers,
            ..Call::new(Method::POST, Some(bucket), Some(key))
        };
        let (_, body) = self.call_for_document(&call).await?;
        let root = "InitiateMultipartUploadResult";
        let result: InitiateMultipartUploadResult = xml::parse(&body, root)?;
        Ok(Upload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            upload_id: result.upload_id,
        })
    }

    /// Uploads a part; one with the same number is replaced.
    ///
    /// # Errors
    /// As [`call`](Client::call); an answer without an entity tag is [`OriginError::Corrupt`].
    pub async fn upload_part(
        &self,
        upload: &Upload,
        number: u32,
        body: Bytes,
    ) -> Result<Part, OriginError> {
        let number_text = number.to_string();
        let call = Call {
            query: &[
                ("partNumber", &number_text),
                ("uploadId", &upload.upload_id),
            ],
            payload: self.payload_of(&body),
            body,
            ..upload.call(Method::PUT)
        };
        let response = self.call(&call).await?;
        let etag = response.headers().get(ETAG);
        let etag = etag.and_then(|etag| etag.to_str().ok());
        let etag = etag.ok_or_else(no_etag)?.to_owned();
        Ok(Part { number, etag })
    }

    /// Uploads a part that is copied from a range of an object, within the origin.
    ///
    /// # Errors
    /// As [`call`](Client::call); an answer without an entity tag is [`OriginError::Corrupt`].
    pub async fn copy_part(
        &self,
        upload: &Upload,
        number: u32,
        from: CopyFrom<'_>,
        range: Range<u64>,
    ) -> Result<Part, OriginError> {
        if range.is_empty() {
            return Err(OriginError::Invalid("a part without a byte".to_owned()));
        }
        let mut headers = HeaderMap::new();
        headers.insert(COPY_SOURCE, from.header()?);
        headers.insert(COPY_SOURCE_RANGE, range_header(&range));
        let number_text = number.to_string();
        let call = Call {
            query: &[
                ("partNumber", &number_text),
                ("uploadId", &upload.upload_id),
            ],
            headers,
            ..upload.call(Method::PUT)
        };
        let (_, body) = self.call_for_document(&call).await?;
        let result: ETagResult = xml::parse(&body, "CopyPartResult")?;
        let etag = result.etag.ok_or_else(no_etag)?;
        Ok(Part { number, etag })
    }

    /// Joins the parts, given in the order of their numbers, and publishes the object. `headers`
    /// can bear conditions.
    ///
    /// It is not tried again once it may have been carried out: the caller looks at the object to
    /// know.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn complete_upload(
        &self,
        upload: &Upload,
        parts: &[Part],
        headers: HeaderMap,
    ) -> Result<Written, OriginError> {
        let document = Bytes::from(complete_document(parts));
        let call = Call {
            query: &[("uploadId", &upload.upload_id)],
            headers,
            payload: Payload::of(&document),
            body: document,
            repeat: Repeat::Never,
            ..upload.call(Method::POST)
        };
        let (headers, body) = self.call_for_document(&call).await?;
        let result: ETagResult = xml::parse(&body, "CompleteMultipartUploadResult")?;
        Ok(Written::read(&headers, result.etag.as_deref()))
    }

    /// Gives an upload up, with its parts. That there is none is a success.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn abort_upload(&self, upload: &Upload) -> Result<(), OriginError> {
        let call = Call {
            query: &[("uploadId", &upload.upload_id)],
            ..upload.call(Method::DELETE)
        };
        match self.call(&call).await {
            Ok(_) => Ok(()),
            Err(err) if err.code() == Some("NoSuchUpload") => Ok(()),
            Err(err) => Err(err),
        }
    }
}

impl Upload {
    fn call(&self, method: Method) -> Call<'_> {
        Call::new(method, Some(&self.bucket), Some(&self.key))
    }
}

fn no_etag() -> OriginError {
    OriginError::Corrupt("a part without an entity tag".to_owned())
}

fn complete_document(parts: &[Part]) -> String {
    let mut text = String::with_capacity(64 + parts.len() * 96);
    text.push_str("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for part in parts {
        let etag = quick_xml::escape::escape(part.etag.as_str());
        let number = part.number;
        write!(
            text,
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        )
        .expect("writing to a String can't fail");
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_listed_in_xml() {
        let parts = [Part {
            number: 1,
            etag: "\"a<b\"".to_owned(),
        }];
        let text = complete_document(&parts);
        let expected = "<PartNumber>1</PartNumber><ETag>&quot;a&lt;b&quot;</ETag>";
        assert!(text.contains(expected), "{text}");
    }
}
