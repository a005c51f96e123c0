//! The calls: one function each, in the order parse, authorize, act, answer.
//!
//! A handler gets the request, its body, and an [`Authenticated`] that only `auth` can make; what
//! it acts on it gets from [`Context::bucket`], which asks whether the caller may.

mod attributes;
mod buckets;
mod copy;
mod delete;
mod granting;
mod listing;
mod multipart;
mod objects;
mod settings;
mod tree;
mod uploads;

use std::sync::Arc;

use forebay_store::Objects;
use forebay_store::entry::Bucket;
use forebay_store::name::{AccountId, ObjectKey};
use http::{HeaderName, HeaderValue};

use crate::auth::Authenticated;
use crate::body::{DOCUMENT_MAX, RequestBody};
use crate::call::Op;
use crate::checksum::Expected;
use crate::compat::Compat;
use crate::error::{Code, Result, S3Error};
use crate::header::text;
use crate::reply::Response;
use crate::service::{S3Request, Service};
use crate::target;
use crate::xml::write::Owner;

/// What every handler works with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'r> {
    /// The server.
    pub(crate) service: &'r Service,
    /// The request.
    pub(crate) request: &'r S3Request,
}

/// Answers a call.
pub(crate) async fn run(
    cx: &Context<'_>,
    auth: Authenticated,
    body: &mut RequestBody,
) -> Result<Response> {
    match cx.request.call.op {
        Op::GetObject => objects::get(cx, &auth).await,
        Op::HeadObject => objects::head(cx, &auth).await,
        Op::PutObject => objects::put(cx, auth, body).await,
        Op::DeleteObject => delete::one(cx, &auth).await,
        Op::DeleteObjects => delete::many(cx, auth, body).await,
        Op::CopyObject => copy::object(cx, &auth, body).await,
        Op::ListObjects => listing::v1(cx, &auth).await,
        Op::ListObjectsV2 => listing::v2(cx, &auth).await,
        Op::ListObjectVersions => listing::versions(cx, &auth).await,
        Op::ListBuckets => buckets::list(cx, &auth).await,
        Op::CreateBucket => buckets::create(cx, auth, body).await,
        Op::HeadBucket => buckets::head(cx, &auth),
        Op::DeleteBucket => buckets::delete(cx, &auth).await,
        Op::GetBucketLocation => buckets::location(cx, &auth),
        Op::GetBucketAcl => settings::bucket_acl(cx, &auth),
        Op::GetObjectAcl => settings::object_acl(cx, &auth).await,
        Op::GetObjectTagging => settings::object_tagging(cx, &auth).await,
        Op::GetObjectAttributes => attributes::get(cx, &auth).await,
        Op::NotConfigured(code) => settings::not_configured(cx, &auth, code),
        Op::Unset(root) => settings::unset(cx, &auth, root),
        Op::NothingToDelete => settings::nothing_to_delete(cx, &auth),
        Op::RestoreObject => settings::restore(cx, &auth).await,
        Op::CreateMultipartUpload => multipart::create(cx, &auth).await,
        Op::UploadPart => multipart::upload_part(cx, auth, body).await,
        Op::UploadPartCopy => copy::part(cx, &auth, body).await,
        Op::CompleteMultipartUpload => multipart::complete(cx, auth, body).await,
        Op::AbortMultipartUpload => multipart::abort(cx, &auth).await,
        Op::ListParts => uploads::parts(cx, &auth).await,
        Op::ListMultipartUploads => uploads::list(cx, &auth).await,
        Op::Space => tree::space(cx, &auth),
        Op::RenamePath => tree::rename(cx, &auth).await,
        Op::NotBuilt => not_built(cx, &auth),
    }
}

/// Says that a call is not built, to who may call at all.
fn not_built(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    auth.account()?;
    Err(S3Error::new(Code::NotImplemented).field("additionalMessage", cx.request.call.name))
}

impl Context<'_> {
    /// What is stored.
    pub(crate) fn objects(&self) -> &dyn Objects {
        &*self.service.objects
    }

    /// Whose behaviour is followed.
    pub(crate) fn compat(&self) -> Compat {
        self.service.compat
    }

    /// The bucket that the request names, if the caller may do there what the request asks.
    ///
    /// A bucket's owner may do everything in it, a grant what it is for, others nothing.
    ///
    /// # Errors
    /// `InvalidBucketName`, `NoSuchBucket`, `AccessDenied`.
    pub(crate) fn bucket(&self, auth: &Authenticated) -> Result<Arc<Bucket>> {
        let name = self.request.target.bucket.as_deref().unwrap_or_default();
        let bucket = match auth.grant() {
            Some(grant) => granting::bucket(self, grant, name)?,
            None => self.bucket_named(auth, name)?,
        };
        self.check_expected_owner("x-amz-expected-bucket-owner", &bucket.owner)?;
        Ok(bucket)
    }

    /// As [`bucket`](Self::bucket), for a bucket named elsewhere in the request.
    ///
    /// # Errors
    /// As [`bucket`](Self::bucket).
    pub(crate) fn bucket_named(&self, auth: &Authenticated, name: &str) -> Result<Arc<Bucket>> {
        let name = target::bucket_name(name, self.compat())?;
        let account = auth.account()?;
        let bucket = self.objects().bucket(&name)?;
        if bucket.owner == account.id {
            return Ok(bucket);
        }
        let region = HeaderValue::from_str(self.location_of(&bucket));
        let error = S3Error::new(Code::AccessDenied);
        Err(match region {
            // Clients find out from it where to ask.
            Ok(region) => error.header(HeaderName::from_static("x-amz-bucket-region"), region),
            Err(_) => error,
        })
    }

    /// Refuses a request that expects its bucket to be another account's.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn check_expected_owner(&self, header: &str, owner: &AccountId) -> Result<()> {
        match text(&self.request.headers, header)? {
            Some(expected) if expected != owner.as_str() => Err(Code::AccessDenied.into()),
            _ => Ok(()),
        }
    }

    /// The key that the request names.
    ///
    /// # Errors
    /// `KeyTooLongError`.
    pub(crate) fn key(&self) -> Result<ObjectKey> {
        let key = self.request.target.key.as_deref().unwrap_or_default();
        Ok(ObjectKey::parse(key)?)
    }

    /// Where a bucket is.
    pub(crate) fn location_of<'a>(&'a self, bucket: &'a Bucket) -> &'a str {
        bucket.location.as_deref().unwrap_or(&self.service.region)
    }

    /// An account as documents show it.
    pub(crate) fn owner(&self, id: &AccountId) -> Owner {
        let account = self.objects().account(id);
        let display_name = account.map_or_else(String::new, |account| account.name.clone());
        Owner {
            id: id.as_str().to_owned(),
            display_name,
        }
    }
}

/// Reads a small document of a request.
async fn document(
    cx: &Context<'_>,
    mut auth: Authenticated,
    body: &mut RequestBody,
) -> Result<bytes::Bytes> {
    let expected = Expected::of_document(&cx.request.headers, &auth.take_payload())?;
    body.document(&expected, DOCUMENT_MAX).await
}
