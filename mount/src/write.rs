//! Writing, and making what was written the object: `write`, `truncate`, `fsync`, `close`.
//!
//! The life of a write: stage (the kernel writes to the staging file by itself where it can),
//! publish (the last `release` deferred, `fsync` durable), and from then on it is what S3 has.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use forebay_store::api::{Durability, PublishFile};
use forebay_store::entry::Entry;

use crate::CloseMode;
use crate::attr::Attr;
use crate::errno::Errno;
use crate::handle::FileHandle;
use crate::inode::Link;
use crate::invalidate::Notice;
use crate::open::{OpenFile, Source, State};
use crate::opening::without_privileges;
use crate::passthrough::{Answer, Want};
use crate::path::key;
use crate::sys;
use crate::view::View;

/// Whether a staging file goes on to be written to after it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Keep,
    Seal,
}

/// What a write does to set-user-id and set-group-id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privileges {
    Keep,
    Drop,
}

impl View {
    /// Writes through the daemon; the bytes written.
    pub(crate) fn write(
        &self,
        fh: u64,
        offset: u64,
        data: &[u8],
        privileges: Privileges,
    ) -> Result<u32, Errno> {
        let handle = self.writable(fh)?;
        if privileges == Privileges::Drop
            && let Some(node) = self.tree().get_mut(handle.file.ino)
        {
            node.attr.mode = without_privileges(node.attr.mode);
        }
        let Source::Staging(staging) = handle.file.source() else {
            return Err(Errno(libc::EBADF));
        };
        staging.file().write_all_at(data, offset)?;
        if handle.sync {
            self.sync_file(&handle)?;
        }
        Ok(u32::try_from(data.len()).expect("a request is at most 16 MiB"))
    }

    fn writable(&self, fh: u64) -> Result<Arc<FileHandle>, Errno> {
        self.handles
            .file(fh)
            .filter(|handle| handle.writable)
            .ok_or(Errno(libc::EBADF))
    }

    /// `fallocate`, as far as the kernel sends it: not collapsing and not inserting.
    pub(crate) fn allocate(&self, fh: u64, offset: u64, len: u64, mode: i32) -> Result<(), Errno> {
        let handle = self.writable(fh)?;
        let Source::Staging(staging) = handle.file.source() else {
            return Err(Errno(libc::EBADF));
        };
        let signed = |value: u64| i64::try_from(value).map_err(|_| Errno(libc::EFBIG));
        Ok(sys::fallocate(
            staging.file(),
            mode,
            signed(offset)?,
            signed(len)?,
        )?)
    }

    /// One descriptor of the file is closed; another may still be open.
    ///
    /// # Errors
    /// Where closing is durable, what publishing gave.
    pub(crate) fn flush(&self, fh: u64) -> Result<(), Errno> {
        let Some(handle) = self.handles.file(fh).filter(|handle| handle.writable) else {
            return Ok(());
        };
        if self.close == CloseMode::Durable {
            return self.sync_file(&handle);
        }
        let _paths = self.paths();
        let mut state = handle.file.lock();
        if let Some((bucket, path, _)) = self.target(handle.file.ino) {
            // S3 waits for the release that follows within microseconds. Whether it is the last
            // one is not known yet: those of handles that were closed before may still be coming.
            let key = key(&path)?;
            self.files.closing(bucket.id, &key);
            state.closing = Some((bucket.id, key));
        }
        Ok(())
    }

    /// `fsync`: everything written up to now is published and survives a power cut.
    pub(crate) fn sync(&self, fh: u64) -> Result<(), Errno> {
        let handle = self.handles.file(fh).ok_or(Errno(libc::EBADF))?;
        self.sync_file(&handle)
    }

    fn sync_file(&self, handle: &FileHandle) -> Result<(), Errno> {
        {
            let _paths = self.paths();
            let mut state = handle.file.lock();
            let changed = state
                .staging
                .as_ref()
                .map(super::open::Staging::is_changed)
                .transpose()?;
            if changed == Some(true) && self.target(handle.file.ino).is_some() {
                let done = self.publish(&handle.file, &mut state, Durability::Durable, Then::Keep);
                return done.map(drop);
            }
        }
        // What it holds may have been published deferred.
        Ok(self.files.sync()?)
    }

    /// Publishes what the last writable handle left. Nobody waits for this, so nobody gets an
    /// error.
    pub(crate) fn publish_last(&self, file: &OpenFile, state: &mut State) {
        let durability = match self.close {
            CloseMode::Deferred => Durability::Deferred,
            CloseMode::Durable => Durability::Durable,
        };
        let done = self.publish(file, state, durability, Then::Seal);
        if let Some((bucket, key)) = state.closing.take() {
            self.files.closed(bucket, &key);
        }
        if let Err(Errno(code)) = done {
            let err = io::Error::from_raw_os_error(code);
            tracing::error!(ino = file.ino, %err, "a closed file could not be published; it is kept until the mount stops");
        }
    }

    /// Publishes a file that is open or could not be published when it was closed; whether there
    /// was anything to publish.
    pub(crate) fn publish_now(&self, file: &OpenFile) -> Result<bool, Errno> {
        let _paths = self.paths();
        let mut state = file.lock();
        if state.staging.is_none() {
            return Ok(false);
        }
        let then = if state.writers > 0 {
            Then::Keep
        } else {
            Then::Seal
        };
        self.publish(file, &mut state, Durability::Durable, then)
    }

    /// Makes the staging file's bytes the object, if they are new and a name is left for them.
    fn publish(
        &self,
        file: &OpenFile,
        state: &mut State,
        durability: Durability,
        then: Then,
    ) -> Result<bool, Errno> {
        let Some(staging) = state.staging.as_mut() else {
            return Ok(false);
        };
        let target = self.target(file.ino);
        let new = staging.is_changed()?;
        let published = match target {
            Some((bucket, path, link)) if new => {
                let seen = staging.now()?;
                let attr = self.known(file.ino)?.attr;
                let attributes = state.base.as_ref().map(|entry| entry.attributes.clone());
                let entry = self.files.publish_file(PublishFile {
                    bucket: bucket.id,
                    key: key(&path)?,
                    staging: &staging.file,
                    keep: then == Then::Keep,
                    ino: file.ino,
                    file: attr.to_file(),
                    attributes: attributes.unwrap_or_default(),
                    durability,
                })?;
                staging.published(seen);
                self.note_published(file.ino, &entry, attr, link);
                state.base = Some(entry);
                true
            }
            _ => false,
        };
        if then == Then::Seal {
            self.seal(file, state)?;
        }
        Ok(published)
    }

    fn note_published(&self, ino: u64, entry: &Entry, attr: Attr, link: Link) {
        let name = {
            let mut tree = self.tree();
            self.recent.changed(Some(ino));
            tree.published(ino, entry.ino);
            tree.set_attr(ino, attr);
            let Some(node) = tree.get(ino) else { return };
            (node.parent, Arc::clone(&node.name))
        };
        if link == Link::Superseded {
            self.notify(Notice::Entry {
                dir: name.0,
                name: name.1,
            });
        }
    }

    /// Lets go of a staging file that nobody writes to any more. Who still reads it goes on reading
    /// the same bytes.
    fn seal(&self, file: &OpenFile, state: &mut State) -> Result<(), Errno> {
        // What has no name any more is nowhere else than in the staging file.
        let named = state
            .base
            .as_ref()
            .filter(|_| self.target(file.ino).is_some());
        match named {
            _ if state.opens == 0 => file.set_source(Source::Unknown),
            Some(entry) => file.set_source(Source::Published(self.open_content(entry)?)),
            None => {}
        }
        state.mode = state.mode.published();
        state.staging = None;
        Ok(())
    }

    /// `truncate` of a file that nobody has open for writing, or `ftruncate`.
    ///
    /// # Errors
    /// `ESTALE` if readers pass through the old version: the kernel looks the name up again.
    pub(crate) fn truncate(&self, ino: u64, size: u64) -> Result<(), Errno> {
        let _paths = self.paths();
        self.with_file(ino, |file, state| self.truncate_locked(file, state, size))
    }

    fn truncate_locked(&self, file: &OpenFile, state: &mut State, size: u64) -> Result<(), Errno> {
        if let Some(staging) = &mut state.staging {
            return Ok(staging.set_len(size)?);
        }
        let (_, entry) = self.current(file.ino)?;
        if state.mode.answer(Want::Write, self.support()) == Answer::Fork {
            self.fork(file.ino, &entry)?;
            return Err(Errno(libc::ESTALE));
        }
        self.begin_write(file, state, Some(&entry), size == 0)?;
        if let Some(staging) = &mut state.staging {
            staging.set_len(size)?;
        }
        self.publish(file, state, Durability::Deferred, Then::Seal)?;
        Ok(())
    }
}
