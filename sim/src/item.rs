//! What waits in the queue. Kept to one cache line with its key beside it: the kernel moves millions of these a second.

use crate::{
    bus, cache,
    core::Core,
    directory,
    hash::TraceHash,
    ledger,
    network::{connection::EndRef, frame::Frame},
};
use std::hash::Hash;
use worldline_proto::NodeId;
use worldline_system::{
    doors::{
        self,
        clock::TimerKey,
        network::{Event, Payload, StreamClass},
    },
    history::EventId,
};

/// Something that is going to happen at a node.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Scheduled {
    /// The event during which it was scheduled.
    pub cause: EventId,
    /// Where it happens.
    pub node: NodeId,
    /// Of a packet: the node that sent it. Of anything else: the incarnation it is for.
    pub tag: u32,
    pub item: Item,
}

const _: () = assert!(size_of::<Option<Scheduled>>() == 64, "one cache line");

#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A packet with a datagram.
    Datagram { to: EndRef, payload: Payload },
    /// A packet with the next message of a stream class, or with one that overtook it.
    Stream { to: EndRef, class: StreamClass, attempt: u8, sequence: u32, payload: Payload },
    /// A packet that says only that its sender lives.
    KeepAlive { to: EndRef },
    /// Any other packet.
    Frame(Box<Frame>),
    /// The sender has not seen a stream message acknowledged: it sends it again.
    Resend { from: EndRef, class: StreamClass, attempt: u8, sequence: u32, payload: Payload },
    /// The same for any other packet that is repeated until it is acknowledged.
    ResendFrame(Box<Frame>),
    /// A message that had overtaken its predecessor is next.
    Release { end: EndRef, class: StreamClass },
    /// A connection's own timer: keep-alive, idle timeout, end of the handshake.
    Pulse { end: EndRef },
    /// A role's timer may be due.
    Timer(TimerKey),
    /// An operation's deadline may have come.
    Deadline { counter: u64 },
    /// Something a role is told. Boxed: it is rarer than a message, and larger.
    Tell(Box<doors::Event>),
    /// The node has come to what waits in its inbox.
    Wake,
    /// The directory model's own.
    Directory(Box<directory::Item>),
    /// The ledger model's own.
    Ledger(Box<ledger::Item>),
    /// The bus model's own.
    Bus(Box<bus::Item>),
    /// The cache model's own.
    Cache(Box<cache::Item>),
}

/// Something of a service model that is going to happen.
#[derive(Clone, Debug)]
pub enum ServiceItem {
    /// The directory's.
    Directory(Box<directory::Item>),
    /// The ledger's.
    Ledger(Box<ledger::Item>),
    /// The bus's.
    Bus(Box<bus::Item>),
    /// The cache's.
    Cache(Box<cache::Item>),
}

impl From<directory::Item> for ServiceItem {
    fn from(item: directory::Item) -> Self {
        Self::Directory(Box::new(item))
    }
}

impl From<ledger::Item> for ServiceItem {
    fn from(item: ledger::Item) -> Self {
        Self::Ledger(Box::new(item))
    }
}

impl From<cache::Item> for ServiceItem {
    fn from(item: cache::Item) -> Self {
        Self::Cache(Box::new(item))
    }
}

impl From<bus::Item> for ServiceItem {
    fn from(item: bus::Item) -> Self {
        Self::Bus(Box::new(item))
    }
}

impl From<ServiceItem> for Item {
    fn from(item: ServiceItem) -> Self {
        match item {
            ServiceItem::Directory(item) => Self::Directory(item),
            ServiceItem::Ledger(item) => Self::Ledger(item),
            ServiceItem::Bus(item) => Self::Bus(item),
            ServiceItem::Cache(item) => Self::Cache(item),
        }
    }
}

impl Item {
    /// Whether it becomes an event of a role, if all goes well.
    pub(crate) const fn is_for_role(&self) -> bool {
        matches!(
            self,
            Self::Datagram { .. }
                | Self::Stream { .. }
                | Self::Release { .. }
                | Self::Timer(_)
                | Self::Deadline { .. }
                | Self::Tell(_)
        )
    }

    /// Whether the host's own threads see to it, however busy the role is.
    pub(crate) const fn is_transport(&self) -> bool {
        !self.is_for_role()
    }

    /// Whether nobody waits for it: it has no reserved slot.
    pub(crate) const fn is_unsolicited(&self) -> bool {
        match self {
            Self::Datagram { .. } | Self::Stream { .. } => true,
            Self::Tell(event) => matches!(**event, doors::Event::Network(Event::Called { .. })),
            _ => false,
        }
    }

    /// Whether it belongs to one incarnation of its node and ends with it.
    const fn is_of_incarnation(&self) -> bool {
        !matches!(
            self,
            Self::Datagram { .. }
                | Self::Stream { .. }
                | Self::KeepAlive { .. }
                | Self::Frame(_)
                | Self::Directory(_)
                | Self::Ledger(_)
                | Self::Bus(_)
                | Self::Cache(_)
        )
    }

    /// Folds what it carries into the trace hash.
    pub(crate) fn fold(&self, hash: &mut TraceHash) {
        match self {
            Self::Datagram { to, payload } => (0_u8, to, payload).hash(hash),
            Self::Stream { to, class, attempt, sequence, payload } => {
                (1_u8, to, class, attempt, sequence, payload).hash(hash);
            }
            Self::KeepAlive { to } => (2_u8, to).hash(hash),
            Self::Frame(frame) => (3_u8, frame).hash(hash),
            Self::Resend { from, class, attempt, sequence, .. } => (4_u8, from, class, attempt, sequence).hash(hash),
            Self::ResendFrame(frame) => (5_u8, frame).hash(hash),
            Self::Release { end, class } => (6_u8, end, class).hash(hash),
            Self::Pulse { end } => (7_u8, end).hash(hash),
            Self::Timer(key) => (8_u8, key).hash(hash),
            Self::Deadline { counter } => (9_u8, counter).hash(hash),
            Self::Tell(event) => (10_u8, event).hash(hash),
            Self::Wake => 11_u8.hash(hash),
            // A model's own state shows in what it answers and accepts.
            Self::Directory(_) => 12_u8.hash(hash),
            Self::Ledger(_) => 13_u8.hash(hash),
            Self::Bus(_) => 14_u8.hash(hash),
            Self::Cache(_) => 15_u8.hash(hash),
        }
    }

    /// In words, for who reads a trace. `from` sent it, if it is a packet.
    pub(crate) fn describe(&self, from: NodeId) -> String {
        match self {
            Self::Datagram { payload, .. } => format!("datagram from {from}: {payload:?}"),
            Self::Stream { class, sequence, payload, .. } => {
                format!("{class:?} message {sequence} from {from}: {payload:?}")
            }
            Self::KeepAlive { .. } => format!("keep-alive from {from}"),
            Self::Frame(frame) => format!("from {from}: {:?}", frame.body),
            Self::Resend { class, sequence, .. } => format!("sends {class:?} message {sequence} again"),
            Self::ResendFrame(frame) => format!("sends again: {:?}", frame.body),
            Self::Release { class, .. } => format!("next {class:?} message was here early"),
            Self::Pulse { .. } => "connection timer".into(),
            Self::Directory(item) => format!("{item:?}"),
            Self::Ledger(item) => format!("{item:?}"),
            Self::Bus(item) => format!("{item:?}"),
            Self::Cache(item) => format!("{item:?}"),
            other => format!("{other:?}"),
        }
    }
}

/// What a reader has credits for.
pub(crate) fn is_news(event: &doors::Event) -> bool {
    matches!(
        event,
        doors::Event::Directory(doors::directory::Event::Changed { .. })
            | doors::Event::Bus(doors::bus::Event::Delivered { .. })
    )
}

impl Core {
    /// Whether this was for an incarnation that is no more.
    pub(crate) fn is_stale(&self, what: &Scheduled) -> bool {
        let node = &self.nodes[what.node.0 as usize];
        what.item.is_of_incarnation() && (node.incarnation.0 != what.tag || !node.is_up())
    }

    /// Lets it happen, now. What comes of it for the node's role is returned.
    pub(crate) fn happen(&mut self, node: NodeId, from: NodeId, item: Item) -> Option<doors::Event> {
        match item {
            Item::Datagram { to, payload } => return self.on_datagram(from, node, to, payload),
            Item::Stream { to, class, attempt, sequence, payload } => {
                return self.on_stream(from, node, to, (class, attempt, sequence), payload);
            }
            Item::Release { end, class } => return self.on_release(node, end, class),
            Item::Timer(key) => return Some(doors::Event::Timer(key)),
            Item::Deadline { counter } => return self.on_deadline(node, counter),
            Item::Tell(event) => {
                if is_news(&event) {
                    self.nodes[node.0 as usize].cold.news -= 1;
                }
                return Some(*event);
            }
            Item::KeepAlive { to } => self.on_keep_alive(from, node, to),
            Item::Frame(frame) => self.on_frame(from, node, frame),
            Item::Resend { from, class, attempt, sequence, payload } => {
                self.on_resend(node, from, class, attempt, sequence, payload);
            }
            Item::ResendFrame(frame) => self.on_resend_frame(node, *frame),
            Item::Pulse { end } => self.on_pulse(node, end),
            Item::Wake | Item::Directory(_) | Item::Ledger(_) | Item::Bus(_) | Item::Cache(_) => {}
        }
        None
    }
}
