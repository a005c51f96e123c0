//! The simulated disk does what it says.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_store::disk::{Disk, DiskFile};
use rusqlite::{Connection, OpenFlags};

use super::{Call, Fault, Script, SimDisk, SyncCall, SyncSite};

/// What the disk holds of a file once the power is back; `None` if the file is gone.
fn after(disk: &SimDisk, seed: u64, name: &str) -> Option<Vec<u8>> {
    fs::read(disk.after_power_cut(seed).root().join(name)).ok()
}

fn with_file(name: &str) -> (SimDisk, Arc<DiskFile>) {
    let disk = SimDisk::new();
    let path = disk.root().join(name);
    disk.create_dir(path.parent().unwrap()).unwrap();
    let file = disk.create(&path).unwrap();
    (disk, file)
}

#[test]
fn only_what_was_synced_survives() {
    let (disk, file) = with_file("f");
    disk.write_at(&file, &[b"old"], 0).unwrap();
    disk.sync_data(&file).unwrap();
    assert_eq!(after(&disk, 0, "f"), None, "its directory was not synced");

    let (disk, file) = with_file("f");
    disk.write_at(&file, &[b"old"], 0).unwrap();
    disk.sync_data(&file).unwrap();
    disk.sync_dir(disk.root()).unwrap();
    disk.write_at(&file, &[b"new"], 0).unwrap();
    assert_eq!(after(&disk, 0, "f").as_deref(), Some(&b"old"[..]));
    assert_eq!(after(&disk, 1, "f").as_deref(), Some(&b"new"[..]));
    let seen: Vec<_> = (2..40)
        .map(|seed| after(&disk, seed, "f").unwrap())
        .collect();
    assert!(seen.contains(&b"old".to_vec()) && seen.contains(&b"new".to_vec()));
}

#[test]
fn a_rename_is_whole_or_not_at_all() {
    let (disk, file) = with_file("staging/f");
    file.file.write_all_at(b"past the disk", 0).unwrap();
    disk.sync_data(&file).unwrap();
    disk.sync_dir(disk.root()).unwrap();
    disk.sync_dir(&disk.root().join("staging")).unwrap();
    disk.rename(&file.path, &disk.root().join("g")).unwrap();
    for seed in 0..20 {
        let names = [after(&disk, seed, "staging/f"), after(&disk, seed, "g")];
        let there: Vec<_> = names.into_iter().flatten().collect();
        assert_eq!(there, [b"past the disk"], "seed {seed}");
    }
    disk.0.lock().off = false;
    disk.sync_dir(disk.root()).unwrap();
    assert_eq!(after(&disk, 0, "staging/f"), None);
}

#[test]
fn a_sync_that_failed_has_lost_its_bytes_for_good() {
    let (disk, file) = with_file("f");
    disk.sync_dir(disk.root()).unwrap();
    disk.follow(Script {
        fault: Some(Fault {
            calls: &[Call::Sync],
            nth: 1,
            errno: libc::EIO,
            lasting: false,
        }),
        ..Script::default()
    });
    disk.write_at(&file, &[b"lost"], 0).unwrap();
    disk.sync_data(&file).unwrap_err();
    disk.write_at(&file, &[b"kept"], 4).unwrap();
    disk.sync_data(&file).unwrap();
    assert_eq!(after(&disk, 0, "f").as_deref(), Some(&b"\0\0\0\0kept"[..]));
}

#[test]
fn a_label_is_synced_by_fsync_alone() {
    let (disk, file) = with_file("f");
    disk.set_label(&file, b"what").unwrap();
    disk.sync_data(&file).unwrap();
    disk.sync_dir(disk.root()).unwrap();
    let label = |disk: &SimDisk| disk.0.lock().label_at("f".as_ref());
    assert_eq!(label(&disk.after_power_cut(0)), None);
    disk.0.lock().off = false;
    disk.sync_all(&file).unwrap();
    assert_eq!(label(&disk.after_power_cut(0)), Some(b"what".to_vec()));
}

fn open_index(disk: &SimDisk) -> rusqlite::Result<Connection> {
    let path: PathBuf = disk.root().join("index.sqlite");
    let flags = OpenFlags::default();
    let db = Connection::open_with_flags_and_vfs(path, flags, disk.vfs().unwrap())?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "wal_autocheckpoint", 3)?;
    db.execute(
        "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, filling BLOB)",
        (),
    )?;
    Ok(db)
}

/// Commits rows until something fails; gives how many were acknowledged.
fn commit_rows(disk: &SimDisk) -> i64 {
    let mut acknowledged = 0;
    let Ok(db) = open_index(disk) else { return 0 };
    if disk.sync_dir(disk.root()).is_err() {
        return 0;
    }
    for n in 1..=12 {
        if db
            .execute("INSERT INTO t VALUES (?1, zeroblob(3000))", [n])
            .is_err()
        {
            break;
        }
        acknowledged = n;
    }
    acknowledged
}

/// Rows that are there after a power cut.
fn rows(disk: &SimDisk) -> rusqlite::Result<i64> {
    let db = open_index(disk)?;
    let check: String = db.query_row("PRAGMA integrity_check", (), |row| row.get(0))?;
    assert_eq!(check, "ok");
    db.query_row("SELECT count(*) FROM t", (), |row| row.get(0))
}

#[test]
fn sqlite_keeps_its_promise_on_this_disk() {
    for stop in 1.. {
        let disk = SimDisk::new();
        disk.follow(Script {
            stop_at_sync: Some(stop),
            ..Script::default()
        });
        let acknowledged = commit_rows(&disk);
        for seed in 0..8 {
            let after = disk.after_power_cut(seed);
            let found = rows(&after).unwrap();
            assert!(
                (acknowledged..=acknowledged + 1).contains(&found),
                "stop {stop}, seed {seed}: {acknowledged} acknowledged, {found} found"
            );
        }
        if !disk.struck() {
            assert!(stop > 12, "every commit syncs");
            return;
        }
    }
}

#[test]
fn sqlite_without_a_sync_loses_what_it_promised() {
    let disk = SimDisk::new();
    commit_rows(&disk);
    let mut sites = disk.syncs();
    sites.sort();
    sites.dedup();
    let log = SyncSite::new(SyncCall::All, "index.sqlite-wal".as_ref());
    assert!(sites.contains(&log), "{sites:?}");
    let loses = (2..60).any(|seed| {
        let disk = SimDisk::new();
        disk.follow(Script {
            stop_at_sync: Some(14),
            skip: Some(log.clone()),
            ..Script::default()
        });
        let acknowledged = commit_rows(&disk);
        rows(&disk.after_power_cut(seed)).is_ok_and(|found| found < acknowledged)
    });
    assert!(loses);
}

#[test]
fn sqlite_is_told_of_a_full_disk() {
    let disk = SimDisk::new();
    disk.follow(Script {
        fault: Some(Fault {
            calls: &[Call::Write],
            nth: 20,
            errno: libc::ENOSPC,
            lasting: true,
        }),
        ..Script::default()
    });
    let acknowledged = commit_rows(&disk);
    assert!(disk.struck() && acknowledged < 12);
    disk.follow(Script::default());
    assert_eq!(rows(&disk), Ok(acknowledged));
}
