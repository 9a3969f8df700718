//! Handmade histories, for the tests of the checkers.

use super::{Checker, Facts, Setup, View};
use std::sync::Arc;
use worldline_proto::{
    CharacterId, Digest, EntityId, EntityKind, Epoch, Generation, Incarnation, LeaseId, NodeId, OpId, OpNumber, Version,
};
use worldline_system::{
    doors::{
        directory,
        ledger::{self, Authority, Batch, Effect, OpResult, Operation, RuleRefusal, Verdict},
    },
    history::{Acceptance, Completion, Entry, EventId, Invocation, Note, Row, What},
    knobs::Retry,
    rules::{attack::Blow, space::Position},
    time::{Duration, Instant},
};

pub const LEDGER: u32 = 50;

pub fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).expect("small")
}

pub fn hero() -> CharacterId {
    CharacterId::new(1).expect("small")
}

pub fn lease(n: u64) -> LeaseId {
    LeaseId::from_bits(n)
}

pub fn authority(entity: impl Into<EntityId>, epoch: u64, by: u64) -> Authority {
    Authority { entity: entity.into(), epoch: Epoch(epoch), lease: lease(by) }
}

pub fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

pub fn digest(n: u8) -> Digest {
    Digest([n; 16])
}

pub fn east(x_mm: i64) -> Position {
    Position { x_mm, y_mm: 0 }
}

pub fn op(counter: u64) -> OpId {
    OpId { incarnation: Incarnation(1), counter }
}

/// The genesis of a world with one boss (1,000 hit points, 100 minor units) and one character (100, nothing).
pub fn setup() -> Setup {
    Setup {
        rows: vec![row(hero(), 100, 0, 0), row(boss(), 1_000, 0, 100)],
        directory: [60, 61, 62].map(NodeId).to_vec(),
        orphan_budget: Setup::ORPHAN_BUDGET,
        retry: Retry::default(),
        checkpoint_every: Duration::from_secs(5),
        speeders: [hero()].into(),
        tokens_end: [(hero(), at(1_000))].into(),
        a_clock_is_right: true,
    }
}

/// A row that no fence guards.
pub fn row(entity: impl Into<EntityId>, hit_points: u32, experience: i64, balance: i64) -> Row {
    Row { entity: entity.into(), fence: None, hit_points, experience, balance }
}

/// The row under its fence.
pub fn fenced(authority: Authority, hit_points: u32, experience: i64, balance: i64) -> Row {
    let fence = Some((authority.epoch, authority.lease));
    Row { entity: authority.entity, fence, hit_points, experience, balance }
}

/// An attack by the hero on the boss: both at epoch 1, by leases 1 and 2.
pub fn attack(number: u64, generation: u64, payload: u8) -> Operation {
    Operation {
        character: hero(),
        generation: Generation(generation),
        number: OpNumber(number),
        digest: digest(payload),
        authority: vec![authority(hero(), 1, 1), authority(boss(), 1, 2)],
        effect: Effect::Attack { target: boss(), blow: Blow { damage: 100, experience: 50, bounty: 3 } },
    }
}

pub fn hit(dealt: u32, remaining: u32) -> OpResult {
    OpResult::Hit { target: boss(), dealt, remaining, experience: 50, bounty: 3 }
}

/// A blow that changes both rows as it should: the `n`-th, counted from 1.
pub fn applied(n: u32, operation: Operation) -> What {
    let rows = vec![
        fenced(operation.authority[0], 100, 50 * i64::from(n), 3 * i64::from(n)),
        fenced(operation.authority[1], 1_000 - 100 * n, 0, 100 - 3 * i64::from(n)),
    ];
    applied_with(operation, hit(100, 1_000 - 100 * n), rows)
}

pub fn applied_with(operation: Operation, result: OpResult, rows: Vec<Row>) -> What {
    What::Accepted(Acceptance::OperationApplied {
        operation: Box::new(operation),
        verdict: Verdict::Applied(result),
        rows,
        fact: None,
    })
}

/// The rules refuse the hero's operation: only the character's row is touched.
pub fn refused(number: u64, payload: u8) -> What {
    let mut operation = attack(number, 1, payload);
    operation.authority.truncate(1);
    operation.effect = Effect::Refuse(RuleRefusal::Cooldown);
    let rows = vec![fenced(operation.authority[0], 100, 0, 0)];
    applied_with(operation, OpResult::Refused(RuleRefusal::Cooldown), rows)
}

pub fn passed(number: u64, payload: u8, verdict: Verdict) -> What {
    let (number, digest) = (OpNumber(number), digest(payload));
    What::Accepted(Acceptance::OperationPassed { character: hero(), number, digest, verdict })
}

pub fn raised(authority: Authority, before: Option<Authority>) -> What {
    let before = before.map(|before| (before.epoch, before.lease));
    What::Accepted(Acceptance::FenceRaised { authority, before })
}

pub fn logged_in(generation: u64) -> What {
    What::Accepted(Acceptance::LoggedIn { character: hero(), generation: Generation(generation), issued_unix_ms: 0 })
}

pub fn checkpointed(authority: Authority, version: u64) -> What {
    What::Accepted(Acceptance::Checkpointed { authority, version: Version(version) })
}

pub fn serving(authority: Authority, position: Position) -> What {
    What::Noted(Note::Serving { authority, position, applied_through: OpNumber(0) })
}

pub fn moved(authority: Authority, generation: u64, sequence: u32, from: Position, to: Position) -> What {
    What::Noted(Note::Moved { authority, generation: Generation(generation), sequence, from, to })
}

pub fn emitted(authority: Authority, version: u64) -> What {
    What::Noted(Note::Emitted { authority, version: Version(version) })
}

pub fn answered(number: u64, payload: u8, result: OpResult) -> What {
    What::Noted(Note::AnswerSent {
        authority: authority(hero(), 1, 1),
        generation: Generation(1),
        number: OpNumber(number),
        digest: digest(payload),
        result,
    })
}

pub fn performed(number: u64, payload: u8) -> What {
    What::Noted(Note::Performed { character: hero(), number: OpNumber(number), digest: digest(payload) })
}

pub fn acknowledged(number: u64, payload: u8, result: Option<OpResult>) -> What {
    let (number, digest) = (OpNumber(number), Some(digest(payload)));
    What::Noted(Note::Acknowledged { character: hero(), number, digest, result })
}

pub fn identity(by: u64) -> What {
    let (ttl, margin) = (Duration::from_secs(10), Duration::from_secs(2));
    What::Noted(Note::Identity { lease: lease(by), ttl, margin })
}

pub fn asks(counter: u64, submission: directory::Submission) -> What {
    What::Invoked(op(counter), Invocation::Directory(submission))
}

pub fn hears(counter: u64, answer: directory::Answer) -> What {
    What::Completed(op(counter), Box::new(Completion::Directory(answer)))
}

/// A worker commits a batch of one operation.
pub fn commits(counter: u64, operation: Operation) -> What {
    let batch = Batch { operations: vec![operation], checkpoints: Vec::new(), published: Vec::new() };
    What::Invoked(op(counter), Invocation::Ledger(ledger::Submission::Commit(Arc::new(batch))))
}

/// A history: what happened, at which millisecond, where.
pub fn tell(lines: impl IntoIterator<Item = (u64, u32, What)>) -> Vec<Entry> {
    let lines = lines.into_iter().enumerate();
    let entries = lines.map(|(place, (ms, node, what))| Entry {
        at: at(ms),
        local: at(ms),
        node: NodeId(node),
        incarnation: Incarnation(1),
        event: EventId(place as u64 + 1),
        what,
    });
    entries.collect()
}

/// The place of the first entry at which the checker finds a breach.
pub fn breaks_at<C: Checker>(entries: &[Entry]) -> Option<usize> {
    breaks_among::<C>(entries, &Facts::default())
}

pub fn breaks_among<C: Checker>(entries: &[Entry], facts: &Facts<'_>) -> Option<usize> {
    let mut checker = C::new(&setup());
    let broken = entries.iter().position(|entry| checker.on_entry(entry, facts).is_err());
    if broken.is_none() {
        assert_eq!(checker.not_checked(), None, "a history that is told is checked");
    }
    broken
}

/// An empty sample.
pub fn view(ms: u64) -> View<'static> {
    View {
        at: at(ms),
        event: EventId(0),
        queues: &[],
        workers: &[],
        services: None,
        ledger: None,
        leaks: None,
        disturbed: false,
        settled: false,
    }
}
