//! What a node holds leases of, and whether they may be used.
//!
//! What an origin says of an object or a key is true at a position of its change feed. It stays
//! true until the feed tells otherwise; that the feed tells all, each of its answers confirms anew.
//! So there is one clock for all leases: the last confirmation. A lease is *fresh* while that is
//! younger than the term.
//!
//! Changes and answers overtake each other. A change that is told before the answer that it makes
//! old is remembered in a mark for its key, and the answer, which names its position, is not taken.
//! Marks are shared by keys with the same hash: now and then a lease is not taken for nothing.
//! Writes that come by this node are marked likewise, with numbers of the node's own, since their
//! clients know of them before the feed tells.
//!
//! # Invariants
//! 1. A fresh lease was looked up in the run of the origin that the feed is of, and no change of it
//!    was told, or made through here, since.
//! 2. What a change concerns is gone from here before the feed counts as confirmed after it.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_cache::Version;
use forebay_store::entry::{Account, Entry};
use forebay_store::event::Position;
use lru::LruCache;

use crate::auth::SigningKey;

/// Objects held, at most: a few hundred bytes each, and their metadata.
const OBJECTS_MAX: NonZeroUsize = NonZeroUsize::new(1 << 16).expect("not zero");
/// Keys held, at most; one is in use per access key, day and region.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Longest life of a lease, whatever the feed says.
const LIFE_MAX: Duration = Duration::from_hours(1);
/// Marks that keys share.
const MARKS: usize = 4096;
/// Earlier runs of the feed that are remembered.
const ERAS_MAX: usize = 64;

/// What is held of an object.
#[derive(Debug)]
pub(super) struct Object {
    /// What the origin knows of it.
    pub(super) entry: Entry,
    /// The same for the cache.
    pub(super) version: Arc<Version>,
    /// The account that its bucket belongs to.
    pub(super) bucket_owner: String,
}

/// What is held of a key.
#[derive(Debug)]
pub(super) struct Key {
    /// Verifies what it signs.
    pub(super) signing_key: SigningKey,
    /// The account that it belongs to.
    pub(super) account: Arc<Account>,
}

/// How well known a lease must be to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// It must be true now.
    Fresh,
    /// It must have been true within this time.
    Within(Duration),
}

/// When a question was asked.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct Ask {
    tick: u64,
    asked_at: Instant,
}

#[derive(Debug)]
struct Held<T> {
    what: Arc<T>,
    /// The feed that would tell of a change; 0 if none would.
    era: u64,
    asked_at: Instant,
}

/// The feed as it was last heard.
#[derive(Debug)]
struct Feed {
    epoch: u64,
    era: u64,
    /// All changes up to this moment were told.
    confirmed_at: Instant,
    is_lost: bool,
}

/// Numbers of the last changes of keys, by hash.
#[derive(Debug)]
struct Marks {
    hasher: RandomState,
    by_hash: Box<[u64]>,
    /// The last change that concerned many.
    all: u64,
}

impl Marks {
    fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            by_hash: vec![0; MARKS].into(),
            all: 0,
        }
    }

    fn place(&self, name: &str) -> usize {
        let hash = self.hasher.hash_one(name);
        usize::try_from(hash % MARKS as u64).expect("it is small")
    }

    fn put(&mut self, name: &str, number: u64) {
        let place = self.place(name);
        self.by_hash[place] = self.by_hash[place].max(number);
    }

    fn last(&self, name: &str) -> u64 {
        self.all.max(self.by_hash[self.place(name)])
    }

    /// Forgets all, and begins with a number that concerns all.
    fn reset(&mut self, all: u64) {
        self.by_hash.fill(0);
        self.all = all;
    }
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Table {
    term: Duration,
    feed: Option<Feed>,
    /// Feeds that ended, and what they were last confirmed at.
    ended: VecDeque<(u64, Instant)>,
    objects: LruCache<String, Held<Object>>,
    keys: LruCache<String, Held<Key>>,
    /// By sequences of the feed.
    changed: Marks,
    /// Sequence of the last change of accounts or keys.
    accounts_changed: u64,
    /// By ticks.
    written: Marks,
    ticks: u64,
}

/// An object's name here. No bucket's name has a slash.
pub(super) fn name(bucket: &str, key: &str) -> String {
    [bucket, key].join("/")
}

impl Table {
    /// Holds nothing, and hears no feed.
    pub(super) fn new(term: Duration) -> Self {
        Self {
            term,
            feed: None,
            ended: VecDeque::new(),
            objects: LruCache::new(OBJECTS_MAX),
            keys: LruCache::new(KEYS_MAX),
            changed: Marks::new(),
            accounts_changed: 0,
            written: Marks::new(),
            ticks: 0,
        }
    }

    /// Objects and keys held.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.objects.len(), self.keys.len())
    }

    /// Whether leases can be fresh.
    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.feed.as_ref().is_some_and(|feed| {
            !feed.is_lost && now.saturating_duration_since(feed.confirmed_at) < self.term
        })
    }

    /// A question is about to be asked.
    pub(super) fn ask(&mut self, now: Instant) -> Ask {
        self.ticks += 1;
        Ask {
            tick: self.ticks,
            asked_at: now,
        }
    }

    /// Takes what was answered; false if it may be old already.
    pub(super) fn take(
        &mut self,
        ask: Ask,
        at: Position,
        (name, object): (String, Object),
        (scope, key): (String, Key),
    ) -> bool {
        let feed = self.feed.as_ref();
        let told = feed.is_some_and(|feed| feed.epoch == at.epoch);
        let era = feed.map_or(0, |feed| if told { feed.era } else { 0 });
        let held = |era| (era, ask.asked_at);
        if !told || at.sequence >= self.accounts_changed {
            let (era, asked_at) = held(era);
            let what = Arc::new(key);
            self.keys.put(
                scope,
                Held {
                    what,
                    era,
                    asked_at,
                },
            );
        }
        if told && self.changed.last(&name) > at.sequence || self.written.last(&name) > ask.tick {
            // What is held of it is no better.
            self.objects.pop(&name);
            return false;
        }
        let (era, asked_at) = held(era);
        let what = Arc::new(object);
        self.objects.put(
            name,
            Held {
                what,
                era,
                asked_at,
            },
        );
        true
    }

    /// Until when something was certainly true.
    fn known_until<T>(&self, held: &Held<T>) -> Instant {
        let now = self.feed.iter().map(|feed| (feed.era, feed.confirmed_at));
        let confirmed = now
            .chain(self.ended.iter().copied())
            .find(|(era, _)| *era == held.era)
            .map(|(_, at)| at);
        confirmed.map_or(held.asked_at, |at| at.max(held.asked_at))
    }

    /// How long ago something was certainly true; `None` if that is not enough.
    fn age<T>(&self, held: &Held<T>, need: Need, now: Instant) -> Option<Duration> {
        let age = now.saturating_duration_since(self.known_until(held));
        let is_enough = match need {
            Need::Fresh => {
                let era = self.feed.as_ref().map(|feed| feed.era);
                let life = now.saturating_duration_since(held.asked_at);
                era == Some(held.era) && self.is_live(now) && life < LIFE_MAX
            }
            Need::Within(max) => age <= max,
        };
        is_enough.then_some(age)
    }

    /// What is held of an object and of who asks for it, and how old it may be.
    pub(super) fn find(
        &mut self,
        name: &str,
        scope: &str,
        need: Need,
        now: Instant,
    ) -> Option<(Arc<Object>, Arc<Key>, Duration)> {
        self.objects.promote(name);
        self.keys.promote(scope);
        let (object, key) = (self.objects.peek(name)?, self.keys.peek(scope)?);
        let age = self.age(object, need, now)?.max(self.age(key, need, now)?);
        Some((Arc::clone(&object.what), Arc::clone(&key.what), age))
    }

    /// Whether anything is known well enough.
    pub(super) fn knows(&self, need: Need, now: Instant) -> bool {
        let known = |held: &Held<Object>| self.age(held, need, now).is_some();
        self.objects.iter().any(|(_, held)| known(held))
    }

    /// Forgets an object.
    pub(super) fn forget(&mut self, name: &str) {
        self.objects.pop(name);
    }

    fn forget_below(&mut self, prefix: &str) -> u64 {
        let names = self.objects.iter().map(|(name, _)| name);
        let below: Vec<String> = names
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect();
        for name in &below {
            self.objects.pop(name);
        }
        below.len() as u64
    }

    /// A client has written an object through here, or may have; what was asked before is old.
    pub(super) fn wrote(&mut self, name: &str) {
        self.ticks += 1;
        self.written.put(name, self.ticks);
        self.objects.pop(name);
    }

    /// The same for many objects of a bucket.
    pub(super) fn wrote_in(&mut self, bucket: &str) {
        self.ticks += 1;
        self.written.all = self.ticks;
        self.forget_below(&name(bucket, ""));
    }

    /// An object has changed at the origin. How many leases have ended.
    pub(super) fn changed(&mut self, name: &str, sequence: u64) -> u64 {
        self.changed.put(name, sequence);
        u64::from(self.objects.pop(name).is_some())
    }

    /// All objects whose names begin so have changed. How many leases have ended.
    pub(super) fn changed_below(&mut self, prefixes: &[String], sequence: u64) -> u64 {
        self.changed.all = self.changed.all.max(sequence);
        let ended = prefixes.iter().map(|prefix| self.forget_below(prefix));
        ended.sum()
    }

    /// Anything may have changed. How many leases have ended.
    pub(super) fn changed_all(&mut self, sequence: u64) -> u64 {
        self.changed.all = self.changed.all.max(sequence);
        let count = self.objects.len() as u64;
        self.objects.clear();
        count + self.changed_accounts(sequence)
    }

    /// Accounts or keys have changed. How many leases have ended.
    pub(super) fn changed_accounts(&mut self, sequence: u64) -> u64 {
        self.accounts_changed = self.accounts_changed.max(sequence);
        let count = self.keys.len() as u64;
        self.keys.clear();
        count
    }

    /// The feed was asked at `asked_at` and has told all changes from where it was; or begins
    /// anew, at `at`.
    pub(super) fn confirm(&mut self, at: Position, is_new: bool, asked_at: Instant) {
        match &mut self.feed {
            Some(feed) if !is_new && feed.epoch == at.epoch => {
                feed.confirmed_at = asked_at;
                feed.is_lost = false;
            }
            before => {
                let era = before.as_ref().map_or(1, |feed| feed.era + 1);
                let ended = before.replace(Feed {
                    epoch: at.epoch,
                    era,
                    confirmed_at: asked_at,
                    is_lost: false,
                });
                if let Some(ended) = ended {
                    self.ended.push_front((ended.era, ended.confirmed_at));
                    self.ended.truncate(ERAS_MAX);
                }
                // What came between is not known.
                self.changed.reset(at.sequence);
                self.accounts_changed = at.sequence;
            }
        }
    }

    /// The feed tells nothing any more; whether it did until now.
    pub(super) fn lose(&mut self) -> bool {
        self.feed
            .as_mut()
            .is_some_and(|feed| !std::mem::replace(&mut feed.is_lost, true))
    }
}

#[cfg(test)]
mod tests;
