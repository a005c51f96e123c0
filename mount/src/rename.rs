//! `renameat2`: one step in the store, one node in the tree.

use std::sync::Arc;

use forebay_store::Error;
use forebay_store::api::{Node as Named, RenameMode};
use forebay_store::entry::BucketId;

use crate::errno::Errno;
use crate::inode::Place;
use crate::open::OpenFile;
use crate::path::{join, key};
use crate::view::View;

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) dir: u64,
    pub(crate) name: &'a str,
}

/// What is renamed to where, in the store's terms.
struct Move {
    bucket: BucketId,
    from: String,
    to: String,
    mode: RenameMode,
}

/// The mode that the flags of `renameat2(2)` ask for.
///
/// # Errors
/// `EINVAL` for what is not done here.
pub(crate) fn mode(flags: u32) -> Result<RenameMode, Errno> {
    match flags {
        0 => Ok(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Ok(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ => Err(Errno(libc::EINVAL)),
    }
}

impl View {
    /// Renames a file or a directory, within a bucket.
    ///
    /// # Errors
    /// `EXDEV` between buckets, `EPERM` for a bucket itself, and as `rename(2)` has it.
    pub(crate) fn rename(&self, from: At<'_>, to: At<'_>, mode: RenameMode) -> Result<(), Errno> {
        let files = [self.open_at(from), self.open_at(to)];
        if mode == RenameMode::Exchange {
            // Names that S3 does not know yet can't be exchanged there.
            for file in files.iter().flatten() {
                self.publish_now(file)?;
            }
        }
        if self.moves_file(from) && mode != RenameMode::Exchange {
            let _paths = self.paths();
            // So that no publication is under way; in order of inode numbers.
            let mut files: Vec<&Arc<OpenFile>> = files.iter().flatten().collect();
            files.sort_by_key(|file| file.ino);
            files.dedup_by_key(|file| file.ino);
            let _states: Vec<_> = files.iter().map(|file| file.lock()).collect();
            self.rename_alone(from, to, mode)
        } else {
            let _paths = self.paths_alone();
            self.rename_alone(from, to, mode)
        }
    }

    fn open_at(&self, at: At<'_>) -> Option<Arc<OpenFile>> {
        let tree = self.tree();
        tree.get(tree.child(at.dir, at.name)?)?.file.clone()
    }

    fn moves_file(&self, at: At<'_>) -> bool {
        let tree = self.tree();
        let node = tree.child(at.dir, at.name).and_then(|ino| tree.get(ino));
        node.is_some_and(|node| !node.attr.is_dir())
    }

    fn rename_alone(&self, from: At<'_>, to: At<'_>, mode: RenameMode) -> Result<(), Errno> {
        let Some(there) = self.plan(from, to, mode)? else {
            return Err(Errno(libc::EXDEV));
        };
        let (pending, replaced) = {
            let tree = self.tree();
            (
                tree.pending_child(from.dir, from.name),
                tree.pending_child(to.dir, to.name),
            )
        };
        if replaced.is_some() && mode == RenameMode::NoReplace {
            return Err(Errno(libc::EEXIST));
        }
        match pending {
            Some(_) => {
                self.check_target(&there)?;
                self.remove_hidden(there.bucket, &there.from)?;
            }
            None => self
                .files
                .rename(there.bucket, &there.from, &there.to, there.mode)?,
        }
        self.note_renamed(from, to, mode);
        Ok(())
    }

    /// `None` if the two are in different buckets.
    fn plan(&self, from: At<'_>, to: At<'_>, mode: RenameMode) -> Result<Option<Move>, Errno> {
        match (self.place(from.dir)?, self.place(to.dir)?) {
            (Place::In(bucket, from_dir), Place::In(other, to_dir)) => {
                let (from, to) = (join(&from_dir, from.name), join(&to_dir, to.name));
                key(&to)?;
                Ok((bucket.id == other.id).then_some(Move {
                    bucket: bucket.id,
                    from,
                    to,
                    mode,
                }))
            }
            // A bucket keeps its name.
            (Place::Buckets, _) => Err(Errno(libc::EPERM)),
            (Place::In(..), Place::Buckets) => Ok(None),
        }
    }

    /// Whether a file that S3 does not know yet may take the name. What S3 has there stays until
    /// the file is closed and published in its place.
    fn check_target(&self, there: &Move) -> Result<(), Errno> {
        match self.files.lookup(there.bucket, &there.to)? {
            Some(Named::Directory(_)) => Err(Errno(libc::EISDIR)),
            Some(Named::File(_)) if there.mode == RenameMode::NoReplace => Err(Errno(libc::EEXIST)),
            Some(Named::File(_)) | None => Ok(()),
        }
    }

    fn note_renamed(&self, from: At<'_>, to: At<'_>, mode: RenameMode) {
        let now = self.now();
        self.recent.all_changed();
        let mut tree = self.tree();
        let (source, target) = (tree.child(from.dir, from.name), tree.child(to.dir, to.name));
        match (source, target, mode) {
            (Some(source), Some(target), RenameMode::Exchange) => tree.exchange(source, target),
            (Some(source), _, _) => tree.rename(source, to.dir, to.name),
            (None, _, _) => {}
        }
        for ino in [source, target].into_iter().flatten() {
            if let Some(node) = tree.get_mut(ino) {
                node.attr.ctime = now;
            }
        }
        tree.touch(from.dir, now);
        tree.touch(to.dir, now);
    }

    /// Removes what S3 has under the old name of a file that it does not know, so that it does not
    /// come to light.
    fn remove_hidden(&self, bucket: BucketId, path: &str) -> Result<(), Errno> {
        match self.files.remove_file(bucket, path) {
            Ok(()) | Err(Error::NoSuchKey(_)) => Ok(()),
            Err(err) => Err(err.into()),
        }
    }
}
