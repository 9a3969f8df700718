//! The network door: connections on QUIC and unary calls on gRPC, both on one address a node.
//!
//! * Every operation is answered once; a thing that certainly never left is `Refused`, all else is `Unknown`.
//! * What a peer gets wrong ends its own connection, is counted by kind, and touches nobody else.
//! * Tasks, sockets and connections belong to one [`Network`], and are gone when [`Network::close`] returns.
//!
//! Deliberately absent: any knowledge of which role it serves.

mod calls;
mod counters;
mod half_open;
mod promise;
mod quic;
mod tasks;
pub mod tls;

use crate::{
    Inbox, clock,
    machine::{self, Listener, Machine},
    ready::Readiness,
};
use calls::{Callers, Listening, Served};
use counters::Counters;
use quic::Quic;
use quinn::AsyncUdpSocket;
use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};
use tasks::Tasks;
use tls::Identity;
use tokio::{runtime::Handle, sync::watch};
use worldline_proto::NodeId;
use worldline_system::{doors::network::Submission, limits};

/// Who a client is to a gateway: no node of this world.
pub const STRANGER: NodeId = NodeId(u32::MAX);

/// A connection that has heard nothing for so long is dead.
pub const IDLE_TIMEOUT: Duration = clock::span(limits::IDLE_TIMEOUT);
/// A connection that has sent nothing for so long says that it lives.
pub const KEEP_ALIVE: Duration = clock::span(limits::KEEP_ALIVE);
/// A handshake that has not completed by then has failed.
pub const HANDSHAKE_TIMEOUT: Duration = clock::span(limits::HANDSHAKE_TIMEOUT);
/// Messages a second that a player may bring in one class of its streams, and datagrams; as many at once. Some times what a
/// gateway's role takes of a session, so that only a flood meets it: then it need not pass through the role's thread.
pub const CLIENT_FRAMES_PER_SECOND: u32 = 300;
/// How long before its deadline a call is given up, so that its outcome is said in time.
const ANSWER_MARGIN: Duration = Duration::from_millis(5);
/// How long peers have to take notice that this process is stopping.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often a free port is looked for that both transports can have.
const PORT_ATTEMPTS: usize = 16;

/// What a process is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A player: connects to gateways without a certificate, exchanges bytes, accepts nobody and serves no calls.
    Client,
    /// A gateway: accepts clients and roles, connects to roles.
    Gateway,
    /// Any other role: accepts roles, connects to roles.
    Server,
}

/// Where a process is, who it is and whom it knows.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its own node.
    pub node: NodeId,
    /// What it is.
    pub part: Part,
    /// Where it listens: QUIC on this UDP port, gRPC on the TCP port of the same number; port 0 takes a free one. A client
    /// listens to nobody, and only sends from here.
    pub listen: SocketAddr,
    /// Where the others are.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// What it shows of itself and whom it trusts. Other than a client's it must name `node`.
    pub identity: Identity,
    /// What each client may bring a second to a gateway; usually [`CLIENT_FRAMES_PER_SECOND`].
    pub client_frames_per_second: u32,
}

/// Why a process cannot be on the network.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("cannot listen on {transport} {address}: {source}")]
    Listen {
        /// UDP or TCP.
        transport: &'static str,
        /// Which address.
        address: SocketAddr,
        /// Why: in use, not this machine's, not allowed.
        source: io::Error,
    },
    /// The certificate is another's.
    #[error("the certificate names {}, and this process is {node}", named(*.certificate))]
    AnotherNode {
        /// Who the process is.
        node: NodeId,
        /// Whom the certificate names.
        certificate: Option<NodeId>,
    },
    /// The identity cannot be used with TLS 1.3.
    #[error("cannot use the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

fn named(node: Option<NodeId>) -> String {
    node.map_or_else(|| "no node".to_owned(), |node| node.to_string())
}

/// A client's connection, as the transport sees it.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its round trip now, smoothed.
    pub round_trip: worldline_system::time::Duration,
    /// Packets that it was sent.
    pub packets_sent: u64,
    /// Those of them that are taken to be lost.
    pub packets_lost: u64,
}

/// A process on the network.
pub struct Network {
    quic: Quic,
    callers: Callers,
    served: Served,
    counters: Counters,
    tasks: Tasks,
    closing: watch::Sender<bool>,
    address: SocketAddr,
}

impl Network {
    /// Takes the address and begins to listen. Must be called within a runtime of tokio.
    ///
    /// # Errors
    /// The address cannot be had; the certificate is not this node's.
    pub async fn bind(config: Config, inbox: Inbox, ready: Readiness) -> Result<Self, BindError> {
        Self::bind_on(machine::own(), config, inbox, ready).await
    }

    /// As [`Network::bind`], on this machine.
    ///
    /// # Errors
    /// As [`Network::bind`].
    pub async fn bind_on(
        machine: Arc<dyn Machine>,
        config: Config,
        inbox: Inbox,
        ready: Readiness,
    ) -> Result<Self, BindError> {
        if config.part != Part::Client && config.identity.node() != Some(config.node) {
            return Err(BindError::AnotherNode { node: config.node, certificate: config.identity.node() });
        }
        let (udp, tcp) = take_address(&*machine, &config).await?;
        let failed = |source| BindError::Listen { transport: "UDP", address: config.listen, source };
        let address = udp.local_addr().map_err(failed)?;
        let counters = Counters::default();
        let tasks = Tasks::new(Handle::current());
        let (closing, closed) = watch::channel(false);
        let quic = Quic::start(&*machine, &config, udp, inbox.clone(), counters.clone(), tasks.clone());
        let quic = quic.map_err(|error| match error {
            quic::StartError::Tls(error) => BindError::Tls(error),
            quic::StartError::Io(source) => failed(source),
        })?;
        let callers =
            Callers::new(machine, &config.identity, &config.peers, inbox.clone(), &counters, &tasks, &closed)?;
        let served = Served::new(inbox, counters.clone());
        if let Some(listener) = tcp {
            let listening = Listening {
                identity: config.identity,
                served: served.clone(),
                ready: ready.clone(),
                counters: counters.clone(),
                tasks: tasks.clone(),
                closing: closed,
            };
            calls::listen(listener, listening)?;
        }
        ready.fulfilled("network");
        Ok(Self { quic, callers, served, counters, tasks, closing, address })
    }

    /// The address at which it listens, with the port that was chosen where the configuration left it open.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes a submission of the role. Never waits.
    pub fn submit(&self, submission: Submission) {
        match submission {
            Submission::Connect { op, to } => self.quic.connect(op, to),
            Submission::Datagram { connection, payload } => self.quic.datagram(connection, &payload),
            Submission::Send { connection, class, payload } => self.quic.send(connection, class, &payload),
            Submission::Close { connection, reason } => self.quic.close(connection, reason),
            Submission::Call(call) => self.callers.call(*call),
            Submission::Reply { call, outcome } => self.served.reply(call, *outcome),
        }
    }

    /// What it has counted, each by its name, mostly what it has refused; and how much is open at the moment.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut counters = self.counters.each();
        counters.push(("connections_open", self.quic.connections() as u64));
        counters.push(("calls_waiting", self.served.len() as u64));
        counters
    }

    /// The clients that are connected now, as the transport sees them.
    #[must_use]
    pub fn clients(&self) -> Vec<Client> {
        self.quic.clients()
    }

    /// Ends every connection and call and gives the address back: no task, socket or connection is left. Peers are told.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        self.served.end();
        self.quic.end(FAREWELL).await;
        self.tasks.end(FAREWELL).await;
    }
}

/// One port for both transports. A client needs none that anybody could know.
async fn take_address(
    machine: &dyn Machine,
    config: &Config,
) -> Result<(Arc<dyn AsyncUdpSocket>, Option<Box<dyn Listener>>), BindError> {
    let failed = |transport, address| move |source| BindError::Listen { transport, address, source };
    let mut attempts = PORT_ATTEMPTS;
    loop {
        let mut address = config.listen;
        let tcp = if config.part == Part::Client {
            None
        } else {
            let listener = machine.listen(address).await.map_err(failed("TCP", address))?;
            address = listener.local_addr().map_err(failed("TCP", address))?;
            Some(listener)
        };
        attempts -= 1;
        match machine.udp(address) {
            Ok(udp) => return Ok((udp, tcp)),
            // Another transport's free port may be taken on this one.
            Err(error) if config.listen.port() == 0 && attempts > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(failed("UDP", address)(error)),
        }
    }
}
