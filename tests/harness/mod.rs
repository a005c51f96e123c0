//! Starts the real program on a free port with a directory of its own, and cleans up after it.
//!
//! # Invariants
//! 1. Whatever a test does, its server ends and its mount is gone when the [`Server`] is dropped.

pub(crate) mod s3;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use s3::S3;

/// The program under test.
pub(crate) const FOREBAY: &str = env!("CARGO_BIN_EXE_forebay");
/// The root key that the harness gives every server.
pub(crate) const ACCESS_KEY: &str = "FBTESTROOT";
/// Its secret.
pub(crate) const SECRET_KEY: &str = "test-root-secret";
/// Debug builds on a busy machine take their time; nothing passes by waiting longer.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// A directory with a store and a place to mount it.
#[derive(Debug)]
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-test-")
            .tempdir()
            .unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn mnt(&self) -> PathBuf {
        self.path().join("mnt")
    }

    /// `forebay --data … ARGS`, as a user would run it, without the user's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(FOREBAY);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("FOREBAY_") || name.starts_with("AWS_") {
                command.env_remove(&*name);
            }
        }
        command
            .arg("--data")
            .arg(self.data())
            .args(args)
            .current_dir(self.path())
            .env("FOREBAY_ROOT_ACCESS_KEY", ACCESS_KEY)
            .env("FOREBAY_ROOT_SECRET_KEY", SECRET_KEY);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs it, and says what it printed if it did not succeed.
    pub(crate) fn run_ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "forebay {args:?}: {}\n{stderr}",
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// A server with S3 alone.
    pub(crate) fn serve(&self) -> Server {
        Server::start(self.command(&["serve", "--listen", "127.0.0.1:0"]), None)
    }

    /// A server with both faces.
    pub(crate) fn serve_and_mount(&self) -> Server {
        let mnt = self.mnt();
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--mount"]);
        command.arg(&mnt);
        Server::start(command, Some(mnt))
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    mnt: Option<PathBuf>,
    endpoint: String,
    /// What it printed until it was ready.
    pub(crate) banner: String,
    stderr: Option<JoinHandle<String>>,
}

impl Server {
    /// Starts `command` and waits until it says that it is ready.
    pub(crate) fn start(mut command: Command, mnt: Option<PathBuf>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = collect(child.stderr.take().unwrap());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, receiver) = mpsc::channel();
        // Reads on after readiness, so that the server never meets a closed pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The receiver has what it waited for and is gone.
                drop(sender.send(line));
            }
        });
        let mut server = Self {
            child,
            mnt,
            endpoint: String::new(),
            banner: String::new(),
            stderr: Some(stderr),
        };
        loop {
            let Ok(line) = receiver.recv_timeout(WAIT_MAX) else {
                let banner = server.banner.clone();
                let (_, stderr) = server.kill();
                panic!("the server did not get ready\n{banner}{stderr}");
            };
            if let Some((_, url)) = line.split_once("http://") {
                let host = url.split_whitespace().next().unwrap_or_default();
                server.endpoint = format!("http://{host}");
            }
            server.banner.push_str(&line);
            server.banner.push('\n');
            if line.starts_with("ready") {
                return server;
            }
        }
    }

    pub(crate) fn s3(&self) -> S3 {
        S3::new(&self.endpoint, ACCESS_KEY, SECRET_KEY)
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn mnt(&self) -> &Path {
        self.mnt.as_deref().expect("a server with a mount")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and what became of it: the exit status and standard error.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        self.wait()
    }

    /// SIGTERM, after which the server must have exited with 0.
    pub(crate) fn stop_ok(self) {
        let (status, stderr) = self.stop();
        assert!(status.success(), "{status}\n{stderr}");
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> (ExitStatus, String) {
        self.child.kill().unwrap();
        self.wait()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let status = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(status.success(), "kill -s {name} {pid}");
    }

    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > WAIT_MAX {
                self.child.kill().unwrap();
                // A killed server that does not go has a thread in the kernel that waits for a
                // process that waits for the mount; ending the connection frees them both.
                if let Some(mnt) = &self.mnt {
                    abort_connection(mnt);
                }
                panic!("the server did not end within {WAIT_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let stderr = self.stderr.take().map(|thread| thread.join().unwrap());
        (status, stderr.unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if let Some(mnt) = &self.mnt {
            unmount(mnt);
        }
        if std::thread::panicking()
            && let Some(Ok(stderr)) = self.stderr.take().map(JoinHandle::join)
        {
            eprintln!("--- standard error of the server ---\n{stderr}");
        }
    }
}

/// Reads a pipe to its end, aside, so that the server never waits for it.
fn collect(mut pipe: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Whether something is mounted at `path`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let path = path.to_str().unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(path))
}

/// Ends the FUSE connection behind a mount: <https://docs.kernel.org/filesystems/fuse.html>.
fn abort_connection(mnt: &Path) {
    const CONTROL: &str = "/sys/fs/fuse/connections";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let of_mount = |fields: &Vec<&str>| Some(fields[4]) == mnt.to_str();
    let Some(device) = fields
        .filter(of_mount)
        .map(|fields| fields[2].to_owned())
        .next()
    else {
        return;
    };
    let (_, minor) = device.split_once(':').unwrap();
    let file = Path::new(CONTROL).join(minor).join("abort");
    if !file.exists() {
        let mut command = Command::new("mount");
        command.args(["-t", "fusectl", "none", CONTROL]);
        assert!(command.status().unwrap().success(), "mount {CONTROL}");
    }
    fs::write(file, "1").unwrap();
}

/// Takes away the mount of a server that was killed.
fn unmount(path: &Path) {
    if is_mounted(path) {
        let output = Command::new("umount").arg("-l").arg(path).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Numbers that look random and come again from the same seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by `FOREBAY_TEST_SEED`, or by the process id, which is printed.
    pub(crate) fn from_environment() -> Self {
        let seed = number("FOREBAY_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
        eprintln!("FOREBAY_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.take(len.div_ceil(8)).flatten().take(len).collect()
    }
}

/// A number from the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} should be a number, not {text:?}")),
    )
}
