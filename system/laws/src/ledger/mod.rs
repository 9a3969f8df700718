//! The laws of the ledger: each call is one transaction, serializable against every other; one key has one result; the fence
//! holds; what is unknown happened as a whole, or not at all.

mod model;
mod steps;

pub use model::{Born, Row, Rows};
pub use steps::world;

use crate::{
    judge::Judge,
    play::{Extent, Seen, check},
    service::{Bench, CALLERS, Door, Fault, Heard, Service},
};
use proptest::test_runner::TestCaseError;
use steps::{Step, blow, everybody, submission, with_another_payload};
use worldline_proto::{Epoch, FactSequence, LeaseId};
use worldline_system::{
    Outcome, Refusal,
    doors::ledger::{Answer, Event, OpResult, Submission, Verdict},
    limits,
    time::Duration,
};

/// The door.
#[derive(Clone, Copy, Debug)]
pub enum Ledger {}

impl Door for Ledger {
    type Submission = Submission;
    type Answer = Answer;
    type News = std::convert::Infallible;
    type Event = Event;

    fn heard(event: Event) -> Heard<Answer, Self::News> {
        Heard::Answer(event.op, *event.answer)
    }
}

/// When a connection breaks under a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the server has executed anything.
    Before,
    /// While it commits: it lands, or not.
    During,
    /// When it has committed and not answered yet.
    After,
}

/// What only a ledger can be made to suffer.
pub trait LedgerService: Service<Ledger> {
    /// It refuses writes from now on, or takes them again. What is asked meanwhile may meet either. `false` where it cannot be
    /// done here.
    fn read_only(&mut self, on: bool) -> bool;

    /// Connections break around commits, until [`Fault::Heal`]. `false` where it cannot be done here.
    fn break_connections(&mut self, moment: Moment) -> bool;
}

/// How many reads occupy every connection of a caller, and more.
const CROWD: usize = 40;
/// How long a caller waits for an answer: far longer than a sound service takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// And how long where the service may be gone.
const PATIENCE_IN_FAULT: Duration = Duration::from_millis(500);
/// How long a service may take to be back.
const BACK: Duration = Duration::from_secs(90);

/// **The ledger's laws in fair weather.** Of calls that are made at once every answer, and all that stands afterwards, is what some
/// serial order of them gives: no update is lost, no batch is seen by halves, no session, fence or number is passed on what
/// stood before. A repeated key is answered by its stored result, with another payload it is a conflict; below the window it is
/// forgotten. A refusal writes nothing. Facts are numbered without gaps in the order of the commits.
pub fn sound<S: LedgerService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &steps::steps(extent.steps), |steps, seen| play(service, &steps, seen))
}

/// **Under faults.** Killed, stopped, slowed, cut off before, during and after the commit: what is `Unknown` has happened as a whole, or
/// not, or will; submitted again under its key it is answered by its one result. What a server that takes no writes refuses, and
/// what finds no connection, has not happened.
pub fn under_faults<S: LedgerService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &steps::weather(extent.steps, &Fault::ALL), |steps, seen| play(service, &steps, seen))
}

/// **The primary is lost.** It is killed and stopped, also under a commit; its standby takes over, and all holds as under faults: what
/// was answered stands.
pub fn leaders_lost<S: LedgerService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &steps::weather(extent.steps, &Fault::OF_LEADERS), |steps, seen| play(service, &steps, seen))
}

/// What [`sound`] must come across.
pub const SOUND: &[&str] = &[
    "applied",
    "stored",
    "conflict",
    "gap",
    "stale session",
    "fenced",
    "forgotten",
    "claimed",
    "claim fenced",
    "unknown entity",
    "logged in",
    "two applied in one round",
    "raced",
    "unpublished",
    "malformed",
];

/// What [`under_faults`] must come across beside what every service does.
pub const UNDER_FAULTS: &[&str] =
    &["broken before the commit", "broken during the commit", "broken after the commit", "read-only", "pool exhausted"];

fn play<S: LedgerService>(service: &mut S, steps: &[Step], seen: &mut Seen) -> Result<(), TestCaseError> {
    let mut bench = Bench::<Ledger, S>::new(service);
    let mut judge: Judge<Ledger, Rows> = Judge::new(Rows::new(&world()));
    settle(&mut bench)?;
    let mut before: Vec<(usize, Submission)> = vec![];
    for step in steps {
        let round = match step {
            Step::Ask(deeds) => {
                let stands = judge.states().next().expect("one is left");
                deeds.iter().map(|(caller, deed)| (*caller, submission(stands, deed))).collect()
            }
            Step::Again { other: false } => before.clone(),
            Step::Again { other: true } => {
                before.iter().map(|(caller, what)| (*caller, with_another_payload(what))).collect()
            }
            &Step::Fault(mishap, who) => {
                let blow = blow(judge.states().next().expect("one is left"), who);
                judge.faulty = true;
                let before = judge.unknown();
                let asked = [(who as usize % CALLERS, blow.clone())];
                let (befell, told) = bench.round_in(mishap, PATIENCE_IN_FAULT, asked)?;
                judge.round(&told)?;
                if befell {
                    seen.note(mishap.fault.name());
                    heal(&mut bench, &mut judge, before, &blow, seen)?;
                }
                judge.faulty = false;
                continue;
            }
            &Step::Break(moment, who) => {
                broken(&mut bench, &mut judge, moment, who, seen)?;
                continue;
            }
            &Step::ReadOnly(who) => {
                read_only(&mut bench, &mut judge, who, seen)?;
                continue;
            }
            &Step::Exhaust(who) => {
                exhausted(&mut bench, &mut judge, who, seen)?;
                continue;
            }
        };
        before.clone_from(&round);
        let told = bench.round(PATIENCE, round)?;
        let commits: Vec<bool> = told.iter().filter_map(|told| note(&told.answer, seen)).collect();
        seen.count("two applied in one round", usize::from(commits.iter().filter(|applied| **applied).count() > 1));
        seen.count("raced", usize::from(commits.contains(&true) && commits.contains(&false)));
        judge.round(&told)?;
    }
    look(&mut bench, &mut judge)
}

/// Everything that stands is read: by claims, which return it, and as facts.
fn look<S: LedgerService>(
    bench: &mut Bench<'_, Ledger, S>,
    judge: &mut Judge<Ledger, Rows>,
) -> Result<(), TestCaseError> {
    let lease = LeaseId::from_bits(77);
    let entities = everybody().into_iter().map(|entity| (entity, Epoch(i64::MAX as u64))).collect();
    let snapshot = Submission::Snapshot { entities: everybody() };
    let limit = limits::FACTS_PAGE;
    let facts = |aggregate| Submission::Facts { aggregate, after: FactSequence(0), limit };
    let unpublished = Submission::Unpublished { older_than: Duration::ZERO, limit };
    let all = [Submission::Claim { lease, entities }, snapshot, unpublished];
    for what in all.into_iter().chain(everybody().into_iter().map(facts)) {
        let told = bench.round(PATIENCE, [(0, what)])?;
        judge.round(&told)?;
    }
    Ok(())
}

/// The end of a fault, and the one result of what was asked in it. How many calls that came to `Unknown` from the `before`th on have
/// certainly happened, and how many certainly have not, until they were submitted again.
fn heal<S: LedgerService>(
    bench: &mut Bench<'_, Ledger, S>,
    judge: &mut Judge<Ledger, Rows>,
    before: usize,
    again: &Submission,
    seen: &mut Seen,
) -> Result<(usize, usize), TestCaseError> {
    bench.service.fault(Fault::Heal);
    settle(bench)?;
    // A call that is unknown is still at work, perhaps, and holds its rows: whoever comes behind it waits.
    let read = Submission::Snapshot { entities: everybody() };
    let told = bench.round(PATIENCE, [(0, read)])?;
    judge.round(&told)?;
    let (happened, not) = judge.resolved(before);
    seen.count("Unknown that had happened", happened);
    seen.count("Unknown that had not", not);
    // What is unknown is submitted again under its key: until it has its one result.
    until_committed(bench, judge, again)?;
    Ok((happened, not))
}

fn until_committed<S: LedgerService>(
    bench: &mut Bench<'_, Ledger, S>,
    judge: &mut Judge<Ledger, Rows>,
    what: &Submission,
) -> Result<(), TestCaseError> {
    let by = bench.now() + BACK;
    loop {
        let told = bench.round(PATIENCE_IN_FAULT * 4, [(1, what.clone())])?;
        judge.round(&told)?;
        match told.first().map(|told| &told.answer) {
            Some(Answer::Committed(Outcome::Done(_))) => return Ok(()),
            _ if bench.now() > by => return Err(TestCaseError::fail("no commit within the time to be back")),
            _ => bench.pass(Duration::from_millis(5))?,
        }
    }
}

/// The connection breaks around a commit. What broke before it has not happened.
fn broken<S: LedgerService>(
    bench: &mut Bench<'_, Ledger, S>,
    judge: &mut Judge<Ledger, Rows>,
    moment: Moment,
    who: u64,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    // Every caller has a connection that has made a commit before.
    let nothing = blow(judge.states().next().expect("one is left"), who);
    let told = bench.round(PATIENCE, (0..CALLERS).map(|caller| (caller, nothing.clone())))?;
    judge.round(&told)?;
    if !bench.service.break_connections(moment) {
        return Ok(());
    }
    judge.faulty = true;
    let before = judge.unknown();
    let again = blow(judge.states().next().expect("one is left"), who);
    let told = bench.round(PATIENCE_IN_FAULT, [(who as usize % CALLERS, again.clone())])?;
    judge.round(&told)?;
    let resolved = heal(bench, judge, before, &again, seen)?;
    judge.faulty = false;
    match (moment, resolved) {
        (Moment::Before, (1.., _)) => Err(TestCaseError::fail("what was cut off before its commit has happened")),
        (_, (0, 0)) => Ok(()),
        (moment, _) => {
            seen.note(match moment {
                Moment::Before => "broken before the commit",
                Moment::During => "broken during the commit",
                Moment::After => "broken after the commit",
            });
            Ok(())
        }
    }
}

/// Writes are refused for certain, and taken again afterwards.
fn read_only<S: LedgerService>(
    bench: &mut Bench<'_, Ledger, S>,
    judge: &mut Judge<Ledger, Rows>,
    who: u64,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    if !bench.service.read_only(true) {
        return Ok(());
    }
    judge.faulty = true;
    let by = bench.now() + BACK;
    loop {
        let again = blow(judge.states().next().expect("one is left"), who);
        let told = bench.round(PATIENCE, [(who as usize % CALLERS, again)])?;
        judge.round(&told)?;
        match told.first().map(|told| &told.answer) {
            Some(Answer::Committed(Outcome::Refused(Refusal::ReadOnly))) => break,
            _ if bench.now() > by => return Err(TestCaseError::fail("a server that takes no writes takes them")),
            _ => bench.pass(Duration::from_millis(5))?,
        }
    }
    seen.note("read-only");
    bench.service.read_only(false);
    let again = blow(judge.states().next().expect("one is left"), who);
    until_committed(bench, judge, &again)?;
    settle(bench)?;
    judge.faulty = false;
    Ok(())
}

/// Every connection is occupied, and what waits for one in vain is refused for certain.
fn exhausted<S: LedgerService>(
    bench: &mut Bench<'_, Ledger, S>,
    judge: &mut Judge<Ledger, Rows>,
    who: u64,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    if !bench.service.fault(Fault::LoseAnswers) {
        return Ok(());
    }
    judge.faulty = true;
    let again = blow(judge.states().next().expect("one is left"), who);
    let caller = who as usize % CALLERS;
    let reads = std::iter::repeat_n((caller, Submission::Snapshot { entities: everybody() }), CROWD);
    let told = bench.round(PATIENCE_IN_FAULT, reads.chain([(caller, again.clone())]))?;
    let refused = |answer: &Answer| {
        matches!(
            answer,
            Answer::Snapshot(Outcome::Refused(Refusal::PoolExhausted))
                | Answer::Committed(Outcome::Refused(Refusal::PoolExhausted))
        )
    };
    seen.count("pool exhausted", told.iter().filter(|told| refused(&told.answer)).count());
    judge.round(&told)?;
    bench.service.fault(Fault::Heal);
    settle(bench)?;
    until_committed(bench, judge, &again)?;
    judge.faulty = false;
    Ok(())
}

/// Until every caller is served.
fn settle<S: LedgerService>(bench: &mut Bench<'_, Ledger, S>) -> Result<(), TestCaseError> {
    let by = bench.now() + BACK;
    for caller in 0..CALLERS {
        let probe = Submission::Snapshot { entities: vec![] };
        while !matches!(bench.ask(caller, Duration::from_secs(2), probe.clone())?, Answer::Snapshot(Outcome::Done(_))) {
            if bench.now() > by {
                return Err(TestCaseError::fail(format!("caller {caller} is not served within {BACK:?}")));
            }
            bench.pass(Duration::from_millis(5))?;
        }
    }
    Ok(())
}

/// What an answer shows; of a commit, whether it applied anything.
fn note(answer: &Answer, seen: &mut Seen) -> Option<bool> {
    match answer {
        Answer::Committed(Outcome::Done(committed)) => {
            for verdict in &committed.verdicts {
                seen.note(match verdict {
                    Verdict::Applied(OpResult::Hit { .. }) => "applied",
                    Verdict::Applied(OpResult::Refused(_)) => "refused by the rules",
                    Verdict::Stored(_) => "stored",
                    Verdict::Conflict => "conflict",
                    Verdict::Forgotten => "forgotten",
                    Verdict::Gap { .. } => "gap",
                    Verdict::StaleSession { .. } => "stale session",
                    Verdict::Fenced { .. } => "fenced",
                });
            }
            let applied = committed.verdicts.iter().any(|verdict| matches!(verdict, Verdict::Applied(_)));
            return (!committed.verdicts.is_empty()).then_some(applied);
        }
        Answer::Claimed(Outcome::Done(each)) => {
            for one in each {
                seen.note(match one {
                    Ok(_) => "claimed",
                    Err(Refusal::Fenced { .. }) => "claim fenced",
                    Err(_) => "unknown entity",
                });
            }
        }
        Answer::LoggedIn(Outcome::Done(_)) => seen.note("logged in"),
        Answer::Unpublished(Outcome::Done(page)) if !page.facts.is_empty() => seen.note("unpublished"),
        Answer::Facts(Outcome::Refused(Refusal::Malformed)) => seen.note("malformed"),
        _ => {}
    }
    None
}
