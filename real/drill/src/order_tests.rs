//! Histories of several sources, and the one order that they come to.

use super::*;
use worldline_proto::{EntityKind, Nonce};
use worldline_system::{doors::ledger::Authority, history::Note};

fn at(n: u64) -> Instant {
    Instant::from_nanos(n)
}

fn line(n: u64, node: u32, what: What) -> Entry {
    Entry { at: at(n), local: at(n), node: NodeId(node), incarnation: Incarnation(3), event: EventId(0), what }
}

fn op(counter: u64) -> OpId {
    OpId { incarnation: Incarnation(3), counter }
}

fn lease(n: u64) -> LeaseId {
    LeaseId::from_bits(n)
}

fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).expect("small")
}

fn got(revision: u64) -> What {
    let answer = directory::Answer::Got(Outcome::Done((None, Revision(revision))));
    What::Completed(op(1), Box::new(Completion::Directory(answer)))
}

fn heard(n: u64, revision: u64, changes: Vec<Change>) -> Heard {
    Heard { at: at(n), earliest: at(0), revision: Revision(revision), changes }
}

fn fence(epoch: u64, holder: u64) -> Acceptance {
    let authority = Authority { entity: boss(), epoch: Epoch(epoch), lease: lease(holder) };
    Acceptance::FenceRaised { authority, before: None }
}

fn claims(n: u64, counter: u64, epoch: u64, done: bool) -> [Entry; 2] {
    let claim = ledger::Submission::Claim { lease: lease(7), entities: vec![(boss(), Epoch(epoch))] };
    let durable = ledger::Durable {
        entity: boss(),
        generation: Generation(0),
        applied_through: OpNumber(0),
        hit_points: 1,
        experience: 0,
        balance: 0,
        checkpoint: None,
        results: Vec::new(),
    };
    let outcome = if done { Outcome::Done(vec![Ok(Box::new(durable))]) } else { Outcome::Unknown };
    let answer = Completion::Ledger(ledger::Answer::Claimed(outcome));
    [
        line(n, 1, What::Invoked(op(counter), Invocation::Ledger(claim))),
        line(n + 5, 1, What::Completed(op(counter), Box::new(answer))),
    ]
}

/// The times and, shortly, what happened.
fn told(sources: Sources) -> Vec<(u64, &'static str)> {
    let word = |what: &What| match what {
        What::Started => "started",
        What::Crashed => "crashed",
        What::Noted(_) => "noted",
        What::Invoked(..) => "invoked",
        What::Completed(..) => "completed",
        What::Accepted(Acceptance::DirectoryChanged { .. }) => "changed",
        What::Accepted(Acceptance::LeaseEnded { .. }) => "ended",
        What::Accepted(Acceptance::FenceRaised { .. }) => "fenced",
        _ => "other",
    };
    merged(sources).iter().map(|entry| (entry.at.as_nanos(), word(&entry.what))).collect()
}

#[test]
fn the_lines_of_all_lives_are_ordered_by_the_one_clock_and_numbered() {
    let note = || What::Noted(Note::Suspended { lease: lease(7) });
    let sources = Sources {
        origin: at(100),
        lives: vec![vec![line(110, 1, What::Started), line(130, 1, note())], vec![line(120, 2, What::Started)]],
        own: vec![(at(140), NodeId(1), Incarnation(3), What::Crashed)],
        ..Sources::default()
    };
    let all = merged(sources);
    let places: Vec<_> = all.iter().map(|entry| (entry.event.0, entry.at.as_nanos(), entry.node.0)).collect();
    assert_eq!(places, [(1, 10, 1), (2, 20, 2), (3, 30, 1), (4, 40, 1)]);
}

#[test]
fn a_revision_that_was_heard_late_happened_before_the_answer_that_carries_a_later_one() {
    let worker = Change::Deleted(Key::Worker(lease(9)));
    let sources = Sources {
        lives: vec![vec![line(50, 1, got(6))]],
        directory: vec![heard(40, 4, vec![]), heard(90, 5, vec![worker]), heard(91, 7, vec![])],
        ..Sources::default()
    };
    let expected = [(40, "changed"), (50, "changed"), (50, "ended"), (50, "completed"), (91, "changed")];
    assert_eq!(told(sources), expected);
}

#[test]
fn no_answer_moves_a_revision_further_than_the_watch_may_have_been_late() {
    let heard = |n, earliest, revision| Heard { earliest: at(earliest), ..heard(n, revision, vec![]) };
    let sources = Sources {
        lives: vec![vec![line(50, 1, got(5))]],
        directory: vec![heard(90, 51, 5), heard(91, 52, 6)],
        ..Sources::default()
    };
    assert_eq!(told(sources), [(50, "completed"), (90, "changed"), (91, "changed")]);
}

#[test]
fn a_process_dies_behind_its_last_line() {
    let sources = Sources {
        lives: vec![vec![line(10, 1, What::Started), line(25, 1, got(1))], vec![line(15, 2, What::Started)]],
        own: vec![(at(20), NodeId(1), Incarnation(3), What::Crashed)],
        ..Sources::default()
    };
    assert_eq!(told(sources), [(10, "started"), (15, "started"), (25, "completed"), (25, "crashed")]);
}

#[test]
fn an_answer_long_before_its_commit_stays_before_it() {
    let [asked, answered] = claims(10, 1, 2, true);
    let late = 15 + CLOCK_ERROR_MAX.as_nanos();
    let lives = || vec![vec![asked.clone(), answered.clone()]];
    let journal = |n| vec![(at(n), fence(2, 7))];
    let sources = Sources { lives: lives(), journal: journal(late), ..Sources::default() };
    assert_eq!(told(sources), [(10, "invoked"), (15, "fenced"), (15, "completed")]);
    let sources = Sources { lives: lives(), journal: journal(late + 1), ..Sources::default() };
    assert_eq!(told(sources), [(10, "invoked"), (15, "completed"), (late + 1, "fenced")]);
}

#[test]
fn a_lost_leader_is_an_ended_lease() {
    let leads = Value::Leader(directory::Leader { node: NodeId(3), lease: lease(5) });
    let record = Record { key: Key::Leader, value: leads, mod_revision: Revision(2), lease: Some(lease(5)) };
    let sources = Sources {
        directory: vec![heard(1, 2, vec![Change::Put(record)]), heard(2, 3, vec![Change::Deleted(Key::Leader)])],
        ..Sources::default()
    };
    let all = merged(sources);
    assert_eq!(all[2].what, What::Accepted(Acceptance::LeaseEnded { lease: lease(5) }));
    let owned = Value::Owner(directory::Ownership { lease: lease(5), epoch: Epoch(1), nonce: Nonce(1) });
    let kept = Record { key: Key::Owner(boss()), value: owned, mod_revision: Revision(4), lease: None };
    let sources = Sources { directory: vec![heard(3, 4, vec![Change::Put(kept)])], ..Sources::default() };
    assert_eq!(merged(sources).len(), 1);
}

#[test]
fn a_commit_stands_before_the_answer_that_told_of_it() {
    let [asked, answered] = claims(10, 1, 2, true);
    // By its clock the server committed later than it answered.
    let sources =
        Sources { lives: vec![vec![asked, answered]], journal: vec![(at(17), fence(2, 7))], ..Sources::default() };
    assert_eq!(told(sources), [(10, "invoked"), (15, "fenced"), (15, "completed")]);
}

#[test]
fn commits_about_one_entity_keep_their_order_and_an_answer_dates_its_own() {
    // The first claim's answer was lost; the second one of the same epoch was told.
    let first = claims(10, 1, 2, false);
    let second = claims(20, 2, 2, true);
    let third = claims(30, 3, 3, true);
    let lives = vec![[first, second, third].concat()];
    let journal = vec![(at(13), fence(2, 7)), (at(37), fence(2, 7)), (at(38), fence(3, 7))];
    let all = merged(Sources { lives, journal, ..Sources::default() });
    let fences: Vec<_> = all
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Accepted(Acceptance::FenceRaised { authority, .. }) => Some((entry.at.as_nanos(), authority.epoch.0)),
            _ => None,
        })
        .collect();
    assert_eq!(fences, [(13, 2), (35, 2), (35, 3)]);
}

fn fact(sequence: u64) -> FactRow {
    let body = ledger::FactBody::Hit { dealt: 1, remaining: 9, experience: 1, bounty: 0 };
    let character = CharacterId::new(1).expect("small");
    FactRow { aggregate: boss(), sequence: FactSequence(sequence), character, number: OpNumber(sequence), body }
}

/// A blow at the boss, as the journal tells it.
fn struck(sequence: u64) -> Acceptance {
    let fact = fact(sequence);
    let result = ledger::OpResult::Hit { target: boss(), dealt: 1, remaining: 9, experience: 1, bounty: 0 };
    let operation = ledger::Operation {
        character: fact.character,
        generation: Generation(1),
        number: fact.number,
        digest: worldline_proto::Digest([0; 16]),
        authority: vec![Authority { entity: boss(), epoch: Epoch(1), lease: lease(7) }],
        effect: ledger::Effect::Refuse(ledger::RuleRefusal::Cooldown),
    };
    let (operation, verdict) = (Box::new(operation), Verdict::Applied(result));
    Acceptance::OperationApplied { operation, verdict, rows: vec![], fact: Some(Box::new(fact)) }
}

/// What of facts comes in which order.
fn told_of_facts(sources: Sources) -> Vec<(u64, &'static str)> {
    let word = |what: &What| match what {
        What::Accepted(Acceptance::OperationApplied { .. }) => "committed",
        What::Accepted(Acceptance::Published { .. }) => "published",
        What::Invoked(..) => "publishes",
        What::Noted(Note::FactApplied { .. }) => "applied",
        _ => "other",
    };
    merged(sources).iter().map(|entry| (entry.at.as_nanos(), word(&entry.what))).collect()
}

#[test]
fn a_fact_was_committed_before_anybody_told_of_it() {
    let took = |n, node, sequence| {
        line(n, node, What::Noted(Note::FactApplied { aggregate: boss(), sequence: FactSequence(sequence) }))
    };
    // By the server's clock both were committed later than a reader took in the second.
    let sources = Sources {
        lives: vec![vec![took(30, 2, 2)]],
        journal: vec![(at(33), struck(1)), (at(35), struck(2))],
        ..Sources::default()
    };
    assert_eq!(told_of_facts(sources), [(30, "committed"), (30, "committed"), (30, "applied")]);
    let late = 31 + CLOCK_ERROR_MAX.as_nanos();
    let sources =
        Sources { lives: vec![vec![took(30, 2, 1)]], journal: vec![(at(late), struck(1))], ..Sources::default() };
    assert_eq!(told_of_facts(sources), [(30, "applied"), (late, "committed")], "that is more than clocks differ");
}

#[test]
fn a_message_was_stored_after_somebody_had_published_it() {
    let message = MessageId { entity: boss(), number: 1 };
    let (subject, payload) = (bus::Subject::Fact(boss()), worldline_system::facts::encode(&fact(1)));
    let publish = bus::Submission::Publish { subject, message, after: None, payload: payload.clone() };
    let stored = Acceptance::Published { sequence: bus::StreamSequence(1), subject, message, payload };
    let sources = Sources {
        lives: vec![vec![line(30, 1, What::Invoked(op(1), Invocation::Bus(publish)))]],
        journal: vec![(at(32), struck(1))],
        // By the stream's clock it came before.
        stream: vec![(at(20), stored)],
        ..Sources::default()
    };
    assert_eq!(told_of_facts(sources), [(30, "committed"), (30, "publishes"), (30, "published")]);
}
