//! A store on a test's disk, called without ceremony.

use std::future::poll_fn;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;

use bytes::Bytes;
use forebay_store::api::{
    Buckets, Complete, CompletedPart, Copy, CopyPart, Delete, Deleted, DirectoryItem, Durability,
    Face, Files, List, ListItem, NewBucket, NewUpload, Node, Objects, Publish, PublishFile,
    PublishPart,
};
use forebay_store::digest::DigestSet;
use forebay_store::disk::Disk;
use forebay_store::entry::{Attributes, BucketId, Entry, FileAttributes, Upload};
use forebay_store::error::{Error, Result};
use forebay_store::name::{AccountId, BucketName, ObjectKey};
use forebay_store::rule::precondition::Precondition;
use forebay_store::stage::Staged;
use forebay_store::time::{Clock, Timestamp};
use forebay_store::{Store, StoreOptions};
use tokio::runtime::Runtime;

use crate::sim::SimDisk;

/// Largest object that these stores pack, in bytes: small, so that tests are fast.
pub(crate) const PACKED: usize = 4 << 10;
/// Size of these stores' segments, in bytes.
pub(crate) const SEGMENT: u64 = 16 << 10;

/// A clock that goes on by a millisecond each time it is looked at.
#[derive(Debug, Default)]
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        const START: i64 = 1_700_000_000_000_000_000;
        Timestamp(START + self.0.fetch_add(1_000_000, Ordering::Relaxed))
    }
}

/// An open store with one bucket.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) bucket: BucketId,
    owner: AccountId,
    runtime: Runtime,
}

impl Bench {
    /// Opens the store on a simulated disk.
    pub(crate) fn on(disk: &SimDisk) -> Result<Self> {
        Self::open(&disk.root().join("data"), Arc::new(disk.clone()))
    }

    /// Opens the store in `data`, and its bucket, made if it is not there.
    pub(crate) fn open(data: &Path, disk: Arc<dyn Disk>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("threads can be made");
        let store = Store::open(StoreOptions {
            segment_size: SEGMENT,
            packed_size_max: PACKED as u64,
            disk,
            clock: Arc::new(Ticking::default()),
            ..StoreOptions::new(data)
        })?;
        let owner = store.mount_account();
        let name = BucketName::parse("bucket").expect("a valid name");
        let bucket = match store.bucket(&name) {
            Ok(bucket) => bucket,
            Err(Error::NoSuchBucket(_)) => runtime.block_on(store.create_bucket(NewBucket {
                name,
                owner: owner.clone(),
                location: None,
                face: Face::S3,
            }))?,
            Err(err) => return Err(err),
        };
        let bucket = bucket.id;
        Ok(Self {
            store,
            bucket,
            owner,
            runtime,
        })
    }

    /// Closes the store as a program does that is told to stop.
    pub(crate) fn close(self) -> Result<()> {
        self.store.close()
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    async fn stage(&self, bytes: &[u8]) -> Result<Staged> {
        let len = Some(bytes.len() as u64);
        let mut stage = self.store.stage(len, DigestSet::MD5).await?;
        for piece in bytes.chunks(3000) {
            stage.write(Bytes::copy_from_slice(piece)).await?;
        }
        stage.finish().await
    }

    async fn put_async(
        &self,
        key: &str,
        bytes: &[u8],
        precondition: Precondition,
        durability: Durability,
    ) -> Result<Arc<Entry>> {
        let staged = self.stage(bytes).await?;
        let publish = Publish {
            bucket: self.bucket,
            key: ObjectKey::parse(key)?,
            staged,
            attributes: Attributes::default(),
            checksum: None,
            owner: self.owner.clone(),
            precondition,
            durability,
        };
        self.store.publish(publish).await
    }

    pub(crate) fn put_if(
        &self,
        key: &str,
        bytes: &[u8],
        precondition: Precondition,
    ) -> Result<Arc<Entry>> {
        self.run(self.put_async(key, bytes, precondition, Durability::Durable))
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) -> Result<Arc<Entry>> {
        self.put_if(key, bytes, Precondition::NONE)
    }

    pub(crate) fn put_deferred(&self, key: &str, bytes: &[u8]) -> Result<Arc<Entry>> {
        self.run(self.put_async(key, bytes, Precondition::NONE, Durability::Deferred))
    }

    /// Puts of several keys at the same time; their answers.
    pub(crate) fn put_together(&self, puts: &[(&str, Option<Vec<u8>>)]) -> Vec<Result<Arc<Entry>>> {
        let all = puts.iter().map(|(key, bytes)| {
            let bytes = bytes.as_deref().unwrap_or_default();
            self.put_async(key, bytes, Precondition::NONE, Durability::Durable)
        });
        self.run(join_all(all))
    }

    /// The current entry; `None` if there is no such key.
    pub(crate) fn head(&self, key: &str) -> Result<Option<Arc<Entry>>> {
        let key = ObjectKey::parse(key)?;
        match self.run(self.store.head(self.bucket, &key, None)) {
            Ok(entry) => Ok(Some(entry)),
            Err(Error::NoSuchKey(_)) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// The bytes from `offset` on, at most `len` of them.
    pub(crate) fn read(&self, entry: &Arc<Entry>, offset: u64, len: u64) -> Result<Vec<u8>> {
        let len = len.min(entry.size.saturating_sub(offset));
        let content = self.store.open(entry)?;
        self.run(async {
            let mut stream = content.range(offset.min(entry.size), len);
            let mut bytes = Vec::new();
            while let Some(frame) = stream.next().await {
                let frame: Bytes = frame?;
                bytes.extend_from_slice(&frame);
            }
            Ok(bytes)
        })
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.head(key)? else {
            return Ok(None);
        };
        let bytes = self.read(&entry, 0, u64::MAX)?;
        let again = self.store.open(&entry)?.read_at_blocking(0, u64::MAX)?;
        assert_eq!(bytes, again, "both ways of reading {key}");
        Ok(Some(bytes))
    }

    pub(crate) fn delete(&self, key: &str) -> Result<Deleted> {
        self.run(self.store.delete(Delete {
            bucket: self.bucket,
            key: ObjectKey::parse(key)?,
            version: None,
            precondition: Precondition::NONE,
        }))
    }

    pub(crate) fn copy(&self, source: &Arc<Entry>, key: &str) -> Result<Arc<Entry>> {
        self.run(self.store.copy(Copy {
            source: Arc::clone(source),
            bucket: self.bucket,
            key: ObjectKey::parse(key)?,
            attributes: source.attributes.clone(),
            checksum: source.checksum.clone(),
            owner: self.owner.clone(),
            precondition: Precondition::NONE,
        }))
    }

    pub(crate) fn create_upload(&self, key: &str) -> Result<Arc<Upload>> {
        self.run(self.store.create_upload(NewUpload {
            bucket: self.bucket,
            key: ObjectKey::parse(key)?,
            attributes: Attributes::default(),
            checksum: None,
            owner: self.owner.clone(),
        }))
    }

    /// Takes in a part's body.
    pub(crate) fn stage_part(
        &self,
        upload: &Arc<Upload>,
        number: u16,
        bytes: &[u8],
    ) -> Result<Staged> {
        let len = Some(bytes.len() as u64);
        self.run(async {
            let stage = self.store.stage_part(upload, number, len, DigestSet::MD5);
            let mut stage = stage.await?;
            for piece in bytes.chunks(1 << 20) {
                stage.write(Bytes::copy_from_slice(piece)).await?;
            }
            stage.finish().await
        })
    }

    /// Keeps a part, and names it as a completion does.
    pub(crate) fn publish_part(
        &self,
        upload: &Arc<Upload>,
        number: u16,
        staged: Staged,
    ) -> Result<CompletedPart> {
        let part = self.run(self.store.publish_part(PublishPart {
            upload: Arc::clone(upload),
            number,
            staged,
            checksum: None,
        }))?;
        Ok(CompletedPart {
            number: u32::from(number),
            etag: Some(part.etag),
            checksum: None,
        })
    }

    pub(crate) fn put_part(
        &self,
        upload: &Arc<Upload>,
        number: u16,
        bytes: &[u8],
    ) -> Result<CompletedPart> {
        let staged = self.stage_part(upload, number, bytes)?;
        self.publish_part(upload, number, staged)
    }

    /// Keeps a range of an object as a part, and names it as a completion does.
    pub(crate) fn copy_part(
        &self,
        upload: &Arc<Upload>,
        number: u16,
        source: &Arc<Entry>,
        (offset, len): (u64, u64),
    ) -> Result<CompletedPart> {
        let part = self.run(self.store.copy_part(CopyPart {
            upload: Arc::clone(upload),
            number,
            source: Arc::clone(source),
            offset,
            len,
            checksum: None,
        }))?;
        assert_eq!(part.size, len);
        Ok(CompletedPart {
            number: u32::from(number),
            etag: Some(part.etag),
            checksum: None,
        })
    }

    pub(crate) fn complete(
        &self,
        upload: &Arc<Upload>,
        parts: Vec<CompletedPart>,
    ) -> Result<Arc<Entry>> {
        self.run(self.store.complete_upload(Complete {
            upload: Arc::clone(upload),
            parts,
            checksum: None,
            size: None,
            precondition: Precondition::NONE,
        }))
    }

    /// Uploads in one part.
    pub(crate) fn upload(&self, key: &str, bytes: &[u8]) -> Result<Arc<Entry>> {
        let upload = self.create_upload(key)?;
        let part = self.put_part(&upload, 1, bytes)?;
        self.complete(&upload, vec![part])
    }

    /// All pages of a listing, `limit` names each.
    pub(crate) fn list(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ListItem>> {
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let page = self.run(self.store.list(List {
                bucket: self.bucket,
                prefix: prefix.to_owned(),
                delimiter: delimiter.map(str::to_owned),
                after,
                limit,
            }))?;
            assert!(page.items.len() <= limit, "a page is within its limit");
            items.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok(items);
            }
        }
    }

    /// All keys.
    pub(crate) fn keys(&self) -> Result<Vec<String>> {
        let items = self.list("", None, 1000)?;
        Ok(items
            .into_iter()
            .map(|item| match item {
                ListItem::Entry(entry) => entry.key.as_str().to_owned(),
                ListItem::CommonPrefix(prefix) => panic!("{prefix} without a delimiter"),
            })
            .collect())
    }

    /// Writes a file and closes it, as the mount does.
    pub(crate) fn write_file(
        &self,
        path: &str,
        bytes: &[u8],
        durability: Durability,
    ) -> Result<Arc<Entry>> {
        let from = match self.store.lookup(self.bucket, path)? {
            Some(Node::File(entry)) => Some(entry),
            Some(Node::Directory(_)) | None => None,
        };
        let ino = match &from {
            Some(entry) => entry.ino,
            None => self.store.allocate_ino()?,
        };
        let staging = self.store.stage_file(None)?;
        let written = staging.file().write_all_at(bytes, 0);
        written.expect("the kernel writes past the disk");
        self.store.publish_file(PublishFile {
            bucket: self.bucket,
            key: ObjectKey::parse(path)?,
            staging: &staging,
            keep: false,
            ino,
            file: FileAttributes::default(),
            attributes: Attributes::default(),
            durability,
        })
    }

    /// All pages of a directory, `limit` names each, and how many names are hidden.
    pub(crate) fn directory(&self, path: &str, limit: usize) -> Result<(Vec<DirectoryItem>, u64)> {
        let (mut items, mut hidden, mut after) = (Vec::new(), 0, None);
        loop {
            let store = &self.store;
            let page = store.list_directory(self.bucket, path, after, limit)?;
            items.extend(page.items);
            hidden += page.hidden;
            after = page.next;
            if after.is_none() {
                return Ok((items, hidden));
            }
        }
    }
}

/// Runs all at once, on this thread.
async fn join_all<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    poll_fn(|cx| {
        for (one, answer) in running.iter_mut().filter(|(_, answer)| answer.is_none()) {
            if let Poll::Ready(found) = one.as_mut().poll(cx) {
                *answer = Some(found);
            }
        }
        if running.iter().all(|(_, answer)| answer.is_some()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let answers = running.into_iter().map(|(_, answer)| answer);
    answers
        .map(|answer| answer.expect("all are ready"))
        .collect()
}
