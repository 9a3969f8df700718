//! The primary is lost, and its replica takes over.

use super::{Cache, CacheService, Entries, PATIENCE, PATIENCE_IN_FAULT, settle, steps};
use crate::{
    judge::Judge,
    play::Seen,
    service::{Bench, CALLERS, Fault, Mishap, Told},
};
use proptest::test_runner::TestCaseError;
use worldline_system::{Outcome, doors::cache::Answer, time::Duration};

/// What a counter stands at, where one is told.
fn counted(told: &[Told<Cache>]) -> Option<i64> {
    match told.first()?.answer {
        Answer::Counted(Outcome::Done(count)) => Some(count),
        _ => None,
    }
}

/// The primary is lost, the replica takes over, and the one that was lost comes back as its replica.
pub(super) fn succeed<S: CacheService>(
    bench: &mut Bench<'_, Cache, S>,
    judge: &mut Judge<Cache, Entries>,
    (mishap, first): (Mishap, u64),
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    let told = bench.round(PATIENCE, [(0, steps::counted(first))])?;
    judge.round(&told)?;
    let stood = counted(&told);
    judge.faulty = true;
    let who = |n| (first as usize + n) % CALLERS;
    let (befell, told) = bench.round_in(mishap, PATIENCE_IN_FAULT, [(who(0), steps::counted(first))])?;
    if !befell {
        judge.round(&told)?;
        judge.faulty = false;
        return Ok(());
    }
    seen.note(mishap.fault.name());
    judge.round_while_falling_back(&told)?;
    let told = bench.round(PATIENCE_IN_FAULT, [(who(1), steps::counted(first))])?;
    judge.round_while_falling_back(&told)?;
    // Whoever is served is served by the one that has taken over.
    settle(bench)?;
    bench.service.fault(Fault::Heal);
    settle(bench)?;
    // What was on its way has arrived by now, or never does.
    bench.pass(Duration::from_millis(50))?;
    bench.service.until_replicated();
    judge.faulty = false;
    judge.stay();
    let told = bench.round(PATIENCE, [(0, steps::count(first))])?;
    judge.round(&told)?;
    if let (Some(stood), Some(stands)) = (stood, counted(&told)) {
        seen.note(if stands < stood { "lost" } else { "kept" });
    }
    // That has decided what was unknown: all of it was on this counter. What is left to know is which moment it is, and each of these
    // leaves fewer.
    judge.give_up();
    for what in steps::everything() {
        let told = bench.round(PATIENCE, [(0, what)])?;
        judge.round(&told)?;
    }
    judge.remember();
    Ok(())
}
