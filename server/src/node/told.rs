//! What an origin says of a read when it sends the head of the answer alone.

use std::ops::Range;
use std::sync::Arc;

use forebay_cache::Version;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::reading::Reading;
use crate::grant::{GRANT_HEADER, LENGTH_HEADER, SIZE_HEADER};

const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");

/// A read that was allowed: of which bytes of which version.
#[derive(Debug)]
pub(super) struct Allowed {
    /// The version.
    pub(super) version: Arc<Version>,
    /// The bytes that the answer has.
    pub(super) range: Range<u64>,
    /// What fetches them.
    pub(super) grant: HeaderValue,
}

/// What an answer is.
#[derive(Debug)]
pub(super) enum Told {
    /// An answer as any client would get it, with its body.
    Answer,
    /// The head of one.
    Allowed(Allowed),
    /// The head of one, of which no more can be made.
    Unusable(&'static str),
}

/// Reads the head of an answer to a read that asked for the head alone.
pub(super) fn read(reading: &Reading, status: StatusCode, headers: &HeaderMap) -> Told {
    let is_head = reading.method == http::Method::HEAD;
    let length_header = if is_head {
        CONTENT_LENGTH
    } else {
        LENGTH_HEADER
    };
    // Whoever knows nothing of nodes, or has nothing to grant, answers as ever.
    let marker = if is_head { GRANT_HEADER } else { LENGTH_HEADER };
    let is_success = status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT;
    if !is_success || !headers.contains_key(&marker) {
        return Told::Answer;
    }
    allowed(reading, status, headers, &length_header).map_or_else(Told::Unusable, Told::Allowed)
}

fn allowed(
    reading: &Reading,
    status: StatusCode,
    headers: &HeaderMap,
    length_header: &HeaderName,
) -> Result<Allowed, &'static str> {
    let length = number(headers, length_header).ok_or("there is no length")?;
    let size = number(headers, &SIZE_HEADER).ok_or("there is no size")?;
    let grant = headers
        .get(GRANT_HEADER)
        .ok_or("there is no grant")?
        .clone();
    let etag = strong_etag(headers).ok_or("there is no strong entity tag")?;
    let range = if status == StatusCode::OK {
        0..size
    } else {
        let value = text(headers, &CONTENT_RANGE).unwrap_or_default();
        content_range(value, size).ok_or("there is no range of the object")?
    };
    if range.end - range.start != length {
        return Err("its length is not that of its range");
    }
    Ok(Allowed {
        version: Arc::new(Version {
            bucket: reading.bucket.clone(),
            key: reading.key.clone(),
            etag: etag.to_owned(),
            version_id: text(headers, &VERSION_ID).map(str::to_owned),
            size,
        }),
        range,
        grant,
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    digits(text(headers, name)?)
}

fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// An entity tag without its quotes, if it stands for bytes and not just for their meaning.
pub(super) fn strong_etag(headers: &HeaderMap) -> Option<&str> {
    let value = text(headers, &ETAG)?.trim();
    let etag = value.strip_prefix('"')?.strip_suffix('"')?;
    (!etag.is_empty() && !etag.contains('"')).then_some(etag)
}

/// `bytes FIRST-LAST/SIZE`, of an object of this size.
pub(super) fn content_range(value: &str, size: u64) -> Option<Range<u64>> {
    let (range, of) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (digits(first)?, digits(last)?);
    (digits(of)? == size && first <= last && last < size).then_some(first..last + 1)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn reading(method: Method) -> Reading {
        Reading {
            method,
            target: "/b/k".parse().unwrap(),
            headers: HeaderMap::new(),
            bucket: "b".to_owned(),
            key: "k".to_owned(),
        }
    }

    fn told(method: Method, status: u16, pairs: &[(&'static str, &'static str)]) -> Told {
        let headers = pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        let status = StatusCode::from_u16(status).unwrap();
        read(&reading(method), status, &headers)
    }

    const WHOLE: [(&str, &str); 4] = [
        ("x-forebay-length", "10"),
        ("x-forebay-size", "10"),
        ("x-forebay-grant", "token"),
        ("etag", "\"e\""),
    ];

    #[test]
    fn a_whole_object_and_a_range_are_allowed() {
        let Told::Allowed(allowed) = told(Method::GET, 200, &WHOLE) else {
            panic!("it is whole");
        };
        assert_eq!((allowed.range, allowed.version.size), (0..10, 10));
        assert_eq!(allowed.version.etag, "e");
        assert_eq!(allowed.version.version_id, None);
        let mut part = WHOLE.to_vec();
        part[0].1 = "3";
        part.extend([("content-range", "bytes 2-4/10"), ("x-amz-version-id", "v")]);
        let Told::Allowed(allowed) = told(Method::GET, 206, &part) else {
            panic!("it is a part");
        };
        assert_eq!(allowed.range, 2..5);
        assert_eq!(allowed.version.version_id.as_deref(), Some("v"));
    }

    #[test]
    fn a_head_has_a_length_of_its_own() {
        let head = [
            ("content-length", "1"),
            ("content-range", "bytes 0-0/10"),
            ("x-forebay-size", "10"),
            ("etag", "\"e\""),
        ];
        assert!(matches!(told(Method::HEAD, 206, &head), Told::Answer));
        let mut granted = head.to_vec();
        granted.push(("x-forebay-grant", "token"));
        assert!(matches!(
            told(Method::HEAD, 206, &granted),
            Told::Allowed(_)
        ));
    }

    #[test]
    fn an_answer_with_its_body_stays_one() {
        let answers: [(u16, &[(&str, &str)]); 4] = [
            (200, &[("etag", "\"e\""), ("content-length", "10")]),
            (304, &WHOLE),
            (404, &WHOLE),
            (416, &[]),
        ];
        for (status, headers) in answers {
            assert!(
                matches!(told(Method::GET, status, headers), Told::Answer),
                "{status}"
            );
        }
    }

    #[test]
    fn what_contradicts_itself_is_not_used() {
        let changes: [(&str, &str); 8] = [
            ("x-forebay-length", "9"),
            ("x-forebay-length", "+10"),
            ("x-forebay-size", "9"),
            ("x-forebay-size", ""),
            ("etag", "W/\"e\""),
            ("etag", "e"),
            ("etag", "\"\""),
            ("etag", "\"a\"b\""),
        ];
        for (name, value) in changes {
            let mut headers = WHOLE.to_vec();
            headers.retain(|pair| pair.0 != name);
            headers.push((name, value));
            assert!(
                matches!(told(Method::GET, 200, &headers), Told::Unusable(_)),
                "{name}: {value}"
            );
        }
        for missing in ["x-forebay-size", "x-forebay-grant", "etag"] {
            let mut headers = WHOLE.to_vec();
            headers.retain(|pair| pair.0 != missing);
            assert!(matches!(
                told(Method::GET, 200, &headers),
                Told::Unusable(_)
            ));
        }
        for range in [
            "bytes 0-9/11",
            "bytes 1-10/10",
            "bytes */10",
            "bytes 5-4/10",
            "0-9/10",
        ] {
            let mut headers = WHOLE.to_vec();
            headers.push(("content-range", range));
            assert!(
                matches!(told(Method::GET, 206, &headers), Told::Unusable(_)),
                "{range}"
            );
        }
    }
}
