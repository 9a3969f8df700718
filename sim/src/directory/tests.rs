//! What a caller of the directory sees when things go well, and when they do not.

use super::*;
use crate::{
    Fault as WorldFault,
    testing::{Ask, Bench, Caller},
};
use std::sync::Arc;
use worldline_proto::{EntityId, EntityKind, Epoch, Nonce};
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{
        Change, Compare, Consistency, GapCause, Key, Ownership, Page, Transacted, Transaction, Value, Write,
    },
    history::Acceptance,
};

fn lease(n: u64) -> LeaseId {
    LeaseId::from_bits(n)
}

fn key(n: u64) -> Key {
    Key::Owner(EntityId::new(EntityKind::Boss, n).unwrap())
}

fn value(n: u64) -> Value {
    Value::Owner(Ownership { lease: lease(1), epoch: Epoch(n), nonce: Nonce(n) })
}

pub(super) fn grant(n: u64, ttl_secs: u64) -> Ask {
    Submission::Grant { lease: lease(n), ttl: Duration::from_secs(ttl_secs) }.into()
}

pub(super) fn renew(n: u64) -> Ask {
    Submission::KeepAlive(lease(n)).into()
}

/// Puts value `n` under key `k`.
pub(super) fn put(k: u64, n: u64) -> Ask {
    transact(vec![], vec![Write::Put { key: key(k), value: value(n), lease: None }])
}

fn put_with_lease(k: u64, n: u64) -> Ask {
    transact(vec![], vec![Write::Put { key: key(k), value: value(n), lease: Some(lease(n)) }])
}

fn transact(compares: Vec<Compare>, writes: Vec<Write>) -> Ask {
    Submission::Transact(Arc::new(Transaction { compares, writes, otherwise: vec![key(1)] })).into()
}

pub(super) fn read(consistency: Consistency) -> Ask {
    Submission::Read { family: Family::Owners, after: None, limit: 100, at: None, consistency }.into()
}

pub(super) fn watch(from: u64) -> Ask {
    Submission::Watch { family: Family::Owners, from: Revision(from) }.into()
}

pub(super) fn bench(seed: u64, callers: Vec<Caller>) -> Bench {
    Bench::new(seed, callers, |world, members| world.set_directory(Config { members }))
}

/// The records that the `n`-th line of a caller's script has read: key number and value number.
fn found(bench: &Bench, caller: usize, n: usize) -> Vec<(u64, u64)> {
    match bench.caller(caller).directory(n) {
        Some((_, Answer::Read(Outcome::Done(Page { records, .. })))) => records.iter().map(numbers).collect(),
        other => panic!("{other:?}"),
    }
}

fn numbers(record: &Record) -> (u64, u64) {
    match (record.key, record.value) {
        (Key::Owner(entity), Value::Owner(ownership)) => (entity.number(), ownership.epoch.0),
        other => panic!("{other:?}"),
    }
}

pub(super) fn succeeded(bench: &Bench, caller: usize, n: usize) -> bool {
    matches!(
        bench.caller(caller).directory(n),
        Some((_, Answer::Transacted(Outcome::Done(Transacted { succeeded: true, .. }))))
    )
}

#[test]
fn what_is_written_is_read_watched_and_told() {
    let writer = Caller::new(vec![(500, grant(1, 10)), (600, put(1, 7)), (700, put(2, 8)), (800, renew(1))]);
    let reader = Caller::new(vec![(500, watch(2)), (900, read(Consistency::Linearizable))]);
    let mut bench = bench(1, vec![writer, reader]);
    bench.run_to(1_000);
    assert_eq!(bench.caller(0).directory(0).unwrap().1, &Answer::Granted(Outcome::Done(())));
    assert!(succeeded(&bench, 0, 1) && succeeded(&bench, 0, 2));
    assert_eq!(bench.caller(0).directory(3).unwrap().1, &Answer::KeptAlive(Outcome::Done(Duration::from_secs(10))));
    assert_eq!(found(&bench, 1, 1), [(1, 7), (2, 8)]);
    let told: Vec<_> = bench
        .caller(1)
        .news()
        .map(|(_, event)| match event {
            Event::Changed { changes, .. } => changes.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [1, 1]);
    let revisions: Vec<_> = bench
        .accepted()
        .into_iter()
        .filter_map(|(_, acceptance)| match acceptance {
            Acceptance::DirectoryChanged { revision, .. } => Some(revision.0),
            _ => None,
        })
        .collect();
    assert_eq!(revisions, [2, 3]);
}

/// Where the leader stands among the members.
fn leader(bench: &Bench) -> usize {
    let node = bench.world.directory().unwrap().leader(bench.world.core()).expect("there is a leader");
    bench.members.iter().position(|&member| member == node).unwrap()
}

fn others(bench: &Bench, index: usize) -> Vec<NodeId> {
    (0..3).filter(|&other| other != index).map(|other| bench.members[other]).collect()
}

/// Lets a caller reach one member only.
fn confine(bench: &mut Bench, caller: usize, member: usize) -> u32 {
    let (caller, rest) = (bench.callers[caller], others(bench, member));
    bench.cut(&[caller], &rest)
}

pub(super) fn within(ask: Ask, ms: u64) -> Ask {
    match ask {
        Ask::Directory(submission, _) => Ask::Directory(submission, Duration::from_millis(ms)),
        other => panic!("{other:?}"),
    }
}

/// When the change to value `n` was committed.
fn committed(bench: &mut Bench, n: u64) -> Option<u64> {
    bench.accepted().into_iter().find_map(|(at, acceptance)| match acceptance {
        Acceptance::DirectoryChanged { changes, .. } => {
            changes.iter().any(|change| matches!(change, Change::Put(record) if record.value == value(n))).then_some(at)
        }
        _ => None,
    })
}

fn ended(bench: &mut Bench) -> Vec<u64> {
    let ended = |(at, acceptance)| matches!(acceptance, Acceptance::LeaseEnded { .. }).then_some(at);
    bench.accepted().into_iter().filter_map(ended).collect()
}

const UNKNOWN: Answer = Answer::Transacted(Outcome::Unknown);

fn refused(refusal: Refusal) -> Answer {
    Answer::Transacted(Outcome::Refused(refusal))
}

#[test]
fn without_a_quorum_a_proposal_is_unknown_and_later_requests_find_no_leader() {
    let script =
        vec![(500, put(1, 1)), (1_000, put(1, 2)), (4_000, put(1, 3)), (4_100, grant(5, 10)), (30_000, put(1, 4))];
    let mut bench = bench(2, vec![Caller::new(script)]);
    bench.run_to(400);
    let leader = leader(&bench);
    let lost = others(&bench, leader);
    confine(&mut bench, 0, leader);
    bench.run_to(900);
    for &member in &lost {
        bench.inject(WorldFault::Crash { node: member });
    }
    assert!(!bench.world.directory().unwrap().has_quorum(bench.world.core()));
    bench.run_to(10_000);
    let answer = |n: usize| bench.caller(0).directory(n).unwrap();
    assert_eq!(answer(1), (3_000, &UNKNOWN), "it was proposed");
    assert_eq!(answer(2).1, &refused(Refusal::NoLeader));
    assert!(answer(2).0 < 4_100, "at once");
    assert_eq!(answer(3).1, &Answer::Granted(Outcome::Refused(Refusal::NoLeader)));
    assert_eq!(committed(&mut bench, 2), None);
    for member in lost {
        bench.inject(WorldFault::Restart { node: member });
    }
    bench.run_to(31_000);
    assert!(succeeded(&bench, 0, 4));
    let late = committed(&mut bench, 2).expect("the proposal stood in the leader's log");
    assert!(late > 10_000, "applied later, at {late} ms");
}

#[test]
fn a_leader_change_takes_an_election() {
    let mut script = vec![];
    for n in 0..40 {
        script.push((1_000 + n * 100, put(1, n)));
    }
    let mut bench = bench(3, vec![Caller::new(script)]);
    bench.run_to(2_000);
    let before = leader(&bench);
    bench.inject(WorldFault::Directory(Fault::LeaderChange));
    bench.run_to(8_000);
    assert_ne!(leader(&bench), before);
    let failed = (0..40).filter(|&n| !succeeded(&bench, 0, n)).count();
    assert!((8..=22).contains(&failed), "about one to two seconds of {failed} tenths");
    assert!(succeeded(&bench, 0, 39));
}

#[test]
fn a_request_may_time_out_and_be_applied() {
    let mut bench = bench(4, vec![Caller::new(vec![(1_000, put(1, 9)), (4_000, read(Consistency::Linearizable))])]);
    let which = Which::Transactions;
    bench.run_to(900).inject(WorldFault::Directory(Fault::LoseAnswers { from: None, of: which, permille: 1_000 }));
    bench.run_to(5_000);
    assert_eq!(bench.caller(0).directory(0).unwrap(), (3_000, &UNKNOWN));
    assert_eq!(found(&bench, 0, 1), [(1, 9)]);
    assert!(committed(&mut bench, 9).unwrap() < 1_100);
}

#[test]
fn a_request_may_be_applied_after_its_caller_gave_up() {
    let mut bench = bench(5, vec![Caller::new(vec![(1_000, put(1, 9)), (6_000, put(1, 10))])]);
    let by = Duration::from_secs(4);
    let from = Some(bench.callers[0]);
    bench.run_to(900).inject(WorldFault::Directory(Fault::DelayRequests { from, by }));
    bench.run_to(5_900).inject(WorldFault::Heal);
    bench.run_to(7_000);
    assert_eq!(bench.caller(0).directory(0).unwrap(), (3_000, &UNKNOWN));
    assert!(committed(&mut bench, 9).unwrap() >= 5_000);
    assert!(succeeded(&bench, 0, 1), "healed");
}

#[test]
fn an_uncommitted_tail_survives_the_leader_that_wrote_it() {
    let mut bench = bench(6, vec![Caller::new(vec![(1_000, within(put(1, 9), 500))])]);
    bench.run_to(900);
    let old = leader(&bench);
    confine(&mut bench, 0, old);
    // Followers hear the leader, and it does not hear them: their logs grow and nothing is committed.
    let (from, to) = (others(&bench, old), vec![bench.members[old]]);
    bench.inject(WorldFault::Cut { id: 99, from, to, both: false });
    bench.run_to(1_600);
    assert_eq!(bench.caller(0).directory(0).unwrap(), (1_500, &UNKNOWN));
    assert_eq!(committed(&mut bench, 9), None);
    let node = bench.members[old];
    bench.inject(WorldFault::Crash { node });
    bench.run_to(8_000);
    assert_ne!(leader(&bench), old);
    assert!(committed(&mut bench, 9).unwrap() > 2_000);
}

#[test]
fn a_lease_that_is_not_renewed_ends_with_its_keys_a_little_after_its_time() {
    let script = vec![(1_000, grant(7, 2)), (1_100, put_with_lease(1, 7)), (2_000, renew(7)), (8_000, renew(7))];
    let mut bench = bench(7, vec![Caller::new(script)]);
    bench.run_to(2_100);
    assert!(bench.world.directory().unwrap().lease_alive(lease(7)));
    bench.run_to(9_000);
    assert!(!bench.world.directory().unwrap().lease_alive(lease(7)));
    assert_eq!(bench.world.directory().unwrap().records(Family::Owners).count(), 0);
    let at = ended(&mut bench)[0];
    assert!((4_000..4_800).contains(&at), "two seconds after the renewal at 2,000 ms: {at}");
    let gone = Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound));
    assert_eq!(bench.caller(0).directory(3).unwrap().1, &gone);
}

#[test]
fn a_renewal_that_comes_between_expiry_and_revocation_is_told_that_the_lease_is_gone() {
    let renewals = (0..60).map(|n| (2_950 + n * 10, renew(7)));
    let script = [(1_000, grant(7, 2))].into_iter().chain(renewals).collect();
    let mut bench = bench(8, vec![Caller::new(script)]);
    // Renewals that leave after the expiry at 3,000 ms and before the revocation wait for it; earlier ones renew.
    let node = bench.callers[0];
    bench.run_to(2_900).inject(WorldFault::Pause { node });
    bench.run_to(3_010).inject(WorldFault::Resume { node });
    bench.run_to(6_000);
    let gone = Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound));
    assert_eq!(bench.caller(0).directory(1).unwrap().1, &gone);
    assert_eq!(ended(&mut bench).len(), 1);
}

#[test]
fn a_leader_change_ends_leases_late_and_a_stalled_leader_early() {
    let script = vec![(1_000, grant(7, 2)), (1_000, grant(8, 60))];
    let mut bench = bench(9, vec![Caller::new(script)]);
    bench.run_to(2_500);
    let node = bench.members[leader(&bench)];
    bench.inject(WorldFault::Crash { node });
    bench.run_to(15_000);
    let late = ended(&mut bench)[0];
    assert!(late >= 2_500 + 1_000 + 2_000, "its full time again after the election: {late}");
    bench.inject(WorldFault::Directory(Fault::RevokeEarly { lease: lease(8) }));
    bench.run_to(15_100);
    assert_eq!(ended(&mut bench).len(), 2, "45 seconds too early");
}

#[test]
fn a_leader_without_its_majority_renews_nothing() {
    let renewals = (0..30).map(|n| (2_000 + n * 100, renew(7)));
    let script = [(1_000, grant(7, 10))].into_iter().chain(renewals).collect();
    let mut bench = bench(10, vec![Caller::new(script)]);
    bench.run_to(900);
    let old = leader(&bench);
    confine(&mut bench, 0, old);
    let (alone, rest) = (bench.members[old], others(&bench, old));
    bench.run_to(2_450).cut(&[alone], &rest);
    bench.run_to(8_000);
    for n in 1..=30 {
        let renewed = matches!(bench.caller(0).directory(n).unwrap().1, Answer::KeptAlive(Outcome::Done(_)));
        assert_eq!(renewed, n <= 5, "renewal {n}");
    }
    let renewals = bench.accepted().into_iter().filter(|(_, a)| matches!(a, Acceptance::LeaseRenewed { .. })).count();
    assert_eq!(renewals, 5);
}

/// With the moment in ms.
type At<T> = (u64, T);

/// The revisions that a watch has told, and its gap.
fn told(bench: &Bench, caller: usize) -> (Vec<At<u64>>, Option<At<GapCause>>) {
    let (mut revisions, mut gap) = (vec![], None);
    for (at, event) in bench.caller(caller).news() {
        assert_eq!(gap, None, "nothing comes after a gap");
        match event {
            Event::Changed { changes, .. } => revisions.extend(changes.iter().map(|change| match change {
                Change::Put(record) => (at, record.mod_revision.0),
                Change::Deleted(_) => panic!("nothing is deleted"),
            })),
            &Event::Gap { cause, .. } => gap = Some((at, cause)),
            Event::Answered { .. } => unreachable!("an answer is no news"),
        }
    }
    (revisions, gap)
}

fn writes(from_ms: u64, count: u64) -> Vec<(u64, Ask)> {
    (0..count).map(|n| (from_ms + n * 10, put(1 + n % 3, n))).collect()
}

#[test]
fn a_watch_is_late_on_a_bad_link_and_neither_reordered_nor_torn() {
    let mut bench = bench(11, vec![Caller::new(writes(1_000, 100)), Caller::new(vec![(500, watch(2))])]);
    let (from, to) = (bench.members.clone(), vec![bench.callers[1]]);
    bench.inject(WorldFault::Directory(Fault::DelayNews { by: Duration::from_millis(500) }));
    let degrade = WorldFault::Degrade {
        id: 9,
        from,
        to,
        both: false,
        loss_permille: 300,
        duplicate_permille: 300,
        delay: Duration::ZERO,
        jitter: Duration::from_millis(300),
    };
    bench.run_to(900).inject(degrade);
    bench.run_to(6_000);
    let (news, gap) = told(&bench, 1);
    assert_eq!(gap, None);
    assert_eq!(news.iter().map(|&(_, revision)| revision).collect::<Vec<_>>(), (2..=101).collect::<Vec<_>>());
    assert!(news[0].0 >= 1_500, "half a second late");
}

#[test]
fn a_watch_is_cancelled_and_its_reader_begins_anew() {
    let reader = Caller::new(vec![(500, watch(2)), (3_000, watch(2))]);
    let mut bench = bench(12, vec![Caller::new(writes(1_000, 10)), reader]);
    bench.run_to(2_000).inject(WorldFault::Directory(Fault::CancelWatches));
    bench.run_to(2_500);
    assert!(matches!(told(&bench, 1).1, Some((2_000..2_100, GapCause::Cancelled))));
    assert_eq!(bench.world.directory().unwrap().watches(), 0);
    bench.run_to(4_000);
    let again: usize = bench.caller(1).news().filter(|(at, _)| *at >= 3_000).count();
    assert!(again > 0, "the second watch replays the past");
}

#[test]
fn a_watch_whose_member_is_gone_is_cancelled_by_its_own_client() {
    for (fault, by) in [(true, 1_100), (false, 5_200)] {
        let mut bench = bench(13, vec![Caller::new(vec![(500, watch(2))])]);
        bench.run_to(900);
        let member = bench.world.directory().unwrap().watches.values().next().unwrap().member();
        let node = bench.members[member];
        bench.run_to(1_000).inject(if fault { WorldFault::Kill { node } } else { WorldFault::Crash { node } });
        bench.run_to(8_000);
        let (at, cause) = told(&bench, 0).1.expect("it was told");
        assert_eq!(cause, GapCause::Cancelled);
        assert!(at <= by, "a reset is heard at once, silence after a while: {at}");
    }
}

#[test]
fn what_is_compacted_can_neither_be_watched_nor_read() {
    let old = Submission::Read {
        family: Family::Owners,
        after: None,
        limit: 10,
        at: Some(Revision(3)),
        consistency: Consistency::Linearizable,
    };
    let reader = Caller::new(vec![(500, watch(2)), (3_000, watch(3)), (3_000, old.into()), (3_000, watch(12))]);
    let mut bench = bench(14, vec![Caller::new(writes(1_000, 10)), reader]);
    // The reader hears nothing for a while, and what it has missed is compacted.
    let (members, reader) = (bench.members.clone(), bench.callers[1]);
    bench.run_to(990).inject(WorldFault::Cut { id: 9, from: members, to: vec![reader], both: false });
    bench.run_to(1_500).inject(WorldFault::Directory(Fault::Compact));
    bench.inject(WorldFault::Uncut { id: 9 });
    bench.run_to(4_000);
    assert!(matches!(told(&bench, 1).1, Some((1_500..2_500, GapCause::Compacted))), "{:?}", told(&bench, 1));
    let compacted = Refusal::Compacted { oldest: Revision(12) };
    assert_eq!(bench.caller(1).directory(1).unwrap().1, &Answer::Watching(Outcome::Refused(compacted)));
    let oldest = Refusal::Compacted { oldest: Revision(11) };
    assert_eq!(bench.caller(1).directory(2).unwrap().1, &Answer::Read(Outcome::Refused(oldest)));
    assert_eq!(bench.caller(1).directory(3).unwrap().1, &Answer::Watching(Outcome::Done(())));
}

#[test]
fn a_serializable_read_of_a_cut_off_member_is_stale_and_a_linearizable_one_is_not_served() {
    let reader = Caller::new(vec![
        (2_000, read(Consistency::Serializable)),
        (2_000, read(Consistency::Linearizable)),
        (6_000, read(Consistency::Linearizable)),
        (9_000, read(Consistency::Serializable)),
        (9_000, read(Consistency::Linearizable)),
    ]);
    let mut bench = bench(15, vec![Caller::new(vec![(500, put(1, 1)), (1_500, put(1, 2))]), reader]);
    bench.run_to(1_000);
    let member = (leader(&bench) + 1) % 3;
    confine(&mut bench, 1, member);
    let writer = bench.callers[0];
    let (alone, mut rest) = (bench.members[member], others(&bench, member));
    rest.push(writer);
    let cut = bench.cut(&[alone], &rest);
    bench.run_to(7_000).inject(WorldFault::Uncut { id: cut });
    bench.run_to(10_000);
    assert_eq!(found(&bench, 1, 0), [(1, 1)], "stale");
    let lost = Answer::Read(Outcome::Unknown);
    assert_eq!(bench.caller(1).directory(1).unwrap().1, &lost);
    let refused = Answer::Read(Outcome::Refused(Refusal::NoLeader));
    assert_eq!(bench.caller(1).directory(2).unwrap().1, &refused);
    assert_eq!(found(&bench, 1, 3), [(1, 2)]);
    assert_eq!(found(&bench, 1, 4), [(1, 2)]);
}

#[test]
fn a_transaction_has_at_most_128_operations() {
    let many = |count| {
        let put = |n| Write::Put { key: key(n), value: value(n), lease: None };
        transact(vec![], (0..count).map(put).collect())
    };
    let twice = transact(vec![], vec![Write::Delete(key(1)), Write::Delete(key(1))]);
    let mut bench = bench(16, vec![Caller::new(vec![(500, many(129)), (500, many(128)), (500, twice)])]);
    bench.run_to(1_000);
    assert_eq!(bench.caller(0).directory(0).unwrap().1, &refused(Refusal::TooManyOperations));
    assert!(succeeded(&bench, 0, 1));
    assert_eq!(bench.caller(0).directory(2).unwrap().1, &refused(Refusal::Malformed));
}

#[test]
fn a_full_database_takes_deletes_and_no_writes() {
    let delete = transact(vec![Compare::Present(key(1))], vec![Write::Delete(key(1))]);
    let script = vec![(500, put(1, 1)), (1_000, put(1, 2)), (1_000, grant(3, 10)), (1_100, delete), (2_000, put(1, 3))];
    let mut bench = bench(17, vec![Caller::new(script)]);
    bench.run_to(900).inject(WorldFault::Directory(Fault::DatabaseFull { on: true }));
    bench.run_to(1_900).inject(WorldFault::Directory(Fault::DatabaseFull { on: false }));
    bench.run_to(3_000);
    assert_eq!(bench.caller(0).directory(1).unwrap().1, &refused(Refusal::DatabaseFull));
    assert_eq!(bench.caller(0).directory(2).unwrap().1, &Answer::Granted(Outcome::Refused(Refusal::DatabaseFull)));
    assert!(succeeded(&bench, 0, 3) && succeeded(&bench, 0, 4));
}

#[test]
fn a_restored_backup_takes_revisions_back_and_breaks_every_watch() {
    let script = vec![(1_000, put(1, 1)), (4_000, put(1, 2)), (4_100, grant(6, 30)), (9_000, put(1, 3))];
    let reader = Caller::new(vec![(500, watch(2)), (8_000, read(Consistency::Linearizable))]);
    let mut bench = bench(18, vec![Caller::new(script), reader]);
    bench.run_to(4_500);
    assert_eq!(bench.world.directory().unwrap().revision(), Revision(3));
    bench.run_to(5_000).inject(WorldFault::Directory(Fault::RestoreBackup { age: Duration::from_secs(3) }));
    assert_eq!(bench.world.directory().unwrap().revision(), Revision(2));
    assert!(!bench.world.directory().unwrap().lease_alive(lease(6)));
    bench.run_to(10_000);
    assert_eq!(found(&bench, 1, 1), [(1, 1)]);
    assert!(matches!(told(&bench, 1).1, Some((5_000..5_100, GapCause::Cancelled))));
    let third = bench.caller(0).directory(3).unwrap().1;
    assert!(
        matches!(third, Answer::Transacted(Outcome::Done(Transacted { succeeded: true, revision: Revision(3), .. }))),
        "revision 3 comes again: {third:?}"
    );
}

/// Takes the power of every member away, and gives it back.
fn blackout(bench: &mut Bench) {
    for node in bench.members.clone() {
        bench.inject(WorldFault::Crash { node });
    }
    for node in bench.members.clone() {
        bench.inject(WorldFault::Restart { node });
    }
}

#[test]
fn a_power_loss_takes_what_was_not_synced_and_nothing_acknowledged() {
    let script = vec![(500, put(1, 1)), (1_000, put(1, 2)), (9_000, read(Consistency::Linearizable))];
    let mut bench = bench(19, vec![Caller::new(script)]);
    let slow = Fault::SlowDisk { member: None, factor_permille: 1_000_000 };
    bench.run_to(900).inject(WorldFault::Directory(slow));
    bench.run_to(1_200);
    blackout(&mut bench);
    bench.inject(WorldFault::Heal);
    bench.run_to(10_000);
    assert_eq!(bench.caller(0).directory(1).unwrap(), (3_000, &UNKNOWN));
    assert_eq!(found(&bench, 0, 2), [(1, 1)]);
    assert_eq!(committed(&mut bench, 2), None);
}

#[test]
fn disks_that_lie_lose_what_was_acknowledged() {
    let script = vec![(500, put(1, 1)), (1_000, put(1, 2)), (9_000, read(Consistency::Linearizable))];
    let mut bench = bench(20, vec![Caller::new(script)]);
    bench.run_to(900).inject(WorldFault::Directory(Fault::DisksLie { member: None, on: true }));
    bench.run_to(1_200);
    assert!(succeeded(&bench, 0, 1));
    blackout(&mut bench);
    bench.inject(WorldFault::Heal);
    bench.run_to(10_000);
    assert_eq!(found(&bench, 0, 2), [(1, 1)]);
}

#[test]
fn a_slow_disk_slows_every_write() {
    let script = vec![(500, put(1, 1)), (1_000, put(1, 2))];
    let mut bench = bench(21, vec![Caller::new(script)]);
    let slow = Fault::SlowDisk { member: None, factor_permille: 100_000 };
    bench.run_to(900).inject(WorldFault::Directory(slow));
    bench.run_to(3_000);
    let took = |n: usize, asked| bench.caller(0).directory(n).unwrap().0 - asked;
    assert!(took(0, 500) < 40 && took(1, 1_000) >= 60, "{} and {} ms", took(0, 500), took(1, 1_000));
}

#[test]
fn a_caller_goes_to_another_member_and_what_it_had_sent_is_unknown() {
    let mut bench = bench(22, vec![Caller::new(vec![(500, put(1, 1)), (1_000, put(1, 2)), (4_000, put(1, 3))])]);
    bench.run_to(900);
    let client = &bench.world.directory().unwrap().clients[&bench.callers[0]];
    let node = bench.members[client.member()];
    let slow = Fault::SlowDisk { member: None, factor_permille: 1_000_000 };
    bench.inject(WorldFault::Directory(slow));
    bench.run_to(1_100).inject(WorldFault::Kill { node });
    bench.inject(WorldFault::Heal);
    bench.run_to(6_000);
    let (at, answer) = bench.caller(0).directory(1).unwrap();
    assert_eq!(answer, &UNKNOWN);
    assert!(at < 1_200, "the reset is heard at once: {at}");
    assert!(succeeded(&bench, 0, 2));
}

#[test]
fn a_request_that_finds_nobody_is_refused_and_one_that_was_sent_is_unknown() {
    let cut = |bench: &mut Bench| {
        let (callers, members) = (bench.callers.clone(), bench.members.clone());
        bench.cut(&callers, &members)
    };
    let mut fresh = bench(23, vec![Caller::new(vec![(500, put(1, 1))])]);
    cut(&mut fresh);
    fresh.run_to(5_000);
    assert_eq!(fresh.caller(0).directory(0).unwrap().1, &refused(Refusal::Unreachable));
    let script = vec![(500, put(1, 1)), (1_000, put(1, 2)), (5_000, put(1, 3)), (9_000, put(1, 4))];
    let mut sent = bench(23, vec![Caller::new(script)]);
    sent.run_to(900);
    let id = cut(&mut sent);
    sent.run_to(8_000).inject(WorldFault::Uncut { id });
    sent.run_to(10_000);
    assert_eq!(sent.caller(0).directory(1).unwrap(), (3_000, &UNKNOWN), "its connection stood");
    assert_eq!(sent.caller(0).directory(2).unwrap().1, &refused(Refusal::Unreachable), "given up by then");
    assert!(succeeded(&sent, 0, 3));
}

#[test]
fn a_leader_that_slept_through_an_election_serves_nothing_stale() {
    let reader = Caller::new(vec![
        (900, put(1, 1)),
        (3_700, read(Consistency::Linearizable)),
        (3_700, renew(7)),
        (3_700, read(Consistency::Serializable)),
    ]);
    let writer = Caller::new(vec![(850, grant(7, 10)), (3_500, put(1, 2))]);
    let mut bench = bench(24, vec![reader, writer]);
    bench.run_to(800);
    let old = leader(&bench);
    confine(&mut bench, 0, old);
    let (node, writer) = (bench.members[old], bench.callers[1]);
    let mut rest = others(&bench, old);
    rest.push(writer);
    bench.run_to(1_000).inject(WorldFault::Pause { node });
    let id = bench.cut(&[node], &rest);
    bench.run_to(3_800).inject(WorldFault::Uncut { id }).inject(WorldFault::Resume { node });
    bench.run_to(9_000);
    assert!(succeeded(&bench, 1, 1), "the others have a leader by then");
    let read = bench.caller(0).directory(1).unwrap().1;
    assert_eq!(read, &Answer::Read(Outcome::Unknown));
    assert_eq!(bench.caller(0).directory(2).unwrap().1, &Answer::KeptAlive(Outcome::Unknown));
    assert_eq!(found(&bench, 0, 3), [(1, 1)], "who asks for whatever it has gets that");
}

#[test]
fn a_leader_that_slept_through_a_lease_does_not_revoke_what_its_successor_renewed() {
    let renewals = (0..40).map(|n| (1_000 + n * 250, renew(7)));
    let mut bench = bench(25, vec![Caller::new([(900, grant(7, 3))].into_iter().chain(renewals).collect())]);
    bench.run_to(800);
    let node = bench.members[leader(&bench)];
    let caller = bench.callers[0];
    bench.cut(&[caller], &[node]);
    bench.run_to(1_500).inject(WorldFault::Pause { node });
    bench.run_to(8_000).inject(WorldFault::Resume { node });
    bench.run_to(11_000);
    assert_eq!(ended(&mut bench), Vec::<u64>::new());
}

#[test]
fn a_watcher_that_does_not_keep_up_has_a_gap() {
    let script = (0..1_200).map(|n| (1_000 + n * 4, put(1 + n % 3, n))).collect();
    let mut bench = bench(26, vec![Caller::new(script), Caller::new(vec![(500, watch(2))])]);
    let node = bench.callers[1];
    bench.run_to(990).inject(WorldFault::Pause { node });
    bench.run_to(7_000).inject(WorldFault::Resume { node });
    bench.run_to(8_000);
    let (news, gap) = told(&bench, 1);
    assert_eq!(news.len(), worldline_system::limits::WATCH_CREDITS);
    assert!(matches!(gap, Some((_, GapCause::Overflow))), "{gap:?}");
}

#[test]
fn a_member_that_was_away_for_long_catches_up_by_a_snapshot() {
    let script = (0..1_500).map(|n| (2_000 + n * 4, put(1 + n % 3, n))).collect();
    let reader = Caller::new(vec![(15_000, read(Consistency::Serializable))]);
    let mut bench = bench(27, vec![Caller::new(script), reader]);
    bench.run_to(1_000);
    let member = (leader(&bench) + 1) % 3;
    confine(&mut bench, 1, member);
    let node = bench.members[member];
    bench.inject(WorldFault::Crash { node });
    bench.run_to(10_000).inject(WorldFault::Restart { node });
    bench.run_to(16_000);
    assert_eq!(found(&bench, 1, 0).len(), 3);
    let wrote = (0..1_500).filter(|&n| succeeded(&bench, 0, n)).count() as u64;
    assert!(wrote > 1_000);
    assert_eq!(bench.world.directory().unwrap().members[member].revision, bench.world.directory().unwrap().revision());
}

#[test]
fn the_workers_of_a_node_lose_their_leases_early() {
    let node = NodeId(77);
    let worker = Value::Worker(worldline_system::doors::directory::Worker { node, region: Default::default() });
    let key = Key::Worker(lease(7));
    let register = transact(vec![Compare::Absent(key)], vec![Write::Put { key, value: worker, lease: Some(lease(7)) }]);
    let mut bench = bench(28, vec![Caller::new(vec![(500, grant(7, 60)), (600, register)])]);
    bench.run_to(1_000).inject(WorldFault::Directory(Fault::RevokeEarlyAt { node }));
    bench.run_to(1_100);
    assert_eq!(ended(&mut bench).len(), 1);
    assert_eq!(bench.world.directory().unwrap().records(Family::Workers).count(), 0);
}
