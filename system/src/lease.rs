//! Holding a lease: the identity of a worker or an orchestrator, and until when it may act.
//!
//! A holder acts until `ttl - margin` after it *sent* the last renewal that was acknowledged, by its own monotonic clock:
//! the directory cannot have started to count before that. What the holder knows of the directory's clock is nothing.
//!
//! Deliberately absent: what a role does when it may not act. That is the role's.

use crate::{
    Outcome, Refusal, Turn,
    backoff::Backoff,
    doors::{self, Asked, clock::TimerKey, directory},
    knobs::Knobs,
    limits,
    time::{Duration, Instant},
};
use worldline_proto::{LeaseId, OpId};

/// The times of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseTimes {
    /// Time to live in the directory.
    pub ttl: Duration,
    /// What the holder keeps off it. Below `ttl`.
    pub margin: Duration,
    /// How often it is renewed. Below `ttl - margin`.
    pub renewal: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { ttl: limits::LEASE_TTL, margin: limits::LEASE_MARGIN, renewal: limits::LEASE_RENEWAL }
    }
}

/// How far a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The directory has not yet acknowledged it.
    Granting,
    /// It stood when last heard of.
    Held,
    /// The directory has said that there is no such lease any more.
    Gone,
}

/// One lease from its grant to its end. A new one needs a new holder.
#[derive(Clone, Debug)]
pub struct Holder {
    lease: LeaseId,
    times: LeaseTimes,
    knobs: Knobs,
    stage: Stage,
    /// It may act before this, by the node's monotonic clock.
    valid_until: Instant,
    in_flight: Option<(OpId, Instant)>,
    backoff: Backoff,
}

/// What an answer means for the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// The answer was not this holder's.
    NotMine,
    /// Nothing that its role must act on.
    Nothing,
    /// It stands, for the first time or again.
    Renewed,
    /// The directory has ended it. The identity is dead.
    Gone,
}

impl Holder {
    /// Draws a new identity and asks the directory for its lease. `timer` is the role's timer for [`Self::on_timer`].
    pub fn begin<S>(times: LeaseTimes, knobs: Knobs, timer: TimerKey, turn: &mut Turn<'_, S>) -> Self
    where
        S: Into<doors::Submission> + From<Asked<directory::Submission>>,
    {
        let lease = LeaseId::from_bits(turn.entropy().bits());
        let mut holder = Self {
            lease,
            times,
            knobs,
            stage: Stage::Granting,
            valid_until: turn.now(),
            in_flight: None,
            backoff: Backoff::default(),
        };
        holder.ask(timer, turn);
        holder
    }

    /// The identity.
    #[must_use]
    pub const fn lease(&self) -> LeaseId {
        self.lease
    }

    /// Its times.
    #[must_use]
    pub const fn times(&self) -> LeaseTimes {
        self.times
    }

    /// Whether the holder may act at `now`.
    #[must_use]
    pub fn may_act(&self, now: Instant) -> bool {
        self.stage == Stage::Held && now < self.valid_until
    }

    /// When it must fall silent unless it is renewed before.
    #[must_use]
    pub const fn valid_until(&self) -> Instant {
        self.valid_until
    }

    /// Its timer has fired: asks the directory again. While an answer is still awaited it looks again a renewal later, for that
    /// answer arms no timer where it is a good one.
    pub fn on_timer<S>(&mut self, timer: TimerKey, turn: &mut Turn<'_, S>)
    where
        S: Into<doors::Submission> + From<Asked<directory::Submission>>,
    {
        if self.stage == Stage::Gone {
            return;
        }
        if self.in_flight.is_none() {
            self.ask(timer, turn);
        } else {
            turn.arm_in(timer, self.times.renewal);
        }
    }

    fn ask<S>(&mut self, timer: TimerKey, turn: &mut Turn<'_, S>)
    where
        S: Into<doors::Submission> + From<Asked<directory::Submission>>,
    {
        let submission = match self.stage {
            Stage::Granting => directory::Submission::Grant { lease: self.lease, ttl: self.times.ttl },
            Stage::Held | Stage::Gone => directory::Submission::KeepAlive(self.lease),
        };
        let op = turn.directory(submission, self.knobs.renewal_patience);
        self.in_flight = Some((op, turn.now()));
        turn.arm_in(timer, self.times.renewal);
    }

    /// Takes an answer of the directory, if it is to one of this holder's operations.
    pub fn on_answer<S>(
        &mut self,
        op: OpId,
        answer: &directory::Answer,
        timer: TimerKey,
        turn: &mut Turn<'_, S>,
    ) -> News
    where
        S: Into<doors::Submission> + From<Asked<directory::Submission>>,
    {
        let Some((awaited, sent)) = self.in_flight else { return News::NotMine };
        if awaited != op {
            return News::NotMine;
        }
        self.in_flight = None;
        match answer {
            directory::Answer::Granted(Outcome::Done(())) | directory::Answer::KeptAlive(Outcome::Done(_)) => {
                self.stage = Stage::Held;
                self.valid_until = self.valid_until.max(sent + (self.times.ttl - self.times.margin));
                self.backoff.reset();
                News::Renewed
            }
            // The id was drawn from 63 bits: who holds it is this holder, by a grant whose answer was lost. How long ago
            // it was granted is not known, so only a renewal tells until when it is valid.
            directory::Answer::Granted(Outcome::Refused(Refusal::LeaseExists)) => {
                self.stage = Stage::Held;
                self.ask(timer, turn);
                News::Nothing
            }
            directory::Answer::KeptAlive(Outcome::Refused(Refusal::LeaseNotFound)) => {
                self.stage = Stage::Gone;
                turn.disarm(timer);
                News::Gone
            }
            // `Unknown` and every other refusal: the lease is as it was. Ask again.
            _ => {
                let wait = self.backoff.fail(self.knobs.retry, turn.entropy());
                turn.arm_in(timer, wait);
                News::Nothing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Desk,
        doors::{entropy::Entropy, hooks::NoHooks},
        time::UnixTime,
        worker::Submission,
    };
    use alloc::{vec, vec::Vec};
    use worldline_proto::{Incarnation, NodeId};

    const TIMER: TimerKey = TimerKey::new(0, 0);

    fn turn(desk: &mut Desk, ms: u64, act: impl FnOnce(&mut Turn<'_, Submission>)) -> Vec<doors::Submission> {
        let (mut hooks, mut outbox) = (NoHooks, vec![]);
        let now = Instant::from_nanos(ms * 1_000_000);
        act(&mut Turn::new(now, UnixTime::default(), desk, &mut hooks, &mut outbox));
        outbox
    }

    fn asked(outbox: &[doors::Submission]) -> Option<OpId> {
        outbox.iter().find_map(|submission| match submission {
            doors::Submission::Directory(asked) => Some(asked.op),
            _ => None,
        })
    }

    #[test]
    fn a_renewal_that_is_slower_than_its_period_is_not_the_last_one() {
        let seed = Entropy::from_seed([1; 32]);
        let mut desk = Desk {
            node: NodeId(1),
            incarnation: Incarnation(1),
            operations: 0,
            entropy: seed,
            telemetry: Default::default(),
        };
        let times = LeaseTimes { renewal: Duration::from_millis(500), ..LeaseTimes::default() };
        let mut holder = None;
        let outbox = turn(&mut desk, 0, |turn| holder = Some(Holder::begin(times, Knobs::default(), TIMER, turn)));
        let (mut holder, grant) = (holder.expect("begun"), asked(&outbox).expect("a grant"));
        let outbox = turn(&mut desk, 500, |turn| holder.on_timer(TIMER, turn));
        assert_eq!(asked(&outbox), None, "the grant is still awaited");
        assert!(matches!(outbox[..], [doors::Submission::Arm { key: TIMER, .. }]), "it looks again");
        let granted = directory::Answer::Granted(Outcome::Done(()));
        turn(&mut desk, 900, |turn| assert_eq!(holder.on_answer(grant, &granted, TIMER, turn), News::Renewed));
        let outbox = turn(&mut desk, 1_000, |turn| holder.on_timer(TIMER, turn));
        assert!(asked(&outbox).is_some(), "the next renewal");
    }
}
