//! Ports on loopback that are free: some for our own sockets, some for processes that will bind them, now and again.
//!
//! A port without a socket is anybody's, so drills and tests share them out in blocks: who holds the lock file of a block has
//! all its ports until it lets go of it, which the system sees to even where it is killed. A service that is killed and started
//! again finds its port as it left it. The blocks lie below the ports that `ci/services` and its like draw, and below those that
//! the system gives to connections.
//!
//! Must never be here: a socket that stays, a service.

use std::{
    collections::VecDeque,
    fs::{self, File, TryLockError},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
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
    folder: PathBuf,
    /// The blocks that may still be had. Processes that do not see each other's lock files begin elsewhere.
    blocks: VecDeque<u16>,
    /// What is left of the blocks that are held.
    left: Range<u16>,
    /// The locks of the blocks that are held.
    held: Vec<File>,
}

impl Default for Ports {
    fn default() -> Self {
        let user = rustix::process::getuid().as_raw();
        Self::locked_in(std::env::temp_dir().join(format!("worldline-ports-{user}")))
    }
}

impl Ports {
    fn locked_in(folder: PathBuf) -> Self {
        let mut blocks: VecDeque<u16> = (0..BLOCKS).collect();
        let first = std::process::id() % u32::from(BLOCKS);
        blocks.rotate_left(usize::try_from(first).unwrap_or(0));
        Self { folder, blocks, left: 0..0, held: Vec::new() }
    }

    /// The sockets of a port that is free for both protocols.
    ///
    /// # Errors
    /// None was found, or the lock files cannot be had.
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
            if let Some(lock) = lock(&self.folder, block)? {
                self.held.push(lock);
                let first = RANGE.start + block * BLOCK;
                self.left = first..first + BLOCK;
                return Ok(());
            }
        }
        let what = format!("no free port on 127.0.0.1 in {RANGE:?}: others hold them, see {}", self.folder.display());
        Err(io::Error::new(io::ErrorKind::AddrInUse, what))
    }
}

/// The lock of a block, until it is dropped. `None`: somebody else holds it.
fn lock(folder: &Path, block: u16) -> io::Result<Option<File>> {
    let said = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(said)?;
    let path = folder.join(block.to_string());
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(said)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(said(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn two_holders_share_no_port_and_what_one_held_is_free_when_it_is_gone() {
        let folder = std::env::temp_dir().join(format!("worldline-ports-test-{}", std::process::id()));
        let ports = || Ports::locked_in(folder.clone());
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
        fs::remove_dir_all(&folder).expect("it was made");
    }
}
