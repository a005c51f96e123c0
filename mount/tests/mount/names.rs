//! Directories, renaming, listing.

use std::fs::{self, File};
use std::io::Write;

use crate::common::{Fixture, errno, names, rename};

#[test]
fn renaming_files_and_directories() {
    let f = Fixture::new();
    fs::create_dir(f.path("a")).expect("made");
    fs::create_dir(f.path("a/b")).expect("made");
    fs::write(f.path("a/b/f"), b"1").expect("written");
    fs::write(f.path("a/over"), b"2").expect("written");
    rename(f.path("a/b/f"), f.path("a/over")).expect("renamed");
    assert_eq!(f.get("a/over").as_deref(), Some(&b"1"[..]));
    assert_eq!(f.get("a/b/f"), None);
    fs::create_dir(f.path("c")).expect("made");
    let mut open = File::create(f.path("a/b/open")).expect("created");
    open.write_all(b"written before").expect("written");
    rename(f.path("a"), f.path("c/moved")).expect("renamed");
    open.write_all(b" and after").expect("written");
    drop(open);
    assert_eq!(
        f.get("c/moved/b/open").as_deref(),
        Some(&b"written before and after"[..])
    );
    assert_eq!(f.get("c/moved/over").as_deref(), Some(&b"1"[..]));
    assert_eq!(f.get("a/over"), None);
    assert_eq!(names(&f.path("c/moved")), ["b", "over"]);
    let err = rename(f.path("c"), f.path("c/moved/in")).expect_err("into itself");
    assert_eq!(errno(&err), libc::EINVAL);
    let err = rename(f.path("c/moved/b"), f.path("c/moved/over")).expect_err("a file");
    assert_eq!(errno(&err), libc::ENOTDIR);
}

#[test]
fn renaming_what_is_being_written() {
    let f = Fixture::new();
    fs::write(f.path("target"), b"old").expect("written");
    let mut file = File::create(f.path("tmp")).expect("created");
    file.write_all(b"new").expect("written");
    rename(f.path("tmp"), f.path("target")).expect("renamed");
    assert_eq!(fs::read(f.path("target")).expect("read"), b"new");
    assert_eq!(names(f.root()), ["target"]);
    assert_eq!(
        f.get("target").as_deref(),
        Some(&b"old"[..]),
        "S3 has one version whole"
    );
    drop(file);
    assert_eq!(f.get("target").as_deref(), Some(&b"new"[..]));
    assert_eq!(f.get("tmp"), None);
}

#[test]
fn directories_are_made_and_removed() {
    let f = Fixture::new();
    fs::create_dir(f.path("d")).expect("made");
    assert_eq!(f.get("d/").as_deref(), Some(&b""[..]), "its marker");
    assert_eq!(
        errno(&fs::create_dir(f.path("d")).expect_err("there")),
        libc::EEXIST
    );
    let open = File::create(f.path("d/f")).expect("created");
    assert_eq!(
        errno(&fs::remove_dir(f.path("d")).expect_err("not empty")),
        libc::ENOTEMPTY
    );
    drop(open);
    assert_eq!(
        errno(&fs::remove_dir(f.path("d")).expect_err("not empty")),
        libc::ENOTEMPTY
    );
    fs::remove_file(f.path("d/f")).expect("removed");
    fs::remove_dir(f.path("d")).expect("removed");
    assert!(!f.path("d").exists());
    f.put("implied/f", b"x");
    fs::remove_file(f.path("implied/f")).expect("removed");
    assert!(
        f.path("implied").is_dir(),
        "it does not vanish under who has just emptied it"
    );
    assert_eq!(names(&f.path("implied")), Vec::<String>::new());
}

#[test]
fn a_directory_that_changes_while_it_is_read_shows_each_name_once() {
    let f = Fixture::new();
    fs::create_dir(f.path("d")).expect("made");
    for index in 0..1500 {
        f.put(&format!("d/{index:04}"), b"x");
        if index % 100 == 0 {
            fs::create_dir(f.path(&format!("d/{index:04}-dir"))).expect("made");
        }
    }
    let mut seen = Vec::new();
    let mut open = Vec::new();
    for (index, entry) in fs::read_dir(f.path("d")).expect("a directory").enumerate() {
        let name = entry
            .expect("an entry")
            .file_name()
            .into_string()
            .expect("UTF-8");
        if index % 7 == 0 && !name.ends_with("dir") {
            fs::remove_file(f.path("d").join(&name)).expect("removed");
        }
        if index % 50 == 0 {
            open.push(File::create(f.path(&format!("d/{index:04}-new"))).expect("created"));
        }
        seen.push(name);
    }
    let old: Vec<&String> = seen.iter().filter(|name| !name.ends_with("new")).collect();
    assert_eq!(old.len(), 1515);
    seen.sort();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count, "no name twice");
}
