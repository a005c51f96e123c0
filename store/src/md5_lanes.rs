//! MD5 of eight streams in lockstep.
//!
//! MD5 is a chain in which each step waits for the one before, so a core that hashes one stream is
//! mostly idle. Here each step is done for eight streams at once, one in each 32-bit lane of the
//! AVX2 registers, which takes hardly longer than for one.
//!
//! Unsafe code is here to call what is compiled for AVX2, once it is known to be there.

use md5::block_api::compress;

use crate::md5_stream::{Block, Words};

/// Streams that are hashed at once.
pub(crate) const LANES: usize = 8;

/// The words of each stream.
pub(crate) type LaneWords = [Words; LANES];
/// Blocks of each stream, as many of each.
pub(crate) type LaneRuns<'a> = [&'a [Block]; LANES];

/// The right to hash in lanes: made only where the processor can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes(());

impl Lanes {
    /// `None` where hashing in lanes is no faster than one stream at a time.
    pub(crate) fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        let detected = is_x86_feature_detected!("avx2");
        #[cfg(not(target_arch = "x86_64"))]
        let detected = false;
        detected.then_some(Self(()))
    }

    /// Compresses a run of blocks into each stream's words; all runs have one length.
    pub(crate) fn compress(self, words: &mut LaneWords, runs: &LaneRuns<'_>) {
        // Without optimisation each vector instruction is a call. The `md-5` crate is optimised in
        // every profile.
        if cfg!(debug_assertions) {
            for (words, run) in words.iter_mut().zip(runs) {
                compress(words, run);
            }
        } else {
            self.compress_together(words, runs);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[expect(unsafe_code, reason = "the call of what is compiled for AVX2")]
    fn compress_together(self, words: &mut LaneWords, runs: &LaneRuns<'_>) {
        let Self(()) = self;
        // SAFETY: the processor has AVX2: `detect`, which alone makes a `Lanes`, has seen it.
        unsafe { avx2::compress(words, runs) }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn compress_together(self, _: &mut LaneWords, _: &LaneRuns<'_>) {
        let Self(()) = self;
        unreachable!("`detect` gives none here");
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm_cvtsi32_si128, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256,
        _mm256_extract_epi32, _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set1_epi32,
        _mm256_setr_epi32, _mm256_setr_epi64x, _mm256_setzero_si256, _mm256_sll_epi32,
        _mm256_srl_epi32, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32,
        _mm256_unpacklo_epi64, _mm256_xor_si256,
    };

    use super::{LANES, LaneRuns, LaneWords};
    use crate::md5_stream::Block;

    /// A word of each lane.
    type Word = __m256i;

    /// The integer part of 2^32 times |sin(i)|, i = 1 to 64 in radians (RFC 1321, section 3.4).
    pub(super) const SINES: [[u32; 16]; 4] = [
        [
            0xd76a_a478,
            0xe8c7_b756,
            0x2420_70db,
            0xc1bd_ceee,
            0xf57c_0faf,
            0x4787_c62a,
            0xa830_4613,
            0xfd46_9501,
            0x6980_98d8,
            0x8b44_f7af,
            0xffff_5bb1,
            0x895c_d7be,
            0x6b90_1122,
            0xfd98_7193,
            0xa679_438e,
            0x49b4_0821,
        ],
        [
            0xf61e_2562,
            0xc040_b340,
            0x265e_5a51,
            0xe9b6_c7aa,
            0xd62f_105d,
            0x0244_1453,
            0xd8a1_e681,
            0xe7d3_fbc8,
            0x21e1_cde6,
            0xc337_07d6,
            0xf4d5_0d87,
            0x455a_14ed,
            0xa9e3_e905,
            0xfcef_a3f8,
            0x676f_02d9,
            0x8d2a_4c8a,
        ],
        [
            0xfffa_3942,
            0x8771_f681,
            0x6d9d_6122,
            0xfde5_380c,
            0xa4be_ea44,
            0x4bde_cfa9,
            0xf6bb_4b60,
            0xbebf_bc70,
            0x289b_7ec6,
            0xeaa1_27fa,
            0xd4ef_3085,
            0x0488_1d05,
            0xd9d4_d039,
            0xe6db_99e5,
            0x1fa2_7cf8,
            0xc4ac_5665,
        ],
        [
            0xf429_2244,
            0x432a_ff97,
            0xab94_23a7,
            0xfc93_a039,
            0x655b_59c3,
            0x8f0c_cc92,
            0xffef_f47d,
            0x8584_5dd1,
            0x6fa8_7e4f,
            0xfe2c_e6e0,
            0xa301_4314,
            0x4e08_11a1,
            0xf753_7e82,
            0xbd3a_f235,
            0x2ad7_d2bb,
            0xeb86_d391,
        ],
    ];
    /// How far the steps of a round rotate, in bits; the same four again and again.
    const ROTATIONS: [[i32; 4]; 4] = [
        [7, 12, 17, 22],
        [5, 9, 14, 20],
        [4, 11, 16, 23],
        [6, 10, 15, 21],
    ];
    /// The word of the block that a round begins with, and how far it is to the next.
    const ORDERS: [(usize, usize); 4] = [(0, 1), (1, 5), (5, 3), (0, 7)];

    /// F, G, H or I, by the number of the round from 0.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn mix<const ROUND: usize>(x: Word, y: Word, z: Word) -> Word {
        match ROUND {
            0 => _mm256_xor_si256(z, _mm256_and_si256(x, _mm256_xor_si256(y, z))),
            1 => _mm256_or_si256(_mm256_and_si256(x, z), _mm256_andnot_si256(z, y)),
            2 => _mm256_xor_si256(x, _mm256_xor_si256(y, z)),
            _ => {
                let not_z = _mm256_xor_si256(z, _mm256_set1_epi32(-1));
                _mm256_xor_si256(y, _mm256_or_si256(x, not_z))
            }
        }
    }

    /// The four steps of a round from `step` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn steps<const ROUND: usize>(state: [Word; 4], block: &[Word; 16], step: usize) -> [Word; 4] {
        let [mut a, mut b, mut c, mut d] = state;
        for (at, bits) in ROTATIONS[ROUND].into_iter().enumerate() {
            let (first, stride) = ORDERS[ROUND];
            let word = block[(first + stride * (step + at)) % 16];
            let sine = _mm256_set1_epi32(SINES[ROUND][step + at].cast_signed());
            // What does not wait for the step before is added up first.
            let ready = _mm256_add_epi32(a, _mm256_add_epi32(word, sine));
            let sum = _mm256_add_epi32(mix::<ROUND>(b, c, d), ready);
            let high = _mm256_sll_epi32(sum, _mm_cvtsi32_si128(bits));
            let low = _mm256_srl_epi32(sum, _mm_cvtsi32_si128(32 - bits));
            let new = _mm256_add_epi32(_mm256_or_si256(high, low), b);
            (a, d, c, b) = (d, c, b, new);
        }
        [a, b, c, d]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn round<const ROUND: usize>(mut state: [Word; 4], block: &[Word; 16]) -> [Word; 4] {
        for step in [0, 4, 8, 12] {
            state = steps::<ROUND>(state, block, step);
        }
        state
    }

    /// Turns eight words of each lane into eight words across the lanes.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose(rows: [Word; 8]) -> [Word; 8] {
        let low = |i| _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        let high = |i| _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
        let pairs = [
            (low(0), low(2)),
            (high(0), high(2)),
            (low(4), low(6)),
            (high(4), high(6)),
        ];
        let even = pairs.map(|(first, second)| _mm256_unpacklo_epi64(first, second));
        let odd = pairs.map(|(first, second)| _mm256_unpackhi_epi64(first, second));
        let quads = [
            (even[0], even[2]),
            (odd[0], odd[2]),
            (even[1], even[3]),
            (odd[1], odd[3]),
        ];
        let first = quads.map(|(low, high)| _mm256_permute2x128_si256::<0x20>(low, high));
        let second = quads.map(|(low, high)| _mm256_permute2x128_si256::<0x31>(low, high));
        [
            first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3],
        ]
    }

    /// One half of a block of each lane, `half` 0 or 1.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(blocks: [&Block; LANES], half: usize) -> [Word; 8] {
        transpose(blocks.map(|block| {
            let (longs, _) = block.as_chunks::<8>();
            let long = |i: usize| i64::from_le_bytes(longs[4 * half + i]);
            _mm256_setr_epi64x(long(0), long(1), long(2), long(3))
        }))
    }

    /// Compresses a run of blocks into each stream's words; all runs have one length.
    #[target_feature(enable = "avx2")]
    pub(super) fn compress(words: &mut LaneWords, runs: &LaneRuns<'_>) {
        let count = runs[0].len();
        let runs = runs.map(|run| &run[..count]);
        let mut state = [_mm256_setzero_si256(); 4];
        for (i, word) in state.iter_mut().enumerate() {
            let lane = |lane: usize| words[lane][i].cast_signed();
            *word = _mm256_setr_epi32(
                lane(0),
                lane(1),
                lane(2),
                lane(3),
                lane(4),
                lane(5),
                lane(6),
                lane(7),
            );
        }
        for at in 0..count {
            let blocks = runs.map(|run| &run[at]);
            let (low, high) = (load(blocks, 0), load(blocks, 1));
            let mut block = [_mm256_setzero_si256(); 16];
            block[..8].copy_from_slice(&low);
            block[8..].copy_from_slice(&high);
            let mut new = round::<0>(state, &block);
            new = round::<1>(new, &block);
            new = round::<2>(new, &block);
            new = round::<3>(new, &block);
            for (word, new) in state.iter_mut().zip(new) {
                *word = _mm256_add_epi32(*word, new);
            }
        }
        for (i, word) in state.into_iter().enumerate() {
            let lanes = [
                _mm256_extract_epi32::<0>(word),
                _mm256_extract_epi32::<1>(word),
                _mm256_extract_epi32::<2>(word),
                _mm256_extract_epi32::<3>(word),
                _mm256_extract_epi32::<4>(word),
                _mm256_extract_epi32::<5>(word),
                _mm256_extract_epi32::<6>(word),
                _mm256_extract_epi32::<7>(word),
            ];
            for (words, lane) in words.iter_mut().zip(lanes) {
                words[i] = lane.cast_unsigned();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::array;

    use proptest::prelude::*;

    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the integer part of a number of 32 bits, none of them a sign"
    )]
    fn the_table_has_the_sines() {
        for (i, sine) in (1_u32..).zip(avx2::SINES.into_iter().flatten()) {
            assert_eq!(sine, (f64::from(i).sin().abs() * 2_f64.powi(32)) as u32);
        }
    }

    proptest! {
        #[test]
        fn lanes_do_not_touch_each_other(
            words in prop::array::uniform8(prop::array::uniform4(any::<u32>())),
            count in 0_usize..5,
            bytes in prop::collection::vec(any::<u8>(), 64 * 4 * LANES),
        ) {
            let Some(lanes) = Lanes::detect() else {
                return Ok(());
            };
            let (blocks, _) = bytes.as_chunks();
            let runs: LaneRuns<'_> = array::from_fn(|lane| &blocks[4 * lane..][..count]);
            let mut expected = words;
            for (words, run) in expected.iter_mut().zip(&runs) {
                compress(words, run);
            }
            let mut together = words;
            lanes.compress_together(&mut together, &runs);
            prop_assert_eq!(together, expected);
            let mut chosen = words;
            lanes.compress(&mut chosen, &runs);
            prop_assert_eq!(chosen, expected);
        }
    }
}
