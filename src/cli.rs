//! Every flag, once.
//!
//! Help, man pages, shell completions, the `FOREBAY_…` variables and the lines of the
//! configuration file all come from the definitions below: a flag with `env` is a setting, and a
//! setting's line in the file has the flag's name (`config.rs` puts the file underneath).
//!
//! # Invariants
//! 1. Nothing here touches the system: a value is parsed, never looked up.
//! 2. No secret is a flag, because the command line of a process is public.

mod cache;
mod node;
mod parse;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use forebay_cache::Directive;

pub(crate) use self::cache::{CacheArgs, CacheCommand, WarmArgs};
pub(crate) use self::node::{CacheFlags, Leases, MountArgs, NodeArgs};
use self::parse::{
    parse_account_name, parse_domain, parse_endpoint, parse_expires, parse_listen,
    parse_mount_source, parse_region, parse_s3_url,
};

const AFTER_HELP: &str = "\
A setting is taken from the command line, else from its FOREBAY_ variable, else from the file that \
--config names, else from the default. In the file a setting has its flag's name: \
`listen = \"0.0.0.0:9000\"`.";

const SERVE_AFTER_HELP: &str = "\
KEYS: The root account's key is taken from FOREBAY_ROOT_ACCESS_KEY and FOREBAY_ROOT_SECRET_KEY. \
Where they are not set, a key is made at the first start and kept in DATA/root-key, mode 0600, as \
lines that a shell can source: `set -a; . forebay-data/root-key; set +a`. A root key of an earlier \
start stays valid until `forebay key rm` removes it.

SIGNALS: On SIGTERM and on Ctrl-C the server stops accepting, finishes the requests in flight, \
publishes what was written through the mount, unmounts, closes the store and exits with 0. A second \
signal ends it at once; what was acknowledged as durable is kept all the same.

EXAMPLES: `forebay serve --mount ./mnt` stores in ./forebay-data, speaks S3 on 127.0.0.1:9000 and \
shows all buckets as directories in ./mnt. `forebay serve --mount ./mnt --mount-source photos/2026` \
shows one prefix of one bucket.";

/// An object store with two faces: the S3 API, and the same objects as a directory
#[derive(Debug, Parser)]
#[command(name = "forebay", version, after_help = AFTER_HELP, propagate_version = true)]
pub(crate) struct Cli {
    /// Directory that holds everything that is stored
    ///
    /// One process owns it at a time. It is made if it is missing.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "FOREBAY_DATA",
        hide_env_values = true
    )]
    #[arg(default_value = "./forebay-data", value_hint = ValueHint::DirPath)]
    pub(crate) data: PathBuf,

    /// Configuration file (TOML) with settings that neither a flag nor a variable gives
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "FOREBAY_CONFIG",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,

    /// What to log to standard error: error, warn, info, debug or trace, also by part
    ///
    /// Such as `warn,forebay_mount=debug`.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        env = "FOREBAY_LOG",
        hide_env_values = true
    )]
    #[arg(default_value = "warn")]
    pub(crate) log: String,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store objects, speak S3, and show the objects as a directory
    #[command(after_long_help = SERVE_AFTER_HELP)]
    Serve(ServeArgs),
    /// Show a bucket of a remote store as a directory, and keep what was read in a cache
    ///
    /// Runs until a signal ends it, and unmounts then.
    #[command(after_long_help = node::MOUNT_AFTER_HELP)]
    Mount(MountArgs),
    /// Make, list and remove accounts, which own buckets
    #[command(subcommand)]
    Account(AccountCommand),
    /// Make, list and remove the access keys of accounts
    #[command(subcommand)]
    Key(KeyCommand),
    /// Prove that the index and the data agree
    ///
    /// Exits with 0 if they do, with 1 if what was wrong is put right, with 4 if something wrong is
    /// left. The server must not be running.
    Fsck(FsckArgs),
    /// Read everything that is stored and check it against its checksums
    ///
    /// Exits with 0 if all of it is whole, with 1 if not. The server must not be running.
    Scrub(ScrubArgs),
    /// Print a URL that lets whoever has it make one request on one object
    ///
    /// Signs with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` where they are set, else with
    /// the root key.
    Presign(PresignArgs),
    /// Have objects brought into a cache, and wait until they are there
    ///
    /// Exits with 0 if all of it is in the cache at the end (with --no-wait: or on its way), with 1
    /// if anything is missing.
    #[command(after_long_help = cache::WARM_AFTER_HELP)]
    Warm(WarmArgs),
    /// Show and change what a node has in its cache
    Cache(CacheArgs),
    /// Print a completion script for a shell
    ///
    /// Such as `forebay completions bash > /etc/bash_completion.d/forebay`.
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Abort the connection of a mount when its process is gone
    ///
    /// `serve --mount` starts it.
    #[command(hide = true)]
    Guard {
        /// The process
        process: u32,
        /// Number of the connection
        connection: u64,
    },
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man {
        /// Where to
        dir: PathBuf,
    },
}

/// `forebay serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Address and port for S3 over HTTP; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR:PORT",
        env = "FOREBAY_LISTEN",
        hide_env_values = true
    )]
    #[arg(default_value = "127.0.0.1:9000", value_parser = parse_listen)]
    pub(crate) listen: SocketAddr,

    /// Directory to show the objects in; it is made if it is missing
    #[arg(
        long,
        value_name = "DIR",
        env = "FOREBAY_MOUNT",
        hide_env_values = true
    )]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) mount: Option<PathBuf>,

    /// What the mount shows, instead of a directory per bucket
    #[arg(long, value_name = "BUCKET[/PREFIX]", env = "FOREBAY_MOUNT_SOURCE")]
    #[arg(hide_env_values = true, value_parser = parse_mount_source)]
    pub(crate) mount_source: Option<MountSource>,

    /// What close(2) promises in the mount
    #[arg(long, value_enum, env = "FOREBAY_CLOSE", hide_env_values = true)]
    #[arg(default_value_t = Close::Deferred)]
    pub(crate) close: Close,

    /// Whether answered writes are on the disk
    #[arg(long, value_enum, env = "FOREBAY_DURABILITY", hide_env_values = true)]
    #[arg(default_value_t = Durability::Full)]
    pub(crate) durability: Durability,

    /// Whose behaviour to follow where S3 services differ
    #[arg(long, value_enum, env = "FOREBAY_COMPAT", hide_env_values = true)]
    #[arg(default_value_t = Compat::Forebay)]
    pub(crate) compat: Compat,

    /// Region that the server says it is in; signatures for any region are accepted
    #[arg(long, env = "FOREBAY_REGION", hide_env_values = true)]
    #[arg(default_value = "us-east-1", value_parser = parse_region)]
    pub(crate) region: String,

    /// Domain whose subdomains are buckets (virtual-host style); may be given several times
    ///
    /// A request to `BUCKET.DOMAIN`, whatever its port, is one for that bucket; requests to other
    /// names have the bucket in their path. DNS needs an entry for `*.DOMAIN`. In the variable,
    /// domains are separated by commas; in the file they are a list.
    #[arg(
        long,
        value_name = "DOMAIN",
        env = "FOREBAY_BASE_DOMAIN",
        hide_env_values = true
    )]
    #[arg(value_delimiter = ',', value_parser = parse_domain)]
    pub(crate) base_domain: Vec<String>,

    /// Threads that serve S3 requests [default: one per processor]
    #[arg(
        long,
        value_name = "COUNT",
        env = "FOREBAY_THREADS",
        hide_env_values = true
    )]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// What the mount says of the cache for files of which nothing else says it
    ///
    /// What opens a file speaks first (`O_DIRECT` is no-store), then the extended attribute
    /// `user.forebay.cache-control` of the file or of the nearest directory above, then the
    /// Cache-Control that the object is stored with.
    #[arg(long, value_enum, value_name = "WORD", env = "FOREBAY_MOUNT_CACHE")]
    #[arg(hide_env_values = true, default_value_t = CacheWord::Default)]
    pub(crate) mount_cache: CacheWord,

    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What a mount says of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CacheWord {
    /// Read from the cache, and keep what was read
    Default,
    /// Read from the cache, and keep nothing that is not there
    NoCache,
    /// Leave the cache alone
    NoStore,
}

impl From<CacheWord> for Directive {
    fn from(word: CacheWord) -> Self {
        match word {
            CacheWord::Default => Self::Use,
            CacheWord::NoCache => Self::NoFill,
            CacheWord::NoStore => Self::Bypass,
        }
    }
}

/// What `close(2)` promises in the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Close {
    /// Both faces see the file at once; it is on the disk within a second
    Deferred,
    /// As fsync: the file is on the disk before close returns
    Durable,
}

/// Whether answered writes are on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// An answered write survives a power cut
    Full,
    /// Nothing waits for the disk: a power cut may lose or damage recent writes
    None,
}

/// Whose behaviour to follow where S3 services differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compat {
    /// The behaviour that the most clients work with
    Forebay,
    /// Amazon S3
    Aws,
    /// `CoreWeave` AI Object Storage
    Coreweave,
    /// Wasabi
    Wasabi,
}

/// A bucket, or a prefix in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountSource {
    pub(crate) bucket: String,
    /// Without a slash at its end; empty for the whole bucket.
    pub(crate) prefix: String,
}

impl fmt::Display for MountSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bucket)?;
        if self.prefix.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.prefix)
        }
    }
}

/// A bucket of a remote store, or a prefix in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemoteSource {
    /// `http://host:port`.
    pub(crate) origin: String,
    pub(crate) part: MountSource,
}

/// `forebay account`.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Make an account
    Create {
        /// Name, unique in this store
        #[arg(value_parser = parse_account_name)]
        name: String,
    },
    /// List accounts: id and name
    Ls,
    /// Remove an account that owns no bucket, and its keys
    Rm {
        /// Name of the account
        name: String,
    },
}

/// `forebay key`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make an access key and print it, with its secret, as lines that a shell can source
    Create {
        /// Name of the account that the key signs for
        #[arg(long, value_name = "NAME")]
        account: String,
    },
    /// List access keys: id and account, never the secret
    Ls {
        /// Only the keys of this account
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
    },
    /// Remove an access key; requests signed with it are refused from then on
    Rm {
        /// The key's id
        #[arg(value_name = "ACCESS_KEY_ID")]
        id: String,
    },
}

/// `forebay fsck`.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// Put right what can be put right; objects whose bytes are gone are named and dropped
    #[arg(long)]
    pub(crate) repair: bool,

    /// Read all bytes too, and check them against their checksums
    #[arg(long)]
    pub(crate) deep: bool,

    /// Make a new index from the data files alone, for when the index is lost
    #[arg(long, conflicts_with_all = ["repair", "deep"])]
    pub(crate) rebuild_index: bool,
}

/// `forebay scrub`.
#[derive(Debug, Args)]
pub(crate) struct ScrubArgs {
    /// Read at most so many MiB in a second
    #[arg(long, value_name = "MIB")]
    pub(crate) rate: Option<u64>,
}

/// `forebay presign`.
#[derive(Debug, Args)]
pub(crate) struct PresignArgs {
    /// The object
    #[arg(value_name = "s3://BUCKET/KEY", value_parser = parse_s3_url)]
    pub(crate) object: S3Url,

    /// HTTP method that the URL is good for
    #[arg(long, default_value = "GET")]
    #[arg(value_parser = ["GET", "HEAD", "PUT", "DELETE"])]
    pub(crate) method: String,

    /// For how long, such as 90s, 15m, 12h or 7d; at most 7 days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_expires)]
    pub(crate) expires: Duration,

    /// Where the server is
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

/// An object as `s3://bucket/key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3Url {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_of_serve_has_a_variable_named_like_its_flag() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for arg in serve.get_arguments() {
            let Some(long) = arg.get_long().filter(|long| *long != "help") else {
                continue;
            };
            let variable = format!("FOREBAY_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(arg.get_env(), Some(variable.as_ref()), "--{long}");
        }
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                assert!(
                    !arg.get_id().as_str().contains("secret"),
                    "{}",
                    arg.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
