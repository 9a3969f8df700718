//! Consumers: what is out to each reader, what must be delivered again, and how a reader learns that it is over.
//!
//! A reader's messages arrive in the order in which they were sent to it. At most [`BUS_CREDITS`] of a consumer are out;
//! each comes again [`BUS_ACK_WAIT`] after it was sent, until it is acknowledged.

use super::{Item, Model, client::KEEP_ALIVE, later, stream::Name};
use crate::{Core, replication::carry};
use std::{collections::BTreeMap, sync::Arc};
use worldline_proto::{Incarnation, NodeId, OpId};
use worldline_system::{
    doors::bus::{Event, GapCause, Message, StreamSequence},
    limits::{BUS_ACK_WAIT, BUS_CREDITS},
    time::{Duration, Instant},
};

/// The reader's side of a consumer.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub name: Name,
    /// By when its caller must have heard that it stands.
    deadline: Instant,
    stands: bool,
    /// Its gap is on the way.
    ended: bool,
    /// When the last that was sent to it arrives.
    arrival: Instant,
}

impl Reader {
    pub fn new(name: Name, deadline: Instant) -> Self {
        Self { name, deadline, stands: false, ended: false, arrival: Instant::default() }
    }
}

/// The leader's side of a consumer.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    reader: Option<(NodeId, OpId)>,
    /// The first that was not delivered yet.
    next: u64,
    /// Delivered and not acknowledged: when it comes again, and how often it came.
    out: BTreeMap<u64, (Instant, u32)>,
}

impl Model {
    /// Whether a node has this consumer.
    pub(super) fn reads(&self, client: NodeId, consumer: OpId) -> bool {
        self.readers.get(&(client, consumer)).is_some_and(|reader| reader.stands && !reader.ended)
    }

    /// How many consumers a node has, or is about to.
    pub(super) fn readers_of(&self, client: NodeId) -> usize {
        self.readers.iter().filter(|((node, _), reader)| *node == client && !reader.ended).count()
    }

    /// The last that a consumer was sent.
    pub(super) fn delivered(&self, name: Name) -> u64 {
        self.deliveries.get(&name).map_or(0, |delivery| delivery.next - 1)
    }

    /// A caller has heard how its opening ended; if it stands, messages begin.
    pub(super) fn stands(&mut self, core: &mut Core, client: NodeId, op: OpId, stands: bool) {
        let Some(reader) = self.readers.get_mut(&(client, op)) else { return };
        let name = reader.name;
        let Some(place) = self.stream.place(name).filter(|_| stands) else {
            self.close(client, op);
            return;
        };
        reader.stands = true;
        let fresh = || Delivery { reader: None, next: place + 1, out: BTreeMap::new() };
        self.deliveries.entry(name).or_insert_with(fresh).reader = Some((client, op));
        self.push(core, name);
    }

    /// Every reader is sent what is new.
    pub(super) fn push_all(&mut self, core: &mut Core) {
        let names: Vec<Name> =
            self.deliveries.iter().filter(|(_, delivery)| delivery.reader.is_some()).map(|(&name, _)| name).collect();
        names.into_iter().for_each(|name| self.push(core, name));
    }

    /// Sends a reader what is new, as far as its credits go.
    fn push(&mut self, core: &mut Core, name: Name) {
        let Some(delivery) = self.deliveries.get(&name) else { return };
        let mut next = delivery.next.max(self.stream.first());
        while next <= self.stream.last() {
            if self.deliveries[&name].out.len() >= BUS_CREDITS || !self.transmit(core, name, next, 1) {
                break;
            }
            let due = core.now() + BUS_ACK_WAIT;
            let delivery = self.deliveries.get_mut(&name).expect("it was just there");
            delivery.out.insert(next, (due, 1));
            next += 1;
            delivery.next = next;
        }
    }

    /// Sends a message to a consumer's reader. `false` where it has none, or the way is cut: tried again at the next pulse.
    fn transmit(&mut self, core: &mut Core, name: Name, sequence: u64, delivery: u32) -> bool {
        let Some((client, op)) = self.deliveries[&name].reader else { return false };
        let Some(delay) = self.way(core, client) else { return false };
        let Some(stored) = self.stream.get(sequence) else { return false };
        let message = Message {
            sequence: StreamSequence(sequence),
            subject: stored.subject,
            published: stored.published,
            delivery,
            payload: stored.payload.clone(),
        };
        let Some(reader) = self.readers.get_mut(&(client, op)).filter(|reader| reader.stands && !reader.ended) else {
            return false;
        };
        reader.arrival = reader.arrival.max(core.now() + delay + self.faults.delay_deliveries);
        let event = Event::Delivered { consumer: op, message: Arc::new(message) };
        later(core, reader.arrival, client, Item::Deliver(client, op.incarnation, Box::new(event)));
        true
    }

    /// How long from the leader to a caller, by the member that it speaks with.
    fn way(&self, core: &mut Core, client: NodeId) -> Option<Duration> {
        let (leader, via) = (self.leading(core)?, self.clients.get(&client)?.member);
        let (here, there) = (self.members[leader].node, self.members[via].node);
        if !core.is_running(there) {
            return None;
        }
        let between = if leader == via { Duration::ZERO } else { carry(core, here, there)? };
        Some(between + carry(core, there, client)?)
    }

    /// At each pulse: what was not acknowledged in time comes again, and what could not be sent is tried again.
    pub(super) fn redeliver(&mut self, core: &mut Core) {
        let now = core.now();
        let names: Vec<Name> =
            self.deliveries.iter().filter(|(_, delivery)| delivery.reader.is_some()).map(|(&name, _)| name).collect();
        for name in names {
            let out = &self.deliveries[&name].out;
            let due: Vec<(u64, u32)> =
                out.iter().filter(|(_, (due, _))| *due <= now).map(|(&at, &(_, count))| (at, count)).collect();
            for (sequence, count) in due {
                if self.stream.get(sequence).is_none() {
                    self.deliveries.get_mut(&name).expect("it was just there").out.remove(&sequence);
                } else if self.transmit(core, name, sequence, count + 1) {
                    let delivery = self.deliveries.get_mut(&name).expect("it was just there");
                    delivery.out.insert(sequence, (now + BUS_ACK_WAIT, count + 1));
                }
            }
            self.push(core, name);
        }
    }

    /// A consumer's acknowledgement is committed: its credits are free again.
    pub(super) fn acknowledged(&mut self, core: &mut Core, name: Name) {
        let Some(place) = self.stream.place(name) else { return };
        if let Some(delivery) = self.deliveries.get_mut(&name) {
            delivery.out = delivery.out.split_off(&(place + 1));
            delivery.next = delivery.next.max(place + 1);
            self.push(core, name);
        }
    }

    /// A reader wants a message again. `false` where it is not out.
    pub(super) fn reject(&mut self, core: &Core, client: NodeId, consumer: OpId, sequence: u64) -> bool {
        let Some(reader) = self.readers.get(&(client, consumer)) else { return false };
        let Some(delivery) = self.deliveries.get_mut(&reader.name) else { return false };
        let out = delivery.out.get_mut(&sequence);
        out.is_some_and(|(due, _)| {
            *due = core.now();
            true
        })
    }

    /// What a consumer tells arrives at its reader.
    pub(super) fn deliver(&mut self, core: &mut Core, client: NodeId, life: Incarnation, event: Event) {
        let (op, gap) = match &event {
            Event::Delivered { consumer, .. } => (*consumer, false),
            Event::Gap { consumer, .. } => (*consumer, true),
            Event::Answered { .. } => unreachable!("an answer is not delivered by a consumer"),
        };
        if !self.readers.contains_key(&(client, op)) {
            return; // Its caller has closed it.
        }
        let taken = core.bus_news(client, life, event);
        if gap || !taken {
            self.close(client, op);
        }
        if !gap && !taken {
            core.bus_news(client, life, Event::Gap { consumer: op, cause: GapCause::Overflow });
        }
    }

    /// A reader is no more; with it goes its consumer, unless that is durable.
    pub(super) fn close(&mut self, client: NodeId, op: OpId) {
        let Some(reader) = self.readers.remove(&(client, op)) else { return };
        if let Some(delivery) = self.deliveries.get_mut(&reader.name)
            && delivery.reader == Some((client, op))
        {
            delivery.reader = None;
        }
        if matches!(reader.name, Name::Ephemeral(..)) {
            self.deliveries.remove(&reader.name);
            self.stream.remove(reader.name);
        }
    }

    /// Sends readers their gap, behind what is on its way to them.
    pub(super) fn end_readers(
        &mut self,
        core: &mut Core,
        cause: GapCause,
        delay: Duration,
        chosen: impl Fn(NodeId, &Reader) -> bool,
    ) {
        let now = core.now();
        for (&(client, op), reader) in &mut self.readers {
            if !reader.stands || reader.ended || !chosen(client, reader) {
                continue;
            }
            reader.ended = true;
            reader.arrival = reader.arrival.max(now + delay);
            let event = Box::new(Event::Gap { consumer: op, cause });
            later(core, reader.arrival, client, Item::Deliver(client, op.incarnation, event));
            if let Some(delivery) = self.deliveries.get_mut(&reader.name)
                && delivery.reader == Some((client, op))
            {
                delivery.reader = None;
            }
        }
    }

    /// A new leader waits for acknowledgements anew; what is not durable has ended with the old one.
    pub(super) fn new_leader(&mut self, core: &mut Core) {
        let due = core.now() + BUS_ACK_WAIT;
        for delivery in self.deliveries.values_mut() {
            delivery.out.values_mut().for_each(|out| out.0 = due);
        }
        self.end_readers(core, GapCause::Ended, KEEP_ALIVE, |_, reader| matches!(reader.name, Name::Ephemeral(..)));
    }

    /// The stream has lost its tail: nobody stands behind its end.
    pub(super) fn reconcile(&mut self) {
        let last = self.stream.last();
        for delivery in self.deliveries.values_mut() {
            delivery.next = delivery.next.min(last + 1);
            delivery.out.split_off(&(last + 1));
        }
    }

    /// Every consumer is set back by so many messages, as if it had never been further.
    pub(super) fn rewind(&mut self, core: &mut Core, by: u64) {
        self.stream.rewind(by);
        for (&name, delivery) in &mut self.deliveries {
            delivery.next = self.stream.place(name).unwrap_or(0) + 1;
            delivery.out.clear();
        }
        self.push_all(core);
    }

    /// Every consumer is deleted.
    pub(super) fn end_consumers(&mut self, core: &mut Core) {
        self.end_readers(core, GapCause::Ended, Duration::ZERO, |_, _| true);
        self.deliveries.clear();
        let names: Vec<Name> = self.stream.consumers().collect();
        names.into_iter().for_each(|name| self.stream.remove(name));
    }

    /// Every second: forgets who never heard that its consumer stands, and consumers whose reader is gone with its node.
    pub(super) fn forget_unheard(&mut self, now: Instant) {
        let unheard: Vec<(NodeId, OpId)> = self
            .readers
            .iter()
            .filter(|(_, reader)| !reader.stands && reader.deadline <= now)
            .map(|(&key, _)| key)
            .collect();
        unheard.into_iter().for_each(|(client, op)| self.close(client, op));
    }
}
