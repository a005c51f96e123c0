//! Signing keys: derived from a secret for one day and region, and remembered.
//!
//! Deriving costs four HMACs; a cached key is a keyed HMAC state that is cloned per signature.
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
//!
//! # Invariants
//! 1. A cached key is used only while the account's secret is the one it was derived from, so a key
//!    that was removed or replaced signs nothing from that moment on.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use lru::LruCache;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Signing keys held; one is in use per access key, day and region.
const SIGNING_KEYS_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// A key that signs requests of one access key on one day in one region.
#[derive(Clone)]
pub(crate) struct SigningKey(Hmac<Sha256>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    keyed(key)
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

impl SigningKey {
    /// Derives the key for a scope `date/region/s3/aws4_request`.
    pub(crate) fn derive(secret: &str, date: &str, region: &str) -> Self {
        Self::from_bytes(&Self::derive_bytes(secret, date, region))
    }

    /// The key whose bytes these are.
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(keyed(bytes))
    }

    /// The bytes of the key for a scope. Whoever has them signs whatever the access key may do, on
    /// that day and in that region.
    pub(crate) fn derive_bytes(secret: &str, date: &str, region: &str) -> [u8; 32] {
        let mut start = String::with_capacity(4 + secret.len());
        start.push_str("AWS4");
        start.push_str(secret);
        let date_key = hmac(start.as_bytes(), date.as_bytes());
        let region_key = hmac(&date_key, region.as_bytes());
        let service_key = hmac(&region_key, b"s3");
        hmac(&service_key, b"aws4_request")
    }

    /// The signature of a string to sign.
    pub(crate) fn sign(&self, string_to_sign: &[u8]) -> [u8; 32] {
        self.0
            .clone()
            .chain_update(string_to_sign)
            .finalize()
            .into_bytes()
            .into()
    }
}

/// Whether `hex` is the lower- or upper-case form of `signature`, in constant time.
pub(crate) fn same_signature(signature: &[u8; 32], hex: &str) -> bool {
    let mut given = [0; 32];
    // Whether the text is hexadecimal at all is no secret.
    hex::decode_to_slice(hex, &mut given).is_ok() && signature.ct_eq(&given).into()
}

struct Cached {
    secret: String,
    key: SigningKey,
}

/// The signing keys in use.
pub(crate) struct SigningKeys {
    /// Guards the map; held for one look-up, never across another lock.
    cached: Mutex<LruCache<String, Cached>>,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").finish_non_exhaustive()
    }
}

impl SigningKeys {
    /// Holds no key yet.
    pub(crate) fn new() -> Self {
        Self {
            cached: Mutex::new(LruCache::new(SIGNING_KEYS_MAX)),
        }
    }

    /// The key of `key_id`, whose secret now is `secret`, for a day and a region.
    pub(crate) fn get(&self, key_id: &str, secret: &str, date: &str, region: &str) -> SigningKey {
        let mut name = String::with_capacity(key_id.len() + date.len() + region.len() + 2);
        for (index, part) in [date, region, key_id].into_iter().enumerate() {
            if index > 0 {
                name.push('/');
            }
            name.push_str(part);
        }
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cached.get(&name)
            && found.secret.as_bytes().ct_eq(secret.as_bytes()).into()
        {
            return found.key.clone();
        }
        let key = SigningKey::derive(secret, date, region);
        cached.put(
            name,
            Cached {
                secret: secret.to_owned(),
                key: key.clone(),
            },
        );
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_secret_gives_another_key_at_once() {
        let keys = SigningKeys::new();
        let sign = |secret| keys.get("AKID", secret, "20130524", "us-east-1").sign(b"x");
        let first = sign("one");
        assert_eq!(first, sign("one"));
        assert_ne!(first, sign("two"));
        assert_eq!(
            first,
            SigningKey::derive("one", "20130524", "us-east-1").sign(b"x")
        );
    }

    #[test]
    fn a_signature_matches_its_hex_only() {
        let signature = [0xab; 32];
        assert!(same_signature(&signature, &"ab".repeat(32)));
        assert!(same_signature(&signature, &"AB".repeat(32)));
        assert!(!same_signature(&signature, &"ac".repeat(32)));
        assert!(!same_signature(&signature, &"ab".repeat(31)));
        assert!(!same_signature(&signature, "zz"));
    }
}
