//! What a host does for a role beside its doors: an operation that is not answered by its deadline is `Unknown`, and what comes
//! later is dropped. And how several callers are told apart.

use std::{collections::BTreeMap, time::Duration as Span};
use tokio::runtime::Runtime;
use worldline_laws::service::CALLERS;
use worldline_proto::{Incarnation, OpId};
use worldline_real::{Inbox, clock, ready::Readiness};
use worldline_system::{
    doors::Event,
    time::{Duration, Instant},
};

/// How late an answer may come on a busy machine.
pub const GRACE: Duration = Duration::from_secs(10);

/// How long an answer that came in time may be on its way to a thread that was held up.
const HELD_UP: Duration = Duration::from_millis(50);

/// The callers' side.
pub struct Hosted {
    pub runtime: Runtime,
    /// One inbox for all: who asked is in the name of the operation.
    pub inbox: Inbox,
    asked: u64,
    /// When an operation is `Unknown`, and how it is said.
    pending: BTreeMap<OpId, (Instant, Event)>,
    /// Those that ended and whose answer may still come.
    over: Vec<OpId>,
}

impl Hosted {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { runtime, inbox: Inbox::default(), asked: 0, pending: BTreeMap::new(), over: vec![] }
    }

    /// The name of a caller's next operation, and its deadline. `unknown` is what it is told then.
    pub fn op(&mut self, caller: usize, patience: Duration, unknown: impl FnOnce(OpId) -> Event) -> (OpId, Instant) {
        self.asked += 1;
        let op = OpId { incarnation: Incarnation(caller as u32 + 1), counter: self.asked };
        let deadline = clock::now() + patience;
        self.pending.insert(op, (deadline, unknown(op)));
        (op, deadline)
    }

    /// The next event of any caller. `op` says which operation an event answers, or of whom else it tells.
    pub fn next_event(&mut self, by: Instant, op: impl Fn(&Event) -> About) -> Option<(usize, Event)> {
        loop {
            let due = self.pending.iter().min_by_key(|(_, (deadline, _))| *deadline).map(|(&op, &(due, _))| (op, due));
            let due = due.map(|(op, due)| (op, due + HELD_UP));
            let until = due.map_or(by, |(_, due)| due.min(by));
            let event = match self.inbox.next_event(clock::until(until)) {
                Some(event) => event,
                None => match due {
                    Some((op, due)) if due <= clock::now() => {
                        let (_, unknown) = self.pending.remove(&op).unwrap();
                        self.over.push(op);
                        return Some((caller_of(op), unknown));
                    }
                    _ if clock::now() >= by => return None,
                    _ => continue,
                },
            };
            match op(&event) {
                About::Answer(op) if self.over.contains(&op) => self.over.retain(|&other| other != op),
                About::Answer(op) => {
                    self.pending.remove(&op);
                    return Some((caller_of(op), event));
                }
                About::News(op) => return Some((caller_of(op), event)),
            }
        }
    }

    /// Waits until nothing is missing that this one reports.
    pub fn until_served(&self, ready: &Readiness) {
        let served = ready.until_degraded(|lacks| lacks.is_empty());
        let served = self.runtime.block_on(async { tokio::time::timeout(Span::from_secs(60), served).await });
        served.unwrap_or_else(|_| panic!("still missing after a minute: {:?}", ready.degradations()));
    }

    /// Waits at most so long for something to come about at a service.
    pub fn wait<T>(&self, within: Span, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(within, what).await }).expect("it comes about in time")
    }
}

/// Of what an event tells.
pub enum About {
    /// The answer to this.
    Answer(OpId),
    /// News for who asked this.
    News(OpId),
}

fn caller_of(op: OpId) -> usize {
    let caller = usize::try_from(op.incarnation.0).unwrap() - 1;
    assert!(caller < CALLERS);
    caller
}
