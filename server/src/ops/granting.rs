//! What a node gets that asks for the head of a read: the head, and a grant for the bytes.

use std::sync::Arc;

use forebay_store::entry::{Bucket, Entry};
use forebay_store::name::VersionId;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method};

use super::Context;
use crate::auth::Authenticated;
use crate::error::{Code, Result};
use crate::grant::{GRANT_HEADER, Grant, LENGTH_HEADER, SIZE_HEADER, Subject};
use crate::service::Asker;
use crate::target;

/// Whether a read is answered with its head and a grant.
///
/// A grant is for the whole version. Whoever shows a signature for less than that, one range, one
/// part or a `HEAD`, could have it made good for more; so it is given to a node that proves the
/// cluster's key, and to any node for a signature that would also read the whole.
pub(super) fn grants(cx: &Context<'_>, auth: &Authenticated) -> bool {
    let request = cx.request;
    match request.asker {
        Asker::Client => false,
        Asker::ProvenNode => true,
        Asker::Node => {
            request.call.method == Method::GET.as_str()
                && !auth.signs_range()
                && !request.query.has("partNumber")
        }
    }
}

/// The headers of a read's answer that comes without its `len` bytes.
pub(super) fn head(
    cx: &Context<'_>,
    auth: &Authenticated,
    entry: &Entry,
    len: u64,
    mut headers: HeaderMap,
) -> HeaderMap {
    headers.remove(CONTENT_LENGTH);
    headers.insert(LENGTH_HEADER, len.into());
    push(cx, auth, entry, &mut headers);
    headers
}

/// Adds the object's size and a grant.
pub(super) fn push(cx: &Context<'_>, auth: &Authenticated, entry: &Entry, headers: &mut HeaderMap) {
    let etag = entry.etag.to_string();
    let subject = Subject {
        bucket: cx.request.target.bucket.as_deref().unwrap_or_default(),
        key: entry.key.as_str(),
        version_id: entry.version_id.as_ref().map(VersionId::as_str),
        etag: &etag,
    };
    let grants = &cx.service.grants;
    let token = grants.make(&subject, entry.bucket, auth.grant(), cx.request.now_s);
    let token = HeaderValue::from_str(&token).expect("base64url is ASCII");
    headers.insert(SIZE_HEADER, entry.size.into());
    headers.insert(GRANT_HEADER, token);
}

/// The bucket that a grant is for.
///
/// # Errors
/// `InvalidBucketName`; `AccessDenied` if there is another bucket of that name now, or none.
pub(super) fn bucket(cx: &Context<'_>, grant: &Grant, name: &str) -> Result<Arc<Bucket>> {
    let name = target::bucket_name(name, cx.compat())?;
    let bucket = cx.objects().bucket(&name).ok();
    let same = bucket.filter(|bucket| bucket.id == grant.bucket);
    same.ok_or_else(|| Code::AccessDenied.into())
}
