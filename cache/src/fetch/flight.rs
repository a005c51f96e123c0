//! One block on its way in, and the seats of those who wait for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::fetch::gather::Gathered;
use crate::source::FetchError;

/// Why a request ended before its blocks were whole.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What its source said.
    pub(crate) error: FetchError,
    /// Whether it had brought any byte.
    pub(crate) arrived: bool,
}

/// What became of a block.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// It is on the disk.
    Kept,
    /// It was whole, but the disk did not take it.
    Unkept,
    /// Its request failed.
    Failed(Failure),
    /// Nobody wanted it any more, or its bytes waited in memory for too long: get it elsewhere.
    Dropped,
}

#[derive(Debug, Default)]
struct State {
    bytes: Gathered,
    /// The memory that they take, of the budget.
    memory: Option<OwnedSemaphorePermit>,
    outcome: Option<Outcome>,
    seats: Seats,
}

/// One place for each reader, so that waiting again does not queue him twice.
#[derive(Debug, Default)]
struct Seats {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Seats {
    fn take(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.wakers.push(None);
            self.wakers.len() - 1
        })
    }

    fn leave(&mut self, seat: usize) -> Option<Waker> {
        self.free.push(seat);
        self.wakers[seat].take()
    }

    fn taken(&self) -> usize {
        self.wakers.len() - self.free.len()
    }

    fn wait(&mut self, seat: usize, waker: &Waker) {
        match &mut self.wakers[seat] {
            Some(known) => known.clone_from(waker),
            empty @ None => *empty = Some(waker.clone()),
        }
    }

    fn waiting(&mut self) -> Vec<Waker> {
        self.wakers.iter_mut().filter_map(Option::take).collect()
    }
}

/// A block on its way in.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Which block of the object.
    pub(crate) block: u64,
    /// Its length in bytes.
    pub(crate) len: usize,
    /// Whose source brings it.
    pub(crate) by: u64,
    /// Whether a peer is asked for it.
    pub(crate) borrowed: bool,
    state: Mutex<State>,
}

impl Flight {
    /// A flight that has not begun.
    pub(crate) fn new(block: u64, len: usize, by: u64, borrowed: bool) -> Arc<Self> {
        Arc::new(Self {
            block,
            len,
            by,
            borrowed,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held that would leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody is seated at it.
    pub(crate) fn is_seated(&self) -> bool {
        self.state().seats.taken() > 0
    }

    /// Gives it the memory for its bytes.
    pub(crate) fn begin(&self, memory: OwnedSemaphorePermit) {
        self.state().memory = Some(memory);
    }

    /// Bytes that have yet to come.
    pub(crate) fn missing(&self) -> usize {
        self.len - self.state().bytes.len()
    }

    /// Adds what has come, and tells nobody yet.
    pub(crate) fn push(&self, bytes: Bytes) {
        let mut state = self.state();
        state.bytes.push(bytes);
        assert!(state.bytes.len() <= self.len, "no more than the block");
    }

    /// All pieces of it.
    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        self.state().bytes.pieces()
    }

    /// Wakes everybody who waits.
    pub(crate) fn wake(&self) {
        let waiting = self.state().seats.waiting();
        for waker in waiting {
            waker.wake();
        }
    }

    /// Ends it. Its memory is free unless it is `Unkept`: then the bytes are nowhere else.
    pub(crate) fn settle(&self, outcome: Outcome) {
        {
            let mut state = self.state();
            if !matches!(outcome, Outcome::Unkept) {
                state.bytes = Gathered::default();
                state.memory = None;
            }
            state.outcome = Some(outcome);
        }
        self.wake();
    }
}

/// A reader's place at a flight.
#[derive(Debug)]
pub(crate) struct Seat {
    flight: Arc<Flight>,
    seat: usize,
}

impl Seat {
    /// Sits down.
    pub(crate) fn take(flight: &Arc<Flight>) -> Self {
        Self {
            seat: flight.state().seats.take(),
            flight: Arc::clone(flight),
        }
    }

    /// Whose source brings the block.
    pub(crate) fn by(&self) -> u64 {
        self.flight.by
    }

    /// Some bytes of the block from `from` on, none beyond `until`, when they are here; or what
    /// became of it instead.
    pub(crate) fn poll_bytes(
        &self,
        cx: &mut Context<'_>,
        from: usize,
        until: usize,
    ) -> Poll<Result<Bytes, Outcome>> {
        let mut state = self.flight.state();
        if let Some(bytes) = state.bytes.slice(from, until) {
            return Poll::Ready(Ok(bytes));
        }
        self.settled(&mut state, cx).map(Err)
    }

    /// What became of the block.
    pub(crate) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.settled(&mut self.flight.state(), cx)
    }

    fn settled(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        state.seats.wait(self.seat, cx.waker());
        Poll::Pending
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let waker = self.flight.state().seats.leave(self.seat);
        // Not under the lock: what goes with it is not ours to know.
        drop(waker);
    }
}
