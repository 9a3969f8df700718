//! G2 and R3: what replicas and players know of what the whole world shares, and of themselves, beside who decides it.

use super::{Check, Checker, Facts, Invariant, Setup, View, breach, ownership::Owners, table::Table};
use std::collections::BTreeMap;
use worldline_proto::{CharacterId, EntityId, Epoch, FactSequence, Generation, Incarnation, NodeId};
use worldline_system::{
    history::{Acceptance, Entry, Note, What},
    rules::space::Position,
    time::{Duration, Instant},
};

/// How soon, where nothing is broken, every player has seen what was decided of what the world shares: the period in which
/// replicas compare themselves with the ledger, and everything on the way.
const SHARED_WITHIN: Duration = Duration::from_secs(6);
/// And of its own character: its owner tells a state that does not change once a second again, and two may be lost in a row.
const OWN_WITHIN: Duration = Duration::from_secs(3);

/// Every state that an entity has had in the ledger, by the facts that tell of it.
#[derive(Clone, Debug, Default)]
struct Committed {
    /// Its hit points behind fact `n`, and since when, at `n`; at 0 as the world began.
    states: Vec<(u32, Instant)>,
}

impl Committed {
    fn last(&self) -> FactSequence {
        FactSequence(self.states.len().saturating_sub(1) as u64)
    }

    fn at(&self, sequence: FactSequence) -> Option<u32> {
        Some(self.states.get(usize::try_from(sequence.0).ok()?)?.0)
    }
}

/// The ledger's states of what facts tell of.
#[derive(Clone, Debug, Default)]
struct Authority(Table<EntityId, Committed>);

impl Authority {
    fn of(setup: &Setup) -> Self {
        let mut authority = Self::default();
        for row in &setup.rows {
            authority.0.slot(row.entity).states.push((row.hit_points, Instant::default()));
        }
        authority
    }

    /// Takes in what the ledger has committed: the row that it wrote, and not the fact that tells of it.
    fn on_entry(&mut self, entry: &Entry) {
        if let What::Accepted(Acceptance::OperationApplied { rows, fact: Some(fact), .. }) = &entry.what
            && let Some(row) = rows.iter().find(|row| row.entity == fact.aggregate)
        {
            self.0.slot(row.entity).states.push((row.hit_points, entry.at));
        }
    }
}

/// What one life of a reader has taken in.
#[derive(Clone, Debug, Default)]
struct Reader {
    incarnation: Incarnation,
    stands: Vec<(EntityId, FactSequence)>,
}

impl Reader {
    /// It stands at this fact now; where it stood before.
    fn stand(&mut self, entity: EntityId, sequence: FactSequence) -> Option<FactSequence> {
        match self.stands.iter_mut().find(|(known, _)| *known == entity) {
            Some((_, stands)) => Some(std::mem::replace(stands, sequence)),
            None => {
                self.stands.push((entity, sequence));
                None
            }
        }
    }
}

/// The readers of the world, each in its present life.
#[derive(Clone, Debug, Default)]
struct Readers(Table<NodeId, Reader>);

impl Readers {
    fn life(&mut self, entry: &Entry) -> &mut Reader {
        let reader = self.0.slot(entry.node);
        if reader.incarnation != entry.incarnation {
            *reader = Reader { incarnation: entry.incarnation, ..Reader::default() };
        }
        reader
    }
}

/// G2. Holds every state that a replica takes in and that a client is shown against the states that the ledger has committed.
#[derive(Clone, Debug)]
pub struct NeverAhead {
    authority: Authority,
    readers: Readers,
    shown: bool,
    taken_in: bool,
}

impl NeverAhead {
    fn stand(&mut self, entry: &Entry, what: &str, entity: EntityId, sequence: FactSequence) -> Check {
        let committed = self.authority.0.slot(entity).last();
        if sequence > committed {
            breach!(
                "{} {what} {entity} behind fact {sequence}; its owner has committed {committed} of them",
                entry.node
            );
        }
        match self.readers.life(entry).stand(entity, sequence) {
            Some(before) if sequence < before => {
                breach!("{} {what} {entity} behind fact {sequence}, and knew it behind fact {before}", entry.node)
            }
            _ => Ok(()),
        }
    }
}

impl Checker for NeverAhead {
    const INVARIANT: Invariant = Invariant::G2;

    fn new(setup: &Setup) -> Self {
        Self { authority: Authority::of(setup), readers: Readers::default(), shown: false, taken_in: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(_) => self.authority.on_entry(entry),
            &What::Noted(Note::FactSnapshot { aggregate, sequence } | Note::FactApplied { aggregate, sequence }) => {
                self.taken_in = true;
                return self.stand(entry, "takes in", aggregate, sequence);
            }
            &What::Noted(Note::GlobalSeen { entity, sequence, hit_points, .. }) => {
                self.shown = true;
                self.stand(entry, "is shown", entity, sequence)?;
                let right = self.authority.0.get(entity).and_then(|committed| committed.at(sequence));
                if right != Some(hit_points) {
                    breach!(
                        "{} is shown {entity} with {hit_points} hit points behind fact {sequence}; it had {right:?} there",
                        entry.node
                    );
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        match (self.taken_in, self.shown) {
            (false, false) => Some("there was no replica, and no client was shown anything"),
            (true, false) => Some("replicas were right, and no client was shown anything"),
            (_, true) => None,
        }
    }
}

/// What one player's machine knows, in its present session.
#[derive(Clone, Copy, Debug)]
struct Player {
    character: CharacterId,
    joined: Generation,
    since: Instant,
    /// What it was shown last of its own character: the owner's epoch, its input, and where it stood.
    confirmed: Option<(Epoch, u32, Position)>,
}

/// The last movement of a character that an owner accepted.
#[derive(Clone, Copy, Debug)]
struct Walk {
    epoch: Epoch,
    generation: Generation,
    sequence: u32,
    to: Position,
    at: Instant,
}

/// R3. Asks at the end of a settled run what every player who is there has seen last: of what the world shares the ledger's
/// state, of its own character the owner's. Who has only just come, was turned away for good, or
/// whose place another one has taken, is not asked.
#[derive(Clone, Debug)]
pub struct AllAgree {
    authority: Authority,
    entities: Vec<EntityId>,
    readers: Readers,
    players: BTreeMap<NodeId, Player>,
    sessions: Table<CharacterId, Generation>,
    walks: Table<EntityId, Option<Walk>>,
    owners: Owners,
    shown: bool,
    settled: bool,
}

impl AllAgree {
    fn note(&mut self, entry: &Entry, note: &Note) {
        match *note {
            Note::GlobalSeen { entity, sequence, .. } => {
                self.shown = true;
                self.readers.life(entry).stand(entity, sequence);
            }
            Note::Joined { character, generation, .. } => {
                let player = Player { character, joined: generation, since: entry.at, confirmed: None };
                self.players.insert(entry.node, player);
                let highest = self.sessions.slot(character);
                *highest = (*highest).max(generation);
            }
            // Its token does not count any more: nobody shows it anything.
            Note::TurnedAway { .. } => drop(self.players.remove(&entry.node)),
            Note::Confirmed { epoch, sequence, position, .. } => {
                if let Some(player) = self.players.get_mut(&entry.node) {
                    player.confirmed = Some((epoch, sequence, position));
                }
            }
            Note::Moved { authority, generation, sequence, to, .. } => {
                let walk = Walk { epoch: authority.epoch, generation, sequence, to, at: entry.at };
                *self.walks.slot(authority.entity) = Some(walk);
            }
            _ => self.owners.on_entry(entry),
        }
    }

    /// What the world shares.
    fn globals(&self, node: NodeId, player: &Player, now: Instant) -> Check {
        for &entity in &self.entities {
            let Some(committed) = self.authority.0.get(entity) else { continue };
            let due = committed.states.iter().skip(1).take_while(|(_, at)| now.since(*at) > SHARED_WITHIN).count();
            let stands = self.readers.0.get(node).and_then(|reader| {
                reader.stands.iter().find(|(known, _)| *known == entity).map(|(_, sequence)| *sequence)
            });
            let due = FactSequence(due as u64);
            if due > FactSequence(0) && stands.is_none_or(|stands| stands < due) {
                breach!(
                    "the player of {} at {node} knows {entity} behind fact {stands:?}; {due} was committed more than \
                     {SHARED_WITHIN} ago",
                    player.character
                );
            }
        }
        Ok(())
    }

    /// Its own character.
    fn own(&self, player: &Player, now: Instant) -> Check {
        let character = player.character;
        let entity = character.entity();
        let Some(walk) = self.walks.get(entity).copied().flatten() else { return Ok(()) };
        let served = self.owners.server(entity).is_some_and(|(_, authority)| authority.epoch == walk.epoch);
        if walk.generation != player.joined || !served || now.since(walk.at) <= OWN_WITHIN {
            return Ok(());
        }
        let right = player.confirmed.is_some_and(|(epoch, sequence, position)| {
            epoch == walk.epoch && sequence >= walk.sequence && position == walk.to
        });
        if !right {
            breach!(
                "the player of {character} was shown {:?} last; its owner accepted input {} to {:?} at epoch {}, {} ago",
                player.confirmed,
                walk.sequence,
                walk.to,
                walk.epoch,
                now.since(walk.at)
            );
        }
        Ok(())
    }
}

impl Checker for AllAgree {
    const INVARIANT: Invariant = Invariant::R3;

    fn new(setup: &Setup) -> Self {
        Self {
            authority: Authority::of(setup),
            entities: setup.rows.iter().map(|row| row.entity).collect(),
            readers: Readers::default(),
            players: BTreeMap::new(),
            sessions: Table::default(),
            walks: Table::default(),
            owners: Owners::default(),
            shown: false,
            settled: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(_) => self.authority.on_entry(entry),
            What::Noted(note) => self.note(entry, note),
            What::Started | What::Crashed | What::Stopped => {
                self.owners.on_entry(entry);
                self.players.remove(&entry.node);
            }
            _ => {}
        }
        Ok(())
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        if !view.settled || view.services.is_some_and(|services| !services.ledger) {
            return Ok(());
        }
        self.settled = true;
        for (&node, player) in &self.players {
            let displaced = self.sessions.get(player.character).is_some_and(|&highest| highest > player.joined);
            if displaced || view.at.since(player.since) <= SHARED_WITHIN {
                continue;
            }
            if self.shown {
                self.globals(node, player, view.at)?;
            }
            self.own(player, view.at)?;
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        match (self.settled, self.shown) {
            (false, _) => Some("the run did not end healed and settled"),
            (true, false) => Some("players agree with their owners, and nobody was shown what the world shares"),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
#[path = "replicas_tests.rs"]
mod tests;
