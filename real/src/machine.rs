//! What adapters and hosts use of the machine under them: its clocks, its entropy, its sockets.
//!
//! There is one for production, [`Own`]; whoever gives another finds the same adapters on it, byte for byte. Timers and tasks
//! are tokio's, on whatever runtime the adapter was made.
//!
//! Deliberately absent: files. What is written down is written by the process itself.

use crate::{clock, entropy};
#[cfg(not(madsim))]
use quinn::{AsyncUdpSocket, Runtime as _, TokioRuntime};
use std::{fmt, future::Future, io, net::SocketAddr, pin::Pin, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, lookup_host},
};
use worldline_system::{
    doors::entropy::Entropy,
    time::{Instant, UnixTime},
};

/// What a machine will have done.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A machine that adapters run on.
pub trait Machine: fmt::Debug + Send + Sync {
    /// Its monotonic clock, which goes on while it sleeps.
    fn now(&self) -> Instant;

    /// Its wall clock.
    fn unix_now(&self) -> UnixTime;

    /// A stream of randomness that nobody can foretell.
    ///
    /// # Errors
    /// It has none to give.
    fn entropy(&self) -> io::Result<Entropy>;

    /// A UDP socket on one of its addresses; port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be had.
    #[cfg(not(madsim))]
    fn udp(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>>;

    /// Listens for TCP connections on one of its addresses; port 0 takes a free one.
    fn listen(&self, address: SocketAddr) -> Pending<'static, Box<dyn Listener>>;

    /// Opens a TCP connection to the first of these addresses where somebody answers.
    fn connect(&self, addresses: Vec<SocketAddr>) -> Pending<'static, Box<dyn Stream>>;

    /// The addresses behind a name, or the address itself.
    fn lookup(&self, host: String, port: u16) -> Pending<'static, Vec<SocketAddr>>;

    /// How long it is until `at`, for a timer of the runtime; zero if it has passed.
    fn until(&self, at: Instant) -> std::time::Duration {
        clock::span(at.since(self.now()))
    }
}

/// Whoever listens for TCP connections.
pub trait Listener: Send + Sync {
    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection. Nothing is lost if this is given up.
    fn accept(&self) -> Pending<'_, Box<dyn Stream>>;
}

/// A TCP connection.
pub trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {
    /// What is written leaves at once (`TCP_NODELAY`).
    ///
    /// # Errors
    /// The connection is over.
    fn prompt(&self) -> io::Result<()>;
}

/// The machine that this process runs on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own;

/// The machine that this process runs on, as adapters take it.
#[must_use]
pub fn own() -> Arc<dyn Machine> {
    Arc::new(Own)
}

impl Machine for Own {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn unix_now(&self) -> UnixTime {
        clock::unix_now()
    }

    fn entropy(&self) -> io::Result<Entropy> {
        entropy::fresh()
    }

    #[cfg(not(madsim))]
    fn udp(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(std::net::UdpSocket::bind(address)?)
    }

    fn listen(&self, address: SocketAddr) -> Pending<'static, Box<dyn Listener>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(address).await?) as Box<dyn Listener>) })
    }

    fn connect(&self, addresses: Vec<SocketAddr>) -> Pending<'static, Box<dyn Stream>> {
        Box::pin(async move { Ok(Box::new(TcpStream::connect(&addresses[..]).await?) as Box<dyn Stream>) })
    }

    fn lookup(&self, host: String, port: u16) -> Pending<'static, Vec<SocketAddr>> {
        Box::pin(async move { Ok(lookup_host((host.as_str(), port)).await?.collect()) })
    }
}

impl Listener for TcpListener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn accept(&self) -> Pending<'_, Box<dyn Stream>> {
        Box::pin(async move { Ok(Box::new(self.accept().await?.0) as Box<dyn Stream>) })
    }
}

impl Stream for TcpStream {
    fn prompt(&self) -> io::Result<()> {
        self.set_nodelay(true)
    }
}
