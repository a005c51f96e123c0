//! A store in a temporary directory, mounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use forebay_mount::{CloseMode, Mount, MountConfig, Source, StopReport};
use forebay_store::api::{Delete, Durability, Face, NewBucket, Publish};
use forebay_store::digest::DigestSet;
use forebay_store::entry::{Attributes, Bucket};
use forebay_store::name::{BucketName, ObjectKey};
use forebay_store::rule::precondition::Precondition;
use forebay_store::{Buckets, Files, Objects, Store, StoreOptions};
use tokio::runtime::Runtime;

/// Smallest object that the kernel reads by itself, and more.
pub(crate) const LARGE: usize = 1200 << 10;

/// A store with the bucket `bucket`, mounted.
pub(crate) struct Fixture {
    pub(crate) runtime: Runtime,
    pub(crate) store: Store,
    pub(crate) bucket: Arc<Bucket>,
    mount: Option<Mount>,
    config: MountConfig,
    dir: tempfile::TempDir,
}

impl Fixture {
    /// Mounts the bucket.
    pub(crate) fn new() -> Self {
        let source = Source::Bucket {
            name: "bucket".into(),
            prefix: String::new(),
        };
        Self::of(source, CloseMode::Deferred)
    }

    /// Mounts what `source` says.
    pub(crate) fn of(source: Source, close: CloseMode) -> Self {
        // The second fixture of a process finds it set.
        drop(tracing_subscriber::fmt().with_test_writer().try_init());
        let dir = tempfile::tempdir().expect("a directory");
        let runtime = Runtime::new().expect("a runtime");
        let guard = runtime.enter();
        let store = Store::open(StoreOptions::new(&dir.path().join("data"))).expect("a store");
        drop(guard);
        let new = NewBucket {
            name: BucketName::parse("bucket").expect("a name"),
            owner: store.mount_account(),
            location: None,
            face: Face::S3,
        };
        let bucket = runtime
            .block_on(store.create_bucket(new))
            .expect("a bucket");
        let mountpoint = dir.path().join("mnt");
        fs::create_dir(&mountpoint).expect("a directory");
        let config = MountConfig {
            mountpoint,
            source,
            read_only: false,
            uid: 0,
            gid: 0,
            file_mode: 0o644,
            dir_mode: 0o755,
            threads: 3,
            close,
            cache: forebay_store::rule::directive::Directive::default(),
        };
        let mut fixture = Self {
            runtime,
            store,
            bucket,
            mount: None,
            config,
            dir,
        };
        fixture.mount();
        fixture
    }

    /// Mounts again.
    pub(crate) fn mount(&mut self) {
        let files: Arc<dyn Files> = Arc::new(self.store.clone());
        let handle = self.runtime.handle().clone();
        self.mount = Some(Mount::start(self.config.clone(), files, handle).expect("a mount"));
    }

    /// Unmounts.
    pub(crate) fn stop(&mut self) -> StopReport {
        self.mount
            .take()
            .expect("mounted")
            .stop()
            .expect("unmounted")
    }

    /// Leaves the mount as a killed process does.
    pub(crate) fn abandon(&mut self) {
        std::mem::forget(self.mount.take());
    }

    /// A path in the mount.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.config.mountpoint.join(path)
    }

    /// The mount point.
    pub(crate) fn root(&self) -> &Path {
        &self.config.mountpoint
    }

    /// Where the store and the mount point are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts an object as S3 does.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        self.runtime.block_on(async {
            let len = Some(bytes.len() as u64);
            let digests = DigestSet {
                md5: true,
                ..DigestSet::default()
            };
            let mut stage = self.store.stage(len, digests).await.expect("a stage");
            stage
                .write(Bytes::copy_from_slice(bytes))
                .await
                .expect("written");
            let staged = stage.finish().await.expect("staged");
            let publish = Publish {
                bucket: self.bucket.id,
                key: ObjectKey::parse(key).expect("a key"),
                staged,
                attributes: Attributes::default(),
                checksum: None,
                owner: self.store.mount_account(),
                precondition: Precondition::default(),
                durability: Durability::Deferred,
            };
            self.store.publish(publish).await.expect("published");
        });
    }

    /// Deletes an object as S3 does.
    pub(crate) fn delete(&self, key: &str) {
        let delete = Delete {
            bucket: self.bucket.id,
            key: ObjectKey::parse(key).expect("a key"),
            version: None,
            precondition: Precondition::default(),
        };
        self.runtime
            .block_on(self.store.delete(delete))
            .expect("deleted");
    }

    /// An object's bytes as S3 gets them, if it is there.
    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let key = ObjectKey::parse(key).expect("a key");
        let entry = self
            .runtime
            .block_on(self.store.head(self.bucket.id, &key, None))
            .ok()?;
        let content = self.store.open(&entry).expect("content");
        Some(
            content
                .read_at_blocking(0, entry.size)
                .expect("bytes")
                .to_vec(),
        )
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(mount) = self.mount.take()
            && let Err(err) = mount.stop()
        {
            eprintln!("the mount stays: {err}");
        }
        if let Err(err) = self.store.clone().close() {
            eprintln!("the store: {err}");
        }
    }
}

/// Bytes that tell where they are.
pub(crate) fn pattern(len: usize, seed: u8) -> Vec<u8> {
    let byte = |at: usize| u8::try_from(at % 251).expect("below 256");
    (0..len)
        .map(|at| byte(at / 251) ^ byte(at) ^ seed)
        .collect()
}

/// The names in a directory, in order.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

/// `rename(2)`.
#[expect(clippy::disallowed_methods, reason = "it is what is tested")]
pub(crate) fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    fs::rename(from, to)
}

/// The error number of a failed call.
pub(crate) fn errno(err: &io::Error) -> i32 {
    err.raw_os_error().expect("an error of the system")
}
