//! What a node counts beside its requests, as Prometheus text: the cache's part, and the origin's.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_cache::disk::Health;
use forebay_cache::origin::{BreakerState, Client};
use forebay_cache::{Cache, Disk};
use http::StatusCode;

use super::outcome::Outcome;

const OUTCOMES: [Outcome; 5] = [
    Outcome::Hit,
    Outcome::Partial,
    Outcome::Miss,
    Outcome::Bypass,
    Outcome::Prestage,
];

/// Counters of a node.
#[derive(Debug)]
pub(super) struct NodeMetrics {
    cache: Cache,
    disk: Option<Arc<Disk>>,
    client: Client,
    outcomes: [AtomicU64; OUTCOMES.len()],
    ranges: AtomicU64,
    passed: AtomicU64,
    failed: AtomicU64,
}

impl NodeMetrics {
    /// Nothing is counted yet.
    pub(super) fn new(cache: Cache, disk: Option<Arc<Disk>>, client: Client) -> Self {
        Self {
            cache,
            disk,
            client,
            outcomes: Default::default(),
            ranges: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Counts a read of an object's bytes, and what the cache had of them.
    pub(super) fn read(&self, outcome: Outcome, status: StatusCode) {
        let place = OUTCOMES.iter().position(|known| *known == outcome);
        if let Some(place) = place {
            self.outcomes[place].fetch_add(1, Ordering::Relaxed);
        }
        if status == StatusCode::PARTIAL_CONTENT {
            self.ranges.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that was passed on as it was.
    pub(super) fn passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that the origin did not answer.
    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters as text.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(4096);
        self.push(&mut text)
            .expect("writing to a String can't fail");
        text
    }

    fn push(&self, text: &mut String) -> std::fmt::Result {
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
        push_rows(text, "forebay_origin_", &self.origin_rows())?;
        push_rows(text, "forebay_proxy_", &self.proxy_rows())
    }

    fn cache_rows(&self) -> [Row; 12] {
        let cache = self.cache.statistics();
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
                cache.bytes_fetched,
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
        ]
    }

    fn origin_rows(&self) -> [Row; 7] {
        let origin = self.client.statistics();
        let up = u64::from(origin.breaker == BreakerState::Closed);
        [
            (
                "requests_total",
                "Requests sent, each try for itself.",
                origin.requests,
            ),
            (
                "errors_total",
                "Those without an answer, or with 500 and above.",
                origin.errors,
            ),
            (
                "retries_total",
                "Those that were tries after the first.",
                origin.retries,
            ),
            (
                "received_bytes_total",
                "Bytes of bodies received.",
                origin.bytes_in,
            ),
            (
                "sent_bytes_total",
                "Bytes of bodies sent.",
                origin.bytes_out,
            ),
            (
                "requests_in_flight",
                "Requests under way.",
                origin.in_flight,
            ),
            ("up", "0 while the origin is taken for dead.", up),
        ]
    }

    fn proxy_rows(&self) -> [Row; 2] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            (
                "passed_total",
                "Requests passed on as they were.",
                read(&self.passed),
            ),
            (
                "errors_total",
                "Requests that the origin did not answer.",
                read(&self.failed),
            ),
        ]
    }
}

fn disk_rows(disk: &Disk) -> [Row; 6] {
    let status = disk.status();
    let healthy = u64::from(status.health == Health::Good);
    [
        ("bytes", "Bytes on the cache's disk.", status.bytes),
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
type Row = (&'static str, &'static str, u64);

fn push_rows(text: &mut String, prefix: &str, rows: &[Row]) -> std::fmt::Result {
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
