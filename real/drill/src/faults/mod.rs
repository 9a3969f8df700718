//! What a drill does for a fault of a scenario, and what it cannot do.
//!
//! The fault is the simulator's own: resolved by the same code, to the same nodes. Here each is turned into what can be done
//! to processes, links and services from outside; what cannot is named with its reason and left out, never pretended.
//!
//! Unless members of a service take over from others ([`wants_cluster`]) or it is told to, a drill starts one etcd for all members
//! of the directory, one PostgreSQL for all of the ledger, one NATS for all of the bus. What befalls members then befalls the service
//! if it befalls a majority of the directory or the bus, or the primary of the ledger; else the service would go on, and so the one
//! process does. On a cluster each member is a process of its own. One Valkey stands for the servers of a region's cache in any case
//! (`reports/decisions/0006-one-etcd-stands-for-all.md`, `0013-names-are-forgotten-on-the-way.md`, `0014-members-as-processes.md`).

mod deed;
mod effect;
mod members;
mod reasons;

use crate::proxy::{requests::Harm, statements::When, way::Degraded};
pub use deed::{Deed, Loss, Service, Target};
pub use effect::{Come, Counts, Effect, done_on_links};
pub use members::{Members, Server};
use reasons::why_not;
use std::time::Duration;
use worldline_proto::{EntityId, LeaseId, NodeId};
use worldline_scenarios::{
    format::Scenario,
    inject::{Ending, Injection, Now, injection},
    nodes::{Kind, Nodes, Roles},
};
use worldline_sim::{Fault, Which, bus, cache, directory, ledger};
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

impl Members {
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
                Fault::Restart { node } if matches!(nodes.kind(*node), Some(Kind::Operator(..))) => {
                    plan.begin.push(Deed::Command(*node));
                }
                Fault::Restart { node } => gather(&mut whole, Whole::Restart, *node),
                Fault::Pause { node } => gather(&mut whole, Whole::Pause, *node),
                other => self.other(nodes, other, &mut plan),
            }
        }
        for (how, which) in whole {
            let (targets, skipped) = self.targets(nodes, &which);
            plan.skipped.extend(skipped);
            for target in targets {
                plan.begin.push(match (how, target) {
                    (Whole::Crash, _) => Deed::Crash(target),
                    // What a service does when it is stopped in order, nobody sees but that it is gone.
                    (Whole::Kill, _) | (Whole::Stop, Target::Service(_) | Target::Member(_)) => Deed::Kill(target),
                    (Whole::Stop, Target::Role(_)) => Deed::Stop(target),
                    (Whole::Restart, _) => Deed::Restart(target),
                    (Whole::Pause, _) => Deed::Pause(target),
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
            Fault::Directory(directory::Fault::LeaderChange) => self.hand_over(Service::Directory, plan),
            Fault::Bus(bus::Fault::LeaderChange) => self.hand_over(Service::Bus, plan),
            Fault::Ledger(ledger::Fault::Switchover) => self.hand_over(Service::Ledger, plan),
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
                let to = self.of_service(Service::Directory).collect();
                Some(late(nodes, DELAYED_REQUESTS, *from, to, *by))
            }
            Fault::Cache(cache::Fault::DelayRequests { from, by }) => {
                let caches = self.services().filter(|service| matches!(service, Service::Cache(_)));
                let to = caches.filter_map(|cache| self.stand_in(cache)).collect();
                Some(late(nodes, DELAYED_LOOKUPS, *from, to, *by))
            }
            Fault::Bus(fault) => bus_deed(fault).or_else(|| {
                plan.skipped.push(why_not(&Fault::Bus(*fault)));
                None
            }),
            Fault::Cache(fault) => cache_deed(fault).or_else(|| {
                plan.skipped.push(why_not(&Fault::Cache(*fault)));
                None
            }),
            Fault::Directory(directory::Fault::RevokeEarly { lease }) => Some(Deed::Revoke(*lease)),
            // What is submitted is seen on the link, so its middle can be hit there.
            Fault::CrashAfterSubmissions { node, which: Which::DirectoryTransaction, n } => {
                Some(Deed::CrashBetweenTransactions(*node, *n))
            }
            Fault::Directory(directory::Fault::Compact) => Some(Deed::Compact),
            other => {
                plan.skipped.push(why_not(other));
                None
            }
        };
        plan.begin.extend(deed);
    }

    /// Who leads hands over, if there is somebody to hand over to.
    fn hand_over(&self, service: Service, plan: &mut Plan) -> Option<Deed> {
        if self.clustered(service) {
            return Some(Deed::HandOver(service));
        }
        plan.skipped.push(format!("the one {service} has nobody to hand over to: the scenario has too few members"));
        None
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
/// The same of requests to the caches.
const DELAYED_LOOKUPS: u32 = u32::MAX - 1;

/// What one node, or every one, sends there arrives later.
fn late(nodes: &Nodes, id: u32, from: Option<NodeId>, to: Vec<NodeId>, by: time::Duration) -> Deed {
    let from = from.map_or_else(|| nodes.those(|kind| Service::of(kind).is_none()), |node| vec![node]);
    Deed::Degrade { id, from, to, both: false, how: Degraded { delay: span(by), ..Degraded::default() } }
}

/// What is done to the bus beyond its process, if anything can be.
fn bus_deed(fault: &bus::Fault) -> Option<Deed> {
    Some(match *fault {
        bus::Fault::LoseAnswers { from, of, permille } => Deed::Requests(Harm::LoseAnswers { from, of, permille }),
        bus::Fault::LoseRequests { from, of, permille } => Deed::Requests(Harm::LoseRequests { from, of, permille }),
        bus::Fault::DelayDeliveries { by } => Deed::Requests(Harm::DelayDeliveries(span(by))),
        bus::Fault::Disconnect { from } => Deed::Disconnect(from),
        bus::Fault::RewindConsumers { by } => Deed::Rewind(by),
        bus::Fault::EndConsumers => Deed::EndConsumers,
        bus::Fault::ForgetIds => Deed::ForgetNames,
        bus::Fault::LeaderChange | bus::Fault::Purge | bus::Fault::Full { .. } => return None,
    })
}

/// What is done to a cache beyond its process, if anything can be.
fn cache_deed(fault: &cache::Fault) -> Option<Deed> {
    Some(match *fault {
        cache::Fault::Flush { region } => Deed::Cache(region, Loss::All),
        cache::Fault::Evict { region, permille } => Deed::Cache(region, Loss::Some(permille)),
        cache::Fault::WrongTypes { region, permille } => Deed::Cache(region, Loss::Types(permille)),
        _ => return None,
    })
}

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
        Deed::CrashBetweenTransactions(node, _) => Deed::StartIfDead(Target::Role(*node)),
        Deed::Pause(target) => Deed::Resume(*target),
        Deed::Cut { id, .. } | Deed::Degrade { id, .. } => Deed::Mend(*id),
        Deed::LoseAnswers { from, .. } => Deed::LoseAnswers { from: *from, permille: 0, count: 0 },
        Deed::LoseConnections(_, when) => Deed::LoseConnections(0, *when),
        Deed::DelayCommits(from, _) => Deed::DelayCommits(*from, Duration::ZERO),
        Deed::Requests(harm) => Deed::Requests(harm.over()),
        Deed::Restart(_)
        | Deed::StartIfDead(_)
        | Deed::Resume(_)
        | Deed::Mend(_)
        | Deed::HandOver(_)
        | Deed::Revoke(_)
        | Deed::Compact
        | Deed::Disconnect(_)
        | Deed::ForgetNames
        | Deed::Rewind(_)
        | Deed::EndConsumers
        | Deed::Command(_)
        | Deed::Cache(..) => return None,
    })
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

/// What the faults of a scenario inject, if the first of each kind of node led and owned; and how long each lasts.
fn injections<'a>(
    scenario: &'a Scenario,
    nodes: &'a Nodes,
) -> impl Iterator<Item = (Option<Injection>, Option<time::Duration>)> + 'a {
    let faults = scenario.faults.iter().enumerate();
    faults.map(|(index, fault)| (injection(index, &fault.kind, nodes, &Anybody(nodes)), fault.lasts))
}

/// What a drill would do for every fault of a scenario, if the first of each kind of node led and owned.
fn plans(scenario: &Scenario, nodes: &Nodes, cluster: bool) -> Vec<Plan> {
    let members = Members::of(nodes, cluster);
    let plan = |injection: Injection| members.plan(nodes, &injection);
    injections(scenario, nodes).map(|(injection, _)| injection.map(plan).unwrap_or_default()).collect()
}

/// Whether a fault of the scenario ends members of a service so that others take over from them: what one process for all of them
/// cannot show.
#[must_use]
pub fn wants_cluster(scenario: &Scenario) -> bool {
    let nodes = Nodes::of(scenario);
    let members = Members::of(&nodes, true);
    let mut injections = injections(scenario, &nodes);
    injections.any(|(injection, lasts)| injection.is_some_and(|injection| members.others_take_over(&injection, lasts)))
}

/// How long a primary of the ledger is missing before another is promoted: as long as in the simulator.
#[must_use]
pub fn detection() -> time::Duration {
    ledger::Config::new(Vec::new(), Vec::new()).detection
}

/// Whether a fault that ends after so long, or never, goes on until another primary is promoted.
fn last_longer_than_detection(lasts: Option<time::Duration>) -> bool {
    lasts.is_none_or(|lasts| lasts >= detection())
}

/// The faults of a scenario that are left out, and why.
#[must_use]
pub fn left_out(scenario: &Scenario, cluster: bool) -> Vec<String> {
    let plans = plans(scenario, &Nodes::of(scenario), cluster || wants_cluster(scenario));
    let of = |(n, plan): (usize, Plan)| plan.skipped.into_iter().map(move |why| format!("fault {n}: {why}"));
    (1..).zip(plans).flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_scenarios::{catalogue, format};

    fn plans(scenario: &Scenario) -> (Nodes, Vec<Plan>) {
        let nodes = Nodes::of(scenario);
        let plans = super::plans(scenario, &nodes, wants_cluster(scenario));
        (nodes, plans)
    }

    fn of_catalogue(name: &str) -> (Nodes, Vec<Plan>) {
        plans(&catalogue::find(name).expect("in the catalogue").expect("reads"))
    }

    /// A scenario of the catalogue without its faults, and with this one.
    fn swing_with(fault: &str) -> Scenario {
        let (_, text) = catalogue::FILES.iter().find(|(name, _)| *name == "swing").expect("in the catalogue");
        let (head, rest) = text.split_once("[[budget]]").expect("it has a budget");
        let text = format!("{head}\n[[fault]]\nat = \"5s\"\n{fault}\n\n[[budget]]{rest}");
        format::parse("swing.toml", &text).expect("reads")
    }

    fn with_fault(fault: &str) -> (Nodes, Vec<Plan>) {
        plans(&swing_with(fault))
    }

    #[test]
    fn what_is_provoked_of_the_catalogue_and_what_is_left_out() {
        for name in catalogue::names() {
            let (_, plans) = of_catalogue(name);
            let provoked: Vec<usize> = plans.iter().map(|plan| plan.begin.len()).collect();
            let skipped: Vec<usize> = plans.iter().map(|plan| plan.skipped.len()).collect();
            let (expected, left_out): (&[usize], &[usize]) = match name {
                "swing" => (&[], &[]),
                "speed-hack" => (&[1, 1, 1, 1], &[0, 0, 0, 0]),
                "zombie-in-flight" => (&[1, 1, 1], &[0, 0, 0]),
                "zombie-slow-clock" => (&[0, 1, 0], &[1, 0, 1]),
                "zombie-outbox" => (&[0, 1], &[1, 0]),
                "gateway-drain" => (&[1, 1], &[0, 0]),
                "region-loss" => (&[6], &[0]),
                "core-region-loss" => (&[11], &[0]),
                "orchestrator-crash-midplan" => (&[1, 1], &[0, 0]),
                "bus-ack-lost" => (&[1, 1, 1, 1], &[0, 0, 0, 0]),
                "cache-wipe" => (&[1, 1, 1, 1], &[0, 0, 0, 0]),
                "token-revoked" => (&[3, 1, 2, 1, 0, 1, 3, 1, 1], &[0, 0, 0, 0, 1, 0, 0, 0, 0]),
                "token-expiry" => (&[0, 1, 1, 1], &[1, 0, 0, 0]),
                "token-revoked-unheard" => (&[1, 3], &[0, 0]),
                "service-leaders-killed" | "service-leaders-moved" => (&[1, 1, 1], &[0, 0, 0]),
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
        let alone = |fault: &str| {
            let scenario = swing_with(fault);
            super::plans(&scenario, &Nodes::of(&scenario), false)
        };
        let plans = alone("kind = \"crash\"\nnode = \"directory:1\"");
        assert_eq!(plans[0].begin, []);
        assert!(plans[0].skipped[0].contains("directory:1 is no majority of the 3 members"), "{:?}", plans[0].skipped);
        let plans = alone("kind = \"kill\"\nnode = [\"ledger:0\", \"directory:1\"]");
        assert_eq!(plans[0].begin, [Deed::Kill(Target::Service(Service::Ledger))]);
        assert_eq!(plans[0].skipped.len(), 1, "half of it is left out");
    }

    #[test]
    fn a_scenario_in_which_members_take_over_from_others_is_drilled_on_a_cluster() {
        let wants = |name: &&str| wants_cluster(&catalogue::find(name).expect("in the catalogue").expect("reads"));
        let clustered: Vec<&str> = catalogue::names().filter(wants).collect();
        assert_eq!(
            clustered,
            [
                "core-region-loss",
                "ledger-failover",
                "service-leaders-killed",
                "service-leaders-moved",
                "token-revoked",
                "token-expiry"
            ]
        );
        let with = |fault: &str| with_fault(fault).1.remove(0).begin;
        let nodes = Nodes::of(&catalogue::find("swing").expect("in the catalogue").expect("reads"));
        let member = |name: &str| nodes.iter().find(|(_, node)| node.name == name).map(|(id, _)| Target::Member(id));
        let leader = with("kind = \"crash\"\nnode = \"directory:leader\"");
        assert_eq!(leader, [Deed::Crash(member("directory:0").expect("a member"))]);
        let ledger = Target::Service(Service::Ledger);
        assert_eq!(with("kind = \"crash\"\nnode = \"ledger:primary\"\nfor = \"10s\""), [Deed::Crash(ledger)]);
        let plans = plans(&catalogue::find("ledger-failover").expect("there").expect("reads")).1;
        assert!(matches!(plans[0].begin[..], [Deed::Crash(Target::Member(_))]), "{plans:?}");
    }

    #[test]
    fn who_leads_hands_over_on_a_cluster_if_there_is_somebody_to_hand_over_to() {
        for (fault, service) in [
            ("ledger-switchover", Service::Ledger),
            ("directory-leader-change", Service::Directory),
            ("bus-leader-change", Service::Bus),
        ] {
            let mut scenario = swing_with(&format!("kind = \"{fault}\""));
            assert!(wants_cluster(&scenario), "{fault}");
            assert_eq!(plans(&scenario).1[0].begin, [Deed::HandOver(service)]);
            (scenario.core.ledger, scenario.core.directory, scenario.core.bus) = (1, 1, 1);
            assert!(!wants_cluster(&scenario), "{fault}");
            let alone = plans(&scenario).1.remove(0);
            assert!(alone.begin.is_empty() && alone.skipped[0].contains("nobody to hand over to"), "{alone:?}");
        }
    }

    #[test]
    fn bus_and_caches_are_befallen_as_processes_and_in_what_they_are_asked() {
        let (_, plans) = of_catalogue("bus-down");
        let nats = Target::Service(Service::Bus);
        assert_eq!((&plans[0].begin, &plans[0].end), (&vec![Deed::Crash(nats)], &vec![Deed::StartIfDead(nats)]));
        let (nodes, plans) = with_fault("kind = \"pause\"\nnode = \"cache:frankfurt:0\"\nfor = \"3s\"");
        assert_eq!(plans[0].begin, [Deed::Pause(Target::Service(Service::Cache(1)))]);
        assert_eq!(plans[0].begin[0].told(&nodes), "Valkey (cache:frankfurt:0) is stopped (SIGSTOP)");
        let (_, plans) = with_fault("kind = \"cache-flush\"\nregion = \"frankfurt\"");
        assert_eq!(plans[0].begin, [Deed::Cache(Some(1), Loss::All)]);
        let (_, plans) = with_fault("kind = \"bus-delay-deliveries\"\nby = \"1s\"\nfor = \"5s\"");
        let late = |seconds| Deed::Requests(Harm::DelayDeliveries(Duration::from_secs(seconds)));
        assert_eq!((&plans[0].begin, &plans[0].end), (&vec![late(1)], &vec![late(0)]));
        let (_, plans) = with_fault("kind = \"crash\"\nnode = \"replica:frankfurt\"");
        assert!(matches!(plans[0].begin[..], [Deed::Crash(Target::Role(_))]));
    }

    #[test]
    fn a_cut_from_the_core_is_one_from_what_stands_for_it() {
        let (nodes, plans) = of_catalogue("core-unreachable");
        let Deed::Cut { from, to, both, .. } = &plans[0].begin[0] else { panic!("{:?}", plans[0]) };
        let names = |ids: &[NodeId]| ids.iter().map(|&id| nodes.name(id).to_owned()).collect::<Vec<_>>();
        assert_eq!(names(from).len(), 2 + 2 + 1 + 1, "workers, gateways, the replica, the cache");
        assert_eq!(names(to), ["orchestrator:0", "orchestrator:1", "directory:0", "ledger:0", "bus:0"]);
        assert!(both);
        assert!(matches!(plans[0].end[..], [Deed::Mend(0)]));
    }

    #[test]
    fn what_nobody_can_do_from_outside_says_why() {
        for (fault, why) in [
            ("kind = \"clock-step\"\nnode = \"worker:frankfurt:0\"\nby = \"3s\"", "the same clocks"),
            ("kind = \"hold-outbox\"\nnode = \"worker:frankfurt:0\"\nwhich = \"any\"", "a signal stops"),
            (
                "kind = \"crash-between-submissions\"\nnode = \"worker:frankfurt:0\"\nafter = 1\nwhich = \"ledger-commit\"",
                "a signal kills",
            ),
            ("kind = \"crash\"\nnode = \"cache:frankfurt:1\"", "not the primary that the one Valkey stands for"),
        ] {
            let (_, plans) = with_fault(fault);
            assert_eq!(plans[0].begin, [], "{fault}");
            assert!(plans[0].skipped[0].contains(why), "{:?}", plans[0].skipped);
        }
    }
}
