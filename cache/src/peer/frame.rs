//! What a node answers a peer that asks for bytes: frames.
//!
//! ```text
//! size  field
//!    1  kind   0: nothing yet, 1: bytes, 2: the end before all bytes have come
//!    4  len    of the bytes; 0 for the other kinds
//!  len  bytes  what follows the frame before, from the first byte that was asked for on
//!    8  crc    CRC-64/NVME of the bytes; only where there are some
//! ```
//!
//! All integers are little-endian. A node that waits for the origin says so every [`WAIT_EVERY`],
//! so that one that hangs is told from one that is patient.
//!
//! # Invariants
//! 1. No byte of a frame leaves the [`Decoder`] before its CRC was found right.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use forebay_store::digest::{crc64, crc64_combine};

/// How often a node that waits says so.
pub const WAIT_EVERY: Duration = Duration::from_millis(200);
/// Most bytes in a frame: what is held back until its CRC is there.
pub const FRAME_LEN_MAX: usize = 256 << 10;

const HEAD_LEN: usize = 5;
const CRC_LEN: usize = 8;
const WAIT: u8 = 0;
const BYTES: u8 = 1;
const GIVES_UP: u8 = 2;

/// Nothing yet.
pub fn wait() -> Bytes {
    head(WAIT, 0)
}

/// No more bytes are coming, though some are missing.
pub fn gives_up() -> Bytes {
    head(GIVES_UP, 0)
}

/// A frame with bytes, in three pieces of which the middle one is `bytes` themselves.
///
/// # Panics
/// If they are more than [`FRAME_LEN_MAX`], or none.
pub fn of_bytes(bytes: Bytes) -> [Bytes; 3] {
    assert!(!bytes.is_empty(), "a frame has bytes");
    assert!(bytes.len() <= FRAME_LEN_MAX, "a frame fits");
    let crc = Bytes::copy_from_slice(&crc64(&bytes).to_le_bytes());
    [head(BYTES, bytes.len()), bytes, crc]
}

fn head(kind: u8, len: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(HEAD_LEN);
    head.put_u8(kind);
    head.put_u32_le(u32::try_from(len).expect("a frame's length fits"));
    head.freeze()
}

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Nothing yet.
    Wait,
    /// Bytes whose CRC is right, in pieces.
    Bytes(VecDeque<Bytes>),
    /// There won't be more.
    GivesUp,
}

/// Why what came is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of kind {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes")]
    Length(u32),
    #[error("a frame's CRC is wrong")]
    Crc,
}

/// Where in a frame the next byte belongs.
#[derive(Debug)]
enum Stage {
    /// Head or CRC is gathered in `gathered`.
    Head,
    Bytes {
        left: usize,
    },
    Crc,
}

/// Takes frames out of pieces of any size.
#[derive(Debug)]
pub(super) struct Decoder {
    stage: Stage,
    gathered: BytesMut,
    pieces: VecDeque<Bytes>,
    crc: u64,
}

impl Decoder {
    /// Before the first frame.
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Head,
            gathered: BytesMut::with_capacity(CRC_LEN),
            pieces: VecDeque::new(),
            crc: 0,
        }
    }

    /// The next frame that ends within `piece`, which is taken up to there; `None` if it is used
    /// up before.
    ///
    /// # Errors
    /// [`FrameError`]; nothing that comes after it means anything.
    pub(super) fn next(&mut self, piece: &mut Bytes) -> Result<Option<Frame>, FrameError> {
        while !piece.is_empty() {
            match &mut self.stage {
                Stage::Head => {
                    if !self.gather(piece, HEAD_LEN) {
                        break;
                    }
                    let (kind, len) = (self.gathered.get_u8(), self.gathered.get_u32_le());
                    match (kind, len as usize) {
                        (WAIT, 0) => return Ok(Some(Frame::Wait)),
                        (GIVES_UP, 0) => return Ok(Some(Frame::GivesUp)),
                        (BYTES, 1..=FRAME_LEN_MAX) => {
                            self.stage = Stage::Bytes { left: len as usize };
                            self.crc = 0;
                        }
                        (WAIT | BYTES | GIVES_UP, _) => return Err(FrameError::Length(len)),
                        _ => return Err(FrameError::Kind(kind)),
                    }
                }
                Stage::Bytes { left } => {
                    let bytes = piece.split_to(piece.len().min(*left));
                    *left -= bytes.len();
                    // Of no bytes it is 0, and 0 before some changes nothing.
                    self.crc = crc64_combine(self.crc, crc64(&bytes), bytes.len() as u64);
                    self.pieces.push_back(bytes);
                    if *left == 0 {
                        self.stage = Stage::Crc;
                    }
                }
                Stage::Crc => {
                    if !self.gather(piece, CRC_LEN) {
                        break;
                    }
                    if self.gathered.get_u64_le() != self.crc {
                        return Err(FrameError::Crc);
                    }
                    self.stage = Stage::Head;
                    return Ok(Some(Frame::Bytes(std::mem::take(&mut self.pieces))));
                }
            }
        }
        Ok(None)
    }

    /// Gathers up to `len` bytes; whether they are all there.
    fn gather(&mut self, piece: &mut Bytes, len: usize) -> bool {
        let missing = len - self.gathered.len();
        let taken = piece.split_to(piece.len().min(missing));
        self.gathered.extend_from_slice(&taken);
        self.gathered.len() == len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frames: &[&[Bytes]]) -> Vec<u8> {
        frames.iter().flat_map(|frame| frame.concat()).collect()
    }

    fn decoded(text: &[u8], cut: usize) -> Result<Vec<(u8, Vec<u8>)>, FrameError> {
        let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
        for piece in text.chunks(cut) {
            let mut piece = Bytes::copy_from_slice(piece);
            while let Some(frame) = decoder.next(&mut piece)? {
                frames.push(match frame {
                    Frame::Wait => (WAIT, Vec::new()),
                    Frame::GivesUp => (GIVES_UP, Vec::new()),
                    Frame::Bytes(pieces) => {
                        (BYTES, pieces.into_iter().flatten().collect::<Vec<u8>>())
                    }
                });
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let small = Bytes::from_static(b"123456789");
        for (cut, len) in [
            (1, 300),
            (2, 300),
            (5, 3000),
            (13, 3000),
            (14, 3000),
            (4096, FRAME_LEN_MAX),
            (usize::MAX, FRAME_LEN_MAX),
        ] {
            let large = Bytes::from(vec![7; len]);
            let text = written(&[
                &[wait()],
                &of_bytes(small.clone()),
                &of_bytes(large.clone()),
                &[wait()],
                &[gives_up()],
            ]);
            let frames = decoded(&text, cut).unwrap();
            let kinds: Vec<u8> = frames.iter().map(|frame| frame.0).collect();
            assert_eq!(kinds, [WAIT, BYTES, BYTES, WAIT, GIVES_UP], "{cut}");
            assert!(frames[1].1 == small && frames[2].1 == large, "{cut}");
        }
    }

    #[test]
    fn no_bit_of_a_frame_can_be_changed_unnoticed() {
        let text = written(&[&of_bytes(Bytes::from_static(b"some bytes"))]);
        let good = decoded(&text, 3).unwrap();
        assert_eq!(good.len(), 1);
        for bit in 0..text.len() * 8 {
            let mut changed = text.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // Another kind, another length, or a wrong CRC: never other bytes.
            match decoded(&changed, 7) {
                Err(_) => {}
                Ok(frames) => assert!(frames.iter().all(|frame| frame.0 != BYTES), "bit {bit}"),
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(decoded(b"HTTP/", 5), Err(FrameError::Kind(b'H')));
        assert_eq!(decoded(&[BYTES, 0, 0, 0, 0], 5), Err(FrameError::Length(0)));
        let long = u32::try_from(FRAME_LEN_MAX).unwrap() + 1;
        let head = [&[BYTES][..], &long.to_le_bytes()].concat();
        assert_eq!(decoded(&head, 5), Err(FrameError::Length(long)));
        assert_eq!(decoded(&[WAIT, 1, 0, 0, 0], 5), Err(FrameError::Length(1)));
    }

    /// By another implementation: CRC-64/NVME of `123456789` is its check value.
    #[test]
    fn a_frame_is_what_is_specified() {
        let frame = of_bytes(Bytes::from_static(b"123456789")).concat();
        let expected = [
            &[1, 9, 0, 0, 0][..],
            b"123456789",
            &0xae8b_1486_0a79_9888_u64.to_le_bytes(),
        ];
        assert_eq!(frame, expected.concat());
    }
}
