//! What is under the door, used as its documentation shows.

use super::{Certificates, LOST, MESSAGE_BYTES, Round, Stopwatch};
use quinn::{
    ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, task::Poll, thread, time::Duration};
use tokio::{
    runtime::Runtime,
    sync::{Mutex, mpsc},
    time::timeout,
};
use tonic::{
    body::Body,
    client::Grpc,
    codegen::{Service, http, tokio_stream::wrappers::TcpListenerStream},
    server::NamedService,
    transport::{Channel, ClientTlsConfig, Endpoint as GrpcEndpoint, Identity, Server, ServerTlsConfig},
};
use tonic_prost::ProstCodec;
use worldline_proto::server::{AttachReply, AttachRequest};
use worldline_real::network::KEEP_ALIVE;

/// Client and server of plain tonic, with certificates on both sides.
pub struct Tonic<'a> {
    runtime: &'a Runtime,
    channel: Channel,
}

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "worldline.server.v1.Worker";
}

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl tonic::server::UnaryService<AttachRequest> for Echo {
    type Response = AttachReply;
    type Future = Answer<Result<tonic::Response<AttachReply>, tonic::Status>>;

    fn call(&mut self, _: tonic::Request<AttachRequest>) -> Self::Future {
        let reply = AttachReply { epoch: 4, applied_through: 9, ..AttachReply::default() };
        Box::pin(async move { Ok(tonic::Response::new(reply)) })
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<AttachReply, AttachRequest>::default());
            Ok(grpc.unary(Echo, request).await)
        })
    }
}

impl<'a> Tonic<'a> {
    pub fn new(runtime: &'a Runtime, certificates: &Certificates) -> Self {
        let ca = tonic::transport::Certificate::from_pem(certificates.pem("ca.pem"));
        let identity = |node| {
            Identity::from_pem(certificates.pem(&format!("{node}.pem")), certificates.pem(&format!("{node}.key")))
        };
        let server_tls = ServerTlsConfig::new().identity(identity("n1")).client_ca_root(ca.clone());
        let client_tls = ClientTlsConfig::new().ca_certificate(ca).identity(identity("n2")).domain_name("n1.worldline");
        let channel = runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            let mut server = Server::builder().tls_config(server_tls).expect("a pair").tcp_nodelay(true);
            let serving = server.add_service(Echo).serve_with_incoming(TcpListenerStream::new(listener));
            tokio::spawn(async move { drop(serving.await) });
            let endpoint = GrpcEndpoint::from_shared(format!("https://{address}")).expect("an address");
            endpoint.tls_config(client_tls).expect("a pair").tcp_nodelay(true).connect().await.expect("listens")
        });
        Self { runtime, channel }
    }

    pub fn calls(&self, depth: usize) -> Round {
        self.runtime.block_on(async {
            let (told, mut answers) = mpsc::unbounded_channel();
            let call = || {
                let (channel, told) = (self.channel.clone(), told.clone());
                tokio::spawn(async move {
                    let mut grpc = Grpc::new(channel);
                    grpc.ready().await.expect("connected");
                    let mut request =
                        tonic::Request::new(AttachRequest { character: 7, generation: 1, inputs_through: 9 });
                    request.set_timeout(Duration::from_secs(5));
                    let path = http::uri::PathAndQuery::from_static("/worldline.server.v1.Worker/Attach");
                    let codec = ProstCodec::<AttachRequest, AttachReply>::default();
                    let reply = grpc.unary(request, path, codec).await.expect("answered");
                    let _ = told.send(reply.into_inner());
                });
            };
            let mut watch = Stopwatch::start();
            for _ in 0..depth {
                watch.sent();
                call();
            }
            while watch.waiting() {
                answers.recv().await.expect("goes on");
                if watch.back() {
                    watch.sent();
                    call();
                }
            }
            watch.stop()
        })
    }
}

/// A connection of plain quinn with an echo at its other end.
pub struct Quinn<'a> {
    runtime: &'a Runtime,
    connection: Connection,
    streams: Mutex<(SendStream, RecvStream)>,
    _endpoints: (Endpoint, Endpoint),
}

/// Where the echo runs. The caller has a thread of its own in any case, as it has through the door.
#[derive(Clone, Copy, Debug)]
pub enum Application {
    /// On a thread of its own, as a role does: as many threads as through the door.
    Thread,
    /// As a task among quinn's own.
    Task,
}

impl<'a> Quinn<'a> {
    pub fn new(runtime: &'a Runtime, certificates: &Certificates, application: Application) -> Self {
        let certificate = |name| CertificateDer::from_pem_slice(&certificates.pem(name)).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(&certificates.pem("n1.key")).expect("PEM");
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate("ca.pem")).expect("an authority");
        let mut server = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("known")
            .with_no_client_auth()
            .with_single_cert(vec![certificate("n1.pem")], key)
            .expect("a pair");
        let mut client = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("known")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (server.alpn_protocols, client.alpn_protocols) = (vec![b"echo".to_vec()], vec![b"echo".to_vec()]);
        let any = "127.0.0.1:0".parse().expect("an address");
        runtime.block_on(async {
            let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).expect("TLS 1.3")));
            let server = Endpoint::server(server, any).expect("a free port");
            let listening = server.clone();
            let echo = async move {
                let connection = listening.accept().await.expect("open").await.expect("trusted");
                tokio::join!(echo_stream(&connection), echo_datagrams(&connection));
            };
            match application {
                Application::Thread => {
                    let handle = runtime.handle().clone();
                    thread::spawn(move || handle.block_on(echo));
                }
                Application::Task => {
                    tokio::spawn(echo);
                }
            }
            let endpoint = Endpoint::client(any).expect("a free port");
            let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).expect("TLS 1.3")));
            // It waits its turn for longer than quinn keeps a silent connection.
            let mut transport = TransportConfig::default();
            transport.keep_alive_interval(Some(KEEP_ALIVE));
            config.transport_config(Arc::new(transport));
            let address = server.local_addr().expect("bound");
            let connecting = endpoint.connect_with(config, address, "n1.worldline").expect("a name");
            let connection = connecting.await.expect("listens");
            let streams = Mutex::new(connection.open_bi().await.expect("allowed"));
            Self { runtime, connection, streams, _endpoints: (endpoint, server) }
        })
    }

    pub fn messages(&self, depth: usize) -> Round {
        let message = [&(MESSAGE_BYTES as u32).to_be_bytes()[..], &[7; MESSAGE_BYTES]].concat();
        self.runtime.block_on(async {
            let (send, receive) = &mut *self.streams.lock().await;
            let mut watch = Stopwatch::start();
            for _ in 0..depth {
                watch.sent();
                send.write_all(&message).await.expect("open");
            }
            let mut echo = vec![0; message.len()];
            while watch.waiting() {
                receive.read_exact(&mut echo).await.expect("open");
                if watch.back() {
                    watch.sent();
                    send.write_all(&message).await.expect("open");
                }
            }
            watch.stop()
        })
    }

    pub fn datagrams(&self, depth: usize) -> Round {
        let send = |watch: &mut Stopwatch| self.connection.send_datagram(watch.datagram().into()).expect("open");
        self.runtime.block_on(async {
            let mut watch = Stopwatch::start();
            let mut more = true;
            while more {
                (0..depth).for_each(|_| send(&mut watch));
                while watch.waiting() {
                    match timeout(LOST, self.connection.read_datagram()).await {
                        Ok(datagram) => {
                            if !watch.is_ours(&datagram.expect("open")) {
                                continue;
                            }
                            more = watch.back();
                        }
                        Err(_) => more = watch.lost(),
                    }
                    if more && watch.waiting() {
                        send(&mut watch);
                    }
                }
            }
            watch.stop()
        })
    }
}

async fn echo_stream(connection: &Connection) {
    let Ok((mut send, mut receive)) = connection.accept_bi().await else { return };
    let mut message = vec![0; 4 + MESSAGE_BYTES];
    while receive.read_exact(&mut message).await.is_ok() {
        if send.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn echo_datagrams(connection: &Connection) {
    while let Ok(datagram) = connection.read_datagram().await {
        if connection.send_datagram(datagram).is_err() {
            return;
        }
    }
}
