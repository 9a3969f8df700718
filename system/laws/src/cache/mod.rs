//! The laws of the cache: what a sound one answers, what ends when, what a loss leaves, and what a broken one may say.

mod failover;
mod model;
mod steps;

pub use model::Entries;

use crate::{
    judge::Judge,
    play::{Extent, Seen, check},
    service::{Bench, CALLERS, Door, Fault, Heard, Mishap, Service, Told},
};
use proptest::test_runner::TestCaseError;
use steps::{Step, Wait, life, step, weather};
use worldline_proto::Digest;
use worldline_system::{
    Outcome,
    doors::cache::{Answer, Event, RevokedKey, Submission},
    time::Duration,
};

/// The door.
#[derive(Clone, Copy, Debug)]
pub enum Cache {}

impl Door for Cache {
    type Submission = Submission;
    type Answer = Answer;
    type News = std::convert::Infallible;
    type Event = Event;

    fn heard(event: Event) -> Heard<Answer, Self::News> {
        Heard::Answer(event.op, *event.answer)
    }
}

/// What only a cache can be made to suffer.
pub trait CacheService: Service<Cache> {
    /// FLUSHALL by somebody else.
    fn flush(&mut self);

    /// Somebody else puts something of another type in the place of every entry.
    fn soil(&mut self);

    /// The server is short of memory for a moment and takes entries away.
    fn evict(&mut self);

    /// Whether a replica takes over from a primary that is lost.
    fn has_replica(&self) -> bool {
        false
    }

    /// From now on the replica hears nothing of what the primary does, or hears it again. It does after [`Fault::Heal`].
    fn lag(&mut self, _: bool) {}

    /// Returns when the replica has everything.
    fn until_replicated(&mut self) {}
}

/// How long a caller waits for an answer: far longer than a sound service takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// And how long where the service may be gone.
const PATIENCE_IN_FAULT: Duration = Duration::from_millis(400);

/// **The cache's laws in fair weather.** Operations of one caller are executed in the order in which they were submitted; every
/// answer is what some order of all callers' operations gives: hash fields, stamps, counters up to the edge of 64 bits, texts,
/// presence against a search that measures every member. What is beyond a bound is `Refused(Malformed)` and does nothing. An
/// entry of another type is a miss to a reader and `WrongType` to a writer, once. A flush leaves nothing; what was evicted is a
/// miss and nothing else.
pub fn sound<S: CacheService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &proptest::collection::vec(step(), 1..extent.steps), |steps, seen| {
        play(service, &steps, extent, seen)
    })
}

/// **Lives end.** An entry stands for its time since it was last written and not longer; a write begins it anew, a read does not.
pub fn lives<S: CacheService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &proptest::collection::vec(life(), 1..extent.steps), |steps, seen| {
        play(service, &steps, extent, seen)
    })
}

/// **Under faults.** The server is killed, stopped, cut off; answers and requests are lost: what is `Refused` for want of a server
/// has not happened, what is `Unknown` has or has not or will, and everything else is as in fair weather. A server that was killed
/// comes back empty.
pub fn under_faults<S: CacheService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &proptest::collection::vec(weather(&Fault::ALL), 1..extent.steps), |steps, seen| {
        play(service, &steps, extent, seen)
    })
}

/// **The primary is lost.** It is killed and stopped, also under what is asked and while its replica hears nothing of it; the replica takes
/// over. What it was known to have is there, all that is there was there at one moment, and what was lost is as if it had never been.
pub fn primaries_lost<S: CacheService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &steps::succession(), |steps, seen| play(service, &steps, extent, seen))
}

fn play<S: CacheService>(
    service: &mut S,
    steps: &[Step],
    extent: Extent,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    let mut bench = Bench::<Cache, S>::new(service);
    let mut judge: Judge<Cache, Entries> = Judge::new(Entries::default());
    settle(&mut bench)?;
    let replicated = bench.service.has_replica();
    if replicated {
        judge.remember();
    }
    let mut lagging = false;
    for step in steps {
        match step {
            Step::Ask(round) => {
                let patience = if judge.faulty { PATIENCE_IN_FAULT } else { PATIENCE };
                let told = bench.round(patience, round.iter().map(|(caller, what)| (*caller, what.submission())))?;
                told.iter().for_each(|told| steps::note(&told.answer, seen));
                judge.round(&told)?;
                if replicated && !lagging {
                    // Only what the replica cannot have heard is kept in mind.
                    bench.service.until_replicated();
                    judge.remember();
                }
            }
            Step::Pass(wait) if wait.span() <= extent.longest_wait => {
                seen.note(wait.name());
                bench.pass(wait.span())?;
            }
            Step::Pass(_) => {}
            Step::Flush => {
                bench.service.flush();
                judge.befall(Entries::lose);
            }
            Step::Soil if judge.states().all(|entries| entries.is_certain(bench.now())) => {
                bench.service.soil();
                let now = bench.now();
                judge.befall(|entries| entries.soil(now));
            }
            Step::Soil => {}
            Step::Evict => evict(&mut bench, &mut judge, seen)?,
            Step::Lag if replicated => {
                bench.service.lag(true);
                lagging = true;
                seen.note("lagging");
            }
            Step::Lag => {}
            Step::Fault(fault) if replicated => {
                failover::succeed(&mut bench, &mut judge, *fault, seen)?;
                lagging = false;
            }
            Step::Fault(fault) => fault_and_heal(&mut bench, &mut judge, *fault, seen)?,
        }
    }
    Ok(())
}

/// What the server takes away is gone, and what it leaves is whole.
fn evict<S: CacheService>(
    bench: &mut Bench<'_, Cache, S>,
    judge: &mut Judge<Cache, Entries>,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    let told = bench.round(PATIENCE, (0..CALLERS as u64).map(|n| (0, steps::counted(n))))?;
    judge.round(&told)?;
    let stood = told.into_iter().map(|told| matches!(told.answer, Answer::Counted(Outcome::Done(1..))));
    let stood: Vec<bool> = stood.collect();
    let now = bench.now();
    bench.service.evict();
    judge.befall(|entries| entries.evict(now));
    let told = bench.round(PATIENCE, (0..CALLERS as u64).map(|n| (0, steps::count(n))))?;
    judge.round(&told)?;
    let gone = |(told, stood): (&Told<Cache>, bool)| stood && told.answer == Answer::Counted(Outcome::Done(0));
    seen.count("evicted", told.iter().zip(stood).filter(|&(told, stood)| gone((told, stood))).count());
    Ok(())
}

/// One fault, some operations in it, and the end of it.
fn fault_and_heal<S: CacheService>(
    bench: &mut Bench<'_, Cache, S>,
    judge: &mut Judge<Cache, Entries>,
    (mishap, first): (Mishap, u64),
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    let told = bench.round(PATIENCE, [(0, steps::counted(first))])?;
    judge.round(&told)?;
    let stood = matches!(told.first().map(|told| &told.answer), Some(Answer::Counted(Outcome::Done(1..))));
    let before = judge.unknown();
    judge.faulty = true;
    let who = |n| (first as usize + n) % CALLERS;
    let (befell, told) = bench.round_in(mishap, PATIENCE_IN_FAULT, [(who(0), steps::counted(first))])?;
    let killed = befell && mishap.fault == Fault::Kill;
    if killed && !mishap.under_way {
        judge.befall(Entries::lose);
    }
    judge.round(&told)?;
    if killed && mishap.under_way {
        judge.befall(Entries::lose);
    }
    if !befell {
        judge.faulty = false;
        return Ok(());
    }
    seen.note(mishap.fault.name());
    let told = bench.round(PATIENCE_IN_FAULT, [(who(1), steps::counted(first))])?;
    judge.round(&told)?;
    bench.service.fault(Fault::Heal);
    settle(bench)?;
    // What was on its way has arrived by now, or never does.
    bench.pass(Duration::from_millis(50))?;
    judge.faulty = false;
    let told = bench.round(PATIENCE, [(0, steps::count(first))])?;
    judge.round(&told)?;
    let gone = told.first().is_some_and(|told| told.answer == Answer::Counted(Outcome::Done(0)));
    seen.count("lost with the process", usize::from(stood && gone && killed));
    let (happened, not) = judge.resolved(before);
    seen.count("Unknown that had happened", happened);
    seen.count("Unknown that had not", not);
    Ok(())
}

/// Until every caller is served.
fn settle<S: CacheService>(bench: &mut Bench<'_, Cache, S>) -> Result<(), TestCaseError> {
    let by = bench.now() + Duration::from_secs(60);
    for caller in 0..CALLERS {
        // A key that no step uses.
        let probe = Submission::Get(RevokedKey(Digest([0xff; 16])));
        while !matches!(bench.ask(caller, PATIENCE_IN_FAULT * 5, probe.clone())?, Answer::Got(Outcome::Done(_))) {
            if bench.now() > by {
                return Err(TestCaseError::fail(format!("caller {caller} is not served again within a minute")));
            }
            bench.pass(Duration::from_millis(5))?;
        }
    }
    Ok(())
}

impl Wait {
    fn name(self) -> &'static str {
        match self {
            Self::Moment => "a moment",
            Self::Text => "a text's life",
            Self::HalfText => "half a text's life",
            Self::Load => "a load's life",
            Self::HalfLoad => "half a load's life",
            Self::Presence => "a presence's life",
            Self::HalfPresence => "half a presence's life",
            Self::Session => "a session's life",
            Self::Counter => "a counter's life",
        }
    }
}

/// What [`sound`] must come across.
pub const SOUND: &[&str] = &[
    "hash read",
    "hash missed",
    "replaced",
    "stands",
    "counted",
    "overflow",
    "text read",
    "text missed",
    "neighbours",
    "loads",
    "deleted",
    "wrong type",
    "malformed",
    "evicted",
];

/// What [`under_faults`] must come across beside what every service does.
pub const UNDER_FAULTS: &[&str] = &["lost with the process"];

/// What [`primaries_lost`] must come across.
pub const PRIMARIES_LOST: &[&str] = &["killed", "stopped", "lagging", "kept", "lost"];
