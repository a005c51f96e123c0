//! The HTTP client as what changes objects.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::api::RenameMode;
use forebay_store::entry::Attributes;
use forebay_store::error::{Error, Result};
use forebay_store::name::{AccountId, BucketName, ObjectKey};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::IF_MATCH;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::ACCOUNT;
use super::catalog::Asked;
use super::client::error_of;
use super::writer::{CopyOf, NewObject, PathRename, Writer};
use crate::origin::{Client, CopyFrom, OriginError, Part, Upload, Written};

/// Largest file that is put in one piece, and smallest part of a larger one, in bytes.
const PART_SIZE_MIN: u64 = 16 << 20;
/// Parts of an upload at most.
const PARTS_MAX: u64 = 10_000;
/// Parts of one file that are in memory and on their way at a time.
const PARTS_AT_ONCE: usize = 4;

impl Writer for Client {
    fn put<'a>(&'a self, object: NewObject<'a>, body: Bytes) -> Asked<'a, Option<String>> {
        Box::pin(async move {
            let headers = headers_of(object.attributes)?;
            let written = self.put(object.bucket, object.key, body, headers).await;
            tag_of(object.bucket, written)
        })
    }

    fn put_file<'a>(
        &'a self,
        object: NewObject<'a>,
        file: Arc<File>,
        size: u64,
    ) -> Asked<'a, Option<String>> {
        Box::pin(async move {
            if size <= PART_SIZE_MIN {
                let body = read(file, 0, size).await?;
                return Writer::put(self, object, body).await;
            }
            let headers = headers_of(object.attributes)?;
            let upload = self.create_upload(object.bucket, object.key, headers).await;
            let upload = upload.map_err(|err| error_of(object.bucket, err))?;
            let uploaded = self.put_parts(&upload, &file, size).await;
            if uploaded.is_err()
                && let Err(err) = self.abort_upload(&upload).await
            {
                let id = &upload.upload_id;
                tracing::warn!(key = object.key, %id, %err, "the parts of a failed upload stay at the origin");
            }
            uploaded
        })
    }

    fn copy<'a>(&'a self, copy: CopyOf<'a>) -> Asked<'a, Option<String>> {
        Box::pin(async move {
            let mut headers = match copy.attributes {
                Some(attributes) => headers_of(attributes)?,
                None => HeaderMap::new(),
            };
            let directive = match copy.attributes {
                Some(_) => HeaderValue::from_static("REPLACE"),
                None => HeaderValue::from_static("COPY"),
            };
            headers.insert("x-amz-metadata-directive", directive);
            let tag = value(format!("\"{}\"", copy.etag).as_bytes())?;
            headers.insert("x-amz-copy-source-if-match", tag);
            let from = CopyFrom {
                bucket: copy.bucket,
                key: copy.from,
                version_id: None,
            };
            let written = self.copy(from, copy.bucket, copy.to, headers).await;
            tag_of(copy.bucket, written)
        })
    }

    fn delete<'a>(&'a self, bucket: &'a str, key: &'a str) -> Asked<'a, ()> {
        Box::pin(async move {
            let deleted = self.delete(bucket, key, None, HeaderMap::new()).await;
            deleted.map_err(|err| error_of(bucket, err))
        })
    }

    fn delete_version<'a>(&'a self, bucket: &'a str, key: &'a str, etag: &'a str) -> Asked<'a, ()> {
        Box::pin(async move {
            let mut headers = HeaderMap::new();
            headers.insert(IF_MATCH, value(format!("\"{etag}\"").as_bytes())?);
            let deleted = match self.delete(bucket, key, None, headers).await {
                // Not every service has this condition for deletions.
                Err(err) if err.status() == Some(StatusCode::NOT_IMPLEMENTED) => {
                    self.delete(bucket, key, None, HeaderMap::new()).await
                }
                deleted => deleted,
            };
            deleted.map_err(|err| error_of(bucket, err))
        })
    }

    fn rename<'a>(&'a self, rename: PathRename<'a>) -> Asked<'a, bool> {
        Box::pin(async move {
            let PathRename {
                bucket,
                from,
                to,
                mode,
            } = rename;
            let how = match mode {
                RenameMode::Replace => "replace",
                RenameMode::NoReplace => "no-replace",
                RenameMode::Exchange => "exchange",
            };
            let known = self.is_forebay(bucket).await;
            if !known.map_err(|err| error_of(bucket, err))? {
                return Ok(false);
            }
            match self.rename(bucket, from, to, how).await {
                Ok(()) => Ok(true),
                // One that was there before there were renames.
                Err(err) if err.status() == Some(StatusCode::METHOD_NOT_ALLOWED) => Ok(false),
                Err(err) => Err(rename_error(&rename, err)?),
            }
        })
    }

    fn create_bucket<'a>(&'a self, bucket: &'a BucketName) -> Asked<'a, ()> {
        Box::pin(async move {
            let made = self.create_bucket(bucket.as_str()).await;
            made.map_err(|err| bucket_error(bucket, err))
        })
    }

    fn delete_bucket<'a>(&'a self, bucket: &'a BucketName) -> Asked<'a, ()> {
        Box::pin(async move {
            let deleted = self.delete_bucket(bucket.as_str()).await;
            deleted.map_err(|err| bucket_error(bucket, err))
        })
    }
}

/// What the store would say to such a rename.
fn rename_error(rename: &PathRename<'_>, err: OriginError) -> Result<Error> {
    let (from, to) = (ObjectKey::parse(rename.from)?, ObjectKey::parse(rename.to)?);
    Ok(match err.code() {
        Some("NoSuchKey") => Error::NoSuchKey(from),
        Some("ObjectExists") => Error::Exists(to),
        Some("IsDirectory") => Error::IsDirectory(to),
        Some("NotDirectory") => Error::NotDirectory(to),
        Some("DirectoryNotEmpty") => Error::DirectoryNotEmpty(to),
        Some("KeyTooLongError") => Error::KeyTooLong {
            len: rename.to.len(),
        },
        Some("InvalidRequest") => Error::InvalidRequest("the origin can't rename these so"),
        _ => error_of(rename.bucket, err),
    })
}

/// What the store would say of a bucket that is made or deleted.
fn bucket_error(bucket: &BucketName, err: OriginError) -> Error {
    match err.code() {
        Some("BucketAlreadyExists" | "BucketAlreadyOwnedByYou") => Error::BucketExists {
            name: bucket.clone(),
            owner: AccountId::new(ACCOUNT),
            location: None,
        },
        Some("BucketNotEmpty") => Error::BucketNotEmpty(bucket.clone()),
        Some("TooManyBuckets") => Error::TooManyBuckets,
        Some("InvalidBucketName") => Error::InvalidBucketName(bucket.as_str().to_owned()),
        _ => error_of(bucket.as_str(), err),
    }
}

impl Client {
    /// Uploads a file's parts, a few at a time, and joins them.
    async fn put_parts(
        &self,
        upload: &Upload,
        file: &Arc<File>,
        size: u64,
    ) -> Result<Option<String>> {
        let part_size = PART_SIZE_MIN.max(size.div_ceil(PARTS_MAX).next_multiple_of(1 << 20));
        let count = size.div_ceil(part_size);
        let parts = (0..count).map(|index| async move {
            let offset = index * part_size;
            let body = read(Arc::clone(file), offset, part_size.min(size - offset)).await?;
            let number = u32::try_from(index + 1).expect("at most 10,000 parts");
            let part = self.upload_part(upload, number, body).await;
            part.map_err(|err| error_of(&upload.bucket, err))
        });
        let parts = futures_util::stream::iter(parts).buffered(PARTS_AT_ONCE);
        let parts: Vec<Part> = parts.try_collect().await?;
        let written = self.complete_upload(upload, &parts, HeaderMap::new()).await;
        tag_of(&upload.bucket, written)
    }
}

fn tag_of(bucket: &str, written: Result<Written, OriginError>) -> Result<Option<String>> {
    match written {
        Ok(written) => Ok(written.etag),
        Err(err) => Err(error_of(bucket, err)),
    }
}

/// A part of a file, in memory.
async fn read(file: Arc<File>, offset: u64, len: u64) -> Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; usize::try_from(len).expect("a part fits in memory")];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(Bytes::from(bytes))
    });
    let failed = |source| Error::Io {
        action: "read",
        path: "a staging file".into(),
        source,
    };
    read.await.map_err(|_| Error::Closed)?.map_err(failed)
}

fn value(bytes: &[u8]) -> Result<HeaderValue> {
    HeaderValue::from_bytes(bytes)
        .map_err(|_| Error::InvalidRequest("metadata that can't be in a header"))
}

/// The headers that say what comes with an object.
fn headers_of(attributes: &Attributes) -> Result<HeaderMap> {
    let of = &attributes.headers;
    let mut headers = HeaderMap::new();
    for (name, text) in [
        ("content-type", &of.content_type),
        ("cache-control", &of.cache_control),
        ("content-disposition", &of.content_disposition),
        ("content-encoding", &of.content_encoding),
        ("content-language", &of.content_language),
        ("expires", &of.expires),
        ("x-amz-storage-class", &attributes.storage_class),
    ] {
        if let Some(text) = text {
            headers.insert(HeaderName::from_static(name), value(text.as_bytes())?);
        }
    }
    for (name, bytes) in &attributes.user_metadata {
        let name = HeaderName::try_from(format!("x-amz-meta-{name}"))
            .map_err(|_| Error::InvalidRequest("metadata that can't be in a header"))?;
        headers.append(name, value(bytes)?);
    }
    Ok(headers)
}
