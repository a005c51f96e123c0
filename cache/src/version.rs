//! Which bytes are meant.

use std::ops::Range;

/// Size of a block in bytes; the last one of an object is shorter.
pub const BLOCK_SIZE: u64 = 1 << 20;

/// One version of one object: what a cached byte belongs to.
///
/// Bucket, key, entity tag and size are its identity; two versions that agree in these have the
/// same bytes.
#[derive(Clone, Debug)]
pub struct Version {
    /// The bucket's name.
    pub bucket: String,
    /// The object's key.
    pub key: String,
    /// Its entity tag as the origin wrote it, without quotes. Never a weak one.
    pub etag: String,
    /// Its version id, to ask the origin by where it is not the current one.
    pub version_id: Option<String>,
    /// Size in bytes.
    pub size: u64,
}

impl Version {
    /// How many blocks it has; none if it is empty.
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK_SIZE)
    }

    /// Where in the object a block is.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_range(&self, block: u64) -> Range<u64> {
        assert!(block < self.blocks(), "a block of the object");
        let start = block * BLOCK_SIZE;
        start..self.size.min(start + BLOCK_SIZE)
    }

    fn identity(&self) -> (&str, &str, &str, u64) {
        (&self.bucket, &self.key, &self.etag, self.size)
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Version {}

impl std::hash::Hash for Version {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(size: u64) -> Version {
        Version {
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            etag: "e".to_owned(),
            version_id: None,
            size,
        }
    }

    #[test]
    fn blocks_cover_the_object_and_no_more() {
        for size in [
            0,
            1,
            BLOCK_SIZE - 1,
            BLOCK_SIZE,
            BLOCK_SIZE + 1,
            5 * BLOCK_SIZE,
        ] {
            let version = version(size);
            let ranges: Vec<_> = (0..version.blocks())
                .map(|n| version.block_range(n))
                .collect();
            assert!(ranges.iter().all(|range| !range.is_empty()));
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!(ranges.first().map_or(0, |range| range.start), 0);
            assert_eq!(ranges.last().map_or(0, |range| range.end), size);
        }
    }

    #[test]
    fn the_version_id_is_no_part_of_the_identity() {
        let named = Version {
            version_id: Some("v1".to_owned()),
            ..version(7)
        };
        assert_eq!(named, version(7));
        assert_ne!(version(8), version(7));
    }
}
