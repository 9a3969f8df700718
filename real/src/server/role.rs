//! A role's process from its start to its end: ports, adapters, the role's thread, the orderly stop.
//!
//! The order of an end: the role is told to stop and finishes what it must; then its adapters close; then the process ends.
//!
//! Deliberately absent: waiting for services. They may come later; `/ready` says what is missing meanwhile.

use super::{
    adapters::Adapters,
    exit::Exit,
    holder,
    http::{self, Process},
    standing::Standing,
};
use crate::{
    Host, Inbox,
    bus::Bus,
    cache::Cache,
    clock,
    config::{Command, Part, Place, Server, Traces, World},
    directory::Directory,
    history,
    hooks::Probes,
    host::{self, Counters},
    ledger::{self, Ledger},
    network::{self, BindError, Network},
    ready::Readiness,
    telemetry::{self, Exporter, Own, Sampler, Sources, Telemetry},
};
use std::{io, net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task,
    time::{MissedTickBehavior, interval, timeout},
};
use worldline_proto::{EntityId, EntityKind};
use worldline_system::{
    Desk, Role,
    doors::Event,
    gateway::{self, Gateway},
    limits,
    orchestrator::{self, Orchestrator},
    replica::{self, Replica},
    worker::{self, Worker},
};

/// How long the adapters may take to close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// How often a new process looks whether its ledger is one that it can ever use.
const SCHEMA_PERIOD: Duration = Duration::from_millis(250);
/// How often a life's number is tried that another life has taken a moment ago.
const LIVES: u32 = 10;

/// SIGTERM and SIGINT.
pub struct Stops(Signal, Signal);

impl Stops {
    /// Listens for them from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    /// Waits for one; its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.0.recv() => "SIGTERM",
            _ = self.1.recv() => "SIGINT",
        }
    }
}

/// Runs the process of a gateway, a worker, an orchestrator or a replica until its end. Called inside a runtime.
pub async fn run(command: Command, config: Server) -> Exit {
    let Ok(stops) = Stops::listen() else {
        tracing::error!("the system gives no signals");
        return Exit::Internal;
    };
    match Running::start(command, config).await {
        Ok(running) => running.until_stopped(stops).await,
        Err(exit) => exit,
    }
}

struct Running {
    adapters: Adapters,
    inbox: Inbox,
    ready: Readiness,
    thread: JoinHandle<io::Result<()>>,
    http: Option<task::JoinHandle<()>>,
    sampler: task::JoinHandle<()>,
    telemetry: Telemetry,
    stop_patience: Duration,
}

impl Running {
    async fn start(command: Command, config: Server) -> Result<Self, Exit> {
        let region = config.region();
        let Server { node, process, directory, ledger: url, bus, cache, world, stop_patience, knobs, part } = config;
        let (inbox, ready, probes) = (Inbox::default(), Readiness::default(), Probes::default());
        let listener = match process.http {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let place = match &part {
            Part::Gateway { place, .. } => Some((network::Part::Gateway, place.clone())),
            Part::Worker { place, .. } | Part::Replica { place } => Some((network::Part::Server, place.clone())),
            Part::Orchestrator { .. } => None,
        };
        let network = match place {
            Some((part, Place { listen, peers, identity })) => {
                let client_frames_per_second = network::CLIENT_FRAMES_PER_SECOND;
                let config = network::Config { node, part, listen, peers, identity, client_frames_per_second };
                let bound = Box::pin(Network::bind(config, inbox.clone(), ready.clone())).await;
                Some(Arc::new(bound.map_err(|error| unbound(&error))?))
            }
            None => None,
        };
        let (desk, history) = life(node, process.history.as_deref()).await?;
        ready.missing("ledger", "not asked yet");
        let directory = directory.map(|config| Directory::new(config, inbox.clone(), ready.clone()));
        let ledger = ledger::Config::new(&url.0).map_err(|problem| {
            tracing::error!("{problem}");
            Exit::Usage
        })?;
        let ledger = ledger::Config { name: format!("worldlined {}", process.name), ..ledger };
        let ledger = Ledger::new(ledger, inbox.clone(), ready.clone());
        let telemetry = Telemetry::default();
        let region = region.map(|region| world.name(region).to_owned());
        let Traces { otlp, file } = process.traces.clone();
        let redaction = process.redaction.clone();
        let (service, regions) = (process.name.clone(), world.regions.clone());
        let config = telemetry::Config { otlp, file, service, region: region.clone(), regions, redaction };
        if let Some(exporter) = Exporter::start(config, ready.clone()) {
            telemetry.export_to(exporter);
        }
        let worker = matches!(part, Part::Worker { .. });
        let clients = network.clone().filter(|_| matches!(part, Part::Gateway { .. }));
        let sources = Sources { clients, ledger: Some(ledger.clone()), cache: cache.clone(), worker };
        let own = Own { name: process.name.clone(), region, regions: world.regions.clone() };
        let bus = match bus {
            Some(config) => Bus::new(config, inbox.clone(), ready.clone()),
            None => Bus::absent(inbox.clone()),
        };
        let cache = match cache {
            Some(config) => Cache::new(config, inbox.clone(), ready.clone()),
            None => Cache::absent(inbox.clone()),
        };
        let adapters = Adapters { network: network.clone(), directory, ledger, bus: bus.clone(), cache: cache.clone() };
        let counters = Counters::default();
        let told = Process {
            role: super::name_of(command),
            name: process.name.clone(),
            node: Some(node),
            incarnation: desk.incarnation,
            since: clock::now(),
            ready: ready.clone(),
            inbox: inbox.clone(),
            counters: counters.clone(),
            probes: probes.clone(),
            network,
            bus: Some(bus),
            cache: Some(cache),
            telemetry: telemetry.clone(),
            own,
        };
        let sampler = task::spawn(Sampler::new(telemetry.clone(), sources).run());
        tracing::info!(node = node.0, incarnation = desk.incarnation.0, name = process.name, "starts as {command}");
        let map = Arc::clone(&world.map);
        let parts = Parts {
            desk,
            doors: adapters.clone(),
            inbox: inbox.clone(),
            history,
            probes,
            counters,
            telemetry: telemetry.clone(),
        };
        let thread = match part {
            Part::Gateway { region, key, alternates, replicas, .. } => {
                let gateway = Gateway::new(gateway::Config { region, key, alternates, replicas, knobs });
                parts.start(Standing::new(gateway, ready.clone()), &process.name)
            }
            Part::Worker { region, lease, .. } => {
                let worker = Worker::new(worker::Config { region, map, lease, knobs });
                parts.start(Standing::new(worker, ready.clone()), &process.name)
            }
            Part::Orchestrator { lease } => {
                let orchestrator = Orchestrator::new(orchestrator::Config { map, lease, knobs });
                parts.start(Standing::new(orchestrator, ready.clone()), &process.name)
            }
            Part::Replica { .. } => {
                let replica = Replica::new(replica::Config { entities: globals(&world), retry: knobs.retry });
                parts.start(Standing::new(replica, ready.clone()), &process.name)
            }
        };
        let thread = thread.map_err(|error| {
            tracing::error!("no thread for the role: {error}");
            Exit::Internal
        })?;
        let http = listener.map(|listener| {
            task::spawn(async move {
                if let Err(error) = http::serve(listener, told).await {
                    tracing::error!("/health, /ready and /metrics are gone: {error}");
                }
            })
        });
        Ok(Self { adapters, inbox, ready, thread, http, sampler, telemetry, stop_patience: clock::span(stop_patience) })
    }

    /// Waits for a reason to end, and ends in order.
    async fn until_stopped(self, mut stops: Stops) -> Exit {
        let Self { adapters, inbox, ready, thread, http, sampler, telemetry, stop_patience } = self;
        let mut role = task::spawn_blocking(move || thread.join());
        let (exit, running) = tokio::select! {
            signal = stops.next() => {
                tracing::info!(signal, "stops");
                (Exit::Done, true)
            }
            problem = unusable(&adapters.ledger, &ready) => {
                tracing::error!("{problem}");
                (Exit::Schema, true)
            }
            ended = &mut role => (died(ended), false),
        };
        let mut exit = exit;
        if running {
            ready.missing("role", "it is stopping");
            inbox.reserved(Event::Stop);
            match timeout(stop_patience, &mut role).await {
                Ok(Ok(Ok(Ok(())))) => tracing::info!("the role has stopped"),
                Ok(ended) => exit = died(ended),
                Err(_) => {
                    tracing::error!("the role has not stopped within {stop_patience:?} (`stop_patience`)");
                    exit = Exit::Internal;
                }
            }
        }
        let closing = async {
            let network = async {
                if let Some(network) = &adapters.network {
                    network.close().await;
                }
            };
            let directory = async {
                if let Some(directory) = &adapters.directory {
                    directory.close().await;
                }
            };
            tokio::join!(network, adapters.ledger.close(), directory, adapters.bus.close(), adapters.cache.close());
        };
        if timeout(CLOSE_PATIENCE, Box::pin(closing)).await.is_err() {
            tracing::warn!("the adapters have not closed within {CLOSE_PATIENCE:?}");
        }
        sampler.abort();
        drop(timeout(CLOSE_PATIENCE, telemetry.end()).await);
        if let Some(http) = http {
            http.abort();
        }
        tracing::info!(code = exit.code(), "ends");
        exit
    }
}

/// What a host is made of but for its role.
struct Parts {
    desk: Desk,
    doors: Adapters,
    inbox: Inbox,
    history: Option<history::Writer>,
    probes: Probes,
    counters: Counters,
    telemetry: Telemetry,
}

impl Parts {
    fn start<R: Role + Send + 'static>(self, role: R, name: &str) -> io::Result<JoinHandle<io::Result<()>>> {
        let Self { desk, doors, inbox, history, probes, counters, telemetry } = self;
        // The kernel keeps 15 bytes of a thread's name.
        Host { role, desk, doors, inbox, history, probes, counters, telemetry }.start(name)
    }
}

/// A desk for the life that begins now, and where its history goes. A life's number is a tenth of a second: a process that is
/// started again at once waits for the next.
async fn life(
    node: worldline_proto::NodeId,
    folder: Option<&std::path::Path>,
) -> Result<(Desk, Option<history::Writer>), Exit> {
    for _ in 0..LIVES {
        let desk = host::desk(node).map_err(|error| {
            tracing::error!("the system has no entropy to give: {error}");
            Exit::Internal
        })?;
        let Some(folder) = folder else { return Ok((desk, None)) };
        match history::Writer::create(folder, node, desk.incarnation) {
            Ok(writer) => return Ok((desk, Some(writer))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => {
                tracing::error!(folder = %folder.display(), "the history cannot be written: {error}");
                return Err(Exit::Internal);
            }
        }
    }
    tracing::error!(%node, "another process of this node writes its history there: is it started twice?");
    Err(Exit::Internal)
}

/// What a replica keeps a copy of: the bosses of the world file, as many as one can.
fn globals(world: &World) -> Vec<EntityId> {
    let entities = world.seeds.iter().map(|seed| seed.entity);
    let mut bosses: Vec<_> = entities.filter(|entity| entity.kind() == EntityKind::Boss).collect();
    if bosses.len() > limits::SNAPSHOT_ENTITIES {
        tracing::warn!(
            bosses = bosses.len(),
            shown = limits::SNAPSHOT_ENTITIES,
            "the world has more bosses than are shown"
        );
        bosses.truncate(limits::SNAPSHOT_ENTITIES);
    }
    bosses
}

/// Waits until the ledger is found to be one that this program cannot use; for ever, once it was of use.
async fn unusable(ledger: &Ledger, ready: &Readiness) -> ledger::Problem {
    let mut looks = interval(SCHEMA_PERIOD);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match ledger.problem() {
            Some(problem) if problem.is_schema() => return problem,
            None if ready.is_fulfilled("ledger") => return std::future::pending().await,
            _ => {}
        }
    }
}

/// The role's thread is gone though nobody asked it to stop, or has failed while it stopped.
fn died(ended: Result<std::thread::Result<io::Result<()>>, task::JoinError>) -> Exit {
    match ended {
        Ok(Ok(Ok(()))) => tracing::error!("the role has stopped of itself"),
        Ok(Ok(Err(error))) => tracing::error!("the history cannot be written: {error}"),
        Ok(Err(_)) | Err(_) => tracing::error!("the role's thread has panicked"),
    }
    Exit::Internal
}

/// Listens for `/health` and `/ready`.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, Exit> {
    TcpListener::bind(address).await.map_err(|error| {
        busy("http", "TCP", address, &error);
        Exit::Unavailable
    })
}

fn unbound(error: &BindError) -> Exit {
    match error {
        BindError::Listen { transport, address, source } => {
            busy("listen", transport, *address, source);
            Exit::Unavailable
        }
        other => {
            tracing::error!("{other}");
            Exit::Usage
        }
    }
}

fn busy(setting: &str, transport: &str, address: SocketAddr, error: &io::Error) {
    let holder = match error.kind() {
        io::ErrorKind::AddrInUse => holder::of(transport, address),
        _ => None,
    };
    let held = holder.map_or(String::new(), |holder| format!("; {holder} holds it"));
    tracing::error!("cannot listen on {transport} {address} (`{setting}`): {error}{held}");
}
