//! Rare places that a sweep of the catalogue may miss: each is reached by something, and what reaches it holds.

use std::path::Path;
use worldline_reports::Outcome;
use worldline_scenarios::{
    catalogue,
    format::{self, Scenario},
    run::{self, Options},
};

/// Seeds that are tried. A hook is active in one of four.
const TRIES: u64 = 24;

fn storm(name: &str) -> Scenario {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storms").join(name).with_extension("toml");
    format::read(&path).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Runs seeds until one reaches the place; all of them hold.
fn reached(scenario: &Scenario, probe: &str) {
    for seed in 1..=TRIES {
        let run = run::seed(scenario, seed, Options::default());
        assert_eq!(run.outcome(), Outcome::Held, "{} seed {seed}: {:?} {:?}", run.scenario, run.violation, run.misses);
        if run.probes[probe] > 0 {
            return;
        }
    }
    panic!("{} never reached {probe}", scenario.name);
}

#[test]
fn a_client_that_does_not_leave_a_gateway_that_drains_is_cut_off() {
    reached(&storm("drains"), "gateway.drain-cut-off");
}

#[test]
fn a_claim_behind_a_restored_directory_goes_higher() {
    reached(&storm("restore"), "worker.claim-refused-went-higher");
}

#[test]
fn a_claim_whose_record_may_be_written_or_not_is_written_again() {
    reached(&storm("mix"), "worker.record-write-unknown");
}

#[test]
fn a_takeover_that_is_asked_for_twice_happens_once() {
    reached(&catalogued("worker-crash"), "orchestrator.takeover-lost-race");
}

/// A newer build publishes beside this one: its facts are counted, and everybody learns what they tell.
#[test]
fn a_fact_of_a_newer_build_is_read_in_the_ledger() {
    reached(&catalogued("swing"), "replica.fact-undecodable");
}

fn catalogued(name: &str) -> Scenario {
    catalogue::find(name).expect("in the catalogue").expect("reads")
}
