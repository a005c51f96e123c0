//! Uploads in parts: initiate, upload a part, complete, abort.

use std::sync::Arc;

use forebay_store::api::{Complete, CompletedPart, NewUpload, PublishPart};
use forebay_store::digest::{ChecksumAlgorithm, ChecksumType};
use forebay_store::entry::{ETag, Entry, Upload};
use forebay_store::name::UploadId;
use http::header::ETAG;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Context, objects};
use crate::auth::Authenticated;
use crate::body::{LIST_DOCUMENT_MAX, Plan, RequestBody};
use crate::checksum::{self, Expected, algorithm_name, type_name};
use crate::condition;
use crate::error::{Code, Result, S3Error};
use crate::header::{self, text};
use crate::reply::{self, ReplyBody, Response};
use crate::xml::read::{self, CompleteMultipartUpload};
use crate::xml::representable;
use crate::xml::write;

/// The upload that a request names by bucket, key and `uploadId`.
pub(super) async fn upload(cx: &Context<'_>, auth: &Authenticated) -> Result<Arc<Upload>> {
    let bucket = cx.bucket(auth)?;
    let key = cx.key()?;
    let text = cx.request.query.get("uploadId").unwrap_or_default();
    let id = UploadId::parse(text)
        .ok_or_else(|| S3Error::new(Code::NoSuchUpload).field("UploadId", text))?;
    Ok(cx.objects().upload(bucket.id, &key, id).await?)
}

/// `CreateMultipartUpload`.
pub(super) async fn create(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let headers = &cx.request.headers;
    header::refuse_unbuilt(headers)?;
    let checksum = declared_checksum(headers)?;
    let new = NewUpload {
        bucket: bucket.id,
        key: cx.key()?,
        attributes: header::attributes(headers)?,
        checksum,
        owner: auth.account()?.id.clone(),
    };
    let upload = cx.objects().create_upload(new).await?;
    let document = write::InitiateMultipartUploadResult {
        bucket: bucket.name.as_str().to_owned(),
        key: representable(upload.key.as_str()).into_owned(),
        upload_id: upload.id.to_string(),
    };
    let mut response = reply::xml(write::document("InitiateMultipartUploadResult", &document));
    if let Some((algorithm, kind)) = checksum {
        let headers = response.headers_mut();
        let name = HeaderName::from_static("x-amz-checksum-algorithm");
        headers.insert(name, HeaderValue::from_static(algorithm_name(algorithm)));
        let name = HeaderName::from_static("x-amz-checksum-type");
        headers.insert(name, HeaderValue::from_static(type_name(kind)));
    }
    Ok(response)
}

/// Reads which checksum parts and object are to have.
///
/// # Errors
/// `InvalidRequest` for an unknown algorithm or type, a type alone, or a pair that does not exist.
fn declared_checksum(headers: &HeaderMap) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>> {
    let algorithm = text(headers, "x-amz-checksum-algorithm")?
        .map(checksum::parse_algorithm)
        .transpose()?;
    let kind = text(headers, "x-amz-checksum-type")?
        .map(parse_type)
        .transpose()?;
    let Some(algorithm) = algorithm else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(S3Error::request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let kind = kind.unwrap_or(match algorithm {
        ChecksumAlgorithm::Crc64Nvme => ChecksumType::FullObject,
        _ => ChecksumType::Composite,
    });
    let possible = match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => true,
        ChecksumAlgorithm::Crc64Nvme => kind == ChecksumType::FullObject,
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => kind == ChecksumType::Composite,
    };
    if possible {
        return Ok(Some((algorithm, kind)));
    }
    Err(S3Error::request(format!(
        "The {} checksum type cannot be used with the {} checksum algorithm.",
        type_name(kind),
        algorithm_name(algorithm).to_ascii_lowercase()
    )))
}

fn parse_type(text: &str) -> Result<ChecksumType> {
    [ChecksumType::FullObject, ChecksumType::Composite]
        .into_iter()
        .find(|kind| type_name(*kind).eq_ignore_ascii_case(text))
        .ok_or_else(|| S3Error::request("Value for x-amz-checksum-type header is invalid."))
}

/// `UploadPart`.
pub(super) async fn upload_part(
    cx: &Context<'_>,
    mut auth: Authenticated,
    body: &mut RequestBody,
) -> Result<Response> {
    let upload = upload(cx, &auth).await?;
    let number =
        objects::parse_part_number(cx.request.query.get("partNumber").unwrap_or_default())?;
    header::refuse_unbuilt(&cx.request.headers)?;
    let plan = Plan::parse(&cx.request.headers, auth.take_payload(), cx.compat())?;
    if let (Some(sent), Some((declared, _))) = (plan.expected.algorithm(), upload.checksum)
        && sent != declared
    {
        return Err(S3Error::request(format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            algorithm_name(declared).to_ascii_lowercase(),
            algorithm_name(sent).to_ascii_lowercase()
        )));
    }
    let computed = computed_checksum(&upload);
    let digests = computed
        .into_iter()
        .fold(plan.expected.digests(), |set, algorithm| {
            set.with(algorithm)
        });
    let stage = cx
        .objects()
        .stage_part(&upload, number, plan.len, digests)
        .await?;
    let received = body.receive(plan, stage).await?;
    let declared = received.checksum;
    let checksum = declared.clone().or_else(|| {
        let algorithm = computed?;
        Some((algorithm, received.staged.digests.checksum(algorithm)?))
    });
    let part = PublishPart {
        upload,
        number,
        staged: received.staged,
        checksum,
    };
    let part = cx.objects().publish_part(part).await?;
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(ETAG, header::quoted(&part.etag));
    if let Some((algorithm, value)) = &declared {
        checksum::push_value(&mut headers, *algorithm, &checksum::part_text(value));
    }
    Ok(reply::with_headers(
        StatusCode::OK,
        headers,
        ReplyBody::Empty,
    ))
}

/// The checksum that a part gets whether its client sends one or not: one of all bytes needs every
/// part's, and a composite one is the client's to give.
pub(super) fn computed_checksum(upload: &Upload) -> Option<ChecksumAlgorithm> {
    match upload.checksum {
        Some((algorithm, ChecksumType::FullObject)) => Some(algorithm),
        Some((_, ChecksumType::Composite)) | None => None,
    }
}

/// `CompleteMultipartUpload`.
pub(super) async fn complete(
    cx: &Context<'_>,
    mut auth: Authenticated,
    body: &mut RequestBody,
) -> Result<Response> {
    let upload = upload(cx, &auth).await?;
    let headers = &cx.request.headers;
    let precondition = condition::of_write(headers, cx.compat())?;
    // The checksum headers speak of the object.
    let expected = Expected::without_checksum(headers, &auth.take_payload())?;
    let document = body.document(&expected, LIST_DOCUMENT_MAX).await?;
    let document: CompleteMultipartUpload = read::parse(
        &document,
        &["CompleteMultipartUpload", "CompletedMultipartUpload"],
    )?;
    if document.parts.is_empty() {
        return Err(Code::MalformedXML.into());
    }
    let complete = Complete {
        parts: document
            .parts
            .iter()
            .map(completed_part)
            .collect::<Result<_>>()?,
        checksum: object_checksum(headers, &upload)?,
        size: text(headers, "x-amz-mp-object-size")?
            .map(object_size)
            .transpose()?,
        upload,
        precondition,
    };
    let entry = cx.objects().complete_upload(complete).await?;
    Ok(completed(cx, &entry))
}

fn object_size(text: &str) -> Result<u64> {
    text.parse()
        .map_err(|_| S3Error::request("Value for x-amz-mp-object-size header is invalid."))
}

fn completed_part(part: &read::CompletedPart) -> Result<CompletedPart> {
    let (Some(number), Some(etag)) = (&part.part_number, &part.etag) else {
        return Err(Code::MalformedXML.into());
    };
    let number: i64 = number.trim().parse().map_err(|_| Code::MalformedXML)?;
    let number = u32::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| {
            S3Error::argument("PartNumber", &number.to_string(), "PartNumber must be >= 1")
        })?;
    let named = [
        (ChecksumAlgorithm::Crc32, &part.crc32),
        (ChecksumAlgorithm::Crc32c, &part.crc32c),
        (ChecksumAlgorithm::Crc64Nvme, &part.crc64nvme),
        (ChecksumAlgorithm::Sha1, &part.sha1),
        (ChecksumAlgorithm::Sha256, &part.sha256),
    ];
    let mut named = named
        .into_iter()
        .filter_map(|(algorithm, text)| Some((algorithm, text.as_ref()?)));
    let checksum = named.next();
    if named.next().is_some() {
        return Err(S3Error::argument(
            "Checksum",
            "",
            "A part has more than one checksum.",
        ));
    }
    let checksum = checksum
        .map(|(algorithm, text)| {
            let value = checksum::parse_value(algorithm, text.trim());
            let bad =
                || S3Error::argument("Checksum", text, "The checksum of a part is malformed.");
            Ok::<_, S3Error>((algorithm, value.ok_or_else(bad)?))
        })
        .transpose()?;
    Ok(CompletedPart {
        number,
        etag: ETag::parse(etag),
        checksum,
    })
}

/// The checksum that the request says the object has.
fn object_checksum(
    headers: &HeaderMap,
    upload: &Upload,
) -> Result<Option<(ChecksumAlgorithm, Vec<u8>)>> {
    let kind = text(headers, "x-amz-checksum-type")?
        .map(parse_type)
        .transpose()?;
    let declared = upload
        .checksum
        .map_or(ChecksumType::FullObject, |checksum| checksum.1);
    if kind.is_some_and(|kind| kind != declared) {
        return Err(S3Error::with(
            Code::BadDigest,
            "The checksum type differs from the one that the upload was created with.",
        ));
    }
    let Some((algorithm, text)) = checksum::value_header(headers)? else {
        return Ok(None);
    };
    // A composite value may say of how many parts it is.
    let value = text.split_once('-').map_or(text, |(value, _)| value);
    Ok(Some((algorithm, checksum::header_value(algorithm, value)?)))
}

fn completed(cx: &Context<'_>, entry: &Entry) -> Response {
    let request = cx.request;
    let bucket = request.target.bucket.clone().unwrap_or_default();
    let host = request
        .headers
        .get("host")
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let path = crate::listing::Encoding::Url.text(&request.target.path);
    let checksum = entry.checksum.as_ref().map(|checksum| {
        checksum::elements(
            checksum.algorithm,
            checksum::value_text(checksum),
            Some(checksum.kind),
        )
    });
    let document = write::CompleteMultipartUploadResult {
        location: format!("http://{host}{path}"),
        bucket,
        key: representable(entry.key.as_str()).into_owned(),
        etag: format!("\"{}\"", entry.etag),
        checksum: checksum.unwrap_or_default(),
    };
    let mut response = reply::xml(write::document("CompleteMultipartUploadResult", &document));
    objects::push_version(response.headers_mut(), entry);
    response
}

/// `AbortMultipartUpload`.
pub(super) async fn abort(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let upload = upload(cx, auth).await?;
    cx.objects().abort_upload(upload).await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(
        pairs: &[(&'static str, &'static str)],
    ) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        declared_checksum(&headers)
    }

    #[test]
    fn algorithms_and_types_go_together_as_s3_says() {
        use ChecksumAlgorithm::{Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
        use ChecksumType::{Composite, FullObject};
        let rows = [
            ("CRC32", None, Some((Crc32, Composite))),
            ("CRC32", Some("FULL_OBJECT"), Some((Crc32, FullObject))),
            ("crc32c", Some("COMPOSITE"), Some((Crc32c, Composite))),
            ("CRC64NVME", None, Some((Crc64Nvme, FullObject))),
            ("CRC64NVME", Some("COMPOSITE"), None),
            ("SHA1", None, Some((Sha1, Composite))),
            ("SHA256", None, Some((Sha256, Composite))),
            ("SHA256", Some("FULL_OBJECT"), None),
            ("MD4", None, None),
            ("CRC32", Some("x"), None),
        ];
        for (algorithm, kind, expected) in rows {
            let mut row = vec![("x-amz-checksum-algorithm", algorithm)];
            row.extend(kind.map(|kind| ("x-amz-checksum-type", kind)));
            match expected {
                Some(expected) => assert_eq!(declared(&row).unwrap(), Some(expected)),
                None => assert_eq!(
                    declared(&row).unwrap_err().code(),
                    Code::InvalidRequest,
                    "{row:?}"
                ),
            }
        }
        assert_eq!(declared(&[]).unwrap(), None);
        assert!(declared(&[("x-amz-checksum-type", "COMPOSITE")]).is_err());
    }

    #[test]
    fn a_named_part_has_a_number_a_tag_and_at_most_one_checksum() {
        let part = |inner: &str| {
            let text =
                format!("<CompleteMultipartUpload><Part>{inner}</Part></CompleteMultipartUpload>");
            let parsed: CompleteMultipartUpload =
                read::parse(text.as_bytes(), &["CompleteMultipartUpload"])?;
            completed_part(&parsed.parts[0])
        };
        let tag = "<ETag>\"25f9e794323b453885f5181f1b624d0b\"</ETag>";
        let good = part(&format!(
            "<PartNumber>7</PartNumber>{tag}<ChecksumCRC32>DUoRhQ==</ChecksumCRC32>"
        ))
        .unwrap();
        assert_eq!(
            (good.number, good.checksum.unwrap().0),
            (7, ChecksumAlgorithm::Crc32)
        );
        assert!(good.etag.is_some());
        let rows = [
            (tag.to_owned(), Code::MalformedXML),
            ("<PartNumber>1</PartNumber>".to_owned(), Code::MalformedXML),
            (
                format!("<PartNumber>x</PartNumber>{tag}"),
                Code::MalformedXML,
            ),
            (
                format!("<PartNumber>0</PartNumber>{tag}"),
                Code::InvalidArgument,
            ),
            (
                format!("<PartNumber>-1</PartNumber>{tag}"),
                Code::InvalidArgument,
            ),
            (
                format!("<PartNumber>1</PartNumber>{tag}<ChecksumCRC32>x</ChecksumCRC32>"),
                Code::InvalidArgument,
            ),
            (
                format!(
                    "<PartNumber>1</PartNumber>{tag}<ChecksumCRC32>DUoRhQ==</ChecksumCRC32><ChecksumCRC32C>DUoRhQ==</ChecksumCRC32C>"
                ),
                Code::InvalidArgument,
            ),
        ];
        for (inner, code) in rows {
            assert_eq!(part(&inner).unwrap_err().code(), code, "{inner}");
        }
    }
}
