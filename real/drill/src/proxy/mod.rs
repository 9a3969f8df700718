//! The network between the processes of a drill: for every pair of nodes that talk, a port of its own that the caller takes
//! for the callee, so that each link can be cut, cut one way, or degraded by itself.

pub mod datagrams;
pub mod etcd;
pub mod nats;
pub mod postgres;
pub mod requests;
pub mod statements;
pub mod stream;
pub mod transactions;
pub mod way;
