//! The running world of a drill: its processes, services and links, and what can be done to them.

use crate::{
    collect::{Directory, Present},
    faults::{Deed, Effect, Members, Service, Target},
    links::{Ends, Links},
    ports::Ports,
    processes::{Failed, Process},
    services::Services,
    stage::{self, Folder, Told},
};
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;
use worldline_proto::{Incarnation, NodeId};
use worldline_real::{clock, ledger};
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
    _ports: Ports,
    paused: BTreeSet<Service>,
    services: Services,
    /// What the drill has seen, in order.
    pub seen: Vec<Seen>,
    /// How often each role's process was started.
    pub started: BTreeMap<NodeId, usize>,
    /// What is wrong that no checker sees.
    pub complaints: Vec<String>,
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
    ) -> Result<Self, Failed> {
        let nodes = Arc::new(Nodes::of(scenario));
        let members = Members::of(&nodes);
        let services = Services::start(programs.services, folder).await?;
        prepare_ledger(scenario, &services).await?;
        let directory = Directory::watch(services.address(Service::Directory));
        let roles = Stage::of(scenario, &nodes, seed);
        let mut ports = Ports::new(seed ^ u64::from(std::process::id()) << 32);
        let mut listen = BTreeMap::new();
        for node in nodes.those(|kind| matches!(kind, Kind::Gateway(..) | Kind::Worker(..))) {
            listen.insert(node, ports.free().map_err(Failed::machine("no port"))?);
        }
        let ends = Ends {
            roles: listen.clone(),
            directory: services.address(Service::Directory),
            ledger: services.address(Service::Ledger),
        };
        let links = Links::open(&nodes, &members, &ends, &mut ports, seed, |kind| roles.takes_part(kind));
        let links = links.map_err(Failed::machine("cannot open the links"))?;
        stage::prepare(folder, scenario, &nodes)?;
        let told = Told { scenario, stage: &roles, folder, links: &links, listen: &listen, members: &members };
        let mut processes = BTreeMap::new();
        for (id, node) in nodes.iter().filter(|(_, node)| roles.takes_part(node.kind)) {
            let http = ports.free().map_err(Failed::machine("no port"))?;
            let arguments = told.arguments(id, node, http)?;
            if !arguments.is_empty() {
                let process = Process::new(&node.name, programs.server, arguments, folder.log(&node.name), http);
                processes.insert(id, if player(node.kind) { process.that_ends() } else { process });
            }
        }
        let (paused, seen, started, complaints) = (BTreeSet::new(), Vec::new(), BTreeMap::new(), Vec::new());
        let mut world = Self {
            scenario,
            nodes,
            members,
            links,
            processes,
            directory,
            _ports: ports,
            paused,
            services,
            seen,
            started,
            complaints,
        };
        let servers = world.nodes.those(|kind| !player(kind));
        world.start_all(&servers)?;
        let until = Instant::now() + READY_PATIENCE;
        for node in &servers {
            if let Some(process) = world.processes.get_mut(node) {
                process.ready(until).await?;
            }
        }
        Ok(world)
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

    /// Who leads and owns now, as etcd says.
    pub async fn present(&self) -> Present {
        Present { records: self.directory.records().await, ..self.present_without_records() }
    }

    /// Who stands for the services. Of leaders and owners nothing is known.
    #[must_use]
    pub fn present_without_records(&self) -> Present {
        Present {
            records: None,
            directory: self.members.stand_in(Service::Directory),
            ledger: self.members.stand_in(Service::Ledger),
        }
    }

    /// Looks whether anything has ended that nobody has ended.
    pub fn look_around(&mut self, folder: &Folder) {
        let nodes: Vec<NodeId> = self.processes.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.look_at(Target::Role(node), folder));
        [Service::Directory, Service::Ledger].into_iter().for_each(|one| self.look_at(Target::Service(one), folder));
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
            Target::Service(service) => self.complaints.extend(self.services.ended(service)),
        }
    }

    fn ended_by_itself(&mut self, node: NodeId, complaint: String, folder: &Folder) {
        self.complaints.push(complaint);
        self.seen.push((clock::now(), node, life(folder, node), What::Crashed));
    }

    /// Does what a fault demands, and says whether anything is otherwise for it.
    ///
    /// # Errors
    /// What cannot be started again.
    pub async fn act(&mut self, deed: &Deed, folder: &Folder) -> Result<Effect, Failed> {
        let dead = |nodes: &Nodes, target: &Target| format!("{} does not run", target.name(nodes));
        Ok(match deed {
            Deed::Crash(target) => {
                self.targeted(*target).into_iter().for_each(|node| self.links.crashed(node));
                let killed = self.kill(*target, folder).await;
                Effect::of(killed, || dead(&self.nodes, target))
            }
            Deed::Kill(target) => {
                let killed = self.kill(*target, folder).await;
                Effect::of(killed, || dead(&self.nodes, target))
            }
            Deed::Stop(target) => {
                self.look_at(*target, folder);
                let asked = match target {
                    Target::Role(node) => self.processes.get_mut(node).is_some_and(Process::ask_to_stop),
                    Target::Service(_) => self.kill(*target, folder).await,
                };
                Effect::of(asked, || dead(&self.nodes, target))
            }
            Deed::Restart(target) => {
                let killed = self.kill(*target, folder).await;
                self.start_again(*target).await?;
                Effect::of(killed, || format!("{}: it is only started", dead(&self.nodes, target)))
            }
            Deed::StartIfDead(target) => {
                self.start_again(*target).await?;
                Effect::Hit
            }
            Deed::Pause(target) => {
                self.look_at(*target, folder);
                let paused = self.signal(*target, Signal::STOP);
                Effect::of(paused, || format!("{}, or is stopped already", dead(&self.nodes, target)))
            }
            Deed::Resume(target) => {
                self.signal(*target, Signal::CONT);
                Effect::Hit
            }
            Deed::Cut { id, from, to, both } => self.links.cut(*id, from, to, *both),
            Deed::Degrade { id, from, to, both, how } => self.links.degrade(*id, from, to, *both, *how),
            Deed::Mend(id) => {
                self.links.mend(*id);
                Effect::Hit
            }
            // What these hit, their end tells.
            Deed::LoseAnswers { from, permille, count } => {
                self.links.statements().lose_answers(*from, *permille, *count);
                Effect::Hit
            }
            Deed::LoseConnections(permille, when) => {
                self.links.statements().lose_connections(*permille, *when);
                Effect::Hit
            }
            Deed::DelayCommits(from, by) => {
                self.links.statements().delay_commits(*from, *by);
                Effect::Hit
            }
            Deed::Revoke(lease) => match self.directory.revoke(*lease).await {
                Ok(_) => Effect::Hit,
                Err(why) => Effect::Nothing(format!("lease {lease} was not revoked: {why}")),
            },
            Deed::Compact => match self.directory.compact().await {
                Ok(_) => Effect::Hit,
                Err(why) => Effect::Nothing(format!("etcd was not compacted: {why}")),
            },
        })
    }

    /// The node whose links are those of a target.
    fn targeted(&self, target: Target) -> Option<NodeId> {
        match target {
            Target::Role(node) => Some(node),
            Target::Service(service) => self.members.stand_in(service),
        }
    }

    /// Whether it was this that ended it.
    async fn kill(&mut self, target: Target, folder: &Folder) -> bool {
        match target {
            Target::Role(node) => {
                let Some(process) = self.processes.get_mut(&node) else { return false };
                // What it still writes until it is gone is put before this.
                let at = clock::now();
                match process.kill().await {
                    Ok(true) => {
                        self.seen.push((at, node, life(folder, node), What::Crashed));
                        true
                    }
                    Ok(false) => false,
                    Err(complaint) => {
                        self.ended_by_itself(node, complaint, folder);
                        false
                    }
                }
            }
            Target::Service(service) => {
                self.look_at(target, folder);
                self.paused.remove(&service);
                self.services.kill(service)
            }
        }
    }

    async fn start_again(&mut self, target: Target) -> Result<(), Failed> {
        self.targeted(target).into_iter().for_each(|node| self.links.started(node));
        match target {
            Target::Role(node) => match self.processes.get(&node) {
                Some(process) if !process.is_up() => self.start_one(node),
                _ => Ok(()),
            },
            Target::Service(_) => self.services.start_again().await,
        }
    }

    /// Stops or continues it. Whether that changes anything.
    fn signal(&mut self, target: Target, signal: Signal) -> bool {
        match target {
            Target::Role(node) => self.processes.get_mut(&node).is_some_and(|process| process.signal(signal)),
            Target::Service(service) => {
                let there = self.services.signal(service, signal);
                let changed = match signal {
                    Signal::STOP if there => self.paused.insert(service),
                    _ => self.paused.remove(&service),
                };
                there && changed
            }
        }
    }

    /// Ends every fault. Roles that are dead stay dead; the services come back.
    ///
    /// # Errors
    /// A service does not come back.
    pub async fn heal(&mut self) -> Result<(), Failed> {
        self.links.heal(self.scenario.faults.len());
        for service in [Service::Directory, Service::Ledger] {
            self.signal(Target::Service(service), Signal::CONT);
            self.start_again(Target::Service(service)).await?;
        }
        for process in self.processes.values_mut() {
            process.signal(Signal::CONT);
        }
        Ok(())
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

    /// Whether a role runs, can be relied on, and reaches both services.
    fn able(&self, node: NodeId, unwell: &BTreeSet<NodeId>) -> bool {
        let reaches = |service| {
            let up = self.services.is_up(service) && !self.paused.contains(&service);
            up && self.members.stand_in(service).is_some_and(|there| self.links.linked(node, there))
        };
        let runs = self.processes.get(&node).is_some_and(Process::runs);
        runs && !unwell.contains(&node) && reaches(Service::Directory) && reaches(Service::Ledger)
    }

    /// Whether the services can be used, while a fault impairs these.
    #[must_use]
    pub fn usable(&self, unwell: &BTreeSet<NodeId>, impaired: Impaired) -> Usable {
        let up = |service| self.services.is_up(service) && !self.paused.contains(&service);
        let orchestrators = self.nodes.those(|kind| matches!(kind, Kind::Orchestrator(_)));
        Usable {
            directory: up(Service::Directory) && !impaired.directory,
            ledger: up(Service::Ledger) && !impaired.ledger,
            orchestrator: orchestrators.into_iter().any(|node| self.able(node, unwell)),
        }
    }

    /// The ledger's URL, past all links.
    #[must_use]
    pub fn ledger_url(&self) -> String {
        url(&self.services)
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
        let stages: [fn(Kind) -> bool; 4] = [
            player,
            |kind| matches!(kind, Kind::Gateway(..)),
            |kind| matches!(kind, Kind::Worker(..)),
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
    pub fn stop_services(&mut self) -> Result<(), Failed> {
        self.complaints
            .extend([Service::Directory, Service::Ledger].into_iter().filter_map(|one| self.services.ended(one)));
        self.complaints.extend(self.services.crashes());
        self.services.stop()
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

fn url(services: &Services) -> String {
    format!("postgres://postgres@{}/postgres", services.address(Service::Ledger))
}

/// The schema, everything journaled, and every entity as the scenario begins with it.
async fn prepare_ledger(scenario: &Scenario, services: &Services) -> Result<(), Failed> {
    use sqlx::{Connection as _, Executor as _};
    let url = url(services);
    let failed = |why: String| Failed::Service(format!("the ledger cannot be prepared: {why}"));
    ledger::migrate(&url).await.map_err(|problem| failed(problem.to_string()))?;
    let seed = |seed: worldline_sim::ledger::Seed| ledger::Seed {
        entity: seed.entity,
        position: seed.position,
        pinned: seed.pinned,
        hit_points: seed.hit_points,
        balance: seed.balance,
    };
    let seeds: Vec<_> = world::seeds(scenario).into_iter().map(seed).collect();
    ledger::seed(&url, &seeds).await.map_err(|problem| failed(problem.to_string()))?;
    let audit = async {
        let mut connection = sqlx::PgConnection::connect(&url).await?;
        connection.execute("alter database postgres set worldline.audit = 'full'").await?;
        connection.close().await?;
        // A setting of the database is that of connections made from now on.
        let mut connection = sqlx::PgConnection::connect(&url).await?;
        let asked = "select current_setting('worldline.audit', true), current_setting('track_commit_timestamp', true)";
        let (audit, dated): (Option<String>, Option<String>) = sqlx::query_as(asked).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok([("worldline.audit", audit, "full"), ("track_commit_timestamp", dated, "on")])
    };
    let settings = audit.await.map_err(|error: sqlx::Error| failed(error.to_string()))?;
    unset(&settings).map_or(Ok(()), |why| Err(failed(why)))
}

/// A setting that is not as it has to be for a journal that can be judged: name, what it is, what it has to be.
fn unset(settings: &[(&str, Option<String>, &str)]) -> Option<String> {
    let wrong = settings.iter().find(|(_, is, wanted)| is.as_deref() != Some(wanted));
    wrong.map(|(name, is, wanted)| {
        format!("`{name}` is `{}` and has to be `{wanted}`", is.as_deref().unwrap_or("unset"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_that_dates_no_commits_or_journals_only_some_is_refused() {
        let settings = |audit: Option<&str>, dated: &str| {
            let (audit, dated) = (audit.map(str::to_owned), Some(dated.to_owned()));
            unset(&[("worldline.audit", audit, "full"), ("track_commit_timestamp", dated, "on")])
        };
        assert_eq!(settings(Some("full"), "on"), None);
        let why = settings(Some("full"), "off").expect("refused");
        assert_eq!(why, "`track_commit_timestamp` is `off` and has to be `on`");
        let why = settings(None, "on").expect("refused");
        assert_eq!(why, "`worldline.audit` is `unset` and has to be `full`");
    }
}
