//! What a role's process is told.

use super::{
    decode,
    keys::Command,
    knobs::knobs,
    layers::Layers,
    problem::{Problem, Problems, Sink, quoted},
    world::{self, World},
};
use crate::{bus, cache, directory, network::tls::Identity, server::Redaction};
use hyper::Uri;
use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, path::PathBuf};
use worldline_proto::{NodeId, token};
use worldline_system::{doors::directory::RegionId, knobs::Knobs, lease::LeaseTimes, time::Duration};

/// Alternates of one gateway: more than a client remembers are no use.
const ALTERNATES_MAX: usize = 8;
/// Replicas of one gateway: more show it the same once more.
const REPLICAS_MAX: usize = 4;
const STOP_PATIENCE: Duration = Duration::from_secs(15);
const THREADS: usize = 2;

/// What runs a process, whatever its role.
#[derive(Clone, Debug)]
pub struct Process {
    /// How logs call it.
    pub name: String,
    /// Where `/health` and `/ready` answer.
    pub http: Option<SocketAddr>,
    /// Where its history goes.
    pub history: Option<PathBuf>,
    /// What is logged.
    pub log: String,
    /// Threads of the adapters.
    pub threads: usize,
    /// Where its traces go.
    pub traces: Traces,
    /// What its logs and traces know characters by.
    pub redaction: Redaction,
}

/// Where traces go.
#[derive(Clone, Debug, Default)]
pub struct Traces {
    /// A collector.
    pub otlp: Option<Uri>,
    /// A file.
    pub file: Option<PathBuf>,
}

impl Process {
    pub(super) fn read(layers: &Layers, name: &str, sink: &mut Sink) -> Self {
        Self {
            name: layers.optional("name", sink, decode::text).unwrap_or_else(|| name.to_owned()),
            http: layers.optional("http", sink, decode::listen),
            history: layers.optional("history", sink, decode::folder),
            log: layers.optional("log", sink, decode::log).unwrap_or_else(|| "info".into()),
            threads: layers
                .optional("threads", sink, decode::whole(1..=64_u16, "threads"))
                .map_or(THREADS, usize::from),
            traces: Traces {
                otlp: layers.optional("telemetry.otlp", sink, decode::collector),
                file: layers.optional("telemetry.file", sink, decode::path),
            },
            redaction: layers.optional("telemetry.key", sink, decode::redaction_key).unwrap_or_else(Redaction::drawn),
        }
    }
}

/// What a gateway, a worker and a replica have on the network.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the others are.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// What it shows of itself and whom it trusts.
    pub identity: Identity,
}

/// What only one role is told.
#[derive(Clone, Debug)]
pub enum Part {
    /// A gateway.
    Gateway {
        /// On the network.
        place: Place,
        /// Its region.
        region: RegionId,
        /// The key of tokens.
        key: token::Key,
        /// Where its players may turn to.
        alternates: Vec<NodeId>,
        /// What shows it what the whole world shares.
        replicas: Vec<NodeId>,
    },
    /// A worker.
    Worker {
        /// On the network.
        place: Place,
        /// Its region.
        region: RegionId,
        /// Of its lease.
        lease: LeaseTimes,
    },
    /// An orchestrator.
    Orchestrator {
        /// Of its lease.
        lease: LeaseTimes,
    },
    /// A replica.
    Replica {
        /// On the network. It calls nobody.
        place: Place,
    },
}

/// What a gateway, a worker, an orchestrator or a replica is told.
#[derive(Clone, Debug)]
pub struct Server {
    /// Which node it is.
    pub node: NodeId,
    /// What runs it.
    pub process: Process,
    /// The members of the directory. `None`: its role has no such door.
    pub directory: Option<directory::Config>,
    /// The URL of the ledger. It may hold a password.
    pub ledger: Secret,
    /// The servers of the bus, if there is one.
    pub bus: Option<bus::Config>,
    /// The servers of the cache, if there is one.
    pub cache: Option<cache::Config>,
    /// The world.
    pub world: World,
    /// How long an orderly stop may take.
    pub stop_patience: Duration,
    /// Its role's periods.
    pub knobs: Knobs,
    /// Its own.
    pub part: Part,
}

impl Server {
    /// Where it stands, if it stands in a region.
    #[must_use]
    pub fn region(&self) -> Option<RegionId> {
        match &self.part {
            Part::Gateway { region, .. } | Part::Worker { region, .. } => Some(*region),
            Part::Orchestrator { .. } | Part::Replica { .. } => None,
        }
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Reads what a role's process is told. `sink` may hold what was wrong with the layers themselves.
///
/// # Errors
/// Everything that is wrong.
pub fn server(command: Command, layers: &Layers, mut sink: Sink) -> Result<Server, Problems> {
    let server = decode_server(command, layers, &mut sink);
    sink.into_result(server)
}

fn decode_server(command: Command, layers: &Layers, sink: &mut Sink) -> Option<Server> {
    let node = layers.required("node", sink, decode::node);
    let name = node.map_or_else(|| command.to_string(), |node| format!("{command}-{node}"));
    let process = Process::read(layers, &name, sink);
    let world = world_of(layers, sink);
    let directory = match layers.offers("directory") {
        true => members(layers, sink).map(Some),
        false => Some(None),
    };
    let ledger = layers.required("ledger", sink, decode::ledger);
    // A gateway has no bus, and a replica no cache.
    let buses = match layers.offers("bus") {
        true => layers.optional("bus", sink, decode::list(decode::bus, "addresses of NATS servers")),
        false => None,
    };
    let caches = match layers.offers("cache") {
        true => layers.optional("cache", sink, decode::list(decode::cache, "addresses of a cache's servers")),
        false => None,
    };
    let patience = decode::duration_in(Duration::from_millis(100)..=Duration::from_secs(3_600));
    let stop_patience = layers.optional("stop_patience", sink, patience).unwrap_or(STOP_PATIENCE);
    let knobs = knobs(layers, sink);
    let part = match command {
        Command::Gateway => gateway(node, world.as_ref(), layers, sink),
        Command::Worker => worker(node, world.as_ref(), layers, sink),
        Command::Replica => place(node, Some(BTreeMap::new()), layers, sink).map(|place| Part::Replica { place }),
        _ => lease(layers, sink).map(|lease| Part::Orchestrator { lease }),
    };
    Some(Server {
        node: node?,
        process,
        directory: directory?,
        ledger: Secret(ledger?),
        bus: buses.filter(|servers| !servers.is_empty()).map(|endpoints| bus::Config { endpoints }),
        cache: caches.filter(|servers| !servers.is_empty()).map(|endpoints| cache::Config { endpoints }),
        world: world?,
        stop_patience,
        knobs: knobs?,
        part: part?,
    })
}

/// The members of the directory, each once.
pub fn members(layers: &Layers, sink: &mut Sink) -> Option<directory::Config> {
    let given = layers.get("directory");
    let members = layers.required("directory", sink, decode::list(decode::member, "addresses of etcd's members"))?;
    match given {
        Some(given) if members.is_empty() => sink.report(given.problem("at least one member of etcd")),
        _ => Some(directory::Config { endpoints: members }),
    }
}

/// A region, and the servers of its cache, each once: whom a command asks that needs them.
pub fn region_cache(layers: &Layers, sink: &mut Sink) -> Option<(RegionId, cache::Config)> {
    let world = world_of(layers, sink);
    let region = region(world.as_ref(), layers, sink);
    let given = layers.get("cache");
    let endpoints = layers.required("cache", sink, decode::list(decode::cache, "addresses of a cache's servers"));
    let endpoints = match (given, endpoints?) {
        (Some(given), none) if none.is_empty() => sink.report(given.problem("at least one server of the cache")),
        (_, endpoints) => Some(endpoints),
    };
    Some((region?, cache::Config { endpoints: endpoints? }))
}

/// The world that the file names.
pub fn world_of(layers: &Layers, sink: &mut Sink) -> Option<World> {
    let path = layers.required("world", sink, decode::path)?;
    match world::world(&path) {
        Ok(world) => Some(world),
        Err(problems) => {
            sink.report_all(problems);
            None
        }
    }
}

fn gateway(node: Option<NodeId>, world: Option<&World>, layers: &Layers, sink: &mut Sink) -> Option<Part> {
    let peers = peers(layers, sink);
    let replicas = replicas(peers.as_ref(), layers, sink);
    let place = place(node, peers, layers, sink);
    let region = region(world, layers, sink);
    let key = layers.required("token_key", sink, decode::token_key);
    let alternates = layers.optional("alternates", sink, |given, sink| {
        let nodes = decode::list(decode::node, "node ids")(given, sink)?;
        let wrong = match node.filter(|node| nodes.contains(node)) {
            Some(itself) => Some(format!("{itself}, which is this gateway itself")),
            None => repeated_or_too_many(&nodes, ALTERNATES_MAX),
        };
        match wrong {
            Some(found) => {
                let expected = format!("at most {ALTERNATES_MAX} other gateways, each once");
                sink.report(Problem::new(&given.origin, found, expected))
            }
            None => Some(nodes),
        }
    });
    let (alternates, replicas) = (alternates.unwrap_or_default(), replicas.unwrap_or_default());
    Some(Part::Gateway { place: place?, region: region?, key: key?, alternates, replicas })
}

/// What is wrong with a list of nodes: one of them stands there twice, or there are more than so many.
fn repeated_or_too_many(nodes: &[NodeId], max: usize) -> Option<String> {
    let again = decode::again(nodes).map(|node| format!("{node} again"));
    again.or_else(|| (nodes.len() > max).then(|| format!("{} of them", nodes.len())))
}

/// The replicas of a gateway: it must know where each of them listens.
fn replicas(peers: Option<&BTreeMap<NodeId, SocketAddr>>, layers: &Layers, sink: &mut Sink) -> Option<Vec<NodeId>> {
    layers.optional("replica", sink, |given, sink| {
        let nodes = decode::list(decode::node, "node ids")(given, sink)?;
        if let Some(found) = repeated_or_too_many(&nodes, REPLICAS_MAX) {
            let expected = format!("at most {REPLICAS_MAX} replicas, each once");
            return sink.report(Problem::new(&given.origin, found, expected));
        }
        // Without peers, which is reported, nobody can say who is missing there.
        let peers = peers?;
        match nodes.iter().find(|node| !peers.contains_key(node)) {
            Some(unknown) => {
                let found = format!("{unknown}, of which `peers` does not say where it listens");
                sink.report(Problem::new(&given.origin, found, "replicas that `peers` has"))
            }
            None => Some(nodes),
        }
    })
}

fn worker(node: Option<NodeId>, world: Option<&World>, layers: &Layers, sink: &mut Sink) -> Option<Part> {
    let place = place(node, peers(layers, sink), layers, sink);
    let region = region(world, layers, sink);
    let lease = lease(layers, sink);
    Some(Part::Worker { place: place?, region: region?, lease: lease? })
}

fn region(world: Option<&World>, layers: &Layers, sink: &mut Sink) -> Option<RegionId> {
    // Without a world, which is reported, no region can be told right from wrong.
    layers.required("region", sink, |given, sink| world?.region(given, sink))
}

/// Where a role that calls others finds them.
fn peers(layers: &Layers, sink: &mut Sink) -> Option<BTreeMap<NodeId, SocketAddr>> {
    layers.required("peers", sink, decode::peers)
}

fn place(
    node: Option<NodeId>,
    peers: Option<BTreeMap<NodeId, SocketAddr>>,
    layers: &Layers,
    sink: &mut Sink,
) -> Option<Place> {
    let listen = layers.required("listen", sink, |given, sink| {
        let address = decode::listen(given, sink)?;
        if address.port() == 0 {
            return sink.report(given.problem("a port from 1 to 65535: others must know where to find it"));
        }
        if layers.get("http").and_then(|http| http.text()?.parse().ok()) == Some(address) {
            return sink.report(given.problem("another port than `http` has: gRPC takes this one"));
        }
        Some(address)
    });
    let identity = identity(node, layers, sink);
    Some(Place { listen: listen?, peers: peers?, identity: identity? })
}

fn identity(node: Option<NodeId>, layers: &Layers, sink: &mut Sink) -> Option<Identity> {
    let ca = layers.required("tls.ca", sink, decode::readable("the CA's certificate, as `worldlined cert` makes it"));
    let certificate = layers.required(
        "tls.certificate",
        sink,
        decode::readable("this node's certificate, as `worldlined cert` makes it"),
    );
    let key = layers.required("tls.key", sink, decode::readable("the certificate's private key"));
    let (ca, certificate, key) = (ca?, certificate?, key?);
    let identity = match Identity::load(&ca, &certificate, &key) {
        Ok(identity) => identity,
        Err(error) => {
            let wrong = [("tls.ca", &ca), ("tls.key", &key), ("tls.certificate", &certificate)];
            let name = wrong.iter().find(|(_, path)| **path == error.path).map_or("tls.certificate", |(name, _)| name);
            let given = layers.get(name)?;
            let found = format!("{}, which {}", quoted(&error.path.display().to_string()), error.wrong);
            let expected =
                "a certificate of this world's CA that is valid now, and its key: `worldlined cert` makes them";
            return sink.report(Problem::new(&given.origin, found, expected));
        }
    };
    match (identity.node(), node) {
        (Some(certified), Some(node)) if certified != node => {
            let found = format!("the certificate of {certified}");
            sink.report(Problem::new(&layers.get("tls.certificate")?.origin, found, format!("one of {node}")))
        }
        (None, _) => {
            let found = "a certificate that names no node";
            let expected = "one with the DNS name `nN.worldline`, as `worldlined cert --node N` makes it";
            sink.report(Problem::new(&layers.get("tls.certificate")?.origin, found, expected))
        }
        _ => Some(identity),
    }
}

fn lease(layers: &Layers, sink: &mut Sink) -> Option<LeaseTimes> {
    const SECONDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
    let default = LeaseTimes::default();
    let before = sink.count();
    let ttl = layers.optional("lease.ttl", sink, |given, sink| {
        let ttl = decode::duration_in(SECONDS)(given, sink)?;
        if ttl.as_nanos() % 1_000_000_000 > 0 {
            return sink.report(given.problem("whole seconds: etcd grants no others"));
        }
        Some(ttl)
    });
    let margin = layers.optional("lease.margin", sink, decode::duration_in(Duration::ZERO..=*SECONDS.end()));
    let often = Duration::from_millis(10)..=*SECONDS.end();
    let renewal = layers.optional("lease.renewal", sink, decode::duration_in(often));
    let ttl = ttl.unwrap_or(default.ttl);
    let margin = margin.unwrap_or(default.margin);
    let renewal = renewal.unwrap_or(default.renewal);
    if sink.count() == before && (margin >= ttl || renewal >= ttl - margin) {
        let origin = ["lease.renewal", "lease.margin", "lease.ttl"].iter().find_map(|name| layers.get(name));
        let found = format!("a lease of `{ttl}` with a margin of `{margin}`, renewed every `{renewal}`");
        let expected = "`lease.renewal` to be shorter than `lease.ttl` less `lease.margin`";
        return sink.report(Problem::new(&origin?.origin, found, expected));
    }
    Some(LeaseTimes { ttl, margin, renewal })
}

/// Whom a process without a certificate trusts.
pub(super) fn stranger(layers: &Layers, sink: &mut Sink) -> Option<Identity> {
    let ca =
        layers.required("tls.ca", sink, decode::readable("the CA's certificate, as `worldlined cert` makes it"))?;
    Identity::stranger(&ca).ok().or_else(|| {
        let given = layers.get("tls.ca")?;
        sink.report(given.problem("the CA's certificate in PEM, as `worldlined cert` makes it"))
    })
}
