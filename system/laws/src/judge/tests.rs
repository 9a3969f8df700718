//! A register under the judge: stories that can be told, and stories that cannot.

use super::*;
use crate::service::{Door, Heard};
use worldline_proto::{Incarnation, OpId};
use worldline_system::time::Duration;

#[derive(Debug, Clone)]
enum Register {}

#[derive(Clone, Debug, PartialEq)]
enum Ask {
    Put(u8),
    Get,
}

impl Door for Register {
    type Submission = Ask;
    type Answer = Outcome<u8>;
    type News = ();
    type Event = (OpId, Outcome<u8>);

    fn heard((op, answer): Self::Event) -> Heard<Outcome<u8>, ()> {
        Heard::Answer(op, answer)
    }
}

impl Model<Register> for u8 {
    const IN_ORDER: bool = false;

    fn ending(answer: &Outcome<u8>) -> Ending {
        Ending::of(answer, &[Refusal::Unreachable])
    }

    fn after(&self, submission: &Ask, _: Window, answer: Option<&Outcome<u8>>) -> Vec<u8> {
        let (next, expected) = match submission {
            Ask::Put(value) => (*value, Outcome::Done(*value)),
            Ask::Get => (*self, Outcome::Done(*self)),
        };
        if answer.is_none_or(|answer| *answer == expected) { vec![next] } else { vec![] }
    }

    fn is_write(submission: &Ask) -> bool {
        matches!(submission, Ask::Put(_))
    }
}

fn told(caller: usize, submission: Ask, answer: Outcome<u8>) -> Told<Register> {
    let op = OpId { incarnation: Incarnation(1), counter: 1 };
    let asked = Instant::default();
    Told { caller, op, submission, asked, answered: asked + Duration::from_millis(1), answer }
}

fn judge() -> Judge<Register, u8> {
    Judge { faulty: true, ..Judge::new(0) }
}

#[test]
fn what_is_asked_at_once_may_be_in_any_order() {
    let mut judge = judge();
    let both = [told(0, Ask::Put(1), Outcome::Done(1)), told(1, Ask::Get, Outcome::Done(0))];
    judge.round(&both).expect("the read came first");
    judge.round(&[told(1, Ask::Get, Outcome::Done(0))]).expect_err("and now it is written");
}

#[test]
fn what_is_unknown_happens_late_or_never_and_once() {
    let mut late = judge();
    late.round(&[told(0, Ask::Put(1), Outcome::Unknown)]).expect("it is allowed");
    late.round(&[told(0, Ask::Put(2), Outcome::Done(2))]).expect("it is allowed");
    let mut never = late.clone();
    late.round(&[told(1, Ask::Get, Outcome::Done(1))]).expect("the unknown one happened last");
    assert_eq!(late.resolved(0), (1, 0));
    late.round(&[told(0, Ask::Put(3), Outcome::Done(3))]).expect("it is allowed");
    late.round(&[told(1, Ask::Get, Outcome::Done(1))]).expect_err("it happens once");
    never.round(&[told(1, Ask::Get, Outcome::Done(2))]).expect("it has not happened, or before");
    assert_eq!(never.resolved(0), (0, 0));
}

#[test]
fn what_is_refused_for_want_of_a_service_never_happens() {
    let mut judge = judge();
    judge.round(&[told(0, Ask::Put(1), Outcome::Refused(Refusal::Unreachable))]).expect("it is allowed");
    judge.round(&[told(1, Ask::Get, Outcome::Done(1))]).expect_err("nobody wrote it");
}

#[test]
fn a_sound_service_leaves_nothing_open() {
    let mut judge: Judge<Register, u8> = Judge::new(0);
    judge.round(&[told(0, Ask::Put(1), Outcome::Unknown)]).expect_err("nothing was wrong");
}
