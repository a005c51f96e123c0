//! What a node's mount does at its origin: both the real program.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::harness::{ACCESS_KEY, Home, SECRET_KEY, Server};
use crate::xattr;

/// A store, and a node in front of it with a mount of all buckets.
struct Site {
    home: Home,
    store: Server,
}

impl Site {
    fn new() -> Self {
        let home = Home::new();
        let key = "0123456789abcdef".repeat(4);
        fs::write(home.path().join("cluster-key"), key).unwrap();
        let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--cluster-key-file", "cluster-key"]);
        let store = Server::start(command, None);
        Self { home, store }
    }

    fn node(&self, more: &[&str]) -> Server {
        let mnt = self.home.mnt();
        let mut command = self.home.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(["--origin", self.store.endpoint(), "--cache-dir", "cache"]);
        command
            .args(["--cluster-key-file", "cluster-key"])
            .args(more);
        command.arg("--mount").arg(&mnt);
        command
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        Server::start(command, Some(mnt))
    }

    /// How often the store has answered each call.
    fn calls(&self) -> BTreeMap<String, u64> {
        let url = format!("{}/-/metrics", self.store.endpoint());
        let text = crate::harness::s3::fetch(&url).unwrap().expect(200).text();
        let mut calls = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| line.starts_with("forebay_requests_total{"))
        {
            let call = line
                .split("op=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            let count = line
                .rsplit(' ')
                .next()
                .and_then(|count| count.parse::<u64>().ok());
            let (Some(call), Some(count)) = (call, count) else {
                continue;
            };
            *calls.entry(call.to_owned()).or_default() += count;
        }
        calls
    }

    /// How often the store answers each call while something is done.
    fn calls_of(&self, act: impl FnOnce()) -> BTreeMap<String, u64> {
        let before = self.calls();
        act();
        let mut after = self.calls();
        for (call, count) in before {
            if let Some(now) = after.get_mut(&call) {
                *now -= count;
            }
        }
        after.retain(|_, count| *count > 0);
        after
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// `rename(2)`.
#[expect(clippy::disallowed_methods, reason = "it is what is tested")]
fn rename(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::rename(from, to)
}

#[test]
fn listing_a_tree_with_its_modes_costs_pages() {
    let site = Site::new();
    let s3 = site.store.s3();
    s3.create_bucket("data");
    let node = site.node(&[]);
    let tree = node.mnt().join("data/tree");
    for dir in ["a", "b"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
        for n in 0..40 {
            let path = tree.join(dir).join(format!("{n:02}"));
            fs::write(&path, b"bytes").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        }
    }
    node.stop_ok();
    // One that knows nothing yet.
    let node = site.node(&[]);
    let calls = site.calls_of(|| {
        let listed = output(
            Command::new("ls")
                .arg("-lR")
                .arg(node.mnt().join("data/tree")),
        );
        assert_eq!(listed.matches("-rw----r--").count(), 80, "{listed}");
    });
    let looks = calls.get("HeadObject").copied().unwrap_or(0);
    let lists = calls.get("ListObjectsV2").copied().unwrap_or(0);
    assert!(looks <= 8, "{calls:?}");
    assert!(lists <= 10, "{calls:?}");
    node.stop_ok();
}

#[test]
fn renames_are_the_stores_own() {
    let site = Site::new();
    let s3 = site.store.s3();
    s3.create_bucket("data");
    let node = site.node(&[]);
    let path = |name: &str| node.mnt().join("data").join(name);
    fs::create_dir_all(path("d/e")).unwrap();
    for n in 0..30 {
        fs::write(path(&format!("d/e/{n}")), b"bytes").unwrap();
    }
    fs::write(path("old"), b"old").unwrap();
    fs::write(path("new"), b"new").unwrap();
    let calls = site.calls_of(|| {
        rename(&path("d"), &path("moved")).unwrap();
        rename(&path("new"), &path("old")).unwrap();
    });
    assert_eq!(calls.get("ForebayRename"), Some(&2), "{calls:?}");
    assert_eq!(calls.get("CopyObject"), None, "{calls:?}");
    assert_eq!(fs::read(path("old")).unwrap(), b"new");
    assert!(!path("new").exists() && !path("d").exists());
    assert_eq!(fs::read_dir(path("moved/e")).unwrap().count(), 30);
    let files = s3.list("data", "moved/e/").into_iter();
    assert_eq!(files.filter(|key| !key.ends_with('/')).count(), 30);
    // Not over what is there, and not into itself.
    for (from, to) in [("old", "moved"), ("moved", "old"), ("moved", "moved/e/x")] {
        assert!(rename(&path(from), &path(to)).is_err(), "{from} {to}");
    }
    assert_eq!(fs::read(path("moved/e/7")).unwrap(), b"bytes");
    node.stop_ok();
}

#[test]
fn buckets_are_directories_that_can_be_made_and_removed() {
    let site = Site::new();
    let s3 = site.store.s3();
    s3.create_bucket("data");
    let node = site.node(&[]);
    let path = |name: &str| node.mnt().join(name);
    fs::create_dir(path("made")).unwrap();
    s3.put("made", "k", b"bytes").unwrap().expect(200);
    assert_eq!(fs::read(path("made/k")).unwrap(), b"bytes");
    let errno = |done: std::io::Result<()>| done.unwrap_err().raw_os_error();
    assert_eq!(errno(fs::create_dir(path("made"))), Some(17), "EEXIST");
    assert_eq!(errno(fs::create_dir(path("No_Bucket"))), Some(22), "EINVAL");
    assert_eq!(errno(fs::remove_dir(path("made"))), Some(39), "ENOTEMPTY");
    fs::remove_file(path("made/k")).unwrap();
    fs::remove_dir(path("made")).unwrap();
    assert!(!path("made").exists());
    assert_eq!(s3.call("HEAD", "/made", &[], b"").unwrap().status, 404);
    node.stop_ok();
}

#[test]
fn df_shows_what_the_store_has() {
    let site = Site::new();
    site.store.s3().create_bucket("data");
    let node = site.node(&[]);
    fs::read_dir(node.mnt()).unwrap().for_each(drop);
    let sizes = |path: &Path| {
        let shown = output(Command::new("df").args(["-B1", "--output=size"]).arg(path));
        shown.lines().last().unwrap().trim().parse::<u64>().unwrap()
    };
    let (shown, there) = (sizes(node.mnt()), sizes(&site.home.data()));
    assert!(shown.abs_diff(there) < 1 << 20, "{shown} {there}");
    node.stop_ok();
}

#[test]
fn the_mount_has_a_word_of_its_own() {
    let site = Site::new();
    let s3 = site.store.s3();
    s3.create_bucket("data");
    s3.put("data", "k", &vec![7; 3 << 20]).unwrap().expect(200);
    for (word, kept) in [("no-store", false), ("no-cache", false), ("default", true)] {
        let node = site.node(&["--mount-cache", word]);
        assert_eq!(fs::read(node.mnt().join("data/k")).unwrap().len(), 3 << 20);
        // Blocks are kept behind the answer.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let status = output(
            &mut site
                .home
                .command(&["cache", "--cache-dir", "cache", "status"]),
        );
        assert_eq!(status.contains("(3 blocks)"), kept, "{word}: {status}");
        node.stop_ok();
    }
    let source = format!("{}/data", site.store.endpoint());
    let mnt = site.home.mnt();
    let mut command = site.home.command(&["mount", &source]);
    command
        .arg(&mnt)
        .args(["--cache-dir", "other", "-o", "ro,cache=no-store"]);
    command
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    let mount = Server::start(command, Some(mnt.clone()));
    assert_eq!(fs::read(mnt.join("k")).unwrap().len(), 3 << 20);
    let refused = fs::write(mnt.join("x"), b"x").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let status = output(
        &mut site
            .home
            .command(&["cache", "--cache-dir", "other", "status"]),
    );
    assert!(status.contains("objects   0"), "{status}");
    mount.stop_ok();
}

#[test]
fn small_files_that_are_read_in_order_are_there_before_they_are_asked_for() {
    let site = Site::new();
    let s3 = site.store.s3();
    s3.create_bucket("data");
    for n in 0..120 {
        let body = format!("{n:03}").repeat(1000);
        s3.put("data", &format!("train/{n:03}"), body.as_bytes())
            .unwrap()
            .expect(200);
    }
    let node = site.node(&[]);
    let dir = node.mnt().join("data/train");
    let mut names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let mut hits = 0;
    for (n, path) in names.iter().enumerate() {
        assert_eq!(
            fs::read(path).unwrap(),
            format!("{n:03}").repeat(1000).as_bytes()
        );
        hits += usize::from(xattr::get(path, xattr::STATUS).unwrap() == "hit");
    }
    // On a busy machine some come too late; without reading ahead there would be none.
    assert!(hits >= 40, "{hits} of 120");
    let status = output(
        &mut site
            .home
            .command(&["cache", "--cache-dir", "cache", "status"]),
    );
    assert!(status.contains("objects   120 "), "{status}");
    node.stop_ok();
}
