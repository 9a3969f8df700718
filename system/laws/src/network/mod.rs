//! The laws of the network: connections between clients and a gateway, and calls from the gateway to a worker.

mod calls;
mod connections;
mod weather;

pub use calls::{CALLS, calls};
pub use connections::{CONNECTIONS, connections};
pub use weather::{UNDER_WEATHER, backlog, idle, idle_one_way, under_weather};

use crate::service::Fault;
use proptest::test_runner::TestCaseError;
use worldline_proto::{NodeId, OpId};
use worldline_system::{
    doors::network::{Event, Submission},
    time::{Duration, Instant},
};

/// Whom clients connect to, and who calls.
pub const GATEWAY: usize = 0;
/// They connect.
pub const CLIENTS: [usize; 2] = [1, 2];
/// Who is called.
pub const WORKER: usize = 3;

/// How long what must come may take, on a busy machine.
const BACK: Duration = Duration::from_secs(60);

/// What befalls the packets between clients and gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// None arrives.
    Cut,
    /// None of the clients' arrives.
    CutToGateway,
    /// None of the gateway's arrives.
    CutToClients,
    /// Each takes longer.
    Slow,
    /// Some are lost.
    Lossy,
    /// Some arrive twice.
    Doubling,
    /// Some overtake others.
    Reordering,
}

/// A network of a gateway, clients and a worker.
pub trait NetworkService {
    /// Begins anew: what happened before is not heard of any more.
    fn begin(&mut self);

    /// The nodes' monotonic clock.
    fn now(&self) -> Instant;

    /// The name of a node.
    fn node(&self, node: usize) -> NodeId;

    /// Submits as a node. `what` is given the name of an operation, and the time.
    fn submit(&mut self, node: usize, what: impl FnOnce(OpId, Instant) -> Submission) -> OpId;

    /// The next event of any node, if one comes until then.
    fn next_event(&mut self, by: Instant) -> Option<(usize, Event)>;

    /// How late what is due may come.
    fn grace(&self) -> Duration;

    /// What befalls the packets between gateway and clients from now on.
    fn weather(&mut self, weather: Weather);

    /// Does this to the link between gateway and worker. `false` where it cannot be done.
    fn fault(&mut self, fault: Fault) -> bool;
}

fn wrong<T>(what: impl Into<String>) -> Result<T, TestCaseError> {
    Err(TestCaseError::fail(what.into()))
}
