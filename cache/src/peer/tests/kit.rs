//! An origin that counts what it is asked for, and what scripted peers say.

use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream};

use crate::cluster::ClusterKey;
use crate::fetch::{Read, ReadError};
use crate::origin::Authorization;
use crate::origin::tests::script::{Step, answer, send};
use crate::peer::{Help, Peers, PeersConfig, Standing, Who, frame};
use crate::source::{Authorizing, Chunks, FetchError, Fetching, Source};
use crate::version::Version;

pub(super) const ORIGIN: &str = "http://store:9000";
pub(super) const TOKEN: &str = "a-grant";

pub(super) fn key() -> ClusterKey {
    ClusterKey::new(b"0123456789abcdef0123456789abcdef").unwrap()
}

/// Length of what all objects consist of, again and again: a prime, so that no block is like
/// another.
const PATTERN_LEN: usize = 1_000_003;

/// The bytes of all objects. Scripts answer within half a second, so they are quick to be had.
pub(super) fn expected(range: Range<u64>) -> Vec<u8> {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern = PATTERN.get_or_init(|| {
        let byte = |at: u64| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56).to_le_bytes()[0];
        (0..PATTERN_LEN as u64).map(byte).collect()
    });
    let len = usize::try_from(range.end - range.start).unwrap();
    let mut at = usize::try_from(range.start).unwrap() % PATTERN_LEN;
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let end = PATTERN_LEN.min(at + len - bytes.len());
        bytes.extend_from_slice(&pattern[at..end]);
        at = 0;
    }
    bytes
}

pub(super) fn version(size: u64) -> Arc<Version> {
    Arc::new(Version {
        bucket: "b".to_owned(),
        key: format!("k{size}"),
        etag: "e".to_owned(),
        version_id: None,
        size,
    })
}

/// The origin, on behalf of a reader.
#[derive(Debug, Default)]
pub(super) struct Own {
    asked: Mutex<Vec<Range<u64>>>,
    fails: Option<FetchError>,
}

impl Own {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn failing(error: FetchError) -> Arc<Self> {
        Arc::new(Self {
            fails: Some(error),
            ..Self::default()
        })
    }

    /// Ranges that it was asked for.
    pub(super) fn asked(&self) -> Vec<Range<u64>> {
        self.asked.lock().unwrap().clone()
    }
}

impl Source for Own {
    fn fetch(&self, _: &Arc<Version>, range: Range<u64>) -> Fetching {
        self.asked.lock().unwrap().push(range.clone());
        let answer = if let Some(error) = &self.fails {
            Err(error.clone())
        } else {
            let pieces = expected(range);
            let pieces: Vec<_> = pieces
                .chunks(50_000)
                .map(|piece| Ok(Bytes::copy_from_slice(piece)))
                .collect();
            Ok(Box::pin(stream::iter(pieces)) as Chunks)
        };
        Box::pin(std::future::ready(answer))
    }

    fn authorize(&self, _: &Arc<Version>) -> Authorizing {
        let grant = Authorization::Grant(TOKEN.to_owned());
        Box::pin(std::future::ready(Ok(Some(grant))))
    }
}

/// All bytes of a range, or why not.
pub(super) async fn read(
    help: &Arc<Help>,
    version: &Arc<Version>,
    range: Range<u64>,
) -> Result<Vec<u8>, FetchError> {
    let chunks = help.source().fetch(version, range).await?;
    chunks
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

pub(super) async fn drain(read: &mut Read) -> Result<Vec<u8>, ReadError> {
    let mut all = Vec::new();
    while let Some(bytes) = read.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all)
}

/// Peers at these places, of whom nobody has been greeted.
pub(super) fn peers(list: &str) -> Arc<Peers> {
    Peers::new(PeersConfig {
        who: Who::parse(list).unwrap(),
        own: None,
        origin: ORIGIN.to_owned(),
        cluster_key: key(),
        ca_file: None,
    })
    .unwrap()
}

/// Peers that are alive.
pub(super) async fn peers_at(list: &str) -> Arc<Peers> {
    let peers = peers(list);
    peers.greet_strangers().await;
    let list = peers.list();
    assert!(
        list.iter().all(|peer| peer.1 == Standing::Alive),
        "{list:?}"
    );
    peers
}

/// The URL of a run's home.
pub(super) fn home_of(peers: &Peers, run: u64) -> Option<String> {
    let home = peers.home(1, run)?;
    Some(home.endpoint.to_string())
}

/// How a peer answers a greeting.
pub(super) fn hello() -> Vec<Step> {
    let text = format!("{{\"id\":\"00\",\"origin\":\"{ORIGIN}\"}}");
    let answer = answer(200, "connection: close\r\n", text.as_bytes());
    vec![answer, Step::Close]
}

/// The head of an answer with bytes, which end with the connection.
pub(super) fn ok() -> Step {
    send("HTTP/1.1 200 X\r\nx-forebay-cache: HIT\r\nconnection: close\r\n\r\n")
}

/// Bytes of a range, so many a frame.
pub(super) fn frames(range: Range<u64>, len: u64) -> Step {
    Step::Send(written(range, len))
}

/// The same as they are written.
pub(super) fn written(range: Range<u64>, len: u64) -> Vec<u8> {
    let mut all = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let end = range.end.min(start + len);
        let bytes = Bytes::from(expected(start..end));
        for piece in frame::of_bytes(bytes) {
            all.extend_from_slice(&piece);
        }
        start = end;
    }
    all
}
