//! The store as a tree of files: what names lead to and what is known of an inode.
//!
//! `fs.rs` decodes a request, calls one method here or in a file beside it, and replies. Nothing
//! in those files knows FUSE.
//!
//! Paths come from the tree, so whoever uses one to change the store holds the namespace lock:
//! shared, or alone to rename a directory.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use forebay_store::Error;
use forebay_store::api::{Files, ListBuckets, Node as Named};
use forebay_store::entry::{Bucket, Entry};
use forebay_store::name::BucketName;
use forebay_store::rule::directive::Directive;
use forebay_store::time::{Clock, SystemClock, Timestamp};

use crate::attr::{Attr, Defaults};
use crate::directive::{Word, says};
use crate::errno::Errno;
use crate::handle::Handles;
use crate::inode::{Binding, Link, Place, ROOT, Tree};
use crate::invalidate::Notice;
use crate::passthrough::Support;
use crate::path::join;
use crate::recent::Recent;
use crate::xattr::Statuses;
use crate::{CloseMode, MountConfig, MountError, Source};

/// Longest wait for the store in one request: the kernel can't interrupt us.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// An inode and its attributes, as a reply has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) ino: u64,
    pub(crate) attr: Attr,
    /// 0 for what no name leads to any more.
    pub(crate) nlink: u32,
}

/// The store, seen as files.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) clock: Box<dyn Clock>,
    pub(crate) defaults: Defaults,
    pub(crate) close: CloseMode,
    /// What is said of the cache where nothing else speaks.
    pub(crate) cache: Directive,
    /// What the last reads found in the cache.
    pub(crate) statuses: Statuses,
    pub(crate) handles: Handles,
    pub(crate) recent: Recent,
    /// Where what the kernel must forget is sent, never waiting.
    pub(crate) notices: Sender<Notice>,
    tree: Mutex<Tree>,
    namespace: RwLock<()>,
    passthrough: AtomicBool,
}

impl View {
    /// # Errors
    /// [`MountError::Store`] if the bucket to be shown does not exist.
    pub(crate) fn new(
        config: &MountConfig,
        files: Arc<dyn Files>,
        runtime: tokio::runtime::Handle,
        notices: Sender<Notice>,
    ) -> Result<Self, MountError> {
        let clock = Box::new(SystemClock);
        let defaults = Defaults {
            uid: config.uid,
            gid: config.gid,
            file_mode: config.file_mode,
            dir_mode: config.dir_mode,
        };
        let (place, attr) = match &config.source {
            Source::All => (Place::Buckets, Attr::of_root(clock.now(), &defaults)),
            Source::Bucket { name, prefix } => {
                let bucket = files.bucket(&BucketName::parse(name)?)?;
                let path = prefix.trim_end_matches('/').to_owned();
                let attr = match files.lookup(bucket.id, &path)? {
                    Some(Named::Directory(Some(marker))) => Attr::of_marker(&marker, &defaults),
                    _ => Attr::of_implied(&bucket, &defaults),
                };
                (Place::In(bucket, path), attr)
            }
        };
        Ok(Self {
            files,
            runtime,
            clock,
            defaults,
            close: config.close,
            cache: config.cache,
            statuses: Statuses::new(),
            handles: Handles::default(),
            recent: Recent::new(),
            notices,
            tree: Mutex::new(Tree::new(place, attr)),
            namespace: RwLock::default(),
            passthrough: AtomicBool::new(false),
        })
    }

    pub(crate) fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps directories from being renamed while paths in them are used.
    pub(crate) fn paths(&self) -> RwLockReadGuard<'_, ()> {
        self.namespace
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps everyone else from using paths.
    pub(crate) fn paths_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.namespace
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn support(&self) -> Support {
        if self.passthrough.load(Ordering::Relaxed) {
            Support::Yes
        } else {
            Support::No
        }
    }

    /// Says whether the kernel passes opens through to files.
    pub(crate) fn set_support(&self, support: Support) {
        self.passthrough
            .store(support == Support::Yes, Ordering::Relaxed);
    }

    /// Waits for the store, at most [`DEADLINE`].
    pub(crate) fn wait<T>(
        &self,
        answer: impl Future<Output = forebay_store::Result<T>>,
    ) -> Result<T, Errno> {
        let answer = async { tokio::time::timeout(DEADLINE, answer).await };
        if let Ok(answer) = self.runtime.block_on(answer) {
            return Ok(answer?);
        }
        tracing::error!(
            seconds = DEADLINE.as_secs(),
            "the store did not answer in time"
        );
        Err(Errno(libc::EIO))
    }

    /// Where a directory is.
    ///
    /// # Errors
    /// `ENOENT` if it was removed, `ESTALE` if it is not known: the kernel looks it up again.
    pub(crate) fn place(&self, ino: u64) -> Result<Place, Errno> {
        place(&self.tree(), ino)
    }

    /// Where a name in a directory is. Only buckets can be in the directory of all buckets.
    ///
    /// # Errors
    /// `EPERM` there.
    pub(crate) fn place_in(&self, dir: u64, name: &str) -> Result<(Arc<Bucket>, String), Errno> {
        match self.place(dir)? {
            Place::Buckets => Err(Errno(libc::EPERM)),
            Place::In(bucket, path) => Ok((bucket, join(&path, name))),
        }
    }

    /// What a name leads to; `None` if to nothing. Counts as told to the kernel.
    pub(crate) fn lookup(&self, dir: u64, name: &str) -> Result<Option<Found>, Errno> {
        let _paths = self.paths();
        let place = {
            let mut tree = self.tree();
            if let Some(ino) = tree.pending_child(dir, name) {
                tree.remember(ino);
                return found(&tree, ino).map(Some);
            }
            place(&tree, dir)?
        };
        let asked = self.recent.moment();
        let named = match &place {
            Place::Buckets => {
                let bucket = BucketName::parse(name).and_then(|name| self.files.bucket(&name));
                match bucket {
                    Ok(bucket) => return self.bind_bucket(&bucket).map(Some),
                    Err(Error::InvalidBucketName(_) | Error::NoSuchBucket(_)) => None,
                    Err(err) => return Err(err.into()),
                }
            }
            Place::In(bucket, path) => self.files.lookup(bucket.id, &join(path, name))?,
        };
        if let (Some(named), Place::In(bucket, path)) = (named, place) {
            let found = self.bind(dir, name, &bucket, &join(&path, name), &named)?;
            if let Named::File(entry) = &named {
                self.recent.keep(asked, found.ino, entry);
            }
            return Ok(Some(found));
        }
        let mut tree = self.tree();
        if let Some(ino) = tree.child(dir, name) {
            tree.unlink(ino, Link::Superseded);
        }
        Ok(None)
    }

    /// Makes a name lead to what the store says is there. Counts as told to the kernel.
    pub(crate) fn bind(
        &self,
        dir: u64,
        name: &str,
        bucket: &Bucket,
        path: &str,
        named: &Named,
    ) -> Result<Found, Errno> {
        let mut tree = self.tree();
        if tree.get(dir).is_none() {
            return Err(Errno(libc::ESTALE));
        }
        let ino = self.bind_in(&mut tree, dir, name, bucket, path, named);
        if let Named::Directory(_) = named {
            tree.note_word(ino, Word::new(says(named)));
        }
        tree.remember(ino);
        found(&tree, ino)
    }

    /// Makes a name lead to what the store says is there.
    pub(crate) fn bind_in(
        &self,
        tree: &mut Tree,
        dir: u64,
        name: &str,
        bucket: &Bucket,
        path: &str,
        named: &Named,
    ) -> u64 {
        let binding = |attr, shows| Binding {
            parent: dir,
            name,
            attr,
            shows,
        };
        match named {
            Named::File(entry) => {
                let attr = Attr::of_file(entry, &self.defaults);
                tree.bind_file(&binding(attr, Some(entry.ino)), entry.ino)
            }
            Named::Directory(Some(marker)) => {
                let attr = Attr::of_marker(marker, &self.defaults);
                tree.bind_dir(&binding(attr, Some(marker.id)), bucket, path, None)
            }
            Named::Directory(None) => {
                let attr = Attr::of_implied(bucket, &self.defaults);
                tree.bind_dir(&binding(attr, None), bucket, path, None)
            }
        }
    }

    /// Makes a bucket's name lead to its directory. Counts as told to the kernel.
    pub(crate) fn bind_bucket(&self, bucket: &Arc<Bucket>) -> Result<Found, Errno> {
        let mut tree = self.tree();
        let ino = self.bind_bucket_in(&mut tree, bucket);
        tree.remember(ino);
        found(&tree, ino)
    }

    /// Makes a bucket's name lead to its directory.
    pub(crate) fn bind_bucket_in(&self, tree: &mut Tree, bucket: &Arc<Bucket>) -> u64 {
        let attr = Attr::of_implied(bucket, &self.defaults);
        let binding = Binding {
            parent: ROOT,
            name: bucket.name.as_str(),
            attr,
            shows: None,
        };
        tree.bind_dir(&binding, bucket, "", Some(bucket))
    }

    /// All buckets.
    pub(crate) fn buckets(&self) -> Result<Vec<Arc<Bucket>>, Errno> {
        Ok(self
            .wait(self.files.list_buckets(ListBuckets::default()))?
            .0)
    }

    /// An inode as the tree has it, its size and times from its staging file if it has one.
    pub(crate) fn known(&self, ino: u64) -> Result<Found, Errno> {
        found(&self.tree(), ino)
    }

    /// `stat` of an inode.
    ///
    /// # Errors
    /// `ESTALE` if its name leads elsewhere by now and nobody has it open.
    pub(crate) fn attributes(&self, ino: u64) -> Result<Found, Errno> {
        let (open, dir) = {
            let tree = self.tree();
            let node = tree.get(ino).ok_or(Errno(libc::ESTALE))?;
            (
                node.file.is_some() || node.link == Link::Unlinked,
                node.attr.is_dir(),
            )
        };
        if !open && !dir {
            let _paths = self.paths();
            let (_, entry) = self.current(ino)?;
            let attr = Attr::of_file(&entry, &self.defaults);
            if let Some(node) = self.tree().get_mut(ino)
                && node.file.as_ref().is_none_or(|file| !file.is_staged())
            {
                node.attr = attr.seen_after(&node.attr);
            }
        }
        self.known(ino)
    }

    /// The version that an inode shows, with its key, if its name still leads to it.
    ///
    /// # Errors
    /// `ESTALE` if not.
    pub(crate) fn current(&self, ino: u64) -> Result<(Arc<Bucket>, Arc<Entry>), Errno> {
        let stale = Errno(libc::ESTALE);
        let (place, shows) = {
            let tree = self.tree();
            let node = tree
                .get(ino)
                .filter(|node| node.link == Link::Linked)
                .ok_or(stale)?;
            (tree.place(ino).ok_or(stale)?, node.shows)
        };
        let Place::In(bucket, path) = place else {
            return Err(Errno(libc::EISDIR));
        };
        if let Some(entry) = self
            .recent
            .get(ino, self.files.answer_age_max())
            .filter(|entry| Some(entry.ino) == shows)
        {
            return Ok((bucket, entry));
        }
        let asked = self.recent.moment();
        match self.files.lookup(bucket.id, &path)? {
            Some(Named::File(entry)) if Some(entry.ino) == shows => {
                self.recent.keep(asked, ino, &entry);
                Ok((bucket, entry))
            }
            _ => Err(stale),
        }
    }

    /// Notes on a directory that its children changed.
    pub(crate) fn touch(&self, dir: u64) {
        let now = self.now();
        self.tree().touch(dir, now);
    }

    /// Has the kernel forget what it knows of a name, soon.
    pub(crate) fn notify(&self, notice: Notice) {
        // After the notifier has gone the mount is going too.
        drop(self.notices.send(notice));
    }

    /// Takes back `count` of the times the kernel was told of an inode.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        self.tree().forget(ino, count);
    }
}

fn place(tree: &Tree, dir: u64) -> Result<Place, Errno> {
    let node = tree.get(dir).ok_or(Errno(libc::ESTALE))?;
    match node.link {
        Link::Unlinked => Err(Errno(libc::ENOENT)),
        Link::Linked | Link::Superseded => tree.place(dir).ok_or(Errno(libc::ENOENT)),
    }
}

/// An inode as the tree has it, its size and times from its staging file if it has one.
pub(crate) fn found(tree: &Tree, ino: u64) -> Result<Found, Errno> {
    let node = tree.get(ino).ok_or(Errno(libc::ESTALE))?;
    let mut attr = node.attr;
    let now = node
        .file
        .as_ref()
        .map(|file| file.staged_now())
        .transpose()?
        .flatten();
    if let Some(now) = now {
        attr.size = now.size;
        if attr.mtime != now.mtime {
            attr.mtime = now.mtime;
            attr.ctime = attr.ctime.max(now.mtime);
        }
    }
    let nlink = match (node.link, attr.is_dir()) {
        (Link::Unlinked, _) => 0,
        (_, true) => 2,
        (_, false) => 1,
    };
    Ok(Found { ino, attr, nlink })
}
