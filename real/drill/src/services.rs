//! The services of one drill: an etcd, a PostgreSQL, a NATS and a Valkey a region of its own, so that revision 1, every table and
//! every message are this run's.
//!
//! Started and stopped by `ci/services`, which also starts again what was killed, on the same port and data. One that ends,
//! or has to recover, though nobody killed it is a complaint.

use crate::{
    faults::Service,
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
use worldline_real::clock;

/// How long the command may take to clean up when it is stopped before it has done its work.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The most that the command prints.
const PRINTED_BYTES_MAX: u64 = 1 << 20;
/// What PostgreSQL's log says when one of its processes has died, and all others with it, or when it gives up.
const CRASHED: [&str; 3] = ["was terminated by signal", "server processes terminated; reinitializing", "PANIC:"];

/// The services, each by itself.
#[derive(Debug)]
pub struct Services {
    /// The folder of etcd, PostgreSQL, NATS and the first region's Valkey, and behind it one for each other region's.
    instances: Vec<Instance>,
    running: BTreeMap<Service, Running>,
}

/// A folder in which some run, and the command that starts and stops what is in it. Dropped, it stops them, however far they
/// have come.
#[derive(Debug)]
struct Instance {
    command: PathBuf,
    folder: PathBuf,
    stopped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Running {
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

/// What `ci/services start` prints, by the names of the variables.
fn variables(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('=')).collect()
}

/// The address and the process of a service, as the variables of this name say.
fn running(variables: &BTreeMap<&str, &str>, name: &str) -> Result<Running, String> {
    let value = |name: &str| variables.get(name).copied().ok_or_else(|| format!("it printed no {name}"));
    let url = value(name)?;
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let address = authority.split('/').next().unwrap_or_default();
    let address = address.parse().map_err(|_| format!("it printed {name}={url}, which has no address"))?;
    let pid = value(&format!("{name}_PID"))?;
    let pid = pid.parse().map_err(|_| format!("it printed {name}_PID={pid}, which is no process"))?;
    Ok(Running { address, process: Known::now(pid) })
}

/// What `ci/services` calls a service, and its variable.
const fn named(service: Service) -> (&'static str, &'static str) {
    match service {
        Service::Directory => ("etcd", "WORLDLINE_TEST_ETCD"),
        Service::Ledger => ("postgres", "WORLDLINE_TEST_POSTGRES"),
        Service::Bus => ("nats", "WORLDLINE_TEST_NATS"),
        Service::Cache(_) => ("valkey", "WORLDLINE_TEST_VALKEY"),
    }
}

impl Services {
    /// Starts all in the folder of a drill, with a Valkey for each of so many regions.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start(command: &Path, folder: &Folder, regions: usize) -> Result<Self, Failed> {
        let instance = |folder| Instance { command: command.to_owned(), folder, stopped: false };
        let mut services = Self { instances: vec![instance(folder.services())], running: BTreeMap::new() };
        let printed = services.instances[0].start(None).await?;
        for service in [Service::Directory, Service::Ledger, Service::Bus, Service::Cache(0)] {
            services.found(service, &printed)?;
        }
        for region in 1..regions {
            services.instances.push(instance(folder.path().join(format!("cache-{region}"))));
            services.start_one(Service::Cache(region)).await?;
        }
        Ok(services)
    }

    /// Where a service runs.
    fn place(service: Service) -> usize {
        match service {
            Service::Cache(region) => region,
            Service::Directory | Service::Ledger | Service::Bus => 0,
        }
    }

    fn instance(&self, service: Service) -> &Instance {
        &self.instances[Self::place(service)]
    }

    /// Takes the address and the process of a service from what the command has printed.
    fn found(&mut self, service: Service, printed: &str) -> Result<(), Failed> {
        let failed = |why| Failed::Service(format!("{} start: {why}", self.instances[0].command.display()));
        let running = running(&variables(printed), named(service).1).map_err(failed)?;
        self.running.insert(service, running);
        Ok(())
    }

    async fn start_one(&mut self, service: Service) -> Result<(), Failed> {
        let printed = self.instance(service).start(Some(named(service).0)).await?;
        self.found(service, &printed)
    }

    /// Where it listens.
    ///
    /// # Panics
    /// For a region that there is not: all others were started.
    #[must_use]
    pub fn address(&self, service: Service) -> SocketAddr {
        self.running.get(&service).expect("every service was started").address
    }

    fn process(&self, service: Service) -> Option<Known> {
        self.running.get(&service)?.process
    }

    /// Whether it was not killed, and nobody has seen it end.
    #[must_use]
    pub fn is_up(&self, service: Service) -> bool {
        self.process(service).is_some()
    }

    /// Takes its process away: it is gone, or will be.
    fn take(&mut self, service: Service) -> Option<Known> {
        self.running.get_mut(&service)?.process.take()
    }

    /// Looks whether it has ended by itself since the last look; what is wrong then.
    pub fn ended(&mut self, service: Service, folder: &Folder) -> Option<String> {
        let known = self.process(service).filter(|known| !known.lives())?;
        self.take(service);
        let log = kept(service, folder);
        Some(format!("{service} (process {}) has ended by itself; its log is {}", known.pid, log.display()))
    }

    /// What the log of PostgreSQL says of processes that died though nobody killed them: it lives on, and has lost all
    /// connections.
    #[must_use]
    pub fn crashes(&self, folder: &Folder) -> Vec<String> {
        let log = fs::read(self.log(Service::Ledger)).unwrap_or_default();
        let kept = kept(Service::Ledger, folder);
        crashes(&String::from_utf8_lossy(&log))
            .map(|line| format!("PostgreSQL crashed: {line} ({})", kept.display()))
            .collect()
    }

    /// Kills it, with all its processes. Whether it was there.
    pub fn kill(&mut self, service: Service) -> bool {
        self.take(service).inspect(|known| signal_all(known.pid, Signal::KILL)).is_some()
    }

    /// Stops or continues it, with all its processes. Whether it is there.
    pub fn signal(&self, service: Service, signal: Signal) -> bool {
        self.process(service).inspect(|known| signal_all(known.pid, signal)).is_some()
    }

    /// Starts it if it was killed, on its old port with its old data.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start_again(&mut self, service: Service) -> Result<(), Failed> {
        if self.is_up(service) { Ok(()) } else { self.start_one(service).await }
    }

    fn log(&self, service: Service) -> PathBuf {
        self.instance(service).folder.join(named(service).0).join("log")
    }

    /// Stops all, and keeps their logs.
    ///
    /// # Errors
    /// What the command says.
    pub fn stop(&mut self, folder: &Folder) -> Result<(), Failed> {
        for &service in self.running.keys() {
            // One that was never started has none.
            let _ = fs::copy(self.log(service), kept(service, folder));
        }
        self.instances.iter_mut().try_for_each(Instance::stop)
    }
}

/// Where the log of a service is when the services' folder is gone.
fn kept(service: Service, folder: &Folder) -> PathBuf {
    folder.logs().join(match service {
        Service::Cache(region) => format!("valkey-{region}.log"),
        other => format!("{}.log", named(other).0),
    })
}

impl Instance {
    /// Starts what does not run in the folder, or of that only this; what the command prints.
    async fn start(&self, only: Option<&str>) -> Result<String, Failed> {
        let Self { command, folder, .. } = self;
        let failed = |why: &str| Failed::Service(format!("{} start: {why}", command.display()));
        let said = |error: std::io::Error| failed(&error.to_string());
        let child = Command::new(command)
            .arg("start")
            .arg("--dir")
            .arg(folder)
            .args(only.iter().flat_map(|name| ["--only", name]))
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
