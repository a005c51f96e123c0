//! Bytes on their way in.
//!
//! A body is hashed and written while it arrives. A small one stays in memory until the committer
//! appends it to a segment. A large one goes to a file of its own, at its final place; nothing
//! refers to that file until it is published, and it is removed if it never is.

use std::fs::File;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::data::Layout;
use crate::digest::{DigestSet, Digests, Hasher};
use crate::disk::{Disk, DiskFile};
use crate::entry::FileId;
use crate::error::{Error, IoContext, Result};
use crate::limits::{PUT_SIZE_MAX, STAGE_BYTES_MAX, STAGE_CHUNK_SIZE};
use crate::md5_pool::{HASH_INLINE_MAX, Md5Pool};
use crate::multipart::Claim;
use crate::shared::lock;

/// A new data file that is removed unless it is published.
#[derive(Debug)]
pub(crate) struct FreshFile {
    pub(crate) id: FileId,
    pub(crate) file: Arc<DiskFile>,
    disk: Arc<dyn Disk>,
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
            published: false,
        })
    }

    /// Takes in a file that was written under another name.
    pub(crate) fn adopt(id: FileId, file: Arc<DiskFile>, disk: &Arc<dyn Disk>) -> Self {
        Self {
            id,
            file,
            disk: Arc::clone(disk),
            published: false,
        }
    }

    /// From here the index refers to it.
    pub(crate) fn publish(&mut self) {
        self.published = true;
    }
}

impl Drop for FreshFile {
    fn drop(&mut self) {
        if !self.published
            && let Err(err) = self.disk.remove(&self.file.path)
        {
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
}

/// Makes stages.
#[derive(Debug, Clone)]
pub(crate) struct Stager {
    pub(crate) layout: Layout,
    pub(crate) disk: Arc<dyn Disk>,
    /// Bounds the bytes that wait in memory, in units of one byte.
    pub(crate) budget: Arc<Semaphore>,
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
    /// Bytes handed over to hashing and writing.
    written: u64,
    running: Option<JoinHandle<(Hasher, Result<()>)>>,
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
            stager,
            id,
            hasher: Some(Hasher::new(digests)),
            body: place,
            waiting: Vec::new(),
            waiting_len: 0,
            len: 0,
            expected,
            written: 0,
            running: None,
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
        self.len = size;
        self.waiting_len += bytes.len();
        self.waiting.push(bytes);
        let stays_small =
            self.expected.unwrap_or(self.len) <= self.stager.packed_size_max && self.body.is_none();
        if self.waiting_len >= STAGE_CHUNK_SIZE && !stays_small {
            self.drain().await
        } else {
            Ok(())
        }
    }

    /// Waits for the bytes being hashed and written.
    async fn settle(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            let (hasher, done) = running.await.map_err(|_| Error::Closed)?;
            self.hasher = Some(hasher);
            done?;
        }
        Ok(())
    }

    /// Hands what waits to a blocking thread, which hashes and writes it while more arrives.
    async fn drain(&mut self) -> Result<()> {
        self.settle().await?;
        let wanted = self.waiting_len.min(STAGE_BYTES_MAX);
        let wanted = u32::try_from(wanted).expect("STAGE_BYTES_MAX fits");
        let budget = Arc::clone(&self.stager.budget);
        let permit = budget.acquire_many_owned(wanted).await;
        let permit = permit.map_err(|_| Error::Closed)?;
        let (file, base) = self.file().await?;
        let bytes = mem::take(&mut self.waiting);
        let mut hasher = self.hasher.take().expect("settled");
        let claim = match &self.body {
            Some(Body::Place { claim, .. }) => Some(Arc::clone(claim)),
            _ => None,
        };
        let offset = base + self.written;
        self.written += self.waiting_len as u64;
        self.waiting_len = 0;
        let (disk, md5) = (Arc::clone(&self.stager.disk), self.stager.md5.clone());
        self.running = Some(spawn_blocking(move || {
            let slices: Vec<&[u8]> = bytes.iter().map(AsRef::as_ref).collect();
            let done = hasher.update_blocking(&md5, &bytes, || {
                disk.write_at(&file, &slices, offset)
                    .io("write", &file.path)
            });
            // Not kept until more arrives: a body that stalls must not hold up the others.
            drop((permit, claim));
            (hasher, done)
        }));
        Ok(())
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
        let in_memory = self.body.is_none() && self.len <= self.stager.packed_size_max;
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
                    hasher.update_blocking(&md5, &bytes, || ());
                    (hasher.finish(), bytes)
                };
                spawn_blocking(update).await.map_err(|_| Error::Closed)?
            };
            return Ok(Staged {
                len: self.len,
                digests,
                body: Body::Memory(bytes),
            });
        }
        let body = self.body.take().unwrap_or(Body::Memory(Vec::new()));
        Ok(Staged {
            len: self.len,
            digests: hasher.finish(),
            body,
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
            recycler: Arc::clone(self),
            taken: AtomicBool::new(false),
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
    recycler: Arc<Recycler>,
    /// Set when the file itself was published and is no staging file any more.
    taken: AtomicBool,
}

impl StagingFile {
    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file.file
    }

    /// From here the file is a data file.
    pub(crate) fn take(&self) {
        self.taken.store(true, Ordering::Release);
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        if !self.taken.load(Ordering::Acquire) {
            self.recycler.give(self.id, &self.file);
        }
    }
}
