//! Where the origin is, and how requests name things there.

use std::fmt;
use std::net::Ipv6Addr;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};

use super::error::OriginError;
use crate::sign::{encode, encode_path};

/// Longest path with its query, in bytes; `http` has 16 bits for it.
const TARGET_LEN_MAX: usize = 60_000;

/// An origin's URL: scheme, host and port.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    scheme: Scheme,
    authority: Authority,
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// `store:9000`.
    #[error("`{0}` has no scheme; write http:// or https:// before it")]
    NoScheme(String),
    /// `ftp://store`.
    #[error("`{0}` is not a scheme of an origin; http and https are")]
    Scheme(String),
    /// `http://me:secret@store`.
    #[error("an origin's URL has no user; credentials are given apart")]
    User,
    /// `http://store/path`.
    #[error("an origin's URL has no path; this one has `{0}`")]
    Path(String),
    /// `http://store?x`.
    #[error("an origin's URL has no query and no fragment")]
    Query,
    /// `http://:9000`, `http://a b`.
    #[error("`{0}` is not a host's name or address")]
    Host(String),
    /// `http://store:x`, `http://store:0`.
    #[error("`{0}` is not a port")]
    Port(String),
}

impl Endpoint {
    /// Reads `http://host`, `https://host:port`; a single slash may follow.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| EndpointError::NoScheme(text.to_owned()))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return Err(EndpointError::Scheme(scheme.to_owned())),
        };
        if rest.contains(['?', '#']) {
            return Err(EndpointError::Query);
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        // First, lest a secret be shown by what comes after.
        if authority.contains('@') {
            return Err(EndpointError::User);
        }
        if !matches!(path, "" | "/") {
            return Err(EndpointError::Path(path.to_owned()));
        }
        let (host, port) = split(authority)?;
        let default = if scheme == Scheme::HTTP { 80 } else { 443 };
        let authority = match port {
            Some(port) if port != default => format!("{host}:{port}"),
            _ => host.clone(),
        };
        Ok(Self {
            scheme,
            authority: authority.parse().map_err(|_| EndpointError::Host(host))?,
        })
    }

    /// Whether it is spoken to with TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Host and port; the port only if it is not the scheme's own.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// What `Host` is in a request that is not passed on.
    pub(super) fn host(&self) -> HeaderValue {
        HeaderValue::from_str(self.authority()).expect("an authority is a header's value")
    }

    /// The absolute URI of a target here.
    pub(super) fn uri(&self, target: PathAndQuery) -> Uri {
        self.uri_at(self.authority.clone(), target)
    }

    fn uri_at(&self, authority: Authority, target: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(authority);
        parts.path_and_query = Some(target);
        Uri::from_parts(parts).expect("all three parts are there")
    }

    /// The URI of a bucket, an object, or the service.
    ///
    /// # Errors
    /// [`OriginError::Invalid`] if it would be too long.
    pub(super) fn locate(
        &self,
        addressing: Addressing,
        bucket: Option<&str>,
        key: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<Uri, OriginError> {
        let at_host = bucket
            .filter(|bucket| addressing == Addressing::Virtual && self.can_be_host(bucket))
            .and_then(|bucket| format!("{bucket}.{}", self.authority).parse().ok());
        let mut target = String::with_capacity(256);
        if let Some(bucket) = bucket.filter(|_| at_host.is_none()) {
            target.push('/');
            target.push_str(&encode(bucket));
        }
        if let Some(key) = key {
            target.push('/');
            target.push_str(&encode_path(key));
        }
        if target.is_empty() {
            target.push('/');
        }
        for (index, (name, value)) in query.iter().enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            target.push_str(&encode(name));
            target.push('=');
            target.push_str(&encode(value));
        }
        if target.len() > TARGET_LEN_MAX {
            let len = target.len();
            return Err(OriginError::Invalid(format!("a URI of {len} bytes")));
        }
        let target = PathAndQuery::try_from(target).expect("encoded text is a path");
        Ok(self.uri_at(at_host.unwrap_or_else(|| self.authority.clone()), target))
    }

    /// Whether a bucket can be a label before the host's name. No certificate is for one with dots.
    fn can_be_host(&self, bucket: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = self
            .authority
            .host()
            .bytes()
            .any(|b| b.is_ascii_alphabetic())
            && !self.authority.host().starts_with('[');
        is_name
            && (3..=63).contains(&bucket.len())
            && bucket.bytes().all(plain)
            && !bucket.starts_with('-')
            && !bucket.ends_with('-')
    }
}

/// Where a request names its bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// In the path: works everywhere.
    #[default]
    Path,
    /// In the host's name, for buckets whose names allow it; some services want that.
    Virtual,
}

/// Host, in small letters, and port.
fn split(authority: &str) -> Result<(String, Option<u16>), EndpointError> {
    let host_error = || EndpointError::Host(authority.to_owned());
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or_else(host_error)?;
        let address: Ipv6Addr = address.parse().map_err(|_| host_error())?;
        let port = match port {
            "" => None,
            port => Some(port.strip_prefix(':').ok_or_else(host_error)?),
        };
        (format!("[{address}]"), port)
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (authority.to_ascii_lowercase(), None),
        }
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || !(host.starts_with('[') || host.bytes().all(is_plain)) {
        return Err(host_error());
    }
    let number = |port: &str| {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        port.parse().ok().filter(|port: &u16| digits && *port != 0)
    };
    let port = port
        .map(|port| number(port).ok_or_else(|| EndpointError::Port(port.to_owned())))
        .transpose()?;
    Ok((host, port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls_are_written_in_one_way() {
        for (text, expected) in [
            ("http://store:9000", "http://store:9000"),
            ("http://store:9000/", "http://store:9000"),
            ("HTTP://Store", "http://store"),
            ("http://store:80", "http://store"),
            ("https://store:443", "https://store"),
            ("https://store:80", "https://store:80"),
            ("http://10.0.0.1:1", "http://10.0.0.1:1"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("http://[0:0::1]", "http://[::1]"),
            ("http://a_b.c-d.e", "http://a_b.c-d.e"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn bad_urls_are_refused_with_what_is_wrong() {
        let text = str::to_owned;
        for (url, expected) in [
            ("store:9000", EndpointError::NoScheme(text("store:9000"))),
            ("", EndpointError::NoScheme(text(""))),
            ("s3://store", EndpointError::Scheme(text("s3"))),
            ("http://me:secret@store", EndpointError::User),
            ("http://me:secret@store/x", EndpointError::User),
            ("http://store/path", EndpointError::Path(text("/path"))),
            ("http://store//", EndpointError::Path(text("//"))),
            ("http://store?x", EndpointError::Query),
            ("http://store#x", EndpointError::Query),
            ("http://", EndpointError::Host(text(""))),
            ("http://:9000", EndpointError::Host(text(":9000"))),
            ("http://a b", EndpointError::Host(text("a b"))),
            ("http://a%b", EndpointError::Host(text("a%b"))),
            ("http://[::1", EndpointError::Host(text("[::1"))),
            ("http://[::x]", EndpointError::Host(text("[::x]"))),
            ("http://[::1]9", EndpointError::Host(text("[::1]9"))),
            ("http://store:", EndpointError::Port(text(""))),
            ("http://store:x", EndpointError::Port(text("x"))),
            ("http://store:0", EndpointError::Port(text("0"))),
            ("http://store:+1", EndpointError::Port(text("+1"))),
            ("http://store:65536", EndpointError::Port(text("65536"))),
            ("http://store:1:2", EndpointError::Port(text("1:2"))),
        ] {
            assert_eq!(Endpoint::parse(url), Err(expected), "{url}");
        }
    }

    #[test]
    fn keys_are_named_byte_for_byte() {
        let endpoint = Endpoint::parse("http://store:9000").unwrap();
        for (key, expected) in [
            ("k", "http://store:9000/b/k"),
            ("a b+c%d", "http://store:9000/b/a%20b%2Bc%25d"),
            ("a//b/./../c/", "http://store:9000/b/a//b/./../c/"),
            ("/k", "http://store:9000/b//k"),
            ("ü?#", "http://store:9000/b/%C3%BC%3F%23"),
        ] {
            let uri = endpoint.locate(Addressing::Path, Some("b"), Some(key), &[]);
            assert_eq!(uri.unwrap().to_string(), expected, "{key}");
        }
    }

    #[test]
    fn buckets_are_in_the_host_if_that_is_wanted_and_possible() {
        for (url, bucket, expected) in [
            ("https://s3.x", "abc", "https://abc.s3.x/k?versionId=a%2Fb"),
            (
                "https://s3.x",
                "a.bc",
                "https://s3.x/a.bc/k?versionId=a%2Fb",
            ),
            (
                "http://10.0.0.1",
                "abc",
                "http://10.0.0.1/abc/k?versionId=a%2Fb",
            ),
            ("http://[::a]", "abc", "http://[::a]/abc/k?versionId=a%2Fb"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            let query = [("versionId", "a/b")];
            let uri = endpoint.locate(Addressing::Virtual, Some(bucket), Some("k"), &query);
            assert_eq!(uri.unwrap().to_string(), expected, "{url}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let endpoint = Endpoint::parse("http://store").unwrap();
        let prefix = "ü".repeat(20_000);
        let uri = endpoint.locate(
            Addressing::Path,
            Some("b"),
            None,
            &[("prefix", prefix.as_str())],
        );
        assert!(matches!(uri, Err(OriginError::Invalid(_))), "{uri:?}");
    }
}
