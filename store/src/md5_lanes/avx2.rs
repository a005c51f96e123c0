//! Eight lanes in the registers of AVX2.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm_extract_epi32, _mm_set_epi64x, _mm_setr_epi32,
    _mm_setzero_si128, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_or_si256, _mm256_set_m128i,
    _mm256_set1_epi32, _mm256_sll_epi32, _mm256_srl_epi32, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use super::kernel::{ORDERS, ROTATIONS, SINES, kernel};
use crate::md5_stream::{Block, Words};

/// Streams that are hashed at once.
pub(super) const LANES: usize = 8;
const GROUPS: usize = LANES / 4;

/// A word of each lane.
type Word = __m256i;

#[inline]
#[target_feature(enable = "avx2")]
fn splat(value: u32) -> Word {
    _mm256_set1_epi32(value.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(x: Word, y: Word) -> Word {
    _mm256_add_epi32(x, y)
}

/// The same value, of which the compiler does not know how it was made.
#[inline]
#[target_feature(enable = "avx2")]
#[expect(unsafe_code, reason = "a barrier for the compiler")]
fn fixed(mut x: Word) -> Word {
    // SAFETY: there is no instruction in it; the value stays in its register.
    unsafe {
        asm!("/* {0} */", inout(ymm_reg) x, options(pure, nomem, nostack, preserves_flags));
    }
    x
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate(x: Word, bits: u32) -> Word {
    let count = |bits: u32| _mm_cvtsi32_si128(bits.cast_signed());
    let high = _mm256_sll_epi32(x, count(bits));
    let low = _mm256_srl_epi32(x, count(32 - bits));
    _mm256_or_si256(high, low)
}

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

/// Makes columns of rows, in each group.
#[inline]
#[target_feature(enable = "avx2")]
fn turn(rows: [Word; 4]) -> [Word; 4] {
    let [a, b, c, d] = rows;
    let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
    let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab, cd),
        _mm256_unpackhi_epi64(ab, cd),
        _mm256_unpacklo_epi64(ab2, cd2),
        _mm256_unpackhi_epi64(ab2, cd2),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn join(groups: [__m128i; GROUPS]) -> Word {
    _mm256_set_m128i(groups[1], groups[0])
}

#[inline]
#[target_feature(enable = "avx2")]
fn split(row: Word) -> [__m128i; GROUPS] {
    [
        _mm256_castsi256_si128(row),
        _mm256_extracti128_si256::<1>(row),
    ]
}

kernel!("avx2");
