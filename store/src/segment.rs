//! Small objects, packed.
//!
//! Many objects share one append-only file, so a 4 KiB PUT costs one append and no `open`.
//!
//! ```text
//! offset  size  field      meaning
//!      0     4  magic      "FBR1"; "FBL1" if it is also the log of the change, see replay.rs
//!      4     4  head_len   bytes, from magic to the end of head_crc
//!      8     8  data_len   bytes
//!     16     8  data_crc   CRC-64/NVME of the data
//!     24     8  extent_id  number of the extent in the index
//!     32     …  record     what the bytes are, see record.rs
//!      …     8  head_crc   CRC-64/NVME of the head before it
//!      …     …  data, padded to a multiple of 8
//! ```
//!
//! All integers are little-endian.
//!
//! # Invariants
//! 1. Below its published length no byte of a segment ever changes, and no segment ever shrinks;
//!    maps rely on it.
//! 2. A record can be understood without the index; `fsck` relies on it.

use crate::digest::crc64;
use crate::record::Record;

const MAGIC: [u8; 4] = *b"FBR1";
const MAGIC_LOGGED: [u8; 4] = *b"FBL1";
const FIXED_LEN: usize = 32;
const CRC_LEN: usize = 8;
const ALIGNMENT: u64 = 8;
const ZEROS: [u8; 8] = [0; 8];

/// A record's head as it is written, and where its data begins behind it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) bytes: Vec<u8>,
}

impl Head {
    pub(crate) fn encode(
        extent_id: u64,
        data_len: u64,
        data_crc: u64,
        record: &Record,
        logged: bool,
    ) -> Self {
        let record = record.encode();
        let len = FIXED_LEN + record.len() + CRC_LEN;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(if logged { &MAGIC_LOGGED } else { &MAGIC });
        let head_len = u32::try_from(len).expect("RECORD_HEAD_MAX fits");
        bytes.extend_from_slice(&head_len.to_le_bytes());
        for field in [data_len, data_crc, extent_id] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&record);
        let crc = crc64(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        Self { bytes }
    }

    /// The same head of a record that is no log: its change did not take place.
    pub(crate) fn as_no_log(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let crc_at = bytes.len() - CRC_LEN;
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        let crc = crc64(&bytes[..crc_at]);
        bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Bytes a record of these lengths takes in a segment.
pub(crate) fn record_len(head_len: u64, data_len: u64) -> u64 {
    (head_len + data_len).next_multiple_of(ALIGNMENT)
}

/// The first place from `offset` on at which a record may begin.
pub(crate) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGNMENT)
}

/// Zeros to fill a record up with.
pub(crate) fn padding(head_len: u64, data_len: u64) -> &'static [u8] {
    let missing = record_len(head_len, data_len) - head_len - data_len;
    &ZEROS[..usize::try_from(missing).expect("less than the alignment")]
}

/// A record found in a segment.
#[derive(Debug)]
pub(crate) struct Found {
    /// Whether the record is the log of the change that published it.
    pub(crate) logged: bool,
    pub(crate) extent_id: u64,
    /// Where its data is in the segment.
    pub(crate) data_offset: u64,
    pub(crate) data_len: u64,
    pub(crate) data_crc: u64,
    pub(crate) record: Record,
    /// Where the next record begins.
    pub(crate) next: u64,
}

/// Reads the head of the record at `offset`; `None` if there is none, or a torn one.
pub(crate) fn read(segment: &[u8], offset: u64) -> Option<Found> {
    let at = usize::try_from(offset).ok()?;
    let rest = segment.get(at..)?;
    let fixed = rest.get(..FIXED_LEN)?;
    let logged = fixed[..4] == MAGIC_LOGGED;
    if !logged && fixed[..4] != MAGIC {
        return None;
    }
    let head_len = u32::from_le_bytes(fixed[4..8].try_into().ok()?);
    let head = rest.get(..usize::try_from(head_len).ok()?)?;
    let (body, crc) = head.split_at_checked(head.len().checked_sub(CRC_LEN)?)?;
    if body.len() < FIXED_LEN || crc64(body) != u64::from_le_bytes(crc.try_into().ok()?) {
        return None;
    }
    let field = |index: usize| {
        Some(u64::from_le_bytes(
            body[8 + 8 * index..16 + 8 * index].try_into().ok()?,
        ))
    };
    let (data_len, data_crc, extent_id) = (field(0)?, field(1)?, field(2)?);
    let data_offset = offset + u64::from(head_len);
    if data_offset.checked_add(data_len)? > segment.len() as u64 {
        return None;
    }
    let record = Record::decode(&body[FIXED_LEN..])?;
    let next = offset + record_len(u64::from(head_len), data_len);
    Some(Found {
        logged,
        extent_id,
        data_offset,
        data_len,
        data_crc,
        record,
        next,
    })
}

/// What a walk through a segment comes upon.
#[derive(Debug)]
pub(crate) enum Step {
    /// A record.
    Record(Box<Found>),
    /// Bytes from one offset to another in which no record can be read.
    Damage(u64, u64),
}

/// Everything in the first `end` bytes of a segment; behind damage it goes on with the next record
/// that is whole.
pub(crate) fn walk(segment: &[u8], end: u64) -> impl Iterator<Item = Step> + '_ {
    let mut offset = 0;
    std::iter::from_fn(move || {
        if offset >= end {
            return None;
        }
        if let Some(found) = read(segment, offset) {
            offset = found.next;
            return Some(Step::Record(Box::new(found)));
        }
        let from = offset;
        offset = next_record(segment, from + ALIGNMENT, end).unwrap_or(end);
        Some(Step::Damage(from, offset))
    })
}

/// Where the first whole record from `offset` on begins.
fn next_record(segment: &[u8], offset: u64, end: u64) -> Option<u64> {
    let begins = |at: &u64| {
        let here = usize::try_from(*at)
            .ok()
            .and_then(|at| segment.get(at..at + MAGIC.len()));
        let begins = here.is_some_and(|magic| *magic == MAGIC || *magic == MAGIC_LOGGED);
        begins && read(segment, *at).is_some()
    };
    let step = usize::try_from(ALIGNMENT).expect("small");
    (offset..end).step_by(step).find(begins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str) -> Record {
        Record {
            bucket: "b".to_owned(),
            key: key.to_owned(),
            owner: "o".to_owned(),
            id: 1,
            ino: 1,
            size: 5,
            etag: ([1; 16], 0),
            modified_at: 7,
            file: crate::record::StoredFile::default(),
            content_type: None,
            cache_control: None,
            storage_class: None,
            details: None,
            extents: Vec::new(),
        }
    }

    fn segment(keys: &[&str]) -> Vec<u8> {
        let mut segment = Vec::new();
        for key in keys {
            let head = Head::encode(9, 5, crc64(b"hello"), &record(key), false);
            segment.extend_from_slice(&head.bytes);
            segment.extend_from_slice(b"hello");
            segment.extend_from_slice(padding(head.len(), 5));
        }
        segment
    }

    #[test]
    fn records_are_found_one_after_the_other() {
        let segment = segment(&["a", "bb", "ccc"]);
        let mut offset = 0;
        for key in ["a", "bb", "ccc"] {
            let found = read(&segment, offset).unwrap();
            assert_eq!(
                (found.record.key.as_str(), found.extent_id, found.data_len),
                (key, 9, 5)
            );
            let at = usize::try_from(found.data_offset).unwrap();
            assert_eq!(&segment[at..at + 5], b"hello");
            offset = found.next;
        }
        assert_eq!(offset, segment.len() as u64);
        assert!(read(&segment, offset).is_none());
    }

    #[test]
    fn a_head_can_be_made_no_log() {
        let head = Head::encode(9, 0, crc64(b""), &record("a"), true);
        assert!(read(&head.bytes, 0).unwrap().logged);
        let found = read(&head.as_no_log(), 0).unwrap();
        assert!(!found.logged);
        assert_eq!((found.extent_id, found.record.key.as_str()), (9, "a"));
    }

    #[test]
    fn a_walk_goes_on_behind_damage() {
        let mut segment = segment(&["a", "bb", "ccc"]);
        let second = read(&segment, 0).unwrap().next;
        let third = read(&segment, second).unwrap().next;
        segment[usize::try_from(second).unwrap() + 40] ^= 1;
        let steps: Vec<Step> = walk(&segment, segment.len() as u64).collect();
        let [
            Step::Record(first),
            Step::Damage(from, to),
            Step::Record(last),
        ] = &steps[..]
        else {
            panic!("{steps:?}");
        };
        assert_eq!(
            (first.record.key.as_str(), *from, *to),
            ("a", second, third)
        );
        assert_eq!(last.record.key, "ccc");
    }

    #[test]
    fn a_head_with_any_byte_changed_is_no_record() {
        let good = segment(&["a"]);
        let head_len = usize::try_from(read(&good, 0).unwrap().data_offset).unwrap();
        for at in 0..head_len {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            assert!(read(&bad, 0).is_none(), "byte {at}");
        }
        for len in 0..head_len {
            assert!(read(&good[..len], 0).is_none(), "cut at {len}");
        }
    }
}
