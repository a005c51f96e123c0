//! Asking for a range, and whether an answer is the one that was asked for.

use std::ops::Range;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::head::strong;
use crate::source::FetchError;
use crate::version::Version;

/// A range as a header has it, first and last byte.
///
/// # Panics
/// If it is empty.
pub(super) fn range_header(range: &Range<u64>) -> HeaderValue {
    assert!(!range.is_empty(), "a range of bytes");
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    HeaderValue::try_from(text).expect("numbers are a header's value")
}

/// Checks the head of a successful answer to a `GET` of `range`.
///
/// # Errors
/// [`FetchError::Changed`] if it is of another version, [`FetchError::Corrupt`] if it is of another
/// range or does not say of which.
pub(super) fn check(
    status: StatusCode,
    headers: &HeaderMap,
    version: &Version,
    range: &Range<u64>,
) -> Result<(), FetchError> {
    let wrong = |why: String| Err(FetchError::Corrupt(why));
    let Some(etag) = only(headers, &ETAG)? else {
        return wrong("a range without an entity tag".to_owned());
    };
    // Also if the origin should not know of If-Match.
    if strong(etag) != Some(&version.etag) {
        return Err(FetchError::Changed);
    }
    let given = only(headers, &CONTENT_RANGE)?;
    match (status, given) {
        (StatusCode::PARTIAL_CONTENT, Some(given)) => {
            if !is_range(given, range, version.size) {
                let (first, last) = (range.start, range.end - 1);
                let size = version.size;
                return wrong(format!(
                    "`{given}` where `bytes {first}-{last}/{size}` was asked for"
                ));
            }
        }
        (StatusCode::PARTIAL_CONTENT, None) => return wrong("a range without bounds".to_owned()),
        // An origin that knows no ranges, or an object that is asked for as a whole.
        (StatusCode::OK, None) if *range == (0..version.size) => {}
        (status, _) => {
            let text = "where a range was asked for";
            return wrong(format!("{} {text}", status.as_u16()));
        }
    }
    let len = range.end - range.start;
    match only(headers, &CONTENT_LENGTH)? {
        Some(given) if given.parse() != Ok(len) => {
            wrong(format!("{given} bytes where {len} were asked for"))
        }
        _ => Ok(()),
    }
}

/// A header that is there once at most.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, FetchError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(FetchError::Corrupt(format!("{name} is there twice")));
    }
    first
        .map(|value| value.to_str())
        .transpose()
        .map_err(|_| FetchError::Corrupt(format!("{name} is not text")))
}

/// Whether a `Content-Range` is exactly this one.
fn is_range(given: &str, range: &Range<u64>, size: u64) -> bool {
    let Some((unit, rest)) = given.trim().split_once(' ') else {
        return false;
    };
    let Some((bounds, of)) = rest.trim().split_once('/') else {
        return false;
    };
    let Some((first, last)) = bounds.split_once('-') else {
        return false;
    };
    unit.eq_ignore_ascii_case("bytes")
        && number(first) == Some(range.start)
        && number(last) == Some(range.end - 1)
        && (of == "*" || number(of) == Some(size))
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "ok";
    const CHANGED: &str = "changed";
    const CORRUPT: &str = "corrupt";

    fn outcome(status: u16, headers: &[(&'static str, &'static str)], range: Range<u64>) -> String {
        let version = Version {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            etag: "e".to_owned(),
            version_id: None,
            size: 10,
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        match check(status, &map, &version, &range) {
            Ok(()) => OK.to_owned(),
            Err(FetchError::Changed) => CHANGED.to_owned(),
            Err(FetchError::Corrupt(_)) => CORRUPT.to_owned(),
            Err(other) => other.to_string(),
        }
    }

    #[test]
    fn only_the_very_range_of_the_very_version_is_taken() {
        let etag = ("etag", "\"e\"");
        let range = ("content-range", "bytes 2-4/10");
        for (status, headers, expected) in [
            (206, &[etag, range][..], OK),
            (206, &[etag, range, ("content-length", "3")], OK),
            (206, &[etag, ("content-range", "bytes 2-4/*")], OK),
            (206, &[etag, ("content-range", "Bytes 2-4/10")], OK),
            (206, &[etag, range, ("content-length", "4")], CORRUPT),
            (206, &[etag, range, range], CORRUPT),
            (206, &[etag], CORRUPT),
            (206, &[range], CORRUPT),
            (206, &[("etag", "\"f\""), range], CHANGED),
            (206, &[("etag", "W/\"e\""), range], CHANGED),
            (206, &[etag, ("content-range", "bytes 2-5/10")], CORRUPT),
            (206, &[etag, ("content-range", "bytes 1-4/10")], CORRUPT),
            (206, &[etag, ("content-range", "bytes 2-4/11")], CORRUPT),
            (206, &[etag, ("content-range", "bytes 2-4")], CORRUPT),
            (206, &[etag, ("content-range", "bytes +2-4/10")], CORRUPT),
            (206, &[etag, ("content-range", "items 2-4/10")], CORRUPT),
            (200, &[etag], CORRUPT),
            (200, &[etag, range], CORRUPT),
            (204, &[etag], CORRUPT),
        ] {
            assert_eq!(
                outcome(status, headers, 2..5),
                expected,
                "{status} {headers:?}"
            );
        }
    }

    #[test]
    fn everything_may_come_without_bounds() {
        let etag = ("etag", "\"e\"");
        assert_eq!(outcome(200, &[etag], 0..10), OK);
        assert_eq!(outcome(200, &[etag, ("content-length", "10")], 0..10), OK);
        assert_eq!(
            outcome(200, &[etag, ("content-length", "9")], 0..10),
            CORRUPT
        );
        let range = ("content-range", "bytes 0-9/10");
        assert_eq!(outcome(206, &[etag, range], 0..10), OK);
    }
}
