//! A real store behind a real cache: what the data files are asked for is counted.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_store::api::{Buckets as _, Delete, Durability, Face, Files, NewBucket, Objects as _};
use forebay_store::api::{Node, Publish};
use forebay_store::digest::DigestSet;
use forebay_store::entry::{Attributes, Bucket, Entry};
use forebay_store::error::Error;
use forebay_store::name::{BucketName, ObjectKey};
use forebay_store::rule::precondition::Precondition;
use forebay_store::{Store, StoreOptions};

use super::*;
use crate::disk::{Disk, DiskConfig};
use crate::fetch::{FetchConfig, Status};

const MIB: usize = 1 << 20;

/// A store and a tier in front of it.
struct Rig {
    dir: tempfile::TempDir,
    store: Store,
    bucket: Arc<Bucket>,
    tier: Tier,
}

fn open_tier(store: &Store, dir: &Path) -> Tier {
    let config = DiskConfig {
        free_floor: Some(0),
        ..DiskConfig::new(dir.join("cache"), 64 << 20, "store")
    };
    let disk = Arc::new(Disk::open(&config).unwrap());
    Tier::new(store.clone(), Cache::new(disk, FetchConfig::default()))
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::new(&dir.path().join("data"));
        let open = tokio::task::spawn_blocking(|| Store::open(options));
        let store = open.await.unwrap().unwrap();
        let bucket = NewBucket {
            name: BucketName::parse("bucket").unwrap(),
            owner: store.root_account().clone(),
            location: None,
            face: Face::S3,
        };
        let bucket = store.create_bucket(bucket).await.unwrap();
        let tier = open_tier(&store, dir.path());
        Self {
            dir,
            store,
            bucket,
            tier,
        }
    }

    /// The same after another start.
    async fn reopened(self) -> Self {
        let Self {
            dir,
            store,
            bucket,
            tier,
        } = self;
        tier.cache().close().await;
        drop(tier);
        let options = StoreOptions::new(&dir.path().join("data"));
        let open = tokio::task::spawn_blocking(move || {
            store.close().unwrap();
            Store::open(options)
        });
        let store = open.await.unwrap().unwrap();
        let tier = open_tier(&store, dir.path());
        Self {
            dir,
            store,
            bucket,
            tier,
        }
    }

    async fn put(&self, key: &str, bytes: &Bytes) -> Arc<Entry> {
        let digests = DigestSet {
            md5: true,
            ..DigestSet::default()
        };
        let len = Some(bytes.len() as u64);
        let mut stage = self.store.stage(len, digests).await.unwrap();
        stage.write(bytes.clone()).await.unwrap();
        let publish = Publish {
            bucket: self.bucket.id,
            key: ObjectKey::parse(key).unwrap(),
            staged: stage.finish().await.unwrap(),
            attributes: Attributes::default(),
            checksum: None,
            owner: self.store.root_account().clone(),
            precondition: Precondition::default(),
            durability: Durability::Durable,
        };
        self.store.publish(publish).await.unwrap()
    }

    /// Bytes that the data files were asked for.
    fn store_bytes(&self) -> u64 {
        self.tier.cache().statistics().bytes_fetched
    }

    async fn read(&self, entry: &Arc<Entry>, directive: Directive) -> (Status, Result<Vec<u8>>) {
        read(&self.tier, entry, directive, 0..entry.size).await
    }

    /// Reads an entry until all of it is cached: blocks are written behind the reader.
    async fn settle(&self, entry: &Arc<Entry>) {
        for _ in 0..1000 {
            if self.tier.present(entry).unwrap() == entry.size {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{} does not get into the cache", entry.key);
    }
}

async fn read(
    tier: &Tier,
    entry: &Arc<Entry>,
    directive: Directive,
    range: std::ops::Range<u64>,
) -> (Status, Result<Vec<u8>>) {
    let mut read = tier
        .open(entry, directive)
        .unwrap()
        .read(range.start, range.end);
    let mut all = Vec::new();
    while let Some(bytes) = std::future::poll_fn(|cx| read.poll_next(cx)).await {
        match bytes {
            Ok(bytes) => all.extend_from_slice(&bytes),
            Err(err) => return (read.status(), Err(err)),
        }
    }
    (read.status(), Ok(all))
}

/// Bytes of which no two pages are alike.
fn bytes(len: usize, seed: u64) -> Bytes {
    let mut state = seed;
    let next = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        state.to_le_bytes()[7]
    });
    next.take(len).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_read_from_the_store_once() {
    let rig = Rig::new().await;
    for (key, len) in [
        ("small", 1000),
        ("packed", 700_000),
        ("large", 11 * MIB + 5),
    ] {
        let body = bytes(len, 1);
        let entry = rig.put(key, &body).await;
        let before = rig.store_bytes();
        let (status, read) = rig.read(&entry, Directive::Use).await;
        assert_eq!((status, read.unwrap()), (Status::Miss, body.to_vec()));
        rig.settle(&entry).await;
        assert_eq!(rig.store_bytes() - before, len as u64, "{key}");
        let (status, read) = rig.read(&entry, Directive::Use).await;
        assert_eq!((status, read.unwrap()), (Status::Hit, body.to_vec()));
        assert_eq!(rig.store_bytes() - before, len as u64, "{key}");
    }
    // Another process finds what this one kept.
    let key = ObjectKey::parse("large").unwrap();
    let entry = rig.store.head(rig.bucket.id, &key, None).await.unwrap();
    rig.tier.cache().close().await;
    let Rig {
        dir, store, tier, ..
    } = rig;
    drop(tier);
    let tier = open_tier(&store, dir.path());
    let (status, _) = read(&tier, &entry, Directive::Use, 5..entry.size - 7).await;
    assert_eq!(status, Status::Hit);
    assert_eq!(tier.cache().statistics().bytes_fetched, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directive_decides_whether_the_cache_is_read_and_filled() {
    let rig = Rig::new().await;
    let body = bytes(3 * MIB, 2);
    let entry = rig.put("k", &body).await;
    for (directive, expected) in [
        (Directive::Bypass, Status::Bypass),
        (Directive::NoFill, Status::Miss),
    ] {
        let (status, read) = rig.read(&entry, directive).await;
        assert_eq!((status, read.unwrap()), (expected, body.to_vec()));
        assert_eq!(rig.tier.present(&entry).unwrap(), 0, "{directive:?}");
    }
    rig.read(&entry, Directive::Use).await.1.unwrap();
    rig.settle(&entry).await;
    let before = rig.store_bytes();
    assert_eq!(rig.read(&entry, Directive::NoFill).await.0, Status::Hit);
    assert_eq!(rig.store_bytes(), before);
    assert_eq!(rig.read(&entry, Directive::Bypass).await.0, Status::Bypass);
    assert_eq!(rig.store_bytes(), before + body.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_overwritten_is_another_version_and_what_is_open_stays_readable() {
    let rig = Rig::new().await;
    let old = bytes(2 * MIB, 3);
    let entry = rig.put("k", &old).await;
    rig.read(&entry, Directive::Use).await.1.unwrap();
    rig.settle(&entry).await;
    let open = rig
        .tier
        .open(&entry, Directive::Use)
        .unwrap()
        .into_content();
    // The same bytes once more: the same entity tag, and yet another version.
    let same = rig.put("k", &old).await;
    assert_eq!(same.etag, entry.etag);
    assert_eq!(rig.read(&same, Directive::Use).await.0, Status::Miss);
    let new = bytes(2 * MIB, 4);
    let newer = rig.put("k", &new).await;
    let (status, read) = rig.read(&newer, Directive::Use).await;
    assert_eq!((status, read.unwrap()), (Status::Miss, new.to_vec()));
    let delete = Delete {
        bucket: rig.bucket.id,
        key: newer.key.clone(),
        version: None,
        precondition: Precondition::default(),
    };
    rig.store.delete(delete).await.unwrap();
    let version = rig.tier.version(&entry).unwrap();
    rig.tier.cache().discard_blocking(&version);
    let held = tokio::task::spawn_blocking(move || open.read_at_blocking(0, 2 << 20));
    assert_eq!(held.await.unwrap().unwrap(), old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_read_of_a_damaged_data_file_fails_and_leaves_nothing_in_the_cache() {
    let rig = Rig::new().await;
    // More than one request brings at a time: no single one of them sees all.
    rig.put("k", &bytes(19 * MIB, 5)).await;
    // What was just written is known to be right: this is of another start.
    let rig = rig.reopened().await;
    let key = ObjectKey::parse("k").unwrap();
    let entry = rig.store.head(rig.bucket.id, &key, None).await.unwrap();
    let file = only_file(&rig.dir.path().join("data/files"));
    let file = std::fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all_at(b"?", 17 << 20).unwrap();
    let (_, read) = rig.read(&entry, Directive::Use).await;
    assert!(
        matches!(read, Err(Error::Corrupt { .. })),
        "{}",
        read.is_ok()
    );
    for _ in 0..1000 {
        if rig.tier.present(&entry).unwrap() == 0 {
            break;
        }
        let version = rig.tier.version(&entry).unwrap();
        rig.tier.cache().discard_blocking(&version);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (_, again) = rig.read(&entry, Directive::Use).await;
    assert!(matches!(again, Err(Error::Corrupt { .. })));
}

fn only_file(dir: &Path) -> PathBuf {
    let mut dirs = vec![dir.to_owned()];
    let mut files = Vec::new();
    while let Some(dir) = dirs.pop() {
        for item in std::fs::read_dir(dir).unwrap() {
            let path = item.unwrap().path();
            let found = if path.is_dir() { &mut dirs } else { &mut files };
            found.push(path);
        }
    }
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_disk_reads_are_the_stores_own() {
    let rig = Rig::new().await;
    let body = bytes(3 * MIB + 9, 6);
    let entry = rig.put("k", &body).await;
    rig.read(&entry, Directive::Use).await.1.unwrap();
    rig.settle(&entry).await;
    // The files of its blocks are taken away under it.
    let objects = rig.dir.path().join("cache/objects");
    std::fs::remove_dir_all(&objects).unwrap();
    rig.tier.cache().close().await;
    assert!(!rig.tier.cache().fills());
    let other = rig.put("other", &body).await;
    for entry in [&entry, &other] {
        let (_, read) = rig.read(entry, Directive::Use).await;
        assert!(read.unwrap() == body);
    }
    let open = rig.tier.open(&other, Directive::Use).unwrap();
    let open = open.into_content();
    assert!(open.file().is_some(), "the kernel reads the store's file");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mounts_files_are_the_stores_with_bytes_by_way_of_the_cache() {
    let rig = Rig::new().await;
    let body = bytes(4 * MIB, 7);
    let entry = rig.put("d/k", &body).await;
    let files = Arc::new(TierFiles::new(rig.tier.clone()));
    let bucket = rig.bucket.id;
    let (looked, first) = {
        let files = Arc::clone(&files);
        let look = move || {
            let Some(Node::File(entry)) = files.lookup(bucket, "d/k").unwrap() else {
                panic!("it is a file");
            };
            let content = files.open(&entry).unwrap();
            assert!(content.file().is_none(), "it is to get into the cache");
            let part = content.read_at_blocking(MIB as u64 - 3, 10).unwrap();
            (entry, part)
        };
        tokio::task::spawn_blocking(look).await.unwrap()
    };
    assert_eq!(first, body[MIB - 3..MIB + 7]);
    assert_eq!(looked.id, entry.id);
    rig.read(&entry, Directive::Use).await.1.unwrap();
    rig.settle(&entry).await;
    let before = rig.store_bytes();
    let whole = tokio::task::spawn_blocking(move || {
        let content = files.open(&looked).unwrap();
        let mut read = vec![0; 4 * MIB];
        let file = content.file().expect("it is all in the cache");
        file.read_exact_at(&mut read, 0).unwrap();
        read
    });
    assert_eq!(whole.await.unwrap(), body);
    assert_eq!(rig.store_bytes(), before);
}
