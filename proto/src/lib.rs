//! Wire contracts, ids and the movement codec: what every other crate agrees on.
//!
//! Must never be here: a clock, entropy, I/O, `std`, or a rule of the game.
#![no_std]
#![deny(clippy::float_arithmetic)]

extern crate alloc;

mod bits;
pub mod ids;
pub mod movement;
pub mod token;

#[allow(missing_docs, clippy::all, unused_qualifications)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/packages.rs"));
}

/// What a client and a gateway say to each other. Generated from `worldline/client/v1/client.proto`.
pub use generated::worldline::client::v1 as client;
/// What servers say to each other. Generated from `worldline/server/v1/`: `server.proto`, with the sums [`server::Request`] and
/// [`server::Reply`] of all unary calls, and `fact.proto`, what the bus carries.
pub use generated::worldline::server::v1 as server;

/// The compiled descriptors of every `.proto` file: a `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use ids::*;
