//! The algorithm that every width of lanes shares (RFC 1321, section 3.4), and its tables.
//!
//! A vector is a row of groups of four lanes, 128 bits each. Sixteen bytes of each stream are
//! loaded so that a group holds a quarter of one stream's block, and four such vectors are turned
//! by 90 degrees within their groups: then each holds one word of the block for all lanes. The
//! words A to D of a stream are sixteen bytes too, and come and go the same way.

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
pub(super) const ROTATIONS: [[u32; 4]; 4] = [
    [7, 12, 17, 22],
    [5, 9, 14, 20],
    [4, 11, 16, 23],
    [6, 10, 15, 21],
];
/// The word of the block that a round begins with, and how far it is to the next.
pub(super) const ORDERS: [(usize, usize); 4] = [(0, 1), (1, 5), (5, 3), (0, 7)];

/// Defines `compress` for a module that has the instructions: `LANES`, `GROUPS`, `Word`, and
/// the functions `splat`, `add`, `fixed`, `rotate`, `mix`, `turn`,
/// `join` and `split`.
macro_rules! kernel {
    ($features:literal) => {
        /// Sixteen bytes of one stream.
        #[inline]
        #[target_feature(enable = $features)]
        fn quarter(bytes: &[u8; 16]) -> __m128i {
            let (longs, _) = bytes.as_chunks::<8>();
            _mm_set_epi64x(i64::from_le_bytes(longs[1]), i64::from_le_bytes(longs[0]))
        }

        /// Four words of each lane, one to a vector.
        #[inline]
        #[target_feature(enable = $features)]
        fn load(quarters: &[__m128i; LANES]) -> [Word; 4] {
            let mut rows = [splat(0); 4];
            for (i, row) in rows.iter_mut().enumerate() {
                let mut groups = [quarters[i]; GROUPS];
                for (group, quarters) in groups.iter_mut().zip(quarters.as_chunks::<4>().0) {
                    *group = quarters[i];
                }
                *row = join(groups);
            }
            turn(rows)
        }

        /// The four steps of a round from `step` on.
        #[inline]
        #[target_feature(enable = $features)]
        fn steps<const ROUND: usize>(
            state: [Word; 4],
            block: &[Word; 16],
            step: usize,
        ) -> [Word; 4] {
            let [mut a, mut b, mut c, mut d] = state;
            for (at, bits) in ROTATIONS[ROUND].into_iter().enumerate() {
                let (first, stride) = ORDERS[ROUND];
                let word = block[(first + stride * (step + at)) % 16];
                let sine = splat(SINES[ROUND][step + at]);
                // What does not wait for the step before is added up first, and stays so: the
                // compiler would add it to what does wait, term by term.
                let ready = fixed(add(a, add(word, sine)));
                let new = add(rotate(add(mix::<ROUND>(b, c, d), ready), bits), b);
                (a, d, c, b) = (d, c, b, new);
            }
            [a, b, c, d]
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn round<const ROUND: usize>(mut state: [Word; 4], block: &[Word; 16]) -> [Word; 4] {
            for step in [0, 4, 8, 12] {
                state = steps::<ROUND>(state, block, step);
            }
            state
        }

        /// Compresses a run of blocks into each stream's words; all runs have one length.
        #[target_feature(enable = $features)]
        pub(in crate::md5_lanes) fn compress(words: &mut [Words; LANES], runs: &[&[Block]; LANES]) {
            let count = runs[0].len();
            let runs = runs.map(|run| &run[..count]);
            let mut quarters = [_mm_setzero_si128(); LANES];
            for (quarter, words) in quarters.iter_mut().zip(&*words) {
                let [a, b, c, d] = words.map(u32::cast_signed);
                *quarter = _mm_setr_epi32(a, b, c, d);
            }
            let mut state = load(&quarters);
            for at in 0..count {
                let mut block = [splat(0); 16];
                for (i, four) in block.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    for (lane, run) in quarters.iter_mut().zip(&runs) {
                        *lane = quarter(&run[at].as_chunks().0[i]);
                    }
                    *four = load(&quarters);
                }
                let mut new = round::<0>(state, &block);
                new = round::<1>(new, &block);
                new = round::<2>(new, &block);
                new = round::<3>(new, &block);
                for (word, new) in state.iter_mut().zip(new) {
                    *word = add(*word, new);
                }
            }
            let [a, b, c, d] = turn(state);
            let rows = [split(a), split(b), split(c), split(d)];
            for (lane, words) in words.iter_mut().enumerate() {
                let row = rows[lane % 4][lane / 4];
                *words = [
                    _mm_extract_epi32::<0>(row),
                    _mm_extract_epi32::<1>(row),
                    _mm_extract_epi32::<2>(row),
                    _mm_extract_epi32::<3>(row),
                ]
                .map(i32::cast_unsigned);
            }
        }
    };
}

pub(super) use kernel;
