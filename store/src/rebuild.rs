//! Making a new index of the data alone, after the worst day.
//!
//! Every record in the segments and every label of a file of its own is read, its bytes are
//! checked, and of each key the newest version that is whole is taken. Accounts, access keys and
//! buckets are taken over from the old index where that can still be read. What can't come back is
//! listed in `FORMAT.md`, section 6.
//!
//! # Invariants
//! 1. Nothing is removed: the old index is kept aside, and so is every data file that says nothing
//!    of what it holds.
//! 2. The new index takes its place only when it is whole and synced.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use crate::accounts::{Accounts, NOBODY, nobody};
use crate::data::{Layout, OpenFile, OpenFiles};
use crate::disk::{Disk, LABEL, RealDisk};
use crate::entry::{Account, Bucket, BucketId, Entry, Extent, FileId};
use crate::error::{Error, IndexContext, IoContext, Result};
use crate::flush::crc_of;
use crate::index::extent::{self, FileUse};
use crate::index::{self, Index, check, object};
use crate::name::{AccountId, BucketName, ObjectKey};
use crate::record::Record;
use crate::segment::{self, Step};
use crate::store::{ROOT_ACCOUNT, take_lock};
use crate::sys;
use crate::time::Timestamp;

/// What a rebuilt index has, and what it could not take in.
#[derive(Debug, Default)]
pub struct RebuildReport {
    /// Objects.
    pub objects: u64,
    /// Bytes of all objects.
    pub bytes: u64,
    /// Buckets that the old index did not give.
    pub buckets_made: u64,
    /// Accounts that the old index did not give; they have no access keys.
    pub accounts_made: u64,
    /// Whether accounts, keys and buckets of the old index could be taken over.
    pub is_salvaged: bool,
    /// Objects whose bytes had no CRC to check.
    pub unchecked: u64,
    /// What could not be taken in, in words.
    pub skipped: Vec<String>,
    /// Where the old index is now, if there was one.
    pub old_index: Option<PathBuf>,
}

/// Builds a new index of the data in `data`, and puts it in the place of the old one. Blocks.
///
/// # Errors
/// `Locked` if the store is open; `Io`, `Index`. The old index is in its place still, unless the
/// failure was in the last step; then opening says so, and this can be run again.
pub fn rebuild_index_blocking(data: &Path) -> Result<RebuildReport> {
    let layout = Layout::new(data);
    let _lock = take_lock(&layout)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    remove_index(&layout.new_index(), &*disk)?;
    let (new, connection) = Index::open(&layout.new_index(), disk.vfs())?;
    let mut builder = Builder {
        files: OpenFiles::new(layout.clone(), Arc::clone(&disk)),
        layout: layout.clone(),
        disk: Arc::clone(&disk),
        connection,
        accounts: Accounts::default(),
        buckets: HashMap::new(),
        objects_of: HashMap::new(),
        parts: HashMap::new(),
        unclaimed: Vec::new(),
        highest: 0,
        report: RebuildReport::default(),
    };
    builder.run()?;
    let Builder {
        connection,
        mut report,
        ..
    } = builder;
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .index("checkpoint the new index")?;
    drop((connection, new));
    report.old_index = replace_index(&layout, &*disk)?;
    Ok(report)
}

/// The files of an index: itself, its log, the log's index.
fn index_files(index: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = index.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

fn remove_index(index: &Path, disk: &dyn Disk) -> Result<()> {
    for path in index_files(index) {
        if path.exists() {
            disk.remove(&path).io("remove", &path)?;
        }
    }
    Ok(())
}

/// Puts the new index in the place of the old one, which is kept aside.
fn replace_index(layout: &Layout, disk: &dyn Disk) -> Result<Option<PathBuf>> {
    let rename = |from: &Path, to: &Path| disk.rename(from, to).io("rename", from);
    let sync = || disk.sync_dir(layout.root()).io("sync", layout.root());
    let new = layout.new_index();
    let file = disk.open(&new).io("open", &new)?;
    disk.sync_all(&file).io("sync", &new)?;
    let (mut number, mut old_index) = (1, None);
    while index_files(&layout.broken_index(number))
        .iter()
        .any(|path| path.exists())
    {
        number += 1;
    }
    let kept = layout.broken_index(number);
    // The index goes first: a start in between finds none and refuses, and never takes one without
    // its log.
    for (from, to) in index_files(&layout.index()).iter().zip(index_files(&kept)) {
        if from.exists() {
            rename(from, &to)?;
            old_index = Some(kept.clone());
        }
    }
    sync()?;
    rename(&new, &layout.index())?;
    sync()?;
    Ok(old_index)
}

/// Where a part in a segment is.
#[derive(Clone, Copy, Debug)]
struct PartPlace {
    extent: u64,
    file: FileId,
    offset: u64,
}

struct Builder {
    layout: Layout,
    disk: Arc<dyn Disk>,
    files: OpenFiles,
    connection: Connection,
    accounts: Accounts,
    buckets: HashMap<String, BucketId>,
    /// Objects of each account, to tell which was the root account.
    objects_of: HashMap<AccountId, u64>,
    /// Parts in segments, by length and CRC: labels name them.
    parts: HashMap<(u64, u64), PartPlace>,
    /// Data files with bytes that nothing could be made of.
    unclaimed: Vec<(FileId, bool)>,
    /// The highest number met with.
    highest: u64,
    report: RebuildReport,
}

impl Builder {
    fn run(&mut self) -> Result<()> {
        let mut segments = data_files(&self.layout.segments())?;
        segments.sort_unstable();
        let mut files = Vec::new();
        for dir in self.layout.file_dirs() {
            files.extend(data_files(&dir)?);
        }
        files.sort_unstable();
        self.highest = segments
            .iter()
            .chain(&files)
            .map(|id| id.0)
            .max()
            .unwrap_or(0);
        self.connection.execute_batch("BEGIN").index("begin")?;
        self.salvage()?;
        for id in segments {
            self.read_segment(id)?;
        }
        for id in files {
            self.read_file(id)?;
        }
        self.set_aside()?;
        self.name_root()?;
        let (highest, _) = check::highest_number(&self.connection)?;
        check::raise_limit(&self.connection, highest.max(self.highest))?;
        self.connection.execute_batch("COMMIT").index("commit")
    }

    fn skip(&mut self, what: String) {
        tracing::warn!(what, "left out of the new index");
        self.report.skipped.push(what);
    }

    /// Takes accounts, access keys and buckets over from the old index, if it can be read that far.
    fn salvage(&mut self) -> Result<()> {
        let path = self.layout.index();
        if !path.exists() {
            return Ok(());
        }
        let read = || {
            let (_index, old) = Index::open(&path, self.disk.vfs())?;
            let (accounts, keys) = index::account::load(&old)?;
            self.accounts.replace(accounts.clone(), keys.clone());
            let buckets = index::bucket::load(&old, &self.accounts)?;
            Ok::<_, Error>((accounts, keys, buckets))
        };
        let (accounts, keys, buckets) = match read() {
            Ok(salvaged) => salvaged,
            Err(err) => {
                let text = format!("accounts, access keys and buckets of the old index: {err}");
                self.skip(text);
                return self.load_accounts();
            }
        };
        for (_, account) in accounts {
            index::account::insert(&self.connection, &account)?;
        }
        for key in keys {
            index::account::insert_key(&self.connection, &key)?;
        }
        self.load_accounts()?;
        for bucket in buckets {
            self.highest = self.highest.max(bucket.id.0);
            let owner = self.accounts.number(&bucket.owner).unwrap_or(0);
            index::bucket::insert(&self.connection, &bucket, owner)?;
            self.buckets
                .insert(bucket.name.as_str().to_owned(), bucket.id);
        }
        self.report.is_salvaged = true;
        Ok(())
    }

    fn load_accounts(&mut self) -> Result<()> {
        let (accounts, keys) = index::account::load(&self.connection)?;
        self.accounts.replace(accounts, keys);
        Ok(())
    }

    fn open(&mut self, id: FileId, packed: bool) -> Result<Option<Arc<OpenFile>>> {
        match self.files.get(id, packed) {
            Ok(open) => Ok(Some(open)),
            // An empty file can't be mapped, one on a bad disk can't be read: the others can.
            Err(err @ Error::Io { .. }) => {
                let path = self.layout.path(id, packed);
                self.skip(format!("{}: {err}", path.display()));
                self.unclaimed.push((id, packed));
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    /// Takes in the records of a segment. What is behind the last of them is no damage, but what
    /// was never published.
    fn read_segment(&mut self, id: FileId) -> Result<()> {
        let Some(open) = self.open(id, true)? else {
            return Ok(());
        };
        let path = open.disk_file.path.display().to_string();
        let (len, mut end, mut hole) = (open.bytes.len() as u64, 0, None);
        for step in segment::walk(&open.bytes, len) {
            let found = match step {
                Step::Damage(from, to) => {
                    hole = Some((from, to));
                    continue;
                }
                Step::Record(found) => found,
            };
            if let Some((from, to)) = hole.take() {
                self.skip(format!("{path}: bytes {from} to {to} are no records"));
                self.unclaimed.push((id, true));
            }
            end = found.next;
            let extent = Extent {
                id: found.extent_id,
                file: id,
                packed: true,
                offset: found.data_offset,
                len: found.data_len,
                crc64: Some(found.data_crc),
            };
            self.highest = self.highest.max(extent.id);
            if found.record.bucket.is_empty() {
                let place = PartPlace {
                    extent: extent.id,
                    file: id,
                    offset: extent.offset,
                };
                self.parts.insert((extent.len, found.data_crc), place);
            } else if !self.take_in(&found.record, vec![extent])? {
                self.unclaimed.push((id, true));
            }
        }
        // Behind the last record a segment is empty, and records go on there. If it is not, none
        // do.
        let tail = usize::try_from(end).map_or(&[][..], |end| &open.bytes[end..]);
        if tail.iter().any(|byte| *byte != 0) {
            self.skip(format!(
                "{path}: bytes {end} to {len} are no records; they may never have been published"
            ));
            end = len;
        }
        if extent_count(&self.connection, id)? > 0 {
            let file_use = FileUse {
                size: end,
                ..FileUse::default()
            };
            extent::adjust_file(&self.connection, id, true, file_use)?;
        }
        self.files.forget(id);
        Ok(())
    }

    /// Takes in a file of its own, if its label says what it holds.
    fn read_file(&mut self, id: FileId) -> Result<()> {
        let Some(open) = self.open(id, false)? else {
            return Ok(());
        };
        let path = &open.disk_file.path;
        let label =
            sys::fgetxattr(open.disk_file.file.as_raw_fd(), LABEL).io("read the label of", path)?;
        let Some(record) = label.as_deref().and_then(Record::decode) else {
            self.unclaimed.push((id, false));
            return Ok(());
        };
        let extents = record.extents().map(|extent| self.locate(extent)).collect();
        if !self.take_in(&record, extents)? {
            self.unclaimed.push((id, false));
        }
        self.files.forget(id);
        Ok(())
    }

    /// Where the bytes of an extent that a label names are now; parts in segments may have moved.
    fn locate(&self, mut extent: Extent) -> Extent {
        let part = extent
            .crc64
            .and_then(|crc| self.parts.get(&(extent.len, crc)));
        if let Some(place) = part.filter(|_| extent.packed) {
            (extent.id, extent.file, extent.offset) = (place.extent, place.file, place.offset);
        }
        extent
    }

    /// Keeps the files that nothing could be made of where no start removes them.
    fn set_aside(&mut self) -> Result<()> {
        let mut unclaimed = std::mem::take(&mut self.unclaimed);
        unclaimed.dedup();
        for (id, packed) in unclaimed {
            if check::file_use(&self.connection, id)?.is_some() {
                continue;
            }
            let dir = self.layout.unclaimed();
            self.disk.create_dir(&dir).io("make", &dir)?;
            let path = self.layout.path(id, packed);
            let to = dir.join(path.file_name().expect("a data file has a name"));
            self.files.forget(id);
            self.disk.rename(&path, &to).io("rename", &path)?;
            self.skip(format!(
                "{}: nothing in it can be told; kept as {}",
                path.display(),
                to.display()
            ));
        }
        Ok(())
    }

    /// Makes a version the current one of its key, if it is newer than what is there and all of its
    /// bytes are.
    ///
    /// False if it is damaged.
    fn take_in(&mut self, record: &Record, mut extents: Vec<Extent>) -> Result<bool> {
        self.highest = self.highest.max(record.id).max(record.ino);
        let what = format!("{}/{} (version {})", record.bucket, record.key, record.id);
        let (Ok(name), Ok(key)) = (
            BucketName::parse(&record.bucket),
            ObjectKey::parse(&record.key),
        ) else {
            self.skip(format!("{what}: its name is no name"));
            return Ok(false);
        };
        let owner = self.owner(&AccountId::new(&record.owner))?;
        let bucket = self.bucket(name, record)?;
        let old = object::current(&self.connection, &self.accounts, bucket, key.as_str())?;
        if old.as_ref().is_some_and(|old| old.id > record.id) {
            return Ok(true);
        }
        if let Some(why) = self.check(record, &mut extents) {
            self.skip(format!("{what}: {why}"));
            return Ok(false);
        }
        if let Some(old) = old {
            self.drop_version(&old)?;
        }
        for extent in &mut extents {
            self.add_extent(extent)?;
        }
        let owner_id = AccountId::new(&record.owner);
        *self.objects_of.entry(owner_id.clone()).or_default() += 1;
        let entry = record.entry(bucket, key, owner_id, extents);
        object::put(&self.connection, &entry, owner)?;
        self.report.objects += 1;
        self.report.bytes += entry.size;
        Ok(true)
    }

    /// Why a version's bytes are not what its record says; `None` if they are.
    fn check(&mut self, record: &Record, extents: &mut [Extent]) -> Option<String> {
        let total = extents.iter().map(|extent| extent.len).sum::<u64>();
        if total != record.size {
            return Some(format!("{total} bytes of {}", record.size));
        }
        for extent in extents {
            let found = match self.files.get(extent.file, extent.packed) {
                Ok(open) => crc_of(extent, &open),
                Err(err) => Err(err),
            };
            match (found, extent.crc64) {
                (Err(err), _) => return Some(format!("its bytes can't be read: {err}")),
                (Ok(found), Some(expected)) if found != expected => {
                    return Some("its bytes are damaged".to_owned());
                }
                (Ok(_), Some(_)) => {}
                (Ok(found), None) => {
                    extent.crc64 = Some(found);
                    self.report.unchecked += 1;
                }
            }
        }
        None
    }

    fn add_extent(&mut self, extent: &mut Extent) -> Result<()> {
        let taken = extent::find(&self.connection, extent.id)?.is_some();
        if !extent.packed || extent.id == 0 || taken {
            self.highest += 1;
            extent.id = self.highest;
        }
        extent::insert(&self.connection, extent)?;
        let file_use = FileUse {
            size: 0,
            live: i64::try_from(extent.len).unwrap_or(i64::MAX),
            refs: 1,
        };
        extent::adjust_file(&self.connection, extent.file, extent.packed, file_use).map(drop)
    }

    /// Lets go of a version that a newer one replaces.
    fn drop_version(&mut self, old: &Entry) -> Result<()> {
        object::remove(&self.connection, old.bucket, old.key.as_str())?;
        for extent in &old.extents {
            let Some(gone) = extent::release(&self.connection, extent.id)? else {
                continue;
            };
            let file_use = FileUse {
                size: 0,
                live: -i64::try_from(gone.len).unwrap_or(i64::MAX),
                refs: -1,
            };
            let left = extent::adjust_file(&self.connection, gone.file, gone.packed, file_use)?;
            if left.refs == 0 {
                extent::remove_file(&self.connection, gone.file)?;
            }
        }
        self.report.objects -= 1;
        self.report.bytes -= old.size;
        Ok(())
    }

    /// The number of an account, made if it is not known.
    fn owner(&mut self, id: &AccountId) -> Result<i64> {
        if *id == nobody() {
            return Ok(NOBODY);
        }
        if let Some(number) = self.accounts.number(id) {
            return Ok(number);
        }
        let account = Account {
            id: id.clone(),
            name: format!("recovered-{}", id.as_str()),
            created_at: Timestamp(0),
        };
        index::account::insert(&self.connection, &account)?;
        self.report.accounts_made += 1;
        self.load_accounts()?;
        Ok(self.accounts.number(id).unwrap_or(0))
    }

    /// The number of a bucket, made if it is not known.
    fn bucket(&mut self, name: BucketName, record: &Record) -> Result<BucketId> {
        if let Some(id) = self.buckets.get(name.as_str()) {
            return Ok(*id);
        }
        self.highest += 1;
        let bucket = Bucket {
            id: BucketId(self.highest),
            name,
            owner: AccountId::new(&record.owner),
            created_at: Timestamp(record.modified_at),
            location: None,
        };
        let owner = self.owner(&bucket.owner)?;
        index::bucket::insert(&self.connection, &bucket, owner)?;
        self.buckets
            .insert(bucket.name.as_str().to_owned(), bucket.id);
        self.report.buckets_made += 1;
        Ok(bucket.id)
    }

    /// Has the account with the most objects be the root account, where no account is.
    fn name_root(&mut self) -> Result<()> {
        let (accounts, _) = self.accounts.list();
        if accounts.iter().any(|account| account.name == ROOT_ACCOUNT) {
            return Ok(());
        }
        match self.objects_of.iter().max_by_key(|(_, objects)| **objects) {
            Some((id, _)) => index::account::rename(&self.connection, id, ROOT_ACCOUNT),
            None => Ok(()),
        }
    }
}

/// Numbers of the data files in a directory, which need not be there.
fn data_files(dir: &Path) -> Result<Vec<FileId>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.io("list", dir)?,
    };
    for entry in entries {
        let name = entry.io("list", dir)?.file_name();
        let parsed = name.to_str().and_then(Layout::parse_name);
        found.extend(parsed.map(|(id, _)| id));
    }
    Ok(found)
}

/// Extents in a data file.
fn extent_count(connection: &Connection, id: FileId) -> Result<i64> {
    Ok(check::file_use(connection, id)?.map_or(0, |(_, file_use)| file_use.refs))
}
