//! Packets that are rarer than messages: handshakes, closing, calls and their replies.

use super::connection::{EndKind, EndRef};
use std::hash::{Hash, Hasher};
use worldline_proto::OpId;
use worldline_system::{
    Outcome,
    doors::network::{Call, CloseReason},
};

/// A packet between two ends.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The sender's end.
    pub from: EndRef,
    /// The receiver's, where the sender knows it.
    pub to: EndRef,
    /// How often it was sent before.
    pub attempt: u8,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Opens a connection.
    Hello(EndKind),
    /// Accepts it.
    Welcome,
    /// Ends a connection, or refuses a handshake. `Reset` says that the sender knows of no such connection.
    Close(CloseReason),
    /// A unary call.
    Request(Box<Call>),
    /// Its answer.
    Reply { op: OpId, outcome: Box<Outcome<worldline_proto::server::Reply>> },
}

impl Hash for Frame {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.from, self.to, self.attempt).hash(state);
        match &self.body {
            Body::Hello(kind) => (0_u8, *kind as u8).hash(state),
            Body::Welcome => 1_u8.hash(state),
            Body::Close(reason) => (2_u8, reason).hash(state),
            Body::Request(call) => (3_u8, call).hash(state),
            Body::Reply { op, outcome } => (4_u8, op, outcome).hash(state),
        }
    }
}
