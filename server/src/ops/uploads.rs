//! `ListParts` and `ListMultipartUploads`.

use forebay_store::api::ListUploads;
use forebay_store::digest::{ChecksumAlgorithm, ChecksumType};
use forebay_store::entry::{Part, Upload};
use forebay_store::name::UploadId;

use super::Context;
use super::buckets::millis;
use super::multipart;
use crate::auth::Authenticated;
use crate::checksum::{self, algorithm_name, type_name};
use crate::error::{Result, S3Error};
use crate::listing::{self, Encoding};
use crate::reply::{self, Response};
use crate::time;
use crate::xml::list::{self, CommonPrefix};
use crate::xml::representable;
use crate::xml::write;

type Declared = Option<(ChecksumAlgorithm, ChecksumType)>;

fn names(declared: Declared) -> (Option<&'static str>, Option<&'static str>) {
    (
        declared.map(|checksum| algorithm_name(checksum.0)),
        declared.map(|checksum| type_name(checksum.1)),
    )
}

fn storage_class(upload: &Upload) -> String {
    upload
        .attributes
        .storage_class
        .clone()
        .unwrap_or_else(|| "STANDARD".to_owned())
}

/// `ListParts`.
pub(super) async fn parts(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let query = &cx.request.query;
    let upload = multipart::upload(cx, auth).await?;
    let limit = listing::limit(query, "max-parts")?;
    let marker = part_number_marker(listing::non_empty(query, "part-number-marker"))?;
    let (parts, is_truncated) = match limit {
        0 => (Vec::new(), false),
        limit => cx.objects().list_parts(&upload, marker, limit).await?,
    };
    let owner = cx.owner(&upload.owner);
    let (checksum_algorithm, checksum_type) = names(upload.checksum);
    let document = write::ListPartsResult {
        bucket: cx.request.target.bucket.clone().unwrap_or_default(),
        key: representable(upload.key.as_str()).into_owned(),
        upload_id: upload.id.to_string(),
        initiator: owner.clone(),
        owner,
        storage_class: storage_class(&upload),
        part_number_marker: marker,
        next_part_number_marker: parts.last().map_or(0, |part| part.number),
        max_parts: limit,
        is_truncated,
        checksum_algorithm,
        checksum_type,
        parts: parts.iter().map(part_element).collect(),
    };
    Ok(reply::xml(write::document("ListPartsResult", &document)))
}

fn part_element(part: &Part) -> write::Part {
    let checksum = part
        .checksum
        .as_ref()
        .map(|(algorithm, value)| checksum::elements(*algorithm, checksum::part_text(value), None));
    write::Part {
        part_number: part.number,
        last_modified: time::iso8601(millis(part.modified_at)),
        etag: format!("\"{}\"", part.etag),
        size: part.size,
        checksum: checksum.unwrap_or_default(),
    }
}

fn part_number_marker(text: Option<&str>) -> Result<u16> {
    let Some(text) = text else { return Ok(0) };
    let number: i32 = text
        .parse()
        .ok()
        .filter(|number| *number >= 0)
        .ok_or_else(|| {
            S3Error::argument(
                "part-number-marker",
                text,
                "Provided part-number-marker not an integer or within integer range",
            )
        })?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
}

/// `ListMultipartUploads`.
pub(super) async fn list(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let query = &cx.request.query;
    let encoding = Encoding::parse(query)?;
    let limit = listing::limit(query, "max-uploads")?;
    let prefix = query.get("prefix").unwrap_or_default();
    let delimiter = listing::non_empty(query, "delimiter");
    let key_marker = query.get("key-marker").unwrap_or_default();
    // Without a key, the upload to go on after says nothing.
    let id_marker =
        listing::non_empty(query, "upload-id-marker").filter(|_| !key_marker.is_empty());
    let after_id = id_marker
        .map(|id| {
            UploadId::parse(id)
                .ok_or_else(|| S3Error::argument("upload-id-marker", id, "Invalid uploadId marker"))
        })
        .transpose()?;
    let page = if limit == 0 {
        forebay_store::api::UploadPage::default()
    } else {
        let list = ListUploads {
            bucket: bucket.id,
            prefix: prefix.to_owned(),
            delimiter: delimiter.map(str::to_owned),
            after: (!key_marker.is_empty()).then(|| (key_marker.to_owned(), after_id)),
            limit,
        };
        cx.objects().list_uploads(list).await?
    };
    let uploads = page
        .uploads
        .iter()
        .map(|upload| upload_element(cx, encoding, upload))
        .collect();
    let common = page.common_prefixes.iter();
    let document = list::ListUploads {
        bucket: bucket.name.as_str().to_owned(),
        key_marker: encoding.text(key_marker),
        upload_id_marker: id_marker.unwrap_or_default().to_owned(),
        next_key_marker: page.next.as_ref().map(|next| encoding.text(&next.0)),
        next_upload_id_marker: page
            .next
            .as_ref()
            .map(|next| next.1.map_or_else(String::new, |id| id.to_string())),
        delimiter: delimiter.map(|delimiter| encoding.text(delimiter)),
        prefix: encoding.text(prefix),
        encoding_type: encoding.element(),
        max_uploads: limit,
        is_truncated: page.next.is_some(),
        uploads,
        common_prefixes: common
            .map(|prefix| CommonPrefix {
                marker: None,
                prefix: encoding.text(prefix),
            })
            .collect(),
    };
    Ok(reply::xml(write::document(
        "ListMultipartUploadsResult",
        &document,
    )))
}

fn upload_element(cx: &Context<'_>, encoding: Encoding, upload: &Upload) -> list::Upload {
    let owner = cx.owner(&upload.owner);
    let (checksum_algorithm, checksum_type) = names(upload.checksum);
    list::Upload {
        key: encoding.text(upload.key.as_str()),
        upload_id: upload.id.to_string(),
        initiator: owner.clone(),
        owner,
        storage_class: storage_class(upload),
        initiated: time::iso8601(millis(upload.initiated_at)),
        checksum_algorithm,
        checksum_type,
    }
}
