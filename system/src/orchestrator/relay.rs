//! The relay: what stands in the outbox and is not flagged some time after it was written, it publishes and flags. So every
//! fact is published, whatever became of its owner.
//!
//! It goes by the flags and never by a mark of how far it has come: a transaction that commits late would lie behind the mark.
//! Two relays at once, or one beside the owner, publish the same facts under the same ids; nothing else comes of it.
//!
//! One page at a time: swept, published, flagged. Whatever does not come to `Done` is found again by a later sweep.
//!
//! When nothing of a page was stored the bus is away: from then on one fact at a time probes it, after waits that double up to
//! [`limits::RELAY_RETRY_MAX`]. Once a probe is stored whole pages follow each other at once until nothing is left.

use super::{Submission, Timer};
use crate::{
    Outcome, Refusal, Turn,
    backoff::Backoff,
    doors::{
        bus,
        ledger::{self, FactsPage},
        telemetry::Metric,
    },
    facts::{self, Broadcast},
    knobs::Retry,
    limits, reached,
};
use alloc::{collections::BTreeMap, vec::Vec};
use worldline_proto::{EntityId, FactSequence, OpId};

/// Between probes of a bus that stores nothing.
const PROBES: Retry = Retry { first: limits::RELAY_PERIOD, longest: limits::RELAY_RETRY_MAX };

/// The page under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Relay {
    step: Step,
    /// Whether the sweep has seen more than its page, and the bus has taken all of it.
    more: bool,
    /// Pages of which nothing was stored, in a row.
    away: Backoff,
}

#[derive(Clone, Debug, Default)]
enum Step {
    #[default]
    Idle,
    Sweeping(OpId),
    Publishing {
        waiting: BTreeMap<OpId, Broadcast>,
        published: Vec<(EntityId, FactSequence)>,
        /// The bus has said of one that it is the fact that is wrong: so it is there.
        heard: bool,
    },
    Flagging(OpId),
}

impl Relay {
    /// The next period begins: sweeps, unless a page is under way. Each of its operations ends at its deadline.
    pub fn on_period(&mut self, turn: &mut Turn<'_, Submission>) {
        if matches!(self.step, Step::Idle) {
            self.sweep(turn);
        }
    }

    /// Forgets the page under way: this orchestrator leads no longer.
    pub fn stop(&mut self) {
        *self = Self::default();
    }

    fn sweep(&mut self, turn: &mut Turn<'_, Submission>) {
        let limit = if self.away.failures() == 0 { limits::RELAY_PAGE } else { 1 };
        let submission = ledger::Submission::Unpublished { older_than: limits::RELAY_AGE, limit };
        self.step = Step::Sweeping(turn.ledger(submission, limits::LEDGER_PATIENCE));
    }

    pub fn on_swept(&mut self, op: OpId, outcome: Outcome<FactsPage>, turn: &mut Turn<'_, Submission>) {
        if !matches!(self.step, Step::Sweeping(asked) if asked == op) {
            return;
        }
        self.step = Step::Idle;
        // A read leaves nothing behind: the next period tries again.
        let Outcome::Done(page) = outcome else { return };
        self.more = page.more;
        if self.away.failures() == 0 || page.facts.is_empty() {
            // A probe of a bus that is away sees one fact, however many there are: what was seen before stands.
            turn.gauge(Metric::OutboxBacklog, &[], page.facts.len());
        }
        if page.facts.is_empty() {
            return;
        }
        reached!(turn, "orchestrator.fact-relayed");
        let waiting = page.facts.iter().map(|fact| (facts::publish(fact, turn), Broadcast::relayed(fact, turn.now())));
        self.step = Step::Publishing { waiting: waiting.collect(), published: Vec::new(), heard: false };
    }

    pub fn on_published(&mut self, op: OpId, outcome: &Outcome<bus::Published>, turn: &mut Turn<'_, Submission>) {
        let Step::Publishing { waiting, published, heard } = &mut self.step else { return };
        let Some(broadcast) = waiting.remove(&op) else { return };
        broadcast.tell(op, outcome, turn);
        match outcome {
            Outcome::Done(_) => {
                turn.count(Metric::RelayPublishedTotal, &[], 1);
                published.push(broadcast.fact);
            }
            Outcome::Refused(Refusal::Malformed | Refusal::WrongSequence { .. }) => {
                *heard = true;
                self.more = false;
            }
            // It may be stored; it is published again under its id. One sweep after the other: the bus is not well.
            Outcome::Unknown | Outcome::Refused(_) => self.more = false,
        }
        if !waiting.is_empty() {
            return;
        }
        let (flags, heard) = (core::mem::take(published), *heard);
        if !flags.is_empty() {
            self.away.reset();
            self.step = Step::Flagging(turn.ledger(ledger::Submission::Flag(flags), limits::LEDGER_PATIENCE));
            return;
        }
        self.step = Step::Idle;
        if heard {
            self.away.reset();
        } else {
            reached!(turn, "orchestrator.relay-backed-off");
            let wait = self.away.fail(PROBES, turn.entropy());
            turn.arm_in(Timer::Relay, wait);
        }
    }

    pub fn on_flagged(&mut self, op: OpId, outcome: &Outcome<()>, turn: &mut Turn<'_, Submission>) {
        if !matches!(self.step, Step::Flagging(asked) if asked == op) {
            return;
        }
        self.step = Step::Idle;
        // A flag that may be set or not shows in the next sweep.
        if matches!(outcome, Outcome::Done(())) && self.more {
            self.sweep(turn);
        }
    }

    pub fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        let length = match &self.step {
            Step::Publishing { waiting, published, .. } => waiting.len() + published.len(),
            Step::Idle | Step::Sweeping(_) | Step::Flagging(_) => 0,
        };
        report("orchestrator.relay", length, usize::from(limits::RELAY_PAGE));
    }
}
