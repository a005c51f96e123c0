//! Documents that the origin answers with.
//!
//! # Invariants
//! 1. Nothing is read that refers to something outside of the document: no DTD, no entities but
//!    XML's own five.
//! 2. Depth and attributes are bounded; size is, by whoever reads the body.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::OriginError;

/// Deepest nesting of a document; S3's own have five levels.
const DEPTH_MAX: usize = 16;
/// Most attributes of one element.
const ATTRIBUTES_MAX: usize = 16;

fn wrong(why: &str) -> OriginError {
    OriginError::Corrupt(format!("a document that {why}"))
}

/// Reads a document whose root element is `root`.
///
/// # Errors
/// [`OriginError::Corrupt`].
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], root: &str) -> Result<T, OriginError> {
    let text = text(body)?;
    let found = check_shape(text)?;
    if found != root {
        return Err(wrong(&format!("is a {found:.64}, not a {root}")));
    }
    quick_xml::de::from_str(text).map_err(|err| wrong(&format!("is no {root}: {err:.200}")))
}

/// The code and message of an error document; `None` if it is not one.
pub(super) fn error(body: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    #[derive(Default)]
    struct Error {
        code: String,
        message: String,
    }
    let error: Error = parse(body, "Error").ok()?;
    Some((error.code, error.message))
}

fn text(body: &[u8]) -> Result<&str, OriginError> {
    let text = std::str::from_utf8(body).map_err(|_| wrong("is not UTF-8"))?;
    // Long answers begin with spaces that tell that somebody is at work.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).trim_start())
}

/// The name of the one element that the document is.
fn check_shape(text: &str) -> Result<String, OriginError> {
    let malformed = || wrong("is not XML");
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let (mut depth, mut root) = (0_usize, None);
    loop {
        let (start, opens) = match reader.read_event().map_err(|_| malformed())? {
            Event::Start(start) => (start, true),
            Event::Empty(start) => (start, false),
            Event::End(_) => {
                depth -= 1;
                continue;
            }
            Event::Text(text) if depth == 0 => {
                // Text outside of the root can only be space.
                if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
                    continue;
                }
                return Err(malformed());
            }
            Event::DocType(_) => return Err(wrong("has a DTD")),
            Event::Eof if depth == 0 => return root.ok_or_else(malformed),
            Event::Eof => return Err(wrong("breaks off")),
            _ => continue,
        };
        if depth == 0 {
            let name = start.local_name();
            let name: &str = name.as_ref();
            if root.replace(name.to_owned()).is_some() {
                return Err(malformed());
            }
        }
        if start.attributes().take(ATTRIBUTES_MAX + 1).count() > ATTRIBUTES_MAX {
            return Err(wrong("has too many attributes"));
        }
        depth += usize::from(opens);
        if depth > DEPTH_MAX {
            return Err(wrong("is too deep"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Doc {
        #[serde(rename = "Key", default)]
        keys: Vec<String>,
    }

    fn keys(text: &str) -> Result<Vec<String>, String> {
        parse::<Doc>(text.as_bytes(), "Doc")
            .map(|doc| doc.keys)
            .map_err(|err| err.to_string())
    }

    #[test]
    fn documents_are_read() {
        let text = "\u{feff}  <?xml version=\"1.0\"?>\n<Doc xmlns=\"http://x/\"><Key>a&amp;b</Key>\
                    <Other><Deep/></Other><Key/><!-- a --></Doc>\n";
        assert_eq!(keys(text).unwrap(), ["a&b", ""]);
    }

    #[test]
    fn attacks_and_nonsense_are_refused() {
        let deep = format!("<Doc>{}{}</Doc>", "<a>".repeat(100), "</a>".repeat(100));
        let attributes: Vec<String> = (0..100).map(|n| format!(" a{n}=\"\"")).collect();
        let attributes = attributes.concat();
        for (text, expected) in [
            ("", "not XML"),
            ("hello", "not XML"),
            ("{}", "not XML"),
            ("<Doc>", "breaks off"),
            ("<Doc></Dog>", "not XML"),
            ("<Doc/><Doc/>", "not XML"),
            ("<Html/>", "is a Html, not a Doc"),
            (
                "<!DOCTYPE Doc [<!ENTITY a \"b\">]><Doc><Key>&a;</Key></Doc>",
                "has a DTD",
            ),
            ("<Doc><Key>&a;</Key></Doc>", "is no Doc"),
            (&deep, "too deep"),
            (&format!("<Doc{attributes}/>"), "too many attributes"),
        ] {
            let refused = keys(text).unwrap_err();
            assert!(refused.contains(expected), "{text:.40}: {refused}");
        }
    }

    #[test]
    fn errors_are_told_from_other_documents() {
        let text = b"<Error><Code>NoSuchKey</Code><Message>No.</Message><Key>k</Key></Error>";
        let (code, message) = error(text).unwrap();
        assert_eq!((code.as_str(), message.as_str()), ("NoSuchKey", "No."));
        assert_eq!(error(b"<Error/>"), Some((String::new(), String::new())));
        assert_eq!(error(b"<Doc/>"), None);
        assert_eq!(error(b""), None);
    }
}
