//! The queue of all that is going to happen, ordered by (time, sequence).
//!
//! A four-ary heap of packed 128-bit keys over a slab: what waits stays where it was put, and only keys move. Two things
//! at the same time come out in the order they went in. Taking the first leaves a hole at the root that the next insertion
//! fills, since handling an event mostly schedules another.

/// Bits of a key that name a slot: sixteen million things may wait at once.
const SLOT_BITS: u32 = 24;
/// Bits of a key that order what is due at the same time.
const SEQUENCE_BITS: u32 = 40;

#[derive(Clone)]
pub(crate) struct Queue<T> {
    /// `time:64 | sequence:40 | slot:24`. While `hole` is set, the first key is spent.
    heap: Vec<u128>,
    hole: bool,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: Vec::new(), hole: false, slots: Vec::new(), free: Vec::new(), sequence: 0 }
    }

    /// How many things wait.
    pub(crate) fn len(&self) -> usize {
        self.heap.len() - usize::from(self.hole)
    }

    #[inline]
    pub(crate) fn push(&mut self, at: u64, what: T) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(what);
                slot
            }
            None => {
                let slot = self.slots.len() as u32;
                assert!(slot < 1 << SLOT_BITS, "sixteen million events wait: something feeds itself");
                self.slots.push(Some(what));
                slot
            }
        };
        let key = u128::from(at) << 64 | u128::from(self.sequence << SLOT_BITS | u64::from(slot));
        self.sequence += 1;
        assert!(self.sequence < 1 << SEQUENCE_BITS, "a run ends before it has scheduled 10^12 events");
        if self.hole {
            self.hole = false;
            self.sift_down(key);
        } else {
            self.heap.push(key);
            self.sift_up(self.heap.len() - 1, key);
        }
    }

    /// When the first thing is due.
    #[inline]
    pub(crate) fn next_at(&mut self) -> Option<u64> {
        self.fill();
        self.heap.first().map(|key| (key >> 64) as u64)
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        self.fill();
        let key = *self.heap.first()?;
        self.hole = true;
        let slot = key as u32 & ((1 << SLOT_BITS) - 1);
        self.free.push(slot);
        let what = self.slots[slot as usize].take().expect("a key names a filled slot");
        Some(((key >> 64) as u64, what))
    }

    /// Closes the hole that the last `pop` left.
    #[inline]
    fn fill(&mut self) {
        if self.hole {
            self.hole = false;
            if let Some(last) = self.heap.pop()
                && !self.heap.is_empty()
            {
                self.sift_down(last);
            }
        }
    }

    /// Puts `key` where it belongs, beginning at the root, whose own key is spent.
    #[inline]
    fn sift_down(&mut self, key: u128) {
        let heap = &mut self.heap[..];
        let mut at = 0;
        loop {
            let first = 4 * at + 1;
            let (least, child) = if let Some(&[a, b, c, d]) = heap.get(first..first + 4) {
                let left = if b < a { (b, first + 1) } else { (a, first) };
                let right = if d < c { (d, first + 3) } else { (c, first + 2) };
                if right.0 < left.0 { right } else { left }
            } else {
                let Some(rest) = heap.get(first..) else { break };
                let Some((i, &least)) = rest.iter().enumerate().min_by_key(|&(_, key)| key) else { break };
                (least, first + i)
            };
            if key < least {
                break;
            }
            heap[at] = least;
            at = child;
        }
        heap[at] = key;
    }

    #[inline]
    fn sift_up(&mut self, mut at: usize, key: u128) {
        let heap = &mut self.heap[..];
        while at > 0 {
            let parent = (at - 1) / 4;
            if heap[parent] < key {
                break;
            }
            heap[at] = heap[parent];
            at = parent;
        }
        heap[at] = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_out_by_time_and_those_of_one_time_in_the_order_they_went_in() {
        let mut queue = Queue::new();
        let mut expected = Vec::new();
        let mut state = 1_u64;
        for n in 0..5_000_u64 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = state >> 58;
            queue.push(at, n);
            expected.push((at, n));
            if n % 3 == 0 {
                // Taking some out in between exercises the hole at the root.
                expected.sort_unstable();
                assert_eq!(queue.pop(), Some(expected.remove(0)));
            }
        }
        expected.sort_unstable();
        for pair in expected {
            assert_eq!(queue.next_at(), Some(pair.0));
            assert_eq!(queue.pop(), Some(pair));
        }
        assert_eq!(queue.pop(), None);
        assert_eq!((queue.len(), queue.next_at()), (0, None));
    }
}
