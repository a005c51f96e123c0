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

/// Bytes that are written with zeros ahead of what is appended.
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
}

impl Appender {
    pub(crate) fn new(layout: Layout, disk: Arc<dyn Disk>, segment_size: u64) -> Self {
        Self {
            layout,
            disk,
            segment_size,
            active: None,
            filled: Vec::new(),
        }
    }

    /// Goes on with a segment whose published length is `len` bytes.
    pub(crate) fn resume(&mut self, id: FileId, len: u64) -> Result<()> {
        let path = self.layout.path(id, true);
        let file = self.disk.open(&path).io("open", &path)?;
        let size = file.file.metadata().io("stat", &path)?.len();
        if size < len {
            // Damaged; what was published in it is for fsck to tell of, and nothing is added to it.
            tracing::error!(path = %path.display(), size, len, "a segment was cut: run `forebay fsck`");
            return Ok(());
        }
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

    /// Appends a record and its data; gives the extent and the segment's length behind it.
    ///
    /// `next_id` gives the number of a new segment.
    pub(crate) fn append(
        &mut self,
        extent_id: u64,
        record: &Record,
        data: &[&[u8]],
        crc64: u64,
        next_id: impl FnOnce() -> Result<u64>,
    ) -> Result<(Extent, u64)> {
        let data_len = data.iter().map(|piece| piece.len() as u64).sum();
        let head = Head::encode(extent_id, data_len, crc64, record);
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
            self.begin(FileId(next_id()?))?;
        }
        let active = self.active.as_mut().expect("begun above");
        let mut pieces = Vec::with_capacity(data.len() + 2);
        pieces.push(head.bytes.as_slice());
        pieces.extend_from_slice(data);
        pieces.push(padding(head.len(), data_len));
        active.dirty = true;
        if active.len + len > active.zeroed {
            let until = (active.len + len + ZEROED_AHEAD).min(active.size);
            write_zeros(&*self.disk, &active.file, active.zeroed, until)?;
            active.zeroed = until;
        }
        self.disk
            .write_at(&active.file, &pieces, active.len)
            .io("append to", &active.file.path)?;
        let offset = active.len + head.len();
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
