//! One member: its log, its term, what of it is synced, and who waits at it.

use super::{Item, stream::Proposal};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    doors::bus::{Ask, MessageId},
    time::{Instant, UnixTime},
};

/// What waits at a paused process; beyond the sockets' bounds it is lost.
const PARKED: usize = 4_096;

/// What members say to each other.
#[derive(Clone, Debug, Hash)]
pub enum Message {
    /// The leader's entries behind (index, term), and how far it has committed.
    Append { term: u64, previous: (u64, u64), entries: Vec<Entry>, commit: u64 },
    /// How far a follower's log matches; or, refused, where the leader should try.
    Appended { term: u64, matched: u64, refused: bool },
}

/// An entry of the log: its term and what was proposed.
#[derive(Clone, Debug, Hash)]
pub struct Entry {
    pub(super) term: u64,
    pub(super) proposal: Arc<Proposal>,
}

/// What a leader knows besides its log. All of it is lost with its leadership.
#[derive(Clone, Debug)]
pub(super) struct Leading {
    /// For each member: the next entry to send, how far it matches, and when it was last sent anything.
    pub next: Vec<u64>,
    pub matched: Vec<u64>,
    pub sent_at: Vec<Instant>,
    /// When it last saw a majority.
    pub quorum_at: Instant,
    /// Ids that were proposed and are not stored, since when.
    pub staged: BTreeMap<MessageId, UnixTime>,
}

/// Someone who waits at the leader for an answer.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub client: NodeId,
    /// The member that the caller speaks with.
    pub via: usize,
    pub op: OpId,
    pub deadline: Instant,
    pub ask: Ask,
}

/// A member. Entries are counted from 1; entry 0 is of term 0.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub node: NodeId,
    /// Counts crashes; what was scheduled before one is void.
    pub life: u32,
    pub term: u64,
    pub leader: Option<usize>,
    pub leading: Option<Leading>,
    pub log: Vec<Entry>,
    /// How many of its entries a power loss would leave.
    pub synced: usize,
    pub sync_at: Instant,
    pub commit: u64,
    /// When it last heard a leader, and when it will stand for election if it does not hear one.
    pub heard_at: Instant,
    pub election_at: Instant,
    /// Waiting for a proposal of this number.
    pub waiters: BTreeMap<u64, Waiter>,
    pub parked: VecDeque<Item>,
    /// When the last message of each member arrives, or has arrived.
    pub arrivals: Vec<Instant>,
}

impl Member {
    pub fn new(node: NodeId, members: usize) -> Self {
        let zero = Instant::default();
        Self {
            node,
            life: 0,
            term: 0,
            leader: None,
            leading: None,
            log: Vec::new(),
            synced: 0,
            sync_at: zero,
            commit: 0,
            heard_at: zero,
            election_at: zero,
            waiters: BTreeMap::new(),
            parked: VecDeque::new(),
            arrivals: vec![zero; members],
        }
    }

    /// Where its log ends: index and term.
    pub fn last(&self) -> (u64, u64) {
        (self.log.len() as u64, self.log.last().map_or(0, |entry| entry.term))
    }

    /// The term of an entry that it has.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        term_at(&self.log, index)
    }

    /// Throws away what lies behind `index`.
    pub fn truncate(&mut self, index: u64) {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.log.truncate(index);
        self.synced = self.synced.min(index);
    }

    pub fn is_leader(&self) -> bool {
        self.leading.is_some()
    }

    pub fn park(&mut self, item: Item) {
        if self.parked.len() < PARKED {
            self.parked.push_back(item);
        }
    }

    /// Its process ends. What was not synced is lost with the power, not with the process alone.
    pub fn crash(&mut self, power: bool) {
        self.life += 1;
        (self.leader, self.leading) = (None, None);
        self.waiters.clear();
        self.parked.clear();
        if power {
            self.log.truncate(self.synced);
        }
        self.commit = self.commit.min(self.log.len() as u64);
        self.heard_at = Instant::default();
    }
}

/// The term of an entry; `None` behind the end.
pub(super) fn term_at(log: &[Entry], index: u64) -> Option<u64> {
    match index.checked_sub(1) {
        None => Some(0),
        Some(before) => log.get(usize::try_from(before).ok()?).map(|entry| entry.term),
    }
}
