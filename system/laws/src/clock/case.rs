//! One case: what a role arms and disarms, and when each timer fires.

use super::{Act, ClockService, Disturbance, Entry, Happened};
use crate::play::{Extent, Seen};
use proptest::{prelude::*, test_runner::TestCaseError};
use std::collections::BTreeMap;
use worldline_system::{
    doors::clock::TimerKey,
    time::{Duration, Instant, UnixTime},
};

/// Few enough that arming replaces.
const TIMERS: u64 = 4;

/// A step of a case.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// In one turn.
    Act(Vec<Act>),
    Pass(Duration),
    Disturb(Disturbance),
}

fn act() -> impl Strategy<Value = Act> {
    let key = || (0..2_u8, 0..TIMERS / 2).prop_map(|(kind, number)| TimerKey::new(kind, number));
    let after = prop_oneof![
        1 => Just(Duration::ZERO),
        8 => (1..60_u64).prop_map(Duration::from_millis),
        2 => (1..3_000_u64).prop_map(Duration::from_micros),
        1 => Just(Duration::from_secs(3_600)),
    ];
    prop_oneof![
        6 => (key(), after).prop_map(|(key, after)| Act::Arm(key, after)),
        1 => (key(), (1..50_u64).prop_map(Duration::from_millis)).prop_map(|(key, before)| Act::ArmPast(key, before)),
        2 => key().prop_map(Act::Disarm),
    ]
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    let second = 1_000_000_000_i64;
    prop_oneof![
        1 => (1..100_u64).prop_map(|ms| Disturbance::Sleep(Duration::from_millis(ms))),
        1 => (-9 * second..9 * second).prop_map(Disturbance::StepWall),
        1 => (-500_000..=500_000_i32).prop_map(Disturbance::Drift),
        1 => Just(Disturbance::StandStill),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(act(), 1..4).prop_map(Step::Act),
        4 => (0..40_u64).prop_map(|ms| Step::Pass(Duration::from_millis(ms))),
        2 => disturbance().prop_map(Step::Disturb),
    ]
}

/// One case under way.
struct Case<'a, S> {
    service: &'a mut S,
    armed: BTreeMap<TimerKey, Instant>,
    last: (Instant, UnixTime),
}

pub(super) fn play<S: ClockService>(
    service: &mut S,
    steps: &[Step],
    extent: Extent,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    service.begin();
    let last = (service.now(), UnixTime::from_nanos(0));
    let mut case = Case { service, armed: BTreeMap::new(), last };
    for step in steps {
        match step {
            Step::Act(acts) => {
                for entry in case.service.act(acts) {
                    case.take(entry, acts, seen)?;
                }
            }
            Step::Pass(span) => case.pass((*span).min(extent.longest_wait), seen)?,
            Step::Disturb(what) => {
                if case.service.disturb(*what) {
                    seen.note(match what {
                        Disturbance::Sleep(_) => "slept",
                        Disturbance::StepWall(_) => "the wall clock stepped",
                        Disturbance::Drift(_) => "drifted",
                        Disturbance::StandStill => "stood still",
                    });
                }
            }
        }
    }
    // Whatever is due within the longest wait fires; what is due much later does not.
    case.pass(extent.longest_wait, seen)
}

impl<S: ClockService> Case<'_, S> {
    fn pass(&mut self, span: Duration, seen: &mut Seen) -> Result<(), TestCaseError> {
        let until = self.service.now() + span;
        while let Some(entry) = self.service.next(until) {
            self.take(entry, &[], seen)?;
        }
        let now = self.service.now();
        // One that is late has its grace.
        let by = now + self.service.grace();
        while self.armed.values().any(|&due| due < now) {
            match self.service.next(by) {
                Some(entry) => self.take(entry, &[], seen)?,
                None => return wrong(format!("at {:?} one of these has not fired: {:?}", now, self.armed)),
            }
        }
        Ok(())
    }

    fn take(&mut self, entry: Entry, acts: &[Act], seen: &mut Seen) -> Result<(), TestCaseError> {
        let Entry { at, unix, what } = entry;
        if at < self.last.0 {
            return wrong(format!("the monotonic clock goes back from {:?} to {at:?}", self.last.0));
        }
        seen.count("the wall clock went back", usize::from(unix < self.last.1));
        self.last = (at, unix);
        match what {
            Happened::Fired(key) => match self.armed.remove(&key) {
                Some(due) if at >= due => seen.note("fired"),
                Some(due) => return wrong(format!("{key:?} is armed for {due:?} and fires at {at:?}")),
                None => return wrong(format!("{key:?} fires at {at:?} and is not armed: {:?}", self.armed)),
            },
            Happened::Acted => acts.iter().for_each(|act| self.act(at, *act, seen)),
        }
        Ok(())
    }

    fn act(&mut self, now: Instant, act: Act, seen: &mut Seen) {
        let (key, due) = match act {
            Act::Arm(key, after) => (key, now + after),
            Act::ArmPast(key, before) => (key, now - before),
            Act::Disarm(key) => {
                let forgotten = self.armed.remove(&key).is_some();
                return seen.note(if forgotten { "disarmed" } else { "disarmed in vain" });
            }
        };
        seen.count("fired at once", usize::from(due <= now));
        match self.armed.insert(key, due) {
            Some(before) if before < due => seen.note("put off"),
            Some(before) if before > due => seen.note("brought forward"),
            _ => {}
        }
    }
}

fn wrong<T>(what: String) -> Result<T, TestCaseError> {
    Err(TestCaseError::fail(what))
}
