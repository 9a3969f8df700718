//! The serving side: a call becomes an event, and waits for the role's reply under its number.
//!
//! Only roles may call. A call that finds no place is refused; one whose caller has gone away is forgotten.

use super::{
    codec::Raw,
    refusal::{self, status, status_of},
};
use crate::{
    Inbox,
    network::counters::{Count, Counters},
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService, UnaryService},
};
use worldline_proto::{
    CallId, NodeId,
    server::{Reply, Request},
};
use worldline_system::{
    Outcome, Refusal,
    doors::{self, network::Event},
    limits,
};

/// How long a call waits that has brought no deadline.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// The header in which a caller says how long it waits.
const TIMEOUT: &str = "grpc-timeout";

/// The calls that this node was asked and has not answered.
#[derive(Clone)]
pub(in crate::network) struct Served(Arc<Shared>);

struct Shared {
    inbox: Inbox,
    counters: Counters,
    pending: Mutex<HashMap<u64, oneshot::Sender<Outcome<Reply>>>>,
    numbers: AtomicU64,
}

impl Served {
    pub fn new(inbox: Inbox, counters: Counters) -> Self {
        Self(Arc::new(Shared { inbox, counters, pending: Mutex::default(), numbers: AtomicU64::new(0) }))
    }

    /// The role answers a call.
    pub fn reply(&self, call: CallId, outcome: Outcome<Reply>) {
        let waiting = self.pending().remove(&call.0);
        if waiting.is_none_or(|waiting| waiting.send(outcome).is_err()) {
            self.0.counters.add(Count::ReplyDropped);
        }
    }

    /// How many calls wait for the role.
    pub fn len(&self) -> usize {
        self.pending().len()
    }

    /// Nobody answers any more: who waits is told an internal error.
    pub fn end(&self) {
        self.pending().clear();
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome<Reply>>>> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, count: Count, status: Status) -> Status {
        self.0.counters.add(count);
        status
    }

    /// Hands a call to the role and waits for its reply.
    async fn ask(&self, from: NodeId, path: &str, bytes: Bytes) -> Result<Bytes, Status> {
        let request = match Request::decode(path, &bytes) {
            Some(Ok(request)) => Box::new(request),
            Some(Err(problem)) => {
                let refused = status(Refusal::Malformed, format!("{path}: {problem}"));
                return Err(self.refuse(Count::CallMalformed, refused));
            }
            None => {
                let refused = status_of(Code::Unimplemented, Refusal::Malformed, format!("no such method: {path}"));
                return Err(self.refuse(Count::CallMalformed, refused));
            }
        };
        let call = CallId(self.0.numbers.fetch_add(1, Ordering::Relaxed) + 1);
        let (told, reply) = oneshot::channel();
        {
            let mut pending = self.pending();
            if pending.len() >= limits::OPERATIONS_IN_FLIGHT {
                drop(pending);
                return Err(self.refuse(Count::CallBusy, status(Refusal::Busy, "too many calls in flight")));
            }
            pending.insert(call.0, told);
        }
        let waiting = Waiting { served: self, call, answered: false };
        if !self.0.inbox.offer(doors::Event::Network(Event::Called { call, from, request })) {
            waiting.done();
            return Err(self.refuse(Count::CallBusy, status(Refusal::Busy, "no place in the inbox")));
        }
        self.0.counters.add(Count::Called);
        let outcome = reply.await;
        waiting.done();
        match outcome {
            Ok(Outcome::Done(reply)) => sendable(&reply, path),
            Ok(Outcome::Refused(refusal)) => Err(status(refusal, refusal.to_string())),
            Ok(Outcome::Unknown) | Err(_) => Err(Status::internal("the outcome is unknown")),
        }
    }
}

fn sendable(reply: &Reply, path: &str) -> Result<Bytes, Status> {
    let bytes = reply.encode_to_vec();
    if reply.path() != path || bytes.len() > limits::CALL_BYTES {
        tracing::error!(path, reply = reply.path(), bytes = bytes.len(), "this reply cannot be sent");
        return Err(Status::internal("the outcome is unknown"));
    }
    Ok(bytes.into())
}

/// A call that waits. Dropped before its reply, it is forgotten: its caller went away, or its deadline came.
struct Waiting<'a> {
    served: &'a Served,
    call: CallId,
    answered: bool,
}

impl Waiting<'_> {
    fn done(mut self) {
        self.answered = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.served.pending().remove(&self.call.0);
        if !self.answered {
            self.served.0.counters.add(Count::CallAbandoned);
        }
    }
}

/// Who calls: put beside each request by the listener, out of the caller's certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller(pub Option<NodeId>);

/// The service of the contract.
#[derive(Clone)]
pub(super) struct Worker(pub Served);

impl NamedService for Worker {
    const NAME: &'static str = "worldline.server.v1.Worker";
}

impl Service<http::Request<Body>> for Worker {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let served = self.0.clone();
        Box::pin(async move {
            let Some(&Caller(Some(from))) = request.extensions().get() else {
                let why = "this method is called with a role's certificate";
                let refused = status_of(Code::Unauthenticated, Refusal::NotServing, why);
                return Ok(served.refuse(Count::CallUnauthenticated, refused).into_http());
            };
            let asked = request.headers().get(TIMEOUT).and_then(|value| patience(value.as_bytes()));
            let patience = asked.unwrap_or(PATIENCE_MAX).min(PATIENCE_MAX);
            let reached = Arc::new(AtomicBool::new(false));
            let path = request.uri().path().to_owned();
            let method = Method { served: served.clone(), from, path, reached: Arc::clone(&reached) };
            let mut grpc = Grpc::new(Raw).max_decoding_message_size(limits::CALL_BYTES);
            let Ok(mut response) = timeout(patience, grpc.unary(method, request)).await else {
                return Ok(Status::deadline_exceeded("no reply in time").into_http());
            };
            if !reached.load(Ordering::Relaxed) {
                // Tonic itself has refused it: it is too long, or not framed as gRPC is.
                served.0.counters.add(Count::CallMalformed);
                response.headers_mut().insert(refusal::HEADER, http::HeaderValue::from_static("Malformed"));
            }
            Ok(response)
        })
    }
}

/// One call of one method.
struct Method {
    served: Served,
    from: NodeId,
    path: String,
    reached: Arc<AtomicBool>,
}

impl UnaryService<Bytes> for Method {
    type Response = Bytes;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Self::Future {
        self.reached.store(true, Ordering::Relaxed);
        let (served, from, path) = (self.served.clone(), self.from, std::mem::take(&mut self.path));
        Box::pin(async move { served.ask(from, &path, request.into_inner()).await.map(tonic::Response::new) })
    }
}

/// How long a caller waits, as gRPC writes it: up to eight digits and a unit.
fn patience(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3_600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_patience_is_read_as_grpc_writes_it() {
        assert_eq!(patience(b"1999m"), Some(Duration::from_millis(1_999)));
        assert_eq!(patience(b"99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for wrong in [&b""[..], b"m", b"10", b"999999999m", b"-1m", b"1x", b"1 m"] {
            assert_eq!(patience(wrong), None, "{wrong:?}");
        }
    }
}
