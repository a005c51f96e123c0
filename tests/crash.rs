//! The server is killed at random moments under load from both faces; what it acknowledged is
//! there.
//!
//! Every writer has keys of its own and remembers, for each, what was acknowledged last and what
//! was under way. After the kill the key must hold one of the two, whole. A write through the mount
//! is acknowledged when `fsync` returns.
//!
//! `FOREBAY_TEST_CRASHES` is how often, 25 by default; `FOREBAY_TEST_SEED` repeats a run.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::s3::S3;
use crate::harness::{Home, Random, number};

const S3_WRITERS: u64 = 3;
const MOUNT_WRITERS: u64 = 2;
/// Few, so that keys are overwritten often.
const KEYS_PER_WRITER: u64 = 12;

/// What is under a key: a body made from this seed, or nothing.
type State = Option<u64>;

/// What may be under a key.
#[derive(Clone, Debug, Default)]
struct Expected {
    acknowledged: State,
    /// What operations that were begun and not answered may have made of it.
    possible: Vec<State>,
}

type Ledger = BTreeMap<String, Expected>;

/// Mostly small, sometimes beyond what is packed.
fn body(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let limit = if random.below(8) == 0 {
        1_500_000
    } else {
        20_000
    };
    let len = usize::try_from(random.below(limit)).unwrap();
    random.bytes(len)
}

/// Where a writer writes.
enum Face {
    S3(S3),
    Mount(PathBuf),
}

impl Face {
    /// `None` if it was not acknowledged.
    fn write(&self, key: &str, seed: u64) -> Option<()> {
        match self {
            Self::S3(s3) => s3
                .put("bkt", key, &body(seed))
                .ok()
                .filter(|put| put.status == 200)
                .map(drop),
            Self::Mount(dir) => write_and_sync(&dir.join(key), &body(seed)).ok(),
        }
    }

    fn remove(&self, key: &str) -> Option<()> {
        match self {
            Self::S3(s3) => s3
                .delete("bkt", key)
                .ok()
                .filter(|del| del.status == 204)
                .map(drop),
            // Not durable by itself, but a killed process takes no written page with it.
            Self::Mount(dir) => fs::remove_file(dir.join(key)).ok(),
        }
    }
}

fn write_and_sync(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    for chunk in bytes.chunks(10_000) {
        file.write_all(chunk)?;
    }
    file.sync_all()
}

/// Writes and removes until the server is gone.
fn work(face: &Face, name: &str, mut random: Random, ledger: &mut Ledger) {
    loop {
        let key = format!("{name}-{}", random.below(KEYS_PER_WRITER));
        let expected = ledger.entry(key.clone()).or_default();
        let removes = expected.acknowledged.is_some() && random.below(5) == 0;
        let next = (!removes).then(|| random.next());
        expected.possible.push(next);
        let acknowledged = match next {
            Some(seed) => face.write(&key, seed),
            None => face.remove(&key),
        };
        if acknowledged.is_none() {
            return;
        }
        *expected = Expected {
            acknowledged: next,
            possible: Vec::new(),
        };
    }
}

/// Every key holds, on both faces, one of what it may hold; what it holds is settled then.
fn verify(s3: &S3, mnt: &Path, ledger: &mut Ledger) {
    for (key, expected) in ledger {
        let got = s3.get("bkt", key).unwrap();
        let candidates = expected.possible.iter().chain([&expected.acknowledged]);
        let found = candidates.copied().find(|candidate| match candidate {
            Some(seed) => got.status == 200 && got.body == body(*seed),
            None => got.status == 404,
        });
        let Some(found) = found else {
            let len = got.body.len();
            panic!(
                "{key}: status {}, {len} bytes, expected {expected:?}",
                got.status
            );
        };
        let through_mount = fs::read(mnt.join("bkt").join(key)).ok();
        let over_s3 = found.map(|_| got.body);
        assert!(through_mount == over_s3, "{key} differs between the faces");
        *expected = Expected {
            acknowledged: found,
            possible: Vec::new(),
        };
    }
}

/// Loads a server from both faces, kills it within some hundred milliseconds.
fn load_and_kill(server: crate::harness::Server, random: &mut Random, ledgers: &mut [Ledger]) {
    let by_s3 = (0..S3_WRITERS).map(|_| Face::S3(server.s3()));
    let by_mount = (0..MOUNT_WRITERS).map(|_| Face::Mount(server.mnt().join("bkt")));
    let faces: Vec<Face> = by_s3.chain(by_mount).collect();
    let pause = Duration::from_millis(20 + random.below(400));
    std::thread::scope(|scope| {
        for (number, (face, ledger)) in faces.into_iter().zip(ledgers).enumerate() {
            let random = Random::new(random.next());
            scope.spawn(move || work(&face, &format!("w{number}"), random, ledger));
        }
        std::thread::sleep(pause);
        server.kill();
    });
}

#[test]
fn every_acknowledged_write_survives_a_kill_at_any_moment() {
    let crashes = number("FOREBAY_TEST_CRASHES").unwrap_or(25);
    let mut random = Random::from_environment();
    let home = Home::new();
    let mut ledgers = vec![Ledger::new(); usize::try_from(S3_WRITERS + MOUNT_WRITERS).unwrap()];
    let server = home.serve_and_mount();
    server.s3().create_bucket("bkt");
    server.stop_ok();
    for crash in 0..crashes {
        let server = home.serve_and_mount();
        for ledger in &mut ledgers {
            verify(&server.s3(), server.mnt(), ledger);
        }
        load_and_kill(server, &mut random, &mut ledgers);
        let fsck = home.run(&["fsck"]);
        let text = String::from_utf8_lossy(&fsck.stdout);
        assert!(fsck.status.success(), "fsck after crash {crash}: {text}");
    }
    let server = home.serve_and_mount();
    for ledger in &mut ledgers {
        verify(&server.s3(), server.mnt(), ledger);
    }
    server.stop_ok();
    home.run_ok(&["scrub"]);
    let settled: usize = ledgers.iter().map(BTreeMap::len).sum();
    eprintln!("{crashes} crashes, {settled} keys: nothing acknowledged was lost");
}

/// Nobody waits for the disk when a file is closed; as long as the machine runs, a kill changes
/// nothing about it. Larger than 1 MiB, its checksum is not known yet.
#[test]
fn a_file_that_was_closed_survives_a_kill_before_it_is_synced() {
    let home = Home::new();
    let server = home.serve_and_mount();
    server.s3().create_bucket("bkt");
    let [old, new] = [1, 2].map(|seed| Random::new(seed).bytes(3_000_000));
    fs::write(server.mnt().join("bkt/f"), &old).unwrap();
    server.stop_ok();
    for round in 0..3 {
        let server = home.serve_and_mount();
        let (s3, path) = (server.s3(), server.mnt().join("bkt/f"));
        let body = if round % 2 == 0 { &new } else { &old };
        fs::write(path, body).unwrap();
        // `close` returns before the server hears of it.
        while s3.get("bkt", "f").unwrap().body != *body {
            std::thread::sleep(Duration::from_millis(1));
        }
        server.kill();
        let server = home.serve_and_mount();
        assert!(server.s3().get("bkt", "f").unwrap().body == *body);
        assert!(fs::read(server.mnt().join("bkt/f")).unwrap() == *body);
        server.stop_ok();
        home.run_ok(&["fsck", "--deep"]);
    }
}
