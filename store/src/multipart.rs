//! Multipart uploads: parts at their final place, joined without copying.
//!
//! The parts of an upload share one sparse file. The first part to arrive sets their distance `S`;
//! part N goes to `(N-1)·S` if it is no larger than `S` and nobody has been there before. Parts
//! that don't fit, and parts uploaded again, go to a file (or a segment) of their own. A completed
//! upload whose parts lie one behind the other is one extent of one file.

mod copy;
mod join;
mod part;
mod place;
mod shared_sync;

use std::sync::Arc;

pub(crate) use place::{Claim, OpenUploads};

use crate::api::{Durability, NewUpload};
use crate::entry::{BucketId, FileId, Part, Upload};
use crate::error::{Error, Result};
use crate::index::upload::Completed;
use crate::index::{self, extent};
use crate::limits::PART_NUMBER_MAX;
use crate::name::{ObjectKey, UploadId};
use crate::store::Store;
use crate::write::Writer;

impl Store {
    pub(crate) async fn begin_upload(&self, new: NewUpload) -> Result<Arc<Upload>> {
        let mut id = [0; 16];
        self.shared.rng.fill(&mut id);
        let NewUpload {
            bucket,
            key,
            attributes,
            checksum,
            owner,
        } = new;
        let file = FileId(self.shared.ids.next());
        let initiated_at = self.shared.clock.now();
        let upload = Upload {
            id: UploadId(id),
            bucket,
            key,
            initiated_at,
            owner,
            attributes,
            checksum,
            file,
        };
        self.change(Durability::Durable, move |writer| {
            writer.require_space()?;
            writer.bucket(upload.bucket)?;
            let owner = writer.owner(&upload.owner)?;
            index::upload::insert(writer.connection, &upload, owner)?;
            Ok(Arc::new(upload))
        })
        .await
    }

    pub(crate) async fn find_upload(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        id: UploadId,
    ) -> Result<Arc<Upload>> {
        let wanted = key.clone();
        self.read(move |shared, connection| {
            if let Some(upload) = index::upload::find(connection, &shared.accounts, id)? {
                let here = upload.bucket == bucket && upload.key == wanted;
                return if here {
                    Ok(Arc::new(upload))
                } else {
                    Err(Error::NoSuchUpload(id.to_string()))
                };
            }
            // Completed lately: enough of it to repeat the completion.
            let completed = index::upload::recall(connection, id)?
                .filter(|it| it.bucket == bucket && it.key == wanted);
            let Completed { bucket, key, .. } =
                completed.ok_or_else(|| Error::NoSuchUpload(id.to_string()))?;
            let entry = index::object::current(connection, &shared.accounts, bucket, key.as_str())?;
            let entry = entry.ok_or_else(|| Error::NoSuchUpload(id.to_string()))?;
            Ok(Arc::new(Upload {
                id,
                bucket,
                key,
                initiated_at: entry.modified_at,
                owner: entry.owner,
                attributes: entry.attributes,
                checksum: entry.checksum.map(|sum| (sum.algorithm, sum.kind)),
                file: FileId(0),
            }))
        })
        .await
    }

    pub(crate) async fn parts_page(
        &self,
        id: UploadId,
        after: u16,
        limit: usize,
    ) -> Result<(Vec<Part>, bool)> {
        self.read(move |_, connection| {
            if !index::upload::exists(connection, id)? {
                return Err(Error::NoSuchUpload(id.to_string()));
            }
            let mut parts = index::upload::parts(connection, id, after, limit + 1)?;
            let more = parts.len() > limit;
            parts.truncate(limit);
            Ok((parts.into_iter().map(|stored| stored.part).collect(), more))
        })
        .await
    }

    pub(crate) async fn drop_upload(&self, upload: Arc<Upload>) -> Result<()> {
        let id = upload.id;
        self.change(Durability::Durable, move |writer| {
            if !index::upload::exists(writer.connection, id)? {
                return Err(Error::NoSuchUpload(id.to_string()));
            }
            drop_upload(writer, id)
        })
        .await?;
        self.uploads.forget(id);
        Ok(())
    }
}

/// Drops an upload with its parts.
pub(crate) fn drop_upload(writer: &mut Writer<'_>, id: UploadId) -> Result<()> {
    for stored in index::upload::parts(writer.connection, id, 0, usize::from(PART_NUMBER_MAX))? {
        writer.release(extent::decode_ids(&stored.extent_ids))?;
    }
    index::upload::remove_parts(writer.connection, id)?;
    remove_upload(writer, id)
}

/// Removes an upload, and has the committer look whether anything is left in the file its parts
/// shared.
pub(super) fn remove_upload(writer: &mut Writer<'_>, id: UploadId) -> Result<()> {
    if let Some(file) = index::upload::remove(writer.connection, id)? {
        writer
            .effects
            .files
            .push((file, false, extent::FileUse::default()));
    }
    Ok(())
}
