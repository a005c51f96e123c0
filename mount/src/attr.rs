//! What `stat` shows of an object or a directory.

use std::time::{Duration, SystemTime};

use forebay_store::entry::{Bucket, Entry, FileAttributes};
use forebay_store::time::Timestamp;

/// Permission bits of a mode, with set-user-id, set-group-id and sticky.
pub(crate) const PERMISSIONS: u32 = 0o7777;
/// Type bits of a mode.
const TYPE: u32 = libc::S_IFMT;

/// The attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attr {
    /// Type and permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Kept in memory only; the time of last change until someone sets it.
    pub(crate) atime: Timestamp,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    /// Device number of a special file.
    pub(crate) rdev: u32,
}

/// What applies where neither face has said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Defaults {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits.
    pub(crate) file_mode: u32,
    /// Permission bits.
    pub(crate) dir_mode: u32,
}

impl Attr {
    /// Of an object that is shown as a file, a symbolic link or a special file.
    pub(crate) fn of_file(entry: &Entry, defaults: &Defaults) -> Self {
        let mode = entry.file.mode.unwrap_or(defaults.file_mode);
        // An object can't be a directory here, whatever its metadata says: its key has no slash.
        let kind = match mode & TYPE {
            0 | libc::S_IFDIR => libc::S_IFREG,
            kind => kind,
        };
        Self {
            size: entry.size,
            ..Self::of(entry, mode & PERMISSIONS | kind, defaults)
        }
    }

    /// Of a directory with a marker.
    pub(crate) fn of_marker(marker: &Entry, defaults: &Defaults) -> Self {
        let mode = marker.file.mode.unwrap_or(defaults.dir_mode);
        Self {
            size: 0,
            ..Self::of(marker, mode & PERMISSIONS | libc::S_IFDIR, defaults)
        }
    }

    /// Of a directory that only the keys below it speak of.
    pub(crate) fn of_implied(bucket: &Bucket, defaults: &Defaults) -> Self {
        Self::of_root(bucket.created_at, defaults)
    }

    /// Of a directory that is not an object at all.
    pub(crate) fn of_root(at: Timestamp, defaults: &Defaults) -> Self {
        Self {
            mode: defaults.dir_mode & PERMISSIONS | libc::S_IFDIR,
            uid: defaults.uid,
            gid: defaults.gid,
            size: 0,
            atime: at,
            mtime: at,
            ctime: at,
            rdev: 0,
        }
    }

    fn of(entry: &Entry, mode: u32, defaults: &Defaults) -> Self {
        let file = &entry.file;
        let mtime = file.mtime.unwrap_or(entry.modified_at);
        Self {
            mode,
            uid: file.uid.unwrap_or(defaults.uid),
            gid: file.gid.unwrap_or(defaults.gid),
            size: entry.size,
            atime: mtime,
            mtime,
            ctime: file.ctime.unwrap_or(entry.modified_at),
            rdev: file.rdev.unwrap_or(0),
        }
    }

    /// What the store says of an inode that was seen before: the times that only the mount keeps
    /// do not go back.
    pub(crate) fn seen_after(self, before: &Self) -> Self {
        Self {
            atime: self.atime.max(before.atime),
            ctime: self.ctime.max(before.ctime),
            ..self
        }
    }

    /// Type bits.
    pub(crate) fn kind(&self) -> u32 {
        self.mode & TYPE
    }

    /// Whether it is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == libc::S_IFDIR
    }

    /// What the store keeps of it.
    pub(crate) fn to_file(self) -> FileAttributes {
        let special = matches!(self.kind(), libc::S_IFCHR | libc::S_IFBLK);
        FileAttributes {
            mode: Some(self.mode),
            uid: Some(self.uid),
            gid: Some(self.gid),
            mtime: Some(self.mtime),
            ctime: Some(self.ctime),
            rdev: special.then_some(self.rdev),
        }
    }
}

/// What `chmod`, `chown`, `utimensat` and `truncate` change; what is `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    /// Permission bits.
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<Timestamp>,
    pub(crate) mtime: Option<Timestamp>,
}

impl Change {
    /// The attributes after the change, made `now`. The size is not this function's to set.
    pub(crate) fn apply(&self, attr: Attr, now: Timestamp) -> Attr {
        Attr {
            mode: self
                .mode
                .map_or(attr.mode, |mode| mode & PERMISSIONS | attr.kind()),
            uid: self.uid.unwrap_or(attr.uid),
            gid: self.gid.unwrap_or(attr.gid),
            atime: self.atime.unwrap_or(attr.atime),
            mtime: self.mtime.unwrap_or(attr.mtime),
            ctime: now,
            ..attr
        }
    }

    /// Whether it changes anything that the store keeps beside the size.
    pub(crate) fn is_kept(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some() || self.mtime.is_some()
    }
}

/// What a new file or directory starts with.
pub(crate) fn of_new(mode: u32, uid: u32, gid: u32, parent: &Attr, now: Timestamp) -> Attr {
    // In a set-group-id directory the group is the directory's, and so is the bit for directories.
    let inherits = parent.mode & libc::S_ISGID != 0;
    let bit = if inherits && mode & TYPE == libc::S_IFDIR {
        libc::S_ISGID
    } else {
        0
    };
    Attr {
        mode: mode | bit,
        uid,
        gid: if inherits { parent.gid } else { gid },
        size: 0,
        atime: now,
        mtime: now,
        ctime: now,
        rdev: 0,
    }
}

/// The time as the kernel interface wants it.
pub(crate) fn system_time(at: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(at.0.unsigned_abs());
    if at.0 >= 0 {
        SystemTime::UNIX_EPOCH + nanos
    } else {
        SystemTime::UNIX_EPOCH - nanos
    }
}

/// The time that the kernel interface gave.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let nanos = |since: Duration| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => Timestamp(nanos(since)),
        Err(before) => Timestamp(-nanos(whole_before_1970(before.duration()))),
    }
}

/// Undoes what `fuser` 0.18 does to fractions of times before 1970: it subtracts seconds and
/// nanoseconds both, where the kernel counts nanoseconds upwards from the second below.
fn whole_before_1970(wrong: Duration) -> Duration {
    Duration::from_secs(wrong.as_secs())
        .saturating_sub(Duration::from_nanos(wrong.subsec_nanos().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(mode: u32) -> Attr {
        let at = Timestamp(7);
        Attr {
            mode,
            uid: 1,
            gid: 2,
            size: 3,
            atime: at,
            mtime: at,
            ctime: at,
            rdev: 0,
        }
    }

    #[test]
    fn a_set_group_id_directory_hands_down_its_group() {
        let parent = attr(libc::S_IFDIR | 0o2755);
        let dir = of_new(libc::S_IFDIR | 0o755, 9, 9, &parent, Timestamp(1));
        assert_eq!((dir.mode, dir.gid), (libc::S_IFDIR | 0o2755, 2));
        let file = of_new(libc::S_IFREG | 0o644, 9, 9, &parent, Timestamp(1));
        assert_eq!((file.mode, file.gid), (libc::S_IFREG | 0o644, 2));
        let plain = of_new(
            libc::S_IFDIR | 0o755,
            9,
            9,
            &attr(libc::S_IFDIR),
            Timestamp(1),
        );
        assert_eq!((plain.mode, plain.gid), (libc::S_IFDIR | 0o755, 9));
    }

    #[test]
    fn a_change_keeps_the_type_and_moves_ctime() {
        let change = Change {
            mode: Some(libc::S_IFDIR | 0o600),
            ..Change::default()
        };
        let after = change.apply(attr(libc::S_IFREG | 0o644), Timestamp(8));
        assert_eq!(after.mode, libc::S_IFREG | 0o600);
        assert_eq!((after.mtime, after.ctime), (Timestamp(7), Timestamp(8)));
    }

    #[test]
    fn times_come_back_as_they_went() {
        for nanos in [0, 1, 1_500_000_000, -1_000_000_000] {
            assert_eq!(timestamp(system_time(Timestamp(nanos))), Timestamp(nanos));
        }
        // The kernel says (-2 s, +800 ms); fuser makes it -2.8 s before 1970.
        let fuser = SystemTime::UNIX_EPOCH - Duration::new(2, 800_000_000);
        assert_eq!(timestamp(fuser), Timestamp(-1_200_000_000));
    }
}
