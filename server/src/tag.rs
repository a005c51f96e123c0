//! Tags of an object (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>).

use crate::error::{Code, Result, S3Error};
use crate::query::{Plus, percent_decode};

/// Tags of an object, at most.
const TAGS_MAX: usize = 10;
/// Characters of a tag's key, at most.
const KEY_CHARS_MAX: usize = 128;
/// Characters of a tag's value, at most.
const VALUE_CHARS_MAX: usize = 256;

/// Reads `x-amz-tagging`: `k1=v1&k2=v2`; a set, so in order of the keys.
///
/// # Errors
/// `BadRequest` for too many, `InvalidTag` for content, `InvalidArgument` for form.
pub(crate) fn parse_header(header: &str) -> Result<Vec<(String, String)>> {
    let form = || {
        S3Error::argument(
            "x-amz-tagging",
            header,
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.",
        )
    };
    let mut tags: Vec<(String, String)> = Vec::new();
    for pair in header.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = percent_decode(key, Plus::Space)
            .filter(|key| !key.is_empty())
            .ok_or_else(form)?;
        let value = percent_decode(value, Plus::Space).ok_or_else(form)?;
        check(&key, &value)?;
        if tags.iter().any(|tag| tag.0 == key) {
            return Err(form());
        }
        tags.push((key, value));
    }
    if tags.len() > TAGS_MAX {
        return Err(S3Error::with(
            Code::BadRequest,
            "Object tags cannot be greater than 10",
        ));
    }
    tags.sort();
    Ok(tags)
}

fn check(key: &str, value: &str) -> Result<()> {
    let invalid = |message: &'static str| {
        S3Error::with(Code::InvalidTag, message)
            .field("TagKey", key)
            .field("TagValue", value)
    };
    if key.chars().count() > KEY_CHARS_MAX {
        return Err(invalid("The TagKey you have provided is invalid"));
    }
    if value.chars().count() > VALUE_CHARS_MAX {
        return Err(invalid("The TagValue you have provided is invalid"));
    }
    let allowed = |c: char| {
        c.is_alphanumeric()
            || c == ' '
            || "_.:/=+-@".contains(c)
            || (c.is_whitespace() && !c.is_control())
    };
    if !key.chars().all(allowed) {
        return Err(invalid("The TagKey you have provided is invalid"));
    }
    if !value.chars().all(allowed) {
        return Err(invalid("The TagValue you have provided is invalid"));
    }
    if key.starts_with("aws:") {
        return Err(invalid("System tags cannot be added/updated by requester"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_decoded_and_sorted() {
        let tags = parse_header("b=1&a=x+y%2Fz&c=&é=%C3%A9").unwrap();
        let pairs: Vec<_> = tags
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "x y/z"), ("b", "1"), ("c", ""), ("é", "é")]);
        assert_eq!(parse_header("").unwrap(), []);
    }

    #[test]
    fn bad_tags_are_refused() {
        let eleven: Vec<String> = (0..11).map(|n| format!("k{n}=v")).collect();
        let rows = [
            (eleven.join("&"), Code::BadRequest),
            (format!("{}=v", "k".repeat(129)), Code::InvalidTag),
            (format!("k={}", "é".repeat(257)), Code::InvalidTag),
            ("k=%00".to_owned(), Code::InvalidTag),
            ("k=a*".to_owned(), Code::InvalidTag),
            ("aws:k=v".to_owned(), Code::InvalidTag),
            ("k=1&k=2".to_owned(), Code::InvalidArgument),
            ("=v".to_owned(), Code::InvalidArgument),
            ("k=%zz".to_owned(), Code::InvalidArgument),
        ];
        for (header, code) in rows {
            assert_eq!(parse_header(&header).unwrap_err().code(), code, "{header}");
        }
    }
}
