//! A store in a directory of its own, and the few operations that its care needs.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::api::{
    Buckets, Complete, CompletedPart, Copy, Delete, Durability, Face, Files, NewBucket, NewUpload,
    Objects, Publish, PublishFile, PublishPart,
};
use forebay_store::digest::DigestSet;
use forebay_store::entry::{Attributes, BucketId, Entry, FileAttributes, Part, Upload};
use forebay_store::fsck::{FsckOptions, FsckReport, fsck_blocking};
use forebay_store::name::{BucketName, ObjectKey};
use forebay_store::rule::precondition::Precondition;
use forebay_store::{Error, Store, StoreOptions};
use tokio::runtime::Runtime;

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    store: Option<Store>,
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

pub(crate) fn bytes(len: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn options(data: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(data);
    options.segment_size = 2 << 20;
    options.packed_size_max = 256 << 10;
    options
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(Store::open(options(dir.path())).unwrap());
        let runtime = Runtime::new().unwrap();
        Self {
            dir,
            runtime,
            store,
        }
    }

    pub(crate) fn data(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub(crate) fn close(&mut self) {
        self.store.take().unwrap().close().unwrap();
    }

    pub(crate) fn open(&mut self) {
        self.store = Some(Store::open(options(self.dir.path())).unwrap());
    }

    /// A store of what is in the directory now, as if the machine had stopped.
    pub(crate) fn crashed(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(self.dir.path().join("."))
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        Self {
            dir,
            runtime: Runtime::new().unwrap(),
            store: None,
        }
    }

    pub(crate) fn bucket(&self) -> BucketId {
        let name = BucketName::parse("bucket").unwrap();
        if let Ok(bucket) = self.store().bucket(&name) {
            return bucket.id;
        }
        let new = NewBucket {
            name,
            owner: self.store().root_account().clone(),
            location: None,
            face: Face::S3,
        };
        let made = self.runtime.block_on(self.store().create_bucket(new));
        made.unwrap().id
    }

    pub(crate) fn put(&self, name: &str, data: &[u8]) -> Arc<Entry> {
        let attributes = Attributes {
            user_metadata: vec![("color".to_owned(), b"blue".to_vec())],
            ..Attributes::default()
        };
        let bucket = self.bucket();
        self.runtime.block_on(async {
            let len = Some(data.len() as u64);
            let mut stage = self.store().stage(len, DigestSet::MD5).await.unwrap();
            for piece in data.chunks(100_000) {
                stage.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            let publish = Publish {
                bucket,
                key: key(name),
                staged: stage.finish().await.unwrap(),
                attributes,
                checksum: None,
                owner: self.store().root_account().clone(),
                precondition: Precondition::NONE,
                durability: Durability::Durable,
            };
            self.store().publish(publish).await.unwrap()
        })
    }

    pub(crate) fn head(&self, name: &str) -> Result<Arc<Entry>, Error> {
        let key = key(name);
        self.runtime
            .block_on(self.store().head(self.bucket(), &key, None))
    }

    pub(crate) fn get(&self, name: &str) -> Result<Vec<u8>, Error> {
        let entry = self.head(name)?;
        let mut stream = self.store().open(&entry)?.range(0, entry.size);
        let mut data = Vec::new();
        self.runtime.block_on(async {
            while let Some(frame) = stream.next().await {
                data.extend_from_slice(&frame?);
            }
            Ok(data)
        })
    }

    pub(crate) fn delete(&self, name: &str) {
        let delete = Delete {
            bucket: self.bucket(),
            key: key(name),
            version: None,
            precondition: Precondition::NONE,
        };
        self.runtime.block_on(self.store().delete(delete)).unwrap();
    }

    pub(crate) fn copy(&self, from: &str, to: &str) {
        let source = self.head(from).unwrap();
        let copy = Copy {
            attributes: source.attributes.clone(),
            checksum: None,
            owner: source.owner.clone(),
            bucket: self.bucket(),
            key: key(to),
            precondition: Precondition::NONE,
            source,
        };
        self.runtime.block_on(self.store().copy(copy)).unwrap();
    }

    pub(crate) fn write_file(&self, name: &str, data: &[u8], durability: Durability) {
        let staging = self.store().stage_file(None).unwrap();
        staging.file().write_all_at(data, 0).unwrap();
        let publish = PublishFile {
            bucket: self.bucket(),
            key: key(name),
            staging: &staging,
            keep: false,
            ino: self.store().allocate_ino().unwrap(),
            file: FileAttributes::default(),
            attributes: Attributes::default(),
            durability,
        };
        self.store().publish_file(publish).unwrap();
    }

    pub(crate) fn begin_upload(&self, name: &str) -> Arc<Upload> {
        let new = NewUpload {
            bucket: self.bucket(),
            key: key(name),
            attributes: Attributes::default(),
            checksum: None,
            owner: self.store().root_account().clone(),
        };
        let begun = self.runtime.block_on(self.store().create_upload(new));
        begun.unwrap()
    }

    pub(crate) fn put_part(&self, upload: &Arc<Upload>, number: u16, data: &[u8]) -> Part {
        self.runtime.block_on(async {
            let len = Some(data.len() as u64);
            let stage = self.store().stage_part(upload, number, len, DigestSet::MD5);
            let mut stage = stage.await.unwrap();
            stage.write(Bytes::copy_from_slice(data)).await.unwrap();
            let part = PublishPart {
                upload: Arc::clone(upload),
                number,
                staged: stage.finish().await.unwrap(),
                checksum: None,
            };
            self.store().publish_part(part).await.unwrap()
        })
    }

    pub(crate) fn complete(&self, upload: &Arc<Upload>, parts: &[Part]) -> Arc<Entry> {
        let named = |part: &Part| CompletedPart {
            number: u32::from(part.number),
            etag: Some(part.etag),
            checksum: None,
        };
        let complete = Complete {
            upload: Arc::clone(upload),
            parts: parts.iter().map(named).collect(),
            checksum: None,
            size: None,
            precondition: Precondition::NONE,
        };
        let joined = self
            .runtime
            .block_on(self.store().complete_upload(complete));
        joined.unwrap()
    }

    /// Something of everything: small, large, in parts, copied, written by the mount, renamed,
    /// deleted.
    pub(crate) fn fill(&self) {
        self.put("small", &bytes(5_000, 1));
        self.put("small", &bytes(6_000, 2));
        self.put("tiny", b"x");
        self.put("gone", &bytes(9_000, 3));
        self.delete("gone");
        self.put("large", &bytes(700_000, 4));
        self.copy("large", "copy of large");
        self.write_file("file", &bytes(3_000, 5), Durability::Deferred);
        self.write_file("large file", &bytes(2_000_000, 6), Durability::Deferred);
        let upload = self.begin_upload("joined");
        let parts = [
            self.put_part(&upload, 1, &bytes(5 << 20, 7)),
            self.put_part(&upload, 2, &bytes(300_000, 8)),
        ];
        self.complete(&upload, &parts);
        let begun = self.begin_upload("begun");
        self.put_part(&begun, 1, &bytes(400_000, 9));
        self.store().sync().unwrap();
    }

    pub(crate) fn fsck(&self, deep: bool, repair: bool) -> FsckReport {
        let mut options = FsckOptions::new(self.data());
        options.deep = deep;
        options.repair = repair;
        fsck_blocking(&options).unwrap()
    }

    /// Changes the index behind the store's back.
    pub(crate) fn sql(&self, sql: &str) {
        let index = rusqlite::Connection::open(self.data().join("index.sqlite")).unwrap();
        index.execute_batch(sql).unwrap();
    }

    /// Rows of a table.
    pub(crate) fn count(&self, table: &str) -> i64 {
        let index = rusqlite::Connection::open(self.data().join("index.sqlite")).unwrap();
        let sql = format!("SELECT count(*) FROM {table}");
        index.query_row(&sql, [], |row| row.get(0)).unwrap()
    }

    pub(crate) fn files(&self, dir: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.data().join(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                let below = format!("{dir}/{}", path.file_name().unwrap().to_str().unwrap());
                files.extend(self.files(&below));
            } else {
                files.push(path);
            }
        }
        files.sort();
        files
    }

    /// Turns a bit of the first file below `dir` in which `data` is, at `back` bytes before it;
    /// gives the file.
    pub(crate) fn damage(&self, dir: &str, data: &[u8], back: usize) -> PathBuf {
        for path in self.files(dir) {
            let content = fs::read(&path).unwrap();
            if let Some(at) = content.windows(data.len()).position(|found| found == data) {
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                let at = at - back;
                file.write_all_at(&[content[at] ^ 4], at as u64).unwrap();
                return path;
            }
        }
        panic!("no file below {dir} has these bytes");
    }
}
