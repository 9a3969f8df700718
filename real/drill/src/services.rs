//! The services of one drill: an etcd, a PostgreSQL, a NATS, or clusters of them, and a Valkey a region of its own, so that revision
//! 1, every table and every message are this run's.
//!
//! Started and stopped by `ci/services`, which also starts again what was killed, on the same port and data, and promotes standbys.
//! One that ends, or has to recover, though nobody killed it is a complaint.
//!
//! Invariant: nobody waits for what is started again or promoted while the world goes on. It is asked for, one thing after the other
//! in the order of the asking, and told when it is done.

use crate::{
    command::{Instance, Running as UnderWay},
    faults::{Members, Server, Service},
    processes::{Failed, signal_all},
    stage::Folder,
};
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use worldline_proto::NodeId;

mod copy;

/// What PostgreSQL's log says when one of its processes has died, and all others with it, or when it gives up.
const CRASHED: [&str; 3] = ["was terminated by signal", "server processes terminated; reinitializing", "PANIC:"];

/// The services, each process by itself, by the node whose name its links have.
pub struct Services {
    /// What the command does now. Dropped before the folders, which stop what it has begun.
    under_way: Option<(Task, UnderWay)>,
    /// What it is to do then.
    waiting: VecDeque<Task>,
    /// The folder of etcd, PostgreSQL, NATS and the first region's Valkey, and behind it one for each other region's.
    instances: Vec<Instance>,
    running: BTreeMap<NodeId, Running>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let under_way = self.under_way.as_ref().map(|(task, _)| task);
        f.debug_struct("Services")
            .field("under_way", &under_way)
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

/// What the command is asked to do while the world goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// These run again; all of them are in one folder.
    Start(Vec<Server>),
    /// This standby of PostgreSQL becomes the primary; for that one, if it stops in order and follows it then.
    Promote(NodeId, Option<NodeId>),
    /// This server of PostgreSQL begins anew as a copy of that one, and follows it.
    Copy(NodeId, NodeId),
}

impl Task {
    /// Whether it concerns this server.
    fn concerns(&self, node: NodeId) -> bool {
        match self {
            Self::Start(servers) => servers.iter().any(|server| server.node == node),
            Self::Promote(standby, before) => *standby == node || *before == Some(node),
            Self::Copy(copy, of) => *copy == node || *of == node,
        }
    }
}

#[derive(Clone, Debug)]
struct Running {
    server: Server,
    /// What `ci/services` calls it.
    name: String,
    address: SocketAddr,
    /// `None`: it was killed, or has ended.
    process: Option<Known>,
}

/// A process that a pid alone may not mean any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    pid: i32,
    /// When it began, in ticks since the machine did.
    began: u64,
}

impl Known {
    /// The process that has this pid now.
    fn now(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: the state, and eighteen figures on, when it began.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let began = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, began })
    }

    fn lives(self) -> bool {
        Self::now(self.pid) == Some(self)
    }
}

/// The variable in which `ci/services start` says what runs.
const RUNNING: &str = "WORLDLINE_TEST_SERVERS";

/// Where the service of this name listens, and its process, as `ci/services start` prints it.
fn running(printed: &str, name: &str) -> Result<(SocketAddr, Option<Known>), String> {
    let variable =
        |line: &'_ str| Some(line.strip_prefix("export ")?.strip_prefix(RUNNING)?.strip_prefix('=')?.to_owned());
    let all = printed.lines().find_map(variable).ok_or_else(|| format!("it printed no {RUNNING}"))?;
    let mut each = all.split(',').map(|one| one.split('='));
    let found = each.find_map(|mut parts| (parts.next() == Some(name)).then(|| (parts.next(), parts.next())));
    let odd = || format!("it printed {RUNNING}={all}, which does not say where {name} is and which process");
    let (Some(address), Some(pid)) = found.ok_or_else(odd)? else { return Err(odd()) };
    let (address, pid) = (address.parse().map_err(|_| odd())?, pid.parse().map_err(|_| odd())?);
    Ok((address, Known::now(pid)))
}

/// What `ci/services` calls a service.
const fn kind(service: Service) -> &'static str {
    match service {
        Service::Directory => "etcd",
        Service::Ledger => "postgres",
        Service::Bus => "nats",
        Service::Cache(_) => "valkey",
    }
}

/// What it calls one of its processes.
fn name(Server { service, number, .. }: Server) -> String {
    match (service, number) {
        (_, 0) => kind(service).to_owned(),
        (Service::Ledger, 1) => "postgres-standby".to_owned(),
        (Service::Ledger, _) => format!("postgres-standby-{number}"),
        _ => format!("{}-{}", kind(service), number + 1),
    }
}

/// How it is told what to start in the first folder.
fn arguments(members: &Members) -> Vec<String> {
    let all = [Service::Directory, Service::Ledger, Service::Bus];
    if !all.into_iter().any(|service| members.clustered(service)) {
        return Vec::new();
    }
    let sizes = all.into_iter().chain([Service::Cache(0)]);
    let sizes = sizes.map(|service| format!("{}={}", kind(service), members.of_service(service).count()));
    let sizes: Vec<String> = sizes.collect();
    vec!["--cluster".to_owned(), "--members".to_owned(), sizes.join(",")]
}

impl Services {
    /// Starts all in the folder of a drill.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start(command: &Path, folder: &Folder, members: &Members) -> Result<Self, Failed> {
        let instance = |folder| Instance { command: command.to_owned(), folder, stopped: false };
        let (instances, waiting) = (vec![instance(folder.services())], VecDeque::new());
        let mut services = Self { under_way: None, waiting, instances, running: BTreeMap::new() };
        let printed = services.instances[0].run("start", &arguments(members)).await?;
        for server in members.servers() {
            let at = place(server.service);
            if at == 0 {
                services.found(server, &printed)?;
            } else {
                services.instances.push(instance(folder.path().join(format!("cache-{at}"))));
                let only = ["--only".to_owned(), name(server)];
                let printed = services.instance(server.service).run("start", &only).await?;
                services.found(server, &printed)?;
            }
        }
        Ok(services)
    }

    fn instance(&self, service: Service) -> &Instance {
        &self.instances[place(service)]
    }

    /// Takes the address and the process of a server from what the command has printed.
    fn found(&mut self, server: Server, printed: &str) -> Result<(), Failed> {
        let failed = |why| Failed::Service(format!("{} start: {why}", self.instances[0].command.display()));
        let name = name(server);
        let (address, process) = running(printed, &name).map_err(failed)?;
        self.running.insert(server.node, Running { server, name, address, process });
        Ok(())
    }

    /// Where it listens.
    ///
    /// # Panics
    /// For a node that no process stands for: all others were started.
    #[must_use]
    pub fn address(&self, node: NodeId) -> SocketAddr {
        self.running.get(&node).expect("every server was started").address
    }

    /// The server that `ci/services` calls so, among those of the first folder.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<NodeId> {
        let own = |running: &&Running| place(running.server.service) == 0 && running.name == name;
        self.running.values().find(own).map(|running| running.server.node)
    }

    fn process(&self, node: NodeId) -> Option<Known> {
        self.running.get(&node)?.process
    }

    /// Whether it was not killed, and nobody has seen it end.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.process(node).is_some()
    }

    /// Takes its process away: it is gone, or will be.
    fn take(&mut self, node: NodeId) -> Option<Known> {
        self.running.get_mut(&node)?.process.take()
    }

    /// Looks whether it has ended by itself since the last look; what is wrong then.
    pub fn ended(&mut self, node: NodeId, folder: &Folder) -> Option<String> {
        let known = self.process(node).filter(|known| !known.lives())?;
        self.take(node);
        let running = self.running.get(&node)?;
        let (service, log) = (running.server.service, kept(running, folder));
        Some(format!("{service} (process {}) has ended by itself; its log is {}", known.pid, log.display()))
    }

    /// What the logs of PostgreSQL say of processes that died though nobody killed them: it lives on, and has lost all
    /// connections.
    #[must_use]
    pub fn crashes(&self, folder: &Folder) -> Vec<String> {
        let servers = self.running.values().filter(|running| running.server.service == Service::Ledger);
        let told = servers.flat_map(|running| {
            let log = fs::read(self.log(running)).unwrap_or_default();
            let (log, kept) = (String::from_utf8_lossy(&log).into_owned(), kept(running, folder));
            let lines: Vec<_> =
                crashes(&log).map(|line| format!("PostgreSQL crashed: {line} ({})", kept.display())).collect();
            lines
        });
        told.collect()
    }

    /// Kills it, with all its processes. Whether it was there.
    pub fn kill(&mut self, node: NodeId) -> bool {
        self.take(node).inspect(|known| signal_all(known.pid, Signal::KILL)).is_some()
    }

    /// Stops or continues it, with all its processes. Whether it is there.
    pub fn signal(&self, node: NodeId, signal: Signal) -> bool {
        self.process(node).inspect(|known| signal_all(known.pid, signal)).is_some()
    }

    /// Whether the command has something to do with it that is not yet done.
    #[must_use]
    pub fn is_asked_for(&self, node: NodeId) -> bool {
        let under_way = self.under_way.as_ref().map(|(task, _)| task);
        under_way.into_iter().chain(&self.waiting).any(|task| task.concerns(node))
    }

    /// Whether the command has anything to do that is not yet done.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        self.under_way.is_some() || !self.waiting.is_empty()
    }

    /// Asks for those of these that were killed: on their old ports with their old data, those of one folder at once.
    pub fn start_again(&mut self, nodes: &[NodeId]) {
        let dead = nodes.iter().filter(|&&node| !self.is_asked_for(node)).filter_map(|node| self.running.get(node));
        let dead = dead.filter(|running| running.process.is_none()).map(|running| running.server);
        let (together, apart): (Vec<_>, Vec<_>) = dead.partition(|server| place(server.service) == 0);
        let all = [together].into_iter().chain(apart.into_iter().map(|server| vec![server]));
        self.waiting.extend(all.filter(|servers| !servers.is_empty()).map(Task::Start));
    }

    /// Asks for a standby of PostgreSQL to be made the primary. The one before is dead, and does not come back.
    pub fn promote(&mut self, node: NodeId) {
        self.waiting.push_back(Task::Promote(node, None));
    }

    /// Asks for the primary of PostgreSQL to be stopped in order, and for this standby to be made the primary. Whoever asked sees
    /// it as ended from now on; it may be started again when that is done.
    pub fn switch_over(&mut self, primary: NodeId, standby: NodeId) {
        self.take(primary);
        self.waiting.push_back(Task::Promote(standby, Some(primary)));
    }

    /// Asks for a server of PostgreSQL, which does not run, to become a standby with what the primary has.
    pub fn copy(&mut self, node: NodeId, primary: NodeId) {
        self.waiting.push_back(Task::Copy(node, primary));
    }

    /// Waits until the next thing that was asked for is done; for ever if there is none. Who gives up waiting may wait again. A copy
    /// that came to nothing is told with it: its primary may have gone.
    ///
    /// # Errors
    /// What the command says.
    pub async fn done(&mut self) -> Result<(Task, Option<Failed>), Failed> {
        if self.under_way.is_none()
            && let Some(task) = self.waiting.pop_front()
        {
            let running = self.begin(&task);
            self.under_way = Some((task, running));
        }
        let Some((_, running)) = &mut self.under_way else { return std::future::pending().await };
        let printed = running.as_mut().await;
        let (task, _) = self.under_way.take().expect("it was just waited for");
        match (&task, printed) {
            (Task::Copy(..), Err(why)) => return Ok((task, Some(why))),
            (Task::Copy(node, _), Ok(printed)) => {
                let server = self.running.get(node).expect("every server was started").server;
                self.found(server, &printed)?;
            }
            (Task::Start(servers), printed) => {
                let printed = printed?;
                servers.iter().try_for_each(|server| self.found(*server, &printed))?;
            }
            (Task::Promote(..), printed) => drop(printed?),
        }
        Ok((task, None))
    }

    fn begin(&self, task: &Task) -> UnderWay {
        let called = |node| self.running.get(&node).map_or(String::new(), |running| running.name.clone());
        let (service, what, which) = match task {
            // One folder's all: what runs there stays as it is.
            Task::Start(servers) => match servers[..] {
                [server] => (server.service, "start", vec!["--only".to_owned(), name(server)]),
                _ => (Service::Directory, "start", Vec::new()),
            },
            Task::Promote(node, before) => {
                let orderly = before.map(|_| "--orderly".to_owned());
                let which = ["--only".to_owned(), called(*node)];
                (Service::Ledger, "promote", which.into_iter().chain(orderly).collect())
            }
            Task::Copy(node, primary) => {
                let (instance, only) = (self.instance(Service::Ledger), ["--only".to_owned(), called(*node)]);
                let (copies, starts) = (instance.run("copy", &only), instance.run("start", &only));
                let label = instance.folder.join(called(*node)).join("data/backup_label");
                let primary = self.address(*primary);
                return Box::pin(async move {
                    copy::told(primary, copies, &label).await?;
                    starts.await
                });
            }
        };
        self.instance(service).run(what, &which)
    }

    fn log(&self, running: &Running) -> PathBuf {
        self.instance(running.server.service).folder.join(&running.name).join("log")
    }

    /// Stops all, and keeps their logs.
    ///
    /// # Errors
    /// What the command says.
    pub fn stop(&mut self, folder: &Folder) -> Result<(), Failed> {
        self.waiting.clear();
        self.under_way = None;
        for running in self.running.values() {
            // One that was never started has none.
            let _ = fs::copy(self.log(running), kept(running, folder));
        }
        self.instances.iter_mut().try_for_each(Instance::stop)
    }
}

/// In which folder a service runs.
const fn place(service: Service) -> usize {
    match service {
        Service::Cache(region) => region,
        Service::Directory | Service::Ledger | Service::Bus => 0,
    }
}

/// Where the log of a server is when the services' folder is gone.
fn kept(running: &Running, folder: &Folder) -> PathBuf {
    folder.logs().join(match running.server.service {
        Service::Cache(region) => format!("valkey-{region}.log"),
        _ => format!("{}.log", running.name),
    })
}

/// The lines of PostgreSQL's log that tell of a crash.
fn crashes(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| CRASHED.iter().any(|crashed| line.contains(crashed)))
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
