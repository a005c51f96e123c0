//! What the origin says of an object, and small objects whole.

use bytes::Bytes;
use forebay_store::time::Timestamp;
use http::header::{CONTENT_LENGTH, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::call::{Call, refusal};
use super::client::Client;
use super::error::OriginError;
use crate::time::parse_http_date;
use crate::version::Version;

const METADATA: &str = "x-amz-meta-";
const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");

/// What is known of one version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Size in bytes.
    pub size: u64,
    /// The entity tag without quotes; `None` if the origin gives none or a weak one.
    pub etag: Option<String>,
    /// When it was published.
    pub last_modified: Option<Timestamp>,
    /// Its id, in a bucket with versions.
    pub version_id: Option<String>,
    /// Everything else that the origin says, `Content-Type` and the like among it.
    pub headers: HeaderMap,
}

impl Head {
    /// Reads the headers of an answer to `HEAD`, or to a `GET` of everything.
    pub(super) fn read(headers: HeaderMap) -> Result<Self, OriginError> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let size = text(&CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let no_size = || OriginError::Corrupt("an object without Content-Length".to_owned());
        Ok(Self {
            size: size.ok_or_else(no_size)?,
            etag: text(&ETAG).and_then(strong).map(str::to_owned),
            last_modified: text(&LAST_MODIFIED).and_then(parse_http_date),
            version_id: text(&VERSION_ID)
                .filter(|id| *id != "null")
                .map(str::to_owned),
            headers,
        })
    }

    /// The names, without `x-amz-meta-`, and values of the object's own metadata.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str().strip_prefix(METADATA)?, value)))
    }

    /// What its bytes belong to; `None` without an entity tag, as they then can't be told from
    /// those of another version.
    pub fn version(&self, bucket: &str, key: &str) -> Option<Version> {
        Some(Version {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            etag: self.etag.clone()?,
            version_id: self.version_id.clone(),
            size: self.size,
        })
    }
}

/// An entity tag without its quotes, if it is a strong one.
pub(super) fn strong(etag: &str) -> Option<&str> {
    let etag = etag.trim();
    if etag.starts_with("W/") {
        return None;
    }
    let bare = etag
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    // Some services leave out the quotes.
    let bare = bare.unwrap_or(etag);
    (!bare.is_empty() && !bare.contains('"')).then_some(bare)
}

/// The parameter that names a version.
pub(super) fn version_query(version_id: Option<&str>) -> Vec<(&str, &str)> {
    version_id
        .map(|version_id| ("versionId", version_id))
        .into_iter()
        .collect()
}

impl Client {
    /// Asks for an object's head; `None` if there is no such object, or its current version is a
    /// delete marker.
    ///
    /// # Errors
    /// As [`call`](Client::call); a head without a size is [`OriginError::Corrupt`].
    pub async fn head(
        &self,
        bucket: &str,
        key: &str,
        version_id: Option<&str>,
    ) -> Result<Option<Head>, OriginError> {
        let query = version_query(version_id);
        let call = Call {
            query: &query,
            ..Call::new(Method::HEAD, Some(bucket), Some(key))
        };
        let response = self.ask(&call).await?;
        match response.status() {
            StatusCode::OK => Head::read(response.into_parts().0.headers).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ if is_delete_marker(response.headers()) => Ok(None),
            _ => Err(OriginError::Refused(refusal(response).await)),
        }
    }

    /// Reads a whole object that is not larger than `max` bytes; `None` if there is none.
    ///
    /// # Errors
    /// As [`head`](Client::head); a larger object is [`OriginError::Corrupt`].
    pub async fn get_small(
        &self,
        bucket: &str,
        key: &str,
        max: usize,
    ) -> Result<Option<(Head, Bytes)>, OriginError> {
        let mut tries = self.tries(self.deadlines().total);
        loop {
            let call = Call::new(Method::GET, Some(bucket), Some(key));
            let response = self.ask(&call).await?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => return Ok(None),
                _ => return Err(OriginError::Refused(refusal(response).await)),
            }
            let (head, body) = response.into_parts();
            let head = Head::read(head.headers)?;
            if head.size > max as u64 {
                let size = head.size;
                let text = format!("an object of {size} bytes, where {max} are the most");
                return Err(OriginError::Corrupt(text));
            }
            // Its request has been tried often enough, but a body may break off.
            let pause = match body.collect_at_most(max).await {
                Ok(body) => return Ok(Some((head, body))),
                Err(err @ OriginError::Unavailable(_)) => tries.again(None).ok_or(err)?,
                Err(err) => return Err(err),
            };
            self.counters().retries.add(1);
            tokio::time::sleep(pause).await;
        }
    }
}

fn is_delete_marker(headers: &HeaderMap) -> bool {
    headers
        .get("x-amz-delete-marker")
        .is_some_and(|value| value == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strong_tags_tell_versions_apart() {
        for (etag, expected) in [
            ("\"abc-2\"", Some("abc-2")),
            ("abc", Some("abc")),
            (" \"a b\" ", Some("a b")),
            ("W/\"abc\"", None),
            ("\"\"", None),
            ("", None),
            ("\"abc", None),
        ] {
            assert_eq!(strong(etag), expected, "{etag}");
        }
    }

    #[test]
    fn a_head_is_read() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-length", "7"),
            ("etag", "\"e\""),
            ("last-modified", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-version-id", "null"),
            ("content-type", "text/plain"),
            ("x-amz-meta-a", "1"),
            ("x-amz-meta-b", "2"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let head = Head::read(headers.clone()).unwrap();
        let version = head.version("b", "k").unwrap();
        assert_eq!((version.size, version.etag.as_str()), (7, "e"));
        assert_eq!(version.version_id, None);
        assert_eq!(head.last_modified.unwrap().seconds(), 1_369_353_600);
        let mut metadata: Vec<_> = head.metadata().collect();
        metadata.sort_by_key(|pair| pair.0);
        assert_eq!(
            metadata,
            [
                ("a", &HeaderValue::from_static("1")),
                ("b", &HeaderValue::from_static("2"))
            ]
        );
        for value in ["-1", "x", "18446744073709551616"] {
            headers.insert("content-length", HeaderValue::from_static(value));
            assert!(Head::read(headers.clone()).is_err(), "{value}");
        }
    }
}
