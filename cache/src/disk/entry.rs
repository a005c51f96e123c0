//! What is known of an object in memory.
//!
//! Everything that the directory holds has an [`Entry`] here, so that looking a block up never
//! waits for the disk; names are only in the index. An object of one block takes some 240 bytes,
//! one of more takes 20 bytes for each block besides.
//!
//! Blocks are grouped in runs of [`RUN_BLOCKS`]: recency is kept, and space is given back, by run.
//!
//! # Invariants
//! 1. A block is overwritten or given back only by who made it [`Busy`](Slot::Busy), and it is made
//!    so only while nobody leases it.
//! 2. The entry's lock is held for lines, never over I/O. It is taken after the lock of the table's
//!    shard, and before those of the ranks and of the changes.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::segment::Place;
use crate::version::{BLOCK_SIZE, Version};

/// Blocks of a run.
pub(super) const RUN_BLOCKS: usize = 16;
/// What files are allocated in, in bytes.
pub(super) const PAGE_SIZE: u64 = 4096;

/// Largest object that is kept, in bytes: file systems differ in how long a file may be, and a
/// size that an origin makes up must not cost memory.
pub(super) const OBJECT_SIZE_MAX: u64 = 8 << 40;

/// What an object is known by: a hash of its origin, bucket, key, entity tag and size.
pub(super) type Identity = [u8; 16];

/// The identity of a version of an origin.
pub(super) fn identity(origin: &str, version: &Version) -> Identity {
    let mut hash = Sha256::new();
    for part in [origin, &version.bucket, &version.key, &version.etag] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(version.size.to_le_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let mut identity = Identity::default();
    identity.copy_from_slice(&hash[..16]);
    identity
}

/// Bytes on the disk of something of this length.
pub(super) fn allocated(len: u64) -> u64 {
    len.next_multiple_of(PAGE_SIZE)
}

/// What is at a block's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Slot {
    /// Nothing, and no space is taken.
    #[default]
    Absent,
    /// Somebody writes it, or gives it back.
    Busy,
    /// Bytes that are not to be used; they still take space.
    Dead,
    /// The block, not looked at since the start.
    Present,
    /// The block; its CRC was right in this process.
    Verified,
}

impl Slot {
    /// Whether the block is there to be read.
    pub(super) fn is_readable(self) -> bool {
        matches!(self, Self::Present | Self::Verified)
    }

    /// Whether it could be given back if nobody leased it.
    pub(super) fn is_kept(self) -> bool {
        self.is_readable() || self == Self::Dead
    }
}

/// A block's place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BlockState {
    /// CRC-64/NVME of the block's bytes.
    pub(super) crc: u64,
    /// Readers who need it to stay as it is.
    pub(super) leases: u32,
    pub(super) slot: Slot,
}

/// Which part of the cache a run is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// Not read again since it came.
    #[default]
    Probation,
    /// Read again.
    Protected,
}

/// How well a run has deserved to stay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rank {
    /// When it was last read or written, in nanoseconds since 1970.
    pub(super) used: u64,
    /// What the index says of that, in seconds.
    pub(super) used_saved: u32,
    pub(super) part: Part,
    /// Whether the ranks have it in probation.
    pub(super) in_probation: bool,
    /// Whether the ranks have it among the protected.
    pub(super) in_protected: bool,
    /// Whether the index has to be told.
    pub(super) changed: bool,
}

/// Blocks that are ranked together.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    pub(super) rank: Rank,
    pub(super) blocks: [BlockState; RUN_BLOCKS],
}

/// The blocks of an object.
#[derive(Debug)]
enum Body {
    /// One, in a segment.
    Small {
        rank: Rank,
        block: BlockState,
        place: Option<Place>,
    },
    /// Several, in a file of their own; empty while nothing is kept.
    Large(Vec<Option<Box<Run>>>),
}

/// What changes of an entry.
#[derive(Debug)]
pub(super) struct State {
    /// Its row in the index and its file; 0 while nothing is kept.
    pub(super) number: u64,
    /// [`Object`](super::Object)s of it.
    pub(super) handles: u32,
    /// Complete files that are held: no block may go.
    pub(super) holds: u32,
    pub(super) pinned: bool,
    /// Whether the index's writer is to look at it anyway.
    pub(super) queued: bool,
    /// Its names, until they are in the index.
    pub(super) unsaved: Option<Arc<Version>>,
    /// Blocks that are not [`Slot::Absent`].
    pub(super) occupied: u32,
    /// Blocks that can be read.
    pub(super) present: u32,
    /// Bytes on the disk of what is occupied.
    pub(super) bytes: u64,
    size: u64,
    body: Body,
}

/// An object, or the lack of one.
pub(super) struct Entry {
    pub(super) identity: Identity,
    pub(super) size: u64,
    /// Whether it is of the origin that the directory is open for.
    pub(super) own: bool,
    state: Mutex<State>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Entry {
    pub(super) fn new(identity: Identity, size: u64, own: bool) -> Self {
        Self {
            identity,
            size,
            own,
            state: Mutex::new(State::new(size)),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it shares a segment.
    pub(super) fn is_small(&self) -> bool {
        self.size <= BLOCK_SIZE
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK_SIZE)
    }

    /// Bytes of a block.
    pub(super) fn block_len(&self, block: u64) -> u64 {
        block_len(self.size, block)
    }
}

/// Bytes of a block of an object of this size.
fn block_len(size: u64, block: u64) -> u64 {
    size.saturating_sub(block * BLOCK_SIZE).min(BLOCK_SIZE)
}

/// Which run a block is in, and where.
pub(super) fn run_of(block: u64) -> (usize, usize) {
    let block = usize::try_from(block).expect("fewer blocks than memory");
    (block / RUN_BLOCKS, block % RUN_BLOCKS)
}

impl State {
    fn new(size: u64) -> Self {
        Self {
            number: 0,
            handles: 0,
            holds: 0,
            pinned: false,
            queued: false,
            unsaved: None,
            occupied: 0,
            present: 0,
            bytes: 0,
            size,
            body: Self::empty_body(size),
        }
    }

    fn empty_body(size: u64) -> Body {
        if size <= BLOCK_SIZE {
            Body::Small {
                rank: Rank::default(),
                block: BlockState::default(),
                place: None,
            }
        } else {
            Body::Large(Vec::new())
        }
    }

    /// Forgets every block; none may be occupied.
    pub(super) fn clear(&mut self) {
        assert_eq!(self.occupied, 0, "what takes space is not forgotten");
        self.body = Self::empty_body(self.size);
    }

    /// Whether the entry says nothing that a new one would not say.
    pub(super) fn is_blank(&self) -> bool {
        self.number == 0 && self.handles == 0 && self.occupied == 0
    }

    /// Where a small object is.
    pub(super) fn place(&self) -> Option<Place> {
        match &self.body {
            Body::Small { place, .. } => *place,
            Body::Large(_) => None,
        }
    }

    pub(super) fn set_place(&mut self, new: Option<Place>) {
        if let Body::Small { place, .. } = &mut self.body {
            *place = new;
        }
    }

    /// A run, if anything was ever in it.
    pub(super) fn run(&self, run: usize) -> Option<(&Rank, &[BlockState])> {
        match &self.body {
            Body::Small { rank, block, .. } => {
                (run == 0).then(|| (rank, std::slice::from_ref(block)))
            }
            Body::Large(runs) => {
                let run = runs.get(run)?.as_deref()?;
                Some((&run.rank, &run.blocks))
            }
        }
    }

    fn run_mut(&mut self, run: usize) -> Option<(&mut Rank, &mut [BlockState])> {
        match &mut self.body {
            Body::Small { rank, block, .. } => {
                (run == 0).then(|| (rank, std::slice::from_mut(block)))
            }
            Body::Large(runs) => {
                let run = runs.get_mut(run)?.as_deref_mut()?;
                Some((&mut run.rank, &mut run.blocks))
            }
        }
    }

    /// How many runs there may be.
    pub(super) fn runs(&self) -> usize {
        match &self.body {
            Body::Small { .. } => 1,
            Body::Large(runs) => runs.len(),
        }
    }

    /// A run's rank, to be changed.
    pub(super) fn rank_mut(&mut self, run: usize) -> Option<&mut Rank> {
        self.run_mut(run).map(|(rank, _)| rank)
    }

    /// Makes room for what is to be said of a block, which must be one of the object.
    pub(super) fn ensure(&mut self, block: u64) {
        let blocks = self.size.div_ceil(BLOCK_SIZE);
        assert!(block < blocks, "a block of the object");
        if let Body::Large(runs) = &mut self.body {
            if runs.is_empty() {
                let count = run_of(blocks - 1).0 + 1;
                runs.resize_with(count, || None);
            }
            runs[run_of(block).0].get_or_insert_default();
        }
    }

    /// Drops what memory a run takes that has nothing in it and is in no part of the ranks.
    pub(super) fn shrink(&mut self, run: usize) {
        if let Body::Large(runs) = &mut self.body
            && let Some(slot) = runs.get_mut(run)
            && let Some(found) = slot
        {
            let ranked = found.rank.in_probation || found.rank.in_protected || found.rank.changed;
            if !ranked && found.blocks.iter().all(|block| block.slot == Slot::Absent) {
                *slot = None;
            }
        }
    }

    pub(super) fn block(&self, block: u64) -> BlockState {
        let (run, at) = run_of(block);
        self.run(run)
            .and_then(|(_, blocks)| blocks.get(at))
            .copied()
            .unwrap_or_default()
    }

    fn block_mut(&mut self, block: u64) -> &mut BlockState {
        let (run, at) = run_of(block);
        let (_, blocks) = self.run_mut(run).expect("a run that was ensured");
        &mut blocks[at]
    }

    /// Says what is at a block's place now, and keeps count.
    pub(super) fn set(&mut self, block: u64, slot: Slot) {
        let len = allocated(block_len(self.size, block));
        let found = self.block_mut(block);
        let (before, leases) = (found.slot, found.leases);
        found.slot = slot;
        if matches!(slot, Slot::Absent | Slot::Busy) {
            assert_eq!(leases, 0, "nobody leases what is given back or overwritten");
        }
        match (before == Slot::Absent, slot == Slot::Absent) {
            (true, false) => {
                self.occupied += 1;
                self.bytes += len;
            }
            (false, true) => {
                self.occupied -= 1;
                self.bytes -= len;
            }
            _ => {}
        }
        self.present += u32::from(slot.is_readable());
        self.present -= u32::from(before.is_readable());
    }

    pub(super) fn set_crc(&mut self, block: u64, crc: u64) {
        self.block_mut(block).crc = crc;
    }

    /// Adds a reader of a block.
    pub(super) fn lease(&mut self, block: u64) {
        self.block_mut(block).leases += 1;
    }

    /// Takes a reader of a block away.
    pub(super) fn end_lease(&mut self, block: u64) {
        let leases = &mut self.block_mut(block).leases;
        *leases = leases.checked_sub(1).expect("a lease ends once");
    }

    /// Whether every block of the object is there and was checked in this process.
    pub(super) fn is_verified(&self) -> bool {
        u64::from(self.present) == self.size.div_ceil(BLOCK_SIZE)
            && (0..self.runs()).all(|run| {
                let blocks = self.run(run).map_or(&[][..], |(_, blocks)| blocks);
                !blocks.iter().any(|block| block.slot == Slot::Present)
            })
    }

    /// Bytes that a run takes on the disk.
    pub(super) fn run_bytes(&self, run: usize) -> u64 {
        let Some((_, blocks)) = self.run(run) else {
            return 0;
        };
        let first = (run * RUN_BLOCKS) as u64;
        (first..)
            .zip(blocks)
            .filter(|(_, block)| block.slot != Slot::Absent)
            .map(|(at, _)| allocated(block_len(self.size, at)))
            .sum()
    }

    /// Makes blocks of a run busy that nobody needs, from its first on, until they are `need`
    /// bytes; gives them. What is pinned or held stays.
    pub(super) fn claim(&mut self, run: usize, need: u64) -> Vec<u64> {
        if self.pinned || self.holds > 0 {
            return Vec::new();
        }
        let first = (run * RUN_BLOCKS) as u64;
        let size = self.size;
        let mut left = need;
        let mut claimed = Vec::new();
        for (at, block) in (first..).zip(self.run(run).map_or(&[][..], |(_, blocks)| blocks)) {
            if left == 0 {
                break;
            }
            if block.slot.is_kept() && block.leases == 0 {
                left = left.saturating_sub(allocated(block_len(size, at)));
                claimed.push(at);
            }
        }
        for block in &claimed {
            self.set(*block, Slot::Busy);
        }
        claimed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(key: &str, etag: &str, size: u64) -> Version {
        Version {
            bucket: "b".to_owned(),
            key: key.to_owned(),
            etag: etag.to_owned(),
            version_id: None,
            size,
        }
    }

    #[test]
    fn names_that_run_into_each_other_are_different_objects() {
        let one = identity("o", &version("ab", "c", 1));
        assert_ne!(one, identity("o", &version("a", "bc", 1)));
        assert_ne!(one, identity("p", &version("ab", "c", 1)));
        assert_ne!(one, identity("o", &version("ab", "c", 2)));
        assert_eq!(one, identity("o", &version("ab", "c", 1)));
    }

    #[test]
    fn what_is_leased_pinned_or_held_is_not_claimed() {
        let size = 20 * BLOCK_SIZE + 5;
        let entry = Entry::new([0; 16], size, true);
        let mut state = entry.lock();
        for block in [0, 1, 2, 20] {
            state.ensure(block);
            state.set(block, Slot::Busy);
            state.set(block, Slot::Verified);
        }
        assert_eq!((state.occupied, state.present), (4, 4));
        assert_eq!(state.bytes, 3 * BLOCK_SIZE + PAGE_SIZE);
        state.lease(1);
        state.pinned = true;
        assert!(state.claim(0, u64::MAX).is_empty());
        state.pinned = false;
        state.holds = 1;
        assert!(state.claim(0, u64::MAX).is_empty());
        state.holds = 0;
        assert_eq!(state.claim(0, u64::MAX), [0, 2]);
        assert_eq!(state.claim(1, 1), [20]);
        assert_eq!(state.present, 1);
        for block in [0, 2, 20] {
            state.set(block, Slot::Absent);
        }
        assert_eq!(state.run_bytes(0), BLOCK_SIZE);
        state.end_lease(1);
        assert_eq!(state.claim(0, 1), [1]);
    }
}
