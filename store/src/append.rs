//! The segment that small objects are appended to.

use std::sync::Arc;

use crate::data::Layout;
use crate::disk::{Disk, DiskFile};
use crate::entry::{Extent, FileId};
use crate::error::{Error, IoContext, Result};
use crate::limits::{PACKED_SIZE_MAX, RECORD_HEAD_MAX};
use crate::record::Record;
use crate::segment::{Head, padding, record_len};

/// Smallest segment that is made where the disk has no room for a whole one.
const SEGMENT_SIZE_MIN: u64 = (RECORD_HEAD_MAX + PACKED_SIZE_MAX).next_multiple_of(1 << 20);

/// Bytes that are written with zeros ahead of what is appended, unless that is a large record.
///
/// Allocated space that was never written to is marked so by the file system; the first sync of
/// bytes in it has to take the mark off, in the journal. Once zeros are there, a sync of what
/// overwrites them is one flush, which is twice as fast.
const ZEROED_AHEAD: u64 = 1 << 20;

#[derive(Debug)]
struct Active {
    id: FileId,
    file: Arc<DiskFile>,
    size: u64,
    /// Bytes appended, published or not.
    len: u64,
    /// Up to where it was written, with zeros at least.
    zeroed: u64,
    /// Whether bytes were written since the last sync.
    dirty: bool,
}

/// Appends records; the committer's own.
#[derive(Debug)]
pub(crate) struct Appender {
    layout: Layout,
    disk: Arc<dyn Disk>,
    segment_size: u64,
    active: Option<Active>,
    /// Segments that were filled up since the last sync.
    filled: Vec<Arc<DiskFile>>,
    /// Heads of this batch that are logs.
    logs: Vec<Log>,
    /// Logs of changes that did not take place.
    unwanted: Vec<Log>,
}

/// A head that is the log of a change, and where it was written.
#[derive(Debug)]
struct Log {
    file: Arc<DiskFile>,
    offset: u64,
    head: Head,
}

impl Appender {
    pub(crate) fn new(layout: Layout, disk: Arc<dyn Disk>, segment_size: u64) -> Self {
        Self {
            layout,
            disk,
            segment_size,
            active: None,
            filled: Vec::new(),
            logs: Vec::new(),
            unwanted: Vec::new(),
        }
    }

    /// Goes on with a segment whose published length is `len` bytes.
    ///
    /// What lies behind was never published. It goes, so that no later start can take it for what
    /// was appended since.
    pub(crate) fn resume(&mut self, id: FileId, len: u64) -> Result<()> {
        let path = self.layout.path(id, true);
        let file = self.disk.open(&path).io("open", &path)?;
        let size = file.file.metadata().io("stat", &path)?.len();
        if size < len {
            // Damaged; what was published in it is for fsck to tell of, and nothing is added to it.
            tracing::error!(path = %path.display(), size, len, "a segment was cut: run `forebay fsck`");
            return Ok(());
        }
        let is_full = |err: &std::io::Error| err.kind() == std::io::ErrorKind::StorageFull;
        match self.disk.set_len(&file, len) {
            // It can't be appended to; the next record begins another.
            Err(err) if is_full(&err) => return Ok(()),
            done => done.io("cut", &path)?,
        }
        let size = match self.disk.allocate(&file, size) {
            Ok(()) => size,
            Err(err) if is_full(&err) => len,
            Err(err) => return Err(err).io("allocate", &path),
        };
        self.disk.sync_all(&file).io("sync", &path)?;
        self.active = Some(Active {
            id,
            file,
            size,
            len,
            zeroed: len,
            dirty: false,
        });
        Ok(())
    }

    /// The segment being appended to.
    pub(crate) fn active(&self) -> Option<FileId> {
        self.active.as_ref().map(|active| active.id)
    }

    /// Begins a batch, and does what the ones before it had to leave.
    ///
    /// # Errors
    /// As [`take_back`](Self::take_back).
    pub(crate) fn begin_batch(&mut self) -> Result<()> {
        self.take_back(0)
    }

    /// The changes of a batch took place: its logs stay.
    pub(crate) fn end_batch(&mut self) {
        self.logs.clear();
    }

    /// Whether `len` bytes can be appended without beginning a segment.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        let left = |active: &Active| active.size - active.len;
        self.active.as_ref().map_or(0, left) >= len
    }

    /// Appends a record and its data; gives the extent and the segment's length behind it.
    ///
    /// `logged` says that the record alone has to make the change good after a power cut;
    /// `next_id` gives the number of a new segment.
    pub(crate) fn append(
        &mut self,
        extent_id: u64,
        record: &Record,
        data: &[&[u8]],
        crc64: u64,
        logged: bool,
        next_id: impl FnOnce() -> u64,
    ) -> Result<(Extent, u64)> {
        let data_len = data.iter().map(|piece| piece.len() as u64).sum();
        let head = Head::encode(extent_id, data_len, crc64, record, logged);
        if head.len() > RECORD_HEAD_MAX {
            return Err(Error::TooLarge {
                size: head.len(),
                max: RECORD_HEAD_MAX,
            });
        }
        let len = record_len(head.len(), data_len);
        if self
            .active
            .as_ref()
            .is_none_or(|active| active.size - active.len < len)
        {
            self.begin(FileId(next_id()))?;
        }
        let active = self.active.as_mut().expect("begun above");
        let mut pieces = Vec::with_capacity(data.len() + 2);
        pieces.push(head.bytes.as_slice());
        pieces.extend_from_slice(data);
        pieces.push(padding(head.len(), data_len));
        active.dirty = true;
        if len > ZEROED_AHEAD / 4 {
            // To write all of it twice would cost more than its first sync does.
            active.zeroed = active.zeroed.max(active.len + len);
        } else if active.len + len > active.zeroed {
            let until = (active.len + len + ZEROED_AHEAD).min(active.size);
            write_zeros(&*self.disk, &active.file, active.zeroed, until)?;
            active.zeroed = until;
        }
        self.disk
            .write_at(&active.file, &pieces, active.len)
            .io("append to", &active.file.path)?;
        let offset = active.len + head.len();
        if logged {
            self.logs.push(Log {
                file: Arc::clone(&active.file),
                offset: active.len,
                head,
            });
        }
        active.len += len;
        assert!(
            active.len <= active.size,
            "a record lies within its segment"
        );
        let extent = Extent {
            id: extent_id,
            file: active.id,
            packed: true,
            offset,
            len: data_len,
            crc64: Some(crc64),
        };
        Ok((extent, active.len))
    }

    /// Number of logs written in this batch.
    pub(crate) fn logs(&self) -> usize {
        self.logs.len()
    }

    /// Has the logs of this batch from the `from`-th on be no logs: their changes do not take
    /// place.
    ///
    /// On a full disk that may have to wait for the next batch.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn take_back(&mut self, from: usize) -> Result<()> {
        self.unwanted.extend(self.logs.drain(from..));
        while let Some(log) = self.unwanted.last() {
            let head = log.head.as_no_log();
            match self.disk.write_at(&log.file, &[&head], log.offset) {
                Err(err) if err.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                done => done.io("write to", &log.file.path)?,
            }
            self.unwanted.pop();
            if let Some(active) = &mut self.active {
                active.dirty = true;
            }
        }
        Ok(())
    }

    /// Makes a new segment the active one.
    fn begin(&mut self, id: FileId) -> Result<()> {
        let path = self.layout.path(id, true);
        let file = self.disk.create(&path).io("create", &path)?;
        let mut size = self.segment_size;
        while let Err(err) = self.disk.allocate(&file, size) {
            if err.kind() != std::io::ErrorKind::StorageFull || size / 2 < SEGMENT_SIZE_MIN {
                // Nothing refers to it; a failure to remove it leaves an orphan for the next start.
                self.disk.remove(&path).io("remove", &path)?;
                return Err(err).io("allocate", &path);
            }
            size /= 2;
        }
        self.disk.sync_all(&file).io("sync", &path)?;
        let dir = self.layout.segments();
        self.disk.sync_dir(&dir).io("sync", &dir)?;
        if let Some(full) = self.active.replace(Active {
            id,
            file,
            size,
            len: 0,
            zeroed: 0,
            dirty: false,
        }) && full.dirty
        {
            self.filled.push(full.file);
        }
        Ok(())
    }

    /// Makes everything appended so far survive a power cut.
    ///
    /// # Errors
    /// `Io`; what is on the disk is unknown then, and it must not be tried again.
    pub(crate) fn sync(&mut self) -> Result<()> {
        for file in self.filled.drain(..) {
            self.disk.sync_data(&file).io("sync", &file.path)?;
        }
        if let Some(active) = self.active.as_mut().filter(|active| active.dirty) {
            self.disk
                .sync_data(&active.file)
                .io("sync", &active.file.path)?;
            active.dirty = false;
        }
        Ok(())
    }
}

/// Writes zeros from `from` up to `until`.
fn write_zeros(disk: &dyn Disk, file: &DiskFile, from: u64, until: u64) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut at = from;
    while at < until {
        let left = usize::try_from(until - at).unwrap_or(ZEROS.len());
        let piece = &ZEROS[..left.min(ZEROS.len())];
        disk.write_at(file, &[piece], at)
            .io("write to", &file.path)?;
        at += piece.len() as u64;
    }
    Ok(())
}
