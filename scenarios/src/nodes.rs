//! The nodes of a scenario: their order, their names, and which of them a selector means.
//!
//! Invariant: the order depends on the scenario alone, so that a node has the same id and name in every seed and in a drill.

use crate::format::{FaultKind, Place, Scenario, Selector};
use worldline_proto::{CharacterId, EntityId, NodeId};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A member of the directory.
    Directory(u16),
    /// A member of the ledger.
    Ledger(u16),
    /// A member of the bus.
    Bus(u16),
    /// An orchestrator.
    Orchestrator(u16),
    /// A worker of a region.
    Worker(usize, u16),
    /// A gateway of a region.
    Gateway(usize, u16),
    /// The replica of a region.
    Replica(usize),
    /// A server of a region's cache.
    Cache(usize, u16),
    /// The machine of a player, at the place of a region.
    Player(usize, u32),
    /// A second login with the same player's account.
    Double(usize, u32),
    /// An operator's command, given by the fault at this place of the timeline, about a player.
    Operator(usize, u32),
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its name: the selector that means it.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// Servers of a region's cache: a primary and the one that follows it.
pub const CACHE_SERVERS: u16 = 2;

/// All nodes of a scenario; a node's id is its place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes(Vec<Node>);

/// A player and its character, in the order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Player {
    /// Its number, from 1.
    pub number: u32,
    /// The region at whose place it sits, and whose gateways it uses first.
    pub region: usize,
    /// Whether its character stands beside the target instead of at home.
    pub travels: bool,
}

/// Every player of a scenario.
pub fn players(scenario: &Scenario) -> impl Iterator<Item = Player> + '_ {
    let of = |(region, count, travels)| std::iter::repeat_n((region, travels), count as usize);
    let groups = scenario
        .regions
        .iter()
        .enumerate()
        .flat_map(|(at, region)| [(at, region.players, false), (at, region.travellers, true)]);
    groups.flat_map(of).zip(1..).map(|((region, travels), number)| Player { number, region, travels })
}

/// The character of a player.
#[must_use]
pub fn character(number: u32) -> CharacterId {
    CharacterId::new(number.into()).expect("a player's number has 32 bits")
}

impl Nodes {
    /// The nodes of a scenario. Those of second logins come behind all others but the operators': every player has one, but only
    /// some use it.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let mut nodes = Vec::new();
        let mut add = |kind, name, place| nodes.push(Node { kind, name, place });
        let core = &scenario.core;
        (0..core.directory).for_each(|n| add(Kind::Directory(n), format!("directory:{n}"), core.place(n)));
        (0..core.ledger).for_each(|n| add(Kind::Ledger(n), format!("ledger:{n}"), core.place(n)));
        (0..core.bus).for_each(|n| add(Kind::Bus(n), format!("bus:{n}"), core.place(n)));
        (0..core.orchestrators).for_each(|n| add(Kind::Orchestrator(n), format!("orchestrator:{n}"), core.place(n)));
        for (at, region) in scenario.regions.iter().enumerate() {
            let (name, place) = (&region.name, region.place);
            (0..region.workers).for_each(|n| add(Kind::Worker(at, n), format!("worker:{name}:{n}"), place));
            (0..region.gateways).for_each(|n| add(Kind::Gateway(at, n), format!("gateway:{name}:{n}"), place));
            add(Kind::Replica(at), format!("replica:{name}"), place);
            (0..CACHE_SERVERS).for_each(|n| add(Kind::Cache(at, n), format!("cache:{name}:{n}"), place));
        }
        for player in players(scenario) {
            let place = scenario.regions[player.region].place;
            add(Kind::Player(player.region, player.number), format!("player:{}", player.number), place);
        }
        if scenario.workload.double_login > 0 {
            for player in players(scenario) {
                let place = scenario.regions[player.region].place;
                add(Kind::Double(player.region, player.number), format!("player:{}:double", player.number), place);
            }
        }
        for (at, fault) in scenario.faults.iter().enumerate() {
            let FaultKind::RevokeTokens(players) = &fault.kind else { continue };
            for &number in players {
                add(Kind::Operator(at, number), format!("operator:{at}:{number}"), core.place(0));
            }
        }
        Self(nodes)
    }

    /// All of them with their ids, in the order of these.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).map(NodeId).zip(&self.0)
    }

    /// A node's name.
    #[must_use]
    pub fn name(&self, node: NodeId) -> &str {
        self.0.get(node.0 as usize).map_or("", |node| node.name.as_str())
    }

    /// What a node is.
    #[must_use]
    pub fn kind(&self, node: NodeId) -> Option<Kind> {
        self.0.get(node.0 as usize).map(|node| node.kind)
    }

    /// The nodes of which this holds, in the order of their ids.
    pub fn those(&self, holds: impl Fn(Kind) -> bool) -> Vec<NodeId> {
        self.iter().filter(|(_, node)| holds(node.kind)).map(|(id, _)| id).collect()
    }

    /// The nodes that a selector means now. None where nobody leads or owns.
    pub fn selected(&self, selector: Selector, now: &impl Roles) -> Vec<NodeId> {
        match selector {
            Selector::Worker(region, n) => self.those(|kind| kind == Kind::Worker(region, n)),
            Selector::Gateway(region, n) => self.those(|kind| kind == Kind::Gateway(region, n)),
            Selector::Player(n) => self.those(|kind| matches!(kind, Kind::Player(_, number) if number == n)),
            Selector::Orchestrator(n) => self.those(|kind| kind == Kind::Orchestrator(n)),
            Selector::Directory(n) => self.those(|kind| kind == Kind::Directory(n)),
            Selector::Ledger(n) => self.those(|kind| kind == Kind::Ledger(n)),
            Selector::Bus(n) => self.those(|kind| kind == Kind::Bus(n)),
            Selector::BusLeader => now.bus_leader().into_iter().collect(),
            Selector::Replica(at) => self.those(|kind| kind == Kind::Replica(at)),
            Selector::Cache(at, n) => self.those(|kind| kind == Kind::Cache(at, n)),
            Selector::Region(at) => self.those(|kind| match kind {
                Kind::Worker(region, _) | Kind::Gateway(region, _) | Kind::Replica(region) | Kind::Cache(region, _) => {
                    region == at
                }
                _ => false,
            }),
            Selector::Core => self.those(in_core),
            Selector::CoreAt(place) => {
                let there = self.iter().filter(|(_, node)| in_core(node.kind) && node.place == place);
                there.map(|(id, _)| id).collect()
            }
            Selector::OrchestratorLeader => now.orchestrator_leader().into_iter().collect(),
            Selector::DirectoryLeader => now.directory_leader().into_iter().collect(),
            Selector::LedgerPrimary => now.ledger_primary().into_iter().collect(),
            Selector::OwnerOf(entity) => now.owner(entity).into_iter().collect(),
        }
    }
}

const fn in_core(kind: Kind) -> bool {
    matches!(kind, Kind::Directory(_) | Kind::Ledger(_) | Kind::Bus(_) | Kind::Orchestrator(_))
}

/// Who leads and who owns, at a moment.
pub trait Roles {
    /// The leading orchestrator.
    fn orchestrator_leader(&self) -> Option<NodeId>;
    /// The leading member of the directory.
    fn directory_leader(&self) -> Option<NodeId>;
    /// The ledger's primary.
    fn ledger_primary(&self) -> Option<NodeId>;
    /// The leading member of the bus.
    fn bus_leader(&self) -> Option<NodeId>;
    /// The worker that an entity's record names.
    fn owner(&self, entity: EntityId) -> Option<NodeId>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;

    struct Nobody;

    impl Roles for Nobody {
        fn orchestrator_leader(&self) -> Option<NodeId> {
            None
        }
        fn directory_leader(&self) -> Option<NodeId> {
            None
        }
        fn ledger_primary(&self) -> Option<NodeId> {
            None
        }
        fn bus_leader(&self) -> Option<NodeId> {
            None
        }
        fn owner(&self, _: EntityId) -> Option<NodeId> {
            None
        }
    }

    #[test]
    fn a_name_is_the_selector_of_its_node_and_numbers_begin_where_they_should() {
        let scenario = catalogue::find("swing").expect("in the catalogue").expect("reads");
        let nodes = Nodes::of(&scenario);
        let named =
            |selector| nodes.selected(selector, &Nobody).into_iter().map(|id| nodes.name(id)).collect::<Vec<_>>();
        assert_eq!(named(Selector::Directory(0)), ["directory:0"]);
        assert_eq!(named(Selector::Worker(1, 1)), ["worker:frankfurt:1"]);
        assert_eq!(named(Selector::Player(1)), ["player:1"]);
        assert_eq!(named(Selector::Player(0)), Vec::<&str>::new());
        assert_eq!(
            named(Selector::Region(2)),
            [
                "worker:virginia:0",
                "worker:virginia:1",
                "gateway:virginia:0",
                "replica:virginia",
                "cache:virginia:0",
                "cache:virginia:1",
            ]
        );
        assert_eq!(named(Selector::Core).len(), 11);
        assert_eq!(named(Selector::LedgerPrimary), Vec::<&str>::new());
        assert_eq!(players(&scenario).count(), scenario.players() as usize);
    }
}
