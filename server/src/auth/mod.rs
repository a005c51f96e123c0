//! Who is asking: the one function that decides it, and the value that proves it was called.
//!
//! A request is signed in its `Authorization` header, signed in its query, bears a node's
//! [`Grant`], or is anonymous. Every handler takes an [`Authenticated`], and only this module can
//! make one. Order of checks: syntax and date, access key, signature, what the signature must
//! cover, form of the payload's hash.

pub(crate) mod chunked;
pub(crate) mod granted;
mod key;
mod query;
mod sigv4;

pub(crate) use self::key::SigningKey;
pub(crate) use self::sigv4::Credential;

use std::sync::Arc;

use forebay_store::entry::{AccessKey, Account, Secret};
use http::{HeaderMap, Method};
use subtle::ConstantTimeEq as _;

use self::chunked::ChunkSigner;
use self::key::{SigningKeys, same_signature};
use self::query::Presigned;
use self::sigv4::{AuthorizationHeader, Signed};
use crate::call::{BodyKind, Call};
use crate::error::{Code, Result, S3Error};
use crate::grant::Grant;
use crate::query::Query;
use crate::time;

/// How far a request's date may be from ours, in seconds.
const SKEW_MAX_S: i64 = 900;

/// Headers that must not be there twice: two readers might believe different ones.
const ONCE: [&str; 8] = [
    "authorization",
    "x-amz-date",
    "date",
    "x-amz-content-sha256",
    "x-amz-security-token",
    "host",
    "content-length",
    "range",
];

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Principal {
    /// Nobody that we know.
    Anonymous,
    /// The account that an access key belongs to.
    Account {
        /// The account.
        account: Arc<Account>,
        /// The key that signed.
        key_id: String,
    },
    /// A node, on behalf of one whom the server let read one version.
    Granted(Grant),
}

/// What the body must be, for the signature to hold.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Any bytes.
    Unsigned,
    /// Bytes of this SHA-256.
    Hashed([u8; 32]),
    /// Framed in chunks.
    Chunked {
        /// Signs the chunks; none in the unsigned form.
        signer: Option<ChunkSigner>,
        /// Whether the form has a trailer.
        trailer: bool,
    },
}

impl Payload {
    /// The SHA-256 that the body must have, if the signature covers it.
    pub(crate) fn signed_hash(&self) -> Option<[u8; 32]> {
        match self {
            Self::Hashed(hash) => Some(*hash),
            Self::Unsigned | Self::Chunked { .. } => None,
        }
    }
}

/// Where a signature was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// Nowhere.
    None,
    /// In the `Authorization` header.
    Header,
    /// In the query.
    Query,
    /// Nowhere, but there was a grant.
    Grant,
}

/// A request whose sender is known (or known to be nobody).
#[derive(Debug)]
pub(crate) struct Authenticated {
    principal: Principal,
    payload: Payload,
    mechanism: Mechanism,
    signs_range: bool,
}

impl Authenticated {
    /// The access key that signed.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match &self.principal {
            Principal::Anonymous | Principal::Granted(_) => None,
            Principal::Account { key_id, .. } => Some(key_id),
        }
    }

    /// The grant that stands for a signature.
    pub(crate) fn grant(&self) -> Option<&Grant> {
        match &self.principal {
            Principal::Granted(grant) => Some(grant),
            Principal::Anonymous | Principal::Account { .. } => None,
        }
    }

    /// Whether the signature is for one `Range` only: with another one it would not hold.
    pub(crate) fn signs_range(&self) -> bool {
        self.signs_range
    }

    /// Where the signature was.
    pub(crate) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The account that asks.
    ///
    /// # Errors
    /// `AccessDenied` for nobody, and for a node.
    pub(crate) fn account(&self) -> Result<&Arc<Account>> {
        match &self.principal {
            Principal::Account { account, .. } => Ok(account),
            Principal::Anonymous | Principal::Granted(_) => Err(Code::AccessDenied.into()),
        }
    }

    /// Takes what the body must be; it can be taken once.
    pub(crate) fn take_payload(&mut self) -> Payload {
        std::mem::replace(&mut self.payload, Payload::Unsigned)
    }
}

/// What of a request decides who sent it.
#[derive(Debug)]
pub(crate) struct Asked<'r> {
    /// The request's method.
    pub(crate) method: &'r Method,
    /// The whole path, decoded once.
    pub(crate) path: &'r str,
    /// The parameters.
    pub(crate) query: &'r Query,
    /// What is called.
    pub(crate) call: &'static Call,
}

/// An access key that may sign.
#[derive(Debug)]
pub(crate) struct KnownKey {
    /// Whose it is.
    pub(crate) account: Arc<Account>,
    /// What its signatures are verified with.
    pub(crate) verifier: Verifier,
}

/// What verifies the signatures of an access key.
#[derive(Debug)]
pub(crate) enum Verifier {
    /// Its secret.
    Secret(Secret),
    /// The key that was derived from its secret for the scope that is claimed.
    Derived(SigningKey),
}

impl From<(AccessKey, Arc<Account>)> for KnownKey {
    fn from((key, account): (AccessKey, Arc<Account>)) -> Self {
        Self {
            account,
            verifier: Verifier::Secret(key.secret),
        }
    }
}

/// Finds the access key that a request claims to be signed with.
pub(crate) type FindKey<'f> = &'f (dyn Fn(&Credential<'_>) -> Option<KnownKey> + Sync);

/// Who a request says has signed it, for when and where. Nothing of it is verified.
pub(crate) fn claimed<'r>(query: &'r Query, headers: &'r HeaderMap) -> Option<Credential<'r>> {
    match headers.get("authorization") {
        Some(value) => {
            let header = AuthorizationHeader::parse(value.to_str().ok()?).ok()?;
            Some(header.credential)
        }
        None => Credential::parse(query.get("X-Amz-Credential")?).ok(),
    }
}

/// Decides who is asking.
#[derive(Debug)]
pub(crate) struct Authenticator {
    keys: SigningKeys,
    region: String,
    strict_region: bool,
}

/// A signature that was read and not yet verified.
struct Claim<'r> {
    credential: Credential<'r>,
    amz_date: std::borrow::Cow<'r, str>,
    signed_headers: &'r str,
    signature: &'r str,
    payload: &'r str,
    mechanism: Mechanism,
}

impl Authenticator {
    /// Knows no key yet.
    pub(crate) fn new(region: String, strict_region: bool) -> Self {
        Self {
            keys: SigningKeys::new(),
            region,
            strict_region,
        }
    }

    /// Says who sent a request. What a presigned one has in its query becomes headers.
    ///
    /// # Errors
    /// As section "Authentication" of S3's documentation has it; the codes are in the tests.
    pub(crate) fn authenticate(
        &self,
        asked: &Asked<'_>,
        headers: &mut HeaderMap,
        find_key: FindKey<'_>,
        now_s: i64,
    ) -> Result<Authenticated> {
        check_once(headers)?;
        let in_header = headers.contains_key("authorization");
        let in_query = query::is_presigned(asked.query);
        match (in_header, in_query) {
            (true, true) => Err(S3Error::with(
                Code::InvalidArgument,
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter or the \
                 Authorization header should be specified",
            )
            .field("ArgumentName", "Authorization")),
            (true, false) => self.by_header(asked, headers, find_key, now_s),
            (false, true) => {
                let authenticated = self.by_query(asked, headers, find_key, now_s)?;
                query::promote(asked.query, headers)?;
                Ok(authenticated)
            }
            (false, false) if query::is_older_version(asked.query) => Err(sigv4::older_version()),
            (false, false) => {
                let payload = anonymous_payload(asked.call, headers)?;
                let principal = Principal::Anonymous;
                Ok(Authenticated {
                    principal,
                    payload,
                    mechanism: Mechanism::None,
                    signs_range: false,
                })
            }
        }
    }

    fn by_header(
        &self,
        asked: &Asked<'_>,
        headers: &HeaderMap,
        find_key: FindKey<'_>,
        now_s: i64,
    ) -> Result<Authenticated> {
        let value = text(headers, "authorization")?.unwrap_or_default();
        let header = AuthorizationHeader::parse(value)?;
        let (amz_date, signed_at) = request_date(headers)?;
        if !amz_date.starts_with(header.credential.date) {
            return Err(S3Error::with(
                Code::AuthorizationHeaderMalformed,
                "The authorization header is malformed; the date of the credential is not that of the request.",
            ));
        }
        if (signed_at - now_s).abs() > SKEW_MAX_S {
            return Err(S3Error::new(Code::RequestTimeTooSkewed)
                .field("RequestTime", amz_date.into_owned())
                .field("ServerTime", time::iso8601(now_s * 1000))
                .field(
                    "MaxAllowedSkewMilliseconds",
                    (SKEW_MAX_S * 1000).to_string(),
                ));
        }
        let payload = text(headers, "x-amz-content-sha256")?.ok_or_else(|| {
            S3Error::request("Missing required header for this request: x-amz-content-sha256")
        })?;
        let claim = Claim {
            credential: header.credential,
            amz_date,
            signed_headers: header.signed_headers,
            signature: header.signature,
            payload,
            mechanism: Mechanism::Header,
        };
        self.verify(&claim, asked, headers, find_key)
    }

    fn by_query(
        &self,
        asked: &Asked<'_>,
        headers: &HeaderMap,
        find_key: FindKey<'_>,
        now_s: i64,
    ) -> Result<Authenticated> {
        let presigned = Presigned::parse(asked.query, now_s)?;
        let in_header = text(headers, "x-amz-content-sha256")?;
        let in_query = || {
            let named =
                |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("x-amz-content-sha256");
            asked.query.iter().find(named).map(|pair| pair.1)
        };
        let claim = Claim {
            credential: presigned.credential,
            amz_date: presigned.amz_date.into(),
            signed_headers: presigned.signed_headers,
            signature: presigned.signature,
            payload: in_header.or_else(in_query).unwrap_or("UNSIGNED-PAYLOAD"),
            mechanism: Mechanism::Query,
        };
        self.verify(&claim, asked, headers, find_key)
    }

    fn verify(
        &self,
        claim: &Claim<'_>,
        asked: &Asked<'_>,
        headers: &HeaderMap,
        find_key: FindKey<'_>,
    ) -> Result<Authenticated> {
        let credential = &claim.credential;
        self.check_region(credential.region, asked.call)?;
        let token = |(name, _): (&str, &str)| name.eq_ignore_ascii_case("x-amz-security-token");
        if headers.contains_key("x-amz-security-token") || asked.query.iter().any(token) {
            // No credential here is a temporary one.
            return Err(Code::InvalidToken.into());
        }
        let Some(KnownKey { account, verifier }) = find_key(credential) else {
            return Err(
                S3Error::new(Code::InvalidAccessKeyId).field("AWSAccessKeyId", credential.key_id)
            );
        };
        let Credential {
            key_id,
            date,
            region,
        } = *credential;
        let signing_key = match verifier {
            Verifier::Secret(secret) => self.keys.get(key_id, &secret.0, date, region),
            Verifier::Derived(key) => key,
        };
        let signature = check_signature(claim, asked, headers, &signing_key)?;
        if let Some(names) = sigv4::headers_not_signed(headers, claim.signed_headers) {
            return Err(S3Error::with(
                Code::AccessDenied,
                "There were headers present in the request which were not signed",
            )
            .field("HeadersNotSigned", names));
        }
        let payload = parse_payload(claim.payload, asked.call, || {
            let scope = format!("{}/{}/s3/aws4_request", credential.date, credential.region);
            ChunkSigner::new(signing_key, &claim.amz_date, &scope, signature)
        })?;
        Ok(Authenticated {
            principal: Principal::Account {
                account,
                key_id: key_id.to_owned(),
            },
            payload,
            mechanism: claim.mechanism,
            signs_range: claim.signed_headers.split(';').any(|name| name == "range"),
        })
    }

    fn check_region(&self, region: &str, call: &Call) -> Result<()> {
        // Clients ask where a bucket is before they know the region.
        let asks_where = call.name == "GetBucketLocation" && region == "us-east-1";
        if !self.strict_region || asks_where || region == self.region {
            return Ok(());
        }
        Err(S3Error::with(
            Code::AuthorizationHeaderMalformed,
            format!(
                "The authorization header is malformed; the region '{region}' is wrong; expecting '{}'",
                self.region
            ),
        )
        .field("Region", self.region.clone()))
    }
}

fn check_signature(
    claim: &Claim<'_>,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    key: &SigningKey,
) -> Result<[u8; 32]> {
    let signed = Signed {
        method: asked.method,
        path: asked.path,
        query: asked.query,
        headers,
        names: claim.signed_headers,
        payload: claim.payload,
    };
    let canonical = signed.canonical_request();
    let to_sign = sigv4::string_to_sign(&claim.amz_date, &claim.credential, &canonical);
    let signature = key.sign(to_sign.as_bytes());
    if same_signature(&signature, claim.signature) {
        return Ok(signature);
    }
    Err(S3Error::new(Code::SignatureDoesNotMatch)
        .field("AWSAccessKeyId", claim.credential.key_id)
        .field("StringToSign", to_sign.clone())
        .field("SignatureProvided", claim.signature)
        .field("StringToSignBytes", hex_words(to_sign.as_bytes()))
        .field(
            "CanonicalRequest",
            String::from_utf8_lossy(&canonical).into_owned(),
        )
        .field("CanonicalRequestBytes", hex_words(&canonical)))
}

fn hex_words(bytes: &[u8]) -> String {
    let words: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    words.join(" ")
}

fn check_once(headers: &HeaderMap) -> Result<()> {
    for name in ONCE {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(S3Error::request(format!(
                "The header {name} is there more than once."
            )));
        }
    }
    Ok(())
}

/// A header as text.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().map(Some);
    text.map_err(|_| S3Error::argument(name, "", "The header holds characters that are not ASCII."))
}

/// The moment a header-signed request names, as `yyyymmddThhmmssZ` and in seconds.
fn request_date(headers: &HeaderMap) -> Result<(std::borrow::Cow<'_, str>, i64)> {
    let missing = || {
        S3Error::with(
            Code::AccessDenied,
            "AWS authentication requires a valid Date or x-amz-date header",
        )
    };
    if let Some(date) = text(headers, "x-amz-date")? {
        let unix_s = time::parse_amz_date(date).ok_or_else(missing)?;
        return Ok((date.into(), unix_s));
    }
    let date = text(headers, "date")?.ok_or_else(missing)?;
    let unix_s = time::parse_amz_date(date)
        .or_else(|| time::parse_http_date(date))
        .ok_or_else(missing)?;
    Ok((time::amz_date(unix_s).into(), unix_s))
}

fn parse_payload(word: &str, call: &Call, signer: impl FnOnce() -> ChunkSigner) -> Result<Payload> {
    let (signer, trailer) = match word {
        "UNSIGNED-PAYLOAD" => return Ok(Payload::Unsigned),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => (Some(signer()), false),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => (Some(signer()), true),
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => (None, true),
        _ if word.starts_with("STREAMING-AWS4-ECDSA-P256-") => {
            return Err(S3Error::not_implemented("x-amz-content-sha256"));
        }
        _ => {
            let mut hash = [0; 32];
            return match hex::decode_to_slice(word, &mut hash) {
                Ok(()) => Ok(Payload::Hashed(hash)),
                Err(_) => Err(S3Error::argument(
                    "x-amz-content-sha256",
                    word,
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, \
                     or a valid sha256 value.",
                )),
            };
        }
    };
    if call.body != BodyKind::Stream {
        return Err(S3Error::request(format!(
            "{word} is not a form of the body of {}.",
            call.name
        )));
    }
    Ok(Payload::Chunked { signer, trailer })
}

fn anonymous_payload(call: &Call, headers: &HeaderMap) -> Result<Payload> {
    let Some(word) = text(headers, "x-amz-content-sha256")? else {
        return Ok(Payload::Unsigned);
    };
    if word.starts_with("STREAMING-AWS4-") {
        return Err(S3Error::request(
            "An anonymous request can't have signed chunks.",
        ));
    }
    let no_signer = || unreachable!("only the signed forms have one, and they are refused above");
    parse_payload(word, call, no_signer)
}

/// Whether two digests are the same, in constant time.
pub(crate) fn same_digest(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests;
