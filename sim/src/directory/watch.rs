//! Watches: each follows one family at one member, from what that member has applied.
//!
//! News are never reordered and never skipped: a watch sends what lies between where it stands and what its member has,
//! and each arrives no earlier than the one before. Where it cannot go on it ends with a gap.

use super::{Item, Model, Request, client::KEEP_ALIVE, later};
use crate::{
    Core,
    replication::{RETRANSMIT, reachable},
};
use std::sync::Arc;
use worldline_proto::{Incarnation, NodeId, OpId, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{Answer, Change, Event, Family, GapCause},
    time::{Duration, Instant},
};

/// A watch.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    member: usize,
    /// The lives of the member's process and of the watching one.
    member_life: u32,
    life: Incarnation,
    family: Family,
    /// The first revision that was not yet sent.
    next: Revision,
    /// When the last news arrive.
    arrival: Instant,
    /// By when its caller must have heard that it stands.
    deadline: Instant,
    stands: bool,
    /// Its gap is on the way.
    ended: bool,
    /// It will look for news again by itself.
    retrying: bool,
    silent_since: Option<Instant>,
}

#[cfg(test)]
impl Watch {
    /// Where it stands.
    pub fn member(&self) -> usize {
        self.member
    }
}

impl Model {
    /// Registers a watch at the member that was asked.
    pub(super) fn watch(&mut self, core: &mut Core, request: &Request, family: Family, from: Revision) {
        let index = request.member;
        let oldest = self.store.oldest_change();
        if from < oldest {
            let answer = Answer::Watching(Outcome::Refused(Refusal::Compacted { oldest }));
            return self.reply(core, index, request, answer);
        }
        let watch = Watch {
            member: index,
            member_life: request.life,
            life: request.op.incarnation,
            family,
            next: from,
            arrival: Instant::default(),
            deadline: request.deadline,
            stands: false,
            ended: false,
            retrying: false,
            silent_since: None,
        };
        self.watches.insert((request.client, request.op), watch);
        self.reply(core, index, request, Answer::Watching(Outcome::Done(())));
    }

    /// The caller has heard that its watch stands; unless that came too late, news begin.
    pub(super) fn watch_stands(&mut self, core: &mut Core, client: NodeId, op: OpId, deadline: Instant) {
        if core.now() >= deadline {
            self.watches.remove(&(client, op));
        } else if let Some(watch) = self.watches.get_mut(&(client, op)) {
            watch.stands = true;
            self.push(core, client, op);
        }
    }

    /// A member has applied changes: each of its watches looks for news.
    pub(super) fn push_all(&mut self, core: &mut Core, index: usize) {
        let here = |watch: &Watch| watch.member == index && watch.stands && !watch.retrying;
        let keys: Vec<(NodeId, OpId)> =
            self.watches.iter().filter(|(_, watch)| here(watch)).map(|(&key, _)| key).collect();
        keys.into_iter().for_each(|(client, op)| self.push_news(core, client, op));
    }

    /// A watch looks for news after it could not send any.
    pub(super) fn push(&mut self, core: &mut Core, client: NodeId, op: OpId) {
        if let Some(watch) = self.watches.get_mut(&(client, op)) {
            watch.retrying = false;
            self.push_news(core, client, op);
        }
    }

    fn push_news(&mut self, core: &mut Core, client: NodeId, op: OpId) {
        let now = core.now();
        let Some(watch) = self.watches.get_mut(&(client, op)) else { return };
        let member = &self.members[watch.member];
        if watch.ended || member.life != watch.member_life || !core.is_running(member.node) {
            return;
        }
        let revision = member.revision;
        if watch.next > revision {
            return;
        }
        if watch.next < self.store.oldest_change() {
            return self.end_watch(core, client, op, GapCause::Compacted, Duration::ZERO);
        }
        let changes = self.store.changes(watch.family, watch.next, revision);
        if changes.is_empty() {
            watch.next = revision.next();
            return;
        }
        match core.hop(member.node, client) {
            Some(delay) => {
                watch.next = revision.next();
                watch.arrival = watch.arrival.max(now + delay + self.faults.delay_news);
                let event = Box::new(Event::Changed { watch: op, revision, changes });
                later(core, watch.arrival, client, Item::News(client, watch.life, event));
            }
            None => {
                watch.retrying = true;
                later(core, now + RETRANSMIT, member.node, Item::Push(client, op));
            }
        }
    }

    /// News arrive, or the gap that ends a watch.
    pub(super) fn news(&mut self, core: &mut Core, client: NodeId, life: Incarnation, event: Event) {
        let (op, gap) = match &event {
            Event::Changed { watch, .. } => (*watch, false),
            Event::Gap { watch, .. } => (*watch, true),
            Event::Answered { .. } => unreachable!("an answer is no news"),
        };
        if !self.watches.contains_key(&(client, op)) {
            return; // Its caller has ended it.
        }
        let taken = core.directory_news(client, life, event);
        if gap || !taken {
            self.watches.remove(&(client, op));
        }
        if !gap && !taken {
            core.directory_news(client, life, Event::Gap { watch: op, cause: GapCause::Overflow });
        }
    }

    /// Sends a watch its gap, behind the news that are on their way.
    fn end_watch(&mut self, core: &mut Core, client: NodeId, op: OpId, cause: GapCause, delay: Duration) {
        let now = core.now();
        let Some(watch) = self.watches.get_mut(&(client, op)) else { return };
        if std::mem::replace(&mut watch.ended, true) {
            return;
        }
        watch.arrival = watch.arrival.max(now + delay);
        let event = Box::new(Event::Gap { watch: op, cause });
        later(core, watch.arrival, client, Item::News(client, watch.life, event));
    }

    fn end_watches(&mut self, core: &mut Core, chosen: impl Fn(&Watch) -> bool) {
        let keys: Vec<_> = self.watches.iter().filter(|(_, watch)| chosen(watch)).map(|(&key, _)| key).collect();
        for (client, op) in keys {
            let member = self.members[self.watches[&(client, op)].member].node;
            // A cancellation that is lost is noticed when the connection falls silent.
            let delay = core.hop(client, member).unwrap_or(KEEP_ALIVE);
            self.end_watch(core, client, op, GapCause::Cancelled, delay);
        }
    }

    /// Cancels every watch.
    pub(super) fn end_all_watches(&mut self, core: &mut Core) {
        self.end_watches(core, |_| true);
    }

    /// Cancels the watches at one member.
    pub(super) fn end_watches_of(&mut self, core: &mut Core, index: usize) {
        self.end_watches(core, |watch| watch.member == index);
    }

    /// Every second: ends watches whose connection is gone, or whose member has been without a leader for too long.
    pub(super) fn sweep_watches(&mut self, core: &mut Core) {
        let now = core.now();
        let mut silent = vec![];
        self.watches.retain(|_, watch| watch.stands || watch.deadline > now);
        for (&(client, op), watch) in &mut self.watches {
            let member = &self.members[watch.member];
            let alive = member.life == watch.member_life
                && member.leader.is_some()
                && core.is_running(member.node)
                && reachable(core, client, member.node);
            if alive {
                watch.silent_since = None;
            } else if now.since(*watch.silent_since.get_or_insert(now)) >= KEEP_ALIVE {
                silent.push((client, op));
            }
        }
        for (client, op) in silent {
            self.end_watch(core, client, op, GapCause::Cancelled, Duration::ZERO);
        }
    }
}

impl super::Store {
    /// The changes of a family in revisions `from..=through`, in order.
    fn changes(&self, family: Family, from: Revision, through: Revision) -> Arc<[Change]> {
        let of_family = |change: &Change| match change {
            Change::Put(record) => record.key.family() == family,
            Change::Deleted(key) => key.family() == family,
        };
        let mut effects = self.effects_between(from, through).filter(|effect| !effect.changes.is_empty());
        if let (Some(only), None) = (effects.next(), effects.next())
            && only.changes.iter().all(of_family)
        {
            return only.changes.clone();
        }
        let effects = self.effects_between(from, through);
        effects.flat_map(|effect| effect.changes.iter().copied()).filter(of_family).collect()
    }
}
