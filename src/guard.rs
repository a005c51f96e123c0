//! A second process that looks after the mount, for the case that this one is killed.
//!
//! The kernel ends a FUSE connection when the last descriptor of it is closed. A thread that was
//! telling the kernel to forget a name, while a program held the name's directory and waited for
//! us, is waiting for that program, and that program for an answer that never comes: killed, this
//! process would not end, nor would the program. Aborting the connection frees both; somebody else
//! has to do it: `Documentation/filesystems/fuse/fuse.rst`, "Aborting a filesystem connection".

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::linux::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Where the kernel has its connections' controls.
const CONTROL: &str = "/sys/fs/fuse/connections";
/// How often the process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// The guard of a mount; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    /// Starts the guard of what is mounted at `mountpoint` by this process.
    pub(crate) fn start(mountpoint: &Path) -> Result<Self> {
        let device = fs::metadata(mountpoint)
            .with_context(|| format!("stat {}", mountpoint.display()))?
            .st_dev();
        let program = std::env::current_exe().context("find this program")?;
        let child = Command::new(program)
            .arg("guard")
            .arg(std::process::id().to_string())
            .arg(minor(device).to_string())
            .stdin(Stdio::null())
            // Ctrl-C is for the server; this one ends when the server has.
            .process_group(0)
            .spawn()
            .context("start the guard of the mount")?;
        Ok(Self(child))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(err) = ended {
            tracing::warn!(%err, "the guard of the mount could not be ended");
        }
    }
}

/// Minor number of a device: what the kernel calls the connection. See `makedev(3)`.
fn minor(device: u64) -> u64 {
    device & 0xff | device >> 12 & 0xffff_ff00
}

/// Waits until the process is gone, or as good as gone, and aborts the connection.
///
/// # Errors
/// If there is no such process or no such connection.
pub(crate) fn watch(process: u32, connection: u64) -> Result<()> {
    let mut abort = open_control(connection)?;
    let Some(begun) = began_at(process)? else {
        bail!("no process {process}");
    };
    while began_at(process)? == Some(begun) {
        std::thread::sleep(LOOK_EVERY);
    }
    match abort.write_all(b"1") {
        // The connection has ended by itself.
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.context("abort the connection of the mount"),
    }
}

/// Opens the control of a connection; makes the controls visible if they are not.
fn open_control(connection: u64) -> Result<File> {
    let path = format!("{CONTROL}/{connection}/abort");
    if !Path::new(&path).exists() {
        let mut mount = Command::new("mount");
        let done = mount.args(["-t", "fusectl", "none", CONTROL]).status();
        let done = done.with_context(|| format!("mount {CONTROL}"))?;
        if !done.success() {
            bail!("mount {CONTROL}: {done}");
        }
    }
    let file = File::options().write(true).open(&path);
    file.with_context(|| format!("open {path}"))
}

/// When a process began; `None` if its main thread has ended. See `proc_pid_stat(5)`.
fn began_at(process: u32) -> Result<Option<u64>> {
    let path = format!("/proc/{process}/stat");
    match fs::read_to_string(&path) {
        Ok(stat) => Ok(parse_stat(&stat)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) if err.raw_os_error() == Some(ESRCH) => Ok(None),
        Err(err) => Err(err).with_context(|| format!("read {path}")),
    }
}

/// No such process: what a read of `/proc` says of one that ends at that moment.
const ESRCH: i32 = 3;

fn parse_stat(stat: &str) -> Option<u64> {
    // The name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    let begun = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(begun)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_what_is_left_of_it() {
        let stat = |state: &str| {
            format!("42 (a) b) {state} 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0 0\n")
        };
        assert_eq!(parse_stat(&stat("S")), Some(777));
        assert_eq!(parse_stat(&stat("D")), Some(777));
        assert_eq!(parse_stat(&stat("Z")), None);
        assert!(began_at(std::process::id()).unwrap().is_some());
        assert_eq!(began_at(u32::MAX).unwrap(), None);
    }

    #[test]
    fn minor_numbers_are_put_together_of_both_their_parts() {
        assert_eq!(minor(0x2d), 0x2d);
        // makedev(0, 0x12345) is 0x12300045.
        assert_eq!(minor(0x1230_0045), 0x12345);
    }
}
