//! XML in and out: one struct per document, by `quick-xml` and serde.
//!
//! What comes in is read twice: first for its shape (no DTD, bounded depth, the right root), then
//! into its struct. Namespaces and unknown elements are ignored, entities never expanded.
//! What goes out has AWS's namespace and begins with [`DECLARATION`].
//!
//! # Invariants
//! 1. What goes out is well-formed, whatever bytes a key has: a character that XML can't hold is
//!    percent-encoded.

pub(crate) mod list;
pub(crate) mod read;
pub(crate) mod write;

use std::borrow::Cow;
use std::fmt::Write as _;

/// The first bytes of every document.
pub(crate) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
/// The namespace of every document but errors.
pub(crate) const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// Whether XML 1.0 can hold the character (<https://www.w3.org/TR/xml/#charsets>).
fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// The text with every character that XML can't hold percent-encoded.
pub(crate) fn representable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_xml_char) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_xml_char(c) {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            write!(out, "%{byte:02X}").expect("writing to a String can't fail");
        }
    }
    Cow::Owned(out)
}

/// Appends text as the content of an element.
pub(crate) fn push_text(xml: &mut String, text: &str) {
    xml.push_str(&quick_xml::escape::escape(representable(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_hold_is_percent_encoded() {
        assert_eq!(
            representable("a\u{0}b\u{1f}\u{ffff}é\n"),
            "a%00b%1F%EF%BF%BFé\n"
        );
        assert!(matches!(representable("plain"), Cow::Borrowed(_)));
    }
}
