//! The bytes of an object in the store's own files, read so that the page cache stays as it was.
//!
//! In front of a local store the page cache is the cache, and who says `no-cache` or `no-store`
//! leaves it alone: what is in memory is copied from there and stays, what is not is read from the
//! disk and is not in memory afterwards.
//!
//! Nothing goes by the memory maps, because a page that is mapped is not dropped. The file is read
//! by a descriptor of its own, without read-ahead, with `RWF_DONTCACHE` (Linux 6.14), which drops
//! what it brought in unless somebody else wants it by then; where the file system does not know
//! that, pages that were not in memory before are dropped behind the read.

use std::fs::File;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::mapped::{FRAME_SIZE, Mapped, Piece, to_usize};
use super::status::{CacheStatus, StatusCell};
use crate::digest::{crc64, crc64_combine};
use crate::entry::Entry;
use crate::error::{Error, IoContext, Result};
use crate::rule::directive::Directive;
use crate::sys;

/// An object's bytes, and by what to read them.
#[derive(Clone, Debug)]
pub(super) struct Unkept(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    mapped: Mapped,
    directive: Directive,
    /// Of each piece, once it is read.
    files: Vec<OnceLock<File>>,
    status: StatusCell,
}

/// CRC of a piece from its start up to where it has been read.
type Checked = Option<u64>;

impl Unkept {
    pub(super) fn new(mapped: Mapped, directive: Directive) -> Self {
        let files = mapped.pieces().iter().map(|_| OnceLock::new()).collect();
        Self(Arc::new(Inner {
            mapped,
            directive,
            files,
            status: StatusCell::default(),
        }))
    }

    pub(super) fn mapped(&self) -> &Mapped {
        &self.0.mapped
    }

    pub(super) fn entry(&self) -> &Arc<Entry> {
        self.0.mapped.entry()
    }

    pub(super) fn status(&self) -> Option<CacheStatus> {
        self.0.status.get()
    }

    /// The bytes from `offset` to `end`: not none, and in the object. Blocks.
    pub(super) fn read_blocking(&self, offset: u64, end: u64) -> Result<Bytes> {
        let size = self.entry().size;
        if size <= FRAME_SIZE {
            // Read whole, so that its CRC can be checked.
            let whole = self.gather(0, size)?;
            return Ok(whole.slice(to_usize(offset)..to_usize(end)));
        }
        self.gather(offset, end)
    }

    fn gather(&self, offset: u64, end: u64) -> Result<Bytes> {
        let mut gathered = BytesMut::with_capacity(to_usize(end - offset));
        let (mut at, mut check) = (offset, None);
        while at < end {
            let (frame, checked) = self.frame(at, end, check)?;
            at += frame.len() as u64;
            check = checked;
            gathered.extend_from_slice(&frame);
        }
        Ok(gathered.freeze())
    }

    /// The next bytes from `offset`, of one piece, at most up to `end`; a piece that is read from
    /// its start to its end is checked before its last bytes are handed out.
    fn frame(&self, offset: u64, end: u64, check: Checked) -> Result<(Bytes, Checked)> {
        let index = self.0.mapped.piece_index(offset);
        let piece = &self.0.mapped.pieces()[index];
        let until = piece.end().min(end).min(offset + FRAME_SIZE);
        let bytes = self.read(index, offset, until - offset)?;
        let begins = offset == piece.start && end >= piece.end();
        let check = match check {
            _ if begins => Some(crc64(&bytes)),
            Some(so_far) => Some(crc64_combine(so_far, crc64(&bytes), until - offset)),
            None => None,
        };
        match check {
            Some(total) if until == piece.end() => piece.check(total).map(|()| (bytes, None)),
            check => Ok((bytes, check)),
        }
    }

    fn read(&self, index: usize, offset: u64, len: u64) -> Result<Bytes> {
        let piece = &self.0.mapped.pieces()[index];
        let (at, len) = (piece.position(offset), to_usize(len));
        let absent = piece.file.map.absent(at, len);
        self.note(&absent, at, len);
        let path = &piece.file.disk_file.path;
        let file = self.file(index, piece).io("open", path)?;
        let mut bytes = vec![0; len];
        let read = sys::read_unkept(file, &mut bytes, at as u64).io("read", path)?;
        if read == sys::Unkept::MayBeKept {
            for range in &absent {
                let (start, len) = (range.start as u64, (range.end - range.start) as u64);
                sys::drop_pages(file, start, len).io("drop pages of", path)?;
            }
        }
        Ok(bytes.into())
    }

    /// A descriptor of the file that nobody else reads ahead by.
    fn file(&self, index: usize, piece: &Piece) -> std::io::Result<&File> {
        let slot = &self.0.files[index];
        if let Some(file) = slot.get() {
            return Ok(file);
        }
        let file = sys::reopen(&piece.file.disk_file.file)?;
        sys::no_read_ahead(&file)?;
        Ok(slot.get_or_init(|| file))
    }

    fn note(&self, absent: &[std::ops::Range<usize>], at: usize, len: usize) {
        let missing: usize = absent.iter().map(|range| range.end - range.start).sum();
        self.0.status.note(match self.0.directive {
            Directive::Bypass => CacheStatus::Bypass,
            _ if missing == 0 => CacheStatus::Hit,
            // Pages are whole, what is read need not be.
            _ if absent[0].start <= at && missing >= len => CacheStatus::Miss,
            _ => CacheStatus::Partial,
        });
    }

    /// The bytes from `offset` to `end`, which lie in the object, as a stream.
    pub(super) fn range(&self, offset: u64, end: u64) -> UnkeptStream {
        UnkeptStream {
            content: self.clone(),
            position: offset,
            end,
            check: None,
            reading: None,
        }
    }
}

/// A range of an object's bytes, in frames of up to 1 MiB.
#[derive(Debug)]
pub(super) struct UnkeptStream {
    content: Unkept,
    position: u64,
    end: u64,
    check: Checked,
    reading: Option<JoinHandle<Result<(Bytes, Checked)>>>,
}

impl UnkeptStream {
    /// Bytes not yet handed out.
    pub(super) fn remaining(&self) -> u64 {
        self.end - self.position
    }

    /// See [`ContentStream::poll_next`](super::ContentStream::poll_next).
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if self.position == self.end {
            return Poll::Ready(None);
        }
        let (position, end, check) = (self.position, self.end, self.check);
        let reading = self.reading.get_or_insert_with(|| {
            let content = self.content.clone();
            tokio::task::spawn_blocking(move || content.frame(position, end, check))
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        match read.unwrap_or(Err(Error::Closed)) {
            Ok((frame, check)) => {
                self.position += frame.len() as u64;
                self.check = check;
                Poll::Ready(Some(Ok(frame)))
            }
            Err(err) => {
                self.position = self.end;
                Poll::Ready(Some(Err(err)))
            }
        }
    }
}
