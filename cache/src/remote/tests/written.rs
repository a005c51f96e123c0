//! Changes made here, compared with the same changes of a store.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use forebay_store::api::{Durability, Files, Node, PublishFile, RenameMode};
use forebay_store::entry::{Attributes, BucketId, Entry, FileAttributes};
use forebay_store::error::{Error, Result};
use forebay_store::rule::posix::{S_IFDIR, S_IFREG};

use super::origin::{Fixture, Put};
use super::{key, listing};
use crate::remote::RemoteConfig;

fn fixture() -> Fixture {
    Fixture::new(RemoteConfig::default()).writable()
}

fn with_mode(mode: u32) -> FileAttributes {
    FileAttributes {
        mode: Some(mode),
        ..FileAttributes::default()
    }
}

/// Writes a file and closes it.
fn write(files: &dyn Files, bucket: BucketId, path: &str, bytes: &[u8]) -> Result<Arc<Entry>> {
    let staging = files.stage_file(None)?;
    staging.file().write_all_at(bytes, 0).unwrap();
    files.publish_file(PublishFile {
        bucket,
        key: key(path),
        staging: &staging,
        keep: false,
        ino: files.allocate_ino()?,
        file: with_mode(S_IFREG | 0o640),
        attributes: Attributes::default(),
        durability: Durability::Durable,
    })
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(&'static str, usize),
    MakeDirectory(&'static str),
    RemoveDirectory(&'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str, RenameMode),
    Link(&'static str),
    Mode(&'static str, u32),
}

fn act(files: &dyn Files, bucket: BucketId, act: Act) -> Result<()> {
    match act {
        Act::Write(path, len) => write(files, bucket, path, &vec![1; len]).map(drop),
        Act::MakeDirectory(path) => files
            .make_directory(bucket, path, with_mode(S_IFDIR | 0o750))
            .map(drop),
        Act::RemoveDirectory(path) => files.remove_directory(bucket, path),
        Act::Remove(path) => files.remove_file(bucket, path),
        Act::Rename(from, to, mode) => files.rename(bucket, from, to, mode),
        Act::Link(path) => files
            .make_node(bucket, path, b"target", with_mode(0o120_777))
            .map(drop),
        Act::Mode(path, mode) => files
            .set_attributes(bucket, path, with_mode(mode))
            .map(drop),
    }
}

/// What a path is, without times.
fn shape(files: &dyn Files, bucket: BucketId, path: &str) -> String {
    match files.lookup(bucket, path).unwrap() {
        None => "nothing".to_owned(),
        Some(Node::Directory(None)) => "implied".to_owned(),
        Some(Node::Directory(Some(marker))) => format!("directory {:?}", marker.file.mode),
        Some(Node::File(entry)) => format!("{} {:?}", entry.etag, entry.file.mode),
    }
}

const PATHS: [&str; 8] = ["a", "b", "a/b", "a/c", "a-", "b/a", "a/b/c", "b/a/d/e"];

/// The same sequence of numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn path(&mut self) -> &'static str {
        PATHS[self.below(PATHS.len())]
    }

    fn act(&mut self) -> Act {
        match self.below(9) {
            0 | 1 => Act::Write(self.path(), self.below(3)),
            2 => Act::MakeDirectory(self.path()),
            3 => Act::RemoveDirectory(self.path()),
            4 => Act::Remove(self.path()),
            5 => Act::Rename(self.path(), self.path(), RenameMode::Replace),
            6 => Act::Rename(self.path(), self.path(), RenameMode::NoReplace),
            7 => Act::Link(self.path()),
            _ => Act::Mode(self.path(), 0o600 + u32::try_from(self.below(2)).unwrap()),
        }
    }
}

#[test]
fn changes_do_what_they_do_in_a_store() {
    for seed in 0..8 {
        changes_do_what_they_do(&fixture(), seed);
    }
}

#[test]
fn changes_of_a_forebay_do_what_they_do_in_a_store() {
    for seed in 0..8 {
        changes_do_what_they_do(&fixture().forebay(None), seed);
    }
}

fn changes_do_what_they_do(f: &Fixture, seed: u64) {
    let mut random = Random(seed);
    let model = fixture();
    let mut done = Vec::new();
    for _ in 0..40 {
        let next = random.act();
        done.push(next);
        let there = act(&f.remote, f.there.id, next);
        let here = act(&model.store, model.bucket.id, next);
        let kind = |result: &Result<()>| result.as_ref().err().map(std::mem::discriminant);
        assert_eq!(
            kind(&there),
            kind(&here),
            "{there:?}, {here:?}: {seed}: {done:?}"
        );
        for path in PATHS {
            // By what is known, then by what the origin says.
            for forget in [false, true] {
                if forget {
                    f.clock.advance(60);
                }
                let there = shape(&f.remote, f.there.id, path);
                let here = shape(&model.store, model.bucket.id, path);
                assert_eq!(there, here, "{path}: {seed}: {done:?}");
            }
        }
        for path in ["", "a", "b", "b/a"] {
            let there = listing(&f.remote, f.there.id, path, 99);
            let here = listing(&model.store, model.bucket.id, path, 99);
            assert_eq!(there, here, "{path}: {seed}: {done:?}");
        }
    }
}

#[test]
fn what_is_written_keeps_its_number_and_what_is_said_of_it() {
    let f = fixture();
    f.put_with(&Put {
        key: "k",
        bytes: b"old",
        metadata: &[("colour", "blue"), ("md5chksum", "of the old bytes")],
        cache_control: Some("no-cache"),
    });
    let old = f.file("k");
    let staging = f.remote.stage_file(Some(&old)).unwrap();
    let mut bytes = vec![0; 3];
    staging.file().read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, b"old");
    staging.file().write_all_at(b"new bytes", 0).unwrap();
    let publish = |keep| {
        f.remote.publish_file(PublishFile {
            bucket: f.there.id,
            key: key("k"),
            staging: &staging,
            keep,
            ino: old.ino,
            file: with_mode(S_IFREG | 0o640),
            attributes: old.attributes.clone(),
            durability: Durability::Durable,
        })
    };
    assert_eq!(publish(true).unwrap().ino, old.ino);
    staging.file().write_all_at(b"more", 9).unwrap();
    assert_eq!(publish(false).unwrap().ino, old.ino);
    f.clock.advance(60);
    let new = f.file("k");
    assert_eq!(new.ino, old.ino);
    assert_eq!(f.read(&new).unwrap(), b"new bytesmore");
    let metadata = &new.attributes.user_metadata;
    assert!(metadata.contains(&("colour".to_owned(), b"blue".to_vec())));
    assert!(metadata.iter().all(|(name, _)| name != "md5chksum"));
    assert_eq!(
        new.attributes.headers.cache_control.as_deref(),
        Some("no-cache")
    );

    let changed = f
        .remote
        .set_attributes(f.there.id, "k", with_mode(0o600))
        .unwrap();
    assert_eq!(changed.ino, old.ino);
    f.remote
        .rename(f.there.id, "k", "l", RenameMode::Replace)
        .unwrap();
    f.clock.advance(60);
    let moved = f.file("l");
    assert_eq!(
        (moved.ino, moved.file.mode),
        (old.ino, Some(S_IFREG | 0o600))
    );
    assert!(f.lookup("k").unwrap().is_none());
}

#[test]
fn what_changed_meanwhile_is_not_overwritten_by_a_change_of_attributes() {
    let f = fixture();
    f.put("k", b"one");
    let old = f.file("k");
    f.put("k", b"two");
    // What is believed is the old version; what is copied is the new one.
    f.remote
        .set_attributes(f.there.id, "k", with_mode(0o600))
        .unwrap();
    let new = f.file("k");
    assert_ne!(new.ino, old.ino);
    assert_eq!(f.read(&new).unwrap(), b"two");
}

#[test]
fn a_change_that_fails_leaves_no_trace() {
    let f = fixture();
    f.put("k", b"bytes");
    f.file("k");
    f.unplug(true);
    let failed = write(&f.remote, f.there.id, "new", b"bytes");
    assert!(matches!(failed, Err(Error::OriginUnavailable(_))));
    assert!(
        f.remote
            .rename(f.there.id, "k", "l", RenameMode::Replace)
            .is_err()
    );
    f.unplug(false);
    f.clock.advance(60);
    assert!(f.lookup("new").unwrap().is_none());
    assert!(f.lookup("l").unwrap().is_none());
    assert_eq!(f.read(&f.file("k")).unwrap(), b"bytes");
    // Staging files have no names.
    let names = fs::read_dir(f.dir.path()).unwrap();
    assert!(names.map(|entry| entry.unwrap().file_name()).eq(["data"]));
}
