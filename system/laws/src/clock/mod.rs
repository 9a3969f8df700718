//! The laws of the clock: time that never goes back, and keyed timers that are never early.

mod case;

use crate::play::{Extent, Seen, check};
use case::{play, step};
use worldline_system::{
    doors::clock::TimerKey,
    time::{Duration, Instant, UnixTime},
};

/// What a role does with its timers in one turn. Times are counted from that turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// To fire so much later.
    Arm(TimerKey, Duration),
    /// To fire at a time that has passed by so much.
    ArmPast(TimerKey, Duration),
    /// To be forgotten.
    Disarm(TimerKey),
}

/// What a role has met, and what its clocks showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The monotonic clock.
    pub at: Instant,
    /// The wall clock.
    pub unix: UnixTime,
    /// What.
    pub what: Happened,
}

/// What a role has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A timer fired.
    Fired(TimerKey),
    /// It was its turn to act.
    Acted,
}

/// What befalls a node's clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// The machine sleeps for so long: both clocks go on meanwhile.
    Sleep(Duration),
    /// The wall clock is set forward or back by so many ns.
    StepWall(i64),
    /// The clocks run fast or slow from now on, in parts per million.
    Drift(i32),
    /// They stand still for a while.
    StandStill,
}

/// A node whose clock door is driven.
pub trait ClockService {
    /// Begins anew: nothing is armed.
    fn begin(&mut self);

    /// The node's monotonic clock.
    fn now(&self) -> Instant;

    /// Lets the role do this in one turn. What it has met up to that turn, the turn itself last.
    fn act(&mut self, acts: &[Act]) -> Vec<Entry>;

    /// What the role meets next, if anything until then by the node's clock.
    fn next(&mut self, by: Instant) -> Option<Entry>;

    /// How late a timer may fire.
    fn grace(&self) -> Duration;

    /// Does this to the clocks. `false` where it cannot be done here.
    fn disturb(&mut self, _: Disturbance) -> bool {
        false
    }
}

/// **The clock's laws.** The monotonic clock never goes back, also where the wall clock does. A timer fires once for each arming, never
/// before its time, and soon after it; one that is due when it is armed fires at once. Arming again replaces, to sooner and to
/// later; what was disarmed does not fire, even if it was due.
pub fn timers<S: ClockService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &proptest::collection::vec(step(), 1..extent.steps), |steps, seen| {
        play(service, &steps, extent, seen)
    })
}

/// What [`timers`] must come across.
pub const TIMERS: &[&str] = &["fired", "fired at once", "put off", "brought forward", "disarmed", "disarmed in vain"];

/// What it must come across besides, where the clocks can be disturbed.
pub const DISTURBED: &[&str] = &["slept", "stood still", "drifted", "the wall clock went back"];
