//! One set of objects, two faces.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::common::{Fixture, LARGE, errno, names, pattern, rename};

#[test]
fn what_is_written_is_what_s3_gets_and_what_s3_puts_is_what_is_read() {
    let f = Fixture::new();
    for (name, len) in [
        ("empty", 0),
        ("small", 4096),
        ("large", LARGE),
        ("larger", 3 << 20),
    ] {
        let bytes = pattern(len, 7);
        fs::write(f.path(name), &bytes).expect("written");
        assert_eq!(f.get(name).as_ref(), Some(&bytes), "{name} over S3");
        assert_eq!(fs::read(f.path(name)).expect("read"), bytes, "{name} again");
        let other = pattern(len + 1, 9);
        f.put(&format!("dir/{name}"), &other);
        assert_eq!(
            fs::read(f.path("dir").join(name)).expect("read"),
            other,
            "dir/{name}"
        );
        assert_eq!(
            fs::metadata(f.path("dir").join(name)).expect("stat").len(),
            other.len() as u64
        );
    }
    assert_eq!(
        names(f.root()),
        ["dir", "empty", "large", "larger", "small"]
    );
    assert_eq!(names(&f.path("dir")), ["empty", "large", "larger", "small"]);
}

#[test]
fn s3_changes_are_seen_at_once() {
    let f = Fixture::new();
    fs::create_dir(f.path("d")).expect("made");
    for round in 0..20_u8 {
        for len in [10, LARGE] {
            assert!(
                !fs::exists(f.path("d/f")).expect("stat"),
                "round {round}: it was deleted"
            );
            let bytes = pattern(len, round);
            f.put("d/f", &bytes);
            assert_eq!(fs::read(f.path("d/f")).expect("read"), bytes);
            assert_eq!(names(&f.path("d")), ["f"]);
            let mut open = File::open(f.path("d/f")).expect("open");
            let next = pattern(len + 1, round + 100);
            f.put("d/f", &next);
            assert_eq!(
                fs::metadata(f.path("d/f")).expect("stat").len(),
                next.len() as u64
            );
            assert_eq!(fs::read(f.path("d/f")).expect("read"), next);
            let mut old = Vec::new();
            open.read_to_end(&mut old).expect("read");
            assert_eq!(
                old, bytes,
                "who has the old version open reads the old version"
            );
            f.delete("d/f");
        }
    }
    assert_eq!(
        names(&f.path("d")),
        Vec::<String>::new(),
        "a made directory stays"
    );
    f.put("implied/below/x", b"x");
    assert!(f.path("implied/below").is_dir());
    f.delete("implied/below/x");
    assert!(
        !f.path("implied").exists(),
        "an implied directory goes with its last key"
    );
}

#[test]
fn s3_sees_the_version_before_until_the_last_close() {
    let f = Fixture::new();
    f.put("f", b"before");
    let mut one = OpenOptions::new()
        .write(true)
        .open(f.path("f"))
        .expect("open");
    let two = OpenOptions::new()
        .write(true)
        .open(f.path("f"))
        .expect("open");
    one.write_all(b"AFTER").expect("written");
    assert_eq!(f.get("f").as_deref(), Some(&b"before"[..]));
    assert_eq!(
        fs::read(f.path("f")).expect("read"),
        b"AFTERe",
        "the mount sees it at once"
    );
    drop(one);
    two.write_all_at(b"!", 5).expect("written");
    drop(two);
    assert_eq!(f.get("f").as_deref(), Some(&b"AFTER!"[..]));
}

/// Whether all bytes are the same, as each writer below writes them.
fn is_whole(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == bytes[0])
}

#[test]
fn two_faces_at_once_give_one_of_the_two_whole() {
    let f = Fixture::new();
    let keys = ["x", "d/y"];
    fs::create_dir(f.path("d")).expect("made");
    for key in keys {
        f.put(key, b"0");
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let running = || !stop.load(std::sync::atomic::Ordering::Relaxed);
    let missing = |err: &io::Error| [libc::ENOENT, libc::ESTALE].contains(&errno(err));
    std::thread::scope(|scope| {
        for key in keys {
            let f = &f;
            let readers = move || {
                while running() {
                    match fs::read(f.path(key)) {
                        Ok(bytes) => assert!(is_whole(&bytes), "{key}: {} bytes", bytes.len()),
                        Err(err) => assert!(missing(&err), "{key}: {err}"),
                    }
                }
            };
            scope.spawn(readers);
            scope.spawn(readers);
            scope.spawn(move || {
                while running() {
                    if let Some(bytes) = f.get(key) {
                        assert!(is_whole(&bytes), "{key} over S3: {} bytes", bytes.len());
                    }
                }
            });
            scope.spawn(move || {
                for round in (0..=255_u8).cycle().take_while(|_| running()) {
                    let len = if round % 2 == 0 { 1000 } else { LARGE };
                    f.put(key, &vec![round; len + usize::from(round)]);
                    if round % 16 == 0 {
                        f.delete(key);
                    }
                }
            });
            scope.spawn(move || {
                for round in (0..=255_u8).cycle().take_while(|_| running()) {
                    let len = if round % 3 == 0 { LARGE } else { 2000 };
                    let tmp = f.path(&format!("{key}.tmp"));
                    fs::write(&tmp, vec![round; len]).expect("written");
                    rename(&tmp, f.path(key)).expect("renamed");
                    if round % 16 == 8 {
                        match fs::remove_file(f.path(key)) {
                            Ok(()) => {}
                            Err(err) => assert!(missing(&err), "{err}"),
                        }
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_secs(4));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for key in keys {
        let over_s3 = f.get(key);
        let mounted = fs::read(f.path(key)).ok();
        assert!(over_s3 == mounted, "{key} is the same on both faces");
    }
}
