//! Completing an upload: its parts become an object, without copying.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use md5::{Digest as _, Md5};

use super::remove_upload;
use crate::api::{Complete, CompletedPart, Durability};
use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType, crc64_combine};
use crate::entry::{ETag, Entry, Extent, FileId, ObjectPart, Part, Upload};
use crate::error::{Error, IoContext, Result};
use crate::index::upload::{Completed, Origin, StoredPart};
use crate::index::{self, extent};
use crate::limits::{OBJECT_SIZE_MAX, PART_NUMBER_MAX, PART_SIZE_MIN};
use crate::objects::label;
use crate::record::Record;
use crate::rule::posix;
use crate::store::Store;
use crate::time::Timestamp;
use crate::write::{Draft, Source, Writer};

/// How long a completion is remembered, in nanoseconds: a day.
const REMEMBERED_NS: i64 = 24 * 3600 * 1_000_000_000;

impl Store {
    pub(crate) async fn join_parts(&self, complete: Complete) -> Result<Arc<Entry>> {
        let upload = Arc::clone(&complete.upload);
        let request = fingerprint(&complete);
        let version = self.shared.ids.next();
        let uploads = Arc::clone(&self.uploads);
        self.shared
            .closing
            .wait(upload.bucket, Some(&upload.key))
            .await;
        let joined = self
            .change(Durability::Durable, move |writer| {
                uploads.require_sound(complete.upload.id)?;
                join(writer, &complete, request, version)
            })
            .await?;
        self.uploads.forget(upload.id);
        Ok(joined)
    }
}

/// Tells one completion of an upload from another.
fn fingerprint(complete: &Complete) -> Vec<u8> {
    let mut md5 = Md5::new();
    for part in &complete.parts {
        md5.update(part.number.to_le_bytes());
        md5.update(part.etag.map(|etag| etag.digest).unwrap_or_default());
    }
    md5.finalize().to_vec()
}

fn join(
    writer: &mut Writer<'_>,
    complete: &Complete,
    request: Vec<u8>,
    version: u64,
) -> Result<Arc<Entry>> {
    let upload = &complete.upload;
    writer.bucket(upload.bucket)?;
    if !index::upload::exists(writer.connection, upload.id)? {
        return repeated(writer, complete, &request);
    }
    let chosen = choose(writer, complete)?;
    let size: u64 = chosen.iter().map(|stored| stored.part.size).sum();
    if complete.size.is_some_and(|announced| announced != size) {
        return Err(Error::InvalidRequest(
            "the size of the object differs from x-amz-mp-object-size",
        ));
    }
    if size > OBJECT_SIZE_MAX {
        return Err(Error::TooLarge {
            size,
            max: OBJECT_SIZE_MAX,
        });
    }
    let checksum = combined_checksum(complete, &chosen)?;
    let old = writer.current(upload.bucket, upload.key.as_str())?;
    complete.precondition.check(&upload.key, old.as_ref())?;
    let own = own_files(writer, &chosen)?;
    let extents = join_extents(writer, upload, &chosen)?;
    let part = |stored: &StoredPart| ObjectPart {
        number: stored.part.number,
        size: stored.part.size,
        checksum: stored
            .part
            .checksum
            .as_ref()
            .map(|(_, value)| value.clone()),
    };
    let draft = Draft {
        bucket: upload.bucket,
        key: upload.key.clone(),
        id: version,
        ino: version,
        size,
        etag: joined_etag(&chosen),
        owner: upload.owner.clone(),
        attributes: upload.attributes.clone(),
        checksum,
        parts: chosen.iter().map(part).collect(),
        file: posix::from_metadata(&upload.attributes.user_metadata, upload.key.is_marker()),
    };
    label_joined(writer, upload, &draft, &extents, &own)?;
    let entry = writer.publish(draft, Source::Taken(extents), old)?;
    index::upload::remove_parts(writer.connection, upload.id)?;
    remove_upload(writer, upload.id)?;
    let (bucket, key) = (upload.bucket, upload.key.clone());
    let completed = Completed {
        bucket,
        key,
        request,
        entry: entry.id,
    };
    let now = writer.now();
    index::upload::remember(
        writer.connection,
        upload.id,
        &completed,
        now,
        Timestamp(now.0 - REMEMBERED_NS),
    )?;
    Ok(entry)
}

/// The answer to a completion that was answered before.
fn repeated(writer: &Writer<'_>, complete: &Complete, request: &[u8]) -> Result<Arc<Entry>> {
    let upload = &complete.upload;
    let gone = || Error::NoSuchUpload(upload.id.to_string());
    let completed = index::upload::recall(writer.connection, upload.id)?.ok_or_else(gone)?;
    let same = completed.bucket == upload.bucket
        && completed.key == upload.key
        && completed.request == request;
    let current = writer.current(upload.bucket, upload.key.as_str())?;
    let entry = current
        .filter(|entry| same && entry.id == completed.entry)
        .ok_or_else(gone)?;
    Ok(Arc::new(entry))
}

/// The parts that a completion names, checked.
fn choose(writer: &Writer<'_>, complete: &Complete) -> Result<Vec<StoredPart>> {
    if complete.parts.is_empty() {
        return Err(Error::InvalidRequest(
            "a completion names at least one part",
        ));
    }
    if !complete.parts.is_sorted_by(|a, b| a.number < b.number) {
        return Err(Error::InvalidPartOrder);
    }
    let id = complete.upload.id;
    let stored = index::upload::parts(writer.connection, id, 0, usize::from(PART_NUMBER_MAX))?;
    let mut stored: HashMap<u32, StoredPart> = stored
        .into_iter()
        .map(|stored| (u32::from(stored.part.number), stored))
        .collect();
    let mut chosen = Vec::with_capacity(complete.parts.len());
    for named in &complete.parts {
        let found = stored
            .remove(&named.number)
            .filter(|found| matches(named, &found.part));
        chosen.push(found.ok_or(Error::InvalidPart {
            number: named.number,
        })?);
    }
    let before_last = &chosen[..chosen.len() - 1];
    if let Some(small) = before_last
        .iter()
        .find(|stored| stored.part.size < PART_SIZE_MIN)
    {
        return Err(Error::PartTooSmall {
            number: u32::from(small.part.number),
            size: small.part.size,
        });
    }
    Ok(chosen)
}

fn matches(named: &CompletedPart, part: &Part) -> bool {
    let same_sum = |sum: &(ChecksumAlgorithm, Vec<u8>)| part.checksum.as_ref() == Some(sum);
    named.etag == Some(part.etag) && named.checksum.as_ref().is_none_or(same_sum)
}

/// MD5 of the parts' MD5s, and their number.
fn joined_etag(chosen: &[StoredPart]) -> ETag {
    let mut md5 = Md5::new();
    for stored in chosen {
        md5.update(stored.part.etag.digest);
    }
    let parts = u32::try_from(chosen.len()).expect("at most 10,000 parts");
    ETag {
        digest: md5.finalize().into(),
        parts,
    }
}

/// The checksum of the whole, of the upload's algorithm and type, checked against the one
/// announced.
fn combined_checksum(complete: &Complete, chosen: &[StoredPart]) -> Result<Option<Checksum>> {
    let Some((algorithm, kind)) = complete.upload.checksum else {
        return Ok(None);
    };
    if kind == ChecksumType::Composite
        && !(1..)
            .zip(chosen)
            .all(|(number, stored)| stored.part.number == number)
    {
        return Err(Error::InvalidPartOrder);
    }
    let missing = Error::InvalidRequest(
        "the upload was created with a checksum, and a part has none of that algorithm",
    );
    let values = chosen.iter().map(|stored| match &stored.part.checksum {
        Some((of, value)) if *of == algorithm => Some((value, stored.part.size)),
        _ => None,
    });
    let values = values.collect::<Option<Vec<_>>>().ok_or(missing)?;
    let (value, parts) = match kind {
        ChecksumType::Composite => {
            let all: Vec<u8> = values
                .iter()
                .flat_map(|(value, _)| value.iter().copied())
                .collect();
            (
                algorithm.digest(&all),
                u32::try_from(values.len()).expect("at most 10,000 parts"),
            )
        }
        ChecksumType::FullObject => {
            let empty = algorithm.digest(&[]);
            let whole = values.iter().try_fold(empty, |whole, (value, size)| {
                algorithm.combine(&whole, value, *size)
            });
            (
                whole.ok_or(Error::InvalidRequest(
                    "the checksum of a whole can't be computed of its parts'",
                ))?,
                0,
            )
        }
    };
    if complete
        .checksum
        .as_ref()
        .is_some_and(|(of, announced)| *of != algorithm || *announced != value)
    {
        return Err(Error::DigestMismatch {
            what: "checksum of the whole object",
        });
    }
    Ok(Some(Checksum {
        algorithm,
        kind,
        value,
        parts,
    }))
}

/// The extents of the whole: neighbours in one file become one. Extents of parts not chosen are
/// released.
fn join_extents(
    writer: &mut Writer<'_>,
    upload: &Upload,
    chosen: &[StoredPart],
) -> Result<Vec<Extent>> {
    let all = index::upload::parts(
        writer.connection,
        upload.id,
        0,
        usize::from(PART_NUMBER_MAX),
    )?;
    for stored in all {
        if !chosen
            .iter()
            .any(|kept| kept.part.number == stored.part.number)
        {
            writer.release(extent::decode_ids(&stored.extent_ids))?;
        }
    }
    let mut runs: Vec<Vec<Extent>> = Vec::new();
    for stored in chosen {
        for extent in extent::load(writer.connection, &stored.extent_ids)? {
            match runs.last_mut() {
                Some(run) if run.last().is_some_and(|last| continues(last, &extent)) => {
                    run.push(extent);
                }
                _ => runs.push(vec![extent]),
            }
        }
    }
    let mut joined = Vec::with_capacity(runs.len());
    for run in runs {
        let [first, rest @ ..] = &run[..] else {
            continue;
        };
        if rest.is_empty() {
            joined.push(*first);
            continue;
        }
        let mut whole = Extent {
            id: writer.shared.ids.next(),
            ..*first
        };
        for next in rest {
            whole.crc64 = whole
                .crc64
                .zip(next.crc64)
                .map(|(so_far, crc)| crc64_combine(so_far, crc, next.len));
            whole.len += next.len;
        }
        writer.add_extent(&whole, 0)?;
        writer.release(run.iter().map(|extent| extent.id))?;
        joined.push(whole);
    }
    Ok(joined)
}

fn continues(last: &Extent, next: &Extent) -> bool {
    !last.packed && last.file == next.file && last.offset + last.len == next.offset
}

/// The files that no other object has bytes in.
fn own_files(writer: &Writer<'_>, chosen: &[StoredPart]) -> Result<HashSet<FileId>> {
    let mut own = HashSet::new();
    for stored in chosen
        .iter()
        .filter(|stored| stored.origin == Origin::Uploaded)
    {
        let extents = extent::load(writer.connection, &stored.extent_ids)?;
        let files = extents.iter().filter(|extent| !extent.packed);
        own.extend(files.map(|extent| extent.file));
    }
    Ok(own)
}

/// Says in the label of the object's first own file what the joined object is, and cuts off what no
/// part chosen needs. The label of a shared file speaks of the object that it was made for.
fn label_joined(
    writer: &mut Writer<'_>,
    upload: &Upload,
    draft: &Draft,
    extents: &[Extent],
    own: &HashSet<FileId>,
) -> Result<()> {
    let Some(first) = extents.iter().find(|extent| own.contains(&extent.file)) else {
        return Ok(());
    };
    let shared = writer.shared;
    let path = shared.layout.path(first.file, false);
    let file = shared.disk.open(&path).io("open", &path)?;
    let bucket = shared.buckets.by_id(draft.bucket);
    let name = bucket.as_ref().map_or("", |bucket| bucket.name.as_str());
    let mut record = Record::of_draft(draft, name, writer.now());
    for extent in extents {
        record.add_extent(extent);
    }
    label(shared, &file, &record)?;
    writer.effects.sync_files.push(Arc::clone(&file));
    if extents.len() == 1 && first.offset == 0 && first.file == upload.file {
        writer.effects.cut.push((file, first.len));
    }
    Ok(())
}
