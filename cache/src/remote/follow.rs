//! Following a forebay origin's changes, so that nothing known has to be asked for again.
//!
//! # Invariants
//! 1. Changes are believed to be told only between an answer of the feed and the next failure; what
//!    was known before is forgotten when following begins, and after every gap.

use std::sync::Arc;
use std::time::Duration;

use forebay_store::name::{BucketName, ObjectKey};
use http::StatusCode;

use super::RemoteFiles;
use super::change::{OriginChange, OriginChangeKind};
use crate::origin::{Changed, ChangedKind, Changes, Client, OriginError};

/// How long the origin waits for a change before it answers that there is none. A feed that is lost
/// is noticed after this and the client's deadline.
const WAIT: Duration = Duration::from_secs(5);
/// Longest time for an answer, its last byte included; after it the feed is lost.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// How long it is left alone after it failed.
const PAUSE: Duration = Duration::from_secs(1);
/// The same if it said that it has no feed for this client.
const REFUSED_PAUSE: Duration = Duration::from_mins(1);

/// Ends following however the follower ends.
struct Following<'a>(&'a RemoteFiles);

impl Drop for Following<'_> {
    fn drop(&mut self) {
        self.0.unfollow();
    }
}

/// Follows the changes of `client`'s origin for as long as it is polled. It never returns: an
/// origin that has no feed for this client is asked again after a while.
pub async fn follow(files: Arc<RemoteFiles>, client: Client) {
    let _following = Following(&files);
    let mut after: Option<String> = None;
    let (mut follows, mut told_of) = (false, false);
    loop {
        let answer = tokio::time::timeout(ANSWER_MAX, client.changes(after.as_deref(), WAIT)).await;
        let late = || OriginError::Unavailable("the change feed does not end".to_owned());
        let err = match answer.unwrap_or_else(|_| Err(late())) {
            Ok(answer) => {
                let anew = !follows || answer.gap;
                if anew {
                    files.follow();
                }
                // One gap after the other is no feed; it is not asked without pause.
                let pause = follows && answer.gap;
                (follows, told_of) = (true, false);
                after = Some(tell(&files, answer));
                if pause {
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            }
            Err(err) => err,
        };
        files.unfollow();
        let refused = err.status().is_some_and(is_refusal);
        if follows || !told_of {
            tracing::warn!(%err, "the origin's changes are not told: what is known is asked for again");
        }
        (follows, told_of) = (false, true);
        tokio::time::sleep(if refused { REFUSED_PAUSE } else { PAUSE }).await;
    }
}

/// Whether asking again soon would be answered the same.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error()
        && status != StatusCode::TOO_MANY_REQUESTS
        && status != StatusCode::REQUEST_TIMEOUT
}

/// Tells the changes; where to go on.
fn tell(files: &RemoteFiles, answer: Changes) -> String {
    for changed in &answer.changes {
        if changed.kind == ChangedKind::AccountsChanged {
            // No file is another one for that, and who may read is asked with each request.
            continue;
        }
        match change(changed) {
            Some(change) => files.invalidate(&change),
            // A later version may know more kinds, or names that we have no room for: all the more
            // it has to be asked for anew.
            None => files.follow(),
        }
    }
    answer.next
}

fn change(changed: &Changed) -> Option<OriginChange> {
    let key = || ObjectKey::parse(changed.key.as_deref()?).ok();
    let kind = match changed.kind {
        ChangedKind::Published => OriginChangeKind::Published(key()?),
        ChangedKind::Deleted => OriginChangeKind::Deleted(key()?),
        ChangedKind::RenamedTree => OriginChangeKind::RenamedTree {
            from: key()?,
            to: changed.to.clone()?,
        },
        ChangedKind::BucketCreated => OriginChangeKind::BucketCreated,
        ChangedKind::BucketDeleted => OriginChangeKind::BucketDeleted,
        ChangedKind::AccountsChanged | ChangedKind::Other => return None,
    };
    Some(OriginChange {
        bucket: BucketName::parse(&changed.bucket).ok()?,
        kind,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(kind: ChangedKind, key: Option<&str>) -> Changed {
        Changed {
            sequence: 1,
            bucket: "bucket".to_owned(),
            key: key.map(str::to_owned),
            kind,
            to: None,
        }
    }

    #[test]
    fn what_can_not_be_understood_is_no_change() {
        let good = changed(ChangedKind::Published, Some("k"));
        assert!(change(&good).is_some());
        assert_eq!(change(&changed(ChangedKind::Deleted, None)), None);
        assert_eq!(change(&changed(ChangedKind::RenamedTree, Some("d/"))), None);
        let nowhere = Changed {
            bucket: "NO".to_owned(),
            ..good
        };
        assert_eq!(change(&nowhere), None);
        assert_eq!(change(&changed(ChangedKind::Other, Some("k"))), None);
    }

    #[test]
    fn a_refusal_lasts_and_trouble_does_not() {
        for status in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN] {
            assert!(is_refusal(status));
        }
        for status in [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::BAD_GATEWAY,
        ] {
            assert!(!is_refusal(status));
        }
    }
}
