//! Bytes of objects from origins that tell the truth, and from others.

use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::StreamExt as _;

use super::script::{Seen, Server, Step, answer, send};
use super::{HEAD, LONGEST, client, in_time, nowhere, with_credentials};
use crate::origin::{Authorization, BreakerState, Client};
use crate::source::FetchError;
use crate::version::Version;

const SIZE: usize = 1000;

/// The byte at a place of the object.
fn byte(at: usize) -> u8 {
    u8::try_from((at * 7 + at / 256) % 251).unwrap()
}

pub(super) fn bytes(range: Range<usize>) -> Vec<u8> {
    static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| (0..4 << 20).map(byte).collect());
    ALL[range].to_vec()
}

pub(super) fn version(size: usize) -> Arc<Version> {
    Arc::new(Version {
        bucket: "b".to_owned(),
        key: "a b/ü".to_owned(),
        etag: "e".to_owned(),
        version_id: None,
        size: size as u64,
    })
}

/// The headers of the right answer to a range.
pub(super) fn right(first: usize, end: usize, size: usize) -> String {
    let last = end - 1;
    format!("etag: \"e\"\r\ncontent-range: bytes {first}-{last}/{size}\r\n")
}

/// The right answer.
pub(super) fn good(seen: &Seen, size: usize) -> Step {
    let (first, end) = seen.range();
    answer(206, &right(first, end, size), &bytes(first..end))
}

/// What was yielded, and how it ended.
pub(super) async fn fetch(
    client: &Client,
    size: usize,
    range: Range<usize>,
) -> (Vec<u8>, Result<(), FetchError>) {
    let source = client.source(Authorization::Grant("token".to_owned()));
    let range = range.start as u64..range.end as u64;
    let mut all = Vec::new();
    let mut chunks = match source.fetch(&version(size), range).await {
        Ok(chunks) => chunks,
        Err(err) => return (all, Err(err)),
    };
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(err) => {
                assert!(chunks.next().await.is_none());
                return (all, Err(err));
            }
        }
    }
    (all, Ok(()))
}

/// Fetches bytes 100 to 199; how it ended, and how many requests it took. What was yielded is right
/// in any case.
async fn outcome(
    script: impl Fn(usize, &Seen) -> Vec<Step> + Send + Sync + 'static,
) -> (String, usize) {
    let server = Server::start(script).await;
    let (yielded, end) = in_time(fetch(&client(&server.url()), SIZE, 100..200)).await;
    assert_eq!(yielded, bytes(100..100 + yielded.len()));
    let end = match end {
        Ok(()) => {
            assert_eq!(yielded.len(), 100);
            "ok".to_owned()
        }
        Err(FetchError::Changed) => "changed".to_owned(),
        Err(FetchError::Denied(_)) => "denied".to_owned(),
        Err(FetchError::Unavailable(why)) => format!("unavailable: {why}"),
        Err(FetchError::Corrupt(why)) => format!("corrupt: {why}"),
    };
    (end, server.seen().len())
}

fn at_first(number: usize, steps: Vec<Step>, seen: &Seen) -> Vec<Step> {
    match number {
        0 => steps,
        _ => vec![good(seen, SIZE)],
    }
}

#[tokio::test]
async fn a_request_names_its_range_version_and_grant() {
    let server = Server::start(|_, seen| vec![good(seen, SIZE)]).await;
    let client = with_credentials(&server.url());
    let (yielded, end) = fetch(&client, SIZE, 100..200).await;
    end.unwrap();
    assert_eq!(yielded, bytes(100..200));
    let version = Arc::new(Version {
        version_id: Some("v/1".to_owned()),
        ..(*version(SIZE)).clone()
    });
    let source = client.source(Authorization::Own);
    drop(source.fetch(&version, 0..SIZE as u64).await.unwrap());

    let [granted, own]: [Seen; 2] = server.seen().try_into().unwrap();
    assert_eq!(granted.line, "GET /b/a%20b/%C3%BC");
    assert_eq!(granted.header("range"), "bytes=100-199");
    assert_eq!(granted.header("if-match"), "\"e\"");
    assert_eq!(granted.header("x-forebay-grant"), "token");
    assert_eq!(granted.header("authorization"), "");
    assert_eq!(granted.header("host"), server.addr.to_string());
    assert_eq!(own.line, "GET /b/a%20b/%C3%BC?versionId=v%2F1");
    assert_eq!(own.header("x-forebay-grant"), "");
    let authorization = own.header("authorization");
    let names = "SignedHeaders=host;if-match;range;x-amz-content-sha256;x-amz-date,";
    assert!(authorization.contains(names), "{authorization}");
    let statistics = client.statistics();
    assert_eq!((statistics.requests, statistics.errors), (2, 0));
    assert_eq!(statistics.bytes_in, 100);
}

#[tokio::test]
async fn a_connection_is_kept() {
    let server = Server::start(|_, seen| vec![good(seen, SIZE)]).await;
    let client = client(&server.url());
    for _ in 0..20 {
        fetch(&client, SIZE, 0..SIZE).await.1.unwrap();
    }
    assert_eq!(server.opened(), 1);
    assert_eq!(client.statistics().connections_opened, 1);
    assert_eq!(client.statistics().in_flight, 0);
}

#[tokio::test]
async fn statuses_have_their_meaning() {
    for (status, expected) in [
        (400, "corrupt: 400: 400 Bad Request"),
        (401, "denied"),
        (403, "denied"),
        (404, "changed"),
        (405, "corrupt: 405: 405 Method Not Allowed"),
        (409, "changed"),
        (412, "changed"),
        (416, "changed"),
        (501, "unavailable: 501: 501 Not Implemented"),
    ] {
        let (end, requests) = outcome(move |_, _| vec![answer(status, "", b"<Error/>")]).await;
        assert_eq!((end.trim_end(), requests), (expected, 1), "{status}");
    }
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let steps = vec![answer(status, "", b"<Error><Code>SlowDown</Code></Error>")];
        let again = steps.clone();
        let (end, requests) = outcome(move |n, seen| at_first(n, again.clone(), seen)).await;
        assert_eq!((end.as_str(), requests), ("ok", 2), "{status}");
        let (end, requests) = outcome(move |_, _| steps.clone()).await;
        assert!(end.starts_with("unavailable"), "{end}");
        assert_eq!(requests, 5, "{status}");
    }
}

#[tokio::test]
async fn an_origin_that_asks_for_a_pause_gets_it() {
    let began = tokio::time::Instant::now();
    let later = || vec![answer(503, "retry-after: 1\r\n", b"")];
    let (end, requests) = outcome(move |n, seen| at_first(n, later(), seen)).await;
    assert_eq!((end.as_str(), requests), ("ok", 2));
    assert!(began.elapsed() >= Duration::from_secs(1));
    let (end, requests) = outcome(|_, _| vec![answer(503, "retry-after: 60\r\n", b"")]).await;
    assert!(end.starts_with("unavailable: 503"), "{end}");
    assert_eq!(requests, 1);
}

#[tokio::test]
async fn connections_may_be_lost_before_an_answer() {
    for steps in [
        vec![Step::Close],
        vec![Step::Reset],
        vec![send("HTTP/1.1 206 X\r\netag: \"e"), Step::Close],
        vec![Step::Hang],
        vec![send("SSH-2.0-OpenSSH_9.2\r\n"), Step::Close],
    ] {
        let again = steps.clone();
        let (end, requests) = outcome(move |n, seen| at_first(n, again.clone(), seen)).await;
        assert_eq!((end.as_str(), requests), ("ok", 2), "{steps:?}");
    }
}

#[tokio::test]
async fn what_breaks_off_is_taken_up_where_it_broke() {
    let head = || {
        let head = right(100, 200, SIZE);
        send(format!(
            "HTTP/1.1 206 X\r\n{head}content-length: 100\r\n\r\n"
        ))
    };
    for end in [Step::Close, Step::Reset, Step::Hang] {
        let script = move |n, seen: &Seen| {
            let part = Step::Send(bytes(100..130));
            let wait = Step::Wait(Duration::from_millis(20));
            at_first(n, vec![head(), part, wait, end.clone()], seen)
        };
        let server = Server::start(script).await;
        let (yielded, end) = in_time(fetch(&client(&server.url()), SIZE, 100..200)).await;
        end.unwrap();
        assert_eq!(yielded, bytes(100..200));
        let ranges: Vec<_> = server.seen().iter().map(Seen::range).collect();
        assert_eq!(ranges, [(100, 200), (130, 200)]);
    }
}

#[tokio::test]
async fn what_breaks_off_again_and_again_ends() {
    let (end, requests) = outcome(|_, seen| {
        let (first, end) = seen.range();
        let (head, len) = (right(first, end, SIZE), end - first);
        let head = format!("HTTP/1.1 206 X\r\n{head}content-length: {len}\r\n\r\n");
        vec![
            send(head),
            Step::Send(bytes(first..first + 1)),
            Step::Wait(Duration::from_millis(10)),
            Step::Close,
        ]
    })
    .await;
    assert!(end.starts_with("unavailable: a body broke off"), "{end}");
    assert_eq!(requests, 5);
}

#[tokio::test]
async fn a_changed_object_is_noticed_in_the_middle() {
    let (end, requests) = outcome(|n, _| {
        let head = right(100, 200, SIZE);
        let head = format!("HTTP/1.1 206 X\r\n{head}content-length: 100\r\n\r\n");
        match n {
            0 => vec![send(head), Step::Send(bytes(100..130)), Step::Close],
            1 => vec![answer(412, "", b"")],
            _ => vec![Step::Close],
        }
    })
    .await;
    assert_eq!((end.as_str(), requests), ("changed", 2));
}

#[tokio::test]
async fn lies_are_not_believed() {
    let body = || bytes(100..200);
    let other = "etag: \"f\"\r\ncontent-range: bytes 100-199/1000\r\n";
    let (end, requests) = outcome(move |_, _| vec![answer(206, other, &body())]).await;
    assert_eq!((end.as_str(), requests), ("changed", 1));
    for (status, head, len) in [
        (206, right(100, 200, SIZE + 1), 100),
        (206, right(101, 201, SIZE), 100),
        (206, right(100, 200, SIZE), 101),
        (206, right(100, 200, SIZE), 99),
        (206, right(100, 199, SIZE), 99),
        (206, "etag: \"e\"\r\n".to_owned(), 100),
        (200, "etag: \"e\"\r\n".to_owned(), SIZE),
        (206, "content-range: bytes 100-199/1000\r\n".to_owned(), 100),
    ] {
        let lie = answer(status, &head, &bytes(100..100 + len));
        let again = lie.clone();
        let (end, requests) = outcome(move |_, _| vec![lie.clone()]).await;
        assert!(end.starts_with("corrupt"), "{end}");
        assert_eq!(requests, 5, "{head}");
        let (end, requests) = outcome(move |n, seen| at_first(n, vec![again.clone()], seen)).await;
        assert_eq!((end.as_str(), requests), ("ok", 2), "{head}");
    }
}

#[tokio::test]
async fn an_answer_without_a_length_is_measured() {
    let chunked = |len: usize| {
        let head = right(100, 200, SIZE);
        let mut text = format!("HTTP/1.1 206 X\r\n{head}transfer-encoding: chunked\r\n\r\n");
        text.push_str("32\r\n");
        let mut answer = text.into_bytes();
        answer.extend(bytes(100..150));
        answer.extend(format!("\r\n{:x}\r\n", len - 50).into_bytes());
        answer.extend(bytes(150..100 + len));
        answer.extend(b"\r\n0\r\n\r\n");
        vec![Step::Send(answer)]
    };
    assert_eq!(
        outcome(move |_, _| chunked(100)).await,
        ("ok".to_owned(), 1)
    );
    for (len, expected) in [
        (99, "corrupt: it ends 1 bytes before the end of the range"),
        (101, "corrupt: it goes on after the end of the range"),
        (150, "corrupt: it goes on after the end of the range"),
    ] {
        let lie = move |n, seen: &Seen| at_first(n, chunked(len), seen);
        assert_eq!(outcome(lie).await, ("ok".to_owned(), 2), "{len}");
        let (end, _) = outcome(move |n, seen| {
            let (first, end) = seen.range();
            let head = right(first, end, SIZE);
            let head = format!("HTTP/1.1 206 X\r\n{head}connection: close\r\n\r\n");
            match n {
                0 => chunked(len),
                _ => vec![
                    send(head),
                    Step::Send(bytes(first..end + len - 100)),
                    Step::Close,
                ],
            }
        })
        .await;
        assert_eq!(end, expected);
    }
}

#[tokio::test]
async fn redirects_are_refused() {
    for status in [300, 301, 302, 303, 305, 307, 308] {
        let location = "location: http://169.254.169.254/latest\r\nx-amz-bucket-region: r-1\r\n";
        let (end, requests) = outcome(move |_, _| vec![answer(status, location, b"")]).await;
        let to =
            format!("it redirects ({status}) to 169.254.169.254; the bucket is in the region r-1");
        assert_eq!((end, requests), (format!("corrupt: {to}"), 1));
    }
}

#[tokio::test]
async fn a_silent_origin_fails_within_the_deadline() {
    let began = tokio::time::Instant::now();
    let (end, requests) = outcome(|_, _| vec![Step::Hang]).await;
    // After a while it is taken for dead.
    assert!(end.starts_with("unavailable: "), "{end}");
    assert!(end.contains("no answer for 0.8 seconds"), "{end}");
    assert!(requests >= 3, "{requests}");
    assert!(began.elapsed() < LONGEST);
}

#[tokio::test]
async fn a_slow_reader_is_not_taken_for_a_silent_origin() {
    let script = |_, _: &Seen| {
        let head = right(100, 200, SIZE);
        let head = format!("HTTP/1.1 206 X\r\n{head}content-length: 100\r\n\r\n");
        vec![
            send(head),
            Step::Send(bytes(100..150)),
            Step::Wait(Duration::from_millis(100)),
            Step::Send(bytes(150..200)),
        ]
    };
    let server = Server::start(script).await;
    let source = client(&server.url()).source(Authorization::Own);
    let mut chunks = source.fetch(&version(SIZE), 100..200).await.unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = chunks.next().await {
        all.extend_from_slice(&chunk.unwrap());
        tokio::time::sleep(HEAD * 2).await;
    }
    assert_eq!(all, bytes(100..200));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_dropped_stream_ends_the_transfer() {
    let server = Server::start(|_, seen| {
        let (first, end) = seen.range();
        let (head, len) = (right(first, end, SIZE), end - first);
        let head = format!("HTTP/1.1 206 X\r\n{head}content-length: {len}\r\n\r\n");
        vec![send(head), Step::Send(bytes(0..10)), Step::Hang]
    })
    .await;
    let client = client(&server.url());
    let source = client.source(Authorization::Own);
    let mut chunks = source.fetch(&version(SIZE), 0..100).await.unwrap();
    assert_eq!(chunks.next().await.unwrap().unwrap().len(), 10);
    assert_eq!(client.statistics().in_flight, 1);
    drop(chunks);
    in_time(server.all_closed()).await;
    assert_eq!(client.statistics().in_flight, 0);
}

#[tokio::test]
async fn a_dead_origin_fails_at_once_and_is_found_again() {
    let url = nowhere().await;
    let client = client(&url);
    let began = tokio::time::Instant::now();
    while client.statistics().breaker == BreakerState::Closed {
        let (_, end) = in_time(fetch(&client, SIZE, 0..100)).await;
        let end = end.unwrap_err().to_string();
        assert!(end.contains("refused"), "{end}");
        assert!(began.elapsed() < LONGEST);
    }
    let requests = client.statistics().requests;
    let (_, end) = fetch(&client, SIZE, 0..100).await;
    let end = end.unwrap_err().to_string();
    assert!(
        end.contains("it does not answer (") && end.contains("refused"),
        "{end}"
    );
    assert_eq!(client.statistics().requests, requests);

    let addr = url.strip_prefix("http://").unwrap();
    let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    let _server = Server::on(listener, |_, seen| vec![good(seen, SIZE)]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    fetch(&client, SIZE, 0..100).await.1.unwrap();
    let statistics = client.statistics();
    assert_eq!(statistics.breaker, BreakerState::Closed);
    assert_eq!(statistics.breaker_opened, 1);
}

#[tokio::test]
async fn errors_are_no_death() {
    let server = Server::start(|n, seen| match n {
        0..50 => vec![answer(500, "", b"")],
        _ => vec![good(seen, SIZE)],
    })
    .await;
    let client = client(&server.url());
    for _ in 0..10 {
        fetch(&client, SIZE, 0..100).await.1.unwrap_err();
    }
    assert_eq!(client.statistics().breaker, BreakerState::Closed);
    fetch(&client, SIZE, 0..100).await.1.unwrap();
    let statistics = client.statistics();
    assert_eq!(
        (statistics.requests, statistics.errors, statistics.retries),
        (51, 50, 40)
    );
}

#[tokio::test]
async fn what_can_not_be_asked_is_not_asked() {
    let server = Server::start(|_, _| vec![Step::Close]).await;
    let client = client(&server.url());
    for range in [0..0, 5..5, 999..1001] {
        let (_, end) = fetch(&client, SIZE, range).await;
        assert!(matches!(end, Err(FetchError::Corrupt(_))));
    }
    let source = client.source(Authorization::Grant("to\nken".to_owned()));
    assert!(source.fetch(&version(SIZE), 0..1).await.is_err());
    assert_eq!(server.opened(), 0);
}
