//! Accounts and access keys in the index.

use rusqlite::{Connection, OptionalExtension, params};

use crate::entry::{AccessKey, Account, Secret};
use crate::error::{Error, IndexContext, Result};
use crate::name::AccountId;
use crate::time::Timestamp;

/// Accounts with their numbers in the index.
pub(crate) type Numbered = Vec<(i64, Account)>;

/// All accounts with their numbers, and all keys.
pub(crate) fn load(connection: &Connection) -> Result<(Numbered, Vec<AccessKey>)> {
    let read = || {
        let mut statement =
            connection.prepare("SELECT id, canonical, name, created_at FROM accounts")?;
        let accounts = statement.query_map([], |row| {
            let id = AccountId::new(&row.get::<_, String>(1)?);
            Ok((
                row.get(0)?,
                Account {
                    id,
                    name: row.get(2)?,
                    created_at: Timestamp(row.get(3)?),
                },
            ))
        })?;
        let accounts = accounts.collect::<rusqlite::Result<Vec<_>>>()?;
        let mut statement = connection.prepare(
            "SELECT k.id, k.secret, a.canonical, k.created_at FROM access_keys k JOIN accounts a ON a.id = k.account",
        )?;
        let keys = statement.query_map([], |row| {
            let account = AccountId::new(&row.get::<_, String>(2)?);
            let (id, secret) = (row.get(0)?, Secret(row.get(1)?));
            Ok(AccessKey {
                id,
                secret,
                account,
                created_at: Timestamp(row.get(3)?),
            })
        })?;
        Ok((accounts, keys.collect::<rusqlite::Result<Vec<_>>>()?))
    };
    read().index("read the accounts")
}

/// Adds an account.
pub(crate) fn insert(connection: &Connection, account: &Account) -> Result<()> {
    let added = connection.execute(
        "INSERT INTO accounts (canonical, name, created_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![account.id.as_str(), account.name, account.created_at.0],
    );
    if added.index("add an account")? == 0 {
        return Err(Error::AccountExists(account.name.clone()));
    }
    Ok(())
}

/// Removes an account that owns no bucket, with its keys.
pub(crate) fn remove(connection: &Connection, id: &AccountId) -> Result<()> {
    let number = number(connection, id)?;
    let buckets: i64 = connection
        .query_row(
            "SELECT count(*) FROM buckets WHERE owner = ?1",
            [number],
            |row| row.get(0),
        )
        .index("count an account's buckets")?;
    if buckets > 0 {
        return Err(Error::InvalidRequest("the account still owns buckets"));
    }
    connection
        .execute("DELETE FROM access_keys WHERE account = ?1", [number])
        .index("remove an account's keys")?;
    connection
        .execute("DELETE FROM accounts WHERE id = ?1", [number])
        .index("remove an account")?;
    Ok(())
}

/// Gives an account another name.
pub(crate) fn rename(connection: &Connection, id: &AccountId, name: &str) -> Result<()> {
    connection
        .execute(
            "UPDATE accounts SET name = ?2 WHERE canonical = ?1",
            params![id.as_str(), name],
        )
        .index("rename an account")
        .map(drop)
}

/// Adds a key.
pub(crate) fn insert_key(connection: &Connection, key: &AccessKey) -> Result<()> {
    let account = number(connection, &key.account)?;
    let added = connection.execute(
        "INSERT INTO access_keys (id, secret, account, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        params![key.id, key.secret.0, account, key.created_at.0],
    );
    if added.index("add an access key")? == 0 {
        return Err(Error::AccountExists(key.id.clone()));
    }
    Ok(())
}

/// Removes a key.
pub(crate) fn remove_key(connection: &Connection, id: &str) -> Result<()> {
    let removed = connection
        .execute("DELETE FROM access_keys WHERE id = ?1", [id])
        .index("remove an access key")?;
    if removed == 0 {
        Err(Error::NoSuchAccount(id.to_owned()))
    } else {
        Ok(())
    }
}

fn number(connection: &Connection, id: &AccountId) -> Result<i64> {
    let found = connection
        .query_row(
            "SELECT id FROM accounts WHERE canonical = ?1",
            [id.as_str()],
            |row| row.get(0),
        )
        .optional()
        .index("find an account")?;
    found.ok_or_else(|| Error::NoSuchAccount(id.as_str().to_owned()))
}
