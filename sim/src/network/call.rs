//! Unary calls between servers, over a channel that each caller keeps to each callee.
//!
//! A call that never left is `Refused`: its channel did not come to stand. Once sent it is `Unknown` when the channel is lost
//! or its deadline comes. Calls do not wait for each other and may overtake.

use super::{
    connection::{EndKind, EndRef},
    frame::Body,
};
use crate::{core::Core, node::NodeState, operations::Kind};
use worldline_proto::{
    CallId, NodeId, OpId,
    server::{Reply, Request},
};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        self,
        network::{Call, Event},
    },
    limits,
    outcome::End,
};

/// A caller's channel to one callee.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    end: EndRef,
    open: bool,
    /// Calls that leave when it stands.
    waiting: Vec<Call>,
}

/// A call that this node was asked and has not answered.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The channel it came by.
    end: EndRef,
    op: OpId,
    /// The method, for a round trip of the reply.
    path: &'static str,
}

impl Core {
    fn channel(&mut self, node: NodeId, to: NodeId) -> Option<&mut Channel> {
        let channels = &mut self.nodes[node.0 as usize].cold.channels;
        let place = channels.binary_search_by_key(&to, |&(to, _)| to).ok()?;
        Some(&mut channels[place].1)
    }

    fn take_channel(&mut self, node: NodeId, to: NodeId, end: EndRef) -> Option<Channel> {
        let channels = &mut self.nodes[node.0 as usize].cold.channels;
        let place = channels.binary_search_by_key(&to, |&(to, _)| to).ok()?;
        (channels[place].1.end == end).then(|| channels.remove(place).1)
    }

    /// A role calls; the slot of its answer is reserved.
    pub(crate) fn call(&mut self, node: NodeId, mut call: Box<Call>) {
        if call.request.encoded_len() > limits::CALL_BYTES {
            self.give_up(node, call.op, End::Refused(Refusal::Malformed));
            return;
        }
        if self.local(node) >= call.deadline {
            self.give_up(node, call.op, End::Refused(Refusal::Unreachable));
            return;
        }
        self.round_trip_request(node, &mut call);
        let to = call.to;
        match self.channel(node, to) {
            Some(Channel { end, open: true, .. }) => {
                let end = *end;
                self.send_call(node, end, call);
            }
            Some(channel) => channel.waiting.push(*call),
            None => match self.dial(node, to, EndKind::Channel) {
                Some(end) => {
                    let channels = &mut self.nodes[node.0 as usize].cold.channels;
                    let place = channels.partition_point(|&(other, _)| other < to);
                    channels.insert(place, (to, Channel { end, open: false, waiting: vec![*call] }));
                }
                None => self.give_up(node, call.op, End::Refused(Refusal::Busy)),
            },
        }
    }

    fn send_call(&mut self, node: NodeId, end: EndRef, call: Box<Call>) {
        let Some(pending) = self.nodes[node.0 as usize].cold.pending.get_mut(&call.op.counter) else { return };
        if let Kind::Call { via, .. } = &mut pending.kind {
            *via = Some(end);
        }
        self.send_frame(node, end, 0, Body::Request(call));
    }

    /// The channel stands: what waited for it leaves.
    pub(crate) fn channel_open(&mut self, node: NodeId, to: NodeId, end: EndRef) {
        let Some(channel) = self.channel(node, to).filter(|channel| channel.end == end) else { return };
        channel.open = true;
        for call in std::mem::take(&mut channel.waiting) {
            self.send_call(node, end, Box::new(call));
        }
    }

    /// The channel is lost, or never came to stand.
    pub(crate) fn channel_lost(&mut self, node: NodeId, to: NodeId, end: EndRef) {
        // The callee's side of it: nobody waits for these answers any more.
        self.nodes[node.0 as usize].cold.served.retain(|_, served| served.end != end);
        let Some(channel) = self.take_channel(node, to, end) else { return };
        for call in channel.waiting {
            self.give_up(node, call.op, End::Refused(Refusal::Unreachable));
        }
        let entry = &self.nodes[node.0 as usize];
        let incarnation = entry.incarnation;
        let sent = |kind: &Kind| matches!(kind, Kind::Call { via: Some(via), .. } if *via == end);
        let lost: Vec<u64> = entry.cold.pending.iter().filter(|(_, p)| sent(&p.kind)).map(|(&n, _)| n).collect();
        for counter in lost {
            self.give_up(node, OpId { incarnation, counter }, End::Unknown);
        }
    }

    /// A call has arrived.
    pub(crate) fn on_request(&mut self, from: NodeId, node: NodeId, end: EndRef, call: Call) {
        let cold = &mut self.nodes[node.0 as usize].cold;
        if cold.served.len() >= limits::OPERATIONS_IN_FLIGHT {
            let outcome = Box::new(Outcome::Refused(Refusal::Busy));
            self.counters.shed += 1;
            self.send_frame(node, end, 0, Body::Reply { op: call.op, outcome });
            return;
        }
        cold.calls_served += 1;
        let id = CallId(cold.calls_served);
        cold.served.insert(id.0, Served { end, op: call.op, path: call.request.path() });
        let request = Box::new(call.request);
        self.tell(node, doors::Event::Network(Event::Called { call: id, from, request }));
    }

    /// A role answers a call.
    pub(crate) fn reply(&mut self, node: NodeId, call: CallId, mut outcome: Box<Outcome<Reply>>) {
        let Some(served) = self.nodes[node.0 as usize].cold.served.remove(&call.0) else {
            self.counters.replies_dropped += 1;
            return;
        };
        if self.nodes[node.0 as usize].end(served.end.index, served.end.number).is_none() {
            self.counters.replies_dropped += 1;
            return;
        }
        if let Outcome::Done(reply) = &*outcome
            && reply.encoded_len() > limits::CALL_BYTES
        {
            *outcome = Outcome::Unknown;
        }
        if let Outcome::Done(reply) = &mut *outcome
            && self.sampled(node)
        {
            let bytes = reply.encode_to_vec();
            let decoded = Reply::decode(served.path, &bytes);
            let decoded = decoded.expect("a reply answers its method").expect("what was encoded decodes");
            assert!(decoded == *reply, "{reply:?} came out of its encoding as {decoded:?}");
            *reply = decoded;
        }
        self.send_frame(node, served.end, 0, Body::Reply { op: served.op, outcome });
    }

    /// The role has no variant for a call, or its inbox no place.
    pub(crate) fn refuse_call(&mut self, node: NodeId, call: CallId) {
        let refusal = match self.nodes[node.0 as usize].state {
            // A stopped process refuses nothing: its caller waits in vain.
            NodeState::Paused => {
                self.nodes[node.0 as usize].cold.served.remove(&call.0);
                return;
            }
            _ => Refusal::Busy,
        };
        self.reply(node, call, Box::new(Outcome::Refused(refusal)));
    }

    /// The answer to a call has arrived.
    pub(crate) fn on_reply(&mut self, node: NodeId, op: OpId, outcome: Box<Outcome<Reply>>) {
        if self.take_pending(node, op).is_some() {
            self.tell(node, doors::Event::Network(Event::Answered { op, outcome }));
        }
    }

    fn round_trip_request(&mut self, node: NodeId, call: &mut Call) {
        if !self.sampled(node) {
            return;
        }
        let bytes = call.request.encode_to_vec();
        let decoded = Request::decode(call.request.path(), &bytes);
        let decoded = decoded.expect("a request has a method").expect("what was encoded decodes");
        assert!(decoded == call.request, "{:?} came out of its encoding as {decoded:?}", call.request);
        call.request = decoded;
    }
}
