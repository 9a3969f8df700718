//! S1–S3: who plays a character, what was done exactly once, and what was promised.

use super::{Check, Checker, Facts, Invariant, Setup, View, breach, table::Table};
use worldline_proto::{CharacterId, Digest, EntityId, Epoch, Generation, OpNumber};
use worldline_system::{
    doors::ledger::{OpResult, Verdict},
    history::{Acceptance, Entry, Note, What},
};

/// Epochs of one entity that are followed at once.
const EPOCHS_KEPT: usize = 4;

/// What is known of one character's sessions.
#[derive(Clone, Debug, Default)]
struct Sessions {
    highest: Generation,
    /// Sessions that a gateway has opened, by rising generation.
    opened: Vec<Generation>,
    /// For each owner the highest generation whose movement it has accepted.
    moved: Vec<(Epoch, Generation)>,
}

/// S1. Holds sessions, operations and movements against the generations that the ledger gave out.
#[derive(Clone, Debug)]
pub struct OneSession {
    characters: Table<CharacterId, Sessions>,
    seen: bool,
}

impl Checker for OneSession {
    const INVARIANT: Invariant = Invariant::S1;

    fn new(_: &Setup) -> Self {
        Self { characters: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(
                Acceptance::LoggedIn { character, generation, .. }
                | Acceptance::TokensRevoked { character, generation, .. },
            ) => {
                self.seen = true;
                let sessions = self.characters.slot(*character);
                if *generation <= sessions.highest {
                    breach!(
                        "the ledger gave {character} generation {generation} behind generation {}",
                        sessions.highest
                    );
                }
                sessions.highest = *generation;
            }
            What::Accepted(Acceptance::OperationApplied { operation, .. }) => {
                let (character, generation) = (operation.character, operation.generation);
                let highest = self.characters.slot(character).highest;
                if generation != highest {
                    breach!(
                        "operation {} of {character} was applied for generation {generation}; the highest is {highest}",
                        operation.number
                    );
                }
            }
            What::Noted(Note::SessionOpened { character, generation }) => {
                let sessions = self.characters.slot(*character);
                if *generation > sessions.highest {
                    breach!(
                        "a session of {character} was opened at generation {generation}, which the ledger never gave"
                    );
                }
                match sessions.opened.binary_search(generation) {
                    Ok(_) => breach!("two sessions of {character} were opened at generation {generation}"),
                    Err(place) => sessions.opened.insert(place, *generation),
                }
            }
            What::Noted(Note::Moved { authority, generation, .. }) => {
                let Some(character) = CharacterId::from_entity(authority.entity) else {
                    breach!("{} is no character, and a session moved it", authority.entity)
                };
                let sessions = self.characters.slot(character);
                if *generation > sessions.highest {
                    breach!("{character} was moved by generation {generation}, which the ledger never gave");
                }
                let epoch = authority.epoch;
                match sessions.moved.iter_mut().rev().find(|(known, _)| *known == epoch) {
                    Some((_, highest)) if generation < highest => breach!(
                        "{character} was moved at epoch {epoch} by generation {generation}, and before by generation {highest}"
                    ),
                    Some((_, highest)) => *highest = *generation,
                    None => {
                        if sessions.moved.len() == EPOCHS_KEPT {
                            sessions.moved.remove(0);
                        }
                        sessions.moved.push((epoch, *generation));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("the ledger reported no login")
    }
}

/// S2. Counts what the ledger applied and what owners moved.
#[derive(Clone, Debug)]
pub struct ExactlyOnce {
    applied: Table<CharacterId, OpNumber>,
    /// For each owner of an entity the last input that it accepted.
    moved: Table<EntityId, Vec<(Epoch, Generation, u32)>>,
    seen: bool,
}

impl Checker for ExactlyOnce {
    const INVARIANT: Invariant = Invariant::S2;

    fn new(_: &Setup) -> Self {
        Self { applied: Table::default(), moved: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(Acceptance::OperationApplied { operation, .. }) => {
                self.seen = true;
                let (character, number) = (operation.character, operation.number);
                let last = self.applied.slot(character);
                if number <= *last {
                    breach!("operation {number} of {character} was applied again: {last} had been");
                }
                if number != last.next() {
                    breach!("operation {number} of {character} was applied behind {last}: there is a gap");
                }
                *last = number;
            }
            What::Noted(Note::Moved { authority, generation, sequence, .. }) => {
                self.seen = true;
                let moved = self.moved.slot(authority.entity);
                match moved.iter_mut().rev().find(|(epoch, ..)| *epoch == authority.epoch) {
                    Some((_, known, last)) if known == generation && sequence <= last => breach!(
                        "input {sequence} of {} (generation {generation}, epoch {}) was accepted behind input {last}",
                        authority.entity,
                        authority.epoch
                    ),
                    Some(known) => (known.1, known.2) = (*generation, *sequence),
                    None => {
                        if moved.len() == EPOCHS_KEPT {
                            moved.remove(0);
                        }
                        moved.push((authority.epoch, *generation, *sequence));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("nothing was applied and nobody moved")
    }
}

/// What the ledger has accepted of one character, and what its client was told.
#[derive(Clone, Debug, Default)]
struct Promises {
    character: Option<CharacterId>,
    /// The result of operation `n` stands at `n - 1`: numbers have no gaps, or S2 is broken.
    results: Vec<Option<(Digest, OpResult)>>,
    acknowledged_through: OpNumber,
}

impl Promises {
    fn result(&self, number: OpNumber) -> Option<(Digest, OpResult)> {
        let place = usize::try_from(number.0.checked_sub(1)?).ok()?;
        *self.results.get(place)?
    }
}

/// Operations of one character that are kept apart; a number above it is not remembered.
const NUMBERS_MAX: u64 = 1 << 20;

/// S3. Remembers everything that the ledger has applied, and compares what owners and clients are told with it.
#[derive(Clone, Debug)]
pub struct AcknowledgedSurvives {
    characters: Table<CharacterId, Promises>,
    seen: bool,
}

impl AcknowledgedSurvives {
    fn promise(
        &mut self,
        what: &str,
        character: CharacterId,
        number: OpNumber,
        digest: Option<Digest>,
        result: &OpResult,
    ) -> Check {
        self.seen = true;
        let promises = self.characters.slot(character);
        let Some((stored_digest, stored)) = promises.result(number) else {
            breach!("operation {number} of {character} was {what}, and the ledger has not committed it");
        };
        if stored != *result || digest.is_some_and(|digest| digest != stored_digest) {
            breach!(
                "operation {number} of {character} was {what} with {result:?}; committed is {stored:?}, payload {stored_digest}"
            );
        }
        promises.acknowledged_through = promises.acknowledged_through.max(number);
        Ok(())
    }
}

impl Checker for AcknowledgedSurvives {
    const INVARIANT: Invariant = Invariant::S3;

    fn new(_: &Setup) -> Self {
        Self { characters: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(Acceptance::OperationApplied { operation, verdict: Verdict::Applied(result), .. }) => {
                let promises = self.characters.slot(operation.character);
                promises.character = Some(operation.character);
                let Some(place) = operation.number.0.checked_sub(1).filter(|&place| place < NUMBERS_MAX) else {
                    return Ok(());
                };
                let place = place as usize;
                if promises.results.len() <= place {
                    promises.results.resize(place + 1, None);
                }
                promises.results[place] = Some((operation.digest, *result));
                Ok(())
            }
            What::Noted(Note::AnswerSent { authority, number, digest, result, .. }) => {
                let Some(character) = CharacterId::from_entity(authority.entity) else {
                    breach!("{} is no character, and an operation of it was answered", authority.entity)
                };
                self.promise("answered", character, *number, Some(*digest), result)
            }
            What::Noted(Note::Acknowledged { character, number, digest, result: Some(result) }) => {
                self.promise("acknowledged", *character, *number, *digest, result)
            }
            _ => Ok(()),
        }
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        let Some(ledger) = view.ledger else { return Ok(()) };
        for promises in self.characters.values() {
            let Some(character) = promises.character else { continue };
            let through = ledger.applied_through(character).unwrap_or_default();
            if through < promises.acknowledged_through {
                breach!(
                    "operation {} of {character} was acknowledged, and the ledger knows of none behind {through}",
                    promises.acknowledged_through
                );
            }
            for number in (1..=promises.acknowledged_through.0).map(OpNumber) {
                // Only the latest are kept; they are compared.
                let (Some(kept), Some((digest, result))) = (ledger.result(character, number), promises.result(number))
                else {
                    continue;
                };
                if (kept.digest, kept.result) != (digest, result) {
                    breach!("operation {number} of {character} was {result:?}, and is {:?} at the end", kept.result);
                }
            }
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("nothing was answered")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::LedgerRows, super::story::*, *};
    use worldline_system::{
        doors::ledger::{FactRow, StoredResult},
        history::Row,
    };

    fn opened(generation: u64) -> What {
        What::Noted(Note::SessionOpened { character: hero(), generation: Generation(generation) })
    }

    #[test]
    fn s1_only_the_highest_generation_acts() {
        let own = authority(hero(), 1, 1);
        let good = [
            (0, LEDGER, logged_in(1)),
            (1, 5, opened(1)),
            (2, LEDGER, applied(1, attack(1, 1, 1))),
            (3, 1, moved(own, 1, 1, east(0), east(1))),
            (4, LEDGER, logged_in(2)),
            // The owner has not been told yet; nothing of this becomes durable.
            (5, 1, moved(own, 1, 2, east(1), east(2))),
            (6, 5, opened(2)),
            (7, 1, moved(own, 2, 1, east(2), east(3))),
            (8, LEDGER, applied(2, attack(2, 2, 2))),
        ];
        assert_eq!(breaks_at::<OneSession>(&tell(good.clone())), None);
        for (what, why) in [
            (applied(3, attack(3, 1, 3)), "an operation of the session before"),
            (applied(3, attack(3, 9, 3)), "an operation of a session that does not exist"),
            (moved(own, 1, 3, east(3), east(4)), "a movement of the session before behind one of this session"),
            (moved(own, 9, 3, east(3), east(4)), "a movement of a session that does not exist"),
            (opened(2), "one generation in two sessions"),
            (opened(3), "a session that the ledger did not grant"),
            (logged_in(2), "a generation that repeats"),
        ] {
            let mut bad = good.to_vec();
            bad.push((9, 1, what));
            assert_eq!(breaks_at::<OneSession>(&tell(bad)), Some(9), "{why}");
        }
    }

    #[test]
    fn s2_operations_apply_once_in_order_and_movements_at_most_once() {
        let (old, new) = (authority(hero(), 1, 1), authority(hero(), 2, 2));
        let good = [
            (0, LEDGER, applied(1, attack(1, 1, 1))),
            (1, LEDGER, applied(2, attack(2, 1, 2))),
            (2, 1, moved(old, 1, 5, east(0), east(1))),
            (3, 1, moved(old, 1, 8, east(1), east(2))),
            (4, 2, moved(new, 1, 6, east(1), east(2))),
            (5, 1, moved(old, 2, 1, east(2), east(3))),
        ];
        assert_eq!(breaks_at::<ExactlyOnce>(&tell(good.clone())), None);
        for (what, why) in [
            (applied(3, attack(2, 1, 2)), "applied twice"),
            (applied(3, attack(4, 1, 4)), "a gap"),
            (moved(old, 2, 1, east(3), east(4)), "an input again"),
            (moved(new, 1, 5, east(3), east(4)), "an input of before"),
        ] {
            let mut bad = good.to_vec();
            bad.push((6, 1, what));
            assert_eq!(breaks_at::<ExactlyOnce>(&tell(bad)), Some(6), "{why}");
        }
    }

    #[test]
    fn s3_nothing_is_promised_before_it_is_committed() {
        let good = [
            (0, 9, performed(1, 1)),
            (1, LEDGER, applied(1, attack(1, 1, 1))),
            (2, 1, answered(1, 1, hit(100, 900))),
            (3, 9, acknowledged(1, 1, Some(hit(100, 900)))),
        ];
        assert_eq!(breaks_at::<AcknowledgedSurvives>(&tell(good.clone())), None);
        for (what, why) in [
            (answered(2, 2, hit(100, 800)), "answered before its commit"),
            (acknowledged(2, 2, Some(hit(100, 800))), "acknowledged before its commit"),
            (acknowledged(1, 1, Some(hit(100, 901))), "another result"),
            (answered(1, 2, hit(100, 900)), "another payload"),
        ] {
            let mut bad = good.to_vec();
            bad.push((4, 1, what));
            assert_eq!(breaks_at::<AcknowledgedSurvives>(&tell(bad)), Some(4), "{why}");
        }
    }

    /// A ledger that has `n` results, the last of them as given.
    struct Kept(u64, OpResult);

    impl LedgerRows for Kept {
        fn each(&self, _: &mut dyn FnMut(&Row)) {}
        fn applied_through(&self, _: CharacterId) -> Option<OpNumber> {
            Some(OpNumber(self.0))
        }
        fn result(&self, _: CharacterId, number: OpNumber) -> Option<StoredResult> {
            (number.0 == self.0).then_some(StoredResult { number, digest: digest(1), result: self.1 })
        }
        fn each_fact(&self, _: &mut dyn FnMut(FactRow)) {}
    }

    #[test]
    fn s3_what_was_acknowledged_stands_at_the_end() {
        let mut checker = AcknowledgedSurvives::new(&setup());
        for entry in tell([(0, LEDGER, applied(1, attack(1, 1, 1))), (1, 9, acknowledged(1, 1, Some(hit(100, 900))))]) {
            assert_eq!(checker.on_entry(&entry, &Facts::default()), Ok(()));
        }
        let mut ends = |kept: Kept| checker.at_end(&View { ledger: Some(&kept), ..view(9) }).is_ok();
        assert!(ends(Kept(1, hit(100, 900))));
        assert!(!ends(Kept(0, hit(100, 900))), "lost");
        assert!(!ends(Kept(1, hit(100, 800))), "changed");
    }
}
