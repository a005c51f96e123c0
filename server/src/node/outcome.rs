//! What an answer says of the cache: `Cache-Status` ([RFC 9211]) and `x-forebay-cache`.
//!
//! [RFC 9211]: https://www.rfc-editor.org/rfc/rfc9211

use forebay_cache::Directive;
use http::{HeaderMap, HeaderName, HeaderValue};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const OUTCOME: HeaderName = HeaderName::from_static("x-forebay-cache");

/// How many bytes of an object the cache has: what `forebay warm` goes by.
const CACHED: HeaderName = HeaderName::from_static("x-forebay-cached");

/// Says how many bytes of an object the cache has.
pub(crate) fn push_cached(headers: &mut HeaderMap, bytes: u64) {
    headers.insert(CACHED, bytes.into());
}

/// What the cache had of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it.
    Hit,
    /// Some of it.
    Partial,
    /// Nothing of it.
    Miss,
    /// It was not asked.
    Bypass,
    /// It was told to get all of the object.
    Prestage,
    /// All of it, as it was before the origin went down.
    Stale,
}

impl Outcome {
    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Partial => "PARTIAL",
            Self::Miss => "MISS",
            Self::Bypass => "BYPASS",
            Self::Prestage => "PRESTAGE",
            Self::Stale => "STALE",
        }
    }

    const fn status(self, fills: bool) -> &'static str {
        match (self, fills) {
            (Self::Hit, _) => "forebay; hit",
            (Self::Partial, true) => "forebay; fwd=partial; stored",
            (Self::Partial, false) => "forebay; fwd=partial",
            (Self::Miss, true) => "forebay; fwd=miss; stored",
            (Self::Miss, false) => "forebay; fwd=miss",
            (Self::Bypass, _) => "forebay; fwd=bypass",
            (Self::Prestage, _) => "forebay; fwd=method",
            (Self::Stale, _) => "forebay; hit; detail=stale",
        }
    }

    /// Says it in an answer. What caches before this one have said stays, before it.
    pub(crate) fn push(self, headers: &mut HeaderMap, directive: Directive) {
        let status = HeaderValue::from_static(self.status(directive.fills()));
        headers.append(CACHE_STATUS, status);
        headers.insert(OUTCOME, HeaderValue::from_static(self.word()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_happened() {
        let rows = [
            (Outcome::Hit, Directive::Use, "forebay; hit", "HIT"),
            (Outcome::Hit, Directive::NoFill, "forebay; hit", "HIT"),
            (
                Outcome::Miss,
                Directive::Use,
                "forebay; fwd=miss; stored",
                "MISS",
            ),
            (
                Outcome::Miss,
                Directive::NoFill,
                "forebay; fwd=miss",
                "MISS",
            ),
            (
                Outcome::Partial,
                Directive::NoFill,
                "forebay; fwd=partial",
                "PARTIAL",
            ),
            (
                Outcome::Bypass,
                Directive::Bypass,
                "forebay; fwd=bypass",
                "BYPASS",
            ),
            (
                Outcome::Stale,
                Directive::Use,
                "forebay; hit; detail=stale",
                "STALE",
            ),
        ];
        for (outcome, directive, status, word) in rows {
            let mut headers = HeaderMap::new();
            headers.append(CACHE_STATUS, HeaderValue::from_static("other; hit"));
            outcome.push(&mut headers, directive);
            let all: Vec<_> = headers.get_all(CACHE_STATUS).iter().collect();
            assert_eq!(all, ["other; hit", status]);
            assert_eq!(headers[OUTCOME], word);
        }
    }
}
