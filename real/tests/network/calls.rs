//! Unary calls: what a caller may conclude from what it is told.

use crate::{
    node::{Node, PATIENCE, World, attach, attached, call_of},
    raw,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};
use worldline_proto::NodeId;
use worldline_real::network::{Config, Part, tls::Holder};
use worldline_system::{
    Outcome, Refusal,
    doors::network::{Event, Submission},
    limits,
};

/// A worker and a gateway that knows it as node 3.
async fn pair(world: &World) -> (Node, Node) {
    let worker = world.node(3, Part::Server, &[]).await;
    let gateway = world.node(2, Part::Gateway, &[(3, worker.address())]).await;
    (gateway, worker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_with_what_the_callee_says() {
    let world = World::new();
    let (mut gateway, worker) = pair(&world).await;
    let outcomes = [
        Outcome::Done(attached(4)),
        Outcome::Refused(Refusal::NotServing),
        Outcome::Refused(Refusal::Busy),
        Outcome::Refused(Refusal::Malformed),
        Outcome::Unknown,
    ];
    for outcome in outcomes {
        let op = gateway.call(3, attach(7), PATIENCE);
        assert_eq!(worker.serve(&attach(7), outcome.clone()).await, NodeId(2));
        assert_eq!(gateway.answer(op).await, outcome);
    }
    assert_eq!((worker.count("calls_served"), worker.count("calls_waiting")), (5, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_overtake_each_other_and_a_second_reply_is_dropped() {
    let world = World::new();
    let (mut gateway, worker) = pair(&world).await;
    let ops: Vec<_> = (0..50).map(|n| (gateway.call(3, attach(n), PATIENCE), n)).collect();
    let mut called = Vec::new();
    for _ in &ops {
        let Event::Called { call, request, .. } = worker.event().await else { panic!("a call") };
        called.push((call, request));
    }
    for (call, request) in called.into_iter().rev() {
        let character = (0..50).find(|n| *request == attach(*n)).expect("one of ours");
        for epoch in [character, 99] {
            let outcome = Box::new(Outcome::Done(attached(epoch)));
            worker.network.submit(Submission::Reply { call, outcome });
        }
    }
    for _ in &ops {
        let Event::Answered { op, outcome } = gateway.event().await else { panic!("an answer") };
        let (_, n) = ops.iter().find(|(asked, _)| *asked == op).expect("asked");
        assert_eq!(*outcome, Outcome::Done(attached(*n)));
    }
    assert_eq!(worker.count("replies_dropped"), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_a_mebibyte_passes_and_one_byte_more_does_not() {
    let world = World::new();
    let (mut gateway, worker) = pair(&world).await;
    let op = gateway.call(3, call_of(limits::CALL_BYTES), PATIENCE);
    worker.serve(&call_of(limits::CALL_BYTES), Outcome::Refused(Refusal::NotServing)).await;
    assert_eq!(gateway.answer(op).await, Outcome::Refused(Refusal::NotServing));
    let outcome = gateway.ask(3, call_of(limits::CALL_BYTES + 1), PATIENCE).await;
    assert_eq!(outcome, Outcome::Refused(Refusal::Malformed), "it never left");
    assert_eq!(worker.count("calls_served"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_is_not_there_certainly_did_nothing() {
    let world = World::new();
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a free port").local_addr().expect("bound");
    let mut gateway = world.node(2, Part::Gateway, &[(3, gone)]).await;
    let unreachable = Outcome::Refused(Refusal::Unreachable);
    assert_eq!(gateway.ask(3, attach(1), PATIENCE).await, unreachable, "nobody listens");
    assert_eq!(gateway.ask(3, attach(1), PATIENCE).await, unreachable, "and it was tried just now");
    assert_eq!(gateway.ask(4, attach(1), PATIENCE).await, unreachable, "an unknown node");
    assert_eq!(gateway.ask(3, attach(1), Duration::ZERO).await, unreachable, "no time to send it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_time_is_up_does_not_leave_though_a_channel_is_at_hand() {
    let world = World::new();
    let (mut gateway, worker) = pair(&world).await;
    for n in 0..10 {
        let op = gateway.call(3, attach(n), PATIENCE);
        worker.serve(&attach(n), Outcome::Done(attached(n))).await;
        assert_eq!(gateway.answer(op).await, Outcome::Done(attached(n)));
        let late = gateway.ask(3, attach(99), Duration::ZERO).await;
        assert_eq!(late, Outcome::Refused(Refusal::Unreachable), "it certainly did not happen");
    }
    assert_eq!(worker.count("calls_served"), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_refused_after_its_handshake_is_made_again_after_a_pause() {
    const ASKED: u32 = 100;
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let shown = raw::from_files(world.files(&Holder::Node(NodeId(3))));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(raw::server_tls(b"h2", shown)));
    let accepted = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&accepted);
    // As who does not trust the caller: that shows only when its side of the handshake is done.
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(acceptor.accept(stream).await.expect("a caller that trusts it"));
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut gateway = world.node(2, Part::Gateway, &[(3, address)]).await;
    let begun = Instant::now();
    for n in 0..ASKED {
        assert!(!matches!(gateway.ask(3, attach(n.into()), PATIENCE).await, Outcome::Done(_)));
    }
    let (accepted, most) = (accepted.load(Ordering::Relaxed), 1 + begun.elapsed().as_millis() / 25);
    assert!(u128::from(accepted) <= most, "{accepted} channels, where pauses allow {most}");
    gateway.counted("channels_failed", accepted.into()).await;
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callee_that_accepts_and_never_answers_keeps_nobody_waiting() {
    let world = World::new();
    // Accepts TCP and says nothing: the call never leaves.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let worker = world.node(4, Part::Server, &[]).await;
    let peers = [(3, silent.local_addr().expect("bound")), (4, worker.address())];
    let mut gateway = world.node(2, Part::Gateway, &peers).await;
    let patience = Duration::from_millis(300);
    assert_eq!(gateway.ask(3, attach(1), patience).await, Outcome::Refused(Refusal::Unreachable));
    // Takes the call and says nothing: it may have happened. What it says too late finds nobody.
    let op = gateway.call(4, attach(2), patience);
    let Event::Called { call, .. } = worker.event().await else { panic!("a call") };
    assert_eq!(gateway.answer(op).await, Outcome::Unknown);
    worker.counted("calls_abandoned", 1).await;
    assert_eq!(worker.count("calls_waiting"), 0, "nothing is kept of a call that nobody waits for");
    worker.network.submit(Submission::Reply { call, outcome: Box::new(Outcome::Done(attached(1))) });
    assert_eq!(worker.count("replies_dropped"), 1);
}

#[test]
fn a_callee_that_dies_after_it_was_called_leaves_the_outcome_unknown_and_is_called_again() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("builds");
    let world = World::new();
    let (former, here) = (runtime(), runtime());
    let config = world.config(3, Part::Server, &[]);
    let worker = former.block_on(Node::bind(config.clone())).expect("a free port");
    let address = worker.address();
    let mut gateway = here.block_on(world.node(2, Part::Gateway, &[(3, address)]));
    let op = here.block_on(async { gateway.call(3, attach(1), PATIENCE) });
    assert!(matches!(former.block_on(worker.event()), Event::Called { .. }));
    former.shutdown_background();
    drop(worker);
    assert_eq!(here.block_on(gateway.answer(op)), Outcome::Unknown, "at once, not at the deadline");
    here.block_on(async {
        let again = async {
            loop {
                match Node::bind(Config { listen: address, ..config.clone() }).await {
                    Ok(worker) => return worker,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let worker = tokio::time::timeout(PATIENCE, again).await.expect("the address is free again");
        let op = gateway.call(3, attach(2), PATIENCE);
        worker.serve(&attach(2), Outcome::Done(attached(1))).await;
        assert_eq!(gateway.answer(op).await, Outcome::Done(attached(1)));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_too_much_to_do_refuses_what_it_cannot_take() {
    let world = World::new();
    let (mut gateway, worker) = pair(&world).await;
    let op = gateway.call(3, attach(0), PATIENCE);
    worker.serve(&attach(0), Outcome::Done(attached(1))).await;
    assert_eq!(gateway.answer(op).await, Outcome::Done(attached(1)));
    while worker.inbox.offer(worldline_system::doors::Event::Started) {}
    assert_eq!(gateway.ask(3, attach(1), PATIENCE).await, Outcome::Refused(Refusal::Busy), "its inbox is full");
    while worker.inbox.next_event(Duration::ZERO).is_some() {}
    // One channel carries so many calls at once; the next does not leave.
    let ops: Vec<_> = (0..1_024).map(|n| gateway.call(3, attach(n), PATIENCE)).collect();
    let refused = gateway.call(3, attach(9_999), PATIENCE);
    assert_eq!(gateway.answer(refused).await, Outcome::Refused(Refusal::Busy));
    for _ in &ops {
        let Event::Called { call, .. } = worker.event().await else { panic!("a call") };
        worker.network.submit(Submission::Reply { call, outcome: Box::new(Outcome::Done(attached(2))) });
    }
    for _ in &ops {
        let Event::Answered { outcome, .. } = gateway.event().await else { panic!("an answer") };
        assert_eq!(*outcome, Outcome::Done(attached(2)));
    }
}

/// Carries TCP connections to one address. Those that stand when the number changes hang from then on: open, and silent.
async fn relay(to: SocketAddr) -> (SocketAddr, watch::Sender<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (cuts, mut cut) = watch::channel(0);
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut caller, _)) = listener.accept().await {
            let mut callee = TcpStream::connect(to).await.expect("listens");
            cut.mark_unchanged();
            let mut cut = cut.clone();
            connections.spawn(async move {
                tokio::select! {
                    // What is sent after the cut is not carried.
                    biased;
                    _ = cut.changed() => std::future::pending().await,
                    _ = copy_bidirectional(&mut caller, &mut callee) => {}
                }
            });
        }
    });
    (address, cuts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_hangs_is_noticed_and_replaced() {
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let (address, cuts) = relay(worker.address()).await;
    let mut gateway = world.node(2, Part::Gateway, &[(3, address)]).await;
    let op = gateway.call(3, attach(1), PATIENCE);
    worker.serve(&attach(1), Outcome::Done(attached(1))).await;
    assert_eq!(gateway.answer(op).await, Outcome::Done(attached(1)));
    cuts.send_replace(1);
    // Its own deadline is far away: what it is told comes from the keep-alive.
    let op = gateway.call(3, attach(2), PATIENCE);
    assert_eq!(gateway.answer(op).await, Outcome::Unknown, "it may have been served");
    let op = gateway.call(3, attach(3), PATIENCE);
    worker.serve(&attach(3), Outcome::Done(attached(3))).await;
    assert_eq!(gateway.answer(op).await, Outcome::Done(attached(3)), "on a new channel");
}
