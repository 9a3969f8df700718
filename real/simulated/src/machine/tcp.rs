//! TCP of the simulation. What is lost on a link is not sent again: a connection that a partition has hit is silent ever after.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use worldline_real::machine::{self, Pending};

struct Listener(turmoil::net::TcpListener);

#[derive(Debug)]
struct Stream(turmoil::net::TcpStream);

pub(super) fn listen(address: SocketAddr) -> Pending<'static, Box<dyn machine::Listener>> {
    Box::pin(async move {
        let listener = turmoil::net::TcpListener::bind(address).await?;
        Ok(Box::new(Listener(listener)) as Box<dyn machine::Listener>)
    })
}

pub(super) fn connect(addresses: Vec<SocketAddr>) -> Pending<'static, Box<dyn machine::Stream>> {
    Box::pin(async move {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match turmoil::net::TcpStream::connect(address).await {
                Ok(stream) => return Ok(Box::new(Stream(stream)) as Box<dyn machine::Stream>),
                Err(error) => last = error,
            }
        }
        Err(last)
    })
}

impl machine::Listener for Listener {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&self) -> Pending<'_, Box<dyn machine::Stream>> {
        Box::pin(async move { Ok(Box::new(Stream(self.0.accept().await?.0)) as Box<dyn machine::Stream>) })
    }
}

impl machine::Stream for Stream {
    fn prompt(&self) -> io::Result<()> {
        self.0.set_nodelay(true)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
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
