//! What quinn runs on: tasks that the network counts, and a socket that looks at the first bytes of what arrives.

use crate::network::{
    counters::{Count, Counters},
    tasks::Tasks,
};
use quinn::{
    AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// The only version that is spoken.
pub(super) const VERSION: u32 = 1;
const LONG_HEADER: u8 = 0x80;
const FIXED_BIT: u8 = 0x40;

#[derive(Debug)]
pub(super) struct Counted {
    pub tasks: Tasks,
}

impl Runtime for Counted {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.tasks.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> std::time::Instant {
        TokioRuntime.now()
    }
}

#[derive(Debug)]
pub(super) struct Socket {
    pub inner: Arc<dyn AsyncUdpSocket>,
    pub counters: Counters,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        context: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(context, buffers, meta))?;
        let mut foreign = 0;
        for (buffer, meta) in buffers.iter().zip(&meta[..received]) {
            let datagrams = buffer[..meta.len].chunks(meta.stride.max(1));
            foreign += datagrams.filter(|datagram| is_foreign(datagram)).count() as u64;
        }
        if foreign > 0 {
            self.counters.add_many(Count::ForeignPacket, foreign);
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Whether a datagram cannot be of QUIC version 1 (RFC 9000, 17): this side never agrees to the fixed bit being cleared.
fn is_foreign(datagram: &[u8]) -> bool {
    match datagram {
        [first, ..] if first & FIXED_BIT == 0 => true,
        [first, a, b, c, d, ..] if first & LONG_HEADER != 0 => u32::from_be_bytes([*a, *b, *c, *d]) != VERSION,
        [first, ..] => first & LONG_HEADER != 0,
        [] => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_quic_is_not_foreign() {
        assert!(!is_foreign(&[0xC0, 0, 0, 0, 1, 8]));
        assert!(!is_foreign(&[0x40]));
        for garbage in [&b"\xC0\x00\x00\x00\x02\x08"[..], b"\xC0\x00", b"\x80\x00\x00\x00\x01", b"\x00", b"", b"!"] {
            assert!(is_foreign(garbage), "{garbage:?}");
        }
    }
}
