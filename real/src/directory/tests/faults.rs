//! etcd is stopped, killed, cut off, or never there: who asked is told what is certain and no more.

use super::{etcd::Etcd, proxy::Proxy, *};
use std::collections::BTreeSet;
use worldline_system::Refusal;

const UNREACHABLE: Outcome<Transacted> = Outcome::Refused(Refusal::Unreachable);

#[test]
fn what_a_stopped_etcd_was_asked_is_unknown_and_what_is_asked_when_that_is_noticed_is_refused() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let stands = caller.put(boss(1), 1);
    etcd.stop();
    let taken = transaction(vec![Compare::Unchanged(boss(1), stands)], vec![put(boss(1), owned(2))]);
    let (hasty, patient) = (time::Duration::from_secs(1), LONG);
    let asked = [hasty, patient].map(|patience| caller.ask_within(taken.clone(), patience));
    // One at its deadline, the other when the connection is given up.
    for op in asked {
        assert_eq!(caller.answer(op), Answer::Transacted(Outcome::Unknown));
    }
    caller.problem("stopped answering");
    // The kernel accepts connections for a process that is stopped.
    assert_eq!(caller.transact(vec![], vec![put(boss(2), owned(1))]), UNREACHABLE);
    etcd.go_on();
    caller.until_ready();
    let record = caller.get(boss(1)).expect("it is there");
    assert!(record.value == owned(1) || record.value == owned(2), "it has happened or it has not");
    let again = caller.transact(vec![Compare::Unchanged(boss(1), record.mod_revision)], vec![put(boss(1), owned(3))]);
    assert!(matches!(again, Outcome::Done(Transacted { succeeded: true, .. })), "{again:?}");
    assert_eq!(caller.get(boss(2)), None, "what was refused never happens");
}

#[test]
fn what_was_under_way_when_etcd_died_is_unknown_at_once() {
    let mut etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    assert_eq!(caller.call(grant(7, 60)), Answer::Granted(Outcome::Done(())));
    assert!(matches!(caller.call(Submission::KeepAlive(lease(7))), Answer::KeptAlive(Outcome::Done(_))));
    etcd.stop();
    let asked = [
        transaction(vec![], vec![put(boss(1), owned(1))]),
        grant(8, 10),
        Submission::Revoke(lease(9)),
        Submission::KeepAlive(lease(7)),
        get(boss(1)),
        Submission::Read {
            family: Family::Owners,
            after: None,
            limit: 1,
            at: None,
            consistency: Consistency::Serializable,
        },
        Submission::Watch { family: Family::Owners, from: Revision(1) },
    ];
    let ops: Vec<OpId> = asked.into_iter().map(|submission| caller.ask_within(submission, LONG)).collect();
    etcd.kill();
    let answers: Vec<Answer> = ops.into_iter().map(|op| caller.answer(op)).collect();
    for answer in answers {
        let certain = matches!(
            answer,
            Answer::Transacted(Outcome::Done(_))
                | Answer::Granted(Outcome::Done(()))
                | Answer::Revoked(Outcome::Done(()))
                | Answer::KeptAlive(Outcome::Done(_))
                | Answer::Got(Outcome::Done(_))
                | Answer::Read(Outcome::Done(_))
                | Answer::Watching(Outcome::Done(()))
        );
        assert!(!certain, "{answer:?} of a process that was stopped");
    }
    caller.problem("etcd");
    etcd.restart();
    caller.until_ready();
    assert!(matches!(caller.call(Submission::KeepAlive(lease(7))), Answer::KeptAlive(Outcome::Done(_))));
}

#[test]
fn where_nobody_is_an_operation_is_refused_and_the_operator_told_where() {
    let mut caller = Caller::new(&["http://127.0.0.1:1"]);
    let patient = caller.ask_within(transaction(vec![], vec![put(boss(1), owned(1))]), LONG);
    assert_eq!(caller.answer(patient), Answer::Transacted(UNREACHABLE));
    let problem = caller.problem("nobody answers");
    assert!(problem.contains("127.0.0.1:1") && problem.contains("refused"), "{problem}");
    let answer = caller.call(Submission::Watch { family: Family::Owners, from: Revision(1) });
    assert_eq!(answer, Answer::Watching(Outcome::Refused(Refusal::Unreachable)));
    let late = caller.ask_within(get(boss(1)), time::Duration::ZERO);
    assert_eq!(caller.answer(late), Answer::Got(Outcome::Refused(Refusal::Unreachable)), "its deadline has passed");
}

#[test]
fn etcd_may_come_later_and_come_back() {
    let mut etcd = Etcd::start(&[]);
    etcd.kill();
    let mut caller = Caller::new(&[etcd.url()]);
    caller.problem("nobody answers");
    etcd.restart();
    caller.until_ready();
    let revision = caller.put(boss(1), 1);
    etcd.kill();
    caller.problem("nobody answers");
    etcd.restart();
    caller.until_ready();
    assert_eq!(caller.get(boss(1)).map(|record| record.mod_revision), Some(revision));
}

#[test]
fn renewals_go_on_after_every_loss_of_the_connection() {
    let etcd = Etcd::start(&[]);
    let host = Caller::connected(&[etcd.url()]);
    let proxy = Proxy::new(&host.runtime, &etcd.url());
    let mut caller = Caller::connected(&[proxy.url()]);
    assert_eq!(caller.call(grant(7, 60)), Answer::Granted(Outcome::Done(())));
    for _ in 0..4 {
        let renewed = caller.call(Submission::KeepAlive(lease(7)));
        assert!(matches!(renewed, Answer::KeptAlive(Outcome::Done(_))), "{renewed:?}");
        proxy.cut();
        caller.problem("etcd");
        let lost = caller.call(Submission::KeepAlive(lease(7)));
        assert_eq!(lost, Answer::KeptAlive(Outcome::Refused(Refusal::Unreachable)));
        proxy.heal();
        caller.until_ready();
    }
}

#[test]
fn a_member_without_a_leader_refuses_what_needs_one_and_serves_stale_reads() {
    let mut members = Etcd::cluster(3, &[]);
    let mut caller = Caller::connected(&[members[0].url()]);
    caller.put(boss(1), 1);
    members[1].kill();
    members[2].kill();
    caller.problem("no leader");
    assert_eq!(caller.transact(vec![], vec![put(boss(1), owned(2))]), Outcome::Refused(Refusal::NoLeader));
    assert_eq!(caller.call(grant(7, 10)), Answer::Granted(Outcome::Refused(Refusal::NoLeader)));
    assert_eq!(caller.call(get(boss(1))), Answer::Got(Outcome::Refused(Refusal::NoLeader)));
    assert_eq!(caller.call(Submission::KeepAlive(lease(7))), Answer::KeptAlive(Outcome::Unknown));
    let stale = caller.call(Submission::Get { key: boss(1), consistency: Consistency::Serializable });
    assert!(matches!(stale, Answer::Got(Outcome::Done((Some(_), _)))), "{stale:?}");
    members[1].restart();
    caller.until_ready();
    let Some(record) = caller.get(boss(1)) else { panic!("it is there") };
    assert_eq!(record.value, owned(1), "what was refused never happens");
}

#[test]
fn behind_one_address_another_member_is_found_when_the_first_has_no_quorum() {
    let mut members = Etcd::cluster(3, &[]);
    let other = Etcd::start(&[]);
    let host = Caller::connected(&[members[0].url()]);
    let balancer = Proxy::new(&host.runtime, &members[0].url());
    let mut caller = Caller::connected(&[balancer.url()]);
    caller.put(boss(1), 1);
    members[1].kill();
    members[2].kill();
    caller.problem("no linearizable read");
    let stale = caller.call(Submission::Get { key: boss(1), consistency: Consistency::Serializable });
    assert!(matches!(stale, Answer::Got(Outcome::Done((Some(_), _)))), "the first one stays meanwhile: {stale:?}");
    balancer.leads_to(&other.url());
    caller.until_ready();
    assert_eq!(caller.get(boss(1)), None, "that one stands elsewhere");
    caller.put(boss(1), 2);
}

#[test]
fn a_caller_goes_to_another_member_when_its_own_is_gone() {
    let mut members = Etcd::cluster(3, &[]);
    let urls: Vec<String> = members.iter().map(Etcd::url).collect();
    let mut caller = Caller::connected(&urls);
    let mut callers: Vec<Caller> = (0..3).map(|_| Caller::connected(&urls)).collect();
    callers.push(caller);
    members[1].kill();
    for caller in &mut callers {
        // A leader may have to be elected first.
        let from = clock::now();
        while !matches!(caller.transact(vec![], vec![put(boss(1), owned(1))]), Outcome::Done(_)) {
            assert!(clock::now().since(from) < SOON);
        }
        caller.until_ready();
    }
    caller = callers.swap_remove(0);
    assert!(caller.get(boss(1)).is_some());
}

#[test]
fn every_operation_is_answered_once_whatever_happens_to_etcd() {
    let mut etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let (mut asked, mut written) = (vec![], BTreeSet::new());
    for round in 0..6 {
        for n in 0..100 {
            let submission = match n % 5 {
                0 => get(boss(n)),
                1 => grant(round * 100 + n, 10),
                2 => Submission::KeepAlive(lease(round * 100 + n - 1)),
                3 => Submission::Read {
                    family: Family::Owners,
                    after: None,
                    limit: 10,
                    at: None,
                    consistency: Consistency::Serializable,
                },
                _ => transaction(vec![], vec![put(boss(n), owned(round + 1))]),
            };
            asked.push(caller.ask(submission));
        }
        match round % 3 {
            0 => etcd.stop(),
            1 => {
                etcd.kill();
                etcd.restart();
            }
            _ => {}
        }
        for op in asked.drain(..) {
            let answer = caller.answer(op);
            if let Answer::Transacted(Outcome::Done(transacted)) = answer {
                assert!(written.insert(transacted.revision), "each write has its own revision");
            }
        }
        if round % 3 == 0 {
            etcd.go_on();
        }
        caller.until_ready();
    }
    assert_eq!(caller.answers.len(), 600);
}

#[test]
fn who_closes_has_every_answer_and_nothing_is_taken_afterwards() {
    let etcd = Etcd::start(&[]);
    let mut caller = Caller::connected(&[etcd.url()]);
    let watch = caller.watch(Family::Owners, Revision(1));
    etcd.stop();
    let ops: Vec<OpId> = (0..50).map(|n| caller.ask_within(get(boss(n)), LONG)).collect();
    let closed = async { tokio::time::timeout(clock::span(SOON), caller.directory.close()).await };
    assert!(caller.runtime.block_on(closed).is_ok(), "it waits for nobody");
    for op in ops {
        caller.answer(op);
    }
    assert_eq!(caller.transact(vec![], vec![put(boss(1), owned(1))]), UNREACHABLE);
    assert_eq!(caller.call(Submission::Unwatch(watch)), Answer::Unwatched(Outcome::Done(())));
    etcd.go_on();
}
