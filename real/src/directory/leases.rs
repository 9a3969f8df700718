//! Renewals: one stream a lease, used again for each, opened anew after any error.
//!
//! A renewal may be repeated: its holder counts from when it asked, which was before either. So a stream that turns out to
//! be over is replaced within the same operation.

use super::{
    client::{Renewals, Verdict},
    link::Line,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};
use worldline_proto::LeaseId;
use worldline_system::{Refusal, time::Duration};

/// Leases whose streams are kept open. A process holds one or two.
const LEASES: usize = 64;

/// The open streams.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<BTreeMap<LeaseId, Slot>>);

type Slot = Arc<tokio::sync::Mutex<Option<Renewing>>>;

/// An open stream, and on which connection.
#[derive(Debug)]
struct Renewing {
    line: u64,
    stream: Box<dyn Renewals>,
}

impl Leases {
    /// Renews a lease: its time to live from when the directory renewed it. `asked` is set where a stream has ended on which that
    /// was asked for: it may be renewed, whatever becomes of the next.
    pub async fn keep_alive(&self, line: &Line, lease: LeaseId, asked: &mut bool) -> Result<Duration, Verdict> {
        let slot = self.slot(lease);
        // Taken out while it is used: a renewal that is given up half-way leaves no answer behind for the next.
        let mut slot = slot.lock().await;
        if let Some(mut renewing) = slot.take().filter(|renewing| renewing.line == line.number) {
            if let Ok(left) = renewing.stream.renew().await {
                return self.conclude(lease, left, renewing, &mut slot);
            }
            *asked = true;
        }
        let mut renewing = Renewing { line: line.number, stream: line.connection.renewals(lease).await? };
        let left = renewing.stream.renew().await?;
        self.conclude(lease, left, renewing, &mut slot)
    }

    fn conclude(
        &self,
        lease: LeaseId,
        left: Option<Duration>,
        renewing: Renewing,
        slot: &mut Option<Renewing>,
    ) -> Result<Duration, Verdict> {
        match left {
            Some(left) => {
                *slot = Some(renewing);
                Ok(left)
            }
            None => {
                self.slots().remove(&lease);
                Err(Verdict::Refused(Refusal::LeaseNotFound))
            }
        }
    }

    fn slot(&self, lease: LeaseId) -> Slot {
        let mut slots = self.slots();
        if slots.len() >= LEASES && !slots.contains_key(&lease) {
            slots.clear();
        }
        slots.entry(lease).or_default().clone()
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, BTreeMap<LeaseId, Slot>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
