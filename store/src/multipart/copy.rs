//! Parts that are ranges of objects: they share the source's bytes where those are in a file of
//! their own.
//!
//! The bytes are read, as a part's entity tag is their MD5, but not written. A range that cuts an
//! extent gets an extent of its own over part of the same file. What lies in a segment is small and
//! is copied: the record before it speaks of all of its bytes, and moves with them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::part::{Origin, part_record, record_part, require_number, require_upload};
use crate::api::{Buckets as _, CopyPart, Durability, PublishPart};
use crate::content::Content;
use crate::digest::{DigestSet, Digests, Hasher, crc64, crc64_combine};
use crate::entry::{ETag, Entry, Extent, Part};
use crate::error::{Error, Result};
use crate::index::extent;
use crate::md5_pool::{Haste, Md5Pool};
use crate::store::Store;
use crate::write::Writer;

/// Bytes of segments that are held in memory to become part of one part; with more, all of its
/// bytes are copied.
const PACKED_LEN_MAX: u64 = 1 << 20;

/// The bytes of a range that lie in one extent.
#[derive(Debug)]
struct Piece {
    extent: Extent,
    /// Where in the extent it begins.
    from: u64,
    len: u64,
    /// CRC of its bytes.
    crc64: u64,
    /// The bytes, if they lie in a segment.
    data: Vec<Bytes>,
}

/// The pieces that a range of an object consists of.
fn pieces_of(source: &Entry, offset: u64, len: u64) -> Vec<Piece> {
    let (end, mut start) = (offset + len, 0);
    let mut pieces = Vec::new();
    for extent in &source.extents {
        let extent_end = start + extent.len;
        let (first, last) = (offset.max(start), end.min(extent_end));
        if first < last {
            pieces.push(Piece {
                extent: *extent,
                from: first - start,
                len: last - first,
                crc64: crc64(&[]),
                data: Vec::new(),
            });
        }
        start = extent_end;
    }
    pieces
}

/// Digests of a range and of its pieces, as far as it was read.
#[derive(Debug)]
struct Reading {
    hasher: Hasher,
    pieces: Vec<Piece>,
    /// The piece being read.
    index: usize,
    /// Bytes read of it.
    done: u64,
}

impl Reading {
    /// Takes the next bytes, which lie in one piece.
    fn take_blocking(&mut self, md5: &Md5Pool, frame: Bytes) {
        let frames = std::slice::from_ref(&frame);
        let crc = self
            .hasher
            .update_blocking(md5, frames, Haste::Soon, || crc64(&frame));
        let len = frame.len() as u64;
        let piece = &mut self.pieces[self.index];
        piece.crc64 = crc64_combine(piece.crc64, crc, len);
        if piece.extent.packed {
            piece.data.push(frame);
        }
        self.done += len;
        if self.done == piece.len {
            (self.index, self.done) = (self.index + 1, 0);
        }
    }
}

impl Store {
    /// Keeps a range of an object as a part.
    pub(crate) async fn keep_copy(&self, copy: CopyPart) -> Result<Part> {
        require_number(copy.number)?;
        self.uploads.require_sound(copy.upload.id)?;
        let end = copy.offset.checked_add(copy.len);
        if end.is_none_or(|end| end > copy.source.size) {
            return Err(Error::InvalidRequest("the range is not of the source"));
        }
        let content = self.open(&copy.source)?;
        let pieces = pieces_of(&copy.source, copy.offset, copy.len);
        let packed = pieces.iter().filter(|piece| piece.extent.packed);
        let packed_len: u64 = packed.map(|piece| piece.len).sum();
        let small = copy.len <= self.shared.stager.packed_size_max;
        if small || packed_len > PACKED_LEN_MAX {
            return self.copy_bytes(&copy, &content).await;
        }
        match self.share_bytes(&copy, &content, pieces).await {
            // The source was replaced meanwhile, and what is held open of it is whole.
            Err(Error::Superseded(_)) => self.copy_bytes(&copy, &content).await,
            kept => kept,
        }
    }

    /// Keeps a range as a part of bytes of its own.
    async fn copy_bytes(&self, copy: &CopyPart, content: &Content) -> Result<Part> {
        let (upload, number, len) = (&copy.upload, copy.number, Some(copy.len));
        let mut stage = self.begin_part(upload, number, len, digests(copy)).await?;
        let mut stream = content.range(copy.offset, copy.len);
        while let Some(frame) = stream.next().await {
            stage.write(frame?).await?;
        }
        let staged = stage.finish().await?;
        self.keep_part(PublishPart {
            upload: Arc::clone(upload),
            number,
            checksum: checksum(copy, &staged.digests),
            staged,
        })
        .await
    }

    /// Keeps a range as a part that shares the source's bytes.
    async fn share_bytes(
        &self,
        copy: &CopyPart,
        content: &Content,
        pieces: Vec<Piece>,
    ) -> Result<Part> {
        let (read, pieces) = self.read_pieces(copy, content, pieces).await?;
        for piece in pieces.iter().filter(|piece| piece.len == piece.extent.len) {
            self.check_piece(piece)?;
        }
        let kept = Part {
            number: copy.number,
            size: copy.len,
            etag: ETag {
                digest: read.md5.expect("asked for"),
                parts: 0,
            },
            checksum: checksum(copy, &read),
            modified_at: self.shared.clock.now(),
        };
        let (upload, source) = (Arc::clone(&copy.upload), Arc::clone(&copy.source));
        self.change(Durability::Durable, move |writer| {
            require_upload(writer, &upload)?;
            let record = part_record(writer.shared, &upload);
            let mut extents = Vec::with_capacity(pieces.len());
            for piece in &pieces {
                extents.push(if piece.extent.packed {
                    writer.append(&record, &piece.data, piece.crc64)?
                } else {
                    share(writer, &source, piece)?
                });
            }
            // Not all of them, if the source's bytes are safe already.
            writer.sync_with_commit(source.id, &extents)?;
            record_part(writer, &upload, &kept, &extents, Origin::Shared)?;
            Ok(kept)
        })
        .await
    }

    /// Reads a range; gives its digests and those of its pieces.
    async fn read_pieces(
        &self,
        copy: &CopyPart,
        content: &Content,
        pieces: Vec<Piece>,
    ) -> Result<(Digests, Vec<Piece>)> {
        let mut reading = Reading {
            hasher: Hasher::new(digests(copy)),
            pieces,
            index: 0,
            done: 0,
        };
        let mut stream = content.range(copy.offset, copy.len);
        let mut next = stream.next().await;
        while let Some(frame) = next {
            let frame = frame?;
            let md5 = self.shared.stager.md5.clone();
            let hashing = spawn_blocking(move || {
                reading.take_blocking(&md5, frame);
                reading
            });
            // Read while that is hashed.
            next = stream.next().await;
            reading = hashing.await.map_err(|_| Error::Closed)?;
        }
        Ok((reading.hasher.finish(), reading.pieces))
    }

    /// Fails if an extent that was read whole is not what was written.
    fn check_piece(&self, piece: &Piece) -> Result<()> {
        let Extent {
            file,
            packed,
            offset,
            len,
            crc64,
            ..
        } = piece.extent;
        match crc64 {
            Some(expected) if expected != piece.crc64 => Err(Error::Corrupt {
                path: self.shared.layout.path(file, packed),
                offset,
                len,
                expected,
                found: piece.crc64,
            }),
            _ => Ok(()),
        }
    }
}

/// What is computed of a part's bytes.
fn digests(copy: &CopyPart) -> DigestSet {
    let asked = copy.checksum.into_iter();
    asked.fold(DigestSet::MD5, DigestSet::with)
}

fn checksum(
    copy: &CopyPart,
    digests: &Digests,
) -> Option<(crate::digest::ChecksumAlgorithm, Vec<u8>)> {
    let algorithm = copy.checksum?;
    Some((algorithm, digests.checksum(algorithm)?))
}

/// An extent of its own over the bytes of a piece.
fn share(writer: &mut Writer<'_>, source: &Entry, piece: &Piece) -> Result<Extent> {
    let found = extent::find(writer.connection, piece.extent.id)?;
    let found = found.ok_or_else(|| Error::Superseded(source.key.clone()))?;
    let shared = Extent {
        id: writer.shared.ids.next(),
        offset: found.offset + piece.from,
        len: piece.len,
        crc64: Some(piece.crc64),
        ..found
    };
    writer.add_extent(&shared, 0)?;
    Ok(shared)
}
