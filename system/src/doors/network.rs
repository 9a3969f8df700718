//! The network door: connections with datagrams and ordered stream classes, and unary calls.
//!
//! * Order: messages of one stream class of one connection arrive in the order sent, each once, until the connection
//!   closes. Datagrams may be lost, doubled and overtaken, and never torn. Nothing else is promised.
//! * A connection notices a dead peer only by its idle timeout; what was sent and not delivered by then is lost.
//! * A call that never left is `Refused`; a deadline, a cancellation, an internal error, or the peer gone after sending is
//!   `Unknown`.
//! * Clients and gateways exchange bytes; servers exchange typed values, which a real host encodes.
//!
//! Deliberately absent: addresses. A node is named by its id; `real/` resolves it.

use crate::outcome::Outcome;
use alloc::{boxed::Box, sync::Arc};
use core::fmt;
use worldline_proto::{
    CallId, ConnectionId, NodeId, OpId,
    server::{PeerMessage, Reply, Request},
};

/// How many bytes a payload keeps without an allocation.
const INLINE: usize = 30;

/// What a datagram or a stream message carries. Aligned, so that it moves in the same two halves wherever it goes: the
/// simulator moves millions a second, and a processor waits where a load straddles two stores.
#[derive(Clone, PartialEq, Eq, Hash)]
#[repr(align(16))]
pub enum Payload {
    /// A short frame of bytes. Made by [`Payload::from`].
    Inline(InlineBytes),
    /// A longer frame of bytes.
    Shared(Arc<[u8]>),
    /// A message between servers.
    Peer(Arc<PeerMessage>),
}

impl Payload {
    /// The frame's bytes; `None` for a typed message.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Inline(inline) => Some(inline.as_bytes()),
            Self::Shared(shared) => Some(shared),
            Self::Peer(_) => None,
        }
    }
}

impl From<&[u8]> for Payload {
    #[inline]
    fn from(bytes: &[u8]) -> Self {
        InlineBytes::new(bytes).map_or_else(|| Self::Shared(bytes.into()), Self::Inline)
    }
}

impl From<PeerMessage> for Payload {
    fn from(message: PeerMessage) -> Self {
        Self::Peer(Arc::new(message))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(message) => message.fmt(f),
            Self::Inline(inline) => write!(f, "{} bytes", inline.as_bytes().len()),
            Self::Shared(shared) => write!(f, "{} bytes", shared.len()),
        }
    }
}

/// At most 30 bytes, kept in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InlineBytes {
    len: u8,
    bytes: [u8; INLINE],
}

impl InlineBytes {
    #[inline]
    fn new(source: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE];
        bytes.get_mut(..source.len())?.copy_from_slice(source);
        Some(Self { len: source.len() as u8, bytes })
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// An ordered stream within a connection. Classes do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum StreamClass {
    /// Hello, welcome, farewell.
    Control = 0,
    /// Operations and their answers.
    Action = 1,
    /// Reliable corrections of state.
    State = 2,
}

impl StreamClass {
    /// Every class, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Control, Self::Action, Self::State];
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The handshake did not complete in time: nobody there, or the link is cut.
    HandshakeTimeout,
    /// Nothing was heard for the idle timeout.
    IdleTimeout,
    /// The peer does not know this connection: it has restarted.
    Reset,
    /// The peer closed it: orderly, its process is stopping or done with us.
    Closed,
    /// The peer closed it because of what was sent on it.
    ProtocolError,
    /// The peer closed it because another session has taken its place. Said with the close itself: what was sent on a stream
    /// just before is overtaken by it.
    Superseded,
    /// The peer closed it and will not have this player back: its token is revoked, or of how it has moved. Said with the close itself,
    /// since the message that says which of the two may be overtaken by it, or lost.
    Barred,
    /// A send queue reached its bound.
    Overflow,
    /// This node has as many connections as [`crate::limits`] allows.
    TooMany,
}

/// What a role may submit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Submission {
    /// Open a connection. Answered by [`Event::Opened`] or [`Event::NotOpened`] under the same id.
    Connect {
        /// Names the answer.
        op: OpId,
        /// To whom.
        to: NodeId,
    },
    /// Send without guarantee, at most [`crate::limits::DATAGRAM_BYTES`]; a longer one is dropped.
    Datagram {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        payload: Payload,
    },
    /// Send in order, at most [`crate::limits::FRAME_BYTES`]. A longer one ends the connection with
    /// [`CloseReason::ProtocolError`] on both sides, for nothing behind it could be delivered in order.
    Send {
        /// On which connection.
        connection: ConnectionId,
        /// In which order.
        class: StreamClass,
        /// What.
        payload: Payload,
    },
    /// Close at once; the peer is told if it can be reached. No [`Event::Closed`] follows on this side; what was under way to it
    /// may still come.
    Close {
        /// Which connection.
        connection: ConnectionId,
        /// What the peer is told.
        reason: CloseReason,
    },
    /// A unary call of at most [`crate::limits::CALL_BYTES`]; a longer one is `Refused(Malformed)`. Answered once by
    /// [`Event::Answered`].
    Call(Box<Call>),
    /// The answer to an [`Event::Called`]. A second answer to one call is dropped.
    Reply {
        /// Which call.
        call: CallId,
        /// The answer: a reply, or a refusal that the caller sees as `Refused`. `Unknown` tells it an internal error.
        outcome: Box<Outcome<Reply>>,
    },
}

/// A unary call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Call {
    /// Names the answer.
    pub op: OpId,
    /// By the node's monotonic clock.
    pub deadline: crate::time::Instant,
    /// To whom.
    pub to: NodeId,
    /// What.
    pub request: Request,
}

/// What a role may be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A connection that this node asked for stands.
    Opened {
        /// The operation that asked.
        op: OpId,
        /// Its name from now on.
        connection: ConnectionId,
    },
    /// A connection that this node asked for does not stand.
    NotOpened {
        /// The operation that asked.
        op: OpId,
        /// Why.
        reason: CloseReason,
    },
    /// A peer has opened a connection to this node.
    Accepted {
        /// Its name from now on.
        connection: ConnectionId,
        /// Who opened it.
        from: NodeId,
    },
    /// A datagram arrived.
    Datagram {
        /// On which connection.
        connection: ConnectionId,
        /// What.
        payload: Payload,
    },
    /// The next message of a stream class arrived.
    Received {
        /// On which connection.
        connection: ConnectionId,
        /// In which order.
        class: StreamClass,
        /// What.
        payload: Payload,
    },
    /// A connection ended; nothing more comes of it.
    Closed {
        /// Which connection.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// A peer calls this node and waits for a [`Submission::Reply`].
    Called {
        /// Names the call in the reply.
        call: CallId,
        /// Who calls.
        from: NodeId,
        /// What is asked.
        request: Box<Request>,
    },
    /// The answer to a call of this node.
    Answered {
        /// The operation that called.
        op: OpId,
        /// What came of it.
        outcome: Box<Outcome<Reply>>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_gives_back_its_bytes_whatever_their_length() {
        for len in [0, 1, INLINE, INLINE + 1, 1200] {
            let bytes: alloc::vec::Vec<u8> = (0..len).map(|i| i as u8).collect();
            assert_eq!(Payload::from(&bytes[..]).as_bytes(), Some(&bytes[..]), "{len} bytes");
        }
        assert_eq!(size_of::<Payload>(), 32, "an event must stay small: the kernel moves millions a second");
    }
}
