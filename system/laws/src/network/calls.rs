//! Calls: one answer each, in time; certainty where it is claimed.

use super::{BACK, GATEWAY, NetworkService, WORKER, wrong};
use crate::{
    play::{Extent, Seen, check},
    service::Fault,
};
use proptest::{prelude::*, test_runner::TestCaseError};
use std::collections::BTreeMap;
use worldline_proto::{
    CallId, OpId,
    server::{AttachReply, AttachRequest, PerformReply, PerformRequest, PerformStatus, Reply, Request},
};
use worldline_system::{
    Outcome, Refusal,
    doors::network::{Call, Event, Submission},
    limits,
    time::{Duration, Instant},
};

/// What [`calls`] must come across.
pub const CALLS: &[&str] = &[
    "done",
    "refused",
    "internal error",
    "no time",
    "deadline with effect",
    "Unknown that had happened",
    "Unknown that had not",
    "cut",
    "answers lost",
    "requests lost",
    "slowed",
    "half-closed",
    "nothing",
    "one byte",
    "a whole call",
    "too long a call",
];

/// How a callee answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    Done,
    /// Twice: the second is dropped.
    Twice,
    Refused,
    /// It says itself that it does not know.
    Unknown,
    /// Behind the deadline.
    Late,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Something short.
    Attach,
    /// Something that carries so many bytes.
    Perform(usize),
    /// Something of [`limits::CALL_BYTES`] and so many more.
    Whole(usize),
}

/// A step of a case.
#[derive(Clone, Debug)]
enum Step {
    /// All at once.
    Call(Vec<(Answers, What)>),
    /// With no time left.
    TooLate,
    /// A fault, a call in it, and its end.
    Fault(Fault),
}

fn step() -> impl Strategy<Value = Step> {
    use Answers::{Done, Late, Refused, Twice, Unknown};
    let answers = prop::sample::select(vec![Done, Done, Twice, Refused, Unknown, Late]);
    let what = prop_oneof![
        5 => Just(What::Attach),
        2 => prop::sample::select(vec![What::Perform(0), What::Perform(1)]),
        1 => prop::sample::select(vec![What::Whole(0), What::Whole(1)]),
    ];
    let fault = vec![Fault::Cut, Fault::LoseAnswers, Fault::LoseRequests, Fault::Slow, Fault::HalfClose];
    let fault = prop::sample::select(fault);
    prop_oneof![
        6 => prop::collection::vec((answers, what), 1..5).prop_map(Step::Call),
        1 => Just(Step::TooLate),
        3 => fault.prop_map(Step::Fault),
    ]
}

/// How long a call may take that is answered.
const PATIENCE: Duration = Duration::from_secs(20);
/// And one that is not, or in a fault.
const SHORT: Duration = Duration::from_millis(300);

/// **Calls.** Each is answered once, at its deadline at the latest: by what the callee said; by `Refused` where it never left, and then
/// the callee never hears of it; by `Unknown` else, and then it has happened, or has not. A second reply is dropped. Calls of none to
/// [`limits::CALL_BYTES`] bytes arrive whole; a longer one is `Refused(Malformed)`.
pub fn calls<S: NetworkService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &prop::collection::vec(step(), 1..extent.steps), |steps, seen| {
        service.begin();
        let mut case = Case { service, number: 0, asked: BTreeMap::new(), late: vec![], refused: vec![] };
        case.until_served()?;
        for step in &steps {
            case.step(step, seen)?;
        }
        Ok(())
    })
}

struct Asked {
    number: u64,
    what: What,
    answers: Answers,
    due: Instant,
    /// The callee has heard of it.
    called: bool,
    outcome: Option<Outcome<Reply>>,
}

struct Case<'a, S> {
    service: &'a mut S,
    number: u64,
    asked: BTreeMap<OpId, Asked>,
    /// Calls that are answered only when nobody waits any more.
    late: Vec<CallId>,
    /// What was refused for certain.
    refused: Vec<u64>,
}

fn request(number: u64, what: What) -> Request {
    let perform = |bytes: usize| {
        let action = vec![number as u8; bytes];
        Request::Perform(PerformRequest { character: 1, generation: 1, number, action, span: 0 })
    };
    match what {
        What::Attach => Request::Attach(AttachRequest { character: number, generation: 1, inputs_through: 0 }),
        What::Perform(bytes) => perform(bytes),
        What::Whole(more) => {
            let bytes = limits::CALL_BYTES + more;
            // The length of the length is the same a few bytes below.
            perform(bytes - (perform(bytes).encoded_len() - bytes))
        }
    }
}

/// The number of what arrived.
fn number_of(request: &Request) -> Option<u64> {
    match request {
        Request::Attach(request) => Some(request.character),
        Request::Perform(request) => Some(request.number),
        Request::ApplyEffect(_) => None,
    }
}

fn reply(number: u64, what: What) -> Reply {
    match what {
        What::Attach => Reply::Attach(AttachReply { epoch: number, ..AttachReply::default() }),
        _ => Reply::Perform(PerformReply { status: PerformStatus::Stored.into(), result: None }),
    }
}

impl<S: NetworkService> Case<'_, S> {
    fn step(&mut self, step: &Step, seen: &mut Seen) -> Result<(), TestCaseError> {
        match step {
            Step::Call(each) => {
                for &(answers, what) in each {
                    match answers {
                        // What is large takes its time.
                        Answers::Late => self.call(answers, What::Attach, SHORT),
                        _ => self.call(answers, what, PATIENCE),
                    }
                }
                self.settle()?;
                for asked in std::mem::take(&mut self.asked).into_values() {
                    let Some(outcome) = asked.outcome else { continue };
                    if let What::Whole(1..) = asked.what {
                        if outcome != Outcome::Refused(Refusal::Malformed) || asked.called {
                            return wrong(format!("what is too long is answered by {outcome:?}"));
                        }
                        self.refused.push(asked.number);
                        seen.note("too long a call");
                        continue;
                    }
                    seen.note(match asked.what {
                        What::Perform(0) => "nothing",
                        What::Perform(_) => "one byte",
                        What::Whole(_) => "a whole call",
                        What::Attach => "a short call",
                    });
                    let expected = match asked.answers {
                        Answers::Done | Answers::Twice => Outcome::Done(reply(asked.number, asked.what)),
                        Answers::Refused => Outcome::Refused(Refusal::NotServing),
                        Answers::Unknown | Answers::Late => Outcome::Unknown,
                    };
                    if outcome != expected || !asked.called {
                        return wrong(format!("{:?} is answered by {outcome:?}", asked.answers));
                    }
                    seen.note(match asked.answers {
                        Answers::Done | Answers::Twice => "done",
                        Answers::Refused => "refused",
                        Answers::Unknown => "internal error",
                        Answers::Late => "deadline with effect",
                    });
                }
                Ok(())
            }
            Step::TooLate => {
                self.call(Answers::Done, What::Attach, Duration::ZERO);
                self.settle()?;
                for asked in std::mem::take(&mut self.asked).into_values() {
                    if asked.outcome != Some(Outcome::Refused(Refusal::Unreachable)) {
                        return wrong(format!("a call without any time is answered by {:?}", asked.outcome));
                    }
                    self.refused.push(asked.number);
                    seen.note("no time");
                }
                Ok(())
            }
            Step::Fault(fault) => self.fault_and_heal(*fault, seen),
        }
    }

    fn call(&mut self, answers: Answers, what: What, patience: Duration) {
        self.number += 1;
        let (number, to) = (self.number, self.service.node(WORKER));
        let op = self.service.submit(GATEWAY, |op, now| {
            let request = request(number, what);
            Submission::Call(Box::new(Call { op, deadline: now + patience, to, request }))
        });
        let due = self.service.now() + patience + self.service.grace();
        self.asked.insert(op, Asked { number, what, answers, due, called: false, outcome: None });
    }

    /// Until every call is answered.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        while let Some(due) = self.asked.values().filter(|one| one.outcome.is_none()).map(|one| one.due).min() {
            if !self.listen(due)? && self.service.now() >= due {
                return wrong("a call is not answered by its deadline");
            }
        }
        for call in std::mem::take(&mut self.late) {
            let outcome = Box::new(Outcome::Done(reply(0, What::Attach)));
            self.service.submit(WORKER, |_, _| Submission::Reply { call, outcome });
        }
        Ok(())
    }

    fn listen(&mut self, by: Instant) -> Result<bool, TestCaseError> {
        match self.service.next_event(by) {
            None => return Ok(false),
            Some((GATEWAY, Event::Answered { op, outcome })) => {
                let Some(asked) = self.asked.get_mut(&op) else { return wrong(format!("{op} is answered twice")) };
                if asked.outcome.replace(*outcome).is_some() {
                    return wrong(format!("{op} is answered twice"));
                }
            }
            Some((WORKER, Event::Called { call, request: arrived, .. })) => {
                let number = number_of(&arrived);
                if number.is_some_and(|number| self.refused.contains(&number)) {
                    return wrong(format!("call {number:?} was refused, and the callee hears of it"));
                }
                // Of one that came to `Unknown` before: it happens late.
                let asked = self.asked.values_mut().find(|one| Some(one.number) == number);
                let Some(asked) = asked else { return Ok(true) };
                if *arrived != request(asked.number, asked.what) {
                    return wrong(format!("call {number:?} does not arrive as it was made"));
                }
                asked.called = true;
                let outcome = match asked.answers {
                    Answers::Done | Answers::Twice => Outcome::Done(reply(asked.number, asked.what)),
                    Answers::Refused => Outcome::Refused(Refusal::NotServing),
                    Answers::Unknown => Outcome::Unknown,
                    Answers::Late => {
                        self.late.push(call);
                        return Ok(true);
                    }
                };
                let twice = asked.answers == Answers::Twice;
                let first = Box::new(outcome);
                self.service.submit(WORKER, |_, _| Submission::Reply { call, outcome: first });
                if twice {
                    let second = Box::new(Outcome::Refused(Refusal::Busy));
                    self.service.submit(WORKER, |_, _| Submission::Reply { call, outcome: second });
                }
            }
            Some((node, other)) => return wrong(format!("{node} hears {other:?}")),
        }
        Ok(true)
    }

    fn fault_and_heal(&mut self, fault: Fault, seen: &mut Seen) -> Result<(), TestCaseError> {
        if !self.service.fault(fault) {
            return Ok(());
        }
        seen.note(fault.name());
        self.call(Answers::Done, What::Attach, SHORT);
        self.settle()?;
        self.service.fault(Fault::Heal);
        // What is on its way arrives by then, or does not.
        let until = self.service.now() + Duration::from_millis(500);
        while self.service.now() < until {
            self.listen(until)?;
        }
        for asked in std::mem::take(&mut self.asked).into_values() {
            match asked.outcome {
                Some(Outcome::Unknown) if asked.called => seen.note("Unknown that had happened"),
                Some(Outcome::Unknown) => seen.note("Unknown that had not"),
                Some(Outcome::Done(_)) if asked.called => seen.note("answered in a fault"),
                Some(Outcome::Refused(Refusal::Unreachable)) if !asked.called => self.refused.push(asked.number),
                other => return wrong(format!("called: {}; answered in a fault by {other:?}", asked.called)),
            }
        }
        self.until_served()
    }

    /// Until a call is answered.
    fn until_served(&mut self) -> Result<(), TestCaseError> {
        let by = self.service.now() + BACK;
        loop {
            self.call(Answers::Done, What::Attach, Duration::from_secs(2));
            self.settle()?;
            let all = std::mem::take(&mut self.asked);
            if all.values().all(|one| matches!(one.outcome, Some(Outcome::Done(_)))) {
                return Ok(());
            }
            self.refused.extend(
                all.values().filter(|one| matches!(one.outcome, Some(Outcome::Refused(_)))).map(|one| one.number),
            );
            if self.service.now() > by {
                return wrong("no call is answered within a minute");
            }
            let until = self.service.now() + Duration::from_millis(50);
            while self.service.now() < until {
                self.listen(until)?;
            }
        }
    }
}
