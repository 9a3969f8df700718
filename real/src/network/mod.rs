//! The network door: connections on QUIC and unary calls on gRPC, both on one address a node.
//!
//! Deliberately absent: any knowledge of which role it serves.

pub mod tls;

use crate::{Inbox, ready::Readiness};
use std::{collections::BTreeMap, io, net::SocketAddr};
use tls::Identity;
use worldline_proto::NodeId;
use worldline_system::{
    Outcome, Refusal, doors,
    doors::network::{CloseReason, Event, Submission},
};

/// Who a client is to a gateway: no node of this world.
pub const STRANGER: NodeId = NodeId(u32::MAX);

/// What a process is on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A player: connects to gateways without a certificate, exchanges bytes, accepts nobody and listens to no calls.
    Client,
    /// A gateway: accepts clients and roles, connects to roles.
    Gateway,
    /// Any other role: accepts roles, connects to roles.
    Server,
}

/// Where a process is, who it is and whom it knows.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its own node.
    pub node: NodeId,
    /// What it is.
    pub part: Part,
    /// Where it listens: QUIC on this UDP port, gRPC on the TCP port of the same number. A client takes any free port.
    pub listen: SocketAddr,
    /// Where the others are.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// What it shows of itself and whom it trusts. Other than a client's it must name `node`.
    pub identity: Identity,
}

/// Why a process cannot be on the network.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("cannot listen on {transport} {address}: {source}")]
    Listen {
        /// UDP or TCP.
        transport: &'static str,
        /// Which address.
        address: SocketAddr,
        /// Why: in use, not this machine's, not allowed.
        source: io::Error,
    },
    /// The certificate is another's.
    #[error("the certificate names {}, and this process is {node}", named(*.certificate))]
    AnotherNode {
        /// Who the process is.
        node: NodeId,
        /// Whom the certificate names.
        certificate: Option<NodeId>,
    },
    /// The identity cannot be used with TLS 1.3.
    #[error("cannot use the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

fn named(node: Option<NodeId>) -> String {
    node.map_or_else(|| "no node".to_owned(), |node| node.to_string())
}

/// A process on the network.
pub struct Network {
    inbox: Inbox,
    address: SocketAddr,
}

impl Network {
    /// Takes the address and begins to listen. Must be called within a runtime of tokio.
    ///
    /// # Errors
    /// The address cannot be had; the certificate is not this node's.
    pub async fn bind(config: Config, inbox: Inbox, ready: Readiness) -> Result<Self, BindError> {
        ready.missing("network", "cannot carry anything yet");
        Ok(Self { inbox, address: config.listen })
    }

    /// The address at which it listens, with the port that was chosen where the configuration left it open.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes a submission of the role. Never waits.
    pub fn submit(&self, submission: Submission) {
        match submission {
            Submission::Connect { op, .. } => {
                let reason = CloseReason::HandshakeTimeout;
                self.inbox.answer(op, doors::Event::Network(Event::NotOpened { op, reason }));
            }
            Submission::Call(call) => {
                let (op, outcome) = (call.op, Box::new(Outcome::Refused(Refusal::Unreachable)));
                self.inbox.answer(op, doors::Event::Network(Event::Answered { op, outcome }));
            }
            _ => {}
        }
    }

    /// What it has counted, each by its name: mostly what it has refused.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Ends every connection and call and gives the address back: no task, socket or connection is left.
    pub async fn close(&self) {}
}
