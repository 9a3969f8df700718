//! Streams: messages of one class arrive in order, each once. A lost one is repeated, and those behind it wait for it.

use super::{
    connection::{EndRef, EndState},
    frame::Body,
};
use crate::{
    core::Core,
    entropy::Purpose,
    item::{Item, Scheduled},
};
use prost::Message as _;
use std::{collections::BTreeMap, sync::Arc};
use worldline_proto::{ConnectionId, NodeId, server::PeerMessage};
use worldline_system::{
    doors::{
        self,
        network::{CloseReason, Event, Payload, StreamClass},
    },
    limits,
    time::Duration,
};

/// Both directions of every class at one end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams {
    sent: [Sent; 3],
    received: [Received; 3],
}

#[derive(Clone, Debug, Default)]
struct Sent {
    /// The number of the next message.
    next: u32,
    /// All below were taken in by the peer, as far as this side knows.
    acknowledged: u32,
}

#[derive(Clone, Debug, Default)]
struct Received {
    /// The number of the message that is delivered next.
    next: u32,
    /// What has overtaken it.
    early: BTreeMap<u32, Payload>,
}

impl Core {
    /// Makes a payload what arrives. `false` where it is larger than the door carries.
    pub(crate) fn carry(&mut self, node: NodeId, payload: &mut Payload, bytes_max: usize) -> bool {
        match payload {
            Payload::Inline(_) => true,
            Payload::Shared(bytes) => bytes.len() <= bytes_max,
            Payload::Peer(message) => {
                if let Some(decoded) = self.round_tripped(node, message) {
                    *message = decoded;
                }
                true
            }
        }
    }

    /// One typed message of 64 goes through its encoding, and must come out equal.
    fn round_tripped(&mut self, node: NodeId, message: &PeerMessage) -> Option<Arc<PeerMessage>> {
        if !self.sampled(node) {
            return None;
        }
        let decoded = PeerMessage::decode(&message.encode_to_vec()[..]).expect("what was encoded decodes");
        assert!(decoded == *message, "{message:?} came out of its encoding as {decoded:?}");
        Some(Arc::new(decoded))
    }

    /// Whether the next typed message of a node is sampled.
    pub(crate) fn sampled(&mut self, node: NodeId) -> bool {
        let entry = &mut self.nodes[node.0 as usize];
        entry.cold.typed_messages += 1;
        let n = entry.cold.typed_messages;
        let sampled = self.keyed.draw(Purpose::RoundTrip, node.0.into(), n).is_multiple_of(64);
        self.counters.round_trips += u64::from(sampled);
        sampled
    }

    /// Sends a message in order.
    pub(crate) fn send(&mut self, node: NodeId, connection: ConnectionId, class: StreamClass, mut payload: Payload) {
        let at = EndRef::of(connection);
        let carried = self.carry(node, &mut payload, limits::FRAME_BYTES);
        let end = self.nodes[node.0 as usize].end_mut(at.index, at.number);
        let Some(end) = end.filter(|end| end.state == EndState::Open) else {
            self.counters.sent_to_nobody += 1;
            return;
        };
        if !carried {
            self.counters.unsendable += 1;
            self.cut_short(node, at, CloseReason::ProtocolError);
            return;
        }
        let sent = &mut end.streams.get_or_insert_default().sent[class as usize];
        if (sent.next - sent.acknowledged) as usize >= limits::STREAM_BACKLOG {
            self.cut_short(node, at, CloseReason::Overflow);
            return;
        }
        let sequence = sent.next;
        sent.next += 1;
        self.send_stream_packet(node, at, class, 0, sequence, payload);
    }

    /// What was to be sent cannot be, and nothing after it may be: both sides are told.
    fn cut_short(&mut self, node: NodeId, at: EndRef, reason: CloseReason) {
        self.send_frame(node, at, 0, Body::Close(reason));
        self.lose(node, at, reason);
    }

    fn send_stream_packet(
        &mut self,
        node: NodeId,
        from: EndRef,
        class: StreamClass,
        attempt: u8,
        sequence: u32,
        payload: Payload,
    ) {
        let (peer, to, passage) = self.next_packet(node, from.index);
        if let Some(ns) = passage.double_ns {
            let at = self.now + Duration::from_nanos(ns);
            let double = Item::Stream { to, class, attempt, sequence, payload: payload.clone() };
            self.push_packet(at, node, peer, double);
        }
        match passage.delay_ns {
            Some(ns) => {
                let at = self.now + Duration::from_nanos(ns);
                self.push_packet(at, node, peer, Item::Stream { to, class, attempt, sequence, payload });
            }
            None => self.repeat_message(node, from, class, attempt, sequence, payload),
        }
    }

    /// Sends a message again once its sender has waited long enough for its acknowledgement.
    fn repeat_message(
        &mut self,
        sender: NodeId,
        from: EndRef,
        class: StreamClass,
        attempt: u8,
        sequence: u32,
        payload: Payload,
    ) {
        let Some(end) = self.nodes[sender.0 as usize].end(from.index, from.number) else { return };
        let wait = Self::repeat_after(end.link, attempt);
        self.push(self.now + wait, sender, Item::Resend { from, class, attempt, sequence, payload });
    }

    pub(crate) fn on_resend(
        &mut self,
        node: NodeId,
        from: EndRef,
        class: StreamClass,
        attempt: u8,
        sequence: u32,
        payload: Payload,
    ) {
        let Some(end) = self.nodes[node.0 as usize].end(from.index, from.number) else { return };
        let known = end.streams.as_ref().is_some_and(|streams| sequence < streams.sent[class as usize].acknowledged);
        if !known {
            self.counters.packets_repeated += 1;
            self.send_stream_packet(node, from, class, attempt.saturating_add(1), sequence, payload);
        }
    }

    /// A stream packet has arrived: the next message, one that must wait, or one that was here before.
    pub(crate) fn on_stream(
        &mut self,
        from: NodeId,
        node: NodeId,
        to: EndRef,
        (class, attempt, sequence): (StreamClass, u8, u32),
        payload: Payload,
    ) -> Option<doors::Event> {
        let now = self.now;
        let entry = &mut self.nodes[node.0 as usize];
        let up = entry.is_up();
        let end = entry.end_mut(to.index, to.number);
        let Some(end) = end.filter(|end| end.state == EndState::Open) else {
            let gone = up && self.nodes[node.0 as usize].end(to.index, to.number).is_none();
            if !gone && let Some(sender) = self.sender_of(from, node, to) {
                // A machine without a process, or one that is still shaking hands: not acknowledged, so it comes again.
                self.repeat_message(from, sender, class, attempt, sequence, payload);
            }
            self.astray(from, node, to);
            return None;
        };
        end.last_heard = now;
        let received = &mut end.streams.get_or_insert_default().received[class as usize];
        if sequence > received.next {
            received.early.insert(sequence, payload);
            return None;
        }
        if sequence < received.next || received.early.contains_key(&sequence) {
            return None;
        }
        self.take_in(node, to, class);
        Some(doors::Event::Network(Event::Received { connection: to.id(), class, payload }))
    }

    /// The message that had overtaken its predecessor is next.
    pub(crate) fn on_release(&mut self, node: NodeId, at: EndRef, class: StreamClass) -> Option<doors::Event> {
        let end = self.nodes[node.0 as usize].end_mut(at.index, at.number)?;
        let received = &mut end.streams.as_mut()?.received[class as usize];
        let payload = received.early.remove(&received.next)?;
        self.take_in(node, at, class);
        Some(doors::Event::Network(Event::Received { connection: at.id(), class, payload }))
    }

    /// Counts a message as delivered, acknowledges it, and calls for the next one if it is here already.
    fn take_in(&mut self, node: NodeId, at: EndRef, class: StreamClass) {
        let Some(end) = self.nodes[node.0 as usize].end_mut(at.index, at.number) else { return };
        let (peer, peer_end) = (end.peer, end.peer_end);
        let Some(streams) = &mut end.streams else { return };
        let received = &mut streams.received[class as usize];
        received.next += 1;
        let acknowledged = received.next;
        if received.early.contains_key(&received.next) {
            self.push(self.now, node, Item::Release { end: at, class });
        }
        if self.linked(node, peer)
            && let Some(end) = self.nodes[peer.0 as usize].end_mut(peer_end.index, peer_end.number)
            && let Some(streams) = &mut end.streams
        {
            let sent = &mut streams.sent[class as usize];
            sent.acknowledged = sent.acknowledged.max(acknowledged);
        }
    }

    /// An unsolicited event had no place in the inbox.
    pub(crate) fn shed(&mut self, what: Scheduled) {
        match what.item {
            Item::Stream { to, class, attempt, sequence, payload } => {
                let from = NodeId(what.tag);
                if let Some(sender) = self.sender_of(from, what.node, to) {
                    self.repeat_message(from, sender, class, attempt, sequence, payload);
                }
            }
            Item::Tell(event) => {
                if let doors::Event::Network(Event::Called { call, .. }) = *event {
                    self.refuse_call(what.node, call);
                }
            }
            _ => {}
        }
    }
}
