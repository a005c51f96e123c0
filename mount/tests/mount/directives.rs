//! What is said of the cache on a mount of a local store, where the cache is the page cache.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use forebay_store::Objects as _;
use forebay_store::name::ObjectKey;

use crate::common::{Fixture, LARGE, errno, pattern, rename};
use crate::xattr::{self, CONTROL, STATUS};

#[test]
fn the_word_is_set_and_read_and_removed() {
    let f = Fixture::new();
    f.put("file", b"bytes");
    fs::create_dir(f.path("dir")).expect("made");
    f.put("implied/k", b"bytes");
    for name in ["file", "dir", "implied"] {
        let path = f.path(name);
        let none = |done: std::io::Result<String>| errno(&done.expect_err(name));
        assert_eq!(none(xattr::get(&path, CONTROL)), libc::ENODATA);
        assert!(xattr::list(&path).expect("listed").is_empty());
        let replace = xattr::set(&path, CONTROL, "no-cache", libc::XATTR_REPLACE);
        assert_eq!(errno(&replace.expect_err(name)), libc::ENODATA);
        for word in ["no-cache", "no-store", "default"] {
            xattr::set(&path, CONTROL, word, 0).expect("set");
            assert_eq!(xattr::get(&path, CONTROL).expect("set"), word);
        }
        let create = xattr::set(&path, CONTROL, "no-cache", libc::XATTR_CREATE);
        assert_eq!(errno(&create.expect_err(name)), libc::EEXIST);
        for word in ["", "No-Store", "no-store\n", "max-age=0"] {
            let refused = xattr::set(&path, CONTROL, word, 0).expect_err(word);
            assert_eq!(errno(&refused), libc::EINVAL);
        }
        assert_eq!(xattr::list(&path).expect("listed"), [CONTROL]);
        let short = xattr::get_into(&path, CONTROL, 3).expect_err("no room");
        assert_eq!(errno(&short), libc::ERANGE);
        xattr::remove(&path, CONTROL).expect("removed");
        let again = xattr::remove(&path, CONTROL).expect_err("gone");
        assert_eq!(errno(&again), libc::ENODATA);
    }
}

#[test]
fn the_status_is_read_only_and_other_names_are_not_supported() {
    let f = Fixture::new();
    f.put("file", b"bytes");
    let path = f.path("file");
    let set = xattr::set(&path, STATUS, "hit", 0).expect_err("read-only");
    assert_eq!(errno(&set), libc::EPERM);
    let removed = xattr::remove(&path, STATUS).expect_err("read-only");
    assert_eq!(errno(&removed), libc::EPERM);
    for name in ["user.other", "user.forebay.other"] {
        let got = xattr::get(&path, name).expect_err(name);
        assert_eq!(errno(&got), libc::EOPNOTSUPP);
        let set = xattr::set(&path, name, "x", 0).expect_err(name);
        assert_eq!(errno(&set), libc::EOPNOTSUPP);
    }
    let root = xattr::set(f.root(), CONTROL, "no-store", 0).expect_err("a bucket");
    assert_eq!(errno(&root), libc::EOPNOTSUPP);
}

#[test]
fn the_word_stays_with_the_object() {
    let mut f = Fixture::new();
    f.put("a", b"bytes");
    xattr::set(&f.path("a"), CONTROL, "no-store", 0).expect("set");
    rename(f.path("a"), f.path("b")).expect("renamed");
    fs::set_permissions(f.path("b"), fs::Permissions::from_mode(0o600)).expect("changed");
    let mut append = OpenOptions::new()
        .append(true)
        .open(f.path("b"))
        .expect("open");
    append.write_all(b" and more").expect("written");
    drop(append);
    f.stop();
    f.mount();
    assert_eq!(xattr::get(&f.path("b"), CONTROL).expect("kept"), "no-store");
    let key = ObjectKey::parse("b").expect("a key");
    let head = f.runtime.block_on(f.store.head(f.bucket.id, &key, None));
    let metadata = &head.expect("there").attributes.user_metadata;
    let kept = ("forebay-cache-control".to_owned(), b"no-store".to_vec());
    assert!(metadata.contains(&kept), "{metadata:?}");
    // What S3 puts in its place is another object.
    f.put("b", b"new");
    let gone = xattr::get(&f.path("b"), CONTROL).expect_err("another object");
    assert_eq!(errno(&gone), libc::ENODATA);
}

#[test]
fn a_file_that_is_being_written_has_a_word_too() {
    let f = Fixture::new();
    let mut file = File::create(f.path("new")).expect("created");
    file.write_all(b"one").expect("written");
    xattr::set(&f.path("new"), CONTROL, "no-cache", 0).expect("set");
    file.write_all(b"two").expect("written");
    drop(file);
    assert_eq!(f.get("new").as_deref(), Some(&b"onetwo"[..]));
    assert_eq!(
        xattr::get(&f.path("new"), CONTROL).expect("kept"),
        "no-cache"
    );
}

/// The data file of an object that has one of its own: the only one that is so long.
fn data_file(f: &Fixture, len: usize) -> File {
    let mut found: Vec<PathBuf> = Vec::new();
    for dir in fs::read_dir(f.dir().join("data/files")).expect("listed") {
        for file in fs::read_dir(dir.expect("an entry").path()).expect("listed") {
            let file = file.expect("an entry");
            if file.metadata().expect("there").len() == len as u64 {
                found.push(file.path());
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(&found[0])
        .expect("open")
}

fn read_all(f: &Fixture, path: &str, flags: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(f.path(path))
        .expect("open");
    if flags & libc::O_DIRECT != 0 {
        return read_aligned(&file);
    }
    file.read_to_end(&mut bytes).expect("read");
    bytes
}

/// As `O_DIRECT` on a disk wants it.
fn read_aligned(file: &File) -> Vec<u8> {
    let mut buffer = vec![0_u8; (1 << 20) + 4096];
    let skip = buffer.as_ptr().align_offset(4096);
    let (mut bytes, mut at) = (Vec::new(), 0);
    loop {
        let read = file
            .read_at(&mut buffer[skip..skip + (1 << 20)], at)
            .expect("read");
        if read == 0 {
            return bytes;
        }
        bytes.extend_from_slice(&buffer[skip..skip + read]);
        at += read as u64;
    }
}

#[test]
fn who_wants_no_cache_leaves_the_page_cache_as_it_was() {
    let f = Fixture::new();
    let bytes = pattern(LARGE + 5000, 1);
    f.put("d/k", &bytes);
    let data = data_file(&f, bytes.len());
    let resident = || xattr::resident(&data, 0, bytes.len()).0;
    let pages = bytes.len().div_ceil(4096);
    for (word, flags, status) in [
        ("no-cache", 0, Some("miss")),
        ("no-store", 0, Some("bypass")),
        ("default", libc::O_DIRECT, None),
    ] {
        xattr::set(&f.path("d"), CONTROL, word, 0).expect("set");
        xattr::evict(&data);
        assert_eq!(resident(), 0);
        assert!(read_all(&f, "d/k", flags) == bytes);
        assert!(resident() < 8, "{word}: {} of {pages} pages", resident());
        if status.is_some() {
            let found = xattr::get(&f.path("d/k"), STATUS).expect("read");
            assert_eq!(Some(found.as_str()), status);
        }
        // What is in memory stays there.
        let mut in_memory = vec![0; bytes.len()];
        data.read_exact_at(&mut in_memory, 0).expect("read");
        assert_eq!(resident(), pages);
        assert!(read_all(&f, "d/k", flags) == bytes);
        assert_eq!(resident(), pages, "{word}");
        if word == "no-cache" {
            assert_eq!(xattr::get(&f.path("d/k"), STATUS).expect("read"), "hit");
        }
    }
    // A file's own word speaks before that of its directory.
    xattr::set(&f.path("d"), CONTROL, "no-store", 0).expect("set");
    xattr::set(&f.path("d/k"), CONTROL, "default", 0).expect("set");
    xattr::evict(&data);
    assert!(read_all(&f, "d/k", 0) == bytes);
    assert_eq!(resident(), pages);
}

#[test]
fn readers_who_want_no_cache_and_others_have_a_file_open_at_once() {
    let f = Fixture::new();
    let bytes = pattern(LARGE, 2);
    f.put("k", &bytes);
    let plain = File::open(f.path("k")).expect("open");
    xattr::set(&f.path("k"), CONTROL, "no-store", 0).expect("set");
    let uncached = File::open(f.path("k")).expect("open");
    xattr::set(&f.path("k"), CONTROL, "default", 0).expect("set");
    let again = File::open(f.path("k")).expect("open");
    let direct = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(f.path("k"))
        .expect("open");
    for (n, file) in [&plain, &uncached, &again].into_iter().enumerate() {
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, 0).expect("read");
        assert!(read == bytes, "reader {n}");
    }
    assert!(read_aligned(&direct) == bytes);
    let writer = OpenOptions::new()
        .write(true)
        .open(f.path("k"))
        .expect("open");
    writer.write_all_at(b"changed", 0).expect("written");
    drop(writer);
    let mut first = [0; 7];
    File::open(f.path("k"))
        .expect("open")
        .read_exact_at(&mut first, 0)
        .expect("read");
    assert_eq!(&first, b"changed");
}

#[test]
fn writing_takes_set_user_id_away_and_changing_the_owner_too() {
    let f = Fixture::new();
    symlink("k", f.path("link")).expect("made");
    for size in [10, LARGE] {
        fs::write(f.path("k"), pattern(size, 3)).expect("written");
        let set = || {
            fs::set_permissions(f.path("k"), fs::Permissions::from_mode(0o6755)).expect("set");
        };
        let mode = || {
            fs::metadata(f.path("k"))
                .expect("there")
                .permissions()
                .mode()
                & 0o7777
        };
        set();
        assert_eq!(mode(), 0o6755);
        std::os::unix::fs::chown(f.path("k"), Some(12), None).expect("changed");
        assert_eq!(mode(), 0o755);
        set();
        std::os::unix::fs::chown(f.path("k"), None, Some(13)).expect("changed");
        assert_eq!(mode(), 0o755);
        set();
        // Root may write and leave it.
        let mut file = OpenOptions::new()
            .append(true)
            .open(f.path("k"))
            .expect("open");
        file.write_all(b"x").expect("written");
        drop(file);
        assert_eq!(mode(), 0o6755);
    }
}
