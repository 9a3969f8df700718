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
pub const CONNECTIONS: &[&str] =
    &["received", "datagram", "nothing", "one byte", "a whole frame", "a whole datagram", "closed"];

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
    let reason = prop::sample::select(vec![CloseReason::Closed, CloseReason::ProtocolError, CloseReason::Superseded]);
    let lengths = |max| prop::collection::vec(length(max), 1..6);
    prop_oneof![
        3 => prop::sample::select(CLIENTS.to_vec()).prop_map(|client| Step::Connect { client }),
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
/// [`limits::FRAME_BYTES`] bytes; datagrams may be lost, doubled and overtaken, and are never torn. Who closes says why, and only the
/// other side hears of it; nothing comes of a connection after its end.
pub fn connections<S: NetworkService>(service: &mut S, extent: Extent) -> Seen {
    check(extent.cases, &prop::collection::vec(step(), 1..extent.steps), |steps, seen| {
        service.begin();
        let mut case = Case { service, open: vec![], sent: 0 };
        case.connect(CLIENTS[0])?;
        for step in &steps {
            case.step(step, seen)?;
        }
        case.settle(seen)
    })
}

/// **Idle.** A connection that hears nothing ends on both sides after the idle timeout, and not before; one that has nothing to say
/// stays open.
pub fn idle<S: NetworkService>(service: &mut S) {
    let seen = &mut Seen::default();
    let played = || -> Result<(), TestCaseError> {
        service.begin();
        let mut case = Case { service, open: vec![], sent: 0 };
        case.connect(CLIENTS[0])?;
        // Kept open by itself.
        case.pass(limits::IDLE_TIMEOUT + Duration::from_secs(1), seen)?;
        let cut = case.service.now();
        case.service.cut_clients(true);
        let early = limits::IDLE_TIMEOUT - limits::KEEP_ALIVE - Duration::from_millis(500);
        case.pass(early, seen)?;
        let mut left = vec![CLIENTS[0], GATEWAY];
        let by = cut + limits::IDLE_TIMEOUT + limits::KEEP_ALIVE + case.service.grace() + Duration::from_secs(1);
        while !left.is_empty() {
            match case.service.next_event(by) {
                Some((node, Event::Closed { reason: CloseReason::IdleTimeout, .. })) if left.contains(&node) => {
                    left.retain(|&other| other != node);
                }
                other => return wrong(format!("{other:?} while {left:?} should notice")),
            }
        }
        case.service.cut_clients(false);
        Ok(())
    }();
    if let Err(why) = played {
        panic!("{why}");
    }
}

/// What was sent one way: the streams' messages in their order, and every datagram.
#[derive(Debug, Default)]
struct Way {
    streams: BTreeMap<StreamClass, VecDeque<Payload>>,
    datagrams: Vec<Payload>,
}

#[derive(Debug)]
struct Open {
    client: usize,
    /// As the client calls it, and as the gateway does.
    names: [ConnectionId; 2],
    /// By the client, by the gateway.
    ways: [Way; 2],
    /// Somebody has closed it: who learns of it, and how.
    closing: Option<(usize, CloseReason)>,
}

struct Case<'a, S> {
    service: &'a mut S,
    open: Vec<Open>,
    sent: u32,
}

impl<S: NetworkService> Case<'_, S> {
    fn step(&mut self, step: &Step, seen: &mut Seen) -> Result<(), TestCaseError> {
        match step {
            Step::Connect { client } => {
                self.settle(seen)?;
                self.connect(*client)
            }
            Step::Send { connection, client, class, lengths } => {
                let Some((node, name, side)) = self.side(*connection, *client) else { return Ok(()) };
                for &len in lengths {
                    seen.note(match len {
                        0 => "nothing",
                        1 => "one byte",
                        limits::FRAME_BYTES => "a whole frame",
                        _ => "something",
                    });
                    let payload = self.payload(len);
                    let sent = self.open[*connection].ways[side].streams.entry(*class).or_default();
                    sent.push_back(payload.clone());
                    let class = *class;
                    self.service.submit(node, |_, _| Submission::Send { connection: name, class, payload });
                }
                Ok(())
            }
            Step::Datagrams { connection, client, lengths } => {
                let Some((node, name, side)) = self.side(*connection, *client) else { return Ok(()) };
                for &len in lengths {
                    seen.count("a whole datagram", usize::from(len == limits::DATAGRAM_BYTES));
                    let payload = self.payload(len);
                    self.open[*connection].ways[side].datagrams.push(payload.clone());
                    self.service.submit(node, |_, _| Submission::Datagram { connection: name, payload });
                }
                Ok(())
            }
            Step::Close { connection, client, reason } => {
                let Some((node, name, side)) = self.side(*connection, *client) else { return Ok(()) };
                let reason = *reason;
                self.service.submit(node, |_, _| Submission::Close { connection: name, reason });
                let open = &mut self.open[*connection];
                open.closing = Some((if side == 0 { GATEWAY } else { open.client }, reason));
                seen.note("closed");
                self.settle(seen)
            }
            Step::Settle => self.settle(seen),
        }
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

    fn connect(&mut self, client: usize) -> Result<(), TestCaseError> {
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
    fn pass(&mut self, span: Duration, seen: &mut Seen) -> Result<(), TestCaseError> {
        let until = self.service.now() + span;
        while let Some((node, event)) = self.service.next_event(until) {
            self.hear(node, event, seen)?;
        }
        Ok(())
    }

    /// Until everything on streams has arrived, and whoever is to learn of an end has.
    fn settle(&mut self, seen: &mut Seen) -> Result<(), TestCaseError> {
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
        let Some(at) = found else { return wrong(format!("{node} hears {event:?} of a connection that has ended")) };
        let open = &mut self.open[at];
        if open.closing.is_some_and(|(learns, _)| learns != node) {
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
                if !way.datagrams.contains(&payload) {
                    return wrong(format!("a datagram of {payload:?} that nobody sent"));
                }
                seen.note("datagram");
            }
            Event::Closed { reason, .. } => {
                // What is sent to an end that is gone resets the connection.
                let right = open.closing.is_some_and(|(_, said)| said == reason || reason == CloseReason::Reset);
                if !right {
                    return wrong(format!(
                        "{node} hears of an end by {reason:?}, and it was {:?}, at {:?}",
                        open.closing,
                        self.service.now()
                    ));
                }
                self.open.remove(at);
            }
            other => return wrong(format!("{node} hears {other:?}")),
        }
        Ok(())
    }
}
