//! Changes of names and attributes: `chmod` and its kin, `mkdir`, `rmdir`, `unlink`, `symlink`,
//! `mknod`.

use forebay_store::Error;
use forebay_store::api::{AttributeChange, Face, NewBucket, Node as Named};
use forebay_store::name::BucketName;

use crate::attr::{Attr, Change};
use crate::errno::Errno;
use crate::inode::{Binding, Link, Place};
use crate::opening::{Caller, without_privileges};
use crate::path::{join, key};
use crate::view::{Found, View};

impl View {
    /// `chmod`, `chown`, `utimensat`, `truncate`, or some of them at once.
    ///
    /// # Errors
    /// `ESTALE` if the inode's name leads elsewhere by now.
    pub(crate) fn set_attributes(
        &self,
        ino: u64,
        change: &Change,
        caller: Caller,
    ) -> Result<Found, Errno> {
        let mut change = *change;
        if let Some(size) = change.size {
            self.truncate(ino, size)?;
        }
        if change.mode.is_none() && takes_privileges(&change, caller) {
            let Attr { mode, .. } = self.known(ino)?.attr;
            let less = without_privileges(mode);
            change.mode = Some(less).filter(|less| *less != mode && !is_dir(mode));
        }
        let _paths = self.paths();
        let before = self.known(ino)?;
        let attr = change.apply(before.attr, self.now());
        if before.attr.is_dir() {
            self.change_directory(ino, &change, attr)?;
        } else {
            self.change_file(ino, &change, attr)?;
        }
        self.known(ino)
    }

    fn change_directory(&self, ino: u64, change: &Change, attr: Attr) -> Result<(), Errno> {
        let kept = match self.place(ino)? {
            Place::In(bucket, path) if change.is_kept() && !path.is_empty() => Some(
                self.files
                    .set_attributes(bucket.id, &path, stored(change, attr))?,
            ),
            // The directories of buckets, and of all buckets, are no objects.
            _ => None,
        };
        let mut tree = self.tree();
        tree.set_attr(ino, attr);
        if let (Some(node), Some(marker)) = (tree.get_mut(ino), kept) {
            node.shows = Some(marker.id);
        }
        Ok(())
    }

    fn change_file(&self, ino: u64, change: &Change, attr: Attr) -> Result<(), Errno> {
        self.with_file(ino, |_, state| {
            if let (Some(staging), Some(mtime)) = (&mut state.staging, change.mtime) {
                staging.set_mtime(mtime)?;
            }
            let (link, pending) = {
                let tree = self.tree();
                let node = tree.get(ino).ok_or(Errno(libc::ESTALE))?;
                (node.link, node.shows.is_none())
            };
            // What is not published yet, or has no name any more, keeps its attributes here.
            if link == Link::Linked && !pending && (change.is_kept() || change.size.is_some()) {
                let (bucket, entry) = self.current(ino)?;
                let path = entry.key.as_str();
                let entry = self
                    .files
                    .set_attributes(bucket.id, path, stored(change, attr))?;
                self.recent.changed(Some(ino));
                if let Some(base) = &mut state.base {
                    base.clone_from(&entry);
                }
            }
            self.tree().set_attr(ino, attr);
            Ok(())
        })
    }

    /// Makes a directory; in the directory of all buckets, a bucket.
    pub(crate) fn make_directory(
        &self,
        dir: u64,
        name: &str,
        mode: u32,
        caller: Caller,
    ) -> Result<Found, Errno> {
        let _paths = self.paths();
        let attr = self.attr_of_new(dir, libc::S_IFDIR | mode & 0o7777, caller)?;
        let made = match self.place(dir)? {
            Place::Buckets => self.make_bucket(name)?,
            Place::In(bucket, path) => {
                let path = join(&path, name);
                if self.tree().pending_child(dir, name).is_some() {
                    return Err(Errno(libc::EEXIST));
                }
                let marker = self
                    .files
                    .make_directory(bucket.id, &path, attr.to_file())?;
                let binding = Binding {
                    parent: dir,
                    name,
                    attr,
                    shows: Some(marker.id),
                };
                let mut tree = self.tree();
                let ino = tree.bind_dir(&binding, &bucket, &path, None);
                tree.remember(ino);
                Found {
                    ino,
                    attr,
                    nlink: 2,
                }
            }
        };
        self.touch(dir);
        Ok(made)
    }

    fn make_bucket(&self, name: &str) -> Result<Found, Errno> {
        let bucket = NewBucket {
            name: BucketName::parse(name)?,
            owner: self.files.mount_account(),
            location: None,
            face: Face::Mount,
        };
        let bucket = self.wait(self.files.create_bucket(bucket))?;
        self.bind_bucket(&bucket)
    }

    /// Removes an empty directory, or an empty bucket.
    pub(crate) fn remove_directory(&self, dir: u64, name: &str) -> Result<(), Errno> {
        let _paths = self.paths();
        let known = self.tree().child(dir, name);
        if known.is_some_and(|ino| self.tree().pending(ino).next().is_some()) {
            return Err(Errno(libc::ENOTEMPTY));
        }
        match self.place(dir)? {
            Place::Buckets => {
                let name = BucketName::parse(name)?;
                self.wait(self.files.delete_bucket(name, Face::Mount))?;
            }
            Place::In(bucket, path) => {
                self.files.remove_directory(bucket.id, &join(&path, name))?;
            }
        }
        if let Some(ino) = known {
            self.tree().unlink(ino, Link::Unlinked);
        }
        self.touch(dir);
        Ok(())
    }

    /// Removes a file. Who has it open keeps it.
    pub(crate) fn unlink(&self, dir: u64, name: &str) -> Result<(), Errno> {
        let _paths = self.paths();
        let (bucket, path) = self.place_in(dir, name)?;
        let known = self.tree().child(dir, name);
        let open = known.and_then(|ino| self.tree().get(ino).and_then(|node| node.file.clone()));
        // So that no publication is under way.
        let state = open.as_ref().map(|file| file.lock());
        let pending = self.tree().pending_child(dir, name).is_some();
        let removed = self.files.remove_file(bucket.id, &path);
        self.recent.changed(known);
        match removed {
            Ok(()) => {}
            // Nothing is published yet under this name.
            Err(Error::NoSuchKey(_)) if pending => {}
            Err(err) => return Err(err.into()),
        }
        let now = self.now();
        let mut tree = self.tree();
        if let Some(ino) = known {
            if let Some(node) = tree.get_mut(ino) {
                node.attr.ctime = now;
            }
            tree.unlink(ino, Link::Unlinked);
        }
        for ino in tree.superseded_writers(dir, name) {
            tree.unlink(ino, Link::Unlinked);
        }
        tree.touch(dir, now);
        drop(tree);
        drop(state);
        Ok(())
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(
        &self,
        dir: u64,
        name: &str,
        target: &[u8],
        caller: Caller,
    ) -> Result<Found, Errno> {
        self.make_node(dir, name, target, libc::S_IFLNK | 0o777, 0, caller)
    }

    /// Makes a file without content, a pipe, a socket or a device.
    pub(crate) fn make_special(
        &self,
        dir: u64,
        name: &str,
        mode: u32,
        rdev: u32,
        caller: Caller,
    ) -> Result<Found, Errno> {
        self.make_node(dir, name, &[], mode, rdev, caller)
    }

    fn make_node(
        &self,
        dir: u64,
        name: &str,
        content: &[u8],
        mode: u32,
        rdev: u32,
        caller: Caller,
    ) -> Result<Found, Errno> {
        let _paths = self.paths();
        let (bucket, path) = self.place_in(dir, name)?;
        key(&path)?;
        if self.tree().pending_child(dir, name).is_some() {
            return Err(Errno(libc::EEXIST));
        }
        let attr = Attr {
            rdev,
            ..self.attr_of_new(dir, mode, caller)?
        };
        let entry = self
            .files
            .make_node(bucket.id, &path, content, attr.to_file())?;
        let found = self.bind(dir, name, &bucket, &path, &Named::File(entry))?;
        self.touch(dir);
        Ok(found)
    }
}

/// Whether a change takes set-user-id and set-group-id away: one of the owner does, and one of the
/// size by someone else than root. A change of nothing is what the kernel asks for when it is
/// `chown` to the same owner, or when it writes by itself on behalf of someone else than root.
fn takes_privileges(change: &Change, caller: Caller) -> bool {
    let truncates = change.size.is_some() && caller.uid != 0;
    let times = change.atime.is_some() || change.mtime.is_some();
    let nothing = change.size.is_none() && !times;
    truncates || change.uid.is_some() || change.gid.is_some() || nothing
}

fn is_dir(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFDIR
}

/// What the store is to change.
fn stored(change: &Change, attr: Attr) -> AttributeChange {
    AttributeChange {
        mode: change.mode.map(|_| attr.mode),
        uid: change.uid,
        gid: change.gid,
        mtime: change.mtime,
        ctime: Some(attr.ctime),
        rdev: None,
    }
}
