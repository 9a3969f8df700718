//! What the peers share: the frame, the trace hash, and the line that they report.
//!
//! The workload: N nodes in a ring. Each keeps one ping of 16 bytes outstanding to its neighbour and answers the pings of
//! its other one. Delays lie between 1 and 10 ms.

use std::{env, fs};

pub const PING: u8 = 0;
pub const PONG: u8 = 1;

/// The arguments `N SECONDS`: how many nodes, and for how long by the wall clock.
pub fn arguments() -> (usize, f64) {
    let mut arguments = env::args().skip(1);
    let n = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(100);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    (n, seconds)
}

/// Sixteen bytes: the kind and a sequence number.
pub fn frame(kind: u8, sequence: u64) -> [u8; 16] {
    let mut frame = [0; 16];
    frame[0] = kind;
    frame[8..].copy_from_slice(&sequence.to_le_bytes());
    frame
}

/// Reads a frame back.
pub fn parse(frame: &[u8]) -> (u8, u64) {
    (frame[0], u64::from_le_bytes(frame[8..16].try_into().expect("a frame has sixteen bytes")))
}

/// Folds one delivery into the trace hash.
#[inline]
pub fn fold(hash: u64, at_ns: u64, node: u64, sequence: u64) -> u64 {
    let mixed = hash ^ at_ns.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ node.rotate_left(40) ^ sequence.rotate_left(17);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ mixed >> 32
}

/// Seconds of the machine's own clock. Read from a file: a simulator may answer for the system call. Steps of 10 ms.
pub fn wall_s() -> f64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0)
}

/// Seconds that this process has run, in user and system. Steps of 10 ms.
pub fn cpu_s() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// One line for `ci/bench`. On a machine that others use too, the core's own seconds say more than those of the wall.
pub fn report(name: &str, n: usize, (wall_s, cpu_s): (f64, f64), messages: u64, hash: u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak_kb = peak.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
    println!(
        "{name} n={n} wall_s={wall_s:.3} cpu_s={cpu_s:.3} msgs={messages} msgs_per_wall_s={:.0} msgs_per_cpu_s={:.0} \
         peak_rss_mb={:.1} trace={hash:016x}",
        messages as f64 / wall_s,
        messages as f64 / cpu_s,
        peak_kb / 1024.0
    );
}
