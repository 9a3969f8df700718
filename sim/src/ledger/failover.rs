//! Who is the primary: its crash and recovery, its isolation, and the promotion of a standby.
//!
//! A majority of the members decides, as a Patroni cluster does through its own store of leader keys. With two members the
//! standby decides alone: without its acknowledgement the old primary can answer nothing.

use super::{Item, Model, later};
use crate::{
    Core,
    node::NodeChange,
    replication::{quorum, reachable},
};
use worldline_proto::NodeId;
use worldline_system::time::Duration;

/// How often liveness is looked at.
pub(super) const PULSE: Duration = Duration::from_millis(500);
/// How long a restarted server replays its log, and a promoted one changes its timeline.
const RECOVERY: Duration = Duration::from_secs(1);
/// After so long without an acknowledgement records are sent again.
const RESEND: Duration = Duration::from_secs(1);

impl Model {
    pub(super) fn pulse(&mut self, core: &mut Core) {
        self.sweep_pools(core);
        self.watch_primary(core);
        if self.serving(core) {
            self.resend(core);
        }
        let node = self.members[self.primary].node;
        later(core, core.now() + PULSE, node, Item::Pulse);
    }

    fn serving(&self, core: &Core) -> bool {
        !self.demoted && core.is_running(self.members[self.primary].node)
    }

    /// Whether a commit that comes now can be confirmed: the primary serves, and where it has standbys it sees one.
    #[must_use]
    pub fn takes_writes(&self, core: &Core) -> bool {
        let confirmed = self.members.len() == 1 || self.sees(core, self.primary) > 1;
        self.serving(core) && core.now() >= self.members[self.primary].ready && confirmed
    }

    /// Sends again what was lost on the way, and everything to a standby that came back.
    fn resend(&mut self, core: &mut Core) {
        let (now, primary) = (core.now(), self.primary);
        for (index, member) in self.members.iter_mut().enumerate() {
            if index != primary && member.acked < member.sent && now.since(member.sent_at) >= RESEND {
                member.sent = member.acked.min(member.received);
            }
        }
        self.ship(core);
    }

    /// Whether the primary is there and sees enough of the others.
    fn healthy(&self, core: &Core) -> bool {
        let node = self.members[self.primary].node;
        core.is_running(node)
            && (self.members.len() <= 2 || self.sees(core, self.primary) >= quorum(self.members.len()))
    }

    /// How many running members a member can speak with, itself included.
    fn sees(&self, core: &Core, index: usize) -> usize {
        let node = self.members[index].node;
        self.members.iter().filter(|other| core.is_running(other.node) && reachable(core, node, other.node)).count()
    }

    /// Detects that the primary is lost, and that it is back.
    fn watch_primary(&mut self, core: &mut Core) {
        let now = core.now();
        let lost = match self.members.len() {
            1 => return,
            2 => {
                let other = self.members[1 - self.primary].node;
                let node = self.members[self.primary].node;
                !core.is_running(node) || core.is_running(other) && !reachable(core, node, other)
            }
            _ => !self.healthy(core),
        };
        if !lost {
            self.missing_since = None;
            if self.demoted {
                self.demoted = false;
                self.members[self.primary].ready = now + RECOVERY;
            }
            return;
        }
        let missing = now.since(*self.missing_since.get_or_insert(now));
        // It gives up a little earlier than another one may take over.
        if missing + PULSE * 2 >= self.detection && !self.demoted && core.is_running(self.members[self.primary].node) {
            self.demote(core);
        }
        if missing >= self.detection
            && let Some(candidate) = self.candidate(core)
        {
            self.promote(core, candidate);
        }
    }

    /// The standby that has flushed most among those that a majority can speak with.
    fn candidate(&self, core: &Core) -> Option<usize> {
        let needed = if self.members.len() == 2 { 1 } else { quorum(self.members.len()) };
        let able = |&index: &usize| {
            index != self.primary && core.is_running(self.members[index].node) && self.sees(core, index) >= needed
        };
        // The first of equals, so that the choice does not depend on an iteration's end.
        (0..self.members.len())
            .filter(able)
            .max_by_key(|&index| (self.members[index].disk.synced(), usize::MAX - index))
    }

    /// The primary gives up: its connections break, and what waited for a standby is answered to nobody.
    fn demote(&mut self, core: &mut Core) {
        self.demoted = true;
        self.forget_transactions();
        self.reset_connections(core, self.primary);
        self.members[self.primary].sessions += 1;
    }

    fn promote(&mut self, core: &mut Core, candidate: usize) {
        self.forget_transactions();
        self.members[self.primary].sessions += 1;
        (self.primary, self.demoted, self.missing_since) = (candidate, false, None);
        // The others rewind to where the new timeline begins.
        self.begin_timeline(self.members[candidate].disk.synced());
        let member = &mut self.members[candidate];
        member.sessions += 1;
        member.ready = core.now() + RECOVERY;
    }

    /// A planned change: the primary hands over to the best standby at once, if there is one.
    pub(super) fn switch_over(&mut self, core: &mut Core) {
        if let Some(candidate) = self.candidate(core) {
            self.demote(core);
            self.promote(core, candidate);
        }
    }

    /// Takes note of what happened to a node.
    pub(super) fn node_changed(&mut self, core: &mut Core, node: NodeId, change: NodeChange) {
        let Some(index) = self.members.iter().position(|member| member.node == node) else {
            if matches!(change, NodeChange::Crashed { .. }) {
                self.pools.remove(&node);
            }
            return;
        };
        match change {
            NodeChange::Crashed { power } => self.member_crashed(core, index, power),
            NodeChange::Started => self.member_started(core, index),
            NodeChange::Paused => {}
            NodeChange::Resumed => {
                let parked = std::mem::take(&mut self.members[index].parked);
                parked.into_iter().for_each(|item: Item| self.handle(core, item));
            }
        }
    }

    fn member_crashed(&mut self, core: &mut Core, index: usize, power: bool) {
        if !power {
            self.reset_connections(core, index);
        }
        let member = &mut self.members[index];
        member.parked.clear();
        member.sessions += 1;
        member.received = if power { member.disk.lose_power() } else { member.disk.lose_process() };
        if index == self.primary {
            self.forget_transactions();
        } else {
            member.acked = member.acked.min(member.received);
            member.sent = member.acked;
        }
    }

    /// A primary that is back before it was replaced recovers what it had flushed, acknowledged or not.
    fn member_started(&mut self, core: &mut Core, index: usize) {
        self.members[index].ready = core.now() + RECOVERY;
        if index != self.primary {
            return;
        }
        self.demoted = false;
        self.begin_timeline(self.members[index].disk.synced());
    }

    /// The log goes on from record `end`; what is on its way of another past is void.
    fn begin_timeline(&mut self, end: u64) {
        self.rewind(end);
        self.timeline += 1;
        let end = self.end;
        for member in &mut self.members {
            member.received = member.received.min(end);
            member.disk.truncate(end);
            let has = member.disk.synced();
            (member.sent, member.acked) = (has, has);
        }
    }

    fn forget_transactions(&mut self) {
        self.transactions.clear();
        self.locks.clear();
        self.replies.clear();
    }
}
