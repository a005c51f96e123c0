//! What S3 changed, told to the kernel.
//!
//! One thread turns the store's changes into notices, another sends them. The sender is the only
//! one that notifies the kernel, and it holds no lock: a notification waits for inode locks that
//! a process may hold while it waits for a handler of ours. Handlers only queue.
//!
//! A change is acknowledged after its notices have been sent, so an S3 request that is answered
//! has been seen by the mount.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use forebay_store::event::{Change, ChangeKind, Subscription};

use crate::inode::{Link, Place, ROOT};
use crate::view::View;

/// How long the watcher takes to see that it is to stop.
const STOP_WAIT: Duration = Duration::from_millis(100);

/// What the kernel is to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// What a name leads to, or that it leads nowhere.
    Entry { dir: u64, name: Arc<str> },
    /// The attributes of an inode.
    Attributes { ino: u64 },
    /// Nothing: all notices of this change have been sent.
    Done { sequence: u64 },
}

/// The kernel's end of notifications.
pub(crate) trait Kernel: Send + 'static {
    fn forget_entry(&self, dir: u64, name: &str) -> io::Result<()>;
    fn forget_attributes(&self, ino: u64) -> io::Result<()>;
}

/// Turns changes into notices until told to stop.
pub(crate) fn watch(
    view: &View,
    changes: &Subscription,
    notices: &Sender<Notice>,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Acquire) {
        let Some(change) = changes.next_blocking(STOP_WAIT) else {
            continue;
        };
        let done = Notice::Done {
            sequence: change.sequence,
        };
        for notice in view.noticed(&change).into_iter().chain([done]) {
            if notices.send(notice).is_err() {
                return;
            }
        }
    }
}

/// Sends notices until told to stop.
pub(crate) fn notify(
    kernel: &impl Kernel,
    notices: &Receiver<Notice>,
    changes: &Subscription,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Acquire) {
        let Ok(notice) = notices.recv_timeout(STOP_WAIT) else {
            continue;
        };
        let sent = match &notice {
            Notice::Entry { dir, name } => kernel.forget_entry(*dir, name),
            Notice::Attributes { ino } => kernel.forget_attributes(*ino),
            Notice::Done { sequence } => {
                changes.acknowledge(*sequence);
                Ok(())
            }
        };
        if let Err(err) = sent {
            // The kernel did not know it, or the mount is going.
            tracing::debug!(?notice, %err, "a notification was not taken");
        }
    }
}

impl View {
    /// What the kernel has to forget after a change that S3 made.
    fn noticed(&self, change: &Change) -> Vec<Notice> {
        match (&change.kind, &change.key) {
            (ChangeKind::BucketCreated(bucket) | ChangeKind::BucketDeleted(bucket), _) => {
                if !matches!(self.tree().place(ROOT), Some(Place::Buckets)) {
                    return Vec::new();
                }
                self.touched(ROOT, bucket.name.as_str())
            }
            (ChangeKind::Published { .. }, Some(key)) => {
                let Some((dir, name)) = self.deepest(change, key.as_str()) else {
                    return Vec::new();
                };
                match self.known_directory(dir, &name) {
                    Some(ino) => self.marked(dir, &name, ino),
                    None => self.touched(dir, &name),
                }
            }
            (ChangeKind::Deleted | ChangeKind::RenamedTree { .. }, Some(key)) => {
                let Some((dir, name)) = self.deepest(change, key.as_str()) else {
                    return Vec::new();
                };
                let mut notices = match self.known_directory(dir, &name) {
                    Some(ino) if self.is_still_there(ino) => self.marked(dir, &name, ino),
                    _ => self.touched(dir, &name),
                };
                notices.extend(self.vanished_above(dir));
                if let ChangeKind::RenamedTree { to } = &change.kind
                    && let Some((dir, name)) = self.deepest(change, to)
                {
                    notices.extend(self.touched(dir, &name));
                }
                notices
            }
            (ChangeKind::AccountsChanged, _) | (_, None) => Vec::new(),
        }
    }

    /// The deepest directory above a key that the kernel may know, and the name in it on the way to
    /// the key.
    fn deepest(&self, change: &Change, key: &str) -> Option<(u64, String)> {
        let tree = self.tree();
        let (root, base) = tree.bucket_root(change.bucket)?;
        let rest = match base {
            "" => key,
            base => key.strip_prefix(base)?.strip_prefix('/')?,
        };
        let mut dir = root;
        let mut names = rest.strip_suffix('/').unwrap_or(rest).split('/').peekable();
        loop {
            let name = names.next().filter(|name| crate::path::is_name(name))?;
            let child = tree.child(dir, name);
            match child.filter(|ino| tree.get(*ino).is_some_and(|node| node.attr.is_dir())) {
                Some(child) if names.peek().is_some() => dir = child,
                _ => return Some((dir, name.to_owned())),
            }
        }
    }

    fn known_directory(&self, dir: u64, name: &str) -> Option<u64> {
        let tree = self.tree();
        tree.child(dir, name)
            .filter(|ino| tree.get(*ino).is_some_and(|node| node.attr.is_dir()))
    }

    /// A directory's own attributes changed: its dentry stays, since processes may be in it.
    fn marked(&self, dir: u64, name: &str, ino: u64) -> Vec<Notice> {
        if let Ok(Some(found)) = self.lookup(dir, name) {
            self.forget(found.ino, 1);
        }
        vec![Notice::Attributes { ino }]
    }

    /// A name leads elsewhere, and its directory has changed with it.
    fn touched(&self, dir: u64, name: &str) -> Vec<Notice> {
        let child = self.tree().child(dir, name);
        self.recent.changed(child);
        self.touch(dir);
        vec![
            Notice::Entry {
                dir,
                name: name.into(),
            },
            Notice::Attributes { ino: dir },
        ]
    }

    /// Directories that were implied by keys alone go with the last of them.
    fn vanished_above(&self, dir: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut dir = dir;
        while dir != ROOT && !self.is_still_there(dir) {
            let above = {
                let mut tree = self.tree();
                let Some(node) = tree.get(dir).filter(|node| node.link == Link::Linked) else {
                    break;
                };
                let above = (node.parent, Arc::clone(&node.name));
                tree.unlink(dir, Link::Superseded);
                above
            };
            notices.extend(self.touched(above.0, &above.1));
            dir = above.0;
        }
        notices
    }

    fn is_still_there(&self, dir: u64) -> bool {
        match self.place(dir) {
            // It was removed through the mount, or is not known any more: nothing is to be told.
            Ok(Place::Buckets) | Err(_) => true,
            Ok(Place::In(_, path)) if path.is_empty() => true,
            Ok(Place::In(bucket, path)) => {
                let pending = self.tree().pending(dir).next().is_some();
                pending || !matches!(self.files.lookup(bucket.id, &path), Ok(None))
            }
        }
    }
}
