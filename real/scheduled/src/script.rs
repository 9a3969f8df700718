//! What every script has: its draws, its pauses, and how long everything stood still.

use crate::{bus, cache, directory, host, log::Log};
use madsim::{
    Config,
    runtime::{Handle, Runtime},
    time::sleep,
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use worldline_real::clock;
use worldline_system::{
    doors::entropy::Entropy,
    time::{Duration, Instant},
};

/// Schedules of a seed.
pub const SCHEDULES: u64 = 12;
/// How late anything may be beside the time that everything stood still: the shortest sleep of madsim is a millisecond.
pub const SLACK: Duration = Duration::from_millis(5);

/// A life of what is looked at, from beginning to end.
pub type Suite = fn() -> Pin<Box<dyn Future<Output = Log>>>;

/// The suite of this name.
#[must_use]
pub fn suite(name: &str) -> Option<Suite> {
    match name {
        "bus-schedules" => Some(|| Box::pin(bus::life())),
        "cache-schedules" => Some(|| Box::pin(cache::life())),
        "directory-schedules" => Some(|| Box::pin(directory::life())),
        "host-schedules" => Some(|| Box::pin(host::life())),
        _ => None,
    }
}

/// Runs one schedule twice with madsim looking on: whatever is drawn, and when, must be alike.
#[must_use]
pub fn run(suite: Suite, seed: u64) -> Log {
    Runtime::check_determinism(seed, Config::default(), suite)
}

/// The draws of one part of a script.
#[must_use]
pub fn draws(part: u64) -> Entropy {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&Handle::current().seed().to_le_bytes());
    seed[8..16].copy_from_slice(&part.to_le_bytes());
    Entropy::from_seed(seed)
}

/// A span from `low` on and below `high`.
pub fn between(draws: &mut Entropy, low: Duration, high: Duration) -> Duration {
    low + Duration::from_nanos(draws.below((high - low).as_nanos().max(1)))
}

/// Whether it comes to pass, one time in so many.
pub fn one_in(draws: &mut Entropy, times: u64) -> bool {
    draws.below(times) == 0
}

/// Lets others go on for at least so long.
pub async fn pause(span: Duration) {
    sleep(clock::span(span)).await;
}

/// For how long everything stood still, as it does where a machine is overloaded or sleeps. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Stalls(Arc<AtomicU64>);

impl Stalls {
    /// Stands still.
    pub fn stall(&self, span: Duration) {
        madsim::time::advance(clock::span(span));
        self.0.fetch_add(span.as_nanos(), Ordering::Relaxed);
    }

    /// Who hears was held up for so long, and nobody else.
    pub fn hold_up(&self, span: Duration) {
        self.0.fetch_add(span.as_nanos(), Ordering::Relaxed);
    }

    /// Until now.
    #[must_use]
    pub fn so_far(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// This moment.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark { at: clock::now(), stalled: self.so_far() }
    }
}

/// A moment, and for how long everything had stood still until then.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// When.
    pub at: Instant,
    /// How long it had been.
    pub stalled: Duration,
}

impl Mark {
    /// Fails where `what`, which was asked for at this moment and due at `due`, is told too late now.
    pub fn prompt(self, now: Mark, due: Instant, what: &str) {
        let late = now.at.since(due.max(self.at));
        let excused = now.stalled - self.stalled + SLACK;
        assert!(
            late <= excused,
            "{what}: {} us late, of which {} us are excused",
            late.as_micros(),
            excused.as_micros()
        );
    }
}
