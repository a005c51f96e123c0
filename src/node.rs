//! A node: a server that stores nothing, and keeps what it reads from an origin in a cache.
//!
//! # Invariants
//! 1. What is used ends after what uses it: S3 first, then the mount, then the administration
//!    socket, then the cache.

pub(crate) mod admin;
pub(crate) mod warm;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytesize::ByteSize;
use forebay_cache::cluster::ClusterKey;
use forebay_cache::origin::{Authorization, Client, ClientConfig, Endpoint};
use forebay_cache::peer::{Peers, PeersConfig};
use forebay_cache::remote::{Cached, RemoteConfig, RemoteFiles, follow};
use forebay_cache::sign::Credentials;
use forebay_cache::{Cache, Disk, DiskConfig, FetchConfig};
use forebay_mount::{CloseMode, MountConfig, Source};
use forebay_server::{LeaseTerms, NodeConfig, NodeKeys, NodeServer};
use forebay_store::time::SystemClock;
use http::Method;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use self::warm::Behind;
use crate::admin::{MountShown, socket};
use crate::cli::{CacheFlags, Leases, MountArgs, NodeArgs, ServeArgs};
use crate::mountpoint;
use crate::run::{
    End, Mounted, Signals, explain_bind, mount_config, runtime, source, start_mount, stop_mount,
    usual_mount,
};

/// Where a node is, and what it stands in front of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The origin, `http://host:port`.
    pub(crate) origin: &'a str,
    /// The cache's directory.
    pub(crate) cache_dir: &'a Path,
    /// Bytes that the cache may have.
    pub(crate) cache_size: Option<ByteSize>,
    /// The region of its own signatures.
    pub(crate) region: &'a str,
    /// Certificates to trust.
    pub(crate) ca_file: Option<&'a Path>,
}

impl<'a> Place<'a> {
    /// A node in front of `origin`, if the flags say where its cache is.
    pub(crate) fn new(origin: &'a str, flags: &'a CacheFlags, region: &'a str) -> Option<Self> {
        Some(Self {
            origin,
            cache_dir: flags.cache_dir.as_deref()?,
            cache_size: flags.cache_size,
            region,
            ca_file: flags.origin_ca_file.as_deref(),
        })
    }

    /// The client that speaks to the origin.
    fn client(&self, cluster_key: Option<ClusterKey>) -> Result<Client> {
        let endpoint = Endpoint::parse(self.origin).context("the origin")?;
        let config = ClientConfig {
            region: self.region.to_owned(),
            credentials: own_credentials(),
            cluster_key,
            ca_file: self.ca_file.map(Path::to_owned),
            ..ClientConfig::new(endpoint)
        };
        Client::new(config).context("prepare to speak to the origin")
    }

    /// The nodes that help each other, this one among them.
    fn peers(&self, args: &NodeArgs, key: Option<&ClusterKey>) -> Result<Option<Arc<Peers>>> {
        let Some(who) = &args.peers else {
            return Ok(None);
        };
        let key =
            key.context("--peers needs --cluster-key-file: nodes prove themselves with it")?;
        let config = PeersConfig {
            who: who.clone(),
            own: args.peer_address.clone(),
            origin: Endpoint::parse(self.origin)
                .context("the origin")?
                .to_string(),
            cluster_key: key.clone(),
            ca_file: self.ca_file.map(Path::to_owned),
        };
        Ok(Some(Peers::new(config)?))
    }

    fn open_disk(&self) -> Result<Arc<Disk>> {
        open_disk(self.cache_dir, self.cache_size, self.origin)
    }
}

/// Opens a cache's directory for what an origin has. Blocks.
pub(crate) fn open_disk(dir: &Path, size: Option<ByteSize>, origin: &str) -> Result<Arc<Disk>> {
    // Without a limit, what is to stay free of the file system is the limit.
    let limit = size.map_or(u64::MAX, |size| size.as_u64());
    let config = DiskConfig::new(dir, limit, origin);
    let disk = Disk::open(&config)
        .with_context(|| format!("cannot open the cache in {}", dir.display()))?;
    Ok(Arc::new(disk))
}

/// The key in the environment of S3 clients.
pub(crate) fn own_credentials() -> Option<Credentials> {
    let text = |name| std::env::var(name).ok();
    Some(Credentials {
        key_id: text("AWS_ACCESS_KEY_ID")?,
        secret: text("AWS_SECRET_ACCESS_KEY")?,
        session_token: text("AWS_SESSION_TOKEN"),
    })
}

/// The secret that a store and its nodes share.
pub(crate) fn cluster_key(path: Option<&Path>) -> Result<Option<ClusterKey>> {
    let Some(path) = path else {
        return Ok(None);
    };
    let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let key = ClusterKey::new(&content).with_context(|| path.display().to_string())?;
    Ok(Some(key))
}

/// The keys of a node's clients: an id and a secret a line.
fn node_keys(path: &Path) -> Result<NodeKeys> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("read {shown}"))?;
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[id, secret] = &words[..] else {
            // Not the line itself: it may have a secret.
            bail!("{shown}, line {}: expected an id and a secret", index + 1);
        };
        keys.push((id.to_owned(), secret.to_owned()));
    }
    ensure!(!keys.is_empty(), "{shown} has no key");
    Ok(NodeKeys::new(keys))
}

/// For how long the node answers what its origin leases.
fn lease_terms(args: &ServeArgs) -> Result<Option<LeaseTerms>> {
    let node = &args.node;
    let usual = LeaseTerms::default();
    let terms = LeaseTerms {
        stale_max: node.serve_stale.unwrap_or(usual.stale_max),
        ..usual
    };
    let leases = node.leases == Leases::On && node.node_keys_file.is_none();
    ensure!(
        node.serve_stale.is_none() || leases && node.cache.cluster_key_file.is_some(),
        "--serve-stale is for what a forebay leases: it needs --cluster-key-file, and neither \
         --leases off nor --node-keys-file"
    );
    Ok(leases.then_some(terms))
}

/// Runs a node until a signal ends it; `ready` is told where it listens.
pub(crate) fn serve(
    place: Place<'_>,
    args: &ServeArgs,
    ready: impl FnOnce(SocketAddr),
) -> Result<End> {
    let keys = args.node.node_keys_file.as_deref().map(node_keys);
    let keys = keys.transpose()?;
    ensure!(
        (keys.is_none() && args.mount.is_none()) || own_credentials().is_some(),
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: a node signs with them for its mount, and \
         for an origin that is no forebay"
    );
    let leases = lease_terms(args)?;
    if let Some(dir) = &args.mount {
        mountpoint::prepare(dir)?;
    }
    let cluster_key = cluster_key(args.node.cache.cluster_key_file.as_deref())?;
    let peers = place.peers(&args.node, cluster_key.as_ref())?;
    let client = place.client(cluster_key)?;
    let disk = place.open_disk()?;
    let runtime = runtime(args.threads)?;
    let end = runtime.block_on(async {
        let mut signals = Signals::listen().context("listen for signals")?;
        let cache = Cache::new(Arc::clone(&disk), FetchConfig::default()).with_peers(peers);
        let config = NodeConfig {
            listen: args.listen,
            base_domains: args.base_domain.clone(),
            disk: Some(Arc::clone(&disk)),
            keys,
            leases,
        };
        let server = NodeServer::bind(config, cache.clone(), client.clone())
            .await
            .map_err(|err| explain_bind(err.into(), args.listen))?;
        let address = server.local_addr();
        let mount = args.mount.as_deref().map(|dir| mount_config(dir, args));
        let mount = mount.transpose()?;
        let staging_dir = std::env::temp_dir();
        let parts = Parts::start(place, &client, cache, disk, mount, &staging_dir).await?;
        ready(address);
        parts.run(Some(server), &mut signals).await
    });
    // After a second signal nobody waits for a thread that may be stuck.
    runtime.shutdown_background();
    end
}

/// Mounts a part of a remote store until a signal ends it.
pub(crate) fn mount(place: Place<'_>, args: &MountArgs, ready: impl FnOnce()) -> Result<End> {
    ensure!(
        own_credentials().is_some(),
        "no key to sign with: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    );
    mountpoint::prepare(&args.dir)?;
    let client = place.client(cluster_key(args.cache.cluster_key_file.as_deref())?)?;
    let disk = place.open_disk()?;
    let runtime = runtime(None)?;
    let end = runtime.block_on(async {
        let mut signals = Signals::listen().context("listen for signals")?;
        let cache = Cache::new(Arc::clone(&disk), FetchConfig::default());
        let config = MountConfig {
            read_only: args.is_read_only(),
            cache: args.cache().into(),
            ..usual_mount(&args.dir, source(&args.source.part), CloseMode::Durable)?
        };
        let staging_dir = &args.staging_dir;
        let parts = Parts::start(place, &client, cache, disk, Some(config), staging_dir).await?;
        ready();
        parts.run(None, &mut signals).await
    });
    runtime.shutdown_background();
    end
}

/// A remote store as files.
fn remote_files(
    client: &Client,
    cache: &Cache,
    mount: &MountConfig,
    staging_dir: &Path,
) -> Arc<RemoteFiles> {
    let runtime = Handle::current();
    let source = client.source(Authorization::Own);
    let reader = Cached::new(cache.clone(), source, runtime.clone());
    let client = Arc::new(client.clone());
    let config = RemoteConfig {
        directive: mount.cache,
        ..RemoteConfig::default()
    };
    let files = RemoteFiles::new(
        config,
        Arc::clone(&client) as _,
        Arc::new(reader),
        Arc::new(SystemClock),
        runtime,
    );
    Arc::new(if mount.read_only {
        files
    } else {
        files.writable(client, staging_dir.to_owned())
    })
}

/// What a mount shows, as who asks is told.
fn shown(config: Option<&MountConfig>) -> MountShown {
    match config.map(|config| &config.source) {
        None => MountShown::Nothing,
        Some(Source::All) => MountShown::Buckets,
        Some(Source::Bucket { name, prefix }) => MountShown::Part {
            bucket: name.clone(),
            prefix: prefix.trim_end_matches('/').to_owned(),
        },
    }
}

/// What runs, besides S3.
struct Parts {
    cache: Cache,
    mount: Option<Mounted>,
    /// Keeps what the mount knows right.
    follower: Option<JoinHandle<()>>,
    /// Looks after the peers.
    watcher: Option<JoinHandle<()>>,
    admin: JoinHandle<()>,
}

impl Parts {
    async fn start(
        place: Place<'_>,
        client: &Client,
        cache: Cache,
        disk: Arc<Disk>,
        mount: Option<MountConfig>,
        staging_dir: &Path,
    ) -> Result<Self> {
        let admin = socket::Listener::bind(place.cache_dir)?;
        let mut follower = None;
        let shown = shown(mount.as_ref());
        let mount = match mount {
            Some(mut config) => {
                // Who closes a file is to be told whether it is at the origin.
                config.close = CloseMode::Durable;
                let files = remote_files(client, &cache, &config, staging_dir);
                let mounted =
                    start_mount(config, Arc::clone(&files) as _, Some(place.cache_dir)).await?;
                // Only to who has it does an origin tell its changes.
                let has_cluster_key = client.cluster_proof(&Method::GET, "/").is_some();
                follower = has_cluster_key.then(|| tokio::spawn(follow(files, client.clone())));
                Some(mounted)
            }
            None => None,
        };
        let asked = admin::Asked {
            origin: place.origin.to_owned(),
            cache: cache.clone(),
            disk,
            behind: Behind::Origin(client.clone(), Handle::current()),
            mount: shown,
        };
        let peers = cache.peers().cloned();
        let watcher = peers.map(|peers| tokio::spawn(async move { peers.watch().await }));
        let admin = admin.serve(Arc::new(move |request| admin::perform(&asked, request)));
        let admin = tokio::spawn(admin);
        Ok(Self {
            cache,
            mount,
            follower,
            watcher,
            admin,
        })
    }

    /// Serves until a signal comes or S3 fails, then ends all parts.
    async fn run(self, server: Option<NodeServer>, signals: &mut Signals) -> Result<End> {
        let Self {
            cache,
            mount,
            follower,
            watcher,
            admin,
        } = self;
        let (stop, stopped) = oneshot::channel::<()>();
        let mut serving = tokio::spawn(async {
            // An error means that the sender was dropped, which is how it is told.
            let stopped = async { drop(stopped.await) };
            if let Some(server) = server {
                return server.serve(stopped).await;
            }
            stopped.await;
            Ok(())
        });
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
            for task in follower.iter().chain(&watcher) {
                task.abort();
            }
            admin.abort();
            // Cancelled is what it is now; it took its socket away.
            drop(admin.await);
            cache.close().await;
            served??;
            unmounted?
        };
        tokio::select! {
            ended = end => ended.map(|()| End::Stopped),
            number = signals.next() => Ok(End::Abandoned(number)),
        }
    }
}
