//! Opening, reading, writing, attributes.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use crate::common::{Fixture, LARGE, errno, pattern};

#[test]
fn fsync_publishes_and_writing_goes_on() {
    let f = Fixture::new();
    let mut file = File::create(f.path("f")).expect("created");
    file.write_all(b"one").expect("written");
    assert_eq!(f.get("f"), None);
    file.sync_all().expect("synced");
    assert_eq!(f.get("f").as_deref(), Some(&b"one"[..]));
    file.write_all(b"two").expect("written");
    file.sync_data().expect("synced");
    assert_eq!(f.get("f").as_deref(), Some(&b"onetwo"[..]));
    file.write_all(b"three").expect("written");
    drop(file);
    assert_eq!(f.get("f").as_deref(), Some(&b"onetwothree"[..]));
}

#[test]
fn appending_truncating_and_writing_anywhere() {
    let f = Fixture::new();
    for len in [100, LARGE] {
        let mut bytes = pattern(len, 3);
        f.put("f", &bytes);
        let append = || {
            OpenOptions::new()
                .append(true)
                .open(f.path("f"))
                .expect("open")
        };
        append().write_all(b"tail").expect("written");
        bytes.extend_from_slice(b"tail");
        assert!(f.get("f").as_ref() == Some(&bytes), "over S3");
        let write = || {
            OpenOptions::new()
                .write(true)
                .open(f.path("f"))
                .expect("open")
        };
        write().write_all_at(b"middle", 50).expect("written");
        bytes[50..56].copy_from_slice(b"middle");
        assert!(f.get("f").as_ref() == Some(&bytes), "over S3");
        write().set_len(60).expect("truncated");
        bytes.truncate(60);
        assert!(f.get("f").as_ref() == Some(&bytes), "over S3");
        write().write_all_at(b"far", 1000).expect("written");
        bytes.resize(1000, 0);
        bytes.extend_from_slice(b"far");
        assert!(f.get("f").as_ref() == Some(&bytes), "over S3");
        assert_eq!(fs::read(f.path("f")).expect("read"), bytes);
    }
}

/// How a file can be opened, for the matrix below.
fn ways() -> Vec<(&'static str, OpenOptions)> {
    let options = |set: fn(&mut OpenOptions)| {
        let mut options = OpenOptions::new();
        set(&mut options);
        options
    };
    vec![
        (
            "read",
            options(|o| {
                o.read(true);
            }),
        ),
        (
            "write",
            options(|o| {
                o.write(true);
            }),
        ),
        (
            "both",
            options(|o| {
                o.read(true).write(true);
            }),
        ),
        (
            "append",
            options(|o| {
                o.append(true);
            }),
        ),
        (
            "truncate",
            options(|o| {
                o.write(true).truncate(true);
            }),
        ),
        (
            "create",
            options(|o| {
                o.read(true).write(true).create(true);
            }),
        ),
        (
            "sync",
            options(|o| {
                o.write(true).custom_flags(libc::O_SYNC);
            }),
        ),
    ]
}

#[test]
fn no_order_of_opens_gives_an_error() {
    let f = Fixture::new();
    for len in [10, LARGE] {
        for (first, one) in ways() {
            for (second, two) in ways() {
                for (third, three) in ways() {
                    f.put("f", &pattern(len, 1));
                    let what = format!("{len} bytes: {first}, {second}, {third}");
                    let open = |way: &OpenOptions| {
                        way.open(f.path("f"))
                            .unwrap_or_else(|err| panic!("{what}: {err}"))
                    };
                    let (one, two) = (open(&one), open(&two));
                    drop(one);
                    let three = open(&three);
                    two.write_all_at(b"x", 0)
                        .or_else(|err| {
                            if errno(&err) == libc::EBADF {
                                Ok(())
                            } else {
                                Err(err)
                            }
                        })
                        .unwrap_or_else(|err| panic!("{what}: {err}"));
                    drop(two);
                    let mut byte = [0];
                    three
                        .read_at(&mut byte, 0)
                        .or_else(|err| {
                            if errno(&err) == libc::EBADF {
                                Ok(0)
                            } else {
                                Err(err)
                            }
                        })
                        .unwrap_or_else(|err| panic!("{what}: {err}"));
                }
            }
        }
    }
}

#[test]
fn readers_keep_the_version_that_a_writer_changes() {
    let f = Fixture::new();
    let before = pattern(LARGE, 1);
    f.put("f", &before);
    let mut reader = File::open(f.path("f")).expect("open");
    let writer = OpenOptions::new()
        .write(true)
        .open(f.path("f"))
        .expect("open");
    writer.write_all_at(b"new", 0).expect("written");
    let mut read = Vec::new();
    reader.read_to_end(&mut read).expect("read");
    assert!(read == before);
    drop(writer);
    assert_eq!(&f.get("f").expect("there")[..3], b"new");
    assert_eq!(&fs::read(f.path("f")).expect("read")[..3], b"new");
    fs::OpenOptions::new()
        .write(true)
        .open(f.path("f"))
        .expect("open")
        .set_len(5)
        .expect("truncated");
    assert_eq!(fs::read(f.path("f")).expect("read").len(), 5);
    reader.seek(SeekFrom::Start(0)).expect("seek");
    read.clear();
    reader.read_to_end(&mut read).expect("read");
    assert!(read == before);
}

#[test]
fn what_is_removed_stays_readable_for_who_has_it_open() {
    let f = Fixture::new();
    for len in [10, LARGE] {
        let bytes = pattern(len, 4);
        f.put("f", &bytes);
        let mut reader = File::open(f.path("f")).expect("open");
        let mut writer = OpenOptions::new()
            .append(true)
            .open(f.path("f"))
            .expect("open");
        fs::remove_file(f.path("f")).expect("removed");
        assert_eq!(f.get("f"), None);
        writer.write_all(b"more").expect("written");
        assert_eq!(writer.metadata().expect("stat").nlink(), 0);
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("read");
        assert!(read[..len] == bytes);
        assert_eq!(f.get("f"), None, "a removed file is not published");
    }
}

#[test]
fn attributes_are_kept() {
    let mut f = Fixture::new();
    fs::write(f.path("f"), b"x").expect("written");
    fs::set_permissions(f.path("f"), fs::Permissions::from_mode(0o640)).expect("chmod");
    std::os::unix::fs::chown(f.path("f"), Some(12), Some(34)).expect("chown");
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options()
        .write(true)
        .open(f.path("f"))
        .expect("open")
        .set_modified(time)
        .expect("utimens");
    symlink("f", f.path("link")).expect("linked");
    fs::create_dir(f.path("d")).expect("made");
    fs::set_permissions(f.path("d"), fs::Permissions::from_mode(0o700)).expect("chmod");
    for round in 0..2 {
        let stat = fs::metadata(f.path("f")).expect("stat");
        assert_eq!(
            (stat.mode() & 0o7777, stat.uid(), stat.gid()),
            (0o640, 12, 34),
            "round {round}"
        );
        assert_eq!(stat.modified().expect("a time"), time, "round {round}");
        assert_eq!(
            fs::read_link(f.path("link")).expect("read"),
            std::path::Path::new("f")
        );
        assert_eq!(
            fs::metadata(f.path("d")).expect("stat").mode() & 0o7777,
            0o700
        );
        f.stop();
        f.mount();
    }
}
