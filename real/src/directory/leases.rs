//! Renewals: one stream a lease, used again for each, opened anew after any error.
//!
//! A renewal may be repeated: its holder counts from when it asked, which was before either. So a stream that turns out to
//! be over is replaced within the same operation.

use super::{calls::signed, link::Line, verdict::Verdict};
use etcd_client::{Error, LeaseKeepAliveStream, LeaseKeeper};
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

/// An open stream: what is sent on it is answered in order.
#[derive(Debug)]
struct Renewing {
    line: u64,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl Leases {
    /// Renews a lease: its time to live from when the directory renewed it.
    pub async fn keep_alive(&self, line: &Line, lease: LeaseId) -> Result<Duration, Verdict> {
        let slot = self.slot(lease);
        // Taken out while it is used: a renewal that is given up half-way leaves no answer behind for the next.
        let mut slot = slot.lock().await;
        if let Some(mut renewing) = slot.take().filter(|renewing| renewing.line == line.number)
            && let Ok(left) = renewing.renew().await
        {
            return self.conclude(lease, left, renewing, &mut slot);
        }
        let mut renewing = Renewing::open(line, lease).await?;
        let left = renewing.renew().await?;
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

impl Renewing {
    /// Opens a stream. The client renews once to do so, and keeps to itself for how long.
    async fn open(line: &Line, lease: LeaseId) -> Result<Self, Verdict> {
        match line.lease().keep_alive(signed(lease.get())).await {
            Ok((keeper, answers)) => Ok(Self { line: line.number, keeper, answers }),
            // The only error of this kind: the answer had no time to live left.
            Err(Error::LeaseKeepAliveError(_)) => Err(Verdict::Refused(Refusal::LeaseNotFound)),
            Err(error) => Err(error.into()),
        }
    }

    /// Renews: the time to live, or `None` where there is no such lease any more.
    async fn renew(&mut self) -> Result<Option<Duration>, Verdict> {
        self.keeper.keep_alive().await.map_err(|_| Verdict::Unknown)?;
        let answer = self.answers.message().await.map_err(|_| Verdict::Unknown)?.ok_or(Verdict::Unknown)?;
        let left_s = u64::try_from(answer.ttl()).ok().filter(|&left_s| left_s > 0);
        Ok(left_s.map(Duration::from_secs))
    }
}
