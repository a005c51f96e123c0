//! What must be there before a directory can be mounted on, said so that a newcomer can act.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The capability to mount, by its number in `capability.h`.
const CAP_SYS_ADMIN: u32 = 21;

/// Makes the directory if it is missing and checks that this process can mount.
///
/// A dead mount of an earlier run passes: the mount replaces it.
pub(crate) fn prepare(dir: &Path) -> Result<()> {
    let cannot = || format!("cannot mount {}", dir.display());
    if !Path::new("/dev/fuse").exists() {
        bail!(
            "{}: /dev/fuse is missing. Load it with: sudo modprobe fuse",
            cannot()
        );
    }
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    if !may_mount(&status) {
        bail!(
            "{}: only root can mount. Run it with sudo, or without --mount",
            cannot()
        );
    }
    match fs::metadata(dir) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).with_context(cannot)
        }
        Ok(found) if !found.is_dir() => bail!("{}: it is not a directory", cannot()),
        // Anything else is the mount's to judge, ENOTCONN of a dead mount above all.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether a process may mount, by its `/proc/self/status`.
fn may_mount(status: &str) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    effective.is_some_and(|bits| bits >> CAP_SYS_ADMIN & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_made_and_a_file_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let missing = temp.path().join("a/b");
        let file = temp.path().join("f");
        fs::write(&file, "").unwrap();
        // Where the machine can't mount at all, that is what the error is about.
        if prepare(temp.path()).is_ok() {
            prepare(&missing).unwrap();
            assert!(missing.is_dir());
            let err = prepare(&file).unwrap_err().to_string();
            assert!(err.contains("not a directory"), "{err}");
        }
    }

    #[test]
    fn root_may_mount_and_an_ordinary_user_may_not() {
        assert!(may_mount("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(may_mount("CapEff:\t0000000000200000\n"));
        assert!(!may_mount("CapEff:\t0000000000000000\n"));
        assert!(!may_mount("CapEff:\t000001ffffdfffff\n"));
        assert!(!may_mount(""));
    }
}
