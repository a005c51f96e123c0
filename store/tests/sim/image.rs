//! What a file holds on the medium, and what may be left of the changes that were not synced.
//!
//! A change is torn at blocks of [`BLOCK`] bytes. The page cache gathers changes before it writes
//! a block, so a block holds what the first *k* changes made of it, for a *k* of its own: later
//! changes may have arrived without earlier ones elsewhere, never within a block.

use super::random::Random;

/// Bytes that the medium writes whole or not at all.
pub(crate) const BLOCK: usize = 512;

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// These bytes at this offset.
    Write(u64, Vec<u8>),
    /// This length.
    Len(u64),
}

/// A file's bytes; those beyond `data` are zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) data: Vec<u8>,
    pub(crate) len: u64,
    pub(crate) label: Option<Vec<u8>>,
}

/// Which part of the unsynced changes a file keeps.
enum Kept {
    Nothing,
    All,
    /// The first so many, the next one torn.
    First(usize),
    /// Each block as many as it likes.
    Blocks,
}

impl Image {
    pub(crate) fn apply(&mut self, change: &Change) {
        self.apply_where(change, |_| true);
        match change {
            Change::Write(at, data) => self.len = self.len.max(at + data.len() as u64),
            Change::Len(len) => self.len = *len,
        }
        self.cut();
    }

    /// Drops the bytes beyond the length.
    fn cut(&mut self) {
        let len = usize::try_from(self.len).expect("test files are small");
        self.data.truncate(len);
    }

    /// Applies a change to the blocks that `wanted` names; leaves the length alone.
    fn apply_where(&mut self, change: &Change, mut wanted: impl FnMut(usize) -> bool) {
        match change {
            Change::Write(at, bytes) => {
                let start = usize::try_from(*at).expect("test files are small");
                let end = start + bytes.len();
                if self.data.len() < end {
                    self.data.resize(end, 0);
                }
                let mut from = start;
                while from < end {
                    let until = ((from / BLOCK + 1) * BLOCK).min(end);
                    if wanted(from / BLOCK) {
                        self.data[from..until].copy_from_slice(&bytes[from - start..until - start]);
                    }
                    from = until;
                }
            }
            Change::Len(len) => {
                let mut from = usize::try_from(*len).expect("test files are small");
                while from < self.data.len() {
                    let until = ((from / BLOCK + 1) * BLOCK).min(self.data.len());
                    if wanted(from / BLOCK) {
                        self.data[from..until].fill(0);
                    }
                    from = until;
                }
            }
        }
    }

    /// The file after a power cut: some of `changes` have arrived.
    pub(crate) fn after_power_cut(&self, changes: &[Change], random: &mut Random) -> Self {
        let kept = match random.below(6) {
            0 => Kept::Nothing,
            1 => Kept::All,
            2 => Kept::First(random.below(changes.len() + 1)),
            _ => Kept::Blocks,
        };
        let mut image = self.clone();
        match kept {
            Kept::Nothing => {}
            Kept::All => changes.iter().for_each(|change| image.apply(change)),
            Kept::First(count) => {
                changes[..count]
                    .iter()
                    .for_each(|change| image.apply(change));
                if let Some(torn @ Change::Write(at, data)) = changes.get(count) {
                    let longest = at + data.len() as u64;
                    image.apply_where(torn, |_| random.once_in(2));
                    if random.once_in(2) {
                        image.len = image.len.max(longest);
                    }
                }
            }
            Kept::Blocks => image.keep_blocks(changes, random),
        }
        image.cut();
        image
    }

    fn keep_blocks(&mut self, changes: &[Change], random: &mut Random) {
        let count = changes.len();
        let salt = random.next();
        let arrived = |block: u64| {
            let mut random = Random::new(salt ^ block.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            match random.below(4) {
                0 | 1 => count,
                2 => 0,
                _ => random.below(count + 1),
            }
        };
        let mut whole = self.clone();
        // The length is a block of its own.
        let lengths = arrived(u64::MAX);
        for (index, change) in changes.iter().enumerate() {
            self.apply_where(change, |block| index < arrived(block as u64));
            if index < lengths {
                whole.apply(change);
            }
        }
        self.len = whole.len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<Change> {
        vec![
            Change::Write(0, vec![1; 2000]),
            Change::Write(100, vec![2; 1000]),
            Change::Len(600),
            Change::Write(1400, vec![3; 3 * BLOCK]),
        ]
    }

    #[test]
    fn changes_that_are_all_applied_give_what_a_file_system_gives() {
        let file = tempfile::tempfile().unwrap();
        let mut image = Image::default();
        for change in changes() {
            match &change {
                Change::Write(at, data) => {
                    std::os::unix::fs::FileExt::write_all_at(&file, data, *at).unwrap();
                }
                Change::Len(len) => file.set_len(*len).unwrap(),
            }
            image.apply(&change);
        }
        let len = usize::try_from(image.len).unwrap();
        let mut real = vec![9; len + 1];
        let read = std::os::unix::fs::FileExt::read_at(&file, &mut real, 0).unwrap();
        assert_eq!((read, &real[..len]), (len, &image.data[..]));
    }

    #[test]
    fn a_block_holds_what_some_first_changes_made_of_it() {
        let changes = changes();
        let states: Vec<Image> = (0..=changes.len())
            .map(|count| {
                let mut image = Image::default();
                changes[..count].iter().for_each(|c| image.apply(c));
                image.data.resize(8 * BLOCK, 0);
                image
            })
            .collect();
        let mut torn = 0;
        for seed in 0..500 {
            let mut cut = Image::default().after_power_cut(&changes, &mut Random::new(seed));
            let len = cut.data.len();
            cut.data.resize(8 * BLOCK, 0);
            for (index, block) in cut.data.chunks(BLOCK).enumerate() {
                let at = index * BLOCK;
                let inside = len.saturating_sub(at).min(BLOCK);
                assert!(
                    states
                        .iter()
                        .any(|state| state.data[at..at + inside] == block[..inside]),
                    "seed {seed}, block {index}"
                );
            }
            torn += usize::from(!states.iter().any(|state| state.data == cut.data));
        }
        assert!(torn > 100, "only {torn} of 500 are torn");
    }
}
