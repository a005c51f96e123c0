//! MD5 of several streams in lockstep.
//!
//! MD5 is a chain in which each step waits for the one before, so a core that hashes one stream is
//! mostly idle. Here each step is done for several streams at once, one in each 32-bit lane of the
//! vector registers, which takes hardly longer than for one: eight lanes with AVX2, sixteen with
//! AVX-512. The latter hashes even one stream faster in a lane than without, as it rotates in one
//! instruction and computes F, G, H and I in one.
//!
//! Unsafe code is here, and below, to call what is compiled for instructions, once they are known
//! to be there.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod kernel;

use std::{array, slice};

use md5::block_api;

use crate::md5_stream::{Block, Words};

/// Streams that are hashed at once, at most.
#[cfg(test)]
pub(crate) const LANES_MAX: usize = 16;

/// The right to hash in lanes: made only where the processor can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes(Set);

/// The instructions that are used.
#[derive(Clone, Copy, Debug)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Lanes {
    /// `None` where hashing in lanes is no faster than one stream at a time.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn detect() -> Option<Self> {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            Some(Self(Set::Avx512))
        } else {
            is_x86_feature_detected!("avx2").then_some(Self(Set::Avx2))
        }
    }

    /// `None`: hashing in lanes is no faster than one stream at a time.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn detect() -> Option<Self> {
        None
    }

    /// Streams that can be hashed at once.
    pub(crate) fn count(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => avx2::LANES,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => avx512::x16::LANES,
        }
    }

    /// Compresses a run of blocks into each stream's words; all runs have one length, and there are
    /// at most as many as lanes.
    pub(crate) fn compress(self, words: &mut [Words], runs: &[&[Block]]) {
        // Without optimisation each vector instruction is a call. The `md-5` crate is optimised in
        // every profile.
        if cfg!(debug_assertions) {
            compress_singly(words, runs);
        } else {
            self.compress_together(words, runs);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the calls of what is compiled for instructions")]
    fn compress_together(self, words: &mut [Words], runs: &[&[Block]]) {
        match (self.0, words.len()) {
            (Set::Avx2, 0..=1) => compress_singly(words, runs),
            (Set::Avx2, _) => in_lanes(words, runs, |words, runs| {
                // SAFETY: the processor has AVX2, as `detect`, which alone makes this, has seen.
                unsafe { avx2::compress(words, runs) }
            }),
            (Set::Avx512, 0..=4) => in_lanes(words, runs, |words, runs| {
                // SAFETY: the processor has AVX-512 F and VL; see above.
                unsafe { avx512::x4::compress(words, runs) }
            }),
            (Set::Avx512, 5..=8) => in_lanes(words, runs, |words, runs| {
                // SAFETY: the processor has AVX-512 F and VL; see above.
                unsafe { avx512::x8::compress(words, runs) }
            }),
            (Set::Avx512, _) => in_lanes(words, runs, |words, runs| {
                // SAFETY: the processor has AVX-512 F and VL; see above.
                unsafe { avx512::x16::compress(words, runs) }
            }),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn compress_together(self, _: &mut [Words], _: &[&[Block]]) {
        match self.0 {}
    }
}

/// Compresses a run of blocks into the words of one stream, by what is fastest for one.
pub(crate) fn compress_alone(words: &mut Words, run: &[Block]) {
    match Lanes::detect() {
        Some(lanes) => lanes.compress(slice::from_mut(words), &[run]),
        None => block_api::compress(words, run),
    }
}

/// Compresses a run of blocks into each stream's words, one stream after the other.
fn compress_singly(words: &mut [Words], runs: &[&[Block]]) {
    for (words, run) in words.iter_mut().zip(runs) {
        block_api::compress(words, run);
    }
}

/// Gives each stream a lane. A lane without a stream does again what the first one does, for
/// nobody.
fn in_lanes<const N: usize>(
    words: &mut [Words],
    runs: &[&[Block]],
    compress: impl FnOnce(&mut [Words; N], &[&[Block]; N]),
) {
    if words.is_empty() {
        return;
    }
    assert!(words.len() <= N, "a stream has no lane");
    let mut lanes: [Words; N] = array::from_fn(|i| *words.get(i).unwrap_or(&words[0]));
    compress(
        &mut lanes,
        &array::from_fn(|i| *runs.get(i).unwrap_or(&runs[0])),
    );
    words.copy_from_slice(&lanes[..words.len()]);
}

#[cfg(test)]
mod tests;
