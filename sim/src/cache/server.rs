//! A server's side: requests are executed one after the other, and what they change goes to the replicas afterwards.

use super::{
    Changes, Group, Item, Model, Request, Response, Snapshot,
    commands::{execute, is_write},
    later,
    store::{Effect, Store},
};
use crate::{Core, replication::carry};
use std::sync::Arc;
use worldline_system::{
    Refusal,
    doors::cache::Ask,
    outcome::End,
    time::{Duration, UnixTime},
};

/// Changes that a primary keeps for a replica that falls behind; one that needs older ones gets everything anew.
const BACKLOG: usize = 16_384;
/// What a snapshot takes to make, and bytes a second on its way.
const SNAPSHOT: Duration = Duration::from_millis(100);
const SNAPSHOT_BYTES_PER_S: u64 = 100 << 20;

impl Model {
    /// A request has come in over the network.
    pub(super) fn arrive(&mut self, core: &mut Core, request: Box<Request>) {
        let (now, held) = (core.now(), self.faults.delay(request.client));
        let server = &mut self.servers[request.server];
        if server.life != request.life {
            return; // The connection belongs to an earlier life; the reset is on its way, or the silence will tell.
        }
        server.free_at = server.free_at.max(now + held) + core.service_times.cache_command;
        if server.free_at > now {
            let (at, node) = (server.free_at, server.node);
            later(core, at, node, Item::Execute(request));
        } else {
            self.execute(core, *request);
        }
    }

    /// The server comes to a request.
    pub(super) fn execute(&mut self, core: &mut Core, request: Request) {
        let Request { client, op, connection, server: index, life, submission } = request;
        if self.servers[index].life != life {
            return;
        }
        self.requests += 1;
        let answer = match self.refusal(core, index, is_write(&submission)) {
            Some(refusal) => Ask::from(&submission).ended(End::Refused(refusal)),
            None => {
                let now = core.wall(self.servers[index].node);
                let (answer, effects) = execute(&mut self.servers[index].store, now, &submission);
                self.servers[index].told.executed(&submission, &answer);
                self.changed(core, index, effects);
                answer
            }
        };
        if !self.faults.swallows(core, client, self.requests) {
            self.respond(core, Response { client, op, connection, answer });
        }
    }

    /// Why a server does not execute this, once it has made room for a write.
    fn refusal(&mut self, core: &mut Core, index: usize, write: bool) -> Option<Refusal> {
        if !write {
            return None;
        }
        if self.faults.read_only || !self.servers[index].primary {
            return Some(Refusal::ReadOnly);
        }
        if self.servers[index].store.bytes() > self.memory_bytes_max {
            self.expire(core, index);
        }
        let bound = self.memory_bytes_max;
        if self.servers[index].store.bytes() <= bound {
            return None;
        }
        if self.faults.no_eviction {
            return Some(Refusal::OutOfMemory);
        }
        let gone = self.servers[index].store.evict(bound);
        self.servers[index].told.evicted += gone.len() as u64;
        self.changed(core, index, gone.into_iter().map(Effect::Remove).collect());
        None
    }

    /// Takes away what no longer lives on a server by its own clock. A replica only hides it, until its primary says so.
    pub(super) fn expire(&mut self, core: &mut Core, index: usize) {
        let now = core.wall(self.servers[index].node);
        if self.servers[index].primary {
            let gone = self.servers[index].store.expire(now);
            self.servers[index].told.expired += gone.len() as u64;
            self.changed(core, index, gone.into_iter().map(Effect::Remove).collect());
        }
    }

    /// What a server has changed goes into its backlog, and on to its replicas.
    pub(super) fn changed(&mut self, core: &mut Core, index: usize, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        let server = &mut self.servers[index];
        server.offset += effects.len() as u64;
        server.backlog.extend(effects);
        let surplus = server.backlog.len().saturating_sub(BACKLOG);
        server.backlog.drain(..surplus);
        let group = server.group;
        if self.groups[group].primary == index {
            self.ship(core, group);
        }
    }

    /// Sends each replica what it has not been sent.
    pub(super) fn ship(&mut self, core: &mut Core, group: usize) {
        let Group { primary, timeline, members, .. } = &self.groups[group];
        let (primary, timeline, members) = (*primary, *timeline, members.clone());
        let now = core.now();
        let source = &self.servers[primary];
        let (from, offset) = (source.node, source.offset);
        let oldest = offset - source.backlog.len() as u64;
        for index in members {
            let replica = &self.servers[index];
            let to = replica.node;
            let current = replica.timeline == timeline;
            if index == primary
                || replica.primary
                || !core.is_running(to)
                || current && replica.sent == offset
                || !current && now < replica.arrival
            {
                continue;
            }
            let Some(way) = carry(core, from, to) else { continue };
            let delay = way + self.faults.delay_replication;
            let (item, delay) = if current && replica.sent >= oldest {
                let new = usize::try_from(offset - replica.sent).expect("no more than the backlog holds");
                let source = &self.servers[primary];
                let changes = source.backlog.range(source.backlog.len() - new..).cloned().collect();
                (Item::Replicate(index, timeline, replica.sent, Changes(changes)), delay)
            } else {
                let store: &Store = &self.servers[primary].store;
                let transfer = Duration::from_millis(store.bytes() as u64 * 1_000 / SNAPSHOT_BYTES_PER_S);
                let snapshot = Snapshot(Arc::new(store.clone()));
                (Item::Resync(index, timeline, offset, snapshot), delay + SNAPSHOT + transfer)
            };
            let replica = &mut self.servers[index];
            replica.arrival = replica.arrival.max(now + delay);
            replica.sent = offset;
            later(core, replica.arrival, to, item);
        }
    }

    /// Changes have arrived at a replica.
    pub(super) fn replicate(&mut self, core: &Core, index: usize, timeline: u32, base: u64, changes: &[Effect]) {
        let replica = &mut self.servers[index];
        if replica.primary || replica.timeline != timeline || replica.offset != base {
            return;
        }
        let now: UnixTime = core.wall(replica.node);
        changes.iter().for_each(|effect| replica.store.apply(now, effect));
        replica.offset += changes.len() as u64;
    }

    /// All data of its primary have arrived at a replica.
    pub(super) fn resync(&mut self, index: usize, timeline: u32, offset: u64, store: &Store) {
        let replica = &mut self.servers[index];
        if !replica.primary && timeline == self.groups[replica.group].timeline {
            replica.store = store.clone();
            (replica.timeline, replica.offset) = (timeline, offset);
        }
    }
}
