//! `GetObjectAttributes`.

use forebay_store::entry::Entry;
use http::HeaderMap;
use http::header::LAST_MODIFIED;

use super::{Context, objects};
use crate::auth::Authenticated;
use crate::checksum;
use crate::error::{Result, S3Error};
use crate::header::push_text;
use crate::reply::{self, Response};
use crate::time;
use crate::xml::write::{
    self, ChecksumElements, GetObjectAttributesResponse, ObjectParts, SizedPart,
};

const NAME: &str = "x-amz-object-attributes";
/// Parts of one page, at most and by default.
const PARTS_MAX: usize = 1000;

/// What can be asked for.
const KNOWN: [&str; 5] = [
    "ETag",
    "Checksum",
    "ObjectParts",
    "StorageClass",
    "ObjectSize",
];

/// Reads what is asked for.
fn asked(headers: &HeaderMap) -> Result<Vec<&str>> {
    let values = headers
        .get_all(NAME)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let words: Vec<&str> = values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() {
        return Err(S3Error::request(
            "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty",
        ));
    }
    match words.iter().find(|word| !KNOWN.contains(word)) {
        None => Ok(words),
        Some(word) => Err(S3Error::argument(
            NAME,
            word,
            "Invalid attribute name specified.",
        )),
    }
}

fn number(headers: &HeaderMap, name: &'static str, absent: usize) -> Result<usize> {
    let Some(value) = headers.get(name) else {
        return Ok(absent);
    };
    let text = value.to_str().unwrap_or_default();
    let parsed: Option<i32> = text.parse().ok();
    parsed
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| {
            S3Error::argument(
                name,
                text,
                format!("Provided {name} not an integer or within integer range"),
            )
        })
}

fn parts(headers: &HeaderMap, entry: &Entry) -> Result<Option<ObjectParts>> {
    if entry.parts.is_empty() {
        return Ok(None);
    }
    let max_parts = number(headers, "x-amz-max-parts", PARTS_MAX)?.min(PARTS_MAX);
    let marker = number(headers, "x-amz-part-number-marker", 0)?;
    let mut after = entry
        .parts
        .iter()
        .filter(|part| usize::from(part.number) > marker);
    let page: Vec<_> = after.by_ref().take(max_parts).collect();
    let next = page.last().map_or(0, |part| part.number);
    let algorithm = entry.checksum.as_ref().map(|checksum| checksum.algorithm);
    let element = |part: &&forebay_store::entry::ObjectPart| {
        let checksum = algorithm.zip(part.checksum.as_ref());
        let elements = checksum.map(|(algorithm, value)| {
            checksum::elements(algorithm, checksum::part_text(value), None)
        });
        SizedPart {
            part_number: part.number,
            size: part.size,
            checksum: elements.unwrap_or_default(),
        }
    };
    Ok(Some(ObjectParts {
        parts_count: entry.parts.len(),
        part_number_marker: marker,
        next_part_number_marker: next,
        max_parts,
        is_truncated: after.next().is_some(),
        parts: page.iter().map(element).collect(),
    }))
}

/// `GetObjectAttributes`.
pub(super) async fn get(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let headers = &cx.request.headers;
    let bucket = cx.bucket(auth)?;
    crate::header::refuse_encryption_on_read(headers)?;
    let asked = asked(headers)?;
    let has = |name: &str| asked.contains(&name);
    let entry = objects::entry(cx, &bucket).await?;
    let checksum: Option<ChecksumElements> = entry.checksum.as_ref().map(|checksum| {
        let value = checksum::value_text(checksum);
        checksum::elements(checksum.algorithm, value, Some(checksum.kind))
    });
    let class = entry
        .attributes
        .storage_class
        .clone()
        .unwrap_or_else(|| "STANDARD".to_owned());
    let document = GetObjectAttributesResponse {
        etag: has("ETag").then(|| entry.etag.to_string()),
        checksum: checksum.filter(|_| has("Checksum")),
        object_parts: if has("ObjectParts") {
            parts(headers, &entry)?
        } else {
            None
        },
        storage_class: has("StorageClass").then_some(class),
        object_size: has("ObjectSize").then_some(entry.size),
    };
    let mut response = reply::xml(write::document("GetObjectAttributesResponse", &document));
    let modified = time::http_date(entry.modified_at.seconds());
    push_text(response.headers_mut(), LAST_MODIFIED, Some(&modified));
    objects::push_version(response.headers_mut(), &entry);
    Ok(response)
}
