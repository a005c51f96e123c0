//! One of the peers, and what is known of it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::hash;
use crate::origin::{Client, Endpoint};

/// What a peer is to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has not said yet who it is, or can't be used.
    Unknown,
    /// A node of the same origin, with the same key; it answered when it was last asked.
    Alive,
    /// The same, but it does not answer.
    Dead,
    /// This node itself.
    Own,
}

impl Standing {
    /// A word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Alive => "alive",
            Self::Dead => "dead",
            Self::Own => "this node",
        }
    }
}

const UNKNOWN: u8 = 0;
const FIT: u8 = 1;
const OWN: u8 = 2;

/// One of the peers, this node perhaps.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    /// What its weights depend on: all nodes know it by the same address.
    pub(super) name: u64,
    pub(super) client: Client,
    known: AtomicU8,
    /// Whether it was told in the log why it can't be used.
    pub(super) told: AtomicBool,
}

impl Member {
    /// Nothing is known of it.
    pub(super) fn new(endpoint: Endpoint, client: Client) -> Self {
        Self {
            name: hash::of_name(&endpoint.to_string()),
            endpoint,
            client,
            known: AtomicU8::new(UNKNOWN),
            told: AtomicBool::new(false),
        }
    }

    /// What it is now.
    pub(super) fn standing(&self) -> Standing {
        match self.known.load(Ordering::Acquire) {
            OWN => Standing::Own,
            FIT if self.client.is_dead() => Standing::Dead,
            FIT => Standing::Alive,
            _ => Standing::Unknown,
        }
    }

    /// It is this node.
    pub(super) fn is_own(&self) {
        self.known.store(OWN, Ordering::Release);
    }

    /// It can be asked; whether that is new.
    pub(super) fn is_fit(&self) -> bool {
        self.told.store(false, Ordering::Relaxed);
        self.known.swap(FIT, Ordering::AcqRel) != FIT
    }

    /// It is another than was thought: it is asked for nothing until it has been greeted again.
    pub(super) fn doubt(&self) {
        // This node stays itself, whatever others say.
        let doubted = |known| (known == FIT).then_some(UNKNOWN);
        let _before = self
            .known
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, doubted);
    }
}
