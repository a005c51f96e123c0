//! Where `CoreWeave`, Wasabi and AWS differ, and which of them is followed.
//!
//! One switch picks a column for every such question; nothing else in this part asks which service
//! is being imitated. The forebay column is the default and accepts the most.

use std::str::FromStr;

/// Whose behaviour is followed where the services differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// The most tolerant reading; the default.
    #[default]
    Forebay,
    /// Amazon S3.
    Aws,
    /// `CoreWeave` AI Object Storage.
    Coreweave,
    /// Wasabi.
    Wasabi,
}

/// The name of a profile was none of `forebay`, `aws`, `coreweave`, `wasabi`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown profile {0:?}: expected forebay, aws, coreweave or wasabi")]
pub struct UnknownCompat(String);

impl FromStr for Compat {
    type Err = UnknownCompat;

    fn from_str(text: &str) -> Result<Self, UnknownCompat> {
        match text {
            "forebay" => Ok(Self::Forebay),
            "aws" => Ok(Self::Aws),
            "coreweave" => Ok(Self::Coreweave),
            "wasabi" => Ok(Self::Wasabi),
            other => Err(UnknownCompat(other.to_owned())),
        }
    }
}

/// What to do with the `LocationConstraint` of `CreateBucket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocationRule {
    /// Take any; none means the server's region.
    Lenient,
    /// Refuse a request without one.
    Require,
    /// Never store what was sent.
    Ignore,
    /// Take only the server's own region.
    Validate,
}

impl Compat {
    /// C1: `CreateBucket`'s `LocationConstraint`.
    pub(crate) const fn location_constraint(self) -> LocationRule {
        match self {
            Self::Forebay => LocationRule::Lenient,
            Self::Aws => LocationRule::Validate,
            Self::Coreweave => LocationRule::Require,
            Self::Wasabi => LocationRule::Ignore,
        }
    }

    /// C2: a fixed answer of `GetBucketLocation`, where the service has one.
    pub(crate) const fn fixed_location(self) -> Option<&'static str> {
        match self {
            Self::Wasabi => Some("us-east"),
            Self::Forebay | Self::Aws | Self::Coreweave => None,
        }
    }

    /// C5: whether `/bucket/key` on the base domain is served.
    pub(crate) const fn path_style(self) -> bool {
        !matches!(self, Self::Coreweave)
    }

    /// C6: whether a bucket name may hold `_`.
    pub(crate) const fn underscore_in_bucket_name(self) -> bool {
        matches!(self, Self::Forebay | Self::Wasabi)
    }

    /// C6: whether a bucket name may hold `.`.
    pub(crate) const fn dot_in_bucket_name(self) -> bool {
        !matches!(self, Self::Coreweave)
    }

    /// C6: whether the names that `CoreWeave` keeps for itself are refused.
    pub(crate) const fn coreweave_reserved_names(self) -> bool {
        matches!(self, Self::Coreweave)
    }

    /// C11: whether creating a bucket that one already owns, in the same place, succeeds.
    pub(crate) const fn recreate_is_idempotent(self) -> bool {
        matches!(self, Self::Forebay | Self::Coreweave)
    }

    /// Whether a body of unknown length is taken: `Transfer-Encoding: chunked` and nothing else.
    pub(crate) const fn unknown_length(self) -> bool {
        matches!(self, Self::Forebay)
    }

    /// Whether an empty `continuation-token` is none; else it is a wrong one.
    pub(crate) const fn empty_token_is_none(self) -> bool {
        matches!(self, Self::Forebay)
    }

    /// C18: whether the region of a signature's scope must be the server's.
    pub(crate) const fn strict_region(self) -> bool {
        matches!(self, Self::Aws | Self::Wasabi)
    }

    /// C19: whether `If-None-Match: "etag"` on a write is `NotImplemented` and not
    /// `InvalidRequest`.
    pub(crate) const fn etag_condition_is_not_implemented(self) -> bool {
        matches!(self, Self::Aws)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_parse_by_their_names_only() {
        assert_eq!("forebay".parse(), Ok(Compat::Forebay));
        assert_eq!("aws".parse(), Ok(Compat::Aws));
        assert_eq!("coreweave".parse(), Ok(Compat::Coreweave));
        assert_eq!("wasabi".parse(), Ok(Compat::Wasabi));
        assert!("AWS".parse::<Compat>().is_err());
    }
}
