//! The queue of all that is going to happen, ordered by (time, sequence): two things at the same time come out in the order
//! they went in.
//!
//! Three tiers over one slab, so that what waits stays where it was put and only keys of 16 bytes move. The *current* span
//! is a short sorted run, taken from its end. The near future is a *wheel* of spans, each an unsorted bucket that is sorted
//! when its turn comes. The *far* future is a four-ary heap, which a key leaves when the wheel has come near enough. The
//! width of a span follows what is scheduled, so that an event costs the same whether a hundred wait or ten thousand.
//! (R. Brown, "Calendar queues", CACM 31(10), 1988; the order never depends on the width.)

mod far;

use far::Far;

/// Bits of a key that name a slot: sixteen million things may wait at once.
const SLOT_BITS: u32 = 24;
/// Bits of a key that order what is due at the same time.
const SEQUENCE_BITS: u32 = 40;
/// Spans of the wheel.
const SPANS: usize = 1024;
const WORDS: usize = SPANS / 64;
/// A span is at first 2^14 ns wide, and at least 1 ns.
const WIDTH_BITS: u32 = 14;
/// At most 2^30 ns: the wheel then covers eighteen minutes.
const WIDTH_BITS_MAX: u32 = 30;
/// After so many turns of the wheel the width is looked at again.
const REVIEW: u32 = 4_096;
/// More keys than this in a span, on average, and spans are made narrower.
const CROWDED: u32 = 6;

/// Nothing is scheduled later than this, 146 years on.
const TIME_MAX: u64 = 1 << 62;

/// `time:64 | sequence:40 | slot:24`.
pub(crate) type Key = u128;

/// Where something waits.
pub(crate) struct Slot(u32);

#[derive(Clone)]
pub(crate) struct Queue<T> {
    /// Sorted, the first last.
    current: Vec<Key>,
    /// The current span ends before this.
    current_end: u64,
    /// Where the wheel ends: what is due then or later is far.
    horizon: u64,
    width_bits: u32,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    sequence: u64,
    wheel: Vec<Vec<Key>>,
    /// Which spans hold anything.
    filled: [u64; WORDS],
    far: Far,
    /// Since the last review: spans taken, keys in them, keys that were far at first, and those that would have been far
    /// with spans of half the width.
    turns: u32,
    taken: u32,
    went_far: u32,
    went_half: u32,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            current: Vec::new(),
            current_end: 1 << WIDTH_BITS,
            horizon: (SPANS as u64) << WIDTH_BITS,
            width_bits: WIDTH_BITS,
            slots: Vec::new(),
            free: Vec::new(),
            sequence: 0,
            wheel: vec![Vec::new(); SPANS],
            filled: [0; WORDS],
            far: Far::default(),
            turns: 0,
            taken: 0,
            went_far: 0,
            went_half: 0,
        }
    }

    /// How many things wait.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn push(&mut self, at: u64, what: T) {
        self.push_with(at, || what);
    }

    /// Inlined, so that what is pushed is written where it will wait and not moved there.
    #[inline(always)]
    pub(crate) fn push_with(&mut self, at: u64, what: impl FnOnce() -> T) {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.grow(),
        };
        let place = &mut self.slots[slot as usize];
        assert!(place.is_none(), "a free slot is empty");
        *place = Some(what());
        let at = at.min(TIME_MAX);
        let key = Key::from(at) << 64 | Key::from(self.sequence << SLOT_BITS | u64::from(slot));
        self.sequence += 1;
        debug_assert!(self.sequence < 1 << SEQUENCE_BITS, "a run ends before it has scheduled 10^12 events");
        if at >= self.current_end && at < self.horizon {
            self.place(at, key);
        } else {
            self.place_elsewhere(at, key);
        }
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        let slot = self.slots.len() as u32;
        assert!(slot < 1 << SLOT_BITS, "sixteen million events wait: something feeds itself");
        self.slots.push(None);
        slot
    }

    #[inline]
    fn place(&mut self, at: u64, key: Key) {
        self.went_half += u32::from(at - self.current_end > (SPANS as u64 / 2) << self.width_bits);
        let span = (at >> self.width_bits) as usize % SPANS;
        self.filled[span / 64] |= 1 << (span % 64);
        self.wheel[span].push(key);
    }

    fn place_elsewhere(&mut self, at: u64, key: Key) {
        if at >= self.horizon {
            self.went_far += 1;
            self.far.push(key);
            return;
        }
        let place = self.current.partition_point(|&other| other > key);
        self.current.insert(place, key);
    }

    /// When the first thing is due.
    #[inline]
    pub(crate) fn next_at(&mut self) -> Option<u64> {
        if self.current.is_empty() && !self.turn() {
            return None;
        }
        self.current.last().map(|key| (key >> 64) as u64)
    }

    /// When and where the first thing is, if it is due at `until` or before. It must be taken next.
    #[inline]
    pub(crate) fn pop(&mut self, until: u64) -> Option<(u64, Slot)> {
        let at = self.next_at()?;
        if at > until {
            return None;
        }
        Some((at, Slot(self.current.pop()? as u32 & ((1 << SLOT_BITS) - 1))))
    }

    /// What [`Self::pop`] has found, in its place. A part may be taken out of it; then it must be dropped.
    #[inline]
    pub(crate) fn peek_mut(&mut self, slot: &Slot) -> &mut T {
        self.slots[slot.0 as usize].as_mut().expect("a key names a filled slot")
    }

    /// Drops what [`Self::pop`] has found.
    #[inline]
    pub(crate) fn drop_at(&mut self, slot: Slot) {
        self.free.push(slot.0);
        self.slots[slot.0 as usize] = None;
    }

    /// Takes out what [`Self::pop`] has found.
    pub(crate) fn take(&mut self, slot: Slot) -> T {
        self.free.push(slot.0);
        self.slots[slot.0 as usize].take().expect("a key names a filled slot")
    }

    /// Makes the next span that holds anything the current one. `false` where nothing waits.
    fn turn(&mut self) -> bool {
        if self.turns >= REVIEW {
            self.review();
        }
        let begin = match self.next_filled() {
            Some(begin) => begin,
            None => match self.far.first() {
                Some(key) => (key >> 64) as u64 >> self.width_bits << self.width_bits,
                None => return false,
            },
        };
        self.current_end = begin + (1 << self.width_bits);
        self.horizon = begin + ((SPANS as u64) << self.width_bits);
        let span = (begin >> self.width_bits) as usize % SPANS;
        std::mem::swap(&mut self.current, &mut self.wheel[span]);
        self.filled[span / 64] &= !(1 << (span % 64));
        self.come_near();
        if self.current.len() > 1 {
            self.current.sort_unstable_by(|a, b| b.cmp(a));
        }
        self.turns += 1;
        self.taken += self.current.len() as u32;
        true
    }

    /// Takes from the far future what the wheel has reached.
    fn come_near(&mut self) {
        while let Some(key) = self.far.first()
            && ((key >> 64) as u64) < self.horizon
        {
            self.far.pop();
            let at = (key >> 64) as u64;
            if at < self.current_end {
                self.current.push(key);
            } else {
                self.place(at, key);
            }
        }
    }

    /// Where the first filled span of the wheel begins.
    fn next_filled(&self) -> Option<u64> {
        let first = self.current_end >> self.width_bits;
        let start = first as usize % SPANS;
        let found = |span: usize| {
            let ahead = (span + SPANS - start) % SPANS;
            Some((first + ahead as u64) << self.width_bits)
        };
        let word = self.filled[start / 64] >> (start % 64);
        if word != 0 {
            return found(start + word.trailing_zeros() as usize);
        }
        for step in 1..=WORDS {
            let at = (start / 64 + step) % WORDS;
            if self.filled[at] != 0 {
                return found(at * 64 + self.filled[at].trailing_zeros() as usize);
            }
        }
        None
    }

    /// Makes spans narrower where they are crowded, and wider where much goes far.
    #[cold]
    fn review(&mut self) {
        let crowded = self.taken > self.turns * CROWDED && self.went_half + self.went_far < self.taken / 8;
        let wide = self.went_far > self.taken / 4;
        (self.turns, self.taken, self.went_far, self.went_half) = (0, 0, 0, 0);
        let width_bits = match (crowded, wide) {
            (true, _) => self.width_bits.saturating_sub(1),
            (_, true) => (self.width_bits + 1).min(WIDTH_BITS_MAX),
            _ => return,
        };
        if width_bits == self.width_bits {
            return;
        }
        // Between two spans nothing is current: the wheel begins anew where the last span ended.
        self.width_bits = width_bits;
        let begin = self.current_end >> width_bits << width_bits;
        self.current_end = begin;
        self.horizon = begin + ((SPANS as u64) << width_bits);
        let mut keys = Vec::new();
        self.wheel.iter_mut().for_each(|span| keys.append(span));
        self.filled = [0; WORDS];
        for key in keys {
            let at = (key >> 64) as u64;
            if at < self.horizon { self.place(at, key) } else { self.far.push(key) }
        }
        self.come_near();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pop<T>(queue: &mut Queue<T>, until: u64) -> Option<(u64, T)> {
        let (at, slot) = queue.pop(until)?;
        Some((at, queue.take(slot)))
    }

    /// Pushes and pops in turn, with delays of many sizes, and compares with a sorted vector.
    fn compare(delay_bits: impl Fn(u64) -> u64, n: u64) {
        let mut queue = Queue::new();
        let mut expected = std::collections::BTreeSet::new();
        let (mut state, mut now) = (1_u64, 0);
        let check = |queue: &mut Queue<u64>, expected: &mut std::collections::BTreeSet<(u64, u64)>| {
            assert_eq!(queue.next_at(), expected.first().map(|first| first.0));
            let first = expected.pop_first();
            assert_eq!(pop(queue, u64::MAX), first);
            first.map_or(0, |first| first.0)
        };
        for n in 0..n {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = now + (state >> (64 - delay_bits(n)));
            queue.push(at, n);
            expected.insert((at, n));
            if n > 100 && n % 50 != 0 {
                now = check(&mut queue, &mut expected);
            }
        }
        assert_eq!(queue.len(), expected.len());
        while !expected.is_empty() {
            check(&mut queue, &mut expected);
        }
        assert_eq!((queue.len(), queue.next_at(), pop(&mut queue, u64::MAX)), (0, None, None));
    }

    #[test]
    fn things_come_out_by_time_and_those_of_one_time_in_the_order_they_went_in() {
        compare(|_| 4, 20_000);
        compare(|_| 22, 60_000);
        compare(|n| 1 + n % 40, 60_000);
        // Long delays first and short ones later: the width goes up, and down again.
        compare(|n| if n < 40_000 { 36 } else { 12 }, 120_000);
    }

    #[test]
    fn nothing_comes_before_its_time() {
        let mut queue = Queue::new();
        queue.push(1 << 50, 'b');
        queue.push(5, 'a');
        assert_eq!(pop(&mut queue, 4), None);
        assert_eq!(pop(&mut queue, 5), Some((5, 'a')));
        assert_eq!(pop(&mut queue, (1 << 50) - 1), None);
        queue.push(u64::MAX, 'c'); // the end of time
        // Looking ahead has moved the wheel: what is scheduled before it still comes first.
        queue.push(7, 'd');
        assert_eq!(pop(&mut queue, u64::MAX), Some((7, 'd')));
        assert_eq!(pop(&mut queue, u64::MAX), Some((1 << 50, 'b')));
        assert_eq!(pop(&mut queue, u64::MAX), Some((TIME_MAX, 'c')));
    }
}
