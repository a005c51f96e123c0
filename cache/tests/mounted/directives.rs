//! The table of directives on the mount, times who says it, times what the cache has; each cell is
//! checked by what the origin was asked for.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_cache::remote::RemoteConfig;
use forebay_cache::{Directive, Keep, Version};
use forebay_store::Objects as _;
use forebay_store::entry::{Attributes, Headers};
use forebay_store::name::ObjectKey;

use crate::tap::Seen;
use crate::xattr::{self, CONTROL, STATUS};
use crate::{Access, Fixture, pattern};

const MIB: usize = 1 << 20;
const LEN: usize = 2 * MIB + MIB / 2;
const BLOCKS: u64 = 3;

/// What the cache has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing.
    Cold,
    /// All of the current version.
    Warm,
    /// All of another version.
    Stale,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Nobody.
    Nobody,
    /// `open(2)`.
    Open,
    /// The file's extended attribute.
    File,
    /// That of a directory two levels above.
    Directory,
    /// The header that the object is stored with.
    Stored,
    /// The mount's option.
    Option,
}

/// What reading twice comes to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    /// Bytes that the origin was asked for by the first reading, and by the second.
    fetched: [usize; 2],
    /// Blocks that are in the cache more than before.
    kept: u64,
}

/// What each cell is to come to.
fn expected(word: Directive, before: Before) -> Came {
    let current = before == Before::Warm;
    let (fetched, kept) = match word {
        Directive::Use | Directive::NoFill if current => ([0, 0], 0),
        Directive::Use => ([LEN, 0], BLOCKS),
        Directive::NoFill | Directive::Bypass => ([LEN, LEN], 0),
    };
    Came { fetched, kept }
}

/// What the extended attribute says after the first reading.
fn status(word: Directive, before: Before) -> &'static [&'static str] {
    match (word, before) {
        (Directive::Bypass, _) => &["bypass"],
        (_, Before::Warm) => &["hit"],
        (Directive::NoFill, _) => &["miss"],
        // What was read ahead is there by the time it is read.
        (Directive::Use, _) => &["miss", "partial"],
    }
}

/// Bytes of a key that were asked for.
fn fetched(seen: &[Seen], key: &str) -> usize {
    let line = format!("GET /bucket/{key}");
    let gets = seen.iter().filter(|seen| seen.line() == line);
    gets.map(|get| {
        let range = get.header("range").expect("a range");
        let (first, last) = range["bytes=".len()..].split_once('-').expect("two ends");
        let number = |text: &str| text.parse::<usize>().expect("a number");
        number(last) - number(first) + 1
    })
    .sum()
}

fn metadata(directive: Option<Directive>) -> Vec<(String, Vec<u8>)> {
    let mut metadata = Vec::new();
    Directive::keep_in(&mut metadata, directive);
    metadata
}

impl Fixture {
    /// Puts an object with what is said of the cache.
    fn put_saying(&self, key: &str, bytes: &[u8], by: By, word: Directive) {
        let stored = (by == By::Stored).then(|| word.word().to_owned());
        let attributes = Attributes {
            headers: Headers {
                cache_control: stored,
                ..Headers::default()
            },
            user_metadata: metadata((by == By::File).then_some(word)),
            ..Attributes::default()
        };
        self.put_with(key, bytes, attributes);
    }

    /// Has all of the current version in the cache, whatever is said.
    fn warm(&self, key: &str) {
        let name = ObjectKey::parse(key).expect("a key");
        let head = self.store.head(self.bucket.id, &name, None);
        let entry = self.there.block_on(head).expect("there");
        let version = Arc::new(Version {
            bucket: "bucket".to_owned(),
            key: key.to_owned(),
            etag: entry.etag.to_string(),
            version_id: None,
            size: entry.size,
        });
        let source = Arc::clone(&self.source);
        let fill = self.cache.fill(&version, source, Keep::Evictable, |_| {});
        self.here.block_on(fill).expect("filled");
    }

    fn kept(&self) -> u64 {
        self.disk.status().blocks
    }

    fn wait_for_blocks(&self, count: u64, cell: &str) {
        let began_at = Instant::now();
        while self.kept() < count && began_at.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(self.kept(), count, "{cell}");
    }

    fn seen(&self) -> Vec<Seen> {
        self.tap.as_ref().expect("watched").take()
    }
}

fn read(path: &Path, by: By) -> Vec<u8> {
    let flags = if by == By::Open { libc::O_DIRECT } else { 0 };
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags).open(path);
    let file = file.expect("open");
    let mut bytes = vec![0; LEN];
    for (n, piece) in bytes.chunks_mut(MIB).enumerate() {
        file.read_exact_at(piece, (n * MIB) as u64).expect("read");
    }
    bytes
}

fn check(f: &Fixture, by: By, word: Directive, before: Before) {
    let cell = format!("{by:?} {word:?} {before:?}");
    let dir = format!("{by:?}-{}-{before:?}", word.word());
    let key = format!("{dir}/sub/k");
    let (old, new) = (pattern(LEN, 1), pattern(LEN, 2));
    if by == By::Directory {
        let attributes = Attributes {
            user_metadata: metadata(Some(word)),
            ..Attributes::default()
        };
        f.put_with(&format!("{dir}/"), b"", attributes);
    }
    f.put_saying(&key, &old, by, word);
    let mut body = &old;
    if before != Before::Cold {
        f.warm(&key);
    }
    if before == Before::Stale {
        f.put_saying(&key, &new, by, word);
        body = &new;
    }
    let kept = f.kept();
    f.seen();
    let want = expected(word, before);
    let path = f.path(&key);
    for (round, fetches) in want.fetched.into_iter().enumerate() {
        assert!(read(&path, by) == *body, "{cell}: the current bytes");
        f.wait_for_blocks(kept + want.kept, &cell);
        assert_eq!(fetched(&f.seen(), &key), fetches, "{cell}, reading {round}");
        if round == 0 {
            let found = xattr::get(&path, STATUS).expect("a status");
            assert!(status(word, before).contains(&&*found), "{cell}: {found}");
        }
    }
}

const ALL: [Before; 3] = [Before::Cold, Before::Warm, Before::Stale];

#[test]
fn each_cell_asks_the_origin_for_what_it_says() {
    let f = Fixture::watched(RemoteConfig::default(), Access::Read, Directive::Use);
    for before in ALL {
        check(&f, By::Nobody, Directive::Use, before);
        check(&f, By::Open, Directive::Bypass, before);
        for by in [By::File, By::Directory, By::Stored] {
            for word in [Directive::NoFill, Directive::Bypass] {
                check(&f, by, word, before);
            }
        }
    }
    drop(f);
    for word in [Directive::NoFill, Directive::Bypass] {
        let f = Fixture::watched(RemoteConfig::default(), Access::Read, word);
        for before in ALL {
            check(&f, By::Option, word, before);
        }
        // Whatever else speaks does so before the option.
        for by in [By::File, By::Directory] {
            check(&f, by, Directive::Use, Before::Cold);
        }
    }
}

#[test]
fn the_first_that_speaks_counts() {
    use Directive::{Bypass, NoFill, Use};
    let f = Fixture::watched(RemoteConfig::default(), Access::Read, NoFill);
    // The directory above, the one in it, the file, the stored header; what counts of them.
    let rows = [
        (None, None, None, None, NoFill),
        (None, None, None, Some(Bypass), Bypass),
        (None, None, Some(Use), Some(Bypass), Use),
        (Some(Bypass), None, None, Some(NoFill), Bypass),
        (Some(Bypass), Some(Use), None, Some(NoFill), Use),
        (Some(Use), Some(Bypass), Some(NoFill), None, NoFill),
    ];
    for (n, (above, dir, file, stored, counts)) in rows.into_iter().enumerate() {
        let marker = |word: Option<Directive>| Attributes {
            user_metadata: metadata(word),
            ..Attributes::default()
        };
        if above.is_some() {
            f.put_with(&format!("{n}/"), b"", marker(above));
        }
        if dir.is_some() {
            f.put_with(&format!("{n}/d/"), b"", marker(dir));
        }
        let mut attributes = marker(file);
        attributes.headers.cache_control = stored.map(|word| word.word().to_owned());
        let key = format!("{n}/d/k");
        f.put_with(&key, &pattern(LEN, 7), attributes);
        f.seen();
        let want = expected(counts, Before::Cold);
        let kept = f.kept();
        for fetches in want.fetched {
            assert!(
                read(&f.path(&key), By::Nobody) == pattern(LEN, 7),
                "row {n}"
            );
            f.wait_for_blocks(kept + want.kept, &key);
            assert_eq!(fetched(&f.seen(), &key), fetches, "row {n}");
        }
    }
}

#[test]
fn what_is_said_by_the_mount_is_kept_with_the_object() {
    let f = Fixture::of(RemoteConfig::default(), Access::Write);
    f.put("d/k", b"bytes");
    for (path, key) in [("d/k", "d/k"), ("d", "d/")] {
        xattr::set(&f.path(path), CONTROL, "no-store", 0).expect("set");
        assert_eq!(xattr::get(&f.path(path), CONTROL).expect("set"), "no-store");
        let name = ObjectKey::parse(key).expect("a key");
        let head = || {
            let head = f.store.head(f.bucket.id, &name, None);
            f.there.block_on(head).expect("there")
        };
        let says = |entry: &forebay_store::entry::Entry| {
            Directive::kept_in(&entry.attributes.user_metadata)
        };
        assert_eq!(says(&head()), Some(Directive::Bypass), "{key}");
        xattr::remove(&f.path(path), CONTROL).expect("removed");
        assert_eq!(says(&head()), None, "{key}");
    }
    assert_eq!(std::fs::read(f.path("d/k")).expect("read"), b"bytes");
}
