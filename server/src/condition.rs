//! Conditional requests: reads by RFC 9110 §13 with S3's combinations, writes and deletes by S3's
//! own rules (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html>).
//!
//! Conditions on reads are decided here, on the entry that is read. Conditions on writes become a
//! [`Precondition`], which the store checks in the transaction that makes the change.

use forebay_store::entry::{ETag, Entry};
use forebay_store::rule::precondition::{ETagMatch, Precondition};
use forebay_store::time::Timestamp;
use http::HeaderMap;

use crate::compat::Compat;
use crate::error::{Code, Result, S3Error};
use crate::time;

/// What the conditions of a read say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Proceed,
    /// 304.
    NotModified,
    /// 412, and the header that failed.
    Failed(&'static str),
}

/// The four headers, under their names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    matches: &'static str,
    none_matches: &'static str,
    modified_since: &'static str,
    unmodified_since: &'static str,
}

/// Conditions on what is read.
pub(crate) const READ: Names = Names {
    matches: "if-match",
    none_matches: "if-none-match",
    modified_since: "if-modified-since",
    unmodified_since: "if-unmodified-since",
};

/// Conditions on what is copied.
pub(crate) const COPY_SOURCE: Names = Names {
    matches: "x-amz-copy-source-if-match",
    none_matches: "x-amz-copy-source-if-none-match",
    modified_since: "x-amz-copy-source-if-modified-since",
    unmodified_since: "x-amz-copy-source-if-unmodified-since",
};

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether `*` or one of a list of entity tags is `etag`.
fn lists(list: &str, etag: &ETag) -> bool {
    list.split(',')
        .any(|tag| tag.trim() == "*" || ETag::parse(tag).as_ref() == Some(etag))
}

/// HTTP dates, and RFC 3339 besides.
fn date(text: &str) -> Option<i64> {
    time::parse_http_date(text).or_else(|| time::parse_rfc3339(text))
}

/// Decides on the conditions of a read of `entry`.
pub(crate) fn check(headers: &HeaderMap, names: &Names, entry: &Entry, now_s: i64) -> Verdict {
    evaluate(
        headers,
        names,
        &entry.etag,
        entry.modified_at.seconds(),
        now_s,
    )
}

fn evaluate(
    headers: &HeaderMap,
    names: &Names,
    etag: &ETag,
    modified_s: i64,
    now_s: i64,
) -> Verdict {
    match text(headers, names.matches) {
        Some(list) if !lists(list, etag) => return Verdict::Failed("If-Match"),
        Some(_) => {}
        None => {
            let since = text(headers, names.unmodified_since).and_then(date);
            if since.is_some_and(|since| modified_s > since) {
                return Verdict::Failed("If-Unmodified-Since");
            }
        }
    }
    if let Some(list) = text(headers, names.none_matches) {
        return if lists(list, etag) {
            Verdict::NotModified
        } else {
            Verdict::Proceed
        };
    }
    // A date that has not come yet says nothing.
    let since = text(headers, names.modified_since).and_then(date);
    match since.filter(|since| *since <= now_s) {
        Some(since) if modified_s <= since => Verdict::NotModified,
        _ => Verdict::Proceed,
    }
}

/// Whether a `Range` counts: `If-Range` is absent, or names what the object is now.
pub(crate) fn range_counts(headers: &HeaderMap, entry: &Entry) -> bool {
    let Some(validator) = text(headers, "if-range") else {
        return true;
    };
    match time::parse_http_date(validator) {
        Some(date) => date == entry.modified_at.seconds(),
        None => !validator.trim().starts_with("W/") && ETag::parse(validator) == Some(entry.etag),
    }
}

/// The condition of a write.
///
/// # Errors
/// `InvalidRequest` (or what the profile says) for `If-None-Match` with an entity tag,
/// `NotImplemented` for both headers.
pub(crate) fn of_write(headers: &HeaderMap, compat: Compat) -> Result<Precondition> {
    let (matches, none_matches) = (text(headers, "if-match"), text(headers, "if-none-match"));
    if matches.is_some() && none_matches.is_some() {
        return Err(S3Error::not_implemented("If-Match, If-None-Match"));
    }
    if let Some(tag) = none_matches
        && tag.trim() != "*"
    {
        return Err(if compat.etag_condition_is_not_implemented() {
            S3Error::not_implemented("If-None-Match")
        } else {
            S3Error::request("If-None-Match on a write takes * only.")
        });
    }
    let absent = none_matches.is_some();
    Ok(Precondition {
        absent,
        matches: matches.map(etag_match),
        ..Precondition::NONE
    })
}

/// The condition of a delete.
///
/// # Errors
/// `NotImplemented` together with a version, `InvalidArgument` for a size or date that is none.
pub(crate) fn of_delete(headers: &HeaderMap, has_version: bool) -> Result<Precondition> {
    let matches = text(headers, "if-match");
    if matches.is_some() && has_version {
        return Err(S3Error::not_implemented("If-Match"));
    }
    let size = text(headers, "x-amz-if-match-size");
    let modified = text(headers, "x-amz-if-match-last-modified-time");
    Ok(Precondition {
        matches: matches.map(etag_match),
        size: size
            .map(|size| parse_size("x-amz-if-match-size", size))
            .transpose()?,
        modified_at: modified
            .map(|moment| parse_moment("x-amz-if-match-last-modified-time", moment))
            .transpose()?,
        ..Precondition::NONE
    })
}

/// Entity tags that a change names; one that can't be ours matches nothing.
pub(crate) fn etag_match(list: &str) -> ETagMatch {
    if list.split(',').any(|tag| tag.trim() == "*") {
        return ETagMatch::Any;
    }
    ETagMatch::OneOf(list.split(',').filter_map(ETag::parse).collect())
}

/// A size in bytes, out of the header or element `name`.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn parse_size(name: &str, text: &str) -> Result<u64> {
    text.trim()
        .parse()
        .map_err(|_| S3Error::argument(name, text, "The size is no number."))
}

/// A moment, out of the header or element `name`.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn parse_moment(name: &str, text: &str) -> Result<Timestamp> {
    let seconds = date(text.trim());
    seconds
        .map(|seconds| Timestamp::from_parts(seconds, 0))
        .ok_or_else(|| S3Error::argument(name, text, "The date can't be read."))
}

/// 412 with the condition that failed.
pub(crate) fn failed(condition: &'static str) -> S3Error {
    S3Error::new(Code::PreconditionFailed).field("Condition", condition)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const AT: i64 = 1_369_353_600;
    const NOW: i64 = AT + 1_000_000;
    const HEX: &str = "25f9e794323b453885f5181f1b624d0b";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        pairs
            .iter()
            .map(|(name, text)| (http::HeaderName::from_static(name), value(text)))
            .collect()
    }

    #[test]
    fn reads_follow_the_table_of_combinations() {
        let etag = ETag::parse(HEX).unwrap();
        let (same, other) = (format!("\"{HEX}\""), "\"00000000000000000000000000000000\"");
        let (before, at) = (time::http_date(AT - 1), time::http_date(AT));
        let future = time::http_date(NOW + 5);
        let failed = |name| Verdict::Failed(name);
        let rows: &[(&[(&'static str, &str)], Verdict)] = &[
            (&[], Verdict::Proceed),
            (&[("if-match", other)], failed("If-Match")),
            (&[("if-match", &same)], Verdict::Proceed),
            (&[("if-match", HEX)], Verdict::Proceed),
            (&[("if-match", "*")], Verdict::Proceed),
            (
                &[("if-match", &format!("{other}, {same}"))],
                Verdict::Proceed,
            ),
            (
                &[("if-match", other), ("if-none-match", &same)],
                failed("If-Match"),
            ),
            (
                &[("if-match", &same), ("if-unmodified-since", &before)],
                Verdict::Proceed,
            ),
            (
                &[("if-match", &same), ("if-none-match", &same)],
                Verdict::NotModified,
            ),
            (
                &[("if-match", &same), ("if-modified-since", &at)],
                Verdict::NotModified,
            ),
            (
                &[("if-unmodified-since", &before)],
                failed("If-Unmodified-Since"),
            ),
            (
                &[("if-unmodified-since", &before), ("if-none-match", &same)],
                failed("If-Unmodified-Since"),
            ),
            (&[("if-unmodified-since", &at)], Verdict::Proceed),
            (&[("if-none-match", &same)], Verdict::NotModified),
            (
                &[("if-none-match", &format!("W/{same}"))],
                Verdict::NotModified,
            ),
            (&[("if-none-match", "*")], Verdict::NotModified),
            (
                &[("if-none-match", &same), ("if-modified-since", &before)],
                Verdict::NotModified,
            ),
            (
                &[("if-none-match", other), ("if-modified-since", &at)],
                Verdict::Proceed,
            ),
            (&[("if-modified-since", &at)], Verdict::NotModified),
            (&[("if-modified-since", &before)], Verdict::Proceed),
            (&[("if-modified-since", &future)], Verdict::Proceed),
            (&[("if-modified-since", "no date")], Verdict::Proceed),
            (
                &[("if-modified-since", "2013-05-24T00:00:00Z")],
                Verdict::NotModified,
            ),
        ];
        for (row, expected) in rows {
            assert_eq!(
                evaluate(&headers(row), &READ, &etag, AT, NOW),
                *expected,
                "{row:?}"
            );
        }
    }

    #[test]
    fn writes_take_a_star_or_an_etag() {
        let of = |row: &[(&'static str, &str)]| of_write(&headers(row), Compat::Forebay);
        assert_eq!(of(&[]).unwrap(), Precondition::NONE);
        assert!(of(&[("if-none-match", "*")]).unwrap().absent);
        assert_eq!(
            of(&[("if-match", "*")]).unwrap().matches,
            Some(ETagMatch::Any)
        );
        assert_eq!(
            of(&[("if-match", "\"x\"")]).unwrap().matches,
            Some(ETagMatch::OneOf(vec![]))
        );
        assert_eq!(
            of(&[("if-none-match", HEX)]).unwrap_err().code(),
            Code::InvalidRequest
        );
        let both = of(&[("if-none-match", "*"), ("if-match", HEX)]);
        assert_eq!(both.unwrap_err().code(), Code::NotImplemented);
        let aws = of_write(&headers(&[("if-none-match", HEX)]), Compat::Aws);
        assert_eq!(aws.unwrap_err().code(), Code::NotImplemented);
    }

    #[test]
    fn deletes_take_an_etag_unless_they_name_a_version() {
        let row = headers(&[("if-match", "*"), ("x-amz-if-match-size", "7")]);
        let precondition = of_delete(&row, false).unwrap();
        assert_eq!(
            (precondition.matches, precondition.size),
            (Some(ETagMatch::Any), Some(7))
        );
        assert_eq!(
            of_delete(&row, true).unwrap_err().code(),
            Code::NotImplemented
        );
        let bad = headers(&[("x-amz-if-match-size", "-7")]);
        assert_eq!(
            of_delete(&bad, false).unwrap_err().code(),
            Code::InvalidArgument
        );
    }
}
