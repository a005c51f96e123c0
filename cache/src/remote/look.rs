//! What a path names.

use std::sync::Arc;

use forebay_store::api::Node;
use forebay_store::entry::{Attributes, Bucket, Entry, FileAttributes, OriginEntry, OriginVersion};
use forebay_store::error::Result;
use forebay_store::limits::KEY_LEN_MAX;
use forebay_store::name::{AccountId, ObjectKey};
use forebay_store::rule::posix;
use forebay_store::time::Timestamp;

use super::catalog::{Head, ListKeys, Listed};
use super::known::{Place, Said};
use super::window::Seen;
use super::{ACCOUNT, AttributeSource, RemoteFiles};

/// The key prefix of the directory at `path`.
pub(super) fn prefix_of(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        [path, "/"].concat()
    }
}

/// The path of the directory that a path is in.
pub(super) fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl RemoteFiles {
    /// What a path names, if the origin need not be asked.
    pub(super) fn look_here(&self, bucket: &Bucket, path: &str) -> Option<Said> {
        let certain = |node| Said {
            at: self.clock.now(),
            node,
        };
        if path.is_empty() {
            return Some(certain(Some(Node::Directory(None))));
        }
        if path.len() > KEY_LEN_MAX {
            return Some(certain(None));
        }
        let said = self.known.said(&(bucket.id, path.into()))?;
        self.is_fresh(said.at).then_some(said)
    }

    /// What a path names.
    pub(super) async fn look(&self, bucket: &Bucket, path: &str) -> Result<Option<Node>> {
        if let Some(said) = self.look_here(bucket, path) {
            return Ok(said.node);
        }
        let place: Place = (bucket.id, path.into());
        let ticket = self.known.ticket(&place);
        let at = self.clock.now();
        let by_listing = self.config.attributes == AttributeSource::Listing;
        let node = match self.seen(bucket, path).await {
            Seen::Nothing => return Ok(None),
            Seen::File(listed) if by_listing => {
                return Ok(Some(Node::File(self.listed_entry(bucket, &listed)?)));
            }
            Seen::Directory => {
                let marker = self.head(bucket, &prefix_of(path)).await?;
                Some(Node::Directory(marker))
            }
            Seen::File(_) => match self.head(bucket, path).await? {
                Some(entry) => Some(Node::File(entry)),
                // It was deleted since, and perhaps a directory was made.
                None => self.ask(bucket, path).await?,
            },
            Seen::Unknown => self.ask(bucket, path).await?,
        };
        let said = Said {
            at,
            node: node.clone(),
        };
        self.known.keep(ticket, &place, said);
        Ok(node)
    }

    /// What the listing of its directory says of a path.
    async fn seen(&self, bucket: &Bucket, path: &str) -> Seen {
        let directory = (bucket.id, parent_of(path).into());
        let Some(window) = self.known.kept_window(&directory) else {
            return Seen::Unknown;
        };
        let window = window.lock().await;
        match window.at() {
            Some(at) if self.is_fresh(at) => window.seen(path),
            _ => Seen::Unknown,
        }
    }

    /// Asks the origin for the object and for what is below it.
    async fn ask(&self, bucket: &Bucket, path: &str) -> Result<Option<Node>> {
        let prefix = prefix_of(path);
        let below = ListKeys {
            bucket: bucket.name.as_str().to_owned(),
            prefix: prefix.clone(),
            limit: 1,
            ..ListKeys::default()
        };
        let (file, below) = tokio::join!(self.head(bucket, path), self.keys(&below));
        match below?.objects.first() {
            Some(first) if first.key == prefix => {
                let marker = self.head(bucket, &prefix).await?;
                Ok(Some(Node::Directory(marker)))
            }
            Some(_) => Ok(Some(Node::Directory(None))),
            None => Ok(file?.map(Node::File)),
        }
    }

    /// Asks the origin for an object.
    pub(super) async fn head(&self, bucket: &Bucket, key: &str) -> Result<Option<Arc<Entry>>> {
        if key.len() > KEY_LEN_MAX {
            return Ok(None);
        }
        let head = self.catalog.head(bucket.name.as_str(), key).await;
        self.health.asked(&head);
        head?.map(|head| self.head_entry(bucket, head)).transpose()
    }

    pub(super) fn head_entry(&self, bucket: &Bucket, head: Head) -> Result<Arc<Entry>> {
        let directory = head.listed.key.ends_with('/');
        let file = posix::from_metadata(&head.user_metadata, directory);
        let attributes = Attributes {
            headers: head.headers,
            user_metadata: head.user_metadata,
            tags: Vec::new(),
            storage_class: head.storage_class,
        };
        self.entry(bucket, &head.listed, attributes, file)
    }

    /// What a listing says of an object, as an entry.
    pub(super) fn listed_entry(&self, bucket: &Bucket, listed: &Listed) -> Result<Arc<Entry>> {
        self.entry(
            bucket,
            listed,
            Attributes::default(),
            FileAttributes::default(),
        )
    }

    pub(super) fn entry(
        &self,
        bucket: &Bucket,
        listed: &Listed,
        attributes: Attributes,
        file: FileAttributes,
    ) -> Result<Arc<Entry>> {
        let key = ObjectKey::parse(&listed.key)?;
        // Listings have a fraction and headers have none.
        let modified_at = Timestamp::from_parts(listed.modified_at.seconds(), 0);
        let ino = self
            .numbers
            .version(bucket.id, &listed.key, &listed.etag, listed.size);
        Ok(Arc::new(Entry::from(OriginEntry {
            id: self.numbers.entry(ino, modified_at, &file),
            ino,
            bucket: bucket.id,
            key,
            size: listed.size,
            modified_at,
            owner: AccountId::new(ACCOUNT),
            attributes,
            file,
            version: OriginVersion {
                etag: listed.etag.clone(),
                version_id: None,
            },
        })))
    }
}
