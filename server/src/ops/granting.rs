//! What a node gets that asks for the head of a read: the head, a grant for the bytes, and perhaps
//! leave to answer the next reads by itself.

use std::sync::Arc;

use forebay_cache::cluster::NODE_HEADER;
use forebay_store::entry::{Bucket, Entry};
use forebay_store::name::VersionId;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Method};

use super::Context;
use crate::auth::{self, Authenticated};
use crate::error::{Code, Result};
use crate::grant::{GRANT_HEADER, Grant, Holder, LENGTH_HEADER, SIZE_HEADER, Subject};
use crate::lease::{LEASE_HEADER, Lease, LeasedKey, LeasedObject};
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

/// Adds the object's size, a grant, and a lease where there is one.
pub(super) fn push(cx: &Context<'_>, auth: &Authenticated, entry: &Entry, headers: &mut HeaderMap) {
    headers.insert(SIZE_HEADER, entry.size.into());
    // A key that was removed this moment is granted nothing, and then its node asks again.
    if let Some(holder) = holder(cx, auth) {
        let etag = entry.etag.to_string();
        let subject = Subject {
            bucket: cx.request.target.bucket.as_deref().unwrap_or_default(),
            key: entry.key.as_str(),
            version_id: entry.version_id.as_ref().map(VersionId::as_str),
            etag: &etag,
        };
        let grants = &cx.service.grants;
        let token = grants.make(&subject, entry.bucket, holder, cx.request.now_s);
        let token = HeaderValue::from_str(&token).expect("base64url is ASCII");
        headers.insert(GRANT_HEADER, token);
    }
    push_lease(cx, auth, entry, headers);
}

/// On whose behalf a grant is made.
fn holder(cx: &Context<'_>, auth: &Authenticated) -> Option<Holder> {
    if let Some(grant) = auth.grant() {
        return Some(grant.holder());
    }
    let (key, _) = cx.objects().access_key(auth.key_id()?)?;
    Some(Holder::new(&key))
}

/// Adds a lease of the version, for a node that proves the cluster's key and passes on what a
/// client has signed.
pub(super) fn push_lease(
    cx: &Context<'_>,
    auth: &Authenticated,
    entry: &Entry,
    headers: &mut HeaderMap,
) {
    if let Some(lease) = lease(cx, auth, entry) {
        headers.insert(LEASE_HEADER, lease);
    }
}

fn lease(cx: &Context<'_>, auth: &Authenticated, entry: &Entry) -> Option<HeaderValue> {
    let request = cx.request;
    let (Some(position), Some(sealer)) = (request.position, &cx.service.sealer) else {
        return None;
    };
    let claimed = auth::claimed(&request.query, &request.headers)?;
    let (key, account) = cx.objects().access_key(auth.key_id()?)?;
    let name = request.target.bucket.as_deref()?;
    let owner = cx.bucket(auth).ok()?.owner.clone();
    let lease = Lease {
        position,
        now_s: request.now_s,
        signer: LeasedKey::derive(&key, &account, &claimed),
        object: LeasedObject::new(name, &owner, entry),
    };
    sealer.seal(&lease, request.headers.get(NODE_HEADER)?)
}

/// The bucket that a grant is for, as long as the access key that it goes back to may read there.
///
/// # Errors
/// `InvalidBucketName`; `AccessDenied` if there is another bucket of that name now, or none, or the
/// key is gone.
pub(super) fn bucket(cx: &Context<'_>, grant: &Grant, name: &str) -> Result<Arc<Bucket>> {
    let name = target::bucket_name(name, cx.compat())?;
    let key = cx.objects().access_key(&grant.key_id);
    let (Ok(bucket), Some((key, account))) = (cx.objects().bucket(&name), key) else {
        return Err(Code::AccessDenied.into());
    };
    if bucket.id != grant.bucket || bucket.owner != account.id || !grant.is_of(&key) {
        return Err(Code::AccessDenied.into());
    }
    Ok(bucket)
}
