//! UDP of the simulation, as quinn takes it. One datagram a transmission; all that has come is handed over at once, so that
//! how long this process takes for it decides nothing.

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
};
use turmoil::net::UdpSocket;

/// The sockets of one machine.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<Vec<Weak<Socket>>>);

impl Sockets {
    pub fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let bound = Bound { socket: Arc::new(bind(address)?), readable: None };
        let socket = Arc::new(Socket { address: bound.socket.local_addr()?, bound: Mutex::new(bound) });
        lock(&self.0).push(Arc::downgrade(&socket));
        Ok(socket)
    }

    pub fn rebind(&self) -> io::Result<()> {
        let sockets: Vec<_> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        for socket in sockets {
            let mut anywhere = socket.address;
            anywhere.set_port(0);
            let another = Arc::new(bind(anywhere)?);
            let mut bound = lock(&socket.bound);
            bound.socket = another;
            // Whoever waits to receive waits on the old one.
            if let Some((_, waker)) = bound.readable.take() {
                waker.wake();
            }
        }
        Ok(())
    }
}

/// Turmoil's bind never waits.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let bound = std::pin::pin!(UdpSocket::bind(address));
    match bound.poll(&mut Context::from_waker(std::task::Waker::noop())) {
        Poll::Ready(bound) => bound,
        Poll::Pending => unreachable!("a simulated socket is bound at once"),
    }
}

/// Nothing panics while it holds such a lock: what is inside is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct Bound {
    socket: Arc<UdpSocket>,
    /// While nothing has come: what becomes ready then, and who waits for it.
    readable: Option<(Readable, std::task::Waker)>,
}

struct Socket {
    /// Where it was bound first.
    address: SocketAddr,
    bound: Mutex<Bound>,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("address", &self.address).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = lock(&self.bound).socket.try_send_to(transmit.contents, transmit.destination);
        // Nobody is there: UDP does not say so.
        sent.map(|_| ()).or_else(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Ok(()),
            _ => Err(error),
        })
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut bound = lock(&self.bound);
        loop {
            if let Some((readable, waker)) = &mut bound.readable {
                waker.clone_from(context.waker());
                match readable.as_mut().poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(ready) => {
                        bound.readable = None;
                        ready?;
                    }
                }
            }
            let mut received = 0;
            for (buffer, meta) in buffers.iter_mut().zip(&mut *meta) {
                match bound.socket.try_recv_from(buffer) {
                    Ok((len, addr)) => *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None },
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Poll::Ready(Err(error)),
                }
                received += 1;
            }
            if received > 0 {
                return Poll::Ready(Ok(received));
            }
            let socket = Arc::clone(&bound.socket);
            bound.readable = Some((Box::pin(async move { socket.readable().await }), context.waker().clone()));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A simulated socket takes whatever is sent.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
