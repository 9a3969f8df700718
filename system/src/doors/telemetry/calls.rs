//! What a host measures of operations on the ledger: the words of their labels, and their outcome.

use super::{Label, Meter, Metric, labels};
use crate::{
    Outcome,
    doors::ledger::{Answer, Ask},
    time::Duration,
};

/// What is asked, and the table that it is mainly about.
#[must_use]
pub const fn words(ask: Ask) -> (&'static str, &'static str) {
    match ask {
        Ask::Login => ("login", "entities"),
        Ask::Revoke => ("revoke", "entities"),
        Ask::Standing => ("standing", "entities"),
        Ask::Claim => ("claim", "entities"),
        Ask::Commit => ("commit", "entities"),
        Ask::Roster => ("roster", "entities"),
        Ask::Snapshot => ("snapshot", "entities"),
        Ask::Facts => ("facts", "outbox"),
        Ask::Unpublished => ("unpublished", "outbox"),
        Ask::Flag => ("flag", "outbox"),
    }
}

/// What an answer is that is no result.
#[must_use]
pub const fn failed(answer: &Answer) -> Option<&'static str> {
    const fn of<T>(outcome: &Outcome<T>) -> Option<&'static str> {
        match outcome {
            Outcome::Done(_) => None,
            Outcome::Refused(_) => Some("refused"),
            Outcome::Unknown => Some("unknown"),
        }
    }
    match answer {
        Answer::LoggedIn(outcome) => of(outcome),
        Answer::Revoked(outcome) => of(outcome),
        Answer::Standing(outcome) => of(outcome),
        Answer::Claimed(outcome) => of(outcome),
        Answer::Committed(outcome) => of(outcome),
        Answer::Roster(outcome) => of(outcome),
        Answer::Facts(outcome) | Answer::Unpublished(outcome) => of(outcome),
        Answer::Flagged(outcome) => of(outcome),
        Answer::Snapshot(outcome) => of(outcome),
    }
}

impl Meter {
    /// An operation on the ledger was answered after so long.
    pub fn ledger_answered(&mut self, ask: Ask, answer: &Answer, after: Duration) {
        let (operation, table) = words(ask);
        let named = labels(&[Label::Word(operation), Label::Word(table)]);
        self.observe(Metric::DbTransactionDurationMs, named, after);
        for outcome in ["refused", "unknown"] {
            // A rate needs a beginning: one that has not happened yet stands at nothing.
            let named = labels(&[Label::Word(operation), Label::Word(outcome)]);
            self.count(Metric::DbTransactionErrorsTotal, named, u64::from(failed(answer) == Some(outcome)));
        }
    }
}
