//! What judges a run, whoever runs it: the checkers, the stopwatch and the counts over its history, the faults that came
//! about, and at the end what it has come to. The simulator feeds it while a world is stepped; a drill feeds it what real
//! processes and services have left behind.
//!
//! Invariant: the verdict is a function of what was fed, in its order.
//!
//! Deliberately absent: where entries come from, and a clock.

mod ending;
mod sinks;

use crate::{
    checkers::{Checkers, Facts, Setup, View},
    format::{FaultKind, Scenario, Selector},
    nodes::{Kind, Nodes},
    timing::Stopwatch,
    world,
};
pub use ending::Ran;
use sinks::Sinks;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use worldline_proto::{CharacterId, NodeId};
use worldline_reports::{FirstEvent, Miss, Violation};
use worldline_system::{
    history::{Entry, Note, Row, What},
    time::Instant,
};

/// Judges one run of a scenario.
#[derive(Clone, Debug)]
pub struct Judge<'a> {
    scenario: &'a Scenario,
    nodes: Arc<Nodes>,
    checkers: Checkers,
    stopwatch: Stopwatch,
    sinks: Sinks,
    /// The faults that have come, by their place in the scenario.
    begun: BTreeSet<usize>,
    /// Why faults were left out, by their place in the scenario.
    skipped: BTreeMap<usize, String>,
    healed: Option<Instant>,
    /// A fault has come, and was not healed, that is no orderly stop.
    disturbed: bool,
    finished: bool,
    /// An assertion of the code that failed.
    failed: Option<Violation>,
    missed: Vec<Miss>,
    /// Whose tokens do not count any more, and who know it: nothing goes on for them.
    away: BTreeSet<CharacterId>,
    entries: u64,
}

impl<'a> Judge<'a> {
    /// Of a run that is about to begin. The seed says who plays and how.
    #[must_use]
    pub fn new(scenario: &'a Scenario, nodes: Arc<Nodes>, seed: u64) -> Self {
        let rows = world::seeds(scenario).into_iter().map(|seed| Row {
            entity: seed.entity,
            fence: None,
            hit_points: seed.hit_points,
            experience: 0,
            balance: seed.balance,
        });
        let (late, a_clock_is_right) = wall_clocks(scenario);
        let setup = Setup {
            rows: rows.collect(),
            directory: nodes.those(|kind| matches!(kind, Kind::Directory(_))),
            orphan_budget: Setup::ORPHAN_BUDGET,
            retry: scenario.knobs.retry,
            checkpoint_every: scenario.knobs.checkpoint_every,
            speeders: world::speeders(scenario, seed),
            tokens_end: if late { BTreeMap::new() } else { world::tokens_that_end(scenario, seed) },
            a_clock_is_right,
        };
        Self {
            scenario,
            nodes,
            checkers: Checkers::new(&setup),
            stopwatch: Stopwatch::new(world::logged_in_twice(scenario, seed)),
            sinks: Sinks::default(),
            begun: BTreeSet::new(),
            skipped: BTreeMap::new(),
            healed: None,
            disturbed: false,
            finished: false,
            failed: None,
            missed: Vec::new(),
            away: BTreeSet::new(),
            entries: 0,
        }
    }

    /// Takes the next line of the history, in the order of the run.
    pub fn on_entry(&mut self, entry: &Entry, facts: &Facts<'_>) {
        self.entries += 1;
        self.sinks.on_entry(entry);
        self.stopwatch.on_entry(entry);
        if let What::Noted(Note::TurnedAway { character }) = entry.what {
            self.away.insert(character);
        }
        self.checkers.on_entry(entry, facts);
    }

    /// Takes a line of the world's stop, behind its end: it is checked like any other, but nothing is measured any more.
    pub fn on_stop(&mut self, entry: &Entry, facts: &Facts<'_>) {
        self.entries += 1;
        self.checkers.on_entry(entry, facts);
    }

    /// Looks at the running world.
    pub fn on_sample(&mut self, view: &View<'_>) {
        self.checkers.on_sample(&View { disturbed: self.disturbed, ..*view });
    }

    /// Looks at the world after its last event: the run has come to its end.
    pub fn at_end(&mut self, view: &View<'_>) {
        self.finished = true;
        let view = View { disturbed: self.disturbed, ..*view };
        self.checkers.on_sample(&view);
        self.checkers.at_end(&view);
    }

    /// The fault at this place of the scenario comes now, and takes these nodes out or cuts them off.
    pub fn fault_began(&mut self, index: usize, lost: &[NodeId], at: Instant) {
        self.begun.insert(index);
        self.disturbed |= !matches!(self.scenario.faults[index].kind, FaultKind::Stop(_));
        // That a process has died, the history tells.
        let told = matches!(self.scenario.faults[index].kind, FaultKind::Crash(_) | FaultKind::Kill(_));
        lost.iter().filter(|_| !told).for_each(|&node| self.stopwatch.lost(node, at));
    }

    /// The fault at this place of the scenario is not provoked.
    pub fn fault_skipped(&mut self, index: usize, why: String) {
        self.skipped.insert(index, why);
    }

    /// A fault is over.
    pub fn fault_ended(&mut self, at: Instant) {
        self.stopwatch.fault_ended(at);
    }

    /// Every fault is over but for nodes that stay dead.
    pub fn healed(&mut self, at: Instant) {
        self.healed = Some(at);
        self.disturbed = false;
        self.stopwatch.fault_ended(at);
    }

    /// Something that is no invariant's was not as it had to be, and only whoever runs the scenario can tell.
    pub fn missed(&mut self, miss: Miss) {
        self.missed.push(miss);
    }

    /// An assertion of the code has failed.
    pub fn assertion_failed(&mut self, event: FirstEvent) {
        let (invariant, sentence) = ("assert".into(), "no assertion of the code fails".into());
        self.failed = Some(Violation { invariant, sentence, event });
    }

    /// Whether an invariant is broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.failed.is_some() || !self.checkers.violations().is_empty()
    }

    /// The first invariant that broke.
    #[must_use]
    pub fn violation(&self) -> Option<Violation> {
        if let Some(failed) = &self.failed {
            return Some(failed.clone());
        }
        let first = self.checkers.violations().first()?;
        Some(Violation {
            invariant: first.invariant.id().to_owned(),
            sentence: first.invariant.sentence().to_owned(),
            event: FirstEvent {
                id: first.event.0,
                at_ns: first.at.as_nanos(),
                node: first.node.map_or(String::new(), |(node, _)| self.nodes.name(node).to_owned()),
                what: first.explanation.clone(),
            },
        })
    }
}

/// Of the wall clocks that tokens are read by: whether one may say that a token still lasts which has ended, and whether that of some
/// gateway is never set.
fn wall_clocks(scenario: &Scenario) -> (bool, bool) {
    let (mut late, mut set) = (false, BTreeSet::new());
    for fault in &scenario.faults {
        match &fault.kind {
            FaultKind::ClockFreeze(_) => late = true,
            FaultKind::ClockDrift(_, ppm) => late |= *ppm < 0,
            FaultKind::WallStep(nodes, by_ns) => {
                late |= *by_ns < 0;
                for selector in nodes {
                    match *selector {
                        Selector::Gateway(region, n) => drop(set.insert((region, n))),
                        Selector::Region(region) => {
                            set.extend((0..scenario.regions[region].gateways).map(|n| (region, n)));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let gateways: usize = scenario.regions.iter().map(|region| usize::from(region.gateways)).sum();
    (late, set.len() < gateways)
}
