//! A disk that keeps what was written apart from what was synced.
//!
//! Files are real files, so the store can map them. Beside them stands what the medium holds: of
//! each file the bytes at its last sync, of each directory the names. [`SimDisk::after_power_cut`]
//! makes a new disk of that and of a seeded part of the rest. The index's files come in by the
//! `SQLite` VFS of `vfs.rs` and obey the same rules.
//!
//! # Invariants
//! 1. A change reaches the medium by a sync of its file, a name by a sync of its directory, by
//!    nothing else but luck.
//! 2. A rename arrives whole or not at all, as on every journaling file system; a sync of its
//!    target's directory makes it arrive.
//! 3. What a failed sync did not write is never written: a later sync succeeds without it, as on
//!    Linux, where the pages count as clean then.
//! 4. Once the power is gone nothing changes any more, and every call fails.

pub(crate) mod image;
pub(crate) mod random;
mod state;
mod vfs;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_store::disk::{Disk, DiskFile, RealDisk};
use tempfile::TempDir;

use image::Change;
use random::Random;
pub(crate) use state::{Call, Fault, Script, SyncCall, SyncSite};
use state::{NodeId, State};

/// The simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// The machine's start that it is used in.
    boot_id: u64,
    state: Mutex<State>,
    /// Removed with the last clone; the store keeps one as long as it is open.
    _dir: TempDir,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A path as the medium knows it: below the root.
    fn below_root(&self, path: &Path) -> PathBuf {
        let below = path.strip_prefix(&self.root);
        below
            .unwrap_or_else(|_| panic!("{} is not on this disk", path.display()))
            .to_owned()
    }

    /// Takes in the bytes that came past this disk: a staging file is written by the kernel.
    fn look_again(&self, state: &mut State, id: NodeId) {
        if !state.is_foreign(id) {
            return;
        }
        let Some(path) = state.path_of(id) else {
            return;
        };
        let bytes =
            fs::read(self.root.join(path)).expect("a staging file is there until it is removed");
        let len = bytes.len() as u64;
        state.replace_changes(id, vec![Change::Write(0, bytes), Change::Len(len)]);
    }

    fn sync_file(&self, id: NodeId, site: &SyncSite) -> io::Result<()> {
        let mut state = self.lock();
        match state.sync_gate(site) {
            Ok(true) => {
                self.look_again(&mut state, id);
                state.sync_file(id, site.call);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(err) => {
                state.lose(id);
                Err(err)
            }
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let dir = self.below_root(path);
        let mut state = self.lock();
        if state.sync_gate(&SyncSite::new(SyncCall::Dir, &dir))? {
            state.sync_dir(&dir);
        }
        Ok(())
    }

    fn site(&self, call: SyncCall, path: &Path) -> SyncSite {
        SyncSite::new(call, &self.below_root(path))
    }
}

/// The next start of a machine.
static BOOT_IDS: AtomicU64 = AtomicU64::new(1);

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// A directory in memory if there is one: nothing here needs a real sync, and many files are made.
fn in_memory() -> io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        return tempfile::tempdir_in(memory);
    }
    tempfile::tempdir()
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new() -> Self {
        Self::over(State::default())
    }

    fn with(dir: TempDir, root: PathBuf, boot_id: u64, state: State) -> Self {
        let inner = Arc::new(Inner {
            root,
            boot_id,
            state: Mutex::new(state),
            _dir: dir,
        });
        vfs::register(&inner);
        Self(inner)
    }

    /// A disk that holds what the medium of `state` holds.
    fn over(mut state: State) -> Self {
        let dir = in_memory().expect("a temporary directory");
        let root = dir.path().canonicalize().expect("it was just made");
        state.write_out(&root).expect("room for a test's files");
        let boot_id = BOOT_IDS.fetch_add(1, Ordering::Relaxed);
        Self::with(dir, root, boot_id, state)
    }

    /// The directory that is the disk.
    pub(crate) fn root(&self) -> &Path {
        &self.0.root
    }

    /// Counts from here, and does from here what `script` says.
    pub(crate) fn follow(&self, script: Script) {
        self.0.lock().follow(script);
    }

    /// The syncs asked for since the script began, in their order.
    pub(crate) fn syncs(&self) -> Vec<SyncSite> {
        self.0.lock().syncs.clone()
    }

    /// Whether the script's stop or fault has come.
    pub(crate) fn struck(&self) -> bool {
        self.0.lock().struck
    }

    /// Whether the power is gone.
    pub(crate) fn is_off(&self) -> bool {
        self.0.lock().off
    }

    /// The disk as the next process finds it after this one was killed: what was written is there,
    /// and what was not synced is still to be.
    pub(crate) fn after_kill(&self) -> Self {
        let mut state = self.0.lock();
        state.off = true;
        for id in state.nodes() {
            self.0.look_again(&mut state, id);
        }
        let dir = in_memory().expect("a temporary directory");
        let root = dir.path().canonicalize().expect("it was just made");
        let after = state.carried_over(&self.0.root, &root);
        drop(state);
        let after = after.expect("room for a test's files");
        Self::with(dir, root, self.0.boot_id, after)
    }

    /// The disk as it is when the power comes back: what was synced, and of the rest what `seed`
    /// chooses. Seed 0 chooses nothing, seed 1 all.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut state = self.0.lock();
        state.off = true;
        for id in state.nodes() {
            self.0.look_again(&mut state, id);
        }
        let after = match seed {
            0 => state.after_power_cut(None),
            1 => state.with_everything(),
            _ => state.after_power_cut(Some(&mut Random::new(seed))),
        };
        drop(state);
        Self::over(after)
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        if path.is_dir() {
            return Ok(());
        }
        state.gate(Call::Create)?;
        RealDisk.create_dir(path)?;
        state.made_dir(&self.0.below_root(path));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<DiskFile>> {
        let mut state = self.0.lock();
        state.gate(Call::Create)?;
        let file = RealDisk.create(path)?;
        state.made_file(&self.0.below_root(path), inode(&file.file)?);
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<DiskFile>> {
        let mut state = self.0.lock();
        let file = RealDisk.open(path)?;
        state.opened(&self.0.below_root(path), inode(&file.file)?);
        Ok(file)
    }

    fn write_at(&self, file: &DiskFile, bufs: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        let id = state.node(inode(&file.file)?);
        let bytes = bufs.concat();
        if let Err(err) = state.gate(Call::Write) {
            // A write that fails may have got half way.
            if !state.off {
                let half = &bytes[..bytes.len() / 2];
                file.file.write_all_at(half, offset)?;
                state.changed(id, Change::Write(offset, half.to_vec()));
            }
            return Err(err);
        }
        RealDisk.write_at(file, &[&bytes], offset)?;
        state.changed(id, Change::Write(offset, bytes));
        Ok(())
    }

    fn allocate(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.gate(Call::Allocate)?;
        if file.file.metadata()?.len() < len {
            // Holes do: blocks that are only allocated read as zeros, too.
            file.file.set_len(len)?;
            let id = state.node(inode(&file.file)?);
            state.changed(id, Change::Len(len));
        }
        Ok(())
    }

    fn set_len(&self, file: &DiskFile, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        state.gate(Call::Write)?;
        file.file.set_len(len)?;
        let id = state.node(inode(&file.file)?);
        state.changed(id, Change::Len(len));
        Ok(())
    }

    fn copy(
        &self,
        from: &File,
        from_offset: u64,
        to: &DiskFile,
        to_offset: u64,
        len: u64,
    ) -> io::Result<()> {
        let mut state = self.0.lock();
        state.gate(Call::Write)?;
        RealDisk.copy(from, from_offset, to, to_offset, len)?;
        let mut bytes = vec![0; usize::try_from(len).expect("test files are small")];
        to.file.read_exact_at(&mut bytes, to_offset)?;
        let id = state.node(inode(&to.file)?);
        state.changed(id, Change::Write(to_offset, bytes));
        Ok(())
    }

    fn set_label(&self, file: &DiskFile, label: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock();
        state.gate(Call::Write)?;
        let id = state.node(inode(&file.file)?);
        state.labelled(id, label);
        Ok(())
    }

    fn sync_data(&self, file: &DiskFile) -> io::Result<()> {
        let id = self.0.lock().node(inode(&file.file)?);
        self.0
            .sync_file(id, &self.0.site(SyncCall::Data, &file.path))
    }

    fn sync_all(&self, file: &DiskFile) -> io::Result<()> {
        let id = self.0.lock().node(inode(&file.file)?);
        self.0
            .sync_file(id, &self.0.site(SyncCall::All, &file.path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.gate(Call::Rename)?;
        RealDisk.rename(from, to)?;
        state.renamed(&self.0.below_root(from), &self.0.below_root(to));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.gate(Call::Remove)?;
        RealDisk.remove(path)?;
        state.removed(&self.0.below_root(path));
        Ok(())
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64, u64)> {
        RealDisk.space(path)
    }

    fn boot_id(&self, _: &Path) -> Option<u64> {
        Some(self.0.boot_id)
    }

    fn vfs(&self) -> Option<&str> {
        Some(vfs::NAME)
    }
}

#[cfg(test)]
mod tests;
