//! What callers of a directory do, and what befalls it.

use super::model::State;
use crate::service::{CALLERS, Fault, Mishap};
use proptest::prelude::*;
use std::sync::Arc;
use worldline_proto::{EntityId, EntityKind, Epoch, LeaseId, NodeId, Nonce, Revision};
use worldline_system::{
    doors::directory::{
        Compare, Consistency, Down, Family, Key, Leader, Ownership, RegionId, Submission, Transaction, Value, Worker,
        Write,
    },
    limits,
    time::Duration,
};

/// A step of a case.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// By whom, all at once.
    Ask(Vec<(usize, Deed)>),
    /// A caller watches a family, from so many revisions back, or ahead.
    Watch { caller: usize, family: Family, back: i64 },
    /// The watch of this place in the list ends.
    Unwatch(usize),
    /// The past is compacted away.
    Compact,
    /// Nobody asks anything for so long.
    Pass(Duration),
    /// A lease is not renewed any more: until it is gone.
    Await(LeaseId),
    /// A fault, an operation in it, and its end.
    Fault(Mishap),
}

/// A submission.
#[derive(Clone, Debug)]
pub(super) enum Deed {
    Transact {
        compares: Vec<Condition>,
        writes: Vec<Write>,
        otherwise: Vec<Key>,
    },
    /// A read so many revisions back, or ahead; `None` is now.
    Read {
        family: Family,
        after: Option<Key>,
        limit: u16,
        back: Option<i64>,
        consistency: Consistency,
    },
    Plain(Submission),
}

/// A compare.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition {
    Plain(Compare),
    /// With the revision that stands.
    Unchanged(Key),
}

pub(super) fn lease(n: u64) -> LeaseId {
    LeaseId::from_bits(0x1000 + n)
}

fn boss(n: u64) -> EntityId {
    EntityId::new(EntityKind::Boss, n).expect("a small number")
}

fn any_lease() -> impl Strategy<Value = LeaseId> + Clone {
    (1..4_u64).prop_map(lease)
}

fn key() -> impl Strategy<Value = Key> + Clone {
    prop_oneof![
        1 => Just(Key::Leader),
        2 => (0..2_u8).prop_map(|n| Key::Region(RegionId(n))),
        2 => any_lease().prop_map(Key::Worker),
        4 => (1..4_u64).prop_map(|n| Key::Owner(boss(n))),
    ]
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(vec![Family::Leader, Family::Regions, Family::Workers, Family::Owners, Family::Owners])
}

fn value(key: Key, n: u64) -> Value {
    match key {
        Key::Leader => Value::Leader(Leader { node: NodeId(n as u32), lease: lease(n) }),
        Key::Region(_) => Value::Down(Down { stand_in: RegionId(n as u8) }),
        Key::Worker(_) => Value::Worker(Worker { node: NodeId(n as u32), region: RegionId(n as u8) }),
        Key::Owner(_) => Value::Owner(Ownership { lease: lease(n), epoch: Epoch(n), nonce: Nonce(n) }),
    }
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        4 => (key(), 0..9_u64, prop::option::weighted(0.4, any_lease()))
            .prop_map(|(key, n, lease)| Write::Put { key, value: value(key, n), lease }),
        1 => key().prop_map(Write::Delete),
    ]
}

/// Each key mostly once: twice is malformed.
fn writes() -> impl Strategy<Value = Vec<Write>> {
    let target = |write: &Write| match *write {
        Write::Put { key, .. } | Write::Delete(key) => key,
    };
    (prop::collection::vec(write(), 0..5), prop::bool::weighted(0.05)).prop_map(move |(mut writes, twice)| {
        if !twice {
            writes.sort_by_key(target);
            writes.dedup_by_key(|write| target(write));
        }
        writes
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        2 => key().prop_map(|key| Condition::Plain(Compare::Absent(key))),
        2 => key().prop_map(|key| Condition::Plain(Compare::Present(key))),
        5 => key().prop_map(Condition::Unchanged),
        1 => (key(), 0..9_u64).prop_map(|(key, n)| Condition::Plain(Compare::Unchanged(key, Revision(n)))),
    ]
}

fn consistency() -> impl Strategy<Value = Consistency> {
    prop_oneof![3 => Just(Consistency::Linearizable), 1 => Just(Consistency::Serializable)]
}

fn deed() -> impl Strategy<Value = Deed> {
    let ttl = (2..5_u64).prop_map(Duration::from_secs);
    let transact = (prop::collection::vec(condition(), 0..3), writes(), prop::collection::vec(key(), 0..3))
        .prop_map(|(compares, writes, otherwise)| Deed::Transact { compares, writes, otherwise });
    let limit = limits::DIRECTORY_OPERATIONS;
    let large = (limit..=limit + 1, 0..3_u8).prop_map(|(count, part)| {
        let keys = (0..count).map(|n| Key::Owner(boss(1_000 + n as u64)));
        let (mut compares, mut writes, mut otherwise) = (vec![], vec![], vec![]);
        match part {
            0 => compares = keys.map(|key| Condition::Plain(Compare::Absent(key))).collect(),
            1 => writes = keys.map(Write::Delete).collect(),
            _ => otherwise = keys.collect(),
        }
        Deed::Transact { compares, writes, otherwise }
    });
    let read = (
        family(),
        prop::option::weighted(0.3, key()),
        prop_oneof![4 => 1..4_u16, 3 => Just(limits::DIRECTORY_PAGE), 1 => Just(0), 1 => Just(limits::DIRECTORY_PAGE + 1)],
        prop::option::of(-1..5_i64),
        consistency(),
    )
        .prop_map(|(family, after, limit, back, consistency)| {
            // A key of another family says nothing.
            let after = after.filter(|key| key.family() == family);
            Deed::Read { family, after, limit, back, consistency }
        });
    prop_oneof![
        3 => (any_lease(), ttl).prop_map(|(lease, ttl)| Deed::Plain(Submission::Grant { lease, ttl })),
        2 => any_lease().prop_map(|lease| Deed::Plain(Submission::KeepAlive(lease))),
        1 => any_lease().prop_map(|lease| Deed::Plain(Submission::Revoke(lease))),
        9 => transact,
        1 => large,
        3 => read,
        3 => (key(), consistency())
            .prop_map(|(key, consistency)| Deed::Plain(Submission::Get { key, consistency })),
    ]
}

fn round() -> impl Strategy<Value = Step> {
    prop::collection::vec((0..CALLERS, deed()), 1..5).prop_map(Step::Ask)
}

fn watch() -> impl Strategy<Value = Step> {
    (0..CALLERS, family(), -2..6_i64).prop_map(|(caller, family, back)| Step::Watch { caller, family, back })
}

/// In fair weather, and so quickly that no lease ends.
pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![14 => round(), 4 => watch(), 1 => (0..4_usize).prop_map(Step::Unwatch), 1 => Just(Step::Compact)]
}

/// With leases that end.
pub(super) fn life() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => round(),
        1 => watch(),
        2 => (200..1_500_u64).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        2 => any_lease().prop_map(Step::Await),
    ]
}

/// With faults.
pub(super) fn weather(faults: &'static [Fault]) -> impl Strategy<Value = Step> {
    let mishap = Mishap::any(faults);
    prop_oneof![5 => round(), 2 => watch(), 2 => mishap.prop_map(Step::Fault)]
}

/// What a deed is where the directory stands like this.
pub(super) fn submission(state: &State, deed: &Deed) -> Submission {
    match deed {
        Deed::Transact { compares, writes, otherwise } => {
            let compare = |condition: &Condition| match *condition {
                Condition::Plain(compare) => compare,
                Condition::Unchanged(key) => {
                    Compare::Unchanged(key, state.stands(key).map_or(Revision(7), |record| record.mod_revision))
                }
            };
            let compares = compares.iter().map(compare).collect();
            let (writes, otherwise) = (writes.clone(), otherwise.clone());
            Submission::Transact(Arc::new(Transaction { compares, writes, otherwise }))
        }
        &Deed::Read { family, after, limit, back, consistency } => {
            let at = back.map(|back| state.back(back));
            Submission::Read { family, after, limit, at, consistency }
        }
        Deed::Plain(submission) => submission.clone(),
    }
}

/// Puts something of every family, so that every watch has something to tell.
pub(super) fn marker() -> Submission {
    let keys = [Key::Leader, Key::Region(RegionId(9)), Key::Worker(lease(9)), Key::Owner(boss(9))];
    let writes = keys.map(|key| Write::Put { key, value: value(key, 9), lease: None }).to_vec();
    Submission::Transact(Arc::new(Transaction { compares: vec![], writes, otherwise: vec![] }))
}

/// Puts a key that goes with a lease.
pub(super) fn put_under(lease: LeaseId) -> Submission {
    let key = Key::Worker(lease);
    let writes = vec![Write::Put { key, value: value(key, 1), lease: Some(lease) }];
    Submission::Transact(Arc::new(Transaction { compares: vec![], writes, otherwise: vec![] }))
}

/// Where [`put`] puts.
pub(super) fn probe() -> Key {
    Key::Owner(boss(8))
}

/// Puts something of which can be told whether it is there.
pub(super) fn put(n: u64) -> Submission {
    let writes = vec![Write::Put { key: probe(), value: value(probe(), n), lease: None }];
    Submission::Transact(Arc::new(Transaction { compares: vec![], writes, otherwise: vec![] }))
}
