//! A transaction of the committer: its statements are prepared once, not each time.

use rusqlite::Connection;

use crate::error::{IndexContext, Result};

/// A transaction that is open. Dropped, it is undone.
#[derive(Debug)]
pub(crate) struct Transaction<'c> {
    connection: &'c Connection,
    is_open: bool,
}

impl<'c> Transaction<'c> {
    /// Begins a transaction that may change the index.
    pub(crate) fn begin(connection: &'c Connection) -> Result<Self> {
        execute(connection, "BEGIN IMMEDIATE").index("begin")?;
        Ok(Self {
            connection,
            is_open: true,
        })
    }

    /// Begins an operation that can be undone by itself.
    pub(crate) fn begin_operation(&self) -> Result<()> {
        execute(self.connection, "SAVEPOINT operation").index("begin an operation")
    }

    /// Keeps what the operation did.
    pub(crate) fn keep_operation(&self) -> Result<()> {
        execute(self.connection, "RELEASE operation").index("end an operation")
    }

    /// Undoes what the operation did.
    pub(crate) fn undo_operation(&self) -> Result<()> {
        execute(self.connection, "ROLLBACK TO operation").index("undo an operation")?;
        self.keep_operation()
    }

    /// Commits all that was kept.
    pub(crate) fn commit(mut self) -> Result<()> {
        execute(self.connection, "COMMIT").index("commit")?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        // SQLite undoes some by itself, after the errors that leave it no choice.
        if self.is_open
            && !self.connection.is_autocommit()
            && let Err(err) = execute(self.connection, "ROLLBACK")
        {
            tracing::error!(%err, "a transaction could not be undone");
        }
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}
