//! What became of a player's inputs and operations, and how long authority took to echo an input.
//!
//! The echo of input n is the time from its datagram's leaving until the role confirms n itself. An input that is confirmed
//! only by a later one was overtaken: its own datagram, or the state that echoed it, was lost or came with the later one's;
//! nobody here can tell which. An input that a session leaves unconfirmed counts as sent and as neither.

use std::collections::{BTreeSet, VecDeque};
use worldline_proto::{NodeId, OpNumber, client::DeniedReason};
use worldline_system::{
    doors::network::CloseReason,
    history::Note,
    time::{Duration, Instant},
};

/// Inputs that wait to be confirmed; as many as a client predicts, and those that authority takes together.
const IN_FLIGHT_MAX: usize = 1_024;
/// Each power of two of microseconds is cut so fine: a quantile is at most 1 % above the truth.
const STEPS: u64 = 128;

/// A distribution of durations.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Histogram {
    /// Adds one.
    pub fn add(&mut self, duration: Duration) {
        let us = duration.as_micros();
        let step = step_of(us);
        if self.counts.len() <= step {
            self.counts.resize(step + 1, 0);
        }
        self.counts[step] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// How many there are.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The longest, in microseconds.
    #[must_use]
    pub const fn max_us(&self) -> u64 {
        self.max_us
    }

    /// The duration that so many of a hundred do not exceed, in microseconds; `None` of nothing.
    #[must_use]
    pub fn percentile_us(&self, percent: u64) -> Option<u64> {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut below = 0;
        let step = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(end_of(step).min(self.max_us))
    }
}

/// Which step a duration falls into: exact below [`STEPS`], then so many steps a power of two.
fn step_of(us: u64) -> usize {
    let power = us.checked_ilog2().unwrap_or(0).saturating_sub(STEPS.ilog2());
    let within = us >> power;
    usize::try_from(u64::from(power) * STEPS + within).unwrap_or(usize::MAX)
}

/// The longest duration of a step.
fn end_of(step: usize) -> u64 {
    let step = step as u64;
    let power = (step / STEPS).saturating_sub(1);
    let within = step - power * STEPS;
    ((within + 1) << power) - 1
}

/// What became of one player.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    /// Inputs that have left.
    pub inputs_sent: u64,
    /// Inputs that authority has confirmed by their own number.
    pub inputs_echoed: u64,
    /// Inputs that a later one's confirmation has made old.
    pub inputs_overtaken: u64,
    /// How long an echo took.
    pub echo: Histogram,
    /// Operations that were performed.
    pub performed: u64,
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// Of these: refused, because their number had been used with another payload.
    pub conflicts: u64,
    /// Times that it was welcomed.
    pub joined: u64,
    /// Why it was turned away the last time, until it is welcomed.
    pub denied: Option<DeniedReason>,
    /// Whether it stays away for good, as its role says.
    pub barred: bool,
    /// Which gateway it turned to the last time, and why it last did not reach one, until it is welcomed.
    pub unreached: Option<(NodeId, Option<CloseReason>)>,
    in_flight: VecDeque<(u32, Instant)>,
    outstanding: BTreeSet<OpNumber>,
}

impl Measure {
    /// An input's datagram leaves.
    pub fn sent(&mut self, sequence: u32, now: Instant) {
        self.inputs_sent += 1;
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            self.in_flight.pop_front();
        }
        self.in_flight.push_back((sequence, now));
    }

    /// The role says something of itself.
    pub fn noted(&mut self, note: &Note, now: Instant) {
        match note {
            Note::Joined { .. } => {
                self.joined += 1;
                (self.denied, self.unreached) = (None, None);
                // Inputs are numbered anew.
                self.in_flight.clear();
            }
            Note::TurnedAway { .. } => self.barred = true,
            Note::Confirmed { sequence, .. } => {
                while let Some(&(input, sent)) = self.in_flight.front().filter(|(sent, _)| sent <= sequence) {
                    self.in_flight.pop_front();
                    if input == *sequence {
                        self.inputs_echoed += 1;
                        self.echo.add(now.since(sent));
                    } else {
                        self.inputs_overtaken += 1;
                    }
                }
            }
            Note::Performed { number, .. } => {
                self.performed += 1;
                self.outstanding.insert(*number);
            }
            Note::Acknowledged { number, result, .. } if self.outstanding.remove(number) => {
                self.acknowledged += 1;
                self.conflicts += u64::from(result.is_none());
            }
            _ => {}
        }
    }

    /// Operations that are not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> u64 {
        self.outstanding.len() as u64
    }

    /// Inputs of this session that are not confirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether it stays away for good, as its role says, or no gateway will ever let it in. That a token has expired one gateway may
    /// say because its own clock is wrong: the role asks the others.
    #[must_use]
    pub const fn hopeless(&self) -> bool {
        use DeniedReason::{Protocol, TokenForged, TokenVersion};
        self.barred || matches!(self.denied, Some(Protocol | TokenForged | TokenVersion))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::{CharacterId, Digest, Epoch, Generation};

    const fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_percentile_is_at_most_a_hundredth_above_the_truth() {
        let mut histogram = Histogram::default();
        for us in 1..=100_000 {
            histogram.add(Duration::from_micros(us));
        }
        for percent in [1, 50, 95, 99, 100] {
            let (told, true_us) = (histogram.percentile_us(percent).expect("not empty"), percent * 1_000);
            assert!(told >= true_us && told <= true_us + true_us / 100 + 1, "p{percent}: {told}, in truth {true_us}");
        }
        assert_eq!(Histogram::default().percentile_us(50), None);
        assert_eq!((step_of(0), end_of(step_of(127)), end_of(step_of(256))), (0, 127, 257));
    }

    #[test]
    fn an_input_is_echoed_by_its_own_confirmation_and_overtaken_by_a_later_one() {
        let character = CharacterId::new(1).expect("small");
        let confirmed =
            |sequence| Note::Confirmed { character, epoch: Epoch(1), sequence, position: Default::default() };
        let mut measure = Measure::default();
        measure.sent(1, at(0));
        measure.sent(2, at(50));
        measure.sent(3, at(100));
        measure.noted(&confirmed(2), at(70));
        assert_eq!((measure.inputs_echoed, measure.inputs_overtaken, measure.unconfirmed()), (1, 1, 1));
        assert_eq!(measure.echo.max_us(), 20_000, "the echo of the second alone");
        measure.noted(&Note::Joined { character, generation: Generation(2), issued_unix_ms: 0 }, at(200));
        measure.noted(&confirmed(9), at(201));
        let taken_in = measure.inputs_echoed + measure.inputs_overtaken;
        assert_eq!((measure.inputs_sent, taken_in), (3, 2), "the third was lost with its session");
    }

    #[test]
    fn a_bot_gives_up_where_no_gateway_can_let_it_in_or_its_role_does() {
        use DeniedReason::*;
        let told = |reason| Measure { denied: Some(reason), ..Measure::default() };
        for final_word in [Protocol, TokenForged, TokenVersion] {
            assert!(told(final_word).hopeless(), "{final_word:?}");
        }
        for one_gateways_word in [TokenExpired, TokenNotYetValid, Busy, Draining, Superseded, Unspecified] {
            assert!(!told(one_gateways_word).hopeless(), "{one_gateways_word:?}: another may let it in");
        }
        let mut measure = told(TokenExpired);
        measure.noted(&Note::TurnedAway { character: CharacterId::new(1).expect("small") }, at(0));
        assert!(measure.hopeless(), "its role has asked them all");
    }

    #[test]
    fn an_operation_counts_as_acknowledged_once() {
        let (character, number, digest) = (CharacterId::new(1).expect("small"), OpNumber(4), Digest([0; 16]));
        let mut measure = Measure::default();
        let acknowledged = Note::Acknowledged { character, number, digest: Some(digest), result: None };
        measure.noted(&Note::Performed { character, number, digest }, at(0));
        assert_eq!(measure.unacknowledged(), 1);
        measure.noted(&acknowledged, at(1));
        measure.noted(&acknowledged, at(2));
        assert_eq!((measure.performed, measure.acknowledged, measure.unacknowledged()), (1, 1, 0));
        assert_eq!(measure.conflicts, 1, "an acknowledgement without a result is a conflict");
    }
}
