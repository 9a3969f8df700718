//! E6 on told histories.

use super::{super::story::*, *};
use worldline_proto::{CharacterId, LeaseId, OpNumber};
use worldline_system::{
    doors::{
        bus::StreamSequence,
        ledger::{RuleRefusal, StoredResult},
    },
    history::Row,
};

const REPLICA: u32 = 20;
const STREAM: u32 = 30;

fn fact(n: u64) -> FactRow {
    let body = FactBody::Hit { dealt: 100, remaining: 1_000 - 100 * n as u32, experience: 50, bounty: 3 };
    FactRow { aggregate: boss(), sequence: FactSequence(n), character: hero(), number: OpNumber(n), body }
}

/// The hero's `n`-th blow, with what it wrote to the outbox.
fn struck(n: u64, wrote: Option<FactRow>) -> What {
    let What::Accepted(Acceptance::OperationApplied { operation, verdict, rows, .. }) =
        applied(n as u32, attack(n, 1, n as u8))
    else {
        unreachable!("it is one")
    };
    What::Accepted(Acceptance::OperationApplied { operation, verdict, rows, fact: wrote.map(Box::new) })
}

fn stored(fact: FactRow) -> What {
    let message = MessageId { entity: fact.aggregate, number: fact.sequence.0 };
    stored_as(Subject::Fact(fact.aggregate), message, facts::encode(&fact))
}

fn stored_as(subject: Subject, message: MessageId, payload: std::sync::Arc<[u8]>) -> What {
    What::Accepted(Acceptance::Published { sequence: StreamSequence(1), subject, message, payload })
}

fn took(sequence: u64) -> What {
    What::Noted(Note::FactApplied { aggregate: boss(), sequence: FactSequence(sequence) })
}

fn began(sequence: u64) -> What {
    What::Noted(Note::FactSnapshot { aggregate: boss(), sequence: FactSequence(sequence) })
}

fn elected() -> What {
    What::Noted(Note::Elected { lease: LeaseId::from_bits(5) })
}

/// Two facts, published and read by somebody who was there from the first.
fn good() -> Vec<(u64, u32, What)> {
    vec![
        (0, 3, elected()),
        (1, LEDGER, struck(1, Some(fact(1)))),
        (2, STREAM, stored(fact(1))),
        (3, REPLICA, began(0)),
        (4, REPLICA, took(1)),
        (5, LEDGER, struck(2, Some(fact(2)))),
        (6, STREAM, stored(fact(2))),
        (7, REPLICA, took(2)),
    ]
}

/// An outbox with these facts.
struct Listed(Vec<FactRow>);

impl LedgerRows for Listed {
    fn each(&self, _: &mut dyn FnMut(&Row)) {}
    fn applied_through(&self, _: CharacterId) -> Option<OpNumber> {
        None
    }
    fn result(&self, _: CharacterId, _: OpNumber) -> Option<StoredResult> {
        None
    }
    fn each_fact(&self, each: &mut dyn FnMut(FactRow)) {
        self.0.iter().copied().for_each(each);
    }
}

/// Where the history breaks it; `Err` with what the end says if it does not.
fn ends(lines: Vec<(u64, u32, What)>, listed: Vec<FactRow>, ms: u64) -> Result<usize, (Check, Option<&'static str>)> {
    let mut checker = Outbox::new(&setup());
    let entries = tell(lines);
    if let Some(place) = entries.iter().position(|entry| checker.on_entry(entry, &Facts::default()).is_err()) {
        return Ok(place);
    }
    let ledger = Listed(listed);
    let end = checker.at_end(&View { ledger: Some(&ledger), settled: true, ..view(ms) });
    Err((end, checker.not_checked()))
}

fn breaks(lines: Vec<(u64, u32, What)>) -> Option<usize> {
    ends(lines, vec![], 100).ok()
}

/// The good history with another line at this place.
fn with(place: usize, what: What) -> Vec<(u64, u32, What)> {
    let mut lines = good();
    lines[place].2 = what;
    lines
}

#[test]
fn e6_what_is_committed_is_told_and_read_once_and_in_order() {
    assert_eq!(ends(good(), vec![fact(1), fact(2)], 60_000), Err((Ok(()), None)));
}

#[test]
fn e6_an_effect_has_its_fact_and_nothing_else_has_one() {
    let other = FactRow { number: OpNumber(9), ..fact(1) };
    let larger = FactRow { body: FactBody::Hit { dealt: 1, remaining: 900, experience: 50, bounty: 3 }, ..fact(1) };
    let late = FactRow { sequence: FactSequence(2), ..fact(1) };
    for wrote in [None, Some(other), Some(larger), Some(late)] {
        assert_eq!(breaks(with(1, struck(1, wrote))), Some(1), "{wrote:?}");
    }
    assert_eq!(breaks(with(5, struck(2, Some(fact(1))))), Some(5), "a number is given out once");
    let mut lines = good();
    lines.push((8, LEDGER, refused(3, 1)));
    assert_eq!(breaks(lines.clone()), None, "a refusal is no news");
    let What::Accepted(Acceptance::OperationApplied { fact: wrote, verdict, .. }) = &mut lines[8].2 else { panic!() };
    assert_eq!(*verdict, Verdict::Applied(OpResult::Refused(RuleRefusal::Cooldown)));
    *wrote = Some(Box::new(fact(3)));
    assert_eq!(breaks(lines), Some(8));
}

#[test]
fn e6_the_stream_has_only_what_was_committed() {
    let early = vec![(0, STREAM, stored(fact(1))), (1, LEDGER, struck(1, Some(fact(1))))];
    assert_eq!(breaks(early), Some(0), "published before its commit");
    let message = |number| MessageId { entity: boss(), number };
    let subject = Subject::Fact(boss());
    let payload = facts::encode(&fact(2));
    for what in [
        stored_as(subject, message(2), [0xff; 4].into()),
        stored_as(subject, message(1), payload.clone()),
        stored_as(Subject::Fact(hero().entity()), message(2), payload),
        stored(FactRow { number: OpNumber(9), ..fact(2) }),
        stored(fact(3)),
    ] {
        assert_eq!(breaks(with(6, what.clone())), Some(6), "{what:?}");
    }
    let mut newer = facts::encode(&fact(2)).to_vec();
    assert_eq!((newer[0], newer[1]), (1 << 3, facts::VERSION as u8), "the version comes first");
    newer[1] += 1;
    let newer: std::sync::Arc<[u8]> = newer.into();
    assert_eq!(breaks(with(6, stored_as(subject, message(2), newer.clone()))), None, "of a newer build");
    assert_eq!(breaks(with(6, stored_as(subject, message(3), newer))), Some(6), "of a newer build, and not committed");
    let mut lines = good();
    lines.push((8, STREAM, stored(fact(1))));
    assert_eq!(breaks(lines), None, "a message may be stored again after its id was forgotten");
}

#[test]
fn e6_a_reader_applies_each_fact_once_and_misses_none() {
    for (place, what, why) in [
        (7, took(1), "again"),
        (4, took(2), "misses the first, which was not even committed"),
        (7, took(3), "never committed, and misses the second"),
        (3, began(2), "a state from the future"),
        (7, began(0), "a state from the past"),
    ] {
        assert_eq!(breaks(with(place, what)), Some(place), "{why}");
    }
    let mut lines = good();
    lines.extend([(8, REPLICA, What::Crashed), (9, REPLICA, began(2)), (10, 21, began(1)), (11, 21, took(2))]);
    assert_eq!(breaks(lines.clone()), None, "a new life begins with the ledger, and so does another reader");
    lines.push((12, REPLICA, took(2)));
    assert_eq!(breaks(lines), Some(12));
}

#[test]
fn e6_a_settled_run_has_published_and_read_everything() {
    let both = || vec![fact(1), fact(2)];
    let without = |place: usize| {
        let mut lines = good();
        lines.remove(place);
        lines
    };
    let breaks = |lines, listed, ms| ends(lines, listed, ms).expect_err("not before the end").0.is_err();
    assert!(breaks(without(6), both(), 60_000), "never published");
    assert!(!breaks(without(6), both(), 10_000), "not published yet");
    assert!(breaks(without(7), both(), 60_000), "never read");
    assert!(!breaks(without(7), both(), 10_000), "not read yet");
    assert!(breaks(good(), vec![fact(1)], 60_000), "a row of the outbox is gone");
    assert!(breaks(good(), vec![fact(1), fact(2), fact(3)], 60_000), "a row that no transaction wrote");
    let mut lines = without(7);
    lines.push((8, REPLICA, What::Crashed));
    assert!(!breaks(lines, both(), 60_000), "the dead read nothing");
}

#[test]
fn e6_says_what_it_could_not_see() {
    let why = |lines| ends(lines, vec![fact(1), fact(2)], 60_000).expect_err("nothing breaks").1.unwrap_or_default();
    let mut lines = good();
    assert_eq!(why(lines.clone()), "");
    lines.remove(0);
    assert_eq!(why(lines.clone()), "nothing was wrong, and the run did not end settled with a relay");
    lines.retain(|(_, node, _)| *node != REPLICA);
    assert_eq!(why(lines.clone()), "outbox and stream are right, and nobody read them");
    lines.retain(|(_, node, _)| *node != STREAM);
    assert_eq!(why(lines.clone()), "the outbox is right, and nobody told of the stream");
    let nothing = ends(vec![], vec![], 60_000).expect_err("nothing breaks").1;
    assert_eq!(nothing, Some("the ledger applied nothing"));
}
