//! Hears the origin's change feed, `/-/changes`: what ends leases, and what keeps them fresh.
//!
//! The origin answers when something changes, or after [`wait`]; each answer confirms all leases as
//! of the moment that it was asked for.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forebay_cache::origin::{Changed, ChangedKind, Changes, Client, OriginError};
use http::StatusCode;

use super::Leases;
use super::table::name;
use crate::changes;

/// How long changes gather at the origin after some were told: where there are many, not each of
/// them is an answer of its own.
const GATHER: Duration = Duration::from_millis(10);
/// How long it is left alone after it failed.
const PAUSE: Duration = Duration::from_millis(500);
/// The same if it said that it has no feed for this client.
const REFUSED_PAUSE: Duration = Duration::from_mins(1);

/// How long the origin may wait for a change: an answer that is lost still leaves time for another
/// one within the term. The feed knows whole seconds.
fn wait(term: Duration) -> Duration {
    Duration::from_secs((term.as_secs() / 5).max(1))
}

/// Hears the feed for as long as it is polled.
pub(super) async fn follow(leases: &Leases, client: &Client) {
    let term = leases.terms.term;
    let mut after: Option<String> = None;
    let mut told_of = false;
    loop {
        let asked_at = Instant::now();
        // After a loss the next answer is wanted at once.
        let wait = if told_of { Duration::ZERO } else { wait(term) };
        let asked = client.changes(after.as_deref(), wait);
        let answer = match tokio::time::timeout(term, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(OriginError::Unavailable(
                "the change feed does not answer".to_owned(),
            )),
        };
        let err = match answer.and_then(|answer| tell(leases, answer, asked_at)) {
            Ok(told) => {
                if std::mem::take(&mut told_of) {
                    tracing::info!("the origin tells its changes again");
                }
                // One gap after the other is no feed; it is not asked without pause.
                let pause = if told.gap && after.is_some() {
                    PAUSE
                } else {
                    GATHER
                };
                if told.gap || told.some {
                    tokio::time::sleep(pause).await;
                }
                after = Some(told.next);
                continue;
            }
            Err(err) => err,
        };
        if leases.table().lose() {
            leases.counters.losses.fetch_add(1, Ordering::Relaxed);
        }
        if !std::mem::replace(&mut told_of, true) {
            tracing::warn!(%err, "the origin's changes are not told: it is asked for each read");
        }
        let refused = err.status().is_some_and(is_refusal);
        tokio::time::sleep(if refused { REFUSED_PAUSE } else { PAUSE }).await;
    }
}

/// Whether asking again soon would be answered the same.
fn is_refusal(status: StatusCode) -> bool {
    status == StatusCode::FORBIDDEN || status == StatusCode::NOT_FOUND
}

/// What an answer was.
struct Told {
    /// Where to go on.
    next: String,
    /// Whether it begins anew there.
    gap: bool,
    /// Whether there were changes.
    some: bool,
}

/// Ends what has changed.
fn tell(leases: &Leases, answer: Changes, asked_at: Instant) -> Result<Told, OriginError> {
    let at = changes::position(&answer.next)
        .ok_or_else(|| OriginError::Corrupt("the change feed has no position".to_owned()))?;
    let mut table = leases.table();
    let mut ended = 0;
    for changed in &answer.changes {
        ended += end(&mut table, changed);
    }
    table.confirm(at, answer.gap, asked_at);
    drop(table);
    leases.counters.ended.fetch_add(ended, Ordering::Relaxed);
    Ok(Told {
        next: answer.next,
        gap: answer.gap,
        some: !answer.changes.is_empty(),
    })
}

/// Ends what a change concerns.
fn end(table: &mut super::Table, changed: &Changed) -> u64 {
    let Changed {
        sequence, bucket, ..
    } = changed;
    let key = changed.key.as_deref();
    match (changed.kind, key) {
        (ChangedKind::Published | ChangedKind::Deleted, Some(key)) => {
            table.changed(&name(bucket, key), *sequence)
        }
        (ChangedKind::RenamedTree, Some(key)) => {
            let to = changed.to.as_deref().unwrap_or_default();
            let below = [name(bucket, key), name(bucket, to)];
            table.changed_below(&below, *sequence)
        }
        (ChangedKind::BucketCreated | ChangedKind::BucketDeleted, _) => {
            table.changed_below(&[name(bucket, "")], *sequence)
        }
        (ChangedKind::AccountsChanged, _) => table.changed_accounts(*sequence),
        // What is not understood may concern anything.
        _ => table.changed_all(*sequence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_lost_leaves_time_for_another() {
        for (term_s, wait_s) in [(1, 1), (3, 1), (10, 2), (60, 12)] {
            assert_eq!(
                wait(Duration::from_secs(term_s)),
                Duration::from_secs(wait_s)
            );
        }
    }
}
