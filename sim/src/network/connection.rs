//! Connections: handshake, keep-alive, idle timeout, closing and resets, as QUIC has them.
//!
//! Each end knows only its own side. It learns of a dead peer by hearing nothing for the idle timeout, or from a process
//! that does not know the connection and says so.

use super::{
    ACK_DELAY, BACKOFF_MAX, HANDSHAKE_RETRY, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE, Passage,
    frame::{Body, Frame},
    latency::{Access, Link},
    stream::Streams,
};
use crate::{
    core::Core,
    entropy::{Purpose, fold},
    item::{Item, Scheduled},
    node::{NodeState, connection_id},
    operations::Kind,
};
use worldline_proto::{ConnectionId, NodeId, OpId};
use worldline_system::{
    doors::{
        self,
        network::{CloseReason, Event, Payload},
        telemetry::{Labels, Metric},
    },
    limits,
    time::{Duration, Instant},
};

/// Names one end at its node. Numbers begin at 1 and are never used again, so that a packet to an end that is gone finds
/// nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct EndRef {
    pub index: u32,
    pub number: u32,
}

impl EndRef {
    pub(crate) const fn id(self) -> ConnectionId {
        connection_id(self.index, self.number)
    }

    pub(crate) const fn of(connection: ConnectionId) -> Self {
        Self { index: connection.0 as u32, number: (connection.0 >> 32) as u32 }
    }
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum EndKind {
    /// A role's.
    Role,
    /// The host's, for unary calls.
    Channel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EndState {
    Connecting,
    Open,
}

/// One end of a connection: one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct End {
    /// Zero while nobody uses this place.
    pub number: u32,
    pub peer: NodeId,
    /// The peer's end; unknown while connecting.
    pub peer_end: EndRef,
    /// Keys the fates of this end's packets.
    key: u64,
    /// Sent so far.
    packets: u32,
    /// Sent when the connection's timer last looked.
    packets_seen: u32,
    pub link: Link,
    pub state: EndState,
    pub kind: EndKind,
    /// While connecting: the operation that asked, by its counter. Half of it: the line is full.
    op: u32,
    /// When something was last heard; while connecting, when it began.
    pub last_heard: Instant,
    pub streams: Option<Box<Streams>>,
}

const _: () = assert!(size_of::<End>() == 64, "one cache line");

impl Core {
    fn add_end(&mut self, node: NodeId, peer: NodeId, kind: EndKind, state: EndState) -> Option<EndRef> {
        let link = self.link(node, peer);
        let now = self.now;
        let entry = &mut self.nodes[node.0 as usize];
        if entry.ends.len() - entry.cold.free_ends.len() >= limits::CONNECTIONS {
            return None;
        }
        entry.connections += 1;
        let number = entry.connections;
        let direction = u64::from(node.0) << 32 | u64::from(peer.0);
        let end = End {
            number,
            peer,
            peer_end: EndRef::default(),
            key: fold(direction ^ 0x9E37_79B9_7F4A_7C15, u64::from(number) ^ 0xA076_1D64_78BD_642F),
            packets: 0,
            packets_seen: 0,
            link,
            state,
            kind,
            op: 0,
            last_heard: now,
            streams: None,
        };
        let index = match entry.cold.free_ends.pop() {
            Some(index) => {
                entry.ends[index as usize] = end;
                index
            }
            None => {
                entry.ends.push(end);
                entry.ends.len() as u32 - 1
            }
        };
        Some(EndRef { index, number })
    }

    pub(crate) fn remove_end(&mut self, node: NodeId, end: EndRef) -> Option<End> {
        let entry = &mut self.nodes[node.0 as usize];
        let place = entry.end_mut(end.index, end.number)?;
        let removed = place.clone();
        place.number = 0;
        place.streams = None;
        entry.cold.free_ends.push(end.index);
        Some(removed)
    }

    /// Draws the fate of the next packet of an end.
    #[inline]
    pub(crate) fn next_packet(&mut self, node: NodeId, index: u32) -> (NodeId, EndRef, Passage) {
        let end = &mut self.nodes[node.0 as usize].ends[index as usize];
        end.packets += 1;
        let (peer, to, link, key, n) = (end.peer, end.peer_end, end.link, end.key, end.packets);
        (peer, to, self.passage(node, peer, link, Purpose::Packet, key, n.into()))
    }

    /// How long the sender waits for an acknowledgement before it repeats (RFC 9002, 6.2).
    pub(crate) fn repeat_after(link: Link, attempt: u8) -> Duration {
        (Duration::from_nanos(link.round_trip_ns()) + ACK_DELAY) * (1 << attempt.min(BACKOFF_MAX))
    }

    /// Sends a datagram.
    #[inline]
    pub(crate) fn send_datagram(&mut self, node: NodeId, connection: ConnectionId, mut payload: Payload) {
        let at = EndRef::of(connection);
        let end = self.nodes[node.0 as usize].end_mut(at.index, at.number);
        let Some(end) = end.filter(|end| end.state == EndState::Open) else {
            self.counters.sent_to_nobody += 1;
            return;
        };
        end.packets += 1;
        let (peer, to, link, key, n) = (end.peer, end.peer_end, end.link, end.key, end.packets);
        if !matches!(payload, Payload::Inline(_)) && !self.carry(node, &mut payload, limits::DATAGRAM_BYTES) {
            self.counters.unsendable += 1;
            return;
        }
        let passage = self.passage(node, peer, link, Purpose::Packet, key, n.into());
        if let Some(ns) = passage.double_ns {
            let at = self.now + Duration::from_nanos(ns);
            self.push_packet(at, node, peer, Item::Datagram { to, payload: payload.clone() });
        }
        if let Some(ns) = passage.delay_ns {
            let at = self.now + Duration::from_nanos(ns);
            let (cause, tag) = (self.event, node.0);
            self.queue.push_with(at.as_nanos(), || Scheduled {
                cause,
                node: peer,
                tag,
                item: Item::Datagram { to, payload },
            });
        }
    }

    /// A datagram has arrived. `None` where nobody is there.
    #[inline(always)]
    pub(crate) fn on_datagram(
        &mut self,
        from: NodeId,
        node: NodeId,
        to: EndRef,
        payload: Payload,
    ) -> Option<doors::Event> {
        let now = self.now;
        let entry = &mut self.nodes[node.0 as usize];
        if let Some(end) = entry.end_mut(to.index, to.number)
            && end.state == EndState::Open
        {
            end.last_heard = now;
            return Some(doors::Event::Network(Event::Datagram { connection: to.id(), payload }));
        }
        self.astray(from, node, to);
        None
    }

    pub(crate) fn on_keep_alive(&mut self, from: NodeId, node: NodeId, to: EndRef) {
        let now = self.now;
        match self.nodes[node.0 as usize].end_mut(to.index, to.number) {
            Some(end) => end.last_heard = now,
            None => self.astray(from, node, to),
        }
    }

    /// Sends a frame once.
    pub(crate) fn send_frame(&mut self, node: NodeId, from: EndRef, attempt: u8, body: Body) {
        let (peer, to, passage) = self.next_packet(node, from.index);
        let frame = Box::new(Frame { from, to, attempt, body });
        let repeated = matches!(frame.body, Body::Request(_) | Body::Reply { .. });
        let mut delay = passage.delay_ns.map(Duration::from_nanos);
        if let Body::Hello(EndKind::Channel) = frame.body {
            // TCP and TLS one after the other: a round trip more than QUIC.
            let link = self.link(node, peer);
            delay = delay.map(|delay| delay + Duration::from_nanos(link.round_trip_ns()));
        }
        match delay {
            Some(delay) => self.push_packet(self.now + delay, node, peer, Item::Frame(frame)),
            None if repeated => self.repeat_frame(node, frame),
            None => {}
        }
    }

    /// Sends a frame again once its sender has waited long enough.
    fn repeat_frame(&mut self, sender: NodeId, frame: Box<Frame>) {
        let Some(end) = self.nodes[sender.0 as usize].end(frame.from.index, frame.from.number) else { return };
        let wait = Self::repeat_after(end.link, frame.attempt);
        self.push(self.now + wait, sender, Item::ResendFrame(frame));
    }

    pub(crate) fn on_resend_frame(&mut self, node: NodeId, frame: Frame) {
        if self.nodes[node.0 as usize].end(frame.from.index, frame.from.number).is_some() {
            self.counters.packets_repeated += 1;
            self.send_frame(node, frame.from, frame.attempt.saturating_add(1), frame.body);
        }
    }

    /// A role asks for a connection; the slot of its answer is reserved.
    pub(crate) fn connect(&mut self, node: NodeId, op: OpId, to: NodeId) {
        match self.dial(node, to, EndKind::Role) {
            Some(end) => {
                let counter = u32::try_from(op.counter).expect("a simulated node lives for far fewer operations");
                self.nodes[node.0 as usize].ends[end.index as usize].op = counter;
            }
            None => {
                self.take_pending(node, op);
                let reason = CloseReason::TooMany;
                self.tell(node, doors::Event::Network(Event::NotOpened { op, reason }));
            }
        }
    }

    /// Begins a handshake. `None` where the node has as many connections as it may.
    pub(crate) fn dial(&mut self, node: NodeId, to: NodeId, kind: EndKind) -> Option<EndRef> {
        assert!((to.0 as usize) < self.nodes.len(), "{to} is no node of this world");
        let end = self.add_end(node, to, kind, EndState::Connecting)?;
        self.send_frame(node, end, 0, Body::Hello(kind));
        self.push(self.now + HANDSHAKE_RETRY, node, Item::Pulse { end });
        Some(end)
    }

    /// A connection's own timer.
    pub(crate) fn on_pulse(&mut self, node: NodeId, at: EndRef) {
        let now = self.now;
        let Some(end) = self.nodes[node.0 as usize].end_mut(at.index, at.number) else { return };
        let silent = now.since(end.last_heard);
        let kind = end.kind;
        let next = match end.state {
            EndState::Connecting if silent >= HANDSHAKE_TIMEOUT => {
                self.lose(node, at, CloseReason::HandshakeTimeout);
                return;
            }
            EndState::Connecting => {
                let (began, attempt) = (end.last_heard, end.packets.min(8) as u8);
                self.counters.packets_repeated += 1;
                self.send_frame(node, at, attempt, Body::Hello(kind));
                (began + HANDSHAKE_RETRY * ((2 << attempt) - 1)).min(began + HANDSHAKE_TIMEOUT).max(now)
            }
            EndState::Open if silent >= IDLE_TIMEOUT => {
                self.lose(node, at, CloseReason::IdleTimeout);
                return;
            }
            EndState::Open => {
                let quiet = end.packets == end.packets_seen || silent >= KEEP_ALIVE;
                let last_heard = end.last_heard;
                if quiet {
                    let (peer, to, passage) = self.next_packet(node, at.index);
                    if let Some(ns) = passage.delay_ns {
                        self.push_packet(now + Duration::from_nanos(ns), node, peer, Item::KeepAlive { to });
                    }
                }
                let end = &mut self.nodes[node.0 as usize].ends[at.index as usize];
                end.packets_seen = end.packets;
                (now + KEEP_ALIVE).min(last_heard + IDLE_TIMEOUT)
            }
        };
        self.push(next, node, Item::Pulse { end: at });
    }

    /// This side ends a connection without a word to the other: its user is told.
    pub(crate) fn lose(&mut self, node: NodeId, at: EndRef, reason: CloseReason) {
        let Some(end) = self.remove_end(node, at) else { return };
        if end.kind == EndKind::Channel {
            self.channel_lost(node, end.peer, at);
            return;
        }
        let event = match end.state {
            EndState::Open => Event::Closed { connection: at.id(), reason },
            EndState::Connecting => {
                let op = OpId { incarnation: self.nodes[node.0 as usize].incarnation, counter: end.op.into() };
                if self.take_pending(node, op).is_none() {
                    return;
                }
                Event::NotOpened { op, reason }
            }
        };
        self.tell(node, doors::Event::Network(event));
    }

    /// A role closes a connection.
    pub(crate) fn close(&mut self, node: NodeId, connection: ConnectionId, reason: CloseReason) {
        let at = EndRef::of(connection);
        if self.nodes[node.0 as usize].end(at.index, at.number).is_none() {
            self.counters.sent_to_nobody += 1;
            return;
        }
        self.send_frame(node, at, 0, Body::Close(reason));
        self.remove_end(node, at);
    }

    /// The process is ending and its machine tells every peer.
    pub(crate) fn reset_all(&mut self, node: NodeId, reason: CloseReason) {
        for index in 0..self.nodes[node.0 as usize].ends.len() as u32 {
            let end = &self.nodes[node.0 as usize].ends[index as usize];
            if end.number != 0 && end.state == EndState::Open {
                self.send_frame(node, EndRef { index, number: end.number }, 0, Body::Close(reason));
            }
        }
    }

    /// The sender's end of a packet to this end.
    pub(crate) fn sender_of(&self, from: NodeId, node: NodeId, to: EndRef) -> Option<EndRef> {
        let ends = &self.nodes[from.0 as usize].ends;
        let index = ends.iter().position(|end| end.number != 0 && end.peer == node && end.peer_end == to)?;
        Some(EndRef { index: index as u32, number: ends[index].number })
    }

    /// A packet has found no such end: if anything is left of the machine, it says so to the sender.
    pub(crate) fn astray(&mut self, from: NodeId, node: NodeId, to: EndRef) {
        self.counters.packets_lost += 1;
        let entry = &self.nodes[node.0 as usize];
        let connecting = entry.end(to.index, to.number).is_some();
        if connecting || !matches!(entry.state, NodeState::Running | NodeState::Stopped) {
            return;
        }
        if let Some(end) = self.sender_of(from, node, to) {
            self.send_reset(node, to, from, end, CloseReason::Reset);
        }
    }

    /// Sends a closing frame from no end in particular.
    fn send_reset(&mut self, node: NodeId, from: EndRef, peer: NodeId, to: EndRef, reason: CloseReason) {
        let link = self.link(node, peer);
        let key = fold(u64::from(peer.0) << 32 | u64::from(to.index), u64::from(node.0) ^ 0x8EBC_6AF0_9C88_C6E3);
        let passage = self.passage(node, peer, link, Purpose::Hop, key, to.number.into());
        if let Some(ns) = passage.delay_ns {
            let frame = Frame { from, to, attempt: 0, body: Body::Close(reason) };
            self.push_packet(self.now + Duration::from_nanos(ns), node, peer, Item::Frame(Box::new(frame)));
        }
    }

    /// A frame has arrived.
    pub(crate) fn on_frame(&mut self, from: NodeId, node: NodeId, frame: Box<Frame>) {
        if !self.nodes[node.0 as usize].is_up() {
            self.on_frame_without_process(from, node, frame);
            return;
        }
        let now = self.now;
        let known = match self.nodes[node.0 as usize].end_mut(frame.to.index, frame.to.number) {
            Some(end) => {
                end.last_heard = now;
                true
            }
            None => false,
        };
        let Frame { from: sender, to, attempt, body } = *frame;
        match body {
            Body::Hello(kind) => self.on_hello(from, sender, node, attempt, kind),
            Body::Welcome if known => self.on_welcome(node, to, sender),
            Body::Close(reason) if known => self.lose(node, to, reason),
            Body::Close(_) => {}
            Body::Request(call) if known => self.on_request(from, node, to, *call),
            Body::Reply { op, outcome } if known => self.on_reply(node, op, outcome),
            Body::Welcome | Body::Request(_) | Body::Reply { .. } => {
                self.counters.packets_lost += 1;
                self.send_reset(node, to, from, sender, CloseReason::Reset);
            }
        }
    }

    fn on_frame_without_process(&mut self, from: NodeId, node: NodeId, frame: Box<Frame>) {
        self.counters.packets_lost += 1;
        let stopped = self.nodes[node.0 as usize].state == NodeState::Stopped;
        match &frame.body {
            Body::Close(_) => {}
            // Nobody listens on the port: TCP says so, UDP does not.
            Body::Hello(EndKind::Role) | Body::Welcome => {}
            _ if stopped => self.send_reset(node, frame.to, from, frame.from, CloseReason::Reset),
            Body::Request(_) | Body::Reply { .. } => self.repeat_frame(from, frame),
            Body::Hello(EndKind::Channel) => {}
        }
    }

    fn on_hello(&mut self, from: NodeId, sender: EndRef, node: NodeId, attempt: u8, kind: EndKind) {
        if attempt > 0 {
            // The first may have arrived and its answer been lost.
            let ends = &self.nodes[node.0 as usize].ends;
            let known = ends.iter().position(|end| end.number != 0 && end.peer == from && end.peer_end == sender);
            if let Some(index) = known {
                let end = EndRef { index: index as u32, number: ends[index].number };
                self.send_frame(node, end, 0, Body::Welcome);
                return;
            }
        }
        let Some(end) = self.add_end(node, from, kind, EndState::Open) else {
            self.send_reset(node, EndRef::default(), from, sender, CloseReason::TooMany);
            return;
        };
        self.nodes[node.0 as usize].ends[end.index as usize].peer_end = sender;
        self.send_frame(node, end, 0, Body::Welcome);
        self.push(self.now + KEEP_ALIVE, node, Item::Pulse { end });
        if kind == EndKind::Role {
            self.tell(node, doors::Event::Network(Event::Accepted { connection: end.id(), from }));
        }
    }

    fn on_welcome(&mut self, node: NodeId, at: EndRef, peer_end: EndRef) {
        let entry = &mut self.nodes[node.0 as usize];
        let incarnation = entry.incarnation;
        let Some(end) = entry.end_mut(at.index, at.number) else { return };
        if end.state == EndState::Open {
            return;
        }
        end.state = EndState::Open;
        end.peer_end = peer_end;
        let (kind, peer) = (end.kind, end.peer);
        let op = OpId { incarnation, counter: end.op.into() };
        match kind {
            EndKind::Channel => self.channel_open(node, peer, at),
            EndKind::Role => {
                let pending = self.take_pending(node, op);
                let began = pending.as_ref().map(|pending| pending.since);
                if let (Some(began), Access::Player(_)) = (began, self.nodes[node.0 as usize].place.access) {
                    // A handshake is one round trip; a player connects to nobody but gateways.
                    let round_trip = self.now.since(began);
                    self.meter(peer).observe(Metric::ClientLatencyMs, Labels::default(), round_trip);
                }
                assert!(pending.is_some_and(|p| matches!(p.kind, Kind::Connect)), "a handshake has a reserved answer");
                self.tell(node, doors::Event::Network(Event::Opened { op, connection: at.id() }));
            }
        }
    }
}
