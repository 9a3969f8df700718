//! The laws of `worldline-laws` on the adapters and real services: one server a test, in real time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bus;
mod cache;
mod clock;
mod cluster;
mod directory;
#[path = "../../src/directory/tests/etcd.rs"]
#[allow(dead_code, reason = "the adapter's own tests use the rest")]
mod etcd;
mod hosted;
mod ledger;
#[path = "../../src/bus/tests/nats.rs"]
#[allow(dead_code, reason = "the adapter's own tests use the rest")]
mod nats;
mod network;
#[path = "../network/node.rs"]
#[allow(dead_code, reason = "the network's own tests use the rest")]
mod node;
mod postgres;
mod process;
mod proxy;
mod relay;
mod succession;
#[path = "../../src/cache/tests/valkey.rs"]
mod valkey;
