//! What handlers answer, in the kernel's terms.

use std::time::{Duration, SystemTime};

use forebay_store::api::Usage;
use fuser::{
    FileAttr, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry,
    ReplyStatfs, ReplyXattr, Request,
};

use crate::attr::system_time;
use crate::errno::Errno;
use crate::opening::{Caller, Opened, Way};
use crate::path::NAME_LEN_MAX;
use crate::view::Found;

/// Block size of `statfs` and `stat`, in bytes.
pub(crate) const BLOCK_SIZE: u32 = 4096;
/// Inode numbers are never used for something else again.
pub(crate) const GENERATION: Generation = Generation(0);

/// An entry with inode number 0: nothing is there, and the kernel may remember that.
pub(crate) const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

pub(crate) fn caller(req: &Request) -> Caller {
    Caller {
        uid: req.uid(),
        gid: req.gid(),
    }
}

pub(crate) fn refused(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.0)
}

pub(crate) fn attr_of(found: &Found) -> FileAttr {
    let attr = &found.attr;
    FileAttr {
        ino: INodeNo(found.ino),
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind_of(attr.kind()),
        perm: u16::try_from(attr.mode & 0o7777).expect("12 bits"),
        nlink: found.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

pub(crate) fn kind_of(kind: u32) -> FileType {
    match kind {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// Replies with an entry, for the kernel to believe for so long.
pub(crate) fn reply_entry(reply: ReplyEntry, ttl: Duration, found: Result<Found, Errno>) {
    match found {
        Ok(found) => reply.entry(&ttl, &attr_of(&found), GENERATION),
        Err(errno) => reply.error(refused(errno)),
    }
}

/// Replies that it is done.
pub(crate) fn reply_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(refused(errno)),
    }
}

/// Replies with attributes, for the kernel to believe for so long.
pub(crate) fn reply_attr(reply: ReplyAttr, ttl: Duration, found: Result<Found, Errno>) {
    match found {
        Ok(found) => reply.attr(&ttl, &attr_of(&found)),
        Err(errno) => reply.error(refused(errno)),
    }
}

/// Replies with the value of an extended attribute, or with its size if there is room for nothing.
pub(crate) fn reply_xattr(reply: ReplyXattr, room: u32, value: Result<impl AsRef<[u8]>, Errno>) {
    match value {
        Err(errno) => reply.error(refused(errno)),
        Ok(value) => {
            let value = value.as_ref();
            match u32::try_from(value.len()) {
                Ok(len) if room == 0 => reply.size(len),
                Ok(len) if len <= room => reply.data(value),
                _ => reply.error(fuser::Errno::ERANGE),
            }
        }
    }
}

/// Replies with what there is of space.
pub(crate) fn reply_statfs(reply: ReplyStatfs, usage: Result<Usage, Errno>) {
    match usage {
        Ok(usage) => {
            let block = u64::from(BLOCK_SIZE);
            let (total, free) = (usage.total / block, usage.available / block);
            let names = u32::try_from(NAME_LEN_MAX).expect("255 fits");
            let inodes = usage.inodes_available;
            reply.statfs(
                total, free, free, inodes, inodes, BLOCK_SIZE, names, BLOCK_SIZE,
            );
        }
        Err(errno) => reply.error(refused(errno)),
    }
}

/// Flags of an open that goes through the daemon, past the page cache or not, or through to a file:
/// that one takes no page cache.
pub(crate) fn fopen_flags(opened: &Opened) -> FopenFlags {
    let keep = match opened.way {
        Way::Through => FopenFlags::empty(),
        Way::Cached => FopenFlags::FOPEN_KEEP_CACHE,
        // What the page cache has of the file already, others go on reading.
        Way::Direct => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_KEEP_CACHE,
    };
    // What can't have been written needs no word when it is closed.
    let flush = if opened.writable {
        FopenFlags::empty()
    } else {
        FopenFlags::FOPEN_NOFLUSH
    };
    keep | flush
}
