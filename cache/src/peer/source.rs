//! A reader's source, with the peers' help.
//!
//! What a peer does not bring, the reader's own source does, from the byte on that is missing. So
//! an answer is as good as without peers, whatever they do.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::ask::{ASK_LEN_MAX, Ask};
use super::loan::{Loan, Passed};
use super::member::Member;
use super::{Peers, hash};
use crate::origin::Authorization;
use crate::source::{Chunks, FetchError, Fetching, Source};
use crate::version::{BLOCK_SIZE, Version};

/// Runs of blocks that are fetched from the origin with one request, at most, where no peer has any
/// of them.
const OWN_RUNS_MAX: u64 = 128;

/// A reader's own source, and the peers who may help it out.
#[derive(Debug)]
pub(crate) struct Help {
    peers: Arc<Peers>,
    own: Arc<dyn Source>,
    /// Whether a peer is to keep what it fetches.
    fills: bool,
    /// What the homes depend on; most reads never need it.
    object: OnceLock<u64>,
}

/// Who brings a block.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The peer, as a number; `None` if it is not a peer who brings it.
    pub(crate) lender: Option<u64>,
    /// How.
    pub(crate) source: Arc<dyn Source>,
}

impl Help {
    /// Help for one reader.
    pub(crate) fn new(peers: &Arc<Peers>, own: Arc<dyn Source>, fills: bool) -> Arc<Self> {
        Arc::new(Self {
            peers: Arc::clone(peers),
            own,
            fills,
            object: OnceLock::new(),
        })
    }

    /// Who is to bring a block, as things are now. It stays so for whoever uses the route.
    pub(crate) fn route(self: &Arc<Self>, version: &Version, block: u64) -> Route {
        match self.home(version, block) {
            None => Route {
                lender: None,
                source: Arc::clone(&self.own),
            },
            Some(member) => Route {
                lender: Some(member.name),
                source: Arc::new(Helped {
                    help: Arc::clone(self),
                    by: Some(member),
                }),
            },
        }
    }

    /// The peer who would bring a block, as a number.
    pub(crate) fn lender(&self, version: &Version, block: u64) -> Option<u64> {
        self.home(version, block).map(|member| member.name)
    }

    /// What brings any range, each run of it from its home.
    pub(crate) fn source(self: &Arc<Self>) -> Arc<dyn Source> {
        Arc::new(Helped {
            help: Arc::clone(self),
            by: None,
        })
    }

    fn home(&self, version: &Version, block: u64) -> Option<Arc<Member>> {
        let object = *self.object.get_or_init(|| hash::of_object(version));
        self.peers.home(object, hash::run_of(block))
    }

    /// Asks a peer.
    async fn borrow(
        &self,
        member: &Member,
        version: &Arc<Version>,
        range: Range<u64>,
    ) -> Result<Loan, Passed> {
        // Without leave to fetch, a peer still hands out what it has. Why there is none, one's own
        // source will say.
        let authorization = self.own.authorize(version).await.unwrap_or_default();
        let ask = Ask {
            by: self.peers.id().to_owned(),
            origin: self.peers.origin().to_owned(),
            version: Version::clone(version),
            range,
            fills: self.fills,
            own: matches!(authorization, Some(Authorization::Own)),
        };
        self.peers
            .borrow(member, &ask, authorization.as_ref())
            .await
    }

    fn note_passed(&self, member: &Member, passed: &Passed) {
        let counters = &self.peers.counters;
        counters.passed_over.fetch_add(1, Ordering::Relaxed);
        let peer = &member.endpoint;
        if let Passed::Wrong(why) = passed {
            if counters.wrong.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(%peer, why, "what a peer sends is wrong; only the first is logged");
            }
        } else {
            tracing::debug!(%peer, why = %passed, "a peer is passed over");
        }
    }
}

/// Brings ranges with the help of one peer, or of all.
#[derive(Debug)]
struct Helped {
    help: Arc<Help>,
    by: Option<Arc<Member>>,
}

impl Source for Helped {
    fn fetch(&self, version: &Arc<Version>, range: Range<u64>) -> Fetching {
        let mut journey = Journey {
            help: Arc::clone(&self.help),
            by: self.by.clone(),
            version: Arc::clone(version),
            position: range.start,
            end: range.end,
            leg: Leg::None,
        };
        Box::pin(async move {
            // Why it can't begin is the answer, and not the end of one.
            journey.begin().await?;
            let chunks = stream::try_unfold(journey, async |mut journey| {
                let chunk = journey.next().await?;
                Ok(chunk.map(|chunk| (chunk, journey)))
            });
            Ok(Box::pin(chunks) as Chunks)
        })
    }
}

/// A range that is being brought, leg by leg.
struct Journey {
    help: Arc<Help>,
    /// Who is asked, whoever the home is.
    by: Option<Arc<Member>>,
    version: Arc<Version>,
    position: u64,
    end: u64,
    leg: Leg,
}

enum Leg {
    None,
    Borrowed {
        loan: Box<Loan>,
        from: Arc<Member>,
        until: u64,
    },
    Own {
        chunks: Chunks,
        until: u64,
    },
}

impl fmt::Debug for Journey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journey")
            .field("position", &self.position)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl Journey {
    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            match &mut self.leg {
                Leg::None if self.position == self.end => return Ok(None),
                Leg::None => self.begin().await?,
                Leg::Borrowed { loan, from, until } => match loan.next().await {
                    Ok(Some(bytes)) => {
                        self.position += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                    Ok(None) => self.leg = Leg::None,
                    Err(passed) => {
                        self.help.note_passed(from, &passed);
                        let until = *until;
                        self.go_alone(until).await?;
                    }
                },
                Leg::Own { chunks, until } => match chunks.next().await.transpose()? {
                    Some(bytes) => {
                        self.position += bytes.len() as u64;
                        if self.position > *until {
                            let text = "more bytes than asked for".to_owned();
                            return Err(FetchError::Corrupt(text));
                        }
                        return Ok(Some(bytes));
                    }
                    None if self.position < *until => {
                        let left = *until - self.position;
                        let text = format!("it ends {left} bytes before the end of the range");
                        return Err(FetchError::Corrupt(text));
                    }
                    None => self.leg = Leg::None,
                },
            }
        }
    }

    /// Begins the leg at hand.
    async fn begin(&mut self) -> Result<(), FetchError> {
        let (home, until) = self.leg_ahead();
        let Some(from) = home else {
            return self.go_alone(until).await;
        };
        let range = self.position..until;
        match self.help.borrow(&from, &self.version, range).await {
            Ok(loan) => {
                self.leg = Leg::Borrowed {
                    loan: Box::new(loan),
                    from,
                    until,
                };
                Ok(())
            }
            Err(passed) => {
                self.help.note_passed(&from, &passed);
                self.go_alone(until).await
            }
        }
    }

    async fn go_alone(&mut self, until: u64) -> Result<(), FetchError> {
        let range = self.position..until;
        let chunks = self.help.own.fetch(&self.version, range).await?;
        self.leg = Leg::Own { chunks, until };
        Ok(())
    }

    /// Who is asked next, and up to where.
    fn leg_ahead(&self) -> (Option<Arc<Member>>, u64) {
        if let Some(by) = &self.by {
            let until = self.end.min(self.position + ASK_LEN_MAX);
            return (Some(Arc::clone(by)), until);
        }
        let run = |position: u64| {
            let block = position / BLOCK_SIZE;
            let end = (hash::run_of(block) + 1) * hash::RUN_BLOCKS * BLOCK_SIZE;
            (self.help.home(&self.version, block), self.end.min(end))
        };
        let (home, mut until) = run(self.position);
        if home.is_none() {
            // What is one's own to fetch is fetched at once, as far as it goes.
            let limit = self
                .end
                .min(self.position + OWN_RUNS_MAX * hash::RUN_BLOCKS * BLOCK_SIZE);
            while until < limit
                && let (None, further) = run(until)
            {
                until = further;
            }
        }
        (home, until)
    }
}
