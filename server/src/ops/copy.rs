//! `CopyObject` and `UploadPartCopy`: the store shares the bytes.

use std::sync::Arc;

use forebay_store::Error;
use forebay_store::api::{Copy, CopyPart};
use forebay_store::digest::{
    Checksum, ChecksumAlgorithm, ChecksumType, DigestSet, Hasher, crc64_combine,
};
use forebay_store::entry::{Attributes, Bucket, Entry, Part};
use forebay_store::limits::PUT_SIZE_MAX;
use forebay_store::name::{ObjectKey, VersionId};
use http::{HeaderMap, HeaderName};

use super::buckets::millis;
use super::{Context, multipart, objects};
use crate::auth::Authenticated;
use crate::body::RequestBody;
use crate::condition::{self, Verdict};
use crate::error::{Code, Result, S3Error};
use crate::header::{self, push_text, text};
use crate::reply::{self, Response};
use crate::target::{self, CopySource};
use crate::xml::write;
use crate::{checksum, range, time};

/// How often a copy looks its source up again because it was replaced meanwhile.
const LOOK_AGAIN_MAX: usize = 8;

/// Whether the source's or the request's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Copy,
    Replace,
}

fn directive(headers: &HeaderMap, name: &str) -> Result<Directive> {
    match text(headers, name)? {
        None | Some("COPY") => Ok(Directive::Copy),
        Some("REPLACE") => Ok(Directive::Replace),
        Some(other) => Err(S3Error::argument(name, other, format!("Unknown {name}."))),
    }
}

/// The object that is copied.
struct Source {
    bucket: Arc<Bucket>,
    key: ObjectKey,
    by_version: bool,
    entry: Arc<Entry>,
}

async fn source(cx: &Context<'_>, auth: &Authenticated) -> Result<Source> {
    let headers = &cx.request.headers;
    let named = CopySource::parse(text(headers, "x-amz-copy-source")?.unwrap_or_default())?;
    let bucket = cx.bucket_named(auth, &named.bucket)?;
    cx.check_expected_owner("x-amz-source-expected-bucket-owner", &bucket.owner)?;
    let key = ObjectKey::parse(&named.key)?;
    let version = target::version_id(named.version_id.as_deref())?;
    let entry = cx.objects().head(bucket.id, &key, version.as_ref()).await?;
    if entry.delete_marker {
        return Err(match version {
            None => S3Error::new(Code::NoSuchKey).field("Key", key.as_str()),
            Some(_) => S3Error::request(
                "The source of a copy request may not specifically refer to a delete marker by version id.",
            ),
        });
    }
    match condition::check(headers, &condition::COPY_SOURCE, &entry, cx.request.now_s) {
        Verdict::Proceed => {}
        Verdict::Failed(condition) => return Err(condition::failed(condition)),
        Verdict::NotModified => return Err(condition::failed("x-amz-copy-source-If-None-Match")),
    }
    Ok(Source {
        bucket,
        key,
        by_version: version.is_some(),
        entry,
    })
}

/// What comes with the copy.
fn attributes(cx: &Context<'_>, source: &Entry) -> Result<Attributes> {
    let headers = &cx.request.headers;
    let metadata = directive(headers, "x-amz-metadata-directive")?;
    let tagging = directive(headers, "x-amz-tagging-directive")?;
    let sent = header::attributes(headers)?;
    let tags = match tagging {
        Directive::Copy => source.attributes.tags.clone(),
        Directive::Replace => sent.tags.clone(),
    };
    Ok(match metadata {
        Directive::Copy => Attributes {
            tags,
            storage_class: sent.storage_class,
            ..source.attributes.clone()
        },
        Directive::Replace => Attributes { tags, ..sent },
    })
}

/// Refuses a copy of an object onto itself that changes nothing.
fn check_changes(
    cx: &Context<'_>,
    source: &Source,
    bucket: &Bucket,
    key: &ObjectKey,
) -> Result<()> {
    let headers = &cx.request.headers;
    let onto_itself = source.bucket.id == bucket.id && source.key == *key && !source.by_version;
    let class_stays = header::storage_class(headers)? == source.entry.attributes.storage_class;
    let changes = directive(headers, "x-amz-metadata-directive")? == Directive::Replace
        || directive(headers, "x-amz-tagging-directive")? == Directive::Replace
        || headers.contains_key("x-amz-checksum-algorithm")
        || !class_stays;
    if onto_itself && !changes {
        return Err(S3Error::request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    Ok(())
}

/// `CopyObject`.
pub(super) async fn object(
    cx: &Context<'_>,
    auth: &Authenticated,
    body: &mut RequestBody,
) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let key = cx.key()?;
    let headers = &cx.request.headers;
    header::refuse_unbuilt(headers)?;
    let precondition = condition::of_write(headers, cx.compat())?;
    body.nothing().await?;
    for _ in 0..LOOK_AGAIN_MAX {
        let source = source(cx, auth).await?;
        check_changes(cx, &source, &bucket, &key)?;
        if source.entry.size > PUT_SIZE_MAX {
            return Err(S3Error::request(
                "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120",
            ));
        }
        let copy = Copy {
            attributes: attributes(cx, &source.entry)?,
            checksum: copied_checksum(cx, &source.entry).await?,
            source: Arc::clone(&source.entry),
            bucket: bucket.id,
            key: key.clone(),
            owner: auth.account()?.id.clone(),
            precondition: precondition.clone(),
        };
        match cx.objects().copy(copy).await {
            Ok(entry) => return Ok(copied(&source.entry, &entry)),
            Err(Error::Superseded(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Code::SlowDown.into())
}

/// The checksum of the copy: the source's, or one of the algorithm that the request names.
async fn copied_checksum(cx: &Context<'_>, source: &Entry) -> Result<Option<Checksum>> {
    let asked = text(&cx.request.headers, "x-amz-checksum-algorithm")?;
    let asked = asked.map(checksum::parse_algorithm).transpose()?;
    let full = source
        .checksum
        .as_ref()
        .filter(|checksum| checksum.kind == ChecksumType::FullObject);
    if let Some(kept) = full.filter(|kept| asked.is_none_or(|asked| asked == kept.algorithm)) {
        return Ok(Some(kept.clone()));
    }
    match asked {
        None | Some(ChecksumAlgorithm::Crc64Nvme) => {
            // A copy is one piece: it has no checksum of parts.
            let known = source.extents.iter().try_fold(0, |crc, extent| {
                Some(crc64_combine(crc, extent.crc64?, extent.len))
            });
            let checksum =
                |crc: u64| Checksum::full(ChecksumAlgorithm::Crc64Nvme, crc.to_be_bytes().to_vec());
            Ok(known.map(checksum))
        }
        Some(algorithm) => Ok(Some(Checksum::full(
            algorithm,
            computed(cx, source, algorithm).await?,
        ))),
    }
}

async fn computed(
    cx: &Context<'_>,
    source: &Entry,
    algorithm: ChecksumAlgorithm,
) -> Result<Vec<u8>> {
    let entry = cx
        .objects()
        .head(source.bucket, &source.key, source.version_id.as_ref())
        .await?;
    if entry.id != source.id {
        return Err(Code::OperationAborted.into());
    }
    let content = cx.objects().open(&entry)?;
    let mut stream = content.range(0, entry.size);
    let mut hasher = Hasher::new(DigestSet::default().with(algorithm));
    while let Some(frame) = stream.next().await {
        let frame = frame?;
        // A frame of 1 MiB takes a millisecond to hash: too long for a thread that others wait for.
        let hashed = tokio::task::spawn_blocking(move || {
            hasher.update(&frame);
            hasher
        });
        hasher = hashed.await.map_err(|_| Code::InternalError)?;
    }
    Ok(hasher
        .finish()
        .checksum(algorithm)
        .expect("asked for above"))
}

fn copied(source: &Entry, entry: &Entry) -> Response {
    let checksum = entry.checksum.as_ref().map(|checksum| {
        checksum::elements(
            checksum.algorithm,
            checksum::value_text(checksum),
            Some(checksum.kind),
        )
    });
    let document = write::CopyResult {
        last_modified: time::iso8601(millis(entry.modified_at)),
        etag: format!("\"{}\"", entry.etag),
        checksum: checksum.unwrap_or_default(),
    };
    let mut response = reply::xml(write::document("CopyObjectResult", &document));
    objects::push_version(response.headers_mut(), entry);
    push_source_version(response.headers_mut(), source);
    response
}

fn push_source_version(headers: &mut HeaderMap, source: &Entry) {
    let name = HeaderName::from_static("x-amz-copy-source-version-id");
    push_text(
        headers,
        name,
        source.version_id.as_ref().map(VersionId::as_str),
    );
}

/// `UploadPartCopy`.
pub(super) async fn part(
    cx: &Context<'_>,
    auth: &Authenticated,
    body: &mut RequestBody,
) -> Result<Response> {
    let upload = multipart::upload(cx, auth).await?;
    let number =
        objects::parse_part_number(cx.request.query.get("partNumber").unwrap_or_default())?;
    header::refuse_unbuilt(&cx.request.headers)?;
    body.nothing().await?;
    let checksum =
        multipart::computed_checksum(&upload).or(upload.checksum.map(|checksum| checksum.0));
    for _ in 0..LOOK_AGAIN_MAX {
        let source = source(cx, auth).await?.entry;
        let (offset, len) = part_range(cx, &source)?;
        let copy = CopyPart {
            upload: Arc::clone(&upload),
            number,
            source: Arc::clone(&source),
            offset,
            len,
            checksum,
        };
        match cx.objects().copy_part(copy).await {
            Ok(part) => return Ok(copied_part(&source, &part)),
            Err(Error::Superseded(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Code::SlowDown.into())
}

fn copied_part(source: &Entry, part: &Part) -> Response {
    let elements = part
        .checksum
        .as_ref()
        .map(|(algorithm, value)| checksum::elements(*algorithm, checksum::part_text(value), None));
    let document = write::CopyResult {
        last_modified: time::iso8601(millis(part.modified_at)),
        etag: format!("\"{}\"", part.etag),
        checksum: elements.unwrap_or_default(),
    };
    let mut response = reply::xml(write::document("CopyPartResult", &document));
    push_source_version(response.headers_mut(), source);
    response
}

/// Offset and length of what is copied.
fn part_range(cx: &Context<'_>, source: &Entry) -> Result<(u64, u64)> {
    let name = "x-amz-copy-source-range";
    let Some(asked) = text(&cx.request.headers, name)? else {
        return match source.size {
            0..=PUT_SIZE_MAX => Ok((0, source.size)),
            _ => Err(S3Error::request(
                "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120",
            )),
        };
    };
    let (first, last) = range::parse_copy(asked).ok_or_else(|| {
        S3Error::argument(name, asked, "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
    })?;
    if last >= source.size {
        // Not `InvalidRange`: that is what a read answers.
        return Err(S3Error::argument(
            name,
            asked,
            format!(
                "Range specified is not valid for source object of size: {}",
                source.size
            ),
        ));
    }
    let len = last - first + 1;
    if len > PUT_SIZE_MAX {
        return Err(S3Error::request(
            "The specified copy range is larger than the maximum allowable size: 5368709120",
        ));
    }
    Ok((first, len))
}
