//! The state machine without members: revisions, leases, the past, and going back.

use super::*;
use worldline_proto::{EntityId, EntityKind, Epoch, Nonce};
use worldline_system::doors::directory::{Ownership, Value};

fn key(n: u64) -> Key {
    Key::Owner(EntityId::new(EntityKind::Npc, n).unwrap())
}

fn value(n: u64) -> Value {
    Value::Owner(Ownership { lease: lease(1), epoch: Epoch(n), nonce: Nonce(n) })
}

fn lease(n: u64) -> LeaseId {
    LeaseId::from_bits(n)
}

fn put(k: u64, n: u64) -> Write {
    Write::Put { key: key(k), value: value(n), lease: None }
}

/// A store that is given commands one after the other, a second apart.
struct Fed {
    store: Store,
    full: bool,
}

impl Fed {
    fn new() -> Self {
        Self { store: Store::new(), full: false }
    }

    fn feed(&mut self, command: Command) -> Effect {
        let at = Instant::default() + Duration::from_secs(self.store.applied() + 1);
        self.store.apply(1, at, &Proposal { id: 0, command }, self.full).clone()
    }

    fn grant(&mut self, n: u64) -> Answer {
        *self.feed(Command::Grant { lease: lease(n), ttl: Duration::from_secs(10) }).answer.unwrap()
    }

    fn transact(&mut self, compares: Vec<Compare>, writes: Vec<Write>) -> Outcome<Transacted> {
        let transaction = Transaction { compares, writes, otherwise: vec![key(1), key(9)] };
        match *self.feed(Command::Transact(Arc::new(transaction))).answer.unwrap() {
            Answer::Transacted(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn put(&mut self, k: u64, n: u64) -> u64 {
        match self.transact(vec![], vec![put(k, n)]) {
            Outcome::Done(Transacted { succeeded: true, revision, .. }) => revision.0,
            other => panic!("{other:?}"),
        }
    }

    /// Key numbers and value numbers at a revision.
    fn at(&self, revision: u64) -> Vec<(u64, u64)> {
        let page = self.store.page(Family::Owners, None, 500, Revision(revision));
        page.records.iter().map(numbers).collect()
    }
}

fn numbers(record: &Record) -> (u64, u64) {
    match (record.key, record.value) {
        (Key::Owner(entity), Value::Owner(ownership)) => (entity.number(), ownership.epoch.0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transaction_that_writes_has_a_revision_of_its_own_and_others_have_none() {
    let mut fed = Fed::new();
    assert_eq!(fed.put(1, 1), 2, "an empty etcd stands at revision 1");
    assert_eq!(fed.put(1, 1), 3, "the same value again is a change");
    let nothing = Outcome::Done(Transacted { succeeded: true, revision: Revision(3), otherwise: vec![] });
    assert_eq!(fed.transact(vec![], vec![Write::Delete(key(5))]), nothing, "deleting nothing changes nothing");
    assert_eq!(fed.transact(vec![Compare::Present(key(1))], vec![]), nothing);
    fed.transact(vec![], vec![put(1, 4), put(2, 4), Write::Delete(key(3))]);
    assert_eq!((fed.store.revision(), fed.at(4)), (Revision(4), vec![(1, 4), (2, 4)]));
}

#[test]
fn compares_look_at_presence_and_at_the_last_change() {
    let mut fed = Fed::new();
    fed.put(1, 1);
    let holds = |fed: &mut Fed, compare| match fed.transact(vec![compare], vec![]) {
        Outcome::Done(Transacted { succeeded, otherwise, .. }) => {
            assert_eq!(otherwise.len(), usize::from(!succeeded), "what exists of the otherwise keys, if they are read");
            succeeded
        }
        other => panic!("{other:?}"),
    };
    assert!(holds(&mut fed, Compare::Present(key(1))) && holds(&mut fed, Compare::Absent(key(2))));
    assert!(!holds(&mut fed, Compare::Absent(key(1))) && !holds(&mut fed, Compare::Present(key(2))));
    assert!(holds(&mut fed, Compare::Unchanged(key(1), Revision(2))));
    assert!(!holds(&mut fed, Compare::Unchanged(key(1), Revision(1))));
    assert!(!holds(&mut fed, Compare::Unchanged(key(2), Revision(0))));
}

#[test]
fn a_lease_takes_its_keys_along_in_one_revision() {
    let mut fed = Fed::new();
    assert_eq!(fed.grant(1), Answer::Granted(Outcome::Done(())));
    assert_eq!(fed.grant(1), Answer::Granted(Outcome::Refused(Refusal::LeaseExists)));
    let attached = |k, id| Write::Put { key: key(k), value: value(k), lease: Some(lease(id)) };
    fed.transact(vec![], vec![attached(1, 1), attached(2, 1), attached(3, 1)]);
    fed.put(3, 7);
    let dead = fed.transact(vec![], vec![put(4, 4), attached(5, 2)]);
    assert_eq!(dead, Outcome::Refused(Refusal::LeaseNotFound));
    let before = fed.store.revision();
    let effect = fed.feed(Command::Revoke(lease(1)));
    assert_eq!(*effect.changes, [Change::Deleted(key(1)), Change::Deleted(key(2))]);
    assert_eq!((effect.revision, fed.at(effect.revision.0)), (before.next(), vec![(3, 7)]), "3 was detached");
    let again = fed.feed(Command::Revoke(lease(1))).answer.unwrap();
    assert_eq!(*again, Answer::Revoked(Outcome::Refused(Refusal::LeaseNotFound)));
}

#[test]
fn the_past_can_be_read_until_it_is_compacted() {
    let mut fed = Fed::new();
    fed.put(1, 1);
    fed.put(2, 2);
    fed.transact(vec![], vec![Write::Delete(key(1))]);
    fed.put(1, 4);
    assert_eq!(fed.at(2), [(1, 1)]);
    assert_eq!(fed.at(3), [(1, 1), (2, 2)]);
    assert_eq!(fed.at(4), [(2, 2)]);
    fed.transact(vec![], vec![Write::Delete(key(2))]);
    fed.store.compact();
    assert_eq!(fed.at(6), [(1, 4)], "what is current stays");
    assert_eq!(fed.store.readable(Revision(5), Revision(6)), Err(Refusal::Compacted { oldest: Revision(6) }));
    assert_eq!(fed.store.readable(Revision(7), Revision(6)), Err(Refusal::Malformed), "the future");
    assert_eq!(fed.store.families[Family::Owners as usize].len(), 1, "a deleted key leaves nothing behind");
}

#[test]
fn a_family_is_read_in_pages() {
    let mut fed = Fed::new();
    for n in 1..=5 {
        fed.put(n, n);
    }
    let page = fed.store.page(Family::Owners, None, 2, Revision(6));
    assert_eq!((page.records.iter().map(numbers).collect::<Vec<_>>(), page.more), (vec![(1, 1), (2, 2)], true));
    let rest = fed.store.page(Family::Owners, Some(key(2)), 3, Revision(6));
    assert_eq!((rest.records.len(), rest.more), (3, false));
    assert_eq!(fed.store.page(Family::Workers, None, 2, Revision(6)).records, []);
}

#[test]
fn a_full_database_refuses_what_would_grow_it() {
    let mut fed = Fed::new();
    fed.put(1, 1);
    fed.full = true;
    assert_eq!(fed.grant(1), Answer::Granted(Outcome::Refused(Refusal::DatabaseFull)));
    assert_eq!(fed.transact(vec![], vec![put(1, 2)]), Outcome::Refused(Refusal::DatabaseFull));
    assert!(matches!(fed.transact(vec![], vec![Write::Delete(key(1))]), Outcome::Done(_)));
}

#[test]
fn going_back_leaves_what_there_was() {
    let mut fed = Fed::new();
    let state = |store: &Store| {
        let records: Vec<Record> = [Family::Leader, Family::Regions, Family::Workers, Family::Owners]
            .into_iter()
            .flat_map(|family| store.records(family))
            .collect();
        let leases: Vec<(LeaseId, BTreeSet<Key>)> =
            store.leases.iter().map(|(&id, lease)| (id, lease.keys.clone())).collect();
        (store.applied(), store.revision(), records, leases)
    };
    let mut states = vec![];
    for n in 0..300_u64 {
        let pick = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let (k, id) = (pick % 5, 1 + pick / 5 % 3);
        match pick / 15 % 5 {
            0 => drop(fed.grant(id)),
            1 => drop(fed.feed(Command::Revoke(lease(id)))),
            2 => drop(fed.transact(vec![], vec![Write::Delete(key(k)), put(k + 5, n)])),
            3 => {
                fed.put(k, n);
            }
            _ => {
                let write = Write::Put { key: key(k), value: value(n), lease: Some(lease(id)) };
                fed.transact(vec![], vec![write]);
            }
        }
        states.push(state(&fed.store));
    }
    for expected in states.iter().rev() {
        fed.store.roll_back(expected.0);
        assert_eq!(&state(&fed.store), expected);
    }
}

#[test]
fn history_is_bounded_and_a_moment_of_it_is_found() {
    let mut fed = Fed::new();
    let written = EFFECTS_KEPT as u64 + 100;
    for n in 0..written {
        fed.put(n % 7, n);
    }
    assert_eq!(fed.store.effects.len(), EFFECTS_KEPT);
    let versions: usize = fed.store.families.iter().flat_map(|family| family.values()).map(Vec::len).sum();
    assert!(versions <= EFFECTS_KEPT + 7, "{versions}");
    assert_eq!(fed.store.index_at(Instant::default() + Duration::from_secs(written - 5)), written - 5);
    fed.store.roll_back(0);
    assert_eq!(fed.store.applied(), written - EFFECTS_KEPT as u64 + 1, "as far as it is kept");
}
