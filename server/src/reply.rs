//! Answers: empty, a document, or an object's bytes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use forebay_store::ContentStream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame, SizeHint};

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
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = forebay_store::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, forebay_store::Error>>> {
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
                        Err(error)
                    }
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Content(stream) => stream.remaining() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Content(stream) => stream.remaining(),
        })
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
