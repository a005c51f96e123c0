//! How much space there is.

use std::sync::PoisonError;

use forebay_store::api::Usage;
use forebay_store::error::{Error, Result};

use super::RemoteFiles;

/// What is said where the origin does not tell: no S3 service is known to be full. Installers and
/// copying programs look whether there is enough, and sums of it fit into 64 bits everywhere.
const UNKNOWN: Usage = Usage {
    total: 1 << 60,
    available: 1 << 60,
    inodes_available: 1 << 40,
};

impl RemoteFiles {
    /// What the origin said not long ago, or says now. One that is down has what it had.
    pub(super) async fn space(&self) -> Result<Usage> {
        let before = *self.space.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, usage)) = before
            && self.is_space_fresh(at)
        {
            return Ok(usage);
        }
        let Some(bucket) = self.any_bucket() else {
            return Ok(UNKNOWN);
        };
        let at = self.clock.now();
        match self.catalog.space(&bucket).await {
            Ok(usage) => {
                let usage = usage.unwrap_or(UNKNOWN);
                let mut kept = self.space.lock().unwrap_or_else(PoisonError::into_inner);
                *kept = Some((at, usage));
                Ok(usage)
            }
            Err(err @ Error::OriginUnavailable(_)) => before.map(|(_, usage)| usage).ok_or(err),
            Err(err) => Err(err),
        }
    }

    /// No change of it is told, so it is not believed for longer because others are.
    fn is_space_fresh(&self, at: forebay_store::time::Timestamp) -> bool {
        let age = self.clock.now().0.checked_sub(at.0);
        let age = age.and_then(|nanos| u64::try_from(nanos).ok());
        age.is_some_and(|nanos| u128::from(nanos) < self.config.ages.names.as_nanos())
    }

    /// A bucket that is there, to ask in its name.
    fn any_bucket(&self) -> Option<String> {
        let table = self.table();
        let mut there = table.by_name.values().filter(|held| held.seen_at.is_some());
        there
            .next()
            .map(|held| held.bucket.name.as_str().to_owned())
    }
}
