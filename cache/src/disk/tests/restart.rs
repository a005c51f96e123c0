//! What outlives the process, and how.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

fn objects() -> Vec<Arc<Version>> {
    let sizes = [1, 5000, MIB, MIB + 1, 20 * MIB, 3 * MIB];
    sizes
        .iter()
        .map(|size| version(&format!("k{size}"), *size))
        .collect()
}

#[test]
fn everything_is_there_after_a_proper_end() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    fill_all(&disk, &objects());
    disk.object(&objects()[4]).pin(true);
    let before = disk.status();
    drop(disk);
    let disk = rig.open();
    assert_eq!(disk.status(), before);
    assert!(disk.object(&objects()[4]).pinned());
    for version in objects() {
        let object = disk.object(&version);
        assert!(object.get(0).unwrap().ready().is_none(), "not verified yet");
        assert_eq!(hits(&disk, &version), version.blocks());
        assert!(object.get(0).unwrap().ready().is_some());
    }
}

#[test]
fn what_was_written_to_the_index_is_there_after_a_crash() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    fill_all(&disk, &objects());
    disk.flush_blocking().unwrap();
    let before = disk.status();
    // These come too late for the index.
    let late = [version("late", 9), version("later", 2 * MIB)];
    fill_all(&disk, &late);
    disk.evict(Which::Key {
        bucket: "bucket",
        key: "none",
    })
    .unwrap();
    let evicted = version("evicted", 30);
    fill(&disk, &evicted);
    disk.crash();
    let disk = rig.open();
    disk.shared.room.wait_ready().unwrap();
    for version in objects() {
        assert_eq!(hits(&disk, &version), version.blocks());
    }
    assert!(
        late.iter()
            .all(|version| hits(&disk, version) <= version.blocks())
    );
    assert!(disk.status().bytes >= before.bytes);
    let on_disk = allocated_on_disk(&rig.path());
    assert!(on_disk <= disk.status().bytes + slack(&rig.path()));
    assert_eq!(disk.status().corrupt, 0);
}

#[test]
fn what_a_crash_left_over_is_removed_and_what_it_lost_is_forgotten() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    let (large, small) = (version("large", 5 * MIB), version("small", 70_000));
    put(&disk, &large, 1).unwrap();
    put(&disk, &large, 3).unwrap();
    fill(&disk, &small);
    fill(&disk, &version("other", 10));
    disk.flush_blocking().unwrap();
    disk.crash();
    let root = rig.path();
    std::fs::write(root.join("objects/00/00000000000000ff.obj"), vec![1; 9000]).unwrap();
    std::fs::write(root.join("segments/0000000077.seg"), vec![1; 9000]).unwrap();
    std::fs::write(root.join("segments/stray"), "x").unwrap();
    // A block that nobody knows of, and one that was given back just before.
    let file = data_files(&root)
        .into_iter()
        .find(|path| path.metadata().unwrap().len() == 5 * MIB);
    let file = std::fs::File::options()
        .write(true)
        .open(file.unwrap())
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[9; 5000], 4 * MIB).unwrap();
    forebay_store::sys::punch_hole(std::os::fd::AsRawFd::as_raw_fd(&file), MIB, MIB).unwrap();
    let disk = rig.open();
    disk.shared.room.wait_ready().unwrap();
    assert_eq!(data_files(&root).len(), 2);
    assert_eq!(disk.status().bytes, MIB + 73728 + 4096);
    assert!(allocated_on_disk(&root) <= disk.status().bytes + slack(&root));
    assert_eq!((hits(&disk, &large), hits(&disk, &small)), (1, 1));
    assert!(disk.object(&large).has(3) && !disk.object(&large).has(1));
    assert_eq!(disk.status().corrupt, 0);
}

#[test]
fn a_pin_outlives_a_restart_even_with_nothing_there_yet() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    let version = version("k", 2 * MIB);
    disk.object(&version).pin(true);
    drop(disk);
    let disk = rig.open();
    assert!(disk.object(&version).pinned());
    fill(&disk, &version);
    assert_eq!(disk.status().pinned_bytes, 2 * MIB);
    assert_eq!(disk.evict(Which::All).unwrap(), 0);
    disk.object(&version).pin(false);
    assert_eq!(disk.evict(Which::All).unwrap(), 2 * MIB);
    drop(disk);
    let disk = rig.open();
    assert!(!disk.object(&version).pinned());
    assert_eq!(disk.status().objects, 0);
}

#[test]
fn what_was_evicted_stays_away() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    fill_all(&disk, &objects());
    disk.flush_blocking().unwrap();
    disk.evict(Which::All).unwrap();
    let again = &objects()[1];
    fill(&disk, again);
    drop(disk);
    let disk = rig.open();
    assert_eq!(disk.status().objects, 1);
    assert_eq!(hits(&disk, again), 1);
    assert!(hits(&disk, &objects()[4]) == 0);
}

#[test]
fn another_format_or_a_damaged_index_is_begun_anew() {
    for (name, bytes) in [
        ("forebay-cache", &b"forebay-cache 99\n"[..]),
        ("forebay-cache", b""),
        (
            "index.sqlite",
            b"SQLite format 3\0 but not really, as it goes on like this: aaaaaaaaaaaaa",
        ),
    ] {
        let rig = Rig::in_memory(64 * MIB);
        let disk = rig.open();
        fill_all(&disk, &objects());
        drop(disk);
        std::fs::write(rig.path().join(name), bytes).unwrap();
        let disk = rig.open();
        assert_eq!(
            (disk.status().objects, disk.status().bytes),
            (0, 0),
            "{name}"
        );
        assert_eq!(data_files(&rig.path()), Vec::<PathBuf>::new());
        fill(&disk, &objects()[5]);
        drop(disk);
        assert_eq!(hits(&rig.open(), &objects()[5]), 3);
    }
}

#[test]
fn an_index_that_says_what_can_not_be_is_damaged() {
    for change in [
        "UPDATE objects SET page = 16384 WHERE segment IS NOT NULL",
        "UPDATE objects SET identity = x'00'",
        "UPDATE objects SET size = -1",
        "UPDATE objects SET size = 1 << 60",
        "UPDATE objects SET number = -number",
        "UPDATE runs SET present = 65535",
        "UPDATE runs SET crcs = x'00'",
        "UPDATE runs SET part = 7",
        "DROP TABLE runs",
        "DROP TABLE meta",
    ] {
        let rig = Rig::in_memory(64 * MIB);
        let disk = rig.open();
        fill(&disk, &version("a", 9));
        fill(&disk, &version("b", 2 * MIB));
        drop(disk);
        let index = rusqlite::Connection::open(rig.path().join("index.sqlite")).unwrap();
        index.execute_batch(change).unwrap();
        drop(index);
        let disk = rig.open();
        assert_eq!(disk.status().objects, 0, "{change}");
    }
}

/// Not a test of its own: the process that is killed.
#[test]
fn fill_until_killed() {
    let Some(dir) = std::env::var_os("FOREBAY_TEST_FILL") else {
        return;
    };
    let disk = Disk::open(&DiskConfig {
        free_floor: Some(0),
        ..DiskConfig::new(dir, 64 * MIB, "http://origin")
    })
    .unwrap();
    for round in 0..20 {
        fill(&disk, &version(&format!("s{round}"), 1000 * (round + 1)));
    }
    fill(&disk, &version("l", 9 * MIB + 1));
    // As long as it takes at most.
    std::thread::sleep(Duration::from_secs(2));
    println!("\nfilled");
    for round in 0.. {
        fill(&disk, &version(&format!("n{round}"), 100_000));
        disk.evict(Which::Key {
            bucket: "bucket",
            key: &format!("n{}", round / 2),
        })
        .unwrap();
    }
}

#[test]
fn what_was_put_two_seconds_before_a_kill_is_a_hit() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "disk::tests::restart::fill_until_killed",
            "--nocapture",
        ])
        .env("FOREBAY_TEST_FILL", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "filled"));
    std::thread::sleep(Duration::from_millis(300));
    let config = DiskConfig {
        free_floor: Some(0),
        ..DiskConfig::new(dir.path(), 64 * MIB, "http://origin")
    };
    assert!(matches!(Disk::open(&config), Err(DiskError::Locked(_))));
    child.kill().unwrap();
    child.wait().unwrap();
    let disk = Disk::open(&config).unwrap();
    for round in 0..20 {
        assert_eq!(
            hits(&disk, &version(&format!("s{round}"), 1000 * (round + 1))),
            1
        );
    }
    assert_eq!(hits(&disk, &version("l", 9 * MIB + 1)), 10);
    disk.shared.room.wait_ready().unwrap();
    assert!(allocated_on_disk(dir.path()) <= disk.status().bytes + slack(dir.path()));
}
