use super::*;
use forebay_store::name::{AccountId, BucketName};

fn attr(mode: u32) -> Attr {
    let at = Timestamp(1);
    Attr {
        mode,
        uid: 0,
        gid: 0,
        size: 0,
        atime: at,
        mtime: at,
        ctime: at,
        rdev: 0,
    }
}

fn bucket(id: u64, name: &str) -> Arc<Bucket> {
    Arc::new(Bucket {
        id: BucketId(id),
        name: BucketName::parse(name).expect("a good name"),
        owner: AccountId::new("owner"),
        created_at: Timestamp(0),
        location: None,
    })
}

/// A tree of one bucket.
struct Fixture {
    tree: Tree,
    bucket: Arc<Bucket>,
}

impl Fixture {
    fn new() -> Self {
        let bucket = bucket(1, "bucket");
        let root = Place::In(Arc::clone(&bucket), String::new());
        Self {
            tree: Tree::new(root, attr(libc::S_IFDIR)),
            bucket,
        }
    }

    /// As the kernel's lookup of a file of version `version` does.
    fn file(&mut self, parent: u64, name: &str, version: u64) -> u64 {
        let binding = Binding {
            parent,
            name,
            attr: attr(libc::S_IFREG),
            shows: Some(version),
        };
        let ino = self.tree.bind_file(&binding, version);
        self.tree.remember(ino);
        self.tree.assert_consistent();
        ino
    }

    fn dir(&mut self, parent: u64, name: &str) -> u64 {
        let path = match self.tree.place(parent) {
            Some(Place::In(_, path)) => crate::path::join(&path, name),
            _ => panic!("no place"),
        };
        let binding = Binding {
            parent,
            name,
            attr: attr(libc::S_IFDIR),
            shows: None,
        };
        let ino = self.tree.bind_dir(&binding, &self.bucket, &path, None);
        self.tree.remember(ino);
        self.tree.assert_consistent();
        ino
    }

    fn pending(&mut self, parent: u64, name: &str, ino: u64) {
        let binding = Binding {
            parent,
            name,
            attr: attr(libc::S_IFREG),
            shows: None,
        };
        self.tree
            .add_file(ino, &binding, Arc::new(OpenFile::new(ino)));
        self.tree.remember(ino);
        self.tree.assert_consistent();
    }

    fn path(&self, ino: u64) -> Option<String> {
        match self.tree.place(ino)? {
            Place::In(_, path) => Some(path),
            Place::Buckets => None,
        }
    }
}

#[test]
fn renaming_a_directory_moves_all_below_it() {
    let mut f = Fixture::new();
    let (a, other) = (f.dir(ROOT, "a"), f.dir(ROOT, "other"));
    let b = f.dir(a, "b");
    let file = f.file(b, "f", 7);
    f.tree.rename(a, other, "moved");
    f.tree.assert_consistent();
    assert_eq!(f.path(file).as_deref(), Some("other/moved/b/f"));
    assert_eq!(f.tree.child(ROOT, "a"), None);
    let again = f.dir(ROOT, "a");
    assert_ne!(again, a, "the moved directory keeps its number");
}

#[test]
fn an_object_put_over_s3_is_a_new_inode() {
    let mut f = Fixture::new();
    let old = f.file(ROOT, "f", 7);
    assert_eq!(f.file(ROOT, "f", 7), old);
    let new = f.file(ROOT, "f", 8);
    assert_eq!((old, new), (7, 8));
    assert_eq!(
        f.tree.get(old).map(|node| node.link),
        Some(Link::Superseded)
    );
    assert_eq!(f.tree.child(ROOT, "f"), Some(new));
}

#[test]
fn what_the_kernel_forgets_is_dropped_with_what_only_it_needed() {
    let mut f = Fixture::new();
    let a = f.dir(ROOT, "a");
    let file = f.file(a, "f", 7);
    f.tree.forget(a, 1);
    f.tree.assert_consistent();
    assert!(f.tree.get(a).is_some(), "its child needs it");
    f.tree.forget(file, 1);
    f.tree.assert_consistent();
    assert!(f.tree.get(a).is_none());
    assert!(f.tree.get(file).is_none());
}

#[test]
fn a_pending_file_is_listed_until_it_is_published_and_kept_while_it_is_open() {
    let mut f = Fixture::new();
    let dir = f.dir(ROOT, "d");
    f.pending(dir, "new", 9);
    assert_eq!(f.tree.pending_child(dir, "new"), Some(9));
    f.tree.forget(9, 1);
    assert!(f.tree.get(9).is_some(), "it is open");
    let to = f.dir(ROOT, "to");
    f.tree.rename(9, to, "newer");
    f.tree.assert_consistent();
    assert_eq!(f.tree.pending_child(to, "newer"), Some(9));
    f.tree.published(9, 9);
    f.tree.assert_consistent();
    assert_eq!(f.tree.pending(to).next(), None);
    assert_eq!(f.tree.child(to, "newer"), Some(9));
    f.tree.closed(9);
    f.tree.assert_consistent();
    assert!(f.tree.get(9).is_none());
}

#[test]
fn what_was_superseded_while_it_was_written_takes_its_name_back() {
    let mut f = Fixture::new();
    let old = f.file(ROOT, "f", 7);
    f.tree.get_mut(old).expect("bound").file = Some(Arc::new(OpenFile::new(old)));
    let new = f.file(ROOT, "f", 8);
    assert_eq!(f.tree.superseded_writers(ROOT, "f"), [old]);
    f.tree.published(old, old);
    f.tree.assert_consistent();
    assert_eq!(f.tree.child(ROOT, "f"), Some(old));
    assert_eq!(
        f.tree.get(new).map(|node| node.link),
        Some(Link::Superseded)
    );
}

#[test]
fn a_fork_leaves_the_old_inode_to_its_readers() {
    let mut f = Fixture::new();
    let old = f.file(ROOT, "f", 7);
    f.tree.get_mut(old).expect("bound").file = Some(Arc::new(OpenFile::new(old)));
    f.tree.fork(old, 20, 7);
    f.tree.assert_consistent();
    assert_eq!(
        f.file(ROOT, "f", 7),
        20,
        "the store still says version 7, the name leads to the fork"
    );
    f.tree.forget(20, 1);
    f.tree.assert_consistent();
    assert_eq!(
        f.file(ROOT, "f", 7),
        20,
        "the kernel may forget a fork between finding and opening it"
    );
    f.tree.forget(20, 1);
    f.tree.closed(old);
    assert_eq!(f.file(ROOT, "f", 7), old, "nobody reads the old one");
}

#[test]
fn exchanged_names_lead_to_each_others_inodes() {
    let mut f = Fixture::new();
    let a = f.dir(ROOT, "a");
    let (one, other) = (f.file(a, "one", 7), f.file(ROOT, "other", 8));
    f.tree.exchange(one, other);
    f.tree.assert_consistent();
    assert_eq!(f.path(one).as_deref(), Some("other"));
    assert_eq!(f.path(other).as_deref(), Some("a/one"));
}

#[test]
fn buckets_are_found_by_their_number() {
    let own = bucket(5, "five");
    let mut tree = Tree::new(Place::Buckets, attr(libc::S_IFDIR));
    let binding = Binding {
        parent: ROOT,
        name: "five",
        attr: attr(libc::S_IFDIR),
        shows: None,
    };
    let ino = tree.bind_dir(&binding, &own, "", Some(&own));
    assert_eq!(tree.bucket_root(BucketId(5)), Some((ino, "")));
    assert_eq!(tree.bucket_root(BucketId(6)), None);
    assert!(matches!(tree.place(ino), Some(Place::In(_, path)) if path.is_empty()));
    let again = bucket(6, "five");
    let other = tree.bind_dir(&binding, &again, "", Some(&again));
    assert_ne!(ino, other, "a bucket made again is another one");
    tree.assert_consistent();
}

#[test]
fn what_was_unlinked_has_no_place() {
    let mut f = Fixture::new();
    let a = f.dir(ROOT, "a");
    let file = f.file(a, "f", 7);
    f.tree.unlink(a, Link::Unlinked);
    f.tree.assert_consistent();
    assert_eq!(f.path(a), None);
    assert_eq!(f.path(file), None);
}
