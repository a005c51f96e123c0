//! Changing a remote origin.
//!
//! What is written is staged in a file here and put when it is published, so the origin has the
//! version before or the one after. Everything else is made of S3's calls, and has their limits:
//!
//! | call | what it is | limit |
//! |---|---|---|
//! | `publish_file` | `PutObject`, or parts | tags of the version before are lost |
//! | `set_attributes`, `set_directive` | `CopyObject` onto itself | 5 GiB; the entity tag may change |
//! | `make_directory`, `make_node` | `PutObject` | two may both succeed at the same time |
//! | `remove_file`, `remove_directory` | `DeleteObject` | a file put meanwhile may be deleted |
//! | `rename` | a forebay's own call | none |
//! | `rename` elsewhere | copies, then deletions | two steps; 5 GiB; 10,000 objects; no exchange |
//!
//! All is durable when it is answered, as far as the origin is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use forebay_store::api::{AttributeChange, Node, PublishFile};
use forebay_store::entry::{Attributes, Bucket, BucketId, Entry, FileAttributes, Headers};
use forebay_store::error::{Error, Result};
use forebay_store::name::ObjectKey;
use forebay_store::rule::posix;
use forebay_store::stage::StagingFile;

use super::RemoteFiles;
use super::catalog::{Keys, ListKeys, Listed};
use super::change::Fate;
use super::known::{Place, Said};
use super::look::{parent_of, prefix_of};
use super::writer::{CopyOf, NewObject, Writer};
use crate::directive::Directive;

/// Largest object that can be copied by one call, in bytes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>
const COPY_SIZE_MAX: u64 = 5 << 30;
/// Content type of a directory's marker, as the S3 consoles write it.
const DIRECTORY_TYPE: &str = "application/x-directory";
/// Bytes copied into a staging file at a time.
const FILL_SIZE: u64 = 4 << 20;

/// How changes are made.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) writer: Arc<dyn Writer>,
    /// Where files are staged.
    pub(super) staging_dir: PathBuf,
}

/// What was just published.
struct Written<'a> {
    key: &'a str,
    size: u64,
    /// As far as the origin told it.
    etag: Option<String>,
    attributes: Attributes,
    file: FileAttributes,
    /// The number it is to have, if it had one before.
    ino: Option<u64>,
}

pub(super) fn key_of(path: &str) -> Result<ObjectKey> {
    ObjectKey::parse(path)
}

fn path_of(key: &str) -> &str {
    key.strip_suffix('/').unwrap_or(key)
}

impl RemoteFiles {
    /// How changes are made, if they are; `what` is to be done.
    pub(super) fn writing(&self, what: &'static str) -> Result<&Writing> {
        self.writing.as_ref().ok_or(Error::ReadOnly(what))
    }

    /// Waits for a change. The client gives up what does not go on, however long the whole takes.
    pub(super) fn wait_long<T>(&self, change: impl Future<Output = Result<T>>) -> Result<T> {
        let done = self.runtime.block_on(change);
        self.health.note(&done);
        done
    }

    /// A staging file with the bytes of `from` in it.
    pub(super) fn stage_blocking(&self, from: Option<&Arc<Entry>>) -> Result<StagingFile> {
        let staging = StagingFile::unnamed(&self.writing("writing")?.staging_dir)?;
        let Some(from) = from else {
            return Ok(staging);
        };
        let content = self.open_content(from)?;
        let mut at = 0;
        while at < from.size {
            let bytes = content.read_at_blocking(at, FILL_SIZE)?;
            write_all(staging.file(), &bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(staging)
    }

    /// Puts what is in a staging file.
    pub(super) async fn publish(&self, publish: PublishFile<'_>) -> Result<Arc<Entry>> {
        let writing = self.writing("writing")?;
        let bucket = self.bucket_by_id(publish.bucket)?;
        let key = publish.key.as_str();
        if let Some(Node::Directory(_)) = self.look(&bucket, key).await? {
            return Err(Error::IsDirectory(publish.key));
        }
        let mut attributes = publish.attributes;
        posix::written(&publish.file, &mut attributes.user_metadata);
        let io = |source| Error::Io {
            action: "look at",
            path: writing.staging_dir.clone(),
            source,
        };
        let file = publish.staging.file().try_clone().map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let object = NewObject {
            bucket: bucket.name.as_str(),
            key,
            attributes: &attributes,
        };
        let etag = writing
            .writer
            .put_file(object, Arc::new(file), size)
            .await?;
        let written = Written {
            key,
            size,
            etag,
            attributes,
            file: publish.file,
            ino: Some(publish.ino),
        };
        self.wrote(&bucket, written).await
    }

    /// Takes in what was just published.
    async fn wrote(&self, bucket: &Bucket, written: Written<'_>) -> Result<Arc<Entry>> {
        let key = key_of(written.key)?;
        self.forget_key(bucket.id, &key, Fate::Came);
        let place: Place = (bucket.id, path_of(written.key).into());
        let ticket = self.known.ticket(&place);
        let at = self.clock.now();
        let etag = if let Some(etag) = written.etag {
            etag
        } else {
            let head = self.head(bucket, written.key).await?;
            let origin = head.as_ref().and_then(|head| head.origin.as_deref());
            let origin = origin.ok_or_else(|| Error::Superseded(key.clone()))?;
            origin.etag.clone()
        };
        let size = written.size;
        if let Some(ino) = written.ino {
            self.numbers.keep(bucket.id, written.key, &etag, size, ino);
        }
        let listed = Listed {
            key: written.key.to_owned(),
            size,
            etag,
            modified_at: at,
        };
        let entry = self.entry(bucket, &listed, written.attributes, written.file)?;
        let node = if key.is_marker() {
            Node::Directory(Some(Arc::clone(&entry)))
        } else {
            Node::File(Arc::clone(&entry))
        };
        // Where changes are told, one that came after this may have been told before the answer to
        // it; what was written is then asked for anew.
        if !self.is_followed() {
            let node = Some(node);
            self.known.keep(ticket, &place, Said { at, node });
        }
        Ok(entry)
    }

    /// Puts a small object that nobody has written to.
    async fn put_small(
        &self,
        bucket: &Bucket,
        key: &str,
        body: Bytes,
        attributes: Attributes,
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        let writing = self.writing("making a file")?;
        let size = body.len() as u64;
        let object = NewObject {
            bucket: bucket.name.as_str(),
            key,
            attributes: &attributes,
        };
        let etag = writing.writer.put(object, body).await?;
        let written = Written {
            key,
            size,
            etag,
            attributes,
            file,
            ino: None,
        };
        self.wrote(bucket, written).await
    }

    async fn put_marker(
        &self,
        bucket: &Bucket,
        path: &str,
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        let mut attributes = Attributes {
            headers: Headers {
                content_type: Some(DIRECTORY_TYPE.to_owned()),
                ..Headers::default()
            },
            ..Attributes::default()
        };
        let permissions = |mode| mode & !posix::S_IFMT | posix::S_IFDIR;
        let file = FileAttributes {
            mode: file.mode.map(permissions),
            ..file
        };
        posix::to_metadata(&file, &mut attributes.user_metadata);
        let key = prefix_of(path);
        self.put_small(bucket, &key, Bytes::new(), attributes, file)
            .await
    }

    pub(super) async fn require_vacant(&self, bucket: &Bucket, path: &str) -> Result<()> {
        match self.look(bucket, path).await? {
            None => Ok(()),
            Some(_) => Err(Error::Exists(key_of(path)?)),
        }
    }

    pub(super) async fn new_directory(
        &self,
        bucket: BucketId,
        path: &str,
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        self.writing("making a directory")?;
        let bucket = self.bucket_by_id(bucket)?;
        self.require_vacant(&bucket, path).await?;
        self.put_marker(&bucket, path, file).await
    }

    pub(super) async fn new_node(
        &self,
        bucket: BucketId,
        path: &str,
        content: &[u8],
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        self.writing("making a file")?;
        let bucket = self.bucket_by_id(bucket)?;
        self.require_vacant(&bucket, path).await?;
        let mut attributes = Attributes::default();
        posix::to_metadata(&file, &mut attributes.user_metadata);
        let body = Bytes::copy_from_slice(content);
        self.put_small(&bucket, path, body, attributes, file).await
    }

    pub(super) async fn change_attributes(
        &self,
        bucket: BucketId,
        path: &str,
        change: AttributeChange,
    ) -> Result<Arc<Entry>> {
        self.writing("changing attributes")?;
        let bucket = self.bucket_by_id(bucket)?;
        let key = match self.look(&bucket, path).await? {
            None => return Err(Error::NoSuchKey(key_of(path)?)),
            Some(Node::Directory(None)) => {
                let mode = change.mode.or(Some(posix::S_IFDIR | 0o755));
                let file = FileAttributes { mode, ..change };
                return self.put_marker(&bucket, path, file).await;
            }
            Some(Node::Directory(Some(_))) => prefix_of(path),
            Some(Node::File(_)) => path.to_owned(),
        };
        self.rewrite(&bucket, &key, |entry, metadata| {
            let directory = entry.key.is_marker();
            posix::changed(&entry.file, &change, entry.modified_at, directory, metadata)
        })
        .await
    }

    /// Keeps with an object, or with a directory's marker, what its readers are to say of the
    /// cache. It is in the object's metadata, as modes are, so that every node that shows the
    /// object goes by it, and it is there as long as the object.
    pub(super) async fn keep_directive(
        &self,
        bucket: BucketId,
        path: &str,
        directive: Option<Directive>,
    ) -> Result<Arc<Entry>> {
        self.writing("saying something of the cache")?;
        let bucket = self.bucket_by_id(bucket)?;
        let key = match self.look(&bucket, path).await? {
            None => return Err(Error::NoSuchKey(key_of(path)?)),
            Some(Node::Directory(marker)) => {
                if marker.is_none() {
                    let file = FileAttributes {
                        mode: Some(posix::S_IFDIR | 0o755),
                        ..FileAttributes::default()
                    };
                    self.put_marker(&bucket, path, file).await?;
                }
                prefix_of(path)
            }
            Some(Node::File(_)) => path.to_owned(),
        };
        self.rewrite(&bucket, &key, |entry, metadata| {
            Directive::keep_in(metadata, directive);
            entry.file
        })
        .await
    }

    /// Changes what comes with an object: copies it onto itself.
    async fn rewrite(
        &self,
        bucket: &Bucket,
        key: &str,
        change: impl FnOnce(&Entry, &mut Vec<(String, Vec<u8>)>) -> FileAttributes,
    ) -> Result<Arc<Entry>> {
        // What is replaced must be known as it is now.
        let entry = self.head(bucket, key).await?;
        let entry = entry.ok_or(Error::NoSuchKey(key_of(path_of(key))?))?;
        let mut attributes = entry.attributes.clone();
        let file = change(&entry, &mut attributes.user_metadata);
        let etag = self.copy(bucket, &entry, key, Some(&attributes)).await?;
        let written = Written {
            key,
            size: entry.size,
            etag,
            attributes,
            file,
            ino: Some(entry.ino),
        };
        self.wrote(bucket, written).await
    }

    /// Copies an object, if it is still what it was; its entity tag.
    async fn copy(
        &self,
        bucket: &Bucket,
        from: &Entry,
        to: &str,
        attributes: Option<&Attributes>,
    ) -> Result<Option<String>> {
        let writing = self.writing("copying")?;
        if from.size > COPY_SIZE_MAX {
            return Err(Error::TooLarge {
                size: from.size,
                max: COPY_SIZE_MAX,
            });
        }
        let etag = from.origin.as_deref().map_or("", |origin| &origin.etag);
        let copied = writing.writer.copy(CopyOf {
            bucket: bucket.name.as_str(),
            from: from.key.as_str(),
            etag,
            to,
            attributes,
        });
        match copied.await {
            Err(Error::PreconditionFailed(_)) => Err(Error::Superseded(from.key.clone())),
            copied => copied,
        }
    }

    /// Copies an object to another key, where it keeps its number.
    pub(super) async fn copy_to(&self, bucket: &Bucket, from: &Entry, to: &str) -> Result<()> {
        let etag = self.copy(bucket, from, to, None).await?;
        let written = Written {
            key: to,
            size: from.size,
            etag,
            attributes: from.attributes.clone(),
            file: from.file,
            ino: Some(from.ino),
        };
        self.wrote(bucket, written).await.map(drop)
    }

    pub(super) async fn unlink(&self, bucket: BucketId, path: &str) -> Result<()> {
        self.writing("removing a file")?;
        let bucket = self.bucket_by_id(bucket)?;
        match self.look(&bucket, path).await? {
            None => Err(Error::NoSuchKey(key_of(path)?)),
            Some(Node::Directory(_)) => Err(Error::IsDirectory(key_of(path)?)),
            Some(Node::File(_)) => {
                self.keep_parent(&bucket, path).await?;
                self.delete(&bucket, path).await
            }
        }
    }

    pub(super) async fn unlink_directory(&self, bucket: BucketId, path: &str) -> Result<()> {
        self.writing("removing a directory")?;
        let bucket = self.bucket_by_id(bucket)?;
        match self.look(&bucket, path).await? {
            None => Err(Error::NoSuchKey(key_of(path)?)),
            Some(Node::File(_)) => Err(Error::NotDirectory(key_of(path)?)),
            Some(Node::Directory(_)) => {
                self.require_empty(&bucket, path).await?;
                let marker = prefix_of(path);
                self.keep_parent(&bucket, &marker).await?;
                self.delete(&bucket, &marker).await
            }
        }
    }

    /// Fails if a directory has more in it than its marker.
    async fn require_empty(&self, bucket: &Bucket, path: &str) -> Result<()> {
        let marker = prefix_of(path);
        let below = self.first_keys(bucket, &marker).await?;
        if below.objects.iter().any(|listed| listed.key != marker) || !below.prefixes.is_empty() {
            return Err(Error::DirectoryNotEmpty(key_of(path)?));
        }
        Ok(())
    }

    /// Removes a directory that has nothing in it but its marker.
    pub(super) async fn remove_empty(&self, bucket: &Bucket, path: &str) -> Result<()> {
        self.require_empty(bucket, path).await?;
        self.delete(bucket, &prefix_of(path)).await
    }

    pub(super) async fn delete(&self, bucket: &Bucket, key: &str) -> Result<()> {
        let writing = self.writing("removing a file")?;
        writing.writer.delete(bucket.name.as_str(), key).await?;
        self.forget_key(bucket.id, &key_of(key)?, Fate::Went);
        Ok(())
    }

    /// Deletes an object if it is still what it was.
    pub(super) async fn delete_entry(&self, bucket: &Bucket, entry: &Entry) -> Result<()> {
        let writing = self.writing("removing a file")?;
        let (name, key) = (bucket.name.as_str(), entry.key.as_str());
        let deleted = match entry.origin.as_deref().filter(|of| !of.etag.is_empty()) {
            Some(of) => writing.writer.delete_version(name, key, &of.etag).await,
            None => writing.writer.delete(name, key).await,
        };
        self.forget_key(bucket.id, &entry.key, Fate::Went);
        match deleted {
            Err(Error::PreconditionFailed(_)) => Err(Error::Superseded(entry.key.clone())),
            deleted => deleted,
        }
    }

    /// Gives a directory a marker if it would go with what is about to go from it: a key, or all
    /// that begin with `going` if that ends with a slash.
    pub(super) async fn keep_parent(&self, bucket: &Bucket, going: &str) -> Result<()> {
        let parent = parent_of(path_of(going));
        if parent.is_empty() {
            return Ok(());
        }
        let below = self.first_keys(bucket, &prefix_of(parent)).await?;
        let objects = below.objects.iter().map(|listed| &listed.key);
        if objects.chain(&below.prefixes).any(|stays| stays != going) {
            return Ok(());
        }
        self.put_marker(bucket, parent, FileAttributes::default())
            .await
            .map(drop)
    }

    /// The first two names in a directory, its own marker among them.
    async fn first_keys(&self, bucket: &Bucket, prefix: &str) -> Result<Keys> {
        let list = ListKeys {
            bucket: bucket.name.as_str().to_owned(),
            prefix: prefix.to_owned(),
            by_directory: true,
            limit: 2,
            ..ListKeys::default()
        };
        self.keys(&list).await
    }
}

fn write_all(file: &File, bytes: &[u8], at: u64) -> Result<()> {
    file.write_all_at(bytes, at).map_err(|source| Error::Io {
        action: "write",
        path: "a staging file".into(),
        source,
    })
}
