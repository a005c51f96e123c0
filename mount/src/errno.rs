//! Store error to errno, as one table: what Linux gives for the same cause.
#![deny(clippy::wildcard_enum_match_arm)] // a new store error does not compile until it has a row here

use forebay_store::Error;

/// An error number of Linux, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// Full, over quota, read-only: true for the caller too. A lost data file is not its ENOENT.
const SHARED: [i32; 3] = [libc::ENOSPC, libc::EDQUOT, libc::EROFS];

impl From<Error> for Errno {
    /// Translates; what is the machine's trouble is logged here, as nobody after this sees it. Only
    /// that the origin is gone is said once, by who finds it gone.
    fn from(error: Error) -> Self {
        let errno = errno(&error);
        if errno == libc::EIO && !matches!(error, Error::OriginUnavailable(_)) {
            tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
        }
        Self(errno)
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

fn errno(error: &Error) -> i32 {
    match error {
        Error::NoSuchBucket(_)
        | Error::NoSuchKey(_)
        | Error::NoSuchVersion { .. }
        | Error::NoSuchUpload(_)
        | Error::NoSuchAccount(_) => libc::ENOENT,
        Error::BucketExists { .. } | Error::Exists(_) | Error::AccountExists(_) => libc::EEXIST,
        Error::BucketNotEmpty(_) | Error::DirectoryNotEmpty(_) => libc::ENOTEMPTY,
        Error::IsDirectory(_) => libc::EISDIR,
        Error::NotDirectory(_) => libc::ENOTDIR,
        Error::KeyTooLong { .. } => libc::ENAMETOOLONG,
        Error::TooManyBuckets => libc::EDQUOT,
        Error::TooLarge { .. } => libc::EFBIG,
        // The kernel looks the name up again and repeats the call.
        Error::Superseded(_) => libc::ESTALE,
        Error::InvalidBucketName(_)
        | Error::KeyEmpty
        | Error::InvalidVersionId(_)
        | Error::InvalidPart { .. }
        | Error::InvalidPartOrder
        | Error::PartTooSmall { .. }
        | Error::InvalidRequest(_)
        | Error::DigestMismatch { .. } => libc::EINVAL,
        Error::PreconditionFailed(_) => libc::EPERM,
        Error::OriginDenied(_) => libc::EACCES,
        Error::ReadOnly(_) => libc::EROFS,
        Error::Io { source, .. } => source
            .raw_os_error()
            .filter(|code| SHARED.contains(code))
            .unwrap_or(libc::EIO),
        Error::OriginUnavailable(_)
        | Error::OriginAnswer(_)
        | Error::Index { .. }
        | Error::IndexDamaged(_)
        | Error::Corrupt { .. }
        | Error::SyncFailedEarlier { .. }
        | Error::UploadDamaged(_)
        | Error::Closed
        | Error::Locked { .. }
        | Error::FormatTooNew { .. } => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn io(code: i32) -> Error {
        Error::Io {
            action: "write",
            path: "f".into(),
            source: io::Error::from_raw_os_error(code),
        }
    }

    #[test]
    fn a_full_disk_is_the_callers_to_know_and_a_lost_file_is_not() {
        assert_eq!(Errno::from(io(libc::ENOSPC)), Errno(libc::ENOSPC));
        assert_eq!(Errno::from(io(libc::ENOENT)), Errno(libc::EIO));
        assert_eq!(Errno::from(Error::Closed), Errno(libc::EIO));
    }
}
