//! A client's request as the node's own: path-style, without the client's signature.

use forebay_cache::sign::{encode, encode_path};
use http::HeaderMap;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;

use crate::auth::Mechanism;
use crate::error::{Result, S3Error};
use crate::query::Query;
use crate::target::Target;

/// What is the client's connection's, or part of the client's signature.
const NOT_OURS: [HeaderName; 14] = [
    AUTHORIZATION,
    CONNECTION,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("x-amz-content-sha256"),
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
];

/// What only tells how a body is framed.
const FRAMING: [HeaderName; 3] = [
    HeaderName::from_static("x-amz-decoded-content-length"),
    HeaderName::from_static("x-amz-sdk-checksum-algorithm"),
    HeaderName::from_static("x-amz-trailer"),
];

/// A request that is still to be signed.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// Path and query.
    pub(super) target: PathAndQuery,
    /// The headers.
    pub(super) headers: HeaderMap,
}

/// Writes a request anew. Headers that stood in a presigned query are among the headers.
///
/// # Errors
/// `InvalidURI` for what is too long.
pub(super) fn request(
    target: &Target,
    query: &Query,
    mut headers: HeaderMap,
    mechanism: Mechanism,
) -> Result<Rewritten> {
    let mut text = String::from("/");
    if let Some(bucket) = &target.bucket {
        text.push_str(&encode(bucket));
    }
    if let Some(key) = &target.key {
        text.push('/');
        text.push_str(&encode_path(key));
    }
    let presigns = |name: &str| {
        mechanism == Mechanism::Query
            && name
                .get(..6)
                .is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"))
    };
    let pairs = query.iter().filter(|(name, _)| !presigns(name));
    for (index, (name, value)) in pairs.enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        text.push_str(&encode(name));
        text.push('=');
        text.push_str(&encode(value));
    }
    for name in &NOT_OURS {
        headers.remove(name);
    }
    let target = PathAndQuery::try_from(text);
    Ok(Rewritten {
        target: target.map_err(|_| S3Error::request("The URI is too long to be passed on."))?,
        headers,
    })
}

/// Takes out what `Connection` names, which is for this connection alone (RFC 9110, section 7.6.1).
///
/// To be done before a signature is verified: whoever has a signed request of another may name what
/// was signed, and it must then not hold.
pub(super) fn drop_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Changes the headers of a body that is sent on without its frames.
pub(super) fn unframe(headers: &mut HeaderMap, len: Option<u64>) {
    for name in &FRAMING {
        headers.remove(name);
    }
    headers.remove(CONTENT_LENGTH);
    if let Some(len) = len {
        headers.insert(CONTENT_LENGTH, len.into());
    }
    let encoding = headers.remove(CONTENT_ENCODING);
    let words = encoding.as_ref().and_then(|value| value.to_str().ok());
    let words = words.into_iter().flat_map(|value| value.split(','));
    let left: Vec<&str> = words
        .map(str::trim)
        .filter(|word| !word.is_empty() && !word.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    if let (false, Ok(value)) = (left.is_empty(), HeaderValue::from_str(&left.join(", "))) {
        headers.insert(CONTENT_ENCODING, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::Compat;

    fn rewritten(host: &str, path: &str, query: &str, mechanism: Mechanism) -> Rewritten {
        let domains = ["h.test".to_owned()];
        let target = Target::parse(host, path, &domains, Compat::Forebay).unwrap();
        let query = Query::parse(query).unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", host),
            ("connection", "x-mine, Content-Length"),
            ("x-mine", "1"),
            ("content-length", "0"),
            ("authorization", "AWS4-HMAC-SHA256 x"),
            ("x-amz-date", "d"),
            ("x-amz-security-token", "t"),
            ("x-amz-content-sha256", "h"),
            ("x-amz-meta-a", "1"),
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        drop_named(&mut headers);
        request(&target, &query, headers, mechanism).unwrap()
    }

    #[test]
    fn a_request_names_the_same_and_loses_its_signature() {
        let rows = [
            ("h.test", "/b/a%2Fc+d", "acl", "/b/a/c%2Bd?acl="),
            ("b.h.test", "/a//c/", "", "/b/a//c/"),
            (
                "b.h.test",
                "/",
                "list-type=2&prefix=a+b",
                "/b?list-type=2&prefix=a%20b",
            ),
            ("h.test", "/", "", "/"),
        ];
        for (host, path, query, expected) in rows {
            let rewritten = rewritten(host, path, query, Mechanism::Header);
            assert_eq!(rewritten.target.as_str(), expected);
            let mut names: Vec<_> = rewritten.headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["content-length", "x-amz-meta-a"]);
        }
    }

    #[test]
    fn a_presigned_query_keeps_what_is_no_signature() {
        let query = "X-Amz-Signature=0&X-Amz-Expires=5&versionId=v&x-amz-acl=private";
        let presigned = rewritten("h.test", "/b/k", query, Mechanism::Query);
        assert_eq!(presigned.target.as_str(), "/b/k?versionId=v");
    }

    #[test]
    fn what_tells_of_frames_goes_with_them() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-length", "99"),
            ("content-encoding", "AWS-chunked, gzip"),
            ("x-amz-decoded-content-length", "5"),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        unframe(&mut headers, Some(5));
        assert_eq!(headers.len(), 2);
        assert_eq!(headers[CONTENT_LENGTH], "5");
        assert_eq!(headers[CONTENT_ENCODING], "gzip");
        unframe(&mut headers, None);
        assert!(!headers.contains_key(CONTENT_LENGTH));
    }
}
