//! The hooks door: rare branches that a test run may force, and probes that count what was reached.
//!
//! A hook has two levels: it is active in some seeds, and where active it fires in some calls. In production none is ever
//! active. Names are checked at compile time against the lists here, so that a sweep can say which one it never reached.

/// Branches that a test run may force with [`crate::maybe!`].
pub const HOOKS: &[&str] = &[
    "worker.commit-small-batch",
    "worker.delay-commit-a-tick",
    "gateway.forget-route",
    "orchestrator.ask-twice",
    "facts.newer-build",
];

/// Places that [`crate::reached!`] counts.
pub const PROBES: &[&str] = &[
    "worker.claim-refused-went-higher",
    "worker.commit-unknown-resubmitted",
    "worker.commit-refused-by-fence",
    "worker.resumed-same-lease",
    "worker.fenced",
    "worker.stored-result-returned",
    "worker.effect-forwarded",
    "worker.digest-conflict",
    "worker.record-write-unknown",
    "worker.checkpoint-in-cache",
    "worker.checkpoint-from-ledger",
    "worker.stale-session-refused",
    "worker.speed-refused",
    "worker.bad-second",
    "worker.player-released",
    "worker.fact-left-to-relay",
    "gateway.redirected",
    "gateway.session-superseded",
    "gateway.token-refused",
    "gateway.token-revoked",
    "gateway.token-revoked-early",
    "gateway.wall-clock-stepped",
    "gateway.owner-from-cache",
    "gateway.session-revoked",
    "gateway.session-expired",
    "gateway.player-closed",
    "gateway.owner-unreached",
    "gateway.drained",
    "gateway.drain-cut-off",
    "replica.fact-known",
    "replica.fact-undecodable",
    "replica.gap-read",
    "replica.redelivered",
    "replica.bus-gap",
    "client.resumed",
    "client.resent",
    "client.moved-gateway",
    "client.barred",
    "orchestrator.takeover",
    "orchestrator.takeover-lost-race",
    "orchestrator.succession",
    "orchestrator.region-down",
    "orchestrator.region-back",
    "orchestrator.lost-leadership",
    "orchestrator.fact-relayed",
    "orchestrator.relay-backed-off",
];

/// Serves a role's hooks.
pub trait Hooks {
    /// Whether to take the rare branch now. `hook` indexes [`HOOKS`].
    fn maybe(&mut self, hook: usize) -> bool;
    /// Counts a place that was reached. `probe` indexes [`PROBES`].
    fn reached(&mut self, probe: usize);
}

/// No hook ever fires and nothing is counted: production.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHooks;

impl Hooks for NoHooks {
    fn maybe(&mut self, _: usize) -> bool {
        false
    }

    fn reached(&mut self, _: usize) {}
}

/// Where `name` stands in `list`. Evaluated at compile time by the macros, where an unknown name is a build error.
#[must_use]
pub const fn index(list: &[&str], name: &str) -> usize {
    let mut i = 0;
    while i < list.len() {
        if same(list[i].as_bytes(), name.as_bytes()) {
            return i;
        }
        i += 1;
    }
    panic!("no hook or probe has this name: add it to system/src/doors/hooks.rs")
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Whether to take a rare branch: `maybe!(turn, "worker.delay-commit-a-tick")`.
#[macro_export]
macro_rules! maybe {
    ($turn:expr, $name:literal) => {
        $turn.hooks().maybe(const { $crate::doors::hooks::index($crate::doors::hooks::HOOKS, $name) })
    };
}

/// Counts a rare place: `reached!(turn, "worker.fenced")`.
#[macro_export]
macro_rules! reached {
    ($turn:expr, $name:literal) => {
        $turn.hooks().reached(const { $crate::doors::hooks::index($crate::doors::hooks::PROBES, $name) })
    };
}
