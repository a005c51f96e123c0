//! The limit holds, whatever is put, read, held and pinned.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, block: u64 },
    Hold { key: u8, block: u64 },
    LetGo,
    Pin { key: u8, pinned: bool },
    Evict { key: u8 },
    Reopen { clean: bool },
    Wait,
}

/// Objects of 1 B to 20 MiB.
fn object(key: u8) -> Arc<Version> {
    let sizes = [
        1,
        4096,
        30_000,
        MIB,
        MIB + 1,
        3 * MIB,
        20 * MIB + 5,
        700_000,
    ];
    version(&format!("k{key}"), sizes[usize::from(key) % sizes.len()])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..24_u8;
    let step = prop_oneof![
        20 => (key.clone(), 0..21_u64).prop_map(|(key, block)| Step::Put { key, block }),
        8 => (key.clone(), 0..21_u64).prop_map(|(key, block)| Step::Hold { key, block }),
        2 => Just(Step::LetGo),
        2 => (key.clone(), any::<bool>()).prop_map(|(key, pinned)| Step::Pin { key, pinned }),
        1 => key.prop_map(|key| Step::Evict { key }),
        1 => any::<bool>().prop_map(|clean| Step::Reopen { clean }),
        2 => Just(Step::Wait),
    ];
    proptest::collection::vec(step, 1..100)
}

pub(super) fn check(rig: &Rig, disk: &Disk) {
    let status = disk.status();
    assert!(status.bytes <= rig.limit, "{status:?}");
    let on_disk = allocated_on_disk(&rig.path());
    assert!(
        on_disk <= status.bytes + slack(&rig.path()),
        "{on_disk} {status:?}"
    );
    let (mut bytes, mut pinned, mut protected) = (0, 0, 0);
    disk.shared.table.for_each(|entry| {
        let state = entry.lock();
        bytes += state.bytes;
        pinned += if state.pinned { state.bytes } else { 0 };
        protected += (0..state.runs())
            .filter(|run| {
                let rank = state.run(*run).map(|(rank, _)| rank.part);
                rank == Some(entry::Part::Protected)
            })
            .map(|run| state.run_bytes(run))
            .sum::<u64>();
    });
    let counted = (status.bytes, status.pinned_bytes, status.protected_bytes);
    assert_eq!(counted, (bytes, pinned, protected));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn never_more_than_the_limit_is_on_the_disk(steps in steps()) {
        let rig = Rig::in_memory(9 * MIB);
        let mut disk = rig.open();
        let mut held: Vec<(Bytes, Bytes)> = Vec::new();
        for step in steps {
            match step {
                Step::Put { key, block } => {
                    let object = object(key);
                    let block = block % object.blocks();
                    match put(&disk, &object, block) {
                        Ok(()) | Err(PutError::NoRoom { .. } | PutError::Pinned { .. }) => {}
                        Err(err) => panic!("{err}"),
                    }
                }
                Step::Hold { key, block } => {
                    let object = object(key);
                    let block = block % object.blocks();
                    if let Some(found) = disk.object(&object).get(block) {
                        let bytes = found.load_blocking().unwrap();
                        held.push((bytes, content(&object, block)));
                    }
                }
                Step::LetGo => held.clear(),
                Step::Pin { key, pinned } => disk.object(&object(key)).pin(pinned),
                Step::Evict { key } => {
                    let key = object(key).key.clone();
                    disk.evict(Which::Key { bucket: "bucket", key: &key }).unwrap();
                }
                Step::Reopen { clean } => {
                    held.clear();
                    if clean { drop(disk) } else { disk.crash() }
                    disk = rig.open();
                    disk.shared.room.wait_ready().unwrap();
                }
                Step::Wait => rig.pass(Duration::from_secs(7)),
            }
            check(&rig, &disk);
            for (bytes, expected) in &held {
                prop_assert!(bytes == expected, "a slice changed while it was held");
            }
        }
        prop_assert_eq!(disk.status().corrupt + disk.status().read_errors, 0);
    }
}

#[test]
fn a_slice_that_is_held_over_an_eviction_keeps_its_bytes() {
    for size in [MIB, 4 * MIB] {
        let rig = Rig::in_memory(4 * MIB);
        let disk = rig.open();
        let first = version("first", size);
        fill(&disk, &first);
        let held = disk.object(&first).get(0).unwrap().load_blocking().unwrap();
        let part = held.slice(1000..2000);
        drop(held);
        for other in 0..20 {
            let other = version(&format!("o{other}"), 2 * MIB);
            fill(&disk, &other);
            assert_eq!(part, content(&first, 0).slice(1000..2000));
        }
        assert!(disk.object(&first).has(0), "it stays as long as it is read");
        drop(part);
        (0..200).for_each(|other| fill(&disk, &version(&format!("p{other}"), MIB)));
        assert!(!disk.object(&first).has(0));
    }
}

#[test]
fn what_is_all_pinned_or_held_leaves_no_room() {
    let rig = Rig::new(4 * MIB);
    let disk = rig.open();
    let kept = version("kept", 4 * MIB);
    disk.object(&kept).pin(true);
    fill(&disk, &version("goes", 3 * MIB));
    fill(&disk, &kept);
    let err = put(&disk, &version("more", 1), 0).unwrap_err();
    assert!(
        matches!(err, PutError::Pinned { pinned, limit } if pinned == limit),
        "{err}"
    );
    assert_eq!((hits(&disk, &kept), disk.status().bytes), (4, 4 * MIB));
    assert_eq!(
        data_files(&rig.path()).len(),
        1,
        "nothing is left of what did not fit"
    );
    disk.object(&kept).pin(false);
    let held: Vec<_> = (0..4)
        .map(|block| {
            disk.object(&kept)
                .get(block)
                .unwrap()
                .load_blocking()
                .unwrap()
        })
        .collect();
    let err = put(&disk, &version("more", 1), 0).unwrap_err();
    assert!(
        matches!(err, PutError::NoRoom { needed: 4096, .. }),
        "{err}"
    );
    drop(held);
    put(&disk, &version("more", 1), 0).unwrap();
}

#[test]
fn a_large_object_gives_back_no_more_than_is_needed() {
    let rig = Rig::new(40 * MIB);
    let disk = rig.open();
    let large = version("large", 40 * MIB);
    fill(&disk, &large);
    fill(&disk, &version("small", 10));
    assert_eq!(disk.object(&large).present(), 39);
    assert_eq!(disk.status().evictions, 1);
}

#[test]
fn room_is_made_ahead_of_need() {
    let rig = Rig::new(100 * MIB);
    let disk = rig.try_open(&rig.config(), true).unwrap();
    for number in 0..97 {
        fill(&disk, &version(&format!("k{number}"), MIB));
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while disk.status().bytes > 95 * MIB {
        assert!(std::time::Instant::now() < deadline, "{:?}", disk.status());
        std::thread::yield_now();
    }
    // It may have come by before all was put.
    assert!(disk.status().bytes >= 90 * MIB, "{:?}", disk.status());
}

#[test]
fn the_floor_of_the_file_system_is_kept() {
    let rig = Rig::new(u64::MAX);
    let (_, free, _) = forebay_store::sys::statvfs(rig.dir.path()).unwrap();
    let config = DiskConfig {
        free_floor: Some(free),
        ..rig.config()
    };
    let disk = rig.try_open(&config, false).unwrap();
    assert!(disk.status().cap < free, "{:?}", disk.status());
    let config = DiskConfig {
        free_floor: None,
        dir: rig.dir.path().join("d"),
        ..rig.config()
    };
    let disk = rig.try_open(&config, false).unwrap();
    assert!(disk.status().cap > 0 && disk.status().cap < free);
}

#[test]
fn the_index_is_within_the_limit() {
    let rig = Rig::in_memory(12 * MIB);
    let disk = rig.open_tuned(&rig.config(), false, true).unwrap();
    for number in 0..4000 {
        match put(&disk, &version(&format!("k{number}"), 4096), 0) {
            Ok(()) => {}
            Err(err) => panic!("{number}: {err}"),
        }
        if number % 500 == 0 {
            disk.flush_blocking().unwrap();
            disk.shared.look();
        }
    }
    disk.flush_blocking().unwrap();
    disk.shared.look();
    let status = disk.status();
    assert!(status.index_bytes > 500_000, "{status:?}");
    assert!(status.cap <= rig.limit, "{status:?}");
    // What has grown since it was looked at last goes first.
    put(&disk, &version("last", 4096), 0).unwrap();
    let status = disk.status();
    assert!(status.bytes <= rig.limit, "{status:?}");
    let on_disk = allocated_on_disk(&rig.path()) + disk.shared.directory.index_bytes().unwrap();
    assert!(on_disk <= rig.limit + slack(&rig.path()), "{on_disk}");
}

#[test]
fn evicted_small_objects_leave_no_segment_behind() {
    let rig = Rig::in_memory(4 * MIB);
    let disk = rig.open();
    for number in 0..6000 {
        put(&disk, &version(&format!("k{number}"), 8192), 0).unwrap();
        if number % 200 == 0 {
            disk.flush_blocking().unwrap();
        }
    }
    let segments = data_files(&rig.path()).len();
    assert_eq!(segments, 1, "48 MB went through 4 MiB of places");
    check(&rig, &disk);
    drop(disk);
    let disk = rig.open();
    for number in 0..2000 {
        put(&disk, &version(&format!("n{number}"), 8192), 0).unwrap();
        if number % 200 == 0 {
            disk.flush_blocking().unwrap();
        }
    }
    assert_eq!(data_files(&rig.path()).len(), 1, "also after a restart");
    assert_eq!(disk.status().corrupt, 0);
}
