//! Extents and data files in the index.

use rusqlite::{Connection, OptionalExtension, params};

use super::{signed, unsigned};
use crate::entry::{Extent, FileId};
use crate::error::{Error, IndexContext, Result};

/// Extent numbers as a row keeps them: 8 bytes each, little-endian.
pub(crate) fn encode_ids(extents: &[Extent]) -> Vec<u8> {
    extents
        .iter()
        .flat_map(|extent| extent.id.to_le_bytes())
        .collect()
}

/// The reverse of [`encode_ids`].
pub(crate) fn decode_ids(blob: &[u8]) -> impl Iterator<Item = u64> + '_ {
    blob.chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("chunks of 8")))
}

/// The extents of these numbers.
pub(crate) fn load(connection: &Connection, ids: &[u8]) -> Result<Vec<Extent>> {
    if !ids.len().is_multiple_of(8) {
        return Err(Error::IndexDamaged(
            "a list of extents is cut short".to_owned(),
        ));
    }
    decode_ids(ids).map(|id| get(connection, id)).collect()
}

/// The extent of this number.
pub(crate) fn get(connection: &Connection, id: u64) -> Result<Extent> {
    let found = find(connection, id)?;
    found.ok_or_else(|| Error::IndexDamaged(format!("extent {id} is missing")))
}

/// The extent of this number, if it is there.
pub(crate) fn find(connection: &Connection, id: u64) -> Result<Option<Extent>> {
    let mut statement = connection
        .prepare_cached("SELECT file, packed, offset, len, crc FROM extents WHERE id = ?1")
        .index("prepare")?;
    let extent = statement.query_row([signed(id)], |row| {
        Ok(Extent {
            id,
            file: FileId(unsigned(row.get(0)?)),
            packed: row.get(1)?,
            offset: unsigned(row.get(2)?),
            len: unsigned(row.get(3)?),
            crc64: row.get::<_, Option<i64>>(4)?.map(unsigned),
        })
    });
    extent.optional().index("find an extent")
}

/// Adds an extent that one row refers to.
pub(crate) fn insert(connection: &Connection, extent: &Extent) -> Result<()> {
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO extents (id, file, packed, offset, len, crc, refs) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1)",
        )
        .index("prepare")?;
    let crc = extent.crc64.map(signed);
    let row = params![
        signed(extent.id),
        signed(extent.file.0),
        extent.packed,
        signed(extent.offset),
        signed(extent.len),
        crc
    ];
    statement.execute(row).index("add an extent")?;
    Ok(())
}

/// Adds a reference to an extent.
pub(crate) fn retain(connection: &Connection, id: u64) -> Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE extents SET refs = refs + 1 WHERE id = ?1")
        .index("prepare")?;
    match statement.execute([signed(id)]).index("share an extent")? {
        1 => Ok(()),
        _ => Err(Error::IndexDamaged(format!("extent {id} is missing"))),
    }
}

/// Drops a reference to an extent; gives the extent if that was the last one and it is gone.
pub(crate) fn release(connection: &Connection, id: u64) -> Result<Option<Extent>> {
    let mut statement = connection
        .prepare_cached("UPDATE extents SET refs = refs - 1 WHERE id = ?1 RETURNING refs")
        .index("prepare")?;
    let refs: Option<i64> = statement
        .query_row([signed(id)], |row| row.get(0))
        .optional()
        .index("release an extent")?;
    match refs {
        None => Err(Error::IndexDamaged(format!("extent {id} is missing"))),
        Some(refs) if refs > 0 => Ok(None),
        Some(_) => {
            let extent = get(connection, id)?;
            let mut statement = connection
                .prepare_cached("DELETE FROM extents WHERE id = ?1")
                .index("prepare")?;
            statement.execute([signed(id)]).index("remove an extent")?;
            Ok(Some(extent))
        }
    }
}

/// Says where an extent's bytes are now.
pub(crate) fn relocate(connection: &Connection, extent: &Extent) -> Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE extents SET file = ?2, packed = ?3, offset = ?4 WHERE id = ?1")
        .index("prepare")?;
    let row = params![
        signed(extent.id),
        signed(extent.file.0),
        extent.packed,
        signed(extent.offset)
    ];
    statement.execute(row).index("move an extent")?;
    Ok(())
}

/// Records the CRC of an extent that was published without one.
pub(crate) fn set_crc(connection: &Connection, id: u64, crc: u64) -> Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE extents SET crc = ?2 WHERE id = ?1")
        .index("prepare")?;
    statement
        .execute([signed(id), signed(crc)])
        .index("record a CRC")?;
    Ok(())
}

/// What the extents of a data file add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileUse {
    /// Published length of a segment, in bytes.
    pub(crate) size: u64,
    /// Bytes of its extents.
    pub(crate) live: i64,
    /// Number of its extents.
    pub(crate) refs: i64,
}

/// Adds to what a data file holds; gives what it holds then.
pub(crate) fn adjust_file(
    connection: &Connection,
    id: FileId,
    packed: bool,
    by: FileUse,
) -> Result<FileUse> {
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO files (id, packed, size, live, refs) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET
                 size = max(size, excluded.size), live = live + excluded.live, refs = refs + excluded.refs
             RETURNING size, live, refs",
        )
        .index("prepare")?;
    let row = params![signed(id.0), packed, signed(by.size), by.live, by.refs];
    let after = statement.query_row(row, |row| {
        Ok(FileUse {
            size: unsigned(row.get(0)?),
            live: row.get(1)?,
            refs: row.get(2)?,
        })
    });
    after.index("count a data file's extents")
}

/// Forgets a data file that no extent lies in.
pub(crate) fn remove_file(connection: &Connection, id: FileId) -> Result<()> {
    let mut statement = connection
        .prepare_cached("DELETE FROM files WHERE id = ?1")
        .index("prepare")?;
    statement
        .execute([signed(id.0)])
        .index("forget a data file")?;
    Ok(())
}

/// All data files: number, packed, what they hold.
pub(crate) fn files(connection: &Connection) -> Result<Vec<(FileId, bool, FileUse)>> {
    let read = || {
        let mut statement = connection
            .prepare_cached("SELECT id, packed, size, live, refs FROM files ORDER BY id")?;
        let rows = statement.query_map([], |row| {
            let file_use = FileUse {
                size: unsigned(row.get(2)?),
                live: row.get(3)?,
                refs: row.get(4)?,
            };
            Ok((FileId(unsigned(row.get(0)?)), row.get(1)?, file_use))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().index("list the data files")
}
