//! What is asked of the origin whatever is leased.

use http::header::HeaderName;

use super::*;

#[test]
fn a_client_that_wants_the_origin_says_so() {
    for (values, expected) in [
        (&[][..], false),
        (&["max-age=60"][..], false),
        (&["no-cache"][..], true),
        (&["No-Store"][..], true),
        (&["private, max-age=0"][..], true),
        (&["private", "x, no-cache"][..], true),
        (&["no-cache2"][..], false),
    ] {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
        }
        headers.append(
            HeaderName::from_static("x"),
            HeaderValue::from_static("no-cache"),
        );
        assert_eq!(wants_the_origin(&headers), expected, "{values:?}");
    }
}
