mod forebay;
mod origin;
mod written;

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_store::CacheStatus;
use forebay_store::api::{Buckets, DirectoryPage, Face, Files, ListBuckets, Node, RenameMode};
use forebay_store::entry::{BucketId, Entry, FileAttributes};
use forebay_store::error::{Error, Result};
use forebay_store::event::ChangeKind;
use forebay_store::name::{BucketName, ObjectKey};
use forebay_store::rule::posix::S_IFREG;
use forebay_store::time::{Clock, Timestamp};

use self::origin::{Fixture, Put};
use super::{
    AttributeSource, OriginChange, OriginChangeKind, Reader, Reading, RemoteConfig, RemoteFiles,
    WholeFile,
};
use crate::directive::Directive;
use crate::version::Version;

fn fixture() -> Fixture {
    Fixture::new(RemoteConfig::default())
}

/// What a node shows, without what each side numbers in its own way.
fn shape(node: Option<&Node>) -> String {
    match node {
        None => "nothing".to_owned(),
        Some(Node::Directory(None)) => "implied directory".to_owned(),
        Some(Node::Directory(Some(marker))) => format!("directory {:?}", marker.file.mode),
        Some(Node::File(entry)) => {
            format!("{} {} {:?}", entry.size, entry.etag, entry.file)
        }
    }
}

/// All names of a directory, each with its kind, and how many are hidden.
fn listing(files: &dyn Files, bucket: BucketId, path: &str, limit: usize) -> (Vec<String>, u64) {
    let (mut names, mut hidden, mut after) = (Vec::new(), 0, None);
    for _ in 0..1000 {
        let page: DirectoryPage = files.list_directory(bucket, path, after, limit).unwrap();
        names.extend(page.items.iter().map(|item| match &item.node {
            Node::File(entry) => format!("{} {} {}", item.name, entry.size, entry.etag),
            Node::Directory(_) => format!("{}/", item.name),
        }));
        hidden += page.hidden;
        after = page.next;
        if after.is_none() {
            return (names, hidden);
        }
    }
    panic!("a directory without an end: {names:?}");
}

fn file(files: &dyn Files, bucket: BucketId, path: &str) -> Arc<Entry> {
    match files.lookup(bucket, path).unwrap() {
        Some(Node::File(entry)) => entry,
        other => panic!("{path} is {other:?}"),
    }
}

impl Fixture {
    fn file(&self, path: &str) -> Arc<Entry> {
        file(&self.remote, self.there.id, path)
    }

    fn lookup(&self, path: &str) -> Result<Option<Node>> {
        self.remote.lookup(self.there.id, path)
    }

    fn listing(&self, path: &str) -> Vec<String> {
        listing(&self.remote, self.there.id, path, 256).0
    }

    fn read(&self, entry: &Arc<Entry>) -> Result<Vec<u8>> {
        let content = self.remote.open(entry)?;
        Ok(content.read_at_blocking(0, entry.size + 9)?.to_vec())
    }

    fn change(&self, kind: OriginChangeKind) {
        self.remote.invalidate(&OriginChange {
            bucket: self.there.name.clone(),
            kind,
        });
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::parse(text).unwrap()
}

/// Sets of keys that are hard to tell as paths.
const TREES: [&[&str]; 6] = [
    &["a", "b", "c"],
    &["a", "a/b", "a-b", "a.b", "a0"],
    &["d/", "d/e/", "d/e/f", "d/g"],
    &["a//b", "a/./b", "a/../b", "/", "//", "b/", "c/d//"],
    &["x", "x!", "x!/y", "x-", "x--", "x/", "x/y/z"],
    &["é", "é/ü", "z/\u{10ffff}", "z/\u{10ffff}/y"],
];

#[test]
fn paths_mean_what_they_mean_in_a_store() {
    for keys in TREES {
        let f = fixture();
        for (n, key) in keys.iter().enumerate() {
            f.put_with(&Put {
                key,
                bytes: &vec![7; n],
                metadata: &[("mode", "0700"), ("uid", "5")],
                ..Put::default()
            });
        }
        let mut paths: Vec<String> = vec![String::new(), "nothing".to_owned()];
        for key in keys {
            let ends = key.match_indices('/').map(|(at, _)| at);
            paths.extend(ends.chain([key.len()]).map(|end| key[..end].to_owned()));
            paths.push(format!("{key}-"));
        }
        paths.retain(|path| path.split('/').all(|name| !name.is_empty()) || path.is_empty());
        for page_len in [1, 2, 1000] {
            f.set_page_len(page_len);
            f.clock.advance(60);
            for path in &paths {
                let there = f.lookup(path).unwrap();
                let here = f.store.lookup(f.bucket.id, path).unwrap();
                assert_eq!(
                    shape(there.as_ref()),
                    shape(here.as_ref()),
                    "{keys:?}: {path}"
                );
            }
            for (path, limit) in paths
                .iter()
                .flat_map(|path| [(path, 1), (path, 2), (path, 99)])
            {
                f.clock.advance(i64::try_from(limit).unwrap());
                let there = listing(&f.remote, f.there.id, path, limit);
                let here = listing(&f.store, f.bucket.id, path, limit);
                assert_eq!(there, here, "{keys:?}: {path} by {limit}");
                // Now from what the listing has told.
                for path in paths.iter().filter(|_| limit == 99) {
                    let there = f.lookup(path).unwrap();
                    let here = f.store.lookup(f.bucket.id, path).unwrap();
                    assert_eq!(
                        shape(there.as_ref()),
                        shape(here.as_ref()),
                        "{keys:?}: {path}"
                    );
                }
            }
        }
    }
}

#[test]
fn buckets_are_shown_and_looked_up() {
    let f = fixture();
    let all = f
        .runtime
        .block_on(f.remote.list_buckets(ListBuckets::default()));
    let (all, more) = all.unwrap();
    assert_eq!((all.len(), more), (1, false));
    assert_eq!(all[0].id, f.there.id);
    let none = f.remote.bucket(&BucketName::parse("no-such").unwrap());
    assert!(matches!(none, Err(Error::NoSuchBucket(_))));
}

#[test]
fn what_is_believed_is_believed_for_so_long_and_no_longer() {
    let f = fixture();
    f.put("k", b"one");
    let one = f.file("k");
    assert!(f.lookup("new").unwrap().is_none());
    f.put("k", b"another");
    f.put("new", b"new");
    f.clock.advance(9);
    assert_eq!(f.file("k").ino, one.ino);
    assert!(f.lookup("new").unwrap().is_none());
    assert_eq!(f.asked(), [("head", 2), ("list", 3)].into());
    f.clock.advance(1);
    let two = f.file("k");
    assert_ne!(two.ino, one.ino);
    assert_eq!(f.read(&two).unwrap(), b"another");
    assert!(f.lookup("new").unwrap().is_some());
    f.delete("k");
    f.clock.advance(10);
    assert!(f.lookup("k").unwrap().is_none());
    f.put("k", b"one");
    f.clock.advance(10);
    assert_eq!(f.file("k").ino, one.ino, "the same bytes");
    f.clock.advance(-1);
    f.asked();
    f.file("k");
    assert_eq!(
        f.asked(),
        [("head", 1), ("list", 1)].into(),
        "the clock went back"
    );
}

#[test]
fn a_listing_saves_questions() {
    let f = fixture();
    f.put("d/one", b"1");
    f.put("d/sub/two", b"2");
    assert_eq!(f.listing("d").len(), 2);
    f.asked();
    assert!(f.lookup("d/nothing").unwrap().is_none());
    assert_eq!(f.asked(), [].into());
    f.file("d/one");
    assert_eq!(f.asked(), [("head", 1)].into());
    assert!(matches!(f.lookup("d/sub"), Ok(Some(Node::Directory(None)))));
    assert_eq!(f.asked(), [("head", 1)].into(), "for its marker");
    // A later listing that shows the same version stands for a later look.
    f.clock.advance(9);
    f.put("d/three", b"3");
    f.remote.known.forget_window(&(f.there.id, "d".into()));
    assert_eq!(f.listing("d").len(), 3);
    f.clock.advance(9);
    f.asked();
    f.file("d/one");
    assert_eq!(f.asked(), [].into());
}

#[test]
fn a_large_directory_is_asked_for_in_large_pages() {
    let f = fixture();
    for n in 0..30 {
        f.put(&format!("d/{n:02}"), b"");
    }
    f.set_page_len(10);
    f.asked();
    assert_eq!(listing(&f.remote, f.there.id, "d", 4).0.len(), 30);
    assert_eq!(f.asked(), [("list", 3)].into());
    assert_eq!(listing(&f.remote, f.there.id, "d", 7).0.len(), 30);
    assert_eq!(f.asked(), [].into());
}

#[test]
fn attributes_of_user_metadata_are_seen_once_it_was_looked_at() {
    let f = fixture();
    f.put_with(&Put {
        key: "d/k",
        metadata: &[("mode", "0600"), ("mtime", "1500000000.5")],
        ..Put::default()
    });
    let mode = || {
        let page = f.remote.list_directory(f.there.id, "d", None, 9).unwrap();
        match &page.items[0].node {
            Node::File(entry) => entry.file.mode,
            Node::Directory(_) => panic!("a file"),
        }
    };
    assert_eq!(mode(), None);
    let entry = f.file("d/k");
    assert_eq!(entry.file.mode, Some(S_IFREG | 0o600));
    assert_eq!(entry.file.mtime, Some(Timestamp(1_500_000_000_500_000_000)));
    assert_eq!(mode(), Some(S_IFREG | 0o600));
}

#[test]
fn attributes_can_be_taken_from_listings_alone() {
    let f = Fixture::new(RemoteConfig {
        attributes: AttributeSource::Listing,
        ..RemoteConfig::default()
    });
    f.put("d/k", b"bytes");
    f.listing("d");
    f.asked();
    let entry = f.file("d/k");
    assert_eq!(f.asked(), [].into());
    assert_eq!(f.read(&entry).unwrap(), b"bytes");
    // What a read finds changed is looked up anew, whatever the listing said.
    f.put("d/k", b"other");
    assert!(matches!(f.read(&entry), Err(Error::Superseded(_))));
    assert_eq!(f.read(&f.file("d/k")).unwrap(), b"other");
}

#[test]
fn a_change_that_is_told_is_seen_at_once() {
    let f = fixture();
    f.remote.follow();
    let subscription = f.remote.subscribe(Face::Mount);
    f.put("d/k", b"one");
    let one = f.file("d/k");
    assert!(f.lookup("d/new").unwrap().is_none());
    assert!(f.lookup("e").unwrap().is_none());
    f.listing("");
    f.listing("d");
    f.clock.advance(500);
    f.asked();
    assert_eq!(f.file("d/k").ino, one.ino);
    assert_eq!(f.asked(), [].into(), "it is believed for long");

    f.put("d/k", b"two");
    f.put("d/new", b"");
    f.put("e/f/g", b"");
    f.change(OriginChangeKind::Published(key("d/k")));
    f.change(OriginChangeKind::Published(key("d/new")));
    f.change(OriginChangeKind::Published(key("e/f/g")));
    assert_ne!(f.file("d/k").ino, one.ino);
    assert!(f.lookup("d/new").unwrap().is_some());
    assert!(matches!(f.lookup("e"), Ok(Some(Node::Directory(None)))));
    assert_eq!(f.listing(""), ["d/", "e/"]);
    assert_eq!(f.listing("d").len(), 2);

    f.delete("e/f/g");
    f.change(OriginChangeKind::Deleted(key("e/f/g")));
    assert!(f.lookup("e").unwrap().is_none());
    assert_eq!(f.listing(""), ["d/"]);
    f.store
        .rename(f.bucket.id, "d", "moved", RenameMode::Replace)
        .unwrap();
    f.change(OriginChangeKind::RenamedTree {
        from: key("d/"),
        to: "moved/".to_owned(),
    });
    assert!(f.lookup("d/k").unwrap().is_none());
    assert_eq!(f.listing(""), ["moved/"]);

    let told: Vec<_> = std::iter::from_fn(|| subscription.next_blocking(Duration::ZERO)).collect();
    assert_eq!(told.len(), 5);
    assert_eq!(told[3].kind, ChangeKind::Deleted);
    assert!(told.windows(2).all(|two| two[0].sequence < two[1].sequence));
}

#[test]
fn what_is_known_ages_fast_again_when_changes_are_not_told_any_more() {
    let f = fixture();
    f.remote.follow();
    f.put("k", b"one");
    let one = f.file("k");
    f.clock.advance(60);
    f.put("k", b"two");
    f.remote.unfollow();
    assert_ne!(f.file("k").ino, one.ino);
    assert_eq!(f.remote.answer_age_max(), Duration::from_secs(1));
}

#[test]
fn a_version_that_is_gone_is_stale_and_the_next_look_has_the_new_one() {
    let f = fixture();
    let old: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    f.put("k", &old);
    let entry = f.file("k");
    let content = f.remote.open(&entry).unwrap();
    let part = content.read_at_blocking(5000, 4096).unwrap();
    assert_eq!(part, old[5000..9096]);
    assert_eq!(
        content.read_at_blocking(399_990, 99).unwrap(),
        old[399_990..]
    );
    assert!(content.read_at_blocking(400_000, 1).unwrap().is_empty());
    f.put("k", b"new");
    let stale = content.read_at_blocking(0, 4096);
    assert!(matches!(stale, Err(Error::Superseded(key)) if key.as_str() == "k"));
    assert_eq!(f.read(&f.file("k")).unwrap(), b"new");
    f.delete("k");
    let gone = f.remote.open(&f.file("k")).unwrap();
    assert!(matches!(
        gone.read_at_blocking(0, 9),
        Err(Error::Superseded(_))
    ));
    assert!(f.lookup("k").unwrap().is_none());
}

#[test]
fn a_range_streams_the_bytes() {
    let f = fixture();
    f.put("k", &[9; 5000]);
    let content = f.remote.open(&f.file("k")).unwrap();
    let mut stream = content.range(10, 4000);
    let mut len = 0;
    while let Some(frame) = f.runtime.block_on(stream.next()) {
        len += frame.unwrap().len();
    }
    assert_eq!((len, stream.remaining()), (4000, 0));
    let mut empty = content.range(5000, 0);
    assert!(f.runtime.block_on(empty.next()).is_none());
}

#[test]
fn without_the_origin_what_is_known_holds_and_the_rest_fails() {
    let f = fixture();
    f.put("k", b"bytes");
    let entry = f.file("k");
    f.unplug(true);
    assert_eq!(f.file("k").ino, entry.ino);
    for err in [
        f.lookup("other").unwrap_err(),
        f.remote
            .list_directory(f.there.id, "", None, 9)
            .unwrap_err(),
        f.read(&entry).unwrap_err(),
    ] {
        assert!(matches!(err, Error::OriginUnavailable(_)), "{err}");
    }
    f.clock.advance(10);
    assert!(matches!(f.lookup("k"), Err(Error::OriginUnavailable(_))));
    f.unplug(false);
    assert_eq!(f.read(&f.file("k")).unwrap(), b"bytes");
    f.deny();
    assert!(matches!(f.lookup("other"), Err(Error::OriginDenied(_))));
    assert!(matches!(f.read(&entry), Err(Error::OriginDenied(_))));
}

#[test]
fn nothing_can_be_changed() {
    let f = fixture();
    f.put("k", b"bytes");
    let id = f.there.id;
    let attributes = FileAttributes::default();
    let refused: [Result<()>; 7] = [
        f.remote.stage_file(None).map(drop),
        f.remote.set_attributes(id, "k", attributes).map(drop),
        f.remote.make_directory(id, "d", attributes).map(drop),
        f.remote.make_node(id, "n", b"", attributes).map(drop),
        f.remote.remove_directory(id, "d"),
        f.remote.remove_file(id, "k"),
        f.remote.rename(id, "k", "l", RenameMode::Replace),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(Error::ReadOnly(_))));
    }
    assert!(f.lookup("k").unwrap().is_some());
}

/// Notes how it was asked, and has a file for everything.
#[derive(Debug)]
struct Watched(Mutex<Vec<Directive>>);

#[derive(Debug)]
struct TempFile(std::fs::File);

impl WholeFile for TempFile {
    fn file(&self) -> &std::fs::File {
        &self.0
    }
}

impl Reader for Watched {
    fn read(&self, _: &Arc<Version>, directive: Directive, range: Range<u64>) -> Reading {
        self.0.lock().unwrap().push(directive);
        let len = usize::try_from(range.end - range.start).unwrap();
        let bytes = Ok(vec![0; len].into());
        Reading {
            chunks: Box::pin(futures_util::stream::iter([bytes])),
            status: CacheStatus::Miss,
        }
    }

    fn prestage(&self, _: &Arc<Version>) {}

    fn whole_file(&self, _: &Arc<Version>) -> Option<Box<dyn WholeFile>> {
        Some(Box::new(TempFile(tempfile::tempfile().unwrap())))
    }
}

#[test]
fn the_stored_cache_control_speaks_before_the_mounts_own_word() {
    let f = fixture();
    let rows = [
        (None, Directive::Use, Directive::Use),
        (None, Directive::NoFill, Directive::NoFill),
        (Some("max-age=3"), Directive::NoFill, Directive::NoFill),
        (Some("no-cache"), Directive::Bypass, Directive::NoFill),
        (Some("private, no-store"), Directive::Use, Directive::Bypass),
    ];
    for (n, (stored, option, expected)) in rows.into_iter().enumerate() {
        let key = format!("k{n}");
        f.put_with(&Put {
            key: &key,
            bytes: b"bytes",
            cache_control: stored,
            ..Put::default()
        });
        let reader = Arc::new(Watched(Mutex::default()));
        let remote = RemoteFiles::new(
            RemoteConfig {
                directive: option,
                ..RemoteConfig::default()
            },
            Arc::clone(&f.origin) as _,
            Arc::clone(&reader) as _,
            Arc::clone(&f.clock) as Arc<dyn Clock>,
            f.runtime.handle().clone(),
        );
        let bucket = remote.bucket(&f.there.name).unwrap();
        let content = remote.open(&file(&remote, bucket.id, &key)).unwrap();
        content.read_at_blocking(0, 5).unwrap();
        assert_eq!(*reader.0.lock().unwrap(), [expected]);
        assert_eq!(content.file().is_some(), expected != Directive::Bypass);
    }
}
