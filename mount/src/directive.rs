//! Which word about the cache counts for an open file: the first that speaks.
//!
//! 1. `O_DIRECT`, which is `no-store`.
//! 2. The extended attribute `user.forebay.cache-control` of the file, or of the nearest directory
//!    above that has one, up to the root of the mount.
//! 3. The `Cache-Control` header that the object is stored with.
//! 4. The mount's own option.

use std::time::{Duration, Instant};

use forebay_store::api::Node as Named;
use forebay_store::entry::Entry;
use forebay_store::rule::directive::Directive;

use crate::errno::Errno;
use crate::inode::{Place, ROOT, Tree};
use crate::opening::OpenFlags;
use crate::view::View;

/// What a directory's extended attribute says, and since when that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    at: Instant,
    says: Option<Directive>,
}

impl Word {
    /// As of now.
    pub(crate) fn new(says: Option<Directive>) -> Self {
        Self {
            at: Instant::now(),
            says,
        }
    }
}

/// What the directories above an inode say, as far as it is known.
enum Above {
    Said(Option<Directive>),
    /// This directory is to be asked.
    Unknown(u64),
}

impl View {
    /// What holds for an open of a version that an inode shows.
    pub(crate) fn directive(
        &self,
        ino: u64,
        flags: OpenFlags,
        entry: &Entry,
    ) -> Result<Directive, Errno> {
        if flags.direct() {
            return Ok(Directive::Bypass);
        }
        if let Some(kept) = Directive::kept_in(&entry.attributes.user_metadata) {
            return Ok(kept);
        }
        if let Some(kept) = self.directive_above(ino)? {
            return Ok(kept);
        }
        let stored = entry.attributes.headers.cache_control.as_deref();
        Ok(match Directive::parse(stored) {
            Directive::Use => self.cache,
            stored => stored,
        })
    }

    /// What the nearest directory above says that says anything.
    fn directive_above(&self, ino: u64) -> Result<Option<Directive>, Errno> {
        let age_max = self.files.answer_age_max();
        loop {
            let above = known_above(&self.tree(), ino, age_max);
            match above {
                Above::Said(said) => return Ok(said),
                Above::Unknown(dir) => {
                    let says = self.directory_says(dir)?;
                    self.tree().note_word(dir, Word::new(says));
                }
            }
        }
    }

    /// What a directory's own extended attribute says.
    pub(crate) fn directory_says(&self, dir: u64) -> Result<Option<Directive>, Errno> {
        match self.place(dir)? {
            Place::In(bucket, path) if !path.is_empty() => {
                let named = self.files.lookup(bucket.id, &path)?;
                Ok(named.as_ref().and_then(says))
            }
            // The directories of buckets, and of all buckets, are no objects.
            Place::In(..) | Place::Buckets => Ok(None),
        }
    }
}

/// What the marker of a directory says.
pub(crate) fn says(named: &Named) -> Option<Directive> {
    match named {
        Named::Directory(Some(marker)) => Directive::kept_in(&marker.attributes.user_metadata),
        Named::Directory(None) | Named::File(_) => None,
    }
}

fn known_above(tree: &Tree, ino: u64, age_max: Duration) -> Above {
    let mut at = ino;
    while at != ROOT {
        let Some(dir) = tree.get(at).map(|node| node.parent) else {
            return Above::Said(None);
        };
        let word = tree.get(dir).and_then(|node| node.word);
        match word.filter(|word| word.at.elapsed() < age_max) {
            None => return Above::Unknown(dir),
            Some(word) if word.says.is_some() => return Above::Said(word.says),
            Some(_) => at = dir,
        }
    }
    Above::Said(None)
}
