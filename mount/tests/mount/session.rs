//! What is mounted, and how a mount begins and ends.

use std::fs::{self, File};
use std::io::Write;

use crate::common::{Fixture, errno, names, rename};
use forebay_mount::{CloseMode, Source};

#[test]
fn all_buckets_are_directories() {
    let f = Fixture::of(Source::All, CloseMode::Deferred);
    assert_eq!(names(f.root()), ["bucket"]);
    fs::create_dir(f.path("second")).expect("made");
    fs::write(f.path("second/f"), b"x").expect("written");
    assert_eq!(names(f.root()), ["bucket", "second"]);
    assert_eq!(
        errno(&fs::remove_dir(f.path("second")).expect_err("not empty")),
        libc::ENOTEMPTY
    );
    assert_eq!(
        errno(&rename(f.path("second/f"), f.path("bucket/f")).expect_err("another")),
        libc::EXDEV
    );
    assert_eq!(
        errno(&File::create(f.path("f")).expect_err("no bucket")),
        libc::EPERM
    );
    assert_eq!(
        errno(&fs::create_dir(f.path("NO")).expect_err("a bad name")),
        libc::EINVAL
    );
    fs::remove_file(f.path("second/f")).expect("removed");
    fs::remove_dir(f.path("second")).expect("removed");
    assert_eq!(names(f.root()), ["bucket"]);
    f.put("new", b"x");
    assert_eq!(names(&f.path("bucket")), ["new"]);
}

#[test]
fn a_prefix_is_mounted_alone() {
    let f = Fixture::of(
        Source::Bucket {
            name: "bucket".into(),
            prefix: "a/b/".into(),
        },
        CloseMode::Deferred,
    );
    f.put("a/b/f", b"in");
    f.put("a/f", b"out");
    assert_eq!(names(f.root()), ["f"]);
    fs::write(f.path("g"), b"x").expect("written");
    assert_eq!(f.get("a/b/g").as_deref(), Some(&b"x"[..]));
}

#[test]
fn stopping_publishes_what_is_open() {
    let mut f = Fixture::new();
    let mut open = File::create(f.path("f")).expect("created");
    open.write_all(b"not closed").expect("written");
    let report = f.stop();
    assert!(report.busy);
    assert_eq!((report.published, report.lost), (1, 0));
    assert_eq!(f.get("f").as_deref(), Some(&b"not closed"[..]));
    drop(open);
    f.mount();
    assert_eq!(fs::read(f.path("f")).expect("read"), b"not closed");
}

#[test]
fn the_mount_of_a_process_that_is_gone_is_replaced() {
    let mut f = Fixture::new();
    f.put("f", b"x");
    // What is left when the daemon dies under a process that is in the mount.
    let inside = File::open(f.root()).expect("open");
    let status = std::process::Command::new("umount")
        .arg("-f")
        .arg(f.root())
        .status();
    assert!(!status.expect("umount").success(), "it is busy");
    let err = fs::read_dir(f.root()).expect_err("gone");
    assert_eq!(errno(&err), libc::ENOTCONN);
    f.abandon();
    f.mount();
    assert_eq!(fs::read(f.path("f")).expect("read"), b"x");
    drop(inside);
    assert!(f.dir().exists());
}

#[test]
fn durable_close_has_its_errors_and_waits() {
    let f = Fixture::of(
        Source::Bucket {
            name: "bucket".into(),
            prefix: String::new(),
        },
        CloseMode::Durable,
    );
    fs::write(f.path("f"), b"x").expect("written");
    assert_eq!(f.get("f").as_deref(), Some(&b"x"[..]));
}
