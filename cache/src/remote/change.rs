//! What the origin tells of changes.

use std::sync::{Arc, MutexGuard, PoisonError};

use forebay_store::api::{Face, Node};
use forebay_store::entry::{Bucket, BucketId};
use forebay_store::event::{Change, ChangeKind};
use forebay_store::name::{BucketName, ObjectKey};

use super::RemoteFiles;
use super::known::Place;
use super::window::Seen;

/// A change at the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginChange {
    /// In which bucket.
    pub bucket: BucketName,
    /// What happened.
    pub kind: OriginChangeKind,
}

/// What happened at the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginChangeKind {
    /// The key has a new current version.
    Published(ObjectKey),
    /// The key has no current version any more.
    Deleted(ObjectKey),
    /// All keys that begin with `from`, which ends with a slash, begin with `to` instead.
    RenamedTree {
        /// Their beginning before.
        from: ObjectKey,
        /// Their beginning now.
        to: String,
    },
    /// The bucket was made.
    BucketCreated,
    /// The bucket was deleted.
    BucketDeleted,
}

/// Whether a key came to be or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Came,
    Went,
}

impl RemoteFiles {
    /// Forgets what a change at the origin has made old, here and in the kernel.
    ///
    /// Changes are told in their order. What is looked up after this is asked for anew; the kernel
    /// forgets a moment later.
    pub fn invalidate(&self, change: &OriginChange) {
        use OriginChangeKind as Kind;
        if matches!(change.kind, Kind::BucketCreated | Kind::BucketDeleted) {
            // Also of one that nobody has asked for: somebody may be asking now.
            self.table().generation += 1;
        }
        let bucket = match change.kind {
            Kind::BucketCreated => self.note_bucket(&change.bucket, None),
            _ => match self.known_bucket(&change.bucket) {
                Some(bucket) => bucket,
                // Nobody has asked for anything in it.
                None => return,
            },
        };
        let (key, kind) = match &change.kind {
            Kind::Published(key) => {
                self.forget_key(bucket.id, key, Fate::Came);
                (Some(key.clone()), ChangeKind::Published { ino: 0 })
            }
            Kind::Deleted(key) => {
                self.forget_key(bucket.id, key, Fate::Went);
                (Some(key.clone()), ChangeKind::Deleted)
            }
            Kind::RenamedTree { from, to } => {
                self.known.forget_all();
                let to = to.clone();
                (Some(from.clone()), ChangeKind::RenamedTree { to })
            }
            Kind::BucketCreated => {
                self.table().listed_at = None;
                (None, ChangeKind::BucketCreated(Arc::clone(&bucket)))
            }
            Kind::BucketDeleted => {
                self.note_no_bucket(&change.bucket);
                self.known.forget_all();
                (None, ChangeKind::BucketDeleted(Arc::clone(&bucket)))
            }
        };
        self.tell(bucket.id, key, kind);
    }

    /// Says that every change from now on is told ([`invalidate`](Self::invalidate)).
    ///
    /// To be called before the first of them is told: what is known from before is forgotten.
    pub fn follow(&self) {
        self.known.forget_all();
        self.table().forget();
        self.followed
            .store(true, std::sync::atomic::Ordering::Release);
    }

    /// Says that changes are not told any more: what is known lives as long as its age allows.
    pub fn unfollow(&self) {
        self.followed
            .store(false, std::sync::atomic::Ordering::Release);
    }

    pub(super) fn is_followed(&self) -> bool {
        self.followed.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(super) fn told(&self) -> MutexGuard<'_, u64> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, bucket: BucketId, key: Option<ObjectKey>, kind: ChangeKind) {
        let mut told = self.told();
        *told += 1;
        self.feed.post(&[Change {
            sequence: *told,
            bucket,
            key,
            kind,
            face: Face::S3,
        }]);
    }

    fn known_bucket(&self, name: &BucketName) -> Option<Arc<Bucket>> {
        let table = self.table();
        table.by_name.get(name).map(|held| Arc::clone(&held.bucket))
    }

    /// Forgets what a key has made old: what its path names, and what is said of the directories
    /// above it. A directory that is known to be there is still there when a key has come.
    pub(super) fn forget_key(&self, bucket: BucketId, key: &ObjectKey, fate: Fate) {
        let key = key.as_str();
        let place = |path: &str| -> Place { (bucket, path.into()) };
        let path = key.strip_suffix('/').unwrap_or(key);
        self.known.forget(&place(path));
        // Each name on the way to the key, and the directory that it is in.
        let mut parent = "";
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let name = &path[..at];
            let last = at == path.len();
            let stays = fate == Fate::Came && !last;
            let known = last || stays && self.is_directory(&place(name));
            if !known {
                self.known.forget(&place(name));
            }
            let marker = last && key.ends_with('/') && fate == Fate::Came;
            if !((stays || marker) && self.lists_directory(&place(parent), name)) {
                self.known.forget_window(&place(parent));
            }
            parent = name;
        }
    }

    fn is_directory(&self, place: &Place) -> bool {
        let said = self.known.said(place);
        said.is_some_and(|said| matches!(said.node, Some(Node::Directory(_))))
    }

    /// Whether what is kept of a directory shows another one in it.
    fn lists_directory(&self, place: &Place, path: &str) -> bool {
        let Some(window) = self.known.kept_window(place) else {
            return false;
        };
        let Ok(window) = window.try_lock() else {
            return false;
        };
        window.seen(path) == Seen::Directory
    }
}
