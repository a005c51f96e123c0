//! What a bucket is: a map from keys to objects, and what every call does to it, as plainly as can
//! be.

use std::collections::{BTreeMap, BTreeSet};

use forebay_store::api::RenameMode;
use forebay_store::digest::{DigestSet, Hasher};
use forebay_store::entry::ETag;

/// The MD5 of some bytes.
fn md5(bytes: &[u8]) -> [u8; 16] {
    let mut hasher = Hasher::new(DigestSet::MD5);
    hasher.update(bytes);
    hasher.finish().md5.expect("asked for")
}

/// The entity tag of an object put in one piece.
pub(crate) fn etag(bytes: &[u8]) -> ETag {
    ETag {
        digest: md5(bytes),
        parts: 0,
    }
}

/// The entity tag of an object put in parts.
pub(crate) fn multipart_etag(parts: &[&[u8]]) -> ETag {
    let digests: Vec<u8> = parts.iter().flat_map(|part| md5(part)).collect();
    ETag {
        digest: md5(&digests),
        parts: u32::try_from(parts.len()).expect("at most 10,000"),
    }
}

/// What is known of an object's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is this, or none was given.
    Known(Option<u32>),
    /// No call says what it has become.
    Open,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) bytes: Vec<u8>,
    pub(crate) etag: ETag,
    /// `st_mode`.
    pub(crate) mode: Mode,
}

impl Object {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self {
            etag: etag(&bytes),
            bytes,
            mode: Mode::Known(None),
        }
    }
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Nothing,
    File,
    Directory,
}

/// A name in a directory, as it sorts.
pub(crate) type Name = (String, Named);

/// What a call answers: nothing, or the name of an error.
pub(crate) type Answer = Result<(), &'static str>;

/// A bucket.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) objects: BTreeMap<String, Object>,
}

/// The directory that a path lies in.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn prefix_of(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    }
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains('\0')
}

impl Model {
    pub(crate) fn put(&mut self, key: &str, object: Object) {
        self.objects.insert(key.to_owned(), object);
    }

    fn below<'m>(&'m self, path: &str) -> impl Iterator<Item = &'m String> + use<'m> {
        let prefix = prefix_of(path);
        self.objects
            .keys()
            .filter(move |key| key.starts_with(&prefix))
    }

    pub(crate) fn named(&self, path: &str) -> Named {
        if path.is_empty() || self.below(path).next().is_some() {
            Named::Directory
        } else if self.objects.contains_key(path) {
            Named::File
        } else {
            Named::Nothing
        }
    }

    /// Whether an object has the name of a directory, and is hidden by it.
    pub(crate) fn is_shadowed(&self, path: &str) -> bool {
        self.objects.contains_key(path) && self.named(path) == Named::Directory
    }

    fn is_empty_directory(&self, path: &str) -> bool {
        let marker = prefix_of(path);
        self.below(path).all(|key| *key == marker)
    }

    /// The directory of a name that has gone stays, by a marker if need be.
    fn keep_parent(&mut self, path: &str) {
        let parent = parent(path).to_owned();
        if self.named(&parent) != Named::Directory {
            self.put(&prefix_of(&parent), Object::new(Vec::new()));
        }
    }

    pub(crate) fn make_directory(&mut self, path: &str, mode: u32) -> Answer {
        if self.named(path) != Named::Nothing {
            return Err("Exists");
        }
        let mut marker = Object::new(Vec::new());
        marker.mode = Mode::Known(Some(mode));
        self.put(&prefix_of(path), marker);
        Ok(())
    }

    pub(crate) fn remove_directory(&mut self, path: &str) -> Answer {
        match self.named(path) {
            Named::Nothing => Err("NoSuchKey"),
            Named::File => Err("NotDirectory"),
            Named::Directory if !self.is_empty_directory(path) => Err("DirectoryNotEmpty"),
            Named::Directory => {
                self.objects.remove(&prefix_of(path));
                self.keep_parent(path);
                Ok(())
            }
        }
    }

    pub(crate) fn remove_file(&mut self, path: &str) -> Answer {
        match self.named(path) {
            Named::Nothing => Err("NoSuchKey"),
            Named::Directory => Err("IsDirectory"),
            Named::File => {
                self.objects.remove(path);
                self.keep_parent(path);
                Ok(())
            }
        }
    }

    pub(crate) fn set_mode(&mut self, path: &str, mode: u32) -> Answer {
        let key = match self.named(path) {
            Named::Nothing => return Err("NoSuchKey"),
            Named::File => path.to_owned(),
            Named::Directory => prefix_of(path),
        };
        let object = self.objects.entry(key);
        object.or_insert_with(|| Object::new(Vec::new())).mode = Mode::Known(Some(mode));
        Ok(())
    }

    /// Takes out what a path names: a file, or a directory's keys.
    fn take(&mut self, path: &str) -> Vec<(String, Object)> {
        let prefix = prefix_of(path);
        let keys: Vec<String> = match self.named(path) {
            Named::Directory => self.below(path).cloned().collect(),
            Named::File | Named::Nothing => vec![path.to_owned()],
        };
        let taken = keys.into_iter().filter_map(|key| {
            let object = self.objects.remove(&key)?;
            let rest = match key.strip_prefix(&prefix) {
                Some(rest) => format!("/{rest}"),
                None => String::new(),
            };
            Some((rest, object))
        });
        taken.collect()
    }

    fn give(&mut self, path: &str, taken: Vec<(String, Object)>) {
        for (rest, object) in taken {
            self.objects.insert(format!("{path}{rest}"), object);
        }
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str, mode: RenameMode) -> Answer {
        let (source, target) = (self.named(from), self.named(to));
        if source == Named::Nothing {
            return Err("NoSuchKey");
        }
        if from == to {
            let exists = mode == RenameMode::NoReplace;
            return if exists { Err("Exists") } else { Ok(()) };
        }
        if source == Named::Directory && to.starts_with(&prefix_of(from)) {
            return Err("InvalidRequest");
        }
        if mode == RenameMode::NoReplace && target != Named::Nothing {
            return Err("Exists");
        }
        if mode == RenameMode::Exchange {
            return self.exchange(from, to);
        }
        match (source, target) {
            (Named::File, Named::Directory) => return Err("IsDirectory"),
            (Named::Directory, Named::File) => return Err("NotDirectory"),
            (Named::Directory, Named::Directory) if !self.is_empty_directory(to) => {
                return Err("DirectoryNotEmpty");
            }
            _ => {}
        }
        self.take(to);
        let moved = self.take(from);
        self.give(to, moved);
        self.keep_parent(from);
        Ok(())
    }

    /// Directories are not exchanged.
    fn exchange(&mut self, from: &str, to: &str) -> Answer {
        match (self.named(from), self.named(to)) {
            (Named::Directory, _) | (_, Named::Directory) => Err("InvalidRequest"),
            (Named::File, Named::File) => {
                let (one, other) = (self.take(from), self.take(to));
                self.give(to, one);
                self.give(from, other);
                Ok(())
            }
            (Named::Nothing, _) | (_, Named::Nothing) => Err("NoSuchKey"),
        }
    }

    /// Keys and common prefixes (which end in the delimiter) under a prefix.
    pub(crate) fn list(&self, prefix: &str, delimiter: Option<&str>) -> Vec<String> {
        let keys = self.objects.keys().filter(|key| key.starts_with(prefix));
        let names = keys.map(|key| {
            let found = delimiter.and_then(|delimiter| {
                let at = key[prefix.len()..].find(delimiter)?;
                Some(&key[..prefix.len() + at + delimiter.len()])
            });
            found.unwrap_or(key).to_owned()
        });
        let mut names: Vec<String> = names.collect();
        names.dedup();
        names
    }

    /// The names in a directory in their order, and how many are hidden.
    pub(crate) fn directory(&self, path: &str) -> (Vec<Name>, u64) {
        let prefix = prefix_of(path);
        let mut names = BTreeSet::new();
        for key in self.below(path).filter(|key| **key != prefix) {
            let rest = &key[prefix.len()..];
            match rest.split_once('/') {
                Some((name, _)) => names.insert((format!("{name}/"), false)),
                None => names.insert((rest.to_owned(), true)),
            };
        }
        let (mut shown, mut hidden) = (Vec::new(), 0);
        for (sorts_as, is_file) in &names {
            let name = sorts_as.strip_suffix('/').unwrap_or(sorts_as);
            let shadowed = *is_file && names.contains(&(format!("{name}/"), false));
            if !is_name(name) || shadowed {
                hidden += 1;
                continue;
            }
            let named = if *is_file {
                Named::File
            } else {
                Named::Directory
            };
            shown.push((name.to_owned(), named));
        }
        (shown, hidden)
    }

    /// All directories there are, the bucket itself first.
    pub(crate) fn directories(&self) -> BTreeSet<String> {
        let ends = self.objects.keys().flat_map(|key| {
            key.match_indices('/')
                .map(|(at, _)| key[..at].to_owned())
                .collect::<Vec<_>>()
        });
        let mut all: BTreeSet<String> = ends.filter(|path| path.split('/').all(is_name)).collect();
        all.insert(String::new());
        all
    }
}
