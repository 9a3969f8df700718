//! Every link of a drill: which node calls which, through which port, and how long it takes.

use crate::{
    faults::{Counts, Effect, Members, Service},
    proxy::{
        etcd, nats, postgres,
        requests::Requests,
        statements::Statements,
        stream,
        transactions::Transactions,
        way::{Degraded, Way},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;
use worldline_ports::Ports;
use worldline_proto::NodeId;
use worldline_scenarios::{
    nodes::{Kind, Nodes},
    world,
};
use worldline_sim::network::latency;

/// Names the cut of a node that has crashed: above every fault's.
const CRASHED: u32 = 1 << 16;

/// Why nothing can be done to a link.
const NO_LINK: &str = "there is no link between these nodes: neither calls the other";

/// Where the ends of links listen.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Roles that others call, by node.
    pub roles: BTreeMap<NodeId, SocketAddr>,
    /// The services' processes, by the node by whose name their links go.
    pub servers: BTreeMap<NodeId, SocketAddr>,
}

/// All links.
#[derive(Debug)]
pub struct Links {
    ways: BTreeMap<(NodeId, NodeId), Arc<Way>>,
    /// Where a caller finds a callee.
    addresses: BTreeMap<(NodeId, NodeId), SocketAddr>,
    /// The ways that datagrams take, by caller and callee.
    datagrams: BTreeSet<(NodeId, NodeId)>,
    statements: Arc<Statements>,
    requests: Arc<Requests>,
    transactions: Arc<Transactions>,
    tasks: JoinSet<io::Result<()>>,
}

/// Who may call whom: players gateways, gateways their region's replica, roles each other and the services.
fn calls(caller: Kind, callee: Kind) -> bool {
    match callee {
        Kind::Gateway(..) => matches!(caller, Kind::Player(..) | Kind::Double(..)),
        Kind::Worker(..) => matches!(caller, Kind::Gateway(..) | Kind::Worker(..)),
        Kind::Replica(region) => matches!(caller, Kind::Gateway(of, _) if of == region),
        Kind::Directory(_) => matches!(caller, Kind::Gateway(..) | Kind::Worker(..) | Kind::Orchestrator(_)),
        Kind::Ledger(_) => {
            matches!(
                caller,
                Kind::Gateway(..) | Kind::Worker(..) | Kind::Orchestrator(_) | Kind::Replica(_) | Kind::Operator(..)
            )
        }
        Kind::Bus(_) => matches!(caller, Kind::Worker(..) | Kind::Orchestrator(_) | Kind::Replica(_)),
        // As in the simulator: the orchestrators use the first region's cache.
        Kind::Cache(region, _) => match caller {
            Kind::Gateway(of, _) | Kind::Worker(of, _) => of == region,
            Kind::Orchestrator(_) => region == 0,
            _ => false,
        },
        Kind::Orchestrator(_) | Kind::Player(..) | Kind::Double(..) | Kind::Operator(..) => false,
    }
}

impl Links {
    /// Opens a port for every pair of nodes of which one may call the other. `takes_part` says which nodes there are. Called
    /// inside a runtime.
    ///
    /// # Errors
    /// A socket cannot be had.
    pub fn open(
        nodes: &Nodes,
        members: &Members,
        ends: &Ends,
        ports: &mut Ports,
        seed: u64,
        takes_part: impl Fn(Kind) -> bool,
    ) -> io::Result<Self> {
        let (statements, requests) = (Arc::new(Statements::new(seed)), Arc::new(Requests::new(seed)));
        let transactions = Arc::new(Transactions::default());
        let (mut ways, mut addresses, mut tasks) = (BTreeMap::new(), BTreeMap::new(), JoinSet::new());
        let mut datagrams = BTreeSet::new();
        let present: Vec<_> = nodes.iter().filter(|(_, node)| takes_part(node.kind)).collect();
        for &(from, caller) in &present {
            for &(to, callee) in &present {
                let service = members.service(to);
                let there = service.is_none() || ends.servers.contains_key(&to);
                if from == to || !there || !calls(caller.kind, callee.kind) {
                    continue;
                }
                let mut way = |from: NodeId, to: NodeId, places: [_; 2]| {
                    let (base, jitter) = latency::one_way_ns(places[0], places[1]);
                    let who = u64::from(from.0) << 32 | u64::from(to.0);
                    let way =
                        || Arc::new(Way::new(Duration::from_nanos(base), Duration::from_nanos(jitter), seed, who));
                    Arc::clone(ways.entry((from, to)).or_insert_with(way))
                };
                let (here, there) = (world::place(caller, seed), world::place(callee, seed));
                let (forth, back) = (way(from, to, [here, there]), way(to, from, [there, here]));
                let (address, listener, socket) = ports.pair()?;
                addresses.insert((from, to), address);
                let player = matches!(callee.kind, Kind::Gateway(..));
                let callee = ends.roles.get(&to).or(ends.servers.get(&to));
                let callee = *callee.ok_or_else(|| io::Error::other("a callee that listens nowhere"))?;
                if service.is_none() {
                    let socket = tokio::net::UdpSocket::from_std(socket)?;
                    datagrams.insert((from, to));
                    tasks.spawn(crate::proxy::datagrams::carry(socket, callee, Arc::clone(&forth), Arc::clone(&back)));
                }
                if player {
                    continue; // Players speak QUIC alone.
                }
                let listener = tokio::net::TcpListener::from_std(listener)?;
                match service {
                    Some(Service::Ledger) => {
                        let statements = Arc::clone(&statements);
                        tasks.spawn(stream::listen(listener, move |socket| {
                            let ways = (Arc::clone(&forth), Arc::clone(&back));
                            postgres::carry(socket, from, callee, ways, Arc::clone(&statements))
                        }));
                    }
                    Some(Service::Bus) => {
                        let requests = Arc::clone(&requests);
                        tasks.spawn(stream::listen(listener, move |socket| {
                            let ways = (Arc::clone(&forth), Arc::clone(&back));
                            nats::carry(socket, from, callee, ways, Arc::clone(&requests))
                        }));
                    }
                    Some(Service::Directory) => {
                        let transactions = Arc::clone(&transactions);
                        tasks.spawn(stream::listen(listener, move |socket| {
                            let ways = (Arc::clone(&forth), Arc::clone(&back));
                            etcd::carry(socket, from, callee, ways, Arc::clone(&transactions))
                        }));
                    }
                    Some(Service::Cache(_)) | None => {
                        tasks.spawn(stream::listen(listener, move |socket| {
                            stream::carry(socket, callee, Arc::clone(&forth), Arc::clone(&back))
                        }));
                    }
                }
            }
        }
        Ok(Self { ways, addresses, datagrams, statements, requests, transactions, tasks })
    }

    /// Where `caller` finds `callee`. `None` where it never calls there.
    #[must_use]
    pub fn address(&self, caller: NodeId, callee: NodeId) -> Option<SocketAddr> {
        self.addresses.get(&(caller, callee)).copied()
    }

    /// Whom `caller` may call, and where.
    pub fn peers(&self, caller: NodeId) -> impl Iterator<Item = (NodeId, SocketAddr)> + '_ {
        self.addresses.iter().filter(move |((from, _), _)| *from == caller).map(|((_, to), address)| (*to, *address))
    }

    /// What goes wrong with statements.
    #[must_use]
    pub fn statements(&self) -> &Statements {
        &self.statements
    }

    /// What goes wrong with requests to the bus.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Whom a place in its transactions ends.
    #[must_use]
    pub const fn transactions(&self) -> &Arc<Transactions> {
        &self.transactions
    }

    /// What has gone wrong with all of them so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (statements, requests) = (self.statements.counts(), self.requests.counts());
        Counts { statements, requests, between_transactions: self.transactions.count() }
    }

    /// How many ports there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether something gets from the one to the other, and back.
    #[must_use]
    pub fn linked(&self, a: NodeId, b: NodeId) -> bool {
        [(a, b), (b, a)].iter().all(|pair| self.ways.get(pair).is_some_and(|way| !way.is_cut()))
    }

    fn between<'a>(
        &'a self,
        from: &'a [NodeId],
        to: &'a [NodeId],
        both: bool,
    ) -> impl Iterator<Item = ((NodeId, NodeId), &'a Way)> {
        let holds = move |&(a, b): &(NodeId, NodeId)| {
            from.contains(&a) && to.contains(&b) || both && to.contains(&a) && from.contains(&b)
        };
        self.ways.iter().filter(move |(pair, _)| holds(pair)).map(|(pair, way)| (*pair, &**way))
    }

    /// Nothing gets from these to those any more. Whether there is a link between them at all.
    pub fn cut(&self, id: u32, from: &[NodeId], to: &[NodeId], both: bool) -> Effect {
        let cut = self.between(from, to, both).map(|(_, way)| way.cut(id)).count();
        Effect::of(cut > 0, || NO_LINK.to_owned())
    }

    /// What gets from these to those suffers. Whether anything that goes there can suffer so.
    pub fn degrade(&self, id: u32, from: &[NodeId], to: &[NodeId], both: bool, how: Degraded) -> Effect {
        let ways: Vec<_> = self.between(from, to, both).collect();
        ways.iter().for_each(|(_, way)| way.degrade(id, how));
        let datagrams =
            ways.iter().any(|((a, b), _)| [(*a, *b), (*b, *a)].iter().any(|way| self.datagrams.contains(way)));
        let only_doubles = Degraded { duplicate_permille: 0, ..how } == Degraded::default();
        match (ways.is_empty(), only_doubles && !datagrams) {
            (true, _) => Effect::Nothing(NO_LINK.to_owned()),
            (false, true) => {
                Effect::Nothing("what travels there are byte streams, of which nothing arrives twice".to_owned())
            }
            (false, false) => Effect::Hit,
        }
    }

    /// Ends the cuts and degradations of this name.
    pub fn mend(&self, id: u32) {
        self.ways.values().for_each(|way| way.mend(id));
    }

    /// Nothing gets to or from a node that has crashed.
    pub fn crashed(&self, node: NodeId) {
        let of = |&&(a, b): &&(NodeId, NodeId)| a == node || b == node;
        self.ways.iter().filter(|(pair, _)| of(pair)).for_each(|(_, way)| way.cut(CRASHED + node.0));
    }

    /// It has started again.
    pub fn started(&self, node: NodeId) {
        self.mend(CRASHED + node.0);
        self.transactions.started(node);
    }

    /// Ends every cut and degradation of a fault; nodes that have crashed stay away.
    pub fn heal(&self, faults: usize) {
        // Those of the faults, and the last two: delayed requests of all kinds.
        let ids = (0..=u32::try_from(faults).unwrap_or(u32::MAX)).chain([u32::MAX - 1, u32::MAX]);
        ids.for_each(|id| self.mend(id));
        self.statements.heal();
        self.requests.heal();
        self.transactions.heal();
    }

    /// What broke of the proxies, if anything did: a drill without its links means nothing.
    pub fn broken(&mut self) -> Option<String> {
        match self.tasks.try_join_next()? {
            Ok(Ok(())) => Some("a proxy has ended".to_owned()),
            Ok(Err(error)) => Some(format!("a proxy has ended: {error}")),
            Err(error) => Some(format!("a proxy has ended: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_scenarios::catalogue;

    fn links() -> (Nodes, Links) {
        links_of(false)
    }

    fn links_of(cluster: bool) -> (Nodes, Links) {
        let scenario = catalogue::find("swing").expect("in the catalogue").expect("reads");
        let nodes = Nodes::of(&scenario);
        let members = Members::of(&nodes, cluster);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let roles = nodes.iter().map(|(node, _)| (node, nowhere)).collect();
        let ends = Ends { roles, servers: members.servers().map(|server| (server.node, nowhere)).collect() };
        let mut ports = Ports::default();
        let takes_part = |kind| !matches!(kind, Kind::Double(..));
        let links = Links::open(&nodes, &members, &ends, &mut ports, 1, takes_part).expect("ports are free");
        (nodes, links)
    }

    fn named(nodes: &Nodes, name: &str) -> NodeId {
        nodes.iter().find(|(_, node)| node.name == name).map(|(id, _)| id).expect("in the scenario")
    }

    #[tokio::test]
    async fn every_pair_that_talks_has_a_port_of_its_own_and_no_other_has_one() {
        let (nodes, links) = links();
        // 20 players to 5 gateways, 5 gateways and 6 workers to the workers, 5 gateways to their replicas; 13 roles to etcd, 16 to
        // PostgreSQL, 11 to NATS, 13 to a Valkey.
        assert_eq!(links.len(), 20 * 5 + 5 * 6 + 6 * 5 + 5 + 13 + 16 + 11 + 13);
        let own: BTreeSet<SocketAddr> = links.addresses.values().copied().collect();
        assert_eq!(own.len(), links.len());
        let of = |name| named(&nodes, name);
        assert!(links.address(of("player:1"), of("gateway:frankfurt:0")).is_some());
        assert_eq!(links.address(of("player:1"), of("worker:frankfurt:0")), None, "players know gateways alone");
        assert_eq!(links.address(of("worker:frankfurt:0"), of("directory:1")), None, "one etcd stands for all");
        assert_eq!(links.peers(of("worker:frankfurt:0")).count(), 5 + 4);
        assert!(links.address(of("gateway:frankfurt:0"), of("replica:frankfurt")).is_some());
        assert_eq!(links.address(of("gateway:frankfurt:0"), of("replica:virginia")), None, "another region's");
    }

    #[tokio::test]
    async fn on_a_cluster_who_uses_a_service_has_a_link_to_each_of_its_members() {
        let (nodes, links) = links_of(true);
        assert_eq!(links.len(), 20 * 5 + 5 * 6 + 6 * 5 + 5 + (13 + 16 + 11) * 3 + 13);
        let of = |name| named(&nodes, name);
        let (worker, first) = (of("worker:frankfurt:0"), of("directory:0"));
        links.crashed(first);
        assert!(!links.linked(worker, first) && links.linked(worker, of("directory:1")), "the others are there");
        assert_eq!(links.address(worker, of("cache:frankfurt:1")), None, "one Valkey stands for both");
    }

    #[tokio::test]
    async fn a_cut_concerns_its_pairs_and_a_crashed_node_is_away_until_it_starts_again() {
        let (nodes, links) = links();
        let of = |name| named(&nodes, name);
        let (worker, other, etcd) = (of("worker:frankfurt:0"), of("worker:frankfurt:1"), of("directory:0"));
        assert_eq!(links.cut(0, &[worker], &[etcd], false), Effect::Hit);
        assert!(!links.linked(worker, etcd), "one way is enough");
        assert!(links.linked(other, etcd) && links.linked(worker, other));
        links.crashed(other);
        links.heal(1);
        assert!(links.linked(worker, etcd));
        assert!(!links.linked(other, etcd), "healing wakes nobody who is dead");
        links.started(other);
        assert!(links.linked(other, etcd));
        assert!(!links.linked(of("player:1"), worker), "who has no link is not linked");
    }

    #[tokio::test]
    async fn what_is_done_where_nothing_travels_is_nothing_done() {
        let (nodes, links) = links();
        let of = |name| named(&nodes, name);
        let (worker, etcd, leader) = (of("worker:frankfurt:0"), of("directory:0"), of("orchestrator:0"));
        let nothing = |effect: Effect| matches!(effect, Effect::Nothing(_));
        assert!(nothing(links.cut(0, &[leader], &[worker], true)), "an orchestrator speaks to the services alone");
        let gateways = [of("gateway:frankfurt:0"), of("gateway:virginia:0")];
        let late = Degraded { delay: Duration::from_secs(1), ..Degraded::default() };
        assert!(nothing(links.degrade(1, &gateways[..1], &gateways[1..], true, late)));
        let twice = Degraded { duplicate_permille: 500, ..Degraded::default() };
        assert!(nothing(links.degrade(2, &[worker], &[etcd], true, twice)), "a byte stream doubles nothing");
        assert_eq!(links.degrade(3, &gateways[..1], &[worker], true, twice), Effect::Hit);
        let lost = Degraded { loss_permille: 100, ..Degraded::default() };
        assert_eq!(links.degrade(4, &[worker], &[etcd], false, lost), Effect::Hit);
    }
}
