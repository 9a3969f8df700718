//! Refusals on the wire: the status that any gRPC client understands, and beside it the refusal itself, exactly.

use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use worldline_proto::{Epoch, Revision};
use worldline_system::{Refusal, doors::bus::StreamSequence};

/// The metadata that carries a refusal.
pub(super) const HEADER: &str = "worldline-refusal";

/// What a caller is told of a refusal.
pub(super) fn status(refusal: Refusal, message: impl Into<String>) -> Status {
    let code = match refusal {
        Refusal::Malformed => Code::InvalidArgument,
        Refusal::Busy => Code::ResourceExhausted,
        _ => Code::Unavailable,
    };
    status_of(code, refusal, message)
}

/// As [`status`], where another code says it better.
pub(super) fn status_of(code: Code, refusal: Refusal, message: impl Into<String>) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(HEADER, text(refusal).parse().expect("a name and a number are visible ASCII"));
    status
}

/// The refusal that came with a status. One that a later version has added is still a refusal.
pub(super) fn of(metadata: &MetadataMap) -> Option<Refusal> {
    let text = metadata.get(HEADER).map(MetadataValue::to_str)?.ok()?;
    Some(parse(text).unwrap_or(Refusal::NotServing))
}

fn text(refusal: Refusal) -> String {
    match refusal {
        Refusal::Compacted { oldest } => format!("Compacted {oldest}"),
        Refusal::Fenced { highest } => format!("Fenced {highest}"),
        Refusal::WrongSequence { last } => format!("WrongSequence {last}"),
        plain => format!("{plain:?}"),
    }
}

fn parse(text: &str) -> Option<Refusal> {
    let (name, number) = text.split_once(' ').unwrap_or((text, ""));
    Some(match name {
        "Unreachable" => Refusal::Unreachable,
        "Busy" => Refusal::Busy,
        "Malformed" => Refusal::Malformed,
        "NotServing" => Refusal::NotServing,
        "NoLeader" => Refusal::NoLeader,
        "LeaseNotFound" => Refusal::LeaseNotFound,
        "LeaseExists" => Refusal::LeaseExists,
        "TooManyOperations" => Refusal::TooManyOperations,
        "DatabaseFull" => Refusal::DatabaseFull,
        "Compacted" => Refusal::Compacted { oldest: Revision(number.parse().ok()?) },
        "SerializationFailure" => Refusal::SerializationFailure,
        "Deadlock" => Refusal::Deadlock,
        "PoolExhausted" => Refusal::PoolExhausted,
        "ReadOnly" => Refusal::ReadOnly,
        "DiskFull" => Refusal::DiskFull,
        "WrongType" => Refusal::WrongType,
        "Overflow" => Refusal::Overflow,
        "OutOfMemory" => Refusal::OutOfMemory,
        "Fenced" => Refusal::Fenced { highest: Epoch(number.parse().ok()?) },
        "NoStream" => Refusal::NoStream,
        "StreamFull" => Refusal::StreamFull,
        "WrongSequence" => Refusal::WrongSequence { last: StreamSequence(number.parse().ok()?) },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_comes_back_from_its_status() {
        let all = [
            Refusal::Unreachable,
            Refusal::Busy,
            Refusal::Malformed,
            Refusal::NotServing,
            Refusal::NoLeader,
            Refusal::LeaseNotFound,
            Refusal::LeaseExists,
            Refusal::TooManyOperations,
            Refusal::DatabaseFull,
            Refusal::Compacted { oldest: Revision(4) },
            Refusal::SerializationFailure,
            Refusal::Deadlock,
            Refusal::PoolExhausted,
            Refusal::ReadOnly,
            Refusal::DiskFull,
            Refusal::WrongType,
            Refusal::Overflow,
            Refusal::OutOfMemory,
            Refusal::Fenced { highest: Epoch(u64::MAX) },
            Refusal::NoStream,
            Refusal::StreamFull,
            Refusal::WrongSequence { last: StreamSequence(5) },
        ];
        for refusal in all {
            assert_eq!(of(status(refusal, "").metadata()), Some(refusal));
        }
        assert_eq!(status(Refusal::NotServing, "").code(), Code::Unavailable);
        assert_eq!(of(&MetadataMap::new()), None);
        let mut later = MetadataMap::new();
        later.insert(HEADER, "Tired".parse().expect("ASCII"));
        assert_eq!(of(&later), Some(Refusal::NotServing));
    }
}
