//! What the kernel is asked for when the mount begins.

use fuser::{InitFlags, KernelConfig};

use crate::passthrough::Support;
use crate::sys::{self, FileSystem};
use crate::view::View;

/// Requests that the kernel may have under way in the background.
const BACKGROUND_MAX: u16 = 128;
/// Largest write, in bytes; the kernel does not send more without a system-wide setting.
const WRITE_SIZE_MAX: u32 = 1 << 20;
/// What the kernel is asked for, where it has it. Not among it, on purpose: the write-back cache
/// (excludes passing through), locks (the kernel's own are right on one host) and extended
/// arguments of `setxattr` (`fuser` 0.18 panics on them).
///
/// That set-user-id bits are taken away here (`KILLPRIV_V2`) lets the kernel remember of a file
/// that it has no `security.capability`; without it each write would ask, as there are other
/// extended attributes. Files that are read past the page cache can be mapped all the same
/// (`ALLOW_MMAP`).
const WANTED: [InitFlags; 7] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
];

/// Asks the kernel for what the mount can use, and notes what it has.
pub(crate) fn negotiate(view: &View, config: &mut KernelConfig) {
    for wanted in WANTED {
        if let Err(missing) = config.add_capabilities(wanted) {
            tracing::debug!(?missing, "the kernel lacks a capability");
        }
    }
    let support = ask_for_passthrough(view, config);
    view.set_support(support);
    if support == Support::No {
        tracing::warn!(
            "the kernel can't pass opens through to files (Linux 6.9 can): all reads and writes go through forebay"
        );
    }
    if config.set_max_background(BACKGROUND_MAX).is_err()
        || config.set_max_write(WRITE_SIZE_MAX).is_err()
    {
        tracing::warn!("the kernel's limits on requests stay as they were");
    }
}

/// Whether the kernel can pass opens through; it has to know how deep file systems are stacked.
fn ask_for_passthrough(view: &View, config: &mut KernelConfig) -> Support {
    let staging = view.files.stage_file(None);
    let below = staging
        .ok()
        .and_then(|staging| sys::file_system(staging.file()).ok());
    let depth = if below == Some(FileSystem::Overlay) {
        2
    } else {
        1
    };
    let asked = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        && config.set_max_stack_depth(depth).is_ok();
    if asked { Support::Yes } else { Support::No }
}
