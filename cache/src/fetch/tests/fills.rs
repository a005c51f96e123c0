//! Filling and prestaging.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;

use super::kit::{
    Answer, B, MemoryDisk, Origin, cache, cache_with, denied, quiet, read, unavailable, version,
};
use crate::Cache;
use crate::Directive::Use;
use crate::fetch::{FetchConfig, FillError, FillReport, Keep, ReadError, Status};

async fn fill(
    cache: &Cache,
    version: &Arc<crate::Version>,
    origin: &Arc<Origin>,
    keep: Keep,
) -> (Result<FillReport, FillError>, u64) {
    let told = AtomicU64::new(0);
    let progress = |bytes| {
        told.fetch_add(bytes, Ordering::Relaxed);
    };
    let source = Arc::<Origin>::clone(origin);
    let result = cache.fill(version, source, keep, progress).await;
    (result, told.into_inner())
}

#[tokio::test]
async fn a_fill_brings_what_is_missing_and_tells_of_all() {
    let (cache, disk) = cache();
    let size = 30 * B + 9;
    let (version, origin) = (version("k", size), Origin::new());
    (0..10).for_each(|block| disk.of(&version).store(3 * block));
    let (result, told) = fill(&cache, &version, &origin, Keep::Evictable).await;
    let report = result.unwrap();
    assert_eq!((report.blocks, report.bytes), (31, size));
    assert_eq!(report.bytes_new, size - 10 * B);
    assert_eq!(told, size);
    assert_eq!(origin.asked_bytes(), size - 10 * B);
    assert_eq!(cache.present(&version), size);
    assert!(!disk.of(&version).pinned.load(Ordering::SeqCst));
    let (again, told) = fill(&cache, &version, &origin, Keep::Pinned).await;
    assert_eq!(again.unwrap().bytes_new, 0);
    assert_eq!((told, origin.asked_bytes()), (size, 0));
    assert!(disk.of(&version).pinned.load(Ordering::SeqCst));
}

#[tokio::test]
async fn empty_objects_are_full() {
    let (cache, _disk) = cache();
    let (result, told) = fill(&cache, &version("k", 0), &Origin::new(), Keep::Evictable).await;
    assert_eq!((result.unwrap().bytes, told), (0, 0));
}

#[tokio::test]
async fn a_fill_that_fails_says_why_and_pins_nothing() {
    for (error, expected) in [
        (denied(), ReadError::Denied("no".to_owned())),
        (unavailable(), ReadError::Unavailable("down".to_owned())),
        (crate::FetchError::Changed, ReadError::Changed),
    ] {
        let (cache, disk) = cache();
        let version = version("k", 10 * B);
        let origin = Origin::new().always(Answer::Fails(error));
        let (result, _) = fill(&cache, &version, &origin, Keep::Pinned).await;
        assert_eq!(result, Err(FillError::Read(expected)));
        assert!(!disk.of(&version).pinned.load(Ordering::SeqCst));
        quiet(&cache).await;
    }
}

#[tokio::test]
async fn a_fill_does_not_believe_that_all_is_there() {
    for forgetful in [false, true] {
        let (cache, disk) = cache();
        let faults = &disk.faults;
        MemoryDisk::set(if forgetful {
            &faults.evict
        } else {
            &faults.refuse
        });
        let (version, origin) = (version("k", 5 * B), Origin::new());
        let (result, _) = fill(&cache, &version, &origin, Keep::Evictable).await;
        let (present, blocks) = (0, 5);
        assert_eq!(result, Err(FillError::NotKept { present, blocks }));
        quiet(&cache).await;
    }
}

#[tokio::test]
async fn a_fill_and_readers_share_flights() {
    let (cache, _disk) = cache();
    let version = version("k", 40 * B);
    let origin = Origin::slow(Duration::from_micros(100), 300_000);
    let (filled, read, again) = tokio::join!(
        fill(&cache, &version, &origin, Keep::Evictable),
        read(&cache, &version, &origin, Use, 0..40 * B),
        fill(&cache, &version, &origin, Keep::Evictable),
    );
    assert!(filled.0.is_ok() && again.0.is_ok() && read.is_ok());
    assert_eq!(origin.asked_bytes(), 40 * B);
}

#[tokio::test]
async fn a_broken_transfer_does_not_end_a_fill() {
    let (cache, _disk) = cache();
    let answers = [Answer::Breaks(B / 2, unavailable()), Answer::Ends(B + 7)];
    let (version, origin) = (version("k", 20 * B), Origin::new().script(answers));
    let (result, told) = fill(&cache, &version, &origin, Keep::Evictable).await;
    assert_eq!(result.unwrap().bytes, 20 * B);
    assert_eq!(told, 20 * B);
}

#[tokio::test]
async fn a_fill_that_is_dropped_stops() {
    let (cache, disk) = cache();
    let version = version("k", 100 * B);
    let (origin, gate) = Origin::gated(B);
    let mut filling = Box::pin(fill(&cache, &version, &origin, Keep::Pinned));
    assert!((&mut filling).now_or_never().is_none());
    tokio::task::yield_now().await;
    assert!(disk.of(&version).pinned.load(Ordering::SeqCst));
    drop(filling);
    assert!(!disk.of(&version).pinned.load(Ordering::SeqCst));
    gate.add_permits(1000);
    quiet(&cache).await;
    assert!(disk.of(&version).blocks().len() <= 8);
}

#[tokio::test]
async fn prestaged_objects_are_brought_in_once() {
    let (cache, disk) = cache();
    let (version, origin) = (version("k", 20 * B), Origin::new());
    for _ in 0..10 {
        assert!(cache.prestage(&version, Arc::<Origin>::clone(&origin)));
    }
    while cache.present(&version) < 20 * B {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    quiet(&cache).await;
    assert!(cache.prestage(&version, Arc::<Origin>::clone(&origin)));
    assert_eq!(origin.asked_bytes(), 20 * B);
    assert_eq!(disk.of(&version).puts_max(), 1);
    let status = read(&cache, &version, &origin, Use, 0..20 * B).await;
    assert_eq!(status, Ok(Status::Hit));
}

#[tokio::test]
async fn what_does_not_fit_the_queue_is_dropped_and_counted() {
    let config = FetchConfig {
        prestage_max: 5,
        prestage_workers: 2,
        ..FetchConfig::default()
    };
    let (cache, _disk) = cache_with(config);
    let (origin, gate) = Origin::gated(B);
    let source = || Arc::<Origin>::clone(&origin);
    let versions: Vec<_> = (0..12).map(|n| version(&n.to_string(), B)).collect();
    for under_way in &versions[..2] {
        assert!(cache.prestage(under_way, source()));
    }
    while cache.statistics().prestage_queued > 0 {
        tokio::task::yield_now().await;
    }
    let taken = versions[2..]
        .iter()
        .filter(|version| cache.prestage(version, source()));
    assert_eq!(taken.count(), 5);
    let statistics = cache.statistics();
    assert_eq!(
        (statistics.prestage_queued, statistics.prestage_dropped),
        (5, 5)
    );
    gate.add_permits(1000);
    while cache.statistics().prestage_done < 7 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        cache.prestage(&versions[11], source()),
        "there is room again"
    );
}

#[tokio::test]
async fn prestaging_survives_a_source_that_panics() {
    let config = FetchConfig {
        prestage_workers: 1,
        ..FetchConfig::default()
    };
    let (cache, _disk) = cache_with(config);
    let bad = Origin::new().always(Answer::Panics);
    assert!(cache.prestage(&version("bad", B), bad));
    let good = version("good", B);
    assert!(cache.prestage(&good, Origin::new()));
    while cache.present(&good) < B {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(cache.statistics().prestage_failed, 1);
}
