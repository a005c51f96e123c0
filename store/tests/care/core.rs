//! What reading the core has brought up, each as a test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_store::api::{Buckets, Durability, Files, NewBucket, Objects, RenameMode};
use forebay_store::digest::DigestSet;
use forebay_store::name::BucketName;
use forebay_store::{Error, Store};

use super::fixture::{Fixture, bytes, options};

#[test]
fn a_read_beside_an_overwrite_sees_one_of_the_two() {
    let fixture = Fixture::new();
    fixture.put("k", b"first");
    let (bucket, store) = (fixture.bucket(), fixture.store().clone());
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let mut reads = 0;
            while !done.load(Ordering::Acquire) {
                store
                    .lookup(bucket, "k")
                    .expect("a key that is always there");
                reads += 1;
            }
            reads
        }
    });
    for round in 0..400_u32 {
        fixture.write_file("k", &round.to_le_bytes(), Durability::Deferred);
    }
    done.store(true, Ordering::Release);
    assert!(reader.join().unwrap() > 100);
}

#[test]
fn the_file_of_an_upload_stays_while_parts_arrive() {
    let mut fixture = Fixture::new();
    let upload = fixture.begin_upload("k");
    let (first, second) = (bytes(5 << 20, 1), bytes(5 << 20, 2));
    fixture.put_part(&upload, 1, &bytes(5 << 20, 3));
    // Its place is taken, so it goes to a file of its own, and nothing is left in the upload's
    // file.
    let one = fixture.put_part(&upload, 1, &first);
    std::thread::sleep(Duration::from_millis(1500));
    let two = fixture.put_part(&upload, 2, &second);
    fixture.complete(&upload, &[one, two]);
    assert!(fixture.get("k").unwrap() == [first, second].concat());
    let aborted = fixture.begin_upload("k");
    fixture.put_part(&aborted, 1, &bytes(400_000, 4));
    fixture
        .runtime
        .block_on(fixture.store().abort_upload(aborted))
        .unwrap();
    fixture.delete("k");
    fixture.close();
    assert_eq!(fixture.fsck(true, false).findings, []);
    assert_eq!(fixture.files("files"), Vec::<std::path::PathBuf>::new());
}

/// A file renamed over another, and what a crash leaves right after; `None` where the flusher was
/// faster.
fn crash_after_rename(old: &[u8], new: &[u8]) -> Option<(Fixture, Fixture)> {
    let fixture = Fixture::new();
    fixture.put("target", old);
    fixture.write_file("temporary", new, Durability::Deferred);
    fixture
        .store()
        .rename(fixture.bucket(), "temporary", "target", RenameMode::Replace)
        .unwrap();
    let crashed = fixture.crashed();
    // The copy takes its time: it is of one moment if nothing was flushed meanwhile.
    (crashed.count("unsynced") > 0 && fixture.count("unsynced") > 0).then_some((fixture, crashed))
}

#[test]
fn a_rename_over_a_file_keeps_it_until_the_new_bytes_are_safe() {
    // Of more than 1 MiB: without a CRC until the flusher comes, so that a crash before gives it
    // up.
    let (old, new) = (bytes(400_000, 1), bytes(2_000_000, 2));
    let crashed = (0..200).find_map(|_| crash_after_rename(&old, &new));
    let (fixture, mut crashed) = crashed.expect("the flusher waits for 300 ms");
    crashed.open();
    assert!(
        crashed.get("target").unwrap() == old,
        "the old one is there again"
    );
    assert!(matches!(
        crashed.head("temporary"),
        Err(Error::NoSuchKey(_))
    ));
    crashed.close();
    assert_eq!(crashed.fsck(true, false).findings, []);
    fixture.store().sync().unwrap();
    let mut later = fixture.crashed();
    later.open();
    assert!(
        later.get("target").unwrap() == new,
        "once synced, the new one stays"
    );
}

#[test]
fn bodies_that_stall_do_not_hold_up_others() {
    let fixture = Fixture::new();
    let bucket = fixture.bucket();
    assert_ne!(bucket.0, 0);
    fixture.runtime.block_on(async {
        let mut stalled = Vec::new();
        for _ in 0..250 {
            let mut stage = fixture
                .store()
                .stage(Some(1 << 30), DigestSet::MD5)
                .await
                .unwrap();
            let write = stage.write(Bytes::from(vec![1; 130 << 10]));
            tokio::time::timeout(Duration::from_secs(20), write)
                .await
                .expect("the budget is for bytes that wait for the disk")
                .unwrap();
            stalled.push(stage);
        }
    });
}

#[test]
fn a_store_that_is_dropped_keeps_its_lock_until_its_threads_have_ended() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(options(dir.path())).unwrap());
    for _ in 0..200 {
        match Store::open(options(dir.path())) {
            Err(Error::Locked { .. }) => std::thread::sleep(Duration::from_millis(50)),
            opened => return opened.unwrap().close().unwrap(),
        }
    }
    panic!("the threads go on");
}

#[test]
fn what_an_account_leaves_behind_can_be_changed() {
    let fixture = Fixture::new();
    fixture.put("k", &bytes(3_000, 1));
    // As after the removal of the account that had put it.
    let bucket = fixture.bucket();
    let mut copy = fixture.crashed();
    copy.sql("UPDATE current SET owner = 77");
    copy.open();
    let changed = copy.store().set_attributes(
        bucket,
        "k",
        forebay_store::api::AttributeChange {
            mode: Some(0o600),
            ..forebay_store::api::AttributeChange::default()
        },
    );
    assert_eq!(changed.unwrap().file.mode, Some(0o600));
    copy.write_file("k", &bytes(10, 2), Durability::Deferred);
    copy.store().sync().unwrap();
    assert_eq!(copy.get("k").unwrap(), bytes(10, 2));
}

#[test]
fn a_directory_that_was_renamed_is_not_remembered_where_it_was() {
    let fixture = Fixture::new();
    let bucket = fixture.bucket();
    fixture.put("a/k", b"1");
    fixture.put("b/", b"");
    fixture
        .store()
        .rename(bucket, "a", "b", RenameMode::Replace)
        .unwrap();
    assert_eq!(fixture.get("b/k").unwrap(), b"1");
    fixture.put("c/", b"");
    fixture.put("d/", b"");
    fixture
        .store()
        .rename(bucket, "c", "d", RenameMode::Replace)
        .unwrap();
    assert!(
        fixture.head("d/").is_ok(),
        "the marker that came with the directory"
    );
    assert!(matches!(fixture.head("c/"), Err(Error::NoSuchKey(_))));
}

#[test]
fn a_bucket_that_is_deleted_takes_the_bytes_of_its_uploads_along() {
    let mut fixture = Fixture::new();
    let upload = fixture.begin_upload("k");
    fixture.put_part(&upload, 1, &bytes(600_000, 1));
    let name = BucketName::parse("bucket").unwrap();
    fixture
        .runtime
        .block_on(
            fixture
                .store()
                .delete_bucket(name.clone(), forebay_store::api::Face::S3),
        )
        .unwrap();
    fixture.close();
    assert_eq!(fixture.files("files"), Vec::<std::path::PathBuf>::new());
    assert_eq!(fixture.fsck(true, false).findings, []);
    fixture.open();
    let new = NewBucket {
        name,
        owner: fixture.store().root_account().clone(),
        location: None,
        face: forebay_store::api::Face::S3,
    };
    fixture
        .runtime
        .block_on(fixture.store().create_bucket(new))
        .unwrap();
}
