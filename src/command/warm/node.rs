//! How a node is asked to bring an object in.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use forebay_cache::origin::{Call, Client};
use http::header::{CACHE_CONTROL, CONTENT_RANGE, ETAG, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::Wanted;
use crate::admin::{MountShown, ObjectName, Reply, Request, socket};

/// How many bytes of an object a node has.
const CACHED: HeaderName = HeaderName::from_static("x-forebay-cached");
/// What a node does with a request.
const OUTCOME: HeaderName = HeaderName::from_static("x-forebay-cache");

/// How much of an object there is.
#[derive(Clone, Debug)]
pub(super) struct Here {
    pub(super) size: u64,
    pub(super) cached: u64,
    /// Whether the node has it in its queue.
    pub(super) queued: bool,
    /// Its entity tag, without quotes.
    etag: String,
}

/// Where objects are brought in.
#[derive(Debug)]
pub(super) struct Node {
    face: Face,
    /// The directory of its cache, if it is on this machine.
    cache_dir: Option<PathBuf>,
}

/// How it is spoken to.
#[derive(Debug)]
enum Face {
    /// As an S3 client, with rights of one's own.
    S3(Box<Client>),
    /// Over its administration socket, with the node's.
    Socket,
}

impl Node {
    /// One that is reached over S3, and may have its cache on this machine.
    pub(super) fn endpoint(client: Client, cache_dir: Option<&Path>) -> Self {
        Self {
            face: Face::S3(Box::new(client)),
            cache_dir: cache_dir.map(Path::to_owned),
        }
    }

    /// The one that has its cache in this directory.
    pub(super) fn local(cache_dir: PathBuf) -> Self {
        Self {
            face: Face::Socket,
            cache_dir: Some(cache_dir),
        }
    }

    /// What lists it, where it is reached over S3.
    pub(super) fn client(&self) -> Option<&Client> {
        match &self.face {
            Face::S3(client) => Some(client),
            Face::Socket => None,
        }
    }

    /// What its mount shows.
    pub(super) async fn mount(&self) -> Result<MountShown> {
        match self.tell(Request::ShowMount).await? {
            Reply::Mount(shown) => Ok(shown),
            other => bail!("the node gave another answer than asked for: {other:?}"),
        }
    }

    async fn tell(&self, request: Request) -> Result<Reply> {
        let dir = self.cache_dir.clone().context(
            "only a node on this machine pins: name the directory of its cache with --cache-dir",
        )?;
        let asked = tokio::task::spawn_blocking(move || {
            let reply = socket::ask(&dir, &request)?;
            reply.with_context(|| format!("no node runs on the cache in {}", dir.display()))
        });
        match asked.await.context("ask the node")?? {
            Reply::Refused(why) => bail!("{why}"),
            reply => Ok(reply),
        }
    }

    async fn head(&self, client: &Client, wanted: &Wanted, bring: bool) -> Result<Here> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        if !bring {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        let call = Call {
            headers,
            ..Call::new(Method::HEAD, Some(&wanted.bucket), Some(&wanted.key))
        };
        let response = client.ask(&call).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => here(response.headers()),
            // Of an empty object there is no first byte.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Here {
                size: 0,
                cached: 0,
                queued: false,
                etag: String::new(),
            }),
            StatusCode::NOT_FOUND => bail!("there is no such object"),
            StatusCode::FORBIDDEN => bail!("the key may not read it"),
            status => bail!("the node answered {status}"),
        }
    }
}

/// What the head of an answer says.
fn here(headers: &HeaderMap) -> Result<Here> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let size = text(CONTENT_RANGE)
        .and_then(|value| value.rsplit('/').next())
        .and_then(|size| size.parse().ok())
        .context("the answer has no Content-Range")?;
    let cached: u64 = text(CACHED).and_then(|value| value.parse().ok()).context(
        "the endpoint is no node of forebay, or it has no cluster key in common with its store",
    )?;
    Ok(Here {
        size,
        cached: cached.min(size),
        queued: text(OUTCOME) == Some("PRESTAGE"),
        etag: text(ETAG).unwrap_or_default().trim_matches('"').to_owned(),
    })
}

impl Wanted {
    fn name(&self, size: Option<u64>) -> ObjectName {
        ObjectName {
            bucket: self.bucket.to_string(),
            key: self.key.clone(),
            size,
        }
    }

    /// Asks how much of the object is there, and for the rest to be brought in if `bring` says so.
    pub(super) async fn ask(&self, bring: bool) -> Result<Here> {
        let request = match &self.node.face {
            Face::S3(client) => return self.node.head(client, self, bring).await,
            Face::Socket => Request::Warm {
                object: self.name(None),
                bring,
            },
        };
        match self.node.tell(request).await? {
            Reply::Warmth(warmth) => Ok(Here {
                size: warmth.size,
                cached: warmth.cached.min(warmth.size),
                queued: warmth.queued,
                etag: warmth.etag,
            }),
            other => bail!("the node gave another answer than asked for: {other:?}"),
        }
    }

    /// Has the version pinned that was answered.
    pub(super) async fn pin(&self, here: &Here) -> Result<()> {
        ensure!(!here.etag.is_empty(), "it has no entity tag to pin it by");
        let request = Request::PinObject {
            object: self.name(Some(here.size)),
            etag: here.etag.clone(),
        };
        match self.node.tell(request).await? {
            Reply::Done => Ok(()),
            other => bail!("the node gave another answer than asked for: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        pairs.collect()
    }

    #[test]
    fn an_answer_says_how_much_there_is() {
        let all = headers(&[
            ("content-range", "bytes 0-0/100"),
            ("x-forebay-cached", "120"),
            ("x-forebay-cache", "PRESTAGE"),
            ("etag", "\"e-2\""),
        ]);
        let here = here(&all).unwrap();
        assert_eq!((here.size, here.cached, here.queued), (100, 100, true));
        assert_eq!(here.etag, "e-2");
        let store = headers(&[("content-range", "bytes 0-0/100")]);
        let err = super::here(&store).unwrap_err().to_string();
        assert!(err.contains("no node of forebay"), "{err}");
        assert!(super::here(&headers(&[("x-forebay-cached", "1")])).is_err());
    }
}
