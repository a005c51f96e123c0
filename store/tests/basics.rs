//! What is put is what is read, by both interfaces, before and after opening again.

use std::sync::Arc;

use bytes::Bytes;
use forebay_store::api::{
    Buckets, Complete, CompletedPart, Copy, Delete, Durability, Face, Files, List, ListItem,
    NewBucket, NewUpload, Node, Objects, Publish, PublishFile, PublishPart, RenameMode,
};
use forebay_store::digest::DigestSet;
use forebay_store::entry::{Attributes, Bucket, BucketId, Entry, FileAttributes};
use forebay_store::name::{BucketName, ObjectKey};
use forebay_store::rule::precondition::{ETagMatch, Precondition};
use forebay_store::{Error, Store, StoreOptions};
use tokio::runtime::Runtime;

struct Fixture {
    dir: tempfile::TempDir,
    runtime: Runtime,
    store: Option<Store>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let store = Some(Store::open(Self::options(&dir)).unwrap());
        Self {
            dir,
            runtime,
            store,
        }
    }

    fn options(dir: &tempfile::TempDir) -> StoreOptions {
        let mut options = StoreOptions::new(dir.path());
        options.segment_size = 4 << 20;
        options
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store.take().unwrap().close().unwrap();
        self.store = Some(Store::open(Self::options(&self.dir)).unwrap());
    }

    fn bucket(&self) -> Arc<Bucket> {
        let name = BucketName::parse("bucket").unwrap();
        if let Ok(bucket) = self.store().bucket(&name) {
            return bucket;
        }
        let owner = self.store().root_account().clone();
        let new = NewBucket {
            name,
            owner,
            location: None,
            face: Face::S3,
        };
        self.runtime
            .block_on(self.store().create_bucket(new))
            .unwrap()
    }

    fn put_if(
        &self,
        name: &str,
        bytes: &[u8],
        precondition: Precondition,
    ) -> Result<Arc<Entry>, Error> {
        let bucket = self.bucket().id;
        self.runtime.block_on(async {
            let len = bytes.len() as u64;
            let mut stage = self.store().stage(Some(len), DigestSet::MD5).await?;
            for piece in bytes.chunks(100_000) {
                stage.write(Bytes::copy_from_slice(piece)).await?;
            }
            let publish = Publish {
                bucket,
                key: key(name),
                staged: stage.finish().await?,
                attributes: Attributes::default(),
                checksum: None,
                owner: self.store().root_account().clone(),
                precondition,
                durability: Durability::Durable,
            };
            self.store().publish(publish).await
        })
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Arc<Entry> {
        self.put_if(name, bytes, Precondition::NONE).unwrap()
    }

    fn head(&self, name: &str) -> Result<Arc<Entry>, Error> {
        self.runtime
            .block_on(self.store().head(self.bucket().id, &key(name), None))
    }

    fn get(&self, name: &str) -> Vec<u8> {
        let entry = self.head(name).unwrap();
        let content = self.store().open(&entry).unwrap();
        let mut stream = content.range(0, entry.size);
        let mut bytes = Vec::new();
        self.runtime.block_on(async {
            while let Some(frame) = stream.next().await {
                bytes.extend_from_slice(&frame.unwrap());
            }
        });
        assert_eq!(content.read_at_blocking(0, entry.size).unwrap(), bytes);
        bytes
    }

    fn list(&self, prefix: &str, delimiter: Option<&str>, limit: usize) -> Vec<String> {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let list = List {
                bucket: self.bucket().id,
                prefix: prefix.to_owned(),
                delimiter: delimiter.map(str::to_owned),
                after,
                limit,
            };
            let page = self.runtime.block_on(self.store().list(list)).unwrap();
            names.extend(page.items.into_iter().map(|item| match item {
                ListItem::Entry(entry) => entry.key.as_str().to_owned(),
                ListItem::CommonPrefix(common) => common,
            }));
            after = page.next;
            if after.is_none() {
                return names;
            }
        }
    }

    fn delete(&self, name: &str) -> bool {
        let delete = Delete {
            bucket: self.bucket().id,
            key: key(name),
            version: None,
            precondition: Precondition::NONE,
        };
        self.runtime
            .block_on(self.store().delete(delete))
            .unwrap()
            .existed
    }

    fn write_file(&self, name: &str, bytes: &[u8], durability: Durability) -> Arc<Entry> {
        use std::os::unix::fs::FileExt;
        let staging = self.store().stage_file(None).unwrap();
        staging.file().write_all_at(bytes, 0).unwrap();
        let publish = PublishFile {
            bucket: self.bucket().id,
            key: key(name),
            staging: &staging,
            keep: false,
            ino: self.store().allocate_ino().unwrap(),
            file: FileAttributes {
                mode: Some(0o100_600),
                ..FileAttributes::default()
            },
            attributes: Attributes::default(),
            durability,
        };
        self.store().publish_file(publish).unwrap()
    }

    fn upload(&self, name: &str, parts: &[(u16, Vec<u8>)]) -> Arc<Entry> {
        let bucket = self.bucket().id;
        self.runtime.block_on(async {
            let new = NewUpload {
                bucket,
                key: key(name),
                attributes: Attributes::default(),
                checksum: None,
                owner: self.store().root_account().clone(),
            };
            let upload = self.store().create_upload(new).await.unwrap();
            let mut named = Vec::new();
            for (number, bytes) in parts {
                let len = Some(bytes.len() as u64);
                let stage = self
                    .store()
                    .stage_part(&upload, *number, len, DigestSet::MD5);
                let mut stage = stage.await.unwrap();
                for piece in bytes.chunks(70_000) {
                    stage.write(Bytes::copy_from_slice(piece)).await.unwrap();
                }
                let staged = stage.finish().await.unwrap();
                let part = PublishPart {
                    upload: Arc::clone(&upload),
                    number: *number,
                    staged,
                    checksum: None,
                };
                let part = self.store().publish_part(part).await.unwrap();
                named.retain(|named: &CompletedPart| named.number != u32::from(*number));
                named.push(CompletedPart {
                    number: u32::from(*number),
                    etag: Some(part.etag),
                    checksum: None,
                });
            }
            named.sort_by_key(|part| part.number);
            let complete = || Complete {
                upload: Arc::clone(&upload),
                parts: named.clone(),
                checksum: None,
                size: None,
                precondition: Precondition::NONE,
            };
            let entry = self.store().complete_upload(complete()).await.unwrap();
            let again = self
                .store()
                .upload(upload.bucket, &upload.key, upload.id)
                .await
                .unwrap();
            let complete = Complete {
                upload: again,
                ..complete()
            };
            let repeated = self.store().complete_upload(complete).await.unwrap();
            assert_eq!(
                repeated.id, entry.id,
                "a repeated completion gives the same answer"
            );
            entry
        })
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|at| (at as u64).wrapping_mul(2_654_435_761).to_le_bytes()[1] ^ seed)
        .collect()
}

#[test]
fn objects_of_every_size_are_read_back_also_after_opening_again() {
    let mut fixture = Fixture::new();
    let sizes = [
        0,
        1,
        4096,
        262_143,
        262_144,
        262_145,
        1 << 20,
        (3 << 20) + 17,
    ];
    for (seed, size) in (0..).zip(sizes) {
        fixture.put(&format!("o{size}"), &bytes(size, seed));
    }
    for _ in 0..2 {
        for (seed, size) in (0..).zip(sizes) {
            assert!(
                fixture.get(&format!("o{size}")) == bytes(size, seed),
                "{size}"
            );
        }
        fixture.reopen();
    }
    assert!(fixture.delete("o4096"));
    assert!(!fixture.delete("o4096"));
    assert!(matches!(fixture.head("o4096"), Err(Error::NoSuchKey(_))));
}

#[test]
fn listings_page_and_roll_up() {
    let fixture = Fixture::new();
    for name in ["a", "a/1", "a/2", "a0", "b/x/1", "b/x/2", "b/y", "c"] {
        fixture.put(name, b"x");
    }
    for limit in [1, 2, 3, 100] {
        assert_eq!(
            fixture.list("", None, limit),
            ["a", "a/1", "a/2", "a0", "b/x/1", "b/x/2", "b/y", "c"]
        );
        assert_eq!(
            fixture.list("", Some("/"), limit),
            ["a", "a/", "a0", "b/", "c"]
        );
        assert_eq!(fixture.list("b/", Some("/"), limit), ["b/x/", "b/y"]);
        assert_eq!(fixture.list("b", None, limit), ["b/x/1", "b/x/2", "b/y"]);
    }
}

#[test]
fn conditions_hold_at_commit() {
    let fixture = Fixture::new();
    let absent = || Precondition {
        absent: true,
        ..Precondition::NONE
    };
    let first = fixture.put_if("k", b"1", absent()).unwrap();
    assert!(matches!(
        fixture.put_if("k", b"2", absent()),
        Err(Error::PreconditionFailed(_))
    ));
    let matches = |etag| Precondition {
        matches: Some(ETagMatch::OneOf(vec![etag])),
        ..Precondition::NONE
    };
    let second = fixture.put_if("k", b"2", matches(first.etag)).unwrap();
    assert!(matches!(
        fixture.put_if("k", b"3", matches(first.etag)),
        Err(Error::PreconditionFailed(_))
    ));
    assert!(matches!(
        fixture.put_if("n", b"3", matches(second.etag)),
        Err(Error::NoSuchKey(_))
    ));
    assert_eq!(fixture.get("k"), b"2");
}

#[test]
fn copies_share_bytes_and_outlive_their_source() {
    let mut fixture = Fixture::new();
    for (name, size) in [("small", 1000), ("large", 1 << 20)] {
        let source = fixture.put(name, &bytes(size, 3));
        let copy = Copy {
            source,
            bucket: fixture.bucket().id,
            key: key(&format!("{name}-copy")),
            attributes: Attributes::default(),
            checksum: None,
            owner: fixture.store().root_account().clone(),
            precondition: Precondition::NONE,
        };
        fixture
            .runtime
            .block_on(fixture.store().copy(copy))
            .unwrap();
        fixture.delete(name);
    }
    fixture.reopen();
    assert!(fixture.get("small-copy") == bytes(1000, 3));
    assert!(fixture.get("large-copy") == bytes(1 << 20, 3));
}

/// A part's number and bytes.
type Part = (u16, Vec<u8>);

#[test]
fn parts_are_joined_in_place_or_not() {
    let mut fixture = Fixture::new();
    let part = |number: u16, size: usize| (number, bytes(size, number.to_le_bytes()[0]));
    let mb5 = 5 << 20;
    let cases: [(&str, Vec<Part>); 5] = [
        ("in-order", vec![part(1, mb5), part(2, mb5), part(3, 1000)]),
        (
            "last-first",
            vec![part(3, 1000), part(1, mb5), part(2, mb5)],
        ),
        ("again", vec![part(1, mb5), part(2, mb5), part(1, mb5)]),
        (
            "odd",
            vec![part(1, mb5), part(2, mb5 + 5), part(3, mb5 - 5 + 10)],
        ),
        ("gaps", vec![part(2, mb5), part(7, mb5), part(9, 1)]),
    ];
    for (name, parts) in &cases {
        let entry = fixture.upload(name, parts);
        assert_eq!(entry.etag.parts as usize, entry.parts.len());
        if *name == "in-order" {
            assert!(
                fixture.store().open(&entry).unwrap().file().is_some(),
                "one file for the kernel to read"
            );
        }
    }
    for _ in 0..2 {
        for (name, parts) in &cases {
            let mut last: Vec<&(u16, Vec<u8>)> = parts.iter().collect();
            last.sort_by_key(|(number, _)| *number);
            last.dedup_by_key(|(number, _)| *number);
            let whole: Vec<u8> = last
                .iter()
                .flat_map(|(_, bytes)| bytes.iter().copied())
                .collect();
            assert!(fixture.get(name) == whole, "{name}");
        }
        fixture.reopen();
    }
}

fn is_directory(fixture: &Fixture, path: &str) -> bool {
    let bucket: BucketId = fixture.bucket().id;
    matches!(
        fixture.store().lookup(bucket, path).unwrap(),
        Some(Node::Directory(_))
    )
}

#[test]
fn files_and_directories_are_objects() {
    let mut fixture = Fixture::new();
    let bucket = fixture.bucket().id;
    for durability in [Durability::Deferred, Durability::Durable] {
        for size in [0, 10, 300_000, 2 << 20] {
            let name = format!("d/{durability:?}-{size}");
            fixture.write_file(&name, &bytes(size, 9), durability);
            assert!(fixture.get(&name) == bytes(size, 9), "{name}");
        }
    }
    let store = fixture.store().clone();
    store
        .make_directory(bucket, "e", FileAttributes::default())
        .unwrap();
    assert!(matches!(
        store.make_directory(bucket, "d", FileAttributes::default()),
        Err(Error::Exists(_))
    ));
    assert!(matches!(
        store.remove_directory(bucket, "d"),
        Err(Error::DirectoryNotEmpty(_))
    ));
    assert!(matches!(
        store.rename(bucket, "d", "d/x", RenameMode::Replace),
        Err(Error::InvalidRequest(_))
    ));
    store.rename(bucket, "d", "e", RenameMode::Replace).unwrap();
    assert!(!is_directory(&fixture, "d"));
    store
        .rename(bucket, "e/Durable-10", "f/moved", RenameMode::Replace)
        .unwrap();
    store.remove_file(bucket, "f/moved").unwrap();
    assert!(
        is_directory(&fixture, "f"),
        "a directory stays when its last file goes"
    );
    store.remove_directory(bucket, "f").unwrap();
    assert!(!is_directory(&fixture, "f"));
    let change = FileAttributes {
        mode: Some(0o640),
        uid: Some(7),
        ..FileAttributes::default()
    };
    store
        .set_attributes(bucket, "e/Deferred-10", change)
        .unwrap();
    drop(store);
    for _ in 0..2 {
        assert!(fixture.get("e/Deferred-2097152") == bytes(2 << 20, 9));
        let entry = fixture.head("e/Deferred-10").unwrap();
        assert_eq!(
            (entry.file.mode, entry.file.uid),
            (Some(0o100_640), Some(7))
        );
        let page = fixture
            .store()
            .list_directory(bucket, "e", None, 100)
            .unwrap();
        assert_eq!(page.items.len(), 7);
        fixture.reopen();
    }
}

#[test]
fn a_second_process_is_kept_out() {
    let fixture = Fixture::new();
    assert!(matches!(
        Store::open(Fixture::options(&fixture.dir)),
        Err(Error::Locked { .. })
    ));
}
