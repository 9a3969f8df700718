//! A process on the network as a test plays it, and the authority of its world.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use worldline_proto::{
    ConnectionId, Incarnation, NodeId, OpId,
    server::{AttachReply, AttachRequest, PerformRequest, Reply, Request},
};
use worldline_real::{
    Inbox, clock,
    network::{
        BindError, CLIENT_FRAMES_PER_SECOND, Config, Network, Part,
        tls::{Authority, Holder, Identity},
    },
    ready::Readiness,
};
use worldline_system::{
    Outcome,
    doors::{
        Event as Any,
        network::{Call, CloseReason, Event, Payload, StreamClass, Submission},
    },
};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An authority and the files of those it vouches for, in a folder of their own.
pub struct World {
    authority: Authority,
    folder: PathBuf,
}

impl World {
    pub fn new() -> Self {
        static WORLDS: AtomicU32 = AtomicU32::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("worldline-network-{}-{number}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        let authority = Authority::create().expect("entropy");
        authority.save(&folder).expect("writes");
        Self { authority, folder }
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate, issued once, and its key.
    pub fn files(&self, holder: &Holder) -> (PathBuf, PathBuf) {
        let file = |extension| self.folder.join(format!("{}.{extension}", holder.stem()));
        if !file("pem").exists() {
            let hosts = ["127.0.0.1".to_owned(), "localhost".to_owned()];
            self.authority.issue(holder, &hosts).expect("issues").save(&self.folder).expect("writes");
        }
        (file("pem"), file("key"))
    }

    pub fn identity(&self, node: u32) -> Identity {
        let (certificate, key) = self.files(&Holder::Node(NodeId(node)));
        Identity::load(&self.ca(), &certificate, &key).expect("just issued")
    }

    pub fn stranger(&self) -> Identity {
        Identity::stranger(&self.ca()).expect("just made")
    }

    pub fn config(&self, node: u32, part: Part, peers: &[(u32, SocketAddr)]) -> Config {
        Config {
            node: NodeId(node),
            part,
            listen: "127.0.0.1:0".parse().expect("an address"),
            peers: peers.iter().map(|&(node, address)| (NodeId(node), address)).collect::<BTreeMap<_, _>>(),
            identity: if part == Part::Client { self.stranger() } else { self.identity(node) },
            client_frames_per_second: CLIENT_FRAMES_PER_SECOND,
        }
    }

    pub async fn node(&self, node: u32, part: Part, peers: &[(u32, SocketAddr)]) -> Node {
        Node::bind(self.config(node, part, peers)).await.expect("a free port")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A process whose role is the test.
pub struct Node {
    pub network: Network,
    pub inbox: Inbox,
    pub ready: Readiness,
    operations: u64,
}

impl Node {
    pub async fn bind(config: Config) -> Result<Self, BindError> {
        let (inbox, ready) = (Inbox::default(), Readiness::default());
        let network = Network::bind(config, inbox.clone(), ready.clone()).await?;
        Ok(Self { network, inbox, ready, operations: 0 })
    }

    pub fn address(&self) -> SocketAddr {
        self.network.address()
    }

    /// The next event, which must come.
    pub async fn event(&self) -> Event {
        self.event_within(PATIENCE).await.expect("an event within a generous time")
    }

    pub async fn event_within(&self, patience: Duration) -> Option<Event> {
        let inbox = self.inbox.clone();
        let event = tokio::task::spawn_blocking(move || inbox.next_event(patience)).await.expect("does not panic");
        event.map(|event| match event {
            Any::Network(event) => event,
            other => panic!("the network has nothing to say about {other:?}"),
        })
    }

    pub fn op(&mut self) -> OpId {
        self.operations += 1;
        OpId { incarnation: Incarnation(1), counter: self.operations }
    }

    /// Asks for a connection and says what came of it.
    pub async fn try_connect(&mut self, to: u32) -> Result<ConnectionId, CloseReason> {
        let op = self.op();
        self.network.submit(Submission::Connect { op, to: NodeId(to) });
        match self.event().await {
            Event::Opened { op: answered, connection } if answered == op => Ok(connection),
            Event::NotOpened { op: answered, reason } if answered == op => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    pub async fn connect(&mut self, to: u32) -> ConnectionId {
        self.try_connect(to).await.expect("a peer that listens")
    }

    pub async fn accepted(&self) -> (ConnectionId, NodeId) {
        match self.event().await {
            Event::Accepted { connection, from } => (connection, from),
            other => panic!("{other:?}"),
        }
    }

    pub fn send(&self, connection: ConnectionId, class: StreamClass, payload: impl Into<Payload>) {
        self.network.submit(Submission::Send { connection, class, payload: payload.into() });
    }

    pub fn datagram(&self, connection: ConnectionId, payload: impl Into<Payload>) {
        self.network.submit(Submission::Datagram { connection, payload: payload.into() });
    }

    pub fn close(&self, connection: ConnectionId, reason: CloseReason) {
        self.network.submit(Submission::Close { connection, reason });
    }

    /// Why a connection ended; what came before is dropped.
    pub async fn closed(&self, which: ConnectionId) -> CloseReason {
        loop {
            if let Event::Closed { connection, reason } = self.event().await {
                assert_eq!(connection, which);
                return reason;
            }
        }
    }

    /// Calls; the answer comes as an event.
    pub fn call(&mut self, to: u32, request: Request, patience: Duration) -> OpId {
        let op = self.op();
        let patience = worldline_system::time::Duration::from_nanos(patience.as_nanos() as u64);
        let deadline = clock::now() + patience;
        self.network.submit(Submission::Call(Box::new(Call { op, deadline, to: NodeId(to), request })));
        op
    }

    /// Calls and waits for the answer.
    pub async fn ask(&mut self, to: u32, request: Request, patience: Duration) -> Outcome<Reply> {
        let op = self.call(to, request, patience);
        self.answer(op).await
    }

    pub async fn answer(&self, op: OpId) -> Outcome<Reply> {
        match self.event().await {
            Event::Answered { op: answered, outcome } if answered == op => *outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Answers the next call, which must be `expected`, and says who called.
    pub async fn serve(&self, expected: &Request, outcome: Outcome<Reply>) -> NodeId {
        match self.event().await {
            Event::Called { call, from, request } if *request == *expected => {
                self.network.submit(Submission::Reply { call, outcome: Box::new(outcome) });
                from
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn count(&self, name: &str) -> u64 {
        let counters = self.network.counters();
        counters.iter().find(|(counter, _)| *counter == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }

    /// Waits until a counter has come so far.
    pub async fn counted(&self, name: &str, at_least: u64) {
        let reached = async {
            while self.count(name) < at_least {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{name} stands at {}, expected {at_least}", self.count(name));
    }
}

pub fn attach(character: u64) -> Request {
    Request::Attach(AttachRequest { character, generation: 1, inputs_through: 0 })
}

pub fn attached(epoch: u64) -> Reply {
    Reply::Attach(AttachReply { epoch, ..AttachReply::default() })
}

/// A call whose encoding has exactly `bytes` bytes.
pub fn call_of(bytes: usize) -> Request {
    let request = |payload: usize| {
        Request::Perform(PerformRequest { character: 1, generation: 1, number: 1, action: vec![7; payload], span: 0 })
    };
    let overhead = request(bytes).encode_to_vec().len() - bytes;
    let sized = request(bytes - overhead);
    assert_eq!(sized.encode_to_vec().len(), bytes);
    sized
}

/// Bytes that a test can tell from others.
pub fn bytes(len: usize, seed: u8) -> Payload {
    let bytes: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
    Payload::from(&bytes[..])
}
