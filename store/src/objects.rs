//! What S3 needs of objects, by the local store.

mod listing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::api::{
    Answer, Buckets, Complete, Copy, CopyPart, DELIVERY_WAIT_MAX, Delete, Deleted, Durability,
    Face, Files as _, HeadPage, List, ListBuckets, ListPage, ListUploads, NewBucket, NewUpload,
    Objects, Publish, PublishPart, Rename, UploadPage, Usage,
};
use crate::content::Content;
use crate::digest::DigestSet;
use crate::entry::{AccessKey, Account, Bucket, BucketId, ETag, Entry, FileId, Part, Upload};
use crate::error::{Error, IoContext, Result};
use crate::event::{ChangeKind, Position, Since};
use crate::files;
use crate::index;
use crate::name::{AccountId, BucketName, ObjectKey, UploadId, VersionId};
use crate::record::Record;
use crate::rule::posix;
use crate::shared::Shared;
use crate::stage::{Body, FreshFile, Stage};
use crate::store::Store;
use crate::write::{Draft, Source, Writer};

/// Buckets an account may have.
const BUCKETS_MAX: usize = 1000;

impl Store {
    /// Runs an operation of S3, durable unless said otherwise, and waits until the mount has seen
    /// what it changed.
    pub(crate) async fn change<T, F>(&self, durability: Durability, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let durable = durability == Durability::Durable;
        let done = self.committer.run(durable, Face::S3, work).await?;
        Ok(self.delivered(done).await)
    }

    /// Waits until the mount has seen a change of S3.
    async fn delivered<T>(&self, (value, sequence): (T, u64)) -> T {
        if !self
            .shared
            .feed
            .delivered(sequence, Face::S3, DELIVERY_WAIT_MAX)
            .await
        {
            tracing::warn!(
                sequence,
                "the mount has not taken notice of a change in time"
            );
        }
        value
    }

    /// Runs a read of the index off the async workers.
    pub(crate) async fn read<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Shared, &rusqlite::Connection) -> Result<T> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let done =
            spawn_blocking(move || shared.index.read(|connection| work(&shared, connection)));
        done.await.map_err(|_| Error::Closed)?
    }

    /// A key's current entry, from memory or the index. Blocks.
    pub(crate) fn entry_blocking(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
    ) -> Result<Option<Arc<Entry>>> {
        let shared = &self.shared;
        let ticket = match shared.entries.get(bucket, key) {
            Ok(entry) => return Ok(entry),
            Err(ticket) => ticket,
        };
        let entry = shared.index.read(|connection| {
            index::object::current(connection, &shared.accounts, bucket, key.as_str())
        })?;
        let entry = entry.map(Arc::new);
        shared.entries.fill(ticket, bucket, key, entry.clone());
        Ok(entry)
    }

    async fn entry(&self, bucket: BucketId, key: &ObjectKey) -> Result<Option<Arc<Entry>>> {
        self.shared.closing.wait(bucket, Some(key)).await;
        if let Ok(entry) = self.shared.entries.get(bucket, key) {
            return Ok(entry);
        }
        let (store, key) = (self.clone(), key.clone());
        spawn_blocking(move || store.entry_blocking(bucket, &key))
            .await
            .map_err(|_| Error::Closed)?
    }

    fn draft(&self, publish: &mut Publish) -> Draft {
        let id = self.shared.ids.next();
        let attributes = std::mem::take(&mut publish.attributes);
        let file = posix::from_metadata(&attributes.user_metadata, publish.key.is_marker());
        Draft {
            bucket: publish.bucket,
            key: publish.key.clone(),
            id,
            ino: id,
            size: publish.staged.len,
            etag: ETag {
                digest: publish.staged.digests.md5.unwrap_or_default(),
                parts: 0,
            },
            owner: publish.owner.clone(),
            attributes,
            checksum: publish.checksum.take(),
            parts: Vec::new(),
            file,
        }
    }

    /// Makes a fresh file's bytes durable, and says in its label what they are.
    pub(crate) async fn seal(
        &self,
        draft: Draft,
        fresh: FreshFile,
        crc64: u64,
    ) -> Result<(Draft, FreshFile, PathBuf)> {
        let shared = Arc::clone(&self.shared);
        let done = spawn_blocking(move || {
            let dir = shared.layout.file_dir(fresh.id);
            let bucket = shared.buckets.by_id(draft.bucket);
            let name = bucket.as_ref().map_or("", |bucket| bucket.name.as_str());
            let extent = crate::entry::Extent {
                id: 0,
                file: fresh.id,
                packed: false,
                offset: 0,
                len: draft.size,
                crc64: Some(crc64),
            };
            let mut record = Record::of_draft(&draft, name, shared.clock.now());
            record.add_extent(&extent);
            label(&shared, &fresh.file, &record)?;
            shared.sync_all(&fresh.file)?;
            Ok((draft, fresh, dir))
        });
        done.await.map_err(|_| Error::Closed)?
    }

    async fn publish_staged(&self, mut publish: Publish) -> Result<Arc<Entry>> {
        if publish.staged.digests.md5.is_none() {
            return Err(Error::InvalidRequest(
                "a body without its MD5 can't be an object",
            ));
        }
        let draft = self.draft(&mut publish);
        let crc64 = publish.staged.digests.crc64;
        let (draft, source) = match publish.staged.body {
            Body::Memory(data) => (draft, Source::Append { data, crc64 }),
            Body::File(fresh) => {
                let (draft, fresh, dir) = self.seal(draft, fresh, crc64).await?;
                let source = Source::File {
                    fresh,
                    dir,
                    crc64: Some(crc64),
                    synced: true,
                };
                (draft, source)
            }
            Body::Place { .. } => {
                return Err(Error::InvalidRequest("a part's body can't be an object"));
            }
        };
        let precondition = publish.precondition;
        self.shared
            .closing
            .wait(draft.bucket, Some(&draft.key))
            .await;
        let durable = publish.durability == Durability::Durable;
        let is_logged = durable && draft.size > 0 && matches!(source, Source::Append { .. });
        let len = draft.size + draft.record_len_max();
        let until_written = (publish.staged.memory.take(), publish.staged.present.take());
        let work = move |writer: &mut Writer<'_>| {
            // Given back once the bytes are written.
            let _until_written = until_written;
            let old = writer.current(draft.bucket, draft.key.as_str())?;
            precondition.check(&draft.key, old.as_ref())?;
            writer.publish(draft, source, old)
        };
        if is_logged {
            let done = self.committer.run_logged(len, Face::S3, work).await?;
            return Ok(self.delivered(done).await);
        }
        self.change(publish.durability, work).await
    }

    async fn copy_entry(&self, copy: Copy) -> Result<Arc<Entry>> {
        let id = self.shared.ids.next();
        let Copy {
            source,
            bucket,
            key,
            attributes,
            checksum,
            owner,
            precondition,
        } = copy;
        let file = posix::from_metadata(&attributes.user_metadata, key.is_marker());
        let (size, etag, parts) = (source.size, source.etag, source.parts.clone());
        let draft = Draft {
            bucket,
            key,
            id,
            ino: id,
            size,
            etag,
            owner,
            attributes,
            checksum,
            parts,
            file,
        };
        let extents = source.extents.clone();
        self.change(Durability::Durable, move |writer| {
            let old = writer.current(draft.bucket, draft.key.as_str())?;
            precondition.check(&draft.key, old.as_ref())?;
            // Where the bytes are now, should they have moved since the source was looked up.
            let mut current = Vec::with_capacity(extents.len());
            for extent in &extents {
                let found = index::extent::find(writer.connection, extent.id)?;
                current.push(found.ok_or_else(|| Error::Superseded(draft.key.clone()))?);
            }
            writer.sync_with_commit(source.id, &current)?;
            writer.publish(draft, Source::Shared(current), old)
        })
        .await
    }

    async fn delete_entry(&self, delete: Delete) -> Result<Deleted> {
        let Delete {
            bucket,
            key,
            version,
            precondition,
        } = delete;
        if version.is_some_and(|version| version != VersionId::null()) {
            // Without versions, no version but the null one was ever made, and nothing there is no
            // error.
            return Ok(Deleted::default());
        }
        self.shared.closing.wait(bucket, Some(&key)).await;
        self.change(Durability::Durable, move |writer| {
            writer.bucket(bucket)?;
            let old = writer.current(bucket, key.as_str())?;
            precondition.check(&key, old.as_ref())?;
            let existed = old.is_some();
            if let Some(old) = old {
                writer.remove(&old)?;
            }
            Ok(Deleted {
                existed,
                ..Deleted::default()
            })
        })
        .await
    }

    async fn make_bucket(&self, new: NewBucket) -> Result<Arc<Bucket>> {
        let id = BucketId(self.shared.ids.next());
        let NewBucket {
            name,
            owner,
            location,
            face,
        } = new;
        let bucket = Bucket {
            id,
            name,
            owner,
            created_at: self.shared.clock.now(),
            location,
        };
        let made = self
            .committer
            .run(true, face, move |writer| make_bucket(writer, bucket))
            .await;
        let (bucket, sequence) = made?;
        self.shared
            .feed
            .delivered(sequence, face, DELIVERY_WAIT_MAX)
            .await;
        Ok(bucket)
    }

    async fn drop_bucket(&self, name: BucketName, face: Face) -> Result<()> {
        let bucket = self.bucket(&name)?;
        self.shared.closing.wait(bucket.id, None).await;
        let (uploads, sequence) = self
            .committer
            .run(true, face, move |writer| drop_bucket(writer, &bucket))
            .await?;
        for id in uploads {
            self.uploads.forget(id);
        }
        self.shared
            .feed
            .delivered(sequence, face, DELIVERY_WAIT_MAX)
            .await;
        Ok(())
    }
}

fn make_bucket(writer: &mut Writer<'_>, bucket: Bucket) -> Result<Arc<Bucket>> {
    writer.require_space()?;
    let all = index::bucket::load(writer.connection, &writer.shared.accounts)?;
    if let Some(taken) = all.iter().find(|taken| taken.name == bucket.name) {
        let Bucket {
            name,
            owner,
            location,
            ..
        } = taken.clone();
        return Err(Error::BucketExists {
            name,
            owner,
            location,
        });
    }
    if all
        .iter()
        .filter(|other| other.owner == bucket.owner)
        .count()
        >= BUCKETS_MAX
    {
        return Err(Error::TooManyBuckets);
    }
    let owner = writer.owner(&bucket.owner)?;
    index::bucket::insert(writer.connection, &bucket, owner)?;
    let bucket = Arc::new(bucket);
    writer.effects.buckets_made.push(Arc::clone(&bucket));
    writer.effects.changes.push((
        bucket.id,
        None,
        ChangeKind::BucketCreated(Arc::clone(&bucket)),
    ));
    Ok(bucket)
}

/// Drops an empty bucket with its uploads; gives their ids.
fn drop_bucket(writer: &mut Writer<'_>, bucket: &Arc<Bucket>) -> Result<Vec<UploadId>> {
    writer.bucket(bucket.id)?;
    if !index::bucket::is_empty(writer.connection, bucket.id)? {
        return Err(Error::BucketNotEmpty(bucket.name.clone()));
    }
    let uploads = index::upload::ids_of_bucket(writer.connection, bucket.id)?;
    for id in &uploads {
        crate::multipart::drop_upload(writer, *id)?;
    }
    index::bucket::remove(writer.connection, bucket.id)?;
    writer.effects.buckets_deleted.push(bucket.id);
    writer.effects.forget_entries();
    writer.effects.changes.push((
        bucket.id,
        None,
        ChangeKind::BucketDeleted(Arc::clone(bucket)),
    ));
    Ok(uploads)
}

/// Says in a data file's label what it holds; a file system without labels only loses the
/// rebuilding of the index.
pub(crate) fn label(shared: &Shared, file: &crate::disk::DiskFile, record: &Record) -> Result<()> {
    let Some(label) = record.encode_label() else {
        tracing::debug!(path = %file.path.display(), "a data file has no label: its object is in too many pieces");
        return Ok(());
    };
    match shared.disk.set_label(file, &label) {
        Err(err)
            if matches!(
                err.raw_os_error(),
                Some(libc::ENOTSUP | libc::E2BIG | libc::ERANGE)
            ) =>
        {
            tracing::debug!(path = %file.path.display(), %err, "a data file has no label");
            Ok(())
        }
        done => done.io("label", &file.path),
    }
}

impl Buckets for Store {
    fn create_bucket(&self, bucket: NewBucket) -> Answer<'_, Arc<Bucket>> {
        Box::pin(self.make_bucket(bucket))
    }

    fn bucket(&self, name: &BucketName) -> Result<Arc<Bucket>> {
        self.shared
            .buckets
            .by_name(name)
            .ok_or_else(|| Error::NoSuchBucket(name.clone()))
    }

    fn delete_bucket(&self, name: BucketName, face: Face) -> Answer<'_, ()> {
        Box::pin(self.drop_bucket(name, face))
    }

    fn list_buckets(&self, list: ListBuckets) -> Answer<'_, (Vec<Arc<Bucket>>, bool)> {
        let mut found: Vec<_> = self.shared.buckets.all();
        found.retain(|bucket| {
            let name = bucket.name.as_str();
            list.owner
                .as_ref()
                .is_none_or(|owner| *owner == bucket.owner)
                && name.starts_with(&list.prefix)
                && list
                    .after
                    .as_ref()
                    .is_none_or(|after| name > after.as_str())
        });
        let limit = list.limit.unwrap_or(usize::MAX);
        let more = found.len() > limit;
        found.truncate(limit);
        Box::pin(std::future::ready(Ok((found, more))))
    }

    fn open(&self, entry: &Arc<Entry>) -> Result<Content> {
        let mut files = Vec::with_capacity(entry.extents.len());
        for extent in &entry.extents {
            match self.shared.files.get(extent.file, extent.packed) {
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::Superseded(entry.key.clone()));
                }
                file => files.push(file?),
            }
        }
        Content::new(entry, files)
    }
}

impl Objects for Store {
    fn cached(&self, bucket: BucketId, key: &ObjectKey) -> Option<Option<Arc<Entry>>> {
        if self.shared.closing.is_idle() {
            self.shared.entries.get(bucket, key).ok()
        } else {
            None
        }
    }

    fn head<'a>(
        &'a self,
        bucket: BucketId,
        key: &'a ObjectKey,
        version: Option<&'a VersionId>,
    ) -> Answer<'a, Arc<Entry>> {
        Box::pin(async move {
            let entry = self.entry(bucket, key).await?;
            match version {
                None => entry.ok_or_else(|| Error::NoSuchKey(key.clone())),
                Some(version) => {
                    let found = entry.filter(|_| *version == VersionId::null());
                    let version = || version.as_str().to_owned();
                    found.ok_or_else(|| Error::NoSuchVersion {
                        key: key.clone(),
                        version: version(),
                    })
                }
            }
        })
    }

    fn stage(&self, len: Option<u64>, digests: DigestSet) -> Answer<'_, Stage> {
        let stage = Stage::new(
            self.shared.stager.clone(),
            FileId(self.shared.ids.next()),
            len,
            digests,
            None,
        );
        Box::pin(std::future::ready(Ok(stage)))
    }

    fn publish(&self, publish: Publish) -> Answer<'_, Arc<Entry>> {
        Box::pin(self.publish_staged(publish))
    }

    fn copy(&self, copy: Copy) -> Answer<'_, Arc<Entry>> {
        Box::pin(self.copy_entry(copy))
    }

    fn delete(&self, delete: Delete) -> Answer<'_, Deleted> {
        Box::pin(self.delete_entry(delete))
    }

    fn list(&self, list: List) -> Answer<'_, ListPage> {
        Box::pin(self.page(list, index::list::page))
    }

    fn list_heads(&self, list: List) -> Answer<'_, HeadPage> {
        Box::pin(self.page(list, index::list::heads))
    }

    fn rename_path(&self, rename: Rename) -> Answer<'_, ()> {
        Box::pin(self.change(Durability::Durable, move |writer| {
            files::rename_in(writer, &rename)
        }))
    }

    fn space(&self) -> Result<Usage> {
        self.usage()
    }

    fn create_upload(&self, upload: NewUpload) -> Answer<'_, Arc<Upload>> {
        Box::pin(self.begin_upload(upload))
    }

    fn upload<'a>(
        &'a self,
        bucket: BucketId,
        key: &'a ObjectKey,
        id: UploadId,
    ) -> Answer<'a, Arc<Upload>> {
        Box::pin(self.find_upload(bucket, key, id))
    }

    fn stage_part<'a>(
        &'a self,
        upload: &'a Arc<Upload>,
        number: u16,
        len: Option<u64>,
        digests: DigestSet,
    ) -> Answer<'a, Stage> {
        Box::pin(self.begin_part(upload, number, len, digests))
    }

    fn publish_part(&self, part: PublishPart) -> Answer<'_, Part> {
        Box::pin(self.keep_part(part))
    }

    fn copy_part(&self, copy: CopyPart) -> Answer<'_, Part> {
        Box::pin(self.keep_copy(copy))
    }

    fn complete_upload(&self, complete: Complete) -> Answer<'_, Arc<Entry>> {
        Box::pin(self.join_parts(complete))
    }

    fn abort_upload(&self, upload: Arc<Upload>) -> Answer<'_, ()> {
        Box::pin(self.drop_upload(upload))
    }

    fn list_parts<'a>(
        &'a self,
        upload: &'a Upload,
        after: u16,
        limit: usize,
    ) -> Answer<'a, (Vec<Part>, bool)> {
        Box::pin(self.parts_page(upload.id, after, limit))
    }

    fn list_uploads(&self, list: ListUploads) -> Answer<'_, UploadPage> {
        let page = move |shared: &Shared, connection: &_| {
            index::upload::page(connection, &shared.accounts, &list)
        };
        Box::pin(self.read(page))
    }

    fn position(&self) -> Position {
        self.shared.feed.position()
    }

    fn changes(&self, after: Position, limit: usize, wait: Duration) -> Answer<'_, Since> {
        Box::pin(async move { Ok(self.shared.feed.since(after, limit, wait).await) })
    }

    fn access_key(&self, id: &str) -> Option<(AccessKey, Arc<Account>)> {
        self.shared.accounts.access_key(id)
    }

    fn account(&self, id: &AccountId) -> Option<Arc<Account>> {
        self.shared.accounts.account(id)
    }

    fn writable(&self) -> std::result::Result<(), String> {
        match self.shared.broken() {
            None => Ok(()),
            Some(path) => Err(Error::SyncFailedEarlier { path }.to_string()),
        }
    }
}
