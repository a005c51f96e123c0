//! The query string, decoded once.
//!
//! All decoded text lies in one buffer; a pair is two ranges in it, so a presigned request with a
//! dozen parameters costs two allocations.

use std::ops::Range;

use crate::error::{Code, Result, S3Error};

/// A request with more parameters than this is refused.
const PARAMETERS_MAX: usize = 256;

/// The parameters of one request, in the order sent, duplicates kept.
#[derive(Debug, Default)]
pub(crate) struct Query {
    text: String,
    pairs: Vec<(Range<usize>, Range<usize>)>,
}

impl Query {
    /// Decodes the raw query, without its `?`.
    ///
    /// `+` is a space, as AWS reads it. A name without `=` has an empty value.
    ///
    /// # Errors
    /// `InvalidURI` for a bad percent-encoding or bytes that are not UTF-8.
    pub(crate) fn parse(raw: &str) -> Result<Self> {
        let mut bytes = Vec::with_capacity(raw.len());
        let mut pairs = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == PARAMETERS_MAX {
                return Err(S3Error::with(
                    Code::InvalidURI,
                    "Too many query parameters.",
                ));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_into(&mut bytes, name, raw)?;
            let value = decode_into(&mut bytes, value, raw)?;
            pairs.push((name, value));
        }
        let text = String::from_utf8(bytes).map_err(|_| invalid(raw))?;
        // Two halves of one character must not have been joined from two parameters.
        let whole = |range: &Range<usize>| {
            text.is_char_boundary(range.start) && text.is_char_boundary(range.end)
        };
        if !pairs
            .iter()
            .all(|(name, value)| whole(name) && whole(value))
        {
            return Err(invalid(raw));
        }
        Ok(Self { text, pairs })
    }

    /// The first value of a parameter; names are case-sensitive.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|pair| pair.0 == name).map(|pair| pair.1)
    }

    /// Whether a parameter is there, with or without a value.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All pairs in the order sent.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    /// Whether there is no parameter.
    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn invalid(raw: &str) -> S3Error {
    S3Error::new(Code::InvalidURI).field("URI", raw)
}

fn decode_into(bytes: &mut Vec<u8>, part: &str, raw: &str) -> Result<Range<usize>> {
    let start = bytes.len();
    percent_decode_into(bytes, part.as_bytes(), Plus::Space).map_err(|()| invalid(raw))?;
    Ok(start..bytes.len())
}

/// What a `+` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plus {
    /// Itself, as in a path.
    Plus,
    /// A space, as in a query.
    Space,
}

/// Appends the decoded bytes of `encoded`; `Err` for a `%` without two hex digits after it.
pub(crate) fn percent_decode_into(
    bytes: &mut Vec<u8>,
    encoded: &[u8],
    plus: Plus,
) -> std::result::Result<(), ()> {
    let mut rest = encoded;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (&[high, low], after) = rest.split_first_chunk::<2>().ok_or(())?;
                bytes.push(hex_digit(high)? << 4 | hex_digit(low)?);
                rest = after;
            }
            b'+' if plus == Plus::Space => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    Ok(())
}

fn hex_digit(digit: u8) -> std::result::Result<u8, ()> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(()),
    }
}

/// Decodes a whole text; `None` for a bad encoding or bytes that are not UTF-8.
pub(crate) fn percent_decode(encoded: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    percent_decode_into(&mut bytes, encoded.as_bytes(), plus).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_in_order() {
        let query = Query::parse("list-type=2&prefix=a%2Fb+c&acl&x=&x=2&&").expect("valid");
        assert_eq!(
            query.iter().collect::<Vec<_>>(),
            [
                ("list-type", "2"),
                ("prefix", "a/b c"),
                ("acl", ""),
                ("x", ""),
                ("x", "2")
            ]
        );
        assert_eq!(query.get("x"), Some(""));
        assert!(query.has("acl"));
        assert!(!query.has("ACL"));
    }

    #[test]
    fn what_is_not_utf8_or_not_encoded_rightly_is_refused() {
        for raw in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=%c3&b=%a9", "%c3=%a9"] {
            let error = Query::parse(raw).expect_err(raw);
            assert_eq!(error.code(), Code::InvalidURI, "{raw}");
        }
    }

    #[test]
    fn a_plus_is_a_plus_in_a_path() {
        assert_eq!(
            percent_decode("a+b%2b", Plus::Plus).as_deref(),
            Some("a+b+")
        );
        assert_eq!(percent_decode("a+b", Plus::Space).as_deref(), Some("a b"));
    }
}
