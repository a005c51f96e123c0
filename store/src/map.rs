//! Memory maps of data files, and of a cache's files.
//!
//! Bytes go from the page cache to the socket without a copy in this process. Two things make
//! that safe:
//!
//! # Invariants
//! 1. No byte that is handed out changes while somebody holds it, and no file shrinks below it; a
//!    lock on the directory keeps other processes of ours out. A data file's bytes never change at
//!    all below its published length. A cache's block is overwritten or given back only when nobody
//!    holds a slice of it.
//! 2. A page that the disk can't deliver raises SIGBUS. [`populate`](Map::populate) finds such a
//!    page first, as an error. For the moment in between, the handler here puts a page of zeros
//!    under the fault; the CRC of what is there then fails, and [`faulted`](Map::faulted) says that
//!    the map is not to be used any more.
#![expect(unsafe_code, reason = "memory maps, and the signal handler they need")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use memmap2::{Advice, Mmap, MmapOptions, UncheckedAdvice};

/// Most maps that the SIGBUS handler can know at one time.
const GUARDED_MAX: usize = 4096;
/// Size of a page in bytes.
const PAGE_SIZE: usize = 4096;

/// Pages that the kernel is asked about at a time.
const PAGES_AT_ONCE: usize = 256;

/// What the kernel says of pages that follow each other.
struct PageBytes {
    bytes: [u8; PAGES_AT_ONCE],
    pages: usize,
}

impl std::ops::Deref for PageBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.pages]
    }
}

/// A data file, mapped from its start.
#[derive(Debug)]
pub struct Map {
    map: Mmap,
    slot: Option<usize>,
}

impl Map {
    /// Maps the first `len` bytes of `file`, which must be as long.
    ///
    /// Who maps a file keeps Invariant 1 for it.
    ///
    /// # Errors
    /// That of `mmap(2)`.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        install_handler();
        // SAFETY: Invariant 1: nobody changes or cuts these bytes while the map is there.
        let map = unsafe { MmapOptions::new().len(len).map(file)? };
        // Objects are read whole or in ranges of their own; the kernel's guess would only be in the
        // way.
        let slot = guard(map.as_ptr().addr(), len);
        Ok(Self { map, slot })
    }

    /// Whether all pages of a range are in memory.
    pub fn is_resident(&self, offset: usize, len: usize) -> bool {
        let start = offset / PAGE_SIZE * PAGE_SIZE;
        let end = (offset + len).min(self.map.len());
        (start..end).step_by(PAGES_AT_ONCE * PAGE_SIZE).all(|at| {
            self.resident_pages(at, end)
                .iter()
                .all(|page| page & 1 == 1)
        })
    }

    /// The pages of a range that are not in memory, as ranges of bytes of whole pages.
    pub fn absent(&self, offset: usize, len: usize) -> Vec<Range<usize>> {
        let start = offset / PAGE_SIZE * PAGE_SIZE;
        let end = (offset + len).min(self.map.len());
        let mut absent: Vec<Range<usize>> = Vec::new();
        for at in (start..end).step_by(PAGES_AT_ONCE * PAGE_SIZE) {
            for (index, page) in self.resident_pages(at, end).iter().enumerate() {
                let page_at = at + index * PAGE_SIZE;
                match absent.last_mut() {
                    _ if page & 1 == 1 => {}
                    Some(last) if last.end == page_at => last.end += PAGE_SIZE,
                    _ => absent.push(page_at..page_at + PAGE_SIZE),
                }
            }
        }
        absent
    }

    /// A byte for each page from `at`, which begins one, to `end`, at most [`PAGES_AT_ONCE`]; the
    /// lowest bit says whether it is in memory.
    fn resident_pages(&self, at: usize, end: usize) -> PageBytes {
        let pages = (end - at).div_ceil(PAGE_SIZE).min(PAGES_AT_ONCE);
        let mut bytes = PageBytes {
            bytes: [0; PAGES_AT_ONCE],
            pages,
        };
        let address = self.map[at..].as_ptr();
        // SAFETY: the range lies in the map, page-aligned, and there is a byte for each page. After
        // a failure they say that none is in memory.
        let _: libc::c_int = unsafe {
            libc::mincore(
                address.cast_mut().cast(),
                pages * PAGE_SIZE,
                bytes.bytes.as_mut_ptr(),
            )
        };
        bytes
    }

    /// Has the kernel begin to read a range into memory, as a whole; does not wait for it.
    ///
    /// # Errors
    /// That of `madvise(2)`.
    pub fn read_ahead(&self, offset: usize, len: usize) -> io::Result<()> {
        self.map.advise_range(Advice::WillNeed, offset, len)
    }

    /// Brings a range into memory; blocks.
    ///
    /// # Errors
    /// What the disk said; a kernel without `MADV_POPULATE_READ` (before 5.14) is asked to read
    /// ahead.
    pub fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        match self.map.advise_range(Advice::PopulateRead, offset, len) {
            Err(err) if err.raw_os_error() == Some(libc::EINVAL) => {
                self.map.advise_range(Advice::WillNeed, offset, len)
            }
            Err(err) if err.raw_os_error() == Some(libc::EFAULT) => {
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
            done => done,
        }
    }

    /// Lets the kernel take the pages of a range out of this process, not out of memory.
    ///
    /// # Errors
    /// That of `madvise(2)`.
    pub fn release(&self, offset: usize, len: usize) -> io::Result<()> {
        // SAFETY: a shared file map is read back from the file, so no byte is lost.
        unsafe {
            self.map
                .unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len)
        }
    }

    /// Whether a page could not be had, and zeros were read in its place.
    pub fn faulted(&self) -> bool {
        self.slot
            .is_some_and(|slot| GUARDED[slot].faulted.load(Ordering::Acquire))
    }

    /// Bytes of the map.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty map")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The whole map as bytes that keep it alive; slices of them cost a counter each.
    pub fn into_bytes(self: std::sync::Arc<Self>) -> Bytes {
        struct Owner(std::sync::Arc<Map>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0.map
            }
        }
        Bytes::from_owner(Owner(self))
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            // From here a fault in the range is not ours; the map itself is dropped after this.
            GUARDED[slot].len.store(0, Ordering::Release);
            GUARDED[slot].start.store(0, Ordering::Release);
        }
    }
}

/// An address range in which SIGBUS means a page the disk could not deliver.
struct Guarded {
    start: AtomicUsize,
    len: AtomicUsize,
    faulted: AtomicBool,
}

static GUARDED: [Guarded; GUARDED_MAX] = [const {
    Guarded {
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        faulted: AtomicBool::new(false),
    }
}; GUARDED_MAX];

/// Registers a range; `None` when the table is full, and SIGBUS in it ends the process as it would
/// anyway.
fn guard(start: usize, len: usize) -> Option<usize> {
    for (slot, guarded) in GUARDED.iter().enumerate() {
        if guarded
            .start
            .compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            guarded.faulted.store(false, Ordering::Release);
            guarded.len.store(len, Ordering::Release);
            return Some(slot);
        }
    }
    tracing::warn!(
        GUARDED_MAX,
        "a map is not guarded against disk errors: too many maps"
    );
    None
}

fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_sigbus as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: `on_sigbus` calls only what is safe in a signal handler.
        let done =
            unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
        if done != 0 {
            tracing::warn!(
                "no SIGBUS handler: a disk error in a mapped file would end the process"
            );
        }
    });
}

/// Puts a page of zeros under a fault in a guarded range; any other SIGBUS does what it always
/// does.
extern "C" fn on_sigbus(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel gives a valid `info` to a handler with SA_SIGINFO.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS is a signal that has an address.
    let address = unsafe { info.si_addr() }.addr();
    let ours = GUARDED.iter().find(|guarded| {
        let start = guarded.start.load(Ordering::Acquire);
        start != 0 && address.wrapping_sub(start) < guarded.len.load(Ordering::Acquire)
    });
    if let Some(guarded) = ours {
        guarded.faulted.store(true, Ordering::Release);
        let page = (address & !(PAGE_SIZE - 1)) as *mut libc::c_void;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the page lies in a map of ours that only ever is read; replacing it with zeros
        // leaves every reference valid.
        let mapped = unsafe { libc::mmap(page, PAGE_SIZE, libc::PROT_READ, flags, -1, 0) };
        if mapped == page {
            return;
        }
    }
    // SAFETY: resets the signal to its default; the access is repeated and ends the process.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn file_of(len: usize) -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), vec![7; len]).unwrap();
        let file = File::options()
            .read(true)
            .write(true)
            .open(dir.path().join("f"))
            .unwrap();
        (dir, file)
    }

    #[test]
    fn a_populated_range_is_resident_and_right() {
        let (_dir, file) = file_of(3 * PAGE_SIZE + 5);
        let map = Arc::new(Map::new(&file, 3 * PAGE_SIZE + 5).unwrap());
        map.populate(5000, 7000).unwrap();
        assert!(map.is_resident(5000, 7000));
        assert_eq!(map.len(), 3 * PAGE_SIZE + 5);
        assert!(map.into_bytes().iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_page_that_is_gone_reads_as_zeros_and_does_not_end_the_process() {
        let (_dir, file) = file_of(2 * PAGE_SIZE);
        let map = Arc::new(Map::new(&file, 2 * PAGE_SIZE).unwrap());
        // What a disk error looks like from here: the page can't be had.
        file.set_len(PAGE_SIZE as u64).unwrap();
        assert!(map.populate(PAGE_SIZE, PAGE_SIZE).is_err());
        let bytes = Arc::clone(&map).into_bytes();
        assert_eq!(bytes[10], 7);
        assert!(!map.faulted());
        assert_eq!(bytes[PAGE_SIZE + 10], 0);
        assert!(map.faulted());
    }
}
