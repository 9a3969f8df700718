//! Watches: each a stream of its own, which outlives its connection where nothing can be missed.
//!
//! * One [`Event::Changed`] for each response of etcd. A response has whole revisions: etcd cuts a revision in two only for who
//!   asks for fragments. So where a watch goes on, it goes on behind the last revision that it has reported.
//! * It does not go on where that may miss something: the revision is compacted, the directory that answers is another one or
//!   an older state of it (a backup was restored), or no member has answered for [`RESUME`].
//! * A backup that was restored has the same cluster id, and may have passed the revision and the term that were seen. So the
//!   watch also looks at the key that changed last in what it knows: it must stand there as it was left. What is not noticed
//!   is a backup that has lost nothing but deletions from before the watch began, or whose last known deletion was made again
//!   or is of a key that it never had; for those, who must be sure scans.

use super::{
    Deadline, Shared,
    client::{Among, Changed, Coming, Latest, State, Told, Verdict, Watched},
    link::Line,
};
use futures_util::StreamExt as _;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};
use worldline_proto::{OpId, Revision};
use worldline_system::{
    Outcome, Refusal,
    doors::{
        self,
        directory::{Answer, Event, Family, GapCause},
    },
    outcome::End,
};

/// Watches of one node at the same time; one more is refused.
pub(super) const WATCHES: usize = 64;
/// How long a watch that has lost its connection looks for another before it has a gap.
const RESUME: Duration = Duration::from_secs(3);
/// The wait before the same connection is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// The watches that stand or are being set up, each with what ends it.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<BTreeMap<OpId, oneshot::Sender<()>>>);

impl Watches {
    /// Room for another watch, and how it hears that it is to end; `None` where there is none left.
    pub fn begin(&self, op: OpId) -> Option<oneshot::Receiver<()>> {
        let mut watches = self.lock();
        if watches.len() >= WATCHES {
            return None;
        }
        let (end, stop) = oneshot::channel();
        watches.insert(op, end);
        Some(stop)
    }

    /// Ends a watch; one that does not stand is ended already.
    pub fn end(&self, op: OpId) {
        self.lock().remove(&op);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<OpId, oneshot::Sender<()>>> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch that stands.
pub(super) struct Standing {
    line: Arc<Line>,
    news: Coming<Result<Told, GapCause>>,
    family: Family,
    /// The first revision that was not yet reported.
    next: Revision,
    seen: State,
    /// What changed last before the next revision.
    latest: Option<Latest>,
}

impl State {
    /// Whether `later` can be the same directory at a later time.
    fn precedes(self, later: Self) -> bool {
        self.cluster == later.cluster && self.term <= later.term && self.revision <= later.revision
    }
}

/// Sets a watch up, answers, and reports until it ends.
pub(super) async fn run(
    shared: &Shared,
    op: OpId,
    deadline: Deadline,
    family: Family,
    from: Revision,
    mut stop: oneshot::Receiver<()>,
) {
    let mut closing = shared.closing.subscribe();
    let ended = |end| {
        Answer::Watching(match end {
            End::Refused(refusal) => Outcome::Refused(refusal),
            End::Unknown => Outcome::Unknown,
        })
    };
    let outcome = tokio::select! {
        biased;
        _ = &mut stop => Err(End::Unknown),
        _ = closing.wait_for(|&closing| closing) => Err(End::Unknown),
        outcome = begin(shared, deadline, family, from) => outcome,
    };
    let standing = match outcome {
        Ok(standing) => standing,
        Err(end) => {
            shared.watches.end(op);
            return shared.answer(op, ended(end));
        }
    };
    shared.answer(op, Answer::Watching(Outcome::Done(())));
    let cause = tokio::select! {
        biased;
        _ = &mut stop => None,
        _ = closing.wait_for(|&closing| closing) => None,
        cause = report(shared, op, standing) => Some(cause),
    };
    shared.watches.end(op);
    if let Some(cause) = cause {
        shared.inbox.reserved(doors::Event::Directory(Event::Gap { watch: op, cause }));
    }
}

/// Sets a watch up by its deadline.
async fn begin(shared: &Shared, deadline: Deadline, family: Family, from: Revision) -> Result<Standing, End> {
    let by = deadline.by;
    let found_by = by.min(Instant::now() + super::link::CONNECT);
    let mut behind = 0;
    loop {
        let line = shared.link.line(behind, found_by).await.filter(|_| !deadline.is_over(&*shared.machine));
        let line = line.ok_or(End::Refused(Refusal::Unreachable))?;
        let number = line.number;
        match timeout_at(by, establish(line, family, from, None)).await {
            Ok(Ok(standing)) => return Ok(standing),
            Ok(Err(Verdict::NeverLeft)) => behind = number,
            Ok(Err(Verdict::Refused(refusal))) => {
                if refusal == Refusal::NoLeader {
                    shared.link.suspect(number);
                }
                return Err(End::Refused(refusal));
            }
            Ok(Err(Verdict::Unknown)) | Err(_) => return Err(End::Unknown),
        }
    }
}

/// Opens a watch on one connection; where something is known of the family already, that is looked at again.
pub(super) async fn establish(
    line: Arc<Line>,
    family: Family,
    from: Revision,
    known: Option<&Latest>,
) -> Result<Standing, Verdict> {
    let from = from.max(Revision(1));
    let Watched { state: seen, news } = line.connection.watch(family, from).await?;
    // etcd says that a watch stands and only then finds out that what it should begin with is gone.
    let latest = match known {
        None => line.connection.latest(Among::Family(family), from).await?,
        Some(known) => {
            let found = line.connection.latest(Among::Path(&known.path), from).await?;
            Some(found.unwrap_or_else(|| Latest::nothing_at(&known.path)))
        }
    };
    Ok(Standing { line, news, family, next: from, seen, latest })
}

/// Reports until there is a gap.
async fn report(shared: &Shared, op: OpId, mut watch: Standing) -> GapCause {
    loop {
        match watch.news.next().await {
            Some(Err(cause)) => return cause,
            Some(Ok(Told { state, changed })) => {
                watch.seen = state.unwrap_or(watch.seen);
                let Some(Changed { revision, changes, latest }) = changed else { continue };
                (watch.next, watch.latest) = (revision.next(), latest);
                if changes.is_empty() {
                    continue;
                }
                let changed = Event::Changed { watch: op, revision, changes };
                if !shared.inbox.news(doors::Event::Directory(changed)) {
                    return GapCause::Overflow;
                }
            }
            None => match resume(shared, watch).await {
                Ok(resumed) => watch = resumed,
                Err(cause) => return cause,
            },
        }
    }
}

#[cfg(test)]
impl Standing {
    /// The next changes, whatever they are.
    pub(super) async fn changed(&mut self) {
        while let Some(Ok(told)) = self.news.next().await {
            if let Some(Changed { revision, latest, .. }) = told.changed {
                (self.next, self.latest) = (revision.next(), latest);
                return;
            }
        }
    }
}

/// Goes on with a watch whose stream has ended, on whatever connection there is.
pub(super) async fn resume(shared: &Shared, watch: Standing) -> Result<Standing, GapCause> {
    let Standing { line, family, next, seen, latest, .. } = watch;
    let by = Instant::now() + RESUME;
    // The stream may have ended alone: for want of a leader.
    let mut candidate = Some(line);
    loop {
        let line = match candidate.take() {
            Some(line) => line,
            None => shared.link.line(0, by).await.ok_or(GapCause::Cancelled)?,
        };
        match timeout_at(by, establish(line, family, next, latest.as_ref())).await {
            Ok(Ok(resumed)) if seen.precedes(resumed.seen) && (latest.is_none() || latest == resumed.latest) => {
                return Ok(resumed);
            }
            Ok(Ok(_)) => return Err(GapCause::Cancelled),
            Ok(Err(Verdict::Refused(Refusal::Compacted { .. }))) => return Err(GapCause::Compacted),
            Ok(Err(_)) => sleep(AGAIN).await,
            Err(_) => return Err(GapCause::Cancelled),
        }
        if Instant::now() >= by {
            return Err(GapCause::Cancelled);
        }
    }
}
