//! A run of a directory's names, as listings have told them.
//!
//! It begins at the directory's first name, or after the one that somebody wanted to go on after,
//! and grows page by page. One that has become too long loses its first names.
//!
//! # Invariants
//! 1. `items` is in the order of positions, all of them after `from`, and lacks nothing between its
//!    first and its last.

use forebay_store::api::ListAfter;
use forebay_store::time::Timestamp;

use super::catalog::{From, Keys, Listed};

/// Names in one window.
const NAMES_MAX: usize = 1 << 17;

/// A name in a directory, by its full key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// An object.
    File(Listed),
    /// A common prefix, with its slash.
    Directory(String),
}

impl Item {
    /// What it is sorted by.
    pub(super) fn position(&self) -> &str {
        match self {
            Self::File(listed) => &listed.key,
            Self::Directory(prefix) => prefix,
        }
    }
}

/// What a window says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It does not reach so far.
    Unknown,
    /// There is nothing of this name.
    Nothing,
    /// There is an object and no directory.
    File(Listed),
    /// There is a directory.
    Directory,
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    Page(From),
    End,
}

/// A run of a directory's names.
#[derive(Debug)]
pub(super) struct Window {
    /// When its first page was asked for; `None` before that.
    at: Option<Timestamp>,
    /// The position it begins after; `None` if it begins with the first name.
    from: Option<String>,
    items: Vec<Item>,
    next: Next,
}

impl Default for Window {
    fn default() -> Self {
        Self::after(None)
    }
}

/// The position that a listing goes on after.
pub(super) fn position_of(after: &ListAfter) -> &str {
    match after {
        ListAfter::Key(position) | ListAfter::Prefix(position) => position,
    }
}

impl Window {
    /// An empty window that begins after a position.
    pub(super) fn after(position: Option<&str>) -> Self {
        let from = position.map_or(From::Start, |position| {
            // Some services tell a common prefix again when asked for what is after it.
            let beyond = if position.ends_with('/') {
                [position, char::MAX.encode_utf8(&mut [0; 4])].concat()
            } else {
                position.to_owned()
            };
            From::After(beyond)
        });
        Self {
            at: None,
            from: position.map(str::to_owned),
            items: Vec::new(),
            next: Next::Page(from),
        }
    }

    /// When the oldest of what it holds was asked for.
    pub(super) fn at(&self) -> Option<Timestamp> {
        self.at
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether what comes after a position is, or can come to be, in it.
    pub(super) fn reaches(&self, after: Option<&str>) -> bool {
        let begins_before = match (self.from.as_deref(), after) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(from), Some(after)) => from <= after,
        };
        let last = self.last().unwrap_or_default();
        begins_before && (self.next == Next::End || after.is_none_or(|after| after <= last))
    }

    /// The position it ends at so far.
    fn last(&self) -> Option<&str> {
        let last = self.items.last().map(Item::position);
        last.or(self.from.as_deref())
    }

    /// Where its next page begins; `None` if it ends where the directory does.
    pub(super) fn next(&self) -> Option<&From> {
        match &self.next {
            Next::Page(from) => Some(from),
            Next::End => None,
        }
    }

    /// Up to `limit` names after a position that it [reaches](Self::reaches).
    pub(super) fn slice(&self, after: Option<&str>, limit: usize) -> &[Item] {
        let begin = after.map_or(0, |after| {
            self.items.partition_point(|item| item.position() <= after)
        });
        let rest = &self.items[begin..];
        &rest[..limit.min(rest.len())]
    }

    /// Whether nothing comes after this slice of it.
    pub(super) fn ends_with(&self, slice: &[Item]) -> bool {
        let last = slice.last().map(Item::position);
        self.next == Next::End && (last.is_none() || last == self.items.last().map(Item::position))
    }

    /// Takes in the next page, asked for at `at`. `directory` is the prefix that was listed: the
    /// object of just that key is the directory's marker, and no name in it.
    pub(super) fn append(&mut self, directory: &str, page: Keys, at: Timestamp) {
        self.at.get_or_insert(at);
        let last = self.last().unwrap_or_default().to_owned();
        let objects = page.objects.into_iter().map(Item::File);
        let prefixes = page.prefixes.into_iter().map(Item::Directory);
        let mut items: Vec<_> = objects
            .chain(prefixes)
            .filter(|item| item.position() != directory && *item.position() > *last)
            .collect();
        items.sort_by(|one, other| one.position().cmp(other.position()));
        self.items.append(&mut items);
        self.next = page
            .token
            .map_or(Next::End, |token| Next::Page(From::Token(token)));
        if self.items.len() > NAMES_MAX {
            let mut gone = self.items.drain(..NAMES_MAX / 2);
            self.from = gone.next_back().map(|item| item.position().to_owned());
        }
    }

    /// What it says of the name whose key is `key`.
    pub(super) fn seen(&self, key: &str) -> Seen {
        let directory = [key, "/"].concat();
        let begins_before = self.from.as_deref().is_none_or(|from| from < key);
        let last = self.items.last().map(Item::position);
        let ends_after = self.next == Next::End || last.is_some_and(|last| *last >= *directory);
        if self.at.is_none() || !begins_before || !ends_after {
            return Seen::Unknown;
        }
        if self.find(&directory).is_some() {
            return Seen::Directory;
        }
        match self.find(key) {
            Some(Item::File(listed)) => Seen::File(listed.clone()),
            _ => Seen::Nothing,
        }
    }

    fn find(&self, position: &str) -> Option<&Item> {
        let found = self
            .items
            .binary_search_by(|item| item.position().cmp(position));
        found.ok().map(|at| &self.items[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: &str) -> Listed {
        Listed {
            key: key.to_owned(),
            size: 1,
            etag: "e".to_owned(),
            modified_at: Timestamp(0),
        }
    }

    fn page(objects: &[&str], prefixes: &[&str], token: Option<&str>) -> Keys {
        Keys {
            objects: objects.iter().map(|key| listed(key)).collect(),
            prefixes: prefixes.iter().map(|&prefix| prefix.to_owned()).collect(),
            token: token.map(str::to_owned),
            heads: None,
        }
    }

    fn positions(items: &[Item]) -> Vec<&str> {
        items.iter().map(Item::position).collect()
    }

    #[test]
    fn names_are_in_the_order_of_their_bytes_and_the_marker_is_none_of_them() {
        let mut window = Window::default();
        assert_eq!(window.next(), Some(&From::Start));
        window.append(
            "d/",
            page(&["d/", "d/a", "d/b"], &["d/a/"], Some("t")),
            Timestamp(3),
        );
        window.append("d/", page(&["d/b", "d/d"], &["d/c/"], None), Timestamp(4));
        let all = window.slice(None, 9);
        assert_eq!(positions(all), ["d/a", "d/a/", "d/b", "d/c/", "d/d"]);
        assert!(window.ends_with(all) && !window.ends_with(window.slice(None, 4)));
        assert_eq!(positions(window.slice(Some("d/a/"), 2)), ["d/b", "d/c/"]);
        assert_eq!(window.at(), Some(Timestamp(3)));
    }

    #[test]
    fn a_window_knows_how_far_it_reaches() {
        let mut window = Window::default();
        assert_eq!(window.seen("a"), Seen::Unknown);
        window.append(
            "",
            page(&["a", "c", "c-"], &["b/"], Some("t")),
            Timestamp(0),
        );
        assert_eq!(window.seen("a"), Seen::File(listed("a")));
        assert_eq!(window.seen("aa"), Seen::Nothing);
        assert_eq!(window.seen("b"), Seen::Directory);
        assert_eq!(window.seen("c"), Seen::Unknown, "c/ may follow");
        window.append("", page(&[], &["c/"], None), Timestamp(0));
        assert_eq!(window.seen("c"), Seen::Directory);
        assert_eq!(window.seen("z"), Seen::Nothing);
    }

    #[test]
    fn a_window_from_the_middle_does_not_speak_of_what_is_before() {
        let mut window = Window::after(Some("b/"));
        assert_eq!(window.next(), Some(&From::After("b/\u{10ffff}".to_owned())));
        window.append("", page(&["c"], &["b/"], None), Timestamp(0));
        assert_eq!(positions(window.slice(Some("b/"), 9)), ["c"]);
        assert_eq!(window.seen("a"), Seen::Unknown);
        assert!(!window.reaches(None) && !window.reaches(Some("a")));
        assert!(window.reaches(Some("b/")) && window.reaches(Some("c")));
        assert!(window.reaches(Some("d")), "it knows that nothing follows");
        let empty = Window::after(Some("b/"));
        assert!(empty.reaches(Some("b/")) && !empty.reaches(Some("d")));
    }

    #[test]
    fn a_window_that_is_too_long_loses_its_first_names() {
        let mut window = Window::default();
        let keys: Vec<_> = (0..=NAMES_MAX).map(|n| format!("{n:08}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        window.append("", page(&keys, &[], Some("t")), Timestamp(0));
        assert_eq!(window.len(), NAMES_MAX / 2 + 1);
        assert!(!window.reaches(None) && window.reaches(Some(keys[NAMES_MAX])));
    }
}
