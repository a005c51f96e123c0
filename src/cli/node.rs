//! Settings of a node, and of the origin it stands in front of.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum, ValueHint};
use forebay_cache::origin::Endpoint;
use forebay_cache::peer::Who;

use super::parse::{
    parse_endpoint, parse_expires, parse_mount_option, parse_peer_address, parse_peers,
    parse_region, parse_remote, parse_size,
};
use super::{CacheWord, RemoteSource};

pub(super) const MOUNT_AFTER_HELP: &str = "\
KEYS: Requests are signed with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Whoever may enter the \
directory may do what that key may do, as far as the files' modes let him.

FRESHNESS: What others change at the store is seen within ten seconds, or at once with \
--cluster-key-file; an open file goes on showing the \
version that was opened, or fails with ESTALE where its bytes can't be had any more. close(2) says \
whether what was written is at the store.

LIMITS: At a store that is no forebay, a rename is a copy and a deletion; a directory's, one of each \
for every object below it, at most 10,000. There are no hard links.

EXAMPLE: `forebay mount http://store:9000/datasets /mnt/datasets --cache-dir /nvme/cache --read-only`";

/// Where a cache is, and what proves a node and its origin to each other: flags of `serve` and of
/// `mount`.
#[derive(Debug, Args)]
pub(crate) struct CacheFlags {
    /// Directory of the cache, best on a fast local disk; one process owns it at a time
    ///
    /// It is made if it is missing, and may be deleted whenever no server runs. Without an origin
    /// the cache is in front of the store's own data: worth while on a faster disk than --data.
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_CACHE_DIR",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Size that the cache may have, such as 800GiB [default: what is free, but for a hundredth]
    #[arg(
        long,
        value_name = "SIZE",
        env = "FOREBAY_CACHE_SIZE",
        hide_env_values = true
    )]
    #[arg(value_parser = parse_size, requires = "cache_dir")]
    pub(crate) cache_size: Option<ByteSize>,

    /// Certificates (PEM) to trust for an https origin, instead of the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_ORIGIN_CA_FILE",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) origin_ca_file: Option<PathBuf>,

    /// File with the secret that a store and its nodes share, at least 32 bytes
    ///
    /// A node proves itself with it, and is told what changes, which is then seen at once. A store
    /// without one serves no changes to nodes, and lets a node keep only what clients read without
    /// a signed range. A node that has it is trusted with the keys that verify its clients'
    /// signatures of the day, which also make such signatures.
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_CLUSTER_KEY_FILE",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) cluster_key_file: Option<PathBuf>,
}

/// The part of `forebay serve` that is about a cache, and a remote origin behind it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Nodes and caches")]
#[command(mut_arg("origin_ca_file", |arg| arg.requires("origin")))]
pub(crate) struct NodeArgs {
    /// Serve what a remote store has, and keep what was read in --cache-dir; nothing is stored
    /// here
    ///
    /// Clients sign for this server's address as they would for the store's, and a forebay checks
    /// each request. Any other S3 service can't: see --node-keys-file.
    #[arg(
        long,
        value_name = "URL",
        env = "FOREBAY_ORIGIN",
        hide_env_values = true
    )]
    #[arg(value_parser = parse_endpoint, requires = "cache_dir")]
    pub(crate) origin: Option<String>,

    #[command(flatten)]
    pub(crate) cache: CacheFlags,

    /// File with the access keys of this server's clients, for an origin that is no forebay
    ///
    /// A key a line: its id, a space and its secret. Each of them may do whatever may be done with
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, which this server signs its own requests
    /// with.
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_NODE_KEYS_FILE",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::FilePath, requires = "origin")]
    pub(crate) node_keys_file: Option<PathBuf>,

    /// Whether to answer by itself what the store lets this server answer
    ///
    /// A store that shares --cluster-key-file tells its nodes what it knows of an object that was
    /// read, the key that verifies its reader's signatures of the day, and all changes; so a node
    /// answers the next reads without asking. What is changed elsewhere is then seen a moment
    /// later; ten seconds later at most, where the line to the store is cut without a word.
    #[arg(long, value_enum, env = "FOREBAY_LEASES", hide_env_values = true)]
    #[arg(default_value_t = Leases::On)]
    pub(crate) leases: Leases,

    /// Serve what is in the cache while the store is down, if it was known not longer ago than
    /// this, such as 30m or 4h; needs --cluster-key-file
    ///
    /// Only to clients whose key of the day was used here before. Such answers say so in
    /// `Cache-Status`; all else fails at once.
    #[arg(
        long,
        value_name = "TIME",
        env = "FOREBAY_SERVE_STALE",
        hide_env_values = true
    )]
    #[arg(value_parser = parse_expires, requires = "origin")]
    pub(crate) serve_stale: Option<Duration>,

    /// Nodes of the same origin that help each other: HOST:PORT or URL, separated by commas, or
    /// one DNS name and port
    ///
    /// Each block has one of them as its home, which fetches it from the origin for all. A DNS name
    /// stands for all of its addresses, such as those of a headless service, and is looked up again
    /// every few seconds. All nodes need the same list, --origin and --cluster-key-file.
    #[arg(
        long,
        value_name = "LIST",
        env = "FOREBAY_PEERS",
        hide_env_values = true
    )]
    #[arg(value_parser = parse_peers, requires_all = ["origin", "cluster_key_file"])]
    pub(crate) peers: Option<Who>,

    /// Which of --peers this server is [default: it asks them]
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "FOREBAY_PEER_ADDRESS",
        hide_env_values = true
    )]
    #[arg(value_parser = parse_peer_address, requires = "peers")]
    pub(crate) peer_address: Option<Endpoint>,
}

/// Whether a node answers by itself what its store lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Leases {
    /// Reads of what was read lately are answered without asking the store
    On,
    /// The store is asked for each read
    Off,
}

/// `forebay mount`.
#[derive(Debug, Args)]
#[command(mut_arg("cache_dir", |arg| arg.required(true)))]
pub(crate) struct MountArgs {
    /// The bucket, or a part of it
    #[arg(value_name = "http://HOST[:PORT]/BUCKET[/PREFIX]", value_parser = parse_remote)]
    pub(crate) source: RemoteSource,

    /// Directory to show it in; it is made if it is missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    #[command(flatten)]
    pub(crate) cache: CacheFlags,

    /// Refuse all changes
    #[arg(long)]
    pub(crate) read_only: bool,

    /// Options of mount(8), separated by commas: ro, rw, and cache=default, cache=no-cache or
    /// cache=no-store
    ///
    /// cache= is what is said of the cache for files of which nothing else says it: what opens a
    /// file speaks first (`O_DIRECT` is no-store), then the extended attribute
    /// `user.forebay.cache-control` of the file or of the nearest directory above, then the
    /// Cache-Control that the object is stored with.
    #[arg(short = 'o', value_name = "OPTIONS", value_delimiter = ',')]
    #[arg(value_parser = parse_mount_option)]
    pub(crate) options: Vec<MountOption>,

    /// Directory for what is being written, until it is at the store
    #[arg(long, value_name = "DIR", env = "TMPDIR", hide_env_values = true)]
    #[arg(default_value = "/tmp", value_hint = ValueHint::DirPath)]
    pub(crate) staging_dir: PathBuf,

    /// Region to sign for
    #[arg(long, env = "AWS_REGION", hide_env_values = true)]
    #[arg(default_value = "us-east-1", value_parser = parse_region)]
    pub(crate) region: String,
}

/// An option of mount(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountOption {
    /// `ro`.
    ReadOnly,
    /// `rw`.
    ReadWrite,
    /// `cache=`.
    Cache(CacheWord),
}

impl MountArgs {
    /// Whether changes are refused; of several options the last one counts.
    pub(crate) fn is_read_only(&self) -> bool {
        let said = self.options.iter().rev().find_map(|option| match option {
            MountOption::ReadOnly => Some(true),
            MountOption::ReadWrite => Some(false),
            MountOption::Cache(_) => None,
        });
        self.read_only || said == Some(true)
    }

    /// What is said of the cache where nothing else speaks; of several options the last one counts.
    pub(crate) fn cache(&self) -> CacheWord {
        let said = self.options.iter().rev().find_map(|option| match option {
            MountOption::Cache(word) => Some(*word),
            MountOption::ReadOnly | MountOption::ReadWrite => None,
        });
        said.unwrap_or(CacheWord::Default)
    }
}
