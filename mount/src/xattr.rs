//! Extended attributes: what is said of the cache, and what it did.

use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_store::content::CacheStatus;
use forebay_store::rule::directive::Directive;
use lru::LruCache;

use crate::directive::Word;
use crate::errno::Errno;
use crate::inode::{Link, Place};
use crate::view::View;

/// What is said of the cache: `no-cache`, `no-store` or `default`.
const CONTROL: &[u8] = b"user.forebay.cache-control";
/// What the last reads found in the cache.
const STATUS: &[u8] = b"user.forebay.cache-status";
/// Files of which it is remembered what the last reads found.
const STATUSES_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");

/// The attributes that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Control,
    Status,
}

impl Name {
    /// # Errors
    /// `EOPNOTSUPP` for any other.
    fn parse(name: &OsStr) -> Result<Self, Errno> {
        match name.as_bytes() {
            CONTROL => Ok(Self::Control),
            STATUS => Ok(Self::Status),
            _ => Err(Errno(libc::EOPNOTSUPP)),
        }
    }
}

/// What the last reads of files found, by inode number.
#[derive(Debug)]
pub(crate) struct Statuses(Mutex<LruCache<u64, CacheStatus>>);

impl Statuses {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(LruCache::new(STATUSES_MAX)))
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<u64, CacheStatus>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what was found, if anything was looked for.
    pub(crate) fn note(&self, ino: u64, status: Option<CacheStatus>) {
        if let Some(status) = status {
            self.lock().put(ino, status);
        }
    }

    fn get(&self, ino: u64) -> Option<CacheStatus> {
        self.lock().get(&ino).copied()
    }
}

impl View {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` if it is not set, `EOPNOTSUPP` if there is none of this name.
    pub(crate) fn xattr(&self, ino: u64, name: &OsStr) -> Result<&'static [u8], Errno> {
        let value = match Name::parse(name)? {
            Name::Control => self.own_directive(ino)?.map(Directive::word),
            Name::Status => self.statuses.get(ino).map(CacheStatus::word),
        };
        value.map(str::as_bytes).ok_or(Errno(libc::ENODATA))
    }

    /// The names of those that are set, each with a NUL.
    pub(crate) fn xattr_names(&self, ino: u64) -> Result<Vec<u8>, Errno> {
        let control = self.own_directive(ino)?.map(|_| CONTROL);
        let status = self.statuses.get(ino).map(|_| STATUS);
        let mut names = Vec::new();
        for name in control.into_iter().chain(status) {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }

    /// Sets an attribute; `flags` are those of `setxattr(2)`.
    ///
    /// # Errors
    /// `EINVAL` for a value that means nothing, `EPERM` for what can only be read, `EEXIST` and
    /// `ENODATA` as the flags have it, `EOPNOTSUPP` if there is none of this name, or not on the
    /// directory of a bucket.
    pub(crate) fn set_xattr(
        &self,
        ino: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Result<(), Errno> {
        if Name::parse(name)? == Name::Status {
            return Err(Errno(libc::EPERM));
        }
        let directive = Directive::from_word(value).ok_or(Errno(libc::EINVAL))?;
        let is_set = self.own_directive(ino)?.is_some();
        match flags {
            libc::XATTR_CREATE if is_set => Err(Errno(libc::EEXIST)),
            libc::XATTR_REPLACE if !is_set => Err(Errno(libc::ENODATA)),
            _ => self.keep_directive(ino, Some(directive)),
        }
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// As [`set_xattr`](Self::set_xattr); `ENODATA` if it is not set.
    pub(crate) fn remove_xattr(&self, ino: u64, name: &OsStr) -> Result<(), Errno> {
        if Name::parse(name)? == Name::Status {
            return Err(Errno(libc::EPERM));
        }
        if self.own_directive(ino)?.is_none() {
            return Err(Errno(libc::ENODATA));
        }
        self.keep_directive(ino, None)
    }

    /// What an inode's own attribute says.
    fn own_directive(&self, ino: u64) -> Result<Option<Directive>, Errno> {
        let _paths = self.paths();
        let (dir, named) = {
            let tree = self.tree();
            let node = tree.get(ino).ok_or(Errno(libc::ESTALE))?;
            let named = node.link == Link::Linked && node.shows.is_some();
            (node.attr.is_dir(), named)
        };
        if dir {
            return self.directory_says(ino);
        }
        if !named {
            // It is not an object yet, or not any more.
            return Ok(None);
        }
        let (_, entry) = self.current(ino)?;
        Ok(Directive::kept_in(&entry.attributes.user_metadata))
    }

    fn keep_directive(&self, ino: u64, directive: Option<Directive>) -> Result<(), Errno> {
        let (dir, unpublished) = {
            let tree = self.tree();
            let node = tree.get(ino).ok_or(Errno(libc::ESTALE))?;
            let unpublished = node.file.clone().filter(|_| node.shows.is_none());
            (node.attr.is_dir(), unpublished)
        };
        if let Some(file) = unpublished {
            // It is kept with an object, so there has to be one.
            self.publish_now(&file)?;
        }
        let _paths = self.paths();
        if dir {
            self.keep_directory_says(ino, directive)
        } else {
            self.keep_file_says(ino, directive)
        }
    }

    fn keep_directory_says(&self, ino: u64, directive: Option<Directive>) -> Result<(), Errno> {
        let Place::In(bucket, path) = self.place(ino)? else {
            return Err(Errno(libc::EOPNOTSUPP));
        };
        if path.is_empty() {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        let marker = self.files.set_directive(bucket.id, &path, directive)?;
        let now = self.now();
        let mut tree = self.tree();
        tree.note_word(ino, Word::new(directive));
        if let Some(node) = tree.get_mut(ino) {
            node.shows = Some(marker.id);
            node.attr.ctime = now;
        }
        Ok(())
    }

    fn keep_file_says(&self, ino: u64, directive: Option<Directive>) -> Result<(), Errno> {
        self.with_file(ino, |_, state| {
            let (bucket, entry) = self.current(ino)?;
            let path = entry.key.as_str();
            let entry = self.files.set_directive(bucket.id, path, directive)?;
            self.recent.changed(Some(ino));
            if let Some(base) = &mut state.base {
                base.clone_from(&entry);
            }
            let now = self.now();
            if let Some(node) = self.tree().get_mut(ino) {
                node.attr.ctime = now;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_are_not_supported() {
        for name in [
            "user.other",
            "user.forebay",
            "security.capability",
            "system.posix_acl_access",
        ] {
            let refused = Name::parse(OsStr::new(name));
            assert_eq!(refused, Err(Errno(libc::EOPNOTSUPP)), "{name}");
        }
        let control = OsStr::from_bytes(CONTROL);
        assert_eq!(Name::parse(control), Ok(Name::Control));
    }

    #[test]
    fn a_read_that_looked_for_nothing_leaves_what_was_found() {
        let statuses = Statuses::new();
        statuses.note(7, Some(CacheStatus::Hit));
        statuses.note(7, None);
        assert_eq!(statuses.get(7), Some(CacheStatus::Hit));
        assert_eq!(statuses.get(8), None);
    }
}
