//! An open version of a remote origin.

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_store::content::{CacheStatus, Content, ForeignContent, ForeignRange, StatusCell};
use forebay_store::entry::Entry;
use forebay_store::error::{Error, Result};
use forebay_store::name::ObjectKey;
use futures_util::TryStreamExt as _;

use super::known::{Known, Place};
use super::look::parent_of;
use super::reader::{Reader, Reading, WholeFile};
use super::sequence::{Sequences, says_nothing};
use super::{Health, RemoteFiles, wait};
use crate::directive::Directive;
use crate::source::{Chunks, FetchError};
use crate::version::Version;

/// The bytes of one version.
#[derive(Debug)]
struct RemoteContent {
    version: Arc<Version>,
    key: ObjectKey,
    place: Place,
    directive: Directive,
    reader: Arc<dyn Reader>,
    /// Once there is a file, it is held.
    whole: OnceLock<Box<dyn WholeFile>>,
    status: StatusCell,
    /// Whose readers are followed through the directory; `None` if they are not, or are already.
    sequences: Mutex<Option<Arc<Sequences>>>,
    known: Arc<Known>,
    health: Arc<Health>,
    runtime: tokio::runtime::Handle,
    deadline: Duration,
}

impl RemoteFiles {
    /// Opens the bytes of an entry that was looked up here.
    pub(super) fn open_content(&self, entry: &Arc<Entry>) -> Result<Content> {
        let origin = entry.origin.as_deref().ok_or_else(|| {
            Error::IndexDamaged(format!("{} is not of a remote origin", entry.key))
        })?;
        let bucket = self.bucket_by_id(entry.bucket)?;
        let version = Version {
            bucket: bucket.name.as_str().to_owned(),
            key: entry.key.as_str().to_owned(),
            etag: origin.etag.clone(),
            version_id: origin.version_id.clone(),
            size: entry.size,
        };
        let content = RemoteContent {
            version: Arc::new(version),
            key: entry.key.clone(),
            place: (entry.bucket, entry.key.as_str().into()),
            directive: self.directive_of(entry),
            reader: Arc::clone(&self.reader),
            whole: OnceLock::new(),
            status: StatusCell::default(),
            sequences: Mutex::new(says_nothing(entry).then(|| Arc::clone(&self.sequences))),
            known: Arc::clone(&self.known),
            health: Arc::clone(&self.health),
            runtime: self.runtime.clone(),
            deadline: self.config.deadline,
        };
        Ok(Content::foreign(entry, Arc::new(content)))
    }

    /// What is kept with the object, else what its stored `Cache-Control` says, else the mount's
    /// own word. The mount asks its directories too, and says what comes of it
    /// ([`Content::with`]).
    fn directive_of(&self, entry: &Entry) -> Directive {
        if let Some(kept) = Directive::kept_in(&entry.attributes.user_metadata) {
            return kept;
        }
        match Directive::parse(entry.attributes.headers.cache_control.as_deref()) {
            Directive::Use => self.config.directive,
            stored => stored,
        }
    }
}

/// What the mount is told of a failure to read.
fn refused(key: &ObjectKey, err: FetchError) -> Error {
    match err {
        FetchError::Changed => Error::Superseded(key.clone()),
        FetchError::Denied(why) => Error::OriginDenied(why),
        FetchError::Unavailable(why) => Error::OriginUnavailable(why),
        FetchError::Corrupt(why) => Error::OriginAnswer(why),
    }
}

impl RemoteContent {
    fn sequences(&self) -> MutexGuard<'_, Option<Arc<Sequences>>> {
        self.sequences
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note, once, that somebody reads it.
    fn note_reader(&self) {
        if !self.directive.fills() {
            return;
        }
        let sequences = self.sequences().take();
        if let Some(sequences) = sequences {
            sequences.note(&self.place, &self.version);
        }
    }

    fn reading(&self, offset: u64, end: u64) -> Reading {
        self.note_reader();
        let reading = self.reader.read(&self.version, self.directive, offset..end);
        self.status.note(reading.status);
        reading
    }

    /// All bytes of a range in one piece; without a copy if they come as one.
    async fn gather(&self, mut chunks: Chunks, len: usize) -> Result<Bytes> {
        let refused = |err| refused(&self.key, err);
        let first = chunks.try_next().await.map_err(refused)?;
        let first = first.unwrap_or_default();
        if first.len() == len {
            return Ok(first);
        }
        let mut gathered = BytesMut::with_capacity(len);
        gathered.extend_from_slice(&first);
        while let Some(chunk) = chunks.try_next().await.map_err(refused)? {
            gathered.extend_from_slice(&chunk);
        }
        if gathered.len() == len {
            Ok(gathered.freeze())
        } else {
            let found = gathered.len();
            Err(Error::OriginAnswer(format!(
                "{found} bytes of {} instead of {len}",
                self.key
            )))
        }
    }
}

impl ForeignContent for RemoteContent {
    fn file(&self) -> Option<&File> {
        if !self.directive.looks() {
            return None;
        }
        if self.whole.get().is_none()
            && let Some(file) = self.reader.whole_file(&self.version)
        {
            self.status.note(CacheStatus::Hit);
            self.note_reader();
            return Some(self.whole.get_or_init(|| file).file());
        }
        self.whole.get().map(|whole| whole.file())
    }

    fn with(&self, directive: Directive) -> Option<Arc<dyn ForeignContent>> {
        Some(Arc::new(Self {
            version: Arc::clone(&self.version),
            key: self.key.clone(),
            place: self.place.clone(),
            directive,
            reader: Arc::clone(&self.reader),
            whole: OnceLock::new(),
            status: StatusCell::default(),
            sequences: Mutex::new(self.sequences().clone()),
            known: Arc::clone(&self.known),
            health: Arc::clone(&self.health),
            runtime: self.runtime.clone(),
            deadline: self.deadline,
        }))
    }

    fn status(&self) -> Option<CacheStatus> {
        self.status.get()
    }

    fn read_blocking(&self, offset: u64, end: u64) -> Result<Bytes> {
        let len = usize::try_from(end - offset)
            .map_err(|_| Error::InvalidRequest("more bytes than memory has"))?;
        let read = async {
            let reading = self.reading(offset, end);
            self.gather(reading.chunks, len).await
        };
        let read = wait(&self.runtime, self.deadline, &self.health, read);
        if let Err(Error::Superseded(_)) = &read {
            // Whoever opens it next gets the version that took its place.
            let directory = (self.place.0, parent_of(&self.place.1).into());
            self.known.forget(&self.place);
            self.known.forget_window(&directory);
        }
        read
    }

    fn range(&self, offset: u64, end: u64) -> ForeignRange {
        if offset == end {
            return Box::pin(futures_util::stream::empty());
        }
        let key = self.key.clone();
        let chunks = self.reading(offset, end).chunks;
        Box::pin(chunks.map_err(move |err| refused(&key, err)))
    }
}
