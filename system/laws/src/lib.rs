//! The laws: what each door promises, as property suites. Written once, run on the simulated services (`sim/tests/laws/`) and
//! on the real ones (`real/tests/laws/`).
//!
//! A suite draws a list of steps by several callers, plays it on a [`Service`], and judges what was answered: is there an
//! order in which a small model of the service would have answered so ([`judge`])? What fails is made smaller until nothing
//! can be left out, on either side.
//!
//! * What is asked at once may be executed in any order; what was answered stays before what was asked later.
//! * `Refused` for want of a service has not happened and never will; `Unknown` may happen at any later moment, or never.
//! * Time is the service's: virtual here, real there. A model knows of a moment only that it lies between question and answer.
//!
//! Must never be here: a service, a kernel, an adapter; what one side alone can show. The models know nothing of either side.

pub mod bus;
pub mod cache;
pub mod clock;
pub mod directory;
pub mod judge;
pub mod ledger;
pub mod network;
pub mod play;
pub mod service;

pub use judge::{Ending, Judge, Model};
pub use play::{Extent, Seen, check, seed};
pub use service::{Bench, Door, Fault, Heard, Mishap, Service, Told};
