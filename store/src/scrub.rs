//! Reading everything back, to find what the disk has lost before somebody asks for it.
//!
//! Works on a store that is open, beside its readers and writers, and on one that is closed. Bytes
//! are read by `pread(2)`, not through the maps: a file that an upload still grows must not be
//! mapped at the length it has now.
//!
//! What the kernel holds in memory comes from there; only what does not is read from the disk.

use std::collections::HashSet;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data::Layout;
use crate::digest::{crc64, crc64_combine};
use crate::disk::{Disk, RealDisk};
use crate::entry::{BucketId, Extent};
use crate::error::{Error, IoContext, Result};
use crate::index::check::{self, Table};
use crate::index::{Index, extent};
use crate::recover::require_index;
use crate::store::{Store, take_lock};

/// Bytes read at a time.
const PIECE_SIZE: usize = 1 << 20;
/// Extents taken from the index at a time.
const PAGE_LEN: usize = 1000;

/// How far a scrub is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Extents looked at.
    pub extents: u64,
    /// Bytes looked at.
    pub bytes: u64,
    /// Bytes that there were when it began.
    pub bytes_total: u64,
}

/// Bytes that are not what was written.
#[derive(Debug)]
pub struct Damage {
    /// Bucket and key of the objects whose bytes they are; empty for parts and for what is kept to
    /// fall back on.
    pub objects: Vec<(BucketId, String)>,
    /// What was found: `Corrupt` or `Io`.
    pub error: Error,
    extent: u64,
}

/// What a scrub found.
#[derive(Debug, Default)]
pub struct ScrubReport {
    /// Damage, in the order in which it was come upon.
    pub damage: Vec<Damage>,
    /// How much was read.
    pub progress: ScrubProgress,
    /// Extents that have no CRC yet: it is computed within a second of their publication.
    pub unchecked: u64,
    /// Whether everything was read.
    pub is_complete: bool,
}

impl Store {
    /// Reads every byte of this open store and checks its CRC. Blocks for as long as that takes.
    ///
    /// `bytes_per_second` bounds how fast. `progress` is called after each MiB or extent; on
    /// `Break` the scrub ends.
    ///
    /// # Errors
    /// `Index`; what is wrong with the data is in the report.
    pub fn scrub_blocking(
        &self,
        bytes_per_second: Option<u64>,
        progress: impl FnMut(&ScrubProgress) -> ControlFlow<()>,
    ) -> Result<ScrubReport> {
        let (layout, index) = (&self.shared.layout, &self.shared.index);
        Scrub::new(layout, index, bytes_per_second, progress).run()
    }
}

/// As [`Store::scrub_blocking`], of a store that is closed; nothing in it changes.
///
/// # Errors
/// `Locked` if it is open; as there.
pub fn scrub_closed_blocking(
    data: &Path,
    bytes_per_second: Option<u64>,
    progress: impl FnMut(&ScrubProgress) -> ControlFlow<()>,
) -> Result<ScrubReport> {
    let layout = Layout::new(data);
    let _lock = take_lock(&layout)?;
    require_index(&layout)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (index, _connection) = Index::open(&layout.index(), disk.vfs())?;
    Scrub::new(&layout, &index, bytes_per_second, progress).run()
}

struct Scrub<'s, P> {
    layout: &'s Layout,
    index: &'s Index,
    bytes_per_second: Option<u64>,
    began: Instant,
    progress: P,
    report: ScrubReport,
    buffer: Vec<u8>,
}

impl<'s, P: FnMut(&ScrubProgress) -> ControlFlow<()>> Scrub<'s, P> {
    fn new(
        layout: &'s Layout,
        index: &'s Index,
        bytes_per_second: Option<u64>,
        progress: P,
    ) -> Self {
        Self {
            layout,
            index,
            bytes_per_second,
            began: Instant::now(),
            progress,
            report: ScrubReport::default(),
            buffer: vec![0; PIECE_SIZE],
        }
    }

    fn run(mut self) -> Result<ScrubReport> {
        self.report.progress.bytes_total = self.index.read(check::total_len)?;
        let ended = self.read_all()?;
        self.report.is_complete = ended.is_continue();
        self.name_objects()?;
        Ok(self.report)
    }

    fn read_all(&mut self) -> Result<ControlFlow<()>> {
        let mut after = 0;
        loop {
            let page = self
                .index
                .read(|connection| check::extents_after(connection, after, PAGE_LEN))?;
            let Some(last) = page.last() else {
                return Ok(ControlFlow::Continue(()));
            };
            after = last.id;
            for extent in page {
                if self.check(extent)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    /// Checks an extent; where it is wrong, looks once more where its bytes are now.
    fn check(&mut self, mut extent: Extent) -> Result<ControlFlow<()>> {
        self.report.progress.extents += 1;
        if extent.crc64.is_none() {
            self.report.unchecked += 1;
            return Ok(ControlFlow::Continue(()));
        }
        loop {
            let (flow, error) = match self.read(&extent) {
                Ok(flow) => return Ok(flow),
                Err(Wrong { flow, error }) => (flow, error),
            };
            // Deleted or moved since it was looked up: then what was read is nobody's any more.
            let now = self
                .index
                .read(|connection| extent::find(connection, extent.id))?;
            match now {
                None => return Ok(flow),
                Some(now) if (now.file, now.offset) != (extent.file, extent.offset) => extent = now,
                Some(_) => {
                    self.report.damage.push(Damage {
                        objects: Vec::new(),
                        error,
                        extent: extent.id,
                    });
                    return Ok(flow);
                }
            }
        }
    }

    /// Reads an extent at the pace that is allowed.
    fn read(&mut self, extent: &Extent) -> std::result::Result<ControlFlow<()>, Wrong> {
        let path = self.layout.path(extent.file, extent.packed);
        let failed = |flow, error| Wrong { flow, error };
        let file = File::open(&path)
            .io("open", &path)
            .map_err(|error| failed(ControlFlow::Continue(()), error))?;
        let (mut at, mut crc) = (0, crc64(&[]));
        let mut flow = ControlFlow::Continue(());
        while at < extent.len && flow.is_continue() {
            let piece =
                usize::try_from(extent.len - at).map_or(PIECE_SIZE, |left| left.min(PIECE_SIZE));
            let bytes = &mut self.buffer[..piece];
            file.read_exact_at(bytes, extent.offset + at)
                .io("read", &path)
                .map_err(|error| failed(flow, error))?;
            crc = crc64_combine(crc, crc64(bytes), piece as u64);
            at += piece as u64;
            self.report.progress.bytes += piece as u64;
            self.pace();
            flow = (self.progress)(&self.report.progress);
        }
        match extent.crc64 {
            Some(expected) if at == extent.len && crc != expected => Err(failed(
                flow,
                Error::Corrupt {
                    path,
                    offset: extent.offset,
                    len: extent.len,
                    expected,
                    found: crc,
                },
            )),
            _ => Ok(flow),
        }
    }

    /// Waits until the bytes read so far are no more than are allowed.
    fn pace(&self) {
        let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) else {
            return;
        };
        let nanos = u128::from(self.report.progress.bytes) * 1_000_000_000 / u128::from(rate);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        if let Some(early) = due.checked_sub(self.began.elapsed()) {
            std::thread::sleep(early);
        }
    }

    /// Finds the objects that damaged extents belong to: one walk through all rows, if there is
    /// damage.
    fn name_objects(&mut self) -> Result<()> {
        let damage = &mut self.report.damage;
        if damage.is_empty() {
            return Ok(());
        }
        let bad: HashSet<u64> = damage.iter().map(|damage| damage.extent).collect();
        self.index.read(|connection| {
            for table in [Table::Current, Table::Older] {
                check::namings(connection, table, |naming| {
                    for id in extent::decode_ids(&naming.extents).filter(|id| bad.contains(id)) {
                        let key = String::from_utf8_lossy(&naming.key).into_owned();
                        let bucket = BucketId(naming.bucket.unwrap_or(0));
                        for damage in damage.iter_mut().filter(|damage| damage.extent == id) {
                            damage.objects.push((bucket, key.clone()));
                        }
                    }
                    Ok(())
                })?;
            }
            Ok(())
        })
    }
}

/// Why an extent could not be read as it was written, and whether to go on.
struct Wrong {
    flow: ControlFlow<()>,
    error: Error,
}

impl Damage {
    /// The data file.
    pub fn path(&self) -> Option<&PathBuf> {
        match &self.error {
            Error::Corrupt { path, .. } | Error::Io { path, .. } => Some(path),
            _ => None,
        }
    }
}
