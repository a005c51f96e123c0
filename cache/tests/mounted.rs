//! A remote origin, mounted: what programs see of it.

#![cfg(test)]

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay_cache::origin::{Authorization, Client, ClientConfig, Endpoint};
use forebay_cache::remote::{
    Ages, Cached, OriginChange, OriginChangeKind, RemoteConfig, RemoteFiles,
};
use forebay_cache::sign::Credentials;
use forebay_cache::{Cache, Directive, Disk, DiskConfig, FetchConfig};
use forebay_mount::{CloseMode, Mount, MountConfig, Source};
use forebay_server::{Compat, Server, ServerConfig};
use forebay_store::api::{Delete, Durability, Face, NewBucket, Publish};
use forebay_store::digest::DigestSet;
use forebay_store::entry::{Attributes, Bucket, Secret};
use forebay_store::name::{BucketName, ObjectKey};
use forebay_store::rule::precondition::Precondition;
use forebay_store::time::SystemClock;
use forebay_store::{Buckets, Files, Objects, Store, StoreOptions};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

#[path = "mounted/directives.rs"]
mod directives;
#[path = "../../server/tests/node/tap.rs"]
#[expect(dead_code, reason = "the server's tests use all of it")]
mod tap;
#[path = "../../mount/tests/mount/xattr.rs"]
#[expect(dead_code, reason = "the mount's tests use all of it")]
mod xattr;

use tap::Tap;

const KEY: &str = "AKID";
const SECRET: &str = "a secret";

/// What may be done to the mount.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// A forebay server, and a mount of its bucket on another host, as it were.
struct Fixture {
    store: Store,
    bucket: Arc<Bucket>,
    remote: Arc<RemoteFiles>,
    cache: Cache,
    disk: Arc<Disk>,
    source: Arc<dyn forebay_cache::Source>,
    /// The line between them, if it is watched.
    tap: Option<Tap>,
    mount: Option<Mount>,
    mountpoint: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    /// The server's runtime and the mount's.
    there: Runtime,
    here: Runtime,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new(config: RemoteConfig) -> Self {
        Self::of(config, Access::Read)
    }

    fn of(config: RemoteConfig, access: Access) -> Self {
        Self::with(config, access, Directive::default(), false)
    }

    /// As [`of`](Self::of), with a word of the mount's own, and what the origin is asked for
    /// watched.
    fn watched(config: RemoteConfig, access: Access, cache: Directive) -> Self {
        Self::with(config, access, cache, true)
    }

    fn with(config: RemoteConfig, access: Access, word: Directive, watch: bool) -> Self {
        // The second fixture of a process finds it set.
        drop(tracing_subscriber::fmt().with_test_writer().try_init());
        let dir = tempfile::tempdir().unwrap();
        let there = Runtime::new().unwrap();
        let store = {
            let _guard = there.enter();
            Store::open(StoreOptions::new(&dir.path().join("data"))).unwrap()
        };
        let root = store.root_account().clone();
        let key = (KEY.to_owned(), Secret(SECRET.to_owned()));
        store.create_key_blocking(&root, Some(key)).unwrap();
        let name = BucketName::parse("bucket").unwrap();
        let new = NewBucket {
            name: name.clone(),
            owner: root,
            location: None,
            face: Face::S3,
        };
        let bucket = there.block_on(store.create_bucket(new)).unwrap();
        let (addr, stop) = serve(&there, &store);

        let here = Runtime::new().unwrap();
        let tap = watch.then(|| Tap::to(addr));
        let addr = tap.as_ref().map_or(addr, |tap| tap.addr);
        let endpoint = Endpoint::parse(&format!("http://{addr}")).unwrap();
        let client = Client::new(ClientConfig {
            credentials: Some(Credentials {
                key_id: KEY.to_owned(),
                secret: SECRET.to_owned(),
                session_token: None,
            }),
            ..ClientConfig::new(endpoint)
        });
        let client = Arc::new(client.unwrap());
        let disk = DiskConfig::new(dir.path().join("cache"), 1 << 30, "origin");
        let disk = Arc::new(Disk::open(&disk).unwrap());
        let cache = {
            let _guard = here.enter();
            Cache::new(Arc::clone(&disk), FetchConfig::default())
        };
        let source = client.source(Authorization::Own);
        let own = Arc::clone(&source);
        let reader = Arc::new(Cached::new(cache.clone(), own, here.handle().clone()));
        let mut remote = RemoteFiles::new(
            config,
            Arc::clone(&client) as _,
            reader,
            Arc::new(SystemClock),
            here.handle().clone(),
        );
        if access == Access::Write {
            remote = remote.writable(client, dir.path().to_owned());
        }
        let remote = Arc::new(remote);
        let mountpoint = dir.path().join("mnt");
        fs::create_dir(&mountpoint).unwrap();
        let mount = mount(&mountpoint, access, word, Arc::clone(&remote) as _, &here);
        Self {
            store,
            bucket,
            remote,
            cache,
            disk,
            source,
            tap,
            mount: Some(mount),
            mountpoint,
            stop: Some(stop),
            there,
            here,
            _dir: dir,
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.mountpoint.join(path)
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        self.put_with(key, bytes, Attributes::default());
    }

    /// An object's bytes at the origin.
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let key = ObjectKey::parse(key).unwrap();
        let head = self.store.head(self.bucket.id, &key, None);
        let entry = self.there.block_on(head).ok()?;
        let content = self.store.open(&entry).unwrap();
        Some(content.read_at_blocking(0, entry.size).unwrap().to_vec())
    }

    /// Puts an object at the origin.
    fn put_with(&self, key: &str, bytes: &[u8], attributes: Attributes) {
        let digests = DigestSet {
            md5: true,
            ..DigestSet::default()
        };
        self.there.block_on(async {
            let len = Some(bytes.len() as u64);
            let mut stage = self.store.stage(len, digests).await.unwrap();
            stage.write(Bytes::copy_from_slice(bytes)).await.unwrap();
            let publish = Publish {
                bucket: self.bucket.id,
                key: ObjectKey::parse(key).unwrap(),
                staged: stage.finish().await.unwrap(),
                attributes,
                checksum: None,
                owner: self.store.mount_account(),
                precondition: Precondition::default(),
                durability: Durability::Deferred,
            };
            self.store.publish(publish).await.unwrap();
        });
    }

    fn delete(&self, key: &str) {
        let delete = Delete {
            bucket: self.bucket.id,
            key: ObjectKey::parse(key).unwrap(),
            version: None,
            precondition: Precondition::default(),
        };
        self.there.block_on(self.store.delete(delete)).unwrap();
    }

    fn tell(&self, kind: OriginChangeKind) {
        self.remote.invalidate(&OriginChange {
            bucket: self.bucket.name.clone(),
            kind,
        });
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(mount) = self.mount.take() {
            mount.stop().unwrap();
        }
        self.here.block_on(self.cache.close());
        self.store.clone().close().unwrap();
    }
}

fn serve(runtime: &Runtime, store: &Store) -> (std::net::SocketAddr, oneshot::Sender<()>) {
    let config = ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        base_domains: Vec::new(),
        region: "us-east-1".to_owned(),
        compat: Compat::Forebay,
        cluster_key: None,
    };
    let server = Server::bind(config, Arc::new(store.clone()));
    let server = runtime.block_on(server).unwrap();
    let addr = server.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    runtime.spawn(server.serve(async { drop(stopped.await) }));
    (addr, stop)
}

fn mount(
    mountpoint: &Path,
    access: Access,
    cache: Directive,
    files: Arc<dyn Files>,
    runtime: &Runtime,
) -> Mount {
    let config = MountConfig {
        mountpoint: mountpoint.to_owned(),
        source: Source::Bucket {
            name: "bucket".into(),
            prefix: String::new(),
        },
        read_only: access == Access::Read,
        uid: 0,
        gid: 0,
        file_mode: 0o644,
        dir_mode: 0o755,
        threads: 4,
        // Who closes a file is told whether it was put.
        close: CloseMode::Durable,
        cache,
    };
    Mount::start(config, files, runtime.handle().clone()).unwrap()
}

/// Bytes that tell where they are, and of which version they are.
fn pattern(len: usize, version: u8) -> Vec<u8> {
    let byte = |at: usize| u8::try_from(at % 251).unwrap();
    (0..len)
        .map(|at| byte(at / 251) ^ byte(at) ^ version)
        .collect()
}

/// Waits until something holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What is believed for very short, or until told.
fn quick() -> RemoteConfig {
    RemoteConfig {
        ages: Ages {
            names: Duration::from_millis(100),
            kernel: Duration::from_millis(20),
        },
        ages_followed: Ages {
            names: Duration::from_hours(1),
            kernel: Duration::from_hours(1),
        },
        deadline: Duration::from_secs(5),
        ..RemoteConfig::default()
    }
}

#[test]
fn programs_see_the_origins_objects_as_files() {
    let f = Fixture::new(RemoteConfig::default());
    let sizes = [0, 1, 4096, 100_000, (1 << 20) + 1, 5_000_000];
    for size in sizes {
        f.put(&format!("data/size {size}/é+%.bin"), &pattern(size, 1));
    }
    for size in sizes {
        let path = f.path(&format!("data/size {size}/é+%.bin"));
        assert!(fs::read(path).unwrap() == pattern(size, 1), "{size} bytes");
    }
    let mut file = File::open(f.path("data/size 5000000/é+%.bin")).unwrap();
    let whole = pattern(5_000_000, 1);
    for at in [4_999_990_u64, 1 << 20, 3_000_001, 0] {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at)).unwrap();
        (&mut file).take(70_000).read_to_end(&mut bytes).unwrap();
        let from = usize::try_from(at).unwrap();
        assert!(bytes == whole[from..(from + 70_000).min(whole.len())]);
    }
    let names: Vec<_> = fs::read_dir(f.path("data"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(names.len(), sizes.len());
    assert!(
        names
            .iter()
            .all(|entry| entry.file_type().unwrap().is_dir())
    );
    assert_eq!(
        fs::read(f.path("nothing")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
}

#[test]
fn what_tools_keep_in_user_metadata_is_what_stat_shows() {
    let f = Fixture::new(RemoteConfig::default());
    let metadata = |pairs: &[(&str, &str)]| Attributes {
        user_metadata: pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect(),
        ..Attributes::default()
    };
    f.put_with(
        "script",
        b"#!",
        metadata(&[("mode", "33261"), ("uid", "7"), ("mtime", "1500000000.25")]),
    );
    f.put_with("link", b"script", metadata(&[("mode", "41471")]));
    f.put_with("dir/", b"", metadata(&[("mode", "16832")]));
    let script = fs::metadata(f.path("link")).unwrap();
    assert_eq!((script.mode(), script.uid()), (0o100_755, 7));
    assert_eq!(
        (script.mtime(), script.mtime_nsec()),
        (1_500_000_000, 250_000_000)
    );
    assert_eq!(fs::read_link(f.path("link")).unwrap(), Path::new("script"));
    assert_eq!(fs::metadata(f.path("dir")).unwrap().mode(), 0o040_700);
}

#[test]
fn a_large_directory_is_listed_whole() {
    let f = Fixture::new(RemoteConfig::default());
    for n in 0..2300 {
        f.put(&format!("d/{n:05}"), b"x");
    }
    let mut names: Vec<_> = fs::read_dir(f.path("d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected: Vec<_> = (0..2300).map(|n| format!("{n:05}")).collect();
    assert!(names == expected);
}

#[test]
fn nobody_reads_a_mixture_of_two_versions() {
    let f = Fixture::new(quick());
    let size = 3_000_000;
    f.put("k", &pattern(size, 1));
    let file = File::open(f.path("k")).unwrap();
    let mut first = vec![0; 4096];
    file.read_exact_at(&mut first, 0).unwrap();
    assert!(first == pattern(size, 1)[..4096]);
    f.put("k", &pattern(size, 2));
    let mut rest = vec![0; 4096];
    let stale = file.read_exact_at(&mut rest, 2_900_000).unwrap_err();
    assert_eq!(stale.raw_os_error(), Some(libc::ESTALE));
    // The very next open has the new one, whatever the kernel still believes.
    assert!(fs::read(f.path("k")).unwrap() == pattern(size, 2));
}

#[test]
fn a_change_shows_within_the_age_that_is_allowed() {
    let f = Fixture::new(quick());
    f.put("d/k", b"one");
    assert_eq!(fs::read(f.path("d/k")).unwrap(), b"one");
    assert!(!f.path("d/new").exists());
    f.put("d/k", b"another");
    f.put("d/new", b"new");
    eventually("the new version", || {
        fs::read(f.path("d/k")).unwrap() == b"another"
    });
    eventually("the new file", || f.path("d/new").exists());
    assert_eq!(fs::read_dir(f.path("d")).unwrap().count(), 2);
    f.delete("d/k");
    f.delete("d/new");
    eventually("no file", || !f.path("d/k").exists());
    eventually("no directory", || !f.path("d").exists());
}

#[test]
fn a_change_that_is_told_shows_although_the_kernel_believes_for_long() {
    let f = Fixture::new(quick());
    f.remote.follow();
    let published = |key: &str| OriginChangeKind::Published(ObjectKey::parse(key).unwrap());
    f.put("d/k", b"one");
    assert_eq!(fs::read(f.path("d/k")).unwrap(), b"one");
    assert!(!f.path("d/new").exists());
    f.put("d/k", b"another");
    f.put("d/new", b"new");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(fs::read(f.path("d/k")).unwrap(), b"one", "nothing was told");
    f.tell(published("d/k"));
    f.tell(published("d/new"));
    eventually("the new version", || {
        fs::read(f.path("d/k")).unwrap() == b"another"
    });
    eventually("the new file", || f.path("d/new").exists());
    f.delete("d/k");
    f.tell(OriginChangeKind::Deleted(ObjectKey::parse("d/k").unwrap()));
    eventually("no file", || !f.path("d/k").exists());
    assert_eq!(fs::read_dir(f.path("d")).unwrap().count(), 1);
}

#[test]
fn an_origin_that_is_gone_is_an_error_and_no_hang() {
    let mut f = Fixture::new(quick());
    f.put("k", b"bytes");
    assert_eq!(fs::read(f.path("k")).unwrap(), b"bytes");
    drop(f.stop.take());
    eventually("the port is closed", || {
        let err = fs::metadata(f.path("other")).unwrap_err();
        err.raw_os_error() == Some(libc::EIO)
    });
    let begun = Instant::now();
    let err = fs::read_dir(f.path("")).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    assert_eq!(err.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(begun.elapsed() < Duration::from_secs(9));
}

#[test]
fn nothing_can_be_written() {
    let f = Fixture::new(RemoteConfig::default());
    f.put("k", b"bytes");
    let refused = |err: io::Error| assert_eq!(err.raw_os_error(), Some(libc::EROFS));
    refused(fs::write(f.path("new"), b"x").unwrap_err());
    refused(
        File::options()
            .append(true)
            .open(f.path("k"))
            .and_then(|mut k| k.write_all(b"x"))
            .unwrap_err(),
    );
    refused(fs::remove_file(f.path("k")).unwrap_err());
    refused(fs::create_dir(f.path("d")).unwrap_err());
}

#[test]
fn what_programs_write_is_at_the_origin_when_they_have_closed_it() {
    let f = Fixture::of(RemoteConfig::default(), Access::Write);
    fs::create_dir_all(f.path("a/b")).unwrap();
    fs::write(f.path("a/b/f"), b"one").unwrap();
    assert_eq!(f.get("a/b/f").as_deref(), Some(&b"one"[..]));
    let mut file = File::options().append(true).open(f.path("a/b/f")).unwrap();
    file.write_all(b"two").unwrap();
    file.sync_all().unwrap();
    assert_eq!(f.get("a/b/f").as_deref(), Some(&b"onetwo"[..]));
    file.write_all(b"three").unwrap();
    drop(file);
    assert_eq!(f.get("a/b/f").as_deref(), Some(&b"onetwothree"[..]));
    fs::set_permissions(f.path("a/b/f"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("b/f", f.path("a/link")).unwrap();
    assert_eq!(fs::read(f.path("a/link")).unwrap(), b"onetwothree");
    let before = fs::metadata(f.path("a/b/f")).unwrap().ino();
    rename(&f.path("a/b"), &f.path("moved"));
    assert_eq!(f.get("a/b/f"), None);
    let after = fs::metadata(f.path("moved/f")).unwrap();
    assert_eq!((after.ino(), after.mode()), (before, 0o100_600));
    assert_eq!(fs::read(f.path("moved/f")).unwrap(), b"onetwothree");
    fs::remove_dir(f.path("moved")).unwrap_err();
    fs::remove_dir_all(f.path("moved")).unwrap();
    fs::remove_file(f.path("a/link")).unwrap();
    assert_eq!(fs::read_dir(f.path("a")).unwrap().count(), 0);
    assert!(f.get("a/").is_some(), "the directory stays");
}

#[test]
fn a_large_file_is_put_in_parts() {
    let f = Fixture::of(RemoteConfig::default(), Access::Write);
    let bytes = pattern((33 << 20) + 5, 3);
    fs::write(f.path("large"), &bytes).unwrap();
    assert!(f.get("large").unwrap() == bytes);
    assert!(fs::read(f.path("large")).unwrap() == bytes);
    let changed = File::options().write(true).open(f.path("large")).unwrap();
    changed.write_all_at(b"changed", 20_000_000).unwrap();
    drop(changed);
    let mut expected = bytes;
    expected[20_000_000..20_000_007].copy_from_slice(b"changed");
    assert!(f.get("large").unwrap() == expected);
}

#[test]
fn a_file_that_can_not_be_put_is_an_error_and_leaves_the_version_before() {
    let mut f = Fixture::of(quick(), Access::Write);
    fs::write(f.path("k"), b"before").unwrap();
    let mut file = File::options().append(true).open(f.path("k")).unwrap();
    drop(f.stop.take());
    eventually("the port is closed", || {
        fs::metadata(f.path("other")).is_err_and(|err| err.raw_os_error() == Some(libc::EIO))
    });
    file.write_all(b"after").unwrap();
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(f.get("k").as_deref(), Some(&b"before"[..]));
}

/// `rename(2)`.
#[expect(clippy::disallowed_methods, reason = "it is what is tested")]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

#[test]
fn what_was_read_once_is_read_again_without_the_origin() {
    let f = Fixture::new(quick());
    let (small, large) = (pattern(5000, 1), pattern(6_000_001, 2));
    f.remote.follow();
    f.put("small", &small);
    f.put("large", &large);
    assert!(fs::read(f.path("small")).unwrap() == small);
    assert!(fs::read(f.path("large")).unwrap() == large);
    eventually("all is in the cache", || {
        f.cache.statistics().bytes_fetched >= 6_005_001
    });
    let fetched = f.cache.statistics().bytes_fetched;
    // The second time the kernel can read the large one by itself.
    for _ in 0..2 {
        let file = File::open(f.path("large")).unwrap();
        let mut bytes = vec![0; large.len()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == large);
        assert!(fs::read(f.path("small")).unwrap() == small);
    }
    assert_eq!(f.cache.statistics().bytes_fetched, fetched);
}
