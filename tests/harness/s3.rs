//! As little of an S3 client as the tests need: presigned requests over one connection each.
//!
//! Headers, chunked bodies and all else that clients do is `tests/clients`'s subject; here the
//! client is only in the way. Bodies stream both ways, so that the test itself stays small.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sign::{Key, Presign};

/// Nothing is slow enough for this; a server that hangs must fail the test.
const TIMEOUT: Duration = Duration::from_mins(2);

/// A server, as a client sees it.
#[derive(Clone)]
pub(crate) struct S3 {
    endpoint: String,
    key: Key,
    /// Headers of every request, as lines; they are not signed.
    headers: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found == name)?;
        Some(&found.1)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The response, if its status is `status`.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

impl S3 {
    pub(crate) fn new(endpoint: &str, id: &str, secret: &str) -> Self {
        let key = Key {
            id: id.to_owned(),
            secret: secret.to_owned(),
        };
        Self {
            endpoint: endpoint.to_owned(),
            key,
            headers: String::new(),
        }
    }

    /// The same client, which says this in a header of every request.
    pub(crate) fn saying(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        write!(with.headers, "{name}: {value}\r\n").unwrap();
        with
    }

    pub(crate) fn create_bucket(&self, bucket: &str) {
        self.call("PUT", &format!("/{bucket}"), &[], b"")
            .unwrap()
            .expect(200);
    }

    pub(crate) fn put(&self, bucket: &str, key: &str, body: &[u8]) -> io::Result<Response> {
        self.call("PUT", &format!("/{bucket}/{key}"), &[], body)
    }

    pub(crate) fn get(&self, bucket: &str, key: &str) -> io::Result<Response> {
        self.call("GET", &format!("/{bucket}/{key}"), &[], b"")
    }

    pub(crate) fn delete(&self, bucket: &str, key: &str) -> io::Result<Response> {
        self.call("DELETE", &format!("/{bucket}/{key}"), &[], b"")
    }

    /// All keys with a prefix, by pages.
    pub(crate) fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut token = String::new();
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", prefix)];
            if !token.is_empty() {
                query.push(("continuation-token", &token));
            }
            let page = self
                .call("GET", &format!("/{bucket}"), &query, b"")
                .unwrap();
            let text = page.expect(200).text();
            keys.extend(elements(&text, "Key"));
            match elements(&text, "NextContinuationToken").pop() {
                Some(next) => token = next,
                None => return keys,
            }
        }
    }

    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut answer = Vec::new();
        let len = body.len() as u64;
        let mut response = self.stream(method, path, query, (len, body), &mut answer)?;
        response.body = answer;
        Ok(response)
    }

    /// A range of an object, first byte and the one after the last, handed on as it comes.
    pub(crate) fn get_range(
        &self,
        bucket: &str,
        key: &str,
        range: std::ops::Range<u64>,
        answer: &mut impl Write,
    ) -> io::Result<Response> {
        let path = format!("/{bucket}/{key}");
        let asking = self.saying("Range", &format!("bytes={}-{}", range.start, range.end - 1));
        asking.stream("GET", &path, &[], (0, io::empty()), answer)
    }

    /// Sends a body of a known length as it is read, and hands on the answer's as it comes.
    pub(crate) fn stream(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        (len, mut body): (u64, impl Read),
        answer: &mut impl Write,
    ) -> io::Result<Response> {
        let (host, target) = self.target(method, path, query);
        let mut stream = TcpStream::connect(&host)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        write!(stream, "{method} {target} HTTP/1.1\r\nHost: {host}\r\n")?;
        let said = &self.headers;
        write!(
            stream,
            "{said}Connection: close\r\nContent-Length: {len}\r\n\r\n"
        )?;
        io::copy(&mut body, &mut stream)?;
        let mut reader = BufReader::with_capacity(1 << 17, stream);
        let response = read_head(&mut reader)?;
        if method != "HEAD" {
            read_body(&response, &mut reader, answer)?;
        }
        Ok(response)
    }

    /// Host, and path with a query that is signed.
    fn target(&self, method: &str, path: &str, query: &[(&str, &str)]) -> (String, String) {
        let request = Presign {
            endpoint: &self.endpoint,
            method,
            path,
            query,
            region: "us-east-1",
            expires: Duration::from_hours(1),
            now: now(),
        };
        let url = request.url(&self.key);
        let (_, rest) = url.split_once("://").unwrap();
        let (host, target) = rest.split_once('/').unwrap();
        (host.to_owned(), format!("/{target}"))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client's requests carry the time on the wall"
)]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what}"))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Response> {
    let first = read_line(reader)?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| broken(&first))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(Response {
                status,
                headers,
                body: Vec::new(),
            });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken(&line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_body(
    response: &Response,
    reader: &mut impl BufRead,
    answer: &mut impl Write,
) -> io::Result<()> {
    if response.header("transfer-encoding") == Some("chunked") {
        loop {
            let line = read_line(reader)?;
            let len = u64::from_str_radix(&line, 16).map_err(|_| broken(&line))?;
            copy_exactly(reader, len, answer)?;
            read_line(reader)?;
            if len == 0 {
                return Ok(());
            }
        }
    }
    let len = response
        .header("content-length")
        .and_then(|len| len.parse().ok());
    copy_exactly(reader, len.unwrap_or(0), answer)
}

fn copy_exactly(reader: &mut impl BufRead, len: u64, to: &mut impl Write) -> io::Result<()> {
    if io::copy(&mut reader.take(len), to)? < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// The texts of all elements of this name, unescaped.
pub(crate) fn elements(xml: &str, name: &str) -> Vec<String> {
    let (mut open, mut close) = (String::new(), String::new());
    write!(open, "<{name}>").unwrap();
    write!(close, "</{name}>").unwrap();
    let after_open = xml.split(&open).skip(1);
    let texts = after_open.filter_map(|rest| Some(rest.split_once(&close)?.0));
    texts.map(unescape).collect()
}

fn unescape(text: &str) -> String {
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (entity, char)| {
        text.replace(entity, char)
    })
}

/// Makes a request without a body, or with one that follows `headers`.
pub(crate) fn raw(endpoint: &str, line: &str, headers: &str) -> io::Result<Response> {
    let host = endpoint
        .strip_prefix("http://")
        .ok_or_else(|| broken(endpoint))?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let end = if headers.contains("\r\n\r\n") {
        ""
    } else {
        "\r\n"
    };
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}{end}"
    )?;
    let mut reader = BufReader::new(stream);
    let mut response = read_head(&mut reader)?;
    let mut body = Vec::new();
    read_body(&response, &mut reader, &mut body)?;
    response.body = body;
    Ok(response)
}

/// GETs a URL that is presigned already.
pub(crate) fn fetch(url: &str) -> io::Result<Response> {
    let (host, target) = url
        .strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| broken(url))?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut reader = BufReader::new(stream);
    let mut response = read_head(&mut reader)?;
    let mut body = Vec::new();
    read_body(&response, &mut reader, &mut body)?;
    response.body = body;
    Ok(response)
}
