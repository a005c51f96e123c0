//! Multipart uploads: parts at their final place, joined without copying.
//!
//! The parts of an upload share one sparse file. The first part to arrive sets their distance `S`;
//! part N goes to `(N-1)·S` if it is no larger than `S` and nobody has been there before. Parts
//! that don't fit, and parts uploaded again, go to a file (or a segment) of their own. A completed
//! upload whose parts lie one behind the other is one extent of one file.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use md5::{Digest as _, Md5};
use tokio::task::spawn_blocking;

use crate::api::{Complete, CompletedPart, Durability, NewUpload, PublishPart};
use crate::digest::{Checksum, ChecksumAlgorithm, ChecksumType, DigestSet, crc64_combine};
use crate::disk::DiskFile;
use crate::entry::{BucketId, ETag, Entry, Extent, FileId, ObjectPart, Part, Upload};
use crate::error::{Error, IoContext, Result};
use crate::index::upload::{Completed, StoredPart};
use crate::index::{self, extent};
use crate::limits::{OBJECT_SIZE_MAX, PART_NUMBER_MAX, PART_SIZE_MIN, PUT_SIZE_MAX};
use crate::name::{ObjectKey, UploadId};
use crate::objects::label;
use crate::record::Record;
use crate::rule::posix;
use crate::shared::{Shared, lock};
use crate::stage::{Body, Stage};
use crate::store::Store;
use crate::time::Timestamp;
use crate::write::{Draft, Source, Writer};

/// Last byte of an upload's file that a part may have: what every file system here can address.
const PLACE_MAX: u64 = 1 << 40;
/// How long a completion is remembered, in nanoseconds: a day.
const REMEMBERED_NS: i64 = 24 * 3600 * 1_000_000_000;

/// What is held in memory of an upload's file.
#[derive(Debug, Default)]
struct Place {
    file: Option<Arc<DiskFile>>,
    part_size: Option<u64>,
    /// Numbers of parts whose place is taken.
    taken: HashSet<u16>,
}

/// The uploads that parts arrive for.
#[derive(Debug, Default)]
pub(crate) struct OpenUploads {
    places: Mutex<HashMap<UploadId, Arc<Mutex<Place>>>>,
}

impl OpenUploads {
    pub(crate) fn forget(&self, id: UploadId) {
        lock(&self.places).remove(&id);
    }
}

/// Holds a part's place while its body arrives; gives it back unless the part was kept.
///
/// Every write to the place holds it too: one that is still running when its request has gone away
/// must not fall into the body that has the place next.
#[derive(Debug)]
pub(crate) struct Claim {
    place: Arc<Mutex<Place>>,
    number: u16,
    kept: AtomicBool,
}

impl Claim {
    fn keep(&self) {
        self.kept.store(true, Ordering::Release);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Acquire) {
            lock(&self.place).taken.remove(&self.number);
        }
    }
}

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

    pub(crate) async fn begin_part(
        &self,
        upload: &Arc<Upload>,
        number: u16,
        len: Option<u64>,
        digests: DigestSet,
    ) -> Result<Stage> {
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(Error::InvalidRequest("a part's number is from 1 to 10,000"));
        }
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

    /// Takes a part's place in the upload's file, if it can have it. Blocks.
    fn claim(&self, upload: &Upload, number: u16, len: Option<u64>) -> Result<Option<Body>> {
        let place = self.place(upload)?;
        let Some(len) = len.filter(|len| (1..=PUT_SIZE_MAX).contains(len)) else {
            return Ok(None);
        };
        let mut held = lock(&place);
        let part_size = *held.part_size.get_or_insert(len);
        let offset = u64::from(number - 1) * part_size;
        if len > part_size || offset + len > PLACE_MAX || held.taken.contains(&number) {
            return Ok(None);
        }
        let file = match &held.file {
            Some(file) => Arc::clone(file),
            None => self.open_upload_file(upload, &mut held)?,
        };
        held.taken.insert(number);
        drop(held);
        let claim = Arc::new(Claim {
            place,
            number,
            kept: AtomicBool::new(false),
        });
        Ok(Some(Body::Place {
            file,
            id: upload.file,
            offset,
            claim,
        }))
    }

    fn open_upload_file(&self, upload: &Upload, held: &mut Place) -> Result<Arc<DiskFile>> {
        let path = self.shared.layout.path(upload.file, false);
        let file = match self.shared.disk.create(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => {
                self.shared.disk.open(&path).io("open", &path)?
            }
            file => file.io("create", &path)?,
        };
        held.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// What is held of an upload's file; from the index after a restart.
    fn place(&self, upload: &Upload) -> Result<Arc<Mutex<Place>>> {
        if let Some(place) = lock(&self.uploads.places).get(&upload.id) {
            return Ok(Arc::clone(place));
        }
        let place = self.shared.index.read(|connection| {
            if !index::upload::exists(connection, upload.id)? {
                return Err(Error::NoSuchUpload(upload.id.to_string()));
            }
            let part_size = index::upload::part_size(connection, upload.id)?;
            let mut taken = HashSet::new();
            for stored in
                index::upload::parts(connection, upload.id, 0, usize::from(PART_NUMBER_MAX))?
            {
                let extents = extent::load(connection, &stored.extent_ids)?;
                if extents.iter().any(|extent| extent.file == upload.file) {
                    taken.insert(stored.part.number);
                }
            }
            Ok(Place {
                file: None,
                part_size,
                taken,
            })
        })?;
        let mut places = lock(&self.uploads.places);
        Ok(Arc::clone(
            places
                .entry(upload.id)
                .or_insert_with(|| Arc::new(Mutex::new(place))),
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
            writer.require_space()?;
            if !index::upload::exists(writer.connection, upload.id)? {
                return Err(Error::NoSuchUpload(upload.id.to_string()));
            }
            let extents = place_part(writer, &upload, staged.body, len, crc64)?;
            if let Some(old) = index::upload::part(writer.connection, upload.id, number)? {
                writer.release(extent::decode_ids(&old.extent_ids))?;
            }
            if let Some(size) = part_size {
                index::upload::set_part_size(writer.connection, upload.id, size)?;
            }
            index::upload::put_part(writer.connection, upload.id, &kept, &extents)?;
            Ok(kept)
        })
        .await
    }

    /// Makes a part's bytes durable where they are in a file.
    async fn sync_part(&self, staged: crate::stage::Staged) -> Result<crate::stage::Staged> {
        let file = match &staged.body {
            Body::Memory(_) => return Ok(staged),
            Body::File(fresh) => Arc::clone(&fresh.file),
            Body::Place { file, .. } => Arc::clone(file),
        };
        let shared = Arc::clone(&self.shared);
        spawn_blocking(move || shared.sync_all(&file))
            .await
            .map_err(|_| Error::Closed)??;
        Ok(staged)
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

    pub(crate) async fn join_parts(&self, complete: Complete) -> Result<Arc<Entry>> {
        let upload = Arc::clone(&complete.upload);
        let request = fingerprint(&complete);
        let version = self.shared.ids.next();
        self.shared
            .closing
            .wait(upload.bucket, Some(&upload.key))
            .await;
        let joined = self
            .change(Durability::Durable, move |writer| {
                join(writer, &complete, request, version)
            })
            .await?;
        self.uploads.forget(upload.id);
        Ok(joined)
    }
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
fn part_record(shared: &Shared, upload: &Upload) -> Record {
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
fn remove_upload(writer: &mut Writer<'_>, id: UploadId) -> Result<()> {
    if let Some(file) = index::upload::remove(writer.connection, id)? {
        writer
            .effects
            .files
            .push((file, false, extent::FileUse::default()));
    }
    Ok(())
}

/// Tells one completion of an upload from another.
fn fingerprint(complete: &Complete) -> Vec<u8> {
    let mut md5 = Md5::new();
    for part in &complete.parts {
        md5.update(part.number.to_le_bytes());
        md5.update(part.etag.map(|etag| etag.digest).unwrap_or_default());
    }
    md5.finalize().to_vec()
}

fn join(
    writer: &mut Writer<'_>,
    complete: &Complete,
    request: Vec<u8>,
    version: u64,
) -> Result<Arc<Entry>> {
    let upload = &complete.upload;
    writer.bucket(upload.bucket)?;
    if !index::upload::exists(writer.connection, upload.id)? {
        return repeated(writer, complete, &request);
    }
    let chosen = choose(writer, complete)?;
    let size: u64 = chosen.iter().map(|stored| stored.part.size).sum();
    if complete.size.is_some_and(|announced| announced != size) {
        return Err(Error::InvalidRequest(
            "the size of the object differs from x-amz-mp-object-size",
        ));
    }
    if size > OBJECT_SIZE_MAX {
        return Err(Error::TooLarge {
            size,
            max: OBJECT_SIZE_MAX,
        });
    }
    let checksum = combined_checksum(complete, &chosen)?;
    let old = writer.current(upload.bucket, upload.key.as_str())?;
    complete.precondition.check(&upload.key, old.as_ref())?;
    let extents = join_extents(writer, upload, &chosen)?;
    let part = |stored: &StoredPart| ObjectPart {
        number: stored.part.number,
        size: stored.part.size,
        checksum: stored
            .part
            .checksum
            .as_ref()
            .map(|(_, value)| value.clone()),
    };
    let draft = Draft {
        bucket: upload.bucket,
        key: upload.key.clone(),
        id: version,
        ino: version,
        size,
        etag: joined_etag(&chosen),
        owner: upload.owner.clone(),
        attributes: upload.attributes.clone(),
        checksum,
        parts: chosen.iter().map(part).collect(),
        file: posix::from_metadata(&upload.attributes.user_metadata, upload.key.is_marker()),
    };
    label_joined(writer, &draft, &extents)?;
    let entry = writer.publish(draft, Source::Taken(extents), old)?;
    index::upload::remove_parts(writer.connection, upload.id)?;
    remove_upload(writer, upload.id)?;
    let (bucket, key) = (upload.bucket, upload.key.clone());
    let completed = Completed {
        bucket,
        key,
        request,
        entry: entry.id,
    };
    let now = writer.now();
    index::upload::remember(
        writer.connection,
        upload.id,
        &completed,
        now,
        Timestamp(now.0 - REMEMBERED_NS),
    )?;
    Ok(entry)
}

/// The answer to a completion that was answered before.
fn repeated(writer: &Writer<'_>, complete: &Complete, request: &[u8]) -> Result<Arc<Entry>> {
    let upload = &complete.upload;
    let gone = || Error::NoSuchUpload(upload.id.to_string());
    let completed = index::upload::recall(writer.connection, upload.id)?.ok_or_else(gone)?;
    let same = completed.bucket == upload.bucket
        && completed.key == upload.key
        && completed.request == request;
    let current = writer.current(upload.bucket, upload.key.as_str())?;
    let entry = current
        .filter(|entry| same && entry.id == completed.entry)
        .ok_or_else(gone)?;
    Ok(Arc::new(entry))
}

/// The parts that a completion names, checked.
fn choose(writer: &Writer<'_>, complete: &Complete) -> Result<Vec<StoredPart>> {
    if complete.parts.is_empty() {
        return Err(Error::InvalidRequest(
            "a completion names at least one part",
        ));
    }
    if !complete.parts.is_sorted_by(|a, b| a.number < b.number) {
        return Err(Error::InvalidPartOrder);
    }
    let id = complete.upload.id;
    let stored = index::upload::parts(writer.connection, id, 0, usize::from(PART_NUMBER_MAX))?;
    let mut stored: HashMap<u32, StoredPart> = stored
        .into_iter()
        .map(|stored| (u32::from(stored.part.number), stored))
        .collect();
    let mut chosen = Vec::with_capacity(complete.parts.len());
    for named in &complete.parts {
        let found = stored
            .remove(&named.number)
            .filter(|found| matches(named, &found.part));
        chosen.push(found.ok_or(Error::InvalidPart {
            number: named.number,
        })?);
    }
    let before_last = &chosen[..chosen.len() - 1];
    if let Some(small) = before_last
        .iter()
        .find(|stored| stored.part.size < PART_SIZE_MIN)
    {
        return Err(Error::PartTooSmall {
            number: u32::from(small.part.number),
            size: small.part.size,
        });
    }
    Ok(chosen)
}

fn matches(named: &CompletedPart, part: &Part) -> bool {
    let same_sum = |sum: &(ChecksumAlgorithm, Vec<u8>)| part.checksum.as_ref() == Some(sum);
    named.etag == Some(part.etag) && named.checksum.as_ref().is_none_or(same_sum)
}

/// MD5 of the parts' MD5s, and their number.
fn joined_etag(chosen: &[StoredPart]) -> ETag {
    let mut md5 = Md5::new();
    for stored in chosen {
        md5.update(stored.part.etag.digest);
    }
    let parts = u32::try_from(chosen.len()).expect("at most 10,000 parts");
    ETag {
        digest: md5.finalize().into(),
        parts,
    }
}

/// The checksum of the whole, of the upload's algorithm and type, checked against the one
/// announced.
fn combined_checksum(complete: &Complete, chosen: &[StoredPart]) -> Result<Option<Checksum>> {
    let Some((algorithm, kind)) = complete.upload.checksum else {
        return Ok(None);
    };
    if kind == ChecksumType::Composite
        && !(1..)
            .zip(chosen)
            .all(|(number, stored)| stored.part.number == number)
    {
        return Err(Error::InvalidPartOrder);
    }
    let missing = Error::InvalidRequest(
        "the upload was created with a checksum, and a part has none of that algorithm",
    );
    let values = chosen.iter().map(|stored| match &stored.part.checksum {
        Some((of, value)) if *of == algorithm => Some((value, stored.part.size)),
        _ => None,
    });
    let values = values.collect::<Option<Vec<_>>>().ok_or(missing)?;
    let (value, parts) = match kind {
        ChecksumType::Composite => {
            let all: Vec<u8> = values
                .iter()
                .flat_map(|(value, _)| value.iter().copied())
                .collect();
            (
                algorithm.digest(&all),
                u32::try_from(values.len()).expect("at most 10,000 parts"),
            )
        }
        ChecksumType::FullObject => {
            let empty = algorithm.digest(&[]);
            let whole = values.iter().try_fold(empty, |whole, (value, size)| {
                algorithm.combine(&whole, value, *size)
            });
            (
                whole.ok_or(Error::InvalidRequest(
                    "the checksum of a whole can't be computed of its parts'",
                ))?,
                0,
            )
        }
    };
    if complete
        .checksum
        .as_ref()
        .is_some_and(|(of, announced)| *of != algorithm || *announced != value)
    {
        return Err(Error::DigestMismatch {
            what: "checksum of the whole object",
        });
    }
    Ok(Some(Checksum {
        algorithm,
        kind,
        value,
        parts,
    }))
}

/// The extents of the whole: neighbours in one file become one. Extents of parts not chosen are
/// released.
fn join_extents(
    writer: &mut Writer<'_>,
    upload: &Upload,
    chosen: &[StoredPart],
) -> Result<Vec<Extent>> {
    let all = index::upload::parts(
        writer.connection,
        upload.id,
        0,
        usize::from(PART_NUMBER_MAX),
    )?;
    for stored in all {
        if !chosen
            .iter()
            .any(|kept| kept.part.number == stored.part.number)
        {
            writer.release(extent::decode_ids(&stored.extent_ids))?;
        }
    }
    let mut runs: Vec<Vec<Extent>> = Vec::new();
    for stored in chosen {
        for extent in extent::load(writer.connection, &stored.extent_ids)? {
            match runs.last_mut() {
                Some(run) if run.last().is_some_and(|last| continues(last, &extent)) => {
                    run.push(extent);
                }
                _ => runs.push(vec![extent]),
            }
        }
    }
    let mut joined = Vec::with_capacity(runs.len());
    for run in runs {
        let [first, rest @ ..] = &run[..] else {
            continue;
        };
        if rest.is_empty() {
            joined.push(*first);
            continue;
        }
        let mut whole = Extent {
            id: writer.shared.ids.next(),
            ..*first
        };
        for next in rest {
            whole.crc64 = whole
                .crc64
                .zip(next.crc64)
                .map(|(so_far, crc)| crc64_combine(so_far, crc, next.len));
            whole.len += next.len;
        }
        writer.add_extent(&whole, 0)?;
        writer.release(run.iter().map(|extent| extent.id))?;
        joined.push(whole);
    }
    Ok(joined)
}

fn continues(last: &Extent, next: &Extent) -> bool {
    !last.packed && last.file == next.file && last.offset + last.len == next.offset
}

/// Says in the label of the first file what the joined object is, and cuts off what no part chosen
/// needs.
fn label_joined(writer: &mut Writer<'_>, draft: &Draft, extents: &[Extent]) -> Result<()> {
    let Some(first) = extents.first().filter(|first| !first.packed) else {
        return Ok(());
    };
    let shared = writer.shared;
    let path = shared.layout.path(first.file, false);
    let file = shared.disk.open(&path).io("open", &path)?;
    let bucket = shared.buckets.by_id(draft.bucket);
    let name = bucket.as_ref().map_or("", |bucket| bucket.name.as_str());
    let mut record = Record::of_draft(draft, name, writer.now());
    for extent in extents {
        record.add_extent(extent);
    }
    label(shared, &file, &record)?;
    writer.effects.sync_files.push(Arc::clone(&file));
    if extents.len() == 1 && first.offset == 0 {
        writer.effects.cut.push((file, first.len));
    }
    Ok(())
}
