//! A thousand that begin and never finish, and one that sends without end: somebody honest is served all the while.

use crate::{
    node::{Node, PATIENCE, World, attach, attached, bytes},
    raw,
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout},
};
use worldline_proto::server::{PeerMessage, Suspended, peer_message::Message};
use worldline_real::network::{Config, Part};
use worldline_system::{
    Outcome,
    doors::network::{Event, Payload, StreamClass},
};

const FLOOD: usize = 1_000;

/// Beginnings of handshakes, each of another connection.
async fn initials(world: &World) -> Vec<Vec<u8>> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = sink.local_addr().expect("bound");
    let endpoint = raw::client(world, raw::CLIENT, None);
    let (mut packets, mut seen, mut buffer) = (Vec::new(), BTreeSet::new(), vec![0; 2_048]);
    while packets.len() < FLOOD {
        let connecting = endpoint.connect(address, "n1.worldline").expect("a name");
        let (len, _) = timeout(PATIENCE, sink.recv_from(&mut buffer)).await.expect("sent").expect("received");
        drop(connecting);
        // A long header's destination is the connection: a farewell of an earlier one is not a beginning.
        if len >= 1_200 && seen.insert(buffer[6..14].to_vec()) {
            packets.push(buffer[..len].to_vec());
        }
    }
    packets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_quic_handshakes_keep_nobody_out() {
    let world = World::new();
    let gateway = world.node(1, Part::Gateway, &[]).await;
    let packets = initials(&world).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    for (n, packet) in packets.iter().enumerate() {
        socket.send_to(packet, gateway.address()).await.expect("sent");
        if n % 10 == 0 {
            // The socket's own buffer is small: let it be emptied.
            tokio::task::yield_now().await;
        }
        if n == FLOOD / 2 || n == FLOOD - 1 {
            let mut client = world.node(9, Part::Client, &[(1, gateway.address())]).await;
            client.connect(1).await;
            gateway.accepted().await;
        }
    }
    assert!(gateway.count("quic_retries_sent") > 0, "unproved addresses are asked to prove themselves");
    assert_eq!(gateway.count("connections_accepted"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_silent_tcp_connections_keep_nobody_out() {
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let mut silent = Vec::new();
    for n in 0..FLOOD {
        silent.push(TcpStream::connect(worker.address()).await.expect("listens"));
        if n == FLOOD / 2 || n == FLOOD - 1 {
            let mut gateway = world.node(2, Part::Gateway, &[(3, worker.address())]).await;
            let op = gateway.call(3, attach(1), PATIENCE);
            worker.serve(&attach(1), Outcome::Done(attached(1))).await;
            assert_eq!(gateway.answer(op).await, Outcome::Done(attached(1)));
        }
    }
    worker.counted("tcp_handshakes_evicted", FLOOD as u64 / 2).await;
    worker.counted("tcp_handshakes_failed", 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_never_take_a_roles_place() {
    const STRANGERS: usize = 80;
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(raw::client_tls(&world, b"h2", None)));
    let mut strangers = Vec::new();
    for _ in 0..STRANGERS {
        let stream = TcpStream::connect(worker.address()).await.expect("listens");
        let mut stranger =
            connector.connect("n3.worldline".try_into().expect("a name"), stream).await.expect("trusted");
        stranger.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("open");
        strangers.push(stranger);
    }
    worker.counted("tcp_connections_refused", 1).await;
    let mut gateway = world.node(2, Part::Gateway, &[(3, worker.address())]).await;
    let op = gateway.call(3, attach(1), PATIENCE);
    worker.serve(&attach(1), Outcome::Done(attached(1))).await;
    assert_eq!(gateway.answer(op).await, Outcome::Done(attached(1)));
}

/// What a client may bring a second, here.
const RATE: u32 = 100;

async fn slow_gateway(world: &World) -> Node {
    let config = Config { client_frames_per_second: RATE, ..world.config(1, Part::Gateway, &[]) };
    Node::bind(config).await.expect("a free port")
}

/// The most that a client may have brought since.
fn allowed(since: Instant) -> u32 {
    RATE + (since.elapsed().as_secs_f64() * f64::from(RATE)) as u32 + 1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_messages_reach_the_role_in_order_and_no_faster_than_they_may() {
    const SENT: u32 = 2 * RATE;
    let world = World::new();
    let gateway = slow_gateway(&world).await;
    let peers = [(1, gateway.address())];
    let (mut flooder, mut player) =
        (world.node(8, Part::Client, &peers).await, world.node(9, Part::Client, &peers).await);
    let here = flooder.connect(1).await;
    gateway.accepted().await;
    let from_player = player.connect(1).await;
    gateway.accepted().await;
    let begun = Instant::now();
    for n in 0..SENT {
        flooder.send(here, StreamClass::Action, Payload::from(&n.to_be_bytes()[..]));
    }
    gateway.counted("streams_held_back", 1).await;
    player.send(from_player, StreamClass::Action, bytes(99, 1));
    let (mut taken, mut others) = (0, 0);
    while taken < SENT {
        let Event::Received { payload, .. } = gateway.event().await else { panic!("a message") };
        if payload == bytes(99, 1) {
            assert!(taken < SENT - 1, "the player does not wait for the flood");
            others += 1;
            continue;
        }
        assert_eq!(payload, Payload::from(&taken.to_be_bytes()[..]), "each once, in order");
        taken += 1;
        assert!(taken <= allowed(begun), "{taken} within {:?}", begun.elapsed());
    }
    assert_eq!(others, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_datagrams_above_what_it_may_send_are_dropped_and_counted() {
    let world = World::new();
    let gateway = slow_gateway(&world).await;
    let mut flooder = world.node(8, Part::Client, &[(1, gateway.address())]).await;
    let here = flooder.connect(1).await;
    gateway.accepted().await;
    let begun = Instant::now();
    let flood = async {
        while gateway.count("datagrams_over_rate") < u64::from(RATE) {
            flooder.datagram(here, bytes(20, 1));
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, flood).await.expect("the flood is noticed");
    let waiting = gateway.inbox.len();
    assert!(waiting <= allowed(begun) as usize, "{waiting} within {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_is_not_slowed_down() {
    const SENT: u32 = 10 * RATE;
    let world = World::new();
    let gateway = slow_gateway(&world).await;
    let mut worker = world.node(3, Part::Server, &[(1, gateway.address())]).await;
    let here = worker.connect(1).await;
    gateway.accepted().await;
    let message = PeerMessage { message: Some(Message::Suspended(Suspended { suspended: true })) };
    for _ in 0..SENT {
        worker.send(here, StreamClass::State, message.clone());
    }
    for _ in 0..SENT {
        assert!(matches!(gateway.event().await, Event::Received { .. }));
    }
    assert_eq!(gateway.count("streams_held_back"), 0);
}
