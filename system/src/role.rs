//! A role: plain data with one entry. What it wants of the world it leaves in an outbox; answers come back as events.

use crate::{
    doors::{
        self, Asked, bus, cache, clock::TimerKey, directory, entropy::Entropy, hooks::Hooks, ledger, network,
        telemetry::Reports,
    },
    history::Note,
    time::{Duration, Instant, UnixTime},
};
use alloc::{boxed::Box, vec::Vec};
use core::marker::PhantomData;
use worldline_proto::{Incarnation, NodeId, OpId, server::Request};

/// A state machine of the MMO.
///
/// `Event` and `Submission` are its own: a role that must not speak to a door has no variant for it.
pub trait Role: Clone {
    /// What it can be told. Converts from every event that a host can produce for the doors it uses.
    type Event: TryFrom<doors::Event>;
    /// What it can ask.
    type Submission: Into<doors::Submission>;

    /// Takes one event. Never blocks, never fails: what is wrong with the event is the role's to handle.
    fn on_event(&mut self, event: Self::Event, turn: &mut Turn<'_, Self::Submission>);

    /// How full each of its queues is, for the checker of bounds: name, length, bound.
    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize));
}

/// What a host keeps for one incarnation of a node between its turns.
#[derive(Clone, Debug)]
pub struct Desk {
    /// The node itself.
    pub node: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// How many operations it has submitted.
    pub operations: u64,
    /// Its random stream.
    pub entropy: Entropy,
    /// What it has told of itself in the turn under way. The host takes it when the turn is over.
    pub telemetry: Reports,
}

/// One event's worth of world. Time does not move inside it.
pub struct Turn<'a, S> {
    now: Instant,
    unix_now: UnixTime,
    desk: &'a mut Desk,
    hooks: &'a mut dyn Hooks,
    outbox: &'a mut Vec<doors::Submission>,
    role: PhantomData<fn(S)>,
}

impl<'a, S: Into<doors::Submission>> Turn<'a, S> {
    /// A turn at these readings of the node's clocks, whose submissions go to the end of `outbox`.
    pub fn new(
        now: Instant,
        unix_now: UnixTime,
        desk: &'a mut Desk,
        hooks: &'a mut dyn Hooks,
        outbox: &'a mut Vec<doors::Submission>,
    ) -> Self {
        Self { now, unix_now, desk, hooks, outbox, role: PhantomData }
    }

    /// The node's monotonic clock.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// The node's wall clock.
    #[must_use]
    pub fn unix_now(&self) -> UnixTime {
        self.unix_now
    }

    /// The node's own address.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.desk.node
    }

    /// Which life of the node this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.desk.incarnation
    }

    /// The node's random stream.
    pub fn entropy(&mut self) -> &mut Entropy {
        &mut self.desk.entropy
    }

    /// The hooks, for [`crate::maybe!`] and [`crate::reached!`].
    pub fn hooks(&mut self) -> &mut dyn Hooks {
        self.hooks
    }

    /// What the role tells of itself; see [`crate::doors::telemetry`].
    pub(crate) fn reports(&mut self) -> &mut Reports {
        &mut self.desk.telemetry
    }

    /// Submits to a door. Submissions leave in the order of these calls; a crash keeps a prefix of them.
    pub fn submit(&mut self, what: impl Into<S>) {
        self.outbox.push(what.into().into());
    }

    /// The id of the next operation of this incarnation.
    pub fn next_op(&mut self) -> OpId {
        self.desk.operations += 1;
        OpId { incarnation: self.desk.incarnation, counter: self.desk.operations }
    }

    /// Opens a connection.
    pub fn connect(&mut self, to: NodeId) -> OpId
    where
        S: From<network::Submission>,
    {
        let op = self.next_op();
        self.submit(network::Submission::Connect { op, to });
        op
    }

    /// Calls another server; the answer comes within `patience`.
    pub fn call(&mut self, to: NodeId, request: Request, patience: Duration) -> OpId
    where
        S: From<network::Submission>,
    {
        let op = self.next_op();
        self.call_as(op, to, request, patience);
        op
    }

    /// Calls another server under an id of [`Self::next_op`], for who must know it before the request is made.
    pub fn call_as(&mut self, op: OpId, to: NodeId, request: Request, patience: Duration)
    where
        S: From<network::Submission>,
    {
        let deadline = self.now + patience;
        self.submit(network::Submission::Call(Box::new(network::Call { op, deadline, to, request })));
    }

    /// Asks the directory; the answer comes within `patience`.
    pub fn directory(&mut self, submission: directory::Submission, patience: Duration) -> OpId
    where
        S: From<Asked<directory::Submission>>,
    {
        let op = self.next_op();
        self.submit(Asked { op, deadline: self.now + patience, submission });
        op
    }

    /// Asks the ledger; the answer comes within `patience`.
    pub fn ledger(&mut self, submission: ledger::Submission, patience: Duration) -> OpId
    where
        S: From<Asked<ledger::Submission>>,
    {
        let op = self.next_op();
        self.submit(Asked { op, deadline: self.now + patience, submission });
        op
    }

    /// Asks the bus; the answer comes within `patience`.
    pub fn bus(&mut self, submission: bus::Submission, patience: Duration) -> OpId
    where
        S: From<Asked<bus::Submission>>,
    {
        let op = self.next_op();
        self.submit(Asked { op, deadline: self.now + patience, submission });
        op
    }

    /// Asks the cache; the answer comes within `patience`.
    pub fn cache(&mut self, submission: cache::Submission, patience: Duration) -> OpId
    where
        S: From<Asked<cache::Submission>>,
    {
        let op = self.next_op();
        self.submit(Asked { op, deadline: self.now + patience, submission });
        op
    }

    /// Fires `key` after `span`; replaces an earlier arming.
    pub fn arm_in(&mut self, key: impl Into<TimerKey>, span: Duration) {
        let at = self.now + span;
        self.arm(key, at);
    }

    /// Fires `key` at `at`; replaces an earlier arming.
    pub fn arm(&mut self, key: impl Into<TimerKey>, at: Instant) {
        self.outbox.push(doors::Submission::Arm { key: key.into(), at });
    }

    /// Forgets `key`.
    pub fn disarm(&mut self, key: impl Into<TimerKey>) {
        self.outbox.push(doors::Submission::Disarm(key.into()));
    }

    /// Writes to the history what no door shows.
    pub fn note(&mut self, note: Note) {
        self.outbox.push(doors::Submission::Note(Box::new(note)));
    }

    /// Reports the orderly stop complete.
    pub fn stopped(&mut self) {
        self.outbox.push(doors::Submission::Stopped);
    }
}

/// Declares a role's own sums `Event` and `Submission` over the doors that it uses, with their conversions. A role can
/// neither be told nor ask anything of a door that it does not name here.
macro_rules! role_sums {
    ($($door:ident($event:ty, $submission:ty)),* $(,)?) => {
        /// What this role can be told.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Event {
            /// The first event of an incarnation.
            Started,
            /// A timer fired.
            Timer($crate::doors::clock::TimerKey),
            /// An orderly stop was asked for.
            Stop,
            $(#[doc = concat!("From the door `", stringify!($door), "`.")] $door($event),)*
        }

        impl TryFrom<$crate::doors::Event> for Event {
            type Error = $crate::doors::Event;

            fn try_from(event: $crate::doors::Event) -> Result<Self, Self::Error> {
                Ok(match event {
                    $crate::doors::Event::Started => Self::Started,
                    $crate::doors::Event::Timer(key) => Self::Timer(key),
                    $crate::doors::Event::Stop => Self::Stop,
                    $($crate::doors::Event::$door(event) => Self::$door(event),)*
                    #[allow(unreachable_patterns, reason = "a role with every door has none left over")]
                    other => return Err(other),
                })
            }
        }

        /// What this role can ask.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Submission {
            $(#[doc = concat!("Of the door `", stringify!($door), "`.")] $door($submission),)*
        }

        impl From<Submission> for $crate::doors::Submission {
            fn from(submission: Submission) -> Self {
                match submission {
                    $(Submission::$door(submission) => Self::$door(submission),)*
                }
            }
        }

        $(impl From<$submission> for Submission {
            fn from(submission: $submission) -> Self {
                Self::$door(submission)
            }
        })*
    };
}
pub(crate) use role_sums;
