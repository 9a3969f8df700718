//! A thousand that begin and never finish: somebody honest is served all the while.

use crate::{
    node::{PATIENCE, World, attach, attached},
    raw,
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use worldline_real::network::Part;
use worldline_system::Outcome;

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
