//! The services of one drill: an etcd and a PostgreSQL of its own, so that revision 1 and every table are this run's.
//!
//! Started and stopped by `ci/services`, which also starts again what was killed, on the same port and data.

use crate::{
    faults::Service,
    processes::{Failed, signal_all},
};
use rustix::process::Signal;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

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
    stopped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    address: SocketAddr,
    /// `None`: it was killed.
    pid: Option<i32>,
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
    Ok(Running { address, pid: Some(pid) })
}

impl Services {
    /// Starts both in a new folder.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start(command: &Path, folder: &Path) -> Result<Self, Failed> {
        let instance = Instance { command: command.to_owned(), folder: folder.to_owned(), stopped: false };
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

    /// Whether it was not killed.
    #[must_use]
    pub fn is_up(&self, service: Service) -> bool {
        self.of(service).pid.is_some()
    }

    /// Kills it, with all its processes.
    pub fn kill(&mut self, service: Service) {
        let running = match service {
            Service::Directory => &mut self.etcd,
            Service::Ledger => &mut self.postgres,
        };
        if let Some(pid) = running.pid.take() {
            signal_all(pid, Signal::KILL);
        }
    }

    /// Stops or continues it, with all its processes.
    pub fn signal(&self, service: Service, signal: Signal) {
        if let Some(pid) = self.of(service).pid {
            signal_all(pid, signal);
        }
    }

    /// Starts what was killed, on its old port with its old data.
    ///
    /// # Errors
    /// What the command says.
    pub async fn start_again(&mut self) -> Result<(), Failed> {
        if self.etcd.pid.is_none() || self.postgres.pid.is_none() {
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
        let asked = Command::new(command)
            .arg("start")
            .arg("--dir")
            .arg(folder)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        let failed = |why: &str| Failed::Service(format!("{} start: {why}", command.display()));
        let output = asked.map_err(|error| failed(&error.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).trim()));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let variables = variables(&text);
        match (running(&variables, "WORLDLINE_TEST_ETCD"), running(&variables, "WORLDLINE_TEST_POSTGRES")) {
            (Ok(etcd), Ok(postgres)) => Ok((etcd, postgres)),
            (Err(why), _) | (_, Err(why)) => Err(failed(&why)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_prints_is_read() {
        let text = "export WORLDLINE_TEST_SERVICES=/tmp/x\n\
            export WORLDLINE_TEST_POSTGRES=postgres://postgres@127.0.0.1:25432/postgres\n\
            export WORLDLINE_TEST_POSTGRES_PID=17\nexport WORLDLINE_TEST_ETCD=http://127.0.0.1:22379\n";
        let variables = variables(text);
        let postgres = running(&variables, "WORLDLINE_TEST_POSTGRES").expect("reads");
        assert_eq!((postgres.address.port(), postgres.pid), (25_432, Some(17)));
        let error = running(&variables, "WORLDLINE_TEST_ETCD").expect_err("no process");
        assert!(error.contains("WORLDLINE_TEST_ETCD_PID"), "{error}");
    }
}
