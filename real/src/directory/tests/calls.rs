//! What each submission comes to, and what refuses it.

use super::{etcd::Etcd, *};
use crate::{
    directory::{Owner, who_owns},
    machine,
};
use std::collections::BTreeSet;
use worldline_system::Refusal;

/// A machine that slept: the runtime's clock has not moved.
#[test]
fn what_waited_while_the_machine_slept_does_not_leave_behind_its_deadline() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let mut slept = crate::directory::Deadline::new(&machine::Own, clock::now() + PATIENCE);
    slept.at = clock::now();
    let submission = transaction(vec![], vec![put(boss(1), owned(1))]);
    let answer = caller.runtime.block_on(caller.directory.0.perform(slept, &submission));
    assert_eq!(answer, Answer::Transacted(Outcome::Refused(Refusal::Unreachable)));
    assert_eq!(caller.get(boss(1)), None);
}

#[test]
fn a_worker_registers_renews_and_leaves() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let key = Key::Worker(lease(7));
    assert_eq!(caller.call(grant(7, 10)), Answer::Granted(Outcome::Done(())));
    let register = Write::Put { key, value: worker(), lease: Some(lease(7)) };
    let registered = caller.transact(vec![Compare::Absent(key)], vec![register]);
    let Outcome::Done(Transacted { succeeded: true, revision, .. }) = registered else { panic!("{registered:?}") };
    let record = Record { key, value: worker(), mod_revision: revision, lease: Some(lease(7)) };
    assert_eq!(caller.call(get(key)), Answer::Got(Outcome::Done((Some(record), revision))));
    for _ in 0..3 {
        let ttl = time::Duration::from_secs(10);
        assert_eq!(caller.call(Submission::KeepAlive(lease(7))), Answer::KeptAlive(Outcome::Done(ttl)));
    }
    assert_eq!(caller.call(Submission::Revoke(lease(7))), Answer::Revoked(Outcome::Done(())));
    assert_eq!(caller.get(key), None, "its key went with the lease");
}

#[test]
fn what_is_refused_says_why() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    assert_eq!(caller.call(grant(7, 10)), Answer::Granted(Outcome::Done(())));
    assert_eq!(caller.call(grant(7, 10)), Answer::Granted(Outcome::Refused(Refusal::LeaseExists)));
    let unknown = Submission::KeepAlive(lease(8));
    assert_eq!(caller.call(unknown), Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound)));
    assert_eq!(caller.call(Submission::Revoke(lease(8))), Answer::Revoked(Outcome::Refused(Refusal::LeaseNotFound)));
    let orphan = Write::Put { key: boss(1), value: owned(1), lease: Some(lease(8)) };
    assert_eq!(caller.transact(vec![], vec![put(boss(2), owned(1)), orphan]), Outcome::Refused(Refusal::LeaseNotFound));
    assert_eq!(caller.get(boss(2)), None, "a refused transaction writes nothing");
    let twice = vec![put(boss(1), owned(1)), Write::Delete(boss(1))];
    assert_eq!(caller.transact(vec![], twice), Outcome::Refused(Refusal::Malformed));
    assert_eq!(caller.transact(vec![], vec![put(boss(1), worker())]), Outcome::Refused(Refusal::Malformed));
    assert_eq!(caller.read(Family::Owners, None, 0, None), Outcome::Refused(Refusal::Malformed));
    assert_eq!(caller.read(Family::Owners, None, 501, None), Outcome::Refused(Refusal::Malformed));
    assert_eq!(caller.read(Family::Owners, Some(Key::Leader), 1, None), Outcome::Refused(Refusal::Malformed));
    let future = Some(Revision(1_000));
    assert_eq!(caller.read(Family::Owners, None, 1, future), Outcome::Refused(Refusal::Malformed));
}

#[test]
fn a_transaction_has_at_most_128_of_each_kind() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let writes = |count: u64| (0..count).map(|n| put(boss(n), owned(1))).collect::<Vec<_>>();
    let compares = |count: u64| (0..count).map(|n| Compare::Absent(boss(n))).collect::<Vec<_>>();
    for (conditions, changes) in [(129, 1), (1, 129)] {
        let refused = caller.transact(compares(conditions), writes(changes));
        assert_eq!(refused, Outcome::Refused(Refusal::TooManyOperations));
    }
    let most = caller.transact(compares(128), writes(128));
    assert!(matches!(most, Outcome::Done(Transacted { succeeded: true, .. })), "{most:?}");
    let otherwise = (0..128).map(boss).collect();
    let again = Transaction { compares: compares(128), writes: writes(128), otherwise };
    let answer = caller.call(Submission::Transact(Arc::new(again)));
    let Answer::Transacted(Outcome::Done(Transacted { succeeded: false, otherwise, .. })) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(otherwise.len(), 128);
}

#[test]
fn a_compare_holds_or_it_does_not() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let first = caller.put(boss(1), 1);
    let second = caller.put(boss(1), 2);
    let holds = |caller: &mut Caller, compare| match caller.transact(vec![compare], vec![]) {
        Outcome::Done(Transacted { succeeded, revision, .. }) => {
            assert_eq!(revision, second, "nothing was written");
            succeeded
        }
        other => panic!("{other:?}"),
    };
    assert!(holds(&mut caller, Compare::Present(boss(1))));
    assert!(!holds(&mut caller, Compare::Absent(boss(1))));
    assert!(holds(&mut caller, Compare::Unchanged(boss(1), second)));
    assert!(!holds(&mut caller, Compare::Unchanged(boss(1), first)));
    assert!(!holds(&mut caller, Compare::Present(boss(2))));
    assert!(holds(&mut caller, Compare::Absent(boss(2))));
    assert!(!holds(&mut caller, Compare::Unchanged(boss(2), Revision(0))), "what is absent was changed by nobody");
    assert!(!holds(&mut caller, Compare::Unchanged(boss(2), Revision(u64::MAX))));
    let stale = Transaction {
        compares: vec![Compare::Unchanged(boss(1), first)],
        writes: vec![put(boss(1), owned(9))],
        otherwise: vec![boss(2), boss(1)],
    };
    let answer = caller.call(Submission::Transact(Arc::new(stale)));
    let stands = Record { key: boss(1), value: owned(2), mod_revision: second, lease: None };
    let transacted = Transacted { succeeded: false, revision: second, otherwise: vec![stands] };
    assert_eq!(answer, Answer::Transacted(Outcome::Done(transacted)));
}

#[test]
fn pages_fit_together_at_one_revision_while_others_write() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let count = 1_203;
    let numbers: Vec<u64> = (0..count).collect();
    for chunk in numbers.chunks(128) {
        let writes = chunk.iter().map(|&n| put(boss(n), owned(1))).collect();
        assert!(matches!(caller.transact(vec![], writes), Outcome::Done(_)));
    }
    let (mut found, mut after, mut at, mut pages) = (vec![], None, None, 0);
    loop {
        let outcome = caller.read(Family::Owners, after, 500, at);
        let Outcome::Done(page) = outcome else { panic!("{outcome:?}") };
        assert_eq!(*at.get_or_insert(page.revision), page.revision);
        assert!(page.records.iter().all(|record| record.value == owned(1)), "as of the first page");
        after = page.records.last().map(|record| record.key);
        found.extend(page.records.into_iter().map(|record| record.key.to_string()));
        pages += 1;
        if !page.more {
            break;
        }
        caller.put(boss(pages * 400), 2);
    }
    assert_eq!(pages, 3);
    assert!(found.is_sorted(), "in the order of the paths");
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 1_203);
    let ten = found.iter().position(|path| path.ends_with("/boss-10"));
    assert!(ten < found.iter().position(|path| path.ends_with("/boss-2")), "which is not that of the numbers");
}

#[test]
fn what_was_compacted_away_is_refused_with_what_still_stands() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let first = caller.put(boss(1), 1);
    let second = caller.put(boss(1), 2);
    let third = caller.put(boss(1), 3);
    let mut client = caller.etcd(&etcd.url());
    caller.runtime.block_on(client.compact(second.0 as i64, None)).expect("compacts");
    let compacted = |oldest| Refusal::Compacted { oldest };
    assert_eq!(caller.read(Family::Owners, None, 1, Some(first)), Outcome::Refused(compacted(second)));
    assert!(matches!(caller.read(Family::Owners, None, 1, Some(second)), Outcome::Done(_)));
    for from in [Revision(0), first, second] {
        let answer = caller.call(Submission::Watch { family: Family::Owners, from });
        assert_eq!(answer, Answer::Watching(Outcome::Refused(compacted(third))), "from {from}");
    }
    let watch = caller.watch(Family::Owners, third);
    assert_eq!(caller.changes(watch).0, third);
}

#[test]
fn a_lease_that_nobody_renews_ends_and_takes_its_keys_with_it() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let keys = [Key::Worker(lease(7)), Key::Worker(lease(8))];
    assert_eq!(caller.call(grant(7, 1)), Answer::Granted(Outcome::Done(())));
    let writes = keys.map(|key| Write::Put { key, value: worker(), lease: Some(lease(7)) });
    let Outcome::Done(written) = caller.transact(vec![], writes.to_vec()) else { panic!("it is written") };
    let watch = caller.watch(Family::Workers, written.revision.next());
    let (revision, changes) = caller.changes(watch);
    assert_eq!(revision, written.revision.next(), "both in one revision");
    assert_eq!(changes.iter().copied().collect::<Vec<_>>(), keys.map(Change::Deleted));
    let renewed = caller.call(Submission::KeepAlive(lease(7)));
    assert_eq!(renewed, Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound)));
}

#[test]
fn a_full_database_refuses_what_grows_it_and_serves_the_rest() {
    let etcd = Etcd::start(&["--quota-backend-bytes=200000"]);
    let mut caller = Caller::connected(&[etcd.url()]);
    assert_eq!(caller.call(grant(7, 60)), Answer::Granted(Outcome::Done(())));
    let mut refused = None;
    for n in 0..2_000 {
        let key = boss(n);
        match caller.transact(vec![Compare::Absent(key)], vec![put(key, owned(1))]) {
            Outcome::Done(_) => {}
            Outcome::Refused(Refusal::DatabaseFull) => {
                assert_eq!(caller.get(key), None, "what is refused was not written");
                refused = Some(n);
                break;
            }
            // etcd has said that it is full, and has written.
            Outcome::Unknown => {}
            Outcome::Refused(other) => panic!("{other}"),
        }
    }
    assert!(refused.is_some_and(|n| n > 0), "refused: {refused:?}");
    assert_eq!(caller.call(grant(8, 60)), Answer::Granted(Outcome::Refused(Refusal::DatabaseFull)));
    assert!(matches!(caller.call(Submission::KeepAlive(lease(7))), Answer::KeptAlive(Outcome::Done(_))));
    // Some releases of etcd refuse what deletes as well, and say so of what they have done.
    let deleted = caller.transact(vec![], vec![Write::Delete(boss(0))]);
    assert!(!matches!(deleted, Outcome::Refused(_)), "{deleted:?}");
}

#[test]
fn what_somebody_wrote_by_hand_is_not_there_and_is_not_overwritten() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let start = caller.put(boss(5), 1);
    let mut client = caller.etcd(&etcd.url());
    for (path, value) in [("boss-1", "{}"), ("boss-01", "{}"), ("zzz", "\u{0}"), ("boss-6", "not json")] {
        let path = format!("/worldline/owners/{path}");
        caller.runtime.block_on(client.put(path, value, None)).expect("written");
    }
    caller.put(boss(7), 1);
    let (mut after, mut found) = (None, vec![]);
    loop {
        let Outcome::Done(page) = caller.read(Family::Owners, after, 1, None) else { panic!("it is read") };
        after = page.records.last().map(|record| record.key);
        found.extend(after);
        if !page.more {
            break;
        }
    }
    assert_eq!(found, [boss(5), boss(7)], "a page that shows nothing is not the last one");
    assert_eq!(caller.get(boss(1)), None);
    let claimed = caller.transact(vec![Compare::Absent(boss(1))], vec![put(boss(1), owned(1))]);
    assert!(matches!(claimed, Outcome::Done(Transacted { succeeded: false, .. })), "{claimed:?}");
    let watch = caller.watch(Family::Owners, start);
    let mut changes = vec![];
    while changes.len() < 4 {
        changes.extend(caller.changes(watch).1.iter().copied());
    }
    assert!(
        matches!(changes[..], [Change::Put(first), Change::Deleted(one), Change::Deleted(six), Change::Put(last)]
        if first.key == boss(5) && one == boss(1) && six == boss(6) && last.key == boss(7)),
        "{changes:?}"
    );
}

#[test]
fn an_operator_learns_who_owns_an_entity_and_whether_that_worker_lives() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let config =
        Config { endpoints: vec!["http://127.0.0.1:1".parse().expect("right"), etcd.url().parse().expect("right")] };
    let ask = |caller: &Caller| {
        caller.runtime.block_on(who_owns(config.clone(), "boss-1".parse().expect("right"))).expect("it is read")
    };
    assert_eq!(ask(&caller).record, None);
    let revision = caller.put(boss(1), 3);
    let Value::Owner(ownership) = owned(3) else { unreachable!() };
    let dead = Owner { record: Some((ownership, revision)), worker: None, revision };
    assert_eq!(ask(&caller), dead);
    let registered = caller.transact(vec![], vec![put(Key::Worker(lease(0xab)), worker())]);
    assert!(matches!(registered, Outcome::Done(_)));
    let alive = Worker { node: NodeId(7), region: RegionId(1) };
    assert_eq!(ask(&caller), Owner { worker: Some(alive), revision: revision.next(), ..dead });
    let nobody = Config { endpoints: vec!["http://127.0.0.1:1".parse().expect("right")] };
    let error =
        caller.runtime.block_on(who_owns(nobody, "boss-1".parse().expect("right"))).expect_err("nobody is there");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
