//! Where objects of one block are put.
//!
//! A segment is a sparse file of [`SEGMENT_SIZE`] bytes that is filled from its start; objects
//! begin at multiples of a page, so that each can be given back alone. A place is not used twice.
//! A segment with nothing left in it is removed.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::dir::FileKey;
use super::entry::{PAGE_SIZE, allocated};
use super::file::OpenFiles;
use crate::version::BLOCK_SIZE;

/// Size of a segment in bytes.
pub(super) const SEGMENT_SIZE: u64 = 64 << 20;

const _: () = {
    // Whatever is put fits into an empty segment.
    assert!(BLOCK_SIZE <= SEGMENT_SIZE);
    assert!(BLOCK_SIZE.is_multiple_of(PAGE_SIZE));
};

/// Where a small object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    /// In pages from the segment's start.
    pub(super) page: u32,
}

impl Place {
    /// In bytes from the segment's start.
    pub(super) fn offset(self) -> u64 {
        u64::from(self.page) * PAGE_SIZE
    }
}

#[derive(Debug, Default)]
struct State {
    /// The segment that is being filled, and its first free page.
    current: Option<(u32, u32)>,
    /// Objects of each segment.
    live: HashMap<u32, u32>,
    /// Number of the next segment.
    next: u32,
}

impl State {
    fn take(&mut self, pages: u32) -> Option<Place> {
        let (segment, page) = self.current?;
        let end = page + pages;
        if u64::from(end) * PAGE_SIZE > SEGMENT_SIZE {
            return None;
        }
        self.current = Some((segment, end));
        *self.live.entry(segment).or_default() += 1;
        Some(Place { segment, page })
    }
}

/// The segments.
#[derive(Debug, Default)]
pub(super) struct Segments {
    state: Mutex<State>,
}

impl Segments {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a place that the index knows of.
    pub(super) fn insert(&self, place: Place) {
        let mut state = self.lock();
        *state.live.entry(place.segment).or_default() += 1;
        state.next = state.next.max(place.segment.saturating_add(1));
    }

    /// A place for `len` bytes; makes the next segment when this one is full. Blocks.
    pub(super) fn take(&self, files: &OpenFiles, len: u64) -> io::Result<Place> {
        let pages = u32::try_from(allocated(len) / PAGE_SIZE).expect("at most one block");
        loop {
            let number = {
                let mut state = self.lock();
                if let Some(place) = state.take(pages) {
                    return Ok(place);
                }
                let number = state.next;
                state.next = number.checked_add(1).ok_or(io::ErrorKind::StorageFull)?;
                number
            };
            files.open(FileKey::Segment(number), SEGMENT_SIZE, true)?;
            let idle = {
                let mut state = self.lock();
                // Another thread may have made one meanwhile; then this one is not needed.
                let full = state
                    .current
                    .is_none_or(|(_, page)| u64::from(page + pages) * PAGE_SIZE > SEGMENT_SIZE);
                let idle = if full {
                    state.current.replace((number, 0)).map(|(before, _)| before)
                } else {
                    Some(number)
                };
                idle.filter(|segment| !state.live.contains_key(segment))
            };
            if let Some(segment) = idle {
                files.remove(FileKey::Segment(segment));
            }
        }
    }

    /// Takes an object out whose space was given back; removes the segment if it was the last.
    /// Blocks.
    pub(super) fn release(&self, files: &OpenFiles, place: Place) {
        let empty = {
            let mut state = self.lock();
            let current = state.current.is_some_and(|(now, _)| now == place.segment);
            let left = state.live.get_mut(&place.segment);
            let left = left.expect("a place that was taken");
            *left -= 1;
            let empty = *left == 0;
            if empty {
                state.live.remove(&place.segment);
            }
            empty && !current
        };
        if empty {
            files.remove(FileKey::Segment(place.segment));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::dir::Directory;
    use std::sync::Arc;

    #[test]
    fn a_full_segment_is_followed_by_another_and_an_empty_one_goes() {
        let root = tempfile::tempdir().unwrap();
        let (directory, _) = Directory::open(root.path()).unwrap();
        directory.prepare().unwrap();
        let directory = Arc::new(directory);
        let files = OpenFiles::new(Arc::clone(&directory));
        let segments = Segments::default();
        let places: Vec<_> = (0..65)
            .map(|_| segments.take(&files, BLOCK_SIZE - 1).unwrap())
            .collect();
        assert_eq!((places[0].segment, places[0].page), (0, 0));
        assert_eq!(places[1].offset(), BLOCK_SIZE);
        assert_eq!((places[64].segment, places[64].page), (1, 0));
        assert_eq!(directory.files().unwrap().len(), 2);
        for place in &places {
            segments.release(&files, *place);
        }
        let left = directory.files().unwrap();
        assert_eq!(left.len(), 1, "the one being filled stays");
        assert_eq!(left[0].1, Some(FileKey::Segment(1)));
        let next = segments.take(&files, 1).unwrap();
        assert_eq!((next.segment, next.offset()), (1, BLOCK_SIZE));
    }
}
