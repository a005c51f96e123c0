//! `open`, `creat` and `close`: who gets which bytes, and by which way.

use std::fs::File;
use std::io;
use std::sync::Arc;

use forebay_store::Content;
use forebay_store::api::Node as Named;
use forebay_store::entry::{Bucket, Entry};
use forebay_store::rule::directive::Directive;

use crate::attr::{Attr, of_new};
use crate::errno::Errno;
use crate::handle::{FileHandle, Handle};
use crate::inode::{Binding, Link, Place};
use crate::open::{OpenFile, Source, Staging, State, Through};
use crate::passthrough::{Answer, PASSTHROUGH_SIZE_MIN, Support, Want};
use crate::path::{join, key};
use crate::session::Backing;
use crate::view::{Found, View};

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// How a file is to be opened: flags of `open(2)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFlags(pub(crate) i32);

impl OpenFlags {
    pub(crate) fn writable(self) -> bool {
        self.0 & libc::O_ACCMODE != libc::O_RDONLY
    }

    fn truncates(self) -> bool {
        self.writable() && self.0 & libc::O_TRUNC != 0
    }

    /// Whether it is to go past the page cache.
    pub(crate) fn direct(self) -> bool {
        self.0 & libc::O_DIRECT != 0
    }

    fn sync(self) -> bool {
        self.writable() && self.0 & libc::O_DSYNC != 0
    }
}

/// Which way an open file is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the daemon and the kernel's page cache.
    Cached,
    /// By the daemon, past the page cache.
    Direct,
    /// By the kernel itself.
    Through,
}

/// An open file, as a reply has it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) fh: u64,
    pub(crate) writable: bool,
    pub(crate) way: Way,
    /// What the kernel is to read and write by itself; through the daemon if `None`.
    pub(crate) through: Option<Arc<Through>>,
}

/// Asks the kernel to register a file for passing opens through.
pub(crate) type Register<'a> = &'a dyn Fn(&File) -> io::Result<Backing>;

impl View {
    /// Opens an inode.
    ///
    /// # Errors
    /// `ESTALE` if its name leads to another version by now, or has to: the kernel looks it up
    /// again and opens that.
    pub(crate) fn open(
        &self,
        ino: u64,
        flags: OpenFlags,
        caller: Caller,
        register: Register<'_>,
    ) -> Result<Opened, Errno> {
        let _paths = self.paths();
        self.with_file(ino, |file, state| {
            self.open_locked(file, state, flags, caller, register)
        })
    }

    /// Runs `act` on the state that the handles of an inode share.
    pub(crate) fn with_file<T>(
        &self,
        ino: u64,
        act: impl FnOnce(&Arc<OpenFile>, &mut State) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        loop {
            let file = {
                let mut tree = self.tree();
                let node = tree.get_mut(ino).ok_or(Errno(libc::ESTALE))?;
                Arc::clone(
                    node.file
                        .get_or_insert_with(|| Arc::new(OpenFile::new(ino))),
                )
            };
            let mut state = file.lock();
            if state.dead {
                continue;
            }
            let done = act(&file, &mut state);
            self.drop_if_closed(&file, &mut state);
            return done;
        }
    }

    /// Lets the tree forget a file that nobody has open and that has nothing to publish.
    pub(crate) fn drop_if_closed(&self, file: &OpenFile, state: &mut State) {
        if state.opens == 0 && state.staging.is_none() && !state.dead {
            state.dead = true;
            self.tree().closed(file.ino);
        }
    }

    fn open_locked(
        &self,
        file: &Arc<OpenFile>,
        state: &mut State,
        flags: OpenFlags,
        caller: Caller,
        register: Register<'_>,
    ) -> Result<Opened, Errno> {
        let entry = self.version_to_open(file, state)?;
        let mut said = None;
        let want = if flags.writable() {
            Want::Write
        } else if state.staging.is_some() {
            Want::ReadStaging
        } else {
            self.find_bytes(file, state, entry.as_ref())?;
            said = self.said_of_cache(file, flags)?;
            match &said {
                None => want_to_read(file)?,
                Some(content) if self.may_pass(content, state, flags) => Want::ReadFile,
                Some(_) => Want::ReadUncached,
            }
        };
        if state.mode.answer(want, self.support_for(flags)) == Answer::Fork {
            if let Some(entry) = &entry {
                self.fork(file.ino, entry)?;
            }
            return Err(Errno(libc::ESTALE));
        }
        if flags.writable() {
            self.begin_write(file, state, entry.as_ref(), flags.truncates())?;
        }
        if flags.truncates() {
            self.truncated_by(file.ino, caller);
        }
        Ok(self.hand_out(file, state, (want, said), flags, register))
    }

    /// The bytes for a reader who is to leave the cache alone, or not to fill it; `None` for all
    /// others.
    fn said_of_cache(&self, file: &OpenFile, flags: OpenFlags) -> Result<Option<Content>, Errno> {
        let Source::Published(content) = file.source() else {
            return Ok(None);
        };
        let directive = self.directive(file.ino, flags, content.entry())?;
        Ok((!directive.fills()).then(|| content.with(directive)))
    }

    /// Whether the kernel can read such bytes by itself and fill no cache: what is whole in a cache
    /// that may be looked at, and files of the store past the page cache.
    fn may_pass(&self, content: &Content, state: &State, flags: OpenFlags) -> bool {
        let there = passed_file(content, flags).is_some();
        let passes = state.mode.answer(Want::ReadFile, self.support_for(flags));
        let large = content.entry().size >= PASSTHROUGH_SIZE_MIN;
        there && large && matches!(passes, Answer::RegisterPublished | Answer::Reuse)
    }

    /// Writes that are each to be durable must come by us.
    fn support_for(&self, flags: OpenFlags) -> Support {
        if flags.sync() {
            Support::No
        } else {
            self.support()
        }
    }

    /// The version to open: `None` while what is open is all there is.
    fn version_to_open(&self, file: &OpenFile, state: &State) -> Result<Option<Arc<Entry>>, Errno> {
        let (link, shows) = {
            let tree = self.tree();
            let node = tree.get(file.ino).ok_or(Errno(libc::ESTALE))?;
            (node.link, node.shows)
        };
        match link {
            Link::Linked if shows.is_none() => Ok(None),
            Link::Linked => match self.current(file.ino) {
                Ok((_, entry)) => Ok(Some(entry)),
                Err(err) => Err(err),
            },
            // By way of /proc/self/fd.
            Link::Unlinked if state.opens > 0 => Ok(None),
            Link::Unlinked | Link::Superseded => Err(Errno(libc::ESTALE)),
        }
    }

    /// Makes sure that there are bytes to read.
    fn find_bytes(
        &self,
        file: &OpenFile,
        state: &mut State,
        entry: Option<&Arc<Entry>>,
    ) -> Result<(), Errno> {
        if let Some(entry) = entry
            && !matches!(file.source(), Source::Published(_))
        {
            file.set_source(Source::Published(self.open_content(entry)?));
            state.base = Some(Arc::clone(entry));
        }
        Ok(())
    }

    /// Makes sure that there is a staging file.
    pub(crate) fn begin_write(
        &self,
        file: &OpenFile,
        state: &mut State,
        entry: Option<&Arc<Entry>>,
        truncate: bool,
    ) -> Result<(), Errno> {
        if let Some(staging) = &mut state.staging {
            if truncate {
                staging.set_len(0)?;
            }
            return Ok(());
        }
        let entry = entry.or(state.base.as_ref()).map(Arc::clone);
        let staging = if truncate {
            Staging::new(self.files.stage_file(None)?, None)?
        } else {
            let mtime = self.tree().get(file.ino).map(|node| node.attr.mtime);
            Staging::new(self.files.stage_file(entry.as_ref())?, mtime)?
        };
        file.set_source(Source::Staging(Arc::clone(&staging.file)));
        state.staging = Some(staging);
        state.base = entry;
        Ok(())
    }

    /// Truncation by someone else than root takes set-user-id and set-group-id away.
    fn truncated_by(&self, ino: u64, caller: Caller) {
        let now = self.now();
        if let Some(node) = self.tree().get_mut(ino) {
            node.attr.ctime = now;
            if caller.uid != 0 {
                node.attr.mode = without_privileges(node.attr.mode);
            }
        }
    }

    /// Gives a handle, by the way that `want` allows.
    fn hand_out(
        &self,
        file: &Arc<OpenFile>,
        state: &mut State,
        (want, said): (Want, Option<Content>),
        flags: OpenFlags,
        register: Register<'_>,
    ) -> Opened {
        let mut answer = state.mode.answer(want, self.support_for(flags));
        let registered = match (answer, file.source()) {
            (Answer::RegisterPublished, Source::Published(content)) => {
                let content = said.as_ref().unwrap_or(&content);
                passed_file(content, flags).map(register)
            }
            (Answer::RegisterStaging, Source::Staging(staging)) => Some(register(staging.file())),
            _ => None,
        };
        match registered {
            Some(Ok(backing)) => {
                let source = said
                    .clone()
                    .map_or_else(|| file.source(), Source::Published);
                state.through = Some(Arc::new(Through::new(backing, source)));
            }
            Some(Err(err)) => {
                tracing::warn!(%err, "the kernel can't pass opens through; all reads and writes go through forebay");
                self.set_support(Support::No);
                answer = match said {
                    Some(_) => Answer::Direct,
                    None => Answer::Cached,
                };
            }
            None => {}
        }
        state.mode = state.mode.opened(answer);
        state.opens += 1;
        state.writers += u32::from(flags.writable());
        let way = match answer {
            Answer::Cached => Way::Cached,
            Answer::Direct => Way::Direct,
            _ => Way::Through,
        };
        let through = state.through.clone().filter(|_| way == Way::Through);
        if way == Way::Through
            && let Source::Published(content) = file.source()
        {
            let content = said.as_ref().unwrap_or(&content);
            self.statuses.note(file.ino, content.status());
        }
        let handle = FileHandle {
            file: Arc::clone(file),
            said,
            writable: flags.writable(),
            sync: flags.sync(),
            _through: through.clone(),
        };
        let fh = self.handles.insert(Handle::File(Arc::new(handle)));
        Opened {
            fh,
            writable: flags.writable(),
            way,
            through,
        }
    }

    /// A version's bytes for those who say nothing of the cache.
    pub(crate) fn open_content(&self, entry: &Arc<Entry>) -> Result<Content, Errno> {
        Ok(self.files.open(entry)?.with(Directive::Use))
    }

    /// Gives a name a fresh inode that shows the same version, and leaves the old one to its
    /// readers.
    pub(crate) fn fork(&self, ino: u64, entry: &Entry) -> Result<(), Errno> {
        let fresh = self.files.allocate_ino()?;
        self.tree().fork(ino, fresh, entry.ino);
        Ok(())
    }

    /// Creates and opens a file, or opens the one that is there.
    ///
    /// # Errors
    /// `EEXIST` with `O_EXCL`, `EISDIR`, `EPERM` in the directory of all buckets.
    pub(crate) fn create(
        &self,
        dir: u64,
        name: &str,
        mode: u32,
        flags: OpenFlags,
        caller: Caller,
        register: Register<'_>,
    ) -> Result<(Found, Opened), Errno> {
        let _paths = self.paths();
        let (bucket, path) = self.place_in(dir, name)?;
        key(&path)?;
        let there = self.files.lookup(bucket.id, &path)?;
        if let Some(ino) = self.existing(dir, name, &bucket, &path, there, flags)? {
            return self.open_existing(ino, dir, name, flags, caller, register);
        }
        let attr = self.attr_of_new(dir, libc::S_IFREG | mode & 0o7777, caller)?;
        let staging = Staging::new(self.files.stage_file(None)?, None)?;
        let ino = self.files.allocate_ino()?;
        let file = Arc::new(OpenFile::new(ino));
        let mut state = file.lock();
        file.set_source(Source::Staging(Arc::clone(&staging.file)));
        let attr = Attr {
            mtime: staging.now()?.mtime,
            ..attr
        };
        state.staging = Some(staging);
        {
            let mut tree = self.tree();
            let binding = Binding {
                parent: dir,
                name,
                attr,
                shows: None,
            };
            tree.add_file(ino, &binding, Arc::clone(&file));
            tree.touch(dir, attr.ctime);
            tree.remember(ino);
        }
        let opened = self.hand_out(&file, &mut state, (Want::Write, None), flags, register);
        Ok((
            Found {
                ino,
                attr,
                nlink: 1,
            },
            opened,
        ))
    }

    /// The inode of the file that is there already.
    fn existing(
        &self,
        dir: u64,
        name: &str,
        bucket: &Bucket,
        path: &str,
        there: Option<Named>,
        flags: OpenFlags,
    ) -> Result<Option<u64>, Errno> {
        let pending = self.tree().pending_child(dir, name);
        let ino = match (pending, there) {
            (Some(ino), _) => ino,
            (None, None) => return Ok(None),
            (None, Some(named)) => {
                let mut tree = self.tree();
                self.bind_in(&mut tree, dir, name, bucket, path, &named)
            }
        };
        if flags.0 & libc::O_EXCL != 0 {
            return Err(Errno(libc::EEXIST));
        }
        if self.known(ino)?.attr.is_dir() {
            return Err(Errno(libc::EISDIR));
        }
        Ok(Some(ino))
    }

    fn open_existing(
        &self,
        ino: u64,
        dir: u64,
        name: &str,
        flags: OpenFlags,
        caller: Caller,
        register: Register<'_>,
    ) -> Result<(Found, Opened), Errno> {
        let mut ino = ino;
        let mut opened = self.open_again(ino, flags, caller, register);
        if matches!(opened, Err(Errno(libc::ESTALE))) {
            // It was forked: the name leads to the fresh inode now.
            ino = self.tree().child(dir, name).ok_or(Errno(libc::ESTALE))?;
            opened = self.open_again(ino, flags, caller, register);
        }
        let opened = opened?;
        self.tree().remember(ino);
        Ok((self.known(ino)?, opened))
    }

    fn open_again(
        &self,
        ino: u64,
        flags: OpenFlags,
        caller: Caller,
        register: Register<'_>,
    ) -> Result<Opened, Errno> {
        self.with_file(ino, |file, state| {
            self.open_locked(file, state, flags, caller, register)
        })
    }

    /// The attributes that something new in a directory has.
    pub(crate) fn attr_of_new(&self, dir: u64, mode: u32, caller: Caller) -> Result<Attr, Errno> {
        let tree = self.tree();
        let parent = tree.get(dir).ok_or(Errno(libc::ESTALE))?;
        Ok(of_new(
            mode,
            caller.uid,
            caller.gid,
            &parent.attr,
            self.now(),
        ))
    }

    /// Closes a handle for good. The last writable one publishes what was written.
    pub(crate) fn release(&self, fh: u64) {
        let Some(Handle::File(handle)) = self.handles.remove(fh) else {
            return;
        };
        let _paths = self.paths();
        let file = Arc::clone(&handle.file);
        let mut state = file.lock();
        state.mode = state.mode.released();
        state.opens -= 1;
        if handle.writable {
            state.writers -= 1;
        }
        if state.writers == 0 && state.staging.is_some() {
            self.publish_last(&file, &mut state);
        }
        if state.opens == 0 {
            state.through = None;
        }
        self.drop_if_closed(&file, &mut state);
    }

    /// Where an inode's file is published to; `None` if no name is left for it.
    pub(crate) fn target(&self, ino: u64) -> Option<(Arc<Bucket>, String, Link)> {
        let tree = self.tree();
        let node = tree.get(ino).filter(|node| node.link != Link::Unlinked)?;
        match tree.place(node.parent)? {
            Place::Buckets => None,
            Place::In(bucket, dir) => Some((bucket, join(&dir, &node.name), node.link)),
        }
    }
}

/// The file that the kernel may read by itself.
fn passed_file(content: &Content, flags: OpenFlags) -> Option<&File> {
    let uncached = || content.uncached_file().filter(|_| flags.direct());
    content.file().or_else(uncached)
}

/// Which way published bytes may be read by who says nothing of the cache.
fn want_to_read(file: &OpenFile) -> Result<Want, Errno> {
    match file.source() {
        Source::Published(content) => {
            let size = content.entry().size;
            let whole = size >= PASSTHROUGH_SIZE_MIN && content.file().is_some();
            Ok(if whole {
                Want::ReadFile
            } else {
                Want::ReadPacked
            })
        }
        Source::Staging(_) => Ok(Want::ReadStaging),
        Source::Unknown => Err(Errno(libc::ESTALE)),
    }
}

/// A mode without set-user-id, and without set-group-id where that means a group to run as.
pub(crate) fn without_privileges(mode: u32) -> u32 {
    let group = if mode & libc::S_IXGRP == 0 {
        0
    } else {
        libc::S_ISGID
    };
    mode & !(libc::S_ISUID | group)
}
