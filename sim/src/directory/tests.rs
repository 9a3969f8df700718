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

fn grant(n: u64, ttl_secs: u64) -> Ask {
    Submission::Grant { lease: lease(n), ttl: Duration::from_secs(ttl_secs) }.into()
}

fn renew(n: u64) -> Ask {
    Submission::KeepAlive(lease(n)).into()
}

/// Puts value `n` under key `k`.
fn put(k: u64, n: u64) -> Ask {
    transact(vec![], vec![Write::Put { key: key(k), value: value(n), lease: None }])
}

fn put_with_lease(k: u64, n: u64) -> Ask {
    transact(vec![], vec![Write::Put { key: key(k), value: value(n), lease: Some(lease(n)) }])
}

fn transact(compares: Vec<Compare>, writes: Vec<Write>) -> Ask {
    Submission::Transact(Arc::new(Transaction { compares, writes, otherwise: vec![key(1)] })).into()
}

fn read(consistency: Consistency) -> Ask {
    Submission::Read { family: Family::Owners, after: None, limit: 100, at: None, consistency }.into()
}

fn watch(from: u64) -> Ask {
    Submission::Watch { family: Family::Owners, from: Revision(from) }.into()
}

fn bench(seed: u64, callers: Vec<Caller>) -> Bench {
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

fn succeeded(bench: &Bench, caller: usize, n: usize) -> bool {
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
