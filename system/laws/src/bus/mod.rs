//! The laws of the bus: what is published, once and in order; what is read, at least once; what is forgotten, and when.

mod answers;
mod case;
mod model;
mod readers;
mod steps;

pub use model::{Stored, Stream};

use crate::{
    play::{Extent, Seen, check},
    service::{Door, Fault, Heard, Service},
};
use case::play;
use std::sync::Arc;
use worldline_proto::OpId;
use worldline_system::{
    doors::bus::{Answer, Event, GapCause, Message, StreamSequence, Subject, Submission},
    time::Duration,
};

/// The door.
#[derive(Clone, Copy, Debug)]
pub enum Bus {}

/// What a consumer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A message.
    Delivered(OpId, Arc<Message>),
    /// It has ended.
    Gap(OpId, GapCause),
}

impl Door for Bus {
    type Submission = Submission;
    type Answer = Answer;
    type News = News;
    type Event = Event;

    fn heard(event: Event) -> Heard<Answer, News> {
        match event {
            Event::Answered { op, answer } => Heard::Answer(op, *answer),
            Event::Delivered { consumer, message } => Heard::News(News::Delivered(consumer, message)),
            Event::Gap { consumer, cause } => Heard::News(News::Gap(consumer, cause)),
        }
    }
}

/// What a law must know of a bus.
pub trait BusService: Service<Bus> {
    /// A number that no case before had: its subjects and consumers are named by it.
    fn crowd(&self) -> u64;

    /// How long an id is recognised.
    fn deduplication(&self) -> Duration;

    /// Whether its members must agree on what they store.
    fn is_clustered(&self) -> bool;

    /// How many messages are kept, of those that the suite publishes.
    fn messages_max(&self) -> u64;

    /// How long a message is kept.
    fn age(&self) -> Duration;

    /// Returns when nothing is stored any more: all of it is too old by now.
    fn until_empty(&mut self);

    /// How long every payload is, where that decides how many are kept.
    fn payload_bytes(&self) -> Option<usize> {
        None
    }

    /// The last sequence that was given out before the case.
    fn base(&self) -> u64;
}

/// How long a caller waits for an answer: far longer than a sound service takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// And how long where the service may be gone.
const PATIENCE_IN_FAULT: Duration = Duration::from_millis(500);
/// How long a service may take to be back, or a consumer to tell.
const BACK: Duration = Duration::from_secs(60);

/// **The bus's laws in fair weather.** All publishes have one order, without gaps; a message id is stored once, and its repetition is
/// told as a duplicate with the first place; what expects to follow another than the last of its subject is refused, and so is
/// what is too large. A consumer begins where it was told to: with the oldest, the next, a place, a moment. It is told every
/// message that is kept, first deliveries in the stream's order; what is acknowledged does not come again, what is rejected
/// does, with a higher count. A durable one goes on where it was.
pub fn sound<S: BusService>(service: &mut S, extent: Extent) -> Seen {
    let steps = proptest::collection::vec(steps::step(), 1..extent.steps);
    check(extent, &steps, |steps, seen| play(service, &steps, extent, seen))
}

/// **Time and limits.** What is not acknowledged comes again after the time to do so, and not before. An id is recognised for its
/// window, and not longer. Beyond the limit the oldest go, and consumers pass over them.
pub fn lives<S: BusService>(service: &mut S, extent: Extent) -> Seen {
    let steps = proptest::collection::vec(steps::life(), 1..extent.steps);
    check(extent, &steps, |steps, seen| play(service, &steps, extent, seen))
}

/// **Bytes and age.** Beyond so many bytes the oldest go, and no more than must; so does what is too old, and it comes to no consumer
/// again, also not to one that has rejected it. Who expects nothing before a message finds its place where all of its subject has gone.
pub fn limits<S: BusService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &steps::limited(extent.steps), |steps, seen| play(service, &steps, extent, seen))
}

/// **Under faults.** What is `Refused` for want of a bus is not stored; what is `Unknown` is, or is not, or will be: published again
/// under its id it is stored once. A consumer goes on, or ends with a gap; who opens another is told everything.
pub fn under_faults<S: BusService>(service: &mut S, extent: Extent) -> Seen {
    suffer(service, extent, &Fault::ALL)
}

/// **The leader is lost.** It is killed and stopped, also while a message is under way to it; another is elected, and all holds as under
/// faults: what was published is there, once, in its place.
pub fn leaders_lost<S: BusService>(service: &mut S, extent: Extent) -> Seen {
    suffer(service, extent, &Fault::OF_LEADERS)
}

fn suffer<S: BusService>(service: &mut S, extent: Extent, faults: &'static [Fault]) -> Seen {
    let steps = proptest::collection::vec(steps::weather(faults), 1..extent.steps);
    check(extent, &steps, |steps, seen| play(service, &steps, extent, seen))
}

/// What [`sound`] must come across.
pub const SOUND: &[&str] = &[
    "stored",
    "duplicate",
    "wrong sequence",
    "malformed",
    "told",
    "acknowledged",
    "came again",
    "from a time",
    "from a place",
    "went on",
    "drained",
];

/// What [`lives`] must come across.
pub const LIVES: &[&str] = &["came again by itself", "forgotten", "discarded"];

/// What [`limits()`] must come across.
pub const LIMITS: &[&str] = &["stored", "told", "discarded", "aged", "stored behind nothing"];

/// What [`under_faults`] must come across beside what every service does.
pub const UNDER_FAULTS: &[&str] = &["gap"];

/// What [`leaders_lost`] must come across.
pub const LEADERS_LOST: &[&str] = &["killed", "stopped", "drained", "stored", "duplicate"];

impl Stream {
    /// The last of a subject that is kept.
    #[must_use]
    pub fn last_stored(&self, subject: Subject) -> StreamSequence {
        let kept = (self.first()..=self.last()).rev();
        let mut of = kept.filter(|&at| self.get(at).is_some_and(|stored| stored.subject == subject));
        StreamSequence(of.next().unwrap_or(0))
    }
}
