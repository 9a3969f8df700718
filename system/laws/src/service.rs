//! What drives a service under a law, and the bench that asks through it and keeps what is told.

use proptest::{prelude::*, test_runner::TestCaseError};
use std::{collections::BTreeMap, fmt::Debug};
use worldline_proto::OpId;
use worldline_system::time::{Duration, Instant};

/// How many callers a service has under a law.
pub const CALLERS: usize = 3;

/// A door whose service is under a law.
pub trait Door {
    /// What is asked.
    type Submission: Clone + Debug;
    /// What comes of it.
    type Answer: Clone + Debug + PartialEq;
    /// What is told unasked.
    type News: Clone + Debug;
    /// What a role is told.
    type Event;

    /// Which of the two an event is.
    fn heard(event: Self::Event) -> Heard<Self::Answer, Self::News>;
}

/// What a role is told through a door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<A, N> {
    /// The answer to an operation.
    Answer(OpId, A),
    /// What was not asked for by name.
    News(N),
}

/// What can befall a service under a law. Each lasts until [`Fault::Heal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Its process is killed, and started again when it heals.
    Kill,
    /// Its process stands still, and goes on when it heals.
    Stop,
    /// The links to it are cut: connections break, and none is made.
    Cut,
    /// What is asked arrives, and no answer comes back.
    LoseAnswers,
    /// What is asked does not arrive, and nobody is told.
    LoseRequests,
    /// Everything takes longer on its way, there and back.
    Slow,
    /// The service's side of each link is closed: what is asked arrives, and callers are told that nothing will come back.
    HalfClose,
    /// All of these end.
    Heal,
}

impl Fault {
    /// Every one that can befall a link or a process.
    pub const ALL: [Self; 7] =
        [Self::Kill, Self::Stop, Self::Cut, Self::LoseAnswers, Self::LoseRequests, Self::Slow, Self::HalfClose];

    /// What has been seen when it has befallen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::Stop => "stopped",
            Self::Cut => "cut",
            Self::LoseAnswers => "answers lost",
            Self::LoseRequests => "requests lost",
            Self::Slow => "slowed",
            Self::HalfClose => "half-closed",
            Self::Heal => "healed",
        }
    }
}

impl Fault {
    /// Those that befall whoever leads a cluster.
    pub const OF_LEADERS: [Self; 2] = [Self::Kill, Self::Stop];
}

/// A fault, and when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mishap {
    /// What befalls the service.
    pub fault: Fault,
    /// It comes when what is asked in it is under way already, and not before.
    pub under_way: bool,
}

impl Mishap {
    /// Any of these, at either moment.
    pub(crate) fn any(faults: &'static [Fault]) -> impl Strategy<Value = Self> {
        (prop::sample::select(faults), any::<bool>()).prop_map(|(fault, under_way)| Self { fault, under_way })
    }
}

/// A service with [`CALLERS`] callers.
pub trait Service<D: Door> {
    /// Begins anew: nothing that was done before is seen after it.
    fn begin(&mut self);

    /// The callers' monotonic clock.
    fn now(&self) -> Instant;

    /// Asks as one of the callers.
    fn submit(&mut self, caller: usize, patience: Duration, submission: D::Submission) -> OpId;

    /// The next event of any caller, if one comes until then. Time has passed until the event, or until `by`.
    fn next_event(&mut self, by: Instant) -> Option<(usize, D::Event)>;

    /// How late an answer may come that is due.
    fn grace(&self) -> Duration;

    /// Does this to the service. `false` where it cannot be done here.
    fn fault(&mut self, _: Fault) -> bool {
        false
    }
}

/// A question with its answer.
#[derive(Clone, Debug)]
pub struct Told<D: Door> {
    /// Who asked.
    pub caller: usize,
    /// Names it.
    pub op: OpId,
    /// What was asked.
    pub submission: D::Submission,
    /// When it was asked.
    pub asked: Instant,
    /// When it was answered.
    pub answered: Instant,
    /// The answer.
    pub answer: D::Answer,
}

/// A question that waits for its answer.
struct Waiting<D: Door> {
    asked: Instant,
    due: Instant,
    submission: D::Submission,
}

/// News, to whom, and when.
#[derive(Clone, Debug)]
pub struct News<N> {
    /// To whom.
    pub caller: usize,
    /// When.
    pub at: Instant,
    /// What.
    pub what: N,
}

/// Asks, waits, and keeps what is told. Holds by itself that each operation is answered once, in time, and nothing else is.
pub struct Bench<'a, D: Door, S: ?Sized> {
    /// What is driven.
    pub service: &'a mut S,
    /// What was told unasked and not looked at yet, in the order in which it came.
    pub news: Vec<News<D::News>>,
    waiting: BTreeMap<(usize, OpId), Waiting<D>>,
    /// What was answered and not collected yet.
    told: Vec<Told<D>>,
}

impl<'a, D: Door, S: Service<D> + ?Sized> Bench<'a, D, S> {
    /// A bench on a service that begins anew.
    pub fn new(service: &'a mut S) -> Self {
        service.begin();
        Self { service, news: vec![], waiting: BTreeMap::new(), told: vec![] }
    }

    /// Now, by the callers' clock.
    pub fn now(&self) -> Instant {
        self.service.now()
    }

    /// Asks without waiting.
    pub fn submit(&mut self, caller: usize, patience: Duration, submission: D::Submission) -> OpId {
        let asked = self.service.now();
        let op = self.service.submit(caller, patience, submission.clone());
        let due = self.service.now() + patience + self.service.grace();
        self.waiting.insert((caller, op), Waiting { asked, due, submission });
        op
    }

    /// Asks all this at once and waits for every answer: those of this round, in the order of the questions.
    ///
    /// # Errors
    /// One was not answered in time, or twice.
    pub fn round(
        &mut self,
        patience: Duration,
        asked: impl IntoIterator<Item = (usize, D::Submission)>,
    ) -> Result<Vec<Told<D>>, TestCaseError> {
        let ops = self.submit_all(patience, asked);
        self.await_all(patience, &ops)
    }

    fn submit_all(
        &mut self,
        patience: Duration,
        asked: impl IntoIterator<Item = (usize, D::Submission)>,
    ) -> Vec<(usize, OpId)> {
        let submit = |(caller, submission)| (caller, self.submit(caller, patience, submission));
        asked.into_iter().map(submit).collect()
    }

    fn await_all(&mut self, patience: Duration, ops: &[(usize, OpId)]) -> Result<Vec<Told<D>>, TestCaseError> {
        while ops.iter().any(|op| self.waiting.contains_key(op)) {
            self.listen(self.service.now() + patience)?;
        }
        let mut told = std::mem::take(&mut self.told);
        told.sort_by_key(|told| ops.iter().position(|&op| op == (told.caller, told.op)));
        Ok(told)
    }

    /// The same in a fault that comes before it is asked, or when it is under way. Whether the fault could be brought about: where
    /// it cannot, what was asked is answered all the same.
    ///
    /// # Errors
    /// As [`Bench::round`].
    pub fn round_in(
        &mut self,
        mishap: Mishap,
        patience: Duration,
        asked: impl IntoIterator<Item = (usize, D::Submission)>,
    ) -> Result<(bool, Vec<Told<D>>), TestCaseError> {
        let before = !mishap.under_way && self.service.fault(mishap.fault);
        let ops = self.submit_all(patience, asked);
        let befell = before || mishap.under_way && self.service.fault(mishap.fault);
        Ok((befell, self.await_all(patience, &ops)?))
    }

    /// Asks one thing and waits for its answer.
    ///
    /// # Errors
    /// As [`Bench::round`].
    pub fn ask(
        &mut self,
        caller: usize,
        patience: Duration,
        submission: D::Submission,
    ) -> Result<D::Answer, TestCaseError> {
        Ok(self.round(patience, [(caller, submission)])?.pop().expect("one was asked").answer)
    }

    /// Waits for the answer to what was submitted.
    ///
    /// # Errors
    /// As [`Bench::round`].
    pub fn answer(&mut self, caller: usize, op: OpId) -> Result<D::Answer, TestCaseError> {
        while self.waiting.contains_key(&(caller, op)) {
            self.listen(self.service.now() + Duration::from_secs(1))?;
        }
        let at = self.told.iter().position(|told| (told.caller, told.op) == (caller, op)).expect("it was submitted");
        Ok(self.told.swap_remove(at).answer)
    }

    /// Lets time pass, and keeps what is told meanwhile.
    ///
    /// # Errors
    /// As [`Bench::round`].
    pub fn pass(&mut self, span: Duration) -> Result<(), TestCaseError> {
        let until = self.service.now() + span;
        while self.service.now() < until {
            self.listen(until)?;
        }
        Ok(())
    }

    /// Takes the next event, if one comes until then.
    ///
    /// # Errors
    /// It answers what was answered or never asked; or something is not answered though it is due.
    pub fn listen(&mut self, by: Instant) -> Result<bool, TestCaseError> {
        let due = self.waiting.values().map(|waiting| waiting.due).min();
        let heard = self.service.next_event(due.map_or(by, |due| due.min(by)));
        let now = self.service.now();
        let Some((caller, event)) = heard else {
            let late = self.waiting.values().find(|waiting| waiting.due <= now);
            return match late {
                Some(late) => Err(TestCaseError::fail(format!("not answered in time: {:?}", late.submission))),
                None => Ok(false),
            };
        };
        match D::heard(event) {
            Heard::News(what) => self.news.push(News { caller, at: now, what }),
            Heard::Answer(op, answer) => {
                let Some(Waiting { asked, submission, .. }) = self.waiting.remove(&(caller, op)) else {
                    return Err(TestCaseError::fail(format!("{op} of caller {caller} is answered twice: {answer:?}")));
                };
                self.told.push(Told { caller, op, submission, asked, answered: now, answer });
            }
        }
        Ok(true)
    }
}
