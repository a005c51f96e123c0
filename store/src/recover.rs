//! What opening does about what happened before.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use crate::append::Appender;
use crate::commit::Committer;
use crate::data::Layout;
use crate::entry::{BucketId, Entry, FileId};
use crate::error::{Error, IoContext, Result};
use crate::event::ChangeKind;
use crate::flush::{self, Survival};
use crate::index::extent::FileUse;
use crate::index::{self, extent, object, unsynced};
use crate::replay;
use crate::shared::Shared;
use crate::write::Writer;

/// Fails if there is data but no index: to open would be to remove all of it as left over.
pub(crate) fn require_index(layout: &Layout) -> Result<()> {
    if layout.index().exists() {
        return Ok(());
    }
    for dir in layout.data_dirs() {
        for entry in fs::read_dir(&dir).io("list", &dir)? {
            let name = entry.io("list", &dir)?.file_name();
            if name.to_str().and_then(Layout::parse_name).is_some() {
                return Err(Error::IndexDamaged(format!(
                    "{} is missing, and there is data: `forebay fsck --rebuild-index` makes it anew",
                    layout.index().display()
                )));
            }
        }
    }
    Ok(())
}

/// The newest segment, and what it holds.
pub(crate) fn last_segment(connection: &Connection) -> Result<Option<(FileId, FileUse)>> {
    let files = extent::files(connection)?.into_iter();
    let segments = files.filter(|(_, packed, _)| *packed);
    let last = segments.max_by_key(|(id, ..)| *id);
    Ok(last.map(|(id, _, file_use)| (id, file_use)))
}

/// Goes on with the last segment, behind what is published in it or logged.
pub(crate) fn resume_segment(
    shared: &Shared,
    connection: &Connection,
    appender: &mut Appender,
) -> Result<()> {
    replay::replay(shared, connection, appender)?;
    let Some((id, file_use)) = last_segment(connection)? else {
        return Ok(());
    };
    let path = shared.layout.path(id, true);
    if path.exists() {
        return appender.resume(id, file_use.size);
    }
    tracing::error!(path = %path.display(), "a segment is missing: run `forebay fsck`");
    Ok(())
}

/// Removes what no row refers to: files that were being written, and those whose removal was cut
/// short.
pub(crate) fn remove_leftovers(shared: &Shared, connection: &Connection) -> Result<()> {
    let known: HashSet<FileId> = extent::files(connection)?
        .into_iter()
        .map(|(id, ..)| id)
        .collect();
    let layout = &shared.layout;
    let mut removed = 0_u64;
    let mut sweep = |dir: &Path, keep: &dyn Fn(&str) -> bool| -> Result<()> {
        for entry in fs::read_dir(dir).io("list", dir)? {
            let entry = entry.io("list", dir)?;
            let name = entry.file_name();
            if name.to_str().is_some_and(keep)
                || entry.file_type().io("stat", &entry.path())?.is_dir()
            {
                continue;
            }
            shared
                .disk
                .remove(&entry.path())
                .io("remove", &entry.path())?;
            removed += 1;
        }
        Ok(())
    };
    // What is not named as ours is not ours to remove.
    let referred = |name: &str| Layout::parse_name(name).is_none_or(|(id, _)| known.contains(&id));
    sweep(&layout.staging(), &|_| false)?;
    sweep(&layout.segments(), &referred)?;
    for dir in layout.file_dirs() {
        sweep(&dir, &referred)?;
    }
    if removed > 0 {
        tracing::info!(removed, "removed files that were left over");
    }
    Ok(())
}

/// Decides about versions whose bytes were not known to be synced: they stay if their CRC is right,
/// or if the machine has run on since they were written.
pub(crate) fn settle_unsynced(shared: &Arc<Shared>, committer: &Committer) -> Result<()> {
    settle_marked(shared, committer)?;
    // Not before: a mark of an earlier start must not be taken for one of this.
    note_boot(shared, committer)
}

fn settle_marked(shared: &Arc<Shared>, committer: &Committer) -> Result<()> {
    let found = shared.index.read(|connection| {
        let marked: HashSet<u64> = unsynced::all(connection)?.into_iter().collect();
        if marked.is_empty() {
            return Ok(None);
        }
        let mut entries = Vec::new();
        for (_, bucket, key) in object::scan_ids(connection, |id| marked.contains(&id))? {
            entries.extend(object::current(connection, &shared.accounts, bucket, &key)?);
        }
        let boot_id = unsynced::boot_id(connection)?;
        Ok(Some((marked, entries, boot_id)))
    })?;
    let Some((mut marked, entries, boot_id)) = found else {
        return Ok(());
    };
    let survival = if boot_id.is_some() && boot_id == shared.disk.boot_id(shared.layout.root()) {
        Survival::Whole
    } else {
        Survival::Unknown
    };
    let (mut synced, mut lost, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries.into_iter().map(Arc::new) {
        marked.remove(&entry.id);
        if let Some(found) = flush::verify(shared, &entry, survival)? {
            synced.push((entry, found.crcs));
            bytes.extend(found.bytes);
        } else {
            tracing::warn!(key = %entry.key, "a version's bytes were lost in a crash: the one before it comes back");
            lost.push(entry);
        }
    }
    flush::write_again(shared, &bytes)?;
    flush::settle(shared, committer, synced, lost)?;
    // Marks of versions that are not there any more.
    committer.run_blocking(true, crate::api::Face::S3, move |writer| {
        marked.iter().try_for_each(|id| writer.settle(*id))
    })
}

/// Records in which start of the machine versions are marked from now on.
fn note_boot(shared: &Shared, committer: &Committer) -> Result<()> {
    let now = shared.disk.boot_id(shared.layout.root());
    if shared.index.read(unsynced::boot_id)? == now {
        return Ok(());
    }
    committer.run_blocking(true, crate::api::Face::S3, move |writer| {
        unsynced::set_boot_id(writer.connection, now)
    })
}

/// Puts what a version replaced back in its place.
pub(crate) fn fall_back(
    writer: &mut Writer<'_>,
    id: u64,
    bucket: BucketId,
    key: &str,
) -> Result<()> {
    if !unsynced::is_marked(writer.connection, id)? {
        return Ok(());
    }
    if let Some(lost) = find_version(writer, id, bucket, key)? {
        object::remove(writer.connection, lost.bucket, lost.key.as_str())?;
        writer.release(lost.extents.iter().map(|extent| extent.id))?;
        let changes = &mut writer.effects.changes;
        changes.push((lost.bucket, Some(lost.key.clone()), ChangeKind::Deleted));
        let entries = &mut writer.effects.entries;
        entries.push((lost.bucket, lost.key, None));
    }
    unsynced::clear(writer.connection, id)?;
    for (mut entry, ids) in
        unsynced::take_fallbacks(writer.connection, &writer.shared.accounts, id)?
    {
        let vacant = writer.current(entry.bucket, entry.key.as_str())?.is_none();
        if !vacant || !index::bucket::exists(writer.connection, entry.bucket)? {
            writer.release(extent::decode_ids(&ids))?;
            continue;
        }
        entry.extents = extent::load(writer.connection, &ids)?;
        writer.rewrite(entry)?;
    }
    Ok(())
}

/// The current version of this number: under this key, or under the one it was renamed to since.
fn find_version(
    writer: &Writer<'_>,
    id: u64,
    bucket: BucketId,
    key: &str,
) -> Result<Option<Entry>> {
    let here = writer.current(bucket, key)?;
    if let Some(entry) = here.filter(|entry| entry.id == id) {
        return Ok(Some(entry));
    }
    let found = object::scan_ids(writer.connection, |found| found == id)?;
    match found.first() {
        Some((_, bucket, key)) => writer.current(*bucket, key),
        None => Ok(None),
    }
}
