//! A store's answers by way of a tier: a cache on a faster disk than the store's.
//!
//! A request says to it what it says to a node, by `Cache-Control`, and the answer tells the same.

use std::sync::Arc;

use forebay_cache::tier::Tier;
use forebay_cache::{Disk, Status};
use forebay_store::entry::Entry;
use forebay_store::error::Result;
use forebay_store::{ContentStream, Error};
use http::{HeaderMap, StatusCode};

use crate::cache_metric::CacheMetrics;
use crate::node::{Outcome, directive, is_prestage, push_cached};
use crate::reply::ReplyBody;

/// The tier that a server answers by way of.
#[derive(Debug)]
pub(crate) struct TierFace {
    tier: Tier,
    metrics: CacheMetrics,
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        match status {
            Status::Hit => Self::Hit,
            Status::Partial => Self::Partial,
            Status::Miss => Self::Miss,
            Status::Bypass => Self::Bypass,
        }
    }
}

impl TierFace {
    /// Nothing is read yet.
    pub(crate) fn new(tier: Tier, disk: Arc<Disk>) -> Self {
        let metrics = CacheMetrics::new(tier.cache().clone(), Some(disk));
        Self { tier, metrics }
    }

    /// `len` bytes of an entry as an answer's body; says in its headers where they come from.
    ///
    /// # Errors
    /// As [`Buckets::open`](forebay_store::Buckets::open).
    pub(crate) fn body(
        &self,
        entry: &Arc<Entry>,
        asked: &HeaderMap,
        (offset, len): (u64, u64),
        (status, headers): (StatusCode, &mut HeaderMap),
    ) -> Result<ReplyBody> {
        let directive = directive(asked);
        let read = self.tier.open(entry, directive)?.read(offset, offset + len);
        let outcome = Outcome::from(read.status());
        self.metrics.read(outcome, status);
        outcome.push(headers, directive);
        Ok(match len {
            0 => ReplyBody::Empty,
            len => ReplyBody::Content(ContentStream::foreign(Box::pin(read), len)),
        })
    }

    /// Where a `HEAD` asks for it, says how much of an object is in the cache, and has the rest
    /// brought in.
    ///
    /// # Errors
    /// As [`Buckets::open`](forebay_store::Buckets::open), but for `Superseded`: a `HEAD` may well
    /// be answered with what was there a moment ago.
    pub(crate) fn head(
        &self,
        entry: &Arc<Entry>,
        asked: &HeaderMap,
        headers: &mut HeaderMap,
    ) -> Result<()> {
        let directive = directive(asked);
        if !directive.looks() || !is_prestage(asked) {
            return Ok(());
        }
        match self.prestage(entry, directive.fills()) {
            Ok((cached, outcome)) => {
                push_cached(headers, cached);
                if let Some(outcome) = outcome {
                    outcome.push(headers, directive);
                }
                Ok(())
            }
            Err(Error::Superseded(_)) => Ok(()),
            Err(err) => Err(err),
        }
    }

    fn prestage(&self, entry: &Arc<Entry>, fills: bool) -> Result<(u64, Option<Outcome>)> {
        let cached = self.tier.present(entry)?;
        if cached == entry.size {
            return Ok((cached, Some(Outcome::Hit)));
        }
        let queued = fills && self.tier.prestage(entry)?;
        if queued {
            self.metrics.read(Outcome::Prestage, StatusCode::OK);
        }
        Ok((cached, queued.then_some(Outcome::Prestage)))
    }

    /// All counters as text.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::with_capacity(4096);
        self.metrics
            .push(&mut text)
            .expect("writing to a String can't fail");
        text
    }
}
