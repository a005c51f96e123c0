//! Inode numbers of versions.
//!
//! A version's number is a hash of what it is: bucket, key, entity tag and size. So it needs no
//! table, stays the same however often the version is looked up or forgotten, and changes with the
//! bytes. The hash is keyed at random, so nobody can choose keys that collide; among ten million
//! files the chance that any two do is one in two hundred thousand.
//!
//! What is written or renamed here keeps the number that it has; the latest of those are
//! remembered.

use std::hash::{BuildHasher, Hash, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_store::entry::{BucketId, FileAttributes};
use forebay_store::time::Timestamp;
use lru::LruCache;

/// Set in the numbers of directories, which the mount gives.
const DIRECTORY: u64 = 1 << 63;
/// Numbers below this mean something to the kernel: nothing, the root.
const FIRST: u64 = 2;
/// Numbers that are kept.
const KEPT_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

#[derive(Hash)]
enum What<'a> {
    Version(BucketId, &'a str, &'a str, u64),
    Entry(u64, Timestamp, [Option<u32>; 4], [Option<Timestamp>; 2]),
    Fresh(u64),
}

/// Gives numbers.
#[derive(Debug)]
pub(super) struct Numbers {
    hasher: RandomState,
    /// Numbers that versions have instead of their own.
    kept: Mutex<LruCache<u64, u64>>,
}

impl Numbers {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            kept: Mutex::new(LruCache::new(KEPT_MAX)),
        }
    }

    fn of(&self, what: &What<'_>) -> u64 {
        (self.hasher.hash_one(what) & !DIRECTORY).max(FIRST)
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<u64, u64>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inode number of a version.
    pub(super) fn version(&self, bucket: BucketId, key: &str, etag: &str, size: u64) -> u64 {
        let own = self.of(&What::Version(bucket, key, etag, size));
        self.kept().get(&own).copied().unwrap_or(own)
    }

    /// Gives a version a number that stood for the same file before.
    pub(super) fn keep(&self, bucket: BucketId, key: &str, etag: &str, size: u64, ino: u64) {
        let own = self.of(&What::Version(bucket, key, etag, size));
        if own == ino {
            self.kept().pop(&own);
        } else {
            self.kept().put(own, ino);
        }
    }

    /// The number of an entry: another one if only attributes changed.
    pub(super) fn entry(&self, ino: u64, modified_at: Timestamp, file: &FileAttributes) -> u64 {
        let numbers = [file.mode, file.uid, file.gid, file.rdev];
        self.of(&What::Entry(
            ino,
            modified_at,
            numbers,
            [file.mtime, file.ctime],
        ))
    }

    /// A number that stands for no version.
    pub(super) fn fresh(&self, count: u64) -> u64 {
        self.of(&What::Fresh(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_the_bytes_and_is_never_a_directorys() {
        let numbers = Numbers::new();
        let of = |key, etag, size| numbers.version(BucketId(1), key, etag, size);
        let ino = of("k", "e", 1);
        assert_eq!(ino, of("k", "e", 1));
        let others = [
            of("k", "f", 1),
            of("l", "e", 1),
            of("k", "e", 2),
            numbers.fresh(0),
        ];
        assert!(others.iter().all(|other| *other != ino));
        assert!((0..1000).all(|n| numbers.fresh(n) & DIRECTORY == 0));
        let plain = FileAttributes::default();
        let with_mode = FileAttributes {
            mode: Some(0o600),
            ..plain
        };
        let at = Timestamp(0);
        assert_ne!(
            numbers.entry(ino, at, &plain),
            numbers.entry(ino, at, &with_mode)
        );
    }
}
