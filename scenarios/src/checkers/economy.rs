//! E1, E4, E7, E8: what the ledger's rows may become.

use super::{Check, Checker, Facts, Invariant, LedgerRows, Setup, View, breach, table::Table};
use worldline_proto::{CharacterId, Digest, EntityId, OpNumber};
use worldline_system::{
    doors::ledger::{OpResult, Operation, Verdict},
    history::{Acceptance, Entry, Note, Row, What},
};

/// E1. Keeps the sum of all balances from one commit to the next, and adds up the real rows at every sample. Nothing is
/// minted or burned yet: the sum stays what it was at the beginning.
#[derive(Clone, Debug)]
pub struct Conservation {
    balances: Table<EntityId, i64>,
    sum: i128,
    minted: i128,
    seen: bool,
}

impl Conservation {
    fn sample(&self, ledger: &dyn LedgerRows) -> Check {
        let mut sum = 0;
        ledger.each(&mut |row| sum += i128::from(row.balance));
        if sum != self.minted {
            breach!("the ledger's balances sum to {sum}; {} was minted", self.minted);
        }
        Ok(())
    }
}

impl Checker for Conservation {
    const INVARIANT: Invariant = Invariant::E1;

    fn new(setup: &Setup) -> Self {
        let mut balances = Table::default();
        for row in &setup.rows {
            balances.insert(row.entity, row.balance);
        }
        let minted = setup.rows.iter().map(|row| i128::from(row.balance)).sum();
        Self { balances, sum: minted, minted, seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        let What::Accepted(Acceptance::OperationApplied { operation, rows, .. }) = &entry.what else { return Ok(()) };
        self.seen = true;
        for row in rows {
            let before = self.balances.insert(row.entity, row.balance).unwrap_or_default();
            self.sum += i128::from(row.balance) - i128::from(before);
        }
        if self.sum != self.minted {
            breach!(
                "after operation {} of {} the balances sum to {}; {} was minted",
                operation.number,
                operation.character,
                self.sum,
                self.minted
            );
        }
        Ok(())
    }

    fn on_sample(&mut self, view: &View<'_>) -> Check {
        view.ledger.map_or(Ok(()), |ledger| self.sample(ledger))
    }

    fn at_end(&mut self, view: &View<'_>) -> Check {
        self.on_sample(view)
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("the ledger applied nothing")
    }
}

/// Operations of one character that are remembered; a number above it is not.
const NUMBERS_MAX: u64 = 1 << 20;

/// E4. The first payload and result under a key are the only ones, whoever tells.
#[derive(Clone, Debug)]
pub struct OneResult {
    /// Of each character, the key's payload and result at `number - 1`.
    results: Table<CharacterId, Vec<Option<(Digest, OpResult)>>>,
    seen: bool,
}

impl OneResult {
    fn slot(&mut self, character: CharacterId, number: OpNumber) -> Option<&mut Option<(Digest, OpResult)>> {
        self.seen = true;
        let place = number.0.checked_sub(1).filter(|&place| place < NUMBERS_MAX)? as usize;
        let results = self.results.slot(character);
        if results.len() <= place {
            results.resize(place + 1, None);
        }
        Some(&mut results[place])
    }

    /// Somebody tells the result of a key for this payload. `None` for a client that no longer knows what it had sent.
    fn tell(
        &mut self,
        who: &str,
        character: CharacterId,
        number: OpNumber,
        digest: Option<Digest>,
        result: OpResult,
    ) -> Check {
        let Some(slot) = self.slot(character, number) else { return Ok(()) };
        let Some((known_digest, known)) = *slot else {
            *slot = digest.map(|digest| (digest, result));
            return Ok(());
        };
        if digest.is_some_and(|digest| digest != known_digest) {
            breach!(
                "{who} gives operation {number} of {character} a result for another payload than the one that was applied \
                 ({known_digest})"
            );
        }
        if result != known {
            breach!("{who} gives operation {number} of {character} the result {result:?}; it was {known:?}");
        }
        Ok(())
    }

    /// Somebody says that a key is used for another payload than this one.
    fn conflict(&mut self, who: &str, character: CharacterId, number: OpNumber, digest: Option<Digest>) -> Check {
        let Some(slot) = self.slot(character, number) else { return Ok(()) };
        match *slot {
            Some((known, _)) if digest == Some(known) => {
                breach!(
                    "{who} refuses operation {number} of {character} as a conflict, and it was applied with this payload"
                )
            }
            _ => Ok(()),
        }
    }
}

impl Checker for OneResult {
    const INVARIANT: Invariant = Invariant::E4;

    fn new(_: &Setup) -> Self {
        Self { results: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Accepted(Acceptance::OperationApplied { operation, verdict, .. }) => {
                let Verdict::Applied(result) = verdict else { return Ok(()) };
                let Operation { character, number, digest, .. } = **operation;
                self.tell("the ledger", character, number, Some(digest), *result)
            }
            What::Accepted(Acceptance::OperationPassed { character, number, digest, verdict }) => match verdict {
                Verdict::Stored(result) | Verdict::Applied(result) => {
                    self.tell("the ledger", *character, *number, Some(*digest), *result)
                }
                Verdict::Conflict => self.conflict("the ledger", *character, *number, Some(*digest)),
                _ => Ok(()),
            },
            What::Noted(Note::AnswerSent { authority, number, digest, result, .. }) => {
                match CharacterId::from_entity(authority.entity) {
                    Some(character) => self.tell("the owner", character, *number, Some(*digest), *result),
                    None => Ok(()),
                }
            }
            What::Noted(Note::Acknowledged { character, number, digest, result }) => match result {
                Some(result) => self.tell("the client's acknowledgement", *character, *number, *digest, *result),
                None => self.conflict("the client's acknowledgement", *character, *number, *digest),
            },
            _ => Ok(()),
        }
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("no operation had a result")
    }
}

/// E7. Recomputes each row from the one before and the operation's result.
#[derive(Clone, Debug)]
pub struct NoOverdraft {
    rows: Table<EntityId, Option<Row>>,
    seen: bool,
}

impl NoOverdraft {
    /// What an operation with this result may make of this row.
    fn expected(operation: &Operation, result: OpResult, before: Row) -> Option<Row> {
        let OpResult::Hit { target, dealt, experience, bounty, .. } = result else { return Some(before) };
        let mut after = before;
        if after.entity == target {
            after.hit_points = after.hit_points.checked_sub(dealt)?;
            after.balance = after.balance.checked_sub(bounty)?;
        }
        if after.entity == operation.character.entity() {
            after.experience = after.experience.checked_add(experience)?;
            after.balance = after.balance.checked_add(bounty)?;
        }
        Some(after)
    }
}

impl Checker for NoOverdraft {
    const INVARIANT: Invariant = Invariant::E7;

    fn new(setup: &Setup) -> Self {
        let mut rows = Table::default();
        for row in &setup.rows {
            rows.insert(row.entity, Some(*row));
        }
        Self { rows, seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        let What::Accepted(Acceptance::OperationApplied { operation, verdict: Verdict::Applied(result), rows, .. }) =
            &entry.what
        else {
            return Ok(());
        };
        self.seen = true;
        let key = || format!("operation {} of {}", operation.number, operation.character);
        for row in rows {
            let Row { entity, hit_points, experience, balance, .. } = *row;
            if balance < 0 || experience < 0 {
                breach!("{} left {entity} with a balance of {balance} and {experience} experience", key());
            }
            let Some(before) = self.rows.insert(entity, Some(*row)).flatten() else { continue };
            if hit_points > before.hit_points || experience < before.experience {
                breach!(
                    "{} took {entity} from {} to {hit_points} hit points and from {} to {experience} experience",
                    key(),
                    before.hit_points,
                    before.experience
                );
            }
            let expected = Self::expected(operation, *result, before);
            let right = expected.is_some_and(|expected| {
                (expected.hit_points, expected.experience, expected.balance) == (hit_points, experience, balance)
            });
            if !right {
                breach!("{} had the result {result:?} and took {entity} from {before:?} to {row:?}", key());
            }
            if let OpResult::Hit { target, remaining, .. } = *result
                && target == entity
                && remaining != hit_points
            {
                breach!("{} says that {remaining} hit points of {entity} remain; it has {hit_points}", key());
            }
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("the ledger applied nothing")
    }
}

/// E8. Looks at the fence that stood over every row that an operation wrote.
#[derive(Clone, Debug)]
pub struct AuthorityEverywhere {
    seen: bool,
}

impl Checker for AuthorityEverywhere {
    const INVARIANT: Invariant = Invariant::E8;

    fn new(_: &Setup) -> Self {
        Self { seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        let What::Accepted(Acceptance::OperationApplied { operation, rows, .. }) = &entry.what else { return Ok(()) };
        self.seen = true;
        let (character, number) = (operation.character, operation.number);
        for row in rows {
            let Some(authority) = operation.authority.iter().find(|authority| authority.entity == row.entity) else {
                breach!("operation {number} of {character} wrote {} without any authority over it", row.entity);
            };
            if row.fence != Some((authority.epoch, authority.lease)) {
                breach!(
                    "operation {number} of {character} wrote {} at epoch {} by lease {}; its fence is {:?}",
                    row.entity,
                    authority.epoch,
                    authority.lease,
                    row.fence
                );
            }
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("the ledger applied nothing")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::*, *};
    use worldline_proto::Epoch;
    use worldline_system::doors::ledger::{FactRow, StoredResult};

    /// The hero strikes the boss; then the rows are as given.
    fn blow(dealt: u32, hero_row: (u32, i64, i64), boss_row: (u32, i64, i64)) -> What {
        let operation = attack(1, 1, 1);
        let [own, target] = [operation.authority[0], operation.authority[1]];
        let rows =
            vec![fenced(own, hero_row.0, hero_row.1, hero_row.2), fenced(target, boss_row.0, boss_row.1, boss_row.2)];
        applied_with(operation, hit(dealt, boss_row.0), rows)
    }

    #[test]
    fn e1_money_only_moves() {
        let good = [(0, LEDGER, applied(1, attack(1, 1, 1))), (1, LEDGER, applied(2, attack(2, 1, 2)))];
        assert_eq!(breaks_at::<Conservation>(&tell(good)), None);
        let undebited = blow(100, (100, 50, 3), (900, 0, 100));
        assert_eq!(breaks_at::<Conservation>(&tell([(0, LEDGER, undebited)])), Some(0));
    }

    /// A ledger with these rows and nothing else.
    struct Rows([Row; 2]);

    impl LedgerRows for Rows {
        fn each(&self, each: &mut dyn FnMut(&Row)) {
            self.0.iter().for_each(each);
        }
        fn applied_through(&self, _: CharacterId) -> Option<OpNumber> {
            None
        }
        fn result(&self, _: CharacterId, _: OpNumber) -> Option<StoredResult> {
            None
        }
        fn each_fact(&self, _: &mut dyn FnMut(FactRow)) {}
    }

    #[test]
    fn e1_the_real_rows_are_added_up_too() {
        let mut checker = Conservation::new(&setup());
        let mut sample = |purse| {
            let rows = Rows([row(hero(), 100, 0, 3), row(boss(), 1_000, 0, purse)]);
            checker.on_sample(&View { ledger: Some(&rows), ..view(1) }).is_ok()
        };
        assert!(sample(97));
        assert!(!sample(100), "a write that no entry tells of");
    }

    #[test]
    fn e4_a_key_has_one_payload_and_one_result() {
        let first = hit(100, 900);
        let good = [
            (0, LEDGER, applied(1, attack(1, 1, 1))),
            (1, LEDGER, passed(1, 1, Verdict::Stored(first))),
            (2, 1, answered(1, 1, first)),
            (3, 9, acknowledged(1, 1, Some(first))),
            (4, LEDGER, passed(1, 2, Verdict::Conflict)),
            (5, 9, acknowledged(1, 2, None)),
        ];
        assert_eq!(breaks_at::<OneResult>(&tell(good.clone())), None);
        for (what, why) in [
            (applied(2, attack(1, 1, 1)), "applied twice, with another result"),
            (passed(1, 1, Verdict::Stored(hit(100, 800))), "another result"),
            (passed(1, 2, Verdict::Stored(first)), "the ledger does not compare the payload"),
            (passed(1, 1, Verdict::Conflict), "the ledger refuses the right payload"),
            (answered(1, 2, first), "the owner does not compare the payload"),
            (acknowledged(1, 2, Some(first)), "the client is told the result of another payload"),
            (acknowledged(1, 1, None), "the client is told of a conflict that is none"),
        ] {
            let mut bad = good.to_vec();
            bad.push((6, 1, what));
            assert_eq!(breaks_at::<OneResult>(&tell(bad)), Some(6), "{why}");
        }
    }

    #[test]
    fn e7_rows_change_by_exactly_what_the_result_says() {
        let good = [(0, LEDGER, applied(1, attack(1, 1, 1))), (1, LEDGER, applied(2, attack(2, 1, 2)))];
        assert_eq!(breaks_at::<NoOverdraft>(&tell(good)), None);
        assert_eq!(breaks_at::<NoOverdraft>(&tell([(0, LEDGER, refused(1, 1))])), None);
        for (what, why) in [
            (blow(100, (100, 50, 3), (900, 0, -3)), "an overdraft"),
            (blow(100, (100, -50, 3), (900, 0, 97)), "experience falls"),
            (blow(100, (100, 50, 3), (1_100, 0, 97)), "hit points rise"),
            (blow(1_100, (100, 50, 3), (0, 0, 97)), "more is dealt than there was"),
            (blow(100, (100, 100, 3), (900, 0, 97)), "experience for nothing"),
            (blow(100, (100, 50, 4), (900, 0, 96)), "another bounty than the result's"),
            (blow(100, (100, 50, 3), (850, 0, 97)), "another wound than the result's"),
        ] {
            assert_eq!(breaks_at::<NoOverdraft>(&tell([(0, LEDGER, what)])), Some(0), "{why}");
        }
    }

    #[test]
    fn e8_every_written_row_has_its_authority() {
        assert_eq!(breaks_at::<AuthorityEverywhere>(&tell([(0, LEDGER, applied(1, attack(1, 1, 1)))])), None);
        let operation = attack(1, 1, 1);
        let [own, target] = [operation.authority[0], operation.authority[1]];
        let mut alone = operation.clone();
        alone.authority.truncate(1);
        let (mut other_lease, mut other_epoch) = (target, target);
        other_lease.lease = lease(9);
        other_epoch.epoch = Epoch(9);
        for (operation, boss_row, why) in [
            (alone, fenced(target, 900, 0, 97), "no authority over the target"),
            (operation.clone(), fenced(other_lease, 900, 0, 97), "another lease holds the fence"),
            (operation.clone(), fenced(other_epoch, 900, 0, 97), "the fence has another epoch"),
            (operation.clone(), row(boss(), 900, 0, 97), "there is no fence"),
        ] {
            let what = applied_with(operation, hit(100, 900), vec![fenced(own, 100, 50, 3), boss_row]);
            assert_eq!(breaks_at::<AuthorityEverywhere>(&tell([(0, LEDGER, what)])), Some(0), "{why}");
        }
    }
}
