//! Names as a file system has them: what may be made, moved and removed where.
//!
//! All within the committer's transaction.

use std::sync::Arc;

use crate::api::{AttributeChange, Node, Rename, RenameMode};
use crate::entry::{BucketId, Entry, FileAttributes};
use crate::error::{Error, Result};
use crate::event::ChangeKind;
use crate::index::directory::{self, prefix_of};
use crate::index::object;
use crate::limits::KEY_LEN_MAX;
use crate::name::ObjectKey;
use crate::rule::posix;
use crate::write::Writer;

/// What a path names, within the transaction.
pub(super) fn node(writer: &Writer<'_>, bucket: BucketId, path: &str) -> Result<Option<Node>> {
    directory::lookup(writer.connection, &writer.shared.accounts, bucket, path)
}

pub(super) fn key_of(path: &str) -> Result<ObjectKey> {
    ObjectKey::parse(path)
}

pub(super) fn marker_of(path: &str) -> Result<ObjectKey> {
    ObjectKey::parse(&prefix_of(path))
}

/// Fails if anything, file or directory, has this name.
pub(super) fn require_vacant(writer: &Writer<'_>, bucket: BucketId, path: &str) -> Result<()> {
    match node(writer, bucket, path)? {
        None => Ok(()),
        Some(_) => Err(Error::Exists(key_of(path)?)),
    }
}

/// The entry that keeps what is said of a path: an object's, or that of a directory's marker, which
/// is made if there is none.
pub(super) fn kept_entry(writer: &mut Writer<'_>, bucket: BucketId, path: &str) -> Result<Entry> {
    let key = match node(writer, bucket, path)? {
        None => return Err(Error::NoSuchKey(key_of(path)?)),
        Some(Node::File(_)) => key_of(path)?,
        Some(Node::Directory(Some(_))) => marker_of(path)?,
        Some(Node::Directory(None)) => {
            let owner = writer.bucket(bucket)?.owner.clone();
            let file = FileAttributes {
                mode: Some(posix::S_IFDIR | 0o755),
                ..FileAttributes::default()
            };
            let marker = marker_of(path)?;
            writer.make_marker(bucket, marker.clone(), owner, file)?;
            marker
        }
    };
    let entry = writer.current(bucket, key.as_str())?;
    entry.ok_or_else(|| Error::IndexDamaged(path.to_owned()))
}

pub(super) fn change_attributes(
    writer: &mut Writer<'_>,
    mut entry: Entry,
    change: AttributeChange,
) -> Result<Arc<Entry>> {
    entry.file = posix::changed(
        &entry.file,
        &change,
        entry.modified_at,
        entry.key.is_marker(),
        &mut entry.attributes.user_metadata,
    );
    writer.rewrite(entry)
}

/// Takes a file's name away; the directory it was in stays.
pub(super) fn unlink(writer: &mut Writer<'_>, entry: &Entry) -> Result<()> {
    let (bucket, key, owner) = (entry.bucket, entry.key.clone(), entry.owner.clone());
    writer.remove(entry)?;
    writer.keep_parent(bucket, key.as_str(), &owner)
}

/// Gives a file another name.
fn move_file(writer: &mut Writer<'_>, mut entry: Entry, to: &str) -> Result<()> {
    let (bucket, from, owner) = (entry.bucket, entry.key.clone(), entry.owner.clone());
    object::remove(writer.connection, bucket, from.as_str())?;
    writer.effects.entries.push((bucket, from.clone(), None));
    writer
        .effects
        .changes
        .push((bucket, Some(from.clone()), ChangeKind::Deleted));
    entry.key = key_of(to)?;
    writer.rewrite(entry)?;
    writer.keep_parent(bucket, from.as_str(), &owner)
}

/// Makes room for a rename: what is at the target goes if it may.
fn clear_target(writer: &mut Writer<'_>, bucket: BucketId, to: &str, source: &Node) -> Result<()> {
    let directory = matches!(source, Node::Directory(_));
    match node(writer, bucket, to)? {
        None => Ok(()),
        Some(Node::File(_)) if directory => Err(Error::NotDirectory(key_of(to)?)),
        Some(Node::Directory(_)) if !directory => Err(Error::IsDirectory(key_of(to)?)),
        Some(Node::File(_)) => {
            let old = writer
                .current(bucket, to)?
                .ok_or_else(|| Error::IndexDamaged(to.to_owned()))?;
            match source {
                Node::File(successor) => writer.give_way(&old, successor.id),
                Node::Directory(_) => writer.remove(&old),
            }
        }
        Some(Node::Directory(_)) => remove_empty(writer, bucket, to),
    }
}

/// Removes a directory that has nothing in it but its marker.
pub(super) fn remove_empty(writer: &mut Writer<'_>, bucket: BucketId, path: &str) -> Result<()> {
    let marker = marker_of(path)?;
    let mut after_marker = marker.as_str().as_bytes().to_vec();
    after_marker.push(0);
    let next = object::first_key(writer.connection, bucket, &after_marker)?;
    if next.is_some_and(|key| key.starts_with(marker.as_str())) {
        return Err(Error::DirectoryNotEmpty(key_of(path)?));
    }
    match writer.current(bucket, marker.as_str())? {
        Some(old) => writer.remove(&old),
        None => Ok(()),
    }
}

/// Gives a directory and all below it another name.
fn move_directory(writer: &mut Writer<'_>, bucket: BucketId, from: &str, to: &str) -> Result<()> {
    let (from_prefix, to_prefix) = (prefix_of(from), prefix_of(to));
    let longest = object::longest_key(writer.connection, bucket, &from_prefix)?;
    let len = longest - from_prefix.len() + to_prefix.len();
    if len > KEY_LEN_MAX {
        return Err(Error::KeyTooLong { len });
    }
    object::rename_prefix(writer.connection, bucket, &from_prefix, &to_prefix)?;
    writer.effects.forget_entries();
    let kind = ChangeKind::RenamedTree { to: to_prefix };
    writer
        .effects
        .changes
        .push((bucket, Some(marker_of(from)?), kind));
    let owner = writer.bucket(bucket)?.owner.clone();
    writer.keep_parent(bucket, &from_prefix, &owner)
}

/// Gives a file or a directory another name, for S3.
pub(crate) fn rename_in(writer: &mut Writer<'_>, asked: &Rename) -> Result<()> {
    rename(writer, asked.bucket, &asked.from, &asked.to, asked.mode)
}

/// Gives a file or a directory another name.
pub(super) fn rename(
    writer: &mut Writer<'_>,
    bucket: BucketId,
    from: &str,
    to: &str,
    mode: RenameMode,
) -> Result<()> {
    writer.bucket(bucket)?;
    let source = node(writer, bucket, from)?.ok_or(Error::NoSuchKey(key_of(from)?))?;
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
        RenameMode::Exchange => return exchange(writer, bucket, from, to),
        RenameMode::NoReplace => require_vacant(writer, bucket, to)?,
        RenameMode::Replace => clear_target(writer, bucket, to, &source)?,
    }
    if directory {
        return move_directory(writer, bucket, from, to);
    }
    let entry = writer
        .current(bucket, from)?
        .ok_or_else(|| Error::IndexDamaged(from.to_owned()))?;
    move_file(writer, entry, to)
}

/// Exchanges the names of two files. Directories are not exchanged.
fn exchange(writer: &mut Writer<'_>, bucket: BucketId, from: &str, to: &str) -> Result<()> {
    let file = |path: &str| match node(writer, bucket, path)? {
        None => Err(Error::NoSuchKey(key_of(path)?)),
        Some(Node::Directory(_)) => Err(Error::InvalidRequest("directories can't be exchanged")),
        Some(Node::File(_)) => writer
            .current(bucket, path)?
            .ok_or_else(|| Error::IndexDamaged(path.to_owned())),
    };
    let (mut first, mut second) = (file(from)?, file(to)?);
    std::mem::swap(&mut first.key, &mut second.key);
    writer.rewrite(first)?;
    writer.rewrite(second).map(drop)
}
