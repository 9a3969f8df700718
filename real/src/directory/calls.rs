//! One submission as calls to etcd.

use super::{
    codec,
    leases::Leases,
    link::Line,
    verdict::{Verdict, verdict},
};
use etcd_client::{
    Compare as Condition, CompareOp, Error, GetOptions, KeyValue, LeaseGrantOptions, PutOptions, SortOrder, SortTarget,
    Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use std::collections::BTreeSet;
use worldline_proto::{LeaseId, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{
        Answer, Compare, Consistency, Family, Key, Page, Record, Submission, Transacted, Transaction, Value, Write,
    },
    limits::{DIRECTORY_OPERATIONS, DIRECTORY_PAGE},
    time::Duration,
};

const NANOS_PER_SEC: u64 = 1_000_000_000;

impl From<Error> for Verdict {
    fn from(error: Error) -> Self {
        verdict(&error)
    }
}

/// What is refused without asking etcd.
pub(super) fn malformed(submission: &Submission) -> Option<Refusal> {
    match submission {
        Submission::Transact(transaction) => {
            let Transaction { compares, writes, otherwise } = &**transaction;
            if [compares.len(), writes.len(), otherwise.len()].into_iter().any(|count| count > DIRECTORY_OPERATIONS) {
                return Some(Refusal::TooManyOperations);
            }
            let keys: BTreeSet<Key> = writes.iter().map(key_of).collect();
            let foreign = |write: &Write| matches!(*write, Write::Put { key, value, .. } if !stands_under(key, value));
            (keys.len() < writes.len() || writes.iter().any(foreign)).then_some(Refusal::Malformed)
        }
        &Submission::Read { family, after, limit, .. } => {
            let foreign = after.is_some_and(|key| key.family() != family);
            (foreign || limit == 0 || limit > DIRECTORY_PAGE).then_some(Refusal::Malformed)
        }
        _ => None,
    }
}

const fn key_of(write: &Write) -> Key {
    match write {
        Write::Put { key, .. } | Write::Delete(key) => *key,
    }
}

const fn stands_under(key: Key, value: Value) -> bool {
    matches!(
        (key, value),
        (Key::Leader, Value::Leader(_))
            | (Key::Region(_), Value::Down(_))
            | (Key::Worker(_), Value::Worker(_))
            | (Key::Owner(_), Value::Owner(_))
    )
}

/// Asks etcd. The caller has seen to it that the submission is not [`malformed`], and keeps the deadline.
pub(super) async fn call(line: &Line, leases: &Leases, submission: &Submission) -> Result<Answer, Verdict> {
    Ok(match submission {
        &Submission::Grant { lease, ttl } => {
            grant(line, lease, ttl).await?;
            Answer::Granted(Outcome::Done(()))
        }
        &Submission::KeepAlive(lease) => Answer::KeptAlive(Outcome::Done(leases.keep_alive(line, lease).await?)),
        &Submission::Revoke(lease) => {
            line.lease().revoke(signed(lease.get())).await?;
            Answer::Revoked(Outcome::Done(()))
        }
        Submission::Transact(transaction) => Answer::Transacted(Outcome::Done(transact(line, transaction).await?)),
        &Submission::Read { family, after, limit, at, consistency } => {
            Answer::Read(Outcome::Done(read(line, family, after, limit, at, consistency).await?))
        }
        &Submission::Get { key, consistency } => Answer::Got(Outcome::Done(get(line, key, consistency).await?)),
        Submission::Watch { .. } | Submission::Unwatch(_) => return Err(Verdict::Refused(Refusal::Malformed)),
    })
}

async fn grant(line: &Line, lease: LeaseId, ttl: Duration) -> Result<(), Verdict> {
    let (id, ttl_s) = (signed(lease.get()), signed(ttl.as_nanos().div_ceil(NANOS_PER_SEC).max(1)));
    let granted = line.lease().grant(ttl_s, Some(LeaseGrantOptions::new().with_id(id))).await;
    match granted.map_err(Verdict::from) {
        Ok(_) => Ok(()),
        // It may stand nevertheless. What etcd has answered it will not do later: what it has now tells.
        Err(Verdict::Full) => match line.lease().time_to_live(id, None).await {
            Ok(lease) if lease.ttl() < 0 => Err(Verdict::Refused(Refusal::DatabaseFull)),
            Ok(_) | Err(_) => Err(Verdict::Unknown),
        },
        Err(verdict) => Err(verdict),
    }
}

async fn transact(line: &Line, transaction: &Transaction) -> Result<Transacted, Verdict> {
    let writes: Vec<TxnOp> = transaction.writes.iter().map(operation).collect();
    let otherwise: Vec<TxnOp> = transaction.otherwise.iter().map(|&key| TxnOp::get(codec::path(key), None)).collect();
    let asked = Txn::new()
        .when(transaction.compares.iter().map(condition).collect::<Vec<_>>())
        .and_then(writes)
        .or_else(otherwise);
    let response = match line.kv().txn(asked).await.map_err(Verdict::from) {
        Ok(response) => response,
        Err(Verdict::Full) => return Err(resolve_full(line, transaction).await),
        Err(verdict) => return Err(verdict),
    };
    let revision = codec::revision(response.header().ok_or(Verdict::Unknown)?.revision());
    let mut otherwise = Vec::new();
    if !response.succeeded() {
        for response in response.op_responses() {
            if let TxnOpResponse::Get(found) = response {
                otherwise.extend(found.kvs().iter().filter_map(codec::readable));
            }
        }
    }
    Ok(Transacted { succeeded: response.succeeded(), revision, otherwise })
}

/// etcd has said of a write that its database is full, and may have written nevertheless. If it has, a key that the write
/// compares and puts does not stand any more as the write wanted it: one that does tells that nothing was written.
async fn resolve_full(line: &Line, transaction: &Transaction) -> Verdict {
    let puts =
        |key: Key| transaction.writes.iter().any(|write| matches!(write, Write::Put { .. }) && key_of(write) == key);
    let tells = |compare: &&Compare| !matches!(compare, Compare::Present(_)) && puts(compare.key());
    let Some(compare) = transaction.compares.iter().find(tells) else { return Verdict::Unknown };
    let Ok(found) = line.kv().get(codec::path(compare.key()), None).await else { return Verdict::Unknown };
    let stands = found.kvs().first().map(|pair| codec::revision(pair.mod_revision()));
    let as_wanted = match *compare {
        Compare::Absent(_) => stands.is_none(),
        Compare::Unchanged(_, revision) => stands == Some(revision),
        Compare::Present(_) => false,
    };
    if as_wanted { Verdict::Refused(Refusal::DatabaseFull) } else { Verdict::Unknown }
}

fn condition(compare: &Compare) -> Condition {
    let path = codec::path(compare.key());
    match *compare {
        Compare::Absent(_) => Condition::create_revision(path, CompareOp::Equal, 0),
        Compare::Present(_) => Condition::create_revision(path, CompareOp::Greater, 0),
        // To etcd a key that is absent was last changed by revision 0; to the door it was not changed at all.
        Compare::Unchanged(_, Revision(0)) => Condition::version(path, CompareOp::Less, 0),
        Compare::Unchanged(_, revision) => Condition::mod_revision(path, CompareOp::Equal, signed(revision.0)),
    }
}

fn operation(write: &Write) -> TxnOp {
    match *write {
        Write::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(signed(lease.get())));
            TxnOp::put(codec::path(key), codec::encode(value), options)
        }
        Write::Delete(key) => TxnOp::delete(codec::path(key), None),
    }
}

async fn read(
    line: &Line,
    family: Family,
    after: Option<Key>,
    limit: u16,
    at: Option<Revision>,
    consistency: Consistency,
) -> Result<Page, Verdict> {
    let (first, end) = codec::range(family);
    let mut from = after.map_or_else(|| first.as_bytes().to_vec(), |key| behind(codec::path(key).as_bytes()));
    let mut at = at;
    loop {
        let options = GetOptions::new().with_range(end).with_limit(i64::from(limit));
        let options = options.with_revision(at.map_or(0, |at| signed(at.0)));
        let found = fetch(line, from, options, consistency).await?;
        let revision = at.unwrap_or(codec::revision(found.header().ok_or(Verdict::Unknown)?.revision()));
        let records: Vec<Record> = found.kvs().iter().filter_map(codec::readable).collect();
        let more = found.more();
        match found.kvs().last() {
            // A page that has nothing to show must not look like the last one.
            Some(last) if records.is_empty() && more => (from, at) = (behind(last.key()), Some(revision)),
            _ => return Ok(Page { records, revision, more }),
        }
    }
}

/// The first key behind this one, in etcd's order.
fn behind(path: &[u8]) -> Vec<u8> {
    [path, &[0]].concat()
}

async fn get(line: &Line, key: Key, consistency: Consistency) -> Result<(Option<Record>, Revision), Verdict> {
    let found = fetch(line, codec::path(key).into_bytes(), GetOptions::new(), consistency).await?;
    let revision = codec::revision(found.header().ok_or(Verdict::Unknown)?.revision());
    Ok((found.kvs().first().and_then(codec::readable), revision))
}

async fn fetch(
    line: &Line,
    from: Vec<u8>,
    options: GetOptions,
    consistency: Consistency,
) -> Result<etcd_client::GetResponse, Verdict> {
    let found = match consistency {
        Consistency::Linearizable => line.kv().get(from, Some(options)).await,
        Consistency::Serializable => line.kv_without_leader().get(from, Some(options.with_serializable())).await,
    };
    match found.map_err(Verdict::from) {
        Err(Verdict::Compacted) => Err(compacted(line).await),
        other => other,
    }
}

/// The refusal of what asks for a revision that has been compacted away.
pub(super) async fn compacted(line: &Line) -> Verdict {
    match oldest(line).await {
        Ok(oldest) => Verdict::Refused(Refusal::Compacted { oldest }),
        Err(verdict) => verdict,
    }
}

/// The oldest revision that can be read. etcd tells it only to a watch that begins before it.
async fn oldest(line: &Line) -> Result<Revision, Verdict> {
    let mut stream =
        line.watch().watch(codec::path(Key::Leader), Some(WatchOptions::new().with_start_revision(1))).await?;
    while let Some(response) = stream.message().await? {
        if response.canceled() {
            return Ok(codec::revision(response.compact_revision()));
        }
    }
    Err(Verdict::Unknown)
}

/// The key of a range, or the one, that had changed last before a revision; refused where not everything from that revision on
/// can still be watched: where the one before it cannot be read.
pub(super) async fn before(
    line: &Line,
    first: &[u8],
    end: Option<&'static str>,
    from: Revision,
) -> Result<Option<KeyValue>, Verdict> {
    let before = from.0.saturating_sub(1).max(1);
    let mut options = GetOptions::new().with_revision(signed(before)).with_limit(1);
    if let Some(end) = end {
        options = options.with_range(end).with_sort(SortTarget::Mod, SortOrder::Descend);
    }
    match fetch(line, first.to_vec(), options, Consistency::Serializable).await {
        Ok(mut found) => Ok(found.take_kvs().pop()),
        // A revision that is yet to come: nothing of it can have been compacted.
        Err(Verdict::Refused(Refusal::Malformed)) => Ok(None),
        // What happened in the oldest revision that can be read is partly gone: what it deleted.
        Err(Verdict::Refused(Refusal::Compacted { oldest })) => {
            Err(Verdict::Refused(Refusal::Compacted { oldest: oldest.next() }))
        }
        Err(verdict) => Err(verdict),
    }
}

/// A number as etcd takes it. Ids and revisions are below its bound; what is not compares with nothing.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
