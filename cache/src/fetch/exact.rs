//! Exactly the bytes that were asked for, whatever the source does.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::source::{Chunks, FetchError, Fetching, Source};
use crate::version::Version;
use bytes::Bytes;

enum Stage {
    Opening(Fetching),
    Open(Chunks),
    Done,
}

/// One transfer. Its last bytes are handed out only when the source has ended there.
pub(crate) struct Exact {
    stage: Stage,
    range: Range<u64>,
    /// Bytes still to come.
    left: u64,
    last: Option<Bytes>,
}

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exact")
            .field("range", &self.range)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Exact {
    /// Asks for a range, not empty.
    pub(crate) fn new(source: &dyn Source, version: &Arc<Version>, range: Range<u64>) -> Self {
        Self {
            stage: Stage::Opening(source.fetch(version, range.clone())),
            left: range.end - range.start,
            range,
            last: None,
        }
    }

    /// Whether any byte came.
    pub(crate) fn arrived(&self) -> bool {
        self.left < self.range.end - self.range.start
    }

    /// The next bytes, not empty; `None` at the end. After an error nothing follows.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, FetchError>>> {
        loop {
            let chunk = match &mut self.stage {
                Stage::Done => return Poll::Ready(None),
                Stage::Opening(fetching) => {
                    match ready!(fetching.as_mut().poll(cx)) {
                        Ok(chunks) => self.stage = Stage::Open(chunks),
                        Err(err) => return self.fail(err),
                    }
                    continue;
                }
                Stage::Open(chunks) => ready!(chunks.as_mut().poll_next(cx)),
            };
            match chunk {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) if chunk.len() as u64 > self.left => {
                    return self.fail(self.wrong("more bytes than asked for"));
                }
                Some(Ok(chunk)) => {
                    self.left -= chunk.len() as u64;
                    if self.left > 0 {
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                    self.last = Some(chunk);
                }
                Some(Err(err)) => return self.fail(err),
                None if self.left > 0 => return self.fail(self.wrong("the body ended early")),
                None => {
                    self.stage = Stage::Done;
                    return Poll::Ready(self.last.take().map(Ok));
                }
            }
        }
    }

    fn wrong(&self, what: &str) -> FetchError {
        let Range { start, end } = self.range;
        FetchError::Corrupt(format!(
            "{what} (bytes {start} to {end}, {} missing)",
            self.left
        ))
    }

    fn fail(&mut self, err: FetchError) -> Poll<Option<Result<Bytes, FetchError>>> {
        self.stage = Stage::Done;
        Poll::Ready(Some(Err(err)))
    }
}
