//! Values of flags, from text.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum as _;
use forebay_cache::origin::Endpoint;
use forebay_cache::peer::{self, Who};

use super::node::MountOption;
use super::{CacheWord, MountSource, RemoteSource, S3Url};

pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:9000, 0.0.0.0:9000 or [::1]:9000"
            .to_owned()
    })
}

pub(super) fn parse_mount_source(text: &str) -> Result<MountSource, String> {
    let text = text.strip_prefix("s3://").unwrap_or(text);
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    if bucket.is_empty() {
        return Err("expected bucket or bucket/prefix".to_owned());
    }
    Ok(MountSource {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_end_matches('/').to_owned(),
    })
}

/// Longer names are of no use to anyone who reads a listing.
const ACCOUNT_NAME_LEN_MAX: usize = 64;

pub(super) fn parse_account_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
    let fits = (1..=ACCOUNT_NAME_LEN_MAX).contains(&text.len());
    if !fits || !text.bytes().all(allowed) {
        return Err(format!(
            "expected up to {ACCOUNT_NAME_LEN_MAX} letters, digits and . _ - @ +"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn parse_region(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err("expected letters, digits and hyphens, such as us-east-1".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn parse_domain(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let label_is_sound = |label: &str| !label.is_empty() && label.bytes().all(allowed);
    if !text.split('.').all(label_is_sound) {
        return Err("expected a domain without scheme and port, such as s3.example.net".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

pub(super) fn parse_s3_url(text: &str) -> Result<S3Url, String> {
    let (bucket, key) = text
        .strip_prefix("s3://")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .ok_or("expected s3://bucket/key")?;
    Ok(S3Url {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    })
}

pub(super) fn parse_endpoint(text: &str) -> Result<String, String> {
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .map(|rest| rest.trim_end_matches('/'));
    match host {
        Some(host) if !host.is_empty() && !host.contains('/') => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("expected http://host:port or https://host".to_owned()),
    }
}

/// The longest that a presigned URL may be good for.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
const PRESIGN_EXPIRES_MAX: Duration = Duration::from_hours(7 * 24);

pub(super) fn parse_expires(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err("expected a number and s, m, h or d".to_owned()),
    };
    let expires = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit_s))
        .map(Duration::from_secs)
        .ok_or("expected a number and s, m, h or d")?;
    if expires.is_zero() || expires > PRESIGN_EXPIRES_MAX {
        return Err("expected from 1s to 7d".to_owned());
    }
    Ok(expires)
}

pub(super) fn parse_remote(text: &str) -> Result<RemoteSource, String> {
    let expected = || "expected http://host:port/bucket or http://host:port/bucket/prefix";
    let scheme = text.find("://").ok_or_else(expected)? + 3;
    let slash = text[scheme..].find('/').ok_or_else(expected)?;
    let (origin, path) = text.split_at(scheme + slash);
    Ok(RemoteSource {
        origin: parse_endpoint(origin)?,
        part: parse_mount_source(&path[1..]).map_err(|_| expected())?,
    })
}

pub(super) fn parse_peers(text: &str) -> Result<Who, String> {
    Who::parse(text).map_err(|err| err.to_string())
}

pub(super) fn parse_peer_address(text: &str) -> Result<Endpoint, String> {
    peer::parse_address(text).map_err(|err| err.to_string())
}

/// Reads one of the options that `-o` takes.
pub(super) fn parse_mount_option(text: &str) -> Result<MountOption, String> {
    match text.split_once('=') {
        None if text == "ro" => Ok(MountOption::ReadOnly),
        None if text == "rw" => Ok(MountOption::ReadWrite),
        Some(("cache", word)) => CacheWord::from_str(word, false)
            .map(MountOption::Cache)
            .map_err(|_| "expected cache=default, cache=no-cache or cache=no-store".to_owned()),
        _ => Err("expected ro, rw or cache=WORD".to_owned()),
    }
}

/// Reads a size in bytes, such as `512MiB`, `1.5TiB` or `100GB`.
pub(super) fn parse_size(text: &str) -> Result<ByteSize, String> {
    match text.parse::<ByteSize>() {
        Ok(size) if size.as_u64() > 0 => Ok(size),
        _ => Err("expected a size such as 512MiB, 100GiB or 2TiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_takes_addresses_and_localhost() {
        assert_eq!(
            parse_listen("localhost:1").unwrap().to_string(),
            "127.0.0.1:1"
        );
        assert_eq!(parse_listen("[::]:9000").unwrap().port(), 9000);
        for bad in [
            "9000",
            ":9000",
            "127.0.0.1",
            "example.net:80",
            "http://127.0.0.1:9000",
        ] {
            assert!(parse_listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mount_source_is_a_bucket_and_a_prefix_without_its_last_slash() {
        let of = |text| parse_mount_source(text).map(|source| (source.bucket, source.prefix));
        let pair = |bucket: &str, prefix: &str| Ok((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(of("photos"), pair("photos", ""));
        assert_eq!(of("photos/"), pair("photos", ""));
        assert_eq!(of("s3://photos/2026/may/"), pair("photos", "2026/may"));
        assert!(of("/x").is_err());
    }

    #[test]
    fn presigned_urls_last_from_a_second_to_seven_days() {
        assert_eq!(parse_expires("90").unwrap().as_secs(), 90);
        assert_eq!(parse_expires("15m").unwrap().as_secs(), 900);
        assert_eq!(parse_expires("7d").unwrap(), PRESIGN_EXPIRES_MAX);
        for bad in [
            "0",
            "8d",
            "-1",
            "1w",
            "",
            "s",
            "99999999999999999999d",
            "1µ",
        ] {
            assert!(parse_expires(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_regions_urls_and_endpoints_are_checked() {
        assert_eq!(parse_domain("S3.Example.net").unwrap(), "s3.example.net");
        assert!(parse_domain("http://x").is_err());
        assert!(parse_domain("a..b").is_err());
        assert!(parse_region("eu west").is_err());
        assert_eq!(parse_s3_url("s3://b/a//b").unwrap().key, "a//b");
        assert!(parse_s3_url("s3://b/").is_err());
        assert_eq!(parse_endpoint("http://h:1/").unwrap(), "http://h:1");
        assert!(parse_endpoint("h:1").is_err());
    }

    #[test]
    fn a_remote_source_is_an_endpoint_and_a_bucket() {
        let remote = parse_remote("https://store:9000/data/train/").unwrap();
        assert_eq!(remote.origin, "https://store:9000");
        assert_eq!(remote.part.to_string(), "data/train");
        assert_eq!(parse_remote("http://h/b").unwrap().part.prefix, "");
        for bad in ["http://h", "http://h/", "h/b", "ftp://h/b", "http:///b"] {
            assert!(parse_remote(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_mount_are_few() {
        let cache = |word| Ok(MountOption::Cache(word));
        assert_eq!(parse_mount_option("ro"), Ok(MountOption::ReadOnly));
        assert_eq!(
            parse_mount_option("cache=no-store"),
            cache(CacheWord::NoStore)
        );
        assert_eq!(
            parse_mount_option("cache=default"),
            cache(CacheWord::Default)
        );
        for bad in ["cache", "cache=", "cache=No-Store", "noatime", ""] {
            assert!(parse_mount_option(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_units_of_either_kind() {
        assert_eq!(parse_size("2GiB").unwrap().as_u64(), 2 << 30);
        assert_eq!(parse_size("1.5 TiB").unwrap().as_u64(), 3 << 39);
        assert_eq!(parse_size("100MB").unwrap().as_u64(), 100_000_000);
        for bad in ["0", "x", "", "-1", "5 apples"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
