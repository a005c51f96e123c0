//! Versions whose bytes were not synced before their row was committed, and what they replaced.

use rusqlite::{Connection, OptionalExtension, params};

use super::{object, signed, unsigned};
use crate::accounts::Accounts;
use crate::entry::Entry;
use crate::error::{IndexContext, Result};

/// Marks a version.
pub(crate) fn mark(connection: &Connection, id: u64) -> Result<()> {
    let mut statement = connection
        .prepare_cached("INSERT OR IGNORE INTO unsynced (id) VALUES (?1)")
        .index("prepare")?;
    statement.execute([signed(id)]).index("mark a version")?;
    Ok(())
}

/// Whether a version is marked.
pub(crate) fn is_marked(connection: &Connection, id: u64) -> Result<bool> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM unsynced WHERE id = ?1")
        .index("prepare")?;
    statement.exists([signed(id)]).index("find a mark")
}

/// All marked versions.
pub(crate) fn all(connection: &Connection) -> Result<Vec<u64>> {
    let mut statement = connection
        .prepare_cached("SELECT id FROM unsynced")
        .index("prepare")?;
    let ids = statement
        .query_map([], |row| row.get(0))
        .index("list the marks")?;
    ids.map(|id| id.map(unsigned))
        .collect::<rusqlite::Result<_>>()
        .index("list the marks")
}

/// The start of the machine that the marks were made in.
pub(crate) fn boot_id(connection: &Connection) -> Result<Option<u64>> {
    let mut statement = connection
        .prepare_cached("SELECT value FROM meta WHERE name = 'boot_id'")
        .index("prepare")?;
    let found = statement.query_row([], |row| row.get(0)).optional();
    Ok(found
        .index("read the number of the machine's start")?
        .map(unsigned))
}

/// Records the start of the machine that marks are made in from now on. There must be none of
/// another.
pub(crate) fn set_boot_id(connection: &Connection, id: Option<u64>) -> Result<()> {
    let done = match id {
        Some(id) => connection.execute(
            "REPLACE INTO meta (name, value) VALUES ('boot_id', ?1)",
            [signed(id)],
        ),
        None => connection.execute("DELETE FROM meta WHERE name = 'boot_id'", []),
    };
    done.index("record the number of the machine's start")
        .map(drop)
}

/// Takes a version's mark off.
pub(crate) fn clear(connection: &Connection, id: u64) -> Result<()> {
    let mut statement = connection
        .prepare_cached("DELETE FROM unsynced WHERE id = ?1")
        .index("prepare")?;
    statement.execute([signed(id)]).index("clear a mark")?;
    Ok(())
}

/// Hands what a version replaced to another that replaces it in turn.
pub(crate) fn hand_over(connection: &Connection, from: u64, to: u64) -> Result<()> {
    let mut statement = connection
        .prepare_cached("UPDATE OR IGNORE fallbacks SET unsynced = ?2 WHERE unsynced = ?1")
        .index("prepare")?;
    statement
        .execute([signed(from), signed(to)])
        .index("hand over a fallback")?;
    Ok(())
}

/// Takes out what a version replaced: entries without their extents, and the numbers of those.
pub(crate) fn take_fallbacks(
    connection: &Connection,
    accounts: &Accounts,
    id: u64,
) -> Result<Vec<(Entry, Vec<u8>)>> {
    const SQL: &str = with_columns!("SELECT ", " FROM fallbacks WHERE unsynced = ?1");
    let mut statement = connection.prepare_cached(SQL).index("prepare")?;
    let rows = statement
        .query_map(params![signed(id)], |row| object::decode(row, accounts))
        .index("find fallbacks")?;
    let mut fallbacks = Vec::new();
    for stored in rows {
        let stored = stored.index("find fallbacks")??;
        fallbacks.push((stored.entry, stored.extent_ids));
    }
    if !fallbacks.is_empty() {
        let mut statement = connection
            .prepare_cached("DELETE FROM fallbacks WHERE unsynced = ?1")
            .index("prepare")?;
        statement.execute([signed(id)]).index("drop fallbacks")?;
    }
    Ok(fallbacks)
}
