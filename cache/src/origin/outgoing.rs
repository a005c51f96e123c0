//! Bodies on their way to the origin.
//!
//! [`Progress`] tells whose turn it is, so that an origin is not blamed for a slow sender, nor a
//! sender for a slow origin. A sender who says `Expect: 100-continue` is not asked for the body
//! before the origin wants it; as an origin may not know of that, the wait is short.
//!
//! # Invariants
//! 1. When the answer to such a request comes before its body is wanted, no byte of the body is
//!    sent, and the connection ends with the answer.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use tokio::time::{Instant, Sleep};

use super::counters::Counters;

/// An error of whoever makes a body.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body, whatever it is made of.
pub(super) type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// How long a sender is held back if the origin neither asks for the body nor answers.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// The body is wanted, or nobody asked whether it is.
const WANTED: u8 = 0;
/// It is not known yet.
const ASKED: u8 = 1;
/// The origin answered without it.
const UNWANTED: u8 = 2;
/// And the answer has been read.
const OVER: u8 = 3;

/// How far the sending of one request is.
#[derive(Debug)]
pub(super) struct Progress {
    began_at: Instant,
    /// Milliseconds from `began_at` to the last move.
    moved_ms: AtomicU64,
    turn: AtomicU8,
    gate: AtomicU8,
    waker: AtomicWaker,
    broke: Mutex<Option<String>>,
}

/// Who is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The origin, to read or to answer.
    Origin,
    /// The sender, to go on with the body.
    Sender,
}

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began_at: Instant::now(),
            moved_ms: AtomicU64::new(0),
            turn: AtomicU8::new(0),
            gate: AtomicU8::new(WANTED),
            waker: AtomicWaker::new(),
            broke: Mutex::new(None),
        })
    }

    /// Whose turn it is, and since when.
    pub(super) fn turn(&self) -> (Turn, Instant) {
        let turn = match self.turn.load(Ordering::Relaxed) {
            0 => Turn::Origin,
            _ => Turn::Sender,
        };
        let moved = Duration::from_millis(self.moved_ms.load(Ordering::Relaxed));
        (turn, self.began_at + moved)
    }

    fn moved(&self, turn: Turn) {
        let ms = u64::try_from(self.began_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let turn = u8::from(turn == Turn::Sender);
        if self.turn.swap(turn, Ordering::Relaxed) != turn || turn == 0 {
            self.moved_ms.store(ms, Ordering::Relaxed);
        }
    }

    /// What the sender's error was, if there was one.
    pub(super) fn broke(&self) -> Option<String> {
        let broke = self.broke.lock().unwrap_or_else(PoisonError::into_inner);
        broke.clone()
    }

    /// Holds the body back until the origin wants it.
    pub(super) fn ask_first(&self) {
        self.gate.store(ASKED, Ordering::Release);
    }

    /// The origin wants the body.
    pub(super) fn wanted(&self) {
        self.pass(ASKED, WANTED);
    }

    /// The origin answers.
    pub(super) fn answered(&self) {
        self.pass(ASKED, UNWANTED);
    }

    /// The answer is read, or nobody wants it.
    pub(super) fn over(&self) {
        self.pass(UNWANTED, OVER);
    }

    fn pass(&self, from: u8, to: u8) {
        let passed = self
            .gate
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        if passed.is_ok() {
            self.waker.wake();
        }
    }
}

/// A body that is watched.
pub(super) struct Outgoing {
    body: AnyBody,
    progress: Arc<Progress>,
    counters: Arc<Counters>,
    held_back: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

impl Outgoing {
    pub(super) fn new(body: AnyBody, progress: Arc<Progress>, counters: Arc<Counters>) -> Self {
        Self {
            body,
            progress,
            counters,
            held_back: None,
        }
    }

    /// Ready when the body may go, or must not.
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let gate = &self.progress.gate;
        if gate.load(Ordering::Acquire) == WANTED {
            return Poll::Ready(Ok(()));
        }
        self.progress.waker.register(cx.waker());
        let wait = self
            .held_back
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(CONTINUE_WAIT)));
        if gate.load(Ordering::Acquire) == ASKED && wait.as_mut().poll(cx).is_ready() {
            self.progress.wanted();
        }
        match gate.load(Ordering::Acquire) {
            WANTED => Poll::Ready(Ok(())),
            OVER => Poll::Ready(Err("the answer came before the body was wanted".into())),
            _ => Poll::Pending,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match this.poll_gate(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(err)) => return Poll::Ready(Some(Err(err))),
            Poll::Pending => return Poll::Pending,
        }
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        match &polled {
            Poll::Pending => this.progress.moved(Turn::Sender),
            Poll::Ready(Some(Ok(frame))) => {
                let len = frame.data_ref().map_or(0, Bytes::len);
                this.counters.bytes_out.add(len as u64);
                this.progress.moved(Turn::Origin);
            }
            Poll::Ready(Some(Err(err))) => {
                let broke = &this.progress.broke;
                let mut broke = broke.lock().unwrap_or_else(PoisonError::into_inner);
                *broke = Some(super::error::chain(&**err));
            }
            Poll::Ready(None) => this.progress.moved(Turn::Origin),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
