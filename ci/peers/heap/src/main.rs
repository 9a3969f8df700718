//! The limit: a binary heap of deliveries and nothing else. No connection, no link, no clock, no role.

use common::{PING, PONG, arguments, cpu_s, fold, report, wall_s};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use std::{cmp::Reverse, collections::BinaryHeap};

/// Ordered by its fields: time first, then the order of sending.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Delivery {
    at_ns: u64,
    id: u64,
    to: u32,
    from: u32,
    kind: u8,
    sequence: u64,
    rest: [u8; 7],
}

fn main() {
    let (n, seconds) = arguments();
    let mut generator = ChaCha8Rng::seed_from_u64(42);
    let mut delay_ns = move || 1_000_000 + (u64::from(generator.next_u32()) * 9_000_000 >> 32);
    let mut heap = BinaryHeap::new();
    let (mut id, mut messages, mut hash) = (0, 0_u64, 0);
    let next = |node: u32| (node + 1) % n as u32;
    let (begin, begin_cpu) = (wall_s(), cpu_s());
    for from in 0..n as u32 {
        heap.push(Reverse(Delivery {
            at_ns: delay_ns(),
            id,
            to: next(from),
            from,
            kind: PING,
            sequence: 0,
            rest: [0; 7],
        }));
        id += 1;
    }
    while let Some(Reverse(it)) = heap.pop() {
        messages += 1;
        hash = fold(hash, it.at_ns, it.to.into(), it.sequence);
        let (kind, sequence, to) =
            if it.kind == PING { (PONG, it.sequence, it.from) } else { (PING, it.sequence + 1, next(it.to)) };
        let at_ns = it.at_ns + delay_ns();
        heap.push(Reverse(Delivery { at_ns, id, to, from: it.to, kind, sequence, rest: it.rest }));
        id += 1;
        if messages.is_multiple_of(1 << 18) && cpu_s() - begin_cpu > seconds {
            break;
        }
    }
    report("heap", n, (wall_s() - begin, cpu_s() - begin_cpu), messages, hash);
}
