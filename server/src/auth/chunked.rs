//! `aws-chunked` bodies: signed, signed with a trailer, unsigned with a trailer.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>. The decoder takes the
//! body as it comes and gives back slices of it without copying. Bytes of a chunk are given out
//! before its signature is checked; nothing is published unless [`ChunkDecoder::finish`] succeeds.
//!
//! # Invariants
//! 1. No more bytes come out than `x-amz-decoded-content-length` says.
//! 2. A line that the decoder keeps is at most [`LINE_MAX`] bytes.

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};

use crate::auth::key::{SigningKey, same_signature};
use crate::error::{Code, Result, S3Error};

/// Longest chunk header or trailer line, in bytes.
const LINE_MAX: usize = 1024;
/// Smallest chunk that may be followed by another one with data, in bytes.
const CHUNK_SIZE_MIN: u64 = 8192;
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What signs the chunks of one body: each signature covers the one before.
#[derive(Debug)]
pub(crate) struct ChunkSigner {
    key: SigningKey,
    /// `\n<amz-date>\n<scope>\n`, the middle of every string to sign.
    middle: String,
    previous: [u8; 32],
}

impl ChunkSigner {
    /// Starts from the signature of the request itself.
    pub(crate) fn new(key: SigningKey, amz_date: &str, scope: &str, seed: [u8; 32]) -> Self {
        Self {
            key,
            middle: format!("\n{amz_date}\n{scope}\n"),
            previous: seed,
        }
    }

    fn check(&mut self, kind: &str, rest: &str, given: &str) -> Result<()> {
        let string_to_sign = format!(
            "{kind}{}{}\n{rest}",
            self.middle,
            hex::encode(self.previous)
        );
        let signature = self.key.sign(string_to_sign.as_bytes());
        if !same_signature(&signature, given) {
            return Err(Code::SignatureDoesNotMatch.into());
        }
        self.previous = signature;
        Ok(())
    }

    fn check_chunk(&mut self, hash: Sha256, given: &str) -> Result<()> {
        let rest = format!("{EMPTY_SHA256}\n{}", hex::encode(hash.finalize()));
        self.check("AWS4-HMAC-SHA256-PAYLOAD", &rest, given)
    }

    fn check_trailer(&mut self, name: &str, value: &str, given: &str) -> Result<()> {
        let hash = hex::encode(Sha256::digest(format!("{name}:{value}\n")));
        self.check("AWS4-HMAC-SHA256-TRAILER", &hash, given)
    }
}

/// How a body is framed.
#[derive(Debug)]
pub(crate) struct Framing {
    /// `x-amz-decoded-content-length`.
    pub(crate) decoded_len: u64,
    /// Signs the chunks; none in the unsigned form.
    pub(crate) signer: Option<ChunkSigner>,
    /// Whether a trailer may follow the last chunk.
    pub(crate) trailer: TrailerUse,
}

/// Whether a trailer follows the last chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrailerUse {
    /// The form has none.
    Never,
    /// The form could have one, and none is declared.
    Undeclared,
    /// `x-amz-trailer` declares this one, in lower case.
    Declared(String),
}

#[derive(Debug)]
enum State {
    /// Reading `size[;chunk-signature=…]`.
    Head,
    /// Inside a chunk's data.
    Data { left: u64 },
    /// Reading the CRLF after a chunk's data.
    DataEnd,
    /// Reading trailer lines, up to the empty one.
    Trailer,
    /// Nothing may follow.
    Done,
}

/// Takes a framed body apart.
#[derive(Debug)]
pub(crate) struct ChunkDecoder {
    framing: Framing,
    state: State,
    line: Vec<u8>,
    given_out: u64,
    chunk_index: u64,
    small_chunk: Option<u64>,
    hash: Sha256,
    chunk_signature: String,
    trailer: Option<(String, String)>,
    trailer_signature: Option<String>,
}

fn incomplete(message: &'static str) -> S3Error {
    S3Error::with(Code::IncompleteBody, message)
}

impl ChunkDecoder {
    /// Stands before the first chunk.
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            framing,
            state: State::Head,
            line: Vec::new(),
            given_out: 0,
            chunk_index: 0,
            small_chunk: None,
            hash: Sha256::new(),
            chunk_signature: String::new(),
            trailer: None,
            trailer_signature: None,
        }
    }

    /// The next piece of data in `input`, or `None` when all of it is used up.
    ///
    /// # Errors
    /// `IncompleteBody` for broken framing, `SignatureDoesNotMatch`, `InvalidChunkSizeError`,
    /// `MalformedTrailerError`.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>> {
        while !input.is_empty() {
            match self.state {
                State::Head => {
                    if self.take_line(input)? {
                        self.start_chunk()?;
                    }
                }
                State::Data { left } => return self.take_data(input, left).map(Some),
                State::DataEnd => {
                    if self.take_line(input)? {
                        if !self.line.is_empty() {
                            return Err(incomplete("A chunk is longer than its header says."));
                        }
                        self.state = State::Head;
                    }
                }
                State::Trailer => {
                    if self.take_line(input)? {
                        self.trailer_line()?;
                    }
                }
                State::Done => return Err(incomplete("Bytes follow the last chunk.")),
            }
        }
        Ok(None)
    }

    /// The trailer's name and value, once the body is at its end.
    ///
    /// # Errors
    /// `IncompleteBody` if the end came too early or the length is not the declared one.
    pub(crate) fn finish(self) -> Result<Option<(String, String)>> {
        if !matches!(self.state, State::Done) {
            return Err(incomplete("The body ended before its last chunk."));
        }
        if self.given_out != self.framing.decoded_len {
            return Err(S3Error::new(Code::IncompleteBody)
                .field("NumberBytesExpected", self.framing.decoded_len.to_string())
                .field("NumberBytesProvided", self.given_out.to_string()));
        }
        Ok(self.trailer)
    }

    /// Collects a line without its CRLF into `self.line`; `true` when it is whole. Who uses a whole
    /// line leaves `self.line` empty.
    fn take_line(&mut self, input: &mut Bytes) -> Result<bool> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let take = end.map_or(input.len(), |at| at + 1);
        if self.line.len() + take > LINE_MAX {
            return Err(incomplete("A chunk header is too long."));
        }
        self.line.extend_from_slice(&input[..take]);
        input.advance(take);
        if end.is_none() {
            return Ok(false);
        }
        if !self.line.ends_with(b"\r\n") {
            return Err(incomplete("A line does not end in CR LF."));
        }
        self.line.truncate(self.line.len() - 2);
        Ok(true)
    }

    fn start_chunk(&mut self) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        let text =
            std::str::from_utf8(&line).map_err(|_| incomplete("A chunk header is no text."))?;
        let (size, extension) = text.split_once(';').unwrap_or((text, ""));
        let hexadecimal = !size.is_empty() && size.bytes().all(|b| b.is_ascii_hexdigit());
        let size = hexadecimal
            .then(|| u64::from_str_radix(size, 16).ok())
            .flatten()
            .ok_or_else(|| incomplete("A chunk's size is no hexadecimal number."))?;
        if self.framing.signer.is_some() {
            extension
                .strip_prefix("chunk-signature=")
                .ok_or_else(|| incomplete("A chunk has no signature."))?
                .clone_into(&mut self.chunk_signature);
        }
        if size > self.framing.decoded_len - self.given_out {
            return Err(incomplete(
                "The chunks are longer than the declared length.",
            ));
        }
        if size > 0
            && let Some(bad) = self.small_chunk
        {
            return Err(S3Error::new(Code::InvalidChunkSizeError)
                .field("Chunk", self.chunk_index.to_string())
                .field("BadChunkSize", bad.to_string()));
        }
        if size > 0 {
            self.chunk_index += 1;
            self.small_chunk = (size < CHUNK_SIZE_MIN).then_some(size);
            self.state = State::Data { left: size };
            return Ok(());
        }
        self.check_chunk()?;
        self.state = State::Trailer;
        Ok(())
    }

    fn take_data(&mut self, input: &mut Bytes, left: u64) -> Result<Bytes> {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let data = input.split_to(take);
        let len = u64::try_from(take).expect("a length fits");
        self.given_out += len;
        if self.framing.signer.is_some() {
            self.hash.update(&data);
        }
        if len == left {
            self.check_chunk()?;
            self.state = State::DataEnd;
        } else {
            self.state = State::Data { left: left - len };
        }
        Ok(data)
    }

    fn check_chunk(&mut self) -> Result<()> {
        if let Some(signer) = &mut self.framing.signer {
            signer.check_chunk(std::mem::take(&mut self.hash), &self.chunk_signature)?;
        }
        Ok(())
    }

    fn trailer_line(&mut self) -> Result<()> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.end();
        }
        let malformed = || S3Error::new(Code::MalformedTrailerError);
        let text = std::str::from_utf8(&line).map_err(|_| malformed())?;
        let (name, value) = text.split_once(':').ok_or_else(malformed)?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().to_owned());
        if name == "x-amz-trailer-signature" && self.framing.signer.is_some() {
            let twice = self.trailer_signature.replace(value).is_some();
            return if twice || self.trailer.is_none() {
                Err(malformed())
            } else {
                Ok(())
            };
        }
        match &self.framing.trailer {
            TrailerUse::Declared(declared)
                if *declared == name
                    && self.trailer.is_none()
                    && self.trailer_signature.is_none() =>
            {
                self.trailer = Some((name, value));
                Ok(())
            }
            _ => Err(malformed()),
        }
    }

    fn end(&mut self) -> Result<()> {
        let expected = matches!(self.framing.trailer, TrailerUse::Declared(_));
        if expected != self.trailer.is_some() {
            return Err(Code::MalformedTrailerError.into());
        }
        if let (Some(signer), Some((name, value))) = (&mut self.framing.signer, &self.trailer) {
            let given = self
                .trailer_signature
                .as_deref()
                .ok_or(Code::MalformedTrailerError)?;
            signer.check_trailer(name, value, given)?;
        }
        self.state = State::Done;
        Ok(())
    }
}

#[cfg(test)]
#[path = "chunked/tests.rs"]
mod tests;
