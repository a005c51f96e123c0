//! Requests of the client's own: made, signed, and tried again if they fail in passing.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};

use super::body::Body;
use super::client::{Again, Client, Fault, nothing};
use super::error::{OriginError, Refusal};
use super::outgoing::AnyBody;
use super::retry::{is_passing, retry_after};
use super::xml;
use crate::sign::Payload;

/// Largest document with an error that is read, in bytes.
const ERROR_SIZE_MAX: usize = 64 << 10;
/// Longest message of an error that is kept, in characters.
const MESSAGE_LEN_MAX: usize = 500;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("forebay/", env!("CARGO_PKG_VERSION")));

/// Whether a request can be made twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeat {
    /// Twice is as good as once.
    #[default]
    Safe,
    /// Twice is not the same; it is tried again only if it surely was not carried out.
    Never,
}

/// One S3 call.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The bucket; none to speak to the service.
    pub bucket: Option<&'a str>,
    /// The key, as it is: any text.
    pub key: Option<&'a str>,
    /// Parameters, not encoded.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers, besides `Host` and those of the signature. All of them are signed.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: Bytes,
    /// What the signature says of the body.
    pub payload: Payload,
    /// Whether it can be made twice.
    pub repeat: Repeat,
}

impl<'a> Call<'a> {
    /// A call without parameters, headers and body, that can be made twice.
    pub fn new(method: Method, bucket: Option<&'a str>, key: Option<&'a str>) -> Self {
        Self {
            method,
            bucket,
            key,
            query: &[],
            headers: HeaderMap::new(),
            body: Bytes::new(),
            payload: Payload::Empty,
            repeat: Repeat::Safe,
        }
    }

    fn body(&self) -> AnyBody {
        if self.body.is_empty() {
            return nothing();
        }
        Full::new(self.body.clone())
            .map_err(|never| match never {})
            .boxed_unsync()
    }
}

impl Client {
    /// Makes a call and gives the answer, whatever its status is. What fails in passing is tried
    /// again until there is no time left.
    ///
    /// # Errors
    /// [`OriginError::Unavailable`], [`OriginError::Corrupt`], [`OriginError::Invalid`].
    pub async fn ask(&self, call: &Call<'_>) -> Result<Response<Body>, OriginError> {
        let uri = self.locate(call.bucket, call.key, call.query)?;
        let wait = self.wait_for_head(&call.method);
        let mut tries = self.tries(self.deadlines().total.max(wait));
        loop {
            let parts = self.signed(call, uri.clone());
            let answered = self.exchange(parts, call.body(), tries.at_most(wait)).await;
            let after = match &answered {
                Ok(response) if call.repeat == Repeat::Safe && is_passing(response.status()) => {
                    retry_after(response.headers())
                }
                Err(fault) if may_repeat(call.repeat, fault) => None,
                _ => return answered.map_err(|fault| fault.error),
            };
            let Some(pause) = tries.again(after) else {
                return answered.map_err(|fault| fault.error);
            };
            // Its connection is free for others meanwhile.
            drop(answered);
            self.counters().retries.add(1);
            tokio::time::sleep(pause).await;
        }
    }

    /// As [`ask`](Self::ask), but only a success is an answer.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and [`OriginError::Refused`].
    pub async fn call(&self, call: &Call<'_>) -> Result<Response<Body>, OriginError> {
        let response = self.ask(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(OriginError::Refused(refusal(response).await))
    }

    fn signed(&self, call: &Call<'_>, uri: Uri) -> Parts {
        let mut parts = unsigned(call.method.clone(), uri);
        parts.headers.extend(call.headers.clone());
        // What the client says for whom a request is, and who asks, is not the caller's.
        parts.headers.remove(HOST);
        parts.headers.remove(AUTHORIZATION);
        self.sign_as_is(&mut parts, call.payload);
        // Without a body `hyper` says nothing of its length, and S3 wants to hear that it is 0.
        if call.method == Method::PUT || call.method == Method::POST {
            let len = HeaderValue::from(call.body.len());
            parts.headers.insert(CONTENT_LENGTH, len);
        }
        parts
    }
}

/// A request of the client's own, without a signature.
pub(super) fn unsigned(method: Method, uri: Uri) -> Parts {
    let mut parts = Request::new(()).into_parts().0;
    parts.method = method;
    parts.uri = uri;
    parts.headers.insert(USER_AGENT, AGENT);
    parts
}

/// A connection that could not be made has carried nothing out.
fn may_repeat(repeat: Repeat, fault: &Fault) -> bool {
    match fault.again {
        Again::No => false,
        Again::Unsent => true,
        Again::Yes | Again::Lost => repeat == Repeat::Safe,
    }
}

/// Reads what an answer without success says.
pub(super) async fn refusal(response: Response<Body>) -> Refusal {
    let status = response.status();
    match response.into_body().collect_at_most(ERROR_SIZE_MAX).await {
        Ok(body) => refusal_in(status, &body),
        Err(err) => Refusal {
            status,
            code: String::new(),
            message: format!("its text can't be read: {err}"),
        },
    }
}

/// Reads a document with an error; one that is none has no code.
pub(super) fn refusal_in(status: StatusCode, body: &[u8]) -> Refusal {
    let (code, message) = xml::error(body).unwrap_or_default();
    let short = |text: String| text.chars().take(MESSAGE_LEN_MAX).collect();
    Refusal {
        status,
        code: short(code),
        message: short(message),
    }
}
