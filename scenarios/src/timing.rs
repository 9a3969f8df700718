//! How long a world took: from a fault to the first authoritative effect that a player of the lost part sees again, and the
//! parts of that span; and from an operation's first sending to its acknowledgement. All of it out of the history.
//!
//! Invariant: a moment is the run's own clock, never a node's.

use crate::format::Timing;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use worldline_proto::{CharacterId, EntityId, Epoch, FactSequence, Generation, LeaseId, NodeId, OpNumber};
use worldline_system::{
    doors::directory::{Change, Key, Record, Value},
    history::{Acceptance, Entry, Note, What},
    time::{Duration, Instant},
};

/// Whose player has seen nothing for so long waits for its owner to act again.
const SILENT: Duration = Duration::from_secs(1);

/// Facts of an aggregate whose commits are remembered; what is shown of older ones is not measured.
const FACTS_REMEMBERED: usize = 1_024;

/// Who serves an entity.
#[derive(Clone, Copy, Debug)]
struct Served {
    node: NodeId,
    lease: LeaseId,
    epoch: Epoch,
}

/// A session that has lost its gateway.
#[derive(Clone, Copy, Debug)]
struct Adrift {
    /// The session that was lost.
    generation: Generation,
    since: Instant,
    /// Whether another gateway has welcomed it.
    welcomed: bool,
}

/// How far the failover of one entity has come.
#[derive(Clone, Copy, Debug)]
struct Failover {
    /// The owner that was lost.
    lost: Served,
    /// When.
    fault: Instant,
    detected: Option<Instant>,
    reassigned: Option<Instant>,
    serving: Option<Instant>,
}

/// Measures a run.
#[derive(Clone, Debug, Default)]
pub struct Stopwatch {
    /// Who is logged in twice, and so stays away for a while whenever the other one is there.
    displaced: BTreeSet<CharacterId>,
    served: BTreeMap<EntityId, Served>,
    failovers: BTreeMap<EntityId, Failover>,
    /// At which gateway each player's session stands.
    sessions: BTreeMap<CharacterId, (NodeId, Generation)>,
    /// Gateways that were told to stop.
    draining: BTreeSet<NodeId>,
    adrift: BTreeMap<CharacterId, Adrift>,
    /// When each player last saw its own character, by authority.
    seen: BTreeMap<CharacterId, Instant>,
    /// Whose player waits since the end of a fault.
    waiting: BTreeMap<CharacterId, Instant>,
    performed: BTreeMap<(CharacterId, OpNumber), Instant>,
    acknowledged: BTreeMap<CharacterId, Instant>,
    /// When the latest facts of each aggregate were committed.
    facts: BTreeMap<EntityId, VecDeque<(FactSequence, Instant)>>,
    /// The last fact of an aggregate that a player was shown.
    shown: BTreeMap<(CharacterId, EntityId), FactSequence>,
    spans: BTreeMap<Timing, Vec<Duration>>,
}

impl Stopwatch {
    /// Measures the operations of everybody but those who are logged in twice.
    #[must_use]
    pub fn new(displaced: BTreeSet<CharacterId>) -> Self {
        Self { displaced, ..Self::default() }
    }

    /// A fault has taken this node out: from now on what it served is lost until another serves it.
    pub fn lost(&mut self, node: NodeId, at: Instant) {
        for (&entity, &served) in &self.served {
            if served.node == node {
                let failover = Failover { lost: served, fault: at, detected: None, reassigned: None, serving: None };
                self.failovers.entry(entity).or_insert(failover);
            }
        }
    }

    /// A gateway is gone: its players look for another one.
    fn gateway_lost(&mut self, gateway: NodeId, at: Instant) {
        self.draining.remove(&gateway);
        for (&character, &(_, generation)) in self.sessions.iter().filter(|(_, (node, _))| *node == gateway) {
            self.adrift.entry(character).or_insert(Adrift { generation, since: at, welcomed: false });
        }
        self.sessions.retain(|_, (node, _)| *node != gateway);
    }

    /// A session was closed by its gateway or its client. Only a drain makes a player look for another one at once.
    fn session_closed(&mut self, gateway: NodeId, character: CharacterId, generation: Generation, at: Instant) {
        if self.sessions.get(&character) != Some(&(gateway, generation)) {
            return;
        }
        self.sessions.remove(&character);
        if self.draining.contains(&gateway) {
            self.adrift.entry(character).or_insert(Adrift { generation, since: at, welcomed: false });
        }
    }

    /// A fault is over: whoever has seen nothing for a while waits from now on.
    pub fn fault_ended(&mut self, at: Instant) {
        for (&character, &seen) in &self.seen {
            if at.since(seen) >= SILENT {
                self.waiting.entry(character).or_insert(at);
            }
        }
    }

    /// Takes the next line of the history.
    pub fn on_entry(&mut self, entry: &Entry) {
        match &entry.what {
            What::Noted(note) => self.on_note(entry.node, entry.at, note),
            What::Crashed => {
                self.lost(entry.node, entry.at);
                self.gateway_lost(entry.node, entry.at);
            }
            What::Stopped => {
                self.draining.remove(&entry.node);
            }
            What::Accepted(Acceptance::OperationApplied { fact: Some(fact), .. }) => {
                let facts = self.facts.entry(fact.aggregate).or_default();
                facts.push_back((fact.sequence, entry.at));
                if facts.len() > FACTS_REMEMBERED {
                    facts.pop_front();
                }
            }
            // The record itself, and not the note of who wrote it: the answer that tells him may be lost.
            What::Accepted(Acceptance::DirectoryChanged { changes, .. }) => {
                for change in changes.iter() {
                    if let Change::Put(Record { key: Key::Owner(entity), value: Value::Owner(owner), .. }) = change {
                        self.on_owner(*entity, owner.lease, entry.at);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_note(&mut self, node: NodeId, at: Instant, note: &Note) {
        match *note {
            Note::Serving { authority, .. } => {
                let served = Served { node, lease: authority.lease, epoch: authority.epoch };
                self.served.insert(authority.entity, served);
                if let Some(failover) = self.failovers.get_mut(&authority.entity)
                    && authority.epoch > failover.lost.epoch
                    && failover.serving.is_none()
                {
                    failover.serving = Some(at);
                    let from = failover.reassigned;
                    self.span(Timing::Reconstruct, from, at);
                    if CharacterId::from_entity(authority.entity).is_none() {
                        self.failovers.remove(&authority.entity); // Nobody plays it.
                    }
                }
            }
            Note::Dropped { authority }
                if self.served.get(&authority.entity).is_some_and(|served| served.lease == authority.lease) =>
            {
                self.served.remove(&authority.entity);
            }
            Note::FoundDead { lease, .. } => {
                let lost = self.failovers.values_mut().filter(|f| f.lost.lease == lease && f.detected.is_none());
                let spans = lost.map(|failover| {
                    failover.detected = Some(at);
                    at.since(failover.fault)
                });
                self.spans.entry(Timing::Detect).or_default().extend(spans);
            }
            Note::SessionOpened { character, generation } if !self.displaced.contains(&character) => {
                self.sessions.insert(character, (node, generation));
            }
            Note::SessionClosed { character, generation } => self.session_closed(node, character, generation, at),
            Note::Draining { .. } => {
                self.draining.insert(node);
            }
            Note::Joined { character, generation, .. } => {
                if let Some(adrift) = self.adrift.get_mut(&character) {
                    adrift.welcomed |= generation > adrift.generation;
                }
            }
            Note::GlobalSeen { character, entity, sequence, .. } => self.shown(character, entity, sequence, at),
            Note::Confirmed { character, epoch, .. } => self.confirmed(character, epoch, at),
            Note::Performed { character, number, .. } if !self.displaced.contains(&character) => {
                self.performed.entry((character, number)).or_insert(at);
            }
            Note::Acknowledged { character, number, .. } => {
                self.acknowledged.insert(character, at);
                if let Some(performed) = self.performed.remove(&(character, number)) {
                    self.span(Timing::Operation, Some(performed), at);
                }
            }
            _ => {}
        }
    }

    /// An entity's record names this owner.
    fn on_owner(&mut self, entity: EntityId, lease: LeaseId, at: Instant) {
        if let Some(failover) = self.failovers.get_mut(&entity)
            && lease != failover.lost.lease
            && failover.reassigned.is_none()
        {
            failover.reassigned = Some(at);
            let from = failover.detected;
            self.span(Timing::Reassign, from, at);
        }
    }

    fn confirmed(&mut self, character: CharacterId, epoch: Epoch, at: Instant) {
        self.seen.insert(character, at);
        if let Some(end) = self.waiting.remove(&character) {
            self.span(Timing::Resume, Some(end), at);
        }
        if let Some(adrift) = self.adrift.get(&character).copied()
            && adrift.welcomed
        {
            self.adrift.remove(&character);
            self.span(Timing::Reconnect, Some(adrift.since), at);
        }
        let entity = character.entity();
        if let Some(failover) = self.failovers.get(&entity).copied()
            && epoch > failover.lost.epoch
        {
            self.failovers.remove(&entity);
            self.span(Timing::Redirect, failover.serving, at);
            self.span(Timing::Failover, Some(failover.fault), at);
        }
    }

    /// A player is shown how an aggregate stands: that is the first it sees of every fact behind the last it was shown. What was
    /// committed before it came counts for nobody.
    fn shown(&mut self, character: CharacterId, entity: EntityId, sequence: FactSequence, at: Instant) {
        let Some(before) = self.shown.insert((character, entity), sequence) else { return };
        let facts = self.facts.get(&entity).into_iter().flatten();
        // Of several that it is shown at once the one that has waited longest counts.
        let oldest = facts.rev().skip_while(|(of, _)| *of > sequence).take_while(|(of, _)| *of > before).last();
        let committed = oldest.map(|(_, committed)| *committed);
        self.span(Timing::Visibility, committed, at);
    }

    fn span(&mut self, timing: Timing, from: Option<Instant>, to: Instant) {
        if let Some(from) = from {
            self.spans.entry(timing).or_default().push(to.since(from));
        }
    }

    /// When a player last saw its own character, by authority.
    #[must_use]
    pub fn seen(&self, character: CharacterId) -> Option<Instant> {
        self.seen.get(&character).copied()
    }

    /// When an operation of a player was last acknowledged.
    #[must_use]
    pub fn acknowledged(&self, character: CharacterId) -> Option<Instant> {
        self.acknowledged.get(&character).copied()
    }

    /// Whose player has not seen its character since its owner was lost, though another owner was named.
    pub fn unfinished(&self) -> impl Iterator<Item = CharacterId> + '_ {
        let named = self.failovers.iter().filter(|(_, failover)| failover.reassigned.is_some());
        named.filter_map(|(&entity, _)| CharacterId::from_entity(entity))
    }

    /// All that was measured, by timing.
    #[must_use]
    pub fn spans(&self) -> &BTreeMap<Timing, Vec<Duration>> {
        &self.spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::{Incarnation, Nonce, Revision};
    use worldline_system::{
        doors::{directory::Ownership, ledger::Authority},
        history::EventId,
        rules::space::Position,
    };

    const WORKERS: [NodeId; 2] = [NodeId(1), NodeId(2)];

    fn lease(n: u64) -> LeaseId {
        LeaseId::from_bits(n)
    }

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn serving(entity: EntityId, epoch: u64, by: u64) -> Note {
        let authority = Authority { entity, epoch: Epoch(epoch), lease: lease(by) };
        Note::Serving { authority, position: Position::default(), applied_through: OpNumber(0) }
    }

    fn noted(watch: &mut Stopwatch, seconds: u64, node: NodeId, note: Note) {
        let (local, incarnation, event) = (at(seconds), Incarnation(1), EventId(seconds));
        watch.on_entry(&Entry { at: at(seconds), local, node, incarnation, event, what: What::Noted(note) });
    }

    /// The directory takes in a record that names this owner.
    fn named(watch: &mut Stopwatch, seconds: u64, entity: EntityId, owner: u64) {
        let value = Value::Owner(Ownership { lease: lease(owner), epoch: Epoch(1), nonce: Nonce(1) });
        let record = Record { key: Key::Owner(entity), value, mod_revision: Revision(2), lease: None };
        let what = Acceptance::DirectoryChanged { revision: Revision(2), changes: [Change::Put(record)].into() };
        let (local, node, incarnation, event) = (at(seconds), NodeId(5), Incarnation(1), EventId(seconds));
        watch.on_entry(&Entry { at: at(seconds), local, node, incarnation, event, what: What::Accepted(what) });
    }

    #[test]
    fn a_crash_is_measured_in_its_parts() {
        let (mut watch, player) = (Stopwatch::default(), NodeId(9));
        let character = CharacterId::new(1).expect("small");
        let confirmed =
            |epoch| Note::Confirmed { character, epoch: Epoch(epoch), sequence: 1, position: Position::default() };
        noted(&mut watch, 1, WORKERS[0], serving(character.entity(), 1, 11));
        noted(&mut watch, 2, player, confirmed(1));
        watch.lost(WORKERS[0], at(10));
        noted(&mut watch, 11, player, confirmed(1)); // Still under way when the owner died.
        noted(&mut watch, 20, NodeId(5), Note::FoundDead { lease: lease(11), orphans: 1 });
        named(&mut watch, 21, character.entity(), 12);
        noted(&mut watch, 23, WORKERS[1], serving(character.entity(), 2, 12));
        noted(&mut watch, 27, player, confirmed(2));
        noted(&mut watch, 28, player, confirmed(2));
        let expected = [
            (Timing::Failover, 17),
            (Timing::Detect, 10),
            (Timing::Reassign, 1),
            (Timing::Reconstruct, 2),
            (Timing::Redirect, 4),
        ];
        let expected = expected.map(|(timing, seconds)| (timing, vec![Duration::from_secs(seconds)]));
        assert_eq!(*watch.spans(), BTreeMap::from(expected));
    }

    #[test]
    fn a_lost_gateway_counts_until_another_one_shows_the_player_its_character() {
        let (mut watch, gateway, other, player) = (Stopwatch::default(), NodeId(3), NodeId(4), NodeId(9));
        let character = CharacterId::new(1).expect("small");
        let generation = Generation;
        let confirmed = Note::Confirmed { character, epoch: Epoch(1), sequence: 1, position: Position::default() };
        noted(&mut watch, 1, gateway, Note::SessionOpened { character, generation: generation(1) });
        noted(&mut watch, 2, player, Note::Joined { character, generation: generation(1), issued_unix_ms: 0 });
        watch.gateway_lost(gateway, at(10));
        noted(&mut watch, 11, player, confirmed.clone()); // Still under way when the gateway died.
        noted(&mut watch, 14, other, Note::SessionOpened { character, generation: generation(2) });
        noted(&mut watch, 15, player, Note::Joined { character, generation: generation(2), issued_unix_ms: 0 });
        noted(&mut watch, 17, player, confirmed.clone());
        assert_eq!(watch.spans().get(&Timing::Reconnect), Some(&vec![Duration::from_secs(7)]));

        // A session that ends at a gateway that stays is no loss; at one that drains it is a move.
        noted(&mut watch, 20, other, Note::SessionClosed { character, generation: generation(2) });
        noted(&mut watch, 21, gateway, Note::SessionOpened { character, generation: generation(3) });
        noted(&mut watch, 22, player, Note::Joined { character, generation: generation(3), issued_unix_ms: 0 });
        noted(&mut watch, 23, player, confirmed.clone());
        noted(&mut watch, 30, gateway, Note::Draining { sessions: 1 });
        noted(&mut watch, 32, gateway, Note::SessionClosed { character, generation: generation(3) });
        noted(&mut watch, 33, player, Note::Joined { character, generation: generation(4), issued_unix_ms: 0 });
        noted(&mut watch, 34, player, confirmed);
        let spans = [7, 2].map(Duration::from_secs).to_vec();
        assert_eq!(watch.spans().get(&Timing::Reconnect), Some(&spans));
    }

    #[test]
    fn only_who_had_fallen_silent_waits_for_the_end_of_a_fault() {
        let mut watch = Stopwatch::default();
        let characters = [1, 2].map(|n| CharacterId::new(n).expect("small"));
        let confirmed =
            |character| Note::Confirmed { character, epoch: Epoch(1), sequence: 1, position: Position::default() };
        noted(&mut watch, 5, NodeId(8), confirmed(characters[0]));
        noted(&mut watch, 20, NodeId(9), confirmed(characters[1]));
        watch.fault_ended(at(20));
        noted(&mut watch, 21, NodeId(9), confirmed(characters[1]));
        noted(&mut watch, 23, NodeId(8), confirmed(characters[0]));
        assert_eq!(watch.spans().get(&Timing::Resume), Some(&vec![Duration::from_secs(3)]));
        assert_eq!(watch.seen(characters[0]), Some(at(23)));
    }

    #[test]
    fn a_fact_counts_from_its_commit_until_each_player_is_shown_it() {
        let mut watch = Stopwatch::default();
        let [one, other] = [1, 2].map(|n| CharacterId::new(n).expect("small"));
        let entity = EntityId::new(worldline_proto::EntityKind::Boss, 1).expect("small");
        let seen = |character, sequence| Note::GlobalSeen {
            character,
            entity,
            sequence: FactSequence(sequence),
            hit_points: 1,
        };
        for sequence in 1..=3 {
            watch.facts.entry(entity).or_default().push_back((FactSequence(sequence), at(10 * sequence)));
        }
        noted(&mut watch, 11, NodeId(8), seen(one, 1)); // It comes, and is shown how things stand.
        noted(&mut watch, 25, NodeId(8), seen(one, 2));
        noted(&mut watch, 26, NodeId(9), seen(other, 0));
        noted(&mut watch, 32, NodeId(9), seen(other, 3));
        let spans = [5, 22].map(Duration::from_secs).to_vec();
        assert_eq!(watch.spans().get(&Timing::Visibility), Some(&spans));
    }

    #[test]
    fn an_operation_counts_from_its_first_sending() {
        let mut watch = Stopwatch::default();
        let character = CharacterId::new(1).expect("small");
        let (number, digest) = (OpNumber(1), worldline_proto::Digest([0; 16]));
        for seconds in [1, 4] {
            noted(&mut watch, seconds, NodeId(9), Note::Performed { character, number, digest });
        }
        for seconds in [6, 8] {
            noted(&mut watch, seconds, NodeId(9), Note::Acknowledged { character, number, digest: None, result: None });
        }
        assert_eq!(watch.spans().get(&Timing::Operation), Some(&vec![Duration::from_secs(5)]));
    }
}
