//! E5: what a client was told of stands in the ledger, whatever has failed since.

use super::{Check, Checker, Facts, Invariant, LedgerRows, Setup, View, breach, table::Table};
use worldline_proto::{CharacterId, Digest, EntityId, NodeId, OpNumber};
use worldline_system::{
    doors::ledger::OpResult,
    history::{Acceptance, Entry, Note, Row, What},
};

/// Operations of one character that are told apart; a number above it is not remembered.
const NUMBERS_MAX: u64 = 1 << 20;

/// What one character's clients were told.
#[derive(Clone, Debug, Default)]
struct Told {
    character: Option<CharacterId>,
    through: OpNumber,
    /// Whether the operation of number `n` was told of, at `n - 1`. Two clients may hear of one.
    numbers: Vec<bool>,
    /// Its last: what the ledger must still answer.
    last: Option<(OpNumber, Option<Digest>, OpResult)>,
}

/// What an entity's row has come to by the results that clients were told, and by nothing else.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    experience: i64,
    earned: i64,
    wounds: u64,
}

/// E5. Adds up what clients were told and holds it against the ledger's rows: in sums at every sample, operation by operation
/// at the end and behind every change of the ledger's primary. Rows may be further than clients know, never less far.
///
/// Nobody takes anything from a character yet; whoever is struck loses hit points and never gains any.
#[derive(Clone, Debug)]
pub struct ToldStands {
    genesis: Table<EntityId, Option<Row>>,
    characters: Table<CharacterId, Told>,
    sums: Table<EntityId, Sum>,
    /// Which member told what the ledger accepted last, and whether that has changed since the last look.
    primary: Option<NodeId>,
    replaced: bool,
    told: bool,
    looked: bool,
}

impl ToldStands {
    /// A client was told a result.
    fn tell(&mut self, character: CharacterId, number: OpNumber, digest: Option<Digest>, result: OpResult) {
        self.told = true;
        let Some(place) = number.0.checked_sub(1).filter(|&place| place < NUMBERS_MAX) else { return };
        let told = self.characters.slot(character);
        told.character = Some(character);
        if number > told.through {
            told.through = number;
            told.last = Some((number, digest, result));
        }
        let place = place as usize;
        if told.numbers.len() <= place {
            told.numbers.resize(place + 1, false);
        }
        if std::mem::replace(&mut told.numbers[place], true) {
            return;
        }
        if let OpResult::Hit { target, dealt, experience, bounty, .. } = result {
            let sum = self.sums.slot(character.entity());
            sum.experience = sum.experience.saturating_add(experience);
            sum.earned = sum.earned.saturating_add(bounty);
            let sum = self.sums.slot(target);
            sum.wounds = sum.wounds.saturating_add(dealt.into());
        }
    }

    /// The sums: nothing that was paid or dealt is missing.
    fn rows(&self, ledger: &dyn LedgerRows) -> Check {
        let mut missing = None;
        ledger.each(&mut |row| {
            let (Some(sum), Some(Some(start))) = (self.sums.get(row.entity), self.genesis.get(row.entity)) else {
                return;
            };
            let experience = start.experience.saturating_add(sum.experience);
            let balance = start.balance.saturating_add(sum.earned);
            let hit_points = u64::from(start.hit_points).saturating_sub(sum.wounds);
            let poorer = sum.earned > 0 && row.balance < balance;
            if row.experience < experience || poorer || u64::from(row.hit_points) > hit_points {
                missing.get_or_insert((*row, experience, balance, hit_points));
            }
        });
        if let Some((row, experience, balance, hit_points)) = missing {
            breach!(
                "by what clients were told, {} has at least {experience} experience and a balance of {balance}, and at most \
                 {hit_points} hit points; the ledger has {row:?}",
                row.entity
            );
        }
        Ok(())
    }

    /// Operation by operation: everything told of has a result, and the last one is the same.
    fn operations(&self, ledger: &dyn LedgerRows) -> Check {
        for told in self.characters.values() {
            let Some(character) = told.character else { continue };
            let through = ledger.applied_through(character).unwrap_or_default();
            if through < told.through {
                breach!(
                    "a client of {character} was told of operation {}; the ledger knows of none behind {through}",
                    told.through
                );
            }
            let Some((number, digest, result)) = told.last else { continue };
            let Some(kept) = ledger.result(character, number) else { continue };
            if kept.result != result || digest.is_some_and(|digest| digest != kept.digest) {
                breach!(
                    "a client of {character} was told {result:?} of operation {number}; the ledger has {:?}",
                    kept.result
                );
            }
        }
        Ok(())
    }
}

impl Checker for ToldStands {
    const INVARIANT: Invariant = Invariant::E5;

    fn new(setup: &Setup) -> Self {
        let mut genesis = Table::default();
        for row in &setup.rows {
            genesis.insert(row.entity, Some(*row));
        }
        Self {
            genesis,
            characters: Table::default(),
            sums: Table::default(),
            primary: None,
            replaced: false,
            told: false,
            looked: false,
        }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Noted(Note::Acknowledged { character, number, digest, result: Some(result) }) => {
                self.tell(*character, *number, *digest, *result);
            }
            // Its members tell every one of these, and nobody else does.
            What::Accepted(
                Acceptance::FenceRaised { .. }
                | Acceptance::LoggedIn { .. }
                | Acceptance::OperationApplied { .. }
                | Acceptance::OperationPassed { .. }
                | Acceptance::Checkpointed { .. },
            ) => self.replaced |= self.primary.replace(entry.node).is_some_and(|before| before != entry.node),
            _ => {}
        }
        Ok(())
    }

    fn on_sample(&mut self, view: &View<'_>) -> Check {
        let Some(ledger) = view.ledger.filter(|_| self.told) else { return Ok(()) };
        self.looked = true;
        self.rows(ledger)?;
        if std::mem::take(&mut self.replaced) { self.operations(ledger) } else { Ok(()) }
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        self.replaced = true;
        self.on_sample(view)
    }

    fn not_checked(&self) -> Option<&'static str> {
        match (self.told, self.looked) {
            (false, _) => Some("no client was told of any operation"),
            (true, false) => Some("nobody read the ledger's rows"),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::*, *};
    use worldline_system::doors::ledger::{FactRow, StoredResult};

    /// The ledger after so many blows of the hero, the last with this result; for everything else see [`applied`].
    struct After(u32, OpResult);

    impl LedgerRows for After {
        fn each(&self, each: &mut dyn FnMut(&Row)) {
            let n = i64::from(self.0);
            each(&row(hero(), 100, 50 * n, 3 * n));
            each(&row(boss(), 1_000 - 100 * self.0, 0, 100 - 3 * n));
        }
        fn applied_through(&self, _: CharacterId) -> Option<OpNumber> {
            Some(OpNumber(self.0.into()))
        }
        fn result(&self, _: CharacterId, number: OpNumber) -> Option<StoredResult> {
            let last = number.0 == u64::from(self.0);
            last.then_some(StoredResult { number, digest: digest(self.0 as u8), result: self.1 })
        }
        fn each_fact(&self, _: &mut dyn FnMut(FactRow)) {}
    }

    /// The hero's client is told of two blows.
    fn told(more: Vec<(u64, u32, What)>) -> ToldStands {
        let mut lines = vec![
            (0, LEDGER, applied(1, attack(1, 1, 1))),
            (1, 9, acknowledged(1, 1, Some(hit(100, 900)))),
            (2, LEDGER, applied(2, attack(2, 1, 2))),
            (3, 9, acknowledged(2, 2, Some(hit(100, 800)))),
        ];
        lines.extend(more);
        let mut checker = ToldStands::new(&setup());
        for entry in tell(lines) {
            assert_eq!(checker.on_entry(&entry, &Facts::default()), Ok(()));
        }
        checker
    }

    fn stands(checker: &mut ToldStands, ledger: &After, end: bool) -> bool {
        let view = View { ledger: Some(ledger), ..view(9) };
        let check = if end { checker.at_end(&view) } else { checker.on_sample(&view) };
        assert_eq!(checker.not_checked(), None);
        check.is_ok()
    }

    #[test]
    fn e5_the_ledger_has_at_least_what_clients_were_told() {
        let result = hit(100, 800);
        assert!(stands(&mut told(vec![]), &After(2, result), true));
        assert!(stands(&mut told(vec![]), &After(3, hit(100, 700)), true), "it may know more than they");
        assert!(!stands(&mut told(vec![]), &After(1, hit(100, 900)), false), "a blow is missing in the sums at once");
        assert!(!stands(&mut told(vec![]), &After(2, hit(100, 801)), true), "another result");
        assert!(stands(&mut told(vec![]), &After(2, hit(100, 801)), false), "which is looked for at the end");
    }

    #[test]
    fn e5_a_new_primary_is_asked_for_every_operation() {
        let other = LEDGER + 1;
        let promoted = || vec![(4, other, raised(authority(boss(), 3, 3), None))];
        assert!(!stands(&mut told(promoted()), &After(2, hit(100, 801)), false));
        assert!(stands(&mut told(promoted()), &After(2, hit(100, 800)), false));
        let refused =
            acknowledged(3, 3, Some(OpResult::Refused(worldline_system::doors::ledger::RuleRefusal::Cooldown)));
        let lines = [promoted(), vec![(5, 9, refused)]].concat();
        assert!(
            !stands(&mut told(lines), &After(2, hit(100, 800)), false),
            "a refusal adds nothing up, and is missing"
        );
    }

    #[test]
    fn e5_what_two_clients_were_told_counts_once() {
        let again = vec![(4, 8, acknowledged(2, 2, Some(hit(100, 800))))];
        assert!(stands(&mut told(again), &After(2, hit(100, 800)), true));
    }

    #[test]
    fn e5_says_what_it_could_not_see() {
        assert_eq!(ToldStands::new(&setup()).not_checked(), Some("no client was told of any operation"));
        assert_eq!(told(vec![]).not_checked(), Some("nobody read the ledger's rows"));
    }
}
