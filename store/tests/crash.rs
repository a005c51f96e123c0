//! Power cuts: what was acknowledged is there, whatever of the rest the medium has kept.
//!
//! `FOREBAY_TEST_SEEDS` says how many ways of keeping part of the rest are tried at each stop.

use std::collections::BTreeSet;

use crate::bench::Bench;
use crate::setting;
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
