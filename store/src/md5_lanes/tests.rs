use std::hint::black_box;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::md5_stream::WORDS_FIRST;

/// Every kind of lanes that this machine has.
fn all() -> Vec<Lanes> {
    let mut all = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            all.push(Lanes(Set::Avx2));
        }
        if matches!(Lanes::detect(), Some(Lanes(Set::Avx512))) {
            all.push(Lanes(Set::Avx512));
        }
    }
    all
}

#[cfg(target_arch = "x86_64")]
#[test]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the integer part of a number of 32 bits, none of them a sign"
)]
fn the_table_has_the_sines() {
    for (i, sine) in (1_u32..).zip(kernel::SINES.into_iter().flatten()) {
        assert_eq!(sine, (f64::from(i).sin().abs() * 2_f64.powi(32)) as u32);
    }
}

/// RFC 1321, appendix A.5: the texts of one block, padded, one to a lane in turn.
#[test]
fn the_test_suite_of_the_rfc_holds_in_each_lane() {
    let suite: [(&str, &str); 5] = [
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("a", "0cc175b9c0f1b6a831c399e269772661"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"),
        ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        (
            "abcdefghijklmnopqrstuvwxyz",
            "c3fcd3d76192e4007dfb496cca67e13b",
        ),
    ];
    let block = |text: &str| {
        let mut block: Block = [0; 64];
        block[..text.len()].copy_from_slice(text.as_bytes());
        block[text.len()] = 0x80;
        block[56..].copy_from_slice(&(8 * text.len() as u64).to_le_bytes());
        [block]
    };
    let blocks = suite.map(|(text, _)| block(text));
    for lanes in all() {
        for count in 1..=lanes.count() {
            let texts = || (0..count).map(|lane| lane % suite.len());
            let mut words = vec![WORDS_FIRST; count];
            let runs: Vec<&[Block]> = texts().map(|i| &blocks[i][..]).collect();
            lanes.compress_together(&mut words, &runs);
            for (i, words) in texts().zip(words) {
                let digest: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
                assert_eq!(
                    hex::encode(digest),
                    suite[i].1,
                    "{lanes:?}, {count} streams"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn lanes_do_not_touch_each_other(
        words in prop::collection::vec(prop::array::uniform4(any::<u32>()), 1..=LANES_MAX),
        count in 0_usize..5,
        bytes in prop::collection::vec(any::<u8>(), 64 * 4 * LANES_MAX),
    ) {
        let (blocks, _) = bytes.as_chunks();
        for lanes in all() {
            let streams = words.len().min(lanes.count());
            let runs: Vec<&[Block]> =
                (0..streams).map(|lane| &blocks[4 * lane..][..count]).collect();
            let mut expected = words[..streams].to_vec();
            compress_singly(&mut expected, &runs);
            let mut together = words[..streams].to_vec();
            lanes.compress_together(&mut together, &runs);
            prop_assert_eq!(&together, &expected);
            let mut chosen = words[..streams].to_vec();
            lanes.compress(&mut chosen, &runs);
            prop_assert_eq!(&chosen, &expected);
        }
    }
}

/// Nanoseconds for a byte, at best.
fn speed(streams: usize, compress: impl Fn(&mut [Words], &[&[Block]])) -> f64 {
    // Short, so that the best run is one that nothing interrupted.
    const BLOCKS: usize = 128;
    let bytes = vec![vec![[0x5a; 64]; BLOCKS]; streams];
    let runs: Vec<&[Block]> = bytes.iter().map(Vec::as_slice).collect();
    let mut words = vec![WORDS_FIRST; streams];
    let mut took = || {
        let began = Instant::now();
        compress(&mut words, black_box(&runs));
        began.elapsed()
    };
    let best = (0..20_000).map(|_| took()).min();
    let bytes = u32::try_from(streams * BLOCKS * 64).expect("some KiB");
    1e9 * best.unwrap_or_default().as_secs_f64() / f64::from(bytes)
}

/// `cargo test --release -p forebay-store --lib -- --ignored --nocapture lanes_speed`
#[test]
#[ignore = "prints speeds, which mean something only in a release build"]
fn lanes_speed() {
    println!("md-5 crate: {:.3} ns/byte", speed(1, compress_singly));
    for lanes in all() {
        for streams in (1..=lanes.count()).filter(|n| [1, 2, 4, 5, 8, 9, 16].contains(n)) {
            let speed = speed(streams, |words, runs| lanes.compress_together(words, runs));
            println!("{lanes:?}, {streams} streams: {speed:.3} ns/byte");
        }
    }
}
