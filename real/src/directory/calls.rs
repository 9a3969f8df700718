//! One submission as what is asked of a connection.

use super::{
    client::{Range, Verdict},
    leases::Leases,
    link::Line,
};
use std::collections::BTreeSet;
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{Answer, Key, Submission, Transaction, Value, Write},
    limits::{DIRECTORY_OPERATIONS, DIRECTORY_PAGE},
};

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

/// Asks etcd. The caller has seen to it that the submission is not [`malformed`], and keeps the deadline. `asked` is set where
/// it has left before what the verdict is about.
pub(super) async fn call(
    line: &Line,
    leases: &Leases,
    submission: &Submission,
    asked: &mut bool,
) -> Result<Answer, Verdict> {
    let connection = &line.connection;
    Ok(match submission {
        &Submission::Grant { lease, ttl } => {
            connection.grant(lease, ttl).await?;
            Answer::Granted(Outcome::Done(()))
        }
        &Submission::KeepAlive(lease) => Answer::KeptAlive(Outcome::Done(leases.keep_alive(line, lease, asked).await?)),
        &Submission::Revoke(lease) => {
            connection.revoke(lease).await?;
            Answer::Revoked(Outcome::Done(()))
        }
        Submission::Transact(transaction) => Answer::Transacted(Outcome::Done(connection.transact(transaction).await?)),
        &Submission::Read { family, after, limit, at, consistency } => {
            let asked = Range { family, after, limit, at, consistency };
            Answer::Read(Outcome::Done(connection.read(asked).await?))
        }
        &Submission::Get { key, consistency } => Answer::Got(Outcome::Done(connection.get(key, consistency).await?)),
        Submission::Watch { .. } | Submission::Unwatch(_) => return Err(Verdict::Refused(Refusal::Malformed)),
    })
}
