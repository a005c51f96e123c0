//! Requests that bear a grant and no signature: a node that fetches bytes for its client.

use http::HeaderMap;

use super::{Authenticated, Mechanism, Payload, Principal, check_once, text};
use crate::call::{Call, Op};
use crate::error::{Code, Result, S3Error};
use crate::grant::{GRANT_HEADER, Grants, Subject};
use crate::query::Query;
use crate::target::Target;

/// Whether a node fetches with its token, or wants another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrantUse {
    /// It wants bytes.
    Fetch,
    /// It wants the head, and a token in it.
    Renew,
}

/// Whether a request bears a grant.
pub(crate) fn is_granted(headers: &HeaderMap) -> bool {
    headers.contains_key(GRANT_HEADER)
}

/// What a request asks that bears a grant.
#[derive(Debug)]
pub(crate) struct GrantedRead<'r> {
    /// What it names.
    pub(crate) target: &'r Target,
    /// Its parameters.
    pub(crate) query: &'r Query,
    /// Its headers.
    pub(crate) headers: &'r HeaderMap,
    /// What it calls.
    pub(crate) call: &'static Call,
    /// What for.
    pub(crate) purpose: GrantUse,
}

/// Verifies a grant: it must be for the object that is named, the version in `versionId`, and the
/// entity tag in `If-Match`. Whether that is what the object has, is then the read's to check.
///
/// # Errors
/// `InvalidArgument` beside a signature; `AccessDenied` for any other call or parameter, and for a
/// token that is wrong or too old.
pub(crate) fn authenticate(
    grants: &Grants,
    read: &GrantedRead<'_>,
    now_s: i64,
) -> Result<Authenticated> {
    check_once(read.headers)?;
    let denied = |why: &'static str| S3Error::with(Code::AccessDenied, why);
    if read.headers.contains_key("authorization") || super::query::is_presigned(read.query) {
        return Err(S3Error::argument(
            GRANT_HEADER.as_str(),
            "",
            "Only one auth mechanism allowed; a grant stands for a signature.",
        ));
    }
    let parameter = |(name, _): (&str, &str)| matches!(name, "versionId" | "x-id");
    if read.call.op != Op::GetObject || !read.query.iter().all(parameter) {
        return Err(denied("A grant is for the bytes of an object only."));
    }
    let mut tokens = read.headers.get_all(GRANT_HEADER).iter();
    let (Some(token), None) = (tokens.next(), tokens.next()) else {
        return Err(denied("There is more than one grant."));
    };
    let etag = one_etag(read.headers)
        .ok_or_else(|| denied("A grant needs If-Match with the entity tag that it is for."))?;
    let subject = Subject {
        bucket: read.target.bucket.as_deref().unwrap_or_default(),
        key: read.target.key.as_deref().unwrap_or_default(),
        version_id: read.query.get("versionId"),
        etag,
    };
    let grant = token.to_str().ok();
    let grant = grant
        .and_then(|token| grants.read(token, &subject))
        .ok_or_else(|| denied("The grant is not for this, or was made before a restart."))?;
    let is_good = match read.purpose {
        GrantUse::Fetch => grant.fetches(now_s),
        GrantUse::Renew => grant.renews(now_s),
    };
    if !is_good {
        return Err(denied("The grant has expired."));
    }
    Ok(Authenticated {
        principal: Principal::Granted(grant),
        payload: Payload::Unsigned,
        mechanism: Mechanism::Grant,
        signs_range: false,
    })
}

/// The one entity tag in `If-Match`, without its quotes.
fn one_etag(headers: &HeaderMap) -> Option<&str> {
    if headers.get_all("if-match").iter().count() != 1 {
        return None;
    }
    let value = text(headers, "if-match").ok()??.trim();
    let etag = value.strip_prefix('"')?.strip_suffix('"')?;
    (!etag.is_empty() && !etag.contains('"')).then_some(etag)
}
