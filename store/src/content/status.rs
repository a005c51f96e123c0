//! What reads found in a cache.

use std::sync::atomic::{AtomicU8, Ordering};

/// How much of what was read had been in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// All of it.
    Hit,
    /// Some of it.
    Partial,
    /// Nothing.
    Miss,
    /// The cache was not looked at.
    Bypass,
}

impl CacheStatus {
    /// The word that people read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Partial => "partial",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }

    /// What two reads come to.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Bypass, _) | (_, Self::Bypass) => Self::Bypass,
            (one, other) if one == other => one,
            _ => Self::Partial,
        }
    }
}

/// What all reads of one open content have come to.
#[derive(Debug, Default)]
pub struct StatusCell(AtomicU8);

/// In the order of their numbers in the cell, from 1.
const ALL: [CacheStatus; 4] = [
    CacheStatus::Hit,
    CacheStatus::Partial,
    CacheStatus::Miss,
    CacheStatus::Bypass,
];

impl StatusCell {
    /// Notes what a read found.
    pub fn note(&self, status: CacheStatus) {
        let after = self.get().map_or(status, |before| before.and(status));
        let number = ALL.iter().position(|one| *one == after).unwrap_or(0) + 1;
        // Of two reads at the same time the later one counts; they tell people, nothing goes by it.
        self.0
            .store(u8::try_from(number).unwrap_or(0), Ordering::Relaxed);
    }

    /// What the reads so far come to; `None` if there was none.
    pub fn get(&self) -> Option<CacheStatus> {
        let number = usize::from(self.0.load(Ordering::Relaxed));
        ALL.get(number.checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_come_to_what_they_have_in_common() {
        use CacheStatus::{Bypass, Hit, Miss, Partial};
        for (reads, expected) in [
            (&[][..], None),
            (&[Hit, Hit], Some(Hit)),
            (&[Miss, Miss], Some(Miss)),
            (&[Miss, Hit], Some(Partial)),
            (&[Partial, Hit], Some(Partial)),
            (&[Bypass], Some(Bypass)),
            (&[Bypass, Bypass], Some(Bypass)),
        ] {
            let cell = StatusCell::default();
            for read in reads {
                cell.note(*read);
            }
            assert_eq!(cell.get(), expected, "{reads:?}");
        }
    }
}
