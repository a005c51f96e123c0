//! Multipart uploads in the index.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::list::{LAST, common_prefix};
use super::{after_prefix, extent, signed, text, unsigned};
use crate::accounts::Accounts;
use crate::api::{ListUploads, UploadPage};
use crate::entry::{BucketId, ETag, Extent, FileId, Part, Upload};
use crate::error::{Error, IndexContext, Result};
use crate::name::{ObjectKey, UploadId};
use crate::record::{Details, checksum_kind, parse_checksum_kind};
use crate::time::Timestamp;

/// Adds an upload.
pub(crate) fn insert(connection: &Connection, upload: &Upload, owner: i64) -> Result<()> {
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO uploads (id, bucket, key, initiated_at, owner, checksum_kind, content_type, cache_control,
             storage_class, details, file) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .index("prepare")?;
    let headers = &upload.attributes.headers;
    let row = params![
        upload.id.0,
        signed(upload.bucket.0),
        upload.key.as_str().as_bytes(),
        upload.initiated_at.0,
        owner,
        upload
            .checksum
            .map(|(algorithm, kind)| checksum_kind(algorithm, kind)),
        headers.content_type,
        headers.cache_control,
        upload.attributes.storage_class,
        Details::of(&upload.attributes, None, &[]).map(|details| details.encode()),
        signed(upload.file.0),
    ];
    statement.execute(row).index("add an upload")?;
    Ok(())
}

const UPLOAD_SQL: &str =
    "SELECT id, bucket, key, initiated_at, owner, checksum_kind, content_type, cache_control,
     storage_class, details, file FROM uploads";

fn decode(row: &Row<'_>, accounts: &Accounts) -> rusqlite::Result<Upload> {
    let key = row.get_ref(2)?.as_blob()?;
    let key = text(key)?;
    let details = row
        .get_ref(9)?
        .as_blob_or_null()?
        .and_then(Details::decode)
        .unwrap_or_default();
    let (attributes, _, _) = details.into_parts(row.get(6)?, row.get(7)?, row.get(8)?);
    Ok(Upload {
        id: UploadId(row.get(0)?),
        bucket: BucketId(unsigned(row.get(1)?)),
        key: ObjectKey::trusted(key),
        initiated_at: Timestamp(row.get(3)?),
        owner: accounts.id(row.get(4)?),
        attributes,
        checksum: row.get::<_, Option<u8>>(5)?.and_then(parse_checksum_kind),
        file: FileId(unsigned(row.get(10)?)),
    })
}

/// The upload of this id.
pub(crate) fn find(
    connection: &Connection,
    accounts: &Accounts,
    id: UploadId,
) -> Result<Option<Upload>> {
    let mut statement = connection
        .prepare_cached(&format!("{UPLOAD_SQL} WHERE id = ?1"))
        .index("prepare")?;
    statement
        .query_row([id.0], |row| decode(row, accounts))
        .optional()
        .index("find an upload")
}

/// Whether an upload is in progress.
pub(crate) fn exists(connection: &Connection, id: UploadId) -> Result<bool> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM uploads WHERE id = ?1")
        .index("prepare")?;
    statement.exists([id.0]).index("find an upload")
}

/// Whether a data file is the one that the parts of an upload in progress go to.
pub(crate) fn has_file(connection: &Connection, file: FileId) -> Result<bool> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM uploads WHERE file = ?1")
        .index("prepare")?;
    statement
        .exists([signed(file.0)])
        .index("find an upload's file")
}

/// The distance of parts in the upload's file, if it is known.
pub(crate) fn part_size(connection: &Connection, id: UploadId) -> Result<Option<u64>> {
    let mut statement = connection
        .prepare_cached("SELECT part_size FROM uploads WHERE id = ?1")
        .index("prepare")?;
    let found = statement
        .query_row([id.0], |row| row.get::<_, Option<i64>>(0))
        .optional()
        .index("find an upload")?;
    Ok(found.flatten().map(unsigned))
}

/// Records the distance of parts in the upload's file.
pub(crate) fn set_part_size(connection: &Connection, id: UploadId, size: u64) -> Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE uploads SET part_size = ?2 WHERE id = ?1 AND part_size IS NULL")
        .index("prepare")?;
    statement
        .execute(params![id.0, signed(size)])
        .index("record the size of parts")?;
    Ok(())
}

/// Removes an upload; gives the file its parts shared. Its parts are to be taken out before.
pub(crate) fn remove(connection: &Connection, id: UploadId) -> Result<Option<FileId>> {
    let mut statement = connection
        .prepare_cached("DELETE FROM uploads WHERE id = ?1 RETURNING file")
        .index("prepare")?;
    let file = statement.query_row([id.0], |row| row.get(0)).optional();
    Ok(file
        .index("remove an upload")?
        .map(|file| FileId(unsigned(file))))
}

/// Whose the files are that a part's bytes lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The upload's own.
    Uploaded,
    /// Those of the object that the part is a range of.
    Shared,
}

/// A part and the numbers of its extents.
#[derive(Clone, Debug)]
pub(crate) struct StoredPart {
    pub(crate) part: Part,
    pub(crate) extent_ids: Vec<u8>,
    pub(crate) origin: Origin,
}

fn decode_part(row: &Row<'_>) -> rusqlite::Result<StoredPart> {
    let checksum: Option<Vec<u8>> = row.get(3)?;
    let checksum = checksum.and_then(|mut value| {
        let kind = value.pop()?;
        Some((parse_checksum_kind(kind)?.0, value))
    });
    Ok(StoredPart {
        part: Part {
            number: row.get(0)?,
            size: unsigned(row.get(1)?),
            etag: ETag {
                digest: row.get(2)?,
                parts: 0,
            },
            checksum,
            modified_at: Timestamp(row.get(4)?),
        },
        extent_ids: row.get(5)?,
        origin: if row.get(6)? {
            Origin::Shared
        } else {
            Origin::Uploaded
        },
    })
}

/// Parts with numbers after `after`, in order, at most `limit`.
pub(crate) fn parts(
    connection: &Connection,
    id: UploadId,
    after: u16,
    limit: usize,
) -> Result<Vec<StoredPart>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT number, size, etag, checksum, modified_at, extents, shared FROM parts
             WHERE upload = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
        )
        .index("prepare")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![id.0, after, limit], decode_part)
        .index("list parts")?;
    rows.collect::<rusqlite::Result<_>>().index("list parts")
}

/// One part.
pub(crate) fn part(
    connection: &Connection,
    id: UploadId,
    number: u16,
) -> Result<Option<StoredPart>> {
    Ok(parts(connection, id, number.saturating_sub(1), 1)?
        .into_iter()
        .find(|found| found.part.number == number))
}

/// Keeps a part, in the place of one of its number.
pub(crate) fn put_part(
    connection: &Connection,
    id: UploadId,
    part: &Part,
    extents: &[Extent],
    origin: Origin,
) -> Result<()> {
    let mut statement = connection
        .prepare_cached(
            "REPLACE INTO parts (upload, number, size, etag, checksum, modified_at, extents, shared)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .index("prepare")?;
    let checksum = part.checksum.as_ref().map(|(algorithm, value)| {
        let mut blob = value.clone();
        blob.push(checksum_kind(
            *algorithm,
            crate::digest::ChecksumType::FullObject,
        ));
        blob
    });
    let ids = extent::encode_ids(extents);
    let row = params![
        id.0,
        part.number,
        signed(part.size),
        part.etag.digest,
        checksum,
        part.modified_at.0,
        ids,
        origin == Origin::Shared
    ];
    statement.execute(row).index("keep a part")?;
    Ok(())
}

/// Takes all parts of an upload out.
pub(crate) fn remove_parts(connection: &Connection, id: UploadId) -> Result<()> {
    let mut statement = connection
        .prepare_cached("DELETE FROM parts WHERE upload = ?1")
        .index("prepare")?;
    statement.execute([id.0]).index("remove parts")?;
    Ok(())
}

/// The ids of all uploads of a bucket.
pub(crate) fn ids_of_bucket(connection: &Connection, bucket: BucketId) -> Result<Vec<UploadId>> {
    let mut statement = connection
        .prepare_cached("SELECT id FROM uploads WHERE bucket = ?1")
        .index("prepare")?;
    let rows = statement
        .query_map([signed(bucket.0)], |row| row.get(0).map(UploadId))
        .index("list uploads")?;
    rows.collect::<rusqlite::Result<_>>().index("list uploads")
}

/// A completion that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Completed {
    pub(crate) bucket: BucketId,
    pub(crate) key: ObjectKey,
    /// Digest of what the completion asked for.
    pub(crate) request: Vec<u8>,
    /// The version it made.
    pub(crate) entry: u64,
}

/// Remembers a completion, and forgets those from before `forget_before`.
pub(crate) fn remember(
    connection: &Connection,
    id: UploadId,
    completed: &Completed,
    at: Timestamp,
    forget_before: Timestamp,
) -> Result<()> {
    let mut statement = connection
        .prepare_cached("REPLACE INTO completed (id, bucket, key, at, request, entry) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .index("prepare")?;
    let (bucket, key) = (
        signed(completed.bucket.0),
        completed.key.as_str().as_bytes(),
    );
    let row = params![
        id.0,
        bucket,
        key,
        at.0,
        completed.request,
        signed(completed.entry)
    ];
    statement.execute(row).index("remember a completion")?;
    let mut statement = connection
        .prepare_cached("DELETE FROM completed WHERE at < ?1")
        .index("prepare")?;
    statement
        .execute([forget_before.0])
        .index("forget completions")?;
    Ok(())
}

/// What is remembered of a completion.
pub(crate) fn recall(connection: &Connection, id: UploadId) -> Result<Option<Completed>> {
    let mut statement = connection
        .prepare_cached("SELECT bucket, key, request, entry FROM completed WHERE id = ?1")
        .index("prepare")?;
    let found = statement.query_row([id.0], |row| {
        let key = row.get_ref(1)?.as_blob()?;
        let key = text(key)?;
        Ok(Completed {
            bucket: BucketId(unsigned(row.get(0)?)),
            key: ObjectKey::trusted(key),
            request: row.get(2)?,
            entry: unsigned(row.get(3)?),
        })
    });
    found.optional().index("recall a completion")
}

/// One page of uploads in progress, by key, then by time of initiation.
pub(crate) fn page(
    connection: &Connection,
    accounts: &Accounts,
    list: &ListUploads,
) -> Result<UploadPage> {
    let end = after_prefix(list.prefix.as_bytes()).unwrap_or_else(|| LAST.to_vec());
    let delimiter = list
        .delimiter
        .as_deref()
        .filter(|delimiter| !delimiter.is_empty());
    let (mut key, mut from) = start(connection, list, delimiter)?;
    let sql = format!(
        "{UPLOAD_SQL} WHERE bucket = ?1 AND (key, initiated_at, id) > (?2, ?3, ?4) AND key >= ?5 AND key < ?6
         ORDER BY key, initiated_at, id LIMIT ?7"
    );
    let mut statement = connection.prepare_cached(&sql).index("prepare")?;
    let (mut page, mut last) = (UploadPage::default(), None);
    let count = |page: &UploadPage| page.uploads.len() + page.common_prefixes.len();
    'seek: while count(&page) <= list.limit {
        let wanted = i64::try_from(list.limit + 1 - count(&page)).unwrap_or(i64::MAX);
        let bounds = params![
            signed(list.bucket.0),
            key,
            from.0,
            from.1,
            list.prefix.as_bytes(),
            end,
            wanted
        ];
        let mut rows = statement.query(bounds).index("list uploads")?;
        while let Some(row) = rows.next().index("list uploads")? {
            if count(&page) == list.limit {
                page.next = last;
                break 'seek;
            }
            let upload = decode(row, accounts).index("list uploads")?;
            if let Some(common) = common_prefix(upload.key.as_str(), &list.prefix, delimiter) {
                last = Some((common.to_owned(), None));
                key = after_prefix(common.as_bytes()).unwrap_or_else(|| LAST.to_vec());
                // Before every upload of that key.
                from = (i64::MIN, Vec::new());
                page.common_prefixes.push(common.to_owned());
                continue 'seek;
            }
            last = Some((upload.key.as_str().to_owned(), Some(upload.id)));
            page.uploads.push(upload);
        }
        break;
    }
    Ok(page)
}

/// Key, and time and id within that key, after which uploads are wanted.
type Start = (Vec<u8>, (i64, Vec<u8>));

/// Where a page begins.
fn start(connection: &Connection, list: &ListUploads, delimiter: Option<&str>) -> Result<Start> {
    let Some((key, id)) = &list.after else {
        return Ok((Vec::new(), (i64::MIN, Vec::new())));
    };
    if common_prefix(key, &list.prefix, delimiter) == Some(key) {
        let next = after_prefix(key.as_bytes()).unwrap_or_else(|| LAST.to_vec());
        return Ok((next, (i64::MIN, Vec::new())));
    }
    let Some(id) = id else {
        return Ok((key.as_bytes().to_vec(), (i64::MAX, LAST.to_vec())));
    };
    let mut statement = connection
        .prepare_cached("SELECT initiated_at FROM uploads WHERE id = ?1")
        .index("prepare")?;
    let at = statement
        .query_row([id.0], |row| row.get(0))
        .optional()
        .index("find an upload")?;
    let at = at.ok_or_else(|| Error::NoSuchUpload(id.to_string()))?;
    Ok((key.as_bytes().to_vec(), (at, id.0.to_vec())))
}
