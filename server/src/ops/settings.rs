//! What can be read of buckets' and objects' settings before any of them can be changed.
//!
//! Each answer is the truth: no bucket has a policy, so there is none; the owner has every right.

use http::StatusCode;

use super::{Context, objects};
use crate::auth::Authenticated;
use crate::error::{Code, Result, S3Error};
use crate::reply::{self, Response};
use crate::xml::write::{self, Owner};

const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// Says that the bucket has no such configuration.
pub(super) fn not_configured(
    cx: &Context<'_>,
    auth: &Authenticated,
    code: Code,
) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    Err(S3Error::new(code).field("BucketName", bucket.name.as_str()))
}

/// Answers with the document of a configuration that was never made.
pub(super) fn unset(
    cx: &Context<'_>,
    auth: &Authenticated,
    root: &'static str,
) -> Result<Response> {
    cx.bucket(auth)?;
    Ok(reply::xml(match root {
        "RequestPaymentConfiguration" => {
            let document = write::RequestPaymentConfiguration {
                payer: "BucketOwner",
            };
            write::document(root, &document)
        }
        _ => write::document(root, &write::Empty {}),
    }))
}

/// Deletes a configuration that no bucket has.
pub(super) fn nothing_to_delete(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    cx.bucket(auth)?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `GetBucketAcl`.
pub(super) fn bucket_acl(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    Ok(acl(cx.owner(&bucket.owner)))
}

/// `GetObjectAcl`.
pub(super) async fn object_acl(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let entry = objects::entry(cx, &bucket).await?;
    Ok(acl(cx.owner(&entry.owner)))
}

fn acl(owner: Owner) -> Response {
    let grantee = write::Grantee {
        xsi: XSI,
        kind: "CanonicalUser",
        id: owner.id.clone(),
        display_name: owner.display_name.clone(),
    };
    let grants = vec![write::Grant {
        grantee,
        permission: "FULL_CONTROL",
    }];
    let document = write::AccessControlPolicy {
        owner,
        access_control_list: write::AccessControlList { grants },
    };
    reply::xml(write::document("AccessControlPolicy", &document))
}

/// `GetObjectTagging`.
pub(super) async fn object_tagging(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let entry = objects::entry(cx, &bucket).await?;
    let tag = |(key, value): &(String, String)| write::Tag {
        key: key.clone(),
        value: value.clone(),
    };
    let document = write::Tagging {
        tag_set: write::TagSet {
            tags: entry.attributes.tags.iter().map(tag).collect(),
        },
    };
    let mut response = reply::xml(write::document("Tagging", &document));
    objects::push_version(response.headers_mut(), &entry);
    Ok(response)
}

/// `RestoreObject`: nothing here is ever archived.
pub(super) async fn restore(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let entry = objects::entry(cx, &bucket).await?;
    let class = entry
        .attributes
        .storage_class
        .as_deref()
        .unwrap_or("STANDARD");
    Err(S3Error::with(
        Code::InvalidObjectState,
        "Restore is not allowed for the object's current storage class",
    )
    .field("StorageClass", class))
}
