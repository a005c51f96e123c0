//! The index: the only code here that speaks SQL.
//!
//! It says what is in the directory, for the next start. While the cache is open everything is in
//! memory, and the index is written behind: by one thread, once a second, without syncs. So it may
//! be wrong after a crash: it may lack what was put last, and name what was given back last. What
//! it names is checked by CRC before anybody sees it.
//!
//! An object of one block is one row; a larger one has a row for each run of it besides.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};

use super::entry::{Identity, Part, RUN_BLOCKS};
use super::error::{DiskError, IndexContext};
use super::segment::Place;
use crate::version::Version;

const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE origins (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE objects (
    number INTEGER PRIMARY KEY,
    identity BLOB NOT NULL,
    size INTEGER NOT NULL,
    origin INTEGER NOT NULL,
    pinned INTEGER NOT NULL,
    used INTEGER NOT NULL,
    part INTEGER NOT NULL,
    segment INTEGER, page INTEGER, crc INTEGER,
    bucket BLOB NOT NULL,
    key BLOB NOT NULL,
    etag TEXT NOT NULL
) STRICT;
CREATE INDEX objects_by_name ON objects (origin, bucket, key);
CREATE TABLE runs (
    object INTEGER NOT NULL,
    run INTEGER NOT NULL,
    part INTEGER NOT NULL,
    used INTEGER NOT NULL,
    present INTEGER NOT NULL,
    crcs BLOB NOT NULL,
    PRIMARY KEY (object, run)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";
/// What the write-ahead log is cut to when it has been taken over, in bytes.
const WAL_SIZE_KEPT: i64 = 1 << 20;
/// `PRAGMA user_version` of the schema.
const SCHEMA_VERSION: i64 = 1;

/// What the index keeps of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunRow {
    pub(super) part: Part,
    /// In seconds since 1970.
    pub(super) used: u32,
    /// A bit for each block that is there; the first block's is the lowest.
    pub(super) present: u16,
    pub(super) crcs: [u64; RUN_BLOCKS],
}

/// What the index keeps of an object.
#[derive(Clone, Debug)]
pub(super) struct ObjectRow {
    pub(super) number: u64,
    pub(super) identity: Identity,
    pub(super) size: u64,
    pub(super) pinned: bool,
    /// In seconds since 1970.
    pub(super) used: u32,
    pub(super) part: Part,
    /// Where a small object is, and its CRC.
    pub(super) small: Option<(Place, u64)>,
}

/// A change of the index.
#[derive(Debug)]
pub(super) enum Change {
    /// An object is there, or changed.
    Save {
        row: ObjectRow,
        /// Its names, if it is new.
        names: Option<Arc<Version>>,
        /// The runs that changed.
        runs: Vec<(u32, RunRow)>,
    },
    /// An object is gone.
    Delete(u64),
}

/// An object's row as a listing reads it.
#[derive(Debug)]
pub(super) struct NameRow {
    pub(super) number: u64,
    pub(super) identity: Identity,
    pub(super) size: u64,
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) etag: String,
}

/// The index, open.
#[derive(Debug)]
pub(super) struct Index {
    connection: Connection,
    path: PathBuf,
    origin: i64,
}

fn signed(value: u64) -> i64 {
    value.cast_signed()
}

fn part_number(part: Part) -> i64 {
    match part {
        Part::Probation => 0,
        Part::Protected => 1,
    }
}

fn part_of(number: i64) -> Result<Part, DiskError> {
    match number {
        0 => Ok(Part::Probation),
        1 => Ok(Part::Protected),
        _ => Err(damaged("part", number)),
    }
}

fn damaged(column: &str, value: impl std::fmt::Debug) -> DiskError {
    DiskError::Damaged(format!("{column} is {value:?}"))
}

fn connect(path: &Path) -> Result<Connection, DiskError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(path, flags).index("open")?;
    connection
        .busy_timeout(std::time::Duration::from_secs(10))
        .index("set the busy timeout")?;
    for (name, value) in [
        ("mmap_size", 0),
        ("trusted_schema", 0),
        ("cell_size_check", 1),
        ("cache_size", -8192),
    ] {
        connection
            .pragma_update(None, name, value)
            .index("configure")?;
    }
    Ok(connection)
}

impl Index {
    /// Opens the index, made if it is not there.
    pub(super) fn open(path: &Path, origin: &str) -> Result<Self, DiskError> {
        let connection = connect(path)?;
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .index("set the journal mode")?;
        connection
            .pragma_update(None, "synchronous", "NORMAL")
            .index("set synchronous")?;
        // It is within the size that the cache may have.
        connection
            .pragma_update(None, "journal_size_limit", WAL_SIZE_KEPT)
            .index("limit the journal")?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .index("read its version")?;
        match version {
            0 => connection
                .execute_batch(&format!("BEGIN; {SCHEMA} COMMIT;"))
                .index("make its tables")?,
            SCHEMA_VERSION => {}
            other => return Err(damaged("user_version", other)),
        }
        connection
            .execute(
                "INSERT INTO origins (name) VALUES (?1) ON CONFLICT DO NOTHING",
                [origin],
            )
            .index("add the origin")?;
        let origin = connection
            .query_row("SELECT id FROM origins WHERE name = ?1", [origin], |row| {
                row.get(0)
            })
            .index("find the origin")?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            origin,
        })
    }

    /// Says that the cache is in use; whether it was closed properly before.
    ///
    /// This is synced: a power cut must not make an unclean end look clean.
    pub(super) fn begin(&self) -> Result<bool, DiskError> {
        let clean = self
            .connection
            .query_row("SELECT value FROM meta WHERE name = 'clean'", [], |row| {
                row.get::<_, i64>(0)
            })
            .optional()
            .index("read how it was closed")?;
        self.set_synchronous("FULL")?;
        self.set_clean(0)?;
        self.set_synchronous("NORMAL")?;
        Ok(clean == Some(1))
    }

    fn set_synchronous(&self, value: &str) -> Result<(), DiskError> {
        self.connection
            .pragma_update(None, "synchronous", value)
            .index("set synchronous")
    }

    fn set_clean(&self, value: i64) -> Result<(), DiskError> {
        self.connection
            .execute(
                "INSERT INTO meta (name, value) VALUES ('clean', ?1)
                 ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [value],
            )
            .index("write how it was closed")
            .map(drop)
    }

    /// Says that all of the directory is in the index, and closes it.
    pub(super) fn close_clean(self) -> Result<(), DiskError> {
        self.set_clean(1)?;
        self.connection
            .close()
            .map_err(|(_, err)| err)
            .index("close")
    }

    /// Reads all objects, in the order of their numbers. `own` tells whether one is of this origin.
    pub(super) fn objects(
        &self,
        mut each: impl FnMut(ObjectRow, bool) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let mut statement = self
            .connection
            .prepare(
                "SELECT number, identity, size, pinned, used, part, segment, page, crc, origin
                 FROM objects ORDER BY number",
            )
            .index("prepare")?;
        let mut rows = statement.query([]).index("read the objects")?;
        while let Some(row) = rows.next().index("read an object")? {
            let (found, origin) = object_row(row).index("read an object")?;
            let own = origin == self.origin;
            each(found?, own)?;
        }
        Ok(())
    }

    /// Reads all runs, with their object's number and their own.
    pub(super) fn runs(
        &self,
        mut each: impl FnMut(u64, u32, RunRow) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let mut statement = self
            .connection
            .prepare("SELECT object, run, part, used, present, crcs FROM runs")
            .index("prepare")?;
        let mut rows = statement.query([]).index("read the runs")?;
        while let Some(row) = rows.next().index("read a run")? {
            let object: i64 = row.get(0).index("read a run")?;
            let run = row.get(1).index("read a run")?;
            let part = part_of(row.get(2).index("read a run")?)?;
            let crcs = row.get_ref(5).index("read a run")?;
            let crcs = crcs.as_blob().map_err(|err| damaged("crcs", err))?;
            let row = RunRow {
                part,
                used: row.get(3).index("read a run")?,
                present: row.get(4).index("read a run")?,
                crcs: decode(crcs).ok_or_else(|| damaged("the length of crcs", crcs.len()))?,
            };
            each(object.cast_unsigned(), run, row)?;
        }
        Ok(())
    }

    /// Writes changes, all or none.
    pub(super) fn write(&mut self, changes: &[Change]) -> Result<(), DiskError> {
        let origin = self.origin;
        let transaction = self.connection.transaction().index("begin")?;
        for change in changes {
            match change {
                Change::Delete(number) => delete(&transaction, *number)?,
                Change::Save { row, names, runs } => {
                    match names {
                        Some(names) => insert(&transaction, origin, row, names)?,
                        None => update(&transaction, row)?,
                    }
                    for (run, of_run) in runs {
                        write_run(&transaction, row.number, *run, of_run)?;
                    }
                }
            }
        }
        transaction.commit().index("commit")
    }

    /// Another connection, which only reads.
    pub(super) fn reader(&self) -> Result<Reader, DiskError> {
        let connection = connect(&self.path)?;
        connection
            .pragma_update(None, "query_only", 1)
            .index("configure")?;
        Ok(Reader {
            connection,
            origin: self.origin,
        })
    }
}

type Found = Result<ObjectRow, DiskError>;

/// A row of `objects`, and its origin. The outer error is `SQLite`'s, the inner one is ours.
fn object_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(Found, i64)> {
    let (number, size): (i64, i64) = (row.get(0)?, row.get(2)?);
    let (segment, page, crc): (Option<u32>, Option<u32>, Option<i64>) =
        (row.get(6)?, row.get(7)?, row.get(8)?);
    let small = match (segment, page, crc) {
        (Some(segment), Some(page), Some(crc)) => {
            Some((Place { segment, page }, crc.cast_unsigned()))
        }
        _ => None,
    };
    let part = match part_of(row.get(5)?) {
        Ok(part) => part,
        Err(err) => return Ok((Err(err), 0)),
    };
    let (Ok(known_number), Ok(known_size)) = (u64::try_from(number), u64::try_from(size)) else {
        return Ok((Err(damaged("number or size", (number, size))), 0));
    };
    let found = ObjectRow {
        number: known_number,
        identity: row.get(1)?,
        size: known_size,
        pinned: row.get(3)?,
        used: row.get(4)?,
        part,
        small,
    };
    Ok((Ok(found), row.get(9)?))
}

fn delete(transaction: &Transaction<'_>, number: u64) -> Result<(), DiskError> {
    for text in [
        "DELETE FROM objects WHERE number = ?1",
        "DELETE FROM runs WHERE object = ?1",
    ] {
        let mut statement = transaction.prepare_cached(text).index("prepare")?;
        statement
            .execute([signed(number)])
            .index("delete an object")?;
    }
    Ok(())
}

fn insert(
    transaction: &Transaction<'_>,
    origin: i64,
    row: &ObjectRow,
    names: &Version,
) -> Result<(), DiskError> {
    let mut statement = transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO objects
             (number, identity, size, origin, pinned, used, part, segment, page, crc,
              bucket, key, etag)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )
        .index("prepare")?;
    let place = row.small.map(|(place, _)| place);
    statement
        .execute(params![
            signed(row.number),
            row.identity,
            signed(row.size),
            origin,
            row.pinned,
            row.used,
            part_number(row.part),
            place.map(|place| place.segment),
            place.map(|place| place.page),
            row.small.map(|(_, crc)| signed(crc)),
            names.bucket.as_bytes(),
            names.key.as_bytes(),
            names.etag,
        ])
        .index("add an object")
        .map(drop)
}

fn update(transaction: &Transaction<'_>, row: &ObjectRow) -> Result<(), DiskError> {
    let mut statement = transaction
        .prepare_cached(
            "UPDATE objects SET pinned = ?2, used = ?3, part = ?4, segment = ?5, page = ?6, crc = ?7
             WHERE number = ?1",
        )
        .index("prepare")?;
    let place = row.small.map(|(place, _)| place);
    statement
        .execute(params![
            signed(row.number),
            row.pinned,
            row.used,
            part_number(row.part),
            place.map(|place| place.segment),
            place.map(|place| place.page),
            row.small.map(|(_, crc)| signed(crc)),
        ])
        .index("change an object")
        .map(drop)
}

fn write_run(
    transaction: &Transaction<'_>,
    object: u64,
    run: u32,
    row: &RunRow,
) -> Result<(), DiskError> {
    if row.present == 0 {
        let mut statement = transaction
            .prepare_cached("DELETE FROM runs WHERE object = ?1 AND run = ?2")
            .index("prepare")?;
        return statement
            .execute(params![signed(object), run])
            .index("delete a run")
            .map(drop);
    }
    let mut statement = transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO runs (object, run, part, used, present, crcs)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )
        .index("prepare")?;
    statement
        .execute(params![
            signed(object),
            run,
            part_number(row.part),
            row.used,
            row.present,
            encode(&row.crcs),
        ])
        .index("write a run")
        .map(drop)
}

fn encode(crcs: &[u64; RUN_BLOCKS]) -> Vec<u8> {
    crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> Option<[u64; RUN_BLOCKS]> {
    let (crcs, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let crcs: Vec<u64> = crcs.iter().map(|crc| u64::from_le_bytes(*crc)).collect();
    crcs.try_into().ok()
}

/// A connection that lists.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
    origin: i64,
}

/// A place in the order of all names: bucket, key and number.
pub(super) type NamePosition = (String, String, u64);

impl Reader {
    /// Objects of this origin after a place, in the order of bucket and key, as long as `each`
    /// wants more.
    pub(super) fn names(
        &self,
        after: &NamePosition,
        mut each: impl FnMut(NameRow) -> bool,
    ) -> Result<(), DiskError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT number, identity, size, bucket, key, etag FROM objects
                 WHERE origin = ?1 AND (bucket, key, number) > (?2, ?3, ?4)
                 ORDER BY bucket, key, number",
            )
            .index("prepare")?;
        let (bucket, key, number) = after;
        let mut rows = statement
            .query(params![
                self.origin,
                bucket.as_bytes(),
                key.as_bytes(),
                signed(*number),
            ])
            .index("list")?;
        while let Some(row) = rows.next().index("list")? {
            let text = |column| -> Result<String, DiskError> {
                let bytes: Vec<u8> = row.get(column).index("list")?;
                String::from_utf8(bytes).map_err(|err| damaged("a name", err))
            };
            let number: i64 = row.get(0).index("list")?;
            let size: i64 = row.get(2).index("list")?;
            let found = NameRow {
                number: number.cast_unsigned(),
                identity: row.get(1).index("list")?,
                size: size.cast_unsigned(),
                bucket: text(3)?,
                key: text(4)?,
                etag: row.get(5).index("list")?,
            };
            if !each(found) {
                break;
            }
        }
        Ok(())
    }
}
