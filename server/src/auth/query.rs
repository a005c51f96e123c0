//! Presigned requests: the signature and what it covers are in the query.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::sigv4::{ALGORITHM, Credential};
use crate::error::{Code, Result, S3Error};
use crate::query::Query;
use crate::time;

/// Longest life of a presigned request, in seconds.
const EXPIRES_MAX_S: i64 = 604_800;
/// How far in the future a presigned request may begin, in seconds.
const FUTURE_MAX_S: i64 = 900;

/// The six parameters that make a request a presigned one.
const PARAMETERS: [&str; 6] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
];

/// What a presigned request says about its signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presigned<'r> {
    /// Who signs, when, for where.
    pub(crate) credential: Credential<'r>,
    /// `yyyymmddThhmmssZ`.
    pub(crate) amz_date: &'r str,
    /// Names joined by `;`.
    pub(crate) signed_headers: &'r str,
    /// 64 hexadecimal digits, if it is a signature.
    pub(crate) signature: &'r str,
}

/// Whether any parameter of a presigned request is there.
pub(crate) fn is_presigned(query: &Query) -> bool {
    query.iter().any(|(name, _)| PARAMETERS.contains(&name))
}

/// Whether the request is presigned with version 2.
pub(crate) fn is_older_version(query: &Query) -> bool {
    query.has("AWSAccessKeyId") && query.has("Signature")
}

fn parameter_error(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with(Code::AuthorizationQueryParametersError, message)
}

impl<'r> Presigned<'r> {
    /// Reads the parameters and checks that the request is in its time.
    ///
    /// # Errors
    /// `AuthorizationQueryParametersError`; `AccessDenied` for one that is not valid yet or any
    /// more.
    pub(crate) fn parse(query: &'r Query, now_s: i64) -> Result<Self> {
        let get = |name: &'static str| {
            if query.iter().filter(|pair| pair.0 == name).count() > 1 {
                return Err(parameter_error(format!("{name} is there twice.")));
            }
            query.get(name).ok_or_else(|| {
                parameter_error(format!(
                    "Query-string authentication version 4 requires the {} parameters.",
                    PARAMETERS.join(", ")
                ))
            })
        };
        if get("X-Amz-Algorithm")? != ALGORITHM {
            return Err(parameter_error(
                "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\".",
            ));
        }
        let credential = Credential::parse(get("X-Amz-Credential")?).map_err(|why| {
            parameter_error(format!(
                "Error parsing the X-Amz-Credential parameter; {why}."
            ))
        })?;
        let amz_date = get("X-Amz-Date")?;
        let signed_at = time::parse_amz_date(amz_date).ok_or_else(|| {
            parameter_error(
                "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\".",
            )
        })?;
        if !amz_date.starts_with(credential.date) {
            return Err(parameter_error(
                "The dates of X-Amz-Credential and X-Amz-Date differ.",
            ));
        }
        let expires_s = expires(get("X-Amz-Expires")?)?;
        check_time(signed_at, expires_s, now_s)?;
        Ok(Self {
            credential,
            amz_date,
            signed_headers: get("X-Amz-SignedHeaders")?,
            signature: get("X-Amz-Signature")?,
        })
    }
}

fn expires(text: &str) -> Result<i64> {
    let seconds: i64 = text
        .parse()
        .map_err(|_| parameter_error("X-Amz-Expires should be a number."))?;
    match seconds {
        ..0 => Err(parameter_error("X-Amz-Expires must be non-negative.")),
        0..=EXPIRES_MAX_S => Ok(seconds),
        _ => Err(parameter_error(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires \
             must be less than 604800 seconds.",
        )),
    }
}

fn check_time(signed_at: i64, expires_s: i64, now_s: i64) -> Result<()> {
    let ends_at = signed_at + expires_s;
    // A life of no seconds is over before it begins, and not with the second it began in.
    if now_s > ends_at || expires_s == 0 {
        return Err(S3Error::with(Code::AccessDenied, "Request has expired")
            .field("X-Amz-Expires", expires_s.to_string())
            .field("Expires", time::iso8601(ends_at * 1000))
            .field("ServerTime", time::iso8601(now_s * 1000)));
    }
    if signed_at > now_s + FUTURE_MAX_S {
        return Err(S3Error::with(
            Code::AccessDenied,
            "Request is not valid yet",
        ));
    }
    Ok(())
}

/// Makes headers of the `x-amz-*` parameters that stand for headers; a header that is there stays.
///
/// Called once the signature, which covers all parameters, is known to be right.
///
/// # Errors
/// `InvalidArgument` for a value that no header can have.
pub(crate) fn promote(query: &Query, headers: &mut HeaderMap) -> Result<()> {
    for (name, value) in query.iter() {
        let is_amz = name
            .get(..6)
            .is_some_and(|start| start.eq_ignore_ascii_case("x-amz-"));
        if !is_amz || PARAMETERS.contains(&name) {
            continue;
        }
        let bad = || S3Error::argument(name, value, "The parameter can't stand for a header.");
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        if !headers.contains_key(&header) {
            headers.insert(header, HeaderValue::from_str(value).map_err(|_| bad())?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_369_353_600;

    fn parse(change: &[(&str, Option<&str>)]) -> Result<()> {
        let mut pairs = vec![
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            (
                "X-Amz-Credential",
                "AKID%2F20130524%2Fus-east-1%2Fs3%2Faws4_request",
            ),
            ("X-Amz-Date", "20130524T000000Z"),
            ("X-Amz-Expires", "86400"),
            ("X-Amz-SignedHeaders", "host"),
            ("X-Amz-Signature", "00"),
        ];
        for (name, value) in change {
            pairs.retain(|pair| pair.0 != *name);
            pairs.extend(value.map(|value| (*name, value)));
        }
        let raw: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let query = Query::parse(&raw.join("&")).unwrap();
        assert!(is_presigned(&query));
        Presigned::parse(&query, NOW).map(drop)
    }

    #[test]
    fn every_parameter_is_needed() {
        parse(&[]).unwrap();
        for name in PARAMETERS {
            let error = parse(&[(name, None)]).unwrap_err();
            assert_eq!(
                error.code(),
                Code::AuthorizationQueryParametersError,
                "{name}"
            );
        }
    }

    #[test]
    fn parameters_out_of_bounds_are_refused() {
        let rows = [
            ("X-Amz-Algorithm", "AWS4-ECDSA-P256-SHA256"),
            ("X-Amz-Credential", "AKID"),
            ("X-Amz-Date", "20130524"),
            ("X-Amz-Date", "20130525T000000Z"),
            ("X-Amz-Expires", "-1"),
            ("X-Amz-Expires", "604801"),
            ("X-Amz-Expires", "99999999999999999999"),
            ("X-Amz-Expires", "a"),
            ("X-Amz-Expires", ""),
        ];
        for (name, value) in rows {
            let error = parse(&[(name, Some(value))]).unwrap_err();
            assert_eq!(
                error.code(),
                Code::AuthorizationQueryParametersError,
                "{name}={value}"
            );
        }
    }

    #[test]
    fn a_request_is_valid_in_its_time_only() {
        let rows = [
            (0, 0, false),
            (0, 1, true),
            (-1, 1, true),
            (-2, 1, false),
            (-604_800, 604_800, true),
            (-604_801, 604_800, false),
            (900, 60, true),
            (901, 60, false),
        ];
        for (signed_at, expires, valid) in rows {
            let result = check_time(NOW + signed_at, expires, NOW);
            assert_eq!(result.is_ok(), valid, "{signed_at} {expires}");
            assert!(valid || result.unwrap_err().code() == Code::AccessDenied);
        }
    }

    #[test]
    fn signed_parameters_stand_for_headers() {
        let query = Query::parse(
            "X-Amz-Expires=5&X-Amz-Meta-Colour=red&x-amz-acl=private&prefix=a&x-amz-meta-a=b%0d%0ac",
        )
        .unwrap();
        assert!(
            promote(&query, &mut HeaderMap::new()).is_err(),
            "a line break"
        );
        let query =
            Query::parse("X-Amz-Expires=5&X-Amz-Meta-Colour=red&x-amz-acl=private").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-acl", HeaderValue::from_static("mine"));
        promote(&query, &mut headers).unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["x-amz-meta-colour"], "red");
        assert_eq!(headers["x-amz-acl"], "mine");
    }
}
