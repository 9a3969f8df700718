//! A run is a function of its world and its seed.

mod common;

use common::*;
use worldline_proto::NodeId;
use worldline_sim::{Charge, City, Config, Cost, Fault, NodeSpec, Place, Solo, World};
use worldline_system::{
    doors::network::StreamClass,
    time::{Duration, Instant},
};

/// Six puppets in six cities: three pairs with a connection each, and calls all around.
fn busy(seed: u64) -> Stage {
    stage(
        seed,
        City::ALL.into_iter().zip(0_u32..).map(|(city, n)| {
            let peer = NodeId((n + 1) % 6);
            let script = [
                (ms(10), if n % 2 == 0 { Act::Connect(peer) } else { Act::All(Vec::new()) }),
                (ms(1_000), Act::Repeat(200, ms(7), Box::new(Act::Datagram(n << 16)))),
                (ms(1_000), Act::Repeat(100, ms(13), Box::new(Act::Send(StreamClass::Action, n << 16)))),
                (ms(1_000), Act::Repeat(50, ms(31), Box::new(Act::Call(peer, ms(400))))),
            ];
            (city, Puppet::new(script))
        }),
    )
}

fn trouble(world: &mut Stage) {
    world.run_until(at_ms(1_200));
    let (from, to) = (vec![NodeId(0), NodeId(1)], vec![NodeId(1), NodeId(2)]);
    let (loss_permille, duplicate_permille, delay, jitter) = (100, 100, ms(1), ms(30));
    world.inject(Fault::Degrade { id: 1, from, to, both: true, loss_permille, duplicate_permille, delay, jitter });
    world.inject(Fault::Pause { node: NodeId(3) });
    world.run_until(at_ms(1_800));
    world.inject(Fault::Resume { node: NodeId(3) });
    world.inject(Fault::Kill { node: NodeId(5) });
    world.run_until(at_ms(2_000));
    world.inject(Fault::Restart { node: NodeId(5) });
}

#[test]
fn one_seed_has_one_hash_and_another_seed_another() {
    let run = |seed| {
        let mut world = busy(seed);
        trouble(&mut world);
        world.run_until(at_ms(20_000));
        (world.hash(), world.events())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_hash_is_the_same_in_every_build_and_on_every_machine() {
    // Written down once. It changes with the kernel and with the messages, and never with the build.
    let mut world = busy(1);
    trouble(&mut world);
    world.run_until(at_ms(20_000));
    assert_eq!((world.hash(), world.events()), (1757266416189581798, 5581));
}

#[test]
fn a_clone_runs_on_as_the_original_does_and_does_not_touch_it() {
    let mut world = busy(4);
    trouble(&mut world);
    let mut fork = world.clone();
    fork.run_until(at_ms(20_000));
    let forked = fork.hash();
    let mut other = world.clone();
    other.inject(Fault::Crash { node: NodeId(2) });
    other.run_until(at_ms(20_000));
    world.run_until(at_ms(20_000));
    assert_eq!(world.hash(), forked);
    assert_ne!(other.hash(), forked, "another fault, another future");
}

#[test]
fn taking_one_fault_out_leaves_the_draws_of_every_other_link() {
    let run = |first: bool, second: bool| {
        let mut world = busy(9);
        world.run_until(at_ms(900));
        for (id, wanted, at) in [(1, first, 0), (2, second, 2)] {
            if wanted {
                let (from, to) = (vec![NodeId(at)], vec![NodeId(at + 1)]);
                let (loss_permille, duplicate_permille, delay, jitter) = (300, 0, ms(0), ms(40));
                world.inject(Fault::Degrade {
                    id,
                    from,
                    to,
                    both: true,
                    loss_permille,
                    duplicate_permille,
                    delay,
                    jitter,
                });
            }
        }
        world.run_until(at_ms(10_000));
        world
    };
    let (both, one, none) = (run(true, true), run(false, true), run(false, false));
    let times = |world: &Stage, node: u32| -> Vec<(Instant, u32)> {
        let got = told(world, node).iter().filter_map(|(at, event)| match event {
            worldline_system::doors::Event::Network(worldline_system::doors::network::Event::Datagram {
                payload,
                ..
            }) => Some((*at, number_of(payload))),
            _ => None,
        });
        got.collect()
    };
    // 0 and 1 have lost their disturbance; 2 and 3 keep theirs, draw for draw; 4 and 5 never had one.
    assert_ne!(times(&both, 1), times(&one, 1));
    assert_ne!(times(&none, 3), times(&one, 3));
    for node in [2, 3, 4, 5] {
        assert!(times(&both, node).len() > 100);
        assert_eq!(times(&both, node), times(&one, node), "node {node}");
    }
}

#[test]
fn every_event_has_the_id_of_an_earlier_cause() {
    let mut world = busy(2);
    world.tracing = true;
    let (mut last, mut described) = (0, 0);
    while let Some(step) = world.step_within(at_ms(3_000)) {
        assert_eq!(step.id.0, last + 1);
        assert!(step.cause < step.id);
        described += u32::from(!step.text.is_empty());
        last = step.id.0;
    }
    assert_eq!(u64::from(described), last, "and says what it is");
}

#[test]
fn a_busy_node_takes_its_time_and_a_slow_one_more_of_it() {
    let run = |permille| {
        let message = Charge { event: Duration::from_micros(100), ..Charge::default() };
        let cost = Some(Cost { message, ..Cost::default() });
        let mut world: Stage = World::new(Config { seed: 1, ..Config::default() });
        let script = [(ms(0), Act::Connect(NodeId(1))), (ms(1_000), Act::All((0..100).map(Act::Datagram).collect()))];
        for puppet in [Puppet::new(script), Puppet::silent()] {
            let spec = NodeSpec { cost, ..NodeSpec::new("puppet", Place::zone(City::Oregon, 0)) };
            let node = world.add_node(spec, Solo(puppet));
            world.start(node);
        }
        world.inject(Fault::Slow { node: NodeId(1), permille });
        world.run_until(at_ms(5_000));
        assert_eq!(datagrams(&world, 1).len(), 100);
        let all = told(&world, 1);
        all[all.len() - 1].0.since(all[all.len() - 100].0)
    };
    let normal = run(1_000);
    assert!((9_900..10_100).contains(&normal.as_micros()), "99 events of 100 µs: {normal}");
    let slow = run(3_000);
    assert!((29_700..29_900).contains(&slow.as_micros()), "three times slower: {slow}");
}
