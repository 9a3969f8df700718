//! What stands between the kernel and a role: the cast of a world, and the one turn that an event gives.

use crate::hooks::HookBoard;
use worldline_system::{
    Desk, Role, Turn, doors,
    time::{Instant, UnixTime},
};

/// The cast of a world: mostly an enum of its roles, each variant handed to [`host`].
pub trait Actor: Clone {
    /// Takes one event.
    fn deliver(&mut self, event: doors::Event, seat: Seat<'_>);

    /// How full each of its queues is: name, length, bound.
    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize));
}

/// All that an actor is given for one event.
pub struct Seat<'a> {
    pub(crate) now: Instant,
    pub(crate) unix_now: UnixTime,
    pub(crate) desk: &'a mut Desk,
    pub(crate) hooks: &'a mut HookBoard,
    pub(crate) outbox: &'a mut Vec<doors::Submission>,
    /// Set where the role has no variant for the event.
    pub(crate) foreign: &'a mut bool,
}

impl Seat<'_> {
    /// The same seat, lent to somebody inside.
    pub fn lend(&mut self) -> Seat<'_> {
        Seat {
            now: self.now,
            unix_now: self.unix_now,
            desk: self.desk,
            hooks: self.hooks,
            outbox: self.outbox,
            foreign: self.foreign,
        }
    }

    /// How many submissions the event has left so far.
    #[must_use]
    pub fn submissions(&self) -> usize {
        self.outbox.len()
    }
}

/// Lets a role take one event. One that the role has no variant for goes back to the kernel: a call is refused as
/// malformed, anything else is dropped.
#[inline]
pub fn host<R: Role>(role: &mut R, event: doors::Event, seat: Seat<'_>) {
    match R::Event::try_from(event) {
        Ok(event) => {
            let mut turn = Turn::new(seat.now, seat.unix_now, seat.desk, seat.hooks, seat.outbox);
            role.on_event(event, &mut turn);
        }
        Err(_) => *seat.foreign = true,
    }
}

/// The cast of a world whose nodes all play one role.
#[derive(Clone, Debug)]
pub struct Solo<R>(pub R);

impl<R: Role> Actor for Solo<R> {
    #[inline]
    fn deliver(&mut self, event: doors::Event, seat: Seat<'_>) {
        host(&mut self.0, event, seat);
    }

    fn queues(&self, report: &mut dyn FnMut(&'static str, usize, usize)) {
        self.0.queues(report);
    }
}
