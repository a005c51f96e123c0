//! What only a forebay origin does for mounts.

use forebay_store::api::{Buckets, Files, NewBucket, Node, RenameMode, Usage};
use forebay_store::api::{Face, ListBuckets};
use forebay_store::error::Error;
use forebay_store::name::BucketName;
use forebay_store::rule::posix::{S_IFDIR, S_IFREG};

use super::origin::{Fixture, Put};
use super::{fixture, key, listing};
use crate::remote::RemoteConfig;

fn forebay() -> Fixture {
    Fixture::new(RemoteConfig::default())
        .writable()
        .forebay(None)
}

#[test]
fn a_listing_tells_all_that_looks_would() {
    let f = forebay();
    for n in 0..20 {
        f.put_with(&Put {
            key: &format!("d/{n:02}"),
            bytes: b"bytes",
            metadata: &[("mode", "0640")],
            cache_control: Some("no-cache"),
        });
    }
    f.put_with(&Put {
        key: "d/sub/",
        metadata: &[("mode", "0700")],
        ..Put::default()
    });
    f.put("d/implied/k", b"");
    f.asked();
    let page = f.remote.list_directory(f.there.id, "d", None, 99).unwrap();
    assert_eq!(f.asked(), [("list", 1)].into());
    assert_eq!(page.items.len(), 22);
    for item in &page.items {
        match &item.node {
            Node::File(entry) => {
                assert_eq!(entry.file.mode, Some(S_IFREG | 0o640));
                let stored = entry.attributes.headers.cache_control.as_deref();
                assert_eq!(stored, Some("no-cache"));
                assert_eq!(f.file(&format!("d/{}", item.name)).ino, entry.ino);
            }
            Node::Directory(Some(marker)) => {
                assert_eq!(
                    (&*item.name, marker.file.mode),
                    ("sub", Some(S_IFDIR | 0o700))
                );
            }
            Node::Directory(None) => assert_eq!(item.name, "implied"),
        }
    }
    assert!(matches!(
        f.lookup("d/implied"),
        Ok(Some(Node::Directory(None)))
    ));
    assert_eq!(f.asked(), [].into(), "nothing is asked for again");
    f.clock.advance(10);
    f.file("d/00");
    assert_eq!(f.asked(), [("head", 1), ("list", 1)].into(), "it has aged");
}

#[test]
fn what_is_told_after_a_listing_was_asked_for_is_not_hidden_by_it() {
    let f = forebay();
    f.remote.follow();
    f.put("d/k", b"one");
    let tickets = f.remote.known.tickets();
    let one = f.file("d/k");
    f.put("d/k", b"another");
    f.change(super::OriginChangeKind::Published(key("d/k")));
    let place = (f.there.id, "d/k".into());
    let nodes = vec![(place, Node::File(one))];
    f.remote
        .known
        .keep_all(&tickets, f.remote.clock.now(), nodes);
    assert_eq!(f.read(&f.file("d/k")).unwrap(), b"another");
}

#[test]
fn a_rename_is_one_question() {
    let f = forebay();
    f.put("a", b"bytes");
    for n in 0..30 {
        f.put(&format!("d/e/{n}"), b"x");
    }
    let (a, one) = (f.file("a").ino, f.file("d/e/1").ino);
    let rename = |from: &str, to: &str, mode| f.remote.rename(f.there.id, from, to, mode);
    f.asked();
    rename("a", "b", RenameMode::Replace).unwrap();
    rename("d", "moved", RenameMode::NoReplace).unwrap();
    assert_eq!(f.asked(), [("rename", 2)].into());
    assert_eq!(f.file("b").ino, a);
    assert_eq!(
        f.file("moved/e/1").ino,
        one,
        "what is known keeps its number"
    );
    assert_eq!(listing(&f.remote, f.there.id, "moved/e", 99).0.len(), 30);
    assert!(f.lookup("a").unwrap().is_none() && f.lookup("d").unwrap().is_none());
    f.put("c", b"other");
    let c = f.file("c").ino;
    rename("b", "c", RenameMode::Exchange).unwrap();
    assert_eq!((f.file("b").ino, f.file("c").ino), (c, a));
    let refused = rename("b", "c", RenameMode::NoReplace);
    assert!(matches!(refused, Err(Error::Exists(at)) if at.as_str() == "c"));
    let refused = rename("b", "moved", RenameMode::Replace);
    assert!(matches!(refused, Err(Error::IsDirectory(_))));
}

#[test]
fn what_was_put_meanwhile_under_the_old_name_is_not_deleted() {
    let f = fixture().writable();
    f.put("a", b"bytes");
    let entry = f.file("a");
    f.put("a", b"put meanwhile");
    let deleted = f.runtime.block_on(f.remote.delete_entry(&f.there, &entry));
    assert!(matches!(deleted, Err(Error::Superseded(_))));
    assert_eq!(f.read(&f.file("a")).unwrap(), b"put meanwhile");
}

#[test]
fn buckets_are_made_and_removed() {
    let f = fixture().writable();
    let name = BucketName::parse("another").unwrap();
    let new = || NewBucket {
        name: name.clone(),
        owner: f.remote.mount_account(),
        location: None,
        face: Face::Mount,
    };
    let all = || {
        let all = f.remote.list_buckets(ListBuckets::default());
        let (all, _) = f.runtime.block_on(all).unwrap();
        all.iter()
            .map(|one| one.name.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(all(), ["bucket"]);
    let made = f.runtime.block_on(f.remote.create_bucket(new())).unwrap();
    assert_eq!(all(), ["another", "bucket"]);
    let again = f.runtime.block_on(f.remote.create_bucket(new()));
    assert!(matches!(again, Err(Error::BucketExists { .. })));
    let delete = |name: &BucketName| {
        let removed = f.remote.delete_bucket(name.clone(), Face::Mount);
        f.runtime.block_on(removed)
    };
    f.put("k", b"bytes");
    let kept = delete(&f.there.name);
    assert!(matches!(kept, Err(Error::BucketNotEmpty(_))));
    delete(&made.name).unwrap();
    assert_eq!(all(), ["bucket"]);
    let gone = f.remote.bucket(&made.name);
    assert!(matches!(gone, Err(Error::NoSuchBucket(_))));
}

#[test]
fn space_is_the_origins_word_or_large() {
    let told = Usage {
        total: 1000,
        available: 10,
        inodes_available: 3,
    };
    let f = fixture().forebay(Some(told));
    f.asked();
    assert_eq!(f.remote.usage().unwrap(), told);
    assert_eq!(f.remote.usage().unwrap(), told);
    assert_eq!(f.asked(), [("space", 1)].into());
    f.clock.advance(10);
    f.unplug(true);
    assert_eq!(f.remote.usage().unwrap(), told, "what it was");
    let f = fixture();
    let usage = f.remote.usage().unwrap();
    assert!(usage.available >= 1 << 50 && usage.inodes_available > 1 << 30);
}
