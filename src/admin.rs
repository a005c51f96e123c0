//! Administration: what `forebay account` and `forebay key` ask, and how a store answers.
//!
//! A running server owns its data directory, so the commands ask it, over a socket in that
//! directory (`socket.rs`). Where no server runs, the command opens the store and asks it directly.
//! Both ways end in [`perform`].

pub(crate) mod socket;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use forebay_store::name::AccountId;
use forebay_store::{Error, Store, StoreOptions};
use serde::{Deserialize, Serialize};

use crate::cli::MountSource;

/// What can be asked.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    CreateAccount {
        name: String,
    },
    ListAccounts,
    RemoveAccount {
        name: String,
    },
    CreateKey {
        account: String,
    },
    ListKeys {
        account: Option<String>,
    },
    RemoveKey {
        id: String,
    },
    CacheStatus,
    ListCache {
        which: Which,
        after: Option<ListPlace>,
    },
    EvictCache {
        which: Which,
    },
    PinCache {
        which: Which,
        pinned: bool,
    },
    /// What the mount of this process shows.
    ShowMount,
    /// How much of an object is in the cache; the rest is brought in if `bring` says so.
    Warm {
        object: ObjectName,
        bring: bool,
    },
    /// Pins a version, of which all must be in the cache.
    PinObject {
        object: ObjectName,
        etag: String,
    },
}

/// An object by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ObjectName {
    pub(crate) bucket: String,
    pub(crate) key: String,
    /// In bytes, where a version is meant.
    pub(crate) size: Option<u64>,
}

/// Which objects of a cache are meant: all, or those of a bucket whose keys begin so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    pub(crate) bucket: Option<String>,
    pub(crate) prefix: String,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    Done,
    Accounts(Vec<Account>),
    Keys(Vec<Key>),
    NewKey { id: String, secret: String },
    CacheStatus(Box<CacheStatus>),
    Cached(CachedPage),
    Bytes(u64),
    Objects(u64),
    Mount(MountShown),
    Warmth(Warmth),
    Refused(String),
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MountShown {
    /// There is none.
    Nothing,
    /// A directory for each bucket.
    Buckets,
    /// A bucket, or what is below a prefix of it, which has no slash at its end.
    Part { bucket: String, prefix: String },
}

impl From<&MountSource> for MountShown {
    fn from(source: &MountSource) -> Self {
        Self::Part {
            bucket: source.bucket.clone(),
            prefix: source.prefix.clone(),
        }
    }
}

/// How much of an object is in a cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Warmth {
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Bytes that are there.
    pub(crate) cached: u64,
    /// Whether it was taken into the queue of what is to be brought in.
    pub(crate) queued: bool,
    /// Its entity tag, without quotes.
    pub(crate) etag: String,
}

/// What a cache holds and has done.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheStatus {
    pub(crate) origin: String,
    /// Bytes on the disk, those of the index included.
    pub(crate) bytes: u64,
    pub(crate) index_bytes: u64,
    /// Bytes that there may be now.
    pub(crate) capacity_bytes: u64,
    pub(crate) pinned_bytes: u64,
    pub(crate) objects: u64,
    pub(crate) blocks: u64,
    pub(crate) hits: u64,
    pub(crate) partial_hits: u64,
    pub(crate) misses: u64,
    pub(crate) bypasses: u64,
    pub(crate) bytes_from_cache: u64,
    pub(crate) bytes_fetched: u64,
    pub(crate) evicted_blocks: u64,
    pub(crate) corrupt_blocks: u64,
    pub(crate) prestage_queued: u64,
    /// What was read most from the cache lately, the first one first.
    pub(crate) hottest: Vec<HotPrefix>,
    /// None if the node has no peers.
    pub(crate) peers: Option<PeerStatus>,
    /// Why nothing can be put into it; none if it can.
    pub(crate) degraded: Option<String>,
}

/// A prefix, and how much was read below it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HotPrefix {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    /// Those of ten minutes ago count half.
    pub(crate) bytes: u64,
}

/// What the peers of a node are, and have done for each other.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PeerStatus {
    /// Their addresses, and what is known of each.
    pub(crate) list: Vec<(String, String)>,
    /// Requests to them that were answered from their caches.
    pub(crate) hits: u64,
    /// Those for which they asked the origin.
    pub(crate) misses: u64,
    /// Those that did not bring all.
    pub(crate) passed_over: u64,
    pub(crate) bytes_from: u64,
    pub(crate) bytes_to: u64,
}

/// Objects of which there is something in a cache.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CachedPage {
    pub(crate) objects: Vec<CachedObject>,
    /// To ask for the next page with.
    pub(crate) next: Option<ListPlace>,
}

/// Where a page ended: bucket, key, and number of the version.
pub(crate) type ListPlace = (String, String, u64);

/// One of them.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CachedObject {
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) size: u64,
    pub(crate) cached_bytes: u64,
    pub(crate) pinned: bool,
}

/// An account as it is shown.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// An access key as it is shown.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    /// The account's name.
    pub(crate) account: String,
}

/// What the store in `data` answers: through the server that owns it, else directly.
///
/// # Errors
/// Also if the store refuses what was asked.
pub(crate) fn ask(data: &Path, request: Request) -> Result<Reply> {
    if !data.is_dir() {
        let data = data.display();
        bail!("there is no store in {data}: say with --data where it is, or start forebay serve");
    }
    let reply = match socket::ask(data, &request)? {
        Some(reply) => reply,
        None => ask_directly(data, request)?,
    };
    match reply {
        Reply::Refused(why) => bail!("{why}"),
        reply => Ok(reply),
    }
}

fn ask_directly(data: &Path, request: Request) -> Result<Reply> {
    let store = Store::open(StoreOptions::new(data)).context("open the store")?;
    let reply = perform(&store, request);
    store.close().context("close the store")?;
    Ok(reply)
}

/// Does what is asked. Blocks.
pub(crate) fn perform(store: &Store, request: Request) -> Reply {
    match try_perform(store, request) {
        Ok(reply) => reply,
        Err(err) => Reply::Refused(format!("{:#}", anyhow::Error::from(err))),
    }
}

fn try_perform(store: &Store, request: Request) -> Result<Reply, Error> {
    match request {
        Request::CreateAccount { name } => {
            store.create_account_blocking(&name)?;
        }
        Request::ListAccounts => return Ok(list_accounts(store)),
        Request::RemoveAccount { name } => {
            store.remove_account_blocking(&account_id(store, &name)?)?;
        }
        Request::CreateKey { account } => {
            let key = store.create_key_blocking(&account_id(store, &account)?, None)?;
            return Ok(Reply::NewKey {
                id: key.id,
                secret: key.secret.0,
            });
        }
        Request::ListKeys { account } => return list_keys(store, account.as_deref()),
        Request::RemoveKey { id } => store.remove_key_blocking(&id)?,
        Request::CacheStatus
        | Request::ListCache { .. }
        | Request::EvictCache { .. }
        | Request::PinCache { .. }
        | Request::ShowMount
        | Request::Warm { .. }
        | Request::PinObject { .. } => {
            return Ok(Reply::Refused(
                "this is a store: ask in the directory of its cache, if it has one".to_owned(),
            ));
        }
    }
    Ok(Reply::Done)
}

fn account_id(store: &Store, name: &str) -> Result<AccountId, Error> {
    let (accounts, _) = store.accounts();
    let found = accounts.iter().find(|account| account.name == name);
    let account = found.ok_or_else(|| Error::NoSuchAccount(name.to_owned()))?;
    Ok(account.id.clone())
}

fn list_accounts(store: &Store) -> Reply {
    let (accounts, _) = store.accounts();
    let shown = accounts.iter().map(|account| Account {
        id: account.id.as_str().to_owned(),
        name: account.name.clone(),
    });
    Reply::Accounts(shown.collect())
}

fn list_keys(store: &Store, of: Option<&str>) -> Result<Reply, Error> {
    let only = of.map(|name| account_id(store, name)).transpose()?;
    let (accounts, keys) = store.accounts();
    let name = |id: &AccountId| {
        let found = accounts.iter().find(|account| account.id == *id);
        found.map_or(String::new(), |account| account.name.clone())
    };
    let shown = keys
        .iter()
        .filter(|key| only.as_ref().is_none_or(|only| key.account == *only))
        .map(|key| Key {
            id: key.id.clone(),
            account: name(&key.account),
        });
    Ok(Reply::Keys(shown.collect()))
}
