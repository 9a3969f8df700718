//! The MMO as state machines: client, gateway, worker, orchestrator; the doors they act through; the rules of the game.
//!
//! A role takes an event, changes its own plain data and leaves submissions in an outbox. Every answer is an event.
//!
//! Must never be here: async, a clock, a thread, entropy but through its door, a hash map, a float, `std`. Nothing here
//! knows whether it runs in the simulator.
#![no_std]
#![deny(clippy::float_arithmetic)]

extern crate alloc;

pub mod backoff;
pub mod client;
pub mod digest;
pub mod doors;
pub mod facts;
pub mod gateway;
pub mod history;
pub mod knobs;
pub mod lease;
pub mod limits;
pub mod operator;
pub mod orchestrator;
pub mod outcome;
pub mod replica;
pub mod role;
mod routes;
pub mod rules;
pub mod time;
pub mod wire;
pub mod worker;

pub use outcome::{Outcome, Refusal};
pub use role::{Desk, Role, Turn};
