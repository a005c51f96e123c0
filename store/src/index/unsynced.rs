//! Versions whose bytes were not synced before their row was committed, and what they replaced.

use rusqlite::{Connection, params};

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
