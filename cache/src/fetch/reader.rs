//! One read: a range of a version, as frames.
//!
//! Block by block: from the disk if it is there, from its flight if one is under way, else from
//! the source; the directive says whether it is kept. A hit costs no task and no thread as long
//! as its blocks are in memory; if they are not, one blocking thread loads the next few.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_store::content::CacheStatus;
use futures_core::Stream;
use tokio::task::JoinHandle;

use crate::directive::Directive;
use crate::fetch::ahead::Plan;
use crate::fetch::blocks::{Load, Probe};
use crate::fetch::calls::Unanswered;
use crate::fetch::engine::{Engine, Place, Target};
use crate::fetch::exact::Exact;
use crate::fetch::flight::{Outcome, Seat};
use crate::fetch::patience::{Patience, Verdict};
use crate::fetch::window::Window;
use crate::fetch::{ReadError, block_of, to_usize};
use crate::version::{BLOCK_SIZE, Version};

/// Blocks that a blocking thread loads at a time.
const LOAD_BLOCKS_MAX: u64 = 4;
/// Times that a block may vanish between the disk and a reader before he goes past the cache.
const ROUNDS_MAX: u32 = 3;

/// How much of a read's range was in the cache when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All of it; also if there was nothing to read.
    Hit,
    /// Some blocks of it.
    Partial,
    /// No block of it.
    Miss,
    /// The cache was not looked at.
    Bypass,
}

impl From<Status> for CacheStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Hit => Self::Hit,
            Status::Partial => Self::Partial,
            Status::Miss => Self::Miss,
            Status::Bypass => Self::Bypass,
        }
    }
}

#[derive(Debug)]
enum Stage {
    /// The next block has yet to be found.
    Choosing,
    Loading(JoinHandle<Result<Loaded, Unanswered>>),
    Seated(Seat),
    /// From the source, past the cache; and what has come beyond a frame.
    Passing(Box<Exact>, Bytes),
}

/// What a blocking thread loaded.
#[derive(Debug, Default)]
struct Loaded {
    /// Blocks that follow each other.
    blocks: VecDeque<Bytes>,
    corrupt: u64,
    failed: u64,
}

/// What one step of reading came to.
enum Step {
    Frame(Bytes),
    Again,
    End,
    Fail(ReadError),
}

/// A range of a version's bytes, in frames of up to 1 MiB. Dropping it ends the read.
#[derive(Debug)]
pub struct Read {
    engine: Arc<Engine>,
    target: Target,
    status: Status,
    directive: Directive,
    position: u64,
    end: u64,
    stage: Stage,
    /// Blocks from the one at `position` on.
    loaded: VecDeque<Bytes>,
    /// What is asked for ahead, within the range; there from the first miss on.
    window: Option<Window>,
    /// What is to be asked for beyond the range.
    ahead: Option<Plan>,
    /// Failures for the block at hand.
    patience: Patience,
    /// Times that the block at hand was not where it should be.
    rounds: u32,
    /// Bytes that came from the disk.
    from_cache: u64,
}

impl Read {
    /// A read that has not begun.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        target: Target,
        directive: Directive,
        range: std::ops::Range<u64>,
    ) -> Self {
        let status = status(&target, directive, &range);
        if !target.lends {
            count(engine, status);
        }
        let mut directive = directive;
        if directive.fills() && !engine.fills() {
            directive = Directive::NoFill;
            engine.counters.reads_unfilled.add(1);
        }
        // Of what is all here, nothing needs to be asked for.
        let lacking = target.object.present() < target.version.blocks();
        // What a peer will read next is his to ask for, and of other homes than this.
        let ahead = (directive.fills() && lacking && !target.lends)
            .then(|| engine.ahead.note(&target.version, &range))
            .flatten();
        Self {
            engine: Arc::clone(engine),
            target,
            status,
            directive,
            position: range.start,
            end: range.end,
            stage: Stage::Choosing,
            loaded: VecDeque::new(),
            window: None,
            ahead,
            patience: Patience::default(),
            rounds: 0,
            from_cache: 0,
        }
    }

    /// How much of the range was in the cache when the read began.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Bytes not yet handed out; none after an error.
    pub fn remaining(&self) -> u64 {
        self.end - self.position
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// What was handed out before is right all the same; nothing follows.
    pub async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`next`](Self::next), polled.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReadError>>> {
        self.ask_ahead();
        loop {
            if self.position == self.end {
                self.stage = Stage::Choosing;
                return Poll::Ready(None);
            }
            let step = match &mut self.stage {
                Stage::Choosing => self.choose(),
                Stage::Loading(_) => ready!(self.poll_loading(cx)),
                Stage::Seated(_) => ready!(self.poll_seated(cx)),
                Stage::Passing(..) => ready!(self.poll_passing(cx)),
            };
            match step {
                Step::Again => {}
                Step::End => self.stage = Stage::Choosing,
                Step::Frame(frame) => {
                    self.advance(frame.len() as u64);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Step::Fail(err) => {
                    self.end = self.position;
                    self.stage = Stage::Choosing;
                    self.window = None;
                    return Poll::Ready(Some(Err(err)));
                }
            }
        }
    }

    fn advance(&mut self, len: u64) {
        let before = block_of(self.position);
        self.position += len;
        if block_of(self.position) > before {
            self.patience = Patience::default();
            self.rounds = 0;
            if let Stage::Seated(_) = self.stage {
                self.stage = Stage::Choosing;
            }
        }
    }

    /// Asks for what should be coming: of the range first, then of what is beyond it.
    fn ask_ahead(&mut self) {
        if !self.directive.fills() || self.position == self.end {
            return;
        }
        let at = block_of(self.position);
        if matches!(self.status, Status::Miss | Status::Partial) || self.window.is_some() {
            let blocks = at..blocks_until(self.end);
            let window = self
                .window
                .get_or_insert_with(|| window(&self.engine, &self.target, blocks));
            window.advance(&self.engine, &self.target, at);
        }
        if let Some(Plan { mut blocks, run }) = self.ahead.take() {
            let (engine, target) = (&self.engine, &self.target);
            while let Some(next) = engine.launch(target, blocks.clone(), run, &engine.lasting) {
                blocks.start = next;
            }
        }
    }

    /// What of a block is wanted: from and until where in it.
    fn wanted(&self) -> (usize, usize) {
        let start = block_of(self.position) * BLOCK_SIZE;
        let until = self.end.min(start + BLOCK_SIZE) - start;
        (to_usize(self.position - start), to_usize(until))
    }

    fn frame_of(&mut self, block: &Bytes) -> Step {
        let (from, until) = self.wanted();
        let len = (until - from) as u64;
        self.engine.counters.bytes_from_cache.add(len);
        self.from_cache += len;
        Step::Frame(block.slice(from..until))
    }

    /// Finds the block at hand.
    fn choose(&mut self) -> Step {
        if let Some(block) = self.loaded.pop_front() {
            return self.frame_of(&block);
        }
        if !self.directive.looks() {
            return self.pass(self.end);
        }
        let block = block_of(self.position);
        if self.rounds >= ROUNDS_MAX {
            return self.pass(self.end.min((block + 1) * BLOCK_SIZE));
        }
        match self.target.object.probe(block) {
            Probe::Ready(bytes) => self.frame_of(&bytes),
            // Past it, and past all that is behind it.
            Probe::Cold if self.engine.calls.is_stuck() => self.pass(self.end),
            Probe::Cold => self.load(block),
            Probe::Missing if self.directive.fills() => self.sit_down(block),
            Probe::Missing => {
                let end = blocks_until(self.end);
                let mut behind = block + 1..end;
                let found = behind.find(|&block| self.target.object.has(block));
                self.pass(found.map_or(self.end, |found| found * BLOCK_SIZE))
            }
        }
    }

    /// Gets what is up to `until` from the source, past the cache.
    fn pass(&mut self, until: u64) -> Step {
        let Target {
            version, source, ..
        } = &self.target;
        self.engine.counters.fetches.add(1);
        let transfer = Exact::new(&**source, version, self.position..until);
        self.stage = Stage::Passing(Box::new(transfer), Bytes::new());
        Step::Again
    }

    fn sit_down(&mut self, block: u64) -> Step {
        let blocks = block..blocks_until(self.end);
        let window = self
            .window
            .get_or_insert_with(|| window(&self.engine, &self.target, blocks));
        match window.seat(&self.engine, &self.target, block) {
            Place::Joined(seat) | Place::Started(seat) => self.stage = Stage::Seated(seat),
            // Just kept, and perhaps evicted again before we look.
            Place::Disk => self.rounds += 1,
            Place::Borrowed | Place::Closed => self.go_alone(),
        }
        Step::Again
    }

    /// Goes on past the cache: what is not in it comes from the reader's own source and is not
    /// kept.
    fn go_alone(&mut self) {
        self.directive = Directive::NoFill;
        self.window = None;
    }

    fn load(&mut self, block: u64) -> Step {
        let object = Arc::clone(&self.target.object);
        let end = blocks_until(self.end).min(block + LOAD_BLOCKS_MAX);
        let load = move || {
            let mut loaded = Loaded::default();
            for block in block..end {
                match object.load_blocking(block) {
                    Load::Loaded(bytes) => {
                        loaded.blocks.push_back(bytes);
                        continue;
                    }
                    Load::Missing => {}
                    Load::Corrupt => loaded.corrupt += 1,
                    Load::Failed => loaded.failed += 1,
                }
                break;
            }
            loaded
        };
        let calls = self.engine.calls.clone();
        let loading = async move { calls.run(load).await };
        self.stage = Stage::Loading(self.engine.runtime.spawn(loading));
        Step::Again
    }

    fn poll_loading(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Stage::Loading(handle) = &mut self.stage else {
            unreachable!("it is being loaded");
        };
        let joined = ready!(Pin::new(handle).poll(cx));
        self.stage = Stage::Choosing;
        let counters = &self.engine.counters;
        match joined {
            Ok(Ok(loaded)) => {
                counters.corrupt.add(loaded.corrupt);
                counters.load_failures.add(loaded.failed);
                self.loaded = loaded.blocks;
            }
            Ok(Err(err)) => {
                tracing::debug!("loading a cached block: {err}");
                counters.load_failures.add(1);
            }
            Err(err) => {
                tracing::error!("loading a cached block: {err}");
                counters.load_failures.add(1);
            }
        }
        if self.loaded.is_empty() {
            self.rounds += 1;
        }
        Poll::Ready(Step::Again)
    }

    fn poll_seated(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let (from, until) = self.wanted();
        let Stage::Seated(seat) = &self.stage else {
            unreachable!("a seat is taken");
        };
        let by = seat.by();
        let outcome = match ready!(seat.poll_bytes(cx, from, until)) {
            Ok(bytes) => return Poll::Ready(Step::Frame(bytes)),
            Err(outcome) => outcome,
        };
        self.stage = Stage::Choosing;
        Poll::Ready(match outcome {
            Outcome::Kept => Step::Again,
            // The disk takes nothing, the memory was needed, or the cache is being closed.
            Outcome::Unkept | Outcome::Dropped => {
                self.go_alone();
                Step::Again
            }
            Outcome::Failed(failure) => {
                let own = self.window.as_ref().is_some_and(|window| window.is_own(by));
                match self.patience.after(failure, own) {
                    Verdict::GiveUp(err) => Step::Fail(err),
                    Verdict::Alone => {
                        self.go_alone();
                        Step::Again
                    }
                    Verdict::Again => {
                        if let Some(window) = &mut self.window {
                            window.restart(block_of(self.position));
                        }
                        Step::Again
                    }
                }
            }
        })
    }

    fn poll_passing(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Stage::Passing(transfer, spare) = &mut self.stage else {
            unreachable!("it comes from the source");
        };
        if spare.is_empty() {
            *spare = match ready!(transfer.poll_next(cx)) {
                None => return Poll::Ready(Step::End),
                Some(Ok(chunk)) => chunk,
                Some(Err(err)) => {
                    self.engine.counters.fetch_failures.add(1);
                    return Poll::Ready(Step::Fail(err.into()));
                }
            };
            self.engine.counters.bytes_fetched.add(spare.len() as u64);
        }
        let len = spare.len().min(to_usize(BLOCK_SIZE));
        Poll::Ready(Step::Frame(spare.split_to(len)))
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        // Once for a read, not for each frame.
        if self.from_cache > 0 {
            let Version { bucket, key, .. } = &*self.target.version;
            self.engine.hot.note(bucket, key, self.from_cache);
        }
    }
}

impl Stream for Read {
    type Item = Result<Bytes, ReadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Self::poll_next(self.get_mut(), cx)
    }
}

fn count(engine: &Engine, status: Status) {
    let counters = &engine.counters;
    match status {
        Status::Hit => &counters.hits,
        Status::Partial => &counters.partials,
        Status::Miss => &counters.misses,
        Status::Bypass => &counters.bypasses,
    }
    .add(1);
}

fn window(engine: &Engine, target: &Target, blocks: std::ops::Range<u64>) -> Window {
    let window = Window::new(engine, blocks);
    if target.lends {
        window.at_once()
    } else {
        window
    }
}

/// The first block that a range up to `end` does not reach.
fn blocks_until(end: u64) -> u64 {
    end.div_ceil(BLOCK_SIZE)
}

fn status(target: &Target, directive: Directive, range: &std::ops::Range<u64>) -> Status {
    if !directive.looks() {
        return Status::Bypass;
    }
    let object = &target.object;
    let present = if range.is_empty() {
        0
    } else {
        object.present()
    };
    if range.is_empty() || present == target.version.blocks() {
        return Status::Hit;
    }
    if present == 0 {
        return Status::Miss;
    }
    let mut blocks = block_of(range.start)..blocks_until(range.end);
    let count = blocks.end - blocks.start;
    let elsewhere = target.version.blocks() - count;
    if present < count && present > elsewhere {
        // Some are missing, and they can't all be outside of the range.
        return Status::Partial;
    }
    let first = object.has(blocks.start);
    // As far as they are alike; mostly the second one tells already.
    match (blocks.all(|block| object.has(block) == first), first) {
        (true, true) => Status::Hit,
        (true, false) => Status::Miss,
        (false, _) => Status::Partial,
    }
}
