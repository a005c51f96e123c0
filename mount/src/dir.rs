//! Reading directories: one scan of the index, with everything `stat` wants to know.
//!
//! A stream is read in pages as the caller asks. Its offsets count the names given out so far, and
//! the stream remembers them, so that an offset keeps its meaning while the directory changes
//! (`telldir`, `seekdir`); after `rewinddir` counting and remembering begin anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use forebay_store::api::{DirectoryPage, ListAfter, Node as Named};
use forebay_store::entry::Bucket;
use forebay_store::time::Timestamp;

use crate::attr::Attr;
use crate::errno::Errno;
use crate::handle::Handle;
use crate::inode::{Place, ROOT, Tree};
use crate::path::join;
use crate::view::{Found, View, found};

/// Names fetched at a time: about as many as one reply has room for, since a change of the
/// directory makes the rest worthless.
const PAGE_LEN: usize = 256;
/// The number shown for a directory that nobody has looked up: `readdir(3)` without `stat(2)`.
const UNKNOWN: u64 = u64::MAX;
/// Offsets below this are those of `.` and `..`.
const DOTS: u64 = 2;

/// An open directory.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    ino: u64,
    /// Names given out, joined, those of directories with a slash, and where each ends.
    given: String,
    ends: Vec<usize>,
    /// Fetched and not given out.
    ready: VecDeque<Item>,
    /// The directory's version when `ready` was fetched.
    version: u64,
    /// Names the store does not have, to be merged in: a name and an inode.
    pending: BTreeMap<Arc<str>, u64>,
    next: Next,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Start,
    After(ListAfter),
    End,
}

/// A name to be given out.
#[derive(Debug)]
struct Item {
    name: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Named(Named),
    /// A bucket.
    Bucket(Arc<Bucket>),
    /// A file that the store does not have.
    Pending(u64),
}

impl Item {
    /// What the store sorts by.
    fn sorts_as(&self) -> String {
        match self.what {
            What::Named(Named::Directory(_)) => [self.name.as_str(), "/"].concat(),
            What::Named(Named::File(_)) | What::Bucket(_) | What::Pending(_) => self.name.clone(),
        }
    }
}

/// An entry of a directory, as a reply has it.
#[derive(Debug)]
pub(crate) struct DirEntry<'a> {
    pub(crate) name: &'a str,
    /// What to ask for to get the entry after this one.
    pub(crate) offset: u64,
    pub(crate) found: Found,
}

/// Whether a reply has room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Left,
    /// The entry just offered was not taken.
    Full,
}

/// What a reply tells of each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    /// Name, type and number; the kernel does not know the inode by it.
    Names,
    /// All that `stat` shows; the kernel knows the inode from then on.
    Inodes,
}

impl Stream {
    /// How many names have been given out.
    fn position(&self) -> u64 {
        self.ends.len() as u64
    }

    /// Goes back to where `count` names had been given out.
    fn rewind_to(&mut self, count: usize) {
        let end = count.checked_sub(1).map_or(0, |last| self.ends[last]);
        self.given.truncate(end);
        self.ends.truncate(count);
        self.ready.clear();
        self.next = Next::Start;
    }

    fn last_given(&self) -> Option<&str> {
        let end = *self.ends.last()?;
        let start = self
            .ends
            .len()
            .checked_sub(2)
            .map_or(0, |before| self.ends[before]);
        self.given.get(start..end)
    }

    fn note_given(&mut self, item: &Item) {
        self.given.push_str(&item.sorts_as());
        self.ends.push(self.given.len());
    }

    /// Merges a page of the store into what is ready.
    fn take_page(&mut self, page: DirectoryPage) {
        if page.hidden > 0 {
            let count = page.hidden;
            tracing::info!(
                count,
                "keys that no path can name were left out of a directory"
            );
        }
        self.next = page.next.map_or(Next::End, Next::After);
        for item in page.items {
            let item = Item {
                name: item.name,
                what: What::Named(item.node),
            };
            self.take_pending_before(Some(&item.sorts_as()));
            // What is being written in its place hides it.
            let what = self
                .pending
                .remove(item.name.as_str())
                .map_or(item.what, What::Pending);
            self.ready.push_back(Item {
                name: item.name,
                what,
            });
        }
        if self.next == Next::End {
            self.take_pending_before(None);
        }
    }

    fn take_pending_before(&mut self, end: Option<&str>) {
        while let Some(first) = self.pending.first_entry() {
            if end.is_some_and(|end| &**first.key() >= end) {
                return;
            }
            let (name, ino) = first.remove_entry();
            self.ready.push_back(Item {
                name: name.to_string(),
                what: What::Pending(ino),
            });
        }
    }
}

impl View {
    pub(crate) fn open_directory(&self, ino: u64) -> u64 {
        let stream = Stream {
            ino,
            ..Stream::default()
        };
        self.handles
            .insert(Handle::Directory(Arc::new(Mutex::new(stream))))
    }

    pub(crate) fn close_directory(&self, fh: u64) {
        self.handles.remove(fh);
    }

    /// Offers the entries of a directory from `offset` on, until one is refused.
    pub(crate) fn read_directory(
        &self,
        fh: u64,
        offset: u64,
        tells: Tells,
        offer: &mut dyn FnMut(&DirEntry<'_>) -> Room,
    ) -> Result<(), Errno> {
        let stream = self.handles.directory(fh).ok_or(Errno(libc::EBADF))?;
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let _paths = self.paths();
        if self.offer_dots(stream.ino, offset, offer)? == Room::Full {
            return Ok(());
        }
        let place = match self.place(stream.ino) {
            // A directory that was removed has nothing in it.
            Err(Errno(libc::ENOENT)) => return Ok(()),
            place => place?,
        };
        let wanted = offset.saturating_sub(DOTS);
        if wanted != stream.position() || wanted == 0 {
            let count = usize::try_from(wanted)
                .unwrap_or(usize::MAX)
                .min(stream.ends.len());
            stream.rewind_to(count);
            self.go_on_after_last(&mut stream)?;
        }
        loop {
            if stream.ready.is_empty() {
                self.fill(&mut stream, &place)?;
            }
            let Some(item) = stream.ready.pop_front() else {
                return Ok(());
            };
            let mut tree = self.tree();
            if tree.get(stream.ino).map(|node| node.version) != Some(stream.version) {
                // What was fetched may show what is no more.
                drop(tree);
                let count = stream.ends.len();
                stream.rewind_to(count);
                self.go_on_after_last(&mut stream)?;
                continue;
            }
            let Some(found) = self.found_in(&mut tree, &stream, &place, &item, tells) else {
                continue;
            };
            drop(tree);
            let entry = DirEntry {
                name: &item.name,
                offset: stream.position() + 1 + DOTS,
                found,
            };
            if offer(&entry) == Room::Full {
                if tells == Tells::Inodes {
                    self.forget(found.ino, 1);
                }
                stream.ready.push_front(item);
                return Ok(());
            }
            stream.note_given(&item);
        }
    }

    /// `.` and `..`.
    fn offer_dots(
        &self,
        ino: u64,
        offset: u64,
        offer: &mut dyn FnMut(&DirEntry<'_>) -> Room,
    ) -> Result<Room, Errno> {
        let parent = self.tree().get(ino).map_or(ROOT, |node| node.parent);
        for (name, ino, next) in [(".", ino, 1), ("..", parent, DOTS)] {
            if next <= offset {
                continue;
            }
            let entry = DirEntry {
                name,
                offset: next,
                found: self.known(ino)?,
            };
            if offer(&entry) == Room::Full {
                return Ok(Room::Full);
            }
        }
        Ok(Room::Left)
    }

    /// Has the next page begin after the last name given out, and takes a new look at what the
    /// store does not have.
    fn go_on_after_last(&self, stream: &mut Stream) -> Result<(), Errno> {
        let last = stream.last_given().unwrap_or_default().to_owned();
        if !last.is_empty() {
            let path = match self.place(stream.ino)? {
                Place::Buckets => String::new(),
                Place::In(_, path) => path,
            };
            // All below a directory comes before what is next.
            let after = join(&path, &last);
            let dir = last.ends_with('/');
            stream.next = Next::After(if dir {
                ListAfter::Prefix(after)
            } else {
                ListAfter::Key(after)
            });
        }
        let tree = self.tree();
        let pending = tree.pending(stream.ino).filter(|(name, _)| ***name > *last);
        stream.pending = pending.map(|(name, ino)| (Arc::clone(name), ino)).collect();
        Ok(())
    }

    /// Fetches the next page.
    fn fill(&self, stream: &mut Stream, place: &Place) -> Result<(), Errno> {
        let after = match &stream.next {
            Next::Start => None,
            Next::After(after) => Some(after.clone()),
            Next::End => return Ok(()),
        };
        stream.version = self.tree().get(stream.ino).map_or(0, |node| node.version);
        match place {
            Place::Buckets => {
                let after = after.map(|(ListAfter::Key(name) | ListAfter::Prefix(name))| name);
                let after = after.unwrap_or_default();
                let buckets = self.buckets()?.into_iter();
                let buckets = buckets.filter(|bucket| *bucket.name.as_str() > *after);
                stream.ready.extend(buckets.map(|bucket| Item {
                    name: bucket.name.as_str().to_owned(),
                    what: What::Bucket(bucket),
                }));
                stream.next = Next::End;
            }
            Place::In(bucket, path) => {
                let page = self
                    .files
                    .list_directory(bucket.id, path, after, PAGE_LEN)?;
                stream.take_page(page);
            }
        }
        Ok(())
    }

    /// The inode of an item; `None` if it has gone meanwhile.
    fn found_in(
        &self,
        tree: &mut Tree,
        stream: &Stream,
        place: &Place,
        item: &Item,
        tells: Tells,
    ) -> Option<Found> {
        let (dir, name) = (stream.ino, item.name.as_str());
        let ino = match (&item.what, place) {
            (What::Pending(ino), _) => (tree.child(dir, name) == Some(*ino)).then_some(*ino)?,
            (_, _) if tells == Tells::Names => return Some(self.peek(tree, dir, item)),
            (What::Bucket(bucket), _) => self.bind_bucket_in(tree, bucket),
            (What::Named(_), Place::Buckets) => return None,
            (What::Named(named), Place::In(bucket, path)) => {
                let path = match named {
                    Named::Directory(_) => join(path, name),
                    Named::File(_) => String::new(),
                };
                self.bind_in(tree, dir, name, bucket, &path, named)
            }
        };
        if tells == Tells::Inodes {
            tree.remember(ino);
        }
        found(tree, ino).ok()
    }

    /// Type and number of an item, without the kernel or the tree coming to know it.
    fn peek(&self, tree: &Tree, dir: u64, item: &Item) -> Found {
        let attr = match &item.what {
            What::Named(Named::File(entry)) => Attr::of_file(entry, &self.defaults),
            _ => Attr::of_root(Timestamp(0), &self.defaults),
        };
        let number = match &item.what {
            What::Named(Named::File(entry)) => entry.ino,
            _ => UNKNOWN,
        };
        let ino = tree.child(dir, &item.name).unwrap_or(number);
        Found {
            ino,
            attr,
            nlink: 1,
        }
    }
}
