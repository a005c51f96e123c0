//! A disk that is full, broken or forgetful, and sources that don't keep their word.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use super::kit::{
    Answer, B, MemoryDisk, Origin, cache, cache_with, denied, drain, quiet, read, unavailable,
    version,
};
use crate::Directive::{NoFill, Use};
use crate::fetch::{FetchConfig, ReadError, Status};
use crate::source::FetchError;

#[tokio::test]
async fn a_full_disk_is_not_the_readers_trouble() {
    let (cache, disk) = cache_with(FetchConfig {
        retry_after: Duration::ZERO,
        ..FetchConfig::default()
    });
    MemoryDisk::set(&disk.faults.refuse);
    let (version, origin) = (version("k", 30 * B), Origin::new());
    for _ in 0..2 {
        let status = read(&cache, &version, &origin, Use, 0..30 * B).await;
        assert_eq!(status, Ok(Status::Miss));
        quiet(&cache).await;
        assert!(origin.asked_bytes() >= 30 * B, "later reads fetch again");
    }
    assert!(cache.statistics().put_failures > 0);
    assert!(disk.of(&version).blocks().is_empty());
    disk.faults.refuse.store(false, Ordering::SeqCst);
    read(&cache, &version, &origin, Use, 0..30 * B)
        .await
        .unwrap();
    quiet(&cache).await;
    assert_eq!(cache.present(&version), 30 * B);
}

#[tokio::test(start_paused = true)]
async fn reads_fetch_no_more_than_they_ask_for_while_nothing_is_kept() {
    let (cache, disk) = cache();
    MemoryDisk::set(&disk.faults.refuse);
    let (version, origin) = (version("k", 40 * B), Origin::new());
    read(&cache, &version, &origin, Use, 0..10 * B)
        .await
        .unwrap();
    quiet(&cache).await;
    origin.asked();
    for n in 10..20 {
        read(&cache, &version, &origin, Use, n * B..n * B + 100)
            .await
            .unwrap();
    }
    assert_eq!(origin.asked_bytes(), 1000);
    assert_eq!(cache.statistics().reads_unfilled, 10);
    disk.faults.refuse.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(6)).await;
    read(&cache, &version, &origin, Use, 0..100).await.unwrap();
    quiet(&cache).await;
    assert!(disk.of(&version).blocks().contains(&0), "it is tried again");
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_while_the_disk_is_full_goes_past_the_cache() {
    let (cache, disk) = cache();
    MemoryDisk::set(&disk.faults.refuse);
    let version = version("k", 3 * B);
    let origin = Origin::slow(Duration::from_millis(1), 100_000);
    let mut read = cache.read(&version, Arc::<Origin>::clone(&origin), Use, 0..3 * B);
    let first = read.next().await.unwrap().unwrap();
    // Longer than its bytes wait in memory.
    tokio::time::sleep(Duration::from_secs(10)).await;
    quiet(&cache).await;
    origin.asked();
    let at = first.len() as u64;
    drain(&mut read, at..3 * B).await.unwrap();
    assert_eq!(origin.asked_once(), Some(at..3 * B), "one plain read");
}

#[tokio::test]
async fn a_corrupt_block_is_fetched_again_within_the_read() {
    for directive in [Use, NoFill] {
        let (cache, disk) = cache();
        let (version, origin) = (version("k", 6 * B), Origin::new());
        (0..6).for_each(|block| disk.of(&version).store(block));
        disk.of(&version).corrupt(2);
        disk.of(&version).corrupt(5);
        let status = read(&cache, &version, &origin, directive, 0..6 * B).await;
        assert_eq!(status, Ok(Status::Hit), "as far as was known");
        quiet(&cache).await;
        assert_eq!(origin.asked_bytes(), 2 * B);
        assert_eq!(cache.statistics().corrupt, 2);
        let blocks = if directive == Use { 6 } else { 4 };
        assert_eq!(disk.of(&version).blocks().len(), blocks);
    }
}

#[tokio::test]
async fn blocks_that_cannot_be_read_come_from_the_source() {
    let (cache, disk) = cache();
    let (version, origin) = (version("k", 3 * B), Origin::new());
    MemoryDisk::set(&disk.faults.cold);
    MemoryDisk::set(&disk.faults.unreadable);
    (0..3).for_each(|block| disk.of(&version).store(block));
    let status = read(&cache, &version, &origin, Use, 77..3 * B).await;
    assert_eq!(status, Ok(Status::Hit));
    assert_eq!(origin.asked_bytes(), 3 * B - 77);
    assert!(cache.statistics().load_failures > 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_forgets_at_once_does_not_stop_a_reader() {
    let (cache, disk) = cache();
    MemoryDisk::set(&disk.faults.evict);
    let version = version("k", 10 * B);
    let origin = Origin::slow(Duration::from_millis(1), 100_000);
    let reads = (0..10).map(|n| {
        let (cache, version, origin) = (cache.clone(), version.clone(), origin.clone());
        async move {
            let mut read = cache.read(&version, origin, Use, 0..10 * B);
            let mut at = 0;
            while let Some(frame) = read.next().await {
                at += frame.unwrap().len() as u64;
                tokio::time::sleep(Duration::from_millis(n)).await;
            }
            assert_eq!(at, 10 * B);
        }
    });
    join_all(reads).await;
}

#[tokio::test]
async fn blocks_evicted_while_they_are_read_are_fetched_again() {
    let (cache, disk) = cache();
    let (version, origin) = (version("k", 8 * B), Origin::new());
    (0..8).for_each(|block| disk.of(&version).store(block));
    let mut read = cache.read(&version, Arc::<Origin>::clone(&origin), Use, 0..8 * B);
    assert_eq!(read.status(), Status::Hit);
    read.next().await.unwrap().unwrap();
    (3..8).for_each(|block| disk.of(&version).evict(block));
    drain(&mut read, B..8 * B).await.unwrap();
    assert_eq!(origin.asked_bytes(), 5 * B);
}

#[tokio::test]
async fn what_does_not_come_whole_is_never_kept() {
    let wrong = [
        Answer::Fails(unavailable()),
        Answer::Fails(denied()),
        Answer::Fails(FetchError::Changed),
        Answer::Breaks(B - 1, unavailable()),
        Answer::Breaks(B - 1, denied()),
        Answer::Ends(0),
        Answer::Ends(B - 1),
        Answer::Excess,
        Answer::Panics,
    ];
    for answer in wrong {
        for directive in [Use, NoFill, crate::Directive::Bypass] {
            if directive != Use && matches!(answer, Answer::Panics) {
                // The reader's own task would panic: the source is polled in it.
                continue;
            }
            let (cache, disk) = cache();
            let (version, origin) = (version("k", B), Origin::new().always(answer.clone()));
            let result = read(&cache, &version, &origin, directive, 0..B).await;
            let fits = match (&answer, &result) {
                (Answer::Panics, Err(ReadError::Unavailable(_)))
                | (Answer::Ends(_) | Answer::Excess, Err(ReadError::Corrupt(_))) => true,
                (Answer::Fails(error) | Answer::Breaks(_, error), Err(found)) => {
                    *found == ReadError::from(error.clone())
                }
                _ => false,
            };
            assert!(fits, "{answer:?} {directive:?}: {result:?}");
            quiet(&cache).await;
            assert!(disk.of(&version).blocks().is_empty(), "{answer:?}");
        }
    }
}
