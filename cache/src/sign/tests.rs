use http::Request;

use super::*;

/// 24 May 2013, midnight.
const NOW: Timestamp = Timestamp::from_parts(1_369_353_600, 0);

fn signer() -> Signer {
    let credentials = Credentials {
        key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        session_token: None,
    };
    Signer::new(credentials, "us-east-1").unwrap()
}

fn signed(method: &str, path: &str, headers: &[(&str, &str)], payload: Payload) -> Parts {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://examplebucket.s3.amazonaws.com{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut parts = request.body(()).unwrap().into_parts().0;
    signer().sign(&mut parts, payload, NOW);
    parts
}

fn authorization(parts: &Parts) -> &str {
    parts.headers[AUTHORIZATION].to_str().unwrap()
}

/// The examples of the page in the file's header.
#[test]
fn the_documented_examples_come_out() {
    let date = ("date", "Fri, 24 May 2013 00:00:00 GMT");
    let class = ("x-amz-storage-class", "REDUCED_REDUNDANCY");
    for (method, path, headers, payload, names, signature) in [
        (
            "GET",
            "/test.txt",
            &[("range", "bytes=0-9")][..],
            Payload::Empty,
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            &[date, class][..],
            Payload::of(b"Welcome to Amazon S3."),
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/?lifecycle",
            &[][..],
            Payload::Empty,
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/?max-keys=2&prefix=J",
            &[][..],
            Payload::Empty,
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ] {
        let parts = signed(method, path, headers, payload);
        assert_eq!(
            authorization(&parts),
            format!(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
                 SignedHeaders={names}, Signature={signature}"
            ),
            "{path}"
        );
    }
}

#[test]
fn how_a_path_is_written_does_not_matter() {
    let sign = |path| authorization(&signed("GET", path, &[], Payload::Empty)).to_owned();
    for (one, other) in [
        ("/a%2fb", "/a/b"),
        ("/%7Ex", "/~x"),
        ("/a+b", "/a%2Bb"),
        ("/%c3%bc", "/%C3%BC"),
        ("/x?b=1&a=%7e", "/x?a=~&b=1"),
        ("/x?a=b+c", "/x?a=b%20c"),
        ("/x?uploads", "/x?uploads="),
    ] {
        assert_eq!(sign(one), sign(other), "{one} {other}");
    }
    for (one, other) in [
        ("/a//b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a%2541", "/a%41"),
        ("/a+b", "/a%20b"),
        ("/x?a=1", "/x?a=2"),
    ] {
        assert_ne!(sign(one), sign(other), "{one} {other}");
    }
}

#[test]
fn canonical_queries_are_sorted_after_encoding() {
    for (query, expected) in [
        ("", ""),
        ("b&a", "a=&b="),
        ("a=2&a=1", "a=1&a=2"),
        ("a=/&a%2Db=1", "a=%2F&a-b=1"),
        ("&&x=y&", "x=y"),
        ("é=é", "%C3%A9=%C3%A9"),
        ("a=b=c", "a=b%3Dc"),
    ] {
        assert_eq!(canonical_query(query), expected, "{query}");
    }
}

#[test]
fn spaces_in_values_are_folded_and_repeated_headers_joined() {
    let mut headers = HeaderMap::new();
    headers.append("x-amz-meta-a", HeaderValue::from_static("  one   two "));
    headers.append("x-amz-meta-a", HeaderValue::from_static("three"));
    let mut out = Vec::new();
    push_values(&mut out, &headers, "x-amz-meta-a");
    assert_eq!(out, b"one two,three");
}

#[test]
fn a_session_token_is_signed_and_an_old_signature_is_not() {
    let credentials = Credentials {
        session_token: Some("token".to_owned()),
        ..signer().credentials
    };
    let signer = Signer::new(credentials, "us-east-1").unwrap();
    let mut parts = signed("GET", "/k", &[("user-agent", "a test")], Payload::Unsigned);
    signer.sign(&mut parts, Payload::Unsigned, NOW);
    let text = authorization(&parts);
    let names = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
    assert!(text.contains(names), "{text}");
    assert_eq!(parts.headers[CONTENT_SHA256], UNSIGNED);
    assert!(!format!("{parts:?}").contains("Signature="));
}

#[test]
fn the_key_of_another_day_is_derived_anew() {
    let signer = signer();
    let sign = |at| {
        let mut parts = Request::get("http://h/k").body(()).unwrap().into_parts().0;
        signer.sign(&mut parts, Payload::Empty, at);
        authorization(&parts).to_owned()
    };
    let today = sign(NOW);
    let tomorrow = sign(Timestamp::from_parts(NOW.seconds() + 86_400, 0));
    assert!(tomorrow.contains("/20130525/"), "{tomorrow}");
    assert_eq!(sign(NOW), today);
}

#[test]
fn what_can_not_be_in_a_header_is_refused() {
    let credentials = |key_id: &str| Credentials {
        key_id: key_id.to_owned(),
        ..signer().credentials
    };
    let refused = |key_id, region| Signer::new(credentials(key_id), region).err();
    assert_eq!(
        refused("a\nb", "r"),
        Some(NotSignable {
            what: "access key id"
        })
    );
    assert_eq!(refused("a", "é"), Some(NotSignable { what: "region" }));
    assert_eq!(refused("a/b=+", "zone-1"), None);
}
