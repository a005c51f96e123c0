//! What `warm` and `cache` are told to work on: `s3://bucket/prefix`, maybe with a pattern.

use std::str::FromStr;

use anyhow::{Context as _, Error, Result, ensure};
use globset::{GlobBuilder, GlobMatcher};

/// Objects of a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The bucket's name.
    pub(crate) bucket: String,
    /// What their keys begin with: all that is before the first character of a pattern.
    pub(crate) prefix: String,
    /// What their keys match as a whole, if not all that begin so are meant.
    pattern: Option<GlobMatcher>,
}

impl Source {
    /// Whether a key that begins with the prefix is meant.
    pub(crate) fn matches(&self, key: &str) -> bool {
        let pattern = self.pattern.as_ref();
        pattern.is_none_or(|pattern| pattern.is_match(key))
    }
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text
            .strip_prefix("s3://")
            .with_context(|| format!("{text}: expected s3://bucket or s3://bucket/prefix"))?;
        let (bucket, rest) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(
            !bucket.is_empty(),
            "{text}: expected s3://bucket or s3://bucket/prefix"
        );
        let end = rest.find(['*', '?', '[']).unwrap_or(rest.len());
        let pattern = (end < rest.len())
            .then(|| {
                // As s5cmd and the shells' `case` have it: a star takes slashes, too.
                let glob = GlobBuilder::new(rest).literal_separator(false).build();
                glob.with_context(|| format!("{text}: the pattern is wrong"))
            })
            .transpose()?;
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: rest[..end].to_owned(),
            pattern: pattern.map(|glob| glob.compile_matcher()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_is_all_that_begins_so() {
        let all = source("s3://data");
        assert_eq!((&*all.bucket, &*all.prefix), ("data", ""));
        assert!(all.matches("any/key"));
        let below = source("s3://data/train/a");
        assert_eq!(below.prefix, "train/a");
        assert!(below.matches("train/abc"));
    }

    #[test]
    fn a_pattern_matches_whole_keys() {
        let shards = source("s3://data/train/shard-*.tar");
        assert_eq!(shards.prefix, "train/shard-");
        assert!(shards.matches("train/shard-000.tar"));
        assert!(!shards.matches("train/shard-000.tar.md5"));
        assert!(source("s3://data/*.tar").matches("deep/down/x.tar"));
        assert!(source("s3://data/x[0-3]").matches("x2"));
        assert!(!source("s3://data/x?").matches("x22"));
    }

    #[test]
    fn what_names_no_bucket_is_refused() {
        for bad in ["data/x", "s3://", "s3:///x", "http://h/b", "s3://b/x[", ""] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
