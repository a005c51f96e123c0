//! Every flag, once.
//!
//! Help, man pages, shell completions, the `FOREBAY_…` variables and the lines of the
//! configuration file all come from the definitions below: a flag with `env` is a setting, and a
//! setting's line in the file has the flag's name (`config.rs` puts the file underneath).
//!
//! # Invariants
//! 1. Nothing here touches the system: a value is parsed, never looked up.
//! 2. No secret is a flag, because the command line of a process is public.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

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

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:9000, 0.0.0.0:9000 or [::1]:9000"
            .to_owned()
    })
}

fn parse_mount_source(text: &str) -> Result<MountSource, String> {
    let text = text.strip_prefix("s3://").unwrap_or(text);
    let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
    if bucket.is_empty() {
        return Err("expected bucket or bucket/prefix".to_owned());
    }
    Ok(MountSource {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_end_matches('/').to_owned(),
    })
}

/// Longer names are of no use to anyone who reads a listing.
const ACCOUNT_NAME_LEN_MAX: usize = 64;

fn parse_account_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@+".contains(&byte);
    let fits = (1..=ACCOUNT_NAME_LEN_MAX).contains(&text.len());
    if !fits || !text.bytes().all(allowed) {
        return Err(format!(
            "expected up to {ACCOUNT_NAME_LEN_MAX} letters, digits and . _ - @ +"
        ));
    }
    Ok(text.to_owned())
}

fn parse_region(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if text.is_empty() || !text.bytes().all(allowed) {
        return Err("expected letters, digits and hyphens, such as us-east-1".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_domain(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let label_is_sound = |label: &str| !label.is_empty() && label.bytes().all(allowed);
    if !text.split('.').all(label_is_sound) {
        return Err("expected a domain without scheme and port, such as s3.example.net".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

fn parse_s3_url(text: &str) -> Result<S3Url, String> {
    let (bucket, key) = text
        .strip_prefix("s3://")
        .and_then(|rest| rest.split_once('/'))
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .ok_or("expected s3://bucket/key")?;
    Ok(S3Url {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
    })
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .map(|rest| rest.trim_end_matches('/'));
    match host {
        Some(host) if !host.is_empty() && !host.contains('/') => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("expected http://host:port or https://host".to_owned()),
    }
}

/// The longest that a presigned URL may be good for.
///
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>
const PRESIGN_EXPIRES_MAX: Duration = Duration::from_hours(7 * 24);

fn parse_expires(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err("expected a number and s, m, h or d".to_owned()),
    };
    let expires = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit_s))
        .map(Duration::from_secs)
        .ok_or("expected a number and s, m, h or d")?;
    if expires.is_zero() || expires > PRESIGN_EXPIRES_MAX {
        return Err("expected from 1s to 7d".to_owned());
    }
    Ok(expires)
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

    #[test]
    fn listen_takes_addresses_and_localhost() {
        assert_eq!(
            parse_listen("localhost:1").unwrap().to_string(),
            "127.0.0.1:1"
        );
        assert_eq!(parse_listen("[::]:9000").unwrap().port(), 9000);
        for bad in [
            "9000",
            ":9000",
            "127.0.0.1",
            "example.net:80",
            "http://127.0.0.1:9000",
        ] {
            assert!(parse_listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mount_source_is_a_bucket_and_a_prefix_without_its_last_slash() {
        let of = |text| parse_mount_source(text).map(|source| (source.bucket, source.prefix));
        let pair = |bucket: &str, prefix: &str| Ok((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(of("photos"), pair("photos", ""));
        assert_eq!(of("photos/"), pair("photos", ""));
        assert_eq!(of("s3://photos/2026/may/"), pair("photos", "2026/may"));
        assert!(of("/x").is_err());
    }

    #[test]
    fn presigned_urls_last_from_a_second_to_seven_days() {
        assert_eq!(parse_expires("90").unwrap().as_secs(), 90);
        assert_eq!(parse_expires("15m").unwrap().as_secs(), 900);
        assert_eq!(parse_expires("7d").unwrap(), PRESIGN_EXPIRES_MAX);
        for bad in [
            "0",
            "8d",
            "-1",
            "1w",
            "",
            "s",
            "99999999999999999999d",
            "1µ",
        ] {
            assert!(parse_expires(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_regions_urls_and_endpoints_are_checked() {
        assert_eq!(parse_domain("S3.Example.net").unwrap(), "s3.example.net");
        assert!(parse_domain("http://x").is_err());
        assert!(parse_domain("a..b").is_err());
        assert!(parse_region("eu west").is_err());
        assert_eq!(parse_s3_url("s3://b/a//b").unwrap().key, "a//b");
        assert!(parse_s3_url("s3://b/").is_err());
        assert_eq!(parse_endpoint("http://h:1/").unwrap(), "http://h:1");
        assert!(parse_endpoint("h:1").is_err());
    }
}
