//! The bus's stream as far as its publishers may rely on it: messages in one order, ids that are recognised for a time, limits.

use super::Bus;
use crate::{
    judge::{Ending, Model, Window},
    service::Told,
};
use std::collections::BTreeMap;
use worldline_system::{
    Outcome, Refusal,
    doors::bus::{Answer, MessageId, Published, StreamSequence, Subject, Submission},
    limits,
    time::{Duration, Instant},
};

/// Ids are forgotten by a server that looks now and then, by its own clock.
const SLACK: Duration = Duration::from_millis(20);
/// And at most so late.
const LATE: Duration = Duration::from_millis(2_000);
/// So many messages may a new leader store again: no more are published at once.
const AGAIN: usize = 5;

/// A message that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of what it tells.
    pub subject: Subject,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// The stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Before the first message.
    base: u64,
    messages: Vec<Stored>,
    /// Where a message was stored that is still recognised, and when it may be forgotten, and when it must.
    ids: BTreeMap<MessageId, (u64, Instant, Instant)>,
    /// Ids that were refused for their place: until when a cluster may take them for ids that are being stored.
    refused: BTreeMap<MessageId, Instant>,
    deduplication: Duration,
    messages_max: u64,
    clustered: bool,
    /// Through which all are too old.
    aged: u64,
}

impl Stream {
    /// An empty one behind this sequence.
    #[must_use]
    pub fn new(base: u64, deduplication: Duration, messages_max: u64, clustered: bool) -> Self {
        let (messages, ids, refused) = (vec![], BTreeMap::new(), BTreeMap::new());
        Self { base, messages, ids, refused, deduplication, messages_max, clustered, aged: base }
    }

    /// Before the first message of the case.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The last that was stored.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.base + self.messages.len() as u64
    }

    /// The first that is kept, or the place of the next.
    #[must_use]
    pub fn first(&self) -> u64 {
        let beyond = self.base + (self.messages.len() as u64).saturating_sub(self.messages_max);
        beyond.max(self.aged) + 1
    }

    /// Whether a message of this subject was stored and none is kept.
    #[must_use]
    pub fn has_lost(&self, subject: Subject) -> bool {
        self.last_stored(subject).0 == 0 && self.messages.iter().any(|stored| stored.subject == subject)
    }

    /// All that is stored has become too old.
    pub fn age(&mut self) {
        self.aged = self.last();
    }

    /// A message that was stored, whether it is kept or not.
    #[must_use]
    pub fn get(&self, sequence: u64) -> Option<&Stored> {
        self.messages.get(usize::try_from(sequence.checked_sub(self.base + 1)?).ok()?)
    }

    /// The states that may follow when a leader is lost: what it stored last may stand there once more, in its order.
    #[must_use]
    pub fn stored_again(&self) -> Vec<Self> {
        if !self.clustered {
            return vec![];
        }
        let some = 1..=self.messages.len().min(AGAIN);
        some.map(|count| {
            let mut next = self.clone();
            next.messages.extend_from_within(self.messages.len() - count..);
            let behind = (next.messages.len() - self.messages.len()) as u64;
            for (sequence, ..) in next.ids.values_mut().filter(|(sequence, ..)| sequence + behind > self.last()) {
                *sequence += behind;
            }
            next
        })
        .collect()
    }

    fn store(&self, subject: Subject, message: MessageId, payload: &[u8], window: Window) -> Self {
        let mut next = self.clone();
        next.messages.push(Stored { subject, payload: payload.to_vec() });
        let life = ((window.from + self.deduplication) - SLACK, window.to + self.deduplication + LATE);
        next.ids.insert(message, (next.last(), life.0, life.1));
        next
    }
}

impl Model<Bus> for Stream {
    const IN_ORDER: bool = false;

    fn ending(answer: &Answer) -> Ending {
        const ABSENT: &[Refusal] = &[Refusal::Unreachable, Refusal::Busy, Refusal::NoStream, Refusal::NotServing];
        match answer {
            Answer::Published(outcome) => Ending::of(outcome, ABSENT),
            Answer::Consuming(outcome)
            | Answer::Acknowledged(outcome)
            | Answer::Rejected(outcome)
            | Answer::Closed(outcome) => Ending::of(outcome, ABSENT),
        }
    }

    fn is_write(submission: &Submission) -> bool {
        matches!(submission, Submission::Publish { payload, .. } if payload.len() <= limits::BUS_PAYLOAD_BYTES)
    }

    /// Of an id that is being stored, or that it takes for one, a cluster does not know yet what it will come to.
    fn may_be_turned_away(&self, one: &Told<Bus>, all: &[Told<Bus>]) -> bool {
        let id = |told: &Told<Bus>| match &told.submission {
            Submission::Publish { message, .. } => Some(*message),
            _ => None,
        };
        let busy = one.answer == Answer::Published(Outcome::Refused(Refusal::Busy));
        let with_another = || all.iter().filter(|other| id(other) == id(one)).count() > 1;
        let refused = || id(one).is_some_and(|id| self.refused.get(&id).is_some_and(|&until| one.asked <= until));
        self.clustered && busy && (with_another() || refused())
    }

    fn after(&self, submission: &Submission, window: Window, answer: Option<&Answer>) -> Vec<Self> {
        let Submission::Publish { subject, message, after, payload } = submission else {
            // What readers do changes nothing that a publisher sees.
            return vec![self.clone()];
        };
        let outcome = match answer {
            None => None,
            Some(Answer::Published(outcome)) => Some(outcome),
            Some(_) => return vec![],
        };
        let fits = |expected: &Outcome<Published>| outcome.is_none_or(|outcome| outcome == expected);
        if payload.len() > limits::BUS_PAYLOAD_BYTES {
            return if fits(&Outcome::Refused(Refusal::Malformed)) { vec![self.clone()] } else { vec![] };
        }
        let mut next = vec![];
        let last = self.last_stored(*subject);
        let in_place = after.is_none_or(|after| after == last);
        // The bus may not say which was the last.
        let refused = |next: &mut Vec<Self>| {
            let said = [last, StreamSequence(0)].map(|last| Outcome::Refused(Refusal::WrongSequence { last }));
            if said.iter().any(fits) {
                let mut state = self.clone();
                state.refused.insert(*message, window.to + self.deduplication + LATE);
                next.push(state);
            }
        };
        let known = self.ids.get(message);
        if let Some(&(sequence, _, to)) = known
            && window.from <= to
        {
            let sequence = StreamSequence(sequence);
            if fits(&Outcome::Done(Published { sequence, duplicate: true })) {
                next.push(self.clone());
            }
            if !in_place {
                refused(&mut next);
            }
        }
        if known.is_none_or(|&(_, from, _)| window.to >= from) {
            let stored = self.store(*subject, *message, payload, window);
            let sequence = StreamSequence(stored.last());
            if !in_place {
                refused(&mut next);
            } else if fits(&Outcome::Done(Published { sequence, duplicate: false })) {
                if outcome.is_none() {
                    // It was under way when the leader was lost.
                    next.extend(stored.stored_again().into_iter().take(1));
                }
                next.push(stored);
            }
        }
        next.dedup();
        next
    }
}
