//! Requests that a proxy in front could read differently: one client's bytes must not become
//! another's request.

use crate::harness::{Answer, Client, Running, SECRET, signed, signed_head};

/// Sends a request and a second one right behind it; the answer to the first, and whether the
/// second was answered.
fn with_another_behind(client: &mut Client, request: &[u8]) -> (Answer, bool) {
    let behind = b"GET /-/health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let answer = client.call(&[request, behind].concat());
    let answered = !client.is_closed();
    (answer, answered)
}

fn assert_refused(server: &Running, request: &[u8]) {
    let (answer, answered) = with_another_behind(&mut server.connect(), request);
    let said = String::from_utf8_lossy(request);
    assert_eq!(answer.status, 400, "{said}");
    assert!(!answered, "{said}");
}

#[test]
fn a_head_that_two_servers_would_read_differently_is_refused() {
    let server = Running::with_bucket();
    for lines in [
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 5",
        "content-length: 5 5",
        "content-length: +5",
        "content-length: -0",
        "content-length: 0x5",
        "content-length: ",
        "content-length: 99999999999999999999",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: \u{b}chunked",
        "transfer-encoding : chunked",
        "transfer-encoding: gzip, chunked",
        "Host: localhost",
        "Host: other",
        "x-folded: a\r\n b",
        "x-folded: a\r\n\tb",
        "x-cr: a\rcontent-length: 5",
        "x-cr: a\r\r",
        "x-nul: a\0b",
        "x space: a",
        "no colon",
        ": no name",
    ] {
        for target in ["PUT /bkt/k", "GET /-/health/live"] {
            let request = format!("{target} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n\r\n");
            assert_refused(&server, request.as_bytes());
        }
    }
    for head in [
        "GET /bkt/k HTTP/1.1\r\n",
        "GET /bkt/k HTTP/1.1\r\nhost: u@localhost\r\n",
        "GET /bkt/k HTTP/1.1\r\nhost: localhost/bkt\r\n",
        "GET http://other/bkt/k HTTP/1.1\r\nhost: localhost\r\n",
        "GET http://other/-/health/live HTTP/1.1\r\nhost: localhost\r\n",
        "GET /bkt/k HTTP/1.1\r\n x: before the first\r\nhost: localhost\r\n",
        "GET  /bkt/k HTTP/1.1\r\nhost: localhost\r\n",
        "GET\t/bkt/k HTTP/1.1\r\nhost: localhost\r\n",
        "GET /bkt/k /x HTTP/1.1\r\nhost: localhost\r\n",
        "GET /bkt/k HTTP/1.2\r\nhost: localhost\r\n",
        "PUT /bkt/k HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n",
    ] {
        assert_refused(&server, format!("{head}\r\n").as_bytes());
    }
    let long = format!(
        "GET /bkt/k HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "y".repeat(1 << 20)
    );
    assert!(matches!(
        server.connect().call(long.as_bytes()).status,
        400 | 431
    ));
}

/// RFC 9112 §6.1 leaves it to the server to refuse both, or to go by the latter; either way it must
/// close the connection.
#[test]
fn beside_a_transfer_encoding_a_content_length_counts_for_nothing() {
    let server = Running::with_bucket();
    let chunked = [("transfer-encoding", "chunked")];
    let head = signed_head("PUT", "/bkt/k", &chunked, "UNSIGNED-PAYLOAD", SECRET);
    let head = String::from_utf8(head).expect("text");
    let (first_line, lines) = head.split_once("\r\n").expect("lines");
    let last = lines.strip_suffix("\r\n").expect("an empty line");
    for head in [
        format!("{first_line}\r\ncontent-length: 3\r\n{lines}"),
        format!("{first_line}\r\n{last}content-length: 3\r\n\r\n"),
    ] {
        let request = format!("{head}5\r\nhello\r\n0\r\n\r\n");
        let (answer, answered) = with_another_behind(&mut server.connect(), request.as_bytes());
        assert_eq!(answer.status, 200, "{head}");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(!answered, "{head}");
        let get = server.connect().call(&signed("GET", "/bkt/k", &[], b""));
        assert_eq!(get.body, b"hello");
    }
    // A length that is signed is missed, so that a client which says both learns of it.
    let both = [("content-length", "3"), ("transfer-encoding", "chunked")];
    let mut request = signed_head("PUT", "/bkt/k", &both, "UNSIGNED-PAYLOAD", SECRET);
    request.extend(b"5\r\nworld\r\n0\r\n\r\n");
    let (answer, answered) = with_another_behind(&mut server.connect(), &request);
    assert_eq!((answer.status, answered), (403, false));
}

#[test]
fn a_body_whose_chunks_are_broken_is_refused() {
    let server = Running::with_bucket();
    for chunks in [
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
    ] {
        let chunked = [("transfer-encoding", "chunked")];
        let mut request = signed_head("PUT", "/bkt/k", &chunked, "UNSIGNED-PAYLOAD", SECRET);
        request.extend(chunks.as_bytes());
        assert_refused(&server, &request);
    }
    let get = server.connect().call(&signed("GET", "/bkt/k", &[], b""));
    assert_eq!(get.status, 404);
}
