//! What a request names: a bucket and a key, out of `Host` and path.
//!
//! The path is decoded once and nothing of it is normalised: `a//b`, `./a` and `a/../b` are three
//! keys. The same decoded path is signed, authorized and stored.

use forebay_store::name::{BucketName, VersionId};

use crate::call::Level;
use crate::compat::Compat;
use crate::error::{Code, Result, S3Error};
use crate::query::{Plus, percent_decode};

/// What a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The whole path, decoded.
    pub(crate) path: String,
    /// The bucket's name, not yet checked.
    pub(crate) bucket: Option<String>,
    /// The key, not yet checked.
    pub(crate) key: Option<String>,
    /// Whether the bucket was in `Host`.
    pub(crate) virtual_host: bool,
}

impl Target {
    /// Reads `Host` and the raw path.
    ///
    /// A host that is no base domain, nor below one, is taken as one: an unknown name is no bucket.
    ///
    /// # Errors
    /// `InvalidURI`; `InvalidRequest` for a path-style request where the profile has none.
    pub(crate) fn parse(
        host: &str,
        raw_path: &str,
        base_domains: &[String],
        compat: Compat,
    ) -> Result<Self> {
        let path = percent_decode(raw_path, Plus::Plus)
            .ok_or_else(|| S3Error::new(Code::InvalidURI).field("URI", raw_path))?;
        let rest = path.strip_prefix('/').unwrap_or(&path);
        let not_empty = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        if let Some(bucket) = bucket_of_host(host, base_domains) {
            let key = not_empty(rest);
            return Ok(Self {
                bucket: Some(bucket),
                key,
                virtual_host: true,
                path,
            });
        }
        if rest.is_empty() {
            return Ok(Self {
                bucket: None,
                key: None,
                virtual_host: false,
                path,
            });
        }
        if !compat.path_style() && is_base_domain(host, base_domains) {
            return Err(S3Error::request("Path-style addressing is not supported."));
        }
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let (bucket, key) = (Some(bucket.to_owned()), not_empty(key));
        Ok(Self {
            bucket,
            key,
            virtual_host: false,
            path,
        })
    }

    /// Whether it names nothing, a bucket or an object.
    pub(crate) fn level(&self) -> Level {
        match (&self.bucket, &self.key) {
            (None, _) => Level::Service,
            (Some(_), None) => Level::Bucket,
            (Some(_), Some(_)) => Level::Object,
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_base_domain(host: &str, base_domains: &[String]) -> bool {
    base_domains
        .iter()
        .any(|domain| domain.eq_ignore_ascii_case(without_port(host)))
}

fn bucket_of_host(host: &str, base_domains: &[String]) -> Option<String> {
    let host = without_port(host);
    if base_domains.is_empty() || is_base_domain(host, base_domains) {
        return None;
    }
    base_domains.iter().find_map(|domain| {
        let split = host.len().checked_sub(domain.len())?;
        let (front, end) = (host.get(..split)?, host.get(split..)?);
        let bucket = front
            .strip_suffix('.')
            .filter(|_| end.eq_ignore_ascii_case(domain))?;
        (!bucket.is_empty()).then(|| bucket.to_ascii_lowercase())
    })
}

/// Beginnings of names that AWS keeps for itself.
const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
/// Ends of names that AWS keeps for itself.
const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
/// Beginnings of names that `CoreWeave` keeps for itself.
const COREWEAVE_PREFIXES: [&str; 3] = ["cw-", "vip-", "log-stitcher-ch-"];

/// Checks a bucket's name by the profile's rules.
///
/// # Errors
/// `InvalidBucketName`.
pub(crate) fn bucket_name(text: &str, compat: Compat) -> Result<BucketName> {
    let name = BucketName::parse(text)?;
    let reserved = RESERVED_PREFIXES
        .iter()
        .any(|prefix| text.starts_with(prefix))
        || RESERVED_SUFFIXES
            .iter()
            .any(|suffix| text.ends_with(suffix))
        || (compat.coreweave_reserved_names()
            && (text == "int"
                || COREWEAVE_PREFIXES
                    .iter()
                    .any(|prefix| text.starts_with(prefix))));
    let character = (text.contains('_') && !compat.underscore_in_bucket_name())
        || (text.contains('.') && !compat.dot_in_bucket_name());
    if reserved || character {
        return Err(S3Error::new(Code::InvalidBucketName).field("BucketName", text));
    }
    Ok(name)
}

/// The `versionId` of a request.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn version_id(text: Option<&str>) -> Result<Option<VersionId>> {
    text.map(|text| {
        VersionId::parse(text)
            .map_err(|_| S3Error::argument("versionId", text, "Invalid version id specified"))
    })
    .transpose()
}

/// What `x-amz-copy-source` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopySource {
    /// The bucket's name, not yet checked.
    pub(crate) bucket: String,
    /// The key, not yet checked.
    pub(crate) key: String,
    /// One version, not yet checked.
    pub(crate) version_id: Option<String>,
}

impl CopySource {
    /// Reads `[/]bucket/key[?versionId=id]`, percent-encoded as a whole or in part.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub(crate) fn parse(header: &str) -> Result<Self> {
        let bad = |message: &'static str| S3Error::argument("x-amz-copy-source", header, message);
        let (path, version_id) = match header.rsplit_once("?versionId=") {
            Some((path, version)) => (path, Some(version)),
            None => (header, None),
        };
        let decode = |text: &str| {
            percent_decode(text, Plus::Plus).ok_or_else(|| bad("Invalid copy source encoding."))
        };
        let path = decode(path)?;
        let (bucket, key) = path
            .strip_prefix('/')
            .unwrap_or(&path)
            .split_once('/')
            .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
            .ok_or_else(|| bad("Invalid copy source object key"))?;
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            version_id: version_id.map(decode).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(host: &str, path: &str) -> (Option<String>, Option<String>, bool) {
        let domains = ["s3.example.com".to_owned(), "localhost".to_owned()];
        let target = Target::parse(host, path, &domains, Compat::Forebay).unwrap();
        (target.bucket, target.key, target.virtual_host)
    }

    #[test]
    fn host_and_path_name_bucket_and_key() {
        let some = |text: &str| Some(text.to_owned());
        let rows = [
            ("localhost:9000", "/", (None, None, false)),
            ("localhost:9000", "/b", (some("b"), None, false)),
            ("localhost:9000", "/b/", (some("b"), None, false)),
            ("localhost:9000", "/b/k", (some("b"), some("k"), false)),
            ("localhost:9000", "/b//k", (some("b"), some("/k"), false)),
            ("localhost:9000", "/b/k/", (some("b"), some("k/"), false)),
            (
                "localhost:9000",
                "/b/a/../c",
                (some("b"), some("a/../c"), false),
            ),
            (
                "localhost:9000",
                "/b/a%2Fb%20c+d",
                (some("b"), some("a/b c+d"), false),
            ),
            ("b.localhost:9000", "/", (some("b"), None, true)),
            ("b.localhost", "/k/x", (some("b"), some("k/x"), true)),
            ("B.S3.Example.COM", "/k", (some("b"), some("k"), true)),
            ("my.b.s3.example.com", "/k", (some("my.b"), some("k"), true)),
            ("other.example.com", "/b/k", (some("b"), some("k"), false)),
            ("127.0.0.1:9000", "/b/k", (some("b"), some("k"), false)),
            ("xlocalhost", "/b/k", (some("b"), some("k"), false)),
            (".localhost", "/b/k", (some("b"), some("k"), false)),
            ("[::1]:9000", "/b/k", (some("b"), some("k"), false)),
            ("", "/b/k", (some("b"), some("k"), false)),
        ];
        for (host, path, expected) in rows {
            assert_eq!(parse(host, path), expected, "{host}{path}");
        }
    }

    #[test]
    fn a_path_that_is_no_text_is_refused() {
        for path in ["/b/%", "/b/%f", "/b/%ff", "/b/%zz"] {
            let error = Target::parse("h", path, &[], Compat::Forebay).unwrap_err();
            assert_eq!(error.code(), Code::InvalidURI, "{path}");
        }
    }

    #[test]
    fn bucket_names_follow_the_profile() {
        for good in ["abc", "a.b.c", "my_bucket"] {
            bucket_name(good, Compat::Forebay).expect(good);
        }
        for bad in [
            "ab",
            "ABC",
            "xn--abc",
            "sthree-x",
            "amzn-s3-demo-x",
            "x-s3alias",
            "x--ol-s3",
            "192.168.1.1",
        ] {
            let error = bucket_name(bad, Compat::Forebay).expect_err(bad);
            assert_eq!(error.code(), Code::InvalidBucketName);
        }
        assert!(bucket_name("my_bucket", Compat::Aws).is_err());
        assert!(bucket_name("a.b.c", Compat::Coreweave).is_err());
        assert!(bucket_name("cw-abc", Compat::Coreweave).is_err());
        assert!(bucket_name("cw-abc", Compat::Forebay).is_ok());
    }

    #[test]
    fn copy_sources_are_split_then_decoded() {
        let source = |bucket: &str, key: &str, version: Option<&str>| CopySource {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            version_id: version.map(str::to_owned),
        };
        let rows = [
            ("b/k", source("b", "k", None)),
            ("/b/k", source("b", "k", None)),
            ("b%2Fk%2fx", source("b", "k/x", None)),
            ("%2Fb%2Fk", source("b", "k", None)),
            ("b/k+1%20", source("b", "k+1 ", None)),
            ("b/k?versionId=null", source("b", "k", Some("null"))),
            ("b/k%3FversionId=x", source("b", "k?versionId=x", None)),
            ("b//k", source("b", "/k", None)),
        ];
        for (header, expected) in rows {
            assert_eq!(CopySource::parse(header).unwrap(), expected, "{header}");
        }
        for bad in [
            "",
            "b",
            "/b/",
            "/b",
            "//k",
            "b/%",
            "b/%ff",
            "b/k?versionId=%",
        ] {
            let error = CopySource::parse(bad).expect_err(bad);
            assert_eq!(error.code(), Code::InvalidArgument);
        }
    }
}
