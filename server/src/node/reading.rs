//! What a client asks: a read that the cache can answer, a call to have an object brought in, or
//! anything else, which is passed on.

use forebay_cache::Directive;
use http::header::{CACHE_CONTROL, HOST, RANGE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method};

use crate::call::{self, CALLS, Op};
use crate::compat::Compat;
use crate::query::Query;
use crate::target::Target;

/// The range that has a `HEAD` bring the whole object in.
const PRESTAGE_RANGE: &str = "bytes=0-0";

/// A read of an object, as its client signed it.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// `GET`, or `HEAD` to have it brought in.
    pub(crate) method: Method,
    /// Path and query as they came.
    pub(crate) target: PathAndQuery,
    /// The headers, without those for one connection.
    pub(crate) headers: HeaderMap,
    /// The bucket's name.
    pub(crate) bucket: String,
    /// The object's key.
    pub(crate) key: String,
}

/// What is to be done with a request.
#[derive(Debug)]
pub(super) enum Plan {
    /// Answer with the cache's help.
    Read(Reading, Directive),
    /// Ask the origin, say how much of the object is here, and have the rest brought in unless
    /// nothing is to be.
    Prestage(Reading, Directive),
    /// Ask for the head alone, which may be known here.
    Head(Reading),
    /// The client says that the cache is to be left alone.
    Bypass,
    /// Pass it on.
    Pass,
    /// Pass it on; it may change this object, or objects of this bucket.
    Write(String, Option<String>),
}

/// What a request is: its place in the table of calls, if it has one, and what to do.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) call: Option<usize>,
    pub(super) plan: Plan,
}

/// Looks at a request's head; `has_body` where something follows it.
///
/// Nothing is refused here: what can't be understood is passed on for the origin to refuse.
pub(super) fn plan(parts: &Parts, has_body: bool, base_domains: &[String]) -> Planned {
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or(parts.uri.host()).unwrap_or_default();
    let pass = |call| Planned {
        call,
        plan: Plan::Pass,
    };
    let target = Target::parse(host, parts.uri.path(), base_domains, Compat::Forebay);
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let (Ok(target), Ok(query)) = (target, query) else {
        return pass(None);
    };
    let Ok(index) = call::route(&parts.method, target.level(), &query, &parts.headers) else {
        return pass(None);
    };
    let op = CALLS[index].op;
    let is_read = matches!(op, Op::GetObject | Op::HeadObject);
    if !is_read || has_body || !is_plain(&query) || is_encrypted(&parts.headers, &query) {
        return match target.bucket {
            Some(bucket) if !parts.method.is_safe() => Planned {
                call: Some(index),
                plan: Plan::Write(bucket, target.key),
            },
            _ => pass(Some(index)),
        };
    }
    let (Some(bucket), Some(key), Some(path_and_query)) =
        (target.bucket, target.key, parts.uri.path_and_query())
    else {
        return pass(Some(index));
    };
    let directive = directive(&parts.headers);
    let reading = || Reading {
        method: parts.method.clone(),
        target: path_and_query.clone(),
        headers: parts.headers.clone(),
        bucket,
        key,
    };
    let plan = match op {
        Op::GetObject if !directive.looks() => Plan::Bypass,
        Op::GetObject => Plan::Read(reading(), directive),
        _ if directive.looks() && is_prestage(&parts.headers) => {
            Plan::Prestage(reading(), directive)
        }
        _ if directive.looks() => Plan::Head(reading()),
        _ => Plan::Pass,
    };
    Planned {
        call: Some(index),
        plan,
    }
}

/// What a request says to the cache.
pub(crate) fn directive(headers: &HeaderMap) -> Directive {
    let values = headers.get_all(CACHE_CONTROL).iter();
    Directive::parse(values.filter_map(|value| value.to_str().ok()))
}

/// Whether all parameters are such as a read of an object's bytes has.
fn is_plain(query: &Query) -> bool {
    query.iter().all(|(name, _)| {
        let begins = |start: &str| {
            name.get(..start.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(start))
        };
        matches!(name, "versionId" | "partNumber" | "x-id")
            || begins("response-")
            || begins("x-amz-")
    })
}

/// Whether the client sends a key to decrypt with: such bytes are for him alone.
fn is_encrypted(headers: &HeaderMap, query: &Query) -> bool {
    const START: &str = "x-amz-server-side-encryption";
    let begins = |name: &str| {
        name.get(..START.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(START))
    };
    headers.keys().any(|name| begins(name.as_str())) || query.iter().any(|(name, _)| begins(name))
}

/// Whether a `HEAD` is to have the whole object brought in.
pub(crate) fn is_prestage(headers: &HeaderMap) -> bool {
    let mut ranges = headers.get_all(RANGE).iter().map(HeaderValue::as_bytes);
    ranges.next() == Some(PRESTAGE_RANGE.as_bytes()) && ranges.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn planned(method: &str, uri: &str, headers: &[(&str, &str)]) -> Planned {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers.iter().chain(&[("host", "h.test:9000")]) {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        plan(&parts, false, &["h.test".to_owned()])
    }

    fn word(method: &str, uri: &str, headers: &[(&str, &str)]) -> &'static str {
        match planned(method, uri, headers).plan {
            Plan::Read(_, Directive::Use) => "read",
            Plan::Read(_, Directive::NoFill) => "read only",
            Plan::Read(_, Directive::Bypass) => "impossible",
            Plan::Prestage(_, Directive::Use) => "prestage",
            Plan::Prestage(..) => "look",
            Plan::Head(_) => "head",
            Plan::Bypass => "bypass",
            Plan::Pass => "pass",
            Plan::Write(_, Some(_)) => "write",
            Plan::Write(_, None) => "write some",
        }
    }

    /// Method, target, headers, and what is planned.
    type Row<'r> = (&'r str, &'r str, &'r [(&'r str, &'r str)], &'r str);

    #[test]
    fn reads_of_bytes_are_the_caches_and_nothing_else() {
        let rows: &[Row<'_>] = &[
            ("GET", "/b/k", &[], "read"),
            (
                "GET",
                "/b/k?versionId=v&partNumber=1&x-id=GetObject",
                &[],
                "read",
            ),
            (
                "GET",
                "/b/k?response-content-type=a&X-Amz-Signature=0",
                &[],
                "read",
            ),
            ("GET", "/b/k", &[("cache-control", "No-Cache")], "read only"),
            (
                "GET",
                "/b/k",
                &[("cache-control", "no-cache, no-store")],
                "bypass",
            ),
            ("GET", "/b/k", &[("range", "bytes=0-0")], "read"),
            ("GET", "/b/k?acl", &[], "pass"),
            ("GET", "/b/k?torrent", &[], "pass"),
            ("GET", "/b/k?something", &[], "pass"),
            ("GET", "/b/k?%ff", &[], "pass"),
            ("GET", "/b/%ff", &[], "pass"),
            (
                "GET",
                "/b/k",
                &[("x-amz-server-side-encryption-customer-key", "a")],
                "pass",
            ),
            ("GET", "/b/", &[], "pass"),
            ("GET", "/b?list-type=2", &[], "pass"),
            ("GET", "/", &[], "pass"),
            ("PUT", "/b/k", &[], "write"),
            ("DELETE", "/b/k", &[], "write"),
            ("POST", "/b?delete", &[], "write some"),
            ("PATCH", "/b/k", &[], "pass"),
            ("HEAD", "/b/k", &[], "head"),
            ("HEAD", "/b", &[], "pass"),
            ("HEAD", "/b/k", &[("range", "bytes=0-0")], "prestage"),
            ("HEAD", "/b/k", &[("range", "bytes=0-1")], "head"),
            (
                "HEAD",
                "/b/k",
                &[("range", "bytes=0-0"), ("range", "bytes=0-0")],
                "head",
            ),
            (
                "HEAD",
                "/b/k",
                &[("range", "bytes=0-0"), ("cache-control", "no-cache")],
                "look",
            ),
            (
                "HEAD",
                "/b/k",
                &[("range", "bytes=0-0"), ("cache-control", "no-store")],
                "pass",
            ),
        ];
        for (method, uri, headers, expected) in rows {
            assert_eq!(
                word(method, uri, headers),
                *expected,
                "{method} {uri} {headers:?}"
            );
        }
    }

    #[test]
    fn a_read_names_its_object_by_path_or_host() {
        for (host, uri) in [("h.test", "/b/a%2Fc"), ("b.h.test", "/a/c")] {
            let request = Request::builder().uri(uri).header("host", host);
            let parts = request.body(()).unwrap().into_parts().0;
            let Plan::Read(reading, _) = plan(&parts, false, &["h.test".to_owned()]).plan else {
                panic!("{host} {uri}");
            };
            assert_eq!(
                (reading.bucket.as_str(), reading.key.as_str()),
                ("b", "a/c")
            );
            assert_eq!(reading.target, uri);
        }
    }

    #[test]
    fn a_read_with_a_body_is_passed_on() {
        let request = Request::builder().uri("/b/k").header("host", "h");
        let parts = request.body(()).unwrap().into_parts().0;
        assert!(matches!(plan(&parts, true, &[]).plan, Plan::Pass));
    }
}
