//! Anything in any order: the right bytes or an error, never a wrong byte, and nobody hangs.
//!
//! What is kept is checked too: the disk of these tests refuses to take a wrong byte.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use tokio::task::JoinSet;

use super::kit::{
    Answer, B, MemoryDisk, Origin, cache_with, denied, drain, is_content, quiet, read, unavailable,
    version,
};
use crate::fetch::FetchConfig;
use crate::source::{FetchError, Source};
use crate::{Directive, Version};

const SIZES: [u64; 5] = [1, B - 1, B, 5 * B + 1234, 13 * B];

fn object(n: usize) -> Arc<Version> {
    version(&format!("k{n}"), SIZES[n])
}

#[derive(Clone, Debug)]
enum Action {
    Read(Reading),
    Evict(usize, u64),
    Corrupt(usize, u64),
    Refuse(bool),
    Cold(bool),
    Forget(bool),
    Unreadable(bool),
}

#[derive(Clone, Debug)]
struct Reading {
    object: usize,
    from: f64,
    len: f64,
    directive: Directive,
    answers: Vec<Answer>,
    /// Frames after which the reader goes.
    frames: Option<usize>,
    /// Whether the next action waits for it.
    awaited: bool,
}

impl Reading {
    fn range(&self, version: &Version) -> std::ops::Range<u64> {
        let part = |share: f64, whole: u64| {
            // A share of a few megabytes: exact.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_precision_loss,
                clippy::cast_sign_loss,
                reason = "between 0 and the size of a small object"
            )]
            let part = (share * whole as f64) as u64;
            part
        };
        let start = part(self.from, version.size);
        start..start + part(self.len, version.size - start)
    }
}

fn answer() -> impl Strategy<Value = Answer> {
    let error = prop_oneof![
        Just(FetchError::Changed),
        Just(denied()),
        Just(unavailable()),
    ];
    prop_oneof![
        6 => Just(Answer::Right),
        1 => error.clone().prop_map(Answer::Fails),
        2 => (0..3 * B, error).prop_map(|(n, error)| Answer::Breaks(n, error)),
        1 => (0..3 * B).prop_map(Answer::Ends),
        1 => Just(Answer::Excess),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let directive = prop_oneof![
        3 => Just(Directive::Use),
        1 => Just(Directive::NoFill),
        1 => Just(Directive::Bypass),
    ];
    let reading = (
        0..SIZES.len(),
        0.0..1.0_f64,
        0.0..=1.0_f64,
        directive,
        proptest::collection::vec(answer(), 0..6),
        proptest::option::weighted(0.2, 0..10_usize),
        proptest::bool::weighted(0.3),
    );
    let reading = reading.prop_map(|(object, from, len, directive, answers, frames, awaited)| {
        Action::Read(Reading {
            object,
            from,
            len,
            directive,
            answers,
            frames,
            awaited,
        })
    });
    prop_oneof![
        10 => reading,
        2 => (0..SIZES.len(), 0..13_u64).prop_map(|(object, block)| Action::Evict(object, block)),
        2 => (0..SIZES.len(), 0..13_u64).prop_map(|(object, block)| Action::Corrupt(object, block)),
        1 => any::<bool>().prop_map(Action::Refuse),
        1 => any::<bool>().prop_map(Action::Cold),
        1 => any::<bool>().prop_map(Action::Forget),
        1 => any::<bool>().prop_map(Action::Unreadable),
    ]
}

/// One reader, with a source of his own. `Err` says what is wrong.
async fn reading(cache: crate::Cache, reading: Reading) -> Result<(), String> {
    let version = object(reading.object);
    let range = reading.range(&version);
    let origin = Origin::slow(Duration::from_micros(50), 150_000).script(reading.answers.clone());
    let source: Arc<dyn Source> = origin;
    let mut read = cache.read(&version, source, reading.directive, range.clone());
    let (mut at, mut frames) = (range.start, 0);
    while let Some(frame) = read.next().await {
        let Ok(frame) = frame else {
            return match read.next().await {
                None => Ok(()),
                Some(more) => Err(format!("after an error comes {more:?}")),
            };
        };
        if !is_content(at, &frame) {
            return Err(format!("wrong bytes at {at}"));
        }
        at += frame.len() as u64;
        frames += 1;
        if reading.frames.is_some_and(|max| frames >= max) {
            return Ok(());
        }
    }
    if at == range.end {
        Ok(())
    } else {
        Err(format!("ends at {at} of {range:?}"))
    }
}

async fn run(actions: Vec<Action>, memory_max: u64) -> Result<(), String> {
    let config = FetchConfig {
        memory_max,
        retry_after: Duration::from_millis(20),
        ..FetchConfig::default()
    };
    let (cache, disk) = cache_with(config);
    let mut readers = JoinSet::new();
    for action in actions {
        let faults = &disk.faults;
        let set = |flag: &std::sync::atomic::AtomicBool, on| flag.store(on, Ordering::SeqCst);
        match action {
            Action::Read(one) if one.awaited => reading(cache.clone(), one).await?,
            Action::Read(one) => {
                readers.spawn(reading(cache.clone(), one));
                tokio::task::yield_now().await;
            }
            Action::Evict(n, block) => disk.of(&object(n)).evict(block),
            Action::Corrupt(n, block) => disk.of(&object(n)).corrupt(block),
            Action::Refuse(on) => set(&faults.refuse, on),
            Action::Cold(on) => set(&faults.cold, on),
            Action::Forget(on) => set(&faults.evict, on),
            Action::Unreadable(on) => set(&faults.unreadable, on),
        }
    }
    while let Some(done) = readers.join_next().await {
        done.map_err(|err| err.to_string())??;
    }
    quiet(&cache).await;
    // A source that does its work is always enough, whatever happened before.
    for (n, size) in SIZES.into_iter().enumerate() {
        for directive in [Directive::Use, Directive::NoFill, Directive::Bypass] {
            let origin = Origin::new();
            let result = read(&cache, &object(n), &origin, directive, 0..size).await;
            result.map_err(|err| format!("a good source gives {err}"))?;
        }
    }
    quiet(&cache).await;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_right_bytes_or_an_error(
        actions in proptest::collection::vec(action(), 1..40),
        memory_max in prop_oneof![Just(0), Just(3 * B), Just(64 * B)],
    ) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        let outcome = runtime.block_on(async {
            let limit = Duration::from_hours(1);
            tokio::time::timeout(limit, run(actions, memory_max)).await
        });
        prop_assert_eq!(outcome, Ok(Ok(())));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hundreds_of_readers_with_ranges_and_speeds_of_their_own() {
    let config = FetchConfig {
        memory_max: 20 * B,
        ..FetchConfig::default()
    };
    let (cache, disk) = cache_with(config);
    MemoryDisk::set(&disk.faults.cold);
    let mut seed = 42_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(11);
        (seed >> 33) % below
    };
    let version = version("k", 40 * B + 100);
    let origin = Origin::slow(Duration::from_micros(20), 90_000);
    let mut readers = JoinSet::new();
    for n in 0..300 {
        let start = random(version.size);
        let end = start + random(version.size - start + 1);
        let pause = Duration::from_micros(random(300));
        let (cache, version, origin) = (cache.clone(), version.clone(), origin.clone());
        readers.spawn(async move {
            let source: Arc<dyn Source> = origin;
            let mut read = cache.read(&version, source, Directive::Use, start..end);
            if n % 2 == 0 {
                return drain(&mut read, start..end).await;
            }
            let mut at = start;
            while let Some(frame) = read.next().await {
                let frame = frame?;
                assert!(is_content(at, &frame));
                at += frame.len() as u64;
                tokio::time::sleep(pause).await;
            }
            assert_eq!(at, end);
            Ok(())
        });
    }
    while let Some(done) = readers.join_next().await {
        done.unwrap().unwrap();
    }
    quiet(&cache).await;
    assert_eq!(disk.of(&version).puts_max(), 1, "each block was kept once");
}
