//! What can be made to go wrong with the caches, beyond what befalls their nodes and links.

use super::{
    Model,
    store::{Effect, Name, Value},
};
use crate::{Core, Purpose, replication::happens};
use worldline_proto::NodeId;
use worldline_system::time::Duration;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// FLUSHALL on a region's primary, or on all: everything is gone, at the replicas too.
    Flush {
        /// Which region; `None` for all.
        region: Option<usize>,
    },
    /// Somebody fills the memory: so many of a thousand entries are evicted at once, the least recently used first.
    Evict {
        /// Which region; `None` for all.
        region: Option<usize>,
        /// How many.
        permille: u16,
    },
    /// So many of a thousand entries are replaced by something of another type, by a client that is none of ours.
    WrongTypes {
        /// Which region; `None` for all.
        region: Option<usize>,
        /// How many.
        permille: u16,
    },
    /// A replica is promoted at once, whatever it has not yet received.
    Failover {
        /// Which region.
        region: usize,
    },
    /// Replicas are told of changes only so much later.
    DelayReplication {
        /// How much later.
        by: Duration,
    },
    /// Servers stall: they come to each request only so much later.
    DelayRequests {
        /// Of which caller; `None` for all. Requests behind it wait too.
        from: Option<NodeId>,
        /// How much later.
        by: Duration,
    },
    /// Requests are executed and their answers swallowed.
    LoseAnswers {
        /// Of which caller; `None` for all.
        from: Option<NodeId>,
        /// How often, in a thousand.
        permille: u16,
    },
    /// The servers may not evict (`noeviction`): at their bound they refuse writes.
    NoEviction {
        /// Begins or ends it.
        on: bool,
    },
    /// Writes are refused as a replica refuses them.
    ReadOnly {
        /// Begins or ends it.
        on: bool,
    },
    /// Nobody is let in any more: a password was set, or what answers speaks another protocol. Connections break.
    RefuseConnections {
        /// Begins or ends it.
        on: bool,
    },
}

/// The faults that go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub delay_replication: Duration,
    pub delay_requests: Option<(Option<NodeId>, Duration)>,
    pub lose_answers: Option<(Option<NodeId>, u16)>,
    pub no_eviction: bool,
    pub read_only: bool,
    pub refuses: bool,
}

/// What is drawn: the high half of the draw's `who`.
#[derive(Clone, Copy)]
enum Draw {
    Answer = 1,
    WrongType = 2,
}

impl Faults {
    /// Whether the answer to request `n` is swallowed.
    pub fn swallows(&self, core: &Core, client: NodeId, n: u64) -> bool {
        self.lose_answers.is_some_and(|(from, permille)| {
            from.is_none_or(|from| from == client)
                && happens(core.draw(Purpose::Cache, (Draw::Answer as u64) << 32, n), permille)
        })
    }

    /// How long the requests of this caller are held back.
    pub fn delay(&self, client: NodeId) -> Duration {
        match self.delay_requests {
            Some((from, by)) if from.is_none_or(|from| from == client) => by,
            _ => Duration::ZERO,
        }
    }
}

impl Model {
    pub(super) fn fail(&mut self, core: &mut Core, fault: Fault) {
        let faults = &mut self.faults;
        match fault {
            Fault::DelayReplication { by } => faults.delay_replication = by,
            Fault::DelayRequests { from, by } => faults.delay_requests = Some((from, by)),
            Fault::LoseAnswers { from, permille } => faults.lose_answers = Some((from, permille)),
            Fault::NoEviction { on } => faults.no_eviction = on,
            Fault::ReadOnly { on } => faults.read_only = on,
            Fault::RefuseConnections { on } => {
                faults.refuses = on;
                if on {
                    for index in 0..self.servers.len() {
                        self.reset_connections(core, index);
                        self.servers[index].life += 1;
                    }
                }
            }
            Fault::Flush { region } => self.on_primaries(core, region, |_, _, _| vec![Effect::Flush]),
            Fault::Evict { region, permille } => self.on_primaries(core, region, |model, _, index| {
                let server = &mut model.servers[index];
                let count = server.store.len() * usize::from(permille) / 1_000;
                let gone = server.store.evict_entries(count);
                server.told.evicted += gone.len() as u64;
                gone.into_iter().map(Effect::Remove).collect()
            }),
            Fault::WrongTypes { region, permille } => self.on_primaries(core, region, |model, core, index| {
                let until = core.wall(model.servers[index].node) + Duration::from_secs(3_600);
                let names: Vec<Name> = model.servers[index].store.names().collect();
                let first = model.requests;
                let hit =
                    |n: &u64| happens(core.draw(Purpose::Cache, (Draw::WrongType as u64) << 32, first + n), permille);
                let hit = (0..).zip(names).filter(|(n, _)| hit(n));
                hit.map(|(_, name)| Effect::Put(name, Value::Foreign, until)).collect()
            }),
            Fault::Failover { region } => {
                let before = self.groups[region].primary;
                self.promote_best(core, region);
                if self.groups[region].primary != before {
                    self.demote(core, before);
                }
            }
        }
    }

    /// Does something to the primary of a region, or of each: what it returns is applied there and replicated.
    fn on_primaries(
        &mut self,
        core: &mut Core,
        region: Option<usize>,
        what: impl Fn(&mut Self, &Core, usize) -> Vec<Effect>,
    ) {
        for group in 0..self.groups.len() {
            let index = self.groups[group].primary;
            if region.is_none_or(|region| region == group) && core.is_running(self.servers[index].node) {
                let effects = what(self, core, index);
                let now = core.wall(self.servers[index].node);
                effects.iter().for_each(|effect| self.servers[index].store.apply(now, effect));
                self.changed(core, index, effects);
            }
        }
    }
}
