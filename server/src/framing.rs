//! Requests that two servers could read differently are refused before anything else is done.
//!
//! Where a proxy in front and this server disagree on a request's host or end, one client's bytes
//! become another's request ([RFC 9112 §11.2]). `hyper` refuses malformed lines, folded lines, and
//! lengths that are no number or differ. It drops a `Content-Length` beside a `Transfer-Encoding`
//! before we could see it, goes by the latter alone, and closes the connection, as [§6.1] wants it.
//!
//! [RFC 9112 §11.2]: https://www.rfc-editor.org/rfc/rfc9112#section-11.2
//! [§6.1]: https://www.rfc-editor.org/rfc/rfc9112#section-6.1

use http::header::{HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Version};

use crate::error::{Result, S3Error};

/// Checks what says for whom a request is and where it ends.
///
/// # Errors
/// `InvalidRequest`.
pub(crate) fn check(request: &Parts) -> Result<()> {
    let host = only(request, &HOST)?;
    if host.is_none() && request.version >= Version::HTTP_11 {
        return Err(S3Error::request("The request has no Host."));
    }
    if host.is_some_and(|host| !host.as_bytes().iter().all(|byte| is_of_host(*byte))) {
        return Err(S3Error::request("Host is not the name of a host."));
    }
    if let (Some(host), Some(authority)) = (host, request.uri.authority())
        && !host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(S3Error::request("Host is not the one in the request line."));
    }
    // Any other coding would be left on what is stored.
    let coding = only(request, &TRANSFER_ENCODING)?;
    if coding.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(S3Error::request("Transfer-Encoding is not just chunked."));
    }
    Ok(())
}

/// A header that may be there once.
fn only<'r>(request: &'r Parts, name: &HeaderName) -> Result<Option<&'r HeaderValue>> {
    let mut values = request.headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(S3Error::request(format!("{name} is there more than once.")));
    }
    Ok(first)
}

/// Whether a name, an address or a port can have this byte.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn is_clear(version: Version, uri: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0).is_ok()
    }

    #[test]
    fn a_request_has_one_host() {
        let now = |uri, hosts: &[&str]| {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            is_clear(Version::HTTP_11, uri, &headers)
        };
        for host in ["h", "h:9000", "a.b_c.h", "[::1]:9000", ""] {
            assert!(now("/b/k", &[host]), "{host}");
        }
        for host in ["u@h", "h/b", "h, h", "a b", "h?x", "h#x", "h\\b"] {
            assert!(!now("/b/k", &[host]), "{host}");
        }
        assert!(!now("/b/k", &[]));
        assert!(!now("/b/k", &["h", "h"]));
        assert!(is_clear(Version::HTTP_10, "/b/k", &[]));
        assert!(now("http://h:80/b/k", &["H:80"]));
        assert!(!now("http://h/b/k", &["other"]));
        assert!(!now("http://h:80/b/k", &["h"]));
        assert!(!now("http://u@h/b/k", &["h"]));
        assert!(!now("h:80", &["other"]));
    }

    #[test]
    fn a_body_is_chunked_and_nothing_else() {
        let with = |codings: &[&str]| {
            let mut headers = vec![("host", "h")];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            is_clear(Version::HTTP_11, "/b/k", &headers)
        };
        assert!(with(&[]));
        assert!(with(&["Chunked"]));
        for codings in [
            &["identity, chunked"][..],
            &["gzip"],
            &["chunked", "chunked"],
            &["identity", "chunked"],
        ] {
            assert!(!with(codings), "{codings:?}");
        }
    }
}
