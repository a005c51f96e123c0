//! Having objects brought in by who may ask the administration socket.
//!
//! The node asks its origin in its own name, as its mount does; a tier asks its store.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use forebay_cache::origin::{Authorization, Client};
use forebay_cache::tier::Tier;
use forebay_cache::{Cache, Disk, Version};
use forebay_store::entry::Entry;
use forebay_store::name::{BucketName, ObjectKey};
use forebay_store::{Buckets as _, Error, Objects as _};
use tokio::runtime::Handle;

use super::own_credentials;
use crate::admin::{ObjectName, Warmth};

/// What objects are brought in from.
#[derive(Clone, Debug)]
pub(crate) enum Behind {
    /// A remote origin.
    Origin(Client, Handle),
    /// The store of this process.
    Store(Tier, Handle),
}

/// An object that there is.
enum Found {
    Origin(Arc<Version>),
    Store(Arc<Entry>),
}

impl Behind {
    /// How much of an object is in the cache; has the rest brought in if `bring` says so. Blocks.
    ///
    /// # Errors
    /// There is no such object, or whoever has it does not answer.
    pub(crate) fn warm_blocking(
        &self,
        cache: &Cache,
        name: &ObjectName,
        bring: bool,
    ) -> Result<Warmth> {
        match (self.find(name)?, self) {
            (Found::Origin(version), Self::Origin(client, _)) => {
                let cached = cache.present(&version);
                let queue = || cache.prestage(&version, client.source(Authorization::Own));
                Ok(Warmth {
                    size: version.size,
                    cached,
                    queued: bring && cached < version.size && queue(),
                    etag: version.etag.clone(),
                })
            }
            (Found::Store(entry), Self::Store(tier, _)) => {
                let cached = tier.present(&entry)?;
                let queued = bring && cached < entry.size && tier.prestage(&entry)?;
                Ok(Warmth {
                    size: entry.size,
                    cached,
                    queued,
                    etag: entry.etag.to_string(),
                })
            }
            _ => bail!("an object is where it was looked for"),
        }
    }

    /// Pins the version of an object that has this entity tag. Blocks.
    ///
    /// # Errors
    /// There is no such version any more.
    pub(crate) fn pin_blocking(&self, disk: &Disk, name: &ObjectName, etag: &str) -> Result<()> {
        let version = match self {
            // Who asks was told so by the origin, with a right to read it; and a version of which
            // nothing is here is none that anybody reads.
            Self::Origin(..) => named(name, etag)?,
            Self::Store(tier, _) => {
                let Found::Store(entry) = self.find(name)? else {
                    bail!("an object is where it was looked for");
                };
                ensure!(entry.etag.to_string() == etag, "the object changed");
                tier.version(&entry)?
            }
        };
        let object = disk.object(&version);
        ensure!(
            object.present() == version.blocks(),
            "not all of it is in the cache"
        );
        object.pin(true);
        Ok(())
    }

    fn find(&self, name: &ObjectName) -> Result<Found> {
        let none = "there is no such object";
        match self {
            Self::Origin(client, runtime) => {
                ensure!(
                    own_credentials().is_some(),
                    "this node has no key of its own to read with: name objects as s3://BUCKET/PREFIX"
                );
                let head = runtime.block_on(client.head(&name.bucket, &name.key, None));
                let head = head?.context(none)?;
                let version = head.version(&name.bucket, &name.key);
                let version = version.context("the origin gives it no strong entity tag")?;
                Ok(Found::Origin(Arc::new(version)))
            }
            Self::Store(tier, runtime) => {
                let bucket = tier.store().bucket(&BucketName::parse(&name.bucket)?)?;
                let key = ObjectKey::parse(&name.key)?;
                match runtime.block_on(tier.store().head(bucket.id, &key, None)) {
                    Ok(entry) if !entry.delete_marker => Ok(Found::Store(entry)),
                    Ok(_) | Err(Error::NoSuchKey(_)) => bail!("{none}"),
                    Err(err) => Err(err.into()),
                }
            }
        }
    }
}

/// A version as an origin names it.
fn named(name: &ObjectName, etag: &str) -> Result<Arc<Version>> {
    let size = name.size.context("a version has a size")?;
    Ok(Arc::new(Version {
        bucket: name.bucket.clone(),
        key: name.key.clone(),
        etag: etag.to_owned(),
        version_id: None,
        size,
    }))
}
