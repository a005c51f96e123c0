//! A connection's socket, and how long it may be silent.
//!
//! `hyper`'s own timeout for a request's head also runs between requests and arms a timer for each
//! of them. Here the socket notes when something moved, and the connection looks at that now and
//! then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Longest time for a request's head, from its first byte.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest time between requests, and longest time a client may take to read more of an answer.
const IDLE_MAX: Duration = Duration::from_mins(2);
/// How often a connection looks at its clock.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const REQUEST: u8 = 2;

/// What a connection is doing, and since when.
#[derive(Debug)]
pub(crate) struct Activity {
    opened_at: Instant,
    phase: AtomicU8,
    /// Milliseconds from `opened_at` to the last move.
    moved_ms: AtomicU64,
}

impl Activity {
    /// A connection that has just been opened.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened_at: Instant::now(),
            phase: AtomicU8::new(IDLE),
            moved_ms: AtomicU64::new(0),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self) {
        self.moved_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn received(&self) {
        match self.phase.load(Ordering::Relaxed) {
            // The first byte of a head starts its clock; later ones do not wind it up again.
            IDLE => {
                self.phase.store(HEAD, Ordering::Relaxed);
                self.note();
            }
            HEAD => {}
            _ => self.note(),
        }
    }

    /// A request's head is whole.
    pub(crate) fn begin_request(&self) {
        self.phase.store(REQUEST, Ordering::Relaxed);
    }

    /// A request's answer is ready.
    pub(crate) fn end_request(&self) {
        self.phase.store(IDLE, Ordering::Relaxed);
        self.note();
    }

    /// Whether the client has been silent for too long.
    pub(crate) fn is_stale(&self) -> bool {
        let silent = Duration::from_millis(
            self.now_ms()
                .saturating_sub(self.moved_ms.load(Ordering::Relaxed)),
        );
        match self.phase.load(Ordering::Relaxed) {
            HEAD => silent > HEAD_WAIT_MAX,
            IDLE => silent > IDLE_MAX,
            // A handler waits for its client's body with a limit of its own.
            _ => false,
        }
    }
}

/// A socket that notes when something moved.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Socket {
    /// Wraps an accepted connection.
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        if matches!(result, Poll::Ready(Ok(_))) {
            self.activity.note();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.received();
        }
        result
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silent_client_is_stale() {
        let activity = Activity::new();
        assert!(!activity.is_stale());
        activity.received();
        assert_eq!(activity.phase.load(Ordering::Relaxed), HEAD);
        activity.begin_request();
        assert!(!activity.is_stale());
        activity.end_request();
        assert_eq!(activity.phase.load(Ordering::Relaxed), IDLE);
    }
}
