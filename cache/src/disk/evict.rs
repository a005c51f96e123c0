//! Making room.
//!
//! Before a block is put its space is reserved; if there is none, what goes first goes. A thread of
//! its own does the same ahead of need, so that a reader who fills the cache seldom waits for it.
//!
//! Blocks that go are made [`Busy`](Slot::Busy) under the object's lock, which nobody can read any
//! more; then their space is given back (a hole in the file), then they are absent. Whoever comes
//! meanwhile finds a miss.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::dir::FileKey;
use super::entry::{Entry, Part, Slot, State, allocated, run_of};
use super::error::PutError;
use super::rank::{Member, PROTECTED_PERCENT};
use super::room::{Room, percent};
use crate::version::BLOCK_SIZE;

/// Runs that are looked at in vain before it is said that there is no room.
const TRIES_MAX: usize = 4096;
/// How often the room is looked at without being asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether blocks that go take space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// They do: it is counted, and given back.
    Taken,
    /// There was no room for them; nothing was written.
    Refused,
}

impl Shared {
    /// Reserves bytes on the disk; makes room if it must. Blocks.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), PutError> {
        self.room.wait_ready()?;
        let deadline = Room::deadline();
        while let Err(over) = self.room.try_reserve(bytes) {
            let began = self.room.begin_evicting();
            let freed = self.evict(over);
            let again = self.room.end_evicting(began, freed > 0);
            if !again || Instant::now() >= deadline {
                return Err(self.no_room(over, bytes));
            }
        }
        if self.room.excess() > 0 {
            self.room.want();
        }
        Ok(())
    }

    fn no_room(&self, needed: u64, bytes: u64) -> PutError {
        let limit = self.room.cap();
        let pinned = self.room.pinned.load(Ordering::Relaxed);
        if pinned > 0 && pinned.saturating_add(bytes) > limit {
            PutError::Pinned { pinned, limit }
        } else {
            PutError::NoRoom { needed, limit }
        }
    }

    /// Gives `need` bytes back, or as many as can go; gives how many did.
    pub(super) fn evict(&self, need: u64) -> u64 {
        self.demote();
        let (mut freed, mut in_vain) = (0, 0);
        let mut back = Vec::new();
        while freed < need && in_vain < TRIES_MAX {
            let Some(member) = self.next_victim() else {
                break;
            };
            match self.evict_run(&member.entry, member.run(), need - freed) {
                0 => {
                    in_vain += 1;
                    back.push(member);
                }
                bytes => {
                    freed += bytes;
                    self.goes_on(member);
                }
            }
        }
        for member in back {
            self.enlist(&member.entry, &mut member.entry.lock(), member.run());
        }
        freed
    }

    /// Puts back a run of which something went: the rest is to go next.
    fn goes_on(&self, member: Member) {
        let mut state = member.entry.lock();
        self.leave_protected(&mut state, member.run());
        let empty = state.run_bytes(member.run()) == 0;
        match state.rank_mut(member.run()) {
            Some(rank) if !empty && !rank.in_probation => rank.in_probation = true,
            _ => {
                state.shrink(member.run());
                return;
            }
        }
        drop(state);
        self.ranks.add_going(member);
    }

    /// Takes out of the ranks who is to go first.
    fn next_victim(&self) -> Option<Member> {
        while let Some(member) = self.ranks.take_probation() {
            let mut state = member.entry.lock();
            let pinned = state.pinned;
            let Some(rank) = state.rank_mut(member.run()) else {
                continue;
            };
            let known = std::mem::take(&mut rank.in_probation);
            if known && rank.part == Part::Probation && !pinned {
                drop(state);
                return Some(member);
            }
        }
        self.oldest_protected()
    }

    /// Takes the protected run out that was not used for longest.
    fn oldest_protected(&self) -> Option<Member> {
        while let Some((member, used)) = self.ranks.take_protected() {
            let mut state = member.entry.lock();
            let pinned = state.pinned;
            let Some(rank) = state.rank_mut(member.run()) else {
                continue;
            };
            let known = std::mem::take(&mut rank.in_protected);
            if !known || rank.part != Part::Protected || pinned {
                continue;
            }
            if rank.used > used {
                // It was read since: now its true age is known.
                let used = rank.used;
                rank.in_protected = true;
                self.ranks.add_protected(member.clone(), used);
                continue;
            }
            drop(state);
            return Some(member);
        }
        None
    }

    /// Puts the oldest protected runs on probation while there are too many.
    pub(super) fn demote(&self) {
        let most = percent(self.room.cap(), PROTECTED_PERCENT);
        while self.room.protected.load(Ordering::Relaxed) > most {
            let Some(member) = self.oldest_protected() else {
                break;
            };
            let mut state = member.entry.lock();
            self.leave_protected(&mut state, member.run());
            self.enlist(&member.entry, &mut state, member.run());
            self.changes.save(&member.entry, &mut state);
        }
    }

    /// Puts a run on probation, if it is protected. The ranks are not told.
    pub(super) fn leave_protected(&self, state: &mut State, run: usize) {
        let bytes = state.run_bytes(run);
        if let Some(rank) = state.rank_mut(run)
            && rank.part == Part::Protected
        {
            rank.part = Part::Probation;
            rank.changed = true;
            self.room.protected.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Has the ranks know of a run, if there is something in it that may go.
    pub(super) fn enlist(&self, entry: &Arc<Entry>, state: &mut State, run: usize) {
        if state.pinned || state.run_bytes(run) == 0 {
            state.shrink(run);
            return;
        }
        let Some(rank) = state.rank_mut(run) else {
            return;
        };
        match rank.part {
            Part::Probation if !rank.in_probation => {
                rank.in_probation = true;
                self.ranks.add_probation(Member::new(entry, run));
            }
            Part::Protected if !rank.in_protected => {
                rank.in_protected = true;
                self.ranks.add_protected(Member::new(entry, run), rank.used);
            }
            _ => {}
        }
    }

    /// Gives `need` bytes of a run back, or as many as can go; gives how many did.
    pub(super) fn evict_run(&self, entry: &Arc<Entry>, run: usize, need: u64) -> u64 {
        let claimed = {
            let mut state = entry.lock();
            let before = state.present;
            let claimed = state.claim(run, need);
            let gone = u64::from(before - state.present);
            self.counters.blocks.fetch_sub(gone, Ordering::Relaxed);
            self.counters.evictions.fetch_add(gone, Ordering::Relaxed);
            claimed
        };
        self.give_back(entry, &claimed, Space::Taken)
    }

    /// Gives the space of blocks of one run back that the caller made busy, and forgets the object
    /// if nothing is left of it; gives how many bytes are free now. Blocks.
    pub(super) fn give_back(&self, entry: &Arc<Entry>, blocks: &[u64], space: Space) -> u64 {
        let Some(first) = blocks.first() else {
            return 0;
        };
        let run = run_of(*first).0;
        let (number, place) = {
            let state = entry.lock();
            (state.number, state.place())
        };
        let mut failed = Vec::new();
        if space == Space::Taken {
            for range in ranges(blocks) {
                let Some((key, at)) = locate(entry, number, place, range.start) else {
                    continue;
                };
                let len = range.clone().map(|block| allocated(entry.block_len(block)));
                if let Err(err) = self.files.punch(key, at, len.sum()) {
                    self.write_failed(&err);
                    failed.push(range);
                }
            }
        }
        let (freed, place, forgotten) = {
            let mut state = entry.lock();
            let before = state.bytes;
            for block in blocks {
                let stays = failed.iter().any(|range| range.contains(block));
                // What can't be given back still takes space, and may be tried again.
                state.set(*block, if stays { Slot::Dead } else { Slot::Absent });
            }
            let freed = before - state.bytes;
            self.count_off(&mut state, run, freed);
            if let Some(rank) = state.rank_mut(run) {
                rank.changed = true;
            }
            let place = state.place().filter(|_| state.occupied == 0);
            if place.is_some() {
                state.set_place(None);
            }
            let forgotten = self.forget(&mut state);
            self.changes.save(entry, &mut state);
            (freed, place, forgotten)
        };
        if let Some(place) = place {
            self.segments.release(&self.files, place, entry.size);
        }
        if forgotten {
            if !entry.is_small() {
                self.files.remove(FileKey::Object(number));
            }
            self.table.tidy(entry);
        }
        if space == Space::Taken {
            self.room.release(freed);
            freed
        } else {
            0
        }
    }

    /// Takes bytes of a run out of the counts of what is protected and pinned.
    fn count_off(&self, state: &mut State, run: usize, bytes: u64) {
        if state.pinned {
            self.room.pinned.fetch_sub(bytes, Ordering::Relaxed);
        }
        if state
            .run(run)
            .is_some_and(|(rank, _)| rank.part == Part::Protected)
        {
            self.room.protected.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Adds bytes of a run to the counts of what is protected and pinned.
    pub(super) fn count_on(&self, state: &State, run: usize, bytes: u64) {
        if state.pinned {
            self.room.pinned.fetch_add(bytes, Ordering::Relaxed);
        }
        if state
            .run(run)
            .is_some_and(|(rank, _)| rank.part == Part::Protected)
        {
            self.room.protected.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Forgets an object of which nothing is left; whether it did.
    pub(super) fn forget(&self, state: &mut State) -> bool {
        if state.number == 0 || state.occupied > 0 || state.pinned {
            return false;
        }
        self.changes.delete(state.number);
        self.counters.objects.fetch_sub(1, Ordering::Relaxed);
        state.number = 0;
        state.unsaved = None;
        state.clear();
        true
    }

    /// Gives all of an object back that can go; gives how many bytes did. Blocks.
    pub(super) fn evict_object(&self, entry: &Arc<Entry>) -> u64 {
        let runs = entry.lock().runs();
        (0..runs)
            .map(|run| self.evict_run(entry, run, u64::MAX))
            .sum()
    }

    /// Has the ranks forget what is not there any more. What was evicted by name, and not because
    /// it came up, would stay in them for as long as the cache is not full.
    pub(super) fn sweep_ranks(&self) {
        let began = self.room.begin_evicting();
        for member in self.ranks.take_all_probation() {
            let mut state = member.entry.lock();
            if let Some(rank) = state.rank_mut(member.run()) {
                rank.in_probation = false;
            }
            self.enlist(&member.entry, &mut state, member.run());
        }
        self.room.end_evicting(began, true);
    }

    /// Gives space back ahead of need until the cache is closed.
    pub(super) fn keep_room(&self) {
        loop {
            self.look();
            self.demote();
            let excess = self.room.excess();
            if excess > 0 {
                let began = self.room.begin_evicting();
                let freed = self.evict(excess);
                // This thread has time: it never waits for others.
                self.room.end_evicting(began, true);
                tracing::debug!(excess, freed, "gave back cached blocks ahead of need");
            }
            if !self.room.wait_wanted(LOOK_EVERY) {
                return;
            }
        }
    }
}

/// Which file a block is in, and where.
pub(super) fn locate(
    entry: &Entry,
    number: u64,
    place: Option<super::segment::Place>,
    block: u64,
) -> Option<(FileKey, u64)> {
    if entry.is_small() {
        let place = place?;
        return Some((FileKey::Segment(place.segment), place.offset()));
    }
    Some((FileKey::Object(number), block * BLOCK_SIZE))
}

/// Blocks in ascending order as ranges without gaps.
fn ranges(blocks: &[u64]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match ranges.last_mut() {
            Some(last) if last.end == *block => last.end += 1,
            _ => ranges.push(*block..block + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of ranges")]
    fn neighbours_are_given_back_together() {
        assert_eq!(ranges(&[]), []);
        assert_eq!(ranges(&[3]), [3..4]);
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [0..3, 5..6, 7..9]);
    }
}
