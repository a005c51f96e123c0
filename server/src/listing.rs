//! Parameters of listings, and how their answers are written
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as TOKEN;
use forebay_store::api::ListAfter;
use forebay_store::limits::LIST_PAGE_MAX;

use crate::error::{Result, S3Error};
use crate::query::Query;
use crate::xml::representable;

/// How keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are.
    Plain,
    /// Percent-encoded: `encoding-type=url`.
    Url,
}

impl Encoding {
    /// Reads `encoding-type`.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn parse(query: &Query) -> Result<Self> {
        match query.get("encoding-type") {
            None | Some("") => Ok(Self::Plain),
            Some(kind) if kind.eq_ignore_ascii_case("url") => Ok(Self::Url),
            Some(kind) => Err(S3Error::argument(
                "encoding-type",
                kind,
                "Invalid Encoding Method specified in Request",
            )),
        }
    }

    /// A key, prefix, delimiter or marker as it is written.
    pub(crate) fn text(self, text: &str) -> String {
        match self {
            Self::Plain => representable(text).into_owned(),
            Self::Url => url_encode(text.as_bytes()),
        }
    }

    /// The `EncodingType` element.
    pub(crate) fn element(self) -> Option<&'static str> {
        (self == Self::Url).then_some("url")
    }
}

/// Bytes as `encoding-type=url` writes them.
pub(crate) fn url_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'*' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").expect("writing to a String can't fail"),
        }
    }
    out
}

/// Reads `max-keys` and its like: 0 to 1,000; more is 1,000, none is 1,000.
///
/// # Errors
/// `InvalidArgument` for what is no number of 0 to 2³¹-1.
pub(crate) fn limit(query: &Query, name: &'static str) -> Result<usize> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
        return Ok(LIST_PAGE_MAX);
    };
    let bad = || {
        S3Error::argument(
            name,
            text,
            format!("Provided {name} not an integer or within integer range"),
        )
    };
    let number: i32 = text.parse().map_err(|_| bad())?;
    let number = usize::try_from(number).map_err(|_| {
        S3Error::argument(
            name,
            text,
            format!("Argument {name} must be an integer between 0 and 2147483647"),
        )
    })?;
    Ok(number.min(LIST_PAGE_MAX))
}

/// A parameter that counts as absent when it is empty.
pub(crate) fn non_empty<'q>(query: &'q Query, name: &str) -> Option<&'q str> {
    query.get(name).filter(|text| !text.is_empty())
}

/// Where a listing goes on after V1's `marker`.
///
/// A marker that is itself a common prefix was the last of the page before: its keys are past.
pub(crate) fn after_marker(marker: &str, prefix: &str, delimiter: Option<&str>) -> ListAfter {
    let rest = marker.strip_prefix(prefix);
    let rolled_up = delimiter.zip(rest).is_some_and(|(delimiter, rest)| {
        rest.find(delimiter)
            .is_some_and(|at| at + delimiter.len() == rest.len())
    });
    if rolled_up {
        ListAfter::Prefix(marker.to_owned())
    } else {
        ListAfter::Key(marker.to_owned())
    }
}

/// The text of where a listing goes on, for V1.
pub(crate) fn marker_text(after: &ListAfter) -> &str {
    match after {
        ListAfter::Key(text) | ListAfter::Prefix(text) => text,
    }
}

/// The continuation token of V2: opaque, and valid for ever.
pub(crate) fn token(after: &ListAfter) -> String {
    let (kind, text) = match after {
        ListAfter::Key(text) => ("k", text),
        ListAfter::Prefix(text) => ("p", text),
    };
    TOKEN.encode(format!("{kind}{text}"))
}

/// Reads a continuation token.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn parse_token(token: &str) -> Result<ListAfter> {
    let bad = || {
        S3Error::argument(
            "continuation-token",
            token,
            "The continuation token provided is incorrect",
        )
    };
    let bytes = TOKEN.decode(token).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    if let Some(key) = text.strip_prefix('k') {
        return Ok(ListAfter::Key(key.to_owned()));
    }
    text.strip_prefix('p')
        .map(|prefix| ListAfter::Prefix(prefix.to_owned()))
        .ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn limits_are_clamped_or_refused() {
        let of = |text: &str| limit(&Query::parse(text).unwrap(), "max-keys");
        for (text, expected) in [
            ("", 1000),
            ("max-keys=", 1000),
            ("max-keys=0", 0),
            ("max-keys=7", 7),
            ("max-keys=5000", 1000),
        ] {
            assert_eq!(of(text).unwrap(), expected, "{text}");
        }
        for text in [
            "max-keys=-1",
            "max-keys=a",
            "max-keys=2147483648",
            "max-keys=1.5",
        ] {
            assert_eq!(
                of(text).unwrap_err().code(),
                Code::InvalidArgument,
                "{text}"
            );
        }
    }

    #[test]
    fn keys_are_url_encoded_on_request() {
        let encoding = Encoding::parse(&Query::parse("encoding-type=url").unwrap()).unwrap();
        assert_eq!(encoding.text("a b+c/é*~%"), "a%20b%2Bc/%C3%A9*~%25");
        assert_eq!(Encoding::Plain.text("a b\u{1}"), "a b%01");
        assert!(Encoding::parse(&Query::parse("encoding-type=x").unwrap()).is_err());
    }

    #[test]
    fn a_token_is_what_it_was_made_of() {
        for after in [
            ListAfter::Key("a/b".to_owned()),
            ListAfter::Prefix("é/".to_owned()),
        ] {
            assert_eq!(parse_token(&token(&after)).unwrap(), after);
        }
        for bad in ["", "!", "AAAA", "a"] {
            assert_eq!(
                parse_token(bad).unwrap_err().code(),
                Code::InvalidArgument,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_marker_that_is_a_common_prefix_skips_it() {
        let key = |text: &str| ListAfter::Key(text.to_owned());
        let prefix = |text: &str| ListAfter::Prefix(text.to_owned());
        assert_eq!(after_marker("boo/", "", Some("/")), prefix("boo/"));
        assert_eq!(after_marker("boo/bar", "", Some("/")), key("boo/bar"));
        assert_eq!(after_marker("a/b/", "a/", Some("/")), prefix("a/b/"));
        assert_eq!(after_marker("a/b/c/", "a/", Some("/")), key("a/b/c/"));
        assert_eq!(after_marker("boo/", "", None), key("boo/"));
        assert_eq!(after_marker("x", "y", Some("/")), key("x"));
    }
}
