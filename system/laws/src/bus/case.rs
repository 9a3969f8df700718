//! One case under way: what publishers and readers do, and what each is told of it.

use super::answers::{expect, note, settle};
use super::readers::Consumer;
use super::steps::{From, Message, Step, extra};
use super::{BACK, Bus, BusService, News, PATIENCE, PATIENCE_IN_FAULT, Stream};
use crate::{
    judge::Judge,
    play::{Extent, Seen},
    service::{Bench, CALLERS, Fault, Mishap, Told},
};
use proptest::test_runner::TestCaseError;
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    Outcome, Refusal,
    doors::bus::{Answer, Durable, Published, Start, StreamSequence, Submission},
    limits,
    time::{Duration, Instant, UnixTime},
};

/// A message is kept so much shorter, at most, than for its time, by a clock that is not the suite's.
const AGED_EARLY: Duration = Duration::from_millis(500);

/// One case under way.
struct Case<'a, S: BusService> {
    bench: Bench<'a, Bus, S>,
    judge: Judge<Bus, Stream>,
    consumers: Vec<Consumer>,
    /// When messages were stored that somebody was told.
    moments: Vec<(u64, UnixTime)>,
    faulty: bool,
    extras: u64,
    /// When the oldest was published that may be too old, or earlier.
    oldest: Option<Instant>,
    /// What is stored is not known any more.
    over: bool,
    /// How often it was looked whether callers are served.
    probes: u64,
    extent: Extent,
    crowd: u64,
}

pub(super) fn play<S: BusService>(
    service: &mut S,
    steps: &[Step],
    extent: Extent,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    let mut bench = Bench::<Bus, S>::new(service);
    let crowd = bench.service.crowd();
    let mut probes = 0;
    let base = settle(&mut bench, crowd, &mut probes)?;
    let stream =
        Stream::new(base, bench.service.deduplication(), bench.service.messages_max(), bench.service.is_clustered());
    let mut case = Case {
        bench,
        judge: Judge::new(stream),
        consumers: vec![],
        moments: vec![],
        faulty: false,
        extras: 100,
        oldest: None,
        over: false,
        probes,
        extent,
        crowd,
    };
    for step in steps {
        // On a slow machine the rest of what was to come before all has aged is left out.
        if case.may_have_aged() && !matches!(step, Step::AwaitAged) {
            continue;
        }
        case.step(step, seen)?;
        if case.over {
            return Ok(());
        }
        case.listen_to_news(seen)?;
    }
    case.drain(seen)
}

impl<S: BusService> Case<'_, S> {
    fn stream(&self) -> &Stream {
        self.judge.states().next().expect("one is left")
    }

    fn step(&mut self, step: &Step, seen: &mut Seen) -> Result<(), TestCaseError> {
        match step {
            Step::Publish(messages) => {
                let (stream, bytes) = (self.stream().clone(), self.bench.service.payload_bytes());
                let submission = |what: &Message| what.submission(self.crowd, &stream, bytes);
                let round: Vec<_> = messages.iter().map(|(caller, what)| (*caller, submission(what))).collect();
                self.oldest.get_or_insert(self.bench.now());
                let told = self.bench.round(PATIENCE, round)?;
                self.over = self.may_have_aged();
                if self.over {
                    return Ok(());
                }
                for Told { submission, answer, .. } in &told {
                    note(answer, seen);
                    if let Submission::Publish { subject, after: Some(StreamSequence(0)), .. } = submission
                        && matches!(answer, Answer::Published(Outcome::Done(Published { duplicate: false, .. })))
                        && stream.has_lost(*subject)
                    {
                        seen.note("stored behind nothing");
                    }
                }
                self.judge.round(&told)?;
                seen.count("discarded", usize::from(self.stream().first() > self.stream().base() + 1));
                Ok(())
            }
            &Step::Open { caller, durable, from } => self.open(caller, durable, from, seen),
            &Step::Acknowledge { consumer, but } => self.acknowledge(consumer, but, seen),
            &Step::Reject { consumer } => self.reject(consumer, seen),
            &Step::Close { consumer } => {
                let Some((caller, op)) = self.reader(consumer) else { return Ok(()) };
                let answer = self.bench.ask(caller, PATIENCE, Submission::Close(op))?;
                expect(&answer, &Answer::Closed(Outcome::Done(())))?;
                self.listen_to_news(seen)?;
                if self.consumers[consumer].durable.is_none() {
                    self.consumers.remove(consumer);
                    return Ok(());
                }
                // It goes on with another reader.
                self.consumers[consumer].left();
                self.open(caller, true, From::New, seen)
            }
            &Step::AwaitRedelivery { consumer } => {
                if self.extent.longest_wait < limits::BUS_ACK_WAIT || self.reader(consumer).is_none() {
                    return Ok(());
                }
                let Some(oldest) = self.consumers[consumer].out().find(|&at| at >= self.stream().first()) else {
                    return Ok(());
                };
                let came = self.await_again(consumer, oldest, seen)?;
                seen.count("came again by itself", usize::from(came));
                Ok(())
            }
            Step::AwaitForgotten => self.await_forgotten(seen),
            Step::AwaitAged => self.await_aged(seen),
            Step::Drain => self.drain(seen),
            Step::Fault(mishap) => self.fault_and_heal(*mishap, seen),
        }
    }

    /// The reader of a consumer, if it has one.
    fn reader(&self, consumer: usize) -> Option<(usize, OpId)> {
        self.consumers.get(consumer)?.reader
    }

    fn open(&mut self, caller: usize, durable: bool, from: From, seen: &mut Seen) -> Result<(), TestCaseError> {
        // Two services may count alike; nobody else has this node's consumers.
        let durable = durable.then(|| Durable(NodeId(self.crowd as u32 * CALLERS as u32 + caller as u32)));
        let known = self.consumers.iter().position(|one| durable.is_some() && one.durable == durable);
        let open = self.consumers.iter().filter(|one| one.reader.is_some_and(|(reader, _)| reader == caller)).count();
        if known.is_some_and(|known| self.consumers[known].reader.is_some()) {
            return Ok(());
        }
        let stream = self.stream().clone();
        let (start, at) = match from {
            From::Beginning => (Start::Beginning, 0),
            From::New => (Start::New, 0),
            From::Sequence(back) => {
                (Start::Sequence(StreamSequence(stream.last().saturating_sub(back).max(stream.base() + 1))), 0)
            }
            From::Time(n) => match self.moments.get(n) {
                Some(&(at, moment)) => (Start::Time(moment), at),
                None => return Ok(()),
            },
        };
        let op = self.bench.submit(caller, PATIENCE, Submission::Consume { durable, start });
        let answer = self.bench.answer(caller, op)?;
        if open >= limits::BUS_CONSUMERS {
            return expect(&answer, &Answer::Consuming(Outcome::Refused(Refusal::Busy)));
        }
        if self.faulty && answer != Answer::Consuming(Outcome::Done(())) {
            return Ok(());
        }
        expect(&answer, &Answer::Consuming(Outcome::Done(())))?;
        if known.is_none() {
            match from {
                From::Sequence(_) => seen.note("from a place"),
                From::Time(_) => seen.note("from a time"),
                From::Beginning | From::New => {}
            }
            self.consumers.push(Consumer::new(durable, start, &stream, at));
        } else {
            seen.note("went on");
        }
        let place = known.unwrap_or(self.consumers.len() - 1);
        self.consumers[place].reader = Some((caller, op));
        Ok(())
    }

    fn acknowledge(&mut self, consumer: usize, but: usize, seen: &mut Seen) -> Result<(), TestCaseError> {
        let Some((caller, op)) = self.reader(consumer) else { return Ok(()) };
        let out: Vec<u64> = self.consumers[consumer].out().collect();
        let Some(&through) = out.len().checked_sub(but + 1).and_then(|at| out.get(at)) else { return Ok(()) };
        let what = Submission::Acknowledge { consumer: op, through: StreamSequence(through) };
        let answer = self.bench.ask(caller, PATIENCE, what)?;
        expect(&answer, &Answer::Acknowledged(Outcome::Done(())))?;
        // What was delivered meanwhile and lies before is acknowledged too, or comes again.
        seen.note("acknowledged");
        let now = self.bench.now();
        self.consumers[consumer].acknowledge(through, now);
        Ok(())
    }

    fn reject(&mut self, consumer: usize, seen: &mut Seen) -> Result<(), TestCaseError> {
        let Some((caller, op)) = self.reader(consumer) else { return Ok(()) };
        let first = self.stream().first();
        let Some(oldest) = self.consumers[consumer].out().find(|&at| at >= first) else { return Ok(()) };
        let what = Submission::Reject { consumer: op, sequence: StreamSequence(oldest) };
        let answer = self.bench.ask(caller, PATIENCE, what)?;
        if answer == Answer::Rejected(Outcome::Refused(Refusal::NotServing)) {
            // Not out: to a reader before this one it was, and it comes to this one yet.
            return Ok(());
        }
        expect(&answer, &Answer::Rejected(Outcome::Done(())))?;
        let now = self.bench.now();
        self.consumers[consumer].reject(oldest, now);
        let came = self.await_again(consumer, oldest, seen)?;
        seen.count("came again", usize::from(came));
        Ok(())
    }

    /// Until a consumer is told this once more. What may have aged meanwhile need not come: then `false`.
    fn await_again(&mut self, consumer: usize, sequence: u64, seen: &mut Seen) -> Result<bool, TestCaseError> {
        let before = self.consumers[consumer].count(sequence);
        let by = self.by();
        loop {
            // It may have come before the answer to whoever asked for it.
            self.listen_to_news(seen)?;
            if self.consumers[consumer].count(sequence) > before {
                return Ok(true);
            }
            if self.may_have_aged() {
                return Ok(false);
            }
            if self.bench.now() >= by {
                let why = format!("{sequence} does not come again: {:#?}", self.consumers[consumer]);
                return Err(TestCaseError::fail(why));
            }
            self.bench.listen(by)?;
        }
    }

    /// From when on what the case has published may be too old.
    fn ages(&self) -> Option<Instant> {
        self.oldest.map(|oldest| (oldest + self.bench.service.age()) - AGED_EARLY)
    }

    fn may_have_aged(&self) -> bool {
        self.ages().is_some_and(|ages| self.bench.now() >= ages)
    }

    /// Until when something is waited for that comes of what is kept.
    fn by(&self) -> Instant {
        let by = self.bench.now() + BACK;
        self.ages().map_or(by, |ages| by.min(ages))
    }

    /// A message is published, recognised, and after its time stored again.
    fn await_forgotten(&mut self, seen: &mut Seen) -> Result<(), TestCaseError> {
        let window = self.bench.service.deduplication();
        if window > self.extent.longest_wait {
            return Ok(());
        }
        self.extras += 1;
        let what = extra(self.crowd, self.extras);
        for wait in [Duration::ZERO, window / 2, window + Duration::from_millis(2_500)] {
            self.bench.pass(wait)?;
            let told = self.bench.round(PATIENCE, [(0, what.clone())])?;
            self.judge.round(&told)?;
            self.listen_to_news(seen)?;
        }
        seen.note("forgotten");
        Ok(())
    }

    /// Nothing is published until all that was has gone.
    fn await_aged(&mut self, seen: &mut Seen) -> Result<(), TestCaseError> {
        self.drain(seen)?;
        self.bench.pass(self.bench.service.age())?;
        self.bench.service.until_empty();
        self.oldest = None;
        self.judge.befall(Stream::age);
        seen.note("aged");
        self.listen_to_news(seen)
    }

    /// Looks at what consumers were told.
    fn listen_to_news(&mut self, seen: &mut Seen) -> Result<(), TestCaseError> {
        for news in std::mem::take(&mut self.bench.news) {
            let (News::Delivered(op, _) | News::Gap(op, _)) = &news.what;
            let reader = Some((news.caller, *op));
            // A consumer that was closed: its messages were under way.
            let Some(consumer) = self.consumers.iter_mut().find(|one| one.reader == reader) else { continue };
            match &news.what {
                News::Delivered(_, message) => {
                    consumer.tell(message, news.at, self.judge.states())?;
                    seen.note("told");
                    if self.moments.len() < 9 {
                        self.moments.push((message.sequence.0, message.published));
                    }
                }
                News::Gap(_, cause) => {
                    seen.note("gap");
                    consumer.gap(*cause, self.faulty)?;
                }
            }
        }
        // One that is not durable ends with its reader.
        self.consumers.retain(|one| one.reader.is_some() || one.durable.is_some());
        Ok(())
    }

    /// Until every consumer with a reader has been told everything that is kept, or it may not be kept any more.
    fn drain(&mut self, seen: &mut Seen) -> Result<(), TestCaseError> {
        let by = self.by();
        loop {
            self.listen_to_news(seen)?;
            let lacks = |one: &Consumer| {
                let least = self.judge.states().map(|stream| one.lacks(stream)).min_by_key(Vec::len);
                least.unwrap_or_default()
            };
            let lacking: Vec<_> = self
                .consumers
                .iter()
                .filter(|one| one.reader.is_some())
                .map(|one| (one, lacks(one)))
                .filter(|(_, lacks)| !lacks.is_empty())
                .collect();
            let Some((one, lacks)) = lacking.first() else {
                seen.note("drained");
                return Ok(());
            };
            if self.may_have_aged() {
                return Ok(());
            }
            if self.bench.now() >= by {
                return Err(TestCaseError::fail(format!("{lacks:?} never came to {one:#?}")));
            }
            self.bench.listen(by)?;
        }
    }

    fn fault_and_heal(&mut self, mishap: Mishap, seen: &mut Seen) -> Result<(), TestCaseError> {
        let calm = (self.faulty, self.judge.faulty);
        (self.faulty, self.judge.faulty) = (true, true);
        let before = self.judge.unknown();
        self.extras += 1;
        let (what, caller) = (extra(self.crowd, self.extras), self.extras as usize % CALLERS);
        let (befell, told) = self.bench.round_in(mishap, PATIENCE_IN_FAULT, [(caller, what.clone())])?;
        self.judge.round(&told)?;
        if !befell {
            (self.faulty, self.judge.faulty) = calm;
            return Ok(());
        }
        seen.note(mishap.fault.name());
        self.judge.perhaps(Stream::stored_again);
        self.consumers.iter_mut().for_each(Consumer::disturb);
        self.bench.service.fault(Fault::Heal);
        // Published again it is stored once; a reader that is not there any more is told so.
        let by = self.bench.now() + BACK;
        loop {
            let told = self.bench.round(PATIENCE_IN_FAULT * 4, [((caller + 1) % CALLERS, what.clone())])?;
            let answer = told.first().map(|told| told.answer.clone());
            if let Some(Answer::Published(Outcome::Done(published))) = &answer
                && self.judge.unknown() == before + 1
            {
                seen.note(if published.duplicate { "Unknown that had happened" } else { "Unknown that had not" });
            }
            self.judge.round(&told)?;
            match answer {
                Some(Answer::Published(Outcome::Done(_))) => break,
                _ if self.bench.now() > by => return Err(TestCaseError::fail("nothing is stored within a minute")),
                _ => self.bench.pass(Duration::from_millis(20))?,
            }
        }
        settle(&mut self.bench, self.crowd, &mut self.probes)?;
        self.judge.faulty = false;
        self.listen_to_news(seen)
    }
}
