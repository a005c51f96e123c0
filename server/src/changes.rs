//! `/-/changes`: what changed, for nodes that have the cluster's key.
//!
//! ```text
//! GET /-/changes?after=EPOCH-SEQUENCE&limit=N&wait=SECONDS
//! x-forebay-node: v1:…
//! ```
//!
//! Answered at once if there is a change after the position, else after `wait` seconds, with none.
//! `gap` says that not all changes since are known: take everything anew, from `next` on. So does
//! the first request, without `after`. Positions are text, since an epoch is beyond what many
//! readers of JSON take for a whole number. That accounts or access keys changed is told too, but
//! not which.
//!
//! # Invariants
//! 1. An answer without a gap has every change between `after` and `next` whose bucket still is, or
//!    whose bucket's end is in the feed after it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forebay_cache::cluster::NODE_HEADER;
use forebay_store::api::ListBuckets;
use forebay_store::entry::BucketId;
use forebay_store::event::{Change, ChangeKind, NO_BUCKET, Position, Since};
use http::request::Parts;
use serde::Serialize;

use crate::admin::Admin;
use crate::query::Query;

/// Changes in an answer, at most.
const LIMIT_MAX: usize = 1000;
/// Bytes of keys in an answer, about; each byte is up to six in JSON.
const KEYS_SIZE_MAX: usize = 256 << 10;
/// Longest wait for a change.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// How long a server that stops is held up by who waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Answer {
    /// Which run of the store.
    epoch: String,
    /// `after` of the next request.
    next: String,
    /// Whether changes are missing.
    gap: bool,
    changes: Vec<Told>,
}

/// A change as it is told.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Told {
    sequence: u64,
    /// Empty if nothing in a bucket changed.
    bucket: String,
    /// None if the bucket itself changed, or no bucket did.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    kind: &'static str,
    /// The new beginning of all keys, of `renamed_tree`.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
}

/// What a request asks.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    after: Option<Position>,
    limit: usize,
    wait: Duration,
}

/// Answers `GET /-/changes`.
pub(crate) async fn get(State(admin): State<Admin>, request: Parts) -> Response {
    match answer(&admin, &request).await {
        Ok(answer) => Json(answer).into_response(),
        Err((status, why)) => (status, format!("{why}\n")).into_response(),
    }
}

type Refusal = (StatusCode, String);

async fn answer(admin: &Admin, request: &Parts) -> Result<Answer, Refusal> {
    check(admin, request)?;
    let asked = parse(request.uri.query().unwrap_or_default())
        .map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let Some(after) = asked.after else {
        return Ok(gap(admin.objects.position()));
    };
    match wait(admin, after, &asked).await? {
        Since::Gap { now } => Ok(gap(now)),
        Since::Changes { changes, next } => {
            let (changes, next) = cut(changes, next);
            let names = names(admin, &changes).await?;
            let changes = changes
                .into_iter()
                .filter_map(|change| tell(change, &names));
            Ok(Answer {
                epoch: next.epoch.to_string(),
                next: text(next),
                gap: false,
                changes: changes.collect(),
            })
        }
    }
}

fn check(admin: &Admin, request: &Parts) -> Result<(), Refusal> {
    let Some(cluster) = &admin.cluster else {
        let why = "this server has no cluster key, so it tells no node of its changes";
        return Err((StatusCode::NOT_FOUND, why.to_owned()));
    };
    let now = admin.clock.now();
    let proven = request
        .headers
        .get(NODE_HEADER)
        .is_some_and(|value| cluster.proves(value, &request.method, &request.uri, now));
    if proven {
        return Ok(());
    }
    let why = "only nodes that prove the cluster key are told of changes";
    Err((StatusCode::FORBIDDEN, why.to_owned()))
}

fn parse(query: &str) -> Result<Asked, String> {
    let query = Query::parse(query).map_err(|error| error.message().to_owned())?;
    let mut asked = Asked {
        after: None,
        limit: LIMIT_MAX,
        wait: Duration::ZERO,
    };
    for (name, value) in query.iter() {
        match name {
            "after" => {
                let position = position(value);
                let why = || format!("after is {value:?}, expected EPOCH-SEQUENCE");
                asked.after = Some(position.ok_or_else(why)?);
            }
            "limit" => {
                let limit = value.parse().ok();
                let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit));
                let why = || format!("limit is {value:?}, expected 1 to {LIMIT_MAX}");
                asked.limit = limit.ok_or_else(why)?;
            }
            "wait" => {
                let wait = value.parse().ok().map(Duration::from_secs);
                let wait = wait.filter(|wait| *wait <= WAIT_MAX);
                let max = WAIT_MAX.as_secs();
                let why = || format!("wait is {value:?}, expected 0 to {max} seconds");
                asked.wait = wait.ok_or_else(why)?;
            }
            other => return Err(format!("{other:?} is no parameter: after, limit or wait")),
        }
    }
    Ok(asked)
}

/// Reads a position as it is written here.
pub(crate) fn position(text: &str) -> Option<Position> {
    let (epoch, sequence) = text.split_once('-')?;
    Some(Position {
        epoch: epoch.parse().ok()?,
        sequence: sequence.parse().ok()?,
    })
}

fn text(position: Position) -> String {
    format!("{}-{}", position.epoch, position.sequence)
}

fn gap(now: Position) -> Answer {
    Answer {
        epoch: now.epoch.to_string(),
        next: text(now),
        gap: true,
        changes: Vec::new(),
    }
}

fn failed(error: &forebay_store::Error) -> Refusal {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the change feed can't be read"
    );
    let why = "the change feed can't be read; the server's log says why";
    (StatusCode::INTERNAL_SERVER_ERROR, why.to_owned())
}

/// Waits for the first change, and looks now and then whether the server stops.
async fn wait(admin: &Admin, after: Position, asked: &Asked) -> Result<Since, Refusal> {
    let began_at = Instant::now();
    loop {
        let left = asked.wait.saturating_sub(began_at.elapsed());
        let since = admin
            .objects
            .changes(after, asked.limit, left.min(LOOK_EVERY))
            .await;
        let since = since.map_err(|error| failed(&error))?;
        let none = matches!(&since, Since::Changes { changes, .. } if changes.is_empty());
        if !none || left.is_zero() || admin.stopping.load(Ordering::Acquire) {
            return Ok(since);
        }
    }
}

/// As many of the changes as an answer may hold, and where they end.
fn cut(mut changes: Vec<Change>, mut next: Position) -> (Vec<Change>, Position) {
    let mut size = 0;
    let fits = |change: &Change| {
        let key = change.key.as_ref().map_or(0, |key| key.as_str().len());
        let to = match &change.kind {
            ChangeKind::RenamedTree { to } => to.len(),
            _ => 0,
        };
        size += key + to;
        size <= KEYS_SIZE_MAX
    };
    let count = changes.iter().map(fits).take_while(|fits| *fits).count();
    if count < changes.len() {
        // One change is never too large: keys are far smaller than that.
        changes.truncate(count);
        next.sequence = changes.last().map_or(next.sequence, |last| last.sequence);
    }
    (changes, next)
}

/// Names of all buckets that are, and of those whose end is among the changes.
async fn names(admin: &Admin, changes: &[Change]) -> Result<HashMap<BucketId, String>, Refusal> {
    if changes.is_empty() {
        return Ok(HashMap::new());
    }
    let all = ListBuckets {
        owner: None,
        prefix: String::new(),
        after: None,
        limit: None,
    };
    let (buckets, _) = admin
        .objects
        .list_buckets(all)
        .await
        .map_err(|error| failed(&error))?;
    let ended = changes.iter().filter_map(|change| match &change.kind {
        ChangeKind::BucketDeleted(bucket) => Some(bucket),
        _ => None,
    });
    let all = buckets.iter().chain(ended);
    Ok(all
        .map(|bucket| (bucket.id, bucket.name.as_str().to_owned()))
        .collect())
}

/// A change with its bucket's name; `None` if the bucket is gone. It was empty then, and its end
/// is told later, with its name.
fn tell(change: Change, names: &HashMap<BucketId, String>) -> Option<Told> {
    let (kind, to) = match change.kind {
        ChangeKind::Published { .. } => ("published", None),
        ChangeKind::Deleted => ("deleted", None),
        ChangeKind::RenamedTree { to } => ("renamed_tree", Some(to)),
        ChangeKind::BucketCreated(_) => ("bucket_created", None),
        ChangeKind::BucketDeleted(_) => ("bucket_deleted", None),
        ChangeKind::AccountsChanged => ("accounts_changed", None),
    };
    let bucket = match change.bucket {
        NO_BUCKET => String::new(),
        bucket => names.get(&bucket)?.clone(),
    };
    Some(Told {
        sequence: change.sequence,
        bucket,
        key: change.key.map(|key| key.as_str().to_owned()),
        kind,
        to,
    })
}

#[cfg(test)]
mod tests {
    use forebay_store::api::Face;
    use forebay_store::name::ObjectKey;

    use super::*;

    #[test]
    fn what_is_asked_is_checked() {
        let position = |epoch, sequence| Some(Position { epoch, sequence });
        let asked = |after, limit, wait| Asked {
            after,
            limit,
            wait: Duration::from_secs(wait),
        };
        let rows = [
            ("", asked(None, 1000, 0)),
            ("after=7-0", asked(position(7, 0), 1000, 0)),
            (
                "after=18446744073709551615-9&limit=1&wait=60",
                asked(position(u64::MAX, 9), 1, 60),
            ),
        ];
        for (query, expected) in rows {
            assert_eq!(parse(query), Ok(expected), "{query}");
        }
        for query in [
            "after=",
            "after=7",
            "after=-7",
            "after=7-",
            "after=a-1",
            "after=7-18446744073709551616",
            "limit=0",
            "limit=1001",
            "limit=a",
            "limit=",
            "wait=61",
            "wait=-1",
            "wait=1.5",
            "x=1",
            "after=%",
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
    }

    #[test]
    fn an_answer_is_bounded_and_says_where_it_ends() {
        let long = "k".repeat(1000);
        let change = |sequence| Change {
            sequence,
            bucket: BucketId(1),
            key: Some(ObjectKey::parse(&long).unwrap()),
            kind: ChangeKind::Deleted,
            face: Face::S3,
        };
        let end = Position {
            epoch: 7,
            sequence: 2000,
        };
        let (changes, next) = cut((1001..=2000).map(change).collect(), end);
        assert_eq!(changes.len(), KEYS_SIZE_MAX / 1000);
        assert_eq!(next.sequence, changes.last().unwrap().sequence);
        let (changes, next) = cut((1001..=1100).map(change).collect(), end);
        assert_eq!((changes.len(), next), (100, end));
    }

    #[test]
    fn a_bucket_that_is_gone_is_told_of_at_its_end_only() {
        let names = HashMap::from([(BucketId(1), "one".to_owned())]);
        let change = |bucket, kind| Change {
            sequence: 5,
            bucket: BucketId(bucket),
            key: Some(ObjectKey::parse("a/").unwrap()),
            kind,
            face: Face::Mount,
        };
        assert_eq!(tell(change(2, ChangeKind::Deleted), &names), None);
        let moved = ChangeKind::RenamedTree {
            to: "b/".to_owned(),
        };
        let told = tell(change(1, moved), &names).unwrap();
        assert_eq!(
            (told.bucket.as_str(), told.kind, told.to.as_deref()),
            ("one", "renamed_tree", Some("b/"))
        );
    }
}
