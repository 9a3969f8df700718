//! How a suite is run: so many cases, the same for a seed every time, and the smallest that fails.

use proptest::{
    strategy::Strategy,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};
use std::{cell::RefCell, collections::BTreeMap, fmt::Debug};
use worldline_system::time::Duration;

/// How much of a suite is run: a real service takes its time.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Cases.
    pub cases: u32,
    /// Steps of a case, at most.
    pub steps: usize,
    /// What would have to wait longer is left out.
    pub longest_wait: Duration,
    /// Which cases are drawn.
    pub seed: u64,
}

/// The variable that [`seed`] reads.
const SEED: &str = "WORLDLINE_LAWS_SEED";

/// The seed that somebody wants to see played, or else the one that always is. A suite that fails says which it was.
///
/// # Panics
/// What is wanted is no number.
#[must_use]
pub fn seed() -> u64 {
    let wanted = std::env::var(SEED).ok();
    wanted.map_or(0, |seed| seed.parse().unwrap_or_else(|_| panic!("{SEED} is {seed:?}, which is no number")))
}

/// What a suite came across, and how often: one that never met what it is about shows nothing.
#[derive(Debug, Default)]
pub struct Seen(BTreeMap<&'static str, u64>);

/// What can befall every service, and both kinds of `Unknown` that may follow.
pub const UNDER_FAULTS: &[&str] = &[
    "killed",
    "stopped",
    "cut",
    "answers lost",
    "requests lost",
    "slowed",
    "half-closed",
    "Unknown that had happened",
    "Unknown that had not",
];

impl Seen {
    /// It happened.
    pub fn note(&mut self, what: &'static str) {
        self.count(what, 1);
    }

    /// It happened so many times.
    pub fn count(&mut self, what: &'static str, times: usize) {
        if times > 0 {
            *self.0.entry(what).or_default() += times as u64;
        }
    }

    /// All that happened, each once.
    pub fn all(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.keys().copied()
    }

    /// How often it happened.
    #[must_use]
    pub fn times(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Panics where one of these never happened, or of what every suite under faults must come across.
    pub fn expect_under_faults(&self, more: &[&str]) {
        self.expect(UNDER_FAULTS);
        self.expect(more);
    }

    /// Panics where one of these never happened. Only the cases that are always played were looked at for that.
    pub fn expect(&self, all: &[&str]) {
        if seed() != 0 {
            return;
        }
        let never: Vec<_> = all.iter().filter(|what| self.times(what) == 0).collect();
        assert!(never.is_empty(), "never happened: {never:?}; what did: {:?}", self.0);
    }
}

/// Attempts to make a case that fails smaller, and for how long: on a real service one may take a minute.
const SHRINKS: u32 = 4_000;
const SHRINKING_MS: u32 = 60_000;

/// Plays so many cases. Panics with the smallest list of steps that breaks the law.
pub fn check<T: Debug, S: Strategy<Value = Vec<T>>>(
    Extent { cases, seed, .. }: Extent,
    steps: &S,
    mut play: impl FnMut(S::Value, &mut Seen) -> Result<(), TestCaseError>,
) -> Seen {
    let (max_shrink_iters, max_shrink_time) = (SHRINKS, SHRINKING_MS);
    let config = Config { cases, failure_persistence: None, max_shrink_iters, max_shrink_time, ..Config::default() };
    let rng = match seed {
        0 => TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        _ => TestRng::from_seed(RngAlgorithm::ChaCha, &seed.to_le_bytes().repeat(4)),
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let state = RefCell::new((Seen::default(), &mut play, None));
    let played = runner.run(steps, |case| {
        let (seen, play, first) = &mut *state.borrow_mut();
        play(case, seen).inspect_err(|why| _ = first.get_or_insert_with(|| why.to_string()))
    });
    match (played, state.into_inner()) {
        (Ok(()), (seen, ..)) => seen,
        (Err(TestError::Fail(why, smallest)), (.., first)) => {
            let lines: Vec<String> = smallest.iter().map(|step| format!("  {step:?}")).collect();
            // A real service may break another law by a smaller case, or this one by chance.
            let first = first.filter(|first| *first != why.to_string()).unwrap_or_else(|| "the same".to_owned());
            panic!(
                "{why}\nthe smallest case:\n{}\nof the cases of seed {seed}\nwhat broke first: {first}\n",
                lines.join("\n")
            )
        }
        (Err(TestError::Abort(why)), _) => panic!("{why}"),
    }
}
