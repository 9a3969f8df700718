//! What the directory's adapter promises: written down when something is asked, leaves and is executed, and compared when it is
//! told.

use super::{
    effect::Effect,
    model::{self, Model},
    op,
};
use crate::{
    log::Log,
    script::{Mark, Stalls},
};
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::{LeaseId, OpId, Revision};
use worldline_real::{clock, directory::client::Verdict};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Event as Told,
        directory::{Answer, Change, Event, Family, GapCause, Transacted},
    },
    time::{Duration, Instant},
};

/// An operation.
#[derive(Debug)]
struct Operation {
    asked: Mark,
    deadline: Instant,
    what: What,
    told: bool,
}

#[derive(Debug)]
enum What {
    /// Something that happens once.
    Effect(Effect),
    Renewal(Renewal),
    /// This had been acknowledged when it was asked, and etcd had been restored so often. A stale read promises nothing.
    Look {
        acknowledged: Option<Revision>,
        restored: usize,
    },
    Watch(Watch),
}

#[derive(Debug)]
struct Renewal {
    lease: LeaseId,
    /// It has happened, perhaps more than once.
    executed: bool,
    told: Option<Outcome<()>>,
}

#[derive(Debug)]
struct Watch {
    family: Family,
    from: Revision,
    stands: bool,
    /// It may not have a gap.
    certain: bool,
    unwatched: bool,
    gap: Option<GapCause>,
    changes: Vec<Change>,
    /// What was told last.
    through: Revision,
}

/// All that was asked, and what became of it.
#[derive(Debug)]
pub struct Book {
    log: Log,
    stalls: Stalls,
    operations: BTreeMap<u64, Operation>,
    /// By their leases.
    revokers: BTreeMap<LeaseId, u64>,
    /// By their leases: who has renewed it last.
    renewing: BTreeMap<LeaseId, u64>,
    gone: BTreeSet<LeaseId>,
    acknowledged: Revision,
    connections: u64,
    closing: bool,
}

impl Book {
    pub fn new(stalls: Stalls) -> Self {
        Self {
            log: Log::default(),
            stalls,
            operations: BTreeMap::new(),
            revokers: BTreeMap::new(),
            renewing: BTreeMap::new(),
            gone: BTreeSet::new(),
            acknowledged: Revision(0),
            connections: 0,
            closing: false,
        }
    }

    pub fn note(&mut self, what: &'static str) {
        self.log.note(what);
    }

    fn asks(&mut self, deadline: Instant, what: What) -> u64 {
        let counter = self.operations.len() as u64 + 1;
        let asked = self.stalls.mark();
        self.operations.insert(counter, Operation { asked, deadline, what, told: false });
        counter
    }

    /// Something is asked for that happens once.
    pub fn does(&mut self, deadline: Instant) -> u64 {
        self.asks(deadline, What::Effect(Effect::default()))
    }

    /// The end of a lease is asked for, once.
    pub fn revokes(&mut self, deadline: Instant, lease: LeaseId) -> u64 {
        let counter = self.does(deadline);
        assert_eq!(self.revokers.insert(lease, counter), None, "a lease is revoked once");
        counter
    }

    pub fn revoker(&self, lease: LeaseId) -> u64 {
        self.revokers[&lease]
    }

    /// A renewal is asked for. The one before it was told.
    pub fn renews(&mut self, deadline: Instant, lease: LeaseId) -> u64 {
        let counter = self.asks(deadline, What::Renewal(Renewal { lease, executed: false, told: None }));
        self.renewing.insert(lease, counter);
        counter
    }

    /// Which renewal it is that leaves now.
    pub fn renewing(&self, lease: LeaseId) -> u64 {
        self.renewing[&lease]
    }

    /// Something is read, stale or not.
    pub fn looks(&mut self, deadline: Instant, stale: bool, restored: usize) -> u64 {
        let acknowledged = (!stale).then_some(self.acknowledged);
        self.asks(deadline, What::Look { acknowledged, restored })
    }

    pub fn watches(&mut self, deadline: Instant, family: Family, from: Revision, certain: bool) -> u64 {
        let (stands, unwatched, gap, changes) = (false, false, None, vec![]);
        let watch = Watch { family, from, stands, certain, unwatched, gap, changes, through: Revision(0) };
        self.asks(deadline, What::Watch(watch))
    }

    /// Its reader ends a watch. That is answered at once.
    pub fn unwatches(&mut self, watch: u64) -> u64 {
        self.watch(watch).unwatched = true;
        self.asks(clock::now() + Duration::from_millis(1), What::Effect(Effect::default()))
    }

    fn effect(&mut self, counter: u64) -> &mut Effect {
        match self.operations.get_mut(&counter) {
            Some(Operation { what: What::Effect(effect), .. }) => effect,
            other => panic!("{counter} has no effect, but is {other:?}"),
        }
    }

    fn watch(&mut self, counter: u64) -> &mut Watch {
        match self.operations.get_mut(&counter) {
            Some(Operation { what: What::Watch(watch), .. }) => watch,
            other => panic!("{counter} is no watch, but {other:?}"),
        }
    }

    /// Somebody connects.
    pub fn connects(&mut self, number: u64) {
        self.connections += 1;
        assert!(!self.closing, "somebody connects behind the end");
        self.log.tell(self.stalls.mark().at, "server", &format_args!("connection {number}"));
    }

    /// A connection takes it.
    pub fn leaves(&mut self, counter: u64) {
        let Operation { told, deadline, .. } = &self.operations[&counter];
        assert!(!told, "{counter} leaves behind its answer");
        assert!(clock::now() < *deadline, "{counter} leaves behind its deadline");
        let effect = self.effect(counter);
        assert!(!effect.left, "{counter} leaves once");
        effect.left = true;
    }

    /// etcd has executed it, or has said why not.
    pub fn executed(&mut self, counter: u64, said: Option<Verdict>, transacted: Option<Transacted>) {
        let effect = self.effect(counter);
        if said.is_some() {
            effect.said = said;
            return;
        }
        assert!(!matches!(effect.told, Some(Outcome::Refused(_))), "{counter} was refused, and is executed");
        assert!(effect.executed.replace(transacted).is_none(), "{counter} is executed once");
        if effect.told.is_some() {
            self.note("executed when it was given up");
        }
    }

    /// etcd has renewed a lease, or has none.
    pub fn renewed(&mut self, counter: u64, renewed: Option<Duration>) {
        let Some(Operation { what: What::Renewal(renewal), .. }) = self.operations.get_mut(&counter) else {
            panic!("{counter} is no renewal")
        };
        if renewed.is_none() {
            self.gone.insert(renewal.lease);
            return;
        }
        let refused = matches!(renewal.told, Some(Outcome::Refused(_)));
        assert!(!refused, "{} was refused, and has renewed {}", op(counter), renewal.lease);
        renewal.executed = true;
    }

    /// Whether an operation was answered.
    pub fn is_told(&self, counter: u64) -> bool {
        self.operations[&counter].told
    }

    /// Whether it was told to be done.
    pub fn is_done(&mut self, counter: u64) -> bool {
        matches!(self.effect(counter).told, Some(Outcome::Done(_)))
    }

    /// Whether a renewal was told to be done.
    pub fn is_renewed(&self, counter: u64) -> bool {
        matches!(self.operations[&counter].what, What::Renewal(Renewal { told: Some(Outcome::Done(())), .. }))
    }

    /// The revision behind what a watch that stands was told.
    pub fn next(&mut self, watch: u64) -> Option<Revision> {
        let watch = self.watch(watch);
        (watch.stands && watch.gap.is_none()).then(|| watch.from.max(watch.through.next()))
    }

    /// Somebody is told.
    pub fn told(&mut self, event: &Told, model: &Model) {
        let Told::Directory(event) = event else { return assert_eq!(event, &Told::Stop, "nobody's news") };
        let now = self.stalls.mark();
        self.log.tell(now.at, "caller", event);
        match event {
            Event::Answered { op, answer } => self.answered(*op, answer, now, model),
            Event::Changed { watch: op, revision, changes } => {
                let watch = self.watch(op.counter);
                assert!(watch.stands && watch.gap.is_none(), "{op}: news of a watch that does not stand");
                assert!(watch.through < *revision, "{op}: {revision} behind {}", watch.through);
                watch.through = *revision;
                watch.changes.extend(changes.iter());
                let told = |history| model::told(history, watch.family, watch.from.0, revision.0);
                let whole = model.histories().any(|history| told(history) == watch.changes);
                assert!(whole, "{op} from {} up to {revision} misses something", watch.from);
                self.note("changes");
            }
            Event::Gap { watch: op, cause } => {
                let (closing, next) = (self.closing, self.next(op.counter));
                let watch = self.watch(op.counter);
                assert!(watch.stands && !closing, "{op}: a gap of what does not stand");
                assert!(!watch.certain, "{op}: a gap where all is well");
                assert_eq!(watch.gap.replace(*cause), None, "a watch ends once");
                let compacted = next.is_some_and(|next| next.0 <= model.oldest);
                assert!(*cause != GapCause::Compacted || compacted, "{op}: what was behind {next:?} is not compacted");
                self.note(match cause {
                    GapCause::Compacted => "a gap: compacted",
                    GapCause::Cancelled => "a gap: cancelled",
                    GapCause::Overflow => "a gap: overflow",
                });
            }
        }
    }

    fn answered(&mut self, op: OpId, answer: &Answer, now: Mark, model: &Model) {
        let operation = self.operations.get_mut(&op.counter).expect("only what was asked is answered");
        assert!(!operation.told, "{op} is answered twice");
        operation.told = true;
        operation.asked.prompt(now, operation.deadline, "an operation");
        let (left, restored) =
            (clock::until(operation.deadline) > std::time::Duration::from_millis(50), model.lost.len());
        let words = match (&mut operation.what, answer) {
            (What::Effect(_), Answer::Unwatched(Outcome::Done(()))) => "unwatched",
            (What::Effect(effect), Answer::Transacted(outcome)) => {
                let outcome = outcome.clone().map(Some);
                if let Outcome::Done(Some(done)) = &outcome {
                    self.acknowledged = self.acknowledged.max(done.revision);
                }
                effect.is_told(op, outcome, left)
            }
            (What::Effect(effect), Answer::Granted(outcome) | Answer::Revoked(outcome)) => {
                effect.is_told(op, outcome.clone().map(|()| None), left)
            }
            (What::Renewal(renewal), Answer::KeptAlive(outcome)) => {
                renewal.told = Some(outcome.clone().map(|_| ()));
                let (lease, executed) = (renewal.lease, renewal.executed);
                match outcome {
                    Outcome::Done(_) => {
                        assert!(executed, "{op}: nobody has renewed {lease}");
                        "renewed"
                    }
                    Outcome::Unknown if executed => "a renewal that is unknown, and has happened",
                    Outcome::Unknown => "a renewal that is unknown",
                    Outcome::Refused(Refusal::LeaseNotFound) => {
                        assert!(self.gone.contains(&lease), "{op}: nobody has said that {lease} is gone");
                        "a renewal of what has ended"
                    }
                    Outcome::Refused(refusal) => {
                        assert!(!executed, "{op} is refused as {refusal:?}, and has renewed {lease}");
                        "a renewal that is refused"
                    }
                }
            }
            (&mut What::Look { acknowledged, restored: then }, Answer::Got(_) | Answer::Read(_)) => {
                let read = match answer {
                    Answer::Got(Outcome::Done((_, revision))) => Some(*revision),
                    Answer::Read(Outcome::Done(page)) => Some(page.revision),
                    _ => None,
                };
                let promised = acknowledged.filter(|_| then == restored);
                assert!(read.is_none_or(|read| Some(read) >= promised), "{op} reads {read:?}, behind {promised:?}");
                if read.is_some() { "read" } else { "not read" }
            }
            (What::Watch(watch), Answer::Watching(outcome)) => match outcome {
                Outcome::Done(()) => {
                    watch.stands = true;
                    "a watch that stands"
                }
                Outcome::Unknown => "a watch that nobody knows of",
                Outcome::Refused(Refusal::Compacted { oldest }) => {
                    assert!(watch.from < *oldest, "{op} is compacted before {oldest}, and begins at {}", watch.from);
                    "a watch of what is compacted"
                }
                Outcome::Refused(_) => "a watch that is refused",
            },
            (what, answer) => panic!("{op} is answered with {answer:?}, where it asked {what:?}"),
        };
        self.note(words);
    }

    /// The adapter is about to be closed.
    pub fn closing(&mut self) {
        self.closing = true;
    }

    /// etcd was restored: what was acknowledged before is perhaps not there any more.
    pub fn restored(&mut self) {
        self.acknowledged = Revision(0);
    }

    /// The adapter is closed: these were asked before, and that behind it.
    pub fn closed(&mut self, last: &[u64], refused: u64) {
        for counter in last {
            assert!(self.is_told(*counter), "{} was asked before the end and is not answered", op(*counter));
        }
        let unreachable = Some(Outcome::Refused(Refusal::Unreachable));
        assert_eq!(self.effect(refused).told, unreachable, "what is asked behind the end is refused");
    }

    /// Everything has ended.
    pub fn ended(&mut self, now: Instant) {
        let mut never = false;
        for (counter, Operation { told, what, .. }) in &self.operations {
            assert!(told, "{} is not answered", op(*counter));
            if let What::Effect(Effect { told: Some(Outcome::Unknown), executed: None, said: None, .. }) = what {
                never = true;
            }
        }
        if never {
            self.note("unknown, and never executed");
        }
        // At least half the first wait is between two rounds.
        assert!(self.connections <= 8 + now.as_nanos() / 10_000_000, "{} connections by {now:?}", self.connections);
    }

    pub fn log(&mut self) -> Log {
        std::mem::take(&mut self.log)
    }
}
