//! `/health` (this process is alive, and what it has counted), `/ready` (it can do its work, or what it waits for) and
//! `/metrics` (what it tells of itself, for Prometheus).
//!
//! A connection lives a few seconds at most, and one too many ends the oldest: whoever opens many and says nothing keeps
//! nobody else out.

use crate::{
    Inbox,
    bus::Bus,
    cache::Cache,
    hooks::Probes,
    host::Counters,
    network::Network,
    ready::Readiness,
    telemetry::{MEDIA_TYPE, Own, Telemetry},
};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use serde_json::{Map, Value, json};
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Sleep, sleep},
};
use worldline_proto::{Incarnation, NodeId};
use worldline_system::time::Instant;

/// Connections at a time; one more ends the oldest.
const CONNECTIONS: usize = 256;
/// How long one may live.
const LIFETIME: Duration = Duration::from_secs(5);

/// What is told of a process.
#[derive(Clone)]
pub struct Process {
    /// What it is: `worker`.
    pub role: &'static str,
    /// How logs call it.
    pub name: String,
    /// Which node; `None` for a bot, which is many.
    pub node: Option<NodeId>,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// When it began, by the machine's monotonic clock.
    pub since: Instant,
    /// What it needs.
    pub ready: Readiness,
    /// The way to its role.
    pub inbox: Inbox,
    /// What its host has counted.
    pub counters: Counters,
    /// What its role has reached.
    pub probes: Probes,
    /// Its network, if it has one.
    pub network: Option<Arc<Network>>,
    /// Its bus, if its role has that door.
    pub bus: Option<Bus>,
    /// Its cache, if its role has that door.
    pub cache: Option<Cache>,
    /// What it tells of itself.
    pub telemetry: Telemetry,
    /// The values of its own labels.
    pub own: Own,
}

/// Answers on `listener` for as long as it is polled.
///
/// # Errors
/// What the system says of the listener.
pub async fn serve(listener: TcpListener, process: Process) -> io::Result<()> {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(|| async { (StatusCode::NOT_FOUND, "here are /health, /ready and /metrics\n") })
        .with_state(Arc::new(process));
    let bounded = Bounded { listener, open: VecDeque::with_capacity(CONNECTIONS) };
    axum::serve(bounded, routes).await
}

async fn health(State(process): State<Arc<Process>>) -> Json<Value> {
    let counts = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
        Value::Object(counts.map(|(name, count)| (name.to_owned(), json!(count))).collect::<Map<_, _>>())
    };
    Json(json!({
        "role": process.role,
        "name": process.name,
        "node": process.node.map(|node| node.0),
        "incarnation": process.incarnation.0,
        "uptime_s": crate::clock::now().since(process.since).as_millis() / 1_000,
        "version": super::REVISION,
        "ready": process.ready.problems().is_empty(),
        "degraded": process.ready.degradations(),
        "stopped": process.counters.stopped(),
        "host": counts(&mut process.counters.each().into_iter()),
        "log": { "lost": super::logs::lost() },
        "inbox": { "length": process.inbox.len(), "shed": process.inbox.shed() },
        "network": counts(&mut process.network.iter().flat_map(|network| network.counters())),
        "bus": counts(&mut process.bus.iter().flat_map(Bus::counters)),
        "cache": counts(&mut process.cache.iter().flat_map(Cache::counters)),
        "probes": counts(&mut process.probes.reached()),
    }))
}

async fn metrics(State(process): State<Arc<Process>>) -> Response {
    let text = process.own.text(&process.telemetry.meters());
    ([(CONTENT_TYPE, MEDIA_TYPE)], text).into_response()
}

async fn ready(State(process): State<Arc<Process>>) -> Response {
    let problems = process.ready.problems();
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": problems.is_empty(), "problems": problems }))).into_response()
}

/// A listener whose connections are few and short.
struct Bounded {
    listener: TcpListener,
    /// One for each connection, the oldest first: it ends when this is dropped.
    open: VecDeque<oneshot::Sender<()>>,
}

impl Listener for Bounded {
    type Io = Short;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Short, SocketAddr) {
        let (stream, from) = Listener::accept(&mut self.listener).await;
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= CONNECTIONS {
            self.open.pop_front();
        }
        let (keep, evicted) = oneshot::channel();
        self.open.push_back(keep);
        (Short { stream, end: Box::pin(sleep(LIFETIME)), evicted }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends, whatever its peer does.
struct Short {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    evicted: oneshot::Receiver<()>,
}

impl Short {
    /// Whether its time is over.
    fn over(&mut self, context: &mut Context<'_>) -> bool {
        let evicted = Pin::new(&mut self.evicted).poll(context).is_ready();
        evicted || self.end.as_mut().poll(context).is_ready()
    }
}

fn late<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
}

impl AsyncRead for Short {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.over(context) {
            return late();
        }
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Short {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.over(context) {
            return late();
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
