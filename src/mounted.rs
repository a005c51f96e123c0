//! Which mount a path is in, and who serves it.
//!
//! A mount that is read by way of a cache says in the table of mounts where that cache is, as its
//! device: `forebay:DIR`. In the same directory its server listens for administration.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use forebay_mount::{DEVICE, KIND};

/// What a mount's device is called that is read by way of the cache in `cache_dir`.
pub(crate) fn device(cache_dir: &Path) -> Result<String> {
    let dir = fs::canonicalize(cache_dir)
        .with_context(|| format!("find the directory {}", cache_dir.display()))?;
    // A name that is no text is no name for the table; such a mount is not found by its paths.
    Ok(dir
        .to_str()
        .map_or(DEVICE.to_owned(), |dir| format!("{DEVICE}:{dir}")))
}

/// A path in a mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InMount {
    /// The directory of the mount's cache.
    pub(crate) cache_dir: PathBuf,
    /// Where in the mount the path is, from its root; empty for the root itself.
    pub(crate) within: PathBuf,
}

/// Finds the mount behind a path. Touches the path.
///
/// # Errors
/// It does not exist, is not in a mount of forebay, or in one without a cache.
pub(crate) fn find(path: &Path) -> Result<InMount> {
    let shown = path.display();
    let found = fs::canonicalize(path).with_context(|| format!("find {shown}"))?;
    let table = fs::read("/proc/self/mountinfo").context("read the table of mounts")?;
    let Some(mount) = mount_of(&table, &found) else {
        bail!("{shown} is in no file system that the table of mounts knows");
    };
    if mount.kind != KIND {
        bail!(
            "{shown} is not in a mount of forebay; name objects as s3://BUCKET/PREFIX, or a \
             directory or file of a mount"
        );
    }
    let device = mount.device.as_bytes();
    let cache_dir = device
        .strip_prefix(DEVICE.as_bytes())
        .and_then(|rest| rest.strip_prefix(b":"));
    let Some(cache_dir) = cache_dir else {
        bail!("{shown} is in a mount without a cache: there is nothing to bring it into");
    };
    Ok(InMount {
        cache_dir: PathBuf::from(OsStr::from_bytes(cache_dir)),
        within: mount.within,
    })
}

/// A line of the table, and a path in it.
#[derive(Debug)]
struct Line {
    device: OsString,
    kind: String,
    within: PathBuf,
}

/// The mount that a path is in: the last line whose mount point is the path or the longest above
/// it. See `proc_pid_mountinfo(5)`: the root in the file system and the mount point are the fourth
/// and fifth field; type and device follow a hyphen.
fn mount_of(table: &[u8], path: &Path) -> Option<Line> {
    let mut best: Option<(usize, Line)> = None;
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let Some(hyphen) = fields.iter().position(|field| *field == b"-") else {
            continue;
        };
        let (Some(root), Some(point), Some(kind), Some(device)) = (
            fields.get(3),
            fields.get(4),
            fields.get(hyphen + 1),
            fields.get(hyphen + 2),
        ) else {
            continue;
        };
        let point = PathBuf::from(unescape(point));
        let Ok(below) = path.strip_prefix(&point) else {
            continue;
        };
        let len = point.as_os_str().len();
        if best.as_ref().is_some_and(|(best, _)| *best > len) {
            continue;
        }
        // A part of a mount may be mounted elsewhere too.
        let root = PathBuf::from(unescape(root));
        let root = root.strip_prefix("/").unwrap_or(&root);
        let found = Line {
            device: unescape(device),
            kind: String::from_utf8_lossy(kind).into_owned(),
            within: root.join(below),
        };
        best = Some((len, found));
    }
    best.map(|(_, line)| line)
}

/// A field without its escapes: the table writes some bytes as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\');
        let number = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if let Some(byte) = number {
            bytes.push(byte);
            rest = &behind[3..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"\
21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
36 21 0:45 / /mnt/a\\040b rw shared:1 - fuse.forebay forebay:/nvme/the\\040cache rw
37 21 0:45 /data/x /srv/x rw - fuse.forebay forebay:/nvme/the\\040cache rw
38 21 0:46 / /mnt/plain rw - fuse.forebay forebay rw
39 36 0:47 / /mnt/a\\040b/inner rw - tmpfs tmpfs rw
40 21 0:48 / /mnt/twice rw - tmpfs tmpfs rw
41 40 0:49 / /mnt/twice rw - fuse.forebay forebay:/c rw
";

    fn of(path: &str) -> (String, String, String) {
        let line = mount_of(TABLE, Path::new(path)).unwrap();
        let text = |text: &OsStr| text.to_str().unwrap().to_owned();
        (
            line.kind.clone(),
            text(&line.device),
            text(line.within.as_os_str()),
        )
    }

    #[test]
    fn a_path_is_in_the_mount_that_is_nearest_above_it_and_on_top() {
        let row = |kind: &str, device: &str, within: &str| {
            (kind.to_owned(), device.to_owned(), within.to_owned())
        };
        let cached = "forebay:/nvme/the cache";
        for (path, expected) in [
            ("/mnt/a b/data/k", row(KIND, cached, "data/k")),
            ("/mnt/a b", row(KIND, cached, "")),
            ("/srv/x/y", row(KIND, cached, "data/x/y")),
            ("/mnt/plain/k", row(KIND, "forebay", "k")),
            ("/mnt/a b/inner/k", row("tmpfs", "tmpfs", "k")),
            ("/mnt/twice/k", row(KIND, "forebay:/c", "k")),
            ("/mnt/a bc", row("ext4", "/dev/sda1", "mnt/a bc")),
        ] {
            assert_eq!(of(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_in_a_mount_of_forebay_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let err = find(dir.path()).unwrap_err().to_string();
        assert!(err.contains("not in a mount of forebay"), "{err}");
        let err = find(&dir.path().join("none")).unwrap_err().to_string();
        assert!(err.starts_with("find "), "{err}");
    }
}
