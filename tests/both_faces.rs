//! One object, two faces: what is written through one is what the other reads, at once and whole.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Home, Random};

/// Around what is packed, what is a file of its own, and what is more than one request.
const SIZES: [usize; 9] = [
    0,
    1,
    4096,
    4097,
    262_143,
    262_145,
    1 << 20,
    (1 << 20) + 1,
    5 << 20,
];

#[test]
fn what_s3_puts_is_what_cat_reads() {
    let home = Home::new();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    let mut random = Random::new(1);
    for size in SIZES {
        let body = random.bytes(size);
        s3.put("bkt", &format!("dir/{size}"), &body)
            .unwrap()
            .expect(200);
        let read = fs::read(server.mnt().join(format!("bkt/dir/{size}"))).unwrap();
        assert!(read == body, "{size} bytes");
    }
    server.stop_ok();
}

#[test]
fn what_the_mount_writes_is_what_s3_gets() {
    let home = Home::new();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    let mut random = Random::new(2);
    fs::create_dir(server.mnt().join("bkt/dir")).unwrap();
    for size in SIZES {
        let body = random.bytes(size);
        fs::write(server.mnt().join(format!("bkt/dir/{size}")), &body).unwrap();
        let got = s3.get("bkt", &format!("dir/{size}")).unwrap().expect(200);
        assert!(got.body == body, "{size} bytes");
    }
    server.stop_ok();
}

#[test]
fn a_bucket_made_on_either_face_is_on_the_other() {
    let home = Home::new();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("by-s3");
    assert!(server.mnt().join("by-s3").is_dir());
    fs::create_dir(server.mnt().join("by-mkdir")).unwrap();
    s3.call("HEAD", "/by-mkdir", &[], b"").unwrap().expect(200);
    fs::remove_dir(server.mnt().join("by-s3")).unwrap();
    s3.call("HEAD", "/by-s3", &[], b"").unwrap().expect(404);
    s3.call("DELETE", "/by-mkdir", &[], b"")
        .unwrap()
        .expect(204);
    assert!(!server.mnt().join("by-mkdir").exists());
    server.stop_ok();
}

/// The kernel has cached the file and its attributes; an answered PUT must have undone that.
#[test]
fn an_overwrite_over_s3_is_seen_at_once_by_who_has_read_the_file() {
    let home = Home::new();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    let path = server.mnt().join("bkt/f");
    let mut random = Random::new(3);
    for round in 0..50 {
        let len = usize::try_from(random.below(9000)).unwrap();
        let body = random.bytes(len);
        s3.put("bkt", "f", &body).unwrap().expect(200);
        assert_eq!(
            fs::metadata(&path).unwrap().len(),
            body.len() as u64,
            "round {round}"
        );
        assert!(fs::read(&path).unwrap() == body, "round {round}");
    }
    server.stop_ok();
}

#[test]
fn what_one_face_removes_is_gone_from_the_other() {
    let home = Home::new();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    let dir = server.mnt().join("bkt");
    for round in 0..20 {
        s3.put("bkt", "f", b"x").unwrap().expect(200);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "round {round}");
        s3.delete("bkt", "f").unwrap().expect(204);
        assert!(!dir.join("f").exists(), "round {round}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "round {round}");
        s3.put("bkt", "f", b"x").unwrap().expect(200);
        fs::remove_file(dir.join("f")).unwrap();
        s3.get("bkt", "f").unwrap().expect(404);
    }
    server.stop_ok();
}

#[expect(
    clippy::disallowed_methods,
    reason = "rename(2) itself is what is tested"
)]
fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

#[test]
fn a_renamed_directory_has_its_new_keys_and_none_of_the_old() {
    let home = Home::new();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    for number in 0..30 {
        s3.put("bkt", &format!("old/deep/{number:02}"), b"x")
            .unwrap()
            .expect(200);
    }
    let dir = server.mnt().join("bkt");
    rename(&dir.join("old"), &dir.join("new"));
    let keys = s3.list("bkt", "");
    let files = keys.iter().filter(|key| !key.ends_with('/'));
    assert_eq!(files.clone().count(), 30, "{keys:?}");
    assert!(
        files.clone().all(|key| key.starts_with("new/deep/")),
        "{keys:?}"
    );
    server.stop_ok();
}

#[test]
fn attributes_and_links_outlive_the_server() {
    let home = Home::new();
    let server = home.serve_and_mount();
    server.s3().create_bucket("bkt");
    let file = server.mnt().join("bkt/f");
    fs::write(&file, "text").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs::set_permissions(&file, mode).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    symlink("f", server.mnt().join("bkt/link")).unwrap();
    server.stop_ok();
    let server = home.serve_and_mount();
    let found = fs::metadata(server.mnt().join("bkt/f")).unwrap();
    assert_eq!(found.mode() & 0o7777, 0o640);
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (1_000_000_000, 123_456_789)
    );
    assert_eq!(
        fs::read_link(server.mnt().join("bkt/link"))
            .unwrap()
            .to_str(),
        Some("f")
    );
    assert_eq!(
        fs::read_to_string(server.mnt().join("bkt/link")).unwrap(),
        "text"
    );
    server.stop_ok();
}

/// A body is one byte, over and over, and its length follows from the byte.
fn pattern(byte: u8) -> Vec<u8> {
    vec![byte; 1000 + 700 * usize::from(byte)]
}

#[test]
fn of_two_writers_on_one_key_there_is_always_one_whole() {
    let home = Home::new();
    let server = home.serve_and_mount();
    let s3 = server.s3();
    s3.create_bucket("bkt");
    s3.put("bkt", "f", &pattern(1)).unwrap().expect(200);
    let path = server.mnt().join("bkt/f");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let by_s3 = scope.spawn(|| {
            for round in 0..150_u8 {
                s3.put("bkt", "f", &pattern(2 * (round % 100) + 1))
                    .unwrap()
                    .expect(200);
            }
        });
        let by_mount = scope.spawn(|| {
            for round in 0..150_u8 {
                // An S3 overwrite may get between the open and what follows; then one tries again.
                let mut file = fs::File::create(&path).unwrap();
                file.write_all(&pattern(2 * (round % 100))).unwrap();
            }
        });
        let reader = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let body = s3.get("bkt", "f").unwrap().expect(200).body;
                let byte = *body.first().expect("neither writer writes an empty file");
                assert!(
                    body == pattern(byte),
                    "{} bytes that begin with {byte}",
                    body.len()
                );
            }
        });
        let writers = [by_s3.join(), by_mount.join()];
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        for writer in writers {
            writer.unwrap();
        }
    });
    let over_s3 = s3.get("bkt", "f").unwrap().expect(200).body;
    assert!(
        fs::read(&path).unwrap() == over_s3,
        "both faces end with the same"
    );
    server.stop_ok();
}

#[test]
fn a_mount_of_a_prefix_shows_just_that() {
    let home = Home::new();
    let server = home.serve();
    server.s3().create_bucket("bkt");
    server
        .s3()
        .put("bkt", "in/side/f", b"x")
        .unwrap()
        .expect(200);
    server.s3().put("bkt", "out", b"x").unwrap().expect(200);
    server.stop_ok();
    let mnt = home.mnt();
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0", "--mount"]);
    command.arg(&mnt).args(["--mount-source", "bkt/in"]);
    let server = crate::harness::Server::start(command, Some(mnt));
    let names: Vec<_> = fs::read_dir(server.mnt())
        .unwrap()
        .map(|item| item.unwrap().file_name())
        .collect();
    assert_eq!(names, ["side"]);
    fs::write(server.mnt().join("g"), "y").unwrap();
    assert_eq!(
        server.s3().get("bkt", "in/g").unwrap().expect(200).body,
        b"y"
    );
    server.stop_ok();
}
