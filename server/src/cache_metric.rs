//! What is counted of a cache, as Prometheus text: a node's, or a tier's in front of a store.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_cache::disk::Health;
use forebay_cache::peer::PeerStatistics;
use forebay_cache::{Cache, Disk};
use http::StatusCode;

use crate::node::Outcome;

const OUTCOMES: [Outcome; 6] = [
    Outcome::Hit,
    Outcome::Partial,
    Outcome::Miss,
    Outcome::Bypass,
    Outcome::Prestage,
    Outcome::Stale,
];

/// Counters of a cache.
#[derive(Debug)]
pub(crate) struct CacheMetrics {
    cache: Cache,
    disk: Option<Arc<Disk>>,
    outcomes: [AtomicU64; OUTCOMES.len()],
    ranges: AtomicU64,
}

impl CacheMetrics {
    /// Nothing is counted yet.
    pub(crate) fn new(cache: Cache, disk: Option<Arc<Disk>>) -> Self {
        Self {
            cache,
            disk,
            outcomes: Default::default(),
            ranges: AtomicU64::new(0),
        }
    }

    /// Counts a read of an object's bytes, and what the cache had of them.
    pub(crate) fn read(&self, outcome: Outcome, status: StatusCode) {
        let place = OUTCOMES.iter().position(|known| *known == outcome);
        if let Some(place) = place {
            self.outcomes[place].fetch_add(1, Ordering::Relaxed);
        }
        if status == StatusCode::PARTIAL_CONTENT {
            self.ranges.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds all counters.
    ///
    /// # Errors
    /// None where a `String` is written to.
    pub(crate) fn push(&self, text: &mut String) -> std::fmt::Result {
        let name = "forebay_cache_requests_total";
        writeln!(
            text,
            "# HELP {name} Reads of objects, by what the cache had of them.\n# TYPE {name} counter"
        )?;
        for (outcome, count) in OUTCOMES.iter().zip(&self.outcomes) {
            let (status, count) = (
                outcome.word().to_ascii_lowercase(),
                count.load(Ordering::Relaxed),
            );
            writeln!(text, "{name}{{status=\"{status}\"}} {count}")?;
        }
        push_rows(text, "forebay_cache_", &self.cache_rows())?;
        if let Some(disk) = &self.disk {
            push_rows(text, "forebay_cache_", &disk_rows(disk))?;
        }
        Ok(())
    }

    /// What the cache's peers have done, if it has some.
    pub(crate) fn peers(&self) -> Option<PeerStatistics> {
        self.cache.peers().map(|peers| peers.statistics())
    }

    fn cache_rows(&self) -> [Row; 13] {
        let cache = self.cache.statistics();
        let from_peers = self.peers().map_or(0, |peers| peers.bytes_from);
        let errors = cache.put_failures + cache.corrupt + cache.load_failures;
        let ranges = self.ranges.load(Ordering::Relaxed);
        [
            ("range_requests_total", "Reads of a range.", ranges),
            (
                "joins_total",
                "Waits for what another read was bringing.",
                cache.joins,
            ),
            (
                "errors_total",
                "Blocks the disk did not take, or gave back wrong.",
                errors,
            ),
            (
                "fetches_total",
                "Ranges asked of the origin.",
                cache.fetches,
            ),
            (
                "fetch_failures_total",
                "Ranges it did not give.",
                cache.fetch_failures,
            ),
            (
                "fetched_bytes_total",
                "Bytes of objects it gave.",
                cache.bytes_fetched.saturating_sub(from_peers),
            ),
            (
                "served_bytes_total",
                "Bytes the disk gave.",
                cache.bytes_from_cache,
            ),
            (
                "prestage_queue",
                "Objects to be brought in.",
                cache.prestage_queued,
            ),
            (
                "prestaged_total",
                "Objects brought in.",
                cache.prestage_done,
            ),
            (
                "prestage_dropped_total",
                "Objects too many for it.",
                cache.prestage_dropped,
            ),
            (
                "prestage_failures_total",
                "Objects not brought in.",
                cache.prestage_failed,
            ),
            (
                "memory_bytes",
                "Memory of blocks on their way.",
                cache.bytes_in_flight,
            ),
            (
                "disk_stuck",
                "1 while the disk does not answer.",
                cache.disk_stuck.into(),
            ),
        ]
    }
}

fn disk_rows(disk: &Disk) -> [Row; 7] {
    let status = disk.status();
    let healthy = u64::from(status.health == Health::Good);
    [
        ("bytes", "Bytes on the cache's disk.", status.bytes),
        ("index_bytes", "Those of the index.", status.index_bytes),
        ("capacity_bytes", "Bytes that there may be now.", status.cap),
        (
            "pinned_bytes",
            "Bytes that are pinned.",
            status.pinned_bytes,
        ),
        (
            "evictions_total",
            "Blocks given back to make room.",
            status.evictions,
        ),
        (
            "objects",
            "Objects of which there is something.",
            status.objects,
        ),
        ("healthy", "0 while the disk takes nothing.", healthy),
    ]
}

/// Name without its prefix, help, value. The name says whether it is a counter.
pub(crate) type Row = (&'static str, &'static str, u64);

/// Adds counters and gauges whose names begin so.
///
/// # Errors
/// None where a `String` is written to.
pub(crate) fn push_rows(text: &mut String, prefix: &str, rows: &[Row]) -> std::fmt::Result {
    for (name, help, value) in rows {
        let is_counter = name.ends_with("_total");
        let kind = if is_counter { "counter" } else { "gauge" };
        let name = format!("{prefix}{name}");
        writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        )?;
    }
    Ok(())
}
