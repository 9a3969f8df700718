//! Through the door: two processes on the network in one, each with a thread that plays its role.

use super::{Certificates, LOST, MESSAGE_BYTES, Round, Stopwatch};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::runtime::Runtime;
use worldline_proto::{
    ConnectionId, Incarnation, NodeId, OpId,
    server::{AttachReply, AttachRequest, Reply, Request},
};
use worldline_real::{
    Inbox, Taker, clock,
    network::{Config, Network, Part, tls::Identity},
    ready::Readiness,
};
use worldline_system::{
    Outcome,
    doors::{
        Event,
        network::{self, Call, Payload, StreamClass, Submission},
    },
};

const PATIENCE: Duration = Duration::from_secs(5);
pub struct Pair {
    network: Network,
    taker: RefCell<Taker>,
    /// A client's connection, for bytes.
    player: Network,
    player_taker: RefCell<Taker>,
    connection: ConnectionId,
    operations: Cell<u64>,
}

impl Pair {
    pub fn new(runtime: &Runtime, certificates: &Certificates) -> Self {
        let bind = |node: u32, part, peers: &[(u32, SocketAddr)]| {
            let file = |extension| certificates.file(&format!("n{node}.{extension}"));
            let identity = match part {
                Part::Client => Identity::stranger(&certificates.file("ca.pem")),
                _ => Identity::load(&certificates.file("ca.pem"), &file("pem"), &file("key")),
            };
            let config = Config {
                node: NodeId(node),
                part,
                listen: "127.0.0.1:0".parse().expect("an address"),
                peers: peers.iter().map(|&(node, address)| (NodeId(node), address)).collect::<BTreeMap<_, _>>(),
                identity: identity.expect("just issued"),
                // One connection stands for all players here.
                client_frames_per_second: u32::MAX,
            };
            let inbox = Inbox::default();
            let network = runtime.block_on(Network::bind(config, inbox.clone(), Readiness::default()));
            (network.expect("a free port"), inbox)
        };
        let (server, server_inbox) = bind(1, Part::Gateway, &[]);
        let (network, inbox) = bind(2, Part::Gateway, &[(1, server.address())]);
        let (player, player_inbox) = bind(3, Part::Client, &[(1, server.address())]);
        let server = Arc::new(server);
        thread::spawn(move || echo(&server, Taker::new(server_inbox)));
        let op = OpId { incarnation: Incarnation(1), counter: 1 };
        player.submit(Submission::Connect { op, to: NodeId(1) });
        let opened = player_inbox.next_event(PATIENCE);
        let Some(Event::Network(network::Event::Opened { connection, .. })) = opened else { panic!("{opened:?}") };
        let (taker, player_taker) = (RefCell::new(Taker::new(inbox)), RefCell::new(Taker::new(player_inbox)));
        Self { network, taker, player, player_taker, connection, operations: Cell::new(0) }
    }

    fn call(&self) {
        self.operations.set(self.operations.get() + 1);
        let op = OpId { incarnation: Incarnation(1), counter: self.operations.get() };
        let deadline = clock::now() + worldline_system::time::Duration::from_secs(5);
        let request = Request::Attach(AttachRequest { character: 7, generation: 1, inputs_through: 9 });
        self.network.submit(Submission::Call(Box::new(Call { op, deadline, to: NodeId(1), request })));
    }

    pub fn calls(&self, depth: usize) -> Round {
        let mut taker = self.taker.borrow_mut();
        let mut watch = Stopwatch::start();
        for _ in 0..depth {
            watch.sent();
            self.call();
        }
        while watch.waiting() {
            match taker.next_event(PATIENCE) {
                Some(Event::Network(network::Event::Answered { outcome, .. })) => {
                    assert!(matches!(*outcome, Outcome::Done(_)), "{outcome:?}");
                }
                other => panic!("{other:?}"),
            }
            if watch.back() {
                watch.sent();
                self.call();
            }
        }
        watch.stop()
    }

    pub fn messages(&self, depth: usize) -> Round {
        let mut taker = self.player_taker.borrow_mut();
        let payload = Payload::from(&[7; MESSAGE_BYTES][..]);
        let (connection, class) = (self.connection, StreamClass::Action);
        let send = || self.player.submit(Submission::Send { connection, class, payload: payload.clone() });
        let mut watch = Stopwatch::start();
        for _ in 0..depth {
            watch.sent();
            send();
        }
        while watch.waiting() {
            let event = taker.next_event(PATIENCE);
            match event {
                Some(Event::Network(network::Event::Received { .. })) => {}
                // One that counted as lost in an earlier round.
                Some(Event::Network(network::Event::Datagram { .. })) => continue,
                other => panic!("{other:?}"),
            }
            if watch.back() {
                watch.sent();
                send();
            }
        }
        watch.stop()
    }

    pub fn datagrams(&self, depth: usize) -> Round {
        let (mut taker, connection) = (self.player_taker.borrow_mut(), self.connection);
        let send = |watch: &mut Stopwatch| {
            let payload = Payload::from(&watch.datagram()[..]);
            self.player.submit(Submission::Datagram { connection, payload });
        };
        let mut watch = Stopwatch::start();
        let mut more = true;
        while more {
            (0..depth).for_each(|_| send(&mut watch));
            while watch.waiting() {
                match taker.next_event(LOST) {
                    Some(Event::Network(network::Event::Datagram { payload, .. })) => {
                        if !payload.as_bytes().is_some_and(|bytes| watch.is_ours(bytes)) {
                            continue;
                        }
                        more = watch.back();
                    }
                    Some(other) => panic!("{other:?}"),
                    None => more = watch.lost(),
                }
                if more && watch.waiting() {
                    send(&mut watch);
                }
            }
        }
        watch.stop()
    }
}

/// A role that says everything back.
fn echo(network: &Network, mut taker: Taker) {
    loop {
        let Some(Event::Network(event)) = taker.next_event(PATIENCE) else { continue };
        let submission = match event {
            network::Event::Called { call, .. } => {
                let reply = Reply::Attach(AttachReply { epoch: 4, applied_through: 9, ..AttachReply::default() });
                Submission::Reply { call, outcome: Box::new(Outcome::Done(reply)) }
            }
            network::Event::Received { connection, class, payload } => Submission::Send { connection, class, payload },
            network::Event::Datagram { connection, payload } => Submission::Datagram { connection, payload },
            _ => continue,
        };
        network.submit(submission);
    }
}
