//! Bringing all of an object in, without a reader.

use std::future::poll_fn;
use std::sync::Arc;

use crate::fetch::ReadError;
use crate::fetch::blocks::{ObjectBlocks, present_bytes};
use crate::fetch::engine::{Engine, Place, Target};
use crate::fetch::flight::Outcome;
use crate::fetch::patience::{Patience, Verdict};
use crate::fetch::window::Window;
use crate::version::Version;

/// Times that an object is gone through: what was evicted or not kept meanwhile is fetched again.
const PASSES_MAX: u32 = 2;
/// Other readers' refusals until a fill gives up on a block.
const REFUSALS_MAX: u32 = 16;

/// What a fill came to. All of the object is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillReport {
    /// Blocks that are on the disk, counted there when all was done.
    pub blocks: u64,
    /// Bytes of them: the object's size.
    pub bytes: u64,
    /// Bytes that were not there before.
    pub bytes_new: u64,
}

/// Why not all of an object is in the cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FillError {
    /// Its bytes did not come.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its bytes came, but the disk does not hold them all: it is full, broken, or smaller than
    /// what is to be in it.
    #[error("the cache holds {present} of {blocks} blocks: its disk is full, broken or too small")]
    NotKept {
        /// Blocks on the disk.
        present: u64,
        /// Blocks of the object.
        blocks: u64,
    },
}

/// Whether a fill holds an object against eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is never evicted.
    Pinned,
    /// It is evicted like others, unless it is pinned already.
    Evictable,
}

/// Holds an object while it is filled; after that only if all of it came.
pub(crate) struct Pinning<'a> {
    object: &'a dyn ObjectBlocks,
    /// Whether it is let go in the end.
    lets_go: bool,
}

impl<'a> Pinning<'a> {
    /// From now on it is not evicted, if that is wanted.
    pub(crate) fn new(object: &'a dyn ObjectBlocks, keep: Keep) -> Self {
        let lets_go = keep == Keep::Pinned && !object.pinned();
        if lets_go {
            object.pin(true);
        }
        Self { object, lets_go }
    }

    /// All of it came.
    pub(crate) fn keep(mut self) {
        self.lets_go = false;
    }
}

impl Drop for Pinning<'_> {
    fn drop(&mut self) {
        if self.lets_go {
            self.object.pin(false);
        }
    }
}

impl Engine {
    /// Brings all of an object in; calls `progress` with the bytes of each block that is there.
    pub(crate) async fn fill(
        self: &Arc<Self>,
        target: &Target,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<FillReport, FillError> {
        let blocks = target.version.blocks();
        let mut pass = Pass {
            engine: self,
            target,
            progress,
            reported: 0,
        };
        let before = present_bytes(&target.version, &*target.object);
        let mut present = 0;
        for _ in 0..PASSES_MAX {
            pass.run().await?;
            present = target.object.present();
            if present == blocks {
                return Ok(FillReport {
                    blocks: present,
                    bytes: target.version.size,
                    bytes_new: target.version.size - before,
                });
            }
        }
        Err(FillError::NotKept { present, blocks })
    }
}

/// What became of one block.
enum Filled {
    Kept,
    NotKept,
}

struct Pass<'a> {
    engine: &'a Arc<Engine>,
    target: &'a Target,
    progress: &'a (dyn Fn(u64) + Sync),
    /// Blocks that progress has been told of.
    reported: u64,
}

impl Pass<'_> {
    /// Goes through the object once, or up to where the disk refuses.
    async fn run(&mut self) -> Result<(), ReadError> {
        let version: &Version = &self.target.version;
        let mut window = Window::new(self.engine, 0..version.blocks());
        for block in 0..version.blocks() {
            window.advance(self.engine, self.target, block);
            if let Filled::NotKept = self.fill_block(&mut window, block).await? {
                break;
            }
            if block == self.reported {
                self.reported += 1;
                let range = version.block_range(block);
                (self.progress)(range.end - range.start);
            }
        }
        Ok(())
    }

    async fn fill_block(&self, window: &mut Window, block: u64) -> Result<Filled, ReadError> {
        let mut patience = Patience::default();
        let mut refusals = 0;
        loop {
            let seat = match window.seat(self.engine, self.target, block) {
                Place::Disk => return Ok(Filled::Kept),
                Place::Borrowed | Place::Closed => return Ok(Filled::NotKept),
                Place::Joined(seat) | Place::Started(seat) => seat,
            };
            let outcome = poll_fn(|cx| {
                window.advance(self.engine, self.target, block);
                seat.poll_settled(cx)
            });
            match outcome.await {
                Outcome::Kept => return Ok(Filled::Kept),
                Outcome::Unkept | Outcome::Dropped => return Ok(Filled::NotKept),
                Outcome::Failed(failure) => {
                    let own = window.is_own(seat.by());
                    let error = failure.error.clone();
                    match patience.after(failure, own) {
                        Verdict::GiveUp(err) => return Err(err),
                        // It can't go past the cache.
                        Verdict::Alone if refusals == REFUSALS_MAX => return Err(error.into()),
                        Verdict::Alone => refusals += 1,
                        Verdict::Again => {}
                    }
                    window.restart(block);
                }
            }
        }
    }
}
