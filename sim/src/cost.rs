//! What handling an event costs a node in simulated time, so that one that has too much to do falls behind as a real one.
//!
//! Deliberately absent: the figures. Who builds a world measures them.

use worldline_system::{
    doors::{self, network},
    time::Duration,
};

/// The price of one event: so much for itself, and so much for each submission that it leaves in the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// For the event.
    pub event: Duration,
    /// For each submission.
    pub submission: Duration,
}

/// What each kind of event costs a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// A timer, the start, the stop.
    pub timer: Charge,
    /// A datagram or a stream message.
    pub message: Charge,
    /// Any other event of the network.
    pub call: Charge,
    /// News or an answer of the directory.
    pub directory: Charge,
    /// An answer of the ledger.
    pub ledger: Charge,
    /// An answer or a message of the bus.
    pub bus: Charge,
    /// An answer of the cache.
    pub cache: Charge,
}

impl Cost {
    /// What this event costs.
    #[must_use]
    pub fn of(&self, event: &doors::Event) -> Charge {
        match event {
            doors::Event::Started | doors::Event::Timer(_) | doors::Event::Stop => self.timer,
            doors::Event::Network(network::Event::Datagram { .. } | network::Event::Received { .. }) => self.message,
            doors::Event::Network(_) => self.call,
            doors::Event::Directory(_) => self.directory,
            doors::Event::Ledger(_) => self.ledger,
            doors::Event::Bus(_) => self.bus,
            doors::Event::Cache(_) => self.cache,
        }
    }
}
