//! One read by way of the tier.

use std::ops::Range;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_store::digest::{crc64, crc64_combine};
use forebay_store::entry::Entry;
use forebay_store::error::{Error, Result};
use forebay_store::{Buckets as _, Content, ContentStream, Store};
use futures_core::Stream;
use futures_util::stream;

use super::{Tier, plain};
use crate::Directive;
use crate::fetch::{Read, Status};
use crate::source::{Chunks, FetchError, Fetching, Source};
use crate::version::Version;

/// Brings bytes out of the store's data files that are open.
#[derive(Debug)]
struct OpenSource(Content);

/// The same of an entry that nobody has open: many of those may wait, and each open one is a
/// descriptor.
#[derive(Debug)]
struct NamedSource(Store, Arc<Entry>);

/// What brings the bytes of an open content.
pub(super) fn source(content: Content) -> Arc<dyn Source> {
    Arc::new(OpenSource(content))
}

/// What brings the bytes of an entry, as long as they are in the store.
pub(super) fn source_of(store: &Store, entry: &Arc<Entry>) -> Arc<dyn Source> {
    Arc::new(NamedSource(store.clone(), Arc::clone(entry)))
}

fn fetch(content: &Content, range: &Range<u64>) -> Chunks {
    let bytes = plain(content, range.start, range.end);
    let chunks = stream::unfold(bytes, async |mut bytes| {
        let next = bytes.next().await?;
        // Whoever reads gets the store's own word, see `TierRead`.
        let next = next.map_err(|err| FetchError::Unavailable(err.to_string()));
        Some((next, bytes))
    });
    Box::pin(chunks)
}

impl Source for OpenSource {
    fn fetch(&self, _: &Arc<Version>, range: Range<u64>) -> Fetching {
        Box::pin(std::future::ready(Ok(fetch(&self.0, &range))))
    }
}

impl Source for NamedSource {
    fn fetch(&self, _: &Arc<Version>, range: Range<u64>) -> Fetching {
        let opened = self.0.open(&self.1).map_err(|err| match err {
            Error::Superseded(_) => FetchError::Changed,
            err => FetchError::Unavailable(err.to_string()),
        });
        let chunks = opened.map(|content| fetch(&content, &range));
        Box::pin(std::future::ready(chunks))
    }
}

/// Where the bytes come from.
#[derive(Debug)]
enum From {
    Cache(Box<Read>),
    Store(ContentStream),
    /// There are none any more.
    Nowhere,
}

/// A range of an entry's bytes, in frames of up to 1 MiB. Dropping it ends the read.
#[derive(Debug)]
pub struct TierRead {
    tier: Tier,
    version: Arc<Version>,
    content: Content,
    status: Status,
    from: From,
    position: u64,
    end: u64,
    /// CRC of all before `position`, while all of a body is read that was not checked before.
    check: Option<u64>,
}

impl TierRead {
    /// A read of the bytes from `position` to `end`, which lie in the object.
    pub(super) fn new(
        tier: &Tier,
        version: &Arc<Version>,
        content: &Content,
        directive: Directive,
        (position, end): (u64, u64),
    ) -> Self {
        let source = source(content.clone());
        let range = position..end;
        let read = tier.0.cache.read(version, source, directive, range);
        let entry = content.entry();
        let whole = position == 0 && end == entry.size && end > 0;
        let unseen = whole && !entry.is_verified() && entry.crc64().is_some();
        Self {
            tier: tier.clone(),
            version: Arc::clone(version),
            content: content.clone(),
            status: read.status(),
            from: From::Cache(Box::new(read)),
            position,
            end,
            check: unseen.then_some(0),
        }
    }

    /// How much of the range was in the cache when the read began.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// The store's, as [`ContentStream::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            let next = match &mut self.from {
                From::Nowhere => return Poll::Ready(None),
                From::Store(bytes) => ready!(bytes.poll_next(cx)),
                From::Cache(read) => match ready!(read.poll_next(cx)) {
                    Some(Ok(bytes)) => Some(Ok(bytes)),
                    Some(Err(err)) => {
                        let key = &self.version.key;
                        tracing::debug!(key, %err, "a read goes on past the cache");
                        let rest = plain(&self.content, self.position, self.end);
                        self.from = From::Store(rest);
                        continue;
                    }
                    None => None,
                },
            };
            let next = next.map(|next| next.and_then(|bytes| self.take(bytes)));
            if !matches!(next, Some(Ok(_))) {
                self.from = From::Nowhere;
            }
            return Poll::Ready(next);
        }
    }

    /// Counts bytes in. The last ones of a whole body are given only if its CRC holds.
    fn take(&mut self, bytes: Bytes) -> Result<Bytes> {
        let Some(before) = self.check else {
            self.position += bytes.len() as u64;
            return Ok(bytes);
        };
        let crc = match self.position {
            0 => crc64(&bytes),
            _ => crc64_combine(before, crc64(&bytes), bytes.len() as u64),
        };
        self.check = Some(crc);
        self.position += bytes.len() as u64;
        if self.position < self.end {
            return Ok(bytes);
        }
        let entry = self.content.entry();
        let expected = entry.crc64().unwrap_or(crc);
        if expected == crc {
            entry.note_verified();
            return Ok(bytes);
        }
        self.discard();
        Err(Error::Corrupt {
            path: PathBuf::from(&self.version.bucket).join(entry.key.as_str()),
            offset: 0,
            len: entry.size,
            expected,
            found: crc,
        })
    }

    /// Forgets bytes that were wrong when they were brought in.
    fn discard(&self) {
        let (cache, version) = (self.tier.0.cache.clone(), Arc::clone(&self.version));
        let discard = move || cache.discard_blocking(&version);
        // Not waited for: whoever reads meanwhile finds the same out.
        drop(self.tier.0.runtime.spawn_blocking(discard));
    }
}

impl Stream for TierRead {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Self::poll_next(self.get_mut(), cx)
    }
}
