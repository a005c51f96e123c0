//! Renaming by copies and deletions.
//!
//! Everything is at its new name before anything is gone from the old one: who looks in between
//! sees both, and what fails in between leaves both.

use std::sync::Arc;

use forebay_store::api::{Node, RenameMode};
use forebay_store::entry::{Bucket, BucketId, Entry};
use forebay_store::error::{Error, Result};
use forebay_store::limits::KEY_LEN_MAX;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::RemoteFiles;
use super::catalog::{From, ListKeys};
use super::look::prefix_of;
use super::write::key_of;

/// Objects of a directory that can be renamed.
const OBJECTS_MAX: usize = 10_000;
/// Copies and deletions at a time.
const AT_ONCE: usize = 16;
/// Keys asked for at a time.
const LIST_LIMIT: u16 = 1000;

impl RemoteFiles {
    pub(super) async fn rename_path(
        &self,
        bucket: BucketId,
        from: &str,
        to: &str,
        mode: RenameMode,
    ) -> Result<()> {
        self.writing("renaming")?;
        let bucket = self.bucket_by_id(bucket)?;
        let source = self.look(&bucket, from).await?;
        let source = source.ok_or(Error::NoSuchKey(key_of(from)?))?;
        if from == to {
            return if mode == RenameMode::NoReplace {
                Err(Error::Exists(key_of(to)?))
            } else {
                Ok(())
            };
        }
        let directory = matches!(source, Node::Directory(_));
        if directory && prefix_of(to).starts_with(&prefix_of(from)) {
            return Err(Error::InvalidRequest(
                "a directory can't be moved into itself",
            ));
        }
        match mode {
            RenameMode::Exchange => {
                return Err(Error::InvalidRequest(
                    "names can't be exchanged on this origin",
                ));
            }
            RenameMode::NoReplace => self.require_vacant(&bucket, to).await?,
            RenameMode::Replace => self.clear_target(&bucket, to, directory).await?,
        }
        match source {
            Node::File(_) => self.move_file(&bucket, from, to).await?,
            Node::Directory(_) => self.move_directory(&bucket, from, to).await?,
        }
        Ok(())
    }

    /// Makes room: a directory must be empty, a file is replaced by what comes.
    async fn clear_target(&self, bucket: &Bucket, to: &str, directory: bool) -> Result<()> {
        match self.look(bucket, to).await? {
            Some(Node::File(_)) if directory => Err(Error::NotDirectory(key_of(to)?)),
            Some(Node::Directory(_)) if !directory => Err(Error::IsDirectory(key_of(to)?)),
            None | Some(Node::File(_)) => Ok(()),
            Some(Node::Directory(_)) => self.remove_empty(bucket, to).await,
        }
    }

    async fn move_file(&self, bucket: &Bucket, from: &str, to: &str) -> Result<()> {
        let entry = self.head(bucket, from).await?;
        let entry = entry.ok_or(Error::NoSuchKey(key_of(from)?))?;
        self.copy_to(bucket, &entry, to).await?;
        self.keep_parent(bucket, from).await?;
        self.delete(bucket, from).await
    }

    async fn move_directory(&self, bucket: &Bucket, from: &str, to: &str) -> Result<()> {
        let (from_prefix, to_prefix) = (prefix_of(from), prefix_of(to));
        let entries = self.all_below(bucket, &from_prefix).await?;
        let moved = |entry: &Entry| {
            let rest = &entry.key.as_str()[from_prefix.len()..];
            [to_prefix.as_str(), rest].concat()
        };
        for entry in &entries {
            let len = moved(entry).len();
            if len > KEY_LEN_MAX {
                return Err(Error::KeyTooLong { len });
            }
        }
        let copies = entries.iter().map(|entry| async move {
            let to = moved(entry);
            self.copy_to(bucket, entry, &to).await
        });
        let copies = futures_util::stream::iter(copies).buffer_unordered(AT_ONCE);
        copies.try_collect::<()>().await?;
        self.keep_parent(bucket, &from_prefix).await?;
        let deletions = entries
            .iter()
            .map(|entry| self.delete(bucket, entry.key.as_str()));
        let deletions = futures_util::stream::iter(deletions).buffer_unordered(AT_ONCE);
        let deleted = deletions.try_collect::<()>().await;
        // What was known of names below both is old in ways that are not worth telling apart.
        self.known.forget_all();
        deleted
    }

    /// All objects whose keys begin so.
    async fn all_below(&self, bucket: &Bucket, prefix: &str) -> Result<Vec<Arc<Entry>>> {
        let mut entries = Vec::new();
        let mut list = ListKeys {
            bucket: bucket.name.as_str().to_owned(),
            prefix: prefix.to_owned(),
            limit: LIST_LIMIT,
            ..ListKeys::default()
        };
        loop {
            let keys = self.keys(&list).await?;
            for listed in &keys.objects {
                entries.push(self.listed_entry(bucket, listed)?);
            }
            if entries.len() > OBJECTS_MAX {
                return Err(Error::ReadOnly(
                    "renaming a directory of more than 10,000 objects",
                ));
            }
            let Some(token) = keys.token else {
                return Ok(entries);
            };
            list.from = From::Token(token);
        }
    }
}
