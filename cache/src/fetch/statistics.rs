//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        /// Counters, as they go.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)+
        }

        /// What the cache has done since it was opened, and what it holds in memory now.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Statistics {
            $($(#[$doc])+ pub $name: u64,)+
            /// Objects that wait to be prestaged.
            pub prestage_queued: u64,
            /// Memory that blocks in flight take, in bytes.
            pub bytes_in_flight: u64,
            /// Whether the disk does not answer, so that reads go past it.
            pub disk_stuck: bool,
        }

        impl Counters {
            /// As they are now; not all at one moment.
            pub(crate) fn read(&self) -> Statistics {
                Statistics {
                    $($name: self.$name.get(),)+
                    ..Statistics::default()
                }
            }
        }
    };
}

counters! {
    /// Reads of ranges that were all here.
    hits,
    /// Reads of ranges of which some blocks were here.
    partials,
    /// Reads of ranges of which no block was here.
    misses,
    /// Reads that left the cache alone.
    bypasses,
    /// Bytes handed out from the disk.
    bytes_from_cache,
    /// Bytes that sources brought, for whatever purpose.
    bytes_fetched,
    /// Ranges asked of sources.
    fetches,
    /// Times that a reader took a seat at a block that another's source was bringing.
    joins,
    /// Requests to sources that failed.
    fetch_failures,
    /// Objects that were not prestaged because too many waited.
    prestage_dropped,
    /// Objects that were prestaged.
    prestage_done,
    /// Objects whose prestaging failed.
    prestage_failed,
    /// Blocks that the disk did not take.
    put_failures,
    /// Reads that were not to fill anything because the disk had refused several blocks.
    reads_unfilled,
    /// Blocks that were not on the disk as they were kept.
    corrupt,
    /// Blocks that the disk did not give.
    load_failures,
}

/// Something that is counted.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// How much was counted.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
