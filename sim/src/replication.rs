//! What the replicated services share: a disk that syncs late and may lie, and the way of a message over a link.
//!
//! Deliberately absent: who may lead. The directory elects by Raft, the ledger promotes a synchronous standby.

use crate::{Core, entropy::below};
use worldline_proto::NodeId;
use worldline_system::time::{Duration, Instant};

/// The first wait before a lost segment is sent again; it doubles up to [`RETRANSMIT_MAX`] (TCP's minimal timeout on Linux).
pub(crate) const RETRANSMIT: Duration = Duration::from_millis(200);
/// The longest wait before a lost segment is sent again.
pub(crate) const RETRANSMIT_MAX: Duration = Duration::from_millis(1_600);

/// When the `attempt`-th copy of a lost segment leaves, counted from 0.
pub(crate) fn retransmit_at(now: Instant, attempt: u8) -> Instant {
    now + RETRANSMIT.min(RETRANSMIT_MAX) * (1 << attempt.min(3))
}

/// How long one message over a standing connection takes: a lost segment costs a retransmission. `None` where the link is
/// cut or the sender is gone: then the connection breaks, and who keeps it up sends anew.
pub(crate) fn carry(core: &mut Core, from: NodeId, to: NodeId) -> Option<Duration> {
    const LOST_IN_A_ROW: u64 = 3;
    if !core.linked(from, to) {
        return None;
    }
    (0..LOST_IN_A_ROW).find_map(|lost| Some(RETRANSMIT * lost + core.hop(from, to)?))
}

/// A round trip as a handshake sees it; a lost packet costs a retransmission.
pub(crate) fn round_trip(core: &mut Core, from: NodeId, to: NodeId) -> Duration {
    let there = core.hop(from, to).unwrap_or(RETRANSMIT);
    there + core.hop(to, from).unwrap_or(RETRANSMIT)
}

/// Whether packets pass both ways.
pub(crate) fn reachable(core: &Core, a: NodeId, b: NodeId) -> bool {
    a == b || core.linked(a, b) && core.linked(b, a)
}

/// Members that make a majority of `members`.
pub(crate) const fn quorum(members: usize) -> usize {
    members / 2 + 1
}

/// Whether a draw of 64 bits falls below this many in a thousand.
pub(crate) const fn happens(bits: u64, permille: u16) -> bool {
    below(bits, 1_000) < permille as u64
}

/// The log device of a member. It counts entries: written, synced as it says, and durable in truth.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Slower than a healthy disk, in thousandths.
    factor_permille: u32,
    /// It reports a sync complete and has kept nothing.
    lies: bool,
    /// The entry up to which a sync is under way.
    syncing: Option<u64>,
    synced: u64,
    durable: u64,
    /// Counts syncs, for the draws.
    syncs: u64,
}

impl Disk {
    pub fn new() -> Self {
        Self { factor_permille: 1_000, lies: false, syncing: None, synced: 0, durable: 0, syncs: 0 }
    }

    pub fn slow_down(&mut self, factor_permille: u32) {
        self.factor_permille = factor_permille;
    }

    pub fn lie(&mut self, on: bool) {
        self.lies = on;
    }

    /// What the disk says is safe.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// What a power loss would leave.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Begins to sync everything up to `written`, unless that is synced or a sync is under way: then the next one covers
    /// it (group commit). `time` says how long it takes on a healthy disk; the count says which sync it is.
    pub fn begin(&mut self, written: u64, time: impl FnOnce(u64) -> Duration) -> Option<Duration> {
        if self.syncing.is_some() || written <= self.synced {
            return None;
        }
        self.syncing = Some(written);
        self.syncs += 1;
        Some(time(self.syncs) * u64::from(self.factor_permille) / 1_000)
    }

    /// The sync that was under way is complete, so the disk says. Returns up to where.
    pub fn finish(&mut self) -> u64 {
        if let Some(written) = self.syncing.take() {
            self.synced = self.synced.max(written);
            if !self.lies {
                self.durable = self.synced;
            }
        }
        self.synced
    }

    /// Entries behind `end` are written over or thrown away.
    pub fn truncate(&mut self, end: u64) {
        self.syncing = self.syncing.map(|written| written.min(end));
        self.synced = self.synced.min(end);
        self.durable = self.durable.min(end);
    }

    /// Everything up to `end` arrived and was synced as one whole: a snapshot.
    pub fn replace(&mut self, end: u64) {
        (self.syncing, self.synced, self.durable) = (None, end, end);
    }

    /// The process is gone and its machine lives: what it was told to be safe is. Returns the last entry that is left.
    pub fn lose_process(&mut self) -> u64 {
        self.syncing = None;
        self.durable = self.synced;
        self.durable
    }

    /// The power is gone. Returns the last entry that is left.
    pub fn lose_power(&mut self) -> u64 {
        self.syncing = None;
        self.synced = self.durable;
        self.durable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYNC: Duration = Duration::from_millis(1);

    #[test]
    fn a_power_loss_keeps_what_was_synced_and_nothing_else() {
        let mut disk = Disk::new();
        assert!(disk.begin(3, |_| SYNC).is_some());
        assert_eq!(disk.begin(5, |_| SYNC), None, "one sync at a time");
        assert_eq!(disk.finish(), 3);
        assert!(disk.begin(5, |_| SYNC).is_some());
        assert_eq!(disk.lose_power(), 3, "the second sync was under way");
    }

    #[test]
    fn a_disk_that_lies_says_synced_and_loses_it() {
        let mut disk = Disk::new();
        disk.lie(true);
        disk.begin(7, |_| SYNC);
        assert_eq!(disk.finish(), 7);
        assert_eq!(disk.lose_power(), 0);
        disk.lie(false);
        disk.begin(8, |_| SYNC);
        disk.finish();
        assert_eq!(disk.lose_power(), 8);
    }

    #[test]
    fn what_is_cut_off_while_it_is_synced_does_not_count() {
        let mut disk = Disk::new();
        disk.begin(9, |_| SYNC);
        disk.truncate(4);
        assert_eq!(disk.finish(), 4, "entries 5 to 9 were replaced by others");
    }
}
