//! The operator: a command that somebody gives, carried out against whatever fails meanwhile.
//!
//! It revokes the tokens of characters, one after the other, and stops. What it submits may be submitted again: an outcome that
//! is unknown is resolved by asking for the same once more.
//!
//! Deliberately absent: a decision. Whom it concerns it is told before it starts.

use crate::{
    Outcome, Refusal, Role, Turn,
    backoff::Backoff,
    doors::{
        Asked,
        clock::TimerKey,
        ledger::{self, Answer},
    },
    knobs::Retry,
    limits,
    role::role_sums,
};
use alloc::vec::Vec;
use worldline_proto::{CharacterId, OpId, token};

role_sums! {
    Ledger(ledger::Event, Asked<ledger::Submission>),
}

/// How often the ledger is asked for one character before the command is given up: for some minutes.
const ATTEMPTS: u32 = 200;

/// What an operator is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose tokens it revokes.
    pub characters: Vec<CharacterId>,
    /// Its waits between tries.
    pub retry: Retry,
}

/// An operator's command.
#[derive(Clone, Debug)]
pub struct Operator {
    config: Config,
    valid_from_unix_ms: u64,
    /// How many of the characters are done.
    done: usize,
    pending: Option<OpId>,
    backoff: Backoff,
}

impl Operator {
    /// A command before its first event.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, valid_from_unix_ms: 0, done: 0, pending: None, backoff: Backoff::default() }
    }

    fn go_on(&mut self, turn: &mut Turn<'_, Submission>) {
        let Some(&character) = self.config.characters.get(self.done) else { return turn.stopped() };
        let submission = ledger::Submission::Revoke { character, valid_from_unix_ms: self.valid_from_unix_ms };
        self.pending = Some(turn.ledger(submission, limits::LEDGER_PATIENCE));
    }

    fn on_ledger(&mut self, event: ledger::Event, turn: &mut Turn<'_, Submission>) {
        let Answer::Revoked(outcome) = *event.answer else { return };
        if self.pending.take_if(|pending| *pending == event.op).is_none() {
            return;
        }
        match outcome {
            // Of a character that does not exist no token counts.
            Outcome::Done(_) | Outcome::Refused(Refusal::Malformed) => {
                self.done += 1;
                self.backoff.reset();
                self.go_on(turn);
            }
            Outcome::Unknown | Outcome::Refused(_) if self.backoff.failures() < ATTEMPTS => {
                let wait = self.backoff.fail(self.config.retry, turn.entropy());
                turn.arm_in(TimerKey::new(0, 0), wait);
            }
            Outcome::Unknown | Outcome::Refused(_) => turn.stopped(),
        }
    }
}

impl Role for Operator {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        match event {
            Event::Started => {
                // All that any gateway may have accepted by now.
                self.valid_from_unix_ms = turn.unix_now().as_nanos() / 1_000_000 + token::SKEW_MS + 1;
                self.go_on(turn);
            }
            Event::Timer(_) => self.go_on(turn),
            Event::Ledger(event) => self.on_ledger(event, turn),
            Event::Stop => turn.stopped(),
        }
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}
