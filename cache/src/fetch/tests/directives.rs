//! Each directive, cold, warm and partly warm: what the origin is asked for, and what is kept.

use std::collections::BTreeSet;
use std::ops::Range;

use super::kit::{B, Origin, cache, quiet, read, version};
use crate::Directive::{self, Bypass, NoFill, Use};
use crate::fetch::Status;

struct Cell {
    directive: Directive,
    /// Blocks that are there before.
    before: &'static [u64],
    status: Status,
    /// What is asked for, in bytes, sorted.
    asked: &'static [Range<u64>],
    /// Blocks that are there after.
    after: &'static [u64],
}

/// What is read: the end of block 1 to the start of block 4, of an object of 5.5 blocks.
const RANGE: Range<u64> = B + 100..4 * B + 50;
const SIZE: u64 = 5 * B + B / 2;

const CELLS: &[Cell] = &[
    Cell {
        directive: Use,
        before: &[],
        status: Status::Miss,
        asked: &[B..2 * B, 2 * B..4 * B, 4 * B..5 * B],
        after: &[1, 2, 3, 4],
    },
    Cell {
        directive: Use,
        before: &[1, 2, 3, 4],
        status: Status::Hit,
        asked: &[],
        after: &[1, 2, 3, 4],
    },
    Cell {
        directive: Use,
        before: &[0, 2],
        status: Status::Partial,
        asked: &[B..2 * B, 3 * B..5 * B],
        after: &[0, 1, 2, 3, 4],
    },
    Cell {
        directive: Use,
        before: &[0, 5],
        status: Status::Miss,
        asked: &[B..2 * B, 2 * B..4 * B, 4 * B..5 * B],
        after: &[0, 1, 2, 3, 4, 5],
    },
    Cell {
        directive: NoFill,
        before: &[],
        status: Status::Miss,
        asked: &[RANGE],
        after: &[],
    },
    Cell {
        directive: NoFill,
        before: &[0, 1, 2, 3, 4, 5],
        status: Status::Hit,
        asked: &[],
        after: &[0, 1, 2, 3, 4, 5],
    },
    Cell {
        directive: NoFill,
        before: &[2],
        status: Status::Partial,
        asked: &[B + 100..2 * B, 3 * B..4 * B + 50],
        after: &[2],
    },
    Cell {
        directive: Bypass,
        before: &[],
        status: Status::Bypass,
        asked: &[RANGE],
        after: &[],
    },
    Cell {
        directive: Bypass,
        before: &[0, 1, 2, 3, 4, 5],
        status: Status::Bypass,
        asked: &[RANGE],
        after: &[0, 1, 2, 3, 4, 5],
    },
    Cell {
        directive: Bypass,
        before: &[2],
        status: Status::Bypass,
        asked: &[RANGE],
        after: &[2],
    },
];

#[tokio::test]
async fn each_cell_of_the_table() {
    for (n, cell) in CELLS.iter().enumerate() {
        for cold in [false, true] {
            let (cache, disk) = cache();
            let (version, origin) = (version("k", SIZE), Origin::new());
            if cold {
                super::kit::MemoryDisk::set(&disk.faults.cold);
            }
            for &block in cell.before {
                disk.of(&version).store(block);
            }
            let status = read(&cache, &version, &origin, cell.directive, RANGE).await;
            assert_eq!(status, Ok(cell.status), "cell {n}");
            quiet(&cache).await;
            let mut asked = origin.asked();
            asked.sort_by_key(|range| range.start);
            assert_eq!(asked, cell.asked, "cell {n}");
            let after: BTreeSet<u64> = cell.after.iter().copied().collect();
            assert_eq!(disk.of(&version).blocks(), after, "cell {n}");
        }
    }
}

#[tokio::test]
async fn statistics_tell_what_was_done() {
    let (cache, _disk) = cache();
    let (version, origin) = (version("k", 2 * B), Origin::new());
    for (directive, range) in [
        (Use, 0..B),
        (Use, 0..B),
        (NoFill, 0..2 * B),
        (Bypass, 0..7),
        (NoFill, B..B + 9),
    ] {
        read(&cache, &version, &origin, directive, range)
            .await
            .unwrap();
        quiet(&cache).await;
    }
    let statistics = cache.statistics();
    let by_status = [
        statistics.hits,
        statistics.partials,
        statistics.misses,
        statistics.bypasses,
    ];
    assert_eq!(by_status, [1, 1, 2, 1]);
    assert_eq!(statistics.fetches, 4);
    assert_eq!(statistics.bytes_fetched, 2 * B + 7 + 9);
    assert_eq!(cache.present(&version), B);
}

#[tokio::test]
async fn sizes_around_a_block_are_read_exactly() {
    for size in [0, 1, B - 1, B, B + 1, 3 * B] {
        let (cache, disk) = cache();
        let (version, origin) = (version("k", size), Origin::new());
        for directive in [Bypass, NoFill, Use, Use] {
            let status = read(&cache, &version, &origin, directive, 0..size).await;
            status.unwrap();
            quiet(&cache).await;
        }
        assert_eq!(cache.present(&version), size);
        assert_eq!(disk.of(&version).blocks().len() as u64, version.blocks());
        assert_eq!(origin.asked().is_empty(), size == 0);
        let (end, empty) = (size, size..size);
        read(&cache, &version, &origin, Use, empty).await.unwrap();
        assert!(origin.asked().is_empty(), "nothing is asked for at {end}");
    }
}

#[tokio::test]
#[should_panic(expected = "a range within the object")]
async fn a_range_beyond_the_object_is_the_callers_mistake() {
    let (cache, _disk) = cache();
    drop(cache.read(&version("k", 10), Origin::new(), Use, 5..11));
}
