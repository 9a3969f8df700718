//! What can be done to a node: crashes, pauses, held outboxes, clocks.

mod common;

use common::*;
use worldline_proto::NodeId;
use worldline_sim::{City, ClockFault, Fault, NodeState, Which};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        self,
        clock::TimerKey,
        network::{CloseReason, StreamClass},
    },
    history::What,
    time::Duration,
};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

fn pair(script: impl IntoIterator<Item = (Duration, Act)>) -> Stage {
    let script: Vec<_> = [(ms(0), Act::Connect(B))].into_iter().chain(script).collect();
    stage(3, [(City::Singapore, Puppet::new(script)), (City::Tokyo, Puppet::silent())])
}

fn repeat(times: u32, every: Duration, act: Act) -> Act {
    Act::Repeat(times, every, Box::new(act))
}

/// Sends five messages in one event.
fn burst() -> Act {
    Act::All((0..5).map(|n| Act::Send(StreamClass::Action, n)).collect())
}

/// When the timer of this number fired, by the node's clock and counted from its start.
fn fired(world: &Stage, node: u32, number: u64) -> Vec<Duration> {
    let begin = told(world, node)[0].0;
    let key = doors::Event::Timer(TimerKey::new(3, number));
    told(world, node).iter().filter(|(_, event)| *event == key).map(|(at, _)| at.since(begin)).collect()
}

#[test]
fn a_crash_between_two_submissions_keeps_a_prefix_of_the_outbox() {
    for n in 0..5 {
        let mut world = pair([(ms(1_000), burst())]);
        world.run_until(at_ms(900));
        world.inject(Fault::CrashAfterSubmissions { node: A, which: Which::Any, n });
        world.run_until(at_ms(1_500));
        assert_eq!(world.core().state(A), NodeState::Down);
        assert_eq!(received(&world, 1, StreamClass::Action), (0..n).collect::<Vec<_>>());
    }
}

#[test]
fn a_crash_waits_for_as_many_submissions_as_it_was_told() {
    let mut world = pair([(ms(1_000), repeat(10, ms(10), Act::Send(StreamClass::Action, 0)))]);
    world.run_until(at_ms(900));
    world.inject(Fault::CrashAfterSubmissions { node: A, which: Which::Any, n: 7 });
    world.run_until(at_ms(2_000));
    assert_eq!(received(&world, 1, StreamClass::Action), (0..7).collect::<Vec<_>>());
}

#[test]
fn a_held_outbox_leaves_as_it_was_when_the_node_is_resumed() {
    let script = [(ms(1_000), burst()), (ms(1_010), Act::Send(StreamClass::Action, 5))];
    let mut world = pair(script);
    world.run_until(at_ms(900));
    world.inject(Fault::HoldOutbox { node: A, which: Which::Any });
    world.run_until(at_ms(4_000));
    assert_eq!(world.core().state(A), NodeState::Paused);
    assert_eq!(received(&world, 1, StreamClass::Action), [0; 0], "nothing has left");
    world.inject(Fault::Resume { node: A });
    world.run_until(at_ms(5_000));
    assert_eq!(received(&world, 1, StreamClass::Action), [0, 1, 2, 3, 4, 5], "and first what was held");
}

#[test]
fn a_held_call_whose_deadline_has_passed_does_not_leave() {
    let mut world = pair([(ms(100), Act::Call(B, ms(2_000))), (ms(1_000), Act::Call(B, ms(500)))]);
    world.run_until(at_ms(900));
    world.inject(Fault::HoldOutbox { node: A, which: Which::Any });
    world.run_until(at_ms(3_000));
    let called = |world: &Stage| {
        let called = |event: &&doors::network::Event| matches!(event, doors::network::Event::Called { .. });
        heard(world, 1).iter().filter(called).count()
    };
    assert_eq!(called(&world), 1);
    world.inject(Fault::Resume { node: A });
    world.run_until(at_ms(5_000));
    // The deadline passed while the process was stopped, and it had not left by then.
    assert_eq!(outcomes(&world, 0).len(), 2);
    assert!(matches!(outcomes(&world, 0)[0], Outcome::Done(_)));
    assert_eq!(outcomes(&world, 0)[1], Outcome::Refused(Refusal::Unreachable));
    assert_eq!(called(&world), 1);
}

#[test]
fn what_arrives_at_a_paused_node_waits_and_comes_in_order() {
    let mut world = pair([(ms(1_000), repeat(20, ms(10), Act::Send(StreamClass::Action, 0)))]);
    world.run_until(at_ms(900));
    world.inject(Fault::Pause { node: B });
    world.run_until(at_ms(5_000));
    assert_eq!(received(&world, 1, StreamClass::Action), [0; 0]);
    world.inject(Fault::Resume { node: B });
    world.run_until(at_ms(5_001));
    assert_eq!(received(&world, 1, StreamClass::Action), (0..20).collect::<Vec<_>>());
    let (first, _) = *told(&world, 1).iter().rev().nth(19).map(|(at, event)| (at, event)).as_ref().expect("twenty");
    assert!(first.since(told(&world, 1)[0].0) >= ms(5_000), "it reads the clock when it goes on");
}

#[test]
fn a_node_paused_for_longer_than_the_idle_timeout_finds_its_connections_gone() {
    let mut world = pair([]);
    world.run_until(at_ms(1_000));
    world.inject(Fault::Pause { node: A });
    world.run_until(at_ms(20_000));
    assert_eq!(closed(&world, 1)[0].1, CloseReason::IdleTimeout);
    world.inject(Fault::Resume { node: A });
    world.run_until(at_ms(35_000));
    assert_eq!(closed(&world, 0).len(), 1);
}

#[test]
fn a_timer_goes_by_its_own_clock() {
    let arm = || [(ms(1_000), Act::Arm(1, Duration::from_secs(10)))];
    let clock = |fault| Fault::Clock { node: A, fault };
    let ten = Duration::from_secs(10) + ms(1_000);

    // Twice slower: ten seconds of its own take twenty.
    let mut world = pair(arm());
    world.run_until(at_ms(1_500));
    world.inject(clock(ClockFault::Drift { ppm: -500_000 }));
    world.run_until(at_ms(20_000));
    assert_eq!(fired(&world, 0, 1), []);
    world.run_until(at_ms(20_600));
    assert_eq!(fired(&world, 0, 1).len(), 1);
    assert!(fired(&world, 0, 1)[0] >= ten, "never before its time");

    // A machine that was suspended for a minute: the timer is due at once.
    let mut world = pair(arm());
    world.run_until(at_ms(2_000));
    world.inject(clock(ClockFault::StepForward(Duration::from_secs(60))));
    world.run_until(at_ms(2_001));
    assert_eq!(fired(&world, 0, 1).len(), 1);

    // Frozen for a minute, it comes a minute late.
    let mut world = pair(arm());
    world.run_until(at_ms(2_000));
    world.inject(clock(ClockFault::Freeze));
    world.run_until(at_ms(62_000));
    assert_eq!(fired(&world, 0, 1), []);
    world.inject(clock(ClockFault::Unfreeze));
    world.run_until(at_ms(70_900));
    assert_eq!(fired(&world, 0, 1), []);
    world.run_until(at_ms(71_100));
    assert_eq!(fired(&world, 0, 1), [ten]);

    // The wall clock says nothing to a timer.
    let mut world = pair(arm());
    world.run_until(at_ms(2_000));
    world.inject(clock(ClockFault::StepWall { by_ns: 3_600_000_000_000 }));
    world.run_until(at_ms(12_000));
    assert_eq!(fired(&world, 0, 1), [ten]);
}

#[test]
fn arming_again_replaces_and_a_dead_incarnation_has_no_timers() {
    let mut world = pair([
        (ms(100), Act::Arm(1, ms(1_000))),
        (ms(200), Act::Arm(1, ms(5_000))),
        (ms(300), Act::Arm(2, ms(5_000))),
        (ms(400), Act::Arm(2, ms(1_000))),
    ]);
    world.run_until(at_ms(10_000));
    assert_eq!(fired(&world, 0, 1), [ms(5_200)]);
    assert_eq!(fired(&world, 0, 2), [ms(1_400)]);

    let mut world = pair([(ms(100), Act::Arm(1, ms(5_000)))]);
    world.run_until(at_ms(3_000));
    world.inject(Fault::Restart { node: A });
    world.run_until(at_ms(20_000));
    assert_eq!(fired(&world, 0, 1), [ms(5_100)], "only that of its second life, which begins at the restart");
}

#[test]
fn an_incarnation_begins_from_the_birth_state_and_answers_die_with_the_one_before() {
    let mut slow = Puppet::silent();
    slow.answers_in = Some(ms(500));
    let script = [(ms(100), Act::Call(B, ms(2_000))), (ms(1_000), Act::Call(B, ms(2_000)))];
    let mut world = stage(3, [(City::Singapore, Puppet::new(script)), (City::Tokyo, slow)]);
    world.run_until(at_ms(1_300));
    let before = world.core().incarnation(A);
    world.inject(Fault::Crash { node: A });
    world.inject(Fault::Restart { node: A });
    world.run_until(at_ms(1_390));
    assert_eq!(told(&world, 0).len(), 1, "it has been told of its start and of nothing else");
    assert!(world.core().incarnation(A) > before);
    let mut history = Vec::new();
    world.drain_history(&mut history);
    let lives: Vec<_> = history.iter().filter(|e| e.node == A).map(|e| (e.incarnation.0, e.what.clone())).collect();
    assert_eq!(lives[0], (1, What::Started));
    assert!(lives.contains(&(1, What::Crashed)));
    assert_eq!(lives[lives.len() - 1], (2, What::Started));
}

#[test]
fn healing_takes_faults_away_and_leaves_the_dead() {
    let mut world = stage(3, (0..3).map(|_| (City::Sydney, Puppet::silent())));
    world.inject(Fault::Pause { node: A });
    world.inject(Fault::Crash { node: B });
    world.inject(Fault::Clock { node: A, fault: ClockFault::Freeze });
    world.inject(Fault::Cut { id: 1, from: vec![A], to: vec![NodeId(2)], both: true });
    assert!(!world.core().linked(A, NodeId(2)));
    world.inject(Fault::Heal);
    assert!(world.core().is_running(A));
    assert!(!world.core().is_up(B));
    assert!(world.core().linked(A, NodeId(2)));
    let frozen_at = world.core().local(A);
    world.run_until(at_ms(1_000));
    assert_eq!(world.core().local(A), frozen_at + ms(1_000), "its clock runs");
}

#[test]
fn nothing_waits_for_ever_in_a_world_left_alone() {
    let mut world = pair([(ms(500), repeat(50, ms(20), Act::Call(B, ms(300))))]);
    world.run_until(at_ms(900));
    world.inject(Fault::Cut { id: 1, from: vec![A], to: vec![B], both: false });
    world.run_until(at_ms(1_200));
    world.inject(Fault::Kill { node: B });
    world.inject(Fault::Heal);
    world.run_until(at_ms(60_000));
    assert_eq!(world.leaks(), []);
}
