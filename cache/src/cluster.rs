//! How the nodes of a cluster prove themselves to an origin, and to each other.
//!
//! All of them know one secret. A proof is the header `x-forebay-node: v1:SECONDS:MAC`, of seconds
//! since 1970 and the hexadecimal digits of
//!
//! ```text
//! HMAC-SHA256(key, SECONDS "\n" method "\n" path-and-query)
//! ```
//!
//! # Invariants
//! 1. A proof is good for one method, path and query, and for [`PROOF_AGE_MAX`] before and after
//!    its moment. It does not cover a body: what it allows must be harmless to repeat.
//! 2. How long it takes to refuse a proof says nothing about the right one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use forebay_store::time::Timestamp;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderName, HeaderValue, Method};
use sha2::Sha256;

/// The header that bears a proof.
pub const NODE_HEADER: HeaderName = HeaderName::from_static("x-forebay-node");
/// How far a proof's moment may be from the verifier's clock.
pub const PROOF_AGE_MAX: Duration = Duration::from_mins(1);
/// Shortest key, in bytes.
pub const CLUSTER_KEY_MIN: usize = 16;

const VERSION: &str = "v1";

/// The secret that the nodes of a cluster share.
#[derive(Clone)]
pub struct ClusterKey(Arc<[u8]>);

/// A key that can be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cluster key has at least {CLUSTER_KEY_MIN} bytes; this one has {len}")]
pub struct ClusterKeyTooShort {
    /// What it has, without the white space around it.
    pub len: usize,
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is not of the form that this version knows.
    #[error("the proof of a node is malformed")]
    Malformed,
    /// Its moment is too far away; with a right key, a clock is wrong.
    #[error("the proof of a node is {seconds} seconds away from this clock")]
    Expired {
        /// How far, in either direction.
        seconds: u64,
    },
    /// Made with another key, or for another request.
    #[error("the proof of a node is wrong")]
    Wrong,
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(…)")
    }
}

impl ClusterKey {
    /// Takes a file's content; white space around it is no part of the key.
    ///
    /// # Errors
    /// [`ClusterKeyTooShort`].
    pub fn new(content: &[u8]) -> Result<Self, ClusterKeyTooShort> {
        let key = content.trim_ascii();
        if key.len() < CLUSTER_KEY_MIN {
            return Err(ClusterKeyTooShort { len: key.len() });
        }
        Ok(Self(key.into()))
    }

    /// The value of [`NODE_HEADER`] for a request that is made now.
    pub fn prove(&self, method: &Method, path_and_query: &str, now: Timestamp) -> HeaderValue {
        let seconds = now.seconds().to_string();
        let mac = self.mac(&seconds, method, path_and_query).finalize();
        value(&format!(
            "{VERSION}:{seconds}:{}",
            hex::encode(mac.into_bytes())
        ))
    }

    /// Checks a proof that came with a request.
    ///
    /// # Errors
    /// [`ProofError`]; whether the proof is wrong is looked at before its age.
    pub fn verify(
        &self,
        proof: &HeaderValue,
        method: &Method,
        path_and_query: &str,
        now: Timestamp,
    ) -> Result<(), ProofError> {
        let text = proof.to_str().map_err(|_| ProofError::Malformed)?;
        let (seconds, given) = text
            .strip_prefix(VERSION)
            .and_then(|rest| rest.strip_prefix(':'))
            .and_then(|rest| rest.split_once(':'))
            .ok_or(ProofError::Malformed)?;
        let at: i64 = seconds.parse().map_err(|_| ProofError::Malformed)?;
        let mut mac = [0; 32];
        hex::decode_to_slice(given, &mut mac).map_err(|_| ProofError::Malformed)?;
        self.mac(seconds, method, path_and_query)
            .verify_slice(&mac)
            .map_err(|_| ProofError::Wrong)?;
        let seconds = now.seconds().abs_diff(at);
        if seconds > PROOF_AGE_MAX.as_secs() {
            return Err(ProofError::Expired { seconds });
        }
        Ok(())
    }

    /// A key of the cluster for one use, named by `label`; nobody gets from it to the cluster key,
    /// or to the key of another use.
    ///
    /// It is `HMAC-SHA256(key, "forebay derived key\n" label)`. The text differs from that of every
    /// proof, which begins with digits.
    pub fn derive(&self, label: &str) -> [u8; 32] {
        let mac = self.keyed().chain_update(b"forebay derived key\n");
        mac.chain_update(label).finalize().into_bytes().into()
    }

    fn keyed(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes a key of any length")
    }

    fn mac(&self, seconds: &str, method: &Method, path_and_query: &str) -> Hmac<Sha256> {
        let mut mac = self.keyed();
        for part in [seconds, "\n", method.as_str(), "\n", path_and_query] {
            mac.update(part.as_bytes());
        }
        mac
    }
}

fn value(proof: &str) -> HeaderValue {
    HeaderValue::from_str(proof).expect("digits and letters are a header's value")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_parts(1_700_000_000, 5);

    fn key() -> ClusterKey {
        ClusterKey::new(b"0123456789abcdef\n").unwrap()
    }

    fn verified(proof: &HeaderValue, method: &Method, path: &str, at: i64) -> Option<ProofError> {
        let now = Timestamp::from_parts(at, 0);
        key().verify(proof, method, path, now).err()
    }

    /// The same by another implementation, so that both sides can't drift together:
    /// `printf '1700000000\nGET\n/b/k?x=1' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn a_proof_is_what_is_specified() {
        let proof = key().prove(&Method::GET, "/b/k?x=1", NOW);
        assert_eq!(proof.to_str().unwrap(), SPECIFIED);
    }
    const SPECIFIED: &str =
        "v1:1700000000:6f556bdcc3d8bae0714d88c18fe74775cfe3d9aca942e1e89786f8f65b45d10b";

    #[test]
    fn a_proof_is_good_for_one_request_and_a_minute() {
        let proof = key().prove(&Method::GET, "/b/k?x=1", NOW);
        let seconds = NOW.seconds();
        for (method, path, at, expected) in [
            (Method::GET, "/b/k?x=1", seconds, None),
            (Method::GET, "/b/k?x=1", seconds + 60, None),
            (Method::GET, "/b/k?x=1", seconds - 60, None),
            (
                Method::GET,
                "/b/k?x=1",
                seconds + 61,
                Some(ProofError::Expired { seconds: 61 }),
            ),
            (
                Method::GET,
                "/b/k?x=1",
                seconds - 61,
                Some(ProofError::Expired { seconds: 61 }),
            ),
            (Method::HEAD, "/b/k?x=1", seconds, Some(ProofError::Wrong)),
            (Method::GET, "/b/k?x=2", seconds, Some(ProofError::Wrong)),
            (Method::GET, "/b/k", seconds, Some(ProofError::Wrong)),
        ] {
            assert_eq!(verified(&proof, &method, path, at), expected, "{path} {at}");
        }
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let good = key().prove(&Method::GET, "/", NOW);
        let good = good.to_str().unwrap();
        let other = ClusterKey::new(b"another key, as long as the first").unwrap();
        let later = good.replacen("1700000000", "1700000001", 1);
        for (text, expected) in [
            ("1".to_owned(), ProofError::Malformed),
            (String::new(), ProofError::Malformed),
            ("v1:".to_owned(), ProofError::Malformed),
            (good.replacen("v1", "v2", 1), ProofError::Malformed),
            (format!("{good}00"), ProofError::Malformed),
            (good[..good.len() - 2].to_owned(), ProofError::Malformed),
            (later, ProofError::Wrong),
            (
                other
                    .prove(&Method::GET, "/", NOW)
                    .to_str()
                    .unwrap()
                    .to_owned(),
                ProofError::Wrong,
            ),
        ] {
            let proof = HeaderValue::try_from(text).unwrap();
            assert_eq!(
                verified(&proof, &Method::GET, "/", NOW.seconds()),
                Some(expected),
                "{proof:?}"
            );
        }
    }

    /// `printf 'forebay derived key\nlease' | openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn a_derived_key_is_what_is_specified() {
        assert_eq!(hex::encode(key().derive("lease")), DERIVED);
        assert_ne!(key().derive("lease"), key().derive("leases"));
    }
    const DERIVED: &str = "7bbe49a160f7f6d9e5e82c857e115ba0c3ba1a52f3c23cf91f36322709b9e9cc";

    #[test]
    fn a_short_key_is_refused() {
        assert_eq!(
            ClusterKey::new(b" 0123456789abcde\n").unwrap_err(),
            ClusterKeyTooShort { len: 15 }
        );
    }
}
