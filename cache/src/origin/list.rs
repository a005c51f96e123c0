//! Listings.

use forebay_store::time::Timestamp;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use super::call::Call;
use super::client::{Client, Kind};
use super::error::OriginError;
use super::head::{Head, strong};
use super::xml;
use crate::time::parse_iso8601;

/// Largest document of a listing, in bytes: 1,000 keys of 1,024 bytes, each of them encoded as
/// three, and as much again for what is said of them.
const LISTING_SIZE_MAX: usize = 8 << 20;

/// Where a page begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From<'a> {
    /// With the first key.
    #[default]
    Start,
    /// With the first key after this one.
    After(&'a str),
    /// Where the page ended that gave this token.
    Token(&'a str),
}

/// A page that is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct List<'a> {
    /// The bucket's name.
    pub bucket: &'a str,
    /// What keys begin with; may be empty.
    pub prefix: &'a str,
    /// What ends a common prefix.
    pub delimiter: Option<&'a str>,
    /// Where the page begins.
    pub from: From<'a>,
    /// Most keys and common prefixes; the origin may give fewer, mostly 1,000.
    pub max_keys: Option<u32>,
    /// Whether the heads of objects are of use. Only a forebay tells them, and what does not is
    /// not asked for them again.
    pub heads: bool,
}

/// One object of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// The entity tag without quotes; `None` if the origin gives none or a weak one.
    pub etag: Option<String>,
    /// When it was published.
    pub last_modified: Option<Timestamp>,
}

/// A page of a listing, in the order of the origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Objects.
    pub objects: Vec<Listed>,
    /// Common prefixes, each with its delimiter.
    pub prefixes: Vec<String>,
    /// The token of the next page; `None` if this is the last.
    pub next: Option<String>,
    /// What looks at the objects would tell, if the origin tells it.
    pub heads: Option<Heads>,
}

/// The heads of a page's objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// Of the objects, in their order.
    pub objects: Vec<Head>,
    /// Of the objects that are common prefixes themselves, in the order of these; `None` where
    /// there is no such object.
    pub markers: Vec<Option<Head>>,
}

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedBucket {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

impl Client {
    /// Lists one page of a bucket (`ListObjectsV2`).
    ///
    /// # Errors
    /// As [`call`](Client::call); a page that contradicts the request is
    /// [`OriginError::Corrupt`].
    pub async fn list(&self, list: &List<'_>) -> Result<Page, OriginError> {
        if !list.heads || self.kind() == Kind::Other {
            return self.list_as(list, None).await;
        }
        // Another service ignores a parameter that it does not know; it is asked once.
        let page = match self.list_as(list, Some(("forebay-heads", "1"))).await {
            Err(err) if self.kind() == Kind::Unknown && is_not_understood(&err) => {
                self.list_as(list, None).await?
            }
            page => page?,
        };
        self.note_kind(match &page.heads {
            Some(_) => Kind::Forebay,
            None => Kind::Other,
        });
        Ok(page)
    }

    async fn list_as(
        &self,
        list: &List<'_>,
        more: Option<(&str, &str)>,
    ) -> Result<Page, OriginError> {
        let max_keys = list.max_keys.map(|max| max.to_string());
        let mut query = list.query(max_keys.as_deref());
        query.extend(more);
        let call = Call {
            query: &query,
            ..Call::new(Method::GET, Some(list.bucket), None)
        };
        let body = self.call(&call).await?.into_body();
        let body = body.collect_at_most(LISTING_SIZE_MAX).await?;
        page(&body, list)
    }

    /// Lists the buckets of the client's account.
    ///
    /// # Errors
    /// As [`call`](Client::call).
    pub async fn list_buckets(&self) -> Result<Vec<ListedBucket>, OriginError> {
        let call = Call::new(Method::GET, None, None);
        let body = self.call(&call).await?.into_body();
        let body = body.collect_at_most(LISTING_SIZE_MAX).await?;
        let result: ListAllMyBucketsResult = xml::parse(&body, "ListAllMyBucketsResult")?;
        let buckets = result.buckets.bucket.into_iter();
        Ok(buckets
            .map(|bucket| ListedBucket {
                created_at: parse_iso8601(&bucket.creation_date),
                name: bucket.name,
            })
            .collect())
    }
}

impl<'a> List<'a> {
    fn query(&self, max_keys: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
        let mut query = vec![("list-type", "2"), ("encoding-type", "url")];
        query.push(("prefix", self.prefix));
        query.extend(self.delimiter.map(|delimiter| ("delimiter", delimiter)));
        query.extend(max_keys.map(|max_keys| ("max-keys", max_keys)));
        match self.from {
            From::Start => {}
            From::After(key) => query.push(("start-after", key)),
            From::Token(token) => query.push(("continuation-token", token)),
        }
        query
    }
}

/// Whether a service refuses what it does not know.
fn is_not_understood(err: &OriginError) -> bool {
    matches!(
        err.status(),
        Some(StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED)
    )
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListBucketResult {
    is_truncated: bool,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
    contents: Vec<Contents>,
    common_prefixes: Vec<CommonPrefix>,
    heads: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    size: u64,
    #[serde(rename = "ETag", default)]
    etag: String,
    #[serde(default)]
    last_modified: String,
    #[serde(default)]
    head: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CommonPrefix {
    prefix: String,
    marker: Option<Contents>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListAllMyBucketsResult {
    buckets: Buckets,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Buckets {
    bucket: Vec<Bucket>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Bucket {
    name: String,
    #[serde(default)]
    creation_date: String,
}

fn page(body: &[u8], asked: &List<'_>) -> Result<Page, OriginError> {
    let wrong = |why: String| OriginError::Corrupt(format!("a listing {why}"));
    let result: ListBucketResult = xml::parse(body, "ListBucketResult")?;
    let encoding = match result.encoding_type.as_deref() {
        None | Some("") => Encoding::None,
        Some("url") => Encoding::Url,
        Some(other) => return Err(wrong(format!("in an unknown encoding, {other:.64}"))),
    };
    let decode = |text: String| {
        let text = encoding.decode(text)?;
        if text.starts_with(asked.prefix) {
            Ok(text)
        } else {
            Err(wrong(format!("with `{text}`, which was not asked for")))
        }
    };
    let heads = result.heads.then(|| Heads {
        objects: result.contents.iter().map(head).collect(),
        markers: result
            .common_prefixes
            .iter()
            .map(|of| of.marker.as_ref().map(head))
            .collect(),
    });
    let listed = |of: Contents| {
        Ok(Listed {
            key: decode(of.key)?,
            size: of.size,
            etag: strong(&of.etag).map(str::to_owned),
            last_modified: parse_iso8601(&of.last_modified),
        })
    };
    let objects: Result<_, OriginError> = result.contents.into_iter().map(listed).collect();
    let prefixes = result.common_prefixes.into_iter();
    let prefixes: Result<_, OriginError> = prefixes.map(|of| decode(of.prefix)).collect();
    let next = match result.next_continuation_token {
        _ if !result.is_truncated => None,
        None => return Err(wrong("that goes on without a token".to_owned())),
        Some(token) if asked.from == From::Token(&token) => {
            return Err(wrong("that goes on with itself".to_owned()));
        }
        Some(token) => Some(token),
    };
    Ok(Page {
        objects: objects?,
        prefixes: prefixes?,
        next,
        heads,
    })
}

/// What the origin says of an object besides, as the pairs of a query: names of headers, and their
/// values percent-encoded. What can't be a header is left out.
fn head(of: &Contents) -> Head {
    let mut headers = HeaderMap::new();
    for (name, value) in of.head.split('&').filter_map(|pair| pair.split_once('=')) {
        let value: Vec<u8> = percent_decode_str(value).collect();
        let pair = (HeaderName::try_from(name), HeaderValue::from_bytes(&value));
        if let (Ok(name), Ok(value)) = pair {
            headers.append(name, value);
        }
    }
    Head {
        size: of.size,
        etag: strong(&of.etag).map(str::to_owned),
        last_modified: parse_iso8601(&of.last_modified),
        version_id: None,
        headers,
    }
}

/// How keys are written in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    None,
    Url,
}

impl Encoding {
    fn decode(self, text: String) -> Result<String, OriginError> {
        if self == Self::None {
            return Ok(text);
        }
        // As in a form: AWS writes a space as `+`, and `+` as `%2B`.
        let spaced = text.replace('+', " ");
        let decoded = percent_decode_str(&spaced).decode_utf8();
        decoded
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| OriginError::Corrupt(format!("a listing with `{text}`, which is no key")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inner: &str, asked: List<'_>) -> Result<Page, String> {
        let text = format!("<ListBucketResult xmlns=\"http://x/\">{inner}</ListBucketResult>");
        page(text.as_bytes(), &asked).map_err(|err| err.to_string())
    }

    #[test]
    fn a_page_is_read() {
        let page = read(
            "<Name>b</Name><Prefix>a%2B</Prefix><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>t</NextContinuationToken><EncodingType>url</EncodingType>\
             <Contents><Key>a%2B+%C3%BC%25/</Key><Size>7</Size><ETag>&quot;e&quot;</ETag>\
             <LastModified>2013-05-24T00:00:00.000Z</LastModified></Contents>\
             <CommonPrefixes><Prefix>a%2Bp/</Prefix></CommonPrefixes>\
             <Contents><Key>a%2B</Key><Size>0</Size></Contents>",
            List {
                prefix: "a+",
                ..List::default()
            },
        )
        .unwrap();
        let first = Listed {
            key: "a+ ü%/".to_owned(),
            size: 7,
            etag: Some("e".to_owned()),
            last_modified: Some(Timestamp::from_parts(1_369_353_600, 0)),
        };
        assert_eq!(page.objects[0], first);
        assert_eq!(page.objects[1].key, "a+");
        assert_eq!(page.prefixes, ["a+p/"]);
        assert_eq!(page.next.as_deref(), Some("t"));
    }

    #[test]
    fn keys_are_taken_as_they_are_without_an_encoding() {
        let page = read(
            "<Contents><Key>a+%41&amp;</Key><Size>0</Size></Contents><IsTruncated>false</IsTruncated>\
             <NextContinuationToken>t</NextContinuationToken>",
            List::default(),
        )
        .unwrap();
        assert_eq!(page.objects[0].key, "a+%41&");
        assert_eq!(page.next, None);
        assert_eq!(read("", List::default()).unwrap(), Page::default());
    }

    #[test]
    fn heads_are_read_where_they_are_told() {
        let listed = "<Contents><Key>a</Key><Size>7</Size><ETag>\"e\"</ETag>\
                      <Head>x-amz-meta-mode=33188&amp;cache-control=no-cache%2C%20max-age%3D1</Head>\
                      </Contents><CommonPrefixes><Prefix>d/</Prefix><Marker><Key>d/</Key>\
                      <Size>0</Size><ETag>\"m\"</ETag><Head></Head></Marker></CommonPrefixes>\
                      <CommonPrefixes><Prefix>e/</Prefix></CommonPrefixes>";
        assert_eq!(read(listed, List::default()).unwrap().heads, None);
        let told = format!("<Heads>true</Heads>{listed}");
        let heads = read(&told, List::default()).unwrap().heads.unwrap();
        let of = |name: &str| heads.objects[0].headers[name].to_str().unwrap();
        assert_eq!(of("x-amz-meta-mode"), "33188");
        assert_eq!(of("cache-control"), "no-cache, max-age=1");
        assert_eq!(heads.objects[0].size, 7);
        let marker = heads.markers[0].as_ref().unwrap();
        assert_eq!(marker.etag.as_deref(), Some("m"));
        assert_eq!(heads.markers[1], None);
    }

    #[test]
    fn pages_that_lie_are_refused() {
        let asked = List {
            prefix: "a",
            from: From::Token("t"),
            ..List::default()
        };
        for (inner, expected) in [
            ("<IsTruncated>true</IsTruncated>", "without a token"),
            (
                "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>",
                "with itself",
            ),
            (
                "<Contents><Key>b</Key><Size>0</Size></Contents>",
                "not asked for",
            ),
            (
                "<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>",
                "not asked for",
            ),
            (
                "<Contents><Key>a</Key></Contents>",
                "is no ListBucketResult",
            ),
            (
                "<Contents><Key>a</Key><Size>-1</Size></Contents>",
                "is no ListBucketResult",
            ),
            ("<EncodingType>gzip</EncodingType>", "unknown encoding"),
            (
                "<EncodingType>url</EncodingType><Contents><Key>a%FF</Key><Size>0</Size></Contents>",
                "no key",
            ),
        ] {
            let refused = read(inner, asked).unwrap_err();
            assert!(refused.contains(expected), "{inner}: {refused}");
        }
    }
}
