//! What changed at a forebay origin: its feed, `/-/changes`.

use std::time::Duration;

use http::header::HOST;
use http::{Method, Request};
use http_body_util::Empty;
use serde::Deserialize;

use super::call::refusal;
use super::client::Client;
use super::error::OriginError;
use crate::cluster::NODE_HEADER;

/// Largest answer, in bytes: a thousand changes of keys, each byte of which may be six in JSON.
const ANSWER_SIZE_MAX: usize = 4 << 20;

/// What a feed answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Changes {
    /// Where to go on.
    pub next: String,
    /// Whether there were changes that are not known any more.
    pub gap: bool,
    /// What changed, in order.
    pub changes: Vec<Changed>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Changed {
    /// Its place in the order of all changes.
    pub sequence: u64,
    /// The bucket's name; empty if nothing in a bucket changed.
    pub bucket: String,
    /// The key; none if the bucket itself changed, or no bucket did.
    pub key: Option<String>,
    /// What happened.
    pub kind: ChangedKind,
    /// The new beginning of the keys of a renamed tree.
    pub to: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangedKind {
    /// The key has a new current version.
    Published,
    /// The key has no current version any more.
    Deleted,
    /// All keys that begin with the key begin with `to` now.
    RenamedTree,
    /// The bucket was made.
    BucketCreated,
    /// The bucket was deleted.
    BucketDeleted,
    /// Accounts or access keys changed.
    AccountsChanged,
    /// What only a later version knows.
    #[serde(other)]
    Other,
}

impl Client {
    /// Asks for what changed after a position, or for the position now; waits up to `wait` for a
    /// change, which has to be shorter than the wait for an answer's head.
    ///
    /// # Errors
    /// [`OriginError::Refused`] if the origin has no feed, or not for this client (403, 404);
    /// [`OriginError::Unavailable`]; [`OriginError::Corrupt`].
    pub async fn changes(
        &self,
        after: Option<&str>,
        wait: Duration,
    ) -> Result<Changes, OriginError> {
        let mut target = format!("/-/changes?wait={}", wait.as_secs());
        if let Some(after) = after {
            // Digits and a hyphen, as it was given; anything else would be the origin's fault.
            target.push_str("&after=");
            target.push_str(&crate::sign::encode(after));
        }
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(&target)
            .body(Empty::new())
            .map_err(|err| OriginError::Invalid(err.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.endpoint().host());
        if let Some(proof) = self.cluster_proof(&Method::GET, &target) {
            headers.insert(NODE_HEADER, proof);
        }
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(OriginError::Refused(refusal(response).await));
        }
        let body = response
            .into_body()
            .collect_at_most(ANSWER_SIZE_MAX)
            .await?;
        serde_json::from_slice(&body)
            .map_err(|err| OriginError::Corrupt(format!("the change feed: {err}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_the_origin_writes_it() {
        let text = br#"{"epoch":"18446744073709551615","next":"18446744073709551615-7","gap":false,
            "changes":[
            {"sequence":5,"bucket":"b","key":"k","kind":"published"},
            {"sequence":6,"bucket":"b","key":"d/","kind":"renamed_tree","to":"e/"},
            {"sequence":7,"bucket":"c","kind":"bucket_created"},
            {"sequence":8,"bucket":"","kind":"accounts_changed"},
            {"sequence":9,"bucket":"c","kind":"painted"}]}"#;
        let answer: Changes = serde_json::from_slice(text).unwrap();
        assert_eq!(answer.next, "18446744073709551615-7");
        let kinds: Vec<_> = answer.changes.iter().map(|change| change.kind).collect();
        assert_eq!(
            kinds,
            [
                ChangedKind::Published,
                ChangedKind::RenamedTree,
                ChangedKind::BucketCreated,
                ChangedKind::AccountsChanged,
                ChangedKind::Other
            ]
        );
        assert_eq!(answer.changes[1].to.as_deref(), Some("e/"));
        assert_eq!(answer.changes[2].key, None);
        assert_eq!(answer.changes[2].sequence, 7);
    }
}
