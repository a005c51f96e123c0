//! The log in the last segment, and making its changes anew after a crash.
//!
//! A batch that did nothing but put small objects is answered when their records are synced; the
//! index was committed, but its write-ahead log not synced. After a power cut the index is as it
//! was after some commit since its last sync. What it lacks stands behind the published length of
//! the segment that was being appended to, in the order of the commits.
//!
//! # Invariants
//! 1. Records that are logs lie in the segment that the index, as it was last synced, has as its
//!    newest: a batch that begins another syncs the index.
//! 2. Up to the last one that was synced all records are whole, so the first that is not ends the
//!    log. What stands behind it was never answered.
//! 3. All changes between the last sync of the index and a logged one are logged too.

use std::sync::Arc;

use rusqlite::Connection;

use crate::accounts::nobody;
use crate::api::Face;
use crate::append::Appender;
use crate::commit::settle_files;
use crate::data::OpenFile;
use crate::digest::crc64;
use crate::entry::{Extent, FileId};
use crate::error::{Error, IoContext, Result};
use crate::flush;
use crate::index::Transaction;
use crate::limits::RECORD_HEAD_MAX;
use crate::name::{AccountId, BucketName, ObjectKey};
use crate::recover;
use crate::segment::{self, Found};
use crate::shared::{Promise, Shared};
use crate::write::Writer;

/// Makes the changes anew that are logged in the last segment and not in the index.
///
/// # Errors
/// `Io` if the segment can't be read; nothing is changed then.
pub(crate) fn replay(
    shared: &Shared,
    connection: &Connection,
    appender: &mut Appender,
) -> Result<()> {
    let Some((id, file_use)) = recover::last_segment(connection)? else {
        return Ok(());
    };
    let open = match shared.files.get(id, true) {
        // To be told of when it is to be appended to.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(());
        }
        open => open?,
    };
    let logs = read_logs(&open, file_use.size)?;
    if !logs.is_empty() {
        apply_all(shared, connection, appender, (id, &open), &logs)?;
    }
    // Its tail is going to be cut.
    shared.files.forget(id);
    Ok(())
}

/// The logs from `offset` on.
fn read_logs(open: &OpenFile, mut offset: u64) -> Result<Vec<Found>> {
    let mut logs = Vec::new();
    while let Some(found) = read(open, offset)? {
        offset = found.next;
        if !found.logged {
            continue;
        }
        if crc64(data(open, &found)?) != found.data_crc {
            break;
        }
        logs.push(found);
    }
    Ok(logs)
}

/// The record at `offset`, if a whole one is there.
fn read(open: &OpenFile, offset: u64) -> Result<Option<Found>> {
    populate(open, offset, RECORD_HEAD_MAX)?;
    Ok(segment::read(&open.bytes, offset))
}

fn data<'o>(open: &'o OpenFile, found: &Found) -> Result<&'o [u8]> {
    let range = populate(open, found.data_offset, found.data_len)?;
    Ok(&open.bytes[range])
}

/// Reads a range, as far as the segment goes, so that an error of the disk is one.
fn populate(open: &OpenFile, offset: u64, len: u64) -> Result<std::ops::Range<usize>> {
    let place = |at: u64| usize::try_from(at).map_or(open.map.len(), |at| at.min(open.map.len()));
    let range = place(offset)..place(offset.saturating_add(len));
    open.map
        .populate(range.start, range.len())
        .io("read", &open.disk_file.path)?;
    Ok(range)
}

fn apply_all(
    shared: &Shared,
    connection: &Connection,
    appender: &mut Appender,
    (id, open): (FileId, &Arc<OpenFile>),
    logs: &[Found],
) -> Result<()> {
    let extents: Vec<Extent> = logs.iter().map(|found| extent_of(id, found)).collect();
    let located: Vec<flush::Located> = extents.iter().map(|it| (*it, Arc::clone(open))).collect();
    flush::write_again(shared, &located)?;
    let transaction = Transaction::begin(connection)?;
    let mut writer = Writer::new(shared, connection, appender, Promise::Synced, false);
    for (found, extent) in logs.iter().zip(extents) {
        apply(&mut writer, found, extent)?;
    }
    let effects = writer.into_effects();
    let dead = settle_files(connection, appender, &[(Face::S3, effects)])?;
    transaction.commit()?;
    shared.dead_files.add(dead, true);
    tracing::info!(
        objects = logs.len(),
        "objects were put again that the index had not kept"
    );
    Ok(())
}

fn extent_of(file: FileId, found: &Found) -> Extent {
    Extent {
        id: found.extent_id,
        file,
        packed: true,
        offset: found.data_offset,
        len: found.data_len,
        crc64: Some(found.data_crc),
    }
}

/// Puts one object again.
fn apply(writer: &mut Writer<'_>, found: &Found, extent: Extent) -> Result<()> {
    let record = &found.record;
    let name = BucketName::parse(&record.bucket).ok();
    let bucket = name.and_then(|name| writer.shared.buckets.by_name(&name));
    let (Some(bucket), Ok(key)) = (bucket, ObjectKey::parse(&record.key)) else {
        return Err(Error::IndexDamaged(format!(
            "an object was put as {}/{}, and there is no such bucket",
            record.bucket, record.key
        )));
    };
    let mut owner = AccountId::new(&record.owner);
    if writer.shared.accounts.number(&owner).is_none() {
        owner = nobody();
    }
    let old = writer.current(bucket.id, key.as_str())?;
    let entry = record.entry(bucket.id, key, owner, vec![extent]);
    writer.add_extent(&extent, found.next)?;
    writer.replace(entry, old, true).map(drop)
}
