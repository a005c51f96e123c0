//! A block's bytes while they arrive: pieces as the source gave them, not copied.

use bytes::{BufMut, Bytes, BytesMut};

/// Pieces shorter than this are put together, so that a source of tiny ones does not cost more
/// memory than its bytes.
const SMALL_SIZE: usize = 4096;

#[derive(Debug)]
struct Piece {
    start: usize,
    bytes: Bytes,
}

/// Bytes from the start of a block, growing.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    pieces: Vec<Piece>,
    len: usize,
}

impl Gathered {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds what follows.
    pub(crate) fn push(&mut self, bytes: Bytes) {
        let mut last = Piece {
            start: self.len,
            bytes,
        };
        self.len += last.bytes.len();
        // As a binary counter does it: a byte is copied once per doubling.
        while last.bytes.len() < SMALL_SIZE
            && let Some(before) = self
                .pieces
                .pop_if(|before| before.bytes.len() <= last.bytes.len())
        {
            let mut merged = BytesMut::with_capacity(before.bytes.len() + last.bytes.len());
            merged.put_slice(&before.bytes);
            merged.put_slice(&last.bytes);
            last = Piece {
                start: before.start,
                bytes: merged.freeze(),
            };
        }
        self.pieces.push(last);
    }

    /// Some bytes from `from` on, none beyond `until`; `None` if they are not here.
    pub(crate) fn slice(&self, from: usize, until: usize) -> Option<Bytes> {
        if from >= self.len.min(until) {
            return None;
        }
        let after = self.pieces.partition_point(|piece| piece.start <= from);
        let piece = &self.pieces[after - 1];
        let end = piece.bytes.len().min(until - piece.start);
        Some(piece.bytes.slice(from - piece.start..end))
    }

    /// All of them, in order.
    pub(crate) fn pieces(&self) -> Vec<Bytes> {
        self.pieces
            .iter()
            .map(|piece| piece.bytes.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let whole: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0] ^ 7).collect();
        for sizes in [vec![1], vec![1, 5000, 2], vec![4096], vec![20_000], vec![7]] {
            let (mut gathered, mut rest) = (Gathered::default(), &whole[..]);
            for size in sizes.iter().cycle() {
                let (piece, behind) = rest.split_at((*size).min(rest.len()));
                gathered.push(Bytes::copy_from_slice(piece));
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            assert_eq!(gathered.len(), whole.len());
            assert_eq!(gathered.pieces().concat(), whole);
            assert!(gathered.pieces().len() <= 32, "{sizes:?}");
            for from in [0, 1, 4095, 4096, 19_999] {
                let bytes = gathered.slice(from, 19_999 + 1).unwrap();
                assert_eq!(bytes, whole[from..from + bytes.len()], "{sizes:?} {from}");
                assert_eq!(gathered.slice(from, from + 1).unwrap().len(), 1);
            }
            assert!(gathered.slice(20_000, 30_000).is_none());
            assert!(gathered.slice(5, 5).is_none());
        }
    }
}
