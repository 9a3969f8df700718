//! What a peer gets wrong ends its own connection, is counted by kind, and touches nobody else.

use crate::{
    node::{Node, World, bytes},
    raw,
};
use quinn::Connection;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
};
use worldline_proto::{ConnectionId, NodeId};
use worldline_real::network::{Part, tls::Holder};
use worldline_system::{
    doors::network::{CloseReason, Event, StreamClass},
    limits,
};

/// A gateway, a client that behaves, and a way to connect one that does not.
struct Scene {
    world: World,
    gateway: Node,
    client: Node,
    here: ConnectionId,
    there: ConnectionId,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new();
        let gateway = world.node(1, Part::Gateway, &[]).await;
        let mut client = world.node(9, Part::Client, &[(1, gateway.address())]).await;
        let here = client.connect(1).await;
        let (there, _) = gateway.accepted().await;
        Self { world, gateway, client, here, there }
    }

    async fn intruder(&self, alpn: &[u8]) -> (quinn::Endpoint, Connection, ConnectionId) {
        let shown = (alpn == raw::PEER).then(|| raw::from_files(self.world.files(&Holder::Node(NodeId(7)))));
        let endpoint = raw::client(&self.world, alpn, shown);
        let connection = raw::connect(&endpoint, self.gateway.address(), "n1.worldline").await;
        let (there, _) = self.gateway.accepted().await;
        (endpoint, connection, there)
    }

    /// The intruder was closed, counted and reported; the client goes on.
    async fn convicted(&self, intruder: &Connection, there: ConnectionId, counter: &str) {
        assert_eq!(raw::closed_with(intruder).await, 1, "{counter}: a protocol error");
        assert_eq!(self.gateway.closed(there).await, CloseReason::ProtocolError, "{counter}");
        assert_eq!(self.gateway.count(counter), 1, "{counter}");
        self.client_goes_on().await;
    }

    async fn client_goes_on(&self) {
        let (class, payload) = (StreamClass::Action, bytes(99, 5));
        self.client.send(self.here, class, payload.clone());
        let received = Event::Received { connection: self.there, class, payload };
        assert_eq!(self.gateway.event().await, received, "others are served");
    }
}

async fn stream(connection: &Connection, bytes: &[u8]) -> quinn::SendStream {
    let mut stream = connection.open_uni().await.expect("allowed");
    stream.write_all(bytes).await.expect("written");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_above_the_limit_is_refused_by_its_length_alone() {
    let scene = Scene::new().await;
    let (_endpoint, intruder, there) = scene.intruder(raw::CLIENT).await;
    let _open = stream(&intruder, &[&[1][..], &(limits::FRAME_BYTES as u32 + 1).to_be_bytes()].concat()).await;
    scene.convicted(&intruder, there, "frames_too_long").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_no_class_and_a_second_one_of_a_class_are_refused() {
    let scene = Scene::new().await;
    let (_endpoint, intruder, there) = scene.intruder(raw::CLIENT).await;
    let _open = stream(&intruder, &[3]).await;
    scene.convicted(&intruder, there, "streams_of_unknown_class").await;
    let (_endpoint, intruder, there) = scene.intruder(raw::CLIENT).await;
    let _open = (stream(&intruder, &[0]).await, stream(&intruder, &[0]).await);
    scene.convicted(&intruder, there, "streams_doubled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_within_a_frame_is_refused_and_one_between_frames_is_not() {
    let scene = Scene::new().await;
    let (_endpoint, intruder, there) = scene.intruder(raw::CLIENT).await;
    let whole = [&[0][..], &1_u32.to_be_bytes(), b"x"].concat();
    let mut ended = stream(&intruder, &whole).await;
    ended.finish().expect("open");
    let (class, payload) = (StreamClass::Control, b"x"[..].into());
    assert_eq!(scene.gateway.event().await, Event::Received { connection: there, class, payload });
    let mut cut = stream(&intruder, &[2, 0, 0, 0, 9, 1]).await;
    cut.finish().expect("open");
    scene.convicted(&intruder, there, "streams_cut").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_or_not_wanted_ends_its_connection() {
    let scene = Scene::new().await;
    let (_endpoint, intruder, there) = scene.intruder(raw::CLIENT).await;
    let mut reset = stream(&intruder, &[1, 0, 0, 0, 1, 1]).await;
    assert!(matches!(scene.gateway.event().await, Event::Received { .. }));
    reset.reset(9_u32.into()).expect("open");
    scene.convicted(&intruder, there, "streams_cut").await;

    let scene = Scene::new().await;
    let (_endpoint, intruder, there) = scene.intruder(raw::CLIENT).await;
    scene.gateway.send(there, StreamClass::State, bytes(10, 1));
    let mut unwanted = intruder.accept_uni().await.expect("open");
    unwanted.stop(9_u32.into()).expect("open");
    // It is noticed with the first message after the peer's word has come.
    while tokio::time::timeout(Duration::from_millis(20), intruder.closed()).await.is_err() {
        scene.gateway.send(there, StreamClass::State, bytes(10, 2));
    }
    scene.convicted(&intruder, there, "streams_cut").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_between_roles_is_refused() {
    let scene = Scene::new().await;
    let (_endpoint, intruder, there) = scene.intruder(raw::PEER).await;
    let _open = stream(&intruder, &[0, 0, 0, 0, 2, 0xFF, 0xFF]).await;
    scene.convicted(&intruder, there, "messages_undecodable").await;
    let scene = Scene::new().await;
    let (_endpoint, intruder, there) = scene.intruder(raw::PEER).await;
    intruder.send_datagram(vec![0xFF; 20].into()).expect("allowed");
    scene.convicted(&intruder, there, "messages_undecodable").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_above_the_limit_is_refused() {
    let scene = Scene::new().await;
    let (_endpoint, intruder, there) = scene.intruder(raw::CLIENT).await;
    intruder.send_datagram(vec![1; limits::DATAGRAM_BYTES].into()).expect("allowed");
    let payload = vec![1; limits::DATAGRAM_BYTES][..].into();
    assert_eq!(scene.gateway.event().await, Event::Datagram { connection: there, payload });
    intruder.send_datagram(vec![1; limits::DATAGRAM_BYTES + 1].into()).expect("this side may");
    scene.convicted(&intruder, there, "datagrams_too_long").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_udp_port_is_counted_where_it_can_be_told_apart() {
    let scene = Scene::new().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    socket.connect(scene.gateway.address()).await.expect("loopback");
    let garbage: [&[u8]; 6] =
        [b"", b"\x00", b"GET / HTTP/1.1\r\n\r\n", &[0xFF; 1_200], &[0x00; 1_200], b"\xC0\x00\x00\x00\x01\x08garbage"];
    for packet in garbage {
        socket.send(packet).await.expect("sent");
        scene.client_goes_on().await;
    }
    // The fourth names an unknown version; the third and the last look like QUIC, and quinn drops them without a word.
    scene.gateway.counted("udp_foreign_packets", 3).await;
    assert_eq!(scene.gateway.event_within(Duration::ZERO).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_tcp_port_ends_its_connection_only() {
    let scene = Scene::new().await;
    let address = scene.gateway.address();
    let mut plain = TcpStream::connect(address).await.expect("listens");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: worldline\r\n\r\n").await.expect("sent");
    drop(plain.read_to_end(&mut Vec::new()).await);
    scene.gateway.counted("tcp_handshakes_failed", 1).await;

    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(raw::client_tls(&scene.world, b"h2", None)));
    let open = async || {
        let name = "n1.worldline".try_into().expect("a name");
        connector.connect(name, TcpStream::connect(address).await.expect("listens")).await.expect("trusted")
    };
    let mut other = open().await;
    other.write_all(b"GET / HTTP/1.1\r\nHost: worldline\r\n\r\n").await.expect("sent");
    drop(other.read_to_end(&mut Vec::new()).await);
    scene.gateway.counted("tcp_handshakes_failed", 2).await;

    let mut http = open().await;
    http.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
    http.write_all(&[0xFF; 4_096]).await.expect("sent");
    let ended = tokio::time::timeout(crate::node::PATIENCE, http.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "HTTP/2 itself ends it");
    scene.client_goes_on().await;
}
