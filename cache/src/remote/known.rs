//! What the origin has said of names, for as long as that may be believed.
//!
//! Two kinds of knowledge are kept: what a path names, and runs of what a directory holds
//! ([`Window`]). Where they contradict each other the one that was asked for later holds.
//!
//! Who asks the origin takes a [`Ticket`] first. What is forgotten meanwhile makes the ticket
//! worthless, so that an answer from before a change is not kept after it.
//!
//! # Invariants
//! 1. Nothing is kept that was asked for before a change of it was told.
//! 2. `names` is the sum of `Run::names` of all runs.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_store::api::Node;
use forebay_store::entry::{BucketId, Entry};
use forebay_store::time::Timestamp;
use lru::LruCache;

use super::window::Window;

/// Paths of which it is kept what they name.
const PATHS_MAX: NonZeroUsize = NonZeroUsize::new(1 << 17).expect("not zero");
/// Directories of which it is kept what they hold.
const RUNS_MAX: NonZeroUsize = NonZeroUsize::new(1 << 10).expect("not zero");
/// Names in all of them.
const NAMES_MAX: usize = 1 << 18;
const SHARDS: usize = 64;

/// A path in a bucket.
pub(super) type Place = (BucketId, Arc<str>);

/// What a path names, and when the origin was asked.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) at: Timestamp,
    pub(super) node: Option<Node>,
}

/// A directory's window; who reads or fills it holds its lock, also while the origin is asked, so
/// that a page is asked for once.
pub(super) type Shared = Arc<tokio::sync::Mutex<Window>>;

#[derive(Debug)]
struct Run {
    window: Shared,
    names: usize,
}

#[derive(Debug)]
struct Kept {
    paths: LruCache<Place, Said>,
    runs: LruCache<Place, Run>,
    names: usize,
    /// Counts what was forgotten, by shard.
    forgotten: [u64; SHARDS],
}

/// Says since when somebody has been asking of a path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    shard: usize,
    forgotten: u64,
}

/// As a [`Ticket`], of any path.
#[derive(Clone, Debug)]
pub(super) struct Tickets([u64; SHARDS]);

/// What is known.
#[derive(Debug)]
pub(super) struct Known {
    kept: Mutex<Kept>,
    hasher: RandomState,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            kept: Mutex::new(Kept {
                paths: LruCache::new(PATHS_MAX),
                runs: LruCache::new(RUNS_MAX),
                names: 0,
                forgotten: [0; SHARDS],
            }),
            hasher: RandomState::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // No call between two changes of it can panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, place: &Place) -> usize {
        usize::try_from(self.hasher.hash_one(place) % SHARDS as u64).expect("less than SHARDS")
    }

    /// To be taken before the origin is asked of a path.
    pub(super) fn ticket(&self, place: &Place) -> Ticket {
        let shard = self.shard(place);
        let forgotten = self.lock().forgotten[shard];
        Ticket { shard, forgotten }
    }

    /// To be taken before the origin is asked of paths that are not known yet.
    pub(super) fn tickets(&self) -> Tickets {
        Tickets(self.lock().forgotten)
    }

    /// Keeps what the origin said of many paths at once, each as [`keep`](Self::keep) does.
    pub(super) fn keep_all(&self, tickets: &Tickets, at: Timestamp, nodes: Vec<(Place, Node)>) {
        let mut kept = self.lock();
        for (place, node) in nodes {
            let shard = self.shard(&place);
            let later = |before: &Said| before.at > at;
            if kept.forgotten[shard] == tickets.0[shard]
                && !kept.paths.peek(&place).is_some_and(later)
            {
                let node = Some(node);
                kept.paths.put(place, Said { at, node });
            }
        }
    }

    /// The files that are known of below a prefix.
    pub(super) fn files_below(&self, bucket: BucketId, prefix: &str) -> Vec<Arc<Entry>> {
        let kept = self.lock();
        let below = kept
            .paths
            .iter()
            .filter(|((at, path), _)| *at == bucket && path.starts_with(prefix));
        let files = below.filter_map(|(_, said)| match &said.node {
            Some(Node::File(entry)) => Some(Arc::clone(entry)),
            _ => None,
        });
        files.collect()
    }

    /// What was last said of a path, however long ago.
    pub(super) fn said(&self, place: &Place) -> Option<Said> {
        self.lock().paths.get(place).cloned()
    }

    /// Keeps what the origin said, unless it was forgotten since or something later is kept.
    pub(super) fn keep(&self, ticket: Ticket, place: &Place, said: Said) {
        let mut kept = self.lock();
        let later = |before: &Said| before.at > said.at;
        if kept.forgotten[ticket.shard] == ticket.forgotten
            && !kept.paths.peek(place).is_some_and(later)
        {
            kept.paths.put(place.clone(), said);
        }
    }

    /// Notes that a listing asked for at `at` shows a version too: what is said of that very
    /// version is believed from then on, what is said of another one no more. Gives what is said,
    /// if it holds.
    pub(super) fn confirm(&self, place: &Place, at: Timestamp, listed: &Entry) -> Option<Said> {
        let mut kept = self.lock();
        let said = kept.paths.get_mut(place)?;
        if said.at >= at {
            return Some(said.clone());
        }
        match &said.node {
            Some(Node::File(entry))
                if (entry.ino, entry.modified_at) == (listed.ino, listed.modified_at) =>
            {
                said.at = at;
                Some(said.clone())
            }
            _ => {
                kept.paths.pop(place);
                None
            }
        }
    }

    /// The window on a directory, which is new and empty if none is kept.
    pub(super) fn window(&self, directory: &Place) -> Shared {
        let mut kept = self.lock();
        if let Some(run) = kept.runs.get(directory) {
            return Arc::clone(&run.window);
        }
        let run = Run {
            window: Arc::default(),
            names: 0,
        };
        let window = Arc::clone(&run.window);
        if let Some((_, gone)) = kept.runs.push(directory.clone(), run) {
            kept.names -= gone.names;
        }
        window
    }

    /// The window on a directory, if one is kept.
    pub(super) fn kept_window(&self, directory: &Place) -> Option<Shared> {
        let mut kept = self.lock();
        kept.runs.get(directory).map(|run| Arc::clone(&run.window))
    }

    /// Notes how many names a window holds now, and lets go of others if that is too many.
    pub(super) fn grown(&self, directory: &Place, window: &Shared, names: usize) {
        let mut kept = self.lock();
        let Some(run) = kept
            .runs
            .peek_mut(directory)
            .filter(|run| Arc::ptr_eq(&run.window, window))
        else {
            return;
        };
        let before = std::mem::replace(&mut run.names, names);
        kept.names = kept.names - before + names;
        while kept.names > NAMES_MAX && kept.runs.len() > 1 {
            let Some((_, gone)) = kept.runs.pop_lru() else {
                return;
            };
            kept.names -= gone.names;
        }
    }

    /// Forgets what a path names.
    pub(super) fn forget(&self, place: &Place) {
        let shard = self.shard(place);
        let mut kept = self.lock();
        kept.forgotten[shard] += 1;
        kept.paths.pop(place);
    }

    /// Forgets what a directory holds.
    pub(super) fn forget_window(&self, directory: &Place) {
        // Whoever is filling it goes on doing so, unseen.
        let mut kept = self.lock();
        if let Some(gone) = kept.runs.pop(directory) {
            kept.names -= gone.names;
        }
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        let mut kept = self.lock();
        for forgotten in &mut kept.forgotten {
            *forgotten += 1;
        }
        kept.paths.clear();
        kept.runs.clear();
        kept.names = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Place {
        (BucketId(1), path.into())
    }

    fn nothing(at: i64) -> Said {
        Said {
            at: Timestamp(at),
            node: None,
        }
    }

    #[test]
    fn what_was_asked_before_a_change_is_not_kept_after_it() {
        let known = Known::new();
        let early = known.ticket(&place("a"));
        known.forget(&place("a"));
        known.keep(early, &place("a"), nothing(1));
        assert!(known.said(&place("a")).is_none());
        let late = known.ticket(&place("a"));
        known.keep(late, &place("a"), nothing(2));
        assert!(known.said(&place("a")).is_some());
        let early = known.ticket(&place("a"));
        known.forget_all();
        known.keep(early, &place("a"), nothing(3));
        assert!(known.said(&place("a")).is_none());
    }

    #[test]
    fn an_answer_does_not_replace_a_later_one() {
        let known = Known::new();
        let ticket = known.ticket(&place("a"));
        known.keep(ticket, &place("a"), nothing(2));
        known.keep(ticket, &place("a"), nothing(1));
        assert_eq!(known.said(&place("a")).map(|said| said.at.0), Some(2));
    }

    #[test]
    fn windows_are_let_go_of_when_they_hold_too_many_names() {
        let known = Known::new();
        let (one, two) = (known.window(&place("a")), known.window(&place("b")));
        known.grown(&place("a"), &one, NAMES_MAX - 1);
        known.grown(&place("b"), &two, 2);
        assert!(known.kept_window(&place("a")).is_none());
        assert!(known.kept_window(&place("b")).is_some());
        assert_eq!(known.lock().names, 2);
        known.forget_window(&place("b"));
        known.grown(&place("b"), &two, 9);
        assert_eq!(known.lock().names, 0);
    }
}
