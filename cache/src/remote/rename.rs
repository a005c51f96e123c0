//! Renaming: by a forebay origin in one step, elsewhere by copies and deletions.
//!
//! With copies, everything is at its new name before anything is gone from the old one: who looks
//! in between sees both, and what fails in between leaves both. What somebody else has put under
//! the old name meanwhile is not deleted, where the origin knows conditions for deletions.

use std::sync::Arc;

use forebay_store::api::{Node, RenameMode};
use forebay_store::entry::{Bucket, BucketId, Entry};
use forebay_store::error::{Error, Result};
use forebay_store::limits::KEY_LEN_MAX;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::RemoteFiles;
use super::catalog::{From, ListKeys};
use super::change::Fate;
use super::look::prefix_of;
use super::write::key_of;
use super::writer::PathRename;

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
        let writing = self.writing("renaming")?;
        let bucket = self.bucket_by_id(bucket)?;
        let rename = PathRename {
            bucket: bucket.name.as_str(),
            from,
            to,
            mode,
        };
        if writing.writer.rename(rename).await? {
            return self.renamed(&bucket, from, to, mode);
        }
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

    /// Takes in what the origin has renamed. Files that are known keep their numbers.
    fn renamed(&self, bucket: &Bucket, from: &str, to: &str, mode: RenameMode) -> Result<()> {
        let known = |path: &str| {
            let said = self.known.said(&(bucket.id, path.into()))?;
            said.node
        };
        let ways = [(from, to), (to, from)];
        let count = if mode == RenameMode::Exchange { 2 } else { 1 };
        let mut moved: Vec<(Arc<Entry>, String)> = Vec::new();
        for (from, to) in &ways[..count] {
            match known(from) {
                Some(Node::File(entry)) => moved.push((entry, (*to).to_owned())),
                // Of one that is not known, what is below may be.
                Some(Node::Directory(_)) | None => {
                    let (from, to) = (prefix_of(from), prefix_of(to));
                    let below = self.known.files_below(bucket.id, &from);
                    moved.extend(below.into_iter().map(|entry| {
                        let key = [to.as_str(), &entry.key.as_str()[from.len()..]].concat();
                        (entry, key)
                    }));
                }
            }
        }
        for (entry, key) in moved {
            let etag = entry.origin.as_deref().map_or("", |origin| &origin.etag);
            self.numbers
                .keep(bucket.id, &key, etag, entry.size, entry.ino);
        }
        let file = matches!(known(from), Some(Node::File(_)));
        if file && mode != RenameMode::Exchange {
            self.forget_key(bucket.id, &key_of(from)?, Fate::Went);
            self.forget_key(bucket.id, &key_of(to)?, Fate::Came);
        } else {
            // What was known of names below both is old in ways that are not worth telling apart.
            self.known.forget_all();
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
        self.delete_entry(bucket, &entry).await
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
        let deletions = entries.iter().map(|entry| self.delete_entry(bucket, entry));
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
