//! `forebay presign`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};

use super::variable;
use crate::cli::PresignArgs;
use crate::root_key;
use crate::sign::{Key, Presign};

pub(super) fn run(data: &Path, args: &PresignArgs) -> Result<ExitCode> {
    let request = Presign {
        endpoint: &args.endpoint,
        method: &args.method,
        path: &format!("/{}/{}", args.object.bucket, args.object.key),
        query: &[],
        region: &args.region,
        expires: args.expires,
        now: now()?,
    };
    println!("{}", request.url(&key(data)?));
    Ok(ExitCode::SUCCESS)
}

/// The key in the environment of S3 clients, else the root key.
fn key(data: &Path) -> Result<Key> {
    let text = |name| variable(name).and_then(|value| value.into_string().ok());
    if let (Some(id), Some(secret)) = (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY")) {
        return Ok(Key { id, secret });
    }
    match root_key::load(data, &variable)? {
        Some((key, _)) => Ok(key),
        None => bail!(
            "no key to sign with: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
             or name the server's data directory with --data"
        ),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a URL is signed for the time on the wall; nothing in the store depends on it"
)]
fn now() -> Result<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.context("the clock is before 1970")
}
