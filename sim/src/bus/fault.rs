//! What can be made to go wrong with the bus, beyond what befalls its nodes and links: a member that loses its power takes
//! with it what it had not synced, and a bus whose members are all down is down.

use super::Model;
use crate::{Core, Purpose, replication::happens};
use worldline_proto::NodeId;
use worldline_system::{
    doors::bus::{Ask, Submission},
    time::Duration,
};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The stream's leader leads no longer; an election follows.
    LeaderChange,
    /// Requests are executed and their answers swallowed: a publish is stored, and its publisher told nothing.
    LoseAnswers {
        /// Of which caller; `None` for all.
        from: Option<NodeId>,
        /// To which submissions.
        of: Which,
        /// How often, in a thousand.
        permille: u16,
    },
    /// Requests are swallowed: an acknowledgement is lost, and its messages come again.
    LoseRequests {
        /// Of which caller; `None` for all.
        from: Option<NodeId>,
        /// Which submissions.
        of: Which,
        /// How often, in a thousand.
        permille: u16,
    },
    /// What consumers deliver arrives later.
    DelayDeliveries {
        /// How much later.
        by: Duration,
    },
    /// The bus ends connections, as it does with one who reads too slowly.
    Disconnect {
        /// Of which caller; `None` for all.
        from: Option<NodeId>,
    },
    /// Every consumer is set back by so many messages.
    RewindConsumers {
        /// How many.
        by: u64,
    },
    /// Every consumer is deleted, durable ones too.
    EndConsumers,
    /// No message id is recognised any more, as if the time of all had passed.
    ForgetIds,
    /// Everything that is stored is discarded.
    Purge,
    /// The storage is full: nothing new is stored.
    Full {
        /// Begins or ends it.
        on: bool,
    },
}

/// A kind of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// All of them.
    All,
    /// Publishes.
    Publishes,
    /// Acknowledgements.
    Acknowledgements,
}

impl Which {
    const fn holds(self, ask: Ask) -> bool {
        match self {
            Self::All => true,
            Self::Publishes => matches!(ask, Ask::Publish),
            Self::Acknowledgements => matches!(ask, Ask::Acknowledge),
        }
    }
}

/// The faults that go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    lose_answers: Option<(Option<NodeId>, Which, u16)>,
    lose_requests: Option<(Option<NodeId>, Which, u16)>,
    pub delay_deliveries: Duration,
    pub full: bool,
}

impl Faults {
    /// Whether the answer to request `n` is swallowed.
    pub fn loses_answer(&self, core: &Core, client: NodeId, ask: Ask, n: u64) -> bool {
        loses(self.lose_answers, core, client, ask, (2 << 32, n))
    }

    /// Whether request `n` is swallowed.
    pub fn loses_request(&self, core: &Core, client: NodeId, submission: &Submission, n: u64) -> bool {
        loses(self.lose_requests, core, client, submission.into(), (3 << 32, n))
    }
}

fn loses(
    fault: Option<(Option<NodeId>, Which, u16)>,
    core: &Core,
    client: NodeId,
    ask: Ask,
    (who, n): (u64, u64),
) -> bool {
    fault.is_some_and(|(from, which, permille)| {
        from.is_none_or(|from| from == client) && which.holds(ask) && happens(core.draw(Purpose::Bus, who, n), permille)
    })
}

impl Model {
    pub(super) fn fail(&mut self, core: &mut Core, fault: Fault) {
        match fault {
            Fault::LoseAnswers { from, of, permille } => self.faults.lose_answers = Some((from, of, permille)),
            Fault::LoseRequests { from, of, permille } => self.faults.lose_requests = Some((from, of, permille)),
            Fault::DelayDeliveries { by } => self.faults.delay_deliveries = by,
            Fault::Full { on } => self.faults.full = on,
            Fault::LeaderChange => self.change_leader(core),
            Fault::Disconnect { from } => {
                let chosen = self.connected().into_iter().filter(|&node| from.is_none_or(|from| from == node));
                chosen.collect::<Vec<_>>().into_iter().for_each(|node| self.disconnect(core, node, Duration::ZERO));
            }
            Fault::RewindConsumers { by } => self.rewind(core, by),
            Fault::EndConsumers => self.end_consumers(core),
            Fault::ForgetIds => self.stream.forget_ids(),
            Fault::Purge => self.stream.purge(),
        }
    }
}
