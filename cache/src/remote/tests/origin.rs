//! A store as a remote origin, that can be watched and made to fail.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use forebay_store::api::{
    Buckets, Copy, Delete, Durability, Face, Files, List, ListAfter, ListBuckets, ListItem,
    NewBucket, Objects, Publish, Rename, Usage,
};
use forebay_store::digest::DigestSet;
use forebay_store::entry::{Attributes, Bucket, Entry, Headers};
use forebay_store::error::{Error, Result};
use forebay_store::name::{BucketName, ObjectKey};
use forebay_store::rule::precondition::Precondition;
use forebay_store::time::{Clock, Timestamp};
use forebay_store::{Store, StoreOptions};
use tokio::runtime::Runtime;

use crate::remote::{
    Asked, Catalog, CopyOf, From, Head, KeyHeads, Keys, ListKeys, Listed, NewObject, PathRename,
    RemoteConfig, RemoteFiles, Uncached, Writer,
};
use crate::source::{Chunks, FetchError, Fetching, Source};
use crate::version::Version;

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicI64);

impl ManualClock {
    pub(crate) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// A store behind S3's words.
#[derive(Debug)]
pub(crate) struct Origin {
    store: Store,
    down: AtomicBool,
    denies: AtomicBool,
    /// Names on a page of a listing at most.
    page_len: Mutex<usize>,
    asked: Mutex<BTreeMap<&'static str, usize>>,
    /// What only a forebay does.
    tells_heads: AtomicBool,
    renames: AtomicBool,
    space: Mutex<Option<Usage>>,
}

impl Origin {
    fn ask(&self, what: &'static str) -> Result<()> {
        *self.asked.lock().unwrap().entry(what).or_default() += 1;
        if self.down.load(Ordering::Relaxed) {
            return Err(Error::OriginUnavailable("unplugged".to_owned()));
        }
        if self.denies.load(Ordering::Relaxed) {
            return Err(Error::OriginDenied("not you".to_owned()));
        }
        Ok(())
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<Option<Head>> {
        self.ask("head")?;
        self.look(bucket, key).await
    }

    async fn look(&self, bucket: &str, key: &str) -> Result<Option<Head>> {
        let bucket = self.store.bucket(&BucketName::parse(bucket)?)?;
        let key = ObjectKey::parse(key)?;
        match self.store.head(bucket.id, &key, None).await {
            Ok(entry) => Ok(Some(Head {
                listed: Listed {
                    key: key.as_str().to_owned(),
                    size: entry.size,
                    etag: entry.etag.to_string(),
                    // As a header has it.
                    modified_at: Timestamp::from_parts(entry.modified_at.seconds(), 0),
                },
                user_metadata: entry.attributes.user_metadata.clone(),
                headers: entry.attributes.headers.clone(),
                storage_class: None,
            })),
            Err(Error::NoSuchKey(_)) => Ok(None),
            Err(err) => Err(err),
        }
    }

    async fn list(&self, list: &ListKeys) -> Result<Keys> {
        self.ask("list")?;
        let after = match &list.from {
            From::Start => None,
            From::After(key) => Some(ListAfter::Key(key.clone())),
            From::Token(token) => Some(match token.strip_prefix("prefix:") {
                Some(prefix) => ListAfter::Prefix(prefix.to_owned()),
                None => ListAfter::Key(token["key:".len()..].to_owned()),
            }),
        };
        let limit = (*self.page_len.lock().unwrap()).min(list.limit.into());
        let page = self.store.list(List {
            bucket: self.store.bucket(&BucketName::parse(&list.bucket)?)?.id,
            prefix: list.prefix.clone(),
            delimiter: list.by_directory.then(|| "/".to_owned()),
            after,
            limit,
        });
        let page = page.await?;
        let mut keys = Keys {
            token: page.next.map(|next| match next {
                ListAfter::Key(key) => format!("key:{key}"),
                ListAfter::Prefix(prefix) => format!("prefix:{prefix}"),
            }),
            ..Keys::default()
        };
        for item in page.items {
            match item {
                ListItem::Entry(entry) => keys.objects.push(Listed {
                    key: entry.key.as_str().to_owned(),
                    size: entry.size,
                    etag: entry.etag.to_string(),
                    modified_at: entry.modified_at,
                }),
                ListItem::CommonPrefix(prefix) => keys.prefixes.push(prefix),
            }
        }
        if list.heads && self.tells_heads.load(Ordering::Relaxed) {
            keys.heads = Some(self.heads_of(&keys, &list.bucket).await?);
        }
        Ok(keys)
    }

    async fn publish(
        &self,
        bucket: &str,
        key: &str,
        body: Bytes,
        attributes: Attributes,
    ) -> Result<Arc<Entry>> {
        let digests = DigestSet {
            md5: true,
            ..DigestSet::default()
        };
        let len = Some(body.len() as u64);
        let mut stage = self.store.stage(len, digests).await?;
        stage.write(body).await?;
        let publish = Publish {
            bucket: self.store.bucket(&BucketName::parse(bucket)?)?.id,
            key: ObjectKey::parse(key)?,
            staged: stage.finish().await?,
            attributes,
            checksum: None,
            owner: self.store.mount_account(),
            precondition: Precondition::default(),
            durability: Durability::Deferred,
        };
        self.store.publish(publish).await
    }

    async fn copy_of(&self, copy: CopyOf<'_>) -> Result<Option<String>> {
        self.ask("copy")?;
        let bucket = self.store.bucket(&BucketName::parse(copy.bucket)?)?.id;
        let from = ObjectKey::parse(copy.from)?;
        let source = self.store.head(bucket, &from, None).await?;
        if source.etag.to_string() != copy.etag {
            return Err(Error::PreconditionFailed("If-Match"));
        }
        let attributes = copy.attributes.unwrap_or(&source.attributes).clone();
        let copied = self.store.copy(Copy {
            bucket,
            key: ObjectKey::parse(copy.to)?,
            attributes,
            checksum: None,
            owner: self.store.mount_account(),
            precondition: Precondition::default(),
            source,
        });
        Ok(Some(copied.await?.etag.to_string()))
    }

    async fn all(&self) -> Result<Vec<(BucketName, Timestamp)>> {
        self.ask("buckets")?;
        let (buckets, _) = self.store.list_buckets(ListBuckets::default()).await?;
        let told = |bucket: &Arc<Bucket>| (bucket.name.clone(), bucket.created_at);
        Ok(buckets.iter().map(told).collect())
    }

    async fn fetch(
        store: Store,
        version: Arc<Version>,
        range: Range<u64>,
    ) -> Result<Chunks, FetchError> {
        let unavailable = |err: Error| FetchError::Unavailable(err.to_string());
        let bucket = BucketName::parse(&version.bucket).map_err(unavailable)?;
        let bucket = store.bucket(&bucket).map_err(unavailable)?;
        let key = ObjectKey::parse(&version.key).map_err(unavailable)?;
        let entry = store.head(bucket.id, &key, None).await;
        let entry = entry.map_err(|_| FetchError::Changed)?;
        if entry.etag.to_string() != version.etag {
            return Err(FetchError::Changed);
        }
        let content = store.open(&entry).map_err(unavailable)?;
        let mut stream = content.range(range.start, range.end - range.start);
        let mut bytes = Vec::new();
        while let Some(frame) = stream.next().await {
            // In pieces, as from a network.
            let frame = frame.map_err(unavailable)?;
            bytes.extend(
                frame
                    .chunks(1000)
                    .map(|piece| Ok(Bytes::copy_from_slice(piece))),
            );
        }
        Ok(Box::pin(futures_util::stream::iter(bytes)))
    }
}

impl Catalog for Origin {
    fn head<'a>(&'a self, bucket: &'a str, key: &'a str) -> Asked<'a, Option<Head>> {
        Box::pin(self.head(bucket, key))
    }

    fn list<'a>(&'a self, list: &'a ListKeys) -> Asked<'a, Keys> {
        Box::pin(self.list(list))
    }

    fn space<'a>(&'a self, _: &'a str) -> Asked<'a, Option<Usage>> {
        Box::pin(async move {
            self.ask("space")?;
            Ok(*self.space.lock().unwrap())
        })
    }

    fn buckets(&self) -> Asked<'_, Vec<(BucketName, Timestamp)>> {
        Box::pin(self.all())
    }
}

impl Writer for Origin {
    fn put<'a>(&'a self, object: NewObject<'a>, body: Bytes) -> Asked<'a, Option<String>> {
        Box::pin(async move {
            self.ask("put")?;
            let attributes = object.attributes.clone();
            let put = self.publish(object.bucket, object.key, body, attributes);
            // Some services do not say.
            put.await.map(|_| None)
        })
    }

    fn put_file<'a>(
        &'a self,
        object: NewObject<'a>,
        file: Arc<File>,
        size: u64,
    ) -> Asked<'a, Option<String>> {
        Box::pin(async move {
            self.ask("put")?;
            let mut bytes = vec![0; usize::try_from(size).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            let attributes = object.attributes.clone();
            let put = self.publish(object.bucket, object.key, bytes.into(), attributes);
            Ok(Some(put.await?.etag.to_string()))
        })
    }

    fn copy<'a>(&'a self, copy: CopyOf<'a>) -> Asked<'a, Option<String>> {
        Box::pin(self.copy_of(copy))
    }

    fn delete<'a>(&'a self, bucket: &'a str, key: &'a str) -> Asked<'a, ()> {
        Box::pin(async move {
            self.ask("delete")?;
            let delete = Delete {
                bucket: self.store.bucket(&BucketName::parse(bucket)?)?.id,
                key: ObjectKey::parse(key)?,
                version: None,
                precondition: Precondition::default(),
            };
            self.store.delete(delete).await.map(drop)
        })
    }

    fn delete_version<'a>(&'a self, bucket: &'a str, key: &'a str, etag: &'a str) -> Asked<'a, ()> {
        Box::pin(async move {
            let head = self.look(bucket, key).await?;
            if head.is_some_and(|head| head.listed.etag != etag) {
                return Err(Error::PreconditionFailed("If-Match"));
            }
            Writer::delete(self, bucket, key).await
        })
    }

    fn rename<'a>(&'a self, rename: PathRename<'a>) -> Asked<'a, bool> {
        Box::pin(self.rename_path(rename))
    }

    fn create_bucket<'a>(&'a self, bucket: &'a BucketName) -> Asked<'a, ()> {
        Box::pin(async move {
            self.ask("create bucket")?;
            let new = NewBucket {
                name: bucket.clone(),
                owner: self.store.mount_account(),
                location: None,
                face: Face::S3,
            };
            self.store.create_bucket(new).await.map(drop)
        })
    }

    fn delete_bucket<'a>(&'a self, bucket: &'a BucketName) -> Asked<'a, ()> {
        Box::pin(async move {
            self.ask("delete bucket")?;
            self.store.delete_bucket(bucket.clone(), Face::S3).await
        })
    }
}

impl Origin {
    async fn rename_path(&self, rename: PathRename<'_>) -> Result<bool> {
        if !self.renames.load(Ordering::Relaxed) {
            return Ok(false);
        }
        self.ask("rename")?;
        let bucket = self.store.bucket(&BucketName::parse(rename.bucket)?)?.id;
        let rename = Rename {
            bucket,
            from: rename.from.to_owned(),
            to: rename.to.to_owned(),
            mode: rename.mode,
        };
        self.store.rename_path(rename).await.map(|()| true)
    }

    async fn heads_of(&self, keys: &Keys, bucket: &str) -> Result<KeyHeads> {
        let mut heads = KeyHeads::default();
        for listed in &keys.objects {
            heads.objects.extend(self.look(bucket, &listed.key).await?);
        }
        for prefix in &keys.prefixes {
            heads.markers.push(self.look(bucket, prefix).await?);
        }
        Ok(heads)
    }
}

impl Source for Origin {
    fn fetch(&self, version: &Arc<Version>, range: Range<u64>) -> Fetching {
        match self.ask("get") {
            Ok(()) => Box::pin(Self::fetch(self.store.clone(), Arc::clone(version), range)),
            Err(Error::OriginDenied(why)) => {
                Box::pin(std::future::ready(Err(FetchError::Denied(why))))
            }
            Err(err) => Box::pin(std::future::ready(Err(FetchError::Unavailable(
                err.to_string(),
            )))),
        }
    }
}

/// A store, and the same as a remote origin.
pub(crate) struct Fixture {
    pub(crate) runtime: Runtime,
    pub(crate) store: Store,
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) remote: RemoteFiles,
    /// The bucket's number at the remote.
    pub(crate) there: Arc<Bucket>,
    pub(crate) dir: tempfile::TempDir,
}

/// What a test puts.
#[derive(Clone, Default)]
pub(crate) struct Put<'a> {
    pub(crate) key: &'a str,
    pub(crate) bytes: &'a [u8],
    pub(crate) metadata: &'a [(&'a str, &'a str)],
    pub(crate) cache_control: Option<&'a str>,
}

impl Fixture {
    pub(crate) fn new(config: RemoteConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        let store = Store::open(StoreOptions::new(&dir.path().join("data"))).unwrap();
        drop(guard);
        let name = BucketName::parse("bucket").unwrap();
        let new = NewBucket {
            name: name.clone(),
            owner: store.mount_account(),
            location: None,
            face: Face::S3,
        };
        let bucket = runtime.block_on(store.create_bucket(new)).unwrap();
        let origin = Arc::new(Origin {
            store: store.clone(),
            down: AtomicBool::new(false),
            denies: AtomicBool::new(false),
            page_len: Mutex::new(1000),
            asked: Mutex::default(),
            tells_heads: AtomicBool::new(false),
            renames: AtomicBool::new(false),
            space: Mutex::default(),
        });
        let clock = Arc::new(ManualClock(AtomicI64::new(1_700_000_000_000_000_000)));
        let remote = RemoteFiles::new(
            config,
            Arc::clone(&origin) as Arc<dyn Catalog>,
            Arc::new(Uncached(Arc::clone(&origin) as Arc<dyn Source>)),
            Arc::clone(&clock) as Arc<dyn Clock>,
            runtime.handle().clone(),
        );
        let there = remote.bucket(&name).unwrap();
        Self {
            runtime,
            store,
            bucket,
            origin,
            clock,
            remote,
            there,
            dir,
        }
    }

    /// The same, to be written to.
    pub(crate) fn writable(self) -> Self {
        let staging = self.dir.path().to_owned();
        let writer = Arc::clone(&self.origin) as Arc<dyn Writer>;
        Self {
            remote: self.remote.writable(writer, staging),
            ..self
        }
    }

    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        self.put_with(&Put {
            key,
            bytes,
            ..Put::default()
        });
    }

    pub(crate) fn put_with(&self, put: &Put<'_>) {
        let metadata = put.metadata.iter();
        let attributes = Attributes {
            headers: Headers {
                cache_control: put.cache_control.map(str::to_owned),
                ..Headers::default()
            },
            user_metadata: metadata
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            ..Attributes::default()
        };
        let body = Bytes::copy_from_slice(put.bytes);
        let put = self.origin.publish("bucket", put.key, body, attributes);
        self.runtime.block_on(put).unwrap();
    }

    pub(crate) fn delete(&self, key: &str) {
        let delete = Delete {
            bucket: self.bucket.id,
            key: ObjectKey::parse(key).unwrap(),
            version: None,
            precondition: Precondition::default(),
        };
        self.runtime.block_on(self.store.delete(delete)).unwrap();
    }

    pub(crate) fn unplug(&self, down: bool) {
        self.origin.down.store(down, Ordering::Relaxed);
    }

    pub(crate) fn deny(&self) {
        self.origin.denies.store(true, Ordering::Relaxed);
    }

    /// Has the origin do what only a forebay does.
    pub(crate) fn forebay(self, space: Option<Usage>) -> Self {
        self.origin.tells_heads.store(true, Ordering::Relaxed);
        self.origin.renames.store(true, Ordering::Relaxed);
        *self.origin.space.lock().unwrap() = space;
        self
    }

    pub(crate) fn set_page_len(&self, len: usize) {
        *self.origin.page_len.lock().unwrap() = len;
    }

    /// How often the origin was asked of what since this was called last.
    pub(crate) fn asked(&self) -> BTreeMap<&'static str, usize> {
        std::mem::take(&mut self.origin.asked.lock().unwrap())
    }
}
