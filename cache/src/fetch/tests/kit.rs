//! An origin, a disk and readers for tests.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::sync::Semaphore;

use crate::fetch::blocks::{Blocks, Load, NotKept, ObjectBlocks, Probe};
use crate::fetch::{FetchConfig, Read, ReadError, Status};
use crate::source::{Chunks, FetchError, Fetching, Source};
use crate::version::{BLOCK_SIZE, Version};
use crate::{Cache, Directive};

/// One block, for short.
pub(super) const B: u64 = BLOCK_SIZE;

/// Bytes of every object: no two blocks are alike, since the length is prime.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
    let mut state = 1_u64;
    let bytes = (0..1_000_003).map(|_| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state.to_be_bytes()[0]
    });
    bytes.collect()
});

/// Some bytes of an object, from an offset on.
fn some_content(range: Range<u64>) -> Bytes {
    let len = PATTERN.len() as u64;
    let from = usize::try_from(range.start % len).unwrap();
    let wanted = usize::try_from(range.end - range.start).unwrap();
    PATTERN.slice(from..PATTERN.len().min(from + wanted))
}

/// Whether bytes are those of an object at an offset.
pub(super) fn is_content(offset: u64, bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        let start = offset + at as u64;
        let expected = some_content(start..offset + bytes.len() as u64);
        if bytes[at..at + expected.len()] != expected {
            return false;
        }
        at += expected.len();
    }
    true
}

pub(super) fn version(key: &str, size: u64) -> Arc<Version> {
    Arc::new(Version {
        bucket: "b".to_owned(),
        key: key.to_owned(),
        etag: "e".to_owned(),
        version_id: None,
        size,
    })
}

/// What one fetch does.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// What is asked for.
    Right,
    /// An error at once.
    Fails(FetchError),
    /// So many bytes, then an error.
    Breaks(u64, FetchError),
    /// So many bytes, then the end.
    Ends(u64),
    /// A byte more than asked for.
    Excess,
    /// The task comes to grief.
    Panics,
}

pub(super) fn unavailable() -> FetchError {
    FetchError::Unavailable("down".to_owned())
}

pub(super) fn denied() -> FetchError {
    FetchError::Denied("no".to_owned())
}

/// A source that does as it is told, and remembers what it was asked.
#[derive(Debug)]
pub(super) struct Origin {
    /// Ranges, in the order in which they were asked for.
    log: Mutex<Vec<Range<u64>>>,
    answers: Mutex<VecDeque<Answer>>,
    always: Mutex<Answer>,
    /// Bytes in a chunk.
    chunk: u64,
    /// Time before each chunk.
    delay: Duration,
    /// A permit for each chunk, if the test gives them.
    gate: Option<Arc<Semaphore>>,
    /// What is alive of the bytes that were sent, and the most that ever was.
    pub(super) live: Arc<Live>,
    pub(super) active: Arc<AtomicUsize>,
    pub(super) active_max: AtomicUsize,
}

impl Origin {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::plain())
    }

    fn plain() -> Self {
        Self {
            log: Mutex::default(),
            answers: Mutex::default(),
            always: Mutex::new(Answer::Right),
            chunk: 64 << 10,
            delay: Duration::ZERO,
            gate: None,
            live: Arc::default(),
            active: Arc::default(),
            active_max: AtomicUsize::new(0),
        }
    }

    pub(super) fn slow(delay: Duration, chunk: u64) -> Arc<Self> {
        Arc::new(Self {
            chunk,
            delay,
            ..Self::plain()
        })
    }

    /// An origin that sends a chunk for each permit.
    pub(super) fn gated(chunk: u64) -> (Arc<Self>, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let origin = Self {
            gate: Some(Arc::clone(&gate)),
            chunk,
            ..Self::plain()
        };
        (Arc::new(origin), gate)
    }

    /// What the next fetches do.
    pub(super) fn script(self: Arc<Self>, answers: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        self.answers.lock().unwrap().extend(answers);
        self
    }

    /// What fetches do that have no other instruction.
    pub(super) fn always(self: Arc<Self>, answer: Answer) -> Arc<Self> {
        *self.always.lock().unwrap() = answer;
        self
    }

    /// What was asked since the last look.
    pub(super) fn asked(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    /// The one range that was asked for.
    pub(super) fn asked_once(&self) -> Option<Range<u64>> {
        let mut asked = self.asked();
        let only = asked.pop();
        only.filter(|_| asked.is_empty())
    }

    /// Bytes that were asked for since the last look.
    pub(super) fn asked_bytes(&self) -> u64 {
        let asked = self.asked();
        asked.iter().map(|range| range.end - range.start).sum()
    }
}

/// Bytes that are somewhere in memory.
#[derive(Debug, Default)]
pub(super) struct Live {
    now: AtomicU64,
    pub(super) max: AtomicU64,
}

impl Live {
    fn track(self: Arc<Self>, bytes: Bytes) -> Bytes {
        struct Owner(Bytes, Arc<Live>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl Drop for Owner {
            fn drop(&mut self) {
                self.1.now.fetch_sub(self.0.len() as u64, Ordering::SeqCst);
            }
        }
        let len = bytes.len() as u64;
        let now = self.now.fetch_add(len, Ordering::SeqCst) + len;
        self.max.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(Owner(bytes, self))
    }
}

struct Active(Arc<AtomicUsize>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Source for Origin {
    fn fetch(&self, version: &Arc<Version>, range: Range<u64>) -> Fetching {
        assert!(
            range.start < range.end && range.end <= version.size,
            "{range:?}"
        );
        self.log.lock().unwrap().push(range.clone());
        let next = self.answers.lock().unwrap().pop_front();
        let answer = next.unwrap_or_else(|| self.always.lock().unwrap().clone());
        let now = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.active_max.fetch_max(now, Ordering::SeqCst);
        let active = Active(Arc::clone(&self.active));
        let (chunk, delay, gate) = (self.chunk, self.delay, self.gate.clone());
        let live = Arc::clone(&self.live);
        Box::pin(async move {
            let (end, last) = match answer {
                Answer::Right => (range.end, None),
                Answer::Fails(error) => return Err(error),
                Answer::Breaks(n, error) => (range.end.min(range.start + n), Some(Err(error))),
                Answer::Ends(n) => (range.end.min(range.start + n), None),
                Answer::Excess => (range.end, Some(Ok(Bytes::from_static(b"!")))),
                Answer::Panics => panic!("as told"),
            };
            let begin = (range.start, active);
            let chunks = stream::unfold(begin, move |(at, active)| {
                let (gate, live) = (gate.clone(), Arc::clone(&live));
                async move {
                    if at == end {
                        return None;
                    }
                    if !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    if let Some(gate) = gate {
                        gate.acquire().await.unwrap().forget();
                    }
                    let bytes = some_content(at..end.min(at + chunk));
                    let next = at + bytes.len() as u64;
                    Some((Ok(live.track(bytes)), (next, active)))
                }
            });
            Ok(Box::pin(chunks.chain(stream::iter(last))) as Chunks)
        })
    }
}

/// A disk in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryDisk {
    objects: Mutex<HashMap<Arc<Version>, Arc<MemoryObject>>>,
    pub(super) faults: Arc<Faults>,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Blocks are not taken.
    pub(super) refuse: AtomicBool,
    /// Blocks are loaded before they are ready.
    pub(super) cold: AtomicBool,
    /// Loads fail.
    pub(super) unreadable: AtomicBool,
    /// Blocks vanish as soon as they are put.
    pub(super) evict: AtomicBool,
    /// Time that a put takes, in ms.
    pub(super) put_ms: AtomicU64,
    /// Puts and loads don't return.
    pub(super) hangs: AtomicBool,
    /// Threads that are in such a call now.
    pub(super) hanging: AtomicUsize,
    pub(super) closed: AtomicBool,
}

impl Faults {
    fn has(flag: &AtomicBool) -> bool {
        flag.load(Ordering::SeqCst)
    }

    /// Returns when the disk does not hang.
    fn hang(&self) {
        self.hanging.fetch_add(1, Ordering::SeqCst);
        while Self::has(&self.hangs) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.hanging.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Stored {
    bytes: Bytes,
    ready: bool,
    corrupt: bool,
}

#[derive(Debug)]
pub(super) struct MemoryObject {
    version: Arc<Version>,
    blocks: Mutex<HashMap<u64, Stored>>,
    /// How often each block was put.
    puts: Mutex<HashMap<u64, u64>>,
    pub(super) pinned: AtomicBool,
    faults: Arc<Faults>,
}

impl MemoryDisk {
    pub(super) fn of(&self, version: &Arc<Version>) -> Arc<MemoryObject> {
        let mut objects = self.objects.lock().unwrap();
        let object = objects.entry(Arc::clone(version)).or_insert_with(|| {
            Arc::new(MemoryObject {
                version: Arc::clone(version),
                blocks: Mutex::default(),
                puts: Mutex::default(),
                pinned: AtomicBool::new(false),
                faults: Arc::clone(&self.faults),
            })
        });
        Arc::clone(object)
    }

    pub(super) fn set(flag: &AtomicBool) {
        flag.store(true, Ordering::SeqCst);
    }
}

impl MemoryObject {
    /// Puts a block there as it should be.
    pub(super) fn store(&self, block: u64) {
        let range = self.version.block_range(block);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < range.end - range.start {
            bytes.extend_from_slice(&some_content(range.start + bytes.len() as u64..range.end));
        }
        let stored = Stored {
            bytes: bytes.into(),
            ready: !Faults::has(&self.faults.cold),
            corrupt: false,
        };
        self.blocks.lock().unwrap().insert(block, stored);
    }

    pub(super) fn evict(&self, block: u64) {
        self.blocks.lock().unwrap().remove(&block);
    }

    /// The block will be found corrupt when it is loaded.
    pub(super) fn corrupt(&self, block: u64) {
        if let Some(stored) = self.blocks.lock().unwrap().get_mut(&block) {
            (stored.ready, stored.corrupt) = (false, true);
        }
    }

    /// Which blocks are there.
    pub(super) fn blocks(&self) -> BTreeSet<u64> {
        self.blocks.lock().unwrap().keys().copied().collect()
    }

    /// The most often that a block was put.
    pub(super) fn puts_max(&self) -> u64 {
        self.puts
            .lock()
            .unwrap()
            .values()
            .copied()
            .max()
            .unwrap_or(0)
    }
}

impl ObjectBlocks for MemoryObject {
    fn has(&self, block: u64) -> bool {
        self.blocks.lock().unwrap().contains_key(&block)
    }

    fn present(&self) -> u64 {
        self.blocks.lock().unwrap().len() as u64
    }

    fn probe(&self, block: u64) -> Probe {
        match self.blocks.lock().unwrap().get(&block) {
            None => Probe::Missing,
            Some(stored) if stored.ready => Probe::Ready(stored.bytes.clone()),
            Some(_) => Probe::Cold,
        }
    }

    fn load_blocking(&self, block: u64) -> Load {
        self.faults.hang();
        let mut blocks = self.blocks.lock().unwrap();
        let Some(stored) = blocks.get_mut(&block) else {
            return Load::Missing;
        };
        if Faults::has(&self.faults.unreadable) {
            return Load::Failed;
        }
        if stored.corrupt {
            blocks.remove(&block);
            return Load::Corrupt;
        }
        stored.ready = true;
        Load::Loaded(stored.bytes.clone())
    }

    fn put_blocking(&self, block: u64, pieces: &[Bytes]) -> Result<(), NotKept> {
        self.faults.hang();
        let wait = self.faults.put_ms.load(Ordering::SeqCst);
        if wait > 0 {
            std::thread::sleep(Duration::from_millis(wait));
        }
        let range = self.version.block_range(block);
        let bytes: Bytes = pieces.concat().into();
        assert_eq!(bytes.len() as u64, range.end - range.start, "a whole block");
        assert!(is_content(range.start, &bytes), "the right bytes are kept");
        if Faults::has(&self.faults.refuse) {
            return Err(NotKept::NoRoom("full".to_owned()));
        }
        *self.puts.lock().unwrap().entry(block).or_default() += 1;
        if !Faults::has(&self.faults.evict) {
            let stored = Stored {
                bytes,
                ready: !Faults::has(&self.faults.cold),
                corrupt: false,
            };
            self.blocks.lock().unwrap().insert(block, stored);
        }
        Ok(())
    }

    fn pinned(&self) -> bool {
        self.pinned.load(Ordering::SeqCst)
    }

    fn pin(&self, pinned: bool) {
        self.pinned.store(pinned, Ordering::SeqCst);
    }
}

impl Blocks for MemoryDisk {
    fn object(&self, version: &Arc<Version>) -> Arc<dyn ObjectBlocks> {
        self.of(version)
    }

    fn close_blocking(&self) {
        MemoryDisk::set(&self.faults.closed);
    }
}

pub(super) fn cache() -> (Cache, Arc<MemoryDisk>) {
    cache_with(FetchConfig::default())
}

pub(super) fn cache_with(config: FetchConfig) -> (Cache, Arc<MemoryDisk>) {
    let disk = Arc::new(MemoryDisk::default());
    let blocks: Arc<dyn Blocks> = Arc::<MemoryDisk>::clone(&disk);
    (Cache::over(blocks, config), disk)
}

/// Reads to the end; checks every byte and that frames are of the right size.
pub(super) async fn drain(read: &mut Read, range: Range<u64>) -> Result<(), ReadError> {
    let mut at = range.start;
    while let Some(frame) = read.next().await {
        let frame = frame?;
        assert!(
            !frame.is_empty() && frame.len() as u64 <= B,
            "{}",
            frame.len()
        );
        assert!(is_content(at, &frame), "wrong bytes at {at}");
        at += frame.len() as u64;
    }
    assert_eq!(at, range.end, "exactly the range");
    Ok(())
}

/// Reads a range to its end.
pub(super) async fn read(
    cache: &Cache,
    version: &Arc<Version>,
    origin: &Arc<Origin>,
    directive: Directive,
    range: Range<u64>,
) -> Result<Status, ReadError> {
    let source: Arc<dyn Source> = Arc::<Origin>::clone(origin);
    let mut read = cache.read(version, source, directive, range.clone());
    let status = read.status();
    drain(&mut read, range).await?;
    assert!(read.next().await.is_none(), "nothing follows");
    Ok(status)
}

/// Waits until nothing is in flight.
pub(super) async fn quiet(cache: &Cache) {
    for _ in 0..10_000 {
        if cache.in_flight() == (0, 0) && cache.statistics().bytes_in_flight == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!(
        "still in flight: {:?} {:?}",
        cache.in_flight(),
        cache.statistics()
    );
}
