//! Worldline on real services: the same roles, unchanged, on QUIC, gRPC, etcd, PostgreSQL and a Redis-protocol cache.
//!
//! A role's thread ([`host`]) takes events out of its [`Inbox`] and hands what the role submits to the adapters of its doors:
//! [`network`] (quinn and tonic), [`directory`] (etcd), [`ledger`] (PostgreSQL), [`cache`] (redis). Each door has the same file name as in
//! `sim/`. Adapters are tasks on tokio: they turn a submission into a call and what comes of it into an event. What they use of the
//! machine beside that, its clocks and sockets, is in [`machine`].
//!
//! Invariants:
//! * Every operation is answered once, at the latest at its deadline; its answer's slot is reserved when it is submitted.
//! * `Refused` is certainty that nothing happened. Whatever an adapter cannot be sure of is `Unknown`.
//! * What a role submits is in the history before it leaves the process.
//!
//! Must never be here: a rule of the game, a decision that belongs to a role, a simulator.

// Tasks and timers are madsim's where it is what runs them.
#[cfg(madsim)]
extern crate worldline_tokio as tokio;

#[cfg(not(madsim))]
pub mod bot;
pub mod bus;
pub mod cache;
pub mod clock;
#[cfg(not(madsim))]
pub mod config;
pub mod directory;
pub mod endpoint;
pub mod entropy;
pub mod history;
pub mod hooks;
pub mod host;
#[cfg(not(madsim))]
pub mod ledger;
pub mod machine;
#[cfg(not(madsim))]
pub mod network;
pub mod ready;
#[cfg(not(madsim))]
pub mod server;
pub mod telemetry;

pub use host::{Doors, Host, Inbox, Taker};
