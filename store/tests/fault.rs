//! Calls to the disk that fail: a clear error, nothing acknowledged lost, the rest goes on.
//!
//! As `SQLite` does it (<https://www.sqlite.org/testing.html>, "I/O error testing"): the first call
//! fails, then the second, and so on until a run needs none to fail.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use forebay_store::api::Objects;
use forebay_store::disk::RealDisk;
use forebay_store::error::Error;

use crate::bench::{Bench, PACKED};
use crate::sim::random::Random;
use crate::sim::{Call, Fault, Script, SimDisk};
use crate::workload::{self, Journal, OnError};

/// Whether an error says that the machine failed, not the caller.
fn is_machine(err: &Error) -> bool {
    matches!(
        err,
        Error::Io { .. } | Error::Index { .. } | Error::SyncFailedEarlier { .. }
    )
}

/// The workload with a fault; whether the fault came.
fn strike(disk: &SimDisk, fault: Fault) -> (Journal, bool) {
    disk.follow(Script {
        fault: Some(fault),
        ..Script::default()
    });
    let mut journal = Journal::default();
    workload::run(disk, &mut journal, OnError::GoOn);
    for err in &journal.errors {
        assert!(is_machine(err), "{fault:?}: {err:?}");
    }
    (journal, disk.struck())
}

/// Lets the first, second, … of some calls fail, until a run makes fewer.
fn sweep(calls: &'static [Call], errno: i32, lasting: bool) {
    let base = workload::fresh_store();
    // A disk that stays full differs little from one write to the next.
    for nth in (1..).step_by(if lasting { 7 } else { 1 }) {
        let disk = base.after_power_cut(1);
        let fault = Fault {
            calls,
            nth,
            errno,
            lasting,
        };
        let (journal, struck) = strike(&disk, fault);
        disk.follow(Script::default());
        let seed = [0, 1, 3000 + nth as u64][nth % 3];
        let checked = workload::check(&disk.after_power_cut(seed), &journal);
        let errors = &journal.errors;
        assert_eq!(checked, Ok(()), "{fault:?}, seed {seed}, {errors:?}");
        if !struck {
            let errors = journal.errors;
            assert!(errors.is_empty(), "nothing failed, but {errors:?}");
            assert!(nth > 1, "{calls:?} are made");
            return;
        }
    }
}

#[test]
fn a_write_that_fails_is_one_refusal() {
    sweep(&[Call::Write], libc::EIO, false);
}

#[test]
fn a_write_without_space_is_one_refusal() {
    sweep(&[Call::Write], libc::ENOSPC, false);
}

#[test]
fn a_sync_that_fails_loses_nothing_acknowledged() {
    sweep(&[Call::Sync], libc::EIO, false);
}

#[test]
fn a_file_that_can_not_be_made_is_one_refusal() {
    sweep(&[Call::Create], libc::EIO, false);
    sweep(&[Call::Create], libc::ENOSPC, false);
    sweep(&[Call::Allocate], libc::ENOSPC, false);
}

#[test]
fn a_removal_or_rename_that_fails_loses_nothing() {
    sweep(&[Call::Remove], libc::EIO, false);
    sweep(&[Call::Rename], libc::EIO, false);
}

#[test]
fn a_disk_that_fills_up_loses_nothing_acknowledged() {
    sweep(
        &[Call::Write, Call::Create, Call::Allocate],
        libc::ENOSPC,
        true,
    );
}

/// Lets the next sync fail.
fn fail_next_sync(disk: &SimDisk) {
    disk.follow(Script {
        fault: Some(Fault {
            calls: &[Call::Sync],
            nth: 1,
            errno: libc::EIO,
            lasting: false,
        }),
        ..Script::default()
    });
}

#[test]
fn a_failed_sync_refuses_writes_and_keeps_reads() {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    bench.put("a", b"safe").unwrap();
    fail_next_sync(&disk);
    let refused = bench.put("a", b"lost").unwrap_err();
    assert!(is_machine(&refused), "{refused:?}");
    let later = bench.put("b", b"late").unwrap_err();
    assert!(
        matches!(later, Error::SyncFailedEarlier { .. }),
        "{later:?}"
    );
    bench.store.writable().unwrap_err();
    assert_eq!(bench.get("a").unwrap().as_deref(), Some(&b"safe"[..]));
    assert_eq!(bench.keys().unwrap(), ["a"]);
    drop(bench.close());

    let bench = Bench::on(&disk).unwrap();
    bench.store.writable().unwrap();
    bench.put("b", b"again").unwrap();
    assert_eq!(bench.get("a").unwrap().as_deref(), Some(&b"safe"[..]));
}

#[test]
fn a_failed_sync_of_one_objects_file_is_that_objects_matter() {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    let old = Random::new(1).bytes(2 * PACKED);
    bench.put("a", &old).unwrap();
    fail_next_sync(&disk);
    let refused = bench.put("a", &Random::new(2).bytes(2 * PACKED));
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
    bench.store.writable().unwrap();
    assert!(
        bench.get("a").unwrap() == Some(old),
        "the old version stays"
    );
    bench.put("a", b"new").unwrap();
    assert_eq!(bench.get("a").unwrap().as_deref(), Some(&b"new"[..]));
}

/// Linux reports a lost page to one `fsync` and calls it clean from then on; the parts of an
/// upload share a file, so the sync that failed for one has lost the others' bytes, too.
#[test]
fn a_failed_sync_of_a_part_is_known_to_the_parts_beside_it() {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    let upload = bench.create_upload("m").unwrap();
    let bodies = [1, 2].map(|seed| Random::new(seed).bytes(3 * PACKED));
    let first = bench.stage_part(&upload, 1, &bodies[0]).unwrap();
    let second = bench.stage_part(&upload, 2, &bodies[1]).unwrap();
    fail_next_sync(&disk);
    let refused = bench.publish_part(&upload, 1, first).unwrap_err();
    assert!(matches!(refused, Error::Io { .. }), "{refused:?}");
    let damaged = |err: Error| assert!(matches!(err, Error::UploadDamaged(_)), "{err:?}");
    damaged(bench.publish_part(&upload, 2, second).unwrap_err());
    damaged(bench.put_part(&upload, 2, &bodies[1]).unwrap_err());
    // Nor one that is in no file of the upload's.
    damaged(bench.put_part(&upload, 3, b"small").unwrap_err());

    bench.run(bench.store.abort_upload(upload)).unwrap();
    bench.store.writable().unwrap();
    bench.upload("m", &bodies[1]).unwrap();
    let after = Bench::on(&disk.after_power_cut(0)).unwrap();
    assert!(after.get("m").unwrap().as_ref() == Some(&bodies[1]));
}

/// A part that was acknowledged before is safe, but the whole is not to be trusted any more.
#[test]
fn an_upload_with_a_failed_sync_is_not_completed() {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    let upload = bench.create_upload("m").unwrap();
    let body = Random::new(1).bytes(3 * PACKED);
    let part = bench.put_part(&upload, 1, &body).unwrap();
    let second = bench.stage_part(&upload, 2, &body).unwrap();
    fail_next_sync(&disk);
    bench.publish_part(&upload, 2, second).unwrap_err();
    let refused = bench.complete(&upload, vec![part]).unwrap_err();
    assert!(matches!(refused, Error::UploadDamaged(_)), "{refused:?}");
    assert_eq!(bench.get("m").unwrap(), None);
    bench.run(bench.store.abort_upload(upload)).unwrap();
    bench.close().unwrap();
}

/// After a failed sync the page cache has what the disk has not. A store that is opened again on
/// the same running machine must not take the one for the other.
#[test]
fn what_is_acknowledged_after_a_failed_sync_and_a_restart_is_safe() {
    let base = workload::fresh_store();
    for nth in 1.. {
        let disk = base.after_power_cut(1);
        let fault = Fault {
            calls: &[Call::Sync],
            nth,
            errno: libc::EIO,
            lasting: false,
        };
        let (mut journal, struck) = strike(&disk, fault);
        disk.follow(Script::default());
        let checked = workload::check(&disk, &journal);
        assert_eq!(checked, Ok(()), "{fault:?}, at the restart");
        journal.checked();
        let checked = workload::check(&disk.after_power_cut(0), &journal);
        assert_eq!(checked, Ok(()), "{fault:?}, after the restart");
        if !struck {
            return;
        }
    }
}

/// A file system of `mib` MiB of its own, unmounted at the end.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(mib: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::File::create(&image)
            .unwrap()
            .set_len(mib << 20)
            .unwrap();
        let at = dir.path().join("at");
        std::fs::create_dir(&at).unwrap();
        let run = |command: &mut Command| command.output().is_ok_and(|done| done.status.success());
        let made = run(Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image));
        let mounted = made
            && run(Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &at]));
        mounted.then_some(Self { dir })
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("at")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "unmounted");
    }
}

/// Puts until the disk is full; the keys that were acknowledged.
fn fill(bench: &Bench, bytes: &[u8]) -> Vec<String> {
    let mut keys = Vec::new();
    for n in 0.. {
        let key = format!("k{n:05}");
        match bench.put(&key, bytes) {
            Ok(_) => keys.push(key),
            Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOSPC) => break,
            Err(err) => panic!("a full disk is ENOSPC, not {err:?}"),
        }
    }
    keys
}

fn open(data: &Path) -> Bench {
    Bench::open(data, Arc::new(RealDisk)).expect("a full disk is opened, too")
}

#[test]
fn deletes_go_on_on_a_full_disk_and_make_room() {
    let Some(small) = SmallDisk::mount(48) else {
        eprintln!("not tested: this process may not mount a file system");
        return;
    };
    let data = small.path().join("data");
    let bytes = Random::new(1).bytes(256 << 10);
    let bench = open(&data);
    let keys = fill(&bench, &bytes);
    assert!(keys.len() > 50, "only {} objects fit", keys.len());
    for key in &keys {
        assert!(bench.get(key).unwrap().as_ref() == Some(&bytes), "{key}");
    }
    let (gone, kept) = keys.split_at(keys.len() - 3);
    for key in gone {
        bench
            .delete(key)
            .unwrap_or_else(|err| panic!("{key}: {err:?}"));
    }
    bench.close().unwrap();

    let bench = open(&data);
    assert_eq!(bench.keys().unwrap(), kept);
    bench.put("new", &bytes).expect("there is room again");
    for key in kept {
        assert!(bench.get(key).unwrap().as_ref() == Some(&bytes), "{key}");
    }
    bench.close().unwrap();
}
