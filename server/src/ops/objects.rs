//! `GetObject`, `HeadObject`, `PutObject`.

use std::sync::Arc;

use forebay_store::api::{Durability, Publish};
use forebay_store::digest::{Checksum, ChecksumAlgorithm, ChecksumType};
use forebay_store::entry::{Bucket, Entry};
use forebay_store::name::{ObjectKey, VersionId};
use forebay_store::rule::directive::Directive;
use forebay_store::rule::precondition::Precondition;
use forebay_store::{Content, Error};
use http::header::{ALLOW, ETAG, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Context, granting};
use crate::auth::{Authenticated, Mechanism};
use crate::body::{Plan, RequestBody};
use crate::condition;
use crate::error::{Code, Result, S3Error};
use crate::head::{self, Found, ReadHead, Slice};
use crate::header;
use crate::node::directive;
use crate::reply::{self, ReplyBody, Response};
use crate::{checksum, target};

/// How often a read looks its entry up again because it was replaced meanwhile.
const LOOK_AGAIN_MAX: usize = 8;

/// The entry that a request names by key and `versionId`.
pub(super) async fn entry(cx: &Context<'_>, bucket: &Bucket) -> Result<Arc<Entry>> {
    let version = target::version_id(cx.request.query.get("versionId"))?;
    let key = cx.key()?;
    let found = match (&version, cx.objects().cached(bucket.id, &key)) {
        (None, Some(Some(entry))) => entry,
        (None, Some(None)) => return Err(Error::NoSuchKey(key).into()),
        (version, _) => cx.objects().head(bucket.id, &key, version.as_ref()).await?,
    };
    if found.delete_marker {
        return Err(marker_error(&found, version.is_some()));
    }
    Ok(found)
}

/// What a read of a delete marker gets.
fn marker_error(marker: &Entry, by_version: bool) -> S3Error {
    let mut headers = HeaderMap::new();
    push_version(&mut headers, marker);
    let error = if by_version {
        let modified = crate::time::http_date(marker.modified_at.seconds());
        header::push_text(&mut headers, http::header::LAST_MODIFIED, Some(&modified));
        headers.insert(ALLOW, HeaderValue::from_static("DELETE"));
        S3Error::new(Code::MethodNotAllowed)
            .field("Method", "GET")
            .field("ResourceType", "DeleteMarker")
    } else {
        S3Error::new(Code::NoSuchKey).field("Key", marker.key.as_str())
    };
    let marked = (
        HeaderName::from_static("x-amz-delete-marker"),
        HeaderValue::from_static("true"),
    );
    let named = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name?, value)));
    named
        .chain([marked])
        .fold(error, |error, (name, value)| error.header(name, value))
}

/// Adds `x-amz-version-id` where there are versions.
pub(super) fn push_version(headers: &mut HeaderMap, entry: &Entry) {
    let name = HeaderName::from_static("x-amz-version-id");
    header::push_text(
        headers,
        name,
        entry.version_id.as_ref().map(VersionId::as_str),
    );
}

/// `GetObject`.
pub(super) async fn get(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    for _ in 0..LOOK_AGAIN_MAX {
        let (found, entry) = find(cx, auth).await?;
        let (slice, mut headers) = match found {
            Found::NotModified(headers) => return Ok(not_modified(cx, auth, &entry, headers)),
            Found::Slice(slice, headers) => (slice, headers),
        };
        if granting::grants(cx, auth) {
            let headers = granting::head(cx, auth, &entry, slice.len, headers);
            return Ok(reply::with_headers(
                slice.status(),
                headers,
                ReplyBody::Empty,
            ));
        }
        let body = match &cx.service.tier {
            None => plain(cx, &entry, slice),
            Some(tier) => {
                let range = (slice.offset, slice.len);
                let answer = (slice.status(), &mut headers);
                tier.body(&entry, &cx.request.headers, range, answer)
            }
        };
        let body = match body {
            Ok(body) => body,
            Err(Error::Superseded(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        return Ok(reply::with_headers(slice.status(), headers, body));
    }
    Err(Code::SlowDown.into())
}

/// The bytes that are asked for, out of the store's own files.
fn plain(
    cx: &Context<'_>,
    entry: &Arc<Entry>,
    slice: Slice,
) -> forebay_store::error::Result<ReplyBody> {
    let content = said(cx, cx.objects().open(entry)?);
    Ok(match slice.len {
        0 => ReplyBody::Empty,
        len => ReplyBody::Content(content.range(slice.offset, len)),
    })
}

/// Bytes for who says something of the cache, which here is the page cache: as with a node, only
/// what the request says counts.
fn said(cx: &Context<'_>, content: Content) -> Content {
    match directive(&cx.request.headers) {
        Directive::Use => content,
        directive => content.with(directive),
    }
}

/// `HeadObject`.
pub(super) async fn head(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let (found, entry) = find(cx, auth).await?;
    let (slice, mut headers) = match found {
        Found::NotModified(headers) => return Ok(not_modified(cx, auth, &entry, headers)),
        Found::Slice(slice, headers) => (slice, headers),
    };
    if granting::grants(cx, auth) {
        granting::push(cx, auth, &entry, &mut headers);
    } else if let Some(tier) = &cx.service.tier {
        tier.head(&entry, &cx.request.headers, &mut headers)?;
    }
    Ok(reply::with_headers(
        slice.status(),
        headers,
        ReplyBody::Empty,
    ))
}

/// 304; a node may say it again by itself.
fn not_modified(
    cx: &Context<'_>,
    auth: &Authenticated,
    entry: &Entry,
    mut headers: HeaderMap,
) -> Response {
    granting::push_lease(cx, auth, entry, &mut headers);
    reply::with_headers(StatusCode::NOT_MODIFIED, headers, ReplyBody::Empty)
}

/// What a read comes to, and of which version.
async fn find(cx: &Context<'_>, auth: &Authenticated) -> Result<(Found, Arc<Entry>)> {
    let request = cx.request;
    let bucket = cx.bucket(auth)?;
    if header::has_overrides(&request.query) && auth.mechanism() == Mechanism::None {
        return Err(S3Error::request(
            "Request specific response headers cannot be used for anonymous GET requests.",
        ));
    }
    header::refuse_encryption_on_read(&request.headers)?;
    let part_number = part_number(cx)?;
    let entry = entry(cx, &bucket).await?;
    let read = ReadHead {
        headers: &request.headers,
        query: &request.query,
        part_number,
        now_s: request.now_s,
    };
    Ok((head::of(&entry, &read)?, entry))
}

fn part_number(cx: &Context<'_>) -> Result<Option<u16>> {
    let Some(text) = cx.request.query.get("partNumber") else {
        return Ok(None);
    };
    if cx.request.headers.contains_key(RANGE) {
        return Err(S3Error::request(
            "Cannot specify both Range header and partNumber query parameter",
        ));
    }
    parse_part_number(text).map(Some)
}

/// Reads a part's number, 1 to 10,000.
///
/// # Errors
/// `InvalidArgument`.
pub(super) fn parse_part_number(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(number @ 1..=forebay_store::limits::PART_NUMBER_MAX) => Ok(number),
        _ => Err(S3Error::argument(
            "partNumber",
            text,
            "Part number must be an integer between 1 and 10000, inclusive",
        )),
    }
}

/// `PutObject`.
pub(super) async fn put(
    cx: &Context<'_>,
    mut auth: Authenticated,
    body: &mut RequestBody,
) -> Result<Response> {
    let bucket = cx.bucket(&auth)?;
    let key = cx.key()?;
    let headers = &cx.request.headers;
    header::refuse_unbuilt(headers)?;
    let attributes = header::attributes(headers)?;
    let plan = Plan::parse(headers, auth.take_payload(), cx.compat())?;
    let precondition = condition::of_write(headers, cx.compat())?;
    check_early(cx, &bucket, &key, &precondition).await?;
    let owner = auth.account()?.id.clone();
    let stage = cx
        .objects()
        .stage(plan.len, plan.expected.digests())
        .await?;
    let received = body.receive(plan, stage).await?;
    let checksum = kept_checksum(received.checksum, received.staged.digests.crc64);
    let publish = Publish {
        bucket: bucket.id,
        key,
        staged: received.staged,
        attributes,
        checksum: Some(checksum),
        owner,
        precondition,
        durability: Durability::Durable,
    };
    let entry = cx.objects().publish(publish).await.map_err(conflict)?;
    Ok(stored(&entry))
}

/// The declared checksum, or the one that the store computes anyway.
pub(super) fn kept_checksum(
    declared: Option<(ChecksumAlgorithm, Vec<u8>)>,
    crc64: u64,
) -> Checksum {
    let (algorithm, value) =
        declared.unwrap_or_else(|| (ChecksumAlgorithm::Crc64Nvme, crc64.to_be_bytes().to_vec()));
    Checksum {
        algorithm,
        kind: ChecksumType::FullObject,
        value,
        parts: 0,
    }
}

/// The answer to a write of `entry`.
fn stored(entry: &Entry) -> Response {
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(ETAG, header::etag(entry));
    push_version(&mut headers, entry);
    if let Some(checksum) = &entry.checksum {
        checksum::push_headers(&mut headers, checksum);
    }
    reply::with_headers(StatusCode::OK, headers, ReplyBody::Empty)
}

/// Checks a condition before the body is read; the store checks it again when it publishes.
pub(super) async fn check_early(
    cx: &Context<'_>,
    bucket: &Bucket,
    key: &ObjectKey,
    precondition: &Precondition,
) -> Result<()> {
    if *precondition == Precondition::NONE {
        return Ok(());
    }
    let current = match cx.objects().head(bucket.id, key, None).await {
        Ok(entry) => Some(entry),
        Err(Error::NoSuchKey(_)) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(precondition.check(key, current.as_deref())?)
}

/// A condition that held at the start and does not hold at the end: somebody else was faster.
pub(super) fn conflict(error: Error) -> S3Error {
    match error {
        Error::PreconditionFailed("If-Match") => {
            S3Error::new(Code::ConditionalRequestConflict).field("Condition", "If-Match")
        }
        other => other.into(),
    }
}
