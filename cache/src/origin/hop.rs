//! Headers that belong to one connection and are not passed on ([RFC 9110 §7.6.1]).
//!
//! [RFC 9110 §7.6.1]: https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HOST, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

const ALWAYS: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes them, and those that `Connection` names.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    for name in named.iter().chain(&ALWAYS) {
        headers.remove(name);
    }
}

/// What `Connection` can't name: a request or an answer would mean something else without it.
fn is_end_to_end(name: &HeaderName) -> bool {
    [AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HOST].contains(name)
        || name.as_str().starts_with("x-amz-")
        || name.as_str().starts_with("x-forebay-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_connection_goes_and_all_else_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-mine"),
            ("connection", "Host,x-forebay-node, X-Amz-Date"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-mine", "1"),
            ("host", "h"),
            ("x-forebay-node", "1"),
            ("x-amz-date", "d"),
            ("x-amz-meta-a", "1"),
            ("x-amz-meta-a", "2"),
            ("expect", "100-continue"),
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        left.sort_unstable();
        let expected = ["expect", "host", "x-amz-date", "x-amz-meta-a"];
        left.dedup();
        assert_eq!(left, [&expected[..], &["x-forebay-node"]].concat());
        assert_eq!(headers.get_all("x-amz-meta-a").iter().count(), 2);
    }
}
