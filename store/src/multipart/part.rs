//! Parts of an upload: taken in, made durable, kept.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::api::{Durability, PublishPart};
use crate::digest::DigestSet;
use crate::entry::{ETag, Extent, FileId, Part, Upload};
use crate::error::{Error, Result};
pub(super) use crate::index::upload::Origin;
use crate::index::{self, extent};
use crate::limits::PART_NUMBER_MAX;
use crate::record::Record;
use crate::shared::{Shared, lock};
use crate::stage::{Body, Stage, Staged};
use crate::store::Store;
use crate::write::{Draft, Writer};

impl Store {
    pub(crate) async fn begin_part(
        &self,
        upload: &Arc<Upload>,
        number: u16,
        len: Option<u64>,
        digests: DigestSet,
    ) -> Result<Stage> {
        require_number(number)?;
        let (store, upload) = (self.clone(), Arc::clone(upload));
        let place = spawn_blocking(move || store.claim(&upload, number, len))
            .await
            .map_err(|_| Error::Closed)??;
        Ok(Stage::new(
            self.shared.stager.clone(),
            FileId(self.shared.ids.next()),
            len,
            digests,
            place,
        ))
    }

    pub(crate) async fn keep_part(&self, part: PublishPart) -> Result<Part> {
        let PublishPart {
            upload,
            number,
            mut staged,
            checksum,
        } = part;
        let md5 = staged.digests.md5.ok_or(Error::InvalidRequest(
            "a body without its MD5 can't be a part",
        ))?;
        self.uploads.require_sound(upload.id)?;
        staged = self.sync_part(staged).await?;
        let (len, crc64) = (staged.len, staged.digests.crc64);
        let kept = Part {
            number,
            size: len,
            etag: ETag {
                digest: md5,
                parts: 0,
            },
            checksum,
            modified_at: self.shared.clock.now(),
        };
        let part_size = lock(&self.uploads.places)
            .get(&upload.id)
            .and_then(|place| lock(place).part_size);
        self.change(Durability::Durable, move |writer| {
            require_upload(writer, &upload)?;
            let extents = place_part(writer, &upload, staged.body, len, crc64)?;
            record_part(writer, &upload, &kept, &extents, Origin::Uploaded)?;
            if let Some(size) = part_size {
                index::upload::set_part_size(writer.connection, upload.id, size)?;
            }
            Ok(kept)
        })
        .await
    }

    /// Makes a part's bytes durable where they are in a file.
    async fn sync_part(&self, staged: Staged) -> Result<Staged> {
        let (file, claim) = match &staged.body {
            Body::Memory(_) => return Ok(staged),
            Body::File(fresh) => (Arc::clone(&fresh.file), None),
            Body::Place { file, claim, .. } => (Arc::clone(file), Some(Arc::clone(claim))),
        };
        let shared = Arc::clone(&self.shared);
        let sync = move || match claim {
            Some(claim) => claim.sync_blocking(&shared, &file),
            None => shared.sync_all(&file),
        };
        spawn_blocking(sync).await.map_err(|_| Error::Closed)??;
        Ok(staged)
    }
}

pub(super) fn require_number(number: u16) -> Result<()> {
    if (1..=PART_NUMBER_MAX).contains(&number) {
        Ok(())
    } else {
        Err(Error::InvalidRequest("a part's number is from 1 to 10,000"))
    }
}

/// Fails if no part can be kept: the upload has ended, or the disk is full.
pub(super) fn require_upload(writer: &Writer<'_>, upload: &Upload) -> Result<()> {
    writer.require_space()?;
    if index::upload::exists(writer.connection, upload.id)? {
        Ok(())
    } else {
        Err(Error::NoSuchUpload(upload.id.to_string()))
    }
}

/// Keeps a part whose extents are in the index, in the place of an earlier one of its number.
pub(super) fn record_part(
    writer: &mut Writer<'_>,
    upload: &Upload,
    part: &Part,
    extents: &[Extent],
    origin: Origin,
) -> Result<()> {
    if let Some(old) = index::upload::part(writer.connection, upload.id, part.number)? {
        writer.release(extent::decode_ids(&old.extent_ids))?;
    }
    index::upload::put_part(writer.connection, upload.id, part, extents, origin)
}

/// Gives a part's bytes their extents.
fn place_part(
    writer: &mut Writer<'_>,
    upload: &Upload,
    body: Body,
    len: u64,
    crc64: u64,
) -> Result<Vec<Extent>> {
    let new = |file, offset| Extent {
        id: writer.shared.ids.next(),
        file,
        packed: false,
        offset,
        len,
        crc64: Some(crc64),
    };
    let extent = match body {
        Body::Memory(_) if len == 0 => return Ok(Vec::new()),
        Body::Memory(data) => {
            let record = part_record(writer.shared, upload);
            return Ok(vec![writer.append(&record, &data, crc64)?]);
        }
        Body::File(fresh) => {
            let extent = new(fresh.id, 0);
            writer.effects.fresh.push(fresh);
            extent
        }
        Body::Place {
            id, offset, claim, ..
        } => {
            let extent = new(id, offset);
            claim.keep();
            extent
        }
    };
    writer.add_extent(&extent, 0)?;
    let dir = writer.shared.layout.file_dir(extent.file);
    writer.effects.dirs.push(dir);
    Ok(vec![extent])
}

/// What a part in a segment says of itself: of no object yet.
pub(super) fn part_record(shared: &Shared, upload: &Upload) -> Record {
    let draft = Draft {
        bucket: upload.bucket,
        key: upload.key.clone(),
        id: 0,
        ino: 0,
        size: 0,
        etag: ETag {
            digest: [0; 16],
            parts: 0,
        },
        owner: upload.owner.clone(),
        attributes: crate::entry::Attributes::default(),
        checksum: None,
        parts: Vec::new(),
        file: crate::entry::FileAttributes::default(),
    };
    // No bucket has the empty name, so nobody takes a part for an object.
    Record::of_draft(&draft, "", shared.clock.now())
}
