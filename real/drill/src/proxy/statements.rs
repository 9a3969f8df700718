//! What goes wrong with statements on their way to the ledger: a broken connection is decided when a statement is sent, a
//! swallowed answer when the server has given it. Only the calls that change something are counted or harmed: logins, claims
//! and batches.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use worldline_proto::NodeId;
use worldline_scenarios::draw::{self, Draw};

/// When, seen from its execution, a statement's connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The server never hears of it.
    Before,
    /// When the server has just been given it: it may land or not.
    During,
    /// When it has landed.
    After,
}

/// The answers that are swallowed.
#[derive(Clone, Copy, Debug)]
struct Loss {
    from: Option<NodeId>,
    permille: u16,
    left: u32,
}

impl Loss {
    fn concerns(&self, caller: NodeId) -> bool {
        self.left > 0 && self.from.is_none_or(|from| from == caller)
    }
}

/// What has gone wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers of commits that were swallowed.
    pub swallowed: u64,
    /// Connections that were broken.
    pub broken: u64,
    /// Commits that reached the server later.
    pub delayed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Going {
    lose: Option<Loss>,
    breaks: Option<(u16, When)>,
    delay: Option<(Option<NodeId>, Duration)>,
    draws: u64,
    counts: Counts,
}

/// What goes wrong now, for all links to the ledger.
#[derive(Debug)]
pub struct Statements {
    seed: u64,
    going: Mutex<Going>,
}

impl Statements {
    /// Nothing goes wrong; what will is drawn from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, going: Mutex::default() }
    }

    fn going(&self) -> MutexGuard<'_, Going> {
        // What is inside is plain figures: whole at every moment.
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happens(&self, going: &mut Going, permille: u16) -> bool {
        let n = going.draws;
        going.draws += 1;
        draw::below(self.seed, Draw::Statement, n, 1_000) < u64::from(permille)
    }

    /// From now on so many of a thousand answers to this caller (or to all) are swallowed, at most `count`.
    pub fn lose_answers(&self, from: Option<NodeId>, permille: u16, count: u32) {
        self.going().lose = (permille > 0).then_some(Loss { from, permille, left: count });
    }

    /// From now on so many of a thousand statements break their connections.
    pub fn lose_connections(&self, permille: u16, when: When) {
        self.going().breaks = (permille > 0).then_some((permille, when));
    }

    /// From now on the commits of this caller (or of all) reach the server so much later.
    pub fn delay_commits(&self, from: Option<NodeId>, by: Duration) {
        self.going().delay = (by > Duration::ZERO).then_some((from, by));
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        let mut going = self.going();
        (going.lose, going.breaks, going.delay) = (None, None, None);
    }

    /// Whether the connection of the call that has just been sent breaks, and when.
    #[must_use]
    pub fn breaks(&self) -> Option<When> {
        let mut going = self.going();
        let (permille, when) = going.breaks?;
        if !self.happens(&mut going, permille) {
            return None;
        }
        going.counts.broken += 1;
        Some(when)
    }

    /// Whether the answer to this caller that begins to arrive is to be swallowed, should it tell of a commit.
    #[must_use]
    pub fn chooses(&self, caller: NodeId) -> bool {
        let mut going = self.going();
        let loss = going.lose.filter(|loss| loss.concerns(caller));
        loss.is_some_and(|loss| self.happens(&mut going, loss.permille))
    }

    /// Whether an answer that was chosen, and tells of a commit, is swallowed: others may have used the count up meanwhile.
    #[must_use]
    pub fn swallows(&self, caller: NodeId) -> bool {
        let mut going = self.going();
        let Some(mut loss) = going.lose.filter(|loss| loss.concerns(caller)) else { return false };
        loss.left -= 1;
        going.lose = Some(loss);
        going.counts.swallowed += 1;
        true
    }

    /// How much later the commit that this caller has just sent reaches the server.
    #[must_use]
    pub fn delay(&self, caller: NodeId) -> Duration {
        let mut going = self.going();
        match going.delay {
            Some((from, by)) if from.is_none_or(|from| from == caller) => {
                going.counts.delayed += 1;
                by
            }
            _ => Duration::ZERO,
        }
    }

    /// What has gone wrong so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.going().counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_one_callers_answers_is_swallowed_up_to_a_count() {
        let (statements, one, other) = (Statements::new(1), NodeId(1), NodeId(2));
        statements.lose_answers(Some(one), 330, u32::MAX);
        let swallowed = (0..1_000).filter(|_| statements.chooses(one) && statements.swallows(one)).count();
        assert!((280..=380).contains(&swallowed), "{swallowed} of 1000");
        assert_eq!(statements.counts().swallowed, swallowed as u64);
        assert!((0..100).all(|_| !statements.chooses(other)) && !statements.swallows(other));
        statements.lose_answers(None, 1_000, 2);
        assert_eq!([one, other, one].map(|caller| statements.swallows(caller)), [true, true, false]);
        assert!(!statements.chooses(one), "all are used up");
        statements.lose_connections(1_000, When::After);
        assert_eq!(statements.breaks(), Some(When::After));
        statements.delay_commits(Some(one), Duration::from_secs(15));
        assert_eq!((statements.delay(one), statements.delay(other)), (Duration::from_secs(15), Duration::ZERO));
        statements.heal();
        assert_eq!((statements.breaks(), statements.delay(one)), (None, Duration::ZERO));
        let counts = statements.counts();
        assert_eq!((counts.broken, counts.delayed), (1, 1));
    }
}
