//! Opening: from the index into memory, and setting right what a crash left.
//!
//! Loading reads the index and no data. After a proper end that is all. After a crash the
//! directory may hold what the index does not name, as the last second was not written: then all
//! files are looked at in the background, for which of their pages are allocated, and what nobody
//! names is given back. Until that is done nothing is put, so that what is on the disk is counted.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use forebay_store::sys;

use super::Shared;
use super::dir::FileKey;
use super::entry::{Entry, OBJECT_SIZE_MAX, PAGE_SIZE, RUN_BLOCKS, Slot, State, allocated};
use super::error::DiskError;
use super::evict::{Space, locate};
use super::index::{Index, ObjectRow, RunRow};
use super::segment::SEGMENT_SIZE;
use crate::version::BLOCK_SIZE;

/// What the index names, by number.
pub(super) type Known = HashMap<u64, Arc<Entry>>;

/// Takes in what the index knows.
pub(super) fn load(shared: &Shared, index: &Index) -> Result<Known, DiskError> {
    let mut known = Known::new();
    let mut places = Vec::new();
    let mut last = 0;
    index.objects(|row, own| {
        last = last.max(row.number);
        let entry = Arc::new(Entry::new(row.identity, row.size, own));
        if row.number == 0 || row.size == 0 || row.size > OBJECT_SIZE_MAX {
            return Err(DiskError::Damaged(format!(
                "object {} has {} bytes",
                row.number, row.size
            )));
        }
        // A crash may have left a row of what was put anew under another number.
        if !shared.table.insert(&entry) {
            shared.changes.delete(row.number);
            return Ok(());
        }
        load_object(shared, &entry, &row)?;
        places.extend(row.small.map(|(place, _)| (place, row.size)));
        known.insert(row.number, entry);
        Ok(())
    })?;
    shared.segments.load(&mut places);
    index.runs(|number, run, row| match known.get(&number) {
        Some(entry) => load_run(shared, entry, run, &row),
        None => Ok(()),
    })?;
    shared.next_number.store(last + 1, Ordering::Relaxed);
    known.retain(|number, entry| {
        let mut state = entry.lock();
        if state.occupied > 0 || state.pinned {
            return true;
        }
        state.number = 0;
        shared.changes.delete(*number);
        drop(state);
        shared.table.tidy(entry);
        false
    });
    let objects = u64::try_from(known.len()).expect("a count fits");
    shared.counters.objects.store(objects, Ordering::Relaxed);
    Ok(known)
}

fn load_object(shared: &Shared, entry: &Arc<Entry>, row: &ObjectRow) -> Result<(), DiskError> {
    let mut state = entry.lock();
    state.number = row.number;
    // What another origin pinned is not this one's to keep.
    state.pinned = row.pinned && entry.own;
    let Some((place, crc)) = row.small else {
        return Ok(());
    };
    if !entry.is_small() || place.offset() + allocated(row.size) > SEGMENT_SIZE {
        return Err(DiskError::Damaged(format!(
            "object {} of {} bytes is at {place:?}",
            row.number, row.size
        )));
    }
    state.set_place(Some(place));
    let found = RunRow {
        part: row.part,
        used: row.used,
        present: 1,
        crcs: std::array::from_fn(|at| if at == 0 { crc } else { 0 }),
    };
    take_in(shared, entry, &mut state, 0, &found);
    Ok(())
}

fn load_run(shared: &Shared, entry: &Arc<Entry>, run: u32, row: &RunRow) -> Result<(), DiskError> {
    let first = u64::from(run) * RUN_BLOCKS as u64;
    let last = first + u64::from(15_u32.saturating_sub(row.present.leading_zeros()));
    if entry.is_small() || row.present == 0 || last >= entry.blocks() {
        return Err(DiskError::Damaged(format!(
            "run {run} of an object of {} bytes has blocks {:#b}",
            entry.size, row.present
        )));
    }
    let run = usize::try_from(run).expect("32 bits fit");
    take_in(shared, entry, &mut entry.lock(), run, row);
    Ok(())
}

/// Notes the blocks of a run as there.
fn take_in(shared: &Shared, entry: &Arc<Entry>, state: &mut State, run: usize, row: &RunRow) {
    let before = state.bytes;
    for at in (0..RUN_BLOCKS).filter(|at| row.present >> at & 1 == 1) {
        let block = (run * RUN_BLOCKS + at) as u64;
        state.ensure(block);
        state.set(block, Slot::Present);
        state.set_crc(block, row.crcs[at]);
    }
    if let Some(rank) = state.rank_mut(run) {
        rank.used = u64::from(row.used) * 1_000_000_000;
        rank.used_saved = row.used;
        if entry.own && !state.pinned {
            // What another origin read again has to earn it anew.
            if let Some(rank) = state.rank_mut(run) {
                rank.part = row.part;
            }
        }
    }
    let bytes = state.bytes - before;
    shared.room.add(bytes);
    shared.count_on(state, run, bytes);
    let blocks = u64::from(row.present.count_ones());
    shared.counters.blocks.fetch_add(blocks, Ordering::Relaxed);
    shared.enlist(entry, state, run);
}

/// Sets right what a crash left: gives back what the index does not name, and drops what it names
/// but is not there.
pub(super) fn reclaim(shared: &Shared, known: &Known) -> Result<(), DiskError> {
    let mut segments: HashMap<u32, Vec<&Arc<Entry>>> = HashMap::new();
    for entry in known.values() {
        if let Some(place) = entry.lock().place() {
            segments.entry(place.segment).or_default().push(entry);
        }
    }
    let mut found = std::collections::HashSet::new();
    for (path, key) in shared.directory.files()? {
        let entries: &[&Arc<Entry>] = match key {
            Some(FileKey::Object(number)) => &known
                .get(&number)
                .filter(|entry| !entry.is_small())
                .into_iter()
                .collect::<Vec<_>>(),
            Some(FileKey::Segment(number)) => segments.get(&number).map_or(&[], Vec::as_slice),
            None => &[],
        };
        if entries.is_empty() {
            remove(&path);
            continue;
        }
        found.extend(key);
        if let Err(err) = reclaim_file(shared, &path, entries) {
            // Each block is checked by CRC, so what is wrong in here is found all the same.
            tracing::warn!(path = %path.display(), %err, "can't look at a cache file");
        }
    }
    for entry in known.values() {
        let (number, place, blocks) = kept(entry);
        let key = locate(entry, number, place, 0).map(|(key, _)| key);
        if key.is_some_and(|key| !found.contains(&key)) {
            drop_blocks(shared, entry, &blocks);
        }
    }
    Ok(())
}

fn remove(path: &Path) {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    if let Err(err) = removed {
        tracing::warn!(path = %path.display(), %err, "can't remove a file that is not the cache's");
    }
}

/// An object's number and place, and its blocks that take space.
fn kept(entry: &Entry) -> (u64, Option<super::segment::Place>, Vec<u64>) {
    let state = entry.lock();
    let blocks = (0..state.runs())
        .flat_map(|run| {
            let first = (run * RUN_BLOCKS) as u64;
            let blocks = state.run(run).map_or(&[][..], |(_, blocks)| blocks);
            (first..).zip(blocks)
        })
        .filter(|(_, block)| block.slot.is_kept())
        .map(|(at, _)| at)
        .collect();
    (state.number, state.place(), blocks)
}

/// Compares what a file has allocated with what the index says is in it.
fn reclaim_file(shared: &Shared, path: &Path, entries: &[&Arc<Entry>]) -> io::Result<()> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    let data = data_ranges(&file)?;
    let mut wanted = Vec::new();
    for entry in entries {
        let (number, place, blocks) = kept(entry);
        let mut gone = Vec::new();
        for block in blocks {
            let Some((_, at)) = locate(entry, number, place, block) else {
                continue;
            };
            let end = at + entry.block_len(block);
            wanted.push(at..at + allocated(entry.block_len(block)));
            if !covers(&data, &(at..end)) {
                gone.push(block);
            }
        }
        drop_blocks(shared, entry, &gone);
    }
    wanted.sort_unstable_by_key(|range| range.start);
    for range in outside(&data, &wanted) {
        sys::punch_hole(file.as_raw_fd(), range.start, range.end - range.start)?;
    }
    Ok(())
}

/// Notes that blocks are not there any more.
fn drop_blocks(shared: &Shared, entry: &Arc<Entry>, blocks: &[u64]) {
    for block in blocks {
        {
            let mut state = entry.lock();
            let found = state.block(*block);
            if !found.slot.is_readable() || found.leases > 0 {
                // Somebody reads it already: its CRC will tell.
                continue;
            }
            state.set(*block, Slot::Busy);
        }
        shared.counters.blocks.fetch_sub(1, Ordering::Relaxed);
        shared.give_back(entry, &[*block], Space::Taken);
    }
}

/// Where a file has data.
fn data_ranges(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(start) = sys::seek_data(file.as_raw_fd(), at)? {
        let Some(end) = sys::seek_hole(file.as_raw_fd(), start)? else {
            break;
        };
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// Whether one of the ranges, which are in order and apart, holds all of another.
fn covers(ranges: &[Range<u64>], range: &Range<u64>) -> bool {
    let at = ranges.partition_point(|data| data.end <= range.start);
    ranges
        .get(at)
        .is_some_and(|data| data.start <= range.start && range.end <= data.end)
}

/// What of the data is outside of what is wanted, in whole pages; both are in order.
fn outside(data: &[Range<u64>], wanted: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut gaps = Vec::new();
    let mut at = 0;
    let mut push = |from: u64, to: u64| {
        let first = data.partition_point(|data| data.end <= from);
        if data.get(first).is_some_and(|data| data.start < to) {
            gaps.push(from..to);
        }
    };
    for range in wanted {
        if at < range.start {
            push(at, range.start);
        }
        at = at.max(range.end);
    }
    let end = data.last().map_or(0, |data| data.end);
    if at < end {
        push(at, end.next_multiple_of(PAGE_SIZE));
    }
    gaps
}

const _: () = {
    // Runs' rows have a bit for each block.
    assert!(RUN_BLOCKS == 16);
    assert!(BLOCK_SIZE.is_multiple_of(PAGE_SIZE));
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges")]
    fn only_what_nobody_wants_is_outside() {
        let page = PAGE_SIZE;
        let data = [0..2 * page, 4 * page..5 * page + 7];
        assert_eq!(outside(&data, &[0..2 * page, 4 * page..6 * page]), []);
        assert_eq!(outside(&data, &[0..page]), [page..6 * page]);
        assert_eq!(
            outside(&data, &[page..2 * page, 4 * page..6 * page]),
            [0..page]
        );
        assert_eq!(outside(&data, &[]), [0..6 * page]);
        assert_eq!(outside(&[], &[0..page]), []);
        assert!(covers(&data, &(page..2 * page)));
        assert!(!covers(&data, &(page..3 * page)));
        assert!(!covers(&data, &(6 * page..7 * page)));
    }
}
