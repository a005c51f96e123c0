//! A staging file's bytes become an object, an object's bytes a staging file.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::api::{Durability, PublishFile};
use crate::digest::{DigestSet, Digests, Hasher, crc64};
use crate::disk::DiskFile;
use crate::entry::{ETag, Entry, Extent, FileId};
use crate::error::{Error, IoContext, Result};
use crate::index::object;
use crate::limits::COPY_CHUNK_SIZE;
use crate::objects::label;
use crate::record::Record;
use crate::rule::posix;
use crate::stage::{FreshFile, StagingFile};
use crate::store::Store;
use crate::write::{Draft, Source};

/// Largest file whose entity tag is the MD5 of its bytes, in bytes: more would hold up `close`.
const MD5_SIZE_MAX: u64 = 1 << 20;

impl Store {
    /// Makes a staging file's bytes the current version of its key.
    pub(super) fn publish_bytes(&self, mut publish: PublishFile<'_>) -> Result<Arc<Entry>> {
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
        posix::written(&publish.file, &mut attributes.user_metadata);
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
        let fresh = self.adopt(publish, size)?;
        let digests = if size <= MD5_SIZE_MAX || durable {
            // Of the copy, if it is one: the staging file may be written to at this moment.
            Some(digest(&fresh.file, size)?)
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
        FreshFile::adopt(layout, disk, FileId(self.shared.ids.next()), staging)
    }

    /// Copies an entry's bytes into a staging file.
    pub(super) fn fill(&self, staging: &StagingFile, from: &Arc<Entry>) -> Result<()> {
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

/// Digests of a file; MD5 only where it is small.
fn digest(file: &DiskFile, size: u64) -> Result<Digests> {
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
        file.file
            .read_exact_at(&mut buffer[..len], at)
            .io("read", &file.path)?;
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
