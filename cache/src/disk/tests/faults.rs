//! A disk that does not take what is written.

use std::process::Command;

use super::*;

/// Not a test of its own: a process whose files may not grow, run by the test below.
#[test]
fn put_with_files_limited() {
    let Some(dir) = std::env::var_os("FOREBAY_TEST_LIMITED") else {
        return;
    };
    let rig = Rig::new(64 * MIB);
    let config = DiskConfig {
        dir: dir.into(),
        ..rig.config()
    };
    let disk = rig.try_open(&config, false).unwrap();
    let version = version("k", 6 * MIB);
    for _ in 0..3 {
        assert_eq!(disk.health(), Health::Good);
        let err = put(&disk, &version, 5).unwrap_err();
        assert!(matches!(err, PutError::Io(_)), "{err:?}");
        assert_eq!((disk.status().bytes, disk.status().objects), (0, 0));
        assert!(!disk.object(&version).has(5));
    }
    assert!(matches!(disk.health(), Health::Degraded(_)));
    assert_eq!(disk.status().write_errors, 3);
    // What would work is not tried either, for a while.
    let err = put(&disk, &small(), 0).unwrap_err();
    assert!(matches!(err, PutError::Degraded(_)), "{err:?}");
    rig.pass(Duration::from_secs(31));
    println!("\ndegraded");
}

fn small() -> Arc<Version> {
    version("small", 100)
}

#[test]
fn a_disk_that_fails_keeps_nothing_half_and_is_degraded() {
    let dir = tempfile::tempdir().unwrap();
    // The index needs less than 3 MiB, the file of a large object more.
    let run = "ulimit -f 3072; trap '' XFSZ; exec \"$0\" \"$@\"";
    let output = Command::new("bash")
        .args(["-c", run])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "disk::tests::faults::put_with_files_limited",
            "--nocapture",
        ])
        .env("FOREBAY_TEST_LIMITED", dir.path().join("cache"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("\ndegraded"),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{text}");
}

#[test]
fn what_could_not_be_written_is_not_there_and_takes_nothing() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    let (large, other) = (version("k", 3 * MIB), version("other", 2 * MIB));
    put(&disk, &large, 0).unwrap();
    // There is no place to make a file.
    let away = rig.dir.path().join("away");
    let path = disk.shared.directory.path(dir::FileKey::Object(2));
    let parent = path.parent().unwrap();
    Command::new("mv").arg(parent).arg(&away).status().unwrap();
    for count in 1..=3 {
        assert!(matches!(put(&disk, &other, 0), Err(PutError::Io(_))));
        assert_eq!(disk.status().write_errors, count);
        assert_eq!((disk.status().objects, disk.status().bytes), (1, MIB));
    }
    Command::new("mv").arg(&away).arg(parent).status().unwrap();
    assert!(matches!(disk.health(), Health::Degraded(_)));
    assert!(matches!(put(&disk, &large, 1), Err(PutError::Degraded(_))));
    assert_eq!((hits(&disk, &large), disk.status().bytes), (1, MIB));
    rig.pass(Duration::from_secs(31));
    put(&disk, &large, 1).unwrap();
    assert_eq!(disk.health(), Health::Good);
    assert_eq!((hits(&disk, &other), hits(&disk, &large)), (0, 2));
}

#[test]
fn after_the_end_nothing_is_put_but_what_is_there_is_read() {
    let rig = Rig::new(64 * MIB);
    let disk = rig.open();
    let version = version("k", 3 * MIB);
    put(&disk, &version, 0).unwrap();
    let object = disk.object(&version);
    let held = object.get(0).unwrap().load_blocking().unwrap();
    disk.close_blocking();
    assert!(matches!(put(&disk, &version, 1), Err(PutError::NotReady)));
    assert!(matches!(
        disk.list(Which::All, None, 1),
        Err(DiskError::Closed)
    ));
    drop(disk);
    assert!(object.get(0).unwrap().ready().is_some());
    drop(object);
    let locked = rig.try_open(&rig.config(), false);
    assert!(
        matches!(locked, Err(DiskError::Locked(_))),
        "bytes of it are in use"
    );
    assert_eq!(held, content(&version, 0));
    drop(held);
    assert_eq!(hits(&rig.open(), &version), 1);
}

/// Not a test of its own: a process with a tiny file system, run by the test below.
#[test]
fn put_on_a_tiny_file_system() {
    let Some(dir) = std::env::var_os("FOREBAY_TEST_TINY") else {
        return;
    };
    let dir = PathBuf::from(dir);
    let rig = Rig::new(64 * MIB);
    let config = DiskConfig {
        dir: dir.join("cache"),
        // The index is on it too.
        free_floor: Some(2 * MIB),
        ..rig.config()
    };
    let disk = Disk::open(&config).unwrap();
    assert!(disk.status().cap < 16 * MIB, "{:?}", disk.status());
    let objects: Vec<_> = (0..20)
        .map(|n| version(&format!("k{n}"), if n % 2 == 0 { 2 * MIB } else { MIB / 2 }))
        .collect();
    let puts = |count: usize| {
        let results = objects
            .iter()
            .cycle()
            .take(count)
            .flat_map(|version| (0..version.blocks()).map(|block| put(&disk, version, block)));
        results.flatten().count()
    };
    // Others go in good time: hardly anything fails.
    let kept = puts(60);
    assert!(kept > 60, "{kept} {:?}", disk.status());
    // Somebody else fills what is left.
    let hog = dir.join("hog");
    let mut file = std::fs::File::create(&hog).unwrap();
    let filled = std::io::Write::write_all(&mut file, &vec![1; 64 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    puts(60);
    for version in &objects {
        hits(&disk, version);
    }
    std::fs::remove_file(&hog).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    if disk.health() == Health::Good {
        assert!(puts(60) > 60, "{:?}", disk.status());
    }
    let status = disk.status();
    assert_eq!(status.corrupt + status.read_errors, 0, "{status:?}");
    drop(disk);
    let disk = Disk::open(&config).unwrap();
    for version in &objects {
        hits(&disk, version);
    }
    assert_eq!(disk.status().corrupt, 0);
    println!("\nsurvived");
}

#[test]
fn a_full_file_system_costs_no_wrong_byte() {
    let dir = tempfile::tempdir().unwrap();
    let run = "mount -t tmpfs -o size=16m tmpfs \"$FOREBAY_TEST_TINY\" && echo mounted && exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "bash", "-c", run])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "disk::tests::faults::put_on_a_tiny_file_system",
            "--nocapture",
        ])
        .env("FOREBAY_TEST_TINY", dir.path())
        .output();
    let Ok(output) = output else {
        println!("skipped: no unshare(1)");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("mounted\n") {
        println!("skipped: no tmpfs for a test here");
        return;
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("\nsurvived") && output.status.success(),
        "{text} {errors}"
    );
}
