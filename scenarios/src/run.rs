//! One seed of one scenario: the world is stepped, faults come and go at their times, every line of history is checked, and
//! after the heal the world must make progress again.
//!
//! Invariant: what is computed is a function of scenario, seed and options; wall time is only measured.

mod ending;
mod sinks;

use crate::{
    checkers::{Checkers, Facts, Setup, View},
    draw::{self, Draw},
    format::{FaultKind, Scenario},
    inject::{Ending, Injection, injection},
    nodes::{Kind, Nodes},
    panics,
    timing::Stopwatch,
    view::{self, Ledger, Sets, Unwell},
    world::{self, World},
};
use sinks::Sinks;
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::NodeId;
use worldline_reports::{FirstEvent, RunResult, Violation};
use worldline_sim::{Fault, world::Step};
use worldline_system::{
    history::{Entry, EventId, Row},
    time::{Duration, Instant},
};

/// How often the running world is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// How soon a fault looks again for its node, where nobody leads or owns just then.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How a run is run.
#[derive(Default)]
pub struct Options<'a> {
    /// Go on behind a broken invariant.
    pub all: bool,
    /// Stop at this moment, in simulated nanoseconds.
    pub until_ns: Option<u64>,
    /// Told every event.
    pub traced: Option<&'a mut dyn FnMut(&Traced<'_>)>,
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
    if let Err(message) = panics::caught(|| run.play()) {
        run.violation = Some(Violation {
            invariant: "assert".into(),
            sentence: "no assertion of the code fails".into(),
            event: FirstEvent {
                id: run.world.events(),
                at_ns: run.world.now().as_nanos(),
                node: String::new(),
                what: message,
            },
        });
    }
    let wall_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    run.result(seed, wall_ns)
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
    nodes: Nodes,
    sets: Sets,
    world: World,
    checkers: Checkers,
    stopwatch: Stopwatch,
    agenda: BTreeSet<(Instant, Action)>,
    /// The faults that have come, by their place in the scenario.
    begun: BTreeSet<usize>,
    /// The faults that go on, by their place in the scenario.
    going_on: BTreeMap<usize, Injection>,
    unwell: Unwell,
    healed: Option<Instant>,
    finished: bool,
    violation: Option<Violation>,
    entries: u64,
    sinks: Sinks,
    fresh: Vec<Entry>,
}

impl<'a> Run<'a> {
    fn new(scenario: &'a Scenario, seed: u64, options: Options<'a>) -> Self {
        let nodes = Nodes::of(scenario);
        let mut world = world::build(scenario, &nodes, seed);
        world.tracing = options.traced.is_some();
        let rows = world::seeds(scenario).into_iter().map(|seed| Row {
            entity: seed.entity,
            fence: None,
            hit_points: seed.hit_points,
            experience: 0,
            balance: seed.balance,
        });
        let setup = Setup {
            rows: rows.collect(),
            directory: nodes.those(|kind| matches!(kind, Kind::Directory(_))),
            orphan_budget: Setup::ORPHAN_BUDGET,
        };
        let mut agenda = BTreeSet::new();
        for (index, fault) in scenario.faults.iter().enumerate() {
            let width = (fault.at.to - fault.at.from).as_nanos();
            let drawn = draw::below(seed, Draw::FaultMoment, index as u64, width + 1);
            let at = Instant::default() + fault.at.from + Duration::from_nanos(drawn);
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
            nodes,
            world,
            checkers: Checkers::new(&setup),
            stopwatch: Stopwatch::new(world::logged_in_twice(scenario, seed)),
            agenda,
            begun: BTreeSet::new(),
            going_on: BTreeMap::new(),
            unwell: Unwell::default(),
            healed: None,
            finished: false,
            violation: None,
            entries: 0,
            sinks: Sinks::default(),
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
        self.violation.is_some() && !self.options.all
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
        let Self { world, sets, checkers, stopwatch, .. } = self;
        let majority = |member: NodeId| sets.majority(world, member);
        let facts = Facts { directory_majority: Some(&majority) };
        self.entries += self.fresh.len() as u64;
        for entry in self.fresh.drain(..) {
            self.sinks.on_entry(&entry);
            stopwatch.on_entry(&entry);
            checkers.on_entry(&entry, &facts);
        }
        self.note_violation();
    }

    fn note_violation(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let Some(first) = self.checkers.violations().first() else { return };
        self.violation = Some(Violation {
            invariant: first.invariant.id().to_owned(),
            sentence: first.invariant.sentence().to_owned(),
            event: FirstEvent {
                id: first.event.0,
                at_ns: first.at.as_nanos(),
                node: first.node.map_or(String::new(), |(node, _)| self.nodes.name(node).to_owned()),
                what: first.explanation.clone(),
            },
        });
    }

    fn act(&mut self, at: Instant, action: Action) {
        match action {
            Action::BeginFault(index) => self.begin_fault(at, index),
            Action::EndFault(index) => self.end_fault(at, index),
            Action::Heal => {
                self.going_on.clear();
                self.inject(Fault::Heal);
                self.unwell = Unwell::default();
                self.healed = Some(at);
                self.stopwatch.fault_ended(at);
            }
            Action::Sample => {
                self.sample(false);
                self.agenda.insert((at + SAMPLE_EVERY, Action::Sample));
            }
            Action::Finish => {
                self.finished = true;
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
        let silent = !matches!(fault.kind, FaultKind::Crash(_) | FaultKind::Kill(_));
        injection.lost.iter().filter(|_| silent).for_each(|&node| self.stopwatch.lost(node, at));
        injection.begin.iter().for_each(|fault| self.inject(fault.clone()));
        if let Some(lasts) = fault.lasts {
            self.agenda.insert((at + lasts, Action::EndFault(index)));
        }
        self.begun.insert(index);
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
        self.stopwatch.fault_ended(at);
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
        let Self { world, nodes, sets, checkers, unwell, .. } = self;
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
            settled: end,
        };
        if end {
            checkers.on_sample(&view);
            checkers.at_end(&view);
        } else {
            checkers.on_sample(&view);
        }
        self.note_violation();
    }
}
