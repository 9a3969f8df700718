//! The simulated directory, as a process that listens to others: what is asked goes into its world, what is answered comes out,
//! and its time is the simulation's.
//!
//! It is asked as one node. What the directory has agreed on outlives its host, as etcd's disk does.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
use tokio::{sync::mpsc, time::sleep};
use worldline_proto::{NodeId, OpId};
use worldline_real::clock;
use worldline_sim::{City, Config, Fault, NodeSpec, Place, Solo, World, directory as model};
use worldline_system::{
    Outcome, Role, Turn,
    doors::{
        self, Asked,
        directory::{Answer, Event, Submission},
    },
    time::{Duration, Instant},
};

/// The members that agree.
const MEMBERS: u16 = 3;
/// How long a request may take: etcd's own bound on what it proposes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The shortest pause between two looks at what has become due: a timer of the runtime is no finer.
const LOOK: Duration = Duration::from_millis(1);

/// A question, and where its answer and all news of it go.
pub struct Ask {
    /// The question.
    pub submission: Submission,
    /// Where its answer goes, and all news of it.
    pub told: mpsc::UnboundedSender<Event>,
}

/// Where questions go.
pub type Asks = mpsc::UnboundedSender<Ask>;

/// The directory, shared by its lives.
pub type Shared = Rc<RefCell<Kernel>>;

/// Keeps what it is told.
#[derive(Clone, Debug, Default)]
struct Ear(Vec<doors::Event>);

impl Role for Ear {
    type Event = doors::Event;
    type Submission = doors::Submission;

    fn on_event(&mut self, event: doors::Event, _: &mut Turn<'_, doors::Submission>) {
        self.0.push(event);
    }

    fn queues(&self, _: &mut dyn FnMut(&'static str, usize, usize)) {}
}

/// The directory.
pub struct Kernel {
    world: World<Solo<Ear>>,
    members: Vec<NodeId>,
    /// Who asks.
    front: NodeId,
    /// So much of what it was told is passed on.
    read: usize,
    waiting: BTreeMap<OpId, mpsc::UnboundedSender<Event>>,
}

impl Kernel {
    /// A directory that begins.
    #[must_use]
    pub fn new(seed: u64) -> Shared {
        let mut world = World::new(Config { seed, ..Config::default() });
        let spec = |name: String, zone| NodeSpec::new(name, Place::zone(City::Frankfurt, zone));
        let member = |n: u16| spec(format!("member-{n}"), n.try_into().expect("few members"));
        let members: Vec<NodeId> = (0..MEMBERS).map(|n| world.add_member(member(n))).collect();
        let front = world.add_node(spec("front".to_owned(), 0), Solo(Ear::default()));
        world.set_directory(model::Config { members: members.clone() });
        world.start(front);
        Rc::new(RefCell::new(Self { world, members, front, read: 0, waiting: BTreeMap::new() }))
    }

    /// Something befalls the directory itself.
    pub fn inject(&mut self, now: Instant, fault: model::Fault) {
        self.run_until(now);
        self.world.inject(Fault::Directory(fault));
    }

    /// All members die.
    pub fn kill(&mut self, now: Instant) {
        self.run_until(now);
        for node in self.members.clone() {
            self.world.inject(Fault::Kill { node });
        }
    }

    /// They start again.
    pub fn restart(&mut self, now: Instant) {
        self.run_until(now);
        for node in self.members.clone() {
            self.world.inject(Fault::Restart { node });
        }
    }

    /// Nobody who asked before hears anything any more.
    fn forget(&mut self) {
        for watch in std::mem::take(&mut self.waiting).into_keys() {
            self.submit(Submission::Unwatch(watch));
        }
    }

    fn submit(&mut self, submission: Submission) -> OpId {
        self.world.submit_as(self.front, |op, now| {
            doors::Submission::Directory(Asked { op, deadline: now + PATIENCE, submission })
        })
    }

    fn take(&mut self, Ask { submission, told }: Ask) {
        let op = self.submit(submission);
        self.waiting.insert(op, told);
    }

    /// Lets the directory's time pass, and tells what has come of it. When something is next to come.
    fn run_until(&mut self, now: Instant) -> Option<Instant> {
        if now > self.world.now() {
            self.world.run_until(now);
        }
        let heard = self.world.actor(self.front).map_or(&[][..], |ear| &ear.0.0[self.read..]).to_vec();
        self.read += heard.len();
        for event in heard {
            if let doors::Event::Directory(event) = event {
                self.tell(event);
            }
        }
        self.world.next_at()
    }

    fn tell(&mut self, event: Event) {
        let (op, over) = match &event {
            Event::Answered { op, answer } => (*op, !matches!(**answer, Answer::Watching(Outcome::Done(())))),
            Event::Changed { watch, .. } => (*watch, false),
            Event::Gap { watch, .. } => (*watch, true),
        };
        let Some(told) = self.waiting.get(&op) else { return };
        if told.send(event).is_err() && !over {
            // Who watched has gone away.
            self.submit(Submission::Unwatch(op));
            self.waiting.remove(&op);
        } else if over {
            self.waiting.remove(&op);
        }
    }
}

/// One life of the directory's process.
pub async fn serve(kernel: Shared, mut asks: mpsc::UnboundedReceiver<Ask>, now: impl Fn() -> Instant) {
    kernel.borrow_mut().forget();
    loop {
        let next = kernel.borrow_mut().run_until(now());
        let pause = next.map_or(LOOK, |at| at.since(now()).max(LOOK));
        tokio::select! {
            biased;
            ask = asks.recv() => match ask {
                Some(ask) => kernel.borrow_mut().take(ask),
                None => return,
            },
            () = sleep(clock::span(pause)) => {}
        }
    }
}
