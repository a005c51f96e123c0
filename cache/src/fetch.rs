//! Bringing blocks in: once each, however many ask, and to everyone as they arrive.
//!
//! A missing block is claimed in one table and is then *in flight*. A request, a task of its own,
//! carries a run of blocks that follow each other with one ranged GET; it takes memory for each
//! out of one budget, hands bytes to the readers seated at it as they arrive, and gives whole
//! blocks to a blocking thread to keep. Then the memory is free again, and whoever is behind reads
//! from the disk.
//!
//! # Invariants
//! 1. A block is in flight at most once: it is claimed under the table's lock, after a look at the
//!    disk under the same lock, and leaves the table only after it is on the disk or has failed.
//! 2. Nobody who holds memory of the budget waits for more of it, or for a reader: a request waits
//!    for the source only, and whole blocks for the disk, which has its time (`calls.rs`). So
//!    memory always comes back, and is given in turn. What peers bring has a budget of its own, and
//!    nothing that is fetched for a peer waits for it.
//! 3. Bytes are kept only as a whole block, and the last block of a request only after its stream
//!    has ended where it should.
//! 4. Every flight in the table belongs to a request or to a task that has it kept; each of them
//!    settles its flights when it goes, even if it panics or the runtime stops.
//!
//! Locks: the table's before a flight's; neither is held over an await or input and output.

mod ahead;
mod blocks;
mod calls;
mod engine;
mod exact;
mod fill;
mod flight;
mod gather;
mod hot;
mod patience;
mod prestage;
mod reader;
mod refusal;
mod request;
mod statistics;
mod window;

#[cfg(test)]
mod tests;

pub(crate) use blocks::{Blocks, present_bytes};
pub(crate) use engine::{Engine, Target};
pub(crate) use fill::Pinning;
pub use fill::{FillError, FillReport, Keep};
pub use hot::HotPrefix;
pub use reader::{Read, Status};
pub use statistics::Statistics;

use std::time::Duration;

use crate::source::FetchError;
use crate::version::BLOCK_SIZE;

/// Largest request for read-ahead or a large miss, in blocks.
pub(crate) const REQUEST_BLOCKS_MAX: u64 = 8;
/// How far ahead of a reader bytes are asked for at most, in blocks.
pub(crate) const WINDOW_BLOCKS_MAX: u64 = 64;
/// Requests that one reader has in flight at most.
pub(crate) const REQUESTS_MAX: usize = 8;

const _: () = {
    // A window that is full of the largest requests has no more of them than a reader may have.
    assert!(REQUEST_BLOCKS_MAX * REQUESTS_MAX as u64 <= WINDOW_BLOCKS_MAX);
};

/// How the cache fetches.
#[derive(Clone, Debug)]
pub struct FetchConfig {
    /// Most memory for blocks in flight, in bytes; at least one block is always allowed. Blocks
    /// that peers bring may take half as much besides.
    pub memory_max: u64,
    /// Most objects that wait to be prestaged.
    pub prestage_max: usize,
    /// Objects that are prestaged at a time.
    pub prestage_workers: usize,
    /// How long blocks that the disk did not take wait in memory for the readers that are at them.
    pub unkept_wait: Duration,
    /// How long reads go past the cache when the disk has refused several blocks in a row.
    pub retry_after: Duration,
    /// How long a call of the disk may take; then reads go past the disk until it answers.
    pub disk_wait: Duration,
    /// How long [`Cache::close`](crate::Cache::close) waits for what is in flight.
    pub close_wait: Duration,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            memory_max: 256 << 20,
            prestage_max: 4096,
            prestage_workers: 16,
            unkept_wait: Duration::from_secs(2),
            retry_after: Duration::from_secs(5),
            disk_wait: Duration::from_secs(10),
            close_wait: Duration::from_secs(5),
        }
    }
}

/// Why a reader does not get its bytes; it is always his own source's word, or that of another
/// reader for trouble that is not about rights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The origin has another version by now, or none: look the object up again.
    #[error("the object changed at the origin")]
    Changed,
    /// The origin does not let this reader have them, or not any more.
    #[error("the origin refuses: {0}")]
    Denied(String),
    /// The origin can't be reached, fails or is too slow.
    #[error("the origin is unavailable: {0}")]
    Unavailable(String),
    /// The origin sends what was not asked for.
    #[error("the origin's answer is wrong: {0}")]
    Corrupt(String),
}

impl From<FetchError> for ReadError {
    fn from(err: FetchError) -> Self {
        match err {
            FetchError::Changed => Self::Changed,
            FetchError::Denied(why) => Self::Denied(why),
            FetchError::Unavailable(why) => Self::Unavailable(why),
            FetchError::Corrupt(why) => Self::Corrupt(why),
        }
    }
}

/// Lengths within a block, as memory has them.
fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("lengths within a block fit")
}

/// Which block a byte is in.
fn block_of(offset: u64) -> u64 {
    offset / BLOCK_SIZE
}
