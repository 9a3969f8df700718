//! One member: its log, its vote, its disk, and who waits at it.

use super::{ELECTION, Item, store::Proposal};
use crate::replication::Disk;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use worldline_proto::{LeaseId, NodeId, OpId, Revision};
use worldline_system::{
    doors::directory::{Answer, Submission},
    time::Instant,
};

/// Entries that a member keeps behind what it has applied, for members that lag; further back they get a snapshot.
const LOG_KEPT: usize = 1_024;
/// What waits at a paused process; beyond the sockets' bounds it is lost.
const PARKED: usize = 4_096;

/// What members say to each other.
#[derive(Clone, Debug, Hash)]
pub enum Message {
    /// The leader's entries behind (index, term), and how far it has committed.
    Append { term: u64, previous: (u64, u64), entries: Vec<Entry>, commit: u64 },
    /// How far a follower's log matches and is synced; or, refused, where the leader should try.
    Appended { term: u64, matched: u64, refused: bool },
    /// Everything up to (index, term) as one whole.
    Snapshot { term: u64, last: (u64, u64) },
    /// A candidate asks for a vote; its log ends at (index, term).
    Vote { term: u64, last: (u64, u64) },
    /// A vote.
    Voted { term: u64, granted: bool },
    /// A follower passes a proposal on to the leader.
    Propose(Arc<Proposal>),
    /// A follower asks for the index that a linearizable read must wait for.
    ReadIndex { query: u64 },
    /// The answer to that.
    ReadReady { query: u64, index: u64 },
    /// A follower passes a renewal on to the leader.
    Renew { query: u64, lease: LeaseId },
    /// The answer to that.
    Renewed { query: u64, answer: Answer },
}

/// An entry of the log: its term and what was proposed.
#[derive(Clone, Debug, Hash)]
pub struct Entry {
    pub(super) term: u64,
    pub(super) proposal: Arc<Proposal>,
}

/// A member's log. Entries up to `base` are in its snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    base: u64,
    base_term: u64,
    entries: VecDeque<Entry>,
}

impl Log {
    pub fn last(&self) -> (u64, u64) {
        (self.base + self.entries.len() as u64, self.entries.back().map_or(self.base_term, |entry| entry.term))
    }

    pub fn base(&self) -> u64 {
        self.base
    }

    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.base {
            return Some(self.base_term);
        }
        self.get(index).map(|entry| entry.term)
    }

    pub fn get(&self, index: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(index.checked_sub(self.base + 1)?).ok()?)
    }

    pub fn push(&mut self, entry: Entry) {
        self.entries.push_back(entry);
    }

    /// At most `limit` entries behind `index`.
    pub fn behind(&self, index: u64, limit: usize) -> Vec<Entry> {
        let start = usize::try_from(index.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.entries.len());
        self.entries.range(start..).take(limit).cloned().collect()
    }

    /// Throws away what lies behind `index`.
    pub fn truncate(&mut self, index: u64) {
        self.entries.truncate(usize::try_from(index.saturating_sub(self.base)).unwrap_or(usize::MAX));
    }

    /// Becomes the snapshot at (index, term).
    pub fn replace(&mut self, (index, term): (u64, u64)) {
        (self.base, self.base_term) = (index, term);
        self.entries.clear();
    }

    /// Forgets what lies so far behind `applied` that nobody asks for it.
    pub fn trim(&mut self, applied: u64) {
        while self.base + (LOG_KEPT as u64) < applied
            && let Some(entry) = self.entries.pop_front()
        {
            self.base += 1;
            self.base_term = entry.term;
        }
    }
}

/// What a member is in its term.
#[derive(Clone, Debug)]
pub(super) enum Role {
    Follower,
    /// Who has voted for it: a bit a member.
    Candidate(u32),
    Leader(Box<Leading>),
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
    /// Leases by their end on this member's clock, and the other way round.
    pub ends: BTreeSet<(Instant, LeaseId)>,
    pub end_of: BTreeMap<LeaseId, Instant>,
    /// What waits until a majority has confirmed the leadership.
    pub asked: Vec<Confirm>,
    pub confirming: Vec<Confirm>,
    pub round: u64,
    /// The committed index when the round began.
    pub round_commit: u64,
    /// Renewals of leases that have expired and are being revoked: they wait for that.
    pub too_late: Vec<(LeaseId, Confirm)>,
}

/// What a confirmed leadership is needed for.
#[derive(Clone, Debug)]
pub(super) enum Confirm {
    /// A read of this member's own caller, or of another member's.
    Read { origin: usize, query: u64 },
    /// A renewal.
    Renew { origin: usize, query: u64, lease: LeaseId },
    /// Leases have expired.
    Expire,
}

/// Someone who waits at a member for an answer.
#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub client: NodeId,
    pub op: OpId,
    pub deadline: Instant,
    pub submission: Submission,
}

/// A member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub node: NodeId,
    /// Counts crashes; what was scheduled before one is void.
    pub life: u32,
    pub term: u64,
    pub voted: Option<usize>,
    pub leader: Option<usize>,
    pub role: Role,
    pub log: Log,
    pub disk: Disk,
    /// How far its log is known to match its leader's.
    pub verified: u64,
    pub commit: u64,
    pub applied: u64,
    /// The revision of what it has applied.
    pub revision: Revision,
    /// When it last heard a leader, and when it will stand for election if it does not hear one.
    pub heard_at: Instant,
    pub election_at: Instant,
    /// Waiting for a proposal or a query of this number.
    pub waiters: BTreeMap<u64, Waiter>,
    /// Reads that wait until so much is applied.
    pub reads: Vec<(u64, u64)>,
    pub parked: VecDeque<Item>,
    /// When the last message of each member arrives, or has arrived.
    pub arrivals: Vec<Instant>,
}

impl Member {
    pub fn new(node: NodeId, members: usize) -> Self {
        Self {
            node,
            life: 0,
            term: 0,
            voted: None,
            leader: None,
            role: Role::Follower,
            log: Log::default(),
            disk: Disk::new(),
            verified: 0,
            commit: 0,
            applied: 0,
            revision: Revision(1),
            heard_at: Instant::default(),
            election_at: Instant::default() + ELECTION,
            waiters: BTreeMap::new(),
            reads: Vec::new(),
            parked: VecDeque::new(),
            arrivals: vec![Instant::default(); members],
        }
    }

    pub fn leading(&mut self) -> Option<&mut Leading> {
        match &mut self.role {
            Role::Leader(leading) => Some(leading),
            Role::Follower | Role::Candidate(_) => None,
        }
    }

    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    pub fn park(&mut self, item: Item) {
        if self.parked.len() < PARKED {
            self.parked.push_back(item);
        }
    }

    /// Its process ends. What was not synced is lost with the power, not with the process alone.
    pub fn crash(&mut self, power: bool) {
        self.life += 1;
        self.role = Role::Follower;
        self.leader = None;
        self.waiters.clear();
        self.reads.clear();
        self.parked.clear();
        if power {
            let left = self.disk.lose_power();
            self.log.truncate(left);
        } else {
            self.disk.replace(self.log.last().0);
        }
        let last = self.log.last().0;
        self.commit = self.commit.min(last);
        self.verified = 0;
    }

    /// A new process begins: what it has applied is what it finds on its disk.
    pub fn restart(&mut self, now: Instant, applied_anywhere: u64) {
        self.applied = self.applied.min(self.commit).min(applied_anywhere).max(self.log.base());
        self.election_at = now + ELECTION;
        self.heard_at = Instant::default();
    }
}
