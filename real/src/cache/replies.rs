//! What the server says, as the answer to a submission: a miss, a refusal that is certain, or nobody knows.
//!
//! What it finds near a place is measured on the plane, from the cells that it tells.

use super::{
    Counters,
    requests::{Done, Said, Work, index},
};
use redis::{ServerError, Value};
use worldline_proto::{CharacterId, NodeId, OpId};
use worldline_system::{
    Outcome, Refusal,
    doors::cache::{Answer, Ask, Hash, Kept, Neighbour, STAMP_FIELD, Stamp, Submission},
    limits,
    outcome::End,
    rules::{grid::Cell, space::Position},
};

/// What became of a submission.
pub(super) fn decode(op: OpId, submission: &Submission, said: Said<'_>, counters: &Counters) -> Done {
    let value = match said {
        Ok(value) => value,
        Err(error) => return failed(op, submission, error, counters),
    };
    let unread = || {
        counters.unreadable();
        Ask::from(submission).ended(End::Unknown)
    };
    let answer = match submission {
        Submission::Read(_) => Answer::Read(Outcome::Done(hash(value, counters))),
        Submission::Write { .. } => Answer::Written(Outcome::Done(())),
        Submission::Keep { key, .. } => match (value, text(value).map(|text| text.parse::<Stamp>())) {
            (Value::Int(1), _) => Answer::Kept(Outcome::Done(Kept::Replaced)),
            (_, Some(Ok(stamp))) => Answer::Kept(Outcome::Done(Kept::Stands(stamp))),
            // Above what any stamp can be: nobody could ever replace it.
            _ => {
                counters.wrong_type();
                let answer = Answer::Kept(Outcome::Refused(Refusal::WrongType));
                return Done { answer: Some((op, answer)), next: Some(Work::Remove(key.to_string())) };
            }
        },
        Submission::Increment { .. } => number(value).map_or_else(unread, |sum| Answer::Counted(Outcome::Done(sum))),
        Submission::Count(key) => match value {
            Value::Nil => Answer::Counted(Outcome::Done(0)),
            value => match number(value) {
                Some(count) => Answer::Counted(Outcome::Done(count)),
                None => {
                    counters.wrong_type();
                    let answer = Answer::Counted(Outcome::Done(0));
                    return Done { answer: Some((op, answer)), next: Some(Work::Remove(key.to_string())) };
                }
            },
        },
        Submission::Get(_) => Answer::Got(Outcome::Done(text(value).map(str::to_owned))),
        Submission::Set { .. } => Answer::Set(Outcome::Done(())),
        Submission::Delete(_) => match number(value) {
            Some(count) => Answer::Deleted(Outcome::Done(count > 0)),
            None => unread(),
        },
        Submission::Place { .. } => Answer::Placed(Outcome::Done(())),
        &Submission::Near { around, radius_mm, .. } => Answer::Near(Outcome::Done(near(value, around, radius_mm))),
        &Submission::Loads(region) => {
            let mut nodes: Vec<NodeId> = items(value).filter_map(text).filter_map(node).collect();
            nodes.sort_unstable();
            nodes.truncate(limits::CACHE_LOADS);
            if !nodes.is_empty() {
                return Done { answer: None, next: Some(Work::Loads { op, region, nodes }) };
            }
            Answer::Loads(Outcome::Done(vec![]))
        }
    };
    Done::answer(op, answer)
}

/// The server has refused it.
fn failed(op: OpId, submission: &Submission, error: &ServerError, counters: &Counters) -> Done {
    let ask = Ask::from(submission);
    if error.code() == "WRONGTYPE" {
        counters.wrong_type();
        // The scripts have deleted it themselves.
        let (answer, key) = match submission {
            Submission::Read(key) => (Answer::Read(Outcome::Done(None)), Some(key.to_string())),
            Submission::Count(key) => (Answer::Counted(Outcome::Done(0)), Some(key.to_string())),
            Submission::Get(key) => (Answer::Got(Outcome::Done(None)), Some(key.to_string())),
            Submission::Loads(region) => (Answer::Loads(Outcome::Done(vec![])), Some(index(*region))),
            Submission::Near { .. } => (Answer::Near(Outcome::Done(vec![])), None),
            _ => (ask.ended(End::Refused(Refusal::WrongType)), None),
        };
        return Done { answer: Some((op, answer)), next: key.map(Work::Remove) };
    }
    Done::answer(op, ask.ended(verdict(error)))
}

/// What the server's refusal says of the operation. What is not known is not certain.
fn verdict(error: &ServerError) -> End {
    match error.code() {
        "OOM" => End::Refused(Refusal::OutOfMemory),
        "READONLY" => End::Refused(Refusal::ReadOnly),
        "LOADING" | "MASTERDOWN" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "MOVED" | "ASK" | "NOAUTH" | "NOPERM"
        | "MISCONF" | "NOREPLICAS" => End::Refused(Refusal::NotServing),
        _ if error.details().is_some_and(|said| said.contains("would overflow")) => End::Refused(Refusal::Overflow),
        _ => End::Unknown,
    }
}

/// Whether a refusal shows that this server is not the one to ask: a replica, or one that lets nobody in any more.
pub(super) fn turns_away(value: &Value) -> Option<&str> {
    match value {
        Value::ServerError(error) if matches!(error.code(), "READONLY" | "NOAUTH" | "MASTERDOWN" | "MOVED") => {
            Some(error.code())
        }
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        value => text(value)?.parse().ok(),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(items) | Value::Set(items) => items.iter(),
        _ => [].iter(),
    }
}

fn node(text: &str) -> Option<NodeId> {
    text.strip_prefix('n')?.parse().ok().map(NodeId)
}

/// A hash as it is read: none where there is no field. A field that is no text is left out and counted.
pub(super) fn hash(value: &Value, counters: &Counters) -> Option<Hash> {
    let mut hash = Hash::default();
    let mut any = false;
    let mut items = items(value);
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        any = true;
        match (text(name), text(value)) {
            (Some(STAMP_FIELD), stamp) => hash.stamp = stamp.and_then(|stamp| stamp.parse().ok()),
            (Some(name), Some(value)) => {
                hash.fields.insert(name.to_owned(), value.to_owned());
            }
            _ => counters.unreadable(),
        }
    }
    any.then_some(hash)
}

/// The members that the server has found, as they are measured on the plane.
fn near(value: &Value, around: Position, radius_mm: u64) -> Vec<Neighbour> {
    let found = items(value).filter_map(|member| {
        let mut parts = items(member);
        let who = parts.next().and_then(text)?.parse::<CharacterId>().ok()?;
        let code = u64::try_from(parts.next().and_then(number)?).ok()?;
        let position = Cell::from_code(code)?.middle();
        Some(Neighbour { member: who, position, distance_mm: position.distance_mm(around) })
    });
    let mut near: Vec<Neighbour> = found.filter(|neighbour| neighbour.distance_mm <= radius_mm).collect();
    near.sort_unstable_by_key(|neighbour| (neighbour.distance_mm, neighbour.member));
    near
}
