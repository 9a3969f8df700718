//! A machine of the simulation, as the adapters use it: turmoil's sockets and clock, and entropy that follows from a seed.

mod tcp;
mod udp;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use udp::Sockets;
use worldline_real::machine::{Listener, Machine, Pending, Stream};
use worldline_system::{
    doors::entropy::Entropy,
    time::{Instant, UnixTime},
};

/// 2026-06-01T00:00:00Z: when every simulation begins.
const BEGIN_UNIX_NS: u64 = 1_780_272_000_000_000_000;

/// A step of the simulation: packets arrive between steps, timers fire within them.
pub const STEP: std::time::Duration = std::time::Duration::from_millis(5);

/// One host of the simulation.
#[derive(Debug)]
pub struct Simulated {
    seed: u64,
    /// Streams of entropy that were taken.
    streams: AtomicU64,
    sockets: Sockets,
}

impl Simulated {
    /// A machine whose entropy follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { seed, streams: AtomicU64::new(0), sockets: Sockets::default() })
    }

    /// From now on its datagrams leave from other ports, as behind a router that has forgotten it: only in the simulation.
    ///
    /// # Errors
    /// There is no port left.
    pub fn rebind(&self) -> io::Result<()> {
        self.sockets.rebind()
    }
}

fn elapsed_ns() -> u64 {
    let elapsed = turmoil::sim_elapsed().expect("only hosts of the simulation ask for the time");
    u64::try_from(elapsed.as_nanos()).expect("a simulation is shorter than 500 years")
}

impl Machine for Simulated {
    fn now(&self) -> Instant {
        Instant::from_nanos(elapsed_ns())
    }

    fn unix_now(&self) -> UnixTime {
        UnixTime::from_nanos(BEGIN_UNIX_NS + elapsed_ns())
    }

    fn entropy(&self) -> io::Result<Entropy> {
        let number = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&number.to_le_bytes());
        Ok(Entropy::from_seed(seed))
    }

    fn udp(&self, address: SocketAddr) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        self.sockets.bind(address)
    }

    fn listen(&self, address: SocketAddr) -> Pending<'static, Box<dyn Listener>> {
        tcp::listen(address)
    }

    fn connect(&self, addresses: Vec<SocketAddr>) -> Pending<'static, Box<dyn Stream>> {
        tcp::connect(addresses)
    }

    fn lookup(&self, host: String, port: u16) -> Pending<'static, Vec<SocketAddr>> {
        Box::pin(async move { Ok(vec![SocketAddr::new(turmoil::lookup(host), port)]) })
    }
}
