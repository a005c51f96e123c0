//! What the mount asks of the index: what a path names, and what is in a directory.

use rusqlite::{Connection, params};
use std::sync::Arc;

use super::list::{LAST, common_prefix, start_of};
use super::{after_prefix, object, signed};
use crate::accounts::Accounts;
use crate::api::{DirectoryItem, DirectoryPage, ListAfter, Node};
use crate::entry::BucketId;
use crate::error::{IndexContext, Result};
use crate::rule::posix::is_name;

/// The key prefix of the directory at `path`.
pub(crate) fn prefix_of(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    }
}

/// What `path` names. A directory hides an object of the same name.
pub(crate) fn lookup(
    connection: &Connection,
    accounts: &Accounts,
    bucket: BucketId,
    path: &str,
) -> Result<Option<Node>> {
    let prefix = prefix_of(path);
    if path.is_empty() {
        return Ok(Some(Node::Directory(None)));
    }
    match object::first_key(connection, bucket, prefix.as_bytes())? {
        Some(key) if key == prefix => {
            let marker = object::current(connection, accounts, bucket, &prefix)?;
            Ok(Some(Node::Directory(marker.map(Arc::new))))
        }
        Some(key) if key.starts_with(&prefix) => Ok(Some(Node::Directory(None))),
        _ => Ok(object::current(connection, accounts, bucket, path)?
            .map(|entry| Node::File(Arc::new(entry)))),
    }
}

/// One page of the directory at `path`.
pub(crate) fn page(
    connection: &Connection,
    accounts: &Accounts,
    bucket: BucketId,
    path: &str,
    after: Option<&ListAfter>,
    limit: usize,
) -> Result<DirectoryPage> {
    const SQL: &str = with_columns!(
        "SELECT ",
        " FROM current WHERE bucket = ?1 AND key >= ?2 AND key < ?3 ORDER BY key LIMIT ?4"
    );
    let prefix = prefix_of(path);
    let end = after_prefix(prefix.as_bytes()).unwrap_or_else(|| LAST.to_vec());
    let mut start = start_of(&prefix, Some("/"), after);
    let mut statement = connection.prepare_cached(SQL).index("prepare")?;
    let (mut page, mut seen) = (DirectoryPage::default(), 0);
    let mut last = None;
    'seek: while seen < limit {
        let wanted = i64::try_from(limit - seen).unwrap_or(i64::MAX);
        let mut rows = statement
            .query(params![signed(bucket.0), start, end, wanted])
            .index("list a directory")?;
        while let Some(row) = rows.next().index("list a directory")? {
            seen += 1;
            let entry = object::decode(row, accounts)
                .index("list a directory")??
                .entry;
            let key = entry.key.clone();
            if let Some(common) = common_prefix(key.as_str(), &prefix, Some("/")) {
                start = after_prefix(common.as_bytes()).unwrap_or_else(|| LAST.to_vec());
                last = Some(ListAfter::Prefix(common.to_owned()));
                let name = &common[prefix.len()..common.len() - 1];
                let marker = (key.as_str() == common).then(|| Arc::new(entry));
                page.add(name, Node::Directory(marker));
                continue 'seek;
            }
            last = Some(ListAfter::Key(key.as_str().to_owned()));
            // The directory's own marker is the directory, not a name in it.
            if key.as_str() != prefix {
                page.add(&key.as_str()[prefix.len()..], Node::File(Arc::new(entry)));
            }
        }
        break;
    }
    page.next = if seen < limit { None } else { last };
    page.hide_shadowed(connection, bucket, &prefix)?;
    Ok(page)
}

impl DirectoryPage {
    fn add(&mut self, name: &str, node: Node) {
        if is_name(name) {
            self.items.push(DirectoryItem {
                name: name.to_owned(),
                node,
            });
        } else {
            self.hidden += 1;
        }
    }

    /// Leaves out files whose name a directory has too.
    ///
    /// The directory `a/` sorts after the file `a`, with names such as `a-b` between them. It is on
    /// this page, or the page's last name begins with `a`.
    fn hide_shadowed(
        &mut self,
        connection: &Connection,
        bucket: BucketId,
        prefix: &str,
    ) -> Result<()> {
        let mut shadowed = std::collections::HashSet::new();
        for item in &self.items {
            if matches!(item.node, Node::Directory(_)) {
                shadowed.insert(item.name.clone());
            }
        }
        let last = self
            .items
            .last()
            .map(|item| item.name.clone())
            .unwrap_or_default();
        for item in &self.items {
            let beyond = self.next.is_some() && last.starts_with(&item.name);
            if beyond && object::has_prefix(connection, bucket, &format!("{prefix}{}/", item.name))?
            {
                shadowed.insert(item.name.clone());
            }
        }
        let before = self.items.len();
        self.items.retain(|item| {
            matches!(item.node, Node::Directory(_)) || !shadowed.contains(&item.name)
        });
        self.hidden += (before - self.items.len()) as u64;
        Ok(())
    }
}
