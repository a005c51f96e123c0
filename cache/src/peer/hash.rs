//! Which node is the home of which block: rendezvous hashing, the highest random weight wins.
//!
//! Every node computes the same from the names of the peers alone, nobody has to be told, and when
//! one of them goes only its own blocks get another home.
//!
//! Blocks are dealt out in runs of [`RUN_BLOCKS`]. A cold object is fetched by its homes; if each
//! block had a home of its own, every fetch from the origin would be of 1 MiB, and a node would ask
//! all peers for a few seconds' reading. A run is as long as the longest request that the cache
//! makes, so that it stays one ranged request on the whole way, and short enough for a large object
//! to have all nodes as homes.

use sha2::{Digest as _, Sha256};

use crate::fetch::REQUEST_BLOCKS_MAX;
use crate::version::Version;

/// Blocks in a row that have one home.
pub(crate) const RUN_BLOCKS: u64 = REQUEST_BLOCKS_MAX;

/// What of an object its homes depend on.
///
/// The same on all nodes: it must not change from one build to the next without need, or a cluster
/// that is being updated fetches things twice. No worse comes of it.
pub(super) fn of_object(version: &Version) -> u64 {
    let mut hash = Sha256::new();
    hash.update(b"forebay home 1");
    for field in [&version.bucket, &version.key, &version.etag] {
        // The length before each field: no two objects are the same bytes.
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.update(version.size.to_be_bytes());
    first_8(&hash.finalize())
}

/// What of a peer's name its weights depend on.
pub(super) fn of_name(name: &str) -> u64 {
    first_8(&Sha256::digest(name))
}

/// The run that a block is in.
pub(super) fn run_of(block: u64) -> u64 {
    block / RUN_BLOCKS
}

/// How much a peer wants a run: the one that wants it most is its home.
pub(super) fn weight(name: u64, object: u64, run: u64) -> u64 {
    mix(name ^ mix(object ^ mix(run)))
}

fn first_8(digest: &[u8]) -> u64 {
    u64::from_be_bytes(digest[..8].try_into().expect("a digest is longer"))
}

/// The finish of `SplitMix64`: each bit of the result depends on all of them.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn object(key: &str) -> u64 {
        of_object(&Version {
            bucket: "data".to_owned(),
            key: key.to_owned(),
            etag: "e".to_owned(),
            version_id: None,
            size: 1 << 40,
        })
    }

    fn names(count: usize) -> Vec<u64> {
        (0..count)
            .map(|n| of_name(&format!("10.0.0.{n}:9000")))
            .collect()
    }

    fn home(names: &[u64], object: u64, run: u64) -> u64 {
        let of = |name: &&u64| weight(**name, object, run);
        *names.iter().max_by_key(of).unwrap()
    }

    /// Runs of one large object, and first runs of many small ones.
    fn places() -> Vec<(u64, u64)> {
        let large = object("large");
        let runs = (0..10_000).map(|run| (large, run));
        runs.chain((0..10_000).map(|n| (object(&format!("small/{n}")), 0)))
            .collect()
    }

    #[test]
    fn every_node_has_about_as_much() {
        for count in [2, 3, 5, 16] {
            let names = names(count);
            for half in places().chunks(10_000) {
                let mut homes: HashMap<u64, f64> = HashMap::new();
                for &(object, run) in half {
                    *homes.entry(home(&names, object, run)).or_default() += 1.0;
                }
                let fair = 10_000.0 / f64::from(u32::try_from(count).unwrap());
                assert_eq!(homes.len(), count);
                for found in homes.values() {
                    // Six standard deviations.
                    assert!(
                        (found - fair).abs() < 6.0 * fair.sqrt(),
                        "{count}: {homes:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn when_a_node_goes_only_its_own_get_another_home() {
        let names = names(5);
        for gone in &names {
            let left: Vec<u64> = names.iter().copied().filter(|name| name != gone).collect();
            let mut taken: HashMap<u64, u64> = HashMap::new();
            for (object, run) in places() {
                let (before, after) = (home(&names, object, run), home(&left, object, run));
                if before == *gone {
                    *taken.entry(after).or_default() += 1;
                } else {
                    assert_eq!(before, after);
                }
            }
            // And those are shared out among all that are left.
            assert_eq!(taken.len(), 4);
            let (least, most) = (taken.values().min(), taken.values().max());
            assert!(most.unwrap() * 2 < least.unwrap() * 3, "{taken:?}");
        }
    }

    /// Nodes of different builds agree.
    #[test]
    fn what_a_home_depends_on_does_not_change() {
        assert_eq!(of_name("10.0.0.1:9000"), NAME);
        assert_eq!(object("k"), OBJECT);
        assert_eq!(weight(1, 2, 3), WEIGHT);
    }
    const NAME: u64 = 0xb382_a505_bf8f_6c28;
    const OBJECT: u64 = 0x6907_47a2_b766_59f8;
    const WEIGHT: u64 = 0xd62a_7f6e_291f_ef64;

    #[test]
    fn neighbours_share_a_home_up_to_the_end_of_a_run() {
        assert_eq!(run_of(0), run_of(RUN_BLOCKS - 1));
        assert_ne!(run_of(RUN_BLOCKS - 1), run_of(RUN_BLOCKS));
    }
}
