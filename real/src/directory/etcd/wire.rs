//! One TCP connection to one member, under the etcd client.
//!
//! * A channel of the client lives on exactly one connection: where that is gone a request fails with [`tonic::ConnectError`]
//!   in its source chain, and so has certainly not left.
//! * The connection can be ended from outside; what waits on it ends with it.
//! * Whoever holds [`Ends`] hears that it is gone, and how much has been heard on it.

use crate::{directory::client::Ends, machine::Stream};
use hyper_util::rt::TokioIo;
use std::{
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};
use tonic::{ConnectError, codegen::Service, transport::Uri};

/// The connection, as the client's transport holds it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Box<dyn Stream>,
    hung_up: oneshot::Receiver<()>,
    over: bool,
    heard_bytes: Arc<AtomicU64>,
    /// Dropped with the connection.
    _gone: oneshot::Sender<()>,
}

impl Wire {
    pub fn new(stream: Box<dyn Stream>) -> (Self, Ends) {
        let (hang_up, hung_up) = oneshot::channel();
        let (gone_sender, gone) = oneshot::channel();
        let heard_bytes = Arc::new(AtomicU64::new(0));
        let ends = Ends { hang_up, gone, heard_bytes: heard_bytes.clone() };
        (Self { stream, hung_up, over: false, heard_bytes, _gone: gone_sender }, ends)
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut Box<dyn Stream>> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.over = self.over || Pin::new(&mut self.hung_up).poll(cx).is_ready();
        if self.over {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "given up")));
        }
        let before = buffer.filled().len();
        let read = self.as_mut().stream().poll_read(cx, buffer);
        let heard = buffer.filled().len() - before;
        self.heard_bytes.fetch_add(heard as u64, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}

/// Gives the transport its one connection, and never another.
#[derive(Debug)]
pub(super) struct Once(Option<Wire>);

impl Once {
    pub const fn new(wire: Wire) -> Self {
        Self(Some(wire))
    }
}

impl Service<Uri> for Once {
    type Response = TokioIo<Wire>;
    type Error = ConnectError;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| ConnectError("the connection is over".into())))
    }
}
