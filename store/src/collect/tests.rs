use bytes::Bytes;
use tokio::runtime::Runtime;

use super::*;
use crate::api::{Buckets, Delete, Durability, NewBucket, Objects, Publish};
use crate::digest::DigestSet;
use crate::entry::{Attributes, BucketId, Entry};
use crate::name::{BucketName, ObjectKey};
use crate::rule::precondition::Precondition;
use crate::shared::DeadFiles;
use crate::{Store, StoreOptions};

/// Large enough for what the head and the largest packed object may take.
const SEGMENT_SIZE: u64 = 1 << 20;

struct Fixture {
    dir: tempfile::TempDir,
    runtime: Runtime,
    store: Store,
    bucket: BucketId,
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = StoreOptions::new(dir.path());
        options.segment_size = SEGMENT_SIZE;
        let store = Store::open(options).unwrap();
        let runtime = Runtime::new().unwrap();
        let new = NewBucket {
            name: BucketName::parse("bucket").unwrap(),
            owner: store.root_account().clone(),
            location: None,
            face: Face::S3,
        };
        let bucket = runtime.block_on(store.create_bucket(new)).unwrap().id;
        Self {
            dir,
            runtime,
            store,
            bucket,
        }
    }

    fn put(&self, name: &str, data: Vec<u8>, durability: Durability) -> Arc<Entry> {
        self.runtime.block_on(async {
            let len = Some(data.len() as u64);
            let mut stage = self.store.stage(len, DigestSet::MD5).await.unwrap();
            stage.write(Bytes::from(data)).await.unwrap();
            let publish = Publish {
                bucket: self.bucket,
                key: key(name),
                staged: stage.finish().await.unwrap(),
                attributes: Attributes::default(),
                checksum: None,
                owner: self.store.root_account().clone(),
                precondition: Precondition::NONE,
                durability,
            };
            self.store.publish(publish).await.unwrap()
        })
    }

    fn head(&self, name: &str) -> Arc<Entry> {
        let key = key(name);
        let found = self.store.head(self.bucket, &key, None);
        self.runtime.block_on(found).unwrap()
    }

    fn delete(&self, name: &str) {
        let delete = Delete {
            bucket: self.bucket,
            key: key(name),
            version: None,
            precondition: Precondition::NONE,
        };
        self.runtime.block_on(self.store.delete(delete)).unwrap();
    }

    fn segments(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("segments"))
            .unwrap()
            .count()
    }

    fn compact(&self, kept: &mut Kept) {
        compact(&self.store.shared, &self.store.committer, kept).unwrap();
    }
}

#[test]
fn mostly_dead_segments_are_rewritten_and_readers_do_not_notice() {
    let fixture = Fixture::new();
    for number in 0..40_u8 {
        let name = format!("k{number}");
        fixture.put(&name, vec![number; 100_000], Durability::Durable);
    }
    let before = fixture.segments();
    assert!(before >= 4);
    let reading = fixture.store.open(&fixture.head("k0")).unwrap();
    let (old, mut stream) = (fixture.head("k10"), reading.range(0, 100_000));
    for number in (0..40).filter(|number| number % 10 != 0) {
        fixture.delete(&format!("k{number}"));
    }
    let mut kept = Kept::new();
    fixture.compact(&mut kept);
    // The first round empties them, the next finds them empty.
    fixture.compact(&mut kept);
    remove_dead(&fixture.store.shared);
    assert!(
        fixture.segments() <= 2,
        "{} of {before}",
        fixture.segments()
    );
    let frame = fixture.runtime.block_on(stream.next()).unwrap().unwrap();
    assert_eq!(frame, vec![0; 100_000], "a map pins what it is of");
    assert!(
        matches!(fixture.store.open(&old), Err(crate::Error::Superseded(_))),
        "an old entry says that it is one"
    );
    for number in [0, 10, 20, 30_u8] {
        let entry = fixture.head(&format!("k{number}"));
        let content = fixture.store.open(&entry).unwrap();
        let read = content.read_at_blocking(0, 100_000).unwrap();
        assert_eq!(read, vec![number; 100_000]);
    }
}

#[test]
fn a_segment_of_tiny_objects_is_not_rewritten_for_ever() {
    let fixture = Fixture::new();
    let mut last = 0;
    for number in 0..12_000_u32 {
        let name = format!("k{number}");
        last = fixture.put(&name, vec![1], Durability::Deferred).extents[0]
            .file
            .0;
    }
    let all = fixture.store.shared.index.read(extent::files).unwrap();
    assert!(all.len() >= 2, "several segments");
    let mut kept = Kept::new();
    fixture.compact(&mut kept);
    let after = fixture.store.shared.index.read(extent::files).unwrap();
    assert_eq!(all, after, "all of it is alive");
    assert_eq!(kept.len(), all.len() - 1);
    assert!(!kept.contains_key(&FileId(last)));
}

#[test]
fn a_dead_file_goes_only_after_a_durable_commit() {
    let waiting = DeadFiles::default();
    let dead = DeadFile {
        id: FileId(7),
        packed: false,
    };
    waiting.add(vec![dead], false);
    assert_eq!(waiting.take(), []);
    waiting.add(Vec::new(), true);
    assert_eq!(
        waiting.take(),
        [dead],
        "that commit made all before it durable"
    );

    let fixture = Fixture::new();
    fixture.put("k", vec![1; 3_000_000], Durability::Durable);
    let entry = fixture.head("k");
    let path = fixture
        .store
        .shared
        .layout
        .path(entry.extents[0].file, false);
    assert!(path.exists());
    fixture.delete("k");
    // By this thread or by the store's own.
    for _ in 0..100 {
        remove_dead(&fixture.store.shared);
        if !path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the file stays");
}
