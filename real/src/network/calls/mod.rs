//! Unary calls on gRPC: one adapter for every method of the contract, called and served as bytes.
//!
//! * The path of a request names its method, and decides how bytes are read: no code is generated for a service.
//! * A refusal travels as a gRPC status that any client understands, and beside it in [`refusal::HEADER`], exactly.
//!
//! Deliberately absent: streaming, compression, retries (a role decides whether to ask again).

mod about;
mod client;
mod codec;
mod heard;
mod listener;
mod refusal;
mod server;

pub(super) use client::Callers;
pub(super) use listener::{Listening, listen};
pub(super) use server::Served;

/// Calls on one channel that wait for their answer; one more is refused with `Busy`, here or there.
const CALLS_PER_CHANNEL: usize = 1_024;
/// What one side of a channel may send before the other has taken it, in bytes: some calls of the largest size.
const CHANNEL_WINDOW: u32 = 4 * 1024 * 1024;
/// What may be sent of one call before the other side has taken it, in bytes: the largest call at once.
const CALL_WINDOW: u32 = 1024 * 1024 + 64;
/// The protocol that both sides must agree on.
const ALPN: &[u8] = b"h2";
