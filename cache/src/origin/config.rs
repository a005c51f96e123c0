//! Settings of a client.

use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::{Addressing, Endpoint};
use crate::cluster::ClusterKey;
use crate::sign::Credentials;

/// What a client is to be.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where the origin is.
    pub endpoint: Endpoint,
    /// Where its requests name buckets.
    pub addressing: Addressing,
    /// What it signs its own requests with; without, they are anonymous.
    pub credentials: Option<Credentials>,
    /// The region of its signatures.
    pub region: String,
    /// What it proves itself with to a forebay origin.
    pub cluster_key: Option<ClusterKey>,
    /// The certificates to trust, in PEM; without, those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// How long it waits for what.
    pub deadlines: Deadlines,
    /// How often it tries again.
    pub retries: Retries,
    /// Most connections at a time, and with them requests.
    pub connections_max: usize,
    /// What the other side is to this one.
    pub role: Role,
}

/// What the other side of a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The origin: without it nothing goes on, so it is given time.
    #[default]
    Origin,
    /// A node that may help out: after one failure it is left alone.
    Peer,
}

impl ClientConfig {
    /// Usual settings: path-style and anonymous.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            addressing: Addressing::default(),
            credentials: None,
            region: "us-east-1".to_owned(),
            cluster_key: None,
            ca_file: None,
            deadlines: Deadlines::default(),
            retries: Retries::default(),
            connections_max: 512,
            role: Role::default(),
        }
    }
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection, with its TLS.
    pub connect: Duration,
    /// For the head of an answer, from the last byte of the request. Connecting is part of it.
    pub head: Duration,
    /// The same for requests that write: some copy for long before they say anything.
    pub head_of_write: Duration,
    /// For the next bytes of an answer's body.
    pub silence: Duration,
    /// For the next bytes of a body to be sent, from whoever sends it through here.
    pub sender: Duration,
    /// For the beginning of an answer, all tries together.
    pub total: Duration,
    /// After the last bytes of a connection that nobody uses; then it is closed.
    pub idle: Duration,
    /// How long an origin must have done nothing but fail before it is taken for dead.
    pub dead_after: Duration,
    /// How long a dead origin is left alone before it is tried again.
    pub probe_after: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            head: Duration::from_secs(10),
            head_of_write: Duration::from_mins(2),
            silence: Duration::from_secs(15),
            sender: Duration::from_mins(1),
            total: Duration::from_secs(30),
            idle: Duration::from_secs(55),
            dead_after: Duration::from_secs(2),
            probe_after: Duration::from_secs(1),
        }
    }
}

/// How often what failed is tried again, and after which pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Most tries of one request after the first. So many times a body is also taken up again
    /// without any progress.
    pub max: u32,
    /// Longest pause before the first of them; it doubles with each. How long a pause is, is
    /// chosen at random.
    pub pause_min: Duration,
    /// Longest pause of all.
    pub pause_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            max: 5,
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(2),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Credentials or region can't be sent.
    #[error(transparent)]
    Credentials(#[from] crate::sign::NotSignable),
    /// The file of certificates can't be read.
    #[error("read the certificates in {}: {reason}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine trusts nobody.
    #[error("this machine has no certificates to trust ({0}); name a file that has")]
    NoCertificates(String),
    /// TLS can't be set up.
    #[error("set up TLS: {0}")]
    Tls(String),
}
