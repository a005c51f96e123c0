//! `GetObject`, `HeadObject`, `PutObject`.

use std::sync::Arc;

use forebay_store::api::{Durability, Publish};
use forebay_store::digest::{Checksum, ChecksumAlgorithm, ChecksumType};
use forebay_store::entry::{Bucket, Entry};
use forebay_store::name::{ObjectKey, VersionId};
use forebay_store::rule::precondition::Precondition;
use forebay_store::{Content, Error};
use http::header::{ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, ETAG, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Context, granting};
use crate::auth::{Authenticated, Mechanism};
use crate::body::{Plan, RequestBody};
use crate::condition::{self, Verdict};
use crate::error::{Code, Result, S3Error};
use crate::header::{self, text};
use crate::range::{self, Ranged};
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

/// What of an object is asked for.
#[derive(Clone, Copy, Debug)]
struct Slice {
    offset: u64,
    len: u64,
    /// 206, and not 200.
    partial: bool,
    /// Place in the entry's parts.
    part: Option<usize>,
}

/// Head of an answer, and what follows it.
enum Found {
    NotModified(Response),
    Slice(Arc<Entry>, Slice, HeaderMap),
}

/// `GetObject`.
pub(super) async fn get(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    for _ in 0..LOOK_AGAIN_MAX {
        let (entry, slice, headers) = match find(cx, auth).await? {
            Found::NotModified(response) => return Ok(response),
            Found::Slice(entry, slice, headers) => (entry, slice, headers),
        };
        if granting::grants(cx, auth) {
            let headers = granting::head(cx, auth, &entry, slice.len, headers);
            return Ok(reply::with_headers(
                status(slice),
                headers,
                ReplyBody::Empty,
            ));
        }
        let content: Content = match cx.objects().open(&entry) {
            Ok(content) => content,
            Err(Error::Superseded(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        let body = match slice.len {
            0 => ReplyBody::Empty,
            len => ReplyBody::Content(content.range(slice.offset, len)),
        };
        return Ok(reply::with_headers(status(slice), headers, body));
    }
    Err(Code::SlowDown.into())
}

/// `HeadObject`.
pub(super) async fn head(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    match find(cx, auth).await? {
        Found::NotModified(response) => Ok(response),
        Found::Slice(entry, slice, mut headers) => {
            if granting::grants(cx, auth) {
                granting::push(cx, auth, &entry, &mut headers);
            }
            Ok(reply::with_headers(
                status(slice),
                headers,
                ReplyBody::Empty,
            ))
        }
    }
}

fn status(slice: Slice) -> StatusCode {
    if slice.partial {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    }
}

async fn find(cx: &Context<'_>, auth: &Authenticated) -> Result<Found> {
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
    match condition::check(&request.headers, &condition::READ, &entry, request.now_s) {
        Verdict::Proceed => {}
        Verdict::Failed(condition) => return Err(condition::failed(condition)),
        Verdict::NotModified => {
            let mut headers = HeaderMap::new();
            header::push_validators(&mut headers, &entry);
            let response = reply::with_headers(StatusCode::NOT_MODIFIED, headers, ReplyBody::Empty);
            return Ok(Found::NotModified(response));
        }
    }
    let slice = match part_number {
        Some(number) => part_slice(&entry, number)?,
        None => range_slice(&request.headers, &entry)?,
    };
    let mut headers = HeaderMap::with_capacity(24);
    header::push_object(&mut headers, &entry);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, slice.len.into());
    if slice.partial {
        let last = slice.offset + slice.len - 1;
        let value = format!("bytes {}-{last}/{}", slice.offset, entry.size);
        header::push_text(&mut headers, CONTENT_RANGE, Some(&value));
    }
    if part_number.is_some() && !entry.parts.is_empty() {
        let name = HeaderName::from_static("x-amz-mp-parts-count");
        headers.insert(name, entry.parts.len().into());
    }
    push_checksum(&mut headers, &request.headers, &entry, slice);
    header::push_overrides(&mut headers, &request.query)?;
    Ok(Found::Slice(entry, slice, headers))
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

fn part_slice(entry: &Entry, number: u16) -> Result<Slice> {
    let mut offset = 0;
    for (index, part) in entry.parts.iter().enumerate() {
        if part.number == number {
            return Ok(Slice {
                offset,
                len: part.size,
                partial: part.size > 0,
                part: Some(index),
            });
        }
        offset += part.size;
    }
    if entry.parts.is_empty() && number == 1 {
        return Ok(Slice {
            offset: 0,
            len: entry.size,
            partial: entry.size > 0,
            part: None,
        });
    }
    Err(S3Error::new(Code::InvalidPartNumber)
        .field("ActualPartCount", entry.parts.len().max(1).to_string())
        .field("PartNumberRequested", number.to_string()))
}

fn range_slice(headers: &HeaderMap, entry: &Entry) -> Result<Slice> {
    let whole = Slice {
        offset: 0,
        len: entry.size,
        partial: false,
        part: None,
    };
    let Some(asked) = text(headers, "range")?.filter(|_| condition::range_counts(headers, entry))
    else {
        return Ok(whole);
    };
    match range::parse(asked, entry.size) {
        Ranged::Whole => Ok(whole),
        Ranged::Part { offset, len } => Ok(Slice {
            offset,
            len,
            partial: true,
            part: None,
        }),
        Ranged::Unsatisfiable => {
            let size = entry.size.to_string();
            let value =
                HeaderValue::from_str(&format!("bytes */{size}")).expect("digits are ASCII");
            Err(S3Error::new(Code::InvalidRange)
                .field("RangeRequested", asked)
                .field("ActualObjectSize", size)
                .header(CONTENT_RANGE, value))
        }
    }
}

/// Adds the checksum of what is answered, if it was asked for and is known: of the whole, or of a
/// part.
fn push_checksum(headers: &mut HeaderMap, asked: &HeaderMap, entry: &Entry, slice: Slice) {
    let enabled = asked
        .get("x-amz-checksum-mode")
        .is_some_and(|mode| mode.as_bytes().eq_ignore_ascii_case(b"ENABLED"));
    let (true, Some(checksum)) = (enabled, &entry.checksum) else {
        return;
    };
    match slice.part {
        Some(index) => {
            if let Some(value) = &entry.parts[index].checksum {
                checksum::push_value(headers, checksum.algorithm, &checksum::part_text(value));
                let kind = HeaderValue::from_static(checksum::type_name(checksum.kind));
                headers.insert(HeaderName::from_static("x-amz-checksum-type"), kind);
            }
        }
        None if slice.len == entry.size => checksum::push_headers(headers, checksum),
        None => {}
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
