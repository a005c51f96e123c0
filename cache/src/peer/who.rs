//! Who the peers are: as the command line says it, and as DNS does.

use std::fmt;
use std::net::SocketAddr;

use crate::origin::{Endpoint, EndpointError};

/// Most peers of a node: each of them is a few connections and a place in every hash.
const PEERS_MAX: usize = 1024;

/// Where the peers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// At these places.
    List(Vec<Endpoint>),
    /// At all addresses that a name has, asked for again and again.
    Name {
        /// The name.
        host: String,
        /// The port of all of them.
        port: u16,
    },
}

/// Why a text names no peers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhoError {
    /// It names nobody.
    #[error("there is no peer in it")]
    Nobody,
    /// More than there can be.
    #[error("{0} peers are more than the {PEERS_MAX} that there can be")]
    TooMany(usize),
    /// `node1`.
    #[error("`{0}` has no port; write HOST:PORT or a URL")]
    NoPort(String),
    /// It is no place.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl Who {
    /// Reads a comma separated list of `HOST:PORT` and URLs, or one DNS name and port.
    ///
    /// # Errors
    /// [`WhoError`].
    pub fn parse(text: &str) -> Result<Self, WhoError> {
        let entries = text.split(',').map(str::trim);
        let entries: Vec<&str> = entries.filter(|entry| !entry.is_empty()).collect();
        if entries.len() > PEERS_MAX {
            return Err(WhoError::TooMany(entries.len()));
        }
        let mut list = Vec::new();
        for entry in &entries {
            let endpoint = parse_address(entry)?;
            if !list.contains(&endpoint) {
                list.push(endpoint);
            }
        }
        match (&entries[..], &list[..]) {
            ([], _) => Err(WhoError::Nobody),
            ([name], _) if is_name(text) => {
                let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
                let port = port
                    .parse()
                    .map_err(|_| WhoError::NoPort(text.to_owned()))?;
                let host = host.to_owned();
                Ok(Self::Name { host, port })
            }
            _ => Ok(Self::List(list)),
        }
    }
}

/// Reads `HOST:PORT` or a URL.
///
/// # Errors
/// [`WhoError::NoPort`], [`WhoError::Endpoint`].
pub fn parse_address(text: &str) -> Result<Endpoint, WhoError> {
    if text.contains("://") {
        return Ok(Endpoint::parse(text)?);
    }
    let behind_address = text.rsplit_once(']').map_or(text, |(_, behind)| behind);
    if !behind_address.contains(':') {
        return Err(WhoError::NoPort(text.to_owned()));
    }
    Ok(Endpoint::parse(&format!("http://{text}"))?)
}

/// Whether what names one peer may name others too: with a comma or a scheme it is a list, if only
/// of one, and an address is nobody else's.
fn is_name(text: &str) -> bool {
    !text.contains(',') && !text.contains("://") && text.trim().parse::<SocketAddr>().is_err()
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { host, port } => write!(f, "all addresses of {host}, port {port}"),
            Self::List(list) => {
                let names: Vec<String> = list.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// Asks for the addresses of a name.
///
/// # Errors
/// The system's resolver has no answer.
pub(super) async fn resolve(host: &str, port: u16) -> std::io::Result<Vec<Endpoint>> {
    let found = tokio::net::lookup_host((host, port)).await?;
    let mut found: Vec<SocketAddr> = found.collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(PEERS_MAX);
    let endpoint = |at: &SocketAddr| Endpoint::parse(&format!("http://{at}"));
    // An address with a scope, which no URL can name, is nobody's but this machine's.
    Ok(found.iter().filter_map(|at| endpoint(at).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(urls: &[&str]) -> Who {
        let endpoint = |url: &&str| Endpoint::parse(url).unwrap();
        Who::List(urls.iter().map(endpoint).collect())
    }

    #[test]
    fn a_list_is_told_from_a_name() {
        let name = |host: &str, port| {
            let host = host.to_owned();
            Ok(Who::Name { host, port })
        };
        for (text, expected) in [
            ("a:1,b:2", Ok(list(&["http://a:1", "http://b:2"]))),
            (" a:1 , https://b ,", Ok(list(&["http://a:1", "https://b"]))),
            ("a:1,http://A:1", Ok(list(&["http://a:1"]))),
            ("a:1,", Ok(list(&["http://a:1"]))),
            ("http://a:1", Ok(list(&["http://a:1"]))),
            ("10.0.0.1:9000", Ok(list(&["http://10.0.0.1:9000"]))),
            ("[::1]:9000", Ok(list(&["http://[::1]:9000"]))),
            ("nodes:9000", name("nodes", 9000)),
            (
                "nodes.ns.svc.cluster.local:80",
                name("nodes.ns.svc.cluster.local", 80),
            ),
            ("", Err(WhoError::Nobody)),
            (",", Err(WhoError::Nobody)),
            ("nodes", Err(WhoError::NoPort("nodes".to_owned()))),
            ("a:1,[::1]", Err(WhoError::NoPort("[::1]".to_owned()))),
        ] {
            assert_eq!(Who::parse(text), expected, "{text}");
        }
        for bad in ["a:x", "a:0", "a:1/x", "http://a/x", "me@a:1"] {
            let refused = Who::parse(bad);
            assert!(matches!(refused, Err(WhoError::Endpoint(_))), "{bad}");
        }
        let many = vec!["10.0.0.1:1"; PEERS_MAX + 1].join(",");
        assert_eq!(Who::parse(&many), Err(WhoError::TooMany(PEERS_MAX + 1)));
    }

    #[tokio::test]
    async fn a_name_is_all_of_its_addresses() {
        let found = resolve("127.0.0.1", 9000).await.unwrap();
        assert_eq!(found, [Endpoint::parse("http://127.0.0.1:9000").unwrap()]);
        assert!(resolve("no such host", 9000).await.is_err());
    }
}
