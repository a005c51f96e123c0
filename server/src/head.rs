//! What the read of a version comes to: its conditions, its range, and the headers of its answer.
//!
//! All is decided on the entry and the request alone, so that a node that has both decides as the
//! server would.

use forebay_store::entry::Entry;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::checksum;
use crate::condition::{self, Verdict};
use crate::error::{Code, Result, S3Error};
use crate::header::{self, text};
use crate::query::Query;
use crate::range::{self, Ranged};

/// What of a request decides what it reads of a version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadHead<'r> {
    /// Its headers.
    pub(crate) headers: &'r HeaderMap,
    /// Its parameters.
    pub(crate) query: &'r Query,
    /// The part that it asks for.
    pub(crate) part_number: Option<u16>,
    /// When it came, in seconds since 1970.
    pub(crate) now_s: i64,
}

/// What of an object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// First byte.
    pub(crate) offset: u64,
    /// How many bytes.
    pub(crate) len: u64,
    /// 206, and not 200.
    partial: bool,
    /// Place in the entry's parts.
    part: Option<usize>,
}

impl Slice {
    /// Status of the answer that has it.
    pub(crate) fn status(&self) -> StatusCode {
        if self.partial {
            StatusCode::PARTIAL_CONTENT
        } else {
            StatusCode::OK
        }
    }
}

/// Head of an answer, and what follows it.
#[derive(Debug)]
pub(crate) enum Found {
    /// 304, with these headers.
    NotModified(HeaderMap),
    /// Bytes, after these headers.
    Slice(Slice, HeaderMap),
}

/// Decides what the read of `entry` comes to.
///
/// # Errors
/// `PreconditionFailed`, `InvalidRange`, `InvalidPartNumber`, `InvalidArgument` for a `response-*`
/// parameter.
pub(crate) fn of(entry: &Entry, read: &ReadHead<'_>) -> Result<Found> {
    match condition::check(read.headers, &condition::READ, entry, read.now_s) {
        Verdict::Proceed => {}
        Verdict::Failed(condition) => return Err(condition::failed(condition)),
        Verdict::NotModified => {
            let mut headers = HeaderMap::new();
            header::push_validators(&mut headers, entry);
            return Ok(Found::NotModified(headers));
        }
    }
    let slice = match read.part_number {
        Some(number) => part_slice(entry, number)?,
        None => range_slice(read.headers, entry)?,
    };
    let mut headers = HeaderMap::with_capacity(24);
    header::push_object(&mut headers, entry);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, slice.len.into());
    if slice.partial {
        let last = slice.offset + slice.len - 1;
        let value = format!("bytes {}-{last}/{}", slice.offset, entry.size);
        header::push_text(&mut headers, CONTENT_RANGE, Some(&value));
    }
    if read.part_number.is_some() && !entry.parts.is_empty() {
        let name = HeaderName::from_static("x-amz-mp-parts-count");
        headers.insert(name, entry.parts.len().into());
    }
    push_checksum(&mut headers, read.headers, entry, slice);
    header::push_overrides(&mut headers, read.query)?;
    Ok(Found::Slice(slice, headers))
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
