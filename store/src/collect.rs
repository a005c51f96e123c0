//! Giving space back: removing dead files, and moving what is left in mostly dead segments.
//!
//! No reader is disturbed: maps pin the files they are of, and bytes that move are still there
//! under their old place until nobody looks for them any more.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::api::Face;
use crate::commit::Committer;
use crate::data::OpenFile;
use crate::digest::crc64;
use crate::entry::FileId;
use crate::error::Result;
use crate::index::extent;
use crate::segment::{self, Found};
use crate::shared::{DeadFile, Shared, Stopping};

/// How often dead files are removed.
const REMOVE_INTERVAL: Duration = Duration::from_millis(500);
/// Removals between two looks for segments to rewrite.
const REMOVALS_PER_LOOK: u32 = 20;
/// Bytes moved in one operation, heads included.
const MOVE_BATCH: u64 = 4 << 20;
/// Records moved in one operation: other operations wait meanwhile.
const MOVE_RECORDS: usize = 1000;

/// Segments that were found not worth rewriting, and the number of extents in each at that time.
///
/// The index counts the bytes of objects, not of the heads before them: a segment of very small
/// objects looks mostly dead when all of it is alive. One that is damaged stays as it is, too.
pub(crate) type Kept = HashMap<FileId, i64>;

/// Starts the thread.
pub(crate) fn start(
    shared: &Arc<Shared>,
    committer: &Committer,
    stopping: &Arc<Stopping>,
) -> std::io::Result<JoinHandle<()>> {
    let (shared, committer, stopping) =
        (Arc::clone(shared), committer.clone(), Arc::clone(stopping));
    let run = move || {
        let (mut rounds, mut kept) = (0_u32, Kept::new());
        while !stopping.wait(REMOVE_INTERVAL) {
            remove_dead(&shared);
            rounds += 1;
            if rounds.is_multiple_of(REMOVALS_PER_LOOK)
                && shared.broken().is_none()
                && let Err(err) = compact(&shared, &committer, &mut kept)
            {
                tracing::warn!(%err, "a segment could not be rewritten");
            }
        }
        remove_dead(&shared);
    };
    std::thread::Builder::new()
        .name("collector".to_owned())
        .spawn(run)
}

/// Removes the files that no row refers to any more.
fn remove_dead(shared: &Shared) {
    for DeadFile { id, packed } in shared.dead_files.take() {
        let path = shared.layout.path(id, packed);
        let removed = shared.disk.remove(&path);
        // After the removal, so that nobody takes it in again and pins its space.
        shared.files.forget(id);
        if let Err(err) = removed
            && err.kind() != std::io::ErrorKind::NotFound
        {
            // The next start tries again.
            tracing::warn!(path = %path.display(), %err, "a dead file could not be removed");
        }
    }
}

/// Rewrites the segments of which less than half is alive. Blocks.
pub(crate) fn compact(shared: &Arc<Shared>, committer: &Committer, kept: &mut Kept) -> Result<()> {
    let mut segments = shared.index.read(extent::files)?;
    segments.retain(|(_, packed, _)| *packed);
    // The newest is being appended to.
    segments.pop();
    kept.retain(|id, _| segments.iter().any(|(of, ..)| of == id));
    for (id, _, file_use) in segments {
        let dead = i64::try_from(file_use.size / 2).is_ok_and(|half| file_use.live < half);
        // Looked at again once an eighth of what was in it is gone.
        let waiting = kept
            .get(&id)
            .is_some_and(|refs| file_use.refs > refs - refs / 8 - 1);
        if file_use.refs == 0 {
            drop_segment(committer, id)?;
        } else if dead && !waiting {
            if is_mostly_dead(shared, id, file_use.size)? {
                rewrite(shared, committer, id, file_use.size)?;
            }
            // Rewritten, it goes as soon as nobody refers to it; else something in it can't be
            // moved.
            kept.insert(id, file_use.refs);
        }
    }
    Ok(())
}

/// Whether less than half of a segment is alive, heads included.
fn is_mostly_dead(shared: &Arc<Shared>, id: FileId, size: u64) -> Result<bool> {
    let open = shared.files.get(id, true)?;
    let (mut offset, mut alive) = (0, 0);
    while offset < size {
        let Some(found) = read(&open, offset) else {
            break;
        };
        let extent = shared
            .index
            .read(|connection| extent::find(connection, found.extent_id))?;
        if extent.is_some_and(|extent| extent.file == id && extent.offset == found.data_offset) {
            alive += found.next - offset;
        }
        offset = found.next;
    }
    Ok(alive < size / 2)
}

/// The record at `offset`; logs if there is none where one was published.
fn read(open: &OpenFile, offset: u64) -> Option<Found> {
    let found = segment::read(&open.bytes, offset);
    if found.is_none() {
        tracing::error!(path = %open.disk_file.path.display(), offset, "a segment is damaged: run `forebay fsck`");
    }
    found
}

/// Forgets a segment that nothing lies in.
fn drop_segment(committer: &Committer, id: FileId) -> Result<()> {
    committer.run_blocking(true, Face::S3, move |writer| {
        // Counting no change has the committer look at what is left.
        writer
            .effects
            .files
            .push((id, true, extent::FileUse::default()));
        Ok(())
    })
}

/// Moves what is alive in a segment to the one being appended to.
fn rewrite(shared: &Arc<Shared>, committer: &Committer, id: FileId, size: u64) -> Result<()> {
    let open = shared.files.get(id, true)?;
    let (mut offset, mut batch, mut batch_len) = (0, Vec::new(), 0);
    while offset < size {
        let Some(found) = read(&open, offset) else {
            break;
        };
        batch_len += found.next - offset;
        offset = found.next;
        batch.push(found);
        if batch_len >= MOVE_BATCH || batch.len() >= MOVE_RECORDS {
            relocate(committer, id, &open, std::mem::take(&mut batch))?;
            batch_len = 0;
        }
    }
    relocate(committer, id, &open, batch)?;
    tracing::info!(segment = id.0, "rewrote a segment that was mostly dead");
    Ok(())
}

/// Appends the records that are still referred to, and says where they are now.
fn relocate(
    committer: &Committer,
    from: FileId,
    open: &Arc<OpenFile>,
    batch: Vec<Found>,
) -> Result<()> {
    let open = Arc::clone(open);
    committer.run_blocking(true, Face::S3, move |writer| {
        for found in batch {
            let Some(extent) = extent::find(writer.connection, found.extent_id)? else { continue };
            if extent.file != from || extent.offset != found.data_offset {
                continue;
            }
            let start = usize::try_from(extent.offset).expect("a map is no longer than memory");
            let len = usize::try_from(extent.len).expect("a map is no longer than memory");
            let data = open.bytes.slice(start..start + len);
            if crc64(&data) != found.data_crc {
                // Moving it would hide the damage; it stays for scrub and fsck to tell of.
                tracing::error!(path = %open.disk_file.path.display(), offset = extent.offset, "bytes are damaged");
                continue;
            }
            writer.relocate(&extent, &found.record, &data)?;
        }
        writer.effects.forget_entries();
        Ok(())
    })
}

#[cfg(test)]
mod tests;
