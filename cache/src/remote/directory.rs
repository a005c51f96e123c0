//! Pages of directories, out of windows that listings fill.

use std::sync::Arc;

use forebay_store::api::{DirectoryItem, DirectoryPage, ListAfter, Node};
use forebay_store::entry::{Bucket, Entry};
use forebay_store::error::Result;
use forebay_store::limits::KEY_LEN_MAX;
use forebay_store::rule::posix::is_name;
use forebay_store::time::Timestamp;

use super::catalog::{KeyHeads, ListKeys, Listed};
use super::known::Place;
use super::look::prefix_of;
use super::window::{Item, Seen, Window, position_of};
use super::{AttributeSource, RemoteFiles};

/// Names asked for at a time: the most that S3 gives.
const LIST_LIMIT: u16 = 1000;

/// Names of a directory, as a listing has them.
struct Names {
    /// Each with what the listing says of a directory of its name.
    items: Vec<(Item, Seen)>,
    /// When the oldest was asked for.
    at: Timestamp,
    /// Whether the directory ends with them.
    last: bool,
}

impl RemoteFiles {
    /// A page of the directory at `path`.
    pub(super) async fn page(
        &self,
        bucket: &Bucket,
        path: &str,
        after: Option<&ListAfter>,
        limit: usize,
    ) -> Result<DirectoryPage> {
        let prefix = prefix_of(path);
        let names = self.names(bucket, path, after, limit).await?;
        let mut page = DirectoryPage::default();
        if !names.last {
            page.next = names.items.last().map(|(item, _)| after_item(item));
        }
        for (item, seen) in names.items {
            let name = item.position()[prefix.len()..].trim_end_matches('/');
            let key_len = item.position().len();
            // `a//` is below the directory `a`, and has no name there.
            if !is_name(name) || key_len > KEY_LEN_MAX {
                page.hidden += 1;
                continue;
            }
            let node = match &item {
                Item::Directory(prefix) => self.listed_directory(bucket, prefix, names.at),
                Item::File(listed) => self.listed_file(bucket, listed, &seen, names.at).await?,
            };
            match node {
                Listing::Shown(node) => page.items.push(DirectoryItem {
                    name: name.to_owned(),
                    node,
                }),
                Listing::Hidden => page.hidden += 1,
                Listing::Gone => {}
            }
        }
        Ok(page)
    }

    /// Names after a position, from the window on the directory, which is filled as far as needed.
    async fn names(
        &self,
        bucket: &Bucket,
        path: &str,
        after: Option<&ListAfter>,
        limit: usize,
    ) -> Result<Names> {
        let directory: Place = (bucket.id, path.into());
        let after = after.map(position_of);
        let prefix = prefix_of(path);
        let shared = self.known.window(&directory);
        let mut window = shared.lock().await;
        if window.at().is_some_and(|at| !self.is_fresh(at)) || !window.reaches(after) {
            *window = Window::after(after);
        }
        while window.slice(after, limit).len() < limit && window.next().is_some() {
            self.next_page(bucket, &prefix, &mut window).await?;
            self.known.grown(&directory, &shared, window.len());
        }
        let ends = window.slice(after, limit).last().cloned();
        if let Some(Item::File(last)) = ends
            && window.seen(&last.key) == Seen::Unknown
        {
            // What the window says of its last name, the next page most likely tells.
            self.next_page(bucket, &prefix, &mut window).await?;
            self.known.grown(&directory, &shared, window.len());
        }
        let slice = window.slice(after, limit);
        let items = slice.iter().map(|item| {
            let seen = match item {
                Item::File(listed) => window.seen(&listed.key),
                Item::Directory(_) => Seen::Directory,
            };
            (item.clone(), seen)
        });
        Ok(Names {
            items: items.collect(),
            at: window.at().unwrap_or_else(|| self.clock.now()),
            last: window.ends_with(slice),
        })
    }

    /// Has a window grow by a page, if it can.
    async fn next_page(&self, bucket: &Bucket, prefix: &str, window: &mut Window) -> Result<()> {
        let Some(from) = window.next() else {
            return Ok(());
        };
        let list = ListKeys {
            bucket: bucket.name.as_str().to_owned(),
            prefix: prefix.to_owned(),
            by_directory: true,
            from: from.clone(),
            limit: LIST_LIMIT,
            heads: self.config.attributes == AttributeSource::UserMetadata,
        };
        let tickets = self.known.tickets();
        let at = self.clock.now();
        let mut keys = self.keys(&list).await?;
        let (heads, prefixes) = (keys.heads.take(), keys.prefixes.clone());
        window.append(prefix, keys, at);
        if let Some(heads) = heads {
            let nodes = self.told_nodes(bucket, window, &prefixes, heads)?;
            self.known.keep_all(&tickets, at, nodes);
        }
        Ok(())
    }

    /// What a page that tells heads says of its names: all that a look at each would.
    fn told_nodes(
        &self,
        bucket: &Bucket,
        window: &Window,
        prefixes: &[String],
        heads: KeyHeads,
    ) -> Result<Vec<(Place, Node)>> {
        let mut nodes = Vec::with_capacity(heads.objects.len() + heads.markers.len());
        for head in heads.objects {
            let path: Arc<str> = head.listed.key.as_str().into();
            // A directory hides an object of its name, and may be on the next page. What is no
            // path's is not looked up.
            if matches!(window.seen(&path), Seen::File(_)) && path.len() <= KEY_LEN_MAX {
                let entry = self.head_entry(bucket, head)?;
                nodes.push(((bucket.id, path), Node::File(entry)));
            }
        }
        for (prefix, marker) in prefixes.iter().zip(heads.markers) {
            let path = prefix.strip_suffix('/').unwrap_or(prefix);
            if path.is_empty() || prefix.len() > KEY_LEN_MAX {
                continue;
            }
            let marker = marker.map(|head| self.head_entry(bucket, head));
            let node = Node::Directory(marker.transpose()?);
            nodes.push(((bucket.id, path.into()), node));
        }
        Ok(nodes)
    }

    /// A directory that was listed at `at`, with its marker as far as that is known.
    fn listed_directory(&self, bucket: &Bucket, prefix: &str, at: Timestamp) -> Listing {
        let path = prefix.trim_end_matches('/');
        match self.known.said(&(bucket.id, path.into())) {
            Some(said) if said.at >= at => said.node.map_or(Listing::Gone, Listing::Shown),
            Some(said) => match said.node {
                Some(Node::Directory(marker)) => Listing::Shown(Node::Directory(marker)),
                _ => Listing::Shown(Node::Directory(None)),
            },
            None => Listing::Shown(Node::Directory(None)),
        }
    }

    /// An object that was listed at `at`, with its attributes as far as they are known.
    async fn listed_file(
        &self,
        bucket: &Bucket,
        listed: &Listed,
        seen: &Seen,
        at: Timestamp,
    ) -> Result<Listing> {
        if *seen == Seen::Directory {
            return Ok(Listing::Hidden);
        }
        if *seen == Seen::Unknown {
            // The window ends between the name and where a directory of that name would be.
            return Ok(match self.look(bucket, &listed.key).await? {
                Some(Node::Directory(_)) => Listing::Hidden,
                Some(node) => Listing::Shown(node),
                None => Listing::Gone,
            });
        }
        let entry: Arc<Entry> = self.listed_entry(bucket, listed)?;
        let place = (bucket.id, listed.key.as_str().into());
        Ok(match self.known.confirm(&place, at, &entry) {
            None => Listing::Shown(Node::File(entry)),
            Some(said) => match said.node {
                Some(Node::Directory(_)) => Listing::Hidden,
                Some(node) => Listing::Shown(node),
                None => Listing::Gone,
            },
        })
    }
}

/// What becomes of a name that was listed.
enum Listing {
    Shown(Node),
    /// No path can have it, or a directory has it.
    Hidden,
    /// It was removed since.
    Gone,
}

fn after_item(item: &Item) -> ListAfter {
    match item {
        Item::File(listed) => ListAfter::Key(listed.key.clone()),
        Item::Directory(prefix) => ListAfter::Prefix(prefix.clone()),
    }
}
