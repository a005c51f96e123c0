//! Objects in the index: one version as a row, and what is done to rows.

use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;

use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use super::{extent, signed, unsigned};
use crate::accounts::Accounts;
use crate::entry::{BucketId, ETag, Entry};
use crate::error::{Error, IndexContext, Result};
use crate::name::{ObjectKey, VersionId};
use crate::record::{Details, StoredFile, checksum_kind};
use crate::time::Timestamp;

/// A row as it is, and the extents it names.
pub(crate) struct Stored {
    pub(crate) entry: Entry,
    pub(crate) extent_ids: Vec<u8>,
}

/// Reads a row of the columns of `with_columns!`. The extents are left to be loaded.
pub(crate) fn decode(row: &Row<'_>, accounts: &Accounts) -> rusqlite::Result<Result<Stored>> {
    let key = row.get_ref(1)?.as_blob()?;
    let details = match row.get_ref(21)?.as_blob_or_null()? {
        None => Some(Details::default()),
        Some(blob) => Details::decode(blob),
    };
    let (Ok(key), Some(details)) = (std::str::from_utf8(key), details) else {
        return Ok(Err(Error::IndexDamaged(format!(
            "row of key {:?}",
            String::from_utf8_lossy(key)
        ))));
    };
    let file = StoredFile {
        mode: row.get(11)?,
        uid: row.get(12)?,
        gid: row.get(13)?,
        mtime: row.get(14)?,
        ctime: row.get(15)?,
        rdev: row.get(16)?,
    };
    let version: Option<[u8; 16]> = row.get(19)?;
    let (attributes, checksum, parts) = details.into_parts(row.get(17)?, row.get(18)?, row.get(7)?);
    let entry = Entry {
        id: unsigned(row.get(9)?),
        ino: unsigned(row.get(10)?),
        bucket: BucketId(unsigned(row.get(0)?)),
        key: ObjectKey::trusted(key),
        version_id: version.map(|bytes| version_id(&bytes)),
        delete_marker: false,
        size: unsigned(row.get(2)?),
        etag: ETag {
            digest: row.get(3)?,
            parts: row.get(4)?,
        },
        modified_at: Timestamp(row.get(5)?),
        owner: accounts.id(row.get(6)?),
        attributes,
        checksum,
        parts,
        file: file.into(),
        extents: Vec::new(),
        origin: None,
        verified: AtomicBool::new(false),
    };
    Ok(Ok(Stored {
        entry,
        extent_ids: row.get(20)?,
    }))
}

fn version_id(bytes: &[u8; 16]) -> VersionId {
    let mut text = String::with_capacity(32);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a string takes all text");
    }
    VersionId::parse(&text).expect("32 hexadecimal digits")
}

/// The first row that a query of `with_columns!` gives, with its extents.
fn query_one(
    connection: &Connection,
    accounts: &Accounts,
    sql: &str,
    params: impl Params,
) -> Result<Option<Entry>> {
    let mut statement = connection.prepare_cached(sql).index("prepare")?;
    let found = statement
        .query_row(params, |row| decode(row, accounts))
        .optional()
        .index("find an object")?;
    let Some(stored) = found.transpose()? else {
        return Ok(None);
    };
    let mut entry = stored.entry;
    entry.extents = extent::load(connection, &stored.extent_ids)?;
    Ok(Some(entry))
}

/// The current version of a key.
pub(crate) fn current(
    connection: &Connection,
    accounts: &Accounts,
    bucket: BucketId,
    key: &str,
) -> Result<Option<Entry>> {
    const SQL: &str = with_columns!("SELECT ", " FROM current WHERE bucket = ?1 AND key = ?2");
    query_one(
        connection,
        accounts,
        SQL,
        params![signed(bucket.0), key.as_bytes()],
    )
}

/// Writes a row, in the place of what its table has under its key; false if that was to stay.
fn write(
    connection: &Connection,
    sql: &str,
    lead: Option<u64>,
    entry: &Entry,
    owner: i64,
) -> Result<bool> {
    let file = StoredFile::from(entry.file);
    let headers = &entry.attributes.headers;
    let kind = entry
        .checksum
        .as_ref()
        .map(|sum| checksum_kind(sum.algorithm, sum.kind));
    let details = Details::of(&entry.attributes, entry.checksum.as_ref(), &entry.parts)
        .map(|details| details.encode());
    let version = match &entry.version_id {
        Some(id) => hex::decode(id.as_str()).ok(),
        None => None,
    };
    let mut statement = connection.prepare_cached(sql).index("prepare")?;
    let row = params![
        lead.map(signed),
        signed(entry.bucket.0),
        entry.key.as_str().as_bytes(),
        signed(entry.size),
        entry.etag.digest,
        entry.etag.parts,
        entry.modified_at.0,
        owner,
        entry.attributes.storage_class,
        kind,
        signed(entry.id),
        signed(entry.ino),
        file.mode,
        file.uid,
        file.gid,
        file.mtime,
        file.ctime,
        file.rdev,
        headers.content_type,
        headers.cache_control,
        version,
        extent::encode_ids(&entry.extents),
        details,
    ];
    Ok(statement.execute(row).index("write an object")? > 0)
}

/// Makes `entry` the current version of its key.
pub(crate) fn put(connection: &Connection, entry: &Entry, owner: i64) -> Result<()> {
    const SQL: &str = with_columns!(
        "REPLACE INTO current (",
        ") SELECT ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23
         WHERE ?1 IS NULL"
    );
    write(connection, SQL, None, entry, owner).map(drop)
}

/// Keeps `entry` to fall back on should the bytes of version `unsynced` be lost; false if an older
/// one is kept already.
pub(crate) fn put_fallback(
    connection: &Connection,
    unsynced: u64,
    entry: &Entry,
    owner: i64,
) -> Result<bool> {
    const SQL: &str = with_columns!(
        "INSERT OR IGNORE INTO fallbacks (unsynced, ",
        ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)"
    );
    write(connection, SQL, Some(unsynced), entry, owner)
}

/// Removes the current version of a key.
pub(crate) fn remove(connection: &Connection, bucket: BucketId, key: &str) -> Result<()> {
    let mut statement = connection
        .prepare_cached("DELETE FROM current WHERE bucket = ?1 AND key = ?2")
        .index("prepare")?;
    statement
        .execute(params![signed(bucket.0), key.as_bytes()])
        .index("remove an object")?;
    Ok(())
}

/// The first current key that is `from` or after it.
pub(crate) fn first_key(
    connection: &Connection,
    bucket: BucketId,
    from: &[u8],
) -> Result<Option<String>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT key FROM current WHERE bucket = ?1 AND key >= ?2 ORDER BY key LIMIT 1",
        )
        .index("prepare")?;
    let found = statement.query_row(params![signed(bucket.0), from], |row| {
        row.get::<_, Vec<u8>>(0)
    });
    let found = found.optional().index("find a key")?;
    found
        .map(|key| {
            String::from_utf8(key)
                .map_err(|err| Error::IndexDamaged(format!("key {:?}", err.as_bytes())))
        })
        .transpose()
}

/// Whether any current key begins with `prefix`.
pub(crate) fn has_prefix(connection: &Connection, bucket: BucketId, prefix: &str) -> Result<bool> {
    Ok(
        first_key(connection, bucket, prefix.as_bytes())?
            .is_some_and(|key| key.starts_with(prefix)),
    )
}

/// The number, bucket and key of all current versions that `wanted` says yes to. Reads every row.
pub(crate) fn scan_ids(
    connection: &Connection,
    mut wanted: impl FnMut(u64) -> bool,
) -> Result<Vec<(u64, BucketId, String)>> {
    let mut statement = connection
        .prepare("SELECT id, bucket, key FROM current")
        .index("prepare")?;
    let mut rows = statement.query([]).index("scan the objects")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().index("scan the objects")? {
        let id = unsigned(row.get(0).index("scan the objects")?);
        if wanted(id) {
            let key: Vec<u8> = row.get(2).index("scan the objects")?;
            let key = String::from_utf8_lossy(&key).into_owned();
            found.push((
                id,
                BucketId(unsigned(row.get(1).index("scan the objects")?)),
                key,
            ));
        }
    }
    Ok(found)
}

/// Renames all current keys that begin with `from` so that they begin with `to`; gives their
/// number.
///
/// None of the new keys may exist. The rows move in the order of their keys, which no new key
/// falls into.
pub(crate) fn rename_prefix(
    connection: &Connection,
    bucket: BucketId,
    from: &str,
    to: &str,
) -> Result<usize> {
    let end = super::after_prefix(from.as_bytes()).unwrap_or_default();
    let mut statement = connection
        .prepare_cached(
            "UPDATE current SET key = CAST(?4 || substr(key, ?5) AS BLOB) WHERE bucket = ?1 AND key >= ?2 AND key < ?3",
        )
        .index("prepare")?;
    let skip = i64::try_from(from.len()).expect("a key is short") + 1;
    let row = params![signed(bucket.0), from.as_bytes(), end, to.as_bytes(), skip];
    statement.execute(row).index("rename a directory")
}

/// Length in bytes of the longest current key that begins with `prefix`.
pub(crate) fn longest_key(
    connection: &Connection,
    bucket: BucketId,
    prefix: &str,
) -> Result<usize> {
    let end = super::after_prefix(prefix.as_bytes()).unwrap_or_default();
    let longest: Option<i64> = connection
        .query_row(
            "SELECT max(length(key)) FROM current WHERE bucket = ?1 AND key >= ?2 AND key < ?3",
            params![signed(bucket.0), prefix.as_bytes(), end],
            |row| row.get(0),
        )
        .index("measure the keys of a directory")?;
    Ok(usize::try_from(longest.unwrap_or(0)).unwrap_or(0))
}
