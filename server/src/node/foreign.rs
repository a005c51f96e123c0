//! An origin that is no forebay: any other S3 service.
//!
//! It can't verify what clients sign for the node's address, so the node does, with a list of keys,
//! and signs anew with credentials of its own. What a read comes to is asked by `HEAD`, with the
//! read's own conditions and range; its bytes are fetched by the node's own right, each range
//! pinned to the entity tag that `HEAD` gave. A refusal of `HEAD` has no document, so the read
//! itself is passed on to get it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use forebay_cache::Version;
use forebay_cache::origin::{Authorization, Client};
use forebay_cache::sign;
use forebay_store::time::Clock;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HOST, IF_RANGE, RANGE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Empty;

use super::keys::NodeKeys;
use super::origin::{Answering, Asked, By, Readable, Upstream, answer, clean, refuse};
use super::reading::Reading;
use super::rewrite::{self, Rewritten};
use super::told::{content_range, strong_etag};
use super::unframe::{Refused, Unframed};
use super::upload::Upload;
use crate::auth::{self, Authenticator, Credential, Payload};
use crate::body::Plan;
use crate::call::{self, CALLS};
use crate::compat::Compat;
use crate::error::Result;
use crate::header;
use crate::query::Query;
use crate::range::{self, Ranged};
use crate::target::Target;

const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");

/// See the file's header.
#[derive(Debug)]
pub(super) struct Foreign {
    client: Client,
    keys: NodeKeys,
    authenticator: Authenticator,
    base_domains: Vec<String>,
    clock: Arc<dyn Clock>,
}

/// A request whose sender may make it.
struct Verified {
    rewritten: Rewritten,
    query: Query,
    payload: Payload,
}

impl Foreign {
    /// The origin that this client speaks to, with its own credentials.
    pub(super) fn new(
        client: Client,
        keys: NodeKeys,
        base_domains: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            client,
            keys,
            // The region is the client's to choose: it is the node's word that counts there.
            authenticator: Authenticator::new(String::new(), false),
            base_domains,
            clock,
        }
    }

    /// Verifies who sent a request, and writes it as the node's own; it is not signed yet.
    fn verify(&self, method: &Method, uri: &Uri, mut headers: HeaderMap) -> Result<Verified> {
        rewrite::drop_named(&mut headers);
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or(uri.host()).unwrap_or_default();
        let target = Target::parse(host, uri.path(), &self.base_domains, Compat::Forebay)?;
        let query = Query::parse(uri.query().unwrap_or_default())?;
        let index = call::route(method, target.level(), &query, &headers)?;
        let asked = auth::Asked {
            method,
            path: &target.path,
            query: &query,
            call: &CALLS[index],
        };
        let find = |claimed: &Credential<'_>| self.keys.find(claimed.key_id).map(Into::into);
        let now_s = self.clock.now().seconds();
        let mut auth = self
            .authenticator
            .authenticate(&asked, &mut headers, &find, now_s)?;
        auth.account()?;
        let payload = auth.take_payload();
        let rewritten = rewrite::request(&target, &query, headers, auth.mechanism())?;
        Ok(Verified {
            rewritten,
            query,
            payload,
        })
    }

    fn signed(&self, method: Method, rewritten: Rewritten, payload: sign::Payload) -> Parts {
        let mut parts = Request::new(()).into_parts().0;
        parts.method = method;
        parts.uri = Uri::from(rewritten.target);
        parts.headers = rewritten.headers;
        self.client.sign(&mut parts, payload);
        parts
    }

    async fn ask_once(&self, reading: &Arc<Reading>) -> Result<Asked> {
        let uri = Uri::from(reading.target.clone());
        let verified = self.verify(&reading.method, &uri, reading.headers.clone())?;
        let Verified {
            mut rewritten,
            query,
            ..
        } = verified;
        rewritten.headers.remove(CONTENT_LENGTH);
        let asked = rewritten.headers.clone();
        let parts = self.signed(Method::HEAD, rewritten, sign::Payload::Empty);
        let request = Request::from_parts(parts, Empty::<Bytes>::new());
        let response = self
            .client
            .send(request)
            .await
            .map_err(|err| refuse(&err))?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Asked::Answer(answer(response)));
        }
        let (head, _) = response.into_parts();
        // A part's number is of use only to who looks at it.
        if head.status == StatusCode::OK && query.get("partNumber").is_some() {
            return Ok(Asked::Nothing);
        }
        let Some((version, extent)) = allowed(reading, &asked, head.status, &head.headers) else {
            return Ok(Asked::Nothing);
        };
        let range = extent.of(version.size);
        let (mut status, mut headers) = (head.status, head.headers);
        clean(&mut headers);
        let len = range.end - range.start;
        headers.insert(CONTENT_LENGTH, len.into());
        if let Extent::Part(_) = extent {
            let value = format!("bytes {}-{}/{}", range.start, range.end - 1, version.size);
            header::push_text(&mut headers, CONTENT_RANGE, Some(&value));
            status = StatusCode::PARTIAL_CONTENT;
        }
        if len < version.size {
            drop_checksums(&mut headers);
        }
        header::push_overrides(&mut headers, &query)?;
        Ok(Asked::Readable(Readable {
            status,
            headers,
            version: Arc::new(version),
            range,
            source: self.client.source(Authorization::Own),
            by: By::Origin,
        }))
    }

    async fn pass_on(&self, request: Request<Upload>) -> Result<crate::reply::Response> {
        let (parts, upload) = request.into_parts();
        let verified = self.verify(&parts.method, &parts.uri, parts.headers)?;
        let Verified {
            mut rewritten,
            payload,
            ..
        } = verified;
        let payload = match payload {
            Payload::Unsigned => sign::Payload::Unsigned,
            Payload::Hashed(digest) => sign::Payload::Sha256(digest),
            framed @ Payload::Chunked { .. } => {
                let plan = Plan::parse(&rewritten.headers, framed, Compat::Forebay)?;
                rewrite::unframe(&mut rewritten.headers, plan.len);
                return self
                    .pass_unframed(parts.method, rewritten, upload, plan)
                    .await;
            }
        };
        let parts = self.signed(parts.method, rewritten, payload);
        let response = self.client.send(Request::from_parts(parts, upload)).await;
        Ok(answer(response.map_err(|err| refuse(&err))?))
    }

    async fn pass_unframed(
        &self,
        method: Method,
        rewritten: Rewritten,
        upload: Upload,
        plan: Plan,
    ) -> Result<crate::reply::Response> {
        let parts = self.signed(method, rewritten, sign::Payload::Unsigned);
        let refused: Refused = Arc::new(Mutex::new(None));
        let body = Unframed::new(upload, plan, Arc::clone(&refused));
        let response = self.client.send(Request::from_parts(parts, body)).await;
        let why = refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match (response, why) {
            (Ok(response), None) => Ok(answer(response)),
            (_, Some(why)) => Err(why),
            (Err(err), None) => Err(refuse(&err)),
        }
    }
}

/// Which bytes of an object a read is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Extent {
    /// All of them, as nobody asked for a range that the origin regards.
    Whole,
    /// A range, which may cover all of them: clients want to see that it was regarded.
    Part(std::ops::Range<u64>),
}

impl Extent {
    fn of(&self, size: u64) -> std::ops::Range<u64> {
        match self {
            Self::Whole => 0..size,
            Self::Part(range) => range.clone(),
        }
    }
}

/// What a `HEAD` says of a read: which bytes of which version, if it can be cached.
fn allowed(
    reading: &Reading,
    asked: &HeaderMap,
    status: StatusCode,
    headers: &HeaderMap,
) -> Option<(Version, Extent)> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let length: u64 = text(CONTENT_LENGTH)?.parse().ok()?;
    let etag = strong_etag(headers)?;
    let (size, extent) = match status {
        StatusCode::OK if headers.contains_key(CONTENT_RANGE) => return None,
        StatusCode::OK => (length, whole_or_range(asked, length)?),
        StatusCode::PARTIAL_CONTENT => {
            let value = text(CONTENT_RANGE)?;
            let size = value.rsplit_once('/')?.1.parse().ok()?;
            let range = content_range(value, size)?;
            if range.end - range.start != length {
                return None;
            }
            (size, Extent::Part(range))
        }
        _ => return None,
    };
    let version = Version {
        bucket: reading.bucket.clone(),
        key: reading.key.clone(),
        etag: etag.to_owned(),
        version_id: text(VERSION_ID)
            .filter(|id| *id != "null")
            .map(str::to_owned),
        size,
    };
    Some((version, extent))
}

/// Takes the object's checksums out of an answer that has a part of it. A `HEAD` mostly has them
/// whatever its `Range` says, and clients check what they read against them.
fn drop_checksums(headers: &mut HeaderMap) {
    let is_checksum = |name: &&HeaderName| name.as_str().starts_with("x-amz-checksum-");
    let names: Vec<_> = headers.keys().filter(is_checksum).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// The range of a read whose `HEAD` was answered with the whole: not every service looks at `Range`
/// there. `None` if the read itself must say.
fn whole_or_range(asked: &HeaderMap, size: u64) -> Option<Extent> {
    let Some(value) = asked.get(RANGE).map(HeaderValue::to_str) else {
        return Some(Extent::Whole);
    };
    if asked.contains_key(IF_RANGE) {
        return None;
    }
    match range::parse(value.ok()?, size) {
        Ranged::Whole => Some(Extent::Whole),
        Ranged::Part { offset, len } => Some(Extent::Part(offset..offset + len)),
        Ranged::Unsatisfiable => None,
    }
}

impl Upstream for Foreign {
    fn ask<'a>(&'a self, reading: &'a Arc<Reading>) -> Answering<'a, Asked> {
        Box::pin(self.ask_once(reading))
    }

    fn pass(&self, request: Request<Upload>) -> Answering<'_, crate::reply::Response> {
        Box::pin(self.pass_on(request))
    }

    fn reach(&self) -> Answering<'_, ()> {
        Box::pin(async {
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.method_mut() = Method::HEAD;
            *request.uri_mut() = Uri::from_static("/");
            let response = self
                .client
                .send(request)
                .await
                .map_err(|err| refuse(&err))?;
            drop(response);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(
        range: Option<&'static str>,
        status: u16,
        pairs: &[(&'static str, &'static str)],
    ) -> Option<(u64, Extent)> {
        let map = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &'static str)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            };
            pairs.iter().map(pair).collect()
        };
        let asked: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
        let reading = Reading {
            method: Method::GET,
            target: "/b/k".parse().unwrap(),
            headers: map(&asked),
            bucket: "b".to_owned(),
            key: "k".to_owned(),
        };
        let status = StatusCode::from_u16(status).unwrap();
        allowed(&reading, &reading.headers, status, &map(pairs))
            .map(|(version, extent)| (version.size, extent))
    }

    #[test]
    fn a_part_has_no_checksum_of_the_whole() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-amz-checksum-crc32",
            "x-amz-checksum-type",
            "x-amz-meta-k",
        ] {
            headers.insert(name, HeaderValue::from_static("v"));
        }
        drop_checksums(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-amz-meta-k"]);
    }

    #[test]
    fn a_head_says_which_bytes_a_read_has() {
        let (length, etag) = (("content-length", "10"), ("etag", "\"e\""));
        let three = [
            ("content-length", "3"),
            etag,
            ("content-range", "bytes 2-4/10"),
        ];
        let whole = [length, etag];
        let part = |range| Some((10, Extent::Part(range)));
        let all = Some((10, Extent::Whole));
        assert_eq!(head(None, 200, &whole), all);
        assert_eq!(head(Some("bytes=2-4"), 206, &three), part(2..5));
        assert_eq!(head(Some("bytes=2-4"), 200, &whole), part(2..5));
        for covering in ["bytes=0-", "bytes=0-9", "bytes=0-8388607", "bytes=-10"] {
            assert_eq!(head(Some(covering), 200, &whole), part(0..10), "{covering}");
        }
        assert_eq!(head(Some("bytes=2-4,6-7"), 200, &whole), all);
        assert_eq!(head(Some("bytes=99-"), 200, &whole), None);
        assert_eq!(head(None, 404, &whole), None);
        assert_eq!(head(None, 200, &[length]), None);
        assert_eq!(head(None, 200, &[length, ("etag", "W/\"e\"")]), None);
        assert_eq!(head(None, 200, &[etag]), None);
        let wrong = [length, etag, ("content-range", "bytes 2-4/10")];
        assert_eq!(head(Some("bytes=2-4"), 206, &wrong), None);
        assert_eq!(head(None, 200, &wrong), None);
    }
}
