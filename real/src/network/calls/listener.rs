//! The TCP side: accepts, completes TLS and the beginning of HTTP/2 within a bound, and serves each connection.
//!
//! Beside the contract's service stand the standard health service and reflection, for anybody who trusts the authority. There
//! are few places for those, so none is kept for long ([`Stay`]).

use super::{
    ALPN, CALL_WINDOW, CALLS_PER_CHANNEL, CHANNEL_WINDOW,
    server::{Caller, Served, Worker},
};
use crate::{
    machine::{Listener, Stream},
    network::{
        HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE,
        counters::{Count, Counters},
        half_open::HalfOpen,
        tasks::Tasks,
        tls::{self, Identity},
    },
    ready::Readiness,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{interval, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{
    codegen::{Service as _, http},
    server::NamedService as _,
    service::Routes,
};
use tonic_health::{ServingStatus, server::HealthReporter};

/// TCP connections that may be half open; one more displaces the oldest.
const HALF_OPEN_MAX: usize = 256;
/// TCP connections of roles that one node serves.
const ROLES_MAX: usize = 1_024;
/// TCP connections of others: they can ask for health and reflection only, and never take a role's place.
const STRANGERS_MAX: usize = 64;
/// How long one of others may stay: who asks now and then finds a place whoever else has come.
const STRANGERS_STAY: Stay = Stay { idle: Duration::from_secs(60), whole: Duration::from_secs(600) };
/// What a connection that must go has for the answers that are under way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How often the health service looks whether the process is ready.
const HEALTH_PERIOD: Duration = Duration::from_millis(250);
/// The wait after the system had no connection to give: it is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a listener serves.
pub(in crate::network) struct Listening {
    pub identity: Identity,
    pub served: Served,
    pub ready: Readiness,
    pub counters: Counters,
    pub tasks: Tasks,
    /// Turns true when the network closes.
    pub closing: watch::Receiver<bool>,
}

/// How long a connection may stay.
#[derive(Clone, Copy)]
struct Stay {
    /// After it was opened, or has last asked something.
    idle: Duration,
    /// After it was opened.
    whole: Duration,
}

/// Begins to serve `listener`.
///
/// # Errors
/// The identity cannot serve.
pub(in crate::network) fn listen(listener: Box<dyn Listener>, what: Listening) -> Result<(), rustls::Error> {
    listen_with(listener, what, STRANGERS_STAY)
}

fn listen_with(listener: Box<dyn Listener>, what: Listening, stay: Stay) -> Result<(), rustls::Error> {
    let acceptor = TlsAcceptor::from(Arc::new(what.identity.server(&[ALPN])?));
    let (reporter, health) = tonic_health::server::health_reporter();
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(worldline_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let bad = |error| rustls::Error::General(format!("the contract's descriptors: {error}"));
    // Clients in the field speak either version of reflection: grpcio still the older.
    let (reflection, older) = (descriptors().build_v1().map_err(bad)?, descriptors().build_v1alpha().map_err(bad)?);
    let routes =
        Routes::new(Worker(what.served)).add_service(health).add_service(reflection).add_service(older).prepare();
    what.tasks.spawn(report_health(reporter, what.ready, what.closing.clone()));
    let door = Arc::new(Door {
        acceptor,
        routes,
        counters: what.counters,
        tasks: what.tasks.clone(),
        closing: what.closing,
        roles: Arc::new(Semaphore::new(ROLES_MAX)),
        strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
        stay,
    });
    what.tasks.spawn(accept(listener, door));
    Ok(())
}

async fn report_health(reporter: HealthReporter, ready: Readiness, mut closing: watch::Receiver<bool>) {
    let mut period = interval(HEALTH_PERIOD);
    loop {
        let status = if ready.problems().is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in ["", Worker::NAME] {
            reporter.set_service_status(service, status).await;
        }
        tokio::select! {
            biased;
            _ = period.tick() => {}
            _ = closing.wait_for(|closing| *closing) => return,
        }
    }
}

struct Door {
    acceptor: TlsAcceptor,
    routes: Routes,
    counters: Counters,
    tasks: Tasks,
    closing: watch::Receiver<bool>,
    roles: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// Of strangers; roles stay.
    stay: Stay,
}

async fn accept(listener: Box<dyn Listener>, door: Arc<Door>) {
    let mut closing = door.closing.clone();
    let mut half_open = HalfOpen::new(door.tasks.clone(), HALF_OPEN_MAX);
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match accepted {
            Ok(stream) => {
                let handshake = handshake(Arc::clone(&door), stream);
                if half_open.begin(handshake) {
                    door.counters.add(Count::TcpEvicted);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no TCP connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Completes TLS and reads the beginning of HTTP/2: only then has the other side shown that it will speak.
async fn handshake(door: Arc<Door>, stream: Box<dyn Stream>) {
    let complete = async {
        stream.prompt()?;
        let mut stream = door.acceptor.accept(stream).await?;
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await?;
        if &preface == PREFACE { Ok(stream) } else { Err(io::Error::other("not HTTP/2")) }
    };
    match timeout(HANDSHAKE_TIMEOUT, complete).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let caller = Caller(certificate.and_then(tls::node_of));
            let places = if caller.0.is_some() { &door.roles } else { &door.strangers };
            match Arc::clone(places).try_acquire_owned() {
                Ok(place) => {
                    door.tasks.clone().spawn(serve(door, stream, caller, place));
                }
                Err(_) => door.counters.add(Count::TcpTooMany),
            }
        }
        Ok(Err(error)) => {
            door.counters.add(Count::TlsFailed);
            tracing::debug!(%error, "no TLS with HTTP/2");
        }
        Err(_) => door.counters.add(Count::TlsFailed),
    }
}

async fn serve(door: Arc<Door>, stream: TlsStream<Box<dyn Stream>>, caller: Caller, place: OwnedSemaphorePermit) {
    let (asked, asks) = watch::channel(());
    let service = hyper::service::service_fn(|mut request: http::Request<hyper::body::Incoming>| {
        asked.send_replace(());
        request.extensions_mut().insert(caller);
        door.routes.clone().call(request)
    });
    let mut http = hyper::server::conn::http2::Builder::new(door.tasks.clone());
    http.timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(IDLE_TIMEOUT - KEEP_ALIVE)
        .max_concurrent_streams(CALLS_PER_CHANNEL as u32)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CHANNEL_WINDOW);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(Begun { read: 0, stream }), service));
    let mut closing = door.closing.clone();
    let overstays = async {
        match caller.0 {
            Some(_) => std::future::pending().await,
            None => door.stay.over(asks).await,
        }
    };
    let (ended, last_answers) = tokio::select! {
        biased;
        ended = connection.as_mut() => (Some(ended), Duration::ZERO),
        _ = closing.wait_for(|closing| *closing) => (None, Duration::MAX),
        () = overstays => {
            door.counters.add(Count::TcpOverstayed);
            (None, LAST_ANSWERS)
        }
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(last_answers, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a TCP connection has ended");
    }
    drop(place);
}

impl Stay {
    /// Waits until it is over.
    async fn over(self, mut asks: watch::Receiver<()>) {
        let idle = async { while let Ok(Ok(())) = timeout(self.idle, asks.changed()).await {} };
        drop(timeout(self.whole, idle).await);
    }
}

/// A stream whose preface was read, and is read again.
struct Begun {
    read: usize,
    stream: TlsStream<Box<dyn Stream>>,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read < PREFACE.len() {
            let rest = &PREFACE[self.read..];
            let rest = &rest[..rest.len().min(buffer.remaining())];
            buffer.put_slice(rest);
            self.read += rest.len();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Begun {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Inbox,
        machine::{Machine as _, Own},
        network::tls::{Authority, Holder},
    };
    use tokio::{io::AsyncWriteExt as _, net::TcpStream};
    use worldline_proto::NodeId;

    const PATIENCE: Duration = Duration::from_secs(30);
    /// Longer than any test.
    const LONG: Duration = Duration::from_secs(3_600);

    /// What a caller begins HTTP/2 with: its preface, and that its settings are the standard's.
    async fn greet(stream: &mut (impl AsyncWrite + Unpin)) {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        stream.write_all(&[&PREFACE[..], &settings].concat()).await.expect("open");
    }

    /// Whether a ping comes back.
    async fn answered(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
        const PING: u8 = 6;
        const GO_AWAY: u8 = 7;
        const ACKNOWLEDGED: u8 = 1;
        let ping = [&[0, 0, 8, PING, 0, 0, 0, 0, 0][..], b"whoever!"].concat();
        stream.write_all(&ping).await.expect("open");
        loop {
            let mut header = [0; 9];
            stream.read_exact(&mut header).await.expect("open");
            let [a, b, c, kind, flags, ..] = header;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            stream.read_exact(&mut payload).await.expect("open");
            match kind {
                PING if flags == ACKNOWLEDGED && payload == b"whoever!" => return true,
                GO_AWAY => return false,
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn a_strangers_place_is_free_again_and_a_role_stays() {
        let folder = std::env::temp_dir().join(format!("worldline-listener-{}", std::process::id()));
        let authority = Authority::create().expect("entropy");
        authority.save(&folder).expect("writes");
        authority.issue(&Holder::Node(NodeId(3)), &[]).expect("issues").save(&folder).expect("writes");
        let (ca, file) = (folder.join("ca.pem"), |name: &str| folder.join(name));
        let role = Identity::load(&ca, &file("n3.pem"), &file("n3.key")).expect("just issued");
        let stranger = Identity::stranger(&ca).expect("just made");
        for stay in [
            Stay { idle: Duration::from_millis(50), whole: LONG },
            Stay { idle: LONG, whole: Duration::from_millis(50) },
        ] {
            let listener = Own.listen("127.0.0.1:0".parse().expect("an address")).await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            let (tasks, counters) = (Tasks::new(tokio::runtime::Handle::current()), Counters::default());
            let (_open, closing) = watch::channel(false);
            let what = Listening {
                identity: role.clone(),
                served: Served::new(Inbox::default(), counters.clone()),
                ready: Readiness::default(),
                counters: counters.clone(),
                tasks: tasks.clone(),
                closing,
            };
            listen_with(listener, what, stay).expect("can serve");
            let connect = async |identity: &Identity| {
                let connector = tokio_rustls::TlsConnector::from(Arc::new(identity.client(ALPN).expect("can call")));
                let stream = TcpStream::connect(address).await.expect("listens");
                let mut stream = connector.connect(tls::server_name(NodeId(3)), stream).await.expect("trusted");
                greet(&mut stream).await;
                stream
            };
            let (mut peer, mut idle) = (connect(&role).await, connect(&stranger).await);
            let mut told = Vec::new();
            let ended = timeout(PATIENCE, idle.read_to_end(&mut told)).await.expect("it must go");
            drop(ended);
            let overstayed = counters.each().into_iter().find(|(name, _)| *name == "tcp_connections_overstayed");
            assert_eq!(overstayed.expect("counted").1, 1);
            assert!(answered(&mut peer).await, "the role's connection stands");
            tasks.end(Duration::ZERO).await;
        }
        drop(std::fs::remove_dir_all(&folder));
    }
}
