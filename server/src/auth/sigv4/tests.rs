//! The vectors that AWS publishes for Signature Version 4.

use http::HeaderValue;

use super::*;
use crate::auth::key::{SigningKey, same_signature};

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SCOPE: &str = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn signature(
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    payload: &str,
) -> String {
    let mut names: Vec<_> = headers.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let signed_headers = names.join(";");
    let query = Query::parse(query).unwrap();
    let path = crate::query::percent_decode(path, crate::query::Plus::Plus).unwrap();
    let signed = Signed {
        method,
        path: &path,
        query: &query,
        headers,
        names: &signed_headers,
        payload,
    };
    let credential = Credential::parse(SCOPE).unwrap();
    let to_sign = string_to_sign("20130524T000000Z", &credential, &signed.canonical_request());
    let key = SigningKey::derive(SECRET, "20130524", "us-east-1");
    let signature = key.sign(to_sign.as_bytes());
    assert!(same_signature(&signature, &hex::encode(signature)));
    hex::encode(signature)
}

fn common(payload: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("host", "examplebucket.s3.amazonaws.com"),
        ("x-amz-content-sha256", payload),
        ("x-amz-date", "20130524T000000Z"),
    ]
}

#[test]
fn get_with_a_range() {
    let mut list = common(EMPTY);
    list.push(("range", "bytes=0-9"));
    assert_eq!(
        signature(&Method::GET, "/test.txt", "", &headers(&list), EMPTY),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    );
}

#[test]
fn put_with_a_body() {
    let hash = hex::encode(Sha256::digest("Welcome to Amazon S3."));
    let mut list = common(&hash);
    list.push(("date", "Fri, 24 May 2013 00:00:00 GMT"));
    list.push(("x-amz-storage-class", "REDUCED_REDUNDANCY"));
    for path in ["/test$file.text", "/test%24file.text"] {
        assert_eq!(
            signature(&Method::PUT, path, "", &headers(&list), &hash),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
    }
}

#[test]
fn flags_and_values_in_the_query() {
    assert_eq!(
        signature(
            &Method::GET,
            "/",
            "lifecycle",
            &headers(&common(EMPTY)),
            EMPTY
        ),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    );
    assert_eq!(
        signature(
            &Method::GET,
            "/",
            "prefix=J&max-keys=2",
            &headers(&common(EMPTY)),
            EMPTY
        ),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    );
}

#[test]
fn presigned_get() {
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524\
                 %2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400\
                 &X-Amz-SignedHeaders=host&X-Amz-Signature=ignored";
    let host = headers(&[("host", "examplebucket.s3.amazonaws.com")]);
    assert_eq!(
        signature(&Method::GET, "/test.txt", query, &host, "UNSIGNED-PAYLOAD"),
        "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

#[test]
fn a_path_is_signed_as_it_is() {
    let query = Query::default();
    let headers = HeaderMap::new();
    let line = |path: &str| {
        let signed = Signed {
            method: &Method::GET,
            path,
            query: &query,
            headers: &headers,
            names: "host",
            payload: EMPTY,
        };
        let canonical = String::from_utf8(signed.canonical_request()).unwrap();
        canonical.lines().nth(1).unwrap().to_owned()
    };
    for (decoded, encoded) in [
        ("", "/"),
        ("/b//a/./../c", "/b//a/./../c"),
        ("/b/a b+c%d", "/b/a%20b%2Bc%25d"),
        ("/b/é~*", "/b/%C3%A9~%2A"),
    ] {
        assert_eq!(line(decoded), encoded);
    }
}

#[test]
fn header_values_are_trimmed_folded_and_joined() {
    let query = Query::default();
    let headers = headers(&[("x-amz-meta-a", "  b   c "), ("x-amz-meta-a", "d")]);
    let signed = Signed {
        method: &Method::GET,
        path: "/",
        query: &query,
        headers: &headers,
        names: "x-amz-meta-a",
        payload: EMPTY,
    };
    let canonical = String::from_utf8(signed.canonical_request()).unwrap();
    assert!(canonical.contains("\nx-amz-meta-a:b c,d\n"), "{canonical}");
}

#[test]
fn the_authorization_header_is_read_in_any_order() {
    let value = format!("{ALGORITHM} Signature=s,SignedHeaders=host;range, Credential=a/b/{SCOPE}");
    let parsed = AuthorizationHeader::parse(&value).unwrap();
    assert_eq!(parsed.credential.key_id, "a/b/AKIAIOSFODNN7EXAMPLE");
    assert_eq!(parsed.credential.region, "us-east-1");
    assert_eq!(parsed.signed_headers, "host;range");
    assert_eq!(parsed.signature, "s");
}

#[test]
fn what_is_no_version_4_header_is_refused() {
    let v4 = |rest: &str| format!("{ALGORITHM} {rest}");
    let rows = [
        ("AWS AKID:sig=".to_owned(), Code::InvalidRequest),
        ("AWS4-HMAC-SHA256".to_owned(), Code::InvalidArgument),
        (
            "AWS4-ECDSA-P256-SHA256 Credential=x".to_owned(),
            Code::InvalidArgument,
        ),
        (
            "aws4-hmac-sha256 Credential=x".to_owned(),
            Code::InvalidArgument,
        ),
        ("Basic abc".to_owned(), Code::InvalidArgument),
        (
            v4("SignedHeaders=host,Signature=s"),
            Code::AuthorizationHeaderMalformed,
        ),
        (
            v4(&format!("Credential={SCOPE},Signature=s")),
            Code::AuthorizationHeaderMalformed,
        ),
        (
            v4(&format!("Credential={SCOPE},SignedHeaders=host")),
            Code::AuthorizationHeaderMalformed,
        ),
        (
            v4(&format!(
                "Credential={SCOPE},Credential={SCOPE},SignedHeaders=host,Signature=s"
            )),
            Code::AuthorizationHeaderMalformed,
        ),
        (v4("Credential"), Code::AuthorizationHeaderMalformed),
    ];
    for (value, code) in rows {
        assert_eq!(
            AuthorizationHeader::parse(&value).unwrap_err().code(),
            code,
            "{value}"
        );
    }
    for scope in [
        "AKID/20130524/us-east-1/s3",
        "AKID/20130524/us-east-1/sts/aws4_request",
        "AKID/20130524/us-east-1/s3tables/aws4_request",
        "AKID/20130524/us-east-1/s3/aws4",
        "AKID/2013052/us-east-1/s3/aws4_request",
        "AKID/201305xx/us-east-1/s3/aws4_request",
        "/20130524/us-east-1/s3/aws4_request",
        "AKID/20130524//s3/aws4_request",
    ] {
        assert!(Credential::parse(scope).is_err(), "{scope}");
    }
}

#[test]
fn every_amz_header_and_the_host_must_be_signed() {
    let headers = headers(&[
        ("host", "h"),
        ("x-amz-date", "d"),
        ("x-amz-copy-source", "b/k"),
        ("user-agent", "u"),
    ]);
    assert_eq!(
        headers_not_signed(&headers, "host;x-amz-copy-source;x-amz-date"),
        None
    );
    assert_eq!(
        headers_not_signed(&headers, "host;x-amz-date").as_deref(),
        Some("x-amz-copy-source")
    );
    assert_eq!(
        headers_not_signed(&headers, "x-amz-date;x-amz-copy-source").as_deref(),
        Some("host")
    );
}
