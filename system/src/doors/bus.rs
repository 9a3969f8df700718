//! The bus door (NATS JetStream): one stream of facts, published under message ids, read by consumers that go on where they
//! were.
//!
//! * **A publish** is `Done` when a majority of the stream's members has it, in memory: members sync their files every
//!   [`crate::limits::BUS_SYNC_PERIOD`], so that a majority that loses its power takes back the tail that was not synced, and
//!   sequences are given out again. Nobody is told. Who needs to know that a fact is durable asks the ledger.
//! * **Duplicates.** Within [`crate::limits::BUS_DEDUPLICATION`] of its first publish, by the stream's time, a message id is
//!   stored once: publishing it again is `Done` with the first sequence and `duplicate`. Later, or after the stream has lost
//!   its tail, it is stored again. So a publish that came to `Unknown` is submitted again under the same id, and a reader
//!   still tells duplicates by what is in the payload. Where members must agree, an id that is being stored may be refused
//!   as `Busy` until it is; so may one that was refused as [`crate::Refusal::WrongSequence`], until the window is over. And where
//!   a leader is lost, what it stored last may stand there twice: under one id, with one time, the second behind all others.
//! * **Limits.** Beyond [`crate::limits::BUS_MESSAGES`], [`crate::limits::BUS_BYTES`] and [`crate::limits::BUS_AGE`] the
//!   oldest messages go. Consumers pass over what has gone without a word.
//! * **A consumer** is told each message at least once, first deliveries in the stream's order, at most
//!   [`crate::limits::BUS_CREDITS`] of them unacknowledged. What is not acknowledged within
//!   [`crate::limits::BUS_ACK_WAIT`], or is rejected, comes again, behind messages that were after it, with a higher
//!   [`Message::delivery`]. An acknowledgement covers everything delivered up to it. A consumer may be set back by the
//!   service: then messages come again as if for the first time, also acknowledged ones.
//! * **A gap** ends the consumer: its reader opens another. A durable one goes on behind what was last acknowledged.
//!
//! Order is promised between two publishes of one node only where the second was submitted after the first was answered.
//!
//! Deliberately absent: state (a reader of it takes the newest and forgets the rest), and any promise of exactly once.

use crate::{
    outcome::{End, Outcome},
    time::UnixTime,
};
use alloc::{boxed::Box, sync::Arc};
use core::{fmt, str::FromStr};
use worldline_proto::{EntityId, NodeId, OpId};

/// What messages are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Subject {
    /// `worldline.facts.{entity}`: facts whose aggregate is this entity.
    Fact(EntityId),
}

/// Before the entity in the name of a [`Subject::Fact`].
const FACTS: &str = "worldline.facts.";

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fact(entity) => write!(f, "{FACTS}{entity}"),
        }
    }
}

/// A name that no [`Subject`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSubject;

impl fmt::Display for BadSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a subject of Worldline, as in {FACTS}boss-1")
    }
}

impl core::error::Error for BadSubject {}

impl FromStr for Subject {
    type Err = BadSubject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix(FACTS).and_then(|entity| entity.parse().ok()).map(Self::Fact).ok_or(BadSubject)
    }
}

/// Names a message for deduplication: the same at every publish of the same fact. Displayed `boss-1.17`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MessageId {
    /// The aggregate.
    pub entity: EntityId,
    /// Its sequence within the aggregate.
    pub number: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.entity, self.number)
    }
}

/// A name that no [`MessageId`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadMessageId;

impl fmt::Display for BadMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a message id, as in boss-1.17")
    }
}

impl core::error::Error for BadMessageId {}

impl FromStr for MessageId {
    type Err = BadMessageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (entity, number) = text.rsplit_once('.').ok_or(BadMessageId)?;
        let entity = entity.parse().map_err(|_| BadMessageId)?;
        let read: u64 = number.parse().map_err(|_| BadMessageId)?;
        // One name a message: no sign, no zeros before it.
        if number.starts_with('+') || number.len() > 1 && number.starts_with('0') {
            return Err(BadMessageId);
        }
        Ok(Self { entity, number: read })
    }
}

/// A message's place in the stream, from 1. Zero stands for "before all". Given out again where the stream lost its tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StreamSequence(pub u64);

impl fmt::Display for StreamSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where a consumer begins. A durable one that exists already goes on behind what was last acknowledged instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Start {
    /// With the oldest message that is kept.
    Beginning,
    /// Behind what is stored at the moment it is opened.
    New,
    /// With this one, or the next that is kept.
    Sequence(StreamSequence),
    /// With the first that was stored at this moment or later, by the stream's clock.
    Time(UnixTime),
}

/// A consumer that outlives its reader, named by the node: displayed `replica-n7`. Nobody else may open it; where two do,
/// each message comes to one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Durable(pub NodeId);

impl fmt::Display for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica-{}", self.0)
    }
}

/// What a role may submit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Submission {
    /// Store a message.
    Publish {
        /// What it is about.
        subject: Subject,
        /// Its name: a duplicate of it is not stored again.
        message: MessageId,
        /// Store it only if this is the last of its subject (zero: if there is none); else refused with
        /// [`crate::Refusal::WrongSequence`]. `None` does not look. A duplicate may be answered as one or refused so.
        after: Option<StreamSequence>,
        /// At most [`crate::limits::BUS_PAYLOAD_BYTES`]; a larger one is refused as `Malformed`.
        payload: Arc<[u8]>,
    },
    /// Open a consumer, named by this operation: its messages come as [`Event::Delivered`] once it stands. It has no deadline
    /// then, and ends with its node's incarnation, by a [`Event::Gap`], or by [`Submission::Close`]. A node has at most
    /// [`crate::limits::BUS_CONSUMERS`]; one more is refused as `Busy`.
    Consume {
        /// Keeps its place when its reader is gone.
        durable: Option<Durable>,
        /// Where it begins.
        start: Start,
    },
    /// Everything delivered up to `through` was taken in. `Done` once the service has said that it knows. Refused as
    /// `NotServing` for a consumer that this node does not have (any more).
    Acknowledge {
        /// The operation that opened it.
        consumer: OpId,
        /// The last that was taken in.
        through: StreamSequence,
    },
    /// Deliver this one again. Refused as `NotServing` for a consumer that this node does not have (any more), and for a
    /// message that is not out.
    Reject {
        /// The operation that opened the consumer.
        consumer: OpId,
        /// Which.
        sequence: StreamSequence,
    },
    /// End a consumer of this node. Always `Done`; messages already under way may still arrive. A durable one keeps its place.
    Close(OpId),
}

/// A message that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Published {
    /// Its place.
    pub sequence: StreamSequence,
    /// It had been stored there before.
    pub duplicate: bool,
}

/// What came of a submission; the variant matches it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Answer {
    /// Of [`Submission::Publish`].
    Published(Outcome<Published>),
    /// Of [`Submission::Consume`].
    Consuming(Outcome<()>),
    /// Of [`Submission::Acknowledge`].
    Acknowledged(Outcome<()>),
    /// Of [`Submission::Reject`].
    Rejected(Outcome<()>),
    /// Of [`Submission::Close`].
    Closed(Outcome<()>),
}

/// Which kind of submission an operation is, and so which answer it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// [`Submission::Publish`].
    Publish,
    /// [`Submission::Consume`].
    Consume,
    /// [`Submission::Acknowledge`].
    Acknowledge,
    /// [`Submission::Reject`].
    Reject,
    /// [`Submission::Close`].
    Close,
}

impl From<&Submission> for Ask {
    fn from(submission: &Submission) -> Self {
        match submission {
            Submission::Publish { .. } => Self::Publish,
            Submission::Consume { .. } => Self::Consume,
            Submission::Acknowledge { .. } => Self::Acknowledge,
            Submission::Reject { .. } => Self::Reject,
            Submission::Close(_) => Self::Close,
        }
    }
}

impl Ask {
    /// The answer of an operation that ended without a result.
    #[must_use]
    pub fn ended(self, end: End) -> Answer {
        match self {
            Self::Publish => Answer::Published(end.into()),
            Self::Consume => Answer::Consuming(end.into()),
            Self::Acknowledge => Answer::Acknowledged(end.into()),
            Self::Reject => Answer::Rejected(end.into()),
            Self::Close => Answer::Closed(end.into()),
        }
    }
}

/// A message as a consumer delivers it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Message {
    /// Its place in the stream.
    pub sequence: StreamSequence,
    /// What it is about.
    pub subject: Subject,
    /// When it was stored, by the clock of the member that led.
    pub published: UnixTime,
    /// How often this consumer has delivered it, with this time: 1 is the first.
    pub delivery: u32,
    /// As its publisher gave it. Who may publish at all may publish anything: its reader believes no length and no field.
    pub payload: Arc<[u8]>,
}

/// Why a consumer ended and its reader must open another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GapCause {
    /// The connection to the bus was lost, or nothing was heard of it for too long.
    Disconnected,
    /// The service has ended it: it was deleted, or its leader is gone.
    Ended,
    /// The reader did not keep up with its credits.
    Overflow,
}

/// What a role may be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Event {
    /// The answer to an operation.
    Answered {
        /// Which operation.
        op: OpId,
        /// Its end.
        answer: Box<Answer>,
    },
    /// A message.
    Delivered {
        /// The operation that opened the consumer.
        consumer: OpId,
        /// What it delivers.
        message: Arc<Message>,
    },
    /// A consumer has ended. Its reader opens another.
    Gap {
        /// The operation that had opened it.
        consumer: OpId,
        /// Why.
        cause: GapCause,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use worldline_proto::EntityKind;

    #[test]
    fn names_read_back() {
        let entity = EntityId::new(EntityKind::Boss, 1).expect("in range");
        let (subject, id) = (Subject::Fact(entity), MessageId { entity, number: 17 });
        assert_eq!((subject.to_string().as_str(), id.to_string().as_str()), ("worldline.facts.boss-1", "boss-1.17"));
        assert_eq!((subject.to_string().parse(), id.to_string().parse()), (Ok(subject), Ok(id)));
        assert_eq!(Durable(NodeId(7)).to_string(), "replica-n7");
        for wrong in ["", "worldline.facts.", "worldline.facts.boss-1.17", "worldline.news.boss-1", "boss-1"] {
            assert_eq!(wrong.parse::<Subject>(), Err(BadSubject), "{wrong:?}");
        }
        for wrong in ["", "boss-1", "boss-1.", ".17", "boss-1.+17", "boss-1.017", "boss-1.-1", "boss-1.1.7"] {
            assert_eq!(wrong.parse::<MessageId>(), Err(BadMessageId), "{wrong:?}");
        }
    }
}
