//! Names in a directory, and the keys they stand for.
//!
//! A path in a bucket is a key: names with slashes between. The other way round not every key has
//! a path: `a//b`, `.`, `..`, a NUL and names of more than 255 bytes can't be written as one. Such
//! keys are served over S3 and left out of listings here.

use std::ffi::OsStr;

use forebay_store::name::ObjectKey;

use crate::errno::Errno;

/// Longest name in a directory, in bytes (`NAME_MAX`).
pub(crate) const NAME_LEN_MAX: usize = 255;

/// A name that the kernel gave, checked.
///
/// # Errors
/// `ENAMETOOLONG` over 255 bytes; `EILSEQ` if it is not UTF-8, as no key could hold it; `EINVAL`
/// for what no directory entry is called.
pub(crate) fn name(text: &OsStr) -> Result<&str, Errno> {
    if text.len() > NAME_LEN_MAX {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    let text = text.to_str().ok_or(Errno(libc::EILSEQ))?;
    if is_name(text) {
        Ok(text)
    } else {
        Err(Errno(libc::EINVAL))
    }
}

/// Whether a directory entry can be called so.
pub(crate) fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.len() <= NAME_LEN_MAX
        && !text.bytes().any(|b| b == b'/' || b == 0)
}

/// The path of a name in the directory at `path`; the bucket's own directory has the empty one.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        [path, "/", name].concat()
    }
}

/// The key of the file at a path.
///
/// # Errors
/// `ENAMETOOLONG` over what a key may have.
pub(crate) fn key(path: &str) -> Result<ObjectKey, Errno> {
    Ok(ObjectKey::parse(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn names_that_are_refused() {
        assert_eq!(name(OsStr::from_bytes(b"\xff")), Err(Errno(libc::EILSEQ)));
        assert_eq!(
            name(OsStr::new(&"n".repeat(256))),
            Err(Errno(libc::ENAMETOOLONG))
        );
        assert_eq!(name(OsStr::new("..")), Err(Errno(libc::EINVAL)));
        assert_eq!(name(OsStr::new("a b")), Ok("a b"));
    }

    #[test]
    fn a_path_is_a_key() {
        assert_eq!(join("", "a"), "a");
        assert_eq!(join("a/b", "c"), "a/b/c");
        assert!(key("a/b").is_ok());
        assert_eq!(key(&"k".repeat(5000)), Err(Errno(libc::ENAMETOOLONG)));
    }
}
