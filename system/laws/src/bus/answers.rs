//! What answers show, and whether a bus answers at all.

use super::{BACK, Bus, BusService, steps::extra};
use crate::{
    play::Seen,
    service::{Bench, CALLERS},
};
use proptest::test_runner::TestCaseError;
use worldline_system::{
    Outcome, Refusal,
    doors::bus::{Answer, StreamSequence, Submission},
    time::Duration,
};

/// Ids above are of what is never stored.
const PROBES: u64 = 1 << 32;

pub(super) fn expect(answer: &Answer, expected: &Answer) -> Result<(), TestCaseError> {
    if answer == expected {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{answer:?} instead of {expected:?}")))
}

/// Until every caller is served: the last that is stored.
pub(super) fn settle<S: BusService>(
    bench: &mut Bench<'_, Bus, S>,
    crowd: u64,
    probes: &mut u64,
) -> Result<u64, TestCaseError> {
    let by = bench.now() + BACK;
    for caller in 0..CALLERS {
        loop {
            // It expects to follow what cannot be, so it is never stored; under an id that was refused already a cluster would not
            // look at that.
            *probes += 1;
            let probe = match extra(crowd, PROBES + *probes) {
                Submission::Publish { subject, message, payload, .. } => {
                    Submission::Publish { subject, message, after: Some(StreamSequence(u64::MAX >> 12)), payload }
                }
                other => other,
            };
            let answer = bench.ask(caller, Duration::from_secs(2), probe)?;
            if matches!(answer, Answer::Published(Outcome::Refused(Refusal::WrongSequence { .. }))) {
                break;
            }
            if bench.now() > by {
                return Err(TestCaseError::fail(format!("caller {caller} is not served within {BACK:?}: {answer:?}")));
            }
            bench.pass(Duration::from_millis(20))?;
        }
    }
    Ok(bench.service.base())
}

pub(super) fn note(answer: &Answer, seen: &mut Seen) {
    match answer {
        Answer::Published(Outcome::Done(published)) => {
            seen.note(if published.duplicate { "duplicate" } else { "stored" });
        }
        Answer::Published(Outcome::Refused(Refusal::WrongSequence { .. })) => seen.note("wrong sequence"),
        Answer::Published(Outcome::Refused(Refusal::Malformed)) => seen.note("malformed"),
        Answer::Published(Outcome::Refused(Refusal::Busy)) => seen.note("turned away"),
        _ => {}
    }
}
