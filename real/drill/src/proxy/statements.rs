//! What goes wrong with statements on their way to the ledger: decided once, when a statement has left its caller.

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

/// What happens to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Nothing out of the ordinary.
    Pass,
    /// It is executed and committed; of its answer nothing arrives, and nothing more on its connection.
    Swallow,
    /// Its connection breaks.
    Break(When),
}

/// The answers that are swallowed.
#[derive(Clone, Copy, Debug)]
struct Loss {
    from: Option<NodeId>,
    permille: u16,
    left: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Going {
    lose: Option<Loss>,
    breaks: Option<(u16, When)>,
    delay: Option<(Option<NodeId>, Duration)>,
    statements: u64,
    swallowed: u64,
    broken: u64,
    delayed: u64,
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

    /// What happens to the statement that this caller has just sent.
    #[must_use]
    pub fn next(&self, caller: NodeId) -> Deed {
        let mut going = self.going();
        let n = going.statements;
        going.statements += 1;
        let happens = |which: u64, permille: u16| {
            draw::below(self.seed, Draw::Statement, 2 * n + which, 1_000) < u64::from(permille)
        };
        if let Some((_, when)) = going.breaks.filter(|(permille, _)| happens(0, *permille)) {
            going.broken += 1;
            return Deed::Break(when);
        }
        let hit =
            |loss: &Loss| loss.left > 0 && loss.from.is_none_or(|from| from == caller) && happens(1, loss.permille);
        match &mut going.lose {
            Some(loss) if hit(loss) => {
                loss.left -= 1;
                going.swallowed += 1;
                Deed::Swallow
            }
            _ => Deed::Pass,
        }
    }

    /// How much later the commit that this caller has just sent reaches the server.
    #[must_use]
    pub fn delay(&self, caller: NodeId) -> Duration {
        let mut going = self.going();
        match going.delay {
            Some((from, by)) if from.is_none_or(|from| from == caller) => {
                going.delayed += 1;
                by
            }
            _ => Duration::ZERO,
        }
    }

    /// How many answers were swallowed, connections broken, commits delayed.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let going = self.going();
        [
            ("answers swallowed", going.swallowed),
            ("connections broken", going.broken),
            ("commits delayed", going.delayed),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_one_callers_answers_is_swallowed_up_to_a_count() {
        let (statements, one, other) = (Statements::new(1), NodeId(1), NodeId(2));
        statements.lose_answers(Some(one), 330, u32::MAX);
        let swallowed = (0..1_000).filter(|_| statements.next(one) == Deed::Swallow).count();
        assert!((280..=380).contains(&swallowed), "{swallowed} of 1000");
        assert!((0..100).all(|_| statements.next(other) == Deed::Pass));
        statements.lose_answers(None, 1_000, 2);
        assert_eq!([one, other, one].map(|caller| statements.next(caller)), [Deed::Swallow, Deed::Swallow, Deed::Pass]);
        statements.lose_connections(1_000, When::After);
        assert_eq!(statements.next(one), Deed::Break(When::After));
        statements.delay_commits(Some(one), Duration::from_secs(15));
        assert_eq!((statements.delay(one), statements.delay(other)), (Duration::from_secs(15), Duration::ZERO));
        statements.heal();
        assert_eq!((statements.next(one), statements.delay(one)), (Deed::Pass, Duration::ZERO));
    }
}
