//! Who may do what: by certificate, and by nothing else.

use crate::{
    node::{Node, PATIENCE, World, attach, attached},
    raw,
};
use std::time::Duration;
use tonic::{
    Code,
    client::Grpc,
    codegen::{http::uri::PathAndQuery, tokio_stream},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use worldline_proto::{
    NodeId,
    server::{AttachReply, AttachRequest, PerformReply, PerformRequest, Reply},
};
use worldline_real::network::{Part, tls::Holder};
use worldline_system::{Outcome, Refusal, doors::network::CloseReason, limits, time::UnixTime};

/// A gRPC client that is not ours.
async fn grpc_client(world: &World, node: &Node, holder: Option<&Holder>) -> Channel {
    let read = |path| std::fs::read_to_string(path).expect("there");
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(world.ca()))).domain_name("localhost");
    if let Some(holder) = holder {
        let (certificate, key) = world.files(holder);
        tls = tls.identity(Identity::from_pem(read(certificate), read(key)));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", node.address())).expect("an address");
    endpoint.tls_config(tls).expect("PEM").connect().await.expect("listens")
}

fn path(method: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(method)
}

const ATTACH: &str = "/worldline.server.v1.Worker/Attach";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_a_roles_certificate_is_turned_away_and_a_player_only_reaches_gateways() {
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let gateway = world.node(2, Part::Gateway, &[]).await;
    let tool = raw::from_files(world.files(&Holder::Stranger("tool".into())));
    for (n, shown) in [(1, None), (2, Some(tool))] {
        let stranger = raw::client(&world, raw::PEER, shown);
        let connection = raw::connect(&stranger, worker.address(), "n3.worldline").await;
        assert_eq!(raw::closed_with(&connection).await, 1, "a protocol error");
        assert_eq!(worker.count("peers_without_role"), n);
    }
    let mut player = world.node(9, Part::Client, &[(3, worker.address()), (2, gateway.address())]).await;
    assert_eq!(player.try_connect(3).await, Err(CloseReason::ProtocolError), "a worker speaks to roles only");
    assert_eq!(worker.count("quic_handshakes_failed"), 1);
    assert_eq!(worker.event_within(Duration::ZERO).await, None, "the role hears of none of them");
    player.connect(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_talks_to_a_node_of_another_authority_or_to_another_node_than_was_meant() {
    let (world, other_world) = (World::new(), World::new());
    let worker = world.node(3, Part::Server, &[]).await;
    let peers = [(3, worker.address()), (4, worker.address())];
    let unreachable = Outcome::Refused(Refusal::Unreachable);

    let mut foreigner = other_world.node(2, Part::Gateway, &peers).await;
    assert_eq!(foreigner.try_connect(3).await, Err(CloseReason::ProtocolError), "it does not trust the worker");
    assert_eq!(foreigner.ask(3, attach(1), PATIENCE).await, unreachable);

    let mut gateway = world.node(2, Part::Gateway, &peers).await;
    assert_eq!(gateway.try_connect(4).await, Err(CloseReason::ProtocolError), "node 3 is not node 4");
    assert_eq!(gateway.ask(4, attach(1), PATIENCE).await, unreachable);

    // One that trusts the worker, which does not trust it.
    let foreign = other_world.files(&Holder::Node(NodeId(2)));
    let endpoint = raw::client(&world, raw::PEER, Some(raw::from_files(foreign)));
    let connecting = endpoint.connect(worker.address(), "n3.worldline").expect("a name");
    if let Ok(connection) = connecting.await {
        assert!(matches!(connection.closed().await, quinn::ConnectionError::ConnectionClosed(_)), "by TLS");
    }
    worker.counted("quic_handshakes_failed", 3).await;
    assert_eq!(worker.event_within(Duration::ZERO).await, None, "the role hears of none of them");
    gateway.connect(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_not_accepted_from_either_side() {
    let world = World::new();
    let day = |n: u64| UnixTime::from_nanos(n * 24 * 60 * 60 * 1_000_000_000);
    let expired = world.authority().issue_for(&Holder::Node(NodeId(5)), &[], day(1), day(2)).expect("issues");
    let server = raw::server(raw::PEER, raw::from_issued(&expired));
    let worker = world.node(3, Part::Server, &[]).await;
    let peers = [(5, server.local_addr().expect("bound"))];
    let mut gateway = world.node(2, Part::Gateway, &peers).await;
    let accepting = tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            drop(incoming.await);
        }
    });
    assert_eq!(gateway.try_connect(5).await, Err(CloseReason::ProtocolError));
    let endpoint = raw::client(&world, raw::PEER, Some(raw::from_issued(&expired)));
    if let Ok(connection) = endpoint.connect(worker.address(), "n3.worldline").expect("a name").await {
        assert!(matches!(connection.closed().await, quinn::ConnectionError::ConnectionClosed(_)), "by TLS");
    }
    worker.counted("quic_handshakes_failed", 1).await;
    accepting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_are_for_everybody_and_follow_the_process() {
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let channel = grpc_client(&world, &worker, None).await;
    let mut health = HealthClient::new(channel.clone());
    let service = "worldline.server.v1.Worker".to_owned();
    let mut watch = health.watch(HealthCheckRequest { service: service.clone() }).await.expect("known").into_inner();
    let mut next = async |expected: ServingStatus| {
        let told = async { while watch.message().await.expect("goes on").expect("goes on").status() != expected {} };
        tokio::time::timeout(PATIENCE, told).await.expect("told in time");
    };
    next(ServingStatus::Serving).await;
    worker.ready.missing("ledger", "nobody answers");
    next(ServingStatus::NotServing).await;
    let asked = health.check(HealthCheckRequest { service: String::new() }).await.expect("known");
    assert_eq!(asked.into_inner().status(), ServingStatus::NotServing);
    worker.ready.fulfilled("ledger");
    next(ServingStatus::Serving).await;

    let mut reflection = ServerReflectionClient::new(channel);
    let ask = |message_request| ServerReflectionRequest { host: String::new(), message_request: Some(message_request) };
    let asks =
        [ask(MessageRequest::ListServices(String::new())), ask(MessageRequest::FileContainingSymbol(service.clone()))];
    let mut told = reflection.server_reflection_info(tokio_stream::iter(asks)).await.expect("served").into_inner();
    let listed = told.message().await.expect("told").expect("one each").message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
    assert!(listed.service.iter().any(|listed| listed.name == service), "{listed:?}");
    let file = told.message().await.expect("told").expect("one each").message_response;
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_grpc_client_with_a_roles_certificate_can_call_and_others_cannot() {
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let codec = ProstCodec::<AttachRequest, AttachReply>::default;
    let request = || AttachRequest { character: 7, generation: 1, inputs_through: 0 };
    for holder in [None, Some(&Holder::Stranger("tool".into()))] {
        let mut stranger = Grpc::new(grpc_client(&world, &worker, holder).await);
        stranger.ready().await.expect("connected");
        let refused = stranger.unary(tonic::Request::new(request()), path(ATTACH), codec()).await.expect_err("refused");
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    assert_eq!((worker.count("calls_unauthenticated"), worker.count("calls_served")), (2, 0));

    let role = grpc_client(&world, &worker, Some(&Holder::Node(NodeId(2)))).await;
    let call = |method, timeout| {
        let mut grpc = Grpc::new(role.clone());
        async move {
            grpc.ready().await.expect("connected");
            let mut asked = tonic::Request::new(request());
            asked.set_timeout(timeout);
            grpc.unary(asked, path(method), codec()).await
        }
    };
    let answered = tokio::spawn(call(ATTACH, PATIENCE));
    assert_eq!(worker.serve(&attach(7), Outcome::Done(attached(4))).await, NodeId(2));
    assert_eq!(answered.await.expect("runs").expect("answered").get_ref().epoch, 4);
    let refused = tokio::spawn(call(ATTACH, PATIENCE));
    worker.serve(&attach(7), Outcome::Refused(Refusal::NotServing)).await;
    let refused = refused.await.expect("runs").expect_err("refused");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.metadata().get("worldline-refusal").expect("said exactly"), "NotServing");
    let unknown = tokio::spawn(call(ATTACH, PATIENCE));
    worker.serve(&attach(7), Outcome::Unknown).await;
    assert_eq!(unknown.await.expect("runs").expect_err("unknown").code(), Code::Internal);
    let late = call(ATTACH, Duration::from_millis(50)).await.expect_err("nobody answers");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    worker.counted("calls_abandoned", 1).await;
    let missing = call("/worldline.server.v1.Worker/Fly", PATIENCE).await.expect_err("no such method");
    assert_eq!(missing.code(), Code::Unimplemented);
    let missing = call("/worldline.server.v1.Dragon/Fly", PATIENCE).await.expect_err("no such service");
    assert_eq!(missing.code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_too_long_or_no_calls_are_refused_and_counted() {
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let role = grpc_client(&world, &worker, Some(&Holder::Node(NodeId(2)))).await;
    let mut grpc = Grpc::new(role);
    let perform = |bytes: usize| PerformRequest { action: vec![0; bytes], ..PerformRequest::default() };
    let codec = ProstCodec::<PerformRequest, AttachReply>::default();
    grpc.ready().await.expect("connected");
    let long = tonic::Request::new(perform(limits::CALL_BYTES));
    let refused = grpc.unary(long, path("/worldline.server.v1.Worker/Perform"), codec).await.expect_err("too long");
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(refused.metadata().get("worldline-refusal").expect("said exactly"), "Malformed");
    // Where an `AttachReply` holds a status, an `AttachRequest` holds a character.
    grpc.ready().await.expect("connected");
    let wrong = tonic::Request::new(AttachReply { status: 1, ..AttachReply::default() });
    let codec = ProstCodec::<AttachReply, AttachReply>::default();
    let refused = grpc.unary(wrong, path(ATTACH), codec).await.expect_err("does not decode");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!((worker.count("calls_malformed"), worker.count("calls_served")), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_to_another_question_leaves_the_outcome_unknown() {
    let world = World::new();
    let worker = world.node(3, Part::Server, &[]).await;
    let mut gateway = world.node(2, Part::Gateway, &[(3, worker.address())]).await;
    let op = gateway.call(3, attach(1), PATIENCE);
    worker.serve(&attach(1), Outcome::Done(Reply::Perform(PerformReply::default()))).await;
    assert_eq!(gateway.answer(op).await, Outcome::Unknown);
}
