//! Which nodes of a scenario one real process stands for, and what of a fault befalls it.

use super::{Service, Target};
use std::collections::{BTreeMap, BTreeSet};
use worldline_proto::NodeId;
use worldline_scenarios::nodes::Nodes;

/// The nodes that stand for the services, and the members that they stand for.
#[derive(Clone, Debug)]
pub struct Members(BTreeMap<Service, BTreeSet<NodeId>>);

impl Members {
    /// Of these nodes.
    #[must_use]
    pub fn of(nodes: &Nodes) -> Self {
        let mut members: BTreeMap<Service, BTreeSet<NodeId>> = BTreeMap::new();
        for (id, node) in nodes.iter() {
            if let Some(service) = Service::of(node.kind) {
                members.entry(service).or_default().insert(id);
            }
        }
        Self(members)
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = Service> + '_ {
        self.0.keys().copied()
    }

    /// The node by whose name a service's links go: its first member. That of the ledger and of a cache is its primary.
    #[must_use]
    pub fn stand_in(&self, service: Service) -> Option<NodeId> {
        self.0.get(&service)?.first().copied()
    }

    /// Which service a node is a member of.
    #[must_use]
    pub fn service(&self, node: NodeId) -> Option<Service> {
        self.0.iter().find(|(_, members)| members.contains(&node)).map(|(&service, _)| service)
    }

    /// The targets that these nodes are; for members that are too few, why they are none.
    pub(super) fn targets(&self, nodes: &Nodes, which: &[NodeId]) -> (Vec<Target>, Vec<String>) {
        let roles = which.iter().filter(|node| self.service(**node).is_none());
        let mut targets: Vec<Target> = roles.map(|&node| Target::Role(node)).collect();
        let mut skipped = Vec::new();
        for (&service, members) in &self.0 {
            let hit: Vec<NodeId> = which.iter().copied().filter(|node| members.contains(node)).collect();
            if hit.is_empty() {
                continue;
            }
            let (out, what) = match service {
                Service::Directory | Service::Bus => {
                    (hit.len() * 2 > members.len(), format!("no majority of the {} members", members.len()))
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

    /// One side of a link: members as the node that stands for them.
    pub(super) fn side(&self, nodes: &Nodes, which: &[NodeId]) -> (Vec<NodeId>, Vec<String>) {
        let (targets, skipped) = self.targets(nodes, which);
        let node = |target: Target| match target {
            Target::Role(node) => Some(node),
            Target::Service(service) => self.stand_in(service),
        };
        (targets.into_iter().filter_map(node).collect(), skipped)
    }
}
