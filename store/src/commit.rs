//! The committer: one thread owns the connection that changes the index.
//!
//! It takes what is queued, runs one transaction with a savepoint for each operation, so that one
//! that fails undoes only itself, syncs the data, commits, puts what changed into the in-memory
//! caches, posts the changes, and wakes the callers: in that order, which is what makes reads
//! after writes true on both faces.
//!
//! The write-ahead log need not be synced where each operation of a batch put one small object: the
//! record before its bytes in the segment says all there is to say of it, and the next start makes
//! the change anew out of that ([`crate::replay`]). So such a batch waits for one sync, not two.
//!
//! # Invariants
//! 1. A durable operation is answered only after its data, the directories that name it and the
//!    write-ahead log were synced, in this order; or its data, where it is logged in its record.
//! 2. After a failed sync nothing is committed any more until the store is opened again.
//! 3. A data file is removed only after the commit that dropped the last reference to it is
//!    durable.
//! 4. No batch is logged in records while one before it is deferred: after a power cut the index
//!    would be as it was before the deferred one, and the records be applied to that.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::api::Face;
use crate::append::Appender;
use crate::disk::{Disk, DiskFile};
use crate::entry::{Bucket, BucketId, Entry, FileId};
use crate::error::{Error, IndexContext, IoContext, Result};
use crate::event::{Change, ChangeKind};
use crate::index::extent::{self, FileUse};
use crate::index::upload;
use crate::index::{self, Transaction};
use crate::limits::{COMMIT_BATCH_BYTES_MAX, COMMIT_BATCH_MAX, COMMIT_QUEUE_MAX};
use crate::name::ObjectKey;
use crate::shared::{DeadFile, Promise, Shared};
use crate::stage::FreshFile;
use crate::store::DirectoryLock;
use crate::write::Writer;

/// Operations after which the write-ahead log is copied into the index.
///
/// The log then begins anew, over what is in its file, and a sync of what is overwritten is faster
/// than one of what is appended: it is kept short.
const CHECKPOINT_OPERATIONS: usize = 1000;

/// What an operation did, to be made known once it is committed.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Keys and their new current entries.
    pub(crate) entries: Vec<(BucketId, ObjectKey, Option<Arc<Entry>>)>,
    /// Whether more keys changed than `entries` names.
    pub(crate) all_entries: bool,
    /// What to tell subscribers, without sequence.
    pub(crate) changes: Vec<(BucketId, Option<ObjectKey>, ChangeKind)>,
    /// Buckets made.
    pub(crate) buckets_made: Vec<Arc<Bucket>>,
    /// Buckets deleted.
    pub(crate) buckets_deleted: Vec<BucketId>,
    /// Whether accounts or keys changed.
    pub(crate) accounts: bool,
    /// Data files whose extents changed.
    pub(crate) files: Vec<(FileId, bool, FileUse)>,
    /// Directories to sync before the commit.
    pub(crate) dirs: Vec<PathBuf>,
    /// Data files to sync before the commit.
    pub(crate) sync_files: Vec<Arc<DiskFile>>,
    /// Data files to cut to a length after the commit, before anybody reads them.
    pub(crate) cut: Vec<(Arc<DiskFile>, u64)>,
    /// New data files that rows refer to once this is committed.
    pub(crate) fresh: Vec<FreshFile>,
    /// Versions committed before their bytes are synced, with their data files.
    pub(crate) unsynced: Vec<Arc<Entry>>,
}

impl Effects {
    /// More keys change than are worth naming. What was named before may be old now.
    pub(crate) fn forget_entries(&mut self) {
        self.entries.clear();
        self.all_entries = true;
    }

    fn append(&mut self, mut other: Self) {
        if other.all_entries {
            self.forget_entries();
        }
        self.entries.append(&mut other.entries);
        self.changes.append(&mut other.changes);
        self.buckets_made.append(&mut other.buckets_made);
        self.buckets_deleted.append(&mut other.buckets_deleted);
        self.accounts |= other.accounts;
        self.files.append(&mut other.files);
        self.dirs.append(&mut other.dirs);
        self.sync_files.append(&mut other.sync_files);
        self.cut.append(&mut other.cut);
        self.fresh.append(&mut other.fresh);
        self.unsynced.append(&mut other.unsynced);
    }
}

/// What an operation did, and which face asked for it.
pub(crate) type Done = (Face, Effects);

/// How a batch ended: the sequence of its last change, or why it was not committed.
type Outcome = std::result::Result<u64, Refusal>;

/// Why a batch was not committed. Each caller gets an error of its own made of it.
#[derive(Clone, Debug)]
enum Refusal {
    Full(PathBuf),
    SyncFailed(PathBuf),
    Index(String),
}

impl Refusal {
    fn error(&self) -> Error {
        match self {
            Self::Full(path) => {
                let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
                Error::Io {
                    action: "commit to",
                    path: path.clone(),
                    source,
                }
            }
            Self::SyncFailed(path) => Error::SyncFailedEarlier { path: path.clone() },
            Self::Index(text) => Error::IndexDamaged(text.clone()),
        }
    }
}

/// An operation in the queue.
trait Job: Send {
    /// Runs within a savepoint; false if it failed and is to be undone.
    fn run(&mut self, writer: &mut Writer<'_>) -> bool;
    /// Tells the caller.
    fn answer(self: Box<Self>, outcome: &Outcome);
}

struct Operation<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<(T, u64)>>,
}

impl<T: Send, F: FnOnce(&mut Writer<'_>) -> Result<T> + Send> Job for Operation<T, F> {
    fn run(&mut self, writer: &mut Writer<'_>) -> bool {
        let Some(work) = self.work.take() else {
            return false;
        };
        let result = catch_unwind(AssertUnwindSafe(|| work(writer)));
        let result =
            result.unwrap_or_else(|_| Err(Error::IndexDamaged("an operation panicked".to_owned())));
        let done = result.is_ok();
        self.result = Some(result);
        done
    }

    fn answer(self: Box<Self>, outcome: &Outcome) {
        let answer = match (self.result, outcome) {
            (Some(Err(err)), _) => Err(err),
            (Some(Ok(value)), Ok(sequence)) => Ok((value, *sequence)),
            (_, Err(refusal)) => Err(refusal.error()),
            (None, Ok(_)) => Err(Error::Closed),
        };
        // A caller that has gone away does not want to know.
        drop(self.reply.send(answer));
    }
}

struct Request {
    promise: Promise,
    /// Bytes that it appends at most, if it is to be logged.
    len: u64,
    face: Face,
    job: Box<dyn Job>,
}

enum Message {
    Run(Request),
    Stop,
}

/// The way to the committer.
#[derive(Clone, Debug)]
pub(crate) struct Committer {
    queue: mpsc::Sender<Message>,
}

/// An operation's answer: what it gave, and the sequence up to which changes are to be delivered.
pub(crate) type Reply<T> = oneshot::Receiver<Result<(T, u64)>>;

impl Committer {
    /// Takes no more operations; the thread ends when it has run what is queued.
    pub(crate) fn close(&self) {
        // If it fails the thread has ended already.
        drop(self.queue.blocking_send(Message::Stop));
    }

    /// Starts the thread.
    pub(crate) fn start(
        shared: Arc<Shared>,
        connection: Connection,
        appender: Appender,
        lock: DirectoryLock,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, requests) = mpsc::channel(COMMIT_QUEUE_MAX);
        let state = State {
            shared,
            connection,
            appender,
            since_checkpoint: 0,
            synchronous: None,
            _lock: lock,
        };
        let thread = std::thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || state.run(requests))?;
        Ok((Self { queue }, thread))
    }

    fn request<T, F>(promise: Promise, len: u64, face: Face, work: F) -> (Request, Reply<T>)
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Operation {
            work: Some(work),
            result: None,
            reply,
        });
        let request = Request {
            promise,
            len,
            face,
            job,
        };
        (request, answer)
    }

    /// Queues an operation and waits for its answer.
    pub(crate) async fn run<T, F>(&self, durable: bool, face: Face, work: F) -> Result<(T, u64)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        self.submit(promise(durable), 0, face, work).await
    }

    /// As [`run`](Self::run), of a durable operation that does nothing but publish one version
    /// whose bytes, at least one, it appends: with its record at most `len` bytes.
    pub(crate) async fn run_logged<T, F>(&self, len: u64, face: Face, work: F) -> Result<(T, u64)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        self.submit(Promise::Logged, len, face, work).await
    }

    async fn submit<T, F>(
        &self,
        promise: Promise,
        len: u64,
        face: Face,
        work: F,
    ) -> Result<(T, u64)>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let (request, answer) = Self::request(promise, len, face, work);
        self.queue
            .send(Message::Run(request))
            .await
            .map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// As [`run`](Self::run), from a thread that may block.
    pub(crate) fn run_blocking<T, F>(&self, durable: bool, face: Face, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Writer<'_>) -> Result<T> + Send + 'static,
    {
        let (request, answer) = Self::request(promise(durable), 0, face, work);
        self.queue
            .blocking_send(Message::Run(request))
            .map_err(|_| Error::Closed)?;
        answer
            .blocking_recv()
            .map_err(|_| Error::Closed)?
            .map(|(value, _)| value)
    }
}

fn promise(durable: bool) -> Promise {
    if durable {
        Promise::Synced
    } else {
        Promise::Deferred
    }
}

/// What the thread owns.
struct State {
    shared: Arc<Shared>,
    connection: Connection,
    appender: Appender,
    since_checkpoint: usize,
    /// The value of `PRAGMA synchronous` that is set.
    synchronous: Option<&'static str>,
    /// Keeps other processes out until this thread, the last to change anything, has ended.
    _lock: DirectoryLock,
}

impl State {
    fn run(mut self, mut requests: mpsc::Receiver<Message>) {
        let mut stopping = false;
        while !stopping && let Some(first) = requests.blocking_recv() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            let mut next = Some(first);
            while let Some(message) = next.take() {
                match message {
                    Message::Run(request) => {
                        bytes += request.len;
                        batch.push(request);
                    }
                    Message::Stop => stopping = true,
                }
                if batch.len() < COMMIT_BATCH_MAX && bytes < COMMIT_BATCH_BYTES_MAX {
                    next = requests.try_recv().ok();
                }
            }
            self.commit(batch);
            if self.since_checkpoint >= CHECKPOINT_OPERATIONS {
                self.checkpoint("PASSIVE");
            }
        }
        self.shared.index.close_readers();
        if self.shared.broken().is_none() {
            self.checkpoint("TRUNCATE");
        }
    }

    fn checkpoint(&mut self, mode: &str) {
        self.since_checkpoint = 0;
        let sql = format!("PRAGMA wal_checkpoint({mode})");
        if let Err(err) = self.connection.query_row(&sql, [], |_| Ok(())) {
            // The log stays, and is copied next time; commits fail by themselves if the disk is
            // bad.
            tracing::warn!(%err, "the write-ahead log could not be copied into the index");
        }
    }

    /// Commits a batch and answers everybody in it.
    fn commit(&mut self, mut batch: Vec<Request>) {
        if batch.is_empty() {
            return;
        }
        self.since_checkpoint += batch.len();
        let promise = self.promise(&batch);
        let mut done = Vec::with_capacity(batch.len());
        let outcome = match self.transact(&mut batch, promise, &mut done) {
            Ok(dead) => {
                let durable = promise == Promise::Synced || !self.shared.syncs;
                self.shared.dead_files.add(dead, durable);
                self.shared.unsynced.note_commit(promise);
                Ok(self.publish(done))
            }
            Err(err) => Err(self.refuse(&err, done)),
        };
        for request in batch {
            request.job.answer(&outcome);
        }
    }

    /// What is to make a batch good.
    fn promise(&self, batch: &[Request]) -> Promise {
        let shared = &self.shared;
        let all = |promise| batch.iter().all(|request| request.promise == promise);
        if !shared.syncs || all(Promise::Deferred) {
            return Promise::Deferred;
        }
        let len = batch.iter().map(|request| request.len).sum();
        let loggable = all(Promise::Logged)
            && !shared.unsynced.is_deferred()
            && !shared.ids.is_limit_near()
            && self.appender.has_room(len);
        if loggable {
            Promise::Logged
        } else {
            Promise::Synced
        }
    }

    /// Runs and commits a batch's operations; gives the data files that are dead then.
    fn transact(
        &mut self,
        batch: &mut [Request],
        promise: Promise,
        done: &mut Vec<Done>,
    ) -> Result<Vec<DeadFile>> {
        if let Some(path) = self.shared.broken() {
            return Err(Error::SyncFailedEarlier { path });
        }
        self.set_synchronous(promise)?;
        let transaction = Transaction::begin(&self.connection)?;
        let full = self.shared.space.refuses_growth(&self.shared);
        self.appender.begin_batch()?;
        for request in batch {
            let logs = self.appender.logs();
            transaction.begin_operation()?;
            let (connection, appender) = (&self.connection, &mut self.appender);
            let mut writer = Writer::new(&self.shared, connection, appender, promise, full);
            let kept = request.job.run(&mut writer);
            let effects = writer.into_effects();
            if kept {
                transaction.keep_operation()?;
                done.push((request.face, effects));
            } else {
                transaction.undo_operation()?;
                self.appender.take_back(logs)?;
            }
        }
        let dead = settle_files(&self.connection, &self.appender, done)?;
        let mut limit = None;
        if promise == Promise::Synced && !self.shared.unsynced.is_index_synced() {
            // SQLite syncs nothing for a transaction that changes nothing, and the commits before
            // this one wait for it.
            index::touch(&self.connection)?;
        }
        if promise != Promise::Logged {
            limit = self.shared.ids.persist(&self.connection)?;
        }
        if promise != Promise::Deferred {
            self.appender.sync()?;
            sync_data(&*self.shared.disk, done)?;
        }
        transaction.commit()?;
        // Before anything else can fail: what is answered must not be taken back.
        self.appender.end_batch();
        if let Some(limit) = limit {
            // Not before: a commit that a full disk refused leaves the old limit in the index.
            self.shared.ids.raise(limit);
        }
        Ok(dead)
    }

    /// Has the next commit sync the write-ahead log, or not.
    fn set_synchronous(&mut self, promise: Promise) -> Result<()> {
        let synchronous = match promise {
            _ if !self.shared.syncs => "OFF",
            Promise::Synced => "FULL",
            Promise::Logged | Promise::Deferred => "NORMAL",
        };
        if self.synchronous != Some(synchronous) {
            self.connection
                .pragma_update(None, "synchronous", synchronous)
                .index("set synchronous")?;
            self.synchronous = Some(synchronous);
        }
        Ok(())
    }

    /// Deals with a batch that was not committed; gives what its callers are told.
    fn refuse(&mut self, err: &Error, mut done: Vec<Done>) -> Refusal {
        let refusal = self.refusal(err);
        if !matches!(refusal, Refusal::Full(_)) {
            // Whether it is on the disk nobody knows: no file may go that a row may name.
            let fresh = done.iter_mut().flat_map(|(_, effects)| &mut effects.fresh);
            fresh.for_each(FreshFile::publish);
        }
        // The records of a batch that is refused must not bring its objects back at the next start.
        // Where its own sync has failed that can only be tried.
        if let Err(err) = self
            .appender
            .take_back(0)
            .and_then(|()| self.appender.sync())
        {
            return self.refusal(&err);
        }
        refusal
    }

    /// Why a batch failed; after a failed sync or a failed write of the index, so does every later
    /// one.
    fn refusal(&self, err: &Error) -> Refusal {
        use rusqlite::ErrorCode::{DiskFull, OperationInterrupted};
        match err {
            Error::Index {
                source: rusqlite::Error::SqliteFailure(failure, _),
                ..
            } if failure.code == DiskFull => {
                tracing::warn!("the disk is full: the changes of a batch are refused");
                Refusal::Full(self.shared.layout.index())
            }
            Error::Index {
                source: rusqlite::Error::SqliteFailure(failure, _),
                ..
            } if failure.code == OperationInterrupted => Refusal::Index(err.to_string()),
            Error::Io { path, source, .. } => {
                tracing::error!(%err, %source, "a sync failed: writes are refused until the store is opened again");
                self.shared.break_at(path);
                Refusal::SyncFailed(path.clone())
            }
            Error::SyncFailedEarlier { path } => Refusal::SyncFailed(path.clone()),
            _ => {
                tracing::error!(%err, source = ?std::error::Error::source(err), "the index failed: writes are refused until the store is opened again");
                self.shared.break_at(&self.shared.layout.index());
                Refusal::SyncFailed(self.shared.layout.index())
            }
        }
    }

    /// Makes a committed batch known; gives the sequence of its last change.
    fn publish(&mut self, effects: Vec<Done>) -> u64 {
        let mut sequence = self.shared.sequence.load(Ordering::Acquire);
        let mut all = Effects::default();
        let mut changes = Vec::new();
        for (face, mut effects) in effects {
            for (bucket, key, kind) in effects.changes.drain(..) {
                sequence += 1;
                changes.push(Change {
                    sequence,
                    bucket,
                    key,
                    kind,
                    face,
                });
            }
            all.append(effects);
        }
        self.shared.sequence.store(sequence, Ordering::Release);
        if all.accounts
            && let Err(err) = self.shared.load_accounts(&self.connection)
        {
            tracing::error!(%err, "the accounts could not be read again");
        }
        all.fresh.iter_mut().for_each(FreshFile::publish);
        for (file, len) in &all.cut {
            // Longer than its object the file is as readable, only not by the kernel alone.
            if let Err(err) = self.shared.disk.set_len(file, *len) {
                tracing::warn!(path = %file.path.display(), %err, "a completed upload's file could not be cut");
            }
        }
        self.shared
            .buckets
            .apply(&all.buckets_made, &all.buckets_deleted);
        for (bucket, key, entry) in all.entries {
            self.shared.entries.commit(bucket, &key, entry);
        }
        // After the ones above: a directory may have been moved to where a key was just removed.
        if all.all_entries {
            self.shared.entries.clear();
        }
        self.shared.feed.post(&changes);
        self.shared.unsynced.add(all.unsynced);
        sequence
    }
}

/// Syncs the files and directories that a batch's rows refer to.
fn sync_data(disk: &dyn Disk, done: &[Done]) -> Result<()> {
    for file in done.iter().flat_map(|(_, effects)| &effects.sync_files) {
        disk.sync_all(file).io("sync", &file.path)?;
    }
    let dirs: BTreeSet<&PathBuf> = done.iter().flat_map(|(_, effects)| &effects.dirs).collect();
    for dir in dirs {
        disk.sync_dir(dir).io("sync", dir)?;
    }
    Ok(())
}

/// Adds up what the operations did to data files; those that nothing lies in any more are dead.
pub(crate) fn settle_files(
    connection: &Connection,
    appender: &Appender,
    done: &[Done],
) -> Result<Vec<DeadFile>> {
    let mut dead = Vec::new();
    let mut sums: BTreeMap<FileId, (bool, FileUse)> = BTreeMap::new();
    for (id, packed, by) in done.iter().flat_map(|(_, effects)| &effects.files) {
        let (_, sum) = sums.entry(*id).or_insert((*packed, FileUse::default()));
        sum.size = sum.size.max(by.size);
        sum.live += by.live;
        sum.refs += by.refs;
    }
    for (id, (packed, by)) in sums {
        let after = extent::adjust_file(connection, id, packed, by)?;
        // Parts are still to come into an upload's file that has none at the moment.
        let filling = appender.active() == Some(id) || !packed && upload::has_file(connection, id)?;
        if after.refs == 0 && !filling {
            extent::remove_file(connection, id)?;
            dead.push(DeadFile { id, packed });
        }
    }
    Ok(dead)
}
