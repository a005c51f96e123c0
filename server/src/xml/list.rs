//! Documents of listings.

use serde::Serialize;

use super::write::Owner;

/// One object of a listing.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Contents {
    pub(crate) key: String,
    pub(crate) last_modified: String,
    #[serde(rename = "ETag")]
    pub(crate) etag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum_algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum_type: Option<&'static str>,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Owner>,
    pub(crate) storage_class: String,
    /// What `HeadObject` says besides, for mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) head: Option<String>,
}

/// One common prefix.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CommonPrefix {
    pub(crate) prefix: String,
    /// The object of just that key, for mounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) marker: Option<Contents>,
}

/// `ListObjects` and `ListObjectsV2`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListBucketResult {
    pub(crate) name: String,
    pub(crate) prefix: String,
    // The first version alone has markers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) marker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_marker: Option<String>,
    // The second version alone has what follows, up to the count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) continuation_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_continuation_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_count: Option<usize>,
    /// Whether what `HeadObject` says is told too, of objects and of those that are common
    /// prefixes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heads: Option<bool>,
    pub(crate) max_keys: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delimiter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encoding_type: Option<&'static str>,
    pub(crate) is_truncated: bool,
    pub(crate) contents: Vec<Contents>,
    pub(crate) common_prefixes: Vec<CommonPrefix>,
}

/// One version of `ListObjectVersions`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the names are the document's")]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) version_id: &'static str,
    pub(crate) is_latest: bool,
    pub(crate) last_modified: String,
    #[serde(rename = "ETag")]
    pub(crate) etag: String,
    pub(crate) size: u64,
    pub(crate) storage_class: String,
    pub(crate) owner: Owner,
}

/// `ListObjectVersions`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListVersions {
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) key_marker: String,
    pub(crate) version_id_marker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_key_marker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_version_id_marker: Option<&'static str>,
    pub(crate) max_keys: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delimiter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encoding_type: Option<&'static str>,
    pub(crate) is_truncated: bool,
    #[serde(rename = "Version")]
    pub(crate) versions: Vec<Version>,
    pub(crate) common_prefixes: Vec<CommonPrefix>,
}

/// One upload of `ListMultipartUploads`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the names are the document's")]
pub(crate) struct Upload {
    pub(crate) key: String,
    pub(crate) upload_id: String,
    pub(crate) initiator: Owner,
    pub(crate) owner: Owner,
    pub(crate) storage_class: String,
    pub(crate) initiated: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum_algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checksum_type: Option<&'static str>,
}

/// `ListMultipartUploads`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListUploads {
    pub(crate) bucket: String,
    pub(crate) key_marker: String,
    pub(crate) upload_id_marker: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_key_marker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_upload_id_marker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delimiter: Option<String>,
    pub(crate) prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encoding_type: Option<&'static str>,
    pub(crate) max_uploads: usize,
    pub(crate) is_truncated: bool,
    #[serde(rename = "Upload")]
    pub(crate) uploads: Vec<Upload>,
    pub(crate) common_prefixes: Vec<CommonPrefix>,
}
