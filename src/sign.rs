//! AWS Signature Version 4 in the query, as a client makes it: presigned URLs.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
//!
//! # Invariants
//! 1. No clock, no environment, no socket: a URL is a pure function of what is passed in.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

/// What `SigV4` leaves as it is in a query: RFC 3986's unreserved characters.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The same in a path, which S3 signs with its slashes.
const PATH: &AsciiSet = &QUERY.remove(b'/');

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
        let at = timestamp(self.now);
        let scope = format!("{}/{}/s3/aws4_request", &at[..8], self.region);
        let query = self.canonical_query(key, &at, &scope);
        let path = utf8_percent_encode(self.path, PATH);
        let host = self
            .endpoint
            .split_once("://")
            .map_or(self.endpoint, |(_, host)| host);
        let canonical = format!(
            "{}\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD",
            self.method
        );
        let hashed = hex::encode(Sha256::digest(canonical));
        let to_sign = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashed}");
        let signature = hex::encode(hmac(&self.signing_key(key, &at), &to_sign));
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
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", at),
            ("X-Amz-Expires", &expires),
            ("X-Amz-SignedHeaders", "host"),
        ];
        let encode = |text| utf8_percent_encode(text, QUERY);
        let mut parameters: Vec<String> = signing
            .iter()
            .chain(self.query)
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        parameters.sort_unstable();
        parameters.join("&")
    }

    fn signing_key(&self, key: &Key, at: &str) -> [u8; 32] {
        let secret = format!("AWS4{}", key.secret);
        [self.region, "s3", "aws4_request"]
            .iter()
            .fold(hmac(secret.as_bytes(), &at[..8]), |key, step| {
                hmac(&key, step)
            })
    }
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// `20260131T235959Z`.
fn timestamp(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The Gregorian date of a day since the epoch.
///
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>, for days after 1970.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March, so that the leap day is their last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
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
    fn dates_are_right_around_leap_days() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_513, (2026, 3, 1)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil(days), date, "day {days}");
        }
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
