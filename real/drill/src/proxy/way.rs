//! One direction between two nodes: how long what goes that way is under way, and what a fault does to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::sync::watch;
use worldline_scenarios::draw::{self, Draw};

/// How long TCP waits at least, beyond a round trip, before it sends a segment again that nobody has acknowledged.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(200);
/// How often in a row a segment is lost at most.
const LOST_IN_A_ROW_MAX: u32 = 3;
/// Below this a delay is left to the machine: its timers are no finer.
const FINEST: Duration = Duration::from_millis(1);

/// What a degraded way does on top of its own delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Degraded {
    /// Datagrams lost, in permille. A byte stream has its losses repaired below: each is a stall.
    pub loss_permille: u32,
    /// Datagrams doubled, in permille.
    pub duplicate_permille: u32,
    /// Added to everything.
    pub delay: Duration,
    /// Added to everything, at most, drawn each time.
    pub jitter: Duration,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// The cuts that go on, by their names.
    cuts: BTreeSet<u32>,
    degraded: BTreeMap<u32, Degraded>,
}

/// What becomes of a datagram: how long each of its copies is under way. None: it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate(pub [Option<Duration>; 2]);

/// One direction between two nodes.
#[derive(Debug)]
pub struct Way {
    base: Duration,
    /// The mean of what is added to it.
    jitter: Duration,
    seed: u64,
    /// Names this way in its draws.
    who: u64,
    draws: AtomicU64,
    state: watch::Sender<State>,
}

impl Way {
    /// A way that takes `base`, and `jitter` more on average. Its draws are keyed by seed and `who`.
    #[must_use]
    pub fn new(base: Duration, jitter: Duration, seed: u64, who: u64) -> Self {
        Self { base, jitter, seed, who, draws: AtomicU64::new(0), state: watch::Sender::default() }
    }

    fn draw(&self, bound: u64) -> u64 {
        let n = self.draws.fetch_add(1, Ordering::Relaxed);
        // A way has its own sequence of draws: the same number means something else on another one.
        draw::below(self.seed ^ self.who.rotate_left(32), Draw::Packet, n, bound)
    }

    fn happens(&self, permille: u32) -> bool {
        permille > 0 && self.draw(1_000) < u64::from(permille)
    }

    /// Evenly from nothing to twice the mean.
    fn spread(&self, mean: Duration) -> Duration {
        Duration::from_nanos(self.draw(u64::try_from(2 * mean.as_nanos()).unwrap_or(u64::MAX).saturating_add(1)))
    }

    /// How long what leaves now is under way.
    #[must_use]
    pub fn delay(&self) -> Duration {
        let mut delay = self.base;
        if self.base >= FINEST {
            delay += self.spread(self.jitter);
        }
        let degraded: Vec<Degraded> = self.state.borrow().degraded.values().copied().collect();
        for more in degraded {
            delay += more.delay + self.spread(more.jitter / 2);
        }
        if delay < FINEST { Duration::ZERO } else { delay }
    }

    /// How long a segment of a byte stream that leaves now is under way: a lost one is sent again, and waits for that longer
    /// every time, as TCP does. Whatever follows it waits with it, which is for the caller to see to.
    #[must_use]
    pub fn segment(&self) -> Duration {
        let losses: Vec<u32> = self.state.borrow().degraded.values().map(|way| way.loss_permille).collect();
        let (mut stall, mut patience) = (Duration::ZERO, RETRANSMIT_AFTER + 2 * self.base);
        for _ in 0..LOST_IN_A_ROW_MAX {
            if !losses.iter().any(|&permille| self.happens(permille)) {
                break;
            }
            stall += patience;
            patience *= 2;
        }
        stall + self.delay()
    }

    /// What becomes of a datagram that leaves now.
    #[must_use]
    pub fn datagram(&self) -> Fate {
        let (cut, degraded) = {
            let state = self.state.borrow();
            (!state.cuts.is_empty(), state.degraded.values().copied().collect::<Vec<_>>())
        };
        if cut || degraded.iter().any(|way| self.happens(way.loss_permille)) {
            return Fate([None, None]);
        }
        let twice = degraded.iter().any(|way| self.happens(way.duplicate_permille));
        Fate([Some(self.delay()), twice.then(|| self.delay())])
    }

    /// Whether nothing gets through.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        !self.state.borrow().cuts.is_empty()
    }

    /// Waits until something gets through.
    pub async fn opened(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`: it cannot be gone.
        let _ = state.wait_for(|state| state.cuts.is_empty()).await;
    }

    /// Nothing gets through until this cut is mended.
    pub fn cut(&self, id: u32) {
        self.state.send_modify(|state| {
            state.cuts.insert(id);
        });
    }

    /// From now on it does this too, until it is mended.
    pub fn degrade(&self, id: u32, how: Degraded) {
        self.state.send_modify(|state| {
            state.degraded.insert(id, how);
        });
    }

    /// Takes a cut, or what degraded it, away.
    pub fn mend(&self, id: u32) {
        self.state.send_modify(|state| {
            state.cuts.remove(&id);
            state.degraded.remove(&id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_delay_is_at_least_the_base_and_on_average_the_jitter_more() {
        let way = Way::new(80 * MS, 4 * MS, 7, 1);
        let delays: Vec<Duration> = (0..2_000).map(|_| way.delay()).collect();
        assert!(delays.iter().all(|&delay| (80 * MS..=88 * MS).contains(&delay)));
        let mean = delays.iter().sum::<Duration>() / 2_000;
        assert!((83 * MS..=85 * MS).contains(&mean), "{mean:?}");
        assert_eq!(Way::new(MS / 2, MS, 7, 1).delay(), Duration::ZERO, "a LAN is as fast as the machine");
    }

    #[test]
    fn a_way_is_open_when_every_cut_is_mended() {
        let way = Way::new(MS, MS, 7, 1);
        way.cut(1);
        way.cut(2);
        way.mend(1);
        assert_eq!((way.is_cut(), way.datagram()), (true, Fate([None, None])));
        way.mend(2);
        assert!(!way.is_cut() && way.datagram().0[0].is_some());
    }

    #[test]
    fn a_degraded_way_loses_doubles_and_delays_as_often_as_it_is_told() {
        let way = Way::new(MS, Duration::ZERO, 7, 1);
        let how = Degraded { loss_permille: 300, duplicate_permille: 100, delay: 20 * MS, jitter: 10 * MS };
        way.degrade(3, how);
        let fates: Vec<Fate> = (0..4_000).map(|_| way.datagram()).collect();
        let lost = fates.iter().filter(|fate| fate.0[0].is_none()).count();
        let twice = fates.iter().filter(|fate| fate.0[1].is_some()).count();
        assert!((1_050..=1_350).contains(&lost), "{lost} of 4000 lost");
        assert!((200..=360).contains(&twice), "{twice} of 2800 doubled");
        let delays = || fates.iter().flat_map(|fate| fate.0).flatten();
        assert!(delays().all(|delay| (21 * MS..=31 * MS).contains(&delay)));
        way.mend(3);
        assert_eq!(way.datagram(), Fate([Some(MS), None]));
    }

    #[test]
    fn a_lost_segment_of_a_stream_is_a_stall() {
        let way = Way::new(10 * MS, Duration::ZERO, 7, 1);
        assert_eq!(way.segment(), 10 * MS);
        way.degrade(3, Degraded { loss_permille: 300, ..Degraded::default() });
        let segments: Vec<Duration> = (0..4_000).map(|_| way.segment()).collect();
        let lost = segments.iter().filter(|&&segment| segment >= 230 * MS).count();
        assert!((1_050..=1_350).contains(&lost), "{lost} of 4000 lost");
        assert!(segments.iter().all(|&segment| segment == 10 * MS || segment >= 230 * MS));
        assert!(segments.iter().any(|&segment| segment >= 670 * MS), "what is sent again may be lost again");
        way.degrade(3, Degraded { loss_permille: 1_000, ..Degraded::default() });
        assert_eq!(way.segment(), 10 * MS + 7 * 220 * MS, "it ends");
    }
}
