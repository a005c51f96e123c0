//! Tests of the whole, by what they show.

mod corruption;
mod faults;
mod limit;
mod ranking;
mod restart;
mod round_trip;
mod threads;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_store::time::{Clock, Timestamp};
use tempfile::TempDir;

use super::*;

const MIB: u64 = 1 << 20;

/// A clock that moves when it is told to.
#[derive(Debug)]
struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

/// A cache's directory, to be opened again and again.
#[derive(Debug)]
struct Rig {
    dir: TempDir,
    clock: Arc<ManualClock>,
    limit: u64,
}

impl Rig {
    fn new(limit: u64) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock(AtomicI64::new(1_700_000_000_000_000_000))),
            limit,
        }
    }

    /// In memory where that is possible, for what opens and writes much.
    fn in_memory(limit: u64) -> Self {
        let mut rig = Self::new(limit);
        if let Ok(dir) = tempfile::tempdir_in("/dev/shm") {
            rig.dir = dir;
        }
        rig
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn config(&self) -> DiskConfig {
        DiskConfig {
            free_floor: Some(0),
            ..DiskConfig::new(self.path(), self.limit, "http://origin")
        }
    }

    fn try_open(&self, config: &DiskConfig, ahead: bool) -> Result<Disk, DiskError> {
        // Most tests say to the byte what there is.
        self.open_tuned(config, ahead, false)
    }

    fn open_tuned(
        &self,
        config: &DiskConfig,
        ahead: bool,
        counts_index: bool,
    ) -> Result<Disk, DiskError> {
        let clock = Arc::clone(&self.clock);
        let tuning = Tuning {
            clock,
            seed: Some(7),
            ahead,
            counts_index,
        };
        Disk::open_tuned(config, tuning)
    }

    fn open(&self) -> Disk {
        self.try_open(&self.config(), false).unwrap()
    }

    fn pass(&self, time: Duration) {
        let nanos = i64::try_from(time.as_nanos()).unwrap();
        self.clock.0.fetch_add(nanos, Ordering::Relaxed);
    }
}

fn version(key: &str, size: u64) -> Arc<Version> {
    Arc::new(Version {
        bucket: "bucket".to_owned(),
        key: key.to_owned(),
        etag: format!("etag-of-{key}"),
        version_id: None,
        size,
    })
}

/// The bytes of a block, other than those of every other block.
fn content(version: &Version, block: u64) -> Bytes {
    let range = version.block_range(block);
    let len = usize::try_from(range.end - range.start).unwrap();
    let seed = forebay_store::digest::crc64(version.key.as_bytes()) ^ version.size;
    // Each page is marked, so that no two are the same.
    let mut bytes = vec![7; len.next_multiple_of(4096)];
    for (at, page) in bytes.chunks_mut(4096).enumerate() {
        let mark = seed ^ (block << 8 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        page[..8].copy_from_slice(&mark.to_le_bytes());
        page[4088..].copy_from_slice(&mark.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

fn put(disk: &Disk, version: &Arc<Version>, block: u64) -> Result<(), PutError> {
    disk.object(version)
        .put_blocking(block, &[content(version, block)])
}

fn fill(disk: &Disk, version: &Arc<Version>) {
    for block in 0..version.blocks() {
        put(disk, version, block).unwrap();
    }
}

fn fill_all(disk: &Disk, versions: &[Arc<Version>]) {
    for version in versions {
        fill(disk, version);
    }
}

/// How many blocks of an object are hits; each must be right.
fn hits(disk: &Disk, version: &Arc<Version>) -> u64 {
    let object = disk.object(version);
    let mut hits = 0;
    for number in 0..version.blocks() {
        let Some(block) = object.get(number) else {
            continue;
        };
        if let Ok(bytes) = block.load_blocking() {
            assert!(
                bytes == content(version, number),
                "block {number} of {version:?}"
            );
            hits += 1;
        }
    }
    hits
}

/// Files of the cache that hold blocks.
fn data_files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![root.join("objects"), root.join("segments")];
    while let Some(dir) = dirs.pop() {
        for item in std::fs::read_dir(dir).unwrap() {
            let item = item.unwrap();
            if item.file_type().unwrap().is_dir() {
                dirs.push(item.path());
            } else {
                files.push(item.path());
            }
        }
    }
    files.sort();
    files
}

/// What the file system says that the blocks take.
fn allocated_on_disk(root: &Path) -> u64 {
    data_files(root)
        .iter()
        .map(|path| std::fs::metadata(path).unwrap().blocks() * 512)
        .sum()
}

/// What a file system may add to that for its own notes.
fn slack(root: &Path) -> u64 {
    data_files(root).len() as u64 * 16384
}
