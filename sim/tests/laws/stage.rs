//! A small world: a service's members, and callers that a law speaks through.

use worldline_laws::{Fault as Befalls, service::CALLERS};
use worldline_proto::{NodeId, OpId};
use worldline_sim::{City, Config, Fault, NodeSpec, Place, Solo, World};
use worldline_system::{
    Role, Turn, doors,
    time::{Duration, Instant},
};

/// The number of the cut between callers and members.
const CUT: u32 = 1;

/// A role that keeps what it is told.
#[derive(Clone, Debug, Default)]
pub struct Ear {
    heard: Vec<doors::Event>,
}

impl Role for Ear {
    type Event = doors::Event;
    type Submission = doors::Submission;

    fn on_event(&mut self, event: doors::Event, _: &mut Turn<'_, doors::Submission>) {
        self.heard.push(event);
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

/// The world of one case.
pub struct Stage {
    pub world: World<Solo<Ear>>,
    pub members: Vec<NodeId>,
    pub callers: Vec<NodeId>,
    /// So much of what each caller was told has been looked at.
    read: Vec<usize>,
    killed: Vec<NodeId>,
}

impl Stage {
    /// A world with so many members; `services` is told of members and callers.
    pub fn new(seed: u64, members: u8, services: impl FnOnce(&mut World<Solo<Ear>>, Vec<NodeId>, Vec<NodeId>)) -> Self {
        let mut world = World::new(Config { seed, ..Config::default() });
        let spec = |name: String, zone| NodeSpec::new(name, Place::zone(City::Frankfurt, zone));
        let members: Vec<NodeId> = (0..members)
            .map(|n| world.add_member(spec(format!("member-{n}"), u16::from(n).try_into().unwrap())))
            .collect();
        let callers: Vec<NodeId> =
            (0..CALLERS + 1).map(|n| world.add_node(spec(format!("caller-{n}"), 0), Solo(Ear::default()))).collect();
        services(&mut world, members.clone(), callers.clone());
        callers.iter().for_each(|&caller| world.start(caller));
        let mut stage = Self { world, members, callers, read: vec![0; CALLERS + 1], killed: vec![] };
        while let Some((_, event)) = stage.next_event(stage.now()) {
            assert_eq!(event, doors::Event::Started);
        }
        stage
    }

    /// Virtual time: the callers' own clocks began at other moments, and run as it does.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    pub fn submit(&mut self, caller: usize, what: impl FnOnce(OpId, Instant) -> doors::Submission) -> OpId {
        self.world.submit_as(self.callers[caller], what)
    }

    pub fn next_event(&mut self, by: Instant) -> Option<(usize, doors::Event)> {
        loop {
            for (caller, &node) in self.callers.iter().enumerate() {
                let heard = self.world.actor(node).and_then(|ear| ear.0.heard.get(self.read[caller]));
                if let Some(event) = heard {
                    self.read[caller] += 1;
                    return Some((caller, event.clone()));
                }
            }
            if self.world.step_within(by).is_none() {
                self.world.run_until(by);
                return None;
            }
        }
    }

    /// What befalls who leads, where that is known: its process alone.
    pub fn befall_leader(&mut self, fault: Befalls, leader: Option<NodeId>) -> bool {
        match (fault, leader) {
            (Befalls::Heal, _) => self.befall_those(fault, vec![], None),
            (Befalls::Kill | Befalls::Stop, Some(leader)) => self.befall_those(fault, vec![leader], None),
            _ => false,
        }
    }

    /// What befalls members and links. `lose` loses the answers of the service, where its model can.
    pub fn befall(&mut self, fault: Befalls, lose: Option<Fault>) -> bool {
        self.befall_those(fault, self.members.clone(), lose)
    }

    fn befall_those(&mut self, fault: Befalls, members: Vec<NodeId>, lose: Option<Fault>) -> bool {
        let callers = self.callers.clone();
        match fault {
            Befalls::Kill => {
                members.iter().for_each(|&node| drop(self.world.inject(Fault::Kill { node })));
                self.killed = members;
            }
            Befalls::Stop => members.iter().for_each(|&node| drop(self.world.inject(Fault::Pause { node }))),
            Befalls::Cut => drop(self.world.inject(Fault::Cut { id: CUT, from: callers, to: members, both: true })),
            Befalls::LoseRequests => {
                self.world.inject(Fault::Cut { id: CUT, from: callers, to: members, both: false });
            }
            Befalls::HalfClose => {
                self.world.inject(Fault::Cut { id: CUT, from: members, to: callers, both: false });
            }
            Befalls::Slow => {
                let (delay, jitter) = (Duration::from_millis(60), Duration::from_millis(60));
                let (loss_permille, duplicate_permille) = (0, 0);
                self.world.inject(Fault::Degrade {
                    id: CUT,
                    from: callers,
                    to: members,
                    both: true,
                    loss_permille,
                    duplicate_permille,
                    delay,
                    jitter,
                });
            }
            Befalls::LoseAnswers => match lose {
                Some(fault) => drop(self.world.inject(fault)),
                None => return false,
            },
            Befalls::Heal => {
                self.world.inject(Fault::Heal);
                for node in std::mem::take(&mut self.killed) {
                    self.world.inject(Fault::Restart { node });
                }
            }
        }
        true
    }
}
