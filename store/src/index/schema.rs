//! The tables, and how older forms of them become the current one.
//!
//! `PRAGMA user_version` is the number of migrations applied. A migration is never changed once
//! released.

use rusqlite::Connection;

use crate::error::{Error, IndexContext, Result};

const FIRST: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    canonical TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE access_keys (
    id TEXT PRIMARY KEY,
    secret TEXT NOT NULL,
    account INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE buckets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    location TEXT
) STRICT;

-- Current versions. What listings read comes first.
CREATE TABLE current (
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    size INTEGER NOT NULL,
    etag BLOB NOT NULL,
    etag_parts INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    storage_class TEXT,
    checksum_kind INTEGER,
    id INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    mode INTEGER, uid INTEGER, gid INTEGER, mtime INTEGER, ctime INTEGER, rdev INTEGER,
    content_type TEXT,
    cache_control TEXT,
    version BLOB,
    extents BLOB NOT NULL,
    details BLOB,
    PRIMARY KEY (bucket, key)
) STRICT, WITHOUT ROWID;

-- Older versions and delete markers, the newest of a key first.
CREATE TABLE older (
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    size INTEGER NOT NULL,
    etag BLOB NOT NULL,
    etag_parts INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    storage_class TEXT,
    checksum_kind INTEGER,
    id INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    mode INTEGER, uid INTEGER, gid INTEGER, mtime INTEGER, ctime INTEGER, rdev INTEGER,
    content_type TEXT,
    cache_control TEXT,
    version BLOB,
    extents BLOB NOT NULL,
    details BLOB,
    delete_marker INTEGER NOT NULL,
    PRIMARY KEY (bucket, key, id DESC)
) STRICT, WITHOUT ROWID;

-- Bytes in data files. `refs` counts the rows and parts that name an extent.
CREATE TABLE extents (
    id INTEGER PRIMARY KEY,
    file INTEGER NOT NULL,
    packed INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    len INTEGER NOT NULL,
    crc INTEGER,
    refs INTEGER NOT NULL
) STRICT;

-- Data files. `size` is the published length of a segment, `live` the bytes of its extents, `refs` their number.
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    packed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    live INTEGER NOT NULL,
    refs INTEGER NOT NULL
) STRICT;

CREATE TABLE uploads (
    id BLOB PRIMARY KEY,
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    initiated_at INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    checksum_kind INTEGER,
    content_type TEXT,
    cache_control TEXT,
    storage_class TEXT,
    details BLOB,
    file INTEGER NOT NULL,
    part_size INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_by_key ON uploads (bucket, key, initiated_at, id);
CREATE INDEX uploads_by_file ON uploads (file);

CREATE TABLE parts (
    upload BLOB NOT NULL,
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    etag BLOB NOT NULL,
    checksum BLOB,
    modified_at INTEGER NOT NULL,
    extents BLOB NOT NULL,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;

-- Uploads completed lately, so that a repeated completion gets the same answer.
CREATE TABLE completed (
    id BLOB PRIMARY KEY,
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    at INTEGER NOT NULL,
    request BLOB NOT NULL,
    entry INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Versions whose bytes were not synced before their row was committed, and what each of them replaced.
CREATE TABLE unsynced (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE fallbacks (
    unsynced INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    key BLOB NOT NULL,
    size INTEGER NOT NULL,
    etag BLOB NOT NULL,
    etag_parts INTEGER NOT NULL,
    modified_at INTEGER NOT NULL,
    owner INTEGER NOT NULL,
    storage_class TEXT,
    checksum_kind INTEGER,
    id INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    mode INTEGER, uid INTEGER, gid INTEGER, mtime INTEGER, ctime INTEGER, rdev INTEGER,
    content_type TEXT,
    cache_control TEXT,
    version BLOB,
    extents BLOB NOT NULL,
    details BLOB,
    PRIMARY KEY (unsynced, bucket, key)
) STRICT, WITHOUT ROWID;
";

/// Parts whose bytes lie in the files of another object.
const SHARED_PARTS: &str = "ALTER TABLE parts ADD COLUMN shared INTEGER NOT NULL DEFAULT 0;";

const MIGRATIONS: [&str; 2] = [FIRST, SHARED_PARTS];

/// Brings the tables to the form that this release knows.
///
/// # Errors
/// `FormatTooNew` if a newer release wrote them.
pub(crate) fn migrate(connection: &mut Connection, path: &std::path::Path) -> Result<()> {
    let known = i64::try_from(MIGRATIONS.len()).expect("few migrations");
    let transaction = connection.transaction().index("begin")?;
    let found: i64 = transaction
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .index("read the format's version")?;
    if found > known {
        return Err(Error::FormatTooNew {
            path: path.to_owned(),
            found,
            known,
        });
    }
    for (number, migration) in (1_i64..).zip(MIGRATIONS) {
        if number > found {
            transaction.execute_batch(migration).index("migrate")?;
            transaction
                .pragma_update(None, "user_version", number)
                .index("migrate")?;
        }
    }
    transaction.commit().index("migrate")
}
