//! The laws of `worldline-laws` on the simulated services, in virtual time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bus;
mod cache;
mod clock;
mod directory;
mod ledger;
mod network;
mod stage;
