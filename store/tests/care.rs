//! fsck, scrub and rebuilding find what was damaged, say so, and give back what there is.

mod core;
mod fixture;

use std::fs;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use forebay_store::fsck::{Outcome, Problem};
use forebay_store::rebuild::rebuild_index_blocking;
use forebay_store::scrub::scrub_closed_blocking;
use forebay_store::{Error, Store};

use fixture::{Fixture, bytes, options};

fn closed() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.fill();
    fixture.close();
    fixture
}

#[test]
fn a_store_that_was_closed_is_clean() {
    let fixture = closed();
    let report = fixture.fsck(true, false);
    assert_eq!(report.findings, []);
    assert_eq!((report.exit_code(), report.objects), (0, 7));
    let scrubbed = scrub_closed_blocking(fixture.data(), None, |_| ControlFlow::Continue(()));
    let scrubbed = scrubbed.unwrap();
    assert!(scrubbed.is_complete && scrubbed.damage.is_empty());
    assert_eq!(scrubbed.progress.bytes, report.bytes);
    assert_eq!(scrubbed.progress.bytes_total, report.bytes);
}

#[test]
fn a_store_that_is_open_is_locked() {
    let fixture = Fixture::new();
    let options = forebay_store::fsck::FsckOptions::new(fixture.data());
    let locked = forebay_store::fsck::fsck_blocking(&options);
    assert!(matches!(locked, Err(Error::Locked { .. })));
    let locked = rebuild_index_blocking(fixture.data());
    assert!(matches!(locked, Err(Error::Locked { .. })));
}

#[test]
fn a_flipped_bit_in_a_segment_is_found_by_reading() {
    let mut fixture = closed();
    let path = fixture.damage("segments", &bytes(6_000, 2), 0);
    assert_eq!(
        fixture.fsck(false, false).exit_code(),
        0,
        "only reading finds it"
    );
    let report = fixture.fsck(true, true);
    let damaged = |problem: &Problem| matches!(problem, Problem::DataDamaged { path: of, len: 6_000, .. } if *of == path);
    let [finding] = &report.findings[..] else {
        panic!("{report:?}")
    };
    assert!(damaged(&finding.problem) && finding.outcome == Outcome::Left);
    assert_eq!(
        report.exit_code(),
        4,
        "a repair does not remove what may be of use"
    );
    fixture.open();
    let scrubbed = fixture
        .store()
        .scrub_blocking(None, |_| ControlFlow::Continue(()));
    let scrubbed = scrubbed.unwrap();
    let [damage] = &scrubbed.damage[..] else {
        panic!("{scrubbed:?}")
    };
    assert!(matches!(damage.error, Error::Corrupt { len: 6_000, .. }));
    assert_eq!(damage.objects, [(fixture.bucket(), "small".to_owned())]);
    assert!(matches!(fixture.get("small"), Err(Error::Corrupt { .. })));
}

#[test]
fn a_flipped_bit_in_a_record_is_found_without_reading_the_data() {
    let fixture = closed();
    let path = fixture.damage("segments", &bytes(6_000, 2), 3);
    let report = fixture.fsck(false, false);
    let [finding] = &report.findings[..] else {
        panic!("{report:?}")
    };
    assert!(matches!(&finding.problem, Problem::RecordDamaged { path: of, .. } if *of == path));
    assert!(
        finding
            .to_string()
            .contains("could not be found without the index")
    );
}

#[test]
fn a_flipped_bit_in_a_file_is_found_in_all_objects_that_share_it() {
    let mut fixture = closed();
    fixture.damage("files", &bytes(700_000, 4), 0);
    assert_eq!(fixture.fsck(true, false).exit_code(), 4);
    fixture.open();
    let scrubbed = fixture
        .store()
        .scrub_blocking(None, |_| ControlFlow::Continue(()));
    let scrubbed = scrubbed.unwrap();
    let objects: Vec<&str> = scrubbed.damage[0]
        .objects
        .iter()
        .map(|(_, key)| key.as_str())
        .collect();
    assert_eq!(objects, ["copy of large", "large"]);
}

#[test]
fn a_file_that_is_gone_costs_its_objects_and_nothing_else() {
    let mut fixture = closed();
    let path = fixture.damage("files", &bytes(700_000, 4), 0);
    fs::remove_file(&path).unwrap();
    let report = fixture.fsck(false, false);
    let lost: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert_eq!(report.exit_code(), 4);
    assert_eq!(lost.len(), 3, "the file and its two objects: {lost:?}");
    let repaired = fixture.fsck(false, true);
    assert_eq!((repaired.exit_code(), repaired.findings.len()), (1, 3));
    assert_eq!(fixture.fsck(true, false).findings, []);
    fixture.open();
    assert!(matches!(fixture.head("large"), Err(Error::NoSuchKey(_))));
    assert_eq!(fixture.get("small").unwrap(), bytes(6_000, 2));
}

#[test]
fn a_file_that_was_cut_is_found() {
    let fixture = closed();
    let path = fixture.damage("files", &bytes(700_000, 4), 0);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(600_000).unwrap();
    let report = fixture.fsck(false, true);
    let cut = |problem: &Problem| matches!(problem, Problem::ExtentOutOfFile { size: 600_000, .. });
    assert!(report.findings.iter().any(|finding| cut(&finding.problem)));
    assert_eq!(report.exit_code(), 1);
    assert_eq!(fixture.fsck(true, false).findings, []);
}

#[test]
fn wrong_figures_in_the_index_are_found_and_put_right() {
    let wrong = [
        "UPDATE extents SET refs = refs + 1",
        "UPDATE files SET live = live - 1",
        "UPDATE files SET refs = 7",
        "DELETE FROM files",
        "UPDATE files SET size = 8 WHERE packed",
        "UPDATE meta SET value = 3 WHERE name = 'id_limit'",
        "INSERT INTO extents SELECT 1000000, file, packed, offset, len, crc, 1 FROM extents LIMIT 1",
        "DELETE FROM extents WHERE id = (SELECT min(id) FROM extents)",
        "UPDATE current SET size = size + 1 WHERE key = CAST('large' AS BLOB)",
        "UPDATE current SET extents = x'01' WHERE key = CAST('tiny' AS BLOB)",
        "INSERT INTO fallbacks SELECT 5, bucket, key, size, etag, etag_parts, modified_at, owner, storage_class,
         checksum_kind, id, ino, mode, uid, gid, mtime, ctime, rdev, content_type, cache_control, version, x'', NULL
         FROM current LIMIT 1; UPDATE fallbacks SET size = 0",
        "DELETE FROM uploads",
        "UPDATE uploads SET bucket = 12345",
    ];
    let good = closed();
    for sql in wrong {
        let fixture = good.crashed();
        fixture.sql(sql);
        assert_eq!(fixture.fsck(false, false).exit_code(), 4, "{sql}");
        let repaired = fixture.fsck(false, true);
        assert_eq!(repaired.exit_code(), 1, "{sql}: {repaired:?}");
        assert_eq!(fixture.fsck(true, false).findings, [], "{sql}");
        let mut fixture = fixture;
        fixture.open();
        fixture.put("later", &bytes(2_000, 20));
        assert_eq!(fixture.get("small").unwrap_or_default().len() % 6_000, 0);
        fixture.close();
        assert_eq!(
            fixture.fsck(true, false).findings,
            [],
            "{sql}, and a start later"
        );
    }
}

#[test]
fn what_can_only_be_guessed_is_left() {
    for sql in [
        "UPDATE current SET details = x'ff' WHERE key = CAST('small' AS BLOB)",
        "UPDATE current SET key = x'ff' WHERE key = CAST('small' AS BLOB)",
        "DELETE FROM buckets",
    ] {
        let fixture = closed();
        fixture.sql(sql);
        assert_eq!(fixture.fsck(false, true).exit_code(), 4, "{sql}");
    }
}

#[test]
fn leftovers_of_a_crash_are_no_damage() {
    let fixture = closed();
    let orphan = fixture.data().join("files/34/0000000000001234.obj");
    fs::write(&orphan, b"never published").unwrap();
    let report = fixture.fsck(false, false);
    assert_eq!((report.exit_code(), report.findings.len()), (0, 1));
    assert_eq!(fixture.fsck(false, true).exit_code(), 1);
    assert!(!orphan.exists());
    assert_eq!(fixture.fsck(false, false).findings, []);
}

#[test]
fn an_index_that_is_no_index_is_a_finding() {
    let fixture = closed();
    fs::write(fixture.data().join("index.sqlite"), vec![7; 40_000]).unwrap();
    let report = fixture.fsck(false, true);
    assert_eq!(report.exit_code(), 4);
    assert!(
        report.findings[0].to_string().contains("--rebuild-index"),
        "{report:?}"
    );
}

#[test]
fn a_scrub_keeps_to_its_pace_and_ends_when_told() {
    let fixture = closed();
    let mut calls = 0;
    let ended = scrub_closed_blocking(fixture.data(), None, |_| {
        calls += 1;
        if calls == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(!ended.unwrap().is_complete);
    assert_eq!(calls, 2);
    let began = Instant::now();
    let total = fixture.fsck(false, false).bytes;
    let paced = scrub_closed_blocking(fixture.data(), Some(total * 2), |_| {
        ControlFlow::Continue(())
    });
    assert!(paced.unwrap().is_complete);
    assert!(
        began.elapsed() >= Duration::from_millis(450),
        "half a second's worth"
    );
}

/// Checks that all objects are as `Fixture::fill` has made them.
fn check_all(fixture: &Fixture) {
    let joined = [bytes(5 << 20, 7), bytes(300_000, 8)].concat();
    for (name, expected) in [
        ("small", bytes(6_000, 2)),
        ("tiny", b"x".to_vec()),
        ("large", bytes(700_000, 4)),
        ("file", bytes(3_000, 5)),
        ("large file", bytes(2_000_000, 6)),
        ("joined", joined),
    ] {
        assert!(fixture.get(name).unwrap() == expected, "{name}");
    }
    let entry = fixture.head("large").unwrap();
    assert_eq!(
        entry.attributes.user_metadata,
        [("color".to_owned(), b"blue".to_vec())]
    );
}

#[test]
fn an_index_is_built_of_the_data_alone() {
    let mut fixture = closed();
    let before = closed_entry(&mut fixture, "joined");
    fs::remove_file(fixture.data().join("index.sqlite")).unwrap();
    let refused = Store::open(options(fixture.data()));
    assert!(
        matches!(&refused, Err(Error::IndexDamaged(text)) if text.contains("--rebuild-index")),
        "{refused:?}"
    );
    let report = rebuild_index_blocking(fixture.data()).unwrap();
    let [skipped] = &report.skipped[..] else {
        panic!("{report:?}")
    };
    assert!(
        skipped.contains("unclaimed"),
        "the part of the upload in progress: {skipped}"
    );
    assert_eq!(
        (report.buckets_made, report.accounts_made, report.old_index),
        (1, 1, None)
    );
    assert!(!report.is_salvaged);
    assert_eq!(
        fixture.fsck(true, false).exit_code(),
        0,
        "{:?}",
        fixture.fsck(true, false)
    );
    fixture.open();
    check_all(&fixture);
    assert_eq!(closed_entry_open(&fixture, "joined"), before);
    assert_eq!(
        *fixture.store().root_account(),
        fixture.head("large").unwrap().owner
    );
    fixture.put("later", &bytes(1_000, 30));
    fixture.close();
    assert_eq!(fixture.fsck(true, false).findings, []);
}

fn closed_entry(fixture: &mut Fixture, name: &str) -> (String, u64, i64) {
    fixture.open();
    let found = closed_entry_open(fixture, name);
    fixture.close();
    found
}

fn closed_entry_open(fixture: &Fixture, name: &str) -> (String, u64, i64) {
    let entry = fixture.head(name).unwrap();
    (
        entry.etag.to_string(),
        entry.id,
        entry.modified_at.seconds(),
    )
}

#[test]
fn a_damaged_index_gives_accounts_and_keys_and_is_kept() {
    let mut fixture = Fixture::new();
    fixture.fill();
    let account = fixture.store().create_account_blocking("alice").unwrap();
    let key = fixture
        .store()
        .create_key_blocking(&account.id, None)
        .unwrap();
    fixture.close();
    fixture.sql("DELETE FROM extents");
    assert_eq!(fixture.fsck(false, false).exit_code(), 4);
    let report = rebuild_index_blocking(fixture.data()).unwrap();
    assert!(report.is_salvaged);
    assert_eq!(
        report.old_index,
        Some(fixture.data().join("index.sqlite.broken-1"))
    );
    assert!(report.old_index.unwrap().exists());
    fixture.open();
    check_all(&fixture);
    let (accounts, keys) = fixture.store().accounts();
    assert!(accounts.iter().any(|found| found.name == "alice"));
    assert_eq!(keys, [key]);
    fixture.close();
    let again = rebuild_index_blocking(fixture.data()).unwrap();
    assert_eq!(
        again.old_index,
        Some(fixture.data().join("index.sqlite.broken-2"))
    );
}

#[test]
fn what_is_damaged_is_told_and_the_rest_comes_back() {
    let mut fixture = closed();
    fixture.damage("segments", &bytes(6_000, 2), 0);
    let file = fixture.damage("files", &bytes(700_000, 4), 0);
    fs::remove_file(fixture.data().join("index.sqlite")).unwrap();
    let report = rebuild_index_blocking(fixture.data()).unwrap();
    let skipped = report.skipped.join("\n");
    assert!(
        skipped.contains("bucket/small") && skipped.contains("bucket/large"),
        "{skipped}"
    );
    let aside = fixture
        .data()
        .join("unclaimed")
        .join(file.file_name().unwrap());
    assert!(aside.exists(), "no start removes it");
    fixture.open();
    assert_eq!(
        fixture.get("small").unwrap(),
        bytes(5_000, 1),
        "the version before it"
    );
    assert!(matches!(fixture.head("large"), Err(Error::NoSuchKey(_))));
    assert_eq!(fixture.get("tiny").unwrap(), b"x");
}

#[test]
fn a_damaged_head_hides_one_record_only() {
    let mut fixture = closed();
    fixture.damage("segments", &bytes(5_000, 1), 3);
    fs::remove_file(fixture.data().join("index.sqlite")).unwrap();
    let report = rebuild_index_blocking(fixture.data()).unwrap();
    assert_eq!(
        report.skipped.len(),
        2,
        "the record, and a part: {report:?}"
    );
    fixture.open();
    check_all(&fixture);
}
