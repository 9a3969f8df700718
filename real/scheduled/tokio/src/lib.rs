//! tokio on madsim, as the host and the adapters use it: what madsim leaves out of it is added here.

#![cfg(madsim)]
#![forbid(unsafe_code)]

pub use madsim_tokio::{io, join, net, pin, runtime, select, spawn, sync, time};

/// Tasks: their order is drawn.
pub mod task {
    pub use madsim_tokio::task::{JoinError, JoinHandle, spawn, yield_now};

    /// There is no budget that a task could use up.
    pub fn unconstrained<F>(future: F) -> F {
        future
    }
}
