//! The services as a cluster of a test's own, `ci/services start --cluster`, and what befalls the one of them that leads.

use crate::{
    hosted::Hosted,
    postgres::{services, value},
    process::Place,
};
use rustix::process::{Pid, Signal, kill_process};
use worldline_laws::Fault;

/// A service of the cluster: the variable that says where it is, and its servers' names in the order of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Etcd,
    Nats,
    Valkey,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Postgres, Self::Etcd, Self::Nats, Self::Valkey];

    fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "WORLDLINE_TEST_POSTGRES",
            Self::Etcd => "WORLDLINE_TEST_ETCD",
            Self::Nats => "WORLDLINE_TEST_NATS",
            Self::Valkey => "WORLDLINE_TEST_VALKEY",
        }
    }

    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres", "postgres-standby"],
            Self::Etcd => &["etcd", "etcd-2", "etcd-3"],
            Self::Nats => &["nats", "nats-2", "nats-3"],
            Self::Valkey => &["valkey", "valkey-replica"],
        }
    }
}

/// One server.
struct Server {
    kind: Kind,
    /// `127.0.0.1:PORT`.
    place: String,
    pid: i32,
}

/// All of them.
pub struct Cluster {
    folder: String,
    servers: Vec<Server>,
}

/// Where servers are, out of a list of addresses or of one address with several.
fn places(addresses: &str) -> Vec<String> {
    let place = |address: &str| {
        let after = address.rsplit_once("//").map_or(address, |(_, after)| after);
        let after = after.rsplit_once('@').map_or(after, |(_, after)| after);
        after.split('/').next().expect("a place").to_owned()
    };
    addresses.split(',').map(place).collect()
}

impl Cluster {
    pub fn start() -> Self {
        let environment = services(&["start", "--cluster"]);
        let folder = value(&environment, "WORLDLINE_TEST_SERVICES");
        let servers = Kind::ALL.into_iter().flat_map(|kind| servers(kind, &environment)).collect();
        Self { folder, servers }
    }

    /// `SCHEME://127.0.0.1:PORT` of each server of a kind, in the order of its names.
    pub fn urls(&self, kind: Kind, scheme: &str) -> Vec<String> {
        self.of(kind).map(|server| format!("{scheme}://{}", server.place)).collect()
    }

    /// `127.0.0.1:PORT` of each.
    pub fn places(&self, kind: Kind) -> Vec<String> {
        self.of(kind).map(|server| server.place.clone()).collect()
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| server.kind == kind)
    }

    fn pid(&self, kind: Kind, n: usize) -> Pid {
        let server = self.of(kind).nth(n).expect("it has so many");
        Pid::from_raw(server.pid).expect("a process")
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self, kind: Kind, n: usize) {
        let pid = self.pid(kind, n);
        kill_process(pid, Signal::KILL).expect("it lives");
        let stat = format!("/proc/{}/stat", pid.as_raw_nonzero());
        let gone = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with('Z'))
        };
        while !gone() {
            std::thread::yield_now();
        }
    }

    /// SIGSTOP, for its children too.
    pub fn stop(&self, kind: Kind, n: usize) {
        self.signal(kind, n, Signal::STOP);
    }

    /// SIGCONT.
    pub fn go_on(&self, kind: Kind, n: usize) {
        self.signal(kind, n, Signal::CONT);
    }

    fn signal(&self, kind: Kind, n: usize, signal: Signal) {
        let pid = self.pid(kind, n);
        kill_process(pid, signal).expect("it lives");
        let children = format!("/proc/{0}/task/{0}/children", pid.as_raw_nonzero());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            // It may have ended by itself.
            let _ = kill_process(child, signal);
        }
    }

    /// On its port, with its data.
    pub fn restart(&mut self, kind: Kind, n: usize) {
        let environment = services(&["start", "--dir", &self.folder, "--only", kind.names()[n]]);
        let now = servers(kind, &environment);
        for server in &mut self.servers {
            if let Some(again) = now.iter().find(|now| now.place == server.place) {
                server.pid = again.pid;
            }
        }
    }

    /// The standby of PostgreSQL takes over.
    pub fn promote(&self) {
        services(&["promote", "--dir", &self.folder]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        services(&["stop", "--dir", &self.folder]);
    }
}

fn servers(kind: Kind, environment: &str) -> Vec<Server> {
    let pids = value(environment, &format!("{}_PID", kind.variable()));
    let pids = pids.split(',').map(|pid| pid.parse().expect("a number"));
    let places = places(&value(environment, kind.variable()));
    places.into_iter().zip(pids).map(|(place, pid)| Server { kind, place, pid }).collect()
}

/// A service whose leader is killed and stopped.
pub struct Leading {
    pub cluster: Cluster,
    kind: Kind,
    /// Which of its servers leads, by their addresses.
    find: fn(&Hosted, &Cluster) -> usize,
    down: Option<(usize, Fault)>,
}

impl Leading {
    pub fn new(kind: Kind, find: fn(&Hosted, &Cluster) -> usize) -> Self {
        Self { cluster: Cluster::start(), kind, find, down: None }
    }
}

impl Place for Leading {
    fn befall(&mut self, fault: Fault, hosted: &Hosted) -> bool {
        match fault {
            Fault::Kill | Fault::Stop => {
                let leader = (self.find)(hosted, &self.cluster);
                match fault {
                    Fault::Kill => self.cluster.kill(self.kind, leader),
                    _ => self.cluster.stop(self.kind, leader),
                }
                self.down = Some((leader, fault));
            }
            Fault::Heal => match self.down.take() {
                Some((server, Fault::Kill)) => self.cluster.restart(self.kind, server),
                Some((server, _)) => self.cluster.go_on(self.kind, server),
                None => {}
            },
            _ => return false,
        }
        true
    }
}
