//! What connections bear: packets that are lost, late, doubled and out of order; silence; a peer that takes nothing in.

use super::{BACK, CLIENTS, GATEWAY, NetworkService, Weather, connections::Case, wrong};
use crate::play::{Extent, Seen, check};
use proptest::{prelude::*, test_runner::TestCaseError};
use worldline_system::{
    doors::network::{CloseReason, Event, StreamClass, Submission},
    limits,
    time::Duration,
};

/// What [`under_weather`] must come across.
pub const UNDER_WEATHER: &[&str] = &[
    "cut",
    "cut to the gateway",
    "cut to the clients",
    "slow",
    "lossy",
    "doubling",
    "reordering",
    "received",
    "a datagram lost",
    "a datagram overtaken",
];

/// How long bad weather lasts: some times less than the idle timeout.
const SPELL: Duration = Duration::from_millis(300);
/// By then what was under way has arrived, or never does.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// Messages that are sent until a queue must have reached its bound, at most: beside it the transport keeps some.
const ENOUGH: usize = 16 * limits::STREAM_BACKLOG;
/// What one of them has, in bytes.
const EACH_BYTES: usize = 1_000;

/// A spell of weather, with messages and datagrams of these lengths each way and in every class.
#[derive(Clone, Debug)]
struct Spell {
    weather: Weather,
    lengths: Vec<usize>,
}

fn spell() -> impl Strategy<Value = Spell> {
    use Weather::{Cut, CutToClients, CutToGateway, Doubling, Lossy, Reordering, Slow};
    let weather = prop::sample::select(vec![Cut, CutToClients, CutToGateway, Doubling, Lossy, Reordering, Slow]);
    // Long enough that no two are alike.
    let length = prop_oneof![8 => 8..200_usize, 1 => Just(limits::DATAGRAM_BYTES)];
    (weather, prop::collection::vec(length, 4..24)).prop_map(|(weather, lengths)| Spell { weather, lengths })
}

/// **Under weather.** Packets are lost, late, doubled, out of order, or none arrives for a while, one way or both: a connection stands
/// whatever lasts shorter than the idle timeout, its messages arrive in order, each once and whole, and its datagrams are lost,
/// doubled and overtaken, and never torn.
pub fn under_weather<S: NetworkService>(service: &mut S, extent: Extent) -> Seen {
    check(extent, &prop::collection::vec(spell(), 1..extent.steps), |spells, seen| {
        service.begin();
        let mut case = Case::new(service);
        case.connect(CLIENTS[0])?;
        for spell in &spells {
            case.endure(spell, seen)?;
        }
        Ok(())
    })
}

impl Weather {
    const fn name(self) -> &'static str {
        match self {
            Self::Fair => "fair",
            Self::Cut => "cut",
            Self::CutToGateway => "cut to the gateway",
            Self::CutToClients => "cut to the clients",
            Self::Slow => "slow",
            Self::Lossy => "lossy",
            Self::Doubling => "doubling",
            Self::Reordering => "reordering",
        }
    }
}

impl<S: NetworkService> Case<'_, S> {
    fn endure(&mut self, Spell { weather, lengths }: &Spell, seen: &mut Seen) -> Result<(), TestCaseError> {
        self.service.weather(*weather);
        seen.note(weather.name());
        for (n, &len) in lengths.iter().enumerate() {
            for client in [true, false] {
                self.send(0, client, StreamClass::ALL[n % StreamClass::ALL.len()], len);
                self.datagram(0, client, len);
            }
        }
        self.pass(SPELL, seen)?;
        self.service.weather(Weather::Fair);
        self.settle(seen)?;
        self.pass(UNDER_WAY, seen)?;
        for way in &mut self.open[0].ways {
            let datagrams = std::mem::take(&mut way.datagrams);
            seen.count("a datagram lost", datagrams.iter().filter(|sent| sent.arrived == 0).count());
            seen.count("a datagram doubled", datagrams.iter().filter(|sent| sent.arrived > 1).count());
            let arrived: Vec<usize> =
                datagrams.iter().filter(|sent| sent.arrived > 0).map(|sent| sent.behind).collect();
            seen.count("a datagram overtaken", arrived.windows(2).filter(|pair| pair[0] > pair[1]).count());
        }
        Ok(())
    }

    /// Until both sides have heard that the connection has ended because nothing was heard.
    fn await_idle(&mut self, by: worldline_system::time::Instant) -> Result<(), TestCaseError> {
        let mut left = vec![CLIENTS[0], GATEWAY];
        while !left.is_empty() {
            match self.service.next_event(by) {
                Some((node, Event::Closed { reason: CloseReason::IdleTimeout, .. })) if left.contains(&node) => {
                    left.retain(|&other| other != node);
                }
                other => return wrong(format!("{other:?} while {left:?} should notice")),
            }
        }
        Ok(())
    }
}

/// Of a law that has one case.
fn hold(law: impl FnOnce() -> Result<(), TestCaseError>) {
    if let Err(why) = law() {
        panic!("{why}\nthe smallest case:\n  the only one\n");
    }
}

/// **Idle.** A connection that hears nothing ends on both sides after the idle timeout, and not before; one that has nothing to say
/// stays open.
pub fn idle<S: NetworkService>(service: &mut S) {
    hold(|| {
        let seen = &mut Seen::default();
        service.begin();
        let mut case = Case::new(service);
        case.connect(CLIENTS[0])?;
        // Kept open by itself.
        case.pass(limits::IDLE_TIMEOUT + Duration::from_secs(1), seen)?;
        let cut = case.service.now();
        case.service.weather(Weather::Cut);
        let early = limits::IDLE_TIMEOUT - limits::KEEP_ALIVE - Duration::from_millis(500);
        case.pass(early, seen)?;
        let by = cut + limits::IDLE_TIMEOUT + limits::KEEP_ALIVE + case.service.grace() + Duration::from_secs(1);
        case.await_idle(by)?;
        case.service.weather(Weather::Fair);
        Ok(())
    });
}

/// **Idle one way.** Where packets pass one way only, who hears nothing ends it after the idle timeout and not before, and without a
/// word; the other then hears nothing either, and ends it too.
pub fn idle_one_way<S: NetworkService>(service: &mut S, weather: Weather) {
    hold(|| {
        let seen = &mut Seen::default();
        service.begin();
        let mut case = Case::new(service);
        case.connect(CLIENTS[0])?;
        let cut = case.service.now();
        case.service.weather(weather);
        let early = limits::IDLE_TIMEOUT - limits::KEEP_ALIVE - Duration::from_millis(500);
        case.pass(early, seen)?;
        let each = limits::IDLE_TIMEOUT + limits::KEEP_ALIVE;
        let by = cut + each + each + case.service.grace() + Duration::from_secs(1);
        case.await_idle(by)?;
        case.service.weather(Weather::Fair);
        Ok(())
    });
}

/// **A queue has a bound.** [`limits::STREAM_BACKLOG`] messages wait for a peer that takes nothing in, and arrive in order when it does; where more
/// and more are sent the connection ends by `Overflow`, and never before so many wait. The peer learns that it has ended.
pub fn backlog<S: NetworkService>(service: &mut S) {
    hold(|| {
        let seen = &mut Seen::default();
        service.begin();
        let mut case = Case::new(service);
        case.connect(CLIENTS[0])?;
        case.service.weather(Weather::Cut);
        for _ in 0..limits::STREAM_BACKLOG {
            case.send(0, false, StreamClass::State, EACH_BYTES);
        }
        case.pass(Duration::from_millis(100), seen)?;
        case.service.weather(Weather::Fair);
        case.settle(seen)?;
        if seen.times("received") != limits::STREAM_BACKLOG as u64 {
            return wrong(format!("{} messages of {} have arrived", seen.times("received"), limits::STREAM_BACKLOG));
        }
        case.service.weather(Weather::Cut);
        let name = case.open[0].names[1];
        for sent in 1..=ENOUGH {
            let payload = vec![sent as u8; EACH_BYTES].as_slice().into();
            let class = StreamClass::State;
            case.service.submit(GATEWAY, |_, _| Submission::Send { connection: name, class, payload });
            let now = case.service.now();
            match case.service.next_event(now) {
                None => {}
                Some((GATEWAY, Event::Closed { reason: CloseReason::Overflow, .. }))
                    if sent > limits::STREAM_BACKLOG =>
                {
                    case.service.weather(Weather::Fair);
                    return the_peer_learns(&mut case);
                }
                Some(other) => return wrong(format!("{other:?} when {sent} messages wait")),
            }
        }
        // What the last of them came to may be said a moment later.
        let by = case.service.now() + case.service.grace();
        match case.service.next_event(by) {
            Some((GATEWAY, Event::Closed { reason: CloseReason::Overflow, .. })) => {}
            other => return wrong(format!("{other:?} when {ENOUGH} messages wait")),
        }
        case.service.weather(Weather::Fair);
        the_peer_learns(&mut case)
    });
}

/// The word of an end may have been lost with everything else: then the silence says it, or a packet that finds nobody.
fn the_peer_learns<S: NetworkService>(case: &mut Case<'_, S>) -> Result<(), TestCaseError> {
    let by = case.service.now() + BACK;
    loop {
        match case.service.next_event(by) {
            // What had left before.
            Some((_, Event::Received { .. })) => {}
            Some((node, Event::Closed { reason, .. })) if node == CLIENTS[0] => {
                return match reason {
                    CloseReason::Overflow | CloseReason::Reset | CloseReason::IdleTimeout => Ok(()),
                    other => wrong(format!("the peer hears of an end by {other:?}")),
                };
            }
            other => return wrong(format!("{other:?} while the peer should learn of an end")),
        }
    }
}
