//! Who is the primary: the fall of one, its empty return, and the promotion of a replica.

use super::{Item, Model, later};
use crate::{Core, node::NodeChange, replication::reachable};
use worldline_proto::NodeId;
use worldline_system::time::Duration;

/// How often liveness is looked at.
pub(super) const PULSE: Duration = Duration::from_millis(250);

impl Model {
    pub(super) fn pulse(&mut self, core: &mut Core) {
        for index in 0..self.servers.len() {
            if core.is_running(self.servers[index].node) {
                self.expire(core, index);
            }
        }
        for group in 0..self.groups.len() {
            self.watch_primary(core, group);
            self.resend(core, group);
        }
        self.tend_connections(core);
        let node = self.servers[0].node;
        later(core, core.now() + PULSE, node, Item::Pulse);
    }

    /// Sends again what was lost on the way to a replica.
    fn resend(&mut self, core: &mut Core, group: usize) {
        let now = core.now();
        for &index in &self.groups[group].members {
            let server = &mut self.servers[index];
            if server.sent > server.offset && now >= server.arrival {
                server.sent = server.offset;
            }
        }
        if core.is_running(self.servers[self.groups[group].primary].node) {
            self.ship(core, group);
        }
    }

    /// Replicas that run, by their place among the servers.
    fn replicas(&self, core: &Core, group: usize) -> Vec<usize> {
        let group = &self.groups[group];
        let able = |&index: &usize| index != group.primary && core.is_running(self.servers[index].node);
        group.members.iter().copied().filter(able).collect()
    }

    fn watch_primary(&mut self, core: &mut Core, group: usize) {
        let (now, replicas) = (core.now(), self.replicas(core, group));
        self.demote_others(core, group, &replicas);
        let node = self.servers[self.groups[group].primary].node;
        let seen = |&index: &usize| reachable(core, self.servers[index].node, node);
        let lost = !core.is_running(node) || !replicas.is_empty() && !replicas.iter().any(seen);
        if !lost {
            self.groups[group].missing_since = None;
            return;
        }
        let missing = now.since(*self.groups[group].missing_since.get_or_insert(now));
        if missing >= self.detection {
            self.promote_best(core, group);
        }
    }

    /// The replica that has most takes over, if there is one.
    pub(super) fn promote_best(&mut self, core: &mut Core, group: usize) {
        let timeline = self.groups[group].timeline;
        // One that waits for all data has what it had in another time: it counts only if there is no other.
        let has = |&index: &usize| {
            let server = &self.servers[index];
            (server.timeline == timeline, server.offset, usize::MAX - index)
        };
        let Some(best) = self.replicas(core, group).into_iter().max_by_key(has) else { return };
        let next = &mut self.groups[group];
        next.timeline += 1;
        (next.primary, next.missing_since) = (best, None);
        let timeline = next.timeline;
        let server = &mut self.servers[best];
        (server.primary, server.timeline) = (true, timeline);
        server.backlog.clear();
    }

    /// A former primary that the present one can speak with follows it from now on.
    fn demote_others(&mut self, core: &mut Core, group: usize, replicas: &[usize]) {
        let primary = self.servers[self.groups[group].primary].node;
        for &index in replicas {
            if self.servers[index].primary && reachable(core, self.servers[index].node, primary) {
                self.demote(core, index);
            }
        }
    }

    /// A server is the primary no longer: its connections break, and what it has counts for nothing.
    pub(super) fn demote(&mut self, core: &mut Core, index: usize) {
        self.reset_connections(core, index);
        let server = &mut self.servers[index];
        server.life += 1;
        (server.primary, server.timeline) = (false, 0);
        server.backlog.clear();
    }

    /// Takes note of what happened to a node.
    pub(super) fn node_changed(&mut self, core: &mut Core, node: NodeId, change: NodeChange) {
        let Some(index) = self.servers.iter().position(|server| server.node == node) else {
            match change {
                NodeChange::Crashed { .. } => self.forget_client(node),
                NodeChange::Started => self.know(core, node, core.incarnation(node)),
                NodeChange::Paused | NodeChange::Resumed => {}
            }
            return;
        };
        match change {
            NodeChange::Crashed { power } => {
                if !power {
                    self.reset_connections(core, index);
                }
                let server = &mut self.servers[index];
                server.life += 1;
                server.parked.clear();
            }
            NodeChange::Started => self.started_empty(index),
            NodeChange::Paused => {}
            NodeChange::Resumed => {
                let parked = std::mem::take(&mut self.servers[index].parked);
                parked.into_iter().for_each(|item: Item| self.handle(core, item));
            }
        }
    }

    /// A server has started: it has nothing. If nobody has taken over meanwhile, that is what everybody has from now on.
    fn started_empty(&mut self, index: usize) {
        let server = &mut self.servers[index];
        let group = &mut self.groups[server.group];
        let (node, life) = (server.node, server.life);
        *server = super::Server { life, ..super::Server::new(node, server.group) };
        server.primary = group.primary == index;
        server.timeline = 0;
        if server.primary {
            group.timeline += 1;
            server.timeline = group.timeline;
        }
    }
}
