//! `forebay warm`.
//!
//! What is named is listed, walked or read by one task (`names.rs`), and brought in by several.
//! Each object is asked for until all of it is there: over S3 as any client can ask a node, `HEAD`
//! with `Range: bytes=0-0`, or over a node's administration socket (`node.rs`). The node's answer
//! says how many bytes of it are in the cache by now. So a run that was interrupted goes on where
//! it was, and what is counted at the end was there.

mod names;
mod node;
mod shown;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, anyhow, ensure};
use forebay_cache::origin::{Client, ClientConfig, Endpoint};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use self::names::Names;
use self::node::{Here, Node};
use self::shown::Warmed;
use crate::cli::WarmArgs;
use crate::node::own_credentials;

/// How often a node is asked anew: first, and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// An object that gets no byte for so long is given up.
const STALLED: Duration = Duration::from_mins(1);
/// Times that an object is asked for anew that was not pinned because it changed or went.
const PINS_MAX: u32 = 3;
/// Names that wait to be asked for.
const NAMES_MAX: usize = 1024;

/// An object to be brought in.
#[derive(Clone, Debug)]
struct Wanted {
    node: Arc<Node>,
    bucket: Arc<str>,
    key: String,
}

/// What is to be done with each object.
#[derive(Clone, Copy, Debug)]
struct Orders {
    dry_run: bool,
    wait: bool,
    pin: bool,
}

pub(super) fn run(args: &WarmArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?;
    let warmed = runtime.block_on(warm(args));
    // A thread that reads a manifest may wait for its next line for ever.
    runtime.shutdown_background();
    Ok(if warmed?.is_all_there() || args.dry_run {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The node that `--endpoint` names.
fn endpoint(args: &WarmArgs, cache_dir: Option<&Path>) -> Result<Node> {
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
    let client = Client::new(config).context("prepare to speak to the node")?;
    Ok(Node::endpoint(client, cache_dir))
}

async fn warm(args: &WarmArgs) -> Result<Arc<Warmed>> {
    let began_at = Instant::now();
    let orders = Orders {
        dry_run: args.dry_run,
        wait: args.wait || !args.no_wait,
        pin: args.pin,
    };
    let names = Names::new(args)?;
    let warmed = Arc::new(Warmed::new(args.json, orders.wait));
    let ticker = tokio::spawn(shown::tick(Arc::clone(&warmed)));
    let jobs = Arc::new(Semaphore::new(args.jobs.into()));
    let mut running = JoinSet::new();
    let (sender, mut wanted) = mpsc::channel(NAMES_MAX);
    let naming = tokio::spawn(names.send_all(sender));
    while let Some(wanted) = wanted.recv().await {
        warmed.named();
        let permit = Arc::clone(&jobs).acquire_owned().await;
        let warmed = Arc::clone(&warmed);
        running.spawn(async move {
            bring(&warmed, wanted, orders).await;
            drop(permit);
        });
        while running.try_join_next().is_some() {}
    }
    let named = naming.await.context("naming the objects broke off")?;
    while let Some(done) = running.join_next().await {
        done.context("a job broke off")?;
    }
    ticker.abort();
    warmed.end(began_at.elapsed(), args.dry_run);
    named?;
    ensure!(!warmed.is_empty(), "there is no such object");
    Ok(warmed)
}

/// Has an object brought in, and pinned if it is to be.
async fn bring(warmed: &Warmed, wanted: Wanted, orders: Orders) {
    let mut here = match wanted.ask(!orders.dry_run).await {
        Ok(here) => here,
        Err(err) => return warmed.missing(&wanted, (0, 0), Some(&err)),
    };
    warmed.sized(here.size, here.cached);
    let already = here.cached >= here.size;
    let brought = if already {
        Ok(())
    } else if orders.dry_run {
        return warmed.missing(&wanted, (here.size, here.cached), None);
    } else if orders.wait {
        wait(warmed, &wanted, &mut here).await
    } else {
        match queue(&wanted, here.clone()).await {
            Ok(()) => return warmed.queued(&wanted, here.size),
            Err(err) => Err(err),
        }
    };
    let kept = match brought {
        Ok(()) if orders.pin && !orders.dry_run => pin(warmed, &wanted, &mut here).await,
        other => other,
    };
    match kept {
        Ok(()) => warmed.there(&wanted, here.size, already),
        Err(err) => warmed.missing(&wanted, (here.size, here.cached), Some(&err)),
    }
}

/// Waits until all of an object is there.
async fn wait(warmed: &Warmed, wanted: &Wanted, here: &mut Here) -> Result<()> {
    let (mut pause, mut progress_at) = (ASK_AGAIN.0, Instant::now());
    while here.cached < here.size {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN.1);
        let now = wanted.ask(true).await?;
        if now.cached > here.cached {
            warmed.came(now.cached - here.cached);
            progress_at = Instant::now();
        }
        *here = now;
        if progress_at.elapsed() > STALLED {
            return Err(stalled(here));
        }
    }
    Ok(())
}

fn stalled(here: &Here) -> Error {
    anyhow!(
        "{} of {} bytes came, and none for {} s: is the cache full or degraded? \
         `forebay cache status` says",
        here.cached,
        here.size,
        STALLED.as_secs()
    )
}

/// Asks until an object is in the node's queue, which may be full for a while.
async fn queue(wanted: &Wanted, mut here: Here) -> Result<()> {
    let (mut pause, began_at) = (ASK_AGAIN.0, Instant::now());
    while !here.queued && here.cached < here.size {
        ensure!(
            began_at.elapsed() < STALLED,
            "the node's queue has been full for {} s",
            STALLED.as_secs()
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN.1);
        here = wanted.ask(true).await?;
    }
    Ok(())
}

/// Pins an object of which all is there. What was evicted or overwritten meanwhile is brought in
/// once more.
async fn pin(warmed: &Warmed, wanted: &Wanted, here: &mut Here) -> Result<()> {
    // Of an empty object nothing could go.
    if here.size == 0 {
        return Ok(());
    }
    let mut refused = None;
    for _ in 0..PINS_MAX {
        match wanted.pin(here).await {
            Ok(()) => {
                // Between the answer that all was there and the pin something may have gone.
                *here = wanted.ask(false).await?;
                if here.cached >= here.size {
                    return Ok(());
                }
            }
            Err(err) => refused = Some(err),
        }
        *here = wanted.ask(true).await?;
        wait(warmed, wanted, here).await?;
    }
    Err(refused.unwrap_or_else(|| anyhow!("it goes as soon as it came")))
}
