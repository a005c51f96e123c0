//! `ListObjects`, `ListObjectsV2`, `ListObjectVersions`.

use std::collections::HashMap;

use forebay_store::api::{HeadItem, HeadPage, List, ListAfter, ListItem, ListPage};
use forebay_store::entry::{Bucket, Entry, ListedEntry};
use forebay_store::name::AccountId;
use http::HeaderMap;
use http::header::{CACHE_CONTROL, EXPIRES};

use super::Context;
use super::buckets::millis;
use crate::auth::Authenticated;
use crate::checksum::{algorithm_name, type_name};
use crate::error::{Result, S3Error};
use crate::header;
use crate::listing::{self, Encoding};
use crate::reply::{self, Response};
use crate::time;
use crate::xml::list::{CommonPrefix, Contents, ListBucketResult, ListVersions, Version};
use crate::xml::write::{self, Owner};

/// What the three listings have in common.
struct Asked<'r> {
    prefix: &'r str,
    delimiter: Option<&'r str>,
    limit: usize,
    encoding: Encoding,
}

impl<'r> Asked<'r> {
    fn parse(cx: &Context<'r>) -> Result<Self> {
        let query = &cx.request.query;
        Ok(Self {
            prefix: query.get("prefix").unwrap_or_default(),
            delimiter: listing::non_empty(query, "delimiter"),
            limit: listing::limit(query, "max-keys")?,
            encoding: Encoding::parse(query)?,
        })
    }

    fn list(&self, bucket: &Bucket, after: Option<ListAfter>) -> List {
        List {
            bucket: bucket.id,
            prefix: self.prefix.to_owned(),
            delimiter: self.delimiter.map(str::to_owned),
            after,
            limit: self.limit,
        }
    }

    async fn page(
        &self,
        cx: &Context<'_>,
        bucket: &Bucket,
        after: Option<ListAfter>,
    ) -> Result<ListPage> {
        if self.limit == 0 {
            return Ok(ListPage::default());
        }
        Ok(cx.objects().list(self.list(bucket, after)).await?)
    }

    async fn head_page(
        &self,
        cx: &Context<'_>,
        bucket: &Bucket,
        after: Option<ListAfter>,
    ) -> Result<HeadPage> {
        if self.limit == 0 {
            return Ok(HeadPage::default());
        }
        Ok(cx.objects().list_heads(self.list(bucket, after)).await?)
    }

    fn text(&self, text: &str) -> String {
        self.encoding.text(text)
    }

    fn delimiter_text(&self) -> Option<String> {
        self.delimiter.map(|delimiter| self.text(delimiter))
    }

    fn common_prefix(&self, prefix: &str) -> CommonPrefix {
        CommonPrefix {
            prefix: self.text(prefix),
            marker: None,
        }
    }

    fn contents(&self, entry: &ListedEntry, owner: Option<Owner>) -> Contents {
        Contents {
            key: self.text(entry.key.as_str()),
            last_modified: time::iso8601(millis(entry.modified_at)),
            etag: format!("\"{}\"", entry.etag),
            checksum_algorithm: entry.checksum.map(|checksum| algorithm_name(checksum.0)),
            checksum_type: entry.checksum.map(|checksum| type_name(checksum.1)),
            size: entry.size,
            owner,
            storage_class: storage_class(entry),
            head: None,
        }
    }

    /// Contents with what `HeadObject` says besides.
    fn head(&self, entry: &Entry) -> Contents {
        Contents {
            head: Some(head_text(entry)),
            ..self.contents(&entry.listed(), None)
        }
    }

    /// Where a marker says to begin.
    fn after(&self, marker: &str) -> Option<ListAfter> {
        (!marker.is_empty()).then(|| listing::after_marker(marker, self.prefix, self.delimiter))
    }

    /// The marker of the page behind this one.
    fn next_marker(&self, page: &ListPage) -> Option<String> {
        let next = page.next.as_ref()?;
        Some(self.text(listing::marker_text(next)))
    }
}

/// Owners of listed objects; mostly one, so each is looked up once.
struct Owners<'a> {
    cx: &'a Context<'a>,
    known: HashMap<AccountId, Owner>,
}

impl<'a> Owners<'a> {
    fn new(cx: &'a Context<'a>) -> Self {
        let known = HashMap::new();
        Self { cx, known }
    }

    fn get(&mut self, id: &AccountId) -> Owner {
        if let Some(owner) = self.known.get(id) {
            return owner.clone();
        }
        let owner = self.cx.owner(id);
        self.known.insert(id.clone(), owner.clone());
        owner
    }
}

fn storage_class(entry: &ListedEntry) -> String {
    entry
        .storage_class
        .clone()
        .unwrap_or_else(|| "STANDARD".to_owned())
}

/// The elements that both versions of the document have.
fn bucket_result(
    cx: &Context<'_>,
    bucket: &Bucket,
    asked: &Asked<'_>,
    page: &ListPage,
    with_owner: bool,
) -> ListBucketResult {
    let mut owners = Owners::new(cx);
    let mut contents = Vec::with_capacity(page.items.len());
    let mut common_prefixes = Vec::new();
    for item in &page.items {
        match item {
            ListItem::CommonPrefix(prefix) => common_prefixes.push(asked.common_prefix(prefix)),
            ListItem::Entry(entry) => {
                let owner = with_owner.then(|| owners.get(&entry.owner));
                contents.push(asked.contents(entry, owner));
            }
        }
    }
    ListBucketResult {
        name: bucket.name.as_str().to_owned(),
        prefix: asked.text(asked.prefix),
        max_keys: asked.limit,
        delimiter: asked.delimiter_text(),
        encoding_type: asked.encoding.element(),
        is_truncated: page.next.is_some(),
        contents,
        common_prefixes,
        ..ListBucketResult::default()
    }
}

/// `ListObjects`.
pub(super) async fn v1(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let asked = Asked::parse(cx)?;
    let marker = cx.request.query.get("marker").unwrap_or_default();
    let page = asked.page(cx, &bucket, asked.after(marker)).await?;
    let document = ListBucketResult {
        marker: Some(asked.text(marker)),
        next_marker: asked.next_marker(&page),
        ..bucket_result(cx, &bucket, &asked, &page, true)
    };
    Ok(reply::xml(write::document("ListBucketResult", &document)))
}

/// `ListObjectsV2`.
pub(super) async fn v2(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let asked = Asked::parse(cx)?;
    let query = &cx.request.query;
    let token = query.get("continuation-token");
    let start_after = listing::non_empty(query, "start-after");
    let none = cx.compat().empty_token_is_none();
    let after = match token.filter(|token| !(none && token.is_empty())) {
        Some(token) => Some(listing::parse_token(token)?),
        None => start_after.map(|key| ListAfter::Key(key.to_owned())),
    };
    if query.has("forebay-heads") {
        return with_heads(cx, &bucket, &asked, after).await;
    }
    let page = asked.page(cx, &bucket, after).await?;
    let with_owner = query
        .get("fetch-owner")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let document = ListBucketResult {
        start_after: start_after.map(|key| asked.text(key)),
        continuation_token: token.map(str::to_owned),
        next_continuation_token: page.next.as_ref().map(listing::token),
        key_count: Some(page.items.len()),
        ..bucket_result(cx, &bucket, &asked, &page, with_owner)
    };
    Ok(reply::xml(write::document("ListBucketResult", &document)))
}

/// `ListObjectsV2` for a mount: of each object also what `HeadObject` says.
async fn with_heads(
    cx: &Context<'_>,
    bucket: &Bucket,
    asked: &Asked<'_>,
    after: Option<ListAfter>,
) -> Result<Response> {
    let page = asked.head_page(cx, bucket, after).await?;
    let (mut contents, mut common_prefixes) = (Vec::new(), Vec::new());
    for item in &page.items {
        match item {
            HeadItem::Entry(entry) => contents.push(asked.head(entry)),
            HeadItem::CommonPrefix(prefix, marker) => common_prefixes.push(CommonPrefix {
                marker: marker.as_deref().map(|marker| asked.head(marker)),
                ..asked.common_prefix(prefix)
            }),
        }
    }
    let document = ListBucketResult {
        next_continuation_token: page.next.as_ref().map(listing::token),
        key_count: Some(page.items.len()),
        heads: Some(true),
        is_truncated: page.next.is_some(),
        contents,
        common_prefixes,
        ..bucket_result(cx, bucket, asked, &ListPage::default(), false)
    };
    Ok(reply::xml(write::document("ListBucketResult", &document)))
}

/// The headers by which `HeadObject` tells what comes with an object, as the pairs of a query.
fn head_text(entry: &Entry) -> String {
    let mut headers = HeaderMap::new();
    header::push_kept(&mut headers, entry);
    let kept = &entry.attributes.headers;
    header::push_text(&mut headers, CACHE_CONTROL, kept.cache_control.as_deref());
    header::push_text(&mut headers, EXPIRES, kept.expires.as_deref());
    let pairs = headers.iter().map(|(name, value)| {
        let value = listing::url_encode(value.as_bytes());
        format!("{name}={value}")
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// `ListObjectVersions`: no bucket has versions, so every object is its own latest, `null`.
pub(super) async fn versions(cx: &Context<'_>, auth: &Authenticated) -> Result<Response> {
    let bucket = cx.bucket(auth)?;
    let asked = Asked::parse(cx)?;
    let query = &cx.request.query;
    let key_marker = query.get("key-marker").unwrap_or_default();
    let version_marker = query.get("version-id-marker");
    if let Some(version) =
        version_marker.filter(|version| key_marker.is_empty() || version.is_empty())
    {
        return Err(S3Error::argument(
            "version-id-marker",
            version,
            "A version-id marker cannot be specified without a key marker.",
        ));
    }
    let page = asked.page(cx, &bucket, asked.after(key_marker)).await?;
    let mut owners = Owners::new(cx);
    let (mut versions, mut common_prefixes) = (Vec::new(), Vec::new());
    for item in &page.items {
        match item {
            ListItem::CommonPrefix(prefix) => common_prefixes.push(asked.common_prefix(prefix)),
            ListItem::Entry(entry) => versions.push(Version {
                key: asked.text(entry.key.as_str()),
                version_id: "null",
                is_latest: true,
                last_modified: time::iso8601(millis(entry.modified_at)),
                etag: format!("\"{}\"", entry.etag),
                size: entry.size,
                storage_class: storage_class(entry),
                owner: owners.get(&entry.owner),
            }),
        }
    }
    let next = page.next.as_ref();
    let document = ListVersions {
        name: bucket.name.as_str().to_owned(),
        prefix: asked.text(asked.prefix),
        key_marker: asked.text(key_marker),
        version_id_marker: version_marker.unwrap_or_default().to_owned(),
        next_key_marker: asked.next_marker(&page),
        next_version_id_marker: next
            .filter(|next| matches!(next, ListAfter::Key(_)))
            .map(|_| "null"),
        max_keys: asked.limit,
        delimiter: asked.delimiter_text(),
        encoding_type: asked.encoding.element(),
        is_truncated: next.is_some(),
        versions,
        common_prefixes,
    };
    Ok(reply::xml(write::document("ListVersionsResult", &document)))
}
