//! `DeleteObject` and `DeleteObjects`.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use forebay_store::api::{Delete, Deleted};
use forebay_store::entry::Bucket;
use forebay_store::name::{ObjectKey, VersionId};
use forebay_store::rule::precondition::Precondition;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Context;
use crate::auth::{Authenticated, Payload};
use crate::body::{LIST_DOCUMENT_MAX, RequestBody};
use crate::checksum::Expected;
use crate::condition;
use crate::error::{Code, Result, S3Error};
use crate::header::push_text;
use crate::reply::{self, ReplyBody, Response};
use crate::target;
use crate::xml::read::{self, DeleteEntry};
use crate::xml::{representable, write};

/// Keys of one request, at most.
const KEYS_MAX: usize = 1000;

/// `DeleteObject`.
pub(super) async fn one(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let version = target::version_id(cx.request.query.get("versionId"))?;
    let precondition = condition::of_delete(&cx.request.headers, version.is_some())?;
    let delete = Delete {
        bucket: bucket.id,
        key: cx.key()?,
        version,
        precondition,
    };
    let deleted = cx.objects().delete(delete).await?;
    let mut headers = HeaderMap::new();
    let version = deleted.version_id.as_ref().map(VersionId::as_str);
    push_text(
        &mut headers,
        HeaderName::from_static("x-amz-version-id"),
        version,
    );
    if deleted.delete_marker {
        let name = HeaderName::from_static("x-amz-delete-marker");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    Ok(reply::with_headers(
        StatusCode::NO_CONTENT,
        headers,
        ReplyBody::Empty,
    ))
}

/// `DeleteObjects`.
pub(super) async fn many(
    cx: &Context<'_>,
    mut auth: Authenticated,
    body: &mut RequestBody,
) -> Result<Response> {
    let bucket = cx.bucket(&auth)?;
    let payload: Payload = auth.take_payload();
    let expected = Expected::of_document(&cx.request.headers, &payload)?;
    if !expected.has_digest() {
        return Err(S3Error::request(
            "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
        ));
    }
    let document = body.document(&expected, LIST_DOCUMENT_MAX).await?;
    let delete: read::Delete = read::parse(&document, &["Delete"])?;
    if delete.objects.is_empty() || delete.objects.len() > KEYS_MAX {
        return Err(Code::MalformedXML.into());
    }
    let quiet = delete
        .quiet
        .is_some_and(|quiet| quiet.trim().eq_ignore_ascii_case("true"));
    // All are handed over before any is waited for, so that they share their syncs; in order, so
    // that a key that is there twice is deleted in order.
    let pending = delete
        .objects
        .iter()
        .map(|entry| pending(cx, &bucket, entry))
        .collect();
    let results = join(pending).await;
    let mut answer = write::DeleteResult::default();
    for (entry, result) in delete.objects.iter().zip(results) {
        match result {
            Ok(deleted) if !quiet => answer.deleted.push(success(entry, &deleted)),
            Ok(_) => {}
            Err(error) => answer.errors.push(failure(entry, &error)),
        }
    }
    Ok(reply::xml(write::document("DeleteResult", &answer)))
}

type Pending<'a> = Pin<Box<dyn Future<Output = Result<Deleted>> + Send + 'a>>;

fn pending<'a>(cx: &'a Context<'_>, bucket: &Bucket, entry: &DeleteEntry) -> Pending<'a> {
    let delete = parse(bucket, entry);
    Box::pin(async move { Ok(cx.objects().delete(delete?).await?) })
}

fn parse(bucket: &Bucket, entry: &DeleteEntry) -> Result<Delete> {
    let version = target::version_id(entry.version_id.as_deref())?;
    if entry.etag.is_some() && version.is_some() {
        return Err(S3Error::not_implemented("ETag"));
    }
    let precondition = Precondition {
        matches: entry.etag.as_deref().map(condition::etag_match),
        size: entry
            .size
            .as_deref()
            .map(|size| condition::parse_size("Size", size))
            .transpose()?,
        modified_at: entry
            .last_modified_time
            .as_deref()
            .map(|moment| condition::parse_moment("LastModifiedTime", moment))
            .transpose()?,
        ..Precondition::NONE
    };
    Ok(Delete {
        bucket: bucket.id,
        key: ObjectKey::parse(&entry.key)?,
        version,
        precondition,
    })
}

fn success(entry: &DeleteEntry, deleted: &Deleted) -> write::Deleted {
    let marker = deleted
        .version_id
        .as_ref()
        .filter(|_| deleted.delete_marker);
    write::Deleted {
        key: representable(&entry.key).into_owned(),
        version_id: entry.version_id.clone(),
        delete_marker: deleted.delete_marker.then_some(true),
        delete_marker_version_id: marker.map(|version| version.as_str().to_owned()),
    }
}

fn failure(entry: &DeleteEntry, error: &S3Error) -> write::DeleteError {
    if let Some(cause) = error.cause().filter(|_| error.code().status() >= 500) {
        tracing::error!(
            key = entry.key,
            error = cause as &dyn std::error::Error,
            "a key was not deleted"
        );
    }
    write::DeleteError {
        key: representable(&entry.key).into_owned(),
        version_id: entry.version_id.clone(),
        code: error.code().name(),
        message: error.message().to_owned(),
    }
}

/// Drives all futures at once; results in their order.
async fn join(mut pending: Vec<Pending<'_>>) -> Vec<Result<Deleted>> {
    let mut results: Vec<Option<Result<Deleted>>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut waiting = false;
        for (future, result) in pending.iter_mut().zip(&mut results) {
            if result.is_some() {
                continue;
            }
            match future.as_mut().poll(cx) {
                Poll::Ready(ready) => *result = Some(ready),
                Poll::Pending => waiting = true,
            }
        }
        if waiting {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    results
        .into_iter()
        .map(|result| result.expect("all are ready"))
        .collect()
}
