//! A put of a small object waits for one sync, and is made anew of its record after a power cut.

use forebay_store::api::{Durability, Files, RenameMode};
use forebay_store::fsck::{FsckOptions, fsck_blocking};
use forebay_store::rule::precondition::Precondition;

use crate::bench::{Bench, SEGMENT};
use crate::sim::{Call, Fault, Script, SimDisk};
use crate::workload;

/// A store in which nothing waits for a sync, and a segment has been begun.
fn quiet() -> (SimDisk, Bench) {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    bench.put("first", b"begins the segment").unwrap();
    bench.store.sync().unwrap();
    disk.follow(Script::default());
    (disk, bench)
}

/// The store as it is after a power cut that leaves nothing but what was synced.
fn after_power_cut(disk: &SimDisk) -> (SimDisk, Bench) {
    let disk = disk.after_power_cut(0);
    let bench = Bench::on(&disk).unwrap();
    (disk, bench)
}

fn assert_clean(disk: &SimDisk) {
    let report = fsck_blocking(&FsckOptions {
        deep: true,
        ..FsckOptions::new(&disk.root().join("data"))
    });
    assert_eq!(report.unwrap().findings, []);
}

fn count(disk: &SimDisk, what: &str) -> usize {
    let syncs = disk.syncs();
    syncs.iter().filter(|site| site.what == what).count()
}

#[test]
fn a_small_put_waits_for_its_segment_alone() {
    let (disk, bench) = quiet();
    // Within the time that the flusher leaves others to come.
    bench.put("a", b"one").unwrap();
    assert_eq!(count(&disk, "data/segments/*.seg"), 1);
    assert_eq!(count(&disk, "data/index.sqlite-wal"), 0);
    bench.delete("a").unwrap();
    assert!(
        count(&disk, "data/index.sqlite-wal") > 0,
        "it has no record"
    );
}

#[test]
fn what_was_put_is_there_as_it_was() {
    let (disk, bench) = quiet();
    bench.put("a", b"old").unwrap();
    bench.store.sync().unwrap();
    let puts: Vec<_> = [("a", "new"), ("b", "one"), ("b", "two"), ("first", "x")]
        .iter()
        .map(|(key, bytes)| bench.put(key, bytes.as_bytes()).unwrap())
        .collect();
    let (disk, bench) = after_power_cut(&disk);
    for (key, bytes) in [("a", "new"), ("b", "two"), ("first", "x")] {
        assert_eq!(bench.get(key).unwrap().as_deref(), Some(bytes.as_bytes()));
        let put = puts.iter().rfind(|entry| entry.key.as_str() == key);
        let (put, found) = (put.unwrap(), bench.head(key).unwrap().unwrap());
        assert_eq!(found.etag, put.etag);
        assert_eq!(found.modified_at, put.modified_at);
        assert_eq!((found.id, found.ino), (put.id, put.ino));
        assert_eq!(found.extents, put.extents);
    }
    // Nothing is put in the place of what was put again.
    bench.put("c", b"later").unwrap();
    let (disk, bench) = after_power_cut(&disk);
    assert_eq!(bench.keys().unwrap(), ["a", "b", "c", "first"]);
    assert_eq!(bench.get("a").unwrap().as_deref(), Some(&b"new"[..]));
    bench.close().unwrap();
    assert_clean(&disk);
}

#[test]
fn a_log_is_not_applied_to_an_index_that_lost_a_rename() {
    let (disk, bench) = quiet();
    bench.put("a", b"old").unwrap();
    bench.store.sync().unwrap();
    let store = &bench.store;
    store
        .rename(bench.bucket, "a", "b", RenameMode::Replace)
        .unwrap();
    bench.put("a", b"new").unwrap();
    let (_disk, bench) = after_power_cut(&disk);
    assert_eq!(bench.get("a").unwrap().as_deref(), Some(&b"new"[..]));
    assert_eq!(bench.get("b").unwrap().as_deref(), Some(&b"old"[..]));
}

#[test]
fn a_put_over_a_file_that_is_not_synced_is_made_again() {
    let (disk, bench) = quiet();
    bench.put("a", b"old").unwrap();
    let file = bench.write_file("a", &[7; 9000], Durability::Deferred);
    file.unwrap();
    bench.put("a", b"new").unwrap();
    bench.put("a", b"newer").unwrap();
    let (disk, bench) = after_power_cut(&disk);
    assert_eq!(bench.get("a").unwrap().as_deref(), Some(&b"newer"[..]));
    bench.close().unwrap();
    assert_clean(&disk);
}

#[test]
fn a_full_segment_is_left_behind_with_a_sync_of_the_index() {
    let (mut disk, mut bench) = quiet();
    let body = |n: usize| vec![u8::try_from(n).unwrap(); 3000];
    let key = |n: usize| format!("k{n:02}");
    for n in 0..3 * usize::try_from(SEGMENT).unwrap() / 3000 {
        bench.put(&key(n), &body(n)).unwrap();
        (disk, bench) = after_power_cut(&disk);
        for n in 0..=n {
            let found = bench.get(&key(n)).unwrap();
            assert!(found == Some(body(n)), "object {n}");
        }
    }
    bench.close().unwrap();
    assert_clean(&disk);
}

#[test]
fn a_put_that_was_refused_does_not_come_back() {
    let (disk, bench) = quiet();
    bench.put("a", b"safe").unwrap();
    bench.store.sync().unwrap();
    disk.follow(Script {
        fault: Some(Fault {
            calls: &[Call::Write],
            // The first is the record's, the next the log's.
            nth: 2,
            errno: libc::ENOSPC,
            lasting: false,
        }),
        ..Script::default()
    });
    let refused = bench.put_if("a", b"refused", Precondition::NONE);
    refused.unwrap_err();
    bench.put("b", b"taken").unwrap();
    let (_disk, bench) = after_power_cut(&disk);
    assert_eq!(bench.get("a").unwrap().as_deref(), Some(&b"safe"[..]));
    assert_eq!(bench.get("b").unwrap().as_deref(), Some(&b"taken"[..]));
}

#[test]
fn a_batch_that_can_not_begin_leaves_the_one_before_it_alone() {
    let (disk, bench) = quiet();
    let other = rusqlite::Connection::open(disk.root().join("data/index.sqlite")).unwrap();
    bench.put("a", b"answered").unwrap();
    // Longer than the committer waits, and with it the flusher.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    bench.put("b", b"refused").unwrap_err();
    let (_disk, bench) = after_power_cut(&disk);
    assert_eq!(bench.get("a").unwrap().as_deref(), Some(&b"answered"[..]));
}

#[test]
fn bytes_that_look_like_a_log_are_bytes() {
    let (disk, bench) = quiet();
    bench.put("real", b"bytes").unwrap();
    let entry = bench.head("real").unwrap().unwrap();
    let segments = disk.root().join("data/segments");
    let segment = std::fs::read_dir(segments).unwrap().next().unwrap();
    let segment = std::fs::read(segment.unwrap().path()).unwrap();
    // A whole record of another object, put as the bytes of one.
    let end = usize::try_from(entry.extents[0].offset + 8).unwrap();
    let record = &segment[end - 300..end];
    bench.delete("real").unwrap();
    bench.put("copy", record).unwrap();
    let (_disk, bench) = after_power_cut(&disk);
    assert_eq!(bench.keys().unwrap(), ["copy", "first"]);
    assert_eq!(bench.get("copy").unwrap().as_deref(), Some(record));
}
