//! The store: opening, closing, and its threads.

use std::fmt;
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::Semaphore;

use crate::api::Face;
use crate::append::Appender;
use crate::commit::Committer;
use crate::data::Layout;
use crate::disk::{Disk, RealDisk, Rng, SystemRng};
use crate::entry::{AccessKey, Account, Bucket, BucketId, Secret};
use crate::error::{Error, IoContext, Result};
use crate::index::{self, Index};
use crate::limits::{PACKED_SIZE_MAX, SEGMENT_SIZE_MAX, STAGE_BYTES_MAX, STAGE_WHOLE_BYTES_MAX};
use crate::md5_pool::Md5Pool;
use crate::multipart::OpenUploads;
use crate::name::AccountId;
use crate::shared::{Parts, Shared, Space, Stopping, lock};
use crate::stage::{Recycler, Stager};
use crate::time::{Clock, SystemClock};
use crate::{collect, flush, recover, sys};

/// Name of the account that owns what no other account does.
pub const ROOT_ACCOUNT: &str = "root";

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The data directory; made if it is not there.
    pub data: PathBuf,
    /// Whether anything is ever synced. Without, a power cut may lose everything.
    pub syncs: bool,
    /// Size of new segments, in bytes.
    pub segment_size: u64,
    /// Largest object kept in a segment, in bytes.
    pub packed_size_max: u64,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers.
    pub rng: Arc<dyn Rng>,
}

impl StoreOptions {
    /// A durable store in `data`, on the machine's own disk.
    pub fn new(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            syncs: true,
            segment_size: SEGMENT_SIZE_MAX,
            packed_size_max: PACKED_SIZE_MAX,
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
            rng: Arc::new(SystemRng),
        }
    }
}

/// A store that is open. Clones are handles to the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: Committer,
    pub(crate) uploads: Arc<OpenUploads>,
    pub(crate) recycler: Arc<Recycler>,
    pub(crate) root: AccountId,
    threads: Arc<Mutex<Option<Threads>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("data", &self.shared.layout.root())
            .finish_non_exhaustive()
    }
}

/// What ends with the store.
struct Threads {
    stop: Stop,
    committer: JoinHandle<()>,
    flusher: JoinHandle<()>,
    collector: JoinHandle<()>,
    /// `None` where bodies are hashed one at a time.
    hasher: Option<JoinHandle<()>>,
}

/// Tells the threads to stop, also when the last handle is dropped without [`Store::close`].
struct Stop {
    stopping: Arc<Stopping>,
    shared: Arc<Shared>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.stopping.set();
        self.shared.unsynced.wake();
    }
}

impl Store {
    /// Opens a store, and brings it to a consistent state after whatever happened to it.
    ///
    /// # Errors
    /// `Locked` if another process has it, `FormatTooNew`, `Io`, `Index`.
    pub fn open(options: StoreOptions) -> Result<Self> {
        let StoreOptions {
            data,
            syncs,
            segment_size,
            packed_size_max,
            disk,
            clock,
            rng,
        } = options;
        let layout = Layout::new(&data);
        make_directories(&layout, &*disk)?;
        let lock_file = take_lock(&layout)?;
        recover::require_index(&layout)?;
        let (index, connection) = Index::open(&layout.index(), disk.vfs())?;
        if syncs {
            disk.sync_dir(&data).io("sync", &data)?;
        }
        let (md5, hasher) = Md5Pool::start().io("start a thread for", &data)?;
        let stager = Stager {
            layout: layout.clone(),
            disk: Arc::clone(&disk),
            budget: Arc::new(Semaphore::new(STAGE_BYTES_MAX)),
            whole: Arc::new(Semaphore::new(STAGE_WHOLE_BYTES_MAX)),
            packed_size_max,
            md5,
        };
        let parts = Parts {
            layout: layout.clone(),
            disk,
            clock,
            rng,
            syncs,
            index,
            stager,
        };
        let shared = Arc::new(Shared::load(parts, &connection)?);
        let mut appender = Appender::new(layout, Arc::clone(&shared.disk), segment_size);
        recover::resume_segment(&shared, &connection, &mut appender)?;
        recover::remove_leftovers(&shared, &connection)?;
        Space::provide(&shared);
        let (committer, committing) =
            Committer::start(Arc::clone(&shared), connection, appender, lock_file)
                .io("start a thread for", &data)?;
        let (root, committing) = settle(&shared, &committer, committing)?;
        let stopping = Arc::new(Stopping::default());
        let flusher =
            flush::start(&shared, &committer, &stopping).io("start a thread for", &data)?;
        let collector =
            collect::start(&shared, &committer, &stopping).io("start a thread for", &data)?;
        let recycler = Arc::new(Recycler::new(Arc::clone(&shared.disk)));
        let threads = Threads {
            stop: Stop {
                stopping,
                shared: Arc::clone(&shared),
            },
            committer: committing,
            flusher,
            collector,
            hasher,
        };
        let threads = Arc::new(Mutex::new(Some(threads)));
        Ok(Self {
            shared,
            committer,
            uploads: Arc::default(),
            recycler,
            root,
            threads,
        })
    }

    /// Makes everything durable and ends the store's threads. Every other handle answers `Closed`
    /// afterwards.
    ///
    /// # Errors
    /// What the last sync gave.
    pub fn close(self) -> Result<()> {
        let Some(threads) = lock(&self.threads).take() else {
            return Ok(());
        };
        let flushed = flush::flush(&self.shared, &self.committer);
        drop(threads.stop);
        self.shared.stager.md5.close();
        let others = [threads.flusher, threads.collector];
        for thread in others.into_iter().chain(threads.hasher) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
        self.recycler.clear();
        self.committer.close();
        if threads.committer.join().is_err() {
            tracing::error!("the committer panicked");
        }
        flushed
    }

    /// All accounts and access keys.
    pub fn accounts(&self) -> (Vec<Arc<Account>>, Vec<AccessKey>) {
        self.shared.accounts.list()
    }

    /// The account that owns what no other account does.
    pub fn root_account(&self) -> &AccountId {
        &self.root
    }

    /// The bucket of this number, if there is one. Ready at once.
    pub fn bucket_by_id(&self, id: BucketId) -> Option<Arc<Bucket>> {
        self.shared.buckets.by_id(id)
    }

    /// Makes an account with a name of its own.
    ///
    /// # Errors
    /// `AccountExists`.
    pub fn create_account_blocking(&self, name: &str) -> Result<Account> {
        create_account(&self.shared, &self.committer, name)
    }

    /// Removes an account that owns no bucket, and its keys.
    ///
    /// # Errors
    /// `NoSuchAccount`; `InvalidRequest` if it owns buckets, or is the root account.
    pub fn remove_account_blocking(&self, id: &AccountId) -> Result<()> {
        if *id == self.root {
            return Err(Error::InvalidRequest("the root account can't be removed"));
        }
        let id = id.clone();
        self.committer.run_blocking(true, Face::S3, move |writer| {
            writer.effects.change_accounts();
            index::account::remove(writer.connection, &id)
        })
    }

    /// Makes an access key for an account: id and secret as given, else random.
    ///
    /// # Errors
    /// `NoSuchAccount`, `AccountExists` if the id is taken.
    pub fn create_key_blocking(
        &self,
        account: &AccountId,
        given: Option<(String, Secret)>,
    ) -> Result<AccessKey> {
        let (id, secret) = given.unwrap_or_else(|| random_key(&*self.shared.rng));
        let key = AccessKey {
            id,
            secret,
            account: account.clone(),
            created_at: self.shared.clock.now(),
        };
        let made = key.clone();
        self.committer.run_blocking(true, Face::S3, move |writer| {
            writer.effects.change_accounts();
            index::account::insert_key(writer.connection, &key)
        })?;
        Ok(made)
    }

    /// Removes an access key.
    ///
    /// # Errors
    /// `NoSuchAccount`.
    pub fn remove_key_blocking(&self, id: &str) -> Result<()> {
        let id = id.to_owned();
        self.committer.run_blocking(true, Face::S3, move |writer| {
            writer.effects.change_accounts();
            index::account::remove_key(writer.connection, &id)
        })
    }
}

pub(crate) fn make_directories(layout: &Layout, disk: &dyn Disk) -> Result<()> {
    let make = |path: &Path| disk.create_dir(path).io("make", path);
    make(layout.root())?;
    for dir in [layout.segments(), layout.staging(), layout.files()] {
        make(&dir)?;
    }
    let fans: Vec<PathBuf> = layout.file_dirs().collect();
    let missing: Vec<_> = fans.iter().filter(|dir| !dir.is_dir()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.into_iter().try_for_each(|dir| make(dir))?;
    for dir in [layout.files(), layout.root().to_owned()] {
        disk.sync_dir(&dir).io("sync", &dir)?;
    }
    // The data directory's own name is its parent's to keep.
    match layout
        .root()
        .canonicalize()
        .io("find", layout.root())?
        .parent()
    {
        Some(parent) => disk.sync_dir(parent).io("sync", parent),
        None => Ok(()),
    }
}

/// Keeps other processes out of a data directory until it is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock(std::fs::File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is just being started has the file too.
        if let Err(err) = self.0.unlock() {
            tracing::warn!(%err, "the data directory could not be unlocked");
        }
    }
}

pub(crate) fn take_lock(layout: &Layout) -> Result<DirectoryLock> {
    let path = layout.lock();
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let file = options.open(&path).io("open", &path)?;
    if sys::try_lock(file.as_raw_fd()).io("lock", &path)? {
        Ok(DirectoryLock(file))
    } else {
        Err(Error::Locked {
            path: layout.root().to_owned(),
        })
    }
}

/// Settles what the last run has left, and finds the root account.
///
/// If that fails the committer has ended: it holds the lock of the data directory.
fn settle(
    shared: &Arc<Shared>,
    committer: &Committer,
    committing: JoinHandle<()>,
) -> Result<(AccountId, JoinHandle<()>)> {
    let settled = recover::settle_unsynced(shared, committer);
    match settled.and_then(|()| root_account(shared, committer)) {
        Ok(root) => Ok((root, committing)),
        Err(err) => {
            committer.close();
            if committing.join().is_err() {
                tracing::error!("the committer panicked");
            }
            Err(err)
        }
    }
}

/// The root account, made when the store is opened for the first time.
fn root_account(shared: &Shared, committer: &Committer) -> Result<AccountId> {
    let (accounts, _) = shared.accounts.list();
    match accounts.iter().find(|account| account.name == ROOT_ACCOUNT) {
        Some(root) => Ok(root.id.clone()),
        None => Ok(create_account(shared, committer, ROOT_ACCOUNT)?.id),
    }
}

fn create_account(shared: &Shared, committer: &Committer, name: &str) -> Result<Account> {
    let mut bytes = [0; 32];
    shared.rng.fill(&mut bytes);
    let id = AccountId::new(&hex::encode(bytes));
    let account = Account {
        id,
        name: name.to_owned(),
        created_at: shared.clock.now(),
    };
    let made = account.clone();
    committer.run_blocking(true, Face::S3, move |writer| {
        writer.effects.change_accounts();
        index::account::insert(writer.connection, &account)
    })?;
    Ok(made)
}

/// An access key id of 20 characters and a secret of 40, as AWS's are.
fn random_key(rng: &dyn Rng) -> (String, Secret) {
    const ID: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const SECRET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = [0_u8; 56];
    rng.fill(&mut bytes);
    let (id, secret) = bytes.split_at(16);
    let id = id.iter().map(|byte| char::from(ID[usize::from(byte % 32)]));
    let secret = secret
        .iter()
        .map(|byte| char::from(SECRET[usize::from(byte % 64)]));
    ("FBAK".chars().chain(id).collect(), Secret(secret.collect()))
}
