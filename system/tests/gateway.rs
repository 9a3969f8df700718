//! A gateway by hand: who gets in, and which state it passes on.

mod bench;
#[path = "gateway/tokens.rs"]
mod tokens;

use bench::Bench;
use prost::Message as _;
use worldline_proto::{
    CharacterId, ConnectionId, EntityId, Epoch, Generation, LeaseId, NodeId, Nonce, OpId, OpNumber, Revision,
    client::{ClientFrame, DeniedReason, GatewayFrame, Hello, Perform, client_frame, gateway_frame},
    movement::{Input, Update},
    server::{AttachReply, AttachStatus, PeerMessage, Reply, Request, State, peer_message},
    token::{Claims, Key},
};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        Event,
        cache::{Answer as Said, Submission as ToCache},
        directory::{
            Answer as Told, Change, Event as FromDirectory, Key as At, Ownership, Record, RegionId,
            Submission as ToDirectory, Value, Worker,
        },
        ledger::{Answer, Login, Submission as ToLedger},
        network::{CloseReason, Event as FromNetwork, Payload, StreamClass, Submission as ToNetwork},
    },
    gateway::{Config, Gateway},
    knobs::Knobs,
    limits, wire,
};

const KEY: Key = Key([7; 32]);
const CLIENT: ConnectionId = ConnectionId(1);
const LINK: ConnectionId = ConnectionId(2);
const WORKER: NodeId = NodeId(9);
/// When the tokens here were issued: before the clock of the bench begins.
const ISSUED_UNIX_MS: u64 = 500;

fn character() -> CharacterId {
    CharacterId::new(1).expect("in range")
}

fn token_of(key: Key, expires_unix_ms: u64) -> Vec<u8> {
    key.sign(Claims { character: character(), issued_unix_ms: ISSUED_UNIX_MS, expires_unix_ms })
}

fn gateway() -> Bench<Gateway> {
    let mut bench = Bench::new(Gateway::new(Config {
        region: RegionId(0),
        key: KEY,
        alternates: vec![NodeId(5)],
        replicas: Vec::new(),
        knobs: Knobs::default(),
    }));
    bench.give(Event::Started);
    let (read, _) = bench.asked_directory().remove(0);
    bench.directory(read, Told::Got(Outcome::Done((None, Revision(3)))));
    let (watch, submission) = bench.asked_directory().remove(0);
    assert!(matches!(submission, ToDirectory::Watch { from: Revision(4), .. }), "from what it has not seen yet");
    bench.directory(watch, Told::Watching(Outcome::Done(())));
    bench.network(FromNetwork::Accepted { connection: CLIENT, from: NodeId(100) });
    bench
}

fn owner(lease: u64, revision: u64) -> Record {
    let value = Value::Owner(Ownership { lease: LeaseId::from_bits(lease), epoch: Epoch(4), nonce: Nonce(1) });
    Record { key: At::Owner(character().entity()), value, mod_revision: Revision(revision), lease: None }
}

/// The answer of a cache that has no such entry.
fn missing(asked: &ToCache) -> Said {
    match asked {
        ToCache::Get(_) => Said::Got(Outcome::Done(None)),
        ToCache::Read(_) => Said::Read(Outcome::Done(None)),
        other => panic!("{other:?} is no question of a hello"),
    }
}

impl Bench<Gateway> {
    fn receive(&mut self, frame: client_frame::Frame) {
        self.receive_on(CLIENT, frame);
    }

    fn receive_on(&mut self, connection: ConnectionId, frame: client_frame::Frame) {
        let bytes = ClientFrame { frame: Some(frame) }.encode_to_vec();
        let payload = Payload::from(bytes.as_slice());
        self.network(FromNetwork::Received { connection, class: StreamClass::Control, payload });
    }

    fn hello(&mut self, key: Key, expires_unix_ms: u64) {
        self.hello_with(&token_of(key, expires_unix_ms));
    }

    fn hello_with(&mut self, token: &[u8]) {
        let token = token.to_vec();
        self.receive(client_frame::Frame::Hello(Hello { protocol: wire::PROTOCOL, token }));
    }

    /// The cache knows nothing of the hello that has just come.
    fn nothing_cached(&mut self) {
        for (op, asked) in self.asked_cache() {
            self.cache(op, missing(&asked));
        }
    }

    fn told_client(&self) -> Vec<gateway_frame::Frame> {
        let decode = |bytes: Vec<u8>| GatewayFrame::decode(bytes.as_slice()).ok()?.frame;
        self.frames(CLIENT).into_iter().filter_map(decode).collect()
    }

    fn called(&self) -> Vec<(OpId, Request)> {
        let call = |s: ToNetwork| match s {
            ToNetwork::Call(call) => Some((call.op, call.request)),
            _ => None,
        };
        self.asked_network().into_iter().filter_map(call).collect()
    }

    /// From hello to welcome, at the owner with lease 11.
    fn play(&mut self) {
        let attach = self.play_until_attach();
        self.attached(attach, 0);
    }

    fn play_until_attach(&mut self) -> OpId {
        self.hello(KEY, u64::MAX);
        self.login_until_attach()
    }

    /// From the hello that has just come.
    fn login_until_attach(&mut self) -> OpId {
        self.nothing_cached();
        let (login, _) = self.asked_ledger().remove(0);
        let session = Login { generation: Generation(6), applied_through: OpNumber(2) };
        self.ledger(login, Answer::LoggedIn(Outcome::Done(session)));
        let (found, _) = self.asked_directory().remove(0);
        self.directory(found, Told::Got(Outcome::Done((Some(owner(11, 2)), Revision(5)))));
        let (lives, _) = self.asked_directory().remove(0);
        let value = Value::Worker(Worker { node: WORKER, region: RegionId(0) });
        let key = At::Worker(LeaseId::from_bits(11));
        let record = Record { key, value, mod_revision: Revision(1), lease: None };
        self.directory(lives, Told::Got(Outcome::Done((Some(record), Revision(5)))));
        let ToNetwork::Connect { op, to: WORKER } = self.asked_network()[0] else { panic!("a link to the owner") };
        self.network(FromNetwork::Opened { op, connection: LINK });
        let (attach, request) = self.called().remove(0);
        assert!(matches!(request, Request::Attach(request) if request.generation == 6));
        attach
    }

    /// The owner has taken the session; its last state had this version.
    fn attached(&mut self, attach: OpId, version: u64) {
        let status = AttachStatus::Attached.into();
        let reply = AttachReply { status, epoch: 4, applied_through: 2, version, ..Default::default() };
        self.network(FromNetwork::Answered { op: attach, outcome: Outcome::Done(Reply::Attach(reply)).into() });
    }

    /// The directory tells again where the owner lives.
    fn reconnect(&mut self) -> Vec<ToNetwork> {
        let (found, _) = self.asked_directory().remove(0);
        self.directory(found, Told::Got(Outcome::Done((Some(owner(11, 2)), Revision(5)))));
        self.asked_network()
    }

    fn state(&mut self, epoch: u64, version: u64) {
        let entity = character().entity().get();
        let message = Some(peer_message::Message::State(State { entity, epoch, version, ..Default::default() }));
        self.network(FromNetwork::Datagram { connection: LINK, payload: PeerMessage { message }.into() });
    }

    fn updates(&self) -> Vec<Update> {
        let update = |s: ToNetwork| match s {
            ToNetwork::Datagram { connection: CLIENT, payload } => Update::decode(payload.as_bytes()?).ok(),
            _ => None,
        };
        self.asked_network().into_iter().filter_map(update).collect()
    }
}

#[test]
fn a_forged_or_expired_token_is_denied_by_name_and_begins_no_session() {
    let made = |key: Key, issued_unix_ms, expires_unix_ms| {
        key.sign(Claims { character: character(), issued_unix_ms, expires_unix_ms })
    };
    let mut first_version = made(KEY, 0, u64::MAX);
    first_version[0] = 1;
    for (token, reason) in [
        (made(Key([8; 32]), 0, u64::MAX), DeniedReason::TokenForged),
        (made(KEY, 0, 1_000), DeniedReason::TokenExpired),
        (made(KEY, u64::MAX - 1, u64::MAX), DeniedReason::TokenNotYetValid),
        (first_version, DeniedReason::TokenVersion),
        (vec![], DeniedReason::TokenForged),
    ] {
        let mut bench = gateway();
        bench.hello_with(&token);
        assert!(matches!(&bench.told_client()[..], [gateway_frame::Frame::Denied(d)] if d.reason == i32::from(reason)));
        assert!(bench.asked_ledger().is_empty());
        assert!(bench.asked_network().contains(&ToNetwork::Close { connection: CLIENT, reason: CloseReason::Closed }));
    }
}

#[test]
fn an_unknown_login_is_tried_again_under_the_same_nonce() {
    let mut bench = gateway();
    bench.hello(KEY, u64::MAX);
    bench.nothing_cached();
    let (login, first) = bench.asked_ledger().remove(0);
    bench.ledger(login, Answer::LoggedIn(Outcome::Unknown));
    bench.pass(limits::RETRY_MIN);
    let (_, second) = bench.asked_ledger().remove(0);
    assert_eq!(first, second);
    assert!(matches!(first, ToLedger::Login { .. }));
}

#[test]
fn state_goes_forwards_only_and_an_older_epoch_is_refused() {
    let mut bench = gateway();
    bench.play();
    assert!(matches!(&bench.told_client()[..], [gateway_frame::Frame::Welcome(w)] if w.generation == 6));
    let mut passed = |epoch, version| {
        bench.state(epoch, version);
        bench.updates().len()
    };
    assert_eq!(passed(4, 5), 1);
    assert_eq!(passed(4, 5), 0, "doubled");
    assert_eq!(passed(4, 4), 0, "overtaken");
    assert_eq!(passed(3, 99), 0, "of an owner that was replaced");
    assert_eq!(passed(5, 1), 1, "of the new one");
}

#[test]
fn an_operation_whose_outcome_is_unknown_is_never_answered() {
    let mut bench = gateway();
    bench.play();
    let action = wire::encode_attack(EntityId::from(character()));
    for outcome in [Outcome::Unknown, Outcome::Refused(Refusal::NotServing)] {
        bench.receive(client_frame::Frame::Perform(Perform { number: 3, action: action.clone(), span: 0 }));
        let (op, _) = bench.called().remove(0);
        bench.network(FromNetwork::Answered { op, outcome: outcome.into() });
        assert!(bench.told_client().is_empty());
    }
}

#[test]
fn a_new_owner_in_the_directory_moves_the_session_and_tells_its_client() {
    let mut bench = gateway();
    bench.play();
    let watch = OpId { incarnation: worldline_proto::Incarnation(1), counter: 2 };
    let changes = [Change::Put(owner(22, 9))].into();
    bench.give(Event::Directory(FromDirectory::Changed { watch, revision: Revision(9), changes }));
    assert!(matches!(&bench.told_client()[..], [gateway_frame::Frame::Notice(notice)] if notice.suspended));
    let (_, sought) = bench.asked_directory().remove(0);
    let wanted = At::Worker(LeaseId::from_bits(22));
    assert!(matches!(sought, ToDirectory::Get { key, .. } if key == wanted), "where the new owner lives");
}

#[test]
fn a_session_that_was_attached_over_a_link_that_is_gone_attaches_again() {
    let mut bench = gateway();
    let attach = bench.play_until_attach();
    bench.network(FromNetwork::Closed { connection: LINK, reason: CloseReason::IdleTimeout });
    bench.attached(attach, 0);
    assert!(bench.told_client().is_empty(), "its states would go nowhere");
    bench.pass(limits::RETRY_MAX);
    let connects = |s: &ToNetwork| matches!(s, ToNetwork::Connect { to: WORKER, .. });
    assert!(bench.asked_network().iter().any(connects), "it opens another: {:?}", bench.outbox);
}

#[test]
fn what_was_overtaken_by_an_attachment_is_neither_shown_nor_passed_on() {
    let mut bench = gateway();
    let attach = bench.play_until_attach();
    bench.state(4, 19);
    assert!(bench.updates().is_empty(), "it is not attached yet");
    bench.attached(attach, 20);
    bench.state(4, 20);
    assert!(bench.updates().is_empty(), "it left before the session came");
    bench.state(4, 21);
    assert_eq!(bench.updates().len(), 1);
    let mut passed = |sequence| {
        let payload = Payload::from(&*Input { sequence, x_mm: 0, y_mm: 0 }.encode());
        bench.network(FromNetwork::Datagram { connection: CLIENT, payload });
        bench.asked_network().len()
    };
    assert_eq!((passed(2), passed(2), passed(1), passed(3)), (1, 0, 0, 1), "each input once, and forwards only");
    bench.network(FromNetwork::Closed { connection: LINK, reason: CloseReason::IdleTimeout });
    let [ToNetwork::Connect { op, .. }] = bench.reconnect()[..] else { panic!("it opens a link again") };
    bench.network(FromNetwork::Opened { op, connection: ConnectionId(3) });
    let (_, request) = bench.called().remove(0);
    assert!(matches!(request, Request::Attach(request) if request.inputs_through == 3));
}

#[test]
fn of_two_replicas_either_shows_how_a_boss_stands_and_what_is_shown_never_goes_back() {
    let replicas = vec![NodeId(20), NodeId(21)];
    let config = Config { region: RegionId(0), key: KEY, alternates: vec![], replicas, knobs: Knobs::default() };
    let mut bench = Bench::new(Gateway::new(config));
    bench.give(Event::Started);
    let opens = |s: &ToNetwork| if let ToNetwork::Connect { op, to } = s { Some((*op, *to)) } else { None };
    let opened: Vec<_> = bench.asked_network().iter().filter_map(opens).collect();
    assert_eq!(opened.iter().map(|(_, to)| to.0).collect::<Vec<_>>(), [20, 21]);
    assert!(!bench.role.sees_globals(), "nobody is there yet");
    let [one, other, stranger] = [30, 31, 32].map(ConnectionId);
    for ((op, _), connection) in opened.into_iter().zip([one, other]) {
        bench.network(FromNetwork::Opened { op, connection });
    }
    bench.network(FromNetwork::Accepted { connection: CLIENT, from: NodeId(100) });
    bench.play();
    let boss = EntityId::new(worldline_proto::EntityKind::Boss, 1).expect("in range");
    let mut shown = |by, sequence| {
        let global =
            worldline_proto::server::Global { entity: boss.get(), sequence, hit_points: 1, ..Default::default() };
        let payload = PeerMessage { message: Some(peer_message::Message::Global(global)) }.into();
        bench.network(FromNetwork::Received { connection: by, class: StreamClass::State, payload });
        bench.told_client().len()
    };
    assert_eq!([shown(one, 5), shown(other, 5), shown(other, 7), shown(one, 6)], [1, 0, 1, 0]);
    assert_eq!(shown(stranger, 9), 0, "nobody else may");
    bench.network(FromNetwork::Closed { connection: one, reason: CloseReason::IdleTimeout });
    assert!(bench.role.sees_globals(), "one is enough");
    bench.pass(limits::RETRY_MAX);
    let sought: Vec<_> = bench.asked_network().iter().filter_map(opens).map(|(_, to)| to.0).collect();
    assert_eq!(sought, [20], "the one that is gone is sought again, and no other");
}

#[test]
fn garbage_on_a_stream_ends_the_connection_and_garbage_in_a_datagram_does_not() {
    let mut bench = gateway();
    bench.play();
    let noise = Payload::from(&[0xff; 40][..]);
    bench.network(FromNetwork::Datagram { connection: CLIENT, payload: noise.clone() });
    assert!(bench.asked_network().is_empty());
    bench.network(FromNetwork::Received { connection: CLIENT, class: StreamClass::Action, payload: noise });
    let close = ToNetwork::Close { connection: CLIENT, reason: CloseReason::ProtocolError };
    assert!(bench.asked_network().contains(&close));
    assert_eq!(bench.role.sessions(), 0);
}
