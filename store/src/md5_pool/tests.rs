use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use md5::{Digest as _, Md5};
use proptest::prelude::*;

use super::*;

/// Bytes that differ from stream to stream, cut into pieces of these lengths.
fn pieces(seed: usize, lens: &[usize]) -> Vec<Bytes> {
    let byte = |i: usize| {
        let mixed = i.wrapping_mul(31) ^ (i >> 8) ^ seed.wrapping_mul(97);
        u8::try_from(mixed & 0xff).expect("masked")
    };
    let mut at = 0;
    let piece = |len: &usize| {
        at += len;
        (at - len..at).map(byte).collect()
    };
    lens.iter().map(piece).collect()
}

fn expected(pieces: &[Bytes]) -> [u8; 16] {
    Md5::digest(pieces.concat()).into()
}

/// Hashes bodies at the same time, each in chunks of a few pieces as a stage does.
fn digests_of(pool: &Md5Pool, bodies: &[Vec<Bytes>], chunk: usize) -> Vec<[u8; 16]> {
    thread::scope(|scope| {
        let hash = |body: &'_ [Bytes]| {
            let mut stream = Md5Stream::new();
            for pieces in body.chunks(chunk) {
                stream = pool.hash(stream, pieces).wait_blocking();
            }
            stream.finish()
        };
        let running: Vec<_> = bodies
            .iter()
            .map(|body| scope.spawn(move || hash(body)))
            .collect();
        let digests = running.into_iter().map(ScopedJoinHandle::join);
        digests
            .map(|digest| digest.expect("no hashing panics"))
            .collect()
    })
}

/// All jobs are queued before the first is begun, so that lanes are shared and refilled
/// whatever the machine is doing.
fn digests_of_queued(bodies: &[Vec<Bytes>]) -> Vec<[u8; 16]> {
    let lanes = Lanes::detect().expect("asked for before");
    let (queue, messages) = sync_channel(bodies.len());
    let queued = |body: &Vec<Bytes>| {
        let (sender, reply) = oneshot::channel();
        let job = Job {
            stream: Md5Stream::new(),
            pieces: body.clone(),
            reply: sender,
        };
        queue.try_send(Message::Hash(job)).expect("there is room");
        reply
    };
    let replies: Vec<_> = bodies.iter().map(queued).collect();
    drop(queue);
    run(lanes, &messages);
    let done = |mut reply: oneshot::Receiver<Md5Stream>| reply.try_recv().map(Md5Stream::finish);
    replies
        .into_iter()
        .map(|reply| done(reply).expect("every job is answered"))
        .collect()
}

/// Lengths around blocks and runs, and any others.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        0_usize..200,
        Just(64),
        Just(128),
        8000_usize..8500,
        0_usize..40_000
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_number_of_streams_of_any_lengths_gets_the_right_digests(
        lens in prop::collection::vec(prop::collection::vec(len(), 0..6), 1..20)
    ) {
        if Lanes::detect().is_none() {
            return Ok(());
        }
        let bodies: Vec<_> = lens.iter().enumerate().map(|(i, lens)| pieces(i, lens)).collect();
        let expected: Vec<_> = bodies.iter().map(|body| expected(body)).collect();
        prop_assert_eq!(digests_of_queued(&bodies), expected);
    }
}

#[test]
fn bodies_that_arrive_together_get_the_right_digests() {
    let (pool, thread) = Md5Pool::start().unwrap();
    // More than lanes and queue hold, so that some hash for themselves.
    let bodies: Vec<_> = (0..MD5_QUEUE_MAX + LANES + 8)
        .map(|i| pieces(i, &[70_000 + i, 1, 100_000, 63 * i, 130_000]))
        .collect();
    let expected: Vec<_> = bodies.iter().map(|body| expected(body)).collect();
    assert_eq!(digests_of(&pool, &bodies, 2), expected);
    drop(pool);
    assert!(
        thread.is_none_or(|thread| thread.join().is_ok()),
        "it ends with the last handle"
    );
}

#[test]
fn what_is_hashed_after_the_pool_is_closed_is_right() {
    let (pool, thread) = Md5Pool::start().unwrap();
    pool.close();
    assert!(
        thread.is_none_or(|thread| thread.join().is_ok()),
        "it ends when it is closed"
    );
    let body = pieces(1, &[200_000]);
    assert_eq!(
        digests_of(&pool, std::slice::from_ref(&body), 1),
        [expected(&body)]
    );
}

/// The thread may stop with jobs still in the queue.
#[test]
fn a_job_that_is_not_answered_is_hashed_again() {
    let body = pieces(2, &[100, 90_000]);
    let (sender, reply) = oneshot::channel();
    drop(sender);
    let hashing = Hashing::Queued {
        reply,
        stream: Md5Stream::new(),
        pieces: body.clone(),
    };
    assert_eq!(hashing.wait_blocking().finish(), expected(&body));
}

/// `cargo test --release -p forebay-store --lib -- --ignored --nocapture md5_speed`
#[test]
#[ignore = "prints speeds, which mean something only in a release build on an idle machine"]
fn md5_speed() {
    const LEN: usize = 256 << 10;
    const CHUNKS: usize = 64;
    let best_of = |hash: &dyn Fn()| {
        let took = || {
            let began = std::time::Instant::now();
            hash();
            began.elapsed()
        };
        (0..10).map(|_| took()).min().unwrap_or(Duration::ZERO)
    };
    let rate = |streams: usize, took: Duration| {
        let bytes = u32::try_from(streams * CHUNKS * LEN).expect("below 4 GiB");
        f64::from(bytes) / took.as_secs_f64() / 1e9
    };
    let body = pieces(3, &[LEN]);
    let alone = best_of(&|| {
        let mut md5 = Md5::new();
        (0..CHUNKS).for_each(|_| md5.update(&body[0]));
        std::hint::black_box(md5.finalize());
    });
    println!("md-5 crate, 1 stream: {:.2} GB/s", rate(1, alone));
    for streams in [1, 2, 4, 8, 16] {
        let bodies = vec![vec![body[0].clone(); CHUNKS]; streams];
        let queued = best_of(&|| drop(digests_of_queued(&bodies)));
        println!(
            "lanes, {streams} streams: {:.2} GB/s",
            rate(streams, queued)
        );
    }
}
