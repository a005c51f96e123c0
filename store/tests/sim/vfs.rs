//! The index's files on the simulated disk: a `SQLite` VFS in front of the default one.
//!
//! <https://www.sqlite.org/vfs.html>. Everything is handed on to the default VFS; what changes a
//! file that lies on a [`SimDisk`](super::SimDisk) is told to that disk, and fails when it says so.
//! A file is found to be on a disk by its path. The shared memory of the write-ahead log
//! (`-shm`) is not told of: it never survives. As the default VFS does, a log is synced the first
//! time together with its directory.
#![expect(
    unsafe_code,
    reason = "a VFS is a table of C functions; those it calls get the pointers it was given"
)]

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use std::{fs, io, mem, ptr, slice};

use rusqlite::ffi;

use super::Inner;
use super::image::Change;
use super::state::{Call, NodeId, SyncCall};

/// What to open the index with.
pub(super) const NAME: &str = "forebay-sim";
const C_NAME: &CStr = c"forebay-sim";

/// The disks there are.
static DISKS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// Makes a disk known, and the VFS if it is not.
pub(super) fn register(disk: &Arc<Inner>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(register_vfs);
    let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    disks.retain(|disk| disk.strong_count() > 0);
    disks.push(Arc::downgrade(disk));
}

fn disk_of(path: &Path) -> Option<Arc<Inner>> {
    let disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut disks = disks.iter().filter_map(Weak::upgrade);
    disks.find(|disk| path.starts_with(&disk.root))
}

fn default_vfs() -> *mut ffi::sqlite3_vfs {
    // SAFETY: a null name asks for the default; ours is never registered as that.
    unsafe { ffi::sqlite3_vfs_find(ptr::null()) }
}

/// A copy of the default VFS.
fn default_methods() -> ffi::sqlite3_vfs {
    // SAFETY: the default VFS is never unregistered, and its fields may all be copied.
    unsafe { ptr::read(default_vfs()) }
}

fn register_vfs() {
    // Functions that are not replaced look at no field of the VFS that they are called with.
    let mut vfs = default_methods();
    vfs.szOsFile = c_int::try_from(mem::size_of::<ShimFile>()).expect("two pointers");
    vfs.pNext = ptr::null_mut();
    vfs.zName = C_NAME.as_ptr();
    vfs.xOpen = Some(open);
    vfs.xDelete = Some(delete);
    let vfs = Box::into_raw(Box::new(vfs));
    // SAFETY: the VFS and its name live for ever.
    let done = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    assert_eq!(done, ffi::SQLITE_OK);
}

/// The beginning of what `SQLite` allocates for a file: `szOsFile` bytes.
#[repr(C)]
struct ShimFile {
    base: ffi::sqlite3_file,
    open: *mut OpenFile,
}

struct OpenFile {
    /// The default VFS's file, `szOsFile` bytes of its; never moved.
    real: Box<[u64]>,
    methods: &'static ffi::sqlite3_io_methods,
    on_disk: Option<OnDisk>,
}

struct OnDisk {
    disk: Arc<Inner>,
    path: PathBuf,
    node: NodeId,
    /// Whether the next sync is one of its directory, too.
    sync_dir: bool,
}

impl OpenFile {
    fn real(&mut self) -> *mut ffi::sqlite3_file {
        self.real.as_mut_ptr().cast()
    }
}

/// What belongs to a file that `open` made.
fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a mut OpenFile {
    // SAFETY: `SQLite` calls our methods with files that `open` has set up, until `close`.
    let open = unsafe { (*file.cast::<ShimFile>()).open };
    // SAFETY: as above; `SQLite` uses a file from one thread at a time.
    unsafe { &mut *open }
}

fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: `SQLite` passes C strings that live across the call.
    let name = unsafe { CStr::from_ptr(name) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())))
}

/// The result code of a failure.
fn code(err: &io::Error, otherwise: c_int) -> c_int {
    if err.raw_os_error() == Some(libc::ENOSPC) {
        ffi::SQLITE_FULL
    } else {
        otherwise
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `SQLite` has allocated `szOsFile` bytes. Without methods it will not call `close`.
    unsafe { (*file).pMethods = ptr::null() };
    let path = path_of(name);
    let found = path.and_then(|path| Some((path.to_owned(), disk_of(path)?)));
    let is_new = path.is_some_and(|path| !path.exists());
    if let Some((_, disk)) = &found
        && is_new
        && let Err(err) = disk.lock().gate(Call::Create)
    {
        return code(&err, ffi::SQLITE_CANTOPEN);
    }
    let vfs = default_methods();
    let size = usize::try_from(vfs.szOsFile).expect("a size");
    let mut real = vec![0_u64; size.div_ceil(8)].into_boxed_slice();
    let real_file: *mut ffi::sqlite3_file = real.as_mut_ptr().cast();
    let call = vfs.xOpen.expect("every VFS opens files");
    // SAFETY: the arguments are those we were given, but for a file of the default VFS's size.
    let done = unsafe { call(default_vfs(), name, real_file, flags, out_flags) };
    if done != ffi::SQLITE_OK {
        return done;
    }
    // SAFETY: the default VFS has filled in the file.
    let methods = unsafe { (*real_file).pMethods };
    // SAFETY: a file that was opened has methods, and the default VFS's are static.
    let methods = unsafe { &*methods };
    let on_disk = found.map(|(path, disk)| on_disk(disk, path, flags, is_new));
    let open = Box::into_raw(Box::new(OpenFile {
        real,
        methods,
        on_disk,
    }));
    let shim = ShimFile {
        base: ffi::sqlite3_file {
            pMethods: &raw const METHODS,
        },
        open,
    };
    // SAFETY: `SQLite` has allocated `szOsFile` bytes, aligned for any type.
    unsafe { ptr::write(file.cast(), shim) };
    ffi::SQLITE_OK
}

fn on_disk(disk: Arc<Inner>, path: PathBuf, flags: c_int, is_new: bool) -> OnDisk {
    let logs =
        ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let inode = fs::metadata(&path).expect("it was just opened").ino();
    let below = disk.below_root(&path);
    let mut state = disk.lock();
    let node = if is_new {
        state.made_file(&below, inode)
    } else {
        state.opened(&below, inode)
    };
    drop(state);
    OnDisk {
        disk,
        path,
        node,
        sync_dir: flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & logs != 0,
    }
}

unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_dir: c_int,
) -> c_int {
    let path = path_of(name).expect("a file that is deleted has a name");
    let disk = disk_of(path);
    if let Some(disk) = &disk
        && path.exists()
        && let Err(err) = disk.lock().gate(Call::Remove)
    {
        return code(&err, ffi::SQLITE_IOERR_DELETE);
    }
    let call = default_methods().xDelete.expect("every VFS deletes files");
    let sync_real = if disk.is_some() { 0 } else { sync_dir };
    // SAFETY: the arguments are those we were given.
    let done = unsafe { call(default_vfs(), name, sync_real) };
    let Some(disk) = disk.filter(|_| done == ffi::SQLITE_OK) else {
        return done;
    };
    disk.lock().removed(&disk.below_root(path));
    let dir = path.parent().expect("a file lies in a directory");
    if sync_dir & 1 != 0 && disk.sync_dir(dir).is_err() {
        return ffi::SQLITE_IOERR_DIR_FSYNC;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let open: *mut OpenFile = opened(file);
    // SAFETY: `open` made it with a box, and `SQLite` closes a file once.
    let mut open = unsafe { Box::from_raw(open) };
    let call = open.methods.xClose.expect("every file is closed");
    // SAFETY: the default VFS's file is open.
    unsafe { call(open.real()) }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    len: c_int,
    at: i64,
) -> c_int {
    let open = opened(file);
    let size = usize::try_from(len).expect("a length");
    // SAFETY: `SQLite` passes `len` bytes.
    let bytes = unsafe { slice::from_raw_parts(from.cast::<u8>(), size) };
    let call = open.methods.xWrite.expect("every file is written");
    let Some(on) = &open.on_disk else {
        // SAFETY: the arguments are those we were given, for the default VFS's file.
        return unsafe { call(open.real(), from, len, at) };
    };
    let (disk, node) = (Arc::clone(&on.disk), on.node);
    let mut state = disk.lock();
    let (len, failed) = match state.gate(Call::Write) {
        Ok(()) => (len, None),
        Err(err) if state.off => return code(&err, ffi::SQLITE_IOERR_WRITE),
        // A write that fails may have got half way.
        Err(err) => (len / 2, Some(code(&err, ffi::SQLITE_IOERR_WRITE))),
    };
    // SAFETY: the arguments are those we were given, or less of the bytes.
    let done = unsafe { call(open.real(), from, len, at) };
    if done == ffi::SQLITE_OK {
        let at = u64::try_from(at).expect("an offset");
        let written = &bytes[..usize::try_from(len).expect("a length")];
        state.changed(node, Change::Write(at, written.to_vec()));
    }
    failed.unwrap_or(done)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let open = opened(file);
    let call = open.methods.xTruncate.expect("every file is cut");
    let Some(on) = &open.on_disk else {
        // SAFETY: the arguments are those we were given, for the default VFS's file.
        return unsafe { call(open.real(), size) };
    };
    let (disk, node) = (Arc::clone(&on.disk), on.node);
    let mut state = disk.lock();
    if let Err(err) = state.gate(Call::Write) {
        return code(&err, ffi::SQLITE_IOERR_TRUNCATE);
    }
    // SAFETY: as above.
    let done = unsafe { call(open.real(), size) };
    if done == ffi::SQLITE_OK {
        let size = u64::try_from(size).expect("a size");
        state.changed(node, Change::Len(size));
    }
    done
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let open = opened(file);
    let Some(on) = &mut open.on_disk else {
        let call = open.methods.xSync.expect("every file is synced");
        // SAFETY: the arguments are those we were given, for the default VFS's file.
        return unsafe { call(open.real(), flags) };
    };
    let data_only = flags & ffi::SQLITE_SYNC_DATAONLY != 0;
    let call = if data_only {
        SyncCall::Data
    } else {
        SyncCall::All
    };
    let site = on.disk.site(call, &on.path);
    if on.disk.sync_file(on.node, &site).is_err() {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    if on.sync_dir {
        let dir = on.path.parent().expect("a file lies in a directory");
        if on.disk.sync_dir(dir).is_err() {
            return ffi::SQLITE_IOERR_DIR_FSYNC;
        }
        on.sync_dir = false;
    }
    ffi::SQLITE_OK
}

/// A method that is the default VFS's own.
macro_rules! handed_on {
    ($name:ident, $method:ident, ($($arg:ident: $kind:ty),*) $(-> $answer:ty)?) => {
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file, $($arg: $kind),*) $(-> $answer)? {
            let open = opened(file);
            let call = open.methods.$method.expect("the default VFS has every method");
            // SAFETY: the arguments are those we were given, for the default VFS's file.
            unsafe { call(open.real(), $($arg),*) }
        }
    };
}

handed_on!(read, xRead, (into: *mut c_void, len: c_int, at: i64) -> c_int);
handed_on!(file_size, xFileSize, (size: *mut i64) -> c_int);
handed_on!(lock, xLock, (level: c_int) -> c_int);
handed_on!(unlock, xUnlock, (level: c_int) -> c_int);
handed_on!(check_reserved_lock, xCheckReservedLock, (found: *mut c_int) -> c_int);
handed_on!(file_control, xFileControl, (op: c_int, arg: *mut c_void) -> c_int);
handed_on!(sector_size, xSectorSize, () -> c_int);
handed_on!(device_characteristics, xDeviceCharacteristics, () -> c_int);
handed_on!(shm_map, xShmMap, (page: c_int, size: c_int, extend: c_int, at: *mut *mut c_void) -> c_int);
handed_on!(shm_lock, xShmLock, (offset: c_int, count: c_int, flags: c_int) -> c_int);
handed_on!(shm_barrier, xShmBarrier, ());
handed_on!(shm_unmap, xShmUnmap, (delete: c_int) -> c_int);

/// No memory-mapped pages (version 2): what is written through a map could not be told of.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};
