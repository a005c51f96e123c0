//! What a client reads when the store refuses or fails.
#![deny(clippy::wildcard_enum_match_arm)] // a new store error does not compile until it has a row here

use forebay_store::Error;
use forebay_store::name::ObjectKey;

use super::{Code, S3Error};

impl From<Error> for S3Error {
    fn from(error: Error) -> Self {
        translate(&error).because(error)
    }
}

fn of_key(code: Code, key: &ObjectKey) -> S3Error {
    S3Error::new(code).field("Key", key.as_str())
}

fn translate(error: &Error) -> S3Error {
    match error {
        Error::InvalidBucketName(name) => {
            S3Error::new(Code::InvalidBucketName).field("BucketName", name.as_str())
        }
        Error::KeyEmpty => S3Error::with(Code::InvalidArgument, "The key is empty."),
        Error::KeyTooLong { len } => S3Error::new(Code::KeyTooLongError)
            .field("Size", len.to_string())
            .field("MaxSizeAllowed", forebay_store::limits::KEY_LEN_MAX.to_string()),
        Error::InvalidVersionId(text) => {
            S3Error::argument("versionId", text, "Invalid version id specified")
        }
        Error::NoSuchBucket(name) => {
            S3Error::new(Code::NoSuchBucket).field("BucketName", name.as_str())
        }
        Error::BucketExists { name, .. } => {
            S3Error::new(Code::BucketAlreadyExists).field("BucketName", name.as_str())
        }
        Error::BucketNotEmpty(name) => {
            S3Error::new(Code::BucketNotEmpty).field("BucketName", name.as_str())
        }
        Error::TooManyBuckets => Code::TooManyBuckets.into(),
        Error::NoSuchKey(key) => of_key(Code::NoSuchKey, key),
        Error::NoSuchVersion { key, version } => S3Error::new(Code::NoSuchVersion)
            .field("Key", key.as_str())
            .field("VersionId", version.as_str()),
        Error::NoSuchUpload(id) => S3Error::new(Code::NoSuchUpload).field("UploadId", id.as_str()),
        Error::PreconditionFailed(condition) => {
            S3Error::new(Code::PreconditionFailed).field("Condition", *condition)
        }
        Error::TooLarge { size, max } => S3Error::new(Code::EntityTooLarge)
            .field("ProposedSize", size.to_string())
            .field("MaxSizeAllowed", max.to_string()),
        Error::InvalidPart { number } => {
            S3Error::new(Code::InvalidPart).field("PartNumber", number.to_string())
        }
        Error::InvalidPartOrder => Code::InvalidPartOrder.into(),
        Error::PartTooSmall { number, size } => S3Error::new(Code::EntityTooSmall)
            .field("ProposedSize", size.to_string())
            .field("MinSizeAllowed", forebay_store::limits::PART_SIZE_MIN.to_string())
            .field("PartNumber", number.to_string()),
        Error::InvalidRequest(why) => S3Error::request(*why),
        Error::DigestMismatch { what } => S3Error::with(
            Code::BadDigest,
            format!("The {what} you specified did not match what we received."),
        ),
        // Something changed between two steps of one request; the client may try again.
        Error::Superseded(_) => Code::OperationAborted.into(),
        Error::OriginDenied(_) => Code::AccessDenied.into(),
        Error::OriginUnavailable(_) => Code::ServiceUnavailable.into(),
        Error::ReadOnly(_) => Code::MethodNotAllowed.into(),
        // What renames give.
        Error::Exists(key) => of_key(Code::ObjectExists, key),
        Error::IsDirectory(key) => of_key(Code::IsDirectory, key),
        Error::NotDirectory(key) => of_key(Code::NotDirectory, key),
        Error::DirectoryNotEmpty(key) => of_key(Code::DirectoryNotEmpty, key),
        // What only accounts' own operations give.
        Error::NoSuchAccount(_)
        | Error::AccountExists(_)
        // The machine's trouble: the log has the whole chain, the client has a request id.
        | Error::OriginAnswer(_)
        | Error::Io { .. }
        | Error::Index { .. }
        | Error::Corrupt { .. }
        | Error::IndexDamaged(_)
        | Error::FormatTooNew { .. } => Code::InternalError.into(),
        Error::UploadDamaged(_) => S3Error::with(
            Code::InternalError,
            "Parts of this upload were lost when the disk failed. Abort it and begin another.",
        ),
        Error::SyncFailedEarlier { .. } | Error::Locked { .. } | Error::Closed => {
            Code::ServiceUnavailable.into()
        }
    }
}
