//! MD5 of the bodies that arrive at the same time, hashed together.
//!
//! One thread takes what waits, up to as many streams as there are lanes, and compresses as many
//! blocks of each as the shortest has ready; as one ends the next takes its lane.
//!
//! A full set of lanes takes hardly longer than one stream, and nobody needs a stream's MD5 before
//! its end. So before it begins, the thread waits for company ([`Company`]): where somebody waits
//! for a digest, or a body can't take more in ([`Md5Pool::hurry`]), a little, for as many streams
//! as there lately were at one time, or one more; where all bodies are still arriving, until each
//! of them has something. A body that is the only one in the store is never held up.
//!
//! A caller that finds the queue full, or the thread gone, hashes for itself. So the thread is
//! never a limit on a machine with many cores, and never a reason to fail.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, vec};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::limits::MD5_QUEUE_MAX;
use crate::md5_lanes::Lanes;
use crate::md5_stream::{Block, Md5Stream, Words};
use crate::shared::lock;

/// Bytes up to which hashing is cheaper than handing it to another thread.
pub(crate) const HASH_INLINE_MAX: usize = 64 << 10;
/// Blocks of a stream that are compressed before looking whether another can join: some 10 us.
const RUN_MAX: usize = 128;

/// How soon a hash is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// Somebody waits for the digest.
    Soon,
    /// More of the body is to come: when memory has to be free.
    Later,
}

/// Pieces to hash, and who waits for it.
struct Job {
    stream: Md5Stream,
    pieces: Vec<Bytes>,
    haste: Haste,
    reply: oneshot::Sender<Md5Stream>,
}

/// What the thread and its callers share.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Where the thread sleeps.
    bed: Condvar,
    /// Bodies that are arriving, to be hashed on the way.
    members: AtomicUsize,
    /// Bodies that have begun to arrive and are not published yet.
    present: AtomicUsize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    thread: Thread,
    /// What is to be hashed later is needed soon.
    hurried: bool,
    closed: bool,
}

/// What the thread does.
#[derive(Clone, Copy, Default)]
enum Thread {
    #[default]
    Works,
    /// Until there is a job.
    Idles,
    /// For a while, until there are so many jobs, or one is in more haste than those it has.
    Waits { count: usize, haste: Haste },
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Queue {
    /// False if there is no place, or no thread.
    fn push(&self, job: Job) -> bool {
        let mut state = lock(&self.state);
        if state.closed || state.jobs.len() >= MD5_QUEUE_MAX {
            return false;
        }
        let job_haste = job.haste;
        state.jobs.push_back(job);
        let enough = match state.thread {
            Thread::Works => false,
            Thread::Idles => true,
            // How long it waits depends on who is in haste.
            Thread::Waits { count, haste } => {
                state.jobs.len() >= count || (haste == Haste::Later && job_haste == Haste::Soon)
            }
        };
        if enough {
            self.wake(state);
        }
        true
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        // Once is enough.
        state.thread = Thread::Works;
        drop(state);
        self.bed.notify_one();
    }

    fn hurry(&self) {
        let mut state = lock(&self.state);
        state.hurried = true;
        if let Thread::Waits { haste, .. } = state.thread
            && haste == Haste::Later
        {
            self.wake(state);
        }
    }

    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.wake(state);
    }

    fn bodies(&self) -> Bodies {
        Bodies {
            members: self.members.load(Ordering::Relaxed),
            present: self.present.load(Ordering::Relaxed),
        }
    }

    /// Sleeps until it is woken, a time is over, or for no reason. False when the time was over.
    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        thread: Thread,
        time: Duration,
    ) -> (MutexGuard<'a, State>, bool) {
        state.thread = thread;
        let woken = self.bed.wait_timeout(state, time);
        let (mut state, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
        state.thread = Thread::Works;
        (state, !timeout.timed_out())
    }
}

/// Closes the queue when nobody can use it any more.
#[derive(Debug)]
struct Handle(Arc<Queue>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Md5Pool {
    /// `None` where hashing together is no faster.
    queue: Option<Arc<Handle>>,
}

/// A body that arrives and is hashed on the way: others wait for it, as it does for them.
#[derive(Debug)]
pub(crate) struct Member(Option<Arc<Handle>>);

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.0.members.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A body from its first byte until it is published: while there are others, one is worth waiting
/// for.
#[derive(Debug)]
pub(crate) struct Present(Option<Arc<Handle>>);

impl Drop for Present {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.0.present.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A stream that is being hashed.
#[derive(Debug)]
pub(crate) enum Hashing {
    Done(Md5Stream),
    Queued {
        reply: oneshot::Receiver<Md5Stream>,
        /// What to begin again with if there is no reply.
        stream: Md5Stream,
        pieces: Vec<Bytes>,
    },
}

impl Md5Pool {
    /// Starts the thread, if the processor can hash in lanes. It ends with the last handle, or
    /// when the pool is closed.
    pub(crate) fn start() -> io::Result<(Self, Option<JoinHandle<()>>)> {
        let Some(lanes) = Lanes::detect() else {
            return Ok((Self { queue: None }, None));
        };
        let queue = Arc::<Queue>::default();
        let handle = Arc::new(Handle(Arc::clone(&queue)));
        let thread = Builder::new()
            .name("md5".to_owned())
            .spawn(move || run(lanes, &queue))?;
        let queue = Some(handle);
        Ok((Self { queue }, Some(thread)))
    }

    /// Ends the thread after what it has been given.
    pub(crate) fn close(&self) {
        if let Some(handle) = &self.queue {
            handle.0.close();
        }
    }

    /// Counts a body as arriving for as long as what is returned lives.
    pub(crate) fn join(&self) -> Member {
        if let Some(handle) = &self.queue {
            handle.0.members.fetch_add(1, Ordering::Relaxed);
        }
        Member(self.queue.clone())
    }

    /// Counts a body as one that may be company for others, for as long as what is returned lives.
    pub(crate) fn arrive(&self) -> Present {
        if let Some(handle) = &self.queue {
            handle.0.present.fetch_add(1, Ordering::Relaxed);
        }
        Present(self.queue.clone())
    }

    /// Has everything that waits for company hashed soon: somebody can't take in more before.
    pub(crate) fn hurry(&self) {
        if let Some(handle) = &self.queue {
            handle.0.hurry();
        }
    }

    /// Has the next pieces of a stream hashed. What is not worth it, or finds no place, is hashed
    /// before this returns.
    pub(crate) fn hash(&self, mut stream: Md5Stream, pieces: &[Bytes], haste: Haste) -> Hashing {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        if let Some(handle) = &self.queue
            && len > HASH_INLINE_MAX
        {
            let (sender, reply) = oneshot::channel();
            let job = Job {
                stream: stream.clone(),
                pieces: pieces.to_vec(),
                haste,
                reply: sender,
            };
            if handle.0.push(job) {
                return Hashing::Queued {
                    reply,
                    stream,
                    pieces: pieces.to_vec(),
                };
            }
        }
        stream.update_all(pieces);
        Hashing::Done(stream)
    }
}

impl Hashing {
    /// Waits for the end, on a thread that may block.
    pub(crate) fn wait_blocking(self) -> Md5Stream {
        match self {
            Self::Done(stream) => stream,
            Self::Queued {
                reply,
                mut stream,
                pieces,
            } => reply.blocking_recv().unwrap_or_else(|_| {
                stream.update_all(&pieces);
                stream
            }),
        }
    }
}

/// A job that has a lane.
struct Lane {
    stream: Md5Stream,
    piece: Bytes,
    rest: vec::IntoIter<Bytes>,
    haste: Haste,
    reply: oneshot::Sender<Md5Stream>,
}

impl Lane {
    fn new(job: Job) -> Self {
        Self {
            stream: job.stream,
            piece: Bytes::new(),
            rest: job.pieces.into_iter(),
            haste: job.haste,
            reply: job.reply,
        }
    }

    /// Makes blocks ready; false at the end.
    fn fill(&mut self) -> bool {
        while !self.stream.fill(&mut self.piece) {
            let Some(piece) = self.rest.next() else {
                return false;
            };
            self.piece = piece;
        }
        true
    }

    fn blocks(&self) -> &[Block] {
        self.stream.blocks(&self.piece)
    }

    fn finish(self) {
        // A caller that has gone away does not want to know.
        drop(self.reply.send(self.stream));
    }
}

/// Longest sleep with nothing to do; it is woken when there is.
const IDLE_MAX: Duration = Duration::from_hours(1);
/// Longest wait for company in all, where somebody waits for a digest.
const PATIENCE_SOON_MAX: Duration = Duration::from_millis(20);
/// Shortest such wait that is kept up.
const PATIENCE_SOON_MIN: Duration = Duration::from_millis(5);
/// Such a wait in MiB hashed alone: about as long as it takes until two more have arrived.
const PATIENCE_SOON_MIB: u32 = 4;
/// Most sets of streams that are begun without a wait for one more, after such waits were in vain.
const REST_MAX: u32 = 64;
/// Longest wait for bodies that are still arriving. Each holds a thread meanwhile.
const PATIENCE_LATER: Duration = Duration::from_millis(50);
/// Blocks of a MiB.
const MIB_BLOCKS: u32 = (1 << 20) / 64;
/// Blocks of a run from which on its time says something.
const TIMED_RUN_MIN: usize = 32;

/// How long a block takes here and now, whether in one lane or in all.
#[derive(Debug, Default)]
struct Pace {
    block: Duration,
}

impl Pace {
    /// A run of so many blocks took so long.
    fn ran(&mut self, blocks: usize, took: Duration) {
        if blocks >= TIMED_RUN_MIN
            && let Ok(blocks) = u32::try_from(blocks)
        {
            let last = took / blocks;
            self.block = (self.block * 15 + last) / 16;
        }
    }

    /// How long to wait for company where somebody waits for a digest.
    fn patience(&self) -> Duration {
        let patience = self.block * MIB_BLOCKS * PATIENCE_SOON_MIB;
        patience.clamp(PATIENCE_SOON_MIN, PATIENCE_SOON_MAX)
    }
}

/// How many streams are likely to come together, and so are worth waiting for.
///
/// What tests decide by; how the thread sleeps is left to others, so that they own the time.
#[derive(Debug)]
struct Company {
    /// As many as there were lately at one time.
    expected: usize,
    /// Whether those that are here are begun: who comes later joins, and is not waited for.
    has_begun: bool,
    /// Sets that are still to be begun without a wait for one more than expected.
    resting: u32,
    /// Sets to rest for after the next such wait in vain.
    rest: u32,
}

/// How many more jobs to wait for, and how urgent those are that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    count: usize,
    haste: Haste,
}

/// The bodies that the store knows of.
#[derive(Clone, Copy, Debug, Default)]
struct Bodies {
    /// That are being hashed on the way.
    members: usize,
    /// That are not published yet.
    present: usize,
}

impl Company {
    fn new() -> Self {
        Self {
            expected: 1,
            has_begun: false,
            resting: 0,
            rest: 1,
        }
    }

    /// Takes what waits, as far as there are lanes.
    fn take(&mut self, lanes: Lanes, state: &mut State, taken: &mut Vec<Lane>) {
        let count = state.jobs.len().min(lanes.count() - taken.len());
        taken.extend(state.jobs.drain(..count).map(Lane::new));
        if taken.len() > self.expected {
            self.expected = taken.len();
            self.rest = 1;
        }
    }

    /// What to wait for now; `None` if what is there is to be hashed.
    fn wanted(
        &self,
        lanes: Lanes,
        state: &State,
        taken: &[Lane],
        bodies: Bodies,
    ) -> Option<Wanted> {
        let is_urgent = state.hurried || taken.iter().any(|lane| lane.haste == Haste::Soon);
        let (expected, haste) = if is_urgent {
            (self.hoped_for(lanes, bodies), Haste::Soon)
        } else {
            (bodies.members.min(lanes.count()), Haste::Later)
        };
        if state.closed || self.has_begun || taken.len() >= expected {
            return None;
        }
        let count = expected - taken.len();
        Some(Wanted { count, haste })
    }

    /// As many as lately, as long as there are so many bodies, or one more, if there are still
    /// others then: while these wait, those are sent, or written.
    fn hoped_for(&self, lanes: Lanes, bodies: Bodies) -> usize {
        let expected = self.expected.min(bodies.present.max(1));
        let hopes = self.resting == 0 && expected < lanes.count() && expected + 1 < bodies.present;
        expected + usize::from(hopes)
    }

    /// The time is over, and not all that were wanted have come: it is the last wait before what
    /// is here begins, and fewer are waited for the next time.
    fn waited_in_vain(&mut self, taken: &[Lane]) {
        if taken.len() == self.expected {
            // As many as lately: only the one more did not come. This set ends a rest, too.
            self.resting = self.rest + 1;
            self.rest = (self.rest * 2).min(REST_MAX);
        }
        self.expected = taken.len().max(self.expected - 1);
        self.has_begun = true;
    }

    /// Hashing begins, or has ended.
    fn begin(&mut self, taken: &[Lane]) {
        if taken.is_empty() && self.has_begun {
            self.resting = self.resting.saturating_sub(1);
        }
        self.has_begun = !taken.is_empty();
    }
}

/// Lets callers hash for themselves when the thread ends, however it ends.
struct Ending<'a>(&'a Queue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.closed = true;
        state.jobs.clear();
    }
}

/// The thread.
fn run(lanes: Lanes, queue: &Queue) {
    let _ending = Ending(queue);
    let (mut company, mut pace) = (Company::new(), Pace::default());
    let mut taken = Vec::with_capacity(lanes.count());
    while gather(lanes, queue, &mut company, &pace, &mut taken) {
        let began_at = Instant::now();
        let blocks = hash(lanes, &mut taken);
        pace.ran(blocks, began_at.elapsed());
        company.begin(&taken);
    }
}

/// Takes what waits, and waits for more if there is nothing to do or more are expected. False when
/// no more is to come.
fn gather(
    lanes: Lanes,
    queue: &Queue,
    company: &mut Company,
    pace: &Pace,
    taken: &mut Vec<Lane>,
) -> bool {
    let mut state = lock(&queue.state);
    // When somebody began to wait for a digest here.
    let mut urgent_at = None;
    loop {
        company.take(lanes, &mut state, taken);
        if taken.is_empty() {
            if state.closed {
                return false;
            }
            (state, _) = queue.sleep(state, Thread::Idles, IDLE_MAX);
            continue;
        }
        let bodies = queue.bodies();
        let Some(Wanted { count, haste }) = company.wanted(lanes, &state, taken, bodies) else {
            // What finds no lane now is still in haste.
            state.hurried &= !state.jobs.is_empty();
            return true;
        };
        let patience = match haste {
            Haste::Soon => {
                let waited = urgent_at.get_or_insert_with(Instant::now).elapsed();
                pace.patience().saturating_sub(waited)
            }
            Haste::Later => PATIENCE_LATER,
        };
        let woken;
        (state, woken) = queue.sleep(state, Thread::Waits { count, haste }, patience);
        if !woken {
            company.take(lanes, &mut state, taken);
            match haste {
                Haste::Soon => company.waited_in_vain(taken),
                Haste::Later => company.has_begun = true,
            }
        }
    }
}

/// Answers the streams that are at their end, and compresses the next blocks of the others; how
/// many of each.
fn hash(lanes: Lanes, taken: &mut Vec<Lane>) -> usize {
    for ended in taken.extract_if(.., |lane| !lane.fill()) {
        ended.finish();
    }
    if taken.is_empty() {
        return 0;
    }
    let mut words: Vec<Words> = taken.iter().map(|lane| lane.stream.words).collect();
    let ready = taken.iter().map(|lane| lane.blocks().len());
    let count = ready.min().unwrap_or(0).min(RUN_MAX);
    let runs: Vec<&[Block]> = taken.iter().map(|lane| &lane.blocks()[..count]).collect();
    lanes.compress(&mut words, &runs);
    for (words, lane) in words.into_iter().zip(taken) {
        lane.stream.words = words;
        lane.stream.advance(&mut lane.piece, count);
    }
    count
}

#[cfg(test)]
mod tests;
