//! Hashing and writing a body while more of it arrives.
//!
//! A drain runs on a blocking thread for as long as there are bytes to take. What arrives
//! meanwhile gathers in its [`Inbox`], and is taken in one piece: the longer hashing and writing
//! take, the fewer times they are asked for.

use std::mem;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::digest::Hasher;
use crate::disk::{Disk, DiskFile};
use crate::error::{IoContext, Result};
use crate::limits::STAGE_GATHER_MAX;
use crate::md5_pool::{Haste, Md5Pool};
use crate::multipart::Claim;
use crate::shared::lock;

/// Bytes that go to their place together.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) pieces: Vec<Bytes>,
    pub(super) len: usize,
    /// Their share of the budget.
    pub(super) permit: OwnedSemaphorePermit,
}

impl Chunk {
    fn append(&mut self, mut next: Self) {
        self.pieces.append(&mut next.pieces);
        self.len += next.len;
        self.permit.merge(next.permit);
    }
}

/// What a drain takes when it has done what it had.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Whether a drain is going to look.
    open: bool,
    next: Option<Chunk>,
}

impl Inbox {
    /// Whether so much has gathered that the drain should soon look.
    pub(super) fn is_filling(&self) -> bool {
        let gathered = self.next.as_ref().map_or(0, |next| next.len);
        gathered >= STAGE_GATHER_MAX / 2
    }

    /// Whether `len` bytes would be taken if they were put here now.
    pub(super) fn has_room(&self, len: usize) -> bool {
        let gathered = self.next.as_ref().map_or(0, |next| next.len);
        self.open && gathered + len <= STAGE_GATHER_MAX
    }

    pub(super) fn put(&mut self, chunk: Chunk) {
        match &mut self.next {
            Some(next) => next.append(chunk),
            None => self.next = Some(chunk),
        }
    }

    /// What has gathered; with nothing, the drain ends.
    fn take(&mut self) -> Option<Chunk> {
        let next = self.next.take();
        self.open = next.is_some();
        next
    }
}

/// What a drain needs to know.
#[derive(Debug)]
pub(super) struct Drain {
    pub(super) file: Arc<DiskFile>,
    /// Where in the file the next bytes go.
    pub(super) offset: u64,
    /// Held until the last byte is written.
    pub(super) claim: Option<Arc<Claim>>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) md5: Md5Pool,
    pub(super) inbox: Arc<Mutex<Inbox>>,
}

impl Drain {
    /// From here on the inbox is looked at.
    pub(super) fn open(&self) {
        lock(&self.inbox).open = true;
    }

    /// Hashes and writes a chunk, and what gathers meanwhile.
    pub(super) fn run_blocking(mut self, mut hasher: Hasher, first: Chunk) -> (Hasher, Result<()>) {
        let mut next = Some(first);
        while let Some(chunk) = next {
            if let Err(err) = self.chunk_blocking(&mut hasher, chunk) {
                mem::take(&mut *lock(&self.inbox));
                return (hasher, Err(err));
            }
            next = lock(&self.inbox).take();
        }
        drop(self.claim);
        (hasher, Ok(()))
    }

    fn chunk_blocking(&mut self, hasher: &mut Hasher, chunk: Chunk) -> Result<()> {
        let slices: Vec<&[u8]> = chunk.pieces.iter().map(AsRef::as_ref).collect();
        let write = || {
            let done = self.disk.write_at(&self.file, &slices, self.offset);
            done.io("write", &self.file.path)
        };
        let done = hasher.update_blocking(&self.md5, &chunk.pieces, Haste::Later, write);
        self.offset += chunk.len as u64;
        // Not kept until more arrives: a body that stalls must not hold up the others.
        drop(chunk.permit);
        done
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    fn chunk(budget: &Arc<Semaphore>, byte: u8) -> Chunk {
        let permit = Arc::clone(budget).try_acquire_many_owned(3);
        Chunk {
            pieces: vec![Bytes::from(vec![byte; 3])],
            len: 3,
            permit: permit.expect("the budget has that much"),
        }
    }

    #[test]
    fn an_inbox_gathers_in_order_until_nothing_is_left() {
        let budget = Arc::new(Semaphore::new(6));
        let mut inbox = Inbox::default();
        assert!(!inbox.has_room(3), "nobody looks");
        inbox.open = true;
        assert!(inbox.has_room(STAGE_GATHER_MAX));
        inbox.put(chunk(&budget, 1));
        inbox.put(chunk(&budget, 2));
        assert!(inbox.has_room(STAGE_GATHER_MAX - 6));
        assert!(!inbox.has_room(STAGE_GATHER_MAX - 5));
        let gathered = inbox.take().unwrap();
        assert_eq!(gathered.pieces.concat(), [1, 1, 1, 2, 2, 2]);
        assert_eq!(budget.available_permits(), 0, "both still count");
        assert!(inbox.has_room(3), "the drain looks again");
        assert!(inbox.take().is_none());
        assert!(!inbox.has_room(3), "it has ended");
        drop(gathered);
        assert_eq!(budget.available_permits(), 6);
    }
}
