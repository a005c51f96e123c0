//! Reads that a node answers by itself, while a forebay origin lets it.
//!
//! An answer of the origin may bring a [lease](crate::lease). As long as the origin's change feed
//! is heard (`follow`), what was leased is true (`table`), and the node decides reads of it with
//! the server's own code: who signed ([`Authenticator`]), and what the read comes to ([`head`]).
//! Whatever it would refuse, but for conditions and ranges, or can't decide for sure, is asked of
//! the origin as ever. Where the origin is down, and the node is told to serve what is stale, what
//! was true a while ago counts as well.
//!
//! # Invariants
//! 1. Without a signature that the node has verified nothing is answered here.
//! 2. A client that wants the origin asked (`no-cache`, `max-age=0`) gets it asked.

mod follow;
mod table;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_cache::Version;
use forebay_cache::origin::Client;
use forebay_store::entry::Account;
use forebay_store::name::{AccountId, VersionId};
use forebay_store::time::{Clock, Timestamp};
use http::header::{CACHE_CONTROL, HOST};
use http::{HeaderMap, HeaderValue};

pub(super) use self::table::Ask;
use self::table::{Key, Need, Object, Table, name};
use super::reading::Reading;
use crate::auth::{self, Authenticator, Credential, KnownKey, Verifier};
use crate::call::{self, CALLS};
use crate::compat::Compat;
use crate::error::{Code, Result};
use crate::head::{self, Found, ReadHead};
use crate::header;
use crate::lease::{LABEL, LEASE_HEADER, Lease, Sealer};
use crate::query::Query;
use crate::target::Target;

/// For how long leases hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// How long after the last sign of the origin's change feed a node answers by itself; at least
    /// some seconds. No answer is older than that.
    pub term: Duration,
    /// How long ago an object must have been known if it is to be read while the origin is down;
    /// zero if it is not to be.
    pub stale_max: Duration,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self {
            term: Duration::from_secs(10),
            stale_max: Duration::ZERO,
        }
    }
}

/// What is counted of leases.
#[derive(Debug, Default)]
pub(super) struct LeaseCounters {
    /// Reads answered without asking.
    pub(super) answers: AtomicU64,
    /// Reads answered with what was true a while ago.
    pub(super) stale: AtomicU64,
    /// Leases taken.
    pub(super) taken: AtomicU64,
    /// Leases that were old when they came.
    pub(super) late: AtomicU64,
    /// Leases ended by a change.
    pub(super) ended: AtomicU64,
    /// How often the feed was lost.
    pub(super) losses: AtomicU64,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Leases {
    terms: LeaseTerms,
    sealer: Sealer,
    authenticator: Authenticator,
    base_domains: Vec<String>,
    clock: Arc<dyn Clock>,
    /// What to add to this clock to have the origin's, in seconds.
    skew_s: AtomicI64,
    table: Mutex<Table>,
    pub(super) counters: LeaseCounters,
    /// Whether the origin is down, as far as it was said in the log.
    said_stale: AtomicBool,
}

/// A read that is answered here.
#[derive(Debug)]
pub(super) struct Leased {
    /// What it comes to.
    pub(super) found: Result<Found>,
    /// Of which version.
    pub(super) version: Arc<Version>,
}

impl Leases {
    /// Of the origin that this client speaks to; `None` if it has no cluster key.
    pub(super) fn new(
        terms: LeaseTerms,
        client: &Client,
        base_domains: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Option<Self> {
        let key = client.cluster_derived_key(LABEL)?;
        Some(Self {
            terms,
            sealer: Sealer::with_derived(&key),
            // Of scopes that the origin does not take there are no keys here.
            authenticator: Authenticator::new(String::new(), false),
            base_domains,
            clock,
            skew_s: AtomicI64::new(0),
            table: Mutex::new(Table::new(terms.term)),
            counters: LeaseCounters::default(),
            said_stale: AtomicBool::new(false),
        })
    }

    /// Follows the origin's changes for as long as it is polled.
    pub(super) async fn follow(self: Arc<Self>, client: Client) {
        follow::follow(&self, &client).await;
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No line of it leaves it half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The origin is about to be asked.
    pub(super) fn ask(&self) -> Ask {
        self.table().ask(Instant::now())
    }

    /// Takes the lease that came with an answer to a question with this proof, if there is one.
    pub(super) fn take(
        &self,
        ask: Ask,
        reading: &Reading,
        proof: &HeaderValue,
        headers: &HeaderMap,
    ) {
        let Some(sent) = headers.get(LEASE_HEADER) else {
            return;
        };
        let Some(lease) = self.sealer.open(sent, proof) else {
            tracing::debug!("a lease that can't be opened");
            return;
        };
        let (at, now_s) = (lease.position, lease.now_s);
        let Some((object, key)) = held(lease, reading) else {
            tracing::debug!("a lease of something else");
            return;
        };
        let skew_s = now_s.saturating_sub(self.clock.now().seconds());
        self.skew_s.store(skew_s, Ordering::Relaxed);
        let count = if self.table().take(ask, at, object, key) {
            &self.counters.taken
        } else {
            &self.counters.late
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Answers a read, if what it needs is known to be true now.
    pub(super) fn fresh(&self, reading: &Reading) -> Option<Leased> {
        let leased = self.decide(reading, Need::Fresh)?;
        self.counters.answers.fetch_add(1, Ordering::Relaxed);
        Some(leased)
    }

    /// Answers a read while the origin is down, if what it needs was true not long ago.
    pub(super) fn stale(&self, reading: &Reading) -> Option<Leased> {
        let need = self.stale_need()?;
        let leased = self.decide(reading, need)?;
        if !self.said_stale.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the origin does not answer: objects that are cached and were known not longer than {} \
                 seconds ago are read as they were",
                self.terms.stale_max.as_secs()
            );
        }
        self.counters.stale.fetch_add(1, Ordering::Relaxed);
        Some(leased)
    }

    fn stale_need(&self) -> Option<Need> {
        let max = self.terms.stale_max;
        (!max.is_zero()).then_some(Need::Within(max))
    }

    /// Whether there is anything that could be read while the origin is down.
    pub(super) fn has_stale(&self) -> bool {
        let now = Instant::now();
        self.stale_need()
            .is_some_and(|need| self.table().knows(need, now))
    }

    /// The origin has answered.
    pub(super) fn answered(&self) {
        if self.said_stale.swap(false, Ordering::Relaxed) {
            tracing::info!("the origin answers again");
        }
    }

    /// What is held of an object is not true.
    pub(super) fn forget(&self, bucket: &str, key: &str) {
        self.table().forget(&name(bucket, key));
    }

    /// A client has written through here: an object, or several of a bucket.
    pub(super) fn wrote(&self, bucket: &str, key: Option<&str>) {
        let mut table = self.table();
        match key {
            Some(key) => table.wrote(&name(bucket, key)),
            None => table.wrote_in(bucket),
        }
    }

    /// Whether reads can be answered here, and how many objects and keys are held.
    pub(super) fn status(&self) -> (bool, usize, usize) {
        let table = self.table();
        let (objects, keys) = table.len();
        (table.is_live(Instant::now()), objects, keys)
    }

    /// What time it is at the origin, in seconds since 1970.
    fn now_s(&self) -> i64 {
        let skew_s = self.skew_s.load(Ordering::Relaxed);
        self.clock.now().seconds().saturating_add(skew_s)
    }

    fn decide(&self, reading: &Reading, need: Need) -> Option<Leased> {
        if wants_the_origin(&reading.headers) {
            return None;
        }
        let query = Query::parse(reading.target.query().unwrap_or_default()).ok()?;
        // There may be other versions, and parts, than the one that is known.
        if query.has("versionId") || query.has("partNumber") {
            return None;
        }
        let claimed = auth::claimed(&query, &reading.headers)?;
        let (object, key, _) = {
            let (name, scope) = (name(&reading.bucket, &reading.key), scope(&claimed));
            self.table().find(&name, &scope, need, Instant::now())?
        };
        if object.bucket_owner != key.account.id.as_str() {
            return None;
        }
        let mut headers = reading.headers.clone();
        self.verify(reading, &query, &mut headers, &claimed, &key)?;
        let expected = header::text(&headers, "x-amz-expected-bucket-owner").ok()?;
        if expected.is_some_and(|expected| expected != object.bucket_owner) {
            return None;
        }
        // It may have been computed since.
        if object.entry.checksum.is_none() && headers.contains_key("x-amz-checksum-mode") {
            return None;
        }
        let read = ReadHead {
            headers: &headers,
            query: &query,
            part_number: None,
            now_s: self.now_s(),
        };
        let found = head::of(&object.entry, &read);
        let is_said_here = |code| matches!(code, Code::PreconditionFailed | Code::InvalidRange);
        if found
            .as_ref()
            .is_err_and(|error| !is_said_here(error.code()))
        {
            return None;
        }
        Some(Leased {
            found,
            version: Arc::clone(&object.version),
        })
    }

    /// Verifies who has signed a read; what stands in its query for headers becomes headers.
    fn verify(
        &self,
        reading: &Reading,
        query: &Query,
        headers: &mut HeaderMap,
        claimed: &Credential<'_>,
        key: &Key,
    ) -> Option<()> {
        let host = reading.headers.get(HOST)?.to_str().ok()?;
        let path = reading.target.path();
        let target = Target::parse(host, path, &self.base_domains, Compat::Forebay).ok()?;
        let index = call::route(&reading.method, target.level(), query, headers).ok()?;
        let asked = auth::Asked {
            method: &reading.method,
            path: &target.path,
            query,
            call: &CALLS[index],
        };
        let find = |found: &Credential<'_>| {
            (found == claimed).then(|| KnownKey {
                account: Arc::clone(&key.account),
                verifier: Verifier::Derived(key.signing_key.clone()),
            })
        };
        let auth = self
            .authenticator
            .authenticate(&asked, headers, &find, self.now_s());
        auth.ok()?.account().ok()?;
        Some(())
    }
}

/// Whether a client does not want to be answered without the origin.
fn wants_the_origin(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter();
    let mut words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.any(|word| {
        let word = word.trim();
        word.eq_ignore_ascii_case("no-cache")
            || word.eq_ignore_ascii_case("no-store")
            || word.eq_ignore_ascii_case("max-age=0")
    })
}

/// A name for what is signed for. Neither days nor regions have slashes.
fn scope(claimed: &Credential<'_>) -> String {
    [claimed.date, claimed.region, claimed.key_id].join("/")
}

type Named<T> = (String, T);

/// What is to be held of a lease; `None` if it is not of what this read asks for, and by whom.
fn held(lease: Lease, reading: &Reading) -> Option<(Named<Object>, Named<Key>)> {
    let Lease { signer, object, .. } = lease;
    let query = Query::parse(reading.target.query().unwrap_or_default()).ok()?;
    let claimed = auth::claimed(&query, &reading.headers)?;
    let signed = (&*signer.key_id, &*signer.date, &*signer.region);
    if signed != (claimed.key_id, claimed.date, claimed.region)
        || (&object.bucket, &object.key) != (&reading.bucket, &reading.key)
        || query.has("versionId")
    {
        return None;
    }
    let (bucket, bucket_owner) = (object.bucket.clone(), object.bucket_owner.clone());
    let entry = object.entry()?;
    let version = Version {
        bucket,
        key: entry.key.as_str().to_owned(),
        etag: entry.etag.to_string(),
        version_id: entry
            .version_id
            .as_ref()
            .map(VersionId::as_str)
            .map(str::to_owned),
        size: entry.size,
    };
    let account = Account {
        id: AccountId::new(&signer.account),
        name: String::new(),
        created_at: Timestamp(0),
    };
    let key = Key {
        signing_key: signer.signing_key(),
        account: Arc::new(account),
    };
    let object = Object {
        entry,
        version: Arc::new(version),
        bucket_owner,
    };
    let name = name(&reading.bucket, &reading.key);
    Some(((name, object), (scope(&claimed), key)))
}

#[cfg(test)]
mod tests;
