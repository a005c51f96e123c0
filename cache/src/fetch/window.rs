//! What one reader has asked for ahead of where he is, within what he wants.
//!
//! Requests grow from one block to 8 MiB, so that the first bytes come soon and the rest in few
//! requests; several are under way at once, at most [`WINDOW_BLOCKS_MAX`] ahead. A reader who is
//! slow, or does not read on, asks for nothing more.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::fetch::engine::{Engine, Place, Target};
use crate::fetch::{REQUEST_BLOCKS_MAX, REQUESTS_MAX, WINDOW_BLOCKS_MAX};

/// Whether somebody still wants what he asked for, though he is not seated at it yet.
#[derive(Debug)]
pub(crate) struct Interest {
    /// Who: no two have the same.
    pub(crate) id: u64,
    alive: AtomicBool,
    requests: AtomicUsize,
}

impl Interest {
    /// An interest that lasts until it is ended.
    pub(crate) fn new(id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            alive: AtomicBool::new(true),
            requests: AtomicUsize::new(0),
        })
    }

    /// Whether it lasts.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Counts a request, until the guard is dropped.
    pub(crate) fn request(self: &Arc<Self>) -> Underway {
        self.requests.fetch_add(1, Ordering::AcqRel);
        Underway(Arc::clone(self))
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Underway(Arc<Interest>);

impl Underway {
    /// For whom.
    pub(crate) fn interest(&self) -> &Interest {
        &self.0
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A reader's window.
#[derive(Debug)]
pub(crate) struct Window {
    interest: Arc<Interest>,
    /// The first block that has not been looked at.
    next: u64,
    /// The first block that is not wanted.
    end: u64,
    /// Blocks in the next request.
    run: u64,
}

impl Window {
    /// Nothing is asked for yet.
    pub(crate) fn new(engine: &Engine, blocks: Range<u64>) -> Self {
        Self {
            interest: Interest::new(engine.next_id()),
            next: blocks.start,
            end: blocks.end,
            run: 1,
        }
    }

    /// Begins with a request of the largest size, for who wants the whole range.
    pub(crate) fn at_once(mut self) -> Self {
        self.run = REQUEST_BLOCKS_MAX;
        self
    }

    /// Whether it was this reader who asked.
    pub(crate) fn is_own(&self, id: u64) -> bool {
        self.interest.id == id
    }

    /// Asks for what a reader at block `at` should have coming.
    pub(crate) fn advance(&mut self, engine: &Arc<Engine>, target: &Target, at: u64) {
        self.next = self.next.max(at);
        let limit = self.end.min(at + WINDOW_BLOCKS_MAX);
        while self.next < limit
            // Not a small request each time that the reader comes a block further.
            && (limit == self.end || limit - self.next >= self.run)
            && self.interest.requests.load(Ordering::Acquire) < REQUESTS_MAX
        {
            let blocks = self.next..limit;
            self.next = match engine.launch(target, blocks, self.run, &self.interest) {
                Some(next) => {
                    self.run = (2 * self.run).min(REQUEST_BLOCKS_MAX);
                    next
                }
                None => limit,
            };
        }
    }

    /// Where a block is; if it is nowhere, it is asked for.
    pub(crate) fn seat(&mut self, engine: &Arc<Engine>, target: &Target, block: u64) -> Place {
        let place = engine.seat(target, block..self.end, self.run, &self.interest);
        if let Place::Started(_) = place {
            // What was asked for is not coming after all: look at all behind it anew.
            self.next = block + 1;
        }
        place
    }

    /// Begins again at a block, in small requests, after a failure.
    pub(crate) fn restart(&mut self, block: u64) {
        self.next = block;
        self.run = 1;
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.interest.alive.store(false, Ordering::Release);
    }
}
