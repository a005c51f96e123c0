//! What clippy can't say of the code, and what is said of the code elsewhere.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::FOREBAY;

/// Lines of a source file, its tests included.
const FILE_LINES_MAX: usize = 800;
/// rustfmt holds code to it, but leaves comments alone.
const COMMENT_COLUMNS_MAX: usize = 100;

/// What a part's manifest must not name: arrows point down only.
const MAY_NOT_USE: [(&str, &[&str]); 4] = [
    ("store", &["forebay-", "axum", "http", "hyper", "fuser"]),
    ("server", &["forebay-mount", "fuser", "rusqlite"]),
    ("mount", &["forebay-server", "axum", "rusqlite"]),
    (
        "cache",
        &["forebay-server", "forebay-mount", "axum", "fuser"],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files that are part of the project, by git's word, relative to its root.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git")
        // The checkout may belong to another user, as in a container.
        .args(["-c", "safe.directory=*"])
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(
        listed.status.success(),
        "{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let text = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<PathBuf> = text
        .lines()
        .map(PathBuf::from)
        .filter(|path| root().join(path).is_file())
        .collect();
    assert!(files.len() > 20, "{files:?}");
    files
}

fn with_extension(extension: &str) -> impl Iterator<Item = (PathBuf, String)> {
    let wanted = move |path: &PathBuf| path.extension() == Some(OsStr::new(extension));
    files().into_iter().filter(wanted).map(|path| {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        (path, text)
    })
}

#[test]
fn parts_use_only_what_is_below_them() {
    for (part, banned) in MAY_NOT_USE {
        let manifest = fs::read_to_string(root().join(part).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split_once("[dependencies]").unwrap().1;
        for line in dependencies
            .lines()
            .take_while(|line| !line.starts_with('['))
        {
            let found = banned.iter().find(|name| line.starts_with(**name));
            assert_eq!(found, None, "{part}/Cargo.toml: {line}");
        }
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for (path, text) in with_extension("rs") {
        let lines = text.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines",
            path.display()
        );
    }
}

#[test]
fn comments_fit_the_screen() {
    for (path, text) in with_extension("rs") {
        for (index, line) in text.lines().enumerate() {
            let is_comment = line.trim_start().starts_with("//");
            // A link or a table can't be broken.
            let may_be_long = line.contains("://") || line.contains('|');
            let fits = line.chars().count() <= COMMENT_COLUMNS_MAX;
            let place = format!("{}:{}", path.display(), index + 1);
            assert!(fits || !is_comment || may_be_long, "{place} is too wide");
        }
    }
}

#[test]
fn nothing_is_left_to_fix() {
    // In two halves, so that this file does not find itself.
    let words = [["FIX", "ME"].concat(), ["XX", "X:"].concat()];
    for path in files() {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for word in &words {
            assert!(!text.contains(word), "{} has a {word}", path.display());
        }
    }
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for (path, text) in with_extension("rs") {
        // The tests of a file stand beside it, and are said to be that by their name.
        if path.ends_with("tests.rs") && path.components().any(|part| part.as_os_str() == "src") {
            continue;
        }
        assert!(
            text.starts_with("//!"),
            "{} begins without //!",
            path.display()
        );
    }
}

#[test]
fn documents_name_files_that_exist() {
    let files = files();
    for (document, text) in with_extension("md") {
        for word in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| is_file_name(word))
        {
            let named = files.iter().any(|file| file.ends_with(word));
            let beside = root().join(document.parent().unwrap()).join(word).exists();
            assert!(named || beside, "{} names {word}", document.display());
        }
    }
}

/// `index/schema.rs` is a file of ours; `index.sqlite` and `a.txt` are not.
fn is_file_name(word: &str) -> bool {
    let ours = [".rs", ".md", ".py", ".sh", ".1"];
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    word.bytes().all(plain) && ours.iter().any(|end| word.ends_with(end))
}

#[test]
fn links_between_documents_lead_somewhere() {
    for (document, text) in with_extension("md") {
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = root().join(document.parent().unwrap()).join(target);
            assert!(path.exists(), "{} links to {target}", document.display());
        }
    }
}

#[test]
fn man_pages_are_what_the_definitions_say() {
    let made = tempfile::tempdir().unwrap();
    let status = Command::new(FOREBAY)
        .arg("man")
        .arg(made.path())
        .status()
        .unwrap();
    assert!(status.success());
    let pages = |dir: &Path| {
        let read =
            |item: fs::DirEntry| (item.file_name(), fs::read_to_string(item.path()).unwrap());
        let mut pages: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|item| read(item.unwrap()))
            .collect();
        pages.sort();
        pages
    };
    let (expected, found) = (pages(made.path()), pages(&root().join("man")));
    assert!(
        expected == found,
        "man/ is out of date: run `cargo run -- man man`"
    );
}
