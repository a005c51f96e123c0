//! Headers that are kept with an object, and headers that ask for what is not built.
//!
//! What a header asks for is done or refused, never passed over: a client that asks for encryption
//! or a lock must not believe it has them.

use forebay_store::entry::{Attributes, Entry, Headers};
use forebay_store::limits::USER_METADATA_SIZE_MAX;
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, ETAG,
    EXPIRES, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Code, Result, S3Error};
use crate::query::Query;
use crate::{tag, time};

/// The type of an object that was put without one.
pub(crate) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";
const META: &str = "x-amz-meta-";

const STORAGE_CLASSES: [&str; 11] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "OUTPOSTS",
    "GLACIER_IR",
    "SNOW",
    "EXPRESS_ONEZONE",
];

/// A header's text, if it is there.
///
/// # Errors
/// `InvalidArgument` for bytes that are not UTF-8.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(S3Error::argument(name, "", "The header is not UTF-8.")),
    }
}

/// What a request gives with an object.
///
/// # Errors
/// `MetadataTooLarge`, `InvalidStorageClass`, and what [`tag::parse_header`] gives.
pub(crate) fn attributes(headers: &HeaderMap) -> Result<Attributes> {
    let owned =
        |name: HeaderName| Ok::<_, S3Error>(text(headers, name.as_str())?.map(str::to_owned));
    let kept = Headers {
        content_type: owned(CONTENT_TYPE)?.filter(|value| !value.is_empty()),
        cache_control: owned(CACHE_CONTROL)?,
        content_disposition: owned(CONTENT_DISPOSITION)?,
        content_encoding: text(headers, "content-encoding")?.and_then(without_aws_chunked),
        content_language: owned(CONTENT_LANGUAGE)?,
        expires: owned(EXPIRES)?,
    };
    let tags = text(headers, "x-amz-tagging")?
        .map(tag::parse_header)
        .transpose()?;
    Ok(Attributes {
        headers: kept,
        user_metadata: user_metadata(headers)?,
        tags: tags.unwrap_or_default(),
        storage_class: storage_class(headers)?,
    })
}

/// `Content-Encoding` without the word that only frames the upload; else as it came.
fn without_aws_chunked(value: &str) -> Option<String> {
    let frames = |word: &&str| word.eq_ignore_ascii_case("aws-chunked");
    let words = || {
        value
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
    };
    if !words().any(|word| frames(&word)) {
        return (!value.trim().is_empty()).then(|| value.to_owned());
    }
    let left: Vec<&str> = words().filter(|word| !frames(word)).collect();
    (!left.is_empty()).then(|| left.join(", "))
}

fn user_metadata(headers: &HeaderMap) -> Result<Vec<(String, Vec<u8>)>> {
    let mut metadata: Vec<(String, Vec<u8>)> = Vec::new();
    let mut size = 0;
    for name in headers.keys() {
        let Some(short) = name.as_str().strip_prefix(META) else {
            continue;
        };
        let values: Vec<&[u8]> = headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let value = values.join(&b","[..]);
        size += short.len() + value.len();
        metadata.push((short.to_owned(), value));
    }
    if size > USER_METADATA_SIZE_MAX {
        return Err(S3Error::new(Code::MetadataTooLarge)
            .field("Size", size.to_string())
            .field("MaxSizeAllowed", USER_METADATA_SIZE_MAX.to_string()));
    }
    Ok(metadata)
}

/// The storage class of a request, other than `STANDARD`.
///
/// # Errors
/// `InvalidStorageClass`.
pub(crate) fn storage_class(headers: &HeaderMap) -> Result<Option<String>> {
    match text(headers, "x-amz-storage-class")? {
        None | Some("STANDARD") => Ok(None),
        Some(class) if STORAGE_CLASSES.contains(&class) => Ok(Some(class.to_owned())),
        Some(class) => {
            Err(S3Error::new(Code::InvalidStorageClass).field("StorageClassRequested", class))
        }
    }
}

/// Refuses what a write asks for and is not built: grants, locks, encryption.
///
/// # Errors
/// `NotImplemented`, `InvalidEncryptionAlgorithmError`, `InvalidArgument` for an unknown ACL.
pub(crate) fn refuse_unbuilt(headers: &HeaderMap) -> Result<()> {
    for name in headers
        .keys()
        .map(HeaderName::as_str)
        .filter(|name| name.starts_with("x-amz-"))
    {
        let unbuilt = name.starts_with("x-amz-grant-")
            || name.starts_with("x-amz-object-lock-")
            || name.starts_with("x-amz-server-side-encryption-")
            || name.starts_with("x-amz-copy-source-server-side-encryption-")
            || name == "x-amz-write-offset-bytes";
        if unbuilt {
            return Err(S3Error::not_implemented(name));
        }
    }
    if let Some(algorithm) = text(headers, "x-amz-server-side-encryption")? {
        return Err(match algorithm {
            "AES256" | "aws:kms" | "aws:kms:dsse" | "aws:fsx" => {
                S3Error::not_implemented("x-amz-server-side-encryption")
            }
            other => S3Error::new(Code::InvalidEncryptionAlgorithmError)
                .field("ArgumentName", "x-amz-server-side-encryption")
                .field("ArgumentValue", other),
        });
    }
    refuse_unbuilt_acl(headers)
}

/// Refuses an ACL that says anything else than that the owner may do everything.
///
/// Only the bucket's owner writes, so that the ACLs about the bucket's owner say no more than that.
///
/// # Errors
/// `NotImplemented`, `InvalidArgument` for an unknown ACL.
pub(crate) fn refuse_unbuilt_acl(headers: &HeaderMap) -> Result<()> {
    match text(headers, "x-amz-acl")? {
        None | Some("private" | "bucket-owner-read" | "bucket-owner-full-control") => Ok(()),
        Some(
            "public-read" | "public-read-write" | "authenticated-read" | "aws-exec-read"
            | "log-delivery-write",
        ) => Err(S3Error::not_implemented("x-amz-acl")),
        Some(other) => Err(S3Error::argument(
            "x-amz-acl",
            other,
            "The canned ACL is unknown.",
        )),
    }
}

/// Refuses encryption headers on a read: no object here is encrypted by a client's key.
///
/// # Errors
/// `InvalidRequest`.
pub(crate) fn refuse_encryption_on_read(headers: &HeaderMap) -> Result<()> {
    let asks = |name: &HeaderName| name.as_str().starts_with("x-amz-server-side-encryption");
    if headers.keys().any(asks) {
        return Err(S3Error::request(
            "The encryption parameters are not applicable to this object.",
        ));
    }
    Ok(())
}

/// Adds what every answer about an object has.
pub(crate) fn push_object(headers: &mut HeaderMap, entry: &Entry) {
    push_validators(headers, entry);
    push_kept(headers, entry);
    if !entry.attributes.tags.is_empty() {
        let count = HeaderName::from_static("x-amz-tagging-count");
        headers.insert(count, entry.attributes.tags.len().into());
    }
}

/// Adds what the client gave with an object.
pub(crate) fn push_kept(headers: &mut HeaderMap, entry: &Entry) {
    let kept = &entry.attributes.headers;
    push_text(
        headers,
        CONTENT_TYPE,
        Some(kept.content_type.as_deref().unwrap_or(DEFAULT_CONTENT_TYPE)),
    );
    push_text(
        headers,
        CONTENT_DISPOSITION,
        kept.content_disposition.as_deref(),
    );
    push_text(headers, CONTENT_ENCODING, kept.content_encoding.as_deref());
    push_text(headers, CONTENT_LANGUAGE, kept.content_language.as_deref());
    let class = HeaderName::from_static("x-amz-storage-class");
    push_text(headers, class, entry.attributes.storage_class.as_deref());
    let mut missing = 0_u32;
    for (name, value) in &entry.attributes.user_metadata {
        let name = HeaderName::from_bytes(format!("{META}{name}").as_bytes());
        match (name, HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) => drop(headers.insert(name, value)),
            _ => missing += 1,
        }
    }
    if missing > 0 {
        headers.insert(
            HeaderName::from_static("x-amz-missing-meta"),
            missing.into(),
        );
    }
}

/// Adds what also a 304 has.
pub(crate) fn push_validators(headers: &mut HeaderMap, entry: &Entry) {
    headers.insert(ETAG, etag(entry));
    let modified = time::http_date(entry.modified_at.seconds());
    push_text(headers, LAST_MODIFIED, Some(&modified));
    push_text(
        headers,
        CACHE_CONTROL,
        entry.attributes.headers.cache_control.as_deref(),
    );
    push_text(
        headers,
        EXPIRES,
        entry.attributes.headers.expires.as_deref(),
    );
    if let Some(version) = &entry.version_id {
        push_text(
            headers,
            HeaderName::from_static("x-amz-version-id"),
            Some(version.as_str()),
        );
    }
}

/// The entity tag in quotes.
pub(crate) fn etag(entry: &Entry) -> HeaderValue {
    quoted(&entry.etag)
}

/// An entity tag in quotes.
pub(crate) fn quoted(etag: &forebay_store::entry::ETag) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{etag}\"")).expect("an entity tag is hexadecimal")
}

/// Adds a header if there is a value that a header can have.
pub(crate) fn push_text(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
        headers.insert(name, value);
    }
}

/// The `response-*` parameters and the headers they replace.
const OVERRIDES: [(&str, HeaderName); 6] = [
    ("response-content-type", CONTENT_TYPE),
    ("response-content-language", CONTENT_LANGUAGE),
    ("response-expires", EXPIRES),
    ("response-cache-control", CACHE_CONTROL),
    ("response-content-disposition", CONTENT_DISPOSITION),
    ("response-content-encoding", CONTENT_ENCODING),
];

/// Whether a request replaces headers of the answer.
pub(crate) fn has_overrides(query: &Query) -> bool {
    OVERRIDES.iter().any(|(name, _)| query.has(name))
}

/// Replaces headers of the answer as the request asks.
///
/// # Errors
/// `InvalidArgument` for a value with a control character, which could begin another header.
pub(crate) fn push_overrides(headers: &mut HeaderMap, query: &Query) -> Result<()> {
    for (name, header) in OVERRIDES {
        let Some(value) = query.get(name) else {
            continue;
        };
        let bad = |_| S3Error::argument(name, value, "The value can't stand in a header.");
        headers.insert(header, HeaderValue::from_str(value).map_err(bad)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[test]
    fn what_is_kept_is_what_was_sent() {
        let given = attributes(&headers(&[
            ("content-type", "text/plain"),
            ("cache-control", "no-store"),
            ("content-encoding", "gzip, aws-chunked"),
            ("expires", "never"),
            ("x-amz-meta-one", "a"),
            ("x-amz-meta-one", "b"),
            ("x-amz-meta-empty", ""),
            ("x-amz-meta-utf8", "é"),
            ("x-amz-tagging", "k=v"),
            ("x-amz-storage-class", "STANDARD_IA"),
        ]))
        .unwrap();
        assert_eq!(given.headers.content_type.as_deref(), Some("text/plain"));
        assert_eq!(given.headers.cache_control.as_deref(), Some("no-store"));
        assert_eq!(given.headers.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(given.headers.expires.as_deref(), Some("never"));
        let metadata = [("one", "a,b"), ("empty", ""), ("utf8", "é")];
        let expected = metadata.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(given.user_metadata, expected);
        assert_eq!(given.tags, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(given.storage_class.as_deref(), Some("STANDARD_IA"));
    }

    #[test]
    fn aws_chunked_is_never_kept() {
        assert_eq!(without_aws_chunked("aws-chunked"), None);
        assert_eq!(
            without_aws_chunked("AWS-Chunked,gzip").as_deref(),
            Some("gzip")
        );
        assert_eq!(without_aws_chunked("gzip").as_deref(), Some("gzip"));
        assert_eq!(
            without_aws_chunked("a, aws-chunked,b").as_deref(),
            Some("a, b")
        );
        assert_eq!(without_aws_chunked("a,b").as_deref(), Some("a,b"));
    }

    #[test]
    fn limits_and_classes_are_checked() {
        let long = "x".repeat(2045);
        assert!(attributes(&headers(&[("x-amz-meta-abc", &long)])).is_ok());
        let error = attributes(&headers(&[("x-amz-meta-abcd", &long)])).unwrap_err();
        assert_eq!(error.code(), Code::MetadataTooLarge);
        let error = attributes(&headers(&[("x-amz-storage-class", "FAST")])).unwrap_err();
        assert_eq!(error.code(), Code::InvalidStorageClass);
    }

    #[test]
    fn what_is_not_built_is_refused() {
        let rows = [
            ("x-amz-acl", "public-read", Code::NotImplemented),
            ("x-amz-acl", "mine", Code::InvalidArgument),
            ("x-amz-grant-read", "id=x", Code::NotImplemented),
            ("x-amz-object-lock-mode", "GOVERNANCE", Code::NotImplemented),
            (
                "x-amz-server-side-encryption",
                "AES256",
                Code::NotImplemented,
            ),
            (
                "x-amz-server-side-encryption",
                "aws:kms",
                Code::NotImplemented,
            ),
            (
                "x-amz-server-side-encryption",
                "ROT13",
                Code::InvalidEncryptionAlgorithmError,
            ),
            (
                "x-amz-server-side-encryption-customer-algorithm",
                "AES256",
                Code::NotImplemented,
            ),
        ];
        for (name, value, code) in rows {
            assert_eq!(
                refuse_unbuilt(&headers(&[(name, value)]))
                    .unwrap_err()
                    .code(),
                code,
                "{name}"
            );
        }
        assert!(refuse_unbuilt(&headers(&[("x-amz-acl", "private")])).is_ok());
        assert!(
            refuse_encryption_on_read(&headers(&[("x-amz-server-side-encryption", "AES256")]))
                .is_err()
        );
    }

    #[test]
    fn overrides_cannot_begin_another_header() {
        for bad in ["a%0d%0aSet-Cookie:x", "a%0a", "a%00", "%7f"] {
            let query = Query::parse(&format!("response-content-type={bad}")).unwrap();
            assert!(has_overrides(&query));
            let error = push_overrides(&mut HeaderMap::new(), &query).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{bad}");
        }
    }
}
