//! A block that is there, and its bytes.
//!
//! Bytes are slices of memory maps; nothing is copied. Who has a [`Block`], or bytes of one, holds
//! a lease on it: it is neither given back nor overwritten meanwhile.
//!
//! A block is checked against its CRC before its bytes are handed out for the first time in this
//! process, and again whenever it has to be read from the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use forebay_store::digest::crc64;

use super::Shared;
use super::dir::FileKey;
use super::entry::{Entry, Slot};
use super::error::BlockError;
use super::evict::locate;
use super::file::OpenFile;
use super::segment::SEGMENT_SIZE;

/// A block of an object, as it is on the disk. It stays as long as this is held.
#[derive(Debug)]
pub struct Block {
    lease: Lease,
}

/// Keeps a block as it is.
#[derive(Debug)]
struct Lease {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    block: u64,
    ended: AtomicBool,
}

impl Lease {
    fn end(&self) {
        if !self.ended.swap(true, Ordering::AcqRel) {
            self.entry.lock().end_lease(self.block);
        }
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        self.entry.lock().lease(self.block);
        Self {
            shared: Arc::clone(&self.shared),
            entry: Arc::clone(&self.entry),
            block: self.block,
            ended: AtomicBool::new(false),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.end();
    }
}

/// Bytes that hold a lease.
struct Leased {
    bytes: Bytes,
    _lease: Lease,
}

impl AsRef<[u8]> for Leased {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Where a block is, and what it should be.
#[derive(Clone, Copy, Debug)]
struct Spot {
    key: FileKey,
    /// Bytes of the file.
    file_len: u64,
    at: usize,
    len: usize,
    crc: u64,
    verified: bool,
}

impl Spot {
    fn slice(self, file: &OpenFile) -> Bytes {
        file.bytes.slice(self.at..self.at + self.len)
    }

    /// Whether the block can be read without waiting.
    fn is_resident(self, file: &OpenFile) -> bool {
        // Pages beyond the end of a file that was cut can be in memory and not be had all the same.
        let end = (self.at + self.len) as u64;
        file.map.is_resident(self.at, self.len)
            && file.file.metadata().is_ok_and(|found| found.len() >= end)
    }

    /// Brings the block into memory.
    fn populate(self, file: &OpenFile) -> io::Result<()> {
        // Faults alone would read it in small pieces, one after the other. Where the kernel does
        // not take the advice, they still do.
        if let Err(err) = file.map.read_ahead(self.at, self.len) {
            tracing::trace!(%err, "can't read ahead");
        }
        file.map.populate(self.at, self.len)
    }
}

impl Block {
    /// Of a block that has just been leased.
    pub(super) fn leased(shared: &Arc<Shared>, entry: &Arc<Entry>, block: u64) -> Self {
        Self {
            lease: Lease {
                shared: Arc::clone(shared),
                entry: Arc::clone(entry),
                block,
                ended: AtomicBool::new(false),
            },
        }
    }

    /// Bytes of the block.
    pub fn size(&self) -> u64 {
        self.lease.entry.block_len(self.lease.block)
    }

    /// The block's bytes, if they are in memory and known to be right; never waits for the disk.
    pub fn ready(&self) -> Option<Bytes> {
        let spot = self.spot().filter(|spot| spot.verified)?;
        let file = self.lease.shared.files.get(spot.key)?;
        (!file.map.faulted() && spot.is_resident(&file)).then(|| self.bytes(spot, &file))
    }

    /// The block's bytes, read from the disk and checked if need be. Blocks.
    ///
    /// # Errors
    /// `Corrupt`, `Io`: the block is dropped, and this one no longer holds it in place.
    pub fn load_blocking(&self) -> Result<Bytes, BlockError> {
        let spot = self.spot().ok_or(BlockError::Corrupt)?;
        self.load(spot)
            .map(|file| self.bytes(spot, &file))
            .inspect_err(|err| self.discard(err))
    }

    /// Checks the block if that was not done in this process. Blocks.
    pub(super) fn verify_blocking(&self) -> Result<Arc<OpenFile>, BlockError> {
        let spot = self.spot().ok_or(BlockError::Corrupt)?;
        if spot.verified
            && let Some(file) = self.lease.shared.files.get(spot.key)
            && !file.map.faulted()
        {
            return Ok(file);
        }
        self.load(spot).inspect_err(|err| self.discard(err))
    }

    fn load(&self, spot: Spot) -> Result<Arc<OpenFile>, BlockError> {
        let file = self.open(spot).map_err(BlockError::Io)?;
        if spot.verified && spot.is_resident(&file) && !file.map.faulted() {
            return Ok(file);
        }
        spot.populate(&file).map_err(BlockError::Io)?;
        let found = crc64(&file.bytes[spot.at..spot.at + spot.len]);
        if file.map.faulted() {
            self.lease.shared.files.forget(spot.key);
            return Err(BlockError::Io(io::Error::from_raw_os_error(libc::EIO)));
        }
        if found != spot.crc {
            return Err(BlockError::Corrupt);
        }
        let mut state = self.lease.entry.lock();
        // Another reader may have found it wrong meanwhile.
        if state.block(self.lease.block).slot == Slot::Present {
            state.set(self.lease.block, Slot::Verified);
        }
        drop(state);
        Ok(file)
    }

    /// The block's file, opened anew if its map has had a page that could not be read.
    fn open(&self, spot: Spot) -> io::Result<Arc<OpenFile>> {
        let files = &self.lease.shared.files;
        let file = files.open(spot.key, spot.file_len, false)?;
        if !file.map.faulted() {
            return Ok(file);
        }
        files.forget(spot.key);
        files.open(spot.key, spot.file_len, false)
    }

    /// Where the block is; `None` if it was dropped since.
    fn spot(&self) -> Option<Spot> {
        let Lease { entry, block, .. } = &self.lease;
        if self.lease.ended.load(Ordering::Acquire) {
            return None;
        }
        let state = entry.lock();
        let found = state.block(*block);
        if !found.slot.is_readable() {
            return None;
        }
        let (key, at) = locate(entry, state.number, state.place(), *block)?;
        Some(Spot {
            key,
            file_len: match key {
                FileKey::Object(_) => entry.size,
                FileKey::Segment(_) => SEGMENT_SIZE,
            },
            at: usize::try_from(at).ok()?,
            len: usize::try_from(entry.block_len(*block)).ok()?,
            crc: found.crc,
            verified: found.slot == Slot::Verified,
        })
    }

    fn bytes(&self, spot: Spot, file: &OpenFile) -> Bytes {
        Bytes::from_owner(Leased {
            bytes: spot.slice(file),
            _lease: self.lease.clone(),
        })
    }

    /// Drops the block: it is not there any more, whoever comes next fetches it.
    fn discard(&self, err: &BlockError) {
        let Lease {
            shared,
            entry,
            block,
            ..
        } = &self.lease;
        {
            let mut state = entry.lock();
            if state.block(*block).slot.is_readable() {
                state.set(*block, Slot::Dead);
                if let Some(rank) = state.rank_mut(super::entry::run_of(*block).0) {
                    rank.changed = true;
                }
                shared.counters.blocks.fetch_sub(1, Ordering::Relaxed);
                shared.changes.save(entry, &mut state);
            }
        }
        self.lease.end();
        let (count, what) = match err {
            BlockError::Corrupt => (&shared.counters.corrupt, "are corrupt"),
            BlockError::Io(_) => (&shared.counters.read_errors, "can't be read"),
        };
        if count.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                err = err as &dyn std::error::Error,
                dir = %shared.directory.root().display(),
                "cached blocks {what}: they are fetched again; only the first is logged"
            );
        }
    }
}
