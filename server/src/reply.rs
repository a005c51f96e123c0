//! Answers: empty, a document, an object's bytes, or what comes from afar.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_store::ContentStream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

/// An answer.
pub(crate) type Response = http::Response<ReplyBody>;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// There is none.
    Empty,
    /// These bytes.
    Bytes(Bytes),
    /// Bytes of an object, in frames that are not copied.
    Content(ContentStream),
    /// What a node passes on, or has cached.
    Remote(UnsyncBoxBody<Bytes, RemoteError>),
}

/// Why an answer breaks off that comes from an origin; its log line is written where it broke.
#[derive(Debug, thiserror::Error)]
#[error("the origin's answer broke off: {0}")]
pub(crate) struct RemoteError(pub(crate) String);

/// Why an answer breaks off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    /// What is stored here can't be read.
    #[error("read what is stored")]
    Store(#[source] forebay_store::Error),
    /// What comes from an origin does not come.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Content(stream) => {
                let frame = std::task::ready!(stream.poll_next(cx));
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(bytes) => Ok(Frame::data(bytes)),
                    Err(error) => {
                        // The client sees a connection that breaks off before the announced length.
                        tracing::error!(
                            error = &error as &dyn std::error::Error,
                            "an answer breaks off"
                        );
                        Err(ReplyError::Store(error))
                    }
                }))
            }
            Self::Remote(body) => {
                let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(ReplyError::Remote)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Content(stream) => stream.remaining() == 0,
            Self::Remote(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Content(stream) => SizeHint::with_exact(stream.remaining()),
            Self::Remote(body) => body.size_hint(),
        }
    }
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    with_headers(status, HeaderMap::new(), ReplyBody::Empty)
}

/// An answer of headers and body.
pub(crate) fn with_headers(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// 200 with an XML document.
pub(crate) fn xml(document: String) -> Response {
    xml_status(StatusCode::OK, document)
}

/// An XML document.
pub(crate) fn xml_status(status: StatusCode, document: String) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert(CONTENT_LENGTH, document.len().into());
    with_headers(status, headers, ReplyBody::Bytes(document.into()))
}
