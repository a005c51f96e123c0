//! What the medium holds, what it does not hold yet, and what is to go wrong.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use forebay_store::disk::{Disk, DiskFile, RealDisk};

use super::image::{Change, Image};
use super::random::Random;

/// A file's number on this disk; never used twice, as inode numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(usize);

#[derive(Clone, Debug, Default)]
struct Node {
    /// What the medium holds of it.
    image: Image,
    /// What was done since, in order.
    changes: Vec<Change>,
    label: Option<Vec<u8>>,
    /// Whether bytes come past this disk.
    foreign: bool,
    /// Whether a sync failed; the bytes it was for stay away.
    lost: bool,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Dir,
    File(NodeId),
}

/// A change of names that waits for its directory's sync.
#[derive(Clone, Debug)]
struct NameChange {
    /// Whose sync makes it arrive.
    dir: PathBuf,
    unset: Option<(PathBuf, Slot)>,
    set: Option<(PathBuf, Slot)>,
}

/// Calls that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Writes, cuts and extensions of files, and their labels.
    Write,
    /// Syncs of files and directories.
    Sync,
    /// Files and directories being made.
    Create,
    /// Space being set aside.
    Allocate,
    /// Removals.
    Remove,
    /// Renames.
    Rename,
}

/// A call that fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// Which calls count.
    pub(crate) calls: &'static [Call],
    /// Which of them fails, from 1.
    pub(crate) nth: usize,
    /// With which error.
    pub(crate) errno: i32,
    /// Whether all later ones fail, too.
    pub(crate) lasting: bool,
}

/// Which system call a sync is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SyncCall {
    /// `fdatasync` of a file.
    Data,
    /// `fsync` of a file.
    All,
    /// `fsync` of a directory.
    Dir,
}

/// A place in the store's protocol where it syncs: the call, and what kind of file it is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SyncSite {
    pub(crate) call: SyncCall,
    /// The path below the root, numbers as `*`.
    pub(crate) what: String,
}

impl SyncSite {
    pub(super) fn new(call: SyncCall, path: &Path) -> Self {
        let names = path.iter().map(|name| {
            let name = name.to_str().expect("the store's names are text");
            let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
            let number = stem.bytes().all(|b| b.is_ascii_hexdigit());
            match (number, extension) {
                (false, _) => name.to_owned(),
                (true, "") => "*".to_owned(),
                (true, extension) => format!("*.{extension}"),
            }
        });
        let what = names.collect::<Vec<_>>().join("/");
        Self { call, what }
    }
}

/// What is to go wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Script {
    /// At which sync the power goes, from 1: that sync has not happened.
    pub(crate) stop_at_sync: Option<usize>,
    /// Which call fails.
    pub(crate) fault: Option<Fault>,
    /// Which syncs only seem to happen.
    pub(crate) skip: Option<SyncSite>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    nodes: Vec<Node>,
    /// Live names of files.
    names: BTreeMap<PathBuf, NodeId>,
    by_inode: HashMap<u64, NodeId>,
    /// The medium's names.
    durable: BTreeMap<PathBuf, Slot>,
    name_changes: Vec<NameChange>,
    script: Script,
    counted: usize,
    pub(super) syncs: Vec<SyncSite>,
    pub(super) struck: bool,
    pub(super) off: bool,
}

fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn dir_of(path: &Path) -> PathBuf {
    path.parent().expect("the root has no name").to_owned()
}

impl State {
    pub(super) fn follow(&mut self, script: Script) {
        self.script = script;
        self.counted = 0;
        self.syncs.clear();
        self.struck = false;
    }

    /// Lets a call pass, or fails it.
    pub(super) fn gate(&mut self, call: Call) -> io::Result<()> {
        if self.off {
            return Err(gone());
        }
        let Some(fault) = self.script.fault else {
            return Ok(());
        };
        if !fault.calls.contains(&call) {
            return Ok(());
        }
        self.counted += 1;
        let fails = self.counted == fault.nth || (fault.lasting && self.counted > fault.nth);
        if !fails {
            return Ok(());
        }
        self.struck = true;
        Err(io::Error::from_raw_os_error(fault.errno))
    }

    /// As [`gate`](Self::gate), for a sync; false if it is to be skipped.
    pub(super) fn sync_gate(&mut self, site: &SyncSite) -> io::Result<bool> {
        if self.off {
            return Err(gone());
        }
        self.syncs.push(site.clone());
        if self.script.stop_at_sync == Some(self.syncs.len()) {
            self.off = true;
            self.struck = true;
            return Err(gone());
        }
        self.gate(Call::Sync)?;
        Ok(self.script.skip.as_ref() != Some(site))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The file of an inode number.
    pub(super) fn node(&self, inode: u64) -> NodeId {
        let found = self.by_inode.get(&inode);
        *found.expect("a file is made or opened before it is changed")
    }

    pub(super) fn path_of(&self, id: NodeId) -> Option<&Path> {
        let mut names = self.names.iter();
        names
            .find(|(_, node)| **node == id)
            .map(|(path, _)| path.as_path())
    }

    pub(super) fn node_at(&self, path: &Path) -> Option<NodeId> {
        self.names.get(path).copied()
    }

    pub(super) fn is_foreign(&self, id: NodeId) -> bool {
        let node = &self.nodes[id.0];
        node.foreign && !node.lost
    }

    pub(super) fn made_dir(&mut self, path: &Path) {
        self.name_changes.push(NameChange {
            dir: dir_of(path),
            unset: None,
            set: Some((path.to_owned(), Slot::Dir)),
        });
    }

    pub(super) fn made_file(&mut self, path: &Path, inode: u64) -> NodeId {
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node {
            foreign: path.iter().any(|name| name == "staging"),
            ..Node::default()
        });
        self.by_inode.insert(inode, id);
        self.names.insert(path.to_owned(), id);
        self.name_changes.push(NameChange {
            dir: dir_of(path),
            unset: None,
            set: Some((path.to_owned(), Slot::File(id))),
        });
        id
    }

    /// Notes the inode number of a file that is there; takes in one that was made past this disk.
    pub(super) fn opened(&mut self, path: &Path, inode: u64) -> NodeId {
        if let Some(id) = self.node_at(path) {
            self.by_inode.insert(inode, id);
            return id;
        }
        let id = self.made_file(path, inode);
        self.nodes[id.0].foreign = true;
        id
    }

    pub(super) fn changed(&mut self, id: NodeId, change: Change) {
        self.nodes[id.0].changes.push(change);
    }

    pub(super) fn replace_changes(&mut self, id: NodeId, changes: Vec<Change>) {
        self.nodes[id.0].changes = changes;
    }

    pub(super) fn labelled(&mut self, id: NodeId, label: &[u8]) {
        self.nodes[id.0].label = Some(label.to_vec());
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        let id = self.names.remove(from).expect("a file that was renamed");
        self.names.insert(to.to_owned(), id);
        self.name_changes.push(NameChange {
            dir: dir_of(to),
            unset: Some((from.to_owned(), Slot::File(id))),
            set: Some((to.to_owned(), Slot::File(id))),
        });
    }

    pub(super) fn removed(&mut self, path: &Path) {
        let Some(id) = self.names.remove(path) else {
            return;
        };
        self.name_changes.push(NameChange {
            dir: dir_of(path),
            unset: Some((path.to_owned(), Slot::File(id))),
            set: None,
        });
    }

    pub(super) fn sync_file(&mut self, id: NodeId, call: SyncCall) {
        let node = &mut self.nodes[id.0];
        for change in node.changes.drain(..) {
            node.image.apply(&change);
        }
        if call == SyncCall::All
            && let Some(label) = node.label.take()
        {
            node.image.label = Some(label);
        }
    }

    pub(super) fn label_at(&self, path: &Path) -> Option<Vec<u8>> {
        let node = self.names.get(path)?;
        self.nodes[node.0].image.label.clone()
    }

    /// A sync of the file failed: what it was to write is written by no other.
    pub(super) fn lose(&mut self, id: NodeId) {
        let off = self.off;
        let node = &mut self.nodes[id.0];
        if !off {
            node.changes.clear();
            node.lost = true;
        }
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let changes = std::mem::take(&mut self.name_changes);
        let (arrive, wait) = changes.into_iter().partition(|change| change.dir == dir);
        self.name_changes = wait;
        let arrive: Vec<NameChange> = arrive;
        for change in &arrive {
            self.arrive(change);
        }
    }

    fn arrive(&mut self, change: &NameChange) {
        if let Some((path, slot)) = &change.unset
            && self.durable.get(path) == Some(slot)
        {
            self.durable.remove(path);
        }
        if let Some((path, slot)) = &change.set {
            self.durable.insert(path.clone(), *slot);
        }
    }

    /// The medium with all that was done.
    pub(super) fn with_everything(&self) -> Self {
        let mut after = self.clone();
        for change in std::mem::take(&mut after.name_changes) {
            after.arrive(&change);
        }
        for id in after.nodes() {
            after.sync_file(id, SyncCall::All);
        }
        after.settled()
    }

    /// The medium with some of what was not synced; with nothing of it if no luck is given.
    pub(super) fn after_power_cut(&self, luck: Option<&mut Random>) -> Self {
        let mut after = self.clone();
        let changes = std::mem::take(&mut after.name_changes);
        let Some(random) = luck else {
            return after.settled();
        };
        // A journal keeps the first changes of names; other designs keep any of them.
        let first = random.once_in(2).then(|| random.below(changes.len() + 1));
        for (index, change) in changes.iter().enumerate() {
            if first.map_or_else(|| random.once_in(2), |first| index < first) {
                after.arrive(change);
            }
        }
        for node in &mut after.nodes {
            let changes = std::mem::take(&mut node.changes);
            if !changes.is_empty() {
                node.image = node.image.after_power_cut(&changes, random);
            }
            if node.label.is_some() && random.once_in(2) {
                node.image.label = node.label.take();
            }
        }
        after.settled()
    }

    /// A fresh state of what the medium holds: names whose directory is there, and their files.
    fn settled(self) -> Self {
        let mut fresh = Self::default();
        for (path, slot) in &self.durable {
            let dir = dir_of(path);
            let reachable = dir.as_os_str().is_empty() || fresh.durable.contains_key(&dir);
            if !reachable {
                continue;
            }
            let slot = match slot {
                Slot::Dir => Slot::Dir,
                Slot::File(id) => {
                    let fresh_id = NodeId(fresh.nodes.len());
                    fresh.nodes.push(Node {
                        image: self.nodes[id.0].image.clone(),
                        ..Node::default()
                    });
                    fresh.names.insert(path.clone(), fresh_id);
                    Slot::File(fresh_id)
                }
            };
            fresh.durable.insert(path.clone(), slot);
        }
        fresh
    }

    /// The same state for another process: all files, as they are below `from`, made below `to`.
    pub(super) fn carried_over(&self, from: &Path, to: &Path) -> io::Result<Self> {
        let mut after = self.clone();
        after.off = false;
        after.follow(Script::default());
        after.by_inode.clear();
        let made = self
            .name_changes
            .iter()
            .filter_map(|change| change.set.as_ref());
        let all = self
            .durable
            .iter()
            .chain(made.map(|(path, slot)| (path, slot)));
        let mut dirs: Vec<&PathBuf> = all
            .filter(|(_, slot)| **slot == Slot::Dir)
            .map(|(path, _)| path)
            .collect();
        dirs.sort();
        for dir in dirs {
            RealDisk.create_dir(&to.join(dir))?;
        }
        for (path, id) in &self.names {
            std::fs::copy(from.join(path), to.join(path))?;
            let file = RealDisk.open(&to.join(path))?;
            after.by_inode.insert(super::inode(&file.file)?, *id);
        }
        Ok(after)
    }

    /// Makes the medium's files below `root`.
    pub(super) fn write_out(&mut self, root: &Path) -> io::Result<()> {
        for (path, slot) in &self.durable {
            let path = root.join(path);
            let Slot::File(id) = slot else {
                RealDisk.create_dir(&path)?;
                continue;
            };
            let image = &self.nodes[id.0].image;
            let file = RealDisk.create(&path)?;
            write_image(&file, image)?;
            self.by_inode.insert(super::inode(&file.file)?, *id);
        }
        Ok(())
    }
}

fn write_image(file: &DiskFile, image: &Image) -> io::Result<()> {
    RealDisk.write_at(file, &[&image.data], 0)?;
    RealDisk.set_len(file, image.len)
}
