//! Proving that index and data agree, in a store that is closed.
//!
//! Everything is looked at in one transaction: the index's own trees, every row that names bytes,
//! every extent, every data file. What a crash leaves by design is told apart from damage. A
//! repair puts right what follows from the rest without guessing; the rows it has to give up are
//! in the report.
//!
//! # Invariants
//! 1. Without `repair` no row changes and no file is removed.
//! 2. A repair removes no byte that a row which stays names.

mod problem;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior};

pub use problem::{Finding, Outcome, Problem};

use crate::data::{Layout, OpenFile, OpenFiles};
use crate::disk::{Disk, RealDisk};
use crate::entry::{Extent, FileId};
use crate::error::{Error, IndexContext, IoContext, Result};
use crate::flush::crc_of;
use crate::index::check::{self, Naming, RowId, Table};
use crate::index::extent::{self, FileUse};
use crate::index::{Index, unsynced};
use crate::limits::KEY_LEN_MAX;
use crate::segment::{self, Step};
use crate::store::take_lock;

/// What to check, and what to do about it.
#[derive(Clone, Debug)]
pub struct FsckOptions {
    /// The data directory.
    pub data: PathBuf,
    /// Whether to read all bytes and check their CRCs.
    pub deep: bool,
    /// Whether to put right what can be.
    pub repair: bool,
    /// The disk.
    pub disk: Arc<dyn Disk>,
}

impl FsckOptions {
    /// A look at the store in `data` that reads no more than it must and changes nothing.
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            deep: false,
            repair: false,
            disk: Arc::new(RealDisk),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Problems, in the order in which they were come upon.
    pub findings: Vec<Finding>,
    /// Current versions.
    pub objects: u64,
    /// Extents.
    pub extents: u64,
    /// Bytes of all extents.
    pub bytes: u64,
    /// Versions that the next start looks at: their bytes were not known to be synced.
    pub unsynced: u64,
}

impl FsckReport {
    /// 0: clean. 1: problems were found, and put right. 4: problems are left. As `e2fsck(8)` has
    /// them.
    pub fn exit_code(&self) -> u8 {
        let any = |outcome| {
            self.findings
                .iter()
                .any(|finding| finding.outcome == outcome)
        };
        if any(Outcome::Left) {
            4
        } else {
            u8::from(any(Outcome::Repaired))
        }
    }
}

/// Checks a store, and repairs it if that is asked for. Blocks.
///
/// # Errors
/// `Locked` if the store is open; `Io` if there is no index, or the check itself fails. What is
/// wrong with the store is in the report.
pub fn fsck_blocking(options: &FsckOptions) -> Result<FsckReport> {
    let layout = Layout::new(&options.data);
    let _lock = take_lock(&layout)?;
    fs::metadata(layout.index()).io("find", &layout.index())?;
    let mut checker = Checker {
        files: OpenFiles::new(layout.clone(), Arc::clone(&options.disk)),
        layout,
        disk: Arc::clone(&options.disk),
        deep: options.deep,
        report: FsckReport::default(),
        lost: Vec::new(),
        unlisted: Vec::new(),
    };
    match checker.run(options.repair) {
        // An index that can't be read is a finding, not a failure.
        Err(Error::Index { action, source }) => {
            let text = format!("{action}: {source}");
            checker.find(Problem::IndexDamaged(text));
        }
        done => done?,
    }
    Ok(checker.report)
}

struct Checker {
    layout: Layout,
    disk: Arc<dyn Disk>,
    files: OpenFiles,
    deep: bool,
    report: FsckReport,
    /// Rows whose bytes are gone.
    lost: Vec<RowId>,
    /// Data files that the index knows nothing of.
    unlisted: Vec<PathBuf>,
}

impl Checker {
    fn find(&mut self, problem: Problem) {
        let outcome = match problem {
            Problem::FileUnlisted { .. } => Outcome::Leftover,
            _ => Outcome::Left,
        };
        self.report.findings.push(Finding { problem, outcome });
    }

    fn run(&mut self, repair: bool) -> Result<()> {
        let (_index, mut connection) = Index::open(&self.layout.index(), self.disk.vfs())?;
        let lines = check::integrity(&connection)?;
        if !lines.is_empty() {
            for line in lines {
                self.find(Problem::IndexDamaged(line));
            }
            return Ok(());
        }
        let behavior = TransactionBehavior::Immediate;
        let transaction = connection
            .transaction_with_behavior(behavior)
            .index("begin")?;
        self.check(&transaction)?;
        if !repair || self.report.findings.is_empty() {
            return Ok(());
        }
        let mut before = std::mem::take(&mut self.report);
        self.repair(&transaction)?;
        self.check_again(&transaction, &mut before)?;
        self.report = before;
        transaction.commit().index("commit the repair")?;
        self.remove_unlisted()
    }

    /// Tells by another look what a repair has put right.
    fn check_again(&mut self, connection: &Connection, before: &mut FsckReport) -> Result<()> {
        // Bytes are not read twice: no repair has touched them.
        self.deep = false;
        self.lost.clear();
        self.unlisted.clear();
        self.check(connection)?;
        let left = std::mem::take(&mut self.report.findings);
        for finding in &mut before.findings {
            let stays = match finding.problem {
                Problem::DataDamaged { .. } => true,
                Problem::FileUnlisted { .. } => false,
                _ => left.iter().any(|left| left.problem == finding.problem),
            };
            if !stays {
                finding.outcome = Outcome::Repaired;
            }
        }
        for new in left {
            let unlisted = matches!(new.problem, Problem::FileUnlisted { .. });
            if !unlisted && before.findings.iter().all(|old| old.problem != new.problem) {
                before.findings.push(new);
            }
        }
        Ok(())
    }

    fn check(&mut self, connection: &Connection) -> Result<()> {
        let (highest, limit) = check::highest_number(connection)?;
        if highest >= limit {
            self.find(Problem::NumbersReused { highest, limit });
        }
        check::count_names(connection)?;
        for (extent, counted, recorded) in check::wrong_refs(connection)? {
            self.find(if counted == 0 {
                Problem::ExtentUnreferenced { extent }
            } else {
                Problem::RefsWrong {
                    extent,
                    counted,
                    recorded,
                }
            });
        }
        let used = self.check_files(connection)?;
        self.check_idle_files(connection, &used)?;
        self.check_rows(connection)?;
        self.check_strays(connection)?;
        self.report.unsynced = unsynced::all(connection)?.len() as u64;
        Ok(())
    }

    /// Checks every extent against its file; gives the files that extents lie in.
    fn check_files(&mut self, connection: &Connection) -> Result<HashSet<FileId>> {
        let mut used = HashSet::new();
        by_file(connection, |id, extents| {
            used.insert(id);
            self.check_file(connection, id, extents)
        })?;
        Ok(used)
    }

    fn check_file(
        &mut self,
        connection: &Connection,
        id: FileId,
        extents: &[Extent],
    ) -> Result<()> {
        let packed = extents.iter().any(|extent| extent.packed);
        let path = self.layout.path(id, packed);
        self.report.extents += extents.len() as u64;
        self.report.bytes += extents.iter().map(|extent| extent.len).sum::<u64>();
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                self.find(Problem::FileMissing {
                    path,
                    extents: extents.len() as u64,
                });
                return extents
                    .iter()
                    .try_for_each(|extent| check::note_gone(connection, extent.id));
            }
            Err(err) => return Err(err).io("stat", &path),
        };
        let (mut end, mut inside) = (0, Vec::with_capacity(extents.len()));
        for extent in extents {
            let (offset, len) = (extent.offset, extent.len);
            if offset.checked_add(len).is_none_or(|end| end > size) {
                let path = path.clone();
                self.find(Problem::ExtentOutOfFile {
                    path,
                    offset,
                    len,
                    size,
                });
                check::note_gone(connection, extent.id)?;
                continue;
            }
            // A file of its own may have bytes that several objects share, each its range.
            if packed && offset < end {
                let path = path.clone();
                self.find(Problem::ExtentsOverlap { path, offset });
            }
            end = end.max(offset + len);
            inside.push(*extent);
        }
        let recorded = check::file_use(connection, id)?;
        if recorded != Some((packed, sum_up(extents, packed, recorded, size))) {
            self.find(Problem::FileCountsWrong { path: path.clone() });
        }
        self.check_bytes(id, packed, &inside)
    }

    /// Checks the records of a segment, and all bytes if that is asked for.
    fn check_bytes(&mut self, id: FileId, packed: bool, extents: &[Extent]) -> Result<()> {
        if extents.is_empty() || !packed && !self.deep {
            return Ok(());
        }
        let open = self.files.get(id, packed)?;
        if packed {
            self.check_records(&open, extents);
        }
        if !self.deep {
            return Ok(());
        }
        for extent in extents {
            let Some(expected) = extent.crc64 else {
                continue;
            };
            let why = match crc_of(extent, &open) {
                Ok(found) if found == expected => continue,
                Ok(found) => format!("CRC-64/NVME {found:016x}, the index has {expected:016x}"),
                Err(Error::Io { source, .. }) => source.to_string(),
                Err(err) => return Err(err),
            };
            self.find(Problem::DataDamaged {
                path: open.disk_file.path.clone(),
                offset: extent.offset,
                len: extent.len,
                why,
            });
        }
        // What was read is not to stay mapped, however large the store is.
        let path = &open.disk_file.path;
        open.map.release(0, open.map.len()).io("release", path)?;
        self.files.forget(id);
        Ok(())
    }

    /// Checks that each extent of a segment has its record right before it. The extents are in
    /// order.
    fn check_records(&mut self, open: &OpenFile, extents: &[Extent]) {
        let end = extents.last().map_or(0, |last| last.offset + last.len);
        let mut left = extents.iter().peekable();
        let mut damaged = Vec::new();
        for step in segment::walk(&open.bytes, end) {
            let Step::Record(found) = step else { continue };
            while let Some(early) = left.next_if(|extent| extent.offset < found.data_offset) {
                damaged.push(early.offset);
            }
            let right = |extent: &&Extent| {
                extent.offset == found.data_offset
                    && extent.id == found.extent_id
                    && extent.len == found.data_len
                    && extent.crc64 == Some(found.data_crc)
            };
            if left.next_if(right).is_none()
                && let Some(wrong) = left.next_if(|extent| extent.offset == found.data_offset)
            {
                damaged.push(wrong.offset);
            }
        }
        damaged.extend(left.map(|extent| extent.offset));
        for offset in damaged {
            let path = open.disk_file.path.clone();
            self.find(Problem::RecordDamaged { path, offset });
        }
    }

    /// Checks the files that no extent lies in, and those that the index does not know.
    fn check_idle_files(&mut self, connection: &Connection, used: &HashSet<FileId>) -> Result<()> {
        let mut known = used.clone();
        for (id, packed, file_use) in extent::files(connection)? {
            if known.insert(id) && (file_use.live, file_use.refs) != (0, 0) {
                let path = self.layout.path(id, packed);
                self.find(Problem::FileCountsWrong { path });
            }
        }
        known.extend(check::upload_files(connection)?.into_iter().map(FileId));
        let dirs: Vec<PathBuf> = self.layout.data_dirs().collect();
        for dir in dirs {
            for name in names(&dir)? {
                let path = dir.join(&name);
                // What is not named as ours is not ours to tell of.
                if Layout::parse_name(&name).is_some_and(|(id, _)| !known.contains(&id)) {
                    self.unlisted.push(path.clone());
                    self.find(Problem::FileUnlisted { path });
                }
            }
        }
        Ok(())
    }

    fn check_rows(&mut self, connection: &Connection) -> Result<()> {
        let buckets: HashSet<u64> = check::bucket_ids(connection)?.into_iter().collect();
        for table in Table::ALL {
            check::namings(connection, table, |naming| {
                if table == Table::Current {
                    self.report.objects += 1;
                }
                self.check_row(connection, &buckets, &naming)
            })?;
        }
        Ok(())
    }

    fn check_row(
        &mut self,
        connection: &Connection,
        buckets: &HashSet<u64>,
        naming: &Naming,
    ) -> Result<()> {
        if let Some(why) = what_is_lost(connection, naming)? {
            let what = describe(naming);
            self.find(Problem::BytesLost { what, why });
            self.lost.push(naming.row.clone());
            return Ok(());
        }
        let Some(bucket) = naming.bucket else {
            let what = format!("{} belongs to no upload", describe(naming));
            self.find(Problem::Stray(what));
            return Ok(());
        };
        let valid = (1..=KEY_LEN_MAX).contains(&naming.key.len());
        if !valid || std::str::from_utf8(&naming.key).is_err() {
            let what = describe(naming);
            self.find(Problem::KeyInvalid { what });
        }
        if !naming.readable {
            let what = describe(naming);
            self.find(Problem::RowUnreadable { what });
        }
        if !buckets.contains(&bucket) && naming.row.table != Table::Parts {
            let what = describe(naming);
            self.find(Problem::BucketMissing { what });
        }
        Ok(())
    }

    fn check_strays(&mut self, connection: &Connection) -> Result<()> {
        for id in check::stray_fallbacks(connection)? {
            let what = format!("what version {id} replaced is kept, and that version is safe");
            self.find(Problem::Stray(what));
        }
        for bucket in check::stray_uploads(connection)? {
            let what = format!("uploads are in progress to bucket {bucket}, which is not there");
            self.find(Problem::Stray(what));
        }
        Ok(())
    }

    fn repair(&mut self, connection: &Connection) -> Result<()> {
        for row in &self.lost {
            check::remove_row(connection, row)?;
        }
        check::remove_strays(connection)?;
        check::recount_extents(connection)?;
        let uploads: HashSet<u64> = check::upload_files(connection)?.into_iter().collect();
        let mut used = HashSet::new();
        by_file(connection, |id, extents| {
            used.insert(id);
            let packed = extents.iter().any(|extent| extent.packed);
            let path = self.layout.path(id, packed);
            let size = fs::metadata(&path).io("stat", &path)?.len();
            let recorded = check::file_use(connection, id)?;
            let file_use = sum_up(extents, packed, recorded, size);
            check::set_file_use(connection, id, packed, file_use)
        })?;
        for (id, ..) in extent::files(connection)? {
            if used.contains(&id) || uploads.contains(&id.0) {
                continue;
            }
            extent::remove_file(connection, id)?;
        }
        let (highest, limit) = check::highest_number(connection)?;
        if highest >= limit {
            check::raise_limit(connection, highest)?;
        }
        Ok(())
    }

    /// Removes the data files that the index, as it is committed now, does not know.
    fn remove_unlisted(&mut self) -> Result<()> {
        self.unlisted
            .drain(..)
            .try_for_each(|path| self.disk.remove(&path).io("remove", &path))
    }
}

/// Visits the data files that extents lie in, each with all of its extents in the order of their
/// places.
fn by_file(
    connection: &Connection,
    mut visit: impl FnMut(FileId, &[Extent]) -> Result<()>,
) -> Result<()> {
    let mut group: Vec<Extent> = Vec::new();
    check::extents(connection, |extent| {
        if let Some(last) = group.last()
            && last.file != extent.file
        {
            visit(last.file, &group)?;
            group.clear();
        }
        group.push(extent);
        Ok(())
    })?;
    match group.last() {
        Some(last) => visit(last.file, &group),
        None => Ok(()),
    }
}

/// What a data file of `size` bytes holds. The published length of a segment is believed where it
/// can be true.
fn sum_up(
    extents: &[Extent],
    packed: bool,
    recorded: Option<(bool, FileUse)>,
    size: u64,
) -> FileUse {
    let end = extents
        .iter()
        .map(|extent| extent.offset.saturating_add(extent.len))
        .max()
        .unwrap_or(0);
    let believed = recorded.map_or(0, |(_, file_use)| file_use.size);
    let published = if packed && (believed < end || believed > size) {
        segment::align(end)
    } else {
        believed
    };
    let live = extents.iter().map(|extent| extent.len).sum::<u64>();
    FileUse {
        size: published,
        live: i64::try_from(live).unwrap_or(i64::MAX),
        refs: i64::try_from(extents.len()).unwrap_or(i64::MAX),
    }
}

/// Why a row's bytes are not all there; `None` if they are.
fn what_is_lost(connection: &Connection, naming: &Naming) -> Result<Option<&'static str>> {
    if !naming.extents.len().is_multiple_of(8) {
        return Ok(Some("its list of extents is cut short"));
    }
    let mut total = 0_u64;
    for id in extent::decode_ids(&naming.extents) {
        match check::extent_state(connection, id)? {
            None => return Ok(Some("the index does not say where its bytes are")),
            Some((_, true)) => return Ok(Some("its bytes are not in their file")),
            Some((len, false)) => total = total.saturating_add(len),
        }
    }
    Ok((total != naming.size).then_some("its bytes are not as many as its size"))
}

fn describe(naming: &Naming) -> String {
    let key = String::from_utf8_lossy(&naming.key);
    let bucket = naming.bucket.unwrap_or(0);
    match naming.row.table {
        Table::Current => format!("object {key:?} of bucket {bucket}"),
        Table::Older => format!("an older version of {key:?} of bucket {bucket}"),
        Table::Fallbacks => {
            format!("the version of {key:?} of bucket {bucket} before an unsynced one")
        }
        Table::Parts => format!("a part of an upload of {key:?} to bucket {bucket}"),
    }
}

/// The names in a directory; none if it is not there.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(names),
        entries => entries.io("list", dir)?,
    };
    for entry in entries {
        names.extend(entry.io("list", dir)?.file_name().into_string());
    }
    Ok(names)
}
