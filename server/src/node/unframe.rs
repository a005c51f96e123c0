//! A client's body without its frames, for an origin that the client did not sign them for.
//!
//! # Invariants
//! 1. The last bytes are sent only when every signature, length and digest of the body was right:
//!    of a body that is wrong the origin never gets all, and stores nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use forebay_store::digest::Hasher;
use http_body::{Body, Frame, SizeHint};

use super::upload::Upload;
use crate::auth::chunked::ChunkDecoder;
use crate::body::Plan;
use crate::checksum::Expected;
use crate::error::{Code, Result, S3Error};

/// Why a body was not sent to its end.
pub(super) type Refused = Arc<Mutex<Option<S3Error>>>;

/// What ends a request whose body is refused.
#[derive(Debug, thiserror::Error)]
#[error("the client's body is not what it says")]
pub(super) struct BadBody;

/// See the file's header.
#[derive(Debug)]
pub(super) struct Unframed {
    upload: Upload,
    /// None once the body is at its end.
    decoder: Option<(ChunkDecoder, Hasher, Expected)>,
    /// Pieces to be sent; the last one is held back until the end.
    pieces: VecDeque<Bytes>,
    len: Option<u64>,
    refused: Refused,
}

impl Unframed {
    /// Takes a body's frames away as the plan says.
    pub(super) fn new(upload: Upload, plan: Plan, refused: Refused) -> Self {
        let Plan {
            len,
            expected,
            framing,
        } = plan;
        let hasher = Hasher::new(expected.digests());
        Self {
            upload,
            decoder: framing.map(|framing| (ChunkDecoder::new(framing), hasher, expected)),
            pieces: VecDeque::new(),
            len,
            refused,
        }
    }

    fn take(&mut self, mut frame: Bytes) -> Result<()> {
        if let Some((decoder, hasher, _)) = &mut self.decoder {
            while let Some(piece) = decoder.next(&mut frame)? {
                hasher.update(&piece);
                self.pieces.push_back(piece);
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some((decoder, hasher, expected)) = self.decoder.take() else {
            return Ok(());
        };
        let trailer = decoder.finish()?;
        expected.verify(&hasher.finish(), trailer.as_ref())?;
        Ok(())
    }

    fn fail(&mut self, error: S3Error) -> Poll<Option<Result<Frame<Bytes>, BadBody>>> {
        self.pieces.clear();
        self.decoder = None;
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused = Some(error);
        Poll::Ready(Some(Err(BadBody)))
    }
}

impl Body for Unframed {
    type Data = Bytes;
    type Error = BadBody;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BadBody>>> {
        let this = self.get_mut();
        loop {
            let held_back = usize::from(this.decoder.is_some());
            if this.pieces.len() > held_back
                && let Some(piece) = this.pieces.pop_front()
            {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.decoder.is_none() {
                return Poll::Ready(None);
            }
            let taken = match ready!(Pin::new(&mut this.upload).poll_frame(cx)) {
                Some(Ok(frame)) => frame.into_data().map_or(Ok(()), |data| this.take(data)),
                Some(Err(_)) => Err(Code::IncompleteBody.into()),
                None => this.end(),
            };
            if let Err(error) = taken {
                return this.fail(error);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_none() && self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.len
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
