//! The same over a real directory.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;

use super::kit::{B, Origin, is_content, quiet, read, version};
use crate::Directive::{NoFill, Use};
use crate::fetch::{FetchConfig, FillError, Keep, Status};
use crate::{Cache, Disk, DiskConfig};

fn open(dir: &Path, blocks: u64) -> (Cache, Arc<Disk>) {
    let config = DiskConfig {
        free_floor: Some(0),
        ..DiskConfig::new(dir, blocks * B, "http://origin")
    };
    let disk = Arc::new(Disk::open(&config).unwrap());
    (Cache::new(Arc::clone(&disk), FetchConfig::default()), disk)
}

#[tokio::test]
async fn what_was_read_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let large = version("large", 20 * B + 77);
    let small = version("small", 1000);
    let origin = Origin::new();
    for round in 0..3 {
        let (cache, disk) = open(dir.path(), 100);
        for version in [&large, &small] {
            let expected = if round == 0 {
                Status::Miss
            } else {
                Status::Hit
            };
            let status = read(&cache, version, &origin, Use, 0..version.size).await;
            assert_eq!(status, Ok(expected), "round {round}");
            quiet(&cache).await;
            assert_eq!(cache.present(version), version.size);
        }
        let file = disk.object(&large).complete_file().unwrap().unwrap();
        assert_eq!(file.metadata().unwrap().len(), large.size);
        let mut bytes = vec![0; 5000];
        file.read_exact_at(&mut bytes, 3 * B - 2000).unwrap();
        assert!(is_content(3 * B - 2000, &bytes));
        drop(file);
        cache.close().await;
    }
    assert_eq!(origin.asked_bytes(), large.size + small.size);
}

#[tokio::test]
async fn a_flipped_bit_is_fetched_again_within_the_read() {
    let dir = tempfile::tempdir().unwrap();
    let version = version("k", 10 * B);
    let origin = Origin::new();
    let (cache, disk) = open(dir.path(), 100);
    read(&cache, &version, &origin, Use, 0..10 * B)
        .await
        .unwrap();
    quiet(&cache).await;
    let file = disk.object(&version).complete_file().unwrap().unwrap();
    let path = std::fs::read_link(format!("/proc/self/fd/{}", raw(&file))).unwrap();
    cache.close().await;
    drop((file, cache, disk));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(b"flipped", 4 * B + 100).unwrap();
    let (cache, _disk) = open(dir.path(), 100);
    origin.asked();
    let status = read(&cache, &version, &origin, Use, 0..10 * B).await;
    assert_eq!(status, Ok(Status::Hit));
    assert_eq!(origin.asked_once(), Some(4 * B..5 * B));
    quiet(&cache).await;
    assert_eq!(cache.present(&version), 10 * B);
    assert_eq!(cache.statistics().corrupt, 1);
}

fn raw(file: &std::fs::File) -> i32 {
    use std::os::fd::AsRawFd as _;
    file.as_raw_fd()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_much_smaller_than_what_is_read_gives_the_right_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, disk) = open(dir.path(), 12);
    let origin = Origin::new();
    let reads = (0..40_u64).map(|n| {
        let (cache, origin) = (cache.clone(), Arc::clone(&origin));
        tokio::spawn(async move {
            let version = version(&format!("k{}", n % 3), 10 * B + n % 3);
            let directive = if n % 5 == 0 { NoFill } else { Use };
            read(
                &cache,
                &version,
                &origin,
                directive,
                n * 10_000..version.size,
            )
            .await
        })
    });
    for result in join_all(reads).await {
        result.unwrap().unwrap();
    }
    quiet(&cache).await;
    assert!(disk.status().bytes <= 12 * B);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_readers_over_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let config = FetchConfig {
        memory_max: 6 * B,
        ..FetchConfig::default()
    };
    let disk = Disk::open(&DiskConfig {
        free_floor: Some(0),
        ..DiskConfig::new(dir.path(), 100 * B, "http://origin")
    });
    let cache = Cache::new(Arc::new(disk.unwrap()), config);
    let version = version("k", 50 * B + 1);
    let origin = Origin::new();
    let reads = (0..250_u64).map(|n| {
        let (cache, origin, version) = (cache.clone(), origin.clone(), version.clone());
        tokio::spawn(async move {
            let start = n * 7919 * 6607 % version.size;
            let end = version.size.min(start + n * 100_003);
            read(&cache, &version, &origin, Use, start..end).await
        })
    });
    for result in join_all(reads).await {
        result.unwrap().unwrap();
    }
    quiet(&cache).await;
    assert_eq!(
        origin.asked_bytes(),
        cache.present(&version),
        "each block once"
    );
    cache.close().await;
}

#[tokio::test]
async fn a_fill_of_more_than_the_disk_may_hold_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, disk) = open(dir.path(), 8);
    let (origin, small, large) = (Origin::new(), version("s", 3 * B), version("l", 20 * B));
    let filled = cache.fill(&small, Arc::<Origin>::clone(&origin), Keep::Pinned, |_| {});
    assert_eq!(filled.await.unwrap().bytes, 3 * B);
    assert!(disk.object(&small).pinned());
    let filled = cache.fill(&large, Arc::<Origin>::clone(&origin), Keep::Pinned, |_| {});
    assert!(matches!(
        filled.await,
        Err(FillError::NotKept { blocks: 20, .. })
    ));
    assert!(!disk.object(&large).pinned());
    assert_eq!(cache.present(&small), 3 * B);
    quiet(&cache).await;
}
