//! The HTTP client as what names and heads are asked of.

use forebay_store::api::Usage;
use forebay_store::entry::Headers;
use forebay_store::error::{Error, Result};
use forebay_store::name::BucketName;
use forebay_store::time::Timestamp;
use http::StatusCode;

use super::catalog::{Asked, Catalog, From, Head, KeyHeads, Keys, ListKeys, Listed};
use crate::origin::{self, Client, OriginError};

impl Catalog for Client {
    fn head<'a>(&'a self, bucket: &'a str, key: &'a str) -> Asked<'a, Option<Head>> {
        Box::pin(async move {
            match self.head(bucket, key, None).await {
                Ok(head) => head.map(|head| head_of(key, &head)).transpose(),
                Err(err) => Err(error_of(bucket, err)),
            }
        })
    }

    fn list<'a>(&'a self, list: &'a ListKeys) -> Asked<'a, Keys> {
        Box::pin(async move {
            let asked = origin::List {
                bucket: &list.bucket,
                prefix: &list.prefix,
                delimiter: list.by_directory.then_some("/"),
                from: match &list.from {
                    From::Start => origin::From::Start,
                    From::After(key) => origin::From::After(key),
                    From::Token(token) => origin::From::Token(token),
                },
                max_keys: Some(list.limit.into()),
                heads: list.heads,
            };
            let page = self.list(&asked).await;
            let page = page.map_err(|err| error_of(&list.bucket, err))?;
            let heads = page.heads.as_ref().map(|heads| key_heads(&page, heads));
            Ok(Keys {
                heads,
                objects: page.objects.into_iter().map(listed_of).collect(),
                prefixes: page.prefixes,
                token: page.next,
            })
        })
    }

    fn space<'a>(&'a self, bucket: &'a str) -> Asked<'a, Option<Usage>> {
        Box::pin(async move {
            let asked = async {
                if !self.is_forebay(bucket).await? {
                    return Ok(None);
                }
                self.space(bucket).await.map(Some)
            };
            let space = asked.await.map_err(|err| error_of(bucket, err))?;
            Ok(space.map(|space| Usage {
                total: space.total,
                available: space.available,
                inodes_available: space.inodes_available,
            }))
        })
    }

    fn buckets(&self) -> Asked<'_, Vec<(BucketName, Timestamp)>> {
        Box::pin(async move {
            let buckets = self.list_buckets().await.map_err(|err| error_of("", err))?;
            let known = buckets.into_iter().filter_map(|bucket| {
                // Buckets from before today's rules can't be shown.
                let name = BucketName::parse(&bucket.name).ok()?;
                Some((name, bucket.created_at.unwrap_or_default()))
            });
            Ok(known.collect())
        })
    }
}

/// The heads of a page; an object without a strong entity tag has none that can be used.
fn key_heads(page: &origin::Page, heads: &origin::Heads) -> KeyHeads {
    let objects = page.objects.iter().zip(&heads.objects);
    let markers = page.prefixes.iter().zip(&heads.markers);
    KeyHeads {
        objects: objects
            .filter_map(|(listed, head)| head_of(&listed.key, head).ok())
            .collect(),
        markers: markers
            .map(|(prefix, marker)| head_of(prefix, marker.as_ref()?).ok())
            .collect(),
    }
}

/// An object that is listed without an entity tag is shown; it is its head that can't be used.
fn listed_of(listed: origin::Listed) -> Listed {
    Listed {
        key: listed.key,
        size: listed.size,
        etag: listed.etag.unwrap_or_default(),
        modified_at: listed.last_modified.unwrap_or_default(),
    }
}

fn head_of(key: &str, head: &origin::Head) -> Result<Head> {
    let Some(etag) = head.etag.clone() else {
        return Err(Error::OriginAnswer(format!(
            "{key} has no strong entity tag: its versions can't be told apart"
        )));
    };
    let metadata = head.metadata();
    let user_metadata = metadata
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .collect();
    let text = |name: &str| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    Ok(Head {
        listed: Listed {
            key: key.to_owned(),
            size: head.size,
            etag,
            modified_at: head.last_modified.unwrap_or_default(),
        },
        user_metadata,
        headers: Headers {
            content_type: text("content-type"),
            cache_control: text("cache-control"),
            content_disposition: text("content-disposition"),
            content_encoding: text("content-encoding"),
            content_language: text("content-language"),
            expires: text("expires"),
        },
        storage_class: text("x-amz-storage-class"),
    })
}

/// What the store would say.
pub(super) fn error_of(bucket: &str, err: OriginError) -> Error {
    match err {
        OriginError::Unavailable(why) => Error::OriginUnavailable(why),
        OriginError::Refused(refusal) => match refusal.status {
            StatusCode::NOT_FOUND => match BucketName::parse(bucket) {
                Ok(name) => Error::NoSuchBucket(name),
                Err(err) => err,
            },
            StatusCode::PRECONDITION_FAILED => {
                Error::PreconditionFailed("the object changed at the origin")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::OriginDenied(format!("{} {}", refusal.code, refusal.message))
            }
            status if status.is_server_error() => {
                Error::OriginUnavailable(format!("{status} {}", refusal.code))
            }
            status => Error::OriginAnswer(format!("{status} {}", refusal.code)),
        },
        OriginError::Corrupt(why) | OriginError::Body(why) | OriginError::Invalid(why) => {
            Error::OriginAnswer(why)
        }
    }
}
