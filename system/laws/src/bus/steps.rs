//! What publishers and readers do, and what befalls the bus.

use super::Stream;
use crate::service::{CALLERS, Fault, Mishap};
use proptest::prelude::*;
use worldline_proto::{EntityId, EntityKind};
use worldline_system::{
    doors::bus::{MessageId, StreamSequence, Subject, Submission},
    limits,
};

/// Few enough that everything meets everything.
const SUBJECTS: u64 = 3;

/// A step of a case.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// By whom, all at once.
    Publish(Vec<(usize, Message)>),
    Open {
        caller: usize,
        durable: bool,
        from: From,
    },
    /// A consumer of this place in the list confirms what it was told, but for so many of the last.
    Acknowledge {
        consumer: usize,
        but: usize,
    },
    /// It wants the oldest again that it has not acknowledged.
    Reject {
        consumer: usize,
    },
    Close {
        consumer: usize,
    },
    /// Until the oldest that is not acknowledged comes again.
    AwaitRedelivery {
        consumer: usize,
    },
    /// Until an id that was used now is not recognised any more.
    AwaitForgotten,
    /// Until all that is stored is too old.
    AwaitAged,
    /// Every consumer is told all there is.
    Drain,
    Fault(Mishap),
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum From {
    Beginning,
    New,
    /// So many before the end.
    Sequence(u64),
    /// When a message was stored that somebody has been told.
    Time(usize),
}

/// A message to publish.
#[derive(Clone, Debug)]
pub(super) struct Message {
    subject: u64,
    number: u64,
    /// Only behind the last of its subject, or behind another.
    after: Option<Result<(), u64>>,
    bytes: usize,
}

fn entity(crowd: u64, n: u64) -> EntityId {
    EntityId::new(EntityKind::Boss, crowd * 8 + n).expect("a small number")
}

impl Message {
    /// As it is submitted where the stream stands like this.
    pub fn submission(&self, crowd: u64, stream: &Stream, bytes: Option<usize>) -> Submission {
        let entity = entity(crowd, self.subject);
        let after = self.after.map(|after| match after {
            Ok(()) => stream.last_stored(Subject::Fact(entity)),
            Err(other) => StreamSequence(other),
        });
        let payload = vec![self.number as u8; bytes.unwrap_or(self.bytes)].into();
        Submission::Publish {
            subject: Subject::Fact(entity),
            message: MessageId { entity, number: self.number },
            after,
            payload,
        }
    }
}

/// One that no step publishes.
pub(super) fn extra(crowd: u64, number: u64) -> Submission {
    let entity = entity(crowd, 7);
    let message = MessageId { entity, number };
    Submission::Publish { subject: Subject::Fact(entity), message, after: None, payload: [number as u8].into() }
}

fn message() -> impl Strategy<Value = Message> {
    let after = prop_oneof![
        6 => Just(None),
        3 => Just(Some(Ok(()))),
        1 => (0..9_u64).prop_map(|other| Some(Err(other))),
    ];
    let bytes = prop_oneof![
        12 => 0..9_usize,
        1 => limits::BUS_PAYLOAD_BYTES..=limits::BUS_PAYLOAD_BYTES + 1,
    ];
    (0..SUBJECTS, 0..12_u64, after, bytes).prop_map(|(subject, number, after, bytes)| Message {
        subject,
        number,
        after,
        bytes,
    })
}

fn publish() -> impl Strategy<Value = Step> {
    prop::collection::vec((0..CALLERS, message()), 1..5).prop_map(Step::Publish)
}

fn open() -> impl Strategy<Value = Step> {
    let from = prop_oneof![
        3 => Just(From::Beginning),
        1 => Just(From::New),
        2 => (0..6_u64).prop_map(From::Sequence),
        2 => (0..9_usize).prop_map(From::Time),
    ];
    (0..CALLERS, any::<bool>(), from).prop_map(|(caller, durable, from)| Step::Open { caller, durable, from })
}

fn read() -> impl Strategy<Value = Step> {
    let consumer = || 0..6_usize;
    prop_oneof![
        4 => open(),
        4 => (consumer(), 0..3_usize).prop_map(|(consumer, but)| Step::Acknowledge { consumer, but }),
        2 => consumer().prop_map(|consumer| Step::Reject { consumer }),
        2 => (0..3_usize).prop_map(|consumer| Step::Close { consumer }),
        1 => Just(Step::Drain),
    ]
}

/// In fair weather, in no time.
pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![5 => publish(), 4 => read()]
}

/// With what takes its time.
pub(super) fn life() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => publish(),
        4 => read(),
        1 => (0..6_usize).prop_map(|consumer| Step::AwaitRedelivery { consumer }),
        1 => Just(Step::AwaitForgotten),
    ]
}

/// More than is kept, at once, of every subject; and, once all has aged, something behind nothing of each: whatever else is drawn
/// about it.
pub(super) fn limited(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let publish_all = |numbers: std::ops::Range<u64>, after: Option<Result<(), u64>>| {
        let message =
            |number| (number as usize % CALLERS, Message { subject: number % SUBJECTS, number, after, bytes: 0 });
        Step::Publish(numbers.map(message).collect())
    };
    let more = publish_all(20..32, None);
    let behind_nothing = publish_all(32..32 + SUBJECTS, Some(Ok(())));
    let some = || prop::collection::vec(prop_oneof![3 => publish(), 2 => read()], 0..count / 3);
    (some(), some(), some()).prop_map(move |(first, next, last)| {
        let aged = [Step::AwaitAged, behind_nothing.clone()];
        first.into_iter().chain([more.clone()]).chain(next).chain(aged).chain(last).collect()
    })
}

/// With faults.
pub(super) fn weather(faults: &'static [Fault]) -> impl Strategy<Value = Step> {
    let mishap = Mishap::any(faults);
    prop_oneof![3 => publish(), 2 => read(), 3 => mishap.prop_map(Step::Fault)]
}
