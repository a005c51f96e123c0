//! Four, eight or sixteen lanes with the instructions of AVX-512, which rotates in one step and has
//! any function of three words in one.
//!
//! A step waits for the one before whatever the width, so narrow registers hash few streams no
//! faster than wide ones; but they load and turn less.

/// The functions of one width.
macro_rules! width {
    (
        $name:ident, $word:ident, $register:ident, $lanes:literal, $splat:ident, $add:ident, $rotate:ident,
        $logic:ident, $low:ident, $high:ident, $low_long:ident, $high_long:ident,
        $join:expr, $split:expr
    ) => {
        pub(super) mod $name {
            use std::arch::asm;
            use std::arch::x86_64::*;

            use crate::md5_lanes::kernel::{ORDERS, ROTATIONS, SINES, kernel};
            use crate::md5_stream::{Block, Words};

            /// Streams that are hashed at once.
            pub(in crate::md5_lanes) const LANES: usize = $lanes;
            const GROUPS: usize = LANES / 4;

            /// A word of each lane.
            type Word = $word;

            #[inline]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn splat(value: u32) -> Word {
                $splat(value.cast_signed())
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn add(x: Word, y: Word) -> Word {
                $add(x, y)
            }

            /// The same value, of which the compiler does not know how it was made.
            #[inline]
            #[target_feature(enable = "avx512f,avx512vl")]
            #[expect(unsafe_code, reason = "a barrier for the compiler")]
            fn fixed(mut x: Word) -> Word {
                // SAFETY: there is no instruction in it; the value stays in its register.
                unsafe {
                    asm!("/* {0} */", inout($register) x, options(pure, nomem, nostack, preserves_flags));
                }
                x
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn rotate(x: Word, bits: u32) -> Word {
                $rotate(x, splat(bits))
            }

            /// F, G, H or I, by the number of the round from 0. Bit `4 * x + 2 * y + z` of the
            /// number is the function's value for these bits.
            #[inline]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn mix<const ROUND: usize>(x: Word, y: Word, z: Word) -> Word {
                match ROUND {
                    0 => $logic::<0xca>(x, y, z),
                    1 => $logic::<0xe4>(x, y, z),
                    2 => $logic::<0x96>(x, y, z),
                    _ => $logic::<0x39>(x, y, z),
                }
            }

            /// Makes columns of rows, in each group.
            #[inline]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn turn(rows: [Word; 4]) -> [Word; 4] {
                let [a, b, c, d] = rows;
                let (ab, cd) = ($low(a, b), $low(c, d));
                let (ab2, cd2) = ($high(a, b), $high(c, d));
                [
                    $low_long(ab, cd),
                    $high_long(ab, cd),
                    $low_long(ab2, cd2),
                    $high_long(ab2, cd2),
                ]
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn join(groups: [__m128i; GROUPS]) -> Word {
                $join(groups)
            }

            #[inline]
            #[target_feature(enable = "avx512f,avx512vl")]
            fn split(row: Word) -> [__m128i; GROUPS] {
                $split(row)
            }

            kernel!("avx512f,avx512vl");
        }
    };
}

width!(
    x4,
    __m128i,
    xmm_reg,
    4,
    _mm_set1_epi32,
    _mm_add_epi32,
    _mm_rolv_epi32,
    _mm_ternarylogic_epi32,
    _mm_unpacklo_epi32,
    _mm_unpackhi_epi32,
    _mm_unpacklo_epi64,
    _mm_unpackhi_epi64,
    |[group]: [__m128i; 1]| group,
    |row| [row]
);
width!(
    x8,
    __m256i,
    ymm_reg,
    8,
    _mm256_set1_epi32,
    _mm256_add_epi32,
    _mm256_rolv_epi32,
    _mm256_ternarylogic_epi32,
    _mm256_unpacklo_epi32,
    _mm256_unpackhi_epi32,
    _mm256_unpacklo_epi64,
    _mm256_unpackhi_epi64,
    |[low, high]: [__m128i; 2]| _mm256_set_m128i(high, low),
    |row| [
        _mm256_castsi256_si128(row),
        _mm256_extracti128_si256::<1>(row)
    ]
);
width!(
    x16,
    __m512i,
    zmm_reg,
    16,
    _mm512_set1_epi32,
    _mm512_add_epi32,
    _mm512_rolv_epi32,
    _mm512_ternarylogic_epi32,
    _mm512_unpacklo_epi32,
    _mm512_unpackhi_epi32,
    _mm512_unpacklo_epi64,
    _mm512_unpackhi_epi64,
    |[a, b, c, d]: [__m128i; 4]| {
        let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
        _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(low, c), d)
    },
    |row| [
        _mm512_extracti32x4_epi32::<0>(row),
        _mm512_extracti32x4_epi32::<1>(row),
        _mm512_extracti32x4_epi32::<2>(row),
        _mm512_extracti32x4_epi32::<3>(row),
    ]
);
