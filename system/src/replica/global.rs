//! What a replica knows of one entity: its state after some fact, and facts that came before their turn.

use crate::doors::ledger::{FactBody, FactRow, FactSnapshot};
use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use worldline_proto::{CharacterId, FactSequence, OpNumber};

/// Facts of one entity that are kept although one before them is missing; what comes on top is read in the ledger.
pub(super) const AHEAD: usize = 256;
/// Causes that are told with news, for whoever traces.
const CAUSES: usize = 16;

/// The operation that caused a fact.
pub(super) type Cause = (CharacterId, OpNumber);

/// An entity's state, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Global {
    /// After which fact, and the hit points then.
    state: Option<(FactSequence, u32)>,
    ahead: BTreeMap<FactSequence, (FactBody, Cause)>,
    /// Taken in since it was last asked.
    applied: Vec<FactSequence>,
    /// What caused what the gateways do not know yet: the last few.
    causes: VecDeque<Cause>,
    /// Whether the gateways do not know its state yet.
    pub news: bool,
}

/// What came of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It was taken in, and with it what had waited for it.
    Applied,
    /// It had been taken in before, or was kept already.
    Known,
    /// One before it is missing.
    Behind,
}

impl Global {
    pub fn is_known(&self) -> bool {
        self.state.is_some()
    }

    /// The last fact that is taken in.
    pub fn sequence(&self) -> Option<FactSequence> {
        self.state.map(|(sequence, _)| sequence)
    }

    pub fn state(&self) -> Option<(FactSequence, u32)> {
        self.state
    }

    /// Whether a fact waits for one before it.
    pub fn waits(&self) -> bool {
        !self.ahead.is_empty()
    }

    pub fn waiting(&self) -> usize {
        self.ahead.len()
    }

    /// The state to begin with. What was heard before it and lies behind it is taken in at once.
    pub fn begin(&mut self, snapshot: &FactSnapshot) {
        self.state = Some((snapshot.sequence, snapshot.hit_points));
        self.ahead = self.ahead.split_off(&snapshot.sequence.next());
        self.news = true;
        self.catch_up();
    }

    /// Takes in a fact, if it is its turn; else keeps it, if there is room.
    pub fn hear(&mut self, fact: &FactRow) -> Heard {
        if self.state.is_some_and(|(known, _)| fact.sequence <= known) || self.ahead.contains_key(&fact.sequence) {
            return Heard::Known;
        }
        if self.ahead.len() < AHEAD || self.sequence().is_some_and(|known| known.next() == fact.sequence) {
            self.ahead.insert(fact.sequence, (fact.body, (fact.character, fact.number)));
        }
        if self.catch_up() { Heard::Applied } else { Heard::Behind }
    }

    /// Takes in what has its turn.
    fn catch_up(&mut self) -> bool {
        let before = self.applied.len();
        while let Some((known, hit_points)) = &mut self.state
            && let Some((body, cause)) = self.ahead.remove(&known.next())
        {
            let FactBody::Hit { remaining, .. } = body;
            (*known, *hit_points) = (known.next(), remaining);
            self.applied.push(*known);
            if self.causes.len() >= CAUSES {
                self.causes.pop_front();
            }
            self.causes.push_back(cause);
            self.news = true;
        }
        self.applied.len() > before
    }

    /// What has caused what is new since this was last asked.
    pub fn take_causes(&mut self) -> VecDeque<Cause> {
        core::mem::take(&mut self.causes)
    }

    /// What was taken in since this was last asked.
    pub fn take_applied(&mut self) -> Vec<FactSequence> {
        core::mem::take(&mut self.applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::{EntityId, EntityKind};

    fn boss() -> EntityId {
        EntityId::new(EntityKind::Boss, 1).expect("in range")
    }

    fn fact(sequence: u64) -> FactRow {
        FactRow {
            aggregate: boss(),
            sequence: FactSequence(sequence),
            character: CharacterId::new(1).expect("in range"),
            number: OpNumber(sequence),
            body: FactBody::Hit { dealt: 1, remaining: 1_000 - sequence as u32, experience: 0, bounty: 0 },
        }
    }

    fn snapshot(sequence: u64) -> FactSnapshot {
        FactSnapshot { entity: boss(), hit_points: 1_000 - sequence as u32, sequence: FactSequence(sequence) }
    }

    #[test]
    fn facts_are_taken_in_once_and_in_order_whatever_order_they_come_in() {
        let mut global = Global::default();
        assert_eq!(global.hear(&fact(4)), Heard::Behind, "nothing is known yet");
        global.begin(&snapshot(2));
        assert_eq!(global.state(), Some((FactSequence(2), 998)));
        assert_eq!(global.hear(&fact(2)), Heard::Known);
        assert_eq!(global.hear(&fact(3)), Heard::Applied);
        assert_eq!(global.state(), Some((FactSequence(4), 996)), "what had waited follows");
        assert_eq!(global.hear(&fact(4)), Heard::Known, "delivered again");
        assert_eq!(global.hear(&fact(7)), Heard::Behind);
        assert_eq!(global.take_applied(), [3, 4].map(FactSequence));
        assert_eq!(global.take_applied(), []);
    }

    #[test]
    fn a_snapshot_swallows_what_it_contains() {
        let mut global = Global::default();
        for sequence in [3, 5, 6] {
            global.hear(&fact(sequence));
        }
        global.begin(&snapshot(4));
        assert_eq!(global.state(), Some((FactSequence(6), 994)));
        assert_eq!(global.take_applied(), [5, 6].map(FactSequence));
        assert!(!global.waits());
    }

    #[test]
    fn what_comes_early_is_bounded_and_what_is_due_has_always_room() {
        let mut global = Global::default();
        global.begin(&snapshot(0));
        for sequence in 2..2 + 2 * AHEAD as u64 {
            global.hear(&fact(sequence));
        }
        assert_eq!(global.waiting(), AHEAD);
        assert_eq!(global.hear(&fact(1)), Heard::Applied);
        assert_eq!(global.sequence(), Some(FactSequence(1 + AHEAD as u64)));
    }
}
