//! How keys and values stand in etcd: paths and JSON that an operator reads with `etcdctl get --prefix /worldline/`.
//!
//! ```text
//! /worldline/leader/orchestrator        {"node":3,"lease":"00c3…"}
//! /worldline/regions/2                  {"stand_in":1}
//! /worldline/workers/00ab4f0e1d2c3b4a   {"node":7,"region":0}
//! /worldline/owners/boss-1              {"lease":"00ab4f0e1d2c3b4a","epoch":3,"nonce":"9f02…"}
//! ```
//!
//! * A key has exactly one path. A path that is nobody's (`boss-01`, `boss-x`) is no key of ours.
//! * A value with fields that this version does not know is read without them.
//! * What cannot be read (an operator wrote it by hand) is, to the roles, not there; see [`crate::directory`].

use etcd_client::{Event, EventType, KeyValue};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    str,
    sync::{Mutex, PoisonError},
};
use worldline_proto::{Epoch, LeaseId, NodeId, Nonce, Revision};
use worldline_system::doors::directory::{
    Change, Down, Family, Key, Leader, Ownership, Record, RegionId, Value, Worker,
};

/// Versions of keys of which the log has said that they cannot be read, before it may say so again.
const TOLD_MAX: usize = 1_024;

/// Why a key or a value in etcd is none of the directory's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No key of the directory has this path.
    #[error("`{0}` is no key of the directory")]
    Key(String),
    /// The value under a key is not what stands under such a key.
    #[error("the value of `{key}` is unreadable: {problem}")]
    Value {
        /// Under which key it stands.
        key: Key,
        /// What is wrong with it.
        problem: String,
    },
    /// An event without a key.
    #[error("an event has no key")]
    Nothing,
}

#[derive(Serialize, Deserialize)]
struct LeaderJson {
    node: NodeId,
    lease: LeaseId,
}

#[derive(Serialize, Deserialize)]
struct DownJson {
    stand_in: RegionId,
}

#[derive(Serialize, Deserialize)]
struct WorkerJson {
    node: NodeId,
    region: RegionId,
}

#[derive(Serialize, Deserialize)]
struct OwnershipJson {
    lease: LeaseId,
    epoch: Epoch,
    /// Hexadecimal: many readers of JSON round numbers of 64 bits.
    nonce: String,
}

/// Where a family's keys lie: from the first path up to, and without, the second.
#[must_use]
pub const fn range(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::Leader => ("/worldline/leader/orchestrator", "/worldline/leader/orchestrator\0"),
        Family::Regions => ("/worldline/regions/", "/worldline/regions0"),
        Family::Workers => ("/worldline/workers/", "/worldline/workers0"),
        Family::Owners => ("/worldline/owners/", "/worldline/owners0"),
    }
}

/// The path of a key.
#[must_use]
pub fn path(key: Key) -> String {
    key.to_string()
}

/// The key that has this path.
///
/// # Errors
/// None has.
pub fn key(path: &[u8]) -> Result<Key, Unreadable> {
    let parse = |path: &str| {
        let (family, name) = path.strip_prefix("/worldline/")?.split_once('/')?;
        let key = match family {
            "leader" => Some(Key::Leader),
            "regions" => name.parse().ok().map(RegionId).map(Key::Region),
            "workers" => name.parse().ok().map(Key::Worker),
            "owners" => name.parse().ok().map(Key::Owner),
            _ => None,
        };
        key.filter(|key| key.to_string() == path)
    };
    let found = str::from_utf8(path).ok().and_then(parse);
    found.ok_or_else(|| Unreadable::Key(String::from_utf8_lossy(path).into_owned()))
}

/// A value as it stands in etcd.
#[must_use]
pub fn encode(value: Value) -> Vec<u8> {
    match value {
        Value::Leader(Leader { node, lease }) => serde_json::to_vec(&LeaderJson { node, lease }),
        Value::Down(Down { stand_in }) => serde_json::to_vec(&DownJson { stand_in }),
        Value::Worker(Worker { node, region }) => serde_json::to_vec(&WorkerJson { node, region }),
        Value::Owner(Ownership { lease, epoch, nonce }) => {
            serde_json::to_vec(&OwnershipJson { lease, epoch, nonce: format!("{:016x}", nonce.0) })
        }
    }
    .expect("numbers and texts are always JSON")
}

/// The value under a key.
///
/// # Errors
/// It is not what stands under such a key.
pub fn value(key: Key, json: &[u8]) -> Result<Value, Unreadable> {
    let problem = |problem: String| Unreadable::Value { key, problem };
    let unread = |error: serde_json::Error| problem(error.to_string());
    Ok(match key {
        Key::Leader => {
            let LeaderJson { node, lease } = serde_json::from_slice(json).map_err(unread)?;
            Value::Leader(Leader { node, lease })
        }
        Key::Region(_) => {
            let DownJson { stand_in } = serde_json::from_slice(json).map_err(unread)?;
            Value::Down(Down { stand_in })
        }
        Key::Worker(_) => {
            let WorkerJson { node, region } = serde_json::from_slice(json).map_err(unread)?;
            Value::Worker(Worker { node, region })
        }
        Key::Owner(_) => {
            let OwnershipJson { lease, epoch, nonce } = serde_json::from_slice(json).map_err(unread)?;
            let digits = nonce.len() == 16 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit());
            let bits = if digits { u64::from_str_radix(&nonce, 16).ok() } else { None };
            let nonce = bits.ok_or_else(|| problem(format!("nonce `{nonce}` is not 16 hexadecimal digits")))?;
            Value::Owner(Ownership { lease, epoch, nonce: Nonce(nonce) })
        }
    })
}

/// A key and a value of etcd as a record.
///
/// # Errors
/// The key is none of the directory's, or its value is unreadable.
pub fn record(pair: &KeyValue) -> Result<Record, Unreadable> {
    let key = key(pair.key())?;
    let value = value(key, pair.value())?;
    Ok(Record { key, value, mod_revision: revision(pair.mod_revision()), lease: lease(pair.lease()) })
}

/// A record as the roles see it: not there if it cannot be read. The log says so once of each version of it.
#[must_use]
pub fn readable(pair: &KeyValue) -> Option<Record> {
    record(pair).inspect_err(|unreadable| tell(pair, unreadable)).ok()
}

fn tell(pair: &KeyValue, unreadable: &Unreadable) {
    static TOLD: Mutex<BTreeSet<(Vec<u8>, i64)>> = Mutex::new(BTreeSet::new());
    // Nothing panics while it holds the lock.
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.len() >= TOLD_MAX {
        told.clear();
    }
    if told.insert((pair.key().to_vec(), pair.mod_revision())) {
        tracing::warn!(%unreadable, "read as if it were not there");
    }
}

/// An event of a watch as a change. The revision of a change is [`KeyValue::mod_revision`], also where it deletes.
///
/// # Errors
/// The key is none of the directory's. A value that is unreadable is, to the roles, not there: [`Change::Deleted`].
pub fn change(event: &Event) -> Result<Change, Unreadable> {
    let pair = event.kv().ok_or(Unreadable::Nothing)?;
    match (event.event_type(), record(pair)) {
        (EventType::Put, Ok(record)) => Ok(Change::Put(record)),
        (EventType::Put, Err(unreadable)) => {
            tell(pair, &unreadable);
            key(pair.key()).map(Change::Deleted)
        }
        (EventType::Delete, _) => key(pair.key()).map(Change::Deleted),
    }
}

/// A revision as etcd counts it.
pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

fn lease(number: i64) -> Option<LeaseId> {
    let bits = u64::try_from(number).ok().filter(|&bits| bits != 0)?;
    Some(LeaseId::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::calls::malformed;
    use worldline_proto::{EntityId, EntityKind};
    use worldline_system::doors::directory::{Submission, Transaction, Write};

    fn owner(number: u64) -> Key {
        Key::Owner(EntityId::new(EntityKind::Boss, number).expect("a small number"))
    }

    #[test]
    fn an_operator_can_read_what_stands_in_etcd() {
        let lease = LeaseId::from_bits(0xab);
        let text = |value| String::from_utf8(encode(value)).expect("text");
        let owned = Value::Owner(Ownership { lease, epoch: Epoch(3), nonce: Nonce(0x9f) });
        assert_eq!(path(owner(1)), "/worldline/owners/boss-1");
        assert_eq!(text(owned), r#"{"lease":"00000000000000ab","epoch":3,"nonce":"000000000000009f"}"#);
        assert_eq!(text(Value::Worker(Worker { node: NodeId(7), region: RegionId(1) })), r#"{"node":7,"region":1}"#);
        let leader = Value::Leader(Leader { node: NodeId(3), lease });
        assert_eq!(text(leader), r#"{"node":3,"lease":"00000000000000ab"}"#);
    }

    #[test]
    fn keys_and_values_read_back_and_lie_in_their_familys_range() {
        let lease = LeaseId::from_bits(u64::MAX);
        let values = [
            (Key::Leader, Value::Leader(Leader { node: NodeId(u32::MAX), lease })),
            (Key::Region(RegionId(7)), Value::Down(Down { stand_in: RegionId(255) })),
            (Key::Worker(lease), Value::Worker(Worker { node: NodeId(0), region: RegionId(255) })),
            (
                owner(EntityId::NUMBER_MAX),
                Value::Owner(Ownership { lease, epoch: Epoch(u64::MAX), nonce: Nonce(u64::MAX) }),
            ),
        ];
        for (key, held) in values {
            let write = Write::Put { key, value: held, lease: None };
            let transaction = Transaction { compares: vec![], writes: vec![write], otherwise: vec![] };
            assert_eq!(malformed(&Submission::Transact(transaction.into())), None, "{key} takes its own kind of value");
            assert_eq!(super::key(path(key).as_bytes()), Ok(key));
            assert_eq!(value(key, &encode(held)), Ok(held));
            for family in [Family::Leader, Family::Regions, Family::Workers, Family::Owners] {
                let (first, end) = range(family);
                assert_eq!((first..end).contains(&path(key).as_str()), family == key.family());
            }
        }
    }

    #[test]
    fn what_somebody_wrote_by_hand_is_told_apart() {
        for path in [
            "",
            "/",
            "/worldline/owners/boss-01",
            "/worldline/owners/boss-+1",
            "/worldline/workers/7",
            "/worldline/leader/x",
            "/x",
        ] {
            assert_eq!(key(path.as_bytes()), Err(Unreadable::Key(path.to_owned())));
        }
        assert!(key(&[0xff, 0xfe]).is_err());
        for json in [
            "",
            "{}",
            "null",
            r#"{"lease":"x","epoch":3,"nonce":"000000000000009f"}"#,
            r#"{"lease":"00000000000000ab","epoch":3,"nonce":"9f"}"#,
        ] {
            let message = value(owner(1), json.as_bytes()).expect_err("wrong").to_string();
            assert!(message.contains("/worldline/owners/boss-1"), "{message}");
        }
        let newer = br#"{"node":7,"region":1,"zone":"b"}"#;
        assert!(value(Key::Worker(LeaseId::from_bits(1)), newer).is_ok(), "a newer version's field is passed over");
    }
}
