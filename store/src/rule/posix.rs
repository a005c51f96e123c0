//! POSIX attributes in S3 user metadata, as other tools write them.
//!
//! What the mount says is written as `mode`, `uid`, `gid`, `rdev` and `mtime`, and once more in
//! `s3cmd-attrs`, as s3cmd looks at nothing else.
//!
//! | key | written by | form |
//! |---|---|---|
//! | `mode` | s3fs, GeeseFS | decimal `st_mode` |
//! | `mode` | rclone | octal text |
//! | `file-permissions`, `file-owner`, `file-group`, `file-mtime` | FSx, DataSync | octal, decimal, ns |
//! | `uid`, `gid`, `rdev` | s3fs, GeeseFS, rclone | decimal |
//! | `mtime` | s3fs, GeeseFS, rclone | seconds, with a fraction or not |
//! | `s3cmd-attrs` | s3cmd | `key:value/key:value`, times in whole seconds |

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::entry::FileAttributes;
use crate::time::Timestamp;

/// Bits of `st_mode` that say what kind of file it is.
pub const S_IFMT: u32 = 0o170_000;
/// A directory.
pub const S_IFDIR: u32 = 0o040_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;

/// User metadata in which rclone keeps the MD5 of a large object's bytes.
const RCLONE_MD5: &str = "md5chksum";
/// The user metadata that s3cmd keeps attributes in.
const S3CMD: &str = "s3cmd-attrs";

/// Longest name of a directory entry, in bytes.
const NAME_LEN_MAX: usize = 255;

/// Whether a path can have this component, which has no slash.
pub fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= NAME_LEN_MAX && !name.contains('\0')
}

/// Whether the bytes that user metadata speaks of are those it came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// They are.
    Same,
    /// They were written anew, so that no digest of the old ones may stay.
    New,
}

/// What user metadata says of a file; `directory` is whether the key ends in `/`.
pub fn from_metadata(metadata: &[(String, Vec<u8>)], directory: bool) -> FileAttributes {
    let mut file = FileAttributes::default();
    let text = |name: &str| {
        let found = metadata.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(&found.1).ok()
    };
    if let Some(attrs) = text(S3CMD) {
        read_s3cmd(attrs, &mut file);
    }
    let octal = |name: &str| u32::from_str_radix(text(name)?, 8).ok();
    let number = |name: &str| text(name)?.parse().ok();
    file.mode = text("mode")
        .and_then(|mode| parse_mode(mode, directory))
        .or_else(|| octal("file-permissions"))
        .or(file.mode);
    file.uid = number("uid").or_else(|| number("file-owner")).or(file.uid);
    file.gid = number("gid").or_else(|| number("file-group")).or(file.gid);
    file.rdev = number("rdev");
    file.mtime = text("mtime")
        .or_else(|| text("file-mtime"))
        .and_then(parse_time)
        .or(file.mtime);
    file.mode = file.mode.and_then(|mode| with_type(mode, directory));
    file
}

/// The user metadata that says what `file` says, in place of what it said before.
pub fn to_metadata(file: &FileAttributes, metadata: &mut Vec<(String, Vec<u8>)>) {
    let mut set = |name: &str, value: Option<String>| {
        let Some(value) = value else { return };
        match metadata.iter_mut().find(|(key, _)| key == name) {
            Some(found) => found.1 = value.into_bytes(),
            None => metadata.push((name.to_owned(), value.into_bytes())),
        }
    };
    set("mode", file.mode.map(|mode| mode.to_string()));
    set("uid", file.uid.map(|uid| uid.to_string()));
    set("gid", file.gid.map(|gid| gid.to_string()));
    set("rdev", file.rdev.map(|rdev| rdev.to_string()));
    set(
        "mtime",
        file.mtime
            .map(|at| format!("{}.{:09}", at.seconds(), at.subsec_nanos())),
    );
}

/// The user metadata of a file that was written anew.
pub fn written(file: &FileAttributes, metadata: &mut Vec<(String, Vec<u8>)>) {
    metadata.retain(|(name, _)| name != RCLONE_MD5);
    to_metadata(file, metadata);
    to_s3cmd(file, Bytes::New, metadata);
}

/// What POSIX keeps of a file after a change, which is told to user metadata too. `modified_at` is
/// what its time was while there was no other; `directory` is whether the key ends in `/`.
pub fn changed(
    kept: &FileAttributes,
    change: &FileAttributes,
    modified_at: Timestamp,
    directory: bool,
    metadata: &mut Vec<(String, Vec<u8>)>,
) -> FileAttributes {
    let permissions = |new: u32| kept.mode.map_or(new, |old| old & S_IFMT | new & !S_IFMT);
    let file = FileAttributes {
        mode: change.mode.map(permissions).or(kept.mode),
        uid: change.uid.or(kept.uid),
        gid: change.gid.or(kept.gid),
        mtime: change.mtime.or(kept.mtime),
        ctime: change.ctime.or(kept.ctime),
        rdev: change.rdev.or(kept.rdev),
    };
    let told = FileAttributes {
        mode: change.mode.and(file.mode),
        ctime: None,
        ..*change
    };
    to_metadata(&told, metadata);
    if !directory {
        // s3cmd that is told anything does not look at Last-Modified any more.
        let mtime = file.mtime.or(Some(modified_at));
        to_s3cmd(&FileAttributes { mtime, ..file }, Bytes::Same, metadata);
    }
    file
}

/// Says in `s3cmd-attrs` what `file`, which is no directory, has now.
///
/// Directories are left out, as s3cmd would make one read-only before it fetches what is in it.
/// The owner is told only where s3cmd itself had told one: a user who may not give files away would
/// have every download of one reported as failed.
pub fn to_s3cmd(file: &FileAttributes, bytes: Bytes, metadata: &mut Vec<(String, Vec<u8>)>) {
    let at = metadata.iter().position(|(key, _)| key == S3CMD);
    // A symbolic link's mode, say, would be given to a file that has its target in it.
    if at.is_none() && file.mode.is_some_and(|mode| mode & S_IFMT != S_IFREG) {
        return;
    }
    let old = at.map(|at| String::from_utf8_lossy(&metadata[at].1).into_owned());
    let mut pairs: BTreeMap<&str, Cow<'_, str>> = old
        .iter()
        .flat_map(|old| s3cmd_pairs(old))
        .map(|(key, value)| (key, value.into()))
        .collect();
    pairs.remove("ctime");
    if bytes == Bytes::New {
        pairs.remove("md5");
        pairs.remove("atime");
    }
    for (number, name, now) in [("uid", "uname", file.uid), ("gid", "gname", file.gid)] {
        let Some(now) = now.map(|id| id.to_string()) else {
            continue;
        };
        if pairs.get(number).is_none_or(|told| **told != now) {
            pairs.remove(name);
        }
        if let Some(told) = pairs.get_mut(number) {
            *told = now.into();
        }
    }
    let mode = file.mode.map(|mode| mode.to_string());
    let mtime = file.mtime.map(|mtime| mtime.seconds().to_string());
    for (key, now) in [("mode", mode), ("mtime", mtime)] {
        if let Some(now) = now {
            pairs.insert(key, now.into());
        }
    }
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    let attrs = pairs.join("/").into_bytes();
    match at {
        Some(at) => metadata[at].1 = attrs,
        None => metadata.push((S3CMD.to_owned(), attrs)),
    }
}

/// A mode with its type: that of the key where none is given; `None` if it contradicts the key.
fn with_type(mode: u32, directory: bool) -> Option<u32> {
    let kind = mode & S_IFMT;
    let wanted = if directory { S_IFDIR } else { S_IFREG };
    match kind {
        0 => Some(mode | wanted),
        _ if (kind == S_IFDIR) == directory => Some(mode),
        _ => None,
    }
}

fn has_valid_type(mode: u32) -> bool {
    const TYPES: [u32; 8] = [
        0, 0o010_000, 0o020_000, S_IFDIR, 0o060_000, S_IFREG, S_IFLNK, 0o140_000,
    ];
    mode <= 0o177_777 && TYPES.contains(&(mode & S_IFMT))
}

/// Reads a mode that is decimal from one tool and octal from another.
///
/// A leading 0 means octal. Otherwise it is decimal if that has a type that files can have, except
/// that a key ending in `/` prefers the reading that says directory.
fn parse_mode(text: &str, directory: bool) -> Option<u32> {
    let decimal = text
        .parse::<u32>()
        .ok()
        .filter(|mode| has_valid_type(*mode));
    let octal = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| has_valid_type(*mode));
    if text.starts_with('0') {
        return octal;
    }
    let is_directory = |mode: &u32| mode & S_IFMT == S_IFDIR;
    if directory {
        return decimal
            .filter(is_directory)
            .or(octal.filter(is_directory))
            .or(decimal)
            .or(octal);
    }
    // A bare permission such as 644 is octal to everybody who writes one.
    match decimal {
        Some(mode) if mode & S_IFMT != 0 => Some(mode),
        _ => octal.or(decimal),
    }
}

/// Reads `seconds`, `seconds.fraction`, or whole milli-, micro- or nanoseconds (told apart by size,
/// or by `ns`).
fn parse_time(text: &str) -> Option<Timestamp> {
    if let Some(nanos) = text.strip_suffix("ns") {
        return nanos.trim().parse().ok().map(Timestamp);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if fraction.is_empty() {
        let per_unit = match whole.unsigned_abs() {
            0..100_000_000_000 => 1_000_000_000,
            100_000_000_000..100_000_000_000_000 => 1_000_000,
            100_000_000_000_000..100_000_000_000_000_000 => 1_000,
            _ => 1,
        };
        return whole.checked_mul(per_unit).map(Timestamp);
    }
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(9)
        .collect();
    let nanos: i64 = digits.parse().ok()?;
    let nanos = if text.starts_with('-') { -nanos } else { nanos };
    whole
        .checked_mul(1_000_000_000)?
        .checked_add(nanos)
        .map(Timestamp)
}

fn s3cmd_pairs(attrs: &str) -> impl Iterator<Item = (&str, &str)> {
    attrs.split('/').filter_map(|pair| pair.split_once(':'))
}

fn read_s3cmd(attrs: &str, file: &mut FileAttributes) {
    for (key, value) in s3cmd_pairs(attrs) {
        match key {
            "mode" => file.mode = value.parse().ok().filter(|mode| has_valid_type(*mode)),
            "uid" => file.uid = value.parse().ok(),
            "gid" => file.gid = value.parse().ok(),
            "mtime" => file.mtime = parse_time(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)], directory: bool) -> FileAttributes {
        let metadata: Vec<_> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
            .collect();
        from_metadata(&metadata, directory)
    }

    #[test]
    fn every_permission_is_read_back_from_decimal_and_from_octal() {
        for permissions in 0..0o10_000 {
            let mode = S_IFREG | permissions;
            assert_eq!(read(&[("mode", &mode.to_string())], false).mode, Some(mode));
            assert_eq!(
                read(&[("mode", &format!("{mode:o}"))], false).mode,
                Some(mode)
            );
            let link = S_IFLNK | permissions;
            assert_eq!(read(&[("mode", &link.to_string())], false).mode, Some(link));
        }
        assert_eq!(read(&[("mode", "644")], false).mode, Some(S_IFREG | 0o644));
        assert_eq!(read(&[("mode", "16877")], true).mode, Some(S_IFDIR | 0o755));
        assert_eq!(read(&[("mode", "40755")], true).mode, Some(S_IFDIR | 0o755));
        assert_eq!(
            read(&[("mode", "16877")], false).mode,
            None,
            "a file is no directory"
        );
    }

    #[test]
    fn times_are_read_in_every_form() {
        let at = |text: &str| read(&[("mtime", text)], false).mtime;
        assert_eq!(
            at("1700000000"),
            Some(Timestamp::from_parts(1_700_000_000, 0))
        );
        assert_eq!(
            at("1700000000.5"),
            Some(Timestamp::from_parts(1_700_000_000, 500_000_000))
        );
        assert_eq!(
            at("1700000000.123456789"),
            Some(Timestamp(1_700_000_000_123_456_789))
        );
        assert_eq!(
            at("1700000000123"),
            Some(Timestamp(1_700_000_000_123_000_000))
        );
        assert_eq!(at("-1.5"), Some(Timestamp(-1_500_000_000)));
        assert_eq!(at("yesterday"), None);
        assert_eq!(
            read(&[("file-mtime", "1700000000123456789ns")], false).mtime,
            Some(Timestamp(1_700_000_000_123_456_789))
        );
    }

    #[test]
    fn s3cmd_attributes_are_read_and_outranked_by_plain_ones() {
        let attrs =
            "atime:1/ctime:2/gid:7/gname:staff/md5:x/mode:33188/mtime:1700000000/uid:5/uname:me";
        let file = read(&[("s3cmd-attrs", attrs)], false);
        assert_eq!(
            (file.mode, file.uid, file.gid),
            (Some(S_IFREG | 0o644), Some(5), Some(7))
        );
        assert_eq!(file.mtime, Some(Timestamp::from_parts(1_700_000_000, 0)));
        assert_eq!(
            read(&[("s3cmd-attrs", attrs), ("uid", "9")], false).uid,
            Some(9)
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = FileAttributes {
            mode: Some(S_IFREG | 0o600),
            uid: Some(1),
            gid: Some(2),
            mtime: Some(Timestamp(1_700_000_000_000_000_001)),
            ctime: None,
            rdev: None,
        };
        let mut metadata = vec![
            ("mode".to_owned(), b"1".to_vec()),
            ("colour".to_owned(), b"blue".to_vec()),
        ];
        to_metadata(&file, &mut metadata);
        assert_eq!(from_metadata(&metadata, false), file);
        assert!(metadata.contains(&("colour".to_owned(), b"blue".to_vec())));
    }

    /// What s3cmd is told of a file with these attributes, when it was told `old` before.
    fn told(old: Option<&str>, file: &FileAttributes, bytes: Bytes) -> Option<String> {
        let old = old.map(|old| (S3CMD.to_owned(), old.as_bytes().to_vec()));
        let mut metadata: Vec<_> = old.into_iter().collect();
        to_s3cmd(file, bytes, &mut metadata);
        metadata
            .pop()
            .map(|(_, attrs)| String::from_utf8(attrs).unwrap())
    }

    #[test]
    fn s3cmd_is_told_what_it_reads_and_no_digest_of_bytes_that_are_gone() {
        let file = FileAttributes {
            mode: Some(S_IFREG | 0o600),
            uid: Some(5),
            gid: Some(8),
            mtime: Some(Timestamp(1_700_000_000_999_999_999)),
            ..FileAttributes::default()
        };
        let old =
            "atime:1/ctime:2/gid:7/gname:staff/md5:x/mode:33188/mtime:1600000000/uid:5/uname:me";
        let rows = [
            (None, Bytes::New, "mode:33152/mtime:1700000000"),
            (
                Some(old),
                Bytes::Same,
                "atime:1/gid:8/md5:x/mode:33152/mtime:1700000000/uid:5/uname:me",
            ),
            (
                Some(old),
                Bytes::New,
                "gid:8/mode:33152/mtime:1700000000/uid:5/uname:me",
            ),
        ];
        for (old, bytes, want) in rows {
            assert_eq!(told(old, &file, bytes).as_deref(), Some(want));
            let read = read(&[(S3CMD, want)], false);
            assert_eq!(read.mode, file.mode);
            assert_eq!(read.mtime.map(Timestamp::seconds), Some(1_700_000_000));
        }
    }

    #[test]
    fn s3cmd_is_told_nothing_of_what_is_no_regular_file() {
        let link = FileAttributes {
            mode: Some(S_IFLNK | 0o777),
            ..FileAttributes::default()
        };
        assert_eq!(told(None, &link, Bytes::New), None);
    }
}
