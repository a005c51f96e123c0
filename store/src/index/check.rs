//! What `fsck` asks the index, and how it puts figures right.
//!
//! Counts are taken in a temporary table, so that memory does not grow with the store.

use rusqlite::{Connection, OptionalExtension, params};

use super::extent::{FileUse, decode_ids};
use super::{signed, unsigned};
use crate::entry::{Extent, FileId};
use crate::error::{IndexContext, Result};
use crate::record::Details;

/// Most lines of `PRAGMA integrity_check`.
const INTEGRITY_LINES_MAX: usize = 100;

/// The tables whose rows name extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Current,
    Older,
    Fallbacks,
    Parts,
}

impl Table {
    pub(crate) const ALL: [Self; 4] = [Self::Current, Self::Older, Self::Fallbacks, Self::Parts];

    /// Columns: what the row is told by (two), bucket, key, number, size, extents, details.
    fn select(self) -> &'static str {
        match self {
            Self::Current => {
                "SELECT bucket, key, bucket, key, id, size, extents, details FROM current"
            }
            Self::Older => "SELECT bucket, key, bucket, key, id, size, extents, details FROM older",
            Self::Fallbacks => {
                "SELECT bucket, key, bucket, key, unsynced, size, extents, details FROM fallbacks"
            }
            Self::Parts => {
                "SELECT p.number, p.upload, u.bucket, u.key, p.number, p.size, p.extents, NULL
                 FROM parts p LEFT JOIN uploads u ON u.id = p.upload"
            }
        }
    }

    fn delete(self) -> &'static str {
        match self {
            Self::Current => "DELETE FROM current WHERE bucket = ?1 AND key = ?2 AND id = ?3",
            Self::Older => "DELETE FROM older WHERE bucket = ?1 AND key = ?2 AND id = ?3",
            Self::Fallbacks => {
                "DELETE FROM fallbacks WHERE bucket = ?1 AND key = ?2 AND unsynced = ?3"
            }
            Self::Parts => "DELETE FROM parts WHERE number = ?1 AND upload = ?2 AND number = ?3",
        }
    }
}

/// Which row it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowId {
    pub(crate) table: Table,
    first: i64,
    second: Vec<u8>,
    number: i64,
}

/// A row that names extents.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    pub(crate) row: RowId,
    /// `None` for a part without an upload.
    pub(crate) bucket: Option<u64>,
    pub(crate) key: Vec<u8>,
    pub(crate) size: u64,
    pub(crate) extents: Vec<u8>,
    /// Whether its details can be read.
    pub(crate) readable: bool,
}

/// What `PRAGMA integrity_check` has to say; nothing if all is well.
pub(crate) fn integrity(connection: &Connection) -> Result<Vec<String>> {
    let read = || {
        let mut statement =
            connection.prepare(&format!("PRAGMA integrity_check({INTEGRITY_LINES_MAX})"))?;
        let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
        lines.collect::<rusqlite::Result<Vec<_>>>()
    };
    let mut lines = read().index("check the index")?;
    lines.retain(|line| line != "ok");
    Ok(lines)
}

/// Visits every row that names extents.
pub(crate) fn namings(
    connection: &Connection,
    table: Table,
    mut visit: impl FnMut(Naming) -> Result<()>,
) -> Result<()> {
    let mut statement = connection.prepare(table.select()).index("prepare")?;
    let mut rows = statement.query([]).index("read the rows")?;
    while let Some(row) = rows.next().index("read the rows")? {
        let decode = || {
            let details: Option<Vec<u8>> = row.get(7)?;
            Ok(Naming {
                row: RowId {
                    table,
                    first: row.get(0)?,
                    second: row.get(1)?,
                    number: row.get(4)?,
                },
                bucket: row.get::<_, Option<i64>>(2)?.map(unsigned),
                key: row.get::<_, Option<Vec<u8>>>(3)?.unwrap_or_default(),
                size: unsigned(row.get(5)?),
                extents: row.get(6)?,
                readable: details.is_none_or(|blob| Details::decode(&blob).is_some()),
            })
        };
        visit(decode().index("read a row")?)?;
    }
    Ok(())
}

/// Removes a row.
pub(crate) fn remove_row(connection: &Connection, row: &RowId) -> Result<()> {
    let removed = connection.execute(
        row.table.delete(),
        params![row.first, row.second, row.number],
    );
    removed.index("remove a row").map(drop)
}

/// Counts in a temporary table how many rows name each extent.
pub(crate) fn count_names(connection: &Connection) -> Result<()> {
    connection
        .execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS named (id INTEGER PRIMARY KEY, refs INTEGER NOT NULL) STRICT;
             CREATE TEMP TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY) STRICT;
             DELETE FROM named;",
        )
        .index("make room to count")?;
    let mut count = connection
        .prepare(
            "INSERT INTO named (id, refs) VALUES (?1, 1) ON CONFLICT (id) DO UPDATE SET refs = refs + 1",
        )
        .index("prepare")?;
    for table in Table::ALL {
        namings(connection, table, |naming| {
            for id in decode_ids(&naming.extents) {
                count.execute([signed(id)]).index("count an extent")?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Extents whose count differs from the rows that name them: number, counted, on record.
pub(crate) fn wrong_refs(connection: &Connection) -> Result<Vec<(u64, i64, i64)>> {
    let read = || {
        let mut statement = connection.prepare(
            "SELECT e.id, coalesce(n.refs, 0), e.refs FROM extents e LEFT JOIN named n ON n.id = e.id
             WHERE e.refs <> coalesce(n.refs, 0)",
        )?;
        let rows = statement.query_map([], |row| {
            Ok((unsigned(row.get(0)?), row.get(1)?, row.get(2)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().index("compare the counts")
}

/// Visits every extent, file by file, in the order of their places.
pub(crate) fn extents(
    connection: &Connection,
    mut visit: impl FnMut(Extent) -> Result<()>,
) -> Result<()> {
    let mut statement = connection
        .prepare(
            "SELECT id, file, packed, offset, len, crc FROM extents ORDER BY file, offset, len",
        )
        .index("prepare")?;
    let mut rows = statement.query([]).index("read the extents")?;
    while let Some(row) = rows.next().index("read the extents")? {
        visit(decode_extent(row).index("read an extent")?)?;
    }
    Ok(())
}

fn decode_extent(row: &rusqlite::Row<'_>) -> rusqlite::Result<Extent> {
    Ok(Extent {
        id: unsigned(row.get(0)?),
        file: FileId(unsigned(row.get(1)?)),
        packed: row.get(2)?,
        offset: unsigned(row.get(3)?),
        len: unsigned(row.get(4)?),
        crc64: row.get::<_, Option<i64>>(5)?.map(unsigned),
    })
}

/// Extents with numbers after `after`, in order, at most `limit`.
pub(crate) fn extents_after(
    connection: &Connection,
    after: u64,
    limit: usize,
) -> Result<Vec<Extent>> {
    let read = || {
        let mut statement = connection.prepare_cached(
            "SELECT id, file, packed, offset, len, crc FROM extents WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![signed(after), limit], decode_extent)?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().index("read the extents")
}

/// Bytes of all extents.
pub(crate) fn total_len(connection: &Connection) -> Result<u64> {
    connection
        .query_row("SELECT coalesce(sum(len), 0) FROM extents", [], |row| {
            row.get(0).map(unsigned)
        })
        .index("add the extents up")
}

/// Notes that an extent's bytes are not there.
pub(crate) fn note_gone(connection: &Connection, id: u64) -> Result<()> {
    let done = connection
        .prepare_cached("INSERT OR IGNORE INTO temp.gone (id) VALUES (?1)")
        .and_then(|mut statement| statement.execute([signed(id)]));
    done.index("note an extent").map(drop)
}

/// An extent's length, and whether its bytes are gone; `None` if there is no such extent.
pub(crate) fn extent_state(connection: &Connection, id: u64) -> Result<Option<(u64, bool)>> {
    let found = connection
        .prepare_cached(
            "SELECT e.len, g.id IS NOT NULL FROM extents e LEFT JOIN temp.gone g ON g.id = e.id WHERE e.id = ?1",
        )
        .and_then(|mut statement| {
            statement
                .query_row([signed(id)], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))
                .optional()
        });
    found.index("find an extent")
}

/// Numbers of all buckets.
pub(crate) fn bucket_ids(connection: &Connection) -> Result<Vec<u64>> {
    numbers(connection, "SELECT id FROM buckets")
}

/// Fallbacks of versions that are not marked: their number, and the bucket and key.
pub(crate) fn stray_fallbacks(connection: &Connection) -> Result<Vec<u64>> {
    numbers(
        connection,
        "SELECT DISTINCT unsynced FROM fallbacks WHERE unsynced NOT IN (SELECT id FROM unsynced)",
    )
}

/// Buckets that uploads are in progress to, and that are not there.
pub(crate) fn stray_uploads(connection: &Connection) -> Result<Vec<u64>> {
    numbers(
        connection,
        "SELECT DISTINCT bucket FROM uploads WHERE bucket NOT IN (SELECT id FROM buckets)",
    )
}

fn numbers(connection: &Connection, sql: &str) -> Result<Vec<u64>> {
    let read = || {
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get(0).map(unsigned))?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().index("read numbers")
}

/// The highest number in use, and the limit below which all have to be.
pub(crate) fn highest_number(connection: &Connection) -> Result<(u64, u64)> {
    let sql = "SELECT max(
        coalesce((SELECT max(max(id), max(ino)) FROM current), 0),
        coalesce((SELECT max(max(id), max(ino)) FROM older), 0),
        coalesce((SELECT max(max(id), max(ino)) FROM fallbacks), 0),
        coalesce((SELECT max(id) FROM extents), 0),
        coalesce((SELECT max(file) FROM extents), 0),
        coalesce((SELECT max(id) FROM files), 0),
        coalesce((SELECT max(file) FROM uploads), 0),
        coalesce((SELECT max(id) FROM buckets), 0)),
        coalesce((SELECT value FROM meta WHERE name = 'id_limit'), 0)";
    let found = connection.query_row(sql, [], |row| {
        Ok((unsigned(row.get(0)?), unsigned(row.get(1)?)))
    });
    found.index("find the highest number")
}

/// Raises the limit of numbers above `number`.
pub(crate) fn raise_limit(connection: &Connection, number: u64) -> Result<()> {
    let done = connection.execute(
        "REPLACE INTO meta (name, value) VALUES ('id_limit', ?1)",
        [signed(number + 1)],
    );
    done.index("raise the limit of numbers").map(drop)
}

/// Forgets uploads to buckets that are not there, parts of no upload, and fallbacks of no version.
pub(crate) fn remove_strays(connection: &Connection) -> Result<()> {
    connection
        .execute_batch(
            "DELETE FROM uploads WHERE bucket NOT IN (SELECT id FROM buckets);
             DELETE FROM parts WHERE upload NOT IN (SELECT id FROM uploads);
             DELETE FROM fallbacks WHERE unsynced NOT IN (SELECT id FROM unsynced);",
        )
        .index("remove strays")
}

/// Counts references anew; extents that no row names go.
pub(crate) fn recount_extents(connection: &Connection) -> Result<()> {
    count_names(connection)?;
    connection
        .execute_batch(
            "DELETE FROM extents WHERE id NOT IN (SELECT id FROM named);
             UPDATE extents SET refs = (SELECT refs FROM named WHERE named.id = extents.id);",
        )
        .index("count references anew")
}

/// What a data file holds, as the index has it.
pub(crate) fn file_use(connection: &Connection, id: FileId) -> Result<Option<(bool, FileUse)>> {
    let found = connection
        .prepare_cached("SELECT packed, size, live, refs FROM files WHERE id = ?1")
        .and_then(|mut statement| {
            statement
                .query_row([signed(id.0)], |row| {
                    let file_use = FileUse {
                        size: unsigned(row.get(1)?),
                        live: row.get(2)?,
                        refs: row.get(3)?,
                    };
                    Ok((row.get(0)?, file_use))
                })
                .optional()
        });
    found.index("find a data file")
}

/// Writes what a data file holds.
pub(crate) fn set_file_use(
    connection: &Connection,
    id: FileId,
    packed: bool,
    to: FileUse,
) -> Result<()> {
    let done = connection.execute(
        "REPLACE INTO files (id, packed, size, live, refs) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![signed(id.0), packed, signed(to.size), to.live, to.refs],
    );
    done.index("count a data file's extents").map(drop)
}

/// The files that parts of uploads in progress go to.
pub(crate) fn upload_files(connection: &Connection) -> Result<Vec<u64>> {
    numbers(connection, "SELECT file FROM uploads")
}
