//! The budget of memory: it is never exceeded, and nobody waits for ever for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinSet;

use super::kit::{B, MemoryDisk, Origin, cache_with, drain, is_content, quiet, read, version};
use crate::Directive::Use;
use crate::fetch::FetchConfig;
use crate::source::Source;

fn budget(blocks: u64) -> FetchConfig {
    FetchConfig {
        memory_max: blocks * B,
        ..FetchConfig::default()
    }
}

/// What the origin sends at a time.
const CHUNK: u64 = 512 << 10;

/// Readers at different speeds of one cold object, some of whom stop reading for good.
async fn crowd(readers: u64, blocks: u64, memory: u64) {
    let (cache, disk) = cache_with(budget(memory));
    let version = version("k", blocks * B);
    let origin = Origin::slow(Duration::from_micros(300), CHUNK);
    let most = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    let mut stopped = Vec::new();
    for n in 0..readers {
        let source: Arc<dyn Source> = Arc::<Origin>::clone(&origin);
        let mut read = cache.read(&version, source, Use, 0..blocks * B);
        if n % 10 == 9 {
            drop(read.next().await.unwrap().unwrap());
            stopped.push(read);
            continue;
        }
        let (cache, most) = (cache.clone(), Arc::clone(&most));
        tasks.spawn(async move {
            let mut at = 0;
            while let Some(frame) = read.next().await {
                let frame = frame.unwrap();
                // The ends of each frame; all of it would be a test of memcmp.
                assert!(is_content(at, &frame[..frame.len().min(64)]));
                at += frame.len() as u64;
                assert!(is_content(at - 1, &frame[frame.len() - 1..]));
                most.fetch_max(cache.statistics().bytes_in_flight, Ordering::Relaxed);
                drop(frame);
                if n % 3 > 0 {
                    tokio::time::sleep(Duration::from_micros(n * 7)).await;
                }
            }
            assert_eq!(at, blocks * B);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    quiet(&cache).await;
    assert_eq!(
        origin.asked_bytes(),
        blocks * B,
        "each block is fetched once"
    );
    assert_eq!(disk.of(&version).puts_max(), 1);
    let most = most.load(Ordering::Relaxed);
    assert!(most <= memory * B, "{most} bytes in flight");
    let live = origin.live.max.load(Ordering::SeqCst);
    // Beside the budget: the frame that is looked at.
    assert!(live <= memory * B + CHUNK, "{live} bytes are alive");
    assert!(live > B, "they are counted");
    assert_eq!(stopped.len() as u64, readers / 10);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_of_one_cold_object() {
    crowd(1000, 48, 16).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes long, and 1 GiB of memory"]
async fn a_thousand_readers_of_one_cold_gibibyte() {
    crowd(1000, 1024, 256).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_block_of_memory_is_enough_for_many_readers() {
    let (cache, disk) = cache_with(budget(0));
    disk.faults.put_ms.store(1, Ordering::SeqCst);
    let origin = Origin::slow(Duration::from_micros(10), 200_000);
    let reads = (0..30).map(|n| {
        let (cache, origin) = (cache.clone(), Arc::clone(&origin));
        tokio::spawn(async move {
            let version = version(&format!("k{}", n % 7), 9 * B + 5);
            read(&cache, &version, &origin, Use, n * 1000..9 * B + 5).await
        })
    });
    for result in join_all(reads).await {
        result.unwrap().unwrap();
    }
    quiet(&cache).await;
}

#[tokio::test(start_paused = true)]
async fn those_who_stop_while_the_disk_is_full_do_not_keep_the_memory() {
    let config = FetchConfig {
        retry_after: Duration::ZERO,
        ..budget(2)
    };
    let (cache, disk) = cache_with(config);
    MemoryDisk::set(&disk.faults.refuse);
    let origin = Origin::slow(Duration::from_millis(1), 100_000);
    let begun = tokio::time::Instant::now();
    let mut stopped = Vec::new();
    for n in 0..5 {
        let version = version(&format!("stopped{n}"), 4 * B);
        let mut read = cache.read(&version, Arc::<Origin>::clone(&origin), Use, 0..4 * B);
        let first = read.next().await.unwrap().unwrap();
        stopped.push((read, first.len() as u64));
    }
    let other = version("other", 6 * B);
    read(&cache, &other, &origin, Use, 0..6 * B).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_mins(1),
        "the others wait for long"
    );
    for (mut read, at) in stopped {
        drain(&mut read, at..4 * B).await.unwrap();
    }
    quiet(&cache).await;
}

#[tokio::test]
async fn memory_is_free_again_after_every_read() {
    let (cache, _disk) = cache_with(budget(8));
    let origin = Origin::new();
    for n in 0..5 {
        read(
            &cache,
            &version(&n.to_string(), 20 * B),
            &origin,
            Use,
            0..20 * B,
        )
        .await
        .unwrap();
        quiet(&cache).await;
        assert_eq!(cache.statistics().bytes_in_flight, 0);
    }
}
