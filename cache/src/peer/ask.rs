//! What nodes ask each other, as it stands in a request.
//!
//! ```text
//! GET /-/peer?by=ID
//! GET /-/peer/bytes?by=ID&origin=URL&bucket=…&key=…&etag=…&size=…&version=…
//!     &from=…&until=…&fill=1&own=1
//! x-forebay-node: v1:…
//! x-forebay-grant: …
//! ```
//!
//! All that says which bytes are meant is in the query, because the proof covers that. A grant is
//! in a header, because a query may get into logs.

use std::ops::Range;

use percent_encoding::percent_decode_str;

use crate::fetch::REQUEST_BLOCKS_MAX;
use crate::sign::encode;
use crate::version::{BLOCK_SIZE, Version};

/// Where a node says who it is.
pub const HELLO_PATH: &str = "/-/peer";
/// Where a node hands out bytes.
pub const BYTES_PATH: &str = "/-/peer/bytes";

/// Most bytes of one request.
pub const ASK_LEN_MAX: u64 = REQUEST_BLOCKS_MAX * BLOCK_SIZE;

/// A request for bytes of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The asking node's id.
    pub by: String,
    /// The origin that it stands in front of.
    pub origin: String,
    /// Which bytes; the origin has told this version for the very read they are for.
    pub version: Version,
    /// Where they are in it: not empty, within the object, and at most [`ASK_LEN_MAX`].
    pub range: Range<u64>,
    /// Whether they are to be kept.
    pub fills: bool,
    /// Whether the node that is asked may fetch them by its own right.
    pub own: bool,
}

impl Ask {
    /// Path and query.
    pub(super) fn target(&self) -> String {
        let version = &self.version;
        let mut target = format!("{BYTES_PATH}?by={}", encode(&self.by));
        let mut push = |name: &str, value: &str| {
            target.push('&');
            target.push_str(name);
            target.push('=');
            target.push_str(&encode(value));
        };
        push("origin", &self.origin);
        push("bucket", &version.bucket);
        push("key", &version.key);
        push("etag", &version.etag);
        push("size", &version.size.to_string());
        if let Some(id) = &version.version_id {
            push("version", id);
        }
        push("from", &self.range.start.to_string());
        push("until", &self.range.end.to_string());
        push("fill", flag(self.fills));
        push("own", flag(self.own));
        target
    }

    /// Reads the query of a request.
    ///
    /// # Errors
    /// What is wrong with it, for whoever sent it.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut fields = Fields::parse(query)?;
        let ask = Self {
            by: fields.text("by")?,
            origin: fields.text("origin")?,
            version: Version {
                bucket: fields.text("bucket")?,
                key: fields.text("key")?,
                etag: fields.text("etag")?,
                version_id: fields.take("version"),
                size: fields.number("size")?,
            },
            range: fields.number("from")?..fields.number("until")?,
            fills: fields.flag("fill")?,
            own: fields.flag("own")?,
        };
        fields.end()?;
        let (range, size) = (&ask.range, ask.version.size);
        if range.is_empty() || range.end > size {
            return Err(format!(
                "bytes {} to {} are no part of an object of {size}",
                range.start, range.end
            ));
        }
        if range.end - range.start > ASK_LEN_MAX {
            let len = range.end - range.start;
            return Err(format!(
                "{len} bytes are more than the {ASK_LEN_MAX} at a time"
            ));
        }
        if ask.version.etag.contains('"') {
            return Err("an entity tag is given without quotes".to_owned());
        }
        Ok(ask)
    }
}

/// The id of the node that greets.
///
/// # Errors
/// What is wrong with the query.
pub fn parse_hello(query: &str) -> Result<String, String> {
    let mut fields = Fields::parse(query)?;
    let by = fields.text("by")?;
    fields.end()?;
    Ok(by)
}

fn flag(set: bool) -> &'static str {
    if set { "1" } else { "0" }
}

/// Parameters that were not looked at yet.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn parse(query: &str) -> Result<Self, String> {
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            let text = text.map_err(|_| "a parameter is not UTF-8".to_owned())?;
            Ok::<_, String>(text.into_owned())
        };
        let mut fields: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if fields.iter().any(|field| field.0 == name) {
                return Err(format!("{name:?} is there twice"));
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|field| field.0 == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| format!("{name:?} is missing"))
    }

    fn number(&mut self, name: &str) -> Result<u64, String> {
        let value = self.text(name)?;
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let number = value.parse().ok().filter(|_| digits);
        number.ok_or_else(|| format!("{name} is {value:?}, expected a number"))
    }

    fn flag(&mut self, name: &str) -> Result<bool, String> {
        match self.text(name)?.as_str() {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(format!("{name} is {other:?}, expected 0 or 1")),
        }
    }

    fn end(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("{name:?} is no parameter")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        Ask {
            by: "0f".to_owned(),
            origin: "http://store:9000".to_owned(),
            version: Version {
                bucket: "b".to_owned(),
                key: "a b/ü&x=1?#".to_owned(),
                etag: "e-2".to_owned(),
                version_id: Some("v/1".to_owned()),
                size: 20 << 20,
            },
            range: 5..9,
            fills: true,
            own: false,
        }
    }

    fn query(ask: &Ask) -> String {
        ask.target().split_once('?').unwrap().1.to_owned()
    }

    #[test]
    fn what_is_asked_is_read_as_it_was_meant() {
        let unversioned = Version {
            version_id: None,
            ..ask().version
        };
        for ask in [
            ask(),
            Ask {
                version: unversioned,
                fills: false,
                own: true,
                range: 0..ASK_LEN_MAX,
                ..ask()
            },
        ] {
            let read = Ask::parse(&query(&ask)).unwrap();
            assert_eq!(read, ask);
            // Which equality of versions leaves out.
            assert_eq!(read.version.version_id, ask.version.version_id);
        }
    }

    #[test]
    fn what_is_malformed_is_refused_with_what_is_wrong() {
        let good = query(&ask());
        for (from, to, words) in [
            ("&from=5", "", "\"from\" is missing"),
            ("&from=5", "&from=", "\"from\" is missing"),
            ("&from=5", "&from=+5", "expected a number"),
            ("&from=5", "&from=-5", "expected a number"),
            ("&from=5", "&from=9", "no part of an object"),
            ("&until=9", "&until=5", "no part of an object"),
            ("&until=9", "&until=20971521", "no part of an object"),
            ("&until=9", "&until=8388614", "at a time"),
            (
                "&size=20971520",
                "&size=18446744073709551616",
                "expected a number",
            ),
            ("&fill=1", "&fill=2", "expected 0 or 1"),
            ("&etag=e-2", "&etag=%22e%22", "without quotes"),
            ("&etag=e-2", "&etag=%ff", "not UTF-8"),
            ("&bucket=b", "&bucket=b&bucket=c", "twice"),
            ("&bucket=b", "&bucket=b&x=1", "no parameter"),
        ] {
            assert!(good.contains(from), "{good}");
            let bad = good.replacen(from, to, 1);
            let why = Ask::parse(&bad).unwrap_err();
            assert!(why.contains(words), "{bad}: {why}");
        }
        assert_eq!(parse_hello("by=0f").unwrap(), "0f");
        assert!(parse_hello("").is_err());
        assert!(parse_hello("by=1&x=2").is_err());
    }
}
