//! Requests that are passed on: what goes through, and what becomes of broken senders.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Empty, Full, StreamBody};
use tokio::time::Instant;

use super::script::{Seen, Server, Step, answer, send};
use super::{HEAD, LONGEST, client, in_time, nowhere, with_credentials};
use crate::origin::{Body, BreakerState, Client, ClientConfig, OriginError};
use crate::sign::Payload;

fn get(target: &str) -> Request<Empty<Bytes>> {
    Request::get(target).body(Empty::new()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect_at_most(1 << 20).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

/// A body that comes bit by bit, with a pause before each bit.
fn slow(
    pieces: Vec<Result<&'static str, &'static str>>,
    pause: Duration,
) -> impl http_body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static {
    StreamBody::new(stream::unfold(
        pieces.into_iter(),
        move |mut pieces| async move {
            let piece = pieces.next()?;
            tokio::time::sleep(pause).await;
            let piece = piece
                .map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())))
                .map_err(std::io::Error::other);
            Some((piece, pieces))
        },
    ))
}

#[tokio::test]
async fn a_request_is_passed_on_as_it_was_signed() {
    let server = Server::start(|_, _| {
        let headers = "connection: keep-alive, x-mine\r\nkeep-alive: timeout=5\r\nx-mine: 1\r\n\
                       etag: \"e\"\r\nset-cookie: a\r\nset-cookie: b\r\n";
        vec![answer(418, headers, b"short and stout")]
    })
    .await;
    let target = "/b//a%2fb/./%7e+%20?X-Amz-Date=1&&x=%7e&y=a+b";
    let request = Request::builder()
        .method("PUT")
        .uri(target)
        .header("host", "node:9000")
        .header("authorization", "AWS4-HMAC-SHA256 Credential=x")
        .header("x-amz-meta-a", "1")
        .header("x-amz-meta-a", "2")
        .header("content-length", "5")
        .header("connection", "close, x-hop")
        .header("x-hop", "1")
        .header("te", "trailers")
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap();
    let response = client(&server.url()).send(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 418);
    assert_eq!(response.headers()["etag"], "\"e\"");
    assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
    for name in ["connection", "keep-alive", "x-mine"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    assert_eq!(text(response).await, "short and stout");
    let seen = &server.seen()[0];
    assert_eq!(seen.line, format!("PUT {target}"));
    assert_eq!(seen.body, b"hello");
    for (name, value) in [
        ("host", "node:9000"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=x"),
        ("x-amz-meta-a", "1, 2"),
        ("content-length", "5"),
        ("connection", ""),
        ("x-hop", ""),
        ("te", ""),
        ("user-agent", ""),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn answers_are_passed_on_whatever_they_say() {
    let server = Server::start(|n, _| match n {
        0 => vec![answer(503, "retry-after: 1\r\n", b"<Error/>")],
        1 => vec![send("HTTP/1.1 304 X\r\netag: \"e\"\r\n\r\n")],
        2 => vec![send("HTTP/1.1 200 X\r\ncontent-length: 123456\r\n\r\n")],
        3 => vec![send("HTTP/1.1 204 X\r\n\r\n")],
        4 => vec![send("HTTP/1.0 200 X\r\n\r\nto the end"), Step::Close],
        _ => vec![answer(200, "transfer-encoding: chunked\r\n", b"")],
    })
    .await;
    let client = client(&server.url());
    let unavailable = client.send(get("/a")).await.unwrap();
    assert_eq!(unavailable.status(), 503);
    assert_eq!(unavailable.headers()["retry-after"], "1");
    assert_eq!(text(unavailable).await, "<Error/>");
    assert_eq!(client.send(get("/a")).await.unwrap().status(), 304);
    let head = Request::head("/a").body(Empty::<Bytes>::new()).unwrap();
    let head = client.send(head).await.unwrap();
    assert_eq!(head.headers()["content-length"], "123456");
    assert_eq!(text(head).await, "");
    assert_eq!(client.send(get("/a")).await.unwrap().status(), 204);
    let to_the_end = client.send(get("/a")).await.unwrap();
    assert_eq!(text(to_the_end).await, "to the end");
    assert_eq!(server.seen().len(), 5);
    assert_eq!(client.statistics().retries, 0);
}

#[tokio::test]
async fn redirects_are_not_passed_on() {
    for (location, expected) in [
        (
            "location: http://evil:1/x\r\n",
            "it redirects (307) to evil",
        ),
        (
            "location: //evil/x\r\n",
            "it redirects (307) to another path",
        ),
        ("location: /x\r\n", "it redirects (307) to another path"),
        ("", "it redirects (307) without saying where"),
    ] {
        let server = Server::start(move |_, _| vec![answer(307, location, b"")]).await;
        let refused = client(&server.url()).send(get("/a")).await.unwrap_err();
        assert!(
            matches!(&refused, OriginError::Corrupt(why) if why == expected),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_once_for_what_only_reads() {
    let lost = |n, _: &Seen| match n {
        1 => vec![Step::Close],
        _ => vec![answer(200, "", b"")],
    };
    let server = Server::start(lost).await;
    let client = client(&server.url());
    for _ in 0..2 {
        assert_eq!(client.send(get("/a")).await.unwrap().status(), 200);
    }
    assert_eq!((server.seen().len(), server.opened()), (3, 2));

    let server = Server::start(lost).await;
    let client = super::client(&server.url());
    for expected in [true, false] {
        let put = Request::put("/a").body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(client.send(put).await.is_ok(), expected);
    }
    assert_eq!(server.seen().len(), 2);
    assert_eq!(client.statistics().retries, 0);
}

#[tokio::test]
async fn bodies_are_streamed_both_ways() {
    let server = Server::start(|_, _| vec![answer(200, "", b"ok")]).await;
    let client = client(&server.url());
    // Longer than any deadline, though no pause is.
    let body = slow(vec![Ok("abc"); 5], HEAD / 3);
    let request = Request::put("/a").body(body).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(text(response).await, "ok");
    let seen = &server.seen()[0];
    assert_eq!(seen.header("transfer-encoding"), "chunked");
    assert_eq!(
        seen.body,
        "3\r\nabc\r\n"
            .repeat(5)
            .into_bytes()
            .into_iter()
            .chain(*b"0\r\n\r\n")
            .collect::<Vec<u8>>()
    );
    assert_eq!(client.statistics().bytes_out, 15);
}

#[tokio::test]
async fn a_sender_that_fails_is_not_the_origins_fault() {
    let server = Server::start(|_, _| vec![answer(200, "", b"ok")]).await;
    let client = client(&server.url());
    for _ in 0..5 {
        let breaks = slow(vec![Ok("a"), Err("gone")], Duration::ZERO);
        let request = Request::put("/a").body(breaks).unwrap();
        let refused = in_time(client.send(request)).await.unwrap_err();
        assert!(
            matches!(&refused, OriginError::Body(why) if why == "gone"),
            "{refused}"
        );
    }
    let stalls = slow(vec![Ok("a"), Ok("b")], Duration::from_hours(1));
    let request = Request::put("/a").body(stalls).unwrap();
    let refused = in_time(client.send(request)).await.unwrap_err();
    assert!(matches!(&refused, OriginError::Body(why) if why.starts_with("nothing came")));
    assert_eq!(client.statistics().breaker, BreakerState::Closed);
    assert_eq!(client.statistics().in_flight, 0);
}

#[tokio::test]
async fn an_origin_that_does_not_read_or_answer_is_given_up() {
    let server = Server::start(|_, _| vec![Step::Hang]).await;
    let client = client(&server.url());
    let began = Instant::now();
    let large = Full::new(Bytes::from(vec![0; 64 << 20]));
    let request = Request::put("/a")
        .header("expect", "100-continue")
        .body(large);
    let refused = in_time(client.send(request.unwrap())).await.unwrap_err();
    assert!(matches!(&refused, OriginError::Unavailable(_)), "{refused}");
    let refused = in_time(client.send(get("/a"))).await.unwrap_err();
    assert!(
        refused.to_string().contains("no answer for 0.8 seconds"),
        "{refused}"
    );
    assert!(began.elapsed() < LONGEST);
}

fn expecting() -> Request<Full<Bytes>> {
    Request::put("/a")
        .header("expect", "100-continue")
        .header("content-length", "5")
        .body(Full::new(Bytes::from_static(b"hello")))
        .unwrap()
}

#[tokio::test]
async fn a_body_is_sent_when_the_origin_wants_it() {
    let server = Server::start(|_, _| {
        vec![
            Step::Wait(Duration::from_millis(50)),
            send("HTTP/1.1 100 Continue\r\n\r\n"),
            Step::ReadBody,
            answer(200, "", b""),
        ]
    })
    .await;
    let client = client(&server.url());
    let began = Instant::now();
    // If nobody heard the origin, each of them would take a second.
    for _ in 0..4 {
        assert_eq!(client.send(expecting()).await.unwrap().status(), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(3));
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.body == b"hello"));
    assert_eq!(server.opened(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_wanted_is_not_sent() {
    let server = Server::start(|_, _| vec![answer(403, "", b"no"), Step::Hang]).await;
    let client = client(&server.url());
    let refused = client.send(expecting()).await.unwrap();
    assert_eq!(refused.status(), 403);
    assert_eq!(text(refused).await, "no");
    in_time(server.all_closed()).await;
    assert_eq!(client.statistics().bytes_out, 0);
    // The next request is not mixed up with the body of this one.
    assert_eq!(client.send(expecting()).await.unwrap().status(), 403);
    assert_eq!(server.opened(), 2);
}

#[tokio::test]
async fn an_origin_that_knows_of_no_expectation_gets_the_body_anyway() {
    let server = Server::start(|_, _| vec![Step::ReadBody, answer(200, "", b"")]).await;
    let client = Client::new(ClientConfig {
        deadlines: crate::origin::Deadlines::default(),
        ..super::config(&server.url())
    })
    .unwrap();
    let response = in_time(client.send(expecting())).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(server.seen()[0].body, b"hello");
}

#[tokio::test]
async fn a_silent_body_ends() {
    let server = Server::start(|_, _| {
        vec![
            send("HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nhello"),
            Step::Hang,
        ]
    })
    .await;
    let response = client(&server.url()).send(get("/a")).await.unwrap();
    let ended = in_time(response.into_body().collect_at_most(100)).await;
    let text = ended.unwrap_err().to_string();
    assert!(
        text.contains("no byte of a body came for 0.8 seconds"),
        "{text}"
    );
}

#[tokio::test]
async fn no_more_connections_are_made_than_allowed() {
    let server = Server::start(|_, _| vec![Step::Wait(HEAD / 10), answer(200, "", b"ok")]).await;
    let client = Client::new(ClientConfig {
        connections_max: 2,
        ..super::config(&server.url())
    })
    .unwrap();
    let sent = (0..8).map(|_| async { text(client.send(get("/a")).await.unwrap()).await });
    let answers = in_time(futures_util::future::join_all(sent)).await;
    assert_eq!(answers, ["ok"; 8]);
    assert!(server.opened() <= 4, "{}", server.opened());
}

#[tokio::test]
async fn who_waits_for_a_connection_waits_not_for_ever() {
    let server = Server::start(|_, _| {
        vec![
            send("HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\nhello"),
            Step::Hang,
        ]
    })
    .await;
    let client = Client::new(ClientConfig {
        connections_max: 1,
        ..super::config(&server.url())
    })
    .unwrap();
    let held = client.send(get("/a")).await.unwrap();
    let refused = in_time(client.send(get("/a")))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("all 1 connections to it are busy"),
        "{refused}"
    );
    drop(held);
    let mut slow = client.send(get("/a")).await.unwrap();
    slow.body_mut().give_back();
    assert!(client.send(get("/a")).await.is_ok());
    drop(slow);
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_unavailable() {
    let refused = client(&nowhere().await).send(get("/a")).await.unwrap_err();
    let OriginError::Unavailable(why) = &refused else {
        panic!("{refused}");
    };
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn what_is_not_http_is_corrupt() {
    let server = Server::start(|_, _| vec![send("what?\r\n\r\n"), Step::Close]).await;
    let refused = client(&server.url()).send(get("/a")).await.unwrap_err();
    assert!(matches!(refused, OriginError::Corrupt(_)), "{refused}");
}

#[tokio::test]
async fn a_request_can_be_signed_anew() {
    let server = Server::start(|_, _| vec![answer(200, "", b"")]).await;
    let request = Request::get("/b/k?x=1")
        .header("host", "node")
        .header("authorization", "AWS4-HMAC-SHA256 Credential=client");
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    for (client, expected) in [
        (
            with_credentials(&server.url()),
            "AWS4-HMAC-SHA256 Credential=AKID/",
        ),
        (client(&server.url()), ""),
    ] {
        let (mut parts, body) = request.clone().into_parts();
        client.sign(&mut parts, Payload::Empty);
        client.send(Request::from_parts(parts, body)).await.unwrap();
        let seen = server.seen().pop().unwrap();
        let authorization = seen.header("authorization");
        assert!(authorization.starts_with(expected), "{authorization}");
        assert_eq!(authorization.is_empty(), expected.is_empty());
        assert_eq!(seen.header("host"), server.addr.to_string());
    }
}

#[tokio::test]
async fn an_answer_without_a_body_holds_no_connection() {
    let server = Server::start(|_, _| vec![answer(200, "", b"")]).await;
    let client = client(&server.url());
    let _held = client.send(get("/a")).await.unwrap();
    assert_eq!(client.statistics().in_flight, 0);
}

#[test]
fn a_request_under_way_can_change_threads() {
    fn check(_: impl Send) {}
    check(client("http://127.0.0.1:1").send(expecting()));
}
