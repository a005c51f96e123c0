//! An object's bytes, as they are read.
//!
//! Those of the store come out of memory maps, see `mapped.rs`, or past them, so that the page
//! cache stays as it was, see `unkept.rs`. Those of a remote origin come from wherever a
//! [`ForeignContent`] has them.

mod foreign;
mod mapped;
mod status;
mod unkept;

use std::fs::File;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

pub use foreign::{ForeignContent, ForeignRange};
pub use status::{CacheStatus, StatusCell};

use crate::data::OpenFile;
use crate::entry::Entry;
use crate::error::Result;
use crate::rule::directive::Directive;
use foreign::ForeignStream;
use mapped::{Mapped, MappedStream};
use unkept::{Unkept, UnkeptStream};

/// An object's bytes. They stay readable while this is held, whatever happens to the key, as far as
/// they are in the store.
#[derive(Clone, Debug)]
pub struct Content(Held);

#[derive(Clone, Debug)]
enum Held {
    Mapped(Mapped),
    Unkept(Unkept),
    Foreign(Arc<Entry>, Arc<dyn ForeignContent>),
}

impl Content {
    /// The bytes of `entry`, whose extents lie in `files`, one each.
    pub(crate) fn new(entry: &Arc<Entry>, files: Vec<Arc<OpenFile>>) -> Result<Self> {
        Mapped::new(entry, files).map(|mapped| Self(Held::Mapped(mapped)))
    }

    /// Bytes of `entry` that are not in a store.
    pub fn foreign(entry: &Arc<Entry>, bytes: Arc<dyn ForeignContent>) -> Self {
        Self(Held::Foreign(Arc::clone(entry), bytes))
    }

    /// Whose bytes these are.
    pub fn entry(&self) -> &Arc<Entry> {
        match &self.0 {
            Held::Mapped(mapped) => mapped.entry(),
            Held::Unkept(unkept) => unkept.entry(),
            Held::Foreign(entry, _) => entry,
        }
    }

    /// The same bytes, for readers who say this of the cache: of a remote origin the one that is
    /// kept of it, of the store the page cache, which those who don't fill a cache leave as it was.
    #[must_use]
    pub fn with(&self, directive: Directive) -> Self {
        match &self.0 {
            Held::Mapped(mapped) if !directive.fills() => {
                Self(Held::Unkept(Unkept::new(mapped.clone(), directive)))
            }
            Held::Unkept(unkept) if directive.fills() => {
                Self(Held::Mapped(unkept.mapped().clone()))
            }
            Held::Unkept(unkept) => {
                let mapped = unkept.mapped().clone();
                Self(Held::Unkept(Unkept::new(mapped, directive)))
            }
            Held::Mapped(_) => self.clone(),
            Held::Foreign(entry, bytes) => match bytes.with(directive) {
                Some(bytes) => Self(Held::Foreign(Arc::clone(entry), bytes)),
                None => self.clone(),
            },
        }
    }

    /// What the reads so far found in the cache. Of the store this is not looked at for those who
    /// say nothing of the cache, since it would cost a system call each time.
    pub fn status(&self) -> Option<CacheStatus> {
        match &self.0 {
            Held::Mapped(_) => None,
            Held::Unkept(unkept) => unkept.status(),
            Held::Foreign(_, bytes) => bytes.status(),
        }
    }

    /// The file that who wants no cache may read past the page cache (`O_DIRECT`); `None` if there
    /// is no such file, or if it is itself a cache's.
    pub fn uncached_file(&self) -> Option<&File> {
        match &self.0 {
            Held::Mapped(mapped) => mapped.file(),
            Held::Unkept(unkept) => unkept.mapped().file(),
            Held::Foreign(..) => None,
        }
    }

    /// The file whose bytes are exactly the object's, for the kernel to read by itself; `None` if
    /// there is no such file.
    ///
    /// It must never be written to.
    pub fn file(&self) -> Option<&File> {
        match &self.0 {
            Held::Mapped(mapped) => mapped.file(),
            // Who reads it by himself fills the page cache.
            Held::Unkept(_) => None,
            Held::Foreign(_, bytes) => bytes.file(),
        }
    }

    /// Up to `len` bytes from `offset`; fewer only at the object's end. Blocks.
    ///
    /// # Errors
    /// `Io` or `Corrupt`; of a remote origin, `Superseded` if the object changed there, or what
    /// else it says.
    pub fn read_at_blocking(&self, offset: u64, len: u64) -> Result<Bytes> {
        let end = offset.saturating_add(len).min(self.entry().size);
        if offset >= end {
            return Ok(Bytes::new());
        }
        match &self.0 {
            Held::Mapped(mapped) => mapped.read_blocking(offset, end),
            Held::Unkept(unkept) => unkept.read_blocking(offset, end),
            Held::Foreign(_, bytes) => bytes.read_blocking(offset, end),
        }
    }

    /// The bytes from `offset` to `offset + len`, which must lie in the object, as a stream.
    ///
    /// # Panics
    /// If the range does not lie in the object: callers check what clients ask for.
    pub fn range(&self, offset: u64, len: u64) -> ContentStream {
        let size = self.entry().size;
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= size),
            "a range within the object"
        );
        ContentStream(match &self.0 {
            Held::Mapped(mapped) => Flow::Mapped(mapped.range(offset, offset + len)),
            Held::Unkept(unkept) => Flow::Unkept(unkept.range(offset, offset + len)),
            Held::Foreign(_, bytes) => {
                Flow::Foreign(ForeignStream::new(bytes.range(offset, offset + len), len))
            }
        })
    }
}

/// A range of an object's bytes, in frames of up to 1 MiB.
#[derive(Debug)]
pub struct ContentStream(Flow);

#[derive(Debug)]
enum Flow {
    Mapped(MappedStream),
    Unkept(UnkeptStream),
    Foreign(ForeignStream),
}

impl ContentStream {
    /// `len` bytes that are not in a store; it fails if there are more or fewer of them.
    pub fn foreign(bytes: ForeignRange, len: u64) -> Self {
        Self(Flow::Foreign(ForeignStream::new(bytes, len)))
    }

    /// Bytes not yet handed out.
    pub fn remaining(&self) -> u64 {
        match &self.0 {
            Flow::Mapped(stream) => stream.remaining(),
            Flow::Unkept(stream) => stream.remaining(),
            Flow::Foreign(stream) => stream.remaining(),
        }
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// As [`Content::read_at_blocking`]; of what a check failed on, what was handed out before is
    /// not to be trusted.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), polled.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        match &mut self.0 {
            Flow::Mapped(stream) => stream.poll_next(cx),
            Flow::Unkept(stream) => stream.poll_next(cx),
            Flow::Foreign(stream) => stream.poll_next(cx),
        }
    }
}
