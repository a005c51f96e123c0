//! Buckets in the index.

use rusqlite::{Connection, OptionalExtension, params};

use super::{signed, unsigned};
use crate::accounts::Accounts;
use crate::entry::{Bucket, BucketId};
use crate::error::{Error, IndexContext, Result};
use crate::name::BucketName;
use crate::time::Timestamp;

/// All buckets.
pub(crate) fn load(connection: &Connection, accounts: &Accounts) -> Result<Vec<Bucket>> {
    let read = || {
        let mut statement =
            connection.prepare("SELECT id, name, owner, created_at, location FROM buckets")?;
        let rows = statement.query_map([], |row| {
            let (id, name, owner): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((id, name, owner, row.get(3)?, row.get(4)?))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    };
    let buckets = read().index("read the buckets")?.into_iter().map(
        |(id, name, owner, created_at, location)| {
            let name = BucketName::parse(&name)
                .map_err(|_| Error::IndexDamaged(format!("a bucket named {name:?}")))?;
            let (id, owner) = (BucketId(unsigned(id)), accounts.id(owner));
            Ok(Bucket {
                id,
                name,
                owner,
                created_at: Timestamp(created_at),
                location,
            })
        },
    );
    buckets.collect()
}

/// Adds a bucket whose name is free.
pub(crate) fn insert(connection: &Connection, bucket: &Bucket, owner: i64) -> Result<()> {
    let mut statement = connection
        .prepare_cached("INSERT INTO buckets (id, name, owner, created_at, location) VALUES (?1, ?2, ?3, ?4, ?5)")
        .index("prepare")?;
    let row = params![
        signed(bucket.id.0),
        bucket.name.as_str(),
        owner,
        bucket.created_at.0,
        bucket.location
    ];
    statement.execute(row).index("add a bucket")?;
    Ok(())
}

/// Whether a bucket of this number is there.
pub(crate) fn exists(connection: &Connection, id: BucketId) -> Result<bool> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM buckets WHERE id = ?1")
        .index("prepare")?;
    statement.exists([signed(id.0)]).index("find a bucket")
}

/// Whether a bucket has no objects and no older versions.
pub(crate) fn is_empty(connection: &Connection, id: BucketId) -> Result<bool> {
    let found: Option<i64> = connection
        .query_row(
            "SELECT 1 FROM (SELECT 1 FROM current WHERE bucket = ?1 LIMIT 1)
             UNION ALL SELECT 1 FROM (SELECT 1 FROM older WHERE bucket = ?1 LIMIT 1) LIMIT 1",
            [signed(id.0)],
            |row| row.get(0),
        )
        .optional()
        .index("look into a bucket")?;
    Ok(found.is_none())
}

/// Removes a bucket.
pub(crate) fn remove(connection: &Connection, id: BucketId) -> Result<()> {
    connection
        .execute("DELETE FROM buckets WHERE id = ?1", [signed(id.0)])
        .index("remove a bucket")?;
    Ok(())
}
