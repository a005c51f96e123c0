//! `Content-MD5`, `x-amz-checksum-*` and their trailers
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>).
//!
//! [`Expected`] is what a request says of its body; the store computes, and [`Expected::verify`]
//! compares and says which checksum is kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_store::digest::{Checksum, ChecksumAlgorithm, ChecksumType, DigestSet, Digests};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::{Payload, same_digest};
use crate::error::{Code, Result, S3Error};
use crate::xml::write::ChecksumElements;

const PREFIX: &str = "x-amz-checksum-";
/// Headers that begin so and hold no checksum.
const NOT_VALUES: [&str; 3] = [
    "x-amz-checksum-algorithm",
    "x-amz-checksum-type",
    "x-amz-checksum-mode",
];

/// The header that has a checksum of this algorithm.
pub(crate) const fn header_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

/// The algorithm's name in headers and documents.
pub(crate) const fn algorithm_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
    }
}

/// The type's name in headers and documents.
pub(crate) const fn type_name(kind: ChecksumType) -> &'static str {
    match kind {
        ChecksumType::FullObject => "FULL_OBJECT",
        ChecksumType::Composite => "COMPOSITE",
    }
}

/// Reads an algorithm's name, in any case.
///
/// # Errors
/// `InvalidRequest`.
pub(crate) fn parse_algorithm(text: &str) -> Result<ChecksumAlgorithm> {
    ChecksumAlgorithm::ALL
        .into_iter()
        .find(|algorithm| algorithm_name(*algorithm).eq_ignore_ascii_case(text))
        .ok_or_else(|| {
            S3Error::request(
                "Checksum algorithm provided is unsupported. Please try again with any of the valid \
                 types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]",
            )
        })
}

fn by_header(name: &str) -> Option<ChecksumAlgorithm> {
    ChecksumAlgorithm::ALL
        .into_iter()
        .find(|algorithm| header_name(*algorithm) == name)
}

/// Reads a value of `algorithm` that came in a header or trailer.
///
/// # Errors
/// `InvalidRequest` for another length; `BadDigest` for what is no base64, and so no digest of
/// anything.
pub(crate) fn header_value(algorithm: ChecksumAlgorithm, text: &str) -> Result<Vec<u8>> {
    match BASE64.decode(text) {
        Ok(value) if value.len() == algorithm.value_len() => Ok(value),
        Ok(_) => Err(invalid_value(header_name(algorithm))),
        Err(_) => Err(S3Error::with(
            Code::BadDigest,
            format!(
                "The {} you specified is no checksum.",
                algorithm_name(algorithm)
            ),
        )),
    }
}

/// Reads a value of `algorithm`; `None` if it is no base64 or of the wrong length.
pub(crate) fn parse_value(algorithm: ChecksumAlgorithm, text: &str) -> Option<Vec<u8>> {
    BASE64
        .decode(text)
        .ok()
        .filter(|value| value.len() == algorithm.value_len())
}

fn invalid_value(name: &str) -> S3Error {
    S3Error::request(format!("Value for {name} header is invalid."))
}

/// What a request says of its body's checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Declared {
    /// Nothing.
    None,
    /// This value.
    Value(ChecksumAlgorithm, Vec<u8>),
    /// A value that comes in the trailer.
    Trailer(ChecksumAlgorithm),
}

/// What a request says of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    /// `Content-MD5`.
    pub(crate) md5: Option<[u8; 16]>,
    /// The checksum.
    pub(crate) checksum: Declared,
    /// SHA-256 of the body that the signature covers.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// The one `x-amz-checksum-*` header of a request that has a value: its name and text.
///
/// # Errors
/// `InvalidRequest` for several, or an unknown algorithm.
pub(crate) fn value_header(headers: &HeaderMap) -> Result<Option<(ChecksumAlgorithm, &str)>> {
    let mut found = None;
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with(PREFIX) || NOT_VALUES.contains(&name) {
            continue;
        }
        let algorithm =
            by_header(name).map_or_else(|| parse_algorithm(&name[PREFIX.len()..]), Ok)?;
        let text = value.to_str().map_err(|_| invalid_value(name))?;
        if found.replace((algorithm, text)).is_some() {
            return Err(S3Error::request(
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ));
        }
    }
    Ok(found)
}

fn declared(headers: &HeaderMap) -> Result<Declared> {
    let header = value_header(headers)?;
    let trailer = headers.get("x-amz-trailer").map(|value| {
        let text = value
            .to_str()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        by_header(&text).ok_or_else(|| {
            S3Error::request("The value specified in the x-amz-trailer header is not supported")
        })
    });
    let declared = match (header, trailer.transpose()?) {
        (Some(_), Some(_)) => {
            return Err(S3Error::request(
                "Expecting a single x-amz-checksum- header",
            ));
        }
        (Some((algorithm, text)), None) => {
            Declared::Value(algorithm, header_value(algorithm, text)?)
        }
        (None, Some(algorithm)) => Declared::Trailer(algorithm),
        (None, None) => Declared::None,
    };
    if let Some(named) = headers.get("x-amz-sdk-checksum-algorithm") {
        let named = parse_algorithm(named.to_str().unwrap_or_default())?;
        match declared {
            Declared::Value(algorithm, _) | Declared::Trailer(algorithm) if algorithm == named => {}
            Declared::None => {
                return Err(S3Error::request(
                    "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
                ));
            }
            _ => {
                return Err(S3Error::request(
                    "Value for x-amz-sdk-checksum-algorithm header is invalid.",
                ));
            }
        }
    }
    Ok(declared)
}

fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>> {
    let Some(value) = headers.get("content-md5") else {
        return Ok(None);
    };
    let digest = BASE64
        .decode(value.as_bytes())
        .ok()
        .and_then(|digest| digest.try_into().ok());
    digest.map(Some).ok_or_else(|| {
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        S3Error::new(Code::InvalidDigest).field("Content-MD5", text)
    })
}

impl Expected {
    /// Reads the headers.
    ///
    /// # Errors
    /// `InvalidDigest`, `InvalidRequest`.
    pub(crate) fn parse(headers: &HeaderMap, sha256: Option<[u8; 32]>) -> Result<Self> {
        Ok(Self {
            md5: content_md5(headers)?,
            checksum: declared(headers)?,
            sha256,
        })
    }

    /// Reads the headers of a request whose body is a document.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub(crate) fn of_document(headers: &HeaderMap, payload: &Payload) -> Result<Self> {
        Self::parse(headers, payload.signed_hash())
    }

    /// As [`of_document`](Self::of_document), where checksum headers speak of something else.
    ///
    /// # Errors
    /// `InvalidDigest`.
    pub(crate) fn without_checksum(headers: &HeaderMap, payload: &Payload) -> Result<Self> {
        Ok(Self {
            md5: content_md5(headers)?,
            checksum: Declared::None,
            sha256: payload.signed_hash(),
        })
    }

    /// Whether the request says anything of its body.
    pub(crate) fn has_digest(&self) -> bool {
        self.md5.is_some() || self.checksum != Declared::None || self.sha256.is_some()
    }

    /// The algorithm of the declared checksum.
    pub(crate) fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        match self.checksum {
            Declared::None => None,
            Declared::Value(algorithm, _) | Declared::Trailer(algorithm) => Some(algorithm),
        }
    }

    /// What has to be computed.
    pub(crate) fn digests(&self) -> DigestSet {
        let mut set = self
            .algorithm()
            .map_or(DigestSet::MD5, |algorithm| DigestSet::MD5.with(algorithm));
        if self.sha256.is_some() {
            set = set.with(ChecksumAlgorithm::Sha256);
        }
        set
    }

    /// Compares with what arrived; the declared checksum's value, if one was declared.
    ///
    /// # Errors
    /// `XAmzContentSHA256Mismatch`, `BadDigest`, `InvalidRequest` for a trailer's malformed value,
    /// `MalformedTrailerError` for a trailer that did not come.
    pub(crate) fn verify(
        &self,
        digests: &Digests,
        trailer: Option<&(String, String)>,
    ) -> Result<Option<(ChecksumAlgorithm, Vec<u8>)>> {
        if let Some(expected) = &self.sha256 {
            let found = digests.sha256.expect("asked for by `digests`");
            if !same_digest(expected, &found) {
                return Err(S3Error::new(Code::XAmzContentSHA256Mismatch)
                    .field("ClientComputedContentSHA256", hex::encode(expected))
                    .field("S3ComputedContentSHA256", hex::encode(found)));
            }
        }
        if let Some(expected) = &self.md5 {
            let found = digests.md5.expect("always asked for");
            if expected != &found {
                return Err(S3Error::with(
                    Code::BadDigest,
                    "The Content-MD5 you specified did not match what we received.",
                )
                .field("ExpectedDigest", BASE64.encode(expected))
                .field("CalculatedDigest", BASE64.encode(found)));
            }
        }
        let (algorithm, expected) = match &self.checksum {
            Declared::None => return Ok(None),
            Declared::Value(algorithm, value) => (*algorithm, value.clone()),
            Declared::Trailer(algorithm) => {
                let (_, text) = trailer.ok_or(Code::MalformedTrailerError)?;
                (*algorithm, header_value(*algorithm, text)?)
            }
        };
        let found = digests.checksum(algorithm).expect("asked for by `digests`");
        if found != expected {
            return Err(S3Error::with(
                Code::BadDigest,
                format!(
                    "The {} you specified did not match the calculated checksum.",
                    algorithm_name(algorithm)
                ),
            )
            .field("ExpectedDigest", BASE64.encode(expected))
            .field("CalculatedDigest", BASE64.encode(found)));
        }
        Ok(Some((algorithm, found)))
    }
}

/// A checksum's text: base64, and the number of parts where it is composite.
pub(crate) fn value_text(checksum: &Checksum) -> String {
    let text = BASE64.encode(&checksum.value);
    match checksum.kind {
        ChecksumType::FullObject => text,
        ChecksumType::Composite => format!("{text}-{}", checksum.parts),
    }
}

/// The text of a part's checksum.
pub(crate) fn part_text(value: &[u8]) -> String {
    BASE64.encode(value)
}

/// Adds the headers of a checksum.
pub(crate) fn push_headers(headers: &mut HeaderMap, checksum: &Checksum) {
    push_value(headers, checksum.algorithm, &value_text(checksum));
    let kind = HeaderValue::from_static(type_name(checksum.kind));
    headers.insert(HeaderName::from_static("x-amz-checksum-type"), kind);
}

/// Adds the header of a value.
pub(crate) fn push_value(headers: &mut HeaderMap, algorithm: ChecksumAlgorithm, text: &str) {
    let value = HeaderValue::from_str(text).expect("base64 is a valid header value");
    headers.insert(HeaderName::from_static(header_name(algorithm)), value);
}

/// A checksum as elements of a document.
pub(crate) fn elements(
    algorithm: ChecksumAlgorithm,
    text: String,
    kind: Option<ChecksumType>,
) -> ChecksumElements {
    let mut elements = ChecksumElements {
        kind: kind.map(type_name),
        ..ChecksumElements::default()
    };
    let place = match algorithm {
        ChecksumAlgorithm::Crc32 => &mut elements.crc32,
        ChecksumAlgorithm::Crc32c => &mut elements.crc32c,
        ChecksumAlgorithm::Crc64Nvme => &mut elements.crc64nvme,
        ChecksumAlgorithm::Sha1 => &mut elements.sha1,
        ChecksumAlgorithm::Sha256 => &mut elements.sha256,
    };
    *place = Some(text);
    elements
}

#[cfg(test)]
mod tests {
    use forebay_store::digest::Hasher;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        pairs.iter().map(pair).collect()
    }

    fn verify(
        pairs: &[(&'static str, &'static str)],
        trailer: Option<&str>,
    ) -> Result<Option<(ChecksumAlgorithm, Vec<u8>)>> {
        let expected = Expected::parse(&headers(pairs), None)?;
        let mut hasher = Hasher::new(expected.digests());
        hasher.update(b"hello world");
        let trailer = trailer.map(|value| ("x-amz-checksum".to_owned(), value.to_owned()));
        expected.verify(&hasher.finish(), trailer.as_ref())
    }

    #[test]
    fn right_digests_are_taken() {
        assert_eq!(verify(&[], None).unwrap(), None);
        assert_eq!(
            verify(&[("content-md5", "XrY7u+Ae7tCTyyK7j1rNww==")], None).unwrap(),
            None
        );
        let crc32 = (ChecksumAlgorithm::Crc32, vec![0x0d, 0x4a, 0x11, 0x85]);
        let row = [
            ("x-amz-checksum-crc32", "DUoRhQ=="),
            ("x-amz-sdk-checksum-algorithm", "crc32"),
        ];
        assert_eq!(verify(&row, None).unwrap(), Some(crc32));
        let crc64 = verify(&[("x-amz-checksum-crc64nvme", "jSnVw/bqjr4=")], None).unwrap();
        assert_eq!(crc64.unwrap().0, ChecksumAlgorithm::Crc64Nvme);
        let trailer = verify(
            &[("x-amz-trailer", "x-amz-checksum-crc32c")],
            Some("yZRlqg=="),
        );
        assert_eq!(trailer.unwrap().unwrap().0, ChecksumAlgorithm::Crc32c);
    }

    #[test]
    fn wrong_and_odd_digests_are_refused() {
        let rows: &[(&[(&'static str, &'static str)], Code)] = &[
            (&[("content-md5", "")], Code::InvalidDigest),
            (&[("content-md5", "rubbish")], Code::InvalidDigest),
            (&[("content-md5", "AAAA")], Code::InvalidDigest),
            (
                &[("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")],
                Code::BadDigest,
            ),
            (&[("x-amz-checksum-crc32", "AAAAAA==")], Code::BadDigest),
            (&[("x-amz-checksum-crc32", "AAAA")], Code::InvalidRequest),
            (&[("x-amz-checksum-crc32", "?")], Code::BadDigest),
            (&[("x-amz-checksum-md4", "AAAA")], Code::InvalidRequest),
            (
                &[
                    ("x-amz-checksum-crc32", "DUoRhQ=="),
                    ("x-amz-checksum-sha1", "x"),
                ],
                Code::InvalidRequest,
            ),
            (
                &[
                    ("x-amz-checksum-crc32", "DUoRhQ=="),
                    ("x-amz-trailer", "x-amz-checksum-crc32"),
                ],
                Code::InvalidRequest,
            ),
            (
                &[("x-amz-sdk-checksum-algorithm", "CRC32")],
                Code::InvalidRequest,
            ),
            (
                &[
                    ("x-amz-sdk-checksum-algorithm", "SHA1"),
                    ("x-amz-checksum-crc32", "DUoRhQ=="),
                ],
                Code::InvalidRequest,
            ),
            (
                &[
                    ("x-amz-sdk-checksum-algorithm", "X"),
                    ("x-amz-checksum-crc32", "DUoRhQ=="),
                ],
                Code::InvalidRequest,
            ),
            (&[("x-amz-trailer", "x-amz-meta-a")], Code::InvalidRequest),
            (
                &[("x-amz-trailer", "x-amz-checksum-crc32")],
                Code::MalformedTrailerError,
            ),
        ];
        for (row, code) in rows {
            assert_eq!(verify(row, None).unwrap_err().code(), *code, "{row:?}");
        }
        let trailer = [("x-amz-trailer", "x-amz-checksum-crc32")];
        assert_eq!(
            verify(&trailer, Some("AAAA")).unwrap_err().code(),
            Code::InvalidRequest
        );
        assert_eq!(
            verify(&trailer, Some("AAAAAA==")).unwrap_err().code(),
            Code::BadDigest
        );
    }

    #[test]
    fn the_signed_hash_is_checked_first() {
        let expected = Expected::parse(&headers(&[]), Some([0; 32])).unwrap();
        let mut hasher = Hasher::new(expected.digests());
        hasher.update(b"x");
        let error = expected.verify(&hasher.finish(), None).unwrap_err();
        assert_eq!(error.code(), Code::XAmzContentSHA256Mismatch);
    }
}
