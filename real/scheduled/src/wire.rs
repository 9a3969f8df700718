//! The machine under the adapters: a connection to it is a pipe, and a script sits at its other end.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use worldline_real::{
    clock, entropy,
    machine::{Listener, Machine, Pending, Stream},
};
use worldline_system::{
    doors::entropy::Entropy,
    time::{Instant, UnixTime},
};

/// What a pipe holds that nobody has read: little, so that writers wait.
const PIPE_BYTES: usize = 512;

/// Who is at the other end of connections.
pub trait Server: fmt::Debug + Send + Sync {
    /// Takes a connection of this number to this port, or does not.
    fn accept(self: Arc<Self>, port: u16, number: u64, pipe: DuplexStream) -> Pending<'static, ()>;
}

/// A machine whose every connection leads to one server.
#[derive(Debug)]
pub struct Wired<S> {
    server: Arc<S>,
    connections: AtomicU64,
}

impl<S: Server> Wired<S> {
    /// A machine that is wired to this server.
    #[must_use]
    pub fn to(server: Arc<S>) -> Arc<Self> {
        Arc::new(Self { server, connections: AtomicU64::new(0) })
    }
}

/// The near end of a pipe.
#[derive(Debug)]
struct Near(DuplexStream);

impl Stream for Near {
    fn prompt(&self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Near {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Near {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: Server + 'static> Machine for Wired<S> {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn unix_now(&self) -> UnixTime {
        clock::unix_now()
    }

    fn entropy(&self) -> io::Result<Entropy> {
        entropy::fresh()
    }

    fn listen(&self, _: SocketAddr) -> Pending<'static, Box<dyn Listener>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn connect(&self, addresses: Vec<SocketAddr>) -> Pending<'static, Box<dyn Stream>> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let server = self.server.clone();
        Box::pin(async move {
            let (near, far) = duplex(PIPE_BYTES);
            let port = addresses.first().map_or(0, SocketAddr::port);
            server.accept(port, number, far).await?;
            Ok(Box::new(Near(near)) as Box<dyn Stream>)
        })
    }

    fn lookup(&self, _: String, port: u16) -> Pending<'static, Vec<SocketAddr>> {
        Box::pin(async move { Ok(vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)]) })
    }
}
