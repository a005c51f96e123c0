//! Calls on buckets themselves.

use forebay_store::Error;
use forebay_store::api::{Face, ListAfter, ListBuckets, NewBucket};
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::Context;
use crate::auth::Authenticated;
use crate::body::RequestBody;
use crate::compat::LocationRule;
use crate::error::{Code, Result, S3Error};
use crate::header::{push_text, refuse_unbuilt, text};
use crate::reply::{self, ReplyBody, Response};
use crate::xml::read::{self, CreateBucketConfiguration};
use crate::xml::write;
use crate::{listing, target, time};

/// Buckets of one page of `ListBuckets`, at most.
const PAGE_MAX: usize = 10_000;
/// Longest `LocationConstraint`, in bytes.
const LOCATION_LEN_MAX: usize = 64;

/// `ListBuckets`.
pub(super) async fn list(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let account = auth.account()?;
    let query = &cx.request.query;
    let limit = max_buckets(query.get("max-buckets"))?;
    let prefix = query.get("prefix");
    let after = match listing::non_empty(query, "continuation-token").map(listing::parse_token) {
        None => None,
        Some(Ok(ListAfter::Key(name))) => Some(name),
        Some(Ok(ListAfter::Prefix(_)) | Err(_)) => {
            return Err(S3Error::argument(
                "continuation-token",
                "",
                "The continuation token provided is incorrect",
            ));
        }
    };
    let owned = ListBuckets {
        owner: Some(account.id.clone()),
        prefix: prefix.unwrap_or_default().to_owned(),
        after,
        limit: None,
    };
    let (buckets, _) = cx.objects().list_buckets(owned).await?;
    let region = listing::non_empty(query, "bucket-region");
    let mut wanted = buckets
        .iter()
        .filter(|bucket| region.is_none_or(|region| cx.location_of(bucket) == region));
    let page: Vec<write::Bucket> = wanted
        .by_ref()
        .take(limit.unwrap_or(usize::MAX))
        .map(|bucket| write::Bucket {
            name: bucket.name.as_str().to_owned(),
            creation_date: time::iso8601(millis(bucket.created_at)),
            bucket_region: cx.location_of(bucket).to_owned(),
        })
        .collect();
    let last = wanted.next().and(page.last());
    let continuation_token = last.map(|last| listing::token(&ListAfter::Key(last.name.clone())));
    Ok(reply::xml(write::document(
        "ListAllMyBucketsResult",
        &write::ListAllMyBucketsResult {
            owner: cx.owner(&account.id),
            buckets: write::Buckets { buckets: page },
            continuation_token,
            prefix: prefix.map(str::to_owned),
        },
    )))
}

/// Milliseconds since 1970, as documents show them.
pub(super) fn millis(at: forebay_store::time::Timestamp) -> i64 {
    at.0.div_euclid(1_000_000)
}

fn max_buckets(text: Option<&str>) -> Result<Option<usize>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(limit @ 1..=PAGE_MAX) => Ok(Some(limit)),
        _ => Err(S3Error::argument(
            "max-buckets",
            text,
            "Argument max-buckets must be an integer between 1 and 10000",
        )),
    }
}

/// `CreateBucket`.
pub(super) async fn create(
    cx: &Context<'_>,
    auth: Authenticated,
    body: &mut RequestBody,
) -> Result<Response> {
    let account = std::sync::Arc::clone(auth.account()?);
    let name = target::bucket_name(
        cx.request.target.bucket.as_deref().unwrap_or_default(),
        cx.compat(),
    )?;
    refuse_unbuilt(&cx.request.headers)?;
    refuse_unbuilt_settings(&cx.request.headers)?;
    let document = super::document(cx, auth, body).await?;
    let location = location_constraint(cx, &document)?;
    let asked_for = location
        .clone()
        .unwrap_or_else(|| cx.service.region.clone());
    let bucket = NewBucket {
        name,
        owner: account.id.clone(),
        location,
        face: Face::S3,
    };
    let header = bucket_path(bucket.name.as_str());
    match cx.objects().create_bucket(bucket).await {
        Ok(_) => {}
        Err(Error::BucketExists {
            name,
            owner,
            location,
        }) => {
            let there = location.as_deref().unwrap_or(&cx.service.region);
            let same = there == asked_for && cx.compat().recreate_is_idempotent();
            let code = if owner == account.id {
                Code::BucketAlreadyOwnedByYou
            } else {
                Code::BucketAlreadyExists
            };
            if owner != account.id || !same {
                return Err(S3Error::new(code).field("BucketName", name.as_str()));
            }
        }
        Err(error) => return Err(error.into()),
    }
    let mut headers = HeaderMap::new();
    headers.insert(LOCATION, header);
    Ok(reply::with_headers(
        StatusCode::OK,
        headers,
        ReplyBody::Empty,
    ))
}

fn bucket_path(name: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("/{name}")).expect("a bucket's name is ASCII")
}

fn refuse_unbuilt_settings(headers: &HeaderMap) -> Result<()> {
    let lock = "x-amz-bucket-object-lock-enabled";
    if text(headers, lock)?.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Err(S3Error::not_implemented(lock));
    }
    let ownership = "x-amz-object-ownership";
    match text(headers, ownership)? {
        None => Ok(()),
        Some("BucketOwnerPreferred" | "ObjectWriter" | "BucketOwnerEnforced") => {
            Err(S3Error::not_implemented(ownership))
        }
        Some(other) => Err(S3Error::argument(
            ownership,
            other,
            "Invalid x-amz-object-ownership header",
        )),
    }
}

fn location_constraint(cx: &Context<'_>, document: &[u8]) -> Result<Option<String>> {
    let configuration: CreateBucketConfiguration = if document.is_empty() {
        CreateBucketConfiguration::default()
    } else {
        read::parse(document, &["CreateBucketConfiguration"])?
    };
    if configuration.tags.is_some() {
        return Err(S3Error::new(Code::NotImplemented).field("additionalMessage", "Tags"));
    }
    let sent = configuration
        .location_constraint
        .filter(|location| !location.is_empty());
    let refused = |location: &str| {
        S3Error::new(Code::InvalidLocationConstraint).field("LocationConstraint", location)
    };
    if let Some(location) = &sent
        && (location.len() > LOCATION_LEN_MAX
            || !location.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        return Err(refused(location));
    }
    match (cx.compat().location_constraint(), sent) {
        (LocationRule::Ignore, _) => Ok(None),
        (LocationRule::Require, None) => Err(refused("")),
        (LocationRule::Validate, Some(location)) if location != cx.service.region => {
            Err(refused(&location))
        }
        (_, sent) => Ok(sent),
    }
}

/// `HeadBucket`.
pub(super) fn head(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let mut headers = HeaderMap::new();
    push_text(
        &mut headers,
        HeaderName::from_static("x-amz-bucket-region"),
        Some(cx.location_of(&bucket)),
    );
    let alias = HeaderName::from_static("x-amz-access-point-alias");
    headers.insert(alias, HeaderValue::from_static("false"));
    Ok(reply::with_headers(
        StatusCode::OK,
        headers,
        ReplyBody::Empty,
    ))
}

/// `DeleteBucket`.
pub(super) async fn delete(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    cx.objects()
        .delete_bucket(bucket.name.clone(), Face::S3)
        .await?;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `GetBucketLocation`.
pub(super) fn location(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let location = cx
        .compat()
        .fixed_location()
        .unwrap_or_else(|| cx.location_of(&bucket));
    // The oldest region has no name of its own.
    let location = (location != "us-east-1").then(|| location.to_owned());
    let document = write::LocationConstraint { location };
    Ok(reply::xml(write::document("LocationConstraint", &document)))
}
