//! One seed of one scenario.

use crate::format::Scenario;
use worldline_reports::RunResult;

/// How a run is run.
#[derive(Default)]
pub struct Options<'a> {
    /// Go on behind a broken invariant.
    pub all: bool,
    /// Stop at this moment.
    pub until_ns: Option<u64>,
    /// Told every event.
    pub traced: Option<&'a mut dyn FnMut(&Traced<'_>)>,
}

/// An event as it is told.
#[derive(Clone, Debug)]
pub struct Traced<'a> {
    /// Its id.
    pub id: u64,
    /// The event during which it was scheduled; zero for the scenario.
    pub cause: u64,
    /// Simulated nanoseconds.
    pub at_ns: u64,
    /// Where.
    pub node: &'a str,
    /// What.
    pub what: &'a str,
}

/// The names of the nodes.
#[must_use]
pub fn node_names(scenario: &Scenario) -> Vec<String> {
    crate::nodes::Nodes::of(scenario).iter().map(|(_, node)| node.name.clone()).collect()
}

/// Runs one seed.
#[must_use]
pub fn seed(_: &Scenario, _: u64, _: Options<'_>) -> RunResult {
    unreachable!()
}
