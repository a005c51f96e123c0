//! A disk that does not answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::kit::{B, MemoryDisk, Origin, cache_with, quiet, read, version};
use crate::Directive::{NoFill, Use};
use crate::fetch::{FetchConfig, Status};

/// Long enough for a busy machine not to take a disk that answers for one that hangs.
const WAIT: Duration = Duration::from_millis(300);

fn config() -> FetchConfig {
    FetchConfig {
        memory_max: 4 * B,
        disk_wait: WAIT,
        unkept_wait: Duration::from_millis(50),
        retry_after: Duration::ZERO,
        close_wait: Duration::from_millis(50),
        ..FetchConfig::default()
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < give_up, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn blocks_that_the_disk_does_not_take_hold_no_memory_for_ever() {
    let (cache, disk) = cache_with(config());
    MemoryDisk::set(&disk.faults.hangs);
    let origin = Origin::new();
    // Far more than the budget of memory, at one time and one after the other.
    let versions: Vec<_> = (0..6).map(|n| version(&format!("k{n}"), 5 * B)).collect();
    for _ in 0..2 {
        let reads = versions
            .iter()
            .map(|version| read(&cache, version, &origin, Use, 0..5 * B));
        for status in join_all(reads).await {
            assert_eq!(status, Ok(Status::Miss));
        }
    }
    quiet(&cache).await;
    let hanging = disk.faults.hanging.load(Ordering::SeqCst);
    assert!(
        (1..=4).contains(&hanging),
        "as many as had memory: {hanging}"
    );
    // Now it is known, and costs nothing.
    origin.asked();
    let before = cache.statistics();
    read(&cache, &versions[0], &origin, Use, 7..2 * B)
        .await
        .unwrap();
    assert_eq!(origin.asked_once(), Some(7..2 * B), "one plain read");
    let after = cache.statistics();
    assert_eq!(after.reads_unfilled, before.reads_unfilled + 1);
    assert!(after.disk_stuck && !cache.fills());
    // It answers again.
    disk.faults.hangs.store(false, Ordering::SeqCst);
    until("it is noticed", || cache.fills()).await;
    read(&cache, &versions[5], &origin, Use, 0..5 * B)
        .await
        .unwrap();
    quiet(&cache).await;
    assert_eq!(cache.present(&versions[5]), 5 * B);
}

#[tokio::test]
async fn blocks_that_the_disk_does_not_give_come_from_the_source() {
    let (cache, disk) = cache_with(config());
    MemoryDisk::set(&disk.faults.cold);
    let (version, origin) = (version("k", 6 * B), Origin::new());
    (0..6).for_each(|block| disk.of(&version).store(block));
    MemoryDisk::set(&disk.faults.hangs);
    let crowd = (0..20).map(|_| read(&cache, &version, &origin, Use, 0..6 * B));
    let began_at = Instant::now();
    for status in join_all(crowd).await {
        assert_eq!(status, Ok(Status::Hit), "as far as was known");
    }
    assert!(
        began_at.elapsed() < 100 * WAIT,
        "they wait at the same time"
    );
    let hanging = disk.faults.hanging.load(Ordering::SeqCst);
    for directive in [Use, NoFill] {
        origin.asked();
        read(&cache, &version, &origin, directive, 5..3 * B)
            .await
            .unwrap();
        assert_eq!(origin.asked_once(), Some(5..3 * B));
    }
    let still = disk.faults.hanging.load(Ordering::SeqCst);
    assert!(still <= hanging, "no other thread is lost to it");
    // Ending does not wait for it.
    cache.close().await;
    assert!(!disk.faults.closed.load(Ordering::SeqCst));
    disk.faults.hangs.store(false, Ordering::SeqCst);
    until("it is noticed", || {
        disk.faults.hanging.load(Ordering::SeqCst) == 0
    })
    .await;
    origin.asked();
    let read = read(&cache, &version, &origin, Use, 0..6 * B);
    assert_eq!(read.await, Ok(Status::Hit));
    assert!(origin.asked().is_empty());
    let _: Arc<MemoryDisk> = disk;
}
