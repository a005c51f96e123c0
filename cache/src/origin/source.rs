//! Bytes from the origin, for the cache: one ranged `GET` each, pinned to a version.
//!
//! What fails before its first byte is tried again; what breaks off is taken up where it broke,
//! with a new `GET` of the rest. Only tries without much progress are counted.
//!
//! # Invariants
//! 1. No byte is handed on that is not of the range, at its place, and of the version, as far as
//!    the origin can be believed: every answer says so anew.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{IF_MATCH, RANGE};
use http::{HeaderName, HeaderValue, Method, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::body::Body;
use super::call::{refusal, unsigned};
use super::client::{Again, Client, nothing};
use super::error::OriginError;
use super::head::version_query;
use super::range;
use super::retry::{Tries, is_passing, retry_after};
use crate::sign::Payload;
use crate::source::{Authorizing, Chunks, FetchError, Fetching, Source};
use crate::version::{BLOCK_SIZE, Version};

/// The header that bears a grant of a forebay origin.
pub const GRANT_HEADER: HeaderName = HeaderName::from_static("x-forebay-grant");

/// In whose name bytes are fetched.
#[derive(Clone)]
pub enum Authorization {
    /// A reader's, whom the origin has given this token.
    Grant(String),
    /// The client's own.
    Own,
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Grant(_) => "Grant(…)",
            Self::Own => "Own",
        })
    }
}

#[derive(Debug)]
struct Remote {
    client: Client,
    authorization: Authorization,
}

impl Client {
    /// What fetches bytes in somebody's name.
    pub fn source(&self, authorization: Authorization) -> Arc<dyn Source> {
        Arc::new(Remote {
            client: self.clone(),
            authorization,
        })
    }
}

impl Source for Remote {
    fn fetch(&self, version: &Arc<Version>, range: Range<u64>) -> Fetching {
        let transfer = Transfer::new(self, version, range);
        Box::pin(async move {
            let mut transfer = transfer?;
            transfer.body = Some(transfer.open().await?);
            let chunks = stream::try_unfold(transfer, async |mut transfer| {
                let chunk = transfer.next().await?;
                Ok(chunk.map(|chunk| (chunk, transfer)))
            });
            Ok(Box::pin(chunks) as Chunks)
        })
    }

    fn authorize(&self, _version: &Arc<Version>) -> Authorizing {
        Box::pin(std::future::ready(Ok(Some(self.authorization.clone()))))
    }
}

/// One fetch, under way.
struct Transfer {
    client: Client,
    version: Arc<Version>,
    uri: Uri,
    if_match: HeaderValue,
    grant: Option<HeaderValue>,
    /// What is still to come.
    range: Range<u64>,
    /// Where the answer began that is being read.
    opened_at: u64,
    /// Tries since there was progress.
    tries: Tries,
    body: Option<Body>,
}

/// Why one try failed.
struct Failure {
    error: FetchError,
    /// Whether another may do better.
    passing: bool,
    /// What the origin asks to wait before.
    after: Option<Duration>,
}

impl Failure {
    fn last(error: FetchError) -> Self {
        Self {
            error,
            passing: false,
            after: None,
        }
    }

    fn passing(error: FetchError) -> Self {
        Self {
            error,
            passing: true,
            after: None,
        }
    }
}

impl Transfer {
    fn new(of: &Remote, version: &Arc<Version>, range: Range<u64>) -> Result<Self, FetchError> {
        let invalid = |what: &str| FetchError::Corrupt(format!("{what} can't be in a request"));
        if range.is_empty() || range.end > version.size {
            let size = version.size;
            let text = format!("bytes {range:?} of an object of {size}");
            return Err(FetchError::Corrupt(text));
        }
        let query = version_query(version.version_id.as_deref());
        let uri = of
            .client
            .locate(Some(&version.bucket), Some(&version.key), &query)?;
        let if_match = HeaderValue::try_from(format!("\"{}\"", version.etag));
        let grant = match &of.authorization {
            Authorization::Own => None,
            Authorization::Grant(token) => {
                let mut value = HeaderValue::from_str(token).map_err(|_| invalid("the grant"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            client: of.client.clone(),
            version: Arc::clone(version),
            uri,
            if_match: if_match.map_err(|_| invalid("the entity tag"))?,
            grant,
            opened_at: range.start,
            range,
            tries: of.client.tries(of.client.deadlines().total),
            body: None,
        })
    }

    /// The next bytes; `None` at the end of the range.
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        while !self.range.is_empty() {
            match self.chunk().await {
                Ok(chunk) => {
                    self.range.start += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Err(failure) => {
                    self.body = None;
                    if self.range.start - self.opened_at >= BLOCK_SIZE {
                        let total = self.client.deadlines().total;
                        self.tries = self.client.tries(total);
                    }
                    self.pause(failure).await?;
                    self.body = Some(self.open().await?);
                }
            }
        }
        Ok(None)
    }

    /// Bytes of the answer that is being read, checked against what is still to come.
    async fn chunk(&mut self) -> Result<Bytes, Failure> {
        let left = self.range.end - self.range.start;
        let body = self.body.as_mut().expect("there is an answer");
        let Some(chunk) = data(body).await? else {
            let text = format!("it ends {left} bytes before the end of the range");
            return Err(Failure::passing(FetchError::Corrupt(text)));
        };
        let len = chunk.len() as u64;
        // Only an answer that did not say how long it is can be too long.
        let too_long =
            len > left || (len == left && !body.is_end_stream() && data(body).await?.is_some());
        if too_long {
            let text = "it goes on after the end of the range".to_owned();
            return Err(Failure::passing(FetchError::Corrupt(text)));
        }
        Ok(chunk)
    }

    /// Asks for the rest of the range until there is an answer.
    async fn open(&mut self) -> Result<Body, FetchError> {
        self.opened_at = self.range.start;
        loop {
            match self.attempt().await {
                Ok(body) => return Ok(body),
                Err(failure) => self.pause(failure).await?,
            }
        }
    }

    /// Pauses before another try, or fails if there is to be none.
    async fn pause(&mut self, failure: Failure) -> Result<(), FetchError> {
        if !failure.passing {
            return Err(failure.error);
        }
        let pause = self.tries.again(failure.after).ok_or(failure.error)?;
        self.client.counters().retries.add(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn attempt(&self) -> Result<Body, Failure> {
        let mut parts = unsigned(Method::GET, self.uri.clone());
        let range = range::range_header(&self.range);
        parts.headers.insert(RANGE, range);
        parts.headers.insert(IF_MATCH, self.if_match.clone());
        match &self.grant {
            Some(grant) => drop(parts.headers.insert(GRANT_HEADER, grant.clone())),
            None => self.client.sign_as_is(&mut parts, Payload::Empty),
        }
        let wait = self.tries.at_most(self.client.deadlines().head);
        let response = self.client.exchange(parts, nothing(), wait).await;
        let response = response.map_err(|fault| Failure {
            passing: fault.again != Again::No,
            error: fault.error.into(),
            after: None,
        })?;
        let status = response.status();
        if status.is_success() {
            range::check(status, response.headers(), &self.version, &self.range).map_err(
                |error| Failure {
                    passing: matches!(error, FetchError::Corrupt(_)),
                    error,
                    after: None,
                },
            )?;
            return Ok(response.into_body());
        }
        let after = retry_after(response.headers());
        let error = OriginError::Refused(refusal(response).await).into();
        Err(if is_passing(status) {
            let error = match error {
                FetchError::Corrupt(why) => FetchError::Unavailable(why),
                error => error,
            };
            Failure {
                after,
                ..Failure::passing(error)
            }
        } else {
            Failure::last(error)
        })
    }
}

/// The next bytes of a body, not empty; `None` at its end.
async fn data(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| Failure::passing(err.into()))?;
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
