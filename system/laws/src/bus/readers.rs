//! What consumers are told, and what each of them may be told.

use super::{Stored, Stream};
use proptest::test_runner::TestCaseError;
use std::{collections::BTreeMap, sync::Arc};
use worldline_proto::OpId;
use worldline_system::{
    doors::bus::{Durable, GapCause, Message, Start},
    limits,
    time::{Duration, Instant, UnixTime},
};

/// A message is redelivered so much early at most, and what was under way arrives so much later.
const SLACK: Duration = Duration::from_millis(500);
/// What was under way when it was acknowledged has arrived by then.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// A consumer as the service knows it: it outlives its reader where it is durable.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    /// Who reads, by which operation, if anybody does.
    pub reader: Option<(usize, OpId)>,
    pub durable: Option<Durable>,
    /// The first that it is told at all.
    first: First,
    /// How often each came, when last, and whether it may come again at once.
    told: BTreeMap<u64, (u32, Instant, bool)>,
    /// What was rejected last, and when: it may have been on its way again already.
    rejected: Option<(u64, Instant)>,
    /// The last that came for the first time.
    newest: u64,
    /// Through which it was acknowledged, and when that was answered.
    acknowledged: Option<(u64, Instant)>,
    /// Something befell the service: messages may come again as they like.
    disturbed: bool,
}

/// Where a consumer begins.
#[derive(Clone, Copy, Debug)]
enum First {
    Sequence(u64),
    /// At the first message that was stored then or later: one that was is here.
    Time(UnixTime, u64),
}

impl Consumer {
    /// One that is opened where the stream stands like this.
    pub fn new(durable: Option<Durable>, start: Start, stream: &Stream, at: u64) -> Self {
        let first = match start {
            Start::Beginning => First::Sequence(stream.first()),
            Start::New => First::Sequence(stream.last() + 1),
            Start::Sequence(sequence) => First::Sequence(sequence.0.max(stream.first())),
            Start::Time(time) => First::Time(time, at),
        };
        let (told, newest) = (BTreeMap::new(), 0);
        Self { reader: None, durable, first, told, rejected: None, newest, acknowledged: None, disturbed: false }
    }

    /// Its reader is gone: what it was sent and has not looked at comes again to the next one.
    pub fn left(&mut self) {
        self.reader = None;
        self.told.values_mut().for_each(|told| told.2 = true);
    }

    /// From now on messages may come again as they like.
    pub fn disturb(&mut self) {
        self.disturbed = true;
    }

    /// Told, not acknowledged, oldest first.
    pub fn out(&self) -> impl Iterator<Item = u64> + '_ {
        let through = self.acknowledged.map_or(0, |(through, _)| through);
        self.told.keys().copied().filter(move |&at| at > through)
    }

    /// Through which it was acknowledged.
    pub fn acknowledge(&mut self, through: u64, now: Instant) {
        let before = self.acknowledged.map_or(0, |(before, _)| before);
        self.acknowledged = Some((through.max(before), now));
    }

    /// It has asked for this one again.
    pub fn reject(&mut self, sequence: u64, now: Instant) {
        self.rejected = Some((sequence, now));
        if let Some(told) = self.told.get_mut(&sequence) {
            told.2 = true;
        }
    }

    /// How often it was told this one.
    pub fn count(&self, sequence: u64) -> u32 {
        self.told.get(&sequence).map_or(0, |told| told.0)
    }

    /// Takes in a message. `streams` is every state that the stream can be in.
    ///
    /// # Errors
    /// It may not have been told this, now.
    pub fn tell<'a>(
        &mut self,
        message: &Arc<Message>,
        now: Instant,
        mut streams: impl Iterator<Item = &'a Stream>,
    ) -> Result<(), TestCaseError> {
        let wrong = |why: &str| Err(TestCaseError::fail(format!("{message:?} {why}: {self:#?}")));
        let sequence = message.sequence.0;
        let stored = Stored { subject: message.subject, payload: message.payload.to_vec() };
        if !streams.any(|stream| stream.get(sequence) == Some(&stored)) {
            return wrong("was not published there");
        }
        let begun = match self.first {
            First::Sequence(first) => sequence >= first,
            First::Time(time, _) => message.published >= time,
        };
        if !begun {
            return wrong("lies before where the consumer begins");
        }
        if self.disturbed {
            self.told.insert(sequence, (message.delivery, now, true));
            return Ok(());
        }
        if message.delivery == 1 && sequence <= self.newest {
            return wrong("comes for the first time behind a later one");
        }
        if let Some((through, at)) = self.acknowledged
            && sequence <= through
            && now > at + UNDER_WAY
        {
            return wrong("was acknowledged");
        }
        if let Some(&(count, last, at_once)) = self.told.get(&sequence) {
            if message.delivery <= count {
                return wrong("does not say that it comes again");
            }
            let rejected = self.rejected.is_some_and(|(which, at)| which == sequence && now <= at + UNDER_WAY);
            if !at_once && !rejected && now + SLACK < last + limits::BUS_ACK_WAIT {
                return wrong("comes again too early");
            }
        }
        self.newest = self.newest.max(if message.delivery == 1 { sequence } else { 0 });
        self.told.insert(sequence, (message.delivery, now, false));
        Ok(())
    }

    /// What it should have been told and was not, of what this stream keeps.
    pub fn lacks(&self, stream: &Stream) -> Vec<u64> {
        let first = match self.first {
            First::Sequence(first) => first,
            First::Time(_, at) => at,
        };
        let through = self.acknowledged.map_or(0, |(through, _)| through);
        (first.max(stream.first())..=stream.last()).filter(|at| *at > through && !self.told.contains_key(at)).collect()
    }

    /// The reader has been told that it is over.
    pub fn gap(&mut self, cause: GapCause, faulty: bool) -> Result<(), TestCaseError> {
        if !faulty {
            return Err(TestCaseError::fail(format!("a consumer of a sound bus has a gap ({cause:?}): {self:#?}")));
        }
        self.left();
        Ok(())
    }
}
