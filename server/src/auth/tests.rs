//! Every way to sign, and every way to sign wrongly.

use forebay_store::name::AccountId;
use forebay_store::time::Timestamp;
use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::call::CALLS;
use crate::query::{Plus, percent_decode};

const NOW: i64 = 1_369_353_600;
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A request under construction.
struct Draft {
    method: Method,
    call: &'static str,
    path: String,
    query: String,
    headers: HeaderMap,
    key_id: &'static str,
    secret: &'static str,
    signed_at: i64,
    scope: Option<String>,
    signed_headers: Option<&'static str>,
}

fn draft() -> Draft {
    Draft {
        method: Method::GET,
        call: "GetObject",
        path: "/bucket/key".to_owned(),
        query: String::new(),
        headers: HeaderMap::new(),
        key_id: "AKID/with/slashes",
        secret: SECRET,
        signed_at: NOW,
        scope: None,
        signed_headers: None,
    }
    .with("host", "localhost:9000")
}

impl Draft {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    fn call(mut self, name: &'static str) -> Self {
        let call = CALLS.iter().find(|call| call.name == name).unwrap();
        self.method = Method::from_bytes(call.method.as_bytes()).unwrap();
        self.call = name;
        self
    }

    fn scope(&self) -> String {
        let day = &time::amz_date(self.signed_at)[..8];
        let scope = self.scope.clone();
        scope.unwrap_or_else(|| format!("{day}/us-east-1/s3/aws4_request"))
    }

    fn names(&self) -> String {
        let mut names: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        self.signed_headers
            .map_or_else(|| names.join(";"), str::to_owned)
    }

    fn signature(&self, names: &str, payload: &str) -> String {
        let scope = self.scope();
        let text = format!("{}/{scope}", self.key_id);
        let Ok(credential) = Credential::parse(&text) else {
            return "00".repeat(32);
        };
        let query = Query::parse(&self.query).unwrap();
        let path = percent_decode(&self.path, Plus::Plus).unwrap();
        let signed = Signed {
            method: &self.method,
            path: &path,
            query: &query,
            headers: &self.headers,
            names,
            payload,
        };
        let date = time::amz_date(self.signed_at);
        let to_sign = sigv4::string_to_sign(&date, &credential, &signed.canonical_request());
        let key = SigningKey::derive(self.secret, credential.date, credential.region);
        hex::encode(key.sign(to_sign.as_bytes()))
    }

    /// Signs in the header.
    fn signed(self, payload: &str) -> Self {
        let date = time::amz_date(self.signed_at);
        let draft = self
            .with("x-amz-date", &date)
            .with("x-amz-content-sha256", payload);
        let names = draft.names();
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{},SignedHeaders={names},Signature={}",
            draft.key_id,
            draft.scope(),
            draft.signature(&names, payload)
        );
        draft.with("authorization", &value)
    }

    /// Signs in the query.
    fn presigned(mut self, extra: &str) -> Self {
        let names = self.names();
        self.query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}/{}&X-Amz-Date={}&X-Amz-Expires=60\
             &X-Amz-SignedHeaders={names}{extra}",
            self.key_id,
            self.scope(),
            time::amz_date(self.signed_at)
        );
        let signature = self.signature(&names, "UNSIGNED-PAYLOAD");
        self.query.push_str("&X-Amz-Signature=");
        self.query.push_str(&signature);
        self
    }

    fn authenticate_by(&mut self, authenticator: &Authenticator) -> Result<Authenticated> {
        let query = Query::parse(&self.query).unwrap();
        let path = percent_decode(&self.path, Plus::Plus).unwrap();
        let asked = Asked {
            method: &self.method,
            path: &path,
            query: &query,
            call: CALLS.iter().find(|call| call.name == self.call).unwrap(),
        };
        authenticator.authenticate(&asked, &mut self.headers, &find_key, NOW)
    }

    fn authenticate(&mut self) -> Result<Authenticated> {
        self.authenticate_by(&Authenticator::new("us-east-1".to_owned(), false))
    }

    fn code(mut self) -> Code {
        self.authenticate().expect_err("must be refused").code()
    }
}

fn find_key(claimed: &Credential<'_>) -> Option<KnownKey> {
    let id = claimed.key_id;
    let account = AccountId::new("account");
    let created_at = Timestamp(0);
    let key = AccessKey {
        id: id.to_owned(),
        secret: Secret(SECRET.to_owned()),
        account: account.clone(),
        created_at,
    };
    let account = Account {
        id: account,
        name: "name".to_owned(),
        created_at,
    };
    (id == "AKID/with/slashes").then(|| (key, Arc::new(account)).into())
}

fn is_account(auth: &Authenticated) -> bool {
    matches!(auth.principal, Principal::Account { .. })
}

#[test]
fn a_signed_request_is_its_accounts() {
    let mut signed = draft().signed(EMPTY);
    let mut auth = signed.authenticate().unwrap();
    assert!(is_account(&auth));
    assert_eq!(auth.mechanism(), Mechanism::Header);
    assert!(matches!(auth.take_payload(), Payload::Hashed(_)));
    let mut presigned = draft().presigned("&X-Amz-Meta-Colour=red");
    let mut auth = presigned.authenticate().unwrap();
    assert!(is_account(&auth));
    assert_eq!(auth.mechanism(), Mechanism::Query);
    assert!(matches!(auth.take_payload(), Payload::Unsigned));
    assert_eq!(presigned.headers["x-amz-meta-colour"], "red");
}

#[test]
fn what_is_not_signed_is_anonymous() {
    let auth = draft().authenticate().unwrap();
    assert!(matches!(auth.principal, Principal::Anonymous));
    assert_eq!(auth.mechanism(), Mechanism::None);
    let anonymous = draft()
        .call("PutObject")
        .with("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    assert_eq!(anonymous.code(), Code::InvalidRequest);
}

#[test]
fn whatever_is_changed_after_signing_is_refused() {
    let set = |draft: &mut Draft, name: &'static str, value: &'static str| {
        draft.headers.insert(name, HeaderValue::from_static(value));
    };
    let changes: [&dyn Fn(&mut Draft); 6] = [
        &|draft| draft.method = Method::HEAD,
        &|draft| draft.path.push('x'),
        &|draft| "versionId=null".clone_into(&mut draft.query),
        &|draft| set(draft, "host", "other"),
        &|draft| set(draft, "x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        &|draft| set(draft, "x-amz-date", "20130524T000001Z"),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut draft = draft().signed(EMPTY);
        change(&mut draft);
        assert_eq!(draft.code(), Code::SignatureDoesNotMatch, "{index}");
    }
    let mut presigned = draft().presigned("");
    presigned.query.push_str("&versionId=null");
    assert_eq!(presigned.code(), Code::SignatureDoesNotMatch);
}

#[test]
fn headers_added_after_signing_are_refused() {
    for name in [
        "x-amz-copy-source",
        "x-amz-acl",
        "x-amz-meta-a",
        "x-amz-tagging",
    ] {
        assert_eq!(
            draft().signed(EMPTY).with(name, "x").code(),
            Code::AccessDenied,
            "{name}"
        );
        assert_eq!(
            draft().presigned("").with(name, "x").code(),
            Code::AccessDenied,
            "{name}"
        );
    }
    let mut no_host = draft();
    no_host.signed_headers = Some("x-amz-content-sha256;x-amz-date");
    assert_eq!(no_host.signed(EMPTY).code(), Code::AccessDenied);
}

#[test]
fn security_headers_are_there_once() {
    let twice = [
        ("authorization", "x"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-content-sha256", EMPTY),
        ("host", "localhost:9000"),
    ];
    for (name, value) in twice {
        assert_eq!(
            draft().signed(EMPTY).with(name, value).code(),
            Code::InvalidRequest,
            "{name}"
        );
    }
    let ranges = draft()
        .with("range", "bytes=0-1")
        .with("range", "bytes=2-3")
        .signed(EMPTY);
    assert_eq!(ranges.code(), Code::InvalidRequest);
}

#[test]
fn one_mechanism_at_a_time() {
    let mut both = draft().presigned("");
    both = both.with("authorization", "AWS4-HMAC-SHA256 Credential=x");
    assert_eq!(both.code(), Code::InvalidArgument);
    let mut half = draft();
    half.query = "X-Amz-Signature=00".to_owned();
    assert_eq!(half.code(), Code::AuthorizationQueryParametersError);
    let mut older = draft();
    older.query = "AWSAccessKeyId=a&Signature=b&Expires=1".to_owned();
    assert_eq!(older.code(), Code::InvalidRequest);
    let older = draft().with("authorization", "AWS AKID:c2ln");
    assert_eq!(older.code(), Code::InvalidRequest);
}

#[test]
fn the_clock_may_be_wrong_by_a_quarter_of_an_hour() {
    for (offset, good) in [
        (-901, false),
        (-900, true),
        (0, true),
        (900, true),
        (901, false),
    ] {
        let mut skewed = draft();
        skewed.signed_at = NOW + offset;
        let result = skewed.signed(EMPTY).authenticate();
        assert_eq!(result.is_ok(), good, "{offset}");
        assert!(good || result.unwrap_err().code() == Code::RequestTimeTooSkewed);
    }
}

#[test]
fn keys_secrets_and_scopes_must_be_right() {
    let mut unknown = draft();
    unknown.key_id = "OTHER";
    assert_eq!(unknown.signed(EMPTY).code(), Code::InvalidAccessKeyId);
    let mut wrong = draft();
    wrong.secret = "wrong";
    assert_eq!(wrong.signed(EMPTY).code(), Code::SignatureDoesNotMatch);
    for scope in [
        "20130523/us-east-1/s3/aws4_request",
        "20130524/us-east-1/sts/aws4_request",
        "20130524/us-east-1/s3/aws5_request",
        "20130524/us-east-1/s3",
    ] {
        let mut scoped = draft();
        scoped.scope = Some(scope.to_owned());
        assert_eq!(
            scoped.signed(EMPTY).code(),
            Code::AuthorizationHeaderMalformed,
            "{scope}"
        );
        let mut scoped = draft();
        scoped.scope = Some(scope.to_owned());
        assert_eq!(
            scoped.presigned("").code(),
            Code::AuthorizationQueryParametersError,
            "{scope}"
        );
    }
    let token = draft().with("x-amz-security-token", "x").signed(EMPTY);
    assert_eq!(token.code(), Code::InvalidToken);
}

#[test]
fn the_region_matters_only_where_it_is_strict() {
    let elsewhere = |call| {
        let mut draft = draft().call(call);
        draft.scope = Some("20130524/mars/s3/aws4_request".to_owned());
        draft.signed(EMPTY)
    };
    assert!(elsewhere("GetObject").authenticate().is_ok());
    let strict = Authenticator::new("eu-1".to_owned(), true);
    let error = elsewhere("GetObject").authenticate_by(&strict).unwrap_err();
    assert_eq!(error.code(), Code::AuthorizationHeaderMalformed);
    assert!(error.fields().contains(&("Region", "eu-1".to_owned())));
    assert!(
        draft()
            .call("GetBucketLocation")
            .signed(EMPTY)
            .authenticate_by(&strict)
            .is_ok()
    );
}

#[test]
fn dates_are_needed_and_readable() {
    let mut no_date = draft().signed(EMPTY);
    no_date.headers.remove("x-amz-date");
    assert_eq!(no_date.code(), Code::AccessDenied);
    let mut bad = draft().signed(EMPTY);
    bad.headers
        .insert("x-amz-date", HeaderValue::from_static("today"));
    assert_eq!(bad.code(), Code::AccessDenied);
    let mut no_hash = draft().signed(EMPTY);
    no_hash.headers.remove("x-amz-content-sha256");
    assert_eq!(no_hash.code(), Code::InvalidRequest);
}

#[test]
fn the_payloads_hash_has_a_known_form() {
    let rows = [
        ("GetObject", "UNSIGNED-PAYLOAD", None),
        ("PutObject", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", None),
        (
            "PutObject",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            None,
        ),
        ("UploadPart", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", None),
        (
            "GetObject",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
            Some(Code::InvalidRequest),
        ),
        (
            "DeleteObjects",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Some(Code::InvalidRequest),
        ),
        (
            "PutObject",
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
            Some(Code::NotImplemented),
        ),
        ("PutObject", "STREAMING-OTHER", Some(Code::InvalidArgument)),
        ("PutObject", "abc", Some(Code::InvalidArgument)),
        ("PutObject", "", Some(Code::InvalidArgument)),
    ];
    for (call, word, expected) in rows {
        let result = draft().call(call).signed(word).authenticate();
        assert_eq!(
            result.err().map(|error| error.code()),
            expected,
            "{call} {word}"
        );
    }
}

#[test]
fn every_call_refuses_a_garbage_signature_in_every_form() {
    let hash = hex::encode(Sha256::digest("x"));
    for call in CALLS {
        for payload in [
            hash.as_str(),
            "UNSIGNED-PAYLOAD",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        ] {
            let mut wrong = draft().call(call.name);
            wrong.secret = "wrong";
            assert_eq!(
                wrong.signed(payload).code(),
                Code::SignatureDoesNotMatch,
                "{}",
                call.name
            );
        }
        let mut wrong = draft().call(call.name);
        wrong.secret = "wrong";
        assert_eq!(
            wrong.presigned("").code(),
            Code::SignatureDoesNotMatch,
            "{}",
            call.name
        );
    }
}
