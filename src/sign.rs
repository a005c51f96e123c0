//! AWS Signature Version 4 in the query, as a client makes it: presigned URLs.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
//!
//! # Invariants
//! 1. No clock, no environment, no socket: a URL is a pure function of what is passed in.

use std::time::Duration;

use forebay_cache::sign::{
    ALGORITHM, SigningKey, encode, encode_path, scope, string_to_sign, timestamp,
};
use forebay_store::time::Timestamp;

/// An access key with its secret.
#[derive(Clone)]
pub(crate) struct Key {
    /// The public part.
    pub(crate) id: String,
    /// The secret part.
    pub(crate) secret: String,
}

/// One request to be made later by whoever has the URL.
#[derive(Debug)]
pub(crate) struct Presign<'a> {
    /// `http://host:port`, without a path.
    pub(crate) endpoint: &'a str,
    /// HTTP method, in capitals.
    pub(crate) method: &'a str,
    /// `/bucket/key`, not encoded.
    pub(crate) path: &'a str,
    /// Query parameters, not encoded.
    pub(crate) query: &'a [(&'a str, &'a str)],
    /// Region of the scope.
    pub(crate) region: &'a str,
    /// How long the URL is good for, whole seconds.
    pub(crate) expires: Duration,
    /// The moment of signing, since the Unix epoch.
    pub(crate) now: Duration,
}

impl Presign<'_> {
    /// The URL.
    pub(crate) fn url(&self, key: &Key) -> String {
        let seconds = i64::try_from(self.now.as_secs()).unwrap_or(i64::MAX);
        let at = timestamp(Timestamp::from_parts(seconds, 0));
        let scope = scope(&at, self.region);
        let query = self.canonical_query(key, &at, &scope);
        let path = encode_path(self.path);
        let host = self
            .endpoint
            .split_once("://")
            .map_or(self.endpoint, |(_, host)| host);
        let canonical = format!(
            "{}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD",
            self.method
        );
        let signature = SigningKey::derive(&key.secret, &at[..8], self.region)
            .sign(&string_to_sign(&at, &scope, canonical.as_bytes()));
        format!(
            "{}{path}?{query}&X-Amz-Signature={signature}",
            self.endpoint
        )
    }

    /// All parameters but the signature, sorted by their encoded names.
    fn canonical_query(&self, key: &Key, at: &str, scope: &str) -> String {
        let credential = format!("{}/{scope}", key.id);
        let expires = self.expires.as_secs().to_string();
        let signing = [
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", at),
            ("X-Amz-Expires", &expires),
            ("X-Amz-SignedHeaders", "host"),
        ];
        let mut parameters: Vec<String> = signing
            .iter()
            .chain(self.query)
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        parameters.sort_unstable();
        parameters.join("&")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the page in the file's header.
    #[test]
    fn the_documented_example_comes_out() {
        /// 24 May 2013.
        const DAY: u64 = 15_849;
        let key = Key {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        let url = Presign {
            endpoint: "https://examplebucket.s3.amazonaws.com",
            method: "GET",
            path: "/test.txt",
            query: &[],
            region: "us-east-1",
            expires: Duration::from_hours(24),
            now: Duration::from_hours(DAY * 24),
        }
        .url(&key);
        assert!(url.contains("X-Amz-Date=20130524T000000Z"), "{url}");
        let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(url.ends_with(signature), "{url}");
    }

    #[test]
    fn names_are_encoded_and_parameters_sorted() {
        let key = Key {
            id: "A".to_owned(),
            secret: "s".to_owned(),
        };
        let url = Presign {
            endpoint: "http://127.0.0.1:9000",
            method: "GET",
            path: "/b/a b+ü//x",
            query: &[("prefix", "a/b"), ("delimiter", "/")],
            region: "us-east-1",
            expires: Duration::from_secs(1),
            now: Duration::ZERO,
        }
        .url(&key);
        assert!(url.starts_with("http://127.0.0.1:9000/b/a%20b%2B%C3%BC//x?X-Amz-Algorithm="));
        assert!(
            url.contains("&delimiter=%2F&prefix=a%2Fb&X-Amz-Signature="),
            "{url}"
        );
    }
}
