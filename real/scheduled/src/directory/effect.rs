//! What becomes of an operation that happens once.

use worldline_proto::OpId;
use worldline_real::directory::client::Verdict;
use worldline_system::{Outcome, Refusal, doors::directory::Transacted};

/// What is known of it.
#[derive(Debug, Default)]
pub struct Effect {
    pub left: bool,
    /// It has happened, and what a transaction came to.
    pub executed: Option<Option<Transacted>>,
    /// What the server has said instead.
    pub said: Option<Verdict>,
    pub told: Option<Outcome<Option<Transacted>>>,
}

impl Effect {
    /// What its answer is, if it is right. `early` where its deadline is still far.
    pub fn is_told(&mut self, op: OpId, outcome: Outcome<Option<Transacted>>, early: bool) -> &'static str {
        let words = match &outcome {
            Outcome::Done(done) => {
                assert_eq!(Some(done), self.executed.as_ref(), "{op}: its own answer");
                if done.as_ref().is_some_and(|done| !done.succeeded) { "done, and nothing written" } else { "done" }
            }
            Outcome::Unknown => {
                assert!(self.left, "{op} has not left, and nobody knows what became of it");
                match (self.executed.is_some(), early) {
                    (true, true) => "unknown when its connection ended, and executed",
                    (true, false) => "unknown at its deadline, and executed",
                    (false, true) => "unknown when its connection ended, and not executed",
                    (false, false) => "unknown at its deadline, and not executed",
                }
            }
            Outcome::Refused(refusal) => {
                assert!(self.executed.is_none(), "{op} is refused as {refusal:?}, and was executed");
                match (refusal, self.said) {
                    (_, Some(said)) => {
                        assert_eq!(said, Verdict::Refused(*refusal), "{op}: its own refusal");
                        "refused by what stands there"
                    }
                    (Refusal::NoLeader | Refusal::Busy, None) => {
                        assert!(self.left, "{op} is refused as {refusal:?}, and nobody was asked");
                        if *refusal == Refusal::Busy {
                            "refused by a member that is busy"
                        } else {
                            "refused without a leader"
                        }
                    }
                    (Refusal::Unreachable | Refusal::TooManyOperations, None) => {
                        assert!(!self.left, "{op} has left, and is refused");
                        if *refusal != Refusal::Unreachable {
                            "refused unasked"
                        } else if early {
                            "refused without a connection"
                        } else {
                            "refused behind its deadline"
                        }
                    }
                    _ => panic!("{op} is refused as {refusal:?}"),
                }
            }
        };
        self.told = Some(outcome);
        words
    }
}
