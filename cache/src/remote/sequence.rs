//! Reading ahead across the files of a directory.
//!
//! Who reads one small file of a directory after the other, in the order of the listing, will most
//! likely read the next ones, and each costs a round trip if it is asked for only then. So when a
//! few files have been read in order, the next ones are brought into the cache, more with each file
//! that follows; when the order is broken, nothing more is. Several readers of one directory, such
//! as the workers of a data loader, are told apart.
//!
//! It is a guess from the last listing, however old that is: bytes belong to a version, so one that
//! is gone is not found and costs a question.
//!
//! # Invariants
//! 1. Nothing is brought in of which it is not known that nobody says `no-cache` or `no-store`: not
//!    its directory, since the file at hand does not speak for itself and may fill the cache; not
//!    the object, whose head is known, or is not looked at by this mount.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_store::api::Node;
use forebay_store::entry::{BucketId, Entry};
use lru::LruCache;

use super::AttributeSource;
use super::catalog::Listed;
use super::known::{Known, Place};
use super::look::parent_of;
use super::reader::Reader;
use super::window::{Item, Window};
use crate::directive::Directive;
use crate::version::Version;

/// Directories of which readers are remembered.
const DIRECTORIES_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
/// Readers of one directory that are told apart.
const READERS_MAX: usize = 16;
/// Names that a reader may leave out and still be in order: others read with him.
const SLACK: usize = 4;
/// Files in order before the next ones are brought in.
const STREAK_MIN: u32 = 3;
/// Names ahead at first, and at most.
const AHEAD_MIN: usize = 4;
const AHEAD_MAX: usize = 64;
/// Largest file that is brought in; a larger one has read-ahead of its own.
const SIZE_MAX: u64 = 8 << 20;
/// Bytes that are asked for ahead at a time.
const BYTES_MAX: u64 = 32 << 20;

/// Somebody who reads one file after the other, as far as can be told.
#[derive(Debug)]
struct InOrder {
    /// The file he read last.
    last: String,
    /// Files that he read in order.
    streak: u32,
    /// The last file that was asked for ahead of him.
    asked: String,
}

/// Readers of directories.
#[derive(Debug)]
pub(super) struct Sequences {
    known: Arc<Known>,
    reader: Arc<dyn Reader>,
    attributes: AttributeSource,
    directories: Mutex<LruCache<Place, Vec<InOrder>>>,
}

impl Sequences {
    pub(super) fn new(
        known: &Arc<Known>,
        reader: &Arc<dyn Reader>,
        attributes: AttributeSource,
    ) -> Self {
        Self {
            known: Arc::clone(known),
            reader: Arc::clone(reader),
            attributes,
            directories: Mutex::new(LruCache::new(DIRECTORIES_MAX)),
        }
    }

    /// Takes note that a file is being read by somebody who fills the cache, and has the next ones
    /// brought in if they will be read.
    pub(super) fn note(&self, place: &Place, version: &Version) {
        let (bucket, path) = place;
        let directory: Place = (*bucket, parent_of(path).into());
        let Some(window) = self.known.kept_window(&directory) else {
            return;
        };
        let next = {
            // While it is being filled, one file in a row is not noted.
            let Ok(window) = window.try_lock() else {
                return;
            };
            let mut directories = self
                .directories
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let readers = directories.get_or_insert_mut(directory, Vec::new);
            note(readers, &window, path)
        };
        for listed in next {
            if self.may_come(*bucket, &listed) {
                self.reader.prestage(&Arc::new(Version {
                    bucket: version.bucket.clone(),
                    key: listed.key,
                    etag: listed.etag,
                    version_id: None,
                    size: listed.size,
                }));
            }
        }
    }

    /// Whether nobody says that it is not to be in the cache.
    fn may_come(&self, bucket: BucketId, listed: &Listed) -> bool {
        if self.attributes == AttributeSource::Listing {
            return true;
        }
        let said = self.known.said(&(bucket, listed.key.as_str().into()));
        match said.and_then(|said| said.node) {
            Some(Node::File(entry)) => is_version(&entry, listed) && says_nothing(&entry),
            _ => false,
        }
    }
}

fn is_version(entry: &Entry, listed: &Listed) -> bool {
    let etag = entry.origin.as_deref().map(|origin| &origin.etag);
    entry.size == listed.size && etag == Some(&listed.etag)
}

/// Whether an object leaves it to others what is said of the cache.
pub(super) fn says_nothing(entry: &Entry) -> bool {
    let stored = entry.attributes.headers.cache_control.as_deref();
    Directive::kept_in(&entry.attributes.user_metadata).is_none()
        && Directive::parse(stored) == Directive::Use
}

/// Takes note of a file that is read, and says what to bring in.
fn note(readers: &mut Vec<InOrder>, window: &Window, path: &str) -> Vec<Listed> {
    let follows = |reader: &InOrder| {
        let next = window.slice(Some(&reader.last), SLACK);
        next.iter().any(|item| item.position() == path)
    };
    let Some(at) = readers.iter().rposition(follows) else {
        if readers.len() == READERS_MAX {
            readers.remove(0);
        }
        readers.push(InOrder {
            last: path.to_owned(),
            streak: 1,
            asked: path.to_owned(),
        });
        return Vec::new();
    };
    // The one who read last is at the end, so that the one who has not for longest is forgotten.
    let mut reader = readers.remove(at);
    path.clone_into(&mut reader.last);
    reader.streak += 1;
    let next = ahead(&mut reader, window);
    readers.push(reader);
    next
}

/// What to bring in ahead of a reader.
fn ahead(reader: &mut InOrder, window: &Window) -> Vec<Listed> {
    let Some(doublings) = reader.streak.checked_sub(STREAK_MIN) else {
        return Vec::new();
    };
    let count = AHEAD_MAX.min(AHEAD_MIN << doublings.min(8));
    let names = window.slice(Some(&reader.last), count);
    let fresh = names.partition_point(|item| *item.position() <= *reader.asked);
    // Half of it at a time.
    if fresh > count / 2 {
        return Vec::new();
    }
    let (mut next, mut bytes) = (Vec::new(), 0);
    for item in &names[fresh..] {
        if let Item::File(listed) = item {
            if bytes + listed.size > BYTES_MAX {
                break;
            }
            if (1..=SIZE_MAX).contains(&listed.size) && !listed.etag.is_empty() {
                bytes += listed.size;
                next.push(listed.clone());
            }
        }
        item.position().clone_into(&mut reader.asked);
    }
    next
}

#[cfg(test)]
mod tests {
    use forebay_store::time::Timestamp;

    use super::*;
    use crate::remote::catalog::Keys;

    fn window(count: usize, size: u64) -> Window {
        let listed = |n: usize| Listed {
            key: key(n),
            size,
            etag: "e".to_owned(),
            modified_at: Timestamp(0),
        };
        let mut window = Window::default();
        let keys = Keys {
            objects: (0..count).map(listed).collect(),
            ..Keys::default()
        };
        window.append("d/", keys, Timestamp(0));
        window
    }

    fn key(n: usize) -> String {
        format!("d/{n:05}")
    }

    /// What is asked for after each of these files is read.
    fn asked(window: &Window, read: impl IntoIterator<Item = usize>) -> Vec<Vec<String>> {
        let mut readers = Vec::new();
        let mut asked = Vec::new();
        for n in read {
            let next = note(&mut readers, window, &key(n));
            asked.push(next.into_iter().map(|listed| listed.key).collect());
        }
        asked
    }

    #[test]
    fn files_in_order_have_the_next_ones_brought_in_once_each() {
        let asked = asked(&window(1000, 5000), 0..500);
        assert!(asked[..2].iter().all(Vec::is_empty));
        assert_eq!(asked[2], [key(3), key(4), key(5), key(6)]);
        let all = asked.concat();
        let first = 3;
        let expected: Vec<_> = (first..first + all.len()).map(key).collect();
        assert_eq!(all, expected);
        assert!(all.len() >= 500, "{}", all.len());
        assert!(all.len() <= 500 + AHEAD_MAX, "{}", all.len());
    }

    #[test]
    fn what_is_read_in_no_order_brings_nothing_in() {
        let window = window(1000, 5000);
        let scattered = (0..500).map(|n| n * 467 % 1000);
        assert!(asked(&window, scattered).concat().is_empty());
        let backwards = (0..500).rev();
        assert!(asked(&window, backwards).concat().is_empty());
        let again = std::iter::repeat_n(7, 100);
        assert!(asked(&window, again).concat().is_empty());
    }

    #[test]
    fn it_stops_when_the_order_is_broken() {
        let window = window(10_000, 5000);
        let read = (0..10).chain((0..50).map(|n| 9000 - 100 * n));
        let asked = asked(&window, read);
        assert!(!asked[..10].concat().is_empty());
        assert!(asked[10..].concat().is_empty());
    }

    #[test]
    fn readers_who_share_a_directory_are_told_apart() {
        let window = window(10_000, 5000);
        let read = (0..40).flat_map(|n| [n, 3000 + n, 6000 + n]);
        let all = asked(&window, read).concat();
        for first in [0, 3000, 6000] {
            assert!(all.contains(&key(first + 41)), "{first}");
        }
        // Two take turns in one order.
        let swapped = (0..200).map(|n| n ^ 1);
        assert!(asked(&window, swapped).concat().len() > 100);
    }

    #[test]
    fn no_more_than_so_many_bytes_are_asked_for_at_a_time() {
        let window = window(200, 5 << 20);
        for next in asked(&window, 0..50) {
            assert!(next.len() <= 6, "{next:?}");
        }
        assert!(asked(&window_of_large(), 0..50).concat().is_empty());
    }

    fn window_of_large() -> Window {
        window(200, SIZE_MAX + 1)
    }
}
