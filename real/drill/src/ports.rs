//! Ports on loopback that are free: some for our own sockets, some for processes that will bind them.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Range,
};
use worldline_scenarios::draw::{self, Draw};

/// Below those that the system gives to connections.
const RANGE: Range<u16> = 20_000..32_000;
/// Ports that are tried for one that is free.
const TRIES_MAX: usize = 2_000;

/// Finds free ports. A port that it has given is not given again.
#[derive(Debug)]
pub struct Ports {
    given: BTreeSet<u16>,
    /// Two drills at once begin elsewhere.
    key: u64,
    tried: u64,
}

impl Ports {
    /// Begins somewhere that this key says.
    #[must_use]
    pub fn new(key: u64) -> Self {
        Self { given: BTreeSet::new(), key, tried: 0 }
    }

    /// The sockets of a port that is free for both protocols.
    ///
    /// # Errors
    /// None was found.
    pub fn pair(&mut self) -> io::Result<(SocketAddr, TcpListener, UdpSocket)> {
        for _ in 0..TRIES_MAX {
            self.tried += 1;
            let off = draw::below(self.key, Draw::Port, self.tried, u64::from(RANGE.end - RANGE.start));
            let port = RANGE.start + u16::try_from(off).unwrap_or(0);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if !self.given.contains(&port)
                && let (Ok(stream), Ok(datagram)) = (TcpListener::bind(address), UdpSocket::bind(address))
            {
                self.given.insert(port);
                stream.set_nonblocking(true)?;
                datagram.set_nonblocking(true)?;
                return Ok((address, stream, datagram));
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free port on 127.0.0.1 in {RANGE:?}")))
    }

    /// An address for a process that will bind it.
    ///
    /// # Errors
    /// None was found.
    pub fn free(&mut self) -> io::Result<SocketAddr> {
        self.pair().map(|(address, ..)| address)
    }
}
