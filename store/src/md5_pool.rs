//! MD5 of the bodies that arrive at the same time, hashed together.
//!
//! One thread takes what waits, up to as many streams as there are lanes, and compresses as many
//! blocks of each as the shortest has ready; as one ends the next takes its lane.
//!
//! A full set of lanes takes hardly longer than one stream, and nobody needs a stream's MD5 before
//! its end. So before it begins, the thread waits a little for as many streams as it has lately had
//! at one time ([`Company`]).
//!
//! A caller that finds the queue full, or the thread gone, hashes for itself. So the thread is
//! never a limit on a machine with many cores, and never a reason to fail.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
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

/// Pieces to hash, and who waits for it.
struct Job {
    stream: Md5Stream,
    pieces: Vec<Bytes>,
    reply: oneshot::Sender<Md5Stream>,
}

/// What the thread and its callers share.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Where the thread sleeps.
    bed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    thread: Thread,
    closed: bool,
}

/// What the thread does.
#[derive(Clone, Copy, Default)]
enum Thread {
    #[default]
    Works,
    /// Until there is a job.
    Idles,
    /// For a while, until there are so many jobs.
    Waits { count: usize },
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
        state.jobs.push_back(job);
        let enough = match state.thread {
            Thread::Works => false,
            Thread::Idles => true,
            Thread::Waits { count } => state.jobs.len() >= count,
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

    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.wake(state);
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

    /// Has the next pieces of a stream hashed. What is not worth it, or finds no place, is hashed
    /// before this returns.
    pub(crate) fn hash(&self, mut stream: Md5Stream, pieces: &[Bytes]) -> Hashing {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        if let Some(handle) = &self.queue
            && len > HASH_INLINE_MAX
        {
            let (sender, reply) = oneshot::channel();
            let job = Job {
                stream: stream.clone(),
                pieces: pieces.to_vec(),
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
    reply: oneshot::Sender<Md5Stream>,
}

impl Lane {
    fn new(job: Job) -> Self {
        Self {
            stream: job.stream,
            piece: Bytes::new(),
            rest: job.pieces.into_iter(),
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
/// Longest wait for the next stream to join: about what a stream of a MiB takes alone, so that a
/// wait in vain at most doubles the time.
const PATIENCE: Duration = Duration::from_micros(2500);

/// How many streams are likely to come together, and so are worth waiting for.
///
/// What tests decide by; how the thread sleeps is left to others, so that they own the time.
#[derive(Debug)]
struct Company {
    /// As many as there were lately at one time.
    expected: usize,
    /// Whether those that are here are begun: who comes later joins, and is not waited for.
    has_begun: bool,
}

impl Company {
    fn new() -> Self {
        Self {
            expected: 1,
            has_begun: false,
        }
    }

    /// Takes what waits, as far as there are lanes.
    fn take(&mut self, lanes: Lanes, state: &mut State, taken: &mut Vec<Lane>) {
        let count = state.jobs.len().min(lanes.count() - taken.len());
        taken.extend(state.jobs.drain(..count).map(Lane::new));
        self.expected = self.expected.max(taken.len());
    }

    /// How many jobs to wait for now; `None` if what is there is to be hashed.
    fn wanted(&self, state: &State, taken: &[Lane]) -> Option<usize> {
        if state.closed || self.has_begun || taken.len() >= self.expected {
            return None;
        }
        Some(self.expected - taken.len())
    }

    /// A wait is over in which nobody came: it is the last before what is here begins, and one
    /// fewer is waited for the next time.
    fn waited_in_vain(&mut self, taken: &[Lane]) {
        self.expected = taken.len().max(self.expected - 1);
        self.has_begun = true;
    }

    /// Hashing begins, or has ended.
    fn begin(&mut self, taken: &[Lane]) {
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
    let mut company = Company::new();
    let mut taken = Vec::with_capacity(lanes.count());
    while gather(lanes, queue, &mut company, &mut taken) {
        hash(lanes, &mut taken);
        company.begin(&taken);
    }
}

/// Takes what waits, and waits for more if there is nothing to do or more are expected. False when
/// no more is to come.
fn gather(lanes: Lanes, queue: &Queue, company: &mut Company, taken: &mut Vec<Lane>) -> bool {
    let mut state = lock(&queue.state);
    loop {
        company.take(lanes, &mut state, taken);
        if taken.is_empty() {
            if state.closed {
                return false;
            }
            (state, _) = queue.sleep(state, Thread::Idles, IDLE_MAX);
            continue;
        }
        let Some(count) = company.wanted(&state, taken) else {
            return true;
        };
        let woken;
        (state, woken) = queue.sleep(state, Thread::Waits { count }, PATIENCE);
        if !woken && state.jobs.is_empty() {
            company.waited_in_vain(taken);
        }
    }
}

/// Answers the streams that are at their end, and compresses the next blocks of the others.
fn hash(lanes: Lanes, taken: &mut Vec<Lane>) {
    for ended in taken.extract_if(.., |lane| !lane.fill()) {
        ended.finish();
    }
    if taken.is_empty() {
        return;
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
}

#[cfg(test)]
mod tests;
