//! MD5 of the bodies that arrive at the same time, hashed together.
//!
//! One thread takes what waits, up to [`LANES`] streams, and compresses as many blocks of each as
//! the shortest has ready; as one ends the next takes its lane. It never waits for a stream to
//! join: while it hashes one alone others gather, so the more there is to do, the less each costs.
//!
//! A caller that finds the queue full, or the thread gone, hashes for itself. So the thread is
//! never a limit on a machine with many cores, and never a reason to fail.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::{array, vec};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::limits::MD5_QUEUE_MAX;
use crate::md5_lanes::{LANES, Lanes};
use crate::md5_stream::{Block, Md5Stream, WORDS_FIRST};

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

enum Message {
    Hash(Job),
    Stop,
}

/// The way to the thread.
#[derive(Clone, Debug)]
pub(crate) struct Md5Pool {
    /// `None` where hashing together is no faster.
    queue: Option<SyncSender<Message>>,
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
        let (queue, messages) = sync_channel(MD5_QUEUE_MAX);
        let thread = Builder::new()
            .name("md5".to_owned())
            .spawn(move || run(lanes, &messages))?;
        Ok((Self { queue: Some(queue) }, Some(thread)))
    }

    /// Ends the thread after what it is hashing. Blocks while the queue is full.
    pub(crate) fn close(&self) {
        if let Some(queue) = &self.queue {
            // If it fails the thread has ended already.
            drop(queue.send(Message::Stop));
        }
    }

    /// Has the next pieces of a stream hashed. What is not worth it, or finds no place, is hashed
    /// before this returns.
    pub(crate) fn hash(&self, mut stream: Md5Stream, pieces: &[Bytes]) -> Hashing {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        if let Some(queue) = &self.queue
            && len > HASH_INLINE_MAX
        {
            let (sender, reply) = oneshot::channel();
            let job = Job {
                stream: stream.clone(),
                pieces: pieces.to_vec(),
                reply: sender,
            };
            if queue.try_send(Message::Hash(job)).is_ok() {
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

/// The thread.
fn run(lanes: Lanes, messages: &Receiver<Message>) {
    let mut open = true;
    let mut taken = Vec::with_capacity(LANES);
    while open || !taken.is_empty() {
        open = open && gather(messages, &mut taken);
        hash(lanes, &mut taken);
    }
}

/// Takes what waits, as far as there are lanes; waits only if there is nothing to do. False when
/// no more is to be taken.
fn gather(messages: &Receiver<Message>, taken: &mut Vec<Lane>) -> bool {
    while taken.len() < LANES {
        let message = if taken.is_empty() {
            messages.recv().ok()
        } else {
            match messages.try_recv() {
                Err(TryRecvError::Empty) => return true,
                message => message.ok(),
            }
        };
        match message {
            Some(Message::Hash(job)) => taken.push(Lane::new(job)),
            Some(Message::Stop) | None => return false,
        }
    }
    true
}

/// Answers the streams that are at their end, and compresses the next blocks of the others.
fn hash(lanes: Lanes, taken: &mut Vec<Lane>) {
    for ended in taken.extract_if(.., |lane| !lane.fill()) {
        ended.finish();
    }
    match taken.as_mut_slice() {
        [] => {}
        [alone] => alone.stream.compress(&mut alone.piece, RUN_MAX),
        several => hash_together(lanes, several),
    }
}

fn hash_together(lanes: Lanes, taken: &mut [Lane]) {
    let mut words = [WORDS_FIRST; LANES];
    for (words, lane) in words.iter_mut().zip(&*taken) {
        *words = lane.stream.words;
    }
    let ready = taken.iter().map(|lane| lane.blocks().len());
    let count = ready.min().unwrap_or(0).min(RUN_MAX);
    // A lane without a stream does again what the first one does, for nobody.
    let runs = array::from_fn(|i| &taken.get(i).unwrap_or(&taken[0]).blocks()[..count]);
    lanes.compress(&mut words, &runs);
    for (words, lane) in words.into_iter().zip(taken) {
        lane.stream.words = words;
        lane.stream.advance(&mut lane.piece, count);
    }
}

#[cfg(test)]
mod tests;
