//! What a node counts beside its requests, as Prometheus text: the cache's part, and the origin's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_cache::origin::{BreakerState, Client};
use forebay_cache::peer::PeerStatistics;
use forebay_cache::{Cache, Disk};
use http::StatusCode;

use super::lease::Leases;
use super::outcome::Outcome;
use crate::cache_metric::{CacheMetrics, Row, push_rows};

/// Counters of a node.
#[derive(Debug)]
pub(super) struct NodeMetrics {
    cache: CacheMetrics,
    client: Client,
    leases: Option<Arc<Leases>>,
    passed: AtomicU64,
    failed: AtomicU64,
}

impl NodeMetrics {
    /// Nothing is counted yet.
    pub(super) fn new(
        cache: Cache,
        disk: Option<Arc<Disk>>,
        client: Client,
        leases: Option<Arc<Leases>>,
    ) -> Self {
        Self {
            cache: CacheMetrics::new(cache, disk),
            client,
            leases,
            passed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Counts a read of an object's bytes, and what the cache had of them.
    pub(super) fn read(&self, outcome: Outcome, status: StatusCode) {
        self.cache.read(outcome, status);
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
        self.cache.push(text)?;
        if let Some(leases) = &self.leases {
            push_rows(text, "forebay_lease_", &lease_rows(leases))?;
        }
        if let Some(peers) = self.cache.peers() {
            push_rows(text, "forebay_peer_", &peer_rows(&peers))?;
        }
        push_rows(text, "forebay_origin_", &self.origin_rows())?;
        push_rows(text, "forebay_proxy_", &self.proxy_rows())
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

fn peer_rows(peers: &PeerStatistics) -> [Row; 10] {
    [
        (
            "hits_total",
            "Requests to peers that had all of the bytes.",
            peers.hits,
        ),
        (
            "misses_total",
            "Requests to peers that fetched bytes from the origin.",
            peers.misses,
        ),
        (
            "passed_over_total",
            "Requests to peers that did not bring all bytes.",
            peers.passed_over,
        ),
        (
            "wrong_total",
            "Those whose bytes were not what they should be.",
            peers.wrong,
        ),
        (
            "received_bytes_total",
            "Bytes of objects that peers brought.",
            peers.bytes_from,
        ),
        (
            "lent_total",
            "Requests of peers that were answered.",
            peers.lent,
        ),
        (
            "refused_total",
            "Requests of peers that were refused.",
            peers.refused,
        ),
        (
            "sent_bytes_total",
            "Bytes of objects that were sent to peers.",
            peers.bytes_to,
        ),
        (
            "alive",
            "Peers that answer, without this node.",
            peers.alive,
        ),
        ("known", "Peers there are, without this node.", peers.known),
    ]
}

fn lease_rows(leases: &Leases) -> [Row; 9] {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &leases.counters;
    let (is_live, objects, keys) = leases.status();
    [
        (
            "answers_total",
            "Reads answered without asking the origin.",
            read(&counters.answers),
        ),
        (
            "stale_answers_total",
            "Reads answered as it was before the origin went down.",
            read(&counters.stale),
        ),
        ("taken_total", "Leases taken.", read(&counters.taken)),
        (
            "late_total",
            "Leases that a change had overtaken.",
            read(&counters.late),
        ),
        (
            "ended_total",
            "Leases ended by a change.",
            read(&counters.ended),
        ),
        (
            "feed_losses_total",
            "How often the change feed was lost.",
            read(&counters.losses),
        ),
        (
            "feed_up",
            "0 while no change is told, and each read asked for.",
            u64::from(is_live),
        ),
        ("objects", "Objects that are leased.", objects as u64),
        ("keys", "Access keys' days that are leased.", keys as u64),
    ]
}
