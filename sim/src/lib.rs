//! The simulator: the event kernel, the network, and one model per outside service.
//!
//! A [`World`] is a function of what was put into it and of its seed: the same world steps through the same events on every
//! machine. It is a value: cloning it forks the run.
//!
//! Invariants: virtual time never goes back; an event is handled to its end before the next; every event has an id and the
//! id of its cause; every draw is a function of (seed, purpose, who, n).
//!
//! Must never be here: a rule of the game, a scenario, a checker, the machine's own clock, a thread, or a hash map.

pub mod bus;
pub mod cache;
pub mod clock;
pub mod core;
pub mod cost;
pub mod directory;
pub mod entropy;
pub mod fault;
pub mod hash;
pub mod hooks;
pub mod host;
mod item;
pub mod ledger;
pub mod network;
pub mod node;
mod operations;
mod queue;
mod replication;
pub mod service_times;
mod telemetry;
#[cfg(test)]
mod testing;
pub mod world;

pub use crate::{
    core::Core,
    cost::{Charge, Cost},
    entropy::Purpose,
    fault::{ClockFault, Fault, Which},
    host::{Actor, Seat, Solo, host},
    item::ServiceItem,
    network::latency::{Access, City, LastMile, Place},
    node::{NodeChange, NodeSpec, NodeState},
    world::{Config, Leak, Step, StepKind, World},
};
