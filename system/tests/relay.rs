//! The leading orchestrator relays what stays unpublished, page after page, whatever becomes of a page.

mod bench;

use bench::Bench;
use std::{collections::BTreeMap, sync::Arc};
use worldline_proto::{CharacterId, EntityId, EntityKind, FactSequence, OpId, OpNumber, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Event,
        bus::{self, Published, StreamSequence},
        directory::{Answer as Told, Submission as ToDirectory, Transacted},
        ledger::{Answer, FactBody, FactRow, FactsPage, Submission as ToLedger},
    },
    knobs::Knobs,
    lease::LeaseTimes,
    limits,
    orchestrator::{Config, Orchestrator},
    rules::space::Map,
};

/// Its timers, by kind.
const ROUND: u8 = 1;
const RELAY: u8 = 2;

fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).expect("in range")
}

fn fact(sequence: u64) -> FactRow {
    let body = FactBody::Hit { dealt: 1, remaining: 9, experience: 1, bounty: 1 };
    let character = CharacterId::new(1).expect("in range");
    FactRow { aggregate: boss(), sequence: FactSequence(sequence), character, number: OpNumber(sequence), body }
}

/// An orchestrator that leads.
fn leader() -> Bench<Orchestrator> {
    let map = Arc::new(Map::new(1, BTreeMap::new()));
    let config = Config { map, lease: LeaseTimes::default(), knobs: Knobs::default() };
    let mut bench = Bench::new(Orchestrator::new(config));
    bench.give(Event::Started);
    let (grant, _) = bench.asked_directory().remove(0);
    bench.directory(grant, Told::Granted(Outcome::Done(())));
    bench.timer(ROUND);
    let (campaign, asked) = bench.asked_directory().remove(0);
    assert!(matches!(asked, ToDirectory::Transact(_)));
    let won = Transacted { succeeded: true, revision: Revision(5), otherwise: Vec::new() };
    bench.directory(campaign, Told::Transacted(Outcome::Done(won)));
    assert!(bench.role.leads());
    bench
}

/// Begins a period, and answers the sweep with these facts.
fn sweep(bench: &mut Bench<Orchestrator>, page: Outcome<FactsPage>) -> Vec<OpId> {
    bench.timer(RELAY);
    answer_sweep(bench, page)
}

fn answer_sweep(bench: &mut Bench<Orchestrator>, page: Outcome<FactsPage>) -> Vec<OpId> {
    answer_sweep_of(bench, limits::RELAY_PAGE, page)
}

/// Answers a sweep that has asked for so many.
fn answer_sweep_of(bench: &mut Bench<Orchestrator>, limit: u16, page: Outcome<FactsPage>) -> Vec<OpId> {
    let (op, asked) = bench.asked_ledger().remove(0);
    assert_eq!(asked, ToLedger::Unpublished { older_than: limits::RELAY_AGE, limit });
    bench.ledger(op, Answer::Unpublished(page));
    bench.asked_bus().into_iter().map(|(op, _)| op).collect()
}

fn page(sequences: &[u64], more: bool) -> Outcome<FactsPage> {
    Outcome::Done(FactsPage { facts: sequences.iter().map(|&n| fact(n)).collect(), more })
}

fn stored() -> Outcome<Published> {
    Outcome::Done(Published { sequence: StreamSequence(1), duplicate: false })
}

#[test]
fn a_page_is_published_then_flagged_and_the_next_follows_at_once() {
    let mut bench = leader();
    let publishes = sweep(&mut bench, page(&[3, 4], true));
    assert_eq!(publishes.len(), 2);
    bench.bus(publishes[1], bus::Answer::Published(stored()));
    assert!(bench.asked_ledger().is_empty(), "one is still under way");
    let duplicate = Outcome::Done(Published { sequence: StreamSequence(9), duplicate: true });
    bench.bus(publishes[0], bus::Answer::Published(duplicate));
    let (op, asked) = bench.asked_ledger().remove(0);
    assert_eq!(asked, ToLedger::Flag(vec![(boss(), FactSequence(4)), (boss(), FactSequence(3))]));
    bench.ledger(op, Answer::Flagged(Outcome::Done(())));
    let publishes = answer_sweep(&mut bench, page(&[], false));
    assert_eq!((publishes.len(), bench.asked_ledger().len()), (0, 0), "nothing is left until the next period");
}

#[test]
fn only_what_was_published_is_flagged_and_what_was_not_waits_for_the_next_period() {
    for failure in [Outcome::Unknown, Outcome::Refused(Refusal::NoStream)] {
        let mut bench = leader();
        let publishes = sweep(&mut bench, page(&[3, 4], true));
        bench.bus(publishes[0], bus::Answer::Published(failure.clone()));
        bench.bus(publishes[1], bus::Answer::Published(stored()));
        let (op, asked) = bench.asked_ledger().remove(0);
        assert_eq!(asked, ToLedger::Flag(vec![(boss(), FactSequence(4))]));
        bench.ledger(op, Answer::Flagged(Outcome::Done(())));
        assert!(bench.asked_ledger().is_empty(), "the bus is not well: {failure:?}");
        let publishes = sweep(&mut bench, page(&[3], false));
        bench.bus(publishes[0], bus::Answer::Published(failure));
        assert!(bench.asked_ledger().is_empty(), "nothing to flag");
        bench.timer(RELAY);
        assert_eq!(answer_sweep_of(&mut bench, 1, page(&[3], false)).len(), 1, "and it goes on");
    }
}

#[test]
fn a_bus_that_stores_nothing_is_probed_with_one_fact_and_what_waits_follows_the_first_that_is_stored() {
    let mut bench = leader();
    let publishes = sweep(&mut bench, page(&[3, 4, 5], true));
    for op in publishes {
        bench.bus(op, bus::Answer::Published(Outcome::Refused(Refusal::Unreachable)));
    }
    for failure in [Outcome::Unknown, Outcome::Refused(Refusal::NoStream)] {
        bench.timer(RELAY);
        let probe = answer_sweep_of(&mut bench, 1, page(&[3], true));
        bench.bus(probe[0], bus::Answer::Published(failure));
        assert!(bench.asked_ledger().is_empty());
    }
    bench.timer(RELAY);
    let probe = answer_sweep_of(&mut bench, 1, page(&[3], true));
    bench.bus(probe[0], bus::Answer::Published(stored()));
    let (op, _) = bench.asked_ledger().remove(0);
    bench.ledger(op, Answer::Flagged(Outcome::Done(())));
    assert_eq!(answer_sweep(&mut bench, page(&[4, 5], false)).len(), 2, "a whole page, and at once");
}

#[test]
fn a_fact_that_the_bus_will_not_have_does_not_count_as_a_bus_that_is_away() {
    let mut bench = leader();
    for _ in 0..2 {
        let publishes = sweep(&mut bench, page(&[3], true));
        bench.bus(publishes[0], bus::Answer::Published(Outcome::Refused(Refusal::Malformed)));
        assert!(bench.asked_ledger().is_empty());
    }
}

#[test]
fn a_sweep_or_a_flag_that_came_to_nothing_is_followed_by_the_next_period() {
    let mut bench = leader();
    assert!(sweep(&mut bench, Outcome::Unknown).is_empty());
    let publishes = sweep(&mut bench, page(&[3], true));
    bench.timer(RELAY);
    assert!(bench.asked_ledger().is_empty(), "one page at a time");
    bench.bus(publishes[0], bus::Answer::Published(stored()));
    let (op, _) = bench.asked_ledger().remove(0);
    bench.ledger(op, Answer::Flagged(Outcome::Unknown));
    assert!(bench.asked_ledger().is_empty());
    assert_eq!(sweep(&mut bench, page(&[3], false)).len(), 1);
}

#[test]
fn who_leads_no_longer_relays_no_longer() {
    let mut bench = leader();
    let publishes = sweep(&mut bench, page(&[3], true));
    bench.now = bench.now + LeaseTimes::default().ttl;
    bench.bus(publishes[0], bus::Answer::Published(stored()));
    assert!(!bench.role.leads() && bench.asked_ledger().is_empty());
    bench.timer(RELAY);
    assert!(bench.asked_ledger().is_empty());
}
