//! The end of an inbox at which the role's thread takes: some events at once, and what it submits meanwhile leaves together.
//!
//! * Between two looks at the inbox the adapters' writers are not woken, but when the thread looks again: a wake-up costs more
//!   than all else that a message costs here, and one does for all that has gathered.
//! * The role acts on at most [`TOGETHER`] events between two looks. Before it rests, every writer has been woken.

use super::inbox::{Inbox, Item};
use std::{collections::VecDeque, time::Duration};
use worldline_proto::OpId;
use worldline_system::doors::Event;

/// Events that are taken at once, at most.
pub(super) const TOGETHER: usize = 16;

/// Takes from one inbox; a thread has one.
#[derive(Debug)]
pub struct Taker {
    inbox: Inbox,
    taken: VecDeque<Item>,
}

impl Taker {
    /// Of this inbox.
    #[must_use]
    pub fn new(inbox: Inbox) -> Self {
        Self { inbox, taken: VecDeque::with_capacity(TOGETHER) }
    }

    /// Takes the next event as a role's thread does, where no host stands between: benchmarks of the adapters.
    pub fn next_event(&mut self, patience: Duration) -> Option<Event> {
        self.take(patience).map(Item::into_event)
    }

    /// Takes the next event, waiting for it at most so long.
    pub(super) fn take(&mut self, patience: Duration) -> Option<Item> {
        if self.taken.is_empty() {
            self.inbox.wake_writers();
            self.inbox.take_many(patience, TOGETHER, &mut self.taken);
            self.inbox.hold_writers();
        }
        self.taken.pop_front()
    }

    /// As [`Taker::take`], by a task.
    pub(super) async fn taken(&mut self, patience: Duration) -> Option<Item> {
        if self.taken.is_empty() {
            self.inbox.wake_writers();
            self.inbox.filled(patience).await;
        }
        self.take(Duration::ZERO)
    }

    /// What comes next is another turn of the role's: what it submits leaves with what other turns have, when the thread looks
    /// for events again.
    pub(super) fn hold_writers(&self) {
        self.inbox.hold_writers();
    }

    /// The answer to `op`, if it waits: it came before its deadline was looked at.
    pub(super) fn take_answer(&mut self, op: OpId) -> Option<Event> {
        let place = self.taken.iter().position(|item| item.answers(op));
        match place {
            Some(place) => self.taken.remove(place).map(Item::into_event),
            None => self.inbox.take_answer(op),
        }
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.inbox.wake_writers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };
    use worldline_proto::Incarnation;

    /// A writer that counts how often it was woken.
    #[derive(Default)]
    struct Writer(AtomicUsize);

    impl Wake for Writer {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Writer {
        fn woken(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn setting() -> (Inbox, Taker, Arc<Writer>) {
        let inbox = Inbox::default();
        (inbox.clone(), Taker::new(inbox), Arc::default())
    }

    #[test]
    fn a_writer_is_woken_once_what_waited_is_acted_on_and_before_the_thread_rests() {
        let (inbox, mut taker, writer) = setting();
        inbox.wake_writer(Waker::from(Arc::clone(&writer)));
        assert_eq!(writer.woken(), 1, "nobody has taken anything yet: it is woken at once");
        assert!((0..3).all(|_| inbox.offer(Event::Started)));
        for _ in 0..3 {
            assert_eq!(taker.next_event(Duration::ZERO), Some(Event::Started));
            inbox.wake_writer(Waker::from(Arc::clone(&writer)));
            assert_eq!(writer.woken(), 1);
        }
        assert_eq!(taker.next_event(Duration::ZERO), None);
        assert_eq!(writer.woken(), 4, "each waker that was held is used");
    }

    #[test]
    fn however_much_waits_a_writer_is_woken_after_so_many_events() {
        let (inbox, mut taker, writer) = setting();
        assert!((0..2 * TOGETHER).all(|_| inbox.offer(Event::Started)));
        assert!(taker.next_event(Duration::ZERO).is_some());
        inbox.wake_writer(Waker::from(Arc::clone(&writer)));
        for _ in 1..TOGETHER {
            assert!(taker.next_event(Duration::ZERO).is_some());
        }
        assert_eq!((writer.woken(), inbox.len()), (0, TOGETHER));
        assert!(taker.next_event(Duration::ZERO).is_some());
        assert_eq!(writer.woken(), 1);
    }

    #[test]
    fn who_stops_taking_leaves_no_writer_asleep() {
        let (inbox, mut taker, writer) = setting();
        inbox.reserved(Event::Stop);
        assert_eq!(taker.next_event(Duration::ZERO), Some(Event::Stop));
        inbox.wake_writer(Waker::from(Arc::clone(&writer)));
        drop(taker);
        assert_eq!(writer.woken(), 1);
        inbox.wake_writer(Waker::from(Arc::clone(&writer)));
        assert_eq!(writer.woken(), 2, "nobody will come to wake it later");
    }

    #[test]
    fn an_answer_is_found_wherever_it_waits_and_what_was_before_it_keeps_its_order() {
        let (inbox, mut taker, _) = setting();
        let op = |counter| OpId { incarnation: Incarnation(1), counter };
        assert!((0..TOGETHER - 1).all(|_| inbox.offer(Event::Started)));
        inbox.answer(op(1), Event::Stop);
        inbox.answer(op(2), Event::Stop);
        assert!(taker.next_event(Duration::ZERO).is_some());
        assert_eq!(inbox.len(), 1, "the first answer was taken with what waited before it");
        assert_eq!(taker.take_answer(op(2)), Some(Event::Stop));
        assert_eq!(taker.take_answer(op(1)), Some(Event::Stop));
        assert_eq!(taker.take_answer(op(1)), None);
        assert!((0..TOGETHER - 2).all(|_| taker.next_event(Duration::ZERO) == Some(Event::Started)));
        assert_eq!(taker.next_event(Duration::ZERO), None);
    }
}
