//! Data files: where they are, and the ones that are open and mapped.
//!
//! ```text
//! segments/0000000001.seg        small objects, packed; see segment.rs
//! files/01/000000000000013f.obj  one object, or the parts of one upload
//! staging/0000000000000140       a file that is open for writing on the mount
//! ```
//! A file's number is its [`FileId`]; the two digits of its directory are the number's last byte
//! but one. Files that are made one after the other so lie in one directory, which a batch syncs
//! once.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;

use crate::disk::{Disk, DiskFile};
use crate::entry::FileId;
use crate::error::{Error, IoContext, Result};
use crate::limits::OPEN_MAPS_MAX;
use crate::map::Map;

/// Where a data directory keeps what.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.sqlite")
    }

    /// Where an index is built anew.
    pub(crate) fn new_index(&self) -> PathBuf {
        self.root.join("index.sqlite.new")
    }

    /// Where the `number`-th index that was replaced is kept.
    pub(crate) fn broken_index(&self, number: u32) -> PathBuf {
        self.root.join(format!("index.sqlite.broken-{number}"))
    }

    /// Where data files are kept that say nothing of what they hold.
    pub(crate) fn unclaimed(&self) -> PathBuf {
        self.root.join("unclaimed")
    }

    /// Every directory of data files.
    pub(crate) fn data_dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.file_dirs().chain([self.segments()])
    }

    pub(crate) fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// The directory of a large object's file.
    pub(crate) fn file_dir(&self, id: FileId) -> PathBuf {
        self.files().join(format!("{:02x}", id.0 >> 8 & 0xff))
    }

    /// Every directory of large objects' files.
    pub(crate) fn file_dirs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (0..=0xff).map(|byte| self.file_dir(FileId(byte << 8)))
    }

    /// The path of a data file.
    pub(crate) fn path(&self, id: FileId, packed: bool) -> PathBuf {
        if packed {
            self.segments().join(format!("{:010}.seg", id.0))
        } else {
            self.file_dir(id).join(format!("{:016x}.obj", id.0))
        }
    }

    /// The path of a staging file.
    pub(crate) fn staged(&self, id: FileId) -> PathBuf {
        self.staging().join(format!("{:016x}", id.0))
    }

    /// The number that a data file's name gives, if it is one of ours.
    pub(crate) fn parse_name(name: &str) -> Option<(FileId, bool)> {
        if let Some(number) = name.strip_suffix(".seg") {
            return Some((FileId(number.parse().ok()?), true));
        }
        let number = name.strip_suffix(".obj")?;
        Some((FileId(u64::from_str_radix(number, 16).ok()?), false))
    }
}

/// A data file that is open and mapped.
pub(crate) struct OpenFile {
    pub(crate) disk_file: Arc<DiskFile>,
    pub(crate) map: Arc<Map>,
    /// The whole map, to be sliced.
    pub(crate) bytes: Bytes,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile")
            .field("file", &self.disk_file)
            .finish_non_exhaustive()
    }
}

/// The data files that are open, the least recently used closed first.
///
/// Whoever holds an [`OpenFile`] keeps it readable, closed here or removed from the disk.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    layout: Layout,
    disk: Arc<dyn Disk>,
    open: Mutex<LruCache<FileId, Arc<OpenFile>>>,
}

impl OpenFiles {
    pub(crate) fn new(layout: Layout, disk: Arc<dyn Disk>) -> Self {
        let capacity = NonZeroUsize::new(OPEN_MAPS_MAX).expect("a limit is not zero");
        Self {
            layout,
            disk,
            open: Mutex::new(LruCache::new(capacity)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<FileId, Arc<OpenFile>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of this number, opened and mapped if it was not.
    ///
    /// # Errors
    /// `Io`; of kind `NotFound` if the file was collected.
    pub(crate) fn get(&self, id: FileId, packed: bool) -> Result<Arc<OpenFile>> {
        if let Some(open) = self.lock().get(&id) {
            return Ok(Arc::clone(open));
        }
        let path = self.layout.path(id, packed);
        let disk_file = self.disk.open(&path).io("open", &path)?;
        self.insert(id, disk_file)
    }

    /// Takes in a file that is open already. Its length must be final.
    pub(crate) fn insert(&self, id: FileId, disk_file: Arc<DiskFile>) -> Result<Arc<OpenFile>> {
        let path = disk_file.path.clone();
        let len = disk_file.file.metadata().io("stat", &path)?.len();
        let len = usize::try_from(len).map_err(|_| Error::TooLarge {
            size: len,
            max: usize::MAX as u64,
        })?;
        let map = Arc::new(Map::new(&disk_file.file, len).io("map", &path)?);
        let bytes = Arc::clone(&map).into_bytes();
        let open = Arc::new(OpenFile {
            disk_file,
            map,
            bytes,
        });
        self.lock().put(id, Arc::clone(&open));
        Ok(open)
    }

    /// Forgets a file that is going to be removed.
    pub(crate) fn forget(&self, id: FileId) {
        self.lock().pop(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_back_the_number_it_was_made_of() {
        let layout = Layout::new(Path::new("/d"));
        for (id, packed) in [
            (FileId(0x13f), false),
            (FileId(7), true),
            (FileId(u64::MAX), false),
        ] {
            let path = layout.path(id, packed);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(Layout::parse_name(name), Some((id, packed)));
        }
        assert_eq!(
            layout.path(FileId(0x13f), false),
            Path::new("/d/files/01/000000000000013f.obj")
        );
        assert_eq!(Layout::parse_name("x.obj"), None);
    }
}
