//! What the cache's adapter promises: written down when something is asked and executed, and compared when it is told.

use super::op;
use crate::{
    log::Log,
    script::{Mark, Stalls},
};
use std::collections::BTreeMap;
use worldline_proto::OpId;
use worldline_system::{
    Outcome, Refusal,
    doors::{Event, cache},
    time::{Duration, Instant},
};

/// How long a connection may be silent until it is given up, with what is waited for before the next is looked for.
const SILENCE: Duration = Duration::from_millis(1_100);

#[derive(Debug)]
struct Operation {
    asked: Mark,
    deadline: Instant,
    counts: bool,
    /// On which connection, and which in the order of all that was executed.
    executed: Option<(u64, u64)>,
    /// The server has said that it must be sent with its script: it goes behind others.
    sent_again: bool,
    told: Option<Outcome<i64>>,
}

/// All that was asked, executed and told.
#[derive(Debug)]
pub struct Book {
    log: Log,
    stalls: Stalls,
    operations: BTreeMap<OpId, Operation>,
    executions: u64,
    /// The last of each connection that was executed, and the last that was told as done.
    last_executed: BTreeMap<u64, OpId>,
    last_told: BTreeMap<u64, u64>,
    connections: u64,
    closed: bool,
}

impl Book {
    pub fn new(stalls: Stalls) -> Self {
        let (last_executed, last_told) = (BTreeMap::new(), BTreeMap::new());
        let (log, operations) = (Log::default(), BTreeMap::new());
        Self { log, stalls, operations, executions: 0, last_executed, last_told, connections: 0, closed: false }
    }

    pub fn note(&mut self, what: &'static str) {
        self.log.note(what);
    }

    /// The next operation, and whether it counts only.
    pub fn asked(&mut self, deadline: Instant) -> (OpId, bool) {
        let op = op(self.operations.len() as u64 + 1);
        let counts = op.counter.is_multiple_of(3);
        let asked = self.stalls.mark();
        let operation = Operation { asked, deadline, counts, executed: None, sent_again: false, told: None };
        self.operations.insert(op, operation);
        (op, counts)
    }

    /// Somebody connects.
    pub fn connected(&mut self, number: u64, port: u16) {
        self.connections += 1;
        self.log.tell(self.stalls.mark().at, "server", &format_args!("connection {number} to {port}"));
    }

    /// The server has not its script.
    pub fn forgotten(&mut self, counter: u64) {
        self.note("a script forgotten");
        self.operation(counter).sent_again = true;
    }

    fn operation(&mut self, counter: u64) -> &mut Operation {
        self.operations.get_mut(&op(counter)).expect("only what was asked comes")
    }

    /// The server executes: what it answers.
    pub fn executed(&mut self, connection: u64, counter: u64) -> i64 {
        self.executions += 1;
        let order = self.executions;
        let operation = self.operation(counter);
        assert!(operation.executed.is_none(), "{counter} is sent once");
        assert!(!matches!(operation.told, Some(Outcome::Refused(_))), "{counter} was refused, and is executed");
        operation.executed = Some((connection, order));
        let (counts, again, told) = (operation.counts, operation.sent_again, operation.told.is_some());
        if told {
            self.note("executed when it was given up");
        }
        if !again {
            let last = self.last_executed.insert(connection, op(counter));
            assert!(last < Some(op(counter)), "{counter} is executed behind what was asked after it");
        }
        i64::from(!counts)
    }

    /// Somebody is told.
    pub fn told(&mut self, event: &Event) {
        let now = self.stalls.mark();
        self.log.tell(now.at, "caller", event);
        let Event::Cache(cache::Event { op, answer }) = event else { panic!("an answer of the cache, not {event:?}") };
        let cache::Answer::Counted(outcome) = &**answer else { panic!("the answer of a count, not {answer:?}") };
        let operation = self.operations.get_mut(op).expect("only what was asked is answered");
        assert!(operation.told.is_none(), "{op} is answered twice");
        operation.told = Some(outcome.clone());
        // Behind what is silent it may wait for its turn first.
        operation.asked.prompt(now, operation.asked.at + SILENCE * 2, "an operation");
        let (executed, again) = (operation.executed, operation.sent_again);
        match outcome {
            Outcome::Done(count) => {
                let (connection, order) = executed.expect("what is done was executed");
                assert_eq!(*count, i64::from(!operation.counts), "{op}: its own answer");
                if !again {
                    let last = self.last_told.insert(connection, order);
                    assert!(last < Some(order), "{op}: answers of one connection come in order");
                }
            }
            Outcome::Unknown if executed.is_some() => self.note("unknown, and executed"),
            Outcome::Unknown => self.note("unknown, and not executed"),
            Outcome::Refused(refusal) => {
                assert!(executed.is_none(), "{op} is refused, and was executed");
                self.log.note(match refusal {
                    Refusal::Unreachable if now.at >= operation.deadline => "refused behind its deadline",
                    Refusal::Unreachable => "refused before its deadline",
                    Refusal::ReadOnly => "refused by a replica",
                    Refusal::NotServing => "refused by the server",
                    other => panic!("{op} is refused as {other:?}"),
                });
            }
        }
    }

    /// The adapter is closed: these were asked before, and that behind it.
    pub fn closed(&mut self, last: &[OpId], refused: OpId) {
        self.closed = true;
        for op in last {
            let told = &self.operations[op].told;
            assert!(told.is_some(), "{op} was asked before the end and is not answered");
        }
        let unreachable = Some(Outcome::Refused(Refusal::Unreachable));
        assert_eq!(self.operations[&refused].told, unreachable, "what is asked behind the end is refused");
    }

    /// Everything has ended.
    pub fn ended(&mut self, now: Instant) {
        for (op, operation) in &self.operations {
            assert!(operation.told.is_some(), "{op} is not answered");
        }
        // At least half the first wait lies between two rounds through the servers.
        let bound = 4 + now.as_nanos() / 10_000_000;
        assert!(self.connections <= bound, "{} connections until {now:?}", self.connections);
    }

    pub fn log(&mut self) -> Log {
        std::mem::take(&mut self.log)
    }
}
