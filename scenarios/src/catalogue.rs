//! The scenarios that come with the binary, so that it runs from anywhere.

use crate::format::{self, Problems, Scenario};

/// File names and texts, in the order of `worldline list`.
pub const FILES: &[(&str, &str)] = &[
    ("swing", include_str!("../catalogue/swing.toml")),
    ("speed-hack", include_str!("../catalogue/speed-hack.toml")),
    ("worker-crash", include_str!("../catalogue/worker-crash.toml")),
    ("zombie-paused", include_str!("../catalogue/zombie-paused.toml")),
    ("zombie-in-flight", include_str!("../catalogue/zombie-in-flight.toml")),
    ("zombie-slow-clock", include_str!("../catalogue/zombie-slow-clock.toml")),
    ("zombie-outbox", include_str!("../catalogue/zombie-outbox.toml")),
    ("lost-commit-ack", include_str!("../catalogue/lost-commit-ack.toml")),
    ("directory-no-quorum", include_str!("../catalogue/directory-no-quorum.toml")),
    ("core-unreachable", include_str!("../catalogue/core-unreachable.toml")),
    ("gateway-crash", include_str!("../catalogue/gateway-crash.toml")),
    ("gateway-drain", include_str!("../catalogue/gateway-drain.toml")),
    ("two-gateways-one-player", include_str!("../catalogue/two-gateways-one-player.toml")),
    ("region-cut", include_str!("../catalogue/region-cut.toml")),
    ("region-loss", include_str!("../catalogue/region-loss.toml")),
    ("core-region-loss", include_str!("../catalogue/core-region-loss.toml")),
    ("orchestrator-crash-midplan", include_str!("../catalogue/orchestrator-crash-midplan.toml")),
    ("ledger-failover", include_str!("../catalogue/ledger-failover.toml")),
    ("service-leaders-killed", include_str!("../catalogue/service-leaders-killed.toml")),
    ("service-leaders-moved", include_str!("../catalogue/service-leaders-moved.toml")),
    ("bus-down", include_str!("../catalogue/bus-down.toml")),
    ("bus-ack-lost", include_str!("../catalogue/bus-ack-lost.toml")),
    ("cache-wipe", include_str!("../catalogue/cache-wipe.toml")),
    ("token-revoked", include_str!("../catalogue/token-revoked.toml")),
    ("token-expiry", include_str!("../catalogue/token-expiry.toml")),
    ("token-revoked-unheard", include_str!("../catalogue/token-revoked-unheard.toml")),
];

/// The names of all of them.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The scenario of this name. `None` if there is none.
///
/// # Errors
/// What is wrong with the file: nothing, in a build whose tests have passed.
pub fn find(name: &str) -> Option<Result<Scenario, Problems>> {
    let (name, text) = FILES.iter().find(|(known, _)| *known == name)?;
    Some(format::parse(&format!("catalogue/{name}.toml"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_reads_and_is_called_as_its_scenario() {
        for name in names() {
            match find(name) {
                Some(Ok(scenario)) => assert_eq!(scenario.name, name),
                Some(Err(problems)) => panic!("{problems}"),
                None => panic!("{name} is in the list"),
            }
        }
    }
}
