//! What a worker tells the cache of its players, and when it has had enough of one.

use super::*;
use worldline_proto::server::Detached;
use worldline_system::{
    doors::{
        cache::{CounterKey, Key as Entry, Submission as ToCache, Violation},
        network::StreamClass,
    },
    time::Duration,
};

/// Bad seconds in a row that are forgiven.
const FORGIVEN: usize = 7;

/// A player is at its gateway.
fn attached() -> Bench<Worker> {
    let mut bench = worker();
    bench.serve(&[character().entity()]);
    attach(&mut bench);
    bench
}

fn attach(bench: &mut Bench<Worker>) {
    let character = character().entity().get();
    bench.call(1, Request::Attach(AttachRequest { character, generation: 1, inputs_through: 0 }));
}

/// A player that sends inputs, numbered on.
struct Player(u32);

impl Player {
    /// So many inputs to one place, and the end of the second; what the cache is asked then.
    fn second(&mut self, bench: &mut Bench<Worker>, inputs: u32, x_mm: i64) -> Vec<(OpId, ToCache)> {
        for _ in 0..inputs {
            self.0 += 1;
            let character = character().entity().get();
            let moved = Moved { character, generation: 1, sequence: self.0, x_mm, y_mm: 0 };
            let payload = PeerMessage { message: Some(Message::Moved(moved)) }.into();
            bench.network(FromNetwork::Datagram { connection: LINK, payload });
        }
        bench.now = bench.now + Duration::from_secs(1);
        bench.keep_lease();
        bench.timer(TICK);
        bench.asked_cache()
    }

    /// Jumps for so many seconds; the counters that are raised in the last of them.
    fn jumps(&mut self, bench: &mut Bench<Worker>, seconds: usize) -> Vec<(OpId, CounterKey)> {
        let told = (0..seconds).map(|_| counted(self.second(bench, 20, 9_000_000)));
        told.last().unwrap_or_default()
    }
}

impl Bench<Worker> {
    /// Its lease is renewed, so that it goes on acting.
    fn keep_lease(&mut self) {
        self.timer(LEASE);
        let renewal = self.asked_directory().into_iter().find(|(_, s)| matches!(s, ToDirectory::KeepAlive(_)));
        if let Some((renewal, _)) = renewal {
            self.directory(renewal, Told::KeptAlive(Outcome::Done(LeaseTimes::default().ttl)));
        }
    }
}

/// The counters that are raised, each by one.
fn counted(asked: Vec<(OpId, ToCache)>) -> Vec<(OpId, CounterKey)> {
    let increment = |(op, asked)| match asked {
        ToCache::Increment { key, by } if by.get() == 1 => Some((op, key)),
        _ => None,
    };
    asked.into_iter().filter_map(increment).collect()
}

#[test]
fn who_goes_on_breaking_the_rules_of_movement_is_counted_once_a_second_and_a_crowd_of_late_inputs_is_not() {
    let (mut bench, mut player) = (attached(), Player(0));
    assert_eq!(player.jumps(&mut bench, FORGIVEN), [], "late packets, a takeover, a correction that is lost");
    let told = player.jumps(&mut bench, 1);
    let key = CounterKey { character: character(), violation: Violation::Teleport };
    assert_eq!(told.iter().map(|(_, key)| *key).collect::<Vec<_>>(), [key]);
    assert_eq!(counted(player.second(&mut bench, 500, 9_000_000)).len(), 1, "one write, whatever it sends");
    bench.cache(told[0].0, Said::Counted(Outcome::Unknown));
    assert_eq!(counted(player.second(&mut bench, 9, 9_000_000)), [], "a good second, and nothing is repeated");
    assert_eq!(player.jumps(&mut bench, FORGIVEN), [], "it begins anew");
    assert_eq!(player.jumps(&mut bench, 1).len(), 1);
}

#[test]
fn a_walk_that_is_too_fast_is_another_violation_than_a_jump() {
    let (mut bench, mut player) = (attached(), Player(0));
    let start = bench.role.served().next().expect("it serves").position().x_mm;
    let (mut at, mut told) = (start, Vec::new());
    for _ in 0..=FORGIVEN {
        // 28 m in a second, in steps of 700 mm: the rules refuse more of them than not.
        for _ in 0..40 {
            at += 700;
            bench.now = bench.now + Duration::from_millis(25);
            player.0 += 1;
            let (character, x_mm) = (character().entity().get(), at);
            let moved = Moved { character, generation: 1, sequence: player.0, x_mm, y_mm: 0 };
            let payload = PeerMessage { message: Some(Message::Moved(moved)) }.into();
            bench.network(FromNetwork::Datagram { connection: LINK, payload });
            at = bench.role.served().next().expect("it serves").position().x_mm;
        }
        told = counted(player.second(&mut bench, 0, 0));
    }
    assert!(matches!(told[..], [(_, CounterKey { violation: Violation::Speed, .. })]), "{told:?}");
}

#[test]
fn who_stands_at_the_limit_is_released_with_the_reason_and_whoever_comes_instead_is_not() {
    let (mut bench, mut player) = (attached(), Player(0));
    let told = player.jumps(&mut bench, FORGIVEN + 1);
    bench.cache(told[0].0, Said::Counted(Outcome::Done(limits::VIOLATIONS_MAX - 1)));
    assert!(bench.told_gateway().is_empty());
    let told = player.jumps(&mut bench, 1);
    bench.cache(told[0].0, Said::Counted(Outcome::Done(limits::VIOLATIONS_MAX)));
    let [Message::Released(released)] = &bench.told_gateway()[..] else { panic!("{:?}", bench.outbox) };
    assert_eq!((released.generation, released.reason), (1, ReleasedReason::Misbehaved.into()));
    let left = Entry::Presence { region: RegionId(0), member: character() };
    assert!(matches!(bench.asked_cache()[..], [(_, ToCache::Delete(entry))] if entry == left), "{:?}", bench.outbox);

    // It comes again: its counter stands, and its next counted second ends it; but not a session that has only just begun.
    attach(&mut bench);
    let told = player.jumps(&mut bench, 1);
    let session = AttachRequest { character: character().entity().get(), generation: 2, inputs_through: 0 };
    bench.call(2, Request::Attach(session));
    bench.cache(told[0].0, Said::Counted(Outcome::Done(limits::VIOLATIONS_MAX + 1)));
    assert!(bench.told_gateway().is_empty());
}

#[test]
fn who_plays_here_is_placed_now_and_then_and_who_leaves_is_taken_away() {
    let (mut bench, mut player) = (attached(), Player(0));
    let placed = |asked: &(OpId, ToCache)| match asked.1 {
        ToCache::Place { region: RegionId(0), member, .. } => member == character(),
        _ => false,
    };
    let mut seconds = |bench: &mut Bench<Worker>, many: usize| -> usize {
        (0..many).map(|_| player.second(bench, 0, 0).iter().filter(|asked| placed(asked)).count()).sum()
    };
    assert_eq!(seconds(&mut bench, 10), 1, "at once, and then once in ten seconds");
    assert_eq!(seconds(&mut bench, 10), 1);
    let detach = |bench: &mut Bench<Worker>, generation| {
        let message = Some(Message::Detached(Detached { character: character().entity().get(), generation }));
        let payload = PeerMessage { message }.into();
        bench.network(FromNetwork::Received { connection: LINK, class: StreamClass::Control, payload });
    };
    detach(&mut bench, 0);
    assert!(bench.asked_cache().is_empty(), "an earlier session has left, and this one stays");
    detach(&mut bench, 1);
    let left = Entry::Presence { region: RegionId(0), member: character() };
    assert!(matches!(bench.asked_cache()[..], [(_, ToCache::Delete(entry))] if entry == left), "{:?}", bench.outbox);
    assert_eq!(seconds(&mut bench, 11), 0, "nobody is here");
    attach(&mut bench);
    assert_eq!(seconds(&mut bench, 1), 1, "who comes is placed at once");
}
