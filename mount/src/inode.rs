//! The inodes that the kernel knows, as a tree.
//!
//! A node has a parent and a name, so renaming a directory moves one node and with it the keys of
//! all below. Nodes live as long as the kernel remembers them (`forget`), a file is open or a child
//! needs them to have a path; everything else is in the store and is looked up there.
//!
//! A file's inode number is that of the store's version, or, while readers pass through an older
//! content of the same number, a fresh one ([`Node::shows`] then has the store's). A directory's is
//! a hash of bucket and path when it was first seen, top bit set, and stays with it when it moves.
//!
//! # Invariants
//! 1. Each linked node is its parent's child under its name, and no other node is.
//! 2. `child_count` of a node is the number of nodes, linked or not, whose parent it is.
//! 3. A directory's `pending` holds exactly its linked children that are in no listing of the
//!    store.

use std::collections::hash_map::{DefaultHasher, Entry as Slot};
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use forebay_store::entry::{Bucket, BucketId};
use forebay_store::time::Timestamp;

use crate::attr::Attr;
use crate::directive::Word;
use crate::open::OpenFile;

/// The inode number of the mount's root.
pub(crate) const ROOT: u64 = 1;
/// Set in every directory's number but the root's, in no file's.
const DIRECTORY: u64 = 1 << 63;

/// Whether a node is what its name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// It is.
    Linked,
    /// An object put over S3 has taken the name; what is still written here is published to it
    /// again.
    Superseded,
    /// It was removed or replaced on the mount.
    Unlinked,
}

/// What the kernel knows by one inode number.
#[derive(Debug)]
pub(crate) struct Node {
    /// The directory it is in; its own number for the root.
    pub(crate) parent: u64,
    /// Its name there.
    pub(crate) name: Arc<str>,
    pub(crate) link: Link,
    /// As last seen or set.
    pub(crate) attr: Attr,
    /// Inode number of the store's version that it shows, or that of a directory's marker; `None`
    /// if the store has none.
    pub(crate) shows: Option<u64>,
    /// The bucket, for a bucket's own directory.
    pub(crate) bucket: Option<Arc<Bucket>>,
    /// The state shared by its open handles.
    pub(crate) file: Option<Arc<OpenFile>>,
    /// What a directory's extended attribute says of the cache, if it was asked.
    pub(crate) word: Option<Word>,
    /// Goes up with each change of its children, so that a listing that was fetched before is
    /// known to be old.
    pub(crate) version: u64,
    /// How often the kernel was told of it and has not forgotten.
    lookups: u64,
    children: HashMap<Arc<str>, u64>,
    pending: BTreeMap<Arc<str>, u64>,
    child_count: u64,
    /// The inode that has its name while it is open and shows the same version.
    forked: Option<u64>,
}

/// Where a node is in the store.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// The directory of all buckets.
    Buckets,
    /// A path in a bucket; empty for the bucket's own directory.
    In(Arc<Bucket>, String),
}

/// What a directory or file is bound to a name with.
#[derive(Debug)]
pub(crate) struct Binding<'a> {
    pub(crate) parent: u64,
    pub(crate) name: &'a str,
    pub(crate) attr: Attr,
    /// See [`Node::shows`].
    pub(crate) shows: Option<u64>,
}

/// All nodes.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: HashMap<u64, Node>,
    /// What the root shows.
    root: Place,
}

impl Tree {
    /// A tree of the root alone, whose place is `root`.
    pub(crate) fn new(root: Place, attr: Attr) -> Self {
        let node = Node::new(ROOT, "".into(), attr, None);
        Self {
            nodes: HashMap::from([(ROOT, Node { lookups: 1, ..node })]),
            root,
        }
    }

    pub(crate) fn get(&self, ino: u64) -> Option<&Node> {
        self.nodes.get(&ino)
    }

    pub(crate) fn get_mut(&mut self, ino: u64) -> Option<&mut Node> {
        self.nodes.get_mut(&ino)
    }

    /// The node that a name is known to lead to.
    pub(crate) fn child(&self, parent: u64, name: &str) -> Option<u64> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// The node that a name leads to although no listing of the store has it.
    pub(crate) fn pending_child(&self, parent: u64, name: &str) -> Option<u64> {
        self.nodes.get(&parent)?.pending.get(name).copied()
    }

    /// Where a node is; `None` if it, or a directory above it, is gone.
    pub(crate) fn place(&self, ino: u64) -> Option<Place> {
        let mut names = Vec::new();
        let mut at = ino;
        let (bucket, base) = loop {
            let node = self.nodes.get(&at)?;
            if at == ROOT {
                match &self.root {
                    Place::Buckets if names.is_empty() => return Some(Place::Buckets),
                    Place::Buckets => return None,
                    Place::In(bucket, path) => break (Arc::clone(bucket), path.as_str()),
                }
            }
            if node.link == Link::Unlinked {
                return None;
            }
            if let Some(bucket) = &node.bucket {
                break (Arc::clone(bucket), "");
            }
            names.push(&*node.name);
            at = node.parent;
        };
        let mut path =
            String::with_capacity(base.len() + names.iter().map(|n| n.len() + 1).sum::<usize>());
        path.push_str(base);
        for name in names.iter().rev() {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
        }
        Some(Place::In(bucket, path))
    }

    /// The root of the tree that `bucket` is shown in, and the path that is the root's there.
    pub(crate) fn bucket_root(&self, bucket: BucketId) -> Option<(u64, &str)> {
        match &self.root {
            Place::In(root, path) => (root.id == bucket).then_some((ROOT, path.as_str())),
            Place::Buckets => {
                let known = self.nodes[&ROOT].children.values();
                let mut known = known.filter(|ino| {
                    self.nodes[ino]
                        .bucket
                        .as_ref()
                        .is_some_and(|own| own.id == bucket)
                });
                known.next().map(|ino| (*ino, ""))
            }
        }
    }

    /// Makes a name lead to the store's version `shows`, and tells its node's number.
    pub(crate) fn bind_file(&mut self, binding: &Binding<'_>, version_ino: u64) -> u64 {
        if let Some(known) = self.child(binding.parent, binding.name) {
            let node = self.nodes.get_mut(&known).expect("invariant 1");
            if node.shows == Some(version_ino) {
                if node.file.as_ref().is_none_or(|file| !file.is_staged()) {
                    node.attr = binding.attr.seen_after(&node.attr);
                }
                return known;
            }
            self.unlink(known, Link::Superseded);
        }
        let ino = self.fork_of(version_ino);
        if self.nodes.contains_key(&ino) {
            self.detach(ino);
        } else {
            self.insert(ino, binding);
        }
        let node = self
            .nodes
            .get_mut(&version_ino)
            .expect("found or inserted above");
        node.shows = Some(version_ino);
        if node.file.as_ref().is_none_or(|file| !file.is_staged()) {
            node.attr = binding.attr;
        }
        self.attach(ino, binding.parent, binding.name.into());
        ino
    }

    /// The inode that a version's name is to lead to: another than the version's own while readers
    /// pass through the content that one has.
    fn fork_of(&self, version_ino: u64) -> u64 {
        let mut ino = version_ino;
        while let Some(node) = self.nodes.get(&ino).filter(|node| node.file.is_some())
            && let Some(fresh) = node.forked
        {
            ino = fresh;
        }
        ino
    }

    /// Makes a name lead to a directory, and tells its node's number.
    pub(crate) fn bind_dir(
        &mut self,
        binding: &Binding<'_>,
        bucket: &Bucket,
        path: &str,
        own: Option<&Arc<Bucket>>,
    ) -> u64 {
        if let Some(known) = self.child(binding.parent, binding.name) {
            let node = self.nodes.get_mut(&known).expect("invariant 1");
            let same_bucket = node.bucket.as_ref().map(|b| b.id) == own.map(|b| b.id);
            if node.attr.is_dir() && same_bucket {
                // The times of an unchanged marker are older than what is remembered of its
                // children.
                if node.shows != binding.shows {
                    node.attr = binding.attr;
                    node.shows = binding.shows;
                }
                return known;
            }
            self.unlink(known, Link::Superseded);
        }
        let ino = self.free_dir_ino(bucket.id, path);
        self.insert(ino, binding);
        let node = self.nodes.get_mut(&ino).expect("inserted above");
        node.bucket = own.cloned();
        self.attach(ino, binding.parent, binding.name.into());
        ino
    }

    /// Adds a node for a file that the store does not know under its name yet.
    pub(crate) fn add_file(&mut self, ino: u64, binding: &Binding<'_>, file: Arc<OpenFile>) {
        if let Some(known) = self.child(binding.parent, binding.name) {
            self.unlink(known, Link::Unlinked);
        }
        self.insert(ino, binding);
        self.nodes.get_mut(&ino).expect("inserted above").file = Some(file);
        self.attach(ino, binding.parent, binding.name.into());
    }

    /// Notes that the store has the node's content under its name now.
    pub(crate) fn published(&mut self, ino: u64, version_ino: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else {
            return;
        };
        node.shows = Some(version_ino);
        let (parent, name, link) = (node.parent, Arc::clone(&node.name), node.link);
        match link {
            Link::Linked => {
                let parent = self.nodes.get_mut(&parent).expect("invariant 2");
                parent.pending.remove(&name);
            }
            Link::Superseded => {
                if let Some(other) = self.child(parent, &name) {
                    self.unlink(other, Link::Superseded);
                }
                self.attach(ino, parent, name);
            }
            Link::Unlinked => {}
        }
    }

    /// Takes a node's name from it.
    pub(crate) fn unlink(&mut self, ino: u64, link: Link) {
        self.detach(ino);
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.link = link;
        }
        self.drop_unused(ino);
    }

    /// Gives a node another name, in the place of what had it.
    pub(crate) fn rename(&mut self, ino: u64, parent: u64, name: &str) {
        if let Some(replaced) = self.child(parent, name)
            && replaced != ino
        {
            self.unlink(replaced, Link::Unlinked);
        }
        self.detach(ino);
        self.attach(ino, parent, name.into());
    }

    /// Lets two nodes exchange their names.
    pub(crate) fn exchange(&mut self, one: u64, other: u64) {
        let name_of = |tree: &Self, ino| {
            let node: &Node = &tree.nodes[&ino];
            (node.parent, Arc::clone(&node.name))
        };
        let (one_at, other_at) = (name_of(self, one), name_of(self, other));
        self.detach(one);
        self.detach(other);
        self.attach(one, other_at.0, other_at.1);
        self.attach(other, one_at.0, one_at.1);
    }

    /// The linked children of a directory that no listing of the store has, after `after`.
    pub(crate) fn pending(&self, dir: u64) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.nodes
            .get(&dir)
            .into_iter()
            .flat_map(|node| node.pending.iter().map(|(name, ino)| (name, *ino)))
    }

    /// Notes a change of a directory's children.
    pub(crate) fn touch(&mut self, dir: u64, now: Timestamp) {
        if let Some(node) = self.nodes.get_mut(&dir) {
            node.attr.mtime = now;
            node.attr.ctime = now;
            node.version += 1;
        }
    }

    /// Sets an inode's attributes, which its directory's listings show too.
    pub(crate) fn set_attr(&mut self, ino: u64, attr: Attr) {
        let Some(node) = self.nodes.get_mut(&ino) else {
            return;
        };
        node.attr = attr;
        let parent = node.parent;
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.version += 1;
        }
    }

    /// Notes what a directory says of the cache.
    pub(crate) fn note_word(&mut self, dir: u64, word: Word) {
        if let Some(node) = self.nodes.get_mut(&dir) {
            node.word = Some(word);
        }
    }

    /// Counts that the kernel was told of a node.
    pub(crate) fn remember(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.lookups += 1;
        }
    }

    /// Takes back `count` of those.
    pub(crate) fn forget(&mut self, ino: u64, count: u64) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && ino != ROOT
        {
            node.lookups = node.lookups.saturating_sub(count);
            self.drop_unused(ino);
        }
    }

    /// Lets go of the state of open handles, once there are none.
    pub(crate) fn closed(&mut self, ino: u64) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.file = None;
            self.drop_unused(ino);
        }
    }

    /// Gives a node's name to a new node that shows the same version, `version_ino`.
    pub(crate) fn fork(&mut self, ino: u64, fresh: u64, version_ino: u64) {
        let Some(node) = self
            .nodes
            .get(&ino)
            .filter(|node| node.link == Link::Linked)
        else {
            return;
        };
        let (parent, name, attr) = (node.parent, Arc::clone(&node.name), node.attr);
        self.detach(ino);
        let node = self.nodes.get_mut(&ino).expect("found above");
        node.link = Link::Superseded;
        node.forked = Some(fresh);
        self.insert(
            fresh,
            &Binding {
                parent,
                name: &name,
                attr,
                shows: Some(version_ino),
            },
        );
        self.attach(fresh, parent, name);
    }

    /// All files that are open.
    pub(crate) fn open_files(&self) -> Vec<(u64, Arc<OpenFile>)> {
        let open = self
            .nodes
            .iter()
            .filter_map(|(ino, node)| Some((*ino, Arc::clone(node.file.as_ref()?))));
        open.collect()
    }

    /// Nodes that are open for writing and lost the name `(parent, name)` to an object put over S3.
    pub(crate) fn superseded_writers(&self, parent: u64, name: &str) -> Vec<u64> {
        let writers = self.nodes.iter().filter(|(_, node)| {
            node.link == Link::Superseded
                && node.file.is_some()
                && node.parent == parent
                && &*node.name == name
        });
        writers.map(|(ino, _)| *ino).collect()
    }

    fn insert(&mut self, ino: u64, binding: &Binding<'_>) {
        let node = Node::new(
            binding.parent,
            binding.name.into(),
            binding.attr,
            binding.shows,
        );
        let Slot::Vacant(slot) = self.nodes.entry(ino) else {
            unreachable!("inode {ino} is in use")
        };
        slot.insert(Node {
            link: Link::Unlinked,
            ..node
        });
        if let Some(parent) = self.nodes.get_mut(&binding.parent) {
            parent.child_count += 1;
        }
    }

    /// Takes a node out of its parent's children, if it is one of them.
    fn detach(&mut self, ino: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else {
            return;
        };
        if node.link != Link::Linked {
            return;
        }
        node.link = Link::Unlinked;
        let (parent, name) = (node.parent, Arc::clone(&node.name));
        let parent = self.nodes.get_mut(&parent).expect("invariant 2");
        parent.children.remove(&name);
        parent.pending.remove(&name);
    }

    /// Makes a detached node a child.
    fn attach(&mut self, ino: u64, parent: u64, name: Arc<str>) {
        let node = self.nodes.get_mut(&ino).expect("the caller has it");
        debug_assert_ne!(node.link, Link::Linked);
        let before = std::mem::replace(&mut node.parent, parent);
        node.name = Arc::clone(&name);
        node.link = Link::Linked;
        let pending = node.shows.is_none() && !node.attr.is_dir();
        if before != parent {
            self.nodes
                .get_mut(&parent)
                .expect("the caller has it")
                .child_count += 1;
        }
        let dir = self.nodes.get_mut(&parent).expect("the caller has it");
        if pending {
            dir.pending.insert(Arc::clone(&name), ino);
        }
        dir.children.insert(name, ino);
        if before != parent {
            self.left(before);
        }
    }

    /// Drops a node that nothing needs, and then those above it that only it needed.
    fn drop_unused(&mut self, ino: u64) {
        let Some(node) = self.nodes.get(&ino) else {
            return;
        };
        if node.lookups > 0 || node.child_count > 0 || node.file.is_some() || ino == ROOT {
            return;
        }
        self.detach(ino);
        if let Some(node) = self.nodes.remove(&ino) {
            self.left(node.parent);
        }
    }

    fn left(&mut self, parent: u64) {
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.child_count -= 1;
            self.drop_unused(parent);
        }
    }

    /// A number for a directory: a hash of what it is, or the next free one.
    fn free_dir_ino(&self, bucket: BucketId, path: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (bucket, path).hash(&mut hasher);
        let mut ino = hasher.finish() | DIRECTORY;
        while self.nodes.contains_key(&ino) {
            ino = ino.wrapping_add(1) | DIRECTORY;
        }
        ino
    }

    /// Stops the process if the tree's own figures contradict each other.
    #[cfg(test)]
    pub(crate) fn assert_consistent(&self) {
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for (ino, node) in &self.nodes {
            if *ino != ROOT {
                *counts.entry(node.parent).or_default() += 1;
            }
            let own = *ino == ROOT || self.child(node.parent, &node.name) == Some(*ino);
            assert_eq!(node.link == Link::Linked, own, "{ino}: {node:?}");
            for (name, child) in &node.children {
                assert_eq!(self.nodes[child].name, *name);
                let pending = self.nodes[child].shows.is_none() && !self.nodes[child].attr.is_dir();
                assert_eq!(node.pending.contains_key(name), pending);
            }
            assert!(
                node.pending
                    .keys()
                    .all(|name| node.children.contains_key(name))
            );
        }
        for (ino, node) in &self.nodes {
            assert_eq!(
                node.child_count,
                counts.get(ino).copied().unwrap_or(0),
                "{ino}"
            );
        }
    }
}

impl Node {
    fn new(parent: u64, name: Arc<str>, attr: Attr, shows: Option<u64>) -> Self {
        Self {
            parent,
            name,
            link: Link::Linked,
            attr,
            shows,
            bucket: None,
            file: None,
            word: None,
            version: 0,
            lookups: 0,
            children: HashMap::new(),
            pending: BTreeMap::new(),
            child_count: 0,
            forked: None,
        }
    }
}

#[cfg(test)]
mod tests;
