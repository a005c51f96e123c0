//! AWS Signature Version 4, on the side that signs.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>. S3 encodes
//! a path once and normalises nothing. What is signed is the decoded path and query encoded anew,
//! so it does not matter how the request writes them.
//!
//! # Invariants
//! 1. No clock, no environment, no socket: a signature is a pure function of what is passed in.
//! 2. Every header that a request has when it is signed is covered, but for those of
//!    `NEVER_SIGNED`, which whoever forwards it may change.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use forebay_store::time::Timestamp;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use sha2::{Digest as _, Sha256};

use crate::time;

/// The algorithm's name.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What stands for the digest of a body that is not signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// What `SigV4` leaves as it is in a query: RFC 3986's unreserved characters.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The same in a path, which S3 signs with its slashes.
const PATH: &AsciiSet = &QUERY.remove(b'/');
/// Headers that are never signed: they belong to one connection, or are added on the way.
const NEVER_SIGNED: [&str; 9] = [
    "accept-encoding",
    "authorization",
    "connection",
    "expect",
    "te",
    "transfer-encoding",
    "user-agent",
    "x-amzn-trace-id",
    "x-forebay-node",
];

const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Encodes a name or value of a query.
pub fn encode(text: &str) -> String {
    percent_encode(text.as_bytes(), QUERY).to_string()
}

/// Encodes a path: slashes stay, nothing else that is not unreserved does.
pub fn encode_path(path: &str) -> String {
    percent_encode(path.as_bytes(), PATH).to_string()
}

/// `20260131T235959Z`; its first eight characters are the date of the scope.
pub fn timestamp(now: Timestamp) -> String {
    time::amz_date(now)
}

/// `20260131/us-east-1/s3/aws4_request`.
///
/// # Panics
/// If `amz_date` is not what [`timestamp`] gives.
pub fn scope(amz_date: &str, region: &str) -> String {
    format!("{}/{region}/s3/aws4_request", &amz_date[..8])
}

/// The string to sign of a canonical request.
pub fn string_to_sign(amz_date: &str, scope: &str, canonical: &[u8]) -> String {
    let hashed = hex::encode(Sha256::digest(canonical));
    format!("{ALGORITHM}\n{amz_date}\n{scope}\n{hashed}")
}

/// An access key with its secret.
#[derive(Clone)]
pub struct Credentials {
    /// The public part.
    pub key_id: String,
    /// The secret part.
    pub secret: String,
    /// What temporary credentials have besides.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// A key that signs requests of one day, region and secret.
#[derive(Clone)]
pub struct SigningKey([u8; 32]);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// Derives the key for a date (`yyyymmdd`) and a region.
    pub fn derive(secret: &str, date: &str, region: &str) -> Self {
        let secret = format!("AWS4{secret}");
        let steps = [region, "s3", "aws4_request"];
        Self(
            steps
                .iter()
                .fold(hmac(secret.as_bytes(), date), |key, step| hmac(&key, step)),
        )
    }

    /// The signature, in hexadecimal digits.
    pub fn sign(&self, string_to_sign: &str) -> String {
        hex::encode(hmac(&self.0, string_to_sign))
    }
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// What a signature says of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// There is none.
    #[default]
    Empty,
    /// Nothing: whoever is on the way could change it. For TLS, and for what is checked otherwise.
    Unsigned,
    /// Its digest.
    Sha256([u8; 32]),
}

impl Payload {
    /// Of a body at hand.
    pub fn of(body: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(body).into())
    }

    fn value(self) -> HeaderValue {
        let digest: [u8; 32] = match self {
            Self::Unsigned => return HeaderValue::from_static(UNSIGNED),
            Self::Empty => Sha256::digest([]).into(),
            Self::Sha256(digest) => digest,
        };
        HeaderValue::try_from(hex::encode(digest)).expect("digits are a header's value")
    }
}

/// Text that can't be in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} has characters that can't be in a header")]
pub struct NotSignable {
    /// Which text.
    pub what: &'static str,
}

/// Signs requests with one access key, for one region.
#[derive(Debug)]
pub struct Signer {
    credentials: Credentials,
    region: String,
    /// The date and key that were used last. Guards just that; held for a comparison.
    latest: Mutex<Option<(String, SigningKey)>>,
}

impl Signer {
    /// Checks that what goes into headers can.
    ///
    /// # Errors
    /// [`NotSignable`].
    pub fn new(credentials: Credentials, region: &str) -> Result<Self, NotSignable> {
        for (what, text) in [
            ("access key id", credentials.key_id.as_str()),
            ("region", region),
            (
                "session token",
                credentials.session_token.as_deref().unwrap_or_default(),
            ),
        ] {
            let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b',';
            if !text.bytes().all(is_plain) {
                return Err(NotSignable { what });
            }
        }
        Ok(Self {
            credentials,
            region: region.to_owned(),
            latest: Mutex::new(None),
        })
    }

    /// The access key that signs.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Signs what is there, in headers. A former signature is replaced; `Host` is taken from the
    /// URI if there is none.
    ///
    /// # Panics
    /// If there is neither `Host` nor a host in the URI.
    pub fn sign(&self, request: &mut Parts, payload: Payload, now: Timestamp) {
        let amz_date = timestamp(now);
        let headers = &mut request.headers;
        if !headers.contains_key(HOST) {
            let authority = request.uri.authority().expect("the URI is absolute");
            let host = HeaderValue::from_str(authority.as_str());
            headers.insert(HOST, host.expect("an authority is a header's value"));
        }
        headers.insert(CONTENT_SHA256, payload.value());
        let value = |text: &str| HeaderValue::from_str(text).expect("checked by Signer::new");
        headers.insert(AMZ_DATE, value(&amz_date));
        headers.remove(SECURITY_TOKEN);
        if let Some(token) = &self.credentials.session_token {
            headers.insert(SECURITY_TOKEN, value(token));
        }
        let authorization = self.authorization(request, &amz_date);
        let mut authorization = value(&authorization);
        authorization.set_sensitive(true);
        request.headers.insert(AUTHORIZATION, authorization);
    }

    fn authorization(&self, request: &Parts, amz_date: &str) -> String {
        let names = signed_names(&request.headers);
        let canonical = canonical_request(request, &names);
        let scope = scope(amz_date, &self.region);
        let signature = self
            .signing_key(&amz_date[..8])
            .sign(&string_to_sign(amz_date, &scope, &canonical));
        format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            self.credentials.key_id,
            names.join(";"),
        )
    }

    fn signing_key(&self, date: &str) -> SigningKey {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, key)) = &*latest
            && of == date
        {
            return key.clone();
        }
        let key = SigningKey::derive(&self.credentials.secret, date, &self.region);
        *latest = Some((date.to_owned(), key.clone()));
        key
    }
}

fn signed_names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<&str> = headers
        .keys()
        .map(HeaderName::as_str)
        .filter(|name| !NEVER_SIGNED.contains(name))
        .collect();
    names.sort_unstable();
    names
}

fn canonical_request(request: &Parts, names: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let path: Vec<u8> = percent_decode_str(request.uri.path()).collect();
    let query = canonical_query(request.uri.query().unwrap_or_default());
    for part in [
        request.method.as_str(),
        "\n",
        &percent_encode(&path, PATH).to_string(),
        "\n",
        &query,
        "\n",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    for name in names {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        push_values(&mut out, &request.headers, name);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(names.join(";").as_bytes());
    out.push(b'\n');
    let payload = request.headers.get(CONTENT_SHA256);
    out.extend_from_slice(payload.map_or(UNSIGNED.as_bytes(), HeaderValue::as_bytes));
    out
}

/// Parameters encoded anew, sorted by their encoded names and then values.
pub fn canonical_query(query: &str) -> String {
    let again = |text: &str| {
        // In a query, `+` is a space.
        let bytes: Vec<u8> = percent_decode_str(&text.replace('+', " ")).collect();
        percent_encode(&bytes, QUERY).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (again(name), again(value)))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// A header's values, joined by commas; runs of spaces are one.
fn push_values(out: &mut Vec<u8>, headers: &HeaderMap, name: &str) {
    for (index, value) in headers.get_all(name).iter().enumerate() {
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

#[cfg(test)]
#[path = "sign/tests.rs"]
mod tests;
