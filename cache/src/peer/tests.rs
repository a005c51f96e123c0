//! A reader's source with a peer that does what a test says: whatever that is, the bytes are right.

mod kit;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method};

use self::kit::{Own, TOKEN, expected, frames, hello, home_of, key, ok, peers_at, read, version};
use super::ask::Ask;
use super::{Help, Peers, Standing, frame};
use crate::disk::{Disk, DiskConfig};
use crate::fetch::FetchConfig;
use crate::origin::tests::script::{Seen, Server, Step, answer};
use crate::source::FetchError;
use crate::version::BLOCK_SIZE;
use crate::{Cache, Directive};

/// A peer that greets, and answers requests for bytes as the script says.
async fn peer(script: impl Fn(&Ask, &Seen) -> Vec<Step> + Send + Sync + 'static) -> Server {
    Server::start(move |_, seen| match asked(seen) {
        None => hello(),
        Some(ask) => script(&ask, seen),
    })
    .await
}

fn asked(seen: &Seen) -> Option<Ask> {
    let target = seen.line.split(' ').nth(1).unwrap();
    let query = target.strip_prefix("/-/peer/bytes?")?;
    Some(Ask::parse(query).unwrap())
}

fn requests(server: &Server) -> usize {
    let seen = server.seen();
    seen.iter().filter(|seen| asked(seen).is_some()).count()
}

/// Frames and then the end of the answer.
fn whole(ask: &Ask) -> Vec<Step> {
    let range = ask.range.clone();
    vec![ok(), frames(range, 100_000), Step::Close]
}

fn help(peers: &Arc<Peers>, own: &Arc<Own>) -> Arc<Help> {
    Help::new(peers, Arc::clone(own) as _, true)
}

#[tokio::test]
async fn what_a_peer_has_is_not_asked_of_the_origin() {
    let server = peer(|ask, _| whole(ask)).await;
    let peers = peers_at(&server.url()).await;
    let own = Own::new();
    let version = version(20 * BLOCK_SIZE + 77);
    for range in [0..1, 5..3000, 9 * BLOCK_SIZE - 3..9 * BLOCK_SIZE + 70_000] {
        let got = read(&help(&peers, &own), &version, range.clone()).await;
        assert!(got.unwrap() == expected(range));
    }
    assert!(own.asked().is_empty());
    let done = peers.statistics();
    assert_eq!((done.hits, done.passed_over), (3, 0));
    assert_eq!(done.bytes_from, 1 + 2995 + 70_003);
    let seen = server.seen();
    let of_bytes = seen.iter().rev().find(|seen| asked(seen).is_some());
    let of_bytes = of_bytes.unwrap();
    assert_eq!(of_bytes.header("x-forebay-grant"), TOKEN);
    let target = of_bytes.line.split(' ').nth(1).unwrap();
    let proof = HeaderValue::from_str(of_bytes.header("x-forebay-node")).unwrap();
    let now = forebay_store::time::Clock::now(&forebay_store::time::SystemClock);
    key().verify(&proof, &Method::GET, target, now).unwrap();
}

#[tokio::test]
async fn a_range_over_runs_is_asked_for_run_by_run() {
    let server = peer(|ask, _| whole(ask)).await;
    let peers = peers_at(&server.url()).await;
    let own = Own::new();
    let version = version(20 * BLOCK_SIZE);
    let range = BLOCK_SIZE..20 * BLOCK_SIZE;
    let got = read(&help(&peers, &own), &version, range.clone()).await;
    assert!(got.unwrap() == expected(range));
    assert_eq!(requests(&server), 3);
    assert!(own.asked().is_empty());
}

#[tokio::test]
async fn a_peer_that_is_gone_costs_little_once_and_then_nothing() {
    let server = peer(|ask, _| whole(ask)).await;
    let peers = peers_at(&server.url()).await;
    drop(server);
    let own = Own::new();
    let version = version(BLOCK_SIZE);
    let began = Instant::now();
    let got = read(&help(&peers, &own), &version, 0..5000).await;
    assert!(got.unwrap() == expected(0..5000));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "a busy machine's slack"
    );
    assert_eq!(own.asked(), vec![0..5000_u64; 1]);
    assert_eq!(peers.list()[0].1, Standing::Dead);
    assert_eq!(peers.statistics().passed_over, 1);
    let got = read(&help(&peers, &own), &version, 7..9).await;
    assert!(got.unwrap() == expected(7..9));
    assert_eq!(peers.statistics().passed_over, 1, "it was not even asked");
}

#[tokio::test]
async fn a_peer_that_hangs_is_passed_over_and_asked_again_when_it_answers() {
    let hang = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let of_script = Arc::clone(&hang);
    let server = Server::start(move |_, seen| {
        let hangs = of_script.load(Ordering::SeqCst);
        match asked(seen) {
            None => hello(),
            Some(_) if hangs => vec![Step::Hang],
            Some(ask) => whole(&ask),
        }
    })
    .await;
    let peers = peers_at(&server.url()).await;
    let own = Own::new();
    let version = version(BLOCK_SIZE);
    let began = Instant::now();
    let got = read(&help(&peers, &own), &version, 0..5000).await;
    assert!(got.unwrap() == expected(0..5000));
    assert!(began.elapsed() < Duration::from_secs(15));
    assert_eq!(peers.list()[0].1, Standing::Dead);
    hang.store(false, Ordering::SeqCst);
    let give_up_at = Instant::now() + Duration::from_secs(20);
    while peers.list()[0].1 != Standing::Alive {
        assert!(Instant::now() < give_up_at, "it lives again");
        tokio::time::sleep(Duration::from_millis(50)).await;
        peers.greet_strangers().await;
    }
    let got = read(&help(&peers, &own), &version, 0..5000).await;
    assert!(got.unwrap() == expected(0..5000));
    assert_eq!(own.asked().len(), 1, "the second time the peer has it");
}

/// How much a peer sends before things go wrong.
const AT: u64 = 10_000;

/// What the peer does after some good frames, and whether that is wrong rather than late.
type Trouble = (&'static str, fn(&Ask) -> Vec<Step>, bool);

/// The rest of what was asked for, as frames.
fn rest(ask: &Ask) -> Vec<u8> {
    kit::written(ask.range.start + AT..ask.range.end, 1000)
}

fn troubles() -> [Trouble; 9] {
    let gives_up = |_: &Ask| vec![Step::Send(frame::gives_up().to_vec()), Step::Close];
    let no_frame = |_: &Ask| vec![Step::Send(b"<Error>".to_vec()), Step::Close];
    let wrong_byte = |ask: &Ask| {
        let mut bytes = rest(ask);
        bytes[2500] ^= 1;
        vec![Step::Send(bytes), Step::Close]
    };
    let wrong_crc = |ask: &Ask| {
        let mut bytes = rest(ask);
        bytes[1005] ^= 0x80;
        vec![Step::Send(bytes), Step::Close]
    };
    let cut = |ask: &Ask| vec![Step::Send(rest(ask)[..7777].to_vec()), Step::Reset];
    let too_much = |ask: &Ask| vec![frames(ask.range.start + AT..ask.range.end + 1000, 70_000)];
    [
        ("it closes", |_| vec![Step::Close], true),
        ("it resets", |_| vec![Step::Reset], false),
        ("it hangs", |_| vec![Step::Hang], false),
        ("it gives up", gives_up, false),
        ("it sends no frame", no_frame, true),
        ("a byte is wrong", wrong_byte, true),
        ("a CRC is wrong", wrong_crc, true),
        ("a frame is cut", cut, false),
        ("it has too much", too_much, true),
    ]
}

#[tokio::test]
async fn what_is_missing_comes_from_the_origin() {
    for (what, then, is_wrong) in troubles() {
        let server = peer(move |ask, _| {
            let start = ask.range.start;
            let mut steps = vec![ok(), frames(start..start + AT, 1000)];
            steps.extend(then(ask));
            steps
        })
        .await;
        let peers = peers_at(&server.url()).await;
        let own = Own::new();
        let version = version(4 * BLOCK_SIZE);
        let range = 100..60_000;
        let began = Instant::now();
        let got = read(&help(&peers, &own), &version, range.clone()).await;
        assert!(got.unwrap() == expected(range), "{what}");
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        let asked = own.asked();
        assert_eq!(asked.len(), 1, "{what}");
        // What was sent may be lost in a reset.
        let is_reset = what.ends_with("resets") || what.ends_with("cut");
        let least = if is_reset { 0 } else { AT };
        assert!(asked[0].start >= 100 + least, "{what}: {asked:?}");
        let done = peers.statistics();
        assert_eq!(done.passed_over, 1, "{what}");
        assert_eq!(done.wrong == 1, is_wrong, "{what}");
    }
}

#[tokio::test]
async fn a_peer_that_only_waits_is_not_waited_for_too_long() {
    let server = peer(|_, _| {
        let wait = || Step::Send(frame::wait().to_vec());
        let steps = (0..100).flat_map(|_| [wait(), Step::Wait(frame::WAIT_EVERY)]);
        std::iter::once(ok()).chain(steps).collect()
    })
    .await;
    let peers = peers_at(&server.url()).await;
    let own = Own::new();
    let began = Instant::now();
    let got = read(&help(&peers, &own), &version(BLOCK_SIZE), 0..10).await;
    assert!(got.unwrap() == expected(0..10));
    let took = began.elapsed();
    assert!((2..8).contains(&took.as_secs()), "{took:?}");
    assert_eq!(peers.list()[0].1, Standing::Alive, "it lives");
}

#[tokio::test]
async fn a_peer_that_refuses_is_passed_over_and_a_stranger_greeted_anew() {
    for (status, standing) in [
        (401, Standing::Alive),
        (400, Standing::Alive),
        (503, Standing::Alive),
        (403, Standing::Unknown),
        (404, Standing::Unknown),
        (421, Standing::Unknown),
    ] {
        let server = peer(move |_, _| vec![answer(status, "", b"no")]).await;
        let peers = peers_at(&server.url()).await;
        let own = Own::new();
        let got = read(&help(&peers, &own), &version(10), 0..10).await;
        assert!(got.unwrap() == expected(0..10), "{status}");
        assert_eq!(peers.list()[0].1, standing, "{status}");
    }
}

#[tokio::test]
async fn the_origins_refusal_is_the_readers_answer() {
    let server = peer(|_, _| vec![ok(), Step::Send(frame::gives_up().to_vec()), Step::Close]).await;
    let peers = peers_at(&server.url()).await;
    for error in [
        FetchError::Denied("no".to_owned()),
        FetchError::Changed,
        FetchError::Unavailable("gone".to_owned()),
    ] {
        let own = Own::failing(error.clone());
        let got = read(&help(&peers, &own), &version(10), 0..10).await;
        assert_eq!(got.unwrap_err().to_string(), error.to_string());
    }
}

#[tokio::test]
async fn a_peer_of_another_origin_and_oneself_are_none() {
    let other = answer(200, "", br#"{"id":"00","origin":"http://other:1"}"#);
    let server = Server::start(move |_, _| vec![other.clone()]).await;
    let peers = kit::peers(&server.url());
    peers.greet_strangers().await;
    assert_eq!(peers.list()[0].1, Standing::Unknown);
    assert_eq!(home_of(&peers, 0), None);

    let server = Server::start(move |_, seen| {
        let id = seen.line.split("by=").nth(1).unwrap();
        let id = id.split(' ').next().unwrap();
        let text = format!("{{\"id\":\"{id}\",\"origin\":\"http://elsewhere\"}}");
        vec![answer(200, "", text.as_bytes())]
    })
    .await;
    let peers = kit::peers(&server.url());
    peers.greet_strangers().await;
    assert_eq!(peers.list()[0].1, Standing::Own);
    assert_eq!(home_of(&peers, 0), None, "it asks nobody");
}

#[tokio::test]
async fn each_block_is_brought_by_its_home_among_those_who_live() {
    let servers = [
        peer(|ask, _| whole(ask)).await,
        peer(|ask, _| whole(ask)).await,
        peer(|ask, _| whole(ask)).await,
    ];
    let urls: Vec<String> = servers.iter().map(Server::url).collect();
    let peers = peers_at(&urls.join(",")).await;
    let homes: Vec<_> = (0..60).map(|run| home_of(&peers, run).unwrap()).collect();
    for url in &urls {
        let count = homes.iter().filter(|home| *home == url).count();
        assert!(count > 5, "{homes:?}");
    }
    let [gone, ..] = servers;
    let gone_url = gone.url();
    drop(gone);
    let own = Own::new();
    let version = version(480 * BLOCK_SIZE);
    let help = help(&peers, &own);
    for run in 0..60 {
        let start = run * 8 * BLOCK_SIZE;
        let got = read(&help, &version, start..start + 10).await;
        assert!(got.unwrap() == expected(start..start + 10));
    }
    assert_eq!(peers.statistics().passed_over, 1);
    for (run, before) in (0..).zip(&homes) {
        let now = home_of(&peers, run).unwrap();
        assert!(
            now == *before || *before == gone_url,
            "only what was its own"
        );
        assert_ne!(now, gone_url);
    }
}

/// Two nodes that each take the other for the home: neither may wait for what the other brings.
#[tokio::test]
async fn what_is_read_for_a_peer_does_not_wait_for_a_peer() {
    let server = peer(|_, _| vec![ok(), Step::Hang]).await;
    let peers = peers_at(&server.url()).await;
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&DiskConfig::new(dir.path(), 64 << 20, kit::ORIGIN)).unwrap();
    let cache = Cache::new(Arc::new(disk), FetchConfig::default()).with_peers(Some(peers));
    let version = version(3 * BLOCK_SIZE);
    let (own, others) = (Own::new(), Own::new());
    let mut read = cache.read(
        &version,
        Arc::clone(&own) as _,
        Directive::Use,
        0..3 * BLOCK_SIZE,
    );
    let first = tokio::spawn(async move { kit::drain(&mut read).await });
    while requests(&server) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let began = Instant::now();
    let source = Arc::clone(&others) as _;
    let mut lent = cache.lend(&version, source, Directive::Use, 0..3 * BLOCK_SIZE);
    let got = kit::drain(&mut lent).await.unwrap();
    assert!(got == expected(0..3 * BLOCK_SIZE));
    // The other read still waits for its peer, who is given two seconds.
    assert!(own.asked().is_empty(), "{:?}", began.elapsed());
    assert!(first.await.unwrap().unwrap() == expected(0..3 * BLOCK_SIZE));
    cache.close().await;
}

#[tokio::test]
async fn what_a_peer_brings_is_kept_and_what_the_origin_brings_comes_in_large_requests() {
    let server = peer(|ask, _| whole(ask)).await;
    let peers = peers_at(&server.url()).await;
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(&DiskConfig::new(dir.path(), 64 << 20, kit::ORIGIN)).unwrap();
    let cache = Cache::new(Arc::new(disk), FetchConfig::default()).with_peers(Some(peers));
    let version = version(17 * BLOCK_SIZE + 5);
    let own = Own::new();
    for directive in [Directive::Bypass, Directive::NoFill, Directive::Use] {
        let all = 0..version.size;
        let mut read = cache.read(&version, Arc::clone(&own) as _, directive, all.clone());
        assert!(
            kit::drain(&mut read).await.unwrap() == expected(all),
            "{directive:?}"
        );
    }
    assert_eq!(
        own.asked(),
        vec![0..version.size; 1],
        "the one that goes past all caches"
    );
    let asks: Vec<Ask> = server.seen().iter().filter_map(asked).collect();
    let kept = asks.iter().filter(|ask| ask.fills).count();
    assert!((1..asks.len()).contains(&kept), "no-cache says so to peers");
    while cache.present(&version) < version.size {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    // For a peer, all that he asks for is one request.
    let lent = kit::version(8 * BLOCK_SIZE);
    let source = Arc::clone(&own) as _;
    let mut read = cache.lend(&lent, source, Directive::Use, 0..8 * BLOCK_SIZE);
    assert!(kit::drain(&mut read).await.unwrap() == expected(0..8 * BLOCK_SIZE));
    assert_eq!(own.asked().last(), Some(&(0..8 * BLOCK_SIZE)));
    let statistics = cache.statistics();
    assert_eq!(statistics.misses, 2, "and is no read of this node's");
    cache.close().await;
}

#[tokio::test]
async fn a_scripted_peer_speaks_as_a_node_does() {
    // The kit's frames are those of the real thing.
    let [head, bytes, crc] = frame::of_bytes(Bytes::from(expected(0..10)));
    let written = [head, bytes, crc].concat();
    assert_eq!(written, kit::written(0..10, 1000));
}
