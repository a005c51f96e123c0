//! The origin client against a real forebay: what it signs is accepted, and what it reads is what
//! was put.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use forebay_cache::origin::{
    Authorization, Call, Client, ClientConfig, CopyFrom, Endpoint, From, GRANT_HEADER, List, Listed,
};
use forebay_cache::sign::{Credentials, Payload};
use forebay_cache::{FetchError, Version};
use forebay_server::{Compat, Server, ServerConfig};
use forebay_store::entry::Secret;
use forebay_store::{Store, StoreOptions};
use futures_util::TryStreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

const KEY: &str = "AKID";
const SECRET: &str = "a secret/+";
/// Keys that are hard to write in a path, in a listing and in a signature; in their order.
const KEYS: [&str; 14] = [
    " ",
    "%41",
    "+",
    "./a",
    "/leading",
    "?x=y#z",
    "a b+c%20d",
    "a/../b",
    "a//b",
    "a//b/",
    "a<&>\"'",
    "k",
    "~-._!*()",
    "ключ/ü/😀",
];

/// A running forebay; it stops when it is dropped.
struct Forebay {
    addr: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _data: tempfile::TempDir,
}

impl Forebay {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let path = data.path().to_owned();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let store = Store::open(StoreOptions::new(&path)).expect("a new store");
            let root = store.root_account().clone();
            let key = (KEY.to_owned(), Secret(SECRET.to_owned()));
            store
                .create_key_blocking(&root, Some(key))
                .expect("a new key");
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let config = ServerConfig {
                    listen: "127.0.0.1:0".parse().expect("an address"),
                    base_domains: Vec::new(),
                    region: "us-east-1".to_owned(),
                    compat: Compat::Forebay,
                    cluster_key: None,
                };
                let server = Server::bind(config, Arc::new(store.clone())).await;
                let server = server.expect("a free port");
                tell.send(server.local_addr()).expect("the test waits");
                let shutdown = async { drop(stopped.await) };
                server.serve(shutdown).await.expect("it ends well");
            });
            store.close().expect("a last sync");
        });
        Self {
            addr: told.recv().expect("it listens"),
            stop: Some(stop),
            thread: Some(thread),
            _data: data,
        }
    }

    fn client(&self, secret: &str) -> Client {
        client(&format!("http://{}", self.addr), secret)
    }

    /// A client, and the bucket `bkt`.
    async fn with_bucket(&self) -> Client {
        let client = self.client(SECRET);
        let create = Call::new(Method::PUT, Some("bkt"), None);
        client.call(&create).await.expect("a new bucket");
        client
    }
}

fn client(url: &str, secret: &str) -> Client {
    let endpoint = Endpoint::parse(url).expect("a URL");
    Client::new(ClientConfig {
        credentials: Some(Credentials {
            key_id: KEY.to_owned(),
            secret: secret.to_owned(),
            session_token: None,
        }),
        ..ClientConfig::new(endpoint)
    })
    .expect("a client")
}

impl Drop for Forebay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn read(
    client: &Client,
    version: &Version,
    range: std::ops::Range<u64>,
) -> Result<Vec<u8>, FetchError> {
    let source = client.source(Authorization::Own);
    let chunks = source.fetch(&Arc::new(version.clone()), range).await?;
    chunks
        .try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

#[tokio::test]
async fn any_key_is_put_listed_read_and_deleted() {
    let forebay = Forebay::start();
    let client = forebay.with_bucket().await;
    for key in KEYS {
        let body = Bytes::from(format!("the content of {key}"));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/plain"));
        headers.insert("x-amz-meta-a", HeaderValue::from_static("one  two"));
        let put = client.put("bkt", key, body.clone(), headers).await.unwrap();
        let head = client.head("bkt", key, None).await.unwrap().unwrap();
        assert_eq!(head.etag, put.etag, "{key}");
        assert_eq!(head.headers["content-type"], "text/plain");
        assert_eq!(head.metadata().next().unwrap().0, "a");
        let version = head.version("bkt", key).unwrap();
        let all = read(&client, &version, 0..version.size).await.unwrap();
        assert_eq!(all, body, "{key}");
        let part = read(&client, &version, 4..8).await.unwrap();
        assert_eq!(part, body[4..8], "{key}");
        let (_, small) = client.get_small("bkt", key, 100).await.unwrap().unwrap();
        assert_eq!(small, body);
    }
    let listed = |page: Vec<Listed>| page.into_iter().map(|of| of.key).collect::<Vec<_>>();
    let list = List {
        bucket: "bkt",
        ..List::default()
    };
    let page = client.list(&list).await.unwrap();
    assert!(page.objects.iter().all(|of| of.last_modified.is_some()));
    assert_eq!(listed(page.objects), KEYS);
    let after = List {
        from: From::After(KEYS[5]),
        ..list
    };
    assert_eq!(
        listed(client.list(&after).await.unwrap().objects),
        KEYS[6..]
    );
    for key in KEYS {
        client
            .delete("bkt", key, None, HeaderMap::new())
            .await
            .unwrap();
        assert_eq!(client.head("bkt", key, None).await.unwrap(), None);
    }
    assert_eq!(client.statistics().retries, 0);
}

#[tokio::test]
async fn pages_follow_each_other() {
    let forebay = Forebay::start();
    let client = forebay.with_bucket().await;
    for n in 0..7 {
        let key = format!("d+ü/{n}");
        client
            .put("bkt", &key, Bytes::new(), HeaderMap::new())
            .await
            .unwrap();
        let key = format!("d+ü/s{n}/k");
        client
            .put("bkt", &key, Bytes::new(), HeaderMap::new())
            .await
            .unwrap();
    }
    let (mut keys, mut prefixes, mut token, mut pages) = (vec![], vec![], None::<String>, 0);
    loop {
        let page = client
            .list(&List {
                bucket: "bkt",
                prefix: "d+ü/",
                delimiter: Some("/"),
                from: token.as_deref().map_or(From::Start, From::Token),
                max_keys: Some(3),
                heads: false,
            })
            .await
            .unwrap();
        keys.extend(page.objects.into_iter().map(|of| of.key));
        prefixes.extend(page.prefixes);
        pages += 1;
        token = page.next;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(pages, 5);
    assert_eq!(keys, (0..7).map(|n| format!("d+ü/{n}")).collect::<Vec<_>>());
    assert_eq!(
        prefixes,
        (0..7).map(|n| format!("d+ü/s{n}/")).collect::<Vec<_>>()
    );
    let buckets = client.list_buckets().await.unwrap();
    assert_eq!(buckets.len(), 1);
    assert_eq!(buckets[0].name, "bkt");
    assert!(buckets[0].created_at.is_some());
}

#[tokio::test]
async fn an_overwritten_object_is_another_version() {
    let forebay = Forebay::start();
    let client = forebay.with_bucket().await;
    let put = async |body: &'static str| {
        let body = Bytes::from_static(body.as_bytes());
        client
            .put("bkt", "k", body, HeaderMap::new())
            .await
            .unwrap();
        let head = client.head("bkt", "k", None).await.unwrap().unwrap();
        head.version("bkt", "k").unwrap()
    };
    let old = put("old").await;
    let new = put("new").await;
    let changed = read(&client, &old, 0..3).await;
    assert!(matches!(changed, Err(FetchError::Changed)), "{changed:?}");
    assert_eq!(read(&client, &new, 0..3).await.unwrap(), b"new");
    let stranger = forebay.client("another secret");
    let denied = read(&stranger, &new, 0..3).await;
    assert!(matches!(denied, Err(FetchError::Denied(_))), "{denied:?}");
    client
        .delete("bkt", "k", None, HeaderMap::new())
        .await
        .unwrap();
    let gone = read(&client, &new, 0..3).await;
    assert!(matches!(gone, Err(FetchError::Changed)), "{gone:?}");
}

#[tokio::test]
async fn large_objects_are_uploaded_and_copied() {
    const PART: usize = 5 << 20;
    let forebay = Forebay::start();
    let client = forebay.with_bucket().await;
    let body: Vec<u8> = (0..PART + 1000)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();
    let body = Bytes::from(body);
    let upload = client
        .create_upload("bkt", "a b", HeaderMap::new())
        .await
        .unwrap();
    let first = client.upload_part(&upload, 1, body.slice(..PART)).await;
    let second = client.upload_part(&upload, 2, body.slice(PART..)).await;
    let parts = [first.unwrap(), second.unwrap()];
    let written = client
        .complete_upload(&upload, &parts, HeaderMap::new())
        .await
        .unwrap();
    let from = CopyFrom {
        bucket: "bkt",
        key: "a b",
        version_id: None,
    };
    client
        .copy(from, "bkt", "copy", HeaderMap::new())
        .await
        .unwrap();
    let upload = client
        .create_upload("bkt", "copied part", HeaderMap::new())
        .await
        .unwrap();
    let part = client.copy_part(&upload, 1, from, 0..body.len() as u64);
    let parts = [part.await.unwrap()];
    client
        .complete_upload(&upload, &parts, HeaderMap::new())
        .await
        .unwrap();
    for key in ["a b", "copy", "copied part"] {
        let head = client.head("bkt", key, None).await.unwrap().unwrap();
        if key == "a b" {
            assert_eq!(head.etag, written.etag);
        }
        let version = head.version("bkt", key).unwrap();
        let all = read(&client, &version, 0..version.size).await.unwrap();
        assert!(all == body);
    }
    let upload = client
        .create_upload("bkt", "x", HeaderMap::new())
        .await
        .unwrap();
    client.abort_upload(&upload).await.unwrap();
    let late = client.upload_part(&upload, 1, body.slice(..1)).await;
    assert_eq!(late.unwrap_err().code(), Some("NoSuchUpload"));
}

#[tokio::test]
async fn requests_signed_for_the_node_are_passed_on() {
    let forebay = Forebay::start();
    let to_origin = forebay.with_bucket().await;
    let body = Bytes::from_static(b"hello");
    to_origin
        .put("bkt", "k", body, HeaderMap::new())
        .await
        .unwrap();
    // Signed for another host, as a client of the node does it.
    let of_node = client("http://node:9001", SECRET);
    let request = http::Request::get("/bkt/k?response-content-type=a%2Fb")
        .header("range", "bytes=1-3")
        .body(http_body_util::Empty::<Bytes>::new())
        .unwrap();
    let (mut parts, body) = request.into_parts();
    of_node.sign(&mut parts, Payload::Empty);
    assert_eq!(parts.headers["host"], "node:9001");
    let request = http::Request::from_parts(parts, body);
    let response = to_origin.send(request).await.unwrap();
    assert_eq!(response.status(), 206);
    assert_eq!(response.headers()["content-type"], "a/b");
    let body = response.into_body().collect_at_most(100).await.unwrap();
    assert_eq!(body, "ell");
}

#[tokio::test]
async fn a_grant_brings_bytes_without_credentials() {
    let forebay = Forebay::start();
    let client = forebay.with_bucket().await;
    let body = Bytes::from_static(b"hello");
    client
        .put("bkt", "a b", body, HeaderMap::new())
        .await
        .unwrap();
    let head = client.head("bkt", "a b", None).await.unwrap().unwrap();
    let version = Arc::new(head.version("bkt", "a b").unwrap());

    let request = http::Request::get("/bkt/a%20b").body(http_body_util::Empty::<Bytes>::new());
    let (mut parts, body) = request.unwrap().into_parts();
    client.sign(&mut parts, Payload::Empty);
    parts
        .headers
        .insert("x-forebay-node", HeaderValue::from_static("1"));
    let request = http::Request::from_parts(parts, body);
    let answer = client.send(request).await.unwrap();
    let token = answer.headers()[GRANT_HEADER].to_str().unwrap().to_owned();

    let source = client.source(Authorization::Grant(token.clone()));
    let chunks = source.fetch(&version, 1..4).await.unwrap();
    let all: Vec<Bytes> = chunks.try_collect().await.unwrap();
    assert_eq!(all.concat(), b"ell");
    let forged = client.source(Authorization::Grant(token + "0"));
    let denied = forged.fetch(&version, 1..4).await.err().unwrap();
    assert!(matches!(denied, FetchError::Denied(_)), "{denied}");
}

#[tokio::test]
async fn a_listing_with_heads_says_what_each_head_does() {
    let forebay = Forebay::start();
    let client = forebay.with_bucket().await;
    let meta = HeaderName::from_static("x-amz-meta-colour");
    for (n, key) in KEYS.into_iter().enumerate() {
        let mut headers = HeaderMap::new();
        // Bytes that are no text, and what separates pairs.
        let value = [
            b"a&b=c%20+".as_slice(),
            &[0xe9, 0xfc],
            n.to_string().as_bytes(),
        ]
        .concat();
        headers.insert(&meta, HeaderValue::from_bytes(&value).unwrap());
        headers.insert(
            "cache-control",
            HeaderValue::from_static("no-cache, max-age=5"),
        );
        headers.insert("content-language", HeaderValue::from_static("de"));
        let body = Bytes::from(vec![0; n]);
        client.put("bkt", key, body, headers).await.unwrap();
    }
    let list = List {
        bucket: "bkt",
        heads: true,
        ..List::default()
    };
    let heads = client.list(&list).await.unwrap().heads.unwrap();
    assert_eq!(heads.objects.len(), KEYS.len());
    for (key, told) in KEYS.into_iter().zip(&heads.objects) {
        let head = client.head("bkt", key, None).await.unwrap().unwrap();
        assert_eq!((told.size, &told.etag), (head.size, &head.etag), "{key}");
        for name in [
            meta.as_str(),
            "cache-control",
            "content-language",
            "content-type",
        ] {
            assert_eq!(
                told.headers.get(name),
                head.headers.get(name),
                "{key}: {name}"
            );
        }
    }
    // By directories: `a//b/` is one below `a/`, and a marker.
    let below = List {
        prefix: "a//",
        delimiter: Some("/"),
        ..list
    };
    let page = client.list(&below).await.unwrap();
    assert_eq!(page.prefixes, ["a//b/"]);
    let heads = page.heads.unwrap();
    assert_eq!(heads.markers[0].as_ref().map(|head| head.size), Some(9));
    // Pages go on as others do.
    let (mut seen, mut from) = (Vec::new(), From::Start);
    let mut token;
    loop {
        let list = List {
            max_keys: Some(3),
            from,
            ..list
        };
        let page = client.list(&list).await.unwrap();
        seen.extend(page.objects.into_iter().map(|of| of.key));
        token = page.next;
        match &token {
            Some(next) => from = From::Token(Box::leak(next.clone().into_boxed_str())),
            None => break,
        }
    }
    assert_eq!(seen, KEYS);
}

#[tokio::test]
async fn renames_space_and_buckets() {
    let forebay = Forebay::start();
    let client = forebay.with_bucket().await;
    assert!(client.is_forebay("bkt").await.unwrap());
    let put =
        |key: &'static str| client.put("bkt", key, Bytes::from_static(b"x"), HeaderMap::new());
    for key in ["f", "ü +%/a", "ü +%/b/c", "g"] {
        put(key).await.unwrap();
    }
    client
        .rename("bkt", "ü +%", "new&=?", "replace")
        .await
        .unwrap();
    assert!(
        client
            .head("bkt", "new&=?/b/c", None)
            .await
            .unwrap()
            .is_some()
    );
    assert!(client.head("bkt", "ü +%/a", None).await.unwrap().is_none());
    client.rename("bkt", "f", "g", "replace").await.unwrap();
    for (from, to, how, code) in [
        ("f", "h", "replace", "NoSuchKey"),
        ("g", "new&=?", "replace", "IsDirectory"),
        ("new&=?", "g", "replace", "NotDirectory"),
        ("g", "new&=?/a", "no-replace", "ObjectExists"),
        ("new&=?", "new&=?/x", "replace", "InvalidRequest"),
        ("g", "h", "anyhow", "InvalidArgument"),
        ("g/", "h", "replace", "InvalidArgument"),
    ] {
        let refused = client.rename("bkt", from, to, how).await.unwrap_err();
        assert_eq!(refused.code(), Some(code), "{from} {to} {how}");
    }
    let space = client.space("bkt").await.unwrap();
    assert!(space.total >= space.available && space.available > 0);
    client.create_bucket("another").await.unwrap();
    client.delete_bucket("another").await.unwrap();
    let refused = client.delete_bucket("bkt").await.unwrap_err();
    assert_eq!(refused.code(), Some("BucketNotEmpty"));
    let stranger = forebay.client("another secret");
    assert!(stranger.rename("bkt", "g", "h", "replace").await.is_err());
    assert!(stranger.space("bkt").await.is_err());
}
