//! Each scenario of the catalogue is about its faults: with them something is seen that is not seen without them.

use worldline_reports::RunResult;
use worldline_scenarios::{
    catalogue,
    run::{self, Options},
};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;

/// Runs a scenario of the catalogue as it is, and without its faults.
fn with_and_without(name: &str, seed: u64) -> (RunResult, RunResult) {
    let scenario = catalogue::find(name).expect("in the catalogue").expect("reads");
    let mut calm = scenario.clone();
    calm.faults.clear();
    (run::seed(&scenario, seed, Options::default()), run::seed(&calm, seed, Options::default()))
}

fn measured(run: &RunResult, timing: &str) -> usize {
    run.timings.get(timing).map_or(0, Vec::len)
}

/// Each of these was reached in some seed with the faults, and in none without.
fn reached(name: &str, probes: &[&str]) {
    let runs: Vec<_> = SEEDS.map(|seed| with_and_without(name, seed)).collect();
    for &probe in probes {
        let count = |run: &RunResult| run.probes.get(probe).copied().unwrap_or(0);
        let (faulty, calm): (Vec<u64>, Vec<u64>) =
            runs.iter().map(|(faulty, calm)| (count(faulty), count(calm))).unzip();
        assert!(faulty.iter().sum::<u64>() > 0, "{name} never reached {probe}");
        assert_eq!(calm.iter().sum::<u64>(), 0, "{name} without faults reached {probe}");
    }
}

#[test]
fn a_crash_makes_another_worker_take_over() {
    for seed in SEEDS {
        let (faulty, calm) = with_and_without("worker-crash", seed);
        for timing in ["failover", "detect", "reassign", "reconstruct"] {
            assert!(measured(&faulty, timing) > 0, "{timing}");
            assert_eq!(measured(&calm, timing), 0, "{timing}");
        }
        assert_eq!(faulty.misses, []);
        assert!(calm.misses.iter().any(|miss| miss.sentence.contains("never measured")), "a budget that nothing tests");
    }
}

#[test]
fn a_paused_zombie_wakes_up_fenced() {
    reached("zombie-paused", &["worker.fenced", "directory.lease-ended"]);
}

#[test]
fn commits_in_flight_come_after_the_takeover_and_are_refused() {
    reached("zombie-in-flight", &["ledger.operation-fenced", "worker.commit-unknown-resubmitted"]);
}

#[test]
fn a_holder_with_a_slow_clock_acts_beside_its_successor_and_is_refused() {
    reached("zombie-slow-clock", &["ledger.operation-fenced", "worker.commit-refused-by-fence", "worker.fenced"]);
}

#[test]
fn what_was_held_between_outbox_and_socket_is_refused_when_it_leaves() {
    reached("zombie-outbox", &["ledger.operation-fenced", "worker.fenced"]);
}

#[test]
fn lost_acknowledgements_are_asked_for_again_and_answered_from_what_is_stored() {
    reached("lost-commit-ack", &["worker.commit-unknown-resubmitted", "ledger.operation-stored"]);
}

#[test]
fn without_a_quorum_workers_fall_silent_and_resume_under_the_same_lease() {
    reached("directory-no-quorum", &["worker.resumed-same-lease"]);
    let (faulty, calm) = with_and_without("directory-no-quorum", 1);
    assert!(measured(&faulty, "resume") > 0 && measured(&calm, "resume") == 0);
}

#[test]
fn a_region_that_loses_the_core_loses_its_leases_and_comes_back() {
    reached("core-unreachable", &["directory.lease-ended", "worker.fenced"]);
    let (faulty, calm) = with_and_without("core-unreachable", 1);
    assert!(measured(&faulty, "resume") > 0 && measured(&calm, "resume") == 0);
}
