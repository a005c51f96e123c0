//! Mounts that are in use when the server ends, and data where the kernel can't pass opens through.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Home, Random, is_mounted};

/// Long enough for a debug build on a busy machine; what hangs, hangs for longer.
const END_MAX: Duration = Duration::from_secs(20);

/// Stands in a directory of the mount and writes to an open file in it, over and over.
const BUSY: &str = "cd \"$0\" && exec 3>open && echo begun >&3 && echo text >closed || exit 1
while echo more >&3; do :; done 2>/dev/null
exec sleep 600";

/// A process that uses a mount until it is dropped.
struct Busy(Child);

impl Busy {
    /// Starts it, and waits until it is at work.
    fn start(dir: &Path) -> Self {
        let mut command = Command::new("sh");
        command.arg("-c").arg(BUSY).arg(dir).stdin(Stdio::null());
        let busy = Self(command.spawn().unwrap());
        let begun = Instant::now();
        let at_work = || fs::metadata(dir.join("open")).is_ok_and(|found| found.len() > 1000);
        while !at_work() {
            assert!(begun.elapsed() < END_MAX, "it does not get to work");
            std::thread::sleep(Duration::from_millis(5));
        }
        busy
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What [`BUSY`] wrote to its open file, up to some moment.
fn assert_begun(body: &[u8]) {
    let rest = body.strip_prefix(b"begun\n").expect("its first line");
    let more = b"more\n".iter().cycle();
    assert!(
        rest.iter().zip(more).all(|(got, want)| got == want),
        "{rest:?}"
    );
}

#[test]
fn a_server_that_is_told_to_stop_publishes_and_leaves_a_mount_in_use() {
    let home = Home::new();
    let server = home.serve_and_mount();
    server.s3().create_bucket("bkt");
    let mnt = server.mnt().to_owned();
    let busy = Busy::start(&mnt.join("bkt"));
    let told = Instant::now();
    let (status, stderr) = server.stop();
    assert!(status.success(), "{status}\n{stderr}");
    assert!(told.elapsed() < END_MAX, "{:?}", told.elapsed());
    assert!(!is_mounted(&mnt));
    // The process that stood in the old mount is no hindrance to the next one.
    let server = home.serve_and_mount();
    let s3 = server.s3();
    assert_eq!(s3.get("bkt", "closed").unwrap().expect(200).body, b"text\n");
    assert_eq!(fs::read(mnt.join("bkt/closed")).unwrap(), b"text\n");
    let open = s3.get("bkt", "open").unwrap().expect(200).body;
    assert_begun(&open);
    assert!(fs::read(mnt.join("bkt/open")).unwrap() == open);
    drop(busy);
    server.stop_ok();
    home.run_ok(&["fsck"]);
    home.run_ok(&["scrub"]);
}

#[test]
fn the_mount_of_a_killed_server_is_replaced_under_those_who_use_it() {
    let home = Home::new();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    let large = Random::new(1).bytes(1 << 20);
    s3.put("bkt", "large", &large).unwrap().expect(200);
    let dir = server.mnt().join("bkt");
    let busy = Busy::start(&dir);
    let mut reader = File::open(dir.join("large")).unwrap();
    let mut writer = File::create(dir.join("synced")).unwrap();
    writer.write_all(b"synced").unwrap();
    writer.sync_all().unwrap();
    writer.write_all(b", and more").unwrap();
    server.kill();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    assert_eq!(fs::read(dir.join("synced")).unwrap(), b"synced");
    assert_eq!(s3.get("bkt", "synced").unwrap().expect(200).body, b"synced");
    assert_eq!(fs::read(dir.join("closed")).unwrap(), b"text\n");
    assert!(fs::read(dir.join("large")).unwrap() == large);
    // What was open belongs to a mount that is gone; using it must end, well or not.
    let mut old = Vec::new();
    let read = reader.seek(SeekFrom::Start(0)).is_ok() && reader.read_to_end(&mut old).is_ok();
    assert!(!read || old == large);
    writer.sync_all().unwrap_err();
    drop((reader, writer, busy));
    assert_eq!(fs::read(dir.join("synced")).unwrap(), b"synced");
    server.stop_ok();
    home.run_ok(&["fsck"]);
}

/// An overlay at a path, its layers in memory; gone when it is dropped.
struct Overlay {
    /// What was mounted, in this order.
    mounted: Vec<PathBuf>,
    layers: PathBuf,
}

impl Overlay {
    /// With `height` overlays on one another.
    fn mount(home: &Home, path: PathBuf, height: usize) -> Self {
        let layers = home.path().join("layers");
        fs::create_dir(&layers).unwrap();
        fs::create_dir(&path).unwrap();
        run("mount", &["-t", "tmpfs", "tmpfs", text(&layers)]);
        let mut overlay = Self {
            mounted: vec![layers.clone()],
            layers,
        };
        let mut lower = overlay.dir("lower");
        for level in 1..height {
            let at = overlay.dir(&format!("below-{level}"));
            overlay.add(&lower, at.clone());
            lower = at;
        }
        overlay.add(&lower, path);
        overlay
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.layers.join(name);
        fs::create_dir(&dir).unwrap();
        dir
    }

    fn add(&mut self, lower: &Path, at: PathBuf) {
        let number = self.mounted.len();
        let (upper, work) = (
            self.dir(&format!("upper-{number}")),
            self.dir(&format!("work-{number}")),
        );
        let (lower, upper, work) = (text(lower), text(&upper), text(&work));
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        run(
            "mount",
            &["-t", "overlay", "overlay", "-o", &options, text(&at)],
        );
        self.mounted.push(at);
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            run("umount", &["-l", text(path)]);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}: {status}");
}

/// Reads and writes on both faces of a server with its data there; what it said.
fn use_both_faces(home: &Home) -> String {
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    let mut random = Random::new(1);
    let mut body = random.bytes((1 << 20) + 17);
    s3.put("bkt", "by-s3", &body).unwrap().expect(200);
    let path = server.mnt().join("bkt/by-s3");
    assert!(fs::read(&path).unwrap() == body);
    let reader = File::open(&path).unwrap();
    let writer = File::options().write(true).open(&path).unwrap();
    writer.write_all_at(b"!", 100_000).unwrap();
    body[100_000] = b'!';
    assert!(fs::read(&path).unwrap() == body);
    writer.sync_all().unwrap();
    assert!(s3.get("bkt", "by-s3").unwrap().expect(200).body == body);
    drop((reader, writer));
    assert!(fs::read(&path).unwrap() == body);
    let made = random.bytes(3 << 20);
    let path = server.mnt().join("bkt/by-mount");
    fs::write(&path, &made).unwrap();
    assert!(fs::read(&path).unwrap() == made);
    assert!(s3.get("bkt", "by-mount").unwrap().expect(200).body == made);
    let (status, stderr) = server.stop();
    assert!(status.success(), "{status}\n{stderr}");
    home.run_ok(&["fsck"]);
    stderr
}

/// What the log says when opens can't be passed through, which programs do not notice.
const NOT_THROUGH: &str = "the kernel can't pass opens through";

/// As in a container whose own directories are an overlay.
#[test]
fn data_may_lie_on_an_overlay() {
    let home = Home::new();
    let _overlay = Overlay::mount(&home, home.data(), 1);
    let said = use_both_faces(&home);
    assert!(!said.contains(NOT_THROUGH), "{said}");
}

/// The kernel refuses, at the first open, to pass through to a file system on a stack of two.
#[test]
fn where_opens_cannot_pass_through_all_goes_by_the_server() {
    let home = Home::new();
    let _overlay = Overlay::mount(&home, home.data(), 2);
    let said = use_both_faces(&home);
    assert_eq!(said.matches(NOT_THROUGH).count(), 1, "{said}");
}
