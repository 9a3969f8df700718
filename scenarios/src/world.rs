//! The world that a scenario describes. The only place that knows how a role is configured.

use crate::{
    cost,
    draw::{self, Draw},
    format::{Boss, Place, Scenario},
    inject::Now,
    nodes::{Kind, Node, Nodes, Player, Roles, character, players},
    service_times,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use worldline_proto::{
    CharacterId, EntityId, EntityKind, LeaseId, NodeId,
    token::{Claims, Key},
};
use worldline_sim::{
    Actor, Seat, bus, cache, directory, host, ledger,
    network::latency::{self, City, LastMile},
    node::NodeSpec,
    world::Config,
};
use worldline_system::{
    client::{self, Client, Conduct},
    doors::{
        self,
        directory::{Family, Key as DirectoryKey, RegionId, Value},
    },
    gateway::{self, Gateway},
    operator::{self, Operator},
    orchestrator::{self, Orchestrator},
    replica::{self, Replica},
    rules::space::{self, Map, Position},
    time::{Duration, Instant},
    worker::{self, Worker},
};

/// The key that the tokens of a simulated world, or of a drill's, are signed with.
pub const TOKEN_KEY: Key = Key([0x57; 32]);
/// When the tokens of a world were issued: an hour before a simulated world begins.
pub const TOKENS_ISSUED_UNIX_MS: u64 = worldline_sim::clock::EPOCH_UNIX_NS / 1_000_000 - 3_600_000;
/// Until when tokens are valid: 2100-01-01.
const TOKENS_EXPIRE_UNIX_MS: u64 = 4_102_444_800_000;
/// Players come within so much of the beginning.
const ARRIVALS: Duration = Duration::from_secs(3);
/// Second logins come so much later.
const DOUBLE_LOGIN_AFTER: Duration = Duration::from_secs(6);
/// So long before the end nobody begins anything new, so that what was begun can end.
const QUIET: Duration = Duration::from_secs(5);
/// How far the first boss stands from the middle of its region, and each further one from the one before, in millimetres:
/// within reach of a character that strays 8 m from there.
const BOSS_OFF_MM: i64 = 10_000;
const BOSSES_APART_MM: i64 = 2_000;
const CHARACTER_HIT_POINTS: u32 = 1_000;
const CHARACTER_BALANCE: i64 = 100;
/// Where a clock is kept right by NTP: drift in parts a million, and how far the wall clock is off.
const NTP_DRIFT_PPM: u64 = 50;
const NTP_OFFSET_NS: u64 = 20_000_000;
/// Who plays in a world. Mostly clients: the larger roles are boxed, so that a node of a client stays small.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly every node is a client, and one box less is one cache miss less")]
pub enum Cast {
    /// A player's machine.
    Client(Client),
    /// A gateway.
    Gateway(Box<Gateway>),
    /// A worker.
    Worker(Box<Worker>),
    /// An orchestrator.
    Orchestrator(Box<Orchestrator>),
    /// A replica.
    Replica(Box<Replica>),
    /// An operator's command.
    Operator(Box<Operator>),
}

impl Actor for Cast {
    #[inline]
    fn deliver(&mut self, event: doors::Event, seat: Seat<'_>) {
        match self {
            Self::Client(client) => host(client, event, seat),
            Self::Gateway(gateway) => host(gateway.as_mut(), event, seat),
            Self::Worker(worker) => host(worker.as_mut(), event, seat),
            Self::Orchestrator(orchestrator) => host(orchestrator.as_mut(), event, seat),
            Self::Replica(replica) => host(replica.as_mut(), event, seat),
            Self::Operator(operator) => host(operator.as_mut(), event, seat),
        }
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        use worldline_system::Role as _;
        match self {
            Self::Client(client) => client.queues(report),
            Self::Gateway(gateway) => gateway.queues(report),
            Self::Worker(worker) => worker.queues(report),
            Self::Orchestrator(orchestrator) => orchestrator.queues(report),
            Self::Replica(replica) => replica.queues(report),
            Self::Operator(operator) => operator.queues(report),
        }
    }
}

/// A simulated world of this cast.
pub type World = worldline_sim::World<Cast>;

const fn city(place: Place) -> City {
    match place {
        Place::Singapore => City::Singapore,
        Place::Tokyo => City::Tokyo,
        Place::Sydney => City::Sydney,
        Place::Frankfurt => City::Frankfurt,
        Place::Virginia => City::Virginia,
        Place::Oregon => City::Oregon,
    }
}

/// The region with this place in the scenario's list. A scenario has at most 16.
#[must_use]
pub fn region_id(index: usize) -> RegionId {
    RegionId(u8::try_from(index).expect("a scenario has at most 16 regions"))
}

/// A world at its beginning, with every process started.
#[must_use]
pub fn build(scenario: &Scenario, nodes: &Nodes, seed: u64) -> World {
    build_with(scenario, nodes, seed, |role| role)
}

/// The same world, each of its roles inside something: a measurement, say.
#[must_use]
pub fn build_with<A: Actor>(
    scenario: &Scenario,
    nodes: &Nodes,
    seed: u64,
    inside: impl Fn(Cast) -> A,
) -> worldline_sim::World<A> {
    let mut world = worldline_sim::World::new(Config { seed, hooks: true });
    let stage = Stage::of(scenario, nodes, seed);
    let mut start = Vec::new();
    for (id, node) in nodes.iter() {
        let spec = spec(id, node, seed);
        let added = match stage.role(node.kind) {
            None => world.add_member(spec),
            Some(role) => {
                let added = world.add_node(spec, inside(role));
                if stage.takes_part(node.kind) && !matches!(node.kind, Kind::Operator(..)) {
                    start.push(added);
                }
                added
            }
        };
        assert_eq!(added, id, "nodes are numbered in the order in which they are added");
    }
    world.set_service_times(service_times::measured());
    let directory = nodes.those(|kind| matches!(kind, Kind::Directory(_)));
    world.set_directory(directory::Config { members: directory });
    let ledger = nodes.those(|kind| matches!(kind, Kind::Ledger(_)));
    world.set_ledger(ledger::Config::new(ledger, seeds(scenario)));
    let bus = nodes.those(|kind| matches!(kind, Kind::Bus(_)));
    world.set_bus(bus::Config::new(bus));
    world.set_cache(cache::Config::new((0..scenario.regions.len()).map(|at| caches(nodes, at)).collect()));
    start.into_iter().for_each(|node| world.start(node));
    world
}

/// The cache of a region, and whom it serves.
fn caches(nodes: &Nodes, at: usize) -> cache::Region {
    cache::Region {
        members: nodes.those(|kind| matches!(kind, Kind::Cache(region, _) if region == at)),
        callers: nodes.those(|kind| match kind {
            Kind::Worker(region, _) | Kind::Gateway(region, _) => region == at,
            // The leader may be any of them; the first region's cache is theirs.
            Kind::Orchestrator(_) => at == 0,
            _ => false,
        }),
    }
}

/// Where a node hangs on the network: in a zone of its city, or on the line that the seed draws for a player.
#[must_use]
pub fn place(node: &Node, seed: u64) -> latency::Place {
    let zone = |n: u16| latency::Place::zone(city(node.place), (n % 3) as u8);
    match node.kind {
        Kind::Directory(n)
        | Kind::Ledger(n)
        | Kind::Bus(n)
        | Kind::Orchestrator(n)
        | Kind::Worker(_, n)
        | Kind::Cache(_, n)
        | Kind::Gateway(_, n) => zone(n),
        Kind::Replica(_) | Kind::Operator(..) => zone(0),
        Kind::Player(_, number) | Kind::Double(_, number) => {
            const LINES: [LastMile; 3] = [LastMile::Fibre, LastMile::Cable, LastMile::Mobile];
            let line = draw::below(seed, Draw::Line, number.into(), LINES.len() as u64);
            latency::Place::player(city(node.place), LINES[line as usize])
        }
    }
}

/// A node's place and clocks.
fn spec(id: NodeId, node: &Node, seed: u64) -> NodeSpec {
    let either_way = |what, span: u64| draw::below(seed, what, id.0.into(), 2 * span + 1) as i64 - span as i64;
    NodeSpec {
        drift_ppm: either_way(Draw::ClockDrift, NTP_DRIFT_PPM) as i32,
        wall_off_ns: either_way(Draw::WallClock, NTP_OFFSET_NS),
        cost: cost::of(node.kind),
        ..NodeSpec::new(node.name.clone(), place(node, seed))
    }
}

/// The world's content: bands of regions, and the bosses beside the middle of theirs, where characters first appear.
///
/// # Panics
/// If the scenario was not read from a file: a read one has at most 16 regions.
#[must_use]
pub fn map(scenario: &Scenario) -> Map {
    let regions = u8::try_from(scenario.regions.len()).expect("a scenario has at most 16 regions");
    let bare = Map::new(regions, BTreeMap::new());
    let place = |(index, boss): (usize, &Boss)| {
        let region = region_id(boss.region);
        let middle = bare.middle(region);
        let position = Position { y_mm: middle.y_mm + BOSS_OFF_MM + BOSSES_APART_MM * index as i64, ..middle };
        (boss.entity, space::Boss { position, region })
    };
    Map::new(regions, scenario.bosses.iter().enumerate().map(place).collect())
}

/// Where a player's character stands at first: in the middle of the region of its boss if it travels there, else of its own.
/// A worker that claims a character without a checkpoint has it appear there too.
fn position(scenario: &Scenario, map: &Map, player: Player) -> Position {
    let target = scenario.workload.target.map(|index| &scenario.bosses[index]);
    let region = target.filter(|_| player.travels).map_or(player.region, |boss| boss.region);
    map.middle(region_id(region))
}

/// Every entity as the ledger begins with it.
#[must_use]
pub fn seeds(scenario: &Scenario) -> Vec<ledger::Seed> {
    let map = map(scenario);
    let characters = players(scenario).map(|player| ledger::Seed {
        entity: character(player.number).entity(),
        position: position(scenario, &map, player),
        pinned: None,
        hit_points: CHARACTER_HIT_POINTS,
        balance: CHARACTER_BALANCE,
    });
    let bosses = scenario.bosses.iter().map(|boss| {
        let placed = map.boss(boss.entity).expect("the map has every boss");
        let (position, pinned) = (placed.position, Some(placed.region));
        ledger::Seed { entity: boss.entity, position, pinned, hit_points: boss.hit_points, balance: boss.purse }
    });
    let npcs =
        scenario.regions.iter().enumerate().flat_map(|(at, region)| std::iter::repeat_n(at, region.npcs as usize));
    let npcs = npcs.zip(1..).map(|(region, number)| ledger::Seed {
        entity: EntityId::new(EntityKind::Npc, number).expect("a small number"),
        position: map.middle(region_id(region)),
        pinned: None,
        hit_points: CHARACTER_HIT_POINTS,
        balance: 0,
    });
    characters.chain(bosses).chain(npcs).collect()
}

/// How a player behaves in a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Conduct(Conduct),
    DoubleLogin,
}

fn behaviour(scenario: &Scenario, number: u32, seed: u64) -> Behaviour {
    let workload = &scenario.workload;
    let drawn = draw::below(seed, Draw::Conduct, number.into(), 1_000) as u16;
    let (first, second) = (workload.speed_hack, workload.speed_hack + workload.reused_numbers);
    match drawn {
        n if n < first => Behaviour::Conduct(Conduct::SpeedHack),
        n if n < second => Behaviour::Conduct(Conduct::ReusesNumbers),
        n if n < second + workload.double_login => Behaviour::DoubleLogin,
        _ => Behaviour::Conduct(Conduct::Honest),
    }
}

/// The characters whose players are logged in twice.
#[must_use]
pub fn logged_in_twice(scenario: &Scenario, seed: u64) -> BTreeSet<CharacterId> {
    behaving(scenario, seed, Behaviour::DoubleLogin)
}

/// The characters whose players move faster than the rules allow.
#[must_use]
pub fn speeders(scenario: &Scenario, seed: u64) -> BTreeSet<CharacterId> {
    behaving(scenario, seed, Behaviour::Conduct(Conduct::SpeedHack))
}

/// Whose tokens end during the run, and when.
#[must_use]
pub fn tokens_that_end(scenario: &Scenario, seed: u64) -> BTreeMap<CharacterId, Instant> {
    let ends = |number| Some((character(number), Instant::default() + token_end(scenario, number, seed)?));
    players(scenario).filter_map(|player| ends(player.number)).collect()
}

/// When, after the beginning, a player's token ends. `None` where it outlives the run.
fn token_end(scenario: &Scenario, number: u32, seed: u64) -> Option<Duration> {
    let short = draw::below(seed, Draw::ShortToken, number.into(), 1_000) < scenario.workload.short_tokens.into();
    let within = draw::below(seed, Draw::TokenEnd, number.into(), (scenario.duration / 2).as_nanos());
    short.then(|| scenario.duration / 4 + Duration::from_nanos(within))
}

fn behaving(scenario: &Scenario, seed: u64, so: Behaviour) -> BTreeSet<CharacterId> {
    let numbers = players(scenario).map(|player| player.number);
    numbers.filter(|&number| behaviour(scenario, number, seed) == so).map(character).collect()
}

/// All that the roles' configurations are made of.
#[derive(Clone, Debug)]
pub struct Stage<'a> {
    scenario: &'a Scenario,
    seed: u64,
    map: Arc<Map>,
    /// By region.
    gateways: Vec<Vec<NodeId>>,
    /// By region.
    replicas: Vec<NodeId>,
    /// The beginning, in milliseconds since 1970.
    begins_unix_ms: u64,
}

impl<'a> Stage<'a> {
    /// Of a seed of a scenario.
    #[must_use]
    pub fn of(scenario: &'a Scenario, nodes: &Nodes, seed: u64) -> Self {
        let of = |at| nodes.those(|kind| matches!(kind, Kind::Gateway(region, _) if region == at));
        Self {
            scenario,
            seed,
            map: Arc::new(map(scenario)),
            gateways: (0..scenario.regions.len()).map(of).collect(),
            replicas: nodes.those(|kind| matches!(kind, Kind::Replica(_))),
            begins_unix_ms: worldline_sim::clock::EPOCH_UNIX_NS / 1_000_000,
        }
    }

    /// The same, of a world that begins at another time than a simulated one does: tokens that end during the run end by that.
    #[must_use]
    pub fn beginning_at(self, begins_unix_ms: u64) -> Self {
        Self { begins_unix_ms, ..self }
    }

    /// The role of a node at its birth. `None` for a member of a service.
    fn role(&self, kind: Kind) -> Option<Cast> {
        let (map, lease, knobs) = (Arc::clone(&self.map), self.scenario.lease, self.scenario.knobs);
        Some(match kind {
            Kind::Directory(_) | Kind::Ledger(_) | Kind::Bus(_) | Kind::Cache(..) => return None,
            Kind::Orchestrator(_) => {
                Cast::Orchestrator(Box::new(Orchestrator::new(orchestrator::Config { map, lease, knobs })))
            }
            Kind::Worker(at, _) => {
                Cast::Worker(Box::new(Worker::new(worker::Config { region: region_id(at), map, lease, knobs })))
            }
            Kind::Gateway(at, n) => {
                let alternates = self.alternates(at, usize::from(n));
                let replicas = vec![self.replica(at)];
                let config = gateway::Config { region: region_id(at), key: TOKEN_KEY, alternates, replicas, knobs };
                Cast::Gateway(Box::new(Gateway::new(config)))
            }
            Kind::Replica(_) => {
                let entities = self.scenario.bosses.iter().map(|boss| boss.entity).collect();
                Cast::Replica(Box::new(Replica::new(replica::Config { entities, retry: knobs.retry })))
            }
            Kind::Operator(_, number) => {
                let characters = vec![character(number)];
                Cast::Operator(Box::new(Operator::new(operator::Config { characters, retry: knobs.retry })))
            }
            Kind::Player(..) | Kind::Double(..) => Cast::Client(Client::new(self.player(kind)?)),
        })
    }

    /// How a player's machine is configured. `None` for what is none.
    #[must_use]
    pub fn player(&self, kind: Kind) -> Option<client::Config> {
        match kind {
            Kind::Player(at, number) => Some(self.client(at, number, Duration::ZERO)),
            Kind::Double(at, number) => Some(self.client(at, number, DOUBLE_LOGIN_AFTER)),
            _ => None,
        }
    }

    /// Whether a node takes part: of the second logins only those that the seed draws do.
    #[must_use]
    pub fn takes_part(&self, kind: Kind) -> bool {
        !matches!(kind, Kind::Double(_, number) if !self.logs_in_twice(number))
    }

    /// What the `n`th gateway of a region names to its clients: the other gateways of the region, and one of another region.
    #[must_use]
    pub fn alternates(&self, at: usize, n: usize) -> Vec<NodeId> {
        let own = &self.gateways[at];
        let others = own.iter().enumerate().filter(|(index, _)| *index != n).map(|(_, node)| *node);
        let elsewhere = (1..self.gateways.len()).map(|step| &self.gateways[(at + step) % self.gateways.len()]);
        others.chain(elsewhere.take(1).filter_map(|gateways| gateways.get(n % gateways.len()).copied())).collect()
    }

    /// The replica of a region.
    #[must_use]
    pub fn replica(&self, at: usize) -> NodeId {
        self.replicas[at]
    }

    fn logs_in_twice(&self, number: u32) -> bool {
        behaviour(self.scenario, number, self.seed) == Behaviour::DoubleLogin
    }

    fn client(&self, at: usize, number: u32, later: Duration) -> client::Config {
        let Scenario { workload, duration, settle, .. } = self.scenario;
        // The nearest first; the players of a region share its gateways out.
        let turned = |gateways: &Vec<NodeId>| {
            let first = number as usize % gateways.len();
            gateways[first..].iter().chain(&gateways[..first]).copied().collect::<Vec<_>>()
        };
        let regions = (0..self.gateways.len()).map(|step| &self.gateways[(at + step) % self.gateways.len()]);
        let arrival = draw::below(self.seed, Draw::Arrival, number.into(), ARRIVALS.as_nanos());
        let conduct = match behaviour(self.scenario, number, self.seed) {
            Behaviour::Conduct(conduct) => conduct,
            Behaviour::DoubleLogin => Conduct::Honest,
        };
        let every = |n: u16| if n == 0 { Duration::ZERO } else { Duration::from_secs(1) / u64::from(n) };
        let character = character(number);
        let ends = token_end(self.scenario, number, self.seed);
        let ends_unix_ms = ends.map(|after| self.begins_unix_ms + after.as_millis());
        let (issued_unix_ms, expires_unix_ms) = (TOKENS_ISSUED_UNIX_MS, ends_unix_ms.unwrap_or(TOKENS_EXPIRE_UNIX_MS));
        client::Config {
            character,
            token: TOKEN_KEY.sign(Claims { character, issued_unix_ms, expires_unix_ms }),
            gateways: regions.flat_map(turned).collect(),
            start: Duration::from_nanos(arrival) + later,
            stop: *duration + (*settle - QUIET.min(*settle / 2)),
            moves_every: every(workload.moves_per_second),
            attacks_every: workload.attack_every,
            target: workload.target.map(|index| self.scenario.bosses[index].entity),
            conduct,
            knobs: self.scenario.knobs,
        }
    }
}

impl Roles for World {
    fn orchestrator_leader(&self) -> Option<NodeId> {
        self.directory()?.records(Family::Leader).find_map(|record| match record.value {
            Value::Leader(leader) => Some(leader.node),
            _ => None,
        })
    }

    fn directory_leader(&self) -> Option<NodeId> {
        self.directory()?.leader(self.core())
    }

    fn ledger_primary(&self) -> Option<NodeId> {
        Some(self.ledger()?.primary())
    }

    fn bus_leader(&self) -> Option<NodeId> {
        self.bus()?.leader(self.core())
    }

    fn owner(&self, entity: EntityId) -> Option<NodeId> {
        let directory = self.directory()?;
        let lease = directory.records(Family::Owners).find_map(|record| match (record.key, record.value) {
            (DirectoryKey::Owner(owned), Value::Owner(ownership)) if owned == entity => Some(ownership.lease),
            _ => None,
        })?;
        directory.records(Family::Workers).find_map(|record| match (record.key, record.value) {
            (DirectoryKey::Worker(of), Value::Worker(worker)) if of == lease => Some(worker.node),
            _ => None,
        })
    }
}

impl Now for World {
    fn lease(&self, node: NodeId) -> Option<LeaseId> {
        let directory = self.directory()?;
        let records = directory.records(Family::Workers).chain(directory.records(Family::Leader));
        let leases = records.filter_map(|record| match (record.key, record.value) {
            (DirectoryKey::Worker(lease), Value::Worker(worker)) => (worker.node == node).then_some(lease),
            (_, Value::Leader(leader)) => (leader.node == node).then_some(leader.lease),
            _ => None,
        });
        leases.last()
    }
}
