//! The services of one drill: an etcd, a PostgreSQL, a NATS, or clusters of them, and a Valkey a region of its own, so that revision
//! 1, every table and every message are this run's.
//!
//! Started and stopped by `ci/services`, which also starts again what was killed, on the same port and data, and promotes standbys.
//! One that ends, or has to recover, though nobody killed it is a complaint.

use crate::{
    faults::{Members, Server, Service},
    processes::{Failed, signal_all},
    stage::Folder,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
};
use worldline_proto::NodeId;
use worldline_real::clock;

/// How long the command may take to clean up when it is stopped before it has done its work.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The most that the command prints.
const PRINTED_BYTES_MAX: u64 = 1 << 20;
/// What PostgreSQL's log says when one of its processes has died, and all others with it, or when it gives up.
const CRASHED: [&str; 3] = ["was terminated by signal", "server processes terminated; reinitializing", "PANIC:"];

/// The services, each process by itself, by the node whose name its links have.
#[derive(Debug)]
pub struct Services {
    /// The folder of etcd, PostgreSQL, NATS and the first region's Valkey, and behind it one for each other region's.
    instances: Vec<Instance>,
    running: BTreeMap<NodeId, Running>,
}

/// A folder in which some run, and the command that starts and stops what is in it. Dropped, it stops them, however far they
/// have come.
#[derive(Debug)]
struct Instance {
    command: PathBuf,
    folder: PathBuf,
    stopped: bool,
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
        let mut services = Self { instances: vec![instance(folder.services())], running: BTreeMap::new() };
        let printed = services.instances[0].run("start", &arguments(members)).await?;
        for server in members.servers() {
            let at = place(server.service);
            if at == 0 {
                services.found(server, &printed)?;
            } else {
                services.instances.push(instance(folder.path().join(format!("cache-{at}"))));
                services.start_one(server).await?;
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

    async fn start_one(&mut self, server: Server) -> Result<(), Failed> {
        let printed = self.instance(server.service).run("start", &["--only".to_owned(), name(server)]).await?;
        self.found(server, &printed)
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

    /// Starts it if it was killed, on its old port with its old data.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start_again(&mut self, node: NodeId) -> Result<(), Failed> {
        match self.running.get(&node) {
            Some(running) if running.process.is_none() => self.start_one(running.server).await,
            _ => Ok(()),
        }
    }

    /// Starts all of these that were killed: those of one folder at once.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start_all_again(&mut self, nodes: &[NodeId]) -> Result<(), Failed> {
        let dead = nodes.iter().filter_map(|node| self.running.get(node)).filter(|running| running.process.is_none());
        let dead: Vec<Server> = dead.map(|running| running.server).collect();
        let (together, apart): (Vec<_>, Vec<_>) = dead.into_iter().partition(|server| place(server.service) == 0);
        if !together.is_empty() {
            let printed = self.instances[0].run("start", &[]).await?;
            together.into_iter().try_for_each(|server| self.found(server, &printed))?;
        }
        for server in apart {
            self.start_one(server).await?;
        }
        Ok(())
    }

    /// Makes a standby of PostgreSQL the primary. The one before is dead, and does not come back.
    ///
    /// # Errors
    /// What the command says.
    pub async fn promote(&self, node: NodeId) -> Result<(), Failed> {
        let Some(running) = self.running.get(&node) else { return Ok(()) };
        let which = ["--only".to_owned(), running.name.clone()];
        self.instance(Service::Ledger).run("promote", &which).await.map(drop)
    }

    fn log(&self, running: &Running) -> PathBuf {
        self.instance(running.server.service).folder.join(&running.name).join("log")
    }

    /// Stops all, and keeps their logs.
    ///
    /// # Errors
    /// What the command says.
    pub fn stop(&mut self, folder: &Folder) -> Result<(), Failed> {
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

impl Instance {
    /// Has the command do this in the folder; what it prints.
    async fn run(&self, what: &str, arguments: &[String]) -> Result<String, Failed> {
        let Self { command, folder, .. } = self;
        let failed = |why: &str| Failed::Service(format!("{} {what}: {why}", command.display()));
        let said = |error: std::io::Error| failed(&error.to_string());
        let child = Command::new(command)
            .arg(what)
            .arg("--dir")
            .arg(folder)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the drill, which stops it itself.
            .process_group(0)
            .spawn();
        let mut asked = Asked(child.map_err(said)?);
        let (out, errors) = (asked.0.stdout.take(), asked.0.stderr.take());
        let (status, out, errors) = tokio::join!(asked.0.wait(), printed(out), printed(errors));
        if status.map_err(said)?.success() { Ok(out) } else { Err(failed(errors.trim())) }
    }

    fn stop(&mut self) -> Result<(), Failed> {
        self.stopped = true;
        let Self { command, folder, .. } = self;
        let asked = std::process::Command::new(&*command)
            .arg("stop")
            .arg("--dir")
            .arg(&*folder)
            .stdin(Stdio::null())
            .process_group(0) // Ctrl-C is what it may be called for.
            .output();
        let failed = |why: &str| Err(Failed::Service(format!("{} stop: {why}", command.display())));
        match asked {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => failed(String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) => failed(&error.to_string()),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.stopped
            && let Err(error) = self.stop()
        {
            eprintln!("{error}");
        }
    }
}

/// The command at work. Dropped before its end it is asked to stop, and cleans up what it has begun.
#[derive(Debug)]
struct Asked(Child);

impl Drop for Asked {
    fn drop(&mut self) {
        let pid = self.0.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let Some(pid) = pid else { return };
        let _ = kill_process(pid, Signal::TERM);
        let begun = clock::now();
        while let Ok(None) = self.0.try_wait() {
            if u128::from(clock::now().since(begun).as_nanos()) >= STOP_PATIENCE.as_nanos() {
                let _ = self.0.start_kill();
                return;
            }
            // This may be the one thread there is: nobody would wake it.
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}

/// All that comes out of a pipe.
async fn printed(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What came until it broke is what was printed.
        let _ = pipe.take(PRINTED_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The lines of PostgreSQL's log that tell of a crash.
fn crashes(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| CRASHED.iter().any(|crashed| line.contains(crashed)))
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
