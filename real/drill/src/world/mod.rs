//! The running world of a drill: its processes, services and links, and what can be done to them.

mod deeds;
mod failover;
mod ledger;

use crate::{
    bus,
    directory::Directory,
    faults::{Members, Service, Target},
    links::{Ends, Links},
    present::Present,
    processes::{Failed, Process},
    services::{Services, Task},
    stage::{self, Folder, Told},
};
use failover::Primary;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use worldline_ports::Ports;
use worldline_proto::{Incarnation, NodeId};
use worldline_real::clock;
use worldline_scenarios::{
    checkers::{Services as Usable, WorkerState},
    format::Scenario,
    inject::Impaired,
    nodes::{Kind, Nodes},
    world::{self, Stage},
};
use worldline_system::{history::What, time};

/// How long the processes of the roles may take until they are ready.
const READY_PATIENCE: Duration = Duration::from_secs(60);
/// How long a process may take for its orderly stop: a little more than it gives itself.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Where things are that a drill starts.
#[derive(Clone, Copy, Debug)]
pub struct Programs<'a> {
    /// `worldlined`.
    pub server: &'a Path,
    /// `ci/services`.
    pub services: &'a Path,
}

/// What the drill has seen of a process.
pub type Seen = (time::Instant, NodeId, Incarnation, What);

/// A running world.
#[derive(Debug)]
pub struct World<'a> {
    scenario: &'a Scenario,
    seed: u64,
    /// Its nodes.
    pub nodes: Arc<Nodes>,
    /// Which of them the services stand for.
    pub members: Members,
    /// Its links.
    pub links: Links,
    processes: BTreeMap<NodeId, Process>,
    /// etcd, as the drill sees it.
    pub directory: Directory,
    /// Ports are nobody else's while it lives.
    ports: Ports,
    paused: BTreeSet<NodeId>,
    services: Services,
    primary: Primary,
    /// What the drill has seen, in order.
    pub seen: Vec<Seen>,
    /// How often each role's process was started.
    pub started: BTreeMap<NodeId, usize>,
    /// What is wrong that no checker sees.
    pub complaints: Vec<String>,
    /// What has come of what was asked for, in words.
    pub news: Vec<String>,
}

impl<'a> World<'a> {
    /// Starts services, links and the processes of the roles, but no players, and waits until all are ready.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn start(
        scenario: &'a Scenario,
        seed: u64,
        folder: &Folder,
        programs: Programs<'_>,
        cluster: bool,
    ) -> Result<Self, Failed> {
        let nodes = Arc::new(Nodes::of(scenario));
        let members = Members::of(&nodes, cluster);
        let services = Services::start(programs.services, folder, &members).await?;
        let of = |service| members.of_service(service).map(|node| (node, services.address(node)));
        let primary = Primary::new(members.stand_in(Service::Ledger).unwrap_or_default());
        ledger::prepare(scenario, &ledger::url([services.address(primary.node)])).await?;
        let directory = Directory::watch(of(Service::Directory).collect());
        let roles = Stage::of(scenario, &nodes, seed);
        let mut ports = Ports::default();
        let mut listen = BTreeMap::new();
        for node in nodes.those(stage::listens) {
            listen.insert(node, ports.free().map_err(Failed::machine("no port"))?);
        }
        let servers = members.servers().map(|server| (server.node, services.address(server.node)));
        let ends = Ends { roles: listen.clone(), servers: servers.collect() };
        let links = Links::open(&nodes, &members, &ends, &mut ports, seed, |kind| roles.takes_part(kind));
        let links = links.map_err(Failed::machine("cannot open the links"))?;
        stage::prepare(folder, scenario, &nodes)?;
        let (paused, seen, started) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        let (complaints, news) = (Vec::new(), Vec::new());
        let mut world = Self {
            scenario,
            seed,
            nodes,
            members,
            links,
            processes: BTreeMap::new(),
            directory,
            ports,
            paused,
            services,
            primary,
            seen,
            started,
            complaints,
            news,
        };
        let serves = |kind| !player(kind) && !matches!(kind, Kind::Operator(..));
        world.configure(&roles, &listen, folder, programs.server, serves)?;
        let servers = world.nodes.those(serves);
        world.start_all(&servers)?;
        let until = Instant::now() + READY_PATIENCE;
        for node in &servers {
            if let Some(process) = world.processes.get_mut(node) {
                process.ready(until).await?;
            }
        }
        // Last, for the time at which a token ends is counted from when its player starts.
        let roles = roles.beginning_at(clock::unix_now().as_nanos() / 1_000_000);
        world.configure(&roles, &listen, folder, programs.server, |kind| !serves(kind))?;
        Ok(world)
    }

    /// Writes down what the processes of these roles are told.
    fn configure(
        &mut self,
        stage: &Stage<'_>,
        listen: &BTreeMap<NodeId, SocketAddr>,
        folder: &Folder,
        program: &Path,
        those: impl Fn(Kind) -> bool,
    ) -> Result<(), Failed> {
        let told = Told { scenario: self.scenario, stage, folder, links: &self.links, listen, members: &self.members };
        for (id, node) in self.nodes.iter().filter(|(_, node)| stage.takes_part(node.kind) && those(node.kind)) {
            let http = self.ports.free().map_err(Failed::machine("no port"))?;
            let arguments = told.arguments(id, node, http)?;
            if !arguments.is_empty() {
                let process = Process::new(&node.name, program, arguments, folder.log(&node.name), http);
                let ends = player(node.kind) || matches!(node.kind, Kind::Operator(..));
                self.processes.insert(id, if ends { process.that_ends() } else { process });
            }
        }
        Ok(())
    }

    fn start_all(&mut self, nodes: &[NodeId]) -> Result<(), Failed> {
        nodes.iter().try_for_each(|&node| self.start_one(node))
    }

    fn start_one(&mut self, node: NodeId) -> Result<(), Failed> {
        let Some(process) = self.processes.get_mut(&node) else { return Ok(()) };
        *self.started.entry(node).or_default() += 1;
        process.start()
    }

    /// Starts the players' processes.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn start_players(&mut self) -> Result<(), Failed> {
        let players = self.nodes.those(player);
        self.start_all(&players)
    }

    /// How many processes there are.
    #[must_use]
    pub fn processes(&self) -> usize {
        self.processes.len()
    }

    /// Who leads and owns now, as etcd and NATS say.
    pub async fn present(&self) -> Present {
        let known = self.present_without_records();
        let directory = match known.directory {
            None => self.directory.leader().await,
            known => known,
        };
        let bus = match known.bus {
            None => bus::leader(&self.bus()).await.and_then(|name| self.services.named(&name)),
            known => known,
        };
        Present { records: self.directory.records().await, directory, bus, ..known }
    }

    /// Who stands for the services. Of leaders and owners nothing is known, also not among the members of a cluster.
    #[must_use]
    pub fn present_without_records(&self) -> Present {
        let alone = |service| self.members.stand_in(service).filter(|_| !self.members.clustered(service));
        let (directory, bus) = (alone(Service::Directory), alone(Service::Bus));
        Present { records: None, directory, ledger: Some(self.primary.node), bus }
    }

    /// Waits until the next server runs again, or was promoted; for ever if none was asked for. Who gives up waiting may wait again.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn next_done(&mut self) -> Result<(), Failed> {
        match self.services.done().await? {
            (Task::Start(servers), _) => {
                let names = servers.iter().map(|server| Target::Member(server.node).name(&self.nodes));
                let names: Vec<String> = names.collect();
                self.news.push(format!("{} runs again", names.join(", ")));
            }
            (Task::Promote(standby, _), _) => self.promoted(standby),
            (Task::Copy(node, _), failed) => self.followed(node, failed),
        }
        Ok(())
    }

    /// Waits until every server that was asked for runs.
    ///
    /// # Errors
    /// One does not come back.
    pub async fn all_done(&mut self) -> Result<(), Failed> {
        while self.services.is_at_work() {
            self.next_done().await?;
        }
        Ok(())
    }

    /// Looks whether anything has ended that nobody has ended.
    pub fn look_around(&mut self, folder: &Folder) {
        let nodes: Vec<NodeId> = self.processes.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.look_at(Target::Role(node), folder));
        let servers: Vec<NodeId> = self.members.servers().map(|server| server.node).collect();
        servers.into_iter().for_each(|node| self.look_at(Target::Member(node), folder));
        self.complaints.extend(self.links.broken());
    }

    /// Looks whether it has ended though nobody has ended it.
    fn look_at(&mut self, target: Target, folder: &Folder) {
        match target {
            Target::Role(node) => {
                if let Some(Err(complaint)) = self.processes.get_mut(&node).and_then(Process::ended) {
                    self.ended_by_itself(node, complaint, folder);
                }
            }
            Target::Service(_) | Target::Member(_) => {
                let node = self.members.node(target);
                self.complaints.extend(node.and_then(|node| self.services.ended(node, folder)));
            }
        }
    }

    fn ended_by_itself(&mut self, node: NodeId, complaint: String, folder: &Folder) {
        self.complaints.push(complaint);
        self.seen.push((clock::now(), node, life(folder, node), What::Crashed));
    }

    /// Every worker, and whether it could serve, while these nodes cannot be relied on.
    #[must_use]
    pub fn workers(&self, unwell: &BTreeSet<NodeId>) -> Vec<WorkerState> {
        let workers = self.nodes.iter().filter_map(|(node, of)| match of.kind {
            Kind::Worker(region, _) => Some((node, world::region_id(region))),
            _ => None,
        });
        workers.map(|(node, region)| WorkerState { node, region, able: self.able(node, unwell) }).collect()
    }

    /// Whether a server runs: it was not killed, and is not stopped.
    fn runs(&self, server: NodeId) -> bool {
        self.services.is_up(server) && !self.paused.contains(&server)
    }

    /// The members of the directory that run, if they are a majority.
    fn directory_members(&self) -> Vec<NodeId> {
        let all: Vec<NodeId> = self.members.of_service(Service::Directory).collect();
        let up: Vec<NodeId> = all.iter().copied().filter(|&node| self.runs(node)).collect();
        if up.len() * 2 > all.len() { up } else { Vec::new() }
    }

    /// Whether a role runs, can be relied on, and reaches both services: of the directory every member that serves, for it may be
    /// at any of them.
    fn able(&self, node: NodeId, unwell: &BTreeSet<NodeId>) -> bool {
        let linked = |there: &NodeId| self.links.linked(node, *there);
        let directory = self.directory_members();
        let reached = !directory.is_empty() && directory.iter().all(linked);
        let runs = self.processes.get(&node).is_some_and(Process::runs);
        let ledger = self.primary.node;
        runs && !unwell.contains(&node) && reached && self.runs(ledger) && linked(&ledger)
    }

    /// Whether the services can be used, while a fault impairs these.
    #[must_use]
    pub fn usable(&self, unwell: &BTreeSet<NodeId>, impaired: Impaired) -> Usable {
        let orchestrators = self.nodes.those(|kind| matches!(kind, Kind::Orchestrator(_)));
        Usable {
            directory: !self.directory_members().is_empty() && !impaired.directory,
            ledger: self.runs(self.primary.node) && !impaired.ledger,
            orchestrator: orchestrators.into_iter().any(|node| self.able(node, unwell)),
        }
    }

    /// The URL of the ledger's servers that may be its primary, past all links.
    #[must_use]
    pub fn ledger_url(&self) -> String {
        let left = self.members.of_service(Service::Ledger).filter(|node| !self.primary.deposed.contains(node));
        ledger::url(left.map(|node| self.services.address(node)))
    }

    /// Where NATS listens, past all links: those of its servers that run.
    #[must_use]
    pub fn bus(&self) -> Vec<SocketAddr> {
        let up = self.members.of_service(Service::Bus).filter(|&node| self.runs(node));
        up.map(|node| self.services.address(node)).collect()
    }

    /// How often each probe was reached, by all processes that live.
    pub async fn probes(&self) -> BTreeMap<String, u64> {
        let mut probes = BTreeMap::new();
        for process in self.processes.values().filter(|process| process.runs()) {
            for (name, count) in process.probes().await {
                *probes.entry(name).or_default() += count;
            }
        }
        probes
    }

    /// Asks every process to stop in order: players first, then who serves them.
    pub async fn stop(&mut self) {
        let stages: [fn(Kind) -> bool; 6] = [
            |kind| matches!(kind, Kind::Operator(..)),
            player,
            |kind| matches!(kind, Kind::Gateway(..)),
            |kind| matches!(kind, Kind::Worker(..)),
            |kind| matches!(kind, Kind::Replica(_)),
            |kind| matches!(kind, Kind::Orchestrator(_)),
        ];
        for stage in stages {
            let nodes = self.nodes.those(stage);
            let mut stopping = tokio::task::JoinSet::new();
            for node in nodes {
                if let Some(mut process) = self.processes.remove(&node).filter(Process::is_up) {
                    stopping.spawn(async move { process.stop(STOP_PATIENCE).await });
                }
            }
            while let Some(stopped) = stopping.join_next().await {
                self.complaints.extend(stopped.ok().flatten());
            }
        }
    }

    /// Processes that were started for this drill and still run.
    #[must_use]
    pub fn left_behind(&self, folder: &Folder) -> Vec<String> {
        let mine = folder.path().display().to_string();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let lines = entries.filter_map(|entry| {
            let bytes = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
            line.contains(&mine).then(|| format!("process {} still runs: {line}", entry.file_name().display()))
        });
        lines.collect()
    }

    /// Stops the services, after a last look at them.
    ///
    /// # Errors
    /// What the command says.
    pub fn stop_services(&mut self, folder: &Folder) -> Result<(), Failed> {
        self.complaints.extend(self.members.servers().filter_map(|one| self.services.ended(one.node, folder)));
        self.complaints.extend(self.services.crashes(folder));
        self.services.stop(folder)
    }
}

const fn player(kind: Kind) -> bool {
    matches!(kind, Kind::Player(..) | Kind::Double(..))
}

/// The latest life of a node, by its histories.
fn life(folder: &Folder, node: NodeId) -> Incarnation {
    let entries = fs::read_dir(folder.histories()).into_iter().flatten().flatten();
    let lives = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (of, life) = name.strip_suffix(".jsonl")?.split_once('-')?;
        (of == node.to_string()).then(|| life.parse().ok()).flatten()
    });
    Incarnation(lives.max().unwrap_or(0))
}
