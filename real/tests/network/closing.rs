//! What is left of a process that has closed its network: nothing.

use crate::node::{Node, PATIENCE, World, attach, bytes};
use std::{net::UdpSocket, time::Duration};
use tokio::net::TcpListener;
use worldline_real::network::{BindError, Config, Part};
use worldline_system::{
    Outcome,
    doors::network::{CloseReason, Event, StreamClass},
};

#[test]
fn a_closed_network_leaves_no_task_socket_or_connection() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("builds");
    runtime.block_on(async {
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let world = World::new();
        let before = tasks();
        let worker = world.node(3, Part::Server, &[]).await;
        let mut gateway = world.node(2, Part::Gateway, &[(3, worker.address())]).await;
        let mut client = world.node(9, Part::Client, &[(2, gateway.address())]).await;
        let (to_gateway, to_worker) = (client.connect(2).await, gateway.event());
        to_worker.await;
        client.send(to_gateway, StreamClass::Control, bytes(100, 1));
        assert!(matches!(gateway.event().await, Event::Received { .. }));
        let link = gateway.connect(3).await;
        worker.accepted().await;
        let op = gateway.call(3, attach(1), PATIENCE);
        assert!(matches!(worker.event().await, Event::Called { .. }));
        assert!(tasks() > before);

        worker.network.close().await;
        let mut told = [gateway.event().await, gateway.event().await];
        told.sort_by_key(|event| matches!(event, Event::Answered { .. }));
        assert_eq!(told[0], Event::Closed { connection: link, reason: CloseReason::Closed });
        assert_eq!(told[1], Event::Answered { op, outcome: Box::new(Outcome::Unknown) });
        let addresses = [worker.address(), gateway.address()];
        gateway.network.close().await;
        assert_eq!(client.closed(to_gateway).await, CloseReason::Closed);
        client.network.close().await;

        // A task that has ended is counted for another moment.
        let none_left = async {
            while tasks() > before {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, none_left).await.is_ok(), "{} tasks are left", tasks() - before);
        for address in addresses {
            drop(UdpSocket::bind(address).expect("the UDP port is free again"));
            drop(TcpListener::bind(address).await.expect("the TCP port is free again"));
        }
        drop(Node::bind(Config { listen: addresses[0], ..world.config(3, Part::Server, &[]) }).await.expect("binds"));
        // A role that has not noticed yet harms nobody.
        client.send(to_gateway, StreamClass::Control, bytes(1, 1));
        assert_eq!(client.try_connect(2).await, Err(CloseReason::HandshakeTimeout));
        assert!(matches!(client.ask(2, attach(1), Duration::from_secs(1)).await, Outcome::Refused(_)));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_has_said_before_it_stops_is_delivered() {
    let world = World::new();
    let gateway = world.node(1, Part::Gateway, &[]).await;
    let mut client = world.node(9, Part::Client, &[(1, gateway.address())]).await;
    let here = client.connect(1).await;
    let (there, _) = gateway.accepted().await;
    for n in 0..20 {
        gateway.send(there, StreamClass::Control, bytes(10_000, n));
    }
    gateway.close(there, CloseReason::Closed);
    gateway.network.close().await;
    for n in 0..20 {
        let (connection, class, payload) = (here, StreamClass::Control, bytes(10_000, n));
        assert_eq!(client.event().await, Event::Received { connection, class, payload });
    }
    assert_eq!(client.closed(here).await, CloseReason::Closed);
}

#[tokio::test]
async fn a_busy_port_and_anothers_certificate_are_said_by_name() {
    let world = World::new();
    let node = world.node(1, Part::Server, &[]).await;
    let busy = Config { listen: node.address(), ..world.config(2, Part::Server, &[]) };
    let error = Node::bind(busy).await.err().expect("the port is taken").to_string();
    assert!(error.contains("TCP") && error.contains(&node.address().to_string()), "{error}");

    let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let listen = udp.local_addr().expect("bound");
    let error = Node::bind(Config { listen, ..world.config(2, Part::Server, &[]) }).await.err().expect("taken");
    assert!(matches!(error, BindError::Listen { transport: "UDP", .. }), "{error}");

    let mut another = world.config(2, Part::Server, &[]);
    another.identity = world.identity(5);
    let error = Node::bind(another).await.err().expect("not its certificate").to_string();
    assert!(error.contains("n5") && error.contains("n2"), "{error}");
    let mut nobody = world.config(2, Part::Server, &[]);
    nobody.identity = world.stranger();
    let error = Node::bind(nobody).await.err().expect("no certificate").to_string();
    assert!(error.contains("no node") && error.contains("n2"), "{error}");
}
