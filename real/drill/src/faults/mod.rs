//! What a drill does for a fault of a scenario, and what it cannot do.
//!
//! The fault is the simulator's own: resolved by the same code, to the same nodes. Here each is turned into what can be done
//! to processes, links and services from outside; what cannot is named with its reason and left out, never pretended.
//!
//! One etcd stands for all members of the directory and one PostgreSQL for all members of the ledger. What befalls members
//! befalls the service if it befalls a majority of the directory, or the ledger's primary; else the service would go on, and
//! so the one process does.

mod deed;
mod effect;
mod reasons;

use crate::proxy::{statements::When, way::Degraded};
pub use deed::{Deed, Service, Target};
pub use effect::{Come, Effect, done_to_statements};
use reasons::why_not;
use std::{collections::BTreeSet, time::Duration};
use worldline_proto::{EntityId, LeaseId, NodeId};
use worldline_scenarios::{
    format::Scenario,
    inject::{Ending, Injection, Now, injection},
    nodes::{Kind, Nodes, Roles},
};
use worldline_sim::{Fault, directory, ledger};
use worldline_system::time;

/// What a drill does for one fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// When it comes, in this order.
    pub begin: Vec<Deed>,
    /// When it ends.
    pub end: Vec<Deed>,
    /// What is left out of it, and why.
    pub skipped: Vec<String>,
}

/// The nodes that stand for the services, and the members that they stand for.
#[derive(Clone, Debug)]
pub struct Members {
    directory: BTreeSet<NodeId>,
    ledger: BTreeSet<NodeId>,
}

impl Members {
    /// Of these nodes.
    #[must_use]
    pub fn of(nodes: &Nodes) -> Self {
        let those = |holds: fn(Kind) -> bool| nodes.those(holds).into_iter().collect();
        Self {
            directory: those(|kind| matches!(kind, Kind::Directory(_))),
            ledger: those(|kind| matches!(kind, Kind::Ledger(_))),
        }
    }

    /// The node by whose name a service's links go: its first member. The ledger's first member is its primary.
    #[must_use]
    pub fn stand_in(&self, service: Service) -> Option<NodeId> {
        match service {
            Service::Directory => self.directory.first().copied(),
            Service::Ledger => self.ledger.first().copied(),
        }
    }

    /// Which service a node is a member of.
    #[must_use]
    pub fn service(&self, node: NodeId) -> Option<Service> {
        let directory = self.directory.contains(&node).then_some(Service::Directory);
        directory.or(self.ledger.contains(&node).then_some(Service::Ledger))
    }

    /// The targets that these nodes are; for members that are too few, why they are none.
    fn targets(&self, nodes: &Nodes, which: &[NodeId]) -> (Vec<Target>, Vec<String>) {
        let runs = |node: NodeId| nodes.kind(node).is_some_and(runs);
        let roles = which.iter().filter(|node| self.service(**node).is_none() && runs(**node));
        let mut targets: Vec<Target> = roles.map(|&node| Target::Role(node)).collect();
        let mut skipped = Vec::new();
        // What is not there cannot be befallen; that is worth a word only where nothing else is meant.
        if !which.is_empty() && !which.iter().any(|&node| runs(node)) {
            let absent: Vec<_> = which.iter().map(|&node| nodes.name(node)).collect();
            skipped.push(format!("{} cannot be befallen: {}", absent.join(", "), reasons::NEITHER_BUS_NOR_CACHE));
        }
        for service in [Service::Directory, Service::Ledger] {
            let hit: Vec<NodeId> = which.iter().copied().filter(|&node| self.service(node) == Some(service)).collect();
            if hit.is_empty() {
                continue;
            }
            let out = match service {
                Service::Directory => hit.len() * 2 > self.directory.len(),
                Service::Ledger => self.stand_in(service).is_some_and(|primary| hit.contains(&primary)),
            };
            if out {
                targets.push(Target::Service(service));
            } else {
                let names: Vec<_> = hit.iter().map(|&node| nodes.name(node)).collect();
                let (names, is) = (names.join(", "), if hit.len() == 1 { "is" } else { "are" });
                let what = match service {
                    Service::Directory => format!("no majority of the {} members", self.directory.len()),
                    Service::Ledger => "not the primary".to_owned(),
                };
                skipped.push(format!(
                    "{names} {is} {what} that the one {service} stands for, which goes on as they would"
                ));
            }
        }
        (targets, skipped)
    }

    /// One side of a link: members as the node that stands for them.
    fn side(&self, nodes: &Nodes, which: &[NodeId]) -> (Vec<NodeId>, Vec<String>) {
        let (targets, skipped) = self.targets(nodes, which);
        let node = |target: Target| match target {
            Target::Role(node) => Some(node),
            Target::Service(service) => self.stand_in(service),
        };
        (targets.into_iter().filter_map(node).collect(), skipped)
    }

    /// What a drill does for a fault that the simulator would inject so.
    #[must_use]
    pub fn plan(&self, nodes: &Nodes, injection: &Injection) -> Plan {
        let mut plan = Plan::default();
        let mut whole: Vec<(Whole, Vec<NodeId>)> = Vec::new();
        for fault in &injection.begin {
            match fault {
                Fault::Crash { node } => gather(&mut whole, Whole::Crash, *node),
                Fault::Kill { node } => gather(&mut whole, Whole::Kill, *node),
                Fault::Stop { node } => gather(&mut whole, Whole::Stop, *node),
                Fault::Restart { node } => gather(&mut whole, Whole::Restart, *node),
                Fault::Pause { node } => gather(&mut whole, Whole::Pause, *node),
                other => self.other(nodes, other, &mut plan),
            }
        }
        for (how, which) in whole {
            let (targets, skipped) = self.targets(nodes, &which);
            plan.skipped.extend(skipped);
            for target in targets {
                plan.begin.push(match how {
                    Whole::Crash => Deed::Crash(target),
                    Whole::Kill => Deed::Kill(target),
                    Whole::Stop => Deed::Stop(target),
                    Whole::Restart => Deed::Restart(target),
                    Whole::Pause => Deed::Pause(target),
                });
            }
        }
        if !injection.end.is_empty() {
            plan.end = plan.begin.iter().filter_map(|deed| ending(deed, &injection.end)).collect();
        }
        plan
    }

    /// A fault that does not befall a process as a whole.
    fn other(&self, nodes: &Nodes, fault: &Fault, plan: &mut Plan) {
        let deed = match fault {
            Fault::Cut { id, from, to, both } => {
                let sides = self.sides(nodes, from, to, plan);
                sides.map(|(from, to)| Deed::Cut { id: *id, from, to, both: *both })
            }
            Fault::Degrade { id, from, to, both, loss_permille, duplicate_permille, delay, jitter } => {
                let how = Degraded {
                    loss_permille: *loss_permille,
                    duplicate_permille: *duplicate_permille,
                    delay: span(*delay),
                    jitter: span(*jitter),
                };
                let sides = self.sides(nodes, from, to, plan);
                sides.map(|(from, to)| Deed::Degrade { id: *id, from, to, both: *both, how })
            }
            Fault::Ledger(fault) => statement(fault).map_err(|why| plan.skipped.push(why)).ok(),
            Fault::Directory(directory::Fault::DelayRequests { from, by }) => {
                // Bytes to etcd that arrive later are requests that are looked at later, also when their caller has gone.
                let from = from.map_or_else(|| nodes.those(|kind| !service_kind(kind)), |node| vec![node]);
                let to = self.stand_in(Service::Directory).into_iter().collect();
                let how = Degraded { delay: span(*by), ..Degraded::default() };
                Some(Deed::Degrade { id: DELAYED_REQUESTS, from, to, both: false, how })
            }
            Fault::Directory(directory::Fault::RevokeEarly { lease }) => Some(Deed::Revoke(*lease)),
            Fault::Directory(directory::Fault::Compact) => Some(Deed::Compact),
            other => {
                plan.skipped.push(why_not(other));
                None
            }
        };
        plan.begin.extend(deed);
    }

    fn sides(
        &self,
        nodes: &Nodes,
        from: &[NodeId],
        to: &[NodeId],
        plan: &mut Plan,
    ) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        let ((from, mut skipped), (to, more)) = (self.side(nodes, from), self.side(nodes, to));
        skipped.extend(more);
        let apart = !from.is_empty() && !to.is_empty();
        plan.skipped.extend(skipped);
        apart.then_some((from, to))
    }
}

/// Names the delay of requests to the directory among the cuts: a scenario has at most 256 faults.
const DELAYED_REQUESTS: u32 = u32::MAX;

/// What befalls a process as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Crash,
    Kill,
    Stop,
    Restart,
    Pause,
}

fn gather(whole: &mut Vec<(Whole, Vec<NodeId>)>, how: Whole, node: NodeId) {
    match whole.iter_mut().find(|(known, _)| *known == how) {
        Some((_, nodes)) => nodes.push(node),
        None => whole.push((how, vec![node])),
    }
}

/// What ends a deed, if the fault has an end.
fn ending(deed: &Deed, end: &[Ending]) -> Option<Deed> {
    assert!(!end.is_empty(), "only a fault with an end is asked for it");
    Some(match deed {
        Deed::Crash(target) | Deed::Kill(target) | Deed::Stop(target) => Deed::StartIfDead(*target),
        Deed::Pause(target) => Deed::Resume(*target),
        Deed::Cut { id, .. } | Deed::Degrade { id, .. } => Deed::Mend(*id),
        Deed::LoseAnswers { from, .. } => Deed::LoseAnswers { from: *from, permille: 0, count: 0 },
        Deed::LoseConnections(_, when) => Deed::LoseConnections(0, *when),
        Deed::DelayCommits(from, _) => Deed::DelayCommits(*from, Duration::ZERO),
        Deed::Restart(_) | Deed::StartIfDead(_) | Deed::Resume(_) | Deed::Mend(_) | Deed::Revoke(_) | Deed::Compact => {
            return None;
        }
    })
}

/// Whether a drill has a process for such a node, or one that stands for it.
const fn runs(kind: Kind) -> bool {
    !matches!(kind, Kind::Bus(_) | Kind::Cache(..) | Kind::Replica(_))
}

const fn service_kind(kind: Kind) -> bool {
    matches!(kind, Kind::Directory(_) | Kind::Ledger(_))
}

const fn span(span: time::Duration) -> Duration {
    Duration::from_nanos(span.as_nanos())
}

/// What is done to the statements of a link, or why nothing can be.
fn statement(fault: &ledger::Fault) -> Result<Deed, String> {
    Ok(match *fault {
        ledger::Fault::LoseAnswers { from, permille, count } => Deed::LoseAnswers { from, permille, count },
        ledger::Fault::LoseConnections { permille, when } => Deed::LoseConnections(
            permille,
            match when {
                ledger::When::Before => When::Before,
                ledger::When::During => When::During,
                ledger::When::After => When::After,
            },
        ),
        ledger::Fault::DelayCommits { from, by } => Deed::DelayCommits(from, span(by)),
        ref other => return Err(why_not(&Fault::Ledger(*other))),
    })
}

/// Some roles, whoever they will be: enough to tell what of a fault can be provoked.
struct Anybody<'a>(&'a Nodes);

impl Anybody<'_> {
    fn first(&self, holds: fn(Kind) -> bool) -> Option<NodeId> {
        self.0.those(holds).first().copied()
    }
}

impl Roles for Anybody<'_> {
    fn orchestrator_leader(&self) -> Option<NodeId> {
        self.first(|kind| matches!(kind, Kind::Orchestrator(_)))
    }

    fn directory_leader(&self) -> Option<NodeId> {
        self.first(|kind| matches!(kind, Kind::Directory(_)))
    }

    fn ledger_primary(&self) -> Option<NodeId> {
        self.first(|kind| matches!(kind, Kind::Ledger(_)))
    }

    fn bus_leader(&self) -> Option<NodeId> {
        self.first(|kind| matches!(kind, Kind::Bus(_)))
    }

    fn owner(&self, _: EntityId) -> Option<NodeId> {
        self.first(|kind| matches!(kind, Kind::Worker(..)))
    }
}

impl Now for Anybody<'_> {
    fn lease(&self, node: NodeId) -> Option<LeaseId> {
        Some(LeaseId::from_bits(u64::from(node.0)))
    }
}

/// What a drill would do for every fault of a scenario, if the first of each kind of node led and owned.
fn plans(scenario: &Scenario, nodes: &Nodes) -> Vec<Plan> {
    let members = Members::of(nodes);
    let plan = |(index, fault): (usize, &worldline_scenarios::format::Fault)| {
        let injection = injection(index, &fault.kind, nodes, &Anybody(nodes));
        injection.map(|injection| members.plan(nodes, &injection)).unwrap_or_default()
    };
    scenario.faults.iter().enumerate().map(plan).collect()
}

/// The faults of a scenario that are left out, and why.
#[must_use]
pub fn left_out(scenario: &Scenario) -> Vec<String> {
    let plans = plans(scenario, &Nodes::of(scenario));
    let of = |(n, plan): (usize, Plan)| plan.skipped.into_iter().map(move |why| format!("fault {n}: {why}"));
    (1..).zip(plans).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_scenarios::{catalogue, format};

    fn plans(scenario: &Scenario) -> (Nodes, Vec<Plan>) {
        let nodes = Nodes::of(scenario);
        let plans = super::plans(scenario, &nodes);
        (nodes, plans)
    }

    fn of_catalogue(name: &str) -> (Nodes, Vec<Plan>) {
        plans(&catalogue::find(name).expect("in the catalogue").expect("reads"))
    }

    /// A scenario of the catalogue without its faults, and with this one.
    fn with_fault(fault: &str) -> (Nodes, Vec<Plan>) {
        let (_, text) = catalogue::FILES.iter().find(|(name, _)| *name == "swing").expect("in the catalogue");
        let (head, rest) = text.split_once("[[budget]]").expect("it has a budget");
        let text = format!("{head}\n[[fault]]\nat = \"5s\"\n{fault}\n\n[[budget]]{rest}");
        plans(&format::parse("swing.toml", &text).expect("reads"))
    }

    #[test]
    fn what_is_provoked_of_the_catalogue_and_what_is_left_out() {
        for name in catalogue::names() {
            let (_, plans) = of_catalogue(name);
            let provoked: Vec<usize> = plans.iter().map(|plan| plan.begin.len()).collect();
            let skipped: Vec<usize> = plans.iter().map(|plan| plan.skipped.len()).collect();
            let (expected, left_out): (&[usize], &[usize]) = match name {
                "swing" => (&[], &[]),
                "zombie-in-flight" => (&[1, 1, 1], &[0, 0, 0]),
                "zombie-slow-clock" => (&[0, 1, 0], &[1, 0, 1]),
                "zombie-outbox" => (&[0, 1], &[1, 0]),
                "gateway-drain" => (&[1, 1], &[0, 0]),
                "region-loss" => (&[4], &[0]),
                "core-region-loss" => (&[6], &[1]),
                "orchestrator-crash-midplan" => (&[1, 0], &[0, 1]),
                "bus-down" => (&[0], &[1]),
                "bus-ack-lost" => (&[0, 0, 0, 0], &[1, 1, 1, 1]),
                "cache-wipe" => (&[0, 1, 0, 0], &[1, 0, 1, 1]),
                _ => (&[1], &[0]),
            };
            assert_eq!((&provoked[..], &skipped[..]), (expected, left_out), "{name}");
        }
    }

    #[test]
    fn members_that_are_a_majority_are_the_service_and_others_are_left_out() {
        let (_, plans) = of_catalogue("directory-no-quorum");
        let etcd = Target::Service(Service::Directory);
        assert_eq!((&plans[0].begin, &plans[0].end), (&vec![Deed::Crash(etcd)], &vec![Deed::StartIfDead(etcd)]));
        let (_, plans) = with_fault("kind = \"crash\"\nnode = \"directory:1\"");
        assert_eq!(plans[0].begin, []);
        assert!(plans[0].skipped[0].contains("directory:1 is no majority of the 3 members"), "{:?}", plans[0].skipped);
        let (_, plans) = with_fault("kind = \"kill\"\nnode = [\"ledger:0\", \"directory:1\"]");
        assert_eq!(plans[0].begin, [Deed::Kill(Target::Service(Service::Ledger))]);
        assert_eq!(plans[0].skipped.len(), 1, "half of it is left out");
    }

    #[test]
    fn a_cut_from_the_core_is_one_from_what_stands_for_it() {
        let (nodes, plans) = of_catalogue("core-unreachable");
        let Deed::Cut { from, to, both, .. } = &plans[0].begin[0] else { panic!("{:?}", plans[0]) };
        let names = |ids: &[NodeId]| ids.iter().map(|&id| nodes.name(id).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(from).len(), 4);
        assert_eq!(names(to), ["orchestrator:0", "orchestrator:1", "directory:0", "ledger:0"]);
        assert!(both);
        assert!(matches!(plans[0].end[..], [Deed::Mend(0)]));
    }

    #[test]
    fn what_nobody_can_do_from_outside_says_why() {
        for (fault, why) in [
            ("kind = \"clock-step\"\nnode = \"worker:frankfurt:0\"\nby = \"3s\"", "the same clocks"),
            ("kind = \"hold-outbox\"\nnode = \"worker:frankfurt:0\"\nwhich = \"any\"", "a signal stops"),
            ("kind = \"ledger-switchover\"", "one PostgreSQL stands for"),
            ("kind = \"directory-leader-change\"", "one etcd stands for"),
        ] {
            let (_, plans) = with_fault(fault);
            assert_eq!(plans[0].begin, [], "{fault}");
            assert!(plans[0].skipped[0].contains(why), "{:?}", plans[0].skipped);
        }
    }
}
