//! Grants: what lets a node fetch bytes of a version that one of its clients may read.
//!
//! A node passes its client's signed request on and, with the header of
//! [`cluster`](forebay_cache::cluster), asks for the head of the answer alone. If the client may
//! read, the head bears a token in [`GRANT_HEADER`]. With that, and without a signature, the node
//! fetches ranges of exactly that version, and gets a new token once the old one is about to be too
//! old. A token says no more than what its client could have read at the moment it was made: the
//! version is named by its entity tag, and never changes. It ends with the access key that it goes
//! back to.
//!
//! ```text
//! offset  size  field
//!      0     8  made_s    seconds since 1970: when the token was made
//!      8     8  first_s   when the first token was made that this one goes back to
//!     16     8  bucket    the bucket's number, so that no bucket made anew takes its place
//!     24     8  key_made  nanoseconds since 1970: when the access key was made, so that none made
//!                         anew under its id takes its place
//!     32    32  mac       HMAC-SHA256 over the other fields, bucket, key, version id, entity tag
//!     64     n  key_id    the id of the access key
//! ```
//!
//! All integers are big-endian; the whole is base64url without padding.
//!
//! # Invariants
//! 1. The secret is of this process and never leaves it; a token of another process is no token.
//! 2. No token holds [`CHAIN_MAX_S`] after its first one was made.
//! 3. What a token is used for is allowed to its access key at that moment; whoever reads a token
//!    sees to it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forebay_store::entry::{AccessKey, BucketId};
use forebay_store::time::Timestamp;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderName;
use sha2::Sha256;

use crate::auth::same_digest;

/// The token, in answers and in the requests that use it.
pub(crate) const GRANT_HEADER: HeaderName = HeaderName::from_static("x-forebay-grant");
/// What `Content-Length` would be if the answer had its body.
pub(crate) const LENGTH_HEADER: HeaderName = HeaderName::from_static("x-forebay-length");
/// Size of the whole object in bytes.
pub(crate) const SIZE_HEADER: HeaderName = HeaderName::from_static("x-forebay-size");

/// How long a token fetches, in seconds.
const FETCH_MAX_S: i64 = 60;
/// How long a token gets another one: as long as the signature that it stands for.
const RENEW_MAX_S: i64 = 900;
/// How long tokens can be renewed one by another: one transfer, be it a slow one.
const CHAIN_MAX_S: i64 = 3600;
/// How far back the clock may be set before tokens are refused.
const BACK_MAX_S: i64 = 60;

const HEAD_LEN: usize = 32;
/// What a token has before its access key's id.
const FIXED_LEN: usize = HEAD_LEN + 32;

/// What a token is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'s> {
    /// The bucket's name.
    pub(crate) bucket: &'s str,
    /// The object's key.
    pub(crate) key: &'s str,
    /// The version's id, where the bucket has versions.
    pub(crate) version_id: Option<&'s str>,
    /// The entity tag, without quotes.
    pub(crate) etag: &'s str,
}

/// On whose behalf a token is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The id of the access key.
    pub(crate) key_id: String,
    /// When that key was made.
    pub(crate) key_made: Timestamp,
    /// When the first token was made that this one goes back to; `None` for the first.
    first_s: Option<i64>,
}

impl Holder {
    /// Who has just signed with a key.
    pub(crate) fn new(key: &AccessKey) -> Self {
        Self {
            key_id: key.id.clone(),
            key_made: key.created_at,
            first_s: None,
        }
    }
}

/// A token that was made here, of the subject it was shown for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The bucket it is good for.
    pub(crate) bucket: BucketId,
    /// The id of the access key that it goes back to.
    pub(crate) key_id: String,
    /// When that key was made.
    pub(crate) key_made: Timestamp,
    made_s: i64,
    first_s: i64,
}

impl Grant {
    /// Whether it fetches bytes.
    pub(crate) fn fetches(&self, now_s: i64) -> bool {
        self.is_within(FETCH_MAX_S, now_s)
    }

    /// Whether it gets another token.
    pub(crate) fn renews(&self, now_s: i64) -> bool {
        self.is_within(RENEW_MAX_S, now_s)
    }

    /// Who gets another token for this one.
    pub(crate) fn holder(&self) -> Holder {
        Holder {
            key_id: self.key_id.clone(),
            key_made: self.key_made,
            first_s: Some(self.first_s),
        }
    }

    /// Whether this is the access key that it goes back to.
    pub(crate) fn is_of(&self, key: &AccessKey) -> bool {
        self.key_id == key.id && self.key_made == key.created_at
    }

    fn is_within(&self, max_s: i64, now_s: i64) -> bool {
        let age_s = now_s.saturating_sub(self.made_s);
        (-BACK_MAX_S..=max_s).contains(&age_s) && now_s.saturating_sub(self.first_s) <= CHAIN_MAX_S
    }
}

/// Makes tokens and reads them.
pub(crate) struct Grants(Hmac<Sha256>);

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grants(…)")
    }
}

impl Grants {
    /// With a secret of random bytes.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    /// A token for a holder.
    pub(crate) fn make(
        &self,
        subject: &Subject<'_>,
        bucket: BucketId,
        holder: Holder,
        now_s: i64,
    ) -> String {
        let grant = Grant {
            bucket,
            key_id: holder.key_id,
            key_made: holder.key_made,
            made_s: now_s,
            first_s: holder.first_s.unwrap_or(now_s),
        };
        let mut token = Vec::with_capacity(FIXED_LEN + grant.key_id.len());
        token.extend_from_slice(&head(&grant));
        token.extend_from_slice(&self.mac(subject, &grant));
        token.extend_from_slice(grant.key_id.as_bytes());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// Reads a token that is shown for a subject; `None` if it was not made here for that. How old
    /// it is, and whether its key may still read, is still to be asked.
    pub(crate) fn read(&self, token: &str, subject: &Subject<'_>) -> Option<Grant> {
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (fixed, key_id) = token.split_at_checked(FIXED_LEN)?;
        let number = |offset: usize| {
            let bytes = fixed[offset..offset + 8].try_into();
            u64::from_be_bytes(bytes.expect("8 bytes"))
        };
        let grant = Grant {
            made_s: number(0).cast_signed(),
            first_s: number(8).cast_signed(),
            bucket: BucketId(number(16)),
            key_made: Timestamp(number(24).cast_signed()),
            key_id: std::str::from_utf8(key_id).ok()?.to_owned(),
        };
        same_digest(&self.mac(subject, &grant), &fixed[HEAD_LEN..]).then_some(grant)
    }

    fn mac(&self, subject: &Subject<'_>, grant: &Grant) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(b"forebay grant 2");
        mac.update(&head(grant));
        let fields = [
            Some(subject.bucket),
            Some(subject.key),
            subject.version_id,
            Some(subject.etag),
            Some(&grant.key_id),
        ];
        for field in fields {
            // The length before each field: no two subjects have the same bytes.
            let len = field.map_or(u64::MAX, |text| text.len() as u64);
            mac.update(&len.to_be_bytes());
            mac.update(field.unwrap_or_default().as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

fn head(grant: &Grant) -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(&grant.made_s.to_be_bytes());
    head[8..16].copy_from_slice(&grant.first_s.to_be_bytes());
    head[16..24].copy_from_slice(&grant.bucket.0.to_be_bytes());
    head[24..].copy_from_slice(&grant.key_made.0.to_be_bytes());
    head
}

#[cfg(test)]
mod tests {
    use forebay_store::entry::Secret;
    use forebay_store::name::AccountId;

    use super::*;

    const NOW: i64 = 1_369_353_600;
    const SUBJECT: Subject<'static> = Subject {
        bucket: "bkt",
        key: "a/b",
        version_id: Some("v1"),
        etag: "25f9e794323b453885f5181f1b624d0b",
    };

    fn grants() -> Grants {
        Grants::new(&[7; 32])
    }

    fn key() -> AccessKey {
        AccessKey {
            id: "AKID".to_owned(),
            secret: Secret("a secret".to_owned()),
            account: AccountId::new("account"),
            created_at: Timestamp(-5),
        }
    }

    fn make(holder: Holder, now_s: i64) -> String {
        grants().make(&SUBJECT, BucketId(3), holder, now_s)
    }

    #[test]
    fn a_token_is_good_for_its_subject_and_for_no_other() {
        let token = make(Holder::new(&key()), NOW);
        assert_eq!(token.len(), 91);
        let grant = grants().read(&token, &SUBJECT).unwrap();
        assert_eq!(grant.bucket, BucketId(3));
        assert!(grant.is_of(&key()));
        let (mut other, mut anew) = (key(), key());
        other.id.push('2');
        anew.created_at = Timestamp(-4);
        assert!(!grant.is_of(&other) && !grant.is_of(&anew));
        let others = [
            Subject {
                bucket: "bk",
                ..SUBJECT
            },
            Subject {
                bucket: "bkta",
                key: "/b",
                ..SUBJECT
            },
            Subject {
                key: "a/c",
                ..SUBJECT
            },
            Subject {
                version_id: Some("v2"),
                ..SUBJECT
            },
            Subject {
                version_id: Some(""),
                ..SUBJECT
            },
            Subject {
                version_id: None,
                ..SUBJECT
            },
            Subject {
                etag: "25f9e794323b453885f5181f1b624d0b-1",
                ..SUBJECT
            },
            Subject {
                etag: "",
                ..SUBJECT
            },
        ];
        for other in others {
            assert_eq!(grants().read(&token, &other), None, "{other:?}");
        }
        assert_eq!(Grants::new(&[8; 32]).read(&token, &SUBJECT), None);
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed() {
        let token = make(Holder::new(&key()), NOW);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(grants().read(&changed, &SUBJECT), None, "bit {at}");
        }
        for text in [
            "",
            "=",
            "a",
            &token[1..],
            &format!("{token}A"),
            &format!("{token}="),
        ] {
            assert_eq!(grants().read(text, &SUBJECT), None, "{text}");
        }
    }

    #[test]
    fn a_token_ends_and_so_do_those_that_come_of_it() {
        let token = make(Holder::new(&key()), NOW);
        let grant = grants().read(&token, &SUBJECT).unwrap();
        for (age_s, fetches, renews) in [
            (-61, false, false),
            (-60, true, true),
            (0, true, true),
            (60, true, true),
            (61, false, true),
            (900, false, true),
            (901, false, false),
            (i64::MAX - NOW, false, false),
        ] {
            let now_s = NOW + age_s;
            assert_eq!(grant.fetches(now_s), fetches, "{age_s}");
            assert_eq!(grant.renews(now_s), renews, "{age_s}");
        }
        let mut last = grant;
        let mut now_s = NOW;
        while last.renews(now_s + 600) {
            now_s += 600;
            let token = make(last.holder(), now_s);
            last = grants().read(&token, &SUBJECT).unwrap();
        }
        assert_eq!(now_s - NOW, CHAIN_MAX_S);
        assert!(!last.fetches(now_s + 1));
    }
}
