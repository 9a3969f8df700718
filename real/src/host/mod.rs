//! A role on a thread of its own, or as a task: one event at a time, its submissions handed to the doors, its timers and deadlines kept.
//!
//! A turn: take an event, let the role act, append what it did to the history, and only then let anything leave. So a crash at
//! any instruction leaves a prefix of the outbox outside and all of it in the history, as in the simulator.
//!
//! Deliberately absent: any knowledge of which role it is.

mod inbox;
mod operations;
mod taker;
mod timers;

use crate::{clock, history, hooks::Probes, telemetry::Telemetry};
pub(crate) use inbox::Bell;
use inbox::Item;
pub use inbox::{Closed, Inbox};
use operations::{Kind, Operations};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};
pub use taker::Taker;
use timers::Timers;
use tokio::task::yield_now;
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_system::{
    Desk, Outcome, Refusal, Role, Turn,
    doors::{Asked, Event, Submission, bus, cache, directory, ledger, network},
    history::{Completion, Entry, EventId, Invocation, Note, What},
    outcome::End,
    time::{Duration, Instant, UnixTime},
};

/// Looks at the clock at least so often: what the host waits on stands still while the machine sleeps, the clock does not.
const WAKE: Duration = Duration::from_millis(250);
/// The first tenth of a second that an incarnation can be numbered by: 2026-01-01T00:00:00Z.
const FIRST_LIFE_UNIX_NS: u64 = 1_767_225_600_000_000_000;
const LIFE_NS: u64 = 100_000_000;
/// A role's thread needs little: its state is on the heap.
const STACK_BYTES: usize = 1 << 20;

/// The adapters of a role's doors, as its host calls them. None of these waits; every operation is answered through the
/// [`Inbox`] that the adapter was made with, by [`Inbox::answer`], before its deadline if the adapter can.
pub trait Doors: Send {
    /// To the network: an operation of it is `Connect` or `Call`.
    fn network(&mut self, submission: network::Submission);
    /// To the directory.
    fn directory(&mut self, asked: Asked<directory::Submission>);
    /// To the ledger.
    fn ledger(&mut self, asked: Asked<ledger::Submission>);
    /// To the bus.
    fn bus(&mut self, asked: Asked<bus::Submission>);
    /// To the cache.
    fn cache(&mut self, asked: Asked<cache::Submission>);
    /// What the role says of itself, before anything of the same turn leaves. Nothing may come of it but a measurement.
    fn note(&mut self, note: &Note) {
        let _ = note;
    }
}

/// A number for the life that begins now: above that of every earlier life, as long as the wall clock was not set back.
#[must_use]
pub fn next_life(now: UnixTime) -> Incarnation {
    let tenths = now.as_nanos().saturating_sub(FIRST_LIFE_UNIX_NS) / LIFE_NS;
    Incarnation(u32::try_from(tenths).unwrap_or(u32::MAX))
}

/// What a host has counted. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    events: AtomicU64,
    late_answers: AtomicU64,
    deadlines: AtomicU64,
    refused_busy: AtomicU64,
    foreign: AtomicU64,
    stopped: AtomicBool,
}

impl Counters {
    /// Each count by its name.
    #[must_use]
    pub fn each(&self) -> [(&'static str, u64); 5] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("events", read(&self.0.events)),
            ("late_answers", read(&self.0.late_answers)),
            ("deadlines", read(&self.0.deadlines)),
            ("refused_busy", read(&self.0.refused_busy)),
            ("foreign_events", read(&self.0.foreign)),
        ]
    }

    /// Whether the role has stopped.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// All that a role needs to live.
pub struct Host<R, D> {
    /// The role as its constructor made it.
    pub role: R,
    /// Its desk: node, incarnation, entropy.
    pub desk: Desk,
    /// Its doors. Their adapters answer to `inbox`.
    pub doors: D,
    /// Where its events come from.
    pub inbox: Inbox,
    /// Where its history goes, if anywhere.
    pub history: Option<history::Writer>,
    /// Counts its probes.
    pub probes: Probes,
    /// What it has counted.
    pub counters: Counters,
    /// Takes what the role tells of itself.
    pub telemetry: Telemetry,
}

impl<R: Role + Send + 'static, D: Doors + 'static> Host<R, D> {
    /// Starts the role's thread. It ends when the role reports its orderly stop.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(self, name: &str) -> io::Result<thread::JoinHandle<io::Result<()>>> {
        thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || self.run())
    }

    /// Runs the role on this thread until it reports its orderly stop.
    ///
    /// # Errors
    /// The history cannot be written.
    pub fn run(self) -> io::Result<()> {
        self.telemetry.on_role_thread();
        let mut running = Running::new(self);
        let mut next = running.begin();
        while let Ok(Some(patience)) = next {
            let item = running.taker.take(patience);
            next = running.go_on(item);
        }
        running.end(next)
    }

    /// Runs the role as a task, where a thread would hide from a runtime in which order things happen.
    ///
    /// # Errors
    /// The history cannot be written.
    pub async fn run_as_task(self) -> io::Result<()> {
        let mut running = Running::new(self);
        let mut next = running.begin();
        while let Ok(Some(patience)) = next {
            // What goes on beside a thread goes on between the turns of a task.
            yield_now().await;
            let item = running.taker.taken(patience).await;
            next = running.go_on(item);
        }
        running.end(next)
    }
}

/// A host at work.
struct Running<R, D> {
    host: Host<R, D>,
    taker: Taker,
    timers: Timers,
    operations: Operations,
    outbox: Vec<Submission>,
    /// Answers that the host itself gives: of operations that found no slot.
    own: Vec<(OpId, Kind)>,
    events: u64,
    over: bool,
}

impl<R: Role, D: Doors> Running<R, D> {
    fn new(mut host: Host<R, D>) -> Self {
        host.desk.telemetry = host.telemetry.reports();
        let (timers, operations) = (Timers::default(), Operations::default());
        let taker = Taker::new(host.inbox.clone());
        Self { host, taker, timers, operations, outbox: Vec::new(), own: Vec::new(), events: 0, over: false }
    }

    /// The role's first turn, and all that is due then.
    fn begin(&mut self) -> io::Result<Option<std::time::Duration>> {
        let now = clock::now();
        self.record(now, What::Started);
        self.turn(now, Event::Started)?;
        self.act()
    }

    /// The turn of an event, if one came, and all that is due then.
    fn go_on(&mut self, item: Option<Item>) -> io::Result<Option<std::time::Duration>> {
        match item {
            None => {}
            Some(Item::Answer(op, event)) => match self.operations.conclude(op) {
                Some((since, kind)) => {
                    self.measure(kind, since, &event);
                    self.turn(clock::now(), event)?;
                }
                None => count(&self.host.counters.0.late_answers),
            },
            Some(other) => self.turn(clock::now(), other.into_event())?,
        }
        self.act()
    }

    /// Takes all turns that need no event, and says how long to wait for one: `None` once the role has stopped.
    fn act(&mut self) -> io::Result<Option<std::time::Duration>> {
        while !self.over {
            let now = clock::now();
            if let Some((op, since, kind)) = self.operations.expired(now) {
                // A thread that was held up finds answers that came in time behind deadlines that have passed meanwhile.
                let event = self.taker.take_answer(op).unwrap_or_else(|| {
                    count(&self.host.counters.0.deadlines);
                    kind.ended(op, End::Unknown)
                });
                self.measure(kind, since, &event);
                self.turn(now, event)?;
            } else if let Some((op, kind)) = self.own.pop() {
                self.turn(now, kind.ended(op, End::Refused(Refusal::Busy)))?;
            } else {
                // One timer and one event in turn: neither starves the other.
                if let Some(key) = self.timers.pop(now) {
                    self.taker.hold_writers();
                    self.turn(now, Event::Timer(key))?;
                }
                return Ok((!self.over).then(|| self.patience()));
            }
        }
        Ok(None)
    }

    /// How long it is until a timer or a deadline is due.
    fn patience(&self) -> std::time::Duration {
        if !self.own.is_empty() {
            return std::time::Duration::ZERO;
        }
        let next = [self.timers.next(), self.operations.next()].into_iter().flatten().min();
        clock::span(next.map_or(WAKE, |at| at.since(clock::now()).min(WAKE)))
    }

    /// Ends what has lived until here.
    fn end(mut self, lived: io::Result<Option<std::time::Duration>>) -> io::Result<()> {
        let ended = lived.and_then(|_| {
            self.record(clock::now(), What::Stopped);
            self.flush_history()
        });
        let (inbox, counters) = (self.host.inbox.clone(), self.host.counters.clone());
        drop(self);
        inbox.close();
        counters.0.stopped.store(true, Ordering::Release);
        ended
    }

    /// One event: the role acts, the history is written, the outbox leaves.
    fn turn(&mut self, now: Instant, event: Event) -> io::Result<()> {
        self.events += 1;
        count(&self.host.counters.0.events);
        if let Some((op, completion)) = completion(&event) {
            self.record(now, What::Completed(op, Box::new(completion)));
        }
        let call = match event {
            Event::Network(network::Event::Called { call, .. }) => Some(call),
            _ => None,
        };
        match R::Event::try_from(event) {
            Ok(event) => {
                let Host { role, desk, probes, .. } = &mut self.host;
                let mut turn = Turn::new(now, clock::unix_now(), desk, probes, &mut self.outbox);
                role.on_event(event, &mut turn);
            }
            Err(_) => {
                count(&self.host.counters.0.foreign);
                if let Some(call) = call {
                    let outcome = Box::new(Outcome::Refused(Refusal::Malformed));
                    self.host.doors.network(network::Submission::Reply { call, outcome });
                }
            }
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        self.write_down(now, &mut outbox);
        self.flush_history()?;
        for submission in outbox.drain(..) {
            self.submit(submission);
            if self.over {
                break;
            }
        }
        self.outbox = outbox;
        let Host { desk, telemetry, .. } = &mut self.host;
        if !desk.telemetry.is_empty() {
            telemetry.take(&mut desk.telemetry, clock::now().since(now));
        }
        Ok(())
    }

    /// An operation on the ledger has ended, however it did.
    fn measure(&self, kind: Kind, since: Instant, event: &Event) {
        if let (Kind::Ledger(ask), Event::Ledger(ledger::Event { answer, .. })) = (kind, event) {
            self.host.telemetry.ledger_answered(ask, answer, clock::now().since(since));
        }
    }

    /// Appends notes and invocations to the history, in the order of the outbox; the notes go no further.
    fn write_down(&mut self, now: Instant, outbox: &mut Vec<Submission>) {
        for submission in outbox.iter_mut() {
            match submission {
                Submission::Directory(Asked { op, submission, .. }) => {
                    self.record(now, What::Invoked(*op, Invocation::Directory(submission.clone())));
                }
                Submission::Ledger(Asked { op, submission, .. }) => {
                    self.record(now, What::Invoked(*op, Invocation::Ledger(submission.clone())));
                }
                Submission::Bus(Asked { op, submission: submission @ bus::Submission::Publish { .. }, .. }) => {
                    self.record(now, What::Invoked(*op, Invocation::Bus(submission.clone())));
                }
                Submission::Cache(Asked { op, submission, .. }) => {
                    self.record(now, What::Invoked(*op, Invocation::Cache(submission.clone())));
                }
                _ => {}
            }
            if let Submission::Note(note) = submission {
                self.host.doors.note(note);
                if self.host.history.is_some() {
                    self.record(now, What::Noted((**note).clone()));
                }
            }
        }
        outbox.retain(|submission| !matches!(submission, Submission::Note(_)));
    }

    fn submit(&mut self, submission: Submission) {
        let doors = &mut self.host.doors;
        let never = Instant::from_nanos(u64::MAX);
        let (op, deadline, kind) = match submission {
            Submission::Arm { key, at } => return self.timers.arm(key, at),
            Submission::Disarm(key) => return self.timers.disarm(key),
            Submission::Note(_) => return,
            Submission::Stopped => {
                self.over = true;
                return;
            }
            Submission::Network(network::Submission::Connect { op, .. }) => (op, never, Kind::Connect),
            Submission::Network(network::Submission::Call(ref call)) => (call.op, call.deadline, Kind::Call),
            Submission::Network(other) => return doors.network(other),
            Submission::Directory(ref asked) => (asked.op, asked.deadline, Kind::Directory((&asked.submission).into())),
            Submission::Ledger(ref asked) => (asked.op, asked.deadline, Kind::Ledger((&asked.submission).into())),
            Submission::Bus(ref asked) => (asked.op, asked.deadline, Kind::Bus((&asked.submission).into())),
            Submission::Cache(ref asked) => (asked.op, asked.deadline, Kind::Cache((&asked.submission).into())),
        };
        if !self.operations.reserve(op, clock::now(), deadline, kind) {
            count(&self.host.counters.0.refused_busy);
            self.own.push((op, kind));
            return;
        }
        match submission {
            Submission::Network(submission) => doors.network(submission),
            Submission::Directory(asked) => doors.directory(asked),
            Submission::Ledger(asked) => doors.ledger(asked),
            Submission::Bus(asked) => doors.bus(asked),
            Submission::Cache(asked) => doors.cache(asked),
            _ => {}
        }
    }

    fn record(&mut self, at: Instant, what: What) {
        let Host { history, desk, .. } = &mut self.host;
        if let Some(history) = history {
            let (node, incarnation, event) = (desk.node, desk.incarnation, EventId(self.events));
            history.push(&Entry { at, local: at, node, incarnation, event, what });
        }
    }

    fn flush_history(&mut self) -> io::Result<()> {
        self.host.history.as_mut().map_or(Ok(()), history::Writer::flush)
    }
}

/// The answer of a service, for the history.
fn completion(event: &Event) -> Option<(OpId, Completion)> {
    match event {
        Event::Directory(directory::Event::Answered { op, answer }) => {
            Some((*op, Completion::Directory((**answer).clone())))
        }
        Event::Ledger(ledger::Event { op, answer }) => Some((*op, Completion::Ledger((**answer).clone()))),
        Event::Bus(bus::Event::Answered { op, answer }) if matches!(**answer, bus::Answer::Published(_)) => {
            Some((*op, Completion::Bus((**answer).clone())))
        }
        Event::Cache(cache::Event { op, answer }) => Some((*op, Completion::Cache((**answer).clone()))),
        _ => None,
    }
}

/// A desk for the life that begins now.
///
/// # Errors
/// The kernel has no entropy to give.
pub fn desk(node: NodeId) -> io::Result<Desk> {
    let incarnation = next_life(clock::unix_now());
    Ok(Desk { node, incarnation, operations: 0, entropy: crate::entropy::fresh()?, telemetry: Default::default() })
}

#[cfg(test)]
mod tests;
