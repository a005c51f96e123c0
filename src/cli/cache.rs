//! `forebay warm` and `forebay cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::parse::{parse_endpoint, parse_region};

pub(super) const WARM_AFTER_HELP: &str = "\
SOURCES: `s3://bucket` and `s3://bucket/prefix` are all objects whose keys begin so; with `*`, `?` or \
`[…]` in it, all keys that match as a whole, where `*` goes over slashes too. A path in a mount of \
forebay is that file, or all files below that directory. `--manifest FILE` (`-` for standard input) has \
one `s3://bucket/key` a line; blank lines do not count.

KEYS: Requests are signed with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and each object is brought in \
only if that key may read it. What a path names the node reads with its own key, for the user that it \
runs as, and for root.

WAITING: The command ends when all is in the cache, or can't be. Begun anew it brings in what is missing. \
With --no-wait it ends when the node has taken all into its queue.

EXAMPLES: `forebay warm s3://datasets/imagenet/ --jobs 64` before a job starts; \
`forebay warm /mnt/datasets/imagenet` does the same by way of a mount; \
`forebay warm --dry-run 's3://datasets/*.tar'` says what would be brought in.";

/// `forebay warm`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct WarmArgs {
    /// What to bring in: objects, or files and directories in a mount
    #[arg(
        value_name = "s3://BUCKET[/PREFIX]|PATH",
        required_unless_present = "manifest"
    )]
    pub(crate) sources: Vec<String>,

    /// File that names one object a line, as `s3://bucket/key`; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) manifest: Option<PathBuf>,

    /// Names in the manifest end with a NUL, not with their line
    #[arg(short = '0', long, requires = "manifest")]
    pub(crate) null: bool,

    /// Keep what is brought in from being evicted, until `forebay cache unpin` lets it go
    ///
    /// Of what is named by a path, or with --cache-dir for a node on this machine.
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) pin: bool,

    /// Wait until all is in the cache; this is what is done anyway
    #[arg(long, overrides_with = "no_wait")]
    pub(crate) wait: bool,

    /// Don't wait: end when the node has taken all into its queue
    #[arg(long, overrides_with = "wait")]
    pub(crate) no_wait: bool,

    /// Directory of the node's cache, which --pin needs
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_CACHE_DIR",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Objects that are brought in at one time
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: u16,

    /// Say how many objects and bytes there are, and how many are missing, and bring nothing in
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print a line of JSON for each object and one at the end, and no progress bar
    #[arg(long)]
    pub(crate) json: bool,

    /// Where the node is
    #[arg(
        long,
        value_name = "URL",
        env = "AWS_ENDPOINT_URL",
        hide_env_values = true
    )]
    #[arg(default_value = "http://127.0.0.1:9000", value_parser = parse_endpoint)]
    pub(crate) endpoint: String,

    /// Region to sign for
    #[arg(long, env = "AWS_REGION", hide_env_values = true)]
    #[arg(default_value = "us-east-1", value_parser = parse_region)]
    pub(crate) region: String,
}

/// `forebay cache`.
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    /// Directory of the cache
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_CACHE_DIR",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: PathBuf,

    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

/// What to do with a cache. A server has to run on it.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show size, hits, misses and evictions
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List objects that are in the cache, wholly or in part: bytes here, size, pins, names
    Ls {
        /// Only what is here of a bucket or a prefix
        #[arg(value_name = "s3://BUCKET[/PREFIX]")]
        source: Option<String>,
    },
    /// Drop objects from the cache, but those that are pinned or being read
    Evict {
        /// What to drop
        #[arg(value_name = "s3://BUCKET[/PREFIX]")]
        source: String,
    },
    /// Keep objects that are in the cache from being evicted
    Pin {
        /// What to keep
        #[arg(value_name = "s3://BUCKET[/PREFIX]")]
        source: String,
    },
    /// Let objects be evicted again
    Unpin {
        /// What to let go
        #[arg(value_name = "s3://BUCKET[/PREFIX]")]
        source: String,
    },
}
