//! Settings of a node, and of the origin it stands in front of.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueHint};

use super::RemoteSource;
use super::parse::{parse_endpoint, parse_region, parse_remote, parse_size};

pub(super) const MOUNT_AFTER_HELP: &str = "\
KEYS: Requests are signed with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Whoever may enter the \
directory may do what that key may do, as far as the files' modes let him.

FRESHNESS: What others change at the store is seen within ten seconds, or at once with \
--cluster-key-file; an open file goes on showing the \
version that was opened, or fails with ESTALE where its bytes can't be had any more. close(2) says \
whether what was written is at the store.

LIMITS: A rename is a copy and a deletion; a directory's, one of each for every object below it, at most \
10,000. There are no hard links.

EXAMPLE: `forebay mount http://store:9000/datasets /mnt/datasets --cache-dir /nvme/cache --read-only`";

/// The part of `forebay serve` that is about a remote origin and its nodes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Nodes")]
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

    /// Directory of the cache, best on a fast local disk; one process owns it at a time
    ///
    /// It is made if it is missing, and may be deleted whenever no server runs.
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_CACHE_DIR",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::DirPath, requires = "origin")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Size that the cache may have, such as 800GiB [default: what is free, but for a hundredth]
    #[arg(
        long,
        value_name = "SIZE",
        env = "FOREBAY_CACHE_SIZE",
        hide_env_values = true
    )]
    #[arg(value_parser = parse_size, requires = "origin")]
    pub(crate) cache_size: Option<ByteSize>,

    /// Certificates (PEM) to trust for an https origin, instead of the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_ORIGIN_CA_FILE",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::FilePath, requires = "origin")]
    pub(crate) origin_ca_file: Option<PathBuf>,

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

    /// File with the secret that a store and its nodes share, at least 32 bytes
    ///
    /// A node proves itself with it; a store without one serves no changes to nodes, and lets a
    /// node keep only what clients read without a signed range.
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_CLUSTER_KEY_FILE",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) cluster_key_file: Option<PathBuf>,
}

/// `forebay mount`.
#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// The bucket, or a part of it
    #[arg(value_name = "http://HOST[:PORT]/BUCKET[/PREFIX]", value_parser = parse_remote)]
    pub(crate) source: RemoteSource,

    /// Directory to show it in; it is made if it is missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// Directory of the cache, best on a fast local disk; one process owns it at a time
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_CACHE_DIR",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: PathBuf,

    /// Size that the cache may have, such as 800GiB [default: what is free, but for a hundredth]
    #[arg(
        long,
        value_name = "SIZE",
        env = "FOREBAY_CACHE_SIZE",
        hide_env_values = true
    )]
    #[arg(value_parser = parse_size)]
    pub(crate) cache_size: Option<ByteSize>,

    /// File with the secret that the store and its nodes share
    ///
    /// With it the store tells what changes, which is then seen at once.
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_CLUSTER_KEY_FILE",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) cluster_key_file: Option<PathBuf>,

    /// Refuse all changes
    #[arg(long)]
    pub(crate) read_only: bool,

    /// Directory for what is being written, until it is at the store
    #[arg(long, value_name = "DIR", env = "TMPDIR", hide_env_values = true)]
    #[arg(default_value = "/tmp", value_hint = ValueHint::DirPath)]
    pub(crate) staging_dir: PathBuf,

    /// Region to sign for
    #[arg(long, env = "AWS_REGION", hide_env_values = true)]
    #[arg(default_value = "us-east-1", value_parser = parse_region)]
    pub(crate) region: String,

    /// Certificates (PEM) to trust for https, instead of the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "FOREBAY_ORIGIN_CA_FILE",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) origin_ca_file: Option<PathBuf>,
}
