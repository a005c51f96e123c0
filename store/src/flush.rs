//! Making deferred commits durable, within a second.
//!
//! A version whose bytes were not synced before its row was committed is marked in the index. Here
//! its bytes are synced, its CRC is computed if it has none, and the mark comes off in a durable
//! commit, which makes every commit before it durable too.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::api::Face;
use crate::commit::Committer;
use crate::data::OpenFile;
use crate::digest::{crc64, crc64_combine};
use crate::entry::{Entry, Extent, FileId};
use crate::error::{Error, IoContext, Result};
use crate::index::{extent, unsynced};
use crate::limits::RECORD_HEAD_MAX;
use crate::recover;
use crate::shared::{Shared, Stopping, lock};

/// How long a deferred commit waits for others to be flushed with it.
const FLUSH_DELAY: Duration = Duration::from_millis(300);
/// How often the thread looks whether it is to stop.
const IDLE_WAIT: Duration = Duration::from_secs(5);
/// Bytes whose CRC is computed at a time.
const CRC_PIECE: usize = 1 << 20;

/// An extent and its file, open.
pub(crate) type Located = (Extent, Arc<OpenFile>);

/// Starts the thread.
pub(crate) fn start(
    shared: &Arc<Shared>,
    committer: &Committer,
    stopping: &Arc<Stopping>,
) -> std::io::Result<JoinHandle<()>> {
    let (shared, committer, stopping) =
        (Arc::clone(shared), committer.clone(), Arc::clone(stopping));
    let run = move || {
        while !stopping.is_set() {
            shared.unsynced.wait(IDLE_WAIT, &stopping);
            if !shared.unsynced.is_pending() || stopping.wait(FLUSH_DELAY) {
                continue;
            }
            if !flush_behind(&shared, &committer) {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("flusher".to_owned())
        .spawn(run)
}

/// Flushes with nobody waiting for it; false if nothing can be flushed any more.
fn flush_behind(shared: &Arc<Shared>, committer: &Committer) -> bool {
    // Whoever waits for this lock sees the failure.
    let _flushing = lock(&shared.unsynced.flushing);
    if let Err(err) = flush_held(shared, committer) {
        tracing::error!(%err, "deferred changes could not be made durable");
        *lock(&shared.unsynced.failed) = Some(err);
    }
    shared.broken().is_none()
}

/// Makes everything committed so far durable. Blocks.
///
/// # Errors
/// `SyncFailedEarlier`, `Io`: versions whose bytes could not be synced have given way to what they
/// replaced, now or since the last call.
pub(crate) fn flush(shared: &Arc<Shared>, committer: &Committer) -> Result<()> {
    // What another thread is flushing was answered, too: it counts when that is done.
    let _flushing = lock(&shared.unsynced.flushing);
    flush_held(shared, committer)
}

fn flush_held(shared: &Arc<Shared>, committer: &Committer) -> Result<()> {
    let earlier = lock(&shared.unsynced.failed).take();
    if !shared.syncs || !shared.unsynced.is_pending() {
        return earlier.map_or(Ok(()), Err);
    }
    let entries = shared.unsynced.take();
    let (mut synced, mut lost) = (
        Vec::new(),
        std::mem::take(&mut *lock(&shared.unsynced.lost)),
    );
    let mut failure = earlier;
    for entry in entries {
        match sync_entry(shared, &entry) {
            Ok(crcs) => synced.push((entry, crcs)),
            // It was replaced or removed meanwhile, with its mark.
            Err(Error::Superseded(_)) => {}
            Err(err) if !is_final(&err) => {
                failure.get_or_insert(err);
                shared.unsynced.add(vec![entry]);
            }
            Err(err) => {
                tracing::error!(key = %entry.key, %err, "a file's bytes could not be synced: its last version comes back");
                failure.get_or_insert(err);
                lost.push(entry);
            }
        }
    }
    let kept: Vec<_> = synced.iter().map(|(entry, _)| Arc::clone(entry)).collect();
    if let Err(err) = settle(shared, committer, synced, lost.clone()) {
        // The marks are still there: they must come off before the store is opened again.
        shared.unsynced.add(kept);
        lock(&shared.unsynced.lost).append(&mut lost);
        return Err(err);
    }
    failure.map_or(Ok(()), Err)
}

/// A version whose bytes are synced, and the CRCs of those of its extents that had none.
pub(crate) type Synced = (Arc<Entry>, Vec<(u64, u64)>);
/// Whether an entry's bytes are lost: not so if its files could only not be opened now.
fn is_final(err: &Error) -> bool {
    !matches!(
        err,
        Error::Io {
            action: "open" | "stat" | "map",
            ..
        }
    )
}

/// Takes the marks off versions that are synced, and puts what they replaced back in the place of
/// those that are lost.
pub(crate) fn settle(
    shared: &Arc<Shared>,
    committer: &Committer,
    synced: Vec<Synced>,
    lost: Vec<Arc<Entry>>,
) -> Result<()> {
    let dirs: BTreeSet<_> = synced
        .iter()
        .flat_map(|(entry, _)| &entry.extents)
        .filter(|extent| !extent.packed)
        .collect_dirs(shared);
    committer.run_blocking(true, Face::S3, move |writer| {
        for (entry, crcs) in &synced {
            if !unsynced::is_marked(writer.connection, entry.id)? {
                continue;
            }
            for (id, crc) in crcs {
                if extent::find(writer.connection, *id)?.is_some() {
                    extent::set_crc(writer.connection, *id, *crc)?;
                }
            }
            writer.settle(entry.id)?;
        }
        if synced.iter().any(|(_, crcs)| !crcs.is_empty()) {
            writer.effects.forget_entries();
        }
        for entry in &lost {
            recover::fall_back(writer, entry.id, entry.bucket, entry.key.as_str())?;
        }
        writer.effects.dirs.extend(dirs);
        Ok(())
    })
}

trait CollectDirs {
    fn collect_dirs(self, shared: &Shared) -> BTreeSet<std::path::PathBuf>;
}

impl<'e, I: Iterator<Item = &'e Extent>> CollectDirs for I {
    fn collect_dirs(self, shared: &Shared) -> BTreeSet<std::path::PathBuf> {
        self.map(|extent| shared.layout.file_dir(extent.file))
            .collect()
    }
}

/// Opens the files of an entry; `Superseded` if one is gone.
fn files_of(shared: &Shared, entry: &Entry) -> Result<Vec<Located>> {
    let open = |extent: &Extent| match shared.files.get(extent.file, extent.packed) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::Superseded(entry.key.clone()))
        }
        file => Ok((*extent, file?)),
    };
    entry.extents.iter().map(open).collect()
}

/// Syncs the files of their own that an entry's bytes are in; gives the CRCs that it lacks.
///
/// Segments are synced by the committer, before it commits.
fn sync_entry(shared: &Shared, entry: &Entry) -> Result<Vec<(u64, u64)>> {
    let mut crcs = Vec::new();
    for (extent, open) in files_of(shared, entry)? {
        if extent.packed {
            continue;
        }
        shared.sync_all(&open.disk_file)?;
        if extent.crc64.is_none() {
            crcs.push((extent.id, crc_of(&extent, &open)?));
        }
    }
    Ok(crcs)
}

/// CRC of an extent's bytes as they are in its file.
pub(crate) fn crc_of(extent: &Extent, open: &OpenFile) -> Result<u64> {
    let damaged = || {
        Error::IndexDamaged(format!(
            "an extent lies beyond the end of {}",
            open.disk_file.path.display()
        ))
    };
    let start = usize::try_from(extent.offset).map_err(|_| damaged())?;
    let len = usize::try_from(extent.len).map_err(|_| damaged())?;
    let end = start
        .checked_add(len)
        .filter(|end| *end <= open.map.len())
        .ok_or_else(damaged)?;
    let (mut at, mut crc) = (start, crc64(&[]));
    while at < end {
        let piece = CRC_PIECE.min(end - at);
        open.map
            .populate(at, piece)
            .io("read", &open.disk_file.path)?;
        crc = crc64_combine(crc, crc64(&open.bytes[at..at + piece]), piece as u64);
        at += piece;
    }
    Ok(crc)
}

/// What is known of bytes that were written before the process ended and were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survival {
    /// The machine has run on since: they are as they were written, if no write to the disk failed.
    Whole,
    /// Nothing: the power may have been cut.
    Unknown,
}

/// The bytes of a version that are what was written, and the CRCs of those of its extents that had
/// none.
pub(crate) struct Verified {
    pub(crate) bytes: Vec<Located>,
    pub(crate) crcs: Vec<(u64, u64)>,
}

/// Looks after a crash whether an entry's bytes are what was written; `None` if not.
///
/// An extent without a CRC is trusted only if the machine has run on.
pub(crate) fn verify(
    shared: &Shared,
    entry: &Entry,
    survival: Survival,
) -> Result<Option<Verified>> {
    let bytes = match files_of(shared, entry) {
        Err(Error::Superseded(_)) => return Ok(None),
        files => files?,
    };
    let mut crcs = Vec::new();
    for (extent, open) in &bytes {
        let found = match (extent.crc64, survival) {
            (Some(_), _) => crc_of(extent, open).ok(),
            (None, Survival::Whole) => crc_of_surviving(shared, extent, open),
            (None, Survival::Unknown) => None,
        };
        match (found, extent.crc64) {
            (Some(found), Some(expected)) if found == expected => {}
            (Some(found), None) => crcs.push((extent.id, found)),
            _ => return Ok(None),
        }
    }
    Ok(Some(Verified { bytes, crcs }))
}

/// CRC of an extent that was published without one, as the page cache has it; `None` if it may not
/// be what was written.
fn crc_of_surviving(shared: &Shared, extent: &Extent, open: &OpenFile) -> Option<u64> {
    // Published with the length that its file had, and nobody wrote to it since.
    if extent.offset + extent.len != open.map.len() as u64 {
        return None;
    }
    // First: a write that failed behind our back is told of once, and the page may be dropped then.
    shared.sync_all(&open.disk_file).ok()?;
    crc_of(extent, open).ok()
}

/// Writes bytes once more, the same ones, and syncs them.
///
/// If their sync failed and the machine ran on, the page cache has them and the disk has not, and
/// the pages count as clean: a sync alone would succeed and write nothing.
pub(crate) fn write_again(shared: &Shared, bytes: &[Located]) -> Result<()> {
    let mut ranges: BTreeMap<FileId, (u64, u64, &OpenFile)> = BTreeMap::new();
    for (extent, open) in bytes {
        // A record's head is written together with its bytes.
        let head = if extent.packed { RECORD_HEAD_MAX } else { 0 };
        let (start, end) = (
            extent.offset.saturating_sub(head),
            extent.offset + extent.len,
        );
        let range = ranges.entry(extent.file).or_insert((start, end, open));
        *range = (range.0.min(start), range.1.max(end), open);
    }
    for (start, end, open) in ranges.into_values() {
        let (file, path) = (&open.disk_file, &open.disk_file.path);
        let mut buffer = vec![0; CRC_PIECE];
        let mut at = start;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(CRC_PIECE);
            let piece = &mut buffer[..left.min(CRC_PIECE)];
            // Not out of the map: a page that can't be read is an error here, not a page of zeros.
            file.file.read_exact_at(piece, at).io("read", path)?;
            match shared.disk.write_at(file, &[piece], at) {
                Err(err) if err.kind() == std::io::ErrorKind::StorageFull => {
                    tracing::warn!(path = %path.display(), "no room to write bytes again after a crash");
                    break;
                }
                done => done.io("write again to", path)?,
            }
            at += piece.len() as u64;
        }
        shared.sync_all(file)?;
    }
    Ok(())
}
