//! What the kernel says of this process: the time that its threads computed, and its memory.

use std::fs;
use worldline_system::time::Duration;

/// A thread of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thread(i32);

impl Thread {
    /// The calling one.
    pub fn this() -> Self {
        Self(rustix::thread::gettid().as_raw_pid())
    }

    /// How long it has computed. `None` where the kernel does not count that, or the thread is gone.
    pub fn computed(self) -> Option<Duration> {
        let text = fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.0)).ok()?;
        text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }
}

/// How long all threads have computed.
pub(super) fn computed() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    Duration::from_nanos(seconds.unwrap_or(0) * 1_000_000_000 + nanos.unwrap_or(0))
}

/// What lies in memory, by kind, in bytes.
pub(super) fn memory() -> Vec<(&'static str, i64)> {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<i64>().ok()?.checked_mul(1_024)
    };
    [("anonymous", "RssAnon"), ("file", "RssFile"), ("shared", "RssShmem")]
        .into_iter()
        .filter_map(|(kind, name)| Some((kind, bytes(name)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_computes_and_has_memory() {
        let (before, thread) = (computed(), Thread::this());
        let mut sum = 0_u64;
        while computed() <= before || thread.computed().is_some_and(|computed| computed == Duration::ZERO) {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 7);
        }
        let memory = memory();
        assert!(memory.iter().any(|(kind, bytes)| *kind == "anonymous" && *bytes > 4_096), "{memory:?}");
    }
}
