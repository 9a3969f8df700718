//! What etcd is asked in its own words, as the directory door has it, and what the door answers in etcd's words.

use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbDeleteRequest, PbEvent, PbKeyValue, PbPutRequest, PbResponseHeader, PbTargetUnion,
    PbTxnOpRequest, PbTxnRequest,
};
use tonic::{Code, Status};
use worldline_proto::{LeaseId, Revision};
use worldline_real::directory::codec;
use worldline_system::{
    Refusal,
    doors::directory::{Change, Compare, Family, Key, Record, Transaction, Write},
    outcome::End,
};

pub const FAMILIES: [Family; 4] = [Family::Leader, Family::Regions, Family::Workers, Family::Owners];
/// etcd's numbers of how a compare compares.
const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
/// etcd's number of an event that deletes.
const DELETE: i32 = 1;

/// A number of etcd's.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("a simulated number is small")
}

/// A number of etcd's, read.
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What every answer begins with.
pub fn header(revision: Revision) -> Option<PbResponseHeader> {
    Some(PbResponseHeader { cluster_id: 1, member_id: 1, revision: signed(revision.0), raft_term: 1 })
}

/// The family that has this path, or ends with it: behind its last key there is nothing more of it.
pub fn family(path: &[u8]) -> Result<Family, Status> {
    let within = |family: &Family| {
        let (first, end) = codec::range(*family);
        (first.as_bytes()..=end.as_bytes()).contains(&path)
    };
    FAMILIES.into_iter().find(within).ok_or_else(|| Status::unimplemented("no path of the directory"))
}

fn key(path: &[u8]) -> Result<Key, Status> {
    codec::key(path).map_err(|unreadable| Status::unimplemented(unreadable.to_string()))
}

/// A record. How often its key was written before the model does not say.
pub fn pair(record: &Record) -> PbKeyValue {
    PbKeyValue {
        key: codec::path(record.key).into_bytes(),
        create_revision: signed(record.mod_revision.0),
        mod_revision: signed(record.mod_revision.0),
        version: 1,
        value: codec::encode(record.value),
        lease: record.lease.map_or(0, |lease| signed(lease.get())),
    }
}

/// A change that was told of up to a revision.
pub fn event(change: &Change, through: Revision) -> PbEvent {
    match change {
        Change::Put(record) => PbEvent { kv: Some(pair(record)), ..PbEvent::default() },
        Change::Deleted(key) => {
            let gone = PbKeyValue {
                key: codec::path(*key).into_bytes(),
                mod_revision: signed(through.0),
                ..PbKeyValue::default()
            };
            PbEvent { r#type: DELETE, kv: Some(gone), ..PbEvent::default() }
        }
    }
}

/// A transaction.
pub fn transaction(request: &PbTxnRequest) -> Result<Transaction, Status> {
    let writes = request.success.iter().map(|operation| match &operation.request {
        Some(PbTxnOpRequest::RequestPut(PbPutRequest { key: path, value, lease, .. })) => {
            let key = key(path)?;
            let value = codec::value(key, value).map_err(|problem| Status::unimplemented(problem.to_string()))?;
            let lease = Some(unsigned(*lease)).filter(|bits| *bits != 0).map(LeaseId::from_bits);
            Ok(Write::Put { key, value, lease })
        }
        Some(PbTxnOpRequest::RequestDeleteRange(PbDeleteRequest { key: path, .. })) => Ok(Write::Delete(key(path)?)),
        _ => Err(Status::unimplemented("no such write")),
    });
    let otherwise = request.failure.iter().map(|operation| match &operation.request {
        Some(PbTxnOpRequest::RequestRange(range)) => key(&range.key),
        _ => Err(Status::unimplemented("no such read")),
    });
    Ok(Transaction {
        compares: request.compare.iter().map(compare).collect::<Result<_, _>>()?,
        writes: writes.collect::<Result<_, _>>()?,
        otherwise: otherwise.collect::<Result<_, _>>()?,
    })
}

fn compare(compare: &PbCompare) -> Result<Compare, Status> {
    let key = key(&compare.key)?;
    let target = PbCompareTarget::try_from(compare.target);
    match (target, compare.result, compare.target_union.clone()) {
        (Ok(PbCompareTarget::Create), EQUAL, Some(PbTargetUnion::CreateRevision(0))) => Ok(Compare::Absent(key)),
        (Ok(PbCompareTarget::Create), GREATER, Some(PbTargetUnion::CreateRevision(0))) => Ok(Compare::Present(key)),
        (Ok(PbCompareTarget::Mod), EQUAL, Some(PbTargetUnion::ModRevision(revision))) => {
            Ok(Compare::Unchanged(key, Revision(unsigned(revision))))
        }
        (Ok(PbCompareTarget::Version), LESS, Some(PbTargetUnion::Version(0))) => {
            Ok(Compare::Unchanged(key, Revision(0)))
        }
        _ => Err(Status::unimplemented("no such compare")),
    }
}

/// How etcd says that nothing came of a request.
pub fn status(end: End) -> Status {
    let (code, message) = match end {
        End::Unknown => (Code::Unavailable, "etcdserver: request timed out"),
        End::Refused(refusal) => match refusal {
            Refusal::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
            Refusal::Busy => (Code::ResourceExhausted, "etcdserver: too many requests"),
            Refusal::DatabaseFull => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Refusal::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
            Refusal::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
            Refusal::TooManyOperations => (Code::InvalidArgument, "etcdserver: too many operations in txn request"),
            Refusal::Compacted { .. } => (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            Refusal::Malformed => (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            // Its members are gone: to etcd's clients that is no more than a request without an answer.
            _ => (Code::Unavailable, "etcdserver: request timed out"),
        },
    };
    Status::new(code, message)
}
