//! Where objects of one block are put.
//!
//! A segment is a sparse file of [`SEGMENT_SIZE`] bytes that is filled from its start; objects
//! begin at multiples of a page, so that each can be given back alone. What was given back is
//! filled again, the tightest gap first, before another segment is begun: so there are no more
//! segments than what was in them at one time needed, and none has to be rewritten. One with
//! nothing left in it is removed.
//!
//! # Invariants
//! 1. A place is used again only when the index no longer names what was there: else a start after
//!    a crash would take one object's bytes for another's, and find them corrupt.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::dir::FileKey;
use super::entry::{PAGE_SIZE, allocated};
use super::file::OpenFiles;
use crate::version::BLOCK_SIZE;

/// Size of a segment in bytes.
pub(super) const SEGMENT_SIZE: u64 = 64 << 20;
/// The same in pages.
const SEGMENT_PAGES: u32 = 16384;

const _: () = {
    // Whatever is put fits into an empty segment.
    assert!(BLOCK_SIZE <= SEGMENT_SIZE);
    assert!(BLOCK_SIZE.is_multiple_of(PAGE_SIZE));
    assert!(SEGMENT_PAGES as u64 * PAGE_SIZE == SEGMENT_SIZE);
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

/// Pages that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    place: Place,
    pages: u32,
}

/// Gaps that may be filled.
#[derive(Debug, Default)]
struct Gaps {
    /// Length, segment and first page.
    by_len: BTreeSet<(u32, u32, u32)>,
    /// Segment and first page, and length.
    by_place: BTreeMap<(u32, u32), u32>,
}

impl Gaps {
    fn add(&mut self, gap: Gap) {
        let Place { segment, mut page } = gap.place;
        let mut pages = gap.pages;
        if pages == 0 {
            return;
        }
        let before = self
            .by_place
            .range((segment, 0)..(segment, page))
            .next_back();
        if let Some((&(_, at), &len)) = before
            && at + len == page
        {
            self.remove(segment, at);
            (page, pages) = (at, len + pages);
        }
        if let Some(&len) = self.by_place.get(&(segment, page + pages)) {
            self.remove(segment, page + pages);
            pages += len;
        }
        self.by_len.insert((pages, segment, page));
        self.by_place.insert((segment, page), pages);
    }

    fn remove(&mut self, segment: u32, page: u32) {
        if let Some(len) = self.by_place.remove(&(segment, page)) {
            self.by_len.remove(&(len, segment, page));
        }
    }

    /// Takes pages out of the tightest gap that has so many.
    fn take(&mut self, pages: u32) -> Option<Place> {
        let &(len, segment, page) = self.by_len.range((pages, 0, 0)..).next()?;
        self.remove(segment, page);
        let place = Place {
            segment,
            page: page + pages,
        };
        self.add(Gap {
            place,
            pages: len - pages,
        });
        Some(Place { segment, page })
    }

    /// Forgets those of a segment.
    fn forget(&mut self, segment: u32) {
        let places = self.by_place.range((segment, 0)..=(segment, u32::MAX));
        let pages: Vec<u32> = places.map(|((_, page), _)| *page).collect();
        for page in pages {
            self.remove(segment, page);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Objects of each segment.
    live: HashMap<u32, u32>,
    gaps: Gaps,
    /// Given back, and maybe still named by the index.
    freed: Vec<Gap>,
    /// Number of the next segment.
    next: u32,
}

impl State {
    fn take(&mut self, pages: u32) -> Option<Place> {
        let place = self.gaps.take(pages)?;
        *self.live.entry(place.segment).or_default() += 1;
        Some(place)
    }
}

/// The segments.
#[derive(Debug, Default)]
pub(super) struct Segments {
    state: Mutex<State>,
}

/// Pages of an object.
fn pages(len: u64) -> u32 {
    u32::try_from(allocated(len) / PAGE_SIZE).expect("at most one block")
}

impl Segments {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in all places that the index knows of, with the bytes of what is there.
    pub(super) fn load(&self, places: &mut [(Place, u64)]) {
        places.sort_unstable_by_key(|(place, _)| (place.segment, place.page));
        let mut state = self.lock();
        for of_segment in places.chunk_by(|one, other| one.0.segment == other.0.segment) {
            let segment = of_segment[0].0.segment;
            let count = u32::try_from(of_segment.len()).expect("a page each at least");
            state.live.insert(segment, count);
            state.next = state.next.max(segment.saturating_add(1));
            let mut page = 0;
            let end = (SEGMENT_PAGES, 0);
            let ends = of_segment
                .iter()
                .map(|(place, len)| (place.page, pages(*len)));
            for (start, len) in ends.chain([end]) {
                state.gaps.add(Gap {
                    place: Place { segment, page },
                    pages: start.saturating_sub(page),
                });
                page = page.max(start + len);
            }
        }
    }

    /// A place for `len` bytes; makes the next segment when there is none. Blocks.
    pub(super) fn take(&self, files: &OpenFiles, len: u64) -> io::Result<Place> {
        let pages = pages(len);
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
        let mut state = self.lock();
        let place = Place {
            segment: number,
            page: pages,
        };
        state.live.insert(number, 1);
        state.gaps.add(Gap {
            place,
            pages: SEGMENT_PAGES - pages,
        });
        Ok(Place { page: 0, ..place })
    }

    /// Takes an object of `len` bytes out whose space was given back; removes the segment if it
    /// was the last. Blocks.
    pub(super) fn release(&self, files: &OpenFiles, place: Place, len: u64) {
        let empty = {
            let mut state = self.lock();
            let left = state.live.get_mut(&place.segment);
            let left = left.expect("a place that was taken");
            *left -= 1;
            let empty = *left == 0;
            if empty {
                state.live.remove(&place.segment);
                state.gaps.forget(place.segment);
                state.freed.retain(|gap| gap.place.segment != place.segment);
            } else {
                let pages = pages(len);
                state.freed.push(Gap { place, pages });
            }
            empty
        };
        if empty {
            files.remove(FileKey::Segment(place.segment));
        }
    }

    /// What was given back since it was asked last; of all of it the index has yet to be told.
    pub(super) fn take_freed(&self) -> Vec<Gap> {
        std::mem::take(&mut self.lock().freed)
    }

    /// The index no longer names what was in these.
    pub(super) fn reuse(&self, freed: Vec<Gap>) {
        let mut state = self.lock();
        for gap in freed {
            // It may have been removed meanwhile.
            if state.live.contains_key(&gap.place.segment) {
                state.gaps.add(gap);
            }
        }
    }

    /// The index could not be told yet.
    pub(super) fn keep_freed(&self, freed: Vec<Gap>) {
        let mut state = self.lock();
        let State {
            live, freed: all, ..
        } = &mut *state;
        all.extend(
            freed
                .into_iter()
                .filter(|gap| live.contains_key(&gap.place.segment)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::dir::Directory;
    use std::sync::Arc;

    const MIB_LESS: u64 = BLOCK_SIZE - 1;

    fn files(root: &std::path::Path) -> (Arc<Directory>, OpenFiles) {
        let (directory, _) = Directory::open(root).unwrap();
        directory.prepare().unwrap();
        let directory = Arc::new(directory);
        let files = OpenFiles::new(Arc::clone(&directory));
        (directory, files)
    }

    #[test]
    fn a_full_segment_is_followed_by_another_and_an_empty_one_goes() {
        let root = tempfile::tempdir().unwrap();
        let (directory, files) = files(root.path());
        let segments = Segments::default();
        let places: Vec<_> = (0..65)
            .map(|_| segments.take(&files, MIB_LESS).unwrap())
            .collect();
        assert_eq!((places[0].segment, places[0].page), (0, 0));
        assert_eq!(places[1].offset(), BLOCK_SIZE);
        assert_eq!((places[64].segment, places[64].page), (1, 0));
        assert_eq!(directory.files().unwrap().len(), 2);
        for place in &places {
            segments.release(&files, *place, MIB_LESS);
        }
        assert!(directory.files().unwrap().is_empty());
        // What was given back of a segment that is gone is nobody's place.
        segments.reuse(segments.take_freed());
        let next = segments.take(&files, 1).unwrap();
        assert_eq!((next.segment, next.page), (2, 0));
    }

    #[test]
    fn what_was_given_back_is_filled_again_once_the_index_knows() {
        let root = tempfile::tempdir().unwrap();
        let (directory, files) = files(root.path());
        let segments = Segments::default();
        let places: Vec<_> = (0..64)
            .map(|_| segments.take(&files, MIB_LESS).unwrap())
            .collect();
        for place in places.iter().step_by(2) {
            segments.release(&files, *place, MIB_LESS);
        }
        let early = segments.take(&files, 5000).unwrap();
        assert_eq!(early.segment, 1, "the index may name what was there");
        let freed = segments.take_freed();
        segments.keep_freed(freed);
        let freed = segments.take_freed();
        assert_eq!(freed.len(), 32);
        segments.reuse(freed);
        let again: Vec<_> = (0..32)
            .map(|_| segments.take(&files, MIB_LESS).unwrap())
            .collect();
        assert!(again.iter().all(|place| place.segment == 0));
        assert_eq!(directory.files().unwrap().len(), 2);
    }

    #[test]
    fn gaps_are_joined_and_the_tightest_is_taken() {
        let mut gaps = Gaps::default();
        let gap = |page, pages| Gap {
            place: Place { segment: 7, page },
            pages,
        };
        gaps.add(gap(10, 5));
        gaps.add(gap(20, 3));
        gaps.add(gap(0, 2));
        let page = |place: Option<Place>| place.map(|place| place.page);
        assert_eq!(page(gaps.take(2)), Some(0));
        assert_eq!(page(gaps.take(3)), Some(20));
        assert_eq!(page(gaps.take(6)), None);
        gaps.add(gap(15, 5));
        gaps.add(gap(20, 1));
        assert_eq!(gaps.by_place.len(), 1);
        assert_eq!(page(gaps.take(6)), Some(10));
        assert_eq!(page(gaps.take(5)), Some(16));
        assert!(gaps.by_len.is_empty() && gaps.by_place.is_empty());
        gaps.add(gap(1, 1));
        gaps.forget(7);
        assert_eq!(page(gaps.take(1)), None);
    }

    #[test]
    fn a_start_finds_the_gaps_between_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let (_, files) = files(root.path());
        let segments = Segments::default();
        let at = |segment, page| Place { segment, page };
        let mut places = [(at(3, 8), 4096), (at(3, 2), 8192), (at(1, 0), 1)];
        segments.load(&mut places);
        let mut state = segments.lock();
        let found: Vec<_> = state.gaps.by_place.clone().into_iter().collect();
        let rest = SEGMENT_PAGES;
        let expected = [
            ((1, 1), rest - 1),
            ((3, 0), 2),
            ((3, 4), 4),
            ((3, 9), rest - 9),
        ];
        assert_eq!(found, expected);
        assert_eq!(state.take(1), Some(at(3, 0)));
        drop(state);
        assert_eq!(segments.take(&files, BLOCK_SIZE).unwrap().segment, 3);
        assert_eq!(segments.lock().next, 4);
    }
}
