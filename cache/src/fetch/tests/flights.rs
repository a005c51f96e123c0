//! One flight for all who wait: bytes as they arrive, once each.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::kit::{
    Answer, B, MemoryDisk, Origin, cache, denied, drain, is_content, quiet, read, unavailable,
    version,
};
use crate::Directive::{NoFill, Use};
use crate::fetch::{ReadError, Status};
use crate::source::FetchError;

#[tokio::test(start_paused = true)]
async fn many_readers_of_a_cold_object_fetch_it_once() {
    let (cache, disk) = cache();
    let version = version("k", 20 * B);
    let origin = Origin::slow(Duration::from_millis(5), 300_000);
    let reads = (0..100).map(|_| read(&cache, &version, &origin, Use, 0..20 * B));
    assert!(join_all(reads).await.iter().all(Result::is_ok));
    quiet(&cache).await;
    assert_eq!(origin.asked_bytes(), 20 * B);
    assert_eq!(disk.of(&version).puts_max(), 1);
    assert!(cache.statistics().joins > 0);
}

#[tokio::test(start_paused = true)]
async fn readers_of_parts_of_a_cold_block_fetch_it_once_and_whole() {
    let (cache, disk) = cache();
    let version = version("k", B);
    let origin = Origin::slow(Duration::from_millis(1), 10_000);
    let reads = (0..50_u64).map(|n| {
        read(
            &cache,
            &version,
            &origin,
            Use,
            n * 20_000..n * 20_000 + 9_000,
        )
    });
    assert!(join_all(reads).await.iter().all(Result::is_ok));
    quiet(&cache).await;
    assert_eq!(origin.asked_once(), Some(0..B));
    assert_eq!(disk.of(&version).blocks().len(), 1);
}

#[tokio::test]
async fn bytes_are_handed_on_before_the_block_is_whole() {
    let (cache, _disk) = cache();
    let (origin, gate) = Origin::gated(1000);
    let mut read = cache.read(&version("k", B), origin, Use, 500..B);
    assert!(read.next().now_or_never().is_none(), "nothing came yet");
    gate.add_permits(1);
    let first = read.next().await.unwrap().unwrap();
    assert_eq!(first.len(), 500);
    assert!(is_content(500, &first));
    assert!(read.next().now_or_never().is_none());
    gate.add_permits(2);
    let second = read.next().await.unwrap().unwrap();
    assert!(is_content(1000, &second));
    gate.add_permits(10_000);
    drain(&mut read, 1000 + second.len() as u64..B)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_last_bytes_wait_until_the_source_has_ended_there() {
    let (cache, disk) = cache();
    let version = version("k", 5000);
    let origin = Origin::new().always(Answer::Excess);
    let mut read = cache.read(&version, origin, Use, 0..5000);
    assert!(matches!(
        read.next().await,
        Some(Err(ReadError::Corrupt(_)))
    ));
    assert!(read.next().await.is_none(), "nothing follows an error");
    assert_eq!(disk.of(&version).blocks().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_goes_does_not_take_the_flight_from_others() {
    let (cache, _disk) = cache();
    let version = version("k", 4 * B);
    let origin = Origin::slow(Duration::from_millis(10), 100_000);
    let mut first = cache.read(&version, Arc::<Origin>::clone(&origin), Use, 0..4 * B);
    first.next().await.unwrap().unwrap();
    let second = tokio::spawn({
        let (cache, version, origin) = (cache.clone(), version.clone(), origin.clone());
        async move { read(&cache, &version, &origin, Use, 0..4 * B).await }
    });
    tokio::time::sleep(Duration::from_millis(25)).await;
    drop(first);
    second.await.unwrap().unwrap();
    let bytes = origin.asked_bytes();
    // The first reader's requests may have stopped where the second was not yet.
    assert!((4 * B..8 * B).contains(&bytes), "{bytes}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_stops_after_the_block_at_hand() {
    let (cache, disk) = cache();
    let version = version("k", 64 * B);
    let origin = Origin::slow(Duration::from_millis(10), 100_000);
    let mut read = cache.read(&version, Arc::<Origin>::clone(&origin), Use, 0..64 * B);
    read.next().await.unwrap().unwrap();
    assert_eq!(origin.asked().len(), 8, "in parallel");
    drop(read);
    quiet(&cache).await;
    let kept = disk.of(&version).blocks();
    assert!(kept.contains(&0), "the block at hand is finished");
    assert!(kept.len() <= 8, "one block for each request: {kept:?}");
    assert_eq!(origin.active.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_reader_who_never_polls_asks_for_nothing() {
    let (cache, _disk) = cache();
    let origin = Origin::new();
    drop(cache.read(&version("k", B), Arc::<Origin>::clone(&origin), Use, 0..B));
    quiet(&cache).await;
    assert!(origin.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_another_reader_fetches_with_his_own_right() {
    let (cache, _disk) = cache();
    let version = version("k", 2 * B);
    let without =
        Origin::slow(Duration::from_millis(5), 10_000).always(Answer::Breaks(50_000, denied()));
    let with = Origin::new();
    let mut refused: Vec<_> = (0..5)
        .map(|_| cache.read(&version, Arc::<Origin>::clone(&without), Use, 0..2 * B))
        .collect();
    for read in &mut refused {
        assert!(read.next().now_or_never().is_none());
    }
    let entitled = read(&cache, &version, &with, Use, 0..2 * B);
    let refused = join_all(refused.iter_mut().map(|read| drain(read, 0..2 * B)));
    let (entitled, refused) = tokio::join!(entitled, refused);
    assert_eq!(entitled, Ok(Status::Miss));
    for result in refused {
        // Whoever waited long enough has it from the cache: the origin told him the version.
        assert!(
            matches!(result, Ok(()) | Err(ReadError::Denied(_))),
            "{result:?}"
        );
    }
    assert!(!without.asked().is_empty());
    assert!(!with.asked().is_empty());
}

#[tokio::test]
async fn ones_own_refusal_is_asked_for_once() {
    let (cache, _disk) = cache();
    let origin = Origin::new().always(Answer::Fails(denied()));
    let result = read(&cache, &version("k", B), &origin, Use, 0..B).await;
    assert_eq!(result, Err(ReadError::Denied("no".to_owned())));
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn a_change_goes_to_all_at_once() {
    let (cache, _disk) = cache();
    let version = version("k", B);
    let origin = Origin::slow(Duration::from_millis(1), 100)
        .always(Answer::Breaks(300, FetchError::Changed));
    let reads = (0..10).map(|_| read(&cache, &version, &origin, Use, 1000..B));
    for result in join_all(reads).await {
        assert_eq!(result, Err(ReadError::Changed));
    }
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_origin_is_not_asked_once_by_each_of_the_crowd() {
    let (cache, _disk) = cache();
    let version = version("k", B);
    let origin =
        Origin::slow(Duration::from_millis(10), 1000).always(Answer::Breaks(2000, unavailable()));
    let reads = (0..200).map(|_| read(&cache, &version, &origin, Use, B / 2..B));
    for result in join_all(reads).await {
        assert!(
            matches!(result, Err(ReadError::Unavailable(_))),
            "{result:?}"
        );
    }
    assert!(origin.asked().len() <= 3, "a few times in all");
}

#[tokio::test]
async fn a_broken_transfer_is_taken_up_again_within_the_read() {
    let (cache, disk) = cache();
    let version = version("k", 3 * B);
    let breaks = [Answer::Breaks(700_000, unavailable()), Answer::Ends(5)];
    let origin = Origin::new().script(breaks);
    let status = read(&cache, &version, &origin, Use, 0..3 * B).await;
    assert_eq!(status, Ok(Status::Miss));
    quiet(&cache).await;
    assert_eq!(disk.of(&version).blocks().len(), 3);
    assert_eq!(cache.statistics().fetch_failures, 2);
}

#[tokio::test]
async fn a_source_that_panics_is_an_error_for_the_reader() {
    let (cache, _disk) = cache();
    let origin = Origin::new().always(Answer::Panics);
    let result = read(&cache, &version("k", B), &origin, Use, 0..B).await;
    assert!(
        matches!(result, Err(ReadError::Unavailable(_))),
        "{result:?}"
    );
    quiet(&cache).await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_fill_does_not_wait_for_who_does() {
    let (cache, disk) = cache();
    let version = version("k", 2 * B);
    let (stuck, _gate) = Origin::gated(1000);
    let mut filling = cache.read(&version, stuck, Use, 0..2 * B);
    assert!(filling.next().now_or_never().is_none());
    tokio::task::yield_now().await;
    let origin = Origin::new();
    let status = read(&cache, &version, &origin, NoFill, 10..2 * B).await;
    assert_eq!(status, Ok(Status::Miss));
    assert_eq!(origin.asked_once(), Some(10..2 * B));
    assert!(disk.of(&version).blocks().is_empty());
}

#[tokio::test]
async fn close_lets_readers_finish_past_the_cache() {
    let (cache, disk) = cache();
    let version = version("k", 40 * B);
    let origin = Origin::slow(Duration::from_millis(1), 200_000);
    let mut read = cache.read(&version, Arc::<Origin>::clone(&origin), Use, 0..40 * B);
    let first = read.next().await.unwrap().unwrap();
    let (rest, ()) = tokio::join!(drain(&mut read, first.len() as u64..40 * B), cache.close());
    rest.unwrap();
    assert!(disk.faults.closed.load(std::sync::atomic::Ordering::SeqCst));
    let kept = disk.of(&version).blocks().len();
    assert!(kept < 40, "{kept}");
    let later = super::kit::read(&cache, &version, &origin, Use, 0..40 * B).await;
    later.unwrap();
    assert_eq!(
        disk.of(&version).blocks().len(),
        kept,
        "nothing more is kept"
    );
    assert!(!cache.prestage(&version, origin));
    MemoryDisk::set(&disk.faults.refuse);
}
