//! Something else than a usable etcd is where etcd should be: the operator is told what and where, and nobody hangs.

use super::{etcd::Etcd, *};
use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use tonic::{
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, UnaryService},
    transport::server::TcpIncoming,
};
use tonic_prost::ProstCodec;
use worldline_system::Refusal;

/// Whatever answers every connection with these bytes and, if it `stays`, keeps it open.
fn impostor(caller: &Caller, says: &'static [u8], stays: bool) -> String {
    let listener = caller.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    caller.runtime.spawn(async move {
        let mut kept = vec![];
        while let Ok((mut stream, _)) = listener.accept().await {
            // It may have hung up.
            let _ = stream.write_all(says).await;
            if stays {
                kept.push(stream);
            }
        }
    });
    url
}

/// Where a gRPC server of the test will answer.
fn bound(host: &Caller) -> (TcpIncoming, String) {
    let listener = host.runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    (TcpIncoming::from(listener), url)
}

/// What a member of etcd says of itself, and that it is of this version.
#[derive(Clone)]
struct Maintenance(&'static str);

/// The part of etcd's `StatusResponse` that counts.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    version: String,
}

impl NamedService for Maintenance {
    const NAME: &'static str = "etcdserverpb.Maintenance";
}

impl Service<http::Request<Body>> for Maintenance {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(Grpc::new(ProstCodec::<Status, ()>::default()).unary(this, request).await) })
    }
}

impl UnaryService<()> for Maintenance {
    type Response = Status;
    type Future = Ready<Result<tonic::Response<Status>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<()>) -> Self::Future {
        ready(Ok(tonic::Response::new(Status { version: self.0.to_owned() })))
    }
}

fn is_refused_and_reported(url: &str, part: &str) {
    let mut caller = Caller::new(&[url]);
    let op = caller.ask_within(transaction(vec![], vec![put(boss(1), owned(1))]), LONG);
    let refused = Answer::Transacted(Outcome::Refused(Refusal::Unreachable));
    assert_eq!(caller.answer(op), refused, "it has certainly not left");
    let problem = caller.problem(part);
    assert!(problem.contains(url.trim_start_matches("http://")), "{problem}");
}

#[test]
fn what_is_not_etcd_is_named_and_nothing_is_sent_to_it() {
    let host = Caller::new(&["http://127.0.0.1:1"]);
    is_refused_and_reported(&impostor(&host, b"", true), "accepts connections and never answers");
    is_refused_and_reported(&impostor(&host, b"", false), "is not etcd");
    is_refused_and_reported(&impostor(&host, &[0xff; 4_096], true), "is not etcd");
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    is_refused_and_reported(&impostor(&host, http, true), "is not etcd");
}

#[test]
fn another_grpc_server_is_not_etcd() {
    let host = Caller::new(&["http://127.0.0.1:1"]);
    let (incoming, url) = bound(&host);
    let (_, health) = tonic_health::server::health_reporter();
    host.runtime.spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));
    is_refused_and_reported(&url, "is not etcd");
}

#[test]
fn an_etcd_of_another_version_is_named_with_it_and_nothing_is_sent_to_it() {
    let host = Caller::new(&["http://127.0.0.1:1"]);
    for version in ["3.3.27", "2.3.8"] {
        let (incoming, url) = bound(&host);
        let server = tonic::transport::Server::builder().add_service(Maintenance(version));
        host.runtime.spawn(server.serve_with_incoming(incoming));
        is_refused_and_reported(&url, &format!("is of version `{version}`: 3.4 or newer is needed"));
    }
}

#[test]
fn a_right_member_among_wrong_ones_is_found() {
    let etcd = Etcd::start(&[]);
    let host = Caller::new(&["http://127.0.0.1:1"]);
    let urls = ["http://127.0.0.1:1".to_owned(), impostor(&host, b"", true), etcd.url()];
    let mut caller = Caller::connected(&urls);
    caller.put(boss(1), 1);
}

#[test]
fn credentials_are_checked_and_a_wrong_one_is_never_shown() {
    let etcd = Etcd::start(&[]);
    let with = |user: &str| etcd.url().replace("http://", &format!("http://{user}@"));
    let needless = Caller::new(&[with("root:sesame")]);
    let problem = needless.problem("has no users");
    assert!(!problem.contains("sesame"), "{problem}");
    let mut client = needless.etcd(&etcd.url());
    needless.runtime.block_on(async {
        client.user_add("root", "sesame", None).await.expect("added");
        client.user_grant_role("root", "root").await.expect("granted");
        client.user_add("guest", "guest", None).await.expect("added");
        client.auth_enable().await.expect("enabled");
    });
    needless.until_ready();
    let mut right = needless;
    assert_eq!(right.call(grant(7, 60)), Answer::Granted(Outcome::Done(())));
    for _ in 0..2 {
        assert!(matches!(right.call(Submission::KeepAlive(lease(7))), Answer::KeptAlive(Outcome::Done(_))));
    }
    let watch = right.watch(Family::Owners, Revision(1));
    right.put(boss(1), 1);
    right.changes(watch);
    let wrong = Caller::new(&[with("root:sesam")]);
    let problem = wrong.problem("refuses the user or the password");
    assert!(!problem.contains("sesam"), "{problem}");
    let none = Caller::new(&[etcd.url()]);
    none.problem("wants a user and a password");
    let mut guest = Caller::new(&[with("guest:guest")]);
    guest.problem("permission denied");
    let refused = guest.transact(vec![], vec![put(boss(2), owned(1))]);
    assert_eq!(refused, Outcome::Refused(Refusal::NotServing));
}
