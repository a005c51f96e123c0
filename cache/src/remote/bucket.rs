//! Making and removing buckets.

use std::sync::Arc;

use forebay_store::entry::Bucket;
use forebay_store::error::{Error, Result};
use forebay_store::name::{AccountId, BucketName};

use super::{ACCOUNT, RemoteFiles};

impl RemoteFiles {
    pub(super) async fn make_bucket(&self, name: BucketName) -> Result<Arc<Bucket>> {
        let writing = self.writing("making a bucket")?;
        // To make one's own bucket again is a success at some origins.
        match self.find_bucket(&name).await {
            Err(Error::NoSuchBucket(_)) => {}
            Ok(_) | Err(Error::OriginDenied(_)) => {
                return Err(Error::BucketExists {
                    name,
                    owner: AccountId::new(ACCOUNT),
                    location: None,
                });
            }
            Err(err) => return Err(err),
        }
        writing.writer.create_bucket(&name).await?;
        self.forget_buckets();
        Ok(self.note_bucket(&name, None))
    }

    pub(super) async fn remove_bucket(&self, name: &BucketName) -> Result<()> {
        let writing = self.writing("removing a bucket")?;
        writing.writer.delete_bucket(name).await?;
        self.forget_buckets();
        self.note_no_bucket(name);
        self.known.forget_all();
        Ok(())
    }

    /// What is being asked of buckets now may be older than a change of them.
    fn forget_buckets(&self) {
        let mut table = self.table();
        table.generation += 1;
        table.listed_at = None;
    }
}
