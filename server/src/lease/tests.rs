//! What is sealed is opened by who has the key and has asked, and by nobody else.

use forebay_store::entry::Secret;

use super::*;

pub(crate) const NOW_S: i64 = 1_369_353_600;

fn key() -> AccessKey {
    AccessKey {
        id: "AK/ID".to_owned(),
        secret: Secret("a secret".to_owned()),
        account: AccountId::new("owner"),
        created_at: Timestamp(0),
    }
}

fn claimed() -> Credential<'static> {
    Credential::parse("AK/ID/20130524/us-east-1/s3/aws4_request").unwrap()
}

fn object() -> LeasedObject {
    LeasedObject {
        bucket: "bucket".to_owned(),
        bucket_owner: "owner".to_owned(),
        key: "a/ü".to_owned(),
        version_id: Some("null".to_owned()),
        size: 5,
        etag: [7; 16],
        etag_parts: 2,
        modified_at_ns: -5,
        headers: [
            Some("text/plain".to_owned()),
            None,
            Some("inline".to_owned()),
            None,
            None,
            Some("soon".to_owned()),
        ],
        user_metadata: vec![("m".to_owned(), vec![0xff])],
        tags: vec![("k".to_owned(), "v".to_owned())],
        storage_class: Some("GLACIER".to_owned()),
        checksum: Some(LeasedChecksum {
            algorithm: 2,
            is_composite: true,
            value: vec![1; 8],
            parts: 2,
        }),
    }
}

fn lease() -> Lease {
    let account = Account {
        id: AccountId::new("owner"),
        name: "name".to_owned(),
        created_at: Timestamp(0),
    };
    Lease {
        position: Position {
            epoch: u64::MAX,
            sequence: 9,
        },
        now_s: NOW_S,
        signer: LeasedKey::derive(&key(), &account, &claimed()),
        object: object(),
    }
}

fn sealer() -> Sealer {
    Sealer::new(&ClusterKey::new(b"a key of some length").unwrap())
}

#[test]
fn what_is_sealed_is_opened_by_who_asked() {
    let proof = HeaderValue::from_static("v1:1:abc");
    let sent = sealer().seal(&lease(), &proof).unwrap();
    assert_eq!(sealer().open(&sent, &proof), Some(lease()));
    assert_ne!(sealer().seal(&lease(), &proof).unwrap(), sent);
    let other = HeaderValue::from_static("v1:2:abc");
    assert_eq!(sealer().open(&sent, &other), None);
    let stranger = Sealer::new(&ClusterKey::new(b"another key of some length").unwrap());
    assert_eq!(stranger.open(&sent, &proof), None);
}

#[test]
fn no_bit_of_it_can_be_changed() {
    let proof = HeaderValue::from_static("proof");
    let sent = sealer().seal(&lease(), &proof).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(sent.as_bytes()).unwrap();
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[at / 8] ^= 1 << (at % 8);
        let changed = HeaderValue::try_from(URL_SAFE_NO_PAD.encode(changed)).unwrap();
        assert_eq!(sealer().open(&changed, &proof), None, "bit {at}");
    }
    for len in [0, 10, NONCE_LEN, bytes.len() - 1] {
        let short = HeaderValue::try_from(URL_SAFE_NO_PAD.encode(&bytes[..len])).unwrap();
        assert_eq!(sealer().open(&short, &proof), None, "{len}");
    }
}

#[test]
fn neither_key_nor_secret_is_readable_in_it_or_in_a_log() {
    let lease = lease();
    let key = SigningKey::derive_bytes("a secret", "20130524", "us-east-1");
    assert_eq!(lease.signer.bytes, key);
    let sent = sealer()
        .seal(&lease, &HeaderValue::from_static("p"))
        .unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(sent.as_bytes()).unwrap();
    for part in [&key[..8], b"a secret", b"AK/ID"] {
        assert!(!bytes.windows(part.len()).any(|window| window == part));
    }
    let shown = format!("{lease:?}");
    assert!(!shown.contains(&format!("{}", key[0])) || !shown.contains("bytes"));
    assert!(!shown.contains("secret"));
}

#[test]
fn what_is_too_large_for_a_head_is_not_leased() {
    let mut lease = lease();
    lease.object.user_metadata = vec![("m".to_owned(), vec![b'a'; SENT_MAX])];
    assert_eq!(sealer().seal(&lease, &HeaderValue::from_static("p")), None);
}

#[test]
fn an_entry_comes_through_whole_but_for_its_parts() {
    let entry = object().entry().unwrap();
    assert_eq!(
        LeasedObject::new("bucket", &AccountId::new("owner"), &entry),
        object()
    );
    assert_eq!(entry.etag.to_string(), format!("{}-2", "07".repeat(16)));
    assert!(entry.parts.is_empty() && !entry.delete_marker);
    let mut bad = object();
    bad.checksum.as_mut().unwrap().algorithm = 5;
    assert!(bad.entry().is_none());
    let mut bad = object();
    bad.version_id = Some("no id".to_owned());
    assert!(bad.entry().is_none());
}
