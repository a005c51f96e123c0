//! An object, as far as it is on the disk.

use std::fmt;
use std::fs::File;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Shared;
use super::block::Block;
use super::changes::seconds;
use super::entry::{Entry, Part, Slot, State, run_of};
use super::error::BlockError;
use super::file::OpenFile;
use crate::version::{BLOCK_SIZE, Version};

/// How long after it was last used a run must be read, by somebody who has come since, to count as
/// read again. Less would take one slow reader for two.
const VISIT_AFTER: Duration = Duration::from_secs(5);
/// How long after it was last used a run counts as read again, whoever reads it.
const RETURN_AFTER: Duration = Duration::from_mins(1);
/// Blocks that are read ahead when a whole object is checked.
const AHEAD_BLOCKS: u64 = 8;
/// By how much the index may be behind about when something was used, in seconds.
const USED_BEHIND_MAX: u32 = 600;

/// A handle of an object, for one visit: a request, or an open file.
///
/// Nothing here but what ends in `_blocking` waits for the disk.
pub struct Object {
    pub(super) shared: Arc<Shared>,
    pub(super) entry: Arc<Entry>,
    pub(super) version: Arc<Version>,
    /// When it was made, in nanoseconds since 1970.
    visited: u64,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.shared.table.close(&self.entry);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Object {
    pub(super) fn new(shared: &Arc<Shared>, version: &Arc<Version>) -> Self {
        let identity = super::entry::identity(&shared.origin, version);
        Self {
            shared: Arc::clone(shared),
            entry: shared.table.open(identity, version.size),
            version: Arc::clone(version),
            visited: shared.now(),
        }
    }

    /// Which object it is.
    pub fn version(&self) -> &Arc<Version> {
        &self.version
    }

    /// A block, if it is there; counts as a use of it.
    pub fn get(&self, block: u64) -> Option<Block> {
        let now = self.shared.now();
        let mut state = self.entry.lock();
        if !state.block(block).slot.is_readable() {
            return None;
        }
        state.lease(block);
        self.touch(&mut state, run_of(block).0, now);
        drop(state);
        Some(Block::leased(&self.shared, &self.entry, block))
    }

    /// Notes that a run is read.
    fn touch(&self, state: &mut State, run: usize, now: u64) {
        let pinned = state.pinned;
        let Some(rank) = state.rank_mut(run) else {
            return;
        };
        let again = self.visited >= rank.used.saturating_add(nanos(VISIT_AFTER))
            || now >= rank.used.saturating_add(nanos(RETURN_AFTER));
        rank.used = rank.used.max(now);
        let mut changed = seconds(now) > rank.used_saved.saturating_add(USED_BEHIND_MAX);
        if again && rank.part == Part::Probation && !pinned {
            rank.part = Part::Protected;
            changed = true;
            let bytes = state.run_bytes(run);
            self.shared.count_on(state, run, bytes);
            self.shared.enlist(&self.entry, state, run);
        }
        if changed {
            if let Some(rank) = state.rank_mut(run) {
                rank.changed = true;
            }
            self.shared.changes.save(&self.entry, state);
        }
    }

    /// Whether a block is there; does not count as a use.
    pub fn has(&self, block: u64) -> bool {
        self.entry.lock().block(block).slot.is_readable()
    }

    /// How many of its blocks are there.
    pub fn present(&self) -> u64 {
        self.entry.lock().present.into()
    }

    /// Whether it is kept however full the cache gets.
    pub fn pinned(&self) -> bool {
        self.entry.lock().pinned
    }

    /// Says whether the object is to be kept however full the cache gets, over restarts too. What
    /// is not there yet is kept once it is put.
    pub fn pin(&self, pinned: bool) {
        let names = Some(&self.version);
        if self.shared.pin(&self.entry, names, pinned) {
            self.shared.table.tidy(&self.entry);
        }
    }

    /// Gives back what is there, but for what is being read, and all if it is pinned. Blocks.
    pub fn discard_blocking(&self) {
        self.shared.evict_object(&self.entry);
    }

    /// Whether all of its blocks are there and were checked in this process.
    pub fn verified(&self) -> bool {
        let state = self.entry.lock();
        (0..self.entry.blocks()).all(|block| state.block(block).slot == Slot::Verified)
    }

    /// The object as one file, if all of its blocks are there; objects of one block have no file
    /// of their own. Checks what was not checked in this process, so it may take long. Blocks.
    ///
    /// # Errors
    /// A block can't be read or is corrupt; it is dropped.
    pub fn complete_file(&self) -> Result<Option<CompleteFile>, BlockError> {
        if self.entry.is_small() {
            return Ok(None);
        }
        let hold = Hold {
            shared: Arc::clone(&self.shared),
            entry: Arc::clone(&self.entry),
        };
        let verified = {
            // From here on no block is given back.
            let mut state = self.entry.lock();
            state.holds += 1;
            state.is_verified()
        };
        let first = if verified { self.entry.blocks() - 1 } else { 0 };
        let Some(file) = self.verify_from_blocking(first)? else {
            return Ok(None);
        };
        if file.file.metadata().map_err(BlockError::Io)?.len() != self.entry.size {
            return Err(BlockError::Corrupt);
        }
        Ok(Some(CompleteFile { file, _hold: hold }))
    }

    /// Checks the blocks from one on; gives the file that they are in if all are there.
    fn verify_from_blocking(&self, first: u64) -> Result<Option<Arc<OpenFile>>, BlockError> {
        let mut file: Option<Arc<OpenFile>> = None;
        for number in first..self.entry.blocks() {
            let Some(block) = self.get(number) else {
                return Ok(None);
            };
            if let Some(file) = &file
                && number % AHEAD_BLOCKS == 1
            {
                // The disk reads what comes next while this is checked.
                let from = (number + AHEAD_BLOCKS) * BLOCK_SIZE;
                read_ahead(file, from.min(self.entry.size), AHEAD_BLOCKS * BLOCK_SIZE);
            }
            let found = block.verify_blocking()?;
            // All of them are of one file, as it is open now.
            if file.is_some_and(|file| !Arc::ptr_eq(&file, &found)) {
                return Ok(None);
            }
            file = Some(found);
        }
        Ok(file)
    }
}

fn read_ahead(file: &OpenFile, from: u64, len: u64) {
    let end = file.map.len();
    let from = usize::try_from(from).map_or(end, |from| from.min(end));
    let len = usize::try_from(len).map_or(end, |len| len.min(end - from));
    if len > 0
        && let Err(err) = file.map.read_ahead(from, len)
    {
        tracing::trace!(%err, "can't read ahead");
    }
}

/// Holds all blocks of an object.
#[derive(Debug)]
struct Hold {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.entry.lock().holds -= 1;
        // Somebody may be short of the room that may be made now.
        if self.shared.room.excess() > 0 {
            self.shared.room.want();
        }
    }
}

/// A file whose bytes are exactly an object's. They stay there as long as this is held.
///
/// It must never be written to.
#[derive(Debug)]
pub struct CompleteFile {
    file: Arc<OpenFile>,
    _hold: Hold,
}

impl Deref for CompleteFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file.file
    }
}

impl AsFd for CompleteFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.file.as_fd()
    }
}

impl Shared {
    /// Pins an object or unpins it; `names` are needed if nothing of it may be there. Whether
    /// nothing is left to be said of it.
    pub(super) fn pin(
        &self,
        entry: &Arc<Entry>,
        names: Option<&Arc<Version>>,
        pinned: bool,
    ) -> bool {
        let mut state = entry.lock();
        if state.pinned == pinned {
            return false;
        }
        if state.number == 0 {
            let Some(names) = names else {
                return false;
            };
            self.number(&mut state, names);
        }
        for run in 0..state.runs() {
            self.leave_protected(&mut state, run);
        }
        let bytes = state.bytes;
        state.pinned = pinned;
        if pinned {
            self.room.pinned.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.room.pinned.fetch_sub(bytes, Ordering::Relaxed);
        }
        for run in 0..state.runs() {
            self.enlist(entry, &mut state, run);
        }
        let forgotten = self.forget(&mut state);
        self.changes.save(entry, &mut state);
        forgotten
    }

    /// Gives an object a number, by which the index and the directory know it.
    pub(super) fn number(&self, state: &mut State, names: &Arc<Version>) {
        state.number = self.next_number.fetch_add(1, Ordering::Relaxed);
        state.unsaved = Some(Arc::clone(names));
        self.counters.objects.fetch_add(1, Ordering::Relaxed);
    }
}
