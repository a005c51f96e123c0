//! MD5 of one stream of bytes that comes in pieces.
//!
//! The state is open, unlike a hasher's of the `md-5` crate, so that several streams can be put
//! side by side ([`crate::md5_lanes`]).
//! RFC 1321: <https://www.rfc-editor.org/rfc/rfc1321>.
//!
//! # Invariants
//! 1. Between calls the carry holds fewer than [`BLOCK_LEN`] bytes, but between [`Md5Stream::fill`]
//!    and [`Md5Stream::advance`], where it may be a whole block.

use bytes::{Buf, Bytes};

use crate::md5_lanes::compress_alone;

/// Bytes of a block.
pub(crate) const BLOCK_LEN: usize = 64;
/// What the compression function takes at a time.
pub(crate) type Block = [u8; BLOCK_LEN];
/// The four words A, B, C and D.
pub(crate) type Words = [u32; 4];

/// The words before the first block (RFC 1321, section 3.3).
pub(crate) const WORDS_FIRST: Words = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// Where in the last block the length begins.
const LEN_AT: usize = BLOCK_LEN - 8;

/// The MD5 of the bytes taken so far.
#[derive(Clone, Debug)]
pub(crate) struct Md5Stream {
    pub(crate) words: Words,
    /// Bytes compressed into `words`.
    len: u64,
    /// Bytes that do not make a block yet.
    carry: Block,
    carry_len: usize,
}

impl Md5Stream {
    /// Starts with no bytes seen.
    pub(crate) fn new() -> Self {
        Self {
            words: WORDS_FIRST,
            len: 0,
            carry: [0; BLOCK_LEN],
            carry_len: 0,
        }
    }

    /// Makes the next blocks ready; false if `piece` is used up and there are none.
    pub(crate) fn fill(&mut self, piece: &mut impl Buf) -> bool {
        if self.carry_len == 0 && piece.remaining() >= BLOCK_LEN {
            return true;
        }
        let taken = piece.remaining().min(BLOCK_LEN - self.carry_len);
        piece.copy_to_slice(&mut self.carry[self.carry_len..][..taken]);
        self.carry_len += taken;
        self.carry_len == BLOCK_LEN
    }

    /// The blocks that are ready: out of the carry, or else the whole ones of `piece`.
    pub(crate) fn blocks<'a>(&'a self, piece: &'a [u8]) -> &'a [Block] {
        if self.carry_len == BLOCK_LEN {
            std::slice::from_ref(&self.carry)
        } else {
            piece.as_chunks().0
        }
    }

    /// Goes past `count` of the blocks that were ready: `words` has them.
    pub(crate) fn advance(&mut self, piece: &mut impl Buf, count: usize) {
        self.len += (count * BLOCK_LEN) as u64;
        if self.carry_len == BLOCK_LEN {
            self.carry_len = 0;
        } else {
            piece.advance(count * BLOCK_LEN);
        }
    }

    /// Compresses at most `count_max` of the blocks that are ready, alone.
    pub(crate) fn compress(&mut self, piece: &mut (impl Buf + AsRef<[u8]>), count_max: usize) {
        let mut words = self.words;
        let blocks = self.blocks(piece.as_ref());
        let count = blocks.len().min(count_max);
        compress_alone(&mut words, &blocks[..count]);
        self.words = words;
        self.advance(piece, count);
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while self.fill(&mut bytes) {
            self.compress(&mut bytes, usize::MAX);
        }
    }

    /// Takes the next pieces.
    pub(crate) fn update_all(&mut self, pieces: &[Bytes]) {
        for piece in pieces {
            self.update(piece);
        }
    }

    /// The digest of all bytes taken (RFC 1321, sections 3.1, 3.2 and 3.5).
    pub(crate) fn finish(mut self) -> [u8; 16] {
        let bits = (self.len + self.carry_len as u64).wrapping_mul(8);
        self.carry[self.carry_len] = 0x80;
        self.carry[self.carry_len + 1..].fill(0);
        if self.carry_len >= LEN_AT {
            compress_alone(&mut self.words, &[self.carry]);
            self.carry.fill(0);
        }
        self.carry[LEN_AT..].copy_from_slice(&bits.to_le_bytes());
        compress_alone(&mut self.words, &[self.carry]);
        let mut digest = [0; 16];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        digest
    }
}

#[cfg(test)]
mod tests {
    use md5::{Digest as _, Md5};
    use proptest::prelude::*;

    use super::*;

    fn hex_of(bytes: &[u8]) -> String {
        let mut stream = Md5Stream::new();
        stream.update(bytes);
        hex::encode(stream.finish())
    }

    /// RFC 1321, appendix A.5.
    #[test]
    fn the_test_suite_of_the_rfc_holds() {
        let suite: [(&str, &str); 7] = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            (
                "abcdefghijklmnopqrstuvwxyz",
                "c3fcd3d76192e4007dfb496cca67e13b",
            ),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "d174ab98d277d9f5a5611c2c9f419d9f",
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ];
        for (text, digest) in suite {
            assert_eq!(hex_of(text.as_bytes()), digest, "{text:?}");
        }
    }

    #[test]
    fn every_length_around_the_padding_is_right() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 0..=bytes.len() {
            let expected = hex::encode(Md5::digest(&bytes[..len]));
            assert_eq!(hex_of(&bytes[..len]), expected, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_make_the_digest_of_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12)
        ) {
            let mut stream = Md5Stream::new();
            for piece in &pieces {
                stream.update(piece);
            }
            let expected: [u8; 16] = Md5::digest(pieces.concat()).into();
            prop_assert_eq!(stream.finish(), expected);
        }
    }
}
