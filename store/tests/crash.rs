//! Power cuts: what was acknowledged is there, whatever of the rest the medium has kept.
//!
//! `FOREBAY_TEST_SEEDS` says how many ways of keeping part of the rest are tried at each stop.

use std::collections::BTreeSet;

use forebay_store::api::{Durability, Files};

use crate::bench::Bench;
use crate::setting;
use crate::sim::random::Random;
use crate::sim::{Script, SimDisk, SyncCall, SyncSite};
use crate::workload::{self, Journal, OnError};

/// Ways of keeping part of what was not synced: nothing, all, and some by chance that differ from
/// stop to stop.
fn seeds(stop: usize) -> impl Iterator<Item = u64> {
    let count = setting("FOREBAY_TEST_SEEDS").unwrap_or(4);
    let by_chance = (2..count).map(move |n| 1000 * stop as u64 + n);
    [0, 1].into_iter().chain(by_chance)
}

/// Stops the workload at a sync; gives what it had acknowledged.
fn stopped(disk: &SimDisk, stop: Option<usize>, skip: Option<&SyncSite>) -> Journal {
    disk.follow(Script {
        stop_at_sync: stop,
        skip: skip.cloned(),
        ..Script::default()
    });
    let mut journal = Journal::default();
    workload::run(disk, &mut journal, OnError::Stop);
    journal
}

#[test]
fn what_was_acknowledged_survives_a_stop_at_any_sync() {
    let base = workload::fresh_store();
    for stop in 1.. {
        let disk = base.after_power_cut(1);
        let journal = stopped(&disk, Some(stop), None);
        for seed in seeds(stop) {
            let checked = workload::check(&disk.after_power_cut(seed), &journal);
            assert_eq!(checked, Ok(()), "stop {stop}, seed {seed}");
        }
        if !disk.struck() {
            let errors = journal.errors;
            assert!(errors.is_empty(), "nothing failed, but {errors:?}");
            assert!(stop > 20, "the workload syncs {stop} times");
            return;
        }
    }
}

#[test]
fn a_first_start_that_is_cut_short_is_done_again() {
    for stop in 1.. {
        let disk = SimDisk::new();
        disk.follow(Script {
            stop_at_sync: Some(stop),
            ..Script::default()
        });
        if let Ok(bench) = Bench::on(&disk) {
            drop(bench.close());
        }
        for seed in seeds(stop) {
            let checked = workload::check(&disk.after_power_cut(seed), &Journal::default());
            assert_eq!(checked, Ok(()), "stop {stop}, seed {seed}");
        }
        if !disk.struck() {
            return;
        }
    }
}

#[test]
fn a_recovery_that_is_cut_short_is_done_again() {
    let base = workload::fresh_store();
    for stop in (3..).step_by(5) {
        let disk = base.after_power_cut(1);
        let journal = stopped(&disk, Some(stop), None);
        for (again, seed) in (1..=3).zip(2000..) {
            let after = disk.after_power_cut(seed);
            after.follow(Script {
                stop_at_sync: Some(again),
                ..Script::default()
            });
            if let Ok(bench) = Bench::on(&after) {
                drop(bench.close());
            }
            let checked = workload::check(&after.after_power_cut(seed), &journal);
            assert_eq!(checked, Ok(()), "stop {stop}, then {again}, seed {seed}");
        }
        if !disk.struck() {
            return;
        }
    }
}

/// Larger than what the mount hashes while a file is closed: it has no CRC until it is flushed.
const UNHASHED: usize = (1 << 20) + 5;

/// A disk without power since before the flusher could do anything for what was closed last: its
/// bytes before and after.
fn stopped_before_the_flush() -> (SimDisk, Vec<u8>, Vec<u8>) {
    let disk = workload::fresh_store();
    let bench = Bench::on(&disk).unwrap();
    let [old, new] = [1, 2].map(|seed| Random::new(seed).bytes(UNHASHED));
    bench.write_file("f", &old, Durability::Durable).unwrap();
    disk.follow(Script {
        stop_at_sync: Some(1),
        ..Script::default()
    });
    bench.write_file("f", &new, Durability::Deferred).unwrap();
    bench.store.sync().unwrap_err();
    assert!(disk.is_off());
    drop(bench.close());
    (disk, old, new)
}

#[test]
fn a_kill_takes_nothing_that_was_closed() {
    let (disk, _, new) = stopped_before_the_flush();
    let after = disk.after_kill();
    let bench = Bench::on(&after).unwrap();
    assert!(bench.get("f").unwrap().as_ref() == Some(&new));
    // From now on it is safe.
    let cut = after.after_power_cut(0);
    drop(bench.close());
    let bench = Bench::on(&cut).unwrap();
    assert!(bench.get("f").unwrap().as_ref() == Some(&new));
    bench.close().unwrap();
}

#[test]
fn after_a_power_cut_bytes_without_a_checksum_are_not_trusted() {
    let (disk, old, _) = stopped_before_the_flush();
    // Everything has arrived, by chance; nothing says so.
    let bench = Bench::on(&disk.after_power_cut(1)).unwrap();
    assert!(bench.get("f").unwrap().as_ref() == Some(&old));
    bench.close().unwrap();
}

#[test]
fn a_power_cut_after_a_kill_is_a_power_cut() {
    let (disk, old, new) = stopped_before_the_flush();
    for stop in 1.. {
        let after = disk.after_kill();
        after.follow(Script {
            stop_at_sync: Some(stop),
            ..Script::default()
        });
        if let Ok(bench) = Bench::on(&after) {
            drop(bench.close());
        }
        for seed in seeds(stop) {
            // Twice, as a start that is cut short must not take the marks for its own.
            let mut cut = after.after_power_cut(seed);
            cut.follow(Script {
                stop_at_sync: Some(stop),
                ..Script::default()
            });
            if let Ok(bench) = Bench::on(&cut) {
                drop(bench.close());
            }
            cut = cut.after_kill();
            let bench = Bench::on(&cut).unwrap();
            let found = bench.get("f").unwrap();
            let known = [&old, &new].map(Some);
            assert!(known.contains(&found.as_ref()), "stop {stop}, seed {seed}");
            bench.close().unwrap();
        }
        if !after.struck() {
            return;
        }
    }
}

#[test]
fn a_file_of_another_length_is_not_what_was_closed() {
    let (disk, old, new) = stopped_before_the_flush();
    let after = disk.after_kill();
    let dir = after.root().join("data/files");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        found.extend(std::fs::read_dir(entry.unwrap().path()).unwrap());
    }
    let is_new = |path: &std::path::PathBuf| std::fs::read(path).unwrap() == new;
    let path = found.into_iter().map(|file| file.unwrap().path());
    let path = path.into_iter().find(is_new).unwrap();
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_len(UNHASHED as u64 + 1).unwrap();
    let bench = Bench::on(&after).unwrap();
    assert!(bench.get("f").unwrap().as_ref() == Some(&old));
    bench.close().unwrap();
}

/// Whether leaving one kind of sync out loses something at some stop.
fn is_missed(base: &SimDisk, site: &SyncSite, stops: usize) -> bool {
    let stops = (1..=stops).rev().map(Some);
    [None].into_iter().chain(stops).any(|stop| {
        let disk = base.after_power_cut(1);
        let journal = stopped(&disk, stop, Some(site));
        seeds(stop.unwrap_or(0)).any(|seed| {
            let after = disk.after_power_cut(seed);
            workload::check(&after, &journal).is_err()
        })
    })
}

/// Syncs that are no one's only one: what they make safe is synced again before anything relies on
/// it.
fn is_spare(site: &SyncSite) -> bool {
    // A new segment's length goes to the disk with its first records, too.
    site.call == SyncCall::All && site.what == "data/segments/*.seg"
}

#[test]
fn no_sync_can_be_left_out() {
    let base = workload::fresh_store();
    let disk = base.after_power_cut(1);
    stopped(&disk, None, None);
    let sites: BTreeSet<SyncSite> = disk.syncs().into_iter().collect();
    let stops = disk.syncs().len();
    for site in sites.into_iter().filter(|site| !is_spare(site)) {
        assert!(is_missed(&base, &site, stops), "nobody misses {site:?}");
    }
}
