//! Who reads in sequence, over several reads of the same version.
//!
//! A mount reads 128 KiB to 1 MiB at a time, a client of S3 a few megabytes, and each read is a
//! call of its own. A read that begins about where an earlier one ended, and goes on from there,
//! continues it; then blocks beyond it are asked for. How far beyond starts at the read's length
//! and a block, and doubles with each block that is passed, so a reader who stops early has asked
//! for little in vain, and for no more than [`WINDOW_BLOCKS_MAX`] in any case.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

use crate::fetch::{REQUEST_BLOCKS_MAX, REQUESTS_MAX, WINDOW_BLOCKS_MAX, block_of};
use crate::version::{BLOCK_SIZE, Version};

/// Versions that are remembered.
const VERSIONS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Readers of one version that are told apart.
const READERS_MAX: usize = 16;
/// How far off a read may begin and still continue another: the kernel reads out of order by a
/// little, and files have gaps.
const SLACK_MIN: u64 = BLOCK_SIZE;

const WINDOW_MAX: u64 = WINDOW_BLOCKS_MAX * BLOCK_SIZE;

/// Blocks to ask for though nobody has read them yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Which.
    pub(crate) blocks: Range<u64>,
    /// Blocks in one request.
    pub(crate) run: u64,
}

/// Somebody who reads on and on, as far as can be told.
#[derive(Debug)]
struct Reader {
    /// Where the next read should begin.
    next: u64,
    /// How far ahead to ask, in bytes; 0 until a read has continued another.
    window: u64,
    /// Up to where it has been asked.
    asked: u64,
    /// When it last read, in reads of this version.
    used: u64,
}

#[derive(Debug, Default)]
struct Readers {
    readers: Vec<Reader>,
    reads: u64,
}

/// Recent readers by version.
#[derive(Debug)]
pub(crate) struct Ahead {
    versions: Mutex<LruCache<Arc<Version>, Readers>>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            versions: Mutex::new(LruCache::new(VERSIONS_MAX)),
        }
    }
}

impl Ahead {
    /// Takes note of a read, and says what to ask for beyond it.
    pub(crate) fn note(&self, version: &Arc<Version>, range: &Range<u64>) -> Option<Plan> {
        if range.is_empty() || version.size <= BLOCK_SIZE {
            return None;
        }
        // A reader that is half noted only misjudges the next read.
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions
            .get_or_insert_mut_ref(version, Readers::default)
            .note(version.size, range)
    }
}

impl Readers {
    fn note(&mut self, size: u64, range: &Range<u64>) -> Option<Plan> {
        self.reads += 1;
        let used = self.reads;
        let slack = SLACK_MIN.max(2 * (range.end - range.start));
        let known = self
            .readers
            .iter_mut()
            .filter(|reader| reader.next.abs_diff(range.start) <= slack)
            .min_by_key(|reader| reader.next.abs_diff(range.start));
        if let Some(reader) = known {
            reader.used = used;
            return reader.read_on(size, range);
        }
        if self.readers.len() == READERS_MAX {
            let oldest = (0..READERS_MAX).min_by_key(|&n| self.readers[n].used);
            self.readers.swap_remove(oldest.expect("there are some"));
        }
        self.readers.push(Reader {
            next: range.end,
            window: 0,
            asked: range.end,
            used,
        });
        None
    }
}

impl Reader {
    fn read_on(&mut self, size: u64, range: &Range<u64>) -> Option<Plan> {
        if range.end <= self.next {
            // Out of order, or the same again: no step ahead.
            return None;
        }
        if self.window == 0 {
            self.window = range.end - range.start + BLOCK_SIZE;
        } else if block_of(range.end) > block_of(self.next) {
            self.window *= 2;
        }
        self.window = self.window.min(WINDOW_MAX);
        self.next = range.end;
        self.asked = self.asked.max(range.end);
        // Half a window at a time, so that requests don't shrink to what each read adds.
        if self.asked - self.next > self.window / 2 {
            return None;
        }
        let until = size.min(self.next + self.window);
        let blocks = block_of(self.asked)..until.div_ceil(BLOCK_SIZE);
        self.asked = size.min(blocks.end * BLOCK_SIZE);
        let run = self.window / BLOCK_SIZE / REQUESTS_MAX as u64;
        (!blocks.is_empty() && until > range.end).then_some(Plan {
            blocks,
            run: run.clamp(1, REQUEST_BLOCKS_MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    fn version(blocks: u64) -> Arc<Version> {
        Arc::new(Version {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            etag: "e".to_owned(),
            version_id: None,
            size: blocks * BLOCK_SIZE,
        })
    }

    /// The end of what is asked for after each of the reads, in blocks.
    fn ends(version: &Arc<Version>, reads: impl IntoIterator<Item = Range<u64>>) -> Vec<u64> {
        let ahead = Ahead::default();
        let plans = reads.into_iter().map(|range| ahead.note(version, &range));
        plans
            .map(|plan| plan.map_or(0, |plan| plan.blocks.end))
            .collect()
    }

    fn steps(len: u64, count: u64) -> impl Iterator<Item = Range<u64>> {
        (0..count).map(move |n| n * len..(n + 1) * len)
    }

    #[test]
    fn one_read_is_no_sequence() {
        assert_eq!(ends(&version(100), steps(128 * KIB, 1)), [0]);
    }

    #[test]
    fn the_second_asks_for_a_block_more_and_then_it_doubles() {
        let ends = ends(&version(1000), steps(BLOCK_SIZE, 30));
        assert_eq!(ends[0], 0);
        assert_eq!(
            ends[1], 4,
            "two blocks read, its length and one block ahead"
        );
        let furthest = |n: usize| ends[..=n].iter().max().copied().unwrap_or(0);
        assert_eq!(furthest(2), 7);
        assert_eq!(furthest(4), 21);
        for (n, end) in (1..).zip(&ends) {
            assert!(*end <= n + WINDOW_BLOCKS_MAX, "read {n}: {end}");
        }
        assert!(furthest(29) >= 62, "{ends:?}");
    }

    #[test]
    fn the_kernels_small_reads_in_slight_disorder_are_a_sequence() {
        let mut reads: Vec<_> = steps(128 * KIB, 512).collect();
        for pair in reads.chunks_mut(2) {
            pair.swap(0, 1);
        }
        let ends = ends(&version(1000), reads);
        assert!(ends.iter().max() >= Some(&100), "{ends:?}");
    }

    #[test]
    fn gaps_of_less_than_a_block_are_read_over() {
        let reads = steps(512 * KIB, 100).map(|range| range.start..range.start + 128 * KIB);
        let ends = ends(&version(1000), reads);
        assert!(ends.iter().max() >= Some(&64), "{ends:?}");
    }

    #[test]
    fn random_reads_ask_for_nothing() {
        let starts = [5, 90, 33, 700, 12, 501, 250, 999, 60, 444];
        let reads = starts.map(|n| n * BLOCK_SIZE..n * BLOCK_SIZE + 4096);
        assert!(ends(&version(1000), reads).iter().all(|end| *end == 0));
    }

    #[test]
    fn reading_the_same_again_asks_for_nothing() {
        let reads = std::iter::repeat_n(0..64 * KIB, 20);
        assert!(ends(&version(1000), reads).iter().all(|end| *end == 0));
    }

    #[test]
    fn nothing_is_asked_for_beyond_the_end() {
        let version = version(10);
        for end in ends(&version, steps(BLOCK_SIZE / 2, 20)) {
            assert!(end <= 10);
        }
    }

    #[test]
    fn readers_of_one_version_are_told_apart() {
        let far = 500 * BLOCK_SIZE;
        let reads = steps(BLOCK_SIZE, 8).flat_map(|range| {
            let other = range.start + far..range.end + far;
            [range, other]
        });
        let ends = ends(&version(1000), reads);
        assert!(ends.iter().any(|end| (8..100).contains(end)), "{ends:?}");
        assert!(ends.iter().any(|end| *end > 508), "{ends:?}");
    }
}
