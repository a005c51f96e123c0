//! What the mount needs of objects besides, by the local store.

mod publish;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use md5::{Digest as _, Md5};

pub(crate) use tree::rename_in;
use tree::{
    change_attributes, kept_entry, key_of, marker_of, node, remove_empty, rename, require_vacant,
    unlink,
};

use crate::api::{
    AttributeChange, DirectoryPage, Durability, Face, Files, ListAfter, Node, PublishFile,
    RenameMode, Usage,
};
use crate::digest::crc64;
use crate::entry::{Attributes, BucketId, ETag, Entry, FileAttributes, FileId};
use crate::error::{Error, IoContext, Result};
use crate::event::Subscription;
use crate::flush;
use crate::index::directory;
use crate::name::{AccountId, ObjectKey};
use crate::rule::directive::Directive;
use crate::rule::posix;
use crate::shared::no_space;
use crate::stage::StagingFile;
use crate::store::Store;
use crate::write::{Draft, Source, Writer};

/// How long an answer may be believed: every change is told.
const ANSWER_AGE_MAX: Duration = Duration::from_hours(1);

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

    fn set_directive(
        &self,
        bucket: BucketId,
        path: &str,
        directive: Option<Directive>,
    ) -> Result<Arc<Entry>> {
        let path = path.to_owned();
        self.apply(Durability::Deferred, move |writer| {
            let mut entry = kept_entry(writer, bucket, &path)?;
            Directive::keep_in(&mut entry.attributes.user_metadata, directive);
            writer.rewrite(entry)
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

    fn answer_age_max(&self) -> Duration {
        ANSWER_AGE_MAX
    }

    fn mount_account(&self) -> AccountId {
        self.root.clone()
    }
}
