//! A task that brings a run of blocks with one ranged GET.

use std::future::poll_fn;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::fetch::blocks::NotKept;
use crate::fetch::engine::{Engine, Target, Task};
use crate::fetch::exact::Exact;
use crate::fetch::flight::{Failure, Flight, Outcome};
use crate::fetch::window::Underway;
use crate::source::FetchError;

/// A request, not begun or under way.
#[derive(Debug)]
pub(crate) struct Request {
    engine: Arc<Engine>,
    target: Target,
    /// Blocks that follow each other, without those that are whole: a request that waits for
    /// memory must not hold theirs.
    flights: std::vec::IntoIter<Arc<Flight>>,
    underway: Underway,
    _task: Task,
}

impl Request {
    /// A request for flights that are in the table.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        target: Target,
        flights: Vec<Arc<Flight>>,
        underway: Underway,
    ) -> Self {
        assert!(!flights.is_empty(), "a request asks for something");
        Self {
            engine: Arc::clone(engine),
            target,
            flights: flights.into_iter(),
            underway,
            _task: engine.task(),
        }
    }

    /// Brings the blocks, as long as anybody wants them.
    pub(crate) async fn run(mut self) {
        if let Err(failure) = self.carry().await {
            self.engine.counters.fetch_failures.add(1);
            self.settle_rest(&Outcome::Failed(failure));
        }
    }

    async fn carry(&mut self) -> Result<(), Failure> {
        let mut transfer = None;
        let mut spare = Bytes::new();
        while let Some(flight) = self.flights.as_slice().first().cloned() {
            let len = u32::try_from(flight.len).expect("a block's length fits");
            let memory = self.engine.memory_for(&flight);
            let memory = memory
                .acquire_many_owned(len)
                .await
                .expect("the budget is never closed");
            let (version, rest) = (&self.target.version, self.flights.as_slice());
            let interest = self.underway.interest();
            if !self.engine.is_wanted(version, rest, interest) {
                self.flights = Vec::new().into_iter();
                return Ok(());
            }
            flight.begin(memory);
            // Nothing is asked for before there is room for it.
            let transfer = transfer.get_or_insert_with(|| self.ask());
            self.fill(&flight, transfer, &mut spare).await?;
            drop(self.flights.next());
            self.keep(flight);
        }
        Ok(())
    }

    fn ask(&self) -> Exact {
        let version = &self.target.version;
        let (first, last) = match self.flights.as_slice() {
            [] => unreachable!("a request asks for something"),
            [only] => (only, only),
            [first, .., last] => (first, last),
        };
        let start = version.block_range(first.block).start;
        let end = version.block_range(last.block).end;
        self.engine.counters.fetches.add(1);
        Exact::new(&*self.target.source, version, start..end)
    }

    /// Brings one block; `spare` is what has come beyond it.
    async fn fill(
        &self,
        flight: &Flight,
        transfer: &mut Exact,
        spare: &mut Bytes,
    ) -> Result<(), Failure> {
        let mut missing = flight.missing();
        while missing > 0 {
            if spare.is_empty() {
                let chunk = poll_fn(|cx| {
                    let polled = transfer.poll_next(cx);
                    if polled.is_pending() {
                        // Once for all that came at once, not for each chunk.
                        flight.wake();
                    }
                    polled
                })
                .await;
                *spare = match chunk {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => {
                        return Err(Failure {
                            error,
                            arrived: transfer.arrived(),
                        });
                    }
                    None => unreachable!("a transfer ends with its last block"),
                };
                self.engine.counters.bytes_fetched.add(spare.len() as u64);
            }
            let bytes = spare.split_to(missing.min(spare.len()));
            missing -= bytes.len();
            flight.push(bytes);
        }
        flight.wake();
        Ok(())
    }

    /// Has a task keep a whole block.
    fn keep(&self, flight: Arc<Flight>) {
        let keeping = Keeping {
            engine: Arc::clone(&self.engine),
            target: self.target.clone(),
            flight,
            result: Err(NotKept::Failed("the task has gone".to_owned())),
            _task: self.engine.task(),
        };
        // Not waited for: it settles its flight itself.
        drop(self.engine.runtime.spawn(keeping.run()));
    }

    fn settle_rest(&mut self, outcome: &Outcome) {
        let rest = std::mem::take(&mut self.flights);
        self.engine
            .settle(&self.target.version, rest.as_slice(), outcome);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.flights.len() > 0 {
            // The source panicked, or the runtime stops.
            let error = FetchError::Unavailable("the transfer was given up".to_owned());
            let arrived = false;
            self.settle_rest(&Outcome::Failed(Failure { error, arrived }));
        }
    }
}

/// A whole block on its way to the disk.
#[derive(Debug)]
struct Keeping {
    engine: Arc<Engine>,
    target: Target,
    flight: Arc<Flight>,
    result: Result<(), NotKept>,
    _task: Task,
}

impl Keeping {
    async fn run(mut self) {
        let pieces = self.flight.pieces();
        let (object, block) = (Arc::clone(&self.target.object), self.flight.block);
        let put = self
            .engine
            .calls
            .run(move || object.put_blocking(block, &pieces));
        self.result = match put.await {
            Ok(result) => result,
            Err(err) => Err(NotKept::Failed(err.to_string())),
        };
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.engine.note_put(&self.result);
        let kept = self.result.is_ok();
        let outcome = if kept { Outcome::Kept } else { Outcome::Unkept };
        let flights = std::slice::from_ref(&self.flight);
        self.engine.settle(&self.target.version, flights, &outcome);
        if !kept {
            release_later(&self.engine, Arc::downgrade(&self.flight));
        }
    }
}

/// Frees a block that is nowhere else when its readers have had their time: one who has stopped
/// reading must not keep memory from the others. He goes on past the cache.
fn release_later(engine: &Engine, flight: Weak<Flight>) {
    let wait = engine.config.unkept_wait;
    drop(engine.runtime.spawn(async move {
        tokio::time::sleep(wait).await;
        if let Some(flight) = flight.upgrade() {
            flight.settle(Outcome::Dropped);
        }
    }));
}
