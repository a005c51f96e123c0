//! What is in flight, and the memory for it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use crate::fetch::FetchConfig;
use crate::fetch::ahead::Ahead;
use crate::fetch::blocks::{Blocks, NotKept, ObjectBlocks};
use crate::fetch::calls::DiskCalls;
use crate::fetch::flight::{Flight, Outcome, Seat};
use crate::fetch::hot::Hot;
use crate::fetch::prestage::Prestage;
use crate::fetch::refusal::Refusals;
use crate::fetch::request::Request;
use crate::fetch::statistics::{Counters, Statistics};
use crate::fetch::window::Interest;
use crate::peer::{Help, Route};
use crate::source::Source;
use crate::version::{BLOCK_SIZE, Version};

type Table = HashMap<Arc<Version>, BTreeMap<u64, Arc<Flight>>>;

/// What a reader reads, and how he gets it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Which bytes.
    pub(crate) version: Arc<Version>,
    /// What the disk has of them.
    pub(crate) object: Arc<dyn ObjectBlocks>,
    /// Who brings the others.
    pub(crate) source: Arc<dyn Source>,
    /// Peers who may bring them instead.
    pub(crate) help: Option<Arc<Help>>,
    /// Whether it is read for a peer, and so waits for none.
    pub(crate) lends: bool,
}

impl Target {
    /// Who is to bring a block.
    fn route(&self, block: u64) -> Route {
        match &self.help {
            Some(help) => help.route(&self.version, block),
            None => Route {
                lender: None,
                source: Arc::clone(&self.source),
            },
        }
    }

    /// The peer who would bring a block.
    fn lender(&self, block: u64) -> Option<u64> {
        self.help.as_ref()?.lender(&self.version, block)
    }
}

/// Where a block is.
#[derive(Debug)]
pub(crate) enum Place {
    /// On the disk.
    Disk,
    /// In flight already.
    Joined(Seat),
    /// In flight from now on.
    Started(Seat),
    /// In flight from a peer, and may not be waited for.
    Borrowed,
    /// Nowhere, and nothing is fetched any more.
    Closed,
}

/// An amount of memory.
#[derive(Debug)]
struct Memory {
    /// What is left of it, in bytes.
    free: Arc<Semaphore>,
    max: usize,
}

impl Memory {
    fn new(max: u64) -> Self {
        // A whole block always fits, or a reader would wait for ever.
        let max = usize::try_from(max.max(BLOCK_SIZE))
            .unwrap_or(usize::MAX)
            .min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(max)),
            max,
        }
    }

    fn taken(&self) -> u64 {
        (self.max - self.free.available_permits()) as u64
    }
}

/// What the readers share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) blocks: Arc<dyn Blocks>,
    pub(crate) config: FetchConfig,
    pub(crate) counters: Counters,
    pub(crate) ahead: Ahead,
    pub(crate) hot: Hot,
    pub(crate) prestage: Prestage,
    /// What is asked of the disk that may take long.
    pub(crate) calls: DiskCalls,
    /// Where tasks run, also if a reader is polled elsewhere.
    pub(crate) runtime: Handle,
    /// Memory for blocks in flight from the origin.
    memory: Memory,
    /// The same for those that peers bring. Apart, because peers who wait for each other's memory
    /// would wait for ever: what comes from an origin never waits for what comes from a peer.
    borrowed_memory: Memory,
    /// Interest in read-ahead: nobody's in particular, it never ends.
    pub(crate) lasting: Arc<Interest>,
    table: Mutex<Table>,
    tasks: watch::Sender<usize>,
    ids: AtomicU64,
    closing: AtomicBool,
    pub(crate) refusals: Refusals,
}

impl Engine {
    /// Nothing is in flight.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(crate) fn new(blocks: Arc<dyn Blocks>, config: FetchConfig) -> Arc<Self> {
        let memory = Memory::new(config.memory_max);
        let borrowed_memory = Memory::new(config.memory_max / 2);
        Arc::new(Self {
            blocks,
            prestage: Prestage::default(),
            calls: DiskCalls::new(Handle::current(), config.disk_wait),
            config,
            counters: Counters::default(),
            ahead: Ahead::default(),
            hot: Hot::default(),
            runtime: Handle::current(),
            memory,
            borrowed_memory,
            lasting: Interest::new(0),
            table: Mutex::default(),
            tasks: watch::Sender::new(0),
            ids: AtomicU64::new(1),
            closing: AtomicBool::new(false),
            refusals: Refusals::default(),
        })
    }

    /// What there is to be read of a version.
    pub(crate) fn target(&self, version: &Arc<Version>, source: Arc<dyn Source>) -> Target {
        Target {
            version: Arc::clone(version),
            object: self.blocks.object(version),
            source,
            help: None,
            lends: false,
        }
    }

    /// Where the memory for a flight comes from, in bytes.
    pub(crate) fn memory_for(&self, flight: &Flight) -> Arc<Semaphore> {
        let memory = if flight.borrowed {
            &self.borrowed_memory
        } else {
            &self.memory
        };
        Arc::clone(&memory.free)
    }

    /// A number that nobody has had.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Each change of the table is one call on a map.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the first of `blocks` is. If it is nowhere, it is asked for, with up to `run` of
    /// those behind it that are nowhere either.
    pub(crate) fn seat(
        self: &Arc<Self>,
        target: &Target,
        blocks: Range<u64>,
        run: u64,
        interest: &Arc<Interest>,
    ) -> Place {
        let ((flights, source), seat) = {
            let mut table = self.table();
            let flying = table.get(&target.version);
            if let Some(flight) = flying.and_then(|flying| flying.get(&blocks.start)) {
                if flight.borrowed && target.lends {
                    return Place::Borrowed;
                }
                if flight.by != interest.id {
                    self.counters.joins.add(1);
                }
                return Place::Joined(Seat::take(flight));
            }
            if target.object.has(blocks.start) {
                return Place::Disk;
            }
            if self.is_closing() {
                return Place::Closed;
            }
            let (flights, source) = claim(&mut table, target, blocks, run, interest);
            let seat = Seat::take(&flights[0]);
            ((flights, source), seat)
        };
        self.start(target, flights, source, interest);
        Place::Started(seat)
    }

    /// Asks for the first blocks of a range that are nowhere, up to `run` of them that follow each
    /// other; the block behind them. `None` if all are somewhere.
    pub(crate) fn launch(
        self: &Arc<Self>,
        target: &Target,
        blocks: Range<u64>,
        run: u64,
        interest: &Arc<Interest>,
    ) -> Option<u64> {
        let (flights, source) = {
            let mut table = self.table();
            if self.is_closing() {
                return None;
            }
            let flying = table.get(&target.version);
            let first = blocks.clone().find(|&block| {
                !flying.is_some_and(|flying| flying.contains_key(&block))
                    && !target.object.has(block)
            })?;
            claim(&mut table, target, first..blocks.end, run, interest)
        };
        let next = flights.last().map(|flight| flight.block + 1);
        self.start(target, flights, source, interest);
        next
    }

    fn start(
        self: &Arc<Self>,
        target: &Target,
        flights: Vec<Arc<Flight>>,
        source: Arc<dyn Source>,
        interest: &Arc<Interest>,
    ) {
        let target = Target {
            source,
            ..target.clone()
        };
        let request = Request::new(self, target, flights, interest.request());
        // Whoever is behind the handle is not waited for: a request settles its flights itself.
        drop(self.runtime.spawn(request.run()));
    }

    /// Whether any of a request's flights is still wanted. If not, they are settled.
    pub(crate) fn is_wanted(
        &self,
        version: &Arc<Version>,
        flights: &[Arc<Flight>],
        interest: &Interest,
    ) -> bool {
        {
            // Nobody sits down while this is held.
            let mut table = self.table();
            let wanted = interest.is_alive() || flights.iter().any(|flight| flight.is_seated());
            if wanted && !self.is_closing() {
                return true;
            }
            remove(&mut table, version, flights);
        }
        for flight in flights {
            flight.settle(Outcome::Dropped);
        }
        false
    }

    /// Ends flights: whoever comes now finds what became of them, or begins anew.
    pub(crate) fn settle(
        &self,
        version: &Arc<Version>,
        flights: &[Arc<Flight>],
        outcome: &Outcome,
    ) {
        remove(&mut self.table(), version, flights);
        for flight in flights {
            flight.settle(outcome.clone());
        }
    }

    /// Notes whether the disk took a block.
    pub(crate) fn note_put(&self, result: &Result<(), NotKept>) {
        match result {
            Ok(()) => self.refusals.kept(),
            Err(err) => {
                tracing::debug!("a block is not kept: {err}");
                self.counters.put_failures.add(1);
                self.refusals.refused(err, self.config.retry_after);
            }
        }
    }

    /// Whether what is missing would be kept now.
    pub(crate) fn fills(&self) -> bool {
        !self.refusals.is_futile() && !self.calls.is_stuck()
    }

    /// Counts a task or a thread that [`close`](Self::close) waits for.
    pub(crate) fn task(self: &Arc<Self>) -> Task {
        self.tasks.send_modify(|tasks| *tasks += 1);
        Task(Arc::clone(self))
    }

    /// What is counted.
    pub(crate) fn statistics(&self) -> Statistics {
        Statistics {
            prestage_queued: self.prestage.queued() as u64,
            bytes_in_flight: self.memory.taken() + self.borrowed_memory.taken(),
            disk_stuck: self.calls.is_stuck(),
            ..self.counters.read()
        }
    }

    /// Whether nothing new is fetched.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Fetches nothing more, waits a short while for blocks at hand, closes the disk.
    pub(crate) async fn close(&self) {
        {
            // Under the lock: whoever has it next sees it.
            let _table = self.table();
            self.closing.store(true, Ordering::Release);
        }
        self.prestage.clear();
        let mut tasks = self.tasks.subscribe();
        let idle = tasks.wait_for(|&tasks| tasks == 0);
        if tokio::time::timeout(self.config.close_wait, idle)
            .await
            .is_err()
        {
            tracing::warn!("blocks are still on their way into the cache; they are not waited for");
        }
        if self.calls.is_stuck() {
            tracing::warn!("the cache's disk does not answer: the cache is not closed properly");
            return;
        }
        let blocks = Arc::clone(&self.blocks);
        if let Err(err) = tokio::task::spawn_blocking(move || blocks.close_blocking()).await {
            tracing::error!("closing the cache's disk: {err}");
        }
    }

    /// Objects and blocks in the table.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let table = self.table();
        (table.len(), table.values().map(BTreeMap::len).sum())
    }
}

/// A task or thread at work.
#[derive(Debug)]
pub(crate) struct Task(Arc<Engine>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.tasks.send_modify(|tasks| *tasks -= 1);
    }
}

/// Puts the first of `blocks`, which must be nowhere, in flight, and up to `run` in all of those
/// that follow it, are nowhere, and are brought by the same; and that one.
fn claim(
    table: &mut Table,
    target: &Target,
    blocks: Range<u64>,
    run: u64,
    interest: &Interest,
) -> (Vec<Arc<Flight>>, Arc<dyn Source>) {
    let version = &target.version;
    let route = target.route(blocks.start);
    let flying = table.entry(Arc::clone(version)).or_default();
    let mut flights = Vec::new();
    for block in blocks.start..blocks.end.min(blocks.start + run) {
        let somewhere = flying.contains_key(&block) || target.object.has(block);
        let elsewhere = || target.lender(block) != route.lender;
        if !flights.is_empty() && (somewhere || elsewhere()) {
            break;
        }
        let range = version.block_range(block);
        let len = crate::fetch::to_usize(range.end - range.start);
        let flight = Flight::new(block, len, interest.id, route.lender.is_some());
        let before = flying.insert(block, Arc::clone(&flight));
        assert!(before.is_none(), "a block is in flight once");
        flights.push(flight);
    }
    (flights, route.source)
}

fn remove(table: &mut Table, version: &Arc<Version>, flights: &[Arc<Flight>]) {
    if let Some(flying) = table.get_mut(version) {
        for flight in flights {
            flying.remove(&flight.block);
        }
        if flying.is_empty() {
            table.remove(version);
        }
    }
}
