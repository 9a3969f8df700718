//! The network door: what happens to a packet between two nodes, and what connections, streams and calls make of packets.
//!
//! A packet's fate is a keyed draw: packet n of a connection, or of a link. It is lost or cut where it is sent; what is
//! under way arrives, whatever becomes of its sender. Order is promised only within a stream class of one connection.
//!
//! Deliberately absent: acknowledgements. The model knows which packet it lost, and lets the sender find out when its
//! timeout would have told it.

pub(crate) mod call;
pub(crate) mod connection;
pub(crate) mod frame;
pub mod latency;
pub(crate) mod link;
pub(crate) mod stream;

use crate::{core::Core, entropy::Purpose};
use latency::Link;
use link::Disturbance;
use worldline_proto::NodeId;
pub use worldline_system::limits::{HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE};
use worldline_system::time::Duration;

/// The first wait for the answer to a handshake; it doubles (RFC 9002, 6.2.2: three times the initial round trip).
pub(crate) const HANDSHAKE_RETRY: Duration = Duration::from_secs(1);
/// What a receiver may wait before it acknowledges (RFC 9000, 18.2).
pub(crate) const ACK_DELAY: Duration = Duration::from_millis(25);
/// How often the wait for an acknowledgement doubles at most.
pub(crate) const BACKOFF_MAX: u8 = 6;

/// What stands against the network at the moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub disturbances: Vec<Disturbance>,
}

/// What becomes of a packet: delays in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// `None` if it is lost.
    pub delay_ns: Option<u64>,
    /// Of its double, if it has one.
    pub double_ns: Option<u64>,
}

impl Core {
    /// The delay of one packet sent now. `None` if it is lost or cut, or the sender has no running process.
    pub fn hop(&mut self, from: NodeId, to: NodeId) -> Option<Duration> {
        if !self.is_running(from) {
            return None;
        }
        let (link, who, n) = self.count_hop(from, to);
        self.passage(from, to, link, Purpose::Hop, who, n).delay_ns.map(Duration::from_nanos)
    }

    /// Whether packets can pass from one to the other: their link is not cut. Says nothing about loss.
    #[must_use]
    pub fn linked(&self, from: NodeId, to: NodeId) -> bool {
        !self.network.disturbances.iter().any(|disturbance| disturbance.cuts(from, to))
    }

    /// The law of the link, its key, and the number of the packet that is sent on it now.
    fn count_hop(&mut self, from: NodeId, to: NodeId) -> (Link, u64, u64) {
        let link = self.link(from, to);
        let hops = &mut self.nodes[from.0 as usize].cold.hops;
        let place = match hops.binary_search_by_key(&to, |&(to, _)| to) {
            Ok(place) => place,
            Err(place) => {
                hops.insert(place, (to, 0));
                place
            }
        };
        hops[place].1 += 1;
        (link, u64::from(from.0) << 32 | u64::from(to.0), hops[place].1.into())
    }

    pub(crate) fn link(&self, from: NodeId, to: NodeId) -> Link {
        if from == to {
            return Link::loopback();
        }
        Link::between(self.nodes[from.0 as usize].place, self.nodes[to.0 as usize].place)
    }

    /// Draws the fate of packet `n` of `who`.
    #[inline(always)]
    pub(crate) fn passage(
        &mut self,
        from: NodeId,
        to: NodeId,
        link: Link,
        purpose: Purpose,
        who: u64,
        n: u64,
    ) -> Passage {
        let bits = self.keyed.draw(purpose, who, n);
        self.counters.packets += 1;
        let rates = latency::RATES[link.class as usize];
        let (loss, double) = (bits as u32 & 0xF_FFFF, (bits >> 20) as u32 & 0xF_FFFF);
        let delay_ns = link.delay_ns((bits >> 40) as u32);
        let mut passage = Passage { delay_ns: Some(delay_ns), double_ns: None };
        if loss < rates.loss {
            passage.delay_ns = None;
        }
        if double < rates.duplicate {
            passage.double_ns = Some(delay_ns + delay_ns / 8);
        }
        if !self.network.disturbances.is_empty() {
            self.disturbed(&mut passage, from, to, purpose, who, n);
        }
        self.counters.packets_lost += u64::from(passage.delay_ns.is_none());
        self.counters.packets_doubled += u64::from(passage.double_ns.is_some());
        passage
    }
}
