//! A worker by hand: what it submits, in which order, and what it must not say.

mod bench;
#[path = "worker/checkpoints.rs"]
mod checkpoints_cached;
#[path = "worker/facts.rs"]
mod facts_told;
#[path = "worker/watch.rs"]
mod watched;

use bench::Bench;
use std::{collections::BTreeMap, sync::Arc};
use worldline_proto::{
    CallId, CharacterId, ConnectionId, EntityId, EntityKind, Epoch, Generation, LeaseId, NodeId, Nonce, OpId, OpNumber,
    Revision,
    server::{
        ApplyEffectReply, ApplyEffectRequest, ApplyEffectStatus, AttachReply, AttachRequest, AttachStatus, Moved,
        PeerMessage, PerformRequest, PerformStatus, ReleasedReason, Reply, Request, peer_message::Message,
    },
};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        cache::Answer as Said,
        directory::{
            Answer as Told, Consistency, Key, Ownership, Page, Record, RegionId, Submission as ToDirectory, Transacted,
            Value, Worker as Registered, Write,
        },
        ledger::{Answer, Batch, Committed, Durable, Effect, OpResult, RuleRefusal, Submission as ToLedger, Verdict},
        network::{Event as FromNetwork, Payload, Submission as ToNetwork},
    },
    history::Note,
    knobs::Knobs,
    lease::LeaseTimes,
    limits,
    rules::{
        attack::COOLDOWN,
        space::{Boss, Map},
    },
    wire,
    worker::{Config, Phase, Worker},
};

const GATEWAY: NodeId = NodeId(7);
const LINK: ConnectionId = ConnectionId(1);
/// The worker's timers, by kind.
const LEASE: u8 = 0;
const TICK: u8 = 3;
const SCAN: u8 = 4;

fn boss() -> EntityId {
    EntityId::new(EntityKind::Boss, 1).expect("in range")
}

fn character() -> CharacterId {
    CharacterId::new(1).expect("in range")
}

fn worker() -> Bench<Worker> {
    let region = RegionId(0);
    let middle = Map::new(1, BTreeMap::new()).middle(region);
    let bosses = BTreeMap::from([(boss(), Boss { position: middle, region })]);
    let config =
        Config { region, map: Arc::new(Map::new(1, bosses)), lease: LeaseTimes::default(), knobs: Knobs::default() };
    Bench::new(Worker::new(config))
}

impl Bench<Worker> {
    fn lease(&self) -> LeaseId {
        self.role.lease().expect("it has an identity")
    }

    /// Through grant, registration and a first scan that finds these.
    fn join(&mut self, mine: &[EntityId]) {
        self.give(worldline_system::doors::Event::Started);
        let (grant, _) = self.asked_directory().remove(0);
        self.directory(grant, Told::Granted(Outcome::Done(())));
        let (register, _) = self.asked_directory().remove(0);
        let done = Transacted { succeeded: true, revision: Revision(10), otherwise: Vec::new() };
        self.directory(register, Told::Transacted(Outcome::Done(done)));
        let scan = self.asked_directory().into_iter().find(|(_, s)| matches!(s, ToDirectory::Read { .. }));
        let (scan, _) = scan.expect("it scans");
        let record = |&entity: &EntityId| Record {
            key: Key::Owner(entity),
            value: Value::Owner(Ownership { lease: self.lease(), epoch: Epoch(4), nonce: Nonce(99) }),
            mod_revision: Revision(9),
            lease: None,
        };
        let page = Page { records: mine.iter().map(record).collect(), revision: Revision(11), more: false };
        self.directory(scan, Told::Read(Outcome::Done(page)));
    }

    /// Through compare-and-set and fence to service.
    fn serve(&mut self, mine: &[EntityId]) {
        self.join(mine);
        let raise = self.asked_directory().into_iter().find(|(_, s)| matches!(s, ToDirectory::Transact(_)));
        let done = Transacted { succeeded: true, revision: Revision(12), otherwise: Vec::new() };
        self.directory(raise.expect("it claims").0, Told::Transacted(Outcome::Done(done)));
        let (claim, _) = self.asked_ledger().remove(0);
        let durable = mine.iter().map(|&entity| Ok(Box::new(durable(entity)))).collect();
        self.claimed(claim, durable);
        self.network(FromNetwork::Accepted { connection: LINK, from: GATEWAY });
    }

    /// The cache has nothing, and the ledger answers a claim that has just been submitted.
    fn claimed(&mut self, claim: OpId, claims: Vec<Result<Box<Durable>, Refusal>>) {
        for (op, _) in self.asked_cache() {
            self.cache(op, Said::Read(Outcome::Done(None)));
        }
        self.ledger(claim, Answer::Claimed(Outcome::Done(claims)));
    }

    fn call(&mut self, call: u64, request: Request) {
        self.network(FromNetwork::Called { call: CallId(call), from: GATEWAY, request: Box::new(request) });
    }

    fn perform(&mut self, call: u64, number: u64, target: EntityId) {
        self.perform_in_session(1, call, number, target);
    }

    fn perform_in_session(&mut self, generation: u64, call: u64, number: u64, target: EntityId) {
        let character = character().entity().get();
        let action = wire::encode_attack(target);
        self.call(call, Request::Perform(PerformRequest { character, generation, number, action, span: 0 }));
    }

    /// The ledger executes the batch in flight with this verdict on each of its operations.
    fn commit(&mut self, op: OpId, batch: &Batch, verdict: Verdict) {
        let checkpoints = batch.checkpoints.iter().map(|_| Ok(())).collect();
        let committed = Committed { verdicts: vec![verdict; batch.operations.len()], checkpoints, facts: vec![] };
        self.ledger(op, Answer::Committed(Outcome::Done(committed)));
    }

    /// Its lease has run out by its own clock, and is renewed late: it reads its records and finds these.
    fn renew_late(&mut self, records: Vec<Record>) {
        self.now = self.now + LeaseTimes::default().ttl;
        self.timer(LEASE);
        let (renewal, _) = self.asked_directory().remove(0);
        self.directory(renewal, Told::KeptAlive(Outcome::Done(LeaseTimes::default().ttl)));
        let (scan, _) = self.asked_directory().remove(0);
        self.directory(scan, Told::Read(Outcome::Done(Page { records, revision: Revision(20), more: false })));
    }

    fn record(&self, entity: EntityId, revision: u64, nonce: u64) -> Record {
        let value = Value::Owner(Ownership { lease: self.lease(), epoch: Epoch(5), nonce: Nonce(nonce) });
        Record { key: Key::Owner(entity), value, mod_revision: Revision(revision), lease: None }
    }

    fn move_to(&mut self, generation: u64, sequence: u32) {
        let character = character().entity().get();
        let message = Some(Message::Moved(Moved { character, generation, sequence, ..Default::default() }));
        self.network(FromNetwork::Datagram { connection: LINK, payload: PeerMessage { message }.into() });
    }

    fn told_gateway(&self) -> Vec<Message> {
        let message = |s: ToNetwork| match s {
            ToNetwork::Send { connection: LINK, payload: Payload::Peer(message), .. } => message.message.clone(),
            _ => None,
        };
        self.asked_network().into_iter().filter_map(message).collect()
    }

    /// Ticks until a batch leaves.
    fn tick_to_commit(&mut self) -> (OpId, Arc<Batch>) {
        for _ in 0..3 {
            self.now = self.now + limits::TICK;
            self.timer(TICK);
            if let Some((op, ToLedger::Commit(batch))) = self.asked_ledger().into_iter().next() {
                return (op, batch);
            }
        }
        panic!("no batch leaves");
    }
}

fn durable(entity: EntityId) -> Durable {
    Durable {
        entity,
        generation: Generation(1),
        applied_through: OpNumber(0),
        hit_points: 1_000,
        experience: 0,
        balance: 0,
        checkpoint: None,
        results: Vec::new(),
    }
}

fn hit() -> OpResult {
    OpResult::Hit { target: boss(), dealt: 90, remaining: 910, experience: 45, bounty: 3 }
}

fn status(reply: &Outcome<Reply>) -> PerformStatus {
    match reply {
        Outcome::Done(Reply::Perform(reply)) => PerformStatus::try_from(reply.status).expect("a status"),
        other => panic!("no answer to an operation: {other:?}"),
    }
}

#[test]
fn a_claim_raises_the_record_then_the_fence_and_only_then_serves() {
    let mut bench = worker();
    bench.join(&[boss()]);
    let raise = bench.asked_directory().into_iter().find_map(|(op, s)| match s {
        ToDirectory::Transact(transaction) => Some((op, transaction)),
        _ => None,
    });
    let (raise, transaction) = raise.expect("it claims what names it");
    let Some(Write::Put { value: Value::Owner(owner), .. }) = transaction.writes.first() else { panic!("a record") };
    assert_eq!((owner.epoch, owner.lease), (Epoch(5), bench.lease()), "one above the record's epoch");
    assert!(bench.asked_ledger().is_empty(), "the fence waits for the record");
    let done = Transacted { succeeded: true, revision: Revision(12), otherwise: Vec::new() };
    bench.directory(raise, Told::Transacted(Outcome::Done(done)));
    let (claim, submission) = bench.asked_ledger().remove(0);
    assert_eq!(submission, ToLedger::Claim { lease: bench.lease(), entities: vec![(boss(), Epoch(5))] });
    assert_eq!(bench.role.served().count(), 0, "not before the fence stands");
    bench.claimed(claim, vec![Ok(Box::new(durable(boss())))]);
    assert!(matches!(bench.notes()[..], [Note::Serving { authority, .. }] if authority.epoch == Epoch(5)));
}

#[test]
fn a_fence_that_stands_higher_is_outbid_in_the_record_first() {
    let mut bench = worker();
    bench.join(&[boss()]);
    let raise = bench.asked_directory().into_iter().find(|(_, s)| matches!(s, ToDirectory::Transact(_)));
    let done = Transacted { succeeded: true, revision: Revision(12), otherwise: Vec::new() };
    bench.directory(raise.expect("it claims").0, Told::Transacted(Outcome::Done(done)));
    let (claim, _) = bench.asked_ledger().remove(0);
    bench.claimed(claim, vec![Err(Refusal::Fenced { highest: Epoch(41) })]);
    let ToDirectory::Transact(again) = bench.asked_directory().remove(0).1 else { panic!("the record again") };
    let Some(Write::Put { value: Value::Owner(owner), .. }) = again.writes.first() else { panic!("a record") };
    assert_eq!(owner.epoch, Epoch(42));
    assert_eq!(bench.role.served().count(), 0);
}

#[test]
fn an_answer_leaves_after_its_commit_and_a_resend_gets_the_stored_one() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 1, boss());
    assert!(bench.replies().is_empty(), "nothing is answered yet");
    let (op, batch) = bench.tick_to_commit();
    assert!(bench.replies().is_empty(), "nor when the batch leaves");
    assert_eq!(batch.operations.len(), 1);
    assert_eq!(batch.operations[0].authority.len(), 2, "over the character and over the boss");
    let checkpoints = batch.checkpoints.iter().map(|_| Ok(())).collect();
    let committed = Committed { verdicts: vec![Verdict::Applied(hit())], checkpoints, facts: vec![] };
    bench.ledger(op, Answer::Committed(Outcome::Done(committed)));
    assert_eq!(
        bench.replies().iter().map(|(call, r)| (call.0, status(r))).collect::<Vec<_>>(),
        [(1, PerformStatus::Stored)]
    );
    bench.perform(2, 1, boss());
    assert_eq!(status(&bench.replies()[0].1), PerformStatus::Stored, "the same again");
    bench.perform(3, 1, EntityId::new(EntityKind::Boss, 2).expect("in range"));
    assert_eq!(status(&bench.replies()[0].1), PerformStatus::Conflict, "the same number for another payload");
    bench.perform(4, 2 + limits::CLIENT_WINDOW as u64, boss());
    assert_eq!(status(&bench.replies()[0].1), PerformStatus::Gap, "too far behind what is missing");
}

#[test]
fn an_operation_that_overtook_the_one_before_it_waits_for_it() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 2, boss());
    bench.perform(2, 1, boss());
    assert!(bench.replies().is_empty(), "neither is refused");
    let (op, batch) = bench.tick_to_commit();
    assert_eq!(batch.operations[0].number, OpNumber(1));
    let checkpoints = batch.checkpoints.iter().map(|_| Ok(())).collect();
    let committed = Committed { verdicts: vec![Verdict::Applied(hit())], checkpoints, facts: vec![] };
    bench.ledger(op, Answer::Committed(Outcome::Done(committed)));
    let (_, batch) = bench.tick_to_commit();
    assert_eq!(batch.operations[0].number, OpNumber(2));
}

#[test]
fn an_unknown_commit_is_submitted_again_as_it_was() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 1, boss());
    let (op, batch) = bench.tick_to_commit();
    bench.ledger(op, Answer::Committed(Outcome::Unknown));
    assert!(bench.replies().is_empty() && bench.asked_ledger().is_empty(), "it waits before it tries again");
    bench.pass(limits::RETRY_MIN);
    let again = bench.asked_ledger();
    assert!(matches!(&again[..], [(second, ToLedger::Commit(same))] if *second != op && *same == batch));
}

#[test]
fn past_its_lease_a_worker_is_silent_and_a_late_renewal_brings_it_back_at_the_same_epoch() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    let times = LeaseTimes::default();
    bench.now = bench.now + times.ttl;
    bench.perform(1, 1, boss());
    assert_eq!(bench.role.phase(), Phase::Suspended, "the first event after it tells, whichever it is");
    assert_eq!(bench.replies(), [(CallId(1), Outcome::Refused(Refusal::NotServing))]);
    assert!(bench.asked_ledger().is_empty());
    let attach = AttachRequest { character: character().entity().get(), generation: 2, ..Default::default() };
    bench.call(2, Request::Attach(attach));
    assert_eq!(bench.replies(), [(CallId(2), Outcome::Refused(Refusal::NotServing))]);

    bench.timer(LEASE);
    let (renewal, submission) = bench.asked_directory().remove(0);
    assert_eq!(submission, ToDirectory::KeepAlive(bench.lease()));
    bench.directory(renewal, Told::KeptAlive(Outcome::Done(times.ttl)));
    assert!(matches!(bench.role.phase(), Phase::Resuming(_)), "renewed is not yet resumed");
    let (scan, read) = bench.asked_directory().remove(0);
    assert!(matches!(read, ToDirectory::Read { consistency: Consistency::Linearizable, .. }));
    let record = |entity, nonce| Record {
        key: Key::Owner(entity),
        value: Value::Owner(Ownership { lease: bench.lease(), epoch: Epoch(5), nonce }),
        mod_revision: Revision(12),
        lease: None,
    };
    // The character's record is as it was; the boss's is gone to somebody else.
    let page = Page { records: vec![record(character().entity(), Nonce(0))], revision: Revision(20), more: false };
    bench.directory(scan, Told::Read(Outcome::Done(page)));
    let dropped = |note: &Note| matches!(note, Note::Dropped { authority } if authority.entity == boss());
    assert!(bench.notes().iter().any(dropped), "what was taken over is dropped");
    let claims = bench.asked_ledger();
    let [(claim, ToLedger::Claim { entities, .. })] = &claims[..] else { panic!("it passes the fence: {claims:?}") };
    assert_eq!(entities[..], [(character().entity(), Epoch(5))], "at the same epoch");
    let held = vec![Ok(Box::new(durable(character().entity())))];
    bench.ledger(*claim, Answer::Claimed(Outcome::Done(held)));
    assert_eq!(bench.role.phase(), Phase::Active);
}

#[test]
fn a_dead_lease_takes_everything_with_it_and_the_next_identity_is_new() {
    let mut bench = worker();
    bench.serve(&[boss()]);
    let dead = bench.lease();
    bench.timer(LEASE);
    let (renewal, _) = bench.asked_directory().remove(0);
    bench.directory(renewal, Told::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound)));
    assert!(bench.notes().contains(&Note::Fenced { lease: dead }));
    assert_eq!(bench.role.served().count(), 0);
    assert_ne!(bench.lease(), dead);
    assert!(
        matches!(bench.asked_directory().last(), Some((_, ToDirectory::Grant { lease, .. })) if *lease == bench.lease())
    );
}

#[test]
fn a_refusal_by_the_fence_is_no_answer_and_ends_the_holding() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 1, boss());
    let (op, batch) = bench.tick_to_commit();
    let fenced = Verdict::Fenced { entity: character().entity(), highest: Epoch(9) };
    let checkpoints = batch.checkpoints.iter().map(|_| Ok(())).collect();
    bench
        .ledger(op, Answer::Committed(Outcome::Done(Committed { verdicts: vec![fenced], checkpoints, facts: vec![] })));
    assert!(bench.replies().is_empty(), "the old owner stays silent");
    assert!(bench.role.served().all(|served| served.authority().entity == boss()));
}

#[test]
fn a_resend_of_a_newer_session_is_not_answered_for_the_older_one() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 1, boss());
    let (op, batch) = bench.tick_to_commit();
    bench.perform_in_session(2, 2, 1, boss());
    let replies = bench.replies();
    assert!(
        matches!(&replies[..], [(CallId(1), reply)] if status(reply) == PerformStatus::Superseded),
        "a session that has ended hears that, and not that its operation is refused: {replies:?}"
    );
    bench.commit(op, &batch, Verdict::StaleSession { current: Generation(2) });
    assert!(bench.replies().is_empty(), "the session that asks is the highest: it must not hear that it is not");
    let (op, again) = bench.tick_to_commit();
    assert_eq!(again.operations[0].generation, Generation(2));
    assert_eq!(again.operations[0].effect, batch.operations[0].effect, "decided once");
    bench.commit(op, &again, Verdict::Applied(hit()));
    assert!(matches!(&bench.replies()[..], [(CallId(2), reply)] if status(reply) == PerformStatus::Stored));
}

#[test]
fn nobody_who_asked_for_what_is_under_way_hears_that_it_was_refused() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    let mut told: BTreeMap<CallId, Vec<Outcome<Reply>>> = BTreeMap::new();
    let mut hear = |bench: &Bench<Worker>| {
        for (call, outcome) in bench.replies() {
            told.entry(call).or_default().push(outcome);
        }
    };
    // The first is executed, the second waits behind it, and both are asked for again and again.
    for call in 0..20 {
        bench.perform(call, 1 + call % 2, boss());
        hear(&bench);
    }
    for _ in 0..2 {
        let (op, batch) = bench.tick_to_commit();
        bench.commit(op, &batch, Verdict::Applied(hit()));
        hear(&bench);
    }
    assert_eq!(told.len(), 20, "everybody is answered");
    for (call, outcomes) in &told {
        let [outcome] = &outcomes[..] else { panic!("{call:?} is answered once: {outcomes:?}") };
        let stored = matches!(outcome, Outcome::Done(_)) && status(outcome) == PerformStatus::Stored;
        assert!(stored || *outcome == Outcome::Unknown, "{call:?}: {outcome:?}");
        assert!(stored || call.0 < 16, "the latest calls hear what came of it: {call:?}");
    }
}

#[test]
fn a_resent_effect_that_still_waits_leaves_the_call_before_it_without_a_refusal() {
    let mut bench = worker();
    bench.serve(&[boss()]);
    let effect = ApplyEffectRequest {
        character: character().entity().get(),
        generation: 1,
        number: 1,
        digest: vec![0; 16],
        epoch: 4,
        lease: 77,
        target: boss().get(),
        damage: 80,
        experience: 40,
        bounty: 3,
        span: 0,
    };
    bench.call(1, Request::ApplyEffect(effect.clone()));
    bench.call(2, Request::ApplyEffect(effect));
    assert_eq!(bench.replies(), [(CallId(1), Outcome::Unknown)]);
    let (op, batch) = bench.tick_to_commit();
    assert_eq!(batch.operations.len(), 1);
    bench.commit(op, &batch, Verdict::Applied(hit()));
    assert!(matches!(&bench.replies()[..], [(CallId(2), Outcome::Done(_))]));
}

#[test]
fn a_worker_that_is_stopped_gives_its_lease_back_in_every_phase() {
    let revokes = |bench: &Bench<Worker>| {
        let revoke = ToDirectory::Revoke(bench.lease());
        bench.asked_directory().into_iter().any(|(_, submission)| submission == revoke)
    };
    let mut joining = worker();
    joining.give(worldline_system::doors::Event::Started);
    let mut suspended = worker();
    suspended.serve(&[boss()]);
    suspended.now = suspended.now + LeaseTimes::default().ttl;
    suspended.timer(TICK);
    assert_eq!(suspended.role.phase(), Phase::Suspended);
    let mut resuming = worker();
    resuming.serve(&[boss()]);
    resuming.renew_late(vec![resuming.record(boss(), 12, 0)]);
    assert!(matches!(resuming.role.phase(), Phase::Resuming(_)));
    for mut bench in [joining, suspended, resuming] {
        let phase = bench.role.phase();
        bench.give(worldline_system::doors::Event::Stop);
        assert!(revokes(&bench), "{phase:?}");
        assert!(bench.outbox.contains(&worldline_system::doors::Submission::Stopped), "{phase:?}");
    }
    // One whose lease runs out while it drains.
    let mut draining = worker();
    draining.serve(&[boss(), character().entity()]);
    draining.perform(1, 1, boss());
    draining.tick_to_commit();
    draining.give(worldline_system::doors::Event::Stop);
    assert!(draining.role.phase() == Phase::Draining && !revokes(&draining), "its batch is in flight");
    draining.now = draining.now + LeaseTimes::default().ttl;
    draining.timer(TICK);
    assert!(revokes(&draining));
}

#[test]
fn a_forwarded_effect_that_was_overtaken_does_not_take_the_place_of_what_the_owner_has_queued() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 1, boss());
    let late = ApplyEffectRequest {
        character: character().entity().get(),
        generation: 1,
        number: 1,
        digest: vec![0; 16],
        epoch: 4,
        lease: 77,
        target: boss().get(),
        damage: 80,
        experience: 40,
        bounty: 3,
        span: 0,
    };
    bench.call(2, Request::ApplyEffect(late));
    assert_eq!(
        bench.replies(),
        [(CallId(2), Outcome::Unknown)],
        "of an owner that was replaced: the same may yet happen"
    );
    let (op, batch) = bench.tick_to_commit();
    assert_eq!(batch.operations[0].authority[0].epoch, Epoch(5));
    bench.commit(op, &batch, Verdict::Applied(hit()));
    assert!(matches!(&bench.replies()[..], [(CallId(1), reply)] if status(reply) == PerformStatus::Stored));
}

#[test]
fn a_refusal_under_an_earlier_holding_does_not_end_the_later_one() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 1, boss());
    let (op, batch) = bench.tick_to_commit();
    // Meanwhile the boss's record is written anew, and the same worker claims it again.
    bench.timer(SCAN);
    let (scan, _) = bench.asked_directory().remove(0);
    let records = vec![bench.record(boss(), 30, 7), bench.record(character().entity(), 12, 0)];
    bench.directory(scan, Told::Read(Outcome::Done(Page { records, revision: Revision(31), more: false })));
    let raise = bench.asked_directory().into_iter().find(|(_, s)| matches!(s, ToDirectory::Transact(_)));
    let done = Transacted { succeeded: true, revision: Revision(32), otherwise: Vec::new() };
    bench.directory(raise.expect("it claims").0, Told::Transacted(Outcome::Done(done)));
    let (claim, _) = bench.asked_ledger().remove(0);
    bench.claimed(claim, vec![Ok(Box::new(durable(boss())))]);

    bench.commit(op, &batch, Verdict::Fenced { entity: boss(), highest: Epoch(6) });
    assert_eq!(bench.role.served().count(), 2, "both are held");
    let (_, again) = bench.tick_to_commit();
    let authority = again.operations[0].authority.iter().find(|authority| authority.entity == boss());
    assert_eq!(authority.map(|authority| authority.epoch), Some(Epoch(6)), "the blow lands under the new holding");
}

#[test]
fn a_resumption_waits_for_every_fence() {
    let mut bench = worker();
    let npcs: Vec<EntityId> = (1..=300).filter_map(|n| EntityId::new(EntityKind::Npc, n)).collect();
    bench.join(&npcs);
    let raises = bench.asked_directory().into_iter().filter(|(_, s)| matches!(s, ToDirectory::Transact(_)));
    for (raise, _) in raises.collect::<Vec<_>>() {
        let done = Transacted { succeeded: true, revision: Revision(12), otherwise: Vec::new() };
        bench.directory(raise, Told::Transacted(Outcome::Done(done)));
        let (claim, ToLedger::Claim { entities, .. }) = bench.asked_ledger().remove(0) else { panic!("it claims") };
        let held = entities.iter().map(|&(entity, _)| Ok(Box::new(durable(entity)))).collect();
        bench.claimed(claim, held);
    }
    bench.renew_late(npcs.iter().map(|&npc| bench.record(npc, 12, 0)).collect());
    let claims = bench.asked_ledger();
    let [(first, ToLedger::Claim { entities, .. }), (second, ToLedger::Claim { entities: others, .. })] = &claims[..]
    else {
        panic!("two claims: {claims:?}")
    };
    let held = |entities: &[(EntityId, Epoch)]| {
        let durables = entities.iter().map(|&(entity, _)| Ok(Box::new(durable(entity)))).collect();
        Answer::Claimed(Outcome::Done(durables))
    };
    bench.ledger(*first, Answer::Claimed(Outcome::Unknown));
    let armed = std::mem::take(&mut bench.outbox);
    bench.ledger(*second, held(others));
    assert!(matches!(bench.role.phase(), Phase::Resuming(_)), "the first has not passed");
    bench.outbox = armed;
    bench.pass(limits::RETRY_MIN);
    let again = bench.asked_ledger();
    assert!(matches!(&again[..], [(_, ToLedger::Claim { entities: same, .. })] if same == entities), "only those");
    bench.ledger(again[0].0, held(entities));
    assert_eq!(bench.role.phase(), Phase::Active);
}

#[test]
fn a_silent_worker_does_not_pass_on_what_a_targets_owner_tells_it() {
    let mut bench = worker();
    bench.serve(&[character().entity()]);
    bench.perform(1, 1, boss());
    let (owner, _) = bench.asked_directory().remove(0);
    let lease = LeaseId::from_bits(22);
    let value = Value::Owner(Ownership { lease, epoch: Epoch(3), nonce: Nonce(1) });
    let record = Record { key: Key::Owner(boss()), value, mod_revision: Revision(8), lease: None };
    bench.directory(owner, Told::Got(Outcome::Done((Some(record), Revision(13)))));
    let (lives, _) = bench.asked_directory().remove(0);
    let value = Value::Worker(Registered { node: NodeId(9), region: RegionId(0) });
    let record = Record { key: Key::Worker(lease), value, mod_revision: Revision(7), lease: Some(lease) };
    bench.directory(lives, Told::Got(Outcome::Done((Some(record), Revision(13)))));
    let ToNetwork::Call(call) = bench.asked_network().remove(0) else { panic!("it forwards the blow") };
    let (status_, result) = (ApplyEffectStatus::Applied.into(), Some(wire::result_to_wire(hit())));
    let applied = Reply::ApplyEffect(ApplyEffectReply { status: status_, result, ..Default::default() });

    bench.now = bench.now + LeaseTimes::default().ttl;
    bench.network(FromNetwork::Answered { op: call.op, outcome: Outcome::Done(applied).into() });
    assert_eq!(bench.role.phase(), Phase::Suspended);
    assert!(bench.replies().is_empty() && !bench.notes().iter().any(|note| matches!(note, Note::AnswerSent { .. })));

    bench.renew_late(vec![bench.record(character().entity(), 12, 0)]);
    let (claim, _) = bench.asked_ledger().remove(0);
    bench.ledger(claim, Answer::Claimed(Outcome::Done(vec![Ok(Box::new(durable(character().entity())))])));
    bench.perform(2, 1, boss());
    assert!(
        matches!(&bench.replies()[..], [(CallId(2), reply)] if status(reply) == PerformStatus::Stored),
        "asked again"
    );
}

#[test]
fn a_gateway_whose_session_is_not_attached_here_is_told_and_no_input_counts_twice() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.move_to(1, 1);
    let told = bench.told_gateway();
    let [Message::Released(released)] = &told[..] else { panic!("it is sent to look again: {told:?}") };
    assert_eq!(released.reason, i32::from(ReleasedReason::NotOwner));
    let attach = AttachRequest { character: character().entity().get(), generation: 1, inputs_through: 7 };
    bench.call(1, Request::Attach(attach));
    let attached = |reply: &AttachReply| reply.status == i32::from(AttachStatus::Attached);
    assert!(matches!(&bench.replies()[..], [(_, Outcome::Done(Reply::Attach(reply)))] if attached(reply)));
    let moved = |bench: &Bench<Worker>| bench.notes().iter().filter(|n| matches!(n, Note::Moved { .. })).count();
    bench.move_to(1, 7);
    assert_eq!(moved(&bench), 0, "the owner before may have taken it in");
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_a_weapon_at_rest() {
    let mut bench = worker();
    bench.serve(&[boss(), character().entity()]);
    bench.perform(1, 1, boss());
    let (op, batch) = bench.tick_to_commit();
    bench.commit(op, &batch, Verdict::Applied(hit()));
    bench.wall_behind = worldline_system::time::Duration::from_millis(900);
    bench.perform(2, 2, boss());
    let (op, batch) = bench.tick_to_commit();
    assert!(matches!(batch.operations[0].effect, Effect::Refuse(RuleRefusal::Cooldown)));
    bench.commit(op, &batch, Verdict::Applied(OpResult::Refused(RuleRefusal::Cooldown)));
    bench.now = bench.now + COOLDOWN;
    bench.perform(3, 3, boss());
    let (_, batch) = bench.tick_to_commit();
    assert!(matches!(batch.operations[0].effect, Effect::Attack { .. }), "it has rested for as long as a blow costs");
}
