//! How one inode may be opened: through the daemon or straight through to a backing file.
//!
//! The kernel lets an inode have one way of reading at a time: every open that goes through to a
//! backing file must name the same backing, and an inode that is read through the daemon can't be
//! opened straight through meanwhile; any other mix is EIO for the caller, at open
//! (`fs/fuse/iomode.c`). So which answer an open gets depends on the opens before it. This file is
//! that rule as a function of values; [`crate::open`] acts on it.
//!
//! # Invariants
//! 1. No sequence of answers given here makes the kernel refuse an open; the test below walks all
//!    pairs of opens in all states against a model of the kernel.
//! 2. A published file is never the backing of an open for writing: the kernel opens the backing
//!    with the caller's flags, whatever ours were.

/// Smallest object that is worth a backing registration (two more calls per open), in bytes.
pub(crate) const PASSTHROUGH_SIZE_MIN: u64 = 256 << 10;

/// What an inode's present opens allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Mode {
    /// Nothing is open.
    #[default]
    Idle,
    /// Opens that are answered by the daemon.
    Cached {
        /// How many.
        opens: u32,
    },
    /// Opens that go through to the file of the published version.
    ThroughPublished {
        /// How many.
        opens: u32,
    },
    /// Opens that go through to the staging file.
    ThroughStaging {
        /// How many.
        opens: u32,
    },
}

/// What an open asks for, and what there is to give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// To read a version that has no file of its own, or one too small to bother.
    ReadPacked,
    /// To read a version that is one file from its first byte.
    ReadFile,
    /// To read a version past the page cache.
    ReadUncached,
    /// To read what is being written.
    ReadStaging,
    /// To write.
    Write,
}

/// How an open is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Through the daemon and the kernel's page cache.
    Cached,
    /// Through the daemon, past the kernel's page cache.
    ///
    /// It counts as cached: who maps it fills the page cache after all, and then the kernel passes
    /// no open of the inode through.
    Direct,
    /// Register the published version's file, then go through to it.
    RegisterPublished,
    /// Register the staging file, then go through to it.
    RegisterStaging,
    /// Go through to what is registered.
    Reuse,
    /// Give the name a fresh inode and answer ESTALE: the kernel looks up again and opens that one.
    ///
    /// The opens there are keep reading the version that they opened.
    Fork,
}

/// Whether the kernel can pass opens through, as found at mount time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// It can.
    Yes,
    /// It is too old, or the mount lacks `CAP_SYS_ADMIN`, or the data lies on a stacked file
    /// system.
    No,
}

impl Mode {
    /// How an open for `want` is to be answered now.
    pub(crate) fn answer(self, want: Want, support: Support) -> Answer {
        match (self, want) {
            (Self::Idle | Self::Cached { .. }, Want::ReadUncached) => Answer::Direct,
            (Self::Idle, _) if support == Support::No => Answer::Cached,
            (Self::Idle, Want::ReadPacked) | (Self::Cached { .. }, _) => Answer::Cached,
            (Self::Idle, Want::ReadFile) => Answer::RegisterPublished,
            (Self::Idle, Want::ReadStaging | Want::Write) => Answer::RegisterStaging,
            // What is being written while others go through to the old version can't be shown to
            // them, so the two part ways. So do those who must not fill the page cache.
            (
                Self::ThroughPublished { .. },
                Want::Write | Want::ReadStaging | Want::ReadUncached,
            ) => Answer::Fork,
            (Self::ThroughPublished { .. }, Want::ReadPacked | Want::ReadFile)
            | (Self::ThroughStaging { .. }, _) => Answer::Reuse,
        }
    }

    /// The mode after an open was answered so.
    pub(crate) fn opened(self, answer: Answer) -> Self {
        match (self, answer) {
            (mode, Answer::Fork) => mode,
            (Self::Idle, Answer::Cached | Answer::Direct) => Self::Cached { opens: 1 },
            (Self::Idle, Answer::RegisterPublished) => Self::ThroughPublished { opens: 1 },
            (Self::Idle, Answer::RegisterStaging) => Self::ThroughStaging { opens: 1 },
            (Self::Cached { opens }, Answer::Cached | Answer::Direct) => {
                Self::Cached { opens: opens + 1 }
            }
            (Self::ThroughPublished { opens }, Answer::Reuse) => {
                Self::ThroughPublished { opens: opens + 1 }
            }
            (Self::ThroughStaging { opens }, Answer::Reuse) => {
                Self::ThroughStaging { opens: opens + 1 }
            }
            (mode, answer) => unreachable!("{answer:?} is no answer in {mode:?}"),
        }
    }

    /// The mode after one of the opens was released.
    pub(crate) fn released(self) -> Self {
        match self {
            Self::Idle
            | Self::Cached { opens: 0 | 1 }
            | Self::ThroughPublished { opens: 0 | 1 }
            | Self::ThroughStaging { opens: 0 | 1 } => Self::Idle,
            Self::Cached { opens } => Self::Cached { opens: opens - 1 },
            Self::ThroughPublished { opens } => Self::ThroughPublished { opens: opens - 1 },
            Self::ThroughStaging { opens } => Self::ThroughStaging { opens: opens - 1 },
        }
    }

    /// The mode after the staging file was published: who goes through to it now goes through to
    /// a file that no longer changes.
    pub(crate) fn published(self) -> Self {
        match self {
            Self::ThroughStaging { opens } => Self::ThroughPublished { opens },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's side: what `fs/fuse/iomode.c` refuses.
    #[derive(Clone, Default, Debug)]
    struct Kernel {
        cached: u32,
        through: u32,
        backing: Option<u32>,
    }

    impl Kernel {
        fn open(&mut self, backing: Option<u32>) {
            match backing {
                None => {
                    assert_eq!(self.through, 0, "EIO: cached while passed through");
                    self.cached += 1;
                }
                Some(id) => {
                    assert_eq!(self.cached, 0, "EIO: passed through while cached");
                    if self.through > 0 {
                        assert_eq!(self.backing, Some(id), "EIO: another backing");
                    }
                    self.backing = Some(id);
                    self.through += 1;
                }
            }
        }

        fn release(&mut self, backing: Option<u32>) {
            if backing.is_some() {
                self.through -= 1;
            } else {
                self.cached -= 1;
            }
        }
    }

    /// An inode as `open.rs` keeps it.
    #[derive(Clone, Default, Debug)]
    struct Inode {
        mode: Mode,
        kernel: Kernel,
        registered: Option<u32>,
        ids: u32,
        opens: Vec<(Want, Option<u32>)>,
    }

    impl Inode {
        /// Opens; a fork goes to another inode and so leaves this one as it is.
        fn open(&mut self, want: Want, support: Support) {
            let staged = self.opens.iter().any(|(open, _)| *open == Want::Write);
            let want = if staged && want != Want::Write {
                Want::ReadStaging
            } else {
                want
            };
            let answer = self.mode.answer(want, support);
            let backing = match answer {
                Answer::Fork => return,
                Answer::Cached | Answer::Direct => None,
                Answer::Reuse => {
                    assert!(self.registered.is_some());
                    self.registered
                }
                Answer::RegisterPublished => {
                    assert_ne!(want, Want::Write, "a published file would be written to");
                    self.ids += 1;
                    self.registered = Some(self.ids);
                    self.registered
                }
                Answer::RegisterStaging => {
                    self.ids += 1;
                    self.registered = Some(self.ids);
                    self.registered
                }
            };
            if want == Want::Write {
                assert!(!matches!(self.mode, Mode::ThroughPublished { .. }));
            }
            self.kernel.open(backing);
            self.mode = self.mode.opened(answer);
            self.opens.push((want, backing));
        }

        fn release(&mut self, index: usize) {
            let (want, backing) = self.opens.remove(index);
            self.kernel.release(backing);
            self.mode = self.mode.released();
            let writers = self
                .opens
                .iter()
                .filter(|(open, _)| *open == Want::Write)
                .count();
            if want == Want::Write && writers == 0 {
                self.mode = self.mode.published();
            }
            if self.mode == Mode::Idle {
                self.registered = None;
            }
        }
    }

    const WANTS: [Want; 4] = [
        Want::ReadPacked,
        Want::ReadFile,
        Want::ReadUncached,
        Want::Write,
    ];

    /// Every sequence of up to five steps, each an open of any kind or a release of any open.
    fn walk(inode: &Inode, support: Support, depth: u32, steps: &mut u64) {
        *steps += 1;
        if depth == 0 {
            return;
        }
        for want in WANTS {
            let mut next = inode.clone();
            next.open(want, support);
            walk(&next, support, depth - 1, steps);
        }
        for index in 0..inode.opens.len() {
            let mut next = inode.clone();
            next.release(index);
            walk(&next, support, depth - 1, steps);
        }
    }

    #[test]
    fn no_order_of_opens_and_releases_is_refused_by_the_kernel() {
        for support in [Support::Yes, Support::No] {
            let mut steps = 0;
            walk(&Inode::default(), support, 6, &mut steps);
            assert!(steps > 1000);
        }
    }

    #[test]
    fn every_ordered_pair_of_opens_has_its_answer() {
        use Answer::{Cached, Direct, Fork, RegisterPublished, RegisterStaging, Reuse};
        let table = [
            (Want::ReadPacked, Want::ReadPacked, Cached, Cached),
            (Want::ReadPacked, Want::ReadFile, Cached, Cached),
            (Want::ReadPacked, Want::Write, Cached, Cached),
            (Want::ReadPacked, Want::ReadUncached, Cached, Direct),
            (Want::ReadUncached, Want::ReadUncached, Direct, Direct),
            (Want::ReadUncached, Want::ReadFile, Direct, Cached),
            (Want::ReadFile, Want::ReadUncached, RegisterPublished, Fork),
            (Want::Write, Want::ReadUncached, RegisterStaging, Reuse),
            (Want::ReadFile, Want::ReadPacked, RegisterPublished, Reuse),
            (Want::ReadFile, Want::ReadFile, RegisterPublished, Reuse),
            (Want::ReadFile, Want::Write, RegisterPublished, Fork),
            (Want::ReadStaging, Want::Write, RegisterStaging, Reuse),
            (Want::Write, Want::ReadStaging, RegisterStaging, Reuse),
            (Want::Write, Want::Write, RegisterStaging, Reuse),
        ];
        for (first, second, answer_first, answer_second) in table {
            let idle = Mode::Idle;
            assert_eq!(idle.answer(first, Support::Yes), answer_first, "{first:?}");
            let open = idle.opened(answer_first);
            assert_eq!(
                open.answer(second, Support::Yes),
                answer_second,
                "{first:?}, {second:?}"
            );
        }
    }

    #[test]
    fn without_support_nothing_goes_through() {
        for want in [
            Want::ReadPacked,
            Want::ReadFile,
            Want::ReadStaging,
            Want::Write,
        ] {
            assert_eq!(Mode::Idle.answer(want, Support::No), Answer::Cached);
        }
        let uncached = Mode::Idle.answer(Want::ReadUncached, Support::No);
        assert_eq!(uncached, Answer::Direct);
    }

    #[test]
    fn after_publishing_a_writer_forks_from_readers_that_are_left() {
        let mode = Mode::ThroughStaging { opens: 2 }.released().published();
        assert_eq!(mode, Mode::ThroughPublished { opens: 1 });
        assert_eq!(mode.answer(Want::Write, Support::Yes), Answer::Fork);
    }
}
