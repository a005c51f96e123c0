//! Settings become running parts, and running parts end in order.
//!
//! # Invariants
//! 1. What is used ends after what uses it: S3 first (accept no more, finish what is in flight),
//!    then the mount (publish, unmount), then the administration sockets, then the cache, then the
//!    store.
//! 2. A part that can't start ends those that were started before it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use forebay_cache::Directive;
use forebay_mount::{CloseMode, DEVICE, Mount, MountConfig, Source};
use forebay_server::{Server, ServerConfig};
use forebay_store::entry::Secret;
use forebay_store::{Files, Store, StoreOptions};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::admin::MountShown;
use crate::cli::{Close, Compat, Durability, MountSource, ServeArgs};
use crate::guard::Guard;
use crate::sign::Key;
use crate::tier::{RunningTier, TierDisk};
use crate::{admin, mounted, mountpoint, node, port};

/// How a server came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All parts ended in order.
    Stopped,
    /// A second signal, of this number, cut that short.
    Abandoned(u8),
}

/// Runs a server until a signal ends it; `ready` is told where it listens.
pub(crate) fn serve(
    data: &Path,
    args: &ServeArgs,
    root: Key,
    ready: impl FnOnce(SocketAddr),
) -> Result<End> {
    if let Some(dir) = &args.mount {
        mountpoint::prepare(dir)?;
    }
    let runtime = runtime(args.threads)?;
    let store = open(data, args)?;
    set_root_key(&store, root)?;
    let disk = TierDisk::open(&args.node.cache, data)?;
    let end = runtime.block_on(async {
        let mut signals = Signals::listen().context("listen for signals")?;
        let parts = Parts::start(data, args, &store, disk).await?;
        ready(parts.server.local_addr());
        parts.run(&mut signals).await
    });
    // After a second signal nobody waits for a thread that may be stuck.
    runtime.shutdown_background();
    if let Ok(End::Abandoned(_)) = end {
        return end;
    }
    store.close().context("close the store")?;
    end
}

/// How long a start waits for another process to let go of the data directory.
const LOCK_WAIT: Duration = Duration::from_secs(2);

fn open(data: &Path, args: &ServeArgs) -> Result<Store> {
    let mut options = StoreOptions::new(data);
    options.syncs = args.durability == Durability::Full;
    let give_up = Instant::now() + LOCK_WAIT;
    loop {
        match Store::open(options.clone()) {
            // One that was killed may still be ending.
            Err(forebay_store::Error::Locked { .. }) if Instant::now() < give_up => {
                std::thread::sleep(LOCK_WAIT / 10);
            }
            opened => {
                return opened
                    .with_context(|| format!("cannot open the store in {}", data.display()));
            }
        }
    }
}

/// Sees to it that the root account has this key.
fn set_root_key(store: &Store, root: Key) -> Result<()> {
    let (_, keys) = store.accounts();
    if let Some(known) = keys.into_iter().find(|key| key.id == root.id) {
        if known.account != *store.root_account() {
            bail!(
                "the root key can't be {}: that is a key of another account",
                root.id
            );
        }
        if known.secret.0 == root.secret {
            return Ok(());
        }
        store.remove_key_blocking(&root.id)?;
    }
    let given = Some((root.id, Secret(root.secret)));
    store
        .create_key_blocking(store.root_account(), given)
        .context("set the root key")?;
    Ok(())
}

pub(crate) fn runtime(threads: Option<u16>) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.into());
    }
    builder.enable_all().build().context("start the threads")
}

/// SIGTERM and Ctrl-C.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.terminate.recv() => 15,
            _ = self.interrupt.recv() => 2,
        }
    }
}

/// A mount, and its guard where one could be started.
pub(crate) type Mounted = (Mount, Option<Guard>);

/// What runs.
struct Parts {
    store: Store,
    tier: Option<RunningTier>,
    server: Server,
    mount: Option<Mounted>,
    admin: JoinHandle<()>,
}

impl Parts {
    async fn start(
        data: &Path,
        args: &ServeArgs,
        store: &Store,
        disk: Option<TierDisk<'_>>,
    ) -> Result<Self> {
        let shown = match (&args.mount, &args.mount_source) {
            (None, _) => MountShown::Nothing,
            (Some(_), None) => MountShown::Buckets,
            (Some(_), Some(source)) => source.into(),
        };
        let tier = disk.map(|disk| disk.start(store, shown)).transpose()?;
        let config = server_config(args)?;
        let (server, files): (_, Arc<dyn Files>) = match &tier {
            None => {
                let bound = Server::bind(config, Arc::new(store.clone())).await;
                (bound.map_err(Error::from), Arc::new(store.clone()))
            }
            Some(tier) => (tier.bind(config).await, tier.files()),
        };
        let server = server.map_err(|err| explain_bind(err, args.listen))?;
        let admin = admin::socket::Listener::bind(data)?;
        let mount = match &args.mount {
            Some(dir) => {
                let cache_dir = args.node.cache.cache_dir.as_deref();
                Some(start_mount(mount_config(dir, args)?, files, cache_dir).await?)
            }
            None => None,
        };
        let asked = store.clone();
        let admin = admin.serve(Arc::new(move |request| admin::perform(&asked, request)));
        let admin = tokio::spawn(admin);
        let store = store.clone();
        Ok(Self {
            store,
            tier,
            server,
            mount,
            admin,
        })
    }

    /// Serves until a signal comes or S3 fails, then ends all parts.
    async fn run(self, signals: &mut Signals) -> Result<End> {
        let Self {
            store,
            tier,
            server,
            mount,
            admin,
        } = self;
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = tokio::spawn(server.serve(async {
            // An error means that the sender was dropped, which is how it is told.
            drop(stopped.await);
        }));
        let failed = tokio::select! {
            _ = signals.next() => None,
            ended = &mut serving => Some(ended),
        };
        drop(stop);
        let end = async {
            let served = match failed {
                Some(ended) => ended,
                None => serving.await,
            };
            let unmounted = spawn_blocking(|| mount.map_or(Ok(()), stop_mount)).await;
            admin.abort();
            // Cancelled is what it is now; it took its socket away.
            drop(admin.await);
            if let Some(tier) = tier {
                tier.stop().await;
            }
            let closed = spawn_blocking(|| store.close()).await;
            served??;
            unmounted??;
            closed?.context("close the store")
        };
        tokio::select! {
            ended = end => ended.map(|()| End::Stopped),
            number = signals.next() => Ok(End::Abandoned(number)),
        }
    }
}

fn server_config(args: &ServeArgs) -> Result<ServerConfig> {
    Ok(ServerConfig {
        listen: args.listen,
        base_domains: args.base_domain.clone(),
        region: args.region.clone(),
        compat: match args.compat {
            Compat::Forebay => forebay_server::Compat::Forebay,
            Compat::Aws => forebay_server::Compat::Aws,
            Compat::Coreweave => forebay_server::Compat::Coreweave,
            Compat::Wasabi => forebay_server::Compat::Wasabi,
        },
        cluster_key: node::cluster_key(args.node.cache.cluster_key_file.as_deref())?,
    })
}

/// A port in use is what newcomers meet; it deserves more than the system's word.
pub(crate) fn explain_bind(err: Error, listen: SocketAddr) -> Error {
    let causes = err
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    let mut kinds = causes.map(io::Error::kind);
    if !kinds.any(|kind| kind == io::ErrorKind::AddrInUse) {
        return err;
    }
    let by = port::listener(listen.port()).map_or(String::new(), |who| format!(" by {who}"));
    let mut other = listen;
    other.set_port(listen.port().checked_add(10).unwrap_or(0));
    anyhow!("{listen} is in use{by}. Choose another with --listen, e.g. --listen {other}")
}

/// Permissions of what has none of its own, as programs make files with the usual umask.
const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;
/// Of the threads that answer the kernel, so that one that waits does not stop the others.
const MOUNT_THREADS_MIN: usize = 2;

pub(crate) fn mount_config(dir: &Path, args: &ServeArgs) -> Result<MountConfig> {
    let close = match args.close {
        Close::Deferred => CloseMode::Deferred,
        Close::Durable => CloseMode::Durable,
    };
    let source = args.mount_source.as_ref().map_or(Source::All, source);
    Ok(MountConfig {
        cache: args.mount_cache.into(),
        ..usual_mount(dir, source, close)?
    })
}

/// A mount for whoever runs this, with permissions as programs give them.
pub(crate) fn usual_mount(dir: &Path, source: Source, close: CloseMode) -> Result<MountConfig> {
    // The directory of a process belongs to its effective user and group.
    let own = fs::metadata("/proc/self").context("stat /proc/self")?;
    let processors = available_parallelism().map_or(MOUNT_THREADS_MIN, usize::from);
    Ok(MountConfig {
        mountpoint: dir.to_owned(),
        source,
        read_only: false,
        uid: own.uid(),
        gid: own.gid(),
        file_mode: FILE_MODE,
        dir_mode: DIR_MODE,
        threads: processors.max(MOUNT_THREADS_MIN),
        close,
        cache: Directive::default(),
    })
}

/// Mounting waits for the kernel and for the index, which no async worker may. Of a mount that is
/// read by way of a cache the table of mounts tells where that is.
pub(crate) async fn start_mount(
    config: MountConfig,
    files: Arc<dyn Files>,
    cache_dir: Option<&Path>,
) -> Result<Mounted> {
    let runtime = Handle::current();
    let place = config.mountpoint.display().to_string();
    let device = cache_dir.map_or(Ok(DEVICE.to_owned()), mounted::device)?;
    let start = move || {
        let mount = Mount::start_as(&device, config, files, runtime)?;
        let guard = Guard::start(mount.mountpoint());
        if let Err(err) = &guard {
            tracing::warn!(
                "{err:#}: if this server is killed, programs in the mount may wait until the next start"
            );
        }
        anyhow::Ok((mount, guard.ok()))
    };
    spawn_blocking(start)
        .await?
        .with_context(|| format!("cannot mount {place}"))
}

pub(crate) fn source(source: &MountSource) -> Source {
    Source::Bucket {
        name: source.bucket.clone(),
        prefix: source.prefix.clone(),
    }
}

/// What a mount has to say at its end; what was lost is an error.
pub(crate) fn stop_mount((mount, guard): Mounted) -> Result<()> {
    let place = mount.mountpoint().display().to_string();
    let stopped = mount.stop().context("unmount");
    drop(guard);
    let report = stopped?;
    if report.busy {
        tracing::warn!("{place} was still in use; programs there have lost it");
    }
    if report.lost > 0 {
        bail!(
            "{} files in {place} could not be published; the log has the reasons",
            report.lost
        );
    }
    Ok(())
}
