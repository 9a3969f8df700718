//! A tiny role for the tests of the service models: it asks what its script says, when it says, and keeps what it is told.

use crate::{Place, Solo, World, network::latency::City, node::NodeSpec, world};
use std::{cell::Cell, sync::Arc};
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    Outcome, Role, Turn,
    doors::{Asked, Event, Submission, bus, cache, clock::TimerKey, directory, ledger},
    history::{Acceptance, Entry, What},
    time::{Duration, Instant},
};

/// Something to ask, by a caller that waits this long for it.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Directory(directory::Submission, Duration),
    Ledger(ledger::Submission, Duration),
    Cache(cache::Submission, Duration),
    Bus(bus::Submission, Duration),
    /// Of the consumer that this line of the script has opened.
    BusAcknowledge(usize, u64),
    BusReject(usize, u64),
    BusClose(usize),
}

/// What a caller does of itself with the bus: it keeps a consumer open and acknowledges what it is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Follow {
    pub durable: Option<bus::Durable>,
    pub acknowledges: bool,
}

/// The timer by which a follower opens its consumer again.
const FOLLOW: TimerKey = TimerKey(u64::MAX);
const FOLLOW_AGAIN: Duration = Duration::from_millis(200);

impl From<bus::Submission> for Ask {
    fn from(submission: bus::Submission) -> Self {
        Self::Bus(submission, Duration::from_secs(2))
    }
}

impl From<directory::Submission> for Ask {
    fn from(submission: directory::Submission) -> Self {
        Self::Directory(submission, Duration::from_secs(2))
    }
}

impl From<ledger::Submission> for Ask {
    fn from(submission: ledger::Submission) -> Self {
        Self::Ledger(submission, Duration::from_secs(2))
    }
}

impl From<cache::Submission> for Ask {
    fn from(submission: cache::Submission) -> Self {
        Self::Cache(submission, Duration::from_secs(2))
    }
}

/// A caller.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    script: Arc<Vec<(Duration, Ask)>>,
    started: Instant,
    ops: Vec<Option<OpId>>,
    heard: Vec<(Duration, Event)>,
    follow: Option<Follow>,
}

impl Caller {
    pub fn new(script: Vec<(u64, Ask)>) -> Self {
        let script = script.into_iter().map(|(at_ms, ask)| (Duration::from_millis(at_ms), ask)).collect();
        Self { script: Arc::new(script), ..Self::default() }
    }

    /// The answer to the `n`-th line of the script, and when it came.
    pub fn directory(&self, n: usize) -> Option<(u64, &directory::Answer)> {
        self.heard.iter().find_map(|(at, event)| match event {
            Event::Directory(directory::Event::Answered { op, answer }) if Some(*op) == self.ops[n] => {
                Some((at.as_millis(), &**answer))
            }
            _ => None,
        })
    }

    /// The answer to the `n`-th line of the script, and when it came.
    pub fn ledger(&self, n: usize) -> Option<(u64, &ledger::Answer)> {
        self.heard.iter().find_map(|(at, event)| match event {
            Event::Ledger(event) if Some(event.op) == self.ops[n] => Some((at.as_millis(), &*event.answer)),
            _ => None,
        })
    }

    /// The answer to the `n`-th line of the script, and when it came.
    pub fn cache(&self, n: usize) -> Option<(u64, &cache::Answer)> {
        self.heard.iter().find_map(|(at, event)| match event {
            Event::Cache(event) if Some(event.op) == self.ops[n] => Some((at.as_millis(), &*event.answer)),
            _ => None,
        })
    }

    /// One that follows the bus besides.
    pub fn following(self, follow: Follow) -> Self {
        Self { follow: Some(follow), ..self }
    }

    /// The answer to the `n`-th line of the script, and when it came.
    pub fn bus(&self, n: usize) -> Option<(u64, &bus::Answer)> {
        self.heard.iter().find_map(|(at, event)| match event {
            Event::Bus(bus::Event::Answered { op, answer }) if Some(*op) == self.ops[n] => {
                Some((at.as_millis(), &**answer))
            }
            _ => None,
        })
    }

    /// What consumers have told, and when.
    pub fn told(&self) -> impl Iterator<Item = (u64, &bus::Event)> {
        self.heard.iter().filter_map(|(at, event)| match event {
            Event::Bus(news @ (bus::Event::Delivered { .. } | bus::Event::Gap { .. })) => Some((at.as_millis(), news)),
            _ => None,
        })
    }

    fn of_consumer(&self, line: usize, now: Instant, op: OpId, of: impl FnOnce(OpId) -> bus::Submission) -> Submission {
        let submission = of(self.ops[line].expect("it was asked before"));
        Submission::Bus(Asked { op, deadline: now + Duration::from_secs(2), submission })
    }

    fn follow(&mut self, turn: &mut Turn<'_, Submission>, event: &Event) {
        let Some(Follow { durable, acknowledges }) = self.follow else { return };
        let again = match event {
            Event::Started | Event::Bus(bus::Event::Gap { .. }) => true,
            Event::Bus(bus::Event::Answered { answer, .. }) => {
                matches!(**answer, bus::Answer::Consuming(Outcome::Refused(_) | Outcome::Unknown))
            }
            _ => false,
        };
        if again {
            turn.arm_in(FOLLOW, FOLLOW_AGAIN);
        }
        let submission = match event {
            Event::Timer(FOLLOW) => bus::Submission::Consume { durable, start: bus::Start::Beginning },
            Event::Bus(bus::Event::Delivered { consumer, message }) if acknowledges => {
                bus::Submission::Acknowledge { consumer: *consumer, through: message.sequence }
            }
            _ => return,
        };
        let (op, deadline) = (turn.next_op(), turn.now() + Duration::from_secs(2));
        turn.submit(Submission::Bus(Asked { op, deadline, submission }));
    }

    /// How many lines the script has.
    pub fn lines(&self) -> usize {
        self.script.len()
    }

    /// When a line was asked.
    pub fn asked_ms(&self, line: usize) -> u64 {
        self.script[line].0.as_millis()
    }

    /// All answers, each with its line and when it came.
    pub fn directory_answers(&self) -> impl Iterator<Item = (usize, (u64, &directory::Answer))> {
        (0..self.lines()).filter_map(|line| Some((line, self.directory(line)?)))
    }

    /// All answers, each with its line and when it came.
    pub fn ledger_answers(&self) -> impl Iterator<Item = (usize, (u64, &ledger::Answer))> {
        (0..self.lines()).filter_map(|line| Some((line, self.ledger(line)?)))
    }

    /// What watches have told, and when.
    pub fn news(&self) -> impl Iterator<Item = (u64, &directory::Event)> {
        self.heard.iter().filter_map(|(at, event)| match event {
            Event::Directory(news @ (directory::Event::Changed { .. } | directory::Event::Gap { .. })) => {
                Some((at.as_millis(), news))
            }
            _ => None,
        })
    }
}

impl Role for Caller {
    type Event = Event;
    type Submission = Submission;

    fn on_event(&mut self, event: Event, turn: &mut Turn<'_, Submission>) {
        self.follow(turn, &event);
        match event {
            Event::Started => {
                self.started = turn.now();
                self.ops = vec![None; self.script.len()];
                for (n, &(after, _)) in self.script.clone().iter().enumerate() {
                    turn.arm_in(TimerKey(n as u64), after);
                }
            }
            Event::Timer(FOLLOW) => {}
            Event::Timer(key) => {
                let n = key.0 as usize;
                let (op, now) = (turn.next_op(), turn.now());
                self.ops[n] = Some(op);
                turn.submit(match self.script[n].1.clone() {
                    Ask::Directory(submission, patience) => {
                        Submission::Directory(Asked { op, deadline: now + patience, submission })
                    }
                    Ask::Ledger(submission, patience) => {
                        Submission::Ledger(Asked { op, deadline: now + patience, submission })
                    }
                    Ask::Bus(submission, patience) => {
                        Submission::Bus(Asked { op, deadline: now + patience, submission })
                    }
                    Ask::BusAcknowledge(line, through) => {
                        let through = bus::StreamSequence(through);
                        self.of_consumer(line, now, op, |consumer| bus::Submission::Acknowledge { consumer, through })
                    }
                    Ask::BusReject(line, sequence) => {
                        let sequence = bus::StreamSequence(sequence);
                        self.of_consumer(line, now, op, |consumer| bus::Submission::Reject { consumer, sequence })
                    }
                    Ask::BusClose(line) => self.of_consumer(line, now, op, bus::Submission::Close),
                    Ask::Cache(submission, patience) => {
                        Submission::Cache(Asked { op, deadline: now + patience, submission })
                    }
                });
            }
            other => self.heard.push((turn.now().since(self.started), other)),
        }
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

/// A world of callers with three members in three zones of one city.
pub(crate) struct Bench {
    pub world: World<Solo<Caller>>,
    pub members: Vec<NodeId>,
    pub callers: Vec<NodeId>,
    history: Vec<Entry>,
    cuts: Cell<u32>,
}

impl Bench {
    /// `services` is given the members' nodes, before the callers start.
    pub fn new(seed: u64, callers: Vec<Caller>, services: impl FnOnce(&mut World<Solo<Caller>>, Vec<NodeId>)) -> Self {
        let mut world = World::new(world::Config { seed, ..world::Config::default() });
        let place = |zone| Place::zone(City::Frankfurt, zone);
        let members: Vec<NodeId> =
            (0..3).map(|zone| world.add_member(NodeSpec::new(format!("member-{zone}"), place(zone)))).collect();
        services(&mut world, members.clone());
        let callers: Vec<NodeId> = callers
            .into_iter()
            .enumerate()
            .map(|(n, caller)| world.add_node(NodeSpec::new(format!("caller-{n}"), place(0)), Solo(caller)))
            .collect();
        callers.iter().for_each(|&caller| world.start(caller));
        Self { world, members, callers, history: vec![], cuts: Cell::new(0) }
    }

    /// Runs to this moment.
    pub fn run_to(&mut self, ms: u64) -> &mut Self {
        self.world.run_until(Instant::default() + Duration::from_millis(ms));
        self
    }

    pub fn inject(&mut self, fault: crate::Fault) -> &mut Self {
        self.world.inject(fault);
        self
    }

    /// Cuts two groups of nodes off from each other.
    pub fn cut(&mut self, from: &[NodeId], to: &[NodeId]) -> u32 {
        let id = self.cuts.get() + 1;
        self.cuts.set(id);
        self.inject(crate::Fault::Cut { id, from: from.to_vec(), to: to.to_vec(), both: true });
        id
    }

    pub fn caller(&self, n: usize) -> &Caller {
        &self.world.actor(self.callers[n]).expect("callers were started").0
    }

    /// What the sinks have accepted so far, with the moment in ms.
    pub fn accepted(&mut self) -> Vec<(u64, Acceptance)> {
        self.world.drain_history(&mut self.history);
        let accepted = |entry: &Entry| match &entry.what {
            What::Accepted(acceptance) => Some((entry.at.as_nanos() / 1_000_000, acceptance.clone())),
            _ => None,
        };
        self.history.iter().filter_map(accepted).collect()
    }
}

/// Faults of nodes and links, one drawn every `every_ms`, until `until_ms`; then everything heals and every member runs.
pub(crate) fn storm(bench: &mut Bench, seed: u64, every_ms: u64, until_ms: u64, own: &[crate::Fault]) {
    use crate::{Fault, Purpose, entropy::below};
    let draw = |bench: &Bench, n, bound| below(bench.world.core().draw(Purpose::Scenario, seed, n), bound);
    for (n, at) in (1_000..until_ms).step_by(every_ms as usize).enumerate() {
        bench.run_to(at);
        let draws = n as u64 * 8;
        let pick = |bench: &Bench, n| bench.members[draw(bench, draws + n, 3) as usize];
        let (node, other) = (pick(bench, 1), pick(bench, 2));
        let caller = bench.callers[draw(bench, draws + 3, bench.callers.len() as u64) as usize];
        let fault = match draw(bench, draws, 12) {
            0 => Fault::Crash { node },
            1 => Fault::Kill { node },
            2 => Fault::Pause { node },
            3 | 4 => Fault::Resume { node },
            5 | 6 => Fault::Restart { node },
            7 => Fault::Cut { id: 1, from: vec![node], to: vec![other], both: draw(bench, draws + 4, 2) == 0 },
            8 => Fault::Cut { id: 2, from: vec![node], to: vec![caller], both: draw(bench, draws + 4, 2) == 0 },
            9 => Fault::Uncut { id: 1 + draw(bench, draws + 4, 2) as u32 },
            _ => own[draw(bench, draws + 4, own.len() as u64) as usize].clone(),
        };
        bench.inject(fault);
    }
    bench.run_to(until_ms).inject(Fault::Heal);
    for node in bench.members.clone() {
        if !bench.world.core().is_up(node) {
            bench.inject(Fault::Restart { node });
        }
    }
}
