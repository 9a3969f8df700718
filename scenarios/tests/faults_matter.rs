//! Each scenario of the catalogue is about its faults: with them something is seen that is not seen without them.

use worldline_reports::RunResult;
use worldline_scenarios::{
    catalogue,
    format::FaultKind,
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

/// Seeds that are tried until everything that is looked for was reached.
const TRIES: u64 = 6;

/// Each of these was reached in some seed with the faults, and in none without.
fn reached(name: &str, probes: &[&str]) {
    let mut missing = probes.to_vec();
    for seed in 1..=TRIES {
        let (faulty, calm) = with_and_without(name, seed);
        let count = |run: &RunResult, probe: &str| run.probes.get(probe).copied().unwrap_or(0);
        for probe in probes {
            assert_eq!(count(&calm, probe), 0, "{name} without faults reached {probe}");
        }
        missing.retain(|probe| count(&faulty, probe) == 0);
        if missing.is_empty() {
            return;
        }
    }
    panic!("{name} never reached {missing:?}");
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
fn players_of_a_lost_gateway_are_welcomed_by_another_one() {
    for name in ["gateway-crash", "gateway-drain"] {
        let (faulty, calm) = with_and_without(name, 1);
        assert!(measured(&faulty, "reconnect") > 0 && measured(&calm, "reconnect") == 0, "{name}");
    }
    reached("gateway-drain", &["gateway.drained", "client.moved-gateway"]);
}

#[test]
fn who_is_cut_off_from_its_owner_goes_on_at_a_gateway_elsewhere() {
    reached("region-cut", &["gateway.owner-unreached", "client.moved-gateway"]);
}

#[test]
fn the_entities_of_a_lost_region_go_to_another_one() {
    reached("region-loss", &["orchestrator.region-down"]);
    let (faulty, calm) = with_and_without("region-loss", 1);
    assert!(measured(&faulty, "reconnect") > 0 && measured(&calm, "reconnect") == 0);
}

#[test]
fn a_lost_core_region_is_replaced_by_members_elsewhere() {
    reached("core-region-loss", &["worker.commit-unknown-resubmitted", "orchestrator.region-down"]);
    let (faulty, calm) = with_and_without("core-region-loss", 1);
    for timing in ["failover", "reconnect"] {
        assert!(measured(&faulty, timing) > 0 && measured(&calm, timing) == 0, "{timing}");
    }
}

#[test]
fn a_plan_that_was_cut_short_is_finished_by_the_next_leader() {
    reached("orchestrator-crash-midplan", &["orchestrator.succession"]);
}

#[test]
fn commits_that_a_lost_primary_left_open_are_submitted_to_the_next_one() {
    reached("ledger-failover", &["worker.commit-unknown-resubmitted"]);
    let (faulty, calm) = with_and_without("ledger-failover", 1);
    let longest = |run: &RunResult| run.timings["operation"].iter().max().copied().unwrap_or(0);
    assert!(longest(&faulty) > 30_000_000_000 && longest(&calm) < 5_000_000_000, "a standby is promoted after 30 s");
}

#[test]
fn who_leads_a_service_is_replaced_and_its_answers_are_asked_for_again() {
    reached("service-leaders-killed", &["worker.commit-unknown-resubmitted"]);
    let (faulty, calm) = with_and_without("service-leaders-killed", 1);
    let longest = |run: &RunResult, of: &str| run.timings[of].iter().max().copied().unwrap_or(0);
    assert!(longest(&faulty, "operation") > 30_000_000_000, "a standby is promoted after 30 s");
    assert!(longest(&faulty, "visibility") > 2 * longest(&calm, "visibility"), "the bus elects");
    assert_eq!(faulty.misses, []);
}

#[test]
fn who_leads_a_service_hands_over_and_what_was_under_way_is_asked_for_again() {
    reached("service-leaders-moved", &["worker.commit-unknown-resubmitted"]);
    let (faulty, calm) = with_and_without("service-leaders-moved", 1);
    let longest = |run: &RunResult| run.timings["operation"].iter().max().copied().unwrap_or(0);
    assert!(longest(&faulty) > 2 * longest(&calm), "{} and {}", longest(&faulty), longest(&calm));
    assert_eq!(faulty.misses, []);
}

#[test]
fn what_a_stalled_gateway_held_for_a_superseded_session_is_refused() {
    let runs = |faults: bool| {
        let all = SEEDS.map(|seed| with_and_without("two-gateways-one-player", seed));
        let one = all.map(|(faulty, calm)| if faults { faulty } else { calm });
        one.map(|run| run.probes.get("worker.stale-session-refused").copied().unwrap_or(0)).sum::<u64>()
    };
    let (faulty, calm) = (runs(true), runs(false));
    assert!(faulty > calm, "{faulty} with the stall, {calm} without");
}

#[test]
fn what_could_not_be_published_while_the_bus_was_away_is_relayed() {
    reached("bus-down", &["replica.bus-gap"]);
    let (faulty, calm) = with_and_without("bus-down", 1);
    let count = |run: &RunResult, probe: &str| run.probes.get(probe).copied().unwrap_or(0);
    let relayed = |run: &RunResult| count(run, "orchestrator.fact-relayed");
    assert!(relayed(&faulty) > 3 * relayed(&calm), "{} with the fault, {} without", relayed(&faulty), relayed(&calm));
}

#[test]
fn facts_that_come_again_are_taken_in_once() {
    let (faulty, calm) = with_and_without("bus-ack-lost", 1);
    let known = |run: &RunResult| run.probes.get("replica.fact-known").copied().unwrap_or(0);
    assert!(known(&faulty) > 10 * known(&calm), "{} with the faults, {} without", known(&faulty), known(&calm));
}

/// The owner dies either way; what matters is that the caches forget.
#[test]
fn who_takes_over_behind_a_wiped_cache_goes_on_from_the_ledger() {
    let scenario = catalogue::find("cache-wipe").expect("in the catalogue").expect("reads");
    let mut remembered = scenario.clone();
    remembered.faults.retain(|fault| matches!(fault.kind, FaultKind::Crash(_)));
    assert_eq!((scenario.faults.len(), remembered.faults.len()), (4, 1));
    for seed in SEEDS {
        let [wiped, remembered] =
            [&scenario, &remembered].map(|scenario| run::seed(scenario, seed, Options::default()));
        let taken = |run: &RunResult| {
            ["worker.checkpoint-in-cache", "worker.checkpoint-from-ledger"].map(|probe| run.probes[probe])
        };
        let ([cached, read], [cached_before, read_before]) = (taken(&wiped), taken(&remembered));
        assert!(cached == 0 && read > 0, "seed {seed}: {cached} from the cache, {read} from the ledger");
        assert!(
            cached_before > 0 && read_before == 0,
            "seed {seed}: {cached_before} from the cache, {read_before} from the ledger"
        );
    }
}

#[test]
fn a_region_that_loses_the_core_loses_its_leases_and_comes_back() {
    reached("core-unreachable", &["directory.lease-ended", "worker.fenced"]);
    let (faulty, calm) = with_and_without("core-unreachable", 1);
    assert!(measured(&faulty, "resume") > 0 && measured(&calm, "resume") == 0);
}

#[test]
fn revoked_tokens_end_their_sessions_and_are_refused_early_late_and_by_the_ledger() {
    reached(
        "token-revoked",
        &["client.barred", "gateway.session-revoked", "gateway.token-revoked", "gateway.token-revoked-early"],
    );
}

#[test]
fn a_gateway_that_does_not_hear_of_a_revocation_stops_passing_on_what_it_cannot_vouch_for() {
    reached("token-revoked-unheard", &["client.barred", "gateway.session-revoked"]);
}

/// Here the players are the fault: the same world with the same failures, and with honest players only, sends nobody away.
#[test]
fn who_goes_on_moving_too_fast_is_sent_away_and_nobody_honest_is_whatever_fails() {
    let scenario = catalogue::find("speed-hack").expect("in the catalogue").expect("reads");
    let mut honest = scenario.clone();
    honest.workload.speed_hack = 0;
    let mut refused = 0;
    for seed in SEEDS {
        let [cheats, honest] = [&scenario, &honest].map(|scenario| run::seed(scenario, seed, Options::default()));
        for probe in ["worker.bad-second", "worker.player-released", "gateway.player-closed", "client.barred"] {
            assert!(cheats.probes[probe] > 0, "{probe}, seed {seed}");
            assert_eq!(honest.probes[probe], 0, "{probe}, seed {seed}");
        }
        for run in [&cheats, &honest] {
            assert_eq!((&run.violation, &run.misses[..]), (&None, &[][..]), "seed {seed}");
        }
        refused += honest.probes["worker.speed-refused"];
    }
    assert!(refused > 0, "the rules refuse inputs of honest players too, where something fails");
}

#[test]
fn one_gateway_whose_clock_is_wrong_takes_nobody_in_and_ends_nobody() {
    reached("token-expiry", &["gateway.wall-clock-stepped"]);
}

/// Whom nothing reaches when it is sent away comes back, and is told then: so nobody is cut off here.
#[test]
fn who_was_sent_away_does_not_come_back() {
    let mut scenario = catalogue::find("speed-hack").expect("in the catalogue").expect("reads");
    scenario.faults.retain(|fault| !matches!(fault.kind, FaultKind::Cut { .. }));
    for seed in SEEDS {
        let run = run::seed(&scenario, seed, Options::default());
        let (sent_away, stays_away) = (run.probes["gateway.player-closed"], run.probes["client.barred"]);
        assert!(sent_away > 0, "seed {seed}");
        assert_eq!(sent_away, stays_away, "seed {seed}");
    }
}

/// Here tokens are what ends: the same world with the same failures, and with tokens that outlive it, turns nobody away for good.
#[test]
fn a_session_ends_with_its_token_while_the_ledger_is_silent_and_nobody_elses_does() {
    let scenario = catalogue::find("token-expiry").expect("in the catalogue").expect("reads");
    let mut lasting = scenario.clone();
    lasting.workload.short_tokens = 0;
    for seed in SEEDS {
        let [short, lasting] = [&scenario, &lasting].map(|scenario| run::seed(scenario, seed, Options::default()));
        for probe in ["gateway.session-expired", "client.barred"] {
            assert!(short.probes[probe] > 0, "{probe}, seed {seed}");
            assert_eq!(lasting.probes[probe], 0, "{probe}, seed {seed}");
        }
        for run in [&short, &lasting] {
            assert_eq!((&run.violation, &run.misses[..]), (&None, &[][..]), "seed {seed}");
        }
    }
}
