//! Listing current objects.
//!
//! A page costs one index seek, and one more for each common prefix on it, whatever lies below.

use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::{after_prefix, object, signed, text, unsigned};
use crate::accounts::Accounts;
use crate::api::{HeadItem, HeadPage, List, ListAfter, ListItem, ListPage};
use crate::entry::{ETag, ListedEntry};
use crate::error::{Error, IndexContext, Result};
use crate::name::ObjectKey;
use crate::record::parse_checksum_kind;
use crate::time::Timestamp;

/// Greater than every key: no UTF-8 text holds this byte.
pub(crate) const LAST: &[u8] = &[u8::MAX];

const SQL: &str = "SELECT key, size, etag, etag_parts, modified_at, owner, storage_class, checksum_kind FROM current
     WHERE bucket = ?1 AND key >= ?2 AND key < ?3 ORDER BY key LIMIT ?4";

/// The common prefix that `key` falls under, if it has the delimiter after the prefix.
pub(crate) fn common_prefix<'k>(
    key: &'k str,
    prefix: &str,
    delimiter: Option<&str>,
) -> Option<&'k str> {
    let delimiter = delimiter?;
    let at = key.get(prefix.len()..)?.find(delimiter)?;
    Some(&key[..prefix.len() + at + delimiter.len()])
}

/// The byte string from which keys are wanted.
pub(crate) fn start_of(
    prefix: &str,
    delimiter: Option<&str>,
    after: Option<&ListAfter>,
) -> Vec<u8> {
    let start = match after {
        None => Vec::new(),
        // A marker that is a common prefix itself was listed as one, with all below it.
        Some(ListAfter::Key(key))
            if common_prefix(key, prefix, delimiter) == Some(key) && key.starts_with(prefix) =>
        {
            after_prefix(key.as_bytes()).unwrap_or_else(|| LAST.to_vec())
        }
        Some(ListAfter::Key(key)) => {
            let mut next = key.as_bytes().to_vec();
            next.push(0);
            next
        }
        Some(ListAfter::Prefix(listed)) => {
            after_prefix(listed.as_bytes()).unwrap_or_else(|| LAST.to_vec())
        }
    };
    start.max(prefix.as_bytes().to_vec())
}

fn decode(row: &Row<'_>, accounts: &Accounts) -> rusqlite::Result<ListedEntry> {
    let key = row.get_ref(0)?.as_blob()?;
    let key = text(key)?;
    let kind: Option<u8> = row.get(7)?;
    Ok(ListedEntry {
        key: ObjectKey::trusted(key),
        size: unsigned(row.get(1)?),
        etag: ETag {
            digest: row.get(2)?,
            parts: row.get(3)?,
        },
        modified_at: Timestamp(row.get(4)?),
        owner: accounts.id(row.get(5)?),
        storage_class: row.get(6)?,
        checksum: kind.and_then(parse_checksum_kind),
    })
}

/// One page of current objects.
pub(crate) fn page(connection: &Connection, accounts: &Accounts, list: &List) -> Result<ListPage> {
    let end = after_prefix(list.prefix.as_bytes()).unwrap_or_else(|| LAST.to_vec());
    let delimiter = list
        .delimiter
        .as_deref()
        .filter(|delimiter| !delimiter.is_empty());
    let mut start = start_of(&list.prefix, delimiter, list.after.as_ref());
    let mut statement = connection.prepare_cached(SQL).index("prepare")?;
    let mut page = ListPage::default();
    // One more than wanted says whether another page follows.
    'seek: while page.items.len() <= list.limit {
        let wanted = i64::try_from(list.limit + 1 - page.items.len()).unwrap_or(i64::MAX);
        let bounds = params![signed(list.bucket.0), start, end, wanted];
        let mut rows = statement.query(bounds).index("list")?;
        while let Some(row) = rows.next().index("list")? {
            let entry = decode(row, accounts).index("list")?;
            if let Some(common) = common_prefix(entry.key.as_str(), &list.prefix, delimiter) {
                start = after_prefix(common.as_bytes()).unwrap_or_else(|| LAST.to_vec());
                page.items.push(ListItem::CommonPrefix(common.to_owned()));
                continue 'seek;
            }
            page.items.push(ListItem::Entry(entry));
        }
        break;
    }
    if page.items.len() > list.limit {
        page.items.truncate(list.limit);
        page.next = page.items.last().map(|item| match item {
            ListItem::Entry(entry) => ListAfter::Key(entry.key.as_str().to_owned()),
            ListItem::CommonPrefix(common) => ListAfter::Prefix(common.clone()),
        });
        if page.next.is_none() {
            return Err(Error::InvalidRequest("a listing of no entries"));
        }
    }
    Ok(page)
}

/// One page of current objects, with all that is known of each but its extents.
pub(crate) fn heads(connection: &Connection, accounts: &Accounts, list: &List) -> Result<HeadPage> {
    const SQL: &str = with_columns!(
        "SELECT ",
        " FROM current WHERE bucket = ?1 AND key >= ?2 AND key < ?3 ORDER BY key LIMIT ?4"
    );
    let end = after_prefix(list.prefix.as_bytes()).unwrap_or_else(|| LAST.to_vec());
    let delimiter = list
        .delimiter
        .as_deref()
        .filter(|delimiter| !delimiter.is_empty());
    let mut start = start_of(&list.prefix, delimiter, list.after.as_ref());
    let mut statement = connection.prepare_cached(SQL).index("prepare")?;
    let mut page = HeadPage::default();
    // One more than wanted says whether another page follows.
    'seek: while page.items.len() <= list.limit {
        let wanted = i64::try_from(list.limit + 1 - page.items.len()).unwrap_or(i64::MAX);
        let bounds = params![signed(list.bucket.0), start, end, wanted];
        let mut rows = statement.query(bounds).index("list")?;
        while let Some(row) = rows.next().index("list")? {
            let entry = object::decode(row, accounts).index("list")??.entry;
            let common = common_prefix(entry.key.as_str(), &list.prefix, delimiter);
            if let Some(common) = common.map(str::to_owned) {
                start = after_prefix(common.as_bytes()).unwrap_or_else(|| LAST.to_vec());
                let marker = (entry.key.as_str() == common).then(|| Arc::new(entry));
                page.items.push(HeadItem::CommonPrefix(common, marker));
                continue 'seek;
            }
            page.items.push(HeadItem::Entry(Arc::new(entry)));
        }
        break;
    }
    if page.items.len() > list.limit {
        page.items.truncate(list.limit);
        page.next = page.items.last().map(|item| match item {
            HeadItem::Entry(entry) => ListAfter::Key(entry.key.as_str().to_owned()),
            HeadItem::CommonPrefix(common, _) => ListAfter::Prefix(common.clone()),
        });
        if page.next.is_none() {
            return Err(Error::InvalidRequest("a listing of no entries"));
        }
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::entry::BucketId;
    use crate::index::Index;

    /// A statement with `LIMIT ?` was planned again for each common prefix, which took ten times as
    /// long as the seek itself.
    #[test]
    fn a_seek_does_not_plan_its_statement_again() {
        let dir = tempfile::tempdir().unwrap();
        let (index, _writer) = Index::open(&dir.path().join("index.sqlite"), None).unwrap();
        let planned_again = index.read(|connection| {
            for limit in [1, 2, 3] {
                let list = List {
                    bucket: BucketId(1),
                    prefix: String::new(),
                    delimiter: None,
                    after: None,
                    limit,
                };
                page(connection, &Accounts::default(), &list)?;
            }
            let statement = connection.prepare_cached(SQL).index("prepare")?;
            assert!(
                statement.get_status(StatementStatus::Run) > 0,
                "the statement that ran"
            );
            Ok(statement.get_status(StatementStatus::RePrepare))
        });
        assert_eq!(planned_again.unwrap(), 0);
    }

    #[test]
    fn a_listing_goes_on_where_it_should() {
        let key = |text: &str| Some(ListAfter::Key(text.to_owned()));
        assert_eq!(start_of("a/", None, None), b"a/");
        assert_eq!(
            start_of("a/", None, key("a").as_ref()),
            b"a/",
            "a marker before the prefix"
        );
        assert_eq!(start_of("", None, key("b").as_ref()), b"b\0");
        assert_eq!(
            start_of("", Some("/"), key("b/").as_ref()),
            b"b0",
            "a marker that is a common prefix"
        );
        assert_eq!(
            start_of("", Some("/"), key("b/c").as_ref()),
            b"b/c\0",
            "a marker within one"
        );
        assert_eq!(
            start_of("", Some("/"), Some(&ListAfter::Prefix("b/".to_owned()))),
            b"b0"
        );
    }
}
