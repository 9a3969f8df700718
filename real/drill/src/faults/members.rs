//! Which processes stand for the members of the services, and what of a fault befalls them.
//!
//! Either one process stands for all members of a service, or, on a cluster, each member of directory, ledger and bus has its own.
//! Of a cache one process stands for the primary and who follows it in any case.

use super::{Service, Target, last_longer_than_detection};
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::NodeId;
use worldline_scenarios::{inject::Injection, nodes::Nodes};
use worldline_sim::{Fault, bus, directory, ledger};
use worldline_system::time::Duration;

/// The least members that a bus of several can have: its stream has three.
const BUS_MEMBERS_MIN: usize = 3;

/// A service's members, and whether each has a process of its own.
#[derive(Clone, Debug)]
struct Membership {
    members: BTreeSet<NodeId>,
    clustered: bool,
}

/// The members of every service, and the processes that stand for them.
#[derive(Clone, Debug)]
pub struct Members(BTreeMap<Service, Membership>);

/// A process of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// The member by whose name its links go.
    pub node: NodeId,
    /// Which service.
    pub service: Service,
    /// How manieth of the service's processes it is, from 0.
    pub number: usize,
}

impl Members {
    /// Of these nodes, with one process for each service; or on a cluster.
    #[must_use]
    pub fn of(nodes: &Nodes, cluster: bool) -> Self {
        let mut all: BTreeMap<Service, Membership> = BTreeMap::new();
        for (id, node) in nodes.iter() {
            if let Some(service) = Service::of(node.kind) {
                let none = || Membership { members: BTreeSet::new(), clustered: false };
                all.entry(service).or_insert_with(none).members.insert(id);
            }
        }
        for (service, membership) in &mut all {
            let least = match service {
                Service::Directory | Service::Ledger => 2,
                Service::Bus => BUS_MEMBERS_MIN,
                Service::Cache(_) => usize::MAX,
            };
            membership.clustered = cluster && membership.members.len() >= least;
        }
        Self(all)
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.0.keys().copied()
    }

    /// Every process of a service.
    pub fn servers(&self) -> impl Iterator<Item = Server> + '_ {
        self.services().flat_map(|service| {
            let nodes = self.of_service(service).enumerate();
            nodes.map(move |(number, node)| Server { node, service, number })
        })
    }

    /// The nodes by whose names the links to a service's processes go.
    pub fn of_service(&self, service: Service) -> impl Iterator<Item = NodeId> + '_ {
        let membership = self.0.get(&service);
        let count = membership.map_or(0, |of| if of.clustered { of.members.len() } else { 1 });
        membership.into_iter().flat_map(|of| of.members.iter().copied()).take(count)
    }

    /// Whether each member of a service has its own process.
    #[must_use]
    pub fn clustered(&self, service: Service) -> bool {
        self.0.get(&service).is_some_and(|of| of.clustered)
    }

    /// A service's first member: where one process stands for all, its links go by this name. That of the ledger and of a cache is
    /// its primary at the beginning.
    #[must_use]
    pub fn stand_in(&self, service: Service) -> Option<NodeId> {
        self.0.get(&service)?.members.first().copied()
    }

    /// Which service a node is a member of.
    #[must_use]
    pub fn service(&self, node: NodeId) -> Option<Service> {
        self.0.iter().find(|(_, of)| of.members.contains(&node)).map(|(&service, _)| service)
    }

    /// The node by whose name the links of a target's process go.
    #[must_use]
    pub fn node(&self, target: Target) -> Option<NodeId> {
        match target {
            Target::Role(node) | Target::Member(node) => Some(node),
            Target::Service(service) => self.stand_in(service),
        }
    }

    /// Whether so many of these members leave enough of the others for the service to go on as it would.
    fn minority(&self, service: Service, hit: &[NodeId]) -> bool {
        let members = self.0.get(&service).map_or(0, |of| of.members.len());
        hit.len() * 2 < members
    }

    /// The members of each service that are among these nodes.
    fn hit<'a>(&'a self, which: &'a [NodeId]) -> impl Iterator<Item = (Service, Vec<NodeId>)> + 'a {
        let hit = |of: &Membership| which.iter().copied().filter(|node| of.members.contains(node)).collect::<Vec<_>>();
        self.0.iter().map(move |(&service, of)| (service, hit(of))).filter(|(_, hit)| !hit.is_empty())
    }

    /// The targets that these nodes are; for members that are too few, why they are none.
    pub(super) fn targets(&self, nodes: &Nodes, which: &[NodeId]) -> (Vec<Target>, Vec<String>) {
        let roles = which.iter().filter(|node| self.service(**node).is_none());
        let mut targets: Vec<Target> = roles.map(|&node| Target::Role(node)).collect();
        let mut skipped = Vec::new();
        for (service, hit) in self.hit(which) {
            if self.clustered(service) {
                targets.extend(hit.into_iter().map(Target::Member));
                continue;
            }
            let (out, what) = match service {
                Service::Directory | Service::Bus => {
                    let members = self.0[&service].members.len();
                    (hit.len() * 2 > members, format!("no majority of the {members} members"))
                }
                Service::Ledger | Service::Cache(_) => {
                    let primary = self.stand_in(service);
                    (primary.is_some_and(|primary| hit.contains(&primary)), "not the primary".to_owned())
                }
            };
            if out {
                targets.push(Target::Service(service));
            } else {
                let names: Vec<_> = hit.iter().map(|&node| nodes.name(node)).collect();
                let (names, is) = (names.join(", "), if hit.len() == 1 { "is" } else { "are" });
                skipped.push(format!(
                    "{names} {is} {what} that the one {service} stands for, which goes on as they would"
                ));
            }
        }
        (targets, skipped)
    }

    /// One side of a link: members as the nodes that stand for them.
    pub(super) fn side(&self, nodes: &Nodes, which: &[NodeId]) -> (Vec<NodeId>, Vec<String>) {
        let (targets, skipped) = self.targets(nodes, which);
        (targets.into_iter().filter_map(|target| self.node(target)).collect(), skipped)
    }

    /// Whether a fault that lasts so long has members take over from others: it ends their processes, so that the others elect or
    /// promote one of theirs, or has them hand over. One process for all could not tell.
    pub(super) fn others_take_over(&self, injection: &Injection, lasts: Option<Duration>) -> bool {
        let hands_over = |fault: &Fault| match fault {
            Fault::Directory(directory::Fault::LeaderChange) => self.clustered(Service::Directory),
            Fault::Bus(bus::Fault::LeaderChange) => self.clustered(Service::Bus),
            Fault::Ledger(ledger::Fault::Switchover) => self.clustered(Service::Ledger),
            _ => false,
        };
        if injection.begin.iter().any(hands_over) {
            return true;
        }
        let ended = |fault: &Fault| match fault {
            Fault::Crash { node } | Fault::Kill { node } | Fault::Stop { node } | Fault::Pause { node } => Some(*node),
            _ => None,
        };
        let ended: Vec<NodeId> = injection.begin.iter().filter_map(ended).collect();
        self.hit(&ended).any(|(service, hit)| {
            self.minority(service, &hit)
                && match service {
                    Service::Directory | Service::Bus => true,
                    Service::Ledger => last_longer_than_detection(lasts),
                    Service::Cache(_) => false,
                }
        })
    }
}
