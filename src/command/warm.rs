//! `forebay warm`.
//!
//! Each object is asked for as any S3 client can ask a node to bring it in: `HEAD` with
//! `Range: bytes=0-0`. The node's answer says how many bytes of it are in the cache by now; the
//! same is asked again until it is all of them. So a run that was interrupted goes on where it was,
//! and what is counted at the end was there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytesize::ByteSize;
use forebay_cache::origin::{Call, Client, ClientConfig, Endpoint, From, List};
use http::header::{CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cli::WarmArgs;
use crate::node::own_credentials;
use crate::source::Source;

/// How many bytes of an object a node has.
const CACHED_HEADER: &str = "x-forebay-cached";
/// How often a node is asked anew: first, and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// An object that gets no byte for so long is given up.
const STALLED: Duration = Duration::from_mins(1);
/// Failures that are printed; the others are counted.
const PRINTED_MAX: u64 = 20;
/// Keys of a manifest's line, in bytes, with bucket and scheme.
const LINE_LEN_MAX: u64 = 4096;

pub(super) fn run(args: &WarmArgs) -> Result<ExitCode> {
    let client = client(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let warmed = runtime.block_on(warm(args, &client))?;
    Ok(
        if warmed.missing.load(Ordering::Relaxed) == 0 || args.dry_run {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        },
    )
}

fn client(args: &WarmArgs) -> Result<Client> {
    let credentials = own_credentials();
    ensure!(
        credentials.is_some(),
        "no key to sign with: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    );
    let endpoint = Endpoint::parse(&args.endpoint).context("--endpoint")?;
    let config = ClientConfig {
        credentials,
        region: args.region.clone(),
        ..ClientConfig::new(endpoint)
    };
    Client::new(config).context("prepare to speak to the node")
}

/// An object to be brought in.
#[derive(Clone, Debug)]
struct Wanted {
    bucket: Arc<str>,
    key: String,
}

/// What was done, as far as it is done.
#[derive(Debug)]
struct Warmed {
    objects: AtomicU64,
    bytes: AtomicU64,
    /// Objects that were there before anything was asked for.
    already: AtomicU64,
    /// Objects that are not there, or not wholly.
    missing: AtomicU64,
    /// Bytes of these that are not there.
    missing_bytes: AtomicU64,
    bar: ProgressBar,
    json: bool,
}

impl Warmed {
    fn new(json: bool) -> Self {
        let bar = if json || !io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(0).with_style(style())
        };
        Self {
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            already: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            missing_bytes: AtomicU64::new(0),
            bar,
            json,
        }
    }

    fn there(&self, wanted: &Wanted, size: u64, already: bool) {
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size, Ordering::Relaxed);
        self.already
            .fetch_add(u64::from(already), Ordering::Relaxed);
        self.line(wanted, size, size, None);
    }

    fn missing(&self, wanted: &Wanted, size: u64, cached: u64, why: Option<&anyhow::Error>) {
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(cached, Ordering::Relaxed);
        self.missing_bytes
            .fetch_add(size - cached, Ordering::Relaxed);
        let before = self.missing.fetch_add(1, Ordering::Relaxed);
        if let Some(why) = why
            && !self.json
            && before < PRINTED_MAX
        {
            let Wanted { bucket, key } = wanted;
            self.bar
                .suspend(|| eprintln!("forebay: s3://{bucket}/{key}: {why:#}"));
        }
        self.line(wanted, size, cached, why);
    }

    fn line(&self, wanted: &Wanted, size: u64, cached: u64, why: Option<&anyhow::Error>) {
        if !self.json {
            return;
        }
        let line = serde_json::json!({
            "bucket": &*wanted.bucket,
            "key": wanted.key,
            "size": size,
            "cached_bytes": cached,
            "error": why.map(|why| format!("{why:#}")),
        });
        println!("{line}");
    }

    /// The last line.
    fn end(&self, took: Duration, dry_run: bool) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (objects, bytes) = (read(&self.objects), read(&self.bytes));
        let (missing, missing_bytes) = (read(&self.missing), read(&self.missing_bytes));
        let already = read(&self.already);
        self.bar.finish_and_clear();
        if self.json {
            let line = serde_json::json!({
                "objects": objects, "cached_bytes": bytes, "already": already,
                "missing": missing, "missing_bytes": missing_bytes,
                "seconds": took.as_secs_f64(), "dry_run": dry_run,
            });
            println!("{line}");
            return;
        }
        println!(
            "{objects} objects, {} in the cache ({already} objects were there before), in {:.1} s",
            ByteSize(bytes),
            took.as_secs_f64()
        );
        if missing > 0 {
            println!("{missing} objects are missing, {}", ByteSize(missing_bytes));
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {msg}  {eta}";
    ProgressStyle::with_template(template).expect("the template is right")
}

async fn warm(args: &WarmArgs, client: &Client) -> Result<Arc<Warmed>> {
    let began_at = Instant::now();
    let warmed = Arc::new(Warmed::new(args.json));
    let jobs = Arc::new(Semaphore::new(args.jobs.into()));
    let mut running = JoinSet::new();
    let listed = {
        let mut each = async |wanted: Wanted| {
            let permit = Arc::clone(&jobs).acquire_owned().await;
            let (client, warmed, dry_run) = (client.clone(), Arc::clone(&warmed), args.dry_run);
            running.spawn(async move {
                bring(&client, &warmed, wanted, dry_run).await;
                drop(permit);
            });
            while running.try_join_next().is_some() {}
        };
        let mut listed = Ok(());
        for source in &args.sources {
            listed = list(client, source, &mut each).await;
            if listed.is_err() {
                break;
            }
        }
        match &args.manifest {
            Some(path) if listed.is_ok() => manifest(path, &mut each).await,
            _ => listed,
        }
    };
    while let Some(done) = running.join_next().await {
        done.context("a job broke off")?;
    }
    warmed.end(began_at.elapsed(), args.dry_run);
    listed?;
    ensure!(
        warmed.objects.load(Ordering::Relaxed) > 0,
        "there is no such object"
    );
    Ok(warmed)
}

/// Names all objects of a source.
async fn list(client: &Client, source: &str, each: &mut impl AsyncFnMut(Wanted)) -> Result<()> {
    let source: Source = source.parse()?;
    let bucket: Arc<str> = source.bucket.as_str().into();
    let mut token: Option<String> = None;
    loop {
        let page = client
            .list(&List {
                bucket: &source.bucket,
                prefix: &source.prefix,
                delimiter: None,
                from: token.as_deref().map_or(From::Start, From::Token),
                max_keys: None,
            })
            .await
            .with_context(|| format!("list s3://{bucket}/{}", source.prefix))?;
        for object in page.objects {
            // An empty object has no byte that could be brought in.
            if object.size > 0 && source.matches(&object.key) {
                let (bucket, key) = (Arc::clone(&bucket), object.key);
                each(Wanted { bucket, key }).await;
            }
        }
        token = page.next;
        if token.is_none() {
            return Ok(());
        }
    }
}

/// Names all objects of a manifest.
async fn manifest(path: &Path, each: &mut impl AsyncFnMut(Wanted)) -> Result<()> {
    let shown = path.display();
    let mut reader: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(path).with_context(|| format!("open {shown}"))?;
        Box::new(BufReader::new(file))
    };
    for number in 1_u64.. {
        let mut line = String::new();
        let len = (&mut reader).take(LINE_LEN_MAX).read_line(&mut line);
        if len.with_context(|| format!("read {shown}"))? == 0 {
            break;
        }
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            continue;
        }
        let (bucket, key) = line
            .strip_prefix("s3://")
            .and_then(|rest| rest.split_once('/'))
            .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
            .with_context(|| format!("{shown}, line {number}: expected s3://bucket/key"))?;
        let (bucket, key) = (bucket.into(), key.to_owned());
        each(Wanted { bucket, key }).await;
    }
    Ok(())
}

/// How much of an object there is.
#[derive(Clone, Copy, Debug)]
struct Here {
    size: u64,
    cached: u64,
}

/// Has an object brought in, and waits until it is there.
async fn bring(client: &Client, warmed: &Warmed, wanted: Wanted, dry_run: bool) {
    let mut here = match ask(client, &wanted, dry_run).await {
        Ok(here) => here,
        Err(err) => return warmed.missing(&wanted, 0, 0, Some(&err)),
    };
    warmed.bar.inc_length(here.size);
    warmed.bar.inc(here.cached);
    if here.cached >= here.size {
        return warmed.there(&wanted, here.size, true);
    }
    if dry_run {
        return warmed.missing(&wanted, here.size, here.cached, None);
    }
    let (mut pause, mut progress_at) = (ASK_AGAIN.0, Instant::now());
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN.1);
        let now = match ask(client, &wanted, false).await {
            Ok(now) => now,
            Err(err) => return warmed.missing(&wanted, here.size, here.cached, Some(&err)),
        };
        if now.cached > here.cached {
            warmed.bar.inc(now.cached - here.cached);
            progress_at = Instant::now();
        }
        here = now;
        if here.cached >= here.size {
            return warmed.there(&wanted, here.size, false);
        }
        if progress_at.elapsed() > STALLED {
            let err = anyhow!(
                "{} of {} bytes came, and none for {} s: is the cache full or degraded? \
                 `forebay cache status` says",
                here.cached,
                here.size,
                STALLED.as_secs()
            );
            return warmed.missing(&wanted, here.size, here.cached, Some(&err));
        }
    }
}

/// Asks for an object to be brought in, or just how much of it is there.
async fn ask(client: &Client, wanted: &Wanted, only_ask: bool) -> Result<Here> {
    let mut headers = HeaderMap::new();
    headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
    if only_ask {
        let value = HeaderValue::from_static("no-cache");
        headers.insert(http::header::CACHE_CONTROL, value);
    }
    let call = Call {
        headers,
        ..Call::new(Method::HEAD, Some(&wanted.bucket), Some(&wanted.key))
    };
    let response = client.ask(&call).await?;
    let headers = response.headers();
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        // Of an empty object there is no first byte.
        StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Here { size: 0, cached: 0 }),
        StatusCode::NOT_FOUND => bail!("there is no such object"),
        StatusCode::FORBIDDEN => bail!("the key may not read it"),
        status => bail!("the node answered {status}"),
    }
    let size = headers
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.rsplit('/').next())
        .and_then(|size| size.parse().ok())
        .context("the answer has no Content-Range")?;
    let cached = headers
        .get(CACHED_HEADER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok())
        .context(
            "the endpoint is no node of forebay, or it has no cluster key in common with its store",
        )?;
    Ok(Here {
        size,
        cached: cached.min(size),
    })
}
