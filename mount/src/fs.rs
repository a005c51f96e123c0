//! `impl Filesystem`: decode, call, reply; no decisions.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::attr::{Change, timestamp};
use crate::dir::{Room, Tells};
use crate::errno::Errno;
use crate::negotiate::negotiate;
use crate::opening::OpenFlags;
use crate::path::name;
use crate::rename::{At, mode};
use crate::reply::{
    GENERATION, NOTHING, attr_of, caller, fopen_flags, kind_of, refused, reply_attr, reply_empty,
    reply_entry, reply_statfs, reply_xattr,
};
use crate::session::Backing;
use crate::view::View;
use crate::write::Privileges;

/// The file system as `fuser` wants it.
#[derive(Debug)]
pub(crate) struct Fs {
    view: Arc<View>,
}

impl Fs {
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self { view }
    }

    /// How long the kernel may believe what it is told.
    fn ttl(&self) -> Duration {
        self.view.files.answer_age_max()
    }
}

impl Filesystem for Fs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(&self.view, config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        match name(child).and_then(|name| self.view.lookup(parent.0, name)) {
            Ok(Some(found)) => reply.entry(&self.ttl(), &attr_of(&found), GENERATION),
            Ok(None) => reply.entry(&self.ttl(), &NOTHING, GENERATION),
            // A name that no key can hold is a name of nothing.
            Err(Errno(libc::EILSEQ | libc::EINVAL)) => reply.error(fuser::Errno::ENOENT),
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.view.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(reply, self.ttl(), self.view.attributes(ino.0));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let time = |at| match at {
            TimeOrNow::SpecificTime(at) => timestamp(at),
            TimeOrNow::Now => self.view.now(),
        };
        let change = Change {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(time),
            mtime: mtime.map(time),
        };
        reply_attr(
            reply,
            self.ttl(),
            self.view.set_attributes(ino.0, &change, caller(req)),
        );
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.view.read_link(ino.0) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let made = name(child).and_then(|name| {
            self.view
                .make_special(parent.0, name, mode, rdev, caller(req))
        });
        reply_entry(reply, self.ttl(), made);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = name(child)
            .and_then(|name| self.view.make_directory(parent.0, name, mode, caller(req)));
        reply_entry(reply, self.ttl(), made);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        reply_empty(
            reply,
            name(child).and_then(|name| self.view.unlink(parent.0, name)),
        );
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        reply_empty(
            reply,
            name(child).and_then(|name| self.view.remove_directory(parent.0, name)),
        );
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let target = target.as_os_str().as_bytes();
        let made =
            name(link_name).and_then(|name| self.view.symlink(parent.0, name, target, caller(req)));
        reply_entry(reply, self.ttl(), made);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        child: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = mode(flags.bits()).and_then(|mode| {
            let from = At {
                dir: parent.0,
                name: name(child)?,
            };
            let to = At {
                dir: newparent.0,
                name: name(newname)?,
            };
            self.view.rename(from, to, mode)
        });
        reply_empty(reply, done);
    }

    fn link(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _newparent: INodeNo,
        _newname: &OsStr,
        reply: ReplyEntry,
    ) {
        reply.error(fuser::Errno::EPERM);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: fuser::OpenFlags, reply: ReplyOpen) {
        let register = |file: &File| reply.open_backing(file).map(Backing);
        match self
            .view
            .open(ino.0, OpenFlags(flags.0), caller(req), &register)
        {
            Ok(opened) => {
                let (fh, flags) = (FileHandle(opened.fh), fopen_flags(&opened));
                match &opened.through {
                    Some(through) => reply.opened_passthrough(fh, flags, &through.backing.0),
                    None => reply.opened(fh, flags),
                }
            }
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let register = |file: &File| reply.open_backing(file).map(Backing);
        let created = name(child).and_then(|name| {
            self.view.create(
                parent.0,
                name,
                mode,
                OpenFlags(flags),
                caller(req),
                &register,
            )
        });
        match created {
            Ok((found, opened)) => {
                let (attr, fh) = (attr_of(&found), FileHandle(opened.fh));
                let flags = fopen_flags(&opened);
                match &opened.through {
                    Some(through) => {
                        let backing = &through.backing.0;
                        reply.created_passthrough(
                            &self.ttl(),
                            &attr,
                            GENERATION,
                            fh,
                            flags,
                            backing,
                        );
                    }
                    None => reply.created(&self.ttl(), &attr, GENERATION, fh, flags),
                }
            }
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.view.read(fh.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let privileges = if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            Privileges::Drop
        } else {
            Privileges::Keep
        };
        match self.view.write(fh.0, offset, data, privileges) {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.view.flush(fh.0));
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: fuser::OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.view.release(fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.view.sync(fh.0));
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.view.files.sync().map_err(Errno::from));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: fuser::OpenFlags, reply: ReplyOpen) {
        reply.opened(
            FileHandle(self.view.open_directory(ino.0)),
            FopenFlags::empty(),
        );
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: fuser::OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.view.close_directory(fh.0);
        reply.ok();
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let read = self
            .view
            .read_directory(fh.0, offset, Tells::Names, &mut |entry| {
                let kind = kind_of(entry.found.attr.kind());
                let ino = INodeNo(entry.found.ino);
                if reply.add(ino, entry.offset, kind, entry.name) {
                    Room::Full
                } else {
                    Room::Left
                }
            });
        match read {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let read = self
            .view
            .read_directory(fh.0, offset, Tells::Inodes, &mut |entry| {
                let attr = attr_of(&entry.found);
                let full = reply.add(
                    attr.ino,
                    entry.offset,
                    entry.name,
                    &self.ttl(),
                    &attr,
                    GENERATION,
                );
                if full { Room::Full } else { Room::Left }
            });
        match read {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply_statfs(reply, self.view.files.usage().map_err(Errno::from));
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.view.set_xattr(ino.0, name, value, flags));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, self.view.xattr(ino.0, name));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, self.view.xattr_names(ino.0));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(reply, self.view.remove_xattr(ino.0, name));
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // Many programs ask each file whether it is a terminal.
        reply.error(fuser::Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        reply_empty(reply, self.view.allocate(fh.0, offset, length, mode));
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.view.seek(fh.0, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(refused(errno)),
        }
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        match self
            .view
            .copy_range((fh_in.0, offset_in), (fh_out.0, offset_out), len)
        {
            Ok(copied) => reply.written(copied),
            Err(errno) => reply.error(refused(errno)),
        }
    }
}
