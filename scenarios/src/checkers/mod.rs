//! The checkers: each watches one invariant of the design over the typed history and over samples of the running world.
//!
//! Invariants of this module:
//! * A checker believes the sinks ([`Acceptance`](worldline_system::history::Acceptance)) before any role. What a role says
//!   of itself is held against what the sinks accepted, never taken for it.
//! * A checker keeps its own account; it never calls the rule that it checks.
//! * A checker whose source was never seen says [`Verdict::NotChecked`], never [`Verdict::Held`].
//! * After its first breach a checker is silent: what follows from a broken world is no news.
//!
//! Must never be here: text that is parsed, randomness, or anything that changes the world.

mod conduct;
mod drains;
mod economy;
mod expiry;
mod invariant;
mod life;
mod movement;
mod outbox;
mod ownership;
mod reconstruction;
mod replicas;
mod retries;
mod revocation;
mod sessions;
#[cfg(test)]
mod story;
mod survival;
mod table;
mod view;

pub use invariant::Invariant;
pub use view::{Facts, Leak, LedgerRows, Queue, Services, Setup, View, WorkerState};

use std::fmt;
use worldline_proto::{Incarnation, NodeId};
use worldline_system::{
    history::{Entry, EventId},
    time::Instant,
};

/// How a checker answers: all is well, or why not.
pub type Check = Result<(), Box<Breach>>;

/// Why an invariant does not hold, in words for whoever has to find out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach(pub String);

/// Leaves a check with a breach.
macro_rules! breach {
    ($($text:tt)*) => {
        return Err(Box::new($crate::checkers::Breach(format!($($text)*))))
    };
}
use breach;

/// Watches one invariant.
pub trait Checker {
    /// Which.
    const INVARIANT: Invariant;

    /// A checker of a world that is about to begin.
    fn new(setup: &Setup) -> Self;

    /// Takes the next line of the history.
    fn on_entry(&mut self, entry: &Entry, facts: &Facts<'_>) -> Check {
        let _ = (entry, facts);
        Ok(())
    }

    /// Looks at the running world, about once a simulated second.
    fn on_sample(&mut self, view: &View<'_>) -> Check {
        let _ = view;
        Ok(())
    }

    /// Looks at the world after its last event. Called once, behind the last sample.
    fn at_end(&mut self, view: &View<'_>) -> Check {
        let _ = view;
        Ok(())
    }

    /// Why the invariant was not checked; `None` if it was.
    fn not_checked(&self) -> Option<&'static str>;
}

/// A broken invariant: the first entry or sample that shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// The event during which it broke.
    pub event: EventId,
    /// Where; `None` for what a sample showed.
    pub node: Option<(NodeId, Incarnation)>,
    /// When, by the run's own clock.
    pub at: Instant,
    /// What is wrong, in words.
    pub explanation: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken ({}): {}", self.invariant, self.invariant.sentence(), self.explanation)
    }
}

/// What came of an invariant in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was checked and held.
    Held,
    /// It broke: [`Checkers::violations`] says where.
    Broken,
    /// It was not checked, and why.
    NotChecked(&'static str),
}

/// One checker and whether it has found its breach.
#[derive(Clone, Debug)]
struct Watch<C> {
    checker: C,
    broken: bool,
}

impl<C: Checker> Watch<C> {
    /// Asks the checker unless it is silent; the breach, if this is the first.
    fn ask(&mut self, question: impl FnOnce(&mut C) -> Check) -> Option<(Invariant, Box<Breach>)> {
        if self.broken {
            return None;
        }
        let breach = question(&mut self.checker).err()?;
        self.broken = true;
        Some((C::INVARIANT, breach))
    }

    fn verdict(&self) -> (Invariant, Verdict) {
        let verdict = match self.checker.not_checked() {
            _ if self.broken => Verdict::Broken,
            Some(why) => Verdict::NotChecked(why),
            None => Verdict::Held,
        };
        (C::INVARIANT, verdict)
    }
}

/// Declares the set of all checkers: one field each, called in this order without a virtual call.
macro_rules! set {
    ($($field:ident: $checker:ty,)*) => {
        #[derive(Clone, Debug)]
        struct Set { $($field: Watch<$checker>,)* }

        impl Set {
            fn new(setup: &Setup) -> Self {
                Self { $($field: Watch { checker: <$checker>::new(setup), broken: false },)* }
            }

            fn on_entry(&mut self, entry: &Entry, facts: &Facts<'_>, found: &mut impl FnMut(Invariant, Breach)) {
                $(if let Some((invariant, breach)) = self.$field.ask(|checker| checker.on_entry(entry, facts)) {
                    found(invariant, *breach);
                })*
            }

            fn on_sample(&mut self, view: &View<'_>, found: &mut impl FnMut(Invariant, Breach)) {
                $(if let Some((invariant, breach)) = self.$field.ask(|checker| checker.on_sample(view)) {
                    found(invariant, *breach);
                })*
            }

            fn at_end(&mut self, view: &View<'_>, found: &mut impl FnMut(Invariant, Breach)) {
                $(if let Some((invariant, breach)) = self.$field.ask(|checker| checker.at_end(view)) {
                    found(invariant, *breach);
                })*
            }

            fn verdicts(&self) -> Vec<(Invariant, Verdict)> {
                vec![$(self.$field.verdict()),*]
            }
        }
    };
}

set! {
    one_writer: ownership::OneWriter,
    rising_epochs: ownership::RisingEpochs,
    own_clock: ownership::OwnClock,
    monotonic_sinks: ownership::MonotonicSinks,
    no_orphans: ownership::NoOrphans,
    dead_identities: ownership::DeadIdentities,
    quorum: ownership::Quorum,
    one_leader: ownership::OneLeader,
    never_ahead: replicas::NeverAhead,
    one_session: sessions::OneSession,
    exactly_once: sessions::ExactlyOnce,
    acknowledged_survives: sessions::AcknowledgedSurvives,
    stays_revoked: revocation::StaysRevoked,
    cache_decides_nothing: reconstruction::CacheDecidesNothing,
    loses_nothing: drains::LosesNothing,
    honest_stay: conduct::HonestStay,
    ends_with_token: expiry::EndsWithItsToken,
    all_agree: replicas::AllAgree,
    conservation: economy::Conservation,
    one_result: economy::OneResult,
    told_stands: survival::ToldStands,
    outbox: outbox::Outbox,
    no_overdraft: economy::NoOverdraft,
    authority_everywhere: economy::AuthorityEverywhere,
    speed: movement::Speed,
    inside_world: movement::InsideWorld,
    bounded_queues: life::BoundedQueues,
    nothing_stuck: life::NothingStuck,
    retries: retries::Retries,
}

/// All checkers of one run.
#[derive(Clone, Debug)]
pub struct Checkers {
    set: Set,
    violations: Vec<Violation>,
}

impl Checkers {
    /// Checkers of a world that is about to begin.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        Self { set: Set::new(setup), violations: Vec::new() }
    }

    /// Takes the next line of the history, in the order of the run.
    pub fn on_entry(&mut self, entry: &Entry, facts: &Facts<'_>) {
        let Self { set, violations } = self;
        set.on_entry(entry, facts, &mut |invariant, breach| {
            let (event, at) = (entry.event, entry.at);
            let node = Some((entry.node, entry.incarnation));
            violations.push(Violation { invariant, event, node, at, explanation: breach.0 });
        });
    }

    /// Looks at the running world. Once a simulated second is often enough.
    pub fn on_sample(&mut self, view: &View<'_>) {
        let Self { set, violations } = self;
        set.on_sample(view, &mut |invariant, breach| violations.push(seen(view, invariant, breach)));
    }

    /// Looks at the world after its last event.
    pub fn at_end(&mut self, view: &View<'_>) {
        let Self { set, violations } = self;
        set.at_end(view, &mut |invariant, breach| violations.push(seen(view, invariant, breach)));
    }

    /// What is broken, each invariant at most once, in the order in which it broke.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What came of every invariant.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(Invariant, Verdict)> {
        self.set.verdicts()
    }
}

fn seen(view: &View<'_>, invariant: Invariant, breach: Breach) -> Violation {
    Violation { invariant, event: view.event, node: None, at: view.at, explanation: breach.0 }
}
