//! Ports on loopback that are free: some for our own sockets, some for processes that will bind them, now and again.
//!
//! A port without a socket is anybody's, so drills and tests share them out in blocks: a block is whose the abstract socket
//! (unix(7)) of its name is, until the holder closes it, which the system sees to even where it is killed. Such names belong to
//! a network namespace, as the ports do, so whoever could take a port knows that it is held. A service that is killed and
//! started again finds its port as it left it. The blocks lie below the ports that `ci/services` and its like draw, and below
//! those that the system gives to connections.
//!
//! Must never be here: a TCP or UDP socket that stays, a service.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    os::{linux::net::SocketAddrExt as _, unix::net},
    sync::{Mutex, PoisonError},
};

/// All blocks.
const RANGE: Range<u16> = 10_240..20_000;
/// Ports of a block: enough for one test. A drill takes about eight.
const BLOCK: u16 = 32;
const BLOCKS: u16 = (RANGE.end - RANGE.start) / BLOCK;

/// An address that nobody else gets while this process lives.
///
/// # Errors
/// As [`Ports::pair`].
pub fn of_this_process() -> io::Result<SocketAddr> {
    static PORTS: Mutex<Option<Ports>> = Mutex::new(None);
    PORTS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().free()
}

/// Finds free ports. A port that it has given is nobody else's while this lives.
#[derive(Debug)]
pub struct Ports {
    /// What the names of blocks begin with.
    name: String,
    /// The blocks that may still be had.
    blocks: VecDeque<u16>,
    /// What is left of the blocks that are held.
    left: Range<u16>,
    /// The names of the blocks that are held.
    held: Vec<net::UnixDatagram>,
}

impl Default for Ports {
    fn default() -> Self {
        Self::named("worldline-ports".to_owned())
    }
}

impl Ports {
    fn named(name: String) -> Self {
        let mut blocks: VecDeque<u16> = (0..BLOCKS).collect();
        // Most find the first block that they try.
        let first = std::process::id() % u32::from(BLOCKS);
        blocks.rotate_left(usize::try_from(first).unwrap_or(0));
        Self { name, blocks, left: 0..0, held: Vec::new() }
    }

    /// The sockets of a port that is free for both protocols.
    ///
    /// # Errors
    /// None was found, or the system refuses a name of ours for another reason than that it is held.
    pub fn pair(&mut self) -> io::Result<(SocketAddr, TcpListener, UdpSocket)> {
        loop {
            for port in self.left.by_ref() {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                if let (Ok(stream), Ok(datagram)) = (TcpListener::bind(address), UdpSocket::bind(address)) {
                    stream.set_nonblocking(true)?;
                    datagram.set_nonblocking(true)?;
                    return Ok((address, stream, datagram));
                }
            }
            self.next_block()?;
        }
    }

    /// An address for a process that will bind it.
    ///
    /// # Errors
    /// As [`Ports::pair`].
    pub fn free(&mut self) -> io::Result<SocketAddr> {
        self.pair().map(|(address, ..)| address)
    }

    /// Takes a block that nobody holds.
    fn next_block(&mut self) -> io::Result<()> {
        while let Some(block) = self.blocks.pop_front() {
            let name = net::SocketAddr::from_abstract_name(format!("{}-{block}", self.name))?;
            match net::UnixDatagram::bind_addr(&name) {
                Ok(held) => {
                    self.held.push(held);
                    let first = RANGE.start + block * BLOCK;
                    self.left = first..first + BLOCK;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
        }
        let what =
            format!("no free port on 127.0.0.1 in {RANGE:?}: others hold them, see @{} in /proc/net/unix", self.name);
        Err(io::Error::new(io::ErrorKind::AddrInUse, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn two_holders_share_no_port_and_what_one_held_is_free_when_it_is_gone() {
        let ports = || Ports::named(format!("worldline-ports-test-{}", std::process::id()));
        let some = |ports: &mut Ports| -> BTreeSet<u16> {
            (0..BLOCK + 10).map(|_| ports.free().expect("a port").port()).collect()
        };
        let (mut one, mut other) = (ports(), ports());
        let first = some(&mut one);
        let second = some(&mut other);
        assert_eq!((first.len(), second.len()), (usize::from(BLOCK) + 10, usize::from(BLOCK) + 10));
        assert!(first.is_disjoint(&second), "sockets are closed, and still nobody else gets the ports");
        assert!(first.iter().chain(&second).all(|port| RANGE.contains(port)));
        drop(one);
        assert!(!some(&mut ports()).is_disjoint(&first));
    }
}
