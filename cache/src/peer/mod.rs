//! Nodes help each other: a block is fetched from the origin once, by its home.
//!
//! Each block has a home among the peers that are alive (`hash`). A node that lacks it asks the
//! home (`ask`, `loan`), which answers from its cache or fetches it from the origin with what the
//! asking node's reader may show there, keeps it, and hands it on as it comes (`frame`). The asking
//! node keeps it too. What a home does not give, in good time and whole, comes from the origin
//! (`source`): a peer that fails makes a read slower, by seconds at most, not wrong, nor fail.
//! Who asks proves the cluster's key; who answers does not, so the network has to see to it that
//! nobody else answers at a peer's address.
//!
//! Nobody has to agree on who the peers are. A node that is asked answers, whether it takes itself
//! for the home or not, and never asks another; so where nodes disagree, a block is fetched from
//! the origin more than once, and that is all.
//!
//! # Invariants
//! 1. What is fetched for a peer never waits for a peer, neither for its answer nor for memory that
//!    such an answer holds (`fetch/engine.rs`). So no nodes wait for each other in a circle.
//! 2. A byte of a peer is handed on only after its CRC was found right, at its place in the range
//!    of the version that was named in the request.
//! 3. Whatever becomes of a peer, a read gets what the origin says: bytes, or its refusal.

mod ask;
mod frame;
mod hash;
mod loan;
mod member;
mod source;
mod watch;
mod who;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use ask::{ASK_LEN_MAX, Ask, BYTES_PATH, HELLO_PATH, parse_hello};
pub use frame::{FRAME_LEN_MAX, WAIT_EVERY, gives_up, of_bytes, wait};
pub use loan::OUTCOME_HEADER;
pub use member::Standing;
pub(crate) use source::{Help, Route};
pub use who::{Who, WhoError, parse_address};

use self::member::Member;
use crate::cluster::ClusterKey;
use crate::origin::{Client, ClientConfig, ClientError, Deadlines, Endpoint, Role};

/// How long is waited for a peer. Much shorter than for an origin: there is another place to go.
/// One that is gone does not connect; one that connects may just have much to do, and to pass it
/// over would make that more.
const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_millis(300),
    head: Duration::from_secs(1),
    head_of_write: Duration::from_secs(1),
    // Much more than what a node that waits lets pass without a word.
    silence: Duration::from_secs(2),
    sender: Duration::from_secs(1),
    total: Duration::from_secs(1),
    idle: Duration::from_secs(30),
    dead_after: Duration::ZERO,
    probe_after: Duration::from_secs(1),
};
/// Most requests to one peer at a time.
const CONNECTIONS_MAX: usize = 256;

const _: () = {
    assert!(DEADLINES.silence.as_millis() >= 5 * WAIT_EVERY.as_millis());
};

/// Who helps whom.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// The peers; this node may be among them.
    pub who: Who,
    /// Which of them this node is; it asks them if that is not said.
    pub own: Option<Endpoint>,
    /// The origin, written in one way on all nodes: peers of another one are none.
    pub origin: String,
    /// What nodes prove themselves with.
    pub cluster_key: ClusterKey,
    /// The certificates to trust where a peer's URL is `https`.
    pub ca_file: Option<PathBuf>,
}

/// Why a node has no peers.
#[derive(Debug, thiserror::Error)]
pub enum PeersError {
    /// They can't be spoken to.
    #[error("prepare to speak to peers")]
    Client(#[from] ClientError),
    /// There is no random number for this node's id.
    #[error("take random bytes from the system")]
    Random(#[source] getrandom::Error),
}

macro_rules! counters {
    ($($(#[$doc:meta])+ $name:ident,)+) => {
        #[derive(Debug, Default)]
        struct Counters {
            $($name: AtomicU64,)+
        }

        /// What peers have done for each other, as seen from this node.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct PeerStatistics {
            $($(#[$doc])+ pub $name: u64,)+
            /// Peers that are alive, without this node.
            pub alive: u64,
            /// Peers that are known of, without this node.
            pub known: u64,
        }

        impl Counters {
            fn read(&self) -> PeerStatistics {
                PeerStatistics {
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    ..PeerStatistics::default()
                }
            }
        }
    };
}

counters! {
    /// Requests to peers that had all of the bytes.
    hits,
    /// Requests to peers that had to fetch bytes from the origin.
    misses,
    /// Requests to peers that did not bring all bytes, so that the origin was asked for the rest.
    passed_over,
    /// Those of them in which bytes were not what they should have been.
    wrong,
    /// Bytes that peers brought.
    bytes_from,
    /// Requests of peers that were answered with bytes.
    lent,
    /// Requests of peers that were refused.
    refused,
    /// Bytes that were sent to peers.
    bytes_to,
}

/// The peers of a node.
#[derive(Debug)]
pub struct Peers {
    config: PeersConfig,
    /// Of this process.
    id: String,
    /// Replaced as a whole when the peers change. Taken for the copy of one pointer.
    view: RwLock<Arc<[Arc<Member>]>>,
    counters: Counters,
}

impl Peers {
    /// The peers that are listed; those of a DNS name are looked for by [`watch`](Self::watch).
    /// Nobody is asked for anything before that has greeted him.
    ///
    /// # Errors
    /// [`PeersError`].
    pub fn new(config: PeersConfig) -> Result<Arc<Self>, PeersError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(PeersError::Random)?;
        let peers = Self {
            config,
            id: hex::encode(random),
            view: RwLock::new(Arc::new([])),
            counters: Counters::default(),
        };
        let listed = match &peers.config.who {
            Who::List(list) => &list[..],
            Who::Name { .. } => &[],
        };
        peers.set(listed)?;
        Ok(Arc::new(peers))
    }

    /// What tells this node from all others, its earlier and later runs among them.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The origin that all of the peers have.
    pub fn origin(&self) -> &str {
        &self.config.origin
    }

    /// What proves a node to be one of them.
    pub fn cluster_key(&self) -> &ClusterKey {
        &self.config.cluster_key
    }

    /// All that are known of, by their addresses.
    pub fn list(&self) -> Vec<(String, Standing)> {
        let view = self.view();
        let shown = view.iter();
        shown
            .map(|member| (member.endpoint.to_string(), member.standing()))
            .collect()
    }

    /// What is counted.
    pub fn statistics(&self) -> PeerStatistics {
        let view = self.view();
        let count = |of: &dyn Fn(Standing) -> bool| {
            let found = view.iter().filter(|member| of(member.standing()));
            found.count() as u64
        };
        PeerStatistics {
            alive: count(&|standing| standing == Standing::Alive),
            known: count(&|standing| standing != Standing::Own),
            ..self.counters.read()
        }
    }

    /// Counts a peer's request that is answered with bytes.
    pub fn note_lent(&self) {
        self.counters.lent.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a peer's request that is refused.
    pub fn note_refused(&self) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes that are sent to a peer.
    pub fn note_bytes_to(&self, bytes: u64) {
        self.counters.bytes_to.fetch_add(bytes, Ordering::Relaxed);
    }

    fn view(&self) -> Arc<[Arc<Member>]> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The peer that is to be asked for a run of blocks; `None` if this node is their home, or is
    /// alone.
    fn home(&self, object: u64, run: u64) -> Option<Arc<Member>> {
        let view = self.view();
        let candidates = view.iter().filter_map(|member| {
            let standing = member.standing();
            matches!(standing, Standing::Alive | Standing::Own).then_some((member, standing))
        });
        // Of two with the same weight, that of the greater name, on all nodes.
        let (member, standing) = candidates
            .max_by_key(|(member, _)| (hash::weight(member.name, object, run), member.name))?;
        (standing == Standing::Alive).then(|| Arc::clone(member))
    }

    /// Makes these the peers, and this node one of them if it is known which.
    fn set(&self, endpoints: &[Endpoint]) -> Result<(), PeersError> {
        let before = self.view();
        let own = self.config.own.as_ref();
        let also = own.filter(|own| !endpoints.contains(own));
        let mut members = Vec::with_capacity(endpoints.len() + 1);
        for endpoint in endpoints.iter().chain(also) {
            let known = before.iter().find(|member| member.endpoint == *endpoint);
            if let Some(known) = known {
                members.push(Arc::clone(known));
                continue;
            }
            let member = Member::new(endpoint.clone(), self.client(endpoint)?);
            if own == Some(endpoint) {
                member.is_own();
            }
            members.push(Arc::new(member));
        }
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = members.into();
        Ok(())
    }

    fn client(&self, endpoint: &Endpoint) -> Result<Client, ClientError> {
        Client::new(ClientConfig {
            cluster_key: Some(self.config.cluster_key.clone()),
            ca_file: self.config.ca_file.clone(),
            deadlines: DEADLINES,
            connections_max: CONNECTIONS_MAX,
            role: Role::Peer,
            ..ClientConfig::new(endpoint.clone())
        })
    }
}
