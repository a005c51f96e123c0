//! A remote origin as the mount's files.
//!
//! A path is looked up by asking for the object of that key and, at the same time, for the first
//! key below it, since a directory hides an object of its name. What the origin said is kept in
//! `known.rs` for [`Ages::names`]; a change that is told ([`RemoteFiles::invalidate`]) ends that at
//! once. Bytes are a [`Reader`]'s, pinned to the version that was looked up.
//!
//! A listing tells size and time of an object, but not the mode, owner and time that tools keep in
//! user metadata, unless the origin is a forebay, which tells mounts all of it. Elsewhere a
//! directory that is listed shows those of an object only if it was looked up before; looking it
//! up, which `stat` and `open` do, tells them.
//!
//! # Invariants
//! 1. What is answered was true at the origin not longer ago than [`Ages::names`], or since the
//!    last change that was told.
//! 2. An inode number stands for one version's bytes as long as this lives.
//! 3. All bytes of a content are of one version: where they can't be had any more, reading fails.

mod bucket;
mod catalog;
mod change;
mod client;
mod content;
mod directory;
mod follow;
mod known;
mod look;
mod number;
mod reader;
mod rename;
mod sequence;
mod space;
mod upload;
mod window;
mod write;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_store::api::{
    Answer, AttributeChange, Buckets, DirectoryPage, Face, Files, ListAfter, ListBuckets,
    NewBucket, Node, PublishFile, RenameMode, Usage,
};
use forebay_store::content::Content;
use forebay_store::entry::{Bucket, BucketId, Entry, FileAttributes};
use forebay_store::error::{Error, Result};
use forebay_store::event::{Feed, Subscription};
use forebay_store::name::{AccountId, BucketName, ObjectKey};
use forebay_store::stage::StagingFile;
use forebay_store::time::{Clock, Timestamp};

pub use self::catalog::{Asked, Catalog, From, Head, KeyHeads, Keys, ListKeys, Listed};
pub use self::change::{OriginChange, OriginChangeKind};
pub use self::follow::follow;
use self::known::Known;
use self::number::Numbers;
pub use self::reader::{Cached, Reader, Reading, Uncached, WholeFile};
use self::sequence::Sequences;
use self::write::Writing;
pub use self::writer::{CopyOf, NewObject, PathRename, Writer};
use crate::directive::Directive;

/// How often buckets are listed again because they change meanwhile.
const LIST_AGAIN_MAX: usize = 3;
/// The account that what is seen on the mount belongs to.
const ACCOUNT: &str = "origin";

/// How long answers are believed if no change is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// Names, attributes and listings, here.
    pub names: Duration,
    /// The same by the kernel, which gets them from here.
    pub kernel: Duration,
}

/// Where the attributes of files come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttributeSource {
    /// User metadata too: each lookup of an object costs a `HeadObject`.
    #[default]
    UserMetadata,
    /// Size and `Last-Modified` alone: what a listing has shown is not asked for again. Modes,
    /// owners, times and symbolic links that tools keep in user metadata are not seen then, nor is
    /// a stored `Cache-Control`.
    Listing,
}

/// How a remote origin is shown.
#[derive(Clone, Copy, Debug)]
pub struct RemoteConfig {
    /// What is believed while changes are not told.
    pub ages: Ages,
    /// What is believed while they are ([`RemoteFiles::follow`]).
    pub ages_followed: Ages,
    /// Where attributes come from.
    pub attributes: AttributeSource,
    /// What holds for objects whose stored `Cache-Control` does not speak.
    pub directive: Directive,
    /// Longest time for one call.
    pub deadline: Duration,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            ages: Ages {
                names: Duration::from_secs(10),
                kernel: Duration::from_secs(1),
            },
            ages_followed: Ages {
                names: Duration::from_mins(10),
                kernel: Duration::from_secs(10),
            },
            attributes: AttributeSource::default(),
            directive: Directive::default(),
            // The mount gives up after 30 seconds.
            deadline: Duration::from_secs(25),
        }
    }
}

/// Buckets that were heard of. They are never forgotten: their numbers stay.
#[derive(Debug, Default)]
struct BucketTable {
    by_name: HashMap<BucketName, Held>,
    by_id: HashMap<BucketId, BucketName>,
    /// When all were listed last.
    listed_at: Option<Timestamp>,
    /// Counts the changes of buckets that were told: an answer that was asked for before one of
    /// them may be older than it.
    generation: u64,
}

impl BucketTable {
    /// Believes nothing any more; the numbers stay.
    fn forget(&mut self) {
        self.generation += 1;
        self.listed_at = None;
        for held in self.by_name.values_mut() {
            held.seen_at = None;
        }
    }
}

#[derive(Debug)]
struct Held {
    bucket: Arc<Bucket>,
    /// When the origin said that it is there; `None` if it is not.
    seen_at: Option<Timestamp>,
}

/// Says once that the origin is gone, and once that it is back.
#[derive(Debug, Default)]
struct Health {
    gone: AtomicBool,
}

impl Health {
    /// Notes what came of something that the origin may have been asked for.
    fn note<T>(&self, done: &Result<T>) {
        if let Err(Error::OriginUnavailable(why)) = done
            && !self.gone.swap(true, Ordering::Relaxed)
        {
            tracing::error!(%why, "the origin is unavailable: what is not known or cached gives EIO");
        }
    }

    /// Notes that the origin was asked, and what it said.
    fn asked<T>(&self, answered: &Result<T>) {
        let answers = !matches!(answered, Err(Error::OriginUnavailable(_)));
        if answers && self.gone.swap(false, Ordering::Relaxed) {
            tracing::info!("the origin answers again");
        }
    }
}

/// A remote origin as files.
#[derive(Debug)]
pub struct RemoteFiles {
    config: RemoteConfig,
    catalog: Arc<dyn Catalog>,
    reader: Arc<dyn Reader>,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
    known: Arc<Known>,
    numbers: Numbers,
    buckets: Mutex<BucketTable>,
    health: Arc<Health>,
    /// `None` if nothing can be changed.
    writing: Option<Writing>,
    /// Whether changes are told.
    followed: AtomicBool,
    feed: Feed,
    /// Changes told so far; held while they are posted, so that they are in order.
    told: Mutex<u64>,
    fresh: AtomicU64,
    sequences: Arc<Sequences>,
    space: Mutex<Option<(Timestamp, Usage)>>,
}

impl RemoteFiles {
    /// Shows what `catalog` speaks of; `runtime` runs what waits.
    ///
    /// Its calls block and are for threads that no runtime drives.
    pub fn new(
        config: RemoteConfig,
        catalog: Arc<dyn Catalog>,
        reader: Arc<dyn Reader>,
        clock: Arc<dyn Clock>,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let known = Arc::new(Known::new());
        let sequences = Sequences::new(&known, &reader, config.attributes);
        Self {
            config,
            catalog,
            reader,
            clock,
            runtime,
            known,
            numbers: Numbers::new(),
            buckets: Mutex::default(),
            health: Arc::default(),
            writing: None,
            followed: AtomicBool::new(false),
            // Nobody asks it for what came after a position.
            feed: Feed::new(0),
            told: Mutex::default(),
            fresh: AtomicU64::new(0),
            sequences: Arc::new(sequences),
            space: Mutex::default(),
        }
    }

    /// Lets changes be made too, by `writer`. What is being written is staged in `staging_dir`, an
    /// existing directory that has room for it.
    #[must_use]
    pub fn writable(self, writer: Arc<dyn Writer>, staging_dir: PathBuf) -> Self {
        Self {
            writing: Some(Writing {
                writer,
                staging_dir,
            }),
            ..self
        }
    }

    fn ages(&self) -> Ages {
        if self.followed.load(Ordering::Acquire) {
            self.config.ages_followed
        } else {
            self.config.ages
        }
    }

    /// Whether what was asked for then may still be believed; not if the clock went back.
    fn is_fresh(&self, at: Timestamp) -> bool {
        let age = self.clock.now().0.checked_sub(at.0);
        let age = age.and_then(|nanos| u64::try_from(nanos).ok());
        age.is_some_and(|nanos| Duration::from_nanos(nanos) < self.ages().names)
    }

    /// Waits for the origin, at most [`RemoteConfig::deadline`].
    fn wait<T>(&self, asked: impl Future<Output = Result<T>>) -> Result<T> {
        wait(&self.runtime, self.config.deadline, &self.health, asked)
    }

    /// A page of keys.
    async fn keys(&self, list: &ListKeys) -> Result<Keys> {
        let keys = self.catalog.list(list).await;
        self.health.asked(&keys);
        keys
    }

    fn table(&self) -> MutexGuard<'_, BucketTable> {
        // What a panic left half done is a bucket that is asked for again.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bucket of a number that was given before.
    fn bucket_by_id(&self, id: BucketId) -> Result<Arc<Bucket>> {
        let table = self.table();
        let held = table
            .by_id
            .get(&id)
            .and_then(|name| table.by_name.get(name));
        held.map(|held| Arc::clone(&held.bucket))
            .ok_or_else(|| Error::IndexDamaged(format!("no bucket has the number {}", id.0)))
    }

    /// Notes that a bucket is there, or was there just now.
    fn note_bucket(&self, name: &BucketName, made_at: Option<Timestamp>) -> Arc<Bucket> {
        let now = self.clock.now();
        let mut table = self.table();
        if let Some(held) = table.by_name.get_mut(name) {
            held.seen_at = Some(now);
            return Arc::clone(&held.bucket);
        }
        let id = BucketId(table.by_id.len() as u64 + 1);
        let bucket = Arc::new(Bucket {
            id,
            name: name.clone(),
            owner: AccountId::new(ACCOUNT),
            created_at: made_at.unwrap_or(now),
            location: None,
        });
        let held = Held {
            bucket: Arc::clone(&bucket),
            seen_at: Some(now),
        };
        table.by_name.insert(name.clone(), held);
        table.by_id.insert(id, name.clone());
        bucket
    }

    /// Notes that a bucket is not there.
    fn note_no_bucket(&self, name: &BucketName) {
        if let Some(held) = self.table().by_name.get_mut(name) {
            held.seen_at = None;
        }
    }

    async fn find_bucket(&self, name: &BucketName) -> Result<Arc<Bucket>> {
        let list = ListKeys {
            bucket: name.as_str().to_owned(),
            limit: 1,
            ..ListKeys::default()
        };
        let generation = self.table().generation;
        match self.keys(&list).await {
            Ok(_) => {
                let bucket = self.note_bucket(name, None);
                if self.table().generation != generation {
                    self.note_no_bucket(name);
                }
                Ok(bucket)
            }
            Err(err) => {
                if matches!(err, Error::NoSuchBucket(_)) {
                    self.note_no_bucket(name);
                }
                Err(err)
            }
        }
    }

    /// Asks for all buckets, again if a change of them was told meanwhile.
    async fn list_buckets_anew(&self) -> Result<()> {
        for _ in 0..LIST_AGAIN_MAX {
            let asked_at = self.clock.now();
            let generation = self.table().generation;
            let found = self.catalog.buckets().await?;
            for held in self.table().by_name.values_mut() {
                held.seen_at = None;
            }
            for (name, made_at) in found {
                self.note_bucket(&name, Some(made_at));
            }
            let mut table = self.table();
            if table.generation == generation {
                table.listed_at = Some(asked_at);
                break;
            }
        }
        Ok(())
    }

    async fn all_buckets(&self, list: ListBuckets) -> Result<(Vec<Arc<Bucket>>, bool)> {
        let listed_at = self.table().listed_at;
        if !listed_at.is_some_and(|at| self.is_fresh(at)) {
            self.list_buckets_anew().await?;
        }
        let mut found: Vec<_> = {
            let table = self.table();
            let there = table.by_name.values().filter(|held| held.seen_at.is_some());
            there.map(|held| Arc::clone(&held.bucket)).collect()
        };
        found.retain(|bucket| {
            let name = bucket.name.as_str();
            let after = list.after.as_ref();
            name.starts_with(&list.prefix) && after.is_none_or(|after| name > after.as_str())
        });
        found.sort_by(|one, other| one.name.cmp(&other.name));
        let limit = list.limit.unwrap_or(usize::MAX);
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }
}

/// Waits for the origin from a thread that no runtime drives.
fn wait<T>(
    runtime: &tokio::runtime::Handle,
    deadline: Duration,
    health: &Health,
    asked: impl Future<Output = Result<T>>,
) -> Result<T> {
    let answered = runtime
        .block_on(async { tokio::time::timeout(deadline, asked).await })
        .unwrap_or_else(|_| {
            let seconds = deadline.as_secs();
            Err(Error::OriginUnavailable(format!(
                "no answer in {seconds} s"
            )))
        });
    health.note(&answered);
    answered
}

impl Buckets for RemoteFiles {
    fn create_bucket(&self, new: NewBucket) -> Answer<'_, Arc<Bucket>> {
        Box::pin(async move {
            let made = self.make_bucket(new.name).await;
            self.health.note(&made);
            made
        })
    }

    fn bucket(&self, name: &BucketName) -> Result<Arc<Bucket>> {
        let held = {
            let table = self.table();
            let held = table.by_name.get(name);
            held.and_then(|held| Some((Arc::clone(&held.bucket), held.seen_at?)))
        };
        match held {
            Some((bucket, seen_at)) if self.is_fresh(seen_at) => Ok(bucket),
            _ => self.wait(self.find_bucket(name)),
        }
    }

    fn delete_bucket(&self, name: BucketName, _: Face) -> Answer<'_, ()> {
        Box::pin(async move {
            let removed = self.remove_bucket(&name).await;
            self.health.note(&removed);
            removed
        })
    }

    fn list_buckets(&self, list: ListBuckets) -> Answer<'_, (Vec<Arc<Bucket>>, bool)> {
        Box::pin(async move {
            let answered = self.all_buckets(list).await;
            self.health.note(&answered);
            answered
        })
    }

    fn open(&self, entry: &Arc<Entry>) -> Result<Content> {
        self.open_content(entry)
    }
}

impl Files for RemoteFiles {
    fn lookup(&self, bucket: BucketId, path: &str) -> Result<Option<Node>> {
        let bucket = self.bucket_by_id(bucket)?;
        if let Some(said) = self.look_here(&bucket, path) {
            return Ok(said.node);
        }
        self.wait(self.look(&bucket, path))
    }

    fn list_directory(
        &self,
        bucket: BucketId,
        path: &str,
        after: Option<ListAfter>,
        limit: usize,
    ) -> Result<DirectoryPage> {
        let bucket = self.bucket_by_id(bucket)?;
        self.wait(self.page(&bucket, path, after.as_ref(), limit))
    }

    fn allocate_ino(&self) -> Result<u64> {
        let fresh = self.fresh.fetch_add(1, Ordering::Relaxed);
        Ok(self.numbers.fresh(fresh))
    }

    fn stage_file(&self, from: Option<&Arc<Entry>>) -> Result<StagingFile> {
        self.stage_blocking(from)
    }

    fn publish_file(&self, publish: PublishFile<'_>) -> Result<Arc<Entry>> {
        self.wait_long(self.publish(publish))
    }

    // No S3 request comes by here that could wait for what is being closed.
    fn closing(&self, _: BucketId, _: &ObjectKey) {}

    fn closed(&self, _: BucketId, _: &ObjectKey) {}

    fn set_attributes(
        &self,
        bucket: BucketId,
        path: &str,
        change: AttributeChange,
    ) -> Result<Arc<Entry>> {
        self.wait_long(self.change_attributes(bucket, path, change))
    }

    fn set_directive(
        &self,
        bucket: BucketId,
        path: &str,
        directive: Option<Directive>,
    ) -> Result<Arc<Entry>> {
        self.wait_long(self.keep_directive(bucket, path, directive))
    }

    fn make_directory(
        &self,
        bucket: BucketId,
        path: &str,
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        self.wait_long(self.new_directory(bucket, path, file))
    }

    fn remove_directory(&self, bucket: BucketId, path: &str) -> Result<()> {
        self.wait_long(self.unlink_directory(bucket, path))
    }

    fn make_node(
        &self,
        bucket: BucketId,
        path: &str,
        content: &[u8],
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        self.wait_long(self.new_node(bucket, path, content, file))
    }

    fn remove_file(&self, bucket: BucketId, path: &str) -> Result<()> {
        self.wait_long(self.unlink(bucket, path))
    }

    fn rename(&self, bucket: BucketId, from: &str, to: &str, mode: RenameMode) -> Result<()> {
        self.wait_long(self.rename_path(bucket, from, to, mode))
    }

    fn sync(&self) -> Result<()> {
        // What was answered is the origin's to keep.
        Ok(())
    }

    fn usage(&self) -> Result<Usage> {
        self.wait(self.space())
    }

    fn subscribe(&self, skip: Face) -> Subscription {
        let from = *self.told();
        self.feed.subscribe(skip, from)
    }

    fn answer_age_max(&self) -> Duration {
        self.ages().kernel
    }

    fn mount_account(&self) -> AccountId {
        AccountId::new(ACCOUNT)
    }
}
