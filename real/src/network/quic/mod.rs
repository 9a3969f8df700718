//! Connections: who may open one, and how they are found again by their number.
//!
//! * An address that has not been proved costs little: once some handshakes are half open, callers are asked to prove theirs
//!   first (RFC 9000, 8.1.2).
//! * A role's peer shows a role's certificate; a client shows nothing and is a stranger.
//! * A connection has a place from its handshake to its end; there are [`limits::CONNECTIONS`] of them. Some are kept for those
//!   that this side opens: however many players there are, a gateway reaches its workers.
//!
//! Deliberately absent: migration of a role's own address, 0-RTT (a replayed hello would open a session twice).

mod addresses;
mod bucket;
mod connection;
mod frames;
mod lane;
mod leaving;
mod reader;
mod reason;
mod runtime;
mod transport;

use super::{
    Client, Config, HANDSHAKE_TIMEOUT, Part, STRANGER,
    counters::{Count, Counters},
    half_open::HalfOpen,
    promise::Promise,
    tasks::Tasks,
    tls,
};
use crate::{Inbox, machine::Machine};
use addresses::{Addresses, Seat};
use connection::Entry;
use frames::Dialect;
use leaving::Leaving;
use quinn::{AsyncUdpSocket, ClientConfig, ConnectionError, Endpoint, Incoming};
use reason::{code, reason_of};
use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasherDefault, Hasher},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use worldline_proto::{ConnectionId, NodeId, OpId};
use worldline_system::{
    doors::network::{CloseReason, Event, Payload, StreamClass},
    limits,
};

/// Handshakes that may be half open; one more displaces the oldest.
const HALF_OPEN_MAX: usize = 256;
/// From so many half-open handshakes on, callers must prove their address first.
const RETRY_FROM: usize = 64;

/// Places that are kept for connections that this side opens.
const OWN_PLACES: usize = 256;
/// Connections of strangers from one address: half the places that others have.
const FROM_ONE_ADDRESS: usize = (limits::CONNECTIONS - OWN_PLACES) / 2;

/// Connections by their numbers.
type Open = HashMap<u64, Arc<Entry>, BuildHasherDefault<Spread>>;

/// Looked up for all that is sent: numbers of this side's own making need no protection from who would choose them.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(self.0 ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What all connections of a network share.
pub(super) struct Shared {
    inbox: Inbox,
    counters: Counters,
    tasks: Tasks,
    open: Mutex<Open>,
    /// For connections that this side opens.
    own_places: Arc<Semaphore>,
    /// For connections that others open.
    places: Arc<Semaphore>,
    /// Those of strangers, by where they come from.
    addresses: Addresses,
    client_frames_per_second: u32,
    leaving: Leaving,
    numbers: AtomicU64,
}

/// What a connection takes from its handshake to its end.
struct Place {
    _own: OwnedSemaphorePermit,
    _stranger: Option<Seat>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The QUIC side of a network.
pub(super) struct Quic {
    shared: Arc<Shared>,
    endpoint: Mutex<Option<Endpoint>>,
    peers: BTreeMap<NodeId, SocketAddr>,
    client: ClientConfig,
    dialect: Dialect,
}

impl Quic {
    /// Begins to serve `socket`.
    pub fn start(
        machine: &dyn Machine,
        config: &Config,
        socket: Arc<dyn AsyncUdpSocket>,
        inbox: Inbox,
        counters: Counters,
        tasks: Tasks,
    ) -> Result<Self, StartError> {
        let (dialect, accepted): (_, &[Dialect]) = match config.part {
            Part::Client => (Dialect::Client, &[]),
            Part::Gateway => (Dialect::Peer, &[Dialect::Client, Dialect::Peer]),
            Part::Server => (Dialect::Peer, &[Dialect::Peer]),
        };
        let client = transport::client(&config.identity, dialect)?;
        let server = if accepted.is_empty() { None } else { Some(transport::server(&config.identity, accepted)?) };
        let mut own = transport::endpoint(&config.identity);
        own.rng_seed(Some(seed(machine)?));
        let socket = Arc::new(runtime::Socket { inner: socket, counters: counters.clone() });
        let runtime = Arc::new(runtime::Counted { tasks: tasks.clone() });
        let endpoint = Endpoint::new_with_abstract_socket(own, server, socket, runtime)?;
        let shared = Arc::new(Shared {
            inbox,
            counters,
            tasks: tasks.clone(),
            open: Mutex::default(),
            own_places: Arc::new(Semaphore::new(OWN_PLACES)),
            places: Arc::new(Semaphore::new(limits::CONNECTIONS - OWN_PLACES)),
            addresses: Addresses::new(FROM_ONE_ADDRESS),
            client_frames_per_second: config.client_frames_per_second,
            leaving: Leaving::default(),
            numbers: AtomicU64::new(0),
        });
        if !accepted.is_empty() {
            tasks.spawn(accept(Arc::clone(&shared), endpoint.clone()));
        }
        Ok(Self { shared, endpoint: Mutex::new(Some(endpoint)), peers: config.peers.clone(), client, dialect })
    }

    /// Opens a connection and answers when it stands or does not.
    pub fn connect(&self, op: OpId, to: NodeId) {
        let shared = Arc::clone(&self.shared);
        let not_opened = move |reason| Event::NotOpened { op, reason };
        let promise = Promise::new(shared.inbox.clone(), op, not_opened(CloseReason::HandshakeTimeout));
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(endpoint), Some(&address)) = (endpoint, self.peers.get(&to)) else {
            tracing::warn!(%to, "no address is known");
            return;
        };
        let Ok(place) = Arc::clone(&self.shared.own_places).try_acquire_owned() else {
            self.shared.counters.add(Count::TooMany);
            return promise.keep(not_opened(CloseReason::TooMany));
        };
        let connecting = match endpoint.connect_with(self.client.clone(), address, &tls::name_of(to)) {
            Ok(connecting) => connecting,
            Err(error) => {
                tracing::warn!(%to, %address, %error, "cannot connect");
                return;
            }
        };
        let dialect = self.dialect;
        self.shared.tasks.spawn(async move {
            let opened = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(ConnectionError::TimedOut)) | Err(_) => Err(CloseReason::HandshakeTimeout),
                Ok(Err(error)) => {
                    tracing::warn!(%to, %address, %error, "no connection");
                    Err(reason_of(&error))
                }
            };
            match opened {
                Ok(connection) => {
                    shared.counters.add(Count::Connected);
                    let place = Place { _own: place, _stranger: None };
                    connection::begin(&shared, connection, dialect, place, |connection| {
                        promise.keep(Event::Opened { op, connection });
                    });
                }
                Err(reason) => promise.keep(not_opened(reason)),
            }
        });
    }

    /// Sends a datagram.
    pub fn datagram(&self, connection: ConnectionId, payload: &Payload) {
        match self.entry(connection) {
            Some(entry) => entry.send_datagram(&self.shared, payload),
            None => self.shared.counters.add(Count::SentToNobody),
        }
    }

    /// Sends a message in order.
    pub fn send(&self, connection: ConnectionId, class: StreamClass, payload: &Payload) {
        match self.entry(connection) {
            Some(entry) => entry.send(&self.shared, class, payload),
            None => self.shared.counters.add(Count::SentToNobody),
        }
    }

    /// Closes a connection; its role hears no more of it.
    pub fn close(&self, connection: ConnectionId, reason: CloseReason) {
        let removed = self.shared.open().remove(&connection.0);
        match removed {
            Some(entry) => entry.leave(&self.shared, reason),
            None => self.shared.counters.add(Count::SentToNobody),
        }
    }

    /// How many connections stand.
    pub fn connections(&self) -> usize {
        self.shared.open().len()
    }

    /// The clients that are connected now.
    pub fn clients(&self) -> Vec<Client> {
        let open: Vec<_> = self.shared.open().values().cloned().collect();
        let clients = open.iter().filter(|entry| entry.accepted && entry.dialect == Dialect::Client);
        clients
            .map(|entry| {
                let path = entry.connection.stats().path;
                let round_trip = u64::try_from(path.rtt.as_nanos()).unwrap_or(u64::MAX);
                Client {
                    round_trip: worldline_system::time::Duration::from_nanos(round_trip),
                    packets_sent: path.sent_packets,
                    packets_lost: path.lost_packets,
                }
            })
            .collect()
    }

    fn entry(&self, connection: ConnectionId) -> Option<Arc<Entry>> {
        self.shared.open().get(&connection.0).cloned()
    }

    /// Lets what its role has closed be delivered, tells every other peer that this process is stopping, and waits until they
    /// know it: each for at most `patience`.
    pub async fn end(&self, patience: Duration) {
        let endpoint = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(timeout(patience, self.shared.leaving.none()).await);
        for (_, entry) in self.shared.open().drain() {
            entry.forget();
        }
        if let Some(endpoint) = endpoint {
            endpoint.close(code(CloseReason::Closed), b"");
            drop(timeout(patience, endpoint.wait_idle()).await);
        }
    }
}

/// What quinn draws from: which packet numbers it skips, what a path must send back.
fn seed(machine: &dyn Machine) -> io::Result<[u8; 32]> {
    let mut entropy = machine.entropy()?;
    let mut seed = [0; 32];
    for piece in seed.chunks_exact_mut(8) {
        piece.copy_from_slice(&entropy.bits().to_le_bytes());
    }
    Ok(seed)
}

/// Why QUIC cannot be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

async fn accept(shared: Arc<Shared>, endpoint: Endpoint) {
    let mut half_open = HalfOpen::new(shared.tasks.clone(), HALF_OPEN_MAX);
    while let Some(incoming) = endpoint.accept().await {
        if half_open.len() >= RETRY_FROM && incoming.may_retry() {
            shared.counters.add(Count::Retried);
            // It can be retried: that was just asked.
            drop(incoming.retry());
            continue;
        }
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            shared.counters.add(Count::TooMany);
            incoming.refuse();
            continue;
        };
        if half_open.begin(welcome(Arc::clone(&shared), incoming, place)) {
            shared.counters.add(Count::HandshakeEvicted);
        }
    }
}

/// Completes a handshake, and sees who has come.
async fn welcome(shared: Arc<Shared>, incoming: Incoming, place: OwnedSemaphorePermit) {
    let address = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            shared.counters.add(Count::HandshakeFailed);
            tracing::debug!(%address, %error, "no handshake");
            return;
        }
        Err(_) => {
            shared.counters.add(Count::HandshakeFailed);
            return;
        }
    };
    let from = match dialect_of(&connection) {
        Some(Dialect::Client) => Some((Dialect::Client, STRANGER)),
        Some(Dialect::Peer) => node_of(&connection).map(|node| (Dialect::Peer, node)),
        None => None,
    };
    let Some((dialect, from)) = from else {
        shared.counters.add(Count::NoRole);
        tracing::warn!(%address, "a peer without a role's certificate is turned away");
        connection.close(code(CloseReason::ProtocolError), b"a role's certificate is needed");
        return;
    };
    let stranger = match dialect {
        Dialect::Peer => None,
        Dialect::Client => match shared.addresses.take(address.ip()) {
            Some(seat) => Some(seat),
            None => {
                shared.counters.add(Count::AddressFull);
                connection.close(code(CloseReason::TooMany), b"too many from this address");
                return;
            }
        },
    };
    let place = Place { _own: place, _stranger: stranger };
    shared.counters.add(Count::Accepted);
    connection::begin_accepted(&shared, connection, dialect, place, from);
}

fn dialect_of(connection: &quinn::Connection) -> Option<Dialect> {
    let handshake = connection.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
    Dialect::of(&handshake.protocol?)
}

fn node_of(connection: &quinn::Connection) -> Option<NodeId> {
    let chain = connection.peer_identity()?.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok()?;
    tls::node_of(chain.first()?)
}

impl Shared {
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }
}
