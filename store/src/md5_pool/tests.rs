use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use md5::{Digest as _, Md5};
use proptest::prelude::*;

use super::*;
use crate::md5_lanes::LANES_MAX;

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
                stream = pool.hash(stream, pieces, Haste::Soon).wait_blocking();
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
    let queue = Queue::default();
    let queued = |body: &Vec<Bytes>| {
        let (sender, reply) = oneshot::channel();
        let job = Job {
            stream: Md5Stream::new(),
            pieces: body.clone(),
            haste: Haste::Soon,
            reply: sender,
        };
        assert!(queue.push(job), "there is room");
        reply
    };
    let replies: Vec<_> = bodies.iter().map(queued).collect();
    queue.close();
    run(lanes, &queue);
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
    let bodies: Vec<_> = (0..MD5_QUEUE_MAX + LANES_MAX + 8)
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

/// A thread that does not sleep: its test says what comes meanwhile.
struct Bench {
    lanes: Lanes,
    company: Company,
    state: State,
    taken: Vec<Lane>,
    bodies: Bodies,
}

impl Bench {
    /// `None` where there are no lanes.
    fn new() -> Option<Self> {
        Some(Self {
            lanes: Lanes::detect()?,
            company: Company::new(),
            state: State::default(),
            taken: Vec::new(),
            bodies: Bodies {
                members: 0,
                present: 1,
            },
        })
    }

    /// Jobs come, of two runs each; how many more are waited for then.
    fn come(&mut self, count: usize) -> Option<usize> {
        self.come_in(count, Haste::Soon).map(|wanted| wanted.count)
    }

    fn come_in(&mut self, count: usize, haste: Haste) -> Option<Wanted> {
        for _ in 0..count {
            self.state.jobs.push_back(Job {
                stream: Md5Stream::new(),
                pieces: pieces(count, &[2 * RUN_MAX * 64]),
                haste,
                reply: oneshot::channel().0,
            });
        }
        self.company
            .take(self.lanes, &mut self.state, &mut self.taken);
        self.company
            .wanted(self.lanes, &self.state, &self.taken, self.bodies)
    }

    /// Hashes a run of each.
    fn run(&mut self) {
        hash(self.lanes, &mut self.taken);
        self.company.begin(&self.taken);
    }

    fn run_to_the_end(&mut self) {
        while !self.taken.is_empty() {
            self.run();
        }
    }
}

#[test]
fn a_stream_alone_never_waits() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.bodies.members = 1;
    for haste in [Haste::Soon, Haste::Later, Haste::Soon, Haste::Later] {
        assert_eq!(bench.come_in(1, haste), None);
        bench.run_to_the_end();
    }
}

#[test]
fn as_many_are_waited_for_as_there_were() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    assert_eq!(bench.come(1), None, "nothing is known yet");
    bench.run();
    bench.bodies.present = 3;
    assert_eq!(bench.come(2), None, "they join what has begun");
    bench.run_to_the_end();
    assert_eq!(bench.come(1), Some(2));
    assert_eq!(bench.come(1), Some(1));
    assert_eq!(bench.come(1), None);
    bench.run_to_the_end();
    bench.come(1);
    bench.state.closed = true;
    assert_eq!(bench.come(0), None, "nobody waits at the end");
}

#[test]
fn a_stream_that_is_left_alone_soon_waits_no_more() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.bodies.present = 4;
    assert_eq!(bench.come(4), None);
    bench.run_to_the_end();
    for missing in [3, 2, 1] {
        bench.bodies.present = missing + 1;
        assert_eq!(bench.come(1), Some(missing));
        bench.company.waited_in_vain(&bench.taken);
        assert_eq!(bench.come(0), None, "it waits once");
        bench.run_to_the_end();
    }
    assert_eq!(bench.come(1), None);
    bench.run_to_the_end();
    assert_eq!(bench.come(2), None);
    bench.run_to_the_end();
    assert_eq!(bench.come(1), Some(1), "there is company again");
}

#[test]
fn nobody_waits_for_more_bodies_than_there_are() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.bodies.present = 4;
    assert_eq!(bench.come(4), None);
    bench.run_to_the_end();
    bench.bodies.present = 1;
    assert_eq!(bench.come(1), None, "the others have gone");
}

#[test]
fn one_more_is_hoped_for_while_there_are_others_still() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.bodies.present = 2;
    assert_eq!(bench.come(1), None, "the other goes on meanwhile");
    bench.run_to_the_end();
    bench.bodies.present = 3;
    assert_eq!(bench.come(1), Some(1));
    assert_eq!(bench.come(1), None);
    bench.run_to_the_end();
    bench.bodies.present = 4;
    assert_eq!(bench.come(1), Some(2), "two came before");
}

#[test]
fn a_hope_in_vain_is_given_up_for_longer_each_time() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.bodies.present = 3;
    for rest in [1, 2, 4] {
        assert_eq!(bench.come(1), Some(1));
        bench.company.waited_in_vain(&bench.taken);
        bench.run_to_the_end();
        for _ in 0..rest {
            assert_eq!(bench.come(1), None, "it rests");
            bench.run_to_the_end();
        }
    }
    assert_eq!(bench.come(1), Some(1));
    assert_eq!(bench.come(1), None);
    bench.run_to_the_end();
    assert_eq!(bench.company.rest, 1, "there is company again");
}

#[test]
fn bodies_that_arrive_wait_for_each_other_until_one_can_not() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.bodies.present = 3;
    bench.bodies.members = 3;
    let missing = |count, haste| Some(Wanted { count, haste });
    assert_eq!(bench.come_in(1, Haste::Later), missing(2, Haste::Later));
    assert_eq!(bench.come_in(1, Haste::Later), missing(1, Haste::Later));
    assert_eq!(bench.come_in(1, Haste::Later), None, "all are here");
    bench.run_to_the_end();
    assert_eq!(bench.come_in(1, Haste::Later), missing(2, Haste::Later));
    bench.state.hurried = true;
    let soon = missing(2, Haste::Soon);
    assert_eq!(bench.come_in(0, Haste::Later), soon, "three came before");
    bench.company.waited_in_vain(&bench.taken);
    assert_eq!(bench.come_in(0, Haste::Later), None, "but not for long");
    bench.state.hurried = false;
    bench.run_to_the_end();
    assert_eq!(bench.come_in(1, Haste::Later), missing(2, Haste::Later));
    assert_eq!(
        bench.come_in(1, Haste::Soon),
        None,
        "who is in haste waits for as many as there were"
    );
}

#[test]
fn more_bodies_than_lanes_do_not_wait_for_all() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.bodies.members = 10 * LANES_MAX;
    let lanes = bench.lanes.count();
    assert!(bench.come_in(lanes - 1, Haste::Later).is_some());
    assert_eq!(bench.come_in(1, Haste::Later), None);
}

/// A stalled body holds up nobody: the others are blocked, say so, and go on.
#[test]
fn a_hurry_wakes_a_thread_that_waits_for_company() {
    let (pool, thread) = Md5Pool::start().unwrap();
    let members = (pool.join(), pool.join());
    let body = pieces(4, &[200_000]);
    for _ in 0..20 {
        let hashing = pool.hash(Md5Stream::new(), &body, Haste::Later);
        pool.hurry();
        assert_eq!(hashing.wait_blocking().finish(), expected(&body));
    }
    drop((members, pool));
    assert!(thread.is_none_or(|thread| thread.join().is_ok()));
}

#[test]
fn patience_follows_the_pace_within_bounds() {
    let mut pace = Pace::default();
    assert_eq!(pace.patience(), PATIENCE_SOON_MIN);
    for _ in 0..100 {
        pace.ran(
            RUN_MAX,
            Duration::from_nanos(250) * u32::try_from(RUN_MAX).unwrap(),
        );
    }
    let about = Duration::from_nanos(250) * MIB_BLOCKS * PATIENCE_SOON_MIB;
    assert!(pace.patience() > about * 9 / 10 && pace.patience() <= about);
    pace.ran(1, Duration::from_secs(1));
    assert!(pace.patience() <= about, "a short run says nothing");
    (0..100).for_each(|_| pace.ran(RUN_MAX, Duration::from_secs(1)));
    assert_eq!(pace.patience(), PATIENCE_SOON_MAX);
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
