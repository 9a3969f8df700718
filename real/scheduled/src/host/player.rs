//! The role: it asks, arms and forgets as its draws say, and writes down what it is told.

use super::{Plan, Shared};
use crate::script::{between, one_in};
use std::sync::{Arc, Mutex, PoisonError};
use worldline_proto::CharacterId;
use worldline_system::{
    Role, Turn,
    doors::{
        Asked, Event, Submission,
        cache::{self, CounterKey, Violation},
        clock::TimerKey,
        directory::{self, Consistency, Family},
        entropy::Entropy,
    },
    limits,
    time::Duration,
};

/// Timers that it uses.
const TIMERS: u64 = 5;

#[derive(Clone)]
pub struct Player {
    book: Shared,
    plan: Plan,
    draws: Arc<Mutex<Entropy>>,
}

impl Player {
    pub fn new(book: Shared, plan: Plan, draws: Entropy) -> Self {
        Self { book, plan, draws: Arc::new(Mutex::new(draws)) }
    }

    fn ask(&self, turn: &mut Turn<'_, Submission>, patience: Duration) {
        let (op, deadline) = (turn.next_op(), turn.now() + patience);
        self.book.book().asked(op, deadline);
        // As `book::answer` answers.
        turn.submit(if op.counter.is_multiple_of(2) {
            let character = CharacterId::new(1).expect("small");
            let submission = cache::Submission::Count(CounterKey { character, violation: Violation::Speed });
            Submission::Cache(Asked { op, deadline, submission })
        } else {
            let (family, consistency) = (Family::Workers, Consistency::Linearizable);
            let submission = directory::Submission::Read { family, after: None, limit: 1, at: None, consistency };
            Submission::Directory(Asked { op, deadline, submission })
        });
    }

    fn act(&mut self, turn: &mut Turn<'_, Submission>) {
        let draws = self.draws.clone();
        let mut draws = draws.lock().unwrap_or_else(PoisonError::into_inner);
        if self.plan.crowd && one_in(&mut draws, 30) {
            self.plan.crowd = false;
            (0..limits::OPERATIONS_IN_FLIGHT + 9).for_each(|_| self.ask(turn, Duration::from_millis(40)));
        }
        for _ in 0..draws.below(4).min(self.plan.operations) {
            self.plan.operations -= 1;
            let patience = match draws.below(8) {
                0 => Duration::ZERO,
                1 => Duration::from_secs(5),
                _ => between(&mut draws, Duration::ZERO, Duration::from_millis(50)),
            };
            self.ask(turn, patience);
        }
        let key = TimerKey::new(1, draws.below(TIMERS));
        match draws.below(6) {
            0 | 1 => {
                let at = turn.now() + between(&mut draws, Duration::ZERO, Duration::from_millis(30));
                self.book.book().arm(key, at);
                turn.arm(key, at);
            }
            2 => {
                self.book.book().disarm(key);
                turn.disarm(key);
            }
            _ => {}
        }
    }

    /// The last word, and what comes behind it.
    fn stop(&self, turn: &mut Turn<'_, Submission>) {
        if !self.plan.orderly {
            self.ask(turn, Duration::from_millis(5));
        }
        turn.stopped();
        self.book.book().stop();
        self.ask(turn, Duration::from_millis(5));
    }
}

impl Role for Player {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        self.book.book().told(&event);
        if !self.book.is_stopping() {
            return self.act(turn);
        }
        if !self.plan.orderly || self.book.book().is_told() {
            self.stop(turn);
        }
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}
