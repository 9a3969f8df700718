//! Connections between honest processes.

use crate::node::{PATIENCE, World, bytes};
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tokio::net::UdpSocket;
use worldline_proto::{
    NodeId,
    server::{Moved, PeerMessage, Suspended, peer_message::Message},
};
use worldline_real::network::{Part, STRANGER};
use worldline_system::{
    doors::network::{CloseReason, Event, Payload, StreamClass},
    limits,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_and_a_gateway_exchange_datagrams_of_every_length() {
    let world = World::new();
    let gateway = world.node(1, Part::Gateway, &[]).await;
    let mut client = world.node(9, Part::Client, &[(1, gateway.address())]).await;
    let here = client.connect(1).await;
    let (there, from) = gateway.accepted().await;
    assert_eq!(from, STRANGER);
    for len in [0, 1, limits::DATAGRAM_BYTES] {
        let sent = bytes(len, 1);
        client.datagram(here, sent.clone());
        assert_eq!(gateway.event().await, Event::Datagram { connection: there, payload: sent.clone() }, "{len} bytes");
        gateway.datagram(there, sent.clone());
        assert_eq!(client.event().await, Event::Datagram { connection: here, payload: sent }, "{len} bytes");
    }
    client.datagram(here, bytes(limits::DATAGRAM_BYTES + 1, 1));
    client.datagram(here, bytes(3, 2));
    assert_eq!(gateway.event().await, Event::Datagram { connection: there, payload: bytes(3, 2) });
    assert_eq!(client.count("unsendable"), 1, "the datagram above the limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_class_keeps_its_order_and_carries_frames_up_to_the_limit() {
    const EACH: u8 = 200;
    let world = World::new();
    let gateway = world.node(1, Part::Gateway, &[]).await;
    let mut client = world.node(9, Part::Client, &[(1, gateway.address())]).await;
    let here = client.connect(1).await;
    let (there, _) = gateway.accepted().await;
    let frame = |n: u8| bytes([0, 1, 100, 1_000, limits::FRAME_BYTES][usize::from(n % 5)], n);
    for n in 0..EACH {
        for class in StreamClass::ALL {
            client.send(here, class, frame(n));
            gateway.send(there, class, frame(n));
        }
    }
    for (node, at) in [(&gateway, there), (&client, here)] {
        let mut next = [0; 3];
        for _ in 0..3 * usize::from(EACH) {
            let Event::Received { connection, class, payload } = node.event().await else { panic!("a message") };
            let expected = &mut next[class as usize];
            assert_eq!((connection, payload), (at, frame(*expected)), "{class:?}");
            *expected += 1;
        }
        assert_eq!(next, [EACH; 3]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_exchange_messages_and_know_each_other_by_certificate() {
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let mut gateway = world.node(2, Part::Gateway, &[(3, worker.address())]).await;
    let here = gateway.connect(3).await;
    let (there, from) = worker.accepted().await;
    assert_eq!(from, NodeId(2));
    let moved = PeerMessage { message: Some(Message::Moved(Moved { character: 7, x_mm: -5, ..Moved::default() })) };
    gateway.datagram(here, moved.clone());
    assert_eq!(worker.event().await, Event::Datagram { connection: there, payload: moved.into() });
    let suspended = PeerMessage { message: Some(Message::Suspended(Suspended { suspended: true })) };
    worker.send(there, StreamClass::Control, suspended.clone());
    let class = StreamClass::Control;
    assert_eq!(gateway.event().await, Event::Received { connection: here, class, payload: suspended.into() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_told_why_and_an_orderly_close_comes_after_what_was_sent() {
    let world = World::new();
    let gateway = world.node(1, Part::Gateway, &[]).await;
    let mut client = world.node(9, Part::Client, &[(1, gateway.address())]).await;
    let overtaking = [CloseReason::Superseded, CloseReason::ProtocolError, CloseReason::TooMany];
    for reason in overtaking.into_iter().chain([CloseReason::Closed, CloseReason::Barred]) {
        let here = client.connect(1).await;
        let (there, _) = gateway.accepted().await;
        gateway.send(there, StreamClass::Control, bytes(5_000, 3));
        gateway.close(there, reason);
        if !overtaking.contains(&reason) {
            let (connection, class, payload) = (here, StreamClass::Control, bytes(5_000, 3));
            assert_eq!(client.event().await, Event::Received { connection, class, payload });
        }
        assert_eq!(client.closed(here).await, reason);
        client.send(here, StreamClass::Control, bytes(1, 1));
        assert_eq!(client.count("sent_to_nobody"), 1, "what is sent afterwards is dropped");
        client = world.node(9, Part::Client, &[(1, gateway.address())]).await;
    }
    assert_eq!(gateway.event_within(Duration::ZERO).await, None, "who closes hears no more of it");
    assert_eq!(gateway.count("connections_open"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_take_its_messages_is_disconnected_and_keeps_their_order() {
    let world = World::new();
    let gateway = world.node(1, Part::Gateway, &[]).await;
    let mut client = world.node(9, Part::Client, &[(1, gateway.address())]).await;
    let here = client.connect(1).await;
    let mut sent = 0_u32;
    let reason = loop {
        let payload = Payload::from(&[&sent.to_be_bytes()[..], &[0; 996]].concat()[..]);
        client.send(here, StreamClass::State, payload);
        sent += 1;
        match client.event_within(Duration::ZERO).await {
            Some(Event::Closed { connection, reason }) if connection == here => break reason,
            Some(other) => panic!("{other:?}"),
            None => assert!(sent < 100_000, "a queue without a bound"),
        }
    };
    assert_eq!((reason, client.count("send_queues_overflowed")), (CloseReason::Overflow, 1));
    let (there, _) = gateway.accepted().await;
    let mut taken = 0_u32;
    let reason = loop {
        match gateway.event().await {
            Event::Received { payload, .. } => {
                assert!(payload.as_bytes().is_some_and(|bytes| bytes.starts_with(&taken.to_be_bytes())));
                taken += 1;
            }
            Event::Closed { connection, reason } if connection == there => break reason,
            other => panic!("{other:?}"),
        }
    };
    // The word of it may be lost, as any packet; what is sent to the closed connection later is then reset.
    assert!(matches!(reason, CloseReason::Overflow | CloseReason::Reset), "{reason:?}");
    assert!(taken > 0 && taken < sent, "{taken} of {sent} arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_exist_or_does_not_answer_is_not_connected_to() {
    let world = World::new();
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let silent = silent.local_addr().expect("bound");
    let mut client = world.node(9, Part::Client, &[(1, silent)]).await;
    assert_eq!(client.try_connect(1).await, Err(CloseReason::HandshakeTimeout), "accepts packets and never answers");
    assert_eq!(client.try_connect(2).await, Err(CloseReason::HandshakeTimeout), "an unknown node");
}

/// Carries packets between one caller and one address, until it is told to swallow them.
async fn relay(to: SocketAddr) -> (SocketAddr, tokio::sync::watch::Sender<bool>) {
    let (outer, inner) = (UdpSocket::bind("127.0.0.1:0").await, UdpSocket::bind("127.0.0.1:0").await);
    let (outer, inner) = (outer.expect("a free port"), inner.expect("a free port"));
    inner.connect(to).await.expect("loopback");
    let address = outer.local_addr().expect("bound");
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let (mut there, mut back, mut caller) = ([0; 2_048], [0; 2_048], None);
        loop {
            tokio::select! {
                Ok((len, from)) = outer.recv_from(&mut there) => {
                    caller = Some(from);
                    if !*is_cut.borrow() {
                        drop(inner.send(&there[..len]).await);
                    }
                }
                Ok(len) = inner.recv(&mut back) => {
                    let swallow = *is_cut.borrow();
                    if let (Some(caller), false) = (caller, swallow) {
                        drop(outer.send_to(&back[..len], caller).await);
                    }
                }
            }
        }
    });
    (address, cut)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_is_noticed_by_the_idle_timeout_on_both_sides_and_not_before() {
    let world = World::new();
    let gateway = world.node(1, Part::Gateway, &[]).await;
    let (address, cut) = relay(gateway.address()).await;
    let mut client = world.node(9, Part::Client, &[(1, address)]).await;
    let here = client.connect(1).await;
    let (there, _) = gateway.accepted().await;
    assert_eq!(client.event_within(Duration::from_secs(11)).await, None, "keep-alives keep it open");
    cut.send_replace(true);
    assert_eq!(client.event_within(Duration::from_secs(5)).await, None, "a cut is not seen at once");
    assert_eq!(client.closed(here).await, CloseReason::IdleTimeout);
    assert_eq!(gateway.closed(there).await, CloseReason::IdleTimeout);
}

#[test]
fn a_restarted_peer_resets_the_connections_of_its_former_life() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("builds");
    let world = World::new();
    let (former, here) = (runtime(), runtime());
    let config = world.config(1, Part::Gateway, &[]);
    let gateway = former.block_on(crate::node::Node::bind(config.clone())).expect("a free port");
    let address = gateway.address();
    let mut client = here.block_on(world.node(9, Part::Client, &[(1, address)]));
    let connection = here.block_on(client.connect(1));
    former.block_on(gateway.accepted());
    // As SIGKILL would: nobody says goodbye.
    former.shutdown_background();
    drop(gateway);
    let again = here.block_on(async {
        let bind = || crate::node::Node::bind(worldline_real::network::Config { listen: address, ..config.clone() });
        let bound = async {
            loop {
                match bind().await {
                    Ok(gateway) => return gateway,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, bound).await.expect("the address is free again")
    });
    client.datagram(connection, bytes(1, 1));
    assert_eq!(here.block_on(client.closed(connection)), CloseReason::Reset);
    assert_eq!(here.block_on(again.event_within(Duration::ZERO)), None, "the new life hears nothing of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_have_connections_of_their_own() {
    const CLIENTS: u32 = 30;
    let world = World::new();
    let gateway = world.node(1, Part::Gateway, &[]).await;
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let mut client = world.node(100 + n, Part::Client, &[(1, gateway.address())]).await;
        let here = client.connect(1).await;
        let (there, _) = gateway.accepted().await;
        clients.push((client, here, there));
    }
    assert_eq!(clients.iter().map(|(_, _, there)| *there).collect::<BTreeSet<_>>().len(), CLIENTS as usize);
    for (n, (_, _, there)) in clients.iter().enumerate() {
        gateway.send(*there, StreamClass::Action, bytes(10, n as u8));
    }
    for (n, (client, here, _)) in clients.iter().enumerate() {
        let (connection, class, payload) = (*here, StreamClass::Action, bytes(10, n as u8));
        assert_eq!(client.event().await, Event::Received { connection, class, payload });
    }
    assert_eq!(gateway.count("connections_open"), u64::from(CLIENTS));
}
