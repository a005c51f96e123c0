//! Bytes on their way in.
//!
//! A body is hashed and written while it arrives. A small one stays in memory until the committer
//! appends it to a segment. A large one goes to a file of its own, at its final place; nothing
//! refers to that file until it is published, and it is removed if it never is.

mod drain;

use std::fs::File;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::data::Layout;
use crate::digest::{DigestSet, Digests, Hasher};
use crate::disk::{Disk, DiskFile};
use crate::entry::FileId;
use crate::error::{Error, IoContext, Result};
use crate::limits::{PUT_SIZE_MAX, STAGE_BYTES_MAX, STAGE_CHUNK_SIZE, STAGE_SMALL_MAX};
use crate::md5_pool::{HASH_INLINE_MAX, Haste, Md5Pool, Member, Present};
use crate::multipart::Claim;
use crate::shared::lock;
use crate::stage::drain::{Chunk, Drain, Inbox};

/// A new data file that is removed unless it is published.
#[derive(Debug)]
pub(crate) struct FreshFile {
    pub(crate) id: FileId,
    pub(crate) file: Arc<DiskFile>,
    disk: Arc<dyn Disk>,
    /// The staging file that it was, and is again if it is not published.
    was: Option<Origin>,
    published: bool,
}

impl FreshFile {
    pub(crate) fn create(layout: &Layout, disk: &Arc<dyn Disk>, id: FileId) -> Result<Self> {
        let path = layout.path(id, false);
        let file = disk.create(&path).io("create", &path)?;
        Ok(Self {
            id,
            file,
            disk: Arc::clone(disk),
            was: None,
            published: false,
        })
    }

    /// Takes a staging file that nobody writes to any more, under the name of a data file.
    ///
    /// # Errors
    /// `Io`; the staging file is then what it was.
    pub(crate) fn adopt(
        layout: &Layout,
        disk: &Arc<dyn Disk>,
        id: FileId,
        staging: &StagingFile,
    ) -> Result<Self> {
        let path = layout.path(id, false);
        let was = Origin {
            path: staging.file.path.clone(),
            taken: Arc::clone(&staging.taken),
        };
        disk.rename(&was.path, &path).io("rename", &was.path)?;
        was.taken.store(true, Ordering::Release);
        match disk.open(&path).io("open", &path) {
            Ok(file) => Ok(Self {
                id,
                file,
                disk: Arc::clone(disk),
                was: Some(was),
                published: false,
            }),
            Err(err) => {
                was.restore(disk.as_ref(), &path);
                Err(err)
            }
        }
    }

    /// From here the index refers to it.
    pub(crate) fn publish(&mut self) {
        self.published = true;
    }
}

/// What a staging file was before it became a data file.
#[derive(Debug)]
struct Origin {
    path: PathBuf,
    taken: Arc<AtomicBool>,
}

impl Origin {
    /// Makes the file at `path` a staging file again: its bytes are nowhere else.
    fn restore(&self, disk: &dyn Disk, path: &Path) {
        match disk.rename(path, &self.path) {
            Ok(()) => self.taken.store(false, Ordering::Release),
            Err(err) => {
                tracing::error!(path = %path.display(), %err, "a file that could not be published can't be tried again");
            }
        }
    }
}

impl Drop for FreshFile {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        if let Some(was) = &self.was {
            was.restore(self.disk.as_ref(), &self.file.path);
        } else if let Err(err) = self.disk.remove(&self.file.path) {
            // The next start finds it: no row refers to it.
            tracing::warn!(path = %self.file.path.display(), %err, "an unpublished file stays for now");
        }
    }
}

/// Where staged bytes are.
#[derive(Debug)]
pub(crate) enum Body {
    /// In memory, at most `PACKED_SIZE_MAX`.
    Memory(Vec<Bytes>),
    /// In a file of its own, from its start.
    File(FreshFile),
    /// In its place in the file that an upload's parts share.
    Place {
        file: Arc<DiskFile>,
        id: FileId,
        offset: u64,
        claim: Arc<Claim>,
    },
}

/// A body that has arrived whole. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    /// Its length in bytes.
    pub len: u64,
    /// Its digests.
    pub digests: Digests,
    pub(crate) body: Body,
    /// Its share of what may be in memory as a whole.
    pub(crate) memory: Option<OwnedSemaphorePermit>,
    /// Until it is published.
    pub(crate) present: Option<Present>,
}

/// Makes stages.
#[derive(Debug, Clone)]
pub(crate) struct Stager {
    pub(crate) layout: Layout,
    pub(crate) disk: Arc<dyn Disk>,
    /// Bounds the bytes that wait in memory, in units of one byte.
    pub(crate) budget: Arc<Semaphore>,
    /// Bounds the bytes of bodies that are in memory as a whole.
    pub(crate) whole: Arc<Semaphore>,
    /// Largest body that stays in memory.
    pub(crate) packed_size_max: u64,
    /// Hashes several bodies at once.
    pub(crate) md5: Md5Pool,
}

/// A body that is arriving.
#[derive(Debug)]
pub struct Stage {
    stager: Stager,
    /// The number its file will have, if it needs one.
    id: FileId,
    hasher: Option<Hasher>,
    body: Option<Body>,
    waiting: Vec<Bytes>,
    waiting_len: usize,
    len: u64,
    expected: Option<u64>,
    /// Longest that the body may become in memory.
    memory_max: u64,
    memory: Option<OwnedSemaphorePermit>,
    /// Bytes handed over to hashing and writing.
    written: u64,
    /// What the drain takes next, while it runs.
    inbox: Arc<Mutex<Inbox>>,
    running: Option<JoinHandle<(Hasher, Result<()>)>>,
    /// While it is hashed on the way.
    member: Option<Member>,
    /// From its first byte on.
    present: Option<Present>,
}

impl Stage {
    pub(crate) fn new(
        stager: Stager,
        id: FileId,
        expected: Option<u64>,
        digests: DigestSet,
        place: Option<Body>,
    ) -> Self {
        Self {
            memory_max: stager.packed_size_max.min(STAGE_SMALL_MAX),
            memory: None,
            stager,
            id,
            hasher: Some(Hasher::new(digests)),
            body: place,
            waiting: Vec::new(),
            waiting_len: 0,
            len: 0,
            expected,
            written: 0,
            inbox: Arc::default(),
            running: None,
            member: None,
            present: None,
        }
    }

    /// Bytes taken so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no byte was taken yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the next bytes; waits while too many bodies wait for the disk.
    ///
    /// # Errors
    /// `TooLarge` beyond the expected length or 5 GiB; `Io`.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let size = self.len + bytes.len() as u64;
        let max = self.expected.unwrap_or(PUT_SIZE_MAX);
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        if self.len == 0 {
            if self.expected.is_none_or(|len| len > HASH_INLINE_MAX as u64) {
                self.present.get_or_insert_with(|| self.stager.md5.arrive());
            }
            if self.body.is_none() {
                self.keep_whole();
            }
        }
        self.len = size;
        self.waiting_len += bytes.len();
        self.waiting.push(bytes);
        let stays_small =
            self.expected.unwrap_or(self.len) <= self.memory_max && self.body.is_none();
        if self.waiting_len >= STAGE_CHUNK_SIZE && !stays_small {
            self.drain().await
        } else {
            Ok(())
        }
    }

    /// Has the body stay in memory as a whole, if it is to be packed and there is room.
    ///
    /// Not waited for: a body that stalls must not hold up the others.
    fn keep_whole(&mut self) {
        let to_be_packed = self.memory_max + 1..=self.stager.packed_size_max;
        let Some(len) = self.expected.filter(|len| to_be_packed.contains(len)) else {
            return;
        };
        let wanted = u32::try_from(len).expect("PACKED_SIZE_MAX fits");
        self.memory = Arc::clone(&self.stager.whole)
            .try_acquire_many_owned(wanted)
            .ok();
        if self.memory.is_some() {
            self.memory_max = len;
        }
    }

    /// Waits for the bytes being hashed and written.
    async fn settle(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            self.stager.md5.hurry();
            let (hasher, done) = running.await.map_err(|_| Error::Closed)?;
            self.hasher = Some(hasher);
            done?;
        }
        Ok(())
    }

    /// Hands what waits to a blocking thread, which hashes and writes it while more arrives.
    async fn drain(&mut self) -> Result<()> {
        let wanted = self.waiting_len.min(STAGE_BYTES_MAX);
        let wanted = u32::try_from(wanted).expect("STAGE_BYTES_MAX fits");
        if self.join_drain(wanted) {
            return Ok(());
        }
        self.settle().await?;
        let permit = self.acquire(wanted).await?;
        let (file, base) = self.file().await?;
        let claim = match &self.body {
            Some(Body::Place { claim, .. }) => Some(Arc::clone(claim)),
            _ => None,
        };
        let drain = Drain {
            file,
            offset: base + self.written,
            claim,
            disk: Arc::clone(&self.stager.disk),
            md5: self.stager.md5.clone(),
            inbox: Arc::clone(&self.inbox),
        };
        let chunk = self.take_waiting(permit);
        let hasher = self.hasher.take().expect("settled");
        drain.open();
        self.member.get_or_insert_with(|| drain.md5.join());
        self.running = Some(spawn_blocking(move || drain.run_blocking(hasher, chunk)));
        Ok(())
    }

    /// Adds what waits to what the running drain takes next; false if there is none, or no room.
    fn join_drain(&mut self, wanted: u32) -> bool {
        let inbox = Arc::clone(&self.inbox);
        let mut inbox = lock(&inbox);
        if !inbox.has_room(self.waiting_len) {
            return false;
        }
        let permit = Arc::clone(&self.stager.budget).try_acquire_many_owned(wanted);
        let Ok(permit) = permit else {
            return false;
        };
        inbox.put(self.take_waiting(permit));
        let is_filling = inbox.is_filling();
        drop(inbox);
        if is_filling {
            self.stager.md5.hurry();
        }
        true
    }

    /// A share of the budget.
    async fn acquire(&self, wanted: u32) -> Result<OwnedSemaphorePermit> {
        let budget = &self.stager.budget;
        if let Ok(permit) = Arc::clone(budget).try_acquire_many_owned(wanted) {
            return Ok(permit);
        }
        // Others may hold theirs until they have company.
        self.stager.md5.hurry();
        let permit = Arc::clone(budget).acquire_many_owned(wanted).await;
        permit.map_err(|_| Error::Closed)
    }

    fn take_waiting(&mut self, permit: OwnedSemaphorePermit) -> Chunk {
        let len = mem::take(&mut self.waiting_len);
        self.written += len as u64;
        Chunk {
            pieces: mem::take(&mut self.waiting),
            len,
            permit,
        }
    }

    /// The file the bytes go to, and where in it they begin.
    async fn file(&mut self) -> Result<(Arc<DiskFile>, u64)> {
        if self.body.is_none() {
            let (stager, id) = (self.stager.clone(), self.id);
            let created =
                spawn_blocking(move || FreshFile::create(&stager.layout, &stager.disk, id)).await;
            self.body = Some(Body::File(created.map_err(|_| Error::Closed)??));
        }
        match &self.body {
            Some(Body::File(fresh)) => Ok((Arc::clone(&fresh.file), 0)),
            Some(Body::Place { file, offset, .. }) => Ok((Arc::clone(file), *offset)),
            Some(Body::Memory(_)) | None => unreachable!("set above"),
        }
    }

    /// Ends the body.
    ///
    /// # Errors
    /// `InvalidRequest` if it is shorter than expected; `Io`.
    ///
    /// # Panics
    /// Never: the hasher is back when what was written has settled.
    pub async fn finish(mut self) -> Result<Staged> {
        if self.expected.is_some_and(|expected| expected != self.len) {
            return Err(Error::InvalidRequest(
                "the body is shorter than its announced length",
            ));
        }
        let in_memory = self.body.is_none() && self.len <= self.memory_max;
        if !in_memory && self.waiting_len > 0 {
            self.drain().await?;
        }
        self.settle().await?;
        let mut hasher = self.hasher.take().expect("settled");
        if in_memory {
            let bytes = mem::take(&mut self.waiting);
            let (digests, bytes) = if self.waiting_len <= HASH_INLINE_MAX {
                for piece in &bytes {
                    hasher.update(piece);
                }
                (hasher.finish(), bytes)
            } else {
                let md5 = self.stager.md5.clone();
                let update = move || {
                    hasher.update_blocking(&md5, &bytes, Haste::Soon, || ());
                    (hasher.finish(), bytes)
                };
                spawn_blocking(update).await.map_err(|_| Error::Closed)?
            };
            return Ok(Staged {
                len: self.len,
                digests,
                body: Body::Memory(bytes),
                memory: self.memory.take(),
                present: self.present.take(),
            });
        }
        let body = self.body.take().unwrap_or(Body::Memory(Vec::new()));
        Ok(Staged {
            len: self.len,
            digests: hasher.finish(),
            body,
            memory: None,
            present: self.present.take(),
        })
    }
}

/// Staging files kept for the next use, at most.
const RECYCLED_MAX: usize = 64;

/// Keeps staging files that are not needed any more, emptied, for the next use.
///
/// Making a file right after others were removed is slow on ext4: it walks the inodes freed lately.
#[derive(Debug)]
pub(crate) struct Recycler {
    disk: Arc<dyn Disk>,
    free: Mutex<Vec<(FileId, Arc<DiskFile>)>>,
}

impl Recycler {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            free: Mutex::default(),
        }
    }

    /// An empty staging file.
    pub(crate) fn take(
        self: &Arc<Self>,
        layout: &Layout,
        id: impl FnOnce() -> FileId,
    ) -> Result<StagingFile> {
        let free = lock(&self.free).pop();
        let (id, file) = if let Some(free) = free {
            free
        } else {
            let id = id();
            let path = layout.staged(id);
            (id, self.disk.create(&path).io("create", &path)?)
        };
        Ok(StagingFile {
            id,
            file,
            recycler: Some(Arc::clone(self)),
            taken: Arc::default(),
        })
    }

    fn give(&self, id: FileId, file: &Arc<DiskFile>) {
        if Arc::strong_count(file) > 1 {
            // Somebody still reads or writes it.
            return self.remove(file);
        }
        let mut free = lock(&self.free);
        if free.len() < RECYCLED_MAX && self.disk.set_len(file, 0).is_ok() {
            free.push((id, Arc::clone(file)));
        } else {
            drop(free);
            self.remove(file);
        }
    }

    fn remove(&self, file: &DiskFile) {
        if let Err(err) = self.disk.remove(&file.path) {
            tracing::warn!(path = %file.path.display(), %err, "a staging file stays until the next start");
        }
    }

    /// Removes the files that are kept.
    pub(crate) fn clear(&self) {
        for (_, file) in lock(&self.free).drain(..) {
            self.remove(&file);
        }
    }
}

/// A file that is open for writing on the mount. Dropped, its bytes are gone.
#[derive(Debug)]
pub struct StagingFile {
    pub(crate) id: FileId,
    pub(crate) file: Arc<DiskFile>,
    /// `None` of a file that has no name.
    recycler: Option<Arc<Recycler>>,
    /// Set when the file itself was published and is no staging file any more.
    taken: Arc<AtomicBool>,
}

impl StagingFile {
    /// An empty file without a name, for whom does not publish to the store; `dir` says on which
    /// file system.
    ///
    /// # Errors
    /// `Io`; `EOPNOTSUPP` where the file system has no such files (`O_TMPFILE`, open(2)).
    pub fn unnamed(dir: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = File::options();
        options.read(true).write(true).mode(0o600);
        let file = options.custom_flags(libc::O_TMPFILE).open(dir);
        let file = file.io("make a file in", dir)?;
        Ok(Self {
            id: FileId(0),
            file: Arc::new(DiskFile {
                file,
                path: dir.to_owned(),
            }),
            recycler: None,
            taken: Arc::default(),
        })
    }

    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file.file
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        if let Some(recycler) = &self.recycler
            && !self.taken.load(Ordering::Acquire)
        {
            recycler.give(self.id, &self.file);
        }
    }
}
