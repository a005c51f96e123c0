//! forebay's mount: objects as files, over FUSE.
//!
//! [`Mount::start`] mounts and serves; [`Mount::stop`] publishes what is still open and unmounts.
//! What each call of POSIX does here is in `SEMANTICS.md`.

mod attr;
mod change;
mod dir;
mod directive;
mod errno;
mod fs;
mod handle;
mod inode;
mod invalidate;
mod negotiate;
mod open;
mod opening;
mod passthrough;
mod path;
mod read;
mod recent;
mod rename;
mod reply;
mod session;
mod sys;
mod view;
mod write;
mod xattr;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use forebay_store::Files;
use forebay_store::api::Face;
use forebay_store::rule::directive::Directive;

use crate::fs::Fs;
use crate::session::Session;
pub use crate::session::{DEVICE, KIND};
use crate::view::View;

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// All buckets, as directories.
    All,
    /// A bucket, or what lies below a prefix in it.
    Bucket {
        /// Its name.
        name: String,
        /// The path of a directory in it; empty for all of it. A slash at the end does not matter.
        prefix: String,
    },
}

/// What `close(2)` of a file that was written to waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CloseMode {
    /// Nothing: the object is published at once and survives a power cut within a second.
    #[default]
    Deferred,
    /// Publication that survives a power cut, as after `fsync(2)`.
    Durable,
}

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountConfig {
    /// An existing directory.
    pub mountpoint: PathBuf,
    /// What to show there.
    pub source: Source,
    /// Whether changes are refused (`EROFS`).
    pub read_only: bool,
    /// Owner of what has no owner of its own.
    pub uid: u32,
    /// Group of what has no group of its own.
    pub gid: u32,
    /// Permission bits of files that have none of their own.
    pub file_mode: u32,
    /// Permission bits of directories that have none of their own.
    pub dir_mode: u32,
    /// Threads that answer the kernel; at least 2.
    pub threads: usize,
    /// What `close(2)` waits for.
    pub close: CloseMode,
    /// What is said of the cache for files of which nothing else says it.
    pub cache: Directive,
}

/// What can go wrong in mounting and unmounting.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel, or the directory to mount at, refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store refused.
    #[error("the store can't be mounted")]
    Store(#[from] forebay_store::Error),
}

/// How a mount ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// Files that were still open for writing, or could not be published when they were closed,
    /// and are published now.
    pub published: usize,
    /// Files whose last changes could not be published; the log has the reasons.
    pub lost: usize,
    /// Whether processes were still using the mount; they get `ENOTCONN` from now on.
    pub busy: bool,
}

/// A directory tree that is mounted and served.
#[derive(Debug)]
pub struct Mount {
    session: Session,
    view: Arc<View>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Mount {
    /// Mounts `files` and serves it until [`stop`](Self::stop); `runtime` runs what waits.
    ///
    /// The mount of a process that was killed is replaced.
    ///
    /// # Errors
    /// [`MountError::Io`]: `EPERM` without `CAP_SYS_ADMIN`, `ENOENT` without the directory or
    /// `/dev/fuse`. [`MountError::Store`]: no such bucket.
    pub fn start(
        config: MountConfig,
        files: Arc<dyn Files>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, MountError> {
        Self::start_as(DEVICE, config, files, runtime)
    }

    /// As [`start`](Self::start); the table of mounts shows `device` as what is mounted.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_as(
        device: &str,
        config: MountConfig,
        files: Arc<dyn Files>,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, MountError> {
        let (notices, to_send) = mpsc::channel();
        let changes = Arc::new(files.subscribe(Face::Mount));
        let view = Arc::new(View::new(&config, files, runtime, notices.clone())?);
        let fs = Fs::new(Arc::clone(&view));
        let (read_only, threads, path) = (config.read_only, config.threads, config.mountpoint);
        let io_error = |action, source| MountError::Io {
            action,
            path: path.clone(),
            source,
        };
        let (session, kernel) = Session::start((device, &path), read_only, threads, fs)
            .map_err(|err| io_error("mount", err))?;
        let stop = Arc::new(AtomicBool::new(false));
        let watch = {
            let (view, changes, stop) =
                (Arc::clone(&view), Arc::clone(&changes), Arc::clone(&stop));
            move || invalidate::watch(&view, &changes, &notices, &stop)
        };
        let notify = {
            let stop = Arc::clone(&stop);
            move || invalidate::notify(&kernel, &to_send, &changes, &stop)
        };
        let threads = [
            Builder::new().name("mount-watch".into()).spawn(watch),
            Builder::new().name("mount-notify".into()).spawn(notify),
        ];
        let mut mount = Self {
            session,
            view,
            stop,
            threads: Vec::new(),
        };
        for thread in threads {
            match thread {
                Ok(thread) => mount.threads.push(thread),
                Err(err) => {
                    mount.stop()?;
                    return Err(io_error("start a thread for", err));
                }
            }
        }
        Ok(mount)
    }

    /// Publishes what is still being written and unmounts, also under processes that use the mount.
    ///
    /// # Errors
    /// [`MountError::Io`] if the kernel does not let go of the mount.
    pub fn stop(self) -> Result<StopReport, MountError> {
        let path = self.session.mountpoint().to_owned();
        let io_error = |source| MountError::Io {
            action: "unmount",
            path: path.clone(),
            source,
        };
        let mut report = StopReport::default();
        match self.session.unmount() {
            Ok(()) => {}
            Err(err) if err.raw_os_error() == Some(libc::EBUSY) => {
                report.busy = true;
                publish_open(&self.view, &mut report);
                self.session.force().map_err(io_error)?;
            }
            Err(err) => return Err(io_error(err)),
        }
        self.session.join().map_err(io_error)?;
        // What was closed just now, or could not be published when it was.
        publish_open(&self.view, &mut report);
        self.stop.store(true, Ordering::Release);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the mount panicked");
            }
        }
        Ok(report)
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        self.session.mountpoint()
    }
}

/// Publishes all files that hold something new.
fn publish_open(view: &View, report: &mut StopReport) {
    let open = view.tree().open_files();
    report.lost = 0;
    for (ino, file) in open {
        match view.publish_now(&file) {
            Ok(published) => report.published += usize::from(published),
            Err(errno) => {
                report.lost += 1;
                tracing::error!(ino, err = %errno, "a file that was open could not be published");
            }
        }
    }
}
