//! The store as the mount's files, its bytes by way of the tier.
//!
//! All but opening is the store's.

use std::sync::Arc;
use std::time::Duration;

use forebay_store::api::{
    Answer, AttributeChange, Buckets, DirectoryPage, Face, Files, ListAfter, ListBuckets,
    NewBucket, Node, PublishFile, RenameMode, Usage,
};
use forebay_store::entry::{Bucket, BucketId, Entry, FileAttributes};
use forebay_store::error::Result;
use forebay_store::event::Subscription;
use forebay_store::name::{AccountId, BucketName, ObjectKey};
use forebay_store::stage::StagingFile;
use forebay_store::{Content, Store};

use super::Tier;
use crate::Directive;

/// See the file's header.
#[derive(Debug)]
pub struct TierFiles {
    tier: Tier,
    store: Store,
}

impl TierFiles {
    /// What is stored behind `tier`.
    pub fn new(tier: Tier) -> Self {
        let store = tier.store().clone();
        Self { tier, store }
    }
}

impl Buckets for TierFiles {
    fn create_bucket(&self, bucket: NewBucket) -> Answer<'_, Arc<Bucket>> {
        self.store.create_bucket(bucket)
    }

    fn bucket(&self, name: &BucketName) -> Result<Arc<Bucket>> {
        self.store.bucket(name)
    }

    fn delete_bucket(&self, name: BucketName, face: Face) -> Answer<'_, ()> {
        self.store.delete_bucket(name, face)
    }

    fn list_buckets(&self, list: ListBuckets) -> Answer<'_, (Vec<Arc<Bucket>>, bool)> {
        self.store.list_buckets(list)
    }

    /// By what is kept with the object, else by its stored `Cache-Control`.
    fn open(&self, entry: &Arc<Entry>) -> Result<Content> {
        let stored = entry.attributes.headers.cache_control.as_deref();
        let directive = Directive::kept_in(&entry.attributes.user_metadata)
            .unwrap_or_else(|| Directive::parse(stored));
        Ok(self.tier.open(entry, directive)?.into_content())
    }
}

impl Files for TierFiles {
    fn lookup(&self, bucket: BucketId, path: &str) -> Result<Option<Node>> {
        self.store.lookup(bucket, path)
    }

    fn list_directory(
        &self,
        bucket: BucketId,
        path: &str,
        after: Option<ListAfter>,
        limit: usize,
    ) -> Result<DirectoryPage> {
        self.store.list_directory(bucket, path, after, limit)
    }

    fn allocate_ino(&self) -> Result<u64> {
        self.store.allocate_ino()
    }

    fn stage_file(&self, from: Option<&Arc<Entry>>) -> Result<StagingFile> {
        self.store.stage_file(from)
    }

    fn publish_file(&self, publish: PublishFile<'_>) -> Result<Arc<Entry>> {
        self.store.publish_file(publish)
    }

    fn closing(&self, bucket: BucketId, key: &ObjectKey) {
        self.store.closing(bucket, key);
    }

    fn closed(&self, bucket: BucketId, key: &ObjectKey) {
        self.store.closed(bucket, key);
    }

    fn set_attributes(
        &self,
        bucket: BucketId,
        path: &str,
        change: AttributeChange,
    ) -> Result<Arc<Entry>> {
        self.store.set_attributes(bucket, path, change)
    }

    fn set_directive(
        &self,
        bucket: BucketId,
        path: &str,
        directive: Option<Directive>,
    ) -> Result<Arc<Entry>> {
        self.store.set_directive(bucket, path, directive)
    }

    fn make_directory(
        &self,
        bucket: BucketId,
        path: &str,
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        self.store.make_directory(bucket, path, file)
    }

    fn remove_directory(&self, bucket: BucketId, path: &str) -> Result<()> {
        self.store.remove_directory(bucket, path)
    }

    fn make_node(
        &self,
        bucket: BucketId,
        path: &str,
        content: &[u8],
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        self.store.make_node(bucket, path, content, file)
    }

    fn remove_file(&self, bucket: BucketId, path: &str) -> Result<()> {
        self.store.remove_file(bucket, path)
    }

    fn rename(&self, bucket: BucketId, from: &str, to: &str, mode: RenameMode) -> Result<()> {
        self.store.rename(bucket, from, to, mode)
    }

    fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    fn usage(&self) -> Result<Usage> {
        self.store.usage()
    }

    fn subscribe(&self, skip: Face) -> Subscription {
        Files::subscribe(&self.store, skip)
    }

    fn answer_age_max(&self) -> Duration {
        self.store.answer_age_max()
    }

    fn mount_account(&self) -> AccountId {
        self.store.mount_account()
    }
}
