//! Which prefixes are read most from the cache, lately.
//!
//! A prefix is a bucket and up to [`PREFIX_PARTS_MAX`] first parts of a key, each with its slash.
//! What was read counts half after [`HALF_LIFE`]. Only the [`PREFIXES_MAX`] heaviest are known: one
//! that comes new takes the place of the lightest, and its weight too, which is remembered as what
//! it may be wrong by ("space saving", Metwally, Agrawal, El Abbadi, 2005). What is told of a
//! prefix leaves that out: it was read at least so much.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Prefixes that are known at a time.
const PREFIXES_MAX: usize = 256;
/// Parts of a key that a prefix has at most.
const PREFIX_PARTS_MAX: usize = 2;
/// Longest prefix, in bytes; what is below a longer one counts for the one above it.
const PREFIX_LEN_MAX: usize = 256;
/// After so long what was read counts half.
const HALF_LIFE: Duration = Duration::from_mins(10);
/// Half lives after which all weights are made small again.
const RESCALE_AFTER: f64 = 64.0;

/// A prefix, and how much was read below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotPrefix {
    /// The bucket's name.
    pub bucket: String,
    /// What the keys begin with; empty for those that have no slash.
    pub prefix: String,
    /// Bytes that were read of it from the cache, lately: at least so many, those of ten minutes
    /// ago count half, and so on.
    pub bytes: u64,
}

#[derive(Debug)]
struct Slot {
    bucket: String,
    prefix: String,
    weight: f64,
    /// What of the weight may be others'.
    error: f64,
}

#[derive(Debug)]
struct State {
    /// By a hash of bucket and prefix.
    slots: HashMap<u64, Slot>,
    /// When weights are bytes as they are.
    base: Instant,
}

/// The prefixes.
#[derive(Debug)]
pub(crate) struct Hot {
    state: Mutex<State>,
    hasher: RandomState,
}

impl Default for Hot {
    fn default() -> Self {
        let state = State {
            slots: HashMap::new(),
            base: Instant::now(),
        };
        Self {
            state: Mutex::new(state),
            hasher: RandomState::new(),
        }
    }
}

/// What of a key is its prefix here.
fn prefix_of(key: &str) -> &str {
    let ends = key.match_indices('/').map(|(at, _)| at + 1);
    let end = ends
        .take(PREFIX_PARTS_MAX)
        .take_while(|end| *end <= PREFIX_LEN_MAX)
        .last();
    &key[..end.unwrap_or(0)]
}

impl State {
    /// What a byte weighs that is read now.
    fn scale(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.base);
        (passed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }

    /// Makes weights small again before they lose their last digits.
    fn rescale(&mut self, now: Instant) {
        let scale = self.scale(now);
        if scale < RESCALE_AFTER.exp2() {
            return;
        }
        for slot in self.slots.values_mut() {
            slot.weight /= scale;
            slot.error /= scale;
        }
        self.base = now;
    }

    /// Takes the lightest out.
    fn pop_lightest(&mut self) -> Option<Slot> {
        let lightest = self
            .slots
            .iter()
            .min_by(|one, other| one.1.weight.total_cmp(&other.1.weight));
        let hash = *lightest?.0;
        self.slots.remove(&hash)
    }
}

impl Hot {
    /// Counts bytes of an object that were read from the cache.
    pub(crate) fn note(&self, bucket: &str, key: &str, bytes: u64) {
        self.note_at(bucket, key, bytes, Instant::now());
    }

    fn note_at(&self, bucket: &str, key: &str, bytes: u64, now: Instant) {
        let prefix = prefix_of(key);
        let hash = self.hasher.hash_one((bucket, prefix));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rescale(now);
        let weight = to_f64(bytes) * state.scale(now);
        if let Some(slot) = state.slots.get_mut(&hash) {
            slot.weight += weight;
            return;
        }
        let error = if state.slots.len() < PREFIXES_MAX {
            0.0
        } else {
            state.pop_lightest().map_or(0.0, |slot| slot.weight)
        };
        let slot = Slot {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            weight: weight + error,
            error,
        };
        state.slots.insert(hash, slot);
    }

    /// The heaviest, up to `count` of them, the first one first.
    pub(crate) fn hottest(&self, count: usize) -> Vec<HotPrefix> {
        self.hottest_at(count, Instant::now())
    }

    fn hottest_at(&self, count: usize, now: Instant) -> Vec<HotPrefix> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let scale = state.scale(now);
        let shown = state.slots.values().map(|slot| HotPrefix {
            bucket: slot.bucket.clone(),
            prefix: slot.prefix.clone(),
            bytes: to_u64((slot.weight - slot.error) / scale),
        });
        let mut shown: Vec<_> = shown.filter(|hot| hot.bytes > 0).collect();
        drop(state);
        shown.sort_by(|one, other| {
            let order = |hot: &HotPrefix| (Reverse(hot.bytes), hot.bucket.clone());
            (order(one), &one.prefix).cmp(&(order(other), &other.prefix))
        });
        shown.truncate(count);
        shown
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "weights are estimates, and exact up to 8 PiB"
)]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a weight is no less than its error, and what is too large is the largest"
)]
fn to_u64(bytes: f64) -> u64 {
    bytes.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_what_is_before_the_second_slash() {
        for (key, prefix) in [
            ("k", ""),
            ("a/k", "a/"),
            ("a/b/k", "a/b/"),
            ("a/b/c/k", "a/b/"),
            ("/k", "/"),
            ("", ""),
        ] {
            assert_eq!(prefix_of(key), prefix, "{key}");
        }
        let long = "x".repeat(PREFIX_LEN_MAX);
        assert_eq!(prefix_of(&format!("a/{long}/k")), "a/");
        assert_eq!(prefix_of(&format!("{long}/k")), "");
    }

    #[test]
    fn the_heaviest_are_known_however_many_come_by() {
        let hot = Hot::default();
        let now = Instant::now();
        for round in 0..50_000_u64 {
            hot.note_at("b", &format!("rare-{round}/k"), 100, now);
            if round % 10 == 0 {
                hot.note_at("b", "often/x/k", 5000, now);
                hot.note_at("c", "often/x/k", 3000, now);
            }
        }
        assert_eq!(hot.state.lock().unwrap().slots.len(), PREFIXES_MAX);
        let hottest = hot.hottest_at(2, now);
        let names: Vec<_> = hottest.iter().map(|hot| hot.bucket.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(hottest[0].prefix, "often/x/");
        // Never more than what was read.
        assert!(hottest[0].bytes <= 25_000_000 && hottest[0].bytes > 24_000_000);
        let all = hot.hottest_at(usize::MAX, now);
        assert!(all[2..].iter().all(|hot| hot.bytes <= 100));
    }

    #[test]
    fn what_was_read_long_ago_weighs_little() {
        let hot = Hot::default();
        let start = Instant::now();
        hot.note_at("b", "old/k", 1 << 30, start);
        let later = start + HALF_LIFE;
        assert_eq!(hot.hottest_at(1, later)[0].bytes, 1 << 29);
        hot.note_at("b", "new/k", 1 << 20, start + 11 * HALF_LIFE);
        let hottest = hot.hottest_at(2, start + 11 * HALF_LIFE);
        assert_eq!(hottest[0].prefix, "new/");
        assert_eq!(hottest[1].bytes, 1 << 19);
        // The scale begins anew, and what is left of the oldest is nothing.
        let much_later = start + 200 * HALF_LIFE;
        hot.note_at("b", "new/k", 1000, much_later);
        let hottest = hot.hottest_at(9, much_later);
        assert_eq!((hottest.len(), hottest[0].bytes), (1, 1000));
    }
}
