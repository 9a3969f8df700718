//! Connections: order within a class, nothing torn, an end that both sides learn of.

use super::{BACK, CLIENTS, GATEWAY, NetworkService, wrong};
use crate::play::{Extent, Seen, check};
use proptest::{prelude::*, test_runner::TestCaseError};
use std::collections::{BTreeMap, VecDeque};
use worldline_proto::ConnectionId;
use worldline_system::{
    doors::network::{CloseReason, Event, Payload, StreamClass, Submission},
    limits,
    time::Duration,
};

/// What [`connections`] must come across.
pub const CONNECTIONS: &[&str] = &[
    "received",
    "datagram",
    "nothing",
    "one byte",
    "a whole frame",
    "a whole datagram",
    "too long a frame",
    "too long a datagram",
    "closed",
    "told why",
    "told what was wrong",
];

/// A step of a case.
#[derive(Clone, Debug)]
enum Step {
    Connect {
        client: usize,
    },
    /// On a connection of this place in the list, by the client or by the gateway: messages of these lengths at once.
    Send {
        connection: usize,
        client: bool,
        class: StreamClass,
        lengths: Vec<usize>,
    },
    Datagrams {
        connection: usize,
        client: bool,
        lengths: Vec<usize>,
    },
    /// A message of one byte too many.
    TooLong {
        connection: usize,
        client: bool,
        class: StreamClass,
    },
    /// A datagram of one byte too many.
    DatagramTooLong {
        connection: usize,
        client: bool,
    },
    Close {
        connection: usize,
        client: bool,
        reason: CloseReason,
    },
    /// Until everything on streams has arrived.
    Settle,
}

fn length(max: usize) -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0), 1 => Just(1), 6 => 2..200_usize, 1 => Just(max - 1), 1 => Just(max)]
}

fn step() -> impl Strategy<Value = Step> {
    let class = prop::sample::select(StreamClass::ALL.to_vec());
    let reasons = vec![CloseReason::Closed, CloseReason::ProtocolError, CloseReason::Superseded, CloseReason::Barred];
    let reason = prop::sample::select(reasons);
    let lengths = |max| prop::collection::vec(length(max), 1..6);
    prop_oneof![
        3 => prop::sample::select(CLIENTS.to_vec()).prop_map(|client| Step::Connect { client }),
        1 => (0..4_usize, any::<bool>(), class.clone())
            .prop_map(|(connection, client, class)| Step::TooLong { connection, client, class }),
        1 => (0..4_usize, any::<bool>())
            .prop_map(|(connection, client)| Step::DatagramTooLong { connection, client }),
        9 => (0..4_usize, any::<bool>(), class, lengths(limits::FRAME_BYTES))
            .prop_map(|(connection, client, class, lengths)| Step::Send { connection, client, class, lengths }),
        5 => (0..4_usize, any::<bool>(), lengths(limits::DATAGRAM_BYTES))
            .prop_map(|(connection, client, lengths)| Step::Datagrams { connection, client, lengths }),
        1 => (0..4_usize, any::<bool>(), reason)
            .prop_map(|(connection, client, reason)| Step::Close { connection, client, reason }),
        2 => Just(Step::Settle),
    ]
}

/// **Connections.** Messages of one class of one connection arrive in the order sent, each once and whole, from none to
/// [`limits::FRAME_BYTES`] bytes; datagrams may be lost, doubled and overtaken, and are never torn. A message of more ends the connection
/// on both sides, a datagram of more is dropped. Who closes says why, and only the other side hears of it; nothing comes of a
/// connection after its end, but to who has closed it what was under way.
pub fn connections<S: NetworkService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &prop::collection::vec(step(), 1..extent.steps), |steps, seen| {
        service.begin();
        let mut case = Case::new(service);
        case.connect(CLIENTS[0])?;
        for step in &steps {
            case.step(step, seen)?;
        }
        case.settle(seen)
    })
}

/// What was sent one way: the streams' messages in their order, and every datagram.
#[derive(Debug, Default)]
pub(super) struct Way {
    streams: BTreeMap<StreamClass, VecDeque<Payload>>,
    pub datagrams: Vec<Sent>,
}

/// A datagram, how often it has arrived, and behind how many others it first did.
#[derive(Debug)]
pub(super) struct Sent {
    payload: Payload,
    pub arrived: u32,
    pub behind: usize,
}

#[derive(Debug)]
pub(super) struct Open {
    pub client: usize,
    /// As the client calls it, and as the gateway does.
    pub names: [ConnectionId; 2],
    /// By the client, by the gateway.
    pub ways: [Way; 2],
    closing: Option<Closing>,
}

/// A connection ends.
#[derive(Debug)]
struct Closing {
    /// Who has done it.
    by: usize,
    reason: CloseReason,
    /// By a message that was too long, and not because somebody wanted it to.
    too_long: bool,
    /// Who has yet to learn of it.
    learn: Vec<usize>,
}

/// Connections under way.
pub(super) struct Case<'a, S> {
    pub service: &'a mut S,
    pub open: Vec<Open>,
    /// Of those that have ended: who has closed it, and what that side called it.
    closed: Vec<(usize, ConnectionId)>,
    sent: u32,
}

impl<'a, S: NetworkService> Case<'a, S> {
    pub fn new(service: &'a mut S) -> Self {
        Self { service, open: vec![], closed: vec![], sent: 0 }
    }

    fn step(&mut self, step: &Step, seen: &mut Seen) -> Result<(), TestCaseError> {
        match step {
            Step::Connect { client } => {
                self.settle(seen)?;
                self.connect(*client)
            }
            Step::Send { connection, client, class, lengths } => {
                if self.open.get(*connection).is_none() {
                    return Ok(());
                }
                for &len in lengths {
                    seen.note(match len {
                        0 => "nothing",
                        1 => "one byte",
                        limits::FRAME_BYTES => "a whole frame",
                        _ => "something",
                    });
                    self.send(*connection, *client, *class, len);
                }
                Ok(())
            }
            Step::Datagrams { connection, client, lengths } => {
                if self.open.get(*connection).is_none() {
                    return Ok(());
                }
                for &len in lengths {
                    seen.count("a whole datagram", usize::from(len == limits::DATAGRAM_BYTES));
                    self.datagram(*connection, *client, len);
                }
                Ok(())
            }
            &Step::TooLong { connection, client, class } => {
                let Some((node, name, _)) = self.side(connection, client) else { return Ok(()) };
                self.settle(seen)?;
                let payload = self.payload(limits::FRAME_BYTES + 1);
                self.service.submit(node, |_, _| Submission::Send { connection: name, class, payload });
                let open = &mut self.open[connection];
                let learn = vec![GATEWAY, open.client];
                open.closing = Some(Closing { by: node, reason: CloseReason::ProtocolError, too_long: true, learn });
                seen.note("too long a frame");
                self.settle(seen)
            }
            &Step::DatagramTooLong { connection, client } => {
                let Some((node, name, _)) = self.side(connection, client) else { return Ok(()) };
                let payload = self.payload(limits::DATAGRAM_BYTES + 1);
                self.service.submit(node, |_, _| Submission::Datagram { connection: name, payload });
                seen.note("too long a datagram");
                Ok(())
            }
            Step::Close { connection, client, reason } => {
                let Some((node, name, side)) = self.side(*connection, *client) else { return Ok(()) };
                let reason = *reason;
                self.service.submit(node, |_, _| Submission::Close { connection: name, reason });
                self.closed.push((node, name));
                let open = &mut self.open[*connection];
                let learn = vec![if side == 0 { GATEWAY } else { open.client }];
                open.closing = Some(Closing { by: node, reason, too_long: false, learn });
                seen.note("closed");
                self.settle(seen)
            }
            Step::Settle => self.settle(seen),
        }
    }

    /// Sends a message of so many bytes.
    pub fn send(&mut self, connection: usize, client: bool, class: StreamClass, len: usize) {
        let Some((node, name, side)) = self.side(connection, client) else { return };
        let payload = self.payload(len);
        self.open[connection].ways[side].streams.entry(class).or_default().push_back(payload.clone());
        self.service.submit(node, |_, _| Submission::Send { connection: name, class, payload });
    }

    /// Sends a datagram of so many bytes.
    pub fn datagram(&mut self, connection: usize, client: bool, len: usize) {
        let Some((node, name, side)) = self.side(connection, client) else { return };
        let payload = self.payload(len);
        let sent = Sent { payload: payload.clone(), arrived: 0, behind: 0 };
        self.open[connection].ways[side].datagrams.push(sent);
        self.service.submit(node, |_, _| Submission::Datagram { connection: name, payload });
    }

    /// Who sends on a connection, as what, and which way that is.
    fn side(&self, connection: usize, client: bool) -> Option<(usize, ConnectionId, usize)> {
        let open = self.open.get(connection)?;
        Some(if client { (open.client, open.names[0], 0) } else { (GATEWAY, open.names[1], 1) })
    }

    /// Bytes that nothing else is, as far as so many can be.
    fn payload(&mut self, len: usize) -> Payload {
        self.sent += 1;
        let bytes: Vec<u8> = self.sent.to_le_bytes().into_iter().cycle().take(len).collect();
        Payload::from(&bytes[..])
    }

    pub fn connect(&mut self, client: usize) -> Result<(), TestCaseError> {
        let to = self.service.node(GATEWAY);
        let asked = self.service.submit(client, |op, _| Submission::Connect { op, to });
        let (mut here, mut there) = (None, None);
        let by = self.service.now() + BACK;
        while here.is_none() || there.is_none() {
            match self.service.next_event(by) {
                Some((node, Event::Opened { op, connection })) if node == client && op == asked => {
                    here = Some(connection)
                }
                Some((GATEWAY, Event::Accepted { connection, .. })) if there.is_none() => there = Some(connection),
                // What was not promised to arrive may arrive late.
                Some((_, Event::Datagram { .. })) => {}
                other => return wrong(format!("{other:?} instead of a connection")),
            }
        }
        if let (Some(here), Some(there)) = (here, there) {
            let ways = [Way::default(), Way::default()];
            self.open.push(Open { client, names: [here, there], ways, closing: None });
        }
        Ok(())
    }

    /// Takes in what arrives for so long.
    pub fn pass(&mut self, span: Duration, seen: &mut Seen) -> Result<(), TestCaseError> {
        let until = self.service.now() + span;
        while let Some((node, event)) = self.service.next_event(until) {
            self.hear(node, event, seen)?;
        }
        Ok(())
    }

    /// Until everything on streams has arrived, and whoever is to learn of an end has.
    pub fn settle(&mut self, seen: &mut Seen) -> Result<(), TestCaseError> {
        let by = self.service.now() + BACK;
        let waits = |open: &Open| {
            open.closing.is_some() || open.ways.iter().any(|way| way.streams.values().any(|sent| !sent.is_empty()))
        };
        while self.open.iter().any(waits) {
            match self.service.next_event(by) {
                Some((node, event)) => self.hear(node, event, seen)?,
                None => return wrong(format!("never arrived: {:?}", self.open)),
            }
        }
        Ok(())
    }

    fn hear(&mut self, node: usize, event: Event, seen: &mut Seen) -> Result<(), TestCaseError> {
        let name = match &event {
            Event::Datagram { connection, .. }
            | Event::Received { connection, .. }
            | Event::Closed { connection, .. } => *connection,
            other => return wrong(format!("{node} hears {other:?}")),
        };
        let side = usize::from(node == GATEWAY);
        let found = self.open.iter().position(|open| (side == 1 || open.client == node) && open.names[side] == name);
        let ended = matches!(event, Event::Closed { .. });
        let Some(at) = found else {
            // What was under way to who has closed it.
            if !ended && self.closed.contains(&(node, name)) {
                return Ok(());
            }
            return wrong(format!("{node} hears {event:?} of a connection that has ended"));
        };
        let open = &mut self.open[at];
        if ended && open.closing.as_ref().is_some_and(|closing| !closing.learn.contains(&node)) {
            return wrong(format!("{node} has closed it and hears {event:?}"));
        }
        // What arrives at the gateway was sent by the client.
        let way = &mut open.ways[1 - side];
        match event {
            Event::Received { class, payload, .. } => {
                let expected = way.streams.entry(class).or_default().pop_front();
                if expected.as_ref() != Some(&payload) {
                    return wrong(format!("{payload:?} in class {class:?}, where {expected:?} is the next"));
                }
                seen.note("received");
            }
            Event::Datagram { payload, .. } => {
                let before = way.datagrams.iter().filter(|sent| sent.arrived > 0).count();
                // Of two that are alike the one that has not come yet.
                let alike = way.datagrams.iter_mut().filter(|sent| sent.payload == payload);
                let Some(sent) = alike.min_by_key(|sent| sent.arrived) else {
                    return wrong(format!("a datagram of {payload:?} that nobody sent"));
                };
                sent.behind = if sent.arrived == 0 { before } else { sent.behind };
                sent.arrived += 1;
                seen.note("datagram");
            }
            Event::Closed { reason, .. } => {
                // What is sent to an end that is gone resets the connection.
                let right = |closing: &&mut Closing| closing.reason == reason || reason == CloseReason::Reset;
                let Some(closing) = open.closing.as_mut().filter(right) else {
                    return wrong(format!(
                        "{node} hears of an end by {reason:?}, and it was {:?}, at {:?}",
                        open.closing,
                        self.service.now()
                    ));
                };
                if node != closing.by && reason == closing.reason {
                    seen.note(if closing.too_long { "told what was wrong" } else { "told why" });
                }
                closing.learn.retain(|&other| other != node);
                if closing.learn.is_empty() {
                    self.open.remove(at);
                }
            }
            other => return wrong(format!("{node} hears {other:?}")),
        }
        Ok(())
    }
}
