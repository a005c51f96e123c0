//! Signature Version 4: the canonical request, the string to sign, and the `Authorization` header.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>. S3 encodes the
//! path once and normalises nothing; what is signed is the *decoded* path encoded anew, so `%2f`
//! and `%2F` sign the same, and the key that is checked is the key that is used.

use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

use crate::error::{Code, Result, S3Error};
use crate::query::Query;

/// The one algorithm that is taken.
pub(crate) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// AWS's text; `s3cmd` compares it to learn that it must sign with version 4.
const USE_V4: &str =
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";

/// Refuses a signature of an older version.
pub(crate) fn older_version() -> S3Error {
    S3Error::with(Code::InvalidRequest, USE_V4)
}

/// `key id/yyyymmdd/region/s3/aws4_request`, not yet believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credential<'r> {
    /// The access key's id; may hold `/`.
    pub(crate) key_id: &'r str,
    /// `yyyymmdd`.
    pub(crate) date: &'r str,
    /// Any text.
    pub(crate) region: &'r str,
}

impl<'r> Credential<'r> {
    /// Splits from the right; `Err` says what is wrong with it.
    pub(crate) fn parse(text: &'r str) -> std::result::Result<Self, &'static str> {
        let mut parts = text.rsplitn(5, '/');
        let mut next = || {
            parts
                .next()
                .ok_or("expecting \"<key id>/YYYYMMDD/REGION/SERVICE/aws4_request\"")
        };
        let (terminal, service, region, date, key_id) =
            (next()?, next()?, next()?, next()?, next()?);
        if terminal != "aws4_request" {
            return Err("the credential must end in aws4_request");
        }
        if service != "s3" {
            return Err("the service must be s3");
        }
        if date.len() != 8 || !date.bytes().all(|b| b.is_ascii_digit()) {
            return Err("the credential's date must be of the form yyyymmdd");
        }
        if key_id.is_empty() || region.is_empty() {
            return Err("the credential has an empty part");
        }
        Ok(Self {
            key_id,
            date,
            region,
        })
    }
}

/// The three parts of an `Authorization` header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuthorizationHeader<'r> {
    /// Who signs, when, for where.
    pub(crate) credential: Credential<'r>,
    /// Names joined by `;`.
    pub(crate) signed_headers: &'r str,
    /// 64 hexadecimal digits, if it is a signature.
    pub(crate) signature: &'r str,
}

impl<'r> AuthorizationHeader<'r> {
    /// Parses the header's value.
    ///
    /// # Errors
    /// `InvalidRequest` for version 2, `InvalidArgument` for another scheme or no scheme,
    /// `AuthorizationHeaderMalformed` for a missing or malformed component.
    pub(crate) fn parse(value: &'r str) -> Result<Self> {
        let malformed = |message: &str| {
            S3Error::with(
                Code::AuthorizationHeaderMalformed,
                format!("The authorization header is malformed; {message}."),
            )
        };
        let unsupported = || {
            S3Error::argument(
                "Authorization",
                value_without_signature(value),
                "Unsupported Authorization Type",
            )
        };
        let (scheme, components) = value.trim().split_once(' ').ok_or_else(unsupported)?;
        match scheme {
            ALGORITHM => {}
            "AWS" => return Err(older_version()),
            _ => return Err(unsupported()),
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for component in components.split(',') {
            let (name, value) = component
                .trim()
                .split_once('=')
                .ok_or_else(|| malformed("a component has no value"))?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(malformed("it has an unknown component")),
            };
            if place.replace(value).is_some() {
                return Err(malformed("a component is there twice"));
            }
        }
        let credential = credential.ok_or_else(|| malformed("the Credential is missing"))?;
        Ok(Self {
            credential: Credential::parse(credential).map_err(malformed)?,
            signed_headers: signed_headers.ok_or_else(|| malformed("SignedHeaders is missing"))?,
            signature: signature.ok_or_else(|| malformed("the Signature is missing"))?,
        })
    }
}

/// What may be shown back of a value that may hold a signature.
fn value_without_signature(value: &str) -> &str {
    value.split(' ').next().unwrap_or("")
}

/// All that a signature covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signed<'r> {
    /// The request's method.
    pub(crate) method: &'r Method,
    /// The whole path, decoded once.
    pub(crate) path: &'r str,
    /// The parameters.
    pub(crate) query: &'r Query,
    /// The headers as received.
    pub(crate) headers: &'r HeaderMap,
    /// Names joined by `;`, as the client lists them.
    pub(crate) names: &'r str,
    /// `x-amz-content-sha256` or `UNSIGNED-PAYLOAD`.
    pub(crate) payload: &'r str,
}

impl Signed<'_> {
    /// The canonical request.
    pub(crate) fn canonical_request(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        out.extend_from_slice(self.method.as_str().as_bytes());
        out.push(b'\n');
        if self.path.is_empty() {
            out.push(b'/');
        }
        push_encoded(&mut out, self.path.as_bytes(), Slash::Kept);
        out.push(b'\n');
        self.push_query(&mut out);
        out.push(b'\n');
        for name in self.names.split(';') {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            self.push_header_values(&mut out, name);
            out.push(b'\n');
        }
        out.push(b'\n');
        out.extend_from_slice(self.names.as_bytes());
        out.push(b'\n');
        out.extend_from_slice(self.payload.as_bytes());
        out
    }

    fn push_query(&self, out: &mut Vec<u8>) {
        if self.query.is_empty() {
            return;
        }
        let mut encoded = Vec::with_capacity(512);
        let mut pairs = Vec::with_capacity(16);
        for (name, value) in self.query.iter() {
            if name == "X-Amz-Signature" {
                continue;
            }
            let start = encoded.len();
            push_encoded(&mut encoded, name.as_bytes(), Slash::Encoded);
            let middle = encoded.len();
            push_encoded(&mut encoded, value.as_bytes(), Slash::Encoded);
            pairs.push((start..middle, middle..encoded.len()));
        }
        pairs.sort_by(|a, b| {
            encoded[a.0.clone()]
                .cmp(&encoded[b.0.clone()])
                .then_with(|| encoded[a.1.clone()].cmp(&encoded[b.1.clone()]))
        });
        for (index, (name, value)) in pairs.into_iter().enumerate() {
            if index > 0 {
                out.push(b'&');
            }
            out.extend_from_slice(&encoded[name]);
            out.push(b'=');
            out.extend_from_slice(&encoded[value]);
        }
    }

    fn push_header_values(&self, out: &mut Vec<u8>, name: &str) {
        for (index, value) in self.headers.get_all(name).iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let words = value
                .as_bytes()
                .split(|byte| matches!(byte, b' ' | b'\t'))
                .filter(|word| !word.is_empty());
            for (index, word) in words.enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                out.extend_from_slice(word);
            }
        }
    }
}

/// What becomes of `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slash {
    Kept,
    Encoded,
}

fn push_encoded(out: &mut Vec<u8>, bytes: &[u8], slash: Slash) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            b'/' if slash == Slash::Kept => out.push(byte),
            _ => out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
}

/// The string to sign of a canonical request.
pub(crate) fn string_to_sign(
    amz_date: &str,
    credential: &Credential<'_>,
    canonical: &[u8],
) -> String {
    let mut digest = [0; 64];
    hex::encode_to_slice(Sha256::digest(canonical), &mut digest).expect("64 digits");
    let mut text = String::with_capacity(160);
    for part in [
        ALGORITHM,
        "\n",
        amz_date,
        "\n",
        credential.date,
        "/",
        credential.region,
    ] {
        text.push_str(part);
    }
    text.push_str("/s3/aws4_request\n");
    text.push_str(std::str::from_utf8(&digest).expect("hexadecimal digits are ASCII"));
    text
}

/// The `x-amz-*` headers (and `host`) of a request that its signature does not cover.
pub(crate) fn headers_not_signed(headers: &HeaderMap, signed_headers: &str) -> Option<String> {
    let is_signed = |name: &str| signed_headers.split(';').any(|signed| signed == name);
    let mut missing: Vec<&str> = headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.starts_with("x-amz-") && !is_signed(name))
        .collect();
    if !is_signed("host") {
        missing.insert(0, "host");
    }
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
#[path = "sigv4/tests.rs"]
mod tests;
