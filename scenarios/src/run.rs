//! One seed of one scenario: the world is stepped, faults come and go at their times, every line of history is checked, and
//! after the heal the world must make progress again.
//!
//! Invariant: what is computed is a function of scenario, seed and options; wall time is only measured.

use crate::{
    checkers::{Facts, View},
    draw::{self, Draw},
    format::Scenario,
    inject::{Ending, Injection, injection},
    judge::{Judge, Ran},
    measured,
    nodes::Nodes,
    panics,
    view::{self, Ledger, Sets, Unwell},
    world::{self, World},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use worldline_proto::NodeId;
use worldline_reports::{FirstEvent, RunResult};
use worldline_sim::{Fault, world::Step};
use worldline_system::{
    doors::telemetry::Span,
    history::{Entry, EventId},
    time::{Duration, Instant},
};

/// How often the running world is looked at.
pub const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// How soon a fault looks again for its node, where nobody leads or owns just then.
pub const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a run is run.
#[derive(Default)]
pub struct Options<'a> {
    /// Go on behind a broken invariant.
    pub all: bool,
    /// Stop at this moment, in simulated nanoseconds.
    pub until_ns: Option<u64>,
    /// Told every event.
    pub traced: Option<&'a mut dyn FnMut(&Traced<'_>)>,
    /// Filled with the spans of all nodes, and where each was told.
    pub spans: Option<&'a mut Vec<(NodeId, Span)>>,
}

/// An event as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a> {
    /// Its place in the order of all events.
    pub id: u64,
    /// The event during which it was scheduled; zero for the scenario itself.
    pub cause: u64,
    /// Simulated nanoseconds.
    pub at_ns: u64,
    /// The node's name.
    pub node: &'a str,
    /// What happened, in words.
    pub what: &'a str,
}

/// The names of a scenario's nodes, in the order of their ids.
#[must_use]
pub fn node_names(scenario: &Scenario) -> Vec<String> {
    Nodes::of(scenario).iter().map(|(_, node)| node.name.clone()).collect()
}

/// Runs one seed of a scenario. An assertion of the code that fails is a broken invariant like any other.
#[must_use]
pub fn seed<'a>(scenario: &'a Scenario, seed: u64, options: Options<'a>) -> RunResult {
    let started = std::time::Instant::now();
    let mut run = Run::new(scenario, seed, options);
    if let Err(what) = panics::caught(|| run.play()) {
        let (id, at_ns) = (run.world.events(), run.world.now().as_nanos());
        run.judge.assertion_failed(FirstEvent { id, at_ns, node: String::new(), what });
    }
    let Run { mut world, judge, options, .. } = run;
    if let Some(spans) = options.spans {
        *spans = world.take_spans();
    }
    let metrics = measured::of(scenario, &world.meters());
    let result = judge.result(Ran {
        seed,
        hash: Some(world.hash()),
        events: world.events(),
        span_ns: world.now().as_nanos(),
        wall_ns: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        probes: world.probes().map(|(name, count)| (name.to_owned(), count)).collect(),
    });
    RunResult { metrics, ..result }
}

/// When, after the beginning, the fault at this place of the scenario comes in this seed.
#[must_use]
pub fn fault_moment(scenario: &Scenario, index: usize, seed: u64) -> Duration {
    let window = scenario.faults[index].at;
    let width = (window.to - window.from).as_nanos();
    window.from + Duration::from_nanos(draw::below(seed, Draw::FaultMoment, index as u64, width + 1))
}

/// What is done from outside, in the order in which it is done at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    EndFault(usize),
    BeginFault(usize),
    Heal,
    Sample,
    Finish,
}

struct Run<'a> {
    scenario: &'a Scenario,
    options: Options<'a>,
    nodes: Arc<Nodes>,
    sets: Sets,
    world: World,
    judge: Judge<'a>,
    agenda: BTreeSet<(Instant, Action)>,
    /// The faults that go on, by their place in the scenario.
    going_on: BTreeMap<usize, Injection>,
    unwell: Unwell,
    fresh: Vec<Entry>,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, seed: u64, options: Options<'a>) -> Self {
        let nodes = Arc::new(Nodes::of(scenario));
        let mut world = world::build(scenario, &nodes, seed);
        world.tracing = options.traced.is_some();
        if options.spans.is_some() {
            world.listen();
        }
        let mut agenda = BTreeSet::new();
        for index in 0..scenario.faults.len() {
            let at = Instant::default() + fault_moment(scenario, index, seed);
            agenda.insert((at, Action::BeginFault(index)));
        }
        let heal = Instant::default() + scenario.duration;
        agenda.insert((heal, Action::Heal));
        agenda.insert((heal + scenario.settle, Action::Finish));
        agenda.insert((Instant::default() + SAMPLE_EVERY, Action::Sample));
        Self {
            scenario,
            options,
            sets: Sets::of(&nodes),
            world,
            judge: Judge::new(scenario, Arc::clone(&nodes), seed),
            nodes,
            agenda,
            going_on: BTreeMap::new(),
            unwell: Unwell::default(),
            fresh: Vec::new(),
        }
    }

    fn play(&mut self) {
        let until = self.options.until_ns.map(Instant::from_nanos);
        self.take_history();
        while let Some((at, action)) = self.agenda.pop_first() {
            let horizon = until.map_or(at, |until| at.min(until));
            while let Some(step) = self.world.step_within(horizon) {
                self.after(&step);
                if self.is_over() {
                    return;
                }
            }
            self.world.advance(horizon);
            if horizon < at {
                return;
            }
            self.act(at, action);
            if self.is_over() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.judge.is_broken() && !self.options.all
    }

    fn after(&mut self, step: &Step) {
        if let Some(traced) = &mut self.options.traced {
            traced(&Traced {
                id: step.id.0,
                cause: step.cause.0,
                at_ns: step.at.as_nanos(),
                node: self.nodes.name(step.node),
                what: &step.text,
            });
        }
        self.take_history();
    }

    /// Hands what was written to the history to checkers and stopwatch.
    fn take_history(&mut self) {
        self.world.drain_history(&mut self.fresh);
        if self.fresh.is_empty() {
            return;
        }
        let Self { world, sets, judge, .. } = self;
        let majority = |member: NodeId| sets.majority(world, member);
        let facts = Facts { directory_majority: Some(&majority) };
        for entry in self.fresh.drain(..) {
            judge.on_entry(&entry, &facts);
        }
    }

    fn act(&mut self, at: Instant, action: Action) {
        match action {
            Action::BeginFault(index) => self.begin_fault(at, index),
            Action::EndFault(index) => self.end_fault(at, index),
            Action::Heal => {
                self.going_on.clear();
                self.inject(Fault::Heal);
                self.unwell = Unwell::default();
                self.judge.healed(at);
            }
            Action::Sample => {
                self.sample(false);
                self.agenda.insert((at + SAMPLE_EVERY, Action::Sample));
            }
            Action::Finish => {
                self.sample(true);
                self.agenda.clear();
            }
        }
    }

    fn inject(&mut self, fault: Fault) {
        let step = self.world.inject(fault);
        self.after(&step);
    }

    fn begin_fault(&mut self, at: Instant, index: usize) {
        let fault = &self.scenario.faults[index];
        let Some(injection) = injection(index, &fault.kind, &self.nodes, &self.world) else {
            let again = at + LOOK_AGAIN;
            if again < Instant::default() + self.scenario.duration {
                self.agenda.insert((again, Action::BeginFault(index)));
            }
            return;
        };
        self.judge.fault_began(index, &injection.lost, at);
        injection.begin.iter().for_each(|fault| self.inject(fault.clone()));
        if let Some(lasts) = fault.lasts {
            self.agenda.insert((at + lasts, Action::EndFault(index)));
        }
        self.going_on.insert(index, injection);
        self.remember_unwell();
    }

    fn end_fault(&mut self, at: Instant, index: usize) {
        let Some(injection) = self.going_on.remove(&index) else { return };
        for ending in injection.end {
            match ending {
                Ending::Fault(fault) => self.inject(fault),
                Ending::StartIfDead(node) if !self.world.core().is_up(node) => self.inject(Fault::Restart { node }),
                Ending::StartIfDead(_) => {}
            }
        }
        self.remember_unwell();
        self.judge.fault_ended(at);
    }

    fn remember_unwell(&mut self) {
        self.unwell = Unwell::default();
        for injection in self.going_on.values().filter(|injection| !injection.end.is_empty()) {
            self.unwell.nodes.extend(&injection.unwell);
            self.unwell.services.directory |= injection.services.directory;
            self.unwell.services.ledger |= injection.services.ledger;
        }
    }

    fn sample(&mut self, end: bool) {
        let Self { world, nodes, sets, judge, unwell, .. } = self;
        let queues = view::queues(world, nodes);
        let workers = sets.workers(world, unwell);
        let ledger = world.ledger().map(Ledger::of);
        let leaks = end.then(|| view::leaks(world));
        let view = View {
            at: world.now(),
            event: EventId(world.events()),
            queues: &queues,
            workers: &workers,
            services: Some(sets.services(world, unwell)),
            ledger: ledger.as_ref().map(|ledger| ledger as _),
            leaks: leaks.as_deref(),
            disturbed: false,
            settled: end,
        };
        if end {
            judge.at_end(&view);
        } else {
            judge.on_sample(&view);
        }
    }
}
