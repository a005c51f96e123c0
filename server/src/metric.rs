//! What is counted, as Prometheus text (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Counters are plain atomics in an array over calls and statuses, so counting costs no lock.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::call::CALLS;

/// Statuses with a counter of their own; the last stands for all others.
const STATUSES: [u16; 18] = [
    200, 204, 206, 301, 304, 400, 403, 404, 405, 409, 411, 412, 416, 500, 501, 503, 507, 0,
];

#[derive(Debug, Default)]
struct PerCall {
    by_status: [AtomicU64; STATUSES.len()],
    nanos: AtomicU64,
    bytes_out: AtomicU64,
}

/// All counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// One for each call, and one for requests that are none.
    calls: Vec<PerCall>,
    /// Connections that are open.
    pub(crate) connections: AtomicU64,
    /// Connections that could not be accepted.
    pub(crate) accept_errors: AtomicU64,
    /// Requests whose handler panicked.
    pub(crate) panics: AtomicU64,
}

impl Metrics {
    /// Nothing is counted yet.
    pub(crate) fn new() -> Self {
        Self {
            calls: (0..=CALLS.len()).map(|_| PerCall::default()).collect(),
            connections: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        }
    }

    /// Counts an answer. `call` is its place in the table, if the request was a call.
    pub(crate) fn count(&self, call: Option<usize>, status: u16, took: Duration, bytes_out: u64) {
        let per_call = &self.calls[call.unwrap_or(CALLS.len())];
        let others = STATUSES.len() - 1;
        let place = STATUSES
            .iter()
            .position(|known| *known == status)
            .unwrap_or(others);
        per_call.by_status[place].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        per_call.nanos.fetch_add(nanos, Ordering::Relaxed);
        per_call.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
    }

    /// All counters as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(4096);
        let names = CALLS.iter().map(|call| call.name).chain(["None"]);
        let used: Vec<(&str, &PerCall, u64)> = names
            .zip(&self.calls)
            .map(|(name, per_call)| {
                let sum = per_call
                    .by_status
                    .iter()
                    .map(|count| count.load(Ordering::Relaxed))
                    .sum();
                (name, per_call, sum)
            })
            .filter(|(.., sum)| *sum > 0)
            .collect();
        self.push_requests(&mut text, &used)
            .expect("writing to a String can't fail");
        text
    }

    fn push_requests(&self, text: &mut String, used: &[(&str, &PerCall, u64)]) -> std::fmt::Result {
        text.push_str("# HELP forebay_requests_total Requests answered, by call and status.\n# TYPE forebay_requests_total counter\n");
        for (name, per_call, _) in used {
            for (status, count) in STATUSES.iter().zip(&per_call.by_status) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    writeln!(
                        text,
                        "forebay_requests_total{{op=\"{name}\",code=\"{status}\"}} {count}"
                    )?;
                }
            }
        }
        text.push_str("# HELP forebay_request_seconds Time until the head of the answer.\n# TYPE forebay_request_seconds summary\n");
        for (name, per_call, sum) in used {
            let nanos = per_call.nanos.load(Ordering::Relaxed);
            let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            writeln!(
                text,
                "forebay_request_seconds_sum{{op=\"{name}\"}} {seconds}.{rest:09}"
            )?;
            writeln!(text, "forebay_request_seconds_count{{op=\"{name}\"}} {sum}")?;
        }
        text.push_str("# HELP forebay_response_bytes_total Bytes of answers' bodies.\n# TYPE forebay_response_bytes_total counter\n");
        for (name, per_call, _) in used {
            let bytes = per_call.bytes_out.load(Ordering::Relaxed);
            writeln!(
                text,
                "forebay_response_bytes_total{{op=\"{name}\"}} {bytes}"
            )?;
        }
        for (name, kind, help, value) in [
            (
                "forebay_connections",
                "gauge",
                "Open connections.",
                &self.connections,
            ),
            (
                "forebay_accept_errors_total",
                "counter",
                "Connections that could not be accepted.",
                &self.accept_errors,
            ),
            (
                "forebay_panics_total",
                "counter",
                "Requests whose handler panicked.",
                &self.panics,
            ),
        ] {
            let value = value.load(Ordering::Relaxed);
            writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_call_and_status() {
        let metrics = Metrics::new();
        let get = CALLS.iter().position(|call| call.name == "GetObject");
        metrics.count(get, 200, Duration::from_millis(1500), 10);
        metrics.count(get, 200, Duration::from_millis(500), 5);
        metrics.count(get, 404, Duration::ZERO, 0);
        metrics.count(None, 418, Duration::ZERO, 0);
        let text = metrics.text();
        for line in [
            "forebay_requests_total{op=\"GetObject\",code=\"200\"} 2",
            "forebay_requests_total{op=\"GetObject\",code=\"404\"} 1",
            "forebay_requests_total{op=\"None\",code=\"0\"} 1",
            "forebay_request_seconds_sum{op=\"GetObject\"} 2.000000000",
            "forebay_response_bytes_total{op=\"GetObject\"} 15",
            "forebay_connections 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
