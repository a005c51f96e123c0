//! What the mount needs of objects besides, by the local store.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::api::{
    AttributeChange, DirectoryPage, Durability, Face, Files, ListAfter, Node, PublishFile,
    RenameMode, Usage,
};
use crate::digest::{DigestSet, Digests, Hasher, crc64};
use crate::entry::{Attributes, BucketId, ETag, Entry, Extent, FileAttributes, FileId};
use crate::error::{Error, IoContext, Result};
use crate::event::{ChangeKind, Subscription};
use crate::flush;
use crate::index::directory::{self, prefix_of};
use crate::index::object;
use crate::limits::{COPY_CHUNK_SIZE, KEY_LEN_MAX};
use crate::name::{AccountId, ObjectKey};
use crate::objects::label;
use crate::record::Record;
use crate::rule::posix;
use crate::shared::no_space;
use crate::stage::{FreshFile, StagingFile};
use crate::store::Store;
use crate::write::{Draft, Source, Writer};

/// Largest file whose entity tag is the MD5 of its bytes, in bytes: more would hold up `close`.
const MD5_SIZE_MAX: u64 = 1 << 20;
/// User metadata that tells of bytes that are not there any more once a file was written to.
const STALE_METADATA: [&str; 2] = ["s3cmd-attrs", "md5chksum"];

impl Store {
    /// Runs an operation of the mount.
    fn apply<T, F>(&self, durability: Durability, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        self.committer
            .run_blocking(durability == Durability::Durable, Face::Mount, work)
    }

    /// Makes a staging file's bytes the current version of its key.
    fn publish_bytes(&self, mut publish: PublishFile<'_>) -> Result<Arc<Entry>> {
        let size = publish
            .staging
            .file()
            .metadata()
            .io("stat", &publish.staging.file.path)?
            .len();
        let durability = publish.durability;
        let (draft, source) = self.take_bytes(&mut publish, size)?;
        self.apply(durability, move |writer| {
            let marker = format!("{}/", draft.key);
            if object::has_prefix(writer.connection, draft.bucket, &marker)? {
                return Err(Error::IsDirectory(draft.key));
            }
            let old = writer.current(draft.bucket, draft.key.as_str())?;
            writer.publish(draft, source, old)
        })
    }

    fn publish_draft(
        &self,
        publish: &mut PublishFile<'_>,
        size: u64,
        etag: ETag,
        id: u64,
    ) -> Draft {
        let mut attributes = std::mem::take(&mut publish.attributes);
        attributes
            .user_metadata
            .retain(|(name, _)| !STALE_METADATA.contains(&name.as_str()));
        posix::to_metadata(&publish.file, &mut attributes.user_metadata);
        Draft {
            bucket: publish.bucket,
            key: publish.key.clone(),
            id,
            ino: publish.ino,
            size,
            etag,
            owner: self.root.clone(),
            attributes,
            checksum: None,
            parts: Vec::new(),
            file: publish.file,
        }
    }

    /// Where a staging file's bytes go, and their entity tag.
    fn take_bytes(&self, publish: &mut PublishFile<'_>, size: u64) -> Result<(Draft, Source)> {
        let id = self.shared.ids.next();
        let path = &publish.staging.file.path;
        if size <= self.shared.stager.packed_size_max {
            let mut bytes = vec![0; usize::try_from(size).expect("PACKED_SIZE_MAX fits")];
            publish
                .staging
                .file()
                .read_exact_at(&mut bytes, 0)
                .io("read", path)?;
            let etag = ETag {
                digest: Md5::digest(&bytes).into(),
                parts: 0,
            };
            let source = Source::Append {
                crc64: crc64(&bytes),
                data: vec![Bytes::from(bytes)],
            };
            return Ok((self.publish_draft(publish, size, etag, id), source));
        }
        let durable = publish.durability == Durability::Durable;
        let digests = if size <= MD5_SIZE_MAX || durable {
            Some(digest(publish.staging, size)?)
        } else {
            None
        };
        let etag = match &digests {
            Some(Digests { md5: Some(md5), .. }) => ETag {
                digest: *md5,
                parts: 0,
            },
            _ => opaque_etag(id, size),
        };
        let crc64 = digests.map(|digests| digests.crc64);
        let draft = self.publish_draft(publish, size, etag, id);
        let fresh = self.adopt(publish, size)?;
        let dir = self.shared.layout.file_dir(fresh.id);
        let bucket = self.shared.buckets.by_id(draft.bucket);
        let name = bucket.as_ref().map_or("", |bucket| bucket.name.as_str());
        let mut record = Record::of_draft(&draft, name, self.shared.clock.now());
        record.add_extent(&Extent {
            id: 0,
            file: fresh.id,
            packed: false,
            offset: 0,
            len: size,
            crc64,
        });
        label(&self.shared, &fresh.file, &record)?;
        if durable {
            self.shared.sync_all(&fresh.file)?;
        }
        let source = Source::File {
            fresh,
            dir,
            crc64,
            synced: durable,
        };
        Ok((draft, source))
    }

    /// A data file with the staging file's bytes: the file itself, or a copy if it is to be written
    /// to further.
    fn adopt(&self, publish: &PublishFile<'_>, size: u64) -> Result<FreshFile> {
        let (layout, disk) = (&self.shared.layout, &self.shared.disk);
        let staging = publish.staging;
        if publish.keep {
            let fresh = FreshFile::create(layout, disk, FileId(self.shared.ids.next()))?;
            disk.copy(staging.file(), 0, &fresh.file, 0, size)
                .io("copy to", &fresh.file.path)?;
            return Ok(fresh);
        }
        // Its number named it while it was staged; a data file has one of its own.
        let id = FileId(self.shared.ids.next());
        let path = layout.path(id, false);
        disk.rename(&staging.file.path, &path)
            .io("rename", &staging.file.path)?;
        staging.take();
        let file = disk.open(&path).io("open", &path)?;
        Ok(FreshFile::adopt(id, file, disk))
    }

    /// Copies an entry's bytes into a staging file.
    fn fill(&self, staging: &StagingFile, from: &Arc<Entry>) -> Result<()> {
        let mut at = 0;
        for extent in &from.extents {
            let open = self.shared.files.get(extent.file, extent.packed)?;
            let copied = self.shared.disk.copy(
                &open.disk_file.file,
                extent.offset,
                &staging.file,
                at,
                extent.len,
            );
            copied.io("copy to", &staging.file.path)?;
            at += extent.len;
        }
        Ok(())
    }
}

/// Digests of a staging file; MD5 only where it is small.
fn digest(staging: &StagingFile, size: u64) -> Result<Digests> {
    let set = DigestSet {
        md5: size <= MD5_SIZE_MAX,
        ..DigestSet::default()
    };
    let mut hasher = Hasher::new(set);
    let mut buffer = vec![0; COPY_CHUNK_SIZE.min(usize::try_from(size).unwrap_or(COPY_CHUNK_SIZE))];
    let mut at = 0;
    while at < size {
        let len = buffer
            .len()
            .min(usize::try_from(size - at).unwrap_or(usize::MAX));
        staging
            .file()
            .read_exact_at(&mut buffer[..len], at)
            .io("read", &staging.file.path)?;
        hasher.update(&buffer[..len]);
        at += len as u64;
    }
    Ok(hasher.finish())
}

/// An entity tag of a file that is too large to be hashed at once: of the multipart form, and never
/// the same for two versions.
fn opaque_etag(id: u64, size: u64) -> ETag {
    let mut md5 = Md5::new();
    md5.update(b"forebay");
    md5.update(id.to_le_bytes());
    md5.update(size.to_le_bytes());
    ETag {
        digest: md5.finalize().into(),
        parts: 1,
    }
}

/// What a path names, within the transaction.
fn node(writer: &Writer<'_>, bucket: BucketId, path: &str) -> Result<Option<Node>> {
    directory::lookup(writer.connection, &writer.shared.accounts, bucket, path)
}

fn key_of(path: &str) -> Result<ObjectKey> {
    ObjectKey::parse(path)
}

fn marker_of(path: &str) -> Result<ObjectKey> {
    ObjectKey::parse(&prefix_of(path))
}

/// Fails if anything, file or directory, has this name.
fn require_vacant(writer: &Writer<'_>, bucket: BucketId, path: &str) -> Result<()> {
    match node(writer, bucket, path)? {
        None => Ok(()),
        Some(_) => Err(Error::Exists(key_of(path)?)),
    }
}

fn change_attributes(
    writer: &mut Writer<'_>,
    mut entry: Entry,
    change: AttributeChange,
) -> Result<Arc<Entry>> {
    let kept = entry.file;
    let permissions = |new: u32| {
        kept.mode
            .map_or(new, |old| old & posix::S_IFMT | new & !posix::S_IFMT)
    };
    entry.file = FileAttributes {
        mode: change.mode.map(permissions).or(kept.mode),
        uid: change.uid.or(kept.uid),
        gid: change.gid.or(kept.gid),
        mtime: change.mtime.or(kept.mtime),
        ctime: change.ctime.or(kept.ctime),
        rdev: change.rdev.or(kept.rdev),
    };
    posix::to_metadata(
        &FileAttributes {
            ctime: None,
            ..change
        },
        &mut entry.attributes.user_metadata,
    );
    writer.rewrite(entry)
}

/// Takes a file's name away; the directory it was in stays.
fn unlink(writer: &mut Writer<'_>, entry: &Entry) -> Result<()> {
    let (bucket, key, owner) = (entry.bucket, entry.key.clone(), entry.owner.clone());
    writer.remove(entry)?;
    writer.keep_parent(bucket, key.as_str(), &owner)
}

/// Gives a file another name.
fn move_file(writer: &mut Writer<'_>, mut entry: Entry, to: &str) -> Result<()> {
    let (bucket, from, owner) = (entry.bucket, entry.key.clone(), entry.owner.clone());
    object::remove(writer.connection, bucket, from.as_str())?;
    writer.effects.entries.push((bucket, from.clone(), None));
    writer
        .effects
        .changes
        .push((bucket, Some(from.clone()), ChangeKind::Deleted));
    entry.key = key_of(to)?;
    writer.rewrite(entry)?;
    writer.keep_parent(bucket, from.as_str(), &owner)
}

/// Makes room for a rename: what is at the target goes if it may.
fn clear_target(writer: &mut Writer<'_>, bucket: BucketId, to: &str, source: &Node) -> Result<()> {
    let directory = matches!(source, Node::Directory(_));
    match node(writer, bucket, to)? {
        None => Ok(()),
        Some(Node::File(_)) if directory => Err(Error::NotDirectory(key_of(to)?)),
        Some(Node::Directory(_)) if !directory => Err(Error::IsDirectory(key_of(to)?)),
        Some(Node::File(_)) => {
            let old = writer
                .current(bucket, to)?
                .ok_or_else(|| Error::IndexDamaged(to.to_owned()))?;
            match source {
                Node::File(successor) => writer.give_way(&old, successor.id),
                Node::Directory(_) => writer.remove(&old),
            }
        }
        Some(Node::Directory(_)) => remove_empty(writer, bucket, to),
    }
}

/// Removes a directory that has nothing in it but its marker.
fn remove_empty(writer: &mut Writer<'_>, bucket: BucketId, path: &str) -> Result<()> {
    let marker = marker_of(path)?;
    let mut after_marker = marker.as_str().as_bytes().to_vec();
    after_marker.push(0);
    let next = object::first_key(writer.connection, bucket, &after_marker)?;
    if next.is_some_and(|key| key.starts_with(marker.as_str())) {
        return Err(Error::DirectoryNotEmpty(key_of(path)?));
    }
    match writer.current(bucket, marker.as_str())? {
        Some(old) => writer.remove(&old),
        None => Ok(()),
    }
}

/// Gives a directory and all below it another name.
fn move_directory(writer: &mut Writer<'_>, bucket: BucketId, from: &str, to: &str) -> Result<()> {
    let (from_prefix, to_prefix) = (prefix_of(from), prefix_of(to));
    let longest = object::longest_key(writer.connection, bucket, &from_prefix)?;
    let len = longest - from_prefix.len() + to_prefix.len();
    if len > KEY_LEN_MAX {
        return Err(Error::KeyTooLong { len });
    }
    object::rename_prefix(writer.connection, bucket, &from_prefix, &to_prefix)?;
    writer.effects.forget_entries();
    let kind = ChangeKind::RenamedTree { to: to_prefix };
    writer
        .effects
        .changes
        .push((bucket, Some(marker_of(from)?), kind));
    let owner = writer.bucket(bucket)?.owner.clone();
    writer.keep_parent(bucket, &from_prefix, &owner)
}

fn rename(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    from: &str,
    to: &str,
    mode: RenameMode,
) -> Result<()> {
    writer.bucket(bucket)?;
    let source = node(writer, bucket, from)?.ok_or(Error::NoSuchKey(key_of(from)?))?;
    if from == to {
        return if mode == RenameMode::NoReplace {
            Err(Error::Exists(key_of(to)?))
        } else {
            Ok(())
        };
    }
    let directory = matches!(source, Node::Directory(_));
    if directory && prefix_of(to).starts_with(&prefix_of(from)) {
        return Err(Error::InvalidRequest(
            "a directory can't be moved into itself",
        ));
    }
    match mode {
        RenameMode::Exchange => return exchange(writer, bucket, from, to),
        RenameMode::NoReplace => require_vacant(writer, bucket, to)?,
        RenameMode::Replace => clear_target(writer, bucket, to, &source)?,
    }
    if directory {
        return move_directory(writer, bucket, from, to);
    }
    let entry = writer
        .current(bucket, from)?
        .ok_or_else(|| Error::IndexDamaged(from.to_owned()))?;
    move_file(writer, entry, to)
}

/// Exchanges the names of two files. Directories are not exchanged.
fn exchange(writer: &mut Writer<'_>, bucket: BucketId, from: &str, to: &str) -> Result<()> {
    let file = |path: &str| match node(writer, bucket, path)? {
        None => Err(Error::NoSuchKey(key_of(path)?)),
        Some(Node::Directory(_)) => Err(Error::InvalidRequest("directories can't be exchanged")),
        Some(Node::File(_)) => writer
            .current(bucket, path)?
            .ok_or_else(|| Error::IndexDamaged(path.to_owned())),
    };
    let (mut first, mut second) = (file(from)?, file(to)?);
    std::mem::swap(&mut first.key, &mut second.key);
    writer.rewrite(first)?;
    writer.rewrite(second).map(drop)
}

impl Files for Store {
    fn lookup(&self, bucket: BucketId, path: &str) -> Result<Option<Node>> {
        let shared = &self.shared;
        shared
            .index
            .read(|connection| directory::lookup(connection, &shared.accounts, bucket, path))
    }

    fn list_directory(
        &self,
        bucket: BucketId,
        path: &str,
        after: Option<ListAfter>,
        limit: usize,
    ) -> Result<DirectoryPage> {
        let shared = &self.shared;
        shared.index.read(|connection| {
            directory::page(
                connection,
                &shared.accounts,
                bucket,
                path,
                after.as_ref(),
                limit,
            )
        })
    }

    fn allocate_ino(&self) -> Result<u64> {
        Ok(self.shared.ids.next())
    }

    fn stage_file(&self, from: Option<&Arc<Entry>>) -> Result<StagingFile> {
        if self.shared.space.refuses_growth(&self.shared) {
            return Err(no_space(&self.shared.layout));
        }
        let staging = self
            .recycler
            .take(&self.shared.layout, || FileId(self.shared.ids.next()))?;
        if let Some(entry) = from {
            // Bytes that were moved or dropped since the entry was looked up are to be looked up
            // again.
            match self.fill(&staging, entry) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::Superseded(entry.key.clone()));
                }
                filled => filled?,
            }
        }
        Ok(staging)
    }

    fn publish_file(&self, publish: PublishFile<'_>) -> Result<Arc<Entry>> {
        let (bucket, key) = (publish.bucket, publish.key.clone());
        if !publish.keep {
            self.shared.closing.publishing(bucket, &key);
        }
        let published = self.publish_bytes(publish);
        self.shared.closing.end(bucket, &key);
        published
    }

    fn closing(&self, bucket: BucketId, key: &ObjectKey) {
        self.shared.closing.begin(bucket, key);
    }

    fn closed(&self, bucket: BucketId, key: &ObjectKey) {
        self.shared.closing.end(bucket, key);
    }

    fn set_attributes(
        &self,
        bucket: BucketId,
        path: &str,
        change: AttributeChange,
    ) -> Result<Arc<Entry>> {
        let path = path.to_owned();
        self.apply(Durability::Deferred, move |writer| {
            let owner = writer.bucket(bucket)?.owner.clone();
            match node(writer, bucket, &path)? {
                None => Err(Error::NoSuchKey(key_of(&path)?)),
                Some(Node::Directory(None)) => {
                    let mode = change.mode.or(Some(posix::S_IFDIR | 0o755));
                    writer.make_marker(
                        bucket,
                        marker_of(&path)?,
                        owner,
                        FileAttributes { mode, ..change },
                    )
                }
                Some(found) => {
                    let key = if matches!(found, Node::File(_)) {
                        key_of(&path)?
                    } else {
                        marker_of(&path)?
                    };
                    let entry = writer.current(bucket, key.as_str())?;
                    let entry = entry.ok_or_else(|| Error::IndexDamaged(path.clone()))?;
                    change_attributes(writer, entry, change)
                }
            }
        })
    }

    fn make_directory(
        &self,
        bucket: BucketId,
        path: &str,
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        let path = path.to_owned();
        self.apply(Durability::Deferred, move |writer| {
            require_vacant(writer, bucket, &path)?;
            let owner = writer.bucket(bucket)?.owner.clone();
            writer.make_marker(bucket, marker_of(&path)?, owner, file)
        })
    }

    fn remove_directory(&self, bucket: BucketId, path: &str) -> Result<()> {
        let path = path.to_owned();
        self.apply(Durability::Deferred, move |writer| {
            match node(writer, bucket, &path)? {
                None => return Err(Error::NoSuchKey(key_of(&path)?)),
                Some(Node::File(_)) => return Err(Error::NotDirectory(key_of(&path)?)),
                Some(Node::Directory(_)) => remove_empty(writer, bucket, &path)?,
            }
            let owner = writer.bucket(bucket)?.owner.clone();
            writer.keep_parent(bucket, &path, &owner)
        })
    }

    fn make_node(
        &self,
        bucket: BucketId,
        path: &str,
        content: &[u8],
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        let id = self.shared.ids.next();
        let mut attributes = Attributes::default();
        posix::to_metadata(&file, &mut attributes.user_metadata);
        let data = Bytes::copy_from_slice(content);
        let draft = Draft {
            bucket,
            key: key_of(path)?,
            id,
            ino: id,
            size: data.len() as u64,
            etag: ETag {
                digest: Md5::digest(&data).into(),
                parts: 0,
            },
            owner: self.root.clone(),
            attributes,
            checksum: None,
            parts: Vec::new(),
            file,
        };
        self.apply(Durability::Deferred, move |writer| {
            require_vacant(writer, bucket, draft.key.as_str())?;
            let crc64 = crc64(&data);
            writer.publish(
                draft,
                Source::Append {
                    data: vec![data],
                    crc64,
                },
                None,
            )
        })
    }

    fn remove_file(&self, bucket: BucketId, path: &str) -> Result<()> {
        let path = path.to_owned();
        self.apply(Durability::Deferred, move |writer| {
            match node(writer, bucket, &path)? {
                None => Err(Error::NoSuchKey(key_of(&path)?)),
                Some(Node::Directory(_)) => Err(Error::IsDirectory(key_of(&path)?)),
                Some(Node::File(_)) => {
                    let entry = writer
                        .current(bucket, &path)?
                        .ok_or_else(|| Error::IndexDamaged(path.clone()))?;
                    unlink(writer, &entry)
                }
            }
        })
    }

    fn rename(&self, bucket: BucketId, from: &str, to: &str, mode: RenameMode) -> Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.apply(Durability::Deferred, move |writer| {
            rename(writer, bucket, &from, &to, mode)
        })
    }

    fn sync(&self) -> Result<()> {
        flush::flush(&self.shared, &self.committer)
    }

    fn usage(&self) -> Result<Usage> {
        let root: PathBuf = self.shared.layout.root().to_owned();
        let (total, available, inodes_available) = self
            .shared
            .disk
            .space(&root)
            .io("stat the file system of", &root)?;
        Ok(Usage {
            total,
            available,
            inodes_available,
        })
    }

    fn subscribe(&self, skip: Face) -> Subscription {
        let from = self
            .shared
            .sequence
            .load(std::sync::atomic::Ordering::Acquire);
        self.shared.feed.subscribe(skip, from)
    }

    fn mount_account(&self) -> AccountId {
        self.root.clone()
    }
}
