//! The laws of the directory: transactions, reads, revisions, leases, watches.

mod model;
mod steps;

pub use model::State;

use crate::{
    judge::Judge,
    play::{Extent, Seen, check},
    service::{Bench, CALLERS, Door, Fault, Heard, Mishap, Service},
};
use proptest::test_runner::TestCaseError;
use steps::{Step, lease, marker, probe, put, submission};
use worldline_proto::{LeaseId, OpId, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::directory::{Answer, Change, Consistency, Event, Family, GapCause, Key, Submission},
    time::Duration,
};

/// The door.
#[derive(Clone, Copy, Debug)]
pub enum Directory {}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// What was changed, up to a revision.
    Changed(OpId, Revision, Vec<Change>),
    /// It has ended.
    Gap(OpId, GapCause),
}

impl Door for Directory {
    type Submission = Submission;
    type Answer = Answer;
    type News = News;
    type Event = Event;

    fn heard(event: Event) -> Heard<Answer, News> {
        match event {
            Event::Answered { op, answer } => Heard::Answer(op, *answer),
            Event::Changed { watch, revision, changes } => {
                Heard::News(News::Changed(watch, revision, changes.to_vec()))
            }
            Event::Gap { watch, cause } => Heard::News(News::Gap(watch, cause)),
        }
    }
}

/// What only a directory can be made to do.
pub trait DirectoryService: Service<Directory> {
    /// Compacts the past away, up to the present revision.
    fn compact(&mut self);
}

/// How long a caller waits for an answer: far longer than a sound service takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// And how long where the service may be gone.
const PATIENCE_IN_FAULT: Duration = Duration::from_millis(500);
/// How long a service may take to be back, or a watch to tell.
const BACK: Duration = Duration::from_secs(60);

/// **The directory's laws in fair weather.** Transactions, reads and leases are linearizable; a revision is one transaction, also
/// where a lease takes its keys with it; both branches are of one revision; more than 128 compares, writes or reads are refused,
/// and so is a key written twice. A read at a revision shows it as it stood until it is compacted away; a stale read shows some
/// moment whole. A watch tells every change of its family from its revision on, in order, each once, no revision cut in two.
pub fn sound<S: DirectoryService>(service: &mut S, extent: Extent) -> Seen {
    let steps = proptest::collection::vec(steps::step(), 1..extent.steps);
    check(extent, &steps, |steps, seen| play(service, &steps, extent, seen))
}

/// **Leases end, and never early.** Not before the time to live since the last renewal that was acknowledged was asked for; some
/// time after it, with all that goes with them in one revision.
pub fn leases<S: DirectoryService>(service: &mut S, extent: Extent) -> Seen {
    let steps = proptest::collection::vec(steps::life(), 1..extent.steps);
    check(extent, &steps, |steps, seen| play(service, &steps, extent, seen))
}

/// **Under faults.** What is `Refused` for want of a directory has not happened; what is `Unknown` has, or has not, or will. A watch
/// goes on without leaving anything out, or says that it has a gap.
pub fn under_faults<S: DirectoryService>(service: &mut S, extent: Extent) -> Seen {
    suffer(service, extent, &Fault::ALL)
}

/// **The leader is lost.** It is killed and stopped, also while it is asked; another is elected, and all holds as under faults: nothing
/// that was answered is taken back.
pub fn leaders_lost<S: DirectoryService>(service: &mut S, extent: Extent) -> Seen {
    suffer(service, extent, &Fault::OF_LEADERS)
}

fn suffer<S: DirectoryService>(service: &mut S, extent: Extent, faults: &'static [Fault]) -> Seen {
    let steps = proptest::collection::vec(steps::weather(faults), 1..extent.steps);
    check(extent, &steps, |steps, seen| play(service, &steps, extent, seen))
}

/// What [`sound`] must come across.
pub const SOUND: &[&str] = &[
    "succeeded",
    "otherwise",
    "too many operations",
    "malformed",
    "no such lease",
    "lease exists",
    "granted",
    "renewed",
    "revoked",
    "compacted",
    "watch compacted",
    "watched",
];

/// What [`leases`] must come across.
pub const LEASES: &[&str] = &["renewed", "ended"];

/// What [`under_faults`] must come across beside what every service does.
pub const UNDER_FAULTS: &[&str] = &["watched"];

/// A watch that was set up.
#[derive(Clone, Copy, Debug)]
struct Watch {
    caller: usize,
    op: OpId,
    family: Family,
    from: Revision,
    /// It was ended by who watched.
    over: bool,
    /// Something was compacted away since it stands.
    compacted: bool,
}

impl State {
    /// So many revisions before the present one, or ahead of it; never what was there before the case.
    fn back(&self, back: i64) -> Revision {
        Revision(self.revision().0.saturating_add_signed(-back).max(self.first().next().0))
    }
}

fn play<S: DirectoryService>(
    service: &mut S,
    steps: &[Step],
    extent: Extent,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    let mut bench = Bench::<Directory, S>::new(service);
    let base = settle(&mut bench)?;
    let mut judge: Judge<Directory, State> = Judge::new(State::new(base));
    let (mut watches, mut faults) = (vec![], 0);
    for step in steps {
        match step {
            Step::Ask(deeds) => {
                let stands = judge.states().next().expect("one is left");
                let round: Vec<_> = deeds.iter().map(|(caller, deed)| (*caller, submission(stands, deed))).collect();
                let told = bench.round(PATIENCE, round)?;
                told.iter().for_each(|told| note(&told.answer, seen));
                judge.round(&told)?;
            }
            &Step::Watch { caller, family, back } => {
                let from = judge.states().next().expect("one is left").back(back);
                let told = bench.round(PATIENCE, [(caller, Submission::Watch { family, from })])?;
                judge.round(&told)?;
                for told in told {
                    match told.answer {
                        Answer::Watching(Outcome::Done(())) => {
                            watches.push(Watch { caller, op: told.op, family, from, over: false, compacted: false });
                        }
                        Answer::Watching(Outcome::Refused(Refusal::Compacted { .. })) => seen.note("watch compacted"),
                        _ => {}
                    }
                }
            }
            &Step::Unwatch(n) => {
                if let Some(watch) = watches.get_mut(n).filter(|watch| !watch.over) {
                    watch.over = true;
                    let told = bench.round(PATIENCE, [(watch.caller, Submission::Unwatch(watch.op))])?;
                    judge.round(&told)?;
                }
            }
            Step::Compact => {
                bench.service.compact();
                judge.befall(State::compact);
                watches.iter_mut().for_each(|watch: &mut Watch| watch.compacted = true);
            }
            Step::Pass(span) => bench.pass((*span).min(extent.longest_wait))?,
            Step::Await(lease) => await_end(&mut bench, &mut judge, *lease, seen)?,
            Step::Fault(fault) => {
                faults += 1;
                fault_and_heal(&mut bench, &mut judge, *fault, faults, seen)?;
            }
        }
    }
    compare_watches(&mut bench, &mut judge, &watches, faults > 0, seen)
}

/// A lease gets a key, and both are gone after some time that is not too short.
fn await_end<S: DirectoryService>(
    bench: &mut Bench<'_, Directory, S>,
    judge: &mut Judge<Directory, State>,
    id: LeaseId,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    for what in [Submission::Grant { lease: id, ttl: Duration::from_secs(2) }, steps::put_under(id)] {
        let told = bench.round(PATIENCE, [(0, what)])?;
        judge.round(&told)?;
    }
    loop {
        let get = Submission::Get { key: Key::Worker(id), consistency: Consistency::Linearizable };
        let told = bench.round(PATIENCE, [(1, get)])?;
        judge.round(&told)?;
        if matches!(told.first().map(|told| &told.answer), Some(Answer::Got(Outcome::Done((None, _))))) {
            seen.note("ended");
            return Ok(());
        }
        bench.pass(Duration::from_millis(50))?;
    }
}

/// Every watch has told what it must, in some state that is left; only those stay.
fn compare_watches<S: DirectoryService>(
    bench: &mut Bench<'_, Directory, S>,
    judge: &mut Judge<Directory, State>,
    watches: &[Watch],
    faulty: bool,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    let told = bench.round(PATIENCE, [(0, marker())])?;
    judge.round(&told)?;
    let by = bench.now() + BACK;
    loop {
        // Each watch with what it has told, and whether it has ended by itself.
        let mut open = false;
        for watch in watches {
            let mut news = vec![];
            let mut gap = None;
            for one in bench.news.iter().filter(|one| one.caller == watch.caller) {
                match &one.what {
                    News::Changed(op, ..) if *op == watch.op && gap.is_some() => {
                        return Err(TestCaseError::fail(format!("{watch:?} tells more after its gap")));
                    }
                    News::Changed(op, revision, changes) if *op == watch.op => news.push((*revision, changes.clone())),
                    News::Gap(op, cause) if *op == watch.op => gap = Some(*cause),
                    _ => {}
                }
            }
            // Who lags behind what is compacted away has to read again.
            let excused = faulty || gap == Some(GapCause::Compacted) && watch.compacted;
            if gap.is_some() && !excused {
                return Err(TestCaseError::fail(format!("{watch:?} of a sound directory has a gap: {gap:?}")));
            }
            let fits: Vec<(bool, bool)> =
                judge.states().map(|state| state.told(watch.family, watch.from, &news)).collect();
            if fits.iter().all(|(right, _)| !right) {
                let state = judge.states().next().expect("one is left");
                return Err(TestCaseError::fail(format!("{watch:?} cannot tell {news:#?}\nof {state:#?}")));
            }
            let complete = fits.iter().any(|(_, complete)| *complete);
            seen.count("watched", usize::from(complete && news.len() > 1));
            open |= !complete && gap.is_none() && !watch.over;
        }
        if !open {
            return Ok(());
        }
        if !bench.listen(by)? && bench.now() >= by {
            return Err(TestCaseError::fail(format!("a watch of {watches:?} has not told all, nor that it has a gap")));
        }
    }
}

fn fault_and_heal<S: DirectoryService>(
    bench: &mut Bench<'_, Directory, S>,
    judge: &mut Judge<Directory, State>,
    mishap: Mishap,
    number: u64,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    judge.faulty = true;
    judge.befall(State::disturb);
    let before = judge.unknown();
    let (befell, told) = bench.round_in(mishap, PATIENCE_IN_FAULT, [(number as usize % CALLERS, put(number))])?;
    judge.round(&told)?;
    if !befell {
        judge.faulty = false;
        return Ok(());
    }
    seen.note(mishap.fault.name());
    bench.service.fault(Fault::Heal);
    settle(bench)?;
    judge.befall(State::disturb);
    let read = Submission::Get { key: probe(), consistency: Consistency::Linearizable };
    let told = bench.round(PATIENCE, [(0, read)])?;
    judge.round(&told)?;
    let (happened, not) = judge.resolved(before);
    seen.count("Unknown that had happened", happened);
    seen.count("Unknown that had not", not);
    judge.faulty = false;
    Ok(())
}

/// Until every caller is served: the revision.
fn settle<S: DirectoryService>(bench: &mut Bench<'_, Directory, S>) -> Result<Revision, TestCaseError> {
    let by = bench.now() + BACK;
    let mut revision = Revision(0);
    for caller in 0..CALLERS {
        let probe = Submission::Get { key: Key::Worker(lease(10)), consistency: Consistency::Linearizable };
        loop {
            if let Answer::Got(Outcome::Done((_, at))) = bench.ask(caller, Duration::from_secs(2), probe.clone())? {
                revision = at;
                break;
            }
            if bench.now() > by {
                return Err(TestCaseError::fail(format!("caller {caller} is not served within {BACK:?}")));
            }
            bench.pass(Duration::from_millis(5))?;
        }
    }
    Ok(revision)
}

fn note(answer: &Answer, seen: &mut Seen) {
    match answer {
        Answer::Granted(Outcome::Done(())) => seen.note("granted"),
        Answer::Granted(Outcome::Refused(Refusal::LeaseExists)) => seen.note("lease exists"),
        Answer::KeptAlive(Outcome::Done(_)) => seen.note("renewed"),
        Answer::Revoked(Outcome::Done(())) => seen.note("revoked"),
        Answer::Transacted(Outcome::Done(done)) if done.succeeded => seen.note("succeeded"),
        Answer::Transacted(Outcome::Done(done)) if !done.otherwise.is_empty() => seen.note("otherwise"),
        Answer::Transacted(Outcome::Refused(refusal)) => seen.note(match refusal {
            Refusal::TooManyOperations => "too many operations",
            Refusal::LeaseNotFound => "no such lease",
            _ => "malformed",
        }),
        Answer::Read(Outcome::Refused(Refusal::Compacted { .. })) => seen.note("compacted"),
        _ => {}
    }
}
