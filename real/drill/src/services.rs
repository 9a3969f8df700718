//! The services of one drill: an etcd and a PostgreSQL of its own, so that revision 1 and every table are this run's.
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

/// Both services.
#[derive(Debug)]
pub struct Services {
    instance: Instance,
    etcd: Running,
    postgres: Running,
}

/// The folder in which they run, and the command that starts and stops what is in it. Dropped, it stops them, however far
/// they have come.
#[derive(Debug)]
struct Instance {
    command: PathBuf,
    folder: PathBuf,
    /// Where the services' logs are kept.
    logs: PathBuf,
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

impl Services {
    /// Starts both in the folder of a drill.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start(command: &Path, folder: &Folder) -> Result<Self, Failed> {
        let (command, logs) = (command.to_owned(), folder.logs());
        let instance = Instance { command, folder: folder.services(), logs, stopped: false };
        let (etcd, postgres) = instance.start().await?;
        Ok(Self { instance, etcd, postgres })
    }

    fn of(&self, service: Service) -> &Running {
        match service {
            Service::Directory => &self.etcd,
            Service::Ledger => &self.postgres,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self, service: Service) -> SocketAddr {
        self.of(service).address
    }

    /// Whether it was not killed, and nobody has seen it end.
    #[must_use]
    pub fn is_up(&self, service: Service) -> bool {
        self.of(service).process.is_some()
    }

    fn process(&mut self, service: Service) -> &mut Option<Known> {
        match service {
            Service::Directory => &mut self.etcd.process,
            Service::Ledger => &mut self.postgres.process,
        }
    }

    /// Looks whether it has ended by itself since the last look; what is wrong then.
    pub fn ended(&mut self, service: Service) -> Option<String> {
        let process = self.process(service);
        let known = process.filter(|known| !known.lives())?;
        *process = None;
        Some(format!(
            "{service} (process {}) has ended by itself; its log is {}",
            known.pid,
            self.instance.kept(service).display()
        ))
    }

    /// What the log of PostgreSQL says of processes that died though nobody killed them: it lives on, and has lost all
    /// connections.
    #[must_use]
    pub fn crashes(&self) -> Vec<String> {
        let log = fs::read(self.instance.log(Service::Ledger)).unwrap_or_default();
        let kept = self.instance.kept(Service::Ledger);
        crashes(&String::from_utf8_lossy(&log))
            .map(|line| format!("PostgreSQL crashed: {line} ({})", kept.display()))
            .collect()
    }

    /// Kills it, with all its processes. Whether it was there.
    pub fn kill(&mut self, service: Service) -> bool {
        let known = self.process(service).take();
        known.inspect(|known| signal_all(known.pid, Signal::KILL)).is_some()
    }

    /// Stops or continues it, with all its processes. Whether it is there.
    pub fn signal(&self, service: Service, signal: Signal) -> bool {
        self.of(service).process.inspect(|known| signal_all(known.pid, signal)).is_some()
    }

    /// Starts what was killed, on its old port with its old data.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start_again(&mut self) -> Result<(), Failed> {
        if self.etcd.process.is_none() || self.postgres.process.is_none() {
            (self.etcd, self.postgres) = self.instance.start().await?;
        }
        Ok(())
    }

    /// Stops both.
    ///
    /// # Errors
    /// What the command says.
    pub fn stop(&mut self) -> Result<(), Failed> {
        self.instance.stop()
    }
}

impl Instance {
    /// Starts what does not run in the folder.
    async fn start(&self) -> Result<(Running, Running), Failed> {
        let Self { command, folder, .. } = self;
        let failed = |why: &str| Failed::Service(format!("{} start: {why}", command.display()));
        let said = |error: std::io::Error| failed(&error.to_string());
        let child = Command::new(command)
            .arg("start")
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for the drill, which stops it itself.
            .process_group(0)
            .spawn();
        let mut asked = Asked(child.map_err(said)?);
        let (out, errors) = (asked.0.stdout.take(), asked.0.stderr.take());
        let (status, out, errors) = tokio::join!(asked.0.wait(), printed(out), printed(errors));
        if !status.map_err(said)?.success() {
            return Err(failed(errors.trim()));
        }
        let variables = variables(&out);
        match (running(&variables, "WORLDLINE_TEST_ETCD"), running(&variables, "WORLDLINE_TEST_POSTGRES")) {
            (Ok(etcd), Ok(postgres)) => Ok((etcd, postgres)),
            (Err(why), _) | (_, Err(why)) => Err(failed(&why)),
        }
    }

    fn log(&self, service: Service) -> PathBuf {
        let name = match service {
            Service::Directory => "etcd",
            Service::Ledger => "postgres",
        };
        self.folder.join(name).join("log")
    }

    /// Where the log of a service is when the services' folder is gone.
    fn kept(&self, service: Service) -> PathBuf {
        self.logs.join(match service {
            Service::Directory => "etcd.log",
            Service::Ledger => "postgres.log",
        })
    }

    fn stop(&mut self) -> Result<(), Failed> {
        self.stopped = true;
        for service in [Service::Directory, Service::Ledger] {
            // One that was never started has none.
            let _ = fs::copy(self.log(service), self.kept(service));
        }
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use tokio::time::{sleep, timeout};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A drill's folder, and this script in it as the command.
    fn scripted(name: &str, script: &str) -> (Folder, PathBuf) {
        let folder = Folder::create(name, 1).expect("a folder");
        let command = folder.path().join("services.sh");
        fs::write(&command, format!("#!/bin/sh\n{script}\n")).expect("writes");
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).expect("its own file");
        (folder, command)
    }

    async fn until(holds: impl Fn() -> bool) {
        let waits = async {
            while !holds() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waits).await.expect("in time");
    }

    #[tokio::test]
    async fn a_start_that_is_given_up_is_asked_to_stop_and_cleans_up() {
        let script = "here=$(dirname \"$0\")\n[ \"$1\" = start ] || exit 0\n\
            trap 'echo clean >\"$here/cleaned\"; exit 130' TERM\necho up >\"$here/up\"\nwhile :; do sleep 0.01; done";
        let (folder, command) = scripted("services-test-given-up", script);
        let starting = Services::start(&command, &folder);
        tokio::select! {
            _ = starting => panic!("it never ends"),
            () = until(|| folder.path().join("up").exists()) => {}
        }
        assert!(folder.path().join("cleaned").exists());
        folder.remove().expect("removes");
    }

    #[tokio::test]
    async fn a_service_that_ends_by_itself_is_noticed_once() {
        let script = "[ \"$1\" = start ] || exit 0\nfor name in ETCD POSTGRES; do\n\
            sleep 100 </dev/null >/dev/null 2>&1 &\necho \"export WORLDLINE_TEST_$name=http://127.0.0.1:9\"\n\
            echo \"export WORLDLINE_TEST_${name}_PID=$!\"\ndone";
        let (folder, command) = scripted("services-test-ended", script);
        let mut services = Services::start(&command, &folder).await.expect("it starts");
        assert_eq!([Service::Directory, Service::Ledger].map(|service| services.ended(service)), [None, None]);
        let etcd = services.etcd.process.expect("it runs");
        signal_all(etcd.pid, Signal::KILL);
        until(|| !etcd.lives()).await;
        assert!(services.ended(Service::Directory).is_some_and(|why| why.contains("etcd")));
        assert_eq!((services.ended(Service::Directory), services.is_up(Service::Directory)), (None, false));
        assert!(!services.kill(Service::Directory), "it is dead already");
        assert!(services.kill(Service::Ledger));
        assert_eq!(services.ended(Service::Ledger), None, "who was killed is no surprise");
        services.stop().expect("stops");
        folder.remove().expect("removes");
    }

    #[test]
    fn a_crash_of_postgres_is_read_from_its_log_and_an_interruption_is_none() {
        let log = "LOG:  database system was interrupted; last known up at 2026-01-01\n\
            LOG:  database system was not properly shut down; automatic recovery in progress\n\
            LOG:  server process (PID 7) was terminated by signal 11: Segmentation fault\n\
            LOG:  all server processes terminated; reinitializing\n";
        assert_eq!(crashes(log).count(), 2);
    }

    #[test]
    fn what_the_command_prints_is_read() {
        let text = "export WORLDLINE_TEST_SERVICES=/tmp/x\n\
            export WORLDLINE_TEST_POSTGRES=postgres://postgres@127.0.0.1:25432/postgres\n\
            export WORLDLINE_TEST_ETCD=http://127.0.0.1:22379\n";
        let own = std::process::id();
        let text = format!("{text}export WORLDLINE_TEST_POSTGRES_PID={own}\n");
        let variables = variables(&text);
        let postgres = running(&variables, "WORLDLINE_TEST_POSTGRES").expect("reads");
        assert_eq!(
            (postgres.address.port(), postgres.process.map(|known| known.pid)),
            (25_432, i32::try_from(own).ok())
        );
        let error = running(&variables, "WORLDLINE_TEST_ETCD").expect_err("no process");
        assert!(error.contains("WORLDLINE_TEST_ETCD_PID"), "{error}");
    }
}
