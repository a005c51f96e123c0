//! How far ahead is asked, in what sizes, and how much at once.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::kit::{B, Origin, cache, drain, quiet, read, version};
use crate::Directive::{NoFill, Use};
use crate::fetch::{REQUESTS_MAX, Status, WINDOW_BLOCKS_MAX};

const KIB: u64 = 1 << 10;

fn blocks(ranges: &[Range<u64>]) -> Vec<u64> {
    ranges
        .iter()
        .map(|range| (range.end - range.start).div_ceil(B))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_large_miss_is_fetched_in_parallel_in_growing_requests() {
    let (cache, _disk) = cache();
    let (version, origin) = (
        version("k", 200 * B + 5),
        Origin::slow(Duration::from_millis(3), B),
    );
    let mut read = cache.read(&version, Arc::<Origin>::clone(&origin), Use, 0..200 * B + 5);
    assert!(read.next().now_or_never().is_none());
    tokio::task::yield_now().await;
    drain(&mut read, 0..200 * B + 5).await.unwrap();
    let asked = origin.asked();
    assert_eq!(blocks(&asked)[..8], [1, 2, 4, 8, 8, 8, 8, 8]);
    assert!(asked.len() < 40, "few requests: {:?}", blocks(&asked));
    assert_eq!(
        asked.iter().map(|r| r.end - r.start).sum::<u64>(),
        200 * B + 5
    );
    assert_eq!(origin.active_max.load(Ordering::SeqCst), REQUESTS_MAX);
}

#[tokio::test]
async fn a_reader_who_stops_has_not_asked_for_more_than_a_window() {
    let (cache, disk) = cache();
    let (version, origin) = (version("k", 300 * B), Origin::new());
    let mut read = cache.read(&version, Arc::<Origin>::clone(&origin), Use, 0..300 * B);
    for _ in 0..10 {
        read.next().await.unwrap().unwrap();
        quiet(&cache).await;
    }
    let kept = disk.of(&version).blocks();
    let read = (300 * B - read.remaining()).div_ceil(B);
    assert!(
        kept.len() as u64 <= read + WINDOW_BLOCKS_MAX,
        "{}",
        kept.len()
    );
    assert!(kept.len() > 40, "{}", kept.len());
}

#[tokio::test]
async fn reads_in_sequence_are_read_ahead_of_and_fetch_nothing_twice() {
    let (cache, disk) = cache();
    let size = 150 * B + 77;
    let (version, origin) = (version("k", size), Origin::new());
    let mut hits = 0;
    for start in (0..size).step_by(128 << 10) {
        let range = start..size.min(start + 128 * KIB);
        let status = read(&cache, &version, &origin, Use, range).await.unwrap();
        quiet(&cache).await;
        hits += u64::from(status == Status::Hit);
        let ahead = disk.of(&version).blocks().len() as u64;
        assert!(
            ahead <= start / B + 2 + WINDOW_BLOCKS_MAX,
            "{ahead} at {start}"
        );
        if start < 128 * KIB {
            assert_eq!(ahead, 1, "one read is no sequence");
        }
        if start > 12 * B && start < 80 * B {
            assert!(
                ahead > start / B + WINDOW_BLOCKS_MAX / 2 - 1,
                "{ahead} at {start}"
            );
        }
    }
    let asked = origin.asked();
    assert_eq!(asked.iter().map(|r| r.end - r.start).sum::<u64>(), size);
    assert!(
        hits > 1190,
        "all but a few are there before they are read: {hits}"
    );
    assert!(blocks(&asked).contains(&8), "{:?}", blocks(&asked));
}

#[tokio::test]
async fn reads_here_and_there_fetch_their_blocks_only() {
    let (cache, disk) = cache();
    let (version, origin) = (version("k", 1000 * B), Origin::new());
    for (n, block) in (1..).zip([500, 3, 777, 21, 900, 250, 44, 610]) {
        let start = block * B + 100;
        read(&cache, &version, &origin, Use, start..start + 4096)
            .await
            .unwrap();
        quiet(&cache).await;
        assert_eq!(disk.of(&version).blocks().len(), n);
    }
}

#[tokio::test]
async fn who_does_not_fill_does_not_read_ahead() {
    let (cache, disk) = cache();
    let (version, origin) = (version("k", 100 * B), Origin::new());
    for start in (0..20 * B).step_by(1 << 19) {
        let range = start..start + 512 * KIB;
        read(&cache, &version, &origin, NoFill, range)
            .await
            .unwrap();
    }
    quiet(&cache).await;
    assert_eq!(origin.asked_bytes(), 20 * B);
    assert!(disk.of(&version).blocks().is_empty());
}

#[tokio::test]
async fn what_is_there_is_not_asked_for_among_what_is_not() {
    let (cache, disk) = cache();
    let (version, origin) = (version("k", 60 * B), Origin::new());
    for block in (0..60).filter(|block| block % 3 == 0) {
        disk.of(&version).store(block);
    }
    let status = read(&cache, &version, &origin, Use, 0..60 * B).await;
    assert_eq!(status, Ok(Status::Partial));
    assert_eq!(origin.asked_bytes(), 40 * B);
}
