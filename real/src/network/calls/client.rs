//! The calling side: a channel a peer, which stands while calls pass, and what became of each call.
//!
//! * A call that finds no channel and cannot wait for one any longer has never left: `Refused(Unreachable)`.
//! * A refusal that the callee has named is that refusal. Whatever else happens after the call left is `Unknown`.
//! * A call whose time is up does not leave, by the clock that goes on while the machine sleeps.
//! * A channel that did not come to stand, or on which nothing was ever heard, is tried again with a growing pause; calls in
//!   that pause are refused at once.

use super::{ALPN, CALL_WINDOW, CALLS_PER_CHANNEL, CHANNEL_WINDOW, about::About, codec::Raw, heard::Heard, refusal};
use crate::{
    Inbox,
    machine::{Machine, Stream},
    network::{
        ANSWER_MARGIN, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE,
        counters::{Count, Counters},
        promise::Promise,
        tasks::Tasks,
        tls::{self, Identity},
    },
};
use bytes::Bytes;
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    body::Body,
    client::Grpc,
    codegen::{Service, http},
};
use worldline_proto::{
    NodeId,
    server::{Reply, Request},
};
use worldline_system::{
    Outcome, Refusal,
    doors::network::{Call, Event},
    limits,
};

/// The first pause after a channel did not come to stand; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest such pause: a peer that is back is called again within it.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// How often a call looks for a channel: one that has ended just now takes no call, and says so.
const ATTEMPTS: usize = 3;

/// The channels of a node to its peers.
pub(in crate::network) struct Callers {
    channels: BTreeMap<NodeId, Arc<Channel>>,
    inbox: Inbox,
    tasks: Tasks,
}

struct Channel {
    machine: Arc<dyn Machine>,
    to: NodeId,
    address: SocketAddr,
    origin: http::Uri,
    tls: TlsConnector,
    state: watch::Sender<State>,
    in_flight: Arc<Semaphore>,
    counters: Counters,
    tasks: Tasks,
    closing: watch::Receiver<bool>,
}

#[derive(Clone)]
enum State {
    /// No channel, and none is being made.
    Idle,
    Connecting,
    /// It stands, or has ended just now.
    Open(SendRequest<Body>),
    /// It did not come to stand, so often in a row; not tried again before `until`.
    Failed {
        until: Instant,
        failures: u32,
    },
}

impl Callers {
    /// # Errors
    /// The identity cannot call.
    pub fn new(
        machine: Arc<dyn Machine>,
        identity: &Identity,
        peers: &BTreeMap<NodeId, SocketAddr>,
        inbox: Inbox,
        counters: &Counters,
        tasks: &Tasks,
        closing: &watch::Receiver<bool>,
    ) -> Result<Self, rustls::Error> {
        let connector = TlsConnector::from(Arc::new(identity.client(ALPN)?));
        let channel = |(&to, &address): (&NodeId, &SocketAddr)| {
            let origin = http::Uri::builder().scheme("https").authority(tls::name_of(to)).path_and_query("/").build();
            let channel = Channel {
                machine: Arc::clone(&machine),
                to,
                address,
                origin: origin.expect("a node's name is an authority"),
                tls: connector.clone(),
                state: watch::Sender::new(State::Idle),
                in_flight: Arc::new(Semaphore::new(CALLS_PER_CHANNEL)),
                counters: counters.clone(),
                tasks: tasks.clone(),
                closing: closing.clone(),
            };
            (to, Arc::new(channel))
        };
        Ok(Self { channels: peers.iter().map(channel).collect(), inbox, tasks: tasks.clone() })
    }

    /// Calls, and answers before the deadline.
    pub fn call(&self, call: Call) {
        let (op, to) = (call.op, call.to);
        let answered = move |outcome| Event::Answered { op, outcome: Box::new(outcome) };
        let mut promise = Promise::new(self.inbox.clone(), op, answered(Outcome::Refused(Refusal::Unreachable)));
        let Some(channel) = self.channels.get(&to) else {
            tracing::warn!(%to, "no address is known");
            return;
        };
        let Ok(place) = Arc::clone(&channel.in_flight).try_acquire_owned() else {
            return promise.keep(answered(Outcome::Refused(Refusal::Busy)));
        };
        let channel = Arc::clone(channel);
        self.tasks.spawn(async move {
            let outcome = channel.call(call, &mut promise).await;
            drop(place);
            promise.keep(answered(outcome));
        });
    }
}

impl Channel {
    async fn call(self: Arc<Self>, call: Call, promise: &mut Promise) -> Outcome<Reply> {
        let path = call.request.path();
        let bytes = Bytes::from(call.request.encode_to_vec());
        if bytes.len() > limits::CALL_BYTES {
            tracing::error!(path, bytes = bytes.len(), "this call cannot be sent");
            return Outcome::Refused(Refusal::Malformed);
        }
        let patience = self.machine.until(call.deadline).saturating_sub(ANSWER_MARGIN);
        let deadline = Instant::now() + patience;
        for _ in 0..ATTEMPTS {
            let Ok(Some(sender)) = timeout_at(deadline, self.sender()).await else { break };
            // A channel was at hand, or the machine has slept.
            if self.machine.until(call.deadline) <= ANSWER_MARGIN {
                break;
            }
            promise.change(Event::Answered { op: call.op, outcome: Box::new(Outcome::Unknown) });
            match timeout_at(deadline, self.send(sender, &call.request, bytes.clone(), call.deadline)).await {
                Err(_) => return Outcome::Unknown,
                Ok(Some(outcome)) => return outcome,
                // It came back: the channel has ended just now.
                Ok(None) => {}
            }
        }
        Outcome::Refused(Refusal::Unreachable)
    }

    /// Sends a call on a channel and waits for what comes of it. `None` where it certainly did not leave.
    async fn send(
        &self,
        sender: SendRequest<Body>,
        asked: &Request,
        bytes: Bytes,
        deadline: worldline_system::time::Instant,
    ) -> Option<Outcome<Reply>> {
        let path = asked.path();
        let unsent = Arc::new(AtomicBool::new(false));
        let once = Once { sender, unsent: Arc::clone(&unsent) };
        let mut grpc = Grpc::with_origin(once, self.origin.clone()).max_decoding_message_size(limits::CALL_BYTES);
        let mut request = tonic::Request::new(bytes);
        request.set_timeout(self.machine.until(deadline).saturating_sub(ANSWER_MARGIN));
        let status = match grpc.unary(request, http::uri::PathAndQuery::from_static(path), Raw).await {
            Ok(response) => {
                let reply = Reply::decode(path, response.get_ref());
                let Some(Ok(reply)) = reply else {
                    let About { trace_id, span_id } = About::new(asked);
                    tracing::warn!(to = %self.to, path, trace_id, span_id, "the reply does not decode");
                    return Some(Outcome::Unknown);
                };
                return Some(Outcome::Done(reply));
            }
            Err(_) if unsent.load(Ordering::Acquire) => return None,
            Err(status) => status,
        };
        Some(refusal::of(status.metadata()).map_or_else(
            || {
                let About { trace_id, span_id } = About::new(asked);
                tracing::debug!(to = %self.to, path, %status, trace_id, span_id, "the outcome is unknown");
                Outcome::Unknown
            },
            Outcome::Refused,
        ))
    }

    /// A way to send on a channel that stands, made if there is none. `None` where it did not come to stand.
    async fn sender(self: &Arc<Self>) -> Option<SendRequest<Body>> {
        let mut state = self.state.subscribe();
        loop {
            let now = Instant::now();
            let current = state.borrow_and_update().clone();
            match current {
                State::Open(sender) if !sender.is_closed() => return Some(sender),
                State::Failed { until, .. } if until > now => return None,
                // Its task is about to say what becomes of it.
                State::Connecting | State::Open(_) => {
                    state.changed().await.ok()?;
                    // It is tried again by whoever calls next.
                    if let State::Failed { .. } = *state.borrow() {
                        return None;
                    }
                }
                State::Idle | State::Failed { .. } => self.begin(),
            }
        }
    }

    /// Begins to connect, unless somebody else has.
    fn begin(self: &Arc<Self>) {
        let mut failures = 0;
        let begun = self.state.send_if_modified(|state| {
            failures = match state {
                State::Connecting | State::Open(_) => return false,
                State::Failed { failures, .. } => *failures,
                State::Idle => 0,
            };
            *state = State::Connecting;
            true
        });
        if !begun {
            return;
        }
        let channel = Arc::clone(self);
        let spawned = self.tasks.spawn(async move {
            let stood = channel.stand().await;
            let next = if stood { State::Idle } else { channel.failed(failures) };
            channel.state.send_replace(next);
        });
        if spawned.is_none() {
            self.state.send_replace(self.failed(failures));
        }
    }

    /// Connects, and serves the channel until it has ended. Whether anything was heard on it.
    async fn stand(self: &Arc<Self>) -> bool {
        let (to, address) = (self.to, self.address);
        let heard = Arc::new(AtomicBool::new(false));
        let connected = timeout(HANDSHAKE_TIMEOUT, self.connect(&heard)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)));
        let (requests, connection) = match connected {
            Ok(connected) => connected,
            Err(error) => {
                self.counters.add(Count::ChannelFailed);
                tracing::warn!(%to, %address, %error, "no channel");
                return false;
            }
        };
        self.state.send_replace(State::Open(requests));
        let mut closing = self.closing.clone();
        let ended = tokio::select! {
            biased;
            ended = connection => ended,
            // Nobody needs another.
            _ = closing.wait_for(|closing| *closing) => return false,
        };
        let (stood, error) = (heard.load(Ordering::Relaxed), ended.err());
        if stood {
            tracing::info!(%to, ?error, "a channel has ended");
        } else {
            self.counters.add(Count::ChannelFailed);
            tracing::warn!(%to, %address, ?error, "a channel has ended before a word: is this certificate accepted there?");
        }
        stood
    }

    /// It did not come to stand, after so many failures.
    fn failed(&self, failures: u32) -> State {
        State::Failed { until: Instant::now() + self.pause(failures), failures: failures.saturating_add(1) }
    }

    /// The pause after so many failures and one more: doubled each time, with jitter down to its half.
    fn pause(&self, failures: u32) -> Duration {
        let longest = RETRY_MIN.saturating_mul(1 << failures.min(8)).min(RETRY_MAX);
        let half = longest / 2;
        let drawn = self.machine.entropy().map_or(0, |mut entropy| entropy.below(half.as_nanos() as u64));
        half + Duration::from_nanos(drawn)
    }

    async fn connect(&self, heard: &Arc<AtomicBool>) -> io::Result<(SendRequest<Body>, Connection)> {
        let stream = self.machine.connect(vec![self.address]).await?;
        stream.prompt()?;
        let stream = self.tls.connect(tls::server_name(self.to), stream).await?;
        let mut http = hyper::client::conn::http2::Builder::new(self.tasks.clone());
        http.timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(IDLE_TIMEOUT - KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CHANNEL_WINDOW);
        http.handshake(TokioIo::new(Heard::new(stream, Arc::clone(heard)))).await.map_err(io::Error::other)
    }
}

type Connection = hyper::client::conn::http2::Connection<TokioIo<Heard<TlsStream<Box<dyn Stream>>>>, Body, Tasks>;

/// Sends one request, and knows whether it left.
struct Once {
    sender: SendRequest<Body>,
    unsent: Arc<AtomicBool>,
}

impl Service<http::Request<Body>> for Once {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (sent, unsent) = (self.sender.try_send_request(request), Arc::clone(&self.unsent));
        Box::pin(async move {
            sent.await.map_err(|mut error| {
                // The request came back: it never left.
                unsent.store(error.take_message().is_some(), Ordering::Release);
                error.into_error()
            })
        })
    }
}
