//! What an operation may do within the committer's transaction.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use rusqlite::Connection;

use crate::accounts::{NOBODY, nobody};
use crate::append::Appender;
use crate::commit::Effects;
use crate::digest::{Checksum, crc64};
use crate::entry::{
    Attributes, Bucket, BucketId, ETag, Entry, Extent, FileAttributes, Headers, ObjectPart,
};
use crate::error::{Error, Result};
use crate::event::ChangeKind;
use crate::index::extent::FileUse;
use crate::index::{bucket, extent, object, unsynced};
use crate::name::{AccountId, ObjectKey};
use crate::record::Record;
use crate::rule::posix::{self, S_IFDIR};
use crate::shared::{Promise, Shared, no_space};
use crate::stage::FreshFile;
use crate::time::Timestamp;

/// Entity tag of no bytes: their MD5.
const ETAG_EMPTY: ETag = ETag {
    digest: [
        0xd4, 0x1d, 0x8c, 0xd9, 0x8f, 0x00, 0xb2, 0x04, 0xe9, 0x80, 0x09, 0x98, 0xec, 0xf8, 0x42,
        0x7e,
    ],
    parts: 0,
};
/// Content type of a directory's marker, as the S3 consoles write it.
const DIRECTORY_TYPE: &str = "application/x-directory";

/// Where the bytes of a version to be published come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Appended to a segment.
    Append { data: Vec<Bytes>, crc64: u64 },
    /// A file of its own that was synced, or is to be synced behind the commit.
    File {
        fresh: FreshFile,
        dir: PathBuf,
        crc64: Option<u64>,
        synced: bool,
    },
    /// Extents that are there already: shared.
    Shared(Vec<Extent>),
    /// Extents that belong to this version from now on, as an upload's parts do.
    Taken(Vec<Extent>),
}

/// A version to be published: what is known before its transaction.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) bucket: BucketId,
    pub(crate) key: ObjectKey,
    pub(crate) id: u64,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) etag: ETag,
    pub(crate) owner: AccountId,
    pub(crate) attributes: Attributes,
    pub(crate) checksum: Option<Checksum>,
    pub(crate) parts: Vec<ObjectPart>,
    pub(crate) file: FileAttributes,
}

impl Draft {
    /// Bytes that a record of it takes in a segment at most, without the object's.
    pub(crate) fn record_len_max(&self) -> u64 {
        /// Numbers, names of bucket and owner, lengths, checksums.
        const FIXED: usize = 512;
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let headers = &self.attributes.headers;
        let headers = [
            &headers.content_type,
            &headers.cache_control,
            &headers.content_disposition,
            &headers.content_encoding,
            &headers.content_language,
            &headers.expires,
            &self.attributes.storage_class,
        ];
        let metadata = &self.attributes.user_metadata;
        let metadata = metadata
            .iter()
            .map(|(name, value)| name.len() + value.len() + 8);
        let tags = &self.attributes.tags;
        let tags = tags
            .iter()
            .map(|(name, value)| name.len() + value.len() + 8);
        let len = FIXED
            + self.key.as_str().len()
            + headers.into_iter().map(text).sum::<usize>()
            + metadata.chain(tags).sum::<usize>();
        len as u64
    }

    pub(crate) fn into_entry(self, modified_at: Timestamp) -> Entry {
        Entry {
            id: self.id,
            ino: self.ino,
            bucket: self.bucket,
            key: self.key,
            version_id: None,
            delete_marker: false,
            size: self.size,
            etag: self.etag,
            modified_at,
            owner: self.owner,
            attributes: self.attributes,
            checksum: self.checksum,
            parts: self.parts,
            file: self.file,
            extents: Vec::new(),
            origin: None,
            verified: AtomicBool::new(true),
        }
    }
}

/// One operation's view of the transaction.
#[derive(Debug)]
pub(crate) struct Writer<'t> {
    pub(crate) shared: &'t Shared,
    pub(crate) connection: &'t Connection,
    appender: &'t mut Appender,
    /// What makes this transaction good.
    promise: Promise,
    full: bool,
    pub(crate) effects: Effects,
}

impl<'t> Writer<'t> {
    pub(crate) fn new(
        shared: &'t Shared,
        connection: &'t Connection,
        appender: &'t mut Appender,
        promise: Promise,
        full: bool,
    ) -> Self {
        Self {
            shared,
            connection,
            appender,
            promise,
            full,
            effects: Effects::default(),
        }
    }

    pub(crate) fn into_effects(self) -> Effects {
        self.effects
    }

    /// Whether what is appended is synced before this transaction is committed.
    fn is_synced(&self) -> bool {
        self.promise != Promise::Deferred
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Refuses what needs space while the disk is full.
    pub(crate) fn require_space(&self) -> Result<()> {
        if self.full {
            Err(no_space(&self.shared.layout))
        } else {
            Ok(())
        }
    }

    /// The bucket of this number.
    ///
    /// # Errors
    /// `NoSuchBucket` if it was deleted meanwhile.
    pub(crate) fn bucket(&self, id: BucketId) -> Result<Arc<Bucket>> {
        let known = self.shared.buckets.by_id(id);
        let known =
            known.ok_or_else(|| Error::IndexDamaged(format!("no bucket has number {}", id.0)))?;
        if bucket::exists(self.connection, id)? {
            Ok(known)
        } else {
            Err(Error::NoSuchBucket(known.name.clone()))
        }
    }

    pub(crate) fn current(&self, bucket: BucketId, key: &str) -> Result<Option<Entry>> {
        object::current(self.connection, &self.shared.accounts, bucket, key)
    }

    /// The account's number in the index.
    pub(crate) fn owner(&self, id: &AccountId) -> Result<i64> {
        // What an account that was removed has left behind stays nobody's.
        if *id == nobody() {
            return Ok(NOBODY);
        }
        self.shared
            .accounts
            .number(id)
            .ok_or_else(|| Error::NoSuchAccount(id.as_str().to_owned()))
    }

    /// Makes a version the current one of its key, in the place of `old`.
    pub(crate) fn publish(
        &mut self,
        draft: Draft,
        source: Source,
        old: Option<Entry>,
    ) -> Result<Arc<Entry>> {
        self.require_space()?;
        let bucket = self.bucket(draft.bucket)?;
        let mut entry = draft.into_entry(self.now());
        if let Some(old) = &old {
            // Last-Modified of a key never goes back, whatever the clock does.
            entry.modified_at = entry.modified_at.max(old.modified_at);
        }
        let synced = self.place(&mut entry, source, bucket.name.as_str())?;
        self.replace(entry, old, synced)
    }

    /// Gives an entry its extents; false if its bytes are not synced before this transaction is
    /// committed.
    fn place(&mut self, entry: &mut Entry, source: Source, bucket: &str) -> Result<bool> {
        match source {
            Source::Append { data, crc64 } if entry.size > 0 => {
                let record = Record::of(entry, bucket);
                let extent = self.append(&record, &data, crc64)?;
                entry.extents = vec![extent];
                Ok(self.is_synced() || !self.shared.syncs)
            }
            Source::Append { .. } => Ok(true),
            Source::File {
                fresh,
                dir,
                crc64,
                synced,
            } => {
                let extent = Extent {
                    id: self.shared.ids.next(),
                    file: fresh.id,
                    packed: false,
                    offset: 0,
                    len: entry.size,
                    crc64,
                };
                self.add_extent(&extent, 0)?;
                self.effects.fresh.push(fresh);
                entry.extents = vec![extent];
                // Its name is only as durable as this commit; the flusher syncs the directory
                // otherwise.
                let synced = synced && self.is_synced();
                if synced {
                    self.effects.dirs.push(dir);
                }
                Ok(synced || !self.shared.syncs)
            }
            Source::Shared(extents) => {
                for shared in &extents {
                    if extent::find(self.connection, shared.id)?.is_none() {
                        return Err(Error::Superseded(entry.key.clone()));
                    }
                    extent::retain(self.connection, shared.id)?;
                }
                entry.extents = extents;
                Ok(true)
            }
            Source::Taken(extents) => {
                entry.extents = extents;
                Ok(true)
            }
        }
    }

    /// Appends bytes to a segment.
    pub(crate) fn append(&mut self, record: &Record, data: &[Bytes], crc64: u64) -> Result<Extent> {
        let ids = &self.shared.ids;
        let pieces: Vec<&[u8]> = data.iter().map(AsRef::as_ref).collect();
        let logged = self.promise == Promise::Logged;
        let next_id = || ids.next();
        let (extent, size) =
            self.appender
                .append(ids.next(), record, &pieces, crc64, logged, next_id)?;
        self.add_extent(&extent, size)?;
        Ok(extent)
    }

    /// Appends an extent's bytes once more, and has its number mean the new place.
    pub(crate) fn relocate(&mut self, extent: &Extent, record: &Record, data: &[u8]) -> Result<()> {
        let ids = &self.shared.ids;
        let crc64 = crc64(data);
        let next_id = || ids.next();
        let (new, size) =
            self.appender
                .append(extent.id, record, &[data], crc64, false, next_id)?;
        extent::relocate(self.connection, &new)?;
        let live = i64::try_from(extent.len).unwrap_or(i64::MAX);
        self.effects.files.push((
            extent.file,
            true,
            FileUse {
                size: 0,
                live: -live,
                refs: -1,
            },
        ));
        self.effects.files.push((
            new.file,
            true,
            FileUse {
                size,
                live,
                refs: 1,
            },
        ));
        Ok(())
    }

    /// Adds an extent that one row will refer to; `size` is the published length of a segment.
    pub(crate) fn add_extent(&mut self, extent: &Extent, size: u64) -> Result<()> {
        extent::insert(self.connection, extent)?;
        let live = i64::try_from(extent.len).unwrap_or(i64::MAX);
        self.effects.files.push((
            extent.file,
            extent.packed,
            FileUse {
                size,
                live,
                refs: 1,
            },
        ));
        Ok(())
    }

    /// Drops a reference to each of these extents.
    pub(crate) fn release(&mut self, ids: impl IntoIterator<Item = u64>) -> Result<()> {
        for id in ids {
            if let Some(gone) = extent::release(self.connection, id)? {
                let live = -i64::try_from(gone.len).unwrap_or(i64::MAX);
                self.effects.files.push((
                    gone.file,
                    gone.packed,
                    FileUse {
                        size: 0,
                        live,
                        refs: -1,
                    },
                ));
            }
        }
        Ok(())
    }

    /// Writes an entry in the place of `old`, and makes it known.
    pub(crate) fn replace(
        &mut self,
        entry: Entry,
        old: Option<Entry>,
        synced: bool,
    ) -> Result<Arc<Entry>> {
        let owner = self.owner(&entry.owner)?;
        if let Some(old) = old {
            self.retire(&old, if synced { None } else { Some(entry.id) })?;
        }
        object::put(self.connection, &entry, owner)?;
        let entry = Arc::new(entry);
        if !synced {
            unsynced::mark(self.connection, entry.id)?;
            self.effects.unsynced.push(Arc::clone(&entry));
        }
        self.announce(&entry);
        Ok(entry)
    }

    fn announce(&mut self, entry: &Arc<Entry>) {
        self.effects
            .entries
            .push((entry.bucket, entry.key.clone(), Some(Arc::clone(entry))));
        let kind = ChangeKind::Published { ino: entry.ino };
        self.effects
            .changes
            .push((entry.bucket, Some(entry.key.clone()), kind));
    }

    /// Lets go of a version that is not current any more; kept to fall back on if its successor's
    /// bytes are not synced yet.
    fn retire(&mut self, old: &Entry, unsynced_successor: Option<u64>) -> Result<()> {
        let marked = unsynced::is_marked(self.connection, old.id)?;
        match unsynced_successor {
            Some(successor) if marked => {
                unsynced::hand_over(self.connection, old.id, successor)?;
                self.settle(old.id)?;
            }
            Some(successor) => {
                let owner = self.owner(&old.owner)?;
                if object::put_fallback(self.connection, successor, old, owner)? {
                    return Ok(());
                }
            }
            None if marked => self.settle(old.id)?,
            None => {}
        }
        self.release(old.extents.iter().map(|extent| extent.id))
    }

    /// Takes a version's mark off, and lets go of what it replaced.
    pub(crate) fn settle(&mut self, id: u64) -> Result<()> {
        unsynced::clear(self.connection, id)?;
        for (_, ids) in unsynced::take_fallbacks(self.connection, &self.shared.accounts, id)? {
            self.release(extent::decode_ids(&ids))?;
        }
        Ok(())
    }

    /// Has the bytes of a version synced with this transaction, if they are not yet: another is to
    /// rely on them.
    pub(crate) fn sync_with_commit(&mut self, id: u64, extents: &[Extent]) -> Result<()> {
        if !unsynced::is_marked(self.connection, id)? {
            return Ok(());
        }
        for extent in extents.iter().filter(|extent| !extent.packed) {
            let open = self.shared.files.get(extent.file, false)?;
            self.effects.sync_files.push(Arc::clone(&open.disk_file));
            self.effects
                .dirs
                .push(self.shared.layout.file_dir(extent.file));
        }
        Ok(())
    }

    /// Removes a key's current version, for the version `successor` that takes its key by a rename.
    ///
    /// If the successor's bytes are not synced yet, what is removed is kept to fall back on.
    pub(crate) fn give_way(&mut self, old: &Entry, successor: u64) -> Result<()> {
        let marked = unsynced::is_marked(self.connection, successor)?;
        self.remove_for(old, marked.then_some(successor))
    }

    /// Removes a key's current version.
    pub(crate) fn remove(&mut self, old: &Entry) -> Result<()> {
        self.remove_for(old, None)
    }

    fn remove_for(&mut self, old: &Entry, unsynced_successor: Option<u64>) -> Result<()> {
        object::remove(self.connection, old.bucket, old.key.as_str())?;
        self.effects
            .entries
            .push((old.bucket, old.key.clone(), None));
        self.effects
            .changes
            .push((old.bucket, Some(old.key.clone()), ChangeKind::Deleted));
        self.retire(old, unsynced_successor)
    }

    /// Writes an entry whose bytes stay where they are under the same or another key.
    pub(crate) fn rewrite(&mut self, entry: Entry) -> Result<Arc<Entry>> {
        let owner = self.owner(&entry.owner)?;
        object::put(self.connection, &entry, owner)?;
        let entry = Arc::new(entry);
        self.announce(&entry);
        Ok(entry)
    }

    /// Makes a directory's marker.
    pub(crate) fn make_marker(
        &mut self,
        bucket: BucketId,
        key: ObjectKey,
        owner: AccountId,
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        let id = self.shared.ids.next();
        let headers = Headers {
            content_type: Some(DIRECTORY_TYPE.to_owned()),
            ..Headers::default()
        };
        let mut attributes = Attributes {
            headers,
            ..Attributes::default()
        };
        let file = FileAttributes {
            mode: file.mode.map(|mode| mode & 0o7777 | S_IFDIR),
            ..file
        };
        posix::to_metadata(&file, &mut attributes.user_metadata);
        let draft = Draft {
            bucket,
            key,
            id,
            ino: id,
            size: 0,
            etag: ETAG_EMPTY,
            owner,
            attributes,
            checksum: None,
            parts: Vec::new(),
            file,
        };
        self.publish(
            draft,
            Source::Append {
                data: Vec::new(),
                crc64: crc64(&[]),
            },
            None,
        )
    }

    /// Gives the directory that `key` was in a marker if nothing else is left in it.
    ///
    /// Without it, the directory would vanish under a process that has removed its last file.
    pub(crate) fn keep_parent(
        &mut self,
        bucket: BucketId,
        key: &str,
        owner: &AccountId,
    ) -> Result<()> {
        let Some((parent, _)) = key.trim_end_matches('/').rsplit_once('/') else {
            return Ok(());
        };
        let marker = format!("{parent}/");
        if object::has_prefix(self.connection, bucket, &marker)? {
            return Ok(());
        }
        // A directory that some key implied always has a key that a marker can have.
        let marker = ObjectKey::parse(&marker)?;
        // A marker takes a row, no bytes: deletes go on while the disk is full.
        let full = std::mem::replace(&mut self.full, false);
        let made = self.make_marker(bucket, marker, owner.clone(), FileAttributes::default());
        self.full = full;
        made.map(drop)
    }
}
