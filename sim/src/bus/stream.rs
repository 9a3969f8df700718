//! The stream's state machine: messages with their limits, the ids of those it recognises, and the places of consumers.
//!
//! One committed entry in, one [`Applied`] out; a function of the entries, so that it is built anew where a tail is lost.
//!
//! Deliberately absent: what is out to readers, which only the leader knows.

use super::{Config, Limits};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    Outcome, Refusal,
    doors::bus::{Answer, Durable, Message, MessageId, Published, Start, StreamSequence, Subject},
    time::{Duration, UnixTime},
};

/// What a message takes besides its payload: subject, headers, record.
pub const FRAMING_BYTES: u64 = 100;

/// A consumer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Name {
    Durable(Durable),
    /// One that ends with its reader.
    Ephemeral(NodeId, OpId),
}

/// What the members agree on, in one order.
#[derive(Clone, Debug, Hash)]
pub enum Command {
    /// A new leader's first entry: it commits what its predecessors left behind.
    Nothing,
    Publish {
        subject: Subject,
        message: MessageId,
        after: Option<StreamSequence>,
        payload: Arc<[u8]>,
        /// The leader had no room for it.
        full: bool,
        /// It is the last message, and stored once more.
        again: bool,
    },
    Consume {
        name: Name,
        start: Start,
    },
    Acknowledge {
        name: Name,
        through: u64,
    },
}

/// A command, when it was proposed by the leader's wall clock, and the number under which its asker waits.
#[derive(Clone, Debug, Hash)]
pub struct Proposal {
    pub id: u64,
    pub at: UnixTime,
    pub command: Command,
}

/// What came of a command.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    pub answer: Option<Answer>,
    /// The place of a message that was stored.
    pub stored: Option<u64>,
}

impl From<Answer> for Applied {
    fn from(answer: Answer) -> Self {
        Self { answer: Some(answer), stored: None }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub subject: Subject,
    pub published: UnixTime,
    pub payload: Arc<[u8]>,
}

fn bytes_of(payload: &[u8]) -> u64 {
    payload.len() as u64 + FRAMING_BYTES
}

/// The stream. See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    limits: Limits,
    discard_new: bool,
    deduplication: Duration,
    /// Behind `gone`, without holes.
    messages: VecDeque<Stored>,
    /// The last sequence that is not kept any more.
    gone: u64,
    bytes: u64,
    ids: BTreeMap<MessageId, u64>,
    /// The ids by age.
    recent: VecDeque<(UnixTime, MessageId)>,
    last_of: BTreeMap<Subject, u64>,
    /// What each consumer has acknowledged.
    places: BTreeMap<Name, u64>,
}

impl Stream {
    pub fn new(config: &Config) -> Self {
        Self {
            limits: config.limits,
            discard_new: config.discard_new,
            deduplication: config.deduplication,
            messages: VecDeque::new(),
            gone: 0,
            bytes: 0,
            ids: BTreeMap::new(),
            recent: VecDeque::new(),
            last_of: BTreeMap::new(),
            places: BTreeMap::new(),
        }
    }

    /// Whether this id is recognised.
    pub fn knows(&self, message: MessageId) -> bool {
        self.ids.contains_key(&message)
    }

    /// Whether this is the message that was stored last.
    pub fn is_last(&self, message: MessageId) -> bool {
        self.ids.get(&message) == Some(&self.last())
    }

    pub fn last(&self) -> u64 {
        self.gone + self.messages.len() as u64
    }

    /// The oldest message that is kept, or the place of the next.
    pub fn first(&self) -> u64 {
        self.gone + 1
    }

    /// What is behind `acknowledged` in this consumer's view. `None` where there is no such consumer.
    pub fn place(&self, name: Name) -> Option<u64> {
        self.places.get(&name).copied()
    }

    pub fn get(&self, sequence: u64) -> Option<&Stored> {
        self.messages.get(usize::try_from(sequence.checked_sub(self.gone + 1)?).ok()?)
    }

    pub fn messages(&self) -> impl Iterator<Item = Message> + '_ {
        (self.first()..).zip(&self.messages).map(|(sequence, stored)| Message {
            sequence: StreamSequence(sequence),
            subject: stored.subject,
            published: stored.published,
            delivery: 1,
            payload: stored.payload.clone(),
        })
    }

    /// Applies one committed entry.
    pub fn apply(&mut self, proposal: &Proposal) -> Applied {
        self.expire(proposal.at);
        match &proposal.command {
            Command::Nothing => Applied { answer: None, stored: None },
            Command::Publish { subject, message, payload, again: true, .. } => {
                // Only what was the last when its leader was lost, and is so still.
                if !self.is_last(*message) {
                    return Applied { answer: None, stored: None };
                }
                self.store(proposal.at, *subject, *message, payload)
            }
            Command::Publish { subject, message, after, payload, full, again: false } => {
                self.publish(proposal.at, *subject, *message, *after, payload, *full)
            }
            &Command::Consume { name, start } => {
                let place = self.place_of(start);
                self.places.entry(name).or_insert(place);
                Answer::Consuming(Outcome::Done(())).into()
            }
            &Command::Acknowledge { name, through } => {
                let last = self.last();
                Answer::Acknowledged(match self.places.get_mut(&name) {
                    Some(place) => {
                        *place = (*place).max(through.min(last));
                        Outcome::Done(())
                    }
                    None => Outcome::Refused(Refusal::NotServing),
                })
                .into()
            }
        }
    }

    fn publish(
        &mut self,
        at: UnixTime,
        subject: Subject,
        message: MessageId,
        after: Option<StreamSequence>,
        payload: &Arc<[u8]>,
        full: bool,
    ) -> Applied {
        if let Some(&sequence) = self.ids.get(&message) {
            let published = Published { sequence: StreamSequence(sequence), duplicate: true };
            return Answer::Published(Outcome::Done(published)).into();
        }
        let last = StreamSequence(self.last_of.get(&subject).copied().unwrap_or(0));
        if after.is_some_and(|after| after != last) {
            return Answer::Published(Outcome::Refused(Refusal::WrongSequence { last })).into();
        }
        let bytes = bytes_of(payload);
        let over = self.messages.len() as u64 >= self.limits.messages || self.bytes + bytes > self.limits.bytes;
        if full || over && self.discard_new {
            return Answer::Published(Outcome::Refused(Refusal::StreamFull)).into();
        }
        self.store(at, subject, message, payload)
    }

    fn store(&mut self, at: UnixTime, subject: Subject, message: MessageId, payload: &Arc<[u8]>) -> Applied {
        self.messages.push_back(Stored { subject, published: at, payload: payload.clone() });
        self.bytes += bytes_of(payload);
        let sequence = self.last();
        self.last_of.insert(subject, sequence);
        self.ids.insert(message, sequence);
        self.recent.push_back((at, message));
        while self.messages.len() as u64 > self.limits.messages || self.bytes > self.limits.bytes {
            self.discard_oldest();
        }
        let published = Published { sequence: StreamSequence(sequence), duplicate: false };
        Applied { answer: Some(Answer::Published(Outcome::Done(published))), stored: Some(sequence) }
    }

    /// Forgets ids whose time has passed and messages that are too old.
    fn expire(&mut self, now: UnixTime) {
        while let Some(&(at, message)) = self.recent.front()
            && now.since(at) >= self.deduplication
        {
            self.recent.pop_front();
            self.ids.remove(&message);
        }
        while self.messages.front().is_some_and(|oldest| now.since(oldest.published) >= self.limits.age) {
            self.discard_oldest();
        }
    }

    fn discard_oldest(&mut self) {
        let Some(oldest) = self.messages.pop_front() else { return };
        self.gone += 1;
        self.bytes -= bytes_of(&oldest.payload);
        if self.last_of.get(&oldest.subject) == Some(&self.gone) {
            self.last_of.remove(&oldest.subject);
        }
    }

    /// What a consumer that begins there is taken to have acknowledged.
    fn place_of(&self, start: Start) -> u64 {
        match start {
            Start::Beginning => self.gone,
            Start::New => self.last(),
            Start::Sequence(sequence) => sequence.0.saturating_sub(1).max(self.gone),
            Start::Time(time) => {
                self.gone + self.messages.iter().take_while(|message| message.published < time).count() as u64
            }
        }
    }

    /// A consumer is no more.
    pub fn remove(&mut self, name: Name) {
        self.places.remove(&name);
    }

    /// Every consumer is set back by so many messages.
    pub fn rewind(&mut self, by: u64) {
        self.places.values_mut().for_each(|place| *place = place.saturating_sub(by));
    }

    /// No id is recognised any more.
    pub fn forget_ids(&mut self) {
        self.ids.clear();
        self.recent.clear();
    }

    /// Nothing is kept any more.
    pub fn purge(&mut self) {
        while !self.messages.is_empty() {
            self.discard_oldest();
        }
    }

    /// The consumers.
    pub fn consumers(&self) -> impl Iterator<Item = Name> + '_ {
        self.places.keys().copied()
    }
}
