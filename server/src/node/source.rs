//! Bytes on behalf of one client, with grants that are renewed as long as he reads.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_cache::origin::{Authorization, Client};
use forebay_cache::sign::{encode, encode_path};
use forebay_cache::{Authorizing, Chunks, FetchError, Fetching, Source, Version};
use futures_util::{StreamExt as _, stream};
use http::header::IF_MATCH;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};
use tokio::sync::Mutex;

use super::origin::ask_for_head;
use super::reading::Reading;
use super::told::{self, Told};
use crate::grant::GRANT_HEADER;

/// When a grant is renewed before it is used; the origin takes it for twice as long.
const RENEW_AFTER: Duration = Duration::from_secs(30);

/// A token, and when it came.
#[derive(Clone)]
struct Token {
    value: HeaderValue,
    got_at: Instant,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("got_at", &self.got_at)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Inner {
    client: Client,
    reading: Arc<Reading>,
    /// None before it is first needed. Held while it is renewed, so that others wait for it and do
    /// not renew it themselves.
    token: Mutex<Option<Token>>,
}

/// Fetches bytes with what the origin has granted one client.
#[derive(Clone, Debug)]
pub(super) struct Granted(Arc<Inner>);

impl Granted {
    /// With a grant that was just given for this read; without, one is asked for when it is needed.
    pub(super) fn new(client: Client, reading: Arc<Reading>, grant: Option<HeaderValue>) -> Self {
        let token = grant.map(|value| Token {
            value,
            got_at: Instant::now(),
        });
        Self(Arc::new(Inner {
            client,
            reading,
            token: Mutex::new(token),
        }))
    }

    /// A token that the origin will take, unless it is another process by now.
    async fn token(&self, version: &Arc<Version>) -> Result<Token, FetchError> {
        let mut held = self.0.token.lock().await;
        let token = match held.take() {
            None => self.ask(version, &self.0.reading).await?,
            Some(old) if old.got_at.elapsed() > RENEW_AFTER => {
                let renewed = self.renew(version, &old).await;
                if renewed.is_err() {
                    *held = Some(old);
                }
                renewed?
            }
            Some(token) => token,
        };
        *held = Some(token.clone());
        Ok(token)
    }

    /// Another token than the one that was refused.
    async fn instead_of(
        &self,
        version: &Arc<Version>,
        refused: &Token,
    ) -> Result<Token, FetchError> {
        let mut held = self.0.token.lock().await;
        match &*held {
            Some(token) if token.value != refused.value => Ok(token.clone()),
            _ => {
                let token = self.ask(version, &self.0.reading).await?;
                *held = Some(token.clone());
                Ok(token)
            }
        }
    }

    /// By the old token, which the origin knows for longer than it lets it fetch; if that is over,
    /// by what the client has signed.
    async fn renew(&self, version: &Arc<Version>, old: &Token) -> Result<Token, FetchError> {
        match self.ask(version, &renewal(version, &old.value)?).await {
            Err(FetchError::Denied(_)) => self.ask(version, &self.0.reading).await,
            renewed => renewed,
        }
    }

    async fn ask(&self, version: &Arc<Version>, reading: &Reading) -> Result<Token, FetchError> {
        let response = ask_for_head(&self.0.client, reading).await?;
        match told::read(reading, response.status(), response.headers()) {
            Told::Allowed(allowed) if allowed.version == *version => Ok(Token {
                value: allowed.grant,
                got_at: Instant::now(),
            }),
            Told::Allowed(_) => Err(FetchError::Changed),
            Told::Unusable(why) => Err(FetchError::Corrupt(why.to_owned())),
            Told::Answer => Err(match response.status().as_u16() {
                304 | 404 | 412 | 416 => FetchError::Changed,
                500.. => FetchError::Unavailable(format!("it answers {}", response.status())),
                _ => FetchError::Denied(format!("it answers {}", response.status())),
            }),
        }
    }

    async fn open(&self, version: &Arc<Version>, range: Range<u64>) -> Result<Chunks, FetchError> {
        let token = self.token(version).await?;
        match self.open_with(&token, version, range.clone()).await {
            Err(FetchError::Denied(_)) => {
                let token = self.instead_of(version, &token).await?;
                self.open_with(&token, version, range).await
            }
            opened => opened,
        }
    }

    async fn open_with(
        &self,
        token: &Token,
        version: &Arc<Version>,
        range: Range<u64>,
    ) -> Result<Chunks, FetchError> {
        let token = token.value.to_str();
        let token = token.map_err(|_| FetchError::Corrupt("a grant that is no text".to_owned()))?;
        let authorization = Authorization::Grant(token.to_owned());
        self.0
            .client
            .source(authorization)
            .fetch(version, range)
            .await
    }
}

/// Asks for the head of a version by a token for it.
fn renewal(version: &Version, token: &HeaderValue) -> Result<Reading, FetchError> {
    let bad = || FetchError::Corrupt("a name that can't be asked for".to_owned());
    let (bucket, key) = (encode(&version.bucket), encode_path(&version.key));
    let mut target = format!("/{bucket}/{key}");
    if let Some(version_id) = &version.version_id {
        target.push_str("?versionId=");
        target.push_str(&encode(version_id));
    }
    let mut headers = HeaderMap::new();
    let etag = HeaderValue::try_from(format!("\"{}\"", version.etag)).map_err(|_| bad())?;
    headers.insert(IF_MATCH, etag);
    headers.insert(GRANT_HEADER, token.clone());
    Ok(Reading {
        method: Method::GET,
        target: PathAndQuery::try_from(target).map_err(|_| bad())?,
        headers,
        bucket: version.bucket.clone(),
        key: version.key.clone(),
    })
}

/// A transfer under way.
struct Transfer {
    source: Granted,
    version: Arc<Version>,
    chunks: Chunks,
    /// What is still to come.
    left: Range<u64>,
    /// Where the chunks began.
    opened_at: u64,
}

impl Transfer {
    async fn next(&mut self) -> Option<Result<bytes::Bytes, FetchError>> {
        loop {
            match self.chunks.next().await? {
                Ok(bytes) => {
                    self.left.start += bytes.len() as u64;
                    return Some(Ok(bytes));
                }
                // It broke off, and was to be taken up with a grant that is too old by now.
                Err(FetchError::Denied(_))
                    if self.left.start > self.opened_at && !self.left.is_empty() =>
                {
                    self.opened_at = self.left.start;
                    match self.source.open(&self.version, self.left.clone()).await {
                        Ok(chunks) => self.chunks = chunks,
                        Err(err) => return Some(Err(err)),
                    }
                }
                Err(err) => return Some(Err(err)),
            }
        }
    }
}

impl Source for Granted {
    fn fetch(&self, version: &Arc<Version>, range: Range<u64>) -> Fetching {
        let (source, version) = (self.clone(), Arc::clone(version));
        Box::pin(async move {
            let chunks = source.open(&version, range.clone()).await?;
            let transfer = Transfer {
                source,
                version,
                chunks,
                opened_at: range.start,
                left: range,
            };
            let chunks = stream::unfold(transfer, async |mut transfer| {
                transfer.next().await.map(|chunk| (chunk, transfer))
            });
            Ok(Box::pin(chunks) as Chunks)
        })
    }

    fn authorize(&self, version: &Arc<Version>) -> Authorizing {
        let (source, version) = (self.clone(), Arc::clone(version));
        Box::pin(async move {
            let token = source.token(&version).await?;
            let token = token.value.to_str().ok();
            Ok(token.map(|token| Authorization::Grant(token.to_owned())))
        })
    }
}

#[cfg(test)]
mod tests {
    use forebay_cache::cluster::NODE_HEADER;
    use http::header::RANGE;

    use super::*;

    #[test]
    fn a_grant_is_renewed_by_name_and_entity_tag() {
        let version = Version {
            bucket: "b.c".to_owned(),
            key: "a b/ü?/".to_owned(),
            etag: "e-2".to_owned(),
            version_id: Some("v&1".to_owned()),
            size: 1,
        };
        let token = HeaderValue::from_static("token");
        let reading = renewal(&version, &token).unwrap();
        assert_eq!(
            reading.target.as_str(),
            "/b.c/a%20b/%C3%BC%3F/?versionId=v%261"
        );
        assert_eq!(reading.headers[IF_MATCH], "\"e-2\"");
        assert_eq!(reading.headers[GRANT_HEADER], "token");
        assert!(!reading.headers.contains_key(NODE_HEADER));
        assert!(!reading.headers.contains_key(RANGE));
    }
}
