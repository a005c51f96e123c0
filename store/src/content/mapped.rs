//! The bytes of an object in the store's own files.
//!
//! Bytes come out of memory maps, without a copy. A range that is not in memory is brought in by
//! a blocking thread first, so no async worker waits on a page fault and a disk error is an error.
//! An extent that is read whole, and was not in memory or not yet looked at since the store was
//! opened, is checked against its CRC; its last bytes are handed out only when that holds.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use crate::data::OpenFile;
use crate::digest::{crc64, crc64_combine};
use crate::entry::{Entry, Extent};
use crate::error::{Error, IoContext, Result};

/// Bytes handed out at a time.
pub(super) const FRAME_SIZE: u64 = 1 << 20;
/// Bytes brought into memory at a time.
const WINDOW_SIZE: u64 = 4 << 20;

/// A run of an object's bytes in one file.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    /// Where it begins in the object.
    pub(super) start: u64,
    extent: Extent,
    pub(super) file: Arc<OpenFile>,
}

impl Piece {
    /// Where it ends in the object.
    pub(super) fn end(&self) -> u64 {
        self.start + self.extent.len
    }

    /// Where in the map the object's byte `offset` is.
    pub(super) fn position(&self, offset: u64) -> usize {
        usize::try_from(self.extent.offset + (offset - self.start))
            .expect("a map is no longer than memory")
    }

    fn slice(&self, offset: u64, len: u64) -> Bytes {
        let at = self.position(offset);
        self.file.bytes.slice(at..at + to_usize(len))
    }

    fn populate(&self, offset: u64, len: u64) -> Result<()> {
        self.file
            .map
            .populate(self.position(offset), to_usize(len))
            .io("read", &self.file.disk_file.path)
    }

    fn is_resident(&self, offset: u64, len: u64) -> bool {
        self.file
            .map
            .is_resident(self.position(offset), to_usize(len))
    }

    /// Compares the CRC that was found with the one on record, if there is one.
    pub(super) fn check(&self, found: u64) -> Result<()> {
        match self.extent.crc64 {
            Some(expected) if expected != found => Err(Error::Corrupt {
                path: self.file.disk_file.path.clone(),
                offset: self.extent.offset,
                len: self.extent.len,
                expected,
                found,
            }),
            _ => Ok(()),
        }
    }
}

pub(super) fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("lengths of mapped bytes fit")
}

/// An object's bytes in maps of its files.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    entry: Arc<Entry>,
    pieces: Arc<[Piece]>,
}

impl Mapped {
    /// The bytes of `entry`, whose extents lie in `files`, one each.
    pub(super) fn new(entry: &Arc<Entry>, files: Vec<Arc<OpenFile>>) -> Result<Self> {
        let mut start = 0;
        let mut pieces = Vec::with_capacity(files.len());
        for (extent, file) in entry.extents.iter().zip(files) {
            if extent
                .offset
                .checked_add(extent.len)
                .is_none_or(|end| end > file.map.len() as u64)
            {
                let path = file.disk_file.path.display();
                return Err(Error::IndexDamaged(format!(
                    "{path}: an extent lies beyond the end of the file"
                )));
            }
            pieces.push(Piece {
                start,
                extent: *extent,
                file,
            });
            start += extent.len;
        }
        if start != entry.size {
            return Err(Error::IndexDamaged(format!(
                "{}: extents of {start} bytes, size {}",
                entry.key, entry.size
            )));
        }
        Ok(Self {
            entry: Arc::clone(entry),
            pieces: pieces.into(),
        })
    }

    /// Whose bytes these are.
    pub(super) fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// See [`Content::file`](super::Content::file).
    pub(super) fn file(&self) -> Option<&std::fs::File> {
        let [piece] = &*self.pieces else { return None };
        let whole = !piece.extent.packed
            && piece.extent.offset == 0
            && piece.file.map.len() as u64 == piece.extent.len;
        whole.then_some(&piece.file.disk_file.file)
    }

    /// The bytes from `offset` to `end`: not none, and in the object. Blocks.
    pub(super) fn read_blocking(&self, offset: u64, end: u64) -> Result<Bytes> {
        self.verify_small()?;
        let first = self.piece_at(offset);
        if end <= first.end() {
            first.populate(offset, end - offset)?;
            return Ok(first.slice(offset, end - offset));
        }
        let mut gathered = BytesMut::with_capacity(to_usize(end - offset));
        let mut at = offset;
        while at < end {
            let piece = self.piece_at(at);
            let until = piece.end().min(end);
            piece.populate(at, until - at)?;
            gathered.extend_from_slice(&piece.slice(at, until - at));
            at = until;
        }
        Ok(gathered.freeze())
    }

    /// Checks an object of one frame or less, once.
    fn verify_small(&self) -> Result<()> {
        if self.entry.size > FRAME_SIZE || self.entry.verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        for piece in self.pieces.iter() {
            piece.populate(piece.start, piece.extent.len)?;
            piece.check(crc64(&piece.slice(piece.start, piece.extent.len)))?;
        }
        self.entry.verified.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The bytes from `offset` to `end`, which lie in the object, as a stream.
    pub(super) fn range(&self, offset: u64, end: u64) -> MappedStream {
        MappedStream {
            content: self.clone(),
            position: offset,
            end,
            warm_until: offset,
            check: None,
            filling: None,
        }
    }

    /// The bytes in their order.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Which piece a byte of the object is in.
    pub(super) fn piece_index(&self, offset: u64) -> usize {
        self.pieces.partition_point(|piece| piece.end() <= offset)
    }

    fn piece_at(&self, offset: u64) -> &Piece {
        &self.pieces[self.piece_index(offset)]
    }
}

/// A range of an object's bytes, in frames of up to 1 MiB.
#[derive(Debug)]
pub(super) struct MappedStream {
    content: Mapped,
    position: u64,
    end: u64,
    /// Bytes before this are in memory as far as we know.
    warm_until: u64,
    /// CRC of the piece being checked, from its start to `warm_until`.
    check: Option<u64>,
    filling: Option<JoinHandle<Result<Filled>>>,
}

/// What a blocking thread brought in.
#[derive(Debug)]
struct Filled {
    until: u64,
    check: Option<u64>,
}

impl MappedStream {
    /// Bytes not yet handed out.
    pub(super) fn remaining(&self) -> u64 {
        self.end - self.position
    }

    /// See [`ContentStream::poll_next`](super::ContentStream::poll_next).
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.position == self.end {
            return Poll::Ready(None);
        }
        if let Some(filling) = &mut self.filling {
            let Poll::Ready(joined) = Pin::new(filling).poll(cx) else {
                return Poll::Pending;
            };
            self.filling = None;
            match joined.unwrap_or(Err(Error::Closed)) {
                Ok(filled) => (self.warm_until, self.check) = (filled.until, filled.check),
                Err(err) => {
                    self.position = self.end;
                    return Poll::Ready(Some(Err(err)));
                }
            }
        }
        let index = self.content.piece_index(self.position);
        let piece = &self.content.pieces[index];
        let until = piece.end().min(self.end).min(self.position + FRAME_SIZE);
        if self.warm_until >= until || self.is_warm(piece, until) {
            let frame = piece.slice(self.position, until - self.position);
            self.position = until;
            return Poll::Ready(Some(Ok(frame)));
        }
        self.fill(index);
        self.poll_next(cx)
    }

    /// Whether the frame up to `until` can be handed out as it is.
    fn is_warm(&self, piece: &Piece, until: u64) -> bool {
        let begins = self.position == piece.start;
        let unseen = begins
            && !self.content.entry.verified.load(Ordering::Relaxed)
            && self.end >= piece.end();
        self.check.is_none() && !unseen && piece.is_resident(self.position, until - self.position)
    }

    /// Has a blocking thread bring in the next window, and check the piece if all of it is read.
    fn fill(&mut self, index: usize) {
        let content = self.content.clone();
        let piece = &content.pieces[index];
        let (from, end) = (self.position.max(self.warm_until), self.end);
        let until = piece.end().min(end).min(from + WINDOW_SIZE);
        let whole = from == piece.start && end >= piece.end();
        let check = self.check.or(whole.then_some(0));
        self.filling = Some(tokio::task::spawn_blocking(move || {
            let piece = &content.pieces[index];
            piece.populate(from, until - from)?;
            let mut check = check;
            if let Some(so_far) = check {
                let crc = crc64(&piece.slice(from, until - from));
                let total = if from == piece.start {
                    crc
                } else {
                    crc64_combine(so_far, crc, until - from)
                };
                check = Some(total);
                if until == piece.end() {
                    piece.check(total)?;
                    if until == content.entry.size && content.pieces.len() == 1 {
                        content.entry.verified.store(true, Ordering::Relaxed);
                    }
                    check = None;
                }
            }
            Ok(Filled { until, check })
        }));
    }
}
