//! S7: nobody is sent away for how an honest client moves.
//!
//! Who is honest, the scenario says. What was counted of a player, the cache says, in its answers; that a gateway or a worker
//! believes to have seen something is no evidence.

use super::{Check, Checker, Facts, Invariant, Setup, breach, table::Table};
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::{CharacterId, Incarnation, NodeId, OpId};
use worldline_system::{
    Outcome,
    doors::cache::{Answer, Submission},
    history::{Completion, Entry, Invocation, Note, What},
    limits,
};

/// S7. Follows what is counted of each player, and who is sent away.
#[derive(Clone, Debug)]
pub struct HonestStay {
    speeders: BTreeSet<CharacterId>,
    /// Increments that the cache has not answered yet.
    counting: BTreeMap<(NodeId, Incarnation, OpId), CharacterId>,
    /// The highest that a counter of each player has stood at.
    highest: Table<CharacterId, i64>,
    seen: bool,
}

impl Checker for HonestStay {
    const INVARIANT: Invariant = Invariant::S7;

    fn new(setup: &Setup) -> Self {
        let speeders = setup.speeders.clone();
        Self { speeders, counting: BTreeMap::new(), highest: Table::default(), seen: false }
    }

    fn on_entry(&mut self, entry: &Entry, _: &Facts<'_>) -> Check {
        match &entry.what {
            What::Invoked(op, Invocation::Cache(Submission::Increment { key, .. })) => {
                self.counting.insert((entry.node, entry.incarnation, *op), key.character);
            }
            What::Completed(op, completion) => {
                let Completion::Cache(Answer::Counted(outcome)) = &**completion else { return Ok(()) };
                let character = self.counting.remove(&(entry.node, entry.incarnation, *op));
                if let (Some(character), Outcome::Done(sum)) = (character, outcome) {
                    let highest = self.highest.slot(character);
                    *highest = (*highest).max(*sum);
                }
            }
            What::Noted(Note::SentAway { character, .. }) => {
                self.seen = true;
                if !self.speeders.contains(character) {
                    breach!("{character} is honest, and was sent away for how it moves");
                }
                let highest = self.highest.get(*character).copied().unwrap_or(0);
                if highest < limits::VIOLATIONS_MAX {
                    breach!(
                        "{character} was sent away, and its violations were never counted beyond {highest}; the bound is {}",
                        limits::VIOLATIONS_MAX
                    );
                }
            }
            What::Started | What::Crashed | What::Stopped => {
                self.counting.retain(|(node, ..), _| *node != entry.node);
            }
            _ => {}
        }
        Ok(())
    }

    fn not_checked(&self) -> Option<&'static str> {
        (!self.seen).then_some("nobody was sent away for how it moves")
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::*, *};
    use worldline_proto::Generation;
    use worldline_system::doors::cache::{CounterKey, Violation};

    const WORKER: u32 = 1;
    const GATEWAY: u32 = 7;

    fn asked(number: u64) -> What {
        let key = CounterKey { character: hero(), violation: Violation::Speed };
        What::Invoked(op(number), Invocation::Cache(Submission::Increment { key, by: 1.try_into().expect("not zero") }))
    }

    fn counted(number: u64, outcome: Outcome<i64>) -> What {
        What::Completed(op(number), Box::new(Completion::Cache(Answer::Counted(outcome))))
    }

    fn sent_away(character: CharacterId) -> What {
        What::Noted(Note::SentAway { character, generation: Generation(1) })
    }

    #[test]
    fn s7_who_was_counted_up_to_the_bound_may_be_sent_away_and_nobody_else() {
        let up_to =
            |sum| [(0, WORKER, asked(1)), (1, WORKER, counted(1, Outcome::Done(sum))), (2, GATEWAY, sent_away(hero()))];
        assert_eq!(breaks_at::<HonestStay>(&tell(up_to(limits::VIOLATIONS_MAX))), None);
        assert_eq!(breaks_at::<HonestStay>(&tell(up_to(limits::VIOLATIONS_MAX - 1))), Some(2));
        assert_eq!(breaks_at::<HonestStay>(&tell([(0, GATEWAY, sent_away(hero()))])), Some(0), "nothing was counted");
        let lost = [(0, WORKER, asked(1)), (1, WORKER, counted(1, Outcome::Unknown)), (2, GATEWAY, sent_away(hero()))];
        assert_eq!(breaks_at::<HonestStay>(&tell(lost)), Some(2), "the cache has not said so");
        let honest = CharacterId::new(2).expect("small");
        let mut lines = up_to(limits::VIOLATIONS_MAX).to_vec();
        lines.push((3, GATEWAY, sent_away(honest)));
        assert_eq!(breaks_at::<HonestStay>(&tell(lines)), Some(3));
        assert!(HonestStay::new(&setup()).not_checked().is_some());
    }
}
