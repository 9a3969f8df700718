//! An orchestrator that follows another one is ready to lead at any moment, also while the ledger does not answer.

mod bench;

use bench::Bench;
use std::{collections::BTreeMap, sync::Arc};
use worldline_proto::{CharacterId, EntityId, Epoch, LeaseId, NodeId, Nonce, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Event,
        directory::{
            Answer as Told, Family, Key, Leader, Ownership, Page, Record, RegionId, Submission as ToDirectory,
            Transacted, Value, Worker,
        },
        ledger::{Answer, Roster, RosterEntry, Submission as ToLedger},
    },
    history::Note,
    knobs::Knobs,
    lease::LeaseTimes,
    orchestrator::{Config, Orchestrator},
    rules::space::{Map, Position},
    time::Duration,
};

const ROUND: u8 = 1;

fn orphan() -> EntityId {
    CharacterId::new(1).expect("in range").entity()
}

fn roster() -> Answer {
    let entry = RosterEntry { entity: orphan(), position: Position::default(), pinned: None };
    Answer::Roster(Outcome::Done(Roster { entries: vec![entry], more: false }))
}

fn record(key: Key, value: Value) -> Record {
    Record { key, value, mod_revision: Revision(3), lease: None }
}

fn campaigned(bench: &mut Bench<Orchestrator>, succeeded: bool) {
    bench.now = bench.now + Duration::from_secs(1);
    bench.timer(ROUND);
    let (campaign, asked) = bench.asked_directory().remove(0);
    assert!(matches!(asked, ToDirectory::Transact(_)), "{asked:?}");
    let leader = Value::Leader(Leader { node: NodeId(7), lease: LeaseId::from_bits(7) });
    let otherwise = if succeeded { Vec::new() } else { vec![record(Key::Leader, leader)] };
    let transacted = Transacted { succeeded, revision: Revision(5), otherwise };
    bench.directory(campaign, Told::Transacted(Outcome::Done(transacted)));
}

/// An orchestrator that follows another one, and what it has asked the ledger.
fn follower() -> (Bench<Orchestrator>, Vec<ToLedger>) {
    let map = Arc::new(Map::new(1, BTreeMap::new()));
    let config = Config { map, lease: LeaseTimes::default(), knobs: Knobs::default() };
    let mut bench = Bench::new(Orchestrator::new(config));
    bench.give(Event::Started);
    let (grant, _) = bench.asked_directory().remove(0);
    bench.directory(grant, Told::Granted(Outcome::Done(())));
    campaigned(&mut bench, false);
    let asked = bench.asked_ledger();
    for (op, _) in &asked {
        bench.ledger(*op, roster());
    }
    (bench, asked.into_iter().map(|(_, asked)| asked).collect())
}

/// Answers a survey: one worker lives, and the entity's owner does not.
fn survey(bench: &mut Bench<Orchestrator>) {
    let worker =
        record(Key::Worker(LeaseId::from_bits(9)), Value::Worker(Worker { node: NodeId(9), region: RegionId(0) }));
    let owner = Ownership { lease: LeaseId::from_bits(8), epoch: Epoch(2), nonce: Nonce(0) };
    let owned = record(Key::Owner(orphan()), Value::Owner(owner));
    for (expected, records) in
        [(Family::Regions, vec![]), (Family::Workers, vec![worker]), (Family::Owners, vec![owned])]
    {
        let (read, asked) = bench.asked_directory().remove(0);
        assert!(matches!(asked, ToDirectory::Read { family, .. } if family == expected), "{asked:?}");
        let page = Page { records, revision: Revision(5), more: false };
        bench.directory(read, Told::Read(Outcome::Done(page)));
    }
}

#[test]
fn a_successor_assigns_at_once_what_it_has_read_while_another_one_led() {
    let (mut bench, asked) = follower();
    assert_eq!(asked, [ToLedger::Roster { after: None, limit: worldline_system::limits::ROSTER_PAGE }]);
    campaigned(&mut bench, true);
    assert!(bench.role.leads() && bench.asked_ledger().is_empty(), "the ledger may be gone with the leader");
    survey(&mut bench);
    assert!(bench.notes().iter().any(|note| matches!(note, Note::FoundDead { .. })), "{:?}", bench.notes());
    let takeovers = bench.asked_directory();
    assert!(matches!(takeovers[..], [(_, ToDirectory::Transact(_))]), "{takeovers:?}");
}

#[test]
fn a_follower_reads_the_roster_again_when_it_is_old_and_goes_on_with_the_old_one_where_it_cannot() {
    let (mut bench, _) = follower();
    campaigned(&mut bench, false);
    assert_eq!(bench.asked_ledger(), [], "it has just read it");
    bench.now = bench.now + Duration::from_secs(10);
    bench.give(Event::Timer(worldline_system::doors::clock::TimerKey::new(0, 0)));
    let (renewal, _) = bench.asked_directory().remove(0);
    bench.directory(renewal, Told::KeptAlive(Outcome::Done(Duration::from_secs(10))));
    campaigned(&mut bench, false);
    let (read, _) = bench.asked_ledger().remove(0);
    campaigned(&mut bench, false);
    assert_eq!(bench.asked_ledger(), [], "one is under way");
    bench.ledger(read, Answer::Roster(Outcome::Refused(Refusal::Unreachable)));
    campaigned(&mut bench, true);
    let (read, _) = bench.asked_ledger().remove(0);
    bench.ledger(read, Answer::Roster(Outcome::Refused(Refusal::Unreachable)));
    survey(&mut bench);
    assert_eq!(bench.asked_directory().len(), 1, "the takeover");
}
