//! Which runs go first.
//!
//! A run begins on probation. Read again in a later visit, it is protected. Who goes first is
//! chosen at random among those on probation: a scan of twice the limit, again and again, would
//! find nothing if the oldest went first. The protected, at most [`PROTECTED_PERCENT`] of the
//! limit, go back on probation when there are too many, the least recently used first.
//!
//! A run's own [`Rank`](super::entry::Rank) says which part it is in. What is here may be behind:
//! a run that was pinned, moved or emptied stays until it comes up, and is then passed over.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::Entry;

/// The part of the limit that is protected at most, in percent.
pub(super) const PROTECTED_PERCENT: u64 = 80;

/// A run of an object.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) entry: Arc<Entry>,
    pub(super) run: u32,
}

impl Member {
    pub(super) fn new(entry: &Arc<Entry>, run: usize) -> Self {
        Self {
            entry: Arc::clone(entry),
            run: u32::try_from(run).expect("an object has fewer runs"),
        }
    }

    pub(super) fn run(&self) -> usize {
        usize::try_from(self.run).expect("32 bits fit")
    }
}

#[derive(Debug)]
struct State {
    probation: Vec<Member>,
    /// The one on probation that has begun to go, and is to go on.
    going: Option<Member>,
    /// By when they were last used, as far as it is known here; the second number makes it unique.
    protected: BTreeMap<(u64, u64), Member>,
    sequence: u64,
    random: u64,
}

/// All runs that may go.
#[derive(Debug)]
pub(super) struct Ranks {
    state: Mutex<State>,
}

impl Ranks {
    /// `seed` decides who is chosen; at random if it is not given.
    pub(super) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
        Self {
            state: Mutex::new(State {
                probation: Vec::new(),
                going: None,
                protected: BTreeMap::new(),
                sequence: 0,
                random: seed,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_probation(&self, member: Member) {
        self.lock().probation.push(member);
    }

    /// Takes everybody out who is on probation.
    pub(super) fn take_all_probation(&self) -> Vec<Member> {
        let mut state = self.lock();
        let going = state.going.take();
        let mut all = std::mem::take(&mut state.probation);
        all.extend(going);
        all
    }

    pub(super) fn add_protected(&self, member: Member, used: u64) {
        let mut state = self.lock();
        state.sequence += 1;
        let key = (used, state.sequence);
        state.protected.insert(key, member);
    }

    /// Adds one on probation that has begun to go: it is the next to come up.
    ///
    /// A few blocks of every run that is gone would be of little use, and would make every run look
    /// as if it were read again.
    pub(super) fn add_going(&self, member: Member) {
        let mut state = self.lock();
        if state.going.is_none() {
            state.going = Some(member);
        } else {
            state.probation.push(member);
        }
    }

    /// Takes one out that is on probation.
    pub(super) fn take_probation(&self) -> Option<Member> {
        let mut state = self.lock();
        if let Some(member) = state.going.take() {
            return Some(member);
        }
        let count = state.probation.len() as u64;
        if count == 0 {
            return None;
        }
        let chosen = usize::try_from(state.random() % count).expect("less than a length");
        Some(state.probation.swap_remove(chosen))
    }

    /// Takes the one out that was not used for longest, with the time that is known here.
    pub(super) fn take_protected(&self) -> Option<(Member, u64)> {
        let ((used, _), member) = self.lock().protected.pop_first()?;
        Some((member, used))
    }
}

impl State {
    /// The next number of `SplitMix64`: <https://prng.di.unimi.it/splitmix64.c>.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(run: usize) -> Member {
        Member::new(&Arc::new(Entry::new([0; 16], 1, true)), run)
    }

    #[test]
    fn everybody_on_probation_comes_up_once() {
        let ranks = Ranks::new(Some(1));
        (0..50).for_each(|run| ranks.add_probation(member(run)));
        let taken: Vec<_> = std::iter::from_fn(|| ranks.take_probation())
            .map(|member| member.run())
            .collect();
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_ne!(taken, sorted);
    }

    #[test]
    fn the_protected_come_up_by_age() {
        let ranks = Ranks::new(None);
        for (run, used) in [(0, 5), (1, 3), (2, 5), (3, 9)] {
            ranks.add_protected(member(run), used);
        }
        let taken: Vec<_> = std::iter::from_fn(|| ranks.take_protected())
            .map(|(member, used)| (member.run(), used))
            .collect();
        assert_eq!(taken, [(1, 3), (0, 5), (2, 5), (3, 9)]);
    }
}
