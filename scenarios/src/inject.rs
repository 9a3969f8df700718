//! Faults of a scenario as faults of the simulator: selectors resolved, and how each ends.

use crate::{
    format::{
        BusFault, BusRequests, CacheFault, DirectoryFault, FaultKind, LedgerFault, Moment, Outbox, Requests, Selector,
    },
    nodes::{Kind, Nodes, Roles},
};
use worldline_proto::{LeaseId, NodeId};
use worldline_sim::{ClockFault, Fault, Which, bus, cache, directory, ledger};
use worldline_system::time::Duration;

/// What a fault of a scenario does now, and what ends it.
#[derive(Clone, Debug, Default)]
pub struct Injection {
    /// In this order.
    pub begin: Vec<Fault>,
    /// What ends it, if it has not ended by then.
    pub end: Vec<Ending>,
    /// The nodes that it takes out, or cuts off: what they serve is lost until another serves it.
    pub lost: Vec<NodeId>,
    /// The nodes that cannot be relied on while it goes on, though they run and are linked.
    pub unwell: Vec<NodeId>,
    /// The services that cannot be relied on while it goes on.
    pub services: Impaired,
}

/// Which services a fault impairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Impaired {
    /// The directory.
    pub directory: bool,
    /// The ledger.
    pub ledger: bool,
}

/// How a fault ends.
#[derive(Clone, Debug)]
pub enum Ending {
    /// By this, whatever has happened.
    Fault(Fault),
    /// The node starts again, if it is dead by then.
    StartIfDead(NodeId),
}

/// Who asks the world, when a fault comes.
pub trait Now: Roles {
    /// The lease of a worker or of the leading orchestrator.
    fn lease(&self, node: NodeId) -> Option<LeaseId>;
}

/// The injection of the `index`th fault of a scenario. `None` where a selector means nobody now.
pub fn injection(index: usize, kind: &FaultKind, nodes: &Nodes, now: &impl Now) -> Option<Injection> {
    let all = |selectors: &[Selector]| {
        let each: Vec<_> = selectors.iter().map(|&selector| nodes.selected(selector, now)).collect();
        let mut all: Vec<NodeId> = each.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        each.iter().all(|nodes| !nodes.is_empty()).then_some(all)
    };
    // Names a cut for its end. A scenario has at most 256 faults.
    let id = u32::try_from(index).unwrap_or(u32::MAX);
    let fault = |fault: Fault| Ending::Fault(fault);
    let clock = |node, clock| Fault::Clock { node, fault: clock };
    Some(match kind {
        FaultKind::Crash(at) => each(all(at)?, |node| Fault::Crash { node }, Ending::StartIfDead),
        FaultKind::Kill(at) => each(all(at)?, |node| Fault::Kill { node }, Ending::StartIfDead),
        // What it serves it gives back by itself: nothing is lost at once.
        FaultKind::Stop(at) => {
            Injection { lost: Vec::new(), ..each(all(at)?, |node| Fault::Stop { node }, Ending::StartIfDead) }
        }
        FaultKind::Restart(at) => {
            Injection { end: Vec::new(), ..each(all(at)?, |node| Fault::Restart { node }, Ending::StartIfDead) }
        }
        FaultKind::Pause(at) => each(all(at)?, |node| Fault::Pause { node }, |node| fault(Fault::Resume { node })),
        FaultKind::Slow(at, permille) => Injection {
            lost: Vec::new(),
            ..each(
                all(at)?,
                |node| Fault::Slow { node, permille: *permille },
                |node| fault(Fault::Slow { node, permille: 1_000 }),
            )
        },
        FaultKind::CrashBetweenSubmissions(at, n, which) => Injection {
            // It is lost when it crashes, and the history tells when that is.
            lost: Vec::new(),
            ..each(
                all(at)?,
                |node| Fault::CrashAfterSubmissions { node, which: these(*which), n: *n },
                Ending::StartIfDead,
            )
        },
        FaultKind::HoldOutbox(at, which) => {
            let which = these(*which);
            each(all(at)?, |node| Fault::HoldOutbox { node, which }, |node| fault(Fault::Resume { node }))
        }
        FaultKind::ClockStep(at, by) => Injection {
            end: Vec::new(),
            lost: Vec::new(),
            ..each(all(at)?, |node| clock(node, ClockFault::StepForward(*by)), Ending::StartIfDead)
        },
        FaultKind::ClockDrift(at, ppm) => Injection {
            lost: Vec::new(),
            ..each(
                all(at)?,
                |node| clock(node, ClockFault::Drift { ppm: *ppm }),
                |node| fault(clock(node, ClockFault::Drift { ppm: 0 })),
            )
        },
        FaultKind::ClockFreeze(at) => {
            each(all(at)?, |node| clock(node, ClockFault::Freeze), |node| fault(clock(node, ClockFault::Unfreeze)))
        }
        FaultKind::WallStep(at, by_ns) => Injection {
            end: Vec::new(),
            lost: Vec::new(),
            ..each(all(at)?, |node| clock(node, ClockFault::StepWall { by_ns: *by_ns }), Ending::StartIfDead)
        },
        // Nothing is lost by it that should not be.
        FaultKind::RevokeTokens(_) => {
            let commands = nodes.those(|kind| matches!(kind, Kind::Operator(at, _) if at == index));
            let begin = commands.into_iter().map(|node| Fault::Restart { node }).collect();
            Injection { begin, ..Injection::default() }
        }
        FaultKind::Cut { from, to, one_way } => {
            let (from, to) = (all(from)?, all(to)?);
            // Who is cut off from directory or ledger cannot go on serving.
            let core = |side: &[NodeId]| {
                side.iter().any(|&node| matches!(nodes.kind(node), Some(Kind::Directory(_) | Kind::Ledger(_))))
            };
            let lost = match (core(&from), core(&to)) {
                (false, true) => from.clone(),
                (true, false) => to.clone(),
                _ => Vec::new(),
            };
            let begin = vec![Fault::Cut { id, from, to, both: !one_way }];
            Injection { begin, end: vec![fault(Fault::Uncut { id })], lost, ..Injection::default() }
        }
        FaultKind::Degrade { from, to, one_way, loss, duplicate, delay, jitter } => {
            let begin = vec![Fault::Degrade {
                id,
                from: all(from)?,
                to: all(to)?,
                both: !one_way,
                loss_permille: u32::from(*loss),
                duplicate_permille: u32::from(*duplicate),
                delay: *delay,
                jitter: *jitter,
            }];
            let services = Impaired { directory: true, ledger: true };
            Injection { begin, end: vec![fault(Fault::Uncut { id })], services, ..Injection::default() }
        }
        FaultKind::Ledger(what) => {
            let (begin, end) = ledger(what, |selector| all(&[selector])?.first().copied())?;
            Injection {
                begin: vec![Fault::Ledger(begin)],
                end: end.map(|end| fault(Fault::Ledger(end))).into_iter().collect(),
                services: Impaired { ledger: true, ..Impaired::default() },
                ..Injection::default()
            }
        }
        // Neither bus nor cache is needed for anything but speed: nobody is excused for them.
        FaultKind::Bus(what) => {
            let (begin, end) = bus(what, |selector| all(&[selector])?.first().copied())?;
            Injection {
                begin: vec![Fault::Bus(begin)],
                end: end.map(|end| fault(Fault::Bus(end))).into_iter().collect(),
                ..Injection::default()
            }
        }
        FaultKind::Cache(what) => {
            let (begin, end) = cache(what, |selector| all(&[selector])?.first().copied())?;
            Injection {
                begin: vec![Fault::Cache(begin)],
                end: end.map(|end| fault(Fault::Cache(end))).into_iter().collect(),
                ..Injection::default()
            }
        }
        FaultKind::Directory(what) => {
            let one = |selector| all(&[selector])?.first().copied();
            let (begin, end) = directory(what, one, |node| now.lease(node))?;
            Injection {
                begin: vec![Fault::Directory(begin)],
                end: end.map(|end| fault(Fault::Directory(end))).into_iter().collect(),
                services: Impaired { directory: true, ..Impaired::default() },
                ..Injection::default()
            }
        }
    })
}

const fn these(which: Outbox) -> Which {
    match which {
        Outbox::Any => Which::Any,
        Outbox::LedgerCommit => Which::LedgerCommit,
        Outbox::DirectoryTransaction => Which::DirectoryTransaction,
    }
}

/// A fault at each node.
fn each(nodes: Vec<NodeId>, begin: impl Fn(NodeId) -> Fault, end: impl Fn(NodeId) -> Ending) -> Injection {
    Injection {
        begin: nodes.iter().copied().map(begin).collect(),
        end: nodes.iter().copied().map(end).collect(),
        lost: nodes.clone(),
        unwell: nodes,
        services: Impaired::default(),
    }
}

/// The caller whom a fault concerns; the outer `None` where it is somebody, and nobody is he now.
fn caller(from: Option<Selector>, one: impl Fn(Selector) -> Option<NodeId>) -> Option<Option<NodeId>> {
    match from {
        Some(selector) => one(selector).map(Some),
        None => Some(None),
    }
}

fn ledger(
    fault: &LedgerFault,
    one: impl Fn(Selector) -> Option<NodeId>,
) -> Option<(ledger::Fault, Option<ledger::Fault>)> {
    use ledger::{Fault as F, When};
    Some(match *fault {
        LedgerFault::LoseAnswers { from, share, count } => {
            let lose = |permille| Some(F::LoseAnswers { from: caller(from, &one)?, permille, count });
            (lose(share)?, lose(0))
        }
        LedgerFault::LoseConnections { share, when } => {
            let when = match when {
                Moment::Before => When::Before,
                Moment::During => When::During,
                Moment::After => When::After,
            };
            (F::LoseConnections { permille: share, when }, Some(F::LoseConnections { permille: 0, when }))
        }
        LedgerFault::DelayCommits { from, by } => {
            let from = caller(from, one)?;
            let none = Duration::ZERO;
            (F::DelayCommits { from, by }, Some(F::DelayCommits { from, by: none }))
        }
        LedgerFault::Conflicts { serialization, deadlock } => (
            F::Conflicts { serialization, deadlock, contended: 0 },
            Some(F::Conflicts { serialization: 0, deadlock: 0, contended: 0 }),
        ),
        LedgerFault::SlowDisk { times } => {
            let slow = |factor_permille| F::SlowDisk { member: None, factor_permille };
            (slow(times * 1_000), Some(slow(1_000)))
        }
        LedgerFault::DisksLie => {
            (F::DisksLie { member: None, on: true }, Some(F::DisksLie { member: None, on: false }))
        }
        LedgerFault::ReadOnly => (F::ReadOnly { on: true }, Some(F::ReadOnly { on: false })),
        LedgerFault::DiskFull => (F::DiskFull { on: true }, Some(F::DiskFull { on: false })),
        LedgerFault::Switchover => (F::Switchover, None),
    })
}

fn bus(fault: &BusFault, one: impl Fn(Selector) -> Option<NodeId>) -> Option<(bus::Fault, Option<bus::Fault>)> {
    use bus::{Fault as F, Which};
    let which = |of: BusRequests| match of {
        BusRequests::All => Which::All,
        BusRequests::Publishes => Which::Publishes,
        BusRequests::Acknowledgements => Which::Acknowledgements,
    };
    Some(match *fault {
        BusFault::LeaderChange => (F::LeaderChange, None),
        BusFault::LoseAnswers { from, of, share } => {
            let (from, of) = (caller(from, one)?, which(of));
            (F::LoseAnswers { from, of, permille: share }, Some(F::LoseAnswers { from, of, permille: 0 }))
        }
        BusFault::LoseRequests { from, of, share } => {
            let (from, of) = (caller(from, one)?, which(of));
            (F::LoseRequests { from, of, permille: share }, Some(F::LoseRequests { from, of, permille: 0 }))
        }
        BusFault::DelayDeliveries { by } => {
            (F::DelayDeliveries { by }, Some(F::DelayDeliveries { by: Duration::ZERO }))
        }
        BusFault::Disconnect { from } => (F::Disconnect { from: caller(from, one)? }, None),
        BusFault::Rewind(by) => (F::RewindConsumers { by: by.into() }, None),
        BusFault::EndConsumers => (F::EndConsumers, None),
        BusFault::ForgetIds => (F::ForgetIds, None),
        BusFault::Purge => (F::Purge, None),
        BusFault::Full => (F::Full { on: true }, Some(F::Full { on: false })),
    })
}

fn cache(fault: &CacheFault, one: impl Fn(Selector) -> Option<NodeId>) -> Option<(cache::Fault, Option<cache::Fault>)> {
    use cache::Fault as F;
    Some(match *fault {
        CacheFault::Flush(region) => (F::Flush { region }, None),
        CacheFault::Evict(region, permille) => (F::Evict { region, permille }, None),
        CacheFault::WrongTypes(region, permille) => (F::WrongTypes { region, permille }, None),
        CacheFault::Failover(region) => (F::Failover { region }, None),
        CacheFault::DelayReplication(by) => {
            (F::DelayReplication { by }, Some(F::DelayReplication { by: Duration::ZERO }))
        }
        CacheFault::DelayRequests { from, by } => {
            let from = caller(from, one)?;
            (F::DelayRequests { from, by }, Some(F::DelayRequests { from, by: Duration::ZERO }))
        }
        CacheFault::LoseAnswers { from, share } => {
            let from = caller(from, one)?;
            (F::LoseAnswers { from, permille: share }, Some(F::LoseAnswers { from, permille: 0 }))
        }
    })
}

fn directory(
    fault: &DirectoryFault,
    one: impl Fn(Selector) -> Option<NodeId>,
    lease: impl Fn(NodeId) -> Option<LeaseId>,
) -> Option<(directory::Fault, Option<directory::Fault>)> {
    use directory::{Fault as F, Which};
    let none = Duration::ZERO;
    Some(match *fault {
        DirectoryFault::LeaderChange => (F::LeaderChange, None),
        DirectoryFault::LoseAnswers { from, of, share } => {
            let from = caller(from, one)?;
            let of = match of {
                Requests::All => Which::All,
                Requests::Grants => Which::Grants,
                Requests::Renewals => Which::Renewals,
                Requests::Transactions => Which::Transactions,
            };
            (F::LoseAnswers { from, of, permille: share }, Some(F::LoseAnswers { from, of, permille: 0 }))
        }
        DirectoryFault::DelayRequests { from, by } => {
            let from = caller(from, one)?;
            (F::DelayRequests { from, by }, Some(F::DelayRequests { from, by: none }))
        }
        DirectoryFault::DelayNews { by } => (F::DelayNews { by }, Some(F::DelayNews { by: none })),
        DirectoryFault::RevokeEarly(selector) => (F::RevokeEarly { lease: lease(one(selector)?)? }, None),
        DirectoryFault::CancelWatches => (F::CancelWatches, None),
        DirectoryFault::Compact => (F::Compact, None),
        DirectoryFault::DatabaseFull => (F::DatabaseFull { on: true }, Some(F::DatabaseFull { on: false })),
        DirectoryFault::RestoreBackup { age } => (F::RestoreBackup { age }, None),
        DirectoryFault::SlowDisk { times } => {
            let slow = |factor_permille| F::SlowDisk { member: None, factor_permille };
            (slow(times * 1_000), Some(slow(1_000)))
        }
        DirectoryFault::DisksLie => {
            (F::DisksLie { member: None, on: true }, Some(F::DisksLie { member: None, on: false }))
        }
    })
}
