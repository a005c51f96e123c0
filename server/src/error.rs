//! S3 error codes: what a client reads when a request is not answered with what it asked for.
//!
//! One table has every code with its HTTP status and default message
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>). An [`S3Error`] is a code,
//! the fields that AWS adds for it, and headers that go with it. How a store error becomes a code
//! is one `match` without a wildcard, in `error/store.rs`.
//!
//! # Invariants
//! 1. No message or field holds a secret, a path of this machine or the text of an I/O error.

mod store;

use std::borrow::Cow;
use std::fmt;

use http::{HeaderName, HeaderValue, StatusCode};

macro_rules! codes {
    ($($code:ident $status:literal $message:literal;)*) => {
        /// The codes of S3 errors; the names are the wire's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($code,)* }

        impl Code {
            /// The code as it stands in the `<Code>` element.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)* }
            }

            /// The HTTP status that goes with it.
            pub(crate) const fn status(self) -> u16 {
                match self { $(Self::$code => $status,)* }
            }

            /// What a person reads where the caller of [`S3Error::new`] has nothing better.
            pub(crate) const fn message(self) -> &'static str {
                match self { $(Self::$code => $message,)* }
            }
        }

        #[cfg(test)]
        const ALL: &[Code] = &[$(Code::$code,)*];
    };
}

codes! {
    AccessDenied 403 "Access Denied";
    AuthorizationHeaderMalformed 400 "The authorization header you provided is invalid.";
    AuthorizationQueryParametersError 400 "Query-string authentication parameters are invalid.";
    BadDigest 400 "The digest you specified did not match what we received.";
    BadRequest 400 "Bad Request";
    BucketAlreadyExists 409 "The requested bucket name is not available. Select a different name and try again.";
    BucketAlreadyOwnedByYou 409 "Your previous request to create the named bucket succeeded and you already own it.";
    BucketNotEmpty 409 "The bucket you tried to delete is not empty.";
    ConditionalRequestConflict 409 "A conflicting operation occurred during processing of the conditional request. Try again.";
    DirectoryNotEmpty 409 "The directory that is to give way is not empty.";
    EntityTooLarge 400 "Your proposed upload exceeds the maximum allowed size.";
    EntityTooSmall 400 "Your proposed upload is smaller than the minimum allowed size.";
    IncompleteBody 400 "You did not provide the number of bytes specified by the Content-Length HTTP header.";
    InternalError 500 "We encountered an internal error. Please try again.";
    InvalidAccessKeyId 403 "The AWS Access Key Id you provided does not exist in our records.";
    InvalidArgument 400 "Invalid Argument";
    InvalidBucketName 400 "The specified bucket is not valid.";
    InvalidChunkSizeError 400 "Only the last chunk is allowed to have a size less than 8192 bytes.";
    InvalidDigest 400 "The Content-MD5 you specified was invalid.";
    InvalidEncryptionAlgorithmError 400 "The encryption request you specified is not valid.";
    InvalidLocationConstraint 400 "The specified location constraint is not valid.";
    InvalidObjectState 403 "The operation is not valid for the object's storage class.";
    InvalidPart 400 "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
    InvalidPartNumber 416 "The requested partnumber is not satisfiable.";
    InvalidPartOrder 400 "The list of parts was not in ascending order. Parts must be ordered by part number.";
    InvalidRange 416 "The requested range is not satisfiable.";
    InvalidRequest 400 "Invalid Request";
    InvalidStorageClass 400 "The storage class you specified is not valid.";
    InvalidTag 400 "The tag provided was not a valid tag.";
    InvalidToken 400 "The provided token is malformed or otherwise invalid.";
    InvalidURI 400 "Couldn't parse the specified URI.";
    IsDirectory 409 "There is a directory of this name.";
    KeyTooLongError 400 "Your key is too long.";
    MalformedTrailerError 400 "The request contained trailing data that was not well-formed or did not conform to our published schema.";
    MalformedXML 400 "The XML you provided was not well-formed or did not validate against our published schema.";
    MaxMessageLengthExceeded 400 "Your request was too big.";
    MetadataTooLarge 400 "Your metadata headers exceed the maximum allowed metadata size.";
    MethodNotAllowed 405 "The specified method is not allowed against this resource.";
    MissingContentLength 411 "You must provide the Content-Length HTTP header.";
    NoSuchBucket 404 "The specified bucket does not exist.";
    NoSuchBucketPolicy 404 "The bucket policy does not exist.";
    NoSuchCORSConfiguration 404 "The CORS configuration does not exist.";
    NoSuchConfiguration 404 "The specified configuration does not exist.";
    NoSuchInventoryConfiguration 404 "The specified configuration does not exist.";
    NoSuchKey 404 "The specified key does not exist.";
    NoSuchLifecycleConfiguration 404 "The lifecycle configuration does not exist.";
    NoSuchPublicAccessBlockConfiguration 404 "The public access block configuration was not found.";
    NoSuchTagSet 404 "The TagSet does not exist.";
    NoSuchUpload 404 "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    NoSuchVersion 404 "The specified version does not exist.";
    NoSuchWebsiteConfiguration 404 "The specified bucket does not have a website configuration.";
    NotDirectory 409 "There is a file of this name.";
    NotImplemented 501 "A header or query you provided implies functionality that is not implemented.";
    ObjectExists 409 "There is something of this name already.";
    ObjectLockConfigurationNotFoundError 404 "Object Lock configuration does not exist for this bucket.";
    OperationAborted 409 "A conflicting conditional operation is currently in progress against this resource. Try again.";
    OwnershipControlsNotFoundError 404 "The bucket ownership controls were not found.";
    PreconditionFailed 412 "At least one of the pre-conditions you specified did not hold.";
    ReplicationConfigurationNotFoundError 404 "The replication configuration was not found.";
    RequestTimeTooSkewed 403 "The difference between the request time and the server's time is too large.";
    RequestTimeout 400 "Your socket connection to the server was not read from or written to within the timeout period.";
    ServerSideEncryptionConfigurationNotFoundError 404 "The server side encryption configuration was not found.";
    ServiceUnavailable 503 "Service is unable to handle request.";
    SignatureDoesNotMatch 403 "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
    SlowDown 503 "Please reduce your request rate.";
    TooManyBuckets 400 "You have attempted to create more buckets than allowed.";
    XAmzContentSHA256Mismatch 400 "The provided 'x-amz-content-sha256' header does not match what was computed.";
}

/// What every function of this part that can refuse a request returns.
pub(crate) type Result<T, E = S3Error> = std::result::Result<T, E>;

/// A refusal, ready to be written: code, message, AWS's extra fields, headers.
pub(crate) struct S3Error(Box<Inner>);

struct Inner {
    code: Code,
    message: Cow<'static, str>,
    fields: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What really happened, for the log; never for the client (Invariant 1).
    cause: Option<forebay_store::Error>,
}

impl S3Error {
    /// An error with the code's own message.
    pub(crate) fn new(code: Code) -> Self {
        Self::with(code, code.message())
    }

    /// An error with a message of its own.
    pub(crate) fn with(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            fields: Vec::new(),
            headers: Vec::new(),
            cause: None,
        }))
    }

    /// `InvalidArgument` for one named header or parameter.
    pub(crate) fn argument(name: &str, value: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::with(Code::InvalidArgument, message)
            .field("ArgumentName", name)
            .field("ArgumentValue", value)
    }

    /// `InvalidRequest` with a message.
    pub(crate) fn request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::with(Code::InvalidRequest, message)
    }

    /// `NotImplemented` that names the header which asks for what is not built.
    pub(crate) fn not_implemented(header: &str) -> Self {
        Self::with(
            Code::NotImplemented,
            "A header you provided implies functionality that is not implemented.",
        )
        .field("Header", header)
    }

    /// Adds an element between `Message` and `RequestId`.
    pub(crate) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.fields.push((name, value.into()));
        self
    }

    /// Adds a header to the answer.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// Keeps what happened below, for the log.
    pub(crate) fn because(mut self, cause: forebay_store::Error) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// The code.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// The message that the client reads.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// AWS's extra elements, in order.
    pub(crate) fn fields(&self) -> &[(&'static str, String)] {
        &self.0.fields
    }

    /// Headers that go with the answer.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0.headers
    }

    /// What happened below, if anything did.
    pub(crate) fn cause(&self) -> Option<&forebay_store::Error> {
        self.0.cause.as_ref()
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).expect("the table has valid statuses only")
    }

    /// The error document: `Code`, `Message`, the extra fields, `Resource`, `RequestId`, `HostId`.
    pub(crate) fn document(&self, resource: &str, request_id: &str, host_id: &str) -> String {
        let mut xml = String::with_capacity(256);
        xml.push_str(crate::xml::DECLARATION);
        xml.push_str("<Error>");
        let fixed = [("Code", self.0.code.name()), ("Message", self.message())];
        let fields = self
            .fields()
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let last = [
            ("Resource", resource),
            ("RequestId", request_id),
            ("HostId", host_id),
        ];
        for (name, value) in fixed.into_iter().chain(fields).chain(last) {
            xml.push('<');
            xml.push_str(name);
            xml.push('>');
            crate::xml::push_text(&mut xml, value);
            xml.push_str("</");
            xml.push_str(name);
            xml.push('>');
        }
        xml.push_str("</Error>");
        xml
    }
}

impl fmt::Debug for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Error")
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("fields", &self.0.fields)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

impl From<Code> for S3Error {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_an_error_status_and_a_message() {
        for code in ALL {
            assert!((400..=503).contains(&code.status()), "{code:?}");
            assert!(StatusCode::from_u16(code.status()).is_ok());
            assert!(!code.message().is_empty());
        }
    }

    #[test]
    fn the_document_has_its_elements_in_order_and_escapes_them() {
        let error = S3Error::new(Code::NoSuchKey).field("Key", "a<b>&\"c\u{1}");
        assert_eq!(
            error.document("/b/a", "ID", "HOST"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code>\
             <Message>The specified key does not exist.</Message>\
             <Key>a&lt;b&gt;&amp;&quot;c%01</Key><Resource>/b/a</Resource>\
             <RequestId>ID</RequestId><HostId>HOST</HostId></Error>"
        );
    }
}
