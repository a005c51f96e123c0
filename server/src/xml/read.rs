//! Documents that clients send.

use quick_xml::events::Event;
use quick_xml::{Reader, XmlVersion};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Code, Result, S3Error};

/// Deepest nesting of a document; S3's own have five levels.
const DEPTH_MAX: usize = 16;
/// Most attributes of one element.
const ATTRIBUTES_MAX: usize = 16;

fn malformed() -> S3Error {
    Code::MalformedXML.into()
}

/// Reads a document whose root element is one of `roots`.
///
/// # Errors
/// `MalformedXML`.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8], roots: &[&str]) -> Result<T> {
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_shape(text, roots)?;
    quick_xml::de::from_str(text).map_err(|_| malformed())
}

/// Refuses a DTD, a wrong root, too deep a nesting, and what is not one well-formed element.
fn check_shape(text: &str, roots: &[&str]) -> Result<()> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let (mut depth, mut elements) = (0_usize, 0_usize);
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
                if text.xml_content(XmlVersion::Implicit1_0).trim().is_empty() {
                    continue;
                }
                return Err(malformed());
            }
            Event::Eof if depth == 0 && elements > 0 => return Ok(()),
            Event::Eof | Event::DocType(_) => return Err(malformed()),
            _ => continue,
        };
        if depth == 0 {
            let is_root = roots
                .iter()
                .any(|root| *root == start.local_name().as_ref());
            if elements > 0 || !is_root {
                return Err(malformed());
            }
        }
        elements += 1;
        if start.attributes().take(ATTRIBUTES_MAX + 1).count() > ATTRIBUTES_MAX {
            return Err(malformed());
        }
        depth += usize::from(opens);
        if depth > DEPTH_MAX {
            return Err(malformed());
        }
    }
}

/// `CreateBucket`'s body.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateBucketConfiguration {
    /// Where the bucket is to be.
    pub(crate) location_constraint: Option<String>,
    /// Tags of the bucket.
    pub(crate) tags: Option<Anything>,
}

/// An element of which only the presence matters.
#[derive(Debug, Deserialize)]
pub(crate) struct Anything {}

/// `DeleteObjects`' body.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Delete {
    /// What to delete.
    #[serde(default, rename = "Object")]
    pub(crate) objects: Vec<DeleteEntry>,
    /// Whether to answer with failures only.
    #[serde(default)]
    pub(crate) quiet: Option<String>,
}

/// One entry of `DeleteObjects`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeleteEntry {
    /// The key; no space is trimmed from it.
    pub(crate) key: String,
    /// One version.
    pub(crate) version_id: Option<String>,
    /// What its entity tag must be.
    #[serde(rename = "ETag")]
    pub(crate) etag: Option<String>,
    /// When it must have been changed last.
    pub(crate) last_modified_time: Option<String>,
    /// What its size must be, in bytes.
    pub(crate) size: Option<String>,
}

/// `CompleteMultipartUpload`'s body.
#[derive(Debug, Deserialize)]
pub(crate) struct CompleteMultipartUpload {
    /// The parts to join.
    #[serde(default, rename = "Part")]
    pub(crate) parts: Vec<CompletedPart>,
}

/// One part of `CompleteMultipartUpload`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CompletedPart {
    /// Its number.
    pub(crate) part_number: Option<String>,
    /// Its entity tag.
    #[serde(rename = "ETag")]
    pub(crate) etag: Option<String>,
    /// CRC-32.
    #[serde(rename = "ChecksumCRC32")]
    pub(crate) crc32: Option<String>,
    /// CRC-32C.
    #[serde(rename = "ChecksumCRC32C")]
    pub(crate) crc32c: Option<String>,
    /// CRC-64/NVME.
    #[serde(rename = "ChecksumCRC64NVME")]
    pub(crate) crc64nvme: Option<String>,
    /// SHA-1.
    #[serde(rename = "ChecksumSHA1")]
    pub(crate) sha1: Option<String>,
    /// SHA-256.
    #[serde(rename = "ChecksumSHA256")]
    pub(crate) sha256: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn delete(text: &str) -> Result<Delete> {
        parse(text.as_bytes(), &["Delete"])
    }

    #[test]
    fn namespaces_space_comments_and_unknown_elements_are_ignored() {
        for text in [
            "<Delete><Object><Key>a b</Key></Object><Quiet>true</Quiet></Delete>",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             \n  <Object>\n <Key>a b</Key>\n <Odd x=\"1\"><Deep/></Odd></Object>\n<!-- c --> <Quiet>true</Quiet>\n</Delete>\n",
            "<x:Delete xmlns:x=\"http://doc.s3.amazonaws.com/2006-03-01\"><x:Object><x:Key>a b</x:Key>\
             </x:Object><x:Quiet>true</x:Quiet></x:Delete>",
        ] {
            let delete = delete(text).expect(text);
            assert_eq!(delete.objects.len(), 1);
            assert_eq!(delete.objects[0].key, "a b");
            assert_eq!(delete.quiet.as_deref(), Some("true"));
        }
    }

    #[test]
    fn keys_keep_their_characters() {
        let text = "<Delete><Object><Key> a&amp;b&lt;&#13;&#x41;é </Key></Object><Quiet/>\
                    <Object><Key><![CDATA[x<y]]></Key></Object></Delete>";
        let delete = delete(text).unwrap();
        assert_eq!(delete.objects[0].key, " a&b<\rAé ");
        assert_eq!(delete.objects[1].key, "x<y");
    }

    #[test]
    fn entity_tags_may_be_quoted_as_entities() {
        let text = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;ab&quot;</ETag>\
                     </Part><Part><ETag>cd</ETag><PartNumber>2</PartNumber></Part></CompleteMultipartUpload>";
        let parsed: CompleteMultipartUpload = parse(text, &["CompleteMultipartUpload"]).unwrap();
        assert_eq!(parsed.parts[0].etag.as_deref(), Some("\"ab\""));
        assert_eq!(parsed.parts[1].part_number.as_deref(), Some("2"));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let mut deep = String::from("<Delete>");
        let mut attributes = String::from("<Delete");
        for index in 0..100_000 {
            deep.push_str("<a>");
            write!(attributes, " a{index}=\"\"").unwrap();
        }
        attributes.push_str("/>");
        for text in [
            "",
            "x",
            "<Delete>",
            "<Delete></Other>",
            "<Other/>",
            "<Delete/><Delete/>",
            "<Delete/>x",
            "<!DOCTYPE Delete [<!ENTITY a \"b\">]><Delete><Object><Key>&a;</Key></Object></Delete>",
            "<!DOCTYPE Delete SYSTEM \"file:///etc/passwd\"><Delete/>",
            "<Delete><Object><Key>&a;</Key></Object></Delete>",
            "<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>",
            "<Delete><Object></Object></Delete>",
            "<Delete><Object><Key>a</Key></Object>",
            deep.as_str(),
            attributes.as_str(),
        ] {
            let error = delete(text).expect_err(&text[..text.len().min(80)]);
            assert_eq!(error.code(), Code::MalformedXML);
        }
        assert!(parse::<Delete>(b"<Delete>\xff</Delete>", &["Delete"]).is_err());
    }
}
