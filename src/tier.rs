//! A cache on a faster disk in front of the store of this process.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use forebay_cache::tier::{Tier, TierFiles};
use forebay_cache::{Cache, Disk, FetchConfig};
use forebay_server::{Server, ServerConfig};
use forebay_store::{Files, Store};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::admin::{MountShown, socket};
use crate::cli::CacheFlags;
use crate::node::warm::Behind;
use crate::node::{admin, open_disk};

/// The disk of a tier, and whom it is for.
pub(crate) struct TierDisk<'a> {
    dir: &'a Path,
    /// The store, as it is shown and as the cache knows it.
    store: String,
    disk: Arc<Disk>,
}

impl<'a> TierDisk<'a> {
    /// Opens the cache's directory, if there is to be a cache. Blocks.
    pub(crate) fn open(flags: &'a CacheFlags, data: &Path) -> Result<Option<Self>> {
        let Some(dir) = flags.cache_dir.as_deref() else {
            return Ok(None);
        };
        let data = std::fs::canonicalize(data)
            .with_context(|| format!("find the directory {}", data.display()))?;
        let store = format!("the store in {}", data.display());
        let disk = open_disk(dir, flags.cache_size, &store)?;
        Ok(Some(Self { dir, store, disk }))
    }

    /// Puts it in front of the store.
    pub(crate) fn start(self, store: &Store, mount: MountShown) -> Result<RunningTier> {
        let cache = Cache::new(Arc::clone(&self.disk), FetchConfig::default());
        let tier = Tier::new(store.clone(), cache.clone());
        let listener = socket::Listener::bind(self.dir)?;
        let asked = admin::Asked {
            origin: self.store,
            cache,
            disk: Arc::clone(&self.disk),
            behind: Behind::Store(tier.clone(), Handle::current()),
            mount,
        };
        let answer = listener.serve(Arc::new(move |request| admin::perform(&asked, request)));
        Ok(RunningTier {
            tier,
            disk: self.disk,
            admin: tokio::spawn(answer),
        })
    }
}

/// A tier that is read through, and its administration.
pub(crate) struct RunningTier {
    tier: Tier,
    disk: Arc<Disk>,
    admin: JoinHandle<()>,
}

impl RunningTier {
    /// Listens for S3.
    pub(crate) async fn bind(&self, config: ServerConfig) -> Result<Server> {
        let (tier, disk) = (self.tier.clone(), Arc::clone(&self.disk));
        Ok(Server::bind_tier(config, tier, disk).await?)
    }

    /// What a mount shows.
    pub(crate) fn files(&self) -> Arc<dyn Files> {
        Arc::new(TierFiles::new(self.tier.clone()))
    }

    /// Ends it; nobody reads any more.
    pub(crate) async fn stop(self) {
        self.admin.abort();
        // Cancelled is what it is now; it took its socket away.
        drop(self.admin.await);
        self.tier.cache().close().await;
    }
}
