//! Calls of its own: what is tried again, what is not, and for how long.

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::script::{Server, Step, answer, send};
use super::{client, in_time, with_credentials};
use crate::origin::{
    Call, Client, ClientConfig, ClientError, CopyFrom, Endpoint, List, OriginError, Part, Repeat,
    Upload,
};

fn upload() -> Upload {
    Upload {
        bucket: "b".to_owned(),
        key: "k".to_owned(),
        upload_id: "u/1".to_owned(),
    }
}

#[tokio::test]
async fn what_passes_is_tried_again_and_what_is_refused_is_not() {
    let server = Server::start(|n, _| match n {
        0 => vec![answer(503, "", b"")],
        1 => vec![Step::Reset],
        2 => vec![answer(200, "", b"ok")],
        _ => vec![answer(
            403,
            "",
            b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>",
        )],
    })
    .await;
    let client = client(&server.url());
    let call = Call::new(Method::GET, Some("b"), Some("k"));
    let response = client.call(&call).await.unwrap();
    assert_eq!(response.into_body().collect_at_most(2).await.unwrap(), "ok");
    assert_eq!(server.seen().len(), 3);
    let refused = client.call(&call).await.unwrap_err();
    assert_eq!(refused.code(), Some("AccessDenied"));
    assert_eq!(
        refused.to_string(),
        "the origin answers 403: AccessDenied: No."
    );
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn what_is_not_safe_twice_is_done_once() {
    for steps in [
        vec![Step::Close],
        vec![answer(500, "", b"")],
        vec![Step::Hang],
    ] {
        let server = Server::start(move |_, _| steps.clone()).await;
        let call = Call {
            repeat: Repeat::Never,
            ..Call::new(Method::POST, Some("b"), Some("k"))
        };
        in_time(client(&server.url()).call(&call))
            .await
            .unwrap_err();
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_error_may_be_anything() {
    for body in [
        &b""[..],
        b"<html>",
        b"<!DOCTYPE x><Error/>",
        &[0xff; 100],
        &[b'x'; 9000],
    ] {
        let server = Server::start(move |_, _| vec![answer(400, "", body)]).await;
        let call = Call::new(Method::GET, Some("b"), None);
        let refused = client(&server.url()).call(&call).await.unwrap_err();
        assert_eq!(refused.status().unwrap(), 400);
        assert_eq!(refused.code(), Some(""));
    }
}

#[tokio::test]
async fn heads_are_there_or_not() {
    let server = Server::start(|n, _| match n {
        0 => vec![send(
            "HTTP/1.1 200 X\r\ncontent-length: 7\r\netag: \"e\"\r\n\r\n",
        )],
        1 => vec![send("HTTP/1.1 404 X\r\n\r\n")],
        2 => vec![send("HTTP/1.1 405 X\r\nx-amz-delete-marker: true\r\n\r\n")],
        3 => vec![send("HTTP/1.1 403 X\r\n\r\n")],
        _ => vec![send("HTTP/1.1 200 X\r\netag: \"e\"\r\n\r\n")],
    })
    .await;
    let client = with_credentials(&server.url());
    let head = client.head("b", "k", Some("v")).await.unwrap().unwrap();
    assert_eq!((head.size, head.etag.as_deref()), (7, Some("e")));
    assert_eq!(server.seen()[0].line, "HEAD /b/k?versionId=v");
    for _ in 0..2 {
        assert_eq!(client.head("b", "k", None).await.unwrap(), None);
    }
    let refused = client.head("b", "k", None).await.unwrap_err();
    assert_eq!(refused.status().unwrap(), 403);
    let corrupt = client.head("b", "k", None).await.unwrap_err();
    assert!(matches!(corrupt, OriginError::Corrupt(_)), "{corrupt}");
}

#[tokio::test]
async fn small_objects_are_read_whole() {
    let server = Server::start(|n, _| match n {
        0 => vec![
            send("HTTP/1.1 200 X\r\ncontent-length: 5\r\n\r\nhe"),
            Step::Close,
        ],
        1 => vec![answer(200, "etag: \"e\"\r\n", b"hello")],
        2 => vec![answer(404, "", b"")],
        _ => vec![answer(200, "", b"hello!")],
    })
    .await;
    let client = client(&server.url());
    let (head, body) = client.get_small("b", "k", 5).await.unwrap().unwrap();
    assert_eq!((head.size, body), (5, Bytes::from_static(b"hello")));
    assert!(client.get_small("b", "k", 5).await.unwrap().is_none());
    let too_large = client.get_small("b", "k", 5).await.unwrap_err();
    assert!(matches!(too_large, OriginError::Corrupt(_)), "{too_large}");
}

#[tokio::test]
async fn listings_are_bounded() {
    let server = Server::start(|_, _| {
        let mut document = b"<ListBucketResult><Name>".to_vec();
        document.resize(9 << 20, b'x');
        vec![answer(200, "", &document)]
    })
    .await;
    let list = List {
        bucket: "b",
        ..List::default()
    };
    let refused = client(&server.url()).list(&list).await.unwrap_err();
    assert!(
        refused.to_string().contains("a body of more than"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_service_that_knows_no_heads_is_asked_for_them_once() {
    const NONE: &[u8] = b"<ListBucketResult></ListBucketResult>";
    for refuses in [false, true] {
        let server = Server::start(move |_, seen| {
            let unknown = refuses && seen.line.contains("forebay-heads");
            vec![if unknown {
                answer(400, "", b"<Error><Code>InvalidArgument</Code></Error>")
            } else {
                answer(200, "", NONE)
            }]
        })
        .await;
        let client = client(&server.url());
        let list = List {
            bucket: "b",
            heads: true,
            ..List::default()
        };
        for _ in 0..3 {
            assert_eq!(client.list(&list).await.unwrap().heads, None);
        }
        assert!(!client.is_forebay("b").await.unwrap());
        let seen = server.seen();
        let asked = seen.iter().filter(|seen| seen.line.contains("heads"));
        assert_eq!(asked.count(), 1, "{refuses}");
        assert_eq!(seen.len(), 3 + usize::from(refuses));
    }
}

#[tokio::test]
async fn a_success_may_hide_an_error() {
    let body = b"   \n<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>";
    let server = Server::start(|_, _| vec![answer(200, "", body)]).await;
    let client = client(&server.url());
    let from = CopyFrom {
        bucket: "b",
        key: "a ü",
        version_id: Some("v"),
    };
    let copied = client.copy(from, "b", "k", HeaderMap::new()).await;
    assert_eq!(copied.unwrap_err().code(), Some("InternalError"));
    let copy_source = server.seen()[0].header("x-amz-copy-source").to_owned();
    assert_eq!(copy_source, "/b/a%20%C3%BC?versionId=v");
    let part = Part {
        number: 1,
        etag: "\"e\"".to_owned(),
    };
    let completed = client
        .complete_upload(&upload(), &[part], HeaderMap::new())
        .await;
    assert_eq!(completed.unwrap_err().code(), Some("InternalError"));
    assert_eq!(server.seen()[1].line, "POST /b/k?uploadId=u%2F1");
}

#[tokio::test]
async fn what_is_gone_is_deleted() {
    let server = Server::start(|n, _| {
        let code = ["NoSuchKey", "NoSuchUpload", "NoSuchBucket"][n];
        let body = format!("<Error><Code>{code}</Code></Error>");
        vec![answer(404, "", body.as_bytes())]
    })
    .await;
    let client = client(&server.url());
    client
        .delete("b", "k", None, HeaderMap::new())
        .await
        .unwrap();
    client.abort_upload(&upload()).await.unwrap();
    let refused = client.delete("b", "k", None, HeaderMap::new()).await;
    assert_eq!(refused.unwrap_err().code(), Some("NoSuchBucket"));
}

#[test]
fn certificates_are_needed_for_tls_alone() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    let made = |url: &str, ca_file: &std::path::Path| {
        Client::new(ClientConfig {
            ca_file: Some(ca_file.to_owned()),
            ..ClientConfig::new(Endpoint::parse(url).unwrap())
        })
    };
    assert!(made("http://store", &empty).is_ok());
    for file in [empty, dir.path().join("missing.pem")] {
        let refused = made("https://store", &file).unwrap_err();
        assert!(
            matches!(refused, ClientError::Certificates { .. }),
            "{refused}"
        );
    }
}
