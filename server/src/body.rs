//! Bodies on their way in: read, unframed, bounded.
//!
//! A body is polled only after the request is authenticated, and `hyper` sends `100 Continue` when
//! a body is first polled; so a client that waits for it sends nothing to a server that refuses.
//!
//! # Invariants
//! 1. A document is held whole, and is at most [`DOCUMENT_MAX`] or [`LIST_DOCUMENT_MAX`] bytes; of
//!    a stream only the frame at hand is held.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forebay_store::digest::{ChecksumAlgorithm, Hasher};
use forebay_store::limits::PUT_SIZE_MAX;
use forebay_store::stage::{Stage, Staged};
use http::HeaderMap;
use http::header::TRANSFER_ENCODING;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::auth::Payload;
use crate::auth::chunked::{ChunkDecoder, Framing, TrailerUse};
use crate::checksum::Expected;
use crate::compat::Compat;
use crate::error::{Code, Result, S3Error};
use crate::header::text;

/// Largest document of a configuration, in bytes.
pub(crate) const DOCUMENT_MAX: u64 = 1 << 20;
/// Largest document that lists keys or parts, in bytes.
pub(crate) const LIST_DOCUMENT_MAX: u64 = 8 << 20;
/// Longest wait for the next bytes of a body.
const STALL_MAX: Duration = Duration::from_mins(1);
/// Bytes of an unwanted body that are read so that the connection can go on.
const DRAIN_MAX: u64 = 1 << 20;
/// Longest time for that.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Reads what is left of a body, if it is little, so that the client reads the answer and goes on.
/// Whether that was all.
pub(crate) async fn drain(incoming: &mut Incoming) -> bool {
    let known = incoming.size_hint().exact();
    if known.is_some_and(|len| len > DRAIN_MAX) {
        return false;
    }
    let read = async {
        let mut left = DRAIN_MAX;
        while let Some(frame) = incoming.frame().await {
            let Ok(frame) = frame else {
                return false;
            };
            let len = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(len as u64) else {
                return false;
            };
            left = rest;
        }
        true
    };
    // Out of time is as good as too much: the connection is closed.
    let read = tokio::time::timeout(DRAIN_WAIT_MAX, read).await;
    read.unwrap_or(false)
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    ended: bool,
}

impl RequestBody {
    /// Nothing of it is read yet.
    pub(crate) fn new(incoming: Incoming) -> Self {
        let ended = incoming.is_end_stream();
        Self { incoming, ended }
    }

    /// Whether all of it was read.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    /// The next bytes; `None` at the end.
    async fn frame(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Ok(frame) = tokio::time::timeout(STALL_MAX, self.incoming.frame()).await else {
                return Err(Code::RequestTimeout.into());
            };
            let Some(frame) = frame else {
                self.ended = true;
                return Ok(None);
            };
            // The connection broke, or its framing is broken: either way the body is not whole.
            let frame = frame.map_err(|_| S3Error::new(Code::IncompleteBody))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// Reads what is left, if it is little, so that the client reads the answer and goes on.
    pub(crate) async fn drain(&mut self) {
        if !self.is_ended() {
            self.ended = drain(&mut self.incoming).await;
        }
    }

    /// Reads a document and checks its digests.
    ///
    /// # Errors
    /// `MaxMessageLengthExceeded`, `IncompleteBody`, and what [`Expected`] gives.
    pub(crate) async fn document(&mut self, expected: &Expected, max: u64) -> Result<Bytes> {
        let too_big = || {
            S3Error::new(Code::MaxMessageLengthExceeded)
                .field("MaxMessageLengthBytes", max.to_string())
        };
        if self.incoming.size_hint().lower() > max {
            return Err(too_big());
        }
        let mut body = BytesMut::new();
        while let Some(data) = self.frame().await? {
            if (body.len() + data.len()) as u64 > max {
                return Err(too_big());
            }
            body.extend_from_slice(&data);
        }
        let mut hasher = Hasher::new(expected.digests());
        hasher.update(&body);
        expected.verify(&hasher.finish(), None)?;
        Ok(body.freeze())
    }

    /// Refuses a body where there can be none.
    ///
    /// # Errors
    /// `InvalidRequest`.
    pub(crate) async fn nothing(&mut self) -> Result<()> {
        while let Some(data) = self.frame().await? {
            if !data.is_empty() {
                return Err(S3Error::request(
                    "The request has a body where none is expected.",
                ));
            }
        }
        Ok(())
    }

    /// Hands the body to a stage, unframed, and checks its digests at the end.
    ///
    /// # Errors
    /// `IncompleteBody`, `RequestTimeout`, `EntityTooLarge`, what [`ChunkDecoder`] and [`Expected`]
    /// give, and what the store gives.
    pub(crate) async fn receive(&mut self, plan: Plan, mut stage: Stage) -> Result<Received> {
        let mut decoder = plan.framing.map(ChunkDecoder::new);
        let mut taken = 0;
        while let Some(mut data) = self.frame().await? {
            let Some(decoder) = &mut decoder else {
                taken += data.len() as u64;
                stage.write(data).await?;
                continue;
            };
            while let Some(piece) = decoder.next(&mut data)? {
                stage.write(piece).await?;
            }
        }
        let trailer = match decoder {
            Some(decoder) => decoder.finish()?,
            None if plan.len.is_some_and(|len| len != taken) => {
                return Err(S3Error::new(Code::IncompleteBody)
                    .field("NumberBytesExpected", plan.len.unwrap_or(taken).to_string())
                    .field("NumberBytesProvided", taken.to_string()));
            }
            None => None,
        };
        let staged = stage.finish().await?;
        let checksum = plan.expected.verify(&staged.digests, trailer.as_ref())?;
        Ok(Received { staged, checksum })
    }
}

/// A body that has arrived whole and is what it was said to be.
#[derive(Debug)]
pub(crate) struct Received {
    /// The bytes.
    pub(crate) staged: Staged,
    /// The checksum that the client declared.
    pub(crate) checksum: Option<(ChecksumAlgorithm, Vec<u8>)>,
}

/// What a body of an object or a part is said to be.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Its length in bytes, unframed; `None` only where the connection alone says where it ends.
    pub(crate) len: Option<u64>,
    /// Its digests.
    pub(crate) expected: Expected,
    /// Its frames, if it has some.
    pub(crate) framing: Option<Framing>,
}

impl Plan {
    /// Reads the headers.
    ///
    /// # Errors
    /// `MissingContentLength`, `EntityTooLarge`, `MalformedTrailerError`, what [`Expected::parse`]
    /// gives.
    pub(crate) fn parse(headers: &HeaderMap, payload: Payload, compat: Compat) -> Result<Self> {
        let expected = Expected::parse(headers, payload.signed_hash())?;
        let length_header = match payload {
            Payload::Chunked { .. } => "x-amz-decoded-content-length",
            Payload::Unsigned | Payload::Hashed(_) => "content-length",
        };
        let len: Option<u64> = text(headers, length_header)?.and_then(|length| length.parse().ok());
        let chunked = headers.contains_key(TRANSFER_ENCODING) && length_header == "content-length";
        if len.is_none() && !(chunked && compat.unknown_length()) {
            return Err(Code::MissingContentLength.into());
        }
        if let Some(len) = len.filter(|len| *len > PUT_SIZE_MAX) {
            return Err(S3Error::new(Code::EntityTooLarge)
                .field("ProposedSize", len.to_string())
                .field("MaxSizeAllowed", PUT_SIZE_MAX.to_string()));
        }
        let framing = match payload {
            Payload::Unsigned | Payload::Hashed(_) => None,
            Payload::Chunked { signer, trailer } => {
                let declared =
                    text(headers, "x-amz-trailer")?.map(|name| name.trim().to_ascii_lowercase());
                let trailer = match (trailer, declared) {
                    (true, Some(name)) => TrailerUse::Declared(name),
                    (true, None) if signer.is_some() => {
                        return Err(Code::MalformedTrailerError.into());
                    }
                    (true, None) => TrailerUse::Undeclared,
                    (false, _) => TrailerUse::Never,
                };
                let decoded_len = len.ok_or(Code::MissingContentLength)?;
                Some(Framing {
                    decoded_len,
                    signer,
                    trailer,
                })
            }
        };
        Ok(Self {
            len,
            expected,
            framing,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn plan(pairs: &[(&'static str, &'static str)], payload: Payload) -> Result<Plan> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        Plan::parse(&headers, payload, Compat::Aws)
    }

    #[test]
    fn a_length_is_needed() {
        let unsigned_trailer = || Payload::Chunked {
            signer: None,
            trailer: true,
        };
        assert_eq!(
            plan(&[("content-length", "7")], Payload::Unsigned)
                .unwrap()
                .len,
            Some(7)
        );
        assert_eq!(
            plan(&[("x-amz-decoded-content-length", "7")], unsigned_trailer())
                .unwrap()
                .len,
            Some(7)
        );
        for (row, payload) in [
            (&[][..], Payload::Unsigned),
            (&[("transfer-encoding", "chunked")], Payload::Unsigned),
            (&[("content-length", "7")], unsigned_trailer()),
            (
                &[("x-amz-decoded-content-length", "-7")],
                unsigned_trailer(),
            ),
        ] {
            assert_eq!(
                plan(row, payload).unwrap_err().code(),
                Code::MissingContentLength
            );
        }
    }

    #[test]
    fn more_than_5_gib_is_too_large() {
        assert!(plan(&[("content-length", "5368709120")], Payload::Unsigned).is_ok());
        let error = plan(&[("content-length", "5368709121")], Payload::Unsigned).unwrap_err();
        assert_eq!(error.code(), Code::EntityTooLarge);
    }
}
