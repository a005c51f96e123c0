//! Mounts a data directory until standard input ends, for measuring and for file system test
//! suites.
//!
//! `serve DATA BUCKET DIR [THREADS]`; the bucket is made if it is not there.

use std::error::Error;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use forebay_mount::{CloseMode, Mount, MountConfig, Source};
use forebay_store::api::{Face, NewBucket};
use forebay_store::name::BucketName;
use forebay_store::{Buckets, Files, Store, StoreOptions};

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data, bucket, dir, rest @ ..] = args.as_slice() else {
        return Err("serve DATA BUCKET DIR [THREADS]".into());
    };
    let threads = rest.first().map_or(Ok(4), |threads| threads.parse())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = {
        let _guard = runtime.enter();
        Store::open(StoreOptions::new(Path::new(data)))?
    };
    let name = BucketName::parse(bucket)?;
    if store.bucket(&name).is_err() {
        let owner = store.mount_account();
        let new = NewBucket {
            name,
            owner,
            location: None,
            face: Face::S3,
        };
        runtime.block_on(store.create_bucket(new))?;
    }
    let config = MountConfig {
        mountpoint: dir.into(),
        source: Source::Bucket {
            name: bucket.clone(),
            prefix: String::new(),
        },
        read_only: false,
        uid: 0,
        gid: 0,
        file_mode: 0o644,
        dir_mode: 0o755,
        threads,
        close: CloseMode::Deferred,
        cache: forebay_store::rule::directive::Directive::default(),
    };
    let files: Arc<dyn Files> = Arc::new(store.clone());
    let mount = Mount::start(config, files, runtime.handle().clone())?;
    writeln!(io::stdout(), "mounted")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    let report = mount.stop()?;
    store.close()?;
    writeln!(io::stdout(), "{report:?}")?;
    Ok(())
}
