//! What a network has counted: mostly what it has refused.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What can be counted.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Count {
            $($(#[$doc])* $name,)*
        }

        impl Count {
            const NAMES: &[&str] = &[$($text,)*];
        }
    };
}

counts! {
    /// Connections that a peer opened and this side took.
    Accepted = "connections_accepted",
    /// Connections that this side opened.
    Connected = "connections_opened",
    /// Handshakes with this side that came to nothing: wrong certificate, wrong protocol, too slow.
    HandshakeFailed = "quic_handshakes_failed",
    /// Handshakes that made room for newer ones.
    HandshakeEvicted = "quic_handshakes_evicted",
    /// Callers that were asked to prove their address first.
    Retried = "quic_retries_sent",
    /// Connections refused because the node has as many as it may.
    TooMany = "connections_refused",
    /// Connections refused because so many of strangers from their address stand.
    AddressFull = "connections_refused_by_address",
    /// Peers without a role's certificate.
    NoRole = "peers_without_role",
    /// Packets on the UDP port that are not of QUIC version 1 by their first bytes. What looks like it and cannot be decrypted
    /// quinn drops without a word, and nobody counts it.
    ForeignPacket = "udp_foreign_packets",
    /// A frame longer than the limit was announced.
    FrameTooLong = "frames_too_long",
    /// A stream of no known class.
    UnknownClass = "streams_of_unknown_class",
    /// A second stream of a class.
    StreamDoubled = "streams_doubled",
    /// A stream that ended within a frame, or was reset.
    StreamCut = "streams_cut",
    /// What is no message between servers.
    Undecodable = "messages_undecodable",
    /// A datagram longer than the limit.
    DatagramTooLong = "datagrams_too_long",
    /// Datagrams of strangers above what they may bring.
    DatagramOverRate = "datagrams_over_rate",
    /// How often a stranger's stream was not read for a while: it had brought more than it may.
    StreamHeld = "streams_held_back",
    /// Datagrams of this node's role that made room for newer ones before they left.
    DatagramDisplaced = "datagrams_displaced",
    /// A send queue reached its bound.
    Overflow = "send_queues_overflowed",
    /// What this node's role sent on connections that had ended.
    SentToNobody = "sent_to_nobody",
    /// What this node's role wanted to send and no connection carries: too long, or of the wrong kind.
    Unsendable = "unsendable",
    /// TCP connections whose TLS or HTTP/2 did not come to stand.
    TlsFailed = "tcp_handshakes_failed",
    /// TCP handshakes that made room for newer ones.
    TcpEvicted = "tcp_handshakes_evicted",
    /// TCP connections refused because the node has as many as it may.
    TcpTooMany = "tcp_connections_refused",
    /// TCP connections of strangers that were closed because they asked nothing for long, or had stayed for long.
    TcpOverstayed = "tcp_connections_overstayed",
    /// Calls that were handed to the role.
    Called = "calls_served",
    /// Calls refused because the node has as many in flight as it may.
    CallBusy = "calls_refused_busy",
    /// Calls that did not decode, were too long, or of no known method.
    CallMalformed = "calls_malformed",
    /// Calls of a method that only roles may call, without a role's certificate.
    CallUnauthenticated = "calls_unauthenticated",
    /// Calls whose caller went away before they were answered.
    CallAbandoned = "calls_abandoned",
    /// Replies that nobody waits for any more.
    ReplyDropped = "replies_dropped",
    /// Channels to a peer that did not come to stand.
    ChannelFailed = "channels_failed",
}

/// Clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Counters(Arc<[AtomicU64]>);

impl Default for Counters {
    fn default() -> Self {
        Self(Count::NAMES.iter().map(|_| AtomicU64::new(0)).collect())
    }
}

impl Counters {
    pub fn add(&self, count: Count) {
        self.add_many(count, 1);
    }

    pub fn add_many(&self, count: Count, n: u64) {
        self.0[count as usize].fetch_add(n, Ordering::Relaxed);
    }

    pub fn each(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        Count::NAMES.iter().copied().zip(counts).collect()
    }
}
