//! The table of S3 calls.
//!
//! One row a call: method, level, what in query or headers tells it apart, its name, the action
//! that permits it, how its body comes, and what answers it. Router, authorizer, access log and
//! metrics all read this table. Rows stand in order of precedence: the first that matches is the
//! call.
//!
//! # Invariants
//! 1. A request never reaches the answer of another call: where a sub-resource is named that the
//!    matched row does not ask for, the answer is `NotImplemented`.

use http::{HeaderMap, Method};

use crate::error::{Code, Result, S3Error};
use crate::query::Query;

/// Whether a request names nothing, a bucket, or an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// `/`
    Service,
    /// `/bucket`
    Bucket,
    /// `/bucket/key`
    Object,
}

/// How a call's body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// There is none.
    None,
    /// A document of bounded size.
    Document,
    /// Bytes of an object or a part.
    Stream,
}

/// What in a request tells its call apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// A parameter is there.
    Query(&'static str),
    /// A parameter has this value.
    QueryIs(&'static str, &'static str),
    /// A header is there.
    Header(&'static str),
    /// The body is a form.
    Form,
}

/// What answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    ListBuckets,
    CreateBucket,
    HeadBucket,
    DeleteBucket,
    GetBucketLocation,
    ListObjects,
    ListObjectsV2,
    ListObjectVersions,
    ListMultipartUploads,
    DeleteObjects,
    GetBucketAcl,
    /// The bucket has no such configuration; the code says so.
    NotConfigured(Code),
    /// The bucket has no such configuration; this document says so.
    Unset(&'static str),
    /// Deletes a configuration that no bucket has.
    NothingToDelete,
    PutObject,
    GetObject,
    HeadObject,
    DeleteObject,
    CopyObject,
    GetObjectAcl,
    GetObjectTagging,
    GetObjectAttributes,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
    RestoreObject,
    /// Forebay's own, for mounts: how much space there is.
    Space,
    /// Forebay's own, for mounts: a file or a directory gets another name.
    RenamePath,
    /// Not built: `NotImplemented`.
    NotBuilt,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The name of the call, as the API's documentation has it.
    pub(crate) name: &'static str,
    /// What answers it.
    pub(crate) op: Op,
    /// The method.
    pub(crate) method: &'static str,
    /// Where it acts.
    pub(crate) level: Level,
    /// All of these must hold.
    pub(crate) when: &'static [When],
    /// The action that permits it, without `s3:`.
    pub(crate) action: &'static str,
    /// How its body comes.
    pub(crate) body: BodyKind,
}

const fn row(
    level: Level,
    method: &'static str,
    when: &'static [When],
    name: &'static str,
    action: &'static str,
    op: Op,
) -> Call {
    Call {
        name,
        op,
        method,
        level,
        when,
        action,
        body: BodyKind::None,
    }
}

impl Call {
    const fn document(mut self) -> Self {
        self.body = BodyKind::Document;
        self
    }

    const fn stream(mut self) -> Self {
        self.body = BodyKind::Stream;
        self
    }
}

use Level::{Bucket, Object, Service};
use Op::{NotBuilt, NotConfigured, NothingToDelete, Unset};
use When::{Form, Header, Query as Q, QueryIs};

/// A bucket configuration that can be read, and neither written nor deleted yet.
macro_rules! rows {
    ($($level:ident $method:literal [$($when:expr),*] $name:literal $action:literal $op:expr $(, $body:ident)?;)*) => {
        /// All calls, in order of precedence.
        pub(crate) static CALLS: &[Call] = &[
            $(row($level, $method, &[$($when),*], $name, $action, $op)$(.$body())?,)*
        ];
    };
}

rows! {
    Service "GET" [] "ListBuckets" "ListAllMyBuckets" Op::ListBuckets;

    Bucket "GET" [Q("location")] "GetBucketLocation" "GetBucketLocation" Op::GetBucketLocation;
    Bucket "GET" [Q("policyStatus")] "GetBucketPolicyStatus" "GetBucketPolicyStatus" NotConfigured(Code::NoSuchBucketPolicy);
    Bucket "GET" [Q("policy")] "GetBucketPolicy" "GetBucketPolicy" NotConfigured(Code::NoSuchBucketPolicy);
    Bucket "GET" [Q("acl")] "GetBucketAcl" "GetBucketAcl" Op::GetBucketAcl;
    Bucket "GET" [Q("tagging")] "GetBucketTagging" "GetBucketTagging" NotConfigured(Code::NoSuchTagSet);
    Bucket "GET" [Q("versioning")] "GetBucketVersioning" "GetBucketVersioning" Unset("VersioningConfiguration");
    Bucket "GET" [Q("lifecycle")] "GetBucketLifecycleConfiguration" "GetLifecycleConfiguration" NotConfigured(Code::NoSuchLifecycleConfiguration);
    Bucket "GET" [Q("cors")] "GetBucketCors" "GetBucketCORS" NotConfigured(Code::NoSuchCORSConfiguration);
    Bucket "GET" [Q("logging")] "GetBucketLogging" "GetBucketLogging" Unset("BucketLoggingStatus");
    Bucket "GET" [Q("object-lock")] "GetObjectLockConfiguration" "GetBucketObjectLockConfiguration" NotConfigured(Code::ObjectLockConfigurationNotFoundError);
    Bucket "GET" [Q("compliance")] "GetBucketCompliance" "GetBucketCompliance" NotBuilt;
    Bucket "GET" [Q("encryption")] "GetBucketEncryption" "GetEncryptionConfiguration" NotConfigured(Code::ServerSideEncryptionConfigurationNotFoundError);
    Bucket "GET" [Q("ownershipControls")] "GetBucketOwnershipControls" "GetBucketOwnershipControls" NotConfigured(Code::OwnershipControlsNotFoundError);
    Bucket "GET" [Q("publicAccessBlock")] "GetPublicAccessBlock" "GetBucketPublicAccessBlock" NotConfigured(Code::NoSuchPublicAccessBlockConfiguration);
    Bucket "GET" [Q("notification")] "GetBucketNotificationConfiguration" "GetBucketNotification" Unset("NotificationConfiguration");
    Bucket "GET" [Q("inventory")] "GetBucketInventoryConfiguration" "GetInventoryConfiguration" NotConfigured(Code::NoSuchInventoryConfiguration);
    Bucket "GET" [Q("uploads")] "ListMultipartUploads" "ListBucketMultipartUploads" Op::ListMultipartUploads;
    Bucket "GET" [Q("versions")] "ListObjectVersions" "ListBucketVersions" Op::ListObjectVersions;
    Bucket "GET" [Q("requestPayment")] "GetBucketRequestPayment" "GetBucketRequestPayment" Unset("RequestPaymentConfiguration");
    Bucket "GET" [Q("website")] "GetBucketWebsite" "GetBucketWebsite" NotConfigured(Code::NoSuchWebsiteConfiguration);
    Bucket "GET" [Q("accelerate")] "GetBucketAccelerateConfiguration" "GetAccelerateConfiguration" Unset("AccelerateConfiguration");
    Bucket "GET" [Q("replication")] "GetBucketReplication" "GetReplicationConfiguration" NotConfigured(Code::ReplicationConfigurationNotFoundError);
    Bucket "GET" [Q("metrics")] "GetBucketMetricsConfiguration" "GetMetricsConfiguration" NotConfigured(Code::NoSuchConfiguration);
    Bucket "GET" [Q("analytics")] "GetBucketAnalyticsConfiguration" "GetAnalyticsConfiguration" NotConfigured(Code::NoSuchConfiguration);
    Bucket "GET" [Q("intelligent-tiering")] "GetBucketIntelligentTieringConfiguration" "GetIntelligentTieringConfiguration" NotConfigured(Code::NoSuchConfiguration);
    Bucket "GET" [Q("metadataTable")] "GetBucketMetadataTableConfiguration" "GetBucketMetadataTableConfiguration" NotConfigured(Code::NoSuchConfiguration);
    Bucket "GET" [Q("metadataConfiguration")] "GetBucketMetadataConfiguration" "GetBucketMetadataTableConfiguration" NotConfigured(Code::NoSuchConfiguration);
    Bucket "GET" [Q("forebay-space")] "ForebaySpace" "ListBucket" Op::Space;
    Bucket "GET" [QueryIs("list-type", "2")] "ListObjectsV2" "ListBucket" Op::ListObjectsV2;
    Bucket "GET" [] "ListObjects" "ListBucket" Op::ListObjects;

    Bucket "PUT" [Q("policy")] "PutBucketPolicy" "PutBucketPolicy" NotBuilt, document;
    Bucket "PUT" [Q("acl")] "PutBucketAcl" "PutBucketAcl" NotBuilt, document;
    Bucket "PUT" [Q("tagging")] "PutBucketTagging" "PutBucketTagging" NotBuilt, document;
    Bucket "PUT" [Q("versioning")] "PutBucketVersioning" "PutBucketVersioning" NotBuilt, document;
    Bucket "PUT" [Q("lifecycle")] "PutBucketLifecycleConfiguration" "PutLifecycleConfiguration" NotBuilt, document;
    Bucket "PUT" [Q("cors")] "PutBucketCors" "PutBucketCORS" NotBuilt, document;
    Bucket "PUT" [Q("logging")] "PutBucketLogging" "PutBucketLogging" NotBuilt, document;
    Bucket "PUT" [Q("object-lock")] "PutObjectLockConfiguration" "PutBucketObjectLockConfiguration" NotBuilt, document;
    Bucket "PUT" [Q("compliance")] "PutBucketCompliance" "PutBucketCompliance" NotBuilt, document;
    Bucket "PUT" [Q("encryption")] "PutBucketEncryption" "PutEncryptionConfiguration" NotBuilt, document;
    Bucket "PUT" [Q("ownershipControls")] "PutBucketOwnershipControls" "PutBucketOwnershipControls" NotBuilt, document;
    Bucket "PUT" [Q("publicAccessBlock")] "PutPublicAccessBlock" "PutBucketPublicAccessBlock" NotBuilt, document;
    Bucket "PUT" [Q("notification")] "PutBucketNotificationConfiguration" "PutBucketNotification" NotBuilt, document;
    Bucket "PUT" [Q("inventory")] "PutBucketInventoryConfiguration" "PutInventoryConfiguration" NotBuilt, document;
    Bucket "PUT" [Q("requestPayment")] "PutBucketRequestPayment" "PutBucketRequestPayment" NotBuilt, document;
    Bucket "PUT" [Q("website")] "PutBucketWebsite" "PutBucketWebsite" NotBuilt, document;
    Bucket "PUT" [Q("accelerate")] "PutBucketAccelerateConfiguration" "PutAccelerateConfiguration" NotBuilt, document;
    Bucket "PUT" [Q("replication")] "PutBucketReplication" "PutReplicationConfiguration" NotBuilt, document;
    Bucket "PUT" [Q("metrics")] "PutBucketMetricsConfiguration" "PutMetricsConfiguration" NotBuilt, document;
    Bucket "PUT" [Q("analytics")] "PutBucketAnalyticsConfiguration" "PutAnalyticsConfiguration" NotBuilt, document;
    Bucket "PUT" [Q("intelligent-tiering")] "PutBucketIntelligentTieringConfiguration" "PutIntelligentTieringConfiguration" NotBuilt, document;
    Bucket "PUT" [] "CreateBucket" "CreateBucket" Op::CreateBucket, document;

    Bucket "DELETE" [Q("policy")] "DeleteBucketPolicy" "DeleteBucketPolicy" NothingToDelete;
    Bucket "DELETE" [Q("tagging")] "DeleteBucketTagging" "PutBucketTagging" NothingToDelete;
    Bucket "DELETE" [Q("lifecycle")] "DeleteBucketLifecycle" "PutLifecycleConfiguration" NothingToDelete;
    Bucket "DELETE" [Q("cors")] "DeleteBucketCors" "PutBucketCORS" NothingToDelete;
    Bucket "DELETE" [Q("encryption")] "DeleteBucketEncryption" "PutEncryptionConfiguration" NothingToDelete;
    Bucket "DELETE" [Q("ownershipControls")] "DeleteBucketOwnershipControls" "PutBucketOwnershipControls" NothingToDelete;
    Bucket "DELETE" [Q("publicAccessBlock")] "DeletePublicAccessBlock" "PutBucketPublicAccessBlock" NothingToDelete;
    Bucket "DELETE" [Q("inventory")] "DeleteBucketInventoryConfiguration" "PutInventoryConfiguration" NotBuilt;
    Bucket "DELETE" [Q("website")] "DeleteBucketWebsite" "DeleteBucketWebsite" NotBuilt;
    Bucket "DELETE" [Q("replication")] "DeleteBucketReplication" "PutReplicationConfiguration" NotBuilt;
    Bucket "DELETE" [Q("force_delete")] "DeleteBucketForce" "DeleteBucket" NotBuilt;
    Bucket "DELETE" [] "DeleteBucket" "DeleteBucket" Op::DeleteBucket;

    Bucket "HEAD" [] "HeadBucket" "ListBucket" Op::HeadBucket;
    Bucket "POST" [Q("delete")] "DeleteObjects" "DeleteObject" Op::DeleteObjects, document;
    Bucket "POST" [Form] "PostObject" "PutObject" NotBuilt, stream;
    Bucket "MOVE" [] "MoveBucket" "CreateBucket" NotBuilt;
    Bucket "OPTIONS" [] "PreflightBucket" "" NotBuilt;

    Object "GET" [Q("uploadId")] "ListParts" "ListMultipartUploadParts" Op::ListParts;
    Object "GET" [Q("acl")] "GetObjectAcl" "GetObjectAcl" Op::GetObjectAcl;
    Object "GET" [Q("tagging")] "GetObjectTagging" "GetObjectTagging" Op::GetObjectTagging;
    Object "GET" [Q("attributes")] "GetObjectAttributes" "GetObjectAttributes" Op::GetObjectAttributes;
    Object "GET" [Q("retention")] "GetObjectRetention" "GetObjectRetention" NotBuilt;
    Object "GET" [Q("legal-hold")] "GetObjectLegalHold" "GetObjectLegalHold" NotBuilt;
    Object "GET" [Q("compliance")] "GetObjectCompliance" "GetObjectCompliance" NotBuilt;
    Object "GET" [Q("torrent")] "GetObjectTorrent" "GetObjectTorrent" NotBuilt;
    Object "GET" [] "GetObject" "GetObject" Op::GetObject;
    Object "HEAD" [] "HeadObject" "GetObject" Op::HeadObject;

    Object "PUT" [Q("uploadId"), Q("partNumber"), Header("x-amz-copy-source")] "UploadPartCopy" "PutObject" Op::UploadPartCopy, document;
    Object "PUT" [Q("uploadId"), Q("partNumber")] "UploadPart" "PutObject" Op::UploadPart, stream;
    Object "PUT" [Q("acl")] "PutObjectAcl" "PutObjectAcl" NotBuilt, document;
    Object "PUT" [Q("tagging")] "PutObjectTagging" "PutObjectTagging" NotBuilt, document;
    Object "PUT" [Q("retention")] "PutObjectRetention" "PutObjectRetention" NotBuilt, document;
    Object "PUT" [Q("legal-hold")] "PutObjectLegalHold" "PutObjectLegalHold" NotBuilt, document;
    Object "PUT" [Q("compliance")] "PutObjectCompliance" "PutObjectCompliance" NotBuilt, document;
    Object "PUT" [Q("compose")] "ComposeObject" "PutObject" NotBuilt, document;
    Object "PUT" [Q("append")] "AppendObject" "PutObject" NotBuilt, stream;
    Object "PUT" [Q("renameObject")] "RenameObject" "PutObject" NotBuilt;
    Object "PUT" [Header("x-amz-copy-source")] "CopyObject" "PutObject" Op::CopyObject, document;
    Object "PUT" [Header("x-amz-write-offset-bytes")] "AppendObjectAt" "PutObject" NotBuilt, stream;
    Object "PUT" [] "PutObject" "PutObject" Op::PutObject, stream;

    Object "POST" [Q("forebay-rename")] "ForebayRename" "PutObject" Op::RenamePath;
    Object "POST" [Q("uploads")] "CreateMultipartUpload" "PutObject" Op::CreateMultipartUpload;
    Object "POST" [Q("uploadId")] "CompleteMultipartUpload" "PutObject" Op::CompleteMultipartUpload, document;
    Object "POST" [Q("restore")] "RestoreObject" "RestoreObject" Op::RestoreObject, document;
    Object "POST" [Q("select")] "SelectObjectContent" "GetObject" NotBuilt, document;

    Object "DELETE" [Q("uploadId")] "AbortMultipartUpload" "AbortMultipartUpload" Op::AbortMultipartUpload;
    Object "DELETE" [Q("tagging")] "DeleteObjectTagging" "DeleteObjectTagging" NotBuilt;
    Object "DELETE" [] "DeleteObject" "DeleteObject" Op::DeleteObject;
    Object "MOVE" [] "MoveObject" "PutObject" NotBuilt;
    Object "OPTIONS" [] "PreflightObject" "" NotBuilt;
}

/// Parameters that name a sub-resource, or a call of their own, at any level and for any method.
const SUBRESOURCES: &[&str] = &[
    "abac",
    "accelerate",
    "acl",
    "analytics",
    "annotation",
    "append",
    "attributes",
    "compliance",
    "compose",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metadataConfiguration",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versioning",
    "versions",
    "website",
];

impl When {
    fn holds(self, query: &Query, headers: &HeaderMap) -> bool {
        match self {
            Q(name) => query.has(name),
            QueryIs(name, value) => query.get(name) == Some(value),
            // A presigned request may have it in its query.
            Header(name) => {
                let named = |(parameter, _): (&str, &str)| parameter.eq_ignore_ascii_case(name);
                headers.contains_key(name) || query.iter().any(named)
            }
            Form => headers
                .get("content-type")
                .is_some_and(|value| value.as_bytes().starts_with(b"multipart/form-data")),
        }
    }
}

/// Finds the call of a request: its place in [`CALLS`].
///
/// # Errors
/// `MethodNotAllowed` where no call has the method, `NotImplemented` for a sub-resource that the
/// call does not have, `InvalidRequest` or `InvalidArgument` for a parameter in the wrong place.
pub(crate) fn route(
    method: &Method,
    level: Level,
    query: &Query,
    headers: &HeaderMap,
) -> Result<usize> {
    check_places(method, level, query, headers)?;
    let matches = |call: &Call| {
        call.level == level
            && call.method == method.as_str()
            && call.when.iter().all(|when| when.holds(query, headers))
    };
    let resource = match level {
        Service => "SERVICE",
        Bucket => "BUCKET",
        Object => "OBJECT",
    };
    let index = CALLS.iter().position(matches).ok_or_else(|| {
        S3Error::new(Code::MethodNotAllowed)
            .field("Method", method.as_str())
            .field("ResourceType", resource)
    })?;
    if CALLS[index].when.is_empty() || !CALLS[index].when.iter().any(|when| matches!(when, Q(_))) {
        // Invariant 1.
        if let Some(name) = query
            .iter()
            .map(|pair| pair.0)
            .find(|name| SUBRESOURCES.contains(name))
        {
            return Err(S3Error::new(Code::NotImplemented).field("additionalMessage", name));
        }
    }
    Ok(index)
}

fn check_places(method: &Method, level: Level, query: &Query, headers: &HeaderMap) -> Result<()> {
    let on_key = |name: &'static str| {
        if level == Object && query.has(name) && method == Method::GET {
            return Err(S3Error::request(format!(
                "Key is not expected for the GET method ?{name} subresource"
            )));
        }
        Ok(())
    };
    on_key("uploads")?;
    on_key("versions")?;
    if level == Object && method == Method::PUT {
        let (part, upload) = (query.get("partNumber"), query.get("uploadId"));
        match (part, upload) {
            (Some(part), None) => {
                return Err(S3Error::argument(
                    "partNumber",
                    part,
                    "This operation does not accept partNumber without uploadId",
                ));
            }
            (None, Some(upload)) => {
                return Err(S3Error::argument(
                    "uploadId",
                    upload,
                    "This operation does not accept uploadId without partNumber",
                ));
            }
            _ => {}
        }
    }
    let copy = headers.get("x-amz-copy-source");
    if let Some(source) = copy.filter(|_| method == Method::GET || method == Method::POST) {
        let source = String::from_utf8_lossy(source.as_bytes());
        return Err(S3Error::argument(
            "x-amz-copy-source",
            &source,
            "You can only specify a copy source header for copy requests.",
        ));
    }
    match query.get("list-type") {
        Some(kind)
            if level == Bucket && method == Method::GET && !matches!(kind, "" | "1" | "2") =>
        {
            Err(S3Error::argument(
                "list-type",
                kind,
                "Invalid List Type specified in Request",
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn name(method: &str, level: Level, query: &str) -> Result<&'static str> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let query = Query::parse(query).unwrap();
        route(&method, level, &query, &HeaderMap::new()).map(|index| CALLS[index].name)
    }

    #[test]
    fn every_row_is_reached_by_a_request_that_fits_it() {
        for (index, call) in CALLS.iter().enumerate() {
            let mut headers = HeaderMap::new();
            let mut query = Vec::new();
            for when in call.when {
                match when {
                    Q(name) => query.push(format!("{name}=1")),
                    QueryIs(name, value) => query.push(format!("{name}={value}")),
                    Header(name) => drop(headers.insert(*name, HeaderValue::from_static("x"))),
                    Form => {
                        let form = HeaderValue::from_static("multipart/form-data; boundary=x");
                        headers.insert("content-type", form);
                    }
                }
            }
            let query = Query::parse(&query.join("&")).unwrap();
            let method = Method::from_bytes(call.method.as_bytes()).unwrap();
            assert_eq!(
                route(&method, call.level, &query, &headers).unwrap(),
                index,
                "{}",
                call.name
            );
        }
    }

    #[test]
    fn calls_are_told_apart() {
        let rows = [
            ("GET", Service, "x-id=ListBuckets", "ListBuckets"),
            ("GET", Bucket, "list-type=1&prefix=a", "ListObjects"),
            ("GET", Bucket, "list-type=2", "ListObjectsV2"),
            ("GET", Bucket, "acl=", "GetBucketAcl"),
            ("GET", Bucket, "unknown", "ListObjects"),
            ("PUT", Object, "x-id=PutObject", "PutObject"),
            ("PUT", Object, "partNumber=1&uploadId=u", "UploadPart"),
            ("GET", Object, "partNumber=1", "GetObject"),
            ("POST", Object, "uploads", "CreateMultipartUpload"),
            ("POST", Object, "uploadId=u", "CompleteMultipartUpload"),
            ("DELETE", Object, "uploadId=u", "AbortMultipartUpload"),
            ("DELETE", Object, "versionId=v", "DeleteObject"),
        ];
        for (method, level, query, expected) in rows {
            assert_eq!(name(method, level, query).unwrap(), expected);
        }
    }

    #[test]
    fn a_subresource_never_reaches_another_call() {
        let rows = [
            ("DELETE", Bucket, "versioning", Code::NotImplemented),
            ("DELETE", Bucket, "logging", Code::NotImplemented),
            ("PUT", Bucket, "session", Code::NotImplemented),
            ("GET", Bucket, "session", Code::NotImplemented),
            ("HEAD", Object, "acl", Code::NotImplemented),
            ("PUT", Object, "restore", Code::NotImplemented),
            ("DELETE", Object, "acl", Code::NotImplemented),
            ("GET", Object, "uploads", Code::InvalidRequest),
            ("GET", Object, "versions", Code::InvalidRequest),
            ("PUT", Object, "partNumber=1", Code::InvalidArgument),
            ("PUT", Object, "uploadId=1", Code::InvalidArgument),
            ("GET", Bucket, "list-type=3", Code::InvalidArgument),
            ("POST", Object, "", Code::MethodNotAllowed),
            ("POST", Bucket, "", Code::MethodNotAllowed),
            ("PATCH", Object, "", Code::MethodNotAllowed),
            ("PUT", Service, "", Code::MethodNotAllowed),
        ];
        for (method, level, query, code) in rows {
            assert_eq!(
                name(method, level, query).unwrap_err().code(),
                code,
                "{method} ?{query}"
            );
        }
    }
}
