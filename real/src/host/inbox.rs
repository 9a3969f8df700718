//! Where the events of a role wait for its thread: bounded, and an answer is never shed.
//!
//! * An answer has a slot from the moment its operation was submitted; so has the end of a connection or of a watch.
//! * Datagrams and calls have [`limits::INBOX`] slots; one that finds none is shed and counted.
//! * Streams have as many of their own: one that finds none waits ([`Inbox::deliver`]), so that its flow control stops the
//!   peer. A stream takes at most `TURN` of them before another that waits has its turn, and none of a datagram's.
//! * News of watches have [`limits::WATCH_CREDITS`] slots; who finds none ends the watch with a gap.
//!
//! Who takes them may let the adapters' writers wait for their wake-up meanwhile ([`Taker`](super::Taker)).
//!
//! Events come out in the order in which they went in, but for an answer that waits when its deadline has come: it comes first.
//!
//! Who takes is one, and waits as a thread ([`Inbox::take_many`]) or as a task ([`Inbox::filled`]).

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Poll, Wake, Waker},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::timeout,
};
use worldline_proto::OpId;
use worldline_system::{doors::Event, limits};

/// Slots that a stream takes at once.
const TURN: usize = 64;

/// The role has stopped: nobody takes events any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// What waits, and what its slot is.
#[derive(Debug)]
pub(crate) enum Item {
    /// The answer to an operation.
    Answer(OpId, Event),
    /// Input that had to find a free slot.
    Unsolicited(Event),
    /// A message of a stream.
    Streamed(Event),
    /// News of a watch.
    News(Event),
    /// What has a slot of its own.
    Reserved(Event),
}

impl Item {
    /// Whether it is the answer to `op`.
    pub(crate) fn answers(&self, op: OpId) -> bool {
        matches!(self, Self::Answer(of, _) if *of == op)
    }

    /// What the role would be told.
    pub(crate) fn into_event(self) -> Event {
        match self {
            Self::Answer(_, event)
            | Self::Unsolicited(event)
            | Self::Streamed(event)
            | Self::News(event)
            | Self::Reserved(event) => event,
        }
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    streams: Semaphore,
    shed: AtomicU64,
    writers: Mutex<Writers>,
}

/// Wakes a task that waits for more than one thing, as a waker does ([`Inbox::wake_writer`]).
#[derive(Debug, Default)]
pub(crate) struct Bell(Notify);

impl Bell {
    /// It was rung since the last time.
    pub(crate) async fn rung(&self) {
        self.0.notified().await;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// Tasks of adapters that have something to write and were not woken yet.
#[derive(Debug, Default)]
struct Writers {
    held: bool,
    waiting: Vec<Waker>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// So many of them are unsolicited input.
    unsolicited: usize,
    /// So many of them are news of watches.
    news: usize,
    closed: bool,
    /// Who waits for an item and was not woken yet: waking costs a system call, and mostly nobody needs it.
    asleep: Option<Sleeper>,
}

/// Who waits for an item.
#[derive(Debug)]
enum Sleeper {
    Thread,
    Task(Waker),
}

/// The way to a role. Clones lead to the same one.
#[derive(Clone, Debug)]
pub struct Inbox(Arc<Shared>);

impl Default for Inbox {
    fn default() -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            streams: Semaphore::new(limits::INBOX),
            shed: AtomicU64::new(0),
            writers: Mutex::default(),
        }))
    }
}

impl Inbox {
    /// The answer to an operation. Never shed; dropped where the operation has ended.
    pub fn answer(&self, op: OpId, event: Event) {
        self.push(Item::Answer(op, event));
    }

    /// Answers that came at once, as [`Inbox::answer`] takes them.
    pub fn answer_all(&self, answers: impl Iterator<Item = (OpId, Event)>) {
        self.push_all(answers.map(|(op, event)| Item::Answer(op, event)));
    }

    /// What has a slot of its own: that a connection was accepted or has ended, that a watch has a gap, that the process shall
    /// stop. The caller sees to it that there is a bounded number of these.
    pub fn reserved(&self, event: Event) {
        self.push(Item::Reserved(event));
    }

    /// Unsolicited input: `false` where it was shed.
    #[must_use]
    pub fn offer(&self, event: Event) -> bool {
        let mut queue = self.queue();
        if queue.closed || queue.unsolicited >= limits::INBOX {
            drop(queue);
            self.0.shed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        queue.unsolicited += 1;
        queue.items.push_back(Item::Unsolicited(event));
        self.wake(queue);
        true
    }

    /// Unsolicited input that came at once: as much of it as finds slots, from the first on; the rest is shed.
    pub fn offer_all(&self, events: &mut Vec<Event>) {
        let mut queue = self.queue();
        let slots = if queue.closed { 0 } else { limits::INBOX.saturating_sub(queue.unsolicited).min(events.len()) };
        queue.unsolicited += slots;
        queue.items.extend(events.drain(..slots).map(Item::Unsolicited));
        self.wake(queue);
        self.0.shed.fetch_add(events.len() as u64, Ordering::Relaxed);
        events.clear();
    }

    /// Messages of a stream that came at once: waits for slots, and keeps the order.
    ///
    /// # Errors
    /// The role has stopped.
    pub async fn deliver_all(&self, events: &mut Vec<Event>) -> Result<(), Closed> {
        while !events.is_empty() {
            let slots = self.0.streams.available_permits().clamp(1, events.len().min(TURN));
            self.0.streams.acquire_many(slots as u32).await.map_err(|_| Closed)?.forget();
            self.push_all(events.drain(..slots).map(Item::Streamed));
        }
        Ok(())
    }

    /// A message of a stream: waits for a slot.
    ///
    /// # Errors
    /// The role has stopped.
    pub async fn deliver(&self, event: Event) -> Result<(), Closed> {
        let slot = self.0.streams.acquire().await.map_err(|_| Closed)?;
        slot.forget();
        self.push(Item::Streamed(event));
        Ok(())
    }

    /// News of a watch: `false` where its reader has not kept up, and the watch must end with a gap.
    #[must_use]
    pub fn news(&self, event: Event) -> bool {
        self.news_all(&mut vec![event])
    }

    /// News that came at once, as [`Inbox::news`] takes them: as many as find slots, from the first on.
    #[must_use]
    pub fn news_all(&self, events: &mut Vec<Event>) -> bool {
        let mut queue = self.queue();
        let slots = if queue.closed { 0 } else { limits::WATCH_CREDITS.saturating_sub(queue.news).min(events.len()) };
        queue.news += slots;
        queue.items.extend(events.drain(..slots).map(Item::News));
        self.wake(queue);
        self.0.shed.fetch_add(events.len() as u64, Ordering::Relaxed);
        let all = events.is_empty();
        events.clear();
        all
    }

    /// How many events were shed for want of a slot.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.0.shed.load(Ordering::Relaxed)
    }

    /// How many events wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue().items.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next event as a role's thread does, where no host stands between: tests and benchmarks of the adapters.
    pub fn next_event(&self, patience: Duration) -> Option<Event> {
        self.take(patience).map(Item::into_event)
    }

    /// As [`Inbox::next_event`], by a task.
    pub async fn awaited_event(&self, patience: Duration) -> Option<Event> {
        self.filled(patience).await;
        self.next_event(Duration::ZERO)
    }

    /// Takes the next event, waiting for it at most so long.
    pub(crate) fn take(&self, patience: Duration) -> Option<Item> {
        let mut taken = VecDeque::with_capacity(1);
        self.take_many(patience, 1, &mut taken);
        taken.pop_front()
    }

    /// Takes the next events, at most so many, and waits for the first at most so long.
    pub(crate) fn take_many(&self, patience: Duration, most: usize, taken: &mut VecDeque<Item>) {
        let empty = |queue: &mut Queue| {
            // Whoever fills it next wakes all that wait.
            let nothing = queue.items.is_empty() && !queue.closed;
            queue.asleep = nothing.then_some(Sleeper::Thread);
            nothing
        };
        let mut queue = self.queue();
        if queue.items.is_empty() && !patience.is_zero() {
            let waited = self.0.filled.wait_timeout_while(queue, patience, empty);
            (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let mut streamed = 0;
        for _ in 0..most {
            let Some(item) = queue.items.pop_front() else { break };
            match item {
                Item::Unsolicited(_) => queue.unsolicited -= 1,
                Item::News(_) => queue.news -= 1,
                Item::Streamed(_) => streamed += 1,
                Item::Answer(..) | Item::Reserved(_) => {}
            }
            taken.push_back(item);
        }
        drop(queue);
        if streamed > 0 {
            self.0.streams.add_permits(streamed);
        }
    }

    /// Wakes a task that has something to write: at once, or when the role's thread looks for events again.
    pub fn wake_writer(&self, writer: Waker) {
        let mut writers = self.writers();
        if writers.held {
            writers.waiting.push(writer);
        } else {
            drop(writers);
            writer.wake();
        }
    }

    /// From now on, who has something to write waits.
    pub(crate) fn hold_writers(&self) {
        self.writers().held = true;
    }

    /// Wakes all that were held.
    pub(crate) fn wake_writers(&self) {
        let mut writers = self.writers();
        writers.held = false;
        if !writers.waiting.is_empty() {
            let waiting = std::mem::take(&mut writers.waiting);
            drop(writers);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    fn writers(&self) -> MutexGuard<'_, Writers> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.0.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when an event waits, or after so long.
    pub(crate) async fn filled(&self, patience: Duration) {
        let filled = poll_fn(|context| {
            let mut queue = self.queue();
            let nothing = queue.items.is_empty() && !queue.closed;
            queue.asleep = nothing.then(|| Sleeper::Task(context.waker().clone()));
            if nothing { Poll::Pending } else { Poll::Ready(()) }
        });
        // Who asks looks for himself.
        let _ = timeout(patience, filled).await;
    }

    /// The answer to `op`, if it waits: it came before its deadline was looked at.
    pub(crate) fn take_answer(&self, op: OpId) -> Option<Event> {
        let mut queue = self.queue();
        let place = queue.items.iter().position(|item| item.answers(op))?;
        queue.items.remove(place).map(Item::into_event)
    }

    /// Nobody takes events any more: what waits is dropped, who waits is told.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        queue.items.clear();
        self.0.streams.close();
    }

    fn push(&self, item: Item) {
        self.push_all(std::iter::once(item));
    }

    fn push_all(&self, items: impl Iterator<Item = Item>) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.items.extend(items);
            self.wake(queue);
        }
    }

    /// Wakes who waits for an item, once.
    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let asleep = if queue.items.is_empty() { None } else { queue.asleep.take() };
        drop(queue);
        match asleep {
            None => {}
            Some(Sleeper::Thread) => self.0.filled.notify_all(),
            Some(Sleeper::Task(waker)) => waker.wake(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it holds the lock: what is inside is whole.
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use worldline_proto::Incarnation;

    const OP: OpId = OpId { incarnation: Incarnation(1), counter: 1 };

    #[test]
    fn a_full_inbox_sheds_input_and_never_an_answer() {
        let inbox = Inbox::default();
        assert!((0..limits::INBOX).all(|_| inbox.offer(Event::Started)));
        assert!(!inbox.offer(Event::Started));
        assert_eq!(inbox.shed(), 1);
        inbox.answer(OP, Event::Stop);
        assert_eq!(inbox.len(), limits::INBOX + 1);
        assert!(matches!(inbox.take(Duration::ZERO), Some(Item::Unsolicited(Event::Started))));
        assert!(inbox.offer(Event::Started), "the slot is free again");
    }

    #[tokio::test]
    async fn what_comes_at_once_keeps_its_order_and_is_shed_from_its_end() {
        let inbox = Inbox::default();
        assert!((0..limits::INBOX - 1).all(|_| inbox.offer(Event::Started)));
        inbox.deliver_all(&mut vec![Event::Stop]).await.expect("the role runs");
        inbox.offer_all(&mut vec![Event::Stop, Event::Started, Event::Started]);
        assert_eq!((inbox.len(), inbox.shed()), (limits::INBOX + 1, 2));
        assert!((0..limits::INBOX - 1).all(|_| inbox.next_event(Duration::ZERO) == Some(Event::Started)));
        assert_eq!(inbox.next_event(Duration::ZERO), Some(Event::Stop));
        assert_eq!(inbox.next_event(Duration::ZERO), Some(Event::Stop));
        let mut more = vec![Event::Started; limits::INBOX + 1];
        let waiting = inbox.deliver_all(&mut more);
        let take = async {
            while inbox.next_event(Duration::ZERO).is_none() {
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(tokio::join!(waiting, take).0, Ok(()), "it goes in as slots become free");
        assert_eq!(inbox.len(), limits::INBOX);
    }

    #[test]
    fn a_reader_without_credits_is_told_and_gets_them_back() {
        let inbox = Inbox::default();
        assert!((0..limits::WATCH_CREDITS).all(|_| inbox.news(Event::Started)));
        assert!(!inbox.news(Event::Started));
        assert!(inbox.offer(Event::Started), "other input has slots of its own");
        assert!(inbox.take(Duration::ZERO).is_some());
        assert!(inbox.news(Event::Started));
    }

    #[tokio::test]
    async fn a_stream_waits_for_a_slot_and_hears_that_the_role_has_stopped() {
        let inbox = Inbox::default();
        inbox.deliver_all(&mut vec![Event::Started; limits::INBOX]).await.expect("there is room");
        let waiting = tokio::spawn({
            let inbox = inbox.clone();
            async move { (inbox.deliver(Event::Stop).await, inbox.deliver(Event::Stop).await) }
        });
        assert!(inbox.take(Duration::ZERO).is_some());
        while inbox.len() < limits::INBOX {
            tokio::task::yield_now().await;
        }
        assert!(inbox.offer(Event::Started), "streams take no datagram's slot");
        inbox.close();
        assert_eq!(waiting.await.expect("runs"), (Ok(()), Err(Closed)));
        assert!(inbox.is_empty());
    }
}
