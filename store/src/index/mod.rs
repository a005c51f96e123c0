//! The index: the only code that speaks SQL.
//!
//! Its functions are operations of the S3 model, never rows. Reads run on a pool of connections,
//! each on its own snapshot; changes run on the committer's one connection, inside its transaction.

/// A statement's text with the columns of an object in it.
macro_rules! with_columns {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            "bucket, key, size, etag, etag_parts, modified_at, owner, storage_class, checksum_kind, id, ino, ",
            "mode, uid, gid, mtime, ctime, rdev, content_type, cache_control, version, extents, details",
            $after
        )
    };
}

pub(crate) mod account;
pub(crate) mod bucket;
pub(crate) mod check;
pub(crate) mod directory;
pub(crate) mod extent;
pub(crate) mod list;
pub(crate) mod object;
mod schema;
mod transaction;
pub(crate) mod unsynced;
pub(crate) mod upload;

pub(crate) use transaction::Transaction;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, IndexContext, Result};

/// The oldest `SQLite` without the WAL-reset bug: <https://sqlite.org/releaselog/3_51_3.html>.
const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// Connections kept open for reading.
const IDLE_READERS_MAX: usize = 8;
/// Prepared statements kept by a connection.
const STATEMENTS_MAX: usize = 96;

/// Where the index is, and the connections that read it.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    vfs: Option<String>,
    idle: Mutex<Vec<Connection>>,
}

impl Index {
    /// Opens the index, made if it is not there, and gives the one connection that may change it.
    pub(crate) fn open(path: &Path, vfs: Option<&str>) -> Result<(Self, Connection)> {
        let found = rusqlite::version_number();
        if found < SQLITE_VERSION_MIN {
            return Err(Error::IndexDamaged(format!(
                "SQLite {found} may corrupt it; {SQLITE_VERSION_MIN} is needed"
            )));
        }
        let index = Self {
            path: path.to_owned(),
            vfs: vfs.map(str::to_owned),
            idle: Mutex::default(),
        };
        let mut writer = index.connect()?;
        writer
            .pragma_update(None, "journal_mode", "WAL")
            .index("set the journal mode")?;
        writer
            .pragma_update(None, "synchronous", "FULL")
            .index("set synchronous")?;
        // The committer decides when to checkpoint, between two transactions.
        writer
            .pragma_update(None, "wal_autocheckpoint", 0)
            .index("set autocheckpoint")?;
        writer
            .pragma_update(None, "cache_size", -4096)
            .index("set the cache size")?;
        schema::migrate(&mut writer, path)?;
        Ok((index, writer))
    }

    fn connect(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = match &self.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(&self.path, flags, vfs.as_str()),
            None => Connection::open_with_flags(&self.path, flags),
        }
        .index("open")?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection
            .busy_timeout(std::time::Duration::from_secs(10))
            .index("set the busy timeout")?;
        // Without it, a statement with `LIMIT ?` is parsed and planned again each time that the
        // limit is bound: 20 us for each common prefix of a listing.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
            .index("keep query plans")?;
        for (name, value) in [
            ("mmap_size", 0),
            ("trusted_schema", 0),
            ("cell_size_check", 1),
            ("cache_size", -1024),
        ] {
            connection
                .pragma_update(None, name, value)
                .index("configure")?;
        }
        Ok(connection)
    }

    /// Runs a read on the latest committed state. Blocks.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let connection = self.connect()?;
            connection
                .pragma_update(None, "query_only", 1)
                .index("configure")?;
            connection
        };
        // One snapshot for all statements: between two of them a commit may take away what the
        // first one named.
        let result = connection
            .unchecked_transaction()
            .index("begin a read")
            .and_then(|snapshot| work(&snapshot));
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if result.is_ok() && idle.len() < IDLE_READERS_MAX {
            idle.push(connection);
        }
        result
    }

    /// Closes the idle connections, so that the writer is the last to close.
    pub(crate) fn close_readers(&self) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// Changes something that means nothing, so that a commit is written to the log and synced with all
/// before it.
pub(crate) fn touch(connection: &Connection) -> Result<()> {
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO meta (name, value) VALUES ('touched', 0)
             ON CONFLICT (name) DO UPDATE SET value = value + 1",
        )
        .index("prepare")?;
    statement.execute([]).index("touch the index")?;
    Ok(())
}

/// The first byte string after all that begin with `prefix`; `None` if there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            return Some(next);
        }
    }
    None
}

/// A number of the index, which keeps them signed, as the unsigned one it stands for.
pub(crate) fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

/// The reverse of [`unsigned`].
pub(crate) fn signed(value: u64) -> i64 {
    value.cast_signed()
}

/// A key as the index keeps it, as text.
pub(crate) fn text(key: &[u8]) -> rusqlite::Result<&str> {
    std::str::from_utf8(key).map_err(|err| rusqlite::Error::Utf8Error(1, err))
}
