//! An open entry of the store, read by way of the tier.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use forebay_store::content::{CacheStatus, StatusCell};
use forebay_store::error::{Error, Result};
use forebay_store::{Content, ForeignContent, ForeignRange};
use futures_util::TryStreamExt as _;

use super::{Tier, TierRead};
use crate::Directive;
use crate::disk::CompleteFile;
use crate::version::Version;

/// The file that the kernel is given to read by itself.
#[derive(Debug)]
enum Whole {
    Cached(CompleteFile),
    Stored,
}

/// An entry's bytes: the cache's where it has them, else the store's.
#[derive(Debug)]
pub struct TierContent {
    tier: Tier,
    version: Arc<Version>,
    /// The store's own.
    content: Content,
    directive: Directive,
    /// Once there is a file, it stays.
    whole: OnceLock<Whole>,
    status: StatusCell,
}

impl TierContent {
    pub(super) fn new(
        tier: &Tier,
        version: Arc<Version>,
        content: Content,
        directive: Directive,
    ) -> Self {
        Self {
            tier: tier.clone(),
            version,
            content,
            directive,
            whole: OnceLock::new(),
            status: StatusCell::default(),
        }
    }

    /// As the faces have it.
    pub fn into_content(self) -> Content {
        let entry = Arc::clone(self.content.entry());
        Content::foreign(&entry, Arc::new(self))
    }

    /// The bytes from `offset` to `end`, which lie in the object.
    pub fn read(&self, offset: u64, end: u64) -> TierRead {
        let range = (offset, end);
        TierRead::new(
            &self.tier,
            &self.version,
            &self.content,
            self.directive,
            range,
        )
    }

    /// The same for the mount, which tells what was found.
    fn read_noted(&self, offset: u64, end: u64) -> TierRead {
        let read = self.read(offset, end);
        self.status.note(read.status().into());
        read
    }

    /// Which file the kernel may read; `None` if it is to ask for the bytes, so that they get into
    /// the cache.
    fn choose(&self) -> Option<Whole> {
        if self.directive.looks()
            && let Some(file) = self.tier.0.whole.file(&self.version)
        {
            return Some(Whole::Cached(file));
        }
        let fills = self.directive.fills() && self.tier.0.cache.fills();
        (!fills).then_some(Whole::Stored)
    }
}

impl ForeignContent for TierContent {
    fn file(&self) -> Option<&File> {
        if self.whole.get().is_none()
            && let Some(whole) = self.choose()
        {
            // Another thread may have been faster: then its choice stays.
            drop(self.whole.set(whole));
        }
        // How often the kernel then reads it is not told; that it does is.
        let (file, status) = match self.whole.get()? {
            Whole::Cached(file) => (Some(&**file), CacheStatus::Hit),
            Whole::Stored => (self.content.file(), CacheStatus::Bypass),
        };
        if file.is_some() {
            self.status.note(status);
        }
        file
    }

    fn with(&self, directive: Directive) -> Option<Arc<dyn ForeignContent>> {
        let (version, content) = (Arc::clone(&self.version), self.content.clone());
        (directive != self.directive)
            .then(|| Arc::new(Self::new(&self.tier, version, content, directive)) as _)
    }

    fn status(&self) -> Option<CacheStatus> {
        self.status.get()
    }

    fn read_blocking(&self, offset: u64, end: u64) -> Result<Bytes> {
        let len = usize::try_from(end - offset)
            .map_err(|_| Error::InvalidRequest("more bytes than memory has"))?;
        self.tier
            .0
            .runtime
            .block_on(gather(self.read_noted(offset, end), len))
    }

    fn range(&self, offset: u64, end: u64) -> ForeignRange {
        Box::pin(self.read_noted(offset, end))
    }
}

/// All bytes of a read in one piece; without a copy if they come as one.
async fn gather(mut read: TierRead, len: usize) -> Result<Bytes> {
    let first = read.try_next().await?.unwrap_or_default();
    if first.len() >= len {
        return Ok(first);
    }
    let mut gathered = BytesMut::with_capacity(len);
    gathered.extend_from_slice(&first);
    while let Some(bytes) = read.try_next().await? {
        gathered.extend_from_slice(&bytes);
    }
    Ok(gathered.freeze())
}
