//! Documents that clients get.

use serde::Serialize;

use super::{DECLARATION, NAMESPACE};

/// Writes a document, whose root element has the namespace.
pub(crate) fn document<T: Serialize>(root: &str, value: &T) -> String {
    let mut xml = String::with_capacity(1024);
    xml.push_str(DECLARATION);
    let serializer = quick_xml::se::Serializer::with_root(&mut xml, Some(root))
        .expect("our root elements have valid names");
    value
        .serialize(serializer)
        .expect("our documents are structs of text, numbers and lists");
    // The serializer takes a root's attributes from fields only, which every document would need.
    let behind_name = DECLARATION.len() + "<".len() + root.len();
    xml.insert_str(behind_name, &format!(" xmlns=\"{NAMESPACE}\""));
    xml
}

/// Who owns something.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Owner {
    /// Canonical id.
    #[serde(rename = "ID")]
    pub(crate) id: String,
    /// The account's name.
    pub(crate) display_name: String,
}

/// A root element with nothing in it.
#[derive(Debug, Serialize)]
pub(crate) struct Empty {}

/// `ListBuckets`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListAllMyBucketsResult {
    pub(crate) owner: Owner,
    pub(crate) buckets: Buckets,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) continuation_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prefix: Option<String>,
}

/// The list of `ListBuckets`.
#[derive(Debug, Serialize)]
pub(crate) struct Buckets {
    #[serde(rename = "Bucket")]
    pub(crate) buckets: Vec<Bucket>,
}

/// One bucket of `ListBuckets`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the names are the document's")]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) creation_date: String,
    pub(crate) bucket_region: String,
}

/// `GetBucketLocation`.
#[derive(Debug, Serialize)]
pub(crate) struct LocationConstraint {
    #[serde(rename = "$text", skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
}

/// How much space there is; all of it in bytes, but for the last.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Space {
    pub(crate) total: u64,
    pub(crate) available: u64,
    pub(crate) inodes_available: u64,
}

/// That something has another name.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Renamed {
    pub(crate) from: String,
}

/// `GetBucketAcl` and `GetObjectAcl`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AccessControlPolicy {
    pub(crate) owner: Owner,
    pub(crate) access_control_list: AccessControlList,
}

/// The grants of an ACL.
#[derive(Debug, Serialize)]
pub(crate) struct AccessControlList {
    #[serde(rename = "Grant")]
    pub(crate) grants: Vec<Grant>,
}

/// One grant.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Grant {
    pub(crate) grantee: Grantee,
    pub(crate) permission: &'static str,
}

/// To whom something is granted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Grantee {
    #[serde(rename = "@xmlns:xsi")]
    pub(crate) xsi: &'static str,
    #[serde(rename = "@xsi:type")]
    pub(crate) kind: &'static str,
    #[serde(rename = "ID")]
    pub(crate) id: String,
    pub(crate) display_name: String,
}

/// `GetBucketRequestPayment`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RequestPaymentConfiguration {
    pub(crate) payer: &'static str,
}

/// `GetObjectTagging`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tagging {
    pub(crate) tag_set: TagSet,
}

/// The tags of an object.
#[derive(Debug, Serialize)]
pub(crate) struct TagSet {
    #[serde(rename = "Tag")]
    pub(crate) tags: Vec<Tag>,
}

/// One tag.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// `DeleteObjects`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DeleteResult {
    #[serde(rename = "Deleted")]
    pub(crate) deleted: Vec<Deleted>,
    #[serde(rename = "Error")]
    pub(crate) errors: Vec<DeleteError>,
}

/// What was deleted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Deleted {
    pub(crate) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delete_marker: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delete_marker_version_id: Option<String>,
}

/// What was not deleted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeleteError {
    pub(crate) key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version_id: Option<String>,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// A checksum and its type, as elements.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ChecksumElements {
    #[serde(rename = "ChecksumCRC32", skip_serializing_if = "Option::is_none")]
    pub(crate) crc32: Option<String>,
    #[serde(rename = "ChecksumCRC32C", skip_serializing_if = "Option::is_none")]
    pub(crate) crc32c: Option<String>,
    #[serde(rename = "ChecksumCRC64NVME", skip_serializing_if = "Option::is_none")]
    pub(crate) crc64nvme: Option<String>,
    #[serde(rename = "ChecksumSHA1", skip_serializing_if = "Option::is_none")]
    pub(crate) sha1: Option<String>,
    #[serde(rename = "ChecksumSHA256", skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    #[serde(rename = "ChecksumType", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
}

/// `CopyObject` and `UploadPartCopy`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CopyResult {
    pub(crate) last_modified: String,
    #[serde(rename = "ETag")]
    pub(crate) etag: String,
    #[serde(flatten)]
    pub(crate) checksum: ChecksumElements,
}

/// `CreateMultipartUpload`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InitiateMultipartUploadResult {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) upload_id: String,
}

/// `CompleteMultipartUpload`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CompleteMultipartUploadResult {
    pub(crate) location: String,
    pub(crate) bucket: String,
    pub(crate) key: String,
    #[serde(rename = "ETag")]
    pub(crate) etag: String,
    #[serde(flatten)]
    pub(crate) checksum: ChecksumElements,
}

/// `ListParts`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListPartsResult {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) upload_id: String,
    pub(crate) initiator: Owner,
    pub(crate) owner: Owner,
    pub(crate) storage_class: String,
    pub(crate) part_number_marker: u16,
    pub(crate) next_part_number_marker: u16,
    pub(crate) max_parts: usize,
    pub(crate) is_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum_algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum_type: Option<&'static str>,
    #[serde(rename = "Part")]
    pub(crate) parts: Vec<Part>,
}

/// One part of `ListParts`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the names are the document's")]
pub(crate) struct Part {
    pub(crate) part_number: u16,
    pub(crate) last_modified: String,
    #[serde(rename = "ETag")]
    pub(crate) etag: String,
    pub(crate) size: u64,
    #[serde(flatten)]
    pub(crate) checksum: ChecksumElements,
}

/// `GetObjectAttributes`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetObjectAttributesResponse {
    #[serde(rename = "ETag", skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum: Option<ChecksumElements>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object_parts: Option<ObjectParts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) storage_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object_size: Option<u64>,
}

/// The parts of an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ObjectParts {
    pub(crate) parts_count: usize,
    pub(crate) part_number_marker: usize,
    pub(crate) next_part_number_marker: u16,
    pub(crate) max_parts: usize,
    pub(crate) is_truncated: bool,
    #[serde(rename = "Part")]
    pub(crate) parts: Vec<SizedPart>,
}

/// One part of an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SizedPart {
    pub(crate) part_number: u16,
    pub(crate) size: u64,
    #[serde(flatten)]
    pub(crate) checksum: ChecksumElements,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_element_has_the_namespace() {
        const XMLNS: &str = "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";
        let empty = document("WebsiteConfiguration", &Empty {});
        assert_eq!(
            empty,
            format!("{DECLARATION}<WebsiteConfiguration {XMLNS}/>")
        );
        let payer = "BucketOwner";
        let document = document(
            "RequestPaymentConfiguration",
            &RequestPaymentConfiguration { payer },
        );
        assert_eq!(
            document,
            format!(
                "{DECLARATION}<RequestPaymentConfiguration {XMLNS}><Payer>{payer}</Payer></RequestPaymentConfiguration>"
            )
        );
    }
}
