//! The network door between processes: what a role may rely on, and that nothing a peer does harms another.

mod calls;
mod closing;
mod connections;
mod flood;
mod malformed;
mod node;
mod raw;
mod strangers;
