//! Parts that are ranges of objects: the bytes are the source's, whatever becomes of it.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_store::Buckets;
use forebay_store::api::Durability;
use forebay_store::digest::{DigestSet, Hasher};
use forebay_store::disk::RealDisk;
use forebay_store::entry::{ETag, Entry, Upload};
use forebay_store::error::Error;
use forebay_store::fsck::{FsckOptions, fsck_blocking};
use forebay_store::limits::PART_SIZE_MIN;
use forebay_store::rebuild::rebuild_index_blocking;
use forebay_store::scrub::scrub_closed_blocking;

use crate::bench::{Bench, PACKED};
use crate::sim::SimDisk;
use crate::sim::random::Random;
use crate::workload;

const PART: usize = 5 << 20;

fn open(data: &Path) -> Bench {
    Bench::open(data, Arc::new(RealDisk)).unwrap()
}

fn etag(bytes: &[u8]) -> ETag {
    let mut hasher = Hasher::new(DigestSet::MD5);
    hasher.update(bytes);
    ETag {
        digest: hasher.finish().md5.unwrap(),
        parts: 0,
    }
}

/// The files of their own that a store has.
fn files(data: &Path) -> BTreeSet<PathBuf> {
    let dirs = fs::read_dir(data.join("files")).unwrap();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

/// Index and data agree, and all bytes are what was written.
fn check_closed(data: &Path) {
    let report = fsck_blocking(&FsckOptions {
        deep: true,
        ..FsckOptions::new(data)
    });
    let report = report.unwrap();
    assert_eq!(report.exit_code(), 0, "{:?}", report.findings);
    let scrubbed = scrub_closed_blocking(data, None, |_| ControlFlow::Continue(())).unwrap();
    assert!(scrubbed.damage.is_empty() && scrubbed.is_complete);
}

/// Copies the bytes from `from` to `to` of the source, whose bytes are `bytes`.
fn copy(
    bench: &Bench,
    upload: &Arc<Upload>,
    number: u16,
    (source, bytes): (&Arc<Entry>, &[u8]),
    (from, to): (usize, usize),
) -> forebay_store::api::CompletedPart {
    let range = (from as u64, (to - from) as u64);
    let part = bench.copy_part(upload, number, source, range).unwrap();
    assert_eq!(part.etag, Some(etag(&bytes[from..to])));
    part
}

#[test]
fn a_range_shares_the_sources_bytes_and_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let bench = open(data);
    let bytes = Random::new(1).bytes(2 * PART + 70_001);
    let source = bench.put("source", &bytes).unwrap();
    let before = files(data);
    let upload = bench.create_upload("m").unwrap();
    let ranges = [(70_000, 70_000 + PART), (3, 3 + PART), (5, 5 + PART)];
    let from = (&source, &bytes[..]);
    let mut parts = Vec::new();
    for (number, range) in (1..).zip(ranges) {
        parts.push(copy(&bench, &upload, number, from, range));
    }
    assert_eq!(files(data), before, "nothing is written");
    let own = Random::new(2).bytes(PACKED + 9);
    parts.push(bench.put_part(&upload, 4, &own).unwrap());
    let entry = bench.complete(&upload, parts).unwrap();
    assert_eq!(entry.extents.len(), 4);
    let mut expected: Vec<u8> = ranges
        .iter()
        .flat_map(|(from, to)| bytes[*from..*to].to_vec())
        .collect();
    expected.extend(&own);
    bench.delete("source").unwrap();
    bench.close().unwrap();
    check_closed(data);

    let bench = open(data);
    assert!(bench.get("m").unwrap().as_ref() == Some(&expected));
    assert!(before.is_subset(&files(data)), "the bytes are in use");
    bench.delete("m").unwrap();
    bench.close().unwrap();
    assert!(files(data).is_empty(), "they go with the last object");
    check_closed(data);
}

#[test]
fn ranges_side_by_side_are_one_file_again_that_the_kernel_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let bench = open(dir.path());
    let bytes = Random::new(1).bytes(2 * PART);
    let source = bench.put("source", &bytes).unwrap();
    let upload = bench.create_upload("m").unwrap();
    let from = (&source, &bytes[..]);
    let parts = vec![
        copy(&bench, &upload, 1, from, (0, PART)),
        copy(&bench, &upload, 2, from, (PART, 2 * PART)),
    ];
    let entry = bench.complete(&upload, parts).unwrap();
    assert!(bench.store.open(&entry).unwrap().file().is_some());
    assert!(bench.get("m").unwrap().as_ref() == Some(&bytes));
    // Neither is cut or labelled for the other.
    assert!(bench.get("source").unwrap().as_ref() == Some(&bytes));
    bench.close().unwrap();
    check_closed(dir.path());
    rebuild_index_blocking(dir.path()).unwrap();
    let bench = open(dir.path());
    assert!(bench.get("source").unwrap().as_ref() == Some(&bytes));
    bench.close().unwrap();
    check_closed(dir.path());
}

#[test]
fn the_first_bytes_of_a_source_are_not_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let bench = open(dir.path());
    let bytes = Random::new(1).bytes(3 * PART);
    let source = bench.upload("source", &bytes).unwrap();
    let upload = bench.create_upload("m").unwrap();
    let part = copy(&bench, &upload, 1, (&source, &bytes), (0, PART));
    let entry = bench.complete(&upload, vec![part]).unwrap();
    assert!(
        bench.store.open(&entry).unwrap().file().is_none(),
        "the file is longer than the object"
    );
    assert!(bench.get("m").unwrap().as_deref() == Some(&bytes[..PART]));
    assert!(bench.get("source").unwrap().as_ref() == Some(&bytes));
    bench.close().unwrap();
    check_closed(dir.path());
}

#[test]
fn a_rebuilt_index_has_an_object_that_shares_if_a_part_of_it_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let bench = open(dir.path());
    let bytes = Random::new(1).bytes(2 * PART);
    let source = bench.put("source", &bytes).unwrap();
    let upload = bench.create_upload("m").unwrap();
    let own = Random::new(2).bytes(PART);
    let parts = vec![
        copy(&bench, &upload, 1, (&source, &bytes), (100, 100 + PART)),
        bench.put_part(&upload, 2, &own).unwrap(),
    ];
    bench.complete(&upload, parts).unwrap();
    bench.close().unwrap();
    let report = rebuild_index_blocking(dir.path()).unwrap();
    assert_eq!((report.objects, report.skipped), (2, Vec::new()));
    let bench = open(dir.path());
    let expected = [&bytes[100..100 + PART], &own].concat();
    assert!(bench.get("m").unwrap().as_ref() == Some(&expected));
    assert!(bench.get("source").unwrap().as_ref() == Some(&bytes));
    bench.close().unwrap();
    check_closed(dir.path());
}

#[test]
fn what_lies_in_a_segment_is_copied() {
    let dir = tempfile::tempdir().unwrap();
    let bench = open(dir.path());
    let (large, small) = (Random::new(1).bytes(PART), Random::new(2).bytes(PACKED - 7));
    let packed = bench.put("packed", &small).unwrap();
    let upload = bench.create_upload("mixed").unwrap();
    let bytes = [&large[..], &small].concat();
    let first = bench.put_part(&upload, 1, &large).unwrap();
    // The second time its place is taken, and it goes to a segment.
    let from = (&packed, &small[..]);
    copy(&bench, &upload, 2, from, (0, small.len()));
    let second = copy(&bench, &upload, 2, from, (0, small.len()));
    let parts = vec![first, second];
    let mixed = bench.complete(&upload, parts).unwrap();
    assert!(mixed.extents[1].packed);

    let upload = bench.create_upload("m").unwrap();
    let parts = vec![copy(
        &bench,
        &upload,
        1,
        (&mixed, &bytes),
        (1, bytes.len() - 1),
    )];
    let entry = bench.complete(&upload, parts).unwrap();
    assert_eq!(entry.extents.len(), 2);
    assert_eq!(entry.extents[0].file, mixed.extents[0].file);
    assert_ne!(entry.extents[1].offset, mixed.extents[1].offset);
    for key in ["mixed", "packed"] {
        bench.delete(key).unwrap();
    }
    assert!(bench.get("m").unwrap().as_deref() == Some(&bytes[1..bytes.len() - 1]));
    bench.close().unwrap();
    check_closed(dir.path());
}

#[test]
fn bytes_that_are_damaged_are_not_copied() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let bench = open(dir.path());
    let bytes = Random::new(1).bytes(PART);
    let source = bench.put("source", &bytes).unwrap();
    let path = files(dir.path()).pop_first().unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[!bytes[77]], 77).unwrap();
    let upload = bench.create_upload("m").unwrap();
    let range = (0, bytes.len() as u64);
    let refused = bench.copy_part(&upload, 1, &source, range).unwrap_err();
    assert!(matches!(refused, Error::Corrupt { .. }), "{refused:?}");
}

#[test]
fn a_range_that_is_not_in_the_source_is_refused() {
    let bench = Bench::on(&SimDisk::new()).unwrap();
    let source = bench.put("source", b"123").unwrap();
    let upload = bench.create_upload("m").unwrap();
    for range in [(0, 4), (4, 0), (u64::MAX, 2)] {
        let refused = bench.copy_part(&upload, 1, &source, range).unwrap_err();
        assert!(matches!(refused, Error::InvalidRequest(_)), "{refused:?}");
    }
}

#[test]
fn a_source_that_is_gone_is_copied_from_what_is_held_of_it_or_looked_up_again() {
    let dir = tempfile::tempdir().unwrap();
    let bench = open(dir.path());
    let bytes = Random::new(1).bytes(4 * PACKED);
    let source = bench.put("source", &bytes).unwrap();
    let upload = bench.create_upload("m").unwrap();
    // As a reader holds it.
    let held = bench.store.open(&source).unwrap();
    bench.delete("source").unwrap();
    let copied = bench.copy_part(&upload, 1, &source, (0, source.size));
    match copied {
        Ok(part) => {
            bench.complete(&upload, vec![part]).unwrap();
            assert!(bench.get("m").unwrap().as_ref() == Some(&bytes));
        }
        Err(err) => assert!(matches!(err, Error::Superseded(_)), "{err:?}"),
    }
    drop(held);
    bench.close().unwrap();
    check_closed(dir.path());
}

#[test]
fn a_part_of_bytes_that_are_not_safe_yet_is_safe() {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    let bytes = Random::new(1).bytes(usize::try_from(PART_SIZE_MIN).unwrap() + 3);
    bench.put("f", b"before").unwrap();
    bench.write_file("f", &bytes, Durability::Deferred).unwrap();
    let source = bench.head("f").unwrap().unwrap();
    let upload = bench.create_upload("m").unwrap();
    let half = bytes.len() / 2;
    let part = copy(&bench, &upload, 1, (&source, &bytes), (half, bytes.len()));
    bench.complete(&upload, vec![part]).unwrap();
    let after = Bench::on(&disk.after_power_cut(0)).unwrap();
    assert!(after.get("m").unwrap().as_deref() == Some(&bytes[half..]));
}
