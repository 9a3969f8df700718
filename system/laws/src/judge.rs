//! Whether there is an order of execution in which a model would have answered as the service did.
//!
//! The judge keeps every state that the service can be in. Of what is asked at once it tries every order that the door allows;
//! an operation that came to `Unknown` it executes at every later moment, and never. Where no state is left, the law is broken.

use crate::service::{Door, Told};
use proptest::test_runner::TestCaseError;
use std::fmt::Debug;
use worldline_system::{Outcome, Refusal, time::Instant};

/// States that are followed at most. Steps are few and rounds are small, so more would be a mistake of a model.
const STATES: usize = 4_096;

/// What an answer says about the execution of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was executed, and this came of it.
    Executed,
    /// It was not, and will not be: there was no service for it.
    Never,
    /// It was, or was not, or may yet be.
    Perhaps,
}

impl Ending {
    /// By an outcome; these refusals tell of a service that is not there, all others are results.
    #[must_use]
    pub fn of<T>(outcome: &Outcome<T>, absent: &[Refusal]) -> Self {
        match outcome {
            Outcome::Refused(refusal) if absent.contains(refusal) => Self::Never,
            Outcome::Done(_) | Outcome::Refused(_) => Self::Executed,
            Outcome::Unknown => Self::Perhaps,
        }
    }
}

/// A state of a service, as small as its promises allow.
pub trait Model<D: Door>: Clone + PartialEq + Debug {
    /// Whether what one caller asks at once is executed in that order.
    const IN_ORDER: bool;

    /// What an answer says.
    fn ending(answer: &D::Answer) -> Ending;

    /// The states that may follow an execution within `window`. With an answer: only where it may be answered so; none
    /// where it may not. Without: whatever its answer would have been.
    fn after(&self, submission: &D::Submission, window: Window, answer: Option<&D::Answer>) -> Vec<Self>;

    /// Whether it changes anything: only such a one is of interest when it came to `Unknown`.
    fn is_write(submission: &D::Submission) -> bool;

    /// Whether a sound service may turn this away, asked at once with `all` of these.
    fn may_be_turned_away(&self, _: &Told<D>, _all: &[Told<D>]) -> bool {
        false
    }
}

/// When an operation was executed: between these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Not before.
    pub from: Instant,
    /// Not after.
    pub to: Instant,
}

/// A state, and what may still happen in it.
#[derive(Clone, Debug, PartialEq)]
struct State<M> {
    // What is compared quickly comes first.
    /// Questions of this round that have not been executed yet.
    left: u64,
    /// Indices of [`Judge::unknown`] that have not happened yet.
    open: u64,
    model: M,
}

/// Judges one case.
#[derive(Clone, Debug)]
pub struct Judge<D: Door, M> {
    states: Vec<State<M>>,
    /// What came to `Unknown`, from when on it may happen.
    unknown: Vec<(D::Submission, Instant)>,
    /// The rounds so far, in words.
    before: Vec<String>,
    /// Whether the service may be absent.
    pub faulty: bool,
    /// Every state that it may fall back to.
    past: Option<Vec<State<M>>>,
}

impl<D: Door, M: Model<D>> Judge<D, M> {
    /// Of a service in this state.
    #[must_use]
    pub fn new(model: M) -> Self {
        let states = vec![State { model, open: 0, left: 0 }];
        Self { states, unknown: vec![], before: vec![], faulty: false, past: None }
    }

    /// Every state that the service can be in.
    pub fn states(&self) -> impl Iterator<Item = &M> {
        self.states.iter().map(|state| &state.model)
    }

    /// Something befalls the service that every state bears in its own way.
    pub fn befall(&mut self, mut what: impl FnMut(&mut M)) {
        self.states.iter_mut().for_each(|state| what(&mut state.model));
        self.dedup();
    }

    /// Something may befall the service that leads to any of these states, or to none.
    pub fn perhaps(&mut self, what: impl Fn(&M) -> Vec<M>) {
        let more: Vec<State<M>> = self
            .states
            .iter()
            .flat_map(|state| what(&state.model).into_iter().map(|model| State { model, ..state.clone() }))
            .collect();
        self.states.extend(more);
        self.dedup();
    }

    /// What has not happened by now never will.
    pub fn give_up(&mut self) {
        self.states.iter_mut().for_each(|state| state.open = 0);
        self.dedup();
    }

    /// What the service is now it does not lose any more, and what has not happened never will; from now on it may fall back to
    /// whatever it will have been.
    pub fn remember(&mut self) {
        self.give_up();
        self.past = Some(self.states.clone());
    }

    /// It does not fall back any more, until [`Judge::remember`].
    pub fn stay(&mut self) {
        self.past = None;
    }

    /// The service is as it was at some moment since [`Judge::remember`], or as it is.
    fn fall_back(&mut self) {
        if let Some(past) = &self.past {
            self.states.extend(past.iter().cloned());
            self.dedup();
            self.past = Some(self.states.clone());
        }
    }

    /// Takes in what was asked and answered while the service may have fallen back: before, or after.
    ///
    /// # Errors
    /// As [`Judge::round`].
    pub fn round_while_falling_back(&mut self, told: &[Told<D>]) -> Result<(), TestCaseError> {
        let (states, unknown, past) = (self.states.clone(), self.unknown.clone(), self.past.clone());
        let mut fallen: Self = Self { states, unknown, before: self.before.clone(), past, faulty: self.faulty };
        fallen.fall_back();
        let (before, after) = (fallen.round(told), self.round(told));
        match (before, after) {
            (Ok(()), Ok(())) => {
                self.fall_back();
                self.states.extend(fallen.states);
                self.dedup();
                self.past = Some(self.states.clone());
            }
            (Ok(()), Err(_)) => *self = fallen,
            (Err(_), Ok(())) => self.fall_back(),
            (Err(_), Err(why)) => return Err(why),
        }
        Ok(())
    }

    /// How many of the operations that came to `Unknown`, from the `first` on, have certainly happened by now, and how many
    /// certainly have not: in every state that is left.
    #[must_use]
    pub fn resolved(&self, first: usize) -> (usize, usize) {
        let all = |happened: bool| {
            let is = |n: &usize| self.states.iter().all(|state| (state.open >> n & 1 == 0) == happened);
            (first..self.unknown.len()).filter(is).count()
        };
        (all(true), all(false))
    }

    /// How many operations came to `Unknown`.
    #[must_use]
    pub fn unknown(&self) -> usize {
        self.unknown.len()
    }

    /// Takes in what was asked at once and answered.
    ///
    /// # Errors
    /// No order of execution explains the answers.
    pub fn round(&mut self, told: &[Told<D>]) -> Result<(), TestCaseError> {
        assert!(told.len() < 64, "a round is small");
        let mut executed = Vec::new();
        for one in told {
            match M::ending(&one.answer) {
                Ending::Executed => executed.push(one),
                _ if !self.faulty && !self.states.iter().any(|state| state.model.may_be_turned_away(one, told)) => {
                    let Told { submission, answer, .. } = one;
                    return Err(TestCaseError::fail(format!("a sound service answered {submission:?} by {answer:?}")));
                }
                Ending::Perhaps if M::is_write(&one.submission) => {
                    let n = self.unknown.len();
                    assert!(n < 64, "so many are not asked in a case");
                    self.unknown.push((one.submission.clone(), one.asked));
                    self.states.iter_mut().for_each(|state| state.open |= 1 << n);
                }
                Ending::Never | Ending::Perhaps => {}
            }
        }
        let before = self.states.clone();
        self.explore(&executed);
        let in_words = |one: &Told<D>| format!("  {}: {:?}\n    → {:?}", one.caller, one.submission, one.answer);
        let lines: Vec<String> = told.iter().map(in_words).collect();
        if self.states.is_empty() {
            let state = before.first().map(|state| format!("{:#?}", state.model)).unwrap_or_default();
            return Err(TestCaseError::fail(format!(
                "no order of execution explains\n{}\nin any of {} states, the first of them {state}\nbehind\n{}",
                lines.join("\n"),
                before.len(),
                self.before.join("\n"),
            )));
        }
        self.before.push(lines.join("\n"));
        assert!(self.states.len() <= STATES, "{} states cannot be told apart by what was answered", self.states.len());
        Ok(())
    }

    fn explore(&mut self, executed: &[&Told<D>]) {
        let all = (1_u64 << executed.len()) - 1;
        let mut frontier: Vec<State<M>> = std::mem::take(&mut self.states);
        frontier.iter_mut().for_each(|state| state.left = all);
        let latest = executed.iter().map(|told| told.answered).max();
        let mut seen: Vec<State<M>> = frontier.clone();
        while let Some(state) = frontier.pop() {
            if state.left == 0 {
                self.states.push(state);
                continue;
            }
            for next in self.successors(&state, executed, latest) {
                if !seen.contains(&next) {
                    seen.push(next.clone());
                    frontier.push(next);
                }
            }
        }
        if let Some(past) = &mut self.past {
            for state in seen.into_iter().map(|state| State { left: 0, ..state }) {
                if !past.contains(&state) {
                    past.push(state);
                }
            }
        }
    }

    fn successors(&self, state: &State<M>, executed: &[&Told<D>], latest: Option<Instant>) -> Vec<State<M>> {
        let mut next = Vec::new();
        for (n, told) in executed.iter().enumerate().filter(|(n, _)| state.left >> n & 1 == 1) {
            let waits =
                |(m, other): (usize, &&Told<D>)| m < n && state.left >> m & 1 == 1 && other.caller == told.caller;
            if M::IN_ORDER && executed.iter().enumerate().any(waits) {
                continue;
            }
            let window = Window { from: told.asked, to: told.answered };
            let models = state.model.after(&told.submission, window, Some(&told.answer));
            next.extend(models.into_iter().map(|model| State {
                model,
                left: state.left & !(1 << n),
                open: state.open,
            }));
        }
        for (n, (submission, from)) in self.unknown.iter().enumerate().filter(|(n, _)| state.open >> n & 1 == 1) {
            let window = Window { from: *from, to: latest.unwrap_or(*from).max(*from) };
            let models = state.model.after(submission, window, None);
            next.extend(models.into_iter().map(|model| State {
                model,
                left: state.left,
                open: state.open & !(1 << n),
            }));
        }
        next
    }

    fn dedup(&mut self) {
        let mut kept: Vec<State<M>> = Vec::with_capacity(self.states.len());
        for state in std::mem::take(&mut self.states) {
            if !kept.contains(&state) {
                kept.push(state);
            }
        }
        self.states = kept;
    }
}

#[cfg(test)]
mod tests;
