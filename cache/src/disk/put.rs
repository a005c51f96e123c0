//! Putting a block.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use forebay_store::digest::{crc64, crc64_combine};

use super::Shared;
use super::entry::{Entry, OBJECT_SIZE_MAX, Slot, allocated, run_of};
use super::error::PutError;
use super::evict::{Space, locate};
use super::file::write_all_at;
use super::object::Object;
use super::segment::SEGMENT_SIZE;

impl Object {
    /// Puts a block, given in pieces. One that is there already is left as it is. Makes room
    /// first, which may mean that others go. Blocks.
    ///
    /// # Errors
    /// The block was not kept, and whatever was there before is not half overwritten; see
    /// [`PutError`].
    pub fn put_blocking(&self, block: u64, bytes: &[Bytes]) -> Result<(), PutError> {
        if self.entry.size > OBJECT_SIZE_MAX {
            let (size, max) = (self.entry.size, OBJECT_SIZE_MAX);
            return Err(PutError::TooLarge { size, max });
        }
        if block >= self.entry.blocks() {
            return Err(PutError::NoSuchBlock(block));
        }
        let expected = self.entry.block_len(block);
        let found = bytes.iter().map(|piece| piece.len() as u64).sum();
        if found != expected {
            return Err(PutError::Length { expected, found });
        }
        self.shared.condition.admit(self.shared.now())?;
        let Some(mut claim) = self.claim(block)? else {
            return Ok(());
        };
        if claim.space == Space::Refused {
            self.shared.reserve(allocated(expected))?;
            claim.space = Space::Taken;
        }
        let crc = digest(bytes);
        if let Err(err) = claim.write(bytes) {
            self.shared.write_failed(&err);
            return Err(PutError::Io(err));
        }
        claim.finish(crc);
        self.shared.condition.succeeded();
        Ok(())
    }

    /// Makes a block busy, to be written; nothing if it is there.
    fn claim(&self, block: u64) -> Result<Option<Claim<'_>>, PutError> {
        let mut state = self.entry.lock();
        state.ensure(block);
        let before = state.block(block);
        let space = match before.slot {
            Slot::Present | Slot::Verified => return Ok(None),
            Slot::Absent => Space::Refused,
            Slot::Dead if before.leases == 0 => Space::Taken,
            Slot::Busy | Slot::Dead => return Err(PutError::Busy),
        };
        if state.number == 0 {
            self.shared.number(&mut state, &self.version);
        }
        let bytes = state.bytes;
        state.set(block, Slot::Busy);
        let more = state.bytes - bytes;
        self.shared.count_on(&state, run_of(block).0, more);
        Ok(Some(Claim {
            shared: &self.shared,
            entry: &self.entry,
            block,
            space,
            done: false,
        }))
    }
}

/// A block that is being written. Dropped before its end, there is no such block.
#[derive(Debug)]
struct Claim<'a> {
    shared: &'a Arc<Shared>,
    entry: &'a Arc<Entry>,
    block: u64,
    space: Space,
    done: bool,
}

impl Claim<'_> {
    fn write(&self, bytes: &[Bytes]) -> io::Result<()> {
        let files = &self.shared.files;
        let (number, mut place) = {
            let state = self.entry.lock();
            (state.number, state.place())
        };
        let mut file_len = self.entry.size;
        if self.entry.is_small() {
            file_len = SEGMENT_SIZE;
            if place.is_none() {
                place = Some(self.shared.segments.take(files, self.entry.size)?);
                self.entry.lock().set_place(place);
            }
        }
        let (key, at) = locate(self.entry, number, place, self.block)
            .expect("a small object was given a place");
        let file = files.open(key, file_len, true)?;
        write_all_at(&file.file, bytes, at)
    }

    /// Lets readers see the block.
    fn finish(mut self, crc: u64) {
        self.done = true;
        let run = run_of(self.block).0;
        let mut state = self.entry.lock();
        state.set_crc(self.block, crc);
        // What was just written is what was given: no need to read it again.
        state.set(self.block, Slot::Verified);
        let now = self.shared.now();
        if let Some(rank) = state.rank_mut(run) {
            rank.used = rank.used.max(now);
            rank.changed = true;
        }
        self.shared.enlist(self.entry, &mut state, run);
        self.shared.changes.save(self.entry, &mut state);
        self.shared.counters.blocks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.shared.give_back(self.entry, &[self.block], self.space);
        }
    }
}

/// CRC-64/NVME of pieces one after the other.
fn digest(pieces: &[Bytes]) -> u64 {
    let mut pieces = pieces.iter().filter(|piece| !piece.is_empty());
    let first = pieces.next().map_or(0, |piece| crc64(piece));
    pieces.fold(first, |before, piece| {
        crc64_combine(before, crc64(piece), piece.len() as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_does_not_depend_on_the_pieces() {
        let whole = Bytes::from((0..=250).cycle().take(1000).collect::<Vec<u8>>());
        let pieces = [
            whole.slice(..7),
            Bytes::new(),
            whole.slice(7..900),
            whole.slice(900..),
        ];
        assert_eq!(digest(&pieces), crc64(&whole));
        assert_eq!(digest(std::slice::from_ref(&whole)), crc64(&whole));
        assert_eq!(digest(&[]), crc64(b""));
    }
}
