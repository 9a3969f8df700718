//! What goes wrong with requests on their way to the bus and back. Only publishes, what is said of deliveries, and the opening of
//! consumers are requests: what the client asks for itself is never harmed.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use worldline_proto::NodeId;
use worldline_scenarios::draw::{self, Draw};
use worldline_sim::bus::Which;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something is to be stored.
    Publish,
    /// A delivery was taken in.
    Acknowledge,
    /// Any other that a role has asked for.
    Other,
}

const fn holds(which: Which, kind: Kind) -> bool {
    match which {
        Which::All => true,
        Which::Publishes => matches!(kind, Kind::Publish),
        Which::Acknowledgements => matches!(kind, Kind::Acknowledge),
    }
}

/// What goes wrong with requests for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// They are executed, and so many of a thousand of their answers are swallowed.
    LoseAnswers {
        /// Of which caller.
        from: Option<NodeId>,
        /// Of which requests.
        of: Which,
        /// How often; never ends it.
        permille: u16,
    },
    /// So many of a thousand never arrive.
    LoseRequests {
        /// Of which caller.
        from: Option<NodeId>,
        /// Which requests.
        of: Which,
        /// How often; never ends it.
        permille: u16,
    },
    /// What consumers deliver arrives so much later, and what travels behind it too.
    DelayDeliveries(Duration),
}

impl Harm {
    /// What ends it.
    #[must_use]
    pub const fn over(self) -> Self {
        match self {
            Self::LoseAnswers { from, of, .. } => Self::LoseAnswers { from, of, permille: 0 },
            Self::LoseRequests { from, of, .. } => Self::LoseRequests { from, of, permille: 0 },
            Self::DelayDeliveries(_) => Self::DelayDeliveries(Duration::ZERO),
        }
    }

    /// It in words; `whose` tells of callers.
    pub fn told(self, whose: &dyn Fn(&Option<NodeId>) -> String) -> String {
        let kind = |of| match of {
            Which::All => "requests",
            Which::Publishes => "publishes",
            Which::Acknowledgements => "acknowledgements",
        };
        let percent = |permille: u16| format!("{}%", f64::from(permille) / 10.0);
        match self {
            Self::LoseAnswers { from, of, permille } => {
                format!("{} of NATS' answers to the {} of {} are swallowed", percent(permille), kind(of), whose(&from))
            }
            Self::LoseRequests { from, of, permille } => {
                format!("{} of the {} of {} never reach NATS", percent(permille), kind(of), whose(&from))
            }
            Self::DelayDeliveries(by) => format!("what NATS delivers arrives {by:?} later"),
        }
    }
}

/// What has gone wrong so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answers that were swallowed.
    pub answers: u64,
    /// Requests that were.
    pub requests: u64,
    /// Deliveries that arrived later.
    pub delayed: u64,
}

type Loss = Option<(Option<NodeId>, Which, u16)>;

#[derive(Clone, Copy, Debug, Default)]
struct Going {
    answers: Loss,
    requests: Loss,
    delay: Duration,
    /// How often the bus has forgotten all names.
    forgotten: u32,
    draws: u64,
    counts: Counts,
}

/// What goes wrong now, for all links to the bus.
#[derive(Debug)]
pub struct Requests {
    seed: u64,
    going: Mutex<Going>,
    breaks: watch::Sender<Option<NodeId>>,
}

impl Requests {
    /// Nothing goes wrong; what will is drawn from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, going: Mutex::default(), breaks: watch::Sender::new(None) }
    }

    fn going(&self) -> MutexGuard<'_, Going> {
        // What is inside is plain figures: whole at every moment.
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this goes wrong.
    pub fn harm(&self, harm: Harm) {
        let mut going = self.going();
        let loss = |from, of, permille| (permille > 0).then_some((from, of, permille));
        match harm {
            Harm::LoseAnswers { from, of, permille } => going.answers = loss(from, of, permille),
            Harm::LoseRequests { from, of, permille } => going.requests = loss(from, of, permille),
            Harm::DelayDeliveries(by) => going.delay = by,
        }
    }

    /// Nothing goes wrong any more. Names that are forgotten stay so.
    pub fn heal(&self) {
        let mut going = self.going();
        (going.answers, going.requests, going.delay) = (None, None, Duration::ZERO);
    }

    /// From now on no name of a message is the one that it was.
    pub fn forget_names(&self) {
        self.going().forgotten += 1;
    }

    /// How often all names were forgotten.
    #[must_use]
    pub fn forgotten(&self) -> u32 {
        self.going().forgotten
    }

    /// Breaks the connections of this caller, or of all. Whether there are connections at all.
    pub fn disconnect(&self, from: Option<NodeId>) -> bool {
        let there = self.breaks.receiver_count() > 0;
        self.breaks.send_replace(from);
        there
    }

    /// Hears of every break from now on.
    #[must_use]
    pub fn breaks(&self) -> watch::Receiver<Option<NodeId>> {
        self.breaks.subscribe()
    }

    fn happens(&self, going: &mut Going, loss: Loss, caller: NodeId, kind: Kind) -> bool {
        let Some((from, which, permille)) = loss else { return false };
        if from.is_some_and(|from| from != caller) || !holds(which, kind) {
            return false;
        }
        let n = going.draws;
        going.draws += 1;
        draw::below(self.seed, Draw::Request, n, 1_000) < u64::from(permille)
    }

    /// Whether the request that this caller has just sent is swallowed.
    #[must_use]
    pub fn swallows(&self, caller: NodeId, kind: Kind) -> bool {
        let mut going = self.going();
        let loss = going.requests;
        let swallowed = self.happens(&mut going, loss, caller, kind);
        going.counts.requests += u64::from(swallowed);
        swallowed
    }

    /// Whether the answer to such a request of this caller is swallowed when it comes.
    #[must_use]
    pub fn swallows_answer(&self, caller: NodeId, kind: Kind) -> bool {
        let mut going = self.going();
        let loss = going.answers;
        self.happens(&mut going, loss, caller, kind)
    }

    /// An answer was swallowed.
    pub fn swallowed_answer(&self) {
        self.going().counts.answers += 1;
    }

    /// How much later a delivery arrives.
    #[must_use]
    pub fn delay(&self) -> Duration {
        let mut going = self.going();
        going.counts.delayed += u64::from(going.delay > Duration::ZERO);
        going.delay
    }

    /// What has gone wrong so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.going().counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_one_callers_publishes_is_lost_and_nothing_else() {
        let (requests, one, other) = (Requests::new(1), NodeId(1), NodeId(2));
        let harm = Harm::LoseRequests { from: Some(one), of: Which::Publishes, permille: 500 };
        requests.harm(harm);
        let lost = (0..1_000).filter(|_| requests.swallows(one, Kind::Publish)).count();
        assert!((430..=570).contains(&lost), "{lost} of 1000");
        assert_eq!(requests.counts().requests, lost as u64);
        assert!((0..100).all(|_| !requests.swallows(other, Kind::Publish)));
        assert!((0..100).all(|_| !requests.swallows(one, Kind::Acknowledge)));
        assert!((0..100).all(|_| !requests.swallows_answer(one, Kind::Publish)));
        requests.harm(harm.over());
        assert!((0..100).all(|_| !requests.swallows(one, Kind::Publish)));
    }

    #[test]
    fn what_is_healed_is_over_but_for_forgotten_names() {
        let (requests, one) = (Requests::new(1), NodeId(1));
        requests.harm(Harm::LoseAnswers { from: None, of: Which::All, permille: 1_000 });
        requests.harm(Harm::DelayDeliveries(Duration::from_secs(2)));
        requests.forget_names();
        assert!(requests.swallows_answer(one, Kind::Other) && requests.delay() == Duration::from_secs(2));
        assert!(!requests.disconnect(None), "nobody is connected");
        requests.heal();
        assert!(!requests.swallows_answer(one, Kind::Other) && requests.delay() == Duration::ZERO);
        assert_eq!((requests.forgotten(), requests.counts().delayed), (1, 1));
    }
}
