//! Facts on the bus: what a publisher encodes and a reader decodes.
//!
//! Invariant: the same fact has the same bytes, whoever encodes it and however often: the stream knows a repetition by its id and
//! keeps the first.

mod broadcast;

pub(crate) use broadcast::Broadcast;

use crate::{
    Turn,
    doors::{
        self, Asked,
        bus::{self, MessageId, Subject},
        ledger::{FactBody, FactRow},
    },
    limits, maybe,
};
use alloc::{sync::Arc, vec::Vec};
use core::fmt;
use prost::Message as _;
use worldline_proto::{
    CharacterId, EntityId, FactSequence, OpId, OpNumber,
    server::{Fact, FactHit, fact},
};

/// The version of [`Fact`] that this build writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Why a payload is no fact for this build. Such a payload is never applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// It is no encoded [`Fact`].
    Garbage,
    /// A newer build has written it, or nobody: no version is zero.
    Version(u32),
    /// Its aggregate is no entity.
    Aggregate(u64),
    /// It has no number: facts count from 1.
    Unnumbered,
    /// The character that caused it is none.
    Character(u64),
    /// It is of this version and tells nothing.
    Empty,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage => write!(f, "the payload does not decode as a fact"),
            Self::Version(version) => {
                write!(f, "the fact has version {version}, this build knows {VERSION}; run a newer build")
            }
            Self::Aggregate(raw) => write!(f, "the fact's aggregate {raw:#018x} names no entity"),
            Self::Unnumbered => write!(f, "the fact has no number"),
            Self::Character(raw) => write!(f, "the fact was caused by {raw:#018x}, which names no character"),
            Self::Empty => write!(f, "the fact tells nothing"),
        }
    }
}

impl core::error::Error for Undecodable {}

/// Publishes a fact under its own id: once stored, it is not stored again for as long as the stream knows its id.
pub fn publish<S>(row: &FactRow, turn: &mut Turn<'_, S>) -> OpId
where
    S: Into<doors::Submission> + From<Asked<bus::Submission>>,
{
    let FactRow { aggregate, sequence, .. } = *row;
    let message = MessageId { entity: aggregate, number: sequence.0 };
    // A newer build that publishes beside this one: whoever reads it finds in the ledger what it tells.
    let version = if maybe!(turn, "facts.newer-build") { VERSION + 1 } else { VERSION };
    let payload = encode_as(version, row);
    let submission = bus::Submission::Publish { subject: Subject::Fact(aggregate), message, after: None, payload };
    turn.bus(submission, limits::BUS_PATIENCE)
}

/// A fact, for the wire.
#[must_use]
pub fn encode(row: &FactRow) -> Arc<[u8]> {
    encode_as(VERSION, row)
}

fn encode_as(version: u32, row: &FactRow) -> Arc<[u8]> {
    let FactBody::Hit { dealt, remaining, experience, bounty } = row.body;
    let fact = Fact {
        version,
        aggregate: row.aggregate.get(),
        sequence: row.sequence.0,
        character: row.character.entity().get(),
        number: row.number.0,
        body: Some(fact::Body::Hit(FactHit { dealt, remaining, experience, bounty })),
    };
    let bytes: Vec<u8> = fact.encode_to_vec();
    bytes.into()
}

/// A fact from the wire.
///
/// # Errors
/// What is wrong with it.
pub fn decode(payload: &[u8]) -> Result<FactRow, Undecodable> {
    let fact = Fact::decode(payload).map_err(|_| Undecodable::Garbage)?;
    if fact.version != VERSION {
        return Err(Undecodable::Version(fact.version));
    }
    let aggregate = EntityId::from_raw(fact.aggregate).ok_or(Undecodable::Aggregate(fact.aggregate))?;
    if fact.sequence == 0 {
        return Err(Undecodable::Unnumbered);
    }
    let character = EntityId::from_raw(fact.character).and_then(CharacterId::from_entity);
    let fact::Body::Hit(FactHit { dealt, remaining, experience, bounty }) = fact.body.ok_or(Undecodable::Empty)?;
    Ok(FactRow {
        aggregate,
        sequence: FactSequence(fact.sequence),
        character: character.ok_or(Undecodable::Character(fact.character))?,
        number: OpNumber(fact.number),
        body: FactBody::Hit { dealt, remaining, experience, bounty },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use worldline_proto::EntityKind;

    fn hit() -> FactRow {
        FactRow {
            aggregate: EntityId::new(EntityKind::Boss, 1).expect("in range"),
            sequence: FactSequence(17),
            character: CharacterId::new(42).expect("in range"),
            number: OpNumber(u64::MAX),
            body: FactBody::Hit { dealt: 90, remaining: 0, experience: i64::MAX, bounty: 3 },
        }
    }

    /// The fact on the wire with one thing changed.
    fn changed(change: impl FnOnce(&mut Fact)) -> Result<FactRow, Undecodable> {
        let mut fact = Fact::decode(&*encode(&hit())).expect("it was just encoded");
        change(&mut fact);
        decode(&fact.encode_to_vec())
    }

    #[test]
    fn a_fact_reads_back() {
        assert_eq!(decode(&encode(&hit())), Ok(hit()));
        assert_eq!(encode(&hit()), encode(&hit()));
    }

    #[test]
    fn what_is_no_fact_says_why() {
        assert_eq!(decode(&[0xff; 9]), Err(Undecodable::Garbage));
        assert_eq!(decode(&[]), Err(Undecodable::Version(0)), "nothing at all has no version");
        assert_eq!(changed(|fact| fact.version = 2), Err(Undecodable::Version(2)));
        assert!(Undecodable::Version(2).to_string().contains("newer build"));
        assert_eq!(changed(|fact| fact.aggregate = 7), Err(Undecodable::Aggregate(7)));
        assert_eq!(changed(|fact| fact.sequence = 0), Err(Undecodable::Unnumbered));
        let boss = hit().aggregate.get();
        assert_eq!(changed(|fact| fact.character = boss), Err(Undecodable::Character(boss)), "a boss acts for nobody");
        assert_eq!(changed(|fact| fact.body = None), Err(Undecodable::Empty));
    }

    #[test]
    fn a_newer_version_is_named_before_what_this_build_would_not_understand() {
        let newer = changed(|fact| (fact.version, fact.body, fact.aggregate) = (9, None, 0));
        assert_eq!(newer, Err(Undecodable::Version(9)));
    }
}
