//! When leases begin and end, by a clock of the test's own.

use forebay_store::entry::{Attributes, BucketId, FileAttributes, OriginEntry, OriginVersion};
use forebay_store::name::{AccountId, ObjectKey};
use forebay_store::time::Timestamp;

use super::*;

const TERM: Duration = Duration::from_secs(10);
const SCOPE: &str = "20130524/us-east-1/AKID";

fn object(key: &str) -> Object {
    let owner = AccountId::new("owner");
    let version = Version {
        bucket: "b".to_owned(),
        key: key.to_owned(),
        etag: "e".to_owned(),
        version_id: None,
        size: 5,
    };
    let entry = Entry::from(OriginEntry {
        id: 0,
        ino: 0,
        bucket: BucketId(0),
        key: ObjectKey::parse(key).unwrap(),
        size: 5,
        modified_at: Timestamp(0),
        owner,
        attributes: Attributes::default(),
        file: FileAttributes::default(),
        version: OriginVersion {
            etag: "e".to_owned(),
            version_id: None,
        },
    });
    Object {
        entry,
        version: Arc::new(version),
        bucket_owner: "owner".to_owned(),
    }
}

fn key() -> Key {
    let account = Account {
        id: AccountId::new("owner"),
        name: String::new(),
        created_at: Timestamp(0),
    };
    Key {
        signing_key: SigningKey::derive("secret", "20130524", "us-east-1"),
        account: Arc::new(account),
    }
}

fn at(epoch: u64, sequence: u64) -> Position {
    Position { epoch, sequence }
}

/// A table, and a moment from which a test counts.
struct Site {
    table: Table,
    began_at: Instant,
}

impl Site {
    fn new() -> Self {
        Self {
            table: Table::new(TERM),
            began_at: Instant::now(),
        }
    }

    /// With a feed that was confirmed at the beginning, at change 10 of run 1.
    fn followed() -> Self {
        let mut site = Self::new();
        site.table.confirm(at(1, 10), true, site.began_at);
        site
    }

    fn now(&self, after_s: u64) -> Instant {
        self.began_at + Duration::from_secs(after_s)
    }

    fn ask(&mut self, after_s: u64) -> Ask {
        let now = self.now(after_s);
        self.table.ask(now)
    }

    fn take(&mut self, ask: Ask, position: Position, name: &str) -> bool {
        let (_, of) = name.split_once('/').unwrap();
        let object = (name.to_owned(), object(of));
        self.table
            .take(ask, position, object, (SCOPE.to_owned(), key()))
    }

    fn lease(&mut self, after_s: u64, position: Position, name: &str) -> bool {
        let ask = self.ask(after_s);
        self.take(ask, position, name)
    }

    fn is_fresh(&mut self, after_s: u64, name: &str) -> bool {
        let now = self.now(after_s);
        self.table.find(name, SCOPE, Need::Fresh, now).is_some()
    }

    fn age_s(&mut self, after_s: u64, max_s: u64, name: &str) -> Option<u64> {
        let (now, need) = (self.now(after_s), Need::Within(Duration::from_secs(max_s)));
        let (_, _, age) = self.table.find(name, SCOPE, need, now)?;
        Some(age.as_secs())
    }
}

#[test]
fn a_lease_is_fresh_for_a_term_after_each_sign_of_the_feed() {
    let mut site = Site::followed();
    assert!(site.lease(1, at(1, 10), "b/k"));
    assert!(site.is_fresh(9, "b/k"));
    assert!(!site.is_fresh(10, "b/k"), "no sign for a term");
    for after_s in (8..3600).step_by(8) {
        let asked_at = site.now(after_s);
        site.table.confirm(at(1, 10), false, asked_at);
        assert!(site.is_fresh(after_s + 1, "b/k"), "{after_s}");
    }
    let asked_at = site.now(3601);
    site.table.confirm(at(1, 10), false, asked_at);
    assert!(!site.is_fresh(3602, "b/k"), "an hour is over");
}

#[test]
fn without_a_feed_nothing_is_fresh() {
    let mut site = Site::new();
    assert!(site.lease(0, at(1, 10), "b/k"));
    assert!(!site.is_fresh(0, "b/k"));
    let asked_at = site.now(1);
    site.table.confirm(at(1, 10), true, asked_at);
    assert!(!site.is_fresh(1, "b/k"), "of before");
    assert!(site.lease(1, at(1, 10), "b/k") && site.is_fresh(2, "b/k"));
    assert!(site.table.lose() && !site.table.lose());
    assert!(!site.is_fresh(2, "b/k"), "at once");
    let asked_at = site.now(3);
    site.table.confirm(at(1, 12), false, asked_at);
    assert!(site.is_fresh(3, "b/k"), "nothing was missed");
    let asked_at = site.now(4);
    site.table.confirm(at(1, 90), true, asked_at);
    assert!(!site.is_fresh(4, "b/k"), "something was");
}

#[test]
fn another_run_of_the_origin_is_another_feed() {
    let mut site = Site::followed();
    assert!(site.lease(0, at(2, 3), "b/new"));
    assert!(!site.is_fresh(1, "b/new"), "its feed is not heard yet");
    assert!(site.lease(0, at(1, 10), "b/k") && site.is_fresh(1, "b/k"));
    site.table.changed("b/k", 90);
    let asked_at = site.now(2);
    site.table.confirm(at(2, 3), true, asked_at);
    assert!(!site.is_fresh(3, "b/new"), "of before");
    assert!(
        site.lease(3, at(2, 4), "b/k") && site.is_fresh(3, "b/k"),
        "sequences begin anew"
    );
}

#[test]
fn a_change_ends_what_it_concerns() {
    let mut site = Site::followed();
    let names = ["b/k", "b/dir/k", "b/moved/k", "c/k"];
    let lease_all = |site: &mut Site, sequence| {
        for name in names {
            assert!(site.lease(0, at(1, sequence), name), "{name}");
        }
    };
    let fresh = |site: &mut Site| names.map(|name| site.is_fresh(1, name));
    lease_all(&mut site, 10);
    assert_eq!(site.table.changed("b/k", 11), 1);
    assert_eq!(fresh(&mut site), [false, true, true, true]);
    lease_all(&mut site, 11);
    let below = [name("b", "dir/"), name("b", "moved/")];
    assert_eq!(site.table.changed_below(&below, 12), 2);
    assert_eq!(fresh(&mut site), [true, false, false, true]);
    lease_all(&mut site, 12);
    assert_eq!(site.table.changed_below(&[name("b", "")], 13), 3);
    assert_eq!(fresh(&mut site), [false, false, false, true]);
    assert_eq!(site.table.changed_accounts(14), 1);
    assert_eq!(fresh(&mut site), [false; 4]);
    lease_all(&mut site, 14);
    assert_eq!(site.table.changed_all(15), 5);
    assert_eq!(fresh(&mut site), [false; 4]);
}

#[test]
fn what_a_change_has_overtaken_is_not_taken() {
    let mut site = Site::followed();
    let ask = site.ask(0);
    site.table.changed("b/k", 11);
    assert!(
        !site.take(ask, at(1, 10), "b/k"),
        "it does not have the change"
    );
    assert!(site.take(ask, at(1, 11), "b/k"), "it has");
    let ask = site.ask(0);
    site.table.changed("b/k", 12);
    assert!(!site.take(ask, at(1, 11), "b/k"));
    assert!(!site.is_fresh(0, "b/k"), "nor is what was there before");
    site.table.changed_below(&[name("c", "")], 20);
    assert!(!site.lease(0, at(1, 19), "c/k"));
    // Accounts: the object is as it was, but nobody is known who reads it.
    site.table.changed_accounts(30);
    assert!(site.lease(0, at(1, 29), "b/l") && !site.is_fresh(0, "b/l"));
    assert!(site.lease(0, at(1, 30), "b/l") && site.is_fresh(0, "b/l"));
}

#[test]
fn what_was_asked_before_a_write_through_here_is_not_taken() {
    let mut site = Site::followed();
    assert!(site.lease(0, at(1, 10), "b/k"));
    let before = site.ask(0);
    site.table.wrote("b/k");
    assert!(!site.is_fresh(0, "b/k"));
    assert!(!site.take(before, at(1, 10), "b/k"));
    assert!(site.lease(0, at(1, 10), "b/k"));
    let before = site.ask(0);
    site.table.wrote_in("b");
    assert!(!site.is_fresh(0, "b/k"));
    assert!(!site.take(before, at(1, 10), "b/k"));
    assert!(site.lease(0, at(1, 10), "b/k") && site.is_fresh(0, "b/k"));
}

#[test]
fn how_old_it_is_counts_from_when_it_was_last_true() {
    let mut site = Site::followed();
    assert!(site.lease(1, at(1, 10), "b/k"));
    assert_eq!(site.age_s(5, 60, "b/k"), Some(4));
    let asked_at = site.now(100);
    site.table.confirm(at(1, 10), false, asked_at);
    site.table.lose();
    assert_eq!(site.age_s(160, 60, "b/k"), Some(60));
    assert_eq!(site.age_s(161, 60, "b/k"), None);
    // The origin came up, said that it is another run, and went down.
    let asked_at = site.now(150);
    site.table.confirm(at(2, 0), true, asked_at);
    site.table.lose();
    assert_eq!(
        site.age_s(160, 60, "b/k"),
        Some(60),
        "the new feed says nothing of it"
    );
    let (now, need) = (site.now(160), Need::Within(Duration::from_mins(1)));
    assert!(site.table.knows(need, now));
    assert!(!site.table.knows(need, now + Duration::from_secs(1)));
    site.table.changed("b/k", 1);
    assert_eq!(site.age_s(150, 60, "b/k"), None, "it is known to be wrong");
}
